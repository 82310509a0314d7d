"""Whether Numba is there and works, without importing it where it has worked before.

A process that finds all machine code on the disk does not need it, and to import it takes as long
as all else before its first step. But where Numba does not go together with NumPy, say, the NumPy
backend computes in its place, which must be known at the beginning. So who compiles leaves a note.
"""

from __future__ import annotations

import importlib.util
import os
import sys

import numpy as np

from fastnn.interrupts import held_uncut

from ..machine import numba_setting
from . import cache


@held_uncut
def why_not() -> str | None:
    """Return why Numba compiles nothing in this process, None if it does.

    Raises what importing it raises.
    """
    if cache.kept(_name()) is None:
        import numba  # noqa: F401
    return "NUMBA_DISABLE_JIT is set" if numba_setting("DISABLE_JIT", 0) else None


def note_that_it_works() -> None:
    """Leave a note that Numba has compiled something."""
    if cache.kept(_name()) is None:
        cache.keep(_name(), b"")


def _name() -> str:
    """Return what the note is called: by all that may change without these sources."""
    found = importlib.util.find_spec("numba")
    place = found and found.origin
    installed = os.stat(place).st_mtime_ns if place else 0
    return f"Numba at {place} of {installed} with NumPy {np.__version__}, Python {sys.version}"
