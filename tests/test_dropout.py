"""Dropout: what is kept, in which mode, by which mask."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastnn
from fastnn import Dense, Dropout, Network, ReLU

pytestmark = pytest.mark.usefixtures("backend")


def trained(layer: Dropout) -> Dropout:
    layer.training = True
    return layer


def test_prediction_passes_the_input_on(rng):
    X = rng.normal(size=(5, 4))
    layer = Dropout(0.7)
    assert layer.forward(X) is X
    assert layer.backward(X, X) is X
    assert layer.step == 0


def test_training_keeps_and_scales(rng, dtype):
    X, G = rng.normal(size=(2, 200, 50)).astype(dtype)
    layer = trained(Dropout(0.25, seed=1))
    output = layer.forward(X)
    kept = output != 0
    assert abs(kept.mean() - 0.75) < 5 * np.sqrt(0.25 * 0.75 / X.size)
    np.testing.assert_allclose(output[kept], X[kept] / 0.75, rtol=4 * np.finfo(dtype).eps)
    # the same mask for the gradient, however often
    for _ in range(2):
        expected = np.where(kept, G / dtype.type(0.75), 0)
        np.testing.assert_allclose(layer.backward(X, G), expected, rtol=4 * np.finfo(dtype).eps)
    assert layer.step == 1
    assert (layer.forward(X) != output).any()
    assert layer.step == 2


def test_seeds_and_keys(rng):
    X = rng.normal(size=(20, 30))
    same = [trained(Dropout(0.5, seed=3)).forward(X) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert Dropout(0.5, seed=3).key != Dropout(0.5, seed=4).key
    assert Dropout(0.5).key != Dropout(0.5).key
    layers = [Dropout(0.5), Dropout(0.5), Dropout(0.5, seed=3)]
    Network(layers, seed=1)
    keys = [layer.key for layer in layers]
    assert len(set(keys)) == 3
    assert keys[2] == Dropout(0.5, seed=3).key
    again = Network([Dropout(0.5), Dropout(0.5)], seed=1)
    assert [layer.key for layer in again] == keys[:2]


def test_both_backends_train_by_the_same_masks(rng):
    X, y = rng.normal(size=(40, 6)), rng.integers(0, 3, 40)
    networks = [
        Network(
            [Dense(6, 20), ReLU(), Dropout(0.4), Dense(20, 3)],
            seed=1,
            dtype=np.float64,
            backend=name,
        )
        for name in ("numpy", "numba")
    ]
    losses = [network.fit(X, y, epochs=4, batch_size=7).loss for network in networks]
    np.testing.assert_allclose(*losses, rtol=1e-10)


def test_copies_go_on_with_the_same_masks(rng):
    X, y = rng.normal(size=(40, 6)), rng.integers(0, 3, 40)
    network = Network([Dense(6, 20), Dropout(0.4), Dense(20, 3)], seed=1)
    network.fit(X, y)
    for clone in (copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))):
        twin = clone(network)
        assert twin[1].step == network[1].step
        assert twin.train_step(X, y) == network.train_step(X, y)


def test_evaluation_does_not_count(rng):
    X, y = rng.normal(size=(40, 6)), rng.integers(0, 3, 40)
    network = Network([Dense(6, 20), Dropout(0.4), Dense(20, 3)], seed=1)
    network.fit(X, y, batch_size=10, validation_data=(X, y), train_accuracy=True)
    assert network[1].step == 4
    np.testing.assert_array_equal(network.predict_proba(X), network.predict_proba(X))


def test_backward_before_forward():
    with pytest.raises(RuntimeError, match="expected a forward pass in training"):
        trained(Dropout(0.5)).backward(np.ones((2, 2)), np.ones((2, 2)))


@pytest.mark.parametrize("p", [1.0, -0.1, 2, np.nan, np.inf])
def test_bad_probabilities(p):
    with pytest.raises(ValueError, match="p: expected"):
        Dropout(p)
    layer = Dropout(0.5)
    with pytest.raises(ValueError, match="p: expected"):
        layer.p = p
    assert layer.p == 0.5


def test_bad_arguments():
    for p in ("half", None, [0.5], True):
        with pytest.raises(TypeError, match="p: expected"):
            Dropout(p)
    with pytest.raises(TypeError, match="seed: expected"):
        Dropout(0.5, seed="one")
    with pytest.raises(ValueError, match="seed: expected"):
        Dropout(0.5, seed=-1)
    assert repr(Dropout(0.5)) == "Dropout(0.5)"


def test_it_helps_where_a_network_learns_by_heart(digits):
    X, y, X_val, y_val = digits
    plain, dropped = [
        Network([Dense(784, 100), ReLU(), *extra, Dense(100, 10)], seed=0)
        for extra in ([], [Dropout(0.5)])
    ]
    for network in (plain, dropped):
        network.fit(X[:300], y[:300], epochs=40, batch_size=20)
    assert dropped.evaluate(X_val, y_val).loss < plain.evaluate(X_val, y_val).loss
    assert fastnn.predict(dropped, X_val).shape == y_val.shape
