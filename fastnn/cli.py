"""The commands: `fastnn train`, `evaluate`, `predict` and others. The only place that prints."""

from __future__ import annotations

import argparse
import io
import os
import platform
import shlex
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib import metadata, util
from mimetypes import guess_type
from pathlib import Path
from typing import Any

import numpy as np

import fastnn
from fastnn import (
    activations,
    backends,
    bench,
    checks,
    datasets,
    images,
    many,
    page,
    prediction,
    progress,
    sheet,
    sweep,
    tables,
)
from fastnn.checks import Array
from fastnn.optimizers import BY_NAME as OPTIMIZERS_BY_NAME
from fastnn.settings import PIXEL_SCALE, SCHEDULES, Setting, Task, has_diverged

DIVERGED = FAILED = 1
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
        if isinstance(action.default, list) and None not in action.default:
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        if action.default in (None, False, [None]):
            return action.help
        return super()._get_help_string(action)


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
    _add_sweep(commands)
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
        "softmax cross-entropy, minibatches) on the embedded MNIST or on IDX files of your own; or "
        "on a table, also by squared error.",
        epilog="examples: fastnn train --hidden 300 100 --epochs 10 --plot curves.png "
        "--save model.safetensors; fastnn train --csv flowers.csv --target species",
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
        "--batch-norm",
        action="store_true",
        help=_BATCH_NORM,
    )
    _add_setting(parser, several=False)
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
    _add_table(parser)
    _add_preparation(parser)
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


_BATCH_NORM = "normalise each hidden layer over the batch, before its activation"


def _add_setting(parser: argparse.ArgumentParser, *, several: bool) -> None:
    """Add options of a training; those that a sweep tries `several` values of take a list then."""

    def add(name: str, *, default: object = None, **keywords: Any) -> None:
        if several:
            keywords["nargs"], default = "+", [default]
            if "choices" in keywords:
                keywords["metavar"] = name.removeprefix("--").upper()
                keywords["help"] += f": {', '.join(keywords['choices'])}"
        parser.add_argument(name, default=default, **keywords)

    add("--activation", choices=activations.BY_NAME, default="relu", help="after each hidden layer")
    add(
        "--dropout",
        type=float,
        metavar="P",
        help="leave out each hidden unit with this probability in each training step",
    )
    add(
        "--label-smoothing",
        type=float,
        default=0.0,
        metavar="S",
        help="the share of each label that is spread evenly over all classes",
    )
    add("--batch-size", type=int, default=32, help="samples in a gradient step")
    add(
        "--optimizer",
        choices=OPTIMIZERS_BY_NAME,
        default="sgd",
        help="what moves the parameters; momentum and nesterov are SGD that keeps 0.9 of its "
        "velocity",
    )
    rates = ", ".join(
        f"{of().learning_rate:g} for {name}" for name, of in OPTIMIZERS_BY_NAME.items()
    )
    add(
        "--learning-rate",
        type=float,
        help=f"the factor on each step (default: {rates})",
    )
    add(
        "--schedule",
        choices=SCHEDULES,
        default="constant",
        help="what becomes of the learning rate: step divides it by 10 after each third of the "
        "training, cosine leads it down to 0 along half a wave, warm-up does so too, but raises it "
        "from 0 in the first epoch",
    )
    add(
        "--clip-norm",
        type=float,
        metavar="NORM",
        help="scale gradients down to this norm, that of all of them together, where it is larger"
        + "; 0 for none" * several,
    )
    add("--dtype", choices=("float32", "float64"), default="float32", help="of all computation")
    parser.add_argument("--epochs", type=int, default=25, help="passes over the training data")
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


