"""The compiled epoch: one function that trains, or predicts with, any network of the table.

A network is an array of records, one for each Dense layer together with the activation after
it: sizes, where its parameters lie in the flat vector, where its buffers lie in the workspace,
and which of the kernels it uses. `plan.py` writes the records; nothing here is compiled again for
a new network. The functions below read like the layers of the NumPy backend, with the batch in
rows of X, A and G:

    forward     Z = X W + b,  A = max(Z, 0)
    backward    dX = G W^T,  dZ = dX where A > 0,  W -= rate * X^T G,  b -= rate * sum(G)

Rows past the last sample of a batch, up to the next multiple of the vector length, are zero in
every buffer that is read by whole vectors of samples, so they add nothing.

Who does what: the input units of every layer, and with them the rows of its weights and the
outputs of the layer below, are cut into chunks that the network's shape alone decides. A team of
threads shares the chunks, each member those next to each other. The product of a chunk goes into
a slot of its own, and the slots are added in a fixed order; so no bit depends on the number of
threads, and one thread is a team of one. A member reads and changes its own rows of the weights
only, so no weight ever moves from one core to another. What moves is the slots (forward) and the
gradients (backward): the members meet after each layer in either direction, and once after
the loss, whose samples are cut into as many chunks.
Tried and lost, two members: columns of the weights shared out instead of rows (slower than one);
samples shared out (every weight's gradient moves); a parallel region for each product.
"""

from __future__ import annotations

import numpy as np

from .cross_entropy import softmax_cross_entropy
from .dense_tiles import matmul, matmul_transposed
from .jit import jit, jit_part
from .rows import (
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
    transpose,
)
from .simd import MACHINE
from .sparse import gather, scatter
from .threads import (
    END,
    answer,
    arrive,
    call,
    clock,
    decide_to_part,
    meet,
    note_time,
    parted,
    wait,
)

VECTOR_BYTES = MACHINE.bits // 8

GROUP_SAMPLES = 64
"""Samples that the first layer loads and uses together; as many as a word has bits."""

DENSE, BY_UNIT, BY_SAMPLE = 0, 1, 2
"""How a layer multiplies: every number, or the non-zeros of each input unit or of each sample."""

TURNED, SMALL = 0, 1
"""How the input gradient is computed; see `input_gradient`."""

LAYER = np.dtype(
    [
        (name, np.int64)
        for name in (
            "input_units", "output_units", "input_vectors", "output_vectors",
            # parameters: bytes from the start of the flat vector
            "weights", "weights_stride", "biases", "activation",
            # which kernels
            "forward_by", "update_by", "gradient_by", "update_rows", "update_tile",
            "scatter_tile", "gather_tile",
            # workspace: addresses, and strides in bytes
            "inputs", "inputs_stride", "inputs_transposed", "samples_stride", "group_bytes",
            "bits_by_unit", "bits_by_unit_stride", "bits_by_sample", "bits_by_sample_stride",
            "chunk_words", "slots", "slot_bytes", "outputs", "outputs_stride",
            "gradient", "gradient_transposed",
        )
    ]
)  # fmt: skip
"""A Dense layer and the activation after it. `gradient` is that of the loss by the layer's sums."""

SHARED = np.dtype(
    [
        (name, np.int64)
        for name in (
            "batch_size", "itemsize", "lanes", "group", "chunks",
            "input_code", "input_itemsize", "input_row_bytes",
            "labels", "predictions", "margins", "sums", "totals", "totals_stride",
            "sources", "sources_bytes", "zeros", "tail_sources", "tails", "tail_stride",
        )
    ]
)  # fmt: skip
"""What the layers have in common."""


@jit_part
def sample_at(order, position):
    """The number of the sample at a position of the order; without an order, the position."""
    return integer_at(order + 8 * position) if order != 0 else position


@jit_part
def first_unit(shared, layer, chunk):
    """The input unit with which a chunk begins; chunks are whole vectors, as equal as can be."""
    return chunk * layer.input_vectors // shared.chunks * shared.lanes


