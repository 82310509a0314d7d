"""What a run of comparisons found, and how it is shown."""

import json
import math
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from fastnn.bench.cases import LABELS, Case
from fastnn.bench.costs import Costs
from fastnn.markdown import markdown_table

#: More comparisons than this are shown as a line each, without their tables.
DETAILED_COMPARISONS = 10
NO_VALUE = "-"


@dataclass(frozen=True)
class Outcome:
    """What one contender's worker measured, round by round, the warm-up first.

    `error` says why there is no time to report: the worker failed, or its results were wrong.
    `results` are mean losses of epochs, shares of wrong predictions, or largest errors.
    """

    case: Case
    label: str
    error: str | None
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    results: tuple[float, ...]


@dataclass(frozen=True)
class Result:
    """One comparison as measured; the first outcome is the subject's.

    `peak_gflops` is the best dense matrix product in the subject's dtype on its threads.
    """

    name: str
    rounds: int
    outcomes: tuple[Outcome, ...]
    peak_gflops: float

    def figures(self, outcome: Outcome) -> dict[str, Any] | None:
        """Derive an outcome's figures, None where it has no time; spreads are median, low, high.

        `time_ratio` is its time over the subject's in the same round. GFLOP/s are counted densely.
        """
        if outcome.error is not None:
            return None
        subject, case, timed = self.outcomes[0], outcome.case, outcome.seconds[1:]
        gflops = case.flops / median(timed) / 1e9
        figures: dict[str, Any] = {
            "samples_per_second": case.samples / median(timed),
            "step_microseconds": _spread(seconds / case.steps * 1e6 for seconds in timed),
            "gflops": gflops,
            "first_seconds": outcome.seconds[0],
        }
        if case.threads == subject.case.threads:
            figures["peak_share"] = gflops / self.peak_gflops
        if subject.error is None:
            pairs = zip(timed, subject.seconds[1:], strict=True)
            figures["time_ratio"] = _spread(other / own for other, own in pairs)
        return figures

    def best_ratio(self, outcomes: Iterable[Outcome]) -> float:
        """Return the time ratio of the fastest among `outcomes`; NaN if none has one."""
        figures = [self.figures(outcome) or {} for outcome in outcomes]
        return min((f["time_ratio"][0] for f in figures if "time_ratio" in f), default=math.nan)


@dataclass(frozen=True)
class Report:
    """All comparisons of a run, the machine that ran them, and the peers that were not there."""

    environment: dict[str, Any]
    results: tuple[Result, ...]
    missing: tuple[str, ...] = ()
    costs: Costs | None = None

    @property
    def failures(self) -> list[str]:
        """Every contender without a time, and why."""
        return [
            f"{result.name}: {outcome.label}: {outcome.error}"
            for result in self.results
            for outcome in result.outcomes
            if outcome.error is not None
        ]


def _spread(values: Iterable[float]) -> tuple[float, float, float]:
    values = list(values)
    return median(values), min(values), max(values)


