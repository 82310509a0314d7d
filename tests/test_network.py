"""Networks: training, inference, files, randomness."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import perceptron
from safetensors import safe_open
from safetensors.numpy import save_file

import fastnn
from fastnn import (
    Adam,
    Dense,
    Dropout,
    Layer,
    Network,
    ReLU,
    Rescaling,
    eval_numerical_gradient,
    schedules,
)


def parameters(network: Network) -> list[np.ndarray]:
    return [array.copy() for layer in network for array in layer.parameters.values()]


def same_bits(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


class DoubledReLU(Layer):
    """A user's layer, with no `__init__` and in float64 whatever comes."""

    def forward(self, input):
        return 2.0 * np.maximum(input, 0).astype(np.float64)

    def backward(self, input, grad_output):
        return 2.0 * grad_output * (input > 0)


class Scale(Layer):
    """A user's layer that learns."""

    def __init__(self):
        self.factor = np.ones(1)

    def forward(self, input):
        return input * self.factor

    def backward(self, input, grad_output):
        gradient = (input * grad_output).sum()
        grad_input = grad_output * self.factor
        self.factor -= 0.1 * gradient
        return grad_input


class TestSequence:
    def test_is_a_sequence_of_its_layers(self):
        layers = [Rescaling(0.5), Dense(4, 3), ReLU(), Dense(3, 2)]
        network = Network(layers)
        assert len(network) == 4
        assert list(network) == layers
        assert network[1] is layers[1]
        assert network[-2:] == layers[-2:]
        assert layers[2] in network
        assert network.parameter_count == 4 * 3 + 3 + 3 * 2 + 2

    def test_add_draws_as_the_constructor_does(self):
        together = perceptron(5, 4, 3, seed=1)
        layers = [Dense(5, 4), ReLU(), Dense(4, 3)]
        assert same_bits(parameters(together), parameters(Network(layers, seed=1)))

    def test_parameters_are_one_aligned_vector(self, dtype):
        network = perceptron(5, 40, 3, seed=1, dtype=dtype)
        for layer in (network[0], network[2]):
            assert np.shares_memory(layer.weights, network._parameters.vector)
            assert layer.weights.ctypes.data % 64 == 0
            assert layer.weights.dtype == dtype

    def test_widths_must_match(self):
        with pytest.raises(ValueError, match=r"expected 3 input units.*Dense\(4, 2"):
            Network([Dense(5, 3), ReLU(), Dense(4, 2)])

    def test_a_layer_belongs_to_one_network(self):
        network = Network([Dense(3, 2)])
        with pytest.raises(ValueError, match="belongs to no network yet"):
            Network([network[0]])
        with pytest.raises(ValueError, match="belongs to no network yet"):
            Network([layer := ReLU(), layer])

    @pytest.mark.parametrize("thing", [3, "relu", np.ones(3), ReLU], ids=repr)
    def test_only_layers(self, thing):
        with pytest.raises(TypeError, match=r"expected a fastnn\.Layer"):
            Network([thing])

    def test_a_refusal_changes_nothing(self):
        layer = Dense(2, 3)
        with pytest.raises(ValueError, match="expected 3 input units"):
            Network([layer, Dense(9, 2)])
        Network([layer, Dense(3, 2)])

    def test_a_draw_that_fails_leaves_the_layers_to_themselves(self):
        first = Dense(2, 3, seed=0)
        optimizer, weights = first.optimizer, first.weights.copy()
        network = Network([Dense(4, 2, seed=1)], optimizer="adam", seed=0)
        broken = Dense(3, 2, weights=lambda rng, shape: np.ones(7))
        with pytest.raises(ValueError, match=r"^weights: expected shape \(3, 2\)"):
            Network([first, broken], optimizer="adam")
        with pytest.raises(ValueError, match=r"^weights: expected shape \(2, 2\)"):
            network.add(Dense(2, 2, weights=lambda rng, shape: np.ones(7)))
        assert len(network) == 1
        assert first.optimizer is optimizer
        assert first.weights.dtype == np.float64  # as of a layer that is in no network
        np.testing.assert_array_equal(first.weights, weights)
        network.add(first)
        assert first.optimizer is network.optimizer

    def test_assigned_weights_survive_joining(self):
        layer = Dense(2, 2)
        layer.weights = [[1, 2], [3, 4]]
        network = Network([layer])
        np.testing.assert_array_equal(network[0].weights, [[1, 2], [3, 4]])

    @pytest.mark.parametrize(
        "clone", [copy.deepcopy, copy.copy, lambda n: pickle.loads(pickle.dumps(n))]
    )
    def test_copies_are_whole_and_apart(self, clone, rng):
        network = perceptron(5, 4, 3, seed=1)
        twin = clone(network)
        assert same_bits(parameters(network), parameters(twin))
        X, y = rng.normal(size=(8, 5)), rng.integers(0, 3, 8)
        assert network.train_step(X, y) == twin.train_step(X, y)
        assert same_bits(parameters(network), parameters(twin))
        network.train_step(X, y)
        assert not same_bits(parameters(network), parameters(twin))


