"""SGD, momentum, RMSprop and Adam
==================================

Each optimiser at the best of its own rates.

What to see: on the notebooks' network of ReLU units a well-chosen rate is worth
more than the optimiser: all four end close together. Three layers of sigmoid
units are harder: their gradients shrink on the way down, plain SGD spends the
first epoch on a plateau at any rate, momentum leaves it sooner, and RMSprop and
Adam, which measure each parameter's gradient by its own size, hardly notice it.

The rate of each is the one with the lowest validation loss on a seed of its own,
which is not among those that are reported.

::

    python examples/optimizers.py             both networks, five seeds
    python examples/optimizers.py --quick     sigmoid alone, one seed, two rates each
"""

from __future__ import annotations

import math
from itertools import pairwise, product

import numpy as np
from common import (
    BLUE,
    GREEN,
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

SAMPLES, EPOCHS, TUNING_SEED = 10_000, 5, 1000
OPTIMIZERS = {
    "SGD": fastnn.SGD,
    "momentum": lambda rate: fastnn.SGD(rate, momentum=0.9),
    "RMSprop": fastnn.RMSprop,
    "Adam": fastnn.Adam,
}
RATES = {
    "SGD": [0.1, 0.3, 1.0, 3.0, 10.0],
    "momentum": [0.01, 0.03, 0.1, 0.3, 1.0],
    "RMSprop": [0.0001, 0.0003, 0.001, 0.003, 0.01],
    "Adam": [0.0001, 0.0003, 0.001, 0.003, 0.01],
}
COLORS = dict(zip(OPTIMIZERS, (GREY, BLUE, GREEN, ORANGE), strict=True))
NETWORKS = {
    "ReLU": (fastnn.ReLU, (784, 100, 200, 10)),
    "sigmoid": (fastnn.Sigmoid, (784, 100, 100, 100, 10)),
}


def train(data, kind: str, optimizer: str, rate: float, seed: int) -> fastnn.History:
    """Return what happened in training one network with one optimiser."""
    activation, units = NETWORKS[kind]
    network = fastnn.Network(optimizer=OPTIMIZERS[optimizer](rate), seed=seed)
    for i, (inputs, outputs) in enumerate(pairwise(units)):
        if i:
            network.add(activation())
        network.add(fastnn.Dense(inputs, outputs))
    X, y, X_val, y_val = data
    # there are rates at which training diverges, which is to be seen
    validation = X_val, y_val
    return network.fit(X, y, epochs=EPOCHS, validation_data=validation, on_divergence="ignore")


def final_loss(history: fastnn.History) -> float:
    """Return the last validation loss, infinite where training diverged."""
    loss = history.val_loss[-1]
    return loss if math.isfinite(loss) else math.inf


def draw(kinds: list[str], tuning: dict, losses: dict, path: str) -> None:
    """Draw, for each network, the validation loss by rate and the training loss by epoch."""
    figure = new_figure(8.5, 3.2 * len(kinds))
    for kind, (by_rate, by_epoch) in zip(
        kinds, figure.subplots(len(kinds), 2, squeeze=False), strict=True
    ):
        for name, color in COLORS.items():
            rates = [rate for key, of, rate in tuning if (key, of) == (kind, name)]
            values = [tuning[kind, name, rate] for rate in rates]
            by_rate.plot(rates, values, color=color, marker="o", markersize=4, label=name)
            plot_seeds(by_epoch, range(1, EPOCHS + 1), losses[kind, name], color, name)
        by_rate.set(xscale="log", yscale="log")
        by_rate.set_ylim(0.1, 3)
        by_rate.set_yticks([0.1, 0.2, 0.5, 1, 2], labels=["0.1", "0.2", "0.5", "1", "2"])
        by_rate.minorticks_off()
        by_epoch.set_ylim(bottom=0)
        tidy(by_rate, "learning rate", "validation loss", title=f"{kind}: one seed, every rate")
        tidy(by_epoch, "epoch", "training loss", title=f"{kind}: all seeds, each at its best rate")
        by_epoch.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    """Choose a rate for each optimiser, then train with it from every seed."""
    options = parse_options(__doc__, seeds=5)
    kinds = ["sigmoid"] if options.quick else list(NETWORKS)
    grid = {name: rates[2:4] if options.quick else rates for name, rates in RATES.items()}
    X, y, X_val, y_val, _, _ = fastnn.load_dataset(flatten=True)
    validated = 2000 if options.quick else len(X_val)
    data = (X[:SAMPLES], y[:SAMPLES], X_val[:validated], y_val[:validated])
    choices = [(kind, name, rate) for kind in kinds for name in grid for rate in grid[name]]
    tuning = {choice: final_loss(train(data, *choice, TUNING_SEED)) for choice in each(choices)}
    best = {
        (kind, name): min(grid[name], key=lambda rate: tuning[kind, name, rate])
        for kind, name in product(kinds, OPTIMIZERS)
    }
    runs = {key: [] for key in best}
    for seed, key in each(product(options.seeds, best)):
        runs[key].append(train(data, *key, best[key], seed))
    losses = {key: [history.loss for history in runs[key]] for key in runs}
    draw(kinds, tuning, losses, options.output)

    accuracy = {key: [history.val_accuracy[-1] for history in runs[key]] for key in runs}
    first = {key: np.array(losses[key])[:, 0] for key in losses}
    last = {key: np.array(losses[key])[:, -1] for key in losses}
    print_table(
        ["network", "optimiser", "rate", "loss, epoch 1", f"epoch {EPOCHS}", "validation accuracy"],
        [
            [*key, f"{best[key]:g}", f"{first[key].mean():.3f}", f"{last[key].mean():.3f}",
             f"{np.mean(accuracy[key]):.4f}"]
            for key in runs
        ],
    )  # fmt: skip
    claims = {
        "sigmoid: RMSprop's and Adam's first epoch ends at half of SGD's loss, on every seed": all(
            (first["sigmoid", name] < first["sigmoid", "SGD"] / 2).all()
            for name in ("RMSprop", "Adam")
        ),
        "sigmoid: they are still ahead of it after the last one, on every seed": all(
            (last["sigmoid", name] < last["sigmoid", "SGD"]).all() for name in ("RMSprop", "Adam")
        ),
        "sigmoid: momentum's mean loss after one epoch is below SGD's": bool(
            first["sigmoid", "momentum"].mean() < first["sigmoid", "SGD"].mean()
        ),
    }
    if "ReLU" in kinds:
        means = [np.mean(accuracy["ReLU", name]) for name in OPTIMIZERS]
        claims["ReLU: the mean accuracies lie within 0.015 of each other"] = bool(
            max(means) - min(means) < 0.015
        )
    conclude(claims)


if __name__ == "__main__":
    main()
