"""The commands: `fastnn train`, `evaluate`, `predict` and others. The only place that prints."""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata, util
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import fastnn
from fastnn import activations, backends, bench, checks, images, page, prediction, schedules, sheet
from fastnn.checks import Array
from fastnn.optimizers import BY_NAME as OPTIMIZERS_BY_NAME
from fastnn.schedules import Rate

PIXEL_SCALE = 1 / 255

DIVERGED = 1
INTERRUPTED = 130
"""The exit status of a program that Ctrl-C ended: 128 + SIGINT."""


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
        print(f"fastnn: error: {error or type(error).__name__}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


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
    _add_predict(commands)
    _add_show(commands)
    _add_page(commands)
    comparison = commands.add_parser(
        "bench",
        help="compare speed with the NumPy backend and with other libraries",
        description="Train the same network with fastnn and with its peers on this machine, "
        "in interleaved rounds, and print medians and ratios.",
        formatter_class=_HelpFormatter,
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
        description="Train a multi-layer perceptron (dense layers with activations between them, "
        "softmax cross-entropy, minibatches) on the embedded MNIST or on IDX files of your own.",
        epilog="example: fastnn train --hidden 300 100 --epochs 10 --plot curves.png "
        "--save model.safetensors",
        formatter_class=_HelpFormatter,
    )
    parser.add_argument(
        "--hidden",
        type=int,
        nargs="*",
        default=[100, 200],
        metavar="UNITS",
        help="units of each hidden layer; none at all gives softmax regression",
    )
    parser.add_argument(
        "--activation", choices=activations.BY_NAME, default="relu", help="after each hidden layer"
    )
    parser.add_argument(
        "--batch-norm",
        action="store_true",
        help="normalise each hidden layer over the batch, before its activation",
    )
    parser.add_argument(
        "--dropout",
        type=float,
        metavar="P",
        help="leave out each hidden unit with this probability in each training step",
    )
    parser.add_argument(
        "--label-smoothing",
        type=float,
        default=0.0,
        metavar="S",
        help="the share of each label that is spread evenly over all classes",
    )
    parser.add_argument("--epochs", type=int, default=25, help="passes over the training data")
    parser.add_argument("--batch-size", type=int, default=32, help="samples in a gradient step")
    parser.add_argument(
        "--optimizer",
        choices=OPTIMIZERS_BY_NAME,
        default="sgd",
        help="what moves the parameters; momentum and nesterov are SGD that keeps 0.9 of its "
        "velocity",
    )
    rates = ", ".join(
        f"{of().learning_rate:g} for {name}" for name, of in OPTIMIZERS_BY_NAME.items()
    )
    parser.add_argument(
        "--learning-rate",
        type=float,
        help=f"the factor on each step (default: {rates})",
    )
    parser.add_argument(
        "--schedule",
        choices=_SCHEDULES,
        default="constant",
        help="what becomes of the learning rate: step divides it by 10 after each third of the "
        "training, cosine leads it down to 0 along half a wave, warm-up does so too, but raises it "
        "from 0 in the first epoch",
    )
    parser.add_argument(
        "--early-stopping",
        type=int,
        nargs="?",
        const=5,
        metavar="PATIENCE",
        help="end the training after so many epochs without a smaller validation loss (5 if no "
        "number is given), and keep the weights of the best epoch",
    )
    _add_backend(parser)
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), default="float32", help="of all computation"
    )
    parser.add_argument(
        "--threads",
        type=int,
        help="that share each step on the numba backend, without changing a bit "
        "(default: FASTNN_NUM_THREADS, or by the work)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of initial weights and order; same seed, same bits"
    )
    _add_data(parser)
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw the learning curves into FILE (.png, .svg, .pdf); needs matplotlib",
    )
    parser.add_argument(
        "--save",
        type=Path,
        metavar="MODEL",
        help="write the trained network to MODEL (safetensors)",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="write to FILE, after each epoch, all that --resume needs to go on",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=int,
        metavar="STEPS",
        help="write it after each so many gradient steps instead",
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="FILE",
        help="go on from a checkpoint, as if the training had never stopped; give the other "
        "options as before, but --epochs may be more",
    )
    parser.set_defaults(run=_train)


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="report the test accuracy of a saved network",
        description="Read a network that `fastnn train --save` wrote, or Network.save, "
        "and report its loss and accuracy on the test images.",
        formatter_class=_HelpFormatter,
    )
    _add_model(parser)
    _add_backend(parser)
    _add_data(parser)
    parser.set_defaults(run=_evaluate)


