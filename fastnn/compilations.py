"""What is being compiled, for whoever shows how far a training has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_listeners: list[Callable[[str], None]] = []


def tell(name: str) -> None:
    """Say that a kernel or function of this name is compiled now."""
    for listener in tuple(_listeners):
        listener(name)


@contextmanager
def told_to(listener: Callable[[str], None]) -> Iterator[None]:
    """Have a function called with each name, as long as this lasts."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
