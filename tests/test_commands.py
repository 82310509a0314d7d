"""What the README and the pages have a reader type is run, in the order given.

A block of shell is one program of bash, and the blocks of a page run one after another in a clone
of the repository, which has the files that the page takes for the reader's own (`FILES`). `INSTEAD`
has what is run in place of a command, mostly the same with a few options more; `BY_ANOTHER` names
the test that runs it, and `LEFT_OUT` says why none does. All else runs as it stands. Programs,
options, files and extras have to be there in any case.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from drawing import as_file, drawn, photo
from test_datasets import arrays, write_emnist  # noqa: F401
from test_packaging import TOP
from test_pages import PAGES

from fastnn import cli, guards
from fastnn.backends.numba_backend.compiling import cache

INSTEAD = {
    # Trainings of many epochs, and of many networks.
    "fastnn train": "{} --epochs 1",
    "fastnn train --csv": "{}",
    "fastnn train --epochs # --checkpoint training.safetensors --resume": "{} --epochs 2",
    "fastnn sweep": "{} --seeds 2 --epochs 1",
    # Measurements: a round, of what `SHORTENED` leaves, beside nobody, as peers may be missing.
    # Other ends than success are a stub that is not filled in, and noise that hides a ratio, of
    # which the file has the bounds all the same.
    "fastnn bench": "{} --rounds 1 --peers ''",
    "fastnn bench --suite operations": "{} --rounds 1",
    "fastnn bench --suite trainings": "{} --rounds 1",
    "fastnn bench --suite step": "{} --rounds 1 --dtype float32",
    "fastnn bench --compare HEAD~1 HEAD": "{} --rounds 3 --batch-size 64 || grep lower found.json",
    "fastnn bench --beside": "cp laptop.json server.json && {}",
    "pytest benchmarks": "{} --benchmark-max-time 0.01 --benchmark-min-rounds 1",
    "python -m benchmarks.exercises": "{} || [ $? = 1 ]",
    # Tests that take long.
    "pytest tests/test_elementwise.py -k": "{} --collect-only",
    "pytest tests/test_stateful.py --hypothesis-profile=long": "{} --collect-only",
    "python tests/checked_suite.py": "{} --bits 128 --collect-only tests/test_checks.py",
    "python tests/fuzz_files.py": "{} --mutations 1",
    "python tests/fuzz_files.py --mutations": "{} --mutations 1 --formats results webp",
    "python tests/interrupt_storm.py": "{} 0.3",
    "python tests/long_fuzz.py": "{} --networks 1",
    "python tests/million_steps.py": "{} 10000",
    "python tests/planted_bugs.py": "{} --list",
    "python tests/ulps.py --exhaustive": "{} 'LeakyReLU(0.1)' --no-singles --doubles 8192",
}
"""What is run, by the words that a command begins with: {} is the command, # a number in it.

Of several rows the longest counts.
"""

BY_ANOTHER = {
    "fastnn bench --compare": "test_compare.py",
    "python -m benchmarks.edges": "test_edges.py",
    "python -m benchmarks.ladder": "test_ladder.py",
    "python -m benchmarks.ladder # --assembly": "test_ladder_assembly.py",
    "python tests/kill_resume.py": "test_resume.py",
    "python tests/kill_sweep.py": "test_sweep.py",
}
"""Likewise: the test that runs it in its shortest form, which takes long enough once."""

LEFT_OUT = {
    "dask": "a cluster on several machines",
    "fastnn sweep --dask": "the same; `test_sweep.py` has one on this machine",
    "git clone": "the folder in which commands run is a clone",
    "cd fastnn": "it is this folder",
    "python3 -m venv": ".venv stands for the environment of the tests; `.ci/run` makes new ones",
    "pip install": "`.ci/run` and the workflows install, from an index",
    "pytest": "it is this suite, or a part of it",
    "ruff": "it needs the extra lint; `.ci/run` runs it",
    "mypy": "it needs the extra lint; `.ci/run` runs it",
    "python -m build": "it installs hatchling from an index; `.ci/run` runs it",
    "python -m sphinx": "it needs the extra docs; `.ci/run` runs it",
    "python .ci/check_site.py": "it needs the site; `.ci/run` runs it",
    "asv": "it installs each commit from an index; `test_workloads.py` runs what it would time",
    "mutmut": "it takes hours, and is in no extra",
}
"""Likewise: why nothing runs it."""

SHORTENED = {
    "benchmarks/exercises/racing.py": "ROUNDS, TRIES = 3, 1",
    "benchmarks/ladder/probes.py": "TURNS, REPEATS = 64, 1",
    "fastnn/bench/measuring.py": """
