"""A page to draw digits on, which shows what a network makes of them.

`page.html` is the page without a network, and without the formulas of elementwise layers, which
their classes say in JavaScript. Layers become steps, of which it knows three kinds, as `STEPS` in
it says: a matrix with biases, a factor and an addend for each unit, and a function of each element.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from importlib import resources
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import images, layers, saving
from fastnn.checks import Array
from fastnn.interchange.records import row, said, said_by
from fastnn.normalization import factors_and_addends

if TYPE_CHECKING:
    from fastnn.network import Network

Step = dict[str, Any]


def write(network: Network, path: str | PathLike[str], name: str = "") -> None:
    """Write a page that holds the network and needs nothing else, no server and no connection.

    One draws a digit, by mouse or finger, and sees the activations of each layer and the
    probabilities, which are those of `predict_proba` up to the rounding of float32.

    Parameters
    ----------
    network
        Of 784 inputs, in fastnn's own layers, under softmax cross-entropy.
    path
        Of the page, as a rule with the ending .html.
    name
        Of the network, for its heading.

    Raises
    ------
    ValueError
        If the network does not take 784 inputs, has no dense layer, or holds a number that is not
        finite.
    TypeError
        If a layer is not one of fastnn's own, the page can't compute it, or the outputs are no
        logits.
    OSError
        If the page can't be written.
    """
    network._loss.check_logits("page")
    pixel = images.pixel_scale(network)
    computed = steps(network)
    widths = [step["weights"].shape for step in computed if step["kind"] == "dense"]
    if not widths:
        raise ValueError("page: expected a network with a dense layer, got none")
    shape = "-".join(str(width) for width in (widths[0][0], *(outputs for _, outputs in widths)))
    about = f"{shape}, {network.parameter_count:,} parameters."
    model = {
        "pixel": pixel,
        "classes": widths[-1][1],
        "about": f"{name}: {about}" if name else about,
        "steps": [encoded(step) for step in computed],
    }
    # so that nothing in it, a name perhaps, ends the script that holds it
    text = json.dumps(model, allow_nan=False).replace("<", r"\u003c")
    template = resources.files("fastnn").joinpath("page.html").read_text("utf-8")
    template = template.replace("{ FORMULAS }", f"{{\n{functions()}\n}}")
    saving.replace_file(path, template.replace(">MODEL<", f">{text}<").encode(), "page")


def functions() -> str:
    """Return the properties of FUNCTIONS in the page: what elementwise layers say of JavaScript."""
    return "\n".join(
        f"  {kind._function}: ({', '.join(('x', *kind._constants))}) => {formula},"
        for kind, formula in said_by("javascript").items()
    )


def steps(network: Network) -> list[Step]:
    """Return what a network computes in prediction, as few steps with arrays in float64.

    Each step has a `kind`, what that needs, and the `layers` that it stands for. Layers that pass
    on what they get are none; batch norm is part of a dense layer before it.

    Raises
    ------
    TypeError
        If a layer is not one of fastnn's own, or none that the page can compute.
    """
    found: list[Step] = []
    for layer in network:
        if layer not in layers.BUILT_IN or layer._only_python:
            raise TypeError(f"can't write {layer!r} into a page: it is not one of fastnn's own")
        described = layer._describe(0)
        if described is None:
            continue
        step = row(_STEPS, described.kind, layer, "a page")(layer, described)
        if step is None:
            continue
        step["layers"] = [type(layer).__name__]
        if step["kind"] == "scale" and found and found[-1]["kind"] in ("dense", "scale"):
            found[-1] = _scaled(found[-1], step)
        else:
            found.append(step)
    return found


def _dense(layer: Any, _: Any) -> Step:
    weights, biases = (np.array(a, np.float64) for a in (layer.weights, layer.biases))
    return {"kind": "dense", "weights": weights, "biases": biases}


def _batch_norm(layer: Any, _: Any) -> Step:
    factors, addends = factors_and_addends(layer)
    return {"kind": "scale", "factors": factors, "addends": addends}


def _elementwise(layer: Any, described: Any) -> Step:
    said("javascript", layer, "a page")
    return {
        "kind": "elementwise",
        "function": described.function,
        "constants": list(described.constants),
    }


_STEPS: dict[str, Callable[[Any, Any], Step | None]] = {
    "dense": _dense,
    "batch_norm": _batch_norm,
    "elementwise": _elementwise,
    "dropout": lambda layer, described: None,
}
"""How the step of a layer is made, by the kind of record with which it describes itself."""


def _scaled(step: Step, scale: Step) -> Step:
    """Return one step for a matrix, or factors, and factors behind it."""
    weights, biases = ("weights", "biases") if step["kind"] == "dense" else ("factors", "addends")
    return step | {
        weights: step[weights] * scale["factors"],
        biases: step[biases] * scale["factors"] + scale["addends"],
        "layers": step["layers"] + scale["layers"],
    }


def encoded(step: Step) -> Step:
    """Return a step for JSON: arrays in Base64 of little-endian float32, listed in `arrays`.

    Raises
    ------
    ValueError
        If a number is not finite in float32.
    """
    arrays = {name: value for name, value in step.items() if isinstance(value, np.ndarray)}
    return step | {"arrays": list(arrays)} | {n: _base64(a) for n, a in arrays.items()}


def _base64(array: Array) -> str:
    with np.errstate(over="ignore"):
        single = array.astype("<f4")
    if not np.isfinite(single).all():
        raise ValueError("expected a network of finite parameters, got one with infinity or NaN")
    return base64.b64encode(single.tobytes()).decode("ascii")
