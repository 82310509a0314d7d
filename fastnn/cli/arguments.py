"""Options that several commands have."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fastnn
from fastnn import activations, checkpoints, checks, tables
from fastnn.optimizers import BY_NAME as OPTIMIZERS_BY_NAME
from fastnn.settings import SCHEDULES


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if isinstance(action.default, list) and None not in action.default:
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        if action.default in (None, False, [None]):
            return action.help
        return super()._get_help_string(action)


PRECISION = (
    "what matrix products round their operands to, beside float32: half of the time on processors "
    "that multiply bfloat16, where the input is dense"
)
BATCH_NORM = "normalise each hidden layer over the batch, before its activation"

OF_DATA = (
    *("data", "csv", "parquet", "target", "task", "missing", "ignore", "categorical"),
    *("test_share", "validation_share"),
)
"""Options of `train` and of `sweep` alike that decide what there is to learn."""


def add_setting(parser: argparse.ArgumentParser, *, several: bool) -> None:
    """Add options of a training; those that a sweep tries `several` values of take a list then."""

    def add(name: str, *, default: object = None, **keywords: Any) -> None:
        if several:
            keywords["nargs"], default = "+", [default]
            if "choices" in keywords:
                keywords["metavar"] = name.removeprefix("--").upper()
                keywords["help"] += f": {', '.join(keywords['choices'])}"
        parser.add_argument(name, default=default, **keywords)

    add("--activation", choices=activations.BY_NAME, default="relu", help="after each hidden layer")
    add(
        "--dropout",
        type=float,
        metavar="P",
        help="leave out each hidden unit with this probability in each training step",
    )
    add(
        "--label-smoothing",
        type=float,
        default=0.0,
        metavar="S",
        help="the share of each label that is spread evenly over all classes",
    )
    add("--batch-size", type=int, default=32, help="samples in a gradient step")
    add(
        "--optimizer",
        choices=OPTIMIZERS_BY_NAME,
        default="sgd",
        help="what moves the parameters; momentum and nesterov are SGD that keeps 0.9 of its "
        "velocity",
    )
    rates = ", ".join(
        f"{of().learning_rate:g} for {name}" for name, of in OPTIMIZERS_BY_NAME.items()
    )
    add(
        "--learning-rate",
        type=float,
        help=f"the factor on each step (default: {rates})",
    )
    add(
        "--schedule",
        choices=SCHEDULES,
        default="constant",
        help="what becomes of the learning rate: step divides it by 10 after each third of the "
        "training, cosine leads it down to 0 along half a wave, warm-up does so too, but raises it "
        "from 0 in the first epoch",
    )
    add(
        "--clip-norm",
        type=float,
        metavar="NORM",
        help="scale gradients down to this norm, that of all of them together, where it is larger"
        + "; 0 for none" * several,
    )
    add("--dtype", choices=("float32", "float64"), default="float32", help="of all computation")
    if several:
        parser.add_argument(
            "--matmul-precision",
            choices=("dtype", "bfloat16"),
            nargs="+",
            default=["dtype"],
            metavar="PRECISION",
            help=f"{PRECISION}: dtype, bfloat16",
        )
    else:
        parser.add_argument("--matmul-precision", choices=("bfloat16",), help=PRECISION)
    parser.add_argument("--epochs", type=int, default=25, help="passes over the training data")
    parser.add_argument(
        "--early-stopping",
        type=int,
        nargs="?",
        const=5,
        metavar="PATIENCE",
        help="end the training after so many epochs without a smaller validation loss (5 if no "
        "number is given), and keep the weights of the best epoch",
    )
    add_backend(parser)


def check(options: argparse.Namespace) -> None:
    """Refuse numbers that no training takes, by the names of their options, before data are read.

    Raises
    ------
    ValueError, TypeError
        If one is out of range.
    FileNotFoundError
        If there is no checkpoint to go on from.
    """
    for name, of in _NUMBERS.items():
        given = getattr(options, name, None)
        for value in checks.flat(given):
            if value is not None:
                of(f"--{name.replace('_', '-')}", value)
    if getattr(options, "checkpoint_every", None) is not None and options.checkpoint is None:
        raise ValueError(
            f"--checkpoint-every: expected --checkpoint beside {options.checkpoint_every}"
        )
    if getattr(options, "resume", None) is not None:
        checkpoints.read(options.resume)


_NUMBERS: dict[str, Callable[[str, Any], object]] = {
    "seed": partial(checks.integer, minimum=0, any_size=True),
    **dict.fromkeys(
        (
            "hidden",
            "batch_size",
            "epochs",
            "early_stopping",
            "threads",
            "checkpoint_every",
            "seeds",
            "workers",
        ),
        partial(checks.integer, minimum=1),
    ),
    **dict.fromkeys(
        ("dropout", "label_smoothing", "test_share", "validation_share"),
        partial(checks.real, minimum=0.0, below=1.0),
    ),
    **dict.fromkeys(("learning_rate", "clip_norm"), partial(checks.real, minimum=0.0)),
}
"""What a number must be, by the name of its option."""


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a file that `train --save` or Network.save wrote"
    )


def add_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        choices=fastnn.available_backends(),
        help="what computes (default: FASTNN_BACKEND, or numba)",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="a directory of the four IDX files of an MNIST-like data set, gzipped or not, or a "
        "name: fashion_mnist, kmnist, emnist_letters ... "
        "(default: FASTNN_DATA, or the MNIST that fastnn carries)",
    )


def add_table(parser: argparse.ArgumentParser) -> None:
    table = parser.add_argument_group("a table in place of images")
    which = table.add_mutually_exclusive_group()
    which.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="whose first line names the columns, separated by commas, semicolons or tabs; needs "
        "pandas",
    )
    which.add_argument("--parquet", type=Path, metavar="FILE", help="needs pandas and pyarrow")


def add_preparation(parser: argparse.ArgumentParser) -> None:
    table = parser.add_argument_group("training on a table")
    table.add_argument("--target", metavar="COLUMN", help="the column to predict")
    table.add_argument(
        "--task",
        choices=tables.TASKS,
        help="(default: by the values of the target: classification of texts and of few different "
        "whole numbers, regression of others)",
    )
    table.add_argument(
        "--missing",
        choices=tables.MISSING,
        help="what becomes of missing values: the mean or median of the column stands for them, "
        "for texts the most frequent one; or their rows are dropped (default: they are refused)",
    )
    table.add_argument("--ignore", nargs="+", metavar="COLUMN", help="columns to leave out")
    table.add_argument(
        "--categorical",
        nargs="+",
        metavar="COLUMN",
        help="columns whose numbers are names of categories",
    )
    table.add_argument(
        "--test-share", type=float, metavar="SHARE", default=0.2, help="of the rows: for the test"
    )
    table.add_argument(
        "--validation-share",
        type=float,
        metavar="SHARE",
        default=0.1,
        help="of the rows: for validation",
    )
