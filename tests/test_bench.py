"""Benchmarks: what is counted, compared and reported. Nothing here depends on a time."""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import mmap
import os
import struct
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest

from fastnn import bench, initializers
from fastnn.bench import (
    command,
    contenders,
    costs,
    figures,
    machine,
    measuring,
    memory,
    ratios,
    report,
    samples,
    suites,
)
from fastnn.bench.cases import (
    LABELS,
    PEERS,
    VARIANTS,
    Case,
    Comparison,
    against,
)
from fastnn.bench.threads import THREAD_VARIABLES

EVERYONE = [name for names in PEERS.values() for name in names]
TINY = Case("numba", shape=(6, 5, 4, 3), batch_size=4, samples=64, input="random")


class Absent(measuring.Worker):
    """A worker that has no process; what a test wants to know of its rounds, a class of its own."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def send(self, case):
        pass

    def receive(self):
        return {}


def write_idx(directory, images, labels):
    """Write a data set in the format of MNIST, with the same examples for training and test."""
    for subset in ("train", "t10k"):
        for array, kind in ((images, "images-idx3"), (labels, "labels-idx1")):
            header = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
            (directory / f"{subset}-{kind}-ubyte").write_bytes(header + array.tobytes())


def parse(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(options)


def outcome(seconds, *, contender="numba", error=None, **work) -> report.Outcome:
    case = replace(TINY, contender=contender, **work)
    results, peak_bytes = (1.0, 0.5, 0.4), (3_000_000, 2_000_000, None)
    return report.Outcome(
        case, contender, error, tuple(seconds), tuple(seconds), results, peak_bytes
    )


def rounds(case: Case) -> list[float]:
    """Return what two rounds of a contender come to, in this process."""
    made = contenders.prepare(case)
    results = []
    for _ in range(2):
        made.reset()
        results.append(made.judge(made.run()))
    return results


def knowing(**work) -> list[str]:
    """Return the contenders that have a form of this work."""
    return [case.contender for case in against(EVERYONE, **work).cases]


def needs(contender: str, monkeypatch) -> None:
    """Skip the test without the library; a step of PyTorch's is as it is before it is compiled."""
    of = next((peer for peer, names in PEERS.items() if contender in names), "numpy")
    library = pytest.importorskip(of)
    if contender == "torch.compile":  # which takes half a minute
        monkeypatch.setattr(library, "compile", lambda function, **how: function)


def test_flops_counted_by_hand():
    products = [2 * 32 * 784 * 100, 2 * 32 * 100 * 200, 2 * 32 * 200 * 10]
    step = 2 * products[0] + 3 * products[1] + 3 * products[2]
    assert step == 14_259_200
    training = Case("numba", samples=100)
    assert (training.steps, training.samples, training.flops) == (3, 96, 3 * step)
    prediction = Case("numba", task="predict", samples=100)
    assert (prediction.steps, prediction.flops) == (1, sum(products) * 100 // 32)


@pytest.mark.parametrize(
    "work",
    [
        {"shape": (784,)},
        {"shape": (784, 0, 10)},
        {"shape": (20, 10)},
        {"batch_size": 0},
        {"batch_size": 60_000},
        {"threads": 0},
    ],
)
def test_work_that_cannot_be_done_is_refused(work):
    with pytest.raises(ValueError, match=r"expected|MNIST"):
        Case("numba", **work)


def test_peers_enter_in_both_forms_from_pixels():
    comparison = against(("torch", "sklearn"), input="uint8")
    forms = [(case.contender, case.input) for case in comparison.cases]
    assert forms == [
        ("numba", "uint8"),
        ("numpy", "uint8"),
        ("torch", "uint8"),
        ("torch", "float"),
        ("sklearn", "float"),
    ]
    assert comparison.label(comparison.cases[3]) == "PyTorch eager, float32 input"


@pytest.mark.parametrize(
    "suite", [name for name in suites.ROUNDS if name not in ("step", "recipes")]
)  # which compare nobody, and how soon trainings arrive
def test_every_suite_has_a_reference_in_every_comparison(suite):
    comparisons = list(suites.suite_comparisons(suite, EVERYONE, {}))
    assert all("numpy" in {c.contender for c in found.cases} for found in comparisons)
    assert all(found.cases[0].contender == "numba" for found in comparisons)
    names = [found.name for found in comparisons]
    assert (
        len(set(names))
        == len(names)
        == {
            "quick": 1,
            "default": 3,
            "variants": 4,
            "inputs": 7,
            "small": 3,
            "threads": 7,
            "bfloat16": 7,
            "grid": 60,
            "operations": 0,
            "trainings": 0,
            "costs": 0,
            "commits": 7,
            "table": 27,
        }[suite]
    )


@pytest.mark.parametrize("task", ["train", "predict", "dense"])
def test_workers_of_both_backends_agree(task):
    cases = [replace(TINY, task=task, contender=name) for name in ("numba", "numpy")]
    result = measuring.measure(Comparison(tuple(cases)), rounds=2)
    assert [found.error for found in result.outcomes] == [None, None]
    # fewer samples than the smallest chunk
    rows = 64 if task == "predict" else None
    assert [found.rows_a_call for found in result.outcomes] == [rows, rows]
    ours, theirs = (found.results for found in result.outcomes)
    assert len(ours) == 3
    # errors of a layer's output are rounding, and no two backends round alike
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6 if task == "dense" else 0)
    assert ours[1:] == ours[:1] * 2  # every round begins where the first one did
    assert result.peak_gflops > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_backends_agree_on_every_variant(variant):
    cases = [replace(TINY, variant=variant, contender=name) for name in ("numba", "numpy")]
    ours, theirs = map(rounds, cases)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    # of dropout's masks each round draws its own
    assert (ours[0] == ours[1]) == (variant != "dropout")


