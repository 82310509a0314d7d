"""The way back: what reaches the inputs of a layer, and how its weights move.

    dX = G W^T,  W -= rate * X^T G,  b -= rate * sum(G)

The first W may change as late as in the next sample's forward pass, see `one_sample.py`.
"""

from __future__ import annotations

from ..jit import call, jit_part, operation, record_at
from ..kernels.matmul import backward_from_few, matmul, matmul_transposed
from ..kernels.relu import mask_by_sign
from ..kernels.rows import add_column_sums, clear, put_real, real_at, transpose
from ..kernels.sparse import backward_by_unit, gather, scatter
from ..microkernel import shifted, submatrix, transposed
from .laps import BACKWARD, BIASES, INPUT_GRADIENT, MASK, OPTIMIZER, PREPARE, TURN, UPDATE, lap
from .layer import chunk_at, rows_of_weights
from .optimizers import RATE_BYTES, penalty_factor
from .records import (
    BY_COLUMNS,
    BY_SAMPLE,
    BY_UNIT,
    EVERY_NUMBER,
    GROUP_SAMPLES,
    IN_PAIRS,
    ONE_SAMPLE,
    WITH_UPDATE,
)


@jit_part
def transpose_gradient(one, layer, padded, done):
    """G^T; where `done`, own columns are there already, and there are others only in a team."""
    G = layer.gradient
    first, stop = layer.first_column, layer.stop_column
    if not done:
        first = stop = G.columns
    for side in range(2):
        begin = 0 if side == 0 else stop
        columns = (first if side == 0 else G.columns) - begin
        transpose(
            one, submatrix(G, 0, begin, padded, columns),
            submatrix(layer.gradient_transposed, begin, 0, columns, padded),
        )  # fmt: skip


@jit_part
def leaves_transposed(layer, below):
    """Whether an input gradient has its transpose beside it when it comes to the block below.

    Stages change the gradient where it lies by rows.
    """
    return below.first_stage == below.stop_stage and (
        layer.gradient_by == BY_COLUMNS
        or (layer.gradient_by == WITH_UPDATE and layer.update_by == BY_UNIT)
    )


@jit_part
def minus_rate(one, rates):
    """What X^T G is multiplied by in plain SGD, where it is added to W."""
    return -type(one)(real_at(0.0, rates))


@jit_part
def input_gradient(one, layer, below, parameters, rates, count, padded, laps):
    """dX = G W^T for own units, into the gradient of the block below, through its ReLU if nothing
    is between.

    BY_COLUMNS computes (W G^T)^T and reads the weights row by row, as they lie: they are never
    transposed. BY_ROWS computes G W^T with vectors along the rows of both, for batches that leave
    much of a vector of samples empty, where there are outputs enough. WITH_UPDATE changes the
    weights as well, row by row, behind a ReLU: what it would mask is not computed.
    Tried and lost: a transposed copy of the weights and skipping the zeros that ReLU left in G; the
    copy eats what the zeros save.
    """
    unit, units = layer.first_unit, layer.stop_unit - layer.first_unit
    W = submatrix(shifted(layer.weights, parameters), unit, 0, units, layer.output_units)
    if layer.gradient_by == BY_COLUMNS:
        dX = submatrix(below.gradient_transposed, unit, 0, units, padded)
        G = submatrix(layer.gradient_transposed, 0, 0, layer.output_units, padded)
        matmul(one, W, G, dX, 0)
        lap(laps, layer, INPUT_GRADIENT)
        if layer.mask_inputs != 0:
            mask_by_sign(one, dX, submatrix(layer.inputs_transposed, unit, 0, units, padded))
            lap(laps, layer, MASK)
        transpose(one, dX, submatrix(below.gradient, 0, unit, padded, units))
        lap(laps, layer, TURN)
    elif layer.gradient_by == WITH_UPDATE and layer.update_by == EVERY_NUMBER:
        backward_from_few(
            minus_rate(one, rates), submatrix(layer.inputs, 0, unit, count, units),
            submatrix(layer.gradient, 0, 0, count, layer.output_units), layer.output_units, W,
            submatrix(below.gradient, 0, unit, count, units),
        )  # fmt: skip
        clear(one, submatrix(below.gradient, count, unit, padded - count, units))
        lap(laps, layer, BACKWARD)
    elif layer.gradient_by == WITH_UPDATE:
        factor = minus_rate(one, rates)
        columns = layer.weights.columns
        weights = shifted(layer.weights, parameters)
        dX = submatrix(below.gradient_transposed, unit, 0, units, padded)
        for column in range(0, columns, layer.backward_tile):
            width = min(layer.backward_tile, columns - column)
            backward_by_unit(
                factor, submatrix(layer.inputs_by_unit, unit, 0, units, padded),
                submatrix(layer.bits_by_unit, unit, 0, units, 1),
                submatrix(layer.gradient, 0, column, padded, width),
                submatrix(weights, unit, column, units, width), dX, layer.dots,
                0 if column == 0 else 1,
            )  # fmt: skip
        lap(laps, layer, BACKWARD)
        transpose(one, dX, submatrix(below.gradient, 0, unit, padded, units))
        lap(laps, layer, TURN)
    else:
        dX = submatrix(below.gradient, 0, unit, count, units)
        G = submatrix(layer.gradient, 0, 0, count, layer.output_units)
        matmul_transposed(one, G, W, dX)
        lap(laps, layer, INPUT_GRADIENT)
        if layer.mask_inputs != 0:
            mask_by_sign(one, dX, submatrix(layer.inputs, 0, unit, count, units))
        clear(one, submatrix(below.gradient, count, unit, padded - count, units))
        lap(laps, layer, MASK)


