"""The worker process: one contender, one round for every line that arrives on standard input.

Started by `fastnn.bench.measuring` as ``python -m fastnn.bench.worker``, with the thread counts in
its environment before any library is imported. It speaks JSON, a line a message.
"""

import gc
import json
import os
import sys
import time
from typing import Any

from fastnn.bench.cases import Case
from fastnn.bench.contenders import prepare


def serve() -> None:
    """Read a case, make the contender, then time a round whenever asked, until the pipe closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints belongs to the log, not between the answers

    def answer(**message: Any) -> None:
        print(json.dumps(message), file=answers, flush=True)

    work = json.loads(sys.stdin.readline())
    run = prepare(Case(**work | {"shape": tuple(work["shape"])}))
    answer(ready=True)
    for _ in sys.stdin:
        gc.collect()
        cpu_start, start = time.process_time(), time.perf_counter()
        result = run()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        answer(seconds=seconds, cpu_seconds=cpu_seconds, result=result)


if __name__ == "__main__":
    serve()
