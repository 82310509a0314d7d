"""R², as `evaluate` and the history have it, against its definition and scikit-learn's."""

from __future__ import annotations

import copy
import io
import math
import pickle

import numpy as np
import pytest
from conftest import perceptron

import fastnn
from fastnn import Dense, Network
from fastnn.progress import Lines
from fastnn.scores import Evaluation, RSquared


def r_squared(y, p, weights=None) -> float:
    """Return it by its definition."""
    y, p = (np.asarray(of, float).reshape(len(of), -1) for of in (y, p))
    v = np.ones(len(y)) if weights is None else weights
    mean = np.average(y, axis=0, weights=v)
    return float(np.mean(1 - v @ (y - p) ** 2 / (v @ (y - mean) ** 2)))


def found(y, p, weights=None, parts=1) -> float:
    score = RSquared()
    for rows in np.array_split(np.arange(len(y)), parts):
        score.add(y[rows], p[rows], None if weights is None else weights[rows])
    return score.value


class TestRSquared:
    @pytest.mark.parametrize("parts", [1, 2, 7, 60])
    @pytest.mark.parametrize("outputs", [1, 3])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_is_the_same_in_any_parts(self, rng, outputs, weighted, parts):
        y = 1e6 + rng.normal(size=(60, outputs)) * [1, 10, 100][:outputs]
        y[0] = 0  # from which no mean is to be taken
        p = y + rng.normal(size=y.shape)
        weights = rng.integers(0, 3, 60).astype(float) if weighted else None
        np.testing.assert_allclose(
            found(y, p, weights, parts), r_squared(y, p, weights), rtol=1e-9, atol=1e-9
        )

    def test_is_that_of_sklearn(self, rng):
        metrics = pytest.importorskip("sklearn.metrics")
        y = rng.normal(size=(50, 4))
        y[:, 1], y[:, 2] = 0.5, 2.0  # whose mean scikit-learn has exactly
        p = y + 0.3 * rng.normal(size=y.shape)
        p[:, 2] = 2.0
        weights = rng.integers(1, 5, 50).astype(float)
        for v in (None, weights):
            expected = metrics.r2_score(y, p, sample_weight=v)
            np.testing.assert_allclose(found(y, p, v, parts=3), expected, rtol=1e-12)

    def test_targets_that_are_all_the_same(self):
        y = np.full((10, 1), 0.1)
        assert found(y, y, parts=3) == 1.0
        assert found(y, y + 1e-9, parts=3) == 0.0

    @pytest.mark.parametrize("sentinel", [-1e9, np.inf, np.nan])
    @pytest.mark.parametrize("parts", [1, 3, 200])
    @pytest.mark.parametrize("row", [0, 100])
    def test_rows_of_weight_0_do_not_count(self, rng, row, parts, sentinel):
        y = rng.normal(size=(200, 2))
        p, weights = y + 0.1 * rng.normal(size=y.shape), rng.random(200)
        weights[row] = 0
        rest = weights > 0
        expected = r_squared(y[rest], p[rest], weights[rest])
        for spoilt in (y, p):
            kept, spoilt[row] = spoilt[row].copy(), sentinel
            np.testing.assert_allclose(found(y, p, weights, parts), expected, rtol=1e-12)
            spoilt[row] = kept

    def test_a_first_row_that_hardly_counts(self, rng):
        y = rng.normal(size=200)
        p, weights = y + 0.1 * rng.normal(size=200), np.ones(200)
        y[0] = p[0] = -1e9
        weights[0] = 1e-18
        np.testing.assert_allclose(found(y, p, weights), r_squared(y, p, weights), rtol=1e-9)

    def test_what_has_none(self):
        assert math.isnan(RSquared().value)
        assert math.isnan(found(np.ones((1, 1)), np.ones((1, 1))))
        y = np.arange(4.0)
        for wrong in (np.array([0, 1, np.nan, 3]), np.full(4, np.nan)):
            assert math.isnan(found(y, wrong))
            assert math.isnan(found(np.ones(4), wrong))
        assert found(y, np.array([0, 1, np.inf, 3])) == -math.inf


