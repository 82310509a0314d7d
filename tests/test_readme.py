"""The Python in the README and in the page for readers of the notebooks runs as it stands."""

from __future__ import annotations

import builtins
import re

import pytest
from conftest import ROOT

import fastnn


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)


def test_readme(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tqdm")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks("README.md"):
        exec(block, names)
    assert len(blocks("README.md")) >= 2
    validation, test = map(float, capsys.readouterr().out.split())
    assert min(validation, test) > 0.95
    network = names["fastnn"].Network([names["fastnn"].Dense(784, 10), names["Sine"]()])
    network.fit(names["X_val"][:100], names["y_val"][:100])


def test_both_forms_of_the_notebooks(capsys):
    xor, digits = blocks("docs/from-the-notebooks.md")
    names: dict = {}
    exec(xor, names)
    assert names["history"].loss[-1] < 0.001
    capsys.readouterr()
    exec(digits, names)
    assert float(capsys.readouterr().out) > 0.9


def test_scikit_learn_page(capsys):
    pytest.importorskip("sklearn")
    names: dict = {}
    for block in blocks("docs/scikit-learn.md"):
        exec(block, names)
    assert min(map(float, capsys.readouterr().out.split())) > 0.95


def test_names_that_the_notebooks_are_led_to():
    page = (ROOT / "docs" / "from-the-notebooks.md").read_text()
    rows = re.findall(r"^\| ([\d, ]+) \| (.+) \| (.+) \|$", page.split("## Mended")[0], re.M)
    assert {number for row in rows for number in row[0].split(", ")} == {"1", "2", "3", "4"}
    homes = (fastnn, fastnn.Network, fastnn.Dense, fastnn.initializers, builtins, list)
    for _, theirs, ours in rows:
        spans = re.findall(r"`([^`]+)`", theirs if ours.startswith("the same") else ours)
        for name in re.findall(r"\b([A-Za-z_]\w*)\(", " ".join(spans)):
            assert any(hasattr(home, name) for home in homes), name
