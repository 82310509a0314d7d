"""Kernels of the activations that are curves: the logistic function and the hyperbolic tangent.

They are compiled apart from those of `activations`, so that a network of ReLU does not wait for
them.
"""

from __future__ import annotations

from ..jit import jit
from ..kernels.activations import sigmoid, tanh
from ..kernels.rows import span
from ..language import Int, Kernel, Real, Vector, microkernel
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

SIGMOID, SIGMOID_GRADIENT, TANH, TANH_GRADIENT = 0, 1, 2, 3
"""The operations of `curves`."""


@microkernel
def curves(
    k: Kernel,
    like: Real,
    operation: Int,
    x: Int,
    x_row: Int,
    g: Int,
    g_row: Int,
    y: Int,
    y_row: Int,
    rows: Int,
    columns: Int,
) -> None:
    """Y = σ(X), G X (1 - X), tanh(X), or G (1 - X²), by `operation`.

    Shapes: X, G and Y [rows, columns], rows of neighbouring elements at any address.
    Why it is fast: one exponential and one division a vector, in one pass.
    """
    for case in k.cases(operation, (SIGMOID, SIGMOID_GRADIENT, TANH, TANH_GRADIENT)):
        with k.loop(0, rows) as row:
            source, factor, target = x + row * x_row, g + row * g_row, y + row * y_row

            def body(offset: Int, count: int, load, store, case=case,
                     source=source, factor=factor, target=target) -> None:  # fmt: skip
                value: Vector = load(source + offset)
                if case == SIGMOID:
                    value = sigmoid(k, value)
                elif case == TANH:
                    value = tanh(k, value)
                elif case == SIGMOID_GRADIENT:
                    value = load(factor + offset) * value * (k.constant(1.0) - value)
                else:
                    value = load(factor + offset) * (k.constant(1.0) - value * value)
                store(value, target + offset)

            span(k, columns, body)


@jit
def run(one, operation, itemsize, X, G, Y):
    """Run `curves` on array objects. X and G may be the same; Y is as `empty_like` makes it."""
    if dimensions(X) != 2 or dimensions(G) != 2:
        return REFUSED
    common = flags(X) & flags(G) & flags(Y)
    if common & (C_CONTIGUOUS | F_CONTIGUOUS) != 0 and are_alike(X, G):
        # one row without gaps
        curves(one, operation, data(X), 0, data(G), 0, data(Y), 0, 1, length(X, 0) * length(X, 1))
        return DONE
    if not (is_rows(itemsize, X) and is_rows(itemsize, G) and is_rows(itemsize, Y)
            and are_alike(X, G)):  # fmt: skip
        return REFUSED
    curves(
        one, operation, data(X), stride(X, 0), data(G), stride(G, 0), data(Y), stride(Y, 0),
        length(X, 0), length(X, 1),
    )  # fmt: skip
    return DONE
