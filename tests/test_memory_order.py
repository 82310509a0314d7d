"""How the members of a team meet, on a machine that orders memory as little as it may.

The meetings are those of `epoch/meetings.py`, `sharing.py` and `run_batches` in `epoch/step.py`,
written down once more in a few instructions: this holds their design, and `test_ports.py` that the
machine code has the loads and stores that the design asks for. All ways in which they may run are
gone through, with few steps and members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

END = -1


class RaceError(Exception):
    """Plain memory that one thread writes and another one reads or writes, unordered."""


class Program(list):
    """Instructions of a thread; variables are a dict."""

    def load(self, signal: str, variable: str) -> None:
        self.append(("load", signal, variable))

    def store(self, signal: str, value: Callable[[dict], int]) -> None:
        self.append(("store", signal, value))

    def read(self, *places: str) -> None:
        self.extend(("read", place) for place in places)

    def write(self, *places: str) -> None:
        self.extend(("write", place) for place in places)

    def do(self, **values: Callable[[dict], int]) -> None:
        self.append(("do", values))

    def go(self, label: str, condition: Callable[[dict], bool] = lambda v: True) -> None:
        self.append(("go", label, condition))

    def label(self, name: str) -> None:
        self.append(("label", name))

    def wait(self, signal: str, until: Callable[[dict], bool], name: str) -> None:
        self.label(name)
        self.load(signal, "seen")
        self.go(name, lambda v: not until(v))


def team(members: int, steps: int, partings: set[int], without: str = "") -> list[Program]:
    """Return what each member does in so many steps; they part after some, where they share them.

    `without` leaves something out.
    """
    others = [[m for m in range(members) if m != member] for member in range(members)]
    programs = []
    for member in range(members):
        p = Program()

        def arrive(p: Program = p, member: int = member) -> None:
            p.do(meeting=lambda v: v["meeting"] + 1)
            p.store(f"arrived {member}", lambda v: v["meeting"])

        def wait(p: Program = p, member: int = member) -> None:
            for other in others[member]:
                p.wait(f"arrived {other}", lambda v: v["seen"] >= v["meeting"], f"wait {len(p)}")

        p.do(meeting=lambda v: 0, step=lambda v: 1, called=lambda v: 0)
        p.label("alone")
        if member == 0:
            p.go("end", lambda v: v["step"] > steps)
            for other in others[0]:
                p.load(f"ready {other}", "ready")
                p.go("take it alone", lambda v: v["ready"] == 0)
            for other in others[0]:
                p.store(f"ready {other}", lambda v: 0)
            p.store("called", lambda v: v["step"])
            p.go("together")
            p.label("take it alone")
            p.read(*[f"weights {m}" for m in range(members)])
            p.write(*[f"weights {m}" for m in range(members)])
            p.do(step=lambda v: v["step"] + 1)
            p.go("alone")
        else:
            p.store(f"ready {member}", lambda v: 1)
            p.wait("called", lambda v: v["seen"] != v["called"], "wait for call")
            p.do(called=lambda v: v["seen"], step=lambda v: v["seen"])
            p.go("end", lambda v: v["called"] == END)
        p.label("together")
        p.read(f"weights {member}")
        p.write(*[f"box {owner} {member}" for owner in others[member]])
        arrive()
        if without != "the forward meeting":
            wait()
        p.read(*[f"box {member} {other}" for other in others[member]])
        p.write(*[f"box {member} {other}" for other in others[member]])
        if member == 0:
            p.go("together still", lambda v: v["step"] not in partings)
            p.store("parting", lambda v: v["step"])
            p.label("together still")
        arrive()
        p.write(f"weights {member}")
        if without != "the backward meeting":
            wait()
        p.read(*[f"box {owner} {member}" for owner in others[member]])
        p.load("parting", "parting")
        p.go("on", lambda v: v["parting"] != v["step"])
        arrive()
        if without != "the last meeting":
            wait()
        p.do(step=lambda v: v["step"] + 1)
        p.go("end" if member else "alone", lambda v: v["step"] > steps)
        p.go("alone")
        p.label("on")
        p.do(step=lambda v: v["step"] + 1)
        p.go("together", lambda v: v["step"] <= steps)
        p.label("end")
        if member == 0:
            p.store("called", lambda v: END)
        programs.append(p)
    return programs


def run(programs: list[Program], acquire: bool = True, release: bool = True) -> int:
    """Go through every state once; return how many there are.

    A signal is the list of what was stored to it, each with the view of who stored it: how much of
    every other list that one had seen. A load may find any number that is not older than what this
    thread has seen; if it acquires, and the store released, the view comes with it. These are the
    views of J. Kang et al., "A promising semantics for relaxed-memory concurrency", POPL 2017, of
    which promises are left out, as a store that releases comes after the loads before it. Plain
    memory is a list as well, and so is who has read it: to read, all writes must have been seen;
    to write, all reads too.

    Raises
    ------
    RaceError
        If that is not so.
    AssertionError
        If there is a state from which they don't get to the end.
    """
    labels = [
        {word[1]: place for place, word in enumerate(program) if word[0] == "label"}
        for program in programs
    ]

    def taken(state: Any, thread: int) -> Iterator[tuple[Any, dict]]:
        """Yield what may be after the next instruction of a thread."""
        threads, lists = state
        for new, changed in following(
            threads[thread], lists, programs[thread], labels[thread], thread, len(programs),
            acquire, release,
        ):  # fmt: skip
            yield (*threads[:thread], new, *threads[thread + 1 :]), changed

    def next_of(state: Any, thread: int) -> str:
        """Return what a thread does next."""
        place, program = state[0][thread][0], programs[thread]
        return program[place][0] if place < len(program) else "nothing"

    def settled(state: tuple[Any, dict]) -> Any:
        """Take what touches no signal: it commutes with all that others do, unless it races."""
        for thread in range(len(programs)):
            while next_of(state, thread) not in ("load", "store", "nothing"):
                (state,) = taken(state, thread)
        threads, lists = state
        return threads, tuple(sorted(lists.items()))

    nothing: tuple[Any, ...] = ()
    start = settled((tuple((0, nothing, nothing) for _ in programs), {}))
    before: dict[Any, list[Any]] = {start: []}
    waiting, ends = [start], []
    while waiting:
        state = waiting.pop()
        running = [t for t in range(len(programs)) if next_of(state, t) != "nothing"]
        if not running:
            ends.append(state)
        for thread in running:
            for changed in taken((state[0], dict(state[1])), thread):
                then = settled(changed)
                if then not in before:
                    before[then] = []
                    waiting.append(then)
                before[then].append(state)
    reached, waiting = set(ends), list(ends)
    while waiting:
        for state in before[waiting.pop()]:
            if state not in reached:
                reached.add(state)
                waiting.append(state)
    assert reached == set(before), "they may wait for ever"
    return len(before)


FIRST = ((0, ()),)


def following(
    thread: Any, lists: dict, program: Program, labels: dict, number: int, threads: int,
    acquire: bool, release: bool,
):  # fmt: skip
    """Yield what a thread and the lists may be after its next instruction."""
    place, variables, view = thread[0], dict(thread[1]), dict(thread[2])

    def after(place, variables=variables, view=view, lists=lists):
        return (place, tuple(sorted(variables.items())), tuple(sorted(view.items()))), lists

    def seen(name):
        return view.get(name, 0) == len(lists.get(name, FIRST)) - 1

    def append(name, value, released):
        view[name] = len(lists.get(name, FIRST))
        with_it = tuple(sorted(view.items())) if released else ()
        return lists | {name: (*lists.get(name, FIRST), (value, with_it))}

    kind, *operands = program[place]
    if kind == "label":
        yield after(place + 1)
    elif kind == "do":
        values = {name: value(variables) for name, value in operands[0].items()}
        yield after(place + 1, variables | values)
    elif kind == "go":
        yield after(labels[operands[0]] if operands[1](variables) else place + 1)
    elif kind == "load":
        name, variable = operands
        for index, (value, with_it) in enumerate(lists.get(name, FIRST)):
            if index >= view.get(name, 0):
                new = dict(view)
                for other, known in with_it if acquire else ():
                    new[other] = max(new.get(other, 0), known)
                new[name] = max(new.get(name, 0), index)
                yield after(place + 1, variables | {variable: value}, new)
    elif kind == "store":
        name, value = operands
        if not seen(name):  # else there would be two orders of what was stored
            raise RaceError(name)
        yield after(place + 1, lists=append(name, value(variables), release))
    elif kind == "read":
        if not seen(operands[0]):
            raise RaceError(operands[0])
        yield after(place + 1, lists=append(f"{operands[0]}, read by {number}", 0, False))
    else:
        readers = [f"{operands[0]}, read by {reader}" for reader in range(threads)]
        if not all(map(seen, [operands[0], *readers])):
            raise RaceError(operands[0])
        yield after(place + 1, lists=append(operands[0], 0, False))


@pytest.mark.parametrize(
    ("members", "steps", "partings"),
    [(2, 2, set()), (2, 2, {1}), (2, 2, {1, 2}), (2, 3, {1}), (3, 1, set())],
)
def test_no_race_and_no_end_of_waiting(members, steps, partings):
    assert run(team(members, steps, partings)) > 100


@pytest.mark.parametrize("order", ["acquire", "release"])
def test_plain_signals_would_not_do(order):
    """As on x86 they would: there a load acquires, and a store releases, whatever it is called."""
    with pytest.raises(RaceError):
        run(team(2, 2, {1}), **{order: False})


@pytest.mark.parametrize(
    "without", ["the forward meeting", "the backward meeting", "the last meeting"]
)
def test_every_meeting_is_needed(without):
    with pytest.raises(RaceError):
        run(team(2, 2, {1}, without))
