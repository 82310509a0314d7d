"""Clipping by the norm of all gradients: both backends, both paths, threads, files."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from conftest import bits, in_pairs, perceptron

import fastnn
from fastnn import (
    SGD,
    Adam,
    AdamW,
    BatchNorm,
    Dense,
    Dropout,
    Layer,
    Network,
    ReLU,
    Rescaling,
    RMSprop,
    Tanh,
    paths,
)
from fastnn.backends import load

INF, NAN = np.inf, np.nan


def samples(rng, n=83, units=5, classes=3):
    return rng.normal(size=(n, units)), rng.integers(0, classes, n)


def flat(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


def parameters(network):
    return [array.copy() for layer in network for array in layer.parameters.values()]


class TestOperation:
    @pytest.mark.parametrize("sizes", [(1,), (5, 130, 17), (1000, 3)], ids=str)
    def test_the_norm_is_that_of_all(self, backend, rng, dtype, sizes):
        gradients = [rng.normal(size=size).astype(dtype) for size in sizes]
        before = [g.copy() for g in gradients]
        norm = np.linalg.norm(flat(before).astype(np.float64))
        load(backend).clip_by_global_norm(gradients, 1.5 * norm)
        for a, b in zip(gradients, before, strict=True):
            np.testing.assert_array_equal(a, b)
        load(backend).clip_by_global_norm(gradients, 0.25 * norm)
        eps = 8 * np.finfo(dtype).eps
        for a, b in zip(gradients, before, strict=True):
            assert a.dtype == dtype
            np.testing.assert_allclose(a, b * 0.25 * norm / (norm + 1e-6), rtol=eps)

    @pytest.mark.filterwarnings("ignore:invalid value")
    def test_extreme_numbers(self, backend, dtype):
        clip = load(backend).clip_by_global_norm
        # squares that float32 can't hold
        gradients = [np.full(3, 3e25, dtype), np.full(1, -3e25, dtype)]
        clip(gradients, 2.0)
        np.testing.assert_allclose(flat(gradients), [1, 1, 1, -1], rtol=1e-6)
        gradients = [np.zeros(3, dtype)]
        clip(gradients, 1.0)
        assert not gradients[0].any()
        for number, expected in ((INF, [0, NAN]), (NAN, [NAN, NAN])):
            gradients = [np.array([1, number], dtype)]
            clip(gradients, 1.0)
            np.testing.assert_array_equal(gradients[0], expected)


STACKS = {
    "one layer": lambda: [Dense(5, 3)],
    "dense": lambda: [Dense(5, 70, l2=0.02), ReLU(), Dense(70, 33), ReLU(), Dense(33, 3, l2=0.1)],
    "norms": lambda: [
        BatchNorm(5), Dense(5, 19), BatchNorm(19), ReLU(), Dense(19, 3, l2=0.1), BatchNorm(3),
    ],
    "stages": lambda: [
        Rescaling(0.5), Dropout(0.1), Dense(5, 7), Tanh(), Dropout(0.2), Dense(7, 3),
    ],
}  # fmt: skip
OPTIMIZERS = {
    "sgd": lambda: SGD(0.3),
    "nesterov": lambda: SGD(0.1, 0.9, nesterov=True),
    "rmsprop": lambda: RMSprop(0.01, epsilon=0.01),
    "adamw": lambda: AdamW(0.01, epsilon=0.01, weight_decay=1.0),
}


class TestNetworks:
    @pytest.mark.parametrize(
        *in_pairs(
            stack=STACKS, optimizer=OPTIMIZERS, batch=(1, 7, 32, 100), dtype=("float32", "float64")
        )
    )
    def test_the_paths_agree(self, rng, monkeypatch, dtype, stack, optimizer, batch):
        X, y = samples(rng)
        networks = [
            Network(
                STACKS[stack](), optimizer=OPTIMIZERS[optimizer](), clip_norm=0.4, dtype=dtype,
                seed=3, backend=name,
            )
            for name in ("numba", "numpy", "numba")
        ]  # fmt: skip
        assert networks[0].explain().startswith("compiled epoch")
        options = {"batch_size": batch, "epochs": 2}
        histories = [network.fit(X, y, **options) for network in networks[:2]]
        monkeypatch.setattr(paths, "reason_for_layers", lambda network: "a test")
        histories.append(networks[2].fit(X, y, **options))
        # steps that build on one another; batch norm of batches of one divides by roots of epsilon
        bound = 2 * -(-83 // batch) * (2000 if stack == "norms" else 400) * np.finfo(dtype).eps
        for network, history in zip(networks[1:], histories[1:], strict=True):
            np.testing.assert_allclose(histories[0].loss, history.loss, rtol=bound)
            for a, b in zip(networks[0].get_weights(), network.get_weights(), strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=bound * max(1, np.abs(b).max()))

    @pytest.mark.parametrize("step", ["train_step", "fit"])
    @pytest.mark.parametrize("stack", ["one layer", "dense", "norms"])
    def test_a_step_is_as_long_as_the_norm_allows(self, backend, rng, step, stack):
        X, y = samples(rng)
        for clip_norm in (1e-3, 0.05, 100.0):
            network = Network(
                STACKS[stack](), optimizer=SGD(0.5), clip_norm=clip_norm, dtype=np.float64, seed=3
            )
            _, gradients = network.gradients(X, y)
            gradient = flat(g for of_layer in gradients for g in of_layer.values())
            before = flat(parameters(network))
            options = {"batch_size": 100, "shuffle": False} if step == "fit" else {}
            getattr(network, step)(X, y, **options)
            moved = (before - flat(parameters(network))) / 0.5
            norm = np.linalg.norm(gradient)
            factor = min(1, clip_norm / (norm + 1e-6))
            np.testing.assert_allclose(moved, factor * gradient, rtol=1e-9, atol=1e-14)
            assert np.linalg.norm(moved) <= clip_norm

    def test_a_norm_out_of_reach_changes_nothing_but_rounding(self, rng, dtype):
        X, y = samples(rng)
        found = []
        for clip_norm in (None, 1e9):
            network = Network(STACKS["dense"](), clip_norm=clip_norm, dtype=dtype, seed=3)
            network.fit(X, y, epochs=2)
            found.append(flat(network.get_weights()))
        np.testing.assert_allclose(*found, rtol=0, atol=6 * 200 * np.finfo(dtype).eps)

    def test_each_layer_may_have_an_optimiser_of_its_own(self, rng):
        X, y = samples(rng)

        def mixed(backend):
            layers = [
                Dense(5, 20, 0.3, l2=0.01), ReLU(), Dense(20, 9, optimizer=Adam(0.01, epsilon=0.1)),
                BatchNorm(9, 0.2), ReLU(), Dense(9, 3, optimizer=SGD(0.1, 0.9)),
            ]  # fmt: skip
            return Network(layers, clip_norm=0.1, dtype=np.float64, seed=1, backend=backend)

        a, b = mixed("numpy"), mixed("numba")
        weights = rng.random(83)
        for network in (a, b):
            network.fit(X, y, epochs=3, batch_size=9, sample_weight=weights)
        np.testing.assert_allclose(flat(a.get_weights()), flat(b.get_weights()), atol=1e-11)

    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    @pytest.mark.parametrize("batch", [3, 40])
    def test_threads_change_no_bit(self, rng, optimizer, batch):
        X, y = rng.random((3 * batch + 1, 600)), rng.integers(0, 10, 3 * batch + 1)
        results = []
        for threads in (1, 2, 4):
            layers = [
                BatchNorm(600), Dense(600, 1700, l2=0.01), BatchNorm(1700), ReLU(),
                Dense(1700, 70), ReLU(), Dense(70, 10),
            ]  # fmt: skip
            network = Network(layers, optimizer=OPTIMIZERS[optimizer](), clip_norm=0.5, seed=0)
            loss = network.fit(X, y, batch_size=batch, epochs=2, threads=threads).loss
            states = [vector.tobytes() for vector in network._parameters.states]
            results.append((loss, network._parameters.vector.tobytes(), states))
        if batch == 40:
            assert "up to 4 threads" in network.explain()
        assert results[0] == results[1] == results[2]

    def test_against_pytorch(self, rng, backend, dtype):
        torch = pytest.importorskip("torch")
        X, y = samples(rng)
        network = Network(
            [Dense(5, 20), ReLU(), Dense(20, 3)], optimizer=SGD(0.2, 0.9), clip_norm=0.3,
            dtype=dtype, seed=0,
        )  # fmt: skip
        theirs = [torch.tensor(array, requires_grad=True) for array in parameters(network)]
        other = torch.optim.SGD(theirs, lr=0.2, momentum=0.9)
        W, b, V, c = theirs
        clipped = 0
        for start in range(0, 80, 8):
            batch = X[start : start + 8].astype(dtype), y[start : start + 8]
            network.train_step(*batch)
            other.zero_grad()
            logits = (torch.tensor(batch[0]) @ W + b).relu() @ V + c
            torch.nn.functional.cross_entropy(logits, torch.tensor(batch[1])).backward()
            clipped += torch.nn.utils.clip_grad_norm_(theirs, 0.3).item() > 0.3
            other.step()
        assert clipped > 5
        for mine, tensor in zip(parameters(network), theirs, strict=True):
            bound = 10 * 200 * np.finfo(dtype).eps
            np.testing.assert_allclose(mine, tensor.detach().numpy(), rtol=0, atol=bound)

    @pytest.mark.parametrize("batch", [1, 7, 40])
    @pytest.mark.parametrize("number", [INF, NAN])
    def test_padding_stays_zero_whatever_the_gradient(self, rng, number, batch, dtype):
        X, y = samples(rng)
        X[40] = number
        network = Network(STACKS["norms"](), optimizer=Adam(), clip_norm=0.1, dtype=dtype, seed=0)
        with pytest.warns(RuntimeWarning, match="the loss of epoch 1 is nan"):
            network.fit(X, y, batch_size=batch, on_divergence="warn")
        assert np.isnan(network._parameters.vector).any()
        for part, _ in network._parameters.places():
            for vector in (part.drawn().array, *part.state):
                assert not any(padding.any() for padding in part.layout.padding(vector))

    def test_another_norm_for_another_fit(self, rng):
        X, y = samples(rng)
        compiled, layers = (
            Network(STACKS["dense"](), dtype=np.float64, seed=3, backend=name)
            for name in ("numba", "numpy")
        )
        for clip_norm in (0.3, None, 0.01, 0.01):
            for network in (compiled, layers):
                network.clip_norm = clip_norm
                network.fit(X, y)
        np.testing.assert_allclose(
            flat(compiled.get_weights()), flat(layers.get_weights()), atol=1e-11
        )

    @pytest.mark.filterwarnings("ignore:X. .* columns often go beyond 10:UserWarning")
    def test_a_workspace_holds_nothing_that_matters(self, rng):
        X, y = samples(rng)
        results = []
        for cut in (False, True):
            network = Network(STACKS["dense"](), optimizer=Adam(), clip_norm=0.1, seed=3)
            if cut:  # memory of an epoch before, of other numbers
                network.fit(2 * X, y)
                fresh = Network(STACKS["dense"](), optimizer=Adam(), seed=3)
                network.set_weights(fresh.get_weights())
                network.optimizer = Adam()
                network._rng.bit_generator.state = fresh._rng.bit_generator.state
            network.fit(X, y, epochs=2)
            results.append(bits(network))
        assert results[0] == results[1]


class Sine(Layer):
    def forward(self, input):
        return np.sin(input)

    def backward(self, input, grad_output):
        return np.cos(input) * grad_output


class Scale(Layer):
    """Learns in its own backward."""

    factor = 1.0

    @property
    def parameters(self):
        return {"factor": np.array(self.factor)}

    def forward(self, input):
        return self.factor * input

    def backward(self, input, grad_output):
        self.factor -= 0.1 * (input * grad_output).sum()
        return self.factor * grad_output


class OwnBackward(Dense):
    def backward(self, input, grad_output):
        return super().backward(input, grad_output)


@pytest.mark.usefixtures("backend")
class TestArguments:
    def test_layers_of_ones_own(self, rng):
        X, y = samples(rng)
        network = Network([Dense(5, 6), Sine(), Dense(6, 3)], clip_norm=0.01, seed=0)
        before = flat(parameters(network))
        network.fit(X, y, batch_size=100)
        assert 0.0009 < np.linalg.norm(before - flat(parameters(network))) < 0.001001
        for layer in (Scale(), OwnBackward(5, 5)):
            network = Network([layer, Dense(5, 3)], clip_norm=0.1)
            for method in (network.fit, network.train_step):
                with pytest.raises(TypeError, match=r"clip_norm: expected None, as .* of its own"):
                    method(X, y)
            with pytest.raises(TypeError, match=r"clip_norm: expected None, as .* of its own"):
                network.fit_blocks(lambda: pytest.fail("a block was asked for"))
            network.clip_norm = None
            network.fit(X, y)

    def test_bad_arguments(self):
        for wrong in (0, -1.0, INF, NAN):
            with pytest.raises(ValueError, match="clip_norm: expected"):
                Network(clip_norm=wrong)
        for wrong in ("1", [1.0], True):
            with pytest.raises(TypeError, match="clip_norm: expected a finite number"):
                Network(clip_norm=wrong)
        network = Network()
        with pytest.raises(ValueError, match="clip_norm: expected None or a number above 0"):
            network.clip_norm = 0.0
        assert network.clip_norm is None

    def test_not_while_training(self, rng):
        def change(network, history):
            network.clip_norm = 1.0

        network = perceptron(5, 3)
        with pytest.raises(RuntimeError, match="clip_norm while it is training"):
            network.fit(*samples(rng), callbacks=[change])
        network.clip_norm = 1.0

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
    def test_copies(self, rng, copied):
        X, y = samples(rng)
        network = Network(STACKS["dense"](), clip_norm=0.1, seed=3)
        network.fit(X, y)
        twin = copied(network)
        assert twin.clip_norm == 0.1
        assert twin.fit(X, y).loss == network.fit(X, y).loss

    def test_files(self, rng, tmp_path):
        X, y = samples(rng)
        network = Network(STACKS["norms"](), optimizer=Adam(0.01), clip_norm=0.1, seed=3)
        network.fit(X, y)
        network.save(tmp_path / "model")
        loaded = fastnn.load(tmp_path / "model")
        assert repr(loaded) == repr(network)
        assert loaded.clip_norm == 0.1
        assert "clip_norm=0.1" in repr(network)
        assert loaded.fit(X, y).loss == network.fit(X, y).loss

    def test_checkpoints(self, rng, tmp_path):
        X, y = samples(rng)

        def make(clip_norm=0.1):
            return Network(STACKS["norms"](), optimizer=Adam(0.01), clip_norm=clip_norm, seed=3)

        def stop(network, history):
            if len(history) == 2:
                raise KeyboardInterrupt

        file, whole = tmp_path / "training", make()
        expected = whole.fit(X, y, epochs=3, batch_size=10).loss
        options = {"epochs": 3, "batch_size": 10}
        with pytest.raises(KeyboardInterrupt):
            make().fit(X, y, callbacks=[stop], checkpoint=file, checkpoint_every=5, **options)
        for other, got in ((0.2, "got 0.2"), (None, "got None")):
            with pytest.raises(ValueError, match=rf"network\.clip_norm: expected 0\.1.*{got}"):
                make(other).fit(X, y, callbacks=[stop], resume=file, **options)
        resumed = fastnn.resume(file, X, y, callbacks=[lambda *_: False])
        assert resumed.clip_norm == 0.1
        assert resumed.history.loss == expected
        for a, b in zip(resumed.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_nan_leaves_nothing_behind_where_a_user_restores_all(backend, l2, optimizer):
    """Padding and scratch memory, which nobody can restore, had NaN for ever."""
    network, twin = (
        fastnn.Network([fastnn.Dense(3, 2, l2=l2)], clip_norm=0.1, optimizer=optimizer, seed=0)
        for _ in range(2)
    )
    X, y = np.random.default_rng(0).normal(size=(8, 3)), np.arange(8) % 2
    weights = network.get_weights()
    network.train_step(np.full_like(X, np.nan), y)
    network.set_weights(weights)
    for each in (network, twin):
        each.optimizer = "adam"
    for _ in range(2):
        assert network.train_step(X, y) == twin.train_step(X, y)
        assert network.evaluate(X, y) == twin.evaluate(X, y)
