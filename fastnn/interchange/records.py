"""What each layer of a network says of itself, for tables of what another library has for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from fastnn import layers
from fastnn.backends import description
from fastnn.layers import Elementwise, Layer

Value = TypeVar("Value")


class Described(NamedTuple):
    """A layer that computes something, its place in the network, and its record."""

    place: int
    layer: Layer
    record: description.Layer


def described(network: Iterable[Layer], target: str) -> Iterator[Described]:
    """Yield each layer with its record; the identity has none and is left out.

    Parameters
    ----------
    network
        Its layers.
    target
        What they are written into, for the message of an error.

    Raises
    ------
    ValueError
        If there is no layer.
    TypeError
        If a layer is not one of fastnn's own.
    """
    found = list(network)
    if not found:
        raise ValueError(f"can't write {target} of a network that has no layer yet: add one first")
    for place, layer in enumerate(found):
        if layer not in layers.BUILT_IN or layer._only_python:
            raise TypeError(f"can't write {layer!r} into {target}: it is not one of fastnn's own")
        record = layer._describe(0)
        if record is not None:
            yield Described(place, layer, record)


def row(table: Mapping[str, Value], key: str, layer: Layer, target: str) -> Value:
    """Return what `table` has for a layer.

    Raises
    ------
    TypeError
        If it has nothing.
    """
    if key not in table:
        raise TypeError(f"can't write {layer!r} into {target}: expected one of {', '.join(table)}")
    return table[key]


def said_by(library: str) -> dict[type[Elementwise], str]:
    """Return what the classes of elementwise layers say of a library, by a field of `Elsewhere`."""
    kinds = (kind for kind in layers.BUILT_IN if issubclass(kind, Elementwise))
    return {kind: said for kind in kinds if (said := getattr(kind._elsewhere, library))}


def said(library: str, layer: Elementwise, target: str) -> str:
    """Return what the class of a layer says of a library.

    Raises
    ------
    TypeError
        If it says nothing.
    """
    table = {kind.__name__: text for kind, text in said_by(library).items()}
    return row(table, type(layer).__name__, layer, target)
