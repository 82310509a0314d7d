"""The parts of a training step: how long each takes, and how near that is to its limit."""

import json

from fastnn import plotting
from fastnn.bench.anatomy import Bound, Part
from fastnn.bench.figures import short
from fastnn.bench.picture import draw_parts, limits_of

from . import INCHES, STEP

DTYPE = "float32"


def parts():
    """Return the parts that were measured."""
    document = json.loads(STEP.read_text("utf-8"))
    found = next(of for of in document["anatomies"] if of["case"]["dtype"] == DTYPE)
    return [
        Part(**of | {"bytes": tuple(of["bytes"]), "bound": of["bound"] and Bound(**of["bound"])})
        for of in found["parts"]
    ]


def draw():
    """Return the figure."""
    found = parts()
    figure = plotting.new_figure((INCHES, 6.4), layout="constrained")
    axes = figure.subplots()
    draw_parts(axes, found, label)
    total = 1e6 * sum(part.seconds for part in found)
    axes.set_title(f"a step in {DTYPE}: {total:.1f} µs", fontsize="medium")
    axes.set_xlabel("µs, and the share of it\nthat the limit explains")
    figure.legend(handles=limits_of(found), loc="outside lower center", ncols=2, frameon=False,
                  fontsize="small")  # fmt: skip
    return figure


def label(part: Part) -> str:
    """Return what stands beside a bar."""
    share = part.share_of_limit
    return short(1e6 * part.seconds) + ("" if share is None else f", {share:.0%}")
