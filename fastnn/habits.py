"""What people write who come from other libraries, and what to write here: for messages alone."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")

LIKE = 0.7
"""From which likeness on, as difflib measures it, a name may be meant."""

ARGUMENTS = {
    "lr": "learning_rate",
    "eps": "epsilon",
    "verbose": "progress",
    "negative_slope": "slope",
    "rate": "p",
    "num_features": "units",
    "optimiser": "optimizer",
}
"""Names of arguments elsewhere that are not like those here."""

OF_NETWORKS = {
    "compile": "Network(layers, loss=..., optimizer=...), which needs no other call before fit",
    "summary": "print(network), and network.parameter_count",
    "count_params": "network.parameter_count",
    "train_on_batch": "network.train_step(X, y)",
    "predict_classes": "network.predict(X)",
    "score": "network.evaluate(X, y).accuracy, or .r2 of real targets",
    "train": "network.fit(X, y); layers know by themselves when they train",
    "eval": "network.predict(X); layers know by themselves when they train",
    "parameters": "network.get_weights(), or network[0].parameters",
    "state_dict": "network.get_weights(), or network.to_torch().state_dict()",
    "weights": "network.get_weights() and set_weights, or network[0].weights",
    "learning_rate": "network.optimizer.learning_rate, or network[0].learning_rate if it has none",
    "lr": "network.optimizer.learning_rate, or network[0].learning_rate if it has none",
    "load_weights": "fastnn.load(path)",
    "load": "fastnn.load(path)",
    "save_weights": "network.save(path)",
}
"""What to write for methods and attributes that networks have elsewhere."""

SET_ELSEWHERE = ("learning_rate", "lr", "optimiser", "parameters", "weights")
"""Attributes that are set elsewhere, or misspelt, and that nothing here would read."""


def explained(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have a call with arguments that a function does not take say which it takes; a decorator."""

    @functools.wraps(function)
    def call(*arguments: _P.args, **options: _P.kwargs) -> _R:
        try:
            return function(*arguments, **options)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise  # by something inside
            reason = _misfit(inspect.signature(function), len(arguments), options)
            if reason is None:
                raise
            called = function.__qualname__.removesuffix(".__init__")
            raise TypeError(f"{called}: {reason}") from None

    return call


def _misfit(signature: inspect.Signature, given: int, options: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a call, None where that is not known."""
    parameters = [p for name, p in signature.parameters.items() if name != "self"]
    given -= "self" in signature.parameters
    names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    placed = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    for name in options:
        if name not in names:
            return f"got an unexpected keyword argument {name!r}; {instead(name, names)}"
    if given > len(placed):
        behind = ", ".join(f"{name}=..." for name in names[len(placed) :])
        named = f"; others have names: {behind}" if behind else ""
        return f"expected no argument behind {', '.join(placed)}, got {given} arguments{named}"
    needed = [p.name for p in parameters if p.default is p.empty and p.name in placed]
    missing = [name for name in needed if name not in placed[:given] and name not in options]
    if missing:
        return f"expected {', '.join(needed)}, got no {' and no '.join(missing)}"
    return None


def instead(name: str, known: Iterable[str]) -> str:
    """Return what to write in place of an argument that there is not."""
    names = list(known)
    if ARGUMENTS.get(name) in names:
        return f"write {ARGUMENTS[name]}=..."
    near = _nearest(name, names)
    return f"did you mean {near}=...?" if near else f"it takes {', '.join(names)}"


def of_network(name: str, known: Iterable[str]) -> str:
    """Return how a message goes on that a network has no such attribute."""
    if name in OF_NETWORKS:
        return f"; write {OF_NETWORKS[name]}"
    near = _nearest(name, [other for other in known if not other.startswith("_")])
    return f"; did you mean {near!r}?" if near else ""


def _nearest(name: str, known: list[str]) -> str | None:
    """Return the name that is meant, if one is like it."""
    import difflib  # for a message alone

    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=LIKE)), None)
