"""Tables of named columns: to the rows of numbers that a network takes, and its answers back.

What a network has to know of the table that it was trained on is an `Encoding`, which goes into
`Network.metadata` and so into the model's file. pandas holds tables; it is imported when used.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import re
import shlex
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np
import numpy.typing as npt

from fastnn import checks, prediction
from fastnn.checks import Array
from fastnn.layers import Dense

if TYPE_CHECKING:
    from fastnn.network import Network

Frame = Any
"""A `pandas.DataFrame`."""

ENTRY = "table"
"""Of `Network.metadata`."""

MOST_CATEGORIES = 100
"""A column of more different texts, such as names, says little in one column for each."""

MOST_INTEGER_CLASSES = 20
"""Whole numbers of more different values are a quantity, not classes."""

MISSING = ("mean", "median", "drop")
TASKS = ("classification", "regression")

_PARQUET = (".parquet", ".pq")
_ENDINGS = (".csv", ".tsv", ".txt", *_PARQUET)
_SEPARATORS = ",;\t"
_GZIP, _OF_PARQUET, _MARK = b"\x1f\x8b", b"PAR1", b"\xef\xbb\xbf"
"""How such files begin."""

_STANDARD_INPUT = "standard input"
_LEFT_OUT = "fastnn: left out"
"""Of `pandas.DataFrame.attrs`."""


@dataclass(frozen=True)
class Number:
    """A column of numbers; `missing` stands for those that are, None where there may be none."""

    name: str
    mean: float
    deviation: float
    missing: float | None = None

    width = 1

    def __post_init__(self) -> None:
        _check_texts("name", (self.name,))
        _check_scale(self.mean, self.deviation)
        if self.missing is not None:
            checks.real("missing", self.missing)

    def encode(self, column: Any, inputs: Array) -> None:
        """Write the standardised column to the network's inputs, [n, 1]."""
        values = _numbers(column, self.name)
        if self.missing is not None:
            values = np.where(np.isnan(values), self.missing, values)
        _refuse(np.isnan(values), self.name, "a number in every row", column)
        with np.errstate(over="ignore"):
            inputs[:, 0] = _standardised(values, self.mean, self.deviation)
        expected = f"numbers that standardised are in the range of {inputs.dtype}"
        _refuse(np.isinf(inputs[:, 0]), self.name, expected, column)


@dataclass(frozen=True)
class Category:
    """A column of one of several texts; `missing` as `Number` has it."""

    name: str
    categories: tuple[str, ...]
    missing: str | None = None

    def __post_init__(self) -> None:
        _check_texts("name", (self.name,))
        _check_texts("categories", self.categories)
        if self.missing is not None and self.missing not in self.categories:
            raise ValueError(f"missing: expected one of the categories, got {self.missing!r}")

    @property
    def width(self) -> int:
        """How many columns the network has of it."""
        return len(self.categories)

    def encode(self, column: Any, inputs: Array) -> None:
        """Write a one in the place of each row's category to the network's inputs, [n, width]."""
        places = _places(column, self.name, self.categories, self.missing)
        inputs[...] = 0
        inputs[np.arange(len(places)), places] = 1


@dataclass(frozen=True)
class Classes:
    """A target that is one of several classes."""

    name: str
    classes: tuple[str, ...]
    most_frequent: str

    loss = "softmax_cross_entropy"

    def __post_init__(self) -> None:
        _check_texts("name", (self.name,))
        _check_texts("classes", self.classes)
        if self.most_frequent not in self.classes:
            raise ValueError(f"most_frequent: expected a class, got {self.most_frequent!r}")

    @property
    def outputs(self) -> int:
        """The number of outputs of the network."""
        return len(self.classes)

    def encoded(self, column: Any) -> npt.NDArray[np.int64]:
        """Return class ids, [n]."""
        return _places(column, self.name, self.classes, None)

    def report(self, network: Network, X: Array, y: Array) -> list[str]:
        """Return lines on loss and accuracy, and on what needs no network."""
        test = network.evaluate(X, y)
        baseline = np.mean(y == self.classes.index(self.most_frequent))
        return [
            f"test loss {test.loss:.4f}",
            f"test accuracy {test.accuracy:.4f}",
            f"baseline: the most frequent class, {self.most_frequent!r}, has an accuracy of "
            f"{baseline:.4f}",
        ]

    def predictions(self, network: Network, X: Array) -> str:
        """Return a line for each row: the likeliest class, and the probability of each."""
        rows = [["", self.name, *self.classes]]
        for number, p in enumerate(prediction.finite(network.predict_proba(X)), 1):
            rows.append([f"row {number}", self.classes[p.argmax()], *(f"{x:.4f}" for x in p)])
        return prediction.aligned(rows)

    def __str__(self) -> str:
        shown = ", ".join(self.classes[:10]) + ", ..." * (len(self.classes) > 10)
        return f"{self.name}, {len(self.classes)} classes: {shown}"


