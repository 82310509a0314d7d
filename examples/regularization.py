"""L2 regularisation of a wide network
======================================

784-512-512-10 has far more units than its samples need: it holds 670,000
parameters, and learns 1,000 digits by heart.

What to see: the penalty alpha * sum(w^2) makes the weights smaller the larger
alpha is, and narrows the gap between the losses on known and on unknown digits;
the best validation loss lies at an alpha in between. The validation accuracy
hardly moves: what the penalty mends is how sure the network is where it is wrong.
Too large an alpha makes it worse at both.

::

    python examples/regularization.py             five seeds, 50 epochs
    python examples/regularization.py --quick     one seed, three alphas, 20 epochs
"""

from __future__ import annotations

from itertools import product

import numpy as np
from common import (
    BLUE,
    GREY,
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

SAMPLES, HIDDEN = 1000, 512


def build(alpha: float, seed: int) -> fastnn.Network:
    """Return the wide network with a penalty on the weights of every layer."""
    network = fastnn.Network(seed=seed)
    network.add(fastnn.Dense(784, HIDDEN, l2=alpha))
    network.add(fastnn.ReLU())
    network.add(fastnn.Dense(HIDDEN, HIDDEN, l2=alpha))
    network.add(fastnn.ReLU())
    network.add(fastnn.Dense(HIDDEN, 10, l2=alpha))
    return network


def cross_entropy(network: fastnn.Network, X: np.ndarray, y: np.ndarray) -> float:
    """Return the mean cross-entropy without the penalty, which `evaluate` adds."""
    return float(fastnn.softmax_crossentropy_with_logits(network.forward(X)[-1], y).mean())


def magnitude(network: fastnn.Network) -> float:
    """Return the sum of the absolute weights."""
    return sum(float(abs(layer.weights).sum()) for layer in network[::2])


def draw(rows: dict, path: str) -> None:
    """Draw losses, accuracies and magnitudes by alpha."""
    figure = new_figure(10, 3.2)
    losses, accuracies, magnitudes = figure.subplots(1, 3)
    alphas = list(rows)
    places = range(len(alphas))  # evenly: alpha 0 has no place on a logarithmic axis
    columns = np.moveaxis([rows[alpha] for alpha in alphas], 2, 0)  # [figure, alpha, seed]
    for axes, column, color, label in (
        (losses, 0, BLUE, "training"),
        (losses, 2, ORANGE, "validation"),
        (accuracies, 1, BLUE, "training"),
        (accuracies, 3, ORANGE, "validation"),
        (magnitudes, 4, GREY, ""),
    ):
        plot_seeds(axes, places, columns[column].T, color, label)
        axes.set_xticks(places, labels=[f"{alpha:g}" for alpha in alphas], fontsize=8)
    tidy(losses, "alpha", "cross-entropy")
    tidy(accuracies, "alpha", "accuracy")
    tidy(magnitudes, "alpha", "sum of abs(w)")
    for axes in (losses, magnitudes):
        axes.set_ylim(bottom=0)
    losses.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    """Train with every alpha from every seed, on other digits for each seed."""
    options = parse_options(__doc__, seeds=5)
    epochs = 20 if options.quick else 50
    alphas = [0, 0.001, 0.03] if options.quick else [0, 0.0003, 0.001, 0.003, 0.01, 0.03]
    X, y, X_val, y_val, _, _ = fastnn.load_dataset(flatten=True)
    rows = {alpha: [] for alpha in alphas}
    for seed, alpha in each(product(options.seeds, alphas)):
        chosen = np.random.default_rng(seed).choice(len(X), SAMPLES, replace=False)
        network = build(alpha, seed)
        network.fit(X[chosen], y[chosen], epochs=epochs)
        training = (X[chosen], y[chosen])
        rows[alpha].append(
            [
                cross_entropy(network, *training),
                network.evaluate(*training).accuracy,
                cross_entropy(network, X_val, y_val),
                network.evaluate(X_val, y_val).accuracy,
                magnitude(network),
            ]
        )
    draw(rows, options.output)

    table = np.array([rows[alpha] for alpha in alphas])  # [alpha, seed, figure]
    means = table.mean(axis=1)
    print_table(
        ["alpha", "training loss", "accuracy", "validation loss", "accuracy", "sum of abs(w)"],
        [
            [f"{alpha:g}", *(f"{value:.4f}" for value in mean[:4]), f"{mean[4]:.0f}"]
            for alpha, mean in zip(alphas, means, strict=True)
        ],
    )
    gap = table[..., 2] - table[..., 0]
    best = int(means[:, 2].argmin())
    conclude(
        {
            "the weights shrink as alpha grows, on every seed": bool(
                (np.diff(table[..., 4], axis=0) < 0).all()
            ),
            "so does the gap between the losses": bool((np.diff(gap, axis=0) < 0).all()),
            f"alpha {alphas[best]:g} has a lower validation loss than none, on every seed": bool(
                (table[best, :, 2] < table[0, :, 2]).all()
            ),
            "and an accuracy within 0.01 of it": bool(
                (abs(table[best, :, 3] - table[0, :, 3]) < 0.01).all()
            ),
            f"alpha {alphas[-1]:g} is worse than none at both": bool(
                (table[-1, :, 2] > table[0, :, 2]).all()
                and (table[-1, :, 3] < table[0, :, 3]).all()
            ),
        }
    )


if __name__ == "__main__":
    main()
