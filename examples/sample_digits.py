"""The digits, with their labels
================================

What to see: forty of the training images from which the other examples learn,
four of each digit, under the label that they carry. The ten classes are nearly,
not exactly, equally frequent, so a network that has learned nothing is right
about one time in ten.

::

    python examples/sample_digits.py
"""

from __future__ import annotations

import numpy as np
from common import conclude, new_figure, parse_options, print_table

import fastnn

SAMPLES = 4


def draw(X: np.ndarray, y: np.ndarray, path: str) -> None:
    """Draw the first images of every class, a column a class."""
    figure = new_figure(7.5, 3.4)
    for digit, column in enumerate(figure.subplots(SAMPLES, 10).T):
        column[0].set_title(f"label {digit}", fontsize=9)
        for axes, image in zip(column, X[y == digit], strict=False):
            axes.imshow(image, cmap="gray_r")
            axes.set_axis_off()
    figure.savefig(path)


def main() -> None:
    """Count the labels of each split and draw a few digits."""
    options = parse_options(__doc__)
    X, y, X_val, y_val, X_test, y_test = fastnn.load_dataset()
    draw(X, y, options.output)

    splits = {"training": y, "validation": y_val, "test": y_test}
    shares = {name: np.bincount(labels) / len(labels) for name, labels in splits.items()}
    print_table(
        ["split", "images", *map(str, range(10))],
        [[name, len(splits[name]), *(f"{share:.1%}" for share in shares[name])] for name in splits],
    )
    shapes = {images.shape[1:] for images in (X, X_val, X_test)}
    conclude(
        {
            "every class holds between 8 % and 12 % of every split": all(
                share.min() > 0.08 and share.max() < 0.12 for share in shares.values()
            ),
            "every image is 28 by 28 pixels": all(shape == (28, 28) for shape in shapes),
        }
    )


if __name__ == "__main__":
    main()
