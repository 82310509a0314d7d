"""Every block of code in the README and the pages runs as it stands, or is a command that is there.

The Python of a page is one program: its blocks run one after another, in a folder of their own. A
block with `>>>` is compared with the output below it. Commands of the shell are not run, as many
take minutes; their programs, options, files and extras have to be there.
"""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from test_datasets import arrays, write_emnist  # noqa: F401

import fastnn
from fastnn import cli, extras

SOURCES = (*ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("docs/**/*.md"))
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in sorted(SOURCES)
    if "gallery" not in path.parts
}
NEEDED = {"README.md": "tqdm", "docs/data.md": "pandas", "docs/scikit-learn.md": "sklearn"}
"""A library without which the Python of a page can't run."""
APART = {"docs/interchange.md": "test_readme.py"}
"""Pages whose sections need a library each, and where they are run."""
ELSEWHERE = ("asv", "cd", "dask", "export", "git", "mutmut", "mypy", "pre-commit", "ruff")
"""Programs that are no part of fastnn."""
INSIDE = {"checked", "is_known", "rate_at"}
"""Names of public modules that are of use to fastnn alone."""


@pytest.fixture
def stage(tmp_path, monkeypatch, small_data, arrays):  # noqa: F811
    """A folder with the files that pages speak of as the reader's own, and what they call them."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_data, "data/FashionMNIST/raw")
    write_emnist(Path("downloads/gzip"), arrays, "letters", first_label=1)

    X, y, *_ = fastnn.load_dataset(path=small_data, flatten=True)
    np.save("X.npy", X)
    np.save("y.npy", y)
    Path("parts").mkdir()
    for part in range(3):
        np.savez(f"parts/{part}.npz", X=X[part::3], y=y[part::3])

    def frame():
        pandas = pytest.importorskip("pandas")
        rng = np.random.default_rng(0)
        areas = rng.uniform(40, 200, 100)
        table = {"area": areas, "city": rng.choice(["Oslo", "Rome"], 100), "price": 3000 * areas}
        return {"frame": pandas.DataFrame(table)}

    return {"docs/data.md": frame}


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in PAGES[page]])
def test_python(page, stage, monkeypatch):
    if page in APART:
        assert page in (ROOT / "tests" / APART[page]).read_text()
        return
    document = pytest.importorskip("sybil.document")
    markdown = pytest.importorskip("sybil.parsers.markdown")
    if page in NEEDED:
        pytest.importorskip(NEEDED[page])
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    parser = markdown.PythonCodeBlockParser(doctest_optionflags=flags)
    parsed = document.Document.parse(str(ROOT / page), parser)
    parsed.namespace |= stage[page]() if page in stage else {}
    examples = list(parsed.examples())
    blocks = re.findall(r"^( *)```python\n(.*?)^\1```", PAGES[page], re.S | re.M)
    assert len(examples) == sum(len(re.findall("^ *>>> ", code, re.M)) or 1 for _, code in blocks)
    for example in examples:
        example.evaluate()


@pytest.mark.parametrize("page", [page for page in PAGES if "```sh" in PAGES[page]])
def test_shell(page):
    faults = {line: fault for line in commands(PAGES[page]) if (fault := fault_of(line))}
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


APART_FROM = re.compile(r"""(?:&&|\|)(?=(?:[^"']|"[^"]*"|'[^']*')*$)""")
"""What parts a command from the next, outside of quotes."""


def commands(text: str) -> list[str]:
    """Return the commands in the blocks of shell, without comments."""
    found = []
    for block in re.findall(r"^ *```sh\n(.*?)```", text, re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            code = re.sub(r"(^|\s)#.*", "", line)
            found += [part for part in APART_FROM.split(code) if part.strip()]
    return found


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


def test_nothing_installs_the_fastnn_of_the_index():
    """Another project has the name there, so neither pages nor messages may say it to pip."""
    code = (path.read_text("utf-8") for path in (ROOT / "fastnn").rglob("*.py"))
    said = re.compile(r"pip install[^`&\n]*?\bfastnn\b(?!\.)|['\"`]fastnn\[")
    texts = [*PAGES.values(), *code]
    wrong = [found[0] for text in texts for found in said.finditer(text)]
    assert wrong == ["pip install fastnn"]  # of docs/releasing.md, which explains it


def test_messages_name_the_libraries_of_the_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for extra, libraries in extras.LIBRARIES.items():
        wanted = [word.split(">=")[0] for word in project["optional-dependencies"][extra]]
        assert libraries.split() == wanted


def test_all_is_every_extra_of_users_but_torch():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (everything,) = project["optional-dependencies"]["all"]
    assert re.fullmatch(rf"{project['name']}\[(.+)\]", everything)
    wanted = set(everything.partition("[")[2].rstrip("]").split(","))
    assert wanted == set(extras.LIBRARIES) - {"torch"}
    listed = re.search(r"an extra brings them.*", PAGES["README.md"])[0]
    assert set(re.findall(r"`(\w+)`", listed)) == set(extras.LIBRARIES)


def test_reference_has_every_public_name():
    listed = set(re.findall(r"^   (\w+)$", PAGES["docs/reference/index.md"], re.M))
    assert {
        name for name in fastnn.__all__ if not inspect.ismodule(getattr(fastnn, name))
    } <= listed
    for module in (fastnn.schedules, fastnn.initializers):
        public = {
            name
            for name, value in vars(module).items()
            if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
        }
        assert public - listed <= INSIDE