@pytest.mark.parametrize("contender", LABELS)
@pytest.mark.parametrize("task", ["train", "fit", "predict", "row"])
def test_every_contender_trains_alike_from_the_same_start(contender, task, monkeypatch):
    needs(contender, monkeypatch)
    case = replace(TINY, contender=contender, task=task, epochs=3)
    found = rounds(case)
    expected = rounds(replace(case, contender="numpy"))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("contender", "variant"),
    [(name, of) for of in VARIANTS if of != "dropout" for name in knowing(variant=of)],
)
def test_variants_begin_anew_in_each_round(contender, variant, monkeypatch):
    needs(contender, monkeypatch)
    case = replace(TINY, contender=contender, variant=variant)
    first, second = rounds(case)
    assert first == second
    assert first == pytest.approx(rounds(replace(case, contender="numpy"))[0], rel=1e-3)


def test_who_has_no_form_of_a_work_is_left_out():
    everyone = ["numba", "numpy", *EVERYONE]
    assert knowing(variant="momentum") == knowing(variant="adam") == everyone
    without = [name for name in everyone if name != "sklearn"]
    for work in ({"variant": "dropout"}, {"variant": "batch norm"}, {"task": "dense"}):
        assert knowing(**work) == without
    assert knowing(matmul_precision="bfloat16") == without


def test_jax_drops_a_fifth_of_each_hidden_layer_and_draws_anew_in_each_step():
    jax = pytest.importorskip("jax")
    from fastnn.bench.in_jax import JaxScan

    case = replace(TINY, contender="jax", variant="dropout", shape=(6, 50, 30, 3))
    made = JaxScan(case, *samples.load_samples(case), samples.initial_parameters(case))
    first, second = (made._masks(jax.random.fold_in(made.state.key, at), 400) for at in (0, 1))
    assert [mask.shape for mask in first] == [(400, 50), (400, 30)]
    for mask, another in zip(first, second, strict=True):
        assert mask.mean() == pytest.approx(0.8, abs=0.02)
        assert (mask == another).mean() == pytest.approx(0.8**2 + 0.2**2, abs=0.02)
    key = jax.random.key_data(made.initial().key)
    made.train()
    assert not np.array_equal(key, jax.random.key_data(made.state.key))


@pytest.mark.parametrize("contender", knowing(task="dense"))
def test_every_contender_multiplies_alike(contender, monkeypatch):
    needs(contender, monkeypatch)
    (first, second) = rounds(replace(TINY, task="dense", contender=contender))
    assert max(first, second) < 1e-6


@pytest.mark.parametrize("contender", knowing(matmul_precision="bfloat16"))
@pytest.mark.parametrize("task", ["train", "predict"])
def test_contenders_multiply_in_bfloat16(contender, task, monkeypatch):
    needs(contender, monkeypatch)
    case = replace(TINY, contender=contender, task=task, matmul_precision="bfloat16")
    found, plain = rounds(case), rounds(replace(case, matmul_precision=None))
    reference = replace(case, contender="numpy")
    np.testing.assert_allclose(found, rounds(reference), rtol=measuring.tolerance(reference))
    assert found != plain or task == "predict"
    assert found[0] == found[1]
    assert 0.01 < measuring.tolerance(reference) < 0.03  # a rate that is wrong by a tenth: 3 %


def test_products_in_bfloat16_stand_beside_those_in_float32():
    (*rounded, plain) = next(suites.suite_comparisons("bfloat16", EVERYONE, {})).cases
    assert {case.matmul_precision for case in rounded} == {"bfloat16"}
    assert plain == replace(rounded[0], matmul_precision=None)
    comparison = Comparison((*rounded, plain))
    assert ", float32, products in bfloat16, random input" in comparison.name
    assert comparison.label(plain) == "fastnn numba, products in float32"
    assert comparison.label(rounded[2]) == "PyTorch eager, products in bfloat16"


