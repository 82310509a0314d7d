"""The worker process: one contender, one round for every line that arrives on standard input.

Started by `fastnn.bench.measuring` as ``python -m fastnn.bench.worker``, with the thread counts in
its environment before any library is imported. It speaks JSON, a line a message.
"""

import gc
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastnn.bench import contenders, recipes
from fastnn.bench.cases import Case


def serve() -> None:
    """Read a case, make the contender, then time a round whenever asked, until the pipe closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints belongs to the log, not between the answers

    def answer(**message: Any) -> None:
        print(json.dumps(message), file=answers, flush=True)

    work = json.loads(sys.stdin.readline())
    case = Case(**work | {"shape": tuple(work["shape"])})
    contender = (recipes if case.task == "recipe" else contenders).prepare(case)
    answer(ready=True)
    for _ in sys.stdin:
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
        )


def forget_peak_memory() -> None:
    """Have the peak be that of what follows, where the system can; elsewhere it stays."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Return the most bytes of memory that this process has held, None where nobody knows."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # not on this system
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, which is left


if __name__ == "__main__":
    serve()
