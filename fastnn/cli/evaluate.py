"""`fastnn evaluate`: how good a saved network is."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import fastnn
from fastnn import checks, divergence, images, tables
from fastnn.cli import arguments, console, sources
from fastnn.cli.arguments import HelpFormatter
from fastnn.cli.console import FAILED
from fastnn.settings import PIXEL_SCALE


def add_to(commands: Any) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "evaluate",
        help="report the test accuracy of a saved network",
        description="Read a network that `fastnn train --save` wrote, or Network.save, "
        "and report its loss and accuracy on the test images, or on all rows of a table, which "
        "should be other rows than those it was trained on.",
        formatter_class=HelpFormatter,
    )
    arguments.add_model(parser)
    arguments.add_backend(parser)
    arguments.add_data(parser)
    arguments.add_table(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    network = fastnn.load(options.model, backend=options.backend)
    file = options.csv or options.parquet
    if file is not None:
        with sources.naming(options.model):
            encoding = tables.Encoding.of(network)
        frame = sources.table_of(options, encoding.texts)
        with sources.naming(file):
            known = encoding.with_target(frame)
            X_test, y_test = encoding.inputs(known, network.dtype), encoding.targets(known)
        if len(known) < len(frame):
            left_out = len(frame) - len(known)
            console.say(f"left out: {left_out} rows without {encoding.target.name}")
        test = network.evaluate(X_test, y_test)
        console.say("\n".join(encoding.target.report(network, X_test, y_test, test)))
        return _status(network, options.model, test)
    if tables.ENTRY in network.metadata:
        with sources.naming(options.model):
            names = tables.Encoding.of(network).names
        raise ValueError(
            f"--csv: expected a table, as {options.model} was trained on one; it needs the columns "
            f"{checks.listed(names)}"
        )
    X_test, y_test = sources.pixels(options)[4:]
    if not images.takes_raw_pixels(network):
        X_test = X_test * network.dtype.type(PIXEL_SCALE)
    test = network.evaluate(X_test, y_test)
    print(*sources.tested(network, X_test, y_test, test), sep="\n")
    return _status(network, options.model, test)


def _status(network: fastnn.Network, model: Path, test: fastnn.Evaluation) -> int:
    """Return the exit status; say why it is none of success where the loss is not finite."""
    if math.isfinite(test.loss):
        return 0
    reason = "its parameters are finite, but what they give is not"
    held = divergence.first_held(network)
    if held is not None:
        layer, names = held
        reason = f"{divergence.named(network, layer)}, holds NaN or infinity in {names}"
    print(
        f"fastnn: error: {model}: the loss is {test.loss}: {reason}; its training has diverged",
        file=sys.stderr,
    )
    return FAILED
