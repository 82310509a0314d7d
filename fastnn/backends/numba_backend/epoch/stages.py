"""Stages of the compiled epoch: what a network does to the output of a Dense layer, step by step.

A stage is a pair of operations that `step.run_batches` calls through their addresses, so that a
network pays for the stages it has and for no other. The forward operation writes the stage's target
from its source, the backward one turns the gradient by the target into that by the source, in
place.

Each works on a range of columns, `first` to `stop`, which are whole vectors, for the first `count`
rows. What it computes in a column depends on that column alone, so no number changes with the way
columns are shared. Padded columns of every buffer are zero before and after. `step` is the number
of the batch within the call of `run_batches`.
"""

from __future__ import annotations

import numpy as np

from ..jit import call, operation, record_at
from ..kernels.batch_norm import (
    column_statistics,
    move_average,
    normalize,
    normalize_gradient,
)
from ..kernels.dropout import drop
from ..kernels.loading import load_row, sample_at
from ..kernels.philox import BLOCK_WORDS, random_words
from ..kernels.rows import clear
from ..language import MATRIX
from ..microkernel import matrix_at, submatrix
from .optimizers import RATE_BYTES

STAGE = np.dtype(
    [
        (name, np.int64)
        for name in (
            # addresses: of this record, and of the operations
            "record", "forward", "backward",
            "units", "itemsize", "lanes",
            # batch norm: its number among the learned layers, bytes from the start of the flat
            # vector, and addresses in the workspace
            "learned", "scale", "shift", "running_mean", "running_variance",
            "mean", "variance", "scale_gradient", "shift_gradient",
            # how scale and shift are moved; see `optimizers.py`
            "move", "scale_region", "shift_region",
            # elementwise functions: addresses of their kernels, whether the second takes outputs
            "function", "derivative", "from_output",
            # dropout: a number of a batch is kept if its word is not below the threshold
            "key", "first_step", "threshold",
        )
    ]
    # [samples, columns], and of dropout 32-bit words, [samples, units]
    + [(name, MATRIX) for name in ("source", "target", "gradient", "words")]
    + [("constants", np.float64, 2)]
    + [(name, np.float64) for name in ("factor", "momentum", "epsilon")]
)  # fmt: skip
"""One stage. `factor` is that of what dropout keeps."""


# ------------------------------------------------------------------- all stages of a block


@operation
def forward_stages(one, record, parameters, lowest, beyond, first, stop, count, padded, step):
    """Run stages `lowest` to `beyond` of the records, each on the output of the one before."""
    for number in range(lowest, beyond):
        stage = record_at(record, number)
        call(stage.forward, one, stage.record, parameters, first, stop, count, step)
        clear(one, submatrix(stage.target, count, first, padded - count, stop - first))


@operation
def backward_stages(
    one, record, parameters, first_state, second_state, lowest, beyond, first, stop, count, step,
    rates,
):  # fmt: skip
    """Take the gradient back through stages `beyond` to `lowest`; what they learn moves."""
    for number in range(beyond - 1, lowest - 1, -1):
        stage = record_at(record, number)
        call(stage.backward, one, stage.record, parameters, first, stop, count, step)
        if stage.learned >= 0:
            for gradient, region in (
                (stage.scale_gradient, stage.scale_region),
                (stage.shift_gradient, stage.shift_region),
            ):  # fmt: skip
                call(
                    stage.move, one, region, rates + RATE_BYTES * stage.learned,
                    parameters, gradient + first * stage.itemsize, first_state, second_state,
                    first // stage.lanes, (stop - first) // stage.lanes,
                )  # fmt: skip


@operation
def load_input(scale, record, samples, order, start, count, padded):
    """Load the batch for a network that does more than rescaling before its first Dense layer."""
    shared = record_at(record, 0)
    X = shared.input_rows
    for i in range(count):
        load_row(
            scale, samples + sample_at(order, start + i) * shared.input_row_bytes,
            shared.input_code, shared.input_units, X.address + i * X.row_stride,
        )  # fmt: skip
    clear(scale, submatrix(X, count, 0, padded - count, X.columns))


# --------------------------------------------------------------------- elementwise functions


@operation
def elementwise_forward(one, record, parameters, first, stop, count, step):
    """target = function(source)."""
    stage, real = record_at(record, 0), type(one)
    if stop > stage.units:
        # the kernel leaves what pads the last vector of a row as it is
        last = stop - stage.lanes
        clear(one, submatrix(stage.target, 0, last, count, stage.lanes))
    columns = min(stop, stage.units) - first
    value = submatrix(stage.source, 0, first, count, columns)
    call(
        stage.function, real(stage.constants[0]), real(stage.constants[1]),
        value, value, submatrix(stage.target, 0, first, count, columns),
    )  # fmt: skip


