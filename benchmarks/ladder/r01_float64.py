"""1. NumPy in float64, a new array for every result, as in the notebooks.

What it does: a forward pass that keeps the input of each layer, the loss, its gradient, and layer
by layer the gradient of the input and the update. The first layer computes that of the pictures,
too, which nobody reads.

Count before you run: the products are 14.3 million operations, and 5 million more for the gradient
of the pictures. In float64 a vector has half as many numbers as in float32. NumPy reads and writes
8.8 MB in all, several times what parameters, pictures and activations are.

Tried and lost: one-hot targets as a matrix, as the notebooks have them, took as long (0.99); ten
outputs are too few to matter.
"""

import numpy as np

DTYPE = np.float64


def prepare(layers, batch_size):
    """Return the state: weights and biases, which steps replace."""
    return [(W.copy(), b.copy()) for W, b in layers]


def layers(state):
    """Return weights and biases as they are now."""
    return state


def step(state, X, y, rate):
    """Take one step; return the mean loss, which the notebooks print."""
    inputs, A = [], X
    for number, (W, b) in enumerate(state):
        inputs.append(A)
        A = A @ W + b
        if number < len(state) - 1:
            A = np.maximum(0, A)

    margins = A - A.max(axis=1, keepdims=True)
    powers = np.exp(margins)
    sums = powers.sum(axis=1, keepdims=True)
    picked = np.arange(len(y)), y
    loss = np.mean(np.log(sums[:, 0]) - margins[picked])
    G = powers / sums
    G[picked] -= 1
    G = G / len(y)

    for number in reversed(range(len(state))):
        W, b = state[number]
        X = inputs[number]
        back = G @ W.T
        state[number] = W - rate * (X.T @ G), b - rate * G.sum(axis=0)
        G = back * (X > 0)
    return loss
