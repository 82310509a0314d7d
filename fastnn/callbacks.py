"""Callbacks: what is told of a training as it goes on, and may end it.

A function is a callback as well: it is called as `function(network, history)` after each epoch,
and ends the training by returning something true.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastnn import checks, habits
from fastnn.layers import ParametricLayer

if TYPE_CHECKING:
    from fastnn.network import Network
    from fastnn.training import History

__all__ = ["CSVLogger", "Callback", "Checkpoint", "EarlyStopping", "ReduceOnPlateau"]


class Callback:
    """The base of every callback; one of your own overrides what it wants to hear of.

    Batches of the compiled epoch run in one call, so there is no hook for a batch. A callback can
    serve one training after the other: what it remembers begins anew in `on_train_begin`.

    Where `fit` writes checkpoints, one that remembers something says so in `state_dict` and takes
    it up again in `on_train_resume`. What it changes in training it reaches through the network
    that it is handed, as one that goes on in another process has other objects.
    """

    def on_train_begin(self, network: Network, history: History) -> None:
        """Hear that `fit` begins."""

    def on_train_resume(self, network: Network, history: History, state: dict[str, Any]) -> None:
        """Hear, in place of `on_train_begin`, that `fit` goes on from a checkpoint.

        `state` is what `state_dict` returned when it was written, and `history` is as it was then.
        By default `on_train_begin` is called, so that what is remembered begins anew.
        """
        self.on_train_begin(network, history)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint has to hold: by name, arrays or what JSON can hold."""
        return {}

    @property
    def _kind(self) -> str:
        """What checkpoints call it."""
        return type(self).__name__

    def on_epoch_begin(self, network: Network, history: History) -> None:
        """Hear that an epoch begins; `len(history)` is the number of those before."""

    def on_epoch_end(self, network: Network, history: History) -> object:
        """Hear that an epoch has ended and is in `history`; something true ends the training."""

    def on_train_end(self, network: Network, history: History) -> None:
        """Hear that the training has ended by itself or by a callback, but not by an exception."""


class _OfFunction(Callback):
    """A function that is called after each epoch."""

    _kind = "function"

    def __init__(self, function: Callable[[Any, Any], object]) -> None:
        self._function = function

    def on_epoch_end(self, network: Network, history: History) -> object:
        return self._function(network, history)


def checked_callbacks(callbacks: Iterable[object] | object) -> list[Callback]:
    """Return callbacks, functions among them wrapped; one alone need not be in a list.

    Raises
    ------
    TypeError
        If something is neither a `Callback` nor a function.
    """
    found: list[Callback] = []
    for callback in callbacks if isinstance(callbacks, Iterable) else [callbacks]:
        if isinstance(callback, Callback):
            found.append(callback)
        elif callable(callback) and not isinstance(callback, type):
            found.append(_OfFunction(callback))
        else:
            hint = ""
            if isinstance(callback, type) and issubclass(callback, Callback):
                hint = f"; write {callback.__name__}(...), with parentheses"
            raise TypeError(
                f"callbacks: expected functions or fastnn.Callback objects, got {callback!r}{hint}"
            )
    return found


def _epoch(name: str, value: object, history: History) -> int:
    """Return the number of an epoch that has been, 0 for none."""
    epoch = checks.integer(name, value, minimum=0)
    if epoch > len(history):
        raise ValueError(f"{name}: expected one of {len(history)} epochs, got {epoch}")
    return epoch


