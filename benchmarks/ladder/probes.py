"""``python -m benchmarks.ladder.probes``: how many cycles a core waits, by loops that do one thing.

The pages of the ladder count with these numbers. What a cycle is, a chain of integer additions
says, each of which takes one on every processor of today. What two cores tell each other takes
nanoseconds, as what carries it between them has a clock of its own.
"""

from __future__ import annotations

import os
import threading
import time

import numpy as np
from llvmlite import ir

from fastnn.backends.numba_backend.epoch.meetings import PLACE_BYTES, look_while
from fastnn.backends.numba_backend.jit import KernelOperation
from fastnn.backends.numba_backend.kernels.limits import BLOCK
from fastnn.backends.numba_backend.language import (
    Address,
    Int,
    Kernel,
    Real,
    Variables,
    Vector,
    pairwise_sum,
)
from fastnn.backends.numba_backend.machine import VECTOR_BYTES
from fastnn.markdown import markdown_table
from fastnn.memory import LINE_BYTES, aligned_zeros
from fastnn.processors import cores, processors

TURNS, REPEATS = 1 << 16, 60
"""Of a loop, and how often it is timed; the best counts."""
CHAIN = 8
"""Integer operations in a turn that wait for each other."""
STREAM_BYTES = 5632 * LINE_BYTES
"""What is walked through from end to end: as much as the weights of 784 pixels and 112 units, too
much for the first-level cache."""
MESSAGE_LINES = 256
"""Lines of a message between two cores."""


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
    found = k.variables(k.zero(), BLOCK)
    with k.loop(0, turns):
        _join(k, found, memory)
    k.store_anywhere(pairwise_sum([found[i] for i in range(BLOCK)]), memory)


def _join(k: Kernel, found: Variables[Vector], address: Int) -> None:
    """Join BLOCK vectors bit by bit with those found: no sum of floats is as quick as a load."""
    bits = ir.VectorType(ir.IntType(8 * k.element_bytes), k.lanes)
    for i in range(BLOCK):
        codes = [found[i].code, k.load_anywhere(address + i * k.vector_bytes).code]
        either = k.builder.or_(*(k.builder.bitcast(code, bits) for code in codes))
        found[i] = Vector(k, k.builder.bitcast(either, k.vector_type))


def stores(k: Kernel, like: Real, memory: Address, turns: Int) -> None:
    """Store BLOCK vectors side by side."""
    _store_each(k, memory, turns, k.load_anywhere(memory).code, k.vector_bytes)


def apart_stores(k: Kernel, like: Real, memory: Address, turns: Int) -> None:
    """Store BLOCK vectors that have two lines to themselves, so that none has a neighbour."""
    _store_each(k, memory, turns, k.load_anywhere(memory).code, 3 * LINE_BYTES)


