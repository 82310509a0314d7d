"""Work on rows: loading samples, transposing, sums over slots, activations, bias gradients.

All of it moves each number once or twice and computes little. But for `span`, which walks along
rows as users have them, rows lie at aligned addresses and are padded: a kernel works on whole
vectors, the last of a row with what pads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from ..jit import jit_part
from ..language import Condition, Int, Kernel, Matrix, Real, Vector, pairwise_sum
from ..microkernel import microkernel


def span(
    k: Kernel, columns: Int, body: Callable[..., Any], width: int = 1, grouped: int | Int = 1
) -> None:
    """Write a walk along a row of `columns` numbers.

    `body(offset, count, load, store)` writes what happens to `count` vectors, the first of them
    `offset` bytes from the start of the row: `width` whole ones for as long as there are so many,
    none where `grouped` is 0, then whole ones one by one, at last a vector in part, where
    `load(address)` and `store(vector, address)` leave alone what lies beyond the row.
    """
    whole = columns // k.lanes
    first = k.integer(0)
    if width > 1:
        first = whole // width * width * grouped
        with k.loop(0, first, width) as j:
            body(j * k.vector_bytes, width, k.load_anywhere, k.store_anywhere)
    with k.loop(first, whole) as j:
        body(j * k.vector_bytes, 1, k.load_anywhere, k.store_anywhere)
    with k.loop(whole, (columns + (k.lanes - 1)) // k.lanes) as j:
        body(j * k.vector_bytes, 1, *k.masked(k.lane_before(columns - j * k.lanes)))


UINT8, FLOAT32, FLOAT64 = 0, 1, 2
"""Codes of the element types that samples may have."""


def sample_group(lanes: int) -> int:
    """Return how many samples are loaded together: a vector of them, and whole bytes of bits."""
    return max(lanes, 8)


IDENTITY, RELU = 0, 1
"""Codes of the activations."""

MESSAGE_FIELDS = (
    "source", "source_stride", "parts", "part_bytes", "target", "target_stride", "columns",
)  # fmt: skip
"""What `transfer` moves: addresses and distances in bytes, how many parts are added."""


@microkernel
def integer_at(k: Kernel, address: Int) -> Int:
    """The 64-bit integer at an address."""
    return k.load_integer(address)


@microkernel
def put_integer(k: Kernel, number: Int, address: Int) -> None:
    """Store a 64-bit integer at an address."""
    k.store_integer(number, address)


@microkernel
def real_at(k: Kernel, like: Real, address: Int) -> Real:
    """The number at an address; only the type of `like` counts."""
    return k.load_real(address)


@microkernel
def put_real(k: Kernel, number: Real, address: Int) -> None:
    """Store a number at an address."""
    k.store_real(number, address)


@jit_part
def sample_at(order, position):
    """The number of the sample at a position of the order; without an order, the position."""
    return integer_at(order + 8 * position) if order != 0 else position


@microkernel
def clear(k: Kernel, like: Real, target: Matrix) -> None:
    """target = 0."""
    with k.loop(0, target.rows) as row, k.loop(0, k.vectors(target)) as j:
        k.store(k.zero(), target.row(row) + j * k.vector_bytes)


ELEMENTS = {UINT8: (ir.IntType(8), 1), FLOAT32: (ir.FloatType(), 4), FLOAT64: (ir.DoubleType(), 8)}
"""LLVM type and size of the elements that samples may have."""


def converted(k: Kernel, number: ir.Value, target: ir.Type, nbytes: int) -> Vector:
    """Convert what was loaded from samples of `nbytes` an element to the kernel's type."""
    if nbytes == 1:
        number = k.builder.uitofp(number, target)
    elif nbytes > k.element_bytes:
        number = k.builder.fptrunc(number, target)
    elif nbytes < k.element_bytes:
        number = k.builder.fpext(number, target)
    return Vector(k, number)


@microkernel
def load_row(k: Kernel, scale: Real, source: Int, code: Int, count: Int, target: Int) -> None:
    """target[:count] = scale * source[:count], the last vector filled up with zeros.

    The source is a sample as the user has it: unsigned bytes, float32 or float64 (`code`), at
    any address. Not a byte is read beyond its end, which may be the end of the mapped memory.
    """
    whole = count // k.lanes
    factor = k.broadcast(scale)
    for case in k.cases(code, (UINT8, FLOAT32, FLOAT64)):
        element, nbytes = ELEMENTS[case]
        with k.loop(0, whole) as j:
            kind = ir.VectorType(element, k.lanes)
            loaded = k.load_as(source + j * (k.lanes * nbytes), kind, 1)
            number = converted(k, loaded, k.vector_type, nbytes)
            k.store(number * factor, target + j * k.vector_bytes)
        with k.when(count > whole * k.lanes):
            k.store(k.zero(), target + whole * k.vector_bytes)
            with k.loop(whole * k.lanes, count) as i:
                loaded = k.load_as(source + i * nbytes, element, 1)
                number = converted(k, loaded, k.element, nbytes)
                k.store_real(number * scale, target + i * k.element_bytes)


