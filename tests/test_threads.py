"""A team of threads: same bits as one thread, whoever leaves, whoever else is there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from conftest import perceptron
from test_epoch_kernel import Case

import fastnn
from fastnn.backends.numba_backend import plan
from fastnn.backends.numba_backend import threads as team

pytestmark = pytest.mark.skipif(team.MOST_MEMBERS == 1, reason="no teams on this system")

RESTLESS = {
    team.POLLS: 0,
    team.PATIENCE: -1,
    team.FIRST_PAUSE: 0,
    team.LONGEST_PAUSE: 0,
    team.PAUSE: 0,
}
"""Nobody waits for anybody: members part after every step, and come back at once."""

SIZES = [
    (784, 100, 200, 10),
    (784, 512, 512, 10),  # large enough for four
    (130, 257, 129, 65),  # no widths that are multiples of a vector
    (40, 700, 33, 700, 5),
    (500, 40),  # a single layer
    (17000, 1, 2),  # a layer that cannot be cut
]


def result(case: Case, threads: int, density: float = 0.3, settings=None, poison: int = 0):
    program = case.program(density)
    program.training.workspace[:] = poison
    program._words.settings.update(settings or {})
    totals = program.run(
        case.samples, case.labels, case.order, case.parameters, case.rates, threads
    )
    return case.parameters.tobytes(), *totals


@pytest.mark.parametrize("settings", [{}, RESTLESS], ids=["patient", "restless"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("batch_size", [1, 7, 32, 100])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_same_bits(sizes, batch_size, density, dtype, settings):
    results = []
    for threads in (1, 2, 3, 4):
        input_dtype = np.float32 if batch_size == 7 else np.uint8
        case = Case(sizes, batch_size, min(10 * batch_size, 150), dtype, input_dtype, density)
        # what lay in the workspace before doesn't matter either
        results.append(result(case, threads, density, settings, poison=255 * (threads % 2)))
    assert len(set(results)) == 1


def test_four_threads_against_numpy():
    case = Case((784, 512, 512, 10), 32, 100)
    parameters, loss, correct = case.reference()
    _, got_loss, got_correct = result(case, 4)
    for (weights, biases), (w, b) in zip(case.views, parameters, strict=True):
        assert np.abs(weights - w).max() <= case.tolerance()
        assert np.abs(biases - b).max() <= case.tolerance()
    assert got_loss == pytest.approx(loss, rel=1e-4)
    assert got_correct == correct


def test_a_slow_team_parts():
    """A caller that believes it is faster alone sends the others away, and no bit changes."""
    expected = result(Case((784, 100, 200, 10), 32, 2000), 1)
    for _ in range(100):  # until the others come in time
        case = Case((784, 100, 200, 10), 32, 2000)
        program = case.program()
        program._words.settings[team.ALONE] = 1
        totals = program.run(case.samples, case.labels, case.order, case.parameters, case.rates, 2)
        assert (case.parameters.tobytes(), *totals) == expected
        if program._words.settings[team.PAUSE] > team.SETTINGS[team.PAUSE]:
            return
    pytest.fail("the team stayed together")


def busy():
    """Return a process that is always busy."""
    return subprocess.Popen([sys.executable, "-c", "while True: pass"])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no choice of cores")
def test_same_bits_on_one_core_beside_a_busy_process():
    """The threads of the team, and another program, all on one core."""
    expected = result(Case((784, 100, 200, 10), 32, 2000), 1)
    cores = os.sched_getaffinity(0)
    other = busy()
    try:
        os.sched_setaffinity(other.pid, {min(cores)})
        os.sched_setaffinity(0, {min(cores)})
        for _ in range(3):
            assert result(Case((784, 100, 200, 10), 32, 2000), 2) == expected
    finally:
        os.sched_setaffinity(0, cores)
        other.kill()
        other.wait()


def weights_after_fit(threads, X, y, seed=0):
    network = perceptron(784, 256, 128, 10, seed=seed, backend="numba")
    history = network.fit(X, y, epochs=2, threads=threads)
    return network._parameters.tobytes(), tuple(history.loss)


def test_fit(digits):
    X, y, _, _ = digits
    results = {weights_after_fit(threads, X, y) for threads in (None, 1, 2, 3, 4, 1000)}
    assert len(results) == 1


def test_several_fits_at_once(digits):
    X, y, _, _ = digits
    expected = [weights_after_fit(1, X, y, seed) for seed in range(4)]
    got = [None] * 4

    def fit(seed):
        got[seed] = weights_after_fit(2, X, y, seed)

    fits = [threading.Thread(target=fit, args=(seed,), daemon=True) for seed in range(4)]
    for thread in fits:
        thread.start()
    for thread in fits:
        thread.join(60)
    assert got == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_fork(digits):
    X, y, _, _ = digits
    expected = weights_after_fit(2, X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Python warns of a fork with several threads
        child = os.fork()
    if child == 0:
        os._exit(0 if weights_after_fit(2, X, y) == expected else 1)
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 0
    assert weights_after_fit(2, X, y) == expected


def processor_seconds():
    """Seconds that this process has computed."""
    times = os.times()
    return times.user + times.system


def test_idle_threads_sleep(digits):
    X, y, _, _ = digits
    weights_after_fit(2, X, y)
    assert team._team._threads
    assert all(thread.daemon for thread in team._team._threads)
    start = processor_seconds()
    time.sleep(0.5)
    assert processor_seconds() - start < 0.1


def test_an_exception_of_the_caller_stops_the_others():
    case = Case((784, 100, 200, 10), 32, 2000)
    program = case.program()
    words = program._words.new()
    ended = threading.Event()

    def function(member):
        if member == 0:
            raise KeyboardInterrupt
        plan.run(
            case.dtype.type(1), program.training.shared, program.training.layers,
            case.samples.ctypes.data, case.labels.ctypes.data, case.order.ctypes.data,
            len(case.order), case.parameters.ctypes.data, case.rates, 0,
            words.ctypes.data, member, 2,
        )  # fmt: skip
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        team._team.run(function, 2, words)
    assert ended.is_set()
    assert case.parameters.tobytes() == case.initial.tobytes()
    # the team goes on
    expected = result(Case((784, 100, 200, 10)), 1)
    assert result(Case((784, 100, 200, 10)), 2) == expected


def test_an_exception_of_another_member_is_raised_here():
    words = plan.Words().new()

    def function(member):
        if member == 1:
            raise MemoryError

    with pytest.raises(MemoryError):
        team._team.run(function, 2, words)


def test_interrupt_and_exit():
    """Ctrl-C ends a fit on two threads soon, and the process can end."""
    program = (
        "import fastnn, numpy as np, _thread, threading\n"
        "X = np.random.default_rng(0).random((20000, 784), np.float32)\n"
        "y = np.zeros(20000, int)\n"
        "layers = [fastnn.Dense(784, 256), fastnn.ReLU(), fastnn.Dense(256, 10)]\n"
        "network = fastnn.Network(layers, backend='numba')\n"
        "network.fit(X[:100], y[:100], threads=2)\n"
        "threading.Timer(1, _thread.interrupt_main).start()\n"
        "try:\n"
        "    network.fit(X, y, epochs=10**6, threads=2)\n"
        "except KeyboardInterrupt:\n"
        "    print('stopped', np.isfinite(network._parameters).all())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "stopped True\n"


def test_words_of_different_writers_share_no_line():
    assert len(set(team.PLACES.values())) == len(team.PLACES)
    assert all(place % team.PLACE_BYTES == 0 for place in team.PLACES.values())
    assert plan.Words().new().nbytes == len(team.PLACES) * team.PLACE_BYTES


class TestChoice:
    """How many threads share the work."""

    @staticmethod
    def chosen(*sizes, batch_size=32, density=0.2):
        case = Case(sizes, batch_size, samples=1)
        return plan.Program(
            case.layers, batch_size=batch_size, density=density
        ).default_threads  # fmt: skip

    def test_by_work(self, monkeypatch):
        monkeypatch.setattr(plan, "usable_cores", lambda: 64)
        assert self.chosen(784, 10) == 1
        assert self.chosen(784, 100, 200, 10) == 1
        assert self.chosen(784, 512, 512, 10) == 2
        assert self.chosen(784, 2048, 2048, 10, batch_size=512) == 4

    @pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (3, 2), (4, 4)])
    def test_never_more_than_cores(self, cores, threads, monkeypatch):
        monkeypatch.setattr(plan, "usable_cores", lambda: cores)
        assert self.chosen(784, 2048, 2048, 10, batch_size=512) == threads

    @pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no choice of cores")
    def test_cores_that_the_process_may_use(self):
        cores = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(cores)})
            assert team.usable_cores() == 1
        finally:
            os.sched_setaffinity(0, cores)

    @pytest.mark.parametrize(
        ("value", "error"),
        [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError)],
    )
    def test_bad_numbers(self, value, error):
        network = perceptron(3, 2)
        with pytest.raises(error, match="threads: expected an integer of at least 1"):
            network.fit(np.zeros((4, 3)), np.zeros(4, int), threads=value)

    @pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
    def test_bad_environment(self, value, monkeypatch):
        monkeypatch.setenv("FASTNN_NUM_THREADS", value)
        network = perceptron(3, 2)
        with pytest.raises(ValueError, match="FASTNN_NUM_THREADS: expected an integer"):
            network.fit(np.zeros((4, 3)), np.zeros(4, int))
        network.fit(np.zeros((4, 3)), np.zeros(4, int), threads=1)

    @pytest.mark.parametrize(
        ("environment", "argument", "expected"),
        [("2", None, 2), ("", None, 1), ("3", 1, 1), (" 4 ", 2, 2)],
    )
    def test_environment(self, environment, argument, expected, monkeypatch):
        monkeypatch.setenv("FASTNN_NUM_THREADS", environment)
        asked = []
        real = plan.run_together

        def noting(function, members, words):
            asked.append(members)
            real(function, members, words)

        monkeypatch.setattr(plan, "run_together", noting)
        network = perceptron(784, 100, 10, backend="numba")
        network.fit(np.zeros((100, 784)), np.zeros(100, int), threads=argument)
        assert set(asked) == {min(expected, 2)}

    def test_explanation(self):
        large = perceptron(784, 512, 512, 10, backend="numba")
        assert large.explain().endswith("up to 4 threads share a step")
        assert perceptron(3, 2, backend="numba").explain().endswith("on one thread")

    def test_layer_path_takes_no_notice(self):
        network = fastnn.Network([fastnn.Dense(3, 2)], backend="numpy", seed=0)
        network.fit(np.zeros((4, 3)), np.zeros(4, int), threads=2)
