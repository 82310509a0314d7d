"""Networks to safetensors files and back: parameters by name, architecture in the header.

What an optimiser remembers of a parameter is a tensor as well: `0.weights.velocity`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fastnn import checks, layers, losses, optimizers, schedules
from fastnn.layers import Layer, ParametricLayer
from fastnn.losses import Loss, SoftmaxCrossEntropy
from fastnn.optimizers import Optimizer
from fastnn.schedules import Rate

FORMAT = "1"

ADDED_LATER = {"l2": 0.0}
"""Arguments that files of older versions lack, and what they were before they could be given."""

METADATA = "metadata"
"""Of the header: the network's own, as JSON."""

ASIDE = "training."
"""Tensors whose names begin so are no parameters of the network: a training keeps them."""

LATER_OPTIONS = ("clip_norm", "matmul_precision")
"""Of a network, None if not given; files from before they could be lack them."""

GENERATORS = ("PCG64", "PCG64DXSM")
"""Bit generators whose state is a few integers. Others have positions in arrays, which NumPy
believes whatever they are, so a file could make it read anywhere."""


class Savable(Protocol):
    """What files hold of a network."""

    _loss: Loss
    _rng: np.random.Generator
    metadata: dict[str, str]

    @property
    def optimizer(self) -> Optimizer | None: ...

    @property
    def clip_norm(self) -> float | None: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def matmul_precision(self) -> str | None: ...

    def __iter__(self) -> Iterator[Layer]: ...


def save(network: Savable, path: str | PathLike[str]) -> None:
    """Write `network` to `path`; see `Network.save`."""
    checks.file_path("path", path)
    replace_file(path, serialized(network))


