"""Aligned memory and the padded layout of parameters.

Every backend sees the same layout, so that parameters never move when the
backend changes. A matrix starts on a 64-byte boundary and so does each of its
rows: a vector load never straddles two cache lines, which on its own doubled
the throughput of a dense kernel whose data are in the first-level cache.
"""

from __future__ import annotations

import numpy as np

LINE_BYTES = 64
"""Bytes in a cache line, and in the widest vector register that kernels use."""

ROW_BLOCK = 16
"""Matrices are padded to a multiple of this many rows (the edge of the largest register tile)."""


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple


def row_stride(units: int, dtype: np.dtype) -> int:
    """Return the distance, in elements, between rows of `units` elements.

    Rows fill whole cache lines. From eight lines on their number is odd: with
    an even stride, and worst with a power of two, the rows of a tile compete
    for a few sets of the first-level cache.
    """
    lines = round_up(units * dtype.itemsize, LINE_BYTES) // LINE_BYTES
    if lines >= 8 and lines % 2 == 0:
        lines += 1
    return lines * LINE_BYTES // dtype.itemsize


def aligned_zeros(size: int, dtype: np.dtype) -> np.ndarray:
    """Return a flat array of `size` zeros whose address is a multiple of `LINE_BYTES`."""
    nbytes = size * dtype.itemsize
    buffer = np.zeros(nbytes + LINE_BYTES, np.uint8)
    start = -buffer.ctypes.data % LINE_BYTES
    return buffer[start : start + nbytes].view(dtype)