def _add_predict(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        help="read hand-drawn digits in pictures",
        description="Find the digit in each picture, scale and centre it as MNIST's are, and "
        "print the probability of each class. Pictures need Pillow.",
        epilog="example: fastnn predict model.safetensors photo.jpg drawing.png",
        formatter_class=_HelpFormatter,
    )
    _add_model(parser)
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="a PNG or JPEG of one digit, of any size, dark on light or light on dark; "
        "or - for rows of comma-separated inputs on standard input",
    )
    _add_backend(parser)
    parser.set_defaults(run=_predict)


def _add_show(commands: Any) -> None:
    parser = commands.add_parser(
        "show",
        help="draw a sheet: confusion matrix, worst mistakes, weights, classes",
        description="Draw what a network has learned and where it errs, on the test images: "
        "confusion matrix, table of classes, worst mistakes, first-layer weights as images. "
        "Needs matplotlib.",
        epilog="example: fastnn show model.safetensors sheet.png",
        formatter_class=_HelpFormatter,
    )
    _add_model(parser)
    parser.add_argument(
        "sheet",
        type=Path,
        nargs="?",
        default="sheet.png",
        metavar="SHEET",
        help="the picture to write: .png, .svg or .pdf",
    )
    _add_backend(parser)
    _add_data(parser)
    parser.set_defaults(run=_show)


def _add_page(commands: Any) -> None:
    parser = commands.add_parser(
        "page",
        help="write a web page to draw digits on and watch the network",
        description="Write one page that holds the network and needs no server and no connection: "
        "draw a digit, and see the activations of each layer and the probabilities.",
        epilog="example: fastnn page model.safetensors page.html",
    )
    _add_model(parser)
    parser.add_argument("page", type=Path, metavar="PAGE", help="the file to write, as page.html")
    parser.set_defaults(run=_page)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a file that `train --save` or Network.save wrote"
    )


def _add_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        choices=fastnn.available_backends(),
        help="what computes (default: FASTNN_BACKEND, or numba)",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="a directory of the four IDX files of an MNIST-like data set, gzipped or not "
        "(default: FASTNN_DATA, or the MNIST that fastnn carries)",
    )