def _column(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected the name of a column, got {value!r}")
    return value


def _mode(name: str, value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or value not in ("min", "max")):
        raise ValueError(f"{name}: expected 'min', 'max' or None, got {value!r}")
    return value


def _factor(name: str, value: object) -> float:
    factor = checks.real(name, value, minimum=0.0, below=1.0)
    if factor == 0.0:
        raise ValueError(f"{name}: expected a number above 0, got 0.0")
    return factor


_count = partial(checks.integer, minimum=1)


class _Monitor(Callback):
    """What follows one column of the history.

    Attributes
    ----------
    best : float or None
        The best value so far.
    best_epoch : int
        The epoch that gave it, counted from 1; 0 before the first.
    """

    monitor = checks.Checked(_column)
    min_delta = checks.Checked(partial(checks.real, minimum=0.0))

    def __init__(self, monitor: str, min_delta: float, mode: str | None) -> None:
        self.monitor = monitor
        self.min_delta = min_delta
        self.mode = mode
        self.best: float | None
        self.best_epoch: int
        self._forget()

    @property
    def mode(self) -> str:
        """Which is better, less or more: "min" or "max". Set to None, it goes by the column."""
        if self._mode is None:
            return "max" if self.monitor.endswith(("accuracy", "r2")) else "min"
        return self._mode

    @mode.setter
    def mode(self, value: str | None) -> None:
        self._mode = _mode("mode", value)

    def on_train_begin(self, network: Network, history: History) -> None:
        self._forget()

    def on_train_resume(self, network: Network, history: History, state: dict[str, Any]) -> None:
        """Go on from the best epoch so far."""
        self.on_train_begin(network, history)
        if state["monitor"] != self.monitor:
            raise ValueError(f"monitor: expected {state['monitor']!r}, got {self.monitor!r}")
        best = state["best"]
        if not (best is None or isinstance(best, float)):
            raise TypeError(f"best: expected a number or None, got {best!r}")
        self.best = best
        self.best_epoch = _epoch("best_epoch", state["best_epoch"], history)

    def state_dict(self) -> dict[str, Any]:
        """Return the column, its best value and the epoch of that."""
        best = None if self.best is None else float(self.best)
        return {"monitor": self.monitor, "best": best, "best_epoch": self.best_epoch}

    def _forget(self) -> None:
        self.best, self.best_epoch = None, 0

    def _is_better(self, history: History) -> bool:
        """Say whether the last epoch is better than the best before, which it replaces then."""
        columns = history.columns
        if self.monitor not in columns:
            hint = ""
            if self.monitor.startswith("val_"):
                hint = "; fit fills it given validation_data or validation_split"
            raise ValueError(
                f"monitor: expected one of {', '.join(columns)}, got {self.monitor!r}{hint}"
            )
        value = columns[self.monitor][-1]
        gain = 0.0 if self.best is None else self.best - value
        if self.mode == "max":
            gain = -gain
        # NaN is no better than anything, and anything is better than nothing
        better = value == value and (self.best is None or gain > self.min_delta)
        if better:
            self.best, self.best_epoch = value, len(history)
        return better


class EarlyStopping(_Monitor):
    """End the training once a column of the history has not got better for some epochs.

    Parameters
    ----------
    monitor
        The column: "val_loss", "val_accuracy", "loss", ...
    patience
        Epochs without a better value that are waited for.
    min_delta
        What a value must be better by to count as better.
    mode : {"min", "max"}, optional
        Which is better, less or more; by default more of an accuracy or R² and less of all else.
    restore_best
        Give the network the weights of its best epoch back, at the end of the training.

    Attributes
    ----------
    best, best_epoch
        The best value, and its epoch, counted from 1.
    stopped_epoch : int or None
        The epoch after which it ended the training, None where it did not.

    Raises
    ------
    ValueError
        If an argument is out of range; in `fit`, if the history has no such column.
    TypeError
        If an argument is of the wrong kind.

    Notes
    -----
    Weights are those of `Network.get_weights`, batch norm's statistics included. What an optimiser
    remembers stays as it was in the last epoch.
    """

    patience = checks.Checked(_count)
    restore_best = checks.Checked(checks.flag)

    @habits.explained
    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 5,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore_best: bool = True,
    ) -> None:
        self.patience = patience
        self.restore_best = restore_best
        super().__init__(monitor, min_delta, mode)

    def _forget(self) -> None:
        super()._forget()
        self.stopped_epoch: int | None = None
        self._best_weights: list[checks.Array] | None = None

    def on_train_resume(self, network: Network, history: History, state: dict[str, Any]) -> None:
        """Go on from the best epoch so far and its weights."""
        super().on_train_resume(network, history, state)
        stopped = state["stopped_epoch"]
        if stopped is not None:
            self.stopped_epoch = _epoch("stopped_epoch", stopped, history)
        if self.restore_best and self.best_epoch:
            self._best_weights = [
                checks.shaped(f"weights.{i}", state[f"weights.{i}"], array.shape)
                for i, array in enumerate(network.get_weights())
            ]

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch so far, its weights, and where the training was ended."""
        weights = {f"weights.{i}": array for i, array in enumerate(self._best_weights or ())}
        return {**super().state_dict(), "stopped_epoch": self.stopped_epoch, **weights}

    def on_epoch_end(self, network: Network, history: History) -> bool:
        """Keep the weights of a better epoch; say whether patience has ended."""
        if self._is_better(history):
            if self.restore_best:
                self._best_weights = network.get_weights()
            return False
        if len(history) - self.best_epoch < self.patience:
            return False
        self.stopped_epoch = len(history)
        return True

    def on_train_end(self, network: Network, history: History) -> None:
        """Give the network its best weights back.

        Where Ctrl-C has ended the training, call it to have them; `fit` does not.
        """
        if self._best_weights is not None:
            network.set_weights(self._best_weights)
        self._best_weights = None


class ReduceOnPlateau(_Monitor):
    """Lower the learning rates where a column of the history has not got better for some epochs.

    Parameters
    ----------
    monitor, min_delta, mode
        As `EarlyStopping` takes them.
    factor
        What each learning rate is multiplied by, above 0 and below 1.
    patience
        Epochs without a better value that are waited for, since the best or the last change.
    minimum
        No rate gets below it.

    Raises
    ------
    ValueError
        If an argument is out of range; in `fit`, if the history has no such column.
    TypeError
        If an argument is of the wrong kind; in `fit`, if a learning rate is a schedule.
    """

    factor = checks.Checked(_factor)
    patience = checks.Checked(_count)
    minimum = checks.Checked(partial(checks.real, minimum=0.0))

    @habits.explained
    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        factor: float = 0.1,
        patience: int = 3,
        min_delta: float = 0.0,
        mode: str | None = None,
        minimum: float = 0.0,
    ) -> None:
        self.factor = factor
        self.patience = patience
        self.minimum = minimum
        super().__init__(monitor, min_delta, mode)

    def _forget(self) -> None:
        super()._forget()
        self._since = 0

    def on_train_resume(self, network: Network, history: History, state: dict[str, Any]) -> None:
        """Go on to wait since the best epoch or the last change; the network has its rates."""
        super().on_train_resume(network, history, state)
        self._since = _epoch("since", state["since"], history)

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch so far and since when patience is had."""
        return {**super().state_dict(), "since": self._since}

    def on_train_begin(self, network: Network, history: History) -> None:
        """Refuse a schedule before anything is trained."""
        super().on_train_begin(network, history)
        for layer in network:
            if isinstance(layer, ParametricLayer) and callable(layer.learning_rate):
                raise TypeError(
                    "ReduceOnPlateau: expected learning rates that are numbers, "
                    f"got {layer.learning_rate!r}"
                )

    def on_epoch_end(self, network: Network, history: History) -> None:
        """Lower the rates where it is time to."""
        if self._is_better(history):
            self._since = self.best_epoch
        elif len(history) - self._since >= self.patience:
            self._since = len(history)
            network._change_rates(lambda rate: max(rate * self.factor, min(rate, self.minimum)))


