"""The machine that is measured: what a reader has to know of it, and the part a worker may use."""

import os
import platform
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastnn.processors import processors

TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"

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
    names = []
    if (cpus := Path("/proc/cpuinfo")).exists():
        lines = [line.partition(":") for line in cpus.read_text().splitlines()]
        names = [value.strip() for key, _, value in lines if key.strip() == "model name"]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
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
    cores: Counter[str] = Counter()
    ranks = {}
    for processor in sorted(processors()):
        core = _siblings(processor)
        ranks[processor] = cores[core]
        cores[core] += 1
    return set(sorted(ranks, key=lambda processor: (ranks[processor], processor))[:threads])


def _siblings(processor: int) -> str:
    """Return what all processors of one core, and no others, have in common."""
    try:
        return Path(TOPOLOGY.format(processor)).read_text()
    except OSError:  # not on this system
        return str(processor)
