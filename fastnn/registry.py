"""Classes that are fastnn's own, by name.

Files name them, and compiled code knows exactly these: a subclass of a user's may do anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name. Each is put in at its own definition.

    Parameters
    ----------
    description
        The attribute by which a class, or an object of it, tells compiled code what it is. What the
        base says is true of a user's class, which takes no compiled path, and so it is never
        inherited here.
    """

    def __init__(self, description: str | None = None) -> None:
        self._description = description
        self._classes: dict[str, type[T]] = {}

    def register(self, kind: type[T]) -> type[T]:
        """Put in a class; a decorator.

        Raises
        ------
        TypeError
            If it does not describe itself, or lacks a method that the base asks for.
        """
        name = self._description
        if name is not None:
            described = [base for base in kind.__mro__ if name in vars(base)]
            if not described or (len(described) == 1 and described[0] is not kind):
                raise TypeError(f"{kind.__name__}: expected a {name} of its own, got none")
        missing = ", ".join(sorted(getattr(kind, "__abstractmethods__", ())))
        if missing:
            raise TypeError(f"{kind.__name__}: expected the methods {missing}, got none")
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
