"""Numba: from the text of a function to the instructions of LLVM.

By `lean.py`, if everything of Numba's is where that expects it and the function has a text; else by
Numba's own pipeline and inlining, of which the result is read by `inspect_llvm`. That takes three
times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, NamedTuple

import numba
from llvmlite import ir
from numba import types

from ..language import FLOATS, INT64, MATRIX, Kind
from ..microkernel import FUSING, Intrinsic, Microkernel
from . import intrinsics
from .intrinsics import Calls, Used
from .joining import Part, joined

lean: Any
try:
    from . import lean

    MOVED: Any = lean.MOVED
except ImportError:
    lean, MOVED = None, ()

FLAGS: dict[str, Any] = {
    "boundscheck": False,  # sizes are checked before a kernel is called
    "error_model": "numpy",  # no branch for a division by zero
    "fastmath": set(FUSING),
}
"""Flags of every compiled function."""


class Lowered(NamedTuple):
    """What LLVM is to compile."""

    texts: tuple[str, str]
    """What Numba has made of the function, and what calls that."""
    native: str
    """The function in Numba's own convention."""
    needs: tuple[str, ...]
    """Symbols of kernels."""


def lowered(
    function: Callable[..., Any], kinds: Sequence[Kind], symbol: str, used_of: Used
) -> Lowered:
    """Compile a function for arguments of these kinds, to the two functions of `_callers`."""
    made = _leanly(function, kinds, used_of) if lean else None
    if made is None:
        made = _ordinarily(function, kinds)
    return Lowered((made.text, _callers(symbol, made, kinds)), made.name, made.needs)


def _numba_type(kind: Kind) -> Any:
    if kind is None:
        return types.none
    if kind == MATRIX:
        return intrinsics.MATRIX_TYPE
    of: Any = numba.from_dtype(kind)
    return of if kind.names is None else types.CPointer(of)


def _codes(kind: Kind) -> list[ir.Type]:
    """Return LLVM's types of an argument; an address is an integer here."""
    if kind is None:
        return []
    if kind == MATRIX:
        return [INT64] * len(kind.names or ())
    return [FLOATS.get(kind, INT64)]


class _Made(NamedTuple):
    """What Numba has made of a function."""

    text: str
    name: str
    """Of the function in the text."""
    result: Any
    """Numba's type of it."""
    takes_none: bool
    """Whether it has parameters for arguments that are None."""
    needs: tuple[str, ...]
    """Symbols of kernels that are compiled apart."""


def _leanly(function: Callable[..., Any], kinds: Sequence[Kind], used_of: Used) -> _Made | None:
    """Return what `lean.py` makes of a function, None where it can't."""
    names = function.__code__.co_varnames
    given = {name: None for name, kind in zip(names, kinds, strict=False) if kind is None}
    try:
        text = joined(function, given)
    except OSError:
        return None
    taken = _copy(text, {name: _meaning(value) for name, value in text.__globals__.items()})
    arguments = tuple(_numba_type(kind) for kind in kinds if kind is not None)
    Calls.now = calls = Calls(used_of)
    try:
        made, name, result, elsewhere = lean.instructions(taken, arguments, FLAGS)
    except MOVED:
        if calls.failure is not None:
            raise calls.failure from None
        return None
    if elsewhere - calls.needed:  # functions that Numba would compile and add
        return None
    return _Made(made, name, result, False, tuple(sorted(calls.needed)))


def _copy(function: Any, meanings: dict[str, Any]) -> FunctionType:
    """Return a function with other globals."""
    result = FunctionType(
        function.__code__, meanings, function.__name__, function.__defaults__, function.__closure__
    )
    result.__module__, result.__qualname__ = function.__module__, function.__qualname__
    return result


def _meaning(value: Any) -> Any:
    """Return what Numba takes for a global of a function."""
    if isinstance(value, Microkernel):
        return intrinsics.kernel_function(value)
    return intrinsics.meaning_of(value) if isinstance(value, Intrinsic) else value


# ------------------------------------------------------------------------------ the ordinary way


