"""`fastnn bench`: fastnn beside other libraries."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from fastnn import bench
from fastnn.cli import console, outputs
from fastnn.cli.arguments import HelpFormatter
from fastnn.cli.console import FAILED, INTERRUPTED, UNDECIDED


class _Formatter(HelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Leaves the list of suites as it is."""


def add_to(commands: Any) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "bench",
        help="compare speed with the NumPy backend and with other libraries",
        description="Train the same network with fastnn and with its peers on this machine, in "
        "interleaved\nrounds, and print medians, quartiles and ratios.",
        formatter_class=_Formatter,
    )
    bench.add_arguments(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if (files := getattr(options, "beside", None)) is not None:
        if others := sorted(set(vars(options)) - {"beside", "run"}):
            raise ValueError(f"--beside: expected no other option, got --{others[0]}")
        console.say(bench.beside(files))
        return 0
    outputs.check((), plot=getattr(options, "plot", None))
    report = bench.run(options, progress=lambda name: print(name, file=sys.stderr))
    print(bench.as_markdown(report))
    if report.interrupted:
        return INTERRUPTED
    if report.failures or report.regressions:
        return FAILED
    return UNDECIDED if report.hidden else 0
