"""Label smoothing of both cross-entropies: values, both paths, files."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import bits, perceptron

import fastnn
from fastnn import (
    BinaryCrossEntropy,
    Dense,
    MeanSquaredError,
    Network,
    ReLU,
    SoftmaxCrossEntropy,
    binary_crossentropy_with_logits,
    eval_numerical_gradient,
    grad_binary_crossentropy_with_logits,
    paths,
)
from fastnn.backends import load

INF, NAN = np.inf, np.nan


def exact(logits, labels, smoothing):
    """Losses and (p - t) in longdouble, from the definition."""
    z = logits.astype(np.longdouble)
    logs = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    classes = z.shape[1]
    targets = np.full(z.shape, np.longdouble(smoothing) / classes)
    targets[np.arange(len(z)), labels] += 1 - np.longdouble(smoothing)
    return -(targets * logs).sum(axis=1), np.exp(logs) - targets


@pytest.mark.every_width
class TestFunctions:
    @pytest.mark.parametrize("shape", [(1, 1), (7, 3), (16, 16), (33, 17), (5, 130)], ids=str)
    @pytest.mark.parametrize("smoothing", [0.1, 0.75])
    def test_values(self, backend, rng, shape, smoothing, dtype):
        logits = (5 * rng.normal(size=shape)).astype(dtype)
        labels = rng.integers(0, shape[1], shape[0])
        losses, differences = exact(logits, labels, smoothing)
        operations, eps = load(backend), np.finfo(dtype).eps
        found = operations.smoothed_cross_entropy(logits, labels, smoothing)
        assert found.dtype == dtype
        # as of the loss without smoothing, see test_backends.py
        relative = (shape[1] + 2 * np.ptp(logits) + 8) * eps
        np.testing.assert_allclose(found, losses, rtol=relative, atol=relative)
        found = operations.smoothed_cross_entropy_gradient(logits, labels, smoothing)
        np.testing.assert_allclose(found * shape[0], differences, rtol=0, atol=relative)

    def test_large_and_infinite_logits(self, backend, dtype):
        operations = load(backend)
        for size in (1e4, 1e30, INF):
            z = np.array([[0, 0, -size, -size]], dtype)
            for label, expected in ((0, 0.05 * size + np.log(2)), (3, 0.95 * size + np.log(2))):
                found = operations.smoothed_cross_entropy(z, np.array([label]), 0.1)
                np.testing.assert_allclose(found, expected, rtol=1e-6)
                found = operations.smoothed_cross_entropy_gradient(z, np.array([label]), 0.1)
                target = np.full(4, 0.025)
                target[label] = 0.925
                np.testing.assert_allclose(found[0], [0.5, 0.5, 0, 0] - target, atol=1e-6)

    def test_nan_is_not_hidden(self, backend, dtype):
        for column in range(3):
            z = np.zeros((2, 3), dtype)
            z[1, column] = NAN
            labels = np.array([1, 1])
            found = load(backend).smoothed_cross_entropy(z, labels, 0.1)
            assert list(np.isnan(found)) == [False, True]
            found = load(backend).smoothed_cross_entropy_gradient(z, labels, 0.1)
            np.testing.assert_array_equal(np.isnan(found), [[False] * 3, [True] * 3])

    def test_any_layout(self, numba_backend, rng, arrange, dtype):
        z, labels = rng.normal(size=(19, 23)).astype(dtype), rng.integers(0, 23, (19, 1))
        for name in ("smoothed_cross_entropy", "smoothed_cross_entropy_gradient"):
            operation = getattr(numba_backend, name)
            expected = operation(z, labels[:, 0].copy(), 0.2)
            np.testing.assert_array_equal(
                operation(arrange(z), arrange(labels)[:, 0], 0.2), expected
            )
            for wrong in (labels[1:, 0], labels[:, 0] + 23):
                with pytest.raises(ValueError, match="fit together"):
                    operation(z, wrong.copy(), 0.2)

    @pytest.mark.once  # float64 alone
    def test_gradient_by_finite_differences(self, backend, rng):
        logits, labels = rng.normal(size=(12, 7)), rng.integers(0, 7, 12)
        operations = load(backend)
        numeric = eval_numerical_gradient(
            lambda z: operations.smoothed_cross_entropy(z, labels, 0.3).mean(), logits
        )
        gradient = operations.smoothed_cross_entropy_gradient(logits, labels, 0.3)
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-10)

    def test_against_pytorch(self, backend, rng, dtype):
        torch = pytest.importorskip("torch")
        z, labels = (5 * rng.normal(size=(9, 4))).astype(dtype), rng.integers(0, 4, 9)
        logits = torch.tensor(z, requires_grad=True)
        loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(logits, torch.tensor(labels))
        loss.backward()
        eps, operations = 40 * np.finfo(dtype).eps, load(backend)
        found = operations.smoothed_cross_entropy(z, labels, 0.1).mean()
        np.testing.assert_allclose(found, loss.item(), rtol=eps)
        found = operations.smoothed_cross_entropy_gradient(z, labels, 0.1)
        np.testing.assert_allclose(found, logits.grad.numpy(), rtol=eps, atol=eps)


LOSSES = {
    "softmax": (SoftmaxCrossEntropy, lambda rng: rng.integers(0, 3, 83)),
    "binary": (BinaryCrossEntropy, lambda rng: rng.integers(0, 2, (83, 3))),
    "binary, probabilities": (BinaryCrossEntropy, lambda rng: rng.random((83, 3))),
}


def network(loss, **options) -> Network:
    layers = [Dense(5, 7, 0.1, l2=0.01), ReLU(), Dense(7, 3, 0.1)]
    return Network(layers, loss=loss, seed=2, **options)


class TestNetworks:
    @pytest.mark.parametrize("kind", LOSSES)
    @pytest.mark.parametrize("batch", [1, 7, 32, 100])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_the_paths_agree(self, rng, monkeypatch, dtype, kind, batch, weighted):
        loss, targets = LOSSES[kind]
        X, y = rng.normal(size=(83, 5)), targets(rng)
        options = {"batch_size": batch, "epochs": 2}
        if weighted:  # about half are 0, so are whole batches of 1
            options["sample_weight"] = rng.random(83) * rng.integers(0, 2, 83)
        nets = [network(loss(0.2), dtype=dtype, backend=name) for name in ("numba", "numpy")]
        nets.append(network(loss(0.2), dtype=dtype))
        assert nets[0].explain().startswith("compiled epoch")
        histories = [net.fit(X, y, **options) for net in nets[:2]]
        monkeypatch.setattr(paths, "reason_for_layers", lambda network: "a test")
        histories.append(nets[2].fit(X, y, **options))
        # sums of at most 40 terms, in steps that build on one another
        bound = 40 * 2 * -(-83 // batch) * np.finfo(dtype).eps
        for net, history in zip(nets[1:], histories[1:], strict=True):
            np.testing.assert_allclose(histories[0].loss, history.loss, rtol=bound)
            assert histories[0].accuracy == history.accuracy
            for a, b in zip(nets[0].get_weights(), net.get_weights(), strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=bound * max(1, np.abs(b).max()))

    @pytest.mark.parametrize("kind", ["softmax", "binary"])
    def test_threads_change_no_bit(self, rng, kind):
        loss, _ = LOSSES[kind]
        X, y = rng.random((300, 200)), rng.integers(0, 10, 300)
        if kind == "binary":
            y = fastnn.one_hot(y, 10)
        results = []
        for threads in (1, 2, 4):
            net = perceptron(200, 130, 10, seed=0, loss=loss(0.1))
            history = net.fit(X, y, epochs=2, threads=threads)
            results.append((history.loss, bits(net)))
        assert results[0] == results[1] == results[2]

    @pytest.mark.parametrize("kind", ["softmax", "binary"])
    def test_none_is_the_loss_by_name(self, backend, rng, kind):
        loss, targets = LOSSES[kind]
        X, y = rng.normal(size=(83, 5)), targets(rng)
        by_name, none = network(loss.name), network(loss(label_smoothing=0.0))
        assert repr(none) == repr(by_name)
        assert none._loss.operations == by_name._loss.operations
        assert none.fit(X, y, epochs=2).loss == by_name.fit(X, y, epochs=2).loss
        for a, b in zip(none.get_weights(), by_name.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("kind", ["softmax", "binary"])
    def test_one_smoothing_after_another(self, rng, kind):
        """A compiled program that is kept from the last fit is of the smoothing of that fit."""
        loss, targets = LOSSES[kind]
        X, y = rng.normal(size=(83, 5)), targets(rng)
        compiled, layers = network(loss(0.3)), network(loss(0.3), backend="numpy")
        for smoothing in (0.3, 0.0, 0.1):
            found, expected = [], []
            for net, history in ((compiled, found), (layers, expected)):
                net.use(loss(smoothing))
                history += net.fit(X, y).loss
            np.testing.assert_allclose(found, expected, rtol=1e-5)

    def test_binary_targets_are_mixed_with_a_half(self, backend, rng):
        X, y = rng.normal(size=(83, 5)), rng.integers(0, 2, (83, 3))
        net = network(BinaryCrossEntropy(0.2), dtype=np.float64)
        logits, soft = net(X), 0.8 * y + 0.1
        penalty = 0.01 * np.square(net[0].weights).sum()
        expected = binary_crossentropy_with_logits(logits, soft).mean() + penalty
        np.testing.assert_allclose(net.evaluate(X, y).loss, expected, rtol=1e-13)
        assert net.evaluate(X, y).accuracy == ((logits > 0) == y).all(axis=1).mean()
        _, gradients = net.gradients(X, y)
        expected = grad_binary_crossentropy_with_logits(logits, soft).sum(axis=0)
        np.testing.assert_allclose(gradients[-1]["biases"], expected, rtol=1e-12, atol=1e-15)

    def test_nan_in_training(self, backend):
        net = Network([Dense(1, 2)], loss=SoftmaxCrossEntropy(0.1))
        with pytest.warns(RuntimeWarning, match="the loss of epoch 1 is nan"):
            history = net.fit([[1.0], [NAN]], [0, 0], on_divergence="warn")
        assert history.accuracy[0] <= 0.5
        assert np.isnan(net[0].weights).all()

    @pytest.mark.parametrize("kind", ["softmax", "binary"])
    def test_files(self, backend, rng, tmp_path, kind):
        loss, targets = LOSSES[kind]
        X, y = rng.normal(size=(83, 5)), targets(rng)
        net = network(loss(0.25))
        net.fit(X, y)
        net.save(tmp_path / "model")
        loaded = fastnn.load(tmp_path / "model")
        assert repr(loaded) == repr(net)
        assert f"loss={loss.__name__}(label_smoothing=0.25)" in repr(net)
        assert loaded.loss == loss.name
        assert loaded.fit(X, y).loss == net.fit(X, y).loss

    def test_checkpoints(self, backend, rng, tmp_path):
        X, y = rng.normal(size=(83, 5)), rng.integers(0, 3, 83)
        file, whole = tmp_path / "training", network(SoftmaxCrossEntropy(0.25))
        expected = whole.fit(X, y, epochs=3).loss
        network(SoftmaxCrossEntropy(0.25)).fit(X, y, epochs=2, checkpoint=file)
        for loss, got in (
            (SoftmaxCrossEntropy(), "got softmax_cross_entropy"),
            (SoftmaxCrossEntropy(0.5), "got 0.5"),
        ):
            with pytest.raises(ValueError, match=r"network\.loss.*: expected .*0\.25.*" + got):
                network(loss).fit(X, y, epochs=3, resume=file)
        resumed = fastnn.resume(file, X, y, epochs=3)
        assert resumed.history.loss == expected
        assert repr(resumed._loss) == repr(whole._loss)

    @pytest.mark.parametrize(
        "entry",
        [
            '{"name": "softmax_cross_entropy", "label_smoothing": 1.5}',
            '{"name": "softmax_cross_entropy", "smoothing": 0.5}',
            '{"name": "mse", "label_smoothing": 0.5}',
            '{"label_smoothing": 0.5}',
        ],
    )
    def test_damaged_files(self, tmp_path, entry):
        from safetensors import safe_open
        from safetensors.numpy import save_file

        path = tmp_path / "model"
        Network([ReLU()]).save(path)
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() | {"loss": entry}
        save_file({}, path, header)
        with pytest.raises(ValueError, match="expected a model saved by fastnn"):
            fastnn.load(path)


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy, BinaryCrossEntropy])
def test_bad_arguments(loss):
    for wrong in (-0.1, 1.0, 2, NAN, INF):
        with pytest.raises(
            ValueError, match="label_smoothing: expected a finite number of at least 0"
        ):
            loss(label_smoothing=wrong)
    for wrong in ("0.1", None, [0.1, 0.2]):
        with pytest.raises(TypeError, match="label_smoothing: expected a finite number"):
            loss(label_smoothing=wrong)
    with pytest.raises(AttributeError):
        loss().label_smoothing = 0.1


def test_losses_as_arguments():
    assert Network([Dense(2, 2)], loss=MeanSquaredError()).loss == "mse"
    net = Network([Dense(2, 2)])
    with pytest.raises(TypeError, match=r"write SoftmaxCrossEntropy\(...\), with parentheses"):
        net.use(SoftmaxCrossEntropy)
    with pytest.raises(TypeError, match="loss_prime: expected none beside 'mse'"):
        net.use(MeanSquaredError(), fastnn.mse_prime)
    net.use(SoftmaxCrossEntropy(0.1))
    assert net.loss == "softmax_cross_entropy"
