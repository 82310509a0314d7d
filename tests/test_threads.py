"""A team of threads: same bits as one thread, whoever leaves, whoever else is there."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
from conftest import in_pairs, perceptron
from test_epoch_kernel import CACHED_BYTES, Case
from test_epoch_stages import MIXED, D
from test_epoch_stages import Case as StagesCase

import fastnn
from fastnn import guards, memory
from fastnn.backends import description
from fastnn.backends.numba_backend.epoch import blocks, meetings, sharing
from fastnn.backends.numba_backend.epoch import program as program_module
from fastnn.backends.numba_backend.epoch import table as epoch_table
from fastnn.backends.numba_backend.epoch import threads as team_threads
from fastnn.backends.numba_backend.epoch.program import Program
from fastnn.backends.numba_backend.epoch.sharing import MEMBER
from fastnn.backends.numba_backend.epoch.step import entry_for
from fastnn.backends.numba_backend.epoch.threads import run_together
from fastnn.backends.numba_backend.jit import jit
from fastnn.processors import cores as cores_of_machine

pytestmark = pytest.mark.skipif(meetings.MOST_MEMBERS == 1, reason="no teams on this system")

TEAM = "fastnn.backends.numba_backend.epoch.team"

RESTLESS = {
    meetings.ENOUGH_TIME: 0, meetings.ENOUGH_STEPS: 1, meetings.PAUSE: 0, meetings.LONGEST_PAUSE: 0,
    meetings.ALONE_TIME: 0, meetings.ALONE_STEPS: 1 << 62,
}  # fmt: skip
"""Members believe that the caller is faster alone: they part after every step, and come back."""

SETTINGS = {"patient": {}, "restless": RESTLESS}

SIZES = [
    (784, 100, 200, 10),
    (784, 800, 800, 10),  # large enough for four, and to share dense input by outputs
    (130, 257, 129, 65),  # no widths that are multiples of a vector
    (40, 700, 33, 700, 5),
    (500, 40),  # a single layer
    (17000, 1, 2),  # a layer that cannot be cut
    (700, 33, 700, 700, 3),  # chunks without units
]

STAGED = {
    "input": (300, "norm", "dropout", D, 100, "relu", D, 50, "tanh", D, 10),
    "deep": (*MIXED[:-2], D, 300, "norm", "relu", "dropout", D, 200, "sigmoid", D, 5),
    "top": (300, "rescale", D, 100, "norm", D, 40, "norm", "sigmoid"),
}


def _of_members(program, threads):
    """The tables of the other members of a team."""
    members = program.members(threads)
    return program._team(members).tables[1:] if members > 1 else []


def teams_of(program):
    """The numbers of threads of which each has another team, of up to four."""
    return sorted({program.members(threads) for threads in (1, 2, 4)})


def result(case: Case, threads: int, density: float = 0.3, settings=None, value: str = "00"):
    case.parameters[:] = case.initial
    program = case.program(density)
    for table in [program.training, *_of_members(program, threads)]:
        table.fill(value)
    program._signals.settings.update(settings or {})
    totals = program.prepare(
        case.samples, case.labels, case.order, case.parameters, case.rates, threads=threads
    )()
    return case.parameters.tobytes(), *totals


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(
    *in_pairs(
        sizes=SIZES, batch_size=(3, 7, 32, 100), density=(0.2, 1.0), dtype=("float32", "float64")
    ),
    ids=str,
)
def test_same_bits(sizes, batch_size, density, dtype, settings):
    input_dtype = np.float32 if batch_size == 7 else np.uint8
    steps = 4 if settings == "patient" else 12
    case = Case(sizes, batch_size, min(steps * batch_size - 1, 150), dtype, input_dtype, density)
    results = []
    for threads in teams_of(case.program()):
        # what lay in the workspace before doesn't matter either
        value = guards.FILLS[threads % 3]
        results.append(result(case, threads, density, SETTINGS[settings], value))
    assert len(results) > 1
    assert len(set(results)) == 1


def test_a_team_is_a_power_of_two():
    large, small = (Case(sizes, 32, 1).program() for sizes in (SIZES[1], SIZES[0]))
    assert [large.members(threads) for threads in range(1, 9)] == [1, 2, 2, 4, 4, 4, 4, 4]
    assert [small.members(threads) for threads in range(1, 9)] == [1, 2, 2, 2, 2, 2, 2, 2]
    for batch_size, members in ((blocks.FEW_SAMPLES, 1), (blocks.FEW_SAMPLES + 1, 4)):
        assert Case(SIZES[1], batch_size, 1).program().members(4) == members


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize(
    *in_pairs(sizes=SIZES, cached_bytes=CACHED_BYTES, dtype=("float32", "float64")), ids=str
)
def test_same_bits_whatever_the_first_level_cache_holds(sizes, cached_bytes, dtype, monkeypatch):
    monkeypatch.setattr(epoch_table, "CACHED_BYTES", cached_bytes)
    case = Case(sizes, 32, 40, dtype, np.uint8, 0.2)
    results = [
        result(case, threads, 0.2, value=guards.FILLS[threads % 3])
        for threads in teams_of(case.program())
    ]
    assert len(set(results)) == 1


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize(
    *in_pairs(
        spec=STAGED, batch_size=(3, 40), dtype=("float32", "float64"), settings=SETTINGS,
        trained=[("sgd", 0.0, 0.0), ("sgd", 0.01, 0.0), ("adam", 0.01, 0.0), ("adam", 0.01, 0.1)],
    ),
    ids=str,
)  # fmt: skip
def test_same_bits_with_stages_and_rules(spec, batch_size, dtype, settings, trained):
    rule, l2, clip_norm = trained
    case = StagesCase(
        *STAGED[spec], loss="mse", batch_size=batch_size, samples=4 * batch_size - 1,
        dtype=dtype, real_targets=True,
    )  # fmt: skip
    kind = description.Rule(rule, 0.9, 0.999, 1e-8)
    layers = [
        replace(layer, rule=kind, l2=l2) if isinstance(layer, description.Dense)
        else replace(layer, rule=kind) if isinstance(layer, description.BatchNorm)
        else layer
        for layer in case.layers
    ]  # fmt: skip

    def new_program():
        return Program(
            layers, "mse", batch_size, case.dtype, case.samples.dtype, 0.4, clip_norm=clip_norm
        )

    results = []
    for threads in teams_of(new_program()):
        case.parameters[:] = case.initial
        program = new_program()
        program._signals.settings.update(SETTINGS[settings])
        states = [memory.aligned_zeros(case.parameters.size, case.dtype) for _ in range(2)]
        totals = program.prepare(
            case.samples, case.targets, case.order, case.parameters,
            np.tile([0.01, 0.01, 0.01, 2.0], (4, len(program._structure.learned), 1)), states,
            dropout_steps=case.steps.copy(), threads=threads,
        )()  # fmt: skip
        vectors = (case.parameters, *states)
        results.append((*(vector.tobytes() for vector in vectors), *totals))
    assert len(results) > 1
    assert len(set(results)) == 1
    assert np.isfinite(totals[0])


def test_a_team_works_together(met):
    """A team whose members never came in time would give the right bits as well."""
    for threads in (2, 4):
        met.clear()
        for _ in range(100):
            result(Case((784, 800, 800, 10), 32, 2000), threads)
            if met[-1] > 0:
                break
        else:
            pytest.fail(f"{threads} threads never met")


@pytest.mark.parametrize("samples", [0, 5, 32])
def test_nobody_is_woken_for_a_single_step(samples, monkeypatch):
    """As full batches take: one step an epoch, which the caller begins before others are awake."""
    expected = result(Case((784, 100, 10), 32, samples), 1)
    monkeypatch.setattr(f"{TEAM}.run_together", lambda *_: pytest.fail("somebody was woken"))
    assert result(Case((784, 100, 10), 32, samples), 2) == expected


@pytest.mark.parametrize(
    ("milliseconds", "expected"), [(0.04, 0.005), (2.4, 0.3), (7, 0.5), (16, 0.5), (64, 2)]
)
def test_patience_is_as_long_as_members_need_but_a_small_part_of_a_step(milliseconds, expected):
    signals = meetings.Signals()
    signals.patience()
    signals.patience()
    signals.settings.update({meetings.ALONE_TIME: milliseconds * 3e6, meetings.ALONE_STEPS: 3})
    assert signals.patience() == expected * 1e6


@pytest.mark.parametrize("samples", [32, 64])
def test_a_long_step_is_worth_waiting_for(samples, met):
    """Calls of one or two steps: once the caller knows that they are long, it waits for members."""
    shape = (784, 800, 800, 10), 32, samples
    known = {meetings.ALONE_TIME: 1 << 40, meetings.ALONE_STEPS: 1 << 10}  # a second for each
    alone = result(Case(*shape), 1)
    for _ in range(100):  # until the others come in time
        assert result(Case(*shape), 2, settings=known) == alone
        if met[-1] > 0:
            return
    pytest.fail("nobody was waited for")


def test_some_steps_are_taken_alone():
    """A caller that always waited would have nothing to compare steps together with."""
    signals = meetings.Signals()
    assert signals.patience() == 0  # what a step takes isn't known yet
    signals.settings.update({meetings.ALONE_TIME: 800, meetings.ALONE_STEPS: 2})
    patience = [signals.patience() for _ in range(2, 10 * meetings.CALLS_TO_COMPARE + 1)]
    assert set(patience) == {0, 50}
    assert [call for call, wait in enumerate(patience, 2) if wait == 0] == [
        *(2, 4, 8, 16),
        *range(meetings.CALLS_TO_COMPARE, 10 * meetings.CALLS_TO_COMPARE + 1, 32),
    ]


def test_four_threads_against_numpy():
    # in float32 one of so many units may be beside its kink, and part from NumPy's as a whole
    case = Case((784, 800, 800, 10), 32, 100, dtype=np.dtype(np.float64))
    parameters, loss, correct = case.reference()
    _, got_loss, got_correct = result(case, 4)
    for (weights, biases), (w, b) in zip(case.views, parameters, strict=True):
        assert np.abs(weights - w).max() <= case.tolerance()
        assert np.abs(biases - b).max() <= case.tolerance()
    assert got_loss == pytest.approx(loss, rel=1e-4)
    assert got_correct == correct


@pytest.mark.parametrize("units", [1, 15, 33, 100, 784, 1000])
@pytest.mark.parametrize("itemsize", [4, 8])
def test_chunks_are_lines_and_about_equal(units, itemsize):
    line = memory.LINE_BYTES // itemsize
    for chunks in (1, 2, 4):
        starts = sharing.chunk_starts(units, chunks, itemsize)
        assert starts[0] == 0
        assert starts[-1] == units
        assert all(start % line == 0 for start in starts[:-1])
        lengths = np.diff(starts)
        assert lengths.min() >= 0
        assert lengths.max() <= units / chunks + line


def test_a_slow_team_parts():
    """A caller that is faster alone sends the others away, and no bit changes."""
    expected = result(Case((784, 100, 200, 10), 32, 2000), 1)
    for _ in range(100):  # until the others come in time
        case = Case((784, 100, 200, 10), 32, 2000)
        program = case.program()
        program._signals.settings.update(RESTLESS | {meetings.PAUSE: 10})
        totals = program.prepare(
            case.samples, case.labels, case.order, case.parameters, case.rates, threads=2
        )()
        assert (case.parameters.tobytes(), *totals) == expected
        if program._signals.settings[meetings.RETURN_AT] > 0:
            return
    pytest.fail("the team stayed together")


@pytest.mark.parametrize(("alone", "first", "last"), [(0, 1, 16), (1 << 40, 8, 1)])
def test_a_pause_is_longer_each_time(alone, first, last):
    """Members that are slow stay away ever longer, up to a bound; once they are fast, as at first.

    In all calls the caller believes that a step alone takes `alone` nanoseconds.
    """
    case = Case((784, 100, 200, 10), 32, 2000)
    program = case.program()
    settings = program._signals.settings
    arguments = case.samples, case.labels, case.order, case.parameters, case.rates
    settings.update(RESTLESS | {meetings.PAUSE: first, meetings.LONGEST_PAUSE: 16})
    reached = 0
    for _ in range(1000):  # until the others have come in time
        settings.update(
            {meetings.RETURN_AT: 0, meetings.ALONE_TIME: alone << 20, meetings.ALONE_STEPS: 1 << 20}
        )
        program.prepare(*arguments, threads=2)()
        assert settings[meetings.PAUSE] in (1, 2, 4, 8, 16)
        reached += settings[meetings.PAUSE] == last
        if reached == 3:
            return
    pytest.fail(f"a pause of {settings[meetings.PAUSE]}")


def test_a_slow_team_parts_in_short_calls(monkeypatch):
    """Steps together are compared over many calls, and who is to stay away is not woken."""
    case = Case((784, 800, 800, 10), 32, 8 * 32)
    program = case.program()
    program._signals.settings.update(
        RESTLESS | {meetings.ENOUGH_STEPS: 10, meetings.PAUSE: 1_000_000}  # no call has ten steps
    )
    arguments = case.samples, case.labels, case.order, case.parameters, case.rates
    for _ in range(1000):
        program.prepare(*arguments, threads=2)()
        if program._signals.apart():
            break
    else:
        pytest.fail("the team stayed together")
    monkeypatch.setattr(f"{TEAM}.run_together", lambda *_: pytest.fail("somebody was woken"))
    program.prepare(*arguments, threads=2)()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no choice of cores")
def test_members_keep_away_from_the_caller():
    if len(cores_of_machine()) < 2:
        pytest.skip("one core")
    before = os.sched_getaffinity(0)
    found = []

    def function(member):
        if member == 1:
            found.append(os.sched_getaffinity(0))

    team_threads._pool.run(function, 2, meetings.Signals().new())
    assert found[0] < before
    assert os.sched_getaffinity(0) == before


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
    return network._parameters.vector.tobytes(), tuple(history.loss)


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


@jit
def note(signals, nanoseconds):
    meetings.note_alone(signals, nanoseconds)


@pytest.mark.parametrize("milliseconds", [1, 7, 30, 39, 100])
def test_the_mean_of_equal_steps_is_that_step(milliseconds):
    """However many of them are forgotten; else teams part that are faster."""
    signals = meetings.Signals().new()
    for _ in range(200):
        note(signals.ctypes.data, milliseconds * 1_000_000)
        time = signals[meetings.ALONE_TIME // 8] / signals[meetings.ALONE_STEPS // 8]
        assert time == pytest.approx(milliseconds * 1e6, rel=1e-5)
    assert signals[meetings.ALONE_STEPS // 8] < 100


def test_who_is_alone_waits_for_nobody(monkeypatch):
    """While another thread has the team, or where the system has no threads."""
    asked = []
    for lock, start in ((False, True), (True, False)):
        signals = meetings.Signals().new(patience=1000)
        monkeypatch.setattr(team_threads, "_lock", threading.Lock())
        monkeypatch.setattr(team_threads, "_pool", team_threads.ThreadPool())
        monkeypatch.setattr(team_threads._pool, "_start", lambda count, start=start: start)
        if not lock:
            team_threads._lock.acquire()

        def work(member, signals=signals):
            asked.append(signals[meetings.PATIENCE // 8])

        run_together(work, 2, signals)
    assert asked == [0, 0]


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_fork_beside_a_team_at_work(digits):
    """Another thread trains meanwhile: its threads and its lock are not in the child."""
    X, y, _, _ = digits
    expected = weights_after_fit(2, X, y)
    with team_threads._lock, warnings.catch_warnings():  # as the other thread would hold it
        warnings.simplefilter("ignore")  # of a fork beside threads
        child = os.fork()
    if child == 0:
        alone = not team_threads._pool._threads and not team_threads._lock.locked()
        os._exit(0 if alone and weights_after_fit(2, X, y) == expected else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def processor_seconds():
    """Seconds that this process has computed."""
    times = os.times()
    return times.user + times.system


def test_idle_threads_sleep(digits):
    X, y, _, _ = digits
    weights_after_fit(2, X, y)
    assert team_threads._pool._threads
    assert all(thread.daemon for thread in team_threads._pool._threads)
    start = processor_seconds()
    time.sleep(0.5)
    assert processor_seconds() - start < 0.1


def test_an_exception_of_the_caller_stops_the_others(monkeypatch):
    case = Case((784, 100, 200, 10), 32, 2000)
    ended = threading.Event()
    real = entry_for(np.dtype(np.float32), team=True)

    def failing(*arguments):
        member = np.ctypeslib.as_array(
            (ctypes.c_byte * MEMBER.itemsize).from_address(arguments[-1])
        )
        if member.view(MEMBER)["member"] == 0:
            raise KeyboardInterrupt
        real(*arguments)
        ended.set()

    with monkeypatch.context() as patch:
        patch.setattr(f"{TEAM}.entry_for", lambda dtype, team, laps: failing)
        with pytest.raises(KeyboardInterrupt):
            result(case, 2)
    assert ended.is_set()
    assert case.parameters.tobytes() == case.initial.tobytes()
    # the team goes on
    expected = result(Case((784, 100, 200, 10)), 1)
    assert result(Case((784, 100, 200, 10)), 2) == expected


def test_no_threads_left(monkeypatch):
    """The caller goes on alone, as it does beside another meetings."""
    expected = result(Case((784, 100, 200, 10)), 1)
    team_threads._pool.end()

    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert result(Case((784, 100, 200, 10)), 2) == expected
        assert not team_threads._pool._threads
    assert result(Case((784, 100, 200, 10)), 2) == expected
    assert team_threads._pool._threads


def test_an_interrupt_that_takes_the_ring_of_a_member_with_it(monkeypatch):
    """Python looks for Ctrl-C when `get` has returned and nobody has what it returned yet."""
    signals = meetings.Signals().new()
    team_threads._pool.run(lambda member: None, 2, signals)  # its threads have queues by now

    class Losing(team_threads.SimpleQueue):
        def get(self):
            super().get()
            raise KeyboardInterrupt

    raised = []

    def run():
        try:
            team_threads._pool.run(lambda member: time.sleep(0.1 * member), 2, signals)
        except KeyboardInterrupt:
            raised.append(True)

    with monkeypatch.context() as patch:
        patch.setattr(team_threads, "SimpleQueue", Losing)
        caller = threading.Thread(target=run, daemon=True)
        caller.start()
        caller.join(20)
    assert raised
    assert not caller.is_alive()


def test_members_hear_the_end():
    signals = meetings.Signals().new()
    heard = []

    def function(member):
        until = time.monotonic() + 10
        while member and not heard and time.monotonic() < until:
            if signals[meetings.CALLED // 8] == meetings.END:
                heard.append(member)

    team_threads._pool.run(function, 2, signals)
    assert heard == [1]


def test_an_exception_of_another_member_is_raised_here():
    signals = meetings.Signals().new()

    def function(member):
        if member == 1:
            raise MemoryError

    with pytest.raises(MemoryError):
        team_threads._pool.run(function, 2, signals)


def test_interrupt_and_exit():
    """Ctrl-C ends a fit on two threads soon, and the process can end."""
    program = (
        "import fastnn, numpy as np, _thread, signal, threading\n"
        # a shell has programs in the background ignore it
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "X = np.random.default_rng(0).random((20000, 784), np.float32)\n"
        "y = np.zeros(20000, int)\n"
        "layers = [fastnn.Dense(784, 256), fastnn.ReLU(), fastnn.Dense(256, 10)]\n"
        "network = fastnn.Network(layers, backend='numba')\n"
        "network.fit(X[:100], y[:100], threads=2)\n"
        "threading.Timer(1, _thread.interrupt_main).start()\n"
        "try:\n"
        "    network.fit(X, y, epochs=10**6, threads=2)\n"
        "except KeyboardInterrupt:\n"
        "    print('stopped', np.isfinite(network._parameters.vector).all())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "stopped True\n"


def test_words_of_different_writers_share_no_line():
    assert len(set(meetings.PLACES.values())) == len(meetings.PLACES)
    assert all(place % meetings.PLACE_BYTES == 0 for place in meetings.PLACES.values())
    assert meetings.Signals().new().nbytes == len(meetings.PLACES) * meetings.PLACE_BYTES


class TestChoice:
    """How many threads share the work."""

    @staticmethod
    def chosen(*sizes, batch_size=32, density=0.2):
        case = Case(sizes, batch_size, samples=1)
        return Program(
            case.layers, batch_size=batch_size, density=density
        ).default_threads  # fmt: skip

    def test_by_work(self, monkeypatch):
        monkeypatch.setattr(program_module, "usable_cores", lambda: 64)
        assert self.chosen(784, 10) == 1
        assert self.chosen(784, 100, 200, 10) == 1
        assert self.chosen(784, 100, 200, 10, batch_size=128) == 2
        assert self.chosen(784, 800, 800, 10) == 2
        assert self.chosen(784, 2048, 2048, 10, batch_size=512) == 2

    @pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (3, 2)])
    def test_never_more_than_cores(self, cores, threads, monkeypatch):
        monkeypatch.setattr(program_module, "usable_cores", lambda: cores)
        assert self.chosen(784, 2048, 2048, 10, batch_size=512) == threads

    def test_a_tiny_fit_looks_for_no_cores(self, monkeypatch):
        """That reads a file for each processor, which takes as long as the fit."""
        monkeypatch.setattr(program_module, "usable_cores", lambda: pytest.fail("looked for cores"))
        assert self.chosen(2, 4, 2) == 1

    @pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no choice of cores")
    def test_cores_that_the_process_may_use(self):
        cores = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(cores)})
            assert len(cores_of_machine()) == 1
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
        asked = set()
        real = run_together

        def noting(function, members, signals):
            asked.add(members)
            real(function, members, signals)

        monkeypatch.setattr(f"{TEAM}.run_together", noting)
        network = perceptron(784, 100, 10, backend="numba")
        network.fit(np.zeros((100, 784)), np.arange(100) % 10, threads=argument)
        assert asked == ({2} if expected > 1 else set())

    def test_explanation(self):
        large = perceptron(784, 800, 800, 10, backend="numba")
        assert large.explain().endswith("up to 4 threads share a step")
        assert perceptron(3, 2, backend="numba").explain().endswith("on one thread")

    def test_layer_path_takes_no_notice(self):
        network = fastnn.Network([fastnn.Dense(3, 2)], backend="numpy", seed=0)
        network.fit(np.zeros((4, 3)), np.zeros(4, int), threads=2)
