"""Raw, normalised and standardised pixels
==========================================

784-100-50-10 with tanh behind every layer learns one-hot targets under squared
error from 1,000 digits, one at a time, 35 epochs at a rate of 0.1, weights and
biases from uniform(-0.5, 0.5).

What to see: pixels from 0 to 255 drive the first layer's units to -1 or 1, where
tanh is flat and learns next to nothing; scaled pixels leave it room. Raw pixels
leave a network that calls nearly everything a 6, the digit that it is shown last.
The notebook's runs are right on 0.28, 0.79 and 0.72 of the test images. Scaling
of the test images takes the numbers of the training images.

::

    python examples/scaling.py             five seeds of each
    python examples/scaling.py --quick     one seed, 8 epochs
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import product

import numpy as np
from common import (
    BLUE,
    GREEN,
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

SAMPLES, SHOWN = 1000, 3
SCALINGS = {
    "raw": lambda values, reference: values,
    "normalised": fastnn.normalize,
    "standardised": fastnn.standardize,
}
COLORS = dict(zip(SCALINGS, (ORANGE, BLUE, GREEN), strict=True))
NOTEBOOK = {"raw": 0.28, "normalised": 0.79, "standardised": 0.72}


def build(seed: int) -> fastnn.Network:
    """Return the third notebook's network with its starting values."""
    start = initializers.uniform(-0.5, 0.5)
    network = fastnn.Network(seed=seed)
    for inputs, outputs in ((784, 100), (100, 50), (50, 10)):
        network.add(fastnn.Dense(inputs, outputs, 0.1, weights=start, biases=start))
        network.add(fastnn.Tanh())
    network.use(fastnn.mse, fastnn.mse_prime)
    return network


def classification_report(y_true: np.ndarray, y_pred: np.ndarray) -> list[list[object]]:
    """Return a row for each class: precision, recall, F1 and support; then means.

    Precision is the share of right answers among the images called so, recall
    that among the images that are so, F1 = 2 precision recall / (precision +
    recall), each 0 where nothing was called so; support counts the images.
    """
    confusion = np.zeros((10, 10))
    np.add.at(confusion, (y_true, y_pred), 1)
    right, called, support = confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)
    columns = np.array(
        [right / np.maximum(called, 1), right / support, 2 * right / (called + support)]
    )
    all_images = support.sum()
    rows = [[digit, *columns[:, digit], support[digit]] for digit in range(10)]
    rows.append(["mean", *columns.mean(axis=1), all_images])
    rows.append(["mean by support", *(columns @ support / all_images), all_images])
    rows.append(["accuracy", "", "", right.sum() / all_images, all_images])
    return [
        [name, *(figure if figure == "" else f"{figure:.2f}" for figure in figures), f"{count:.0f}"]
        for name, *figures, count in rows
    ]


def hundredths(values: np.ndarray) -> list[str]:
    """Return numbers to two places; adding 0 turns a rounded -0.0 into 0.0."""
    return [f"{round(value, 2) + 0:.2f}" for value in values.tolist()]


def draw(
    errors: dict, outputs: dict, images: np.ndarray, answers: Sequence[int], path: str
) -> None:
    """Draw the training error by epoch, and the outputs for a few test digits."""
    figure = new_figure(9.5, 3.8)
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.25])
    axes = left.subplots()
    for name, color in COLORS.items():
        plot_seeds(axes, range(1, len(errors[name][0]) + 1), errors[name], color, name)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    tidy(axes, "epoch", "mean squared error in training")
    for i, (picture, *bars) in enumerate(right.subplots(1 + len(SCALINGS), len(images)).T):
        picture.imshow(images[i].reshape(28, 28), cmap="gray_r")
        picture.set_title(f"a {answers[i]}", fontsize=10, color="#5a5a5a")
        picture.set_axis_off()
        for panel, (name, color) in zip(bars, COLORS.items(), strict=True):
            panel.bar(range(10), outputs[name][i], color=color)
            panel.plot(answers[i], 1.2, marker="v", color="black", markersize=4)
            panel.set_ylim(-0.6, 1.4)
            panel.set_xticks(range(10), labels=range(10) if name == "standardised" else [])
            panel.tick_params(labelsize=7)
            panel.spines[["top", "right"]].set_visible(False)
            if i == 0:
                panel.set_ylabel(name, fontsize=8)
            else:
                panel.set_yticklabels([])
    figure.savefig(path)


def main() -> None:
    """Train on each scaling from every seed."""
    options = parse_options(__doc__, seeds=5)
    epochs = 8 if options.quick else 35
    X, y, _, _, X_test, y_test = fastnn.load_dataset(flatten=True, dtype=np.uint8)
    data = {name: (scaled(X, X)[:SAMPLES], scaled(X_test, X)) for name, scaled in SCALINGS.items()}
    targets = fastnn.one_hot(y[:SAMPLES], 10)
    errors = {name: [] for name in SCALINGS}
    outputs = {name: [] for name in SCALINGS}
    for seed, name in each(product(options.seeds, SCALINGS)):
        samples, test_samples = data[name]
        network = build(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of raw pixels, which this is about
            history = network.fit(samples, targets, epochs=epochs, batch_size=1, shuffle=False)
        errors[name].append(history.loss)
        outputs[name].append(network.predict(test_samples))
    first = {name: outputs[name][0] for name in SCALINGS}
    draw(errors, first, X_test[:SHOWN], y_test[:SHOWN], options.output)

    for name in SCALINGS:
        print(f"Pixels {name}, the first seed, 10,000 test images:\n")
        report = classification_report(y_test, first[name].argmax(axis=1))
        print_table(["class", "precision", "recall", "F1", "support"], report)
        print()
    print(f"Outputs of the first seed for the first {SHOWN} test digits:\n")
    rows = []
    for i in range(SHOWN):
        true = (str(int(digit == y_test[i])) for digit in range(10))
        rows.append([y_test[i], "true", *true])
        rows += [["", name, *hundredths(first[name][i])] for name in SCALINGS]
    print_table(["digit", "", *range(10)], rows)
    print()
    accuracy = {
        name: [(output.argmax(axis=1) == y_test).mean() for output in outputs[name]]
        for name in SCALINGS
    }
    print_table(
        ["pixels", "test accuracy", "lowest", "highest", "notebook", "last training error"],
        [
            [name, f"{np.mean(values):.3f}", f"{min(values):.3f}", f"{max(values):.3f}",
             f"{NOTEBOOK[name]:.2f}", f"{np.mean(errors[name], axis=0)[-1]:.4f}"]
            for name, values in accuracy.items()
        ],
    )  # fmt: skip
    lowest = {name: min(values) for name, values in accuracy.items()}
    highest = {name: max(values) for name, values in accuracy.items()}
    claims = {
        "raw pixels: right on less than half of the images on every seed": highest["raw"] < 0.5,
        "scaled pixels: right on more than 0.6 on every seed": (
            min(lowest["normalised"], lowest["standardised"]) > 0.6
        ),
    }
    if not options.quick:
        claims["each mean accuracy is within 0.05 of the notebook's run"] = all(
            abs(np.mean(accuracy[name]) - NOTEBOOK[name]) < 0.05 for name in SCALINGS
        )
    conclude(claims)


if __name__ == "__main__":
    main()
