"""Interleaved rounds over worker processes, and the check of every result before its time counts.

A machine that is shared or changes its clock moves by more between two minutes than contenders
differ. So all contenders of a comparison are alive at once and take turns, in each round in another
order, and what is compared is the ratio within a round.
"""

import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from fastnn.bench.anatomy import Anatomy, gathered
from fastnn.bench.cases import Case, Comparison
from fastnn.bench.changes import AGAIN, NEW, OLD, SIDES, Change
from fastnn.bench.machine import inherited, kept_to, python_path
from fastnn.bench.races import Race, Runner
from fastnn.bench.recipes import RECIPES, Look
from fastnn.bench.report import Outcome, Result
from fastnn.bench.threads import THREAD_VARIABLES
from fastnn.bench.trees import Tree

#: Products in each round of the machine's peak; the best of all counts.
PEAK_REPEATS = 5

#: Timed rounds of each piece of work in a process, when two commits are compared: an even number.
ROUNDS_OF_A_PROCESS = 8

#: OpenMP and BLAS threads spin on for a while when their work is done. Before a neighbour's round
#: they get this many seconds to fall asleep.
SETTLING_SECONDS = 0.25


def environment(case: Case) -> dict[str, str]:
    """Return a worker's variables.

    Some fix threads and instructions, which libraries read on import; the rest is inherited.
    """
    threads = str(case.threads)
    variables = dict.fromkeys(THREAD_VARIABLES, threads)
    xla_flags = [f"--xla_cpu_multi_thread_eigen={str(case.threads > 1).lower()}"]
    if case.avx2:
        xla_flags.append("--xla_cpu_max_isa=AVX2")
        variables |= {
            "ATEN_CPU_CAPABILITY": "avx2",
            "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",  # it keeps code for wider vectors, gives NaN
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "OPENBLAS_CORETYPE": "Haswell",
            "NUMBA_CPU_NAME": "haswell",
            "FASTNN_VECTOR_BITS": "256",
        }
    return inherited() | variables | {"XLA_FLAGS": " ".join(xla_flags)}


_ON_ANOTHER_FASTNN = """
import sys, types
from pathlib import Path

root, bench = sys.argv[1:]
import fastnn

assert Path(fastnn.__file__).is_relative_to(root), f"{fastnn.__file__} is not in {root}"
package = types.ModuleType("fastnn.bench")
package.__path__ = [bench]
sys.modules["fastnn.bench"] = fastnn.bench = package
from fastnn.bench.worker import serve

serve()
"""
"""A worker of this fastnn's that measures the one in another folder, whose own it may not have."""


