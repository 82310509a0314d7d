"""Optimisers and penalties in layers and networks: formulas, state, copies, files."""

from __future__ import annotations

import copy
import json
import math
import pickle
import re

import numpy as np
import pytest
from conftest import bits, perceptron

import fastnn
from fastnn import (
    SGD,
    Adam,
    AdamW,
    BatchNorm,
    Dense,
    Network,
    ReLU,
    RMSprop,
    eval_numerical_gradient,
    schedules,
)
from fastnn.optimizers import EpsilonHatAdam

OPTIMIZERS = {
    "sgd": lambda: SGD(0.1),
    "momentum": lambda: SGD(0.05, momentum=0.9),
    "nesterov": lambda: SGD(0.05, momentum=0.9, nesterov=True),
    "rmsprop": lambda: RMSprop(0.01, rho=0.8),
    "adam": lambda: Adam(0.01, beta2=0.99),
    "epsilon hat": lambda: EpsilonHatAdam(0.01, beta1=0.8, beta2=0.99, epsilon=0.01),
    "adamw": lambda: AdamW(0.01, beta1=0.8, weight_decay=2.0),
    "scheduled": lambda: Adam(schedules.WarmUp(schedules.CosineDecay(0.02, 30, 0.001), 5)),
}


@pytest.fixture(params=OPTIMIZERS)
def optimizer(request):
    """One of each, new for every test."""
    return OPTIMIZERS[request.param]()


class Plain:
    """The same formulas once more, one parameter at a time, in float64."""

    def __init__(self, optimizer):
        self.optimizer, self.step = optimizer, 0
        self.first = self.second = 0.0

    def moved(self, theta, g):
        o, t = self.optimizer, self.step + 1
        rate = o.learning_rate(self.step) if callable(o.learning_rate) else o.learning_rate
        self.step += 1
        if isinstance(o, SGD):
            self.first = o.momentum * self.first + g
            return theta - rate * (g + o.momentum * self.first if o.nesterov else self.first)
        if isinstance(o, RMSprop):
            self.second = o.rho * self.second + (1 - o.rho) * g**2
            return theta - rate * g / (np.sqrt(self.second) + o.epsilon)
        if isinstance(o, AdamW) and theta.ndim == 2:  # biases are left alone
            theta = (1 - rate * o.weight_decay) * theta
        self.first = o.beta1 * self.first + (1 - o.beta1) * g
        self.second = o.beta2 * self.second + (1 - o.beta2) * g**2
        if isinstance(o, EpsilonHatAdam):
            rate *= math.sqrt(1 - o.beta2**t) / (1 - o.beta1**t)
            return theta - rate * self.first / (np.sqrt(self.second) + o.epsilon)
        m, s = self.first / (1 - o.beta1**t), self.second / (1 - o.beta2**t)
        return theta - rate * m / (np.sqrt(s) + o.epsilon)


def parameters(network) -> list[np.ndarray]:
    return [array.copy() for layer in network for array in layer.parameters.values()]


