"""`fastnn page`: a network in a web page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fastnn import page
from fastnn.cli import arguments, outputs, sources


def add_to(commands: Any) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "page",
        help="write a web page to draw digits on and watch the network",
        description="Write one page that holds the network and needs no server and no connection: "
        "draw a digit, and see the activations of each layer and the probabilities.",
        epilog="example: fastnn page model.safetensors page.html",
    )
    arguments.add_model(parser)
    parser.add_argument("page", type=Path, metavar="PAGE", help="the file to write, as page.html")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    outputs.check_file("PAGE", options.page)
    page.write(sources.model_of_images(options.model), options.page, options.model.name)
    print(f"page in {options.page}")
    return 0