@dataclass(frozen=True)
class Quantity:
    """A target that is a number; mean and deviation are those of the training rows."""

    name: str
    mean: float
    deviation: float

    outputs = 1
    loss = "mse"

    def __post_init__(self) -> None:
        _check_texts("name", (self.name,))
        _check_scale(self.mean, self.deviation)

    def encoded(self, column: Any) -> npt.NDArray[np.float64]:
        """Return the standardised target, [n]."""
        values = _numbers(column, self.name)
        _refuse(np.isnan(values), self.name, "a number in every row", column)
        return _standardised(values, self.mean, self.deviation)

    def decoded(self, output: Array) -> npt.NDArray[np.float64]:
        """Return numbers in the unit of the target."""
        return output.astype(np.float64) * self.deviation + self.mean

    def report(self, network: Network, X: Array, y: Array) -> list[str]:
        """Return lines on the loss and errors in the target's unit, and on what needs no network.

        R² = 1 - Σ (y - p)² / Σ (y - ȳ)², where ȳ is the mean of `y`, the rows that are tested.
        """
        loss = network.evaluate(X, y).loss
        y = self.decoded(y)
        p = self.decoded(network.predict(X)[:, 0])
        return [
            f"test loss {loss:.4f}",
            f"test R² {_r_squared(y, p):.4f}, {_errors(y, p)}",
            f"baseline: the mean of the training rows, {self.mean:.6g}, has an R² of "
            f"{_r_squared(y, self.mean):.4f}, {_errors(y, self.mean)}",
        ]

    def predictions(self, network: Network, X: Array) -> str:
        """Return a line for each row: the answer in the unit of the target."""
        answers = self.decoded(prediction.finite(network.predict(X))[:, 0])
        rows = [[f"row {number}", f"{p:.6g}"] for number, p in enumerate(answers, 1)]
        return prediction.aligned([["", self.name], *rows])

    def __str__(self) -> str:
        return f"{self.name}, a quantity of mean {self.mean:.6g} and deviation {self.deviation:.6g}"


@dataclass(frozen=True)
class Encoding:
    """How a table becomes the inputs and targets of a network.

    `tables.Encoding.of(network)` is that of a model; then
    ``network.predict(encoding.inputs(frame))`` takes a `pandas.DataFrame` with columns of the
    same names, whatever else there is in it.
    """

    columns: tuple[Number | Category, ...]
    target: Classes | Quantity

    @classmethod
    def of(cls, network: Network) -> Encoding:
        """Return the encoding of the table that a network was trained on.

        Raises
        ------
        ValueError
            If it was not trained on one, or what it knows of the table is damaged.
        """
        if ENTRY not in network.metadata:
            raise ValueError(
                "expected a network that `fastnn train --csv` or `--parquet` has trained, got one "
                "that knows of no table"
            )
        try:
            entry = json.loads(network.metadata[ENTRY])
            columns = tuple(_built(of, Number, Category) for of in entry["columns"])
            encoding = cls(columns, _built(entry["target"], Classes, Quantity))
            encoding._check_fits(network)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"expected what `fastnn train` wrote of a table in the entry {ENTRY!r} of the "
                f"metadata, got a damaged one: {type(error).__name__}: {error}"
            ) from error
        return encoding

    def _check_fits(self, network: Network) -> None:
        dense = [layer for layer in network if isinstance(layer, Dense)]
        if not dense:
            return
        found = dense[0].input_units, dense[-1].output_units
        if found != (self.width, self.target.outputs):
            raise ValueError(
                f"it is of {self.width} inputs and {self.target.outputs} outputs, the network has "
                f"{found[0]} and {found[1]}"
            )

    def as_text(self) -> str:
        """Return what `of` reads in `Network.metadata`."""
        columns = [_described(column) for column in self.columns]
        return json.dumps({"columns": columns, "target": _described(self.target)})

    @property
    def names(self) -> list[str]:
        """The columns that a table must have for a prediction."""
        return [column.name for column in self.columns]

    @property
    def texts(self) -> list[str]:
        """The columns of categories or classes.

        `read` needs them: a file in which all categories look like numbers is not to be read as one
        of numbers, if '01' and '1' are two categories.
        """
        columns = (*self.columns, self.target)
        return [column.name for column in columns if isinstance(column, Category | Classes)]

    @property
    def width(self) -> int:
        """The number of inputs of the network."""
        return sum(column.width for column in self.columns)

    def inputs(self, frame: Frame, dtype: npt.DTypeLike = np.float32) -> Array:
        """Return what the network takes, [rows, width].

        Raises
        ------
        ValueError
            If a column or value is missing, or a value is no finite number or known category.
        """
        _check_columns(frame, self.names)
        if not len(frame):
            raise ValueError("expected a table of at least one row, got none")
        X = np.empty((len(frame), self.width), dtype)
        start = 0
        for column in self.columns:
            column.encode(frame[column.name], X[:, start : start + column.width])
            start += column.width
        return X

    def with_target(self, frame: Frame) -> Frame:
        """Return the rows that have a target.

        Raises
        ------
        ValueError
            If there is no such column.
        """
        _check_columns(frame, [self.target.name])
        return frame.dropna(subset=[self.target.name])

    def targets(self, frame: Frame) -> Array:
        """Return the targets, [rows]: class ids, or standardised numbers.

        Raises
        ------
        ValueError
            As `inputs`.
        """
        _check_columns(frame, [self.target.name])
        return self.target.encoded(frame[self.target.name])