def _train(options: argparse.Namespace) -> int:
    _check_outputs(options.plot, save=options.save, checkpoint=options.checkpoint)
    patience = options.early_stopping
    stopping = None if patience is None else fastnn.EarlyStopping(patience=patience)
    X_train, y_train, X_val, y_val, X_test, y_test = _pixels(options)
    classes = 1 + max(int(y.max()) for y in (y_train, y_val, y_test))
    widths = [X_train.shape[1], *options.hidden, classes]
    network = _perceptron(widths, options)
    batch_size = checks.integer("batch_size", options.batch_size, minimum=1)
    network.optimizer = _optimizer(options, math.ceil(len(y_train) / batch_size))
    shape = "-".join(map(str, widths))
    print(f"{len(y_train):,} training, {len(y_val):,} validation, {len(y_test):,} test images")
    print(
        f"{shape}, {_hidden(options)}, {network.parameter_count:,} parameters, "
        f"{network.dtype.name}, {network.backend} backend, seed {options.seed}"
    )
    if network.backend == "numba":
        print("preparing kernels: some seconds in the first run, later runs find them compiled")
    callbacks: list[Any] = [_report_epoch(options.epochs)]
    if stopping is not None:
        callbacks.append(stopping)
    interrupted = False
    try:
        with warnings.catch_warnings():
            # Divergence is reported below, in words of the command.
            warnings.simplefilter("ignore", RuntimeWarning)
            network.fit(
                X_train,
                y_train,
                epochs=options.epochs,
                batch_size=options.batch_size,
                threads=options.threads,
                validation_data=(X_val, y_val),
                progress=sys.stderr.isatty(),
                callbacks=callbacks,
                checkpoint=options.checkpoint,
                checkpoint_every=options.checkpoint_every,
                resume=options.resume,
            )
    except KeyboardInterrupt:
        interrupted = True
    history = network.history
    if history is None or history.samples_seen == 0:
        raise KeyboardInterrupt  # nothing was learned yet
    if interrupted:
        done, rest = divmod(history.samples_seen, len(y_train))
        print(f"interrupted after {done} epochs and {rest:,} images; as far as it came:")
    diverged = bool(history) and not math.isfinite(history.loss[-1])
    if diverged:
        print("training has diverged; try a smaller --learning-rate")
    elif stopping is not None and not interrupted:
        print(f"the weights are those of epoch {stopping.best_epoch}, of the least val loss")
    test = network.evaluate(X_test, y_test)
    print(f"test loss {test.loss:.4f}")
    print(f"test accuracy {test.accuracy:.4f}")
    print(
        f"time {sum(history.seconds):.2f} s training, and {history.compile_seconds:.2f} s before "
        "it to compile kernels or read them from the cache"
    )
    if interrupted and options.checkpoint is not None:
        print(f"to go on from the last checkpoint, add: --resume {options.checkpoint}")
    if options.save is not None:
        network.save(options.save)
        print(f"network in {options.save}")
    if options.plot is not None and history:
        title = f"{shape}, batch {options.batch_size}, test accuracy {test.accuracy:.4f}"
        history.plot(options.plot, title)
        print(f"learning curves in {options.plot}")
    return INTERRUPTED if interrupted else DIVERGED if diverged else 0


def _hidden(options: argparse.Namespace) -> str:
    """Return what follows each hidden layer."""
    dropout = "" if options.dropout is None else f" dropout {options.dropout:g}"
    return f"{'batch norm ' * options.batch_norm}{options.activation}{dropout}"


