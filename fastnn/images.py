"""From a picture of a drawn digit to what MNIST would have made of it; needs Pillow.

A picture becomes ink, from 0 on paper to 1 in a stroke (`ink`), and ink becomes 28 by 28 pixels
(`centred`). The second half is in `page.html` as well, in JavaScript: a drawing there is ink from
the start.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from itertools import takewhile
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastnn import checks, extras
from fastnn.checks import Array
from fastnn.layers import Rescaling, keeps_width

if TYPE_CHECKING:
    from PIL.Image import Image

    from fastnn.network import Network

SIDE, BOX = 28, 20
"""Of MNIST's images, and of the square in them that a digit fits into, in pixels."""

WORKING_SIDES = 320, 160, 80
"""Larger pictures are made as small as the first; where noise hides the strokes, smaller still, as
that averages it away."""

FAINTEST = 0.04
"""Of ink against its paper, where black against white is 1; less is no stroke."""

SPECK = 0.03
"""What has less than this share of the area of the largest piece of ink is dirt."""

HAIRLINE, PEN = 0.04, 0.08
"""Widths of a stroke over the longer side of its digit: thinner than the one, it is made as thick
as the other. Those of MNIST are about 0.12."""

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", "HEIF")
"""Those of cameras and of programs that draw. Pillow reads more, one of them by running another
program."""

MOST_PIXELS, STRIP_PIXELS = 25_000_000, 1_000_000
"""That are in memory at a time, of four bytes each; and copied at a time."""

ORIENTATION = 0x0112
"""The entry of EXIF that says how a camera was held."""

NOTHING = "expected a picture of a drawn digit, found no stroke in it"


class NoStrokeError(ValueError):
    """There is nothing in a picture that stands out from its paper."""


def input_width(network: Network) -> int | None:
    """Return how many inputs a network takes, None where it takes any number."""
    return next((layer.input_units for layer in network if not keeps_width(layer)), None)


def takes_raw_pixels(network: Network) -> bool:
    """Say whether a network was trained on pixels from 0 to 255, which it scales itself.

    Without such a layer at its beginning it was trained on images scaled beforehand.
    """
    return any(isinstance(layer, Rescaling) for layer in takewhile(keeps_width, network))


def pixel_scale(network: Network) -> float:
    """Return what a network takes for a pixel full of ink: 255 or 1.

    Raises
    ------
    ValueError
        If the network does not take images of 28 by 28 pixels.
    """
    width = input_width(network)
    if width not in (None, SIDE * SIDE):
        raise ValueError(
            f"expected a network of {SIDE * SIDE} inputs, the pixels of a digit, "
            f"got one of {width} inputs"
        )
    return 255.0 if takes_raw_pixels(network) else 1.0


def read(path: str | PathLike[str]) -> Array:
    """Return the digit in a picture as MNIST would hold it.

    Parameters
    ----------
    path
        Of a PNG, JPEG, WebP, GIF, TIFF, BMP or AVIF. One digit of any size, anywhere, dark
        on light or light on dark. Light may fall unevenly on the paper.

    Returns
    -------
    float64 array of shape [28, 28], from 0 on paper to 1 in a stroke

    Raises
    ------
    ImportError
        If Pillow is not installed.
    OSError
        If the file can't be read.
    ValueError
        If it is no picture, or one of more than 25 million pixels (a JPEG may have more, unless it
        is progressive); `NoStrokeError`, which is one, if no stroke is found in it.
    """
    image = _pillow()
    image.init()
    try:
        with warnings.catch_warnings():
            # of sizes, which are refused below, and of small damage
            warnings.simplefilter("ignore")
            formats = [kind for kind in FORMATS if kind in image.OPEN]
            with image.open(path, formats=formats) as opened:
                _check_size(opened)
                picture = _grey(opened)
    except image.UnidentifiedImageError:
        raise ValueError(f"{path}: expected a picture, such as PNG or JPEG, got none") from None
    except OSError as error:
        if error.filename is not None:  # of the system, which names the file
            raise
        raise ValueError(
            f"{path}: expected a whole picture, got {checks.message(str(error))}"
        ) from None
    except Exception as error:  # damage shows in many ways
        raise ValueError(
            f"{path}: expected a picture that can be read, got {checks.message(str(error))}"
        ) from None
    for side in WORKING_SIDES:
        with contextlib.suppress(NoStrokeError):
            return centred(ink(_shrunk(picture, side)))
    raise NoStrokeError(f"{path}: {NOTHING}")


