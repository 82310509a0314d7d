"""What fastnn costs before and beside the arithmetic: imports, compilation, validation, memory.

Each is measured in processes of its own, those that are compared in turn, and each process checks
what it computed against the NumPy backend before it says how long it took.
"""

import inspect
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastnn.bench import memory
from fastnn.bench.machine import inherited, kept_to, python_path
from fastnn.bench.threads import THREAD_VARIABLES
from fastnn.processors import usable

_IMPORT = """
import json, time
start = time.perf_counter()
import {module}
print(json.dumps(time.perf_counter() - start))
"""

_NETWORK = """
import json, math, sys, time
start = time.perf_counter()
import numpy as np
import fastnn

def network(*units, backend="numba"):
    layers = [fastnn.Rescaling(1 / 255)]
    for inputs, outputs in zip(units, units[1:]):
        layers += [fastnn.Dense(inputs, outputs), fastnn.ReLU()]
    return fastnn.Network(layers[:-1], backend=backend, seed=0)

def fit(X, y, *units, backend="numba", **options):
    fitted = network(*units, backend=backend)
    loss = fitted.fit(X, y, shuffle=False, **options).loss[-1]
    return fitted, loss

def check(found, expected):
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-5), f"{found}, not {expected}"

MNIST = 784, 100, 200, 10
values = np.arange(32 * MNIST[0]) * 7919 % 256
X, y = values.astype(np.uint8).reshape(32, -1), np.arange(32) % 10
"""

_FIRST = """
before = time.perf_counter()
fitted, loss = fit(X, y, *MNIST, threads=int(sys.argv[1]))
fit_end = time.perf_counter()
few = fitted.predict(X)
few_end = time.perf_counter()
many = fitted.predict(np.tile(X, (32, 1)))
many_end = time.perf_counter()
reference, expected = fit(X, y, *MNIST, backend="numpy")
check(loss, expected)
check((few != reference.predict(X)).sum() + (many != np.tile(few, 32)).sum(), 0)
print(json.dumps({
    "fit": fit_end - before, "few": few_end - fit_end, "many": many_end - few_end,
    "first step": fit_end - start,
}))
"""

_ANOTHER_SHAPE = """
shape = 784, 77, 33, 5, 10
check(fit(X, y, *shape)[1], fit(X, y, *shape, backend="numpy")[1])
print("null")
"""

_VALIDATION = """
rounds = int(sys.argv[1])
X, y, X_val, y_val, *_ = fastnn.load_dataset("mnist", flatten=True, dtype=np.uint8)
X, y = X[:6400], y[:6400]
trained = network(*MNIST)
trained.fit(X, y, validation_data=(X_val, y_val)), trained.predict(X_val)
plain, validated, predicted = [], [], []
for _ in range(rounds):
    before = time.perf_counter()
    trained.fit(X, y)
    plain.append(time.perf_counter() - before)
    before = time.perf_counter()
    history = trained.fit(X, y, validation_data=(X_val, y_val))
    validated.append(time.perf_counter() - before)
    before = time.perf_counter()
    answers = trained.predict(X_val)
    predicted.append(time.perf_counter() - before)
check(history.val_accuracy[-1], (answers == y_val).mean())
assert history.val_accuracy[-1] > 0.8, history.val_accuracy
print(json.dumps([plain, validated, predicted]))
"""

_TRAINING = """
X, y, X_val, y_val, *_ = fastnn.load_dataset("mnist", flatten=True, dtype=np.uint8)
history = network(*MNIST).fit(X, y, epochs=2, validation_data=(X_val, y_val))
assert history.val_accuracy[-1] > 0.9, history.val_accuracy
"""

_PEAK_MEMORY = f"""
{inspect.getsource(memory)}
import json
import numpy
print(json.dumps(peak_memory()))
"""

DATA_BYTES = 70_000 * 784

#: Rounds of what compiles everything anew, at the most.
COLD_ROUNDS = 3


