"""Networks to safetensors files and back: parameters by name, architecture in the header."""

from __future__ import annotations

import json
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fastnn import checks
from fastnn.layers import Dense, Layer, ParametricLayer, ReLU, Rescaling
from fastnn.optimizers import SGD

if TYPE_CHECKING:
    from fastnn.network import Network

FORMAT = "1"

GENERATORS = ("PCG64", "PCG64DXSM")
"""Bit generators whose state is a few integers. Others have positions in arrays, which NumPy
believes whatever they are, so a file could make it read anywhere."""

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
    state = network._rng.bit_generator.state
    header = {
        "fastnn": FORMAT,
        "dtype": network.dtype.name,
        "layers": json.dumps([_described(layer) for layer in network]),
        "random": json.dumps(state if state["bit_generator"] in GENERATORS else None),
    }
    try:
        save_file(tensors, path, header)
    except SafetensorError as error:
        raise OSError(f"{path}: can't write the model: {error}") from None


def read(path: str | PathLike[str]) -> tuple[str, np.random.Generator, list[Layer]]:
    """Return the dtype, the random generator and the layers of a saved network.

    Raises whatever a damaged file leads to.
    """
    with safe_open(path, framework="numpy") as file:
        header = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if header.get("fastnn") != FORMAT:
        found = f"format {header['fastnn']!r}" if "fastnn" in header else "no format entry"
        raise ValueError(f"expected format {FORMAT}, got {found}")
    layers = [
        _built(description, {name: tensors.pop(f"{i}.{name}") for name in ("weights", "biases")})
        if description["type"] == "Dense"
        else _built(description, {})
        for i, description in enumerate(json.loads(header["layers"]))
    ]
    if tensors:
        raise ValueError(f"parameters of no layer: {', '.join(sorted(tensors))}")
    return header["dtype"], _generator(json.loads(header["random"])), layers


def _described(layer: Layer) -> dict[str, Any]:
    if type(layer) not in _ARGUMENTS:
        raise TypeError(
            f"can't save {layer!r}: only fastnn's own layers can be built again from a file"
        )
    if isinstance(layer, ParametricLayer) and type(layer.optimizer) is not SGD:
        raise TypeError(f"can't save {layer.optimizer!r}: only fastnn's own optimisers can be")
    arguments = {name: getattr(layer, name) for name in _ARGUMENTS[type(layer)]}
    return {"type": type(layer).__name__, **arguments}


def _built(description: dict[str, Any], parameters: dict[str, Any]) -> Layer:
    kinds = {kind.__name__: kind for kind in _ARGUMENTS}
    layer = kinds[description["type"]](
        **{name: value for name, value in description.items() if name != "type"}
    )
    if isinstance(layer, ParametricLayer):
        # Before any memory is taken: a damaged header can ask for any size.
        for name, shape in layer._shapes.items():
            checks.shaped(name, parameters[name], shape)
        layer._fill(parameters)
    return layer


def _generator(state: dict[str, Any] | None) -> np.random.Generator:
    """Return a generator in `state`, a fresh one for None."""
    if state is None:
        return np.random.default_rng()
    if state["bit_generator"] not in GENERATORS:
        raise ValueError(f"unknown bit generator {state['bit_generator']!r}")
    bit_generator = getattr(np.random, state["bit_generator"])()
    bit_generator.state = state
    return np.random.Generator(bit_generator)