def _add_sweep(commands: Any) -> None:
    parser = commands.add_parser(
        "sweep",
        help="train with every combination of several values, on all cores or on a cluster",
        description="Train networks as `fastnn train` does, one for each combination of the values "
        "that are given and each seed, several at the same time. Results are kept as they come, so "
        "the same command goes on after an interruption.",
        epilog="example: fastnn sweep --hidden 100 200 --hidden 300 --learning-rate 0.1 0.3 "
        "--seeds 3 --epochs 5 --out sweep.jsonl --plot sweep.png",
        formatter_class=_HelpFormatter,
    )
    parser.add_argument(
        "--hidden",
        type=int,
        nargs="*",
        action="append",
        metavar="UNITS",
        help="units of each hidden layer, as for train; given several times, several networks "
        "(default: 100 200)",
    )
    parser.add_argument(
        "--batch-norm", choices=("off", "on"), nargs="*", default=["off"], help=_BATCH_NORM
    )
    _add_setting(parser, several=True)
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each setting")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first of these; the next ones are one higher"
    )
    _add_data(parser)
    _add_table(parser)
    _add_preparation(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("sweep.jsonl"),
        metavar="FILE",
        help="where results are kept, a line of JSON each; those that it has are not computed anew",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw all settings into FILE (.png, .svg, .pdf); needs matplotlib",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=int,
        help="trainings at the same time, each on one thread (default: one for each processor)",
    )
    where.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="of the scheduler of a Dask cluster, such as tcp://10.0.0.1:8786, whose workers train "
        "instead; needs distributed",
    )
    parser.set_defaults(run=_sweep)


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="report the test accuracy of a saved network",
        description="Read a network that `fastnn train --save` wrote, or Network.save, "
        "and report its loss and accuracy on the test images, or on all rows of a table.",
        formatter_class=_HelpFormatter,
    )
    _add_model(parser)
    _add_backend(parser)
    _add_data(parser)
    _add_table(parser)
    parser.set_defaults(run=_evaluate)


def _add_predict(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        help="read hand-drawn digits in pictures, or answer for the rows of a table",
        description="Find the digit in each picture, scale and centre it as MNIST's are, and "
        "print the probability of each class. Pictures need Pillow. A network that was trained on "
        "a table takes a table, and the answers are its classes or in the unit of its target.",
        epilog="examples: fastnn predict model.safetensors photo.jpg drawing.png; "
        "fastnn predict species.safetensors new.csv",
        formatter_class=_HelpFormatter,
    )
    _add_model(parser)
    parser.add_argument(
        "images",
        nargs="+",
        metavar="INPUT",
        help="a PNG or JPEG of one digit, of any size, dark on light or light on dark; a CSV or "
        "Parquet file; or - for rows of comma-separated inputs on standard input",
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
        help="a directory of the four IDX files of an MNIST-like data set, gzipped or not, or a "
        "name: fashion_mnist, kmnist, emnist_letters ... "
        "(default: FASTNN_DATA, or the MNIST that fastnn carries)",
    )


def _add_table(parser: argparse.ArgumentParser) -> None:
    table = parser.add_argument_group("a table in place of images")
    which = table.add_mutually_exclusive_group()
    which.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="whose first line names the columns, separated by commas, semicolons or tabs; needs "
        "pandas",
    )
    which.add_argument("--parquet", type=Path, metavar="FILE", help="needs pandas and pyarrow")


def _add_preparation(parser: argparse.ArgumentParser) -> None:
    table = parser.add_argument_group("training on a table")
    table.add_argument("--target", metavar="COLUMN", help="the column to predict")
    table.add_argument(
        "--task",
        choices=tables.TASKS,
        help="(default: by the values of the target: classification of texts and of few different "
        "whole numbers, regression of others)",
    )
    table.add_argument(
        "--missing",
        choices=tables.MISSING,
        help="what becomes of missing values: the mean or median of the column stands for them, "
        "for texts the most frequent one; or their rows are dropped (default: they are refused)",
    )
    table.add_argument("--ignore", nargs="+", metavar="COLUMN", help="columns to leave out")
    table.add_argument(
        "--categorical",
        nargs="+",
        metavar="COLUMN",
        help="columns whose numbers are names of categories",
    )
    table.add_argument(
        "--test-share", type=float, metavar="SHARE", default=0.2, help="of the rows: for the test"
    )
    table.add_argument(
        "--validation-share",
        type=float,
        metavar="SHARE",
        default=0.1,
        help="of the rows: for validation",
    )


