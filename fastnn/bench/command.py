"""``fastnn bench``: its options, and the run."""

import tempfile
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastnn import checks
from fastnn.bench.anatomy import Anatomy
from fastnn.bench.cases import INPUTS, PEERS, Case, Comparison
from fastnn.bench.costs import measure_costs
from fastnn.bench.machine import describe_environment, load
from fastnn.bench.measuring import dissect, environment, measure, measure_changes, race
from fastnn.bench.picture import draw, draw_ratios
from fastnn.bench.races import Race
from fastnn.bench.ratios import GROUPS, chosen, measure_ratios
from fastnn.bench.report import Report, Result, as_json
from fastnn.bench.samples import described
from fastnn.bench.suites import ROUNDS, SUITES, TAKES, TAKES_SEVERAL, suite_comparisons
from fastnn.bench.trees import WORKTREE, export, is_changed
from fastnn.bench.workloads import Workload
from fastnn.processors import usable

#: What suites look for by themselves, and go without where it is not found.
OTHER_DATA = "fashion_mnist"
#: Suites without peers.
ALONE = ("costs", "step", *GROUPS)
#: Suites that measure costs, after their comparisons.
WITH_COSTS = ("costs", "table")
#: Suites that draw.
DRAWN = ("step", *GROUPS)
#: Processes a side that ``--compare`` measures, unless told.
PROCESSES = 10
#: With fewer nothing can be told.
LEAST_PROCESSES = 3


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _peers(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    unknown = set(names) - set(PEERS)
    if unknown:
        raise ArgumentTypeError(f"expected some of {', '.join(PEERS)}, got {', '.join(unknown)}")
    return names


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of ``fastnn bench`` to a parser, and the list of suites.

    An option that is not given leaves no trace, so that a suite keeps its own value.
    """
    widest = max(map(len, SUITES))
    lines = [f"  {name:{widest}}  {text}" for name, text in SUITES.items()]
    parser.epilog = "\n".join(["suites:", *lines])
    parser.add_argument(
        "--suite",
        choices=SUITES,
        metavar="SUITE",
        default=SUPPRESS,
        help="what is compared, as below (default: default, or grid where an option has several "
        "values; with --compare commits)",
    )

    def add(flag: str, text: str, **how: Any) -> None:
        parser.add_argument(flag, default=SUPPRESS, help=text, **how)

    add(
        "--compare",
        f"is NEW slower than OLD? Two commits of this checkout, {WORKTREE} for its files as they "
        "are, or folders that have fastnn in them; the status is 1 if it is, 3 if noise hides it",
        nargs=2,
        metavar=("OLD", "NEW"),
    )
    everyone = ",".join(PEERS)
    add(
        "--peers",
        f"who to compare with, '' for nobody (default: {everyone})",
        type=_peers,
        metavar="NAMES",
    )
    add(
        "--hidden",
        "units of each hidden layer (default: 100 200); given several times, several networks",
        type=int,
        nargs="*",
        action="append",
        metavar="UNITS",
    )
    add(
        "--batch-size",
        "samples in a step, or several sizes (default: 32)",
        type=int,
        nargs="+",
        metavar="SAMPLES",
    )
    add(
        "--shape",
        "units of every layer, in place of --hidden: 784,100,200,10",
        type=_integers,
        metavar="UNITS",
    )
    add(
        "--input",
        "float or uint8, images as floats or as raw pixels; table, 100 dense columns; random, "
        "784 dense columns (default: float; in the default suite uint8 too, in the grid random "
        "too)",
        choices=INPUTS,
        nargs="+",
        metavar="FORM",
    )
    add(
        "--data",
        "images: a directory of four IDX files, or a name such as mnist or fashion_mnist (default: "
        f"mnist; in inputs and table {OTHER_DATA} too, where it is found)",
        nargs="+",
        metavar="DIR",
    )
    add(
        "--threads",
        "of every contender (default: 1; in the suite threads 2, in recipes 1 and then 2)",
        type=int,
        metavar="N",
    )
    add(
        "--dtype",
        "of parameters and inputs (default: float32; in step, operations and trainings both)",
        choices=("float32", "float64"),
    )
    add(
        "--rounds",
        "timed rounds, seeds of a recipe, or processes a side for --compare (default: 3 to 10, by "
        "suite)",
        type=int,
        metavar="N",
    )
    add(
        "--plot",
        "in the suites step, operations and trainings, draw what was found into FILE (.png, .svg, "
        ".pdf); needs matplotlib",
        type=Path,
        metavar="FILE",
    )
    add("--json", "write all figures to FILE, after each comparison", type=Path, metavar="FILE")
    add(
        "--beside",
        "measure nothing: print the files that --json wrote on several machines side by side",
        type=Path,
        nargs="+",
        metavar="FILE",
    )


def run(arguments: Namespace, progress: Callable[[str], None] | None = None) -> Report:
    """Run the suite that the arguments ask for.

    Parameters
    ----------
    arguments : argparse.Namespace
        As parsed from `add_arguments`.
    progress : callable, optional
        Is told what comes next, and what came out of each comparison.

    Returns
    -------
    Report
        After Ctrl-C, of what had been measured by then.

    Raises
    ------
    ValueError
        If an option contradicts the suite or describes no network.
    FileNotFoundError
        If there are no images where `--data` says.
    """
    say = progress or (lambda line: None)
    given = vars(arguments)
    if "compare" in given:
        return _compare(given, say)
    plan = _planned(given)
    file = _writable(given)
    found = begun = Report(
        describe_environment(), (), plan.missing, notes=plan.notes, suite=plan.suite
    )
    try:
        for found in _growing(begun, plan, say):
            _write(found, file)
    except KeyboardInterrupt:
        done, of = _done(found), len(plan.comparisons) + len(plan.workloads)
        where = f"after {done} of {of} comparisons"
        if done == of and plan.suite in WITH_COSTS:
            where = "while costs were measured"
        note = f"Interrupted {where}."
        found = replace(found, notes=(*found.notes, note), interrupted=True)
    if "plot" in given:
        found = _drawn(found, given["plot"])
    return _write(found, file)


@dataclass(frozen=True)
class _Plan:
    """What is to be measured, and what is to be said of what is not."""

    suite: str
    rounds: int
    comparisons: list[Comparison]
    workloads: list[Workload]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


def _planned(given: dict[str, Any]) -> _Plan:
    options = _options(given)
    suite = given.get("suite") or ("grid" if _has_several(options) else "default")
    options = _of_suite(suite, options)
    rounds = checks.integer("--rounds", given.get("rounds", ROUNDS[suite]), minimum=1)
    notes = []
    if suite in ("inputs", "table") and "data" not in options:
        options["data"], found = _data_here()
        notes += found
    if "plot" in given and suite not in DRAWN:
        raise ValueError(f"--plot: expected one of the suites {', '.join(DRAWN)}, got {suite}")
    if "peers" in given and suite in ALONE:
        raise ValueError(f"--peers: the suite {suite} compares with nobody")
    peers = () if suite in ALONE else given.get("peers", tuple(PEERS))
    missing = tuple(peer for peer in peers if find_spec(peer) is None)
    contenders = [name for peer in peers if peer not in missing for name in PEERS[peer]]
    comparisons = list(suite_comparisons(suite, contenders, options))
    if usable() == 1 and suite in ("table", "recipes"):
        comparisons = [c for c in comparisons if c.cases[0].threads == 1]
        notes.append("One processor, so threads are not compared.")
    workloads = chosen(suite, options.get("dtype")) if suite in GROUPS else []
    return _Plan(suite, rounds, comparisons, workloads, missing, tuple(notes))


def _growing(found: Report, plan: _Plan, say: Callable[[str], None]) -> Iterator[Report]:
    """Measure; yield the report after each comparison, with all that is known by then."""
    number = len(plan.comparisons)
    for place, comparison in enumerate(plan.comparisons, 1):
        say(f"{place}/{number} {comparison.name}")
        new: Anatomy | Race | Result
        if plan.suite == "step":
            new = dissect(comparison, plan.rounds)
            found = replace(found, anatomies=(*found.anatomies, new))
        elif plan.suite == "recipes":
            new = race(comparison, plan.rounds)
            found = replace(found, races=(*found.races, new))
        else:
            new = measure(comparison, plan.rounds)
            found = replace(found, results=(*found.results, new))
        say(f"    {new.verdict}")
        yield found
    if plan.workloads:
        number, variables = len(plan.workloads), environment(Case("numba"))
        for ratio in measure_ratios(plan.workloads, plan.rounds, variables):
            found = replace(found, ratios=(*found.ratios, ratio))
            said = ratio.spread or ratio.error
            say(f"{len(found.ratios)}/{number} {ratio.name}: {said}")
            yield found
    if plan.suite in WITH_COSTS:
        for cost in measure_costs(plan.rounds, say):
            found = replace(found, costs=(*found.costs, cost))
            yield found


def _done(found: Report) -> int:
    """Return how many comparisons a report has."""
    kinds = found.results, found.anatomies, found.races, found.ratios
    return sum(map(len, kinds))


def _drawn(found: Report, picture: Path) -> Report:
    """Draw what a report has to draw; return it, with a note where that fails."""
    try:
        if found.anatomies:
            draw(found.anatomies, picture)
        elif found.ratios:
            draw_ratios(found.ratios, picture)
    except OSError as error:  # what was measured is not lost
        return replace(found, notes=(*found.notes, f"There is no picture: {error}."))
    return found


def _writable(given: dict[str, Any]) -> Path | None:
    """Return the file of ``--json``; one that can't be written is found out before the work."""
    file: Path | None = given.get("json")
    if file is not None:
        file.touch()
    return file


def _write(found: Report, file: Path | None) -> Report:
    """Note how busy the machine is now, and write a report to its file, if it has one."""
    found = replace(found, environment=found.environment | {"load_at_end": load()})
    if file is not None:
        file.write_text(as_json(found))
    return found


def _compare(given: dict[str, Any], say: Callable[[str], None]) -> Report:
    """Measure the subjects of a suite on two states of fastnn."""
    options = _options(given)
    suite = given.get("suite") or ("commits" if set(options) <= set(TAKES["commits"]) else "grid")
    options = _of_suite(suite, options)
    if suite in (*ALONE, "recipes"):
        raise ValueError(f"--compare: the suite {suite} can't be measured on two commits")
    for name in ("peers", "plot"):
        if name in given:
            raise ValueError(f"--{name}: not with --compare")
    processes = checks.integer("--rounds", given.get("rounds", PROCESSES), minimum=LEAST_PROCESSES)
    comparisons = list(suite_comparisons(suite, (), options))
    file = _writable(given)
    machine = describe_environment()
    with tempfile.TemporaryDirectory() as folder:
        old, new = (
            export(f"--compare {side}", name, Path(folder, side))
            for side, name in zip(("OLD", "NEW"), given["compare"], strict=True)
        )
        notes = [f"Old is {old.name}: {old.description}\nNew is {new.name}: {new.description}"]
        if WORKTREE not in given["compare"] and is_changed(Path.cwd()):
            notes.append(f"The checkout has changes that are no commit; {WORKTREE} names them.")
        found = Report(machine, (), notes=tuple(notes), suite=f"{suite} of two commits")
        try:
            say("first rounds, which compile")
            for number, changes in enumerate(measure_changes(comparisons, processes, old, new)):
                say(f"{number}/{processes} processes a side")
                found = _write(replace(found, changes=tuple(changes)), file)
        except KeyboardInterrupt:
            found = replace(found, notes=(*notes, "Interrupted before the end."), interrupted=True)
    return _write(found, file)


def _options(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in TAKES["grid"] + ("shape",)}


def _has_several(options: dict[str, Any]) -> bool:
    return any(len(options.get(name, ())) > 1 for name in TAKES_SEVERAL["grid"])


def _of_suite(suite: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the options as the suite takes them, one value or a tuple."""
    options = {}
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if name not in TAKES[suite]:
            raise ValueError(f"{flag}: the suite {suite} chooses it by itself")
        if name in TAKES_SEVERAL["grid"]:
            values = tuple(tuple(v) if name == "hidden" else v for v in value)
            if name in TAKES_SEVERAL.get(suite, ()):
                options[name] = values
                continue
            if len(values) > 1:
                raise ValueError(
                    f"{flag}: the suite {suite} takes one, got {len(values)}; grid takes several"
                )
            value = values[0]
        options[name] = value
    for name in ("hidden", "batch_size", "threads"):
        if name in options:
            for number in checks.flat(options[name]):
                checks.integer(f"--{name.replace('_', '-')}", number, minimum=1)
    if "shape" in options and ("hidden" in options or "data" in options):
        raise ValueError("--shape: expected neither --hidden nor --data beside it")
    threads = given.get("threads", 2 if suite == "threads" else 1)
    if threads > usable():
        raise ValueError(
            f"--threads: expected at most {usable()}, the processors that this process may use, "
            f"got {threads}"
        )
    return options


def _data_here() -> tuple[tuple[str, ...], list[str]]:
    """Return the data sets that are compared where none is asked for, and what is to be said."""
    try:
        described(OTHER_DATA)
    except FileNotFoundError:
        return ("mnist",), [
            "Fashion-MNIST is not here, so not compared; `--data mnist DIR` takes its directory."
        ]
    return ("mnist", OTHER_DATA), []
