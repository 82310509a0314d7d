"""Dense layers whose products are in bfloat16: the operands are packed, then multiplied in pairs.

Samples are packed as they are loaded, weights as they are moved; hidden inputs and the gradient in
passes of their own, and all else reads and writes float32 as ever. A thread packs what it owns: its
units of the inputs and its rows of the weights, as rows along which forward product and input
gradient go, and as pairs of rows:

    forward           Z  = X W      X as rows,   W as pairs of units
    input gradient    dX = G W^T    G as rows,   W^T as pairs of outputs
    update            dW = X^T G    X as pairs of samples, turned,   G as pairs of samples

W^T in pairs of outputs is W as rows, of which words are transposed.
Tried and lost: (W G^T)^T, as in float32, of which all of the result is transposed: a few per cent
slower with 1,024 units and 10 outputs, elsewhere within the noise.
"""

from __future__ import annotations

from ..jit import call, jit_part, operation, record_at
from ..kernels.bfloat16 import load_pairs, matmul_pairs, pack_pairs, update_pairs
from ..kernels.loading import copy_bytes, sample_at
from ..kernels.rows import clear, transpose
from ..microkernel import matrix_at, nothing, shifted, submatrix, transposed
from .layer import chunk_at, rows_of_weights


@jit_part
def copies_of_weights(layer, unit, units):
    """Of some rows of W, by rows and in pairs; where nobody reads the rows, they have no address.

    The strides of what isn't there are 0, too.
    """
    return (
        submatrix(layer.packed_weights, unit, 0, units, layer.packed_weights.columns),
        submatrix(layer.paired_weights, unit // 2, 0, (units + 1) // 2, layer.weights.columns),
    )


@operation
def pack_weights(one, record, parameters, unit, units):
    """Make copies in bfloat16 of some rows of W, of which the first has an even number."""
    layer = record_at(record, 0)
    rows, pairs = copies_of_weights(layer, unit, units)
    pack_pairs(one, rows_of_weights(layer, parameters, unit, units), rows, pairs)


@operation
def load_in_pairs(
    scale, record, samples, order, start, count, unit, stop,
    rows, row_stride, pairs, pair_stride,
):  # fmt: skip
    """X = scale * samples, packed for the first layer: units `unit` to `stop` of all of them.

    What they become lies at addresses of whole matrices; where `pairs` is 0, there are none.
    """
    shared = record_at(record, 0)
    itemsize = shared.input_itemsize
    # the last units, if they fill no vector, are copied: nothing is read beyond the end of a row
    whole = (stop - unit) // shared.lanes
    tail = unit + whole * shared.lanes
    for i in range(0, count, 2):
        first = samples + sample_at(order, start + i) * shared.input_row_bytes
        second = shared.zeros
        if i + 1 < count:
            second = samples + sample_at(order, start + i + 1) * shared.input_row_bytes
        row = rows + i * row_stride
        pair = 0 if pairs == 0 else pairs + i // 2 * pair_stride
        load_pairs(
            scale, first + unit * itemsize, second + unit * itemsize, shared.input_code, whole,
            matrix_at(row + 2 * unit, row_stride, 2, 2, stop - unit),
            0 if pair == 0 else pair + 4 * unit,
        )  # fmt: skip
        if tail < stop:
            tails = shared.tails, shared.tails + shared.tail_stride
            copy_bytes(first + tail * itemsize, tails[0], (stop - tail) * itemsize)
            copy_bytes(second + tail * itemsize, tails[1], (stop - tail) * itemsize)
            load_pairs(
                scale, tails[0], tails[1], shared.input_code, 1,
                matrix_at(row + 2 * tail, row_stride, 2, 2, stop - tail),
                0 if pair == 0 else pair + 4 * tail,
            )  # fmt: skip


@operation
def multiply_in_pairs(one, record, parameters, count, training, changed):
    """Slots = X W for own chunks; where the weights have `changed` since they were packed, anew.

    The first layer's inputs came packed, others are packed here.
    """
    layer = record_at(record, 0)
    unit, units = layer.first_unit, layer.stop_unit - layer.first_unit
    columns = layer.weights.columns
    if layer.inputs.address != 0:
        pairs = nothing()
        if training != 0:
            pairs = submatrix(layer.paired_inputs, 0, unit, (count + 1) // 2, units)
        pack_pairs(
            one, submatrix(layer.inputs, 0, unit, count, units),
            submatrix(layer.packed_inputs, 0, unit // 2, count, units // 2), pairs,
        )  # fmt: skip
    if changed != 0:
        call(layer.pack_weights, one, layer.record, parameters, unit, units)
    for chunk in range(layer.first_chunk, layer.stop_chunk):
        first, end = chunk_at(layer, chunk)
        words = (end - first + 1) // 2
        Z = submatrix(shifted(layer.slots, chunk * layer.slot_bytes), 0, 0, count, columns)
        if words == 0:
            clear(one, Z)
        else:
            matmul_pairs(
                one, submatrix(layer.packed_inputs, 0, first // 2, count, words),
                submatrix(layer.paired_weights, first // 2, 0, words, columns), Z, 0, nothing(),
            )  # fmt: skip


@operation
def input_gradient_in_pairs(one, record, count, padded):
    """dX = G W^T for own units of block 1 from the record on, into the gradient of block 0."""
    below, layer = record_at(record, 0), record_at(record, 1)
    unit, units = layer.first_unit, layer.stop_unit - layer.first_unit
    packed, words = layer.packed_weights, (layer.output_units + 1) // 2
    transpose(
        one, submatrix(packed, unit, 0, units, packed.columns),
        submatrix(layer.turned_weights, 0, unit, packed.columns, units),
    )  # fmt: skip
    # by rows for this product, in pairs for the update that follows
    pack_pairs(
        one, submatrix(layer.gradient, 0, 0, count, layer.gradient.columns),
        layer.packed_gradient, layer.paired_gradient,
    )  # fmt: skip
    mask = nothing()
    if layer.mask_inputs != 0:
        mask = submatrix(layer.inputs, 0, unit, count, units)
    matmul_pairs(
        one, submatrix(layer.packed_gradient, 0, 0, count, words),
        submatrix(layer.turned_weights, 0, unit, words, units),
        submatrix(below.gradient, 0, unit, count, units), 0, mask,
    )  # fmt: skip
    clear(one, submatrix(below.gradient, count, unit, padded - count, units))


@operation
def gradient_in_pairs(factor, record, unit, units, count, target, stride, keep):
    """target = factor X^T G, for some own units; the first of them packs G, if it isn't yet.

    Or it is added to the target: these are the weights then, and are packed as well.
    """
    layer = record_at(record, 0)
    columns = layer.weights.columns
    words = (count + 1) // 2
    G = submatrix(layer.paired_gradient, 0, 0, words, columns)
    if unit == layer.first_unit and layer.packed_gradient.address == 0:
        pack_pairs(factor, submatrix(layer.gradient, 0, 0, count, columns), nothing(), G)
    X = submatrix(layer.paired_inputs, 0, unit, words, units)
    C = matrix_at(target, stride, layer.weights.column_stride, units, columns)
    if keep != 0:
        rows, pairs = copies_of_weights(layer, unit, units)
        update_pairs(factor, transposed(X), G, C, rows, pairs)
    else:
        matmul_pairs(factor, transposed(X), G, C, 0, nothing())
