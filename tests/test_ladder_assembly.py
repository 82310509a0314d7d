"""The instructions of the ladder's inner loops: found, counted, and as the pages state them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from fastnn import guards

pytest.importorskip("numba")
if guards.CHECKED:
    pytest.skip("loops of the checked build are others", allow_module_level=True)

from fastnn.backends.numba_backend.machine import VECTOR_BYTES, is_x86
from fastnn.memory import aligned_zeros
from fastnn.processors import cores

if not is_x86():
    pytest.skip("instructions of x86 are counted", allow_module_level=True)

sys.path.insert(0, str(ROOT))  # benchmarks are not in the package

from benchmarks.ladder import __main__, assembly, probes

CPU = "znver5"
"""For which the pages' loops are compiled: that of their table of times."""
PAGES = sorted((ROOT / "docs" / "ladder").glob("[01][0-9]-*.md"))


ENVIRONMENT = {**__main__.ONE_THREAD, "NUMBA_CPU_NAME": CPU, "NUMBA_CPU_FEATURES": ""}
"""In which the command starts itself anew for that processor."""

ALL = """
import contextlib, io, json, sys
from benchmarks.ladder.__main__ import main
from benchmarks.ladder.assembly import FIRST, LAST
told = {}
for number in range(FIRST, LAST + 1):
    sys.argv[1:] = str(number), "--assembly"
    with contextlib.redirect_stdout(io.StringIO()) as told[number]:
        assert main() == 0
print(json.dumps({number: text.getvalue() for number, text in told.items()}))
"""


@pytest.fixture(scope="module")
def told(made_once):
    """What the command tells of each rung, all of them compiled by one process."""
    found = json.loads(made_once("assembly of rungs", compiled))
    return {int(number): text for number, text in found.items()}


