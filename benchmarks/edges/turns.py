"""The process in which the contenders of a task take turns, and who starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fastnn.bench.cases import Case
from fastnn.bench.machine import kept_to, python_path
from fastnn.bench.measuring import environment

from .found import Edge, Found
from .tasks import Task, timed


def in_turns(
    name: str, question: str, tasks: Mapping[str, Callable[[], Task]], rounds: int = 7
) -> Edge:
    """Return an edge whose works are tasks."""

    def measure(rounds: int) -> Iterator[Found]:
        for work in tasks:
            yield in_a_process(name, work, rounds)

    return Edge(name, question, tuple(tasks), measure, rounds, tasks)


def in_a_process(edge: str, work: str, rounds: int) -> Found:
    """Have a process of one thread on one processor do a task."""
    variables = environment(Case("numba")) | {"PYTHONPATH": python_path(Path(__file__).parents[2])}
    with kept_to(1):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.edges.turns", edge, work,
             str(rounds)],
            env=variables, capture_output=True, text=True,
        )  # fmt: skip
    if done.returncode:
        *_, last = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        return Found(work, {}, errors={"all": last})
    answer = json.loads(done.stdout)
    return Found(work, **answer | {"missing": tuple(answer["missing"])})


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints does not belong to the answer
    from . import EDGES

    edge, work, rounds = sys.argv[1:]
    try:
        answer = timed(EDGES[edge].tasks[work](), int(rounds))
    except ImportError as error:  # of a library that all the work is about
        answer = {"values": {}, "errors": {}, "missing": [error.name]}
    print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
