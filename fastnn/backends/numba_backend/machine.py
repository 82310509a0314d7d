"""What this machine is, for bug reports."""

from __future__ import annotations

import os

from llvmlite import binding

from fastnn.backends.numba_backend.dense import affine


def vector_bits() -> int:
    """Return the width of the widest vector registers that LLVM knows of on this CPU."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 512
    if features.get("avx2") or features.get("avx"):
        return 256
    return 128


def describe() -> dict[str, str]:
    """Return facts about CPU, vectors and the cache of compiled kernels, by name."""
    cache = affine.stats.cache_path
    writable = cache is not None and os.access(_existing(cache), os.W_OK)
    return {
        "cpu": binding.get_host_cpu_name(),
        "vectors": f"{vector_bits()} bits",
        "cache": f"{cache} ({'writable' if writable else 'NOT writable'})" if cache else "none",
    }


def _existing(path: str) -> str:
    """Return the closest directory above `path` that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path