@pytest.mark.usefixtures("backend")
class TestInference:
    def test_forward_gives_every_activation(self, rng):
        network = perceptron(5, 4, 3, seed=0, dtype=np.float64)
        X = rng.normal(size=(7, 5))
        first, rectified, logits = network.forward(X)
        np.testing.assert_allclose(first, X @ network[0].weights, rtol=1e-12)
        np.testing.assert_array_equal(rectified, np.maximum(first, 0))
        np.testing.assert_allclose(logits, rectified @ network[2].weights, rtol=1e-12)

    def test_prediction(self, rng, dtype):
        network = perceptron(5, 40, 3, seed=0, dtype=dtype)
        X = rng.normal(size=(4500, 5))  # more rows than are predicted at once
        logits = network.forward(X)[-1]
        assert logits.dtype == dtype
        np.testing.assert_array_equal(network.predict(X), logits.argmax(axis=1))
        probabilities = network.predict_proba(X)
        np.testing.assert_allclose(probabilities, fastnn.softmax(logits), rtol=1e-5)
        y = rng.integers(0, 3, 4500)
        loss, accuracy = network.evaluate(X, y)
        assert accuracy == np.mean(network.predict(X) == y)
        expected = fastnn.softmax_crossentropy_with_logits(logits, y).mean()
        np.testing.assert_allclose(loss, expected, rtol=1e-5)

    def test_training_is_told_apart(self, rng):
        seen = []

        class Spy(Layer):
            def forward(self, input):
                seen.append(self.training)
                return input

            def backward(self, input, grad_output):
                return grad_output

        network = Network([Spy(), Dense(3, 2)], seed=0)
        X, y = rng.normal(size=(4, 3)), [0, 1, 0, 1]
        network.forward(X)
        network.train_step(X, y)
        network.evaluate(X, y)
        assert seen[0] is False
        assert seen[-2:] == [True, False]
        assert network[0].training is False
        network.fit(X, y, validation_data=(X, y))
        assert seen[-1] is False


