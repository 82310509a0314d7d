"""What is packed in files, with a bound: a thousand bytes of gzip can hold a million, and more."""

from __future__ import annotations

import gzip
import io

GZIP = b"\x1f\x8b"
"""How a gzip file begins."""

ALWAYS = 48 * 2**20
"""Bytes that a file may hold however small it is: more than the images of MNIST, if all are
blank."""

RATIO = 100
"""How many times its own size a larger file may hold. Data to learn from are rarely packed to less
than a tenth; gzip can pack to a thousandth, Parquet to nothing."""


ALWAYS_OF_TEXT = 16 * 2**20
"""The same of text, of which a byte or two may become a number of eight."""


def most(size: int, always: int = ALWAYS) -> int:
    """Return how many bytes are unpacked from a file of so many."""
    return max(always, RATIO * size)


def refusal(size: int, always: int = ALWAYS, instead: str = "unpack the file first") -> str:
    """Return what is said of a file of so many bytes that holds more, and what to do `instead`."""
    return (
        f"more than the {most(size, always):,} bytes that are unpacked of {size:,}; "
        f"if it is no mistake, {instead}"
    )


def text(content: bytes) -> bytes:
    """Return the text in a gzip file.

    Raises
    ------
    ValueError
        If that is more than `most` allows.
    OSError, EOFError, zlib.error
        If it is damaged.
    """
    longest = most(len(content), ALWAYS_OF_TEXT)
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        unpacked = file.read(longest + 1)
    if len(unpacked) > longest:
        raise ValueError(refusal(len(content), ALWAYS_OF_TEXT))
    return unpacked
