"""The two ways through a network: layer by layer in Python, or many batches in one compiled call.

`training.py` draws the order of the samples and hands it to either, so both
see the same batches, and their results are equal up to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastnn import backends, checks
from fastnn.backends import Labels
from fastnn.checks import Array
from fastnn.layers import Dense, Layer, ReLU, Rescaling

THREADS_VARIABLE = "FASTNN_NUM_THREADS"

Order = npt.NDArray[np.int64]

COMPILED_LAYERS = (Layer, Dense, ReLU, Rescaling)
"""Exactly these: a subclass may do anything."""

CAST_ROWS = 4096
"""Samples that are cast at once where compiled code can't read them as they lie."""

DENSITY_ROWS = 1024
"""Samples on which prediction measures the share of non-zeros; training measures all of them."""


class Trainable(Protocol):
    """What the paths need of a network."""

    _parameters: Array

    @property
    def backend(self) -> str: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __iter__(self) -> Iterator[Layer]: ...

    def _step(self, X: Array, y: Labels) -> tuple[float, int]: ...

    def _prepare(self) -> None: ...

    def evaluate(self, X: npt.ArrayLike, y: npt.ArrayLike) -> tuple[float, float]: ...


class Path(Protocol):
    """A way through the samples of an epoch."""

    def run(self, order: Order) -> tuple[float, int]:
        """Train on the samples of `order`; return the sum of losses and the right answers."""


def training_path(
    network: Trainable, X: Array, y: Labels, batch_size: int, threads: int | None = None
) -> Path:
    """Return the fastest path that `network` can take, with its kernels compiled.

    `threads` is the number that share the work on the compiled path, None for a choice by the work.
    """
    if reason_for_layers(network) is None:
        return CompiledPath(network, X, y, batch_size, threads)
    return LayerPath(network, X, y, batch_size)


class LayerPath:
    """Batch by batch through the layers' own methods: the reference, open to any layer."""

    def __init__(self, network: Trainable, X: Array, y: Labels, batch_size: int) -> None:
        self._network, self._X, self._y, self._batch_size = network, X, y, batch_size
        network._prepare()

    def run(self, order: Order) -> tuple[float, int]:
        """Train on the samples of `order`; return the sum of losses and the right answers."""
        loss, correct = 0.0, 0
        for start in range(0, len(order), self._batch_size):
            excerpt = order[start : start + self._batch_size]
            of_batch = self._network._step(self._X[excerpt], self._y[excerpt])
            loss, correct = loss + of_batch[0], correct + of_batch[1]
        return loss, correct


