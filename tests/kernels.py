"""The kernels of the compiled backend, for tests of them all."""

from __future__ import annotations

import gc
import importlib
import pkgutil

import fastnn.backends.numba_backend as package
from fastnn.backends.numba_backend.microkernel import Microkernel


def all_kernels() -> list[Microkernel]:
    """Return every kernel that a module of the backend makes, wherever it is kept."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    gc.unfreeze()  # what is frozen, as by conftest.py, is not among the objects
    kernels = [thing for thing in gc.get_objects() if type(thing) is Microkernel]
    gc.freeze()
    return [kernel for kernel in kernels if kernel.write.__module__.startswith(package.__name__)]
