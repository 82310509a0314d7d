"""`python -m benchmarks.edges`: who computes something else gets no value, and the page and the
command tell of the same work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

pytest.importorskip("numba")
sys.path.insert(0, str(ROOT))  # benchmarks are not in the package

import fastnn
from benchmarks.edges import EDGES, __main__, by_hand, found, networks, programs, small, tasks
from benchmarks.edges.turns import in_a_process
from fastnn.bench import rounds

SHOWN_IN_PART = "once", "operations"
PAGE = (ROOT / "docs" / "where-numpy-wins.md").read_text("utf-8")
SMALL_TASKS = [
    (edge, work)
    for edge in ("rows", "steps", "lines")
    for work in EDGES[edge].tasks
    if "2048" not in work and "100,000" not in work
]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(rounds, "ROUND_SECONDS", 1e-6)


@pytest.mark.parametrize(("edge", "work"), SMALL_TASKS)
def test_contenders_agree(edge, work, quick):
    task = EDGES[edge].tasks[work]()
    told = tasks.timed(task, 2)
    assert told["errors"] == {}
    assert told["values"].keys() == task.contenders.keys()
    assert all(len(values) == 2 and min(values) > 0 for values in told["values"].values())


@pytest.mark.parametrize(
    "task",
    [
        lambda: networks._own_layer(8, 32, 96),
        lambda: networks._many(3, (4, 5, 3), 60, 30, 4),
    ],
)
def test_contenders_of_networks_agree(task, quick):
    told = tasks.timed(task(), 1)
    assert told["errors"] == {}
    there = {*told["values"], *told["missing"]}
    assert there == task().contenders.keys()
    assert {"fastnn", small.BY_HAND} <= told["values"].keys()


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("work", ["iris, 10 hidden units", "predict, 2,000 columns"])
def test_estimators_agree(work, quick):
    pytest.importorskip("sklearn")
    edge = EDGES["sparse" if "predict" in work else "lbfgs"]
    assert tasks.timed(edge.tasks[work](), 1)["errors"] == {}


def test_who_computes_something_else_is_refused(quick):
    right = np.array([1.0, 2.0, 4.0])
    task = tasks.Task(
        {
            "fastnn": lambda: lambda: right,
            "rounded": lambda: lambda: right + 3e-4,
            "off": lambda: lambda: right + 5e-3,
            "lost": lambda: lambda: np.array([1.0, np.nan, 4.0]),
            "shorter": lambda: lambda: right[:2],
        },
        "fastnn",
        tolerance=1e-4,
    )
    told = tasks.timed(task, 1)
    assert told["values"].keys() == {"fastnn", "rounded"}
    assert told["errors"]["off"] == "off by 0.0012 of the largest number"
    assert told["errors"]["lost"].startswith("off by nan")
    assert told["errors"]["shorter"] == "a result of shape (2,), not (3,)"


def test_answers_may_differ_in_near_ties_alone():
    ids = np.zeros(2_000, int)
    other = ids.copy()
    other[:2] = 1
    assert tasks.disagreement(other, ids, 0) is None
    other[2] = 1
    assert tasks.disagreement(other, ids, 0) == "0.15% of the answers are others"


def test_what_changes_after_the_first_call_is_seen(quick):
    """A step that forgets to update."""
    X, y = small.samples(8, (4, 10, 3))

    def stuck():
        layers = small.dense_layers(small.network((4, 10, 3)))
        return lambda: by_hand.step([(W.copy(), b.copy()) for W, b in layers], X, y, 0.1)

    def right():
        layers = small.dense_layers(small.network((4, 10, 3)))
        return lambda: by_hand.step(layers, X, y, 0.1)

    told = tasks.timed(tasks.Task({"fastnn": right, "stuck": stuck}, "fastnn", 1e-3), 1)
    assert "stuck" in told["errors"]


def test_a_library_that_is_missing_is_left_out(quick):
    def absent():
        raise ImportError

    contenders = {"fastnn": lambda: lambda: np.ones(1), "absent": absent}
    told = tasks.timed(tasks.Task(contenders, "fastnn", 0), 1)
    assert told["missing"] == ["absent"]
    edge = EDGES["rows"]
    text = found.as_markdown(edge, [found.Found("work", told["values"], missing=("absent",))])
    assert "Not installed, so left out: absent." in text


def test_work_that_is_about_a_missing_library_is_left_out(tmp_path, monkeypatch):
    (tmp_path / "sklearn.py").write_text("raise ModuleNotFoundError('no', name='sklearn')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    of = in_a_process("lbfgs", "iris, 10 hidden units", 1)
    assert (of.values, of.errors, of.missing) == ({}, {}, ("sklearn",))
    text = found.as_markdown(EDGES["lbfgs"], [of])
    assert "Not installed, so left out: sklearn." in text


def test_a_wrong_contender_has_a_line_and_no_number(monkeypatch, capsys):
    of = found.Found(
        "work", {"fastnn": (2e-6, 4e-6), "b": (1e-6, 1e-6)}, errors={"c": "off by 1 of it"}
    )
    edge = found.Edge("rows", "Why?", ("work",), lambda rounds: iter([of]))
    monkeypatch.setattr(__main__, "EDGES", {"rows": edge})
    monkeypatch.setattr(sys, "argv", ["edges", "rows"])
    assert __main__.main() == 1
    printed = capsys.readouterr().out
    assert "| work | 3.00 us | 0.38 (0.31-0.44) |" in printed
    assert "No value: work: c: off by 1 of it." in printed


def test_where_fastnn_is_wrong_nobody_is_compared():
    of = found.Found("work", {found.NUMPY: (1.0, 1.0), "b": (2.0, 2.0)}, errors={"fastnn": "off"})
    edge = found.Edge("rows", "Why?", ("work",), lambda rounds: iter([of]))
    assert "| work |      - |                      - | - |" in found.as_markdown(edge, [of])


def test_a_wrong_program_is_refused(monkeypatch):
    right = programs._Run(1.0, 0.5, 100.0)

    def run(case, label):
        assert label == programs.COLD or case.contender == programs.NAMES[label]
        return right._replace(loss=0.6) if case.contender == "torch" else right

    monkeypatch.setattr(programs, "_run", run)
    case = programs.Case("numba", task="fit", samples=32)
    seconds, memory = programs._programs("work", case, programs.NAMES, (), 2)
    assert seconds.errors == {"PyTorch eager": "loss 0.6, the NumPy backend has 0.5"}
    for of in (seconds, memory):
        assert of.values.keys() == programs.NAMES.keys() - {"PyTorch eager"}


def test_every_program_has_run_before_one_is_timed(monkeypatch):
    """Its files are read then, and what Python and fastnn compile is kept."""
    ran = []

    def run(case, label):
        ran.append((case.shape, case.epochs, label))
        return programs._Run(1.0, 0.5, 100.0)

    monkeypatch.setattr(programs, "_run", run)
    monkeypatch.setattr(programs, "find_spec", lambda module: True)
    list(programs._once(2))
    everyone = set(programs.NAMES)
    for size, (work, numbers) in programs.SIZES.items():
        shape = programs.Case("numba", **work).shape
        of_size = [(epochs, label) for of, epochs, label in ran if of == shape]
        names = everyone - {"scikit-learn"} if size == programs.TINY else everyone
        first, timed = of_size[: len(names) - 1], of_size[len(names) - 1 :]
        assert {label for _, label in first} == names - {programs.COLD}
        assert {epochs for epochs, _ in first} == {1}
        assert sorted(timed) == sorted([(of, label) for of in numbers for label in names] * 2)


def test_from_how_many_epochs_compiling_pays():
    """2 s and 1 ms an epoch against 1 s and 3 ms: 500 epochs, where both take 2.5 s."""
    few = found.Found("few", {"fastnn": [2.001], programs.NUMPY: [1.003]})
    many = found.Found("many", {"fastnn": [4.0], programs.NUMPY: [7.0]})
    assert programs._equal((few, many), (1, 2_000), "fastnn") == pytest.approx(500, abs=1)
    slower = replace(many, values={"fastnn": [9.0], programs.NUMPY: [7.0]})
    assert programs._equal((few, slower), (1, 2_000), "fastnn") is None
    size, (_, numbers) = next(iter(programs.SIZES.items()))
    named = [
        replace(of, work=programs._in_words(size, epochs))
        for of, epochs in zip((few, many), numbers, strict=True)
    ]
    (line,) = programs._notes(named)
    assert re.fullmatch(
        f"- {size}: compiled epochs pay from [\\d,]+ epochs with kernels cached.", line
    )


def test_the_reference_is_that_of_the_numpy_backend():
    """Lines that a reader would write, after three steps, beside `train_step` in float64."""
    X, y = small.samples(16, (6, 9, 4))
    network = small.network((6, 9, 4), "numpy", dtype="float64")
    layers = small.dense_layers(network)
    for _ in range(3):
        ours = by_hand.step(layers, X.astype(float), y, small.RATE)
        theirs = network.train_step(X.astype(float), y)
    assert ours == pytest.approx(theirs, rel=1e-12)
    for (W, b), (V, c) in zip(layers, small.dense_layers(network), strict=True):
        np.testing.assert_allclose(W, V, rtol=1e-12)
        np.testing.assert_allclose(b, c, rtol=1e-12)


def test_the_layer_of_the_page_has_the_right_gradient():
    layers = [fastnn.Dense(3, 4), networks.Sine(), fastnn.Dense(4, 2)]
    network = fastnn.Network(layers, dtype="float64", seed=0)
    X, y = np.random.default_rng(0).normal(size=(5, 3)), np.array([0, 1, 1, 0, 1])
    fastnn.check_gradients(network, X, y)


def test_the_command_runs(tmp_path):
    file = tmp_path / "edges.json"
    command = [sys.executable, "-m", "benchmarks.edges", "steps", "--rounds", "1"]
    done = subprocess.run([*command, "--json", str(file)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(file.read_text())
    assert document["environment"]["versions"]["numpy"] == np.__version__
    (edge,) = document["edges"]
    assert [row["work"] for row in edge["found"]] == list(EDGES["steps"].works)
    assert edge["found"][0]["ratios"][small.BY_HAND][0] > 0


def test_a_name_that_is_no_edge_is_refused(refusal):
    assert "no edge dance" in refusal(__main__.main, "dance")


def rows_of(text: str) -> list[str]:
    """Return what is in the first cell of each row of a table."""
    tables = re.findall(r"^\|.+\n\|[ :|-]+\n((?:\|.+\n)+)", text, re.M)
    return [line.split("|")[1].strip() for table in tables for line in table.splitlines()]


def test_page_and_command_tell_of_the_same():
    sections = dict(re.findall(r"^## [^\n]*\(`([\w-]+)`\)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
    assert sections.keys() == EDGES.keys()
    for name, text in sections.items():
        told, works = rows_of(text), EDGES[name].works
        assert told, name
        if name in SHOWN_IN_PART:
            assert set(told) <= set(works), name
        else:
            assert told == list(works), name
