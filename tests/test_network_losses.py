"""Networks under each loss: targets, answers, accuracy, files."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
from conftest import perceptron

import fastnn
from fastnn import (
    Adam,
    BatchNorm,
    Dense,
    Dropout,
    Layer,
    Network,
    ReLU,
    Rescaling,
    Sigmoid,
    Tanh,
    grad_softmax_crossentropy_with_logits,
    mse,
    mse_prime,
    one_hot,
    softmax_crossentropy_with_logits,
)

pytestmark = pytest.mark.usefixtures("backend")


def absolute(y_true, y_pred):
    return np.abs(y_pred - y_true).mean()


def absolute_prime(y_true, y_pred):
    return np.sign(y_pred - y_true) / y_pred.size


@pytest.fixture
def blobs(rng):
    """60 samples of 4 numbers in 3 classes that can be told apart."""
    y = rng.integers(0, 3, 60)
    return rng.normal(size=(60, 4)) + 4 * one_hot(y, 4), y


class TestUse:
    def test_names_and_functions_of_fastnn_are_the_same(self, blobs):
        X, y = blobs
        losses = {}
        for use in [
            ("mse",),
            (mse,),
            (mse, mse_prime),
            ("softmax_cross_entropy",),
            (softmax_crossentropy_with_logits,),
            (softmax_crossentropy_with_logits, grad_softmax_crossentropy_with_logits),
        ]:
            network = perceptron(4, 8, 3, seed=1)
            network.use(*use)
            losses.setdefault(network.loss, []).append(network.fit(X, y, epochs=2).loss)
        assert set(losses) == {"mse", "softmax_cross_entropy"}
        for of_name in losses.values():
            assert of_name[0] == of_name[1] == of_name[2]
        assert Network([Dense(4, 3)], loss="mse").loss == "mse"
        assert Network([Dense(4, 3)]).loss == "softmax_cross_entropy"

    def test_the_compiled_epoch_stays_with_cross_entropy(self):
        network = perceptron(4, 3, backend="numba")
        compiled = network.explain()
        assert compiled.startswith("compiled epoch")
        network.use(softmax_crossentropy_with_logits)
        assert network.explain() == compiled
        network.use(absolute, absolute_prime)
        assert network.explain() == "layer path: the loss 'absolute' is known to Python alone"

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            (("hinge",), ValueError, "loss: expected 'softmax_cross_entropy', .* or a function"),
            ((3,), TypeError, "loss: expected a name, a loss or a function, got 3"),
            ((None,), TypeError, "loss: expected a name, a loss or a function, got None"),
            (("mse", mse_prime), TypeError, "loss_prime: expected none beside 'mse'"),
            ((absolute,), TypeError, "loss_prime: expected a function beside a loss of your own"),
            ((absolute, 3), TypeError, "loss_prime: expected a function, got int 3"),
            ((mse, np.ones(3)), TypeError, "loss_prime: expected a function, got ndarray"),
            (
                (softmax_crossentropy_with_logits, absolute_prime),
                ValueError,
                "loss_prime: expected grad_softmax_crossentropy_with_logits",
            ),
        ],
    )
    def test_bad_losses(self, arguments, error, message):
        network = perceptron(4, 3)
        with pytest.raises(error, match=message):
            network.use(*arguments)
        assert network.loss == "softmax_cross_entropy"

    def test_by_the_constructor(self):
        with pytest.raises(ValueError, match="loss: expected"):
            Network(loss="hinge")
        assert "loss='mse'" in repr(Network([Dense(2, 2)], loss="mse"))

    def test_not_while_training(self, blobs):
        network = perceptron(4, 3)
        with pytest.raises(RuntimeError, match="while it is training"):
            network.fit(*blobs, callbacks=[lambda network, _: network.use("mse")])
        network.use("mse")


class TestSquaredError:
    def test_class_ids_stand_for_one_hot_rows(self, blobs, dtype):
        X, y = blobs
        ids, rows = (perceptron(4, 8, 3, seed=1, dtype=dtype) for _ in range(2))
        for network in (ids, rows):
            network.use("mse")
        of_ids = ids.fit(X, y, epochs=3, validation_data=(X, y), train_accuracy=True)
        of_rows = rows.fit(
            X, one_hot(y, 3), epochs=3, validation_data=(X, one_hot(y, 3)), train_accuracy=True
        )
        assert of_ids.loss == of_rows.loss
        assert of_ids.val_loss == of_rows.val_loss == of_rows.train_loss
        assert len(of_ids.accuracy) == len(of_ids.val_accuracy) == len(of_ids.train_accuracy) == 3
        assert of_rows.accuracy == of_rows.val_accuracy == of_rows.train_accuracy == []
        assert len(of_rows) == 3
        assert "accuracy" not in repr(of_rows)
        answers = ids.predict(X)
        assert ids.evaluate(X, y).accuracy == np.mean(answers.argmax(axis=1) == y)
        assert rows.evaluate(X, one_hot(y, 3)).accuracy is None

    def test_loss_is_the_mean_over_all_elements(self, blobs, dtype):
        X, y = blobs
        network = perceptron(4, 8, 3, seed=1, dtype=dtype)
        network.use("mse")
        outputs = network.predict(X)
        assert outputs.shape == (60, 3)
        assert outputs.dtype == dtype
        expected = np.mean((outputs.astype(np.float64) - one_hot(y, 3)) ** 2)
        tolerance = 100 * np.finfo(dtype).eps
        for loss in (network.evaluate(X, y).loss, network.gradients(X, y)[0]):
            np.testing.assert_allclose(loss, expected, rtol=tolerance)
        np.testing.assert_allclose(network.train_step(X, y), expected, rtol=tolerance)

    def test_one_output_takes_a_vector(self, rng):
        X = rng.normal(size=(200, 3))
        y = X @ [1.0, -2.0, 0.5] + 3
        networks = [Network([Dense(3, 1)], loss="mse", seed=0) for _ in range(2)]
        for network, targets in zip(networks, (y, y[:, np.newaxis]), strict=True):
            network.fit(X, targets, epochs=30)
        np.testing.assert_array_equal(networks[0][0].weights, networks[1][0].weights)
        np.testing.assert_allclose(networks[0][0].weights[:, 0], [1, -2, 0.5], atol=1e-3)
        np.testing.assert_allclose(networks[0][0].biases, 3, atol=1e-3)
        assert networks[0].evaluate(X, y).accuracy is None
        assert networks[0].predict(X).shape == (200, 1)
        # whole numbers are values as well where there is one output
        assert networks[0].evaluate(X, np.arange(200)).accuracy is None

    def test_backends_agree(self, blobs, dtype):
        X, y = blobs
        histories = []
        for name in ("numpy", "numba"):
            network = Network(
                [Dense(4, 7), Tanh(), Dense(7, 5), Sigmoid(), Dense(5, 3)],
                loss="mse",
                dtype=dtype,
                seed=2,
                backend=name,
            )
            histories.append(network.fit(X, y, epochs=3, batch_size=7))
        # 27 steps; each adds a few roundings to numbers of order 1
        np.testing.assert_allclose(
            histories[0].loss, histories[1].loss, rtol=27 * 40 * np.finfo(dtype).eps
        )

    @pytest.mark.parametrize(
        ("y", "error", "message"),
        [
            (np.zeros((6, 2)), ValueError, r"y: expected shape \(6, 3\), got \(6, 2\)"),
            (np.zeros((5, 3)), ValueError, r"y: expected shape \(6, 3\), got \(5, 3\)"),
            (np.zeros((6, 3, 1)), ValueError, r"y: expected shape \(6, 3\)"),
            (np.zeros(5, int), ValueError, "y: expected 6 class ids"),
            (np.full(6, 3), ValueError, "y: expected class ids from 0 to 2, got 3"),
            (
                np.full(6, 0.5),
                ValueError,
                r"y: expected whole class ids, got 0.5.*; real targets are",
            ),
            (np.full((6, 3), "a"), TypeError, "y: expected an array of real numbers"),
        ],
    )
    def test_bad_targets(self, y, error, message):
        network = perceptron(4, 3)
        network.use("mse")
        for method in (network.fit, network.evaluate, network.train_step, network.gradients):
            with pytest.raises(error, match=message):
                method(np.zeros((6, 4)), y)

    def test_there_are_no_probabilities(self):
        network = perceptron(4, 3)
        network.use("mse")
        with pytest.raises(TypeError, match=r"predict_proba: expected .* 'softmax_cross_entropy'"):
            network.predict_proba(np.zeros((6, 4)))

    def test_divergence_is_reported(self, rng):
        network = Network([Dense(3, 20, 1e6), Dense(20, 1, 1e6)], loss="mse", seed=0)
        with pytest.warns(RuntimeWarning, match="training has diverged"):
            network.fit(
                rng.normal(size=(64, 3)),
                rng.normal(size=64),
                epochs=1,
                batch_size=1,
                on_divergence="warn",
            )

    def test_a_user_layer_whose_width_only_running_it_tells(self, blobs):
        class Halves(Layer):
            def forward(self, input):
                return input[:, :3]

            def backward(self, input, grad_output):
                return np.pad(grad_output, ((0, 0), (0, input.shape[1] - 3)))

        X, y = blobs
        network = Network([Dense(4, 6), Halves()], loss="mse", seed=0)
        first = network.evaluate(X, y).loss
        network.fit(X, one_hot(y, 3), epochs=5)
        assert network.evaluate(X, y).loss < first
        with pytest.raises(ValueError, match=r"y: expected shape \(60, 3\), got \(60, 6\)"):
            network.fit(X, np.zeros((60, 6)))


class TestOwnPair:
    def test_equals_the_loss_of_the_same_formula(self, blobs, dtype):
        X, y = blobs
        rows = one_hot(y, 3, np.float64)
        own, built_in = (perceptron(4, 8, 3, seed=1, dtype=dtype) for _ in range(2))
        own.use(
            lambda t, p: np.mean((p - t) ** 2),
            lambda t, p: 2 * (p - t) / p.size,
        )
        built_in.use("mse")
        histories = [
            network.fit(X, rows, epochs=2, batch_size=7, validation_data=(X, rows))
            for network in (own, built_in)
        ]
        tolerance = 18 * 40 * np.finfo(dtype).eps
        np.testing.assert_allclose(histories[0].loss, histories[1].loss, rtol=tolerance)
        np.testing.assert_allclose(histories[0].val_loss, histories[1].val_loss, rtol=tolerance)
        assert histories[0].accuracy == []
        assert own.predict(X).shape == (60, 3)

    def test_targets_are_handed_over_as_they_are(self, rng):
        seen = []

        def loss(y_true, y_pred):
            seen.append(y_true)
            return 1.0

        network = Network([Dense(2, 1)])
        network.use(loss, lambda y_true, y_pred: np.zeros(y_pred.shape))
        y = np.array([("a", 1), ("b", 2), ("c", 3)], dtype="U1, i4")
        history = network.fit(rng.normal(size=(3, 2)), y, batch_size=2, shuffle=False)
        assert history.loss == [1.0]
        assert [list(batch["f0"]) for batch in seen] == [["a", "b"], ["c"]]
        assert network.evaluate(rng.normal(size=(3, 2)), y) == (1.0, None)

    def test_accuracy_where_targets_are_class_ids(self, blobs):
        X, y = blobs

        def loss(y_true, y_pred):
            return mse(one_hot(y_true, 3), y_pred)

        def loss_prime(y_true, y_pred):
            return mse_prime(one_hot(y_true, 3), y_pred)

        network = perceptron(4, 8, 3, seed=0)
        network.use(loss, loss_prime)
        history = network.fit(X, y, epochs=20, batch_size=10)
        assert history.accuracy[-1] > 0.9
        assert network.evaluate(X, y).accuracy == np.mean(network.predict(X).argmax(axis=1) == y)
        network.use(absolute, absolute_prime)
        one = Network([Dense(4, 1)])
        one.use(absolute, absolute_prime)
        for other, targets in [
            (network, one_hot(y, 3)),
            (one, y[:, np.newaxis]),
        ]:
            assert other.evaluate(X, targets).accuracy is None
            assert other.fit(X, targets).accuracy == []

    def test_bad_results_are_named(self, blobs):
        X, y = blobs
        rows = one_hot(y, 3)
        network = perceptron(4, 3, seed=0)
        for loss, loss_prime, error, message in [
            (lambda t, p: (p - t) ** 2, mse_prime, ValueError, r"loss: expected .* one number"),
            (lambda t, p: "none", mse_prime, ValueError, r"loss: expected .* one number"),
            (absolute, lambda t, p: 1.0, ValueError, r"loss_prime\(y_true, y_pred\): expected"),
            (absolute, lambda t, p: p * 1j, TypeError, r"loss_prime\(y_true, y_pred\): expected"),
        ]:
            network.use(loss, loss_prime)
            with pytest.raises(error, match=message):
                network.train_step(X, rows)
            assert not network[0].training

    def test_outputs_can_not_be_written_to(self, blobs):
        X, y = blobs

        def in_place(y_true, y_pred):
            y_pred -= y_true
            return y_pred

        network = perceptron(4, 3, seed=0)
        network.use(absolute, in_place)
        with pytest.raises(ValueError, match="read-only"):
            network.train_step(X, one_hot(y, 3))

    def test_rows_are_checked(self):
        network = perceptron(4, 3)
        network.use(absolute, absolute_prime)
        for y in (np.zeros((5, 3)), 1.0):
            with pytest.raises(ValueError, match="y: expected 6 targets, one a row, got shape"):
                network.fit(np.zeros((6, 4)), y)

    def test_can_not_be_saved(self, tmp_path):
        network = perceptron(4, 3)
        network.use(absolute, absolute_prime)
        with pytest.raises(TypeError, match="can't save the loss 'absolute'"):
            network.save(tmp_path / "model")
        # nor by a name that is one of fastnn's own
        absolute_named_mse = copy.copy(network._loss)
        absolute_named_mse.name = "mse"
        network._loss = absolute_named_mse
        with pytest.raises(TypeError, match="can't save the loss 'mse'"):
            network.save(tmp_path / "model")


def everything(rate: float | None = 0.05) -> list[Layer]:
    learning = {} if rate is None else {"learning_rate": rate}
    return [
        Rescaling(0.5),
        Dense(4, 6),
        BatchNorm(6, momentum=0.8, epsilon=1e-3, **learning),
        Tanh(),
        Dropout(0.3),
        Dense(6, 5, l2=0.01),
        ReLU(),
        Dropout(0.1),
        BatchNorm(5),
        Dense(5, 3),
        Sigmoid(),
    ]


class TestFiles:
    @pytest.mark.parametrize("optimizer", [None, Adam(0.01)], ids=repr)
    def test_round_trip_goes_on_with_the_same_bits(self, tmp_path, blobs, dtype, optimizer):
        X, y = blobs
        layers = everything(0.05 if optimizer is None else None)
        network = Network(layers, loss="mse", seed=1, dtype=dtype, optimizer=optimizer)
        network.fit(X, y, epochs=2, batch_size=7)
        network.save(tmp_path / "model")
        loaded = fastnn.load(tmp_path / "model")
        assert repr(loaded) == repr(network)
        assert loaded.loss == "mse"
        np.testing.assert_array_equal(loaded.predict(X), network.predict(X))
        for a, b in zip(network, loaded, strict=True):
            if isinstance(a, BatchNorm):
                assert (a.momentum, a.epsilon) == (b.momentum, b.epsilon)
            if isinstance(a, Dropout):
                assert (a.p, a.key, a.step) == (b.p, b.key, b.step)
        assert network.fit(X, y, epochs=2).loss == loaded.fit(X, y, epochs=2).loss
        np.testing.assert_array_equal(network._parameters.vector, loaded._parameters.vector)

    def test_copies_go_on_with_the_same_bits(self, blobs):
        X, y = blobs
        network = Network(everything(), loss="mse", seed=1)
        network.fit(X, y)
        twin = copy.deepcopy(network)
        assert twin.fit(X, y).loss == network.fit(X, y).loss
        np.testing.assert_array_equal(network._parameters.vector, twin._parameters.vector)

    def test_a_file_of_before_there_were_losses(self, tmp_path):
        from safetensors import safe_open
        from safetensors.numpy import save_file

        path = tmp_path / "model"
        perceptron(4, 3).save(path)
        with safe_open(path, framework="numpy") as file:
            header = {name: text for name, text in file.metadata().items() if name != "loss"}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        save_file(tensors, path, header)
        assert fastnn.load(path).loss == "softmax_cross_entropy"

    @pytest.mark.parametrize(
        ("entry", "value"),
        [
            ("loss", "hinge"),
            ("layers", '[{"type": "Dropout", "p": 0.5}]'),
            ("layers", '[{"type": "Dropout", "p": 1.5, "key": 1, "step": 0}]'),
            ("layers", '[{"type": "Dropout", "p": 0.5, "key": -1, "step": 0}]'),
            ("layers", f'[{{"type": "Dropout", "p": 0.5, "key": {2**64}, "step": 0}}]'),
            ("layers", f'[{{"type": "Dropout", "p": 0.5, "key": 1, "step": {2**63}}}]'),
            ("layers", '[{"type": "BatchNorm", "units": 3}]'),
        ],
    )
    def test_a_damaged_header(self, tmp_path, entry, value):
        from safetensors import safe_open
        from safetensors.numpy import save_file

        path = tmp_path / "model"
        Network([Dropout(0.5)]).save(path)
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() | {entry: value}
        save_file({}, path, header)
        with pytest.raises(ValueError, match="expected a model saved by fastnn"):
            fastnn.load(path)


def test_training_mode_ends_with_an_exception(blobs):
    X, y = blobs

    class Broken(Layer):
        def backward(self, input, grad_output):
            raise ArithmeticError

    network = Network([Dense(4, 6), BatchNorm(6), Dropout(0.2), Broken(), Dense(6, 3)])
    for method in (network.train_step, network.gradients, network.fit):
        with pytest.raises(ArithmeticError):
            method(X, y)
        assert not any(layer.training for layer in network)
    network[1].training = True
    network.forward(X)
    assert [layer.training for layer in network] == [False, True, False, False, False]


def test_learning_curves_without_accuracy(blobs, tmp_path):
    X, y = blobs
    network = perceptron(4, 3)
    network.use("mse")
    sizes = []
    for targets in (one_hot(y, 3), y):
        history = network.fit(X, targets, epochs=2, validation_data=(X, targets))
        history.plot(tmp_path / "curves.svg")
        sizes.append((tmp_path / "curves.svg").read_text().count('id="axes_'))
    assert sizes == [1, 2]


def test_losses_are_added_up_in_float64(backend):
    """One of 1e8 hides none of those beside it: a sum in float32 would lose some of the ones."""
    network = fastnn.Network([fastnn.Rescaling(1.0)], loss="mse", backend=backend)
    X = np.ones((128, 1), np.float32)
    X[5] = 1e4
    y = np.zeros((128, 1), np.float32)
    assert network.evaluate(X, y).loss == (1e8 + 127) / 128
    assert network.train_step(X, y) == (1e8 + 127) / 128


def test_learning_curves_without_matplotlib(blobs, monkeypatch):
    history = perceptron(4, 3).fit(*blobs)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.ticker", None)
    with pytest.raises(ImportError, match="drawing needs matplotlib: pip install matplotlib"):
        history.plot()
