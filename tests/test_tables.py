"""Tables: from named columns to what networks take, and answers back."""

from __future__ import annotations

import io
import json
import math
import re

import numpy as np
import pytest
from conftest import ROOT, perceptron

import fastnn
from fastnn import cli, tables

pandas = pytest.importorskip("pandas")

N = 240


@pytest.fixture
def flowers(rng):
    """A table of three species that are told apart by two numbers and a text."""
    species = rng.choice(["rose", "iris", "tulip, wild"], N)
    place = np.array(["rose", "iris", "tulip, wild"])[:, None] == species
    return pandas.DataFrame(
        {
            "height (cm)": 20 + 30 * place[0] + rng.normal(0, 3, N),
            "petals": rng.integers(4, 7, N) + 10 * place[1],
            "colour": np.where(rng.random(N) < 0.5, "red", np.where(place[2], "white", "blue")),
            "species": species,
        }
    )


@pytest.fixture
def houses(rng):
    """A table whose price follows from the others, with an error of 10,000."""
    area, rooms = rng.gamma(4, 25, N), rng.integers(1, 7, N)
    city, garden = rng.choice(["Paris", "Oslo"], N), rng.random(N) < 0.5
    price = 3000 * area + 50_000 * (city == "Paris") + 9000 * rooms + rng.normal(0, 10_000, N)
    frame = {"area": area, "rooms": rooms, "city": city, "garden": garden, "price": price.round()}
    return pandas.DataFrame(frame)


def prepared(frame, target, **options):
    return tables.prepare(frame, target, **options)


