"""Kernels of softmax and cross-entropy. Each row's maximum is subtracted before any exponential."""

from __future__ import annotations

import numpy as np

from fastnn.backends.numba_backend.jit import jit


@jit
def _row_maximum(z):
    """Return the largest element; NaN if there is one, as in NumPy."""
    largest = z[0]
    for c in range(1, len(z)):
        if z[c] > largest or np.isnan(z[c]):
            largest = z[c]
    return largest


@jit
def softmax(Z, P):
    """P = exp(Z - m) / Σ exp(Z - m), by rows."""
    for n in range(Z.shape[0]):
        largest = _row_maximum(Z[n])
        total = Z.dtype.type(0)
        for c in range(Z.shape[1]):
            P[n, c] = np.exp(Z[n, c] - largest)
            total += P[n, c]
        for c in range(Z.shape[1]):
            P[n, c] /= total


@jit
def cross_entropy(Z, labels, losses):
    """losses_n = m + log Σ exp(Z_n - m) - Z_n,label."""
    for n in range(Z.shape[0]):
        largest = _row_maximum(Z[n])
        total = Z.dtype.type(0)
        for c in range(Z.shape[1]):
            total += np.exp(Z[n, c] - largest)
        losses[n] = np.log(total) + (largest - Z[n, labels[n]])


@jit
def cross_entropy_gradient(Z, labels, dZ):
    """dZ = (softmax(Z) - onehot(labels)) / batch."""
    batch = Z.dtype.type(Z.shape[0])
    softmax(Z, dZ)
    for n in range(Z.shape[0]):
        dZ[n, labels[n]] -= Z.dtype.type(1)
        for c in range(Z.shape[1]):
            dZ[n, c] /= batch
