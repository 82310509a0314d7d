"""NumPy's time over Numba's, workload by workload, both in one process in interleaved rounds."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from fastnn.bench.figures import NO_VALUE, Spread, short, spread
from fastnn.bench.machine import kept_to, python_path
from fastnn.bench.workloads import WORKLOADS, Workload
from fastnn.markdown import markdown_table

GROUPS = {
    "operations": ("operations",),
    "trainings": ("layers", "optimizers", "losses", "prediction"),
}
"""What a suite measures of the table."""


@dataclass(frozen=True)
class Ratio:
    """A workload on both backends.

    Attributes
    ----------
    group, label, size, dtype : str
        Those of the workload.
    seconds : dict
        Of a call in each round, by backend.
    error : str, optional
        Why there is nothing: what was computed is not what NumPy computes in float64.
    """

    group: str
    label: str
    size: str
    dtype: str
    seconds: dict[str, tuple[float, ...]]
    error: str | None = None

    @property
    def spread(self) -> Spread | None:
        """NumPy's time over Numba's in the same round; None where there is none."""
        if self.error is not None:
            return None
        pairs = zip(*(self.seconds[backend] for backend in ("numpy", "numba")), strict=True)
        return spread(numpy / numba for numpy, numba in pairs)

    @property
    def name(self) -> str:
        """The workload in words."""
        return f"{self.label}, {self.size}, {self.dtype}"


def chosen(suite: str, dtype: str | None = None) -> list[Workload]:
    """Return the workloads of a suite, in one dtype or in both."""
    return [w for w in WORKLOADS if w.group in GROUPS[suite] and dtype in (None, w.dtype)]


def measure_ratios(
    workloads: Iterable[Workload], rounds: int, environment: dict[str, str]
) -> Iterator[Ratio]:
    """Yield what comes of each workload, in a process with one thread on one processor.

    Parameters
    ----------
    workloads : iterable of Workload
    rounds : int
        In which both are timed, one after the other.
    environment : dict
        The variables of that process, which have libraries take one thread.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        with kept_to(1):
            process = subprocess.Popen(
                [sys.executable, "-m", "fastnn.bench.turns"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
                env=environment | {"PYTHONPATH": python_path()},
            )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for workload in workloads:
                process.stdin.write(json.dumps([workload.name, rounds]) + "\n")
                line = process.stdout.readline()
                if not line:
                    process.wait()
                    log.seek(0)
                    *_, last = log.read().strip().splitlines() or ["no message"]
                    raise RuntimeError(f"{workload.name}: {last}")
                of = workload.group, workload.label, workload.size, workload.dtype
                yield Ratio(*of, **json.loads(line))
        finally:
            process.kill()
            process.communicate()


def ratio_sections(ratios: Sequence[Ratio]) -> list[str]:
    """Render ratios: a table for each group and dtype, with a row for each label."""
    parts = [
        "How many times as long NumPy took as Numba, on one thread: medians of interleaved rounds, "
        "quartiles in brackets."
    ]
    tables: dict[tuple[str, str], list[Ratio]] = {}
    for ratio in ratios:
        tables.setdefault((ratio.group, ratio.dtype), []).append(ratio)
    for (group, dtype), of in tables.items():
        sizes = list(dict.fromkeys(ratio.size for ratio in of))
        cells = {(ratio.label, ratio.size): ratio.spread for ratio in of}
        rows = [
            [label, *[str(cells.get((label, size)) or NO_VALUE) for size in sizes]]
            for label in dict.fromkeys(ratio.label for ratio in of)
        ]
        parts += [f"### {group}, {dtype}", markdown_table([group, *sizes], rows), *_summary(of)]
    return parts


def _summary(ratios: Sequence[Ratio]) -> list[str]:
    medians = [found.median for ratio in ratios if (found := ratio.spread) is not None]
    if not medians:
        return []
    return [
        f"Numba is faster in {sum(median > 1 for median in medians)} of {len(medians)}, "
        f"{short(geometric_mean(medians))} times in the geometric mean."
    ]