class Prepared(NamedTuple):
    """A table that is ready for training.

    `parts` are the inputs and targets of training, validation and test, in this order, and `notes`
    lines that say what has become of the table.
    """

    encoding: Encoding
    parts: tuple[Array, ...]
    notes: list[str]


def is_table(path: str | os.PathLike[str]) -> bool:
    """Say whether the ending of a file is that of a table."""
    return _ending(path) in _ENDINGS


def holds_rows(path: str | os.PathLike[str]) -> bool:
    """Say whether a file is a table by its ending or, as that may be any, by how it begins."""
    if is_table(path):
        return True
    begin = _beginning(path)
    if begin[:2] == _GZIP or begin[:4] == _OF_PARQUET:
        return True
    # of pictures all have a byte of 0 soon, but for those that are markup
    return bool(begin.strip()) and b"\0" not in begin and not begin.lstrip().startswith(b"<")


def _ending(path: str | os.PathLike[str]) -> str:
    return Path(os.fspath(path).lower().removesuffix(".gz")).suffix


def _beginning(path: str | os.PathLike[str]) -> bytes:
    """Return the first bytes of a file, none of what can't be read."""
    try:
        with open(path, "rb") as file:
            return file.read(1024)
    except OSError:
        return b""


def read(
    source: str | os.PathLike[str] | TextIO,
    *,
    parquet: bool | None = None,
    texts: Iterable[str] = (),
) -> Frame:
    """Return the table in a file of CSV or Parquet.

    Columns of a CSV file are separated by commas, semicolons or tabs, whichever there are most of
    in the first line, which names them. Empty cells, `NA` and others that pandas takes for missing
    values are, and so is `?`. A column without a name, which is mostly a number of the row, is left
    out, and so is the index of a table that pandas has written to Parquet; `prepare` notes it.

    Parameters
    ----------
    source
        The path of a file, CSV gzipped or not, or an open file of CSV.
    parquet
        By default, what the ending of the file says, or how it begins.
    texts
        Columns of CSV to read as texts, whatever they look like, as `Encoding.texts` has them.

    Raises
    ------
    ValueError
        If it can't be read as such a table.
    ImportError
        If pandas, or pyarrow for Parquet, is not installed.
    """
    pandas = _pandas()
    if not isinstance(source, str | os.PathLike):
        return _of_csv(_content(source), _STANDARD_INPUT, texts)
    name = os.fspath(source)
    if not Path(name).exists():
        raise FileNotFoundError(f"{name}: expected a table, found no such file")
    if parquet is None:
        ending = _ending(name)
        parquet = ending in _PARQUET or (
            ending not in _ENDINGS and _beginning(name)[:4] == _OF_PARQUET
        )
    if not parquet:
        with _as_table(name, "a CSV file whose first line names its columns"):
            content = _content(source)
        return _of_csv(content, name, texts)
    with _as_table(name, "a Parquet file"):
        try:
            frame = pandas.read_parquet(source)
        except ImportError as error:
            needed = "reading Parquet needs pyarrow: pip install 'fastnn[tables]'"
            raise ImportError(needed) from error
    return _named(frame, name, frame.columns)


