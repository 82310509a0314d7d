"""The checked build: what kernels may touch, and who touched what else.

With FASTNN_CHECKED=1 a kernel looks up, where it begins, into which stretch of memory each of its
addresses points, and compares each load and store through that address with it (`Bounds` and
`Kernel._checked` in `language.py`). Python says before a call which stretches there are, each a
buffer, a part of the workspace, a parameter or an array of the caller's: `Ranges`. What is out of
bounds is not done; it is noted, with the name of kernel and parameter, and raised as
`OutOfBoundsError` when the call is over. A kernel that is called outside of `watched` is not
compared with anything.

The stretches are those of one thread, found by `pthread_getspecific`. They lie in a `notebook` of
integers: how many there are, the first violation, memory to which such accesses are turned aside,
and then the stretches. Two functions, written in the kernel language itself, read and write it.

What the language does not emit is not compared: records of tables, which compiled functions read
as arrays of Numba, and array objects of NumPy. Records lie between protected pages (`guards.py`).
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from llvmlite import binding, ir

from fastnn import memory
from fastnn.guards import CHECKED, FILL, OutOfBoundsError, check_guards

from .language import ALLOW, FIND_RANGE, FLOAT, INT64, RANGE_FIELDS, REPORT, Int, Kernel

COUNT, VIOLATIONS, FILLING, NOTED = 0, 1, 2, 3
"""Places in a notebook: of the number of stretches, that of violations, the byte with which scratch
memory is filled, and the first violation."""
NOTED_FIELDS = 6
"""Text, address, length, begin, end, and whether it was a store."""
ASIDE = 32
"""Where memory begins to which accesses are turned aside; they are aligned and may be 128 bytes."""
RANGES = 96
"""Where stretches begin."""
MOST_RANGES = 4096

EVERYWHERE = np.array([0, -1, -1], np.int64)
"""The stretch of a thread that nobody watches; -1 is the largest number without a sign."""
NOWHERE = np.array([1, 0, 0], np.int64)
"""That of an address which points into no stretch."""


class Range(NamedTuple):
    """A stretch of memory: where it begins and ends, what it is called, whether it is written."""

    begin: int
    end: int
    name: str
    writeable: bool = True

    @classmethod
    def of(cls, array: np.ndarray, name: str, writeable: bool = True) -> Range:
        """Return the stretch from the first to the last byte of an array, gaps included."""
        begin, end = np.lib.array_utils.byte_bounds(array)
        return cls(begin, end, name, writeable and array.flags.writeable)


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Return stretches in order; those that overlap, as views of one array do, become one."""
    result: list[Range] = []
    for new in sorted(r for r in ranges if r.begin < r.end):
        last = result[-1] if result else None
        if last is None or new.begin >= last.end:
            result.append(new)
        else:
            name = last.name if new.name == last.name else f"{last.name} and {new.name}"
            end, writeable = max(last.end, new.end), last.writeable or new.writeable
            result[-1] = Range(last.begin, end, name, writeable)
    return result


# ------------------------------------------------------------- what the kernels call


def _find_range(k: Kernel, notebook: Int, address: Int) -> Int:
    """Return the address of the stretch into which an address points."""
    found = k.variable(k.integer(NOWHERE.ctypes.data))
    with k.if_else(notebook.equals(0)) as (unwatched, watched):
        with unwatched:
            found[0] = k.integer(EVERYWHERE.ctypes.data)
        with watched, k.loop(0, k.load_integer(notebook + 8 * COUNT)) as number:
            place = notebook + 8 * RANGES + number * (8 * RANGE_FIELDS)
            inside = (address < k.load_integer(place + 8)) & (k.load_integer(place) < address + 1)
            with k.when(inside):
                found[0] = place
    return found[0]


def _report(k: Kernel, notebook: Int, *noted: Int) -> Int:
    """Note the first violation; return where to turn it aside to."""
    before = k.load_integer(notebook + 8 * VIOLATIONS)
    with k.when(before.equals(0)):
        for number, value in enumerate(noted):
            k.store_integer(value, notebook + 8 * (NOTED + number))
    k.store_integer(before + 1, notebook + 8 * VIOLATIONS)
    return notebook + 8 * ASIDE


def _allow(k: Kernel, notebook: Int, address: Int, nbytes: Int) -> Int:
    """Add a stretch to those of the thread, and fill it."""
    with k.when(notebook.differs(0)):
        byte = k.builder.trunc(k.load_integer(notebook + 8 * FILLING).code, ir.IntType(8))
        with k.loop(0, nbytes) as i:
            k.store_as(byte, address + i, 1)
        count = k.load_integer(notebook + 8 * COUNT)
        with k.when(count < MOST_RANGES):
            place = notebook + 8 * RANGES + count * (8 * RANGE_FIELDS)
            for field, value in enumerate((address, address + nbytes, address + nbytes)):
                k.store_integer(value, place + 8 * field)
            k.store_integer(count + 1, notebook + 8 * COUNT)
    return address


