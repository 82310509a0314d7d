"""Kernels of the losses.

Of softmax and cross-entropy, each row's maximum is subtracted before any exponential.

The compiled epoch has kernels of the same losses in `kernels/softmax.py` and `epoch/losses.py`.
They do something else: from aligned, padded rows they make gradient, loss and prediction in one
pass, and leave the logarithm to the end. Here a call asks for one of these, of rows at any address,
and nothing beyond the end of a row may be touched.
"""

from __future__ import annotations

from collections.abc import Callable

from ..jit import jit, jit_part
from ..kernels.binary_cross_entropy import loss_and_derivative as binary_cross_entropy_formula
from ..kernels.exponential import exponential
from ..kernels.poisson import loss_and_derivative as poisson_formula
from ..kernels.rows import span
from ..language import INT64, Address, Int, Kernel, Matrix, Real, Vector
from ..microkernel import microkernel
from .arrays import (
    DONE,
    REFUSED,
    are_alike,
    data,
    dimensions,
    dtype_of,
    is_rows,
    length,
    matrix,
    stride,
)


@microkernel
def softmax_rows(k: Kernel, scale: Real, Z: Matrix, P: Matrix) -> None:
    """P = scale * exp(Z - m) / sum(exp(Z - m)), row by row, with m the largest of a row.

    Rows are of neighbouring elements, at any address.
    Why it is fast: exponentials by vectors; a row of few classes is a single one. The row lies in
    the first-level cache from the first pass to the last.
    NaN: one that the maximum overlooks makes the sum NaN, and so the whole row.
    """
    last = k.vectors(Z) - 1
    chosen = k.lane_before(Z.columns - last * k.lanes)
    with k.loop(0, Z.rows) as row:
        source, target = Z.row(row), P.row(row)
        maxima, _ = _largest(k, source, last, chosen)
        total = k.variable(k.zero())
        with k.loop(0, last) as j:
            offset = j * k.vector_bytes
            power = exponential(k, k.load_anywhere(source + offset) - maxima)
            k.store_anywhere(power, target + offset)
            total[0] = total[0] + power
        offset = last * k.vector_bytes
        power = exponential(k, k.load_lanes(source + offset, chosen) - maxima)
        power = k.where(chosen, power, k.zero())
        share = k.broadcast(scale / k.lane_sum(total[0] + power))
        with k.loop(0, last) as j:
            address = target + j * k.vector_bytes
            k.store_anywhere(k.load_anywhere(address) * share, address)
        k.store_lanes(power * share, target + offset, chosen)


@microkernel
def losses_of_rows(
    k: Kernel,
    like: Real,
    Z: Matrix,
    labels: Address,
    labels_step: Int,
    losses: Address,
) -> None:
    """losses_n = log sum(exp(Z_n - m_n)) + (m_n - Z_n,label), with m_n the largest of row n.

    Shapes: Z [rows, columns], rows of neighbouring elements; labels [rows] 64-bit integers; losses
    [rows].
    Why it is fast: as `softmax_rows`, and no exponential is stored.
    The difference is taken first: at logits of 1e4 it is exact, and the logarithm is not lost.
    """
    _write_losses(k, Z, labels, labels_step, losses)


@microkernel
def smoothed_losses_of_rows(
    k: Kernel,
    smoothing: Real,
    share: Real,
    Z: Matrix,
    labels: Address,
    labels_step: Int,
    losses: Address,
) -> None:
    """losses_n = log sum(exp(Z_n - m_n)) + (1 - s) (m_n - Z_n,label) + share sum(m_n - Z_n).

    As `losses_of_rows`, with s the smoothing and share = s / columns.
    """
    _write_losses(k, Z, labels, labels_step, losses, (smoothing, share))


