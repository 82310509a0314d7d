"""Columns that a network answers, and how good its answers are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastnn import checks, prediction
from fastnn.checks import Array
from fastnn.prediction import Answers
from fastnn.scores import Evaluation, RSquared
from fastnn.tables import cells

if TYPE_CHECKING:
    from fastnn.network import Network


@dataclass(frozen=True)
class Classes:
    """A target that is one of several classes."""

    name: str
    classes: tuple[str, ...]
    most_frequent: str

    loss = "softmax_cross_entropy"

    def __post_init__(self) -> None:
        cells.check_texts("name", (self.name,))
        cells.check_texts("classes", self.classes)
        if self.most_frequent not in self.classes:
            got = checks.short(repr(self.most_frequent))
            raise ValueError(f"most_frequent: expected a class, got {got}")

    @property
    def outputs(self) -> int:
        """The number of outputs of the network."""
        return len(self.classes)

    def encoded(self, column: Any) -> npt.NDArray[np.int64]:
        """Return class ids, [n]."""
        return cells.places(column, self.name, self.classes, None)

    def report(self, network: Network, X: Array, y: Array, test: Evaluation) -> list[str]:
        """Return lines on loss and accuracy, and on what needs no network."""
        baseline = np.mean(y == self.classes.index(self.most_frequent))
        return [
            f"test loss {test.loss:.4f}",
            f"test accuracy {test.accuracy:.4f}",
            f"baseline: the most frequent class, {checks.short(repr(self.most_frequent))}, has an "
            f"accuracy of {baseline:.4f}",
        ]

    def predictions(self, network: Network, X: Array) -> Answers:
        """Return for each row the likeliest class, and the probability of each."""
        probabilities = prediction.finite(network.predict_proba(X))
        said = [self.classes[i] for i in probabilities.argmax(axis=1)]
        return Answers.of_rows(self.name, said, self.classes, probabilities)

    def __str__(self) -> str:
        shown = checks.listed(self.classes, 10)
        return f"{checks.short(self.name)}, {len(self.classes)} classes: {shown}"


@dataclass(frozen=True)
class Quantity:
    """A target that is a number; mean and deviation are those of the training rows."""

    name: str
    mean: float
    deviation: float

    outputs = 1
    loss = "mse"

    def __post_init__(self) -> None:
        cells.check_texts("name", (self.name,))
        cells.check_scale(self.mean, self.deviation)

    def encoded(self, column: Any) -> npt.NDArray[np.float64]:
        """Return the standardised target, [n]."""
        values = cells.numbers(column, self.name)
        cells.refuse(np.isnan(values), self.name, "a number in every row", column)
        return cells.standardised(values, self.mean, self.deviation)

    def decoded(self, output: Array) -> npt.NDArray[np.float64]:
        """Return numbers in the unit of the target."""
        return output.astype(np.float64) * self.deviation + self.mean

    def report(self, network: Network, X: Array, y: Array, test: Evaluation) -> list[str]:
        """Return lines on the loss and errors in the target's unit, and on what needs no network.

        R² of the answers is that of `test`, as it is the same in any unit.
        """
        y = self.decoded(y)
        p = self.decoded(network.predict(X)[:, 0])
        baseline = RSquared()
        unit = cells.unit_of(y, self.mean)
        baseline.add(y / unit, np.full_like(y, self.mean) / unit)
        return [
            f"test loss {test.loss:.4f}",
            f"test R² {test.r2:.4f}, {_errors(y, p)}",
            f"baseline: the mean of the training rows, {self.mean:.6g}, has an R² of "
            f"{baseline.value:.4f}, {_errors(y, self.mean)}",
        ]

    def predictions(self, network: Network, X: Array) -> Answers:
        """Return the answer for each row, in the unit of the target."""
        answers = self.decoded(prediction.finite(network.predict(X))[:, 0])
        return Answers.of_rows(self.name, answers.tolist())

    def __str__(self) -> str:
        name = checks.short(self.name)
        return f"{name}, a quantity of mean {self.mean:.6g} and deviation {self.deviation:.6g}"


def _errors(y: Array, p: Array | float) -> str:
    unit = cells.unit_of(y, p)
    difference = y / unit - p / unit
    root, mean = math.sqrt(np.square(difference).mean()) * unit, np.abs(difference).mean() * unit
    return f"root mean squared error {root:.6g}, mean absolute error {mean:.6g}"