def read_rows(source: TextIO, encoding: Encoding) -> Frame:
    """Return the table in an open file of CSV, whose first line may name its columns or not.

    Without names there are as many columns as the network was trained on, in the same order.

    Raises
    ------
    ValueError
        If there is another number of columns.
    """
    separator, content = _separated(_content(source))
    first, _ = _first_lines(content, separator)
    if not {cell.strip() for cell in first} & set(encoding.names):
        if len(first) != len(encoding.names):
            raise ValueError(
                f"{_STANDARD_INPUT}: expected a first line with the columns "
                f"{', '.join(encoding.names)}, or rows of these {len(encoding.names)}, "
                f"got {len(first)} columns"
            )
        names = io.StringIO()
        csv.writer(names, delimiter=separator).writerow(encoding.names)
        content = names.getvalue().encode() + content
    content = f"sep={separator}\n".encode() + content
    return _of_csv(content, _STANDARD_INPUT, encoding.texts)


def text(path: str | os.PathLike[str]) -> str:
    """Return the text of a file, gzipped or not.

    Raises
    ------
    ValueError
        If it is no text in UTF-8.
    """
    content = _content(path)
    with _in_utf8(os.fspath(path), content):
        return content.decode()


@contextmanager
def _as_table(name: str, kind: str) -> Iterator[None]:
    """Say in the message of an error what was expected of which file."""
    try:
        yield
    except UnicodeDecodeError:
        raise
    except (ValueError, OSError, EOFError, zlib.error, csv.Error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{name}: expected {kind}, got {error}") from error


@contextmanager
def _in_utf8(name: str, content: bytes) -> Iterator[None]:
    """Say what to do about a text that is not in UTF-8."""
    try:
        yield
    except UnicodeDecodeError:
        try:
            content.decode()
        except UnicodeDecodeError as error:
            wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
            likely, charset = "UTF-16", "UTF-16"
            if not wide:
                likely, charset = "Latin-1 or Windows-1252", "WINDOWS-1252"
            line = content.count(b"\n", 0, error.start) + 1
            file = shlex.quote(name) if name != _STANDARD_INPUT else "FILE"
            raise ValueError(
                f"{name}: expected a text in UTF-8, got the byte 0x{content[error.start]:02x} in "
                f"line {line}, so it may be in {likely}; to convert it: "
                f"iconv -f {charset} -t UTF-8 {file} > NEW"
            ) from None
        raise


def _of_csv(content: bytes, name: str, texts: Iterable[str]) -> Frame:
    """Return the table in a file of CSV, of which pandas reads the bytes as they are."""
    pandas = _pandas()
    texts = set(texts)
    kind = "a CSV file whose first line names its columns"
    with _in_utf8(name, content), _as_table(name, kind):
        separator, content = _separated(content)
        header, row = _first_lines(content, separator)
        if len(row) > len(header):
            # of which pandas would make names of the rows, and move all others by a column
            hint = ""
            if len(row) == len(header) + 1 and row[-1]:
                hint = (
                    "; if these are names of the rows, as R's write.table writes them, write the "
                    "table by write.csv(table, FILE, row.names = FALSE)"
                )
            raise ValueError(
                f"{len(row)} cells in the first row below {len(header)} names of columns{hint}"
            )
        parse = partial(
            pandas.read_csv,
            sep=separator,
            skipinitialspace=True,
            na_values=["?"],
            dtype={cell: str for cell in header if cell.strip() in texts},
        )
        with warnings.catch_warnings():
            # in parts, which stay in the cache, unless a column is of other kinds in other parts
            warnings.simplefilter("error", pandas.errors.DtypeWarning)
            try:
                frame = parse(io.BytesIO(content))
            except pandas.errors.DtypeWarning:
                frame = parse(io.BytesIO(content), low_memory=False)
    # the names are those of the first line, as pandas makes 'a' and 'a.1' of two called 'a'
    return _named(frame, name, filter(None, map(str.strip, header)))


def _named(frame: Frame, name: str, names: Iterable[object]) -> Frame:
    """Return the columns that have a name, if no two have the same; note what is left out."""
    frame.columns = [str(column).strip() for column in frame.columns]
    twice = [column for column, count in Counter(map(str, names)).items() if count > 1]
    if twice:
        raise ValueError(f"{name}: expected columns of different names, got {twice[0]!r} twice")
    named = [column for column in frame.columns if column and column[:9] != "Unnamed: "]
    left_out = _left_out(frame)
    if unnamed := len(frame.columns) - len(named):
        left_out.append(f"{unnamed} column{'s' * (unnamed > 1)} without a name")
        frame = frame[named]
    frame = frame.reset_index(drop=True)
    if left_out:
        frame.attrs[_LEFT_OUT] = left_out
    return frame


def _left_out(frame: Frame) -> list[str]:
    """Return what `read` has left out of a table, and its index if it says something."""
    left_out = list(frame.attrs.get(_LEFT_OUT, ()))
    names = [str(name) for name in frame.index.names if name is not None]
    if names:
        left_out.append(f"the index ({', '.join(names)})")
    elif not _pandas().api.types.is_integer_dtype(frame.index.dtype):
        left_out.append("the index, which has no name")
    return left_out


def prepare(
    frame: Frame,
    target: str,
    *,
    task: str | None = None,
    missing: str | None = None,
    ignore: Iterable[str] = (),
    categorical: Iterable[str] = (),
    validation_share: float = 0.1,
    test_share: float = 0.2,
    seed: int = 0,
    dtype: npt.DTypeLike = np.float32,
) -> Prepared:
    """Return a table as inputs and targets of training, validation and test.

    Numbers are standardised, and each category of a text has a column of zeros and ones. Means,
    deviations and what stands for missing values are those of the training rows.

    Parameters
    ----------
    frame : pandas.DataFrame
    target
        The column to predict.
    task : {"classification", "regression"}, optional
        By default classification, if the target is of texts or truth values, or of whole numbers
        with two values, or with at most 20 that each occur ten times on average; else regression.
    missing : {"mean", "median", "drop"}, optional
        What becomes of missing values: the mean or median of the column stands for them, or for a
        text its most frequent category; or rows with one are dropped. By default they are refused.
        Rows without a target are left out in any case.
    ignore
        Columns to leave out.
    categorical
        Columns whose numbers are names of categories.
    validation_share, test_share
        Of the rows, drawn at random.
    seed
        Of this drawing.
    dtype
        Of the inputs.

    Raises
    ------
    ValueError
        If an argument is out of range, the table has no such column, or a column can't be used;
        the message says which and why.
    TypeError
        If `ignore` or `categorical` is one text.
    """
    _check_choice("task", task, TASKS)
    _check_choice("missing", missing, MISSING)
    for name, columns in {"ignore": ignore, "categorical": categorical}.items():
        if isinstance(columns, str):
            raise TypeError(f"{name}: expected columns in a list, got {columns!r}")
    vanished = _left_out(frame)
    ignore, categorical = list(ignore), set(categorical)
    for name, columns in {"target": [target], "ignore": ignore, "categorical": categorical}.items():
        unknown = [column for column in columns if column not in frame.columns]
        if unknown:
            known = ", ".join(frame.columns)
            raise ValueError(f"{name}: expected one of the columns {known}, got {unknown[0]!r}")
    left_out = set(ignore) - {target}
    frame = frame[[column for column in frame.columns if column not in left_out]]
    frame = frame.reset_index(drop=True)
    names = [column for column in frame.columns if column != target]
    if not names:
        raise ValueError(f"expected a table of more columns than {target}, got none")
    if not len(frame):
        raise ValueError("expected a table of at least one row, got none")
    texts = {name for name in names if name in categorical or not _is_number(frame[name])}
    for name in sorted(texts - categorical):
        _check_no_numbers(frame[name], name, f"--categorical {shlex.quote(name)}")
    _check_usable(frame, names, texts)
    frame, notes = _without_missing(frame, target, names, missing)

    parts = _split(len(frame), validation_share, test_share, seed)
    training = frame.iloc[parts[0]]
    of_target = _fitted_target(frame, training, target, task)
    of_columns: tuple[Number | Category, ...] = tuple(
        _fitted_category(frame[name], training[name], name, missing)
        if name in texts
        else _fitted_number(training[name], name, missing)
        for name in names
    )
    encoding = Encoding(of_columns, of_target)
    X, y = encoding.inputs(frame, dtype), encoding.targets(frame)
    if vanished:
        notes.insert(0, f"left out: {', '.join(vanished)}")
    notes.insert(0, f"target: {of_target}")
    kinds = []
    if len(texts) < len(names):
        kinds.append(f"{len(names) - len(texts)} columns of numbers (standardised)")
    if texts:
        listed = ", ".join(name for name in names if name in texts)
        kinds.append(f"{len(texts)} of categories ({listed})")
    notes.insert(1, f"inputs: {' and '.join(kinds)}: {encoding.width} in all")
    return Prepared(encoding, tuple(of for part in parts for of in (X[part], y[part])), notes)


def _check_choice(name: str, value: str | None, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        raise ValueError(f"{name}: expected {' or '.join(choices)}, got {value!r}")


def _check_columns(frame: Frame, names: Sequence[str]) -> None:
    absent = [name for name in names if name not in frame.columns]
    if absent:
        raise ValueError(
            f"expected a table with the columns {', '.join(names)}, "
            f"found none of the name {', '.join(absent)}"
        )


def _check_no_numbers(column: Any, name: str, otherwise: str) -> None:
    """Raise if most of many different texts are numbers: some cell has made texts of a quantity."""
    values = column.astype(object)
    texts = [value for value in values.unique() if isinstance(value, str)]
    numbers = {text for text in texts if _as_number(text)}
    with_comma = {text for text in texts if _as_number(text.replace(",", ".", 1))}
    if len(with_comma) > max(MOST_INTEGER_CLASSES, len(texts) / 2):
        wrong = values.notna().to_numpy() & ~values.isin(numbers).to_numpy()
        expected = (
            "numbers, with a decimal point, as most of its texts are some (if it is of categories: "
            f"{otherwise})"
        )
        _refuse(wrong, name, expected, column)


def _check_usable(frame: Frame, names: Sequence[str], texts: set[str]) -> None:
    """Raise unless there is something to learn from each column; name all that are of no use."""
    found = {}
    for name in names:
        column = frame[name]
        if column.isna().all():
            found[name] = "is empty"
        elif name in texts and column.dtype.kind in "mMc":
            found[name] = f"holds {column.dtype}"
        elif name in texts and (count := len(_categories(column))) > MOST_CATEGORIES:
            found[name] = f"has {count} different texts"
        elif name not in texts:
            _numbers(column, name)  # refuses those that are not finite
    if found:
        raise ValueError(
            f"expected columns of numbers or of at most {MOST_CATEGORIES} categories, but "
            f"{', '.join(f'{name} {why}' for name, why in found.items())}; to leave columns out: "
            f"--ignore {shlex.join(found)}"
        )


def _without_missing(
    frame: Frame, target: str, names: Sequence[str], missing: str | None
) -> tuple[Frame, list[str]]:
    """Return the rows that can be used, and lines that say what is done about missing values."""
    notes = []
    known = frame.dropna(subset=[target])
    if not len(known):
        raise ValueError(f"target: expected a value in some row, got none in {target}")
    if len(known) < len(frame):
        notes.append(f"left out: {len(frame) - len(known)} of {len(frame)} rows without {target}")
    counts = {name: int(known[name].isna().sum()) for name in names}
    said = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    if not said:
        return known, notes
    if missing is None:
        raise ValueError(
            f"missing: expected {', '.join(MISSING[:-1])} or {MISSING[-1]}, as some of "
            f"{len(known)} rows have no value in these columns: {said}"
        )
    if missing != "drop":
        notes.append(f"missing values: {said}; {missing} or most frequent text stands for them")
        return known, notes
    whole = known.dropna(subset=names)
    if not len(whole):
        raise ValueError(
            f"missing: expected mean or median, as drop leaves none of {len(known)} rows; they "
            f"have no value in these columns: {said}; to leave columns out: --ignore"
        )
    left_out = len(known) - len(whole)
    notes.append(f"left out: {left_out} of {len(frame)} rows with missing values ({said})")
    return whole, notes


def _split(
    rows: int, validation_share: float, test_share: float, seed: int
) -> list[npt.NDArray[np.int64]]:
    """Return which rows are for training, validation and test."""
    shares = {"validation_share": validation_share, "test_share": test_share}
    counts = []
    for name, share in shares.items():
        checks.real(name, share, minimum=0.0, below=1.0)
        counts.append(round(share * rows))
        if not counts[-1]:
            raise ValueError(f"{name}: expected a share of {rows} rows that is a row, got {share}")
    if sum(counts) >= rows:
        raise ValueError(
            f"validation_share, test_share: expected to leave rows for training, got "
            f"{validation_share} and {test_share} of {rows}"
        )
    order = checks.generator("seed", seed).permutation(rows)
    validation, test, training = np.split(order, np.cumsum(counts))
    return [np.sort(training), np.sort(validation), np.sort(test)]


def _fitted_target(
    frame: Frame, training: Frame, name: str, task: str | None
) -> Classes | Quantity:
    column = frame[name]
    numeric = _is_number(column)
    if task != "classification" and not numeric:
        _check_no_numbers(column, name, "--task classification")
    if task is None:
        task = "regression" if numeric and not _looks_like_classes(column) else "classification"
    if task == "regression":
        if not numeric:
            raise ValueError(f"target: expected a column of numbers, got {name} of texts")
        number = _fitted_number(training[name], name, None)
        return Quantity(name, number.mean, number.deviation)
    classes = _categories(column)
    if not 2 <= len(classes) <= max(2, len(column) // 2):
        raise ValueError(
            f"target: expected classes that occur more than once, got {len(classes)} different "
            f"values in {len(column)} rows of {name}"
        )
    return Classes(name, tuple(classes), _most_frequent(training[name]))


def _looks_like_classes(column: Any) -> bool:
    values = _numbers(column, str(column.name))
    if not (values == np.floor(values)).all():
        return False
    different = len(np.unique(values))
    return different <= 2 or (different <= MOST_INTEGER_CLASSES and 10 * different <= len(values))


def _fitted_number(training: Any, name: str, missing: str | None) -> Number:
    values = _numbers(training, name)
    known = values[~np.isnan(values)]
    if not len(known):
        raise ValueError(f"column {name}: expected a number in some training row, got none")
    stands = None
    if missing in ("mean", "median"):
        unit = _unit(known)
        stands = float(getattr(np, missing)(known / unit)) * unit
        values = np.where(np.isnan(values), stands, values)
    # of a column that is constant, or as good as that, nothing is left but its mean
    unit = _unit(values)
    mean, deviation = float((values / unit).mean()) * unit, float((values / unit).std()) * unit
    if deviation <= 1e-12 * abs(mean):
        deviation = 1.0
    return Number(name, mean, deviation, stands)


def _unit(*columns: Any) -> float:
    """Return 1, or for numbers whose squares and sums might overflow what to divide them by."""
    largest = max((float(np.abs(values).max()) for values in columns if np.size(values)), default=0)
    return 1.0 if largest < 1e140 else largest


def _standardised(
    values: npt.NDArray[np.float64], mean: float, deviation: float
) -> npt.NDArray[np.float64]:
    unit = _unit(values[np.isfinite(values)], mean)
    return (values / unit - mean / unit) / (deviation / unit)


def _fitted_category(column: Any, training: Any, name: str, missing: str | None) -> Category:
    # of all rows: a category that no training row has is one that a new table may hold
    known = tuple(_categories(column))
    stands = _most_frequent(training) if missing in ("mean", "median") else None
    return Category(name, known, stands)


def _is_number(column: Any) -> bool:
    types = _pandas().api.types
    return bool(
        types.is_numeric_dtype(column.dtype)
        and not types.is_bool_dtype(column.dtype)
        and not types.is_complex_dtype(column.dtype)
    )


def _numbers(column: Any, name: str) -> npt.NDArray[np.float64]:
    """Return a column in float64, NaN where a value is missing."""
    if _is_number(column):
        found = column
    elif column.dtype.kind == "c":
        found = _pandas().Series(math.nan, column.index)
    else:  # as objects: of a column of dates pandas would return nanoseconds
        found = _pandas().to_numeric(column.astype(object), errors="coerce")
    values: npt.NDArray[np.float64] = found.to_numpy(np.float64, na_value=np.nan)
    strange = (np.isnan(values) & column.notna().to_numpy()) | np.isinf(values)
    _refuse(strange, name, "finite numbers", column)
    return values


def _categories(column: Any) -> list[str]:
    """Return the texts that occur, numbers in the order of their size."""
    values = list(column.dropna().unique())
    try:
        values.sort()
    except TypeError:  # of several kinds
        values.sort(key=str)
    return list(dict.fromkeys(map(_as_text, values)))


def _most_frequent(column: Any) -> str:
    counts = column.value_counts()
    if not len(counts):
        raise ValueError(f"column {column.name}: expected a text in some training row, got none")
    best = [value for value, count in counts.items() if count == counts.iloc[0]]
    return min(map(_as_text, best))


def _as_text(value: object) -> str:
    """Return what a category is called: 3 and 3.0, which a missing value makes of it, are one."""
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if whole else str(value)  # type: ignore[call-overload]


def _as_number(text: str) -> str:
    """Return what the category of a number is called, "" for any other text."""
    text = text.strip()
    if re.fullmatch(r"[+-]?[0-9]+", text):
        return str(int(text))
    decimal = re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text)
    return _as_text(float(text)) if decimal and math.isfinite(float(text)) else ""


def _as_truth(text: str) -> str:
    """Return what the category of a truth value is called, "" for any other text."""
    text = text.strip().capitalize()
    return text if text in ("True", "False") else ""


def _places(
    column: Any, name: str, known: Sequence[str], missing: str | None
) -> npt.NDArray[np.int64]:
    """Return which of the known texts each row has.

    Where all that are known are numbers, or truth values, so are those of the column: '1.0' is '1',
    and 'TRUE' is 'True'. Else texts are compared as they are, so that '01' is not '1'.
    """
    codes, values = _pandas().factorize(column)
    called = next((of for of in (_as_truth, _as_number) if all(of(k) == k for k in known)), str)
    place = {text: i for i, text in enumerate(known)}
    # the last entry is that of missing values, whose code is -1
    texts = [called(_as_text(value)) for value in values] + [missing or ""]
    of_code = [place.get(text, -1) for text in texts]
    if called is str:  # a number may be any of '01' and '1'
        spellings = Counter(map(_as_number, known))
        for i, value in enumerate(values):
            if not isinstance(value, str) and spellings[texts[i]] > 1:
                of_code[i] = -1
    if missing is None:
        of_code[-1] = -1
    places: npt.NDArray[np.int64] = np.array(of_code, np.int64)[codes]
    shown = ", ".join(known[:10]) + ", ..." * (len(known) > 10)
    _refuse(places < 0, name, f"one of {shown}", column)
    return places


def _refuse(wrong: npt.NDArray[np.bool_], name: str, expected: str, column: Any) -> None:
    if wrong.any():
        at = int(wrong.argmax())
        value = column.iloc[at]
        got = repr(value) if isinstance(value, str) else str(value)
        if _pandas().isna(value):
            got = "no value"
        label = column.index[at]  # which stays that of the file where rows have been left out
        row = label + 1 if isinstance(label, int | np.integer) else label
        more = f" and others, {wrong.sum()} rows in all" if wrong.sum() > 1 else ""
        raise ValueError(f"column {name}: expected {expected}, got {got} in row {row}{more}")


def _r_squared(y: Array, p: Array | float) -> float:
    unit = _unit(y, p)
    y, p = y / unit, p / unit
    total = float(np.square(y - y.mean()).sum())
    return 1 - float(np.square(y - p).sum()) / total if total > 0 else math.nan


def _errors(y: Array, p: Array | float) -> str:
    unit = _unit(y, p)
    difference = y / unit - p / unit
    root, mean = math.sqrt(np.square(difference).mean()) * unit, np.abs(difference).mean() * unit
    return f"root mean squared error {root:.6g}, mean absolute error {mean:.6g}"


def _described(of: Number | Category | Classes | Quantity) -> dict[str, Any]:
    return {"kind": type(of).__name__, **asdict(of)}


def _built(description: dict[str, Any], *kinds: type) -> Any:
    """Return what `_described` has described, one of the kinds; JSON has lists for tuples."""
    kind = {kind.__name__: kind for kind in kinds}[description.pop("kind")]
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in description.items()})


