"""A network as a plain list of layers, and the functions that run it.

A list of layers used alone computes in float64 by the backend in force, and minimises softmax
cross-entropy. Each function takes a `Network` as well, and then does what its method does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fastnn import checks, loss_functions, propagation
from fastnn.checks import Array
from fastnn.layers import Layer, TrainingMode
from fastnn.network import Network


def forward(network: Sequence[Layer], X: npt.ArrayLike) -> list[Array]:
    """Return the activations of every layer, in inference.

    Parameters
    ----------
    network
        Layers in a list, or a `Network`.
    X : array of shape [batch, input_units]

    Returns
    -------
    list of arrays of shape [batch, units], one a layer

    Raises
    ------
    ValueError
        If there is no layer, or `X` has another shape or no row.
    TypeError
        If `network` holds something that is not a layer, or `X` does not hold real numbers.
    """
    if isinstance(network, Network):
        return network.forward(X)
    with TrainingMode(_checked(network), False):
        return _activations(network, X)


def predict(network: Sequence[Layer], X: npt.ArrayLike) -> Array:
    """Return the class id with the largest output for each row of `X`; of a `Network`, `predict`.

    Parameters
    ----------
    network
        Layers in a list, or a `Network`.
    X : array of shape [n, input_units]

    Returns
    -------
    int64 array of shape [n]

    Raises
    ------
    ValueError, TypeError
        As `forward`.
    """
    if isinstance(network, Network):
        return network.predict(X)
    answers: Array = forward(network, X)[-1].argmax(axis=1)
    return answers


def train(network: Sequence[Layer], X: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Take one gradient step on a batch; return its mean loss, and the penalties, before it.

    Parameters
    ----------
    network
        Layers in a list, which are trained by softmax cross-entropy, or a `Network`, by its loss.
    X : array of shape [batch, input_units]
    y : class ids of shape [batch]; for a `Network`, the targets of its loss

    Raises
    ------
    ValueError, TypeError
        As `forward`, and if `y` does not hold one class id in range for each row.
    """
    if isinstance(network, Network):
        return network.train_step(X, y)
    with TrainingMode(_checked(network), True):
        activations = [checks.matrix("X", X), *_activations(network, X)]
        logits = activations.pop()
        y = checks.labels("y", y, batch=len(logits), classes=logits.shape[1])
        loss = loss_functions.softmax_crossentropy_with_logits(logits, y).mean(dtype=np.float64)
        penalty = propagation.penalty(network)
        gradient = loss_functions.grad_softmax_crossentropy_with_logits(logits, y)
        for layer, input in zip(reversed(network), reversed(activations), strict=True):
            gradient = layer.backward(input, gradient)
    return float(loss) + penalty


def _checked(network: Sequence[Layer]) -> Sequence[Layer]:
    if not isinstance(network, Sequence):
        raise TypeError(f"network: expected layers in a list, or a Network, got {network!r}")
    if not network:
        raise ValueError("network: expected at least one layer, got none")
    for layer in network:
        if not isinstance(layer, Layer):
            raise TypeError(f"network: expected layers alone, got {layer!r}")
    return network


def _activations(network: Sequence[Layer], X: npt.ArrayLike) -> list[Array]:
    activations: list[Array] = []
    activation = checks.matrix("X", X, units=network[0].input_units)
    for layer in network:
        activation = layer.forward(activation)
        activations.append(activation)
    return activations
