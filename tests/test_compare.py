"""Two commits side by side: what is told from noise, and what is measured. No test knows a time."""

from __future__ import annotations

import argparse
import ast
import functools
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from test_bench import Absent

import fastnn
from fastnn import bench, cli
from fastnn.backends.numba_backend.compiling import cache
from fastnn.bench import command, measuring, trees
from fastnn.bench.cases import Case, Comparison
from fastnn.bench.changes import (
    AGAIN,
    NEW,
    NO_SLOWER,
    OLD,
    PERHAPS,
    SIDES,
    SLOWER,
    Change,
    Finding,
    findings,
    student_bound,
)
from fastnn.bench.trees import Tree

PROCESSES, ROUNDS, ROWS = 10, 8, 7
QUIET = {"process": 0.005, "round": 0.02}
"""Standard deviations of the logarithm of times, between processes and between rounds."""
LOUD = {"process": 0.05, "round": 0.1}


def measured(rng, slowdown: float, noise: dict[str, float]) -> list[Change]:
    """Return times on a machine whose clock drifts by 1.5, with some rounds that are disturbed."""
    changes = []
    for row in range(ROWS):
        moments = np.arange(PROCESSES * ROUNDS * len(SIDES))
        phases = rng.uniform(0, 2 * np.pi, (3, 1))
        wave = np.sin(moments / len(moments) * 2 * np.pi * np.array([[1.3], [4.1], [9.7]]) + phases)
        wave = wave.sum(axis=0)
        drift = iter(1.5 ** ((wave - wave.min()) / np.ptp(wave)))
        seconds: dict[str, list[tuple[float, ...]]] = {side: [] for side in SIDES}
        for process in range(PROCESSES):
            order = list(np.roll(SIDES, process))
            of_process = {side: rng.normal(0, noise["process"]) for side in SIDES}
            times: dict[str, list[float]] = {side: [] for side in SIDES}
            for _ in range(ROUNDS):
                for side in order:
                    disturbed = rng.exponential(0.3) if rng.random() < 0.05 else 0.0
                    off = of_process[side] + rng.normal(0, noise["round"]) + disturbed
                    slower = 1 + slowdown * (side == NEW)
                    times[side].append(0.02 * next(drift) * np.exp(off) * slower)
                order.reverse()
            for side in SIDES:
                seconds[side].append(tuple(times[side]))
        changes.append(Change(f"row {row}", {side: tuple(of) for side, of in seconds.items()}))
    return changes


@functools.cache
def many(slowdown: float, noise: str, runs: int = 10) -> list[Finding]:
    rng, of = np.random.default_rng(0), {"quiet": QUIET, "loud": LOUD}[noise]
    return [found for _ in range(runs) for found in findings(measured(rng, slowdown, of))]


@pytest.mark.parametrize("noise", ["quiet", "loud"])
def test_what_is_no_slower_raises_no_alarm(noise):
    found = many(0, noise)
    assert sum(of.is_regression for of in found) <= 0.005 * len(found)
    assert np.mean([of.lower <= 1 <= of.upper for of in found]) >= 0.97  # 99 % are claimed


def test_ten_per_cent_are_found_in_drift():
    found = many(0.1, "quiet")
    assert np.mean([of.verdict == SLOWER for of in found]) > 0.95
    assert all(of.is_regression for of in found)
    assert np.mean([of.lower <= 1.1 <= of.upper for of in found]) >= 0.97


def test_five_per_cent_are_found_in_drift():
    found = many(0.05, "quiet")
    assert np.mean([of.is_regression for of in found]) > 0.9
    assert sum(of.verdict == NO_SLOWER for of in found) <= 0.02 * len(found)


def test_what_noise_hides_is_not_told():
    for slowdown in (0, 0.05):
        found = many(slowdown, "loud")
        unknown = [of for of in found if of.verdict.startswith("can't tell: noise of")]
        assert len(unknown) > 0.7 * len(found)
        assert all(of.noise > 0.02 for of in unknown)
        assert sum(of.verdict == NO_SLOWER for of in found) < 0.2 * len(found)


