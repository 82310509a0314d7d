"""Whole processes: their time, their peak memory, and what they come to."""

from typing import Any

from . import Timed, asv_classes, named


class Process(Timed):
    """A process in a sample; what it comes to is checked where it is tracked."""

    repeat, warmup_time = 3, 0
    calls = 1

    def setup(self, size: str, dtype: str, backend: str) -> None:
        if hasattr(self, "call"):
            return
        workload = self.workloads[size, dtype]
        self.call = workload.setup(backend)
        if not workload.row.empty_cache:
            self.call()  # which leaves kernels in the cache for those that count


def _tracked(label: str, what: str) -> dict[str, Any]:
    """Return benchmarks of numbers that are no times."""

    @named(f"{label}: peak memory", unit="bytes")
    def track_peak_memory(self: Process, size: str, dtype: str, backend: str) -> float:
        peak_bytes = self.workloads[size, dtype].row.run(backend, dtype).peak_bytes
        return float("nan") if peak_bytes is None else peak_bytes

    right = what == "share of right answers"
    if right:
        what = "share of wrong answers"  # what grows is a regression to asv

    @named(f"{label}: {what}", unit=what)
    def track_result(self: Process, size: str, dtype: str, backend: str) -> float:
        workload = self.workloads[size, dtype]
        outcome = workload.outcome(backend)
        workload.check(outcome)
        result = float(outcome[0])
        return 1 - result if right else result

    tracked = {"track_peak_memory": track_peak_memory}
    return tracked | ({"track_result": track_result} if what else {})


for _name, _class in asv_classes("processes", base=Process).items():
    _row = next(iter(_class.workloads.values())).row
    for _attribute, _function in _tracked(_row.label, _row.result).items():
        setattr(_class, _attribute, _function)
    globals()[_name] = _class
