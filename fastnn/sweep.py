"""`fastnn sweep`: many settings and seeds, on all cores or on a cluster, and what came of them.

A result is a record, and a line of JSON in a file: the setting, and what its training ended with.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import statistics
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fastnn import __version__, checks, many, plotting, samples
from fastnn.callbacks import EarlyStopping
from fastnn.divergence import DivergenceError
from fastnn.locks import locked
from fastnn.markdown import markdown_table
from fastnn.network import Network
from fastnn.plotting import BLUE, GREY, ORANGE
from fastnn.scores import Evaluation
from fastnn.settings import Setting, Task

Record = dict[str, Any]

MEASURES = ("accuracy", "loss")
"""Of validation and test; there is no accuracy of targets that are no class ids."""

BEGINNING = b'{"fastnn": "'
"""Of every line."""

BINARY = getattr(os, "O_BINARY", 0)

NAMES = tuple(item.name for item in fields(Setting))


class Outcome(Protocol):
    """A training that has ended, here or on a cluster: a future."""

    def result(self) -> Record: ...


# What is asked for


def combinations(choices: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """Return a setting for each combination of the values that there are for each name."""
    combined = itertools.product(*(choices[name] for name in NAMES))
    settings = (Setting.of(dict(zip(NAMES, values, strict=True))) for values in combined)
    return list(dict.fromkeys(settings))


def check(settings: Sequence[Setting], task: Task) -> None:
    """Raise what a network of one of the settings would raise when it is made.

    Each value is tried once, beside the first of the others: to make all networks takes long. Not
    each precision goes with each dtype, so these are tried together.
    """
    first = settings[0]
    for dtype, precision in dict.fromkeys((s.dtype, s.matmul_precision) for s in settings):
        checks.matmul_precision("--matmul-precision", precision, np.dtype(dtype))
    for name in NAMES:
        for value in dict.fromkeys(getattr(setting, name) for setting in settings):
            if name != "seed" or value == first.seed:
                _made(replace(first, **{name: value}), task)


def _made(setting: Setting, task: Task) -> tuple[Network, EarlyStopping | None]:
    network, patience = setting.network(task), setting.early_stopping
    return network, None if patience is None else EarlyStopping(patience=patience)


def digest(task: Task) -> str:
    """Return what tells the data of a task from others."""
    checksum = 0
    for array in task.parts:
        described = f"{array.dtype.str} {array.shape}".encode()
        checksum = zlib.crc32(np.ascontiguousarray(array).data, zlib.crc32(described, checksum))
    return f"{checksum:08x}"


# Trainings


def train(setting: Setting, task: Task, of_data: str) -> Record:
    """Train by `setting` on one thread; return the record. `of_data` is the digest of the data."""
    X_train, y_train, X_val, y_val, X_test, y_test = task.parts
    network, stopping = _made(setting, task)
    diverged = False
    try:
        network.fit(
            X_train,
            y_train,
            epochs=setting.epochs,
            batch_size=setting.batch_size,
            threads=1,
            validation_data=(X_val, y_val),
            callbacks=[] if stopping is None else [stopping],
        )
    except DivergenceError:
        diverged = True
    history = network.history
    assert history is not None
    if diverged:
        classes = samples.has_classes(network, X_val, y_val)
        best, test = 0, Evaluation(math.nan, math.nan if classes else None)
        validation = test
    else:
        best = (stopping.best_epoch if stopping is not None else 0) or len(history)
        accuracy = history.val_accuracy[best - 1] if history.val_accuracy else None
        validation = Evaluation(history.val_loss[best - 1], accuracy)
        test = network.evaluate(X_test, y_test)
    columns = history.to_dict()
    seconds = sum(columns.pop("seconds", []))
    columns.pop("samples_per_second", None)
    return {
        "fastnn": __version__,
        "data": of_data,
        **asdict(setting),
        "parameters": network.parameter_count,
        "diverged": diverged,
        "best_epoch": best,
        "val_loss": validation.loss,
        "val_accuracy": validation.accuracy,
        "test_loss": test.loss,
        "test_accuracy": test.accuracy,
        "seconds": round(seconds, 3),
        "history": columns,
    }


def here(
    settings: Sequence[Setting], task: Task, of_data: str, workers: int
) -> Iterator[tuple[Setting, Outcome]]:
    """Train on this machine, so many at a time; yield each setting that has ended."""
    jobs = [partial(train, setting, task, of_data) for setting in settings]
    for number, future in many.in_threads(jobs, workers):
        yield settings[number], future


def on_cluster(
    settings: Sequence[Setting], load: Callable[[], Task], of_data: str, address: str
) -> Iterator[tuple[Setting, Outcome]]:
    """Train on the workers of a Dask cluster, where `load` reads the data; yield as `here` does.

    Raises
    ------
    ImportError
        If distributed is not installed.
    OSError
        If there is no scheduler at `address`.
    """
    jobs = [partial(_train_on_worker, setting, load, of_data) for setting in settings]
    for number, future in many.on_cluster(jobs, address):
        yield settings[number], future


def _train_on_worker(setting: Setting, load: Callable[[], Task], of_data: str) -> Record:
    return train(setting, _loaded(load, of_data), of_data)


_kept: dict[str, Task] = {}
_loading = threading.Lock()
"""The data of the last sweep, read once a process."""


def _loaded(load: Callable[[], Task], of_data: str) -> Task:
    with _loading:
        if of_data not in _kept:
            _kept.clear()
            task = load()
            if digest(task) != of_data:
                raise ValueError("expected the same data on each worker as here, got other")
            _kept[of_data] = task
        return _kept[of_data]


# Results in a file


class Results:
    """The results in a file, those of these data by their settings; for a `with` statement.

    Lines are added at the end, each in one write that waits for the disk. Where the end of a
    process has cut the last one, it is removed. No other sweep writes to the file meanwhile.

    Attributes
    ----------
    found : dict of Setting to dict
        The record of each setting.
    others : int
        Results of other data.

    Raises
    ------
    ValueError
        If the file holds something else, or another sweep has it open.
    OSError
        If it can't be read or written.
    """

    def __init__(self, path: Path, of_data: str) -> None:
        self._path, self._of_data = path, of_data
        self.found: dict[Setting, Record] = {}
        self.others = 0
        if path.exists() and not path.is_file():  # a device may be read without an end
            raise ValueError(f"--out: expected a file, got {path}, which is none")
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | BINARY, 0o666)
        try:
            self._lock()
            self._read()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def add(self, record: Record) -> Record:
        """Write a record, if it is not there; return it as it can be read back."""
        line = json.dumps(_finite(record), allow_nan=False).encode() + b"\n"
        size = os.fstat(self._file).st_size
        try:
            left = memoryview(line)
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, size)
            reason = f"can't write a result: {error.strerror or error}"
            raise type(error)(error.errno, reason, str(self._path)) from None
        return self._take(line, len(self.found) + self.others + 1)

    def _lock(self) -> None:
        try:
            alone = locked(self._file)
        except OSError:  # a file system without locks
            return
        if not alone:
            raise ValueError(
                f"--out: expected a file that no other sweep writes to, got {self._path}"
            )

    def _read(self) -> None:
        content = self._path.read_bytes()
        *lines, last = content.split(b"\n")
        for number, line in enumerate(lines, 1):
            if line.strip():
                self._take(line, number)
        if not last.strip():
            return
        try:
            self._take(last, len(lines) + 1)
        except ValueError:
            if not (last.startswith(BEGINNING) or BEGINNING.startswith(last)):
                raise
            os.ftruncate(self._file, len(content) - len(last))
        else:
            os.write(self._file, b"\n")

    def _take(self, line: bytes, number: int) -> Record:
        """Remember the record in a line."""
        try:
            record: Record = json.loads(line, parse_constant=_no_number)
            _check_record(record)
            setting = setting_of(record)
            hash(setting)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                f"--out: expected a file of results that `fastnn sweep` wrote, got {self._path}, "
                f"line {number}: {checks.message(str(error))}"
            ) from error
        of_these = record["data"] == self._of_data
        if of_these:
            self.found[setting] = record
        else:
            self.others += 1
        return record


_NUMBER = int | float | None
_KINDS: dict[str, Any] = {
    "data": str,
    **{f"{of}_{what}": _NUMBER for of in ("val", "test") for what in MEASURES},
    "seconds": int | float,
    "parameters": int,
    "diverged": bool,
    "history": dict,
}
"""Of the entries of a record beside its setting."""


def _no_number(text: str) -> None:
    raise ValueError(f"expected finite numbers, got {text}")


def _check_record(record: Any) -> None:
    if not isinstance(record, dict):
        raise TypeError(f"expected the entries of a result, got {type(record).__name__}")
    needed = [item.name for item in fields(Setting) if item.default is MISSING]
    absent = [name for name in (*needed, *_KINDS) if name not in record]
    if absent:
        raise ValueError(f"expected the entries of a result, found no {', '.join(absent)}")
    for name, kind in _KINDS.items():
        value = record[name]
        if not isinstance(value, kind):
            raise TypeError(f"{name}: expected another value than {value!r}")
        if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
            raise ValueError(f"{name}: expected a finite number, got {value!r}")
    for measure in MEASURES:
        if record[f"val_{measure}"] is None:
            continue
        curve = record["history"].get(f"val_{measure}")
        if not isinstance(curve, list) or not all(isinstance(x, _NUMBER) for x in curve):
            raise ValueError(f"history: expected numbers of val_{measure}, found {curve!r}")


def setting_of(record: Record) -> Setting:
    """Return the setting that a record is of."""
    setting = Setting(**{name: record[name] for name in NAMES if name in record})
    return replace(setting, hidden=tuple(setting.hidden))


def _finite(value: Any) -> Any:
    """Return a record with None for NaN and infinity, which JSON can't hold."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# What came of them