class Worker:
    """A process that holds one contender and runs a round when told to.

    Parameters
    ----------
    case : Case
        The contender, and its work.
    root : Path, optional
        The folder with the fastnn that is measured, if it isn't this one. Its kernels are kept
        beside it.
    """

    def __init__(self, case: Case, root: Path | None = None) -> None:
        self.case, self.root = case, root
        self.rounds: list[dict[str, Any]] = []
        self.error: str | None = None

    def __enter__(self) -> Self:
        self.log = tempfile.TemporaryFile("w+", errors="replace")
        with kept_to(self.case.threads):
            self.process = subprocess.Popen(
                [sys.executable, *self._program()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                text=True,
                bufsize=1,
                env=environment(self.case) | self._places(),
            )
        self.send(self.case)
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.log.close()

    def _program(self) -> list[str]:
        if self.root is None:
            return ["-m", "fastnn.bench.worker"]
        # -P, or the fastnn in the current folder would come before all others
        return ["-P", "-c", _ON_ANOTHER_FASTNN, str(self.root), str(Path(__file__).parent)]

    def _places(self) -> dict[str, str]:
        if self.root is None:
            return {"PYTHONPATH": python_path()}
        kernels = self.root.with_name(f"{self.root.name}-kernels")
        return {"PYTHONPATH": python_path(self.root), "NUMBA_CACHE_DIR": str(kernels)}

    def send(self, case: Case | None) -> None:
        """Have it make a contender, or run a round."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # the answer that does not come will tell
            self.process.stdin.write(json.dumps(case and asdict(case)) + "\n")

    def receive(self) -> dict[str, Any] | None:
        """Wait for an answer; where none comes, note why and be out of the comparison."""
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return dict(json.loads(line))
        self.process.wait()
        self.log.seek(0)
        self.error = next(filter(str.strip, reversed(self.log.read().split("\n"))), "no message")
        return None

    def run_round(self) -> None:
        """Run one round, unless the worker has failed before."""
        if self.error is None:
            self.send(None)
            if answer := self.receive():
                self.rounds.append(answer)


def tolerance(case: Case) -> float:
    """Relative difference of mean losses that rounding explains in an epoch from the same start.

    Correct programs sum in different orders. A unit whose input is within rounding of zero is then
    on in one program and off in another, and the difference is no longer small: moving the initial
    weights by 1e-6 in exact arithmetic moves the first epoch's loss by 5e-4. In float64 hardly any
    input comes so close to zero. How much a wrong learning rate moves a loss depends on the data;
    `movement_tolerance` is what finds one.
    Peers draw dropout masks of their own, which moves the mean loss of an epoch by a few percent.
    Adam steps as far along a gradient that is all rounding as along any other.
    Numbers that differ in their last bit may be rounded to two bfloat16, which are 2^-8 of them
    apart, in each layer; and libraries differ in what else they round, as PyTorch does sums.
    """
    if (case.variant == "dropout" and case.is_peer) or case.variant == "adam":
        return 5e-2
    exact = 1e-2 if case.dtype == "float32" else 1e-6
    rounded = 0.0 if case.matmul_precision is None else (len(case.shape) - 1) * 2.0**-8
    return exact + rounded


def movement_tolerance(case: Case) -> tuple[float, float]:
    """How far the first steps may be off: along the right way, and in all, as shares of its length.

    A learning rate that is wrong by a tenth goes along it 6 to 10 % less or more, on any data. In
    so few steps a unit that is on in one program and off in another changes a tenth of a percent.
    Products in bfloat16 round operands by up to 2^-9 of them, which is several percent of a
    gradient where samples all but cancel; it points anywhere, so that little of it is along the
    way. scikit-learn's Adam adds epsilon before it corrects the mean square for its start, which
    moves parameters of tiny gradients a little farther or less.
    """
    if case.matmul_precision is not None:
        return 1e-2, 1e-1
    if case.contender == "sklearn" and case.variant == "adam":
        return 1e-2, 1e-2
    return (1e-2, 1e-2) if case.dtype == "float32" else (1e-6, 1e-6)


def misled(worker: Worker, reference: Worker) -> str | None:
    """Say how a worker's first steps differ from the reference's, or None where they don't."""
    found_by, expected_by = worker.rounds[0].get("moved"), reference.rounds[0].get("moved")
    if expected_by is None:
        return None
    assert found_by is not None, "both have the same task, whose steps are checked"
    allowed = [movement_tolerance(of.case) for of in (worker, reference)]
    along, in_all = (max(of) for of in zip(*allowed, strict=True))
    for number, (ours, theirs) in enumerate(zip(found_by, expected_by, strict=True), 1):
        found, expected = np.array(ours), np.array(theirs)
        length = np.linalg.norm(expected)
        way = found @ expected / length**2
        off = np.linalg.norm(found - expected) / length
        if not (abs(way - 1) <= along and off <= in_all):
            dense = len(worker.case.shape) - 1
            which = f"dense layer {number}" if number <= dense else f"batch norm {number - dense}"
            return (
                f"the first steps move {which} {way:.3g} times as far as the NumPy "
                f"backend's, and are off by {off:.2g} of its way"
            )
    return None


def disagreement(worker: Worker, reference: Worker) -> str | None:
    """Say where a worker's results differ from the reference's, or None where they don't."""
    if reference.error is not None:
        return f"not checked, the NumPy backend failed: {reference.error}"
    if error := misled(worker, reference):
        return error
    allowed = max(tolerance(worker.case), tolerance(reference.case))
    for number, (ours, theirs) in enumerate(zip(worker.rounds, reference.rounds, strict=True)):
        result, expected = ours["result"], theirs["result"]
        if worker.case.task in ("predict", "row"):
            if not result <= 1e-3:  # near-ties that rounding decides
                return f"{result:.2%} of the predictions differ from float64 NumPy's"
        elif worker.case.task == "dense":
            if not result <= 1e-5:
                return f"the layer's output is off by {result:.2g} of its largest value"
        elif not math.isclose(result, expected, rel_tol=allowed):
            return f"loss {result:.6g} in round {number}, the NumPy backend has {expected:.6g}"
    return None


def measure(comparison: Comparison, rounds: int) -> Result:
    """Run a comparison: one warm-up round each, which compiles, then `rounds` timed ones.

    The order is drawn anew in each round, always alike: who comes first after another program finds
    caches, and perhaps a clock, as that one leaves them.
    """
    draws = random.Random(0)
    subject = comparison.cases[0]
    peak_case = replace(subject, contender="peak", task="matmul")
    settling = SETTLING_SECONDS if any(case.threads > 1 for case in comparison.cases) else 0
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(case)) for case in comparison.cases]
        peak = stack.enter_context(Worker(peak_case))
        for worker in (*workers, peak):
            worker.receive()
        for _ in range(1 + rounds):
            turns = [*workers, peak]
            draws.shuffle(turns)
            for worker in turns:
                for _ in range(PEAK_REPEATS if worker is peak else 1):
                    time.sleep(settling)
                    worker.run_round()
    if peak.error is not None:
        raise RuntimeError(f"the matrix product failed: {peak.error}")
    reference = next(worker for worker in workers if worker.case.contender == "numpy")
    outcomes = [
        Outcome(
            case=worker.case,
            label=comparison.label(worker.case),
            error=worker.error or disagreement(worker, reference),
            seconds=tuple(round["seconds"] for round in worker.rounds),
            cpu_seconds=tuple(round["cpu_seconds"] for round in worker.rounds),
            results=tuple(round["result"] for round in worker.rounds),
            peak_bytes=tuple(round["peak_bytes"] for round in worker.rounds),
            rows_a_call=worker.rounds[-1]["rows_a_call"] if worker.rounds else None,
        )
        for worker in workers
    ]
    best = min(round["seconds"] for round in peak.rounds)
    return Result(comparison.name, rounds, tuple(outcomes), peak_case.flops / best / 1e9)