def _ordinarily(function: Callable[..., Any], kinds: Sequence[Kind]) -> _Made:
    """Return the same as `_leanly`, by Numba's own pipeline and inlining; kernels are in it."""
    Calls.now = Calls(lambda kernel, element: None)
    dispatcher = numba.njit(**FLAGS)(_with_meanings(function))
    signature = tuple(map(_numba_type, kinds))
    dispatcher.compile(signature)
    described = dispatcher.overloads[signature].fndesc
    text = dispatcher.inspect_llvm(signature)
    return _Made(text, described.llvm_func_name, described.restype, True, ())


def _with_meanings(function: Any) -> FunctionType:
    """Return a function whose globals are what Numba takes for them, parts among them."""
    meanings = {}
    for name, value in function.__globals__.items():
        if isinstance(value, Part) and name in function.__code__.co_names:
            part = numba.njit(inline="always", **FLAGS)(_with_meanings(value.function))
            meanings[name] = part
        else:
            meanings[name] = _meaning(value)
    return _copy(function, meanings)


# ------------------------------------------------------------------- what calls Numba's function


def _callers(symbol: str, made: _Made, kinds: Sequence[Kind]) -> str:
    """Return the text of two functions: `symbol`, for C, and `symbol`.python, for Python.

    Numba's function returns whether it has failed, which these can't, and puts its result where it
    is told. Python calls by its own convention for functions of C (METH_FASTCALL), without its
    lock while the function runs.
    """
    result = types.unliteral(made.result)  # a constant is of a type of its own
    if result not in (types.int64, types.none):
        raise TypeError(f"{symbol} must return an integer or nothing, not {result}")
    codes = [str(code) for kind in kinds for code in _codes(kind)]
    given = ", ".join(f"{code} %a{i}" for i, code in enumerate(codes))
    pointers, passed, number = "", ["ptr %result", "ptr %error"], 0
    for kind in kinds:
        if kind is None:
            passed += ["ptr null"] * made.takes_none
        elif kind.names is not None and kind != MATRIX:
            pointers += f"  %r{number} = inttoptr i64 %a{number} to ptr\n"
            passed.append(f"ptr %r{number}")
            number += 1
        else:
            passed += [f"{code} %a{number + i}" for i, code in enumerate(_codes(kind))]
            number += len(_codes(kind))
    unpacked = "\n".join(_unpacked(i, code) for i, code in enumerate(codes))
    return f"""
define i64 @"{symbol}"({given}) {{
  %result = alloca i64
  %error = alloca ptr
  store i64 0, ptr %result
{pointers}  %status = call i32 @"{made.name}"({", ".join(passed)})
  %value = load i64, ptr %result
  ret i64 {"%value" if result == types.int64 else "0"}
}}

define ptr @"{symbol}.python"(ptr %self, ptr %arguments, i64 %count) {{
  %fits = icmp eq i64 %count, {len(codes)}
  br i1 %fits, label %unpack, label %wrong
wrong:
  call i32 @PyErr_BadArgument()
  ret ptr null
unpack:
{unpacked}
  %raised = call ptr @PyErr_Occurred()
  %fine = icmp eq ptr %raised, null
  br i1 %fine, label %run, label %failed
failed:
  ret ptr null
run:
  %thread = call ptr @PyEval_SaveThread()
  %value = call i64 @"{symbol}"({given})
  call void @PyEval_RestoreThread(ptr %thread)
  %object = call ptr @PyLong_FromLongLong(i64 %value)
  ret ptr %object
}}

declare i32 @"{made.name}"({", ".join(code.split()[0] for code in passed)})
declare ptr @PyErr_Occurred()
declare i32 @PyErr_BadArgument()
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyLong_FromLongLong(i64)
declare double @PyFloat_AsDouble(ptr)
declare i64 @PyLong_AsLongLong(ptr)
"""


def _unpacked(number: int, code: str) -> str:
    """Return the text that makes a number of one of Python's objects."""
    place = f"""  %p{number} = getelementptr ptr, ptr %arguments, i64 {number}
  %o{number} = load ptr, ptr %p{number}
"""
    if code == "i64":
        return f"{place}  %a{number} = call i64 @PyLong_AsLongLong(ptr %o{number})"
    if code == "double":
        return f"{place}  %a{number} = call double @PyFloat_AsDouble(ptr %o{number})"
    return f"""{place}  %d{number} = call double @PyFloat_AsDouble(ptr %o{number})
  %a{number} = fptrunc double %d{number} to float"""
