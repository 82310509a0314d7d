"""Squared error of the compiled epoch: loss, gradient and prediction."""

from __future__ import annotations

from typing import NamedTuple

from ..jit import Operation, operation, record_at
from ..kernels.rows import clear, integer_at, load_row, put_integer, put_real, real_at, sample_at
from ..kernels.softmax import first_largest
from ..language import Int, Kernel, Matrix, Real, Vector
from ..microkernel import microkernel, submatrix

CLASS_IDS = -1
"""What `target_code` holds for targets that are class ids; otherwise the code of their type."""


@microkernel
def squared_error(
    k: Kernel, scale: Real, Y: Matrix, T: Matrix, G: Matrix, sums: Int, predictions: Int
) -> None:
    """G = scale * (Y - T), and of each row the sum of (Y - T)^2 and where the largest output is.

    Shapes: outputs Y, targets T and gradient G [rows, units], all zero in the padding of a row;
    sums [rows], predictions [rows] 64-bit integers, -1 where NaN leaves no largest output.
    """
    vectors = k.vectors(Y)
    minus_infinity = k.constant(float("-inf"))
    factor = k.broadcast(scale)
    with k.loop(0, Y.rows) as row:
        y, t, g = Y.row(row), T.row(row), G.row(row)

        def output(j: Int, y=y) -> Vector:
            inside = k.lane_before(Y.columns - j * k.lanes)
            return k.where(inside, k.load(y + j * k.vector_bytes), minus_infinity)

        total = k.variable(k.zero())
        with k.loop(0, vectors) as j:
            offset = j * k.vector_bytes
            error = k.load(y + offset) - k.load(t + offset)
            k.store(factor * error, g + offset)
            total[0] = k.fma(error, error, total[0])
        k.store_real(k.lane_sum(total[0]), sums + row * k.element_bytes)
        _, first = first_largest(k, output, vectors)
        k.store_integer(first, predictions + row * 8)


@operation
def mean_squared_error(one, record, targets, order, start, count):
    """Gradient of the mean loss by the outputs; the batch's loss and right answers to the record.

    The loss of a sample is the mean over the outputs. Targets are class ids, which stand for rows
    of zeros with a one, or rows of numbers; there are no right answers then.
    """
    shared = record_at(record, 0)
    units, T = shared.output_units, shared.targets
    by_class = shared.target_code == CLASS_IDS
    for i in range(count):
        sample, row = sample_at(order, start + i), T.address + i * T.row_stride
        if by_class:
            label = integer_at(targets + 8 * sample)
            put_integer(label, shared.labels + 8 * i)
            clear(one, submatrix(T, i, 0, 1, units))
            put_real(one, row + label * shared.itemsize)
        else:
            source = targets + sample * units * shared.itemsize
            load_row(one, source, shared.target_code, units, row)
    real = type(one)
    squared_error(
        real(2 / (count * units)), submatrix(shared.result, 0, 0, count, units), T,
        shared.result_gradient, shared.sums, shared.predictions,
    )  # fmt: skip
    loss, correct = 0.0, 0
    for i in range(count):
        loss += real_at(one, shared.sums + i * shared.itemsize)
        if by_class:
            label = integer_at(shared.labels + 8 * i)
            correct += integer_at(shared.predictions + 8 * i) == label
    put_real(loss / units, shared.batch_loss)
    put_integer(correct, shared.batch_correct)


class CompiledLoss(NamedTuple):
    """A loss of the compiled epoch: its operation, and whether targets may be rows of numbers.

    Without an operation it is a part of `step.run_batches`.
    """

    operation: Operation | None
    numeric_targets: bool


LOSSES = {
    "softmax_cross_entropy": CompiledLoss(None, numeric_targets=False),
    "mse": CompiledLoss(mean_squared_error, numeric_targets=True),
}
"""Each loss by the name that it has in `fastnn/losses.py`."""
