"""The decorators for compiled functions, and how machine code comes to them.

A function, or a kernel, is compiled when it is first called in a process, for the types with which
it is called, if its machine code is not on the disk. `compiling/` says how, and imports Numba for
it; here is what happens without.
"""

from __future__ import annotations

import ctypes
import inspect
import os
import sys
import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import binding, ir

from fastnn import compilations
from fastnn.interrupts import held_uncut

from .compiling import cache
from .compiling.cache import TURN
from .compiling.joining import Part
from .compiling.objects import LINKER, Object, machine_code
from .compiling.presence import note_that_it_works
from .language import FLOATS, MATRIX, Kind, Matrix
from .machine import MACHINE
from .microkernel import (
    KERNELS,
    Microkernel,
    allow_fusing,
    name_of_its_own,
    without_unused_parameters,
)
from .microkernel import call as call
from .microkernel import record_at as record_at

INTEGER = np.dtype(np.int64)

_lock = threading.RLock()
"""Held while code is made or linked, so that no two threads do so with the same."""

_held_at_fork: list[Any] = []


@held_uncut
def _before_fork() -> None:
    """Wait for those who compile: a child would wait for ever for a thread that it doesn't have."""
    numba_lock = getattr(sys.modules.get("numba.core.compiler_lock"), "global_compiler_lock", None)
    for lock in (_lock, numba_lock):
        if lock is not None:
            lock.acquire()
            _held_at_fork.append(lock)


def _after_fork() -> None:
    while _held_at_fork:
        _held_at_fork.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )


# --------------------------------------------------------------------------- making and keeping


_objects: dict[str, Object | None] = {}
"""By symbol, what has been made or read; None of a kernel that is written into what calls it."""


def _object_of(symbol: str, make: Callable[[], Object | None]) -> Object | None:
    """Return an object from memory, from the disk, or made now."""
    if not _is_there(symbol):
        _objects[symbol] = _made(symbol, make)
    return _objects[symbol]


def _is_there(symbol: str) -> bool:
    """Say whether an object is in memory, into which it is read from the disk if it is there."""
    if symbol not in _objects and _is_ours(symbol):
        content = cache.kept(symbol)
        if content is not None:
            _objects[symbol] = Object.unpacked(content)
    return symbol in _objects


def _made(symbol: str, make: Callable[[], Object | None]) -> Object | None:
    *_, name, _, _ = symbol.split(".")
    compilations.tell(name)
    made = make()
    if made is not None and _is_ours(symbol):
        cache.keep(symbol, made.packed())
    return made


def _is_ours(symbol: str) -> bool:
    """Say whether the sources of a symbol are those on which the names of kept files depend.

    And whether it has none but these: see `name_of_its_own`.
    """
    return symbol.startswith(__package__ + ".") and "#" not in symbol


@held_uncut
def _add(symbol: str, found: Object | None) -> None:
    """Put an object into memory, after all that it needs."""
    assert found is not None
    if not LINKER.has(symbol):
        for needed in found.needs:
            _add(needed, _of_kernel(*KERNELS[needed]))
        LINKER.add(symbol, found.code)


@held_uncut
def _address(symbol: str, name: str) -> int:
    _add(symbol, _objects[symbol])
    return LINKER.address(name)


def _place(symbol: str, make: Callable[[], Object | None], suffix: str = "") -> int:
    """Return where machine code is in memory that is brought there from wherever it is now."""
    with _lock:
        if _is_there(symbol):
            return _address(symbol, symbol + suffix)
    # nobody waits for a thread that waits for another process
    with TURN.taken(), _lock:
        _object_of(symbol, make)
        return _address(symbol, symbol + suffix)


def _written(kernel: Microkernel, element: ir.Type) -> tuple[ir.Module, ir.Function]:
    """Return a kernel as the one function of a module of its own."""
    module = ir.Module(kernel.name(element))
    module.triple = binding.get_process_triple()
    return module, kernel.define(module, element)


