"""Epochs: the order of the samples, what is recorded, and who is told."""

from __future__ import annotations

import csv
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from os import PathLike
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import plotting, samples, saving
from fastnn.callbacks import Callback
from fastnn.checks import Array
from fastnn.divergence import DivergenceError, Keeper
from fastnn.hints import Watch
from fastnn.interrupts import Held
from fastnn.layers import TrainingMode
from fastnn.paths import Order, Path, Trainable, training_path
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
    val_loss, val_accuracy, val_r2 : list of float
        On the validation data after each epoch; empty without such data. There is R² where targets
        are real numbers, see `Evaluation`.
    train_loss, train_accuracy, train_r2 : list of float
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
    val_r2: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    train_r2: list[float] = field(default_factory=list)
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
        return MappingProxyType(self._filled())

    def _filled(self) -> dict[str, list[float]]:
        return {name: values for name in _COLUMNS if (values := getattr(self, name))}

    def to_dict(self) -> dict[str, list[float]]:
        """Return a copy of the lists that hold something, by name."""
        return {name: list(values) for name, values in self.columns.items()}

    def trim(self) -> None:
        """Leave out an epoch of which not all columns are there, as Ctrl-C may have it."""
        columns = self._filled().values()
        epochs = min(map(len, columns), default=0)
        for values in columns:
            del values[epochs:]

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


_COLUMNS = tuple([item.name for item in fields(History) if item.default_factory is list])

STRETCH_SECONDS = 0.1
"""What a call of a path should take: the bar moves and Ctrl-C is heard between calls."""

PAUSE_SECONDS = 50e-6
"""How long a training stands back, about as often, for threads that wait to use its network: the
lock that it gives back between two calls it would have again before they are awake."""

MOST_DRAWN = 1 << 16
"""Samples whose order is drawn at once, for epochs in one call: what the caches hold."""

STOP: ContextVar[threading.Event | None] = ContextVar("STOP", default=None)
"""Set where another thread may end a training, which Ctrl-C does in the main thread alone."""


@dataclass(slots=True)
class Options:
    """How to train: arguments of `Network.fit`, checked."""

    epochs: int
    batch_size: int
    threads: int | None
    shuffle: bool
    drop_last: bool
    train_accuracy: bool
    on_divergence: str
    progress: Progress | None
    callbacks: Sequence[Callback]


