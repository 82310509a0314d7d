"""What a step asks for: operations, with zeros and without, and bytes."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastnn.checks import Array
from fastnn.memory import ROW_BLOCK, round_up

from . import Layers, Rung
from .climbing import BATCH_SIZE, RATE, UNITS, activations, of_dtype

LOOPS = """
    X W1 A1 | A1 W2 A2 | A2 W3 Z | Z G3
    G3 W3 A2 G2 | A2 G3 W3 W3 | G2 W2 A1 G1 | A1 G2 W2 W2 | X G1 W1 W1
"""
"""What is read and written by the passes of rungs 5 to 7."""
SKIPPING = LOOPS.replace("W1", "w1")
KERNELS = """
    X X | X w1 A1 | A1 A1 | A1 | A1 W2 A2 | A2 A2 | A2 W3 Z | Z Z | Z G3
    G3 W3 W3 A2 G2 | G2 W2 W2 A1 G1 | G1 G1 | X G1 w1 w1 | G3 | G2 | G1
"""
"""A row of weights is read and written in one pass; matrices are turned and biases added in passes
of their own."""
PASSES = {5: LOOPS, 6: LOOPS, 7: LOOPS, 8: SKIPPING} | dict.fromkeys((9, 10, 11, 12), KERNELS)
PADDED_FROM = 7


def dense_operations(batch_size: int = BATCH_SIZE) -> int:
    """Return the operations of a step, two a multiply-add; the pictures have no gradient."""
    first, *rest = (a * b for a, b in pairwise(UNITS))
    return 2 * batch_size * (2 * first + 3 * sum(rest))


def needed(layers: Layers, X: Array) -> tuple[float, float]:
    """Return the operations of a step on average in which nothing is multiplied by zero, and the
    share of the pixels that are lit in any sample of a batch."""
    total, lit, batches = 0.0, 0.0, 0
    layers = of_dtype(layers, np.dtype(np.float64))
    for start in range(0, len(X), BATCH_SIZE):
        inputs, _ = activations(layers, X[start : start + BATCH_SIZE])
        # of each sample, and after a ReLU the gradient is zero where the output is
        x, a, b = (np.count_nonzero(A, axis=1) for A in inputs)
        forward = x * UNITS[1] + a * UNITS[2] + b * UNITS[3]
        back = b * UNITS[3] + a * b
        update = x * a + a * b + b * UNITS[3]
        total += 2 * float((forward + back + update).sum())
        lit += float(inputs[0].any(axis=0).mean())
        batches += 1
    return total / batches, lit / batches


def bytes_of_step(rung: Rung, layers: Layers, X: Array, y: Array, lit: float) -> float:
    """Return how many bytes the passes of a step read and write, each operand counted once.

    A pass is a call of NumPy's, or a loop over one product. How often a kernel loads a number again
    while it is in the first-level cache or in a register does not count.
    """
    if rung.number not in PASSES:
        return _bytes_by_numpy(rung, layers, X, y)
    units = [u if rung.number < PADDED_FROM else round_up(u, ROW_BLOCK) for u in UNITS]
    sizes: dict[str, float] = {"X": BATCH_SIZE * units[0], "Z": BATCH_SIZE * units[3]}
    for i in (1, 2, 3):
        sizes[f"W{i}"] = units[i - 1] * units[i]
        sizes[f"A{i}"] = sizes[f"G{i}"] = BATCH_SIZE * units[i]
    sizes["w1"] = lit * sizes["W1"]
    names = PASSES[rung.number].replace("|", " ").split()
    return rung.dtype.itemsize * sum(sizes[name] for name in names)


class Counting(np.ndarray):
    """An array whose operands and results are counted wherever a function of NumPy's takes it."""

    nbytes_moved = 0

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        def plain(of: Any) -> Any:
            return of.view(np.ndarray) if isinstance(of, Counting) else of

        (target,) = options.pop("out", (None,))
        if target is not None:
            options["out"] = plain(target)
        result = getattr(ufunc, method)(*map(plain, inputs), **options)
        Counting.nbytes_moved += sum(np.asarray(of).nbytes for of in (*inputs, result))
        if target is not None:
            return target
        return result.view(Counting) if isinstance(result, np.ndarray) else result

    def __setitem__(self, key: Any, value: Any) -> None:
        Counting.nbytes_moved += 2 * np.asarray(value).nbytes
        super().__setitem__(key, value)


def _counting(state: Any) -> Any:
    """Return a state whose arrays, wherever they are, are the same memory and count."""
    if isinstance(state, np.ndarray):
        return state.view(Counting)
    if isinstance(state, (list, tuple)):
        return type(state)(map(_counting, state))
    return SimpleNamespace(**{name: _counting(of) for name, of in vars(state).items()})


def _bytes_by_numpy(rung: Rung, layers: Layers, X: Array, y: Array) -> float:
    state = _counting(rung.prepare(of_dtype(layers, rung.dtype), BATCH_SIZE))
    samples = _counting(X[:BATCH_SIZE].astype(rung.dtype))
    Counting.nbytes_moved = 0
    rung.train(state, samples, y[:BATCH_SIZE], RATE, BATCH_SIZE)
    return float(Counting.nbytes_moved)
