"""Backprop pages leave nothing out: all that fastnn computes is derived, shown and checked."""

from __future__ import annotations

import ast
import inspect
import re

import pytest
from conftest import ROOT

import fastnn
from fastnn import initializers, layers, loss_functions, losses, optimizers, schedules
from fastnn.backends import Backend, numpy_backend

FOLDER = ROOT / "docs" / "backprop"
PAGES = sorted(FOLDER.glob("*.md"))
TEXT = "\n".join(page.read_text() for page in PAGES)

INCLUDED = re.compile(r"```\{literalinclude\} (\S+)\n:pyobject: (\S+)\n(?::dedent:\n)?```")
PYTHON = re.compile(r"```python\n(.*?)```", re.S)

KINDS = [
    kind
    for registry in (layers.BUILT_IN, losses.BUILT_IN, optimizers.BUILT_IN, schedules.BUILT_IN)
    for kind in registry
]

WITHOUT_MATHEMATICS = {"prepare", "by_rows"}
"""Operations of a backend that compute nothing."""


def section(heading: str) -> str:
    """Return what stands under the one heading of that name, its own headings included."""
    fenced = re.compile(r"```.*?```", re.S)
    # comments of code begin as headings do
    plain = fenced.sub(lambda block: block[0].replace("\n#", "\n "), TEXT)
    found = list(re.finditer(rf"^(##+) {re.escape(heading)}$", plain, re.M))
    assert len(found) == 1, f"{heading}: expected one heading in docs/backprop, got {len(found)}"
    level, start = len(found[0][1]), found[0].end()
    following = re.search(rf"^#{{1,{level}}} ", plain[start:], re.M)
    return TEXT[start : start + following.start()] if following else TEXT[start:]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_has_a_derivation_its_code_and_a_check(kind):
    name = kind.__name__
    text = section(f"`{name}`")
    assert re.search(r"\$[^$]+\$", text), f"{name}: no formula"
    assert INCLUDED.search(text), f"{name}: no code"
    checks = [block for block in PYTHON.findall(text) if re.search(rf"\b{name}\(", block)]
    assert any(re.search(r"^\s*assert |^\s*check\(", block, re.M) for block in checks), (
        f"{name}: no check that makes one"
    )


def test_all_operations_are_shown():
    shown = {name for path, name in INCLUDED.findall(TEXT) if path.endswith("numpy_backend.py")}
    operations = {name for name, _ in inspect.getmembers(Backend, inspect.isfunction)}
    operations = {name for name in operations if not name.startswith("_")} - WITHOUT_MATHEMATICS
    assert len(operations) > 20
    operations |= {
        function.__name__ for pair in numpy_backend.ELEMENTWISE.values() for function in pair
    }
    assert operations <= shown


def test_all_functions_of_losses_are_called():
    code = "\n".join(PYTHON.findall((FOLDER / "losses.md").read_text()))
    functions = {name for name in fastnn.__all__ if hasattr(loss_functions, name)}
    assert len(functions) > 5
    assert {name for name in functions if f"fastnn.{name}(" not in code} == set()


def test_all_initialisers_are_named():
    text = section("How weights begin")
    assert all(
        f"`{name}" in text or f":pyobject: {name}\n" in text for name in initializers._BY_NAME
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_that_is_included_exists(page):
    text = page.read_text()
    found = INCLUDED.findall(text)
    assert len(found) == text.count("{literalinclude}")
    for path, name in found:
        nodes = [ast.parse((FOLDER / path).read_text())]
        for part in name.split("."):
            nodes = [node for node in nodes[0].body if getattr(node, "name", None) == part]
            assert nodes, f"{name} is not in {path}"
