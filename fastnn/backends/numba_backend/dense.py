"""Kernels of the fully connected layer.

Loops run over rows of the row-major operand innermost, so that each inner loop
is a multiply-add of one contiguous row, which LLVM vectorises.
"""

from __future__ import annotations

from fastnn.backends.numba_backend.jit import jit, jit_reordered


@jit
def affine(X, W, b, units, relu, Y):
    """Y = X W + b, clipped at 0 where `relu` is set; W has padded rows of which `units` count."""
    zero = Y.dtype.type(0)
    for n in range(X.shape[0]):
        for j in range(units):
            Y[n, j] = b[j]
        for k in range(X.shape[1]):
            x = X[n, k]
            for j in range(units):
                Y[n, j] += x * W[k, j]
        if relu:
            for j in range(units):
                # Written so that NaN passes.
                Y[n, j] = zero if Y[n, j] < zero else Y[n, j]


@jit
def parameter_gradients(X, G, units, dW, db):
    """dW = Xᵀ G, db = Σ_n G_n; dW has padded rows of which `units` count."""
    zero = G.dtype.type(0)
    for j in range(units):
        db[j] = zero
    for n in range(G.shape[0]):
        for j in range(units):
            db[j] += G[n, j]
    for k in range(X.shape[1]):
        for j in range(units):
            dW[k, j] = zero
        for n in range(X.shape[0]):
            x = X[n, k]
            for j in range(units):
                dW[k, j] += x * G[n, j]


@jit_reordered
def input_gradient(W, G, dX):
    """dX = G Wᵀ, each element a dot product of two rows."""
    for n in range(G.shape[0]):
        for k in range(dX.shape[1]):
            total = G.dtype.type(0)
            for j in range(G.shape[1]):
                total += G[n, j] * W[k, j]
            dX[n, k] = total
