"""How good answers are."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

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
    """

    _r2: float | None = None

    def __new__(
        cls, loss: float, accuracy: float | None = None, r2: float | None = None
    ) -> Evaluation:
        evaluation = super().__new__(cls, loss, accuracy)
        evaluation._r2 = r2
        return evaluation

    @property
    def r2(self) -> float | None:
        """R², as `sklearn.metrics.r2_score`: the share of the targets' variance that is explained.

        Of several outputs the mean. None where targets are no real numbers, NaN of a single sample.
        It is no part of the pair, but of all else: `==`, `_asdict` and `_replace`.
        """
        return self._r2

    def _asdict(self) -> dict[str, Any]:
        return {**super()._asdict(), "r2": self.r2}

    def _replace(self, **changes: Any) -> Evaluation:
        return type(self)(**{**self._asdict(), **changes})

    __replace__ = _replace  # of copy.replace

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Evaluation):
            return (*self, self.r2) == (*other, other.r2)
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = _Evaluation.__hash__  # that of the pair, which may be equal

    def __getnewargs__(self) -> tuple[float, float | None, float | None]:
        return self.loss, self.accuracy, self.r2

    def __repr__(self) -> str:
        return f"Evaluation(loss={self.loss!r}, accuracy={self.accuracy!r}, r2={self.r2!r})"


BLOCK = 1 << 15
"""Targets that are looked at at once: so many stay in the cache from one pass to the next."""


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
        y, p = (of.reshape(len(of), -1) for of in (targets, answers))
        self.rows += len(y)
        count = max(1, BLOCK // max(1, y.shape[1]))
        with np.errstate(all="ignore"):  # what is no number stays none
            for start in range(0, len(y), count):
                rows = slice(start, start + count)
                self._add(y[rows], p[rows], None if weights is None else weights[rows])

    def _add(self, y: Array, p: Array, v: Array | None) -> None:
        if v is not None and not v.all():  # what does not count may be infinite or far away
            counts = v != 0
            y, p, v = y[counts], p[counts], v[counts]
        weight = float(len(y) if v is None else v.sum())
        if weight == 0.0:
            return
        # From one of them, so that the mean of targets that are all the same is exact; from that
        # which counts most, as one that is far away and hardly counts would cost all digits.
        mean = self._mean if self._weight else y[0 if v is None else v.argmax()].astype(np.float64)
        difference = np.subtract(y, mean, dtype=np.float64)
        error = np.subtract(y, p, dtype=np.float64)
        total = self._weight + weight
        apart = (difference.sum(axis=0) if v is None else v @ difference) / weight
        within = np.maximum(_squares(difference, v) - weight * np.square(apart), 0.0)
        self._variation += within + np.square(apart) * (self._weight * weight / total)
        self._residual += _squares(error, v)
        self._mean = mean + apart * (weight / total)
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


def _squares(values: Array, weights: Array | None) -> Array:
    """Return the sum of the squares of each column, each times the weight of its row.

    The squares take the place of the values.
    """
    np.square(values, out=values)
    total: Array = values.sum(axis=0) if weights is None else weights @ values
    return total