class TestPreparation:
    def test_numbers_are_standardised_by_the_training_rows(self, houses):
        encoding, parts, _ = prepared(houses, "price", seed=3)
        X, y, X_val, y_val, X_test, y_test = parts
        assert [len(part) for part in parts] == [168, 168, 24, 24, 48, 48]
        assert X.dtype == np.float32
        assert encoding.width == X.shape[1] == 6
        np.testing.assert_allclose(X[:, :2].mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(X[:, :2].std(axis=0), 1, rtol=1e-6)
        np.testing.assert_allclose([y.mean(), y.std()], [0, 1], atol=1e-12)
        assert abs(X_val[:, 0].mean()) > 1e-3
        # all rows are there, once
        area, price = encoding.columns[0], encoding.target
        back = np.concatenate([X[:, 0], X_val[:, 0], X_test[:, 0]]) * area.deviation + area.mean
        np.testing.assert_allclose(np.sort(back), np.sort(houses["area"]), rtol=1e-4)
        back = price.decoded(np.concatenate([y, y_val, y_test]))
        np.testing.assert_allclose(np.sort(back), np.sort(houses["price"]), rtol=1e-12)

    def test_seed_decides_the_split(self, houses):
        first, again, other = (prepared(houses, "price", seed=s).parts[0] for s in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_texts_and_truth_values_are_one_hot(self, houses):
        encoding = prepared(houses, "price").encoding
        X = encoding.inputs(houses)
        np.testing.assert_array_equal(X[:, 2], houses["city"] == "Oslo")
        np.testing.assert_array_equal(X[:, 3], houses["city"] == "Paris")
        np.testing.assert_array_equal(X[:, 4], ~houses["garden"])
        np.testing.assert_array_equal(X[:, 5], houses["garden"])

    def test_classes_are_in_order(self, flowers):
        encoding, parts, notes = prepared(flowers, "species")
        assert encoding.target.classes == ("iris", "rose", "tulip, wild")
        assert parts[1].dtype == np.int64
        y = encoding.targets(flowers)
        assert [encoding.target.classes[i] for i in y] == flowers["species"].tolist()
        assert notes[0] == "target: species, 3 classes: iris, rose, tulip, wild"
        told = (
            "2 columns of numbers (height (cm), petals; standardised) and 1 of categories (colour)"
        )
        assert f"{told}: 5 in all" in notes[1]

    def test_numbers_with_a_text_among_them_are_told(self, houses):
        houses["rooms"] = np.where(np.arange(len(houses)) % 7, np.arange(len(houses)) % 5, -1)
        houses["rooms"] = houses["rooms"].astype(str).replace("-1", "unknown")
        told = "of categories, though most of their texts are numbers: rooms (not 'unknown')"
        assert told in prepared(houses, "price").notes
        assert told not in prepared(houses, "price", categorical=["rooms"]).notes
        houses["rooms"] = houses["rooms"].replace("unknown", "3")
        assert not any("of their texts" in note for note in prepared(houses, "price").notes)

    @pytest.mark.parametrize(
        ("target", "kind"),
        [
            (["a", "b"] * 50, tables.Classes),
            ([True, False] * 50, tables.Classes),
            ([0, 1] * 50, tables.Classes),
            ([1.0, 2.0] * 50, tables.Classes),
            ([0.5, 1.5] * 50, tables.Quantity),
            (list(range(1, 11)) * 10, tables.Classes),
            (list(range(3, 23)) * 5, tables.Quantity),  # each value is too rare to be a class
            (list(range(100)), tables.Quantity),
        ],
    )
    def test_task_by_the_values_of_the_target(self, target, kind):
        frame = pandas.DataFrame({"x": np.arange(100.0), "y": target})
        assert isinstance(prepared(frame, "y").encoding.target, kind)
        if not isinstance(target[0], str | bool):
            asked = prepared(frame, "y", task="regression").encoding.target
            assert isinstance(asked, tables.Quantity)

    def test_classes_that_are_numbers(self):
        frame = pandas.DataFrame({"x": np.arange(60.0), "y": [10, 9, 8] * 20})
        target = prepared(frame, "y").encoding.target
        assert target.classes == ("8", "9", "10")
        with_gap = frame.assign(y=frame["y"].where(frame.index > 0))  # which makes floats of them
        assert prepared(with_gap, "y", missing="drop").encoding.target.classes == target.classes

    def test_categorical_and_ignored_columns(self, houses):
        encoding = prepared(houses, "price", categorical=["rooms"], ignore=["garden"]).encoding
        assert encoding.names == ["area", "rooms", "city"]
        assert encoding.columns[1].categories == tuple("123456")
        for kind in (float, np.float32, "Float64", str):
            X = encoding.inputs(houses.assign(rooms=houses["rooms"].astype(kind)))
            np.testing.assert_array_equal(X[:, 1:7].argmax(axis=1), houses["rooms"] - 1)

    @pytest.mark.parametrize("size", [1e200, 1e300, 1.7e308])
    @pytest.mark.parametrize("missing", ["mean", "median"])
    def test_numbers_whose_squares_overflow(self, houses, size, missing):
        signs = np.where(np.arange(N) % 3 == 0, -1.0, 1.0)
        large = houses.assign(area=size * signs, price=size * (houses["price"] / 1e7))
        small = houses.assign(area=signs, price=houses["price"] / 1e7)
        for frame in (large, small):
            frame.loc[::10, "area"] = np.nan
        found, expected = (prepared(f, "price", missing=missing) for f in (large, small))
        for part, other in zip(found.parts, expected.parts, strict=True):
            np.testing.assert_allclose(part, other, rtol=1e-6, atol=1e-12)
        target = found.encoding.target
        np.testing.assert_allclose(
            target.decoded(found.parts[1]) / size,
            expected.encoding.target.decoded(expected.parts[1]),
            rtol=1e-12,
        )
        network = perceptron(found.encoding.width, 1, loss="mse", seed=0)
        X, y = found.parts[4:]
        test = network.evaluate(X, y)
        said, same = (of.encoding.target.report(network, X, y, test) for of in (found, expected))
        pattern = "R² (?:of )?([-.0-9]+)"
        found, expected = (re.findall(pattern, " ".join(text)) for text in (said, same))
        assert len(found) == 2
        assert found == expected

    def test_lists_of_columns(self, houses):
        for name in ("ignore", "categorical"):
            message = f"{name}: expected columns in a list, got 'garden'"
            with pytest.raises(TypeError, match=message):
                prepared(houses, "price", **{name: "garden"})

    @pytest.mark.parametrize("task", [None, "regression"])
    @pytest.mark.parametrize("bad", ["12a3", "1.234,5"])
    def test_one_bad_number_in_the_target(self, houses, task, bad):
        houses["price"] = houses["price"].astype(str)
        houses.loc[7, "price"] = bad
        message = (
            r"column price: expected numbers, .* \(if it is of categories: "
            rf"--task classification\), got '{bad}' in row 8$"
        )
        with pytest.raises(ValueError, match=message):
            prepared(houses, "price", task=task)

    def test_a_seed_below_0(self, houses):
        with pytest.raises(ValueError, match="seed: expected None, an integer of at least 0"):
            prepared(houses, "price", seed=-1)

    def test_a_constant_column_gives_zeros(self, houses):
        encoding = prepared(houses.assign(area=0.1), "price").encoding
        np.testing.assert_allclose(encoding.inputs(houses.assign(area=0.1))[:, 0], 0, atol=1e-15)

    @pytest.mark.parametrize("kind", ["int64", "Int64", "float32", "uint8", "category", "string"])
    def test_dtypes_of_columns(self, houses, kind):
        frame = houses.assign(rooms=houses["rooms"].astype(kind))
        width = 6 if kind in ("category", "string") else 1
        assert prepared(frame, "price").encoding.width == 5 + width


class TestMissing:
    @pytest.fixture
    def gaps(self, houses):
        frame = houses.copy()
        frame.loc[[0, 50, 100], "area"] = np.nan
        frame.loc[[50, 51], "city"] = None
        frame.loc[[7], "price"] = np.nan
        return frame

    def test_refused_by_name_and_count(self, gaps):
        message = "missing: .* some of 239 rows have no value in these columns: area 3, city 2$"
        with pytest.raises(ValueError, match=message):
            prepared(gaps, "price")

    def test_dropped(self, gaps):
        encoding, parts, notes = prepared(gaps, "price", missing="drop")
        assert sum(map(len, parts[::2])) == N - 5
        assert notes[2:] == [
            "left out: 1 of 240 rows without price",
            "left out: 4 of 240 rows with missing values (area 3, city 2)",
        ]
        for column in ("area", "city"):
            bad = gaps[gaps[column].isna()]
            message = rf"column {column}: expected .*, got no value in row {bad.index[0] + 1} and o"
            with pytest.raises(ValueError, match=message):
                encoding.inputs(bad.assign(city="Oslo") if column == "area" else bad.assign(area=1))

    def test_rows_without_a_target_are_left_out_in_any_case(self, houses):
        houses.loc[[7, 9], "price"] = np.nan
        _, parts, notes = prepared(houses, "price")
        assert sum(map(len, parts[::2])) == N - 2
        assert notes[2:] == ["left out: 2 of 240 rows without price"]
        with pytest.raises(ValueError, match="target: expected a value in some row, got none in p"):
            prepared(houses.assign(price=np.nan), "price")

    def test_no_row_is_whole(self, houses):
        houses.loc[::2, "area"] = np.nan
        houses.loc[1::2, "city"] = None
        message = (
            "missing: expected mean or median, as drop leaves none of 240 .* area 120, city 12"
        )
        with pytest.raises(ValueError, match=message):
            prepared(houses, "price", missing="drop")

    @pytest.mark.parametrize("how", ["mean", "median"])
    def test_filled_in(self, gaps, how):
        encoding, parts, notes = prepared(gaps, "price", missing=how)
        assert sum(map(len, parts[::2])) == N - 1
        assert notes[2] == "left out: 1 of 240 rows without price"
        assert "area 3, city 2" in notes[3]
        area, city = encoding.columns[0], encoding.columns[2]
        known = gaps["area"].dropna()
        assert abs(area.missing - getattr(known, how)()) < known.std() / 4
        assert city.missing in ("Oslo", "Paris")
        X = encoding.inputs(gaps)
        np.testing.assert_allclose(X[0, 0], (area.missing - area.mean) / area.deviation, rtol=1e-5)
        filled = gaps.fillna({"city": city.missing, "area": area.missing})
        np.testing.assert_allclose(X, encoding.inputs(filled), rtol=1e-6)

    def test_a_whole_table_needs_no_choice(self, houses):
        notes = prepared(houses, "price", missing="mean").notes
        assert len(notes) == 2


class TestEncoding:
    def test_through_metadata_and_a_file(self, houses, tmp_path):
        frame = houses.assign(area=houses["area"].where(houses.index != 3))
        encoding = prepared(frame, "price", missing="median").encoding
        network = perceptron(encoding.width, 1, loss="mse", seed=0)
        network.metadata[tables.ENTRY] = encoding.as_text()
        network.save(tmp_path / "model")
        loaded = fastnn.load(tmp_path / "model")
        assert tables.Encoding.of(loaded) == encoding
        loaded.save(tmp_path / "again")
        assert tables.Encoding.of(fastnn.load(tmp_path / "again")) == encoding

    def test_a_network_of_no_table(self):
        with pytest.raises(ValueError, match="expected a network that `fastnn train --csv`"):
            tables.Encoding.of(perceptron(3, 2))

    def test_other_columns_and_another_order_are_taken(self, houses):
        encoding = prepared(houses, "price").encoding
        other = houses.assign(more=1)[["more", "city", "garden", "rooms", "area"]]
        np.testing.assert_array_equal(encoding.inputs(other), encoding.inputs(houses))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"area": "large"}, "column area: expected finite numbers, got 'large' in row 1 and o"),
            ({"area": math.inf}, "column area: expected finite numbers, got inf in row 1"),
            (
                {"area": np.datetime64("2020-01-01")},
                "column area: .* finite numbers, got 2020-01-01",
            ),
            (
                {"area": pandas.Timestamp("2020", tz="UTC")},
                "column area: .* numbers, got 2020-01-01",
            ),
            ({"area": pandas.Timedelta(hours=1)}, "column area: .* numbers, got 0 days 01:00"),
            ({"area": pandas.Period("2020")}, "column area: expected finite numbers, got 2020"),
            ({"area": 1 + 2j}, r"column area: expected finite numbers, got \(1\+2j\) in row 1"),
            ({"area": 1e300}, r"column area: .* in the range of float32, got 1e\+300 in row 1 and"),
            ({"city": "Rome"}, "column city: expected one of Oslo, Paris, got 'Rome' in row 1"),
        ],
    )
    def test_values_that_are_refused(self, houses, change, message):
        encoding = prepared(houses, "price").encoding
        with pytest.raises(ValueError, match=message):
            encoding.inputs(houses.assign(**change))

    def test_rows_are_those_of_the_file(self, houses):
        frame = houses.astype({"rooms": float})
        frame.loc[3, "area"] = np.nan
        frame.loc[7, "rooms"] = math.inf
        with pytest.raises(ValueError, match=r"column rooms: .* got inf in row 8$"):
            prepared(frame, "price", missing="drop")
        frame = houses.assign(price=houses["price"].where(houses.index != 2))
        frame.loc[9, "price"] = math.inf
        with pytest.raises(ValueError, match=r"column price: .* got inf in row 10$"):
            prepared(frame, "price", missing="drop")

    @pytest.mark.parametrize(
        ("trained", "row", "place"),
        [
            (["01", "1", "0A"], "01", 0),
            (["01", "1", "0A"], "1", 2),
            (["1.0", "2.0", "big"], "1.0", 0),
            (["TRUE", "maybe"], "TRUE", 0),
            (["TRUE", "FALSE"], "True", 1),
            (["TRUE", "FALSE"], "false", 0),
            (["3", "4"], "4.0", 1),
            (["3", "4"], "03", 0),
            (["0.50", "2"], "0.5", 0),
            (["3", "4", "5+"], "4", 1),
        ],
    )
    def test_categories_that_look_like_others(self, tmp_path, trained, row, place):
        rows = "".join(f"{trained[i % len(trained)]},{i}.5\n" for i in range(30))
        (tmp_path / "t.csv").write_text("kind,y\n" + rows)
        (tmp_path / "new.csv").write_text(f" kind,x\n{row},1\n")
        frame = tables.read(tmp_path / "t.csv")
        encoding = prepared(frame, "y", categorical=["kind"]).encoding
        assert encoding.width == len(trained)
        for again in (
            tables.read(tmp_path / "new.csv", texts=encoding.texts),
            tables.read_rows(io.StringIO(f"{row}\n"), encoding),
        ):
            assert encoding.inputs(again)[0].argmax() == place

    def test_a_number_that_may_be_one_of_several_texts(self):
        frame = pandas.DataFrame({"kind": ["01", "1", "2", "3+"] * 9, "y": np.arange(36) / 7})
        encoding = prepared(frame, "y").encoding
        assert encoding.inputs(pandas.DataFrame({"kind": [2]})).tolist() == [[0, 0, 1, 0]]
        for kind in (1, 1.0, "1 ", "1.0", True):
            with pytest.raises(
                ValueError, match=r"column kind: expected one of 01, 1, 2, 3\+, got"
            ):
                encoding.inputs(pandas.DataFrame({"kind": [kind]}))

    def test_columns_that_are_missing(self, houses):
        encoding = prepared(houses, "price").encoding
        with pytest.raises(ValueError, match=r"columns area, .* none of the name area, city"):
            encoding.inputs(houses[["rooms", "garden"]])
        with pytest.raises(ValueError, match="expected a table of at least one row, got none"):
            encoding.inputs(houses[:0])
        with pytest.raises(ValueError, match="columns price, found none of the name price"):
            encoding.targets(houses.drop(columns="price"))

    def test_numbers_as_texts_are_numbers(self, houses):
        encoding = prepared(houses, "price").encoding
        texts = houses.astype({"rooms": str})
        np.testing.assert_array_equal(encoding.inputs(texts), encoding.inputs(houses))

    def test_report_of_a_quantity(self, houses):
        encoding, parts, _ = prepared(houses, "price")
        network = perceptron(encoding.width, 1, loss="mse", seed=0, learning_rate=0.05)
        network.fit(*parts[:2], epochs=30)
        X, y = parts[4:]
        price = encoding.target.decoded(y)
        p = encoding.target.decoded(network.predict(X)[:, 0])
        loss, found, baseline = encoding.target.report(network, X, y, network.evaluate(X, y))
        assert loss == f"test loss {network.evaluate(X, y).loss:.4f}"
        r2 = 1 - np.square(price - p).sum() / np.square(price - price.mean()).sum()
        assert r2 > 0.95
        root, mean = np.sqrt(np.square(price - p).mean()), np.abs(price - p).mean()
        errors = f"root mean squared error {root:.6g}, mean absolute error {mean:.6g}"
        assert found == f"test R² {r2:.4f}, {errors}"
        assert re.search(r"the mean of the training rows, \d+, has an R² of -0\.\d{4}, ", baseline)


