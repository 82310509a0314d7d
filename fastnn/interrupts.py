"""Interrupts: Ctrl-C and the like, which wait while something is done that must not be cut short.

Python runs the handler of a signal in the main thread, between any two of its instructions, and
what the handler raises leaves parameters of half a step behind. Here the handlers wait for a moment
at which nothing is half done.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

WAITING = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
]
"""Signals that end a program, as a rule. Those whose handler is none of Python's end it as ever."""

# What `signal` makes names of numbers with takes ten times as long as the rest.
try:
    _plain: Any = importlib.import_module("_signal")
except ImportError:  # another Python than CPython
    _plain = signal
_handler_of: Callable[[int], Any] = _plain.getsignal
_set_handler: Callable[[int, Any], Any] = _plain.signal

_waiting: dict[int, Callable[[int, FrameType | None], Any]] = {}
"""Handlers of signals that wait, by their numbers: those that come while one waits are one."""
_depth = 0
"""How many things are being done that must not be cut short."""
_main = threading.main_thread().ident


_heeded_later: set[CodeType] = set()


def heeded_later(function: Callable[P, R]) -> Callable[P, R]:
    """Have signals wait that come in the lines of the decorated function itself, within `Held`.

    One may come before the first line of a function, where no `try` or `with` of it is entered yet:
    of `__exit__`, all of it would be left out.
    """
    _heeded_later.add(function.__code__)
    return function


class _StandIn:
    """What is in the place of a handler, and runs it now or has it wait.

    Each has a handler of its own: a user's, set in the meantime, may call the one that it found
    there, which would be itself if there were one table of handlers.
    """

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if _depth or (frame is not None and frame.f_code in _heeded_later):
            _waiting[number] = self.handler
        else:
            _waiting.pop(number, None)  # it stands for one that came a moment before
            self.handler(number, frame)


class Held:
    """A block in which `uncut` is heeded: stand-ins are in the place of Python's handlers.

    One block may have many `uncut`, as to change handlers takes longer than a step of a tiny
    network.
    """

    def __enter__(self) -> None:
        self._taken: dict[int, _StandIn] = {}
        if threading.get_ident() != _main:
            return  # no handler runs here
        try:
            for number in WAITING:
                handler = _handler_of(number)
                if callable(handler) and not isinstance(handler, _StandIn):
                    # noted before, as a signal may raise at once
                    self._taken[number] = _StandIn(handler)
                    _set_handler(number, self._taken[number])
        except ValueError:  # not the main interpreter
            pass
        except BaseException:
            self.__exit__()
            raise

    @heeded_later
    def __exit__(self, *_: object) -> None:
        global _depth
        if threading.get_ident() != _main:
            return
        # no `uncut`: a handler that is back may raise before the first line of its `__exit__`
        _depth += 1
        try:
            # Ctrl-C last, as such a handler leaves the others as they are
            for number, stand_in in reversed(self._taken.items()):
                # it may have been changed meanwhile
                if _handler_of(number) is stand_in:
                    _set_handler(number, stand_in.handler)
        finally:
            _depth -= 1
            if _waiting and not _depth:
                _run_waiting()


class Uncut:
    """A block that no handler cuts short, within `Held`; they run at its end."""

    @heeded_later
    def __enter__(self) -> None:
        global _depth
        if threading.get_ident() == _main:
            _depth += 1

    def __exit__(self, *_: object) -> None:
        global _depth
        if threading.get_ident() == _main:
            try:
                _depth -= 1
            finally:
                if _waiting and not _depth:
                    _run_waiting()


uncut = Uncut()


def _run_waiting() -> None:
    """Run the handlers that wait, each of them whatever the one before it raises."""
    while _waiting:
        number = next(iter(_waiting))
        handler = _waiting.pop(number)
        try:
            handler(number, None)
        finally:
            _run_waiting()


def _in_child() -> None:
    """Forget what the parent's main thread was doing, where another thread has forked."""
    global _depth, _main
    if threading.get_ident() != _main:
        _main, _depth = threading.get_ident(), 0
        _waiting.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def held_uncut(function: Callable[P, R]) -> Callable[P, R]:
    """Have no handler cut short a call of the decorated function."""

    @functools.wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> R:
        with Held(), uncut:
            return function(*args, **keywords)

    return call