def test_without_noise_all_is_told():
    times = ((1.0, 1.0),) * 3

    def told(ratio: float) -> Finding:
        seconds = {OLD: times, AGAIN: times, NEW: tuple((ratio,) * 2 for _ in times)}
        return findings([Change("work", seconds)])[0]

    assert told(1.0) == (1, 1, 1, 1)
    assert [told(ratio).verdict for ratio in (0.5, 1.0, 1.04, 1.06)] == [NO_SLOWER] * 3 + [SLOWER]


def test_skewed_noise_is_no_change():
    """Rounds that others disturb take longer, and none takes less."""
    rng = np.random.default_rng(0)
    disturbed = np.exp(rng.exponential(0.1, (200, len(SIDES), PROCESSES, ROUNDS)))
    changes = [
        Change("", {side: tuple(map(tuple, of)) for side, of in zip(SIDES, row, strict=True)})
        for row in disturbed
    ]
    found = findings(changes)
    logs = np.log([of.ratio for of in found])
    # the median of new over the mean of both old ones would be 0.007 too small
    assert abs(logs.mean()) < 3 * logs.std() / np.sqrt(len(logs)) < 0.0035
    assert np.mean([of.lower <= 1 <= of.upper for of in found]) >= 0.97


def test_the_bounds_of_few_processes_are_those_of_student():
    stats = pytest.importorskip("scipy.stats")
    for freedom in range(1, 60):
        expected = stats.t.ppf(0.995, freedom)
        assert student_bound(freedom) == pytest.approx(expected, rel=6e-3)


def test_what_drifts_steadily_falls_out():
    start, step = 1.0, 1.01  # a round takes longer than the one before it, by as much
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn in range(4):
        for side in SIDES if turn % 2 == 0 else reversed(SIDES):
            seconds[side].append(start)
            start *= step
    found = findings([Change("work", {side: (tuple(of),) * 3 for side, of in seconds.items()})])[0]
    np.testing.assert_allclose(found, 1, rtol=1e-12)


def test_a_control_that_strays_widens_the_bounds():
    rng = np.random.default_rng(0)
    changes = measured(rng, 0.1, QUIET)
    odd = [
        replace(
            change,
            seconds=change.seconds
            | {AGAIN: tuple(tuple(1.2 * s for s in of) for of in change.seconds[AGAIN])},
        )
        for change in changes
    ]
    before, after = findings(changes)[0], findings(odd)[0]
    assert after.control == pytest.approx(1.2 * before.control)
    assert after.noise > 4 * before.noise
    assert after.verdict.startswith("can't tell")


def test_of_the_same_noise_a_verdict_says_what_it_knows():
    assert Finding(1.06, 1.051, 1.07, 1.0).verdict == SLOWER
    assert Finding(1.04, 1.01, 1.07, 1.0).verdict == PERHAPS
    assert Finding(1.03, 1.01, 1.049, 1.0).verdict == NO_SLOWER
    assert Finding(1.0, 1 / 1.063, 1.063, 1.0).verdict == "can't tell: noise of 6.3 %"
    assert not Finding(1.03, 1.01, 1.049, 1.0).is_regression
    assert Finding(1.04, 1.01, 1.07, 1.0).is_regression
    hidden = (1.06, 1.051, 1.07), (1.04, 1.01, 1.07), (1.0, 0.99, 1.049), (1.0, 0.94, 1.06)
    assert [Finding(*of, 1.0).is_hidden for of in hidden] == [False, False, False, True]