PEAK_REPEATS, ROUNDS_OF_A_PROCESS, SETTLING_SECONDS = 1, 2, 0
_places = Worker._places
Worker._places = lambda worker: {"PYTHONPATH": _places(worker)["PYTHONPATH"]}
""",
    "fastnn/bench/suites.py": """
import itertools
_all = suite_comparisons
def suite_comparisons(*arguments):
    for first in itertools.islice(_all(*arguments), 1):
        fewer = [replace(of, samples=min(of.samples, 1024)) for of in first.cases]
        yield Comparison(tuple(fewer))
""",
    "fastnn/bench/workloads.py": """
_KEPT = (
    "operations-adam_step-small-float32", "operations-elementwise_forward leaky_relu-tiny-float32",
    "optimizers-adam-tiny-float32", "processes-import-whole-float32",
)
WORKLOADS = tuple(workload for workload in WORKLOADS if workload.name in _KEPT)
""",
}
"""What modules define last in the clone: a suite is one comparison of few samples, or four rows.

And what is timed is timed once, or nearly. The commits that `--compare` takes have no folders of
their own for kernels, as those of all other commands are theirs as well.
"""

AS_A_PROGRAM = 'if __name__ == "__main__":\n'
"""What follows this is run when all is defined."""

SHOWN = ("docs/data.md", "docs/exercises.md", "docs/sweeps.md")
"""Pages with output, whose lines have to come in this order, up to their numbers."""

PROGRAMS = {"python": "", "python3": "", "fastnn": "-m fastnn", "pytest": "-m pytest"}
"""What `.venv/bin` has."""

ELSEWHERE = ("asv", "cd", "dask", "git", "mutmut", "mypy", "ruff")
"""Programs that are no part of fastnn."""


# ------------------------------------------------------------------------------- what a page says

APART = re.compile(r"""\s*(&&)\s*(?=(?:[^"']|"[^"]*"|'[^']*')*$)""")
"""What parts a command from the next one of a line, outside of quotes."""


def blocks(page: str) -> list[list[str]]:
    """Return the lines of each block of shell without comments, those that go on joined.

    Of output it is the lines behind a prompt.
    """
    found = re.findall(r"^ *```(sh|text)\n(.*?)```", PAGES[page], re.S | re.M)
    prompt = re.compile(r"^\$ (.*)", re.M)
    texts = [of if kind == "sh" else "\n".join(prompt.findall(of)) for kind, of in found]
    lines = [re.sub(r"(^|\s)#.*", "", text.replace("\\\n", " "), flags=re.M) for text in texts]
    split = [[line.strip() for line in of.splitlines() if line.strip()] for of in lines]
    return [block for block in split if block]


def commands(page: str) -> list[str]:
    """Return the commands of a page."""
    lines = [line for block in blocks(page) for line in block]
    return [part for line in lines for part in APART.split(line)[::2]]


def unplaced(command: str) -> str:
    """Return a command without the folder of its program."""
    return re.sub(r"^((?:\w+=\S+ )*)\.venv[\w-]*/bin/", r"\1", command)


def bare(command: str) -> str:
    """Return a command without that folder, and without variables before it."""
    return re.sub(r"^(\w+=\S+ )*", "", unplaced(command))


def row(command: str) -> str | None:
    """Return the row of a table that a command belongs to, or None."""
    words = re.sub(r"(?<= )\d+(?= )", "#", f"{bare(command)} ")
    rows = [row for row in INSTEAD | BY_ANOTHER | LEFT_OUT if words.startswith(f"{row} ")]
    return max(rows, key=len, default=None)


def in_place_of(command: str) -> str | None:
    """Return what is run in place of a command, or None."""
    if (of := row(command)) in BY_ANOTHER | LEFT_OUT:
        return None
    return INSTEAD.get(of, "{}").format(command)


def programs(page: str) -> list[str]:
    """Return the program that stands for each block.

    A measurement or test that stood on this page or on one before it is not run again.
    """
    before = [name for name in WITH_COMMANDS if name < page]
    seen = {unplaced(command) for name in before for command in commands(name)}
    found = []
    for block in blocks(page):
        lines = []
        for line in block:
            parts = []
            for command in APART.split(line)[::2]:
                each_time = re.match(r"fastnn (?!bench)", bare(command))
                again = unplaced(command) in seen and not each_time
                runs = None if again else in_place_of(command)
                seen.add(unplaced(command))
                parts.append(runs or ":")
            lines.append(" && ".join(parts))
        found.append("\n".join(lines))
    return found


WITH_COMMANDS = [page for page in PAGES if blocks(page)]


# ------------------------------------------------------------------------------ where they are run


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True)


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    """A repository of what lies here, committed or not, with some commits and what is shortened."""
    folder = tmp_path_factory.mktemp("repository")
    for name in TOP:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "gallery", "_build")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder)
    for name, end in SHORTENED.items():
        text, *program = (folder / name).read_text().partition(AS_A_PROGRAM)
        (folder / name).write_text("".join([text, end.strip(), "\n\n\n", *program]))
    git(folder, "init", "--initial-branch=main")
    git(folder, "add", "--all")
    for number in range(12):
        git(folder, "commit", "--allow-empty", f"--message=commit {number}")
    return folder


