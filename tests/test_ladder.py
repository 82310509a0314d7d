"""The ladder: each rung takes the NumPy backend's steps, and what is counted of it is right."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT

from fastnn import guards

pytest.importorskip("numba")
if guards.CHECKED:
    pytest.skip("rungs hand memory to kernels that the checked build has not seen",
                allow_module_level=True)  # fmt: skip

sys.path.insert(0, str(ROOT))  # benchmarks are not in the package

from benchmarks.ladder import Rung, __main__, counting, rungs, table
from benchmarks.ladder.climbing import BATCH_SIZE, WrongRungError, initial_layers, verify
from fastnn.backends.numba_backend.machine import lanes

RUNGS = rungs()


@pytest.fixture(scope="module")
def labelled(digits):
    X, y, _, _ = digits
    return X.astype(np.float32), y.astype(np.int64)


@pytest.mark.parametrize("batch_size", [1, 7, 32, 33, 61])
@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_a_rung_takes_the_steps_of_the_numpy_backend(rung, batch_size, labelled):
    layers = initial_layers()
    verify(rung, layers, *labelled, batch_size, np.float32)
    if rung.dtype != np.float32 and batch_size == BATCH_SIZE:
        verify(rung, layers, *labelled, batch_size)


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_prepare_copies(rung, labelled):
    X, y = labelled
    given = [(W.astype(rung.dtype), b.astype(rung.dtype)) for W, b in initial_layers()]
    before = [W.copy() for W, _ in given]
    rung.train(rung.prepare(given, 32), X[:64].astype(rung.dtype), y[:64], 0.1, 32)
    for (W, _), kept in zip(given, before, strict=True):
        np.testing.assert_array_equal(W, kept)


def test_a_wrong_rung_is_found(labelled):
    """One whose rate is wrong by a thousandth, or that forgets the biases of one layer."""
    right = RUNGS[2].module

    def too_far(state, X, y, rate):
        right.step(state, X, y, 1.001 * rate)

    def no_bias(state, X, y, rate):
        kept = state[1].b.copy()
        right.step(state, X, y, rate)
        state[1].b[:] = kept

    for step in (too_far, no_bias):
        wrong = SimpleNamespace(**vars(right) | {"step": step})
        with pytest.raises(WrongRungError, match="rung 99"):
            verify(Rung(99, wrong), initial_layers(), *labelled, 32)


def test_rungs_are_numbered_and_tell_their_story():
    assert [rung.number for rung in RUNGS] == list(range(1, len(RUNGS) + 1))
    for rung in RUNGS:
        text = Path(rung.module.__file__).read_text()
        assert len(text.splitlines()) <= 60, rung.name
        story = ast.get_docstring(ast.parse(text))
        assert story.startswith(f"{rung.number}. ")
        for part in ("What changed:" if rung.number > 1 else "What it does:",
                     "Count before you run:", "Tried and lost:"):  # fmt: skip
            assert part in story, (rung.name, part)


def test_operations_are_counted(labelled):
    """By each product of two numbers, of which none is zero."""
    X, _ = labelled
    assert counting.dense_operations() == 14_259_200
    layers = initial_layers()
    (X0, A, B), _ = counting.activations(layers, X[:32])
    # behind a ReLU that lets nothing through the gradient is zero, and so is what is multiplied
    x, a, b = (1.0 * (inputs > 0) for inputs in (X0, A, B))
    G3, G2, G1 = np.ones((32, 10)), b, a
    (W1, _), (W2, _), (W3, _) = layers
    assert all((W != 0).all() for W in (W1, W2, W3))
    products = [
        np.einsum("nk,kj->", x, np.ones(W1.shape)), np.einsum("nk,kj->", a, np.ones(W2.shape)),
        np.einsum("nk,kj->", b, np.ones(W3.shape)), np.einsum("nj,nk->", G3, b),
        np.einsum("nj,nk->", G2, a), np.einsum("nk,nj->", x, G1),
        np.einsum("nk,nj->", a, G2), np.einsum("nk,nj->", b, G3),
    ]  # fmt: skip
    found, lit = counting.needed(layers, X[:32])
    assert found == 2 * sum(products)
    assert lit == X[:32].any(axis=0).mean()


def test_bytes_are_counted(labelled):
    """Of NumPy's calls each operand and each result, wherever they are."""
    counting.Counting.nbytes_moved = 0
    A = np.ones((3, 5), np.float32).view(counting.Counting)
    B = A.T @ A
    assert counting.Counting.nbytes_moved == 4 * (15 + 15 + 25)
    B += 1.0
    assert counting.Counting.nbytes_moved == 4 * (15 + 15 + 25) + 4 * (25 + 25) + 8
    B.sum(axis=0)
    assert counting.Counting.nbytes_moved == 4 * (15 + 15 + 25) + 4 * (25 + 25) + 8 + 4 * 30
    layers = initial_layers()
    found = [counting.bytes_of_step(rung, layers, *labelled, 0.5) for rung in RUNGS]
    assert found[1] < 0.6 * found[0]  # float32
    assert found[3] < found[2] < found[1]
    assert found[5] < found[6]  # padding
    assert found[7] < found[6]  # rows that no sample needs
    assert found[8] == found[9] < found[6]