def compiled() -> str:
    """Return what the command prints, in the environment that it would start itself in."""
    done = subprocess.run(
        [sys.executable, "-c", ALL], text=True, capture_output=True, cwd=ROOT,
        env=os.environ | ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_for_another_processor_it_starts_itself_anew(monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "call", lambda *call, env: started.append((*call, env)) or 7)
    monkeypatch.setattr(sys, "argv", ["ladder", "9", "--assembly", "--cpu", CPU])
    assert __main__.main() == 7
    [(command, environment)] = started
    module = [sys.executable, "-m", "benchmarks.ladder"]
    assert command == [*module, "9", "--assembly", "--cpu", CPU]
    assert ENVIRONMENT.items() <= environment.items()


def cells(text: str) -> list[list[str]]:
    """Return the lines of Markdown tables."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()
            if line.startswith("|")]  # fmt: skip


def instructions(text: str) -> list[str]:
    """Return instructions and labels without comments."""
    lines = (" ".join(line.partition(";")[0].split()) for line in text.splitlines())
    return [line for line in lines if line]


NESTED = """
f:
\t.cfi_startproc
# %bb.0:                                # %entry
\tpush\trbx
.LBB0_1:                                # %outer
                                        # =>This Loop Header: Depth=1
                                        #     Child Loop BB0_2 Depth 2
\txor\teax, eax
\t.p2align\t4
.LBB0_2:                                # %inner
                                        #   Parent Loop BB0_1 Depth=1
                                        # =>  This Inner Loop Header: Depth=2
\tvbroadcastss\tzmm3, dword ptr [rdi + 4*rax]
\tvfmadd231ps\tzmm0, zmm3, zmmword ptr [rsi] # zmm0 = (zmm3 * mem) + zmm0
\tvfmadd231ps\tzmm1, zmm4, dword ptr [rsi]{1to16}
\tvmulss\txmm5, xmm5, dword ptr [rdx]
\tvaddss\txmm6, xmm6, xmm5
\tprefetcht0\tbyte ptr [rsi + 64]
\tlea\trsi, [rsi + 64]
\ttest\trcx, rcx
\tje\t.LBB0_4
# %bb.3:                                #   in Loop: Header=BB0_2 Depth=2
\tvmovaps\tzmmword ptr [r8], zmm0
\tinc\tqword ptr [r9]
.LBB0_4:                                #   in Loop: Header=BB0_2 Depth=2
\tinc\trax
\tcmp\trax, qword ptr [r10]
\tjne\t.LBB0_2
\tjmp\t.LBB0_5
.LBB0_5:                                #   in Loop: Header=BB0_1 Depth=1
\tdec\trbx
\tjne\t.LBB0_1
# %bb.6:
\tret
\t.cfi_endproc
"""


def test_a_loop_is_found_and_counted():
    (loop,) = assembly.inner_loops(NESTED)
    labels = [line for line in loop.lines if line.endswith(":")]
    assert labels == ["BB0_2:", "bb.3:", "BB0_4:"]
    assert len(loop.instructions) == 14  # without the way out
    assert loop.products == 3
    assert loop.numbers == 16 + 16 + 1
    assert loop.loads == 6  # three floats and the multiplication's, a count, and a bound
    assert loop.broadcasts == 2
    assert loop.stores == 2
    assert loop.other_float == 1
    assert loop.jumps == 2
    assert loop.integer == 5  # lea, test, inc, inc, cmp


def test_kernels_have_a_loop_for_each_width_of_the_network(told):
    """With vectors of 512 bits rows are 7, 13 and 1 of them."""
    found = {
        (name.split()[0], products, broadcasts)
        for name, _, products, _, broadcasts, *_ in cells(told[9]) + cells(told[10])
    }
    assert found >= {
        ("gather", "7 x 16", "1"), ("gather", "13 x 16", "1"), ("gather", "1 x 16", "1"),
        ("gather", "14 x 16", "2"), ("backward_by_unit", "26 x 16", "1"),
        ("backward_by_unit", "2 x 16", "1"), ("load_nonzeros", "4 x 16", "0"),
        ("matmul", "24 x 16", "8"), ("matmul", "8 x 16", "8"),
        ("backward_from_few", "20 x 16", "10"),
    }  # fmt: skip


def test_what_is_not_compiled_is_refused():
    with pytest.raises(ValueError, match="5 to 12, got 4"):
        assembly.report(4)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_shows_what_the_tool_finds(page, told):
    """The lines of its table, and the instructions of its excerpts, in their order."""
    text = page.read_text()
    stated = re.search(r"^LLVM [\d.]+ for .*$", text, re.MULTILINE)
    if stated is None:
        pytest.skip("it shows no assembly")
    output = told[int(page.name[:2])]
    if not output.startswith(stated[0]):
        pytest.skip(f"the page is of {stated[0]}, this is {output.splitlines()[0]}")
    head, *lines = cells(text[stated.end() :])
    assert head == assembly.HEAD
    if page.name.startswith("10"):  # it has the kernels of the rung below as well
        output += "\n" + told[9]
    found = cells(output)
    wanted = [line for line in lines if len(line) == len(head)]
    assert len(wanted) > 1
    assert [line for line in wanted if line not in found and not set(line[0]) <= {"-"}] == []

    excerpts = re.findall(r"^```nasm\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert excerpts
    loops = [instructions(part) for part in output.split("\n\n")]
    for excerpt in map(instructions, excerpts):
        assert any(_in_order(excerpt, loop) for loop in loops), excerpt


def _in_order(some: list[str], all_: list[str]) -> bool:
    rest = iter(all_)
    return all(line in rest for line in some)


# ------------------------------------------------------------------------------------- probes


def test_probes_do_what_they_say():
    room = np.zeros(64 + 16, np.float32)
    start = -room.ctypes.data % 64 // 4
    place, lanes = room[start:], VECTOR_BYTES // 4

    def called(name, turns):
        probes.PROBES[name].entry(room.dtype)(0.0, place.ctypes.data, turns)

    for name, sum_of in (("additions", 3), ("multiply_adds", 9)):
        place[:lanes] = 3
        called(name, 5)
        np.testing.assert_array_equal(place[:lanes], 5 * sum_of)
    place[:lanes] = 3
    called("through_memory", 5)
    np.testing.assert_array_equal(place[:lanes], 3 + 5 * 9)
    words = place[: len(place) // 2 * 2].view(np.int64)
    words[:4] = 7, 1, 0, 1
    called("branches", 4)
    assert words[0] == 3
    called("branches", 3)
    assert words[0] == 1


@pytest.mark.parametrize(
    ("name", "kept", "apart", "count"),
    [
        ("stores", VECTOR_BYTES, VECTOR_BYTES, 1),
        ("apart_stores", VECTOR_BYTES, 3 * 64, 1),
        ("half_stores", VECTOR_BYTES // 2, VECTOR_BYTES // 2, 1),
        ("streamed_changes", 0, VECTOR_BYTES, 3),
    ],
)
def test_probes_write_what_they_say(name, kept, apart, count):
    """BLOCK pieces in a turn, so far apart; streamed ones go on where the turn before ended."""
    place = aligned_zeros(2048, np.dtype(np.float32))
    place[: kept // 4] = 7
    probes.PROBES[name].entry(place.dtype)(0.0, place.ctypes.data, count)
    written = np.zeros_like(place)
    for i in range(probes.BLOCK * count):
        size = kept or VECTOR_BYTES
        written[i * apart // 4 : (i * apart + size) // 4] = 7 if kept else 1
    np.testing.assert_array_equal(place, written)


@pytest.mark.skipif(len(cores()) < 2, reason="two cores talk")
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads can't be placed")
def test_two_cores_change_a_message_by_turns(monkeypatch):
    made = []

    def zeros(size, dtype):
        made.append(aligned_zeros(size, dtype))
        return made[-1]

    monkeypatch.setattr(probes, "aligned_zeros", zeros)
    monkeypatch.setattr(probes, "TURNS", 5 * 64)
    monkeypatch.setattr(probes, "REPEATS", 2)
    before = os.sched_getaffinity(0)
    assert probes.exchange(3) > 0
    assert os.sched_getaffinity(0) == before
    message = made[0][3 * probes.PLACE_BYTES // 4 :].reshape(3, -1)
    # five turns, one before them that isn't timed, and both sides add one in each
    np.testing.assert_array_equal(message[:, : VECTOR_BYTES // 4], 2 * (5 + 1))
    assert not message[:, VECTOR_BYTES // 4 :].any()


def test_probes_are_reported(monkeypatch):
    for name, value in {"TURNS": 64, "REPEATS": 1}.items():
        monkeypatch.setattr(probes, name, value)
    rows = cells(probes.report())
    assert len(rows) == (2 + 17) + (2 + 2) * (hasattr(os, "sched_setaffinity") and len(cores()) > 1)
    # with so few turns a difference may be below zero
    assert all(re.fullmatch(r"-?[\d.]+|ns|-+:?", row[1]) for row in rows[2:])
