"""pytest-benchmark: ``pytest benchmarks`` times every workload on both backends."""

import pytest

from . import BACKENDS, WORKLOADS, Workload


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_workload(benchmark, workload: Workload, backend: str) -> None:
    call = workload.setup(backend)
    workload.check(call())
    benchmark.group = workload.name
    benchmark(call)
