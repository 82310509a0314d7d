"""Interrupts: what is left behind is a network after a whole number of steps, and it trains on."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import ROOT, python
from interrupt_storm import Pair, Ticking, data, made

import fastnn
from fastnn import SGD, Callback, Dense, interrupts

X, LABELS = data()
WAYS = [("numba", 1), ("numba", 2), ("numpy", None)]

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")


@pytest.fixture
def sigint():
    """Have the handler of Ctrl-C that a program has, whatever has started the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@posix
@pytest.mark.parametrize(("backend", "threads"), WAYS)
def test_ctrl_c_leaves_whole_steps(backend, threads, sigint):
    """At moments that a timer chooses, also in the midst of Python."""
    pair = Pair(backend, threads)
    for pause in (0.001, 0.007, 0.02, 0.05):
        # in this order, as on a busy machine the timer may be quicker than who has started it
        with pytest.raises(KeyboardInterrupt), Ticking(pause, times=1):
            pair.fit()
        pair.check()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    pair.fit(epochs=2)
    assert pair.check() == 26


@posix
@pytest.mark.parametrize(("backend", "threads"), WAYS)
def test_at_once_after_the_call(backend, threads, sigint, monkeypatch):
    """As when the signal comes in the midst of compiled code."""
    pair = Pair(backend, threads)
    pair.fit(1)
    pair.check()
    step, count = fastnn.paths.step, fastnn.paths.CompiledPath._count

    def interrupted(function, *arguments, **options):
        signal.raise_signal(signal.SIGINT)
        return function(*arguments, **options)

    monkeypatch.setattr(fastnn.paths, "step", lambda *a, **k: interrupted(step, *a, **k))
    monkeypatch.setattr(fastnn.paths.CompiledPath, "_count", lambda *a: interrupted(count, *a))
    with pytest.raises(KeyboardInterrupt):
        pair.fit()
    monkeypatch.undo()
    assert pair.check() > 0


@posix
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_a_step_by_itself_is_whole(backend, sigint, monkeypatch):
    """Between the update of one layer and that of the next."""
    pair = Pair(backend)
    step = fastnn.parameters.LayerParameters.step

    def interrupted(self, *arguments):
        step(self, *arguments)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(fastnn.parameters.LayerParameters, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pair.network.train_step(X[:16], LABELS[:16])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert {layer.steps for layer in pair.network if isinstance(layer, Dense)} == {1}


@posix
def test_ctrl_c_while_another_thread_predicts(sigint):
    """Which the training waits for."""
    network, predicting, end = made("numpy"), threading.Event(), threading.Event()

    def predict():
        with network._lock.reading():
            predicting.set()
            end.wait(60)
            end.set()

    def interrupt(network, history):
        thread.start()
        assert predicting.wait(60)
        timer.start()

    thread = threading.Thread(target=predict)
    timer = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT])
    with pytest.raises(KeyboardInterrupt):
        network.fit(X, LABELS, epochs=9, batch_size=16, callbacks=[interrupt])
    assert not end.is_set()
    end.set()
    thread.join()
    timer.join()
    assert network[0].steps == 13


@posix
def test_a_handler_that_raises_system_exit():
    def leave(number, frame):
        sys.exit(3)

    before = signal.signal(signal.SIGTERM, leave)
    pair = Pair("numpy")
    timer = threading.Timer(0.02, os.kill, [os.getpid(), signal.SIGTERM])
    try:
        with pytest.raises(SystemExit) as caught:
            (timer.start(), pair.fit())
        assert caught.value.code == 3
        assert signal.getsignal(signal.SIGTERM) is leave
    finally:
        timer.join()
        signal.signal(signal.SIGTERM, before)
    pair.check()


@posix
def test_sigterm_leaves_a_whole_checkpoint(tmp_path):
    """By itself it ends the process at once."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from interrupt_storm import data, made
network = made("numba")
told = lambda network, history: print(len(history), flush=True)
file = {str(tmp_path / "f")!r}
network.fit(*data(), epochs=10**6, batch_size=16, checkpoint=file, callbacks=told)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        for _ in range(3):
            process.stdout.readline()
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()
    network = fastnn.load(tmp_path / "f")
    assert network[0].steps % 13 == 0
    assert network[0].steps >= 26


@posix
def test_a_second_one_within_the_first(sigint):
    """Signals that come while one thing is done are one."""
    seen = []

    def three():
        with interrupts.uncut:
            with interrupts.uncut:
                for _ in range(3):
                    signal.raise_signal(signal.SIGINT)
                    seen.append("went on")
            seen.append("and on")

    with interrupts.Held():
        with pytest.raises(KeyboardInterrupt):
            three()
        with interrupts.uncut:
            seen.append("and no more")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with interrupts.Held():  # within it nothing changes
            pass
        assert signal.getsignal(signal.SIGINT).handler is signal.default_int_handler
    assert seen == ["went on"] * 3 + ["and on", "and no more"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture
def terminated():
    """Signals to terminate that a handler of Python's has heard."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    yield heard
    signal.signal(signal.SIGTERM, before)