@pytest.mark.parametrize("rows", [60, 240])
def test_texts_of_which_most_are_numbers(houses, rows):
    texts = houses["area"].round(3).astype(str)
    one = houses.assign(area=texts.where(houses.index != 7, "n.k."))[:rows]
    comma = houses.assign(area=texts.str.replace(".", ","))[:rows]
    message = "column area: expected numbers, with a decimal point, .* --categorical area"
    with pytest.raises(ValueError, match=message + r".*, got 'n\.k\.' in row 8$"):
        prepared(one, "price")
    with pytest.raises(ValueError, match=message + r".*, got '\d+,\d+' in row 1 and others"):
        prepared(comma, "price")
    if rows == 60:
        assert prepared(one, "price", categorical=["area"]).encoding.width > 50


def test_a_table_of_names_alone(houses):
    with pytest.raises(ValueError, match=r"^expected a table of at least one row, got none$"):
        prepared(houses[:0], "price")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"target": "cost"}, "target: expected one of the columns area, .*, got 'cost'"),
        ({}, {"ignore": ["x"]}, "ignore: expected one of the columns area, .*, got 'x'"),
        ({}, {"categorical": ["x"]}, "categorical: expected one of the columns"),
        ({}, {"missing": "zero"}, "missing: expected mean or median or drop, got 'zero'"),
        ({}, {"task": "sort"}, "task: expected classification or regression, got 'sort'"),
        ({}, {"target": "city", "task": "regression"}, "target: .* numbers, got city of texts"),
        ({}, {"test_share": 0.001}, "test_share: expected a share of 240 rows that is a row, got"),
        ({}, {"test_share": 1.0}, "test_share: expected a finite number .* below 1"),
        ({}, {"test_share": 0.5, "validation_share": 0.5}, "leave rows for training, got 0.5 and"),
        ({}, {"task": "classification"}, "target: expected classes that occur more than once, got"),
        ({"price": 3}, {"task": "classification"}, "target: expected classes .* got 1 different"),
        ({"area": np.nan}, {}, "of at most 100 categories, but area is empty; .* --ignore area"),
        ({"area": [f"no {i}" for i in range(N)]}, {}, "area has 240 different texts"),
        ({"area": "2020-01-01", "rooms": None}, {}, "but rooms is empty; .* --ignore rooms$"),
        ({"area": np.datetime64("2020-01-01")}, {}, "area holds datetime64"),
        ({"area": [math.inf] * N}, {}, "column area: expected finite numbers, got inf in row"),
        ({}, {"ignore": ["area", "rooms", "city", "garden"]}, "more columns than price, got none"),
    ],
)
def test_mistakes(houses, change, options, message):
    with pytest.raises(ValueError, match=message):
        prepared(houses.assign(**change), **{"target": "price", **options})


