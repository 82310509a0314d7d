"""Several networks at once: the bits of each alone, whose error it was, and how all stop."""

from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest
from conftest import bits, perceptron
from test_readme import blocks

import fastnn
from fastnn import many


def different(backend: str, **options) -> list[fastnn.Network]:
    """Return networks that have little in common but their input."""
    kinds = [
        perceptron(20, 16, 3, seed=0, backend=backend, **options),
        perceptron(20, 33, 17, 3, seed=1, optimizer="adam", backend=backend, **options),
        fastnn.Network(
            [
                fastnn.Dense(20, 9),
                fastnn.BatchNorm(9),
                fastnn.Tanh(),
                fastnn.Dropout(0.3),
                fastnn.Dense(9, 3),
            ],
            optimizer=fastnn.SGD(fastnn.schedules.CosineDecay(0.1, 100), momentum=0.9),
            seed=2,
            backend=backend,
            **options,
        ),
        perceptron(20, 3, seed=3, backend=backend, **options),
        perceptron(20, 16, 3, seed=4, backend=backend, **options),
    ]
    kinds[0].use("mse")
    return kinds


@pytest.fixture
def samples(rng):
    y = rng.integers(0, 3, 301)
    return rng.normal(size=(301, 20)) + y[:, np.newaxis], y


def learned(network: fastnn.Network, history: fastnn.History) -> list[bytes]:
    columns = [v for name, v in history.to_dict().items() if "second" not in name]
    generator = repr(network._rng.bit_generator.state)
    return [bits(network), np.array(columns).tobytes(), generator.encode()]


@pytest.mark.parametrize("workers", [1, 3, None])
def test_the_bits_of_each_alone(backend, dtype, samples, workers):
    X, y = samples
    options = {"epochs": 3, "batch_size": 7, "validation_split": 0.1, "train_accuracy": True}
    options |= {"class_weight": "balanced"}
    together, alone = different(backend, dtype=dtype), different(backend, dtype=dtype)
    patience = [fastnn.EarlyStopping(patience=1) for _ in together]
    histories = fastnn.fit_many(
        together, X, y, workers=workers, callbacks=[[p] for p in patience], **options
    )
    for network, history, other in zip(together, histories, alone, strict=True):
        expected = other.fit(
            X, y, threads=1, callbacks=[fastnn.EarlyStopping(patience=1)], **options
        )
        assert history is network.history
        assert learned(network, history) == learned(other, expected)


def test_each_takes_a_thread_and_they_meet(samples):
    """As many train at the same time as there are workers, whatever the machine."""
    meeting = threading.Barrier(3)

    def meet(network, history):
        if len(history) == 1:
            meeting.wait(timeout=60)

    networks = [perceptron(20, 3, seed=seed) for seed in range(6)]
    fastnn.fit_many(networks, *samples, epochs=2, workers=3, callbacks=[[meet]] * 6)
    assert all(len(network.history) == 2 for network in networks)


def test_the_backend_in_force_is_that_of_the_threads(samples):
    seen = set()
    networks = [perceptron(20, 3, seed=0, backend="numpy")]
    with fastnn.use_backend("numpy"):
        watch = [[lambda *_: seen.add(fastnn.get_backend())]]
        fastnn.fit_many(networks, *samples, callbacks=watch)
    assert seen == {"numpy"}


def test_an_error_says_whose_it_is_and_the_others_stop(samples):
    class BrokenError(Exception):
        pass

    def fails(network, history):
        raise BrokenError("no")

    networks = [perceptron(20, 3, seed=seed) for seed in range(4)]
    callbacks = [[], [fails], [], []]
    with pytest.raises(BrokenError, match="no") as raised:
        fastnn.fit_many(networks, *samples, epochs=100_000, workers=2, callbacks=callbacks)
    assert raised.value.__notes__ == ["This was networks[1] of fit_many."]
    assert all(len(n.history or ()) < 100_000 for n in networks)
    assert not [t for t in threading.enumerate() if t.name.startswith("fastnn-many")]
    # one that was stopped can go on
    assert len(networks[0].fit(*samples, epochs=2)) == 2


def test_ctrl_c_stops_all_in_mid_epoch(rng):
    """The signal comes while the main thread waits; an epoch would take 40 seconds."""
    X, y = rng.normal(size=(2000, 64)).astype(np.float32), rng.integers(0, 3, 2000)

    class Slow(fastnn.Layer):
        def forward(self, input):
            time.sleep(0.02)
            return input

        def backward(self, input, grad_output):
            return grad_output

    networks = [fastnn.Network([fastnn.Dense(64, 3), Slow()], seed=seed) for seed in range(3)]

    def interrupt():
        while any(n.history is None or not n.history.samples_seen for n in networks[:2]):
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    # what a shell runs in the background, these tests perhaps, is told to ignore Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            fastnn.fit_many(networks, X, y, batch_size=1, epochs=5, workers=2)
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert [0 < network.history.samples_seen < 2000 for network in networks[:2]] == [True, True]
    assert networks[2].history is None
    assert not any(network._fitting for network in networks)


