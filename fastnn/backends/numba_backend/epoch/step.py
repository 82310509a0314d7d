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

import numpy as np

from ..jit import call, jit, jit_part, operation, record_at
from ..kernels.matmul import matmul, matmul_transposed
from ..kernels.rows import (
    activate,
    add_column_sums,
    copy_bytes,
    fill,
    integer_at,
    load_row,
    load_transposed,
    mask_by_sign,
    nonzero_bits,
    put_integer,
    put_real,
    real_at,
    sample_at,
    transfer,
    transpose,
)
from ..kernels.softmax import softmax_cross_entropy
from ..kernels.sparse import gather, scatter
from ..machine import MACHINE
from .one_sample import nothing_waits
from .optimizers import RATE_BYTES
from .threads import (
    END,
    answer,
    arrive,
    call_members,
    clock,
    consider_parting,
    note_alone,
    parted,
    wait,
)

VECTOR_BYTES = MACHINE.bits // 8

GROUP_SAMPLES = 64
"""Samples that the first layer loads and uses together; as many as a word has bits."""

DENSE, BY_UNIT, BY_SAMPLE, ONE_SAMPLE = 0, 1, 2, 3
"""How a layer multiplies: every number, or the non-zeros of each input unit or of each sample; or
every number of one sample, after the update that has waited for it, see `one_sample.py`."""

TURNED, SMALL, NONE = 0, 1, 2
"""How the input gradient is computed, see `input_gradient`; not where nothing below learns."""

LAYER = np.dtype(
    [
        (name, np.int64)
        for name in (
            "input_units", "output_units", "input_vectors", "output_vectors",
            # parameters: bytes from the start of the flat vector
            "weights", "weights_stride", "biases",
            # its ReLU: who multiplies the gradient by it, the block or the one above with its own
            "activation", "mask_gradient", "mask_inputs",
            # its stages, and the lowest of them that the gradient goes through
            "first_stage", "stop_stage", "lowest_stage",
            # what is this thread's own: chunks of the input units, which begin where a list at an
            # address says, so units, and columns of the output; and how many parts a sum has
            "first_chunk", "stop_chunk", "chunk_units", "first_unit", "stop_unit",
            "first_vector", "stop_vector", "parts", "part_bytes",
            # messages to the other members of a team, and from them
            "products_out", "products_in", "gradient_out", "gradient_in",
            # which kernels
            "forward_by", "update_by", "gradient_by", "update_rows", "update_tile",
            "scatter_tile", "gather_tile", "chunk_words",
            # its step; see `optimizers.py`
            "learned", "step", "step_units", "weights_region", "biases_region", "block",
            "decay", "block_squares", "squares",
            # workspace: addresses, and strides in bytes
            "inputs", "inputs_stride", "inputs_transposed", "samples_stride", "group_bytes",
            # ONE_SAMPLE: its operation, the sample whose update waits, and minus its rate
            "update_and_multiply", "waiting", "waiting_factor",
            "bits_by_unit", "bits_by_unit_stride", "bits_by_sample", "bits_by_sample_stride",
            "slots", "slot_bytes", "outputs", "outputs_stride",
            "gradient", "gradient_transposed",
        )
    ]
)  # fmt: skip
"""A block. `outputs` are those of Dense and ReLU, before the stages. `gradient` is that of the loss
by the block's result, then by what each stage took in, at last by the sums of Dense, and stays so
until the next step's backward pass."""

SHARED = np.dtype(
    [
        (name, np.int64)
        for name in (
            "batch_size", "itemsize", "lanes", "group", "chunks",
            "input_code", "input_itemsize", "input_row_bytes",
            # addresses: of this record, of the blocks' and of what stages need, 0 without stages
            "record", "layers", "stages", "forward_stages", "backward_stages",
            # the first block, where it is the input itself: the operation that loads it, or 0
            "load_input", "input_units", "input_rows", "input_rows_stride",
            # the loss: 0 for softmax cross-entropy, or an operation; what it reads and writes
            "loss", "result", "result_stride", "result_gradient",
            "output_units", "output_vectors",
            "target_code", "targets", "labels", "predictions", "margins", "sums",
            "batch_loss", "batch_correct",
            # penalties: 0, or the operation that adds them up, and the sum
            "add_penalties", "penalty",
            "sources", "zeros", "tail_sources", "tails", "tail_stride",
        )
    ]
)  # fmt: skip
"""What the blocks have in common."""


