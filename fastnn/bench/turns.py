"""The process that times workloads on both backends in turn.

Started by `fastnn.bench.ratios` as ``python -m fastnn.bench.turns``. It reads the name of a
workload and a number of rounds, a line each time, and answers with what it measured, as JSON.
"""

import json
import os
import sys
from typing import Any

from fastnn.bench.rounds import in_turn
from fastnn.bench.workloads import WORKLOADS, Workload

BACKENDS = ("numpy", "numba")


def serve() -> None:
    """Measure what is asked for, until the pipe closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints belongs to the log, not between the answers
    by_name = {workload.name: workload for workload in WORKLOADS}
    for line in sys.stdin:
        name, rounds = json.loads(line)
        try:
            answer: dict[str, Any] = {"seconds": timed(by_name[name], rounds)}
        except AssertionError as error:
            answer = {"seconds": {}, "error": " ".join(str(error).split())}
        print(json.dumps(answer), file=answers, flush=True)


def timed(workload: Workload, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of a call in each round, by backend.

    Raises
    ------
    AssertionError
        If either computes anything but what NumPy computes in float64.
    """
    for backend in BACKENDS:
        workload.check(workload.outcome(backend))
    return in_turn({backend: workload.setup(backend) for backend in BACKENDS}, rounds)


if __name__ == "__main__":
    serve()
