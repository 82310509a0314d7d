"""Faces of the table `fastnn.bench.WORKLOADS`: one for asv, one for pytest-benchmark."""

import re
from typing import Any

import fastnn
from fastnn.bench import WORKLOADS, Workload

BACKENDS = fastnn.available_backends()


class Timed:
    """asv: a workload by size and dtype, a column for each backend.

    It is made and checked in `setup`, so that compilation and errors stay out of the time.
    """

    param_names = ("size", "dtype", "backend")
    workloads: dict[tuple[str, str], Workload]

    def setup(self, size: str, dtype: str, backend: str) -> None:
        workload = self.workloads[size, dtype]
        workload.check(workload.outcome(backend))
        self.call = workload.setup(backend)

    def time_call(self, size: str, dtype: str, backend: str) -> None:
        self.call()


def asv_classes(*groups: str, base: type = Timed) -> dict[str, type]:
    """Return a class for each label of the groups, by the name that asv shows."""
    by_name: dict[str, list[Workload]] = {}
    for workload in WORKLOADS:
        if workload.group in groups:
            name = f"{workload.group} {workload.label}" if len(groups) > 1 else workload.label
            name = re.sub(r"\W+", "_", name)
            by_name.setdefault(name, []).append(workload)
    return {name: type(name, (base,), _attributes(of)) for name, of in by_name.items()}


def _attributes(workloads: list[Workload]) -> dict[str, Any]:
    sizes, dtypes = (dict.fromkeys(getattr(w, of) for w in workloads) for of in ("size", "dtype"))
    return {
        "params": (list(sizes), list(dtypes), list(BACKENDS)),
        "workloads": {(w.size, w.dtype): w for w in workloads},
    }
