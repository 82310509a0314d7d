"""The Python in the README runs as it stands."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


def test_blocks(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tqdm")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in BLOCKS:
        exec(block, names)
    assert len(BLOCKS) >= 2
    validation, test = map(float, capsys.readouterr().out.split())
    assert min(validation, test) > 0.95
    network = names["fastnn"].Network([names["fastnn"].Dense(784, 10), names["LeakyReLU"]()])
    network.fit(names["X_val"][:100], names["y_val"][:100])
