"""The table of workloads and its faces. Nothing here depends on a time."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from fastnn import backends, bench, layers, losses, optimizers
from fastnn.backends import numpy_backend
from fastnn.bench import WORKLOADS, command, machine, picture, ratios, rounds, turns
from fastnn.bench.cases import Case
from fastnn.bench.measuring import environment
from fastnn.bench.operations import OPERATIONS, Problem
from fastnn.bench.processes import PROCESSES, Answer, Process
from fastnn.bench.ratios import Ratio
from fastnn.bench.threads import CHOSEN_KERNELS, THREAD_VARIABLES
from fastnn.bench.trainings import LAYERS, TRAININGS

SIZES = ["tiny", "small", "medium", "large"]
BY_LABEL = {}
for _workload in WORKLOADS:
    BY_LABEL.setdefault(f"{_workload.group}: {_workload.label}", []).append(_workload)


@pytest.fixture
def faces(monkeypatch):
    """As asv imports it; it sets variables for all that is imported later."""
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "1")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import over_commits
    import over_commits.operations
    import over_commits.processes
    import over_commits.trainings

    return over_commits


def test_every_operation_of_the_protocol_has_workloads():
    protocol = {
        name
        for name, _ in inspect.getmembers(backends.Backend, inspect.isfunction)
        if not name.startswith("_")
    }
    # `prepare` has kernels compiled, and computes nothing: "first step, nothing cached" has it
    assert {operation.name for operation in OPERATIONS} == protocol - {"prepare"}


@pytest.mark.parametrize("name", ["elementwise_forward", "elementwise_backward"])
def test_every_function_has_workloads(name):
    functions = [operation.variant for operation in OPERATIONS if operation.name == name]
    assert sorted(functions) == sorted(numpy_backend.ELEMENTWISE)


def test_every_layer_optimiser_and_loss_has_a_training():
    by_group = {}
    for training in TRAININGS:
        by_group.setdefault(training.group, []).append(training)
    assert set(LAYERS) == {kind.__name__ for kind in layers.BUILT_IN}
    assert {type(make(3)) for make in LAYERS.values()} == set(layers.BUILT_IN)
    assert {type(of.optimizer()) for of in by_group["optimizers"]} == set(optimizers.BUILT_IN)
    assert {of.loss for of in by_group["losses"]} == {kind.name for kind in losses.BUILT_IN}


@pytest.mark.parametrize("label", BY_LABEL)
def test_all_have_all_sizes_and_dtypes(label):
    found = [(workload.size, workload.dtype) for workload in BY_LABEL[label]]
    sizes = ["whole"] if label.startswith("processes") else SIZES
    dtypes = ["float32", "float64"] if "bfloat16" not in label else ["float32"]
    assert found == [(size, dtype) for size in sizes for dtype in dtypes]


def test_names_are_unique():
    assert len({workload.name for workload in WORKLOADS}) == len(WORKLOADS)


@dataclass
class Computed:
    """A reference for several outcomes."""

    numbers: list[np.ndarray]

    def outcome(self) -> list[np.ndarray]:
        return self.numbers


@pytest.mark.parametrize("label", [name for name in BY_LABEL if not name.startswith("processes")])
def test_workloads_hold_on_the_backend_asked_for(label, backend, monkeypatch):
    operations = label.startswith("operations")
    for workload in BY_LABEL[label]:
        if workload.size == "tiny" or (operations and workload.size == "small"):
            outcome = workload.outcome(backend)
            right = Computed(workload.row.reference(workload.size, workload.dtype).outcome())
            with monkeypatch.context() as patched:
                patched.setattr(type(workload.row), "reference", lambda *_, right=right: right)
                workload.check(outcome)
                for place, array in enumerate(outcome):
                    wrong = [*outcome[:place], array + 0.125, *outcome[place + 1 :]]
                    with pytest.raises(AssertionError):
                        workload.check(wrong)


@pytest.mark.parametrize("training", TRAININGS, ids=lambda training: training.label)
def test_every_training_begins_anew(training):
    if training.label == "Dropout":
        pytest.skip("of its masks each training draws its own")
    train = training.problem("tiny", "numba", "float32").call
    assert train() == train()


def test_steps_can_be_taken_again_and_again(backend):
    for operation in OPERATIONS:
        if operation.shapes["tiny"] == (64,):
            problem = operation.problem("tiny", backend, "float32")
            for _ in range(1_000):
                problem.call()
            assert all(np.isfinite(array).all() for array in problem.outcome()), operation.label


def test_every_call_clips():
    clip = next(of for of in OPERATIONS if of.name == "clip_by_global_norm")
    problem = clip.problem("tiny", "numba", "float32")
    norms = [np.linalg.norm(problem.outcome()[0]) for _ in range(100)]
    assert all(norm > after for norm, after in pairwise(norms))
    assert norms[-1] == pytest.approx(1e-6 / 100, rel=1e-3)


def test_processes_say_result_and_memory(backend):
    first, peak_bytes = PROCESSES[2].run(backend, "float32")
    assert 2 < first < 3
    assert peak_bytes is None or peak_bytes > 20_000_000
    with pytest.raises(RuntimeError, match="abacus"):
        PROCESSES[0].run("abacus", "float32")


def test_asv_has_every_workload(faces):
    modules = faces.operations, faces.trainings, faces.processes
    classes = [
        thing
        for module in modules
        for name, thing in vars(module).items()
        if hasattr(thing, "time_call") and not name.startswith("_")
    ]
    found = [workload for kind in classes for workload in kind.workloads.values()]
    assert sorted(w.name for w in found) == sorted(w.name for w in WORKLOADS)
    for kind in classes:
        sizes, dtypes, names = kind.params
        assert list(kind.workloads) == [(size, dtype) for size in sizes for dtype in dtypes]
        assert names == ["numba", "numpy"]
    timed = faces.operations.dense_backward()
    timed.setup("tiny", "float32", "numba")
    timed.time_call("tiny", "float32", "numba")


def test_pages_of_asv_name_what_they_show(faces):
    shown = {
        (function.pretty_name, getattr(function, "unit", "seconds"))
        for module in (faces.operations, faces.trainings, faces.processes)
        for thing in vars(module).values()
        if isinstance(thing, type)
        for name, function in vars(thing).items()
        if name.startswith(("time_", "track_"))
    }
    assert ("elementwise_forward relu", "seconds") in shown
    assert ("layers: ReLU", "seconds") in shown
    assert ("epoch of MNIST: peak memory", "bytes") in shown
    assert ("epoch of MNIST: share of wrong answers", "share of wrong answers") in shown
    labels = {(workload.group, workload.label) for workload in WORKLOADS}
    assert len(shown) == len(labels) + 4 + 3  # memory of four processes, results of three


def test_a_sample_of_asv_is_many_calls_of_what_is_made_once(faces, monkeypatch):
    timed = faces.operations.sgd_step()
    timed.setup("tiny", "float32", "numpy")
    timed.call, calls = (lambda: counted.append(1)), timed.calls
    counted = []
    timed.setup("tiny", "float32", "numpy")
    timed.time_call("tiny", "float32", "numpy")
    assert len(counted) == calls > 1
    monkeypatch.setattr(faces.time, "perf_counter", lambda: 3.0 * calls)
    assert timed.timer() == 3.0


def test_what_asv_tracks_is_worse_where_it_is_more(faces, monkeypatch):
    def tracked(kind, result: float) -> float:
        monkeypatch.setattr(Process, "run", lambda *_, **__: Answer(result, None))
        return kind().track_result("whole", "float32", "numpy")

    assert tracked(faces.processes.epoch_of_MNIST, 0.75) == 0.25
    assert tracked(faces.processes.first_step, 2.5) == 2.5


def test_kernels_are_there_when_asv_times_a_process(faces, monkeypatch):
    def runs(kind) -> int:
        done = []
        monkeypatch.setattr(Process, "run", lambda *_, **__: done.append(1) or Answer(2.5, None))
        started = kind()
        started.setup("whole", "float32", "numba")
        started.setup("whole", "float32", "numba")
        return len(done)

    assert runs(faces.processes.first_step) == 1
    assert runs(faces.processes.first_step_nothing_cached) == 0


def test_asv_tracks_no_wrong_result(faces, monkeypatch):
    monkeypatch.setattr(
        Process, "run", lambda row, backend, dtype: Answer(2.5 if dtype == "float64" else 3.5, None)
    )
    with pytest.raises(AssertionError):
        faces.processes.first_step().track_result("whole", "float32", "numpy")


def test_asv_keeps_results_by_what_is_computed(faces):
    def version(workload, **changes) -> str:
        return faces._version([replace(workload, row=replace(workload.row, **changes))])

    of = {name: label[1] for name, label in BY_LABEL.items()}  # small, float32 or float64
    step = of["operations: sgd_step"]
    plain = version(step)
    assert plain == version(step, epsilons=9)
    assert plain != version(step, shapes=step.row.shapes | {step.size: (3_000,)})
    assert plain != version(step, arguments=lambda d, n: (d(n), d(n), 0.5))
    training, prediction = of["optimizers: sgd"], of["prediction: predict_proba one row"]
    assert version(training) != version(training, optimizer=lambda: optimizers.SGD(0.2))
    assert version(training) != version(training, layer=LAYERS["Tanh"])
    assert version(prediction) != version(prediction, rows=2)
    process = of["processes: first step"]
    assert version(process) != version(process, program="result = 1.0")
    versions = [faces._version(workloads) for workloads in BY_LABEL.values()]
    assert len(set(versions)) == len(versions)
    assert faces.operations.sgd_step.version == faces._version(BY_LABEL["operations: sgd_step"])


def test_asv_times_its_own_table_on_the_fastnn_that_is_installed(tmp_path):
    """Of an earlier commit, say, which has another table, or none."""
    package = tmp_path / "fastnn"
    (package / "bench").mkdir(parents=True)
    (package / "bench" / "__init__.py").write_text("raise AssertionError('the table of another')")
    for path in (ROOT / "fastnn").iterdir():
        if path.name not in ("bench", "__pycache__"):
            (package / path.name).symlink_to(path)
    program = (
        "import sys\n"
        "sys.path.insert(0, 'benchmarks')\n"
        "import fastnn, over_commits.operations, over_commits.processes\n"
        "from fastnn.bench import machine\n"
        "step = over_commits.operations.sgd_step()\n"
        "step.setup('tiny', 'float32', 'numpy')\n"
        "step.time_call('tiny', 'float32', 'numpy')\n"
        "started = getattr(over_commits.processes, 'import')()\n"
        "started.setup('whole', 'float32', 'numpy')\n"
        "started.track_peak_memory('whole', 'float32', 'numpy')\n"
        "print(fastnn.__file__, machine.ROOT, sep='\\n')\n"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.split() == [str(package / "__init__.py"), str(tmp_path)]


@pytest.mark.parametrize("file", ["over_commits/__init__.py", "conftest.py"])
def test_every_library_has_one_thread_before_numpy_is_imported(file):
    program = (
        "import os, runpy, sys\n"
        "sys.modules['numpy'] = None\n"
        "try:\n"
        "    runpy.run_path(sys.argv[1])\n"
        "except ImportError:\n"
        "    print(*sorted(name for name, value in os.environ.items() if value == '1'))\n"
    )
    kept = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    run = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "benchmarks" / file)],
        env=kept,
        check=True,
        capture_output=True,
        text=True,
    )
    assert {"OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"} < set(THREAD_VARIABLES)
    assert set(THREAD_VARIABLES) <= set(run.stdout.split())


def test_asv_imports_with_what_fastnn_needs():
    """It imports every file of the folder, in an environment that has nothing else."""
    program = (
        "import importlib, pkgutil, sys\n"
        "for name in ('pytest', 'sklearn', 'matplotlib', 'scipy', 'pandas'):\n"
        "    sys.modules[name] = None\n"
        "sys.path.insert(0, 'benchmarks')\n"
        "import over_commits\n"
        "for module in pkgutil.iter_modules(over_commits.__path__):\n"
        "    print(importlib.import_module(f'over_commits.{module.name}').__name__)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert run.stdout.split() == [
        f"over_commits.{of}" for of in ("operations", "processes", "trainings")
    ]


@dataclass(frozen=True)
class Off:
    """A row whose result is off by `error` on Numba."""

    error: float
    label: str = "off"

    def problem(self, size: str, backend: str, dtype: str) -> Problem:
        return Problem(lambda: 1.0 + self.error * (backend == "numba"))

    def reference(self, size: str, dtype: str) -> Problem:
        return Problem(lambda: 1.0)


def test_who_computes_something_else_gets_no_time(monkeypatch):
    monkeypatch.setattr(rounds, "ROUND_SECONDS", 1e-6)
    workload = bench.Workload("operations", Off(0.01), "tiny", "float32", 1e-3)
    with pytest.raises(AssertionError, match="tolerance"):
        turns.timed(workload, 2)
    seconds = turns.timed(replace(workload, row=Off(0.0001)), 2)
    assert {backend: len(of) for backend, of in seconds.items()} == {"numpy": 2, "numba": 2}


def test_backends_are_timed_in_turn(monkeypatch):
    order = []

    @dataclass(frozen=True)
    class Noted(Off):
        def problem(self, size: str, backend: str, dtype: str) -> Problem:
            return Problem(lambda: order.append(backend) or 1.0)

    monkeypatch.setattr(rounds, "ROUND_SECONDS", 0.0)
    turns.timed(bench.Workload("operations", Noted(0.0), "tiny", "float32", 0.0), 3)
    assert order[-6:] == ["numpy", "numba"] * 3


def test_a_first_call_that_takes_long_makes_no_round_short(monkeypatch):
    """Nor does one that something else disturbs: a round has as many calls as others need."""
    clock, taken = [0.0], []

    def call(name: str, slow: tuple[int, ...]) -> None:
        number = taken.count(name)
        taken.append(name)
        clock[0] += 5.0 if number in slow else 0.25

    monkeypatch.setattr(rounds.time, "perf_counter", lambda: clock[0])
    calls = {
        "steady": lambda: call("steady", ()),
        "slow at first": lambda: call("slow at first", (0,)),
        "disturbed": lambda: call("disturbed", (1,)),
    }
    found = rounds.in_turn(calls, 3, least=2.0)
    assert found == {name: [0.25] * 3 for name in calls}
    assert taken[-24:] == [name for name in calls for _ in range(8)]


def test_ratios_come_from_a_process_of_their_own():
    workloads = [w for w in ratios.chosen("operations", "float64") if w.size == "tiny"][:2]
    found = list(ratios.measure_ratios(workloads, 3, environment(Case("numba"))))
    assert [ratio.label for ratio in found] == [workload.label for workload in workloads]
    for ratio in found:
        assert len(ratio.seconds["numpy"]) == len(ratio.seconds["numba"]) == 3
        assert ratio.spread.lower <= ratio.spread.median <= ratio.spread.upper


def test_a_process_that_dies_says_why(monkeypatch):
    unknown = bench.Workload("operations", Off(0.0), "tiny", "float32", 0.0)
    with pytest.raises(RuntimeError, match="KeyError: 'operations-off-tiny-float32'"):
        list(ratios.measure_ratios([unknown], 3, environment(Case("numba"))))


FOUND = (
    Ratio("layers", "ReLU", "tiny", "float32", {"numpy": (2.0, 4.0, 6.0), "numba": (1, 1, 1)}),
    Ratio("layers", "ReLU", "large", "float32", {"numpy": (1.0,), "numba": (4.0,)}),
    Ratio("layers", "Tanh", "large", "float32", {}, "0.5, not 0.25"),
)


def test_ratios_as_markdown_and_json():
    report = bench.Report(machine.describe_environment(), (), ratios=FOUND)
    text = bench.as_markdown(report)
    assert "### layers, float32" in text
    assert "| layers |             tiny |            large |" in text
    assert "| ReLU   | 4.00 (3.00-5.00) | 0.25 (0.25-0.25) |" in text
    assert "| Tanh   |                - |                - |" in text
    assert "Numba is faster in 1 of 2, 1.00 times in the geometric mean." in text
    assert "- Tanh, large, float32: 0.5, not 0.25" in text
    first, _, last = json.loads(bench.as_json(report))["ratios"]
    assert first["spread"] == [4.0, 3.0, 5.0]
    assert last["spread"] is None


def test_the_command_draws_and_writes(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    asked = []

    def measured(workloads, rounds, environment):
        asked.extend(workloads)
        assert environment["OPENBLAS_NUM_THREADS"] == environment["FASTNN_NUM_THREADS"] == "1"
        yield from FOUND
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "measure_ratios", measured)
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    drawn, file = tmp_path / "ratios.svg", tmp_path / "ratios.json"
    options = ["--suite", "trainings", "--dtype", "float32", "--plot", str(drawn)]
    report = bench.run(parser.parse_args([*options, "--json", str(file)]))
    assert {w.group for w in asked} == {"layers", "optimizers", "losses", "prediction"}
    assert {w.dtype for w in asked} == {"float32"}
    assert report.ratios == FOUND
    assert report.notes == (f"Interrupted after 3 of {len(asked)} comparisons.",)
    assert len(json.loads(file.read_text())["ratios"]) == 3
    assert drawn.read_text().count("<svg") == 1


@pytest.mark.parametrize(("most", "named"), [(60.0, {"2", "5"}), (60_000.0, set())])
def test_numbers_between_powers_of_ten_are_named_where_there_is_room(monkeypatch, most, named):
    pytest.importorskip("matplotlib")
    figures = []
    monkeypatch.setattr(picture.plotting, "write", lambda figure, path: figures.append(figure))
    found = [
        Ratio("layers", label, "tiny", "float32", {"numpy": (times,), "numba": (1.0,)})
        for label, times in (("ReLU", 1.0), ("Tanh", most))
    ]
    picture.draw_ratios(found, Path("ratios.png"))
    figures[0].canvas.draw()
    shown = {label.get_text() for label in figures[0].axes[0].get_xticklabels()}
    assert {"1", "10"} <= shown
    assert shown & {"2", "5"} == named


@pytest.mark.parametrize(
    "module",
    [
        "benchmarks.conftest",
        "benchmarks.against_sklearn",
        *(f"benchmarks.{of}.__main__" for of in ("edges", "exercises", "figures", "ladder")),
        "over_commits",  # as asv finds it
    ],
)
def test_openblas_chooses_its_kernels_before_numpy_is_imported(module):
    program = (
        "import contextlib, importlib, os, sys\n"
        "sys.path[:0] = sys.argv[2:]\n"
        "sys.modules['numpy'] = None\n"
        "with contextlib.suppress(ImportError):\n"
        "    importlib.import_module(sys.argv[1])\n"
        "print(*(name for name in os.environ if name.startswith('OPENBLAS')))\n"
    )
    told = dict.fromkeys(CHOSEN_KERNELS, "Prescott") | {"OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", program, module, str(ROOT), str(ROOT / "benchmarks")],
        env=os.environ | told,
        check=True,
        capture_output=True,
        text=True,
    )
    assert set(CHOSEN_KERNELS) == {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}
    assert run.stdout.split() == ["OPENBLAS_NUM_THREADS"]
