"""The machine that is measured: what a reader has to know of it, and the part a worker may use."""

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import fastnn
from fastnn import backends, processors
from fastnn.bench import trees
from fastnn.bench.threads import CHOSEN_KERNELS, THREAD_VARIABLES

#: Of the fastnn that is measured: asv has this file measure that of another commit.
ROOT = Path(fastnn.__file__).parents[1]

PACKAGES = ("fastnn", "numpy", "numba", "llvmlite", "torch", "jax", "jaxlib", "scikit-learn")

PROCESSORS = Path("/sys/devices/system/cpu")

#: Of one processor on average over a minute: what is above is the work of others.
IDLE_LOAD = 0.3


def describe_environment() -> dict[str, Any]:
    """Return what a reader needs to judge or repeat the figures, None for what nobody tells.

    `commit` is that of the checkout which fastnn comes from; `caches` are in bytes, the first level
    first; `governor` is the system's rule for the clock's rate; `blas` is that of the workers;
    `command` is the command line and `variables` are those that size thread pools, of which workers
    set their own; `affinity` are the processors that this process may run on.
    """
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    numba = backends.describe_numba()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": numba.get("cpu", processors.model_name()),
        "vectors": numba.get("vectors"),
        "caches": list(processors.known_caches().values()) or None,
        "cores": os.cpu_count(),
        "usable": processors.usable(),
        "governor": processors.governor(),
        "memory": processors.usable_bytes() or None,
        "load": load(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "commit": trees.commit_of_package(ROOT),
        "versions": versions,
        "llvm": numba.get("llvm"),
        "blas": blas(inherited()),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if name in THREAD_VARIABLES
            or name.startswith(("OPENBLAS_", "XLA_FLAGS", "GOMP_", "KMP_"))
        },
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
    }


def load() -> float | None:
    """Return how many processes wanted a processor on average over the last minute, if known."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def in_words(environment: dict[str, Any]) -> str:
    """Return in a line what `describe_environment` returned, here or elsewhere."""
    of = environment
    usable, cores = of["usable"], of["cores"]
    hardware = [
        of["cpu"],
        of["vectors"] and f"vectors of {of['vectors']}",
        of["caches"] and f"caches of {', '.join(map(_size, of['caches']))}",
        f"{cores} cores" if usable == cores else f"{usable} of {cores} cores",
        of["governor"] and f"governor {of['governor']}",
        of["memory"] and f"{_size(of['memory'])} of memory",
        of["platform"],
    ]
    versions = dict(of["versions"])
    if of["commit"]:  # also where fastnn is not installed, but found by a path
        versions = {"fastnn": "", **versions}
        versions["fastnn"] = f"{versions['fastnn']} ({of['commit']})".lstrip()
    software = [
        f"Python {of['python']}",
        *[f"{name} {number}" for name, number in versions.items()],
        of["llvm"] and f"LLVM {of['llvm']}",
        f"BLAS {of['blas']}",
    ]
    return "; ".join(
        [*(", ".join(filter(None, part)) for part in (hardware, software)), of["date"]]
    )


def _size(number: int) -> str:
    for unit, power in (("GiB", 30), ("MiB", 20)):
        if number >= 1 << power:
            return f"{number / (1 << power):.3g} {unit}"
    return f"{number / 1024:.3g} KiB"


def inherited() -> dict[str, str]:
    """Return the environment that workers start from: this one, with OpenBLAS free to choose."""
    return {name: value for name, value in os.environ.items() if name not in CHOSEN_KERNELS}


def blas(variables: Mapping[str, str] = os.environ) -> str:
    """Return the name and version of the library that multiplies matrices for NumPy.

    And the processor whose kernels the variables tell it to take, as they may not be the fastest
    here.
    """
    built_with = np.show_config(mode="dicts")
    blas = built_with.get("Build Dependencies", {}).get("blas", {})
    name = f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()
    told = variables.get("OPENBLAS_CORETYPE")
    return f"{name} told by OPENBLAS_CORETYPE to be on a {told}" if told else name


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
    """Return so many of the processors that this process may use, each on a core of its own.

    The fastest come first: of many chips for telephones and laptops the lowest are slow.
    """
    ranked = [
        (rank, -_speed(processor), processor)
        for core in processors.cores()
        for rank, processor in enumerate(sorted(core))
    ]
    return {processor for *_, processor in sorted(ranked)[:threads]}


def _speed(processor: int) -> int:
    """Return how fast a processor is beside others of this machine, 0 if the system won't tell."""
    for file in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):  # the first on Arm
        with suppress(OSError, ValueError):
            return int((PROCESSORS / f"cpu{processor}" / file).read_text())
    return 0


def python_path(root: Path = ROOT) -> str:
    """Return where processes that are started find this fastnn first, or that of another folder."""
    return os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
