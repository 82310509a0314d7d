"""`fastnn show`: a sheet of what a network has learned."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fastnn import sheet
from fastnn.cli import arguments, outputs, sources
from fastnn.cli.arguments import HelpFormatter


def add_to(commands: Any) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "show",
        help="draw a sheet: confusion matrix, worst mistakes, weights, classes",
        description="Draw what a network has learned and where it errs, on the test images: "
        "confusion matrix, table of classes, worst mistakes, first-layer weights as images. "
        "Needs matplotlib.",
        epilog="example: fastnn show model.safetensors sheet.png",
        formatter_class=HelpFormatter,
    )
    arguments.add_model(parser)
    parser.add_argument(
        "sheet",
        type=Path,
        nargs="?",
        default="sheet.png",
        metavar="SHEET",
        help="the picture to write: .png, .svg or .pdf",
    )
    arguments.add_backend(parser)
    arguments.add_data(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    outputs.check_picture("SHEET", options.sheet)
    network = sources.model_of_images(options.model, options.backend)
    X_test, y_test = sources.pixels(options, flatten=False)[4:]
    sheet.draw(network, X_test, y_test, options.sheet, options.model.name)
    print(f"sheet in {options.sheet}")
    return 0
