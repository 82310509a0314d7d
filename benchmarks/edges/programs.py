"""Whole programs: what a library takes to be imported, and to train once and be done."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from importlib.util import find_spec
from inspect import getsource
from statistics import median
from typing import Any, NamedTuple

from fastnn.bench import memory
from fastnn.bench.cases import LABELS, PEERS, Case
from fastnn.bench.costs import run_program
from fastnn.bench.measuring import tolerance

from .found import NUMPY, Edge, Found

_IMPORT = f"""
import json, time
{getsource(memory)}
start = time.perf_counter()
__import__(sys.argv[1])
print(json.dumps([time.perf_counter() - start, peak_memory()]))
"""
MODULES = ("fastnn", "numpy", "sklearn.neural_network", "jax", "torch")


def _import(rounds: int) -> Iterator[Found]:
    there = [module for module in MODULES if find_spec(module.partition(".")[0])]
    missing = tuple(set(MODULES) - set(there))
    for module in there:  # files are read, and compiled, before any is timed
        run_program(_IMPORT, module)
    found = [{m: run_program(_IMPORT, m) for m in there} for _ in range(rounds)]
    seconds = {module: [of[module][0] for of in found] for module in there}
    yield Found("import", seconds, missing=missing)
    megabytes = {module: [of[module][1] / 1e6 for of in found] for module in there}
    yield Found("memory after it", megabytes, "MB", missing=missing)


_ONCE = """
import json, sys, time
start = time.perf_counter()
from fastnn.bench.cases import Case
from fastnn.bench.memory import peak_memory
from fastnn.bench.worker import prepare
case = json.loads(sys.argv[1])
work = prepare(Case(**case | {"shape": tuple(case["shape"])}))
loss = work.judge(work.run())
seconds = time.perf_counter() - start
print(json.dumps([seconds, loss, peak_memory()]))
"""

COLD = "fastnn, nothing cached"
NAMES = {"fastnn": "numba", COLD: "numba", NUMPY: "numpy"} | {
    LABELS[name]: name for name in ("torch", "jax", "sklearn")
}
TINY = "4 samples, 2-3-2"
SIZES: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    TINY: (
        {"shape": (2, 3, 2), "samples": 4, "batch_size": 4, "input": "table"},
        (1, 5_000),
    ),
    "150 samples, 4-10-3, batch 30": (
        {"shape": (4, 10, 3), "samples": 150, "batch_size": 30, "input": "table"},
        (1, 2_000),
    ),
    "MNIST, 784-100-200-10, batch 32": ({}, (1, 2)),
}
"""Of each, the numbers of epochs."""


def _once(rounds: int) -> Iterator[Found]:
    missing = tuple(LABELS[peer] for peer in PEERS if find_spec(peer) is None)
    there = {label: name for label, name in NAMES.items() if label not in missing}
    for size, (work, numbers) in SIZES.items():
        # of two classes scikit-learn trains another network, with one output
        names = {of: name for of, name in there.items() if name != "sklearn" or size != TINY}
        for label, name in names.items():  # files are read and compiled before any is timed
            if label != COLD:
                _run(Case(name, task="fit", **work), label)
        for epochs in numbers:
            case = Case("numba", task="fit", epochs=epochs, **work)
            yield from _programs(_in_words(size, epochs), case, names, missing, rounds)


def _in_words(size: str, epochs: int) -> str:
    return f"{size}, {epochs:,} epoch{'s' if epochs > 1 else ''}"


def _programs(
    work: str, case: Case, names: dict[str, str], missing: tuple[str, ...], rounds: int
) -> Iterator[Found]:
    """Yield seconds of whole programs, and their memory."""
    seconds: dict[str, list[float]] = {label: [] for label in names}
    megabytes: dict[str, list[float]] = {label: [] for label in names}
    errors: dict[str, str] = {}
    for _ in range(rounds):
        found = {label: _run(replace(case, contender=of), label) for label, of in names.items()}
        expected = found[NUMPY].loss
        for label, of in found.items():
            seconds[label].append(of.seconds)
            megabytes[label].append(of.megabytes)
            if not math.isclose(of.loss, expected, rel_tol=tolerance(case)):
                errors[label] = f"loss {of.loss:.6g}, the NumPy backend has {expected:.6g}"
    for label in errors:
        del seconds[label], megabytes[label]
    yield Found(work, seconds, errors=errors, missing=missing)
    yield Found(f"{work}: memory", megabytes, "MB")


class _Run(NamedTuple):
    seconds: float
    loss: float
    megabytes: float


def _run(case: Case, label: str) -> _Run:
    with tempfile.TemporaryDirectory() if label == COLD else nullcontext() as cache:
        seconds, loss, peak = run_program(_ONCE, json.dumps(asdict(case)), cache=cache)
    return _Run(seconds, loss, peak / 1e6)


def _notes(found: Sequence[Found]) -> list[str]:
    """Say from how many epochs on a program is done earlier than on the NumPy backend."""
    by_work = {of.work: of for of in found}
    lines = []
    for size, (_, numbers) in SIZES.items():
        pair = [by_work.get(_in_words(size, epochs)) for epochs in numbers]
        said = [
            f"{epochs:,.0f} epoch{'s' if epochs > 1 else ''} {told}"
            for told, label in (("with kernels cached", "fastnn"), ("with nothing cached", COLD))
            if None not in pair and (epochs := _equal(pair, numbers, label)) is not None
        ]
        if said:
            lines.append(f"{size}: compiled epochs pay from {', from '.join(said)}.")
    return ["\n".join(f"- {line}" for line in lines)] if lines else []


def _equal(pair: Sequence[Any], numbers: tuple[int, int], label: str) -> float | None:
    """Return at how many epochs a program takes as long as on NumPy; None if at no number."""
    if any(name not in of.values for of in pair for name in (label, NUMPY)):
        return None
    few, many = numbers
    ours, theirs = ([median(of.values[name]) for of in pair] for name in (label, NUMPY))
    (start, slope), (their_start, their_slope) = (
        (of[0] - few * (of[1] - of[0]) / (many - few), (of[1] - of[0]) / (many - few))
        for of in (ours, theirs)
    )
    if slope >= their_slope:
        return None
    return max(1.0, math.ceil((start - their_start) / (their_slope - slope)))


EDGES = (
    Edge(
        "import",
        "What each library takes to be imported, and holds then.",
        ("import", "memory after it"),
        _import,
    ),
    Edge(
        "once",
        "A program that trains one network and is done: all of it, imports and compilation too.",
        tuple(
            f"{_in_words(size, epochs)}{end}"
            for size, (_, numbers) in SIZES.items()
            for epochs in numbers
            for end in ("", ": memory")
        ),
        _once,
        rounds=3,
        notes=_notes,
        shown=lambda of: of.unit == "s" or of.work.endswith(" 1 epoch: memory"),
    ),
)
