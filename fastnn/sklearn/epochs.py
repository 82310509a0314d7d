"""Epochs as scikit-learn counts them: what is divided by what, and in which order samples come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from fastnn.checks import Array
from fastnn.layers import Dense
from fastnn.memory import SparseRows
from fastnn.network import Network
from fastnn.paths import Path, threads_asked, training_path

CALL_WORK = 5e9
"""Weights times samples of one call, a tenth to half of a second; Ctrl-C is heard between calls."""

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
    count
        Samples in an epoch; the attribute `samples` as well.
    """

    def __init__(
        self, network: Network, path: Path, weights: Array | None, batch_size: int, count: int
    ) -> None:
        self._weights, self._batch_size = weights, batch_size
        self.samples = count
        self._order = np.empty(count, np.int64)
        parameters = max(network.parameter_count, 1)
        rows = batch_size * max(1, int(CALL_WORK / parameters / batch_size))
        if weights is not None:
            rows = batch_size
        whole = count // batch_size * batch_size
        starts = [*range(0, whole, rows), *([whole] if whole < count else []), count]
        if all(layer.l2 == 0 for layer in network if isinstance(layer, Dense)) and weights is None:
            starts = [*range(0, count, rows), count]
        self._calls: list[tuple[slice, Callable[[float], tuple[float, int]]]] = []
        for start, stop in pairwise(starts):
            part = slice(start, stop)
            self._calls.append((part, path.repeated(self._order[part])))

    def run(self, order: Order) -> tuple[float, int]:
        """Train on samples in this order; return the sum of losses, and right answers.

        The loss of a batch with weights counts as often as it has samples.
        """
        self._order[...] = order
        loss, correct = 0.0, 0
        for part, call in self._calls:
            count = part.stop - part.start
            share = 1.0 if count >= self._batch_size else self._batch_size / count
            by_weight = 1.0
            if self._weights is not None:
                weight = float(self._weights[self._order[part]].sum())
                share = self._batch_size / weight if weight > 0 else 0.0
                by_weight = count / weight if weight > 0 else 0.0
            of_call, answers = call(share)
            loss += of_call * by_weight
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
    with training_path(network, samples, targets, batch_size, asked, weights) as path:
        yield Epochs(network, path, weights, batch_size, count)


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