@dataclass(frozen=True)
class Row:
    """The records of one setting, one for each seed; `setting` is that of the first."""

    setting: Setting
    records: list[Record]

    def values(self, name: str) -> list[float]:
        """Return a number of each record, NaN where training has diverged."""
        return [math.nan if of[name] is None else of[name] for of in self.records]

    def mean(self, name: str) -> float:
        return statistics.fmean(self.values(name))

    def shown(self, name: str) -> str:
        """Return mean and standard deviation over the seeds, in four places."""
        mean = f"{self.mean(name):.4f}"
        if len(self.records) == 1:
            return mean
        return f"{mean} ± {statistics.stdev(self.values(name)):.4f}"


def rows(records: Sequence[Record]) -> list[Row]:
    """Put the records of a setting together; return the settings, best first."""
    if not records:
        return []
    together: dict[Setting, Row] = {}
    for record in records:
        setting = setting_of(record)
        row = together.setdefault(replace(setting, seed=0), Row(setting, []))
        row.records.append(record)
    measure = measures(records)[0]

    def rank(row: Row) -> float:
        mean = row.mean(f"val_{measure}")
        return math.inf if math.isnan(mean) else mean if measure == "loss" else -mean

    return sorted(together.values(), key=rank)


def measures(records: Sequence[Record]) -> Sequence[str]:
    """Return what records hold of validation and test, the one that ranks them first."""
    # there is none of a training that has diverged
    accuracy = any(record["val_accuracy"] is not None for record in records)
    return MEASURES if accuracy else MEASURES[1:]


