"""L-BFGS, by SciPy, on fastnn's gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import optimize, sparse
from sklearn.utils.fixes import _get_additional_lbfgs_options_dict
from sklearn.utils.optimize import _check_optimize_result

from fastnn import propagation
from fastnn.checks import Array
from fastnn.layers import Dense, training_mode

PIECE_ROWS = 4096
"""Samples whose activations are in memory at once."""


def fit(estimator: Any, X: Any, targets: Array, weights: Array | None) -> None:
    """Minimise the loss of all samples, as scikit-learn's solver 'lbfgs' does.

    Sets `loss_` and `n_iter_`; the network holds the parameters found.
    """
    network = estimator.network_
    dense = [layer for layer in network if isinstance(layer, Dense)]
    for layer in dense:
        layer._l2 = 0.0  # added below
    arrays = [layer.weights for layer in dense] + [layer.biases for layer in dense]
    ends = np.cumsum([array.size for array in arrays])
    weights_end = int(ends[len(dense) - 1])
    total = len(targets) if weights is None else weights.sum()
    alpha = estimator.alpha / total

    def place(vector: Array) -> None:
        for array, part in zip(arrays, np.split(vector, ends[:-1]), strict=True):
            array[...] = part.reshape(array.shape)

    def loss_and_gradient(vector: Array) -> tuple[float, Array]:
        place(vector)
        penalised = vector[:weights_end]
        loss = 0.5 * alpha * float(penalised @ penalised)
        gradient = np.zeros_like(vector)
        gradient[:weights_end] = alpha * penalised
        for start in range(0, X.shape[0], PIECE_ROWS):
            rows = slice(start, start + PIECE_ROWS)
            piece = X[rows].toarray() if sparse.issparse(X) else X[rows]
            of_piece = None if weights is None else weights[rows]
            share = (len(piece) if of_piece is None else of_piece.sum()) / total
            losses, found = propagation.gradients(network, piece, targets[rows], of_piece)
            of_dense = [g for g, layer in zip(found, network, strict=True) if layer in dense]
            parts = [g[name] for name in ("weights", "biases") for g in of_dense]
            gradient += share * np.concatenate([part.ravel() for part in parts])
            loss += losses / total
        return loss, gradient

    start = np.concatenate([array.ravel() for array in arrays]).astype(np.float64)
    iprint = 1 if estimator.verbose is True or estimator.verbose >= 1 else -1
    with training_mode(network.layers, True), np.errstate(over="ignore", invalid="ignore"):
        result = optimize.minimize(
            loss_and_gradient,
            start,
            method="L-BFGS-B",
            jac=True,
            options={
                "maxfun": estimator.max_fun,
                "maxiter": estimator.max_iter,
                "gtol": estimator.tol,
                **_get_additional_lbfgs_options_dict("iprint", iprint),
            },
        )
    estimator.n_iter_ = _check_optimize_result("lbfgs", result, estimator.max_iter)
    loss = estimator._reported(float(result.fun))
    estimator.loss_ = loss + estimator._constant(targets, weights)
    place(result.x)
