"""The process that times workloads on both backends in turn.

Started by `fastnn.bench.ratios` as ``python -m fastnn.bench.turns``. It reads the name of a
workload and a number of rounds, a line each time, and answers with what it measured, as JSON.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from fastnn.bench.workloads import WORKLOADS, Workload

BACKENDS = ("numpy", "numba")

ROUND_SECONDS = 0.002
"""A round of each backend takes so long at least: as many calls as that needs."""


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


def in_turn(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds that each call takes in each round, in which all have their turn."""
    numbers = {name: _calls_of_a_round(call) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, number in numbers.items():
            seconds[name].append(_seconds(calls[name], number) / number)
    return seconds


def _calls_of_a_round(call: Callable[[], Any]) -> int:
    number = 1
    while _seconds(call, number) < ROUND_SECONDS:
        number *= 2
    return number


def _seconds(call: Callable[[], Any], number: int) -> float:
    start = time.perf_counter()
    for _ in range(number):
        call()
    return time.perf_counter() - start


if __name__ == "__main__":
    serve()