def _write_losses(
    k: Kernel,
    Z: Matrix,
    labels: Address,
    labels_step: Int,
    losses: Address,
    smoothed: tuple[Real, Real] | None = None,
) -> None:
    last = k.vectors(Z) - 1
    chosen = k.lane_before(Z.columns - last * k.lanes)
    with k.loop(0, Z.rows) as row:
        source = Z.row(row)
        maxima, maximum = _largest(k, source, last, chosen)
        total, margins = k.variable(k.zero()), k.variable(k.zero())
        with k.loop(0, last) as j:
            below = k.load_anywhere(source + j * k.vector_bytes) - maxima
            total[0] = total[0] + exponential(k, below)
            if smoothed is not None:
                margins[0] = margins[0] - below
        below = k.load_lanes(source + last * k.vector_bytes, chosen) - maxima
        power = k.where(chosen, exponential(k, below), k.zero())
        logarithm = k.call("log", k.lane_sum(total[0] + power))
        label = _label(k, labels + row * labels_step)
        margin = maximum - k.load_real_anywhere(source + label * k.element_bytes)
        if smoothed is not None:
            smoothing, share = smoothed
            of_all = k.lane_sum(margins[0] - k.where(chosen, below, k.zero()))
            margin = (smoothing * -1.0 + 1.0) * margin + share * of_all
        k.store_real(logarithm + margin, losses + row * k.element_bytes)


@microkernel
def subtract_at_labels(
    k: Kernel, number: Real, target: Matrix, labels: Address, labels_step: Int
) -> None:
    """target[n, labels[n]] -= number, for each row n."""
    with k.loop(0, target.rows) as row:
        label = _label(k, labels + row * labels_step)
        address = target.row(row) + label * k.element_bytes
        k.store_real(k.load_real(address) - number, address)


@microkernel
def subtract_everywhere(k: Kernel, number: Real, target: Matrix) -> None:
    """target -= number, rows of neighbouring elements."""
    numbers = k.broadcast(number)
    with k.loop(0, target.rows) as row:

        def body(offset: Int, count: int, load, store, row=row) -> None:
            store(load(target.row(row) + offset) - numbers, target.row(row) + offset)

        span(k, target.columns, body)


@microkernel
def are_labels(k: Kernel, labels: Address, labels_step: Int, count: Int, classes: Int) -> Int:
    """1 if each of `count` 64-bit integers is at least 0 and below `classes`, else 0."""
    inside = k.variable(k.integer(1))
    with k.loop(0, count) as i:
        label = _label(k, labels + i * labels_step)
        lower = k.where(label < 0, k.integer(0), k.integer(1))
        inside[0] = inside[0] & lower & k.where(label < classes, k.integer(1), k.integer(0))
    result: Int = inside[0]
    return result


def _label(k: Kernel, address: Int) -> Int:
    """Load a 64-bit integer from any address."""
    return Int(k, k.load_as(address, INT64, 1))


def _largest(k: Kernel, row: Int, last: Int, chosen) -> tuple[Vector, Real]:
    """Write the search for the largest of a row; return it in all lanes, and as a number."""
    lowest = k.constant(float("-inf"))
    largest = k.variable(lowest)
    with k.loop(0, last) as j:
        largest[0] = k.maximum(largest[0], k.load_anywhere(row + j * k.vector_bytes))
    part = k.where(chosen, k.load_lanes(row + last * k.vector_bytes, chosen), lowest)
    maximum = k.lane_maximum(k.maximum(largest[0], part))
    return k.broadcast(maximum), maximum


@jit
def softmax(one, itemsize, Z, P):
    """P = softmax(Z), row by row; the arguments are array objects."""
    if not is_rows(itemsize, Z):
        return REFUSED
    softmax_rows(one, matrix(Z), matrix(P))
    return DONE


@jit_part
def labels_fit(itemsize, Z, labels, int64):
    """Say whether the logits have contiguous rows, each with a label that is one of its columns."""
    return (
        is_rows(itemsize, Z) and dimensions(labels) == 1 and dtype_of(labels) == int64
        and length(labels, 0) == length(Z, 0)
        and are_labels(data(labels), stride(labels, 0), length(Z, 0), length(Z, 1)) == 1
    )  # fmt: skip


@jit
def cross_entropy(one, itemsize, Z, labels, int64, losses):
    """losses_n = log sum(exp(Z_n - m)) + (m - Z_n,label); the arguments are array objects.

    `int64` is the object that is the dtype of labels.
    """
    if not labels_fit(itemsize, Z, labels, int64):
        return REFUSED
    losses_of_rows(one, matrix(Z), data(labels), stride(labels, 0), data(losses))
    return DONE