def ink(picture: npt.ArrayLike) -> Array:
    """Return how much ink there is in each pixel of a picture in shades of grey.

    The paper is a surface of second degree through most pixels, so light may fall from one side.
    Ink is what differs from it in one direction, dark or light, clearly more than paper does from
    itself. Pieces that are tiny beside the largest one are left out, and hairlines thickened.

    Parameters
    ----------
    picture : array of shape [height, width]
        From 0 (black) to 1 (white), or the other way round.

    Returns
    -------
    float64 array of the same shape, from 0 to 1

    Raises
    ------
    NoStrokeError
        If no stroke is found.
    """
    grey = np.asarray(picture, np.float64)
    difference = grey - _paper(grey)
    if np.sum(difference**3) < 0:  # the longer tail is the ink's
        difference = -difference
    noise = 1.4826 * float(np.median(np.abs(difference)))  # the deviation, if it is Gaussian
    difference = np.maximum(difference, 0.0)
    strokes = difference[difference > _threshold(difference)]
    level = float(np.median(strokes)) if strokes.size else 0.0
    if level < max(FAINTEST, 5 * noise):
        raise NoStrokeError(NOTHING)
    low = min(3 * noise, level / 2)
    amount = np.clip((difference - low) / (level - low), 0.0, 1.0)
    return _thickened(amount * _pieces(amount))


def centred(ink: Array) -> Array:
    """Return 28 by 28 pixels: scaled into a box of 20, the centre of mass in the middle.

    As MNIST was made: the aspect ratio is kept, edges become grey by averaging, and the box is
    moved by whole pixels, so that the centre of mass is as near to the middle as that allows.

    Parameters
    ----------
    ink : array of shape [height, width], 0 and more

    Returns
    -------
    float64 array of shape [28, 28], whose largest element is 1

    Raises
    ------
    NoStrokeError
        If there is no ink.

    Notes
    -----
    Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits".
    """
    inside = ink > 0
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        raise NoStrokeError(NOTHING)
    top, left = rows[0], columns[0]
    height, width = rows[-1] + 1 - top, columns[-1] + 1 - left
    cut = ink[top : top + height, left : left + width]
    scale = BOX / max(height, width)
    mass = cut.sum()
    # of the centre of mass, from the corner of the box, in pixels of the result
    down = scale * float(cut.sum(axis=1) @ (np.arange(height) + 0.5) / mass)
    right = scale * float(cut.sum(axis=0) @ (np.arange(width) + 0.5) / mass)
    # on 14 or less than a pixel below and right of it, where it is in every image of MNIST
    down, right = (np.ceil(SIDE / 2 - centre) for centre in (down, right))
    result: Array = _shares(height, scale, down) @ cut @ _shares(width, scale, right).T
    result /= result.max()
    return result


def _shares(length: int, scale: float, start: float) -> Array:
    """Return [28, length]: the share that each pixel of a line has in each pixel of the result.

    The line is `scale` times as long in the result and begins at `start`.
    """
    pixels = np.arange(SIDE)[:, np.newaxis]
    edges = start + scale * np.arange(length + 1)
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    shares: Array = np.maximum(overlap, 0.0)
    return shares


def _check_size(opened: Image) -> None:
    """Raise if there are too many pixels; of a JPEG have fewer decoded, where there are many."""
    width, height = opened.size
    opened.draft(None, (4 * WORKING_SIDES[0], 4 * WORKING_SIDES[0]))
    held = opened.size[0] * opened.size[1]
    if max(held, width * height * bool(opened.info.get("progressive"))) > MOST_PIXELS:
        raise ValueError(
            f"{width} by {height} pixels; {MOST_PIXELS:,} are read at most, so make it smaller"
        )


