"""The guide's figures: all are there and drawn by one command, from what was counted or kept."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from fastnn import activations, guards

pytest.importorskip("numba")
pytest.importorskip("matplotlib")
if guards.CHECKED:
    pytest.skip("figures have nothing to do with memory", allow_module_level=True)

sys.path.insert(0, str(ROOT))  # benchmarks are not in the package

from benchmarks.figures import (
    FOLDER,
    LADDER,
    NAMES,
    __main__,
    anatomy,
    bits,
    data_way,
    descent,
    latency,
    tile,
)
from benchmarks.ladder import results, rungs, table
from fastnn.bench.figures import Spread

DOCS = ROOT / "docs"
TEXT = re.compile(r"<!-- (.+) -->")
"""What stands in a picture whose letters are drawn."""


def texts(path) -> set[str]:
    """Return what a picture says, without the numbers along its axes."""
    found = TEXT.findall(path.read_text("utf-8"))
    return {text for text in found if text[0] != "$" and not text.replace(".", "").isdigit()}


def test_the_command_draws_all_that_pages_show(tmp_path):
    command = [sys.executable, "-m", "benchmarks.figures", "--folder", tmp_path]
    done = subprocess.run(command, text=True, capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in tmp_path.iterdir()} == set(NAMES)
    assert {path.stem for path in FOLDER.glob("*.svg")} == set(NAMES)
    elementwise = [type(make()) for make in activations.BY_NAME.values()]
    expected = {
        "ladder": {f"{rung.number} {rung.name}" for rung in rungs()},
        "roofline": {"memory", "L1", "multiply-adds, one core"},
        "data-way": {f"{i} {of.name}" for i, of in enumerate(data_way.passes(), 1)},
        "anatomy": {"784-100 forward", "100-200 backward", "784-100 update"},
        "latency": {"One sum: 4 multiply-adds", "8 sums: 32 multiply-adds"},
        "bits": {"28 × 28 pixels", "by sample", "by pixel"},
        "tile": {"+ a8 b3", "24 sums stay in registers", "vectors of a tile"},
        "backprop": {"Dense 784-100", "gradient of weights: 784 × 100", "32 × 784", "ReLU"},
        "differences": {"both sides, float32", "one side, float64", "both sides, float64"},
        "activations": {"function", "derivative", *(kind.__name__ for kind in elementwise)},
        "descent": {f"{name}: loss" for name in descent.OPTIMIZERS},
    }  # fmt: skip
    for name, said in expected.items():
        drawn = texts(tmp_path / f"{name}.svg")
        assert drawn == texts(FOLDER / f"{name}.svg"), f"draw {name} anew"
        assert all(any(text in of for of in drawn) for text in said), name


def test_pages_show_what_is_there_and_leave_nothing_out():
    shown = {
        (page, name)
        for page in [ROOT / "README.md", *DOCS.rglob("*.md")]
        for name in re.findall(r"[\w./-]*figures/[\w-]+\.(?:svg|html)", page.read_text("utf-8"))
        if not name.startswith("docs/") or page.parent == ROOT
    }
    for page, name in shown:
        assert (page.parent / name).is_file(), f"{page.name} shows {name}"
    pictures = {path.name for path in FOLDER.iterdir() if path.suffix in (".svg", ".html")}
    assert pictures == {name.rpartition("/")[2] for _, name in shown}


def test_a_name_that_is_none_is_refused(refusal):
    assert "got ladders" in refusal(__main__.main, "ladders")


def test_results_are_kept(tmp_path):
    lines = [
        table.Line(rung, 0.5, 1e-4 / rung.number, Spread(2.0, 1.5, 2.5) if i else None, 2e6, 1e6)
        for i, rung in enumerate(rungs()[:3])
    ]
    machine = table.Machine({"float32": 2.0, "float64": 1.0}, (4.0, 3.0, 2.0, 1.0))
    results.write(lines, machine, tmp_path / "ladder.json")
    read, limits, environment = results.read(tmp_path / "ladder.json")
    assert (read, limits) == (lines, machine)
    assert environment["caches"][0] < environment["caches"][1]


@pytest.mark.parametrize("path", [LADDER, LADDER.with_name("ladder-emerald-rapids.json")])
def test_the_page_of_the_ladder_has_the_table_of(path, monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    lines, machine, _ = results.read(path)
    said = (DOCS / "ladder" / "index.md").read_text("utf-8")
    for line in table.as_markdown(lines, machine).splitlines():
        assert line in said


def test_the_page_of_the_ladder_speaks_of_the_third_machine_as_measured():
    lines, *_ = results.read(LADDER.with_name("ladder-ice-lake.json"))
    said = (DOCS / "ladder" / "index.md").read_text("utf-8")
    said += (DOCS / "ladder" / "11-whole-epoch.md").read_text("utf-8")
    for number in (7, 11, 12):
        ratio = lines[number - 1].ratio
        assert f"{ratio.median:.2f} times" in said
        assert f"({ratio.lower:.2f}-{ratio.upper:.2f})" in said
    assert f"{1e6 * lines[10].seconds:.0f} us" in said


def test_pages_of_rungs_tell_of_the_same_run():
    """Their own row, where NumPy multiplies as OpenBLAS chooses by itself, and those beside it."""
    lines, machine, _ = results.read(LADDER)
    of_run = [row_of(line) for line in table.as_markdown(lines, machine).splitlines()[2:]]
    measured = {cells[0]: set(cells) for cells in of_run if cells}
    for rung in rungs():
        (page,) = (DOCS / "ladder").glob(f"{rung.number:02}-*.md")
        name, told = f"{rung.number} {rung.name}", []
        for first, *cells in filter(None, map(row_of, page.read_text("utf-8").splitlines())):
            if (of := name if first == "its kernels for AVX-512" else first) in measured:
                assert set(cells) <= measured[of], page.name
                told.append(of)
        assert name in told, page.name


def row_of(line: str) -> list[str]:
    """Return the cells of a line of a table; of another one, none."""
    return [cell.strip() for cell in line.split("|")[1:-1]]


@pytest.mark.parametrize("sums", [1, 3, 8, 11])
def test_sums_wait_for_themselves(sums):
    turns = latency.schedule(sums, 40)
    starts = [turn.start for turn in turns]
    assert max(np.bincount(starts)) == min(sums, latency.PIPELINES)
    for of in range(sums):
        own = [turn.start for turn in turns if turn.sum == of]
        assert min(np.diff(own)) >= latency.LATENCY
    # pipelines are full from so many sums on as are under way
    assert len(turns) == 10 * min(sums, latency.SUMS)


def test_tiles_fill_the_registers():
    assert tile.registers(tile.NARROW.tile_rows, tile.NARROW.tile_columns) == 16
    assert 16 < tile.registers(tile.WIDE.tile_rows, tile.WIDE.tile_columns) <= 32
    assert tile.loads_a_product(8, 3) == 11 / 24


def test_all_matrices_have_their_way():
    sizes, place = data_way.kilobytes(), data_way.places()
    assert set(sizes) == set(place)
    assert sizes["W1"] == np.zeros((784, 100), np.float32).nbytes / 1000
    assert sizes["G2"] == sizes["A2"] == np.zeros((32, 200), np.float32).nbytes / 1000
    written: set[str] = {"samples", "W1", "W2", "W3"}
    for of in data_way.passes():
        assert set(of.reads) <= written, f"{of.name} reads what nobody has written"
        written |= set(of.writes)
    assert written == set(sizes)


def test_matrices_come_from_where_there_is_room():
    huge, tiny = (1 << 40,) * 3, (1, 2, 3)
    assert {to for (_, name), to in data_way.levels(huge).items() if name != "samples"} == {"L1"}
    assert set(data_way.levels(tiny).values()) == {"memory"}
    found = data_way.levels((48 << 10, 1 << 20, 32 << 20))
    assert found["load", "samples"] == "memory"
    assert found["forward, W1", "W1"] == "L2"
    # it was written by the pass before
    assert found["forward, W2", "A1"] == "L1"


def test_words_of_bits():
    lit = np.random.default_rng(0).random((3, 784)) < 0.2
    words = bits.words_of(lit)
    assert words.shape == (3, 13, 64)
    np.testing.assert_array_equal(words.reshape(3, -1)[:, :784], lit)
    assert not words.reshape(3, -1)[:, 784:].any()


def test_parts_of_the_step_are_those_that_were_measured():
    found = anatomy.parts()
    assert all(part.share_of_limit is None or part.share_of_limit > 0 for part in found)
    longest = max(found, key=lambda part: part.seconds)
    assert anatomy.label(longest).endswith(f", {longest.share_of_limit:.0%}")
