"""5. The textbook's loops, compiled by Numba. Slower than NumPy, and that is the lesson.

What changed: every product is three loops, and each number of the result is summed up at once.

Count before you run: 7.1 million multiply-adds. Each waits for the sum before it, two to four
cycles, as floating-point sums may not be reordered: 14 to 28 million cycles, less what a processor
begins of the next sum meanwhile. BLAS keeps two dozen sums of 16 numbers going at the same time.
And `W[k, j]` with k running is 400 bytes further each time. Being compiled is not what makes a loop
fast. What it does at once is.

Tried and lost: `fastmath` took 1.5 times as long: LLVM may reorder sums now, and gathers vectors of
numbers that don't lie side by side.
"""

import numpy as np
from numba import njit

from .beforehand import layers, prepare, step_of

DTYPE = np.float32

__all__ = ["DTYPE", "layers", "prepare", "step"]


@njit
def forward(X, W, b, relu, A):
    for n in range(A.shape[0]):
        for j in range(A.shape[1]):
            total = b[j]
            for k in range(W.shape[0]):
                total += X[n, k] * W[k, j]
            A[n, j] = max(total, A.dtype.type(0)) if relu else total


@njit
def backward(X, W, b, G, dX, rate):
    for n in range(dX.shape[0]):
        for k in range(dX.shape[1]):
            total = G.dtype.type(0)
            for j in range(W.shape[1]):
                total += G[n, j] * W[k, j]
            dX[n, k] = total if X[n, k] > 0 else G.dtype.type(0)
    for k in range(W.shape[0]):
        for j in range(W.shape[1]):
            total = G.dtype.type(0)
            for n in range(G.shape[0]):
                total += X[n, k] * G[n, j]
            W[k, j] -= rate * total
    for n in range(G.shape[0]):
        for j in range(G.shape[1]):
            b[j] -= rate * G[n, j]


step = step_of(forward, backward)
