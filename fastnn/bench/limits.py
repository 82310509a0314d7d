"""What one core of this machine can do at best, in the same run as what is measured beside it."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastnn import memory
from fastnn.backends.numba_backend.kernels.limits import BLOCK, LIMITS, SUMS
from fastnn.backends.numba_backend.machine import VECTOR_BYTES
from fastnn.processors import cache_bytes

SECONDS = 0.002
"""How long a kernel runs at least, each time."""
REPEATS = 7
"""Of which the best counts."""
LARGEST_BYTES = 1 << 28
"""Of what stands for memory; beyond the last cache, if there is so much."""


class Limits(NamedTuple):
    """What can be done in a second.

    Attributes
    ----------
    multiply_adds, loads, stores : float
        Vectors, of loads and stores in the first-level cache.
    bandwidth : tuple of float
        Bytes that are loaded from each level: three caches and memory.
    """

    multiply_adds: float
    loads: float
    stores: float
    bandwidth: tuple[float, ...]


def measure_limits(dtype: np.dtype) -> Limits:
    """Measure what a core does in a second, with vectors of `dtype`.

    Parameters
    ----------
    dtype : numpy.dtype
        float32 or float64.
    """
    first, second, third = cache_bytes()
    # what lies in half of a level is in no level before it, and leaves room for all else
    sizes = [first // 2, second // 2, max(third // 2, 2 * second), min(4 * third, LARGEST_BYTES)]
    sizes = [memory.round_up(size, BLOCK * VECTOR_BYTES) for size in sizes]
    room = memory.aligned_zeros(sizes[-1] // dtype.itemsize, dtype)
    room[:] = 0.25

    def rate(name: str, nbytes: int, each_turn: float) -> float:
        return each_turn / _seconds_a_turn(_called(name, dtype), room, nbytes)

    return Limits(
        rate("multiply_adds", sizes[0], SUMS),
        rate("loads", sizes[0], sizes[0] / VECTOR_BYTES),
        rate("stores", sizes[0], sizes[0] / VECTOR_BYTES),
        tuple(rate("loads", size, size) for size in sizes),
    )


Called = Callable[[int, int, int], object]


def _called(name: str, dtype: np.dtype) -> Called:
    """Return a kernel as a function of address, bytes and turns."""
    kernel = LIMITS[name].entry(dtype)
    return lambda address, nbytes, turns: kernel(0.0, address, nbytes, turns)


def _seconds_a_turn(kernel: Called, room: np.ndarray, nbytes: int) -> float:
    """Return how long a turn takes at best."""
    turns, best = 1, float("inf")
    done = 0
    while done < REPEATS:
        start = time.perf_counter()
        kernel(room.ctypes.data, nbytes, turns)
        seconds = time.perf_counter() - start
        if seconds < SECONDS and turns < 1 << 40:
            turns *= 2
            continue
        best, done = min(best, seconds / turns), done + 1
    return best


def measure_ticks() -> float:
    """Measure how often the counter by which laps are measured counts in a second."""
    counter, said = _called("counter", np.dtype(np.float32)), np.zeros(1, np.int64)

    def now() -> tuple[int, float]:
        counter(said.ctypes.data, 0, 0)
        return int(said[0]), time.perf_counter()

    count, start = now()
    time.sleep(0.05)
    later, end = now()
    return (later - count) / (end - start)
