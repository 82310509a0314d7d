"""How good answers are."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fastnn.checks import Array


class _Evaluation(NamedTuple):
    loss: float
    accuracy: float | None


class Evaluation(_Evaluation):
    """Mean loss, and how good answers are; `loss, accuracy = evaluation` takes the pair.

    Attributes
    ----------
    loss : float
    accuracy : float or None
        The share of right answers; None where targets are no classes.
    r2 : float or None
        R², as `sklearn.metrics.r2_score`: the share of the targets' variance that answers explain,
        of several outputs the mean. None where targets are no real numbers, NaN of a single sample.
        It is no part of the pair.
    """

    r2: float | None = None

    def __new__(
        cls, loss: float, accuracy: float | None = None, r2: float | None = None
    ) -> Evaluation:
        evaluation = super().__new__(cls, loss, accuracy)
        evaluation.r2 = r2
        return evaluation

    def __getnewargs__(self) -> tuple[float, float | None, float | None]:
        return self.loss, self.accuracy, self.r2

    def __repr__(self) -> str:
        return f"Evaluation(loss={self.loss!r}, accuracy={self.accuracy!r}, r2={self.r2!r})"


class RSquared:
    """R², the share of the targets' variance that answers explain, added up over parts of the rows.

    Of each output 1 - Σ v (y - p)² / Σ v (y - ȳ)², with weights v and the weighted mean ȳ of the
    targets; the mean over outputs. Of an output whose targets are all the same it is 1 where all
    answers are right, and else 0. This is `sklearn.metrics.r2_score`.

    Attributes
    ----------
    rows : int
        How many have been added.

    References
    ----------
    T. F. Chan, G. H. Golub and R. J. LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances", Stanford, 1979: so that one pass is enough.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._weight = 0.0
        self._mean: Array | float = 0.0
        self._variation: Array | float = 0.0
        self._residual: Array | float = 0.0

    def add(self, targets: Array, answers: Array, weights: Array | None = None) -> None:
        """Take some more rows, [n] or [n, outputs], into account."""
        y, p = (np.asarray(of, np.float64).reshape(len(of), -1) for of in (targets, answers))
        v = np.ones((len(y), 1)) if weights is None else weights[:, np.newaxis]
        self.rows += len(y)
        weight = float(v.sum())
        if weight == 0.0:
            return
        with np.errstate(all="ignore"):  # what is no number stays none
            # From one of them, so that the mean of targets that are all the same is exact.
            mean = y[0] + (v * (y - y[0])).sum(axis=0) / weight
            self._variation += (v * np.square(y - mean)).sum(axis=0)
            self._residual += (v * np.square(y - p)).sum(axis=0)
            apart, total = mean - self._mean, self._weight + weight
            self._variation += np.square(apart) * (self._weight * weight / total)
            self._mean += apart * (weight / total)
            self._weight = total

    @property
    def value(self) -> float:
        """R² of the rows that were added; NaN of fewer than two."""
        if self.rows < 2:
            return math.nan
        residual, variation = np.broadcast_arrays(self._residual, self._variation)
        with np.errstate(all="ignore"):
            explained = 1 - residual / variation
        constant = np.where(residual == 0, 1.0, np.where(residual > 0, 0.0, math.nan))
        return float(np.where(variation == 0, constant, explained).mean())
