"""`fastnn info`: what a bug report needs."""

from __future__ import annotations

import argparse
import os
import platform
from importlib import metadata
from typing import Any

import fastnn
from fastnn import backends
from fastnn.bench.machine import blas


def add_to(commands: Any) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "info", help="say what a bug report needs: versions, CPU, threads, cache"
    )
    parser.set_defaults(run=_run)


def _run(_: argparse.Namespace) -> int:
    facts = {
        "fastnn": fastnn.__version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        **{name: _version(name) for name in _RUN_TIME},
        "optional": ", ".join(
            _optional(
                *("matplotlib", "pillow", "pandas", "pyarrow", "distributed"),
                *("scipy", "torch", "jax", "scikit-learn"),
            )
        )
        or "none",
        "backend": fastnn.get_backend(),
        "cores": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}"
        if hasattr(os, "sched_getaffinity")
        else str(os.cpu_count()),
        "blas": blas(),
        **backends.describe_numba(),
        "data": os.environ.get("FASTNN_DATA") or "the embedded MNIST",
        **{
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("FASTNN_", "NUMBA_", "OMP_", "OPENBLAS_", "MKL_"))
        },
    }
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {value}")
    return 0


_RUN_TIME = ("numpy", "numba", "llvmlite", "safetensors", "tqdm")


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _optional(*names: str) -> list[str]:
    versions = ((name, _version(name)) for name in names)
    return [f"{name} {version}" for name, version in versions if version != "not installed"]
