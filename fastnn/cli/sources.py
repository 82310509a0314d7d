"""Where data and models come from, as options say."""

from __future__ import annotations

import argparse
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import fastnn
from fastnn import checks, datasets, tables
from fastnn.checks import Array
from fastnn.cli import arguments
from fastnn.settings import PIXEL_SCALE, Task


def task(options: argparse.Namespace) -> Task:
    """Return what there is to learn, of images or of a table."""
    frame = table_of(options)
    if frame is None:
        _check_no_preparation(options)
        parts = pixels(options)
        classes = 1 + max(int(y.max()) for y in parts[1::2])
        loss = "softmax_cross_entropy"
        return Task(parts, classes, "images", PIXEL_SCALE, loss, {}, [], tested)
    if options.target is None:
        raise ValueError(
            f"--target: expected the column to predict, one of {checks.listed(frame.columns)}"
        )
    with naming(options.csv or options.parquet):
        encoding, parts, notes = tables.prepare(
            frame,
            options.target,
            task=options.task,
            missing=options.missing,
            ignore=options.ignore or (),
            categorical=options.categorical or (),
            validation_share=options.validation_share,
            test_share=options.test_share,
            seed=options.seed,
            dtype=options.dtype,
        )
    of = encoding.target
    metadata = {tables.ENTRY: encoding.as_text()}
    return Task(parts, of.outputs, "rows", None, of.loss, metadata, notes, of.report)


def _check_no_preparation(options: argparse.Namespace) -> None:
    """Refuse what is asked for of a table where there is none."""
    usual = argparse.ArgumentParser(add_help=False)
    arguments.add_preparation(usual)
    for name, default in vars(usual.parse_args([])).items():
        value = getattr(options, name)
        if value != default:
            shown = " ".join(value) if isinstance(value, list) else value
            raise ValueError(
                f"--{name.replace('_', '-')}: expected --csv or --parquet beside {shown!r}"
            )


def table_of(options: argparse.Namespace, texts: Container[str] = ()) -> Any:
    """Return the table that was asked for, None if none was; `texts` as `tables.read` has it."""
    path = options.csv or options.parquet
    if path is None:
        return None
    if options.data is not None:
        raise ValueError(f"--data: expected none beside a table, got {options.data}")
    return tables.read(path, parquet=options.csv is None, texts=texts)


def pixels(options: argparse.Namespace, *, flatten: bool = True) -> tuple[Array, ...]:
    """Return raw images and labels of training, validation and test."""
    data = options.data
    if data is not None and is_name(data):
        return fastnn.load_dataset(str(data), flatten, dtype=np.uint8)
    return fastnn.load_dataset(flatten, path=data, dtype=np.uint8)


def is_name(data: Path) -> bool:
    """Say whether what --data says is the name of a data set, not a directory."""
    return not data.is_dir() and datasets.is_name(str(data))


def tested(network: fastnn.Network, X: Array, y: Array, test: fastnn.Evaluation) -> list[str]:
    """Return lines on loss and accuracy, which there is where targets are class ids."""
    accuracy = [] if test.accuracy is None else [f"test accuracy {test.accuracy:.4f}"]
    return [f"test loss {test.loss:.4f}", *accuracy]


@contextmanager
def naming(file: Path | str) -> Iterator[None]:
    """Say in the message of a ValueError which file it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{file}: {checks.message(str(error))}") from None


def model_of_images(model: Path, backend: str | None = None) -> fastnn.Network:
    """Return a network from a file, unless it was trained on a table."""
    network = fastnn.load(model, backend=backend)
    if tables.ENTRY in network.metadata:
        raise ValueError(f"{model}: expected a model of images, got one of a table")
    return network
