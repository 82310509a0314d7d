"""Networks to safetensors files and back: parameters by name, architecture in the header."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fastnn.layers import Dense, Layer, ReLU, Rescaling

if TYPE_CHECKING:
    from fastnn.network import Network

FORMAT = "1"

_ARGUMENTS: dict[type[Layer], tuple[str, ...]] = {
    Dense: ("input_units", "output_units", "learning_rate"),
    ReLU: (),
    Rescaling: ("scale",),
    Layer: (),
}
"""Of each layer that can be saved: the attributes that its constructor takes."""


def save(network: Network, path: str | PathLike[str]) -> None:
    """Write `network` to `path`; see `Network.save`."""
    tensors: dict[str, Any] = {}
    for i, layer in enumerate(network):
        for name, array in layer.parameters.items():
            tensors[f"{i}.{name}"] = np.ascontiguousarray(array)
    header = {
        "fastnn": FORMAT,
        "dtype": network.dtype.name,
        "layers": json.dumps([_described(layer) for layer in network]),
        "random": json.dumps(network._rng.bit_generator.state, default=_plain),
    }
    save_file(tensors, path, header)


def read(
    path: str | PathLike[str],
) -> tuple[str, np.random.Generator, list[Layer], dict[str, Any]]:
    """Return the dtype, the random generator, the layers as new, and the parameters by name."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a model saved by fastnn, got {error}") from None
    if header.get("fastnn") != FORMAT:
        found = f"format {header['fastnn']!r}" if "fastnn" in header else "no format entry"
        raise ValueError(f"{path}: expected a fastnn model of format {FORMAT}, got {found}")
    try:
        layers = [_built(description) for description in json.loads(header["layers"])]
        rng = _generator(json.loads(header["random"]))
        dtype = header["dtype"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a fastnn model, got a bad header: {error}") from None
    return dtype, rng, layers, tensors


def _described(layer: Layer) -> dict[str, Any]:
    if type(layer) not in _ARGUMENTS:
        raise TypeError(
            f"can't save {layer!r}: only fastnn's own layers can be built again from a file"
        )
    arguments = {name: getattr(layer, name) for name in _ARGUMENTS[type(layer)]}
    return {"type": type(layer).__name__, **arguments}


def _built(description: dict[str, Any]) -> Layer:
    arguments = dict(description)
    name = arguments.pop("type")
    for kind in _ARGUMENTS:
        if kind.__name__ == name:
            return kind(**arguments)
    raise ValueError(f"unknown layer {name!r}")


def _generator(state: dict[str, Any]) -> np.random.Generator:
    kinds = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
    if state["bit_generator"] not in kinds:
        raise ValueError(f"unknown bit generator {state['bit_generator']!r}")
    bit_generator = getattr(np.random, state["bit_generator"])()
    bit_generator.state = state
    return np.random.Generator(bit_generator)


def _plain(value: object) -> object:
    """Return the JSON form of the arrays in some bit generators' state."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"can't write {type(value).__name__}")