@dataclass(frozen=True)
class Cost:
    """One figure, as it was found in each round.

    Attributes
    ----------
    name : str
        What was measured.
    unit : str
        Of the values; empty for a ratio or a number of things.
    values : tuple of float
        One a round.
    error : str, optional
        Why there is none.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    error: str | None = None


def measure_costs(rounds: int = 7, progress: Callable[[str], None] | None = None) -> Iterator[Cost]:
    """Measure all costs, in so many rounds; what compiles everything in fewer. Yield each.

    Where there is one processor alone, no team is measured.
    """
    with tempfile.TemporaryDirectory() as cache:
        parts: dict[str, Callable[[], list[Cost]]] = {
            "import": lambda: _import(rounds),
            "first fit and predict": lambda: _first_fit(min(rounds, COLD_ROUNDS)),
            "first fit of a team": lambda: _first_fit_of_a_team(min(rounds, COLD_ROUNDS)),
            "later processes": lambda: _later(rounds, cache),
            "validation": lambda: _validation(rounds, cache),
            "memory": lambda: _memory(cache),
        }
        if usable() == 1:
            del parts["first fit of a team"]
        for name, measure in parts.items():
            if progress is not None:
                progress(name)
            try:
                measured = measure()
            except RuntimeError as error:
                measured = [Cost(name, "", (), str(error))]
            yield from measured


def _import(rounds: int) -> list[Cost]:
    pairs = [
        [run_program(_IMPORT.format(module=module)) for module in ("fastnn", "numpy")]
        for _ in range(rounds)
    ]
    values = tuple(1e3 * (ours - theirs) for ours, theirs in pairs)
    return [Cost("`import fastnn` over `import numpy`", "ms", values)]


def _first_fit(rounds: int) -> list[Cost]:
    names = {
        "fit": "first fit, nothing cached, on one core",
        "few": "first predict after it, 32 rows, in addition",
        "many": "first predict of 1,024 rows, in addition",
    }
    times = [_first(1) for _ in range(rounds)]
    return [Cost(name, "s", tuple(of[key] for of in times)) for key, name in names.items()]


def _first_fit_of_a_team(rounds: int) -> list[Cost]:
    seconds = tuple(_first(2)["fit"] for _ in range(rounds))
    return [Cost("first fit, nothing cached, two threads", "s", seconds)]


def _later(rounds: int, cache: str) -> list[Cost]:
    _first(1, cache)
    pairs = [
        (_first(1, cache)["first step"], run_program(_IMPORT.format(module="numpy")))
        for _ in range(rounds)
    ]
    before = _compiled(cache)
    run_program(_NETWORK + _ANOTHER_SHAPE, cache=cache)
    return [
        Cost(
            "first step of a later process over `import numpy`",
            "s",
            tuple(ours - theirs for ours, theirs in pairs),
        ),
        Cost("functions compiled for a shape never seen", "", (len(_compiled(cache) - before),)),
    ]


def _validation(rounds: int, cache: str) -> list[Cost]:
    """What an epoch takes longer for it, over what a prediction of the same samples takes."""
    times = zip(*run_program(_NETWORK + _VALIDATION, rounds, cache=cache), strict=True)
    values = tuple((validated - plain) / alone for plain, validated, alone in times)
    return [Cost("validation after an epoch over `predict` of its samples", "x", values)]


def _memory(cache: str) -> list[Cost]:
    train = _NETWORK + _TRAINING + _PEAK_MEMORY
    # Once more where everything is compiled, as compiling takes memory of its own.
    run_program(train, cache=cache)
    training, imported = (run_program(program, cache=cache) for program in (train, _PEAK_MEMORY))
    name = "peak memory of training over `import numpy` and the raw pixels"
    return [Cost(name, "MB", ((training - imported - DATA_BYTES) / 1e6,))]


def _first(threads: int, cache: str | None = None) -> dict[str, float]:
    """Return what a process takes for its first fit and predictions; by default all is compiled."""
    if cache is None:
        with tempfile.TemporaryDirectory() as empty:
            return _first(threads, empty)
    times: dict[str, float] = run_program(_NETWORK + _FIRST, threads, threads=threads, cache=cache)
    return times


def _compiled(cache: str) -> set[Path]:
    """Return the files of compiled code."""
    return {path for path in Path(cache).rglob("*") if path.is_file()}


def run_program(
    program: str, *arguments: object, threads: int = 1, cache: str | None = None
) -> Any:
    """Run a program in a process of its own; return what it prints, which is JSON.

    All libraries have so many threads there, and the process as many processors.

    Raises
    ------
    RuntimeError
        If it fails, with the last line that it says.
    """
    variables = dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"PYTHONPATH": python_path()}
    environment = inherited() | variables
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = cache
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # imports compile once, not every time
    with kept_to(threads):
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
        )
    if done.returncode != 0:
        *_, last = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise RuntimeError(last)
    return json.loads(done.stdout)