@pytest.mark.usefixtures("backend")
class TestTraining:
    def test_step_is_the_gradient_times_the_rate(self, rng):
        network = perceptron(6, 5, 4, seed=2, dtype=np.float64, learning_rate=0.5)
        X, y = rng.normal(size=(9, 6)), rng.integers(0, 4, 9)
        before = parameters(network)
        loss, gradients = network.gradients(X, y)
        assert same_bits(before, parameters(network))
        assert network.train_step(X, y) == loss
        flat = [array for of_layer in gradients for array in of_layer.values()]
        for old, gradient, new in zip(before, flat, parameters(network), strict=True):
            np.testing.assert_allclose(new, old - 0.5 * gradient, rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize(
        "layers",
        [
            lambda: [Dense(4, 3)],
            lambda: [Dense(4, 6), ReLU(), Dense(6, 3)],
            lambda: [Rescaling(0.3), Dense(4, 5), Dense(5, 6), ReLU(), Dense(6, 3), ReLU()],
            lambda: [Dense(4, 6), DoubledReLU(), Dense(6, 3)],
        ],
    )
    def test_gradients_by_finite_differences(self, layers, rng):
        network = Network(layers(), seed=4, dtype=np.float64)
        X, y = rng.normal(size=(11, 4)), rng.integers(0, 3, 11)
        _, gradients = network.gradients(X, y)
        for layer, found in zip(network, gradients, strict=True):
            assert set(found) == set(layer.parameters)
            for name, parameter in layer.parameters.items():
                values = parameter.copy()

                def loss(values, parameter=parameter):
                    parameter[...] = values
                    return network.evaluate(X, y).loss

                numeric = eval_numerical_gradient(loss, values)
                parameter[...] = values
                error = np.abs(found[name] - numeric).max() / np.abs(numeric).max()
                assert error < 1e-6, (layer, name)

    def test_a_users_layer(self, rng):
        mine = Network([Dense(4, 6), DoubledReLU(), Dense(6, 3)], seed=0)
        y = rng.integers(0, 3, 64)
        X = rng.normal(size=(64, 4)) + 2 * y[:, None]
        first = mine.evaluate(X, y).loss
        mine.fit(X, y, epochs=20, batch_size=8)
        assert mine.evaluate(X, y).loss < 0.7 * first
        assert mine.forward(X)[1].dtype == np.float32

    def test_a_users_layer_that_learns(self, rng):
        network = Network([Scale(), Dense(4, 3)], seed=0)
        X, y = rng.normal(size=(8, 4)), rng.integers(0, 3, 8)
        network.gradients(X, y)
        assert network[0].factor[0] == 1.0
        network.train_step(X, y)
        assert network[0].factor[0] != 1.0

    def test_a_users_layer_that_is_wrong_is_named(self, rng):
        class Broken(Layer):
            def backward(self, input, grad_output):
                return grad_output[:, :1]

        network = Network([Dense(4, 3), Broken(), Dense(3, 2)])
        with pytest.raises(ValueError, match=r"Broken.*backward.*\(8, 3\)"):
            network.train_step(rng.normal(size=(8, 4)), np.zeros(8, int))

    def test_a_users_layer_of_another_width_is_told(self, rng):
        class Half(Layer):
            def forward(self, input):
                return input[:, ::2]

        network = Network([Dense(4, 6), Half(), Dense(6, 2)], seed=0)
        with pytest.raises(ValueError, match=r"Dense\(6, 2.*expected 6 input units, got 3 from"):
            network.predict(rng.normal(size=(8, 4)))

    def test_a_callback_can_not_begin_to_train(self, rng):
        X, y = rng.normal(size=(64, 4)), rng.integers(0, 3, 64)
        network, twin = (Network([Dense(4, 3)], seed=0) for _ in range(2))
        refused = []

        def nested(network, history):
            with pytest.raises(RuntimeError, match="can't begin to train while it is training"):
                network.fit(X, y)
            with pytest.raises(RuntimeError, match="can't take in a layer"):
                network.add(ReLU())
            refused.append(network.history is history)

        network.fit(X, y, epochs=2, callbacks=[nested])
        twin.fit(X, y, epochs=2)
        assert refused == [True, True]
        assert same_bits(parameters(network), parameters(twin))
        assert network[0].steps == twin[0].steps == 4

    def test_layers_train_in_every_epoch(self, rng):
        """Whatever a callback says of it: `training` tells, it does not ask."""
        X, y = rng.normal(size=(64, 4)), rng.integers(0, 3, 64)
        layers = [Dense(4, 8, seed=0), fastnn.Dropout(0.5, seed=1), Dense(8, 3, seed=2)]
        network, twin = (Network(copy.deepcopy(layers), seed=0) for _ in range(2))

        def rest(network, history):
            assert not network[1].training
            network[1].training = False

        network.fit(X, y, epochs=2, callbacks=[rest])
        twin.fit(X, y, epochs=2)
        assert network[1].step == twin[1].step == 4
        assert same_bits(parameters(network), parameters(twin))

    def test_history(self, digits):
        X, y, X_val, y_val = digits
        network = perceptron(784, 16, 10, seed=0)
        heard = []
        history = network.fit(
            X,
            y,
            epochs=3,
            validation_data=(X_val, y_val),
            train_accuracy=True,
            callbacks=[lambda net, history: heard.append((net, len(history)))],
        )
        assert heard == [(network, 1), (network, 2), (network, 3)]
        assert len(history) == 3
        assert history.val_accuracy[-1] == network.evaluate(X_val, y_val).accuracy
        assert history.val_accuracy[-1] > 0.7
        assert history.train_accuracy[-1] == network.evaluate(X, y).accuracy
        assert history.loss[0] > history.loss[1] > history.loss[2]
        assert history.accuracy[2] > history.accuracy[0]
        for seconds, rate in zip(history.seconds, history.samples_per_second, strict=True):
            np.testing.assert_allclose(rate * seconds, len(y))

    def test_running_loss_is_that_of_each_batch_before_its_step(self, rng):
        X, y = rng.normal(size=(23, 4)), rng.integers(0, 3, 23)
        fitted, stepped = (perceptron(4, 5, 3, seed=1) for _ in range(2))
        history = fitted.fit(X, y, batch_size=10, shuffle=False)
        starts = range(0, 23, 10)
        right = (stepped.predict(X[:10]) == y[:10]).sum()
        losses = [stepped.train_step(X[s : s + 10], y[s : s + 10]) for s in starts]
        # A step may take another path than an epoch: equal up to rounding.
        tolerance = 50 * np.finfo(np.float32).eps
        expected = np.dot(losses, [10, 10, 3]) / 23
        np.testing.assert_allclose(history.loss[0], expected, rtol=tolerance)
        for a, b in zip(parameters(fitted), parameters(stepped), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
        assert history.accuracy[0] >= right / 23

    def test_drop_last(self, rng):
        X, y = rng.normal(size=(23, 4)), rng.integers(0, 3, 23)
        dropped, cut = (perceptron(4, 3, seed=1) for _ in range(2))
        dropped.fit(X, y, batch_size=10, shuffle=False, drop_last=True)
        cut.fit(X[:20], y[:20], batch_size=10, shuffle=False)
        assert same_bits(parameters(dropped), parameters(cut))

    def test_a_callback_ends_training(self, rng):
        X, y = rng.normal(size=(8, 4)), rng.integers(0, 3, 8)
        history = perceptron(4, 3).fit(
            X, y, epochs=50, callbacks=[lambda _, history: len(history) == 2]
        )
        assert len(history) == 2

    def test_interrupt_keeps_the_history(self, rng):
        X, y = rng.normal(size=(64, 4)), rng.integers(0, 3, 64)

        def interrupt(network, history):
            if len(history) == 2:
                raise KeyboardInterrupt

        network = perceptron(4, 3)
        assert network.history is None
        with pytest.raises(KeyboardInterrupt):
            network.fit(X, y, epochs=9, callbacks=[interrupt], validation_data=(X, y))
        assert len(network.history.loss) == len(network.history.val_loss) == 2
        assert network.history.samples_seen == 128
        assert not network[0].training
        network.fit(X, y)

    def test_a_subclass_that_overrides_backward_is_obeyed(self, rng):
        class Frozen(Dense):
            def backward(self, input, grad_output):
                return grad_output @ self.weights.T

        network = Network([Frozen(4, 5), ReLU(), Frozen(5, 3)], seed=0)
        X, y = rng.normal(size=(8, 4)), rng.integers(0, 3, 8)
        before = parameters(network)
        network.fit(X, y)
        assert same_bits(before, parameters(network))
        with pytest.raises(TypeError, match="override gradients as well"):
            network.gradients(X, y)

    def test_divergence_is_reported(self, rng):
        X, y = rng.normal(size=(64, 4)), rng.integers(0, 3, 64)
        X[5, 2] = np.nan
        with pytest.warns(RuntimeWarning, match="loss of epoch 1 is nan"):
            history = perceptron(4, 8, 3).fit(X, y, on_divergence="warn")
        assert np.isnan(history.loss[0])

    def test_integer_pixels_are_cast(self, rng):
        X, y = rng.integers(0, 256, (40, 6), np.uint8), rng.integers(0, 3, 40)
        networks = [
            Network([Rescaling(1 / 255), Dense(6, 3)], seed=0),
            Network([Dense(6, 3)], seed=0),
        ]
        networks[0].fit(X, y, shuffle=False)
        networks[1].fit(X / 255, y, shuffle=False)
        np.testing.assert_allclose(networks[0][1].weights, networks[1][0].weights, rtol=1e-5)


class TestRandomness:
    def test_same_seed_same_bits(self, digits, backend, dtype):
        X, y, X_val, y_val = digits
        options = {"seed": 7, "dtype": dtype, "backend": backend}
        plain, watched = (perceptron(784, 20, 10, **options) for _ in range(2))
        plain.fit(X, y, epochs=2, batch_size=33)
        watched.fit(X, y, epochs=1, batch_size=33, validation_data=(X_val, y_val))
        watched.predict(X)
        watched.gradients(X[:9], y[:9])
        watched.fit(X, y, epochs=1, batch_size=33, train_accuracy=True)
        assert same_bits(parameters(plain), parameters(watched))

    def test_global_state_is_left_alone(self, digits):
        X, y, _, _ = digits
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        network = perceptron(784, 10, seed=None)
        network.fit(X, y)
        list(fastnn.iterate_minibatches(X, y, 32, shuffle=True))
        np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002

    def test_backends_agree(self, digits, dtype):
        X, y, _, _ = digits
        networks = [
            perceptron(784, 30, 20, 10, seed=3, dtype=dtype, backend=name)
            for name in ("numpy", "numba")
        ]
        losses = [network.fit(X, y, epochs=1).loss[0] for network in networks]
        # 63 steps; each adds a few roundings to numbers of order 1, and ReLU kinks amplify them.
        tolerance = 63 * 784 * np.finfo(dtype).eps
        assert abs(losses[0] - losses[1]) <= tolerance
        for a, b in zip(*map(parameters, networks), strict=True):
            assert np.abs(a - b).max() <= tolerance


def dense_header(**entries: object) -> str:
    """Return a description of a layer as files of the first version had it, but for `entries`."""
    entries = {"input_units": 2, "output_units": 2, "learning_rate": 0.1, **entries}
    return json.dumps([{"type": "Dense", **entries}])


def header_and_tensors(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    with safe_open(path, framework="numpy") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def rewrite(path: Path, **entries: str) -> None:
    """Change entries of a model's header."""
    header, tensors = header_and_tensors(path)
    save_file(tensors, path, header | entries)


class TestFiles:
    def test_round_trip(self, tmp_path, rng, dtype, backend):
        network = Network(
            [Rescaling(0.1), Layer(), Dense(4, 5, 0.2), ReLU(), Dense(5, 3)], seed=1, dtype=dtype
        )
        X, y = rng.normal(size=(20, 4)), rng.integers(0, 3, 20)
        network.fit(X, y)
        path = tmp_path / "model.safetensors"
        network.save(path)
        loaded = fastnn.load(path)
        assert repr(loaded) == repr(network)
        assert loaded.backend == backend
        assert same_bits(parameters(network), parameters(loaded))
        np.testing.assert_array_equal(network.predict_proba(X), loaded.predict_proba(X))
        network.fit(X, y, epochs=2)
        loaded.fit(X, y, epochs=2)
        assert same_bits(parameters(network), parameters(loaded))

    @pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937"])
    def test_bit_generators(self, tmp_path, kind):
        seed = np.random.Generator(getattr(np.random, kind)(3))
        network = Network([Dense(2, 2)], seed=seed)
        network.save(tmp_path / "model")
        loaded = fastnn.load(tmp_path / "model", backend="numpy")
        assert loaded.backend == "numpy"
        assert same_bits(parameters(network), parameters(loaded))
        goes_on = loaded._rng.random() == network._rng.random()
        assert goes_on == (kind != "MT19937")

    @pytest.mark.parametrize(
        ("entry", "value"),
        [
            ("dtype", "float16"),
            ("dtype", "nonsense"),
            ("random", '{"bit_generator": "MT19937", "state": {"pos": 1000000000}}'),
            ("random", '{"bit_generator": "PCG64", "state": {"state": -1, "inc": 1}}'),
            ("layers", "[" * 5000),
            ("layers", dense_header(input_units=10**8, output_units=10**8)),
            ("layers", dense_header(output_units=3)),
            ("layers", dense_header(learning_rate=None)),
            ("layers", dense_header(bias=True)),
            ("layers", dense_header(optimizer={"type": "Adam", "learning_rate": 0.1}, steps=0)),
            ("layers", '[{"type": "Dense", "input_units": 2, "output_units": 2}]'),
            ("layers", '[{"type": "Pickle"}]'),
            ("layers", "[]"),
            ("layers", "{}"),
            ("fastnn", "2"),
        ],
    )
    def test_a_damaged_header(self, tmp_path, entry, value):
        path = tmp_path / "model"
        Network([Dense(2, 2)]).save(path)
        rewrite(path, **{entry: value})
        with pytest.raises(ValueError, match=r"model: expected a model saved by fastnn"):
            fastnn.load(path)

    @pytest.mark.parametrize("name", ["0.biases", "0.weights", "0.weights.mean"])
    def test_an_array_that_is_missing_is_named(self, tmp_path, name):
        path = tmp_path / "model"
        network = Network([Dense(2, 2)], optimizer=Adam())
        network.train_step(np.ones((2, 2)), [0, 1])
        network.save(path)
        header, tensors = header_and_tensors(path)
        del tensors[name]
        save_file(tensors, path, header)
        with pytest.raises(ValueError, match=f"got ValueError: no array '{name}'"):
            fastnn.load(path)

    def test_an_entry_that_is_missing_is_named(self, tmp_path):
        path = tmp_path / "model"
        Network([Dense(2, 2)]).save(path)
        header, tensors = header_and_tensors(path)
        del header["layers"]
        save_file(tensors, path, header)
        with pytest.raises(ValueError, match="got a file without 'layers', or where"):
            fastnn.load(path)

    @pytest.mark.parametrize("step", [2**53 - 9, 2**53 + 1, 2**63 - 1, 2**63, 2**70, -1, 1.0, True])
    @pytest.mark.parametrize("of", [0, 1])
    def test_counts_of_steps_can_go_on(self, tmp_path, of, step):
        """What loads can be trained, saved and loaded again: 2^63 - 1 passes could not."""
        path = tmp_path / "model"
        network = Network([Dense(2, 2), Dropout(0.5), Dense(2, 2)], optimizer=Adam(), seed=0)
        X, y = np.ones((8, 2)), [0, 1] * 4
        network.fit(X, y)
        network.save(path)
        layers = json.loads(header_and_tensors(path)[0]["layers"])
        layers[of]["steps" if of == 0 else "step"] = step
        rewrite(path, layers=json.dumps(layers))
        if step != 2**53 - 9:
            with pytest.raises(ValueError, match=r"steps?: expected an integer of at (most|least)"):
                fastnn.load(path)
            return
        loaded = fastnn.load(path)
        loaded.fit(X, y)
        assert np.isfinite(loaded.predict_proba(X)).all()
        loaded.save(path)
        loaded = fastnn.load(path)
        assert (loaded[0].steps, loaded[1]._passes)[of] == step + 1

    def test_a_header_of_the_first_version(self, tmp_path):
        """Without l2 and optimisers, which came later. What else is missing has no default."""
        path = tmp_path / "model"
        network = Network([Dense(2, 2, seed=0)])
        network.save(path)
        rewrite(path, layers=dense_header())
        loaded = fastnn.load(path)
        assert (loaded[0].l2, loaded[0].learning_rate) == (0.0, 0.1)
        assert same_bits(parameters(network), parameters(loaded))

    @pytest.mark.parametrize("change", [dict.popitem, lambda entries: entries.update(more=1)])
    @pytest.mark.parametrize("of", ["layer", "optimizer", "schedule"])
    def test_an_entry_too_few_or_too_many(self, tmp_path, of, change):
        path = tmp_path / "model"
        Network([Dense(2, 2, schedules.StepDecay(0.1, 0.5, 10))]).save(path)
        (layer,) = json.loads(header_and_tensors(path)[0]["layers"])
        change(
            {
                "layer": layer,
                "optimizer": layer["optimizer"],
                "schedule": layer["optimizer"]["learning_rate"],
            }[of]
        )
        rewrite(path, layers=json.dumps([layer]))
        with pytest.raises(ValueError, match="expected the entries"):
            fastnn.load(path)

    def test_a_place_that_can_not_be_written(self, tmp_path):
        for path in (tmp_path, tmp_path / "no folder" / "model"):
            with pytest.raises(OSError, match=f"can't write the model.*{path}"):
                Network([Dense(2, 2)]).save(path)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(os.name != "posix", reason="an open file has its name for itself elsewhere")
    def test_who_reads_while_it_is_saved_reads_one_or_the_other(self, tmp_path):
        """A file is not written to where it lies: who has opened it goes on reading the old one."""
        path = tmp_path / "model.safetensors"
        Network([Dense(3, 2)], seed=0).save(path)
        before = path.read_bytes()
        with path.open("rb") as file:
            Network([Dense(3, 2)], seed=1).save(path)
            assert file.read() == before
        assert path.read_bytes() != before
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]

    def test_a_write_that_fails_leaves_what_was_there(self, tmp_path, monkeypatch):
        path = tmp_path / "model"
        Network([Dense(2, 2)]).save(path)
        before = path.read_bytes()

        def full(file):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="can't write the model: No space left") as caught:
            Network([Dense(3, 2)]).save(path)
        assert caught.value.errno == errno.ENOSPC
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.skipif(os.name != "posix", reason="modes and links as POSIX has them")
    def test_mode_and_links_are_kept(self, tmp_path):
        path, link = tmp_path / "model", tmp_path / "link"
        before = os.umask(0o027)
        try:
            Network([Dense(2, 2)]).save(path)
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(0o604)
        link.symlink_to(path)
        Network([Dense(3, 2)]).save(link)
        assert link.is_symlink()
        assert path.stat().st_mode & 0o777 == 0o604
        assert fastnn.load(path)[0].input_units == 3

    @pytest.mark.skipif(not os.path.exists("/dev/null"), reason="there is no such device")
    def test_a_device_stays_a_device(self):
        Network([Dense(2, 2)]).save("/dev/null")
        assert not os.path.isfile("/dev/null")

    def test_a_users_layer_is_refused(self, tmp_path):
        with pytest.raises(TypeError, match="DoubledReLU"):
            Network([Dense(2, 2), DoubledReLU()]).save(tmp_path / "model")

    def test_bad_files(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="absent"):
            fastnn.load(tmp_path / "absent")
        bad = tmp_path / "bad.safetensors"
        bad.write_bytes(b"not a model at all")
        with pytest.raises(ValueError, match=r"bad\.safetensors: expected a model"):
            fastnn.load(bad)
        Network([Dense(2, 2)]).save(bad)
        bad.write_bytes(bad.read_bytes()[:-3])
        with pytest.raises(ValueError, match=r"bad\.safetensors"):
            fastnn.load(bad)
        from safetensors.numpy import save_file

        save_file({"x": np.ones(3)}, bad)
        with pytest.raises(ValueError, match="no format entry"):
            fastnn.load(bad)
