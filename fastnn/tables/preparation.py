"""A table made ready for training: what to make of each column, and which rows are for what."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnn import checks
from fastnn.checks import Array
from fastnn.tables import cells, reading
from fastnn.tables.cells import Frame
from fastnn.tables.columns import Category, Number
from fastnn.tables.encoding import Encoding
from fastnn.tables.targets import Classes, Quantity

MOST_CATEGORIES = 100
"""A column of more different texts, such as names, says little in one column for each."""

MOST_INTEGER_CLASSES = 20
"""Whole numbers of more different values are a quantity, not classes."""

MOST_NUMBERS = 10
"""Columns of numbers that are named."""

MISSING = ("mean", "median", "drop")

TASKS = ("classification", "regression")


class Prepared(NamedTuple):
    """A table that is ready for training.

    `parts` are the inputs and targets of training, validation and test, in this order, and `notes`
    lines that say what has become of the table.
    """

    encoding: Encoding
    parts: tuple[Array, ...]
    notes: list[str]


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
    vanished = reading.left_out_of(frame)
    ignore, categorical = list(ignore), set(categorical)
    for name, columns in {"target": [target], "ignore": ignore, "categorical": categorical}.items():
        unknown = [column for column in columns if column not in frame.columns]
        if unknown:
            known, got = checks.listed(frame.columns), checks.short(repr(unknown[0]))
            raise ValueError(f"{name}: expected one of the columns {known}, got {got}")
    left_out = set(ignore) - {target}
    frame = frame[[column for column in frame.columns if column not in left_out]]
    frame = frame.reset_index(drop=True)
    names = [column for column in frame.columns if column != target]
    if not names:
        raise ValueError(f"expected a table of more columns than {checks.short(target)}, got none")
    if not len(frame):
        raise ValueError("expected a table of at least one row, got none")
    texts = {name for name in names if name in categorical or not cells.is_number(frame[name])}
    for name in sorted(texts - categorical):
        _check_no_numbers(frame[name], name, f"--categorical {checks.short(shlex.quote(name))}")
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
        listed = checks.listed((name for name in names if name not in texts), MOST_NUMBERS)
        kinds.append(f"{len(names) - len(texts)} columns of numbers ({listed}; standardised)")
    if texts:
        listed = checks.listed(name for name in names if name in texts)
        kinds.append(f"{len(texts)} of categories ({listed})")
    notes.insert(1, f"inputs: {' and '.join(kinds)}: {encoding.width} in all")
    doubtful = {name: _not_a_number(frame[name]) for name in names if name in texts - categorical}
    if said := checks.listed({name: f"(not {text!r})" for name, text in doubtful.items() if text}):
        notes.insert(2, f"of categories, though most of their texts are numbers: {said}")
    return Prepared(encoding, tuple(of for part in parts for of in (X[part], y[part])), notes)


def _check_choice(name: str, value: str | None, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        raise ValueError(f"{name}: expected {' or '.join(choices)}, got {value!r}")


def _check_no_numbers(column: Any, name: str, otherwise: str) -> None:
    """Raise if most of many different texts are numbers: some cell has made texts of a quantity."""
    values = column.astype(object)
    texts = [value for value in values.unique() if isinstance(value, str)]
    numbers = {text for text in texts if cells.as_number(text)}
    with_comma = {text for text in texts if cells.as_number(text.replace(",", ".", 1))}
    if len(with_comma) > max(MOST_INTEGER_CLASSES, len(texts) / 2):
        wrong = values.notna().to_numpy() & ~values.isin(numbers).to_numpy()
        expected = (
            "numbers, with a decimal point, as most of its texts are some (if it is of categories: "
            f"{otherwise})"
        )
        cells.refuse(wrong, name, expected, column)


def _not_a_number(column: Any) -> str:
    """Return a text among others most of which are numbers, "" if there is none."""
    texts = [text for text in cells.categories(column) if text not in ("True", "False")]
    others = [text for text in texts if not cells.as_number(text)]
    return checks.short(others[0]) if 0 < len(others) < len(texts) / 2 else ""


def _check_usable(frame: Frame, names: Sequence[str], texts: set[str]) -> None:
    """Raise unless there is something to learn from each column; name all that are of no use."""
    found = {}
    for name in names:
        column = frame[name]
        if column.isna().all():
            found[name] = "is empty"
        elif name in texts and column.dtype.kind in "mMc":
            found[name] = f"holds {column.dtype}"
        elif name in texts and (count := len(cells.categories(column))) > MOST_CATEGORIES:
            found[name] = f"has {count} different texts"
        elif name not in texts:
            cells.numbers(column, name)  # refuses those that are not finite
    if found:
        raise ValueError(
            f"expected columns of numbers or of at most {MOST_CATEGORIES} categories, but "
            f"{checks.listed(found)}; to leave columns out: --ignore "
            + checks.listed(map(shlex.quote, found), separator=" ")
        )


def _without_missing(
    frame: Frame, target: str, names: Sequence[str], missing: str | None
) -> tuple[Frame, list[str]]:
    """Return the rows that can be used, and lines that say what is done about missing values."""
    notes, shown = [], checks.short(target)
    known = frame.dropna(subset=[target])
    if not len(known):
        raise ValueError(f"target: expected a value in some row, got none in {shown}")
    if len(known) < len(frame):
        notes.append(f"left out: {len(frame) - len(known)} of {len(frame)} rows without {shown}")
    counts = {name: int(known[name].isna().sum()) for name in names}
    said = checks.listed({name: count for name, count in counts.items() if count})
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
    numeric = cells.is_number(column)
    if task != "classification" and not numeric:
        _check_no_numbers(column, name, "--task classification")
    if task is None:
        task = "regression" if numeric and not _looks_like_classes(column) else "classification"
    if task == "regression":
        if not numeric:
            raise ValueError(
                f"target: expected a column of numbers, got {checks.short(name)} of texts"
            )
        number = _fitted_number(training[name], name, None)
        return Quantity(name, number.mean, number.deviation)
    classes = cells.categories(column)
    if not 2 <= len(classes) <= max(2, len(column) // 2):
        raise ValueError(
            f"target: expected classes that occur more than once, got {len(classes)} different "
            f"values in {len(column)} rows of {checks.short(name)}"
        )
    return Classes(name, tuple(classes), cells.most_frequent(training[name]))


def _looks_like_classes(column: Any) -> bool:
    values = cells.numbers(column, str(column.name))
    if not (values == np.floor(values)).all():
        return False
    different = len(np.unique(values))
    return different <= 2 or (different <= MOST_INTEGER_CLASSES and 10 * different <= len(values))


def _fitted_number(training: Any, name: str, missing: str | None) -> Number:
    values = cells.numbers(training, name)
    known = values[~np.isnan(values)]
    if not len(known):
        shown = checks.short(name)
        raise ValueError(f"column {shown}: expected a number in some training row, got none")
    stands = None
    if missing in ("mean", "median"):
        unit = cells.unit_of(known)
        stands = float(getattr(np, missing)(known / unit)) * unit
        values = np.where(np.isnan(values), stands, values)
    # of a column that is constant, or as good as that, nothing is left but its mean
    unit = cells.unit_of(values)
    mean, deviation = float((values / unit).mean()) * unit, float((values / unit).std()) * unit
    if deviation <= 1e-12 * abs(mean):
        deviation = 1.0
    return Number(name, mean, deviation, stands)


def _fitted_category(column: Any, training: Any, name: str, missing: str | None) -> Category:
    # of all rows: a category that no training row has is one that a new table may hold
    known = tuple(cells.categories(column))
    stands = cells.most_frequent(training) if missing in ("mean", "median") else None
    return Category(name, known, stands)
