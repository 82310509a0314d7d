"""The way forward: the samples of a batch are loaded, and multiplied by the weights.

    Z = X W + b,  A = max(Z, 0)

Of each layer in turn, with the batch in rows of X and A; what is not zero is noted as it comes.
"""

from __future__ import annotations

from fastnn.memory import LINE_BYTES

from ..jit import call, jit_part, operation, record_at
from ..kernels.loading import load_nonzeros, load_row, prefetch_rows, sample_at
from ..kernels.matmul import matmul
from ..kernels.relu import activate
from ..kernels.rows import (
    clear,
    integer_at,
    nonzero_bits,
    put_integer,
    put_real,
    real_at,
    transpose,
    turn_bits,
)
from ..kernels.sparse import gather, scatter
from ..microkernel import shifted, submatrix
from .laps import FORWARD, LOAD, PREPARE, lap
from .layer import chunk_at, weights_to_multiply
from .records import BY_SAMPLE, BY_UNIT, EVERY_NUMBER, GROUP_SAMPLES, IN_PAIRS, ONE_SAMPLE

LINES_AT_ONCE = 64
"""Cache lines of samples to come that are asked for in one go: of many more, most never come, and
of fewer, products are cut into more pieces."""


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
def finish_forward(one, shared, layer, parameters, count):
    """A = activation(sum of the terms + b), own columns of it."""
    first, columns = layer.first_column, layer.stop_column - layer.first_column
    activate(
        one, layer.terms, layer.term_count,
        parameters + layer.biases + first * shared.itemsize, layer.activation,
        submatrix(layer.outputs, 0, first, count, columns),
    )  # fmt: skip
