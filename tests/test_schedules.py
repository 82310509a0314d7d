"""Learning rates over steps: values at the edges, and what layers make of them."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

from fastnn import SGD, Dense
from fastnn.schedules import Constant, CosineDecay, StepDecay, WarmUp


def test_constant():
    assert [Constant(0.3)(step) for step in (0, 1, 10**9)] == [0.3] * 3


def test_step_decay():
    schedule = StepDecay(0.8, 0.5, every=10)
    assert [schedule(step) for step in (0, 9, 10, 19, 20, 35)] == [0.8, 0.8, 0.4, 0.4, 0.2, 0.1]
    assert schedule(10**9) == 0.0
    assert StepDecay(1.0, 0.5, 1)(3) == 0.125


def test_a_rate_that_grows_out_of_range_is_refused():
    optimizer = SGD(StepDecay(0.1, 10.0, every=1))
    assert optimizer.rate(300) == pytest.approx(1e299)
    with pytest.raises(ValueError, match=r"^learning_rate: expected .* inf .* step 400"):
        optimizer.rate(400)


def test_cosine_decay():
    schedule = CosineDecay(0.5, steps=8, final_rate=0.1)
    assert schedule(0) == 0.5
    np.testing.assert_allclose(schedule(4), 0.3, rtol=1e-15)
    np.testing.assert_allclose(schedule(2), 0.3 + 0.2 * math.cos(math.pi / 4), rtol=1e-15)
    assert schedule(7) > schedule(8) == schedule(9) == schedule(10**9) == 0.1
    assert CosineDecay(0.5, 1)(1) == 0.0


def test_warm_up():
    schedule = WarmUp(0.4, steps=4)
    np.testing.assert_allclose([schedule(step) for step in range(6)], [0.1, 0.2, 0.3, *[0.4] * 3])
    cosine = CosineDecay(0.4, 10)
    warm = WarmUp(cosine, 4)
    assert warm(1) == cosine(1) / 2
    assert [warm(step) for step in (3, 4, 12)] == [cosine(3), cosine(4), 0.0]
    assert WarmUp(0.4, 1)(0) == 0.4


@pytest.mark.parametrize(
    "schedule", [Constant(1), StepDecay(1, 0.5, 3), CosineDecay(1, 5), WarmUp(Constant(1), 3)]
)
def test_are_values(schedule):
    for twin in (copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert twin == schedule
        assert hash(twin) == hash(schedule)
    assert type(schedule)(**vars(schedule)) == schedule
    assert type(schedule(0)) is float
    name = next(iter(vars(schedule)))
    with pytest.raises(AttributeError):
        setattr(schedule, name, 2)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Constant(-1), ValueError, "^rate: expected .*at least 0, got -1"),
        (lambda: Constant("1"), TypeError, "^rate: expected a finite number"),
        (lambda: StepDecay(0.1, math.nan, 3), ValueError, "^factor: .*got nan"),
        (lambda: StepDecay(0.1, 0.5, 0), ValueError, "^every: expected .*at least 1, got 0"),
        (lambda: StepDecay(0.1, 0.5, 2.0), TypeError, "^every: expected an integer"),
        (lambda: CosineDecay(0.1, 0), ValueError, "^steps: expected"),
        (lambda: CosineDecay(0.1, 5, -0.1), ValueError, "^final_rate: expected"),
        (lambda: WarmUp("fast", 5), TypeError, "^schedule: expected a finite number"),
        (lambda: WarmUp(0.1, True), TypeError, "^steps: expected an integer"),
    ],
)
def test_bad_arguments(build, error, message):
    with pytest.raises(error, match=message):
        build()


@pytest.mark.usefixtures("backend")
class TestOfLayers:
    def test_a_layer_counts_its_own_steps(self, rng):
        asked = []

        def rate(step):
            asked.append(step)
            return 0.5 / (step + 1)

        layer = Dense(4, 3, rate, seed=0)
        X, G = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
        expected = layer.weights.copy()
        for step in range(3):
            assert layer.steps == step
            layer.backward(X, G)
            expected -= 0.5 / (step + 1) * X.T @ G
        assert asked == [0, 1, 2]
        np.testing.assert_allclose(layer.weights, expected, rtol=1e-12, atol=1e-14)
        layer.learning_rate = 0.0
        assert layer.steps == 3
        layer.backward(X, G)
        np.testing.assert_allclose(layer.weights, expected, rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize(
        ("value", "error", "message"),
        [
            (-0.5, ValueError, "^learning_rate: expected .*got -0.5 from .* at step 0"),
            (math.nan, ValueError, "^learning_rate: expected .*got nan"),
            ("x", TypeError, "^learning_rate: expected a finite number .*got str 'x'"),
            (None, TypeError, "^learning_rate: expected .*got NoneType None from .* at step 0"),
        ],
    )
    def test_what_a_schedule_gives_is_checked_before_the_step(self, value, error, message, rng):
        layer = Dense(4, 3, lambda step: value, seed=0)
        before = layer.weights.copy()
        with pytest.raises(error, match=message):
            layer.backward(rng.normal(size=(5, 4)), rng.normal(size=(5, 3)))
        np.testing.assert_array_equal(layer.weights, before)
        assert layer.steps == 0

    def test_numpy_numbers_are_numbers(self, rng):
        layer = Dense(4, 3, optimizer=SGD(lambda step: np.float32(0.5)), seed=0)
        before = layer.weights.copy()
        X, G = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
        layer.backward(X, G)
        np.testing.assert_allclose(layer.weights, before - 0.5 * X.T @ G, rtol=1e-12, atol=1e-14)
