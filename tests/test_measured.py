"""The tables of docs/measured.md and README.md are those of the runs in docs/measured/."""

import json
import re
from pathlib import Path

import pytest

from fastnn.bench.cases import Case
from fastnn.bench.costs import Cost
from fastnn.bench.races import Race, Runner
from fastnn.bench.recipes import RECIPES, Look
from fastnn.bench.report import Outcome, Report, Result, as_markdown, load_warning

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "measured.md").read_text("utf-8")
RUNS = sorted((ROOT / "docs" / "measured").glob("*.json"))


def case(fields):
    return Case(**fields | {"shape": tuple(fields["shape"])})


def outcome(fields):
    del fields["figures"]  # derived anew
    lists = ("seconds", "cpu_seconds", "results", "peak_bytes")
    return Outcome(
        **fields | {"case": case(fields["case"])} | {name: tuple(fields[name]) for name in lists}
    )


def result(fields):
    return Result(**fields | {"outcomes": tuple(map(outcome, fields["outcomes"]))})


def cost(fields):
    return Cost(fields["name"], fields["unit"], tuple(fields["values"]), fields["error"])


def race(fields):
    runners = [
        Runner(
            case(of["case"]),
            of["label"],
            of["error"],
            tuple(tuple(Look(*look) for look in run) for run in of["runs"]),
        )
        for of in fields["runners"]
    ]
    return Race(fields["name"], RECIPES[runners[0].case.recipe], tuple(runners))


def report(path):
    document = json.loads(path.read_text("utf-8"))
    return Report(
        document["environment"],
        tuple(map(result, document["results"])),
        costs=tuple(map(cost, document["costs"])),
        races=tuple(map(race, document["races"])),
        suite=document["suite"],
    )


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_the_page_has_the_tables_of_each_run(path):
    of = report(path)
    assert not of.failures
    parts = as_markdown(of).split("\n\n")
    shown = ("| comparison ", "| cost ", "| contender                           | arrived ")
    tables = [part.strip() for part in parts if part.startswith(shown)]
    assert tables
    for table in tables:
        assert table in PAGE, f"docs/measured.md has not what {path.name} says"
    date = of.environment["date"][:16].replace("T", " ")
    assert f"`; fastnn {of.environment['commit']}, {date} UTC" in PAGE
    assert (load_warning(of.environment) or "") in PAGE
    assert path.name in PAGE


def test_the_readme_has_rows_of_the_page():
    readme = (ROOT / "README.md").read_text("utf-8")
    performance = readme.partition("## Performance\n")[2].partition("\n## ")[0]
    rows = [cells(line) for line in performance.splitlines() if line.startswith("| ")]
    assert len(rows) > 5
    of_page = [cells(line) for line in PAGE.splitlines()]
    assert all(row in of_page for row in rows[2:])


def cells(line):
    return [cell.strip() for cell in line.split("|")]


def test_the_readme_counts_as_the_run_does():
    of = report(ROOT / "docs" / "measured" / "table.json")
    (counted,) = (part for part in as_markdown(of).split("\n\n") if part.startswith("- all: "))
    won, among, mean = re.search(r"in (\d+) of (\d+), (\S+) times", counted).groups()
    readme = (ROOT / "README.md").read_text("utf-8")
    assert f"Of the {among} comparisons that all four others can run" in readme
    assert f"the fastest in {won}, {float(mean):.1f} times as fast" in readme
