"""States of fastnn: what the names stand for that ``--compare`` takes."""

import io
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

WORKTREE = "WORKTREE"
"""The name of the checkout's files as they are, committed or not."""


@dataclass(frozen=True)
class Tree:
    """A state of fastnn that lies in a folder of its own.

    Attributes
    ----------
    name : str
        As it was asked for.
    root : Path
        The folder that has ``fastnn/`` in it.
    description : str
        Which commit it is, or which folder it comes from.
    """

    name: str
    root: Path
    description: str


def export(argument: str, name: str, root: Path) -> Tree:
    """Copy a state of fastnn to a folder that does not exist yet.

    Parameters
    ----------
    argument : str
        What errors call the name.
    name : str
        Whatever git takes for a commit of the checkout around the current folder; `WORKTREE`; or a
        folder that has ``fastnn/`` in it. A commit goes before a folder of the same name.
    root : Path
        Where to.

    Raises
    ------
    ValueError
        If it is none of these, or has no fastnn.
    """
    if name == WORKTREE:
        top = _top()
        if top is None:
            raise ValueError(f"{argument}: {WORKTREE} needs a checkout, {Path.cwd()} is in none")
        changes = "changes to " if is_changed(top) else ""
        return _copied(argument, name, top, root, f"{changes}{commit_of(top)}")
    commit = _git(Path.cwd(), "rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")
    if commit is not None:
        return _archived(argument, name, commit.decode().strip(), root)
    if Path(name).is_dir():
        return _copied(argument, name, Path(name), root, f"the folder {Path(name).resolve()}")
    raise ValueError(
        f"{argument}: expected a commit, {WORKTREE} or a folder that has fastnn in it, got {name!r}"
    )


def commit_of(folder: Path, commit: str = "HEAD") -> str | None:
    """Return a commit of a checkout, shortly and with the begin of its text; None for none."""
    found = _git(folder, "log", "-1", "--format=%h %s", commit)
    return (
        None if found is None else shorten(found.decode(errors="replace"), 80, placeholder=" ...")
    )


def commit_of_package(root: Path) -> str | None:
    """Return the commit of the fastnn in a folder, None where it is not from a checkout."""
    if _git(root, "ls-files", "--error-unmatch", "fastnn/__init__.py") is None:
        return None  # it is installed, if in a checkout of something else
    found = _git(root, "rev-parse", "--short", "HEAD")
    if found is None:
        return None
    changed = " with changes" if is_changed(root / "fastnn") else ""
    return found.decode().strip() + changed


def is_changed(folder: Path) -> bool:
    """Whether files of a checkout, below a folder, are not as they were committed."""
    return bool(_git(folder, "status", "--porcelain", "--", "."))


def _top() -> Path | None:
    found = _git(Path.cwd(), "rev-parse", "--show-toplevel")
    return None if found is None else Path(found.decode().strip())


def _archived(argument: str, name: str, commit: str, root: Path) -> Tree:
    top = _top() or Path.cwd()  # a bare repository has no top
    archive = _git(top, "archive", commit, "fastnn")
    if archive is None:
        raise ValueError(f"{argument}: the commit {name} has no folder fastnn")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(root, filter="data")
    return Tree(name, root, commit_of(top, commit) or commit)


def _copied(argument: str, name: str, source: Path, root: Path, description: str) -> Tree:
    """A copy stays as it is while somebody goes on editing."""
    if not (source / "fastnn" / "__init__.py").is_file():
        raise ValueError(f"{argument}: the folder {source} has no fastnn in it")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source / "fastnn", root / "fastnn", ignore=ignored)
    return Tree(name, root, description)


def _git(folder: Path, *arguments: str) -> bytes | None:
    """Return what git prints, None if it ends with an error or is not here."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