class TestLongNames:
    """A name of thousands of characters, as a file may have, is repeated by its ends."""

    names = (*(f"{letter}{'n' * 5000}\x1b{letter}" for letter in "abcdefghij"),)
    shown = re.escape(f"a{'n' * 29} ... {'n' * 25}\\x1ba")

    @pytest.fixture
    def wide(self, rng):
        """A table with them, ten columns of numbers."""
        return pandas.DataFrame(rng.normal(size=(40, 10)), columns=self.names)

    @pytest.mark.parametrize(
        ("change", "options", "message"),
        [
            ({}, {"target": "x"}, "target: expected one of the columns A, b.*, got 'x'"),
            ({}, {"ignore": ["a" * 900]}, r"ignore: .*, got 'a{29} \.\.\. a{29}'$"),
            ({}, {"ignore": names[1:]}, "of more columns than A, got none"),
            ({"a": math.inf}, {}, "column A: expected finite numbers, got inf in row 1 and"),
            ({"a": np.nan}, {}, "target: expected a value in some row, got none in A"),
            ({"b": "text"}, {"target": names[1], "task": "regression"}, "got bn.* of texts"),
            ({}, {"task": "classification"}, "got 40 different values in 40 rows of A"),
            ({"b": [None] + [1.0] * 39}, {}, "in these columns: bn+ .* 1$"),
            (dict.fromkeys("bcdefghij", None), {}, "bn+ .* is empty, .*; .*: --ignore 'bn.*j'$"),
            ({"b": [f"{i}.5" for i in range(39)] + ["t" * 900]}, {}, r"got 't+ \.\.\. t+' in row"),
        ],
    )
    def test_in_what_is_refused(self, wide, change, options, message):
        for letter, values in change.items():
            wide[next(name for name in self.names if name[0] == letter)] = values
        with pytest.raises(ValueError, match=message.replace("A", self.shown)) as refused:
            prepared(wide, **{"target": self.names[0], **options})
        assert len(str(refused.value)) < 2000
        assert "\x1b" not in str(refused.value)

    def test_many_columns(self, rng):
        wide = pandas.DataFrame(np.ones((5, 3000)), columns=[f"column {i}" for i in range(3000)])
        with pytest.raises(ValueError, match=r"columns column 0, .*column 19, \.\.\., got 'x'$"):
            prepared(wide, "x")
        with pytest.raises(ValueError, match=r"--ignore 'column 1' .* 'column 20' \.\.\.$"):
            prepared(wide.assign(**dict.fromkeys(wide.columns[1:], np.nan)), "column 0")

    def test_in_what_is_said_of_a_table(self, wide):
        wide[self.names[2]] = np.where(np.arange(40) % 2, "u" * 900, "v")
        gaps = wide.copy()
        gaps.loc[:5, self.names[4]] = np.nan
        found = prepared(gaps, self.names[0], missing="mean")
        assert re.search(self.shown, found.notes[0])
        assert max(map(len, found.notes)) < 1000
        encoding = found.encoding
        for names in ([], self.names[5:]):
            with pytest.raises(ValueError, match=r"found none of the name [bf]n") as refused:
                encoding.inputs(wide[[*names, self.names[0]]])
            assert len(str(refused.value)) < 2000
        with pytest.raises(
            ValueError, match=r"column cn.*: expected one of .*, got 'w'"
        ) as refused:
            encoding.inputs(wide.assign(**{self.names[2]: "w"}))
        assert len(str(refused.value)) < 300
        with pytest.raises(ValueError, match="a first line with the columns bn") as refused:
            tables.read_rows(io.StringIO("1,2\n"), encoding)
        assert len(str(refused.value)) < 1000

    def test_in_a_file(self, tmp_path, capsys):
        file = tmp_path / "t.csv"
        for content, message in (
            (f"{'n' * 5000},{'n' * 5000}\n1,2\n", "of different names, got 'nn"),
            ("\0" * 5000 + "\n1\n", "expected one of the columns"),
        ):
            file.write_text(content)
            assert cli.main(["train", "--csv", str(file), "--target", "kind"]) != 0
            said = capsys.readouterr().err
            assert message in said
            assert len(said) < 500


