"""Epochs: the order of the samples, what is recorded, and who is told."""

from __future__ import annotations

import csv
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from os import PathLike
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastnn import plotting, saving
from fastnn.callbacks import Callback
from fastnn.checks import Array
from fastnn.hints import Watch
from fastnn.layers import training_mode
from fastnn.paths import Path, Trainable, training_path
from fastnn.progress import Progress

if TYPE_CHECKING:
    from fastnn.blocks import Blocks
    from fastnn.checkpoints import Position, Writer
    from fastnn.network import Network


@dataclass
class History:
    """What happened in training: lists with one value an epoch.

    Attributes
    ----------
    loss, accuracy : list of float
        On the training data, running: each batch before its step. No accuracy where targets are
        no classes; nor is there one on other data.
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
    samples_seen : int
        Samples trained on, counting each in every epoch; exact to a fraction
        of a second if training was interrupted.
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
    samples_seen: int = 0

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(self.loss)

    def __getitem__(self, epoch: int) -> dict[str, float]:
        """Return what there is of an epoch, counted from 0 or, below 0, from the end: a row.

        A row begins with the epoch's number, which is counted from 1. `list(history)` is a table,
        as `pandas.DataFrame(history)` takes it.
        """
        number = range(1, len(self) + 1)[epoch]
        return {"epoch": number, **{name: values[epoch] for name, values in self.columns.items()}}

    def __iter__(self) -> Iterator[dict[str, float]]:
        return (self[epoch] for epoch in range(len(self)))

    @property
    def columns(self) -> Mapping[str, list[float]]:
        """The lists that hold something, by name; the mapping is read-only."""
        return MappingProxyType(
            {
                item.name: values
                for item in fields(self)
                if isinstance(values := getattr(self, item.name), list) and values
            }
        )

    def to_dict(self) -> dict[str, list[float]]:
        """Return a copy of the lists that hold something, by name."""
        return {name: list(values) for name, values in self.columns.items()}

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write a line for each epoch, below one with the names of the columns.

        Raises
        ------
        OSError
            If the file can't be written.
        """
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ["epoch", *self.columns])
            writer.writeheader()
            writer.writerows(self)

    def plot(self, path: str | PathLike[str] | None = None, title: str = "") -> Any:
        """Draw loss and accuracy by epoch, side by side.

        Parameters
        ----------
        path
            Of a picture to write; the ending chooses the format: .png, .svg, .pdf.
        title
            Above both panels.

        Returns
        -------
        matplotlib.figure.Figure
            Of no window; a notebook shows it.

        Raises
        ------
        ValueError
            If there is no epoch.
        ImportError
            If matplotlib is not installed.
        """
        return plotting.learning_curves(self, path, title)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {values[-1]:.4g}" for name, values in self.columns.items())
        return f"<History of {len(self)} epochs: {shown or 'nothing yet'}>"


STRETCH_SECONDS = 0.1
"""What a call of a path should take: the bar moves and Ctrl-C is heard between calls."""

STOP: ContextVar[threading.Event | None] = ContextVar("STOP", default=None)
"""Set where another thread may end a training, which Ctrl-C does in the main thread alone."""


def fit(
    network: Network,
    X: Array,
    y: Array,
    history: History,
    *,
    weights: Array | None,
    chosen: npt.NDArray[np.int64] | None,
    has_classes: bool,
    epochs: int,
    batch_size: int,
    threads: int | None,
    shuffle: bool,
    drop_last: bool,
    validation_data: tuple[Array, Array] | None,
    train_accuracy: bool,
    progress: Progress | None,
    watch: Watch,
    callbacks: Sequence[Callback],
    rng: np.random.Generator,
    position: Position,
    states: Sequence[dict[str, Any]] | None,
    writer: Writer | None,
    blocks: Blocks | None = None,
) -> None:
    """Train `network` and fill `history`; see `Network.fit`, which has checked the arguments.

    `weights` are those of the samples, float64, and `chosen` the samples to train on, None for all
    of them. It begins at `position`; where that is one of a checkpoint, network and history are as
    they were there, and `states` are those of the callbacks. Where there are `blocks`, the samples
    are theirs, and `X` and `y` are a few that stand for all.
    """
    if states is None:
        for callback in callbacks:
            callback.on_train_begin(network, history)
    else:
        _resume(callbacks, network, history, states)
    with ExitStack() as stack:
        if progress is not None:
            progress.begin(history, epochs)
            stack.enter_context(progress)
        start = time.perf_counter()
        if blocks is None:
            # A batch can't be larger than the data, so no workspace has to be.
            batch_size = min(batch_size, len(X))
        path = stack.enter_context(training_path(network, X, y, batch_size, threads, weights))
        history.compile_seconds += time.perf_counter() - start
        every = np.arange(len(y)) if chosen is None else chosen
        samples = len(every) // batch_size * batch_size if drop_last else len(every)
        if writer is not None:
            writer.write(position)
        while position.epoch <= epochs and not position.ended:
            epoch = position.epoch
            if progress is not None:
                total = samples if blocks is None else blocks.samples
                progress.begin_epoch(total, position.done)
            if not position.done:
                for callback in callbacks:
                    callback.on_epoch_begin(network, history)
            drawing = rng
            if position.done and position.order is not None:
                drawing = saving.generator(position.order)  # the order of this epoch once more
            elif writer is not None:
                position.order = dict(rng.bit_generator.state)
            pieces: Iterable[npt.NDArray[np.int64]]
            if blocks is None:
                order = drawing.permutation(every) if shuffle else every
                pieces = [order[:samples]]
            else:
                pieces = blocks.pieces(path, rng, watch)
            with training_mode(network.layers, True):
                offset = 0
                for order in pieces:
                    record = _train_epoch(
                        path,
                        order,
                        offset,
                        batch_size,
                        weights,
                        history,
                        progress,
                        watch,
                        has_classes,
                        position,
                        writer,
                    )
                    offset += len(order)
            if validation_data is not None:
                record |= _evaluated(network, "val", *validation_data)
                watch.loss(f"validation loss of epoch {epoch}", record["val_loss"])
            if train_accuracy:
                kept = slice(None) if chosen is None else chosen
                record |= _evaluated(
                    network, "train", X[kept], y[kept], None if weights is None else weights[kept]
                )
            # All columns at once, so that Ctrl-C never leaves them of different lengths.
            for name, value in record.items():
                getattr(history, name).append(value)
            if progress is not None:
                progress.end_epoch()
            ends = [callback.on_epoch_end(network, history) for callback in callbacks]
            position.next_epoch()
            position.ended = any(ends)
            if writer is not None and writer.is_due_after_epoch(position):
                writer.write(position)
    for callback in callbacks:
        callback.on_train_end(network, history)


