"""What an edge is, what is found there, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastnn.bench.figures import NO_VALUE, Spread, short, spread
from fastnn.markdown import markdown_table

from .tasks import Task

SUBJECT, NUMPY = "fastnn", "fastnn's NumPy backend"


@dataclass(frozen=True)
class Found:
    """One piece of work, as each contender did it.

    Attributes
    ----------
    work : str
        In words.
    values : mapping
        Of each contender that computed what it should, a value a round.
    unit : {"s", "MB"}
    errors : mapping
        Of each other one, why it has none.
    missing : tuple of str
        Contenders whose library is not installed.
    """

    work: str
    values: Mapping[str, Sequence[float]]
    unit: str = "s"
    errors: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def ratio(self, contender: str) -> Spread | None:
        """Return how many times as much it took as fastnn in the same round; None if unknown."""
        if not {SUBJECT, contender} <= self.values.keys():
            return None
        pairs = zip(self.values[contender], self.values[SUBJECT], strict=True)
        return spread(theirs / ours for theirs, ours in pairs)


@dataclass(frozen=True)
class Edge:
    """A question, and the work that answers it.

    Attributes
    ----------
    name, question : str
    works : tuple of str
        All that `measure` may find.
    measure : callable
        Takes a number of rounds and yields what is found.
    rounds : int
        Unless told.
    tasks : mapping
        What makes each work, if contenders take turns in one process.
    notes : callable
        Takes all that was found and returns what follows from it, a line each.
    shown : callable
        Whether a row is of interest.
    """

    name: str
    question: str
    works: tuple[str, ...]
    measure: Callable[[int], Iterator[Found]]
    rounds: int = 7
    tasks: Mapping[str, Callable[[], Task]] = field(default_factory=dict)
    notes: Callable[[Sequence[Found]], list[str]] = lambda found: []
    shown: Callable[[Found], bool] = lambda found: True


def as_markdown(edge: Edge, found: Sequence[Found]) -> str:
    """Return an edge as a section: a row for each work, a column for each contender."""
    shown = [of for of in found if edge.shown(of)]
    others = dict.fromkeys(name for of in shown for name in of.values if name != SUBJECT)
    rows = []
    for of in shown:
        ours = of.values.get(SUBJECT)
        rows.append([
            of.work,
            NO_VALUE if ours is None else in_words(spread(ours).median, of.unit),
            *(str(of.ratio(name) or NO_VALUE) for name in others),
        ])  # fmt: skip
    parts = [f"## {edge.name}", edge.question]
    if rows:
        parts.append(markdown_table(["work", SUBJECT, *others], rows))
    parts += edge.notes(found)
    if missing := dict.fromkeys(name for of in found for name in of.missing):
        parts.append(f"Not installed, so left out: {', '.join(missing)}.")
    parts += [f"No value: {line}." for line in failures(found)]
    return "\n\n".join(parts)


def failures(found: Sequence[Found]) -> list[str]:
    """Return who computed something else or failed, and why."""
    return [f"{of.work}: {name}: {error}" for of in found for name, error in of.errors.items()]


def as_json(edge: Edge, found: Sequence[Found]) -> dict[str, Any]:
    """Return an edge with each value of each round, and the ratios."""
    rows = [vars(of) | {"ratios": {name: of.ratio(name) for name in of.values}} for of in found]
    return {"name": edge.name, "question": edge.question, "found": rows}


def in_words(value: float, unit: str) -> str:
    """Write seconds in the unit that suits them."""
    if unit == "s" and value < 1:
        power, unit = (1e3, "ms") if value >= 1e-3 else (1e6, "us")
        value *= power
    return f"{short(value)} {unit}"
