"""The ladder: one training step, made fast in twelve rungs.

``python -m benchmarks.ladder`` verifies and times them all, from the notebooks' NumPy to the
package's kernels, and prints a table; with a number it takes that rung alone. ``--plot FILE`` draws
the table, ``--json FILE`` keeps it. Read the files in the order of their numbers: each says on top
what changed, why it should help, and what was tried and lost.

A rung is a module with

    DTYPE                           of samples and parameters
    prepare(layers, batch_size)     the state: a copy of the parameters, a pair (W, b) for each
                                    layer, and whatever else is made once
    step(state, X, y, rate)         takes one step of SGD with a batch
    layers(state)                   the parameters as they are now

or, in place of `step`, `train(state, X, y, rate)`, which takes all batches of X.

It is here and not in the package as it is to be read and run from a checkout, beside the files that
it tells of: a wheel has no use for slow programs, and there only the backend may import Numba.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from fastnn.checks import Array

Layers = list[tuple[Array, Array]]
"""Weights [in, out] and biases of each layer."""


@dataclass(frozen=True)
class Rung:
    """A rung, by its number."""

    number: int
    module: ModuleType

    @property
    def name(self) -> str:
        """What the file is called."""
        return self.module.__name__.rpartition(".")[2].partition("_")[2].replace("_", " ")

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.module.DTYPE)

    @property
    def threads(self) -> int:
        return getattr(self.module, "THREADS", 1)

    def prepare(self, layers: Layers, batch_size: int) -> Any:
        return self.module.prepare(layers, batch_size)

    def layers(self, state: Any) -> Layers:
        return self.module.layers(state)

    def train(self, state: Any, X: Array, y: Array, rate: float, batch_size: int) -> None:
        """Take a step with each batch of X, whose samples are whole batches."""
        if hasattr(self.module, "train"):
            self.module.train(state, X, y, rate)
            return
        step = self.module.step
        for start in range(0, len(X), batch_size):
            stop = start + batch_size
            step(state, X[start:stop], y[start:stop], rate)


def rungs() -> list[Rung]:
    """Return all rungs, from the lowest up."""
    names = sorted(name for _, name, _ in pkgutil.iter_modules(__path__) if name[1:3].isdigit())
    return [Rung(int(name[1:3]), importlib.import_module(f"{__name__}.{name}")) for name in names]
