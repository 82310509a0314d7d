"""One network in several threads, several networks in several threads, and processes that fork."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import bits, perceptron, python

import fastnn
from fastnn import interrupts
from fastnn.locks import SLOTS, ReadersWriterLock, cached_attribute

pytestmark = pytest.mark.usefixtures("programs_handed_on")


def many_kinds(backend: str, seed: int) -> fastnn.Network:
    """Return a network with layers that compute otherwise while they train."""
    layers = [
        fastnn.Dense(20, 24), fastnn.BatchNorm(24), fastnn.ReLU(), fastnn.Dropout(0.2),
        fastnn.Dense(24, 3),
    ]  # fmt: skip
    return fastnn.Network(layers, optimizer="adam", backend=backend, seed=seed)


@pytest.fixture
def samples(rng):
    y = rng.integers(0, 3, 500)
    return rng.normal(size=(500, 20)) + y[:, np.newaxis], y


def in_threads(*functions):
    """Run functions in threads of their own; return results, or the exceptions, in order."""
    barrier = threading.Barrier(len(functions))

    def run(function):
        barrier.wait(300)
        try:
            return function()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result(300) for future in [pool.submit(run, f) for f in functions]]


def test_eight_networks_at_once(backend, samples):
    def trained(seed):
        network = many_kinds(backend, seed)
        network.fit(*samples, epochs=2, batch_size=16, threads=1 + seed % 2)
        return bits(network), network.predict_proba(samples[0]).tobytes()

    alone = [trained(seed) for seed in range(8)]
    assert in_threads(*[lambda seed=seed: trained(seed) for seed in range(8)]) == alone


class Waiting(fastnn.Callback):
    """Holds up a training after its first epoch until told to go on."""

    def __init__(self):
        self.here, self.go_on = threading.Event(), threading.Event()

    def on_epoch_end(self, network, history):
        self.here.set()
        assert self.go_on.wait(300)


@pytest.fixture
def in_training(backend, samples):
    """A network that another thread trains, and is in the midst of it."""
    network, waiting = many_kinds(backend, 1), Waiting()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(network.fit, *samples, epochs=3, callbacks=[waiting])
        try:
            assert waiting.here.wait(300)
            yield network
        finally:
            waiting.go_on.set()
            future.result(300)
    expected = many_kinds(backend, 1)
    expected.fit(*samples, epochs=3)
    assert bits(network) == bits(expected)  # nobody has disturbed it


def test_a_network_in_training_can_be_read(in_training, samples, tmp_path):
    X, y = samples
    before = bits(in_training)
    twin = in_training.__copy__()
    in_training.save(tmp_path / "model")
    for other in (twin, fastnn.load(tmp_path / "model")):
        assert bits(other) == before
        np.testing.assert_array_equal(in_training.predict_proba(X), other.predict_proba(X))
        np.testing.assert_array_equal(in_training.predict(X[:5]), other.predict(X[:5]))
        assert in_training.evaluate(X, y) == other.evaluate(X, y)
    twin.fit(X, y)
    twin.add(fastnn.ReLU())


def test_a_network_in_training_can_not_be_trained_or_changed(in_training, samples):
    for refused in (
        lambda: in_training.fit(*samples),
        lambda: in_training.fit(*samples, validation_split=0.5),
        lambda: in_training.add(fastnn.ReLU()),
        lambda: in_training.use("mse"),
        lambda: setattr(in_training, "clip_norm", 1.0),
        lambda: setattr(in_training, "optimizer", "sgd"),
    ):
        with pytest.raises(RuntimeError, match=r"while (it|its network) is training"):
            refused()


@pytest.mark.parametrize("threads", [1, 2])
def test_fit_and_predict_at_once(backend, samples, threads):
    """Both paths of prediction, few rows and many, while batches of training go on."""
    X, y = samples
    expected = many_kinds(backend, 2)
    expected.fit(X, y, epochs=6, batch_size=8)
    network = many_kinds(backend, 2)
    network.predict(X)
    done = threading.Event()

    def fit():
        try:
            network.fit(X, y, epochs=6, batch_size=8, threads=threads)
        finally:
            done.set()

    def predict():
        count = 0
        while not done.is_set():
            few, many = network.predict_proba(X[:3]), network.predict_proba(X)
            assert few.shape == (3, 3)
            np.testing.assert_allclose(many.sum(axis=1), 1, rtol=1e-5)
            count += 1
        return count

    failed = [found for found in in_threads(fit, predict, predict) if isinstance(found, Exception)]
    assert not failed
    assert bits(network) == bits(expected)


def test_two_fits_at_once(backend, samples):
    """One of them trains, the other is refused; or they come one after the other."""
    X, y = samples
    network = many_kinds(backend, 3)
    results = in_threads(*[lambda: network.fit(X, y, epochs=3)] * 2)
    refused = [r for r in results if isinstance(r, Exception)]
    assert all(isinstance(error, RuntimeError) for error in refused)
    expected = many_kinds(backend, 3)
    for _ in range(2 - len(refused)):
        expected.fit(X, y, epochs=3)
    assert bits(network) == bits(expected)


def test_steps_at_once(backend, samples):
    """Each is whole: as many were taken as asked for, whatever their order."""
    X, y = samples
    network = perceptron(20, 16, 3, seed=0, backend=backend, optimizer="adam")
    same = perceptron(20, 16, 3, seed=0, backend=backend, optimizer="adam")

    def steps():
        for _ in range(50):
            network.train_step(X[:32], y[:32])

    assert in_threads(steps, steps, steps, steps) == [None] * 4
    for _ in range(200):
        same.train_step(X[:32], y[:32])
    assert bits(network) == bits(same)


def test_predictions_at_once(backend, samples):
    X, y = samples
    network = many_kinds(backend, 4)
    network.fit(X, y)
    expected = [network.predict_proba(X[:n]).tobytes() for n in (1, 100, 500)]

    def predict():
        return [
            [network.predict_proba(X[:n]).tobytes() for n in (1, 100, 500)] for _ in range(20)
        ]  # fmt: skip

    assert in_threads(*[predict] * 4) == [[expected] * 20] * 4


def test_layers_that_come_while_others_predict(backend, samples):
    X, _ = samples
    network = many_kinds(backend, 5)
    network.predict(X)

    def add():
        for _ in range(20):
            network.add(fastnn.Dense(3, 3, seed=0))

    def predict():
        for _ in range(20):
            assert network.predict_proba(X).shape == (500, 3)

    assert in_threads(add, predict, predict) == [None] * 3


def test_locks_of_a_network_are_its_own(samples):
    network = many_kinds("numpy", 6)
    for twin in (pickle.loads(pickle.dumps(network)), network.__copy__()):
        assert twin._lock is not network._lock
        with network._lock.writing():
            assert in_threads(lambda twin=twin: twin.predict(samples[0]).shape) == [(500,)]


def test_a_writer_is_alone():
    lock, inside, seen = ReadersWriterLock(), [], []

    def use(how):
        for _ in range(200):
            with how():
                inside.append(how)
                seen.append(list(inside))
                time.sleep(0)
                inside.remove(how)

    def write():
        use(lock.writing)

    def read():
        use(lock.reading)

    assert in_threads(write, read, read, write) == [None] * 4
    assert all(len(there) == 1 for there in seen if lock.writing in there)
    with lock.writing(), lock.writing(), lock.reading():  # as one thread may
        pass


def test_threads_that_begin_one_after_another_read_side_by_side():
    lock, found = ReadersWriterLock(), []

    def read():
        found.append({id(lock.reading()) for _ in range(3)})

    assert in_threads(*[read] * SLOTS) == [None] * SLOTS
    assert [len(own) for own in found] == [1] * SLOTS
    assert len(set.union(*found)) == SLOTS


def test_a_cached_attribute():
    class Counting:
        count = 0

        @cached_attribute
        def number(self):
            """A number."""
            self.count += 1
            return self.count

    counting = Counting()
    assert counting.number == counting.number == 1
    assert Counting.number.__doc__ == "A number."  # as help() and Sphinx ask for it


@pytest.mark.skipif(sys.gettrace() is not None, reason="something else traces")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_leaves_no_lock_behind(monkeypatch):
    """Wherever it comes, and though somebody keeps the traceback."""
    network, X, y = many_kinds("numpy", 0), np.ones((4, 20)), [0, 1, 2, 0]

    def step_once(*_, **__):
        return 0.0, None

    monkeypatch.setattr(fastnn.propagation, "step", step_once)
    for last in range(1, 10**6):
        events = 0

        def interrupt(frame, event, argument, last=last):
            nonlocal events
            events += 1
            if events == last:
                raise KeyboardInterrupt
            return interrupt

        sys.settrace(interrupt)
        try:
            network.train_step(X, y)
        except KeyboardInterrupt as error:
            kept = error
        finally:
            sys.settrace(None)
        if events < last:
            break
        taken = in_threads(lambda: [slot.acquire(blocking=False) for slot in network._lock.slots])
        assert taken == [[True] * 4], kept
        network._lock._renew()
        # it raises where a signal would have waited, too, and the signals of later tests would wait
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupts._depth = 0
    assert last > 20


# processes


FORK = hasattr(os, "fork") and sys.platform != "darwin"


def trained_bits(seed: int = 0) -> bytes:
    """Train a network that is large enough for a team, on two threads."""
    rng = np.random.default_rng(seed)
    X, y = rng.random((96, 300), np.float32), rng.integers(0, 10, 96)
    network = perceptron(300, 200, 100, 10, seed=seed, backend="numba")
    network.fit(X, y, epochs=2, threads=2)
    return bits(network)


@pytest.mark.skipif(not FORK, reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_fork_beside_a_thread_that_trains():
    """A child has none of the threads, but what they held at that moment."""
    expected, stop, begun = trained_bits(), threading.Event(), threading.Event()

    def work():
        while not stop.is_set():
            trained_bits()
            begun.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        assert begun.wait(300)
        for _ in range(2):
            child = os.fork()
            if child == 0:
                os._exit(0 if trained_bits() == expected else 1)
            assert ended(child) == 0
    finally:
        stop.set()
        thread.join(300)
    assert trained_bits() == expected


def test_a_table_is_made_while_another_is(numba_backend, monkeypatch):
    """Nobody waits for it, least of all the child of a fork, which has not that thread."""
    from fastnn.backends.numba_backend.epoch import program

    make, begun, go_on = program.Table, threading.Event(), threading.Event()
    first = threading.Lock()

    def slowly(*arguments, **options):
        if first.acquire(blocking=False):
            begun.set()
            assert go_on.wait(300)
        return make(*arguments, **options)

    monkeypatch.setattr(program, "Table", slowly)
    expected = []
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(trained_bits)
        assert begun.wait(300)
        try:
            expected.append(pool.submit(trained_bits).result(120))
        finally:
            go_on.set()
        expected.append(waiting.result(300))
    assert expected[0] == expected[1]


FORKING = """
import os, sys, threading, time
from test_sharing_networks import ended, many_kinds, np, trained_bits
from numba.core.compiler_lock import global_compiler_lock
import numba
trained_bits()
begun, network, X = threading.Event(), many_kinds("numba", 0), np.zeros((3, 20))
def compile():
    with global_compiler_lock, network._lock.writing():
        begun.set()
        time.sleep(0.5)
