"""What a run of comparisons found, and how it is shown."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import geometric_mean, median
from typing import Any

from fastnn.bench import anatomy
from fastnn.bench.cases import LABELS, Case
from fastnn.bench.changes import Change, change_sections, findings
from fastnn.bench.costs import Cost
from fastnn.bench.figures import NO_VALUE, Spread, short, spread
from fastnn.bench.machine import IDLE_LOAD, in_words
from fastnn.bench.races import Race, race_sections
from fastnn.bench.ratios import Ratio, ratio_sections
from fastnn.markdown import markdown_table

#: More comparisons than this are shown as a line each, without their tables.
DETAILED_COMPARISONS = 10


@dataclass(frozen=True)
class Outcome:
    """What one contender's worker measured, round by round, the warm-up first.

    `error` says why there is no time to report: the worker failed, or its results were wrong.
    `results` are mean losses of epochs, shares of wrong predictions, or largest errors.
    `peak_bytes` are the most memory that the process held in each round. `rows_a_call` is how many
    samples a prediction of all took at a time, in the end.
    """

    case: Case
    label: str
    error: str | None
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    results: tuple[float, ...]
    peak_bytes: tuple[int | None, ...] = ()
    rows_a_call: int | None = None


@dataclass(frozen=True)
class Result:
    """One comparison as measured; the first outcome is the subject's.

    `peak_gflops` is the best dense matrix product in the subject's dtype on its threads.
    """

    name: str
    rounds: int
    outcomes: tuple[Outcome, ...]
    peak_gflops: float

    @property
    def subject(self) -> Outcome:
        """What the others are compared to."""
        return self.outcomes[0]

    def figures(self, outcome: Outcome) -> dict[str, Any] | None:
        """Derive an outcome's figures, None where it has no time; spreads are median and quartiles.

        `time_ratio` is its time over the subject's in the same round. GFLOP/s are counted densely.
        `processors` is how many it kept busy, and less than its threads where others took them;
        `cpu_ratio` is of the time that processors were busy for each, which others disturb less.
        """
        if outcome.error is not None:
            return None
        case, timed = outcome.case, outcome.seconds[1:]
        gflops = case.flops / median(timed) / 1e9
        figures: dict[str, Any] = {
            "samples_per_second": case.samples * case.epochs / median(timed),
            "step_microseconds": spread(seconds / case.steps * 1e6 for seconds in timed),
            "gflops": gflops,
            "first_seconds": outcome.seconds[0],
            "processors": sum(outcome.cpu_seconds[1:]) / sum(timed),
        }
        known = [size for size in outcome.peak_bytes if size is not None]
        if known:
            figures["peak_megabytes"] = max(known) / 1e6
        if case.threads == self.subject.case.threads:
            figures["peak_share"] = gflops / self.peak_gflops
        if self.subject.error is None:
            pairs = zip(timed, self.subject.seconds[1:], strict=True)
            figures["time_ratio"] = spread(other / own for other, own in pairs)
            pairs = zip(outcome.cpu_seconds[1:], self.subject.cpu_seconds[1:], strict=True)
            figures["cpu_ratio"] = spread(other / own for other, own in pairs)
        return figures

    def best(self, outcomes: Iterable[Outcome]) -> tuple[Outcome, Spread] | None:
        """Return the fastest among `outcomes` and its time ratio; None if none has one."""
        ratios = [(o, (self.figures(o) or {}).get("time_ratio")) for o in outcomes]
        found = [(outcome, ratio) for outcome, ratio in ratios if ratio is not None]
        return min(found, key=lambda pair: pair[1].median, default=None)

    @property
    def fastest_peer(self) -> tuple[Outcome, Spread] | None:
        """The fastest of other packages, and its time ratio; None if none has one."""
        return self.best(outcome for outcome in self.outcomes if outcome.case.is_peer)

    @property
    def verdict(self) -> str:
        """The comparison in a line."""
        if self.subject.error is not None:
            return f"no time: {self.subject.error}"
        shown = [
            f"{outcome.label} {figures['time_ratio']}"
            for outcome in self.outcomes[1:]
            if not outcome.case.is_peer and (figures := self.figures(outcome))
        ]
        if self.fastest_peer is not None:
            outcome, ratio = self.fastest_peer
            shown.append(f"the fastest peer, {outcome.label}, {ratio}")
        return f"time over fastnn numba: {'; '.join(shown)}"


@dataclass(frozen=True)
class Report:
    """All comparisons of a suite, or all changes from one commit to another; and the machine.

    `missing` are the peers that were not installed; `notes` say what else was left out, and
    `interrupted` whether the rest was.
    """

    environment: dict[str, Any]
    results: tuple[Result, ...]
    missing: tuple[str, ...] = ()
    costs: tuple[Cost, ...] = ()
    anatomies: tuple[anatomy.Anatomy, ...] = ()
    races: tuple[Race, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    changes: tuple[Change, ...] = ()
    suite: str = ""

    @property
    def regressions(self) -> list[str]:
        """What has become slower."""
        pairs = zip(self.changes, findings(self.changes), strict=True)
        return [of.name for of, found in pairs if found is not None and found.is_regression]

    @property
    def hidden(self) -> list[str]:
        """What may have become slower or not, for all that can be told."""
        pairs = zip(self.changes, findings(self.changes), strict=True)
        return [of.name for of, found in pairs if found is not None and found.is_hidden]

    @property
    def failures(self) -> list[str]:
        """Every contender without a time, and every cost, and why."""
        contenders = [
            f"{result.name}: {outcome.label}: {outcome.error}"
            for result in self.results
            for outcome in result.outcomes
            if outcome.error is not None
        ]
        costs = [f"{cost.name}: {cost.error}" for cost in self.costs if cost.error is not None]
        steps = [f"{of.name}: {of.error}" for of in self.anatomies if of.error is not None]
        runners = [
            f"{race.name}: {runner.label}: {runner.error}"
            for race in self.races
            for runner in race.runners
            if runner.error is not None
        ]
        workloads = [f"{of.name}: {of.error}" for of in self.ratios if of.error is not None]
        changes = [f"{of.name}: {of.error}" for of in self.changes if of.error is not None]
        return contenders + costs + steps + runners + workloads + changes


def as_json(report: Report) -> str:
    """Render everything that was measured, with the derived figures beside it."""
    document = asdict(report)
    for result, shown in zip(report.results, document["results"], strict=True):
        for outcome, entry in zip(result.outcomes, shown["outcomes"], strict=True):
            entry["figures"] = result.figures(outcome)
    for cost, entry in zip(report.costs, document["costs"], strict=True):
        entry["spread"] = spread(cost.values) if cost.values else None
    for ratio, entry in zip(report.ratios, document["ratios"], strict=True):
        entry["spread"] = ratio.spread
    for race, shown in zip(report.races, document["races"], strict=True):
        for runner, entry in zip(race.runners, shown["runners"], strict=True):
            entry["times"] = race.times(runner)
    for finding, entry in zip(findings(report.changes), document["changes"], strict=True):
        entry["finding"] = finding and finding._asdict() | {"verdict": finding.verdict}
    document["failures"] = report.failures
    return json.dumps(document, indent=2)


def as_markdown(report: Report) -> str:
    """Render the report for a terminal or a README."""
    parts = [machine_line(report.environment)]
    if report.missing:
        parts.append(f"Not installed, so not compared: {', '.join(report.missing)}.")
    parts += report.notes
    if len(report.results) > 1:
        parts += _grids(report.results)
        parts += _summary(report.results)
        parts += _memory(report.results)
    if len(report.results) <= DETAILED_COMPARISONS:
        parts += [part for result in report.results for part in _details(result)]
    parts += [part for found in report.anatomies for part in anatomy.as_markdown(found)]
    if report.costs:
        parts += ["### Before and beside the arithmetic", _costs(report.costs)]
    if report.ratios:
        parts += ratio_sections(report.ratios)
    if report.races:
        parts += race_sections(report.races)
    if report.changes:
        parts += change_sections(report.changes)
    if report.failures:
        parts.append("\n".join(["No time reported:", *(f"- {text}" for text in report.failures)]))
    return "\n\n".join(parts) + "\n"


def machine_line(environment: dict[str, Any]) -> str:
    """Return what `describe_environment` found, for a reader."""
    return "\n\n".join(filter(None, (in_words(environment), load_warning(environment))))


def load_warning(environment: dict[str, Any]) -> str | None:
    """Return what a reader must know of other programs, None if there was nothing to speak of."""
    load = environment["load"]
    if load is None or load <= IDLE_LOAD:
        return None
    return f"Other programs were running, a load of {load:.1f}: take the figures as rough."


def _costs(costs: Sequence[Cost]) -> str:
    """What is paid once, or beside the training, a row for each."""
    rows = []
    for cost in costs:
        if cost.error is not None:
            continue
        found = spread(cost.values)
        unit = f" {cost.unit}".rstrip()
        shown = short(found.median) if cost.unit else f"{found.median:g}"
        quartiles = found.quartiles if len(cost.values) > 1 else NO_VALUE
        rows.append([cost.name, shown + unit, quartiles])
    return markdown_table(["cost", "measured", "quartiles"], rows)


def _details(result: Result) -> list[str]:
    """One comparison: a row for every contender."""
    rows = []
    for outcome in result.outcomes:
        figures = result.figures(outcome)
        if figures is None:
            rows.append([outcome.label, *[NO_VALUE] * 8])
            continue
        ratio, share = figures.get("time_ratio"), figures.get("peak_share")
        memory = figures.get("peak_megabytes")
        rows.append(
            [
                outcome.label,
                f"{figures['samples_per_second']:,.0f}",
                str(figures["step_microseconds"]),
                NO_VALUE if ratio is None else str(ratio),
                f"{figures['gflops']:.1f}",
                NO_VALUE if share is None else f"{share:.0%}",
                NO_VALUE if memory is None else f"{memory:,.0f}",
                f"{figures['processors']:.2f}",
                f"{figures['first_seconds']:.2f}",
            ]
        )
    case = result.subject.case
    unit = {"row": "row", "predict": "call"}.get(case.task, "step")
    header = ["contender", "samples/s", f"us a {unit}", f"time over {LABELS[case.contender]}"]
    header += ["GFLOP/s", "of peak", "peak MB", "processors", "first round, s"]
    note = (
        f"{result.rounds} interleaved rounds of {case.samples * case.epochs:,} samples, all from "
        "the same parameters: medians, quartiles in brackets. The peak, a dense matrix product at "
        f"its best, is {result.peak_gflops:.1f} GFLOP/s."
    )
    return [f"### {result.name}", markdown_table(header, rows), note]


def _summary(results: Sequence[Result]) -> list[str]:
    """All comparisons, a row each, and how the subject fared over them.

    What fastnn does on one thread, or with samples by columns, is a table of its own.
    """
    parts = [
        "Samples/s of fastnn numba, and how many times as long each of the others took, quartiles "
        "in brackets:"
    ]
    tables: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        own = [o for o in result.outcomes[1:] if o.case.contender == "numba"]
        tables.setdefault(tuple(_column(result.subject, o) for o in own), []).append(result)
    for of in tables.values():
        common, names = _apart([result.name for result in of])
        if common:
            parts.append(f"{', '.join(common)}:")
        parts.append(_rows(of, names))
    parts += _won(results)
    for result in results:
        if result.subject.case.task == "row":
            parts += _beside_numpy(result)
    return parts


def _rows(results: Sequence[Result], names: Sequence[str]) -> str:
    """Return a table of comparisons, a row each, under names that are left of theirs."""
    columns = dict.fromkeys(_column(r.subject, o) for r in results for o in r.outcomes[1:])
    rows = []
    for result, name in zip(results, names, strict=True):
        found = [
            result.best(o for o in result.outcomes[1:] if _column(result.subject, o) == column)
            for column in columns
        ]
        ratios = [NO_VALUE if pair is None else str(pair[1]) for pair in found]
        figures = result.figures(result.subject)
        speed = f"{figures['samples_per_second']:,.0f}" if figures else NO_VALUE
        fastest = result.fastest_peer
        rows.append([name, speed, *ratios, NO_VALUE if fastest is None else short(fastest[1][0])])
    return markdown_table(["comparison", "samples/s", *columns, "fastest peer"], rows)


def _column(subject: Outcome, outcome: Outcome) -> str:
    """Return the heading under which an outcome's ratio to the subject stands."""
    case, heading = outcome.case, LABELS[outcome.case.contender]
    if case.threads != subject.case.threads:
        heading += f" on {case.team}"
    if case.matmul_precision != subject.case.matmul_precision:
        heading += f", {case.products}"
    if case.order != subject.case.order:
        heading += " by columns"
    return heading


