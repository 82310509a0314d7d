"""The worker process: one contender at a time, and a round whenever it is told to.

Started by `fastnn.bench.measuring` with the thread counts in its environment before any library is
imported. It speaks JSON, a line a message. This module and those that it needs, `contenders`,
`cases`, `samples` and `memory`, use public names of fastnn alone: for ``--compare`` they run on
another commit's fastnn.
"""

import gc
import json
import os
import sys
import time
from typing import Any

from fastnn.bench import contenders
from fastnn.bench.cases import Case
from fastnn.bench.memory import forget_peak_memory, peak_memory


def serve() -> None:
    """Make the contender of each case that arrives, time a round for each null, until the end."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints belongs to the log, not between the answers

    def answer(**message: Any) -> None:
        print(json.dumps(message), file=answers, flush=True)

    for line in sys.stdin:
        work = json.loads(line)
        if work is not None:
            contender = prepare(Case(**work | {"shape": tuple(work["shape"])}))
            checked = contender.moved is None
            answer(ready=True)
            continue
        contender.reset()
        gc.collect()
        forget_peak_memory()
        cpu_start, start = time.process_time(), time.perf_counter()
        outcome = contender.run()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        answer(
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            peak_bytes=peak_memory(),
            result=contender.judge(outcome),
            rows_a_call=contender.rows_a_call and contender.rows_a_call(),
            moved=None if checked or contender.moved is None else contender.moved(),
        )
        checked = True


def prepare(case: Case) -> contenders.Round:
    """Make the contender, and return what its rounds are."""
    if case.task == "recipe":
        from fastnn.bench import recipes  # which older commits can't run

        return recipes.prepare(case)
    return contenders.prepare(case)


if __name__ == "__main__":
    serve()