thread = threading.Thread(target=compile)
thread.start()
begun.wait()
child = os.fork()
if child == 0:
    assert numba.njit(lambda x: x + 1)(2) == 3
    network.predict(X)
    os._exit(0)
thread.join()
print(ended(child))
"""


@pytest.mark.skipif(not FORK, reason="no fork")
def test_fork_beside_a_thread_that_compiles():
    done = python(FORKING)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def ended(child: int) -> int:
    """Return the exit code of a child, which is ended if it hangs."""
    for _ in range(3000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


METHODS = multiprocessing.get_all_start_methods() if FORK else ["spawn"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("method", METHODS)
def test_processes_of_multiprocessing(method):
    expected = trained_bits()
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(trained_bits, [0, 0, 0]).get(300) == [expected] * 3


def test_processes_of_loky():
    joblib = pytest.importorskip("joblib")
    expected = trained_bits()
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(trained_bits)() for _ in range(3))
    assert found == [expected] * 3
    joblib.externals.loky.get_reusable_executor().shutdown(wait=True)


EXIT = """
import sys, threading, time
import numpy as np
from test_sharing_networks import perceptron, trained_bits
trained_bits()
if sys.argv[1] == "in a training":
    begun = threading.Event()
    X, y = np.random.default_rng(0).random((2000, 300), np.float32), np.arange(2000) % 10
    network = perceptron(300, 200, 100, 10, seed=0, backend="numba")
    fit = lambda: network.fit(X, y, epochs=10**6, threads=2, callbacks=[lambda *_: begun.set()])
    threading.Thread(target=fit, daemon=True).start()
    assert begun.wait(300)
print("ready")
"""


@pytest.mark.parametrize("moment", ["after a training", "in a training"])
def test_the_interpreter_ends(moment):
    """Whatever the threads of a team, or one that trains, are at."""
    done = python(EXIT, moment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")


def test_more_threads_than_cores():
    """A team has four members at most, whoever asks for more, and any number is as one."""
    rng = np.random.default_rng(0)
    X, y = rng.random((96, 300), np.float32), rng.integers(0, 10, 96)
    found = set()
    for threads in (1, 4, 16, 10_000):
        network = perceptron(300, 200, 100, 10, seed=0, backend="numba")
        network.fit(X, y, threads=threads)
        found.add(bits(network))
    assert len(found) == 1
