"""Kernels that move parameters; they see the flat vector, padding and all."""

from __future__ import annotations

from fastnn.backends.numba_backend.jit import jit


@jit
def sgd(parameters, gradient, learning_rate):
    """parameters <- parameters - learning_rate gradient."""
    for i in range(len(parameters)):
        parameters[i] -= learning_rate * gradient[i]
