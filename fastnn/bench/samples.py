"""What all contenders are given alike: samples, initial parameters, and answers to compare with."""

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.bench.cases import Case

Array = NDArray[Any]
Parameters = list[tuple[Array, Array]]

SEED = 0


def initial_parameters(case: Case) -> Parameters:
    """Weights ``[in, out]`` by Glorot's normal rule and zero biases, equal for every contender."""
    rng = np.random.default_rng(SEED)
    return [
        (
            rng.normal(0, np.sqrt(2 / (inputs + outputs)), (inputs, outputs)).astype(case.dtype),
            np.zeros(outputs, case.dtype),
        )
        for inputs, outputs in pairwise(case.shape)
    ]


def load_samples(case: Case) -> tuple[Array, Array]:
    """Inputs and labels; those that are drawn have no zeros, and labels that a linear map says."""
    X, y = _images(case) if case.of_images else _drawn(case)
    return np.asarray(X, order="F" if case.order == "F" else "C"), y


def _images(case: Case) -> tuple[Array, Array]:
    pixels, labels = _load(case.data)
    X = pixels[: case.samples]
    if case.input == "float":
        X = X.astype(case.dtype)
        X /= 255
    return X, labels[: case.samples]


def _drawn(case: Case) -> tuple[Array, Array]:
    rng = np.random.default_rng(SEED)
    size, dtype = (case.samples, case.shape[0]), np.dtype(case.dtype)
    table = case.input == "table"
    X: Array = rng.standard_normal(size, dtype) if table else rng.random(size, dtype) - 0.5
    return X, (X @ rng.normal(size=(case.shape[0], case.shape[-1]))).argmax(1)


def _load(data: str) -> tuple[Array, Array]:
    """Return raw pixels ``[n, units]`` and labels of a training set."""
    import fastnn

    if data == "mnist":
        return fastnn.load_dataset(flatten=True, dtype=np.uint8)[:2]
    from fastnn import datasets

    if datasets.is_name(data):
        return fastnn.load_dataset(data, flatten=True, dtype=np.uint8)[:2]
    return fastnn.load_dataset(flatten=True, path=Path(data), dtype=np.uint8)[:2]


@cache
def described(data: str) -> tuple[int, int, int]:
    """Return input units, classes and samples of a training set of images.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is none, or its files are damaged.
    """
    if data == "mnist":
        return 784, 10, 50_000
    X, y = _load(data)
    return X.shape[1], int(y.max()) + 1, len(X)


def reference_classes(X: Array, parameters: Parameters) -> Array:
    """Class ids in float64, what every prediction has to find."""
    activations = X / 255 if X.dtype == np.uint8 else X.astype(np.float64)
    for weights, biases in parameters[:-1]:
        activations = np.maximum(activations @ weights + biases, 0)
    weights, biases = parameters[-1]
    classes: Array = (activations @ weights + biases).argmax(1)
    return classes
