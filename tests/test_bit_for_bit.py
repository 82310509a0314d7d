"""Training on numbers of which no sum is rounded: both backends and paths give the same bits.

Weights, inputs, rates and momentum are small integers and powers of two. Then every product and
every sum is a number that float32 holds, so the order of sums, fused or not, changes nothing, and
one bit that differs is a fault that a tolerance would hide.
"""

from __future__ import annotations

import numpy as np
import pytest
from conftest import in_pairs

import fastnn
from fastnn import SGD, Dense, Dropout, LeakyReLU, Network, ReLU, Rescaling

OPTIMIZERS = {
    "plain": lambda: SGD(2.0**-3),
    "momentum": lambda: SGD(2.0**-3, momentum=0.5),
    "nesterov": lambda: SGD(2.0**-3, momentum=0.5, nesterov=True),
}

SIZES = ((1, 1, 1), (3, 8, 2), (16, 17, 4), (33, 5, 8), (40, 31, 16), (130, 130, 4))
"""(inputs, hidden, outputs): a mean over outputs is exact where these are a power of two."""


def exact(
    inputs: int, hidden: int, outputs: int, backend: str, dtype, optimizer: str, l2: float
) -> Network:
    """Return a network of numbers of few bits."""
    rng = np.random.default_rng(inputs)

    def few_bits(_, shape):
        return rng.integers(-1, 2, shape) * (rng.random(shape) < 3 / max(3, shape[0]))

    return Network(
        [
            Rescaling(0.5),
            Dense(inputs, hidden, l2=l2, weights=few_bits, biases=few_bits),
            LeakyReLU(0.25),
            Dropout(0.5, seed=1),
            Dense(hidden, outputs, l2=l2, weights=few_bits, biases=few_bits),
            ReLU(),
            Dense(outputs, outputs, weights=few_bits, biases=few_bits),
        ],
        loss="mse",
        optimizer=OPTIMIZERS[optimizer](),
        backend=backend,
        dtype=dtype,
        seed=0,
    )


@pytest.mark.parametrize(
    *in_pairs(sizes=SIZES, optimizer=OPTIMIZERS, l2=(0.0, 2.0**-6), dtype=("float32", "float64")),
    ids=str,
)
@pytest.mark.filterwarnings("ignore")
def test_one_step(sizes, optimizer, l2, dtype):
    """A step by either path, which is as much as so few bits are exact for."""
    inputs, _, outputs = sizes
    rng = np.random.default_rng(7)
    for batch in (1, 2, 4, 8, 16, 32):
        X = rng.integers(-2, 3, (batch, inputs)).astype(dtype)
        y = rng.integers(-2, 3, (batch, outputs)).astype(dtype)
        found = {}
        for backend in fastnn.available_backends():
            for path in ("train_step", "fit"):
                network = exact(*sizes, backend, dtype, optimizer, l2)
                if path == "fit":
                    loss = network.fit(X, y, batch_size=batch, shuffle=False).loss[0]
                else:
                    loss = network.train_step(X, y)
                found[backend, path] = loss, *network.get_weights()
        expected = found.pop(("numpy", "train_step"))
        is_dyadic(expected)
        for of, arrays in found.items():
            for array, other in zip(arrays, expected, strict=True):
                np.testing.assert_array_equal(array, other, err_msg=str(of))


def is_dyadic(arrays) -> None:
    """Check that numbers have few bits, so that none of the sums has been rounded."""
    for array in arrays[1:]:
        scaled = np.asarray(array, np.float64) * 2.0**20
        assert np.array_equal(scaled, np.rint(scaled))