@jit_part
def update_weights(
    one, shared, layer, parameters, first_state, second_state, rates, count, factor, keep, laps
):  # fmt: skip
    """W -= rate * X^T G, or another rule's step: own rows of W, or own columns (`by_outputs`).

    In plain SGD the gradient of W is never stored. Another rule has `move`, an operation of
    `optimizers.py`, which takes the gradient some rows at a time; where gradients are clipped, that
    of `clipping.py`; the weights move at the end of the step then, and nobody copies them here.
    """
    fused = layer.move == 0
    columns = layer.weights.columns
    if layer.round_gradient != 0:
        call(layer.round_gradient, one, layer.record, count)
    # with kernels that ask for no bits by sample, plain SGD takes all chunks at once
    chunks = 1
    if fused and layer.update_by != BY_SAMPLE:
        chunks = layer.stop_chunk - layer.first_chunk
    for chunk in range(layer.first_chunk, layer.stop_chunk, chunks):
        begin, _ = chunk_at(layer, chunk)
        _, end = chunk_at(layer, chunk + chunks - 1)
        squares = 0.0
        for unit in range(begin, end, layer.rows_at_once):
            units = min(layer.rows_at_once, end - unit)
            target = submatrix(layer.gradient_rows, 0, 0, units, columns)
            if fused:
                target = rows_of_weights(layer, parameters, unit, units)
            if layer.update_by == EVERY_NUMBER:
                first, width = 0, columns
                if layer.by_outputs != 0:
                    first, width = layer.first_column, layer.stop_column - layer.first_column
                G = submatrix(layer.gradient, 0, first, count, width)
                W = submatrix(target, 0, first, units, width)
                if layer.sources != 0:
                    offset = unit * layer.weights.column_stride
                    call(
                        layer.multiply_samples_turned, factor, layer.sources, offset,
                        G, W, keep, 8 * shared.batch_size,
                    )  # fmt: skip
                else:
                    X = submatrix(layer.inputs, 0, unit, count, units)
                    matmul(factor, transposed(X), G, W, keep)
            elif layer.update_by == IN_PAIRS:
                call(
                    layer.gradient_in_pairs, factor, layer.record,
                    unit, units, count, target.address, target.row_stride, keep,
                )  # fmt: skip
            elif layer.update_by == BY_UNIT:
                rows = (units + layer.update_rows - 1) // layer.update_rows * layer.update_rows
                for column in range(0, columns, layer.update_tile):
                    width = min(layer.update_tile, columns - column)
                    W = submatrix(target, 0, column, rows, width)
                    for sample in range(0, count, GROUP_SAMPLES):
                        X = submatrix(layer.inputs_by_unit, unit, sample, rows, GROUP_SAMPLES)
                        ahead = layer.rows_ahead if fused and sample == 0 else 0
                        gather(
                            factor, X,
                            submatrix(layer.bits_by_unit, unit, sample // 64, rows, 1),
                            submatrix(
                                layer.multiplied_gradient, sample, column, GROUP_SAMPLES, width
                            ), W,
                            layer.update_rows, keep if sample == 0 else 1,
                            submatrix(W, ahead, 0, rows if ahead != 0 else 0, width),
                        )  # fmt: skip
            else:
                if not fused:
                    clear(one, target)
                first_word = chunk * layer.chunk_words + (unit - begin) // 64
                for first in range(0, units, 64):
                    X = submatrix(layer.inputs, 0, unit + first, count, 64)
                    bits = submatrix(layer.bits_by_sample, 0, first_word + first // 64, count, 1)
                    for column in range(0, columns, layer.scatter_tile):
                        width = min(layer.scatter_tile, columns - column)
                        scatter(
                            factor, X, bits, submatrix(layer.gradient, 0, column, count, width),
                            submatrix(target, first, column, 64, width), 1,
                        )  # fmt: skip
            lap(laps, layer, UPDATE)
            if not fused:
                call(
                    layer.move, one, layer.weights_region, rates,
                    parameters, target.address, first_state, second_state, unit, units,
                )  # fmt: skip
                if layer.update_by == IN_PAIRS and shared.clip == 0:
                    call(layer.pack_weights, one, layer.record, parameters, unit, units)
                lap(laps, layer, OPTIMIZER)
                squares += real_at(0.0, layer.squares_of_rows)
        if not fused:
            put_real(squares, layer.squares + 8 * chunk)
    if layer.round_weights != 0 and shared.clip == 0:
        call(layer.round_weights, one, layer.record, parameters, count if fused else 0)
        lap(laps, layer, PREPARE)


@jit_part
def update(one, shared, layer, parameters, first_state, second_state, rates, count, padded, laps):
    """Move own rows of W, see `update_weights`, and own part of b: b -= rate * sum(G)."""
    fused = layer.move == 0
    factor = minus_rate(one, rates) if fused else one
    if layer.update_by == ONE_SAMPLE:
        put_real(factor, layer.waiting_factor)
    elif layer.gradient_by != WITH_UPDATE:
        update_weights(
            one, shared, layer, parameters, first_state, second_state, rates, count,
            factor, 1 if fused else 0, laps,
        )  # fmt: skip
    first, columns = layer.first_column, layer.stop_column - layer.first_column
    target = layer.gradient_rows.address
    if fused:
        target = parameters + layer.biases + first * shared.itemsize
    else:
        clear(one, submatrix(layer.gradient_rows, 0, 0, 1, columns))
    add_column_sums(factor, submatrix(layer.gradient, 0, first, padded, columns), target)
    if not fused and columns != 0:
        call(
            layer.move, one, layer.biases_region, rates,
            parameters, target, first_state, second_state, 0, 1,
        )  # fmt: skip
    lap(laps, layer, BIASES)


@operation
def add_penalties(one, record, blocks, chunks, rates, target):
    """The penalty of all W before the step: 0.5 decay * factor * (sum of squares), for each.

    Squares are added over rows that move together, then chunk by chunk and layer by layer, whoever
    moved which.
    """
    total = 0.0
    for number in range(blocks):
        layer = record_at(record, number)
        if layer.decay != 0:
            squares = 0.0
            for chunk in range(chunks):
                squares += real_at(0.0, layer.penalty_squares + 8 * chunk)
            decay = real_at(0.0, layer.decay) * penalty_factor(rates + RATE_BYTES * layer.learned)
            total += 0.5 * decay * squares
    put_real(total, target)
