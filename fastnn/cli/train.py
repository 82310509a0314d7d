"""`fastnn train`: training one network."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import fastnn
from fastnn import checks, divergence, progress
from fastnn.cli import arguments, console, outputs, sources
from fastnn.cli.arguments import BATCH_NORM, HelpFormatter
from fastnn.cli.console import DIVERGED, INTERRUPTED
from fastnn.settings import Setting, has_diverged


def add_to(commands: Any) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "train",
        help="train a network and report its test accuracy",
        description="Train a multi-layer perceptron (dense layers with activations between them, "
        "softmax cross-entropy, minibatches) on the embedded MNIST or on IDX files of your own; or "
        "on a table, also by squared error.",
        epilog="examples: fastnn train --hidden 300 100 --epochs 10 --plot curves.png "
        "--save model.safetensors; fastnn train --csv examples/flowers.csv --target species",
        formatter_class=HelpFormatter,
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
        "--batch-norm",
        action="store_true",
        help=BATCH_NORM,
    )
    arguments.add_setting(parser, several=False)
    parser.add_argument(
        "--threads",
        type=int,
        help="that share each step on the numba backend, without changing a bit "
        "(default: FASTNN_NUM_THREADS, or by the work)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of initial weights and order; same seed, same bits"
    )
    arguments.add_data(parser)
    arguments.add_table(parser)
    arguments.add_preparation(parser)
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
    parser.add_argument(
        "--on-divergence",
        choices=divergence.CHOICES,
        default="raise",
        help="what becomes of a loss that turns NaN or infinite: raise ends the training with the "
        "last good parameters, the others go on",
    )
    parser.set_defaults(run=_run)


def defaults() -> dict[str, Any]:
    """Return what its options are where none is given."""
    parser = argparse.ArgumentParser()
    add_to(parser.add_subparsers())
    return vars(parser.parse_args(["train"]))


def _run(options: argparse.Namespace) -> int:
    outputs.check(
        (options.csv, options.parquet),
        plot=options.plot,
        save=options.save,
        checkpoint=options.checkpoint,
    )
    arguments.check(options)
    checks.clip_norm("--clip-norm", options.clip_norm)
    checks.matmul_precision("--matmul-precision", options.matmul_precision, np.dtype(options.dtype))
    patience = options.early_stopping
    stopping = None if patience is None else fastnn.EarlyStopping(patience=patience)
    task = sources.task(options)
    X_train, y_train, X_val, y_val, X_test, y_test = task.parts
    widths = [X_train.shape[1], *options.hidden, task.outputs]
    network = Setting.of(vars(options)).network(task)
    shape = "-".join(map(str, widths))
    console.say("".join(f"{note}\n" for note in task.notes), end="")
    print(f"{len(y_train):,} training, {len(y_val):,} validation, {len(y_test):,} test {task.unit}")
    rounding = "" if options.matmul_precision is None else " with products in bfloat16"
    print(
        f"{shape}, {_hidden(options)}, {network.parameter_count:,} parameters, "
        f"{network.dtype.name}{rounding}, "
        f"{network.backend} backend, seed {options.seed}"
    )
    if network.backend == "numba":
        print("preparing kernels: some seconds in the first run, later runs find them compiled")
    interrupted, error = False, None
    try:
        with warnings.catch_warnings():
            warnings.showwarning = console.show_warning
            network.fit(
                X_train,
                y_train,
                epochs=options.epochs,
                batch_size=options.batch_size,
                threads=options.threads,
                validation_data=(X_val, y_val),
                on_divergence=options.on_divergence,
                progress=progress.on(sys.stdout, bars=sys.stderr),
                callbacks=[] if stopping is None else [stopping],
                checkpoint=options.checkpoint,
                checkpoint_every=options.checkpoint_every,
                resume=options.resume,
            )
    except KeyboardInterrupt:
        interrupted = True
    except divergence.DivergenceError as found:
        error = found
        print(f"training has diverged in {error}")
    history = network.history
    if history is None or history.samples_seen == 0:  # nothing was learned yet
        if error is not None:
            return DIVERGED
        raise KeyboardInterrupt
    if interrupted:
        done, rest = divmod(history.samples_seen, len(y_train))
        print(f"interrupted after {done} epochs and {rest:,} {task.unit}; as far as it came:")
        if stopping is not None:
            stopping.on_train_end(network, history)
    diverged = error is not None or has_diverged(history)
    if error is not None:
        print("the weights are the last good ones:")
    elif diverged:
        print("training has diverged; try a smaller --learning-rate")
    elif stopping is not None and stopping.best_epoch:
        print(f"the weights are those of epoch {stopping.best_epoch}, of the least val loss")
    report = task.report(network, X_test, y_test, network.evaluate(X_test, y_test))
    console.say("\n".join(report))
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
        title = f"{shape}, batch {options.batch_size}, {report[1]}"
        history.plot(options.plot, title)
        print(f"learning curves in {options.plot}")
    return INTERRUPTED if interrupted else DIVERGED if diverged else 0


def _hidden(options: argparse.Namespace) -> str:
    """Return what follows each hidden layer."""
    dropout = "" if options.dropout is None else f" dropout {options.dropout:g}"
    return f"{'batch norm ' * options.batch_norm}{options.activation}{dropout}"
