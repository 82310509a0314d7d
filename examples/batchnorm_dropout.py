"""Batch normalisation and dropout
==================================

What to see, first: a network of five layers trains at a rate of 0.1 and breaks
from 1.0 on; with batch norm behind every hidden layer it trains at each of the
rates, as the scale of a layer's weights no longer matters to the next. Second:
784-512-512-10 learns 2,000 digits by heart. With dropout, of a fifth of the
pixels and half of the hidden units, it does so too, yet no unit can rely on
another, and it is right on one to two in a hundred more of the unknown digits.

::

    python examples/batchnorm_dropout.py             five seeds
    python examples/batchnorm_dropout.py --quick     one seed, two rates, fewer epochs
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

BROKEN = 1.0
"""The rate from which the plain network does not train."""


def deep_network(rate: float, batch_norm: bool, seed: int) -> fastnn.Network:
    """Return five dense layers with ReLU, with batch norm before each ReLU or without."""
    network = fastnn.Network(seed=seed)
    for inputs in (784, 100, 100, 100):
        network.add(fastnn.Dense(inputs, 100, rate))
        if batch_norm:
            network.add(fastnn.BatchNorm(100, rate))
        network.add(fastnn.ReLU())
    network.add(fastnn.Dense(100, 10, rate))
    return network


def wide_network(dropout: bool, seed: int) -> fastnn.Network:
    """Return 784-512-512-10, with dropout of pixels and hidden units or without."""
    network = fastnn.Network(seed=seed)
    for inputs, outputs, p in ((784, 512, 0.2), (512, 512, 0.5), (512, 10, 0.5)):
        if inputs != 784:
            network.add(fastnn.ReLU())
        if dropout:
            network.add(fastnn.Dropout(p))
        network.add(fastnn.Dense(inputs, outputs))
    return network


def draw(by_rate: dict, rates: list[float], curves: dict, path: str) -> None:
    """Draw accuracy by rate with and without batch norm, and by epoch with and without dropout."""
    figure = new_figure(9, 3.4)
    left, right = figure.subplots(1, 2)
    for used, color in ((False, ORANGE), (True, BLUE)):
        values = np.transpose([by_rate[rate, used] for rate in rates])
        plot_seeds(left, range(len(rates)), values, color, "batch norm" if used else "plain")
        epochs = range(1, len(curves[used][0]) + 1)
        plot_seeds(right, epochs, curves[used], color, "dropout" if used else "plain")
    left.set_xticks(range(len(rates)), labels=[f"{rate:g}" for rate in rates])
    left.set_ylim(0, 1)
    right.set_ylim(bottom=0.85)
    tidy(left, "learning rate", "validation accuracy", title="five layers, 10,000 digits")
    tidy(right, "epoch", "validation accuracy", title="784-512-512-10, 2,000 digits")
    left.legend(frameon=False, loc="center left")
    right.legend(frameon=False, loc="lower right")
    figure.savefig(path)


def main() -> None:
    """Train both pairs of networks from every seed."""
    options = parse_options(__doc__, seeds=5)
    rates = [0.1, 2.0] if options.quick else [0.1, 0.5, 1.0, 2.0]
    epochs = 25 if options.quick else 40
    X, y, X_val, y_val, _, _ = fastnn.load_dataset(flatten=True)
    shown = 2000 if options.quick else len(X_val)
    validation = (X_val[:shown], y_val[:shown])

    by_rate = {key: [] for key in product(rates, (False, True))}
    for seed, (rate, batch_norm) in each(product(options.seeds, by_rate)):
        network = deep_network(rate, batch_norm, seed)
        # at some of these rates it is to be seen that training diverges
        network.fit(X[:10_000], y[:10_000], epochs=3, on_divergence="ignore")
        by_rate[rate, batch_norm].append(network.evaluate(*validation).accuracy)

    curves = {False: [], True: []}
    figures = {False: [], True: []}
    for seed, dropout in each(product(options.seeds, curves)):
        chosen = np.random.default_rng(seed).choice(len(X), 2000, replace=False)
        network = wide_network(dropout, seed)
        history = network.fit(X[chosen], y[chosen], epochs=epochs, validation_data=validation)
        curves[dropout].append(history.val_accuracy)
        training = network.evaluate(X[chosen], y[chosen]).accuracy
        figures[dropout].append([training, history.val_accuracy[-1], history.val_loss[-1]])
    draw(by_rate, rates, curves, options.output)

    print_table(
        ["five layers", *(f"rate {rate:g}" for rate in rates)],
        [
            [name, *(f"{np.mean(by_rate[rate, used]):.4f}" for rate in rates)]
            for name, used in (("plain", False), ("batch norm", True))
        ],
    )
    print()
    means = {used: np.mean(values, axis=0) for used, values in figures.items()}
    print_table(
        ["784-512-512-10", "training accuracy", "validation accuracy", "validation loss"],
        [
            [name, *(f"{value:.4f}" for value in means[used])]
            for name, used in (("plain", False), ("dropout", True))
        ],
    )
    accuracy = {used: np.array(values)[:, 1] for used, values in figures.items()}
    conclude(
        {
            "with batch norm every rate is above 0.8, on every seed": all(
                min(by_rate[rate, True]) > 0.8 for rate in rates
            ),
            f"without it rates from {BROKEN:g} on stay below 0.5, on every seed": all(
                max(by_rate[rate, False]) < 0.5 for rate in rates if rate >= BROKEN
            ),
            "dropout validates better by more than 0.01, on every seed": bool(
                (accuracy[True] > accuracy[False] + 0.01).all()
            ),
            "and with a lower loss": bool(means[True][2] < means[False][2]),
        }
    )


if __name__ == "__main__":
    main()
