"""The compiled epoch and the layer path see the same batches and give equal results."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest
from conftest import bits
from test_threads import RESTLESS

import fastnn
from fastnn import (
    SGD,
    Adam,
    BatchNorm,
    Dense,
    Dropout,
    Layer,
    Network,
    ReLU,
    Rescaling,
    RMSprop,
    Sigmoid,
    Tanh,
    load,
    paths,
    propagation,
    schedules,
)
from fastnn.backends.numba_backend.epoch.program import Program


class PythonReLU(ReLU):
    """A subclass may do anything, so it is not compiled."""


NETWORKS = {
    "regression": lambda relu: [Dense(9, 4)],
    "two in a row": lambda relu: [Dense(9, 5), Dense(5, 4)],
    "hidden": lambda relu: [Rescaling(0.5), Dense(9, 33), relu(), Dense(33, 4)],
    "odd sizes": lambda relu: [
        Dense(9, 17),
        relu(),
        Layer(),
        Dense(17, 130),
        relu(),
        Dense(130, 4),
    ],
    "relu at the end": lambda relu: [Dense(9, 40), relu(), Dense(40, 4), relu()],
    "stages": lambda relu: [relu(), Dense(9, 20), Rescaling(0.5), relu(), Dense(20, 4)],
    "rates": lambda relu: [Dense(9, 16, 0.3), relu(), Dense(16, 4, 0.02)],
    "sigmoid": lambda relu: [Dense(9, 20), Tanh(), Dense(20, 17), Sigmoid(), Dense(17, 4)],
    "dropout": lambda relu: [Dropout(0.2), Dense(9, 40), relu(), Dropout(0.5), Dense(40, 4)],
    "batch norm": lambda relu: [BatchNorm(9), Dense(9, 21), relu(), BatchNorm(21), Dense(21, 4)],
    "penalty": lambda relu: [Dense(9, 20, l2=0.01), relu(), Dense(20, 4, l2=0.1)],
    "everything": lambda relu: [
        Rescaling(0.5),
        Dense(9, 33, l2=0.001),
        relu(),
        BatchNorm(33),
        Dropout(0.3),
        Dense(33, 17),
        Tanh(),
        Rescaling(2.0),
        Dense(17, 4),
        Sigmoid(),
    ],
}

OPTIMIZERS = {
    "momentum": lambda: SGD(0.05, momentum=0.9),
    "nesterov": lambda: SGD(0.05, momentum=0.9, nesterov=True),
    "rmsprop": lambda: RMSprop(0.01),
    "adam": lambda: Adam(0.01),
    "schedule": lambda: Adam(schedules.WarmUp(schedules.CosineDecay(0.01, 20), 5)),
    "own schedule": lambda: SGD(lambda step: 0.1 / (1 + step)),
}


def both_paths(name: str, **options) -> tuple[Network, Network]:
    """Return one network twice; the second has a layer that only Python knows."""
    build = NETWORKS[name]
    compiled = Network(build(ReLU), backend="numba", seed=5, **options)
    layered = Network([*build(PythonReLU), PythonLayer()], backend="numba", seed=5, **options)
    assert compiled.explain().startswith("compiled epoch")
    assert layered.explain().startswith("layer path")
    return compiled, layered


class PythonLayer(Layer):
    """The identity, but not exactly `Layer`."""


def samples(rng, n: int, dtype, density: float):
    X = rng.integers(1, 256, (n, 9)) * (rng.random((n, 9)) < density)
    # A row of zeros leaves the bias alone, and a bias before batch norm is moved by rounding alone.
    X[:, 0] = np.maximum(X[:, 0], 1)
    X = X.astype(dtype) if dtype == np.uint8 else (X / 255).astype(dtype)
    return X, rng.integers(0, 4, n)


def assert_agree(a: Network, b: Network, steps: int, batch: int) -> None:
    """Each step adds rounding of sums over the batch and over units, up to 130 terms here.

    A step moves a parameter by the rate (at most 0.3) times a gradient of order 1.
    """
    eps = np.finfo(a.dtype).eps
    tolerance = eps * (steps * 0.3 * (batch + 130) + 4)
    for ours, theirs in zip(a, b, strict=False):
        for name, values in ours.parameters.items():
            scale = max(1.0, np.abs(values).max())
            np.testing.assert_allclose(
                values, theirs.parameters[name], rtol=0, atol=tolerance * scale
            )


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [1, 2, 7, 16, 33])
def test_same_parameters(name, batch, rng, dtype):
    if name in ("batch norm", "everything") and batch in (2, 7):
        pytest.skip("batch norm divides by the spread of few samples, which may be all rounding")
    X, y = samples(rng, 100, dtype, density=0.3)
    compiled, layered = both_paths(name, dtype=dtype)
    histories = [net.fit(X, y, epochs=2, batch_size=batch) for net in (compiled, layered)]
    assert_agree(compiled, layered, steps=2 * -(-100 // batch), batch=batch)
    tolerance = 200 * 200 * np.finfo(dtype).eps
    np.testing.assert_allclose(histories[0].loss, histories[1].loss, rtol=tolerance)
    assert np.abs(np.subtract(histories[0].accuracy, histories[1].accuracy)).max() <= 0.02


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "mse"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["hidden", "everything"])
def test_same_parameters_by_every_optimizer(name, optimizer, loss, rng):
    X, y = samples(rng, 100, np.float64, density=0.3)
    compiled, layered = (network for network in both_paths(name, dtype=np.float64, loss=loss))
    for network in (compiled, layered):
        network.optimizer = OPTIMIZERS[optimizer]()
        network.fit(X, y, epochs=2, batch_size=16)
        # halfway an epoch is no boundary for what optimisers and dropout count
        network.train_step(X[:5], y[:5])
        network.fit(X, y, batch_size=16)
    # Adam and RMSprop divide by the size of a gradient: where it is 1e-6 so is the rounding's part
    for ours, theirs in zip(compiled, layered, strict=False):
        for values, expected in zip(
            ours.parameters.values(), theirs.parameters.values(), strict=True
        ):
            np.testing.assert_allclose(values, expected, rtol=0, atol=1e-8)
    np.testing.assert_allclose(
        compiled.evaluate(X, y).loss, layered.evaluate(X, y).loss, rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("batch", [1, 16, 33])
def test_real_targets(batch, rng, dtype):
    X, _ = samples(rng, 100, dtype, density=0.3)
    y = rng.normal(size=(100, 4))
    compiled, layered = both_paths("sigmoid", dtype=dtype, loss="mse")
    losses = [net.fit(X, y, epochs=2, batch_size=batch).loss for net in (compiled, layered)]
    assert_agree(compiled, layered, steps=2 * -(-100 // batch), batch=batch)
    np.testing.assert_allclose(losses[0], losses[1], rtol=200 * 200 * np.finfo(dtype).eps)
    assert compiled.history.accuracy == []


def test_a_saved_network_goes_on_with_the_same_bits(rng, tmp_path):
    X, y = samples(rng, 100, np.float32, density=0.3)
    network, _ = both_paths("everything", optimizer=Adam(0.01))
    network.fit(X, y, batch_size=16)
    network.save(tmp_path / "model")
    loaded = load(tmp_path / "model", backend="numba")
    for net in (network, loaded):
        assert net.explain().startswith("compiled epoch")
        net.fit(X, y, batch_size=16)
    assert network._parameters.vector.tobytes() == loaded._parameters.vector.tobytes()


@pytest.mark.parametrize("input_dtype", [np.uint8, np.float16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("order", ["C", "F", "reversed"])
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_any_input(input_dtype, order, density, rng):
    X, y = samples(rng, 60, np.uint8, density)
    X = X.astype(input_dtype)
    X = X[:, ::-1].copy()[:, ::-1] if order == "reversed" else np.asarray(X, order=order)
    networks = [
        Network([Rescaling(1 / 255), *NETWORKS["hidden"](relu)], backend="numba", seed=1)
        for relu in (ReLU, PythonReLU)
    ]
    for network in networks:
        network.fit(X, y, batch_size=16)
    assert_agree(*networks, steps=4, batch=16)


def test_where_an_epoch_is_cut_changes_no_bit(digits, monkeypatch, capsys):
    X, y, X_val, y_val = digits
    results = []
    for seconds, options in [
        (1e-9, {}),
        (1e9, {"progress": True}),
        (0.001, {"validation_data": (X_val, y_val), "train_accuracy": True}),
    ]:
        monkeypatch.setattr(fastnn.training, "STRETCH_SECONDS", seconds)
        layers = [Dense(784, 50, l2=1e-4), BatchNorm(50), ReLU(), Dropout(0.2), Dense(50, 10)]
        network = Network(layers, optimizer=SGD(0.01, momentum=0.9), seed=0)
        losses = network.fit(X, y, epochs=2, **options).loss
        results.append((network._parameters.vector.tobytes(), losses))
    assert results[0] == results[1] == results[2]


def test_an_interrupt_counts_the_steps_that_were_taken(rng, monkeypatch):
    X, y = samples(rng, 64, np.float32, 1.0)
    layers = [Dense(9, 7), Dropout(0.5), Dense(7, 4)]
    network = Network(layers, optimizer=Adam(0.01), backend="numba", seed=0)
    network.fit(X[:1], y[:1])
    whole, prepare = copy.deepcopy(network), Program.prepare

    def interrupted(program, samples, targets, order, *rest, **options):
        # as the interpreter does where the signal came in the compiled call
        run = prepare(program, samples, targets, order, *rest, **options)

        def call():
            totals = run()
            if len(order):
                raise KeyboardInterrupt
            return totals

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Program, "prepare", interrupted)
        with pytest.raises(KeyboardInterrupt):
            network.fit(X, y, batch_size=64, shuffle=False)
    whole.fit(X, y, batch_size=64, shuffle=False)
    for a in (network, whole):
        a.fit(X, y, batch_size=7, shuffle=False)
    assert network[0].steps == whole[0].steps == 12
    assert network[1].step == whole[1].step == 12
    for a, b in zip(network, whole, strict=True):
        for name, array in a.parameters.items():
            np.testing.assert_array_equal(array, b.parameters[name])


def test_later_epochs_take_the_calls_they_need(rng, monkeypatch):
    """The first epoch finds out how many batches a call can take, the others know."""
    X, y = samples(rng, 3200, np.float32, 0.3)
    calls = []
    train = paths.CompiledPath.train

    def counted(self, order):
        calls.append(len(order))
        return train(self, order)

    monkeypatch.setattr(paths.CompiledPath, "train", counted)
    monkeypatch.setattr(fastnn.training, "STRETCH_SECONDS", 1e9)
    network = Network([Dense(9, 4)], backend="numba", seed=0)
    network.fit(X, y, epochs=3, callbacks=lambda network, history: None)
    assert calls == [32, 64 * 32, 1120, 3200, 3200]


def test_a_second_fit_goes_on_with_what_the_first_one_set_up(rng, monkeypatch):
    X, y = samples(rng, 100, np.float32, 0.3)
    made = []
    program = paths._program

    def counted(*arguments, **options):
        made.append(options)
        return program(*arguments, **options)

    monkeypatch.setattr(paths, "_program", counted)
    network, fresh = (Network([Dense(9, 40), ReLU(), Dense(40, 4)], seed=0) for _ in range(2))
    network.fit(X, y, batch_size=8, shuffle=False)
    network.fit(X, y, batch_size=8, shuffle=False)
    assert len(made) == 1
    fresh.fit(X, y, epochs=2, batch_size=8, shuffle=False)
    for again, once in zip(network, fresh, strict=True):
        for name, array in again.parameters.items():
            np.testing.assert_array_equal(array, once.parameters[name])

    made.clear()
    others = X[20:90]
    assert (others != 0).mean() != (X != 0).mean()
    network.fit(others, y[20:90], batch_size=8)  # other zeros, for which the same kernels are best
    assert not made

    network.fit(X, y, batch_size=16)  # another batch size
    network.fit(X.astype(np.float64), y, batch_size=16)  # another dtype of the samples
    network.fit(np.abs(X) + 1, y, batch_size=16)  # another density
    network.use("mse")
    network.fit(np.abs(X) + 1, y, batch_size=16)  # another loss
    assert len(made) == 4
    network.fit(np.abs(X) + 1, y, batch_size=16)
    network[0].optimizer = fastnn.Adam()  # another table of the same program
    network.fit(np.abs(X) + 1, y, batch_size=16)
    assert len(made) == 4

    with monkeypatch.context() as patch:
        patch.setattr(paths, "KEPT_BYTES", 1000)  # too much to keep
        network.fit(np.abs(X) + 1, y, batch_size=16)
    network.fit(np.abs(X) + 1, y, batch_size=16)
    assert len(made) == 5

    def interrupt(network, history):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        network.fit(np.abs(X) + 1, y, batch_size=16, callbacks=[interrupt])
    network.fit(np.abs(X) + 1, y, batch_size=16)
    assert len(made) == 6  # threads might still have been looking at it


@pytest.mark.parametrize(
    ("layers", "backend", "reason"),
    [
        ([Dense(3, 2)], "numpy", "the numpy backend has no compiled epoch"),
        ([Dense(3, 2), PythonReLU()], "numba", r"PythonReLU\(\) is known to Python alone"),
        ([ReLU()], "numba", "there is no Dense layer"),
    ],
)
def test_explanations(layers, backend, reason, rng):
    network = Network(layers, backend=backend, seed=0)
    assert re.search(f"^layer path: .*{reason}", network.explain())
    X = rng.normal(size=(10, 3))
    network.fit(X, rng.integers(0, 2, 10))


def test_kernels_for_another_share_of_zeros():
    def program(layers, density):
        network = Network(layers)
        return paths._program(network, paths._described(network), None, density)

    def dense(density):
        return program([Dense(9, 4)], density)

    assert dense(0.2).has_kernels_for(0.5)
    assert not dense(0.2).has_kernels_for(0.6)
    assert dense(0.6).has_kernels_for(0.65)
    assert not dense(0.6).has_kernels_for(0.75)
    behind = program([Tanh(), Dense(9, 4)], 0.2)
    assert behind.has_kernels_for(0.2)
    assert not behind.has_kernels_for(0.3)


def test_diverging_loss_is_reported_by_both():
    X, y = np.full((64, 9), np.nan, np.float32), np.arange(64) % 4
    for network in both_paths("hidden"):
        with pytest.warns(RuntimeWarning, match="nan"):
            network.fit(X, y, on_divergence="warn")


@pytest.mark.parametrize("restore", ["setter", "view"])
def test_one_bad_batch_leaves_nothing_behind_restored_weights(rng, restore):
    X, y = samples(rng, 300, np.float32, 0.3)
    compiled, layered = both_paths("odd sizes")
    good = [{k: v.copy() for k, v in layer.parameters.items()} for layer in compiled]
    bad = X.copy()
    bad[7, 3] = np.nan
    for network in (compiled, layered):
        with pytest.warns(RuntimeWarning, match="nan"):
            network.fit(bad, y, on_divergence="warn")
        for layer, saved in zip(network, good, strict=False):
            for name, values in saved.items():
                if restore == "setter":
                    setattr(layer, name, values)
                else:
                    layer.parameters[name][...] = values
    assert np.isfinite(compiled.predict_proba(X)).all()
    for network in (compiled, layered):
        network.fit(X, y)
    assert_agree(compiled, layered, steps=10, batch=32)


def test_an_optimiser_of_the_users_own_is_obeyed(rng, tmp_path):
    class Frozen(fastnn.SGD):
        def step(self, backend, parameters, gradient, state, step):
            pass

    network = Network([Dense(9, 4)], backend="numba", seed=0)
    network[0].optimizer = Frozen(0.1)
    assert "Frozen" in network.explain() or "SGD" in network.explain()
    before = network[0].weights.copy()
    network.fit(*samples(rng, 50, np.float32, 1.0))
    np.testing.assert_array_equal(network[0].weights, before)
    with pytest.raises(TypeError, match="optimisers"):
        network.save(tmp_path / "model")


def test_a_batch_larger_than_the_data(rng):
    X, y = samples(rng, 50, np.float32, 1.0)
    compiled, layered = both_paths("hidden")
    for network in (compiled, layered):
        network.fit(X, y, batch_size=2**62)
    assert_agree(compiled, layered, steps=1, batch=50)


def test_a_scale_changed_between_epochs(rng):
    X, y = samples(rng, 200, np.float32, 1.0)
    networks = both_paths("hidden")
    for network in networks:

        def rescale(network, history):
            network[0].scale = 0.9 * network[0].scale

        network.predict(X)
        network.fit(X, y, epochs=4, callbacks=[rescale])
    np.testing.assert_allclose(
        networks[0].predict_proba(X), networks[1].predict_proba(X), rtol=0, atol=1e-4
    )
    with pytest.raises(ValueError, match="scale: expected a finite number"):
        networks[0][0].scale = np.nan


def test_prediction_follows_the_network(rng):
    X = samples(rng, 200, np.float32, 1.0)[0]
    network = Network([Dense(9, 8), ReLU(), Dense(8, 8)], backend="numba", seed=0)
    for change in (
        lambda: None,
        lambda: network[0].weights.__imul__(0.5),
        lambda: network.add(ReLU()),
        lambda: network.add(Dense(8, 5)),
    ):
        change()
        logits = network.forward(X)[-1]
        np.testing.assert_allclose(network.predict_proba(X), fastnn.softmax(logits), atol=1e-5)


def test_a_copy_made_in_training_is_at_rest(rng):
    X, y = samples(rng, 50, np.float32, 1.0)
    copies = []
    network = Network([Dense(9, 4)], seed=0)
    network.fit(
        X,
        y,
        callbacks=[
            lambda net, _: copies.append(copy.deepcopy(net)),
            lambda net, _: copies.append(pickle.loads(pickle.dumps(net))),
        ],
    )
    for twin in copies:
        assert not twin[0].training
        twin.add(ReLU())
        twin.fit(X, y)


def test_a_row_with_nan_is_no_right_answer():
    for network in both_paths("hidden"):
        network[1].weights = np.full((9, 33), np.nan)
        X, y = np.ones((39, 9), np.float32), np.zeros(39, int)
        assert network.evaluate(X, y).accuracy == 0.0
        with pytest.warns(RuntimeWarning, match="nan"):
            assert network.fit(X, y, on_divergence="warn").accuracy == [0.0]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_method_replaced_on_one_layer_counts_everywhere(backend, place, rng, tmp_path):
    X, y = rng.normal(size=(200, 9)), rng.integers(0, 4, 200)
    network = Network([Dense(9, 8), ReLU(), Dense(8, 4)], seed=0, backend=backend)
    layer = network[place]
    passes = []

    def forward(input):
        return type(layer).forward(layer, input) - 5.0

    def backward(input, grad_output):
        passes.append(len(input))
        return type(layer).backward(layer, input, grad_output)

    layer.forward, layer.backward = forward, backward
    expected = fastnn.softmax(network.forward(X)[-1])
    for rows in (20, 200):  # either way to predict; float32, sums of at most nine products
        np.testing.assert_allclose(network.predict_proba(X[:rows]), expected[:rows], rtol=1e-5)
    network.fit(X, y, batch_size=50)
    assert passes == [50] * 4
    with pytest.raises(TypeError, match="can't save"):
        network.save(tmp_path / "model.safetensors")


@pytest.mark.parametrize("method", ["step", "rate"])
def test_a_method_replaced_on_an_optimiser_is_obeyed(method, rng, tmp_path):
    X, y = samples(rng, 50, np.float32, 1.0)
    optimizer = SGD(0.1)
    network = Network([Dense(9, 4)], optimizer=optimizer, backend="numba", seed=0)
    setattr(optimizer, method, {"step": lambda *_: None, "rate": lambda step: 0.0}[method])
    before = network[0].weights.copy()
    network.fit(X, y)
    np.testing.assert_array_equal(network[0].weights, before)
    assert "known to Python alone" in network.explain()
    with pytest.raises(TypeError, match="can't save"):
        network.save(tmp_path / "model")


def test_a_call_that_is_refused_counts_no_step(rng, monkeypatch):
    X, y = samples(rng, 200, np.float32, 1.0)
    network = Network([Dense(9, 4), Dropout(0.5), Dense(4, 4)], backend="numba", seed=0)
    network.fit(X, y, batch_size=50)

    def no_memory(program, members):
        raise MemoryError("no memory for a team")

    monkeypatch.setattr(Program, "_team", no_memory)
    monkeypatch.setattr(Program, "members", lambda program, threads: 2)
    with pytest.raises(MemoryError, match="for a team"):
        network.fit(X, y, batch_size=50)
    assert [layer.steps for layer in (network[0], network[2])] == [4, 4]
    assert network[1].step == 4


def _epochs_by_repeated(network, X, y, epochs, batch, factor, threads=None, weights=None):
    """Train by `Path.repeated`, in two calls of different lengths; return sums of losses."""
    order, losses = np.empty(len(X), np.int64), []
    whole = len(X) // batch * batch
    with (
        paths.training_path(network, X, y, batch, threads, weights) as path,
        fastnn.layers.TrainingMode(network.layers, True),
    ):
        parts = slice(0, whole), slice(whole, len(X))
        calls = [path.repeated(order[part]) for part in parts if part.start < part.stop]
        for epoch in range(epochs):
            order[...] = np.random.default_rng(epoch).permutation(len(X))
            losses.append(sum(call(factor)[0] for call in calls))
    return losses


@pytest.mark.parametrize(
    "rate", [0.05, schedules.StepDecay(0.05, 0.5, 3)], ids=["number", "schedule"]
)
@pytest.mark.parametrize("optimizer", [SGD, Adam])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("factor", [0.0, 2.5])
@pytest.mark.parametrize("clip_norm", [None, 0.2])
def test_a_call_repeated(factor, dropout, optimizer, rate, clip_norm, rng, monkeypatch):
    monkeypatch.setattr(paths, "STEPS_AHEAD", 50)
    X, y = samples(rng, 35, np.float64, 0.5)
    epochs = 2 * paths.STEPS_AHEAD // 4 + 3  # past the steps whose rates are made at once

    def network(backend, l2):
        layers = [Dense(9, 8, l2=l2), ReLU(), Dense(8, 4, l2=l2 / 2)]
        if dropout:  # without it calls are got ready once
            layers.insert(2, Dropout(dropout))
        options = {"optimizer": optimizer(rate), "clip_norm": clip_norm}
        return Network(layers, **options, backend=backend, dtype="f8", seed=0)

    repeated = [network(backend, 0.01) for backend in ("numba", "numpy")]
    found = [_epochs_by_repeated(each, X, y, epochs, 10, factor) for each in repeated]
    expected = network("numpy", 0.01 * factor)
    losses = []
    with fastnn.layers.TrainingMode(expected.layers, True):
        for epoch in range(epochs):
            order = np.random.default_rng(epoch).permutation(len(X))
            losses.append(0.0)
            for start in range(0, len(X), 10):
                rows = order[start : start + 10]
                losses[-1] += propagation.step(expected, X[rows], y[rows])[0]
    for each, its_losses in zip(repeated, found, strict=True):
        np.testing.assert_allclose(its_losses, losses, rtol=1e-8)
        assert [layer.steps for layer in each if isinstance(layer, Dense)] == [4 * epochs] * 2
        assert each[0].l2 == 0.01
        for a, b in zip(each.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-8)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 10, 35, 64])
@pytest.mark.parametrize("kind", ["plain", "Adam and dropout", "clipped, with a penalty"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_epochs_in_one_call(dtype, kind, batch_size, threads, rng, monkeypatch):
    """They have the sums, and leave the bits, of a call for each of them."""
    monkeypatch.setattr(paths.CompiledPath, "takes_epochs", True)  # in spite of the schedule
    X = rng.integers(-1, 2, (35, 130)).astype(dtype)
    y, weights = rng.integers(0, 4, 35), rng.random(35) + 0.5

    def trained(in_one_call):
        l2 = 0.01 if kind == "clipped, with a penalty" else 0.0
        layers = [Dense(130, 40, l2=l2), ReLU(), Dense(40, 4, l2=l2)]
        rate = schedules.StepDecay(0.05, 0.5, 3)
        optimizer = SGD(rate, momentum=0.9)
        if kind == "Adam and dropout":
            layers.insert(2, Dropout(0.3))
            optimizer = Adam(rate)
        clip_norm = 0.5 if l2 else None
        options = {"optimizer": optimizer, "clip_norm": clip_norm, "dtype": dtype, "seed": 0}
        network = Network(layers, backend="numba", **options)
        orders = np.array([np.random.default_rng(n).permutation(35) for n in range(6)])
        with (
            paths.training_path(network, X, y, batch_size, threads, weights) as path,
            fastnn.layers.TrainingMode(network.layers, True),
        ):
            path._program._signals.settings.update(RESTLESS)
            if in_one_call:
                losses, correct = path.train_epochs(orders)
            else:
                losses, correct = [], []
                for order in orders:
                    path.start()
                    half = 20 if batch_size < 20 else 35
                    loss, answers = path.train(order[:half])
                    if half < 35:
                        loss, answers = path.train(order[half:])
                    losses.append(loss)
                    correct.append(answers)
        return bits(network), losses, correct, network[0].steps

    assert trained(True) == trained(False)


@pytest.mark.parametrize("optimizer", [SGD, Adam])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("clip_norm", [None, 0.2])
@pytest.mark.parametrize("dtype", [np.float64, np.int64], ids=["as they lie", "cast"])
def test_each_batch_has_its_factor_on_penalties(
    optimizer, dropout, clip_norm, dtype, rng, monkeypatch
):
    monkeypatch.setattr(paths, "CAST_ROWS", 20)
    X, y = rng.integers(-2, 3, (35, 9)).astype(dtype), rng.integers(0, 4, 35)
    factors = np.array([0.5, 2.0, 0.0, 7.0])
    expected, *networks = (
        Network(
            [Dense(9, 8, l2=0.01), ReLU(), *([Dropout(dropout)] if dropout else []), Dense(8, 4)],
            optimizer=optimizer(0.05), clip_norm=clip_norm, backend=backend, dtype="f8", seed=0,
        )
        for backend in ("numpy", "numpy", "numba")
    )  # fmt: skip
    losses = []
    with fastnn.layers.TrainingMode(expected.layers, True):
        for _ in range(2):
            losses.append(0.0)
            for factor, start in zip(factors, range(0, 35, 10), strict=True):
                expected[0]._l2 = 0.01 * factor
                batch = slice(start, start + 10)
                losses[-1] += propagation.step(expected, X[batch], y[batch])[0]
    for network in networks:
        with (
            paths.training_path(network, X, y, 10) as path,
            fastnn.layers.TrainingMode(network.layers, True),
        ):
            call = path.repeated(np.arange(35))
            np.testing.assert_allclose([call(factors)[0] for _ in range(2)], losses, rtol=1e-12)
        for a, b in zip(network.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
        weights = network[0].weights
        assert network[0].penalty == pytest.approx(0.01 * np.vdot(weights, weights))


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("threads", [2, 4])
def test_a_factor_on_penalties_reaches_all_threads(threads, clip_norm, rng):
    X, y = rng.normal(size=(64, 300)).astype(np.float32), rng.integers(0, 4, 64)
    networks = [
        Network(
            [Dense(300, 4000, l2=0.1), ReLU(), Dense(4000, 4, l2=0.1)], clip_norm=clip_norm, seed=0
        )
        for _ in range(2)
    ]
    for network, number in zip(networks, (1, threads), strict=True):
        _epochs_by_repeated(network, X, y, 3, 16, 0.3, threads=number)
    for a, b in zip(*(network.get_weights() for network in networks), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_factor_on_penalties_ends_with_the_path(rng):
    X, y = samples(rng, 40, np.float32, 0.5)
    networks = [Network([Dense(9, 4, l2=0.1)], seed=0, backend="numba") for _ in range(2)]
    _epochs_by_repeated(networks[0], X, y, 1, 40, 7.0)
    networks[1].fit(X, y, batch_size=40, shuffle=False)
    networks[0].set_weights(networks[1].get_weights())
    for network in networks:
        network.fit(X, y, batch_size=40, shuffle=False)
    np.testing.assert_array_equal(networks[0][0].weights, networks[1][0].weights)