def test_results_come_as_they_are_ready():
    """Also of jobs that fail; when the loop is left, no further one begins."""
    gate, begun = threading.Event(), []

    def job(number):
        begun.append(number)
        if number == 0:
            gate.wait(60)
        if number == 1:
            raise ValueError("one")
        return number

    jobs = [lambda number=number: job(number) for number in range(50)]
    order = []
    for number, future in many.in_threads(jobs, 2):
        order.append(number)
        if number == 1:
            assert str(future.exception()) == "one"
            gate.set()
        if number == 0:
            break
    assert order[0] != 0
    assert len(begun) <= 50


def test_no_more_threads_than_jobs(monkeypatch):
    """Some are started to see how many can be had, which takes half a millisecond each."""
    real, started = threading.Thread.start, []

    def start(thread):
        started.append(thread)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    jobs = [lambda: 1, lambda: 2]
    assert sorted(future.result() for _, future in many.in_threads(jobs, 1000)) == [1, 2]
    assert len(started) <= 4


def test_progress(samples, capsys):
    pytest.importorskip("tqdm")
    networks = [perceptron(20, 3, seed=seed) for seed in range(2)]
    fastnn.fit_many(networks, *samples, progress=True)
    assert "networks" in capsys.readouterr().err


def test_nothing_to_do(samples):
    assert fastnn.fit_many([], *samples) == []


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"networks": 3}, TypeError, "networks: expected networks in a list, got 3"),
        ({"networks": [1]}, TypeError, r"networks\[0\]: expected a fastnn.Network, got 1"),
        ({"workers": 0}, ValueError, "workers: expected an integer of at least 1, got 0"),
        ({"workers": 1.5}, TypeError, "workers: expected an integer"),
        ({"epochs": 0}, ValueError, "epochs: expected an integer of at least 1, got 0"),
        ({"progress": 1}, TypeError, "progress: expected"),
        ({"callbacks": [[]]}, ValueError, "callbacks: expected a list for each of 2 networks"),
        ({"callbacks": print}, TypeError, "callbacks: expected a list for each network"),
        ({"callbacks": [print, print]}, TypeError, "callbacks: expected a list for each network"),
    ],
)
def test_bad_arguments(samples, change, error, message):
    X, y = samples
    networks = [perceptron(20, 3, seed=0), perceptron(20, 3, seed=1)]
    with pytest.raises(error, match=f"^{message}"):
        fastnn.fit_many(**{"networks": networks, "X": X, "y": y, **change})
    assert networks[0].history is None


def test_what_two_can_not_share(samples):
    network, rng = perceptron(20, 3, seed=0), np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"networks\[1\]: expected another network"):
        fastnn.fit_many([network, network], *samples)
    twins = [perceptron(20, 3, seed=rng), perceptron(20, 3, seed=rng)]
    with pytest.raises(ValueError, match=r"networks\[1\]: expected a random generator of its own"):
        fastnn.fit_many(twins, *samples)
    stopping = fastnn.EarlyStopping()
    with pytest.raises(ValueError, match="callbacks: expected objects of its own for each"):
        fastnn.fit_many(
            [perceptron(20, 3), perceptron(20, 3)], *samples, callbacks=[[stopping], [stopping]]
        )


def test_data_that_do_not_suit_one_are_refused_before_any_training(samples):
    networks = [perceptron(20, 3, seed=0), perceptron(21, 3, seed=1)]
    with pytest.raises(ValueError, match="X: expected") as raised:
        fastnn.fit_many(networks, *samples)
    assert raised.value.__notes__ == ["This was networks[1] of fit_many."]
    assert networks[0].history is None


def test_the_page(capsys):
    block, _ = blocks("docs/sweeps.md")  # the other one is a cluster
    exec(block, {})
    accuracies = eval(capsys.readouterr().out)
    assert len(accuracies) == 4
    assert min(accuracies) > 0.9


def test_hints_are_of_the_table_and_point_to_the_caller(rng):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rng.normal(size=(200, 3)), columns=["age", "height", "income"])
    frame["income"] *= 40_000
    networks = [perceptron(3, 2, seed=seed, learning_rate=1e-12) for seed in (0, 1)]
    with pytest.warns(UserWarning, match=r"such as column 2 \('income'\)") as caught:
        fastnn.fit_many(networks, frame, np.arange(200) % 2)
    assert {warning.filename for warning in caught} == {__file__}
    frame.loc[5, "age"] = np.nan
    X = frame[["age", "height", "height"]]
    with pytest.warns(RuntimeWarning, match=r"NaN or infinity in column 0 \('age'\), in row 5"):
        fastnn.fit_many(networks, X, np.arange(200) % 2, on_divergence="warn")