def _task(options: argparse.Namespace) -> Task:
    frame = _frame(options)
    if frame is None:
        _check_no_preparation(options)
        parts = _pixels(options)
        classes = 1 + max(int(y.max()) for y in parts[1::2])
        loss = "softmax_cross_entropy"
        return Task(parts, classes, "images", PIXEL_SCALE, loss, {}, [], _tested)
    if options.target is None:
        raise ValueError(
            f"--target: expected the column to predict, one of {', '.join(frame.columns)}"
        )
    encoding, parts, notes = tables.prepare(
        frame,
        options.target,
        task=options.task,
        missing=options.missing,
        ignore=options.ignore or (),
        categorical=options.categorical or (),
        validation_share=options.validation_share,
        test_share=options.test_share,
        seed=options.seed,
        dtype=options.dtype,
    )
    of = encoding.target
    metadata = {tables.ENTRY: encoding.as_text()}
    return Task(parts, of.outputs, "rows", None, of.loss, metadata, notes, of.report)


def _check_no_preparation(options: argparse.Namespace) -> None:
    """Refuse what is asked for of a table where there is none."""
    usual = argparse.ArgumentParser(add_help=False)
    _add_preparation(usual)
    for name, default in vars(usual.parse_args([])).items():
        value = getattr(options, name)
        if value != default:
            shown = " ".join(value) if isinstance(value, list) else value
            raise ValueError(
                f"--{name.replace('_', '-')}: expected --csv or --parquet beside {shown!r}"
            )


def _frame(options: argparse.Namespace, texts: Iterable[str] = ()) -> Any:
    """Return the table that was asked for, None if none was; `texts` as `tables.read` has it."""
    path = options.csv or options.parquet
    if path is None:
        return None
    if options.data is not None:
        raise ValueError(f"--data: expected none beside a table, got {options.data}")
    return tables.read(path, parquet=options.csv is None, texts=texts)


def _tested(network: fastnn.Network, X: Array, y: Array) -> list[str]:
    """Return lines on loss and accuracy, which there is where targets are class ids."""
    test = network.evaluate(X, y)
    accuracy = [] if test.accuracy is None else [f"test accuracy {test.accuracy:.4f}"]
    return [f"test loss {test.loss:.4f}", *accuracy]


