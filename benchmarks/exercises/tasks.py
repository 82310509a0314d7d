"""The exercises: what each is given, what it must come to, and whom it is measured beside."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.ladder import beforehand, r06_row_kernels, r08_skipping_zeros
from fastnn.backends import numba_backend
from fastnn.checks import Array

DTYPE = np.float32
EPS = float(np.finfo(DTYPE).eps)
RATE = DTYPE(0.1)
BATCH = 32
SPARSE = BATCH, 784, 112
"""What is timed where zeros are left out: as many as digits have, but in no order."""

Arguments = dict[str, Any]
"""By name, in the order of the parameters."""
Outcome = dict[str, tuple[Array, Array]]
"""Of each argument that is written: its value in float64, and how far rounding may take it off."""


@dataclass(frozen=True)
class Exercise:
    """A kernel to write.

    Attributes
    ----------
    number : int
    file, function : str
        The module with the stub, and what is to be filled in.
    made, expected : callable
        Make arguments of a shape; say what becomes of them.
    shapes : tuple
        That the result is checked on.
    timed : tuple of int
        The shape that is measured.
    samples : tuple of str
        Those arguments that belong to a batch, so that each call that is measured has others.
    reference : callable
        Whose speed is the measure, and takes the same arguments.
    measure : str
        What it is called.
    asked : float
        The share of its speed.
    """

    number: int
    file: str
    function: str
    made: Callable[[tuple[int, ...], np.random.Generator], Arguments]
    expected: Callable[[Arguments], Outcome]
    shapes: tuple[tuple[int, ...], ...]
    timed: tuple[int, ...]
    samples: tuple[str, ...]
    reference: Callable[..., Any]
    measure: str
    asked: float

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f"{__package__}.{self.file}")

    @property
    def title(self) -> str:
        """The first line of the stub's docstring."""
        return (self.module.__doc__ or "").partition("\n")[0]


# ----------------------------------------------------------------------- what they are given


def _logits(shape: tuple[int, ...], rng: np.random.Generator) -> Arguments:
    n, c = shape
    Z = rng.normal(0, 3, (n, c))
    Z[::3] += 1e4  # softmax is the same, and exp is infinity
    Z[1::3] -= 1e4
    y = rng.integers(0, c, n)
    return {"Z": Z.astype(DTYPE), "y": y, "G": _anything(n, c)}


def _dense(shape: tuple[int, ...], rng: np.random.Generator) -> Arguments:
    n, k, m = shape
    X, W, b = rng.normal(size=(n, k)), rng.normal(size=(k, m)), rng.normal(size=m)
    return {"X": X.astype(DTYPE), "W": W.astype(DTYPE), "b": b.astype(DTYPE), "A": _anything(n, m)}


def _sparse(shape: tuple[int, ...], rng: np.random.Generator) -> Arguments:
    arguments = _dense(shape, rng)
    X = arguments["X"]
    X *= rng.random(X.shape) < 0.2
    if shape != SPARSE:
        X[::4] = 0
        X[1::4] = 1
    return arguments


def _layer(shape: tuple[int, ...], rng: np.random.Generator) -> Arguments:
    n, k, m = shape
    X = np.maximum(rng.normal(size=(n, k)), 0)
    W, b, G = rng.normal(size=(k, m)), rng.normal(size=m), rng.normal(size=(n, m)) / n
    arrays = {"X": X, "W": W, "b": b, "G": G}
    of_dtype = {name: array.astype(DTYPE) for name, array in arrays.items()}
    return {**of_dtype, "dX": _anything(n, k), "rate": RATE}


def _anything(*shape: int) -> Array:
    return np.full(shape, np.nan, DTYPE)


# ------------------------------------------------------------------- what they must come to
# A sum of n products may be off by n roundings of the sum of their sizes, and a few more.


def _loss_gradient(given: Arguments) -> Outcome:
    Z, y = given["Z"].astype(np.float64), given["y"]
    n, c = Z.shape
    margins = Z - Z.max(axis=1, keepdims=True)
    P = np.exp(margins)
    P /= P.sum(axis=1, keepdims=True)
    target = np.eye(c)[y]
    # a margin that is rounded moves its exponential by as much as it is large
    spread = -margins.min(axis=1, keepdims=True)
    off = EPS * ((c + 8 + 2 * spread) * P + 2 * target)
    return {"G": ((P - target) / n, off / n + np.finfo(DTYPE).tiny)}


def _forward(given: Arguments) -> Outcome:
    X, W, b = (given[name].astype(np.float64) for name in ("X", "W", "b"))
    return {"A": (X @ W + b, EPS * (len(W) + 2) * (np.abs(X) @ np.abs(W) + np.abs(b)))}


def _backward(given: Arguments) -> Outcome:
    X, W, b, G = (given[name].astype(np.float64) for name in ("X", "W", "b", "G"))
    rate, on = float(given["rate"]), X > 0
    sizes, moved = np.abs(G), np.abs(W) + rate * (np.abs(X).T @ np.abs(G))
    roundings = len(X) + 4
    return {
        "W": (W - rate * (X.T @ G), EPS * roundings * moved),
        "b": (b - rate * G.sum(axis=0), EPS * roundings * (np.abs(b) + rate * sizes.sum(axis=0))),
        "dX": (np.where(on, G @ W.T, 0), EPS * (W.shape[1] + 2) * (sizes @ np.abs(W).T) * on),
    }


# --------------------------------------------------------------- whom they are measured beside


def _softmax_gradient(Z: Array, y: Array, G: Array) -> None:
    beforehand.softmax_gradient(Z, y, Z.shape[1], G)


def _row_kernel(X: Array, W: Array, b: Array, A: Array) -> None:
    r06_row_kernels.forward(X, W, b, False, A)


def _skipping(X: Array, W: Array, b: Array, A: Array) -> None:
    r08_skipping_zeros.forward(X, W, b, False, A)


def _package(X: Array, W: Array, b: Array, A: Array) -> None:
    A[:] = numba_backend.dense_forward(X, W, b)


SHAPES = ((1, 1, 1), (1, 5, 3), (7, 13, 5), (3, 20, 16), (32, 31, 33), (33, 100, 10), (5, 64, 129))
"""A batch of one, odd sizes, a whole number of vectors, and one more or less than that."""

EXERCISES = (
    Exercise(
        1, "e1_loss_gradient", "loss_gradient", _logits, _loss_gradient,
        ((1, 1), (1, 10), (7, 3), (32, 10), (33, 16), (5, 129)), (1024, 10),
        ("Z", "y"), _softmax_gradient, "the ladder's softmax_gradient", 0.7,
    ),
    Exercise(
        2, "e2_row_kernel", "row_forward", _dense, _forward, SHAPES, (BATCH, 784, 112),
        ("X",), _row_kernel, "rung 6's forward", 0.7,
    ),
    Exercise(
        3, "e3_fused_backward", "fused_backward", _layer, _backward, SHAPES, (BATCH, 112, 208),
        ("X", "G"), r08_skipping_zeros.backward, "rung 8's backward", 0.9,
    ),
    Exercise(
        4, "e4_sparse_forward", "sparse_forward", _sparse, _forward, (*SHAPES, (33, 784, 20)),
        SPARSE, ("X",), _skipping, "rung 8's forward", 0.7,
    ),
    Exercise(
        5, "e5_register_tile", "tiled_forward", _dense, _forward, SHAPES, (64, 256, 208),
        ("X",), _package, "the package's dense_forward", 0.7,
    ),
)  # fmt: skip
