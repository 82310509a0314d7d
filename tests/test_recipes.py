"""Recipes and races: what is trained, whether the twin does the same, and what is reported."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from test_bench import Absent, parse

from fastnn import bench
from fastnn.bench import command, machine, measuring, recipes, suites
from fastnn.bench.cases import LABELS, Case, Comparison
from fastnn.bench.races import Race, Runner
from fastnn.bench.recipes import RECIPES, Look, Recipe

SMALL = Recipe(0.5, (20, 12), 32, 2, rate=0.3, l2=1e-3, momentum=0.8, label_smoothing=0.1, pixels=1)

CASE = Case("numba", task="recipe", recipe="98%")


@pytest.fixture
def data(digits) -> recipes.Data:
    """A few images; 490 are no whole number of batches."""
    pixels = [np.uint8(np.rint(255 * X)) for X in digits[::2]]
    X, X_test = (X.reshape(len(X), -1) for X in pixels)
    return recipes.Data(X[:490], digits[1][:490], X_test[:300], digits[3][:300])


def looks(program, recipe, data, seed=0) -> list[Look]:
    program.reset(recipe, data, seed)
    return program.run()


def test_what_each_epoch_trains_on(rng):
    X, y = rng.integers(0, 256, (300, 784), np.uint8), np.arange(300)
    first, second = SMALL.passes(X, y, seed=3)
    again, _ = SMALL.passes(X, y, seed=3)
    plain, _ = replace(SMALL, pixels=0).passes(X, y, seed=3)
    other, _ = SMALL.passes(X, y, seed=4)
    np.testing.assert_array_equal(first[0], again[0])
    assert sorted(first[1]) == sorted(second[1]) == list(y)
    for one in (second, other):
        assert not np.array_equal(first[1], one[1])
    np.testing.assert_array_equal(plain[0], X[plain[1]])
    inner = np.s_[:, 2:-2, 2:-2]
    images, moved = (of.reshape(-1, 28, 28) for of in (X[first[1]], first[0]))
    places = [
        (np.roll(images, (i, j), (1, 2))[inner] == moved[inner]).all((1, 2))
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    ]
    assert (np.sum(places, axis=0) == 1).all()
    assert (np.sum(places, axis=1) > 0).all()


def test_the_rate_rises_and_falls_to_zero():
    steps = SMALL.epochs * (490 // SMALL.batch_size)
    rates = [SMALL.schedule(490)(step) for step in range(steps + 1)]
    highest = int(np.argmax(rates))
    assert highest < 0.3 * steps
    assert 0.8 * SMALL.rate < rates[highest] <= SMALL.rate
    assert rates[-1] < 1e-12
    assert rates[-2] > 0


def test_the_clock_stands_still_while_answers_are_counted(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(recipes.time, "perf_counter", lambda: now[0])

    def accuracy() -> float:
        now[0] += 100
        return 0.5

    watch = recipes.Stopwatch(accuracy)
    for _ in range(3):
        now[0] += 2
        watch.look()
    assert watch.looks == [(2, 0.5), (4, 0.5), (6, 0.5)]


def test_looks_are_at_the_test_set(data, monkeypatch):
    # a clock that goes on whenever somebody looks at it: twice in each epoch, at its ends
    monkeypatch.setattr(recipes, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
    program = recipes.FastNN(threads=1)
    found = looks(program, SMALL, data)
    assert [look.seconds for look in found] == [1, 2] == list(range(1, SMALL.epochs + 1))
    expected = (program.network.predict(data.X_test) == data.y_test).mean()
    assert found[-1].accuracy == expected > 0.5


def test_threads_and_repetition_change_no_answer(data):
    one, two = (recipes.FastNN(threads) for threads in (1, 2))
    first, second, again = (looks(one, SMALL, data, seed) for seed in (0, 1, 0))
    shared = looks(two, SMALL, data)
    assert [look.accuracy for look in first] == [look.accuracy for look in again]
    assert [look.accuracy for look in first] == [look.accuracy for look in shared]
    assert [look.accuracy for look in first] != [look.accuracy for look in second]


@pytest.mark.parametrize("twin", [recipes.Torch, recipes.TorchCompiled])
def test_the_twin_takes_the_same_steps(twin, data, monkeypatch):
    """To some roundings a step; a momentum or a penalty that is another moves weights by 0.01.

    Running variances are left out: PyTorch's are of unbiased ones (`docs/interchange.md`).
    """
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "compile", lambda function: function)  # it takes half a minute
    ours, theirs = recipes.FastNN(1), twin(1)
    recipe = replace(SMALL, epochs=1)
    looks(theirs, recipe, data, seed=7)  # of which nothing may be left
    for program in (ours, theirs):
        looks(program, recipe, data)
    steps = len(data.y) // recipe.batch_size
    expected = ours.network.to_torch().state_dict()
    for name, values in theirs.module.state_dict().items():
        if not name.endswith(("running_var", "num_batches_tracked")):
            tolerance = 4 * steps * np.finfo(np.float32).eps
            np.testing.assert_allclose(values, expected[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("program", recipes.PROGRAMS.values())
def test_products_in_bfloat16(program, data, monkeypatch):
    if program is not recipes.FastNN:
        torch = pytest.importorskip("torch")
        monkeypatch.setattr(torch, "compile", lambda function: function)
    exact, rounded = (looks(program(1, of), SMALL, data) for of in (None, "bfloat16"))
    assert exact != rounded
    assert rounded[-1].accuracy == pytest.approx(exact[-1].accuracy, abs=0.1)


def test_a_race_of_one():
    (comparison, *_) = suites.suite_comparisons("recipes", [], {"threads": 1})
    race = measuring.race(replace(comparison, cases=comparison.cases[:1]), 2)
    assert race.name == comparison.name == "98% of MNIST's test set, 1 thread"
    assert race.recipe == RECIPES["98%"]
    (runner,) = race.runners
    assert (runner.label, runner.error) == ("fastnn numba", None)
    first, second = runner.runs
    assert len(first) == len(second) == race.recipe.epochs
    assert first != second
    assert min(first[-1].accuracy, second[-1].accuracy) > 0.975


def test_who_runs_first_changes_from_seed_to_seed(monkeypatch):
    ran = []

    class Noting(Absent):
        def run_round(self):
            ran.append(self.case.contender)
            self.rounds.append({"result": [(len(ran), 0.5)]})

    monkeypatch.setattr(measuring, "Worker", Noting)
    names = ["numba", "torch", "torch.compile"]
    comparison = Comparison(tuple(replace(CASE, contender=name) for name in names))
    race = measuring.race(comparison, 10)
    turns = [ran[at : at + 3] for at in range(0, 30, 3)]
    assert all(sorted(turn) == names for turn in turns)
    assert {turn[0] for turn in turns} == set(names)
    for runner, name in zip(race.runners, names, strict=True):  # each has its own runs
        places = [at for at, of in enumerate(ran, 1) if of == name]
        assert [look.seconds for (look,) in runner.runs] == places
    first, ran[:] = list(ran), []
    measuring.race(comparison, 10)
    assert ran == first


def test_who_fails_in_a_race_is_reported(monkeypatch):
    monkeypatch.setitem(LABELS, "nobody", "nobody")
    race = measuring.race(Comparison((replace(CASE, contender="nobody"),)), 1)
    assert race.runners[0].error == "KeyError: 'nobody'"
    text = bench.as_markdown(found(race))
    assert "0 of 0" in text
    assert "- 98% of MNIST's test set, 1 thread: nobody: KeyError: 'nobody'" in text


def test_who_runs_which_recipe():
    comparisons = list(suites.suite_comparisons("recipes", ["torch", "jax"], {}))
    assert [of.name for of in comparisons] == [
        f"{target} of MNIST's test set, {team}"
        for team in ("1 thread", "2 threads")
        for target in RECIPES
    ]
    first = comparisons[0]
    assert [(case.contender, case.matmul_precision) for case in first.cases] == [
        *[("numba", None), ("torch", None)],
        *[("numba", "bfloat16"), ("torch", "bfloat16")],
    ]
    assert first.label(first.cases[3]) == "PyTorch eager, products in bfloat16"


def found(*races: Race) -> bench.Report:
    """Return a report of races alone."""
    return bench.Report(machine.describe_environment(), (), races=races)


def run(*pairs: tuple[float, float]) -> tuple[Look, ...]:
    return tuple(Look(*pair) for pair in pairs)


RACE = Race(
    "half",
    SMALL,
    (
        Runner(CASE, "fastnn", None, (run((1, 0.4), (2, 0.5)), run((2, 0.6), (4, 0.7)))),
        Runner(CASE, "PyTorch", None, (run((5, 0.5), (9, 0.6)), run((8, 0.4), (9, 0.4)))),
        Runner(CASE, "compiled", "KeyError: 3", ()),
    ),
)


def test_times_to_the_target():
    ours, twin, failed = RACE.runners
    assert RACE.times(ours) == [2, 2]
    assert RACE.times(twin) == [5, None]
    assert RACE.pairs(twin) == [(5, 2)]
    assert RACE.pairs(failed) == RACE.times(failed) == []


def test_a_race_as_markdown_and_json():
    text = bench.as_markdown(found(RACE))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.split("\n")]
    assert ["fastnn", "2 of 2", "2.00 (2.00-2.00)", "3.00 (2.50-3.50)",
            "60.00% (50.00%-70.00%)", "1.00 (1.00-1.00)"] in rows  # fmt: skip
    assert ["PyTorch", "1 of 2", "5.00 (5.00-5.00)", "9.00 (9.00-9.00)",
            "50.00% (40.00%-60.00%)", "2.50 (2.50-2.50)"] in rows  # fmt: skip
    assert "- half: compiled: KeyError: 3" in text
    (race,) = json.loads(bench.as_json(found(RACE)))["races"]
    assert race["recipe"]["hidden"] == [20, 12]
    assert race["runners"][1]["runs"][0] == [[5, 0.5], [9, 0.6]]


@pytest.mark.parametrize(
    ("options", "processors", "expected"),
    [([], 2, [1, 1, 2, 2]), ([], 1, [1, 1]), (["--threads", "2"], 2, [2, 2])],
)
def test_the_suite(options, processors, expected, monkeypatch, tmp_path):
    ran = []

    def race(comparison, seeds):
        ran.append((comparison.cases[0].threads, seeds))
        return RACE

    monkeypatch.setattr(command, "race", race)
    monkeypatch.setattr(command, "usable", lambda: processors)
    file = tmp_path / "report.json"
    given = ["--suite", "recipes", "--peers", "", "--rounds", "3", "--json", str(file), *options]
    races = bench.run(parse(*given)).races
    assert ran == [(threads, 3) for threads in expected]
    assert len(races) == len(json.loads(file.read_text())["races"]) == len(ran)
