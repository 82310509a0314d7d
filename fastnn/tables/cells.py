"""Cells of a column: which numbers or categories they are, and what is refused."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn import checks, extras

Frame = Any
"""A `pandas.DataFrame`."""


def is_number(column: Any) -> bool:
    """Say whether a column holds numbers, decimal fractions and integers of any size included."""
    types = load_pandas().api.types
    if column.dtype == object:
        kind = types.infer_dtype(column, skipna=True)
        return kind in ("integer", "floating", "mixed-integer-float", "decimal")
    return bool(
        types.is_numeric_dtype(column.dtype)
        and not types.is_bool_dtype(column.dtype)
        and not types.is_complex_dtype(column.dtype)
    )


def numbers(column: Any, name: str) -> npt.NDArray[np.float64]:
    """Return a column in float64, NaN where a value is missing."""
    if is_number(column):
        found = column
    elif column.dtype.kind == "c":
        found = load_pandas().Series(math.nan, column.index)
    else:  # as objects: of a column of dates pandas would return nanoseconds
        found = load_pandas().to_numeric(column.astype(object), errors="coerce")
    values: npt.NDArray[np.float64] = found.to_numpy(np.float64, na_value=np.nan)
    strange = (np.isnan(values) & column.notna().to_numpy()) | np.isinf(values)
    refuse(strange, name, "finite numbers", column)
    return values


def categories(column: Any) -> list[str]:
    """Return the texts that occur, numbers in the order of their size."""
    values = list(column.dropna().unique())
    try:
        values.sort()
    except TypeError:  # of several kinds
        values.sort(key=str)
    return list(dict.fromkeys(map(as_text, values)))


def most_frequent(column: Any) -> str:
    counts = column.value_counts()
    if not len(counts):
        raise ValueError(
            f"column {checks.short(column.name)}: expected a text in some training row, got none"
        )
    best = [value for value, count in counts.items() if count == counts.iloc[0]]
    return min(map(as_text, best))


def as_text(value: object) -> str:
    """Return what a category is called: 3 and 3.0, which a missing value makes of it, are one."""
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if whole else str(value)  # type: ignore[call-overload]


def as_number(text: str) -> str:
    """Return what the category of a number is called, "" for any other text."""
    text = text.strip()
    if re.fullmatch(r"[+-]?[0-9]+", text):
        return str(int(text))
    decimal = re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text)
    return as_text(float(text)) if decimal and math.isfinite(float(text)) else ""


def _as_truth(text: str) -> str:
    """Return what the category of a truth value is called, "" for any other text."""
    text = text.strip().capitalize()
    return text if text in ("True", "False") else ""


def places(
    column: Any, name: str, known: Sequence[str], missing: str | None
) -> npt.NDArray[np.int64]:
    """Return which of the known texts each row has.

    Where all that are known are numbers, or truth values, so are those of the column: '1.0' is '1',
    and 'TRUE' is 'True'. Else texts are compared as they are, so that '01' is not '1'.
    """
    codes, values = load_pandas().factorize(column)
    called = next((of for of in (_as_truth, as_number) if all(of(k) == k for k in known)), str)
    place = {text: i for i, text in enumerate(known)}
    # the last entry is that of missing values, whose code is -1
    texts = [called(as_text(value)) for value in values] + [missing or ""]
    of_code = [place.get(text, -1) for text in texts]
    if called is str:  # a number may be any of '01' and '1'
        spellings = Counter(map(as_number, known))
        for i, value in enumerate(values):
            if not isinstance(value, str) and spellings[texts[i]] > 1:
                of_code[i] = -1
    if missing is None:
        of_code[-1] = -1
    places: npt.NDArray[np.int64] = np.array(of_code, np.int64)[codes]
    refuse(places < 0, name, f"one of {checks.listed(known, 10)}", column)
    return places


def refuse(wrong: npt.NDArray[np.bool_], name: str, expected: str, column: Any) -> None:
    if wrong.any():
        at = int(wrong.argmax())
        value = column.iloc[at]
        got = checks.short(repr(value) if isinstance(value, str) else value)
        if load_pandas().isna(value):
            got = "no value"
        label = column.index[at]  # which stays that of the file where rows have been left out
        row = label + 1 if isinstance(label, int | np.integer) else checks.short(label)
        more = f" and others, {wrong.sum()} rows in all" if wrong.sum() > 1 else ""
        raise ValueError(
            f"column {checks.short(name)}: expected {expected}, got {got} in row {row}{more}"
        )


def unit_of(*columns: Any) -> float:
    """Return 1, or for numbers whose squares and sums might overflow what to divide them by."""
    largest = max((float(np.abs(values).max()) for values in columns if np.size(values)), default=0)
    return 1.0 if largest < 1e140 else largest


def standardised(
    values: npt.NDArray[np.float64], mean: float, deviation: float
) -> npt.NDArray[np.float64]:
    unit = unit_of(values[np.isfinite(values)], mean)
    return (values / unit - mean / unit) / (deviation / unit)


def check_texts(name: str, values: Any) -> None:
    """Raise unless these are one or more texts, each once."""
    right = isinstance(values, tuple) and all(isinstance(value, str) for value in values)
    if not right or not 0 < len(values) == len(set(values)):
        raise ValueError(f"{name}: expected different texts, got {checks.message(repr(values))}")


def check_scale(mean: float, deviation: float) -> None:
    checks.real("mean", mean)
    if not checks.real("deviation", deviation, minimum=0.0):
        raise ValueError("deviation: expected a number above 0, got 0")


def load_pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise ImportError(f"tables need pandas: {extras.install('tables')}") from None
    return pandas
