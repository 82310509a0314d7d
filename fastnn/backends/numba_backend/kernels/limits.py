"""What a core can do at best: multiply-adds, loads, stores, and bytes from each level of memory.

Each kernel does one thing and nothing else, as often as asked, so its time is a limit that no other
kernel can pass. `fastnn bench --suite step` puts the parts of a step beside them. Nothing here is
compiled before that asks for it.
"""

from __future__ import annotations

from llvmlite import ir

from ..jit import KernelOperation
from ..language import Address, Int, Kernel, Real, Vector, pairwise_sum
from ..machine import MACHINE

SUMS = 16 if MACHINE.vector_registers > 16 else 12
"""Sums that don't wait for each other: as many as hide the latency of a multiply-add, of which two
begin in a cycle and take five, or four and take four; and no more than there are registers for
beside the factor."""

BLOCK = 8
"""Vectors that are loaded or stored in each turn of a loop."""


def multiply_adds(k: Kernel, like: Real, memory: Address, nbytes: Int, turns: Int) -> None:
    """Multiply and add SUMS vectors in each turn, in registers alone.

    Sums of equal numbers LLVM would make one of.
    """
    factor, total = k.load(memory), k.variables(k.zero(), SUMS)
    for i in range(SUMS):
        total[i] = k.load(memory + i * k.vector_bytes)
    with k.loop(0, turns):
        for i in range(SUMS):
            total[i] = k.fma(total[i], factor, factor)
    k.store(pairwise_sum([total[i] for i in range(SUMS)]), memory)


def loads(k: Kernel, like: Real, memory: Address, nbytes: Int, turns: Int) -> None:
    """Load all of the memory in each turn.

    Loaded vectors are joined bit by bit, as no sum of floating-point numbers is as quick as a load.
    """
    builder, bits = k.builder, ir.VectorType(ir.IntType(8 * k.element_bytes), k.lanes)
    found = k.variables(k.zero(), BLOCK)
    with k.loop(0, turns), k.loop(0, nbytes, BLOCK * k.vector_bytes) as offset:
        for i in range(BLOCK):
            codes = [found[i].code, k.load(memory + offset + i * k.vector_bytes).code]
            either = builder.or_(*(builder.bitcast(code, bits) for code in codes))
            found[i] = Vector(k, builder.bitcast(either, k.vector_type))
    k.store(pairwise_sum([found[i] for i in range(BLOCK)]), memory)


def stores(k: Kernel, like: Real, memory: Address, nbytes: Int, turns: Int) -> None:
    """Store to all of the memory in each turn."""
    value = k.load(memory)
    with k.loop(0, turns), k.loop(0, nbytes, BLOCK * k.vector_bytes) as offset:
        for i in range(BLOCK):
            k.store(value, memory + offset + i * k.vector_bytes)


def counter(k: Kernel, like: Real, memory: Address, nbytes: Int, turns: Int) -> None:
    """Store what the processor's counter says, by which laps are measured."""
    k.store_integer(k.cycles(), memory)


LIMITS = {
    of.__name__: KernelOperation(of, of.__name__) for of in (multiply_adds, loads, stores, counter)
}
"""By name. Each takes a number of the dtype, aligned memory of `nbytes`, a multiple of BLOCK
vectors and at least SUMS of them, and how many turns to take."""