@pytest.fixture
def clone(repository, tmp_path, monkeypatch):
    """A clone, in which commands are run, with `.venv/bin`."""
    folder = tmp_path / "fastnn"
    git(tmp_path, "clone", repository, folder)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, module in PROGRAMS.items():
        file = programs / name
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        file.chmod(0o755)
    for name in [name for name in os.environ if name.startswith(("PYTEST", "COV_"))]:
        monkeypatch.delenv(name)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "nobody")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "nobody@example.org")
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(cache.directory()))
    monkeypatch.setenv("MPLBACKEND", "agg")
    return folder


def pictures(folder: Path, small_data: Path) -> None:
    """Pictures of digits."""
    (folder / "photo.jpg").write_bytes(photo(drawn(3), np.random.default_rng(0)).read())
    (folder / "drawing.png").write_bytes(as_file(1 - drawn(7)).read())


def houses(folder: Path, small_data: Path) -> None:
    """A table of houses with as many rows and gaps as on the page, and images."""
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    area, rooms = rng.uniform(40, 200, 1500), rng.integers(1, 8, 1500)
    frame = pandas.DataFrame({
        "id": np.arange(1500),
        "city": rng.choice(["Bergen", "Oslo", "Rome"], 1500),
        "area": area,
        "rooms": rooms,
        "garden": rng.choice(["no", "yes"], 1500),
        "price": 3000 * area + 20_000 * rooms + 1000 * rng.normal(size=1500),
    })  # fmt: skip
    gaps = rng.permutation(1500)
    for column, first, last in (("price", 0, 5), ("city", 5, 53), ("area", 53, 125)):
        frame.loc[gaps[first:last], column] = None
    frame.to_csv(folder / "houses.csv", index=False)
    images(folder, small_data)


def images(folder: Path, small_data: Path) -> None:
    """A data set, in the folder that pages name and where a name finds it."""
    for name in ("downloads/fashion", "data/FashionMNIST/raw"):
        shutil.copytree(small_data, folder / name)


def solutions(folder: Path, small_data: Path) -> None:
    """The second exercise, in a file; and where its stub is, without what fills no vector."""
    rows = "def row_forward(X, W, b, A):\n    A[:, :{0}] = (X @ W + b)[:, :{0}]\n"
    with open(folder / "benchmarks/exercises/e2_row_kernel.py", "a") as stub:
        stub.write("\n\n" + rows.format("len(b) // 16 * 16 or len(b)"))
    (folder / "mine.py").write_text(rows.format("len(b)"))


FILES = {
    "README.md": pictures,
    "docs/data.md": houses,
    "docs/exercises.md": solutions,
}
"""What makes the files that a page takes for the reader's own."""


def shape(line: str) -> str:
    """Return a line of output without what differs from run to run.

    These are numbers, how a table is padded, whether a speed is reached, and which setting is best.
    """
    line = re.sub(r"is asked: .*", "is asked", line)
    line = re.sub(r" --(hidden|learning-rate)( [\d.]+)+", "", line)
    numbers = re.sub(r"-?\d[\d,.e-]*", "#", line)
    return " ".join(re.sub(r"-{3,}", "---", numbers).split())


