"""A picture of the parts of a step; matplotlib is imported when first used."""

from collections.abc import Sequence
from pathlib import Path

from fastnn import plotting
from fastnn.bench.anatomy import Anatomy, Part
from fastnn.bench.figures import short
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
    from matplotlib.patches import Patch

    drawn = [anatomy for anatomy in anatomies if anatomy.parts]
    most = max((len(anatomy.parts) for anatomy in drawn), default=1)
    inches = 7.5 * max(len(drawn), 1), 1.6 + 0.27 * most
    figure = plotting.new_figure(inches, dpi=150, layout="constrained")
    panels = figure.subplots(1, max(len(drawn), 1), squeeze=False)[0]
    for axes, anatomy in zip(panels, drawn, strict=False):
        total = sum(part.seconds for part in anatomy.parts)
        parts = [part for part in anatomy.parts if part.seconds >= LEAST_SHARE * total]
        longest = max(part.seconds for part in parts) * 1e6
        for place, part in enumerate(parts):
            microseconds = part.seconds * 1e6
            axes.barh(place, microseconds, color=REST)
            if part.bound is not None:
                color = LIMIT_COLORS[part.bound.limit]
                axes.barh(place, min(part.bound.seconds * 1e6, microseconds), color=color)
            axes.text(microseconds + longest / 100, place, _label(part, total), va="center",
                      fontsize=7.5, color=GREY)  # fmt: skip
        names = [f"{part.layer} {part.name}" for part in parts]
        axes.set_yticks(range(len(parts)), names, fontsize=8)
        axes.set_ylim(len(parts) - 0.4, -0.6)
        axes.set_xlim(0, 1.22 * longest)
        axes.set_xlabel("microseconds")
        axes.set_title(f"{anatomy.name}\n{total * 1e6:,.1f} us a step", fontsize=9, color=GREY)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    bound = {part.bound.limit for of in drawn for part in of.parts if part.bound is not None}
    keys = [
        Patch(color=color, label=f"at the limit: {name}")
        for name, color in LIMIT_COLORS.items()
        if name in bound
    ]
    figure.legend(handles=[*keys, Patch(color=REST, label="beyond it")], loc="outside lower center",
                  ncols=len(keys) + 1, frameon=False, fontsize=8)  # fmt: skip
    plotting.write(figure, path)


def _label(part: Part, total: float) -> str:
    """Return what stands beside a bar: time, share of the step, and how near it is to its limit."""
    label = f"{short(part.seconds * 1e6)}, {part.seconds / total:.0%}"
    share = part.share_of_limit
    return label if share is None else f"{label}; {share:.0%} of the limit"
