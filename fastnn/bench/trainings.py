"""Trainings: a network with each layer, optimiser and loss that fastnn has, and its predictions."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np

import fastnn
from fastnn import losses, optimizers
from fastnn.bench.cases import Case
from fastnn.bench.operations import ELEMENTWISE, Problem, constants
from fastnn.bench.samples import SEED, Array, load_samples
from fastnn.layers import Elementwise, Layer
from fastnn.optimizers import Optimizer

#: Networks and samples from tiny to large, as fields of a `Case`: some dozen steps of each.
NETWORKS: dict[str, dict[str, Any]] = {
    "tiny": {"shape": (4, 10, 3), "batch_size": 30, "samples": 150, "input": "table", "epochs": 10},
    "small": {"shape": (784, 100, 200, 10), "batch_size": 32, "samples": 1_600},
    "medium": {"shape": (784, 100, 200, 10), "batch_size": 128, "samples": 6_400},
    "large": {"shape": (784, 512, 512, 10), "batch_size": 128, "samples": 2_560},
}


def _of_function(kind: type[Elementwise]) -> Callable[[int], Layer]:
    return lambda units: kind(*constants(kind))


LAYERS: dict[str, Callable[[int], Layer]] = {
    "Dense": lambda units: fastnn.Dense(units, units),
    **{kind.__name__: _of_function(kind) for kind in ELEMENTWISE},
    "BatchNorm": fastnn.BatchNorm,
    "Dropout": lambda units: fastnn.Dropout(0.2, seed=SEED),
    "Layer": lambda units: Layer(),
    "Activation": lambda units: fastnn.Activation(np.sin, np.cos),
}
"""What comes after each hidden dense layer, by its width."""

OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    **optimizers.BY_NAME,
    "EpsilonHatAdam": optimizers.EpsilonHatAdam,
}
"""What makes each optimiser: those that have a short name, and the one that has none."""


@dataclass(frozen=True)
class Training:
    """One row: what is special about a network, and all of an epoch or two with it.

    Attributes
    ----------
    group, label : str
        "layers", "optimizers" or "losses", and which one of them.
    layer : callable
        One of `LAYERS`.
    optimizer : callable
        Makes an optimiser.
    loss : str
    """

    group: str
    label: str
    layer: Callable[[int], Layer] = LAYERS["ReLU"]
    optimizer: Callable[[], Optimizer] = lambda: fastnn.SGD(0.1)
    loss: str = "softmax_cross_entropy"

    def network(self, case: Case) -> fastnn.Network:
        """Return the network on the backend of a case, with the same parameters each time."""
        layers: list[Layer] = []
        for inputs, outputs in pairwise(case.shape[:-1]):
            layers += [fastnn.Dense(inputs, outputs), self.layer(outputs)]
        return fastnn.Network(
            [*layers, fastnn.Dense(*case.shape[-2:])],
            loss=self.loss,
            optimizer=self.optimizer(),
            backend=case.contender,
            dtype=np.dtype(case.dtype),
            seed=SEED,
        )

    def describe(self, size: str) -> str:
        """Return all that makes the row, in words."""
        return f"{self.layer(4)!r}, {self.optimizer()!r}, {self.loss}, {NETWORKS[size]}"

    def problem(self, size: str, backend: str, dtype: str) -> Problem:
        """Return a training from the same parameters in each call; its result is the mean loss."""
        case = Case(backend, dtype=dtype, **NETWORKS[size])
        network = self.network(case)
        X, y = samples(size, dtype)
        if self.loss != "softmax_cross_entropy":
            y = fastnn.one_hot(y, case.shape[-1]).astype(dtype)
        initial = network.get_weights()

        def train() -> float:
            network.set_weights(initial)
            network.optimizer = self.optimizer()  # which has seen no step
            history = network.fit(
                X, y, epochs=case.epochs, batch_size=case.batch_size, shuffle=False
            )
            return float(history.loss[-1])

        return Problem(train)

    def reference(self, size: str, dtype: str) -> Problem:
        """Return the training by NumPy in float64."""
        return self.problem(size, "numpy", "float64")


@cache
def samples(size: str, dtype: str) -> tuple[Array, Array]:
    """Return inputs and labels, which all share: the same numbers in both dtypes."""
    X, y = load_samples(Case("numpy", **NETWORKS[size]))
    return X.astype(dtype), y


TRAININGS = (
    *(Training("layers", name, layer=layer) for name, layer in LAYERS.items()),
    *(Training("optimizers", name, optimizer=optimizer) for name, optimizer in OPTIMIZERS.items()),
    *(
        Training("losses", kind.name, loss=kind.name, optimizer=partial(fastnn.SGD, 0.01))
        for kind in losses.BUILT_IN
    ),
)


@dataclass(frozen=True)
class Prediction:
    """One row: the probabilities of the first `rows` samples, or of all."""

    label: str
    rows: int | None

    def describe(self, size: str) -> str:
        """Return all that makes the row, in words."""
        return f"{self.rows} rows, {NETWORKS[size]}"

    def problem(self, size: str, backend: str, dtype: str) -> Problem:
        """Return the prediction by a network as it was drawn."""
        plain = Training("prediction", self.label)
        network = plain.network(Case(backend, dtype=dtype, **NETWORKS[size]))
        X = samples(size, dtype)[0][: self.rows]
        return Problem(partial(network.predict_proba, X))

    def reference(self, size: str, dtype: str) -> Problem:
        """Return the prediction by NumPy in float64."""
        return self.problem(size, "numpy", "float64")


PREDICTIONS = (Prediction("predict_proba one row", 1), Prediction("predict_proba all rows", None))
