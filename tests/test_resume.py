"""Going on from a checkpoint is, bit for bit, as never having stopped."""

from __future__ import annotations

import csv
import json
import re

import kill_resume
import numpy as np
import pytest
from conftest import perceptron
from test_cli import run
from test_readme import blocks

import fastnn
from fastnn import (
    SGD,
    Adam,
    BatchNorm,
    Callback,
    Checkpoint,
    CSVLogger,
    Dense,
    Dropout,
    EarlyStopping,
    Layer,
    Network,
    ReduceOnPlateau,
    ReLU,
    Sigmoid,
    optimizers,
    paths,
    saving,
    schedules,
)
from fastnn import checkpoints as checkpoint_files
from fastnn.backends.numba_backend.epoch import meetings


@pytest.fixture
def blobs(rng):
    y = rng.integers(0, 3, 90)
    return rng.normal(size=(90, 20)) + y[:, np.newaxis], y


@pytest.fixture
def file(tmp_path):
    return tmp_path / "training.safetensors"


def regular(**options) -> Network:
    """Return a network with all that has a state."""
    options = {"seed": 3, "optimizer": "adam"} | options
    layers = [Dropout(0.2), Dense(20, 17), BatchNorm(17), ReLU(), Dropout(0.3), Dense(17, 3)]
    return Network(layers, **options)


def state_of(network: Network) -> list:
    """Return everything that the next step depends on, and the history but for its times."""
    state: list = list(network.get_weights())
    for layer in network:
        if hasattr(layer, "optimizer"):
            state += [layer._parameters.layout.view(vector, name).copy()
                      for vector in layer._parameters.state
                      for name in layer._parameters.learned]  # fmt: skip
            state += [layer.steps, repr(layer.optimizer)]
        state += [getattr(layer, name) for name in layer._progress]
    state += [network._rng.bit_generator.state, repr(network.optimizer)]
    history = network.history
    columns = history.to_dict()
    assert len({len(values) for values in columns.values()}) == 1
    assert min(columns.pop("seconds")) > 0
    columns.pop("samples_per_second")
    return [*state, repr(columns), history.samples_seen]  # NaN is not equal to itself


def assert_same(a: Network, b: Network) -> None:
    for x, y in zip(state_of(a), state_of(b), strict=True):
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype
            assert x.tobytes() == y.tobytes()
        else:
            assert x == y


@pytest.fixture
def checkpoints(monkeypatch, file):
    """Return a list that takes in each checkpoint as it is written to `file`."""
    written: list[bytes] = []
    real = saving.replace_file

    def replace_file(path, content, what="model"):
        real(path, content, what)
        if path == file:
            written.append(content)

    monkeypatch.setattr(saving, "replace_file", replace_file)
    return written


def resumed_everywhere(make, file, checkpoints, X, y, *, callbacks=list, every=1, **options):
    """Compare a training that was never stopped with those that go on from each of its checkpoints.

    In turns by `resume` and by `fit` of a network as it was in the beginning.
    """
    whole = make()
    whole.fit(X, y, callbacks=callbacks(), **options)
    watched = make()
    watched.fit(
        X, y, callbacks=callbacks(), checkpoint=file, checkpoint_every=every, **options
    )  # fmt: skip
    assert_same(whole, watched)
    known = ("epochs", "batch_size", "shuffle", "drop_last", "validation_split", "train_accuracy")
    data = {name: value for name, value in options.items() if name not in known}
    stops = list(checkpoints)
    for number, content in enumerate(stops):
        file.write_bytes(content)
        if number % 2:
            again = make()
            again.fit(X, y, callbacks=callbacks(), resume=file, **options)
        else:
            again = fastnn.resume(file, X, y, callbacks=callbacks(), **data)
        assert_same(whole, again)
    checkpoints[:] = stops
    return whole


