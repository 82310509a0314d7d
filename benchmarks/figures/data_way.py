"""Which matrices each pass of a training step reads and writes, and where they come from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from benchmarks.ladder.climbing import BATCH_SIZE, UNITS
from benchmarks.ladder.picture import LEVELS
from benchmarks.ladder.results import read
from fastnn import plotting
from fastnn.bench.counting import Touch, Work, bytes_by_level
from fastnn.plotting import BLUE, GREY, ORANGE

from . import INCHES, LADDER

COLORS = dict(zip(LEVELS, ("#2e8b57", BLUE, ORANGE, "#3d3d3d"), strict=True))
LAYERS = len(UNITS) - 1
SAMPLES = 49_984
"""That an epoch takes: as long ago is the last time that a step touched its samples."""
ACTIVATIONS, WEIGHTS, GRADIENTS = range(3)
"""Columns of the drawing."""
ROW = 0.6
"""How far a row of it is from the next, where a column is 1 wide."""
LARGEST = 0.74
"""How wide the largest matrix is drawn."""


class Pass(NamedTuple):
    """A pass over matrices, and where it is drawn; what is in both lists is changed in place."""

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    at: tuple[float, float]


def name_of_output(number: int) -> str:
    """Return what the activations of a layer are called, the input's first."""
    return {0: "X", LAYERS: "Z"}.get(number, f"A{number}")


def shapes() -> dict[str, tuple[int, int]]:
    """Return all matrices of a step, by name."""
    found = {"samples": (BATCH_SIZE, UNITS[0])}
    for number, units in enumerate(UNITS):
        found[name_of_output(number)] = BATCH_SIZE, units
        if number:
            found[f"W{number}"] = UNITS[number - 1], units
            found[f"G{number}"] = BATCH_SIZE, units
    return found


def passes() -> list[Pass]:
    """Return the passes of a step, in their order."""
    found = [Pass("load", ("samples",), ("X",), (ACTIVATIONS, ROW))]
    for number in range(1, LAYERS + 1):
        reads = name_of_output(number - 1), f"W{number}"
        at = ACTIVATIONS, -ROW * (2 * number - 1)
        found.append(Pass(f"forward, W{number}", reads, (name_of_output(number),), at))
    last = f"G{LAYERS}"
    found.append(Pass("loss", ("Z",), (last,), (WEIGHTS, -ROW * 2 * LAYERS)))
    for number in range(LAYERS, 0, -1):
        reads = f"G{number}", f"W{number}", name_of_output(number - 1)
        writes = (f"W{number}", f"G{number - 1}") if number > 1 else (f"W{number}",)
        name = "backward" if number > 1 else "update"
        found.append(
            Pass(f"{name}, W{number}", reads, writes, (GRADIENTS, -ROW * (2 * number - 1)))
        )
    return found


def places() -> dict[str, tuple[float, float]]:
    """Return where each matrix is drawn."""
    found = {"samples": (float(ACTIVATIONS), 2 * ROW)}
    for number in range(LAYERS + 1):
        found[name_of_output(number)] = ACTIVATIONS, -ROW * 2 * number
        if number:
            found[f"W{number}"] = WEIGHTS, -ROW * (2 * number - 1)
            found[f"G{number}"] = GRADIENTS, -ROW * 2 * number
    return found


def kilobytes() -> dict[str, float]:
    """Return how large matrices are in float32."""
    return {name: 4 * rows * columns / 1000 for name, (rows, columns) in shapes().items()}


def levels(caches: tuple[int, ...]) -> dict[tuple[str, str], str]:
    """Return from which level a matrix comes to a pass that touches it, by both names."""
    sizes = {name: 1000 * size for name, size in kilobytes().items()}
    touches = [(of.name, name) for of in passes() for name in dict.fromkeys(of.reads + of.writes)]
    works = [Work(touched=[Touch((name, 0), sizes[name])]) for _, name in touches]
    all_samples = SAMPLES / BATCH_SIZE * sizes["samples"]
    found = bytes_by_level(works, caches, all_samples)
    # what is in registers is none of these: no loads are counted
    return {
        touch: LEVELS[int(np.argmax(by_level))]
        for touch, by_level in zip(touches, found, strict=True)
    }


