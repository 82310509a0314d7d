"""Loading samples: of any element type, from any address, as rows or transposed.

Loading, transposing, finding what is not zero and converting are one pass, in groups of samples
that are used while they are in the cache.
"""

from __future__ import annotations

from llvmlite import ir

from fastnn.memory import LINE_BYTES

from ..jit import jit_part
from ..language import Address, Condition, Int, Kernel, Matrix, Real, Vector
from ..microkernel import microkernel
from .rows import integer_at

UINT8, FLOAT32, FLOAT64 = 0, 1, 2
"""Codes of the element types that samples may have."""


def sample_group(lanes: int) -> int:
    """Return how many samples are loaded together: a vector of them, and whole bytes of bits."""
    return max(lanes, 8)


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
def load_transposed(
    k: Kernel, scale: Real, sources: Address, code: Int, target: Matrix, bits: Matrix
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
                k.load_as(k.load_address(sources + 8 * i, "a sample") + columns, kind, 1)
                for i in range(group)
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
