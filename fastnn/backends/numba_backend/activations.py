"""Kernels of the operations on single elements."""

from __future__ import annotations

from fastnn.backends.numba_backend.jit import jit


@jit
def scale(X, factor, Y):
    """Y = factor X."""
    for n in range(X.shape[0]):
        for j in range(X.shape[1]):
            Y[n, j] = factor * X[n, j]


@jit
def relu(X, Y):
    """Y = max(0, X), written so that NaN passes."""
    zero = X.dtype.type(0)
    for n in range(X.shape[0]):
        for j in range(X.shape[1]):
            Y[n, j] = zero if X[n, j] < zero else X[n, j]


@jit
def relu_gradient(X, G, dX):
    """dX = G where X > 0, else 0."""
    zero = X.dtype.type(0)
    for n in range(X.shape[0]):
        for j in range(X.shape[1]):
            dX[n, j] = G[n, j] if X[n, j] > zero else zero
