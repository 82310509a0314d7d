"""Machine code on the disk, so that a process compiles only what no process before it has.

A file holds the code of one kernel or function, and what it needs of others. Its name is a digest
of all on which the code depends: what it is, every source file of this backend and the constants
of others, the CPU, LLVM, Numba, Python's objects, the width of vectors, and whether kernels are
checked. It begins with a digest of what follows: one that is damaged, or half written, counts as
missing, and is made anew. It is written elsewhere and renamed, so that no other process sees a
half.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llvmlite
from llvmlite import binding

from fastnn import memory
from fastnn.backends import description
from fastnn.guards import CHECKED
from fastnn.locks import locked, unlock

from ..machine import MACHINE, numba_setting, target_cpu
from . import sources

CONSTANTS = [f"object={object.__basicsize__}"]
CONSTANTS += [
    f"{name}={value}"
    for module in (description, memory)
    for name, value in vars(module).items()
    if isinstance(value, int)
]
"""What Python and other modules of fastnn have in machine code. Their values, as these modules were
imported before the digest of the sources was made."""

VARIANT = f"v{MACHINE.vector_bits}{'_checked' if CHECKED else ''}_{sources.DIGEST}"
"""What all code of this process has in common."""
_warned = False


@functools.cache
def places() -> list[Path]:
    """Return where code may be kept, the best place first.

    NUMBA_CACHE_DIR, as for all that Numba compiles, or beside the sources, or the user's cache.
    """
    told = numba_setting("CACHE_DIR", "")
    if told:
        return [Path(os.path.abspath(told))]  # wherever the process goes
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if sys.platform == "win32":
        home = os.environ.get("LOCALAPPDATA", home)
    of_user = [Path(home) / "fastnn"] if os.path.isabs(home) else []  # some have no home
    return [sources.HERE / "__pycache__", *of_user]


def directory() -> Path | None:
    """Return the first of these places that can be written, None where there is none."""
    for place in places():
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            failure = error
        else:
            if os.access(place, os.W_OK):
                return place
            failure = PermissionError(f"{place} can't be written")
    warn_of_no_cache(failure)
    return None


def kept(name: str) -> bytes | None:
    """Return what is kept under a name, None if there is nothing, or nothing whole."""
    file = _file(name)
    for place in places():
        with contextlib.suppress(OSError):
            content = _opened((place / file).read_bytes())
            if content is not None:
                return content
    return None


def keep(name: str, content: bytes) -> None:
    """Keep content under a name. If that fails it costs time, not the result."""
    place = directory()
    if place is None or not sources.unchanged():
        return
    path = place / _file(name)
    unfinished = place / f"{path.name}.{os.getpid()}.{threading.get_ident()}"
    try:
        unfinished.write_bytes(_sealed(content))
        unfinished.replace(path)
        _remove_old(place)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        warn_of_no_cache(error)


def _file(name: str) -> str:
    """Return the name of the file of a name."""
    tools = llvmlite.__version__, numba_release()
    machine = binding.get_process_triple(), *target_cpu()
    key = " ".join((name, VARIANT, *CONSTANTS, *tools, *machine))
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    return f"fastnn-{sources.DIGEST}-{digest}.o"


@functools.cache
def numba_release() -> str:
    """Return what Numba has written of its release, without importing it."""
    found = importlib.util.find_spec("numba")
    try:
        return (Path(str(found and found.origin)).parent / "_version.py").read_text()
    except OSError:
        return ""


def _sealed(content: bytes) -> bytes:
    """Return content behind its digest."""
    return hashlib.sha256(content).digest() + content


def _opened(sealed: bytes) -> bytes | None:
    """Return what was sealed, None if it is not whole."""
    content = sealed[32:]
    return content if _sealed(content) == sealed else None


OLD = 60 * 86400.0
"""Seconds since a file of the cache was last read: what has not been for so long is removed, if it
is of another version of these sources, or was never finished."""

_cleared: set[Path] = set()

_OURS = re.compile(
    r"_v[0-9]+(_checked)?_[0-9a-f]{12}-.*\.nb[ic]$"
    r"|^fastnn-([0-9a-f]{12}-)?[0-9a-f]{32}\.o(\.[0-9]+\.[0-9]+)?$"
)
"""Names of files in the cache, of earlier versions too."""


def _remove_old(place: Path) -> None:
    """Remove what other versions have left in a directory; once a process, where it compiles."""
    if place in _cleared:
        return
    _cleared.add(place)
    latest, mine = time.time() - OLD, re.compile(f"fastnn-{sources.DIGEST}-[0-9a-f]+.o")
    with contextlib.suppress(OSError):  # what can't be listed stays
        for file in place.iterdir():
            if _OURS.search(file.name) and not mine.fullmatch(file.name):
                with contextlib.suppress(OSError):  # another process may do so as well
                    used = file.stat()
                    if max(used.st_atime, used.st_mtime) < latest:
                        file.unlink()


def warn_of_no_cache(error: Exception) -> None:
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


class Turn:
    """The right to compile, which one thread has at a time of the processes that share a cache.

    So what many begin at the same moment, as the workers of a cluster do, is compiled once; the
    others find it on the disk. It goes back by itself when a process dies. Where there are no
    locks, all compile.
    """

    def __init__(self) -> None:
        self._patient = True
        self._file: Any = None
        self.begin()

    def begin(self) -> None:
        """Begin as nobody's, also in the child of a fork, which lacks the thread that had it."""
        self._threads = threading.Lock()
        self._close()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for it, or until waiting has taken longer than to compile everything."""
        with self._threads:
            try:
                with contextlib.suppress(OSError):  # nothing can be written, or without locks
                    self._wait()
                yield
            finally:
                if self._file is not None:
                    with contextlib.suppress(OSError):
                        unlock(self._file.fileno())
                self._close()

    def _wait(self) -> None:
        place = directory()
        if place is None:
            return
        # a buffer has a lock, which the child of a fork might find taken for ever
        self._file = (place / "fastnn.lock").open("ab", buffering=0)
        end = time.monotonic() + (LONGEST_WAIT if self._patient else 0)
        while not (has_lock := locked(self._file.fileno())) and time.monotonic() < end:
            time.sleep(0.02)
        if not has_lock and self._patient:
            # who holds it may have been stopped; not as long for every function
            self._patient = False
            warnings.warn(
                f"another process has not compiled its kernels for {LONGEST_WAIT:g} s; this one no "
                f"longer waits for it (the lock is {place / 'fastnn.lock'})",
                RuntimeWarning,
                stacklevel=2,
            )

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


LONGEST_WAIT = 120.0
"""Seconds."""

TURN = Turn()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=TURN.begin)