def _resume(
    callbacks: Sequence[Callback],
    network: Network,
    history: History,
    states: Sequence[dict[str, Any]],
) -> None:
    """Tell callbacks that a training goes on; a state that is none comes from a damaged file."""
    for callback, state in zip(callbacks, states, strict=True):
        try:
            callback.on_train_resume(network, history, state)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{type(callback).__name__}: can't go on from its state in the checkpoint: {error}"
            ) from error


def _train_epoch(
    path: Path,
    order: npt.NDArray[np.int64],
    offset: int,
    batch_size: int,
    weights: Array | None,
    history: History,
    progress: Progress | None,
    watch: Watch,
    has_classes: bool,
    position: Position,
    writer: Writer | None,
) -> dict[str, float]:
    """Run what is left of the samples of `order`; return the epoch's columns of the history.

    `offset` samples of the epoch come before those of `order`.
    """
    # By the epoch before; the first one begins with a single batch.
    speed = history.samples_per_second[-1] if history.samples_per_second else 0.0
    batches = max(1, int(STRETCH_SECONDS * speed / batch_size))
    # what the sum of losses so far is divided by; added in order, wherever the epoch is cut
    shares = None if weights is None else np.cumsum(weights[order])
    path.start(position.loss, position.correct)
    stop = STOP.get()
    now = time.perf_counter()
    while position.done < offset + len(order):
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt
        before = now
        count = batches if writer is None else min(batches, writer.steps_left(position.step))
        first = position.done - offset
        stretch = order[first : first + count * batch_size]
        position.loss, position.correct = path.train(stretch)
        position.done += len(stretch)
        position.step += -(-len(stretch) // batch_size)
        history.samples_seen += len(stretch)
        now = time.perf_counter()
        position.seconds += now - before
        if not math.isfinite(position.loss):
            if progress is not None:
                progress.hide()
            watch.loss(f"loss of epoch {position.epoch}", position.loss)
        # Where an epoch is cut into calls changes no bit, so time may decide it.
        batches = max(1, min(64 * batches, int(count * STRETCH_SECONDS / (now - before))))
        if progress is not None:
            averages = {"loss": _mean(position.loss, position.done, shares)}
            if has_classes:
                averages["accuracy"] = position.correct / position.done
            progress.advance(len(stretch), averages)
            now = time.perf_counter()
        # After the last step there is one, if due, when the epoch is over and in the history.
        if (
            writer is not None
            and position.done < offset + len(order)
            and writer.is_due_in_epoch(position.step)
        ):
            writer.write(position)
            now = time.perf_counter()
    record = {
        "loss": _mean(position.loss, position.done, shares),
        "seconds": position.seconds,
        "samples_per_second": position.done / position.seconds,
    }
    return record | {"accuracy": position.correct / position.done} if has_classes else record


def _mean(loss: float, done: int, shares: Array | None) -> float:
    """Return the mean of so many losses from their sum; 0 where no weight is above 0."""
    if shares is None:
        return loss / done
    return float(loss / shares[done - 1]) if shares[done - 1] > 0 else 0.0


def _evaluated(
    network: Trainable, prefix: str, X: Array, y: Array, weights: Array | None = None
) -> dict[str, float]:
    """Return the columns of the history that an evaluation fills."""
    loss, accuracy = network.evaluate(X, y, sample_weight=weights)
    record = {f"{prefix}_loss": loss}
    return record if accuracy is None else record | {f"{prefix}_accuracy": accuracy}