@posix
def test_one_that_raises_leaves_others_to_be_heard(sigint, terminated):
    def both():
        with interrupts.uncut:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)

    def one_after_the_block(monkeypatch):
        with interrupts.uncut:
            signal.raise_signal(signal.SIGTERM)
            with monkeypatch.context() as patch:
                patch.setattr(interrupts, "_depth", 0)  # as where `uncut` is about to look
                signal.raise_signal(signal.SIGINT)

    with interrupts.Held():
        with pytest.raises(KeyboardInterrupt):
            both()
        assert terminated == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            one_after_the_block(pytest.MonkeyPatch)
        assert terminated == [signal.SIGTERM] * 2


@posix
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_signal_while_handlers_are_changed(at, sigint, terminated, monkeypatch):
    own = signal.getsignal(signal.SIGTERM)
    change, changes = interrupts._set_handler, []

    def interrupted(number, handler):
        change(number, handler)
        changes.append(number)
        if len(changes) == at:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(interrupts, "_set_handler", interrupted)
    with pytest.raises(KeyboardInterrupt), interrupts.Held():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is own
    assert interrupts._depth == 0


def interrupted_everywhere(block, looked_at):
    """Run a block with Ctrl-C at each place in turn, and then without; yield its number each time.

    Places are what a trace has seen in a file: pairs of the file and the event.
    """
    at, events, heard, before = 0, 0, True, sys.gettrace()

    def interrupted(frame, event, argument):
        nonlocal events
        if (frame.f_code.co_filename, event) in looked_at:
            events += 1
            if events == at + 1:
                signal.getsignal(signal.SIGINT)(signal.SIGINT, frame)
        return interrupted

    while heard:
        events, heard = 0, False
        sys.settrace(interrupted)
        try:
            block()
        except KeyboardInterrupt:
            heard, at = True, at + 1
        finally:
            sys.settrace(before)
        yield at
    assert events == at


@posix
def test_a_signal_before_the_first_line_of_a_function(sigint):
    """Where Python looks for signals, and no `try` of the function is entered yet."""

    def blocks():
        with interrupts.Held(), interrupts.Held(), interrupts.uncut:
            pass

    for _ in interrupted_everywhere(blocks, {(interrupts.__file__, "call")}):
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert interrupts._depth == 0
        assert not interrupts._waiting


@posix
def test_a_network_that_is_no_longer_trained_knows_it(sigint):
    """Wherever Ctrl-C comes as its training begins or ends."""
    network = made("numpy")
    # where Python looks for signals, and of the block itself between all lines
    looked_at = {
        (interrupts.__file__, "call"), (fastnn.locks.__file__, "call"),
        (fastnn.network.__file__, "call"), (fastnn.network.__file__, "line"),
    }  # fmt: skip

    def block():
        with interrupts.Held(), network._in_training(fastnn.training.History()):
            pass

    for places in interrupted_everywhere(block, looked_at):  # noqa: B007 - how many there are
        assert not network._fitting
        assert interrupts._depth == 0
        assert not interrupts._waiting
    assert places > 20
    network.fit(X, LABELS)