def test_a_fit_is_as_many_epochs():
    one, three = (rounds(replace(TINY, task="fit", epochs=epochs))[0] for epochs in (1, 3))
    assert one == rounds(TINY)[0]
    assert three < one


def test_a_table_has_no_zeros_and_samples_may_lie_by_columns():
    X, y = samples.load_samples(replace(TINY, input="table", shape=(5, 3), order="F"))
    assert X.flags.f_contiguous
    assert X.all()
    assert set(y) == {0, 1, 2}
    np.testing.assert_allclose([X.mean(), X.std()], [0, 1], atol=0.2)


def test_a_contender_that_fails_is_reported_and_the_others_go_on(monkeypatch):
    monkeypatch.setitem(LABELS, "nobody", "nobody")
    cases = (TINY, replace(TINY, contender="numpy"), replace(TINY, contender="nobody"))
    result = measuring.measure(Comparison(cases), rounds=1)
    assert [found.error for found in result.outcomes] == [None, None, "KeyError: 'nobody'"]


def test_a_peer_draws_what_dropout_drops_by_itself():
    dropping = replace(TINY, variant="dropout")
    workers = [
        measuring.Worker(replace(dropping, contender=name)) for name in ("torch", "numba", "numpy")
    ]
    for worker, loss in zip(workers, (1.03, 1.03, 1.0), strict=True):
        worker.rounds = [{"result": loss}]
    assert measuring.disagreement(workers[0], workers[2]) is None
    assert "1.03" in measuring.disagreement(workers[1], workers[2])


def test_turns_are_taken_in_another_order_in_each_round(monkeypatch):
    taken = []

    class Noting(Absent):
        def run_round(self):
            taken.append(self.case.contender)
            numbers = {"seconds": len(taken), "cpu_seconds": 1.0, "result": 1.0}
            self.rounds.append(numbers | dict.fromkeys(("peak_bytes", "moved", "rows_a_call")))

    monkeypatch.setattr(measuring, "Worker", Noting)
    names = ["numba", "numpy", "torch", "jax", "sklearn"]
    cases = tuple(replace(TINY, contender=name) for name in names)
    result = measuring.measure(Comparison(cases), rounds=7)
    together = [name for at, name in enumerate(taken) if at == 0 or taken[at - 1] != name]
    assert taken.count("peak") == 8 * measuring.PEAK_REPEATS
    for name in names:
        assert taken.count(name) == 8
        before = {a for a, b in pairwise(together) if b == name}
        assert len(before) > 2, f"{name} comes after {before}"
    assert [found.case.contender for found in result.outcomes] == names
    for found in result.outcomes:  # each has its own times
        places = [at for at, name in enumerate(taken, 1) if name == found.case.contender]
        assert list(found.seconds) == places
    first, taken[:] = list(taken), []
    measuring.measure(Comparison(cases), rounds=7)
    assert taken == first


def test_a_wrong_loss_gets_no_time():
    workers = [measuring.Worker(TINY), measuring.Worker(replace(TINY, contender="numpy"))]
    for worker, losses in zip(workers, [(1.0, 0.5), (1.0, 0.6)], strict=True):
        worker.rounds = [{"result": loss} for loss in losses]
    assert "round 1" in measuring.disagreement(workers[0], workers[1])
    workers[0].rounds[1]["result"] = math.nan
    assert "nan" in measuring.disagreement(workers[0], workers[1])
    assert measuring.disagreement(workers[1], workers[1]) is None


def of_four_steps(contender: str, case: Case) -> measuring.Worker:
    """Return a worker that has the right loss, and whatever its first steps come to."""
    worker = measuring.Worker(replace(few_steps(case), contender=contender))
    moved = contenders.prepare(worker.case).moved()
    worker.rounds = [{"result": 1.0, "moved": moved}]
    return worker


def few_steps(case: Case) -> Case:
    """Return what the first steps of a case depend on."""
    steps = contenders.CHECKED_STEPS * case.batch_size
    return replace(case, samples=min(case.samples, steps), threads=1, avx2=False)


ROWS = {
    few_steps(found.cases[0]): found.name
    for suite in ("table", "grid", "bfloat16", "commits")  # the table has all other trainings
    for found in suites.suite_comparisons(suite, (), {})
    if found.cases[0].trains
}

WRONG = dict(zip(ROWS, itertools.cycle([0.9, 1.1, 1e-9])))
"""By what the learning rate of a row is off: one factor each, as some rows take seconds."""


