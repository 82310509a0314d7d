"""The commands: `fastnn train`, `evaluate`, `bench`, `info`. The only place that prints."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata, util
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import fastnn
from fastnn import backends, bench
from fastnn.checks import Array
from fastnn.plotting import save_learning_curves

PIXEL_SCALE = 1 / 255
INTERRUPTED = 130
"""The exit status of a program that Ctrl-C ended: 128 + SIGINT."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ValueError, TypeError, OSError) as error:
        print(f"fastnn: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastnn",
        description="Train multi-layer perceptrons on a CPU, fast. "
        "With no option, `fastnn train` learns MNIST with a 784-100-200-10 network.",
        epilog="`fastnn COMMAND --help` describes the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"fastnn {fastnn.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(commands)
    _add_evaluate(commands)
    comparison = commands.add_parser(
        "bench",
        help="compare speed with the NumPy backend and with other libraries",
        description="Train the same network with fastnn and with its peers on this machine, "
        "in interleaved rounds, and print medians and ratios.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    bench.add_arguments(comparison)
    comparison.set_defaults(run=_bench)
    info = commands.add_parser(
        "info", help="say what a bug report needs: versions, CPU, threads, cache"
    )
    info.set_defaults(run=_info)
    return parser


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train a network and report its test accuracy",
        description="Train a multi-layer perceptron (dense layers with ReLU between them, softmax "
        "cross-entropy, minibatch SGD) on the embedded MNIST or on IDX files of your own.",
        epilog="example: fastnn train --hidden 300 100 --epochs 10 --plot curves.png "
        "--save model.safetensors",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--hidden",
        type=int,
        nargs="*",
        default=[100, 200],
        metavar="UNITS",
        help="units of each hidden layer; none at all gives softmax regression",
    )
    parser.add_argument("--epochs", type=int, default=25, help="passes over the training data")
    parser.add_argument("--batch-size", type=int, default=32, help="samples in a gradient step")
    parser.add_argument("--learning-rate", type=float, default=0.1, help="of every layer's SGD")
    _add_backend(parser)
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), default="float32", help="of all computation"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of initial weights and order; same seed, same bits"
    )
    _add_data(parser)
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="draw the learning curves into FILE (.png, .svg, .pdf); needs matplotlib",
    )
    parser.add_argument(
        "--save",
        type=Path,
        metavar="MODEL",
        default=argparse.SUPPRESS,
        help="write the trained network to MODEL (safetensors)",
    )
    parser.set_defaults(run=_train)


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="report the test accuracy of a saved network",
        description="Read a network that `fastnn train --save` wrote, or Network.save, "
        "and report its loss and accuracy on the test images.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a file written by --save")
    _add_backend(parser)
    _add_data(parser)
    parser.set_defaults(run=_evaluate)


def _add_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        choices=fastnn.available_backends(),
        default=fastnn.get_backend(),
        help="what computes",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="a directory of the four IDX files of an MNIST-like data set, gzipped or not "
        "(default: FASTNN_DATA, or the MNIST that fastnn carries)",
    )


