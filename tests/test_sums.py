"""Kernels that add up, against exact sums: `sums.py` has the bounds."""

from __future__ import annotations

import numpy as np
import pytest
from sums import KERNELS, Operands, _softmax, longer
from test_ulps import long_enough

from fastnn import Dense, Network
from fastnn.backends import numpy_backend as reference

SIZES = ((1, 1), (1, 19), (2, 5), (7, 33), (33, 10), (130, 17), (20, 300))
"""(batch, units)"""


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 30.0, 1e4])
@pytest.mark.parametrize(
    "dtype", [np.float32, pytest.param(np.float64, marks=long_enough)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.compute.__name__)
def test_bounds(numba_backend, kernel, dtype, size):
    for batch, units in SIZES:
        for module in (reference, numba_backend):
            rng = np.random.default_rng(5)
            of = Operands(rng, np.dtype(dtype), batch, units, size)
            with np.errstate(under="ignore"):
                for i, (found, exact, bound) in enumerate(kernel.compute(module, of)):
                    assert found.dtype == (dtype if found.ndim else np.float64)
                    excess = np.abs(found - exact) - bound
                    worst = np.unravel_index(np.argmax(excess), excess.shape)
                    assert (excess <= 0).all(), (
                        module.__name__, batch, units, i, worst, found[worst], exact[worst],
                        bound[worst],
                    )  # fmt: skip


@pytest.mark.parametrize("batch", [1, 7, 33])
@pytest.mark.parametrize(
    "dtype", [np.float32, pytest.param(np.float64, marks=long_enough)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "mse"])
def test_a_step_of_the_compiled_epoch(rng, loss, batch, dtype):
    """Its weights are as far off as the bounds of its parts say."""
    units, classes, rate = 50, 7, 0.5
    u = np.finfo(dtype).eps / 2
    network = Network([Dense(units, classes, rate)], seed=3, dtype=dtype, loss=loss)
    X = (rng.normal(size=(batch, units)) * (rng.random((batch, units)) < 0.5)).astype(dtype)
    w, b, x = longer(network[0].weights, network[0].biases, X)
    z = x @ w + b
    off = (units + 1) * u * (abs(x) @ abs(w) + abs(b))
    if loss == "mse":
        y = rng.normal(size=(batch, classes)).astype(dtype)
        g = 2 * (z - longer(y)) / z.size
        off = 2 * off / z.size + 4 * u * abs(g)
    else:
        y = rng.integers(0, classes, batch)
        p, d, _, D = _softmax(z)
        right = np.arange(classes) == y[:, None]
        g = (p - right) / batch
        off = p * (off + (p * off).sum(1, keepdims=True))
        off = (off + u * (p * (d + D[:, None] + classes + 18) + 3 * right)) / batch
    network.fit(X, y, epochs=1, batch_size=batch)
    assert network.explain().startswith("compiled epoch")
    for found, before, inputs in (
        (network[0].weights, w, x),
        (network[0].biases, b, np.ones_like(x[:, :1])),
    ):
        expected = before - rate * np.reshape(inputs.T @ g, before.shape)
        sizes = np.reshape(abs(inputs).T @ (off + (batch + 3) * u * abs(g)), before.shape)
        assert (np.abs(found - expected) <= u * abs(expected) + rate * sizes).all()
        assert (found != before).any()