@dataclass
class Training:
    """A training that can begin, by arguments that have been checked.

    Attributes
    ----------
    X, y
        Inputs and targets; where there are `blocks`, a few that stand for all.
    watch
        Is told of losses.
    history
        Is filled.
    position
        Where it begins. If it is that of a checkpoint, network and history are as they were there,
        and `states` are those of the callbacks, from the file `checkpoint`.
    weights
        Those of the samples, float64.
    chosen
        The samples to train on, None for all of them.
    validation
        Inputs and targets to evaluate after each epoch.
    blocks
        Where samples come from that are never there all at once.
    writer
        Of checkpoints.
    """

    network: Network
    options: Options
    X: Array
    y: Array
    watch: Watch
    history: History
    position: Position
    states: Sequence[dict[str, Any]] | None = None
    checkpoint: str = ""
    weights: Array | None = None
    chosen: Order | None = None
    validation: tuple[Array, Array] | None = None
    blocks: Blocks | None = None
    writer: Writer | None = None

    def __post_init__(self) -> None:
        self._paused = 0.0
        self._batch_size = self.options.batch_size
        if self.blocks is None:
            # A batch can't be larger than the data, so no workspace has to be.
            self._batch_size = min(self._batch_size, len(self.X))
        self._every = np.arange(len(self.y)) if self.chosen is None else self.chosen
        left_out = len(self._every) % self._batch_size if self.options.drop_last else 0
        self._samples = len(self._every) - left_out
        self._keeper: Keeper | None = None
        self._has_run = False

    def run(self) -> History:
        """Train, and return the history."""
        network, history, options = self.network, self.history, self.options
        position, progress = self.position, options.progress
        with Held(), network._in_training(history):
            self._has_classes = samples.has_classes(network, self.X, self.y)
            self._tell_of_beginning()
            with ExitStack() as stack:
                if progress is not None:
                    progress.begin(history, options.epochs)
                    stack.enter_context(progress)
                start = time.perf_counter()
                path = stack.enter_context(
                    training_path(
                        network, self.X, self.y, self._batch_size, options.threads, self.weights
                    )
                )
                history.compile_seconds += time.perf_counter() - start
                if options.on_divergence == "raise":
                    self._keeper = Keeper(
                        network, path, self._batch_size, history, position, self.watch
                    )
                    if self.writer is not None:
                        self._keeper.refuse_to_write()
                if self.writer is not None:
                    self.writer.write(position)
                while position.epoch <= options.epochs and not position.ended:
                    if self._goes_unheard():
                        self._network_alone(self._run_short_epochs, path)
                        self._stood_back(time.perf_counter())
                    else:
                        self._run_epoch(path)
            for callback in options.callbacks:
                callback.on_train_end(network, history)
        return history

    def _tell_of_beginning(self) -> None:
        """Tell callbacks; a state that one can't go on from comes from a damaged file."""
        callbacks, states = self.options.callbacks, self.states
        if states is None:
            for callback in callbacks:
                callback.on_train_begin(self.network, self.history)
            return
        for callback, state in zip(callbacks, states, strict=True):
            try:
                callback.on_train_resume(self.network, self.history, state)
            except (KeyError, TypeError, ValueError) as error:
                kind = type(callback).__name__
                reason = saving.damage(error)
                raise ValueError(
                    f"{self.checkpoint}: {kind}: can't go on from its state in the checkpoint: "
                    f"{reason}"
                ) from error

    def _run_epoch(self, path: Path) -> None:
        """Run what is left of an epoch, record it, and tell callbacks."""
        network, history, position = self.network, self.history, self.position
        progress, callbacks, writer = self.options.progress, self.options.callbacks, self.writer
        if progress is not None:
            total = self._samples if self.blocks is None else self.blocks.samples
            progress.begin_epoch(total, position.done)
        if not position.done:
            for callback in callbacks:
                callback.on_epoch_begin(network, history)
        offset = 0
        for order in self._pieces(path):
            shares = self._train(path, order, offset)
            offset += len(order)
        sums = [position.loss], [position.correct]
        record = self._record(*sums, position.done, position.seconds, [shares])
        self._note(record | self._evaluations())
        if progress is not None:
            progress.end_epoch()
        ends = [callback.on_epoch_end(network, history) for callback in callbacks]
        position.next_epoch()
        self._has_run = True
        position.ended = any(ends)
        if writer is not None and writer.is_due_after_epoch(position):
            writer.write(position)

    def _goes_unheard(self) -> bool:
        """Say whether nobody is told of an epoch, and two of them fit into a stretch."""
        options = self.options
        told = options.progress, self.validation, self.blocks, self.writer
        heard = options.callbacks or options.train_accuracy or any(of is not None for of in told)
        return self._has_run and not heard and 2 * self.history.seconds[-1] < STRETCH_SECONDS

    def _run_short_epochs(self, path: Path) -> None:
        """Run epochs, and record them, for as long as a stretch.

        All that `_run_epoch` does takes several times as long as an epoch of a tiny network.
        """
        end = time.perf_counter() + STRETCH_SECONDS
        while self.position.epoch <= self.options.epochs and time.perf_counter() < end:
            epochs = 1
            if path.takes_epochs:
                left = self.options.epochs + 1 - self.position.epoch
                fit = int(STRETCH_SECONDS / self.history.seconds[-1])
                epochs = max(1, min(left, fit, MOST_DRAWN // len(self._every)))
            self._run_epochs(path, epochs)

    def _run_epochs(self, path: Path, epochs: int) -> None:
        """Run epochs that nobody is told of in one call, and record them."""
        rng, position, keeper = self.network._rng, self.position, self._keeper
        first, undrawn = position.epoch, rng.bit_generator.state if epochs > 1 else None
        orders = self._drawn(rng, epochs)
        if keeper is not None:
            keeper.begin(orders[:1], 0, first, apart=False)
            if time.perf_counter() >= keeper.due:
                keeper.keep()
        start = time.perf_counter()
        losses, correct = path.train_epochs(orders)
        seconds = (time.perf_counter() - start) / epochs
        finite = epochs
        if not all(map(math.isfinite, losses)):
            finite = [math.isfinite(loss) for loss in losses].index(False)
        last = epochs - 1 if keeper is None else min(finite, epochs - 1)
        if keeper is not None and last > 0:
            keeper.begin(orders[1 : last + 1], 0, first + 1, apart=False)
        if last > 0:
            self._count(self._samples, epochs=last)
            position.next_epoch(last)
        self._count(self._samples)
        position.loss, position.correct = losses[last], correct[last]

        def note(start: int, stop: int) -> None:
            sums = losses[start:stop], correct[start:stop]
            shares: list[Array | None] = [None] * len(sums[0])
            if self.weights is not None:
                shares = [self._shares(order) for order in orders[start:stop]]
            self._note(self._record(*sums, self._samples, seconds, shares))

        try:
            if keeper is not None:
                self._look_at_loss()
                keeper.check()
        except DivergenceError as error:
            # What is in the history, and drawn next, does not depend on how many the call had.
            ended = error.epoch - first
            note(0, ended)
            if undrawn is not None:
                rng.bit_generator.state = undrawn
                self._drawn(rng, ended + 1)
            raise
        note(0, finite)
        if finite < epochs:
            self.watch.loss(f"loss of epoch {first + finite}", losses[finite])
            note(finite, epochs)
        position.next_epoch()

    def _pieces(self, path: Path) -> Iterable[Order]:
        """Return the order of the epoch's samples, whole batches at a time."""
        rng, position = self.network._rng, self.position
        if self.blocks is not None:
            return self.blocks.pieces(path, rng, self.watch)
        if position.done and position.order is not None:
            rng = saving.generator(position.order)  # the order of this epoch once more
        elif self.writer is not None:
            position.order = dict(rng.bit_generator.state)
        return self._drawn(rng)

    def _drawn(self, rng: np.random.Generator, epochs: int = 1) -> Order:
        """Return the order of the samples in epochs to come, [epochs, samples]."""
        orders = np.empty((epochs, len(self._every)), np.int64)
        orders[...] = self._every
        if self.options.shuffle:
            rng.permuted(orders, axis=1, out=orders)
        return np.ascontiguousarray(orders[:, : self._samples])

    def _train(self, path: Path, order: Order, offset: int) -> Array | None:
        """Train on what is left of the samples of `order`; return their `_shares`.

        `offset` samples of the epoch come before those of `order`.
        """
        history, position, keeper = self.history, self.position, self._keeper
        if keeper is not None:
            # between epochs callbacks may change the network, and blocks go as they come
            apart = bool(self.options.callbacks) or self.blocks is not None
            keeper.begin(order[np.newaxis], offset, position.epoch, apart=apart)
        batch_size, progress, writer = self._batch_size, self.options.progress, self.writer
        # By the epoch before; the first one begins with a single batch, also where a training goes
        # on that was begun on another machine.
        speed = history.samples_per_second[-1] if self._has_run else 0.0
        batches = max(1, int(STRETCH_SECONDS * speed / batch_size))
        shares = self._shares(order)
        path.start(position.loss, position.correct)
        now = time.perf_counter()
        while position.done < offset + len(order):
            before = now
            if keeper is not None and before >= keeper.due:
                keeper.keep()
            count = batches if writer is None else min(batches, writer.steps_left(position.step))
            first = position.done - offset
            stretch = order[first : first + count * batch_size]
            self._network_alone(self._take_steps, path, stretch)
            now = time.perf_counter()
            took = now - before
            position.seconds += took
            self._look_at_loss()
            now = self._stood_back(now)
            # Where an epoch is cut into calls changes no bit, so time may decide it.
            batches = max(1, min(64 * batches, int(count * STRETCH_SECONDS / took)))
            if progress is not None:
                averages = {"loss": _mean(position.loss, position.done, shares)}
                if self._has_classes:
                    averages["accuracy"] = position.correct / position.done
                progress.advance(len(stretch), averages)
                now = time.perf_counter()
            # After the last step there is one, if due, when the epoch is over and in the history.
            if (
                writer is not None
                and position.done < offset + len(order)
                and writer.is_due_in_epoch(position.step)
            ):
                if keeper is not None:
                    keeper.check()
                writer.write(position)
                now = time.perf_counter()
        if keeper is not None:
            keeper.check()
        return shares

    def _take_steps(self, path: Path, stretch: Order) -> None:
        """Train on the samples of a stretch, in whole batches but for the epoch's last one."""
        position = self.position
        position.loss, position.correct = path.train(stretch)
        self._count(len(stretch))

    def _network_alone(self, train: Callable[..., None], *arguments: object) -> None:
        """Call what takes steps: nobody else has the network, and no signal cuts it short."""
        stop = STOP.get()
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt

        def steps() -> None:
            with TrainingMode(self.network._layers, True), np.errstate(all="ignore"):
                train(*arguments)

        self.network._lock.alone(steps)

    def _stood_back(self, now: float) -> float:
        """Leave the network to threads that wait for it, now and then; return what time it is."""
        if now - self._paused > STRETCH_SECONDS and threading.active_count() > 1:
            time.sleep(PAUSE_SECONDS)
            now = self._paused = time.perf_counter()
        return now

    def _count(self, samples: int, epochs: int = 1) -> None:
        """Note that so many samples have been trained on, in each of some epochs."""
        self.position.done += samples
        self.position.step += epochs * -(-samples // self._batch_size)
        self.history.samples_seen += epochs * samples

    def _look_at_loss(self) -> None:
        """Raise, or warn, if the epoch's sum of losses is not finite."""
        position = self.position
        if math.isfinite(position.loss):
            return
        if self._keeper is not None:
            raise self._keeper.error()
        if self.options.progress is not None:
            self.options.progress.hide()
        self.watch.loss(f"loss of epoch {position.epoch}", position.loss)

    def _shares(self, order: Order) -> Array | None:
        """Return what sums of losses are divided by, after each sample; None for their number.

        It is added in order, wherever the epoch is cut.
        """
        return None if self.weights is None else np.cumsum(self.weights[order])

    def _record(
        self,
        losses: Sequence[float],
        correct: Sequence[int],
        done: int,
        seconds: float,
        shares: Sequence[Array | None],
    ) -> dict[str, list[float]]:
        """Return columns of the history, of epochs of so many samples and seconds each.

        `losses` and `correct` are their sums; the last of `_shares` are those of all samples.
        """
        record = {
            "loss": [_mean(loss, done, of) for loss, of in zip(losses, shares, strict=True)],
            "seconds": [seconds] * len(losses),
            "samples_per_second": [done / seconds] * len(losses),
        }
        if self._has_classes:
            record["accuracy"] = [number / done for number in correct]
        return record

    def _note(self, record: Mapping[str, Sequence[float]]) -> None:
        """Add columns to the history; should Ctrl-C come in between, `History.trim` evens them."""
        before = len(self.history)
        for name, values in record.items():
            column = getattr(self.history, name)
            # Of a checkpoint that is older than the column.
            column.extend([math.nan] * (before - len(column)))
            column.extend(values)

    def _evaluations(self) -> dict[str, list[float]]:
        """Return the columns of the history that evaluations after an epoch fill."""
        record: dict[str, float] = {}
        if self.validation is not None:
            record |= _evaluated(self.network, "val", *self.validation)
            self.watch.loss(f"validation loss of epoch {self.position.epoch}", record["val_loss"])
        if self.options.train_accuracy:
            kept = slice(None) if self.chosen is None else self.chosen
            weights = None if self.weights is None else self.weights[kept]
            record |= _evaluated(self.network, "train", self.X[kept], self.y[kept], weights)
        return {name: [value] for name, value in record.items()}


def _mean(loss: float, done: int, shares: Array | None) -> float:
    """Return the mean of so many losses from their sum; 0 where no weight is above 0."""
    if shares is None:
        return loss / done
    return float(loss / shares[done - 1]) if shares[done - 1] > 0 else 0.0


def _evaluated(
    network: Trainable, prefix: str, X: Array, y: Array, weights: Array | None = None
) -> dict[str, float]:
    """Return the columns of the history that an evaluation fills."""
    found = network.evaluate(X, y, sample_weight=weights)
    columns = {"loss": found.loss, "accuracy": found.accuracy, "r2": found.r2}
    return {f"{prefix}_{name}": value for name, value in columns.items() if value is not None}