def describe_environment() -> dict[str, Any]:
    """Return what a reader needs to judge or repeat the figures."""
    versions = {}
    for package in ("fastnn", "numpy", "numba", "torch", "jax", "scikit-learn"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    names = []
    if (cpus := Path("/proc/cpuinfo")).exists():
        lines = [line.partition(":") for line in cpus.read_text().splitlines()]
        names = [value.strip() for key, _, value in lines if key.strip() == "model name"]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def as_json(report: Report) -> str:
    """Render everything that was measured, with the derived figures beside it."""
    document = asdict(report)
    for result, shown in zip(report.results, document["results"], strict=True):
        for outcome, entry in zip(result.outcomes, shown["outcomes"], strict=True):
            entry["figures"] = result.figures(outcome)
    return json.dumps(document, indent=2)


def as_markdown(report: Report) -> str:
    """Render the report for a terminal or a README."""
    environment = report.environment
    versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
    parts = [
        f"{environment['cpu']}, {environment['cores']} cores, {environment['platform']}; "
        f"Python {environment['python']}, {versions}; {environment['date']}",
    ]
    if report.missing:
        parts.append(f"Not installed, so not compared: {', '.join(report.missing)}.")
    if len(report.results) > 1:
        parts += _summary(report.results)
    if len(report.results) <= DETAILED_COMPARISONS:
        parts += [part for result in report.results for part in _details(result)]
    if report.costs is not None:
        parts += ["### Before and beside the arithmetic", _costs(report.costs)]
    if report.failures:
        parts.append("\n".join(["No time reported:", *(f"- {text}" for text in report.failures)]))
    return "\n\n".join(parts) + "\n"


def _costs(costs: Costs) -> str:
    """What is paid once, a row for each."""
    return markdown_table(
        ["cost", "measured"],
        [
            ["`import fastnn` over `import numpy`", f"{costs.import_milliseconds:.0f} ms"],
            ["first step of the first run, nothing cached", f"{costs.cold_seconds:.1f} s"],
            ["first step of a later process", f"{costs.warm_seconds:.2f} s"],
            [
                "functions compiled for a shape never seen",
                str(costs.compiled_for_new_shape),
            ],
            [
                "peak memory of training over `import numba` and the raw pixels",
                f"{costs.memory_megabytes:.0f} MB",
            ],
        ],
    )


def _details(result: Result) -> list[str]:
    """One comparison: a row for every contender."""
    rows = []
    for outcome in result.outcomes:
        figures = result.figures(outcome)
        if figures is None:
            rows.append([outcome.label, *[NO_VALUE] * 6])
            continue
        ratio, share = figures.get("time_ratio"), figures.get("peak_share")
        rows.append(
            [
                outcome.label,
                f"{figures['samples_per_second']:,.0f}",
                "{:,.0f} ({:,.0f}-{:,.0f})".format(*figures["step_microseconds"]),
                f"{figures['gflops']:.1f}",
                f"{share:.0%}" if share else NO_VALUE,
                "{:.2f} ({:.2f}-{:.2f})".format(*ratio) if ratio else NO_VALUE,
                f"{figures['first_seconds']:.2f}",
            ]
        )
    subject = result.outcomes[0]
    header = ["contender", "samples/s", "us a step (range)", "GFLOP/s", "of peak"]
    header += [f"time over {LABELS[subject.case.contender]} (range)", "first round, s"]
    note = (
        f"{result.rounds} interleaved rounds of {subject.case.samples:,} samples, medians; the "
        f"peak, a dense matrix product at its best, is {result.peak_gflops:.1f} GFLOP/s."
    )
    return [f"### {result.name}", markdown_table(header, rows), note]


def _summary(results: Sequence[Result]) -> list[str]:
    """All comparisons, a row each, and how the subject fared over them."""
    others = dict.fromkeys(o.case.contender for result in results for o in result.outcomes[1:])
    rows, fastest = [], []
    for result in results:
        ratios = [
            result.best_ratio(o for o in result.outcomes[1:] if o.case.contender == other)
            for other in others
        ]
        ratios.append(result.best_ratio(o for o in result.outcomes if o.case.is_peer))
        fastest.append(ratios[-1])
        figures = result.figures(result.outcomes[0])
        speed = f"{figures['samples_per_second']:,.0f}" if figures else NO_VALUE
        cells = [NO_VALUE if math.isnan(ratio) else f"{ratio:.2f}" for ratio in ratios]
        rows.append([result.name, speed, *cells])
    labels = [LABELS[other] + (" on 1 thread" if other == "numba" else "") for other in others]
    parts = [
        "Samples/s of fastnn numba, and how many times as long each of the others took:",
        markdown_table(["comparison", "samples/s", *labels, "fastest peer"], rows),
    ]
    compared = [ratio for ratio in fastest if not math.isnan(ratio)]
    if compared:
        wins = sum(ratio > 1 for ratio in compared)
        parts.append(
            f"Faster than every peer in {wins} of {len(compared)} comparisons; geometric mean over "
            f"the fastest peer of each {geometric_mean(compared):.2f}."
        )
    return parts
