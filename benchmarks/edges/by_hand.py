"""What a reader would write in NumPy, for one network and no other: nothing is checked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastnn.checks import Array

Layers = list[tuple[Array, Array]]
Function = Callable[[Array], Array]


def relu(Z: Array) -> Array:
    return np.maximum(Z, 0)


def slope_of_relu(Z: Array) -> Array:
    return Z > 0


def outputs(layers: Layers, X: Array, function: Function = relu) -> Array:
    """Return the last layer's outputs."""
    for W, b in layers[:-1]:
        X = function(X @ W + b)
    W, b = layers[-1]
    return X @ W + b


def step(
    layers: Layers,
    X: Array,
    y: Array,
    rate: float,
    function: Function = relu,
    derivative: Function = slope_of_relu,
) -> float:
    """Take a step of SGD on softmax cross-entropy in place; return the mean loss before it."""
    inputs, between = [X], []
    for W, b in layers[:-1]:
        between.append(inputs[-1] @ W + b)
        inputs.append(function(between[-1]))
    W, b = layers[-1]
    Z = inputs[-1] @ W + b
    Z -= Z.max(axis=1, keepdims=True)
    E = np.exp(Z)
    sums = E.sum(axis=1, keepdims=True)
    picked = np.arange(len(y)), y
    loss = float(np.mean(np.log(sums[:, 0]) - Z[picked]))
    G = E / sums
    G[picked] -= 1
    G /= len(y)
    for number in reversed(range(len(layers))):
        W, b = layers[number]
        dW, db = inputs[number].T @ G, G.sum(axis=0)
        if number:
            G = (G @ W.T) * derivative(between[number - 1])
        W -= rate * dW
        b -= rate * db
    return loss


def epoch(layers: Layers, X: Array, y: Array, batch_size: int, rate: float, *of: Function) -> float:
    """Take a step with each batch; return the mean loss."""
    starts = range(0, len(X), batch_size)
    losses = [step(layers, X[i : i + batch_size], y[i : i + batch_size], rate, *of) for i in starts]
    return float(np.mean(losses))
