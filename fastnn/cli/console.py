"""What commands say beside their results: warnings, and the status they end with."""

from __future__ import annotations

import sys

DIVERGED = FAILED = 1

INTERRUPTED = 130
"""The exit status of a program that Ctrl-C ended: 128 + SIGINT."""


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning without the line of code that it comes from."""
    print(f"fastnn: warning: {message}", file=sys.stderr)
