"""The anatomy of a step: what is counted, and how it is shown. Nothing here depends on a time."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import in_pairs

import fastnn
from fastnn import bench
from fastnn.bench import (
    anatomy,
    command,
    contenders,
    figures,
    machine,
    measuring,
    picture,
    report,
    suites,
)
from fastnn.bench.cases import Case, Comparison
from fastnn.cli import main

if "numba" not in fastnn.available_backends():
    pytest.skip("the compiled epoch is Numba's", allow_module_level=True)

from fastnn.backends.numba_backend.epoch.records import BY_COLUMNS, WITH_UPDATE
from fastnn.backends.numba_backend.kernels.limits import BLOCK, SUMS
from fastnn.backends.numba_backend.machine import MACHINE
from fastnn.bench import counting, dissection, limits
from fastnn.bench.counting import Counted, Touch, Work, bytes_by_level, joined, product, visits
from fastnn.paths import CompiledPath

MEGABYTE = 1 << 20


def work(case: Case) -> list[tuple[int, str, Work]]:
    """Return what is counted of a step, after one."""
    made = contenders.FastNN(
        case, *contenders.load_samples(case), contenders.initial_parameters(case)
    )
    network, X, y = made.network, made.X, made.y
    with network._programs.for_training(network, X, case.batch_size, False) as program:
        path = CompiledPath(network, X, y, program, case.threads)
        path.start()
        path.train(np.arange(case.batch_size))
        members = program.members(case.threads)
        return Counted(program.training.shared[0], program.layers_of(members)).parts()


@pytest.mark.parametrize(
    *in_pairs(
        batch_size=(1, 2, 8, 32, 70, 128), kind=("random", "float"),
        hidden=((32,), (100, 200), (65, 40)), dtype=("float32", "float64"),
    ),
    ids=str,
)  # fmt: skip
def test_all_products_of_a_step_are_counted(batch_size, kind, hidden, dtype):
    case = Case(
        "numba", task="step", shape=(784, *hidden, 10), batch_size=batch_size, samples=128,
        dtype=dtype, input=kind,
    )  # fmt: skip
    found = work(case)
    assert 2 * sum(of.dense for *_, of in found) == case.flops / (case.samples // batch_size)
    # a kernel multiplies whole vectors: at least what is not zero, at most all and what pads it
    lanes = MACHINE.vector_bits // 8 // np.dtype(dtype).itemsize
    for layer, name, of in found:
        assert 0 <= of.nonzero <= of.dense
        assert of.multiply_adds * lanes >= of.nonzero, (layer, name)
    assert {"load", "forward", "activation", "loss", "biases"} <= {name for _, name, _ in found}


def test_zeros_are_those_of_the_batch():
    case = Case("numba", task="step", batch_size=32, samples=64)
    X, _ = contenders.load_samples(case)
    forward = next(of for layer, name, of in work(case) if (layer, name) == (0, "forward"))
    assert forward.nonzero == 100 * np.count_nonzero(X[:32])


def test_a_member_counts_its_own_part():
    case = Case("numba", task="step", shape=(784, 256, 10), batch_size=32, samples=64,
                input="random")  # fmt: skip
    whole, own = (work(Case(**{**vars(case), "threads": threads})) for threads in (1, 2))
    dense = [sum(of.dense for _, name, of in parts if name == "forward") for parts in (whole, own)]
    assert dense[1] == pytest.approx(dense[0] / 2, rel=0.1)


def widths(vectors: int, widest: int) -> list[int]:
    """Cut columns as `write_product` does: where one would be left alone, two and two."""
    found = []
    while vectors:
        found.append(2 if vectors == widest + 1 else min(vectors, widest))
        vectors -= found[-1]
    return found


def blocks(vectors: int, most: int) -> list[int]:
    """Cut columns into blocks: one that would be left alone goes with the last block."""
    found = []
    while vectors:
        found.append(vectors if vectors == most + 1 else min(vectors, most))
        vectors -= found[-1]
    return found


def test_columns_are_cut_as_the_product_does():
    assert widths(7, 3) == [3, 2, 2]
    assert widths(5, 3) == [3, 2]
    assert blocks(7, 3) == [3, 4]
    assert blocks(8, 3) == [3, 3, 2]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("vectors", [1, 3, 4, 7, MACHINE.block_columns + 1, 53])
@pytest.mark.parametrize("inner", [1, 5, MACHINE.block_inner, 2 * MACHINE.block_inner + 5])
def test_tiles_of_a_product(inner, vectors, keep):
    """Tile by tile, as `write_product` walks."""
    for rows in (1, 8, 13, 31):
        heights, height, left = [], MACHINE.tile_rows, rows
        while height:
            heights += left // height * [height]
            left, height = left % height, height // 2
        multiply_adds = loads = stores = 0
        for block in blocks(vectors, MACHINE.block_columns):
            for start in range(0, inner, MACHINE.block_inner):
                turns = min(inner - start, MACHINE.block_inner)
                added = keep or start > 0  # to what is there
                tiles = itertools.product(heights, widths(block, MACHINE.tile_columns))
                for height, width in tiles:
                    multiply_adds += (turns + added) * height * width
                    loads += turns * (height + width) + added * height * width
                    stores += height * width
        found = product(rows, inner, vectors, keep)
        assert (found.multiply_adds, found.loads, found.stores) == (multiply_adds, loads, stores)


def table_of(case: Case) -> np.ndarray:
    """Return the records of the layers of a network on one thread."""
    made = contenders.FastNN(
        case, *contenders.load_samples(case), contenders.initial_parameters(case)
    )
    with made.network._programs.for_training(made.network, made.X, case.batch_size, False) as found:
        return found.training.layers.copy()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("outputs", [4, 40])
def test_a_gradient_is_turned_where_it_does_not_lie_so(outputs, threads):
    """The layer above may have left it by columns, in a team its own columns alone."""
    case = Case("numba", task="step", shape=(20, 256, 256, outputs), batch_size=128, samples=128,
                input="random", threads=threads)  # fmt: skip
    _, middle, top = table_of(case)["gradient_by"]
    assert (middle, top) == (BY_COLUMNS, WITH_UPDATE if outputs == 4 else BY_COLUMNS)
    turned = [of.loads for layer, name, of in work(case) if (layer, name) == (1, "turn")]
    vectors = 128 * 256 // (MACHINE.vector_bits // 32)
    # and what goes to the layer below, own units of it
    expected = [vectors / threads]
    if outputs == 4:  # by rows, in one pass
        expected = [vectors, *expected]
    elif threads == 2:
        expected = [vectors / 2, *expected]
    assert turned == expected


def test_a_member_with_an_empty_chunk_is_counted():
    """Of ten units the first of two members has none."""
    case = Case("numba", task="step", shape=(784, 30, 10, 10), samples=64, threads=2)
    found = {(layer, name): of for layer, name, of in work(case)}
    assert found[2, "forward"].dense == found[2, "forward"].multiply_adds == 0
    # what it adds up all the same is zero
    assert found[2, "forward"].stores == 32 * -(-10 // (MACHINE.vector_bits // 32))


def test_products_in_bfloat16_are_not_counted():
    network = fastnn.Network([fastnn.Dense(4, 3)], matmul_precision="bfloat16")
    with pytest.raises(ValueError, match="nothing is counted of products in bfloat16"):
        dissection.Dissection(network, np.ones((4, 4)), np.zeros(4, np.int64), 2, 1)


def test_bits_are_counted_alone_and_in_pairs():
    words = np.array([[0b101], [0b110], [0], [1]], np.uint64)
    assert visits(words, 1) == 5
    assert visits(words, 2) == 4
    assert joined(words, 2).tolist() == [[0b111], [1]]


def test_operands_come_from_the_first_cache_that_held_them():
    a, b, samples = ("", 1), ("", 2), ("samples", 0)
    works = [
        Work(loads=3.0, touched=[Touch(samples, 100), Touch(a, 1000)]),
        Work(touched=[Touch(a, 1000), Touch(b, 20_000, again=7, span=1500)]),
        Work(touched=[Touch(a, 1000)]),
    ]
    found = bytes_by_level(works, (2_000, 22_500, 10**6), samples_bytes=10**7)
    # `a` was touched just before, but for the last part; b in the step before it
    assert found[0] == [3 * counting.VECTOR_BYTES, 0, 0, 100]
    assert found[1][1:] == [20_000, 0, 0]
    assert found[2][1:] == [1000, 0, 0]
    (_, of_b, _) = bytes_by_level(works, (1_000, 2_000, 10**6), samples_bytes=10**7)
    assert of_b[1:] == [7, 20_000, 0]


def test_limits_of_this_machine(dtype, monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 1e-5)
    monkeypatch.setattr(limits, "REPEATS", 1)
    monkeypatch.setattr(limits, "cache_bytes", lambda: (1 << 12, 1 << 13, 1 << 14))
    found = limits.measure_limits(dtype)
    assert all(0 < number < 1e15 for number in (*found[:3], *found.bandwidth))
    assert 1e3 < limits.measure_ticks() < 1e15


ASSEMBLY = """
from llvmlite import binding
from fastnn.backends.numba_backend.compiling import objects
from fastnn.backends.numba_backend.jit import _written
from fastnn.backends.numba_backend.kernels.limits import LIMITS
from fastnn.backends.numba_backend.language import DOUBLE, FLOAT
for element in (FLOAT, DOUBLE):
    for operation in LIMITS.values():
        module, _ = _written(operation._kernel, element)
        machine = objects.target_machine()
        parsed = objects.optimized(binding.parse_assembly(str(module)), machine)
        print("another", machine.emit_assembly(parsed))
