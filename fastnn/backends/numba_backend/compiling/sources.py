"""The text of this backend: its digest, and whether it is still what this process has imported.

A file may change beside a running process, by an editor or by `git checkout`. Then nothing says
what has been compiled from: text of before, of now, or some of each. So what is compiled is kept
only while all files are those of the digest. This module is imported before all that it reads.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

HERE = Path(__file__).parent.parent


def _files() -> list[Path]:
    """Return every source file of this backend, or what is there in its place."""
    return sorted(HERE.rglob(f"*{Path(__file__).suffix}"))


def _state(path: Path) -> tuple[int, ...]:
    """Return what another writing of a file would change."""
    found = os.stat(path)
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _digest() -> str:
    """Return a short digest of all text, and of the files in which it stands."""
    digest = hashlib.sha256()
    for path in _STATES:
        digest.update(f"{path.relative_to(HERE).as_posix()} {_STATES[path][2]}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


_STATES = {path: _state(path) for path in _files()}
DIGEST = _digest()


def unchanged() -> bool:
    """Say whether no file has been written since it was read for the digest."""
    try:
        return all(_state(path) == before for path, before in _STATES.items())
    except OSError:  # one is gone
        return False
