"""The decorators for compiled functions, the one set of flags, the cache policy.

Compiled code is kept on disk, so that a process compiles only what no process
before it has compiled. Numba looks up a cached function by its name, signature and
CPU, and drops it when its own source file changes. It doesn't see that a function
which it calls lives in another file that changed, nor that an environment variable
asked for narrower vectors, or for the checked build. `jit` therefore writes all of it into the
function's qualified name: a digest of every source file of this backend, the vector width, and
whether kernels are checked.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import os
import pickle
import re
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, sigutils
from numba.core.caching import IndexDataCacheFile
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.core.errors import TypingError
from numba.core.registry import cpu_target
from numba.core.runtime.nrt import rtsys

from fastnn.guards import CHECKED
from fastnn.interrupts import held_uncut
from fastnn.locks import locked

from .language import DOUBLE, FLOAT
from .machine import MACHINE, target_cpu
from .microkernel import Microkernel, flattened, intrinsic

FLAGS: dict[str, Any] = {
    "nogil": True,  # other Python threads run on while a kernel does
    "boundscheck": False,  # sizes are checked before a kernel is called
    "error_model": "numpy",  # no branch for a division by zero
    "fastmath": {"contract", "nsz"},  # a*b + c may fuse; NaN and inf keep their meaning
}
"""Flags of every compiled function."""


def _digest_of_sources() -> str:
    """Return a short digest of every source file of this backend, or what is there in its place."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob(f"*{Path(__file__).suffix}")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


_VARIANT = f"v{MACHINE.vector_bits}{'_checked' if CHECKED else ''}_{_digest_of_sources()}"
_warned = False


def jit(function: Callable[..., Any]) -> Any:
    """Compile `function` when first called; keep the result on disk where that is possible."""
    function.__qualname__ = f"{function.__qualname__}_{_VARIANT}"
    try:
        dispatcher = numba.njit(cache=True, **FLAGS)(function)
    except RuntimeError as error:  # no cache directory can be written
        _warn_of_no_cache(error)
        _be_ready_to_compile()
        return numba.njit(**FLAGS)(function)
    return _with_cache(dispatcher)


def _with_cache(compiled: Any) -> Any:
    """Return a function of Numba's that has a cache; it compiles while no other process does."""
    compile = compiled.compile
    compiled._cache = _ForgivingCache(compiled._cache)

    def compile_in_turn(*signature: Any) -> Any:
        with global_compiler_lock:  # one thread; of those that wait for a turn as well
            nested = TURN.taken
            try:
                return compile(*signature)
            finally:
                if not nested:
                    TURN.give_back()

    compiled.compile = compile_in_turn
    return compiled


class _Turn:
    """The right to compile, which one process has at a time of those that share a cache.

    So what many begin at the same moment, as the workers of a cluster do, is compiled once; the
    others find it on the disk. It goes back by itself when a process dies. Where there are no
    locks, all compile.
    """

    def __init__(self) -> None:
        self._file: Any = None
        self._patient = True

    @property
    def taken(self) -> bool:
        """Whether this process has it."""
        return self._file is not None

    def take(self) -> None:
        """Wait for it, or until waiting has taken longer than to compile everything."""
        directory = None if self.taken else _cache_directory()
        if directory is None:
            return
        end = time.monotonic() + LONGEST_WAIT * self._patient
        with contextlib.suppress(OSError):  # a directory that can't be written, or without locks
            directory.mkdir(parents=True, exist_ok=True)
            file = (directory / "fastnn.lock").open("ab")
            try:
                while not (has_lock := locked(file.fileno())) and time.monotonic() < end:
                    time.sleep(0.02)
            except BaseException:
                file.close()
                raise
            if not has_lock and self._patient:
                # who holds it may have been stopped; not as long for every function
                self._patient = False
                warnings.warn(
                    f"another process has not compiled its kernels for {LONGEST_WAIT:g} s; this "
                    f"one no longer waits for it (the lock is {directory / 'fastnn.lock'})",
                    RuntimeWarning,
                    stacklevel=2,
                )
            self._file = file

    def give_back(self) -> None:
        """Let others have it."""
        if self.taken:
            self._file.close()
            self._file = None


TURN = _Turn()
LONGEST_WAIT = 120.0
"""Seconds."""


