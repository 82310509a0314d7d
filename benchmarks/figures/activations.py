"""The activations, and their derivatives."""

from __future__ import annotations

import numpy as np

from fastnn import activations, plotting
from fastnn.layers import Elementwise
from fastnn.plotting import BLUE, ORANGE

from . import INCHES

COLUMNS = 2


def curves(layer: Elementwise, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the function at x, and its derivative."""
    X = x[np.newaxis]
    return layer.forward(X)[0], layer.backward(X, np.ones_like(X))[0]


def draw():
    """Return the figure."""
    layers = [make() for make in activations.BY_NAME.values()]
    rows = -(-len(layers) // COLUMNS)
    # drawn in two parts, so that a derivative has a gap at a kink and no line across
    left, right = np.linspace(-4, -1e-9, 200), np.linspace(1e-9, 4, 200)
    figure = plotting.new_figure((INCHES, 1.55 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True)
    for axes in panels.flat[len(layers) :]:
        axes.set_axis_off()
    for axes, layer in zip(panels.flat, layers, strict=False):
        for number, x in enumerate((left, right)):
            value, derivative = curves(layer, x)
            axes.plot(x, derivative, color=ORANGE, label="" if number else "derivative")
            axes.plot(x, value, color=BLUE, label="" if number else "function")
        axes.set_title(repr(layer).removesuffix("()"), loc="left", fontsize="medium")
        axes.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
        axes.axvline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
        axes.set_ylim(-2, 3)
        axes.set_xticks([-4, -2, 0, 2, 4])
        axes.set_yticks([-1, 0, 1, 2])
        axes.spines[["top", "right"]].set_visible(False)
    handles, names = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], loc="outside upper left", ncols=2, frameon=False)
    return figure
