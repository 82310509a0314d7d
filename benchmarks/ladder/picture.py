"""The ladder and a roofline, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np

from fastnn import plotting
from fastnn.bench.figures import short
from fastnn.plotting import BLUE, GREY, ORANGE

from .counting import dense_operations
from .table import Line, Machine

LEVELS = "L1", "L2", "L3", "memory"
KINDS = (("NumPy", 1, BLUE), ("loops by Numba", 5, ORANGE), ("the package's kernels", 9, "#2e8b57"))
"""What rungs are written in, from which one on, and how they are drawn."""


def draw(lines: Sequence[Line], machine: Machine, path: str | PathLike[str]) -> None:
    """Draw the rungs, and what each computes beside what the machine could do."""
    figure = plotting.new_figure((13, 5.2), dpi=150, layout="constrained")
    ladder, roofline = figure.subplots(1, 2)
    draw_ladder(ladder, lines, machine)
    draw_roofline(roofline, lines, machine)
    add_keys(figure, columns=3)
    plotting.write(figure, path)


def add_keys(figure: Any, columns: int) -> None:
    """Say below a figure what colours are."""
    from matplotlib.patches import Patch

    keys = [Patch(color=color, label=name) for name, _, color in KINDS]
    figure.legend(handles=keys, loc="outside lower center", frameon=False, ncols=columns)


def color_of(line: Line) -> str:
    """Return the colour of what the rung is written in."""
    return [color for _, first, color in KINDS if first <= line.rung.number][-1]


def draw_ladder(axes: Any, lines: Sequence[Line], machine: Machine) -> None:
    """Draw a bar for each rung: how long a step takes, on a logarithmic scale."""
    microseconds = [1e6 * line.seconds for line in lines]
    dense, needed = dense_operations(), lines[0].without_zeros
    for operations, text, side in (
        (needed, "zeros left out", "right"),
        (dense, "all products", "left"),
    ):
        least = operations / machine.peak / 1e3
        axes.axvline(least, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(least, len(lines) - 0.4, f" {text}: {short(least)} ", fontsize="small",
                  color=GREY, ha=side, va="bottom")  # fmt: skip
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    for place, (line, taken) in enumerate(zip(lines, microseconds, strict=True)):
        axes.barh(place, taken, color=color_of(line))
        label = (
            short(taken) if line.ratio is None else f"{short(taken)}  ×{short(line.ratio.median)}"
        )
        axes.annotate(label, (taken, place), xytext=(4, 0), textcoords="offset points",
                      va="center", fontsize="small", bbox=paper)  # fmt: skip
    axes.set_ylim(-0.6, len(lines) - 0.4)
    axes.set_yticks(range(len(lines)), [f"{of.rung.number} {of.rung.name}" for of in lines])
    axes.set_xscale("log")
    axes.set_xlim(needed / machine.peak / 2e3, 12 * max(microseconds))
    axes.set_xlabel("µs a step, × as fast as the rung below;\ndashed: at one core's peak")
    plotting.add_grid(axes)


def draw_roofline(axes: Any, lines: Sequence[Line], machine: Machine) -> None:
    """Draw a point for each rung, by its number, below what memory and multiply-adds allow.

    Its bytes are those that a cache of no size avoids, as `bytes_of_step` counts them; what kernels
    load again from the first-level cache is not among them.
    """
    points = [(line.done / line.nbytes, line.done / line.seconds / 1e9) for line in lines]
    intensities = [x for x, _ in points]
    x = np.geomspace(min(intensities) / 10, 3 * max(intensities), 200)
    for name, bandwidth in zip(LEVELS, machine.bandwidth, strict=True):
        axes.plot(x, np.minimum(x * bandwidth / 1e9, machine.peak), color=GREY, linewidth=1)
        axes.text(x[0], x[0] * bandwidth / 1e9, f" {name}", fontsize="small", color=GREY,
                  va="bottom")  # fmt: skip
    axes.text(x[-1], machine.peak, "multiply-adds, one core ", fontsize="small", color=GREY,
              ha="right", va="bottom")  # fmt: skip
    for line, point in zip(lines, points, strict=True):
        axes.plot(*point, "o", color=color_of(line), markersize=5)
    for first, numbers in _neighbours(lines, points).items():
        axes.annotate(", ".join(map(str, numbers)), first, xytext=(6, 0), va="center",
                      textcoords="offset points", fontsize="small")  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(min(speed for _, speed in points) / 2, 1.7 * machine.peak)
    axes.set_xlabel(
        "operations over bytes, each operand once a pass;\nwithout zeros from rung 8 on"
    )
    axes.set_ylabel("GFLOP/s")
    plotting.add_grid(axes)


def _neighbours(lines: Sequence[Line], points: Sequence[tuple[float, float]]) -> dict:
    """Return the numbers of rungs whose points would hide each other's, by the one on the right."""
    groups: list[list[int]] = []
    for i, point in enumerate(points):
        near = (of for of in groups if np.ptp(np.log([points[of[0]], point]), axis=0).max() < 0.15)
        group = next(near, None)
        if group is None:
            groups.append(group := [])
        group.append(i)
    return {
        max(points[i] for i in group): [lines[i].rung.number for i in group] for group in groups
    }
