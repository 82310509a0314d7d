"""pytest-benchmark: results say what `fastnn bench --json` says of the machine."""

from typing import Any

from fastnn.bench.machine import describe_environment


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info["fastnn"] = describe_environment()
