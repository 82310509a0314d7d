"""Interrupts: Ctrl-C and the like, which wait while something is done that must not be cut short.

Python runs the handler of a signal in the main thread, between any two of its instructions, and
what the handler raises leaves parameters of half a step behind. Here the handlers wait for a moment
at which nothing is half done.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

WAITING = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
]
"""Signals that end a program, as a rule. Those whose handler is none of Python's end it as ever."""

_handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
"""Those that stand back, by their signals, while `_hear` is in their place."""
_came: list[int] = []
"""Signals that wait."""
_depth = 0
"""How many things are being done that must not be cut short."""


def _hear(number: int, frame: FrameType | None) -> None:
    """Run the handler of a signal, or have it wait."""
    if _depth:
        _came.append(number)
    else:
        _came.clear()  # it stands for those that came a moment before
        _handlers[number](number, frame)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Be in the place of the handlers of Python's, as long as this lasts.

    Once for many `uncut`, as to change handlers takes longer than a step of a tiny network.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no handler runs here
        return
    taken: list[int] = []
    try:
        for number in WAITING:
            handler = signal.getsignal(number)
            if callable(handler) and handler is not _hear:
                _handlers[number] = handler
                with contextlib.suppress(ValueError):  # not the main interpreter
                    signal.signal(number, _hear)
                    taken.append(number)
        yield
    finally:
        for number in taken:
            # it may have been changed meanwhile
            if signal.getsignal(number) is _hear:
                signal.signal(number, _handlers[number])


class Uncut:
    """A block that no handler cuts short, within `held`; they run at its end."""

    def __enter__(self) -> None:
        global _depth
        if threading.current_thread() is threading.main_thread():
            _depth += 1

    def __exit__(self, *_: object) -> None:
        global _depth
        if threading.current_thread() is threading.main_thread():
            _depth -= 1
            if _came and not _depth:
                waiting = list(dict.fromkeys(_came))
                _came.clear()
                for number in waiting:
                    _handlers[number](number, None)


uncut = Uncut()


def held_uncut(function: Callable[P, R]) -> Callable[P, R]:
    """Have no handler cut short a call of the decorated function."""

    @functools.wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> R:
        with held(), uncut:
            return function(*args, **keywords)

    return call
