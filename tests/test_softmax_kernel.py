"""The kernel of softmax cross-entropy: rows in squares and one by one, and the sum of losses."""

from __future__ import annotations

import numpy as np
import pytest
from test_epoch_kernel import aligned, matrix

from fastnn import SGD, Dense, Network
from fastnn.backends.numba_backend import jit
from fastnn.backends.numba_backend.kernels.softmax import softmax_cross_entropy
from fastnn.backends.numba_backend.machine import lanes

pytestmark = pytest.mark.every_width

SCALE = 0.25
UNITS = [1, 2, 3, 8, 10, 16, 17, 33, 100]


@jit.jit
def call_softmax(scale, Z, G, labels, predictions, margins, sums):
    softmax_cross_entropy(scale, Z, G, labels, predictions, margins, sums)


def computed(Z, labels):
    """Return gradient with its padding, predictions, margins and sums; all begin as rubbish.

    So does what pads the logits. A row more than there are must be left alone.
    """
    (rows, units), dtype = Z.shape, Z.dtype.type
    logits, G = (aligned(np.zeros((rows + 1, units)), dtype) for _ in range(2))
    logits[:], G[:] = np.nan, 7
    logits[:rows, :units] = Z
    predictions = np.full(rows + 1, 7)
    margins, sums = (np.full(rows + 1, 7, dtype) for _ in range(2))
    call_softmax(
        dtype(SCALE), matrix(logits, rows, units), matrix(G, rows, units), labels.ctypes.data,
        predictions.ctypes.data, margins.ctypes.data, sums.ctypes.data,
    )  # fmt: skip
    for array in (G, predictions, margins, sums):
        assert (array[rows:] == 7).all()
    padded = -(-units // lanes(Z.itemsize)) * lanes(Z.itemsize)
    return G[:rows, :padded], predictions[:rows], margins[:rows], sums[:rows]


def numbers_of_rows(dtype):
    """Return numbers of rows around one square, its half, and two."""
    n = lanes(np.dtype(dtype).itemsize)
    return sorted({1, n // 2, n - 1, n, n + 1, n + n // 2 - 1, n + n // 2, 2 * n, 5 * n + 1} - {0})


@pytest.mark.parametrize("units", UNITS)
def test_against_numpy(rng, units, dtype):
    eps = np.finfo(dtype).eps
    for rows in numbers_of_rows(dtype):
        # some are equal, and the first of the largest is to be found
        Z = (rng.integers(-40, 40, (rows, units)) / 4).astype(dtype)
        labels = rng.integers(0, units, rows)
        G, predictions, margins, sums = computed(Z, labels)
        exact = Z.astype(np.longdouble)
        maxima = exact.max(axis=1)
        powers = np.exp(exact - maxima[:, None])
        probabilities = powers / powers.sum(axis=1, keepdims=True)
        assert np.array_equal(predictions, Z.argmax(axis=1))
        assert np.array_equal(margins, maxima - exact[np.arange(rows), labels])
        np.testing.assert_allclose(sums, powers.sum(axis=1), rtol=(units + 4) * eps)
        probabilities[np.arange(rows), labels] -= 1
        error = np.abs(G[:, :units] - SCALE * probabilities)
        assert error.max() <= SCALE * (units + 8) * eps
        assert (G[:, units:] == 0).all()


@pytest.mark.parametrize("units", UNITS)
def test_a_row_has_the_same_bits_in_any_batch(rng, units, dtype):
    most = numbers_of_rows(dtype)[-1]
    Z = (3 * rng.standard_normal((most, units))).astype(dtype)
    for special in (np.inf, -np.inf, np.nan, 1e30, -1e30):
        for _ in range(most // 8 + 1):
            Z[rng.integers(most), rng.integers(units)] = special
    Z[0] = -np.inf
    labels = rng.integers(0, units, most)
    alone = [computed(Z[i : i + 1], labels[i : i + 1]) for i in range(most)]
    for rows in numbers_of_rows(dtype):
        together = computed(Z[most - rows :], labels[most - rows :])
        for found, each in zip(together, zip(*alone[most - rows :], strict=True), strict=True):
            np.testing.assert_array_equal(found, np.concatenate(each))


@pytest.mark.parametrize("batch_size", [64, 1000])
def test_losses_of_many_samples(rng, batch_size, dtype):
    """The product of all sums of exponentials would be 10^1000."""
    X = rng.standard_normal((1000, 4)).astype(dtype)
    y = rng.integers(0, 10, 1000)
    losses = []
    for backend in ("numpy", "numba"):
        network = Network([Dense(4, 10)], backend=backend, dtype=dtype, optimizer=SGD(0.01), seed=0)
        history = network.fit(X, y, epochs=2, batch_size=batch_size, shuffle=False)
        losses.append(history.loss)
    np.testing.assert_allclose(losses[1], losses[0], rtol=100 * np.finfo(dtype).eps)