def draw():
    """Return the figure."""
    from matplotlib.patches import Patch

    _, _, environment = read(LADDER)
    caches = tuple(environment["caches"])
    figure = plotting.new_figure((INCHES, 10), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[2.25, 1])
    _draw_way(above.subplots(), levels(caches))
    _draw_bars(below.subplots(), levels(caches))
    held = [f"{size >> 10:,} kB" if size < 1 << 20 else f"{size >> 20} MB" for size in caches]
    keys = [
        Patch(color=color, label=f"from {name}, {size}" if size else f"from {name}")
        for (name, color), size in zip(COLORS.items(), [*held, ""], strict=True)
    ]
    below.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _draw_way(axes, level) -> None:
    from matplotlib.patches import Circle, FancyArrowPatch, Rectangle

    sizes, place, boxes = kilobytes(), places(), {}
    for name, (x, y) in place.items():
        width = LARGEST * np.sqrt(sizes[name] / max(sizes.values()))
        corner = x - width / 2, y - width / 2
        boxes[name] = Rectangle(corner, width, width, facecolor="#dfe6ee", edgecolor=GREY)
        axes.add_patch(boxes[name])
        rows, columns = shapes()[name]
        text = f"{name}  {rows}×{columns}\n{sizes[name]:,.{0 if sizes[name] > 50 else 1}f} kB"
        if width == LARGEST:
            axes.text(x, y, text.replace("  ", "\n"), ha="center", va="center", fontsize="small")
        elif x == WEIGHTS:
            axes.text(x, y - width / 2 - 0.03, text, ha="center", va="top", fontsize="small")
        else:
            outward, side = (-1, "right") if x == ACTIVATIONS else (1, "left")
            axes.text(x + outward * (width / 2 + 0.06), y, text, va="center", ha=side,
                      fontsize="small")  # fmt: skip
    for number, of in enumerate(passes(), 1):
        circle = Circle(of.at, 0.11, facecolor="white", edgecolor="black", zorder=2)
        axes.add_patch(circle)
        axes.text(*of.at, f"{number}", ha="center", va="center", fontsize="small", zorder=3)
        for name in dict.fromkeys(of.reads + of.writes):
            ends, patches = (place[name], of.at), (boxes[name], circle)
            if name not in of.reads:
                ends, patches = ends[::-1], patches[::-1]
            # past the weights, where it must
            bow = 0.2 if abs(ends[1][0] - ends[0][0]) > 1 else 0
            axes.add_patch(FancyArrowPatch(
                *ends, patchA=patches[0], patchB=patches[1], shrinkA=1, shrinkB=1,
                arrowstyle="<|-|>" if name in of.reads and name in of.writes else "-|>",
                connectionstyle=f"arc3,rad={-bow}", mutation_scale=11, linewidth=1.6,
                color=COLORS[level[of.name, name]],
            ))  # fmt: skip
    axes.set_xlim(-0.86, 2.78)
    axes.set_ylim(-ROW * (2 * LAYERS + 0.7), ROW * 2.7)
    axes.set_aspect("equal")
    axes.set_axis_off()


def _draw_bars(axes, level) -> None:
    sizes, names = kilobytes(), []
    for place, of in enumerate(passes()):
        left = 0.0
        for which, color in COLORS.items():
            touched = dict.fromkeys(of.reads + of.writes)
            width = sum(sizes[name] for name in touched if level[of.name, name] == which)
            axes.barh(place, width, left=left, color=color)
            left += width
        axes.text(left, place, f" {left:,.0f}", va="center", fontsize="small", color=GREY)
        names.append(f"{place + 1} {of.name}")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.set_xlabel("kB that a pass reads or writes")
    plotting.add_grid(axes, "x")