@jit_part
def first_sample(shared, padded, chunk):
    """The sample of a batch with which a chunk begins."""
    return chunk * (padded // shared.group) // shared.chunks * shared.group


@jit_part
def load_rows(scale, shared, layer, samples, order, start, count, chunks):
    """X = scale * samples, row by row, for a layer that multiplies by rows; own units of it."""
    unit = first_unit(shared, layer, chunks[0])
    stop = min(first_unit(shared, layer, chunks[1]), layer.input_units)
    for i in range(count):
        source = samples + sample_at(order, start + i) * shared.input_row_bytes
        load_row(
            scale, source + unit * shared.input_itemsize, shared.input_code, stop - unit,
            layer.inputs + i * layer.inputs_stride + unit * shared.itemsize,
        )  # fmt: skip


@jit_part
def load_units(
    scale, shared, layer, samples, order, start, count, first, stop, chunks, member
):  # fmt: skip
    """X^T = scale * samples^T and its non-zeros: own units, samples `first` to `stop`."""
    unit = first_unit(shared, layer, chunks[0])
    last = first_unit(shared, layer, chunks[1])
    # the last units of a row, if they fill no vector, are copied: nothing is read beyond its end
    tail = min(last, layer.input_units // shared.lanes * shared.lanes)
    tail_bytes = shared.input_row_bytes - tail * shared.input_itemsize if tail < last else 0
    sources = shared.sources + member * shared.sources_bytes
    word = layer.bits_by_unit + first // 64 * 8
    for row in range(unit, last):
        put_integer(0, word + row * layer.bits_by_unit_stride)
    for group in range(first, stop, shared.group):
        for i in range(shared.group):
            source = shared.zeros
            if group + i < count:
                source = samples + sample_at(order, start + group + i) * shared.input_row_bytes
            put_integer(source + unit * shared.input_itemsize, sources + 8 * i)
            if tail_bytes != 0:
                copied = shared.tails + i * shared.tail_stride
                copy_bytes(source + tail * shared.input_itemsize, copied, tail_bytes)
                put_integer(copied, shared.tail_sources + 8 * i)
        target = layer.inputs_transposed + first // GROUP_SAMPLES * layer.group_bytes
        target += (group - first) * shared.itemsize
        bits = layer.bits_by_unit + group // 8
        load_transposed(
            scale, sources, shared.input_code, (tail - unit) // shared.lanes,
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
def find_zeros(one, shared, layer, count, padded, chunks, training):
    """Note which own inputs of the layer are not zero, in the order in which its kernels ask."""
    if training and layer.update_by == BY_UNIT:
        unit = first_unit(shared, layer, chunks[0])
        nonzero_bits(
            one, layer.inputs_transposed + unit * layer.samples_stride, layer.samples_stride,
            first_unit(shared, layer, chunks[1]) - unit, padded // shared.lanes,
            layer.bits_by_unit + unit * layer.bits_by_unit_stride, layer.bits_by_unit_stride,
        )  # fmt: skip
    if layer.forward_by == BY_SAMPLE or (training and layer.update_by == BY_SAMPLE):
        for chunk in range(chunks[0], chunks[1]):
            unit = first_unit(shared, layer, chunk)
            vectors = (first_unit(shared, layer, chunk + 1) - unit) // shared.lanes
            nonzero_bits(
                one, layer.inputs + unit * shared.itemsize, layer.inputs_stride, count, vectors,
                layer.bits_by_sample + chunk * layer.chunk_words * 8, layer.bits_by_sample_stride,
            )  # fmt: skip


@jit_part
def multiply_units(one, shared, layer, parameters, first, stop, chunks):
    """Slots = X W for samples `first` to `stop`, one group, input unit by input unit."""
    for chunk in range(chunks[0], chunks[1]):
        slot = layer.slots + chunk * layer.slot_bytes + first * layer.outputs_stride
        unit = first_unit(shared, layer, chunk)
        units = min(first_unit(shared, layer, chunk + 1), layer.input_units) - unit
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
def multiply_rows(one, shared, layer, parameters, count, chunks):
    """Slots = X W for the whole batch, sample by sample or densely."""
    for chunk in range(chunks[0], chunks[1]):
        slot = layer.slots + chunk * layer.slot_bytes
        first = first_unit(shared, layer, chunk)
        last = min(first_unit(shared, layer, chunk + 1), layer.input_units)
        weights = parameters + layer.weights
        if first >= last:
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
def finish_forward(one, shared, layer, parameters, count, rows, vectors):
    """A = activation(sum of the slots + b), for some rows and some vectors of each row."""
    offset = rows[0] * layer.outputs_stride + vectors[0] * VECTOR_BYTES
    used = max(0, min(count, rows[1]) - rows[0])
    activate(
        one, layer.slots + offset, layer.slot_bytes, shared.chunks,
        parameters + layer.biases + vectors[0] * VECTOR_BYTES,
        layer.activation, layer.outputs + offset, layer.outputs_stride,
        used, vectors[1] - vectors[0],
    )  # fmt: skip
    fill(
        one * 0, layer.outputs + offset + used * layer.outputs_stride, layer.outputs_stride,
        rows[1] - rows[0] - used, vectors[1] - vectors[0],
    )  # fmt: skip


@jit_part
def forward_first(
    scale, shared, layer, samples, order, start, parameters, count, padded, chunks, member
):  # fmt: skip
    """Load own units of the batch and multiply them."""
    one = type(scale)(1)
    if layer.forward_by == BY_UNIT:
        # a group of samples is used while it is in the cache
        for first in range(0, count, GROUP_SAMPLES):
            stop = min(first + GROUP_SAMPLES, padded)
            load_units(
                scale, shared, layer, samples, order, start, count, first, stop, chunks, member
            )
            multiply_units(one, shared, layer, parameters, first, min(stop, count), chunks)
    else:
        load_rows(scale, shared, layer, samples, order, start, count, chunks)
        find_zeros(one, shared, layer, count, padded, chunks, False)
        multiply_rows(one, shared, layer, parameters, count, chunks)


@jit_part
def forward(one, shared, layer, below, parameters, count, padded, chunks, training):
    """Finish own units of the layer below, which are this one's inputs, and multiply them."""
    unit = first_unit(shared, layer, chunks[0])
    vectors = unit // shared.lanes, first_unit(shared, layer, chunks[1]) // shared.lanes
    finish_forward(one, shared, below, parameters, count, (0, padded), vectors)
    if layer.inputs_transposed != 0:
        transpose(
            one, layer.inputs + vectors[0] * VECTOR_BYTES, layer.inputs_stride,
            layer.inputs_transposed + unit * layer.samples_stride, layer.samples_stride,
            padded // shared.lanes, vectors[1] - vectors[0],
        )  # fmt: skip
    find_zeros(one, shared, layer, count, padded, chunks, training)
    multiply_rows(one, shared, layer, parameters, count, chunks)


@jit_part
def loss_gradient(one, shared, layer, labels, order, start, count, rows, turned, totals):
    """Gradient of the mean loss by the sums of the last layer, for some samples of the batch.

    The sum of their losses and the number of right answers are added to `totals`.
    """
    used = max(0, min(count, rows[1]) - rows[0])
    offset = rows[0] * layer.outputs_stride
    gradient = layer.gradient + offset
    for i in range(rows[0], rows[0] + used):
        label = integer_at(labels + 8 * sample_at(order, start + i))
        put_integer(label, shared.labels + 8 * i)
    softmax_cross_entropy(
        one / type(one)(count), layer.outputs + offset, gradient, layer.outputs_stride,
        shared.labels + 8 * rows[0], used, layer.output_units,
        shared.predictions + 8 * rows[0],
        shared.margins + shared.itemsize * rows[0], shared.sums + shared.itemsize * rows[0],
    )  # fmt: skip
    fill(
        one * 0, gradient + used * layer.outputs_stride, layer.outputs_stride,
        rows[1] - rows[0] - used, layer.output_vectors,
    )  # fmt: skip
    if layer.activation != 0:
        mask_by_sign(
            one, gradient, layer.outputs_stride, layer.outputs + offset, layer.outputs_stride,
            used, layer.output_vectors,
        )  # fmt: skip
    if turned:
        transpose(
            one, gradient, layer.outputs_stride,
            layer.gradient_transposed + rows[0] * shared.itemsize, layer.samples_stride,
            (rows[1] - rows[0]) // shared.lanes, layer.output_vectors,
        )  # fmt: skip
    loss = real_at(0.0, totals)
    correct = integer_at(totals + 8)
    for i in range(rows[0], rows[0] + used):
        loss += real_at(one, shared.margins + i * shared.itemsize)
        loss += np.log(real_at(one, shared.sums + i * shared.itemsize))
        label = integer_at(shared.labels + 8 * i)
        correct += integer_at(shared.predictions + 8 * i) == label
    put_real(loss, totals)
    put_integer(correct, totals + 8)


@jit_part
def input_gradient(one, shared, layer, below, parameters, count, padded, chunks):
    """dX = G W^T for own units, then through the activation of the layer below, into its gradient.

    TURNED computes (W G^T)^T and reads the weights row by row, as they lie: they are never
    transposed. SMALL computes G W^T with vectors along the rows of both, for batches that don't
    fill a vector with samples.
    Tried and lost: a transposed copy of the weights and skipping the zeros that ReLU left in G; the
    copy eats what the zeros save.
    """
    unit = first_unit(shared, layer, chunks[0])
    units = first_unit(shared, layer, chunks[1]) - unit
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
        if below.activation != 0:
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
        if below.activation != 0:
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
def update(rate, shared, layer, parameters, count, padded, chunks, biases):
    """W -= rate * X^T G for own units of X, b -= rate * sum(G) for the vectors `biases` of it.

    The gradient of W is never stored.
    """
    itemsize = shared.itemsize
    unit = first_unit(shared, layer, chunks[0])
    units = min(first_unit(shared, layer, chunks[1]), layer.input_units) - unit
    weights = parameters + layer.weights + unit * layer.weights_stride
    if layer.update_by == DENSE:
        matmul(
            -rate, layer.inputs + unit * itemsize, itemsize, layer.inputs_stride,
            layer.gradient, layer.outputs_stride, weights, layer.weights_stride,
            units, layer.output_vectors, count, 1,
        )  # fmt: skip
    elif layer.update_by == BY_UNIT:
        units = (units + layer.update_rows - 1) // layer.update_rows * layer.update_rows
        for sample in range(0, count, GROUP_SAMPLES):
            for column in range(0, layer.output_vectors, layer.update_tile):
                gather(
                    -rate,
                    layer.inputs_transposed + sample // GROUP_SAMPLES * layer.group_bytes
                    + unit * layer.samples_stride,
                    layer.samples_stride,
                    layer.bits_by_unit + sample // 64 * 8 + unit * layer.bits_by_unit_stride,
                    layer.bits_by_unit_stride,
                    layer.gradient + sample * layer.outputs_stride + column * VECTOR_BYTES,
                    layer.outputs_stride,
                    weights + column * VECTOR_BYTES, layer.weights_stride,
                    units, layer.update_rows,
                    min(layer.update_tile, layer.output_vectors - column), 1,
                )  # fmt: skip
    else:
        for chunk in range(chunks[0], chunks[1]):
            first = first_unit(shared, layer, chunk)
            last = min(first_unit(shared, layer, chunk + 1), layer.input_units)
            bits = layer.bits_by_sample + chunk * layer.chunk_words * 8
            for row in range(first, last, 64):
                for column in range(0, layer.output_vectors, layer.scatter_tile):
                    scatter(
                        -rate, layer.inputs + row * itemsize, layer.inputs_stride,
                        bits + (row - first) // 64 * 8, layer.bits_by_sample_stride,
                        layer.gradient + column * VECTOR_BYTES, layer.outputs_stride,
                        weights + (row - unit) * layer.weights_stride + column * VECTOR_BYTES,
                        layer.weights_stride,
                        count, 1, min(layer.scatter_tile, layer.output_vectors - column),
                    )  # fmt: skip
    add_column_sums(
        -rate, layer.gradient + biases[0] * VECTOR_BYTES, layer.outputs_stride, padded,
        biases[1] - biases[0], parameters + layer.biases + biases[0] * VECTOR_BYTES,
    )  # fmt: skip


@jit
def run(
    scale, shared_record, layers, samples, labels, order, total, parameters, rates, outputs,
    words, member, members,
):  # fmt: skip
    """Run `total` samples through the network by batches, as one member of a team.

    With labels it trains. Without, it writes the logits to `outputs`. `scale` multiplies the
    input and gives the network's type; `order` may be 0 for the order in which samples lie.
    """
    shared = shared_record[0]
    one = type(scale)(1)
    top = layers[len(layers) - 1]
    training = labels != 0
    start = 0
    called = 0
    meeting = 0
    size = 1  # of the team in this step
    while start < total:
        if size == 1 and members > 1:
            if member != 0:
                called = answer(words, member, called)
                if called == END:
                    break
                start = called - 1
                size = members
            elif call(words, members, start + 1):
                size = members
        began = clock() if members > 1 else 0
        chunks = member * shared.chunks // size, (member + 1) * shared.chunks // size
        count = min(shared.batch_size, total - start)
        padded = (count + shared.group - 1) // shared.group * shared.group

        forward_first(
            scale, shared, layers[0], samples, order, start, parameters, count, padded,
            chunks, member,
        )  # fmt: skip
        for number in range(1, len(layers)):
            meeting = meet(words, member, size, meeting)
            forward(
                one, shared, layers[number], layers[number - 1], parameters, count, padded,
                chunks, training,
            )  # fmt: skip
        meeting = meet(words, member, size, meeting)
        for chunk in range(chunks[0], chunks[1]):
            rows = first_sample(shared, padded, chunk), first_sample(shared, padded, chunk + 1)
            finish_forward(one, shared, top, parameters, count, rows, (0, top.output_vectors))
            if training:
                loss_gradient(
                    one, shared, top, labels, order, start, count, rows,
                    len(layers) > 1 and top.gradient_by == TURNED,
                    shared.totals + chunk * shared.totals_stride,
                )  # fmt: skip

        if training:
            if member == 0 and size > 1:
                decide_to_part(words, start + 1)
            meeting = meet(words, member, size, meeting)
            biases = 0, top.output_vectors if member == 0 else 0
            for number in range(len(layers) - 1, -1, -1):
                layer = layers[number]
                if number > 0:
                    input_gradient(
                        one, shared, layer, layers[number - 1], parameters, count, padded, chunks
                    )
                    meeting = arrive(words, member, size, meeting)
                # while the others arrive
                update(
                    type(scale)(rates[number]), shared, layer, parameters, count, padded,
                    chunks, biases,
                )  # fmt: skip
                if number > 0:
                    if size > 1:
                        wait(words, member, size, meeting)
                    # own units are own outputs of the layer below
                    biases = (
                        first_unit(shared, layer, chunks[0]) // shared.lanes,
                        first_unit(shared, layer, chunks[1]) // shared.lanes,
                    )
        else:
            for row in range(count):
                source = top.outputs + row * top.outputs_stride
                target = outputs + (start + row) * top.output_units * shared.itemsize
                for j in range(0, top.output_units * shared.itemsize, shared.itemsize):
                    put_real(real_at(one, source + j), target + j)
        if member == 0 and members > 1 and count == shared.batch_size:
            note_time(words, size, clock() - began)
        if size > 1 and parted(words, start + 1):
            # from here on the caller changes everybody's weights
            meeting = meet(words, member, size, meeting)
            size = 1
        start += shared.batch_size