class Checkpoint(Callback):
    """Save the network after epochs: after each, after some, or after those that are the best yet.

    Parameters
    ----------
    path
        Of the file, as `Network.save` takes it. It may name the epoch and columns of the history,
        as in "digits-{epoch:03d}-{val_loss:.3f}.safetensors"; else each save replaces the one
        before.
    every
        Save after each so many epochs.
    monitor, mode
        Where given, save only after an epoch that is better than all before; as `EarlyStopping`
        takes them.

    Raises
    ------
    ValueError
        If `every` or `mode` is out of range; in `fit`, if the history has no such column.
    TypeError
        If an argument is of the wrong kind.
    OSError
        In `fit`, if the file can't be written.
    """

    path = checks.Checked(checks.file_path)
    every = checks.Checked(_count)

    @habits.explained
    def __init__(
        self,
        path: str | PathLike[str],
        *,
        every: int = 1,
        monitor: str | None = None,
        mode: str | None = None,
    ) -> None:
        self.path = path
        self.every = every
        self._monitor = None if monitor is None else _Monitor(monitor, 0.0, mode)
        if monitor is None and mode is not None:
            raise ValueError(f"mode: expected None without monitor, got {mode!r}")

    def on_train_begin(self, network: Network, history: History) -> None:
        """Forget what was best in a training before."""
        if self._monitor is not None:
            self._monitor.on_train_begin(network, history)

    def on_train_resume(self, network: Network, history: History, state: dict[str, Any]) -> None:
        """Go on from what was best."""
        if self._monitor is not None:
            self._monitor.on_train_resume(network, history, state)

    def state_dict(self) -> dict[str, Any]:
        """Return what was best, where that decides what is saved."""
        return {} if self._monitor is None else self._monitor.state_dict()

    def on_epoch_end(self, network: Network, history: History) -> None:
        """Save the network if it is time to."""
        better = self._monitor is None or self._monitor._is_better(history)
        if better and len(history) % self.every == 0:
            network.save(self.path.format(**history[-1]))


