"""Few rows, single steps, and a problem that needs no steps: the price of a call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import fastnn
from fastnn.bench.samples import SEED
from fastnn.checks import Array

from . import by_hand
from .found import NUMPY
from .tasks import Task
from .turns import in_turns

BY_HAND = "NumPy by hand"
RATE = 0.01
SMALL, MNIST, WIDE = (4, 10, 3), (784, 100, 200, 10), (784, 2048, 2048, 10)


def network(units: tuple[int, ...], backend: str = "numba", **options: Any) -> fastnn.Network:
    """Return dense layers with ReLU between them, the same for the same units."""
    layers: list[fastnn.Layer] = []
    for sizes in pairwise(units):
        layers += [fastnn.Dense(*sizes), fastnn.ReLU()]
    rate = fastnn.SGD(RATE)
    return fastnn.Network(layers[:-1], backend=backend, optimizer=rate, seed=SEED, **options)


def dense_layers(of: fastnn.Network) -> by_hand.Layers:
    """Return copies of weights and biases."""
    dense = [layer for layer in of.layers if isinstance(layer, fastnn.Dense)]
    return [(layer.weights.copy(), layer.biases.copy()) for layer in dense]


def samples(rows: int, units: tuple[int, ...]) -> tuple[Array, Array]:
    rng = np.random.default_rng(SEED)
    return rng.random((rows, units[0]), np.float32), rng.integers(units[-1], size=rows)


def _prediction(units: tuple[int, ...], rows: int) -> Task:
    X, _ = samples(rows, units)
    layers = dense_layers(network(units))
    return Task(
        {
            "fastnn": lambda: partial(network(units).predict, X),
            BY_HAND: lambda: lambda: by_hand.outputs(layers, X).argmax(axis=1),
            NUMPY: lambda: partial(network(units, "numpy").predict, X),
        },
        BY_HAND,
        tolerance=0,
    )


def _step(units: tuple[int, ...], batch_size: int) -> Task:
    X, y = samples(batch_size, units)

    def of(backend: str) -> Callable[[], Callable[[], float]]:
        return lambda: partial(network(units, backend).train_step, X, y)

    return Task(
        {
            "fastnn": of("numba"),
            BY_HAND: lambda: partial(by_hand.step, dense_layers(network(units)), X, y, RATE),
            NUMPY: of("numpy"),
        },
        BY_HAND,
        tolerance=1e-4,
    )


LINES = {"1,000 rows of 20 columns": (1_000, 20), "100,000 rows of 100": (100_000, 100)}
NOISE = 0.1


def _least_squares(rows: int, columns: int) -> Task:
    """One dense layer under squared error. Who has found a mean error within 2 % of the least."""
    rng = np.random.default_rng(SEED)
    X = rng.standard_normal((rows, columns))
    y = X @ rng.standard_normal(columns) + 1 + NOISE * rng.standard_normal(rows)
    with_ones = np.c_[X, np.ones(rows)]

    def fit() -> Array:
        layer = fastnn.Dense(columns, 1)
        trained = fastnn.Network(
            [layer], loss="mse", dtype="float64", optimizer=fastnn.SGD(0.1), seed=SEED
        )
        trained.fit(X, y, epochs=_epochs(rows), batch_size=1_000)
        return np.append(layer.weights, layer.biases)

    def normal_equations() -> Array:
        return np.linalg.solve(with_ones.T @ with_ones, with_ones.T @ y)

    return Task(
        {
            "fastnn": lambda: fit,
            "normal equations": lambda: normal_equations,
            "np.linalg.lstsq": lambda: lambda: np.linalg.lstsq(with_ones, y)[0],
        },
        "np.linalg.lstsq",
        tolerance=0.02,
        judge=lambda found: np.mean((with_ones @ found - y) ** 2),
    )


def _epochs(rows: int) -> int:
    """As many as bring the error within a percent of the least."""
    return 40 if rows <= 1_000 else 1


def _named(units: tuple[int, ...]) -> str:
    return "-".join(map(str, units))


EDGES = (
    in_turns(
        "rows",
        "A few rows are predicted by `network.predict`, or by three lines that check nothing.",
        {
            f"{_named(units)}, {rows:,} row{'s' if rows > 1 else ''}": partial(
                _prediction, units, rows
            )
            for units, numbers in (
                (SMALL, (1, 100, 10_000)),
                (MNIST, (1, 10, 100)),
                (WIDE, (1, 10, 100)),
            )
            for rows in numbers
        },
    ),
    in_turns(
        "steps",
        "One step a call: `train_step` in a loop of your own, as where samples come one by one.",
        {
            f"{_named(units)}, batch {batch_size}": partial(_step, units, batch_size)
            for units in (SMALL, MNIST)
            for batch_size in (1, 32)
        },
    ),
    in_turns(
        "lines",
        "One dense layer under squared error is a linear least-squares problem.",
        {work: partial(_least_squares, *size) for work, size in LINES.items()},
    ),
)
