"""Tables of pandas and sparse matrices, as they are handed to a network."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import Dense, Network, ReLU, normalize, standardize

pytestmark = pytest.mark.usefixtures("backend")

NUMBERS = {"a": [1.5, 2.0, 3.0, -1.0], "b": [1, 2, 3, 4], "c": [True, False, True, True]}
Y = [0, 1, 1, 0]


def network() -> Network:
    return Network([Dense(3, 4), ReLU(), Dense(4, 2)], seed=0, dtype="float64")


def trained(X, y=Y):
    trained = network()
    trained.fit(X, y, epochs=2)
    return trained.predict_proba(X)


@pytest.mark.parametrize("kind", ["plain", "nullable", "pyarrow"])
def test_frames_of_numbers(kind):
    """Floats beside a bool column, and columns that may lack numbers, were "dtype object"."""
    pandas = pytest.importorskip("pandas")
    frame, y = pandas.DataFrame(NUMBERS), pandas.Series(Y)
    if kind == "nullable":
        frame, y = frame.convert_dtypes(), y.convert_dtypes()
    elif kind == "pyarrow":
        pytest.importorskip("pyarrow")
        frame = frame.convert_dtypes(dtype_backend="pyarrow")
        y = y.convert_dtypes(dtype_backend="pyarrow")
    expected = trained(np.column_stack([*NUMBERS.values()]).astype(float))
    np.testing.assert_array_equal(trained(frame, y), expected)


def test_what_is_missing_in_a_frame_is_named():
    pandas = pytest.importorskip("pandas")
    lacking = pandas.DataFrame(NUMBERS | {"b": [1, None, 3, 4]}).convert_dtypes()
    with pytest.warns(RuntimeWarning, match=r"X holds NaN or infinity in column 1 \('b'\), in row"):
        network().fit(lacking, Y, on_divergence="warn")
    with pytest.raises(ValueError, match="y: expected whole class ids, got nan at index 1"):
        network().fit(np.ones((3, 3)), pandas.Series([1, None, 0], dtype="Int64"))


@pytest.mark.parametrize(
    "column",
    [["x", "y", "x", "y"], ["1", "2", "3", "4"], [1, "2", 3, 4]],
    ids=["text", "numbers as text", "mixed"],
)
def test_frames_with_text_are_refused(column):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(NUMBERS | {"b": column})
    with pytest.raises(TypeError, match=r"X: expected an array of real numbers, got .*get_dummies"):
        network().fit(frame, Y)


def test_dates_are_refused():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(NUMBERS | {"b": pandas.date_range("2026-01-01", periods=4)})
    with pytest.raises(TypeError, match="X: expected an array of real numbers, got dtype"):
        network().fit(frame, Y)


@pytest.mark.parametrize("kind", ["csr_matrix", "coo_array"])
def test_sparse_matrices_are_told_where_to_go(kind):
    sparse = pytest.importorskip("scipy.sparse")
    X = getattr(sparse, kind)(np.eye(4, 3))
    for call in (network().fit, network().evaluate):
        with pytest.raises(TypeError, match=r"X: .* got a sparse one; write X.toarray\(\), or"):
            call(X, Y)
    with pytest.raises(TypeError, match=r"X: expected a dense array"):
        network().predict(X)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int16", "int64"])
def test_samples_that_lie_by_columns(dtype, rng):
    """The same bits, from a copy that lies by rows: gathering them for each batch was slow."""
    X = rng.integers(0, 3, (70, 5)).astype(dtype)
    expected = parameters_after(X)
    np.testing.assert_array_equal(parameters_after(np.asfortranarray(X)), expected)
    np.testing.assert_array_equal(parameters_after(X[:, ::-1].copy()[:, ::-1]), expected)


def test_samples_in_a_file_that_lie_by_columns_stay_there(tmp_path, rng, monkeypatch):
    X = rng.normal(size=(70, 5))
    np.save(tmp_path / "X.npy", np.asfortranarray(X))
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    monkeypatch.setattr(np, "ascontiguousarray", ContiguousBatches(np.ascontiguousarray))
    np.testing.assert_array_equal(parameters_after(mapped), parameters_after(X))


class ContiguousBatches:
    """`ascontiguousarray`, that refuses to copy all samples."""

    def __init__(self, function):
        self.function = function

    def __call__(self, array, *options):
        base = array
        while isinstance(base, np.ndarray):
            assert not (isinstance(base, np.memmap) and len(array) == len(base)), "a copy of all"
            base = base.base
        return self.function(array, *options)


def parameters_after(X):
    network = Network([Dense(5, 4), ReLU(), Dense(4, 3)], seed=0)
    network.fit(X, np.arange(len(X)) % 3, epochs=2, batch_size=16)
    return np.concatenate([network[0].weights.ravel(), network[2].weights.ravel()])


@pytest.mark.filterwarnings("ignore:X. 1 of 3 columns")
def test_a_table_by_columns_says_nothing_of_overflow():
    """As one by rows: its numbers become float32 all at once, as pandas has them by columns."""
    X = np.asfortranarray([[1e300, 1.0, 2.0], [0.0, 1.0, 2.0]])
    network = Network([Dense(3, 2)], seed=0, dtype="float32")
    with np.errstate(all="raise"):
        history = network.fit(X, [0, 1], on_divergence="ignore", batch_size=1)
    assert not np.isfinite(history.loss).any()


class TestScaling:
    """Of tables whose columns have names; arrays may be images, which have one scale."""

    @pytest.fixture
    def frame(self):
        pandas = pytest.importorskip("pandas")
        return pandas.DataFrame({"age": [31.0, 50, 27, 64], "year": [2001, 1999.5, 2020, 2010]})

    @pytest.mark.parametrize("function", [normalize, standardize])
    def test_columns_of_other_scales_are_told(self, function, frame):
        told = (
            rf"axis: expected 0 .*column 0 \('age'\) spans 37, .*{function.__name__}\(..., axis=0"
        )
        with pytest.warns(UserWarning, match=told) as caught:
            function(frame)
        assert [warning.filename for warning in caught] == [__file__]
        with pytest.warns(UserWarning, match=told):
            function(frame.to_numpy(), frame)
        with pytest.warns(UserWarning, match=told):
            function(frame, frame.to_numpy())

    @pytest.mark.parametrize("function", [normalize, standardize])
    def test_others_are_not(self, function, frame, rng):
        function(frame, axis=0)
        function(frame.to_numpy())
        function(frame[["age"]])
        function(frame - frame.mean())
        function(type(frame)(rng.integers(0, 256, (9, 64)) * (np.arange(64) % 2)))
        function(type(frame)({"constant": [1.0, 1.0], "other": [0.0, 90.0]}))

    @pytest.mark.parametrize("function", [normalize, standardize])
    def test_the_column_of_a_missing_value_is_named(self, function, frame):
        lacking = frame.copy()
        lacking.loc[2, "year"] = np.nan
        told = r"^values, column 1 \('year'\): expected a finite range, got nan in row 2; fill in"
        with pytest.raises(ValueError, match=told):
            function(lacking, axis=0)
        with pytest.raises(ValueError, match=told.replace("values", "reference")):
            function(frame, lacking, axis=0)
        with pytest.raises(ValueError, match=r"^values, column 1: expected .* in row 2"):
            function(lacking.to_numpy(), axis=0)
        with pytest.raises(ValueError, match=r"^values: expected .* got nan in place \(2, 1\)"):
            function(lacking)
