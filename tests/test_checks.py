"""Each check at the edge of what it takes, and every word of what it says."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas
import pytest

import fastnn
from fastnn import checks

NAN, INF = math.nan, math.inf


def refused(error: type[Exception], message: str):
    """Expect an error of exactly this message."""
    return pytest.raises(error, match=f"^{re.escape(message)}$")


def test_lists_within_lists():
    assert list(checks.flat([1, [(2, 3), []], "ab"])) == [1, 2, 3, "ab"]
    assert list(checks.flat(None)) == [None]


class TestIntegers:
    def test_edges(self):
        assert checks.integer("n", 1, minimum=1) == 1
        assert checks.integer("n", np.int8(-3), minimum=-3) == -3
        assert type(checks.integer("n", np.uint64(2**63 - 1), minimum=0)) is int
        assert checks.integer("n", 10**5000, minimum=0, any_size=True) == 10**5000
        assert checks.steps("n", 0) == 0
        assert checks.steps("n", 2**53) == 2**53

    def test_what_no_machine_counts(self):
        with refused(ValueError, "n: expected an integer below 2^63, got 9223372036854775808"):
            checks.integer("n", 2**63, minimum=0)
        with refused(ValueError, "n: expected an integer below 2^63, got one of 16610 bits"):
            checks.integer("n", 10**5000, minimum=0)
        with refused(ValueError, "n: expected an integer of at least 0, got one of 16610 bits"):
            checks.integer("n", -(10**5000), minimum=0)
        with refused(
            TypeError, "n: expected an integer of at least 0, got list that can't be shown"
        ):
            checks.integer("n", [10**5000], minimum=0)
        checks.held("m, n", 2**20, 2**33)
        with refused(ValueError, f"m, n: expected at most 2^53 numbers, got {2**53 + 2**20}"):
            checks.held("m, n", 2**20, 2**33 + 1)
        with refused(ValueError, f"input_units, output_units: expected at most 2^53 numbers, "
                     f"got {2**80}"):  # fmt: skip
            fastnn.Dense(2**40, 2**40)

    @pytest.mark.parametrize("value", [True, np.True_, np.False_])
    def test_truth_values(self, value):
        with refused(TypeError, f"n: expected an integer of at least 0, got {value!r}"):
            checks.integer("n", value, minimum=0)

    def test_others(self):
        with refused(TypeError, "n: expected an integer of at least 2, got float 2.0"):
            checks.integer("n", 2.0, minimum=2)
        with refused(ValueError, "n: expected an integer of at least 2, got 1"):
            checks.integer("n", 1, minimum=2)
        with refused(ValueError, f"n: expected an integer of at most 2^53, got {2**53 + 1}"):
            checks.steps("n", 2**53 + 1)
        with refused(ValueError, "n: expected an integer of at least 0, got -1"):
            checks.steps("n", -1)


class TestReals:
    def test_edges(self):
        assert checks.real("x", 0, minimum=0.0) == 0.0
        assert checks.real("x", np.float32(0.5), minimum=0.5, below=1.0) == 0.5
        assert checks.real("x", np.nextafter(1.0, 0.0), minimum=0.0, below=1.0) < 1.0
        assert checks.real("x", -1e308) == -1e308
        assert type(checks.real("x", np.array(3), minimum=0.0)) is float

    @pytest.mark.parametrize("value", [NAN, INF, -INF, np.float32("nan")])
    def test_what_is_not_finite(self, value):
        with refused(ValueError, f"x: expected a finite number, got {float(value)}"):
            checks.real("x", value)

    @pytest.mark.parametrize(
        ("limits", "expected", "value"),
        [
            ({"minimum": 0.5}, "a finite number of at least 0.5", 0.25),
            ({"below": 1.0}, "a finite number and below 1", 1.0),
            ({"minimum": 0.0, "below": 1.0}, "a finite number of at least 0 and below 1", 1.0),
        ],
    )
    def test_ranges(self, limits, expected, value):
        with refused(ValueError, f"x: expected {expected}, got {value}"):
            checks.real("x", value, **limits)

    @pytest.mark.parametrize(
        "value", [True, "1", 1j, None, [1.0], np.ones(1), [[1], [1, 2]], np.array("1")]
    )
    def test_what_is_no_number(self, value):
        got = f"{type(value).__name__} {value!r}"
        with refused(TypeError, f"x: expected a finite number, got {got}"):
            checks.real("x", value)

    def test_clip_norm(self):
        assert checks.clip_norm("c", None) is None
        assert checks.clip_norm("c", 1e-300) == 1e-300
        with refused(ValueError, "c: expected None or a number above 0, got 0.0"):
            checks.clip_norm("c", 0)
        with refused(ValueError, "c: expected a finite number of at least 0, got -1.0"):
            checks.clip_norm("c", -1)


class TestOtherArguments:
    def test_flags(self):
        assert checks.flag("f", np.True_) is True
        assert checks.flag("f", False) is False
        with refused(TypeError, "f: expected True or False, got int 1"):
            checks.flag("f", 1)

    def test_functions(self):
        assert checks.function("f", len) is len
        with refused(TypeError, "f: expected a function, got int 3"):
            checks.function("f", 3)

    def test_a_long_value_is_cut(self):
        whole, cut = "x" * 58, "x" * 59  # and quotes
        with refused(TypeError, f"f: expected a function, got str {whole!r}"):
            checks.function("f", whole)
        with refused(TypeError, f"f: expected a function, got str '{'x' * 56}..."):
            checks.function("f", cut)

    def test_texts_from_elsewhere(self):
        """What would move a cursor, or hide what follows, is shown as Python writes it."""
        plain = "a file, ä, 漢 \"'"
        assert checks.printable(plain) == plain
        obeyed = "one\ntwo\x1b[2J\r\u202e\ud800"
        assert checks.printable(obeyed) == "one\ntwo\\x1b[2J\\r\\u202e\\ud800"
        longest = "a" * 500 + "b" * 500
        assert checks.message(longest) == longest
        found = checks.message("a" * 501 + "c" + "b" * 501)
        assert found == "a" * 500 + " ... " + "b" * 500
        assert checks.message("\n" + 1000 * "a" + "\r") == f"\n{499 * 'a'} ... {498 * 'a'}\\r"

    def test_a_view_that_is_read_only(self):
        array = np.zeros(2)
        view = checks.read_only(array)
        assert view.base is array
        assert array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 1

    @pytest.mark.parametrize("value", [np.float32, "f4", "float64", np.dtype(">f8").newbyteorder()])
    def test_dtypes(self, value):
        assert checks.float_dtype("d", value) == np.dtype(value)

    @pytest.mark.parametrize("value", [None, np.float16, "int32", "no", 3, [1], "f4,"])
    def test_other_dtypes(self, value):
        with refused(TypeError, f"d: expected float32 or float64, got {value!r}"):
            checks.float_dtype("d", value)

    def test_generators(self):
        assert checks.generator("s", 3).integers(100) == np.random.default_rng(3).integers(100)
        own = np.random.default_rng(0)
        assert checks.generator("s", own) is own
        assert checks.generator("s", None) is not checks.generator("s", None)

    @pytest.mark.parametrize("seed", [True, 1.0, "1", b"1"])
    def test_what_is_no_seed(self, seed):
        with refused(TypeError, f"s: expected None, an integer or a Generator, got {seed!r}"):
            checks.generator("s", seed)

    @pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (object, TypeError)])
    def test_what_numpy_takes_for_no_seed(self, seed, error):
        expected = "s: expected None, an integer of at least 0 or a Generator"
        with refused(error, f"{expected}, got {type(seed).__name__} {seed!r}"):
            checks.generator("s", seed)


class TestArrays:
    @pytest.mark.parametrize("kind", "?bBhHiIlLefd")
    def test_numbers_are_handed_on(self, kind):
        array = np.zeros((2, 3), kind)
        assert checks.numeric("X", array) is array
        assert checks.matrix("X", array) is array
        assert checks.matrix("X", array, units=3) is array
        assert checks.filled("X", array) is array
        assert checks.shaped("X", array, (2, 3)) is array

    def test_what_is_no_array_of_numbers(self):
        with refused(TypeError, "X: expected an array of real numbers, got dtype complex128"):
            checks.numeric("X", [1j])
        with refused(ValueError, "X: expected a regular array of numbers, got ragged data"):
            checks.numeric("X", [[1], [1, 2]])
        with refused(TypeError, "X: expected an array without masked elements"):
            checks.numeric("X", np.ma.array([1.0, 2.0], mask=[True, False]))
        assert checks.numeric("X", np.ma.array([1.0])).tolist() == [1.0]

    @pytest.mark.parametrize("table", [[["a"], ["b"]], [[b"a"]], [[{}]]])
    def test_a_table_with_text(self, table):
        dtype = np.asarray(table).dtype
        hint = "; of a table with text write pandas.get_dummies(X).astype(float)"
        message = f"X: expected an array of real numbers, got dtype {dtype}{hint}"
        with refused(TypeError, message):
            checks.numeric("X", table)
        with refused(TypeError, message.removesuffix(hint)):
            checks.numeric("X", table[0])

    def test_a_sparse_matrix(self):
        sparse = pytest.importorskip("scipy.sparse").csr_array(np.eye(2))
        message = (
            "X: expected a dense array, got a sparse one; write X.toarray(), or train an estimator "
            "of fastnn.sklearn, which takes sparse data as they are"
        )
        with refused(TypeError, message):
            checks.numeric("X", sparse)

    @pytest.mark.parametrize(
        "frame",
        [
            pandas.DataFrame({"a": [1, None], "b": [0.5, 2]}).convert_dtypes(),
            pandas.DataFrame({"a": pandas.array([1, None], "Int8"), "b": [True, False]}),
        ],
    )
    def test_columns_that_may_lack_numbers(self, frame):
        found = checks.numeric("X", frame)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found[0], np.array(frame.iloc[0], np.float64))
        assert np.isnan(found[1, 0])

    @pytest.mark.parametrize(
        "value",
        [
            pandas.DataFrame({"a": [1, None], "b": ["x", "y"]}).convert_dtypes(),
            np.array([[None, 1]], object),
            [[object()]],
        ],
    )
    def test_columns_that_hold_something_else(self, value):
        with pytest.raises(TypeError, match="expected an array of real numbers, got dtype object"):
            checks.numeric("X", value)

    def test_shapes(self):
        for shape, hint in (
            ((), ""),
            ((2,), "; a single sample is X[np.newaxis]"),
            ((1, 2, 1), "; flatten images first, for example with load_dataset(flatten=True)"),
        ):
            with refused(ValueError, f"X: expected shape [batch, units], got {shape}{hint}"):
                checks.matrix("X", np.zeros(shape))
        with refused(ValueError, "X: expected shape [batch, 2], got (2,); a single sample is [X]"):
            checks.matrix("X", [1, 2], units=2)
        with refused(ValueError, "X: expected shape [batch, 3], got (2,)"):
            checks.matrix("X", np.zeros(2), units=3)
        with refused(ValueError, "X: expected shape [batch, 3], got (4, 2)"):
            checks.matrix("X", np.zeros((4, 2)), units=3)
        with refused(ValueError, "X: expected shape [batch, 3], got (0, 2)"):
            checks.matrix("X", np.zeros((0, 2)), units=3)
        for shape in ((0, 3), (3, 0)):
            message = f"X: expected at least one row and column, got shape {shape}"
            with refused(ValueError, message):
                checks.matrix("X", np.zeros(shape))
            with refused(ValueError, f"X: expected at least one number, got shape {shape}"):
                checks.filled("X", np.zeros(shape))
        with refused(ValueError, "X: expected shape (2,), got (2, 1)"):
            checks.shaped("X", np.zeros((2, 1)), (2,))

    def test_all_name_the_argument(self):
        for check in (checks.filled, lambda *a: checks.shaped(*a, (1,)), checks.floating_matrix):
            with refused(TypeError, "X: expected an array of real numbers, got dtype <U1"):
                check("X", ["a"])

    def test_floating_matrices(self):
        for dtype in (np.float32, np.float64):
            array = np.zeros((1, 1), dtype)
            assert checks.floating_matrix("X", array) is array
            assert checks.floating_matrix("X", array.tolist()).dtype == np.float64
        assert checks.floating_matrix("X", np.zeros((1, 1), np.int8)).dtype == np.float64
        assert checks.floating_matrix("X", np.zeros((1, 1), np.float16)).dtype == np.float32
        for shape in ((3,), (0, 3), (1, 1, 1)):
            with pytest.raises(ValueError, match=r"^X: expected "):
                checks.floating_matrix("X", np.zeros(shape, np.float32))
        if np.dtype(np.longdouble).itemsize > 8:
            with pytest.raises(TypeError, match=r"^X: expected data that computes in float32"):
                checks.floating_matrix("X", np.zeros((1, 1), np.longdouble))

    def test_compute_dtype(self):
        single, double, half = map(np.dtype, "fde")
        assert checks.compute_dtype("X", single, single) == single
        assert checks.compute_dtype("X", single, double) == double
        assert checks.compute_dtype("X", double, single) == double
        assert checks.compute_dtype("X", single, half) == single
        message = "X: expected data that computes in float32 or float64, got float16"
        with refused(TypeError, message):
            checks.compute_dtype("X", half)


class TestLabels:
    @pytest.mark.parametrize("kind", "bBhHiIlLfd")
    def test_a_copy_in_64_bits(self, kind):
        given = np.array([0, 2, 1], kind)
        found = checks.labels("y", given, batch=3, classes=3)
        assert found.dtype == np.int64
        assert found.tolist() == [0, 2, 1]
        assert not np.shares_memory(found, given)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ([0, 3, 3], "class ids from 0 to 2, got 3 at index 1" "; {unique}"),
            ([0, 1, -1], "class ids from 0 to 2, got -1 at index 2" "; {unique}"),
            ([0, 3, 1], "class ids from 0 to 2, got 3 at index 1" "; {unique}"),
            ([1, 2, 3], "class ids from 0 to 2, got 3 at index 2; of labels that count from 1 "
             "write y - 1"),
            ([1, 2, 4], "class ids from 0 to 2, got 4 at index 2" "; {unique}"),
            ([0, 0.5, 0.25], "whole class ids, got 0.5 at index 1"),
            ([0, 0, NAN], "whole class ids, got nan at index 2"),
            ([0, INF, 0], "whole class ids, got inf at index 1"),
            ([0, 1], "3 class ids, one a row, got 2"),
        ],
    )  # fmt: skip
    def test_refusals(self, given, message):
        unique = "np.unique(y, return_inverse=True)[1] counts the labels that occur from 0"
        with refused(ValueError, f"y: expected {message.format(unique=unique)}"):
            checks.labels("y", given, batch=3, classes=3)

    def test_more_labels_than_outputs(self):
        message = "y: expected class ids from 0 to 1, got 2 at index 2"
        with refused(ValueError, f"{message}; of its 3 classes each needs an output"):
            checks.labels("y", [0, 1, 2], batch=3, classes=2)
        with refused(ValueError, "y: expected class ids from 0 to 0, got 1 at index 1"):
            checks.labels("y", [0, 1, 2], batch=3, classes=1)

    @pytest.mark.parametrize(
        ("shape", "hint"),
        [
            ((3, 1), "; write y.ravel(), or np.ravel(y) of a table; fastnn.sklearn.MLPClassifier "
             "takes a column as it is"),
            ((3, 2), "; of one-hot rows write y.argmax(axis=1)"),
            ((2, 3), ""),
            ((), ""),
        ],
    )  # fmt: skip
    def test_shapes(self, shape, hint):
        message = f"y: expected class ids of shape [3], got shape {shape}{hint}"
        with refused(ValueError, message):
            checks.labels("y", np.zeros(shape), batch=3, classes=2)

    def test_names(self):
        message = (
            "y: expected an array of real numbers, got dtype <U1; names become class ids by "
            "np.unique(y, return_inverse=True)[1], and fastnn.sklearn.MLPClassifier takes them as "
            "they are"
        )
        with refused(TypeError, message):
            checks.labels("y", ["a", "b"], batch=2, classes=2)
        with refused(TypeError, "y: expected an array of real numbers, got dtype complex128"):
            checks.labels("y", [1j], batch=1, classes=2)


class TestWeights:
    def test_a_copy_in_float64(self):
        given = np.array([0.0, 0.25])
        found = checks.weights("w", given, 2)
        assert found.dtype == np.float64
        assert found.tolist() == [0.0, 0.25]
        assert not np.shares_memory(found, given)
        assert checks.weights("w", np.array([1, 0], np.int8), 2).dtype == np.float64
        assert checks.weights("w", np.float32([0.5]), 1).dtype == np.float64

    @pytest.mark.parametrize("wrong", [-1.0, NAN, INF])
    def test_wrong_ones(self, wrong):
        message = f"w: expected finite weights of at least 0, got {wrong} at index 1"
        with refused(ValueError, message):
            checks.weights("w", [1.0, wrong, wrong], 3)

    @pytest.mark.parametrize("given", [[0.0, 0.0], [1e308, 1e308]])
    def test_sums(self, given):
        with (
            np.errstate(over="ignore"),
            refused(ValueError, f"w: expected a finite sum above 0, got {sum(given)}"),
        ):
            checks.weights("w", given, 2)

    def test_shape(self):
        with refused(ValueError, "w: expected shape (3,), got (2,)"):
            checks.weights("w", [1, 1], 3)
