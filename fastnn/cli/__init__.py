"""The commands: `fastnn train`, `evaluate`, `predict` and others, a module each.

The only place that prints. A module has `add_to`, which adds the command and its options, and what
several commands need is in `arguments`, `sources`, `outputs` and `console`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

import fastnn
from fastnn.cli import bench, console, evaluate, info, page, predict, show, sweep, train
from fastnn.cli.console import INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    try:
        options = _parser().parse_args(arguments)
        return int(options.run(options))
    except BrokenPipeError:
        # The reader has gone, as in `fastnn train | head`; nothing can be told it any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError, OSError, MemoryError, ImportError) as error:
        console.say(f"fastnn: error: {error or type(error).__name__}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    """Says where a table belongs that no option takes."""

    def error(self, message: str) -> NoReturn:
        if re.match(r"unrecognized arguments: .*\.(csv|tsv|parquet)\b", message):
            message += "; a table is given by --csv FILE or --parquet FILE, and --target COLUMN"
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fastnn",
        description="Train multi-layer perceptrons on a CPU, fast. "
        "With no option, `fastnn train` learns MNIST with a 784-100-200-10 network.",
        epilog="`fastnn COMMAND --help` describes the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"fastnn {fastnn.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (train, sweep, evaluate, predict, show, page, bench, info):
        command.add_to(commands)
    return parser