def _of_kernel(kernel: Microkernel, element: ir.Type) -> Object | None:
    """Return the object of a kernel, None if it has none, as it is written into what calls it."""

    def make() -> Object | None:
        written = kernel_text(kernel, element)
        return written and Object(machine_code(written[0]), (), written[1])

    return _object_of(kernel.name(element), make)


def kernel_text(kernel: Microkernel, element: ir.Type) -> tuple[str, tuple[int, ...]] | None:
    """Return LLVM's text of a kernel that is compiled apart, and the numbers of its parameters.

    None if it has no loops, as it is written into what calls it.
    """
    module, function = _written(kernel, element)
    if len(function.blocks) == 1:
        return None
    used = without_unused_parameters(function)
    allow_fusing(function)
    return str(module), used


def _used_by(kernel: Microkernel, element: ir.Type) -> tuple[int, ...] | None:
    found = _of_kernel(kernel, element)
    return None if found is None else found.used


# ------------------------------------------------------------------------------------ functions


class Function:
    """A compiled function; it returns an integer or nothing.

    Parameters
    ----------
    function
        Its text.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function: Any = function
        self.__doc__ = function.__doc__
        self._name = name_of_its_own(function)
        self._addresses: dict[tuple[Kind, ...], int] = {}
        self._entries: dict[tuple[Kind, ...], Callable[..., int]] = {}

    @property
    def parameters(self) -> list[str]:
        """The names of its parameters."""
        return list(inspect.signature(self.function).parameters)

    @property
    def variants(self) -> int:
        """For how many kinds of arguments Python has called it."""
        return len(self._entries)

    def entry(self, kinds: Sequence[Kind]) -> Callable[..., int]:
        """Return the function as Python calls it, for arguments of these kinds.

        For what is None nothing is given, for a record its address, for a matrix five integers.
        """
        kinds = tuple(kinds)
        if kinds not in self._entries:
            address = self._linked(kinds, ".python")
            self._entries[kinds] = _callable(self.function.__name__, address)
        return self._entries[kinds]

    def _linked(self, kinds: tuple[Kind, ...], suffix: str = "") -> int:
        """Return the address of the machine code, or of that for Python."""
        symbol = f"{self._name}.{''.join(map(_letter, kinds))}.{MACHINE.vector_bits}"
        return _place(symbol, lambda: self._compiled(kinds, symbol), suffix)

    @held_uncut
    def _compiled(self, kinds: tuple[Kind, ...], symbol: str) -> Object:
        """Compile the function, or find out that it can't be.

        A Ctrl-C in the midst would leave half of what Numba imports, or has noted of a call: this
        process could compile nothing any more.
        """
        from .compiling.frontend import lowered

        done = lowered(self.function, kinds, symbol, _used_by)
        note_that_it_works()
        code = machine_code(*done.texts, entry=symbol, inlined=done.native)
        return Object(code, done.needs)

    def __call__(self, *arguments: Any) -> int:
        """Call it with Python's objects; `entry` saves looking at their types."""
        kinds = tuple(map(_kind, arguments))
        numbers: list[Any] = []
        for kind, argument in zip(kinds, arguments, strict=True):
            if kind == MATRIX:
                numbers += argument
            elif kind is not None:
                numbers.append(argument.ctypes.data if kind.names else argument)
        return self.entry(kinds)(*numbers)


def _letter(kind: Kind) -> str:
    """Return what stands for a kind in a symbol."""
    if kind is None:
        return "n"
    if kind.names is None:
        return kind.str[1:]
    return f"p{zlib.crc32(' '.join(kind.names).encode()):x}_{kind.itemsize}"


def _kind(argument: Any) -> Kind:
    """Return the kind of a Python object."""
    if argument is None:
        return None
    if isinstance(argument, Matrix):
        return MATRIX
    if isinstance(argument, np.ndarray):
        kind: np.dtype[Any] = argument.dtype
        return kind
    if isinstance(argument, (int, np.integer)):
        return INTEGER
    return np.dtype(type(argument))


jit = Function
"""Compile the decorated function when first called; keep the result on disk where possible."""

