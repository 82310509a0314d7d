"""Hints: what spoils a training without an error, and what to write instead."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from fastnn.checks import Array
from fastnn.datasets import LEAST_PIXELS
from fastnn.layers import Dense, Layer
from fastnn.normalization import BatchNorm

Names = Sequence[object] | None
"""Of the columns of a table, if it has any."""

LARGE = 10.0
"""Inputs and targets that are standardised exceed it in a hundredth of the samples at most: by
Chebyshev's inequality, P(|x| > 10) is at most 1/100 where the variance is 1 and the mean 0. The
integers of `load_digits`, up to 16, already keep SGD at 0.1 from learning anything."""

OFTEN = 0.1
"""The share of the samples that has to exceed it."""

SAMPLES = 128
"""How many at most, evenly spaced, stand for all of them."""

EXPECTED = 10
"""How many samples of a class there are to be on average, before one without any is strange."""

BLOCK = 4096
"""Rows that are looked through at once."""


class Named(NamedTuple):
    """A table that has become an array, and the names that it had for its columns."""

    array: Array
    names: Names


NAMED: ContextVar[Named | None] = ContextVar("NAMED", default=None)
"""Set where several networks are given one array in place of a table."""


def names_of_columns(X: object) -> Names:
    """Return the names that a table of pandas or polars has, or had, for its columns."""
    named = NAMED.get()
    if named is not None and X is named.array:
        return named.names
    columns = getattr(X, "columns", None)
    return list(columns) if isinstance(columns, Iterable) else None


class Line(NamedTuple):
    """A line of code, as `warnings.warn_explicit` takes it."""

    filename: str
    lineno: int
    module: str
    registry: dict[Any, Any]


CALLER: ContextVar[Line | None] = ContextVar("CALLER", default=None)
"""Set where a training runs in a thread, which no line outside fastnn has called."""


def line_outside() -> Line:
    """Return the line outside fastnn that led here."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "fastnn":
        frame = frame.f_back
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    module = frame.f_globals.get("__name__") or "<unknown>"
    return Line(frame.f_code.co_filename, frame.f_lineno, module, registry)


def warn(message: str, category: type[Warning]) -> None:
    """Warn, and name the line outside fastnn that led here."""
    line = CALLER.get() or line_outside()
    warnings.warn_explicit(message, category, *line)


def look_at_inputs(layers: Sequence[Layer], X: Array, names: Names) -> None:
    """Warn of inputs [n, input_units] far from 1, unless a layer may scale them."""
    if not isinstance(layers[0], Dense):
        return
    excerpt = _large_excerpt(X)
    if excerpt is None:
        return
    large, highest = _often_large(excerpt), excerpt.max()
    if not large.any():
        return
    whole = excerpt.min() == 0 and bool((excerpt == np.floor(excerpt)).all())
    if whole and 127 < highest <= 255 and X.shape[1] >= LEAST_PIXELS:
        warn(
            f"X: looks like raw pixels, with values up to {highest:g}, from which a network learns "
            "badly; begin the network with fastnn.Rescaling(1 / 255), or train on X / 255",
            UserWarning,
        )
        return
    largest = np.where(large, np.maximum(excerpt.max(axis=0), -excerpt.min(axis=0)), 0)
    column = int(largest.argmax())
    example = f"{_listed('column', [column], names)} with values up to {_rounded(largest[column])}"
    warn(
        f"X: {large.sum()} of {X.shape[1]} columns often go beyond {LARGE:g}, such as {example}; "
        "a network learns badly from inputs far from 1. Scale each column: train on "
        "fastnn.standardize(X, axis=0), and predict from fastnn.standardize(X_new, X, axis=0)",
        UserWarning,
    )


def look_at_targets(y: Array) -> None:
    """Warn of real targets [n, outputs] far from 1."""
    excerpt = _large_excerpt(y)
    if excerpt is not None and _often_large(excerpt).any():
        largest = max(excerpt.max(), -excerpt.min())
        of = "axis=0" if y.shape[1] > 1 else ""
        warn(
            f"y: targets are as large as {_rounded(largest)}; the steps of training grow with them "
            f"and may end in NaN. Train on (y - y.mean({of})) / y.std({of}), and turn predictions "
            f"back by * y.std({of}) + y.mean({of})",
            UserWarning,
        )


def look_at_classes(y: Array, classes: int) -> None:
    """Warn of class ids that never occur, where chance is no explanation."""
    if len(y) < EXPECTED * classes:
        return
    counts = np.bincount(y, minlength=classes)
    if counts.min() > 0:
        return
    missing = np.flatnonzero(counts == 0)
    lowest, highest = y.min(), y.max()
    hint = "np.unique(y, return_inverse=True)[1] counts those that occur from 0"
    if lowest == 1:
        hint = "if labels count from 1, write y - 1"
        if highest == classes - 1:
            hint += f", and {highest} outputs"
    elif missing[0] > highest:
        hint = f"if there are no more classes, the last layer needs no more than {highest + 1}"
    warn(
        f"y: no sample is of {_listed('class', missing)}; labels go from {lowest} to {highest}, "
        f"and the {classes} outputs are for classes 0 to {classes - 1}; {hint}",
        UserWarning,
    )


def look_at_batches(layers: Sequence[Layer], batch_size: int) -> None:
    """Warn of batches of one sample, from which batch norm learns nothing."""
    for layer in layers:
        if batch_size == 1 and isinstance(layer, BatchNorm):
            warn(
                f"batch_size: expected 2 or more with {layer!r}, got 1; one sample has no "
                "variance, so each unit gives its shift, and no layer below learns",
                UserWarning,
            )
            return


