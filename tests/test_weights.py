"""Weights of samples and classes: in every loss, on both backends, on both paths."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fastnn import (
    Adam,
    BatchNorm,
    Dense,
    Dropout,
    Network,
    ReLU,
    eval_numerical_gradient,
    paths,
    progress,
)

BACKENDS = ("numpy", "numba")
LOSSES = ("softmax_cross_entropy", "binary_cross_entropy", "mse", "regression")


def network(loss="softmax_cross_entropy", dtype=np.float64, **options) -> Network:
    name = "mse" if loss == "regression" else loss
    layers = [Dense(5, 7, 0.2, l2=0.01), ReLU(), Dense(7, 3, 0.2)]
    return Network(layers, loss=name, dtype=dtype, seed=2, **options)


def samples(rng, n, loss):
    X = rng.normal(size=(n, 5))
    if loss == "regression":
        return X, rng.normal(size=(n, 3))
    return X, rng.integers(0, 2, (n, 3)) if loss == "binary_cross_entropy" else rng.integers(
        0, 3, n
    )


def close(found, expected, steps, dtype=np.float64):
    """Sums of at most 40 terms, in each of `steps` steps that build on one another."""
    bound = 40 * steps * np.finfo(dtype).eps
    for a, b in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=bound * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize(("backend", "loss"), list(itertools.product(BACKENDS, LOSSES)))
def test_a_weight_is_so_many_copies(rng, backend, loss):
    X, y = samples(rng, 17, loss)
    copies = rng.integers(0, 4, 17)
    weighted, repeated = network(loss, backend=backend), network(loss, backend=backend)
    options = {"shuffle": False, "batch_size": 100}
    history = weighted.fit(X, y, sample_weight=copies, epochs=3, **options)
    X, y, many = np.repeat(X, copies, axis=0), np.repeat(y, copies, axis=0), X
    expected = repeated.fit(X, y, epochs=3, **options)
    np.testing.assert_allclose(history.loss, expected.loss, rtol=1e-13)
    close(weighted, repeated, 3)
    assert len(many) != len(X)


@pytest.mark.parametrize(("backend", "loss"), list(itertools.product(BACKENDS, LOSSES)))
def test_gradients_by_differences(rng, backend, loss):
    X, y = samples(rng, 11, loss)
    weights = rng.random(11)
    net = network(loss, backend=backend)
    value, gradients = net.gradients(X, y, sample_weight=weights)
    assert value == pytest.approx(net.evaluate(X, y, sample_weight=weights).loss, rel=1e-13)
    for i in (0, 2):
        for name, found in gradients[i].items():
            array = net[i].parameters[name]

            def loss_at(values, array=array):
                before = array.copy()
                array[...] = values
                result = net.evaluate(X, y, sample_weight=weights).loss
                array[...] = before
                return result

            expected = eval_numerical_gradient(loss_at, array.copy())
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("batch", [1, 7, 32, 100])
def test_the_compiled_epoch_and_the_layer_path_agree(rng, monkeypatch, dtype, loss, batch):
    X, y = samples(rng, 83, loss)
    weights = rng.random(83) * rng.integers(0, 2, 83)  # about half are 0, so are whole batches of 1
    compiled, layers = network(loss, dtype), network(loss, dtype)
    assert "compiled epoch" in compiled.explain()
    options = {"batch_size": batch, "sample_weight": weights, "epochs": 2}
    found = compiled.fit(X, y, **options)
    monkeypatch.setattr(paths, "reason_for_layers", lambda network: "a test")
    expected = layers.fit(X, y, **options)
    eps = np.finfo(dtype).eps
    steps = 2 * -(-83 // batch)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=40 * steps * eps)
    assert found.accuracy == expected.accuracy
    close(compiled, layers, steps, dtype)


def test_every_layer_and_optimiser_with_weights(rng, monkeypatch):
    def deep():
        layers = [Dense(5, 20), BatchNorm(20), ReLU(), Dropout(0.2), Dense(20, 3)]
        return Network(layers, optimizer=Adam(), dtype=np.float64, seed=0)

    X, y = samples(rng, 60, "softmax_cross_entropy")
    compiled, layers = deep(), deep()
    options = {"batch_size": 16, "sample_weight": rng.random(60), "epochs": 3}
    compiled.fit(X.astype(np.float32), y, **options)
    monkeypatch.setattr(paths, "reason_for_layers", lambda network: "a test")
    layers.fit(X.astype(np.float32), y, **options)
    for a, b in zip(compiled.get_weights(), layers.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("threads", [2, 4])
def test_threads_change_no_bit(rng, threads):
    X, y = rng.random((300, 200)), rng.integers(0, 10, 300)
    weights = rng.random(300)

    def fitted(threads):
        net = Network([Dense(200, 130, l2=0.01), ReLU(), Dense(130, 10)], seed=0)
        history = net.fit(X, y, epochs=2, sample_weight=weights, threads=threads)
        return history.loss, net.get_weights()

    (loss, one), (same, many) = fitted(1), fitted(threads)
    assert loss == same
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_weights_change_nothing_but_rounding(rng, backend):
    X, y = samples(rng, 40, "softmax_cross_entropy")
    weighted, plain = network(backend=backend), network(backend=backend)
    found = weighted.fit(X, y, sample_weight=np.full(40, 0.3), epochs=2, train_accuracy=True)
    expected = plain.fit(X, y, epochs=2, train_accuracy=True)
    np.testing.assert_allclose(found.train_loss, expected.train_loss, rtol=1e-13)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-13)
    close(weighted, plain, 4)


def test_one_network_with_weights_and_without_in_turn(rng):
    X, y = samples(rng, 40, "softmax_cross_entropy")
    weights = rng.random(40)
    turns = [weights, None, weights, None]
    compiled, reference = network(), network(backend="numpy")
    for given in turns:
        compiled.fit(X, y, sample_weight=given)
        reference.fit(X, y, sample_weight=given)
    close(compiled, reference, 8)


class TestClasses:
    Y = np.array([0] * 20 + [1] * 5 + [2] * 15)

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize(
        ("given", "of_classes"),
        [
            ({1: 4.0}, [1, 4, 1]),
            ([0.5, 2, 1], [0.5, 2, 1]),
            ("balanced", [40 / 60, 40 / 15, 40 / 45]),
        ],
    )
    def test_they_are_weights_of_samples(self, rng, backend, given, of_classes):
        X, own = rng.normal(size=(40, 5)), rng.random(40)
        a, b = network(backend=backend), network(backend=backend)
        a.fit(X, self.Y, class_weight=given, sample_weight=own)
        b.fit(X, self.Y, sample_weight=own * np.array(of_classes)[self.Y])
        for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
            np.testing.assert_array_equal(x, y)

    @pytest.mark.parametrize(
        ("wrong", "error", "message"),
        [
            ("equal", ValueError, "class_weight: expected 'balanced' or weights, got 'equal'"),
            ({3: 1.0}, ValueError, "class_weight: expected class ids from 0 to 2, got 3"),
            ({0: -1.0}, ValueError, r"class_weight\[0\]: expected"),
            ({"a": 1.0}, TypeError, "class_weight, a class id: expected"),
            ([1, 2], ValueError, r"class_weight: expected shape \(3,\)"),
            ([1, -2, 1], ValueError, "class_weight: expected finite weights of at least 0"),
        ],
    )
    def test_wrong_ones(self, rng, wrong, error, message):
        with pytest.raises(error, match=message):
            network().fit(rng.normal(size=(40, 5)), self.Y, class_weight=wrong)

    def test_targets_that_are_no_classes(self, rng):
        X, y = samples(rng, 9, "regression")
        with pytest.raises(ValueError, match="class_weight: expected None, as targets are not"):
            network("regression").fit(X, y, class_weight="balanced")


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ([1, 2], ValueError, r"sample_weight: expected shape \(9,\), got \(2,\)"),
        (np.ones((9, 1)), ValueError, r"sample_weight: expected shape \(9,\)"),
        (-np.ones(9), ValueError, "at least 0, got -1.0 at index 0"),
        (np.full(9, np.nan), ValueError, "expected finite weights .* got nan at index 0"),
        (np.zeros(9), ValueError, "expected a finite sum above 0, got 0.0"),
        (np.full(9, 1e308), ValueError, "expected a finite sum above 0, got inf"),
        (["a"] * 9, TypeError, "sample_weight: expected an array of real numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_wrong_weights(rng, wrong, error, message):
    X, y = samples(rng, 9, "mse")
    for method in ("fit", "train_step", "gradients", "evaluate"):
        with pytest.raises(error, match=message):
            getattr(network("mse"), method)(X, y, sample_weight=wrong)


def test_a_loss_of_a_users_own_takes_none(rng):
    X, y = samples(rng, 9, "regression")
    net = network("regression")
    net.use(lambda t, p: ((t - p) ** 2).mean(), lambda t, p: 2 * (p - t) / p.size)
    with pytest.raises(TypeError, match="sample_weight: expected none beside a loss of your own"):
        net.fit(X, y, sample_weight=np.ones(9))


def test_weights_that_validation_keeps_out(rng):
    """Before, it trained on nothing, with losses of 0."""
    X, y, weights = rng.normal(size=(40, 3)), np.arange(40) % 2, np.zeros(40)
    twin = np.random.default_rng(5)
    network = Network([Dense(3, 2, seed=1)], seed=5)
    weights[twin.permutation(40)[:10]] = 1.0
    with pytest.raises(
        ValueError, match="sample_weight: expected a weight above 0 among the train"
    ):
        network.fit(X, y, validation_split=0.25, sample_weight=weights)


def test_weighted_losses_are_plain_numbers(rng):
    X, y, weights = rng.normal(size=(40, 3)), np.arange(40) % 2, np.arange(40)
    network = Network([Dense(3, 2)])
    history = network.fit(X, y, sample_weight=weights, train_accuracy=True)
    assert type(network.evaluate(X, y, sample_weight=weights).loss) is float
    assert {type(value) for column in history.columns.values() for value in column} == {float}


def test_a_running_loss_is_over_the_weights_of_its_own_samples(backend):
    """All samples are one, so any weighted mean is its loss; half of them are kept out."""
    seen = []

    class Noting(progress.Progress):
        def advance(self, samples, averages):
            seen.append(averages["loss"])

    X, y = np.tile([1.0, -2.0, 0.5], (100, 1)), np.zeros((100, 1))
    weights = np.random.default_rng(0).exponential(size=100)
    layers = [Dense(3, 1, 0.0)]
    learner = Network(layers, loss="mse", seed=0, backend=backend, dtype=np.float64)
    expected = learner.evaluate(X[:1], y[:1]).loss
    history = learner.fit(
        X, y, epochs=2, batch_size=4, sample_weight=weights, validation_split=0.5, progress=Noting()
    )
    assert len(seen) > 2  # an epoch begins with a single batch
    np.testing.assert_allclose([*seen, *history.loss], expected, rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_samples_that_are_cast_keep_their_weights(backend, rng):
    """Of a dtype that kernels do not read, batches are cast, many at a time."""
    whole = rng.integers(-9, 9, size=(70, 5))
    weights = rng.exponential(size=70)
    y = rng.integers(0, 3, 70)
    vectors = []
    for X in (whole.astype(np.float64), whole, whole.astype(">f8")):
        learner = network(backend=backend)
        history = learner.fit(X, y, epochs=2, batch_size=8, sample_weight=weights)
        vectors.append((learner._parameters.vector.tobytes(), tuple(history.loss)))
    assert len(set(vectors)) == 1
