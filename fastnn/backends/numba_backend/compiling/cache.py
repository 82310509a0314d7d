"""Machine code on the disk, so that a process compiles only what no process before it has.

A file holds the code of one kernel or function, and what it needs of others. Its name is a digest
of all on which the code depends: what it is, every source file of this backend, the CPU, LLVM, the
width of vectors, and whether kernels are checked. It begins with a digest of what follows: one that
is damaged, or half written, counts as missing, and is made anew. It is written elsewhere and
renamed, so that no other process sees a half.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import llvmlite
from llvmlite import binding

from fastnn.guards import CHECKED
from fastnn.locks import locked

from ..machine import MACHINE, numba_setting, target_cpu

HERE = Path(__file__).parent.parent


def _digest_of_sources() -> str:
    """Return a short digest of every source file of this backend, or what is there in its place."""
    digest = hashlib.sha256()
    for path in sorted(HERE.rglob(f"*{Path(__file__).suffix}")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


SOURCES = _digest_of_sources()
VARIANT = f"v{MACHINE.vector_bits}{'_checked' if CHECKED else ''}_{SOURCES}"
"""What all code of this process has in common."""
_warned = False


@functools.cache
def directory() -> Path | None:
    """Return where code is kept, None where no place can be written.

    NUMBA_CACHE_DIR, as for all that Numba compiles, or beside the sources, or the user's cache.
    """
    told = numba_setting("CACHE_DIR", "")
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    if sys.platform == "win32":
        home = os.environ.get("LOCALAPPDATA", home)
    places = [Path(told)] if told else [HERE / "__pycache__", Path(home) / "fastnn"]
    for place in places:
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
    path = _path(name)
    if path is None:
        return None
    try:
        return _opened(path.read_bytes())
    except OSError:
        return None


def keep(name: str, content: bytes) -> None:
    """Keep content under a name. If that fails it costs time, not the result."""
    path = _path(name)
    if path is None:
        return
    unfinished = path.parent / f"{path.name}.{os.getpid()}.{threading.get_ident()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(_sealed(content))
        unfinished.replace(path)
        _remove_old(path.parent)
    except OSError as error:
        warn_of_no_cache(error)
        with contextlib.suppress(OSError):
            unfinished.unlink()


def _path(name: str) -> Path | None:
    place = directory()
    if place is None:
        return None
    machine = binding.get_process_triple(), *target_cpu()
    key = " ".join((name, VARIANT, llvmlite.__version__, *machine))
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    return place / f"fastnn-{SOURCES}-{digest}.o"


def _sealed(content: bytes) -> bytes:
    """Return content behind its digest."""
    return hashlib.sha256(content).digest() + content


def _opened(sealed: bytes) -> bytes | None:
    """Return what was sealed, None if it is not whole."""
    content = sealed[32:]
    return content if _sealed(content) == sealed else None


OLD = 60 * 86400.0
"""Seconds since a file of the cache was last read: what has not been for so long is removed, if it
is of another version of these sources."""

_cleared: set[Path] = set()

_OURS = re.compile(
    r"_v[0-9]+(_checked)?_[0-9a-f]{12}-.*\.nb[ic]$|^fastnn-([0-9a-f]{12}-)?[0-9a-f]{32}\.o$"
)
"""Names of files in the cache, of earlier versions too."""


def _remove_old(place: Path) -> None:
    """Remove what other versions have left in a directory; once a process, where it compiles."""
    if place in _cleared:
        return
    _cleared.add(place)
    latest, mine = time.time() - OLD, f"fastnn-{SOURCES}-"
    with contextlib.suppress(OSError):  # another process may do so as well
        for file in place.iterdir():
            if _OURS.search(file.name) and not file.name.startswith(mine):
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
        place = None if self.taken else directory()
        if place is None:
            return
        end = time.monotonic() + LONGEST_WAIT * self._patient
        with contextlib.suppress(OSError):  # a directory that can't be written, or without locks
            place.mkdir(parents=True, exist_ok=True)
            file = (place / "fastnn.lock").open("ab")
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
                    f"one no longer waits for it (the lock is {place / 'fastnn.lock'})",
                    RuntimeWarning,
                    stacklevel=2,
                )
            self._file = file

    def give_back(self) -> None:
        """Let others have it."""
        if self.taken:
            self._file.close()
            self._file = None


TURN = Turn()
LONGEST_WAIT = 120.0
"""Seconds."""
