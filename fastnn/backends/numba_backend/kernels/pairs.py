"""Pairs of bfloat16 in kernels: what `language.py` has for float32, for numbers of half the size.

A vector of float32 holds a pair in each lane, the first of it in the low half. Two float32 vectors
become one of bfloat16, and a multiply-add takes two such vectors and adds to float32.

Each operation is an instruction where the processor has one (AVX512_BF16), and is emulated in
float32 elsewhere, to the same bits: of a pair the high halves are multiplied and added first, each
sum is rounded, and denormal numbers are zeros. But on processors that are not x86 a denormal sum
stays what it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from llvmlite import ir

from ..language import INT32, Condition, Int, Kernel, Vector
from ..machine import HAS_BFLOAT16

INT16 = ir.IntType(16)

FLUSH_RESULTS, FLUSH_OPERANDS = 1 << 15, 1 << 6
"""Of the register of floating-point modes of x86, MXCSR: FTZ and DAZ."""


class BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's `bfloat`, which llvmlite doesn't know: the upper half of a float32."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


def rounded(k: Kernel, first: Vector, second: Vector, emulated: bool = not HAS_BFLOAT16) -> Vector:
    """Return two vectors of float32 as bfloat16, number after number."""
    return _of_halves(k, _halves(k, first, second, emulated))


def store_rounded(
    k: Kernel, vector: Vector, address: Int, emulated: bool = not HAS_BFLOAT16
) -> None:
    """Store one vector of float32 as bfloat16: half a vector, at a multiple of half of one."""
    k.store_as(_half(k, vector, emulated), address, k.vector_bytes // 2)


def nearest(k: Kernel, vector: Vector, emulated: bool = not HAS_BFLOAT16) -> Vector:
    """Return a vector rounded to bfloat16, as float32."""
    wide = k.builder.zext(_half(k, vector, emulated), ir.VectorType(INT32, k.lanes))
    return _of_halves(k, k.builder.shl(wide, _words(k, 16)))


def paired(k: Kernel, low: Vector, high: Vector, emulated: bool = not HAS_BFLOAT16) -> Vector:
    """Return two vectors of float32 as bfloat16, those of one lane side by side."""
    places = [i for lane in range(k.lanes) for i in (lane, k.lanes + lane)]
    order = ir.Constant(ir.VectorType(INT32, 2 * k.lanes), places)
    halves = _halves(k, low, high, emulated)
    return _of_halves(k, k.builder.shuffle_vector(halves, halves, order))


def fma_pairs(
    k: Kernel, a: Vector, b: Vector, c: Vector, emulated: bool = not HAS_BFLOAT16
) -> Vector:
    """Return c and, added to it, the product of the high halves, then that of the low ones.

    The instruction takes denormal operands for zeros and makes zeros of denormal sums, and so does
    its emulation where `flushing_denormals` is in force. All else is equal to the bit: a product of
    two bfloat16 is exact in float32, so it is rounded where it is added. Where the processor can't
    multiply and add in one, a product is a number by itself: below 2^-126 it is zero, and from
    2^128 on infinite, whatever it is added to.
    """
    if not emulated:
        pairs = ir.VectorType(BFloat(), 2 * k.lanes)
        name = f"llvm.x86.avx512bf16.dpbf16ps.{8 * k.vector_bytes}"
        multiply = k.function(name, k.vector_type, [k.vector_type, pairs, pairs])
        codes = [k.builder.bitcast(vector.code, pairs) for vector in (a, b)]
        return Vector(k, k.builder.call(multiply, [c.code, *codes]))
    a_low, a_high = _unpacked(k, a)
    b_low, b_high = _unpacked(k, b)
    return k.fma(a_low, b_low, k.fma(a_high, b_high, c))


def above_zero(k: Kernel, vector: Vector) -> Condition:
    """Say where a vector is above 0: also denormal numbers where these are taken for zeros.

    Compared as integers, of which those from 1 to infinity are above 0; NaN is beyond.
    """
    bits = k.builder.bitcast(vector.code, ir.VectorType(INT32, k.lanes))
    below = k.builder.sub(bits, _words(k, 1))
    return Condition(k, k.builder.icmp_unsigned("<", below, _words(k, 0x7F800000)))


@contextlib.contextmanager
def flushing_denormals(k: Kernel) -> Iterator[None]:
    """Take denormal numbers for zeros, operands and results, as far as the body goes.

    By the register of floating-point modes of x86, which is as before at the end. Its body is one
    of loops: LLVM, which knows nothing of modes, moves no arithmetic out of a loop in which it goes
    on from one turn to the next. On other processors nothing is flushed.
    """
    builder = k.builder
    if not builder.module.triple.startswith("x86_64"):
        yield
        return
    with builder.goto_entry_block():
        before, inside = builder.alloca(INT32), builder.alloca(INT32)
    name, place = "llvm.x86.sse.{}mxcsr", [INT32.as_pointer()]
    store, load = (k.function(name.format(s), ir.VoidType(), place) for s in ("st", "ld"))
    builder.call(store, [before])
    flushing = ir.Constant(INT32, FLUSH_RESULTS | FLUSH_OPERANDS)
    builder.store(builder.or_(builder.load(before), flushing), inside)
    builder.call(load, [inside])
    yield
    builder.call(load, [before])


def _of_halves(k: Kernel, halves: ir.Value) -> Vector:
    return Vector(k, k.builder.bitcast(halves, k.vector_type))


def _halves(k: Kernel, first: Vector, second: Vector, emulated: bool) -> ir.Value:
    """Return two vectors of float32 as one of bfloat16, in integers of 16 bits."""
    builder, halves = k.builder, ir.VectorType(INT16, 2 * k.lanes)
    if not emulated:
        name = f"llvm.x86.avx512bf16.cvtne2ps2bf16.{8 * k.vector_bytes}"
        pairs = ir.VectorType(BFloat(), 2 * k.lanes)
        convert = k.function(name, pairs, [k.vector_type] * 2)
        return builder.bitcast(builder.call(convert, [second.code, first.code]), halves)
    codes = [_half(k, vector, emulated) for vector in (first, second)]
    order = ir.Constant(ir.VectorType(INT32, 2 * k.lanes), list(range(2 * k.lanes)))
    return builder.shuffle_vector(*codes, order)


def _half(k: Kernel, vector: Vector, emulated: bool) -> ir.Value:
    """Return a vector of float32 as half a vector of bfloat16, in integers of 16 bits."""
    builder, narrow = k.builder, ir.VectorType(INT16, k.lanes)
    if emulated:
        return builder.trunc(_rounded_half(k, vector), narrow)
    name = f"llvm.x86.avx512bf16.cvtneps2bf16.{8 * k.vector_bytes}"
    convert = k.function(name, ir.VectorType(BFloat(), k.lanes), [k.vector_type])
    return builder.bitcast(builder.call(convert, [vector.code]), narrow)


def _words(k: Kernel, number: int) -> ir.Value:
    return ir.Constant(ir.VectorType(INT32, k.lanes), [number] * k.lanes)


def _rounded_half(k: Kernel, vector: Vector) -> ir.Value:
    """Return numbers rounded to bfloat16, in the low halves of integers.

    To the nearest, or the even one of two; NaN stays NaN; a denormal becomes a zero.
    """
    builder = k.builder
    bits = builder.bitcast(vector.code, ir.VectorType(INT32, k.lanes))
    upper = builder.lshr(bits, _words(k, 16))
    carry = builder.add(builder.and_(upper, _words(k, 1)), _words(k, 0x7FFF))
    nearest = builder.lshr(builder.add(bits, carry), _words(k, 16))
    size = builder.and_(bits, _words(k, 0x7FFFFFFF))
    is_nan = builder.icmp_unsigned(">", size, _words(k, 0x7F800000))
    nearest = builder.select(is_nan, builder.or_(upper, _words(k, 0x40)), nearest)
    is_denormal = builder.icmp_unsigned("<", size, _words(k, 0x00800000))
    return builder.select(is_denormal, builder.and_(upper, _words(k, 0x8000)), nearest)


def _unpacked(k: Kernel, pairs: Vector) -> tuple[Vector, Vector]:
    """Return the low and the high halves of pairs as float32."""
    builder = k.builder
    bits = builder.bitcast(pairs.code, ir.VectorType(INT32, k.lanes))
    halves = builder.shl(bits, _words(k, 16)), builder.and_(bits, _words(k, 0xFFFF0000))
    low, high = (Vector(k, builder.bitcast(half, k.vector_type)) for half in halves)
    return low, high
