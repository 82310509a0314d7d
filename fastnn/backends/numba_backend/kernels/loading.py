"""Loading samples, of any element type and from any address: as rows, with the sets of what is not
zero in them."""

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
    Why it is fast: one comparison, of what lies in memory, gives the bits of 64 numbers.
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
                k.store_integer(word, sets + w * bits.column_stride)
                for part in range(per_word):
                    place = w * per_word + part
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
                k.store_integer(last[0], sets + words * bits.column_stride)
