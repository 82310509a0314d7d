"""Kernels of the operations on single elements."""

from __future__ import annotations

from typing import Any

from ..jit import jit
from ..language import Int, Kernel, Real, Vector, microkernel
from .arrays import (
    C_CONTIGUOUS,
    DONE,
    F_CONTIGUOUS,
    REFUSED,
    data,
    dimensions,
    dtype_of,
    flags,
    length,
    stride,
)

SCALE, RELU, RELU_GRADIENT = 0, 1, 2
"""The operations of `elementwise`."""

LONG_VECTORS = 32
"""Rows of more vectors than this are worth the start that aligns their stores."""


@microkernel
def elementwise(
    k: Kernel,
    factor: Real,
    operation: Int,
    x: Int,
    x_row: Int,
    x_column: Int,
    g: Int,
    g_row: Int,
    g_column: Int,
    y: Int,
    y_row: Int,
    y_column: Int,
    rows: Int,
    columns: Int,
) -> None:
    """Y = factor X, Y = max(0, X), or Y = G where X > 0 and 0 elsewhere, by `operation`.

    Shapes: X, G and Y [rows, columns] with any strides, in bytes.
    Why it is fast: where elements of all are neighbours it goes by vectors, the last of a row in
    part, so a row of ten costs one of them. Memory sets the pace of large matrices.
    ReLU keeps NaN: x < 0 ? 0 : x.
    """
    adjacent = (x_column - k.element_bytes) | (g_column - k.element_bytes)
    adjacent = adjacent | (y_column - k.element_bytes)
    # long rows begin with a part of a vector, after which stores are aligned
    ahead = (0 - y & (k.vector_bytes - 1)) // k.element_bytes
    ahead = k.where(columns > LONG_VECTORS * k.lanes, ahead, k.integer(0))
    first = k.lane_before(ahead)
    whole = (columns - ahead) // k.lanes
    rest = columns - ahead - whole * k.lanes
    chosen = k.lane_before(rest)
    factors = k.broadcast(factor)
    for case in k.cases(operation, (SCALE, RELU, RELU_GRADIENT)):
        with k.loop(0, rows) as row:
            places = [x + row * x_row, g + row * g_row, y + row * y_row]
            with k.builder.if_else(adjacent.equals(0)) as (by_vectors, one_by_one):
                with by_vectors:
                    with k.when(ahead > 0):
                        value = _value(k, case, lambda a: k.load_lanes(a, first), places, factors)
                        k.store_lanes(value, places[2], first)
                    places = [place + ahead * k.element_bytes for place in places]
                    with k.loop(0, whole) as j:
                        at = [place + j * k.vector_bytes for place in places]
                        value = _value(k, case, k.load_anywhere, at, factors)
                        k.store_anywhere(value, at[2])
                    with k.when(rest > 0):
                        at = [place + whole * k.vector_bytes for place in places]
                        value = _value(k, case, lambda a: k.load_lanes(a, chosen), at, factors)
                        k.store_lanes(value, at[2], chosen)
                with one_by_one, k.loop(0, columns) as column:
                    at = [
                        x + row * x_row + column * x_column,
                        g + row * g_row + column * g_column,
                        y + row * y_row + column * y_column,
                    ]
                    value = _value(k, case, k.load_real_anywhere, at, factor)
                    k.store_as(value.code, at[2], 1)


def _value(k: Kernel, operation: int, load, at: list[Int], factor: Vector) -> Any:
    """Write one value, a vector or a number, of what `elementwise` computes."""
    x = load(at[0])
    zero = k.constant_like(x, 0.0)
    if operation == SCALE:
        return factor * x
    if operation == RELU:
        return k.where(x < 0.0, zero, x)
    return k.where(x > 0.0, load(at[1]), zero)


@microkernel
def bytes_of(k: Kernel, like: Real) -> Int:
    """Bytes of a number."""
    return k.integer(k.element_bytes)


@jit
def run(factor, operation, X, G, Y):
    """Run `elementwise` on array objects, along the longest neighbourhoods there are.

    X and G, which may be the same, have one shape, and Y is as `empty_like` makes it for X.
    """
    if (
        dimensions(X) != 2 or dimensions(G) != 2 or dtype_of(G) != dtype_of(X)
        or length(G, 0) != length(X, 0) or length(G, 1) != length(X, 1)
    ):  # fmt: skip
        return REFUSED
    rows, columns = length(X, 0), length(X, 1)
    common = flags(X) & flags(G) & flags(Y)
    if common & (C_CONTIGUOUS | F_CONTIGUOUS) != 0:
        # one row without gaps
        itemsize = bytes_of(factor)
        elementwise(
            factor, operation, data(X), 0, itemsize, data(G), 0, itemsize, data(Y), 0, itemsize,
            1, rows * columns,
        )  # fmt: skip
        return DONE
    row, column = 0, 1
    if abs(stride(Y, 0)) < abs(stride(Y, 1)):
        row, column, rows, columns = 1, 0, columns, rows
    elementwise(
        factor, operation, data(X), stride(X, row), stride(X, column),
        data(G), stride(G, row), stride(G, column), data(Y), stride(Y, row), stride(Y, column),
        rows, columns,
    )  # fmt: skip
    return DONE
