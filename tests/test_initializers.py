"""How parameters begin: spreads, names, functions, refusals."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from fastnn import Dense, Network, initializers

SHAPE = (300, 200)
SPREADS = {
    "xavier_normal": np.sqrt(2 / 500),
    "xavier_uniform": np.sqrt(2 / 500),
    "he_normal": np.sqrt(2 / 300),
    "he_uniform": np.sqrt(2 / 300),
    "zeros": 0.0,
}


def assert_spread(values: np.ndarray, deviation: float) -> None:
    # The mean of n draws has deviation s / sqrt(n), their deviation at most s / sqrt(2n): 5 each.
    assert abs(values.mean()) <= 5 * deviation / np.sqrt(values.size)
    assert abs(values.std() - deviation) <= 5 * deviation / np.sqrt(2 * values.size)


@pytest.mark.parametrize("name", SPREADS)
def test_by_name_and_by_function(name):
    weights = Dense(*SHAPE, weights=name, seed=1).weights
    assert_spread(weights, SPREADS[name])
    if name.endswith("uniform"):
        limit = np.sqrt(3) * SPREADS[name]
        assert 0.99 * limit < np.abs(weights).max() <= limit
    function = getattr(initializers, name)
    np.testing.assert_array_equal(Dense(*SHAPE, weights=function, seed=1).weights, weights)


def test_with_arguments():
    layer = Dense(
        *SHAPE,
        weights=initializers.normal(0.01),
        biases=initializers.uniform(-0.5, 0.5),
        seed=2,
    )
    assert_spread(layer.weights, 0.01)
    assert_spread(layer.biases, 1 / np.sqrt(12))
    assert np.abs(layer.biases).max() <= 0.5


def test_the_default_draws_what_it_always_drew():
    rng = np.random.default_rng(3)
    expected = rng.normal(0.0, np.sqrt(2 / 500), SHAPE)
    np.testing.assert_array_equal(Dense(*SHAPE, seed=3).weights, expected)
    assert not Dense(*SHAPE).biases.any()


def test_a_function_of_the_users_own():
    seen = []

    def ones(rng, shape):
        seen.append((type(rng), shape))
        return np.ones(shape, np.float32)

    network = Network([Dense(3, 2, weights=ones, biases=ones)], seed=0)
    np.testing.assert_array_equal(network[0].weights, np.ones((3, 2)))
    np.testing.assert_array_equal(network[0].biases, np.ones(2))
    assert seen == [(np.random.Generator, (3, 2)), (np.random.Generator, (2,))]


def test_copies():
    drawn = Network([Dense(3, 2, weights=lambda rng, shape: rng.random(shape))])
    for twin in (copy.deepcopy(drawn), pickle.loads(pickle.dumps(drawn))):
        np.testing.assert_array_equal(twin[0].weights, drawn[0].weights)
    lone = pickle.loads(pickle.dumps(Dense(3, 2, weights=initializers.normal(0.0), seed=1)))
    assert not lone.weights.any()


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Dense(3, 2, weights="xavier"), ValueError, "^weights: expected one of 'xavier_n"),
        (lambda: Dense(3, 2, weights=0.1), TypeError, "^weights: expected an initialiser"),
        (lambda: Dense(3, 2, biases=None), TypeError, "^biases: expected an initialiser"),
        (lambda: Dense(3, 2, biases="he_normal"), ValueError, "^biases: .*no fan-in.*'he_normal'"),
        (lambda: Dense(3, 2, biases=initializers.xavier_uniform), ValueError, "^biases: .*fan-in"),
        (lambda: initializers.normal(-1), ValueError, "^deviation: expected"),
        (lambda: initializers.uniform(1, 0), ValueError, "^high: expected .*at least 1, got 0"),
        (lambda: initializers.uniform("a", 0), TypeError, "^low: expected"),
        (
            lambda: Dense(3, 2, weights=lambda rng, shape: np.ones(3)).weights,
            ValueError,
            r"^weights: expected shape \(3, 2\), got \(3,\)",
        ),
        (
            lambda: Dense(3, 2, weights=lambda rng, shape: None).weights,
            TypeError,
            "^weights: expected an array of real numbers",
        ),
    ],
)
def test_bad_arguments(build, error, message):
    with pytest.raises(error, match=message):
        build()
