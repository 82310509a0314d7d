"""``python -m benchmarks.ladder.probes``: how many cycles a core waits, by loops that do one thing.

The pages of the ladder count with these numbers. What a cycle is, a chain of integer additions
says, each of which takes one on every processor of today.
"""

from __future__ import annotations

import time

import numpy as np
from llvmlite import ir

from fastnn.backends.numba_backend.jit import KernelOperation
from fastnn.backends.numba_backend.kernels.limits import BLOCK
from fastnn.backends.numba_backend.language import Address, Int, Kernel, Real, Vector, pairwise_sum
from fastnn.backends.numba_backend.machine import VECTOR_BYTES
from fastnn.markdown import markdown_table
from fastnn.memory import aligned_zeros

TURNS, REPEATS = 1 << 16, 60
"""Of a loop, and how often it is timed; the best counts."""
CHAIN = 8
"""Integer operations in a turn that wait for each other."""


def integers(k: Kernel, like: Real, memory: Address, turns: Int) -> None:
    """Add, and keep some bits, one after the other."""
    step, total = k.load_integer(memory), k.variable(turns)
    with k.loop(0, turns):
        for _ in range(CHAIN // 2):
            total[0] = (total[0] + step) | step
    k.store_integer(total[0], memory)


def additions(k: Kernel, like: Real, memory: Address, turns: Int) -> None:
    """Add to one vector of sums."""
    term, total = k.load_anywhere(memory), k.variable(k.zero())
    with k.loop(0, turns):
        total[0] = total[0] + term
    k.store_anywhere(total[0], memory)


def multiply_adds(k: Kernel, like: Real, memory: Address, turns: Int) -> None:
    """Multiply, and add to one vector of sums."""
    term, total = k.load_anywhere(memory), k.variable(k.zero())
    with k.loop(0, turns):
        total[0] = k.fma(term, term, total[0])
    k.store_anywhere(total[0], memory)


def through_memory(k: Kernel, like: Real, memory: Address, turns: Int) -> None:
    """Load a vector of sums, multiply and add, and store it where it was."""
    term = k.load_anywhere(memory)
    with k.loop(0, turns):
        k.store_anywhere(k.fma(term, term, k.load_anywhere(memory)), memory)


def loads(k: Kernel, like: Real, memory: Address, turns: Int) -> None:
    """Load BLOCK vectors that lie side by side."""
    bits = ir.VectorType(ir.IntType(8 * k.element_bytes), k.lanes)
    found = k.variables(k.zero(), BLOCK)
    with k.loop(0, turns):
        for i in range(BLOCK):
            codes = [found[i].code, k.load_anywhere(memory + i * k.vector_bytes).code]
            either = k.builder.or_(*(k.builder.bitcast(code, bits) for code in codes))
            found[i] = Vector(k, k.builder.bitcast(either, k.vector_type))
    k.store_anywhere(pairwise_sum([found[i] for i in range(BLOCK)]), memory)


def stores(k: Kernel, like: Real, memory: Address, turns: Int) -> None:
    """Store BLOCK vectors side by side."""
    value = k.load_anywhere(memory)
    with k.loop(0, turns):
        for i in range(BLOCK):
            k.store_anywhere(value, memory + i * k.vector_bytes)


def branches(k: Kernel, like: Real, memory: Address, turns: Int) -> None:
    """Ask of each integer whether it is zero, and store where not."""
    with k.loop(1, turns) as i, k.when(k.load_integer(memory + 8 * i).differs(0)):
        k.store_integer(i, memory)


PROBES = {
    of.__name__: KernelOperation(of, f"probe.{of.__name__}")
    for of in (integers, additions, multiply_adds, through_memory, loads, stores, branches)
}


def nanoseconds(name: str, address: int) -> float:
    """Return how long a turn takes at best."""
    kernel = PROBES[name].entry(np.dtype(np.float32))
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter_ns()
        kernel(0.0, address, TURNS)
        best = min(best, time.perf_counter_ns() - start)
    return best / TURNS


def report() -> str:
    """Return a table of cycles."""
    room = aligned_zeros(2 * TURNS + 64, np.dtype(np.float32))
    within, across = room.ctypes.data, room.ctypes.data + VECTOR_BYTES // 4
    cycle = nanoseconds("integers", within) / CHAIN
    rows = [
        (said, f"{nanoseconds(name, place) / each / cycle:.1f}")
        for said, name, place, each in (
            ("an addition that waits for the one before it", "additions", within, 1),
            ("a multiply-add that waits for the one before it", "multiply_adds", within, 1),
            ("load, multiply-add, store, at one place", "through_memory", within, 1),
            ("the same, where vectors lie in two lines", "through_memory", across, 1),
            ("a load of a vector", "loads", within, BLOCK),
            ("a load, where vectors lie in two lines", "loads", across, BLOCK),
            ("a store of a vector", "stores", within, BLOCK),
            ("a store, where vectors lie in two lines", "stores", across, BLOCK),
        )
    ]
    words = room.view(np.int64)[:TURNS]
    words[:] = 1
    foreseen = nanoseconds("branches", within)
    words[:] = np.random.default_rng(0).integers(2, size=TURNS)  # half of the guesses are wrong
    at_random = nanoseconds("branches", within)
    rows.append(("a wrong guess at a branch", f"{2 * (at_random - foreseen) / cycle:.0f}"))
    table = markdown_table(["", "cycles"], rows)
    return f"{table}\n\nA cycle is {cycle:.3f} ns, vectors have {8 * VECTOR_BYTES} bits."


if __name__ == "__main__":
    print(report())
