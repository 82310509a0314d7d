"""Kernels of batch normalisation. A column is a unit, so vectors hold neighbouring units."""

from __future__ import annotations

from ..jit import jit, jit_part
from ..kernels.rows import span
from ..language import Int, Kernel, Real, microkernel
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

WIDTH = 4
"""Vectors of columns that are summed side by side: one sum waits for each of its additions."""


@microkernel
def column_statistics(
    k: Kernel, share: Real, x: Int, x_row: Int, mean: Int, variance: Int, rows: Int, columns: Int
) -> None:
    """mean = share Σ_n X_n and variance = share Σ_n (X_n - mean)², with share = 1 / rows.

    Shapes: X [rows, columns], rows of neighbouring elements; mean and variance [columns].
    Two passes: the sum of squares less the square of the sum would cancel.
    """
    shares = k.broadcast(share)

    def body(offset: Int, count: int, load, store) -> None:
        means = k.variables(k.zero(), count)
        with k.loop(0, rows) as row:
            for i in range(count):
                address = x + row * x_row + offset + i * k.vector_bytes
                means[i] = means[i] + load(address)
        for i in range(count):
            means[i] = means[i] * shares
        squares = k.variables(k.zero(), count)
        with k.loop(0, rows) as row:
            for i in range(count):
                difference = load(x + row * x_row + offset + i * k.vector_bytes) - means[i]
                squares[i] = k.fma(difference, difference, squares[i])
        for i in range(count):
            store(means[i], mean + offset + i * k.vector_bytes)
            store(squares[i] * shares, variance + offset + i * k.vector_bytes)

    span(k, columns, body, WIDTH)


@microkernel
def normalize(
    k: Kernel,
    epsilon: Real,
    x: Int,
    x_row: Int,
    y: Int,
    y_row: Int,
    scale: Int,
    shift: Int,
    mean: Int,
    variance: Int,
    rows: Int,
    columns: Int,
) -> None:
    """Y = scale (X - mean) / √(variance + epsilon) + shift.

    Shapes: X and Y [rows, columns], rows of neighbouring elements; the others [columns].
    Why it is fast: root and division once a column.
    """
    epsilons = k.broadcast(epsilon)

    def body(offset: Int, count: int, load, store) -> None:
        at = [offset + i * k.vector_bytes for i in range(count)]
        middle = [load(mean + a) for a in at]
        factor = [load(scale + a) / k.call("sqrt", load(variance + a) + epsilons) for a in at]
        addend = [load(shift + a) for a in at]
        with k.loop(0, rows) as row:
            for i in range(count):
                centred = load(x + row * x_row + at[i]) - middle[i]
                store(k.fma(centred, factor[i], addend[i]), y + row * y_row + at[i])

    span(k, columns, body, WIDTH)


@microkernel
def normalize_gradient(
    k: Kernel,
    epsilon: Real,
    share: Real,
    x: Int,
    x_row: Int,
    g: Int,
    g_row: Int,
    dx: Int,
    dx_row: Int,
    scale: Int,
    mean: Int,
    variance: Int,
    dscale: Int,
    dshift: Int,
    rows: Int,
    columns: Int,
) -> None:
    """dscale = Σ_n G_n X̂_n, dshift = Σ_n G_n, dX = scale (G - share (dshift + X̂ dscale)) / σ.

    Here X̂ = (X - mean) / σ and σ = √(variance + epsilon). share is 1 / rows where mean and
    variance are those of X, and 0 where they are constants.
    Shapes: X, G and dX [rows, columns], rows of neighbouring elements; the others [columns].
    """
    epsilons, shares = k.broadcast(epsilon), k.broadcast(share)
    constants = shares.equals(0.0)

    def body(offset: Int, count: int, load, store) -> None:
        at = [offset + i * k.vector_bytes for i in range(count)]
        middle = [load(mean + a) for a in at]
        inverse = [k.constant(1.0) / k.call("sqrt", load(variance + a) + epsilons) for a in at]
        factor = [load(scale + a) * i for a, i in zip(at, inverse, strict=True)]
        of_shift = k.variables(k.zero(), count)
        of_scale = k.variables(k.zero(), count)
        with k.loop(0, rows) as row:
            for i in range(count):
                gradient = load(g + row * g_row + at[i])
                centred = load(x + row * x_row + at[i]) - middle[i]
                of_shift[i] = of_shift[i] + gradient
                of_scale[i] = k.fma(gradient, centred, of_scale[i])
        for i in range(count):
            of_scale[i] = of_scale[i] * inverse[i]
            store(of_shift[i], dshift + at[i])
            store(of_scale[i], dscale + at[i])
            # from here on: what is subtracted from each gradient, and for each unit of X - mean
            of_shift[i] = of_shift[i] * shares
            of_scale[i] = of_scale[i] * shares * inverse[i]
        with k.loop(0, rows) as row:
            for i in range(count):
                gradient = load(g + row * g_row + at[i])
                centred = load(x + row * x_row + at[i]) - middle[i]
                rest = gradient - of_shift[i] - centred * of_scale[i]
                # not left to the share of 0, whose product with infinity is NaN
                rest = k.where(constants, gradient, rest)
                store(rest * factor[i], dx + row * dx_row + at[i])

    span(k, columns, body, WIDTH)


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
