"""What a training on the command line is asked for, and the network that it makes of that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, NamedTuple

from fastnn import activations, backends, checks, schedules
from fastnn.checks import Array
from fastnn.dropout import Dropout
from fastnn.layers import Dense, Rescaling
from fastnn.losses import Loss, SoftmaxCrossEntropy
from fastnn.network import Network
from fastnn.normalization import BatchNorm
from fastnn.optimizers import BY_NAME as OPTIMIZERS
from fastnn.optimizers import Optimizer
from fastnn.schedules import Rate
from fastnn.scores import Evaluation
from fastnn.training import History

PIXEL_SCALE = 1 / 255

SCHEDULES: dict[str, Callable[[Any, int, int], Rate]] = {
    "constant": lambda rate, epoch, steps: rate,
    "step": lambda rate, epoch, steps: schedules.StepDecay(rate, 0.1, math.ceil(steps / 3)),
    "cosine": lambda rate, epoch, steps: schedules.CosineDecay(rate, steps),
    "warm-up": lambda rate, epoch, steps: schedules.WarmUp(
        schedules.CosineDecay(rate, steps), epoch
    ),
}
"""Learning rates by name, from the rate, the steps of an epoch and those of the training."""


class Task(NamedTuple):
    """What there is to learn: inputs and targets of training, validation and test, in this order.

    `unit` is what a sample is called, `scale` what inputs are multiplied by, `notes` what is said
    before the training, and `report` returns what is said after it of the test samples and
    their evaluation.
    """

    parts: tuple[Array, ...]
    outputs: int
    unit: str
    scale: float | None
    loss: str
    metadata: dict[str, str]
    notes: list[str]
    report: Callable[[Network, Array, Array, Evaluation], list[str]]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What decides, beside the data, what a training ends with.

    What came later has a default, which is what trainings did before.

    Attributes
    ----------
    hidden : tuple of int
        Units of each hidden layer.
    activation, batch_norm, dropout
        What follows each hidden layer; no dropout for None.
    label_smoothing : float
        See `fastnn.SoftmaxCrossEntropy`.
    clip_norm : float, optional
    matmul_precision : str, optional
        See `fastnn.Network`.
    epochs, batch_size, dtype, backend, seed
    optimizer, learning_rate, schedule
        By name, but for the rate.
    early_stopping : int, optional
        Epochs without a smaller validation loss that end the training.
    """

    hidden: tuple[int, ...]
    activation: str
    batch_norm: bool
    dropout: float | None
    label_smoothing: float = 0.0
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    schedule: str
    clip_norm: float | None = None
    early_stopping: int | None
    dtype: str
    matmul_precision: str | None = None
    backend: str
    seed: int

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Setting:
        """Return what options say, and what goes without saying where they are None."""
        chosen = {item.name: options[item.name] for item in fields(cls)}
        chosen["hidden"] = tuple(chosen["hidden"])
        if chosen["backend"] is None:
            chosen["backend"] = backends.get_backend()
        if chosen["learning_rate"] is None:
            chosen["learning_rate"] = OPTIMIZERS[chosen["optimizer"]]().learning_rate
        return cls(**chosen)

    def network(self, task: Task) -> Network:
        """Return the network for a task, untrained."""
        loss: str | Loss = task.loss
        if loss == SoftmaxCrossEntropy.name:
            loss = SoftmaxCrossEntropy(self.label_smoothing)
        elif self.label_smoothing:
            raise ValueError(
                f"--label-smoothing: expected 0 without classes, got {self.label_smoothing:g}"
            )
        network = Network(
            loss=loss,
            clip_norm=self.clip_norm,
            matmul_precision=self.matmul_precision,
            backend=self.backend,
            dtype=self.dtype,
            seed=self.seed,
        )
        network.metadata = task.metadata
        if task.scale is not None:
            network.add(Rescaling(task.scale))
        X, y, *_ = task.parts
        *hidden, last = pairwise((X.shape[1], *self.hidden, task.outputs))
        for inputs, outputs in hidden:
            network.add(Dense(inputs, outputs))
            if self.batch_norm:
                network.add(BatchNorm(outputs))
            network.add(activations.BY_NAME[self.activation]())
            if self.dropout is not None:
                network.add(Dropout(self.dropout))
        network.add(Dense(*last))
        network.optimizer = self._optimizer(len(y))
        return network

    def _optimizer(self, samples: int) -> Optimizer:
        epoch = math.ceil(samples / checks.integer("batch_size", self.batch_size, minimum=1))
        steps = epoch * checks.integer("epochs", self.epochs, minimum=1)
        optimizer = OPTIMIZERS[self.optimizer]()
        optimizer.learning_rate = SCHEDULES[self.schedule](self.learning_rate, epoch, steps)
        return optimizer


def has_diverged(history: History) -> bool:
    """Say whether the last epoch led to NaN or infinity."""
    return bool(history) and not math.isfinite(history.loss[-1])