def _apart(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what all names have in common, and of each name the rest; all of one by itself."""
    if len(names) == 1:
        return [], list(names)
    split = [name.split(", ") for name in names]
    common = [part for part in split[0] if all(part in parts for parts in split)]
    return common, [", ".join(part for part in parts if part not in common) for parts in split]


def _won(results: Sequence[Result]) -> list[str]:
    """In how many comparisons the subject was faster than all peers, by input where there are more.

    The geometric mean is of the times of the fastest peer of each over the subject's. Only what all
    peers of the run have a time for counts: where the fastest can't run, the fastest of the others
    is easily beaten.
    """
    by_input: dict[str, list[float]] = {}
    timed = [_timed_peers(result) for result in results]
    everyone = {name: None for names in timed for name in names}
    for result, names in zip(results, timed, strict=True):
        if (fastest := result.fastest_peer) is not None and len(names) == len(everyone):
            by_input.setdefault(result.subject.case.form, []).append(fastest[1].median)
    if not everyone:
        return []
    labels = ", ".join(LABELS[name] for name in everyone)
    if not by_input:
        return [f"No comparison has a time of each peer: {labels}."]
    groups = [("all", [ratio for ratios in by_input.values() for ratio in ratios])]
    if len(by_input) > 1:
        groups += [(form, ratios) for form, ratios in by_input.items() if len(ratios) > 1]
    lines = [
        f"{name}: faster than every peer in {sum(ratio > 1 for ratio in ratios)} of {len(ratios)}, "
        f"{geometric_mean(ratios):.2f} times in the geometric mean over the fastest of each "
        f"({min(ratios):.2f} to {max(ratios):.2f})."
        for name, ratios in groups
    ]
    unlike = sum(0 < len(names) < len(everyone) for names in timed)
    if unlike:
        counted = f"Counted is what each peer has a time for ({labels})"
        lines.append(
            f"{counted}; {unlike} comparison{'s' if unlike > 1 else ''} without some left out."
        )
    return ["\n".join(f"- {line}" for line in lines)]


def _timed_peers(result: Result) -> list[str]:
    """Return the peers that have a time relative to the subject's, each once."""
    peers = [o for o in result.outcomes if o.case.is_peer]
    return list(
        dict.fromkeys(o.case.contender for o in peers if "time_ratio" in (result.figures(o) or {}))
    )


def _beside_numpy(result: Result) -> list[str]:
    """What a call costs more than the NumPy backend's."""
    both = [
        figures["step_microseconds"].median
        for outcome in result.outcomes
        if outcome.case.contender in ("numba", "numpy") and (figures := result.figures(outcome))
    ]
    if len(both) < 2:
        return []
    ours, theirs = both
    more = f"{abs(ours - theirs):.1f} us {'more' if ours > theirs else 'less'}"
    return [f"{result.name}: {ours:.1f} us, {more} than on the NumPy backend."]


def _grids(results: Sequence[Result]) -> list[str]:
    """Networks against batch sizes at a glance, for each kind of work that has several of both."""
    grids: dict[str, dict[tuple[tuple[int, ...], int], Result]] = {}
    for result in results:
        case = result.subject.case
        sizes = ("-".join(map(str, case.shape)), f"batch {case.batch_size}")
        work = ", ".join(part for part in result.name.split(", ") if part not in sizes)
        grids.setdefault(work, {})[case.shape, case.batch_size] = result
    parts = []
    for work, grid in grids.items():
        shapes = list(dict.fromkeys(shape for shape, _ in grid))
        batch_sizes = list(dict.fromkeys(batch_size for _, batch_size in grid))
        whole = len(grid) == len(shapes) * len(batch_sizes)
        if not whole or len(grid) < 4 or not any(r.fastest_peer for r in grid.values()):
            continue
        rows = [
            ["-".join(map(str, shape)), *[_glance(grid[shape, size]) for size in batch_sizes]]
            for shape in shapes
        ]
        header = ["network", *[f"batch {size}" for size in batch_sizes]]
        parts += [
            f"### {work}",
            "The fastest peer, and how many times as long as fastnn numba it took:",
            markdown_table(header, rows),
        ]
    return parts


def _glance(result: Result) -> str:
    if result.fastest_peer is None:
        return NO_VALUE
    outcome, ratio = result.fastest_peer
    return f"{outcome.case.contender} {short(ratio.median)}"


def _memory(results: Sequence[Result]) -> list[str]:
    """The most memory that a process of each contender held in training, over all comparisons."""
    found: dict[str, list[float]] = {}
    for result in results:
        for outcome in result.outcomes:
            figures = result.figures(outcome)
            if outcome.case.trains and figures and "peak_megabytes" in figures:
                label = LABELS[outcome.case.contender]
                found.setdefault(label, []).append(figures["peak_megabytes"])
    if not found:
        return []
    shown: list[tuple[str, Callable[[list[float]], float]]] = [
        ("least", min),
        ("median", median),
        ("most", max),
    ]
    rows = [[label, *[f"{of(sizes):,.0f}" for _, of in shown]] for label, sizes in found.items()]
    return [
        "Peak memory of the whole process in training, in MB, libraries and samples included, "
        "over the comparisons:",
        markdown_table(["contender", *[name for name, _ in shown]], rows),
    ]
