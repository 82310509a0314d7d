"""Reports of several machines beside each other: what ``--beside`` makes of files of ``--json``."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NamedTuple

from fastnn.bench.cases import LABELS
from fastnn.bench.figures import NO_VALUE, Spread, short, spread
from fastnn.bench.machine import in_words
from fastnn.bench.report import load_warning
from fastnn.markdown import markdown_table


class _Cell(NamedTuple):
    """What one report says in one row of a table; only of ratios there is a mean.

    `of` is whose ratio it is, as the mean is of rows of one contender.
    """

    table: str
    row: str
    shown: str
    ratio: float | None = None
    of: str = ""


def beside(paths: Sequence[Path]) -> str:
    """Render reports of one suite as tables with a column for each of them.

    Parameters
    ----------
    paths : sequence of Path
        Files that ``fastnn bench --json`` wrote. A column is called as its file, or as its path
        where two files have the same name.

    Returns
    -------
    str
        Markdown: the machines, with what to know of each run, then a table for each kind of figure.

    Raises
    ------
    ValueError
        If a file is no report, or reports are of different suites.
    OSError
        If a file can't be read.
    """
    documents = {path: _read(path) for path in paths}
    if len(documents) < len(paths):
        raise ValueError("--beside: expected each file once")
    suites = {path: document["suite"] for path, document in documents.items()}
    if len(set(suites.values())) > 1:
        got = ", ".join(f"{suite} in {path}" for path, suite in suites.items())
        raise ValueError(f"--beside: expected reports of one suite, got {got}")
    unique = len({path.stem for path in paths}) == len(paths)
    names = {path: path.stem if unique else str(path) for path in paths}
    machines = []
    tables: dict[str, dict[str, dict[str, _Cell]]] = {}
    for path, document in documents.items():
        try:
            machines.append(f"- {names[path]}: {in_words(document['environment'])}")
            machines += [f"  - {line}" for line in _caveats(document)]
            for cell in _cells(document):
                tables.setdefault(cell.table, {}).setdefault(cell.row, {})[names[path]] = cell
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise _no_report(path) from error
    parts = [f"### {suites[paths[0]]}", "\n".join(machines)]
    for title, rows in tables.items():
        parts += [f"### {title}", _table(rows, list(names.values()))]
    return "\n\n".join(parts)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _no_report(path) from error
    if not isinstance(document, dict) or not isinstance(document.get("suite"), str):
        raise _no_report(path)
    return document


def _no_report(path: Path) -> ValueError:
    return ValueError(f"--beside: expected reports of fastnn bench --json, {path} is none")


def _table(rows: dict[str, dict[str, _Cell]], names: Sequence[str]) -> str:
    """Return a table, with each contender's mean of the ratios that all have below it."""
    shown = [
        [row, *[cells[name].shown if name in cells else NO_VALUE for name in names]]
        for row, cells in rows.items()
    ]
    ratios: dict[str, list[list[float]]] = {}
    for cells in rows.values():
        found = [cells[name].ratio for name in names if name in cells]
        known = [ratio for ratio in found if ratio]
        if len(known) == len(names):
            ratios.setdefault(cells[names[0]].of, []).append(known)
    for contender, of_rows in ratios.items():
        if len(of_rows) > 1:
            means = [short(geometric_mean(of)) for of in zip(*of_rows, strict=True)]
            row = f"geometric mean of {len(of_rows)}: {contender}".removesuffix(": ")
            shown.append([row, *means])
    return markdown_table(["", *names], shown)


def _caveats(document: dict[str, Any]) -> Iterator[str]:
    """Return what a reader of the report alone is told beside its tables."""
    if warning := load_warning(document["environment"]):
        yield warning
    if document["missing"]:
        yield f"Not installed: {', '.join(document['missing'])}."
    yield from (line for note in document["notes"] for line in note.splitlines())
    # a file of an earlier fastnn has no such entry
    yield from (f"No time reported: {text}" for text in document.get("failures", ()))


def _cells(document: dict[str, Any]) -> Iterator[_Cell]:
    for result in document["results"]:
        subject, *others = result["outcomes"]
        subject_name = LABELS[subject["case"]["contender"]]
        if figures := subject["figures"]:
            speed = f"{figures['samples_per_second']:,.0f}"
            yield _Cell(f"samples/s of {subject_name}", result["name"], speed)
        for outcome in others:
            if (figures := outcome["figures"]) and "time_ratio" in figures:
                row = f"{result['name']}: {outcome['label']}"
                table = f"time over {subject_name}"
                yield _ratio(table, row, figures["time_ratio"], outcome["label"])
    for ratio in document["ratios"]:
        if ratio["spread"]:
            title = f"NumPy's time over Numba's: {ratio['group']}, {ratio['dtype']}"
            yield _ratio(title, f"{ratio['label']}, {ratio['size']}", ratio["spread"])
    for cost in document["costs"]:
        if cost["values"]:
            value = f"{spread(cost['values'])} {cost['unit']}".rstrip()
            yield _Cell("before and beside the arithmetic", cost["name"], value)
    for anatomy in document["anatomies"]:
        for part in anatomy["parts"]:
            row = f"{anatomy['name']}: {part['layer']} {part['name']}"
            yield _Cell("microseconds of a step", row, short(1e6 * part["seconds"]))
    for race in document["races"]:
        for runner in race["runners"]:
            times = [seconds for seconds in runner["times"] if seconds is not None]
            if times:
                row = f"{race['name']}: {runner['label']}"
                yield _Cell("seconds to the target", row, str(spread(times)))
    for change in document["changes"]:
        if finding := change["finding"]:
            shown = f"{finding['ratio']:.3f} ({finding['lower']:.3f}-{finding['upper']:.3f})"
            yield _Cell("time of the new one over the old", change["name"], shown)


def _ratio(table: str, row: str, found: Sequence[float], of: str = "") -> _Cell:
    ratio = Spread(*found)
    return _Cell(table, row, str(ratio), ratio.median, of)