def same_bits(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def samples(rng, n=40, units=5, classes=3):
    return rng.normal(size=(n, units)), rng.integers(0, classes, n)


def deep(optimizer, dtype=np.float32, **options) -> Network:
    layers = [Dense(5, 7, l2=0.01), ReLU(), Dense(7, 3, l2=0.0)]
    return Network(layers, optimizer=optimizer, dtype=dtype, seed=4, **options)


@pytest.mark.usefixtures("backend")
class TestSteps:
    @pytest.mark.parametrize("shape", [(1, 1), (4, 3), (17, 33)], ids=str)
    @pytest.mark.parametrize("batch", [1, 7])
    def test_a_layer_alone(self, optimizer, shape, batch, rng):
        layer = Dense(*shape, optimizer=optimizer, l2=0.05, seed=0)
        expected = {name: array.copy() for name, array in layer.parameters.items()}
        plain = {name: Plain(optimizer) for name in expected}
        for _ in range(6):
            X, G = rng.normal(size=(batch, shape[0])), rng.normal(size=(batch, shape[1]))
            gradients = {"weights": X.T @ G + 2 * 0.05 * expected["weights"], "biases": G.sum(0)}
            grad_input = layer.backward(X, G)
            np.testing.assert_allclose(grad_input, G @ expected["weights"].T, atol=1e-9)
            for name, gradient in gradients.items():
                expected[name] = plain[name].moved(expected[name], gradient)
        for name, array in layer.parameters.items():
            # A root of a mean square may be small beside its last gradient: digits are lost there.
            np.testing.assert_allclose(array, expected[name], rtol=1e-9, atol=1e-9)
        assert layer.steps == 6

    def test_a_network(self, optimizer, rng, dtype):
        network = deep(optimizer, dtype)
        X, y = samples(rng)
        twin = deep(SGD(0.0), np.float64)
        for mine, theirs in zip(parameters(network), twin_parameters(twin), strict=True):
            theirs[...] = mine
        plain = [Plain(optimizer) for _ in range(4)]
        for start in range(0, 40, 7):
            batch = X[start : start + 7], y[start : start + 7]
            found = network.train_step(*batch)
            loss, gradients = twin.gradients(*batch)
            np.testing.assert_allclose(found, loss, rtol=2000 * np.finfo(dtype).eps)
            flat = [gradient for of_layer in gradients for gradient in of_layer.values()]
            for rule, theta, gradient in zip(plain, twin_parameters(twin), flat, strict=True):
                theta[...] = rule.moved(theta, gradient)
        # 6 steps of at most 0.1 times a gradient, or a root of one, that is off by some eps
        for a, b in zip(parameters(network), parameters(twin), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=3000 * np.finfo(dtype).eps)

    def test_state_of_float32_parameters_in_a_float64_step(self, rng):
        network = deep(SGD(0.1, momentum=0.5))
        layer, before = network[0], network[0].weights.copy()
        X, G = rng.normal(size=(3, 5)), rng.normal(size=(3, 7))
        for _ in range(2):
            assert layer.backward(X, G).dtype == np.float64
        assert layer._parameters.state[0].dtype == np.float32
        assert not np.array_equal(layer.weights, before)

    def test_padding_stays_zero(self, optimizer, rng):
        network = deep(optimizer)
        network.fit(*samples(rng), epochs=2, batch_size=7)
        for part, place in network._parameters.places():
            for vector in (network._parameters.vector[place], *part.state):
                copied = vector.copy()
                for padding in part.layout.padding(copied):
                    padding[...] = 0
                np.testing.assert_array_equal(copied, vector)


def twin_parameters(network) -> list[np.ndarray]:
    return [array for layer in network for array in layer.parameters.values()]


@pytest.mark.parametrize("batch", [1, 8, 33])
def test_backends_agree(optimizer, batch, rng, dtype):
    X, y = samples(rng, n=70)
    networks = [deep(copy.deepcopy(optimizer), dtype, backend=b) for b in ("numpy", "numba")]
    histories = [n.fit(X, y, epochs=3, batch_size=batch, validation_data=(X, y)) for n in networks]
    # As many steps, each of which divides by a root of mean squares that may be small.
    tolerance = 210 * 100 * np.finfo(dtype).eps
    for name in ("loss", "val_loss"):
        a, b = (getattr(history, name) for history in histories)
        np.testing.assert_allclose(a, b, rtol=tolerance)
    for a, b in zip(*map(parameters, networks), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def normed(optimizer, **options) -> Network:
    layers = [Dense(5, 7, l2=0.01), BatchNorm(7), ReLU(), Dense(7, 6), BatchNorm(6), Dense(6, 3)]
    return Network(layers, optimizer=optimizer, seed=4, **options)


class TestAdamW:
    def test_against_pytorch(self, rng, backend, dtype):
        torch = pytest.importorskip("torch")
        X, y = samples(rng)
        network = deep(AdamW(0.02, 0.8, 0.9, 1e-3, weight_decay=1.5), dtype)
        network[0]._l2 = 0.0
        theirs = [torch.tensor(array, requires_grad=True) for array in twin_parameters(network)]
        groups = [
            {"params": theirs[::2], "weight_decay": 1.5},
            {"params": theirs[1::2], "weight_decay": 0.0},
        ]
        other = torch.optim.AdamW(groups, lr=0.02, betas=(0.8, 0.9), eps=1e-3)
        W, b, V, c = theirs
        for start in range(0, 40, 8):
            batch = X[start : start + 8].astype(dtype), y[start : start + 8]
            network.train_step(*batch)
            logits = (torch.tensor(batch[0]) @ W + b).relu() @ V + c
            other.zero_grad()
            torch.nn.functional.cross_entropy(logits, torch.tensor(batch[1])).backward()
            other.step()
        for mine, tensor in zip(twin_parameters(network), theirs, strict=True):
            bound = 5 * 200 * np.finfo(dtype).eps
            np.testing.assert_allclose(mine, tensor.detach().numpy(), rtol=0, atol=bound)

    def test_a_step_of_your_own_is_all_of_it(self, rng):
        calls = []

        class Own(AdamW):
            def step(self, backend, parameters, gradient, state, step):
                calls.append(step)

        class Same(AdamW):
            """Takes the layer path, as a class of a user's own does, and nothing else differs."""

        replaced = AdamW(0.1)
        replaced.step = lambda *arguments: calls.append(arguments[-1])
        X, y = samples(rng)
        for optimizer in (Own(0.1), replaced):
            network = deep(optimizer)
            before = [array.copy() for array in twin_parameters(network)]
            calls.clear()
            network.train_step(X, y)
            assert calls == [0] * len(calls) != []
            for array, old in zip(twin_parameters(network), before, strict=True):
                np.testing.assert_array_equal(array, old)
        networks = [deep(kind(0.1, weight_decay=0.5), np.float64) for kind in (AdamW, Same)]
        for network in networks:
            network.fit(X, y, epochs=2, batch_size=8)
        for one, other in zip(*map(twin_parameters, networks), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)

    def test_weights_alone_shrink(self, rng, backend):
        """Of a loss that is the same whatever the network does."""
        X, y = samples(rng)
        network = normed(AdamW(0.1, weight_decay=0.5), dtype=np.float64)
        network.use(lambda t, p: 1.0, lambda t, p: np.zeros(p.shape))
        network[0]._l2 = 0.0
        for array in twin_parameters(network):
            array += rng.normal(size=array.shape)
        before = [{k: v.copy() for k, v in layer.parameters.items()} for layer in network]
        for _ in range(3):
            network.train_step(X, y)
        for layer, old in zip(network, before, strict=True):
            for name, array in layer.parameters.items():
                kept = 0.95**3 if name == "weights" else 1.0
                np.testing.assert_allclose(array, kept * old[name], rtol=1e-14)

    @pytest.mark.parametrize("rate", [0.01, schedules.CosineDecay(0.02, 30)], ids=repr)
    @pytest.mark.parametrize("batch", [1, 7, 40])
    def test_the_paths_agree(self, rng, batch, dtype, rate):
        X, y = samples(rng, n=83)
        networks = [
            normed(AdamW(rate, epsilon=1e-2, weight_decay=2.0), dtype=dtype, backend=name)
            for name in ("numpy", "numba")
        ]
        assert networks[1].explain().startswith("compiled epoch")
        histories = [n.fit(X, y, epochs=2, batch_size=batch) for n in networks]
        bound = 2 * -(-83 // batch) * 200 * np.finfo(dtype).eps
        np.testing.assert_allclose(histories[0].loss, histories[1].loss, rtol=bound)
        for a, b in zip(*map(parameters, networks), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=bound)

    def test_without_a_decay_it_is_adam(self, rng, backend):
        X, y = samples(rng)
        a, b = normed(AdamW(0.01, weight_decay=0.0)), normed(Adam(0.01))
        for network in (a, b):
            network.fit(X, y, epochs=2, batch_size=7)
        assert same_bits(parameters(a), parameters(b))

    def test_threads_change_no_bit(self, rng):
        X, y = rng.random((300, 200)), rng.integers(0, 10, 300)
        results = []
        for threads in (1, 2, 4):
            layers = [Dense(200, 130), BatchNorm(130), ReLU(), Dense(130, 10)]
            network = Network(layers, optimizer=AdamW(weight_decay=0.5), seed=0)
            network.fit(X, y, epochs=2, threads=threads)
            results.append(bits(network))
        assert results[0] == results[1] == results[2]

    def test_infinite_weights_stay_so_while_nothing_decays(self, backend):
        layer = Dense(2, 1, optimizer=AdamW(0.0))
        layer.weights[...] = np.inf
        layer.backward(np.ones((1, 2)), np.ones((1, 1)))
        assert (layer.weights == np.inf).all()

    def test_a_vector_that_it_is_handed_shrinks_as_a_whole(self, backend):
        theta, zeros = np.ones(3), np.zeros((3, 3))
        AdamW(0.1, weight_decay=0.5).step(
            fastnn.backends.load(backend), theta, zeros[0], zeros[1:], 0
        )
        np.testing.assert_allclose(theta, 0.95)

    def test_names(self):
        assert type(Network([], optimizer="adamw").optimizer) is AdamW
        assert repr(AdamW(weight_decay=0.1)).endswith("epsilon=1e-08, weight_decay=0.1)")


@pytest.mark.usefixtures("backend")
class TestState:
    def test_belongs_to_the_parameters_not_to_the_optimiser(self, optimizer, rng):
        X, y = samples(rng)
        one, other = deep(optimizer), deep(optimizer)
        alone = deep(copy.deepcopy(optimizer))
        for start in range(0, 40, 8):
            batch = X[start : start + 8], y[start : start + 8]
            one.train_step(*batch)
            other.train_step(*batch)
            alone.train_step(*batch)
        assert same_bits(parameters(one), parameters(alone))
        assert same_bits(parameters(other), parameters(alone))

    def test_lies_parallel_to_the_parameters(self, optimizer, rng):
        network = deep(optimizer)
        assert network._parameters.states == []
        network.train_step(*samples(rng))
        whole = network._parameters
        assert len(whole.states) == len(optimizer.state_names)
        for vector in whole.states:
            assert vector.shape == whole.vector.shape
            assert vector.dtype == whole.vector.dtype
            assert vector.ctypes.data % 64 == 0
        for part, place in whole.places():
            assert len(part.state) == len(optimizer.state_names)
            for of_part, vector in zip(part.state, whole.states, strict=True):
                assert of_part.any()
                assert np.shares_memory(of_part, vector[place])
                np.testing.assert_array_equal(of_part, vector[place])

    def test_layers_of_different_needs(self, rng):
        layers = [
            Dense(5, 6, optimizer=SGD(0.1, 0.9)),
            Dense(6, 6, 0.1),
            Dense(6, 3, optimizer=Adam()),
        ]
        network = Network(layers, seed=0)
        X, y = samples(rng)
        network.train_step(X, y)
        assert [len(layer._parameters.state) for layer in network] == [1, 0, 2]
        assert len(network._parameters.states) == 2
        velocity = network[0]._parameters.state[0].copy()
        network[1].optimizer = RMSprop()
        network.gradients(X, y)
        np.testing.assert_array_equal(network[0]._parameters.state[0], velocity)
        network.train_step(X, y)
        assert [len(layer._parameters.state) for layer in network] == [1, 1, 2]
        assert [layer.steps for layer in network] == [2, 1, 2]

    @pytest.mark.parametrize("change", ["join", "add", "deepcopy", "pickle"])
    def test_is_kept(self, optimizer, change, rng):
        """Train, change the house, train on: as without the change."""
        cases = [(rng.normal(size=(6, 5)), rng.normal(size=(6, 3))) for _ in range(6)]
        left, moved = (Dense(5, 3, optimizer=copy.deepcopy(optimizer), seed=1) for _ in range(2))
        networks = []
        if change != "join":
            networks = [Network([layer], dtype=np.float64) for layer in (left, moved)]
        for X, G in cases[:3]:
            left.backward(X, G)
            moved.backward(X, G)
        if change == "join":
            networks.append(Network([moved], dtype=np.float64))
        elif change == "add":
            networks[1].add(Dense(3, 2))
        elif change == "deepcopy":
            networks[1] = copy.deepcopy(networks[1])
            moved = networks[1][0]
        else:
            networks[1] = pickle.loads(pickle.dumps(networks[1]))
            moved = networks[1][0]
        for X, G in cases[3:]:
            left.backward(X, G)
            moved.backward(X, G)
        assert moved.steps == left.steps == 6
        np.testing.assert_array_equal(moved.weights, left.weights)
        np.testing.assert_array_equal(moved.biases, left.biases)

    def test_a_copy_is_apart(self, optimizer, rng):
        X, y = samples(rng)
        network = deep(optimizer)
        network.train_step(X, y)
        twin = copy.deepcopy(network)
        assert twin[0].optimizer is twin[2].optimizer is twin.optimizer is not optimizer
        for _ in range(2):
            network.train_step(X, y)
        for _ in range(2):
            twin.train_step(X, y)
        assert same_bits(parameters(network), parameters(twin))

    def test_is_converted_where_a_network_has_another_dtype(self, rng):
        layer = Dense(5, 3, optimizer=Adam(), seed=0)
        X, G = rng.normal(size=(6, 5)), rng.normal(size=(6, 3))
        layer.backward(X, G)
        of = layer._parameters
        before = [of.layout.view(vector, "weights").copy() for vector in of.state]
        Network([layer], dtype=np.float32)
        for old, vector in zip(before, of.state, strict=True):
            view = of.layout.view(vector, "weights")
            assert view.dtype == np.float32
            np.testing.assert_array_equal(view, old.astype(np.float32))

    def test_another_optimiser_begins_anew(self, optimizer, rng):
        X, G = rng.normal(size=(6, 5)), rng.normal(size=(6, 3))
        layer = Dense(5, 3, optimizer=Adam(0.3), seed=0)
        for _ in range(3):
            layer.backward(X, G)
        layer.optimizer = layer.optimizer
        assert layer.steps == 3
        fresh = Dense(5, 3, optimizer=copy.deepcopy(optimizer))
        fresh.weights, fresh.biases = layer.weights, layer.biases
        layer.optimizer = optimizer
        assert layer.steps == 0
        for _ in range(2):
            layer.backward(X, G)
            fresh.backward(X, G)
        np.testing.assert_array_equal(layer.weights, fresh.weights)

    def test_a_new_rate_keeps_it(self, rng):
        X, G = rng.normal(size=(6, 5)), rng.normal(size=(6, 3))
        shared = SGD(0.1, momentum=0.5)
        layer, other = (Dense(5, 3, optimizer=shared, seed=0) for _ in range(2))
        start = layer.weights.copy()
        layer.backward(X, G)
        layer.learning_rate = 0.2
        assert other.learning_rate == shared.learning_rate == 0.1
        assert layer.optimizer.momentum == 0.5
        layer.backward(X, G)
        g = X.T @ G
        np.testing.assert_allclose(layer.weights, start - 0.1 * g - 0.2 * 1.5 * g, atol=1e-12)
        shared.learning_rate = 0.7
        assert other.learning_rate == 0.7


class TestOfANetwork:
    def test_serves_all_layers(self, optimizer):
        network = Network([Dense(5, 4), ReLU()], optimizer=optimizer)
        network.add(Dense(4, 3))
        assert network[0].optimizer is network[2].optimizer is network.optimizer is optimizer
        network.optimizer = other = SGD(0.5)
        assert network[0].optimizer is network[2].optimizer is network.optimizer is other
        network.add(Dense(3, 2))
        assert network[3].optimizer is other

    def test_warns_of_what_it_replaces(self):
        told = r"^layers\[1\]: learning_rate=0.2 is not used \(likewise layers\[2\]\), as .* Adam\("
        with pytest.warns(
            UserWarning, match=told + r".*write network\[1\].learning_rate = 0.2"
        ) as w:
            network = Network(
                [Dense(5, 5), Dense(5, 4, learning_rate=0.2), BatchNorm(4, 0.3)], optimizer=Adam()
            )
        assert [warning.filename for warning in w] == [__file__]
        assert network[1].optimizer is network[2].optimizer is network.optimizer
        told = (
            r"^layers\[3\]: optimizer=RMSprop.* is not .*write network\[3\].optimizer = RMSprop\("
        )
        with pytest.warns(UserWarning, match=told):
            network.add(Dense(4, 4, optimizer=RMSprop()))
        layer = Dense(4, 3)
        layer.learning_rate = 0.5
        with pytest.warns(UserWarning, match=r"^layers\[4\]: learning_rate=0.5 is not used, as"):
            network.add(layer)
        assert layer.learning_rate == 0.001

    def test_says_nothing_of_what_it_does_not_replace(self):
        Network([Dense(5, 4, 0.3), Dense(4, 3, optimizer=SGD())])  # which has none
        Network([Dense(5, 4, 0.001), Dense(4, 3, optimizer=Adam())], optimizer="adam")
        Network([Dense(5, 4, 0.25)], optimizer=SGD(0.25))
        network = Network([Dense(5, 4, 0.3)])
        network.optimizer = Adam()  # in so many words
        Network([copy.deepcopy(network[0])], optimizer=SGD(0.2))

    @pytest.mark.filterwarnings("error")
    def test_says_nothing_of_the_usual_rate(self):
        """A class of one's own hands on its default, which nobody has written."""

        class Narrow(Dense):
            def __init__(self, inputs, outputs, learning_rate=0.1, optimizer=None):
                super().__init__(inputs, outputs, learning_rate, optimizer=optimizer)

        network = Network([Narrow(5, 4), BatchNorm(4, float("0.1"))], optimizer="adam")
        assert network[0].learning_rate == network[1].learning_rate == 0.001
        assert Narrow(5, 4, optimizer="adam").learning_rate == 0.001
        with pytest.warns(UserWarning, match=r"^layers\[2\]: learning_rate=0.2 is not used"):
            network.add(Narrow(4, 4, 0.2))
        layer = Dense(4, 4)
        layer.learning_rate = 0.1  # in so many words
        with pytest.warns(UserWarning, match=r"^layers\[3\]: learning_rate=0.1 is not used"):
            network.add(layer)

    def test_rates_of_layers_beside_it(self, rng, tmp_path, backend):
        X, y = samples(rng)
        network = deep(Adam(0.01), backend=backend)
        network[0].learning_rate = 0.1
        assert network[2].learning_rate == network.optimizer.learning_rate == 0.01
        before = parameters(network)
        network.train_step(X, y)
        moved = [np.abs(a - b).max() for a, b in zip(parameters(network), before, strict=True)]
        np.testing.assert_allclose(moved, [0.1] * 2 + [0.01] * (len(moved) - 2), rtol=1e-3)
        network.save(tmp_path / "model")
        again = fastnn.load(tmp_path / "model")
        assert again[0].learning_rate == 0.1
        assert again[2].optimizer is again.optimizer
        Network([copy.deepcopy(again[2])], optimizer=SGD(0.2))  # whose rate is no choice of its own

    def test_a_rate_beside_an_optimizer_of_the_layer(self):
        told = (
            r"^learning_rate: expected none beside optimizer='adam', .*, got 0.2, which is not used"
        )
        with pytest.warns(UserWarning, match=told) as w:
            layer = Dense(5, 4, 0.2, optimizer="adam")
        assert w[0].filename == __file__
        assert layer.learning_rate == 0.001
        with pytest.warns(UserWarning, match="^learning_rate: expected none beside"):
            BatchNorm(4, 0.2, optimizer=Adam())

    def test_none_leaves_layers_theirs(self):
        network = Network([Dense(5, 4, 0.3), Dense(4, 3, optimizer=Adam())])
        assert network.optimizer is None
        assert network[0].learning_rate == 0.3
        assert isinstance(network[1].optimizer, Adam)

    def test_no_change_while_training(self, rng):
        network = deep(SGD(0.1))
        X, y = samples(rng)

        def change_layer(network, history):
            network[0].optimizer = Adam()

        def change_network(network, history):
            network.optimizer = Adam()

        for change in (change_layer, change_network):
            with pytest.raises(RuntimeError, match="optimiser while its network is training"):
                network.fit(X, y, callbacks=[change])
        assert isinstance(network[0].optimizer, SGD)
        network.optimizer = Adam()

    def test_rates_set_in_callbacks(self, rng, backend):
        X, y = samples(rng)
        changed, stepped = deep(SGD(0.1)), deep(SGD(schedules.StepDecay(0.1, 0.5, every=5)))

        def halve(network, history):
            network.optimizer.learning_rate *= 0.5

        changed.fit(X, y, epochs=3, batch_size=8, callbacks=[halve])
        stepped.fit(X, y, epochs=3, batch_size=8)
        assert same_bits(parameters(changed), parameters(stepped))

    def test_the_compiled_epoch_counts_steps(self, rng):
        network = perceptron(5, 4, 3, backend="numba", seed=0)
        assert network.explain().startswith("compiled epoch")
        X, y = samples(rng, 45)
        network.fit(X, y, epochs=3, batch_size=8)
        assert network[0].steps == network[2].steps == 18
        network.fit(X, y, batch_size=8, drop_last=True)
        network.train_step(X, y)
        assert network[0].steps == 18 + 5 + 1

    @pytest.mark.parametrize(
        "layer",
        [
            Dense(5, 3, optimizer=Adam()),
            Dense(5, 3, optimizer=SGD(0.1, 0.9)),
            Dense(5, 3, schedules.StepDecay(0.1, 0.5, 9)),
            Dense(5, 3, l2=0.1),
        ],
        ids=repr,
    )
    def test_the_compiled_epoch_has_all_of_fastnns_own(self, layer):
        network = Network([copy.deepcopy(layer)], backend="numba")
        assert network.explain().startswith("compiled epoch")

    def test_explanations_name_an_optimizer_of_a_users_own(self):
        class OwnSGD(SGD):
            pass

        network = Network([Dense(5, 3, optimizer=OwnSGD(0.1))], backend="numba")
        expected = (
            r"^layer path: Dense\(.*OwnSGD.*\) has an optimiser that is known to Python alone"
        )
        assert re.search(expected, network.explain())

    def test_representations(self):
        assert repr(SGD(0.5)) == "SGD(learning_rate=0.5, momentum=0.0, nesterov=False)"
        assert repr(Dense(2, 3, 0.5)) == "Dense(2, 3, learning_rate=0.5)"
        layer = Dense(2, 3, optimizer=RMSprop(0.5), l2=0.1)
        adaptive = "RMSprop(learning_rate=0.5, rho=0.9, epsilon=1e-08)"
        assert repr(layer) == f"Dense(2, 3, optimizer={adaptive}, l2=0.1)"


class Signs(fastnn.Optimizer):
    """A user's optimiser: the sign of the mean of all gradients so far."""

    state_names = ("total",)

    def __init__(self, learning_rate=0.01):
        super().__init__(learning_rate)
        self.seen = []

    def step(self, backend, parameters, gradient, state, step):
        self.seen.append(step)
        (total,) = state
        total += gradient
        parameters -= self.rate(step) * np.sign(total)


@pytest.mark.usefixtures("backend")
class TestOfTheUsersOwn:
    def test_trains(self, rng):
        X, y = samples(rng, 64)
        X[:, 0] += 3 * y
        mine = Signs(schedules.StepDecay(0.02, 0.5, 20))
        network = deep(mine)
        assert network.explain().startswith("layer path")
        before = network.evaluate(X, y).loss
        network.fit(X, y, epochs=5, batch_size=8)
        assert network.evaluate(X, y).loss < 0.8 * before
        assert mine.seen[:4] == [0, 0, 1, 1]
        assert network[0].steps == 40

    def test_can_not_be_saved(self, tmp_path):
        with pytest.raises(TypeError, match=r"can't save Signs.*optimisers"):
            deep(Signs()).save(tmp_path / "model")

    def test_a_step_is_asked_for(self):
        class Incomplete(fastnn.Optimizer):
            pass

        with pytest.raises(TypeError, match="step"):
            Incomplete(0.1)

    def test_a_class_that_is_not_whole_is_refused(self):
        class Uninitialised(fastnn.Optimizer):
            def __init__(self):
                pass

            step = SGD.step

        class OneName(SGD):
            state_names = "velocity"

            def __init__(self):
                fastnn.Optimizer.__init__(self, 0.1)

        for optimizer, message in [
            (Uninitialised(), r"expected Uninitialised.__init__ to call super"),
            (OneName(), r"expected OneName.state_names to be a tuple of names, got 'velocity'"),
        ]:
            with pytest.raises(TypeError, match=message):
                Dense(2, 2, optimizer=optimizer)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("optimizer", [SGD(0.1), SGD(0.1, 0.9), RMSprop(), Adam()], ids=repr)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_a_trained_layer_go_on_as_it_does(copied, optimizer, rng):
    X, G = rng.normal(size=(2, 5, 4)).astype(np.float32)
    network = Network([Dense(4, 4, seed=0)], optimizer=optimizer)
    network.train_step(X, np.arange(5) % 4)
    twins = [copied(network[0]), copied(network)[0]]
    expected = network[0].backward(X, G)
    for twin in twins:
        np.testing.assert_array_equal(twin.backward(X, G), expected)
        np.testing.assert_array_equal(twin.weights, network[0].weights)
        assert twin.steps == 2
        # kernels know dtypes by identity, and what is aligned they read faster
        assert twin.weights.dtype is np.dtype(np.float32)
        assert twin.weights.ctypes.data % 64 == 0
        twin.backward(X.astype(np.float64), G)


class Careless(fastnn.Optimizer):
    """A user's optimiser that moves all that it is handed, and writes on the gradient."""

    state_names = ("velocity",)

    def step(self, backend, parameters, gradient, state, step):
        gradient += 0.1 * parameters + 1.0
        state[0][...] = gradient
        parameters -= self.rate(step) * state[0]


@pytest.mark.usefixtures("backend")
def test_an_optimizer_of_ones_own_moves_parameters_alone(rng):
    X, y = rng.normal(size=(12, 3)), rng.integers(0, 5, 12)
    layers = [Dense(3, 7, l2=0.5, seed=0), fastnn.BatchNorm(7), Dense(7, 5, seed=1)]
    network = Network(layers, optimizer=Careless(0.01), dtype=np.float64)
    alone = fastnn.BatchNorm(3, optimizer=Careless(0.01))
    for _ in range(3):
        _, gradients = network.gradients(X, y)
        before = [{k: v.copy() for k, v in layer.parameters.items()} for layer in network]
        network.train_step(X, y)
        for layer, old, gradient in zip(network, before, gradients, strict=True):
            for name, value in layer.parameters.items():
                expected = old[name] - 0.01 * (gradient[name] + 0.1 * old[name] + 1.0)
                np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-14)
        alone.backward(X, X)
    assert network[0].penalty == pytest.approx(0.5 * np.square(network[0].weights).sum(), 1e-12)
    assert (alone.running_mean == 0).all()
    assert (alone.running_variance == 1).all()


@pytest.mark.usefixtures("backend")
class TestPenalty:
    @pytest.mark.parametrize(
        "layers",
        [
            lambda: [Dense(5, 3, l2=0.3)],
            lambda: [Dense(5, 6, l2=0.1, biases="zeros"), ReLU(), Dense(6, 3, l2=0.02)],
            lambda: [Dense(5, 17), Dense(17, 33, l2=1.5), ReLU(), Dense(33, 3)],
        ],
    )
    def test_gradients_by_finite_differences(self, layers, rng):
        network = Network(layers(), seed=4, dtype=np.float64)
        for layer in network:
            if isinstance(layer, Dense):
                layer.biases = rng.normal(size=layer.output_units)
        X, y = samples(rng, 11)
        loss, gradients = network.gradients(X, y)
        assert loss == pytest.approx(network.evaluate(X, y).loss, rel=1e-13)
        for layer, found in zip(network, gradients, strict=True):
            for name, parameter in layer.parameters.items():
                values = parameter.copy()

                def of_values(values, parameter=parameter):
                    parameter[...] = values
                    return network.evaluate(X, y).loss

                numeric = eval_numerical_gradient(of_values, values)
                parameter[...] = values
                error = np.abs(found[name] - numeric).max() / np.abs(numeric).max()
                assert error < 1e-6, (layer, name)

    def test_of_a_layer_alone_by_finite_differences(self, rng):
        layer = Dense(6, 4, l2=0.7, seed=0)
        X, G = rng.normal(size=(3, 6)), rng.normal(size=(3, 4))
        _, gradients = layer.gradients(X, G)
        for name, parameter in layer.parameters.items():
            values = parameter.copy()

            def loss(values, parameter=parameter):
                parameter[...] = values
                return (layer.forward(X) * G).sum() + layer.penalty

            numeric = eval_numerical_gradient(loss, values)
            parameter[...] = values
            error = np.abs(gradients[name] - numeric).max() / np.abs(numeric).max()
            assert error < 1e-6, name

    def test_is_in_every_reported_loss(self, rng, dtype):
        X, y = samples(rng, 40)
        plain = Network([Dense(5, 7), ReLU(), Dense(7, 3)], seed=4, dtype=dtype)
        network = Network([Dense(5, 7, l2=0.5), ReLU(), Dense(7, 3, l2=2.0)], seed=4, dtype=dtype)
        assert network[1] not in network._learned()
        squares = [np.square(network[i].weights, dtype=np.float64).sum() for i in (0, 2)]
        penalty = 0.5 * squares[0] + 2.0 * squares[1]
        tolerance = 50 * np.finfo(dtype).eps

        def close(found, without):
            np.testing.assert_allclose(found, without + penalty, rtol=tolerance)

        close(network.evaluate(X, y).loss, plain.evaluate(X, y).loss)
        close(network.gradients(X, y)[0], plain.gradients(X, y)[0])
        close(network[0].penalty + network[2].penalty, 0.0)
        for some in (network, plain):
            some.optimizer = SGD(0.0)
        close(network.train_step(X, y), plain.train_step(X, y))
        options = {"epochs": 2, "batch_size": 7, "validation_data": (X, y), "train_accuracy": True}
        found, without = network.fit(X, y, **options), plain.fit(X, y, **options)
        for name in ("loss", "val_loss", "train_loss"):
            close(getattr(found, name), np.array(getattr(without, name)))

    def test_follows_the_weights(self, rng):
        layer = Dense(3, 2, l2=0.5)
        layer.weights = np.full((3, 2), 2.0)
        layer.biases = [100.0, 100.0]
        assert layer.penalty == 12.0
        layer.weights[0, 0] = 0.0
        assert layer.penalty == 10.0
        assert Dense(3, 2).penalty == 0.0

    def test_shrinks_weights_that_nothing_holds(self):
        network = Network([Dense(40, 3, 0.25, l2=0.5)], seed=0, dtype=np.float64)
        start = network[0].weights.copy()
        # Without input the loss has no gradient in the weights; the penalty's is 2 l2 W.
        network.fit(np.zeros((30, 40)), np.arange(30) % 3, batch_size=10)
        np.testing.assert_allclose(network[0].weights, 0.75**3 * start, rtol=1e-14)

    @pytest.mark.parametrize("weight", [3.7e25, 1e20, 1e19, 1.5, 1e-30])
    @pytest.mark.parametrize("optimizer", [SGD(0.0), SGD(0.0, momentum=0.9), Adam(0.0)], ids=str)
    @pytest.mark.parametrize("options", [{}, {"threads": 2}, {"clip_norm": 1e30}], ids=str)
    def test_of_weights_of_any_size(self, weight, optimizer, options, dtype):
        """Squares are added up in float64, as those of 1e20 are beyond float32, on every path.

        The rate is 0, and so is the input; so the loss is log 2 and the penalty.
        """
        of_network = {name: options[name] for name in options if name == "clip_norm"}
        of_fit = {name: options[name] for name in options if name == "threads"}
        for backend in ("numba", "numpy"):
            layers = [Dense(3, 150, l2=1.0, weights="zeros"), Dense(150, 2, weights="zeros")]
            network = Network(
                layers, dtype=dtype, optimizer=optimizer, backend=backend, **of_network
            )
            network[0].weights = np.full((3, 150), weight)
            X, y = np.zeros((40, 3)), np.arange(40) % 2
            exact = np.log(2) + 450 * float(np.asarray(weight, dtype)) ** 2
            found = [
                network.fit(X, y, batch_size=7, **of_fit).loss[0],
                network.evaluate(X, y).loss,
                network.train_step(X, y),
            ]
            # of 450 squares in float64, in whatever order, and of the loss beside them
            rounding = 450 * np.finfo(np.float64).eps / 2 + 4 * np.finfo(dtype).eps
            np.testing.assert_allclose(found, exact, rtol=rounding)

    def test_nan_in_a_batch_leaves_nothing_behind_restored_weights(self, rng):
        network = deep(SGD(0.1))
        X, y = samples(rng)
        good = [{k: v.copy() for k, v in layer.parameters.items()} for layer in network]
        bad = X.copy()
        bad[3, 2] = np.nan
        with pytest.warns(RuntimeWarning, match="nan"):
            network.fit(bad, y, on_divergence="warn")
        for layer, values in zip(network, good, strict=True):
            for name, value in values.items():
                setattr(layer, name, value)
        assert np.isfinite(network[0].penalty)
        network.fit(X, y)
        assert np.isfinite(network.evaluate(X, y).loss)


class TestFiles:
    @pytest.mark.parametrize("trained", [True, False])
    def test_training_goes_on_with_the_same_bits(
        self, tmp_path, optimizer, trained, backend, rng, dtype
    ):
        X, y = samples(rng)
        network = deep(optimizer, dtype, backend=backend)
        if trained:
            network.fit(X, y, epochs=2, batch_size=7)
        network.save(tmp_path / "model")
        loaded = fastnn.load(tmp_path / "model", backend=backend)
        assert repr(loaded) == repr(network)
        assert repr(loaded.optimizer) == repr(optimizer)
        assert loaded.optimizer is loaded[0].optimizer is loaded[2].optimizer
        assert [layer.steps for layer in loaded._learned()] == [12 * trained] * 2
        assert loaded.evaluate(X, y) == network.evaluate(X, y)
        for some in (network, loaded):
            some.fit(X, y, epochs=2, batch_size=7)
        assert same_bits(parameters(network), parameters(loaded))
        assert same_bits(network._parameters.states, loaded._parameters.states)

    def test_layers_with_their_own(self, tmp_path, rng):
        layers = [
            Dense(5, 6, optimizer=SGD(0.1, 0.9)),
            ReLU(),
            Dense(6, 6, schedules.StepDecay(0.1, 0.5, 3), l2=0.1),
            Dense(6, 3),
        ]
        network = Network(layers, seed=0)
        X, y = samples(rng)
        network.train_step(X, y)
        network[3].optimizer = Adam()
        network.save(tmp_path / "model")
        loaded = fastnn.load(tmp_path / "model")
        assert loaded.optimizer is None
        assert repr(loaded) == repr(network)
        for _ in range(5):
            network.train_step(X, y)
            loaded.train_step(X, y)
        assert same_bits(parameters(network), parameters(loaded))

    def test_one_layer_apart_from_the_networks_optimiser(self, tmp_path):
        network = deep(Adam())
        network[0].optimizer = SGD(0.3)
        network[2].learning_rate = 0.5
        network.save(tmp_path / "model")
        loaded = fastnn.load(tmp_path / "model")
        assert repr(loaded) == repr(network)
        assert loaded[0].learning_rate == 0.3
        assert loaded[2].optimizer is not loaded.optimizer
        loaded.add(Dense(3, 2))
        assert loaded[3].optimizer is loaded.optimizer

    def test_state_is_stored_by_name(self, tmp_path, rng):
        from safetensors.numpy import load_file

        network = Network([Dense(5, 3, optimizer=Adam())])
        network.train_step(*samples(rng))
        network.save(tmp_path / "model")
        tensors = load_file(tmp_path / "model")
        names = {f"0.{p}{s}" for p in ("weights", "biases") for s in ("", ".mean", ".mean_square")}
        assert set(tensors) == names
        assert tensors["0.weights.mean"].shape == (5, 3)

    @pytest.mark.parametrize("rate", [lambda step: 0.1, schedules.WarmUp(lambda step: 0.1, 5)])
    def test_a_schedule_of_the_users_own_can_not_be_saved(self, tmp_path, rate):
        for network in (perceptron(5, 3, learning_rate=rate), deep(Adam(rate))):
            with pytest.raises(TypeError, match=r"can't save .* of schedules only fastnn's own"):
                network.save(tmp_path / "model")

    def saved(self, tmp_path, change_header=lambda header: None, change=lambda tensors: None):
        """Save a trained network; change what the file holds."""
        from safetensors import safe_open
        from safetensors.numpy import save_file

        network = Network([Dense(5, 3, 0.25, l2=0.5)], optimizer=None, seed=0)
        network[0].optimizer = Adam()
        rng = np.random.default_rng(0)
        network.train_step(*samples(rng))
        path = tmp_path / "model"
        network.save(path)
        with safe_open(path, framework="numpy") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        change_header(header)
        change(tensors)
        save_file(tensors, path, header)
        return path

    def test_a_file_from_before_there_were_optimisers(self, tmp_path):
        def age(header):
            del header["optimizer"]
            (layer,) = json.loads(header["layers"])
            for name in ("l2", "optimizer", "steps"):
                del layer[name]
            header["layers"] = json.dumps([layer | {"learning_rate": 0.25}])

        def forget(tensors):
            for name in [name for name in tensors if name.count(".") > 1]:
                del tensors[name]

        network = fastnn.load(self.saved(tmp_path, age, forget))
        assert repr(network[0]) == "Dense(5, 3, learning_rate=0.25)"
        assert network[0].steps == 0

    @pytest.mark.parametrize(
        "damage",
        [
            {"steps": -1},
            {"steps": "3"},
            {"optimizer": None},
            {"optimizer": {"type": "Pickle", "learning_rate": 0.1}},
            {"optimizer": {"type": "Adam"}},
            {"optimizer": {"type": "Adam", "learning_rate": {"type": "eval"}}},
            {"optimizer": {"type": "Adam", "learning_rate": -1}},
            {"optimizer": {"type": "SGD", "learning_rate": 0.1, "momentum": 0.9}},
            {"optimizer": {"type": "SGD", "learning_rate": 0.1}},
        ],
        ids=str,
    )
    def test_a_damaged_description(self, tmp_path, damage):
        def change(header):
            (layer,) = json.loads(header["layers"])
            header["layers"] = json.dumps([layer | damage])

        with pytest.raises(ValueError, match="model: expected a model saved by fastnn"):
            fastnn.load(self.saved(tmp_path, change))

    @pytest.mark.parametrize(
        "change",
        [
            lambda tensors: tensors.pop("0.weights.mean"),
            lambda tensors: tensors.update({"0.weights.mean": np.ones((5, 4))}),
            lambda tensors: tensors.update({"0.weights.velocity": np.ones((5, 3))}),
        ],
    )
    def test_damaged_state(self, tmp_path, change):
        with pytest.raises(ValueError, match="model: expected a model saved by fastnn"):
            fastnn.load(self.saved(tmp_path, change=change))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: SGD(-0.1), ValueError, "^learning_rate: expected .*at least 0, got -0.1"),
        (lambda: Adam("fast"), TypeError, "^learning_rate: expected .*got str 'fast'"),
        (lambda: SGD(0.1, 1.0), ValueError, "^momentum: expected .*at least 0 and below 1, got 1"),
        (lambda: SGD(0.1, -0.1), ValueError, "^momentum: expected"),
        (lambda: SGD(0.1, "0.9"), TypeError, "^momentum: expected"),
        (lambda: Adam([[1], [1, 2]]), TypeError, "^learning_rate: expected a finite number"),
        (lambda: SGD(0.1, 0.9, 1), TypeError, "^nesterov: expected True or False, got int 1"),
        (lambda: SGD(0.1, nesterov=True), ValueError, "^nesterov: expected False without momentum"),
        (lambda: RMSprop(rho=1), ValueError, "^rho: expected .*below 1, got 1"),
        (lambda: RMSprop(epsilon=0), ValueError, "^epsilon: expected .*got 0"),
        (lambda: Adam(beta1=math.nan), ValueError, "^beta1: expected .*got nan"),
        (lambda: Adam(beta2=1.5), ValueError, "^beta2: expected .*got 1.5"),
        (lambda: Adam(epsilon=1e-60), ValueError, "^epsilon: expected"),
        (lambda: AdamW(weight_decay=-0.1), ValueError, "^weight_decay: expected .*got -0.1"),
        (lambda: AdamW(weight_decay=None), TypeError, "^weight_decay: expected a finite number"),
        (lambda: Dense(3, 2, optimizer=0.1), TypeError, "^optimizer: expected an Optimizer"),
        (lambda: Dense(3, 2, optimizer=Adam), TypeError, "^optimizer: expected an Optimizer"),
        (lambda: Network(optimizer="lbfgs"), ValueError, "^optimizer: expected one of 'sgd'"),
        (lambda: Dense(3, 2, l2=-1), ValueError, "^l2: expected .*at least 0, got -1"),
        (lambda: Dense(3, 2, l2=None), TypeError, "^l2: expected a finite number"),
        (lambda: setattr(Dense(3, 2), "optimizer", None), TypeError, "^optimizer: expected"),
        (lambda: setattr(Network(), "optimizer", None), TypeError, "^optimizer: expected"),
        (lambda: setattr(Dense(3, 2), "learning_rate", "x"), TypeError, "^learning_rate: "),
        (lambda: setattr(SGD(), "momentum", 0.5), AttributeError, "momentum"),
    ],
)
def test_bad_arguments(build, error, message):
    with pytest.raises(error, match=message):
        build()
