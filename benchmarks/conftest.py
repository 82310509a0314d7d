"""pytest-benchmark: one thread, and of the machine what `fastnn bench --json` says of it."""

import os
import runpy
from pathlib import Path
from typing import Any

_THREADS = Path(__file__).parents[1] / "fastnn" / "bench" / "threads.py"
for _name in runpy.run_path(str(_THREADS))["THREAD_VARIABLES"]:  # before NumPy is imported
    os.environ.setdefault(_name, "1")

from fastnn.bench.machine import describe_environment  # noqa: E402


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info["fastnn"] = describe_environment()
