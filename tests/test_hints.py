"""Warnings of data that spoil a training: what they say, and when there is none."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

import fastnn
from fastnn import SGD, BatchNorm, Dense, Network, ReLU, Rescaling, standardize

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(200, 4))
LABELS = np.arange(200) % 3


class Frame:
    """What pandas and polars call a table, as far as fastnn looks at it."""

    def __init__(self, values, *columns: str) -> None:
        self.values, self.columns = values, list(columns)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


def network(inputs: int = 4, outputs: int = 3, **options) -> Network:
    return Network([Dense(inputs, 5), ReLU(), Dense(5, outputs)], seed=0, **options)


def warned(net: Network, X, y, **options) -> list[warnings.WarningMessage]:
    """Return the warnings of a training of two epochs."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        net.fit(X, y, **({"epochs": 2, "on_divergence": "warn"} | options))
    return found


def said(net: Network, X, y, **options) -> str:
    """Return what the only warning of a training of two epochs says."""
    (warning,) = warned(net, X, y, **options)
    assert warning.filename == __file__
    return str(warning.message)


@pytest.fixture(params=["numba", "numpy"], autouse=True)
def default_backend(request):
    with fastnn.use_backend(request.param):
        yield


class TestNonFinite:
    """One warning that says where it comes from."""

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_in_inputs(self, bad):
        X = TABLE.copy()
        X[7, 2] = bad
        (warning,) = warned(network(), X, LABELS)
        assert warning.category is RuntimeWarning
        assert re.fullmatch(
            r"the loss of epoch 1 is (nan|inf): X holds NaN or infinity in column 2, in row 7; "
            "fill in or leave out such values",
            str(warning.message),
        )

    def test_too_large_for_the_dtype(self):
        X = TABLE.copy()
        X[7, 2] = 1e300
        text = said(network(), X, LABELS)
        assert "X holds numbers too large for float32 in column 2, in row 7; scale" in text

    def test_in_many_columns(self):
        X = np.tile(TABLE, 3)
        X[5, 1:6] = X[100, 1] = np.nan
        text = said(network(12), X, LABELS)
        assert (
            "holds NaN or infinity 6 times, in columns 1, 2, 3 and 2 more, first in row 5" in text
        )

    def test_the_names_of_columns(self):
        X = TABLE.copy()
        X[9, 3] = np.nan
        text = said(network(), Frame(X, "a", "b", "c", "age"), LABELS)
        assert "in column 3 ('age'), in row 9" in text

    def test_far_down(self):
        X = np.zeros((10_000, 4), np.float32)
        X[9_999, 1] = np.nan
        assert "in column 1, in row 9999" in said(network(), X, np.arange(10_000) % 3)

    def test_in_targets(self):
        y = TABLE[:, :1].copy()
        y[3] = np.nan
        text = said(network(outputs=1, loss="mse"), TABLE, y)
        assert "y holds NaN or infinity in row 3; fill in" in text
        y = TABLE[:, :2].copy()
        y[3, 1] = y[4, 0] = np.nan
        text = said(network(outputs=2, loss="mse"), TABLE, y)
        assert "y holds NaN or infinity 2 times, in columns 0, 1, first in row 3" in text

    def test_in_validation_data_alone(self):
        X = TABLE.copy()
        X[7, 2] = np.nan
        text = said(network(), TABLE, LABELS, validation_data=(X, LABELS))
        assert text.startswith(
            "the validation loss of epoch 1 is nan: validation_data[0] holds NaN or infinity in "
            "column 2, in row 7"
        )

    def test_data_without_any(self):
        text = said(network(optimizer=SGD(1e30)), TABLE, LABELS)
        assert re.fullmatch(
            r"the loss of epoch [12] is (nan|inf): training has diverged; try a smaller learning "
            "rate",
            text,
        )

    def test_it_comes_as_soon_as_it_is_known(self):
        """In the midst of the first epoch, of which there are many."""
        X = TABLE.copy()
        X[:, 0] = np.nan
        steps = []

        class Counting(fastnn.Layer):
            def forward(self, input):
                steps.append(len(input))
                return input

            def backward(self, input, grad_output):
                return grad_output

        net = Network([Dense(4, 3), Counting()], seed=0)
        with pytest.raises(RuntimeWarning, match="X holds NaN or infinity 200 times, in column 0"):
            net.fit(X, LABELS, batch_size=20, epochs=10, on_divergence="warn")
        assert len(steps) < 10