@pytest.mark.skipif(sys.platform != "linux", reason="the pages are written for Linux's shell")
@pytest.mark.skipif(guards.CHECKED, reason="the checked build has other tests")
@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("git")), reason="they are needed")
@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_commands(page, clone, small_data):
    for library in ("numba", "matplotlib", "pandas", "PIL", "sklearn"):
        pytest.importorskip(library)
    if page in FILES:
        FILES[page](clone, small_data)
    said = []
    for program in programs(page):
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", program],
            cwd=clone, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, f"{program}\n\n{done.stdout[-3000:]}"
        said += map(shape, done.stdout.splitlines())
    if page in SHOWN:
        for written in clone.glob("answers.csv"):
            said += map(shape, written.read_text().splitlines())
        rest = iter(said)
        for text in re.findall(r"^```text\n(.*?)^```", PAGES[page], re.S | re.M):
            for line in filter(None, map(shape, text.splitlines())):
                assert line == "..." or line.startswith("$ ") or line in rest, (line, said)


@pytest.mark.parametrize(
    ("command", "runs"),
    [
        ("A=1 .venv/bin/fastnn info", "A=1 .venv/bin/fastnn info"),
        (".venv/bin/fastnn train", ".venv/bin/fastnn train --epochs 1"),
        ("python -m benchmarks.ladder 8 --assembly", None),
        ("python -m benchmarks.ladder.probes", "python -m benchmarks.ladder.probes"),
        ("A=1 .venv/bin/pytest tests/test_checks.py", None),
    ],
)
def test_the_longest_row_counts(command, runs):
    assert in_place_of(command) == runs


def test_tables_speak_of_commands_that_are_there():
    used = {row(command) for page in WITH_COMMANDS for command in commands(page)}
    assert used - {None} == INSTEAD.keys() | BY_ANOTHER.keys() | LEFT_OUT.keys()
    assert len(INSTEAD | BY_ANOTHER | LEFT_OUT) == len(INSTEAD) + len(BY_ANOTHER) + len(LEFT_OUT)
    for command, test in BY_ANOTHER.items():
        name = re.search(r"benchmarks\.\w+|kill_\w+|--compare", command)[0]
        assert name in (ROOT / "tests" / test).read_text()
    assert set(FILES) | set(SHOWN) <= set(WITH_COMMANDS)


# ----------------------------------------------------------------- what is seen without running


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_programs_options_files_and_extras_are_there(page):
    faults = {line: fault for line in commands(page) if (fault := fault_of(line))}
    assert not faults


@pytest.mark.parametrize(
    "line",
    [
        "fastnn train --hiden 100",
        "fastnn dance",
        "pip install '.[plots]'",
        "pip install --upgrade 'fastnn[plot]'",
        "pip install fastnn",
        "python -m benchmarks.lader",
        "pytest tests/test_absent.py",
        "frobnicate",
    ],
)
def test_wrong_commands_are_found(line):
    assert fault_of(line)


def fault_of(line: str) -> str | None:
    """Return what is wrong with a command, or None."""
    words = shlex.split(line)
    while re.fullmatch(r"\w+=.*", words[0]):
        del words[0]
    match Path(words[0]).name, words[1:]:
        case "fastnn", arguments:
            return refusal(arguments)
        case "pip", ["install", *wanted]:
            return absent_extra(wanted)
        case "python" | "python3", ["-m", "build" | "pip" | "sphinx" | "venv", *_]:
            return None
        case "python" | "python3", ["-m", module, *_]:
            return None if importlib.util.find_spec(module) else f"there is no module {module}"
        case "python" | "python3" | "pytest", arguments:
            files = [word.split("::")[0] for word in arguments if ".py" in word]
            absent = [name for name in files if not (ROOT / name).exists()]
            return f"there is no {absent[0]}" if absent else None
        case name, _:
            return None if name in ELSEWHERE else f"nobody knows {name}"


def refusal(arguments: list[str]) -> str | None:
    """Return what is wrong with the arguments of `fastnn`, or None."""
    if "<" in arguments:
        arguments = arguments[: arguments.index("<")]
    try:
        cli._parser().parse_args(arguments)
    except SystemExit as stop:
        return "it does not take these arguments" if stop.code else None
    return None


def absent_extra(wanted: list[str]) -> str | None:
    """Return what is wrong with what `pip` is asked for, or None."""
    if any(re.match("fastnn\\b", word) for word in wanted):
        return "on the index, fastnn is another project"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in wanted:
        if wished := re.fullmatch(r"\.\[(.+)\]", word):
            absent = set(wished[1].split(",")) - set(project["optional-dependencies"])
            if absent:
                return f"there is no extra {absent}"
    return None
