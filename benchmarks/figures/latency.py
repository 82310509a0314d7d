"""One sum, and eight sums under way, in two pipelines of four cycles."""

from __future__ import annotations

from typing import NamedTuple

from fastnn import plotting
from fastnn.plotting import GREY

from . import INCHES

LATENCY = 4
"""Cycles from the begin of a multiply-add to its result."""
PIPELINES = 2
"""Multiply-adds that begin in a cycle."""
CYCLES = 16
SUMS = LATENCY * PIPELINES
"""So many that never wait are under way at the same time."""


class Turn(NamedTuple):
    """A multiply-add that adds to a sum."""

    sum: int
    number: int
    start: int


def schedule(sums: int, cycles: int = CYCLES) -> list[Turn]:
    """Return what begins within `cycles`, if each sum adds as soon as its last result is there."""
    ready, done, turns = [0] * sums, [0] * sums, []
    for cycle in range(cycles):
        waiting = sorted((of for of in range(sums) if ready[of] <= cycle), key=lambda of: ready[of])
        for of in waiting[:PIPELINES]:
            turns.append(Turn(of, done[of], cycle))
            done[of] += 1
            ready[of] = cycle + LATENCY
    return turns


def draw():
    """Return the figure."""
    import matplotlib

    colors = matplotlib.colormaps["tab10"].colors
    figure = plotting.new_figure((INCHES, 5.2), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True, height_ratios=[1.6, SUMS])
    for axes, sums in zip(panels, (1, SUMS), strict=True):
        turns = schedule(sums)
        for turn in turns:
            axes.barh(turn.sum, LATENCY - 0.12, left=turn.start + 0.06, height=0.78,
                      color=colors[turn.sum], alpha=0.5)  # fmt: skip
            if turn.start + LATENCY <= CYCLES:
                axes.text(turn.start + LATENCY / 2, turn.sum, f"+ x{turn.number} w{turn.number}",
                          ha="center", va="center", fontsize="small")  # fmt: skip
        name = "One sum" if sums == 1 else f"{sums} sums"
        axes.set_title(f"{name}: {len(turns)} multiply-adds in {CYCLES} cycles", loc="left",
                       fontsize="medium")  # fmt: skip
        axes.set_ylim(sums - 0.5, -0.5)
        axes.set_yticks(range(sums), [f"sum {of + 1}" for of in range(sums)])
        axes.set_xlim(0, CYCLES)
        axes.set_xticks(range(0, CYCLES + 1, LATENCY))
        plotting.add_grid(axes, "x", without=("top", "right", "left"))
        axes.tick_params(axis="y", length=0)
    panels[-1].set_xlabel(
        f"cycles; {PIPELINES} multiply-adds begin in a cycle,\na result is there after {LATENCY}",
        color=GREY,
    )
    return figure