@operation
def elementwise_backward(one, record, parameters, first, stop, count, step):
    """gradient *= the derivative, at the source or computed from the target."""
    stage, real = record_at(record, 0), type(one)
    columns = min(stop, stage.units) - first
    value = submatrix(stage.source, 0, first, count, columns)
    if stage.from_output != 0:
        value = submatrix(stage.target, 0, first, count, columns)
    gradient = submatrix(stage.gradient, 0, first, count, columns)
    call(
        stage.derivative, real(stage.constants[0]), real(stage.constants[1]),
        value, gradient, gradient,
    )  # fmt: skip


# ---------------------------------------------------------------------------------- dropout


@operation
def dropout_forward(one, record, parameters, first, stop, count, step):
    stage = record_at(record, 0)
    end = min(stop, stage.units)
    # the blocks in which these columns have words, row by row, none of them twice
    done = 0
    for row in range(count):
        block = max(done, (row * stage.units + first) // BLOCK_WORDS)
        done = (row * stage.units + end + BLOCK_WORDS - 1) // BLOCK_WORDS
        target = stage.words.address + block * BLOCK_WORDS * 4
        random_words(stage.key, stage.first_step + step, block, done - block, target)
    drop(
        type(one)(stage.factor), submatrix(stage.source, 0, first, count, stop - first),
        submatrix(stage.words, 0, first, count, stop - first), stage.threshold,
        submatrix(stage.target, 0, first, count, stop - first),
    )  # fmt: skip


@operation
def dropout_backward(one, record, parameters, first, stop, count, step):
    stage = record_at(record, 0)
    gradient = submatrix(stage.gradient, 0, first, count, stop - first)
    drop(
        type(one)(stage.factor), gradient,
        submatrix(stage.words, 0, first, count, stop - first), stage.threshold, gradient,
    )  # fmt: skip


# ------------------------------------------------------------------------------- batch norm


@operation
def batch_norm_forward(one, record, parameters, first, stop, count, step):
    """Normalise by the batch's statistics; the running ones move, but not for one sample."""
    stage, real = record_at(record, 0), type(one)
    columns, offset = stop - first, first * stage.itemsize
    vectors, mean, variance = parameters + offset, stage.mean + offset, stage.variance + offset
    X = submatrix(stage.source, 0, first, count, columns)
    column_statistics(one / real(count), X, mean, variance, 0)
    normalize(
        real(stage.epsilon), X, submatrix(stage.target, 0, first, count, columns),
        vectors + stage.scale, vectors + stage.shift, mean, variance,
    )  # fmt: skip
    if count > 1:
        kept, rest = real(stage.momentum), real(1 - stage.momentum)
        for place in range(0, columns * stage.itemsize, stage.lanes * stage.itemsize):
            move_average(kept, rest, vectors + stage.running_mean + place, mean + place)
            move_average(kept, rest, vectors + stage.running_variance + place, variance + place)


@operation
def batch_norm_inference(one, record, parameters, first, stop, count, step):
    """Normalise by the running statistics."""
    stage = record_at(record, 0)
    columns, vectors = stop - first, parameters + first * stage.itemsize
    normalize(
        type(one)(stage.epsilon), submatrix(stage.source, 0, first, count, columns),
        submatrix(stage.target, 0, first, count, columns),
        vectors + stage.scale, vectors + stage.shift,
        vectors + stage.running_mean, vectors + stage.running_variance,
    )  # fmt: skip


@operation
def batch_norm_backward(one, record, parameters, first, stop, count, step):
    stage, real = record_at(record, 0), type(one)
    columns, offset = min(stop, stage.units) - first, first * stage.itemsize
    if columns < stop - first:
        # what infinity leaves in padding would stay in the state of an optimiser
        last = (stop - stage.lanes) * stage.itemsize
        for vector in (stage.scale_gradient, stage.shift_gradient):
            clear(one, matrix_at(vector + last, 0, stage.itemsize, 1, stage.lanes))
    gradient = submatrix(stage.gradient, 0, first, count, columns)
    normalize_gradient(
        real(stage.epsilon), one / real(count),
        submatrix(stage.source, 0, first, count, columns), gradient, gradient,
        parameters + stage.scale + offset, stage.mean + offset, stage.variance + offset,
        stage.scale_gradient + offset, stage.shift_gradient + offset, 0,
    )  # fmt: skip
