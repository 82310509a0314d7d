"""``python -m benchmarks.ladder``: the table, or one rung; see the docstring of the package."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from fastnn.bench.threads import BLAS_VARIABLES

ONE_THREAD = dict.fromkeys(BLAS_VARIABLES, "1")
"""Libraries read it when they are imported, which has happened when this file runs."""


def main() -> int:
    """Run; return 1 where a rung is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ladder",
        description="One training step of 784-100-200-10 on MNIST, made fast in twelve rungs.",
    )
    parser.add_argument("rung", nargs="?", type=int, help="one rung alone, by its number")
    parser.add_argument("--rounds", type=int, default=21, help="in which rungs are timed in turn")
    parser.add_argument("--plot", metavar="FILE", help="draw the ladder and a roofline")
    parser.add_argument("--json", metavar="FILE", help="write all figures, and the machine's")
    parser.add_argument("--assembly", action="store_true",
                        help="its inner loops as LLVM compiles them, counted")  # fmt: skip
    parser.add_argument("--cpu", metavar="NAME", help="for which LLVM does so, if not this one")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds: expected 1 or more, got {options.rounds}")
    wanted = dict(ONE_THREAD)
    if options.cpu is not None:  # all that this one has and that one has not is off
        wanted |= {"NUMBA_CPU_NAME": options.cpu, "NUMBA_CPU_FEATURES": ""}
    if not wanted.items() <= os.environ.items():
        command = [sys.executable, "-m", "benchmarks.ladder", *sys.argv[1:]]
        return subprocess.call(command, env=os.environ | wanted)

    if options.assembly:
        from .assembly import report

        try:
            print(report(options.rung or 0))
        except ValueError as error:
            parser.error(str(error))
        return 0

    from . import rungs
    from .climbing import WrongRungError
    from .table import as_markdown, climb

    chosen = [rung for rung in rungs() if options.rung in (None, rung.number)]
    if not chosen:
        parser.error(f"rung: there is none of number {options.rung}")
    if options.rung is not None:
        print(chosen[0].module.__doc__)
    try:
        lines, machine = climb(chosen, options.rounds, lambda said: print(said, file=sys.stderr))
    except WrongRungError as error:
        print(error, file=sys.stderr)
        return 1
    print(as_markdown(lines, machine))
    if options.json:
        from .results import write

        write(lines, machine, options.json)
    if options.plot:
        from .picture import draw

        draw(lines, machine, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
