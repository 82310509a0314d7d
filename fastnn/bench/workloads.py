"""The table of workloads: all that both backends do, at sizes from tiny to large, in both dtypes.

It is all that `fastnn bench --suite operations`, asv and pytest-benchmark know: single operations,
trainings and predictions, and whole processes. A result is what NumPy computes in float64, or its
time is not told.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fastnn.bench.operations import DTYPES, OPERATIONS, Problem
from fastnn.bench.processes import PROCESSES
from fastnn.bench.trainings import NETWORKS, PREDICTIONS, TRAININGS
from fastnn.checks import Array

#: Of losses and probabilities. Training passes errors on from step to step, and multiplies them
#: wherever one decides on which side of zero a unit's input is.
OF_TRAINING = {"float32": 1e-2, "float64": 1e-6}


class Row(Protocol):
    """What makes the workloads of one label."""

    @property
    def label(self) -> str: ...

    def describe(self, size: str) -> str: ...

    def problem(self, size: str, backend: str, dtype: str) -> Problem: ...

    def reference(self, size: str, dtype: str) -> Problem: ...


@dataclass(frozen=True)
class Workload:
    """A piece of work, to be timed on both backends.

    Attributes
    ----------
    group : str
        "operations", "layers", "optimizers", "losses", "prediction" or "processes".
    row : Row
        What makes it.
    size, dtype : str
    tolerance : float
        Largest error, relative to the largest expected number.
    """

    group: str
    row: Row
    size: str
    dtype: str
    tolerance: float

    @property
    def label(self) -> str:
        """What is done, the same for all sizes and dtypes."""
        return self.row.label

    @property
    def name(self) -> str:
        """The label, the size and the dtype, unique in the table."""
        return f"{self.group}-{self.label}-{self.size}-{self.dtype}"

    @property
    def description(self) -> str:
        """What is computed: work of the same description has times that may be compared."""
        return f"{self.name}: {self.row.describe(self.size)}"

    def setup(self, backend: str) -> Callable[[], Any]:
        """Return the call to time."""
        return self.row.problem(self.size, backend, self.dtype).call

    def outcome(self, backend: str) -> list[Array]:
        """Return all that a first call comes to."""
        return self.row.problem(self.size, backend, self.dtype).outcome()

    def check(self, outcome: list[Array]) -> None:
        """Raise AssertionError unless `outcome` is what NumPy computes in float64."""
        expected = self.row.reference(self.size, self.dtype).outcome()
        for found, right in zip(outcome, expected, strict=True):
            np.testing.assert_allclose(
                found, right, rtol=0, atol=self.tolerance * np.abs(right).max(), equal_nan=False
            )


def _workloads() -> Iterator[Workload]:
    for operation in OPERATIONS:
        for size in operation.shapes:
            for dtype in operation.dtypes:
                tolerance = operation.epsilons * float(np.finfo(dtype).eps)
                yield Workload("operations", operation, size, dtype, tolerance)
    rows: list[tuple[str, Row]] = [(training.group, training) for training in TRAININGS]
    rows += [("prediction", prediction) for prediction in PREDICTIONS]
    for group, row in rows:
        for size in NETWORKS:
            for dtype in DTYPES:
                yield Workload(group, row, size, dtype, OF_TRAINING[dtype])
    for process in PROCESSES:
        for dtype in DTYPES:
            yield Workload("processes", process, "whole", dtype, OF_TRAINING[dtype])


WORKLOADS = tuple(_workloads())
