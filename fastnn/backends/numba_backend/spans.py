"""Rows of neighbouring numbers at any address, taken by vectors, the last of a row in part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .arrays import dimensions, dtype_of, length, stride
from .jit import jit_part
from .simd import Int, Kernel, Vector


def span(k: Kernel, columns: Int, body: Callable[..., Any], width: int = 1) -> None:
    """Write a walk along a row of `columns` numbers.

    `body(offset, count, load, store)` writes what happens to `count` vectors, the first of them
    `offset` bytes from the start of the row: `width` whole ones for as long as there are so many,
    then one by one, where `load(address)` and `store(vector, address)` leave alone what lies beyond
    the row.
    """
    groups = columns // (width * k.lanes)
    with k.loop(0, groups) as j:
        body(j * (width * k.vector_bytes), width, k.load_anywhere, k.store_anywhere)
    with k.loop(groups * width, (columns + (k.lanes - 1)) // k.lanes) as j:
        chosen = k.lane_before(columns - j * k.lanes)

        def load(address: Int, chosen=chosen) -> Vector:
            return k.load_lanes(address, chosen)

        def store(vector: Vector, address: Int, chosen=chosen) -> None:
            k.store_lanes(vector, address, chosen)

        body(j * k.vector_bytes, 1, load, store)


@jit_part
def is_rows(itemsize, X):
    """Say whether the array object is a matrix whose rows are neighbouring numbers."""
    return dimensions(X) == 2 and (stride(X, 1) == itemsize or length(X, 1) == 1)


@jit_part
def are_alike(X, Y):
    """Say whether two matrices have one shape and one dtype."""
    return (
        dtype_of(X) == dtype_of(Y) and length(X, 0) == length(Y, 0) and length(X, 1) == length(Y, 1)
    )


@jit_part
def is_of_columns(itemsize, vector, X):
    """Say whether the array object holds neighbouring numbers, one for each column of a matrix."""
    return (
        dimensions(vector) == 1 and dtype_of(vector) == dtype_of(X)
        and length(vector, 0) == length(X, 1)
        and (stride(vector, 0) == itemsize or length(vector, 0) == 1)
    )  # fmt: skip
