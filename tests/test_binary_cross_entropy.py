"""Binary cross-entropy: its values at any logit, and networks under it, on both paths."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import bits, perceptron

import fastnn
from fastnn import (
    SGD,
    Adam,
    Dense,
    Network,
    ReLU,
    Rescaling,
    Sigmoid,
    binary_crossentropy_with_logits,
    eval_numerical_gradient,
    grad_binary_crossentropy_with_logits,
    page,
    paths,
    prediction,
)
from fastnn.backends import numpy_backend as reference

INF, NAN = np.inf, np.nan


def exact(z, t):
    """Loss and derivative of each element in longdouble, by other formulas than the backends'."""
    z, t = np.asarray(z, np.longdouble), np.asarray(t, np.longdouble)
    return t * np.logaddexp(0, -z) + (1 - t) * np.logaddexp(0, z), 1 / (1 + np.exp(-z)) - t


def samples(rng, n=120, inputs=5, outputs=3):
    X = rng.normal(size=(n, inputs))
    return X, (X @ rng.normal(size=(inputs, outputs)) > 0).astype(int)


def network(outputs=3, **options) -> Network:
    layers = [Dense(5, 7, l2=0.01), ReLU(), Dense(7, outputs)]
    options = {"optimizer": SGD(0.3 / outputs), **options}  # as the loss is a sum over them
    return Network(layers, loss="binary_cross_entropy", seed=2, **options)


@pytest.mark.every_width
class TestFunctions:
    @pytest.mark.parametrize("shape", [(1, 1), (7, 3), (16, 16), (33, 17), (5, 130)], ids=str)
    def test_values(self, backend, rng, shape, dtype):
        logits = (20 * rng.normal(size=shape)).astype(dtype)
        for targets in (rng.integers(0, 2, shape), rng.random(shape).astype(dtype)):
            values, derivatives = exact(logits, targets)
            loss = binary_crossentropy_with_logits(logits, targets)
            gradient = grad_binary_crossentropy_with_logits(logits, targets)
            assert loss.dtype == gradient.dtype == dtype
            # no summand is negative, so no error is larger than that of so many roundings
            rounding = (shape[1] + 8) * np.finfo(dtype).eps
            np.testing.assert_allclose(loss, values.sum(axis=1), rtol=rounding)
            np.testing.assert_allclose(
                gradient * len(logits), derivatives, rtol=0, atol=8 * np.finfo(dtype).eps
            )

    def test_small_losses_and_derivatives_are_as_exact_as_large_ones(self, backend, dtype):
        """Of logits that are right, where σ(z) - 1 would be all rounding."""
        z = np.linspace(0, 80, 81, dtype=dtype)[:, np.newaxis]
        for sign, target in ((1, np.ones((81, 1))), (-1, np.zeros((81, 1)))):
            loss = binary_crossentropy_with_logits(sign * z, target)
            power = np.exp(-np.longdouble(z))
            eps = 10 * np.finfo(dtype).eps
            np.testing.assert_allclose(loss, np.log1p(power)[:, 0], rtol=eps)
            gradient = grad_binary_crossentropy_with_logits(sign * z, target) * len(z)
            np.testing.assert_allclose(gradient, -sign * power / (1 + power), rtol=eps)

    @pytest.mark.parametrize("size", [1e4, 1e30, INF])
    def test_extreme_logits(self, backend, dtype, size):
        z = np.array([[size], [-size], [size], [-size]], dtype)
        t = [1, 0, 0, 1]
        size = float(z[0, 0])
        np.testing.assert_array_equal(
            binary_crossentropy_with_logits(z, t), np.array([0, 0, size, size], dtype)
        )
        np.testing.assert_array_equal(
            4 * grad_binary_crossentropy_with_logits(z, t), [[0], [0], [1], [-1]]
        )
        half = binary_crossentropy_with_logits(z, np.full(4, 0.5))
        np.testing.assert_allclose(half, size / 2, rtol=np.finfo(dtype).eps)

    def test_nan_is_not_hidden(self, backend, dtype):
        for column in range(3):
            for target in (0, 1, 0.5):
                z = np.zeros((2, 3), dtype)
                z[1, column] = NAN
                t = np.full((2, 3), target)
                assert list(np.isnan(binary_crossentropy_with_logits(z, t))) == [False, True]
                found = np.isnan(grad_binary_crossentropy_with_logits(z, t))
                assert found.sum() == found[1, column] == 1

    @pytest.mark.once  # float64 alone
    def test_gradient_by_finite_differences(self, backend, rng):
        logits, targets = rng.normal(size=(2, 12, 7))
        targets = 1 / (1 + np.exp(-targets))
        numeric = eval_numerical_gradient(
            lambda z: binary_crossentropy_with_logits(z, targets).mean(), logits
        )
        gradient = grad_binary_crossentropy_with_logits(logits, targets)
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-10)

    def test_any_layout(self, numba_backend, rng, arrange, dtype):
        z, t = rng.normal(size=(2, 19, 23)).astype(dtype)
        t = (t > 0).astype(dtype)
        for name in ("binary_cross_entropy", "binary_cross_entropy_gradient"):
            operation = getattr(numba_backend, name)
            expected = operation(z, t)
            np.testing.assert_array_equal(operation(arrange(z), t), expected)
            np.testing.assert_array_equal(operation(z, arrange(t)), expected)
            with pytest.raises(ValueError, match="fit together"):
                operation(z, t[:, 1:])
            eps = 30 * np.finfo(dtype).eps
            np.testing.assert_allclose(getattr(reference, name)(z, t), expected, rtol=eps, atol=eps)

    def test_of_one_output_a_vector_will_do(self, backend):
        z = np.array([[0.0], [2.0], [-1.0]])
        for function in (binary_crossentropy_with_logits, grad_binary_crossentropy_with_logits):
            expected = function(z, [[1], [0], [1]])
            np.testing.assert_array_equal(function(z, [1, 0, 1]), expected)
            np.testing.assert_array_equal(function(z, [True, False, True]), expected)

    def test_against_pytorch(self, backend, rng, dtype):
        torch = pytest.importorskip("torch")
        z = (5 * rng.normal(size=(9, 4))).astype(dtype)
        t = rng.random((9, 4)).astype(dtype)
        logits = torch.tensor(z, requires_grad=True)
        loss = torch.nn.BCEWithLogitsLoss(reduction="sum")(logits, torch.tensor(t)) / len(z)
        loss.backward()
        eps = 20 * np.finfo(dtype).eps
        found = binary_crossentropy_with_logits(z, t).mean()
        np.testing.assert_allclose(found, loss.item(), rtol=eps)
        found = grad_binary_crossentropy_with_logits(z, t)
        np.testing.assert_allclose(found, logits.grad.numpy(), rtol=eps, atol=eps)