@jit_part
def load_rows(scale, shared, layer, samples, order, start, count):
    """X = scale * samples, row by row, for a layer that multiplies by rows; own units of it."""
    unit = layer.first_unit
    for i in range(count):
        source = samples + sample_at(order, start + i) * shared.input_row_bytes
        load_row(
            scale, source + unit * shared.input_itemsize, shared.input_code,
            min(layer.stop_unit, layer.input_units) - unit,
            layer.inputs + i * layer.inputs_stride + unit * shared.itemsize,
        )  # fmt: skip


@jit_part
def load_units(scale, shared, layer, samples, order, start, count, first, stop):
    """X^T = scale * samples^T and its non-zeros: own units, samples `first` to `stop`."""
    unit = layer.first_unit
    # the last units of a row, if they fill no vector, are copied: nothing is read beyond its end
    tail = min(layer.stop_unit, layer.input_units // shared.lanes * shared.lanes)
    tail_bytes = 0
    if tail < layer.stop_unit:
        tail_bytes = shared.input_row_bytes - tail * shared.input_itemsize
    word = layer.bits_by_unit + first // 64 * 8
    for row in range(unit, layer.stop_unit):
        put_integer(0, word + row * layer.bits_by_unit_stride)
    for group in range(first, stop, shared.group):
        for i in range(shared.group):
            source = shared.zeros
            if group + i < count:
                source = samples + sample_at(order, start + group + i) * shared.input_row_bytes
            put_integer(source + unit * shared.input_itemsize, shared.sources + 8 * i)
            if tail_bytes != 0:
                copied = shared.tails + i * shared.tail_stride
                copy_bytes(source + tail * shared.input_itemsize, copied, tail_bytes)
                put_integer(copied, shared.tail_sources + 8 * i)
        target = layer.inputs_transposed + first // GROUP_SAMPLES * layer.group_bytes
        target += (group - first) * shared.itemsize
        bits = layer.bits_by_unit + group // 8
        load_transposed(
            scale, shared.sources, shared.input_code, (tail - unit) // shared.lanes,
            target + unit * layer.samples_stride, layer.samples_stride,
            bits + unit * layer.bits_by_unit_stride, layer.bits_by_unit_stride,
        )  # fmt: skip
        if tail_bytes != 0:
            load_transposed(
                scale, shared.tail_sources, shared.input_code, 1,
                target + tail * layer.samples_stride, layer.samples_stride,
                bits + tail * layer.bits_by_unit_stride, layer.bits_by_unit_stride,
            )  # fmt: skip


@jit_part
def load_labels(shared, labels, order, start, count):
    """Put the labels of the batch in a row."""
    for i in range(count):
        label = integer_at(labels + 8 * sample_at(order, start + i))
        put_integer(label, shared.labels + 8 * i)


@jit_part
def find_zeros(one, shared, layer, count, padded, training):
    """Note which own inputs of the layer are not zero, in the order in which its kernels ask."""
    if training and layer.update_by == BY_UNIT:
        unit = layer.first_unit
        nonzero_bits(
            one, layer.inputs_transposed + unit * layer.samples_stride, layer.samples_stride,
            layer.stop_unit - unit, padded // shared.lanes,
            layer.bits_by_unit + unit * layer.bits_by_unit_stride, layer.bits_by_unit_stride,
        )  # fmt: skip
    if layer.forward_by == BY_SAMPLE or (training and layer.update_by == BY_SAMPLE):
        for chunk in range(layer.first_chunk, layer.stop_chunk):
            unit = integer_at(layer.chunk_units + 8 * chunk)
            units = integer_at(layer.chunk_units + 8 * (chunk + 1)) - unit
            nonzero_bits(
                one, layer.inputs + unit * shared.itemsize, layer.inputs_stride,
                count, (units + shared.lanes - 1) // shared.lanes,
                layer.bits_by_sample + chunk * layer.chunk_words * 8, layer.bits_by_sample_stride,
            )  # fmt: skip


@jit_part
def multiply_units(one, shared, layer, parameters, first, stop):
    """Slots = X W for samples `first` to `stop`, one group, input unit by input unit."""
    for chunk in range(layer.first_chunk, layer.stop_chunk):
        slot = layer.slots + chunk * layer.slot_bytes + first * layer.outputs_stride
        unit = integer_at(layer.chunk_units + 8 * chunk)
        units = integer_at(layer.chunk_units + 8 * (chunk + 1)) - unit
        fill(one * 0, slot, layer.outputs_stride, stop - first, layer.output_vectors)
        for column in range(0, layer.output_vectors, layer.scatter_tile):
            scatter(
                one,
                layer.inputs_transposed + first // GROUP_SAMPLES * layer.group_bytes
                + unit * layer.samples_stride,
                layer.samples_stride,
                layer.bits_by_unit + first // 64 * 8 + unit * layer.bits_by_unit_stride,
                layer.bits_by_unit_stride,
                parameters + layer.weights + unit * layer.weights_stride + column * VECTOR_BYTES,
                layer.weights_stride,
                slot + column * VECTOR_BYTES, layer.outputs_stride,
                (units + 1) // 2 * 2, 2, min(layer.scatter_tile, layer.output_vectors - column),
            )  # fmt: skip


@jit_part
def multiply_rows(one, shared, layer, parameters, count):
    """Slots = X W for the whole batch, sample by sample or densely."""
    for chunk in range(layer.first_chunk, layer.stop_chunk):
        slot = layer.slots + chunk * layer.slot_bytes
        first = integer_at(layer.chunk_units + 8 * chunk)
        last = integer_at(layer.chunk_units + 8 * (chunk + 1))
        weights = parameters + layer.weights
        if first == last:
            fill(one * 0, slot, layer.outputs_stride, count, layer.output_vectors)
        elif layer.forward_by == DENSE:
            matmul(
                one, layer.inputs + first * shared.itemsize, layer.inputs_stride, shared.itemsize,
                weights + first * layer.weights_stride, layer.weights_stride,
                slot, layer.outputs_stride,
                count, layer.output_vectors, last - first, 0,
            )  # fmt: skip
        else:
            bits = layer.bits_by_sample + chunk * layer.chunk_words * 8
            for column in range(0, layer.output_vectors, layer.gather_tile):
                for unit in range(first, last, 64):
                    gather(
                        one, layer.inputs + unit * shared.itemsize, layer.inputs_stride,
                        bits + (unit - first) // 64 * 8, layer.bits_by_sample_stride,
                        weights + unit * layer.weights_stride + column * VECTOR_BYTES,
                        layer.weights_stride,
                        slot + column * VECTOR_BYTES, layer.outputs_stride,
                        count, 1, min(layer.gather_tile, layer.output_vectors - column),
                        0 if unit == first else 1,
                    )  # fmt: skip


@jit_part
def multiply(
    scale, shared, layer, first, samples, order, start, parameters, count, padded, training
):  # fmt: skip
    """Multiply own inputs by the weights; the first layer loads them, others have them already."""
    one = type(scale)(1)
    if first and layer.forward_by == BY_UNIT:
        # a group of samples is used while it is in the cache
        for group in range(0, count, GROUP_SAMPLES):
            stop = min(group + GROUP_SAMPLES, padded)
            load_units(scale, shared, layer, samples, order, start, count, group, stop)
            multiply_units(one, shared, layer, parameters, group, min(stop, count))
    else:
        if first:
            load_rows(scale, shared, layer, samples, order, start, count)
        elif layer.inputs_transposed != 0:
            unit = layer.first_unit
            transpose(
                one, layer.inputs + unit * shared.itemsize, layer.inputs_stride,
                layer.inputs_transposed + unit * layer.samples_stride, layer.samples_stride,
                padded // shared.lanes, (layer.stop_unit - unit) // shared.lanes,
            )  # fmt: skip
        if layer.forward_by == ONE_SAMPLE:
            call(layer.update_and_multiply, one, shared.layers, parameters, shared.itemsize)
        else:
            find_zeros(one, shared, layer, count, padded, training)
            multiply_rows(one, shared, layer, parameters, count)


@jit_part
def finish_forward(one, layer, parameters, count, padded):
    """A = activation(sum of the slots + b), own columns of it."""
    first = layer.first_vector * VECTOR_BYTES
    vectors = layer.stop_vector - layer.first_vector
    activate(
        one, layer.slots + first, layer.part_bytes, layer.parts, parameters + layer.biases + first,
        layer.activation, layer.outputs + first, layer.outputs_stride, count, vectors,
    )  # fmt: skip
    fill(
        one * 0, layer.outputs + first + count * layer.outputs_stride, layer.outputs_stride,
        padded - count, vectors,
    )  # fmt: skip


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
        load_labels(shared, targets, order, start, count)
        softmax_cross_entropy(
            one / type(one)(count), shared.result, shared.result_gradient, shared.result_stride,
            shared.labels, count, shared.output_units,
            shared.predictions, shared.margins, shared.sums,
        )  # fmt: skip
        for i in range(count):
            loss += real_at(one, shared.margins + i * shared.itemsize)
            loss += np.log(real_at(one, shared.sums + i * shared.itemsize))
            label = integer_at(shared.labels + 8 * i)
            correct += integer_at(shared.predictions + 8 * i) == label
    fill(
        one * 0, shared.result_gradient + count * shared.result_stride, shared.result_stride,
        padded - count, shared.output_vectors,
    )  # fmt: skip
    return loss, correct


@jit_part
def turn_gradient(one, shared, layer, padded, turned):
    """G^T; where `turned`, own columns are there already, and there are others only in a team."""
    first, stop = layer.first_vector, layer.stop_vector
    if not turned:
        first = stop = layer.output_vectors
    for side in range(2):
        begin = 0 if side == 0 else stop
        end = first if side == 0 else layer.output_vectors
        transpose(
            one, layer.gradient + begin * VECTOR_BYTES, layer.outputs_stride,
            layer.gradient_transposed + begin * shared.lanes * layer.samples_stride,
            layer.samples_stride, padded // shared.lanes, end - begin,
        )  # fmt: skip


@jit_part
def input_gradient(one, shared, layer, below, parameters, count, padded):
    """dX = G W^T for own units, into the gradient of the block below, through its ReLU if nothing
    is between.

    TURNED computes (W G^T)^T and reads the weights row by row, as they lie: they are never
    transposed. SMALL computes G W^T with vectors along the rows of both, for batches that leave
    much of a vector of samples empty, where there are outputs enough.
    Tried and lost: a transposed copy of the weights and skipping the zeros that ReLU left in G; the
    copy eats what the zeros save.
    """
    unit = layer.first_unit
    units = layer.stop_unit - unit
    vectors = units // shared.lanes
    weights = parameters + layer.weights + unit * layer.weights_stride
    samples = padded // shared.lanes
    gradient = below.gradient + unit * shared.itemsize
    if layer.gradient_by == TURNED:
        transposed = below.gradient_transposed + unit * layer.samples_stride
        matmul(
            one, weights, layer.weights_stride, shared.itemsize,
            layer.gradient_transposed, layer.samples_stride, transposed, layer.samples_stride,
            units, samples, layer.output_units, 0,
        )  # fmt: skip
        if layer.mask_inputs != 0:
            mask_by_sign(
                one, transposed, layer.samples_stride,
                layer.inputs_transposed + unit * layer.samples_stride, layer.samples_stride,
                units, samples,
            )  # fmt: skip
        transpose(
            one, transposed, layer.samples_stride, gradient, below.outputs_stride,
            vectors, samples,
        )  # fmt: skip
    else:
        matmul_transposed(
            one, layer.gradient, layer.outputs_stride, weights, layer.weights_stride,
            gradient, below.outputs_stride,
            count, vectors, layer.output_vectors,
        )  # fmt: skip
        if layer.mask_inputs != 0:
            mask_by_sign(
                one, gradient, below.outputs_stride,
                layer.inputs + unit * shared.itemsize, layer.inputs_stride,
                count, vectors,
            )  # fmt: skip
        fill(
            one * 0, gradient + count * below.outputs_stride, below.outputs_stride,
            padded - count, vectors,
        )  # fmt: skip


@jit_part
def update_weights(
    one, shared, layer, parameters, first_state, second_state, rates, count, factor, keep
):  # fmt: skip
    """W -= rate * X^T G, or another rule's step: own rows of W.

    In plain SGD the gradient of W is never stored. Another rule has a step, an operation of
    `optimizers.py`, which takes the gradient block by block.
    """
    itemsize = shared.itemsize
    fused = layer.step == 0
    # with kernels that ask for no bits by sample, plain SGD takes all chunks at once
    chunks = 1
    if fused and layer.update_by != BY_SAMPLE:
        chunks = layer.stop_chunk - layer.first_chunk
    for chunk in range(layer.first_chunk, layer.stop_chunk, chunks):
        begin = integer_at(layer.chunk_units + 8 * chunk)
        end = integer_at(layer.chunk_units + 8 * (chunk + chunks))
        squares = 0.0
        for unit in range(begin, end, layer.step_units):
            units = min(layer.step_units, end - unit)
            target = layer.block
            if fused:
                target = parameters + layer.weights + unit * layer.weights_stride
            if layer.update_by == DENSE:
                matmul(
                    factor, layer.inputs + unit * itemsize, itemsize, layer.inputs_stride,
                    layer.gradient, layer.outputs_stride, target, layer.weights_stride,
                    units, layer.output_vectors, count, keep,
                )  # fmt: skip
            elif layer.update_by == BY_UNIT:
                rows = (units + layer.update_rows - 1) // layer.update_rows * layer.update_rows
                for sample in range(0, count, GROUP_SAMPLES):
                    values = layer.inputs_transposed + sample // GROUP_SAMPLES * layer.group_bytes
                    bits = layer.bits_by_unit + sample // 64 * 8
                    for column in range(0, layer.output_vectors, layer.update_tile):
                        gather(
                            factor, values + unit * layer.samples_stride, layer.samples_stride,
                            bits + unit * layer.bits_by_unit_stride, layer.bits_by_unit_stride,
                            layer.gradient + sample * layer.outputs_stride + column * VECTOR_BYTES,
                            layer.outputs_stride,
                            target + column * VECTOR_BYTES, layer.weights_stride,
                            rows, layer.update_rows,
                            min(layer.update_tile, layer.output_vectors - column),
                            keep if sample == 0 else 1,
                        )  # fmt: skip
            else:
                if not fused:
                    fill(one * 0, target, layer.weights_stride, units, layer.output_vectors)
                bits = layer.bits_by_sample + chunk * layer.chunk_words * 8
                for first in range(0, units, 64):
                    for column in range(0, layer.output_vectors, layer.scatter_tile):
                        scatter(
                            factor, layer.inputs + (unit + first) * itemsize, layer.inputs_stride,
                            bits + (unit + first - begin) // 64 * 8, layer.bits_by_sample_stride,
                            layer.gradient + column * VECTOR_BYTES, layer.outputs_stride,
                            target + first * layer.weights_stride + column * VECTOR_BYTES,
                            layer.weights_stride,
                            count, 1, min(layer.scatter_tile, layer.output_vectors - column),
                        )  # fmt: skip
            if not fused:
                call(
                    layer.step, one, layer.weights_region, rates,
                    parameters, target, first_state, second_state, unit, units,
                )  # fmt: skip
                squares += real_at(0.0, layer.block_squares)
        if not fused:
            put_real(squares, layer.squares + 8 * chunk)


@jit_part
def update(one, shared, layer, parameters, first_state, second_state, rates, count, padded):
    """Move own rows of W, see `update_weights`, and own part of b: b -= rate * sum(G)."""
    fused = layer.step == 0
    factor = -type(one)(real_at(0.0, rates)) if fused else one
    if layer.update_by == ONE_SAMPLE:
        put_real(factor, layer.waiting_factor)
    else:
        update_weights(
            one, shared, layer, parameters, first_state, second_state, rates, count,
            factor, 1 if fused else 0,
        )  # fmt: skip
    first = layer.first_vector * VECTOR_BYTES
    vectors = layer.stop_vector - layer.first_vector
    target = layer.block
    if fused:
        target = parameters + layer.biases + first
    else:
        fill(one * 0, target, 0, 1, vectors)
    add_column_sums(factor, layer.gradient + first, layer.outputs_stride, padded, vectors, target)
    if not fused and vectors != 0:
        call(
            layer.step, one, layer.biases_region, rates,
            parameters, target, first_state, second_state, 0, 1,
        )  # fmt: skip


@operation
def add_penalties(one, record, blocks, chunks, target):
    """The penalty of all W before the step: 0.5 decay * (sum of squares), for each of them.

    Squares are added block by block, chunk by chunk and layer by layer, whoever moved which.
    """
    total = 0.0
    for number in range(blocks):
        layer = record_at(record, number)
        if layer.decay != 0:
            squares = 0.0
            for chunk in range(chunks):
                squares += real_at(0.0, layer.squares + 8 * chunk)
            total += 0.5 * real_at(0.0, layer.decay) * squares
    put_real(total, target)


@jit
def run(
    scale, shared_record, tables, samples, targets, order, total,
    parameters, first_state, second_state, rates, rates_stride, outputs, loss, correct, team,
):  # fmt: skip
    """Run `total` samples through the network by batches; return (sum of losses, right answers).

    With targets it trains. Without, it writes the result to `outputs`. `scale` multiplies the
    input and gives the network's type; `order` may be 0 for the order in which samples lie. The
    state vectors are parallel to the parameters. `rates` is the address of a table of float64,
    (rate, correction) for each learned layer; the next step's is `rates_stride` bytes further.
    `loss` and `correct` are the sums before, which go on from call to call.

    `tables` holds the records of the blocks for a thread that works alone and, second, for it as a
    member of a team. `team` is what a member knows of its team, or None: then this is compiled
    without the branches for a team, so that one thread pays nothing for what it doesn't use.
    """
    shared = shared_record[0]
    one = type(scale)(1)
    last = tables.shape[1] - 1
    first_dense = 0 if shared.load_input == 0 else 1
    training = targets != 0
    member = 0
    members = 1  # that share this step
    called = 0
    meeting = 0
    layers = tables[0]
    one_by_one = training and total > 0 and layers[0].update_by == ONE_SAMPLE
    if one_by_one:
        nothing_waits(one, layers[0])
    start = 0
    while start < total:
        if team is not None:
            words = team[0].words
            if members == 1:
                member = team[0].member
                if member != 0:
                    called = answer(words, member, called)
                    if called == END:
                        break
                    start = called - 1
                    members = team[0].members
                elif call_members(words, team[0].members, start + 1):
                    members = team[0].members
            layers = tables[0 if members == 1 else 1]
            began = clock()
        count = min(shared.batch_size, total - start)
        padded = (count + shared.group - 1) // shared.group * shared.group
        step = start // shared.batch_size
        step_rates = rates + step * rates_stride
        for number in range(last + 1):
            layer = layers[number]
            if number < first_dense:
                call(shared.load_input, scale, shared.record, samples, order, start, count, padded)
            else:
                multiply(
                    scale, shared, layer, number == 0, samples, order, start,
                    parameters, count, padded, training,
                )  # fmt: skip
                if team is not None and members > 1:
                    transfer(one, layer.products_out, members, count)
                    meeting = arrive(words, member, meeting)
                    wait(words, members, meeting)
                    transfer(one, layer.products_in, members, count)
                finish_forward(one, layer, parameters, count, padded)
            if layer.first_stage != layer.stop_stage and layer.first_vector != layer.stop_vector:
                call(
                    shared.forward_stages, one, shared.stages, parameters,
                    layer.first_stage, layer.stop_stage, layer.first_vector, layer.stop_vector,
                    count, padded, step,
                )  # fmt: skip

        if not training:
            for row in range(count):
                source = shared.result + row * shared.result_stride
                target = outputs + (start + row) * shared.output_units * shared.itemsize
                for j in range(0, shared.output_units * shared.itemsize, shared.itemsize):
                    put_real(real_at(one, source + j), target + j)
            start += shared.batch_size
            continue

        if member == 0:
            batch_loss, batch_correct = loss_gradient(
                one, shared, targets, order, start, count, padded
            )
            loss += batch_loss
            correct += batch_correct
        turned = False
        for number in range(last, first_dense - 2, -1):
            layer = layers[max(number, 0)]
            own = layer.stop_vector - layer.first_vector
            if number >= 0 and layer.lowest_stage != layer.stop_stage and own != 0:
                call(
                    shared.backward_stages, one, shared.stages, parameters,
                    first_state, second_state,
                    layer.lowest_stage, layer.stop_stage, layer.first_vector, layer.stop_vector,
                    count, step, step_rates,
                )  # fmt: skip
            if number >= 0 and layer.mask_gradient != 0:
                offset = layer.first_vector * VECTOR_BYTES
                mask_by_sign(
                    one, layer.gradient + offset, layer.outputs_stride,
                    layer.outputs + offset, layer.outputs_stride, count, own,
                )  # fmt: skip
            if team is not None and members > 1 and number >= first_dense:
                if number == first_dense and member == 0:
                    consider_parting(words, start + 1)
                transfer(one, layer.gradient_out, members, padded)
                meeting = arrive(words, member, meeting)
            if number < last:
                # the layer above; a team does it while messages are on their way
                update(
                    one, shared, layers[number + 1], parameters, first_state, second_state,
                    step_rates + RATE_BYTES * layers[number + 1].learned, count, padded,
                )  # fmt: skip
            if team is not None and members > 1 and number >= first_dense:
                wait(words, members, meeting)
                transfer(one, layer.gradient_in, members, padded)
            if number >= first_dense and layer.gradient_by != NONE:
                below = layers[number - 1]
                if layer.gradient_by == TURNED:
                    turn_gradient(one, shared, layer, padded, turned)
                # stages change the gradient where it lies by rows
                turned = layer.gradient_by == TURNED and below.first_stage == below.stop_stage
                input_gradient(one, shared, layer, below, parameters, count, padded)
        if shared.add_penalties != 0:
            if team is not None and members > 1:
                meeting = arrive(words, member, meeting)
                wait(words, members, meeting)
            call(shared.add_penalties, one, shared.layers, last + 1, shared.chunks, shared.penalty)
            loss += count * real_at(0.0, shared.penalty)
        if team is not None:
            if members == 1:
                if count == shared.batch_size:
                    note_alone(words, clock() - began)
            elif parted(words, start + 1):
                # from here on the caller changes everybody's weights
                meeting = arrive(words, member, meeting)
                wait(words, members, meeting)
                members = 1
        start += shared.batch_size
    if one_by_one:
        # the last update, with a product that nobody reads
        call(layers[0].update_and_multiply, one, shared.layers, parameters, shared.itemsize)
    return loss, correct
