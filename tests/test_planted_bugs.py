"""The list of planted bugs, which `planted_bugs.py` plants, one by one."""

from __future__ import annotations

import ast

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
        file = test.partition("::")[0]
        assert not file.startswith("tests/") or (ROOT / file).exists()


def test_the_list_is_one_of_many_kinds():
    names = [bug.name for bug in BUGS]
    assert len(set(names)) == len(names) >= 36
    assert len({bug.file for bug in BUGS}) >= 30
