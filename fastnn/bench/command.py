"""``fastnn bench``: its options, and the run."""

import tempfile
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastnn import checks
from fastnn.bench.anatomy import Anatomy
from fastnn.bench.cases import INPUTS, PEERS, Case
from fastnn.bench.costs import Cost, measure_costs
from fastnn.bench.machine import describe_environment, load
from fastnn.bench.measuring import dissect, environment, measure, measure_changes, race
from fastnn.bench.picture import draw, draw_ratios
from fastnn.bench.races import Race
from fastnn.bench.ratios import GROUPS, Ratio, chosen, measure_ratios
from fastnn.bench.report import Report, Result, as_json
from fastnn.bench.samples import described
from fastnn.bench.suites import ROUNDS, SUITES, TAKES, TAKES_SEVERAL, suite_comparisons
from fastnn.bench.trees import WORKTREE, export, is_changed
from fastnn.processors import usable

#: What suites look for by themselves, and go without where it is not found.
OTHER_DATA = "fashion_mnist"
#: Suites without peers.
ALONE = ("costs", "step", *GROUPS)
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
    workloads = chosen(suite, options.get("dtype")) if suite in GROUPS else []
    if usable() == 1 and suite in ("table", "recipes"):
        comparisons = [c for c in comparisons if c.cases[0].threads == 1]
        notes.append("One processor, so threads are not compared.")
    file = given.get("json")
    if file is not None:
        file.touch()  # a path that cannot be written is found out before the work
    machine = describe_environment()
    results: list[Result] = []
    anatomies: list[Anatomy] = []
    races: list[Race] = []
    ratios: list[Ratio] = []

    def report(*costs: Cost, interrupted: bool = False) -> Report:
        found = Report(
            machine | {"load_at_end": load()},
            tuple(results),
            missing,
            costs,
            tuple(anatomies),
            tuple(races),
            tuple(ratios),
            tuple(notes),
            interrupted,
            suite=suite,
        )
        if file is not None:
            file.write_text(as_json(found))
        return found

    interrupted = False
    try:
        for number, comparison in enumerate(comparisons, 1):
            say(f"{number}/{len(comparisons)} {comparison.name}")
            if suite == "step":
                anatomies.append(dissect(comparison, rounds))
                say(f"    {anatomies[-1].verdict}")
            elif suite == "recipes":
                races.append(race(comparison, rounds))
                say(f"    {races[-1].verdict}")
            else:
                results.append(measure(comparison, rounds))
                say(f"    {results[-1].verdict}")
            report()
        if workloads:
            for ratio in measure_ratios(workloads, rounds, environment(Case("numba"))):
                ratios.append(ratio)
                say(f"{len(ratios)}/{len(workloads)} {ratio.name}: {ratio.spread or ratio.error}")
                report()
        costs = measure_costs(rounds, say) if suite in ("costs", "table") else []
    except KeyboardInterrupt:
        done = len(results) + len(anatomies) + len(races) + len(ratios)
        of = len(comparisons) + len(workloads)
        notes.append(f"Interrupted after {done} of {of} comparisons.")
        costs, interrupted = [], True
    if "plot" in given and (anatomies or ratios):
        try:
            if anatomies:
                draw(anatomies, given["plot"])
            else:
                draw_ratios(ratios, given["plot"])
        except OSError as error:  # what was measured is not lost
            notes.append(f"There is no picture: {error}.")
    return report(*costs, interrupted=interrupted)


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
    file = given.get("json")
    if file is not None:
        file.touch()
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
                found = replace(
                    found,
                    environment=machine | {"load_at_end": load()},
                    changes=tuple(changes),
                )
                if file is not None:
                    file.write_text(as_json(found))
        except KeyboardInterrupt:
            found = replace(found, notes=(*notes, "Interrupted before the end."), interrupted=True)
    return found


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
