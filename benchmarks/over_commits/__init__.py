"""The table `fastnn.bench.WORKLOADS` as asv takes it.

It is that of the checkout which these files are in: so the same work is timed on every commit.
Everything in this folder is imported by asv, in an environment that has fastnn and what it needs.
"""

import hashlib
import os
import re
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

_CHECKOUT = Path(__file__).parents[2] / "fastnn"
_variables = runpy.run_path(str(_CHECKOUT / "bench" / "threads.py"))
_variables["let_openblas_choose"]()  # before NumPy is imported
for _name in _variables["THREAD_VARIABLES"]:
    os.environ[_name] = "1"

import fastnn  # noqa: E402

if Path(fastnn.__file__).parent != _CHECKOUT:  # its own table is another one, or none
    _package = ModuleType("fastnn.bench")
    _package.__path__ = [str(_CHECKOUT / "bench")]
    sys.modules["fastnn.bench"] = fastnn.bench = _package

from fastnn.bench.rounds import calls_of_a_round  # noqa: E402
from fastnn.bench.workloads import WORKLOADS, Workload  # noqa: E402

BACKENDS = fastnn.available_backends()
SAMPLE_SECONDS = 0.01
"""What a sample takes at least."""


class Timed:
    """A workload by size and dtype, with a value for each backend.

    It is made and checked in the first `setup` of a process, so that compilation and errors stay
    out of the time. asv-runner calls `setup` before every call that it times, from 0.3 on, so that
    a call of microseconds would be timed alone, in cold caches. A sample is therefore many calls,
    by a clock that is as many times as slow.
    """

    param_names = ("size", "dtype", "backend")
    number = 1
    workloads: dict[tuple[str, str], Workload]

    def setup(self, size: str, dtype: str, backend: str) -> None:
        if hasattr(self, "call"):
            return
        workload = self.workloads[size, dtype]
        workload.check(workload.outcome(backend))
        self.call = workload.setup(backend)
        self.calls = calls_of_a_round(self.call, SAMPLE_SECONDS)
        self.timer = lambda: time.perf_counter() / self.calls


def asv_classes(*groups: str, base: type[Timed] = Timed) -> dict[str, type]:
    """Return a class for each label of the groups, by a name in Python."""
    by_label: dict[str, list[Workload]] = {}
    for workload in WORKLOADS:
        if workload.group in groups:
            label = workload.label if len(groups) == 1 else f"{workload.group}: {workload.label}"
            by_label.setdefault(label, []).append(workload)
    by_name = {re.sub(r"\W+", "_", label): label for label in by_label}
    return {
        name: type(name, (base,), _attributes(label, by_label[label]))
        for name, label in by_name.items()
    }


def named(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Say how pages of asv call a benchmark, and what else it asks a benchmark for."""

    def told(function: Callable[..., Any]) -> Callable[..., Any]:
        vars(function).update(attributes, pretty_name=name)
        return function

    return told


def _version(workloads: list[Workload]) -> str:
    """Return what asv keeps results by, which change with the work and not with this code."""
    text = "\n".join(workload.description for workload in workloads)
    return hashlib.sha256(text.encode()).hexdigest()


def _attributes(label: str, workloads: list[Workload]) -> dict[str, Any]:
    @named(label)
    def time_call(self: Timed, size: str, dtype: str, backend: str) -> None:
        for _ in range(self.calls):
            self.call()

    sizes, dtypes = (dict.fromkeys(getattr(w, of) for w in workloads) for of in ("size", "dtype"))
    return {
        "params": (list(sizes), list(dtypes), list(BACKENDS)),
        "workloads": {(w.size, w.dtype): w for w in workloads},
        "version": _version(workloads),
        "time_call": time_call,
    }
