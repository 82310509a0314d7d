"""pytest-benchmark: ``pytest benchmarks`` times every workload, the backends side by side."""

import pytest

import fastnn
from fastnn.bench import WORKLOADS, Workload


@pytest.mark.parametrize("backend", fastnn.available_backends())
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_workload(benchmark, workload: Workload, backend: str) -> None:
    workload.check(workload.outcome(backend))
    benchmark.group, benchmark.name = workload.name, backend
    call = workload.setup(backend)
    if workload.group == "processes":
        result = benchmark.pedantic(call, rounds=3)
        peak_bytes = workload.row.run(backend, workload.dtype).peak_bytes
        benchmark.extra_info |= {"result": result, "peak_bytes": peak_bytes}
    else:
        benchmark(call)
