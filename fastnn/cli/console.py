"""What commands say beside their results: warnings, and the status they end with."""

from __future__ import annotations

import sys
from typing import Any

from fastnn import checks

DIVERGED = FAILED = 1

UNDECIDED = 3
"""The exit status of a comparison in which nothing is known to be slower, and noise hides some."""

INTERRUPTED = 130
"""The exit status of a program that Ctrl-C ended: 128 + SIGINT."""


def say(text: str, **options: Any) -> None:
    """Print a text that holds names from files, none of which a terminal is to obey."""
    print(checks.printable(text), **options)


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning without the line of code that it comes from."""
    say(f"fastnn: warning: {message}", file=sys.stderr)
