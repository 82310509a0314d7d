"""Every block of Python in the README and the pages runs as it stands.

The Python of a page is one program: its blocks run one after another, in a folder of their own. A
block with `>>>` is compared with the output below it. `test_commands.py` runs blocks of shell.
"""

from __future__ import annotations

import doctest
import inspect
import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from test_datasets import arrays, write_emnist  # noqa: F401

import fastnn
from fastnn import extras

SOURCES = (*ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("docs/**/*.md"))
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in sorted(SOURCES)
    if "gallery" not in path.parts
}
NEEDED = {
    "README.md": ["tqdm"],
    "docs/data.md": ["pandas"],
    "docs/scikit-learn.md": ["sklearn"],
    "docs/sweeps.md": ["distributed", "sklearn"],
}
"""Libraries without which the Python of a page can't run."""
APART = {"docs/interchange.md": "test_readme.py"}
"""Pages whose sections need a library each, and where they are run."""
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


def test_code_is_python_shell_or_shown():
    """Python has no other name, by which it would not be run."""
    kinds = {kind for text in PAGES.values() for kind in re.findall(r"^ *```(\w+)$", text, re.M)}
    assert kinds == {"diff", "nasm", "python", "sh", "text"}


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in PAGES[page]])
def test_python(page, stage, monkeypatch):
    if page in APART:
        assert page in (ROOT / "tests" / APART[page]).read_text()
        return
    document = pytest.importorskip("sybil.document")
    markdown = pytest.importorskip("sybil.parsers.markdown")
    for library in NEEDED.get(page, ()):
        pytest.importorskip(library)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    parser = markdown.PythonCodeBlockParser(doctest_optionflags=flags)
    parsed = document.Document.parse(str(ROOT / page), parser)
    parsed.namespace |= stage[page]() if page in stage else {}
    examples = list(parsed.examples())
    blocks = re.findall(r"^( *)```python\n(.*?)^\1```", PAGES[page], re.S | re.M)
    assert len(examples) == sum(len(re.findall("^ *>>> ", code, re.M)) or 1 for _, code in blocks)
    for example in examples:
        example.evaluate()


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
