"""Files to be written: what is refused before the work that would be lost."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable
from importlib import util
from pathlib import Path

from fastnn import extras


def check(inputs: Iterable[Path | None], **outputs: Path | None) -> None:
    """Refuse before the training what would fail after it, or overwrite what it reads or writes."""
    taken = {path.resolve() for path in inputs if path is not None}
    for name, path in outputs.items():
        if path is None:
            continue
        (check_picture if name == "plot" else check_file)(f"--{name}", path)
        if path.resolve() in taken:
            raise ValueError(f"--{name}: expected a file of its own, got {path}, which is in use")
        if path.is_file() or not path.exists():  # a device may serve several
            taken.add(path.resolve())


def check_picture(option: str, path: Path) -> None:
    """Refuse a picture that matplotlib can't write there."""
    check_file(option, path)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"{option}: expected a .png, .svg or .pdf file, got {path}")
    if util.find_spec("matplotlib") is None:
        raise ValueError(f"{option}: expected matplotlib to be installed: {extras.install('plot')}")


def check_file(option: str, path: Path) -> None:
    """Refuse a file that can't be written."""
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise ValueError(f"{option}: expected a file in an existing directory, got {path}")
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            if not os.access(target, os.W_OK):
                raise PermissionError(errno.EACCES, "Permission denied")
        else:  # which is written beside it, and renamed
            tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.").close()
    except OSError as error:
        raise ValueError(
            f"{option}: expected a file that can be written, got {path}: {error.strerror}"
        ) from None
