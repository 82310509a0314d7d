"""Epochs that nobody is told of, run one after the other: the same as if somebody were."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest
from conftest import bits, perceptron

import fastnn
from fastnn import schedules, training
from fastnn.paths import CompiledPath
from fastnn.training import Training

KINDS = {
    "plain": {},
    "unshuffled": {"shuffle": False},
    "whole batches": {"drop_last": True},
    "weights": {"sample_weight": np.arange(50) % 3},
    "on two threads": {"threads": 2},
}


@pytest.fixture
def ordinary(monkeypatch):
    """A list that gets the number of each epoch that is run by itself."""
    found: list[int] = []
    run = Training._run_epoch

    def noting(self, path):
        found.append(self.position.epoch)
        run(self, path)

    monkeypatch.setattr(Training, "_run_epoch", noting)
    return found


def samples(rng, dtype="float32"):
    return rng.normal(size=(50, 6)).astype(dtype), rng.integers(0, 3, 50)


def network(backend, *more, **options):
    made = perceptron(6, 8, 3, backend=backend, seed=1, learning_rate=0.5)
    for layer in more:
        made.add(layer)
    for name, value in options.items():
        setattr(made, name, value)
    return made


@pytest.fixture(params=[2, 7, 1000])
def both(request, ordinary, monkeypatch):
    """Return a function that calls another twice, the second time with each epoch run by itself.

    The first time so many of them are in a call, however long it takes, where a path allows it.
    """
    monkeypatch.setattr(training, "STRETCH_SECONDS", 1e6)
    monkeypatch.setattr(training, "MOST_DRAWN", 50 * request.param)

    def call(function):
        ordinary.clear()
        short = function()
        assert ordinary == [1]
        with monkeypatch.context() as patched:
            patched.setattr(Training, "_goes_unheard", lambda self: False)
            return short, function()

    return call


@pytest.fixture
def with_schedules(monkeypatch):
    """Schedules of these tests draw nothing and take no time, so they may be called before all."""
    monkeypatch.setattr(CompiledPath, "takes_epochs", property(lambda path: path._direct))


def without_times(history):
    return {n: v for n, v in history.columns.items() if not n.startswith(("seconds", "samples"))}


@pytest.mark.parametrize("kind", KINDS)
def test_it_makes_no_difference(backend, both, rng, kind):
    X, y = samples(rng)

    def trained():
        made = network(backend)
        return made, made.fit(X, y, epochs=30, batch_size=16, **KINDS[kind])

    (first, short), (second, told) = both(trained)
    assert bits(first) == bits(second)
    assert without_times(short) == without_times(told)
    assert len(short) == 30
    assert short.samples_seen == told.samples_seen
    assert all(seconds > 0 for seconds in short.seconds)
    assert first[0]._parameters.steps == second[0]._parameters.steps


@pytest.mark.parametrize(
    "optimizer",
    ["adam", fastnn.SGD(lambda step: 0.1 / (step + 1)), fastnn.SGD(schedules.CosineDecay(0.1, 40))],
    ids=["adam", "a function", "a schedule"],
)
@pytest.mark.parametrize("more", ["nothing", "dropout and batch norm", "a layer of my own"])
def test_what_counts_steps_counts_them(backend, both, rng, optimizer, more):
    class Mine(fastnn.Layer):
        def forward(self, input):
            return 2 * input

        def backward(self, input, grad_output):
            return 2 * grad_output

    X, y = samples(rng, "int16" if more == "nothing" else "float64")

    def trained():
        added = {"nothing": [], "a layer of my own": [Mine()]}
        layers = added.get(more, [fastnn.BatchNorm(3), fastnn.Dropout(0.2, seed=3)])
        made = network(backend, *layers, optimizer=optimizer)
        return bits(made), without_times(made.fit(X, y, epochs=12, batch_size=16))

    first, second = both(trained)
    assert first == second


@pytest.mark.usefixtures("with_schedules")
def test_divergence_is_found_in_the_epoch_where_it_happens(backend, both, rng):
    X, y = samples(rng)
    # two hundred steps in which all is well, then one that is too long
    rate = fastnn.SGD(lambda step: 0.01 if step < 203 else 1e30)

    def diverged():
        made = network(backend, optimizer=rate)
        with pytest.raises(fastnn.DivergenceError) as error:
            made.fit(X, y, epochs=200, batch_size=16)
        assert error.value.epoch == 52
        told = str(error.value), bits(made), made.history.samples_seen, without_times(made.history)
        return *told, made._rng.bit_generator.state

    first, second = both(diverged)
    assert first == second
    assert first[0].startswith("epoch 52, step 205: the loss is nan")
    assert len(first[3]["loss"]) == 51


@pytest.mark.usefixtures("with_schedules")
def test_parameters_that_the_last_step_of_an_epoch_spoils(backend, both, rng):
    """Of that epoch all losses are finite; those of the next one, in the same call, are not."""
    X, y = samples(rng)
    rate = fastnn.SGD(lambda step: 0.01 if step < 199 else 1e45)  # 4 steps an epoch

    def diverged():
        made = network(backend, optimizer=rate)
        with pytest.raises(fastnn.DivergenceError, match=r"^epoch 50, step 200: ") as error:
            made.fit(X, y, epochs=200, batch_size=16)
        assert error.value.epoch == 50
        assert len(made.history) == 49
        return (
            str(error.value),
            bits(made),
            made.history.samples_seen,
            made._rng.bit_generator.state,
        )

    first, second = both(diverged)
    assert first == second


@pytest.mark.usefixtures("with_schedules")
def test_spoiled_parameters_that_no_loss_tells_of(backend, both, rng):
    """A bias of minus infinity is that of a unit which is dead."""
    X, y = samples(rng)[0] / 1000, np.full((50, 1), -10.0)
    rate = fastnn.SGD(lambda step: 1e-4 if step != 203 else 1e38)

    def ones(generator, shape):
        return np.ones(shape)

    def diverged():
        made = fastnn.Network(backend=backend, seed=1, loss="half_squared_error")
        made.add(fastnn.Dense(6, 1, biases=ones, optimizer=rate))
        made.add(fastnn.ReLU())
        made.add(fastnn.Dense(1, 1, learning_rate=1e-4, weights=ones))
        with pytest.raises(fastnn.DivergenceError) as error:
            made.fit(X, y, epochs=400, batch_size=16)
        found = made.history.samples_seen, without_times(made.history), bits(made)
        return str(error.value), error.value.epoch, *found, made._rng.bit_generator.state

    first, second = both(diverged)
    assert first == second
    assert first[1] == 51


def test_a_schedule_that_raises(backend, both, rng):
    X, y = samples(rng)

    def rate(step):
        if step == 400:
            raise RuntimeError("no more")
        return 0.1

    def stopped():
        made = network(backend, optimizer=fastnn.SGD(rate))
        with pytest.raises(RuntimeError, match="no more"):
            made.fit(X, y, epochs=300, batch_size=16)
        found = made.history.samples_seen, without_times(made.history), bits(made)
        return *found, made._rng.bit_generator.state

    first, second = both(stopped)
    assert first == second
    assert first[0] == 100 * 50


def test_schedules_that_are_known():
    class Mine(schedules.StepDecay):
        def __call__(self, step):
            return 0.1

    decay = schedules.StepDecay(0.1, 0.5, 3)
    known = 0.1, decay, schedules.CosineDecay(0.1, 5), schedules.WarmUp(decay, 2)
    own = (lambda step: 0.1), Mine(0.1, 0.5, 3), schedules.WarmUp(Mine(0.1, 0.5, 3), 2)
    assert [schedules.is_known(rate) for rate in (*known, *own)] == [True] * 4 + [False] * 3


def test_a_layer_that_draws_from_the_generator_of_the_orders(backend, both, rng):
    class Noise(fastnn.Layer):
        def __init__(self, generator):
            self.generator = generator

        def forward(self, input):
            return input + self.generator.normal(0, 0.1, input.shape).astype(input.dtype)

        def backward(self, input, grad_output):
            return grad_output

    X, y = samples(rng)

    def trained():
        generator = np.random.default_rng(3)
        made = fastnn.Network(backend=backend, seed=generator)
        for layer in (fastnn.Dense(6, 8), Noise(generator), fastnn.ReLU(), fastnn.Dense(8, 3)):
            made.add(layer)
        return without_times(made.fit(X, y, epochs=20, batch_size=16)), bits(made)

    first, second = both(trained)
    assert first == second


@pytest.mark.usefixtures("with_schedules")
def test_a_loss_that_is_not_finite_warns_once(backend, rng):
    X, y = samples(rng)
    made = network(backend, optimizer=fastnn.SGD(lambda step: 0.01 if step < 40 else 1e30))
    with pytest.warns(RuntimeWarning, match="the loss of epoch 11 is nan") as warned:
        history = made.fit(X, y, epochs=30, batch_size=16, on_divergence="warn")
    assert len(warned) == 1
    assert len(history) == 30


def test_ctrl_c_ends_after_a_whole_epoch(rng, monkeypatch):
    monkeypatch.setattr(training, "STRETCH_SECONDS", 0.01)
    X, y = samples(rng)
    made = network("numba")
    made.fit(X, y)
    threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        made.fit(X, y, epochs=10**7, batch_size=16)
    history = made.history
    assert len(history) < 10**7
    assert len({len(column) for column in history.columns.values()}) == 1
    assert history.samples_seen == 50 * len(history) > 50
    made.fit(X, y)  # nothing is held


def test_another_thread_may_end_it(rng):
    X, y = samples(rng)
    stop = threading.Event()
    token = training.STOP.set(stop)
    threading.Timer(0.3, stop.set).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            network("numba").fit(X, y, epochs=10**7)
    finally:
        training.STOP.reset(token)


def test_who_is_told_hears_of_each_epoch(ordinary, rng):
    X, y = samples(rng)
    made = network("numba")
    for options in (
        {"validation_data": (X, y)},
        {"validation_split": 0.2},
        {"train_accuracy": True},
        {"progress": True},
        {"callbacks": lambda network, history: None},
    ):
        ordinary.clear()
        made.fit(X, y, epochs=5, **options)
        assert ordinary == [1, 2, 3, 4, 5]


def test_long_epochs_are_run_by_themselves(ordinary, rng, monkeypatch):
    monkeypatch.setattr(training, "STRETCH_SECONDS", 0.0)
    X, y = samples(rng)
    network("numba").fit(X, y, epochs=5)
    assert ordinary == [1, 2, 3, 4, 5]
