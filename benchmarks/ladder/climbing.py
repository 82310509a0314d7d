"""What the rungs are given, how each is verified, and how their times are taken."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np

import fastnn
from fastnn.backends import numpy_backend
from fastnn.checks import Array

from . import Layers, Rung

UNITS = 784, 100, 200, 10
BATCH_SIZE = 32
RATE = 0.1
STEPS = 5
"""Of a rung that is verified."""
TOLERANCE = 4
"""How many roundings of the largest parameter a step may add to what differs."""
SECONDS = 0.12
"""That a rung is timed in each round, or an epoch if that is shorter."""
WARM_UP = 4
"""Batches before that: what a first call sets up, and caches, are not timed."""


def initial_layers(units: tuple[int, ...] = UNITS, seed: int = 0) -> Layers:
    """Return parameters by He's rule in float64."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(0, np.sqrt(2 / inputs), (inputs, outputs)), np.zeros(outputs))
        for inputs, outputs in pairwise(units)
    ]


def samples() -> tuple[Array, Array]:
    """Return the digits in float32, and their labels."""
    X, y, *_ = fastnn.load_dataset(flatten=True, dtype=np.float32)
    return X, y.astype(np.int64)


def of_dtype(layers: Layers, dtype: np.dtype) -> Layers:
    return [(W.astype(dtype), b.astype(dtype)) for W, b in layers]


def reference_steps(layers: Layers, X: Array, y: Array, batch_size: int) -> Layers:
    """Return the parameters after a step with each batch, by the NumPy backend in float64."""
    state = of_dtype(layers, np.dtype(np.float64))
    gradients = [(np.empty_like(W), np.empty_like(b)) for W, b in state]
    for start in range(0, len(X), batch_size):
        inputs, outputs = activations(state, X[start : start + batch_size])
        G = numpy_backend.softmax_cross_entropy_gradient(outputs, y[start : start + batch_size])
        for number in range(len(state) - 1, -1, -1):
            (W, b), (dW, db) = state[number], gradients[number]
            A = inputs[number]
            back = numpy_backend.dense_backward(A, W, G, dW, db, input_gradient=number > 0)
            if back is not None:
                G = numpy_backend.relu_backward(A, back)
            numpy_backend.sgd_step(W, dW, RATE)
            numpy_backend.sgd_step(b, db, RATE)
    return state


def activations(layers: Layers, X: Array) -> tuple[list[Array], Array]:
    """Return the input of each layer, and what the last one puts out."""
    inputs = [X.astype(np.float64)]
    for W, b in layers[:-1]:
        inputs.append(numpy_backend.dense_forward(inputs[-1], W, b, relu=True))
    return inputs, numpy_backend.dense_forward(inputs[-1], *layers[-1])


class WrongRungError(Exception):
    """A rung computes something else than the NumPy backend."""


def verify(rung: Rung, layers: Layers, X: Array, y: Array, batch_size: int, dtype=None) -> float:
    """Return how far the rung's parameters are from the NumPy backend's, after STEPS steps.

    The unit is a rounding of the largest parameter, a step: 1 would be one rounding in each update.

    Raises
    ------
    WrongRungError
        If that is more than TOLERANCE.
    """
    dtype = np.dtype(dtype or rung.dtype)
    given = of_dtype(layers, dtype)
    X, y = X[: STEPS * batch_size].astype(dtype), y[: STEPS * batch_size]
    expected = reference_steps(given, X, y, batch_size)
    state = rung.prepare(given, batch_size)
    rung.train(state, X, y, RATE, batch_size)
    found = rung.layers(state)
    largest = max(float(np.abs(of).max()) for pair in expected for of in pair)
    furthest = max(
        float(np.abs(a - b).max())
        for ours, theirs in zip(found, expected, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )
    distance = furthest / (STEPS * largest * float(np.finfo(dtype).eps))
    if not distance <= TOLERANCE:
        raise WrongRungError(f"rung {rung.number}, {rung.name}: {distance:.1f} roundings a step")
    return distance


class Climber:
    """A rung that is timed, always from the same parameters.

    Parameters
    ----------
    rung : Rung
    layers : list of (weights, biases)
        Of a network that has seen some samples: how many hidden units are active depends on that.
    X, y : array
        As many batches as are taken at most.
    """

    def __init__(self, rung: Rung, layers: Layers, X: Array, y: Array) -> None:
        self.rung, self.layers = rung, of_dtype(layers, rung.dtype)
        batches = len(X) // BATCH_SIZE
        self.X, self.y, steps = X, y, 2 * WARM_UP
        while True:  # until a call is long enough to tell how many steps fill the time
            self._take(min(steps, batches))
            seconds = self.seconds_a_step()
            if steps >= batches or seconds * steps >= SECONDS / 4:
                break
            steps *= 2
        self.X, self.y = X, y
        self._take(max(2 * WARM_UP, min(batches, int(SECONDS / seconds))))

    def _take(self, steps: int) -> None:
        count = steps * BATCH_SIZE
        self.X = self.X[:count].astype(self.rung.dtype, copy=False)
        self.y = self.y[:count]

    def seconds_a_step(self) -> float:
        """Take steps from the first parameters on; return how long one took."""
        rung, warm = self.rung, WARM_UP * BATCH_SIZE
        state = rung.prepare(self.layers, BATCH_SIZE)
        rung.train(state, self.X[:warm], self.y[:warm], RATE, BATCH_SIZE)
        start = time.perf_counter()
        rung.train(state, self.X, self.y, RATE, BATCH_SIZE)
        return (time.perf_counter() - start) / (len(self.X) // BATCH_SIZE)