@jit
def cross_entropy_gradient(one, itemsize, Z, labels, int64, dZ):
    """dZ = (softmax(Z) - onehot(labels)) / batch; the arguments are as in `cross_entropy`."""
    if not labels_fit(itemsize, Z, labels, int64):
        return REFUSED
    share = one / type(one)(length(Z, 0))
    softmax_rows(share, matrix(Z), matrix(dZ))
    subtract_at_labels(share, matrix(dZ), data(labels), stride(labels, 0))
    return DONE


@jit
def smoothed_cross_entropy(smoothing, itemsize, Z, labels, int64, losses):
    """losses_n = -sum(t_n log softmax(Z)_n), t = s / K + (1 - s) onehot; as `cross_entropy`."""
    if not labels_fit(itemsize, Z, labels, int64):
        return REFUSED
    share = smoothing / type(smoothing)(length(Z, 1))
    smoothed_losses_of_rows(
        smoothing, share, matrix(Z), data(labels), stride(labels, 0), data(losses)
    )
    return DONE


@jit
def smoothed_cross_entropy_gradient(smoothing, itemsize, Z, labels, int64, dZ):
    """dZ = (softmax(Z) - t) / batch, t = s / K + (1 - s) onehot; as `cross_entropy`."""
    if not labels_fit(itemsize, Z, labels, int64):
        return REFUSED
    real = type(smoothing)
    share = real(1) / real(length(Z, 0))
    softmax_rows(share, matrix(Z), matrix(dZ))
    subtract_everywhere(share * smoothing / real(length(Z, 1)), matrix(dZ))
    subtract_at_labels(share * (real(1) - smoothing), matrix(dZ), data(labels), stride(labels, 0))
    return DONE


# --------------------------------------------------------- losses of outputs and numeric targets


Formula = Callable[[Kernel, Vector, Vector], tuple[Vector, Vector]]
"""Loss and derivative by an output, of the output and the target.

Tried and lost: kernels that are called through their addresses, by one entry for all formulas.
Compiled without Numba, products and sums of the losses are fused at other places, and their last
bits change.
"""


def sums_of_losses(k: Kernel, formula: Formula, Z: Matrix, T: Matrix, losses: Address) -> None:
    """losses_n = Σ_k of the loss that a formula gives at Z_nk and T_nk.

    Shapes: Z and T [rows, columns], rows of neighbouring elements; losses [rows].
    """
    last = k.vectors(Z) - 1
    chosen = k.lane_before(Z.columns - last * k.lanes)
    with k.loop(0, Z.rows) as row:
        total = k.variable(k.zero())
        with k.loop(0, last) as j:
            offset = j * k.vector_bytes
            z, t = k.load_anywhere(Z.row(row) + offset), k.load_anywhere(T.row(row) + offset)
            total[0] = total[0] + formula(k, z, t)[0]
        offset = last * k.vector_bytes
        z, t = (k.load_lanes(matrix.row(row) + offset, chosen) for matrix in (Z, T))
        loss = k.where(chosen, formula(k, z, t)[0], k.zero())
        k.store_real(k.lane_sum(total[0] + loss), losses + row * k.element_bytes)


def derivatives(k: Kernel, formula: Formula, scale: Real, Z: Matrix, T: Matrix, D: Matrix) -> None:
    """D = scale times the derivative that a formula gives at Z and T.

    Shapes: Z, T and D [rows, columns], rows of neighbouring elements.
    """
    factor = k.broadcast(scale)
    with k.loop(0, Z.rows) as row:

        def body(offset: Int, count: int, load, store, row=row) -> None:
            z, t = load(Z.row(row) + offset), load(T.row(row) + offset)
            store(formula(k, z, t)[1] * factor, D.row(row) + offset)

        span(k, Z.columns, body)


@jit_part
def are_comparable(itemsize, Y, T):
    """Say whether outputs and targets are matrices of one shape and dtype, with contiguous rows."""
    return is_rows(itemsize, Y) and is_rows(itemsize, T) and are_alike(Y, T)


# --------------------------------------------------------------------- binary cross-entropy


@microkernel
def binary_losses_of_rows(k: Kernel, like: Real, Z: Matrix, T: Matrix, losses: Address) -> None:
    """losses_n = Σ_k of binary cross-entropy; see `sums_of_losses`."""
    sums_of_losses(k, binary_cross_entropy_formula, Z, T, losses)


