"""L-BFGS, by SciPy, on fastnn's gradients."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from scipy import optimize
from sklearn.utils.fixes import _get_additional_lbfgs_options_dict
from sklearn.utils.optimize import _check_optimize_result

from fastnn.checks import Array
from fastnn.interrupts import Held, uncut
from fastnn.layers import Dense, TrainingMode
from fastnn.network import Network
from fastnn.optimizers import SGD
from fastnn.parameters import NamedVector
from fastnn.paths import Path, threads_asked, training_path
from fastnn.sklearn.epochs import readable

PIECE_ROWS = 4096
"""Samples whose activations are in memory at once."""


def fit(estimator: Any, X: Any, targets: Array, weights: Array | None) -> None:
    """Minimise the loss of all samples, as scikit-learn's solver 'lbfgs' does.

    Sets `loss_` and `n_iter_`; the network holds the parameters found.
    """
    network = estimator.network_
    iprint = 1 if estimator.verbose is True or estimator.verbose >= 1 else -1
    samples = readable(network, X)
    rows = min(len(samples), PIECE_ROWS)
    threads = threads_asked(estimator.threads)
    network.optimizer = SGD(0.0, momentum=0.5)  # see `Objective`
    try:
        with (
            Held(),
            TrainingMode(network.layers, True),
            np.errstate(all="ignore"),
            training_path(network, samples, targets, rows, threads, weights) as path,
        ):
            objective = Objective(network, path, len(samples), rows, weights, estimator.alpha)
            result = optimize.minimize(
                objective,
                objective.parameters(),
                method="L-BFGS-B",
                jac=True,
                options={
                    "maxfun": estimator.max_fun,
                    "maxiter": estimator.max_iter,
                    "gtol": estimator.tol,
                    **_get_additional_lbfgs_options_dict("iprint", iprint),
                },
            )
            objective.place(result.x)
    finally:
        network.optimizer = SGD()  # what layers have by themselves
        network._optimizer = None
    estimator.n_iter_ = _check_optimize_result("lbfgs", result, estimator.max_iter)
    loss = estimator._reported(float(result.fun))
    estimator.loss_ = loss + estimator._constant(targets, weights)


class Objective:
    """The loss of all samples and its gradient, as functions of one vector.

    The path of training computes them: a step of momentum from a velocity of zeros leaves the
    gradient in the velocity, and the parameters where they are if the learning rate is 0.
    """

    def __init__(
        self,
        network: Network,
        path: Path,
        samples: int,
        rows: int,
        weights: Array | None,
        alpha: float,
    ) -> None:
        dense = [layer for layer in network if isinstance(layer, Dense)]
        for layer in dense:
            layer._l2 = 0.0  # the penalty is added below
        parts = [layer._parameters for layer in dense]
        self._velocities = [part.needed_state()[0] for part in parts]
        views = [
            NamedVector(part.layout, velocity).views
            for part, velocity in zip(parts, self._velocities, strict=True)
        ]
        names = ("weights", "biases")
        self._parameters = [part.drawn().views[name] for name in names for part in parts]
        self._gradients = [of_layer[name] for name in names for of_layer in views]
        ends = np.cumsum([0, *(array.size for array in self._parameters)]).tolist()
        self._places = [slice(*place) for place in pairwise(ends)]
        self._penalised = slice(0, ends[len(dense)])
        total = float(samples if weights is None else weights.sum())
        self._total, self._alpha = total, alpha / total
        self._pieces = []
        order = np.arange(samples)
        for start in range(0, samples, rows):
            piece = order[start : start + rows]
            share = (len(piece) if weights is None else float(weights[piece].sum())) / total
            self._pieces.append((share, path.repeated(piece)))

    def parameters(self) -> Array:
        """Return all weights, then all biases, in float64."""
        flat = [array.ravel() for array in self._parameters]
        return np.concatenate(flat).astype(np.float64)

    def place(self, vector: Array) -> None:
        """Let the network have these parameters, whole."""
        with uncut:
            for array, place in zip(self._parameters, self._places, strict=True):
                array[...] = vector[place].reshape(array.shape)

    def __call__(self, vector: Array) -> tuple[float, Array]:
        """Return loss and gradient there."""
        self.place(vector)
        penalised = vector[self._penalised]
        loss = 0.5 * self._alpha * float(penalised @ penalised)
        gradient = np.zeros_like(vector)
        gradient[self._penalised] = self._alpha * penalised
        for share, call in self._pieces:
            for velocity in self._velocities:
                velocity[...] = 0
            loss += call(1.0)[0] / self._total
            for array, place in zip(self._gradients, self._places, strict=True):
                gradient[place] += share * array.ravel()
        return loss, gradient
