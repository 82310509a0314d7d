"""What `fastnn info` says of this backend, for bug reports."""

from __future__ import annotations

from llvmlite import binding

from fastnn.processors import model_name, usable_cores

from .compiling.cache import directory
from .epoch.meetings import MOST_MEMBERS
from .machine import HAS_BFLOAT16, MACHINE


def describe() -> dict[str, str]:
    """Return facts about CPU, vectors and the cache of compiled kernels, by name."""
    cache = directory()
    return {
        "llvm": ".".join(map(str, binding.llvm_version_info)),
        "cpu": f"{model_name()} ({binding.get_host_cpu_name()})",
        "vectors": f"{MACHINE.vector_bits} bits",
        "bfloat16": "multiplied by the processor" if HAS_BFLOAT16 else "emulated in float32",
        "threads": f"{min(2, usable_cores())} for training steps that are large enough; "
        f"FASTNN_NUM_THREADS asks for up to {MOST_MEMBERS}",
        "cache": str(cache)
        if cache
        else "none: no directory can be written; set NUMBA_CACHE_DIR to one that can",
    }
