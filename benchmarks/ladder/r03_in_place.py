"""3. In place: every result has its array, made once; and nothing is computed that nobody reads.

What changed: `out=`. The gradient of the pictures and the loss are gone.

Count before you run: of 19.3 million operations 5 million go, which is a quarter. NumPy moves 3.7
MB where it moved 4.5, and what it writes is no longer memory that the allocator has just got: of
314 kB of W - rate * dW each of 77 pages may be new, and is cleared first.

Tried and lost: adding a product to the weights as it is computed. BLAS can; NumPy's matmul only
writes its result, so the gradient has an array of its own.
"""

from types import SimpleNamespace

import numpy as np

DTYPE = np.float32


def prepare(layers, batch_size):
    """Return for each layer its parameters and room for all that a step computes."""

    state = [SimpleNamespace(W=W.copy(), b=b.copy(), dW=W.copy(), db=b.copy()) for W, b in layers]
    for layer in state:
        layer.A, layer.G = np.zeros((2, batch_size, len(layer.b)), layer.W.dtype)
        layer.mask = layer.A > 0
    return state


def layers(state):
    return [(layer.W, layer.b) for layer in state]


def step(state, X, y, rate):
    A = X
    for layer in state:
        np.matmul(A, layer.W, out=layer.A)
        layer.A += layer.b
        if layer is not state[-1]:
            np.maximum(layer.A, 0, out=layer.A)
        A = layer.A
    softmax_gradient(A, y, state[-1].G)
    for layer, below in zip(reversed(state), [*state[-2::-1], None], strict=True):
        np.matmul((below.A if below else X).T, layer.G, out=layer.dW)
        layer.G.sum(axis=0, out=layer.db)
        if below:
            np.matmul(layer.G, layer.W.T, out=below.G)
            below.G *= np.greater(below.A, 0, out=below.mask)
        for value, gradient in ((layer.W, layer.dW), (layer.b, layer.db)):
            gradient *= rate
            value -= gradient


def softmax_gradient(Z, y, G):
    np.subtract(Z, Z.max(axis=1, keepdims=True), out=G)
    np.exp(G, out=G)
    G /= G.sum(axis=1, keepdims=True)
    G[np.arange(len(y)), y] -= 1
    G /= len(y)
