"""Batch normalisation of array objects."""

from __future__ import annotations

from ..jit import jit, jit_part
from ..kernels.batch_norm import column_statistics, normalize, normalize_gradient
from .arrays import (
    DONE,
    REFUSED,
    WRITEABLE,
    are_alike,
    data,
    flags,
    is_of_columns,
    is_rows,
    length,
    matrix,
)


@jit_part
def writeable_of_columns(itemsize, vector, X):
    """Say whether the array object can take one neighbouring number for each column of a matrix."""
    return is_of_columns(itemsize, vector, X) and flags(vector) & WRITEABLE != 0


@jit
def forward(epsilon, itemsize, given, X, Y, scale, shift, mean, variance):
    """Normalise X into Y by `mean` and `variance`; the arguments from X on are array objects.

    Where `given` is False, mean and variance are computed from X and written there first.
    """
    if not (is_rows(itemsize, X) and is_of_columns(itemsize, scale, X)
            and is_of_columns(itemsize, shift, X) and is_of_columns(itemsize, mean, X)
            and is_of_columns(itemsize, variance, X)):  # fmt: skip
        return REFUSED
    if not given:
        row_share = type(epsilon)(1) / type(epsilon)(length(X, 0))
        column_statistics(row_share, matrix(X), data(mean), data(variance), 1)
    normalize(
        epsilon, matrix(X), matrix(Y), data(scale), data(shift), data(mean), data(variance)
    )  # fmt: skip
    return DONE


@jit
def backward(epsilon, itemsize, given, X, G, dX, scale, mean, variance, dscale, dshift):
    """Write the gradients of `forward`; `mean` and `variance` are given, or not, as there."""
    if not (is_rows(itemsize, X) and is_rows(itemsize, G) and are_alike(X, G)
            and is_of_columns(itemsize, scale, X) and is_of_columns(itemsize, mean, X)
            and is_of_columns(itemsize, variance, X) and writeable_of_columns(itemsize, dscale, X)
            and writeable_of_columns(itemsize, dshift, X)):  # fmt: skip
        return REFUSED
    row_share = type(epsilon)(0)
    if not given:
        row_share = type(epsilon)(1) / type(epsilon)(length(X, 0))
        column_statistics(row_share, matrix(X), data(mean), data(variance), 1)
    normalize_gradient(
        epsilon, row_share, matrix(X), matrix(G), matrix(dX),
        data(scale), data(mean), data(variance), data(dscale), data(dshift), 1,
    )  # fmt: skip
    return DONE
