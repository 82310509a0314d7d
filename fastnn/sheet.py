"""`fastnn show`: a sheet of what a network has learned and where it errs; needs matplotlib."""

from __future__ import annotations

import math
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn import checks, images, plotting
from fastnn.checks import Array
from fastnn.plotting import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from fastnn.network import Network

MISTAKES = 24
UNITS = 60
"""How many there is room for on a sheet."""


class ClassReport(NamedTuple):
    """What is right and wrong of each class; arrays of shape [classes].

    Where nothing is of a class, or nothing was taken for it, its share is NaN.
    """

    confusion: npt.NDArray[np.int64]
    """[classes, classes]: how often the class of the row was taken for that of the column."""
    precision: Array
    """The right answers over all answers of the class."""
    recall: Array
    """The right answers over all samples of the class."""
    f1: Array
    """The harmonic mean of both."""

    @property
    def mistakes(self) -> npt.NDArray[np.int64]:
        """The confusion without right answers."""
        return self.confusion - np.diag(np.diag(self.confusion))


def class_report(labels: npt.ArrayLike, answers: npt.ArrayLike, classes: int) -> ClassReport:
    """Count right and wrong answers by class.

    Parameters
    ----------
    labels, answers
        Class ids of shape [n] from 0 to `classes` - 1: the true ones, and those of a network.
    classes
        How many there are.

    Raises
    ------
    ValueError, TypeError
        If an argument is not that.
    """
    classes = checks.integer("classes", classes, minimum=1)
    count = len(checks.filled("labels", labels))
    true = checks.labels("labels", labels, batch=count, classes=classes)
    taken = checks.labels("answers", answers, batch=count, classes=classes)
    confusion = np.bincount(classes * true + taken, minlength=classes**2).reshape(classes, classes)
    right = np.diag(confusion).astype(np.float64)
    samples, answered = confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return ClassReport(
            confusion, right / answered, right / samples, 2 * right / (samples + answered)
        )


