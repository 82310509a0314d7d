"""The list of planted bugs, which `planted_bugs.py` plants, one by one."""

from __future__ import annotations

import ast
import functools

import planted_bugs
import pytest
from conftest import ROOT

BUGS = planted_bugs.bugs()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_can_still_be_planted(bug):
    """The text has not been changed meanwhile, what stands there instead is Python."""
    text = (ROOT / bug.file).read_text("utf-8")
    planted = bug.planted(text)
    assert ast.dump(ast.parse(planted)) != ast.dump(ast.parse(text))
    for test in bug.tests:
        if test.startswith("tests/"):
            assert is_test(test), f"{bug.name}: there is no {test}"


def is_test(name: str) -> bool:
    """Say whether a name as pytest has it is that of a file, or of what is tested in it."""
    file, *names = name.partition("[")[0].split("::")
    if not (ROOT / file).is_file():
        return False
    inside: ast.AST = parsed(file)
    for of in names:
        named = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        found = [n for n in ast.walk(inside) if isinstance(n, named) and n.name == of]
        if not found:
            return False
        inside = found[0]
    return True


@functools.cache
def parsed(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text("utf-8"))


def test_a_test_that_is_not_there():
    here = "tests/test_planted_bugs.py"
    assert is_test(here)
    assert is_test(f"{here}::test_a_bug_can_still_be_planted[a name]")
    for name in (f"{here}::test_of_nothing", f"{here}::TestNothing::is_test", "tests/test_no.py"):
        assert not is_test(name)


def test_the_list_is_one_of_many_kinds():
    names = [bug.name for bug in BUGS]
    assert len(set(names)) == len(names) >= 36
    assert len({bug.file for bug in BUGS}) >= 30