def _grey(opened: Image) -> Array:
    """Return a picture in shades of grey from 0 to 1, upright, on paper."""
    from PIL import Image, ImageOps

    width, height = opened.size
    # in whole pixels and bytes first: a photo has millions of them
    factor = max(1, max(width, height) // (2 * WORKING_SIDES[0]))
    step = factor * max(1, STRIP_PIXELS // (factor * width))
    boxes = [(0, top, width, min(height, top + step)) for top in range(0, height, step)]
    strips: Iterator[Any] = (opened.crop(box) for box in boxes)
    if opened.mode.startswith(("I", "F")):  # 16 bits and more
        strips = _in_bytes(opened, boxes)
    picture = Image.new("RGBA", (-(-width // factor), -(-height // factor)))
    for (_, top, _, _), strip in zip(boxes, strips, strict=True):
        picture.paste(strip.convert("RGBA").reduce(factor), (0, top // factor))
    picture.getexif()[ORIENTATION] = opened.getexif().get(ORIENTATION, 1)
    picture = ImageOps.exif_transpose(picture)
    alpha = np.asarray(picture.getchannel("A"), np.float64) / 255
    grey: Array = np.asarray(picture.convert("L"), np.float64) / 255
    if alpha.min() < 1:  # transparent: what is drawn stands out on paper of the other shade
        drawn = float((grey * alpha).sum() / max(alpha.sum(), 1e-9))
        grey = grey * alpha + (drawn < 0.5) * (1 - alpha)
    return grey


def _in_bytes(opened: Image, boxes: Sequence[tuple[int, int, int, int]]) -> Iterator[Image]:
    """Yield parts of a picture of 16 bits and more, from its least value to its greatest."""
    from PIL import Image

    limits = [(float(v.min()), float(v.max())) for v in _values(opened, boxes)]
    low, high = min(low for low, _ in limits), max(high for _, high in limits)
    if not all(map(math.isfinite, (*sum(limits, ()), high - low))):
        raise ValueError(f"values from {low} to {high}")
    for values in _values(opened, boxes):
        yield Image.fromarray(np.uint8((values - low) * (255 / ((high - low) or 1.0))))


def _values(opened: Image, boxes: Sequence[tuple[int, int, int, int]]) -> Iterator[Array]:
    return (np.asarray(opened.crop(box), np.float64) for box in boxes)


def _shrunk(grey: Array, side: int) -> Array:
    """Return a picture whose longer side is at most `side`, by averages over areas."""
    from PIL import Image

    scale = side / max(grey.shape)
    if scale >= 1:
        return grey
    height, width = (max(1, round(scale * length)) for length in grey.shape)
    picture = Image.fromarray(np.float32(grey)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(picture, np.float64)


def _paper(grey: Array) -> Array:
    """Return what would be there without the ink: a surface of second degree, fitted robustly.

    It begins as a plane through the frame of the picture, where paper is the rule.
    """
    y, x = (np.linspace(-1, 1, side) if side > 1 else np.zeros(1) for side in grey.shape)
    Y, X = np.meshgrid(y, x, indexing="ij")
    terms = np.stack([np.ones_like(X), X, Y, X * Y, X * X, Y * Y], axis=-1)
    frame = np.zeros(grey.shape, bool)
    frame[[0, -1]] = frame[:, [0, -1]] = True
    surface = np.full(grey.shape, np.median(grey[frame]))
    for among, degree, times in ((frame, 3, 3), (np.ones_like(frame), 6, 6)):
        fitted = None
        for _ in range(times):
            error = np.abs(grey - surface)
            # 3 deviations of Gaussian noise, by the median, which ink does not move far; rounding
            near = among & (error <= 3 * 1.4826 * np.median(error[among]) + 1 / 255)
            if fitted is not None and np.array_equal(near, fitted):
                break  # the surface is the one through these already
            factors = np.linalg.lstsq(terms[near, :degree], grey[near], rcond=None)[0]
            surface, fitted = terms[..., :degree] @ factors, near
    return surface


def _threshold(values: Array) -> float:
    """Return the number that parts `values` best into a low and a high class.

    N. Otsu, "A threshold selection method from gray-level histograms", IEEE Transactions on
    Systems, Man and Cybernetics 9, 1979: it makes the variance between the classes largest.
    """
    counts, edges = np.histogram(values, 256)
    middles = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts)[:-1], np.cumsum(counts[::-1])[-2::-1]
    sums = np.cumsum(counts * middles)
    low, high = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * (high - low) ** 2)])


def _pieces(amount: Array) -> Array:
    """Return 1 in and around the pieces of ink that are no specks, 0 elsewhere."""
    from PIL import Image, ImageFilter

    left = {tuple(place) for place in np.argwhere(amount > 0.3).tolist()}
    pieces = []
    while left:
        piece = [left.pop()]
        for y, x in piece:  # which grows meanwhile
            around = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= around
            piece += around
        pieces.append(piece)
    largest = max(map(len, pieces))
    kept = np.zeros(amount.shape, np.uint8)
    for piece in pieces:
        if len(piece) >= SPECK * largest:
            kept[tuple(np.transpose(piece))] = 1
    return np.asarray(Image.fromarray(kept).filter(ImageFilter.MaxFilter(5)))


def _thickened(amount: Array) -> Array:
    """Return ink whose strokes are no hairlines, which would almost vanish in 28 by 28 pixels."""
    from PIL import Image, ImageFilter

    inside = np.pad(amount > 0.3, 1)
    core = inside[1:-1, 1:-1]
    neighbours = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    # a stroke of width w has w times its length of area, and two edges of that length
    width = 2 * amount.sum() / np.count_nonzero(core & ~neighbours)
    extent = max(np.ptp(places) + 1 for places in np.nonzero(core))
    if width >= HAIRLINE * extent:
        return amount
    more = round((PEN * extent - width) / 2)
    thick = Image.fromarray(np.float32(amount))
    for _ in range(more):
        thick = thick.filter(ImageFilter.MaxFilter(3))
    return np.asarray(thick, np.float64)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise ImportError(f"reading pictures needs Pillow: {extras.install('images')}") from None
    return Image