class Watch:
    """Warns once of a loss that is NaN or infinite, and says where that comes from.

    Parameters
    ----------
    dtype
        That the network computes in.
    data
        Inputs and targets, by the names that the caller has for them.
    names
        Of the columns of the inputs, if they have any.
    silent
        Warn of nothing.
    """

    def __init__(
        self,
        dtype: np.dtype[Any],
        data: dict[str, Array],
        names: Names,
        *,
        silent: bool = False,
    ) -> None:
        self._dtype, self._names = dtype, names
        self.go_over_to(data)
        self._has_warned = silent

    def go_over_to(self, data: dict[str, Array], rows: Mapping[str, Array] | None = None) -> None:
        """Look for the reason in other data from now on.

        `rows` says which rows of their source they are, in ascending order, where not all are.
        """
        self._data, self._rows = data, rows or {}

    def loss(self, name: str, value: float) -> None:
        """Warn of a loss, such as the "loss of epoch 1", if it is NaN or infinite."""
        if math.isfinite(value) or self._has_warned:
            return
        self._has_warned = True
        reason = self.reason_in_data() or "training has diverged; try a smaller learning rate"
        warn(f"the {name} is {value}: {reason}", RuntimeWarning)

    def reason_in_data(self) -> str | None:
        """Say where the data are not finite, and what to do; None where they are."""
        for data, values in self._data.items():
            names = self._names if data == "X" else None
            rows = self._rows.get(data)
            if where := _non_finite(values, values.dtype, names, rows):
                return f"{data} holds NaN or infinity {where}; fill in or leave out such values"
            if where := _non_finite(values, self._dtype, names, rows):
                return f"{data} holds numbers too large for {self._dtype} {where}; scale them"
        return None


def has_nan(output: Array) -> bool:
    """Say whether there is NaN in outputs, at the least cost: NumPy takes NaN for the largest."""
    return math.isnan(output.item(output.argmax()))


def rows_with_nan(output: Array, start: int) -> list[int]:
    """Return the numbers of the rows with NaN, where the first has the number `start`."""
    return [start + int(row) for row in np.flatnonzero(np.isnan(output).any(axis=1))]


def warn_of_nan(
    dtype: np.dtype[Any], X: Array, names: Names, rows: Sequence[int], *, data_alone: bool = False
) -> None:
    """Warn of inputs `X`, or of a network, whose outputs for `rows` are NaN.

    A class comes of NaN as well, and looks like any other. `data_alone`: not of the network.
    """
    first = np.array(rows[:1])
    if where := _non_finite(X[first], X.dtype, names, first):
        reason = f"X: expected finite numbers, got NaN or infinity {where}"
        remedy = "; fill in or leave out such values"
    elif where := _non_finite(X[first], dtype, names, first):
        reason = f"X: expected numbers within {dtype}, got larger ones {where}"
        remedy = "; scale them"
    elif data_alone:
        return
    else:
        reason = f"expected a network whose outputs are numbers, got NaN first in row {rows[0]}"
        remedy = "; its training may have diverged"
    warn(
        f"{reason}; the outputs of {len(rows):,} of {len(X):,} rows are NaN, and answers to them "
        f"say nothing{remedy}",
        RuntimeWarning,
    )


def _large_excerpt(values: Array) -> Array | None:
    """Return the rows that all are judged by, as float64, or None, as a rule, if none is large.

    Nor if there is NaN or infinity, which is for others to find.
    """
    if values.dtype.kind == "b":
        return None
    # a copy, which the next two look at: they would wait for memory twice
    rows = values[:: -(-len(values) // SAMPLES)].copy()
    lowest, highest = float(rows.min()), float(rows.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)) or max(-lowest, highest) <= LARGE:
        return None
    excerpt: Array = rows.astype(np.float64)
    return excerpt


def _often_large(excerpt: Array) -> Array:
    """Return which columns are often large."""
    often: Array = np.mean(np.abs(excerpt) > LARGE, axis=0) > OFTEN
    return often


def _non_finite(
    values: Array, dtype: np.dtype[Any], names: Names, rows: Array | None
) -> str | None:
    """Say where something is that is no finite number in `dtype`; `rows` has the rows' numbers."""
    if values.dtype.kind != "f":
        return None
    matrix = values.reshape(len(values), -1)
    counts, first = np.zeros(matrix.shape[1], np.int64), 0
    for start in range(0, len(matrix), BLOCK):
        with np.errstate(over="ignore"):
            wrong = ~np.isfinite(matrix[start : start + BLOCK].astype(dtype, copy=False))
        if not counts.any() and wrong.any():
            first = start + int(wrong.any(axis=1).argmax())
        counts += wrong.sum(axis=0)
    columns = np.flatnonzero(counts)
    if not columns.size:
        return None
    if rows is not None:
        first = rows[first]
    places = f"in {_listed('column', columns, names)}, " if len(counts) > 1 else ""
    if counts.sum() == 1:
        return f"{places}in row {first}"
    return f"{counts.sum():,} times, {places}first in row {first}"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value < 1e9 else f"{value:.3g}"


def _listed(noun: str, numbers: Sequence[int] | Array, names: Names = None) -> str:
    """Return the first numbers, with names if there are any, and how many more there are."""
    shown = [f"{i}" if names is None else f"{i} ({names[i]!r})" for i in numbers[:3]]
    more = f" and {len(numbers) - 3} more" if len(numbers) > 3 else ""
    plural = ("es" if noun.endswith("s") else "s") if len(numbers) > 1 else ""
    return f"{noun}{plural} {', '.join(shown)}{more}"