class TestNetworks:
    @pytest.mark.parametrize("outputs", [1, 3, 17])
    @pytest.mark.parametrize("batch", [1, 7, 32, 200])
    def test_the_compiled_epoch_and_the_layer_path_agree(
        self, rng, monkeypatch, dtype, batch, outputs
    ):
        X, y = samples(rng, outputs=outputs)
        compiled, layers = network(outputs, dtype=dtype), network(outputs, dtype=dtype)
        plain = network(outputs, dtype=dtype, backend="numpy")
        assert compiled.explain().startswith("compiled epoch")
        options = {"batch_size": batch, "epochs": 2}
        found = compiled.fit(X, y, **options)
        expected = plain.fit(X, y, **options)
        monkeypatch.setattr(paths, "reason_for_layers", lambda network: "a test")
        by_layers = layers.fit(X, y, **options)
        # sums of at most 40 terms, in steps that build on one another
        bound = 40 * 2 * -(-120 // batch) * np.finfo(dtype).eps
        for other, history in ((plain, expected), (layers, by_layers)):
            np.testing.assert_allclose(found.loss, history.loss, rtol=bound)
            assert found.accuracy == history.accuracy
            for a, b in zip(compiled.get_weights(), other.get_weights(), strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=bound * max(1, np.abs(b).max()))

    @pytest.mark.parametrize("weighted", [False, True])
    def test_threads_change_no_bit(self, rng, weighted):
        X, y = samples(rng, 300, 200, 10)
        weights = rng.random(300) if weighted else None
        results = []
        for threads in (1, 2, 4):
            net = perceptron(200, 130, 10, seed=0, loss="binary_cross_entropy")
            history = net.fit(X, y, epochs=2, sample_weight=weights, threads=threads)
            results.append((history.loss, history.accuracy, bits(net)))
        assert results[0] == results[1] == results[2]

    def test_answers_and_accuracy(self, backend, rng):
        X, y = samples(rng)
        net = network()
        history = net.fit(X, y, epochs=30, batch_size=10, validation_data=(X, y))
        answers, probabilities = net.predict(X), net.predict_proba(X)
        assert answers.dtype == np.int64
        np.testing.assert_array_equal(answers, net(X) > 0)
        np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-net(X))), rtol=1e-6)
        # a sample is right if all of its answers are
        right = (answers == y).all(axis=1).mean()
        assert net.evaluate(X, y).accuracy == history.val_accuracy[-1] == right
        assert 0.8 < right < (answers == y).mean()
        assert history.loss[-1] < 0.5 * history.loss[0]

    def test_accuracy_is_that_of_scikit_learn(self, rng):
        metrics = pytest.importorskip("sklearn.metrics")
        X, y = samples(rng)
        net = network(dtype=np.float64)
        assert net.evaluate(X, y).accuracy == metrics.accuracy_score(y, net.predict(X))
        penalty = 0.01 * np.square(net[0].weights).sum()
        each = [metrics.log_loss(y[:, k], net.predict_proba(X)[:, k]) for k in range(3)]
        np.testing.assert_allclose(net.evaluate(X, y).loss, sum(each) + penalty, rtol=1e-12)

    def test_one_output(self, backend, rng):
        X, y = samples(rng, outputs=1)
        vector, column = network(1), network(1)
        assert vector.fit(X, y[:, 0], epochs=20).loss == column.fit(X, y, epochs=20).loss
        assert vector.predict(X).shape == (120,)
        assert vector.predict_proba(X).shape == (120, 1)
        assert vector.evaluate(X, y).accuracy == np.mean(vector.predict(X) == y[:, 0]) > 0.9

    def test_an_answer_in_doubt_is_no(self, backend):
        net = Network([Rescaling(1.0)], loss="binary_cross_entropy")
        z = np.array([[0.0], [1e-30], [-1e-30], [NAN]])
        with pytest.warns(RuntimeWarning, match="NaN or infinity in row 3"):
            np.testing.assert_array_equal(net.predict(z), [0, 1, 0, 0])
        # of NaN, neither answer is right
        for answer, right in ((0, 2), (1, 1)):
            with pytest.warns(RuntimeWarning, match="NaN or infinity in row 3"):
                assert net.evaluate(z, np.full(4, answer)).accuracy == right / 4

    @pytest.mark.parametrize("answer", [0, 1])
    def test_nan_is_never_right_in_training(self, backend, answer):
        net = Network([Dense(1, 1, 0.0)], loss="binary_cross_entropy")
        net[0].weights[...], net[0].biases[...] = 1, 0
        X = np.array([[0.0], [2.0], [NAN], [-2.0]])
        with pytest.warns(RuntimeWarning, match="the loss of epoch 1 is nan"):
            history = net.fit(X, np.full(4, answer), on_divergence="warn")
        assert history.accuracy == [[0.5], [0.25]][answer]

    def test_probabilities_as_targets(self, backend, rng):
        X, y = samples(rng)
        soft = np.where(y, 0.9, 0.2)
        net = network(dtype=np.float64)
        history = net.fit(X, soft, epochs=60, batch_size=10)
        assert history.accuracy == []
        assert net.evaluate(X, soft).accuracy is None
        assert net.evaluate(X, y).accuracy > 0.8
        # not below the entropy of the targets
        entropy = binary_crossentropy_with_logits(np.log(soft / (1 - soft)), soft).mean()
        assert entropy < history.loss[-1] < history.loss[0]

    def test_class_weights_of_one_output(self, backend, rng):
        X, y = samples(rng, outputs=1)
        shares = np.bincount(y[:, 0])
        for given, of_classes in (
            ("balanced", len(y) / (2 * shares)),
            ({1: 3.0}, [1.0, 3.0]),
            ([0.5, 2.0], [0.5, 2.0]),
        ):
            a, b = network(1), network(1)
            a.fit(X, y, class_weight=given)
            b.fit(X, y, sample_weight=np.array(of_classes)[y[:, 0]])
            for one, other in zip(a.get_weights(), b.get_weights(), strict=True):
                np.testing.assert_array_equal(one, other)
        with pytest.raises(ValueError, match="class_weight: expected class ids from 0 to 1, got 2"):
            network(1).fit(X, y, class_weight={2: 1.0})

    @pytest.mark.parametrize(("outputs", "factor"), [(3, 1), (1, 0.5)])
    def test_class_weights_need_class_ids(self, rng, outputs, factor):
        X, y = samples(rng, outputs=outputs)
        with pytest.raises(ValueError, match="class_weight: expected None, as targets are not"):
            network(outputs).fit(X, factor * y, class_weight="balanced")

    @pytest.mark.parametrize(
        ("y", "error", "message"),
        [
            (np.zeros((6, 2)), ValueError, r"y: expected shape \(6, 3\), got \(6, 2\)"),
            (np.zeros(6), ValueError, r"y: expected shape \(6, 3\), got \(6,\)"),
            (np.zeros((5, 3)), ValueError, r"y: expected shape \(6, 3\), got \(5, 3\)"),
            (np.eye(6, 3) * 2, ValueError, r"y: expected numbers from 0 to 1, got 2.0 at .*0, 0"),
            (-np.eye(6, 3, 1), ValueError, r"y: expected numbers from 0 to 1, got -1.0 at .*0, 1"),
            (np.full((6, 3), NAN), ValueError, r"y: expected numbers from 0 to 1, got nan at"),
            (np.full((6, 3), "a"), TypeError, "y: expected an array of real numbers"),
        ],
    )
    def test_bad_targets(self, backend, y, error, message):
        net = perceptron(4, 3, loss="binary_cross_entropy")
        for method in (net.fit, net.evaluate, net.train_step, net.gradients):
            with pytest.raises(error, match=message):
                method(np.zeros((6, 4)), y)
        for function in (binary_crossentropy_with_logits, grad_binary_crossentropy_with_logits):
            with pytest.raises(error, match=message.replace("y:", "reference_answers:")):
                function(np.zeros((6, 3)), y)

    def test_files(self, backend, rng, tmp_path):
        X, y = samples(rng)
        net = network(optimizer=Adam(0.01))
        net.fit(X, y)
        net.save(tmp_path / "model")
        loaded = fastnn.load(tmp_path / "model")
        assert loaded.loss == "binary_cross_entropy"
        np.testing.assert_array_equal(loaded.predict_proba(X), net.predict_proba(X))
        assert loaded.fit(X, y).loss == net.fit(X, y).loss

    def test_resumed_in_mid_epoch(self, backend, rng, tmp_path):
        X, y = samples(rng)
        file = tmp_path / "training"
        stopped, whole = network(optimizer=Adam(0.01)), network(optimizer=Adam(0.01))
        expected = whole.fit(X, y, epochs=3, batch_size=10)

        def stop(network, history):
            if len(history) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            stopped.fit(
                X, y, epochs=3, batch_size=10, callbacks=[stop], checkpoint=file, checkpoint_every=5
            )
        resumed = fastnn.resume(file, X, y, callbacks=[lambda *_: False])
        assert resumed.history.loss == expected.loss
        assert resumed.history.accuracy == expected.accuracy
        for a, b in zip(resumed.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_a_sigmoid_before_that_of_the_loss_is_refused(self, backend, rng):
        X, y = samples(rng, outputs=1)
        net = Network([Dense(5, 1), Sigmoid()], loss="binary_crossentropy")
        for method in (net.fit, net.evaluate, net.train_step, net.gradients):
            with pytest.raises(ValueError, match=r"gives logits; leave out Sigmoid\(\)"):
                method(X, y)
        net.use("mse")
        net.fit(X, y)

    def test_names(self):
        for loss in ("binary_cross_entropy", "binary_crossentropy", "BCEWithLogitsLoss"):
            assert Network([Dense(2, 1)], loss=loss).loss == "binary_cross_entropy"
        net = Network([Dense(2, 1)])
        net.use(binary_crossentropy_with_logits, grad_binary_crossentropy_with_logits)
        assert net.loss == "binary_cross_entropy"
        with pytest.raises(ValueError, match="expected grad_binary_crossentropy_with_logits besi"):
            net.use(binary_crossentropy_with_logits, fastnn.grad_softmax_crossentropy_with_logits)

    def test_what_is_drawn_is_of_classes(self, tmp_path):
        net = perceptron(784, 10, loss="binary_cross_entropy")
        with pytest.raises(TypeError, match="expected a network with the loss 'softmax_cross_ent"):
            page.write(net, tmp_path / "page.html")

    def test_table(self):
        net = perceptron(2, 2, loss="binary_cross_entropy")
        net.set_weights([np.eye(2), np.zeros(2)])
        logits = np.log([[9, 1 / 4], [4, 7 / 3], [1 / 9, 3 / 7]])
        text = prediction.Answers.of_network(net, logits, ["a", "b", "c"]).as_text()
        assert text.splitlines() == [
            "   answer       0       1",
            "a       0  0.9000  0.2000",
            "b     0,1  0.8000  0.7000",
            "c       -  0.1000  0.3000",
        ]