PIXELS = np.minimum(RNG.integers(0, 2, (200, 64)) * RNG.integers(0, 300, (200, 64)), 255)


class TestInputs:
    @pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
    def test_raw_pixels(self, dtype):
        (warning,) = warned(network(64), PIXELS.astype(dtype), LABELS)
        assert warning.category is UserWarning
        assert str(warning.message) == (
            "X: looks like raw pixels, with values up to 255, from which a network learns badly; "
            "begin the network with fastnn.Rescaling(1 / 255), or train on X / 255"
        )

    def test_what_it_says_to_do_helps(self):
        net = Network([Rescaling(1 / 255), Dense(64, 3)], seed=0)
        assert warned(net, PIXELS.astype(np.uint8), LABELS) == []
        assert warned(network(64), PIXELS / 255, LABELS) == []

    def test_a_table_of_large_columns(self):
        X = TABLE * [1, 1, 1, 40_000] + [0, 0, 30, 0]
        net = network(optimizer=SGD(1e-9))
        text = said(net, Frame(X, "a", "b", "age", "income"), LABELS)
        largest = np.abs(X[::2, 3]).max()
        assert text == (
            "X: 2 of 4 columns often go beyond 10, such as column 3 ('income') with values up to "
            f"{largest:,.0f}; a network learns badly from inputs far from 1. Scale each column: "
            "train on fastnn.standardize(X, axis=0), and predict from "
            "fastnn.standardize(X_new, X, axis=0)"
        )
        assert warned(network(), standardize(X, axis=0), LABELS) == []

    def test_negative_columns(self):
        X = np.column_stack([TABLE[:, :3], -1000 + TABLE[:, 3]])
        assert "column 3 with values up to 1,00" in said(network(optimizer=SGD(1e-9)), X, LABELS)

    @pytest.mark.parametrize(
        "values",
        [
            RNG.standard_cauchy((5000, 4)).clip(-1e4, 1e4),
            RNG.lognormal(0, 3, (5000, 4)),
            (RNG.random((5000, 4)) < 0.004).astype(float),
            10.0 ** RNG.integers(0, 6, (5000, 4)),
        ],
        ids=["cauchy", "lognormal", "rare", "powers"],
    )
    def test_no_standardised_table(self, values):
        X = standardize(values, axis=0)
        assert np.abs(X).max() > 10 or values.max() == 1e5
        assert warned(network(optimizer=SGD(1e-6)), X, np.arange(5000) % 3) == []

    def test_no_digits_of_mnist(self, digits):
        X, y = digits[:2]
        assert warned(network(784, 10), X, y, epochs=1) == []
        assert warned(network(784, 10), standardize(X, axis=0), y, epochs=1) == []

    @pytest.mark.parametrize("first", [BatchNorm(4), Rescaling(0.01)])
    def test_no_network_that_scales(self, first):
        net = Network([first, Dense(4, 3)], seed=0)
        assert warned(net, 100 * TABLE, LABELS) == []

    def test_small_whole_numbers_have_no_larger_negative(self):
        X = np.tile(np.array([1, 59, 30, 2], np.uint8), (len(LABELS), 1))
        assert "column 1 with values up to 59;" in said(network(optimizer=SGD(1e-9)), X, LABELS)

    def test_no_counts_of_a_table_are_pixels(self):
        X = np.column_stack([PIXELS[:, :3], TABLE[:, 0] > 0])
        assert "3 of 4 columns often go beyond 10" in said(network(optimizer=SGD(1e-9)), X, LABELS)

    def test_a_few_rows(self):
        assert warned(network(optimizer=SGD(1e-9)), 100 * TABLE[:1], LABELS[:1])
        assert warned(network(), TABLE[:1], LABELS[:1]) == []


