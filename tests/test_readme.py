"""The Python in the README, and in pages that lead from and to other code, runs as it stands."""

from __future__ import annotations

import builtins
import re
import warnings

import pytest
from conftest import ROOT

import fastnn


def blocks(page: str) -> list[str]:
    return blocks_of((ROOT / page).read_text())


def blocks_of(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.S)


def sections(page: str) -> list[str]:
    """Return the text before the first heading of the second level, and that from each one on."""
    return re.split(r"^## ", (ROOT / page).read_text(), flags=re.M)


def test_readme(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tqdm")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks("README.md"):
        exec(block, names)
    assert len(blocks("README.md")) >= 2
    validation, test = map(float, capsys.readouterr().out.split())
    assert min(validation, test) > 0.95
    network = names["fastnn"].Network([names["fastnn"].Dense(784, 10), names["Sine"]()])
    network.fit(names["X_val"][:100], names["y_val"][:100])


def test_both_forms_of_the_notebooks(capsys):
    xor, digits = blocks("docs/from-the-notebooks.md")
    names: dict = {}
    exec(xor, names)
    assert names["history"].loss[-1] < 0.001
    capsys.readouterr()
    exec(digits, names)
    assert float(capsys.readouterr().out) > 0.9


@pytest.mark.parametrize(
    ("heading", "library"),
    [
        ("ONNX", "onnxruntime"),
        ("PyTorch", "torch"),
        ("scikit-learn", "sklearn"),
        ("skops", "skops"),
    ],
)
def test_from_and_to_other_libraries(heading, library, digits, tmp_path, monkeypatch, capsys):
    pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    # with less to train on
    monkeypatch.setattr(fastnn, "load_dataset", lambda flatten: (*digits, *digits[2:]))
    names: dict = {}
    section = next(of for of in sections("docs/interchange.md") if of.startswith(heading))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Stochastic Optimizer: Maximum iterations")
        for block in (*blocks_of(sections("docs/interchange.md")[0]), *blocks_of(section)):
            exec(block, names)
    accuracies = [float(word) for word in capsys.readouterr().out.split()]
    assert all(accuracy > 0.6 for accuracy in accuracies)
    if heading == "scikit-learn":
        before, ours, after = accuracies
        assert before != ours == pytest.approx(after, abs=0.003)


def test_scikit_learn_page(capsys):
    pytest.importorskip("sklearn")
    names: dict = {}
    for block in blocks("docs/scikit-learn.md"):
        exec(block, names)
    assert min(map(float, capsys.readouterr().out.split())) > 0.95


def test_names_that_the_notebooks_are_led_to():
    page = (ROOT / "docs" / "from-the-notebooks.md").read_text()
    rows = re.findall(r"^\| ([\d, ]+) \| (.+) \| (.+) \|$", page.split("## Mended")[0], re.M)
    assert {number for row in rows for number in row[0].split(", ")} == {"1", "2", "3", "4"}
    homes = (fastnn, fastnn.Network, fastnn.Dense, fastnn.initializers, builtins, list)
    for _, theirs, ours in rows:
        spans = re.findall(r"`([^`]+)`", theirs if ours.startswith("the same") else ours)
        for name in re.findall(r"\b([A-Za-z_]\w*)\(", " ".join(spans)):
            assert any(hasattr(home, name) for home in homes), name


@pytest.mark.parametrize("page", ["docs/trust.md"])
def test_tests_that_pages_name_are_there(page):
    """`file.py::Class::test`, or `::test` for one in the file that was named before."""
    found = re.findall(
        r"`(?:tests/)?(\w+\.(?:py|toml))?((?:::\w+)*)[^`\n]*`", (ROOT / page).read_text()
    )
    file, checked = "", 0
    for name, path in found:
        if not name and not path:
            continue
        file = name or file
        if not path or not file.startswith("test_"):
            continue
        text = (ROOT / "tests" / file).read_text()
        for part in path.split("::")[1:]:
            assert re.search(rf"(def|class) {part}\b", text), f"{file}{path}"
        checked += 1
    assert checked >= 40