def _check_texts(name: str, values: Any) -> None:
    """Raise unless these are one or more texts, each once."""
    right = isinstance(values, tuple) and all(isinstance(value, str) for value in values)
    if not right or not 0 < len(values) == len(set(values)):
        raise ValueError(f"{name}: expected different texts, got {values!r}")


def _check_scale(mean: float, deviation: float) -> None:
    checks.real("mean", mean)
    if not checks.real("deviation", deviation, minimum=0.0):
        raise ValueError("deviation: expected a number above 0, got 0")


def _content(source: str | os.PathLike[str] | TextIO) -> bytes:
    """Return what is in a file of text, gzipped or not, without a mark of its order of bytes."""
    if not isinstance(source, str | os.PathLike):
        # in which standard input may hold what was not in UTF-8
        return source.read().encode("utf-8", "surrogateescape").removeprefix(_MARK)
    content = Path(source).read_bytes()
    if content[:2] == _GZIP:
        content = gzip.decompress(content)
    return content.removeprefix(_MARK)


def _first_lines(content: bytes, separator: str) -> tuple[list[str], list[str]]:
    """Return the cells of the line of names, and of the first row."""
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8", newline="")
    filled = filter(any, csv.reader(text, delimiter=separator, skipinitialspace=True))
    return next(filled, []), next(filled, [])


def _separated(content: bytes) -> tuple[str, bytes]:
    """Return what separates cells, and the text from its first line of cells on.

    A line that says ``sep=;`` may come first, as spreadsheets write it. Else what there is most of
    in the first line is the separator, but for names in quotes, which may hold any.
    """
    content = content[re.match(rb"(?:[ \t]*\r?\n)*", content).end() :]  # type: ignore[union-attr]
    said = re.match(rb"sep=([%b])\r?\n" % _SEPARATORS.encode(), content)
    if said:
        return said[1].decode(), content[said.end() :]
    line = re.match(rb"[^\n]*", content)[0]  # type: ignore[index]
    first = re.sub(rb'"[^"]*"', b"", line)
    return max(_SEPARATORS, key=lambda separator: first.count(separator.encode())), content


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise ImportError("tables need pandas: pip install 'fastnn[tables]'") from None
    return pandas
