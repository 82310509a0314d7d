"""What `fastnn bench --suite costs` makes of the times and bytes that its programs say."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastnn.bench import costs

IMPORTS = {costs._IMPORT.format(module=name): name for name in ("fastnn", "numpy")}
PROGRAMS = IMPORTS | {
    costs._NETWORK + costs._FIRST: "first",
    costs._NETWORK + costs._ANOTHER_SHAPE: "another shape",
    costs._NETWORK + costs._VALIDATION: "validation",
    costs._NETWORK + costs._TRAINING + costs._PEAK_MEMORY: "training",
    costs._PEAK_MEMORY: "memory",
}


class Programs:
    """Stands for `run_program`: says what it is told to say, and notes what it was asked."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, int, bool]] = []
        """Program, threads, and whether there were kernels in its cache."""
        self.failing = ""

    def __call__(self, program, *arguments, threads=1, cache=None):
        name = PROGRAMS[program]
        kernels = Path(cache, f"kernels of {threads}") if cache else None
        self.ran.append((name, threads, bool(kernels) and kernels.exists()))
        if name == self.failing:
            raise RuntimeError("AssertionError: 1, not 2")
        if kernels:
            kernels.write_text("")
        if name == "another shape":
            for function in "ab":
                Path(cache, function).write_text("")
        said = {
            "fastnn": 0.5 + 0.25 * self.rounds("fastnn"),
            "numpy": 0.25,
            "first": {"fit": 4.0 * threads, "few": 0.5, "many": 0.25, "first step": 3.0},
            "another shape": None,
            "validation": [[1.0, 2.0], [1.5, 4.0], [0.25, 0.5]],
            "training": 400_000_000,
            "memory": 45_120_000,
        }
        return said[name]

    def rounds(self, name: str) -> int:
        return sum(of == name for of, *_ in self.ran)


@pytest.fixture
def programs(monkeypatch):
    stands = Programs()
    monkeypatch.setattr(costs, "run_program", stands)
    monkeypatch.setattr(costs, "usable", lambda: 2)
    return stands


def test_what_each_cost_is(programs):
    said = []
    found = {cost.name: (cost.unit, cost.values) for cost in costs.measure_costs(2, said.append)}
    assert found == {
        "`import fastnn` over `import numpy`": ("ms", (500.0, 750.0)),
        "first fit, nothing cached, on one core": ("s", (4.0, 4.0)),
        "first predict after it, 32 rows, in addition": ("s", (0.5, 0.5)),
        "first predict of 1,024 rows, in addition": ("s", (0.25, 0.25)),
        "first fit, nothing cached, two threads": ("s", (8.0, 8.0)),
        "first step of a later process over `import numpy`": ("s", (2.75, 2.75)),
        "functions compiled for a shape never seen": ("", (2,)),
        "validation after an epoch over `predict` of its samples": ("x", (2.0, 4.0)),
        # 400 MB without 45.12 of NumPy and 54.88 of pixels
        "peak memory of training over `import numpy` and the raw pixels": ("MB", (300.0,)),
    }
    assert len(said) == 6


def test_what_is_cached_and_what_is_not(programs):
    """Later processes, and those whose memory counts, find what an earlier one has compiled."""
    list(costs.measure_costs(5))
    firsts = [(threads, cached) for name, threads, cached in programs.ran if name == "first"]
    cold = costs.COLD_ROUNDS
    assert firsts[:cold] == [(1, False)] * cold
    assert firsts[cold : 2 * cold] == [(2, False)] * cold
    assert firsts[2 * cold :] == [(1, False), *[(1, True)] * 5]
    for name in ("another shape", "validation", "training"):
        assert all(cached for of, _, cached in programs.ran if of == name), name
    assert programs.rounds("training") == 2


def test_a_cost_that_fails_is_reported_and_the_others_go_on(programs):
    programs.failing = "validation"
    found = list(costs.measure_costs(1))
    assert [(cost.name, cost.error) for cost in found if not cost.values] == [
        ("validation", "AssertionError: 1, not 2")
    ]
    assert len(found) == 9


def test_one_processor_has_no_team(programs, monkeypatch):
    monkeypatch.setattr(costs, "usable", lambda: 1)
    assert "first fit, nothing cached, two threads" not in [
        of.name for of in costs.measure_costs(1)
    ]
    assert {threads for _, threads, _ in programs.ran} == {1}
