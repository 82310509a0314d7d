"""The decorators for compiled functions, the one set of flags, the cache policy.

Compiled code is kept on disk, so that a process compiles only what no process
before it has compiled. Numba looks up a cached function by its name, signature and
CPU, and drops it when its own source file changes. It doesn't see that a function
which it calls lives in another file that changed, nor that an environment variable
asked for narrower vectors. `jit` therefore writes both into the function's qualified
name: a digest of every source file of this backend, and the vector width.
"""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils, sigutils
from numba.core.ccallback import CFunc
from numba.core.runtime.nrt import rtsys

from .machine import MACHINE

FLAGS: dict[str, Any] = {
    "nogil": True,  # other Python threads run on while a kernel does
    "boundscheck": False,  # sizes are checked before a kernel is called
    "error_model": "numpy",  # no branch for a division by zero
    "fastmath": {"contract", "nsz"},  # a*b + c may fuse; NaN and inf keep their meaning
}
"""Flags of every compiled function."""


def _digest_of_sources() -> str:
    """Return a short digest of every source file of this backend."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


_VARIANT = f"v{MACHINE.bits}_{_digest_of_sources()}"
_warned = False


def jit(function: Callable[..., Any]) -> Any:
    """Compile `function` when first called; keep the result on disk where that is possible."""
    function.__qualname__ = f"{function.__qualname__}_{_VARIANT}"
    try:
        dispatcher = numba.njit(cache=True, **FLAGS)(function)
    except RuntimeError as error:  # no cache directory can be written
        _warn_of_no_cache(error)
        return numba.njit(**FLAGS)(function)
    dispatcher._cache = _ForgivingCache(dispatcher._cache)
    return dispatcher


class _ForgivingCache:
    """A cache whose failures cost time, not the result: a full disk, a damaged file."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, signature: Any, target: Any) -> Any:
        try:
            return _load(self._cache, signature, target)
        except Exception as error:  # what a damaged file raises depends on where it is damaged
            _warn_of_no_cache(error)
            return None

    def save_overload(self, *arguments: Any) -> None:
        try:
            self._cache.save_overload(*arguments)
        except Exception as error:  # as above: it reads its index before it writes
            _warn_of_no_cache(error)


def _load(cache: Any, signature: Any, target: Any) -> Any:
    """Return what the cache holds, ready to run, or None.

    Numba's own `load_overload` first imports everything that it can compile, linear algebra and
    typed lists among it: 55 MB and half of a warm start. Code that is compiled already needs
    nothing but the symbols of the runtime.

    Two processes that compile a function at the same moment, each for another dtype, may choose
    one name for two files; then the index leads to code for other types, which would crash.
    """
    try:
        rtsys.initialize(target)
        load = cache._load_overload
    except AttributeError:  # a Numba that arranges this in another way
        load = cache.load_overload
    found = load(signature, target)
    asked, _ = sigutils.normalize_signature(signature)
    return found if found is not None and found.signature.args == asked else None


class Operation:
    """A compiled function that others call through its address.

    What calls it is compiled without it, and it is compiled when its address is first asked for,
    once for each dtype. So a function that offers many operations costs only those in use. A call
    takes a few nanoseconds more than that of a function known by name.

    It returns nothing. One of its parameters is called `record`, for the address of a record;
    those before it are numbers of the dtype, at least one, and those behind it integers.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        function.__qualname__ = f"{function.__qualname__}_{_VARIANT}"
        self._function = function
        self._compiled: dict[tuple[np.dtype[Any], np.dtype[Any]], Any] = {}

    def address(self, dtype: np.dtype[Any], record: np.dtype[Any]) -> int:
        """Return where the machine code for `dtype` begins, compiled or read from the cache.

        Parameters
        ----------
        dtype
            float32 or float64.
        record
            What lies at the address.
        """
        compiled = self._compiled.get((dtype, record))
        if compiled is None:
            compiled = self._compiled[dtype, record] = self._compile(dtype, record)
        return int(compiled.address)

    def _compile(self, dtype: np.dtype[Any], record: np.dtype[Any]) -> Any:
        names = list(inspect.signature(self._function).parameters)
        reals = names.index("record")
        arguments = (
            *[numba.from_dtype(dtype)] * reals,
            types.CPointer(numba.from_dtype(record)),
            *[types.int64] * (len(names) - reals - 1),
        )
        compiled: Any = CFunc(self._function, (arguments, types.void), {}, FLAGS)
        try:
            compiled.enable_caching()
            compiled._cache = _ForgivingCache(compiled._cache)
        except RuntimeError as error:  # no cache directory can be written
            _warn_of_no_cache(error)
        compiled.compile()
        return compiled


operation = Operation
"""Compile the decorated function when its address is first asked for."""

intrinsic: Any = extending.intrinsic


@intrinsic
def call(context, address, *arguments):
    """Call the operation at an address."""
    kinds = [types.int64 if isinstance(a, types.Integer) else a for a in arguments]

    def generate(context, builder, signature, values):
        code, packed = values
        codes = [
            context.cast(builder, value, given, kind)
            for value, given, kind in zip(
                cgutils.unpack_tuple(builder, packed), arguments, kinds, strict=True
            )
        ]
        called = ir.FunctionType(ir.VoidType(), [c.type for c in codes])
        builder.call(builder.inttoptr(code, called.as_pointer()), codes)
        return context.get_dummy_value()

    return types.void(types.int64, types.StarArgTuple.from_types(arguments)), generate


def _warn_of_no_cache(error: Exception) -> None:
    """Say once a process why kernels are compiled again."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"fastnn compiles its kernels anew in this process, as their cache failed: {error}. "
            "Set NUMBA_CACHE_DIR to a directory that can be written",
            RuntimeWarning,
            stacklevel=2,
        )


def jit_part(function: Callable[..., Any]) -> Any:
    """Make `function` a part of the compiled functions that call it.

    It has no machine code of its own. A function compiled apart would be optimised once by itself
    and once more in each of its callers, with every kernel in it.
    """
    return numba.njit(inline="always", **FLAGS)(function)


@jit_part
def record_at(address, number):
    """Record `number` of those at the address that an operation was given."""
    return numba.carray(address, number + 1)[number]  # type: ignore[attr-defined]