class TestTargets:
    def test_of_prices(self):
        y = 200_000 + 50_000 * TABLE[:, 0]
        net = network(outputs=1, loss="mse", optimizer=SGD(1e-12))
        assert said(net, TABLE, y) == (
            f"y: targets are as large as {y[::2].max():,.0f}; the steps of training grow with them "
            "and may end in NaN. Train on (y - y.mean()) / y.std(), and turn predictions back by "
            "* y.std() + y.mean()"
        )
        scaled = (y - y.mean()) / y.std()
        assert warned(network(outputs=1, loss="mse"), TABLE, scaled) == []

    def test_of_several_columns(self):
        y = TABLE[:, :2] * [1, -1000]
        net = network(outputs=2, loss="mse", optimizer=SGD(1e-12))
        assert "Train on (y - y.mean(axis=0)) / y.std(axis=0)" in said(net, TABLE, y)

    def test_not_of_a_loss_of_ones_own(self):
        net = network(outputs=1, optimizer=SGD(1e-12))
        net.use(lambda t, p: np.mean(t), lambda t, p: 0 * p)
        assert warned(net, TABLE, 1000 * TABLE[:, 0]) == []


class TestClasses:
    def test_labels_that_count_from_one(self):
        assert said(network(outputs=4), TABLE, LABELS + 1) == (
            "y: no sample is of class 0; labels go from 1 to 3, and the 4 outputs are for classes "
            "0 to 3; if labels count from 1, write y - 1, and 3 outputs"
        )
        assert said(network(outputs=7), TABLE, LABELS + 1).endswith(
            "; if labels count from 1, write y - 1"
        )

    def test_a_gap(self):
        assert said(network(outputs=5), TABLE, LABELS * 2) == (
            "y: no sample is of classes 1, 3; labels go from 0 to 4, and the 5 outputs are for "
            "classes 0 to 4; np.unique(y, return_inverse=True)[1] counts those that occur from 0"
        )

    def test_outputs_to_spare(self):
        text = said(network(outputs=9, loss="mse"), TABLE, LABELS)
        assert "no sample is of classes 3, 4, 5 and 3 more; labels go from 0 to 2" in text
        assert text.endswith("if there are no more classes, the last layer needs no more than 3")

    def test_not_of_few_samples(self):
        assert warned(network(outputs=9), TABLE[:89], LABELS[:89]) == []
        assert warned(network(outputs=9), TABLE[:90], LABELS[:90])

    def test_not_of_real_targets(self):
        assert warned(network(outputs=1, loss="mse"), TABLE, LABELS) == []


class TestTimes:
    def test_each_once(self):
        X = TABLE * [1, 1, 1, 1e6]
        found = warned(network(), X, LABELS, epochs=5)
        assert [warning.category for warning in found] == [UserWarning, RuntimeWarning]
        again = network()
        assert len(warned(again, X, LABELS)) == len(warned(again, X, LABELS)) == 2

    def test_what_goes_on_has_been_told(self, tmp_path):
        file = tmp_path / "training"
        net = network(optimizer=SGD(1e-9))
        assert len(warned(net, 100 * TABLE, LABELS, checkpoint=file)) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fastnn.resume(file, 100 * TABLE, LABELS, epochs=3)

    def test_the_line_of_the_caller(self, tmp_path):
        file = tmp_path / "training"
        X = TABLE.copy()
        X[0] = np.nan
        warned(network(), X, LABELS, checkpoint=file)
        with pytest.warns(RuntimeWarning, match="the loss of epoch 3") as found:
            fastnn.resume(file, X, LABELS, epochs=3, on_divergence="warn")
        assert [warning.filename for warning in found] == [__file__]