def test_the_table(monkeypatch):
    for name, value in {"TRAINED": 20, "COUNTED": 5}.items():
        monkeypatch.setattr(table, name, value)
    monkeypatch.setattr("benchmarks.ladder.climbing.SECONDS", 0.002)
    looks = iter([
        table.Machine({"float32": 2.0, "float64": 1.5}, (8.0, 4.0, 2.0, 1.0)),
        table.Machine({"float32": 3.0, "float64": 1.0}, (7.0, 5.0, 2.0, 1.5)),
    ])  # fmt: skip
    monkeypatch.setattr(table, "measure_machine", lambda: next(looks))
    chosen = [RUNGS[i] for i in (1, 2, 8)]
    said = []
    lines, machine = table.climb(chosen, 2, said.append)
    # what was reached once is no limit
    assert machine == table.Machine({"float32": 3.0, "float64": 1.5}, (8.0, 5.0, 2.0, 1.5))
    assert [line.rung for line in lines] == chosen
    assert [line.ratio is None for line in lines] == [True, False, True]
    assert lines[0].without_zeros < counting.dense_operations()
    head, _, *rows = table.as_markdown(lines, machine).splitlines()[:5]
    assert "samples/s" in head
    assert [row.split("|")[1].strip() for row in rows] == [
        "2 float32", "3 in place", "9 sets of bits",
    ]  # fmt: skip
    assert said[-1] == "round 2 of 2"


def test_limits_are_those_of_this_machine(monkeypatch):
    asked = []

    def limits(dtype):
        asked.append(dtype.name)
        return SimpleNamespace(multiply_adds=1e9 * len(asked), bandwidth=(4.0, 3.0, 2.0, 1.0))

    monkeypatch.setattr(table, "measure_limits", limits)
    found = table.measure_machine()
    # a multiply-add of a vector is two operations of each number
    expected = {name: 2 * lanes(np.dtype(name).itemsize) * (i + 1) for i, name in enumerate(asked)}
    assert found == table.Machine(expected, (4.0, 3.0, 2.0, 1.0))
    assert set(asked) == {"float32", "float64"}


def test_the_command(tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "ladder.png"
    command = [sys.executable, "-m", "benchmarks.ladder", "3", "--rounds", "1", "--plot", picture]
    done = subprocess.run(command, text=True, capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3. In place")
    assert "| 3 in place |" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["99"], "there is none of number 99"),
        (["3", "--rounds", "0"], "--rounds: expected 1 or more, got 0"),
    ],
)
def test_what_cannot_be_climbed_is_refused(arguments, said, monkeypatch, refusal):
    for name, value in __main__.ONE_THREAD.items():  # or it starts Python anew
        monkeypatch.setenv(name, value)
    assert said in refusal(__main__.main, *arguments)