@microkernel
def copy_bytes(k: Kernel, source: Int, target: Int, count: Int) -> None:
    """target[:count] = source[:count], byte by byte."""
    byte = ir.IntType(8)
    with k.loop(0, count) as i:
        k.store_as(k.load_as(source + i, byte, 1), target + i, 1)


@microkernel
def load_transposed(
    k: Kernel, scale: Real, sources: Int, code: Int, target: Matrix, bits: Matrix
) -> None:
    """target = scale * X^T and the set of non-zeros of each of its rows, for a group of samples.

    Shapes: `sources` holds the addresses of a group of samples, see `sample_group`, each of as many
    numbers of the type `code` as target has rows, at any address; target [units, group], the units
    whole vectors; bits one field of as many bits a row as a group has samples.
    Why it is fast: X goes from the user's memory into registers, is transposed as it is (bytes
    four times as many to a register as floats) and is converted on the way out. A
    block in which every sample is zero, as the borders of images are, leaves its part of the target
    untouched: nobody looks where no bit is set.
    Tried and lost: converting first, transposing and looking for zeros in passes of their own.
    """
    factor = k.broadcast(scale)
    group = sample_group(k.lanes)
    field = ir.IntType(group)
    for case in k.cases(code, (UINT8, FLOAT32, FLOAT64)):
        element, nbytes = ELEMENTS[case]
        kind = ir.VectorType(element, k.lanes)
        integers = ir.VectorType(ir.IntType(8 * nbytes), k.lanes)
        with k.loop(0, target.rows // k.lanes) as block:
            found = [k.integer(0)] * k.lanes
            columns = block * (k.lanes * nbytes)
            rows = [
                k.load_as(k.load_integer(sources + 8 * i) + columns, kind, 1) for i in range(group)
            ]
            units = target.shifted(block * k.lanes * target.row_stride)
            fields = bits.shifted(block * k.lanes * bits.row_stride)
            any_bit = k.builder.bitcast(rows[0], integers)
            for row in rows[1:]:
                any_bit = k.builder.or_(any_bit, k.builder.bitcast(row, integers))
            none = ir.Constant(integers, [0] * k.lanes)
            some = Condition(k, k.builder.icmp_signed("!=", any_bit, none))
            with k.if_else(k.bits(some).differs(0)) as (occupied, empty):
                with occupied:
                    for start in range(0, group, k.lanes):
                        part = k.transpose_codes(rows[start : start + k.lanes])
                        for i, loaded in enumerate(part):
                            number = converted(k, loaded, k.vector_type, nbytes)
                            nonzero = k.bits(number.differs(0.0))
                            found[i] = found[i] | (nonzero << start)
                            address = units.row(i) + start * k.element_bytes
                            k.store(number * factor, address)
                    for i in range(k.lanes):
                        narrow = k.builder.trunc(found[i].code, field)
                        k.store_as(narrow, fields.row(i), group // 8)
                with empty:
                    for i in range(k.lanes):
                        k.store_as(ir.Constant(field, 0), fields.row(i), group // 8)


@microkernel
def transpose(k: Kernel, like: Real, source: Matrix, target: Matrix) -> None:
    """target = source^T, square blocks of `lanes` x `lanes` transposed in registers.

    Rows and columns of the source fill whole vectors.
    Why it is fast: every line of memory is read once and written once, whole.
    """
    with k.loop(0, source.rows // k.lanes) as r, k.loop(0, source.columns // k.lanes) as c:
        block = source.shifted(r * k.lanes * source.row_stride + c * k.vector_bytes)
        rows = [k.load(block.row(i)) for i in range(k.lanes)]
        block = target.shifted(c * k.lanes * target.row_stride + r * k.vector_bytes)
        for i, column in enumerate(k.transpose(rows)):
            k.store(column, block.row(i))


@microkernel
def nonzero_bits(k: Kernel, like: Real, source: Matrix, bits: Matrix) -> None:
    """bits[row] = the set of columns in which source[row] is not zero; NaN is not zero.

    Shapes: source [rows, columns], bits [rows, 64-bit words]; column 64 w + i is bit i of word w.
    Why it is fast: a comparison gives the bits of a whole vector. A kernel that visits the
    bits which are set needs no list of indices and no copy of the values, and a
    set of samples costs eight bytes where a list costs eight for each of them.
    Tried and lost: lists made by compressing vectors; writing them takes longer than reading
    the bits, by far where compressing to memory is microcoded.
    """
    per_word = 64 // k.lanes
    vectors = k.vectors(source)
    with k.loop(0, source.rows) as row:
        first = source.row(row)
        with k.loop(0, vectors, per_word) as start:
            word = k.variable(k.integer(0))
            with k.loop(start, k.minimum(start + per_word, vectors)) as j:
                nonzero = k.load(first + j * k.vector_bytes).differs(0.0)
                word[0] = word[0] | (k.bits(nonzero) << ((j - start) * k.lanes))
            k.store_integer(word[0], bits.row(row) + start // per_word * 8)


@microkernel
def transfer(k: Kernel, like: Real, messages: Int, count: Int, rows: Int) -> None:
    """For each of `count` messages: target = the sum of its parts, one or two of them.

    Shapes: messages [count] records of MESSAGE_FIELDS, each a 64-bit integer; parts and target
    [rows, columns], whole vectors. The target may be the first part.
    """
    with k.loop(0, count) as number:
        message = messages + number * (8 * len(MESSAGE_FIELDS))
        fields = [k.load_integer(message + 8 * i) for i in range(len(MESSAGE_FIELDS))]
        source, source_stride, parts, part_bytes, target, target_stride, columns = fields
        for case in k.cases(parts, (1, 2)):
            with k.loop(0, rows) as row, k.loop(0, columns // k.lanes) as j:
                address = source + row * source_stride + j * k.vector_bytes
                value = k.load(address)
                if case == 2:
                    value = value + k.load(address + part_bytes)
                k.store(value, target + row * target_stride + j * k.vector_bytes)


def clip_threshold(k: Kernel, relu: Int) -> Vector:
    """Write what numbers are clipped at from below: 0 where `relu` is 1, minus infinity where 0."""
    return k.where(relu.equals(RELU), k.zero(), k.constant(float("-inf")))


@microkernel
def activate(
    k: Kernel,
    like: Real,
    slot: Matrix,
    slot_bytes: Int,
    slots: Int,
    biases: Int,
    activation: Int,
    target: Matrix,
) -> None:
    """target = activation(sum of the slots + biases).

    `slot` is the first slot, the next ones lie `slot_bytes` further; biases [columns].
    A slot holds the product of a chunk of the input units with their rows of the weights; in a
    team that of a member's chunks, which it has added.
    There are 1, 2 or 4 slots, by the network's shape, and they are added as
    (0 + 1) + (2 + 3), so that the sum doesn't depend on who computed which.
    ReLU keeps NaN: x < 0 ? 0 : x.
    """
    threshold = clip_threshold(k, activation)
    for count in k.cases(slots, (1, 2, 4)):
        with k.loop(0, target.rows) as row, k.loop(0, k.vectors(target)) as j:
            offset = j * k.vector_bytes
            parts = [k.load(slot.row(row) + offset + c * slot_bytes) for c in range(count)]
            value = pairwise_sum(parts) + k.load(biases + offset)
            k.store(k.where(value < threshold, threshold, value), target.row(row) + offset)


@microkernel
def mask_by_sign(k: Kernel, like: Real, G: Matrix, A: Matrix) -> None:
    """G *= (A > 0), the gradient of ReLU; A is its output or its input, above 0 together."""
    with k.loop(0, G.rows) as row, k.loop(0, k.vectors(G)) as j:
        address = G.row(row) + j * k.vector_bytes
        positive = k.load(A.row(row) + j * k.vector_bytes) > 0.0
        k.store(k.where(positive, k.load(address), k.zero()), address)


@microkernel
def add_column_sums(k: Kernel, scale: Real, source: Matrix, target: Int) -> None:
    """target += scale * (sum over rows of source): the step of the biases.

    Shapes: source [rows, columns], rows a multiple of 2; target [columns].
    Why it is fast: two sums, of the even and the odd rows, hide the latency of an addition.
    """
    factor = k.broadcast(scale)
    with k.loop(0, k.vectors(source)) as j:
        column = source.shifted(j * k.vector_bytes)
        sums = k.variables(k.zero(), 2)
        with k.loop(0, source.rows, 2) as row:
            for i in range(2):
                sums[i] = sums[i] + k.load(column.row(row + i))
        address = target + j * k.vector_bytes
        k.store(k.fma(factor, sums[0] + sums[1], k.load(address)), address)
