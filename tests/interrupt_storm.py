"""A network, and a storm of Ctrl-C over its training: is it always that of a whole number of steps?

    python tests/interrupt_storm.py [seconds]

By itself for a minute: SIGINT every 3 ms, on both backends, and on one and two threads. Whenever
`fit` has been interrupted, the network is compared, bit for bit, with one that has taken as many
steps undisturbed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

import numpy as np

from fastnn import Adam, BatchNorm, Dense, Dropout, Network, ReLU

BATCH, SAMPLES = 16, 200
STEPS = -(-SAMPLES // BATCH)
"""In an epoch."""


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(SAMPLES, 300)).astype(np.float32), rng.integers(0, 10, SAMPLES)


def made(backend: str) -> Network:
    """Return a network that two threads can share, with layers that count and remember."""
    layers = [Dense(300, 128), BatchNorm(128), ReLU(), Dense(128, 64), Dropout(0.1), Dense(64, 10)]
    return Network(layers, optimizer=Adam(0.001), seed=0, backend=backend)


def state(network: Network) -> list:
    """Return all that a step changes."""
    return [network._parameters.vector, *network._parameters.states]


class Pair:
    """A network that is interrupted, and one that is not."""

    def __init__(self, backend: str, threads: int | None = None) -> None:
        self.network, self._twin = made(backend), made(backend)
        self._options = {"batch_size": BATCH, "shuffle": False, "threads": threads}
        self._data = data()

    def fit(self, epochs: int = 10**6) -> None:
        self.network.fit(*self._data, epochs=epochs, **self._options)

    def check(self) -> int:
        """Return how many steps the last `fit` has taken, having compared what it has led to."""
        network, twin = self.network, self._twin
        steps = {layer.steps for layer in (network[0], network[1], network[3], network[5])}
        assert steps == {network[4].step}, (steps, network[4].step)
        assert not any(layer.training for layer in network)
        taken = network[0].steps - twin[0].steps
        epochs, rest = divmod(taken, STEPS)
        history = network.history
        if history is not None and taken:
            assert history.samples_seen == epochs * SAMPLES + rest * BATCH
            assert {len(column) for column in history.columns.values()} <= {epochs, epochs - 1}
        X, y = self._data
        if epochs:
            twin.fit(X, y, epochs=epochs, **self._options)
        if rest:
            twin.fit(X[: rest * BATCH], y[: rest * BATCH], **self._options)
        if taken:
            for one, other in zip(state(network), state(twin), strict=True):
                np.testing.assert_array_equal(one, other)
        return taken


class Ticking:
    """Sends SIGINT to this process, so many times, so many seconds apart."""

    def __init__(self, pause: float, times: int = sys.maxsize) -> None:
        self._pause, self._times, self._end = pause, times, threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _tick(self) -> None:
        while self._times and not self._end.wait(self._pause):
            os.kill(os.getpid(), signal.SIGINT)
            self._times -= 1


def storm(seconds: float, backend: str, threads: int | None, pause: float = 0.003) -> None:
    """Interrupt trainings again and again; print what has come of it."""
    pair = Pair(backend, threads)
    pair.fit(1)  # kernels are there
    assert pair.check() == STEPS
    interrupts = steps = idle = 0
    end = time.monotonic() + seconds
    in_training = [False]

    def heard(number: int, frame: object) -> None:
        if in_training[0]:
            in_training[0] = False  # the next one is for the next training
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, heard)
    with Ticking(pause):
        while time.monotonic() < end:
            with contextlib.suppress(KeyboardInterrupt):
                in_training[0] = True
                pair.fit()
            interrupts += 1
            taken = pair.check()
            steps, idle = steps + taken, idle + (taken == 0)
    print(
        f"{backend} on {threads or 1}: {interrupts} interrupts, {idle} of them before the first "
        f"step; {steps} steps, the same bits as undisturbed",
        flush=True,
    )


if __name__ == "__main__":
    whole = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    for way in (("numba", 1), ("numba", 2), ("numpy", None)):
        storm(whole / 3, *way)