def _report_epoch(epochs: int) -> Callable[[fastnn.Network, fastnn.History], bool]:
    """Return a callback that prints a line, and ends a training that has diverged."""

    def report(_: fastnn.Network, history: fastnn.History) -> bool:
        print(_epoch_line(history, epochs), flush=True)
        return not math.isfinite(history.loss[-1])

    return report


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
    if not images.takes_raw_pixels(network):
        X_test = X_test * network.dtype.type(PIXEL_SCALE)
    test = network.evaluate(X_test, y_test)
    print(f"test loss {test.loss:.4f}")
    if test.accuracy is not None:
        print(f"test accuracy {test.accuracy:.4f}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    network = fastnn.load(options.model, backend=options.backend)
    if options.images == ["-"]:
        X = prediction.of_csv(network, sys.stdin, "standard input")
        names = [f"row {i}" for i in range(1, len(X) + 1)]
    elif "-" in options.images:
        raise ValueError("IMAGE: expected pictures, or - alone, got both")
    else:
        X, names = prediction.of_pictures(network, options.images), options.images
    print(prediction.table(names, network.predict(X), network.predict_proba(X)))
    return 0


def _show(options: argparse.Namespace) -> int:
    _check_picture("SHEET", options.sheet)
    network = fastnn.load(options.model, backend=options.backend)
    X_test, y_test = fastnn.load_dataset(path=options.data, dtype=np.uint8)[4:]
    sheet.draw(network, X_test, y_test, options.sheet, options.model.name)
    print(f"sheet in {options.sheet}")
    return 0


def _page(options: argparse.Namespace) -> int:
    _check_file("PAGE", options.page)
    page.write(fastnn.load(options.model), options.page, options.model.name)
    print(f"page in {options.page}")
    return 0


def _bench(options: argparse.Namespace) -> int:
    report = bench.run(options, progress=lambda name: print(name, file=sys.stderr))
    print(bench.as_markdown(report))
    return 1 if report.failures else 0


def _info(_: argparse.Namespace) -> int:
    facts = {
        "fastnn": fastnn.__version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        **{name: _version(name) for name in _RUN_TIME},
        "optional": ", ".join(
            _optional("matplotlib", "pillow", "scipy", "torch", "jax", "scikit-learn")
        )
        or "none",
        "backend": fastnn.get_backend(),
        "cores": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}"
        if hasattr(os, "sched_getaffinity")
        else str(os.cpu_count()),
        "blas": _blas(),
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


def _blas() -> str:
    """Return the name and version of the library that multiplies matrices for NumPy."""
    built_with = np.show_config(mode="dicts")
    blas = built_with.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _optional(*names: str) -> list[str]:
    versions = ((name, _version(name)) for name in names)
    return [f"{name} {version}" for name, version in versions if version != "not installed"]


def _pixels(options: argparse.Namespace) -> tuple[Array, ...]:
    return fastnn.load_dataset(flatten=True, path=options.data, dtype=np.uint8)


def _perceptron(widths: list[int], options: argparse.Namespace) -> fastnn.Network:
    loss = fastnn.SoftmaxCrossEntropy(options.label_smoothing)
    network = fastnn.Network(
        loss=loss, backend=options.backend, dtype=options.dtype, seed=options.seed
    )
    network.add(fastnn.Rescaling(PIXEL_SCALE))
    *hidden, last = pairwise(widths)
    for inputs, outputs in hidden:
        network.add(fastnn.Dense(inputs, outputs))
        if options.batch_norm:
            network.add(fastnn.BatchNorm(outputs))
        network.add(activations.BY_NAME[options.activation]())
        if options.dropout is not None:
            network.add(fastnn.Dropout(options.dropout))
    network.add(fastnn.Dense(*last))
    return network


def _optimizer(options: argparse.Namespace, epoch: int) -> fastnn.Optimizer:
    """Return the optimiser that was asked for; an epoch has `epoch` steps."""
    steps = epoch * checks.integer("epochs", options.epochs, minimum=1)
    optimizer = OPTIMIZERS_BY_NAME[options.optimizer]()
    rate = optimizer.learning_rate if options.learning_rate is None else options.learning_rate
    optimizer.learning_rate = _SCHEDULES[options.schedule](rate, epoch, steps)
    return optimizer


_SCHEDULES: dict[str, Callable[[Any, int, int], Rate]] = {
    "constant": lambda rate, epoch, steps: rate,
    "step": lambda rate, epoch, steps: schedules.StepDecay(rate, 0.1, math.ceil(steps / 3)),
    "cosine": lambda rate, epoch, steps: schedules.CosineDecay(rate, steps),
    "warm-up": lambda rate, epoch, steps: schedules.WarmUp(
        schedules.CosineDecay(rate, steps), epoch
    ),
}
"""Learning rates by name, from the rate, the steps of an epoch and those of the training."""


def _check_outputs(plot: Path | None, **others: Path | None) -> None:
    """Refuse before the training what would fail after it."""
    if plot is not None:
        _check_picture("--plot", plot)
    for name, path in others.items():
        if path is not None:
            _check_file(f"--{name}", path)


def _check_picture(option: str, path: Path) -> None:
    """Refuse a picture that matplotlib can't write there."""
    _check_file(option, path)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"{option}: expected a .png, .svg or .pdf file, got {path}")
    if util.find_spec("matplotlib") is None:
        raise ValueError(
            f"{option}: expected matplotlib to be installed: pip install 'fastnn[plot]'"
        )


def _check_file(option: str, path: Path) -> None:
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise ValueError(f"{option}: expected a file in an existing directory, got {path}")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise ValueError(f"{option}: expected a file that can be written, got {path}")