# The checkout


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository whose fastnn is a number, and of which the first commit has none."""
    top = tmp_path / "top"
    (top / "fastnn").mkdir(parents=True)
    git(top, "init", "-q")
    git(top, "commit", "-q", "--allow-empty", "-m", "nothing yet")
    for number in (1, 2):
        (top / "fastnn" / "__init__.py").write_text(str(number))
        git(top, "add", ".")
        git(top, "commit", "-q", "-m", f"number {number}")
    monkeypatch.chdir(top)
    return top


def exported(tmp_path, name: str) -> tuple[str, str]:
    tree = trees.export("--compare OLD", name, tmp_path / "exported")
    return (tree.root / "fastnn" / "__init__.py").read_text(), tree.description


def test_a_commit_is_exported_as_it_was(checkout, tmp_path, monkeypatch):
    (checkout / "fastnn" / "__init__.py").write_text("3")
    monkeypatch.chdir(checkout / "fastnn")
    text, description = exported(tmp_path, "HEAD~1")
    assert text == "1"
    assert description == f"{git(checkout, 'rev-parse', '--short', 'HEAD~1').strip()} number 1"


def test_the_working_tree_is_copied_with_its_changes(checkout, tmp_path):
    commit = git(checkout, "rev-parse", "--short", "HEAD").strip()
    assert exported(tmp_path / "clean", "WORKTREE") == ("2", f"{commit} number 2")
    (checkout / "fastnn" / "__init__.py").write_text("3")
    found = exported(tmp_path / "dirty", "WORKTREE")
    assert found == ("3", f"changes to {commit} number 2")


def test_a_folder_is_copied(checkout, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert exported(tmp_path, "top") == ("2", f"the folder {checkout}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-such", r"--compare OLD: expected a commit, .* got 'no-such'"),
        ("--all", r"--compare OLD: expected a commit, .* got '--all'"),
        ("HEAD~2", r"--compare OLD: the commit HEAD~2 has no folder fastnn"),
        ("..", r"--compare OLD: the folder \.\. has no fastnn"),
    ],
)
def test_what_is_no_state_of_fastnn_is_refused(checkout, tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        exported(tmp_path, name)


def test_the_working_tree_needs_a_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ValueError, match="--compare OLD: WORKTREE needs a checkout"):
        exported(tmp_path, "WORKTREE")
    monkeypatch.setenv("PATH", "")  # git is not here
    with pytest.raises(ValueError, match="expected a commit"):
        exported(tmp_path, "HEAD")


# What is measured

TINY = Case("numba", shape=(6, 5, 4, 3), batch_size=4, samples=64, input="random")


def tree(tmp_path, name: str, after: str = "") -> Tree:
    """Return this fastnn in another folder, with a line after it, and the kernels it has."""
    root = tmp_path / name
    (tmp_path / f"{name}-kernels").symlink_to(cache.directory())
    (root / "fastnn").mkdir(parents=True)
    for path in (ROOT / "fastnn").iterdir():
        if path.name not in ("__init__.py", "bench", "__pycache__"):
            (root / "fastnn" / path.name).symlink_to(path)
    text = (ROOT / "fastnn" / "__init__.py").read_text()
    (root / "fastnn" / "__init__.py").write_text(f"{text}\n{after}\n")
    return Tree(name, root, name)


def test_both_states_are_measured_in_turn_by_the_worker_of_this_one(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "ROUNDS_OF_A_PROCESS", 2)
    old, new = (tree(tmp_path, name) for name in ("old", "new"))  # of which none has a bench
    works = [Comparison((replace(TINY, task=task),)) for task in ("train", "predict")]
    first, *_, last = measuring.measure_changes(works, 2, old, new)
    assert [change.error for change in first] == [None, None]
    assert [change.name for change in last] == [work.name for work in works]
    for change in last:
        assert {side: np.shape(of) for side, of in change.seconds.items()} == dict.fromkeys(
            SIDES, (2, 2)
        )
        assert min(np.ravel(list(change.seconds.values()))) > 0


@pytest.mark.parametrize(
    ("planted", "error"),
    [
        ("Network.set_weights = None", "new: on the NumPy backend: TypeError: "),
        (
            "from types import SimpleNamespace as Wrong; _fit = Network.fit\n"
            "def fit(self, *rest, **options):\n"
            "    right = _fit(self, *rest, **options)\n"
            "    return Wrong(loss=[9.0]) if self.backend == 'numba' else right\n"
            "Network.fit = fit",
            "new: loss 9 in round 0, the NumPy backend has 1",
        ),
    ],
)
def test_who_fails_or_has_another_loss_is_not_measured(tmp_path, planted, error):
    old, new = tree(tmp_path, "old"), tree(tmp_path, "new", planted)
    *_, (change,) = measuring.measure_changes([Comparison((TINY,))], 3, old, new)
    assert re.match(error, change.error)
    assert change.seconds == dict.fromkeys(SIDES, ())
    assert findings([change]) == [None]


def test_rounds_go_forwards_and_backwards(monkeypatch):
    order = []

    class Noted(Absent):
        def run_round(self):
            order.append(self.root.name)
            self.rounds.append({"seconds": 1.0, "result": 1.0})

    monkeypatch.setattr(measuring, "Worker", Noted)
    monkeypatch.setattr(measuring, "ROUNDS_OF_A_PROCESS", 2)
    old, new = Tree("old", Path("a"), ""), Tree("new", Path("b"), "")
    list(measuring.measure_changes([Comparison((TINY,))], 2, old, new))
    checked, processes = order[:3], "".join(order[3:])
    assert checked == ["b", "a", "b"]  # NumPy's loss first
    assert processes == "baa" + "aab" + "baa" + "aba" * 3


def test_the_worker_uses_public_names_alone():
    """Or it could not measure a commit whose insides are other ones."""
    known = {"worker", "contenders", "cases", "samples", "memory"}
    for module in known:
        parsed = ast.parse((ROOT / "fastnn" / "bench" / f"{module}.py").read_text())
        at_once = [node for node in parsed.body if isinstance(node, ast.ImportFrom)]
        for node in at_once:
            if node.module.startswith("fastnn"):
                names = {alias.name for alias in node.names}
                inside = (
                    {node.module.rpartition(".")[2]} if node.module != "fastnn.bench" else names
                )
                assert inside <= known, f"{module} imports {inside}"
        used = {
            node.attr
            for node in ast.walk(parsed)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "fastnn"
        }
        assert used <= set(fastnn.__all__)


# The command


def parse(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suite", "operations"], "--compare: the suite operations can't"),
        (["--suite", "recipes"], "--compare: the suite recipes can't"),
        (["--peers", ""], "--peers: not with --compare"),
        (["--plot", "a.png"], "--plot: not with --compare"),
        (["--rounds", "2"], "--rounds"),
    ],
)
def test_options_that_contradict_are_refused(checkout, options, message):
    with pytest.raises(ValueError, match=message):
        bench.run(parse("--compare", "HEAD~1", "HEAD", *options))


@pytest.mark.parametrize(
    ("slowdown", "noise", "verdict", "status"),
    [
        (0.0, QUIET, NO_SLOWER, 0),
        (0.1, QUIET, SLOWER, 1),
        (0.0, LOUD, "can't tell: noise of", 3),
    ],
    ids=["no slower", "slower", "hidden"],
)
def test_the_command_says_what_it_found(
    checkout, tmp_path, monkeypatch, capsys, slowdown, noise, verdict, status
):
    asked = []

    def changes(comparisons, processes, old, new):
        asked.append((len(comparisons), processes, old.description, new.description))
        yield []
        yield measured(np.random.default_rng(0), slowdown, noise)[:1]

    monkeypatch.setattr(command, "measure_changes", changes)
    (checkout / "fastnn" / "__init__.py").write_text("3")
    file = tmp_path / "found.json"
    options = ["bench", "--compare", "HEAD~1", "HEAD", "--json", str(file)]
    assert cli.main(options) == status
    [(works, processes, old, new)] = asked
    assert (works, processes) == (7, 10)
    assert old.endswith("number 1")
    assert new.endswith("number 2")
    text = capsys.readouterr().out
    assert f"Old is HEAD~1: {old}\nNew is HEAD: {new}" in text
    assert "The checkout has changes that are no commit; WORKTREE names them." in text
    assert verdict in text
    [change] = json.loads(file.read_text())["changes"]
    assert change["finding"]["lower"] <= 1 + slowdown <= change["finding"]["upper"]


def test_a_network_of_ones_own_and_an_interrupt(checkout, monkeypatch, tmp_path):
    asked = []

    def changes(comparisons, processes, old, new):
        asked.extend(of.cases[0] for of in comparisons)
        yield []
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "measure_changes", changes)
    options = ["--hidden", "64", "--batch-size", "16", "64", "--input", "table"]
    file = tmp_path / "found.json"
    options += ["--json", str(file)]
    found = bench.run(parse("--compare", "HEAD~1", "WORKTREE", *options))
    assert [(case.shape, case.batch_size) for case in asked] == [
        ((100, 64, 10), 16),
        ((100, 64, 10), 64),
    ]
    assert found.interrupted
    assert json.loads(file.read_text())["interrupted"]
    assert "Interrupted before the end." in bench.as_markdown(found)
