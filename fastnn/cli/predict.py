"""`fastnn predict`: answers for pictures and rows."""

from __future__ import annotations

import argparse
import io
import sys
from mimetypes import guess_type
from pathlib import Path
from typing import Any

import fastnn
from fastnn import prediction, tables
from fastnn.cli import arguments, console, sources
from fastnn.cli.arguments import HelpFormatter


def add_to(commands: Any) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "predict",
        help="read hand-drawn digits in pictures, or answer for the rows of a table",
        description="Find the digit in each picture, scale and centre it as MNIST's are, and "
        "print the probability of each class. Pictures need Pillow. A network that was trained on "
        "a table takes a table, and the answers are its classes or in the unit of its target.",
        epilog="examples: fastnn predict model.safetensors photo.jpg drawing.png; "
        "fastnn predict species.safetensors new.csv",
        formatter_class=HelpFormatter,
    )
    arguments.add_model(parser)
    parser.add_argument(
        "images",
        nargs="+",
        metavar="INPUT",
        help="a PNG or JPEG of one digit, of any size, dark on light or light on dark; a CSV or "
        "Parquet file; or - for rows of comma-separated inputs on standard input",
    )
    arguments.add_backend(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    network = fastnn.load(options.model, backend=options.backend)
    tabular = sum(map(_is_rows, options.images))
    if tabular and len(options.images) > 1:
        got = "both" if tabular < len(options.images) else f"{tabular} tables"
        raise ValueError(f"INPUT: expected pictures, or one table or - alone, got {got}")
    if tables.ENTRY in network.metadata:
        with sources.naming(options.model):
            encoding = tables.Encoding.of(network)
        console.say(_of_table(network, encoding, options.images[0]))
        return 0
    if options.images == ["-"]:
        X = prediction.of_csv(network, sys.stdin, "standard input")
        names = [f"row {i}" for i in range(1, len(X) + 1)]
    elif tabular:
        lines = io.StringIO(tables.text(options.images[0]), newline="")
        X = prediction.of_csv(network, lines, options.images[0])
        names = [f"row {i}" for i in range(1, len(X) + 1)]
    else:
        X, names = prediction.of_pictures(network, options.images), options.images
    probabilities = prediction.finite(network.predict_proba(X))
    console.say(prediction.table(names, network.predict(X), probabilities))
    return 0


def _is_rows(name: str) -> bool:
    return name == "-" or (not _is_called_picture(name) and tables.holds_rows(name))


def _is_called_picture(name: str) -> bool:
    return (guess_type(name)[0] or "").startswith("image/")


def _of_table(network: fastnn.Network, encoding: tables.Encoding, name: str) -> str:
    """Return the answers for the rows of a table as text."""
    if not _is_rows(name) and (_is_called_picture(name) or Path(name).exists()):
        raise ValueError(f"INPUT: expected a CSV or Parquet file or -, got {name}")
    if name == "-":
        frame = tables.read_rows(sys.stdin, encoding)
    else:
        frame = tables.read(name, texts=encoding.texts)
    with sources.naming("standard input" if name == "-" else name):
        X = encoding.inputs(frame, network.dtype)
    return encoding.target.predictions(network, X)
