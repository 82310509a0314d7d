"""What a report says of its machine, and reports of several machines side by side."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace

import pytest
from conftest import ROOT

from fastnn import bench, cli
from fastnn.bench import machine, report, trees
from fastnn.bench.anatomy import Anatomy, Part
from fastnn.bench.cases import Case
from fastnn.bench.changes import SIDES, Change
from fastnn.bench.costs import Cost
from fastnn.bench.races import Race, Runner
from fastnn.bench.ratios import Ratio
from fastnn.bench.recipes import RECIPES, Look
from fastnn.bench.threads import THREAD_VARIABLES

MACHINE = {
    "date": "2026-01-02",
    "cpu": "an abacus",
    "vectors": "128 bits",
    "caches": [48 << 10, 1 << 20, 32 << 20],
    "cores": 8,
    "usable": 2,
    "governor": "powersave",
    "memory": 3 << 29,
    "load": 0.0,
    "platform": "wood",
    "python": "3.11.7",
    "commit": "abc1234 with changes",
    "versions": {"fastnn": "0.1.0", "numpy": "2.0.0"},
    "llvm": "20.1.8",
    "blas": "openblas 1.2",
    "command": ["fastnn", "bench"],
    "variables": {"OMP_NUM_THREADS": "1"},
    "affinity": [0, 3],
}
UNKNOWN = MACHINE | dict.fromkeys(("vectors", "caches", "governor", "memory", "commit", "llvm"))
ONE = Case("numba", shape=(6, 5, 3), batch_size=4, samples=64, input="random")


def outcome(contender: str, *seconds: float, error: str | None = None) -> report.Outcome:
    case = replace(ONE, contender=contender)
    return report.Outcome(case, contender, error, seconds, seconds, (1.0,) * len(seconds))


def written(folder, name: str, **found) -> str:
    path = folder / f"{name}.json"
    whole = bench.Report(**{"environment": MACHINE, "results": (), "suite": "quick"} | found)
    path.write_text(bench.as_json(whole))
    return str(path)


def printed(capsys, *files: str) -> str:
    assert cli.main(["bench", "--beside", *files]) == 0
    return capsys.readouterr().out


def test_a_machine_in_words():
    assert machine.in_words(MACHINE) == (
        "an abacus, vectors of 128 bits, caches of 48 KiB, 1 MiB, 32 MiB, 2 of 8 cores, governor "
        "powersave, 1.5 GiB of memory, wood; Python 3.11.7, fastnn 0.1.0 (abc1234 with changes), "
        "numpy 2.0.0, LLVM 20.1.8, BLAS openblas 1.2; 2026-01-02"
    )
    assert machine.in_words(UNKNOWN | {"usable": 8}) == (
        "an abacus, 8 cores, wood; Python 3.11.7, fastnn 0.1.0, numpy 2.0.0, BLAS openblas 1.2; "
        "2026-01-02"
    )


def test_the_commit_is_told_without_an_installed_fastnn():
    told = machine.in_words(MACHINE | {"versions": {"numpy": "2.0.0"}})
    assert "Python 3.11.7, fastnn (abc1234 with changes), numpy 2.0.0, LLVM" in told


def test_a_run_is_described_as_it_was_started(monkeypatch):
    monkeypatch.setattr(machine.sys, "argv", ["/home/me/bin/fastnn", "bench", "--rounds", "2"])
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("MY_NAME", "me")
    monkeypatch.setattr(machine, "version", lambda package: f"1 of {package}")
    found = machine.describe_environment()
    assert found["command"] == ["fastnn", "bench", "--rounds", "2"]
    assert found["variables"]["MKL_NUM_THREADS"] == "3"
    assert found["variables"]["OPENBLAS_CORETYPE"] == "Haswell"
    assert "MY_NAME" not in found["variables"]
    assert found["versions"]["jaxlib"] == "1 of jaxlib"
    if hasattr(os, "sched_getaffinity"):
        assert set(found["affinity"]) == os.sched_getaffinity(0)


def test_this_machine():
    found = machine.describe_environment()
    assert set(found) == set(MACHINE)
    assert {"fastnn", "numpy", "numba", "llvmlite"} <= set(found["versions"])
    assert found["blas"] in machine.in_words(json.loads(json.dumps(found)))
    assert 1 <= found["usable"] <= found["cores"]


def test_the_commit_is_that_of_the_package(tmp_path):
    def git(*arguments: str) -> str:
        told = ["git", "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        run = subprocess.run([*told, *arguments], cwd=tmp_path, check=True, capture_output=True)
        return run.stdout.decode().strip()

    file = tmp_path / "fastnn" / "__init__.py"
    file.parent.mkdir()
    file.write_text("1")
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "something else")
    assert trees.commit_of_package(tmp_path) is None  # installed in a checkout of something else
    git("add", ".")
    git("commit", "-q", "-m", "fastnn")
    commit = git("rev-parse", "--short", "HEAD")
    assert trees.commit_of_package(tmp_path) == commit
    file.write_text("2")
    assert trees.commit_of_package(tmp_path) == f"{commit} with changes"


def test_comparisons_side_by_side(tmp_path, capsys):
    def result(name: str, *times: float, error: str | None = None) -> report.Result:
        outcomes = outcome("numba", 9, 1, 2, 4), outcome("torch", 9, *times, error=error)
        return report.Result(name, 3, outcomes, 1.0)

    first = written(tmp_path, "laptop", results=(result("one", 2, 4, 8), result("two", 8, 16, 32)))
    second = written(
        tmp_path,
        "server",
        results=(result("two", 2, 4, 8), result("one", 1, 2, 4), result("three", 1, 2, 4)),
        environment=UNKNOWN,
    )
    text = printed(capsys, first, second)
    lines = [line.replace(" ", "") for line in text.splitlines()]
    assert f"- laptop: {machine.in_words(MACHINE)}" in text
    assert f"- server: {machine.in_words(UNKNOWN)}" in text
    assert lines[0] == "###quick"
    assert "###samples/soffastnnnumba" in lines
    assert "|one|32|32|" in lines
    assert "|three|-|32|" in lines
    ratios = lines[lines.index("###timeoverfastnnnumba") :]
    assert "||laptop|server|" in ratios
    assert "|one:torch|2.00(2.00-2.00)|1.00(1.00-1.00)|" in ratios
    assert "|two:torch|8.00(8.00-8.00)|2.00(2.00-2.00)|" in ratios
    assert "|three:torch|-|1.00(1.00-1.00)|" in ratios
    assert "|geometricmeanof2:torch|4.00|1.41|" in ratios
    wrong = written(tmp_path, "wrong", results=(result("one", 2, 4, 8, error="loss 3"),))
    assert "| one: torch" not in printed(capsys, wrong)


def test_each_contender_has_a_mean(tmp_path, capsys):
    def result(name: str, torch: float, jax: float) -> report.Result:
        times = {"numba": 1, "torch": torch, "jax": jax}
        outcomes = tuple(outcome(of, 9, *[seconds] * 3) for of, seconds in times.items())
        return report.Result(name, 3, outcomes, 1.0)

    rows = result("one", 2, 8), result("two", 8, 32)
    lines = printed(capsys, written(tmp_path, "a", results=rows)).replace(" ", "").splitlines()
    assert [line for line in lines if "mean" in line] == [
        "|geometricmeanof2:torch|4.00|",
        "|geometricmeanof2:jax|16.0|",
    ]


def test_what_a_report_warns_of_is_told_beside_others(tmp_path, capsys):
    wrong = report.Result("one", 3, (outcome("numba", error="loss 3"),), 1.0)
    file = written(
        tmp_path,
        "laptop",
        environment=MACHINE | {"load": 2.5},
        results=(wrong,),
        missing=("jax",),
        notes=("One processor, so threads are not compared.", "Interrupted after 1 of 2."),
    )
    lines = printed(capsys, file, written(tmp_path, "server")).splitlines()
    start = lines.index(f"- laptop: {machine.in_words(MACHINE)}")
    assert lines[start + 1 : start + 7] == [
        "  - Other programs were running, a load of 2.5: take the figures as rough.",
        "  - Not installed: jax.",
        "  - One processor, so threads are not compared.",
        "  - Interrupted after 1 of 2.",
        "  - No time reported: one: numba: loss 3",
        f"- server: {machine.in_words(MACHINE)}",
    ]


def test_all_other_figures_side_by_side(tmp_path, capsys):
    times = {"numpy": (2.0, 4.0, 6.0), "numba": (1.0, 1.0, 1.0)}
    ratios = (
        Ratio("layers", "ReLU", "tiny", "float32", times),
        Ratio("layers", "Tanh", "tiny", "float32", {}, "wrong"),
    )
    costs = (Cost("import", "ms", (3.0,)), Cost("memory", "MB", (), "no"))
    part = Part(1.0, 1.0, 1.0, 1.0, 1.0, layer="784-100", name="forward", seconds=2e-6)
    anatomies = (Anatomy("step", ONE, parts=(part,)),)
    recipe = RECIPES["98%"]
    runs = tuple((Look(s, 0.5), Look(2 * s, recipe.target)) for s in (1.0, 2.0, 3.0))
    races = (Race("98 %", recipe, (Runner(ONE, "fastnn", None, runs),)),)
    rows = ((1.0, 1.0),) * 3
    changes = (Change("fit", dict.fromkeys(SIDES, rows)),)
    file = written(
        tmp_path,
        "a",
        ratios=ratios,
        costs=costs,
        anatomies=anatomies,
        races=races,
        changes=changes,
    )
    text = printed(capsys, file)
    lines = [line.replace(" ", "") for line in text.splitlines()]
    assert "### NumPy's time over Numba's: layers, float32" in text
    assert "|ReLU,tiny|4.00(3.00-5.00)|" in lines
    assert "|import|3.00(3.00-3.00)ms|" in lines
    assert "|step:784-100forward|2.00|" in lines
    assert "|98%:fastnn|4.00(3.00-5.00)|" in lines
    assert "|fit|1.000(1.000-1.000)|" in lines
    assert "| Tanh" not in text
    assert "| memory" not in text


def test_files_of_the_same_name_are_told_apart_by_their_paths(tmp_path, capsys):
    files = []
    for name in "ab":
        (tmp_path / name).mkdir()
        files.append(written(tmp_path / name, "found"))
    assert f"- {files[1]}: an abacus" in printed(capsys, *files)


def test_a_terminal_obeys_no_name_in_a_report(tmp_path, capsys):
    file = written(tmp_path, "a", environment=MACHINE | {"cpu": "\x1b[31mred"})
    assert "\\x1b[31mred" in printed(capsys, file)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"suite": 3}',
        '{"suite": "quick"}',
        '{"suite": "quick", "environment": {}}',
        b"\xff",
    ],
)
def test_what_is_no_report_is_refused(tmp_path, text):
    file = tmp_path / "a.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"--beside: expected reports .*a\.json is none"):
        bench.beside([file])


def test_reports_of_different_suites_are_refused(tmp_path, capsys):
    files = [written(tmp_path, "a"), written(tmp_path, "b", suite="operations")]
    assert cli.main(["bench", "--beside", *files]) == 2
    message = capsys.readouterr().err
    assert f"--beside: expected reports of one suite, got quick in {files[0]}" in message
    assert f"operations in {files[1]}" in message
    assert cli.main(["bench", "--beside", files[0], files[0]]) == 2
    assert "--beside: expected each file once" in capsys.readouterr().err
    assert cli.main(["bench", "--beside", files[0], "--rounds", "3"]) == 2
    assert "--beside: expected no other option, got --rounds" in capsys.readouterr().err
    assert cli.main(["bench", "--beside", str(tmp_path / "none.json")]) == 2


def test_pytest_benchmark_says_the_same_of_the_machine(monkeypatch):
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "1")  # or it would, for all tests that follow
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import conftest

    told: dict[str, object] = {}
    conftest.pytest_benchmark_update_machine_info(None, told)
    assert set(told["fastnn"]) == set(MACHINE)


def test_a_blas_that_was_told_to_be_on_another_processor_says_so(monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    assert "OPENBLAS_CORETYPE" not in (plain := machine.blas())
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert machine.blas() == f"{plain} told by OPENBLAS_CORETYPE to be on a Haswell"
    assert machine.describe_environment()["blas"] == plain  # whoever measures isn't told
