"""Columns that a network reads, and how they become its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn import checks
from fastnn.checks import Array
from fastnn.tables import cells


@dataclass(frozen=True)
class Number:
    """A column of numbers; `missing` stands for those that are, None where there may be none."""

    name: str
    mean: float
    deviation: float
    missing: float | None = None

    width = 1

    def __post_init__(self) -> None:
        cells.check_texts("name", (self.name,))
        cells.check_scale(self.mean, self.deviation)
        if self.missing is not None:
            checks.real("missing", self.missing)

    def encode(self, column: Any, inputs: Array) -> None:
        """Write the standardised column to the network's inputs, [n, 1]."""
        values = cells.numbers(column, self.name)
        if self.missing is not None:
            values = np.where(np.isnan(values), self.missing, values)
        cells.refuse(np.isnan(values), self.name, "a number in every row", column)
        with np.errstate(over="ignore"):
            inputs[:, 0] = cells.standardised(values, self.mean, self.deviation)
        expected = f"numbers that standardised are in the range of {inputs.dtype}"
        cells.refuse(np.isinf(inputs[:, 0]), self.name, expected, column)


@dataclass(frozen=True)
class Category:
    """A column of one of several texts; `missing` as `Number` has it."""

    name: str
    categories: tuple[str, ...]
    missing: str | None = None

    def __post_init__(self) -> None:
        cells.check_texts("name", (self.name,))
        cells.check_texts("categories", self.categories)
        if self.missing is not None and self.missing not in self.categories:
            raise ValueError(
                f"missing: expected one of the categories, got {checks.short(repr(self.missing))}"
            )

    @property
    def width(self) -> int:
        """How many columns the network has of it."""
        return len(self.categories)

    def encode(self, column: Any, inputs: Array) -> None:
        """Write a one in the place of each row's category to the network's inputs, [n, width]."""
        places = cells.places(column, self.name, self.categories, self.missing)
        inputs[...] = 0
        inputs[np.arange(len(places)), places] = 1