def half_stores(k: Kernel, like: Real, memory: Address, turns: Int) -> None:
    """Store BLOCK halves of vectors side by side."""
    half = k.load_as(memory, ir.VectorType(k.element, k.lanes // 2), k.element_bytes)
    _store_each(k, memory, turns, half, k.vector_bytes // 2)


def _store_each(k: Kernel, memory: Address, turns: Int, value: ir.Value, apart: int) -> None:
    with k.loop(0, turns):
        for i in range(BLOCK):
            k.store_as(value, memory + i * apart, k.element_bytes)


def streamed_loads(k: Kernel, like: Real, memory: Address, turns: Int) -> None:
    """Load vectors that lie side by side, BLOCK in a turn, from one end of STREAM_BYTES on."""
    found = k.variables(k.zero(), BLOCK)
    with k.loop(0, turns) as turn:
        _join(k, found, memory + turn * BLOCK * k.vector_bytes)
    k.store_anywhere(pairwise_sum([found[i] for i in range(BLOCK)]), memory)


def streamed_changes(k: Kernel, like: Real, memory: Address, turns: Int) -> None:
    """Likewise, and add to each, and store it where it was."""
    term = k.constant(1.0)
    with k.loop(0, turns) as turn:
        for i in range(BLOCK):
            place = memory + turn * BLOCK * k.vector_bytes + i * k.vector_bytes
            k.store_anywhere(k.load_anywhere(place) + term, place)


def asks(k: Kernel, like: Real, memory: Address, turns: Int) -> None:
    """Change a message, tell the other core, and wait until it has done so; note the nanoseconds.

    Those of the first turn don't count, as nobody knows when the other one begins.
    """

    def ask(turn: Int) -> None:
        _change_message(k, memory)
        k.store_shared(turn, memory)
        look_while(k, lambda: k.load_shared(memory + PLACE_BYTES) < turn)

    ask(k.integer(1))
    start = k.clock()
    with k.loop(2, turns + 2) as turn:
        ask(turn)
    k.store_integer(k.clock() - start, memory + (2 * PLACE_BYTES + 8))


def answers(k: Kernel, like: Real, memory: Address, turns: Int) -> None:
    """Wait for the other core, change the message, and tell it."""
    with k.loop(1, turns + 2) as turn:
        look_while(k, lambda: k.load_shared(memory) < turn)
        _change_message(k, memory)
        k.store_shared(turn, memory + PLACE_BYTES)


def _change_message(k: Kernel, memory: Address) -> None:
    """Read and write each line of the message, which lies behind both signals and its length."""
    message = memory + 3 * PLACE_BYTES
    with k.loop(0, k.load_integer(memory + 2 * PLACE_BYTES)) as line:
        place = message + line * LINE_BYTES
        k.store(k.load(place) + k.constant(1.0), place)


def branches(k: Kernel, like: Real, memory: Address, turns: Int) -> None:
    """Ask of each integer whether it is zero, and store where not."""
    with k.loop(1, turns) as i, k.when(k.load_integer(memory + 8 * i).differs(0)):
        k.store_integer(i, memory)


PROBES = {
    of.__name__: KernelOperation(of, f"probe.{of.__name__}")
    for of in (
        integers, additions, multiply_adds, through_memory, loads, stores, apart_stores,
        half_stores, streamed_loads, streamed_changes, branches, asks, answers,
    )
}  # fmt: skip


def nanoseconds(name: str, address: int, turns: int) -> float:
    """Return how long a turn takes at best."""
    kernel = PROBES[name].entry(np.dtype(np.float32))
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter_ns()
        kernel(0.0, address, turns)
        best = min(best, time.perf_counter_ns() - start)
    return best / turns


def exchange(lines: int) -> float:
    """Return how many nanoseconds it takes to another core and back, at best.

    Each side reads and writes so many lines before it tells the other.
    """
    turns = max(TURNS // 64, 1)
    shared = aligned_zeros((3 * PLACE_BYTES + lines * LINE_BYTES) // 4, np.dtype(np.float32))
    settings = shared[2 * PLACE_BYTES // 4 :].view(np.int64)
    ask, answer = (PROBES[name].entry(shared.dtype) for name in ("asks", "answers"))
    allowed, (here, there) = processors(), cores()[:2]
    best = float("inf")

    def other() -> None:
        os.sched_setaffinity(0, there)  # of this thread alone
        answer(0.0, shared.ctypes.data, turns)

    try:
        os.sched_setaffinity(0, here)
        for _ in range(REPEATS):
            shared[:] = 0
            settings[0] = lines
            thread = threading.Thread(target=other)
            thread.start()
            ask(0.0, shared.ctypes.data, turns)
            thread.join()
            best = min(best, int(settings[1]))
    finally:
        os.sched_setaffinity(0, allowed)
    return best / turns


def report() -> str:
    """Return a table of cycles, and one of what two cores tell each other if there are two."""
    room = aligned_zeros(2 * TURNS + STREAM_BYTES // 4 + 64, np.dtype(np.float32))
    within = room.ctypes.data
    across = within + LINE_BYTES - VECTOR_BYTES // 4
    stream = STREAM_BYTES // (BLOCK * VECTOR_BYTES)
    cycle = nanoseconds("integers", within, TURNS) / CHAIN
    rows = [
        (said, f"{nanoseconds(name, place, turns) / each / cycle:.1f}")
        for said, name, place, each, turns in (
            ("an addition that waits for the one before it", "additions", within, 1, TURNS),
            ("a multiply-add that waits for the one before it", "multiply_adds", within, 1, TURNS),
            ("load, multiply-add, store, at one place", "through_memory", within, 1, TURNS),
            ("the same, where vectors lie in two lines", "through_memory", across, 1, TURNS),
            ("a load of a vector", "loads", within, BLOCK, TURNS),
            ("a load, where vectors lie in two lines", "loads", across, BLOCK, TURNS),
            ("a store of a vector", "stores", within, BLOCK, TURNS),
            ("a store, where vectors lie in two lines", "stores", across, BLOCK, TURNS),
            ("a store by itself, no other beside it", "apart_stores", within, BLOCK, TURNS),
            ("a store by itself, in two lines", "apart_stores", across, BLOCK, TURNS),
            ("a store of half a vector", "half_stores", within, BLOCK, TURNS),
            ("a store of half a vector, half of them in two lines", "half_stores", across, BLOCK,
             TURNS),
            ("a load along 352 kB", "streamed_loads", within, BLOCK, stream),
            ("the same, where vectors lie in two lines", "streamed_loads", across, BLOCK, stream),
            ("load, addition, store, along 352 kB", "streamed_changes", within, BLOCK, stream),
            ("the same, where vectors lie in two lines", "streamed_changes", across, BLOCK, stream),
        )
    ]  # fmt: skip
    words = room.view(np.int64)[:TURNS]
    words[:] = 1
    foreseen = nanoseconds("branches", within, TURNS)
    words[:] = np.random.default_rng(0).integers(2, size=TURNS)  # half of the guesses are wrong
    at_random = nanoseconds("branches", within, TURNS)
    rows.append(("a wrong guess at a branch", f"{2 * (at_random - foreseen) / cycle:.0f}"))
    parts = [
        markdown_table(["", "cycles"], rows),
        f"A cycle is {cycle:.3f} ns, vectors have {8 * VECTOR_BYTES} bits.",
    ]
    if hasattr(os, "sched_setaffinity") and len(cores()) > 1:
        to_and_fro, with_message = exchange(0), exchange(MESSAGE_LINES)
        # each side reads them, and writes them
        a_line = (with_message - to_and_fro) / (4 * MESSAGE_LINES)
        between = [
            ("a signal to the other core", f"{to_and_fro / 2:.0f}"),
            ("a line that the other core wrote, to read or to write", f"{a_line:.1f}"),
        ]
        parts.append(markdown_table(["", "ns"], between))
    return "\n\n".join(parts)


if __name__ == "__main__":
    print(report())