def varying(settings: Sequence[Setting]) -> list[str]:
    """Return the names, but for the seed's, of what is not the same in all settings."""
    names = [name for name in NAMES if name != "seed"]
    return [name for name in names if len({getattr(s, name) for s in settings}) > 1] or ["hidden"]


def text(name: str, value: Any) -> str:
    """Return a value of a setting as tables show it."""
    if name == "hidden":
        return "-".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)


def named(setting: Setting, names: Sequence[str]) -> str:
    """Return these parts of a setting in words."""
    return ", ".join(
        f"{name.replace('_', ' ')} {text(name, getattr(setting, name))}" for name in names
    )


def table(best_first: Sequence[Row]) -> str:
    """Return a Markdown table of settings."""
    names = varying([row.setting for row in best_first])
    most = max(len(row.records) for row in best_first)
    diverged = any(record["diverged"] for row in best_first for record in row.records)
    header = [name.replace("_", " ") for name in names]
    shown = measures([record for row in best_first for record in row.records])
    header += [f"val {measure}" for measure in shown]
    header += ["parameters", "seconds"]
    header += ["seeds"] * (most > 1) + ["diverged"] * diverged
    lines = []
    for row in best_first:
        line = [text(name, getattr(row.setting, name)) for name in names]
        line += [row.shown(f"val_{measure}") for measure in shown]
        line += [f"{row.records[0]['parameters']:,}", f"{row.mean('seconds'):.1f}"]
        line += [str(len(row.records))] * (most > 1)
        line += [str(sum(record["diverged"] for record in row.records))] * diverged
        lines.append(line)
    return markdown_table(header, lines)


