"""Single operations of a backend in which NumPy is the faster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastnn.bench.cases import Case
from fastnn.bench.measuring import environment
from fastnn.bench.ratios import chosen, measure_ratios

from .found import NUMPY, Edge, Found


def _measure(rounds: int) -> Iterator[Found]:
    for ratio in measure_ratios(chosen("operations"), rounds, environment(Case("numba"))):
        values = {} if ratio.error else {"fastnn": ratio.seconds["numba"]}
        if not ratio.error:
            values[NUMPY] = ratio.seconds["numpy"]
        errors = {"fastnn": ratio.error} if ratio.error else {}
        yield Found(ratio.name, values, errors=errors)


def is_lost(found: Found) -> bool:
    """Whether NumPy was faster in three rounds of four."""
    ratio = found.ratio(NUMPY)
    return ratio is not None and ratio.upper < 1


def _notes(found: Sequence[Found]) -> list[str]:
    lost = sum(map(is_lost, found))
    return [f"NumPy is faster in {lost} of {len(found)}; the others are not shown."]


EDGES = (
    Edge(
        "operations",
        "Operations of a backend, called one by one from Python, in which NumPy is faster.",
        tuple(f"{of.label}, {of.size}, {of.dtype}" for of in chosen("operations")),
        _measure,
        notes=_notes,
        shown=is_lost,
    ),
)
