"""What `fastnn info` says of this backend, for bug reports."""

from __future__ import annotations

import os

from llvmlite import binding

from fastnn.processors import model_name, usable_cores

from .epoch.meetings import MOST_MEMBERS
from .layerwise.dense import product
from .machine import MACHINE


def describe() -> dict[str, str]:
    """Return facts about CPU, vectors and the cache of compiled kernels, by name."""
    cache = product.stats.cache_path
    writable = cache is not None and os.access(_existing(cache), os.W_OK)
    return {
        "cpu": f"{model_name()} ({binding.get_host_cpu_name()})",
        "vectors": f"{MACHINE.vector_bits} bits",
        "threads": f"{min(2, usable_cores())} for training steps that are large enough; "
        f"FASTNN_NUM_THREADS asks for up to {MOST_MEMBERS}",
        "cache": f"{cache} ({'writable' if writable else 'NOT writable'})"
        if cache
        else "none: no directory can be written; set NUMBA_CACHE_DIR to one that can",
    }


def _existing(path: str) -> str:
    """Return the closest directory above `path` that exists."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path