class TestBlocks:
    """Data that go by block by block: what the first one shows."""

    def warned(self, net, *blocks) -> list[str]:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            net.fit_blocks(list(blocks))
        assert {warning.filename for warning in found} <= {__file__}
        return [str(warning.message) for warning in found]

    def test_inputs_and_targets(self):
        net = network(outputs=1, loss="mse", optimizer=SGD(1e-12))
        inputs, targets = self.warned(net, (100 * TABLE, 1000 * TABLE[:, 0]))
        assert inputs.startswith("X: 4 of 4 columns often go beyond 10")
        assert targets.startswith("y: targets are as large as")

    def test_not_of_classes_that_come_later(self):
        assert self.warned(network(), (TABLE, 0 * LABELS), (TABLE, LABELS)) == []


def test_counts_are_not_to_be_standardised(rng):
    """What Poisson's loss would refuse."""
    X = rng.normal(size=(50, 3))
    fastnn.Network([fastnn.Dense(3, 1)], loss="poisson").fit(X, rng.integers(20, 50, 50))


class TestNaNInPredictions:
    """Of rows few and many, which take different kernels."""

    @pytest.mark.parametrize("count", [1, 7, 6000])
    @pytest.mark.parametrize("loss", ["softmax_cross_entropy", "binary_cross_entropy"])
    def test_the_row_and_the_column_are_named(self, count, loss, rng):
        network = Network([Dense(4, 5), Dense(5, 3)], loss=loss, seed=0)
        X = rng.normal(size=(count, 4))
        network.predict(X)
        X[-1, 2] = np.nan
        told = (
            rf"X: expected finite numbers, got NaN or infinity in column 2, in row {count - 1}; "
            rf"the outputs of 1 of {count:,} rows are NaN"
        )
        with pytest.warns(RuntimeWarning, match=told) as caught:
            network.predict(X)
        assert [warning.filename for warning in caught] == [__file__]
        with pytest.warns(RuntimeWarning, match=told):
            network.evaluate(X, rng.integers(0, 2, (count, 3) if "binary" in loss else count))

    def test_the_column_of_a_table_is_named(self, rng):
        pandas = pytest.importorskip("pandas")
        table = pandas.DataFrame(rng.normal(size=(9, 2)), columns=["age", "weight"])
        table.loc[3:, "weight"] = np.nan
        network = Network([Dense(2, 3)], seed=0)
        told = r"in column 1 \('weight'\), in row 3; the outputs of 6 of 9 rows"
        with pytest.warns(RuntimeWarning, match=told):
            network.predict(table)

    def test_a_network_of_nan_is_told_from_data(self, rng):
        network = Network([Dense(4, 3)], seed=0)
        network.set_weights([np.full((4, 3), np.nan), np.zeros(3)])
        X = rng.normal(size=(3, 4))
        with pytest.warns(RuntimeWarning, match="expected a network whose outputs are numbers"):
            network.predict(X)
        assert np.isnan(network.evaluate(X, np.arange(3)).loss)  # which tells by itself

    def test_numbers_too_large_for_the_dtype(self):
        network = Network([Dense(2, 2)], seed=0)
        network.set_weights([np.array([[1, 1], [-1, -1]]), np.zeros(2)])
        with pytest.warns(RuntimeWarning, match="X: expected numbers within float32, got larger"):
            network.predict([[1e300, 1e300]])

    def test_infinity_that_gives_an_answer_is_none(self):
        network = Network([Dense(1, 2)], seed=0)
        network.set_weights([np.array([[1, -1]]), np.zeros(2)])
        np.testing.assert_array_equal(network.predict([[np.inf], [-np.inf]]), [0, 1])

    def test_answers_that_are_nan_themselves_tell(self):
        network = Network([Dense(1, 1)], loss="mse", seed=0)
        assert np.isnan(network.predict([[np.nan]])).all()
