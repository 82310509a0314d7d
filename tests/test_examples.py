"""The examples run in their quick form, and their figures bear out what they say."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from test_cli import ENVIRONMENT

import fastnn

EXAMPLES = ROOT / "examples"
PICTURED = sorted(path.name for path in EXAMPLES.glob("*.py") if path.stem != "speedrun")
PICTURED.remove("common.py")

SITE_FOLLOWS = os.environ.get("FASTNN_SITE_FOLLOWS") == "1"
"""Whether who runs the tests builds the site next, where a fault of those that draw ends all."""

STRICT = ("-W", "error::RuntimeWarning", "-W", "error::UserWarning")
"""Not of what a library will drop one day, as in the tests themselves."""


def run(name: str, folder) -> str:
    """Return what an example prints in its quick form."""
    done = subprocess.run(
        [sys.executable, *STRICT, EXAMPLES / name, "--quick"],
        text=True,
        capture_output=True,
        cwd=folder,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tables(text: str) -> list[list[dict[str, str]]]:
    """Return the rows of every Markdown table in `text`, by the names in its head."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        lines = [line[1:-1].split("|") for line in block.splitlines()]
        head, rule, *rows = ([cell.strip() for cell in line] for line in lines)
        assert all(re.fullmatch(r"-+:?", cell) for cell in rule)
        assert all(len(row) == len(head) for row in rows)
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


@pytest.fixture
def example(monkeypatch):
    """Import an example by name."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


@pytest.mark.parametrize("name", PICTURED)
def test_quick_form(name, tmp_path):
    pytest.importorskip("matplotlib")
    if name == "dask_cluster.py":
        pytest.importorskip("distributed")
    elif SITE_FOLLOWS and "new_figure" in (EXAMPLES / name).read_text("utf-8"):
        pytest.skip("it draws its picture for the site")
    printed = run(name, tmp_path)
    assert len(tables(printed)) >= 1
    # The script itself holds its claims against its figures, and exits with 1 where one fails.
    claims = re.findall(r"^\[(.)\] .+", printed, re.M)
    assert claims
    assert set(claims) == {"x"}
    picture = (tmp_path / name).with_suffix(".png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 5000


@pytest.mark.parametrize("name", PICTURED)
def test_says_what_it_shows(name):
    """Seen without running, as the site would not miss it."""
    text = (EXAMPLES / name).read_text("utf-8")
    assert re.search(r"^    conclude\(", text, re.M)
    assert re.search(r"^ +print(_table)?\(", text, re.M)


def test_speedrun(tmp_path):
    reached = re.search(r"^\| fastnn \| (\d) of 2 \|", run("speedrun.py", tmp_path), re.M)
    assert int(reached[1]) >= 1


def test_a_claim_that_fails(example, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sys, "argv", ["examples/xor.py"])
    with pytest.raises(SystemExit) as ended:
        example("common").conclude({"holds": True, "does not": False})
    assert ended.value.code == "xor.py: the figures don't bear out: does not"
    assert capsys.readouterr().out.split("\n")[1:3] == ["[x] holds", "[ ] does not"]


def test_classification_report(example, rng):
    pytest.importorskip("matplotlib")
    y_true, y_pred = rng.integers(0, 10, 500), rng.integers(0, 9, 500)  # nobody says 9
    *classes, means, weighted, accuracy = example("scaling").classification_report(y_true, y_pred)
    for digit, (name, precision, recall, f1, support) in enumerate(classes):
        both = ((y_true == digit) & (y_pred == digit)).sum()
        called, there = (y_pred == digit).sum(), (y_true == digit).sum()
        p, r = both / called if called else 0.0, both / there
        assert (name, support) == (digit, str(there))
        assert precision == f"{p:.2f}"
        assert recall == f"{r:.2f}"
        assert f1 == f"{2 * p * r / (p + r) if both else 0.0:.2f}"
    assert means[-1] == weighted[-1] == accuracy[-1] == "500"
    # Recall weighted by support is the share of right answers.
    assert weighted[2] == accuracy[3] == f"{(y_true == y_pred).mean():.2f}"


def test_dividing_twice_is_what_the_notebook_did(example, digits):
    """Dense with another rate and penalty takes the steps of the notebook's layer."""
    pytest.importorskip("matplotlib")
    reg = 0.001

    class DenseReg(fastnn.Dense):
        def backward(self, input, grad_output):
            grad_input = grad_output @ self.weights.T
            grad_weights = input.T @ grad_output / input.shape[0] + reg * self.weights
            grad_biases = grad_output.mean(axis=0)
            self.weights -= self.learning_rate * grad_weights
            self.biases -= self.learning_rate * grad_biases
            return grad_input

    X, y, _, _ = digits
    options = example("divided_twice").DIVISIONS["twice"]
    kinds = {"ours": lambda *units: fastnn.Dense(*units, **options), "theirs": DenseReg}
    networks = [
        fastnn.Network([dense(784, 20), fastnn.ReLU(), dense(20, 10)], dtype=np.float64, seed=0)
        for dense in kinds.values()
    ]
    for start in range(0, 320, 32):
        for network in networks:
            network.train_step(X[start : start + 32], y[start : start + 32])
    for ours, theirs in zip(networks[0][::2], networks[1][::2], strict=True):
        for name, values in ours.parameters.items():
            np.testing.assert_allclose(values, theirs.parameters[name], rtol=1e-9, atol=1e-12)