DRAWN_SETTINGS = 30
CURVE_COLORS = BLUE, ORANGE, "#2e8b57", "#8a4fb0", "#b03a48"
"""Of the best settings, whose curves are drawn; the others are grey."""


def draw(best_first: Sequence[Row], path: Path) -> None:
    """Draw the validation of the best settings, and how the very best came to it.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the file can't be written.
    """
    from matplotlib.ticker import MaxNLocator

    shown = best_first[:DRAWN_SETTINGS]
    names = varying([row.setting for row in best_first])
    measure = measures(best_first[0].records)[0]
    height = 1.2 + 0.3 * max(len(shown), 8)
    figure = plotting.new_figure((11, height), dpi=150, layout="constrained")
    by_setting, by_epoch = figure.subplots(1, 2, width_ratios=(3, 2))
    colors = [*CURVE_COLORS, *[GREY] * len(shown)]
    for place, row in enumerate(shown):
        values, color = row.values(f"val_{measure}"), colors[place]
        by_setting.plot(values, [place] * len(values), "o", color=color, markersize=4, alpha=0.6)
        by_setting.plot(row.mean(f"val_{measure}"), place, "|", color=color, markersize=16)
    by_setting.set_yticks(range(len(shown)), [_label(row.setting, names) for row in shown])
    by_setting.set_ylim(len(shown) - 0.4, -0.6)
    by_setting.set_xlabel(f"validation {measure}: each seed, and their mean")
    for row, color in zip(shown, CURVE_COLORS, strict=False):
        for record in row.records:
            values = record["history"].get(f"val_{measure}", [])  # none if it diverged at once
            curve = [math.nan if x is None else x for x in values]
            epochs = range(1, len(curve) + 1)
            by_epoch.plot(epochs, curve, color=color, linewidth=1, marker="o", markersize=3)
    by_epoch.set_xlabel(f"epoch, of the best {min(len(shown), len(CURVE_COLORS))}")
    by_epoch.set_ylabel(f"validation {measure}")
    by_epoch.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in (by_setting, by_epoch):
        plotting.add_grid(axes)
    plotting.write(figure, path)


def _label(setting: Setting, names: Sequence[str]) -> str:
    """Return a short label: values that speak for themselves without their names."""
    return ", ".join(
        text(name, value)
        if isinstance(value := getattr(setting, name), (str, tuple))
        else named(setting, [name])
        for name in names
    )
