"""Numbers as reports show them, and what half of them lie between."""

import math
from collections.abc import Iterable
from statistics import quantiles
from typing import NamedTuple

NO_VALUE = "-"


class Spread(NamedTuple):
    """A median, and the quartiles that half of the values lie between."""

    median: float
    lower: float
    upper: float

    @property
    def quartiles(self) -> str:
        """The quartiles, as they are shown."""
        return f"{short(self.lower)}-{short(self.upper)}"

    def __str__(self) -> str:
        return f"{short(self.median)} ({self.quartiles})"


def spread(values: Iterable[float]) -> Spread:
    """Return the median of at least one value, and the quartiles."""
    values = list(values)
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    lower, middle, upper = quantiles(values, method="inclusive")
    return Spread(middle, lower, upper)


def short(value: float) -> str:
    """Write a number with three digits at least, or where it begins with zeros two behind them."""
    if not math.isfinite(value):
        return str(value)
    if 0 < abs(value) < 0.1:
        return f"{value:.2g}"
    decimals = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{decimals}f}"
