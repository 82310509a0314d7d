"""Callbacks, the part of the samples that is kept out, and what a history turns into."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest

import fastnn
from fastnn import (
    SGD,
    BatchNorm,
    Callback,
    Checkpoint,
    CSVLogger,
    Dense,
    EarlyStopping,
    History,
    Network,
    ReduceOnPlateau,
    ReLU,
    schedules,
)


@pytest.fixture
def blobs(rng):
    y = rng.integers(0, 3, 90)
    return rng.normal(size=(90, 4)) + 2.0 * y[:, np.newaxis], y


def network(**options) -> Network:
    return Network([Dense(4, 6), BatchNorm(6), ReLU(), Dense(6, 3)], seed=3, **options)


class Scripted(Callback):
    """Replaces a column of the history by numbers that a test chose."""

    def __init__(self, column, values):
        self.column, self.values = column, values

    def on_epoch_end(self, network, history):
        getattr(history, self.column)[-1] = self.values[len(history) - 1]


class Noting(Callback):
    """Notes what it hears."""

    def __init__(self):
        self.heard = []

    def on_train_begin(self, network, history):
        self.heard.append(("train begins", len(history)))

    def on_epoch_begin(self, network, history):
        self.heard.append(("epoch begins", len(history)))

    def on_epoch_end(self, network, history):
        self.heard.append(("epoch ends", len(history)))

    def on_train_end(self, network, history):
        self.heard.append(("train ends", len(history)))


class TestCallback:
    def test_hooks_are_called_in_order(self, blobs):
        noting = Noting()
        network().fit(*blobs, epochs=2, callbacks=noting)
        assert noting.heard == [
            ("train begins", 0),
            ("epoch begins", 0),
            ("epoch ends", 1),
            ("epoch begins", 1),
            ("epoch ends", 2),
            ("train ends", 2),
        ]

    def test_all_hear_of_an_epoch_that_one_ends_the_training_after(self, blobs):
        noting = Noting()
        callbacks = [lambda network, history: True, noting]
        assert len(network().fit(*blobs, epochs=9, callbacks=callbacks)) == 1
        assert noting.heard[-2:] == [("epoch ends", 1), ("train ends", 1)]

    def test_no_end_is_heard_after_an_exception(self, blobs):
        def interrupt(network, history):
            raise KeyboardInterrupt

        noting = Noting()
        with pytest.raises(KeyboardInterrupt):
            network().fit(*blobs, callbacks=[noting, interrupt])
        assert noting.heard[-1] == ("epoch ends", 1)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ([3], "callbacks: expected functions or fastnn.Callback objects, got 3"),
            ([EarlyStopping], r"write EarlyStopping\(...\), with parentheses"),
            ("print", "callbacks: expected functions"),
        ],
    )
    def test_others_are_refused(self, blobs, wrong, message):
        with pytest.raises(TypeError, match=message):
            network().fit(*blobs, callbacks=wrong)


class TestEarlyStopping:
    def test_it_ends_after_patience_and_gives_the_best_weights_back(self, blobs):
        values = [5.0, 3.0, 4.0, 3.0, 2.9, 3.5, 2.95, 2.9, 1.0]
        stopping = EarlyStopping(patience=3)
        kept = []
        net = network()
        history = net.fit(
            *blobs,
            epochs=9,
            validation_data=blobs,
            callbacks=[
                Scripted("val_loss", values),
                lambda network, history: kept.append(network.get_weights()),
                stopping,
            ],
        )
        assert len(history) == stopping.stopped_epoch == 8
        assert (stopping.best, stopping.best_epoch) == (2.9, 5)
        for found, best, last in zip(net.get_weights(), kept[4], kept[7], strict=True):
            np.testing.assert_array_equal(found, best)
            assert (found != last).any()

    @pytest.mark.parametrize(
        ("column", "values", "options", "epochs", "best_epoch"),
        [
            ("val_loss", [3, 2.5, 2.1, 1.9, 1.8, 1.7], {"min_delta": 0.3}, 6, 5),
            ("val_loss", [3, 2.9, 2.8, 2.75, 2.7, 2.6], {"min_delta": 0.5}, 3, 1),
            ("val_accuracy", [0.5, 0.6, 0.55, 0.6, 0.9, 0.9], {}, 4, 2),
            ("loss", [3, 2, 2, 2, 1, 0], {"mode": "max"}, 3, 1),
            ("val_loss", [math.nan, 3, math.nan, math.nan, 1, 0], {}, 4, 2),
            ("val_loss", [math.inf, math.inf, math.inf, 1, 1, 1], {}, 3, 1),
        ],
    )
    def test_what_counts_as_better(self, blobs, column, values, options, epochs, best_epoch):
        stopping = EarlyStopping(column, patience=2, **options)
        callbacks = [Scripted(column, values), stopping]
        history = network().fit(*blobs, epochs=6, validation_data=blobs, callbacks=callbacks)
        assert (len(history), stopping.best_epoch) == (epochs, best_epoch)

    def test_another_column_is_followed_its_own_way(self, blobs):
        stopping = EarlyStopping("val_loss", mode="min")
        assert stopping.mode == "min"
        stopping.monitor, stopping.mode = "val_accuracy", None
        assert stopping.mode == "max"
        callbacks = [Scripted("val_accuracy", [0.5, 0.75, 0.25]), stopping]
        network().fit(*blobs, epochs=3, validation_data=blobs, callbacks=callbacks)
        assert (stopping.best, stopping.best_epoch) == (0.75, 2)
        stopping.monitor = "val_loss"
        assert stopping.mode == "min"
        callbacks[0] = Scripted("val_loss", [3.0, 1.0, 2.0])
        network().fit(*blobs, epochs=3, validation_data=blobs, callbacks=callbacks)
        assert (stopping.best, stopping.best_epoch) == (1.0, 2)
        stopping.mode = "max"
        stopping.monitor = "loss"  # what is given stays
        assert stopping.mode == "max"
        stopping.monitor = "val_loss"
        network().fit(*blobs, epochs=3, validation_data=blobs, callbacks=callbacks)
        assert (stopping.best, stopping.best_epoch) == (3.0, 1)
        with pytest.raises(ValueError, match=r"^mode: expected 'min', 'max' or None, got 'up'"):
            stopping.mode = "up"

    def test_weights_stay_where_they_are_not_to_be_restored(self, blobs):
        net, weights = network(), []
        callbacks = [
            Scripted("loss", [1, 2, 3]),
            EarlyStopping("loss", patience=2, restore_best=False),
            lambda network, history: weights.append(network.get_weights()),
        ]
        net.fit(*blobs, epochs=9, callbacks=callbacks)
        for found, last in zip(net.get_weights(), weights[-1], strict=True):
            np.testing.assert_array_equal(found, last)

    def test_it_serves_another_training_anew(self, blobs):
        stopping = EarlyStopping("loss", patience=1)
        for best in (1.0, 2.0):
            callbacks = [Scripted("loss", [best, best + 1]), stopping]
            assert len(network().fit(*blobs, epochs=5, callbacks=callbacks)) == 2
            assert (stopping.best, stopping.best_epoch) == (best, 1)

    def test_a_column_that_is_not_there(self, blobs):
        message = "monitor: expected one of loss, accuracy, .*, got 'val_loss'; .*validation_split"
        with pytest.raises(ValueError, match=message):
            network().fit(*blobs, callbacks=[EarlyStopping()])

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"patience": 0}, ValueError),
            ({"patience": 1.5}, TypeError),
            ({"min_delta": -1.0}, ValueError),
            ({"mode": "up"}, ValueError),
            ({"monitor": 3}, TypeError),
            ({"restore_best": 1}, TypeError),
        ],
    )
    def test_bad_arguments(self, options, error):
        with pytest.raises(error, match=f"{next(iter(options))}: expected"):
            EarlyStopping(**options)


class TestReduceOnPlateau:
    def test_rates_get_lower_at_plateaus_and_stay_above_the_minimum(self, blobs):
        rates = []
        net = Network([Dense(4, 6, 0.5), ReLU(), Dense(6, 3, 0.02)], seed=0)
        net.fit(
            *blobs,
            epochs=8,
            callbacks=[
                Scripted("loss", [3, 3, 3, 2, 2, 2, 2, 2]),
                ReduceOnPlateau("loss", factor=0.1, patience=2, minimum=0.01),
                lambda net, history: rates.append([net[0].learning_rate, net[2].learning_rate]),
            ],
        )
        expected = [0.5, 0.5, 0.05, 0.05, 0.05, 0.01, 0.01, 0.01]
        np.testing.assert_allclose(np.transpose(rates)[0], expected)
        np.testing.assert_allclose(np.transpose(rates)[1], [0.02] * 2 + [0.01] * 6)

    def test_layers_that_share_an_optimiser_go_on_to_and_other_networks_keep_it(self, blobs):
        optimizer = SGD(0.1, momentum=0.9)
        net = network(optimizer=optimizer)
        callbacks = [Scripted("loss", [1, 1]), ReduceOnPlateau("loss", factor=0.5, patience=1)]
        net.fit(*blobs, epochs=2, callbacks=callbacks)
        assert net.optimizer.learning_rate == 0.05
        assert net[0].optimizer is net[1].optimizer is net[3].optimizer is net.optimizer
        assert optimizer.learning_rate == 0.1
        assert net[0].steps > 0

    def test_a_schedule_is_refused_before_any_step(self, blobs):
        net = network(optimizer=SGD(schedules.CosineDecay(0.1, 20)))
        with pytest.raises(TypeError, match="expected learning rates that are numbers"):
            net.fit(*blobs, callbacks=[ReduceOnPlateau("loss")])
        assert net[0].steps == 0

    def test_bad_factor(self):
        for factor in (0.0, 1.0, -0.5):
            with pytest.raises(ValueError, match="factor: expected"):
                ReduceOnPlateau(factor=factor)


class TestCheckpoint:
    def test_each_epoch_has_its_file(self, blobs, tmp_path):
        weights = []
        pattern = tmp_path / "net-{epoch:02d}-{loss:.1f}.safetensors"
        network().fit(
            *blobs,
            epochs=4,
            callbacks=[
                Scripted("loss", [4, 3, 2, 1]),
                Checkpoint(pattern, every=2),
                lambda network, history: weights.append(network.get_weights()),
            ],
        )
        names = ["net-02-3.0.safetensors", "net-04-1.0.safetensors"]
        assert sorted(path.name for path in tmp_path.iterdir()) == names
        for name, expected in zip(names, weights[1::2], strict=True):
            found = fastnn.load(tmp_path / name).get_weights()
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)

    def test_only_the_best(self, blobs, tmp_path):
        path, weights = tmp_path / "best.safetensors", []
        network().fit(
            *blobs,
            epochs=4,
            callbacks=[
                Scripted("accuracy", [0.3, 0.9, 0.8, 0.9]),
                Checkpoint(path, monitor="accuracy"),
                lambda network, history: weights.append(network.get_weights()),
            ],
        )
        for a, b in zip(fastnn.load(path).get_weights(), weights[1], strict=True):
            np.testing.assert_array_equal(a, b)


class TestCSVLogger:
    def test_a_line_for_each_epoch(self, blobs, tmp_path):
        path = tmp_path / "log.csv"
        for append, expected in ((False, [1, 2]), (True, [1, 2, 1, 2]), (False, [1, 2])):
            history = network().fit(*blobs, epochs=2, callbacks=CSVLogger(path, append=append))
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            assert [int(row["epoch"]) for row in rows] == expected
            assert float(rows[-1]["loss"]) == history.loss[-1]


class TestValidationSplit:
    @pytest.mark.parametrize("backend", ["numpy", "numba"])
    @pytest.mark.parametrize("shuffle", [True, False])
    def test_it_is_a_fit_on_the_others(self, blobs, backend, shuffle):
        """The samples that are kept out decide nothing but the validation columns."""
        X, y = blobs
        drawn = np.random.default_rng(3)
        reference = Network([Dense(4, 3)], seed=drawn, backend=backend)
        order = drawn.permutation(90)
        others, kept_out = np.sort(order[18:]), np.sort(order[:18])
        net = Network([Dense(4, 3)], seed=3, backend=backend)
        options = {"epochs": 3, "batch_size": 7, "shuffle": shuffle, "train_accuracy": True}
        found = net.fit(X, y, validation_split=0.2, **options)
        expected = reference.fit(
            X[others], y[others], validation_data=(X[kept_out], y[kept_out]), **options
        )
        for name in ("loss", "accuracy", "train_loss", "train_accuracy", "val_loss"):
            assert getattr(found, name) == getattr(expected, name), name
        np.testing.assert_array_equal(net[0].weights, reference[0].weights)
        assert found.samples_seen == 3 * 72

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.999, 1.0, -0.1, math.nan])
    def test_a_share_that_leaves_one_side_empty(self, blobs, share):
        with pytest.raises(ValueError, match="validation_split: expected"):
            network().fit(*blobs, validation_split=share)

    def test_not_beside_validation_data(self, blobs):
        with pytest.raises(ValueError, match="validation_split: expected None beside"):
            network().fit(*blobs, validation_split=0.2, validation_data=blobs)

    def test_a_refusal_draws_nothing(self, blobs):
        refused, other = network(), network()
        with pytest.raises(ValueError, match="expected at most the 72 training samples"):
            refused.fit(*blobs, validation_split=0.2, batch_size=80, drop_last=True)
        assert refused.fit(*blobs).loss == other.fit(*blobs).loss


class TestWeights:
    def test_they_are_copies_and_hold_statistics(self, blobs):
        net = network()
        net.fit(*blobs)
        weights = net.get_weights()
        assert [w.shape for w in weights] == [(4, 6), *[(6,)] * 5, (6, 3), (3,)]
        before = net.predict_proba(blobs[0])
        net.fit(*blobs, epochs=3)
        assert (net.predict_proba(blobs[0]) != before).any()
        net.set_weights(weights)
        np.testing.assert_array_equal(net.predict_proba(blobs[0]), before)

    def test_a_wrong_shape_changes_nothing(self):
        net = network()
        before = net.get_weights()
        wrong = [np.ones_like(w) for w in before]
        wrong[-1] = np.ones(4)
        with pytest.raises(ValueError, match=r"weights\[7\], biases: expected shape \(3,\)"):
            net.set_weights(wrong)
        with pytest.raises(ValueError, match="weights: expected 8 arrays, got 7"):
            net.set_weights(wrong[:-1])
        for a, b in zip(net.get_weights(), before, strict=True):
            np.testing.assert_array_equal(a, b)


class TestHistory:
    HISTORY = History(loss=[3.0, 2.0], seconds=[0.5, 0.25], samples_per_second=[10.0, 20.0])

    def test_rows_and_columns(self):
        first = {"epoch": 1, "loss": 3.0, "seconds": 0.5, "samples_per_second": 10.0}
        assert self.HISTORY[0] == self.HISTORY[-2] == first
        assert [row["loss"] for row in self.HISTORY] == [3.0, 2.0]
        assert list(self.HISTORY.columns) == ["loss", "seconds", "samples_per_second"]
        with pytest.raises(IndexError):
            self.HISTORY[2]
        copied = self.HISTORY.to_dict()
        copied["loss"].append(1.0)
        assert len(self.HISTORY) == 2

    def test_csv(self, tmp_path):
        self.HISTORY.to_csv(tmp_path / "history.csv")
        text = (tmp_path / "history.csv").read_text()
        assert text.splitlines() == [
            "epoch,loss,seconds,samples_per_second",
            "1,3.0,0.5,10.0",
            "2,2.0,0.25,20.0",
        ]

    def test_frame(self):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(self.HISTORY)
        assert frame["epoch"].tolist() == [1, 2]
        assert frame["loss"].tolist() == [3.0, 2.0]

    def test_picture(self, tmp_path):
        pytest.importorskip("matplotlib")
        figure = self.HISTORY.plot(tmp_path / "curves.png", "a title")
        assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
        assert [axes.get_ylabel() for axes in figure.axes] == ["loss"]
        np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [3.0, 2.0])


def test_a_history_cut_short_has_whole_epochs():
    history = History(loss=[3.0, 2.0, 1.0], val_loss=[3.0, 2.0], seconds=[1.0, 1.0, 1.0])
    history.trim()
    assert history.to_dict() == {"loss": [3, 2], "val_loss": [3, 2], "seconds": [1, 1]}
    assert len(list(history)) == 2
    empty = History()
    empty.trim()
    assert len(empty) == 0
