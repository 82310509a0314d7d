"""``python -m benchmarks.exercises``: checks and measures; see the docstring of the package."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from benchmarks.ladder.__main__ import ONE_THREAD


def main() -> int:
    """Run; return 1 unless all that was asked for is right and fast enough."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.exercises",
        description="Check what a kernel computes, and then measure it beside one of fastnn's.",
    )
    parser.add_argument("number", nargs="?", type=int, help="of the exercise; all without it")
    parser.add_argument("--file", type=Path, help="with your functions, in place of the stubs")
    options = parser.parse_args()
    if not ONE_THREAD.items() <= os.environ.items():
        command = [sys.executable, "-m", "benchmarks.exercises", *sys.argv[1:]]
        return subprocess.call(command, env=os.environ | ONE_THREAD)

    from .tasks import EXERCISES

    chosen = [of for of in EXERCISES if options.number in (None, of.number)]
    if not chosen:
        parser.error(f"number: there is no exercise {options.number}")
    mine = None
    if options.file is not None:
        if not options.file.is_file():
            parser.error(f"--file: there is no {options.file}")
        mine = _imported(options.file)
        chosen = [of for of in chosen if hasattr(mine, of.function)]
        if not chosen:
            parser.error(f"--file: {options.file} has no function of this exercise")
    passed = [_passes(of, mine or of.module) for of in chosen]
    return 0 if all(passed) else 1


def _imported(path: Path) -> ModuleType:
    """Return a file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _passes(exercise, module: ModuleType) -> bool:
    """Check and measure one; say what was found, and whether it is enough."""
    from .checking import fault_of
    from .racing import share_of_speed

    print(exercise.title)
    function = getattr(module, exercise.function)
    try:
        fault = fault_of(exercise, function)
    except NotImplementedError:
        print(f"   not filled in: write {exercise.function} in {module.__file__}")
        return False
    if fault is not None:
        print(f"   wrong {fault}")
        return False
    print(f"   right on {len(exercise.shapes)} shapes")
    share = share_of_speed(exercise, function)
    shape = " x ".join(map(str, exercise.timed))
    enough = share.median >= exercise.asked
    verdict = "reached" if enough else "not reached"
    if share.lower < exercise.asked <= share.upper:
        verdict += " by a hair: the quartiles lie on both sides"
    print(f"   {share} times the speed of {exercise.measure} on {shape}; "
          f"{exercise.asked} is asked: {verdict}")  # fmt: skip
    return enough


if __name__ == "__main__":
    sys.exit(main())