def dissect(comparison: Comparison, rounds: int) -> Anatomy:
    """Take the steps of the subject to pieces, in a worker of its own; the first round warms up."""
    case = comparison.cases[0]
    with Worker(case) as worker:
        worker.receive()
        for _ in range(1 + rounds):
            worker.run_round()
    if worker.error is not None:
        return Anatomy(comparison.name, case, worker.error)
    return gathered(comparison.name, case, [answer["result"] for answer in worker.rounds[1:]])


def race(comparison: Comparison, seeds: int) -> Race:
    """Have all run a recipe, seed by seed in turn, in an order that is drawn for each seed."""
    draws = random.Random(0)
    case = comparison.cases[0]
    settling = SETTLING_SECONDS if case.threads > 1 else 0
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(case)) for case in comparison.cases]
        for worker in workers:
            worker.receive()
        for _ in range(seeds):
            turns = list(workers)
            draws.shuffle(turns)
            for worker in turns:
                time.sleep(settling)
                worker.run_round()
    runners = [
        Runner(
            worker.case,
            comparison.label(worker.case),
            worker.error,
            # who has failed has not run with all seeds
            () if worker.error else tuple(_looks(answer["result"]) for answer in worker.rounds),
        )
        for worker in workers
    ]
    return Race(comparison.name, RECIPES[case.recipe], tuple(runners))


