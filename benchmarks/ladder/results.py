"""What a run of the ladder found, kept as JSON with the machine that it ran on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from fastnn.bench.figures import Spread
from fastnn.bench.machine import describe_environment
from fastnn.processors import cache_bytes

from . import rungs
from .table import Line, Machine


def write(lines: Sequence[Line], machine: Machine, path: str | PathLike[str]) -> None:
    """Write what was found; the caches are three, in bytes, even where the system tells none."""
    environment = describe_environment() | {"caches": cache_bytes()}
    document = {
        "environment": environment,
        "machine": {"peaks": machine.peaks, "bandwidth": machine.bandwidth},
        "rungs": [
            {
                "number": line.rung.number,
                "name": line.rung.name,
                "dtype": line.rung.dtype.name,
                "threads": line.rung.threads,
                "distance": line.distance,
                "seconds": line.seconds,
                "ratio": line.ratio,
                "without_zeros": line.without_zeros,
                "nbytes": line.nbytes,
            }
            for line in lines
        ],
    }
    Path(path).write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def read(path: str | PathLike[str]) -> tuple[list[Line], Machine, dict[str, Any]]:
    """Return the lines of the table, the machine's limits, and what else is known of it."""
    document = json.loads(Path(path).read_text("utf-8"))
    by_number = {rung.number: rung for rung in rungs()}
    lines = [
        Line(
            by_number[of["number"]],
            of["distance"],
            of["seconds"],
            of["ratio"] and Spread(*of["ratio"]),
            of["without_zeros"],
            of["nbytes"],
        )
        for of in document["rungs"]
    ]
    limits = document["machine"]
    machine = Machine(limits["peaks"], tuple(limits["bandwidth"]))
    return lines, machine, document["environment"]