@microkernel
def binary_derivatives(k: Kernel, scale: Real, Z: Matrix, T: Matrix, D: Matrix) -> None:
    """D = scale (σ(Z) - T); see `derivatives`."""
    derivatives(k, binary_cross_entropy_formula, scale, Z, T, D)


@jit
def binary_cross_entropy(one, itemsize, Z, T, values):
    """values_n = Σ_k of the losses of row n; the arguments are array objects."""
    if not are_comparable(itemsize, Z, T):
        return REFUSED
    binary_losses_of_rows(one, matrix(Z), matrix(T), data(values))
    return DONE


@jit
def binary_cross_entropy_gradient(factor, itemsize, Z, T, D):
    """D = factor (σ(Z) - T); the arguments are array objects."""
    if not are_comparable(itemsize, Z, T):
        return REFUSED
    binary_derivatives(factor, matrix(Z), matrix(T), matrix(D))
    return DONE


# ---------------------------------------------------------------------------------- Poisson


@microkernel
def poisson_losses_of_rows(k: Kernel, like: Real, Z: Matrix, T: Matrix, losses: Address) -> None:
    """losses_n = Σ_k (exp(Z_nk) - T_nk Z_nk); see `sums_of_losses`."""
    sums_of_losses(k, poisson_formula, Z, T, losses)


@microkernel
def poisson_derivatives(k: Kernel, scale: Real, Z: Matrix, T: Matrix, D: Matrix) -> None:
    """D = scale (exp(Z) - T); see `derivatives`."""
    derivatives(k, poisson_formula, scale, Z, T, D)


@jit
def poisson_loss(one, itemsize, Z, T, values):
    """values_n = Σ_k of the losses of row n; the arguments are array objects."""
    if not are_comparable(itemsize, Z, T):
        return REFUSED
    poisson_losses_of_rows(one, matrix(Z), matrix(T), data(values))
    return DONE


@jit
def poisson_loss_gradient(factor, itemsize, Z, T, D):
    """D = factor (exp(Z) - T); the arguments are array objects."""
    if not are_comparable(itemsize, Z, T):
        return REFUSED
    poisson_derivatives(factor, matrix(Z), matrix(T), matrix(D))
    return DONE


# ---------------------------------------------------------------------------- squared error


@microkernel
def squares_of_rows(k: Kernel, share: Real, Y: Matrix, T: Matrix, losses: Address) -> None:
    """losses_n = share Σ_k (Y_nk - T_nk)².

    Shapes: Y and T [rows, columns], rows of neighbouring elements; losses [rows].
    """
    with k.loop(0, Y.rows) as row:
        total = k.variable(k.zero())

        def body(offset: Int, count: int, load, store, row=row, total=total) -> None:
            difference = load(Y.row(row) + offset) - load(T.row(row) + offset)
            total[0] = k.fma(difference, difference, total[0])

        span(k, Y.columns, body)
        k.store_real(k.lane_sum(total[0]) * share, losses + row * k.element_bytes)


@microkernel
def scaled_difference(k: Kernel, factor: Real, Y: Matrix, T: Matrix, D: Matrix) -> None:
    """D = factor (Y - T).

    Shapes: Y, T and D [rows, columns], rows of neighbouring elements.
    """
    factors = k.broadcast(factor)
    with k.loop(0, Y.rows) as row:

        def body(offset: Int, count: int, load, store, row=row) -> None:
            difference = load(Y.row(row) + offset) - load(T.row(row) + offset)
            store(difference * factors, D.row(row) + offset)

        span(k, Y.columns, body)


@jit
def squared_error(one, itemsize, Y, T, values):
    """values_n = Σ_k (Y_nk - T_nk)² / K; the arguments are array objects."""
    if not are_comparable(itemsize, Y, T):
        return REFUSED
    squares_of_rows(one / type(one)(length(Y, 1)), matrix(Y), matrix(T), data(values))
    return DONE


@jit
def squared_error_gradient(factor, itemsize, Y, T, D):
    """D = factor (Y - T); the arguments are array objects."""
    if not are_comparable(itemsize, Y, T):
        return REFUSED
    scaled_difference(factor, matrix(Y), matrix(T), matrix(D))
    return DONE
