"""``fastnn bench``: its options, its suites of comparisons, and the run."""

import importlib.util
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from fastnn.bench.cases import PEERS, VARIANT_PEERS, VARIANTS, Case, Comparison, against
from fastnn.bench.costs import measure_costs
from fastnn.bench.measuring import measure
from fastnn.bench.report import Report, as_json, describe_environment

#: Timed rounds by suite, unless told.
ROUNDS = {"quick": 3, "default": 7, "variants": 7, "grid": 5, "table": 7}

#: What a suite varies or fixes by itself, so that no option may.
FIXED_OPTIONS = {
    "quick": (),
    "default": (),
    "variants": (),
    "grid": ("shape", "batch_size", "input"),
    "table": ("shape", "batch_size", "dtype", "input", "threads"),
}

GRID_HIDDEN = ((32,), (128,), (512,), (100, 200), (512, 512), (1024,))
GRID_BATCH_SIZES = (1, 8, 32, 128, 512)
#: About how much a round of the grid computes, so that large networks don't take all the time.
GRID_FLOPS = 16_000_000_000
#: Batch, input units and output units of single layers, and how often a round runs them.
DENSE_LAYERS = ((128, 512, 512), (512, 1024, 1024))
DENSE_STEPS = 50
THREAD_PAIRS = (((100, 200), 32), ((100, 200), 128), ((512, 512), 32))


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _peers(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    unknown = set(names) - set(PEERS)
    if unknown:
        raise ArgumentTypeError(f"expected some of {', '.join(PEERS)}, got {', '.join(unknown)}")
    return names


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of ``fastnn bench`` to a parser.

    An option that is not given leaves no trace, so that a suite keeps its own value.
    """
    parser.add_argument(
        "--suite",
        choices=ROUNDS,
        default="default",
        help="quick: one network, in a minute; default: training and prediction of one network; "
        "variants: momentum, Adam, dropout and batch norm; grid: 60 pairs of network and batch "
        "size; table: float64, AVX2, single layers, variants, threads, start-up and memory as well",
    )

    def add(flag: str, text: str, **how: Any) -> None:
        parser.add_argument(flag, default=SUPPRESS, help=text, **how)

    everyone = ",".join(PEERS)
    add("--peers", f"who to compare with, '' for nobody (default: {everyone})", type=_peers)
    add("--shape", "units of every layer (default: 784,100,200,10)", type=_integers)
    add("--batch-size", "samples in a step (default: 32)", type=int)
    add("--threads", "threads of every contender (default: 1)", type=int)
    add("--rounds", "timed rounds (default: 3 to 7, by suite)", type=int)
    add("--dtype", "of parameters and inputs (default: float32)", choices=("float32", "float64"))
    add(
        "--input",
        "MNIST as floats, as raw pixels, or dense random numbers (default: float, and uint8 too "
        "in the default suite)",
        choices=("float", "uint8", "random"),
    )
    add("--json", "write all figures to this file", type=Path)


def suite_comparisons(
    suite: str, contenders: Iterable[str], options: dict[str, Any]
) -> Iterator[Comparison]:
    """Yield the comparisons of a suite.

    Parameters
    ----------
    suite : {"quick", "default", "variants", "grid", "table"}
    contenders : iterable of str
        Peers to compare with.
    options : dict
        Fields of `Case` that the caller fixes.
    """
    contenders = tuple(contenders)
    if suite == "quick":
        yield against(contenders, **{"samples": 12_800} | options)
    elif suite == "default":
        for form in [options["input"]] if "input" in options else ["float", "uint8"]:
            yield against(contenders, **options | {"input": form})
        yield against(contenders, task="predict", samples=10_000, **options)
    elif suite == "variants":
        known = [name for name in contenders if name in VARIANT_PEERS]
        for variant in VARIANTS:
            yield against(known, variant=variant, **options)
    elif suite == "grid":
        for form, hidden, batch_size in product(("float", "random"), GRID_HIDDEN, GRID_BATCH_SIZES):
            shape = (784, *hidden, 10)
            flops = Case("numba", shape=shape, batch_size=1, samples=1).flops
            samples = max(min(25_600, 4_096 * batch_size, GRID_FLOPS // flops), 32 * batch_size)
            work = {"shape": shape, "batch_size": batch_size, "input": form, "samples": samples}
            yield against(contenders, **work | options)
    else:
        yield from suite_comparisons("default", contenders, {})
        yield against(contenders, dtype="float64")
        yield against(contenders, avx2=True)
        yield from suite_comparisons("variants", contenders, {})
        for batch_size, *units in DENSE_LAYERS:
            yield against(
                [name for name in contenders if name == "torch"],
                task="dense",
                shape=tuple(units),
                batch_size=batch_size,
                samples=DENSE_STEPS * batch_size,
                input="random",
            )
        for hidden, batch_size in THREAD_PAIRS:
            one = Case("numba", shape=(784, *hidden, 10), batch_size=batch_size)
            yield Comparison((replace(one, threads=2), one, replace(one, contender="numpy")))


def run(arguments: Namespace, progress: Callable[[str], None] | None = None) -> Report:
    """Run the suite that the arguments ask for.

    Parameters
    ----------
    arguments : argparse.Namespace
        As parsed from `add_arguments`.
    progress : callable, optional
        Is told each comparison's name before it starts.

    Raises
    ------
    ValueError
        If an option contradicts the suite or describes no network.
    """
    given = vars(arguments)
    suite, file = given["suite"], given.get("json")
    names = ("shape", "batch_size", "threads", "dtype", "input")
    options = {name: given[name] for name in names if name in given}
    for name in FIXED_OPTIONS[suite]:
        if name in options:
            raise ValueError(f"--{name.replace('_', '-')}: the suite {suite} chooses it by itself")
    rounds = given.get("rounds", ROUNDS[suite])
    if rounds < 1:
        raise ValueError(f"--rounds: expected at least 1, got {rounds}")
    if file is not None:
        file.touch()  # a path that cannot be written is found out before the work
    peers = given.get("peers", tuple(PEERS))
    missing = tuple(peer for peer in peers if importlib.util.find_spec(peer) is None)
    contenders = [name for peer in peers if peer not in missing for name in PEERS[peer]]
    environment = describe_environment()
    results = []
    for comparison in suite_comparisons(suite, contenders, options):
        if progress is not None:
            progress(comparison.name)
        results.append(measure(comparison, rounds))
    costs = None
    if suite == "table":
        if progress is not None:
            progress("import, compilation and memory")
        costs = measure_costs(rounds)
    report = Report(environment, tuple(results), missing, costs)
    if file is not None:
        file.write_text(as_json(report))
    return report
