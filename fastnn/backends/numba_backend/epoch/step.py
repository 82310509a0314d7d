"""The compiled epoch: one function that trains, or predicts with, any network of the table.

A network is an array of records, one for each block: a Dense layer, or the input itself where
something comes before the first Dense layer, a ReLU right after it, and the stages after that. A
record holds sizes, where parameters lie in the flat vector, where buffers lie in the workspace,
and which of the kernels are used. `table.py` writes the records; nothing here is compiled again for
a new network. The functions below read like the layers of the NumPy backend, with the batch in
rows of X, A and G:

    forward     Z = X W + b,  A = max(Z, 0),  A = stage(A) for each stage
    backward    dX = G W^T,  back through the stages,  dZ = dX where A > 0,
                W -= rate * X^T G,  b -= rate * sum(G)

The first W may change as late as in the next sample's forward pass, see `one_sample.py`.
Rows past the last sample of a batch, up to the next multiple of the vector length, are zero in
every buffer that is read by whole vectors of samples, so they add nothing.

Order of sums: the input units of every layer are cut into as many chunks as the network's shape
decides. The product of each chunk goes into a slot of its own, and the slots are added in a fixed
order; so no bit depends on how many threads share the chunks. What a thread does is written in its
table: its own chunks of the input units, and its own columns of the output. One thread has all of
them; `sharing.py` says who does what in a team.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastnn.memory import LINE_BYTES

from ..jit import call, jit, jit_part, operation, record_at
from ..kernels.loading import copy_bytes, load_nonzeros, load_row, prefetch_rows, sample_at
from ..kernels.matmul import backward_from_few, matmul, matmul_transposed
from ..kernels.relu import activate, mask_by_sign
from ..kernels.rows import (
    add_column_sums,
    clear,
    integer_at,
    nonzero_bits,
    put_integer,
    put_real,
    real_at,
    transfer,
    transpose,
    turn_bits,
)
from ..kernels.sparse import backward_by_unit, gather, scatter
from ..language import MATRIX
from ..microkernel import shifted, submatrix, transposed
from .laps import (
    ACTIVATION,
    BACKWARD,
    BIASES,
    FORWARD,
    INPUT_GRADIENT,
    LOAD,
    LOSS,
    MASK,
    MEETING,
    OPTIMIZER,
    PREPARE,
    REST,
    STAGES,
    TURN,
    UPDATE,
    begin_lap,
    lap,
)
from .layer import chunk_at, rows_of_weights, weights_to_multiply
from .losses import softmax_of_batch
from .meetings import (
    END,
    arrive,
    call_members,
    clock,
    consider_parting,
    meet,
    note_alone,
    parted,
    wait,
    wait_for_call,
)
from .one_sample import nothing_waits
from .optimizers import RATE_BYTES, penalty_factor
from .sharing import MEMBER

GROUP_SAMPLES = 64
"""Samples that the first layer loads and uses together; as many as a word has bits."""

LINES_AT_ONCE = 64
"""Cache lines of samples to come that are asked for in one go: of many more, most never come, and
of fewer, products are cut into more pieces."""

EVERY_NUMBER, BY_UNIT, BY_SAMPLE, ONE_SAMPLE, IN_PAIRS = 0, 1, 2, 3, 4
"""How a layer multiplies: every number, or the non-zeros of each input unit or of each sample; or
every number of one sample, after the update that has waited for it, see `one_sample.py`; or every
number in bfloat16, see `in_pairs.py`."""

BY_COLUMNS, BY_ROWS, NO_GRADIENT, WITH_UPDATE, BY_PAIRS = 0, 1, 2, 3, 4
"""How the input gradient is computed, see `input_gradient`; not where nothing below learns."""

LAYER = np.dtype(
    [
        (name, np.int64)
        for name in (
            "number", "input_units", "output_units",
            # parameters: bytes from the start of the flat vector; and see `weights` below
            "biases",
            # whether its ReLU is applied to its sums, and to the gradient that arrives here; and
            # whether the ReLU of the layer below is applied to the gradient that leaves
            "activation", "mask_gradient", "mask_inputs",
            # its stages, and the lowest of them that the gradient goes through
            "first_stage", "stop_stage", "lowest_stage",
            # what is this thread's own: chunks of the input units, which begin where a list at an
            # address says, so units, and columns of the output; whether it multiplies all units by
            # these columns alone; and the terms of their sums, TERMs at an address
            "first_chunk", "stop_chunk", "chunk_units", "first_unit", "stop_unit",
            "first_column", "stop_column", "by_outputs", "terms", "term_count",
            # messages to the other members of a team, and from them
            "products_out", "gradient_out", "gradient_in",
            # which kernels, how many columns they take at a time, and how many rows of the weights
            # ahead of the one that changes the update asks for; none of small weights
            "forward_by", "update_by", "gradient_by", "update_rows", "update_tile",
            "scatter_tile", "gather_tile", "gather_units", "backward_tile", "chunk_words",
            "rows_ahead",
            # how it moves; see `optimizers.py`
            "learned", "move", "rows_at_once", "weights_region", "biases_region",
            "decay", "squares_of_rows", "squares", "penalty_squares",
            # of the first block, where gradients are clipped: address of this thread's PARTs
            "parts_to_clip",
            # from a slot to the next
            "slot_bytes",
            # ONE_SAMPLE: its operation, and minus the rate of the update that waits
            "update_and_multiply", "waiting_factor",
            # the first layer, where it multiplies samples as they lie: where the addresses of those
            # of the batch are, and kernels; else 0
            "sources", "multiply_samples", "multiply_samples_turned",
            # IN_PAIRS: address of this record, and operations
            "record", "multiply_in_pairs", "input_gradient_in_pairs", "gradient_in_pairs",
            "pack_weights",
            # BY_UNIT, where operands are rounded to bfloat16: operations, or 0, see `rounding.py`
            "round_inputs", "round_weights", "round_gradient",
        )
    ]
    + [
        (name, MATRIX)
        for name in (
            # [units, columns]; its address counts from the start of the flat vector
            "weights",
            # some rows of the gradient of the weights
            "gradient_rows",
            # [samples, units] or [units, samples]
            "inputs", "inputs_transposed", "outputs", "gradient", "gradient_transposed",
            # [units, samples]: the transposed copy if there is one, or rows read by columns
            "inputs_by_unit",
            # one after the other, each [samples, columns]
            "slots",
            # words of 64 bits, [units, samples / 64] and [samples, words], for each chunk of units
            # as many; those of a column side by side
            "bits_by_unit", "bits_by_sample",
            # ONE_SAMPLE: the sample whose update waits, [1, units]
            "waiting",
            # WITH_UPDATE: [samples, a vector]
            "dots",
            # IN_PAIRS: words of two bfloat16 numbers, [samples, units / 2] and [samples / 2, units]
            "packed_inputs", "paired_inputs",
            # [units, columns / 2] and [units / 2, columns]
            "packed_weights", "paired_weights",
            # [columns / 2, units], transposed; and [samples, columns / 2], [samples / 2, columns]
            "turned_weights", "packed_gradient", "paired_gradient",
            # BY_UNIT: what is multiplied in the update, `gradient` or a copy that is rounded to
            # bfloat16; and such a copy of the weights
            "multiplied_gradient", "rounded_weights",
        )
    ]
)  # fmt: skip
"""A block, called a layer in the code below. `outputs` are those of Dense and ReLU, before the
stages. `gradient` is that of the loss by the block's result, then by what each stage took in, at
last by the sums of Dense, and stays so until the next step's backward pass. Matrices have as many
rows as a batch has samples, padded, and as many columns as fill whole vectors."""

SHARED = np.dtype(
    [
        (name, np.int64)
        for name in (
            "batch_size", "itemsize", "lanes", "chunks",
            "input_code", "input_itemsize", "input_row_bytes",
            # samples that are CSR: the operation that puts those of a batch where they are read as
            # others are, or 0; addresses of CSR's three arrays, and of these rows, zero in between
            "put_rows", "row_starts", "columns", "values", "dense_rows",
            # addresses: of this record, of the blocks' and of what stages need, 0 without stages
            "record", "layers", "stages", "forward_stages", "backward_stages",
            # the first block, where it is the input itself: the operation that loads it, or 0
            "load_input", "input_units",
            # the first layer, where it multiplies in pairs: the operation that loads its input
            "load_in_pairs",
            # the loss: 0 for softmax cross-entropy, or an operation; what it reads and writes
            "loss", "output_units",
            "target_code", "labels", "predictions", "margins", "sums",
            "batch_loss", "batch_correct",
            # float64 weights of all samples, or 0; and the sum of those of the batch
            "sample_weights", "batch_weight",
            # penalties: 0, or the operation that adds them up, and the sum
            "add_penalties", "penalty",
            # clipping: 0, or the operation
            "clip",
            # for samples in pairs: a sample of zeros, and room for the last numbers of two
            "zeros", "tails", "tail_stride",
        )
    ]
    + [(name, MATRIX) for name in ("input_rows", "result", "result_gradient", "targets")]
    # of labels
    + [("smoothing", np.float64)]
)  # fmt: skip
"""What the blocks have in common. Matrices are [samples, columns], padded as those of a block."""

TOTALS = np.dtype([("loss", np.float64), ("correct", np.int64)])
"""Sums over the samples of an epoch, of losses and of right answers."""
TOTALS_BYTES = TOTALS.itemsize


@jit_part
def load_rows(scale, shared, layer, samples, order, start, count):
    """X = scale * samples, row by row, for a layer that multiplies by rows; own units of it."""
    unit = layer.first_unit
    for i in range(count):
        source = samples + sample_at(order, start + i) * shared.input_row_bytes
        load_row(
            scale, source + unit * shared.input_itemsize, shared.input_code,
            min(layer.stop_unit, layer.input_units) - unit,
            layer.inputs.address + i * layer.inputs.row_stride + unit * shared.itemsize,
        )  # fmt: skip


@jit_part
def find_rows(shared, layer, samples, order, start, count, total):
    """Note where the samples of the batch lie, for a layer that multiplies them there.

    Behind them, where those of the next batch lie, for the update to ask for them bit by bit; in
    the last batch it asks for what is here.
    """
    later = layer.sources + 8 * shared.batch_size
    for i in range(count):
        source = samples + sample_at(order, start + i) * shared.input_row_bytes
        put_integer(source, layer.sources + 8 * i)
        position = min(start + count + i, total - 1)
        put_integer(samples + sample_at(order, position) * shared.input_row_bytes, later + 8 * i)


@jit_part
def load_group(scale, shared, layer, samples, order, start, first, stop):
    """X = scale * samples, and where they are not zero: own units, samples `first` to `stop`."""
    for chunk in range(layer.first_chunk, layer.stop_chunk):
        unit, end = chunk_at(layer, chunk)
        load_nonzeros(
            scale, samples + unit * shared.input_itemsize, shared.input_row_bytes,
            order, start + first, shared.input_code,
            submatrix(layer.inputs, first, unit, stop - first, end - unit),
            submatrix(layer.bits_by_sample, first, chunk * layer.chunk_words, stop - first, 1),
        )  # fmt: skip


@jit_part
def ask_for_samples(shared, layer, unit, units, samples, order, start, count):
    """Prefetch some own units of the `count` samples that follow in the order.

    Shuffled samples come from memory, each from pages of its own. Asked for in one go, they fill
    the queues in which the running product waits for its weights; so they are asked for bit by bit.
    """
    if count > 0:
        itemsize = shared.input_itemsize
        prefetch_rows(
            samples, shared.input_row_bytes, order + 8 * start, count,
            unit * itemsize, units * itemsize,
            min(layer.stop_unit, layer.input_units) * itemsize - 1,
        )  # fmt: skip


@jit_part
def find_nonzeros(one, layer, count):
    """Note which own inputs of the layer are not zero, sample by sample."""
    for chunk in range(layer.first_chunk, layer.stop_chunk):
        unit, end = chunk_at(layer, chunk)
        nonzero_bits(
            one, submatrix(layer.inputs, 0, unit, count, end - unit),
            submatrix(layer.bits_by_sample, 0, chunk * layer.chunk_words, count, 1),
        )  # fmt: skip


@jit_part
def turn_nonzeros(layer, first, stop):
    """Note it unit by unit as well, for samples `first` to `stop`.

    The last word of a chunk has no bit for units behind it, which are the next chunk's to note.
    """
    for sample in range(first, stop, GROUP_SAMPLES):
        count = min(GROUP_SAMPLES, stop - sample)
        for chunk in range(layer.first_chunk, layer.stop_chunk):
            begin, end = chunk_at(layer, chunk)
            for unit in range(begin, end, 64):
                word = chunk * layer.chunk_words + (unit - begin) // 64
                turn_bits(
                    submatrix(layer.bits_by_sample, sample, word, count, 1),
                    submatrix(layer.bits_by_unit, unit, sample // 64, 64, 1),
                )  # fmt: skip


@jit_part
def tile_of(columns, widest, lanes):
    """How many columns are taken at a time: tiles are as equal as can be, none is wider."""
    tiles = (columns + widest - 1) // widest
    return (columns + tiles * lanes - 1) // (tiles * lanes) * lanes


@jit_part
def multiply_units(
    one, shared, layer, parameters, first, stop, first_column, stop_column,
    samples, order, ahead, ahead_count,
):  # fmt: skip
    """Slots = X W for samples `first` to `stop`, one group, input unit by input unit."""
    weights = weights_to_multiply(layer, parameters)
    tile = tile_of(stop_column - first_column, layer.scatter_tile, shared.lanes)
    for chunk in range(layer.first_chunk, layer.stop_chunk):
        begin, end = chunk_at(layer, chunk)
        end = (end + 1) // 2 * 2
        slot = shifted(layer.slots, chunk * layer.slot_bytes)
        clear(one, submatrix(slot, first, first_column, stop - first, stop_column - first_column))
        # a line of each sample; all units at once where nothing is asked for, as in prediction
        block = max(end - begin, 1)
        if ahead_count > 0:
            block = LINE_BYTES // shared.input_itemsize
        for column in range(first_column, stop_column, tile):
            columns = min(tile, stop_column - column)
            for unit in range(begin, end, block):
                units = min(block, end - unit)
                if column == first_column:
                    ask_for_samples(shared, layer, unit, block, samples, order, ahead, ahead_count)
                scatter(
                    one, submatrix(layer.inputs_by_unit, unit, first, units, stop - first),
                    submatrix(layer.bits_by_unit, unit, first // 64, units, 1),
                    submatrix(weights, unit, column, units, columns),
                    submatrix(slot, first, column, stop - first, columns), 2,
                )  # fmt: skip


@jit_part
def multiply_rows(
    one, shared, layer, parameters, begin, end, first_column, stop_column,
    samples, order, ahead, ahead_count,
):  # fmt: skip
    """Slots = X W for samples `begin` to `end`, sample by sample or densely."""
    count = end - begin
    weights = weights_to_multiply(layer, parameters)
    columns = stop_column - first_column
    for chunk in range(layer.first_chunk, layer.stop_chunk):
        first, last = chunk_at(layer, chunk)
        slot = shifted(layer.slots, chunk * layer.slot_bytes)
        Z = submatrix(slot, begin, first_column, count, columns)
        if first == last:
            clear(one, Z)
        elif layer.forward_by == EVERY_NUMBER:
            X = submatrix(layer.inputs, begin, first, count, last - first)
            W = submatrix(weights, first, first_column, last - first, columns)
            if layer.sources != 0:
                call(layer.multiply_samples, one, layer.sources, first * shared.itemsize, W, Z, 0)
            else:
                ask_for_samples(
                    shared, layer, first, last - first, samples, order, ahead, ahead_count
                )  # fmt: skip
                matmul(one, X, W, Z, 0)
        else:
            tile = tile_of(columns, layer.gather_tile, shared.lanes)
            bits = submatrix(layer.bits_by_sample, begin, chunk * layer.chunk_words, count, 1)
            units = layer.gather_units
            for column in range(first_column, stop_column, tile):
                width = min(tile, stop_column - column)
                for unit in range(first, last, units):
                    words = (min(units, last - unit) + 63) // 64
                    asks = column == first_column and ahead_count > 0
                    group = count
                    if asks:
                        lines = (units * shared.input_itemsize + LINE_BYTES - 1) // LINE_BYTES
                        group = max(LINES_AT_ONCE // lines, 1)
                    for row in range(0, count, group):
                        rows = min(group, count - row)
                        if asks:
                            # the next batch may have more samples than this one
                            asked = rows if row + group < count else ahead_count - row
                            ask_for_samples(
                                shared, layer, unit, units, samples, order,
                                ahead + row, min(asked, ahead_count - row),
                            )  # fmt: skip
                        later = unit + units + row
                        later_rows = min(units - row, rows) if layer.rows_ahead != 0 else 0
                        gather(
                            one, submatrix(layer.inputs, begin + row, unit, rows, units),
                            submatrix(bits, row, (unit - first) // 64, rows, words),
                            submatrix(weights, unit, column, units, width),
                            submatrix(slot, begin + row, column, rows, width),
                            1, 0 if unit == first else 1,
                            submatrix(weights, later, column, later_rows, width),
                        )  # fmt: skip


@jit_part
def multiply(
    scale, shared, layer, first, samples, order, start, total, parameters, count, padded, training,
    changed, laps, first_column, stop_column, anew,
):  # fmt: skip
    """Multiply own inputs by some columns of the weights.

    `anew` says that the batch is a new one: then the first layer loads its inputs, others prepare
    them, and what multiplies by all columns in one go does so. `changed` says whether somebody else
    has moved the weights since this table saw them last.
    """
    one = type(scale)(1)
    # without an order samples follow each other in memory, and the processor sees that by itself;
    # every thread asks once for its samples, while it multiplies for itself
    own = first_column == layer.first_column and stop_column == layer.stop_column
    most_ahead = min(shared.batch_size, GROUP_SAMPLES) if first and order != 0 and own else 0
    if anew and changed and layer.round_weights != 0:
        call(layer.round_weights, one, layer.record, parameters, 0)
        lap(laps, layer, PREPARE)
    grouped = first and layer.bits_by_sample.address != 0
    turning = layer.forward_by == BY_UNIT or (training and layer.update_by == BY_UNIT)
    by_rows = layer.forward_by == EVERY_NUMBER or layer.forward_by == BY_SAMPLE
    # a group of samples is used while it is in the cache
    for sample in range(0, count, GROUP_SAMPLES if grouped else count):
        stop = min(sample + GROUP_SAMPLES, count) if grouped else count
        if anew:
            if grouped:
                load_group(scale, shared, layer, samples, order, start, sample, stop)
            elif first and layer.forward_by == IN_PAIRS:
                rows, pairs = layer.packed_inputs, layer.paired_inputs
                call(
                    shared.load_in_pairs, scale, shared.record, samples, order, start, count,
                    layer.first_unit, min(layer.stop_unit, layer.input_units),
                    rows.address, rows.row_stride, pairs.address, pairs.row_stride,
                )  # fmt: skip
            elif first and layer.sources != 0:
                find_rows(shared, layer, samples, order, start, count, total)
            elif first:
                load_rows(scale, shared, layer, samples, order, start, count)
            elif layer.inputs_transposed.address != 0:
                unit, units = layer.first_unit, layer.stop_unit - layer.first_unit
                transpose(
                    one, submatrix(layer.inputs, 0, unit, padded, units),
                    submatrix(layer.inputs_transposed, unit, 0, units, padded),
                )  # fmt: skip
            if not grouped and layer.bits_by_sample.address != 0:
                find_nonzeros(one, layer, count)
            if turning:
                turn_nonzeros(layer, sample, stop)
            if layer.round_inputs != 0:
                call(layer.round_inputs, one, layer.record, sample, stop)
            lap(laps, layer, LOAD if first else PREPARE)
            if layer.forward_by == ONE_SAMPLE:
                call(layer.update_and_multiply, one, shared.layers, parameters, shared.itemsize)
            elif layer.forward_by == IN_PAIRS:
                call(
                    layer.multiply_in_pairs, one, layer.record,
                    parameters, count, 1 if training else 0, changed,
                )  # fmt: skip
        ahead = start + stop
        ahead_count = min(most_ahead, total - ahead)
        if layer.forward_by == BY_UNIT and first_column != stop_column:
            multiply_units(
                one, shared, layer, parameters, sample, stop, first_column, stop_column,
                samples, order, ahead, ahead_count,
            )  # fmt: skip
        elif by_rows and first_column != stop_column:
            multiply_rows(
                one, shared, layer, parameters, sample, stop, first_column, stop_column,
                samples, order, ahead, ahead_count,
            )  # fmt: skip
        lap(laps, layer, FORWARD)


@jit_part
def finish_forward(one, shared, layer, parameters, count, padded):
    """A = activation(sum of the terms + b), own columns of it."""
    first, columns = layer.first_column, layer.stop_column - layer.first_column
    activate(
        one, layer.terms, layer.term_count,
        parameters + layer.biases + first * shared.itemsize, layer.activation,
        submatrix(layer.outputs, 0, first, count, columns),
    )  # fmt: skip
    clear(one, submatrix(layer.outputs, count, first, padded - count, columns))


@jit_part
def loss_gradient(one, shared, targets, order, start, count, padded):
    """Gradient of the mean loss by the result; returns the sum of losses and the right answers."""
    loss = 0.0
    correct = 0
    if shared.loss != 0:
        call(shared.loss, one, shared.record, targets, order, start, count)
        loss = real_at(0.0, shared.batch_loss)
        correct = integer_at(shared.batch_correct)
    else:
        loss, correct = softmax_of_batch(one, shared, targets, order, start, count, None)
    G = shared.result_gradient
    clear(one, submatrix(G, count, 0, padded - count, G.columns))
    return loss, correct


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
def put_rows(one, record, order, start, count, present):
    """Add the numbers of a batch of CSR samples to rows of zeros, or put zeros in their place.

    What stands twice in a row is added up. A batch is dense as long as it is loaded; the whole
    never is.
    """
    shared = record_at(record, 0)
    for i in range(count):
        sample, row = sample_at(order, start + i), shared.dense_rows + i * shared.input_row_bytes
        first = integer_at(shared.row_starts + 8 * sample)
        for place in range(first, integer_at(shared.row_starts + 8 * (sample + 1))):
            target = row + integer_at(shared.columns + 8 * place) * shared.itemsize
            value = type(one)(0)
            if present != 0:
                value = real_at(one, target) + real_at(one, shared.values + place * shared.itemsize)
            put_real(value, target)


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


@jit_part
def store_result(shared, outputs, start, count):
    """Copy the result of a batch to its rows of `outputs`, which have no gaps."""
    row_bytes = shared.output_units * shared.itemsize
    for row in range(count):
        source = shared.result.address + row * shared.result.row_stride
        copy_bytes(source, outputs + (start + row) * row_bytes, row_bytes)


@jit
def run_batches(
    scale, shared_record, tables, blocks, samples, targets, order, total, epoch,
    parameters, first_state, second_state, rates, rates_stride, outputs, totals, team, laps,
):  # fmt: skip
    """Run `total` samples through the network by batches; add losses and right answers to totals.

    With targets it trains. Without, it writes the result to `outputs`. `scale` multiplies the
    input and gives the network's type; `order` may be 0 for the order in which samples lie. Each
    `epoch` samples of it are an epoch: its last batch may be smaller. The
    state vectors are parallel to the parameters. `rates` is the address of a table of float64,
    the numbers of the step for each learned layer; the next step's is `rates_stride` bytes further.
    `totals` is the address of TOTALS, one for each epoch, which go on from call to call.

    `tables` holds the records of the blocks for a thread that works alone and behind them, for it
    as a member of a team, as many more. `team` is what a member knows of its team, or None: then
    this is compiled without the branches for a team, so that one thread pays nothing for what it
    doesn't use. `laps` is the address of what `laps.py` notes, or None likewise.
    """
    shared = record_at(shared_record, 0)
    one = type(scale)(1)
    last = blocks - 1
    first_dense = 0 if shared.load_input == 0 else 1
    training = targets != 0
    loss = 0.0
    correct = 0
    if training:
        loss = real_at(0.0, totals)
        correct = integer_at(totals + 8)
    member = 0
    members = 1  # that share this step
    called = 0
    meeting = 0
    layers = 0  # the number of the first record
    changed = 1  # weights, by somebody else than these records
    one_by_one = training and total > 0 and record_at(tables, 0).update_by == ONE_SAMPLE
    if one_by_one:
        nothing_waits(one, record_at(tables, 0))
    start = 0
    if laps is not None:
        first = record_at(tables, 0)
        begin_lap(laps)
    while start < total:
        if team is not None:
            signals = record_at(team, 0).signals
            if members == 1:
                member = record_at(team, 0).member
                if member != 0:
                    called = wait_for_call(signals, member, called)
                    if called == END:
                        break
                    start = called - 1
                    members = record_at(team, 0).members
                    changed = 1
                elif call_members(signals, record_at(team, 0).members, start + 1):
                    members = record_at(team, 0).members
                    changed = 1
            layers = 0 if members == 1 else blocks
            began = clock()
            lap(laps, first, MEETING)
        before = start % epoch  # samples of the epoch
        count = min(shared.batch_size, epoch - before)
        padded = (count + shared.lanes - 1) // shared.lanes * shared.lanes
        epoch_steps = (epoch + shared.batch_size - 1) // shared.batch_size
        step = start // epoch * epoch_steps + before // shared.batch_size
        step_rates = rates + step * rates_stride
        read_samples, read_order, read_start = samples, order, start
        if shared.put_rows != 0:
            call(shared.put_rows, one, shared.record, order, start, count, 1)
            read_samples, read_order, read_start = shared.dense_rows, 0, 0
            lap(laps, first, LOAD)
        for number in range(last + 1):
            layer = record_at(tables, layers + number)
            if number < first_dense:
                call(
                    shared.load_input, scale, shared.record,
                    read_samples, read_order, read_start, count, padded,
                )  # fmt: skip
                lap(laps, layer, LOAD)
            else:
                part = first_part = 2
                if team is not None and members > 1 and layer.by_outputs == 0:
                    # the others wait for their columns, those before own ones and those behind
                    part = first_part = 0
                while part <= 2:
                    first_column, stop_column = layer.first_column, layer.stop_column
                    if part == 0:
                        first_column, stop_column = 0, first_column
                    elif part == 1:
                        first_column, stop_column = stop_column, layer.slots.columns
                    multiply(
                        scale, shared, layer, number == 0,
                        read_samples, read_order, read_start, total,
                        parameters, count, padded, training, changed, laps,
                        first_column, stop_column, part == first_part,
                    )  # fmt: skip
                    if team is not None and part == 1:
                        transfer(one, layer.products_out, members, count)
                        meeting = arrive(signals, member, meeting)
                        lap(laps, layer, MEETING)
                    part += 1
                if team is not None and members > 1:
                    wait(signals, members, meeting)
                    lap(laps, layer, MEETING)
                finish_forward(one, shared, layer, parameters, count, padded)
                lap(laps, layer, ACTIVATION)
            if layer.first_stage != layer.stop_stage and layer.first_column != layer.stop_column:
                call(
                    shared.forward_stages, one, shared.stages, parameters,
                    layer.first_stage, layer.stop_stage, layer.first_column, layer.stop_column,
                    count, padded, step,
                )  # fmt: skip
                lap(laps, layer, STAGES)

        if shared.put_rows != 0:
            call(shared.put_rows, one, shared.record, order, start, count, 0)
            lap(laps, first, LOAD)

        if not training:
            store_result(shared, outputs, start, count)
            changed = 0
            start += count
            continue

        if member == 0:
            batch_loss, batch_correct = loss_gradient(
                one, shared, targets, order, start, count, padded
            )
            loss += batch_loss
            correct += batch_correct
            lap(laps, layer, LOSS)
        transposed_already = False
        # a block is updated in the turn after its own, when its input gradient no longer needs its
        # weights as they were; so there is a turn more than blocks, number -1, for the first one's
        # update alone: a call behind the loop would be compiled once more
        for number in range(last, first_dense - 2, -1):
            layer = record_at(tables, layers + max(number, 0))
            own = layer.stop_column - layer.first_column
            if number >= 0 and layer.lowest_stage != layer.stop_stage and own != 0:
                call(
                    shared.backward_stages, one, shared.stages, parameters,
                    first_state, second_state,
                    layer.lowest_stage, layer.stop_stage, layer.first_column, layer.stop_column,
                    count, step, step_rates,
                )  # fmt: skip
                lap(laps, layer, STAGES)
            if number >= 0 and layer.mask_gradient != 0:
                mask_by_sign(
                    one, submatrix(layer.gradient, 0, layer.first_column, count, own),
                    submatrix(layer.outputs, 0, layer.first_column, count, own),
                )  # fmt: skip
                lap(laps, layer, MASK)
            if team is not None and members > 1 and number >= first_dense:
                if number == first_dense and member == 0:
                    consider_parting(signals, start + 1)
                transfer(one, layer.gradient_out, members, padded)
                meeting = arrive(signals, member, meeting)
                lap(laps, layer, MEETING)
            if number < last:
                # a team does it while messages are on their way
                above = record_at(tables, layers + number + 1)
                update(
                    one, shared, above, parameters, first_state, second_state,
                    step_rates + RATE_BYTES * above.learned, count, padded, laps,
                )  # fmt: skip
            if team is not None and members > 1 and number >= first_dense:
                wait(signals, members, meeting)
                transfer(one, layer.gradient_in, members, padded)
                lap(laps, layer, MEETING)
            if number >= first_dense and layer.gradient_by != NO_GRADIENT:
                below = record_at(tables, layers + number - 1)
                if layer.gradient_by == BY_COLUMNS:
                    transpose_gradient(one, layer, padded, transposed_already)
                    lap(laps, layer, TURN)
                transposed_already = leaves_transposed(layer, below)
                if layer.gradient_by == BY_PAIRS:
                    call(layer.input_gradient_in_pairs, one, below.record, count, padded)
                    lap(laps, layer, INPUT_GRADIENT)
                else:
                    input_gradient(
                        one, layer, below, parameters, step_rates + RATE_BYTES * layer.learned,
                        count, padded, laps,
                    )  # fmt: skip
        if shared.clip != 0:
            if team is not None and members > 1:
                meeting = meet(signals, member, members, meeting)
            call(
                shared.clip, one, record_at(tables, layers).parts_to_clip,
                parameters, first_state, second_state, step_rates,
            )  # fmt: skip
            lap(laps, first, OPTIMIZER)
        if shared.add_penalties != 0:
            if team is not None and members > 1:
                meeting = meet(signals, member, members, meeting)
            call(
                shared.add_penalties, one, shared.layers, last + 1, shared.chunks, step_rates,
                shared.penalty,
            )  # fmt: skip
            weight = float(count)
            if shared.sample_weights != 0:
                weight = real_at(0.0, shared.batch_weight)
            loss += weight * real_at(0.0, shared.penalty)
        changed = 0 if shared.clip == 0 else 1
        if team is not None:
            if members == 1:
                if count == shared.batch_size:
                    note_alone(signals, clock() - began)
            elif parted(signals, start + 1):
                # from here on the caller changes everybody's weights
                meeting = meet(signals, member, members, meeting)
                members = 1
                changed = 1
        start += count
        if member == 0 and before + count == epoch:
            put_real(loss, totals)
            put_integer(correct, totals + 8)
            if start < total:
                totals += TOTALS_BYTES
                loss = real_at(0.0, totals)
                correct = integer_at(totals + 8)
        lap(laps, first, REST)
    if one_by_one:
        # the last update, with a product that nobody reads
        first = record_at(tables, 0)
        call(first.update_and_multiply, one, shared.layers, parameters, shared.itemsize)
        lap(laps, first, UPDATE)


def entry_for(dtype: np.dtype, team: bool, laps: bool = False) -> Callable[..., int]:
    """Return `run_batches` as Python calls it, compiled or read from the cache."""
    whole = np.dtype(np.int64)
    kinds = dtype, SHARED, LAYER, *[whole] * 13, MEMBER if team else None, whole if laps else None
    return run_batches.entry(kinds)
