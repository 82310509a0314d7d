"""What goes forward through a network and back, with its shapes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import fastnn
from fastnn import plotting
from fastnn.plotting import BLUE, GREY, ORANGE

from . import INCHES

BATCH = 32
LEFT, MIDDLE, RIGHT = 0.7, 2.0, 3.3
"""Where the way forward is drawn, the layers, and the way back."""


class Passage(NamedTuple):
    """A layer, the shape of its input, and those of its gradients by name."""

    name: str
    input: tuple[int, ...]
    gradients: dict[str, tuple[int, ...]]


def passages() -> tuple[list[Passage], tuple[int, ...]]:
    """Return the passages through a network, from first to last, and the shape of its output."""
    layers = [fastnn.Dense(784, 100), fastnn.ReLU(), fastnn.Dense(100, 10)]
    network = fastnn.Network(layers, backend="numpy", seed=0)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(BATCH, 784)), rng.integers(0, 10, BATCH)
    outputs = network.forward(X)
    _, gradients = network.gradients(X, y)
    found = []
    for layer, input, of_layer in zip(layers, [X, *outputs[:-1]], gradients, strict=True):
        name = type(layer).__name__
        if isinstance(layer, fastnn.Dense):
            name += f" {layer.input_units}-{layer.output_units}"
        shapes = {parameter: gradient.shape for parameter, gradient in of_layer.items()}
        found.append(Passage(name, input.shape, shapes))
    return found, outputs[-1].shape


def times(shape: tuple[int, ...]) -> str:
    """Return a shape as it is written on paper."""
    return " × ".join(map(str, shape))


def draw():
    """Return the figure."""
    from matplotlib.patches import Rectangle

    found, output = passages()
    rows = [(of.name, of.input, of.gradients) for of in found]
    rows.append(("softmax cross-entropy", output, {}))
    figure = plotting.new_figure((INCHES, 1.15 * len(rows) + 1.3), layout="constrained")
    axes = figure.subplots()
    arrow = {"arrowstyle": "-|>", "linewidth": 1.3}
    symbols = ["X", "Y of Dense, X of ReLU", "Y of ReLU, X of Dense", "logits"]
    for number, (name, shape, gradients) in enumerate(rows):
        y = -2.0 * number
        axes.add_patch(Rectangle((0.45, y - 0.5), 3.1, 1, facecolor="#eef3f8", edgecolor=GREY))
        said = name
        if gradients:
            said += "\n" + "\n".join(f"gradient of {of}: {times(s)}" for of, s in gradients.items())
        axes.text(MIDDLE, y, said, ha="center", va="center", fontsize="small")
        above, below = y + 1.45, y + 0.55
        axes.annotate("", (LEFT, below), (LEFT, above), arrowprops={**arrow, "color": BLUE})
        axes.text(LEFT + 0.08, y + 1.0, f"{symbols[number]}\n{times(shape)}", color=BLUE,
                  fontsize="small", va="center")  # fmt: skip
        if number:
            axes.annotate("", (RIGHT, above), (RIGHT, below), arrowprops={**arrow, "color": ORANGE})
            axes.text(RIGHT - 0.08, y + 1.0, f"its gradient\n{times(shape)}", color=ORANGE,
                      fontsize="small", va="center", ha="right")  # fmt: skip
    y = -2.0 * (len(rows) - 1)
    axes.annotate("", (LEFT, y - 1.3), (LEFT, y - 0.5), arrowprops={**arrow, "color": BLUE})
    axes.text(LEFT + 0.08, y - 0.95, "L, one number", color=BLUE, fontsize="small", va="center")
    axes.set_xlim(0.4, 3.6)
    axes.set_ylim(y - 1.5, 1.6)
    axes.set_axis_off()
    return figure