def worst_mistakes(labels: Array, probabilities: Array, count: int) -> npt.NDArray[np.int64]:
    """Return where the answer is wrong, that with the largest loss first, `count` at most.

    The loss of a sample grows as the probability of its true class falls.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    of_truth = probabilities[wrong, labels[wrong]]
    return wrong[np.argsort(of_truth, kind="stable")][:count]


def draw(
    network: Network,
    X: Array,
    y: Array,
    path: str | PathLike[str] | None,
    name: str = "",
) -> Any:
    """Draw a sheet, and return the figure.

    It holds the confusion matrix, a table of the classes, the mistakes with the largest loss, and
    the weights of the first dense layer as images.

    Parameters
    ----------
    network
        Under softmax cross-entropy.
    X : array of uint8, [n, height, width]
        Images to judge it by.
    y : class ids, [n]
    path
        Of a picture to write; the ending chooses the format: .png, .svg, .pdf.
    name
        Of the network, for the title.

    Raises
    ------
    ValueError
        If the images are not of the size that the network takes, or have classes that it lacks.
    TypeError
        If the outputs are no logits.
    ImportError
        If matplotlib is not installed.
    """
    plotting.check_installed()  # before anything is predicted
    network._loss.check_logits("sheet")
    height, width = X.shape[1:]
    inputs = images.input_width(network)
    if inputs not in (None, height * width):
        raise ValueError(
            f"expected images of {inputs} pixels, which the network takes, "
            f"got images of {height} by {width}"
        )
    rows: Array = X.reshape(len(X), -1)
    if not images.takes_raw_pixels(network):
        rows = rows * network.dtype.type(1 / 255)
    probabilities = network.predict_proba(rows)
    answers = probabilities.argmax(axis=1)
    report = class_report(y, answers, probabilities.shape[1])

    figure = plotting.new_figure((WIDTH, HEIGHT), dpi=120, facecolor="white")
    title = f"{np.mean(answers == y):.2%} of {len(y):,} images right"
    _text(figure, MARGIN, 0.55, f"{name}: {title}" if name else title, fontsize=17, weight="bold")
    _confusion(figure, report)
    _table(figure, report)
    _mistakes(figure, X, y, probabilities)
    _weights(figure, network, (height, width))
    if path is not None:
        plotting.write(figure, path)
    return figure


WIDTH, HEIGHT, MARGIN = 13.0, 15.3, 0.5
"""Of a sheet, in inches, as all lengths below; places count from its upper left corner."""


def _text(figure: Any, x: float, y: float, text: str, **style: Any) -> None:
    figure.text(x / WIDTH, 1 - y / HEIGHT, text, **style)


def _axes(figure: Any, x: float, y: float, width: float, height: float) -> Any:
    """Return axes whose upper left corner is at x, y."""
    place = (x / WIDTH, 1 - (y + height) / HEIGHT, width / WIDTH, height / HEIGHT)
    axes = figure.add_axes(place)
    axes.tick_params(length=0)
    axes.spines[:].set_color("#d0d0d0")
    return axes


def _image(figure: Any, x: float, y: float, side: float, pixels: Array, **style: Any) -> Any:
    """Return axes of an image in a square; nothing but the image is on them."""
    axes = _axes(figure, x, y, side, side)
    axes.imshow(pixels, **style)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes


def _heading(figure: Any, x: float, y: float, text: str, note: str) -> None:
    """Write what a part of the sheet is, and how to read it."""
    _text(figure, x, y, text, fontsize=13, weight="bold")
    _text(figure, x, y + 0.26, note, fontsize=10, color=GREY)


def _confusion(figure: Any, report: ClassReport) -> None:
    _heading(
        figure, MARGIN, 1.15, "Confusion", "How often each class (row) was taken for which (column)"
    )
    confusion, wrong = report.confusion, report.mistakes
    classes = len(confusion)
    axes = _axes(figure, 1.0, 1.7, 4.6, 4.6)
    axes.imshow(np.sqrt(wrong), cmap=_tints(ORANGE), vmin=0, vmax=math.sqrt(max(1, wrong.max())))
    for row in range(classes):
        axes.add_patch(_square(row))
        for column in range(classes):
            count = confusion[row, column]
            if count:
                axes.text(
                    column, row, f"{count:,}", ha="center", va="center",
                    fontsize=min(10, 95 / classes), color="white" if row == column else "black",
                )  # fmt: skip
    axes.set_xticks(range(classes))
    axes.set_yticks(range(classes))
    axes.set_xlabel("answer")
    axes.set_ylabel("true class")


def _table(figure: Any, report: ClassReport) -> None:
    _heading(
        figure, 6.5, 1.15, "Classes",
        "Precision is of the answers, recall of the images; the lowest in orange",
    )  # fmt: skip
    classes = len(report.confusion)
    axes = _axes(figure, 6.5, 1.7, WIDTH - MARGIN - 6.5, 4.6)
    columns = (0.07, 0.21, 0.39, 0.55, 0.71, 1.0)
    names = ("class", "images", "precision", "recall", "F1", "mistaken for (times)")
    for x, name in zip(columns, names, strict=True):
        axes.text(x, -1, name, ha="right", va="center", fontsize=10, color=GREY)
    measures = (report.precision, report.recall, report.f1)
    for row, wrong in enumerate(report.mistakes):
        to = int(wrong.argmax())
        cells = [
            str(row),
            f"{report.confusion[row].sum():,}",
            *("-" if math.isnan(m[row]) else f"{m[row]:.4f}" for m in measures),
            f"{to} ({wrong[to]})" if wrong[to] else "-",
        ]
        lowest = [row == _lowest(measure) for measure in measures]
        colours = ["black", "black", *(ORANGE if low else "black" for low in lowest), "black"]
        for x, cell, colour in zip(columns, cells, colours, strict=True):
            axes.text(
                x, row, cell, ha="right", va="center", fontsize=min(11, 110 / classes), color=colour
            )
        axes.axhline(row - 0.5, color="#e4e4e4", linewidth=0.8)
    axes.set_xlim(0, 1)
    axes.set_ylim(classes - 0.5, -1.5)
    axes.set_axis_off()


def _mistakes(figure: Any, X: Array, y: Array, probabilities: Array) -> None:
    places = worst_mistakes(y, probabilities, MISTAKES)
    note = "True class → answer, and its probability; those of the largest loss first"
    if not places.size:
        note = "None: every answer is right"
    _heading(figure, MARGIN, 7.25, "Worst mistakes", note)
    for i, place in enumerate(places):
        row, column = divmod(i, MISTAKES // 2)
        axes = _image(
            figure, MARGIN + 1.007 * column, 7.95 + 1.25 * row, 0.92, X[place],
            cmap="gray_r", vmin=0, vmax=255,
        )  # fmt: skip
        answer = int(probabilities[place].argmax())
        share = probabilities[place, answer]
        axes.set_title(f"{y[place]} → {answer}  {share:.0%}", fontsize=10, pad=4)


def _weights(figure: Any, network: Network, shape: tuple[int, int]) -> None:
    pixels = shape[0] * shape[1]
    matrices = (layer.parameters.get("weights") for layer in network)
    # a layer of a user's own may stand before it, and change the width
    fit = (matrix for matrix in matrices if matrix is not None and len(matrix) == pixels)
    weights = next(fit, np.zeros((pixels, 0)))
    units = weights.shape[1]
    # those that do most: a unit whose weights are all small hardly moves with its input
    strongest = np.sort(np.argsort(-np.linalg.norm(weights, axis=0), kind="stable")[:UNITS])
    which = "all" if units <= UNITS else f"the {UNITS} with the largest weights"
    _heading(
        figure, MARGIN, 10.75, "Weights of the first layer",
        f"{units} units, {which}; ink on blue raises the unit, ink on orange lowers it",
    )  # fmt: skip
    # a few large ones would make all others pale
    limit = float(np.quantile(np.abs(weights[:, strongest]), 0.998)) if units else 1.0
    for i, unit in enumerate(strongest):
        row, column = divmod(i, UNITS // 4)
        axes = _image(
            figure, MARGIN + 0.806 * column, 11.25 + 0.93 * row, 0.72,
            weights[:, unit].reshape(shape), cmap=_tints(ORANGE, BLUE), vmin=-limit, vmax=limit,
        )  # fmt: skip
        axes.set_xlabel(f"{unit}", fontsize=8, color=GREY, labelpad=2)


def _tints(*colours: str) -> Any:
    """Return a colour map: white to a colour, or from one through white to another."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = ["white", *colours] if len(colours) == 1 else [colours[0], "white", colours[1]]
    return LinearSegmentedColormap.from_list("", stops)


def _square(place: int) -> Any:
    """Return the square of a right answer in the confusion matrix."""
    from matplotlib.patches import Rectangle

    return Rectangle((place - 0.5, place - 0.5), 1, 1, facecolor=BLUE, edgecolor="white")


def _lowest(measure: Array) -> int:
    """Return where a measure is lowest, -1 where it is NaN everywhere."""
    return -1 if np.isnan(measure).all() else int(np.nanargmin(measure))
