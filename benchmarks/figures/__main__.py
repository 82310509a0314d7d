"""``python -m benchmarks.figures``: draws them; see the docstring of the package."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from . import FOLDER, LADDER, NAMES, STEP, write

MEASURED = (
    ("benchmarks.ladder", "--json", LADDER),
    ("fastnn", "bench", "--suite", "step", "--json", STEP),
)


def main() -> int:
    """Run; return what a measurement returned that failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures", description="Draw the figures of the guide."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: docs/figures")
    parser.add_argument("--measure", action="store_true", help="ladder and step anew, before that")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"NAME: expected some of {', '.join(NAMES)}, got {', '.join(sorted(unknown))}")
    if options.measure:
        for command in MEASURED:
            failed = subprocess.call([sys.executable, "-m", *command])
            if failed:
                return failed
    for name in options.names or NAMES:
        print(write(name, options.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
