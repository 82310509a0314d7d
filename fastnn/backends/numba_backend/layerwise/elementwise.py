"""Elementwise functions of array objects."""

from __future__ import annotations

from ..jit import call, jit, jit_part
from ..microkernel import submatrix
from .arrays import (
    C_CONTIGUOUS,
    DONE,
    F_CONTIGUOUS,
    REFUSED,
    are_alike,
    dimensions,
    flags,
    is_rows,
    length,
    matrix,
)


@jit
def apply(first, second, kernel, itemsize, X, G, Y):
    """Run a kernel of `kernels/elementwise.py`, which is given by its address, on array objects.

    `first` and `second` are the constants of the function. X and G, which may be the same, have
    one shape, and Y is as `empty_like` makes it for X.
    """
    if dimensions(X) != 2 or dimensions(G) != 2 or not are_alike(X, G):
        return REFUSED
    if flags(X) & flags(G) & flags(Y) & (C_CONTIGUOUS | F_CONTIGUOUS) != 0:
        call(kernel, first, second, as_row(X), as_row(G), as_row(Y))
        return DONE
    if not (is_rows(itemsize, X) and is_rows(itemsize, G) and is_rows(itemsize, Y)):
        return REFUSED
    call(kernel, first, second, matrix(X), matrix(G), matrix(Y))
    return DONE


@jit_part
def as_row(X):
    """A matrix without gaps as one row."""
    return submatrix(matrix(X), 0, 0, 1, length(X, 0) * length(X, 1))
