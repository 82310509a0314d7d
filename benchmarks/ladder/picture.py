"""The ladder and a roofline, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import numpy as np

from fastnn import plotting
from fastnn.bench.figures import short
from fastnn.plotting import BLUE, GREY, ORANGE

from .table import Line, Machine

LEVELS = "L1", "L2", "L3", "memory"


def draw(lines: Sequence[Line], machine: Machine, path: str | PathLike[str]) -> None:
    """Draw the rungs, and what each computes beside what the machine could do."""
    figure = plotting.new_figure((13, 5.2), dpi=150, layout="constrained")
    ladder, roofline = figure.subplots(1, 2)
    _draw_ladder(ladder, lines)
    _draw_roofline(roofline, lines, machine)
    for axes in (ladder, roofline):
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    plotting.write(figure, path)


def _draw_ladder(axes, lines: Sequence[Line]) -> None:
    for place, line in enumerate(lines):
        axes.barh(place, line.samples_a_second, color=BLUE)
        label = f" {line.samples_a_second:,.0f}"
        if line.ratio is not None:
            label += f"  x {short(line.ratio.median)}"
        axes.text(line.samples_a_second, place, label, va="center", fontsize=8, color=GREY)
    axes.set_yticks(range(len(lines)), [f"{of.rung.number} {of.rung.name}" for of in lines])
    axes.set_xscale("log")
    fastest = max(line.samples_a_second for line in lines)
    axes.set_xlim(min(line.samples_a_second for line in lines) / 2, 8 * fastest)
    axes.set_xlabel("samples a second, and how many times the rung below")


def _draw_roofline(axes, lines: Sequence[Line], machine: Machine) -> None:
    intensities = [line.done / line.nbytes for line in lines]
    x = np.geomspace(min(intensities) / 4, 64, 200)
    for name, bandwidth in zip(LEVELS, machine.bandwidth, strict=True):
        axes.plot(x, np.minimum(x * bandwidth / 1e9, machine.peak), color=GREY, linewidth=1)
        axes.text(x[0], x[0] * bandwidth / 1e9, f" {name}", fontsize=8, color=GREY, va="bottom")
    axes.text(x[-1], machine.peak, "multiply-adds, one core ", fontsize=8, color=GREY, ha="right",
              va="bottom")  # fmt: skip
    for line, intensity in zip(lines, intensities, strict=True):
        speed = line.done / line.seconds / 1e9
        axes.plot(intensity, speed, "o", color=ORANGE if line.rung.threads > 1 else BLUE)
        axes.annotate(f"{line.rung.number}", (intensity, speed), xytext=(5, 3),
                      textcoords="offset points", fontsize=8)  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations a byte, of those that the rung computes")
    axes.set_ylabel("GFLOP/s")
