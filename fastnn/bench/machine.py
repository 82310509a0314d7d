"""The machine that is measured: what a reader has to know of it, and the part a worker may use."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastnn.processors import cores, model_name

#: Of one processor on average over a minute: what is above is the work of others.
IDLE_LOAD = 0.3


def describe_environment() -> dict[str, Any]:
    """Return what a reader needs to judge or repeat the figures."""
    versions = {}
    for package in ("fastnn", "numpy", "numba", "torch", "jax", "scikit-learn"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": model_name(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE"),
    }


@contextmanager
def kept_to(threads: int) -> Iterator[None]:
    """Let processes that are started meanwhile run on as many processors as they have threads.

    A library that takes no notice of its settings can't use more then. All workers get the same
    ones, as they run in turn.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen(threads))  # a process has the affinity of who starts it
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def chosen(threads: int) -> set[int]:
    """Return so many of the processors that this process may use, each on a core of its own."""
    ranked = [(rank, processor) for core in cores() for rank, processor in enumerate(sorted(core))]
    return {processor for _, processor in sorted(ranked)[:threads]}


def python_path(root: Path = Path(__file__).parents[2]) -> str:
    """Return where processes that are started find this fastnn first, or that of another folder."""
    return os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
