"""`fastnn predict`: pictures and CSV rows into a network, and its answers as a table or CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import images
from fastnn.checks import Array

if TYPE_CHECKING:
    from fastnn.network import Network


def of_pictures(network: Network, paths: Iterable[str]) -> Array:
    """Return a row of inputs for each picture; see `images.read`.

    Raises
    ------
    ValueError
        If the network does not take 784 inputs, or a file is no picture of a digit.
    ImportError
        If Pillow is not installed.
    """
    scale = images.pixel_scale(network)
    return np.stack([scale * images.read(path).ravel() for path in paths])


def of_csv(network: Network, lines: Iterable[str], name: str) -> Array:
    """Return a row of inputs for each line of comma-separated numbers.

    The numbers are what the network takes, so raw pixels where it begins with `Rescaling`. Empty
    lines are skipped, and a first line without any number, which names the columns.

    Raises
    ------
    ValueError
        If a line has another number of columns than the network has inputs, or something in it is
        no finite number, or there is no row; `name` is called the source.
    """
    width = images.input_width(network)
    rows: list[list[float]] = []
    reader = csv.reader(lines)
    for cells in _records(reader, name):
        if reader.line_num == 1 and cells:
            cells[0] = cells[0].removeprefix("\ufeff")  # what some programs begin a file with
        if not cells:
            continue
        numbers = [_number(cell) for cell in cells]
        if reader.line_num == 1 and not any(map(math.isfinite, numbers)):
            continue
        place = f"{name}, line {reader.line_num}"
        if rows:  # a network may take any number of columns, but not several
            width = len(rows[0])
        if width not in (None, len(cells)):
            raise ValueError(f"{place}: expected {width} columns, got {len(cells)}")
        if not all(map(math.isfinite, numbers)):
            at = next(i for i, number in enumerate(numbers) if not math.isfinite(number))
            raise ValueError(
                f"{place}: expected finite numbers, got {cells[at]!r:.60} in column {at + 1}"
            )
        rows.append(numbers)
    if not rows:
        raise ValueError(f"{name}: expected at least one row of numbers, got none")
    return np.array(rows)


def _records(reader: Any, name: str) -> Iterator[list[str]]:
    """Yield the cells of each line; a ValueError that names the file where they are none."""
    try:
        yield from reader
    except csv.Error as error:
        raise ValueError(
            f"{name}, line {reader.line_num}: expected rows of numbers, got {error}"
        ) from None


def finite(outputs: Array) -> Array:
    """Return outputs [rows, outputs], if all are finite numbers.

    Raises
    ------
    ValueError
        Unless they are, as of a network whose training has diverged.
    """
    wrong = np.count_nonzero(~np.isfinite(outputs).all(axis=1))
    if wrong:
        raise ValueError(
            f"MODEL: expected a network whose answers are finite numbers, got others for "
            f"{wrong} of {len(outputs)} rows; its training may have diverged"
        )
    return outputs


@dataclass(frozen=True)
class Answers:
    """What a network answers for each of several inputs, to be shown or written.

    Parameters
    ----------
    source
        What an input is, such as "row".
    inputs
        The name or number of each.
    name
        Of what is answered.
    said
        The answers: texts, or numbers.
    classes, probabilities
        Where there are probabilities [inputs, classes]: of what.
    """

    source: str
    inputs: Sequence[str]
    name: str
    said: Sequence[str] | Sequence[float]
    classes: Sequence[str] = ()
    probabilities: Array | None = None

    @classmethod
    def of_rows(cls, name: str, said: Sequence[str] | Sequence[float], *options: Any) -> Answers:
        """Return answers for the rows of a table, which are numbered from 1."""
        return cls("row", [str(i) for i in range(1, len(said) + 1)], name, said, *options)

    @classmethod
    def of_network(cls, network: Network, X: Array, pictures: Sequence[str] | None) -> Answers:
        """Return what a network says of pictures, or of rows, and the probability of each output.

        Of several yes or no, which have a row of answers, those that are yes are named.
        """
        probabilities = finite(network.predict_proba(X))
        said = [_said(answer) for answer in network.predict(X)]
        outputs = [str(i) for i in range(probabilities.shape[1])]
        if pictures is None:
            return cls.of_rows("answer", said, outputs, probabilities)
        return cls("picture", pictures, "answer", said, outputs, probabilities)

    def as_text(self) -> str:
        """Return a line for each input, numbers to a few digits."""
        label = "row " if self.source == "row" else ""
        said = [answer if isinstance(answer, str) else f"{answer:.6g}" for answer in self.said]
        rows = [["", self.name, *self.classes]]
        for name, answer, p in zip(self.inputs, said, self._probabilities(), strict=True):
            rows.append([label + name, answer, *(f"{x:.4f}" for x in p)])
        return aligned(rows)

    def as_csv(self, beside: Mapping[str, Sequence[str]]) -> str:
        """Return a first line of names and a line for each input, numbers to all digits.

        Parameters
        ----------
        beside
            More columns of the inputs, such as an id, by their names. One called as `source` stands
            in its place, and those called as columns of answers are left out.
        """
        answered = [self.name, *(f"probability_{name}" for name in self.classes)]
        columns = {self.source: self.inputs, **beside}
        for name in answered:
            columns.pop(name, None)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*columns, *answered])
        for *cells, answer, p in zip(
            *columns.values(), self.said, self._probabilities(), strict=True
        ):
            writer.writerow([*cells, answer, *map(str, p)])
        return text.getvalue()

    def _probabilities(self) -> Iterable[Sequence[float]]:
        """Return those of each input, none where there are none."""
        return [()] * len(self.said) if self.probabilities is None else self.probabilities


def _said(answer: Array) -> str:
    if answer.ndim == 0:
        return str(answer)
    return ",".join(map(str, answer.nonzero()[0])) or "-"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return lines of the rows, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])])
        for first, *rest in rows
    )


def _number(cell: str) -> float:
    """Return the number in a cell, NaN where there is none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan
