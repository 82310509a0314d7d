"""Loading samples, of any element type and from any address: as rows, with the sets of what is not
zero in them, and these sets turned, unit by unit."""

from __future__ import annotations

from llvmlite import ir

from fastnn.memory import LINE_BYTES

from ..jit import jit_part
from ..language import INT32, INT64, Address, Int, Kernel, Matrix, Real, Vector
from ..microkernel import microkernel
from .rows import integer_at

UINT8, FLOAT32, FLOAT64 = 0, 1, 2
"""Codes of the element types that samples may have."""


@jit_part
def sample_at(order, position):
    """The number of the sample at a position of the order; without an order, the position."""
    return integer_at(order + 8 * position) if order != 0 else position


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
def load_row(
    k: Kernel, scale: Real, source: Address, code: Int, count: Int, target: Address
) -> None:
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
def copy_bytes(k: Kernel, source: Address, target: Address, count: Int) -> None:
    """target[:count] = source[:count], byte by byte."""
    byte = ir.IntType(8)
    with k.loop(0, count) as i:
        k.store_as(k.load_as(source + i, byte, 1), target + i, 1)


@microkernel
def prefetch_rows(
    k: Kernel,
    samples: Address,
    row_bytes: Int,
    order: Address,
    count: Int,
    first: Int,
    nbytes: Int,
    last: Int,
) -> None:
    """Ask for bytes from `first` on of the samples whose numbers are order[:count], up to `last`.

    Lines are counted from `first`; the one in which the last byte lies may be another. Who asks for
    the next bytes asks for it, and at the end of a row, which is at `last`, this does.
    """
    stop = first + nbytes
    stop = k.where(stop > last, last + LINE_BYTES, stop)
    with k.loop(first, stop, LINE_BYTES) as offset, k.loop(0, count) as i:
        place = k.minimum(offset, last)
        k.prefetch(samples + k.load_integer(order + 8 * i) * row_bytes + place)


@microkernel
def load_nonzeros(
    k: Kernel,
    scale: Real,
    samples: Address,
    row_bytes: Int,
    order: Address,
    first: Int,
    code: Int,
    target: Matrix,
    bits: Matrix,
) -> None:
    """target = scale * samples where they are not zero, and bits = the sets of these, row by row.

    Row i is the sample whose number stands at place `first` + i of the order, or is that place
    where the order is 0. Samples lie `row_bytes` apart, of any element type (`code`) and at any
    address; as many numbers of each are read as target has columns. A set fills whole words.
    Why it is fast: one comparison, of what lies in memory, gives the bits of 64 numbers. Where none
    of them is set, as at the borders of images, the target stays as it is: nobody looks there.
    Tried and lost: bytes kept as they are and looked up in a table of 256 scaled numbers. Loading
    takes half as long, but who multiplies waits for two loads, one after the other.
    """
    factor = k.broadcast(scale)
    per_word = 64 // k.lanes
    count = target.columns
    words, vectors = count // 64, count // k.lanes

    for case in k.cases(code, (UINT8, FLOAT32, FLOAT64)):
        element, nbytes = ELEMENTS[case]
        differs = k.builder.icmp_unsigned if case == UINT8 else k.builder.fcmp_unordered

        def load(address: Int, numbers: int) -> tuple[ir.Value, Int]:
            """Load numbers as they are, and the set of those that are not zero."""
            kind = ir.VectorType(element, numbers)  # noqa: B023
            loaded = k.load_as(address, kind, 1)
            nonzero = differs("!=", loaded, ir.Constant(kind, None))  # noqa: B023
            found = k.builder.bitcast(nonzero, ir.IntType(numbers))
            return loaded, Int(k, found if numbers == 64 else k.builder.zext(found, INT64))

        def vector(address: Int) -> Vector:
            loaded, _ = load(address, k.lanes)
            return converted(k, loaded, k.vector_type, nbytes) * factor  # noqa: B023

        with k.loop(0, target.rows) as row:
            number = k.variable(first + row)
            with k.when(order.differs(0)):
                number[0] = k.load_integer(order + number[0] * 8)
            source = samples + number[0] * row_bytes
            into, sets = target.row(row), bits.row(row)
            with k.loop(0, words) as w:
                _, word = load(source + w * (64 * nbytes), 64)
                k.store_integer(word, sets + w * 8)
                for j in range(per_word):
                    place = w * per_word + j
                    numbers = vector(source + place * (k.lanes * nbytes))
                    k.store(numbers, into + place * k.vector_bytes)
            with k.when(count > words * 64):
                last = k.variable(k.integer(0))
                with k.loop(words * per_word, vectors) as j:
                    address = source + j * (k.lanes * nbytes)
                    found = load(address, k.lanes)[1]
                    last[0] = last[0] | (found << (j * k.lanes - words * 64))
                    k.store(vector(address), into + j * k.vector_bytes)
                with k.when(count > vectors * k.lanes):
                    k.store(k.zero(), into + vectors * k.vector_bytes)
                    with k.loop(vectors * k.lanes, count) as i:
                        loaded, found = load(source + i * nbytes, 1)
                        last[0] = last[0] | (found << (i - words * 64))
                        only = k.builder.extract_element(loaded, ir.Constant(INT32, 0))
                        numbers = converted(k, only, k.element, nbytes) * scale
                        k.store_real(numbers, into + i * k.element_bytes)
                k.store_integer(last[0], sets + words * 8)


