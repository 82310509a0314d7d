"""`fastnn sweep`: training with many settings."""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fastnn import sweep
from fastnn.cli import arguments, console, outputs, sources
from fastnn.cli.arguments import BATCH_NORM, OF_DATA, HelpFormatter
from fastnn.cli.console import FAILED, INTERRUPTED
from fastnn.cli.train import defaults as train_defaults
from fastnn.processors import usable
from fastnn.settings import Setting


def add_to(commands: Any) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "sweep",
        help="train with every combination of several values, on all cores or on a cluster",
        description="Train networks as `fastnn train` does, one for each combination of the values "
        "that are given and each seed, several at the same time. Results are kept as they come, so "
        "the same command goes on after an interruption.",
        epilog="example: fastnn sweep --hidden 100 200 --hidden 300 --learning-rate 0.1 0.3 "
        "--seeds 3 --epochs 5 --out sweep.jsonl --plot sweep.png",
        formatter_class=HelpFormatter,
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
        "--batch-norm", choices=("off", "on"), nargs="*", default=["off"], help=BATCH_NORM
    )
    arguments.add_setting(parser, several=True)
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each setting")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first of these; the next ones are one higher"
    )
    arguments.add_data(parser)
    arguments.add_table(parser)
    arguments.add_preparation(parser)
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
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    outputs.check((options.csv, options.parquet), plot=options.plot, out=options.out)
    arguments.check(options)
    workers = usable() if options.workers is None else options.workers
    settings = _settings(options)
    load = partial(sources.task, _as_for_train(options))
    task = load()
    sweep.check(settings, task)
    digest = sweep.digest(task)
    with sweep.Results(options.out, digest) as results:
        missing = [setting for setting in settings if setting not in results.found]
        console.say("".join(f"{note}\n" for note in task.notes), end="")
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
    choices = {
        **vars(options),
        "hidden": options.hidden or [[100, 200]],
        "batch_norm": [word == "on" for word in options.batch_norm or ["on"]],
        "dropout": [p or None for p in options.dropout],
        "clip_norm": [norm or None for norm in options.clip_norm],
        "matmul_precision": [
            None if word == "dtype" else word for word in options.matmul_precision
        ],
        "epochs": [options.epochs],
        "early_stopping": [options.early_stopping],
        "backend": [options.backend],
        "seed": range(options.seed, options.seed + options.seeds),
    }
    return sweep.combinations(choices)


def _as_for_train(options: argparse.Namespace) -> argparse.Namespace:
    """Return what the preparation of data takes of the options, in the dtype that holds all.

    Paths are whole, as a worker of a cluster may run in another directory.
    """
    kept = {name: getattr(options, name) for name in (*OF_DATA, "seed")}
    for name in ("data", "csv", "parquet"):
        path = kept[name]
        if path is not None and (name != "data" or not sources.is_name(path)):
            kept[name] = path.absolute()
    return argparse.Namespace(**kept, dtype="float64")


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
        warnings.showwarning = console.show_warning
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
    train = train_defaults()
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
    for name in OF_DATA:
        value = getattr(options, name)
        if value != train[name]:
            words.append(f"--{name.replace('_', '-')}")
            words += map(str, value if isinstance(value, list) else [value])
    print(f"to train it: {shlex.join([*words, '--save', 'model.safetensors'])}")
