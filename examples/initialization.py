"""Xavier initialisation against a deviation of 0.01
====================================================

What to see: normal weights of deviation 0.01, the second notebook's choice, shrink
the signal in every layer. A network of three or four layers recovers; from five
layers on next to nothing is left of the input at the output, nor of the gradient
at the input, and after five epochs the network is right on one image in ten, as
at the start. Xavier weights keep the signal and train at every depth.

::

    python examples/initialization.py             five seeds, five epochs each
    python examples/initialization.py --quick     one seed, two depths, two epochs
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
    plot_seeds,
    print_table,
    tidy,
)

import fastnn
from fastnn import initializers

INITIALIZERS = {"Xavier": "xavier_normal", "deviation 0.01": initializers.normal(0.01)}
COLORS = {"Xavier": BLUE, "deviation 0.01": ORANGE}
CHANCE = 0.12
"""What a network that calls every image a one stays below."""


def build(depth: int, weights: object, seed: int) -> fastnn.Network:
    """Return a network of `depth` dense layers, the hidden ones 100 units wide."""
    network = fastnn.Network([fastnn.Dense(784, 100, weights=weights)], seed=seed)
    for _ in range(depth - 2):
        network.add(fastnn.ReLU())
        network.add(fastnn.Dense(100, 100, weights=weights))
    network.add(fastnn.ReLU())
    network.add(fastnn.Dense(100, 10, weights=weights))
    return network


def spreads(network: fastnn.Network, X: np.ndarray) -> list[float]:
    """Return the standard deviation of what each dense layer puts out."""
    return [float(output.std()) for output in network.forward(X)[::2]]


def draw(signal: dict, accuracy: dict, depths: list[int], path: str) -> None:
    """Draw the signal in the deepest network before training, and accuracy by depth."""
    figure = new_figure(8, 3.4)
    before, after = figure.subplots(1, 2)
    for name, color in COLORS.items():
        plot_seeds(before, range(1, depths[-1] + 1), signal[name], color, name)
        by_depth = [accuracy[depth, name] for depth in depths]
        plot_seeds(after, depths, np.transpose(by_depth), color, name)
    before.set_yscale("log")
    tidy(before, "dense layer", "standard deviation of its output", title="before training")
    tidy(after, "dense layers", "validation accuracy", title="after training")
    after.set_ylim(0, 1)
    before.legend(frameon=False, loc="lower left")
    figure.savefig(path)


def main() -> None:
    """Train at every depth from both initialisations."""
    options = parse_options(__doc__, seeds=5)
    epochs, depths = (2, [3, 5]) if options.quick else (5, [3, 4, 5, 6, 8])
    X, y, X_val, y_val, _, _ = fastnn.load_dataset(flatten=True)
    accuracy = {key: [] for key in product(depths, INITIALIZERS)}
    signal = {name: [] for name in INITIALIZERS}
    for seed, depth, name in each(product(options.seeds, depths, INITIALIZERS)):
        network = build(depth, INITIALIZERS[name], seed)
        if depth == depths[-1]:
            signal[name].append(spreads(network, X_val[:1000]))
        network.fit(X, y, epochs=epochs)
        accuracy[depth, name].append(network.evaluate(X_val, y_val).accuracy)
    draw(signal, accuracy, depths, options.output)

    print_table(
        ["dense layers", "weights", "mean accuracy", "lowest", "highest"],
        [
            [depth, name, f"{np.mean(values):.4f}", f"{min(values):.4f}", f"{max(values):.4f}"]
            for (depth, name), values in accuracy.items()
        ],
    )
    deep = [depth for depth in depths if depth >= 5]
    conclude(
        {
            "from 5 layers on, a deviation of 0.01 stays at one image in ten on every seed": all(
                max(accuracy[depth, "deviation 0.01"]) < CHANCE for depth in deep
            ),
            "a deviation of 0.01 still trains 3 layers on every seed": (
                min(accuracy[3, "deviation 0.01"]) > 0.9
            ),
            "Xavier's mean accuracy is above 0.95 at every depth": all(
                np.mean(accuracy[depth, "Xavier"]) > 0.95 for depth in depths
            ),
        }
    )


if __name__ == "__main__":
    main()
