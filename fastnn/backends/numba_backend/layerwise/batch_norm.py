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
    stride,
)


@jit_part
def writeable_of_columns(itemsize, vector, X):
    """Say whether the array object can take one neighbouring number for each column of a matrix."""
    return is_of_columns(itemsize, vector, X) and flags(vector) & WRITEABLE != 0


@jit
def forward(epsilon, itemsize, given, X, Y, scale, shift, mean, variance):
    """Normalise X into Y, both array objects, by mean and variance.

    They are the array's own unless `given`, and are then written to `mean` and `variance`.
    """
    if not (is_rows(itemsize, X) and is_of_columns(itemsize, scale, X)
            and is_of_columns(itemsize, shift, X) and is_of_columns(itemsize, mean, X)
            and is_of_columns(itemsize, variance, X)):  # fmt: skip
        return REFUSED
    rows, columns = length(X, 0), length(X, 1)
    if not given:
        share = type(epsilon)(1) / type(epsilon)(rows)
        column_statistics(
            share, data(X), stride(X, 0), data(mean), data(variance), rows, columns
        )  # fmt: skip
    normalize(
        epsilon, data(X), stride(X, 0), data(Y), stride(Y, 0), data(scale), data(shift),
        data(mean), data(variance), rows, columns,
    )  # fmt: skip
    return DONE


@jit
def backward(epsilon, itemsize, given, X, G, dX, scale, mean, variance, dscale, dshift):
    """Write the gradients of `forward`, with `mean` and `variance` as there."""
    if not (is_rows(itemsize, X) and is_rows(itemsize, G) and are_alike(X, G)
            and is_of_columns(itemsize, scale, X) and is_of_columns(itemsize, mean, X)
            and is_of_columns(itemsize, variance, X) and writeable_of_columns(itemsize, dscale, X)
            and writeable_of_columns(itemsize, dshift, X)):  # fmt: skip
        return REFUSED
    rows, columns = length(X, 0), length(X, 1)
    share = type(epsilon)(0)
    if not given:
        share = type(epsilon)(1) / type(epsilon)(rows)
        column_statistics(
            share, data(X), stride(X, 0), data(mean), data(variance), rows, columns
        )  # fmt: skip
    normalize_gradient(
        epsilon, share, data(X), stride(X, 0), data(G), stride(G, 0), data(dX), stride(dX, 0),
        data(scale), data(mean), data(variance), data(dscale), data(dshift), rows, columns,
    )  # fmt: skip
    return DONE