@posix
@pytest.mark.parametrize("restored", [True, False])
def test_a_handler_that_calls_the_one_before_it(sigint, restored):
    """As of a callback that ends the training in good order, or on the second Ctrl-C at once."""
    seen = []

    def handle(number, frame):
        seen.append(number)
        if len(seen) > 1:
            before(number, frame)

    with interrupts.Held():
        before = signal.signal(signal.SIGINT, handle)
        with interrupts.Held(), interrupts.uncut:  # as when a kernel is loaded
            signal.raise_signal(signal.SIGINT)
            assert seen == []
        assert len(seen) == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        if restored:
            signal.signal(signal.SIGINT, before)
    with interrupts.Held(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert len(seen) == (2 if restored else 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_of_another_thread_hears_signals(sigint):
    """While the main thread of its parent was in the midst of a step."""
    ends = []

    def fork():
        pid = os.fork()
        if pid == 0:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                os._exit(7)
            os._exit(3)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    with interrupts.Held(), interrupts.uncut:
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
    assert ends == [7]


@posix
def test_handlers_of_others_are_left_alone(sigint):
    def own(number, frame):
        pass

    with interrupts.Held():
        signal.signal(signal.SIGINT, own)
    assert signal.getsignal(signal.SIGINT) is own
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.Held():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    thread = threading.Thread(target=made("numpy").fit, args=(X, LABELS))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


class Failing(Callback):
    """Raises in one of its methods, in its third epoch if it is called in each."""

    def __init__(self, hook, error):
        self.hook, self.error = hook, error

    def hear(self, hook, history):
        if hook == self.hook and (len(history) == 2 or "train" in hook):
            raise self.error

    def on_train_begin(self, network, history):
        self.hear("on_train_begin", history)

    def on_epoch_begin(self, network, history):
        self.hear("on_epoch_begin", history)

    def on_epoch_end(self, network, history):
        self.hear("on_epoch_end", history)

    def on_train_end(self, network, history):
        self.hear("on_train_end", history)


@functools.cache
def parameters_after(epochs: int, backend: str) -> np.ndarray:
    """Return the parameters of a network that nobody has disturbed."""
    network = made(backend)
    if epochs:
        network.fit(X, LABELS, epochs=epochs, batch_size=16)
    return network._parameters.vector


@pytest.mark.parametrize(
    "error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)], ids=repr
)
@pytest.mark.parametrize(
    ("hook", "epochs"),
    [("on_train_begin", 0), ("on_epoch_begin", 2), ("on_epoch_end", 2), ("on_train_end", 4)],
)
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_exceptions_in_callbacks(hook, epochs, error, backend):
    network = made(backend)
    with pytest.raises(type(error)) as caught:
        network.fit(X, LABELS, epochs=4, batch_size=16, callbacks=[Failing(hook, error)])
    assert caught.value is error
    expected = parameters_after(epochs, backend)
    np.testing.assert_array_equal(network._parameters.vector, expected)
    assert {len(column) for column in network.history.columns.values()} <= {epochs}
    assert network.history.samples_seen == epochs * len(X)
    assert [layer.training for layer in network] == [False] * len(network)
    network.fit(X, LABELS, batch_size=16)
    assert network[0].steps == 13 * (epochs + 1)


CALLS = {
    "evaluate": lambda network: network.evaluate(X, LABELS),
    "predict": lambda network: network.predict(X),
    "predict_proba": lambda network: network.predict_proba(X[:3]),
    "forward": lambda network: network.forward(X[:3]),
    "gradients": lambda network: network.gradients(X, LABELS),
    "get_weights": lambda network: network.set_weights(network.get_weights()),
    "explain": lambda network: network.explain(),
    "pickle": lambda network: pickle.loads(pickle.dumps(network)).evaluate(X, LABELS),
    "deepcopy": lambda network: copy.deepcopy(network).fit(X, LABELS),
    "same rate": lambda network: setattr(network[0], "learning_rate", network[0].learning_rate),
    "another network": lambda network: made(network.backend).fit(X, LABELS),
}
CHANGING = {
    "train_step": lambda network: network.train_step(X[:16], LABELS[:16]),
    "another rate": lambda network: setattr(network.optimizer, "learning_rate", 0.001),
    "a layer's rate": lambda network: setattr(network[3], "learning_rate", 0.001),
    "set_weights": lambda network: network.set_weights([0.5 * w for w in network.get_weights()]),
}
REFUSED = {
    "fit": (lambda network: network.fit(X, LABELS), "begin to train"),
    "fit_blocks": (lambda network: network.fit_blocks([(X, LABELS)]), "begin to train"),
    "fit_many": (lambda network: fastnn.fit_many([network], X, LABELS), "begin to train"),
    "add": (lambda network: network.add(Dense(3, 3)), "take in a layer"),
    "use": (lambda network: network.use("mse"), "take another loss"),
    "optimizer": (lambda network: setattr(network, "optimizer", SGD()), "change its optimiser"),
    "of a layer": (lambda network: setattr(network[0], "optimizer", SGD()), "change its optimi"),
    "clip_norm": (lambda network: setattr(network, "clip_norm", 1.0), "change its clip_norm"),
}


@pytest.mark.parametrize("backend", ["numba", "numpy"])
class TestCallsFromCallbacks:
    def trained(self, backend, call, *hooks):
        class Calling(Callback):
            pass

        for hook in hooks or ["on_epoch_end"]:
            setattr(Calling, hook, lambda self, network, history: (call(network), None)[1])
        network = made(backend)
        network.fit(X, LABELS, epochs=3, batch_size=16, callbacks=[Calling()])
        return network

    @pytest.mark.parametrize("call", CALLS)
    def test_those_that_change_nothing(self, backend, call):
        network = self.trained(backend, CALLS[call], "on_epoch_begin", "on_epoch_end")
        expected = parameters_after(3, backend)
        np.testing.assert_array_equal(network._parameters.vector, expected)

    @pytest.mark.parametrize("call", CHANGING)
    def test_those_that_change_it(self, backend, call):
        """As between trainings."""
        network, whole = self.trained(backend, CHANGING[call]), made(backend)
        for _ in range(3):
            whole.fit(X, LABELS, batch_size=16)
            CHANGING[call](whole)
        np.testing.assert_array_equal(network._parameters.vector, whole._parameters.vector)
        assert network[0].steps == whole[0].steps

    @pytest.mark.parametrize("call", REFUSED)
    def test_those_that_are_refused(self, backend, call):
        function, message = REFUSED[call]
        with pytest.raises(RuntimeError, match=message):
            self.trained(backend, function)

    def test_the_backend_is_fixed(self, backend):
        with pytest.raises(AttributeError):
            self.trained(backend, lambda network: setattr(network, "backend", "numpy"))


@posix
def test_ctrl_c_while_kernels_are_loaded():
    """It waits until a kernel is there, whose memory would be freed twice otherwise.

    And until modules are, of which half would stay.
    """
    code = f"""
import signal, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
signal.signal(signal.SIGINT, signal.default_int_handler)
from interrupt_storm import data, made
class Finder:
    @staticmethod
    def find_spec(name, *_):
        if name == "fastnn.backends.numba_backend.epoch.table":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder)
try:
    made("numba").fit(*data(), batch_size=16)
except KeyboardInterrupt:
    assert "fastnn.backends.numba_backend.epoch.program" in sys.modules
else:
    raise AssertionError("it was not heard")
from fastnn.backends.numba_backend import jit
address, seen = jit._address.__wrapped__, []
def interrupted(*arguments):
    signal.raise_signal(signal.SIGINT)
    found = address(*arguments)
    seen.append("whole")
    return found
jit._address = jit.held_uncut(interrupted)
network = made("numba")
for attempt in range(100):
    count = len(seen)
    try:
        network.fit(*data(), batch_size=16)
        break
    except KeyboardInterrupt:
        assert len(seen) == count + 1, (attempt, seen)
        jit._address = jit.held_uncut(address) if attempt == 0 else jit._address
print("trained", network[0].steps)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "trained 13\n", done.stderr


@posix
def test_ctrl_c_in_the_first_compilation_of_a_process(tmp_path):
    """Numba imports within it what it compiles with, and half of that would stay for good."""
    code = f"""
import signal, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
signal.signal(signal.SIGINT, signal.default_int_handler)
import numpy as np
from numba.core import pythonapi, types
import fastnn
class Registered(dict):
    def __setitem__(self, kind, function):
        super().__setitem__(kind, function)
        if kind is types.UnicodeType:
            signal.raise_signal(signal.SIGINT)
pythonapi._unboxers.functions = Registered(pythonapi._unboxers.functions)
X, words = np.ones((3, 4)), []
layer = fastnn.Network([fastnn.Dense(4, 3)], backend="numba")[0]
for attempt in range(2):
    try:
        layer.forward(X)
        words.append("computed")
    except KeyboardInterrupt:
        words.append("interrupted")
print(*words)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "interrupted computed\n", done.stderr


IMPORTED_LATE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import numpy as np
import fastnn
class Finder:
    @staticmethod
    def find_spec(name, *_):
        if name == "numba.core.types.scalars":
            sys.meta_path.remove(Finder)
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder)
X, network = np.ones((3, 4)), fastnn.Network([fastnn.Dense(4, 3)], backend="numba")
for attempt in range(2):
    try:
        network[0].forward(X) if sys.argv[1] == "known" else network.predict_proba(X)
        print("computed")
    except KeyboardInterrupt:
        print("interrupted")
"""


@posix
def test_ctrl_c_while_numba_is_imported(tmp_path):
    """In the midst of a fit, where a process before has noted that Numba works."""
    for what in ("known", "unknown"):
        done = python(IMPORTED_LATE, what, NUMBA_CACHE_DIR=str(tmp_path))
        assert done.stdout.endswith("interrupted\ncomputed\n"), done.stderr


FORKED = """
import os, signal, sys, threading, time
from fastnn.backends.numba_backend import jit
from test_sharing_networks import ended
signal.signal(signal.SIGINT, signal.default_int_handler)
held, heard = threading.Event(), []
def compile():
    with jit._lock:
        held.set()
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
threading.Thread(target=compile).start()
held.wait()
child = os.fork()
if child == 0:
    os._exit(0 if jit._lock.acquire(timeout=5) else 1)
print(ended(child))
"""


@posix
def test_ctrl_c_while_a_fork_waits_for_a_compilation():
    """The child has the lock, whatever Python does with an exception there."""
    done = python(FORKED)
    assert done.stdout == "0\n", done.stderr
