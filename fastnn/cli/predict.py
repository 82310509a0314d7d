"""`fastnn predict`: answers for pictures and rows."""

from __future__ import annotations

import argparse
import io
import sys
from mimetypes import guess_type
from pathlib import Path
from typing import Any

import fastnn
from fastnn import prediction, saving, tables
from fastnn.cli import arguments, console, outputs, sources
from fastnn.cli.arguments import HelpFormatter
from fastnn.prediction import Answers


def add_to(commands: Any) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "predict",
        help="read hand-drawn digits in pictures, or answer for the rows of a table",
        description="Find the digit in each picture, scale and centre it as MNIST's are, and "
        "print the probability of each class. Pictures need Pillow. A network that was trained on "
        "a table takes a table, and the answers are its classes or in the unit of its target.",
        epilog="examples: fastnn predict model.safetensors photo.jpg drawing.png; "
        "fastnn predict species.safetensors new.csv --output answers.csv",
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
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write the answers there as CSV, instead of printing them: a line for each input with "
        "its row number or file name, the columns of its table that the network does not take, "
        "such as an id, the answer, and the probabilities to all digits",
    )
    arguments.add_backend(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    files = [Path(name) for name in options.images if name != "-"]
    outputs.check((options.model, *files), output=options.output)
    network = fastnn.load(options.model, backend=options.backend)
    tabular = sum(map(_is_rows, options.images))
    if tabular and len(options.images) > 1:
        got = "both" if tabular < len(options.images) else f"{tabular} tables"
        raise ValueError(f"INPUT: expected pictures, or one table or - alone, got {got}")
    beside: dict[str, list[str]] = {}
    if tables.ENTRY in network.metadata:
        with sources.naming(options.model):
            encoding = tables.Encoding.of(network)
        answers, beside = _of_table(network, encoding, options.images[0])
    elif options.images == ["-"]:
        X = prediction.of_csv(network, sys.stdin, "standard input")
        answers = Answers.of_network(network, X, None)
    elif tabular:
        lines = io.StringIO(tables.text(options.images[0]), newline="")
        X = prediction.of_csv(network, lines, options.images[0])
        answers = Answers.of_network(network, X, None)
    else:
        X = prediction.of_pictures(network, options.images)
        answers = Answers.of_network(network, X, options.images)
    if options.output is None:
        console.say(answers.as_text())
    else:
        saving.replace_file(options.output, answers.as_csv(beside).encode(), "answers")
        several = "s" * (len(answers.said) > 1)
        console.say(f"{len(answers.said):,} answer{several} in {options.output}")
    return 0


def _is_rows(name: str) -> bool:
    return name == "-" or (not _is_called_picture(name) and tables.holds_rows(name))


def _is_called_picture(name: str) -> bool:
    return (guess_type(name)[0] or "").startswith("image/")


def _of_table(
    network: fastnn.Network, encoding: tables.Encoding, name: str
) -> tuple[Answers, dict[str, list[str]]]:
    """Return the answers for the rows of a table, and its columns that the network doesn't take."""
    if not _is_rows(name) and (_is_called_picture(name) or Path(name).exists()):
        raise ValueError(f"INPUT: expected a CSV or Parquet file or -, got {name}")
    if name == "-":
        frame = tables.read_rows(sys.stdin, encoding)
    else:
        frame = tables.read(name, texts=encoding.texts)
    with sources.naming("standard input" if name == "-" else name):
        X = encoding.inputs(frame, network.dtype)
    return encoding.target.predictions(network, X), encoding.others(frame)