WAYS = {
    "numpy": ("numpy", None),
    "layer path": ("numba", None),
    "one thread": ("numba", 1),
    "two threads": ("numba", 2),
}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Each way through an epoch: options of a network, and of fit."""
    backend, threads = WAYS[request.param]
    if request.param == "layer path":
        monkeypatch.setattr(paths, "reason_for_layers", lambda network: "this is a test of it")
    if threads == 2 and meetings.MOST_MEMBERS == 1:
        pytest.skip("no teams on this system")
    return {"backend": backend}, {"threads": threads}


class TestBits:
    @pytest.mark.parametrize("optimizer", optimizers.BY_NAME)
    def test_every_optimizer_at_every_step(self, way, optimizer, file, checkpoints, blobs):
        of_network, of_fit = way
        whole = resumed_everywhere(
            lambda: regular(optimizer=optimizer, **of_network),
            file,
            checkpoints,
            *blobs,
            epochs=2,
            batch_size=32,
            **of_fit,
        )
        # before the first step and after each of 6, that of an epoch's last with its history
        assert len(checkpoints) == 7
        assert len(whole.history) == 2

    @pytest.mark.parametrize("optimizer", optimizers.BY_NAME)
    @pytest.mark.usefixtures("together")
    def test_threads_that_share_a_step(self, file, checkpoints, rng, dtype, optimizer, met):
        if meetings.MOST_MEMBERS == 1:
            pytest.skip("no teams on this system")
        y = rng.integers(0, 10, 70)
        X = rng.normal(size=(70, 300))

        def make():
            layers = [BatchNorm(300), Dropout(0.2), Dense(300, 100), ReLU(), Dense(100, 10)]
            return Network(layers, optimizer=optimizer, seed=1, dtype=dtype, backend="numba")

        assert "threads share a step" in make().explain()
        whole = resumed_everywhere(make, file, checkpoints, X, y, epochs=2, threads=2)
        alone = make()
        alone.fit(X, y, epochs=2, threads=1)
        assert_same(whole, alone)
        # and what two threads began goes on with one
        file.write_bytes(checkpoints[3])
        assert_same(whole, fastnn.resume(file, X, y, threads=1))
        assert any(met)

    def test_dtypes_and_batches_of_one(self, backend, dtype, file, checkpoints, blobs):
        X, y = blobs[0][:7], blobs[1][:7]
        make = lambda: regular(dtype=dtype)  # noqa: E731
        resumed_everywhere(make, file, checkpoints, X, y, epochs=2, batch_size=1)

    def test_an_optimizer_for_each_layer_and_schedules(self, way, file, checkpoints, blobs):
        rate = schedules.WarmUp(schedules.CosineDecay(0.05, 12), 4)
        of_network, of_fit = way

        def make():
            layers = [Dense(20, 9, optimizer=SGD(rate, 0.9)), Sigmoid(), BatchNorm(9)]
            layers += [Dense(9, 3, optimizer=Adam(schedules.StepDecay(0.1, 0.5, 4)), l2=0.01)]
            return Network(layers, seed=2, **of_network)

        resumed_everywhere(
            make, file, checkpoints, *blobs, epochs=2, batch_size=20, drop_last=True, **of_fit
        )

    def test_callbacks_and_validation_split(self, way, file, checkpoints, blobs, tmp_path):
        of_network, of_fit = way

        def callbacks():
            return [
                ReduceOnPlateau("loss", patience=1, factor=0.5, min_delta=0.3),
                EarlyStopping("val_loss", patience=2, min_delta=0.3),
                Checkpoint(tmp_path / "best", monitor="val_loss"),
                CSVLogger(tmp_path / "log.csv"),
            ]

        whole = resumed_everywhere(
            lambda: regular(**of_network),
            file,
            checkpoints,
            *blobs,
            callbacks=callbacks,
            every=2,
            epochs=20,
            validation_split=0.2,
            train_accuracy=True,
            **of_fit,
        )
        # it was ended early, with the weights of an epoch before, and rates that had been lowered
        assert 2 < len(whole.history) < 20
        assert whole.optimizer.learning_rate < 0.001

    def test_weights_order_and_validation_data(self, way, file, checkpoints, blobs, rng):
        of_network, of_fit = way
        X, y = blobs
        resumed_everywhere(
            lambda: regular(**of_network),
            file,
            checkpoints,
            X,
            y,
            epochs=2,
            shuffle=False,
            sample_weight=rng.uniform(size=90),
            class_weight="balanced",
            validation_data=(X[:30], y[:30]),
            **of_fit,
        )

    @pytest.mark.parametrize("kind", ["uint8", "fortran", "strided"])
    def test_other_samples(self, way, file, checkpoints, blobs, kind):
        of_network, of_fit = way
        X, y = blobs
        X = {"uint8": X.astype(np.uint8), "fortran": np.asfortranarray(X), "strided": X[:, ::-1]}[
            kind
        ]
        make = lambda: regular(**of_network)  # noqa: E731
        resumed_everywhere(make, file, checkpoints, X, y, epochs=2, every=2, **of_fit)

    def test_real_targets(self, way, file, checkpoints, blobs, rng):
        of_network, of_fit = way
        X, targets = blobs[0], rng.normal(size=(90, 3))
        make = lambda: regular(loss="mse", **of_network)  # noqa: E731
        resumed_everywhere(make, file, checkpoints, X, targets, epochs=2, **of_fit)

    def test_a_second_fit_and_another_generator(self, file, checkpoints, blobs, backend):
        def make():
            network = regular(seed=np.random.Generator(np.random.PCG64DXSM(4)))
            network.fit(*blobs)
            return network

        resumed_everywhere(make, file, checkpoints, *blobs, epochs=2)

    def test_a_training_that_diverges(self, file, checkpoints, blobs, backend):
        make = lambda: regular(optimizer=SGD(1e30))  # noqa: E731
        with pytest.warns(RuntimeWarning, match="diverged"):
            resumed_everywhere(
                make, file, checkpoints, *blobs, epochs=2, batch_size=30, on_divergence="warn"
            )

    def test_more_epochs_after_the_end(self, file, blobs, backend):
        whole, network = regular(), regular()
        whole.fit(*blobs, epochs=5)
        network.fit(*blobs, epochs=2, checkpoint=file)
        assert_same(whole, fastnn.resume(file, *blobs, epochs=5))
        # the file is that of the whole training now
        assert_same(whole, fastnn.resume(file, *blobs))

    def test_more_epochs_than_early_stopping_would_allow(self, file, blobs):
        def callbacks():
            return EarlyStopping("loss", patience=1, min_delta=100.0)

        stopped = regular()
        stopped.fit(*blobs, epochs=9, callbacks=callbacks(), checkpoint=file)
        assert len(stopped.history) == 2
        again = fastnn.resume(file, *blobs, epochs=50, callbacks=callbacks())
        assert_same(stopped, again)


class TestCheckpoints:
    def test_one_before_the_first_step_and_one_after_each_epoch(self, file, checkpoints, blobs):
        regular().fit(*blobs, epochs=3, checkpoint=file)
        assert len(checkpoints) == 4

    @pytest.mark.parametrize(
        ("every", "steps"), [(4, [0, 4, 8, 9]), (3, [0, 3, 6, 9]), (99, [0, 9])]
    )
    def test_every_so_many_steps_and_at_the_end(self, file, checkpoints, blobs, every, steps):
        network = regular()
        network.fit(*blobs, epochs=3, checkpoint=file, checkpoint_every=every)
        taken = []
        for content in checkpoints:
            file.write_bytes(content)
            taken.append(fastnn.load(file)[1].steps)
        assert taken == steps

    def test_it_loads_as_a_model(self, file, blobs, backend):
        network = regular()
        network.fit(*blobs, epochs=2, checkpoint=file, callbacks=EarlyStopping("loss"))
        for a, b in zip(network.get_weights(), fastnn.load(file).get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_time_of_writing_is_no_time_of_training(self, file, blobs, monkeypatch):
        clock = iter(range(10**6))
        monkeypatch.setattr("fastnn.training.time.perf_counter", lambda: float(next(clock)))
        plain, network = regular(), regular()
        expected = plain.fit(*blobs, epochs=2, batch_size=90).seconds
        found = network.fit(*blobs, epochs=2, batch_size=90, checkpoint=file).seconds
        assert found == expected

    def test_what_a_kill_left_behind_is_removed(self, file, blobs):
        left = file.with_name(f".{file.name}.123.456")
        other = file.with_name(f".{file.name}.of.mine")
        left.touch()
        other.touch()
        regular().fit(*blobs, checkpoint=file)
        assert not left.exists()
        assert other.exists()

    def test_a_network_that_can_not_be_written_is_refused_before_it_trains(self, file, blobs):
        class Own(Layer):
            pass

        for network, message in [
            (Network([Dense(20, 3), Own()]), "Own"),
            (Network([Dense(20, 3, lambda step: 0.1)]), "schedules"),
            (regular(seed=np.random.Generator(np.random.MT19937(1))), "MT19937"),
        ]:
            with pytest.raises(TypeError, match=message):
                network.fit(*blobs, checkpoint=file)
            assert network.history is None
        with pytest.raises(OSError, match=r"can't write the checkpoint.*no folder"):
            regular().fit(*blobs, checkpoint=file.parent / "no folder" / "file")

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            (
                {"checkpoint": True},
                TypeError,
                "checkpoint: expected the path of a file, got bool True",
            ),
            ({"resume": 3}, TypeError, "resume: expected the path of a file, got int 3"),
            ({"checkpoint_every": 5}, ValueError, "checkpoint_every: expected None without"),
            ({"checkpoint": "x", "checkpoint_every": 0}, ValueError, "checkpoint_every: expected"),
            ({"checkpoint": "x", "checkpoint_every": 1.5}, TypeError, "checkpoint_every: expected"),
            ({"resume": "absent"}, FileNotFoundError, "absent: expected a checkpoint, found none"),
        ],
    )
    def test_bad_arguments(self, blobs, options, error, message, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(error, match=message):
            regular().fit(*blobs, **options)
        assert list(tmp_path.iterdir()) == []


class Remembering(Callback):
    """Counts epochs, and has an array."""

    def __init__(self):
        self.heard = []

    def on_train_begin(self, network, history):
        self.heard.append("begin")
        self.count, self.losses = 0, np.zeros(0)

    def on_train_resume(self, network, history, state):
        self.heard.append("resume")
        self.count, self.losses = state["count"], state["losses"]

    def on_epoch_begin(self, network, history):
        self.heard.append("epoch")

    def on_epoch_end(self, network, history):
        self.count += 1
        self.losses = np.append(self.losses, history.loss[-1])

    def on_train_end(self, network, history):
        self.heard.append("end")

    def state_dict(self):
        return {"count": self.count, "losses": self.losses}


class TestCallbacks:
    def test_a_users_callback(self, file, checkpoints, blobs):
        whole = Remembering()
        regular().fit(*blobs, epochs=3, callbacks=whole, checkpoint=file, checkpoint_every=2)
        for content, epochs in zip(list(checkpoints), [3, 2, 1, 1, 0, 0], strict=True):
            file.write_bytes(content)
            again = Remembering()
            fastnn.resume(file, *blobs, callbacks=again)
            assert again.count == 3
            np.testing.assert_array_equal(again.losses, whole.losses)
            # an epoch that had begun is not begun a second time
            assert again.heard == ["resume", *["epoch"] * epochs, "end"]

    def test_one_without_a_state_begins_anew(self, file, blobs):
        class Plain(Callback):
            def on_train_begin(self, network, history):
                self.began_at = len(history)

        regular().fit(*blobs, epochs=2, callbacks=Plain(), checkpoint=file)
        again = Plain()
        fastnn.resume(file, *blobs, epochs=3, callbacks=again)
        assert again.began_at == 2

    def test_a_state_that_is_no_json(self, file, blobs):
        class Wrong(Callback):
            def state_dict(self):
                return {"network": object()}

        with pytest.raises(TypeError, match=r"Wrong\.state_dict: .* got 'network'"):
            regular().fit(*blobs, callbacks=Wrong(), checkpoint=file)
        assert not file.exists()

    @pytest.mark.parametrize("append", [False, True])
    @pytest.mark.parametrize("state", ["whole", "ahead", "cut", "gone"])
    def test_a_log_has_each_line_once(self, file, checkpoints, blobs, append, state, tmp_path):
        log = tmp_path / "log.csv"
        log.write_text("epoch,loss\n7,1.0\n")
        callbacks = [CSVLogger(log, append=append)]
        regular().fit(*blobs, epochs=4, callbacks=callbacks, checkpoint=file)
        file.write_bytes(checkpoints[3 if state == "whole" else 2])
        text = log.read_bytes()
        if state == "cut":
            log.write_bytes(text[:-9])
        elif state == "gone":
            log.unlink()
        network = fastnn.resume(file, *blobs, callbacks=[CSVLogger(log, append=append)])
        rows = list(csv.DictReader(log.read_text().splitlines()))
        before = ["7"] if append and state != "gone" else []
        assert [row["epoch"] for row in rows] == [*before, "1", "2", "3", "4"]
        assert [float(row["loss"]) for row in rows[len(before) :]] == network.history.loss

    def test_others_are_refused(self, file, blobs):
        regular().fit(*blobs, callbacks=EarlyStopping("loss"), checkpoint=file)
        for wrong, got in (([], "none"), ([EarlyStopping("loss"), Remembering()], "Remembering")):
            with pytest.raises(ValueError, match=f"callbacks: expected EarlyStopping, .*{got}"):
                fastnn.resume(file, *blobs, callbacks=wrong)
        with pytest.raises(ValueError, match="monitor: expected 'loss', got 'accuracy'"):
            fastnn.resume(file, *blobs, callbacks=EarlyStopping("accuracy"))


class TestRefusals:
    @pytest.fixture
    def trained(self, file, blobs):
        """A checkpoint in the midst of the second of three epochs."""
        network = regular()

        def stop(network, history):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            network.fit(
                *blobs,
                epochs=3,
                callbacks=[lambda network, history: len(history) == 2 and stop(network, history)],
                checkpoint=file,
                checkpoint_every=5,
            )
        return file

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batch_size": 16}, "batch_size: expected 32, as the training in .* had, got 16"),
            ({"shuffle": False}, "shuffle: expected True"),
            ({"drop_last": True}, "drop_last: expected False"),
            ({"train_accuracy": True}, "train_accuracy: expected False"),
            ({"validation_split": 0.5}, "validation_split: expected None, .* got 0.5"),
            ({"epochs": 1}, r"epochs: expected at least the 2 .*fastnn\.resume takes"),
            ({"sample_weight": np.ones(90)}, "sample_weight, class_weight: expected None"),
            ({"callbacks": []}, "callbacks: expected function, .* got none"),
        ],
    )
    def test_other_arguments(self, trained, blobs, options, message):
        network = regular()
        options = {"epochs": 3, "callbacks": [lambda network, history: None]} | options
        before = network.get_weights()
        with pytest.raises(ValueError, match=message):
            network.fit(*blobs, resume=trained, **options)
        assert all(map(np.array_equal, before, network.get_weights()))
        assert network.history is None

    @pytest.mark.parametrize("lay_out", [np.ascontiguousarray, np.asfortranarray, lambda X: X[::2]])
    def test_each_number_tells_data_from_others(self, lay_out, monkeypatch):
        """Data that do not lie row by row are looked at a few rows at a time."""
        monkeypatch.setattr(checkpoint_files, "CHUNK_BYTES", 100)
        X = lay_out(np.arange(60.0).reshape(20, 3))
        before = checkpoint_files._fingerprint(X)
        assert before == checkpoint_files._fingerprint(X.copy(order="C"))
        for place in np.ndindex(X.shape):
            other = X.copy(order="K")
            other[place] += 0.5
            assert checkpoint_files._fingerprint(other) != before

    def test_other_data(self, trained, blobs):
        X, y = blobs
        other = X.copy()
        other[40, 7] = np.nextafter(other[40, 7], 9)
        for data, message in [
            ((other, y), r"X: expected float64 of shape \[90, 20\] with CRC-32 .* got float64"),
            ((X[::-1], y), "X: expected"),
            ((X.astype(np.float32), y), "X: expected float64 .* got float32"),
            ((X[:80], y[:80]), r"X: expected .* got float64 of shape \[80, 20\]"),
            ((X, (y + 1) % 3), "y: expected int64"),
        ]:
            with pytest.raises(ValueError, match=message):
                fastnn.resume(trained, *data, callbacks=[lambda network, history: None])
        with pytest.raises(ValueError, match=r"validation_data\[0\]: expected None"):
            fastnn.resume(
                trained, X, y, callbacks=[lambda network, history: None], validation_data=(X, y)
            )

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: perceptron(20, 5, 3), "network.optimizer: expected .*Adam"),
            (lambda: regular(optimizer=Adam(0.1)), "optimizer.learning_rate: expected 0.001"),
            (lambda: regular(optimizer="sgd"), "network.optimizer: expected .*Adam.* got .*SGD"),
            (lambda: regular(dtype=np.float64), "network.dtype: expected float32"),
            (lambda: regular(loss="mse"), "network.loss: expected softmax_cross_entropy"),
            (lambda: regular(backend="numpy"), "network.backend: expected numba"),
            (
                lambda: Network([Dropout(0.2), Dense(20, 3)], optimizer="adam"),
                r"network.layers: expected",
            ),
            (
                lambda: regular(seed=np.random.Generator(np.random.PCG64DXSM(1))),
                "network.random: expected PCG64",
            ),
        ],
    )
    def test_other_networks(self, trained, blobs, make, message):
        with pytest.raises(ValueError, match=message):
            make().fit(*blobs, epochs=3, callbacks=[lambda a, b: None], resume=trained)

    def test_another_layer_is_named(self, trained, blobs):
        network = regular()
        network[0].p = 0.5
        with pytest.raises(ValueError, match=r"network.layers\[0\].p: expected 0.2, .* got 0.5"):
            network.fit(*blobs, epochs=3, callbacks=[lambda a, b: None], resume=trained)


def rewritten(path, change) -> None:
    """Change what the header says of the training."""
    from safetensors.numpy import save_file

    header, tensors = saving.opened(path)
    entry = json.loads(header["training"])
    change(entry, header, tensors)
    header["training"] = json.dumps(entry)
    save_file(tensors, path, header)


def put(*keys):
    """Return what puts the last of `keys` where the others lead."""
    *way, name, value = keys

    def change(entry, header, tensors):
        for key in way:
            entry = entry[key]
        entry[name] = value

    return change


class TestDamagedFiles:
    @pytest.fixture
    def trained(self, file, blobs):
        regular().fit(
            *blobs, callbacks=EarlyStopping("loss"), checkpoint=file, validation_split=0.1
        )
        return file

    def refused(self, path, blobs, *messages):
        with pytest.raises(ValueError, match=".*".join(messages)) as caught:
            fastnn.resume(path, *blobs, callbacks=EarlyStopping("loss"))
        return str(caught.value)

    def test_cut_anywhere(self, trained, blobs, rng):
        content = trained.read_bytes()
        for length in [0, 7, 8, 9, len(content) - 1, *rng.integers(10, len(content), 20)]:
            trained.write_bytes(content[:length])
            self.refused(trained, blobs, re.escape(str(trained)), "expected a checkpoint of fastnn")

    def test_a_model(self, trained, blobs):
        regular().save(trained)
        self.refused(trained, blobs, "a model without the training; fastnn.load reads it")

    @pytest.mark.parametrize(
        "change",
        [
            put("position", {}),
            put("position", "epoch", 0),
            put("position", "epoch", "1"),
            put("position", "epoch", 7),
            put("position", "step", -1),
            put("position", "done", 5),
            put("position", "done", 32),
            put("position", "loss", "0"),
            put("position", "seconds", -1.0),
            put("position", "ended", 1),
            put("position", "order", {"bit_generator": "MT19937", "state": {"pos": 10**9}}),
            put("position", "more", 1),
            put("split", {"bit_generator": "PCG64", "state": {"state": -1, "inc": 1}}),
            put("history", "loss", ["1"]),
            put("history", "loss", []),
            put("history", "accuracy", [0.5, 0.5]),
            put("history", "samples_seen", None),
            put("history", "own", [1.0]),
            put("epochs", 0),
            put("checkpoint_every", 0),
            put("arguments", {}),
            put("arguments", "batch_size", 0),
            put("arguments", "shuffle", 1),
            put("arguments", "validation_split", "0.1"),
            put("arguments", "validation_split", None),
            put("arguments", "progress", True),
            put("split", None),
            put("history", "accuracy", None),
            put("callbacks", 0, "type", 3),
            put("network", "backend", "cuda"),
            put("network", "dtype", "float64"),
            put("network", "loss", "mse"),
            put("network", "random", "MT19937"),
            put("network", "layers", []),
            put("network", "layers", 1, "input_units", 10**8),
            put("network", "layers", 0, "type", "Pickle"),
            put("callbacks", []),
            put("callbacks", [3]),
            lambda entry, header, tensors: entry.clear(),
            lambda entry, header, tensors: header.update(random="null"),
            lambda entry, header, tensors: header.update(dtype="float16"),
            lambda entry, header, tensors: header.update(loss="own"),
            lambda entry, header, tensors: tensors.pop("1.weights"),
            lambda entry, header, tensors: tensors.update({"training.5.x": np.zeros(2)}),
        ],
    )
    def test_a_damaged_entry(self, trained, blobs, change):
        rewritten(trained, change)
        self.refused(trained, blobs, "expected a checkpoint of fastnn")

    @pytest.mark.parametrize(
        "change",
        [
            put("callbacks", 0, "state", {}),
            put("callbacks", 0, "state", "best", "low"),
            put("callbacks", 0, "state", "best_epoch", 9),
            put("callbacks", 0, "state", "stopped_epoch", -1),
            lambda entry, header, tensors: tensors.pop("training.0.weights.0"),
            lambda entry, header, tensors: tensors.update(
                {"training.0.weights.0": np.zeros((1, 1))}
            ),
        ],
    )
    def test_a_damaged_state_of_a_callback(self, trained, blobs, change):
        rewritten(trained, change)
        self.refused(trained, blobs, "EarlyStopping: can't go on from its state in the checkpoint")


def test_the_command(tmp_path, small_data):
    options = ("train", "--data", small_data, "--hidden", 20, "--optimizer", "adam")
    whole, end, checkpoint = tmp_path / "whole", tmp_path / "end", tmp_path / "checkpoint"
    done = run(*options, "--epochs", 4, "--save", whole)
    assert done.returncode == 0, done.stderr
    done = run(*options, "--epochs", 2, "--checkpoint", checkpoint, "--checkpoint-every", 5)
    assert done.returncode == 0, done.stderr
    options += ("--epochs", 4, "--checkpoint", checkpoint, "--resume", checkpoint)
    done = run(*options, "--save", end)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^epoch (\d)/4", done.stdout, re.M) == ["3", "4"]
    (header, expected), (found_header, found) = saving.opened(whole), saving.opened(end)
    assert header == found_header
    assert {name: array.tobytes() for name, array in expected.items()} == {
        name: array.tobytes() for name, array in found.items()
    }
    done = run(*options, "--batch-size", 16)
    assert done.returncode == 2
    assert "batch_size: expected 32" in done.stderr
    done = run("train", "--resume", tmp_path / "absent", "--data", small_data)
    assert done.returncode == 2
    assert "absent: expected a checkpoint, found none" in done.stderr


def test_kills():
    counts = kill_resume.kill(2, seed=1)
    assert counts.kills == 2
    assert (counts.lost, counts.unreadable, counts.different) == (0, 0, 0), str(counts)


def test_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks("docs/resuming.md"):
        exec(block, names)
    assert "History of 3 epochs" in capsys.readouterr().out
    slowest = names["Slowest"]
    resumed = [slowest(), slowest()]
    X, y = names["X_val"][:200], names["y_val"][:200]
    names["network"].fit(X, y, callbacks=resumed[0], checkpoint="own")
    fastnn.resume("own", X, y, callbacks=resumed[1])
    assert resumed[0].seconds == resumed[1].seconds > 0
    np.testing.assert_array_equal(resumed[0].weights, resumed[1].weights)
