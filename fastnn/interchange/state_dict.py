"""PyTorch's names of parameters, and state dicts into networks; PyTorch itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import checks
from fastnn.checks import Array
from fastnn.layers import ParametricLayer

if TYPE_CHECKING:
    from fastnn.network import Network

NAMES = {
    "dense": {"weight": "weights", "bias": "biases"},
    "batch_norm": {
        "weight": "scale",
        "bias": "shift",
        "running_mean": "running_mean",
        "running_var": "running_variance",
    },
}
"""PyTorch's names of a layer's arrays and fastnn's, by the kind of record that describes it.

A matrix is the other's transposed: PyTorch's weights are of shape [outputs, inputs].
"""

OPTIONAL = {"dense": {"bias": 0.0}}
"""What stands for an array that a module of PyTorch's may lack, by PyTorch's name."""

IGNORED = "num_batches_tracked"
"""A count that PyTorch keeps for a kind of running statistics that fastnn has not."""


def of_layer(layer: Any, kind: str) -> dict[str, Array]:
    """Return the arrays of a layer as PyTorch names and lays them out; copies."""
    names = NAMES[kind].items()
    return {theirs: np.array(getattr(layer, ours).T, order="C") for theirs, ours in names}


def arrays(
    layer: ParametricLayer, kind: str, state: Mapping[str, Any], where: str
) -> dict[str, Array]:
    """Return arrays as fastnn names and lays them out, checked.

    Parameters
    ----------
    layer
        What they are for.
    kind
        That of its record.
    state
        Tensors or arrays by PyTorch's names of them.
    where
        Where they come from, for the messages of errors.

    Raises
    ------
    ValueError
        If a shape is another, or a name is missing or is one too many.
    TypeError
        If one does not hold real numbers.
    """
    names, shapes = NAMES[kind], layer._parameters.shapes
    found = [name for name in state if name != IGNORED]
    lacking = [name for name in names if name not in found]
    optional = OPTIONAL.get(kind, {})
    if not set(found) <= names.keys() or not set(lacking) <= optional.keys():
        raise ValueError(
            f"{where}: expected {', '.join(names)} for {layer!r}, "
            f"got {checks.message(', '.join(found))}"
        )
    values = {names[name]: np.full(shapes[names[name]], optional[name]) for name in lacking}
    for name in found:
        shape = shapes[names[name]]
        array = _array(state[name], f"{where}.{name}")
        values[names[name]] = checks.shaped(f"{where}.{name}", array, shape[::-1]).T
    return values


def _array(value: Any, where: str) -> Any:
    """Return what NumPy can read: a tensor may need its gradient, or live on another device."""
    if not hasattr(value, "detach"):
        return value
    # as a lazy module has none before its first batch, and the device meta has none at all
    if value.is_meta or type(value).__name__.startswith("Uninitialized"):
        raise ValueError(f"{where}: expected a tensor with values, got one without")
    if value.is_complex():
        raise TypeError(f"{where}: expected real numbers, got {value.dtype}")
    value = value.detach().cpu()
    return (value if str(value.layout) == "torch.strided" else value.to_dense()).double().numpy()


def load(network: Network, state_dict: Mapping[str, Any]) -> None:
    """Copy a state dict into `network`; see `Network.load_state_dict`."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict: expected a mapping, got {type(state_dict).__name__}")
    learned = [layer for layer in network if isinstance(layer, ParametricLayer)]
    parts = _by_module(state_dict)
    if len(parts) != len(learned):
        raise ValueError(
            f"state_dict: expected parameters of {len(learned)} layers, got those of {len(parts)}: "
            f"{checks.message(', '.join(map(repr, parts)))}"
        )
    values = []
    for layer, (module, state) in zip(learned, parts.items(), strict=True):
        record: Any = layer._describe(0)
        where = f"state_dict, {checks.message(module)}" if module else "state_dict"
        values.append(arrays(layer, record.kind, state, where))
    for layer, of_layer in zip(learned, values, strict=True):
        for name, array in of_layer.items():
            layer._parameters.assign(name, array)


def _by_module(state_dict: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the state of each module, in the order in which they compute.

    Where all modules in another have numbers, as in a `torch.nn.Sequential`, it is that of the
    numbers, as files may have sorted them as text. Else it is the order of the state dict, in which
    modules have been made; in one sorted as text that of the numbers at the end of names.
    """
    parts: dict[str, dict[str, Any]] = {}
    for key, value in state_dict.items():
        if not isinstance(key, str):
            raise TypeError(f"state_dict: expected names, got {key!r}")
        module, _, name = key.rpartition(".")
        parts.setdefault(module, {})[name] = value
    inside: dict[str, dict[str, None]] = {}
    for module in parts:
        steps = module.split(".")
        for depth, name in enumerate(steps):
            inside.setdefault(".".join(steps[:depth]), {})[name] = None
    as_text = list(state_dict) == sorted(state_dict)
    places: dict[tuple[str, str], int] = {}
    for outer, names in inside.items():
        ordered = list(names)
        if all(name.isdecimal() for name in names):
            ordered.sort(key=int)
        elif as_text:
            ordered.sort(key=_text_and_number)
        places |= {(outer, name): place for place, name in enumerate(ordered)}

    def place(module: str) -> list[int]:
        steps = module.split(".")
        return [places[".".join(steps[:depth]), name] for depth, name in enumerate(steps)]

    return {module: parts[module] for module in sorted(parts, key=place)}


def _text_and_number(name: str) -> tuple[str, int]:
    text = name.rstrip("0123456789")
    return text, int(name[len(text) :] or 0)
