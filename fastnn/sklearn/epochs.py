"""Epochs as scikit-learn counts them: what is divided by what, and in which order samples come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from fastnn.checks import Array
from fastnn.layers import Dense
from fastnn.memory import SparseRows
from fastnn.network import Network
from fastnn.paths import Path, Repeated, threads_asked, training_path

CALL_WORK = 2e9
"""Weights times samples of one call, a tenth or two of a second; Ctrl-C is heard between calls."""

Order = npt.NDArray[np.int64]


class Epochs:
    """Epochs over some samples of a data set.

    scikit-learn adds α/2 Σ W² to the sum of a batch's losses, and divides both by the number of its
    samples or, where they have weights, by the sum of these. fastnn's layers add the same penalty
    to the mean of every batch, so it is weighed anew where batches differ: in a shorter last one,
    and in all of them where samples have weights.

    Parameters
    ----------
    path
        What trains on samples, in batches of `batch_size`.
    weights
        Of all samples, None for no weights.
    balanced
        What the path takes for the weights. In each epoch they are the weights over the mean of
        their batch, by which no mean changes, and the loss of a batch counts as often as it has
        samples.
    count
        Samples in an epoch; the attribute `samples` as well.
    """

    def __init__(
        self,
        network: Network,
        path: Path,
        weights: Array | None,
        balanced: Array | None,
        batch_size: int,
        count: int,
    ) -> None:
        self._weights, self._balanced = weights, balanced
        self.samples = count
        self._order = np.empty(count, np.int64)
        self._starts = np.arange(0, count, batch_size)
        self._counts = np.minimum(batch_size, count - self._starts)
        self._factors = batch_size / self._counts
        parameters = max(network.parameter_count, 1)
        batches = max(1, int(CALL_WORK / parameters / batch_size))
        self._calls: list[tuple[slice, Repeated]] = []
        for first in range(0, len(self._starts), batches):
            part = self._order[first * batch_size : (first + batches) * batch_size]
            self._calls.append((slice(first, first + batches), path.repeated(part)))

    def run(self, order: Order) -> tuple[float, int]:
        """Train on samples in this order; return the sum of losses, and right answers.

        The loss of a batch with weights counts as often as it has samples.
        """
        self._order[...] = order
        factors = self._factors
        if self._weights is not None and self._balanced is not None:
            weights = self._weights[order]
            sums = np.add.reduceat(weights, self._starts)
            inverse_means = np.zeros(len(sums))
            np.divide(self._counts, sums, out=inverse_means, where=sums > 0)
            self._balanced[order] = weights * np.repeat(inverse_means, self._counts)
            factors = factors * inverse_means
        loss, correct = 0.0, 0
        with np.errstate(all="ignore"):  # what overflows shows in the loss
            for batches, call in self._calls:
                of_call, answers = call(factors[batches])
                loss += of_call
                correct += answers
        return loss, correct


def readable(network: Network, X: Any) -> Array | SparseRows:
    """Return checked X as a path of training takes it."""
    if not sparse.issparse(X):
        dense: Array = X
        return dense
    return SparseRows(X.data, X.indices, X.indptr, X.shape[1], network.dtype)


@contextmanager
def epochs_of(
    network: Network,
    X: Any,
    targets: Array,
    weights: Array | None,
    *,
    batch_size: int,
    count: int,
    alpha: float,
    threads: int | None,
) -> Iterator[Epochs]:
    """Lend what trains a network epoch by epoch, on `count` samples of X each time."""
    for layer in network:
        if isinstance(layer, Dense):
            layer._l2 = alpha / (2 * batch_size)
    samples, asked = readable(network, X), threads_asked(threads)
    balanced = None if weights is None else weights.copy()
    with training_path(network, samples, targets, batch_size, asked, balanced) as path:
        yield Epochs(network, path, weights, balanced, batch_size, count)


class Shuffled:
    """Orders of some samples: each one mixes the one before, as scikit-learn does."""

    def __init__(self, samples: Order, random_state: Any, shuffle: bool) -> None:
        self._order, self._random_state, self._shuffle = samples, random_state, shuffle

    def next(self) -> Order:
        """Return the next order."""
        if self._shuffle:
            places = np.arange(len(self._order))
            self._random_state.shuffle(places)
            self._order = self._order[places]
        return self._order