@microkernel
def turn_bits(k: Kernel, bits: Matrix, target: Matrix) -> None:
    """target[i] = the set of rows in which bit i is set: a matrix of bits, transposed.

    Shapes: bits [up to 64 rows, words], the words whole vectors; target [64 * words, 1 word], one
    word after the other.
    Why it is fast: 32 rows stay in registers. Rows i and i + 16 exchange a half of each 32 bits,
    then rows that are 8, 4, 2 and 1 apart quarters and so on: five rounds, and row i has bit i of
    all, for as many groups of 32 bits as a vector holds. What is left to transpose are words.
    """
    builder, word = k.builder, ir.IntType(32)
    lanes = k.vector_bytes // 4
    kind, wide = ir.VectorType(word, lanes), ir.VectorType(INT64, lanes)

    def in_all(code: ir.Value, kind: ir.VectorType) -> ir.Value:
        """Return a vector of one integer."""
        empty, place = ir.Constant(kind, ir.Undefined), ir.Constant(word, 0)
        first = builder.insert_element(empty, code, place)
        return builder.shuffle_vector(
            first, empty, ir.Constant(ir.VectorType(word, lanes), [0] * lanes)
        )

    with (
        k.loop(0, bits.columns // (lanes // 2)) as block,
        k.loop(0, (bits.rows + 31) // 32) as half,
    ):
        rows = []
        for i in range(32):
            number = half * 32 + i
            place = bits.row(k.minimum(number, bits.rows - 1)) + block * k.vector_bytes
            there = k.where(number < bits.rows, k.integer(-1), k.integer(0))
            loaded = k.load_as(place, kind, k.vector_bytes)
            rows.append(builder.and_(loaded, in_all(builder.trunc(there.code, word), kind)))
        for apart, low in (
            (16, 0x0000FFFF),
            (8, 0x00FF00FF),
            (4, 0x0F0F0F0F),
            (2, 0x33333333),
            (1, 0x55555555),
        ):
            distance, mask = (ir.Constant(kind, [n] * lanes) for n in (apart, low))
            for i in range(32):
                if i & apart:
                    continue
                above, below = rows[i], rows[i + apart]
                changed = builder.and_(builder.xor(builder.lshr(above, distance), below), mask)
                rows[i] = builder.xor(above, builder.shl(changed, distance))
                rows[i + apart] = builder.xor(below, changed)
        shift, kept = in_all((half * 32).code, wide), in_all((0 - half).code, wide)
        for part in range(0, 32, lanes):
            for i, sets in enumerate(k.transpose_codes(rows[part : part + lanes])):
                address = target.address + (block * (32 * lanes) + (32 * i + part)) * 8
                before = builder.and_(k.load_as(address, wide, 8), kept)
                found = builder.shl(builder.zext(sets, wide), shift)
                k.store_as(builder.or_(before, found), address, 8)
