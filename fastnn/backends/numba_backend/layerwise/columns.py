"""Array objects that lie by columns, copied so that they lie by rows."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from fastnn.checks import Array
from fastnn.guards import CHECKED

from ..checked import Range, watched
from ..kernels.columns import copying
from ..machine import lanes

MANY = 1 << 18
"""Numbers from which a kernel is faster than NumPy, which is slow where they leave the caches."""


def by_rows(X: Array, dtype: np.dtype[Any]) -> Array:
    """Return X in `dtype` with the numbers of each row side by side, X itself if they are."""
    found = copying(X.dtype, dtype)
    if found is None or not _fits(X, lanes(found[1].itemsize)):
        return np.ascontiguousarray(X, dtype)
    kernel, of_lanes = found
    rows = np.empty(X.shape, dtype)
    with _watching(X, rows):
        kernel.entry(of_lanes)(*_matrix(X), *_matrix(rows))
    return rows


def _fits(X: Array, lanes: int) -> bool:
    """Say whether there are many numbers, and whole vectors of them in columns without gaps."""
    by_columns = X.strides[0] == X.itemsize and X.strides[1] != X.itemsize
    return by_columns and X.size >= MANY and min(X.shape) >= lanes


def _matrix(array: Array) -> tuple[int, ...]:
    """Return the integers of a `Matrix`."""
    return (array.ctypes.data, *array.strides, *array.shape)


def _watching(X: Array, rows: Array) -> AbstractContextManager[None]:
    """In the checked build, compare the kernel with what it may touch."""
    if not CHECKED:
        return nullcontext()
    return watched([Range.of(X, "source", writeable=False), Range.of(rows, "target")])
