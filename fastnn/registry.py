"""Classes that are fastnn's own, by name.

Files name them, and compiled code knows exactly these: a subclass of a user's may do anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name. Each is put in at its own definition."""

    def __init__(self) -> None:
        self._classes: dict[str, type[T]] = {}

    def register(self, kind: type[T]) -> type[T]:
        """Put in a class; a decorator."""
        self._classes[kind.__name__] = kind
        return kind

    def __contains__(self, thing: object) -> bool:
        """Say whether `thing` is of exactly one of the classes."""
        kind = type(thing)
        return self._classes.get(kind.__name__) is kind

    def __iter__(self) -> Iterator[type[T]]:
        return iter(self._classes.values())

    def __getitem__(self, name: str) -> type[T]:
        return self._classes[name]