"""


@pytest.mark.parametrize("cpu", [None, "generic", "haswell", "skylake-avx512"])
def test_kernels_of_limits_need_no_stack(cpu):
    """What is stored there and loaded again takes longer than what is to be measured."""
    # checks of addresses would be in the loops
    environment = {name: of for name, of in os.environ.items() if name != "FASTNN_CHECKED"}
    if cpu is not None:
        if platform.machine() not in ("x86_64", "AMD64"):
            pytest.skip("of x86 alone")
        environment |= {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}
    done = subprocess.run(
        [sys.executable, "-c", ASSEMBLY], env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    kernels = done.stdout.split("another")[1:]
    assert len(kernels) == 2 * len(limits.LIMITS)
    for text in kernels:
        assert not re.search(r"\(%r[sb]p\)|\[sp\b", text)
    # as many begin as hide their latency
    multiplied = re.findall(r"vfn?madd\w+|mulp[sd]|fmla", kernels[0])
    assert len(multiplied) in (12, 16)


def test_kernels_of_limits_do_what_they_say(dtype):
    lanes = MACHINE.vector_bits // 8 // dtype.itemsize
    vectors = 2 * BLOCK
    room = fastnn.memory.aligned_zeros(2 * vectors * lanes, dtype)
    room[:] = 0.25
    called = {name: limits._called(name, dtype) for name in limits.LIMITS}
    nbytes = vectors * lanes * dtype.itemsize
    called["multiply_adds"](room.ctypes.data, nbytes, 2)
    # twice x * 0.25 + 0.25, in all SUMS vectors, which are added up
    np.testing.assert_allclose(room[:lanes], SUMS * (0.25 * (0.25 * 0.25 + 0.25) + 0.25))
    assert (room[lanes:] == 0.25).all()
    room[:lanes] = np.arange(lanes)
    called["stores"](room.ctypes.data, nbytes, 1)
    assert (room[: vectors * lanes].reshape(vectors, lanes) == np.arange(lanes)).all()
    assert (room[vectors * lanes :] == 0.25).all()
    room[:] = 0
    room[:lanes] = 2.0
    called["loads"](room.ctypes.data, nbytes, 3)
    assert (room[:lanes] == 2.0).all()


TINY = {"shape": (20, 12, 3), "batch_size": 8, "samples": 64, "input": "random"}


@pytest.fixture
def short(monkeypatch):
    """Rounds that take no time."""
    monkeypatch.setattr(dissection, "PAIRS", 2)
    monkeypatch.setattr(dissection, "CALL_SECONDS", 1e-4)
    monkeypatch.setattr(
        dissection, "measure_limits",
        lambda dtype: limits.Limits(1e9, 1e9, 5e8, (4e9, 3e9, 2e9, 1e9)),
    )  # fmt: skip


def dissected(**options) -> anatomy.Anatomy:
    """Return an anatomy of a tiny network, made in this process."""
    case = Case("numba", task="step", **TINY, **options)
    made = contenders.prepare(case)
    answers = []
    for _ in range(2):
        made.reset()
        answers.append(json.loads(json.dumps(made.judge(made.run()))))
    return anatomy.gathered("a step", case, answers)


def test_an_anatomy_adds_up(short):
    found = dissected()
    assert found.plain is not None
    assert found.error is None
    names = [(part.layer, part.name) for part in found.parts]
    assert names[0] == ("20-12", "load")
    assert len(set(names)) == len(names)
    assert names.index(("12-3", "forward")) < names.index(("12-3", "loss"))
    assert names.index(("12-3", "loss")) < names.index(("20-12", "update"))
    for part in found.parts:
        assert part.seconds > 0
        if part.bound is not None:
            times = [part.multiply_adds / 1e9, part.loads / 1e9, part.stores / 5e8]
            times += [n / s for n, s in zip(part.bytes[1:], (3e9, 2e9, 1e9), strict=True)]
            assert part.bound.seconds == max(times)


def test_an_anatomy_is_shown_and_drawn(short, tmp_path):
    found = [dissected(dtype=dtype) for dtype in ("float32", "float64")]
    whole = report.Report(machine.describe_environment(), (), anatomies=tuple(found))
    text = bench.as_markdown(whole)
    assert "### a step" in text
    assert "20-12 forward" in text
    assert "GFLOP/s" in text
    document = json.loads(bench.as_json(whole))
    assert len(document["anatomies"]) == 2
    assert document["anatomies"][0]["parts"][0]["name"] == "load"
    picture.draw(found, tmp_path / "step.png")
    assert (tmp_path / "step.png").read_bytes().startswith(b"\x89PNG")


def test_the_suite_runs_in_a_worker(tmp_path):
    case = Case("numba", task="step", **TINY)
    found = measuring.dissect(Comparison((case,)), rounds=1)
    assert found.error is None
    assert "us a step" in found.verdict


def test_a_worker_that_fails_is_reported(monkeypatch, tmp_path):
    case = Case("numba", task="step", **TINY | {"shape": (20, 12, 3)})
    broken = Case("nobody", task="step", **TINY)
    found = measuring.dissect(Comparison((broken,)), rounds=1)
    assert found.error is not None
    whole = report.Report({}, (), anatomies=(found,))
    assert whole.failures == [f"{found.name}: {found.error}"]
    assert anatomy.as_markdown(found) == []
    monkeypatch.setattr(command, "dissect", lambda comparison, rounds: found)
    shown = []
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    options = ["--suite", "step", "--rounds", "1", "--plot", str(tmp_path / "step.png")]
    done = bench.run(parser.parse_args(options), shown.append)
    assert len(done.anatomies) == 2
    assert case.trains


def test_limits_are_the_best_of_all_rounds():
    """Nothing else that a round says is."""
    case = Case("numba", task="step", **TINY)
    answers = [
        {"plain": 1.0, "counted": 1.0, "summed": 1.0, "parts": [], "lanes": 8,
         "limits": limits.Limits(*rates, bandwidth)._asdict()}
        for rates, bandwidth in [((3, 1, 2), (4, 3, 2, 5)), ((1, 2, 3), (5, 2, 3, 1))]
    ]  # fmt: skip
    found = anatomy.gathered("a step", case, json.loads(json.dumps(answers)))
    assert found.limits == {"multiply_adds": 3, "loads": 2, "stores": 3, "bandwidth": [5, 3, 3, 5]}
    assert found.lanes == 8
    assert (
        "Limits in this run: 48 GFLOP/s"
        in anatomy.as_markdown(replace(found, limits=found.limits | {"multiply_adds": 3e9}))[-1]
    )


def test_a_counter_that_stands_still_ends_no_report(tmp_path):
    """Then no part has taken any time."""
    case, second = Case("numba", task="step", **TINY), figures.spread([1.0])
    rates = limits.Limits(1.0, 1.0, 1.0, (1.0,) * 4)._asdict()
    found = anatomy.Anatomy("a step", case, None, second, second, second, (), rates, lanes=8)
    assert found.verdict.endswith("its parts could not be timed")
    assert any("A step takes" in text for text in anatomy.as_markdown(found))
    picture.draw([found], tmp_path / "step.png")
    assert (tmp_path / "step.png").exists()


def test_a_picture_that_fails_loses_no_report(short, monkeypatch, tmp_path):
    found = dissected()

    def failing(anatomies, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "dissect", lambda comparison, rounds: found)
    monkeypatch.setattr(command, "draw", failing)
    parser, file = argparse.ArgumentParser(), tmp_path / "report.json"
    bench.add_arguments(parser)
    options = ["--suite", "step", "--plot", str(tmp_path / "step.png"), "--json", str(file)]
    done = bench.run(parser.parse_args(options))
    assert done.anatomies == (found, found)
    assert "No space left" in bench.as_markdown(done)
    assert "No space left" in json.loads(file.read_text())["notes"][0]


def test_both_dtypes_unless_told():
    made = list(suites.suite_comparisons("step", (), {"hidden": (32,), "batch_size": 8}))
    assert [found.cases[0].dtype for found in made] == ["float32", "float64"]
    assert {found.cases[0].shape for found in made} == {(784, 32, 10)}
    (single,) = suites.suite_comparisons("step", (), {"dtype": "float64"})
    assert single.cases[0].dtype == "float64"


def test_a_network_that_is_not_compiled_is_refused():
    network = fastnn.Network([fastnn.Dense(4, 3)], backend="numpy")
    with pytest.raises(ValueError, match="not compiled"):
        dissection.Dissection(network, np.ones((4, 4)), np.zeros(4, np.int64), 2, 1)


def test_a_picture_that_cannot_be_written_is_refused(tmp_path, capsys):
    assert main(["bench", "--suite", "step", "--plot", str(tmp_path / "step.txt")]) != 0
    assert "--plot" in capsys.readouterr().err
