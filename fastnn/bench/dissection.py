"""The worker's part of ``fastnn bench --suite step``: what each part of a step takes, and does.

It trains in short calls, in turn as ever and with laps counted (`epoch/laps.py`), and says how long
a step took in either, how long each of its parts, what each part did, and what the machine can do.
"""

import time
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

import numpy as np

from fastnn import Network
from fastnn.backends.numba_backend.epoch.laps import PARTS
from fastnn.backends.numba_backend.machine import lanes
from fastnn.bench.anatomy import COUNTED
from fastnn.bench.counting import Counted, Work, bytes_by_level
from fastnn.bench.limits import measure_limits, measure_ticks
from fastnn.bench.samples import SEED, Array
from fastnn.paths import CompiledPath, reason_for_layers
from fastnn.processors import cache_bytes

PAIRS = 15
"""Pairs of calls in a round, without laps and with them."""
CALL_SECONDS = 0.02
"""How long a call takes, or less where there are too few samples."""

Key = tuple[int, str]


class Dissection:
    """A network whose steps are taken and timed.

    Parameters
    ----------
    network : Network
        On the Numba backend.
    X, y : array
        Samples and labels; their order is drawn anew for each call, as in `fit`.
    batch_size, threads : int
        Of the steps.
    """

    def __init__(self, network: Network, X: Array, y: Array, batch_size: int, threads: int) -> None:
        reason = reason_for_layers(network)
        if reason is not None:
            raise ValueError(f"the step of this network is not compiled: {reason}")
        if network.matmul_precision is not None:
            raise ValueError(f"nothing is counted of products in {network.matmul_precision}")
        self.network, self.X, self.y = network, X, y
        self.batch_size, self.threads = batch_size, threads
        self.rng = np.random.default_rng(SEED)

    def round(self) -> dict[str, Any]:
        """Take steps of both kinds; return what they took, part by part, in seconds."""
        programs, batch_size = self.network._programs, self.batch_size
        with programs.for_training(self.network, self.X, batch_size, False) as program:
            path = CompiledPath(self.network, self.X, self.y, program, self.threads)
            members = program.members(self.threads)
            steps = self._steps_a_call(path)
            plain, counted = [], []
            cycles: list[np.ndarray] = []
            works: list[list[tuple[int, str, Work]]] = []
            for _ in range(PAIRS):
                plain.append(self._seconds_a_step(path, steps))
                with program.counting_laps() as laps:
                    counted.append(self._seconds_a_step(path, steps))
                cycles.append(laps[0].cycles / steps)
                counter = Counted(program.training.shared[0], program.layers_of(members))
                works.append(counter.parts())
        dtype, ticks = self.network.dtype, measure_ticks()
        each = np.median(cycles, axis=0) / ticks
        return {
            "plain": median(plain),
            "counted": median(counted),
            "summed": median(float(of_call.sum()) for of_call in cycles) / ticks,
            "parts": _parts(each, works, self.X.nbytes),
            "limits": measure_limits(dtype)._asdict(),
            "lanes": lanes(dtype.itemsize),
        }

    def _steps_a_call(self, path: CompiledPath) -> int:
        """Return how many steps a call takes, once all is compiled and has come to the caches."""
        most = len(self.X) // self.batch_size
        self._seconds_a_step(path, min(most, 2))
        return max(1, min(most, int(CALL_SECONDS / self._seconds_a_step(path, min(most, 8)))))

    def _seconds_a_step(self, path: CompiledPath, steps: int) -> float:
        order = self.rng.permutation(len(self.X))[: steps * self.batch_size]
        path.start()
        start = time.perf_counter()
        path.train(order)
        return (time.perf_counter() - start) / steps


def _parts(
    seconds: np.ndarray, works: Sequence[list[tuple[int, str, Work]]], samples_bytes: int
) -> list[dict[str, Any]]:
    """Return what is known of each part, in the order of the step; work is the mean of all calls.

    Shapes: seconds [layers, parts].
    """
    order = [(number, name) for number, name, _ in works[0]]
    levels = bytes_by_level([work for *_, work in works[-1]], cache_bytes(), samples_bytes)
    found: dict[Key, dict[str, Any]] = {}
    for place, key in enumerate(order):
        part = found.setdefault(key, dict.fromkeys(COUNTED, 0.0) | {"bytes": [0.0] * 4})
        for name in COUNTED:
            part[name] += fmean(getattr(of_call[place][2], name) for of_call in works)
        part["bytes"] = [a + b for a, b in zip(part["bytes"], levels[place], strict=True)]
    for layer, part in zip(*np.nonzero(seconds), strict=True):  # what nothing is counted of
        found.setdefault((int(layer), PARTS[part]), {})
    times = {(layer, name): float(seconds[layer, PARTS.index(name)]) for layer, name in found}
    return [
        {"layer": layer, "name": name, "seconds": times[layer, name], **of}
        for (layer, name), of in found.items()
        if times[layer, name] > 0
    ]
