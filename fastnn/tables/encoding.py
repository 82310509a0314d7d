"""How a whole table becomes inputs and targets, and how a network's file holds that."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastnn import checks
from fastnn.checks import Array
from fastnn.layers import Dense
from fastnn.tables.cells import Frame
from fastnn.tables.columns import Category, Number
from fastnn.tables.targets import Classes, Quantity

if TYPE_CHECKING:
    from fastnn.network import Network


ENTRY = "table"
"""Of `Network.metadata`."""


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
        except Exception as error:  # damage shows in many ways
            reason = checks.message(f"{type(error).__name__}: {error}")
            raise ValueError(
                f"expected what `fastnn train` wrote of a table in the entry {ENTRY!r} of the "
                f"metadata, got a damaged one: {reason}"
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
    def texts(self) -> Container[str]:
        """All columns but those of numbers that the network takes or answers.

        `read` needs them: a file in which all categories look like numbers is not to be read as one
        of numbers, if '01' and '1' are two categories. Of other columns, such as ids, the same is
        true where they are written beside answers.
        """
        columns = (*self.columns, self.target)
        return _AllBut(frozenset(c.name for c in columns if isinstance(c, Number | Quantity)))

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

    def others(self, frame: Frame) -> dict[str, list[str]]:
        """Return the columns that the network neither takes nor answers, such as an id, as texts.

        Missing values are empty ones.
        """
        known = {*self.names, self.target.name}
        return {
            name: frame[name].astype(object).where(frame[name].notna(), "").map(str).tolist()
            for name in frame.columns
            if name not in known
        }

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


@dataclass(frozen=True)
class _AllBut(Container[str]):
    """What holds every name but some."""

    names: frozenset[str]

    def __contains__(self, name: object) -> bool:
        return name not in self.names


def _check_columns(frame: Frame, names: Sequence[str]) -> None:
    absent = [name for name in names if name not in frame.columns]
    if absent:
        raise ValueError(
            f"expected a table with the columns {checks.listed(names)}, "
            f"found none of the name {checks.listed(absent)}"
        )


def _described(of: Number | Category | Classes | Quantity) -> dict[str, Any]:
    return {"kind": type(of).__name__, **asdict(of)}


def _built(description: dict[str, Any], *kinds: type) -> Any:
    """Return what `_described` has described, one of the kinds; JSON has lists for tuples."""
    kind = {kind.__name__: kind for kind in kinds}[description.pop("kind")]
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in description.items()})
