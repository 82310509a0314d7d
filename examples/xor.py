"""XOR, one sample at a time
============================

A 2-3-1 network of tanh units learns XOR under squared error, in 1,000 passes over
the four samples, in their order, at a learning rate of 0.1.

What to see: from Xavier weights and zero biases most runs end near an error of
0.00025, where the notebook's run ends, and answer all four inputs rightly. From
the notebook's own start, uniform(-0.5, 0.5) for weights and biases, about a third
of the runs stay on a plateau near 0.28, which some Xavier runs do not leave
either.

::

    python examples/xor.py             fifty seeds of each
    python examples/xor.py --quick     five seeds of each
"""

from __future__ import annotations

from itertools import product

import numpy as np
from common import (
    BLUE,
    ORANGE,
    conclude,
    each,
    new_figure,
    parse_options,
    print_table,
    tidy,
)

import fastnn
from fastnn import initializers

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=float)
Y = np.array([[0], [1], [1], [0]], dtype=float)
EPOCHS, LEARNING_RATE, SOLVED = 1000, 0.1, 0.001
STARTS = {
    "Xavier": {"weights": "xavier_normal", "biases": "zeros"},
    "uniform(-0.5, 0.5)": {
        "weights": initializers.uniform(-0.5, 0.5),
        "biases": initializers.uniform(-0.5, 0.5),
    },
}


def build(start: str, seed: int) -> fastnn.Network:
    """Return a 2-3-1 network with tanh behind both layers."""
    network = fastnn.Network(seed=seed)
    network.add(fastnn.Dense(2, 3, LEARNING_RATE, **STARTS[start]))
    network.add(fastnn.Tanh())
    network.add(fastnn.Dense(3, 1, LEARNING_RATE, **STARTS[start]))
    network.add(fastnn.Tanh())
    network.use(fastnn.mse, fastnn.mse_prime)
    return network


def draw(errors: dict, network: fastnn.Network, path: str) -> None:
    """Draw the error of every run by epoch, and the outputs of one network between its inputs."""
    figure = new_figure(10, 3.2)
    *panels, surface = figure.subplots(1, 3, width_ratios=[1, 1, 0.8])
    for axes, (start, color) in zip(panels, zip(STARTS, (BLUE, ORANGE), strict=True), strict=True):
        axes.plot(np.transpose(errors[start]), color=color, linewidth=0.7, alpha=0.6)
        axes.axhline(SOLVED, color="black", linewidth=0.8, linestyle=":")
        axes.set_yscale("log")
        axes.set_ylim(1e-4, 2)
        tidy(axes, "epoch", "mean squared error", title=f"{start}: a line a seed")
    grid = np.linspace(-0.2, 1.2, 141)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    image = network.predict(points).reshape(len(grid), len(grid))
    extent = (grid[0], grid[-1], grid[0], grid[-1])
    drawn = surface.imshow(image, "RdBu", origin="lower", extent=extent, vmin=-0.5, vmax=1.5)
    for point, answer in zip(X, Y[:, 0], strict=True):
        surface.text(*point, f"{answer:.0f}", ha="center", va="center", weight="bold")
    bar = figure.colorbar(drawn, ax=surface, label="output", ticks=[-0.5, 0, 0.5, 1], shrink=0.7)
    bar.outline.set_visible(False)
    surface.set(xticks=[0, 1], yticks=[0, 1])
    tidy(surface, "first input", "second input", title="a network from Xavier weights")
    surface.grid(visible=False)
    figure.savefig(path)


def main() -> None:
    """Train from both starts and every seed."""
    options = parse_options(__doc__, seeds=50, quick_seeds=5)
    errors = {start: [] for start in STARTS}
    outputs = {start: [] for start in STARTS}
    networks = []
    for seed, start in each(product(options.seeds, STARTS)):
        network = build(start, seed)
        history = network.fit(X, Y, epochs=EPOCHS, batch_size=1, shuffle=False)
        errors[start].append(history.loss)
        outputs[start].append(network.predict(X)[:, 0])
        if start == "Xavier":
            networks.append(network)

    last = {start: np.array(errors[start])[:, -1] for start in STARTS}
    right = {
        start: ((np.array(outputs[start]) > 0.5) == (Y[:, 0] > 0.5)).all(axis=1) for start in STARTS
    }
    reached = {start: right[start] & (last[start] < SOLVED) for start in STARTS}
    solved = {start: int(reached[start].sum()) for start in STARTS}
    shown = networks[int(reached["Xavier"].argmax())]
    draw(errors, shown, options.output)
    runs = len(options.seeds)
    print_table(
        ["start", "four right answers", f"and error below {SOLVED}", "median error", "worst error"],
        [
            [start, f"{right[start].sum()} of {runs}", f"{solved[start]} of {runs}",
             f"{np.median(last[start]):.6f}", f"{max(last[start]):.6f}"]
            for start in STARTS
        ],
    )  # fmt: skip
    print("\nOutputs of the first Xavier network that got there:\n")
    print_table(
        ["input", "true", "output"],
        [
            [f"{x[0]:.0f} xor {x[1]:.0f}", f"{answer:.0f}", f"{output:.4f}"]
            for x, answer, output in zip(X, Y[:, 0], shown.predict(X)[:, 0], strict=True)
        ],
    )
    conclude(
        {
            f"Xavier: at least {runs * 4 // 5} of {runs} runs below {SOLVED} with four right "
            "answers": solved["Xavier"] >= runs * 4 // 5,
            "uniform(-0.5, 0.5) gets there no more often": (
                solved["uniform(-0.5, 0.5)"] <= solved["Xavier"]
            ),
            "the median Xavier run ends below 0.0004": bool(np.median(last["Xavier"]) < 0.0004),
        }
    )


if __name__ == "__main__":
    main()