def _define(module: ir.Module, write: Callable[..., Int], name: str, count: int, key: int) -> None:
    """Write a function of `count` integers that begins with getting the notebook of its thread."""
    function = ir.Function(module, ir.FunctionType(INT64, [INT64] * count), name)
    kernel = Kernel(ir.IRBuilder(function.append_basic_block()), FLOAT)
    key_type = ir.IntType(8 * ctypes.sizeof(_Key))
    get = module.globals.get("pthread_getspecific") or ir.Function(
        module, ir.FunctionType(INT64, [key_type]), "pthread_getspecific"
    )
    notebook = Int(kernel, kernel.builder.call(get, [ir.Constant(key_type, key)]))
    result = write(kernel, notebook, *[Int(kernel, argument) for argument in function.args])
    kernel.builder.ret(result.code)


_Key = ctypes.c_ulong if sys.platform == "darwin" else ctypes.c_uint
_state: dict[str, Any] = {}


def _install() -> None:
    """Compile the functions that kernels call and make them known by their names."""
    library = ctypes.PyDLL(None)
    key = _Key()
    if library.pthread_key_create(ctypes.byref(key), None) != 0:
        raise MemoryError("no more keys for data of threads")
    library.pthread_setspecific.argtypes = (_Key, ctypes.c_void_p)
    library.pthread_getspecific.argtypes = (_Key,)
    library.pthread_getspecific.restype = ctypes.c_void_p
    module = ir.Module("fastnn_checked")
    module.triple = binding.get_process_triple()
    _define(module, _find_range, FIND_RANGE, 1, key.value)
    _define(module, _report, REPORT, NOTED_FIELDS, key.value)
    _define(module, _allow, ALLOW, 2, key.value)
    machine = binding.Target.from_triple(module.triple).create_target_machine(opt=2, jit=True)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
    engine.finalize_object()
    for name in (FIND_RANGE, REPORT, ALLOW):
        binding.add_symbol(name, engine.get_function_address(name))
    _state.update(library=library, key=key, engine=engine)


if CHECKED:
    _install()

_of_thread = threading.local()


@contextmanager
def watched(ranges: Iterable[Range]) -> Iterator[None]:
    """Compare what kernels do in this thread, inside the block, with these stretches.

    Raises
    ------
    OutOfBoundsError
        When the block is over, if a kernel would have touched anything else, or if somebody has
        written beside a buffer.
    """
    if not hasattr(_of_thread, "notebook"):
        # aligned, as are vectors that are turned aside
        size = RANGES + RANGE_FIELDS * MOST_RANGES
        _of_thread.notebook = memory.aligned_zeros(size, np.dtype(np.int64))
    notebook, known = _of_thread.notebook, joined(ranges)
    if len(known) > MOST_RANGES:
        raise ValueError(f"ranges: expected at most {MOST_RANGES}, got {len(known)}")
    notebook[:RANGES] = 0
    notebook[COUNT] = len(known)
    notebook[FILLING] = 0 if FILL == "00" else 0xFF
    stretches = [(r.begin, r.end, r.end if r.writeable else 0) for r in known]
    notebook[RANGES : RANGES + RANGE_FIELDS * len(known)] = np.ravel(stretches)
    library, key = _state["library"], _state["key"]
    before = library.pthread_getspecific(key)
    library.pthread_setspecific(key, notebook.ctypes.data)
    try:
        yield
    finally:
        library.pthread_setspecific(key, before)
    if notebook[VIOLATIONS]:
        noted = notebook[NOTED : NOTED + NOTED_FIELDS].tolist()
        raise OutOfBoundsError(_described(known, *noted))
    check_guards()


def _described(
    known: list[Range], text: int, address: int, length: int, begin: int, end: int, store: int
) -> str:
    """Return what is said of a violation."""
    kernel, parameter = ctypes.string_at(text).decode().split("\n")
    kernel = kernel.split("numba_backend.")[-1]
    what = f"{kernel}: a {'store' if store else 'load'} of {length} bytes through {parameter}"
    if begin >= end:
        return f"{what} at {_beside(known, address)}, which is in nothing that the call was given"
    scratch = Range(begin, end, "scratch memory")
    memory = next((r for r in known if r.begin == begin), scratch)
    if store and not memory.writeable:
        return f"{what} to {memory.name}, which is only read"
    place = f"{what} at byte {address - begin} of {memory.name}"
    if begin <= address <= end - length:
        return f"{place}, which is not aligned"
    return f"{place}, which has {end - begin}"


def _beside(known: list[Range], address: int) -> str:
    """Return where an address lies, told from the memory that is nearest."""

    def distance(memory: Range) -> int:
        return max(memory.begin - address, address - memory.end)

    nearest = min(known, key=distance, default=None)
    if nearest is None:
        return f"{address:#x}"
    where = "before the begin" if address < nearest.begin else "behind the end"
    return f"{distance(nearest)} bytes {where} of {nearest.name}"
