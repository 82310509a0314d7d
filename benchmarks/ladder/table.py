"""The ladder's table: what was measured and counted of each rung."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from fastnn.backends.numba_backend.machine import lanes
from fastnn.bench.figures import Spread, short, spread
from fastnn.bench.limits import measure_limits
from fastnn.markdown import markdown_table

from . import Rung
from .climbing import BATCH_SIZE, STEPS, Climber, initial_layers, reference_steps, samples, verify
from .counting import bytes_of_step, dense_operations, needed

SKIPPING_FROM = 8
"""The rung from which on most zeros are not computed with."""
PICTURES = 2 * BATCH_SIZE * 784 * 100
"""Operations for the gradient of the pictures, which rungs 1 and 2 compute as well."""
TRAINED = 1500
"""Steps before the first that is timed: then hidden units are as sparse as they are in training."""
COUNTED = 100
"""Batches in which zeros are counted."""


@dataclass(frozen=True)
class Machine:
    """What one core can do in the same run: GFLOP/s by dtype, and bytes a second by level."""

    peaks: dict[str, float]
    bandwidth: tuple[float, ...]

    @property
    def peak(self) -> float:
        return self.peaks["float32"]


@dataclass(frozen=True)
class Line:
    """A rung, with what was found. `ratio` is how many times as long the rung below takes."""

    rung: Rung
    distance: float
    seconds: float
    ratio: Spread | None
    without_zeros: float
    nbytes: float

    @property
    def samples_a_second(self) -> float:
        return BATCH_SIZE / self.seconds

    @property
    def done(self) -> float:
        """Operations that the rung needs; kernels multiply some zeros besides."""
        if self.rung.number >= SKIPPING_FROM:
            return self.without_zeros
        return dense_operations() + (PICTURES if self.rung.number <= 2 else 0)


def climb(
    chosen: Sequence[Rung], rounds: int, tell: Callable[[str], None]
) -> tuple[list[Line], Machine]:
    """Verify rungs, time them in turn, and measure what the machine can do.

    Raises
    ------
    WrongRungError
        If a rung computes something else than the NumPy backend.
    """
    X, y = samples()
    first = initial_layers()
    tell("verifying")
    distances = [verify(rung, first, X, y, BATCH_SIZE) for rung in chosen]
    tell(f"each is the NumPy backend's after {STEPS} steps, up to rounding; training")
    trained = reference_steps(first, X[: TRAINED * BATCH_SIZE], y, BATCH_SIZE)
    without_zeros, lit = needed(trained, X[: COUNTED * BATCH_SIZE])
    before = measure_machine()
    climbers = [Climber(rung, trained, X, y) for rung in chosen]
    times = []
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}")
        times.append([climber.seconds_a_step() for climber in climbers])
    after = measure_machine()
    lines = []
    for i, (rung, distance) in enumerate(zip(chosen, distances, strict=True)):
        below = i and chosen[i - 1].number == rung.number - 1
        ratio = spread(taken[i - 1] / taken[i] for taken in times) if below else None
        seconds = median(taken[i] for taken in times)
        nbytes = bytes_of_step(rung, trained, X, y, lit)
        lines.append(Line(rung, distance, seconds, ratio, without_zeros, nbytes))
    return lines, _better(before, after)


def measure_machine() -> Machine:
    """Measure what one core can do, in float32 and in float64."""
    peaks = {}
    for dtype in map(np.dtype, (np.float64, np.float32)):
        limits = measure_limits(dtype)
        peaks[dtype.name] = 2 * lanes(dtype.itemsize) * limits.multiply_adds / 1e9
    return Machine(peaks, limits.bandwidth)


def _better(a: Machine, b: Machine) -> Machine:
    """Return the best of both: what is a limit was reached at least once."""
    peaks = {name: max(a.peaks[name], b.peaks[name]) for name in a.peaks}
    return Machine(peaks, tuple(map(max, a.bandwidth, b.bandwidth)))


def as_markdown(lines: Sequence[Line], machine: Machine) -> str:
    """Return the table, with the machine below it."""
    rows = []
    for line in lines:
        dense = dense_operations() / line.seconds / 1e9
        rows.append([
            f"{line.rung.number} {line.rung.name}",
            f"{line.samples_a_second:,.0f}",
            short(line.seconds * 1e6),
            short(dense),
            short(line.without_zeros / line.seconds / 1e9),
            f"{dense / machine.peaks[line.rung.dtype.name]:.0%}",
            "" if line.ratio is None else str(line.ratio),
            f"{line.nbytes / 1000:,.0f}",
        ])  # fmt: skip
    head = [
        "rung", "samples/s", "us a step", "GFLOP/s", "without zeros", "of the peak",
        "times the rung below (quartiles)", "kB a step",
    ]  # fmt: skip
    levels = ", ".join(f"{of / 1e9:.0f}" for of in machine.bandwidth)
    return (
        f"{markdown_table(head, rows)}\n"
        f"One core, multiply-adds in float32: {machine.peak:.0f} GFLOP/s, in float64 "
        f"{machine.peaks['float64']:.0f}; loads from three caches and memory: {levels} GB/s.\n"
        f"A step: {dense_operations() / 1e6:.2f} million operations, "
        f"{lines[0].without_zeros / 1e6:.2f} without zeros.\n"
    )