@pytest.fixture(scope="module")
def drawn_once():
    """Images are read once, and what the contenders of a row are given is drawn once."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(samples, "_load", functools.cache(samples._load))
        for name in ("load_samples", "initial_parameters"):
            kept = functools.lru_cache(1)(getattr(samples, name))
            alike = lambda case, kept=kept: kept(replace(case, contender="numpy"))  # noqa: E731
            patched.setattr(contenders, name, alike)
        # what a network draws itself is replaced by those
        patched.setitem(initializers._BY_NAME, "xavier_normal", initializers.zeros)
        yield


@pytest.mark.usefixtures("drawn_once")
@pytest.mark.parametrize("case", ROWS, ids=ROWS.values())
def test_a_wrong_learning_rate_gets_no_time(case, monkeypatch):
    reference = of_four_steps("numpy", case)
    assert measuring.disagreement(of_four_steps("numba", case), reference) is None
    right, factor = Case.learning_rate.fget, WRONG[case]
    monkeypatch.setattr(Case, "learning_rate", property(lambda case: factor * right(case)))
    worker = of_four_steps("numba", case)
    assert "the first steps move dense layer" in measuring.disagreement(worker, reference)


def test_rates_are_planted_in_every_row():
    shapes = {(case.shape, case.batch_size, case.input) for case in ROWS}
    assert ((784, 2048, 2048, 10), 512, "random") in shapes
    for hidden, batch_size, form in product(
        suites.GRID_HIDDEN, suites.GRID_BATCH_SIZES, ("float", "random")
    ):
        assert ((784, *hidden, 10), batch_size, form) in shapes
    for suite in ("default", "variants", "inputs", "small", "threads"):
        for found in suites.suite_comparisons(suite, (), {}):
            assert not found.cases[0].trains or few_steps(found.cases[0]) in ROWS


def test_a_float32_product_stands_beside_a_rounded_reference():
    (case,) = [
        case for case, name in ROWS.items() if "512-512-10, batch 512" in name and "bf" in name
    ]
    reference = of_four_steps("numpy", case)
    plain = of_four_steps("numba", replace(case, matmul_precision=None))
    assert measuring.disagreement(plain, reference) is None


def test_biases_that_stay_get_no_time():
    case = replace(TINY, contender="numpy")
    reference, worker = of_four_steps("numpy", case), of_four_steps("numba", case)
    worker.rounds[0]["moved"][1][-4:] = [0.0] * 4
    assert "dense layer 2" in measuring.disagreement(worker, reference)
    worker.rounds[0]["moved"][1][-4:] = [math.nan] * 4
    assert "dense layer 2" in measuring.disagreement(worker, reference)


def test_a_batch_norm_that_stays_gets_no_time():
    case = replace(TINY, contender="numpy", variant="batch norm")
    reference, worker = of_four_steps("numpy", case), of_four_steps("numba", case)
    assert [len(of) for of in reference.rounds[0]["moved"]] == [35, 24, 15, 10, 8]
    assert measuring.disagreement(worker, reference) is None
    worker.rounds[0]["moved"][4] = [0.9 * of for of in worker.rounds[0]["moved"][4]]
    assert "batch norm 2 0.9 times" in measuring.disagreement(worker, reference)


@pytest.mark.parametrize(
    ("contender", "work"),
    [
        (contender, work)
        for work in (
            {},
            {"task": "fit"},
            {"input": "table"},
            {"dtype": "float64"},
            *({"variant": variant} for variant in VARIANTS),
            {"variant": "adam", "dtype": "float64"},
        )
        for contender in knowing(**work)
    ],
)
def test_every_contender_takes_the_same_first_steps(contender, work, monkeypatch):
    needs(contender, monkeypatch)
    case = replace(TINY, **work)
    reference = of_four_steps("numpy", case)
    assert measuring.disagreement(of_four_steps(contender, case), reference) is None


def test_first_steps_are_taken_once_and_leave_no_trace():
    with measuring.Worker(replace(TINY, contender="numpy", task="fit")) as worker:
        worker.receive()
        for _ in range(2):
            worker.run_round()
    first, second = worker.rounds
    assert [len(layer) for layer in first["moved"]] == [6 * 5 + 5, 5 * 4 + 4, 4 * 3 + 3]
    assert second["moved"] is None
    assert first["result"] == second["result"]


@pytest.mark.parametrize("contender", LABELS)
def test_chunks_have_the_same_answers(contender, monkeypatch):
    needs(contender, monkeypatch)
    case = replace(TINY, contender=contender, task="predict")
    X, y = samples.load_samples(case)
    made = contenders.CONTENDERS[contender](case, X, y, samples.initial_parameters(case))
    whole = made.predict(64)
    assert whole.shape == (64,)
    for rows in (16, 10):  # the last chunk is smaller than the others
        np.testing.assert_array_equal(made.predict(rows), whole)


def test_predictions_keep_the_fastest_chunks(monkeypatch):
    asked, seconds = [], {64: 3.0, 32: 1.0, 16: 2.0}

    class Noting:
        def predict(self, rows):
            asked.append(rows)
            clock[0] += seconds[rows]

    clock = [0.0]
    monkeypatch.setattr(contenders, "CHUNKS", (100, 64, 32, 16))
    monkeypatch.setattr(contenders.time, "perf_counter", lambda: clock[0])
    for contender, kept in (("jax", 32), ("numba", 64)):
        asked.clear()
        prediction = contenders.Prediction(Noting(), replace(TINY, contender=contender))
        prediction.settle()
        prediction.run()
        assert asked == [64]  # the first round, which compiles
        prediction.settle()
        assert set(asked) == ({64} if contender == "numba" else {64, 32, 16})
        asked.clear()
        for _ in range(2):
            prediction.run()
            prediction.settle()
        assert asked == [kept] * 2


def test_threads_and_instructions_are_fixed_for_every_library():
    variables = measuring.environment(replace(TINY, threads=2, avx2=True))
    assert variables["OMP_NUM_THREADS"] == variables["FASTNN_NUM_THREADS"] == "2"
    assert variables["ATEN_CPU_CAPABILITY"] == "avx2"
    assert "max_isa=AVX2" in variables["XLA_FLAGS"]


@pytest.mark.parametrize("threads", [1, 2])
def test_libraries_of_a_program_have_its_threads_whatever_the_shell_says(monkeypatch, threads):
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "7")
    program = "import json, os, sys; print(json.dumps([os.environ[of] for of in sys.argv[1:]]))"
    told = costs.run_program(program, *THREAD_VARIABLES, threads=threads)
    assert told == [str(threads)] * len(THREAD_VARIABLES)


def test_openblas_chooses_its_kernels_in_every_process_that_is_measured(monkeypatch):
    told = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    for name in told:
        monkeypatch.setenv(name, "Prescott")
    monkeypatch.setenv("SOMETHING_ELSE", "stays")
    variables = measuring.environment(TINY)
    assert not set(told) & set(variables)
    assert variables["SOMETHING_ELSE"] == "stays"
    assert measuring.environment(replace(TINY, avx2=True))["OPENBLAS_CORETYPE"] == "Haswell"
    started = []

    def popen(*arguments, env, **others):
        started.append(env)
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring.subprocess, "Popen", popen)
    worker = measuring.Worker(TINY)
    with pytest.raises(KeyboardInterrupt):
        worker.__enter__()
    worker.log.close()
    with pytest.raises(KeyboardInterrupt):
        list(ratios.measure_ratios([], 1, variables))
    with pytest.raises(KeyboardInterrupt):
        costs.run_program("print(1)")
    assert len(started) == 3
    assert not any(set(told) & set(env) for env in started)


def test_workers_are_kept_to_as_many_processors_as_threads(monkeypatch):
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("not on this system")
    before = os.sched_getaffinity(0)
    with machine.kept_to(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before
    # two processors of each of two cores: a core for each thread, as long as there are cores
    monkeypatch.setattr(machine, "PROCESSORS", Path("none"))
    monkeypatch.setattr(machine.processors, "cores", lambda: [{4, 5}, {6, 7}])
    assert machine.chosen(2) == {4, 6}
    assert machine.chosen(3) == {4, 5, 6}
    assert machine.chosen(9) == {4, 5, 6, 7}


@pytest.mark.parametrize("file", ["cpu_capacity", "cpufreq/cpuinfo_max_freq"])
def test_workers_are_kept_to_the_fastest_processors(monkeypatch, tmp_path, file):
    for processor, speed in enumerate((446, 446, 1024, 871)):
        path = tmp_path / f"cpu{processor}" / file
        path.parent.mkdir(parents=True)
        path.write_text(f"{speed}\n")
    monkeypatch.setattr(machine, "PROCESSORS", tmp_path)
    monkeypatch.setattr(machine.processors, "cores", lambda: [{0}, {1}, {2}, {3}])
    assert [machine.chosen(threads) for threads in (1, 2, 3)] == [{2}, {2, 3}, {0, 2, 3}]
    # a core of its own comes before a fast one
    monkeypatch.setattr(machine.processors, "cores", lambda: [{0}, {2, 3}])
    assert machine.chosen(2) == {0, 2}


def test_peak_memory_is_that_of_a_round():
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("not on this system")
    memory.forget_peak_memory()
    before = memory.peak_memory()
    with mmap.mmap(-1, 40_000_000) as fresh:  # nothing that an allocator has kept
        fresh.write(bytes(40_000_000))
    assert memory.peak_memory() >= before + 30_000_000
    memory.forget_peak_memory()
    assert memory.peak_memory() < before + 30_000_000


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("freebsd14", 1024), ("darwin", 1)])
def test_peak_memory_where_linux_does_not_tell_it(monkeypatch, tmp_path, system, unit):
    resource = pytest.importorskip("resource")

    class Usage:
        ru_maxrss = 300_000

    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    monkeypatch.setattr(memory.sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda who: Usage)
    assert memory.peak_memory() == 300_000 * unit


def test_a_grid_of_the_users_own(monkeypatch, tmp_path):
    compared = []

    def measured(comparison, rounds):
        compared.append(comparison.cases[0])
        times = ([1, 2, 2], [1, 3, 4])
        pair = zip(comparison.cases, times, strict=True)
        outcomes = tuple(
            replace(outcome(seconds), case=case, label=case.contender) for case, seconds in pair
        )
        return report.Result(comparison.name, rounds, outcomes, 1.0)

    monkeypatch.setattr(command, "measure", measured)
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(256, size=(120, 5, 4), dtype=np.uint8), np.arange(120) % 7
    write_idx(tmp_path, images, labels.astype(np.uint8))
    networks = ["--hidden", "5", "--hidden", "8", "6", "--batch-size", "4", "16"]
    fed = ["--input", "uint8", "table", "--data", "mnist", str(tmp_path)]
    found = bench.run(parse(*networks, *fed, "--peers", ""))
    assert [case.shape for case in compared[::2]] == [
        *[(784, 5, 10), (784, 8, 6, 10)],
        *[(20, 5, 7), (20, 8, 6, 7)],
        *[(100, 5, 10), (100, 8, 6, 10)],
    ]
    assert {case.batch_size for case in compared[::2]} == {4}
    assert {case.batch_size for case in compared[1::2]} == {16}
    assert [case.input for case in compared] == ["uint8"] * 8 + ["table"] * 4
    assert compared[4].samples == 100  # what validation leaves of 120
    assert f"{tmp_path.name} uint8" in bench.as_markdown(found)


def test_networks_and_batch_sizes_at_a_glance():
    results = []
    for batch_size, hidden in product((4, 8), (5, 6)):
        work = {"shape": (6, hidden, 3), "batch_size": batch_size}
        pair = (outcome([1, 2, 2], **work), outcome([1, 3, hidden], contender="jax", **work))
        name = Comparison(tuple(o.case for o in pair)).name
        results.append(report.Result(name, 2, pair, 1.0))
    text = bench.as_markdown(bench.Report(machine.describe_environment(), tuple(results)))
    assert "### train, float32, random input, 1 thread" in text
    assert "| 6-6-3   | jax 2.25 | jax 2.25 |" in text


def test_fashion_mnist_that_is_not_here_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTNN_DATA", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "measure", lambda *_: report.Result("x", 1, (outcome([1, 1]),), 1))
    samples.described.cache_clear()
    found = bench.run(parse("--suite", "inputs", "--peers", ""))
    assert "Fashion-MNIST is not here, so not compared" in bench.as_markdown(found)
    assert len(found.results) == 7
    with pytest.raises(FileNotFoundError, match="fashion_mnist"):
        bench.run(parse("--suite", "inputs", "--peers", "", "--data", "fashion_mnist"))


def test_an_interrupt_leaves_what_was_measured(monkeypatch, tmp_path):
    def measured(comparison, rounds):
        if "uint8" in comparison.name:
            raise KeyboardInterrupt
        return report.Result(comparison.name, rounds, (outcome([1, 1]),), 1.0)

    monkeypatch.setattr(command, "measure", measured)
    file = tmp_path / "report.json"
    found = bench.run(parse("--peers", "", "--json", str(file)))
    assert found.interrupted
    assert len(found.results) == len(json.loads(file.read_text())["results"]) == 1
    assert "Interrupted after 1 of 3 comparisons." in bench.as_markdown(found)


@pytest.mark.parametrize("suite", ["costs", "table"])
def test_an_interrupt_leaves_the_costs_that_were_measured(suite, monkeypatch, tmp_path):
    def measured(rounds, progress):
        yield costs.Cost("import", "ms", (1.0,) * rounds)
        raise KeyboardInterrupt

    monkeypatch.setattr(
        command, "measure", lambda *_: report.Result("x", 1, (outcome([1, 1]),), 1.0)
    )
    monkeypatch.setattr(command, "measure_costs", measured)
    file = tmp_path / "report.json"
    options = [] if suite == "costs" else ["--peers", ""]
    found = bench.run(parse("--suite", suite, *options, "--rounds", "3", "--json", str(file)))
    assert found.interrupted
    assert found.costs == (costs.Cost("import", "ms", (1.0,) * 3),)
    assert [cost["name"] for cost in json.loads(file.read_text())["costs"]] == ["import"]
    assert found.notes[-1] == "Interrupted while costs were measured."


def test_missing_peers_are_reported(monkeypatch, tmp_path):
    compared = []

    def measured(comparison, rounds):
        compared.extend(case.contender for case in comparison.cases)
        return report.Result(comparison.name, rounds, (outcome([1, 1, 1]),), 1.0)

    monkeypatch.setattr(command, "find_spec", lambda name: None)
    monkeypatch.setattr(command, "measure", measured)
    file = tmp_path / "report.json"
    options = ["--suite", "quick", "--peers", "torch,jax", "--json", str(file)]
    found = bench.run(parse(*options))
    assert found.missing == ("torch", "jax")
    assert compared == ["numba", "numpy"]
    assert "Not installed, so not compared: torch, jax." in bench.as_markdown(found)
    document = json.loads(file.read_text())
    assert document["missing"] == ["torch", "jax"]
    assert "load_at_end" in document["environment"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (12345.6, "12,346"),
        (99.96, "100.0"),
        (9.876, "9.88"),
        (-0.5, "-0.50"),
        (0.1, "0.10"),
        (0.01184, "0.012"),
        (0.00304, "0.003"),
        (-0.0625, "-0.062"),
        (0.0, "0.00"),
        (math.nan, "nan"),
        (math.inf, "inf"),
    ],
)
def test_numbers_are_short_and_tell_something(value, shown):
    assert figures.short(value) == shown


def test_report_as_json_and_markdown():
    outcomes = (
        outcome([9.0, 2.0, 4.0]),
        outcome([9.0, 4.0, 12.0], contender="torch"),
        outcome([9.0, 1.0, 1.0], contender="jax", error="loss 3 in epoch 1"),
        outcome([9.0, 6.0, 6.0], threads=2),
    )
    result = report.Result("tiny", 2, outcomes, peak_gflops=1.0)
    whole = bench.Report(machine.describe_environment(), (result, result))
    document = json.loads(bench.as_json(whole))
    assert document["environment"] == whole.environment
    shown = document["results"][0]["outcomes"]
    assert [entry["case"]["contender"] for entry in shown] == ["numba", "torch", "jax", "numba"]
    assert shown[1]["seconds"] == [9.0, 4.0, 12.0]
    assert shown[1]["figures"]["time_ratio"] == [2.5, 2.25, 2.75]
    assert shown[1]["figures"]["peak_megabytes"] == 3.0
    assert shown[1]["figures"]["samples_per_second"] == 64 / 8
    assert shown[2]["figures"] is None
    assert "peak_share" not in shown[3]["figures"]
    text = bench.as_markdown(whole)
    assert "2.50 (2.25-2.75)" in text
    assert "all: faster than every peer in 2 of 2, 2.50 times" in text
    assert whole.failures == ["tiny: jax: loss 3 in epoch 1"] * 2
    assert "- tiny: jax: loss 3 in epoch 1" in text


def test_time_that_processors_were_busy():
    ours = replace(outcome([9.0, 2.0, 4.0]), cpu_seconds=(9.0, 1.0, 2.0))
    theirs = replace(outcome([9.0, 4.0, 4.0], contender="torch"), cpu_seconds=(9.0, 5.0, 6.0))
    figures_of = report.Result("tiny", 2, (ours, theirs), 1.0).figures
    assert figures_of(ours)["processors"] == 3.0 / 6.0
    assert figures_of(theirs)["processors"] == 11.0 / 8.0
    assert figures_of(theirs)["time_ratio"] == (1.5, 1.25, 1.75)
    assert figures_of(theirs)["cpu_ratio"] == (4.0, 3.5, 4.5)


def test_what_a_row_costs_more_than_on_numpy():
    ours, theirs = (
        outcome([9.0, 0.64, 0.64], contender=name, task="row") for name in ("numba", "numpy")
    )
    slow = replace(theirs, seconds=(9.0, 1.28, 1.28))

    def told(*pair):
        return report._beside_numpy(report.Result("rows", 2, pair, 1.0))

    assert told(ours, slow) == ["rows: 10000.0 us, 10000.0 us less than on the NumPy backend."]
    assert told(replace(slow, case=ours.case), theirs) == [
        "rows: 20000.0 us, 10000.0 us more than on the NumPy backend."
    ]
    assert told(ours, replace(slow, error="wrong")) == []


@pytest.mark.parametrize(("suite", "batches"), [("grid", 32), ("threads", 16), ("bfloat16", 32)])
def test_rounds_of_large_networks_have_fewer_samples(suite, batches):
    for comparison in suites.suite_comparisons(suite, (), {}):
        case, flops = comparison.cases[0], suites.GRID_FLOPS
        least, most = batches * case.batch_size, min(25_600, 4_096 * case.batch_size)
        assert least <= case.samples <= max(least, most), comparison.name
        assert case.flops <= flops or case.samples == least, comparison.name
        # and no fewer than that asks for
        assert case.samples >= most or case.flops > flops / 2, comparison.name


def test_the_mean_is_of_comparisons_that_all_peers_ran():
    ours, slow = outcome([9.0, 1.0, 1.0]), outcome([9.0, 8.0, 8.0], contender="torch")
    fast = outcome([9.0, 2.0, 2.0], contender="jax")
    refused = replace(fast, error="loss 3 in epoch 1")
    found = [
        report.Result(name, 2, others, 1.0)
        for name, others in (
            ("both", (ours, slow, fast)),
            ("one", (ours, slow)),
            ("refused", (ours, slow, refused)),
            ("nobody", (ours,)),
        )
    ]
    (lines,) = report._won(found)
    assert "all: faster than every peer in 1 of 1, 2.00 times" in lines
    assert "each peer has a time for (PyTorch eager, JAX lax.scan); 2 comparisons without" in lines
    assert "left out" not in report._won(found[:1])[0]
    assert "8.00 times" in report._won(found[1:])[0]  # where JAX has none, all is alike
    apart = [report.Result("jax", 2, (ours, fast), 1.0), found[1]]
    assert report._won(apart) == [
        "No comparison has a time of each peer: JAX lax.scan, PyTorch eager."
    ]
    assert report._won(found[3:]) == []


def test_the_mean_counts_variants_that_all_peers_have():
    found = [
        report.Result(
            of.name,
            2,
            tuple(
                replace(outcome([9.0, 1.0 + case.is_peer, 1.0 + case.is_peer]), case=case)
                for case in of.cases
            ),
            1.0,
        )
        for of in suites.suite_comparisons("variants", EVERYONE, {})
    ]
    (lines,) = report._won(found)
    assert "all: faster than every peer in 2 of 2, 2.00 times" in lines
    assert "2 comparisons without some left out" in lines
    *_, dropout, batch_norm = (report._timed_peers(of) for of in found)
    assert dropout == batch_norm == ["torch", "torch.compile", "jax"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suite", "grid", "--shape", "784,10"], "--shape"),
        (["--rounds", "0"], "--rounds"),
        (["--shape", "20,10"], "MNIST"),
        (["--shape", "784,10", "--hidden", "5"], "--shape"),
        (["--suite", "quick", "--batch-size", "8", "32"], "--batch-size.*takes one, got 2"),
        (["--hidden", "5", "0"], "--hidden"),
        (["--threads", "4096"], "--threads: expected at most"),
        (
            ["--suite", "quick", "--plot", "step.png"],
            "--plot: expected one of .* got quick",
        ),
        (["--suite", "step"], "--peers: the suite step compares with nobody"),
        (["--suite", "operations"], "--peers: the suite operations compares with nobody"),
        (["--suite", "trainings", "--threads", "1"], "--threads"),
        (["--suite", "costs"], "--peers: the suite costs compares with nobody"),
        (["--batch-size", "60000"], "--batch-size: expected at most 50000, .* got 60000"),
    ],
)
def test_options_that_contradict_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        bench.run(parse("--peers", "", *options))


def test_an_unknown_peer_is_named(capsys):
    with pytest.raises(SystemExit):
        parse("--peers", "torch,abacus")
    assert "abacus" in capsys.readouterr().err


def test_costs_are_rendered():
    found = (
        costs.Cost("first fit", "s", (5.0, 6.0, 5.5)),
        costs.Cost("functions compiled", "", (0,)),
        costs.Cost("validation", "", (), "AssertionError: 1, not 2"),
    )
    rendered = report.Report(machine.describe_environment(), (), (), found)
    text = bench.as_markdown(rendered)
    for figure in ("5.50 s", "5.25-5.75", " 0 |", "- validation: AssertionError: 1, not 2"):
        assert figure in text
    assert json.loads(bench.as_json(rendered))["costs"][0]["spread"] == [5.5, 5.25, 5.75]


def test_import_is_timed():
    assert costs.run_program(costs._IMPORT.format(module="fastnn")) > 0


@pytest.mark.parametrize(
    ("program", "arguments"),
    [(costs._FIRST, [1]), (costs._ANOTHER_SHAPE, [])],
)
def test_costs_check_what_they_compute(program, arguments):
    costs.run_program(costs._NETWORK + program, *arguments)
    broken = costs._NETWORK.replace("seed=0", 'seed=0 if backend == "numpy" else 1')
    with pytest.raises(RuntimeError, match="AssertionError"):
        costs.run_program(broken + program, *arguments)


def test_validation_is_timed():
    (plain,), (validated,), (predicted,) = costs.run_program(costs._NETWORK + costs._VALIDATION, 1)
    assert min(plain, validated, predicted) > 0


def test_a_cost_that_is_computed_wrongly_is_none():
    with pytest.raises(RuntimeError, match=r"AssertionError: 1, not 2"):
        costs.run_program(costs._NETWORK + "check(1, 2)")
