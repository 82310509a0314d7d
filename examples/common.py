"""What the examples share: options, tables, pictures, and claims that are checked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tqdm import tqdm

Run = TypeVar("Run")

BLUE, ORANGE, GREEN, GREY = "#1f6fb4", "#d9731a", "#2f8f5b", "#5a5a5a"


def parse_options(
    description: str | None,
    *,
    seeds: int | None = None,
    quick_seeds: int = 1,
    sizes: Mapping[str, tuple[float, float, str]] | None = None,
) -> argparse.Namespace:
    """Return the options that every example has: quick, output and, where it draws, seeds.

    `sizes` are of one example: by name, the default, that of the quick form, and what it is.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small form, done in seconds")
    parser.add_argument(
        "--output", type=Path, default=Path(sys.argv[0]).with_suffix(".png").name, metavar="PNG",
        help="where the picture goes (default: %(default)s)",
    )  # fmt: skip
    if seeds is not None:
        parser.add_argument("--seeds", type=int, metavar="N", help=f"runs (default: {seeds})")
    for name, (usual, quick, what) in (sizes or {}).items():
        parser.add_argument(
            f"--{name}", type=float, help=f"{what} (default: {usual:g}, or {quick:g} if quick)"
        )
    options = parser.parse_args()
    for name, (usual, quick, _) in (sizes or {}).items():
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else usual)
        if not getattr(options, name) > 0:
            parser.error(f"--{name}: expected a number above 0, got {getattr(options, name)}")
    if seeds is not None:
        if options.seeds is not None and options.seeds < 1:
            parser.error(f"--seeds: expected at least 1, got {options.seeds}")
        options.seeds = range(options.seeds or (quick_seeds if options.quick else seeds))
    return options


def each(runs: Iterable[Run]) -> Iterable[Run]:
    """Go through the runs, with a bar on a terminal."""
    return tqdm(list(runs), unit=" runs", leave=False, disable=None)


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table in Markdown: the first column to the left, the others to the right."""
    cells = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for row in (cells[0], rule, *cells[1:]):
        first, *others = zip(row, widths, strict=True)
        aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        print(f"| {' | '.join(aligned)} |")


def conclude(claims: Mapping[str, bool]) -> None:
    """Say of each claim whether the figures above bear it out; end with those that fail."""
    print()
    for claim, holds in claims.items():
        print(f"[{'x' if holds else ' '}] {claim}")
    if failing := [claim for claim, holds in claims.items() if not holds]:
        name = Path(sys.argv[0]).name
        sys.exit(f"{name}: the figures don't bear out: {'; '.join(failing)}")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty picture of so many inches."""
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def tidy(axes: Axes, x: str, y: str, *, title: str = "") -> None:
    """Label the axes and take away what is only decoration."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=10, color=GREY)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    if x == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)


def plot_seeds(
    axes: Axes, x: Sequence[float], runs: Sequence[Sequence[float]], color: str, label: str
) -> None:
    """Draw the mean of several runs [seeds, points] and, as a band, their extremes."""
    values = np.array(runs)
    axes.plot(x, values.mean(axis=0), color=color, label=label, marker="o", markersize=3)
    axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=color, alpha=0.2, lw=0)
