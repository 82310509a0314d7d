"""Whole processes: what a backend takes before it computes, what MNIST takes, and what comes out.

Each program is given a backend and a dtype, and prints a number to be checked and its peak memory.
"""

import inspect
import tempfile
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from fastnn.bench import memory
from fastnn.bench.costs import run_program
from fastnn.bench.operations import Problem

_START = """
import json, sys
import numpy as np
import fastnn
from fastnn import backends

backend, dtype = sys.argv[1:]
backends.load(backend)
result = 0.0

def network():
    layers = [fastnn.Dense(784, 100), fastnn.ReLU(), fastnn.Dense(100, 200), fastnn.ReLU()]
    layers.append(fastnn.Dense(200, 10))
    return fastnn.Network(
        layers, optimizer=fastnn.SGD(0.1), backend=backend, dtype=np.dtype(dtype), seed=0
    )
"""

_STEP = """
X, y = np.random.default_rng(0).random((32, 784)).astype(dtype), np.arange(32) % 10
result = network().fit(X, y).loss[-1]
"""

_EPOCH = """
X, y, *_, X_test, y_test = fastnn.load_dataset(flatten=True, dtype=np.dtype(dtype))
trained = network()
trained.fit(X, y, shuffle=False)
result = trained.evaluate(X_test, y_test).accuracy
"""

_END = f"""
{inspect.getsource(memory)}
print(json.dumps([float(result), peak_memory()]))
"""


class Answer(NamedTuple):
    """What a process says: its result, and the most memory that it held, if it knows."""

    result: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Process:
    """One row: a program, what its result is, and whether kernels are compiled before it starts."""

    label: str
    program: str = ""
    result: str = ""
    empty_cache: bool = False

    def run(self, backend: str, dtype: str) -> Answer:
        """Run the program."""
        program = _START + self.program + _END
        if not self.empty_cache:
            return Answer(*run_program(program, backend, dtype))
        with tempfile.TemporaryDirectory() as cache:
            return Answer(*run_program(program, backend, dtype, cache=cache))

    def describe(self, size: str) -> str:
        """Return all that makes the row."""
        return repr((self, _START, _END))

    def problem(self, size: str, backend: str, dtype: str) -> Problem:
        """Return the run; of its result alone is known what it must be."""
        run = partial(self.run, backend, dtype)
        return Problem(lambda: run().result)

    def reference(self, size: str, dtype: str) -> Problem:
        """Return the run on NumPy in float64."""
        return self.problem(size, "numpy", "float64")


PROCESSES = (
    Process("import"),
    Process("first step, nothing cached", _STEP, "loss", empty_cache=True),
    Process("first step", _STEP, "loss"),
    Process("epoch of MNIST", _EPOCH, "share of right answers"),
)
