"""Digits drawn with a pen, for tests of what reads them."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray


def _arc(x: float, y: float, across: float, down: float, begin: float, end: float) -> list:
    angles = (math.radians(angle) for angle in np.linspace(begin, end, 30))
    return [(x + across * math.cos(angle), y + down * math.sin(angle)) for angle in angles]


STROKES = (
    [_arc(0.5, 0.7, 0.42, 0.66, -90, 270)],
    [[(0.52, 0.05), (0.5, 1.35)]],
    [[*_arc(0.48, 0.4, 0.38, 0.36, 190, 385), (0.7, 0.75), (0.1, 1.32), (0.95, 1.3)]],
    [_arc(0.42, 0.36, 0.38, 0.32, 200, 440) + _arc(0.42, 1.02, 0.46, 0.36, -80, 160)],
    [[(0.35, 0.05), (0.08, 0.8), (0.95, 0.78)], [(0.72, 0.1), (0.68, 1.38)]],
    [[(0.9, 0.06), (0.2, 0.08), (0.15, 0.62), *_arc(0.42, 0.95, 0.46, 0.42, -110, 150)]],
    [_arc(0.95, 0.95, 0.85, 0.9, -105, -180) + _arc(0.5, 1, 0.4, 0.36, 180, 540)],
    [[(0.05, 0.12), (0.92, 0.1), (0.4, 1.38)]],
    [_arc(0.5, 0.38, 0.33, 0.33, 90, 450) + _arc(0.5, 1.03, 0.4, 0.34, -90, 270)],
    [[*_arc(0.48, 0.42, 0.36, 0.38, 0, 360), (0.84, 0.42), (0.8, 0.9), (0.66, 1.38)]],
)
"""The strokes of each digit, as points (x, y) in a box that is 1 wide and 1.4 high."""


def strokes(digit: int, height: float, middle: tuple[float, float]) -> list[list]:
    """Return the strokes of a digit as points in pixels."""
    scale, (x, y) = height / 1.4, middle
    return [[(x + scale * (u - 0.5), y + scale * (v - 0.7)) for u, v in s] for s in STROKES[digit]]


def drawn(
    digit: int,
    *,
    size: tuple[int, int] = (240, 320),
    height: float = 180,
    middle: tuple[float, float] = (120, 160),
    pen: int = 15,
) -> NDArray[np.float64]:
    """Return the ink of a digit, from 0 to 1; `size` is width and height."""
    from PIL import Image, ImageDraw

    # twice as large, then averaged: the edges become grey
    picture = Image.new("L", (2 * size[0], 2 * size[1]))
    draw = ImageDraw.Draw(picture)
    for stroke in strokes(digit, height, middle):
        points = [(2 * x, 2 * y) for x, y in stroke]
        draw.line(points, fill=255, width=2 * pen, joint="curve")
        for x, y in points:
            draw.ellipse((x - pen, y - pen, x + pen, y + pen), fill=255)
    return np.asarray(picture.resize(size, Image.Resampling.BOX)) / 255


def as_file(pixels: NDArray, format: str = "PNG", **options) -> io.BytesIO:
    """Return a picture of pixels from 0 to 1: grey [h, w] or RGBA [h, w, 4]."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.uint8(np.clip(255 * pixels, 0, 255) + 0.5)).save(file, format, **options)
    file.seek(0)
    return file


def photo(ink: NDArray, rng: np.random.Generator, noise: float = 0.04) -> io.BytesIO:
    """Return a JPEG of grey ink on paper that light falls on from one side, out of focus."""
    from PIL import Image, ImageFilter

    y, x = (np.linspace(-1, 1, side) for side in ink.shape)
    across, down = rng.uniform(-0.18, 0.18, 2)
    paper = 0.7 + across * x + down * y[:, np.newaxis] - 0.06 * (x**2 + y[:, np.newaxis] ** 2)
    sharp = Image.fromarray(np.uint8(255 * np.clip(paper * (1 - 0.5 * ink), 0, 1)))
    blurred = np.asarray(sharp.filter(ImageFilter.GaussianBlur(1.2))) / 255
    return as_file(blurred + noise * rng.normal(size=ink.shape), "JPEG", quality=60)
