"""asv: whole processes, their time, their peak memory, and what they come to."""

from . import Timed as _Timed  # asv takes what has no underscore for a benchmark
from . import asv_classes


class _Process(_Timed):
    timeout = 600
    number, repeat, warmup_time = 1, 3, 0

    def track_peak_memory(self, size: str, dtype: str, backend: str) -> float:
        peak_bytes = self.workloads[size, dtype].row.run(backend, dtype).peak_bytes
        return float("nan") if peak_bytes is None else peak_bytes / 1e6

    track_peak_memory.unit = "MB"

    def track_result(self, size: str, dtype: str, backend: str) -> float:
        return self.call()

    track_result.unit = "loss, or share of right answers"


globals().update(asv_classes("processes", base=_Process))
