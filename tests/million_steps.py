"""Take many steps and look at memory, open files and threads: `python tests/million_steps.py`.

Tiny networks take a million steps in the compiled epoch on one thread, a million on two, a thousand
to a call of `fit`, and a tenth as many by `train_step` with a prediction after each. All must end
with the memory, the files and the threads that they had after the first tenth.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

import fastnn

SLACK = 1 << 20
"""Bytes by which memory may differ: what Python's allocator keeps, and other tests leave."""
CALL = 1000
"""Steps in a call of `fit`."""


class Held(NamedTuple):
    """What the process holds: bytes of resident memory, open files and threads."""

    memory: int
    files: int
    threads: int

    @classmethod
    def now(cls) -> Held:
        """Look."""
        gc.collect()
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
        files, tasks = (len(os.listdir(f"/proc/self/{what}")) for what in ("fd", "task"))
        assert threading.active_count() <= tasks
        return cls(pages * os.sysconf("SC_PAGESIZE"), files, tasks)

    def __str__(self) -> str:
        return f"{self.memory / 1e6:8.2f} MB, {self.files} files, {self.threads} threads"


def network_of(*units: int, **options) -> fastnn.Network:
    """A network with batch norm and dropout, moved by Adam."""
    first, hidden, last = units
    layers = [
        fastnn.Dense(first, hidden), fastnn.ReLU(), fastnn.BatchNorm(hidden), fastnn.Tanh(),
        fastnn.Dropout(0.1), fastnn.Dense(hidden, last),
    ]  # fmt: skip
    return fastnn.Network(layers, optimizer=fastnn.Adam(), seed=0, backend="numba", **options)


def by_fit(units: tuple[int, int, int], batch: int, threads: int) -> Callable[[int], int]:
    """Return a function that takes at least so many steps in the compiled epoch, and says how many.

    A call takes `CALL` of them.
    """
    rng, network = np.random.default_rng(0), network_of(*units, clip_norm=1.0)
    X = rng.standard_normal((CALL * batch, units[0]), np.float32)
    y = rng.integers(0, units[2], len(X))

    def take(steps: int) -> int:
        calls = -(-steps // CALL)
        for _ in range(calls):
            network.fit(X, y, batch_size=batch, threads=threads, progress=False)
        return calls * CALL

    return take


def by_layers() -> Callable[[int], int]:
    """Return a function that takes steps by `train_step`, and predicts; it says how many."""
    rng, network = np.random.default_rng(0), network_of(6, 5, 3)
    X, y = rng.standard_normal((7, 6), np.float32), rng.integers(0, 3, 7)

    def take(steps: int) -> int:
        for _ in range(steps):
            network.train_step(X, y)
            network.predict(X)
        return steps

    return take


WAYS = {
    "compiled epoch": (lambda: by_fit((6, 5, 3), 2, 1), 1),
    "compiled epoch, two threads": (lambda: by_fit((150, 120, 3), 4, 2), 4),
    "train_step and predict": (by_layers, 10),
}
"""What takes the steps, and the share of them that it takes."""


def watched(steps: int) -> Iterator[tuple[str, int, Held]]:
    """Take steps in each way; yield what is held after each tenth of them."""
    for name, (make, share) in WAYS.items():
        take, taken = make(), 0
        for _ in range(10):
            taken += take(max(steps // share // 10, 1))
            yield name, taken, Held.now()


def main() -> int:
    """Run; return 1 where something grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="?", type=int, default=1_000_000)
    first: dict[str, Held] = {}
    grown = []
    for name, taken, held in watched(parser.parse_args().steps):
        print(f"{name:28} {taken:9,} steps {held}", flush=True)
        before = first.setdefault(name, held)
        flat = held[1:] == before[1:] and held.memory <= before.memory + SLACK
        if not flat and name not in grown:
            grown.append(name)
    print(f"grown: {', '.join(grown) or 'nothing'}")
    return bool(grown)


if __name__ == "__main__":
    sys.exit(main())
