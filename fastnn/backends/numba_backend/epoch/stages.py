"""Stages of the compiled epoch: what a network does to the output of a Dense layer, step by step.

A stage is a pair of operations that `step.run` calls through their addresses, so that a network
pays for the stages it has and for no other. The forward operation writes the stage's target from
its source, the backward one turns the gradient by the target into that by the source, in place.

Each works on a range of columns, `first` to `stop` in vectors, for the first `count` rows. What it
computes in a column depends on that column alone, so no number changes with the way columns are
shared. Padded columns of every buffer are zero before and after. `step` is the number of the batch
within the call of `run`.
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
from ..kernels.philox import BLOCK_WORDS, kept, random_words
from ..kernels.rows import fill, load_row, sample_at
from ..language import Int, Kernel, Real, microkernel
from ..machine import MACHINE
from .optimizers import RATE_BYTES

VECTOR_BYTES = MACHINE.bits // 8

STAGE = np.dtype(
    [
        (name, np.int64)
        for name in (
            # addresses: of this record, and of the operations
            "record", "forward", "backward",
            # buffers, all of one stride
            "source", "target", "gradient", "stride", "units", "lanes",
            # batch norm: its number among the learned layers, bytes from the start of the flat
            # vector, and addresses in the workspace
            "learned", "scale", "shift", "running_mean", "running_variance",
            "mean", "variance", "scale_gradient", "shift_gradient",
            # how scale and shift are moved; see `optimizers.py`
            "move", "scale_region", "shift_region",
            # elementwise functions: addresses of their kernels, whether the second takes outputs
            "function", "derivative", "from_output",
            # dropout: a number of a batch is kept if its word is not below the threshold
            "key", "first_step", "threshold", "words",
        )
    ]
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
        fill(
            one * 0, stage.target + count * stage.stride + first * VECTOR_BYTES, stage.stride,
            padded - count, stop - first,
        )  # fmt: skip


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
                    parameters, gradient + first * VECTOR_BYTES, first_state, second_state,
                    first, stop - first,
                )  # fmt: skip


@operation
def load_input(scale, record, samples, order, start, count, padded):
    """Load the batch for a network that does more than rescaling before its first Dense layer."""
    shared = record_at(record, 0)
    for i in range(count):
        load_row(
            scale, samples + sample_at(order, start + i) * shared.input_row_bytes,
            shared.input_code,
            shared.input_units, shared.input_rows + i * shared.input_rows_stride,
        )  # fmt: skip
    fill(
        scale * 0, shared.input_rows + count * shared.input_rows_stride, shared.input_rows_stride,
        padded - count, (shared.input_units + shared.lanes - 1) // shared.lanes,
    )  # fmt: skip


# --------------------------------------------------------------------- elementwise functions


@operation
def elementwise_forward(one, record, parameters, first, stop, count, step):
    """target = function(source)."""
    stage, real = record_at(record, 0), type(one)
    offset = first * VECTOR_BYTES
    if stop * stage.lanes > stage.units:
        # the kernel leaves what pads the last vector of a row as it is
        fill(one * 0, stage.target + (stop - 1) * VECTOR_BYTES, stage.stride, count, 1)
    call(
        stage.function, real(stage.constants[0]), real(stage.constants[1]),
        stage.source + offset, stage.stride, 0, 0, stage.target + offset, stage.stride,
        count, min(stop * stage.lanes, stage.units) - first * stage.lanes,
    )  # fmt: skip


@operation
def elementwise_backward(one, record, parameters, first, stop, count, step):
    """gradient *= the derivative, at the source or computed from the target."""
    stage, real = record_at(record, 0), type(one)
    offset = first * VECTOR_BYTES
    value = stage.target if stage.from_output != 0 else stage.source
    gradient = stage.gradient + offset
    call(
        stage.derivative, real(stage.constants[0]), real(stage.constants[1]),
        value + offset, stage.stride, gradient, stage.stride, gradient, stage.stride,
        count, min(stop * stage.lanes, stage.units) - first * stage.lanes,
    )  # fmt: skip


# ---------------------------------------------------------------------------------- dropout


@microkernel
def keep_some(
    k: Kernel,
    factor: Real,
    source: Int,
    target: Int,
    stride: Int,
    words: Int,
    units: Int,
    threshold: Int,
    rows: Int,
    first: Int,
    stop: Int,
) -> None:
    """target = factor * source where the word is not below the threshold, 0 elsewhere.

    Shapes: source and target [rows, units, padded], words [rows * units + lanes] 32-bit words.
    """
    factors = k.broadcast(factor)
    with k.loop(0, rows) as row, k.loop(first, stop) as j:
        offset = row * stride + j * k.vector_bytes
        chosen = kept(k, words + (row * units + j * k.lanes) * 4, threshold)
        k.store(k.where(chosen, factors * k.load(source + offset), k.zero()), target + offset)


@operation
def dropout_forward(one, record, parameters, first, stop, count, step):
    stage = record_at(record, 0)
    left, right = first * stage.lanes, min(stop * stage.lanes, stage.units)
    # the blocks in which these columns have words, row by row, none of them twice
    done = 0
    for row in range(count):
        block = max(done, (row * stage.units + left) // BLOCK_WORDS)
        done = (row * stage.units + right + BLOCK_WORDS - 1) // BLOCK_WORDS
        target = stage.words + block * BLOCK_WORDS * 4
        random_words(stage.key, stage.first_step + step, block, done - block, target)
    keep_some(
        type(one)(stage.factor), stage.source, stage.target, stage.stride,
        stage.words, stage.units, stage.threshold, count, first, stop,
    )  # fmt: skip


@operation
def dropout_backward(one, record, parameters, first, stop, count, step):
    stage = record_at(record, 0)
    keep_some(
        type(one)(stage.factor), stage.gradient, stage.gradient, stage.stride,
        stage.words, stage.units, stage.threshold, count, first, stop,
    )  # fmt: skip


# ------------------------------------------------------------------------------- batch norm


@operation
def batch_norm_forward(one, record, parameters, first, stop, count, step):
    """Normalise by the batch's statistics, a vector of columns at a time; the running ones move."""
    stage, real = record_at(record, 0), type(one)
    for vector in range(first, stop):
        offset = vector * VECTOR_BYTES
        source, vectors = stage.source + offset, parameters + offset
        mean, variance = stage.mean + offset, stage.variance + offset
        column_statistics(
            one / real(count), source, stage.stride, mean, variance, count, stage.lanes
        )  # fmt: skip
        normalize(
            real(stage.epsilon), source, stage.stride, stage.target + offset, stage.stride,
            vectors + stage.scale, vectors + stage.shift, mean, variance, count, stage.lanes,
        )  # fmt: skip
        for average, number in (
            (stage.running_mean, mean), (stage.running_variance, variance)
        ):  # fmt: skip
            move_average(
                real(stage.momentum), real(1 - stage.momentum), vectors + average, number
            )  # fmt: skip


@operation
def batch_norm_inference(one, record, parameters, first, stop, count, step):
    """Normalise by the running statistics, a vector of columns at a time."""
    stage = record_at(record, 0)
    for vector in range(first, stop):
        offset = vector * VECTOR_BYTES
        vectors = parameters + offset
        normalize(
            type(one)(stage.epsilon), stage.source + offset, stage.stride,
            stage.target + offset, stage.stride, vectors + stage.scale, vectors + stage.shift,
            vectors + stage.running_mean, vectors + stage.running_variance, count, stage.lanes,
        )  # fmt: skip


@operation
def batch_norm_backward(one, record, parameters, first, stop, count, step):
    stage, real = record_at(record, 0), type(one)
    for vector in range(first, stop):
        offset = vector * VECTOR_BYTES
        gradient = stage.gradient + offset
        normalize_gradient(
            real(stage.epsilon), one / real(count), stage.source + offset, stage.stride,
            gradient, stage.stride, gradient, stage.stride, parameters + stage.scale + offset,
            stage.mean + offset, stage.variance + offset,
            stage.scale_gradient + offset, stage.shift_gradient + offset, count, stage.lanes,
        )  # fmt: skip