class CompiledPath:
    """Many batches in one call of a compiled function that reads the network from a table."""

    def __init__(
        self,
        network: Trainable,
        X: Array,
        y: Labels,
        batch_size: int,
        threads: int | None = None,
    ) -> None:
        self._network, self._X, self._y, self._batch_size = network, X, y, batch_size
        self._direct = _readable(network, X)
        # The density of the whole training set, so that the choice of kernels never changes.
        density = np.count_nonzero(X) / X.size
        self._program = _program(network, X, self._direct, density, batch_size)
        self._threads = self._program.default_threads if threads is None else threads
        self._run(X[:1], y[:1], np.arange(0))

    def run(self, order: Order) -> tuple[float, int]:
        """Train on the samples of `order`; return the sum of losses and the right answers."""
        if self._direct:
            return self._run(self._X, self._y, order)
        loss, correct = 0.0, 0
        step = max(1, CAST_ROWS // self._batch_size) * self._batch_size
        for start in range(0, len(order), step):
            excerpt = order[start : start + step]
            of_piece = self._run(self._X[excerpt], self._y[excerpt], np.arange(len(excerpt)))
            loss, correct = loss + of_piece[0], correct + of_piece[1]
        return loss, correct

    def _run(self, X: Array, y: Labels, order: Order) -> tuple[float, int]:
        if not self._direct:
            X = np.ascontiguousarray(X, self._network.dtype)
        rates = [layer.learning_rate for layer in self._network if isinstance(layer, Dense)]
        of_run: tuple[float, int] = self._program.run(
            X, y, order, self._network._parameters, np.array(rates), self._threads
        )
        return of_run


class Predictions:
    """Compiled predictions of one network, kept for the next call.

    To set one up takes longer than to predict a few rows. One in use is taken
    out, so that threads may predict at the same time: each has its own.
    """

    def __init__(self) -> None:
        self._idle: dict[Hashable, list[Any]] = {}

    @contextmanager
    def of(self, network: Trainable, X: Array) -> Iterator[Callable[[Array], Array]]:
        """Lend a function from rows of `X` to their logits."""
        compiler = backends.epoch_compiler(network.backend)
        assert compiler is not None
        direct = _readable(network, X)
        excerpt = X[:DENSITY_ROWS]
        # Two kinds of kernel stand behind this; a finer density would only keep more programs.
        density = 1.0 if np.count_nonzero(excerpt) >= compiler.SPARSE_BELOW * excerpt.size else 0.0
        key = (tuple(_described(network, compiler)), X.dtype.name if direct else None, density)
        idle = self._idle.setdefault(key, [])
        program = idle.pop() if idle else _program(network, X, direct, density)

        def logits(rows: Array) -> Array:
            if not direct:
                rows = np.ascontiguousarray(rows, network.dtype)
            output = np.empty((len(rows), program.dense[-1].output_units), network.dtype)
            program.predict(rows, network._parameters, output)
            return output

        yield logits
        idle.append(program)


def reason_for_layers(network: Trainable) -> str | None:
    """Return why a network can't take the compiled path, None if it can."""
    compiler = backends.epoch_compiler(network.backend)
    if compiler is None:
        return f"the {network.backend} backend has no compiled epoch"
    for layer in network:
        if type(layer) not in COMPILED_LAYERS:
            return f"{layer!r} is known to Python alone"
    reason: str | None = compiler.why_not(_described(network, compiler), dtype=network.dtype)
    return reason


def threads_asked(threads: object) -> int | None:
    """Return how many threads the caller, or else the environment, wants; None for no wish."""
    if threads is not None:
        return checks.integer("threads", threads, minimum=1)
    asked = os.environ.get(THREADS_VARIABLE, "").strip()
    if not asked:
        return None
    if not asked.isascii() or not asked.isdigit():
        raise ValueError(f"{THREADS_VARIABLE}: expected an integer of at least 1, got {asked!r}")
    return checks.integer(THREADS_VARIABLE, int(asked), minimum=1)


def most_threads(network: Trainable) -> int:
    """Return how many threads can share the compiled epoch of a network that has one."""
    compiler = backends.epoch_compiler(network.backend)
    assert compiler is not None
    return int(compiler.most_threads(_described(network, compiler)))


def _readable(network: Trainable, X: Array) -> bool:
    """Say whether compiled code can read `X` as it lies."""
    compiler = backends.epoch_compiler(network.backend)
    assert compiler is not None
    return bool(X.flags.c_contiguous and X.dtype.isnative and X.dtype.name in compiler.INPUT_CODES)


def _program(
    network: Trainable, X: Array, direct: bool, density: float, batch_size: int = 1
) -> Any:
    compiler = backends.epoch_compiler(network.backend)
    assert compiler is not None
    return compiler.Program(
        _described(network, compiler),
        batch_size=batch_size,
        dtype=network.dtype,
        input_dtype=X.dtype if direct else network.dtype,
        density=density,
    )


def _described(network: Trainable, compiler: Any) -> list[Any]:
    """Return what compiled code has to know of each layer."""
    layers: list[Any] = []
    start = 0
    for layer in network:
        if isinstance(layer, Dense):
            weights, biases = (layer._layout.slots[name] for name in ("weights", "biases"))
            layers.append(
                compiler.Dense(
                    layer.input_units,
                    layer.output_units,
                    start + weights.offset,
                    weights.stride,
                    start + biases.offset,
                )
            )
            start += layer._layout.size
        elif isinstance(layer, Rescaling):
            layers.append(compiler.Rescaling(layer.scale))
        elif isinstance(layer, ReLU):
            layers.append(compiler.ReLU())
    return layers
