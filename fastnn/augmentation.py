"""More training images from those that there are."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from fastnn import checks
from fastnn.checks import Array

__all__ = ["random_shift"]

_CHUNK_BYTES = 1 << 20
"""Of images moved at a time: few enough to be in cache until the last of them is written."""

Steps = NDArray[np.int64]


def random_shift(
    images: ArrayLike, pixels: int = 1, *, rng: np.random.Generator | None = None
) -> Array:
    """Return a copy of images in which each is moved by up to `pixels` pixels both ways.

    Each is moved down by one of -`pixels` to `pixels`, and to the right by another, all equally
    likely; what comes in at the edges is zero. A network that sees its training images at other
    places in every epoch learns less of them by heart.

    Parameters
    ----------
    images : array_like, [n, height, width] or [n, height * width]
        Of any real dtype, such as raw pixels. Images that are rows of pixels are taken as square.
    pixels
        The furthest move, at least 1.
    rng
        Draws the moves; by default a fresh ``default_rng()``.

    Returns
    -------
    ndarray of the shape and dtype of `images`

    Raises
    ------
    ValueError
        If `images` has another shape, or rows whose length is no square, or if there are none; if
        `pixels` is below 1, or not below height and width.
    TypeError
        If `images` does not hold real numbers, `pixels` is no integer, or `rng` no Generator.
    """
    array = checks.filled("images", images)
    pixels = checks.integer("pixels", pixels, minimum=1)
    if not isinstance(rng, np.random.Generator | None):
        raise TypeError(f"rng: expected a numpy.random.Generator or None, got {rng!r}")
    n, height, width = _shape(array)
    if pixels >= min(height, width):
        raise ValueError(
            f"pixels: expected less than height and width of the images, {height} and {width}, "
            f"got {pixels}"
        )
    rng = np.random.default_rng() if rng is None else rng
    down, right = rng.integers(-pixels, pixels, (2, n), endpoint=True)
    moved = np.empty((n, height, width), array.dtype)
    step = max(1, _CHUNK_BYTES // (height * width * array.itemsize))
    for start in range(0, n, step):
        part = slice(start, start + step)
        _move(array[part], down[part], right[part], pixels, moved[part])
    return moved.reshape(array.shape)


def _move(images: Array, down: Steps, right: Steps, most: int, moved: Array) -> None:
    """Write images into `moved`, each by so many pixels further down and to the right.

    In one long row of pixels a move is one along the row, so an image is copied as a whole. What
    comes in from its neighbours, or from its own other side, is then made zero. (To cut windows of
    two dimensions out of padded images needs no such repair, but copies 28 pixels at a time: it
    takes twice as long.)
    """
    n, height, width = moved.shape
    size = height * width
    margin = most * (width + 1)
    windows = sliding_window_view(np.pad(images.reshape(-1), margin), size)
    starts = margin + np.arange(n) * size - (down * width + right)
    moved[...] = windows[starts].reshape(moved.shape)
    for edge in range(most):
        moved[down > edge, edge] = 0
        moved[down < -edge, -1 - edge] = 0
        moved[right > edge, :, edge] = 0
        moved[right < -edge, :, -1 - edge] = 0


def _shape(images: Array) -> tuple[int, int, int]:
    """Return n, height and width."""
    if images.ndim == 3:
        n, height, width = images.shape
        return n, height, width
    side = math.isqrt(images.shape[1]) if images.ndim == 2 else 0
    if images.ndim != 2 or side * side != images.shape[1]:
        raise ValueError(
            "images: expected shape [n, height, width], or [n, pixels] of square images, got "
            f"{images.shape}"
        )
    return len(images), side, side
