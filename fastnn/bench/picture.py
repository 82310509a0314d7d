"""Pictures of the parts of a step and of ratios; matplotlib is imported when first used."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastnn import plotting
from fastnn.bench.anatomy import Anatomy, Part
from fastnn.bench.figures import short
from fastnn.bench.ratios import Ratio
from fastnn.plotting import BLUE, GREY, ORANGE

LIMIT_COLORS = {
    "FMA": BLUE,
    "loads": ORANGE,
    "stores": "#b03a48",
    "L2": "#2e8b57",
    "L3": "#8a4fb0",
    "memory": "#3d3d3d",
}
REST = "#d4d4d4"
"""Of the time in which a part does not come to its limit."""

LEAST_SHARE = 0.002
"""Of a step; what takes less is not drawn."""


def draw(anatomies: Sequence[Anatomy], path: Path) -> None:
    """Draw the parts of steps, each with the time that it would take at its limit.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the file can't be written.
    """
    drawn = [anatomy for anatomy in anatomies if anatomy.parts]
    most = max((len(anatomy.parts) for anatomy in drawn), default=1)
    inches = 7.5 * max(len(drawn), 1), 1.6 + 0.27 * most
    figure = plotting.new_figure(inches, dpi=150, layout="constrained")
    panels = figure.subplots(1, max(len(drawn), 1), squeeze=False)[0]
    for axes, anatomy in zip(panels, drawn, strict=False):
        total = sum(part.seconds for part in anatomy.parts)
        draw_parts(axes, anatomy.parts, partial(_label, total=total))
        axes.set_title(f"{anatomy.name}\n{total * 1e6:,.1f} us a step", fontsize=9, color=GREY)
    limits = limits_of([part for anatomy in drawn for part in anatomy.parts])
    figure.legend(handles=limits, loc="outside lower center", ncols=len(limits), frameon=False,
                  fontsize="small")  # fmt: skip
    plotting.write(figure, path)


def draw_parts(axes: Any, parts: Sequence[Part], label: Callable[[Part], str]) -> None:
    """Draw a bar for each part, with the time at its limit, and beside it what `label` says."""
    total = sum(part.seconds for part in parts)
    parts = [part for part in parts if part.seconds >= LEAST_SHARE * total]
    longest = max(part.seconds for part in parts) * 1e6
    for place, part in enumerate(parts):
        microseconds = part.seconds * 1e6
        axes.barh(place, microseconds, color=REST)
        if part.bound is not None:
            color = LIMIT_COLORS[part.bound.limit]
            axes.barh(place, min(part.bound.seconds * 1e6, microseconds), color=color)
        axes.text(microseconds + longest / 100, place, label(part), va="center", fontsize="small",
                  color=GREY)  # fmt: skip
    names = [f"{part.layer} {part.name}" for part in parts]
    axes.set_yticks(range(len(parts)), names, fontsize="small")
    axes.set_ylim(len(parts) - 0.4, -0.6)
    axes.set_xlim(0, 1.22 * longest)
    axes.set_xlabel("microseconds")
    plotting.add_grid(axes, "x")


def limits_of(parts: Sequence[Part]) -> list[Any]:
    """Return the keys to the colours of parts."""
    from matplotlib.patches import Patch

    bound = {part.bound.limit for part in parts if part.bound is not None}
    keys = [
        Patch(color=color, label=f"at the limit: {name}")
        for name, color in LIMIT_COLORS.items()
        if name in bound
    ]
    return [*keys, Patch(color=REST, label="beyond it")]


def _label(part: Part, total: float) -> str:
    """Return what stands beside a bar: time, share of the step, and how near it is to its limit."""
    label = f"{short(part.seconds * 1e6)}, {part.seconds / total:.0%}"
    share = part.share_of_limit
    return label if share is None else f"{label}; {share:.0%} of the limit"


MOST_BETWEEN_POWERS = 1e4
"""How far apart the ends of an axis may be to have room for 2 and 5 between the powers of ten."""

SIZE_COLORS = {"tiny": "#9fc9e8", "small": "#5b9fd3", "medium": BLUE, "large": "#0b2f55"}


def draw_ratios(ratios: Sequence[Ratio], path: Path) -> None:
    """Draw NumPy's time over Numba's: a line for each label, a dot for each size.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the file can't be written.
    """
    from matplotlib.ticker import LogLocator

    labels = list(dict.fromkeys((ratio.group, ratio.label) for ratio in ratios))
    dtypes = list(dict.fromkeys(ratio.dtype for ratio in ratios))
    inches = 3.0 + 4.5 * len(dtypes), 1.4 + 0.2 * len(labels)
    figure = plotting.new_figure(inches, dpi=150, layout="constrained")
    panels = figure.subplots(1, len(dtypes), sharey=True, squeeze=False)[0]
    for axes, dtype in zip(panels, dtypes, strict=True):
        axes.axvline(1, color=GREY, linewidth=1)
        for size, color in SIZE_COLORS.items():
            of_size = [ratio for ratio in ratios if (ratio.size, ratio.dtype) == (size, dtype)]
            dots = [(labels.index((of.group, of.label)), of.spread) for of in of_size if of.spread]
            places = [place for place, _ in dots]
            axes.scatter([found.median for _, found in dots], places, s=22, color=color,
                         label=size, zorder=3)  # fmt: skip
            axes.hlines(places, [found.lower for _, found in dots],
                        [found.upper for _, found in dots], color=color, zorder=2)  # fmt: skip
        axes.set_xscale("log")
        left, right = axes.get_xlim()
        if right / left < MOST_BETWEEN_POWERS:
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.tick_params(axis="x", labelsize=8)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_title(dtype, fontsize=9, color=GREY)
        axes.set_xlabel("NumPy's time over Numba's; right of the line Numba is faster", fontsize=8)
        plotting.add_grid(axes)
    panels[0].set_yticks(range(len(labels)), [label for _, label in labels], fontsize=7.5)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False,
                  fontsize=8)  # fmt: skip
    plotting.write(figure, path)