def _train(options: argparse.Namespace) -> int:
    _check_outputs(
        (options.csv, options.parquet),
        plot=options.plot,
        save=options.save,
        checkpoint=options.checkpoint,
    )
    checks.integer("--seed", options.seed, minimum=0)
    patience = options.early_stopping
    stopping = None if patience is None else fastnn.EarlyStopping(patience=patience)
    task = _task(options)
    X_train, y_train, X_val, y_val, X_test, y_test = task.parts
    widths = [X_train.shape[1], *options.hidden, task.outputs]
    network = Setting.of(vars(options)).network(task)
    shape = "-".join(map(str, widths))
    print(*task.notes, sep="\n", end="\n" * bool(task.notes))
    print(f"{len(y_train):,} training, {len(y_val):,} validation, {len(y_test):,} test {task.unit}")
    print(
        f"{shape}, {_hidden(options)}, {network.parameter_count:,} parameters, "
        f"{network.dtype.name}, {network.backend} backend, seed {options.seed}"
    )
    if network.backend == "numba":
        print("preparing kernels: some seconds in the first run, later runs find them compiled")
    callbacks: list[Any] = [has_diverged]
    if stopping is not None:
        callbacks.append(stopping)
    interrupted = False
    try:
        with warnings.catch_warnings():
            # Divergence is reported below, in words of the command.
            warnings.simplefilter("ignore", RuntimeWarning)
            warnings.showwarning = _show_warning
            network.fit(
                X_train,
                y_train,
                epochs=options.epochs,
                batch_size=options.batch_size,
                threads=options.threads,
                validation_data=(X_val, y_val),
                progress=progress.on(sys.stdout, bars=sys.stderr),
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
        print(f"interrupted after {done} epochs and {rest:,} {task.unit}; as far as it came:")
        if stopping is not None:
            stopping.on_train_end(network, history)
    diverged = bool(history) and has_diverged(network, history)
    if diverged:
        print("training has diverged; try a smaller --learning-rate")
    elif stopping is not None and stopping.best_epoch:
        print(f"the weights are those of epoch {stopping.best_epoch}, of the least val loss")
    report = task.report(network, X_test, y_test)
    print(*report, sep="\n")
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


def _sweep(options: argparse.Namespace) -> int:
    _check_outputs((options.csv, options.parquet), plot=options.plot, out=options.out)
    workers = many.processors()
    if options.workers is not None:
        workers = checks.integer("--workers", options.workers, minimum=1)
    settings = _settings(options)
    load = partial(_task, _as_for_train(options))
    task = load()
    sweep.check(settings, task)
    digest = sweep.digest(task)
    with sweep.Results(options.out, digest) as results:
        missing = [setting for setting in settings if setting not in results.found]
        print(*task.notes, sep="\n", end="\n" * bool(task.notes))
        _print_sweep(settings, len(missing), options.out)
        if options.dask is None:
            place = f"{workers} at a time, each on one thread"
            outcomes = sweep.here(missing, task, digest, workers)
        else:
            place = f"by the workers of the Dask cluster at {options.dask}"
            outcomes = sweep.on_cluster(missing, load, digest, options.dask)
        if missing:
            print(place, flush=True)
        else:
            outcomes = iter(())
        failed, interrupted = 0, False
        try:
            failed = _print_outcomes(outcomes, len(missing), sweep.varying(settings), results)
        except KeyboardInterrupt:
            interrupted = True
    rows = sweep.rows([results.found[setting] for setting in settings if setting in results.found])
    if rows:
        print(f"\n{sweep.table(rows)}\n")
        _print_best(rows[0], sweep.varying(settings), options)
    if options.plot is not None and rows:
        sweep.draw(rows, options.plot)
        print(f"picture in {options.plot}")
    left = sum(setting not in results.found for setting in settings)
    if interrupted:
        print("interrupted", file=sys.stderr)
    if left:
        print(
            f"{left} of {len(settings)} trainings are missing; the same command goes on with them"
        )
    return INTERRUPTED if interrupted else FAILED if failed else 0


def _settings(options: argparse.Namespace) -> list[Setting]:
    """Return all combinations of what the options of a sweep list, with each seed."""
    seeds = checks.integer("--seeds", options.seeds, minimum=1)
    checks.integer("--seed", options.seed, minimum=0)
    choices = {
        **vars(options),
        "hidden": options.hidden or [[100, 200]],
        "batch_norm": [word == "on" for word in options.batch_norm or ["on"]],
        "dropout": [p or None for p in options.dropout],
        "clip_norm": [norm or None for norm in options.clip_norm],
        "epochs": [options.epochs],
        "early_stopping": [options.early_stopping],
        "backend": [options.backend],
        "seed": range(options.seed, options.seed + seeds),
    }
    return sweep.combinations(choices)


def _as_for_train(options: argparse.Namespace) -> argparse.Namespace:
    """Return what the preparation of data takes of the options, in the dtype that holds all.

    Paths are whole, as a worker of a cluster may run in another directory.
    """
    kept = {name: getattr(options, name) for name in (*_OF_DATA, "seed")}
    for name in ("data", "csv", "parquet"):
        path = kept[name]
        if path is not None and (name != "data" or not _is_name(path)):
            kept[name] = path.absolute()
    return argparse.Namespace(**kept, dtype="float64")


_OF_DATA = (
    *("data", "csv", "parquet", "target", "task", "missing", "ignore", "categorical"),
    *("test_share", "validation_share"),
)
"""Options of `train` and of `sweep` alike that decide what there is to learn."""


def _print_sweep(settings: list[Setting], missing: int, out: Path) -> None:
    names = sweep.varying(settings)
    seeds = len({setting.seed for setting in settings})
    same = [name for name in sweep.NAMES if name not in (*names, "seed")]
    print(
        f"{_counted(len(settings) // seeds, 'setting')}, {_counted(seeds, 'seed')} each: "
        f"{_counted(len(settings), 'training')}, of which {out} has {len(settings) - missing}"
    )
    print(f"all with {sweep.named(settings[0], same)}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _print_outcomes(
    outcomes: Iterable[tuple[Setting, sweep.Outcome]],
    count: int,
    names: Sequence[str],
    results: sweep.Results,
) -> int:
    """Keep results as they come, and print a line for each; return how many trainings failed."""
    failed = 0
    with warnings.catch_warnings():
        # Divergence is reported in words of the command.
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.showwarning = _show_warning
        for number, (setting, outcome) in enumerate(outcomes, 1):
            try:
                record = outcome.result()
            except Exception as error:
                failed += 1
                first, *_ = str(error).splitlines() or [""]
                what = f"failed: {type(error).__name__}: {first}"
            else:
                results.add(record)
                measure = sweep.measures([record])[0]
                value = record[f"val_{measure}"]
                what = f"val {measure} {value:.4f}  {record['seconds']:.1f} s"
                what += "  diverged" * record["diverged"]
            place = f"{number:{len(str(count))}}/{count}"
            print(f"{place}  {sweep.named(setting, [*names, 'seed'])}  {what}", flush=True)
    return failed


def _print_best(best: sweep.Row, names: Sequence[str], options: argparse.Namespace) -> None:
    """Print the test accuracy of the best setting, and the command that trains it."""
    measure = sweep.measures(best.records)[0]
    value = best.shown(f"test_{measure}")
    print(f"the best, {sweep.named(best.setting, names)}: test {measure} {value}")
    train = vars(_parser().parse_args(["train"]))
    usual = asdict(Setting.of(train)) | {
        "learning_rate": Setting.of(train | {"optimizer": best.setting.optimizer}).learning_rate
    }
    words = ["fastnn", "train"]
    for name in sweep.NAMES:
        value = getattr(best.setting, name)
        if value != usual[name]:
            words.append(f"--{name.replace('_', '-')}")
            if name != "batch_norm":
                words += map(str, value if name == "hidden" else [value])
    for name in _OF_DATA:
        value = getattr(options, name)
        if value != train[name]:
            words.append(f"--{name.replace('_', '-')}")
            words += map(str, value if isinstance(value, list) else [value])
    print(f"to train it: {shlex.join([*words, '--save', 'model.safetensors'])}")


def _hidden(options: argparse.Namespace) -> str:
    """Return what follows each hidden layer."""
    dropout = "" if options.dropout is None else f" dropout {options.dropout:g}"
    return f"{'batch norm ' * options.batch_norm}{options.activation}{dropout}"


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning without the line of code that it comes from."""
    print(f"fastnn: warning: {message}", file=sys.stderr)


def _evaluate(options: argparse.Namespace) -> int:
    network = fastnn.load(options.model, backend=options.backend)
    file = options.csv or options.parquet
    if file is not None:
        with _naming(options.model):
            encoding = tables.Encoding.of(network)
        frame = _frame(options, encoding.texts)
        with _naming(file):
            known = encoding.with_target(frame)
            X_test, y_test = encoding.inputs(known, network.dtype), encoding.targets(known)
        if len(known) < len(frame):
            print(f"left out: {len(frame) - len(known)} rows without {encoding.target.name}")
        print(*encoding.target.report(network, X_test, y_test), sep="\n")
        return 0
    if tables.ENTRY in network.metadata:
        with _naming(options.model):
            names = tables.Encoding.of(network).names
        raise ValueError(
            f"--csv: expected a table, as {options.model} was trained on one; it needs the columns "
            f"{', '.join(names)}"
        )
    X_test, y_test = _pixels(options)[4:]
    if not images.takes_raw_pixels(network):
        X_test = X_test * network.dtype.type(PIXEL_SCALE)
    print(*_tested(network, X_test, y_test), sep="\n")
    return 0


@contextmanager
def _naming(file: Path | str) -> Iterator[None]:
    """Say in the message of a ValueError which file it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _predict(options: argparse.Namespace) -> int:
    network = fastnn.load(options.model, backend=options.backend)
    tabular = sum(map(_is_rows, options.images))
    if tabular and len(options.images) > 1:
        got = "both" if tabular < len(options.images) else f"{tabular} tables"
        raise ValueError(f"INPUT: expected pictures, or one table or - alone, got {got}")
    if tables.ENTRY in network.metadata:
        with _naming(options.model):
            encoding = tables.Encoding.of(network)
        print(_of_table(network, encoding, options.images[0]))
        return 0
    if options.images == ["-"]:
        X = prediction.of_csv(network, sys.stdin, "standard input")
        names = [f"row {i}" for i in range(1, len(X) + 1)]
    elif tabular:
        lines = io.StringIO(tables.text(options.images[0]), newline="")
        X = prediction.of_csv(network, lines, options.images[0])
        names = [f"row {i}" for i in range(1, len(X) + 1)]
    else:
        X, names = prediction.of_pictures(network, options.images), options.images
    probabilities = prediction.finite(network.predict_proba(X))
    print(prediction.table(names, network.predict(X), probabilities))
    return 0


def _is_rows(name: str) -> bool:
    return name == "-" or tables.holds_rows(name)


def _of_table(network: fastnn.Network, encoding: tables.Encoding, name: str) -> str:
    """Return the answers for the rows of a table as text."""
    picture = (guess_type(name)[0] or "").startswith("image/")
    if not _is_rows(name) and (picture or Path(name).exists()):
        raise ValueError(f"INPUT: expected a CSV or Parquet file or -, got {name}")
    if name == "-":
        frame = tables.read_rows(sys.stdin, encoding)
    else:
        frame = tables.read(name, texts=encoding.texts)
    with _naming("standard input" if name == "-" else name):
        X = encoding.inputs(frame, network.dtype)
    return encoding.target.predictions(network, X)


def _show(options: argparse.Namespace) -> int:
    _check_picture("SHEET", options.sheet)
    network = _load_of_images(options.model, options.backend)
    X_test, y_test = _pixels(options, flatten=False)[4:]
    sheet.draw(network, X_test, y_test, options.sheet, options.model.name)
    print(f"sheet in {options.sheet}")
    return 0


def _load_of_images(model: Path, backend: str | None = None) -> fastnn.Network:
    network = fastnn.load(model, backend=backend)
    if tables.ENTRY in network.metadata:
        raise ValueError(f"{model}: expected a model of images, got one of a table")
    return network


def _page(options: argparse.Namespace) -> int:
    _check_file("PAGE", options.page)
    page.write(_load_of_images(options.model), options.page, options.model.name)
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


def _pixels(options: argparse.Namespace, *, flatten: bool = True) -> tuple[Array, ...]:
    data = options.data
    if data is not None and _is_name(data):
        return fastnn.load_dataset(str(data), flatten, dtype=np.uint8)
    return fastnn.load_dataset(flatten, path=data, dtype=np.uint8)


def _is_name(data: Path) -> bool:
    """Say whether what --data says is the name of a data set, not a directory."""
    return not data.is_dir() and datasets.is_name(str(data))


def _check_outputs(inputs: Iterable[Path | None], **outputs: Path | None) -> None:
    """Refuse before the training what would fail after it, or overwrite what it reads or writes."""
    taken = {path.resolve() for path in inputs if path is not None}
    for name, path in outputs.items():
        if path is None:
            continue
        (_check_picture if name == "plot" else _check_file)(f"--{name}", path)
        if path.resolve() in taken:
            raise ValueError(f"--{name}: expected a file of its own, got {path}, which is in use")
        if path.is_file() or not path.exists():  # a device may serve several
            taken.add(path.resolve())


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