class CSVLogger(Callback):
    """Write a line for each epoch into a CSV file, at once.

    A training that goes on from a checkpoint goes on in its file: no line is missing or doubled.

    Parameters
    ----------
    path
        Of the file. The first line names the columns.
    append
        Go on behind what is in the file; by default it is written anew.

    Raises
    ------
    TypeError
        If `append` is not a bool.
    OSError
        In `fit`, if the file can't be written.
    """

    path = checks.Checked(lambda name, value: Path(checks.file_path(name, value)))
    append = checks.Checked(checks.flag)

    @habits.explained
    def __init__(self, path: str | PathLike[str], *, append: bool = False) -> None:
        self.path = path
        self.append = append

    def on_train_begin(self, network: Network, history: History) -> None:
        """Empty the file, or find out whether it has a first line."""
        with self.path.open("a" if self.append else "w") as file:
            self._start = file.tell()
        self._begun = self._start > 0

    def on_train_resume(self, network: Network, history: History, state: dict[str, Any]) -> None:
        """Write the lines of this training anew, up to where it goes on.

        So none is doubled, missing or cut, wherever it stopped; what was there before it stays.
        """
        start = checks.integer("start", state["start"], minimum=0)
        with self.path.open("ab") as file:
            # where the file has been cut or is another, its end
            self._start = min(start, file.tell())
            file.truncate(self._start)
        self._begun = self._start > 0
        self._write(list(history))

    def on_epoch_end(self, network: Network, history: History) -> None:
        """Write a line."""
        self._write([history[-1]])

    def state_dict(self) -> dict[str, Any]:
        """Return where in the file the lines of this training begin."""
        return {"start": self._start}

    def _write(self, rows: list[dict[str, float]]) -> None:
        lines = io.StringIO(newline="")
        for row in rows:
            writer = csv.DictWriter(lines, list(row))
            if not self._begun:
                writer.writeheader()
                self._begun = True
            writer.writerow(row)
        with self.path.open("ab", buffering=0) as file:
            end, left = file.tell(), memoryview(lines.getvalue().encode())
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError as error:
                # without half a line, which would become one with the next
                self._begun = end > 0
                with contextlib.suppress(OSError):
                    file.truncate(end)
                reason = f"can't write the history: {error.strerror or error}"
                raise type(error)(error.errno, reason, str(self.path)) from None
