"""The one decorator of every kernel, with the one set of flags and the cache policy."""

from __future__ import annotations

import warnings
from typing import Any

import numba

FLAGS: dict[str, Any] = {
    # Callers have checked shapes and indices; a check an element costs more than the arithmetic.
    "boundscheck": False,
    # Division by zero gives infinity, as in NumPy, and no branch that would stop vectorisation.
    "error_model": "numpy",
    # Kernels touch no Python object, so other Python threads run meanwhile.
    "nogil": True,
}

FUSED = {"nsz", "contract"}
"""Multiplication and addition may become one operation. NaN and infinity keep their meaning:
"nnan" and "ninf" would let the compiler drop the tests for them."""

REORDERED = FUSED | {"reassoc"}
"""Sums may also be reordered, without which the sum of a loop is never vectorised."""


def jit(function):
    """Compile `function` when it is first called, and cache the result on disk if possible."""
    return _compiled(function, FUSED)


def jit_reordered(function):
    """As `jit`, and sums may be reordered: not where parentheses keep small from large."""
    return _compiled(function, REORDERED)


def _compiled(function, fastmath):
    try:
        return numba.njit(cache=True, fastmath=fastmath, **FLAGS)(function)
    except RuntimeError as error:
        # Numba raises this at decoration where no cache directory is writable.
        warnings.warn(
            f"kernels are compiled anew in each process: {error}; "
            "set NUMBA_CACHE_DIR to a directory that can be written",
            RuntimeWarning,
            stacklevel=3,
        )
        return numba.njit(fastmath=fastmath, **FLAGS)(function)
