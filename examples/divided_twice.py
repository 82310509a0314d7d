"""The regularised network that stopped at 0.71
===============================================

The second notebook trains 784-100-200-10 with L2 regularisation for 30 epochs and
ends at a test accuracy of 0.7105. The loss divides the gradient by the batch size
already; its `Dense_reg` divides by it again.

What to see: with batches of 32 that is a learning rate 32 times too small beside
a penalty 32 times too large, so the network crawls, and how far it gets is luck
of the seed. Divided once, the same network ends near 0.97.

::

    python examples/divided_twice.py             five seeds, 30 epochs
    python examples/divided_twice.py --quick     one seed, 3 epochs
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

BATCH_SIZE, LEARNING_RATE = 32, 0.1
ALPHA = 0.0005
"""The notebook's penalty is 0.5 * 0.001 * sum(w^2)."""

# A step of rate (gradient / 32 + 2 alpha w) is one of rate / 32 (gradient + 2 (32 alpha) w).
DIVISIONS = {
    "twice": {"learning_rate": LEARNING_RATE / BATCH_SIZE, "l2": ALPHA * BATCH_SIZE},
    "once": {"learning_rate": LEARNING_RATE, "l2": ALPHA},
}


def build(division: str, seed: int) -> fastnn.Network:
    """Return the notebook's network, from normal weights of deviation 0.01 as there."""
    options = {**DIVISIONS[division], "weights": initializers.normal(0.01)}
    network = fastnn.Network(seed=seed)
    network.add(fastnn.Dense(784, 100, **options))
    network.add(fastnn.ReLU())
    network.add(fastnn.Dense(100, 200, **options))
    network.add(fastnn.ReLU())
    network.add(fastnn.Dense(200, 10, **options))
    return network


def magnitude(network: fastnn.Network) -> float:
    """Return the sum of the absolute weights, the notebook's `weight_mag`."""
    return sum(float(abs(layer.weights).sum()) for layer in network[::2])


def draw(curves: dict, path: str) -> None:
    """Draw validation accuracy by epoch."""
    figure = new_figure(5.5, 3.6)
    axes = figure.subplots()
    for division, color in (("once", BLUE), ("twice", ORANGE)):
        runs = curves[division]
        plot_seeds(axes, range(1, len(runs[0]) + 1), runs, color, f"divided {division}")
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, loc="lower right")
    tidy(axes, "epoch", "validation accuracy", title="mean and extremes of all seeds")
    figure.savefig(path)


def main() -> None:
    """Train both ways from every seed."""
    options = parse_options(__doc__, seeds=5)
    epochs = 3 if options.quick else 30
    X, y, X_val, y_val, X_test, y_test = fastnn.load_dataset(flatten=True)
    curves = {division: [] for division in DIVISIONS}
    rows = {division: [] for division in DIVISIONS}
    for seed, division in each(product(options.seeds, DIVISIONS)):
        network = build(division, seed)
        history = network.fit(
            X,
            y,
            epochs=epochs,
            batch_size=BATCH_SIZE,
            drop_last=True,
            validation_data=(X_val, y_val),
            train_accuracy=True,
        )
        curves[division].append(history.val_accuracy)
        test = network.evaluate(X_test, y_test).accuracy
        rows[division].append(
            [history.train_accuracy[-1], history.val_accuracy[-1], test, magnitude(network)]
        )
    draw(curves, options.output)

    print_table(
        ["gradient divided", "training", "validation", "test", "tests from", "to", "sum of abs(w)"],
        [
            ["notebook, twice", "0.6998", "0.7164", "0.7105", "", "", "629"],
            *(
                [division, *(f"{value:.4f}" for value in np.mean(values, axis=0)[:3]),
                 *(f"{extreme(row[2] for row in values):.4f}" for extreme in (min, max)),
                 f"{np.mean(values, axis=0)[3]:.0f}"]
                for division, values in rows.items()
            ),
        ],
    )  # fmt: skip
    twice, once = ([row[2] for row in rows[division]] for division in ("twice", "once"))
    expected = 0.9 if options.quick else 0.96
    conclude(
        {
            "divided twice: below 0.85 on every seed": max(twice) < 0.85,
            f"divided once: above {expected} on every seed": min(once) > expected,
        }
    )


if __name__ == "__main__":
    main()
