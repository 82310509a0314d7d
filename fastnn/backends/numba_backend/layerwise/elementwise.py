"""Elementwise functions of array objects."""

from __future__ import annotations

from ..jit import call, jit
from .arrays import (
    C_CONTIGUOUS,
    DONE,
    F_CONTIGUOUS,
    REFUSED,
    are_alike,
    data,
    dimensions,
    flags,
    is_rows,
    length,
    stride,
)


@jit
def run(first, second, kernel, itemsize, X, G, Y):
    """Run a kernel of `kernels/elementwise.py`, which is given by its address, on array objects.

    `first` and `second` are the constants of the function. X and G, which may be the same, have
    one shape, and Y is as `empty_like` makes it for X.
    """
    if dimensions(X) != 2 or dimensions(G) != 2 or not are_alike(X, G):
        return REFUSED
    rows, columns = length(X, 0), length(X, 1)
    if flags(X) & flags(G) & flags(Y) & (C_CONTIGUOUS | F_CONTIGUOUS) != 0:
        # one row without gaps
        call(kernel, first, second, data(X), 0, data(G), 0, data(Y), 0, 1, rows * columns)
        return DONE
    if not (is_rows(itemsize, X) and is_rows(itemsize, G) and is_rows(itemsize, Y)):
        return REFUSED
    call(
        kernel, first, second, data(X), stride(X, 0), data(G), stride(G, 0), data(Y), stride(Y, 0),
        rows, columns,
    )  # fmt: skip
    return DONE
