"""The exercises: stubs say what they are, solutions pass, and what goes wrong easily is caught."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from fastnn import guards

pytest.importorskip("numba")
if guards.CHECKED:
    pytest.skip("kernels of the ladder have memory that the checked build has not seen",
                allow_module_level=True)  # fmt: skip

sys.path.insert(0, str(ROOT))  # benchmarks are not in the package

from numba import njit

from benchmarks.exercises import __main__, racing
from benchmarks.exercises.checking import fault_of
from benchmarks.exercises.tasks import EXERCISES
from benchmarks.ladder import r06_row_kernels
from fastnn.bench.figures import Spread

TITLES = [of.file for of in EXERCISES]
FOLDER = ROOT / "benchmarks" / "exercises"


# ----------------------------------------------------------------------------------- solutions


def loss_gradient(Z, y, G):
    np.exp(Z - Z.max(axis=1, keepdims=True), out=G)
    G /= G.sum(axis=1, keepdims=True)
    G[np.arange(len(y)), y] -= 1
    G /= len(y)


def forward(X, W, b, A):
    np.matmul(X, W, out=A)
    A += b


def backward(X, W, b, G, dX, rate):
    np.matmul(G, W.T, out=dX)
    dX *= X > 0
    W -= rate * (X.T @ G)
    b -= rate * G.sum(axis=0)


@njit(fastmath={"contract"})
def tile_of_rows(X, W, b, A):
    """The tile that the hints of exercise 5 describe, of four rows of X by four of W."""
    rows, inner = len(X) - len(X) % 4, len(W) - len(W) % 4
    for i in range(len(X)):
        A[i] = b
    for i in range(0, rows, 4):
        A0, A1, A2, A3 = A[i], A[i + 1], A[i + 2], A[i + 3]
        for k in range(0, inner, 4):
            W0, W1, W2, W3 = W[k], W[k + 1], W[k + 2], W[k + 3]
            a0, a1, a2, a3 = X[i, k], X[i, k + 1], X[i, k + 2], X[i, k + 3]
            b0, b1, b2, b3 = X[i + 1, k], X[i + 1, k + 1], X[i + 1, k + 2], X[i + 1, k + 3]
            c0, c1, c2, c3 = X[i + 2, k], X[i + 2, k + 1], X[i + 2, k + 2], X[i + 2, k + 3]
            d0, d1, d2, d3 = X[i + 3, k], X[i + 3, k + 1], X[i + 3, k + 2], X[i + 3, k + 3]
            for j in range(W.shape[1]):
                w0, w1, w2, w3 = W0[j], W1[j], W2[j], W3[j]
                A0[j] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
                A1[j] += b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
                A2[j] += c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3
                A3[j] += d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3
    for i in range(len(X)):
        for k in range(inner if i < rows else 0, len(W)):
            for j in range(W.shape[1]):
                A[i, j] += X[i, k] * W[k, j]


PLAIN = (loss_gradient, forward, backward, forward, forward)


@pytest.mark.parametrize("exercise", EXERCISES, ids=TITLES)
def test_solutions_are_right(exercise):
    for solution in (exercise.reference, PLAIN[exercise.number - 1]):
        assert fault_of(exercise, solution) is None


def test_solutions_that_hints_lead_to_are_right():
    assert fault_of(EXERCISES[2], r06_row_kernels.backward) is None
    assert fault_of(EXERCISES[4], tile_of_rows) is None


# ------------------------------------------------------------------------------------ mistakes


def no_largest(Z, y, G):
    with np.errstate(all="ignore"):
        np.exp(Z, out=G)
        G /= G.sum(axis=1, keepdims=True)
    G[np.arange(len(y)), y] -= 1
    G /= len(y)


def largest_of_all(Z, y, G):
    with np.errstate(all="ignore"):
        np.exp(Z - Z.max(), out=G)
        G /= G.sum(axis=1, keepdims=True)
    G[np.arange(len(y)), y] -= 1
    G /= len(y)


def no_target(Z, y, G):
    loss_gradient(Z, y, G)
    G[np.arange(len(y)), y] += 1 / len(y)


def no_mean(Z, y, G):
    loss_gradient(Z, y, G)
    G *= len(y)


def no_zero(X, W, b, A):
    A += X @ W + b


def left_over_columns(X, W, b, A):
    whole = A.shape[1] // 16 * 16
    A[:, :whole] = X @ W[:, :whole] + b[:whole]


def left_over_rows(X, W, b, A):
    whole = len(A) // 4 * 4
    A[:whole] = X[:whole] @ W + b


def left_over_units(X, W, b, A):
    whole = len(W) // 4 * 4
    A[:] = X[:, :whole] @ W[:whole] + b


def no_bias(X, W, b, A):
    np.matmul(X, W, out=A)


def one_too_many(X, W, b, A):
    forward(X, W, b, A)
    np.lib.stride_tricks.as_strided(A, (A.size + 1,), (A.itemsize,))[-1] = 0


def half_precision(X, W, b, A):
    A[:] = X.astype(np.float16) @ W.astype(np.float16) + b


def spoils_inputs(X, W, b, A):
    forward(X, W, b, A)
    X[:] = 0


def positive_alone(X, W, b, A):
    A[:] = np.maximum(X, 0) @ W + b


def no_row_of_zeros(X, W, b, A):
    lit = X.any(axis=1)
    A[lit] = X[lit] @ W + b


def update_first(X, W, b, G, dX, rate):
    W -= rate * (X.T @ G)
    b -= rate * G.sum(axis=0)
    np.matmul(G, W.T, out=dX)
    dX *= X > 0


def no_mask(X, W, b, G, dX, rate):
    backward(X, W, b, G, dX, rate)
    np.matmul(G, (W + rate * (X.T @ G)).T, out=dX)


def uphill(X, W, b, G, dX, rate):
    backward(X, W, b, -G, dX, rate)
    dX *= -1


def no_rate(X, W, b, G, dX, rate):
    backward(X, W, b, G, dX, np.float32(1))


def bias_forgotten(X, W, b, G, dX, rate):
    backward(X, W, b.copy(), G, dX, rate)


def gradient_kept(X, W, b, G, dX, rate):
    backward(X, W, b, G, dX, rate)
    G *= rate


MISTAKES = [
    (1, no_largest, "is nan and should be"),
    (1, largest_of_all, "is nan and should be"),
    (1, no_target, r"G\[0, 0\] is 1 and should be 0"),
    (1, no_mean, r"shape 7 x 3: G\[0, 0\] is"),
    (2, no_zero, r"shape 1 x 1 x 1: A\[0, 0\] is nan"),
    (2, left_over_columns, "is nan"),
    (2, no_bias, "rounding explains up to"),
    (2, one_too_many, "before A or behind it"),
    (2, half_precision, "rounding explains up to"),
    (2, spoils_inputs, "X was changed"),
    (3, update_first, r": dX\[.*rounding explains"),
    (3, no_mask, r": dX\["),
    (3, uphill, r": W\["),
    (3, no_rate, r": W\["),
    (3, bias_forgotten, r": b\["),
    (3, gradient_kept, "G was changed"),
    (4, positive_alone, r": A\["),
    (4, no_row_of_zeros, "is nan"),
    (5, left_over_rows, "shape 1 x 1 x 1"),
    (5, left_over_units, "rounding explains"),
]


@pytest.mark.parametrize(
    ("number", "wrong", "said"),
    MISTAKES,
    ids=[f"{number}-{wrong.__name__}" for number, wrong, _ in MISTAKES],
)
def test_mistakes_are_caught(number, wrong, said):
    fault = fault_of(EXERCISES[number - 1], wrong)
    assert fault is not None
    assert re.search(said, fault), fault


def test_a_fault_says_where():
    """Of columns that don't fill a vector, where the first of them is."""

    def wide_alone(X, W, b, A):
        forward(X, W, b, A)
        if A.shape[1] > 16:
            A[:, A.shape[1] // 16 * 16 :] = np.nan

    fault = fault_of(EXERCISES[1], wide_alone)
    assert fault.startswith("on the shape 32 x 31 x 33: A[0, 32] is nan and should be ")
    assert fault.endswith("; 32 of 1056 numbers are wrong, all in column 32 and later")


# ------------------------------------------------------------------------------- stubs and speed


@pytest.mark.parametrize("exercise", EXERCISES, ids=TITLES)
def test_stubs_state_their_task(exercise):
    with pytest.raises(NotImplementedError):
        fault_of(exercise, getattr(exercise.module, exercise.function))
    story = exercise.module.__doc__
    assert story.startswith(f"{exercise.number}. ")
    for part in ("Given: ", "Count before you run:", "Hints, one at a time:", "The solution: "):
        assert part in story
    solution = story.partition("The solution: ")[2]
    for path in re.findall(r"(?:benchmarks|fastnn)/[\w/]+\.py", solution):
        assert (ROOT / path).is_file()
    page = (ROOT / "docs" / "exercises.md").read_text("utf-8")
    assert f"benchmarks/exercises/{exercise.file}.py" in page


def test_the_command_names_stubs_that_are_not_filled_in():
    command = [sys.executable, "-m", "benchmarks.exercises"]
    done = subprocess.run(command, text=True, capture_output=True, cwd=ROOT)
    assert done.returncode == 1, done.stderr
    for exercise in EXERCISES:
        where = FOLDER / f"{exercise.file}.py"
        assert f"not filled in: write {exercise.function} in {where}" in done.stdout


def test_the_command_takes_a_file(tmp_path, monkeypatch, capsys):
    mine = tmp_path / "mine.py"
    mine.write_text(
        "def row_forward(X, W, b, A):\n    A[:] = X @ W + b\n"
        "def sparse_forward(X, W, b, A):\n    A[:] = X @ W\n"
    )
    for name, value in __main__.ONE_THREAD.items():  # or it would start itself anew
        monkeypatch.setenv(name, value)
    for name, value in {"ROUND_SECONDS": 1e-4, "ROUNDS": 3, "TRIES": 1}.items():
        monkeypatch.setattr(racing, name, value)

    def said(number: int) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["exercises", str(number), "--file", str(mine)])
        return __main__.main(), capsys.readouterr().out

    _, right = said(2)
    assert "right on 7 shapes" in right
    assert re.search(r"\d \(.*\) times the speed of rung 6's forward on 32 x 784 x 112", right)
    status, wrong = said(4)
    assert status == 1
    assert "wrong on the shape 1 x 1 x 1: A[0, 0] is" in wrong
    assert "times the speed" not in wrong


