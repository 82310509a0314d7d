"""Epochs: the order of the samples, what is recorded, and who is told."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from fastnn.backends import Labels
from fastnn.checks import Array

if TYPE_CHECKING:
    from tqdm import tqdm


@dataclass
class History:
    """What happened in training: lists with one value an epoch.

    Attributes
    ----------
    loss, accuracy : list of float
        On the training data, running: each batch before its step.
    val_loss, val_accuracy : list of float
        On the validation data after each epoch; empty without such data.
    train_loss, train_accuracy : list of float
        On the training data after each epoch; empty unless asked for.
    seconds : list of float
        Time spent in training steps, without evaluations.
    samples_per_second : list of float
    compile_seconds : float
        Time that compiling the kernels, or reading them from the cache, took
        before the first step. Not part of `seconds`.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    samples_per_second: list[float] = field(default_factory=list)
    compile_seconds: float = 0.0

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(self.loss)

    def __repr__(self) -> str:
        last = {
            item.name: values[-1]
            for item in fields(self)
            if isinstance(values := getattr(self, item.name), list) and values
        }
        shown = ", ".join(f"{name} {value:.4g}" for name, value in last.items())
        return f"<History of {len(self)} epochs: {shown or 'nothing yet'}>"


class Trainable(Protocol):
    """What an epoch needs of a network."""

    def _step(self, X: Array, y: Labels) -> tuple[float, int]: ...

    def _prepare(self) -> None: ...

    def evaluate(self, X: npt.ArrayLike, y: npt.ArrayLike) -> tuple[float, float]: ...


Callback = Callable[[Any, History], object]


def fit(
    network: Trainable,
    X: Array,
    y: Labels,
    *,
    epochs: int,
    batch_size: int,
    shuffle: bool,
    drop_last: bool,
    validation_data: tuple[Array, Labels] | None,
    train_accuracy: bool,
    progress: bool,
    callbacks: Sequence[Callback],
    rng: np.random.Generator,
) -> History:
    """Train `network`; see `Network.fit`, which has checked the arguments."""
    history = History()
    start = time.perf_counter()
    network._prepare()
    history.compile_seconds = time.perf_counter() - start
    samples = len(y) // batch_size * batch_size if drop_last else len(y)
    for epoch in range(1, epochs + 1):
        order = rng.permutation(len(y)) if shuffle else np.arange(len(y))
        with _bar(f"epoch {epoch}/{epochs}", samples, show=progress) as bar:
            _train_epoch(network, X, y, order[:samples], batch_size, history, bar)
        if not math.isfinite(history.loss[-1]):
            warnings.warn(
                f"the loss of epoch {epoch} is {history.loss[-1]}: training has diverged, or the "
                "data hold NaN or infinity; try a smaller learning rate",
                RuntimeWarning,
                stacklevel=3,
            )
        if validation_data is not None:
            loss, accuracy = network.evaluate(*validation_data)
            history.val_loss.append(loss)
            history.val_accuracy.append(accuracy)
        if train_accuracy:
            loss, accuracy = network.evaluate(X, y)
            history.train_loss.append(loss)
            history.train_accuracy.append(accuracy)
        # Every callback hears of every epoch: no short circuit.
        if True in [callback(network, history) is True for callback in callbacks]:
            break
    return history


def _train_epoch(
    network: Trainable,
    X: Array,
    y: Labels,
    order: npt.NDArray[np.int64],
    batch_size: int,
    history: History,
    bar: tqdm[Any],
) -> None:
    loss, correct, done = 0.0, 0, 0
    start = time.perf_counter()
    for excerpt in _batches(order, batch_size):
        batch_loss, batch_correct = network._step(X[excerpt], y[excerpt])
        loss += batch_loss
        correct += batch_correct
        done += len(excerpt)
        if not bar.disable:
            bar.set_postfix_str(f"loss {loss / done:.4f}, accuracy {correct / done:.4f}", False)
            bar.update(len(excerpt))
    seconds = time.perf_counter() - start
    history.loss.append(loss / done)
    history.accuracy.append(correct / done)
    history.seconds.append(seconds)
    history.samples_per_second.append(done / seconds)


def _batches(order: npt.NDArray[np.int64], batch_size: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _bar(description: str, total: int, *, show: bool) -> tqdm[Any]:
    # Imported here as it would be half of the time that `import fastnn` takes.
    from tqdm import tqdm

    layout = "{desc} {bar:24} {percentage:3.0f}%  {rate_fmt}{postfix}"
    return tqdm(
        desc=description,
        total=total,
        unit=" samples",
        unit_scale=True,
        disable=not show,
        leave=False,
        bar_format=layout,
    )