def _looks(answer: Iterable[Iterable[float]]) -> tuple[Look, ...]:
    return tuple(Look(*row) for row in answer)


def measure_changes(
    comparisons: Sequence[Comparison], processes: int, old: Tree, new: Tree
) -> Iterator[list[Change]]:
    """Measure the subject of each comparison on two states of fastnn, in turn.

    Yields
    ------
    list of Change
        All that is known by then: first what can't be measured, as either state fails or has
        another loss than the NumPy backend; then after each of so many new processes a side.
    """
    roots = {OLD: old.root, AGAIN: old.root, NEW: new.root}
    errors = {of.name: _fault(of.cases[0], old, new) for of in comparisons}
    seconds: dict[str, dict[str, list[tuple[float, ...]]]] = {
        of.name: {side: [] for side in SIDES} for of in comparisons
    }

    def known() -> list[Change]:
        return [
            Change(name, {side: tuple(rows) for side, rows in of.items()}, errors[name])
            for name, of in seconds.items()
        ]

    yield known()
    alike: dict[tuple[int, bool], list[Comparison]] = {}
    for comparison in comparisons:  # what a process is told before its libraries are imported
        case = comparison.cases[0]
        alike.setdefault((case.threads, case.avx2), []).append(comparison)
    for number in range(processes):
        turn = number % len(SIDES)
        order = {side: roots[side] for side in (*SIDES[turn:], *SIDES[:turn])}
        for group in alike.values():
            sound = [of for of in group if errors[of.name] is None]
            for name, found in _in_turn(sound, order):
                if isinstance(found, str):
                    errors[name] = found
                    continue
                for side, times in found.items():
                    seconds[name][side].append(times)
        yield known()


def _fault(case: Case, old: Tree, new: Tree) -> str | None:
    """Say why there is nothing to measure, if so; and have kernels compiled meanwhile."""
    reference_case = replace(case, contender="numpy")
    with ExitStack() as stack:
        reference = stack.enter_context(Worker(reference_case, new.root))
        sides = {tree: stack.enter_context(Worker(case, tree.root)) for tree in (old, new)}
        for worker in (reference, *sides.values()):
            worker.receive()
            worker.run_round()
    if reference.error is not None:
        return f"{new.name}: on the NumPy backend: {reference.error}"
    for tree, worker in sides.items():
        if error := worker.error or disagreement(worker, reference):
            return f"{tree.name}: {error}"
    return None


def _in_turn(
    comparisons: Sequence[Comparison], roots: Mapping[str, Path]
) -> Iterator[tuple[str, dict[str, tuple[float, ...]] | str]]:
    """Yield what each takes on each side in a process of its own, or who failed.

    One round of each is not counted. Then the sides take turns, forwards and backwards: A B C,
    C B A. What drifts steadily meanwhile is the same for all in two rounds.
    """
    if not comparisons:
        return
    with ExitStack() as stack:
        first = comparisons[0].cases[0]
        workers = {side: stack.enter_context(Worker(first, root)) for side, root in roots.items()}
        for comparison in comparisons:
            case = comparison.cases[0]
            for worker in workers.values():
                if case is not first:
                    worker.send(case)
                worker.receive()
                worker.rounds.clear()
            order = list(workers.values())
            for _ in range(1 + ROUNDS_OF_A_PROCESS):
                order.reverse()
                for worker in order:
                    time.sleep(SETTLING_SECONDS if case.threads > 1 else 0)
                    worker.run_round()
            for side, worker in workers.items():
                if worker.error is not None:
                    yield comparison.name, f"{side}: {worker.error}"
                    return
            yield (
                comparison.name,
                {
                    side: tuple(round["seconds"] for round in worker.rounds[1:])
                    for side, worker in workers.items()
                },
            )
