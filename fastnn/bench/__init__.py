"""How fast is fastnn on this machine, and how fast is everything else?

`add_arguments` and `run` are the command ``fastnn bench``: every contender trains the same network
from the same parameters on the same batches, in a process of its own, in interleaved rounds;
`as_markdown` and `as_json` render the report, `beside` several of them. `WORKLOADS` is the table of
operations, trainings and processes that both backends have, for two of its suites, asv and
pytest-benchmark. Nothing here prints.
"""

from fastnn.bench.beside import beside
from fastnn.bench.command import add_arguments, run
from fastnn.bench.report import Report, as_json, as_markdown
from fastnn.bench.workloads import WORKLOADS, Workload

__all__ = [
    "WORKLOADS",
    "Report",
    "Workload",
    "add_arguments",
    "as_json",
    "as_markdown",
    "beside",
    "run",
]