def _train(options: argparse.Namespace) -> int:
    plot, model = getattr(options, "plot", None), getattr(options, "save", None)
    _check_outputs(plot, model)
    X_train, y_train, X_val, y_val, X_test, y_test = _pixels(options)
    classes = 1 + max(int(y.max()) for y in (y_train, y_val, y_test))
    widths = [X_train.shape[1], *options.hidden, classes]
    network = _perceptron(widths, options)
    shape = "-".join(map(str, widths))
    print(f"{len(y_train):,} training, {len(y_val):,} validation, {len(y_test):,} test images")
    print(
        f"{shape}, {network.parameter_count:,} parameters, {network.dtype.name}, "
        f"{network.backend} backend, seed {options.seed}"
    )
    reported = fastnn.History()

    def report(_: fastnn.Network, history: fastnn.History) -> None:
        nonlocal reported
        reported = history
        print(_epoch_line(history, options.epochs), flush=True)

    interrupted = False
    try:
        network.fit(
            X_train,
            y_train,
            epochs=options.epochs,
            batch_size=options.batch_size,
            validation_data=(X_val, y_val),
            progress=sys.stderr.isatty(),
            callbacks=[report],
        )
    except KeyboardInterrupt:
        interrupted = True
        print(f"interrupted in epoch {len(reported) + 1} of {options.epochs}; as far as it came:")
    test = network.evaluate(X_test, y_test)
    print(f"test loss {test.loss:.4f}")
    print(f"test accuracy {test.accuracy:.4f}")
    print(
        f"time {sum(reported.seconds):.2f} s training, and {reported.compile_seconds:.2f} s "
        "before it to compile kernels or read them from the cache"
    )
    if plot is not None and reported:
        title = f"{shape}, batch {options.batch_size}, test accuracy {test.accuracy:.4f}"
        save_learning_curves(reported, plot, title)
        print(f"learning curves in {plot}")
    if model is not None:
        network.save(model)
        print(f"network in {model}")
    return INTERRUPTED if interrupted else 0


def _epoch_line(history: fastnn.History, epochs: int) -> str:
    number = f"{len(history):{len(str(epochs))}}/{epochs}"
    return (
        f"epoch {number}  loss {history.loss[-1]:.4f}  accuracy {history.accuracy[-1]:.4f}  "
        f"val loss {history.val_loss[-1]:.4f}  val accuracy {history.val_accuracy[-1]:.4f}  "
        f"{history.samples_per_second[-1]:,.0f} samples/s"
    )


def _evaluate(options: argparse.Namespace) -> int:
    network = fastnn.load(options.model, backend=options.backend)
    X_test, y_test = _pixels(options)[4:]
    if not any(isinstance(layer, fastnn.Rescaling) for layer in network):
        # A network without that layer was trained on images scaled beforehand.
        X_test = X_test * network.dtype.type(PIXEL_SCALE)
    loss, accuracy = network.evaluate(X_test, y_test)
    print(f"test loss {loss:.4f}")
    print(f"test accuracy {accuracy:.4f}")
    return 0


def _bench(options: argparse.Namespace) -> int:
    report = bench.run(options)
    print(bench.as_markdown(report))
    return 0


def _info(_: argparse.Namespace) -> int:
    facts = {
        "fastnn": fastnn.__version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        **{name: _version(name) for name in ("numpy", "numba", "llvmlite", "safetensors")},
        "optional": ", ".join(_optional("matplotlib", "torch", "jax", "scikit-learn")) or "none",
        "backend": fastnn.get_backend(),
        "cores": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}"
        if hasattr(os, "sched_getaffinity")
        else str(os.cpu_count()),
        **backends.describe_numba(),
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


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _optional(*names: str) -> list[str]:
    versions = ((name, _version(name)) for name in names)
    return [f"{name} {version}" for name, version in versions if version != "not installed"]


def _pixels(options: argparse.Namespace) -> tuple[Array, ...]:
    path = getattr(options, "data", None)
    return fastnn.load_dataset(flatten=True, path=path, dtype=np.uint8)


def _perceptron(widths: list[int], options: argparse.Namespace) -> fastnn.Network:
    network = fastnn.Network(backend=options.backend, dtype=options.dtype, seed=options.seed)
    network.add(fastnn.Rescaling(PIXEL_SCALE))
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        if i > 0:
            network.add(fastnn.ReLU())
        network.add(fastnn.Dense(inputs, outputs, options.learning_rate))
    return network


def _check_outputs(plot: Path | None, model: Path | None) -> None:
    """Refuse before the training what would fail after it."""
    for option, path in (("--plot", plot), ("--save", model)):
        if path is not None and not path.absolute().parent.is_dir():
            raise ValueError(f"{option}: expected a file in an existing directory, got {path}")
    if plot is not None and plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--plot: expected a .png, .svg or .pdf file, got {plot}")
    if plot is not None and util.find_spec("matplotlib") is None:
        raise ValueError("--plot: expected matplotlib to be installed: pip install 'fastnn[plot]'")