class _SealedFiles(IndexDataCacheFile):
    """Files of a cache that begin with a digest of what follows, and of what it is for.

    One that is damaged, or for another CPU or Numba, counts as missing, and is made anew. Numba
    alone would unpickle it, and run what comes of it: after a crash of the machine that may be
    anything, and where processes on two kinds of CPU write to one directory at the same moment, the
    index of one may lead to the code of the other.
    """

    def _load_index(self) -> dict[Any, str]:
        content = self._content(self._index_path)
        stamp, overloads = (None, {}) if content is None else pickle.loads(content)
        return overloads if stamp == self._source_stamp else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        self._write(self._index_path, (self._source_stamp, overloads))

    def _load_data(self, name: str) -> Any:
        content = self._content(self._data_path(name))
        if content is None:
            raise FileNotFoundError  # which `load` takes for a file that was removed
        return pickle.loads(content)

    def _save_data(self, name: str, data: Any) -> None:
        self._write(self._data_path(name), data)

    def _write(self, path: str, data: Any) -> None:
        content = self._dump(data)
        with self._open_for_write(path) as file:
            file.write(_sealed(content, *self._purpose(path)))

    def _content(self, path: str) -> bytes | None:
        try:
            return _opened(Path(path).read_bytes(), *self._purpose(path))
        except FileNotFoundError:
            return None

    def _purpose(self, path: str) -> tuple[str, ...]:
        # all CPUs have one index, and code of their own
        return numba.__version__, *(() if path == self._index_path else target_cpu())


def _sealed(content: bytes, *purpose: str) -> bytes:
    """Return content behind its digest, which depends on what it is for."""
    return hashlib.sha256("\n".join(purpose).encode() + content).digest() + content


def _opened(sealed: bytes, *purpose: str) -> bytes | None:
    """Return what was sealed, None if it is not whole, or for another purpose."""
    content = sealed[32:]
    return content if _sealed(content, *purpose) == sealed else None


class _ForgivingCache:
    """A cache whose failures cost time, not the result: a full disk, a damaged file."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        if type(getattr(cache, "_cache_file", None)) is IndexDataCacheFile:
            cache._cache_file.__class__ = _SealedFiles

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, signature: Any, target: Any) -> Any:
        found = self._loaded(signature, target)
        if found is None and not TURN.taken:
            TURN.take()
            found = self._loaded(signature, target)  # another process may have been sooner
        if found is None:
            _be_ready_to_compile()
        return found

    def _loaded(self, signature: Any, target: Any) -> Any:
        try:
            return _load(self._cache, signature, target)
        except Exception as error:  # what a damaged file raises depends on where it is damaged
            _warn_of_no_cache(error)
            return None

    def save_overload(self, *arguments: Any) -> None:
        try:
            self._cache.save_overload(*arguments)
            _remove_old(Path(self._cache.cache_path))
        except Exception as error:  # as above: it reads its index before it writes
            _warn_of_no_cache(error)


OLD = 60 * 86400.0
"""Seconds since a file of the cache was last read: what has not been for so long is removed, if it
is of another version of these sources."""

_cleared: set[Path] = set()

_OURS = re.compile(r"_v[0-9]+(_checked)?_[0-9a-f]{12}-.*\.nb[ic]$|^fastnn-[0-9a-f]{32}\.o$")
"""Names of files in the cache."""


def _remove_old(directory: Path) -> None:
    """Remove what other versions have left in a directory; once a process, where it compiles."""
    if directory in _cleared:
        return
    _cleared.add(directory)
    latest = time.time() - OLD
    with contextlib.suppress(OSError):  # another process may do so as well
        for file in directory.iterdir():
            if _OURS.search(file.name) and f"_{_VARIANT}-" not in file.name:
                used = file.stat()
                if max(used.st_atime, used.st_mtime) < latest:
                    file.unlink()


@held_uncut
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


@held_uncut
def _be_ready_to_compile() -> None:
    """Have Numba import all that it compiles with, which it does as a rule within a compilation.

    A Ctrl-C in the midst of it would leave half of it for good: no function could be compiled in
    this process any more, as what is there already would be registered twice.
    """
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()


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
            _with_cache(compiled)
        except RuntimeError as error:  # no cache directory can be written
            _warn_of_no_cache(error)
            _be_ready_to_compile()
        compiled.compile()
        return compiled


operation = Operation
"""Compile the decorated function when its address is first asked for."""


class KernelOperation:
    """A microkernel with machine code of its own, which others call through its address.

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
            element = DOUBLE if dtype == np.float64 else FLOAT
            with _linking:
                if dtype not in self._addresses:  # no other thread was sooner
                    self._addresses[dtype] = self._linked(element)
        return self._addresses[dtype]

    @held_uncut
    def _linked(self, element: ir.Type) -> int:
        return _link(_cached_code(self._kernel, element), self._kernel.name(element))