def serialized(
    network: Savable,
    entries: Mapping[str, str] | None = None,
    arrays: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the content of a file that holds `network`, and more of a training in progress.

    `entries` are added to the header; `arrays`, whose names begin with `ASIDE`, to the tensors.
    """
    # Imported here and in `opened`, as they slow `import fastnn` down.
    import json

    from safetensors.numpy import save

    tensors: dict[str, Any] = {**(arrays or {})}
    for i, layer in enumerate(network):
        for name, array in _arrays(layer).items():
            tensors[f"{i}.{name}"] = np.ascontiguousarray(array)
        if isinstance(layer, ParametricLayer) and layer.steps:
            of = layer._parameters
            for kind, vector in zip(of.optimizer.state_names, of.state, strict=True):
                for name in of.learned:
                    array = of.layout.view(vector, name)
                    tensors[f"{i}.{name}.{kind}"] = np.ascontiguousarray(array)
    state = network._rng.bit_generator.state
    loss = _described_loss(network)  # a bare name where that is all
    header = {
        "fastnn": FORMAT,
        "dtype": network.dtype.name,
        "layers": json.dumps([_described(layer, network.optimizer) for layer in network]),
        "optimizer": json.dumps(_described_optimizer(network.optimizer)),
        "loss": json.dumps(loss) if isinstance(loss, dict) else loss,
        "clip_norm": json.dumps(network.clip_norm),
        "matmul_precision": json.dumps(network.matmul_precision),
        "random": json.dumps(state if state["bit_generator"] in GENERATORS else None),
        **({METADATA: _written(network.metadata)} if network.metadata else {}),
        **(entries or {}),
    }
    return save(tensors, header)


def _written(metadata: Mapping[str, str]) -> str:
    import json

    for part in (*metadata, *metadata.values()):
        if not isinstance(part, str):
            raise TypeError(f"metadata: expected a dict of str to str, got {part!r} in it")
    return json.dumps(metadata)


def metadata(header: Mapping[str, str]) -> dict[str, str]:
    """Return what `Network.metadata` was when a file of that header was written."""
    import json

    found = json.loads(header.get(METADATA, "{}"))
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError(f"metadata: expected a dict of str to str, got {found!r}")
    return found


def architecture(network: Savable) -> dict[str, Any]:
    """Return what a network is made of, as JSON holds it, without what training changes.

    Raises
    ------
    TypeError
        If something is not one of fastnn's own, as `save` does.
    """
    return {
        "dtype": network.dtype.name,
        "matmul_precision": network.matmul_precision,
        "loss": _described_loss(network),
        "clip_norm": network.clip_norm,
        "optimizer": _described_optimizer(network.optimizer),
        "layers": [_architecture(layer, network.optimizer) for layer in network],
    }


def replace_file(path: str | PathLike[str], content: bytes, what: str = "model") -> None:
    """Write a file so that whoever opens `path`, at any moment, finds all of it or what was there.

    Where `path` is a link, the file that it leads to is replaced. What is no regular file, such as
    a pipe, is written to.

    Raises
    ------
    OSError
        If it can't be written; what was there before is still there. The message says `what`.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(content)
        else:
            _replace(target, content)
    except OSError as error:
        reason = f"can't write the {what}: {error.strerror or error}"
        raise type(error)(error.errno, reason, str(path)) from None


def remove_unfinished(path: str | PathLike[str]) -> None:
    """Remove what is left of writes to `path` that the end of a process cut short.

    For whoever alone writes to it.
    """
    target = Path(os.path.realpath(path))
    for left in target.parent.glob(f"{glob.escape(_unfinished(target))}*.*"):
        if left.name.removeprefix(_unfinished(target)).replace(".", "").isdigit():
            with contextlib.suppress(OSError):
                left.unlink()


def _unfinished(target: Path) -> str:
    """Return how the names of files begin that are to become `target`."""
    return f".{target.name}."


def _replace(target: Path, content: bytes) -> None:
    # beside it, as a file can be renamed only within a file system
    unfinished = target.with_name(f"{_unfinished(target)}{os.getpid()}.{threading.get_ident()}")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a crash of the machine could leave a name without data
        if target.exists():
            unfinished.chmod(target.stat().st_mode & 0o7777)
        unfinished.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def damage(error: Exception) -> str:
    """Return what an error says of the file that it comes from."""
    if isinstance(error, KeyError):
        return checks.message(f"a file without {error}, or where that is unknown")
    return checks.message(f"{type(error).__name__}: {error}")


def opened(path: str | PathLike[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the header of a file and its tensors."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        header = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if header.get("fastnn") != FORMAT:
        found = f"format {header['fastnn']!r}" if "fastnn" in header else "no format entry"
        raise ValueError(f"expected format {FORMAT}, got {found}")
    return header, tensors


def built(
    header: Mapping[str, str], tensors: dict[str, Any]
) -> tuple[list[Layer], Optimizer | None, dict[str, Any]]:
    """Return layers, their optimiser, and what else a network is made with; takes tensors out."""
    import json

    optimizer = _built_optimizer(json.loads(header.get("optimizer", "null")))
    layers = [
        _built(description, optimizer, tensors, f"{i}.")
        for i, description in enumerate(json.loads(header["layers"]))
    ]
    if tensors:
        raise ValueError(f"parameters of no layer: {', '.join(sorted(tensors))}")
    # a file without that entry is of a time when there was one loss
    loss = header.get("loss", SoftmaxCrossEntropy.name)
    described = json.loads(loss) if loss.startswith("{") else loss
    rng = generator(json.loads(header["random"]))
    options = {name: json.loads(header.get(name, "null")) for name in LATER_OPTIONS}
    options |= {"dtype": header["dtype"], "loss": losses.built(described), "seed": rng}
    return layers, optimizer, options


def _described(layer: Layer, shared: Optimizer | None) -> dict[str, Any]:
    """Return what a layer is made of, and how far training has come with it."""
    steps = {"steps": layer.steps} if isinstance(layer, ParametricLayer) else {}
    progress = {name: getattr(layer, name) for name in layer._progress}
    return {**_architecture(layer, shared), **steps, **progress}


def _architecture(layer: Layer, shared: Optimizer | None) -> dict[str, Any]:
    if layer not in layers.BUILT_IN or layer._only_python:
        raise TypeError(
            f"can't save {layer!r}: only fastnn's own layers can be built again from a file; "
            "numpy.savez(path, *network.get_weights()) keeps the parameters, and "
            "set_weights(numpy.load(path).values()) puts them into a network built anew"
        )
    described: dict[str, Any] = {"type": type(layer).__name__}
    described |= {name: getattr(layer, name) for name in layer._arguments}
    if isinstance(layer, ParametricLayer):
        own = None if layer.optimizer is shared else _described_optimizer(layer.optimizer)
        described["optimizer"] = own
    return described


def _built(
    description: dict[str, Any], shared: Optimizer | None, tensors: dict[str, Any], prefix: str
) -> Layer:
    """Return the layer of a description, with its share of the tensors, which are taken out.

    In a file from before layers had optimisers the description has a learning rate instead.
    """
    kind = layers.BUILT_IN[description["type"]]
    given = {name: ADDED_LATER[name] for name in kind._arguments if name in ADDED_LATER}
    given |= description
    learning: tuple[str, ...] = ()
    if issubclass(kind, ParametricLayer):
        learning = ("optimizer", "steps") if "optimizer" in given else ("learning_rate",)
    _check_names(given, (*kind._arguments, *kind._progress, *learning))
    layer = _made(given, shared)
    if isinstance(layer, ParametricLayer):
        parameters = layer._parameters
        parameters.fill(_taken(tensors, prefix, parameters.shapes))
        if "optimizer" in description:
            steps = checks.steps("steps", description["steps"])
            learned = {name: parameters.shapes[name] for name in parameters.learned}
            of_state = layer.optimizer.state_names if steps else ()
            state = [_taken(tensors, prefix, learned, f".{kind}") for kind in of_state]
            parameters.fill_state(steps, state)
        else:
            layer.learning_rate = description["learning_rate"]
    layer._resume(**{name: description[name] for name in layer._progress})
    return layer


def made(architecture: Mapping[str, Any]) -> tuple[Optimizer | None, list[Layer]]:
    """Return optimiser and layers of what `architecture` described, parameters not yet drawn."""
    optimizer = _built_optimizer(architecture["optimizer"])
    return optimizer, [_made(description, optimizer) for description in architecture["layers"]]


def _made(description: dict[str, Any], shared: Optimizer | None) -> Layer:
    """Return the layer of a description as its constructor makes it."""
    kind: Any = layers.BUILT_IN[description["type"]]
    layer: Layer = kind(**{name: description[name] for name in kind._arguments})
    if isinstance(layer, ParametricLayer) and "optimizer" in description:
        own = _built_optimizer(description["optimizer"])
        layer._take(optimizers.checked("optimizer", own or shared))
    return layer


def _taken(
    tensors: dict[str, Any], prefix: str, shapes: Mapping[str, tuple[int, ...]], suffix: str = ""
) -> dict[str, Any]:
    """Take an array for each name out of the tensors."""
    taken = {}
    for name, shape in shapes.items():
        key = f"{prefix}{name}{suffix}"
        if key not in tensors:
            raise ValueError(f"no array {key!r}")
        # Before any memory is taken: a damaged header can ask for any size.
        taken[name] = checks.shaped(name, tensors.pop(key), shape)
    return taken


def _described_loss(network: Savable) -> str | dict[str, Any]:
    if network._loss not in losses.BUILT_IN:
        raise TypeError(f"can't save the loss {network._loss!r}: only fastnn's own can be named")
    return losses.described(network._loss)


def _described_optimizer(optimizer: Optimizer | None) -> dict[str, Any] | None:
    if optimizer is None:
        return None
    if optimizer not in optimizers.BUILT_IN:
        raise TypeError(f"can't save {optimizer!r}: only fastnn's own optimisers can be")
    arguments = {name: getattr(optimizer, name) for name in optimizer._arguments}
    arguments["learning_rate"] = _described_rate(optimizer.learning_rate)
    return {"type": type(optimizer).__name__, **arguments}


def _built_optimizer(description: dict[str, Any] | None) -> Optimizer | None:
    if description is None:
        return None
    kind: Any = optimizers.BUILT_IN[description["type"]]
    _check_names(description, kind._arguments)
    arguments = {name: description[name] for name in kind._arguments}
    arguments["learning_rate"] = _built_rate(arguments["learning_rate"])
    built: Optimizer = kind(**arguments)
    return built


def _described_rate(rate: Rate) -> float | dict[str, Any]:
    if not callable(rate):
        return rate
    if rate not in schedules.BUILT_IN:
        raise TypeError(f"can't save {rate!r}: of schedules only fastnn's own can be")
    schedule: Any = rate
    fields = {item.name: getattr(rate, item.name) for item in dataclasses.fields(schedule)}
    if "schedule" in fields:
        fields["schedule"] = _described_rate(fields["schedule"])
    return {"type": type(rate).__name__, **fields}


def _built_rate(description: float | dict[str, Any]) -> Rate:
    if not isinstance(description, dict):
        return description
    kind: Any = schedules.BUILT_IN[description["type"]]
    names = tuple(item.name for item in dataclasses.fields(kind))
    _check_names(description, names)
    arguments = {name: description[name] for name in names}
    if "schedule" in arguments:
        arguments["schedule"] = _built_rate(arguments["schedule"])
    schedule: Rate = kind(**arguments)
    return schedule


def _check_names(description: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise unless a description holds its type and exactly these: no default makes up for one."""
    wanted = {"type", *names}
    if wanted != description.keys():
        raise ValueError(
            f"{description['type']}: expected the entries {', '.join(sorted(wanted))}, "
            f"got {', '.join(sorted(description))}"
        )


def _arrays(layer: Layer) -> Mapping[str, Any]:
    """Return the layer's arrays by name: parameters, and statistics that no gradient moves."""
    return layer._parameters.drawn().views if isinstance(layer, ParametricLayer) else {}


def generator(state: Mapping[str, Any] | None) -> np.random.Generator:
    """Return a generator in `state`, a fresh one for None."""
    if state is None:
        return np.random.default_rng()
    if state["bit_generator"] not in GENERATORS:
        raise ValueError(f"unknown bit generator {state['bit_generator']!r}")
    bit_generator = getattr(np.random, state["bit_generator"])()
    bit_generator.state = state
    return np.random.Generator(bit_generator)
