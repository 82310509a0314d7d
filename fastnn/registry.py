"""Classes that are fastnn's own, by name.

Files name them, and compiled code knows exactly these: a subclass of a user's may do anything, and
so may an object that has a method replaced.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name. Each is put in at its own definition.

    Parameters
    ----------
    description
        The attribute by which a class, or an object of it, tells compiled code what it is. What the
        base says is true of a user's class, which takes no compiled path, and so it is never
        inherited here.
    fixed
        Attributes that a class has for good, as compiled code counts on them: no object of it can
        be given another one. Those of a user's subclass can.
    """

    def __init__(self, description: str | None = None, fixed: Sequence[str] = ()) -> None:
        self._description = description
        self._fixed = fixed
        self._classes: dict[str, type[T]] = {}
        self._methods: dict[type, set[str]] = {}

    def register(self, kind: type[T]) -> type[T]:
        """Put in a class; a decorator.

        Raises
        ------
        TypeError
            If it does not describe itself, lacks a method that the base asks for, or overrides
            what the description is of.
        ValueError
            If another class has that name.
        """
        name = self._description
        if name is not None:
            described = [base for base in kind.__mro__ if name in vars(base)]
            if not described or (len(described) == 1 and described[0] is not kind):
                raise TypeError(f"{kind.__name__}: expected a {name} of its own, got none")
            overridden = _overridden(kind, described[0])
            if overridden:
                raise TypeError(
                    f"{kind.__name__}: expected a {name} of its own, as it overrides "
                    f"{', '.join(sorted(overridden))} of {described[0].__name__}, got none"
                )
        missing = ", ".join(sorted(getattr(kind, "__abstractmethods__", ())))
        if missing:
            raise TypeError(f"{kind.__name__}: expected the methods {missing}, got none")
        if self._classes.setdefault(kind.__name__, kind) is not kind:
            raise ValueError(f"{kind.__name__}: expected a name that no other class has")
        self._methods[kind] = {name for base in kind.__mro__ for name in _methods(base)}
        for name in self._fixed:
            if not inspect.isdatadescriptor(inspect.getattr_static(kind, name)):
                setattr(kind, name, _Fixed(self, name, getattr(kind, name)))
        return kind

    def has_class(self, kind: type) -> bool:
        """Say whether this is exactly one of the classes."""
        return kind in self._methods

    def __contains__(self, thing: object) -> bool:
        """Say whether `thing` is of exactly one of the classes, with no method replaced."""
        methods = self._methods.get(type(thing))
        return methods is not None and methods.isdisjoint(vars(thing))

    def __iter__(self) -> Iterator[type[T]]:
        return iter(self._classes.values())

    def __getitem__(self, name: str) -> type[T]:
        return self._classes[name]


class _Fixed:
    """What a registered class says of itself, and its objects with it."""

    def __init__(self, registry: Registry[Any], name: str, value: object) -> None:
        self._registry, self._name, self._value = registry, name, value

    def __get__(self, thing: object, owner: type) -> object:
        return self._value if thing is None else vars(thing).get(self._name, self._value)

    def __set__(self, thing: object, value: object) -> None:
        kind = type(thing)
        if self._registry.has_class(kind):
            raise AttributeError(
                f"{self._name}: expected that of {kind.__name__}, {self._value!r}, which is fixed, "
                f"got {value!r}"
            )
        vars(thing)[self._name] = value


def _methods(kind: type) -> set[str]:
    """Return the names of the functions that a class defines itself."""
    return {name for name, value in vars(kind).items() if isinstance(value, FunctionType)}


def _overridden(kind: type, base: type) -> set[str]:
    """Return which methods of `base` are another's in `kind`, but for those like `__repr__`."""
    named = {name for name in dir(base) if not name.startswith("__")}
    functions = {name for name in named if isinstance(getattr(base, name), FunctionType)}
    return {name for name in functions if getattr(kind, name) is not getattr(base, name)}