_linking = threading.Lock()
"""Held while code is linked, so that no two threads link the same kernel."""

if hasattr(os, "register_at_fork"):
    # a child would wait for ever for a thread that it doesn't have; Numba's lock is not for it
    for _lock in (_linking, global_compiler_lock):
        os.register_at_fork(
            before=_lock.acquire,
            after_in_parent=_lock.release,
            after_in_child=_lock.release,
        )


def _target_machine() -> Any:
    """Return LLVM's description of this CPU, or of the one that Numba is told to compile for."""
    target = binding.Target.from_triple(binding.get_process_triple())
    cpu, features = target_cpu()
    return target.create_target_machine(
        cpu=cpu,
        features=features,
        opt=3,
        reloc="static" if os.name == "nt" else "pic",
        codemodel="jitdefault",
        jit=True,
    )


def _compiled_code(kernel: Microkernel, element: ir.Type) -> bytes:
    """Compile a kernel to an object file."""
    module = ir.Module(kernel.name(element))
    module.triple = binding.get_process_triple()
    kernel.define(module, element)
    parsed, machine = binding.parse_assembly(str(module)), _target_machine()
    builder = binding.create_pass_builder(
        machine, binding.create_pipeline_tuning_options(speed_level=2)
    )
    builder.getModulePassManager().run(parsed, builder)
    code: bytes = machine.emit_object(parsed)
    return code


_engines: list[Any] = []
"""What keeps linked code in memory."""


def _link(code: bytes, name: str) -> int:
    """Put an object file into memory; return the address of a function in it.

    Each has an engine of its own. Of several objects in one engine, the second that calls a
    function of another library, as those of the checked build do, finds constants of the first in
    the place of its own (LLVM's linker counts both from the table of addresses of the first).
    """
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _target_machine())
    engine.add_object_file(binding.object_file.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address(name))


def _cached_code(kernel: Microkernel, element: ir.Type) -> bytes:
    """Return the object file of a kernel, from the disk where that is possible.

    A file begins with the digest of what follows: one that is damaged, or half written, is made
    anew. It is written elsewhere and renamed, so that no other process sees a half.
    """
    directory = _cache_directory()
    if directory is None:
        return _compiled_code(kernel, element)
    machine = binding.get_process_triple(), *target_cpu()
    key = " ".join((kernel.name(element), _VARIANT, llvmlite.__version__, *machine))
    path = directory / f"fastnn-{hashlib.sha256(key.encode()).hexdigest()[:32]}.o"
    try:
        if (code := _opened(path.read_bytes())) is not None:
            return code
    except OSError:
        pass
    code = _compiled_code(kernel, element)
    unfinished = directory / f"{path.name}.{os.getpid()}.{threading.get_ident()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(_sealed(code))
        unfinished.replace(path)
        _remove_old(directory)
    except OSError as error:
        _warn_of_no_cache(error)
        with contextlib.suppress(OSError):
            unfinished.unlink()
    return code


@functools.cache
def _cache_directory() -> Path | None:
    """Return where Numba keeps what it compiles of this file, None where it finds no place."""
    try:
        path = numba.njit(cache=True)(_probe).stats.cache_path
    except RuntimeError as error:  # no cache directory can be written
        _warn_of_no_cache(error)
        return None
    return None if path is None else Path(path)


def _probe() -> None:
    """Never compiled; Numba says where it would keep it."""


@intrinsic
def call(context, address, *arguments):
    """Call the operation, or the kernel, at an address; matrices are unpacked."""

    reals = {kind for kind in arguments if isinstance(kind, types.Float)}
    if len(reals) > 1:
        raise TypingError(f"call: expected numbers of one type, got {sorted(map(str, reals))}")

    def generate(context, builder, signature, values):
        code, packed = values
        codes = flattened(context, builder, arguments, cgutils.unpack_tuple(builder, packed))
        called = ir.FunctionType(ir.VoidType(), [c.type for c in codes])
        builder.call(builder.inttoptr(code, called.as_pointer()), codes)
        return context.get_dummy_value()

    return types.void(types.int64, types.StarArgTuple.from_types(arguments)), generate


def _warn_of_no_cache(error: Exception) -> None:
    """Say once a process why kernels are compiled again."""
    global _warned
    if not _warned:
        _warned = True
        advice = "Set NUMBA_CACHE_DIR to a directory that can be written"
        if Path(__file__).suffix != ".py":
            advice = "Numba keeps code for source files alone: install the .py files, not only .pyc"
        warnings.warn(
            f"fastnn compiles its kernels anew in this process, as their cache failed: {error}. "
            f"{advice}",
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