class TestReading:
    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_separators_and_columns_without_a_name(self, flowers, tmp_path, separator):
        flowers.to_csv(tmp_path / "t.csv", sep=separator)
        frame = tables.read(tmp_path / "t.csv")
        pandas.testing.assert_frame_equal(frame, flowers, check_dtype=False)

    @pytest.mark.parametrize(
        "content",
        [
            '"a;b;c;d,e";f\n1;2\n',
            '"a,b,c",f\n1,2\n',
            "sep=;\na,b,c;f\n1;2\n",
            "sep=\t\r\na,b;c\tf\r\n1\t2\r\n",
            "\n \n\r\na;f\n1;2\n",
            "\ufeff\na;f\n1;2\n",
        ],
    )
    def test_first_lines(self, content):
        frame = tables.read(io.StringIO(content))
        assert len(frame.columns) == 2
        assert frame["f"].tolist() == [2]
        assert frame.iloc[0, 0] == 1

    @pytest.mark.parametrize("begin", ["\ufeff", "\n", "sep=;\n"])
    def test_first_lines_without_names(self, begin):
        encoding = tables.Encoding(
            (tables.Number("a", 0.0, 1.0), tables.Number("b", 0.0, 1.0)),
            tables.Quantity("y", 0.0, 1.0),
        )
        frame = tables.read_rows(io.StringIO(begin + "1;2\n3;4\n"), encoding)
        assert encoding.inputs(frame).tolist() == [[1, 2], [3, 4]]

    def test_gzip_and_a_byte_order_mark(self, flowers, tmp_path):
        flowers.to_csv(tmp_path / "t.csv.gz", index=False, encoding="utf-8-sig")
        frame = tables.read(tmp_path / "t.csv.gz")
        pandas.testing.assert_frame_equal(frame, flowers, check_dtype=False)

    def test_parquet(self, flowers, tmp_path):
        pytest.importorskip("pyarrow")
        flowers.to_parquet(tmp_path / "t.parquet")
        frame = tables.read(tmp_path / "t.parquet")
        pandas.testing.assert_frame_equal(frame, flowers, check_dtype=False)
        (tmp_path / "t.csv").write_text("a,b\n1,2\n")
        with pytest.raises(ValueError, match=r"t\.csv: expected a Parquet file, got"):
            tables.read(tmp_path / "t.csv", parquet=True)

    def test_blanks_and_question_marks(self, tmp_path):
        (tmp_path / "t.csv").write_text("age, work\n39, Private\n50, ?\n,\n")
        frame = tables.read(tmp_path / "t.csv")
        assert frame.isna().to_numpy().tolist() == [[False, False], [False, True], [True, True]]
        assert frame["work"][0] == "Private"

    @pytest.mark.parametrize("header", ["a,a ,b", "a,b,a", "b, a,a"])
    def test_columns_of_one_name(self, tmp_path, header):
        (tmp_path / "t.csv").write_text(f"{header}\n1,2,3\n")
        with pytest.raises(ValueError, match=r"t\.csv: expected columns of .* got 'a' twice"):
            tables.read(tmp_path / "t.csv")

    @pytest.mark.parametrize("content", [b"", b"a,b\n1,2,3\n1,2,3,4\n", b"\x1f\x8bzip"])
    def test_no_table(self, tmp_path, content):
        (tmp_path / "t.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"t\.csv: expected a CSV file whose first line names"):
            tables.read(tmp_path / "t.csv")

    @pytest.mark.parametrize(
        "content", ["a,b\n1,2,3\n1,2,3\n", "a,b\n\n1,2,\n", '"a,b",c\n1,2,3\n']
    )
    def test_rows_of_more_cells_than_there_are_names(self, tmp_path, content):
        (tmp_path / "t.csv").write_text(content)
        with pytest.raises(
            ValueError, match=r"t\.csv: .* got 3 cells in the first row below 2 nam"
        ):
            tables.read(tmp_path / "t.csv")

    @pytest.mark.parametrize(
        ("encoding", "message"),
        [
            ("latin-1", "got the byte 0xe9 in line 3, so it may be in Latin-1 or Windows-1252; to "
             "convert it: iconv -f WINDOWS-1252 -t UTF-8 '{}' > NEW"),
            ("utf-16", "in line 1, so it may be in UTF-16; to convert it: iconv -f UTF-16 "),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("rows", [1, 10_000])  # in the first piece that is read, or later
    def test_another_encoding(self, tmp_path, encoding, message, rows):
        file = tmp_path / "my table.csv"
        file.write_bytes(("a,b\n1,plain\n2,caf\u00e9\n" + "3,x\n" * rows).encode(encoding))
        with pytest.raises(ValueError, match=re.escape(message.format(file))):
            tables.read(file)
        late = "a,b\n" + "3,x\n" * rows + "2,caf\u00e9\n"
        file.write_bytes(late.encode("latin-1"))
        with pytest.raises(ValueError, match=f"got the byte 0xe9 in line {rows + 2},"):
            tables.read(file)
        stream = io.TextIOWrapper(io.BytesIO(late.encode("latin-1")), errors="surrogateescape")
        with pytest.raises(ValueError, match=f"standard input: expected a .* line {rows + 2},"):
            tables.read(stream)

    def test_names_of_rows_as_r_writes_them(self, tmp_path):
        (tmp_path / "t.csv").write_text('"a","b"\n"1",2,3\n"2",4,5\n')
        with pytest.raises(ValueError, match=r"write\.csv\(table, FILE, row\.names = FALSE\)"):
            tables.read(tmp_path / "t.csv")
        (tmp_path / "t.csv").write_text("a,b\n2,3,\n")
        with pytest.raises(ValueError, match=r"3 cells in the first row below 2 names of columns$"):
            tables.read(tmp_path / "t.csv")

    def test_what_is_left_out_is_said(self, houses, tmp_path):
        houses.to_csv(tmp_path / "t.csv")
        notes = prepared(tables.read(tmp_path / "t.csv"), "price").notes
        assert notes[2] == "left out: 1 column without a name"
        indexed = houses.set_index("city")
        assert "left out: the index (city)" in prepared(indexed, "price").notes
        strings = houses.set_index(houses["city"].to_numpy())
        assert "left out: the index, which has no name" in prepared(strings, "price").notes
        pytest.importorskip("pyarrow")
        indexed.to_parquet(tmp_path / "t.parquet")
        frame = tables.read(tmp_path / "t.parquet")
        assert list(frame.index) == list(range(N))
        assert prepared(frame, "price", ignore=["garden"]).notes[2] == "left out: the index (city)"
        shuffled = houses.sample(frac=1, random_state=0)  # whose index only counts
        assert not [note for note in prepared(shuffled, "price").notes if "left out" in note]

    def test_columns_of_several_kinds_are_read_as_pandas_reads_them_whole(self, tmp_path):
        """Which it reads in parts of a quarter of a megabyte."""
        rows = 200_000
        content = "a,b,c\n" + "1,2,True\n" * rows + "x,2.5,no\n"
        (tmp_path / "t.csv").write_text(content)
        frame = tables.read(tmp_path / "t.csv")
        whole = pandas.read_csv(tmp_path / "t.csv", low_memory=False)
        pandas.testing.assert_frame_equal(frame, whole)
        assert set(frame["a"]) == {"1", "x"}

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="expected a table, found no such file"):
            tables.read(tmp_path / "t.csv")

    def test_rows_with_and_without_names(self, houses):
        encoding = prepared(houses, "price").encoding
        features = houses[encoding.names]
        named = io.StringIO(houses.sample(frac=1, axis=1, random_state=1).to_csv(index=False))
        bare = io.StringIO(features.to_csv(index=False, header=False, sep=";"))
        for source in (named, bare):
            X = encoding.inputs(tables.read_rows(source, encoding))
            np.testing.assert_allclose(X, encoding.inputs(houses), rtol=1e-6)
        for text in ("", "1,2,3\n"):
            with pytest.raises(ValueError, match="expected a first line with the columns area, ro"):
                tables.read_rows(io.StringIO(text), encoding)


def test_pandas_is_named_where_it_is_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    assert cli.main(["train", "--csv", str(tmp_path / "t.csv"), "--target", "a"]) == 2
    assert "tables need pandas: pip install pandas pyarrow" in capsys.readouterr().err


class TestCommands:
    def run(self, capsys, *arguments) -> str:
        code = cli.main([*map(str, arguments)])
        output, errors = capsys.readouterr()
        assert code == 0, errors
        return output

    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    def test_classes(self, flowers, tmp_path, capsys, backend, kind):
        table, model = tmp_path / f"flowers.{kind}", tmp_path / "model"
        if kind == "parquet":
            pytest.importorskip("pyarrow")
            flowers.to_parquet(table)
        else:
            flowers.to_csv(table, index=False)
        options = ("--target", "species", "--hidden", 20, "--epochs", 20, "--save", model)
        printed = self.run(capsys, "train", f"--{kind}", table, *options)
        assert "168 training, 24 validation, 48 test rows" in printed
        assert "5-20-3, relu" in printed
        assert float(re.search(r"^test accuracy (.*)$", printed, re.M)[1]) > 0.9
        assert re.search("^baseline: the most frequent class, '.*', has", printed, re.M)
        network = fastnn.load(model)
        encoding = tables.Encoding.of(network)
        X, y = encoding.inputs(flowers), encoding.targets(flowers)
        printed = self.run(capsys, "evaluate", model, f"--{kind}", table)
        assert f"test accuracy {network.evaluate(X, y).accuracy:.4f}" in printed
        printed = self.run(capsys, "predict", model, table)
        head, *rows = printed.splitlines()
        assert re.split("  +", head.strip()) == ["species", *encoding.target.classes]
        answers = [re.split("  +", row)[1] for row in rows]
        assert answers == [encoding.target.classes[i] for i in network.predict(X)]
        p = [float(row.split()[-1]) for row in rows]
        np.testing.assert_allclose(p, network.predict_proba(X)[:, -1], rtol=0, atol=6e-5)

    def test_answers_in_a_file(self, flowers, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        encoding = prepared(flowers, "species").encoding
        network = perceptron(encoding.width, 3, seed=0)
        network.metadata[tables.ENTRY] = encoding.as_text()
        network.save("model")
        ids = [f"{i:03}" if i else "NA" for i in range(N)]
        pandas.DataFrame({"id": ids, **flowers}).to_csv("new.csv", index=False)
        printed = self.run(capsys, "predict", "model", "new.csv", "--output", "answers.csv")
        assert printed == "240 answers in answers.csv\n"
        answers = pandas.read_csv("answers.csv", dtype={"id": str}, keep_default_na=False)
        classes = list(encoding.target.classes)
        assert list(answers) == ["row", "id", "species", *(f"probability_{c}" for c in classes)]
        assert answers["row"].tolist() == list(range(1, N + 1))
        assert answers["id"].tolist() == ["", *ids[1:]]
        X = encoding.inputs(flowers)
        assert answers["species"].tolist() == [classes[i] for i in network.predict(X)]
        p = answers.iloc[:, 3:].to_numpy(np.float32)
        np.testing.assert_array_equal(p, network.predict_proba(X))
        pandas.DataFrame({"day": pandas.Timestamp("2026-01-02"), **flowers}).to_parquet("p.parquet")
        self.run(capsys, "predict", "model", "p.parquet", "--output", "answers.csv")
        assert pandas.read_csv("answers.csv")["day"][0] == "2026-01-02 00:00:00"

    def test_the_file_of_answers_is_none_that_is_read(self, flowers, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        network = perceptron(2, 3, seed=0)
        network.save("model")
        (tmp_path / "new.csv").write_text("1,2\n3,4\n")
        (tmp_path / "link.csv").symlink_to("new.csv")
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        for output in ("new.csv", "../" + tmp_path.name + "/new.csv", "link.csv", "model"):
            assert cli.main(["predict", "model", "new.csv", "--output", output]) == 2
            assert f"--output: expected a file of its own, got {output}" in capsys.readouterr().err
        assert cli.main(["predict", "model", "new.csv", "--output", "none/a.csv"]) == 2
        assert "--output: expected a file in an existing dir" in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        assert (
            self.run(capsys, "predict", "model", "new.csv", "--output", "a") == "2 answers in a\n"
        )
        lines = (tmp_path / "a").read_text().splitlines()
        assert lines[0] == "row,answer,probability_0,probability_1,probability_2"
        p = network.predict_proba([[1, 2], [3, 4]])
        assert lines[2].split(",") == ["2", str(p[1].argmax()), *map(str, p[1])]

    def test_a_quantity(self, houses, tmp_path, capsys, monkeypatch):
        table, model = tmp_path / "houses.csv", tmp_path / "model"
        houses.loc[5, "area"] = np.nan
        houses.loc[6, "price"] = np.nan
        houses.to_csv(table, index=False)
        options = ("--target", "price", "--missing", "median", "--hidden", 20, "--epochs", 30)
        options += ("--save", model, "--early-stopping")
        printed = self.run(capsys, "train", "--csv", table, *options)
        assert float(re.search(r"^test R² (\S+), root", printed, re.M)[1]) > 0.9
        assert "val loss" in printed
        assert "val accuracy" not in printed
        printed = self.run(capsys, "evaluate", model, "--csv", table)
        assert printed.startswith("left out: 1 rows without price\ntest loss 0.")
        monkeypatch.setattr("sys.stdin", io.StringIO("area,rooms,city,garden\n100,3,Oslo,True\n"))
        head, row = self.run(capsys, "predict", model, "-").splitlines()
        assert head.split() == ["price"]
        assert 250_000 < float(row.split()[-1]) < 400_000

    def test_the_table_that_comes_with_the_repository(self, capsys):
        datasets = pytest.importorskip("sklearn.datasets")
        table, iris = ROOT / "examples" / "flowers.csv", datasets.load_iris()
        frame = pandas.read_csv(table)
        assert [name.replace("_", " ") + " (cm)" for name in list(frame)[:4]] == iris.feature_names
        np.testing.assert_array_equal(frame.iloc[:, :4], iris.data)
        assert frame["species"].tolist() == iris.target_names[iris.target].tolist()
        printed = self.run(capsys, "train", "--csv", table, "--target", "species")
        assert float(re.search(r"^test accuracy (.*)$", printed, re.M)[1]) > 0.85

    def test_going_on_from_a_checkpoint(self, flowers, tmp_path, capsys):
        table, file = tmp_path / "flowers.csv", tmp_path / "checkpoint"
        flowers.to_csv(table, index=False)
        options = ("--csv", table, "--target", "species", "--hidden", "--checkpoint", file)
        self.run(capsys, "train", *options, "--epochs", 1)
        printed = self.run(capsys, "train", *options, "--epochs", 2, "--resume", file)
        assert "epoch 2/2" in printed
        assert "row 240" in self.run(capsys, "predict", file, table)

    def test_files_in_which_all_categories_look_like_numbers(self, tmp_path, capsys):
        kinds = ["01", "1", "0A"]
        frame = pandas.DataFrame({"kind": kinds * 10, "y": kinds * 10})
        encoding = prepared(frame, "y").encoding
        network = perceptron(3, 3, seed=0)
        network.set_weights([10 * np.eye(3), np.zeros(3)])
        network.metadata[tables.ENTRY] = encoding.as_text()
        model, table = tmp_path / "model", tmp_path / "t.csv"
        network.save(model)
        frame[frame["kind"] != "0A"].to_csv(table, index=False)
        assert "test accuracy 1.0000" in self.run(capsys, "evaluate", model, "--csv", table)
        rows = self.run(capsys, "predict", model, table).splitlines()[1:]
        assert [row.split()[2] for row in rows] == ["01", "1"] * 10

    @pytest.mark.parametrize("name", ["flowers.data", "FLOWERS.CSV.GZ", "flowers", "f.parquet.old"])
    def test_whatever_a_file_is_called(self, flowers, tmp_path, capsys, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        encoding = prepared(flowers, "species").encoding
        network = perceptron(encoding.width, 3, seed=0)
        network.metadata[tables.ENTRY] = encoding.as_text()
        network.save("model")
        if "parquet" in name:
            pytest.importorskip("pyarrow")
            flowers.to_parquet(name)
        else:
            compression = "gzip" if name.endswith("GZ") else None
            flowers.to_csv(name, index=False, compression=compression)
        assert len(self.run(capsys, "predict", "model", name).splitlines()) == N + 1
        plain = perceptron(2, 3, seed=0)
        plain.save("plain")
        if "parquet" not in name:
            numbers = flowers[["height (cm)", "petals"]]
            numbers.to_csv(name, index=False, compression=compression)
            assert len(self.run(capsys, "predict", "plain", name).splitlines()) == N + 1

    def test_a_network_that_has_diverged(self, flowers, houses, tmp_path, capsys):
        for frame, target in ((flowers, "species"), (houses, "price")):
            encoding = prepared(frame, target).encoding
            of = encoding.target
            network = perceptron(encoding.width, of.outputs, loss=of.loss, seed=0)
            network.set_weights([np.full_like(w, np.nan) for w in network.get_weights()])
            network.metadata[tables.ENTRY] = encoding.as_text()
            network.save(tmp_path / "model")
            frame.to_csv(tmp_path / "t.csv", index=False)
            assert cli.main(["predict", str(tmp_path / "model"), str(tmp_path / "t.csv")]) == 2
            printed = capsys.readouterr()
            assert printed.out == ""
            assert "MODEL: expected a network whose answers are finite numbers" in printed.err
        network = perceptron(2, 2, seed=0)
        network.set_weights([np.full((2, 2), np.nan), np.zeros(2)])
        network.save(tmp_path / "model")
        (tmp_path / "t.csv").write_text("1,2\n3,4\n")
        assert cli.main(["predict", str(tmp_path / "model"), str(tmp_path / "t.csv")]) == 2
        assert "got others for 2 of 2 rows; its training may have" in capsys.readouterr().err

    def test_a_table_of_numbers_for_a_network_of_none(self, tmp_path, capsys):
        network = perceptron(3, 2, seed=0)
        network.save(tmp_path / "model")
        (tmp_path / "t.csv").write_text("a,b,c\n1,2,3\n4,5,6\n")
        printed = self.run(capsys, "predict", tmp_path / "model", tmp_path / "t.csv")
        rows = printed.splitlines()[1:]
        assert [row.split()[2] for row in rows] == [
            str(i) for i in network.predict(np.arange(1.0, 7.0).reshape(2, 3))
        ]

    def test_mistakes(self, flowers, houses, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        flowers.to_csv("flowers.csv", index=False)
        houses.to_csv("houses.csv", index=False)
        encoding = prepared(flowers, "species").encoding
        network = perceptron(encoding.width, 3, seed=0)
        network.save("plain")
        network.metadata[tables.ENTRY] = encoding.as_text()
        network.save("model")
        for line, message in {
            "train --csv flowers.csv": "--target: expected the column to predict, one of height",
            "train --target species": "--target: expected --csv or --parquet beside 'species'",
            "train --task regression": "--task: expected --csv or --parquet beside 'regression'",
            "train --missing drop": "--missing: expected --csv or --parquet beside 'drop'",
            "train --ignore id no": "--ignore: expected --csv or --parquet beside 'id no'",
            "train --categorical a": "--categorical: expected --csv or --parquet beside 'a'",
            "train --test-share 0.5": "--test-share: expected --csv or --parquet beside 0.5",
            "sweep --validation-share 0": "--validation-share: expected --csv or --parquet beside",
            "train --csv flowers.csv --target species --data .": "--data: expected none beside",
            "train --csv none.csv --target species": "none.csv: expected a table",
            "evaluate model": "--csv: expected a table, as model was trained on one; it",
            "evaluate plain --csv flowers.csv": "plain: expected a network that `fastnn train",
            "evaluate model --csv houses.csv": "houses.csv: expected a table with the columns",
            "predict model houses.csv": "houses.csv: expected a table with the columns height (cm)",
            "predict model digit.png": "INPUT: expected a CSV or Parquet file or -, got digit.png",
            "predict model none.data": "none.data: expected a table, found no such file",
            "predict model flowers.csv flowers.csv": "INPUT: expected pictures, or one table or - "
            "alone, got 2 tables",
            "train --csv flowers.csv --target species --seed -1": "--seed: expected an integer of "
            "at least 0, got -1",
            "sweep --csv flowers.csv --target species --seed -1": "--seed: expected an integer",
            "predict model flowers.csv digit.png": "INPUT: expected pictures, or one table",
        }.items():
            assert cli.main(line.split()) == 2
            assert f"fastnn: error: {message}" in capsys.readouterr().err


COLUMN = {"kind": "Number", "name": "x", "mean": 1.0, "deviation": 2.0, "missing": None}
TARGET = {"kind": "Classes", "name": "y", "classes": ["a", "b"], "most_frequent": "a"}
QUANTITY = {"kind": "Quantity", "name": "y", "mean": 1.0, "deviation": 0.0}
TEXT = {"kind": "Category", "name": "x", "categories": ["a"], "missing": None}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{", "JSONDecodeError: "),
        ([], "TypeError: list indices"),
        ({}, "KeyError: 'columns'"),
        ({"columns": [COLUMN]}, "KeyError: 'target'"),
        ({"columns": 3, "target": TARGET}, "TypeError: 'int' object is not iterable"),
        ({"columns": ["x"], "target": TARGET}, "AttributeError: 'str' object"),
        ({"columns": [TARGET], "target": TARGET}, "KeyError: 'Classes'"),
        ({"columns": [COLUMN | {"more": 1}], "target": TARGET}, "TypeError: .* argument 'more'"),
        ({"columns": [COLUMN | {"name": 3}], "target": TARGET}, "ValueError: name: expected"),
        ({"columns": [COLUMN | {"mean": "1"}], "target": TARGET}, "TypeError: mean: expected a fi"),
        ({"columns": [COLUMN | {"missing": ""}], "target": TARGET}, "TypeError: missing: expecte"),
        ({"columns": [COLUMN], "target": QUANTITY}, "ValueError: deviation: .* above 0, got 0"),
        ({"columns": [TEXT | {"categories": "a"}], "target": TARGET}, "ValueError: categories: ex"),
        ({"columns": [TEXT | {"categories": [1]}], "target": TARGET}, "ValueError: categories: ex"),
        ({"columns": [TEXT | {"missing": "b"}], "target": TARGET}, "ValueError: missing: expected"),
        ({"columns": [COLUMN], "target": TARGET | {"most_frequent": 1}}, "ValueError: most_freque"),
        ({"columns": [COLUMN], "target": TARGET | {"classes": ["a"]}}, ".* 1 inputs and 1 outputs"),
        (
            {"columns": [COLUMN] * 2, "target": TARGET},
            ".* 2 inputs and 2 outputs, the netw.* 1 and 2",
        ),
    ],
)
def test_a_damaged_entry_of_a_model(tmp_path, capsys, monkeypatch, entry, message):
    monkeypatch.chdir(tmp_path)
    network = perceptron(1, 2, seed=0)
    network.metadata[tables.ENTRY] = entry if isinstance(entry, str) else json.dumps(entry)
    network.save("model")
    (tmp_path / "t.csv").write_text("x,y\n1,a\n2,b\n")
    for line in ("predict model t.csv", "evaluate model --csv t.csv", "evaluate model"):
        assert cli.main(line.split()) == 2
        error = capsys.readouterr().err
        assert re.match(
            "fastnn: error: model: expected what `fastnn train` wrote of a table in the entry "
            f"'table' of the metadata, got a damaged one: {message}",
            error,
        ), error


class TestMetadata:
    def test_through_files(self, tmp_path, digits):
        network = perceptron(784, 10, seed=0)
        network.save(tmp_path / "none")
        assert fastnn.load(tmp_path / "none").metadata == {}
        network.metadata["classes"] = json.dumps(["zero", "one"])
        network.metadata["from"] = "Grüße"
        X, y, *_ = digits
        network.fit(X, y, checkpoint=tmp_path / "checkpoint")
        assert fastnn.load(tmp_path / "checkpoint").metadata == network.metadata
        resumed = fastnn.resume(tmp_path / "checkpoint", X, y, epochs=2)
        assert resumed.metadata == network.metadata

    @pytest.mark.parametrize("metadata", [{"classes": ["a"]}, {3: "a"}])
    def test_texts_alone(self, tmp_path, metadata):
        network = perceptron(3, 2)
        network.metadata.update(metadata)
        with pytest.raises(TypeError, match="metadata: expected a dict of str to str, got"):
            network.save(tmp_path / "model")


@pytest.mark.parametrize("kind", ["integer beyond 64 bits", "decimals"])
def test_numbers_that_pandas_keeps_as_objects(kind):
    """Before, the column was one of sixty categories."""
    from decimal import Decimal

    values = [Decimal(i) / 4 for i in range(60)] if kind == "decimals" else [2**64, *range(59)]
    frame = pandas.DataFrame({"a": pandas.Series(values, dtype=object), "y": [0, 1] * 30})
    prepared = tables.prepare(frame, target="y", seed=0)
    assert prepared.encoding.width == 1
