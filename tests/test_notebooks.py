"""The notebooks of the guide run as they are committed, and their index says what they find."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from conftest import ROOT
from test_cli import ENVIRONMENT

FOLDER = ROOT / "docs" / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [path.name for path in PATHS]
EXECUTED = os.environ.get("FASTNN_EXECUTED_NOTEBOOKS")
"""A folder for the notebooks with their outputs, for who needs these and would run them again."""

ROW = re.compile(r"^\| (?:\[\d\]\((.+?)\) \| )?(.+?)((?: \| +[\d.e-]+){3}) \|$", re.M)


def rows(table: str) -> list[tuple[str | None, str, list[float]]]:
    """Return the notebook, if named, what was measured, the original's, ours, and the bound."""
    return [
        (name or None, what, [float(cell) for cell in numbers.split("|")[1:]])
        for name, what, numbers in ROW.findall(table)
    ]


INDEX = rows((FOLDER / "index.md").read_text("utf-8"))


def test_all_are_in_the_index():
    text = (FOLDER / "index.md").read_text("utf-8")
    assert sorted(set(re.findall(r"\]\((.+?\.ipynb)\)", text))) == NAMES
    assert [f"{name}.ipynb" for name in re.findall(r"^(\d-.*)$", text, re.M)] == NAMES


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_committed_without_outputs(path):
    notebook = json.loads(path.read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 10
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    assert {cell["execution_count"] for cell in code} == {None}
    identities = [cell["id"] for cell in notebook["cells"]]
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_runs_and_finds_what_the_index_says(path, monkeypatch):
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    # threads that share a step wait for each other, long where other tests have the cores
    for name, value in {**ENVIRONMENT, "FASTNN_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    # each cell's own assertions are what may fail here
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    if EXECUTED is not None:
        Path(EXECUTED).mkdir(exist_ok=True)
        nbformat.write(notebook, Path(EXECUTED, path.name))

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    loud = [output.text for output in outputs if output.get("name") == "stderr"]
    assert loud == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    (closing,) = (
        output.data["text/markdown"]
        for output in outputs
        if "text/markdown" in output.get("data", {})
    )
    found, told = rows(closing), [row for row in INDEX if row[0] == path.name]
    assert [what for _, what, _ in found] == [what for _, what, _ in told]
    assert len(found) >= 2
    for (_, what, (original, here, apart)), (_, _, expected) in zip(found, told, strict=True):
        assert [original, apart] == [expected[0], expected[2]], what
        assert abs(here - expected[1]) <= apart, what