def test_what_is_not_there_is_refused(tmp_path, monkeypatch, refusal):
    mine = tmp_path / "mine.py"
    mine.write_text("def row_forward(X, W, b, A):\n    A[:] = X @ W + b\n")
    for name, value in __main__.ONE_THREAD.items():
        monkeypatch.setenv(name, value)
    main = __main__.main
    assert "has no function of this exercise" in refusal(main, 5, "--file", mine)
    assert "there is no exercise 6" in refusal(main, 6)
    assert "there is no absent.py" in refusal(main, 1, "--file", "absent.py")


@pytest.mark.parametrize("exercise", EXERCISES, ids=TITLES)
def test_a_share_of_speed_is_measured(exercise, monkeypatch):
    monkeypatch.setattr(racing, "ROUND_SECONDS", 1e-4)
    monkeypatch.setattr(racing, "ROUNDS", 3)
    share = racing.share_of_speed(exercise, exercise.reference)
    assert 0 < share.lower <= share.median <= share.upper


@pytest.mark.parametrize("exercise", EXERCISES, ids=TITLES)
def test_a_race_goes_through_many_batches(exercise, monkeypatch):
    """So that no processor learns a batch by heart, and what is no sample stays in its cache."""
    monkeypatch.setattr(racing, "ROUND_SECONDS", 1e-4)
    monkeypatch.setattr(racing, "ROUNDS", racing.BATCHES)
    monkeypatch.setattr(racing, "TRIES", 1)
    names = list(exercise.made(exercise.timed, np.random.default_rng(0)))
    calls = {name: [] for name in names}

    def looking(*arguments):
        for name, of in zip(names, arguments, strict=True):
            calls[name].append((id(of), of.tobytes(), (of == 0).tobytes()))
        exercise.reference(*arguments)

    racing.share_of_speed(exercise, looking)
    for name, seen in calls.items():
        arrays, contents, zeros = (len(set(of)) for of in zip(*seen[: racing.BATCHES], strict=True))
        if name in exercise.samples:
            assert arrays == contents == racing.BATCHES
        else:
            assert arrays == 1
        if name == "X" and exercise.number in (3, 4):  # what a branch asks
            assert zeros == racing.BATCHES


def test_what_is_noisy_is_measured_again(monkeypatch):
    spreads = [Spread(1.0, 0.8, 1.4), Spread(0.9, 0.8, 1.0), Spread(0.8, 0.79, 0.82)]
    left = iter(spreads)
    monkeypatch.setattr(racing, "_measure", lambda own, reference: next(left))
    monkeypatch.setattr(racing, "_bound", lambda exercise, function: None)
    assert racing.share_of_speed(EXERCISES[0], None) == spreads[2]
    assert next(left, None) is None
    # where all tries are noisy, the steadiest
    tries = [Spread(1.0, 0.5, 1.5), Spread(1.0, 0.6, 1.4), Spread(1.0, 0.8, 1.2), Spread(1.0, 0, 2)]
    left = iter(tries)
    assert racing.share_of_speed(EXERCISES[0], None) == tries[2]