@pytest.mark.usefixtures("backend")
class TestEvaluate:
    def test_real_targets(self, rng, dtype):
        X = rng.normal(size=(4500, 5))  # more rows than are predicted at once
        y = X[:, :2] + rng.normal(size=(4500, 2))
        weights = rng.random(4500)
        for loss in ("mse", "half_squared_error"):
            network = perceptron(5, 4, 2, loss=loss, dtype=dtype, seed=0)
            p = network.predict(X)
            test = network.evaluate(X, y)
            np.testing.assert_allclose(test.r2, r_squared(y.astype(dtype), p), rtol=1e-9)
            weighted = network.evaluate(X, y, sample_weight=weights)
            expected = r_squared(y.astype(dtype), p, weights)
            np.testing.assert_allclose(weighted.r2, expected, rtol=1e-9)
            assert test.accuracy is weighted.accuracy is None
        network = perceptron(5, 4, 1, loss="mse", dtype=dtype, seed=0)
        column = network.evaluate(X, y[:, 0])
        assert column.r2 == network.evaluate(X, y[:, :1]).r2
        np.testing.assert_allclose(
            column.r2, r_squared(y[:, 0].astype(dtype), network.predict(X)), rtol=1e-9
        )

    def test_of_counts_it_is_that_of_the_rates(self, rng):
        X, y = rng.normal(size=(30, 3)), rng.poisson(2, 30)
        network = perceptron(3, 1, loss="poisson", seed=0, dtype=np.float64)
        rates = np.exp(network(X))
        np.testing.assert_allclose(network.evaluate(X, y).r2, r_squared(y, rates), rtol=1e-12)

    def test_under_a_loss_of_ones_own(self, rng):
        X = rng.normal(size=(30, 3))
        network = perceptron(3, 2, seed=0)
        network.use(
            lambda y, p: np.abs(y.reshape(len(p), -1) - p).mean(),
            lambda y, p: np.sign(p - y.reshape(len(p), -1)) / p.size,
        )
        y = rng.normal(size=(30, 2))
        np.testing.assert_allclose(network.evaluate(X, y).r2, r_squared(y, network(X)), rtol=1e-6)
        assert network.evaluate(X, y.reshape(30, 2, 1)).r2 is None
        assert network.evaluate(X, (y > 0).astype(int)).r2 is None

    def test_classes_have_none(self, rng):
        X, y = rng.normal(size=(30, 3)), rng.integers(0, 2, 30)
        for loss in ("softmax_cross_entropy", "mse"):
            test = perceptron(3, 2, loss=loss, seed=0).evaluate(X, y)
            assert test.r2 is None
            assert test.accuracy is not None
        network = perceptron(3, 1, loss="binary_cross_entropy", seed=0)
        assert network.evaluate(X, y).r2 is network.evaluate(X, y / 2).r2 is None

    def test_the_pair_is_what_it_was(self):
        test = Evaluation(0.5, None, 0.25)
        loss, accuracy = test
        assert (loss, accuracy, test.r2, len(test)) == (0.5, None, 0.25, 2)
        assert repr(test) == "Evaluation(loss=0.5, accuracy=None, r2=0.25)"
        for twin in (pickle.loads(pickle.dumps(test)), copy.copy(test), copy.deepcopy(test)):
            assert (twin, twin.r2) == (test, 0.25)
        assert fastnn.Evaluation is Evaluation

    def test_r2_is_kept_with_the_pair(self):
        test = Evaluation(0.5, None, 0.25)
        assert test._asdict() == {"loss": 0.5, "accuracy": None, "r2": 0.25}
        changed = test._replace(loss=2.0)
        assert (type(changed), tuple(changed), changed.r2) == (Evaluation, (2.0, None), 0.25)
        assert test._replace(r2=0.75).r2 == 0.75
        assert test.__replace__(accuracy=1.0) == Evaluation(0.5, 1.0, 0.25)
        with pytest.raises(TypeError, match="lost"):
            test._replace(lost=2.0)
        with pytest.raises(AttributeError):
            test.r2 = 0.75
        assert test.r2 == 0.25

    def test_equal_ones_have_equal_r2(self):
        test, twin, other = (Evaluation(0.5, None, r2) for r2 in (0.25, 0.25, 0.75))
        assert test == twin
        assert not test != twin  # noqa: SIM202
        assert test != other
        assert not test == other  # noqa: SIM201
        assert test == (0.5, None)
        assert (0.5, None) == test  # noqa: SIM300
        assert test != (0.5, 1.0)
        assert test != "no pair"
        assert len({test, twin, other}) == 2
        assert hash(test) == hash((0.5, None))


class TestFit:
    def trained(self, rng, **options) -> fastnn.History:
        X = rng.normal(size=(100, 3))
        self.network = Network([Dense(3, 1, 0.01)], loss="mse", seed=0)
        return self.network.fit(X, X @ [1, 2, 3], epochs=3, validation_split=0.3, **options)

    def test_history_and_lines(self, rng):
        printed = io.StringIO()
        history = self.trained(rng, train_accuracy=True, progress=Lines(printed))
        assert len(history.val_r2) == len(history.train_r2) == 3
        assert history.val_r2[0] < history.val_r2[-1] < 1
        assert history[-1]["val_r2"] == history.val_r2[-1]
        last = printed.getvalue().splitlines()[-1]
        assert f"  r2 val {history.val_r2[-1]:.4f} train {history.train_r2[-1]:.4f}  " in last
        assert history.val_accuracy == []

    def test_more_of_it_is_better(self, rng):
        stopping = fastnn.EarlyStopping(patience=5, monitor="val_r2")
        history = self.trained(rng, callbacks=[stopping])
        assert stopping.mode == "max"
        assert stopping.best == max(history.val_r2)

    def test_going_on_from_a_checkpoint_that_is_older(self, rng, tmp_path):
        X = rng.normal(size=(40, 3))
        y, file = X @ [1, 2, 3], tmp_path / "training"
        options = {"validation_data": (X, y), "checkpoint": file}

        def network() -> Network:
            return Network([Dense(3, 1, 0.01)], loss="mse", seed=0)

        def forget(network, history) -> None:
            history.val_r2.clear()

        network().fit(X, y, epochs=2, callbacks=[forget], **options)
        history = network().fit(X, y, epochs=3, callbacks=[lambda *_: None], resume=file, **options)
        assert len(history) == len(history.val_loss) == 3
        assert np.isnan(history.val_r2).tolist() == [True, True, False]
