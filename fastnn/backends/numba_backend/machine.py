"""What this machine is, for bug reports."""

from __future__ import annotations

import os
import platform

from llvmlite import binding

from fastnn.backends.numba_backend.dense import product
from fastnn.backends.numba_backend.simd import MACHINE
from fastnn.backends.numba_backend.threads import MOST_MEMBERS, cores


def describe() -> dict[str, str]:
    """Return facts about CPU, vectors and the cache of compiled kernels, by name."""
    cache = product.stats.cache_path
    writable = cache is not None and os.access(_existing(cache), os.W_OK)
    return {
        "cpu": f"{_model_name()} ({binding.get_host_cpu_name()})",
        "vectors": f"{MACHINE.bits} bits",
        "threads": f"{min(2, len(cores()))} for training steps that are large enough; "
        f"FASTNN_NUM_THREADS asks for up to {MOST_MEMBERS}",
        "cache": f"{cache} ({'writable' if writable else 'NOT writable'})"
        if cache
        else "none: no directory can be written; set NUMBA_CACHE_DIR to one that can",
    }


def _model_name() -> str:
    """Return what the CPU calls itself."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = (line.partition(":") for line in file)
            return next(value.strip() for name, _, value in lines if name.strip() == "model name")
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _existing(path: str) -> str:
    """Return the closest directory above `path` that exists."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path
