"""What compiled code asks of the operating system: to yield, to sleep, and what time it is.

The one place that knows which functions a system has for this. Kernels call them by name; LLVM
finds those of the C library by itself, and on Windows is told where they are.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Protocol

from llvmlite import binding, ir

INT32 = ir.IntType(32)
INT64 = ir.IntType(64)


class System(Protocol):
    """What a system must offer; the first three write calls into a function under construction."""

    def yield_processor(self, builder: ir.IRBuilder) -> None:
        """Let another thread that is ready run on this processor."""

    def sleep(self, builder: ir.IRBuilder, microseconds: int) -> None:
        """Leave the processor for a while, about so long."""

    def clock(self, builder: ir.IRBuilder) -> ir.Value:
        """Nanoseconds since some moment, a 64-bit integer; they never go back."""

    def now(self) -> int:
        """What `clock` says, without a kernel."""


class Posix:
    """Linux, macOS and others, by the C library."""

    def yield_processor(self, builder: ir.IRBuilder) -> None:
        """By `sched_yield`."""
        _call(builder, "sched_yield")

    def sleep(self, builder: ir.IRBuilder, microseconds: int) -> None:
        """By `usleep`."""
        _call(builder, "usleep", ir.Constant(INT32, microseconds))

    def clock(self, builder: ir.IRBuilder) -> ir.Value:
        """By `clock_gettime`, whose seconds and nanoseconds are of 64 bits each."""
        seconds = _room(builder, 2)
        _call(builder, "clock_gettime", ir.Constant(INT32, time.CLOCK_MONOTONIC), seconds)
        fraction = builder.gep(seconds, [ir.Constant(INT32, 1)])
        whole = builder.mul(builder.load(seconds), ir.Constant(INT64, 1_000_000_000))
        return builder.add(whole, builder.load(fraction))

    def now(self) -> int:
        """By the same clock."""
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Windows:
    """By kernel32. How fast the counter counts is asked each time: code is kept for other machines.

    `Sleep` counts milliseconds, and by default wakes up at the next of 64 ticks a second.
    """

    def yield_processor(self, builder: ir.IRBuilder) -> None:
        """By `SwitchToThread`."""
        _call(builder, "SwitchToThread")

    def sleep(self, builder: ir.IRBuilder, microseconds: int) -> None:
        """By `Sleep`; it returns nothing, so what is taken for its result is not looked at."""
        _call(builder, "Sleep", ir.Constant(INT32, max(1, microseconds // 1000)))

    def clock(self, builder: ir.IRBuilder) -> ir.Value:
        """Seconds and their rest apart, as a counter times 10^9 would overflow within days."""
        counter, frequency = _room(builder, 1), _room(builder, 1)
        _call(builder, "QueryPerformanceCounter", counter)
        _call(builder, "QueryPerformanceFrequency", frequency)
        ticks, second = builder.load(counter), builder.load(frequency)
        billion = ir.Constant(INT64, 1_000_000_000)
        whole = builder.mul(builder.udiv(ticks, second), billion)
        rest = builder.udiv(builder.mul(builder.urem(ticks, second), billion), second)
        return builder.add(whole, rest)

    def now(self) -> int:
        """Python computes `perf_counter_ns` from the same counter in the same way."""
        return time.perf_counter_ns()


SYSTEMS: dict[str, System] = {"posix": Posix(), "nt": Windows()}
"""By what `os.name` calls them."""

SYSTEM = SYSTEMS[os.name]
"""This one."""

if sys.platform == "win32":
    _kernel32 = ctypes.WinDLL("kernel32")
    for _name in (
        "SwitchToThread",
        "Sleep",
        "QueryPerformanceCounter",
        "QueryPerformanceFrequency",
    ):
        binding.add_symbol(_name, ctypes.cast(getattr(_kernel32, _name), ctypes.c_void_p).value)


def _call(builder: ir.IRBuilder, name: str, *codes: ir.Value) -> None:
    """Call a function of the system."""
    module = builder.module
    function = module.globals.get(name)
    if function is None:
        signature = ir.FunctionType(INT32, [code.type for code in codes])
        function = ir.Function(module, signature, name)
    builder.call(function, codes)


def _room(builder: ir.IRBuilder, count: int) -> ir.Value:
    """Return where a function of the system may write so many 64-bit integers."""
    with builder.goto_entry_block():
        room = builder.alloca(ir.ArrayType(INT64, count))
    return builder.bitcast(room, INT64.as_pointer())
