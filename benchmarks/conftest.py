"""pytest-benchmark: one thread, and of the machine what `fastnn bench --json` says of it."""

import os
from typing import Any

# before NumPy is imported, which reads them then
for _name in ("OMP", "OPENBLAS", "MKL", "NUMBA", "FASTNN"):
    os.environ.setdefault(f"{_name}_NUM_THREADS", "1")

from fastnn.bench.machine import blas, describe_environment  # noqa: E402


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info["fastnn"] = describe_environment() | {"blas": blas()}