jit_part = Part
"""Make the decorated function a part of the compiled functions that call it."""


class Operation(Function):
    """A compiled function that others call through its address.

    What calls it is compiled without it, and it is compiled when its address is first asked for,
    once for each dtype. So a function that offers many operations costs only those in use. A call
    takes a few nanoseconds more than that of a function known by name.

    It returns nothing. One of its parameters is called `record`, for the address of a record;
    those before it are numbers of the dtype, at least one, and those behind it integers.
    """

    def address(self, dtype: np.dtype[Any], record: np.dtype[Any]) -> int:
        """Return where the machine code for `dtype` begins, compiled or read from the cache.

        Parameters
        ----------
        dtype
            float32 or float64.
        record
            What lies at the address.
        """
        names = self.parameters
        reals = names.index("record")
        kinds = (*[dtype] * reals, record, *[INTEGER] * (len(names) - reals - 1))
        if kinds not in self._addresses:
            self._addresses[kinds] = self._linked(kinds)
        return self._addresses[kinds]


operation = Operation
"""Compile the decorated function when its address is first asked for."""


class KernelOperation:
    """A microkernel that others call through its address.

    The kernel language writes it and LLVM compiles it; Numba has no part in that. So it may be made
    in a loop over a table, and compiles in a few hundredths of a second, when its address is first
    asked for.

    Parameters
    ----------
    write
        The function that writes the kernel; it returns nothing.
    name
        What no other kernel is called.
    """

    def __init__(self, write: Callable[..., None], name: str) -> None:
        write.__qualname__ = name
        self._kernel = Microkernel.of(write)
        self._addresses: dict[np.dtype[Any], int] = {}

    def address(self, dtype: np.dtype[Any]) -> int:
        """Return where the machine code for float32 or float64 begins."""
        if dtype not in self._addresses:
            element = FLOATS[dtype]
            place = _place(self._kernel.name(element), lambda: self._compiled(element))
            self._addresses[dtype] = place
        return self._addresses[dtype]

    def entry(self, dtype: np.dtype[Any]) -> Callable[..., None]:
        """Return the kernel as Python calls it, which gives it numbers, five for each matrix.

        Other threads of Python run meanwhile.
        """
        element = FLOATS[dtype]
        real = ctypes.c_double if element == FLOATS[np.dtype(np.float64)] else ctypes.c_float
        codes = self._kernel.signature(element).args
        kinds = [real if code == element else ctypes.c_int64 for code in codes]
        return ctypes.CFUNCTYPE(None, *kinds)(self.address(dtype))

    def _compiled(self, element: ir.Type) -> Object:
        module, _ = _written(self._kernel, element)
        return Object(machine_code(str(module)))


# ---------------------------------------------------------------------- called from Python


class _Method(ctypes.Structure):
    """Python's PyMethodDef."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


_FASTCALL = 0x0080
_methods: list[_Method] = []
"""They must stay where they are."""

_new_function: Any = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.POINTER(_Method), ctypes.c_void_p, ctypes.c_void_p
)(("PyCFunction_NewEx", ctypes.pythonapi))

PYTHON_FUNCTIONS = (
    "PyFloat_AsDouble", "PyLong_AsLongLong", "PyErr_Occurred", "PyErr_BadArgument",
    "PyEval_SaveThread", "PyEval_RestoreThread", "PyLong_FromLongLong",
    "PyMem_RawMalloc", "PyMem_RawFree",
)  # fmt: skip
"""What functions call of Python's; see `compiling/frontend.py` and `layerwise/dense.py`."""

for _name in PYTHON_FUNCTIONS:
    _pointer = ctypes.cast(getattr(ctypes.pythonapi, _name), ctypes.c_void_p)
    binding.add_symbol(_name, _pointer.value)


def _callable(name: str, address: int) -> Callable[..., int]:
    """Return the Python function whose machine code begins at an address."""
    method = _Method(name.encode(), address, _FASTCALL, None)
    _methods.append(method)
    function: Callable[..., int] = _new_function(ctypes.byref(method), None, None)
    return function
