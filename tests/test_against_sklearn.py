"""`benchmarks/against_sklearn.py`: both are fitted in turn, and what can't be is refused."""

from __future__ import annotations

import importlib.util
import os
import re
import sys

import pytest
from conftest import ROOT

pytest.importorskip("sklearn")
pytest.importorskip("numba")

from fastnn.backends.numba_backend.compiling import cache


@pytest.fixture
def script():
    path = ROOT / "benchmarks" / "against_sklearn.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_are_fitted_in_turn_after_a_fit_that_does_not_count(script, monkeypatch):
    fitted = []
    timed = script.timed

    def noting(kind, X, y, **options):
        fitted.append((kind, len(X)))
        _, estimator = timed(kind, X, y, **options)
        own = kind is script.MLPClassifier
        return 1.0 if own else 2.0 * len(fitted), estimator

    monkeypatch.setattr(script, "timed", noting)
    cells = [cell.strip() for cell in script.compare("iris", 3, {"max_iter": 2}).split("|")[1:-1]]
    ours, theirs = script.MLPClassifier, script.TheirClassifier
    assert fitted[:2] == [(ours, 112), (theirs, 112)]
    assert fitted[2:] == [(theirs, 112), (ours, 112)] * 3
    # the third, the fifth and the seventh fit took twice as many seconds
    assert cells[:6] == ["iris", "112 x 4", "2, 2", "1.0000", "10.00", "6.00-14.00"]
    assert cells[6] == cells[7]  # the same steps, so the same answers


def test_a_first_fit_is_one_of_a_new_process(script):
    told = script.first_fit("fastnn.sklearn", os.environ.get("NUMBA_CACHE_DIR", cache.directory()))
    assert re.fullmatch(r"\d+\.\d\d s for the import, \d+\.\d{3} s for the fit", told)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["irises"], "DATA: expected some of MNIST, digits, iris, table, got irises"),
        (["--rounds", "0"], "--rounds: expected 1 or more, got 0"),
        (["--max-iter", "0"], "--max-iter: expected 1 or more, got 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(script, arguments, said, refusal):
    assert said in refusal(script.main, *arguments)


def test_a_table_has_what_was_asked_for(script, monkeypatch, capsys):
    asked = []

    def compare(name, rounds, options):
        asked.append((name, rounds, options))
        return f"| {name} |"

    monkeypatch.setattr(script, "compare", compare)
    monkeypatch.setattr(script, "first_fit", lambda module, cache: module)
    arguments = ["MNIST", "table", "--rounds", "2", "--max-iter", "3"]
    monkeypatch.setattr(sys, "argv", ["against_sklearn.py", *arguments])
    script.main()
    names = ["MNIST, float32", "MNIST, float64", "table, two classes", "table, values"]
    assert asked == [(name, 2, {"max_iter": 3}) for name in names]
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in names if f"| {line} |" in printed] == names
    assert "* scikit-learn: sklearn.neural_network" in printed
