"""Every argument of every public entry point against what it can't be: one table.

`ENTRIES` has a call that works for each entry point, `ARGUMENTS` says of each argument which kind
of thing it is, and `BAD` what is none of that kind. A public name, or an argument, that is in none
of them fails a test. Refusals are a `ValueError` or a `TypeError` that names the argument and says
what was expected, the same one on both backends and on both paths. Estimators for scikit-learn have
a table of their own, in `test_refusals_sklearn.py`.
"""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import unaligned

import fastnn
from fastnn import initializers, schedules
from fastnn.bench.trainings import LAYERS

NAN, INF = float("nan"), float("inf")
X, Y = np.linspace(-1, 1, 24).reshape(6, 4), np.array([0, 1, 2, 0, 1, 2])
REAL, WEIGHTS = np.linspace(-1, 1, 18).reshape(6, 3), np.ones(6)


TAKEN = {"layer path": False}
"""Whether networks have a layer that only Python knows."""


def network(**options: Any) -> fastnn.Network:
    """Return a network that takes `X`."""
    layers = [fastnn.Dense(4, 5), fastnn.ReLU(), fastnn.Dense(5, 3)]
    if TAKEN["layer path"]:
        layers.append(fastnn.Activation(lambda x: x, np.ones_like))
    return fastnn.Network(layers, **{"seed": 0, **options})


class Made:
    """What is made when it is needed, as by a package that may be missing."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


def made(value: Any) -> Any:
    """Return a value, made if it has to be."""
    return value.make() if isinstance(value, Made) else value


def of_network(method: str) -> Callable[..., Any]:
    """Return a method of a network that is made for each call."""

    @functools.wraps(getattr(fastnn.Network, method))
    def call(**arguments: Any) -> Any:
        return getattr(network(), method)(**arguments)

    return call


def of_layer(layer: Callable[[], fastnn.Layer], method: str) -> Callable[..., Any]:
    """Return a method of a layer."""

    @functools.wraps(getattr(fastnn.Layer, method))
    def call(**arguments: Any) -> Any:
        return getattr(layer(), method)(**arguments)

    return call


def consumed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that goes through what another one yields."""

    @functools.wraps(function)
    def call(**arguments: Any) -> Any:
        return list(function(**arguments))

    return call


def entered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that begins a `with` block."""

    @functools.wraps(function)
    def call(**arguments: Any) -> Any:
        with function(**arguments):
            return None

    return call


@functools.cache
def perceptron_of_sklearn() -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((5,), random_state=0).partial_fit(X, Y, classes=[0, 1, 2])


def spoilt(**attributes: Any) -> Made:
    """A perceptron of scikit-learn some of whose attributes have been changed."""

    def make() -> Any:
        estimator = copy.copy(perceptron_of_sklearn())
        vars(estimator).update(attributes)
        return estimator

    return Made(make)


def module(make: Callable[[Any], list[Any]]) -> Made:
    """A `Sequential` of PyTorch, of modules that are made of `torch.nn`."""

    def sequential() -> Any:
        from torch import nn

        return nn.Sequential(*make(nn))

    return Made(sequential)


DATA = {"X": X, "y": Y}
LOGITS = {"logits": X, "reference_answers": Y}

ENTRIES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "SGD": (fastnn.SGD, {"momentum": 0.5}),
    "RMSprop": (fastnn.RMSprop, {}),
    "Adam": (fastnn.Adam, {}),
    "AdamW": (fastnn.AdamW, {}),
    "Dense": (fastnn.Dense, {"input_units": 4, "output_units": 3}),
    "BatchNorm": (fastnn.BatchNorm, {"units": 4}),
    "Dropout": (fastnn.Dropout, {"p": 0.5}),
    "Rescaling": (fastnn.Rescaling, {"scale": 0.5}),
    "LeakyReLU": (fastnn.LeakyReLU, {}),
    "ELU": (fastnn.ELU, {}),
    "Activation": (fastnn.Activation, {"function": np.sin, "derivative": np.cos}),
    "SoftmaxCrossEntropy": (fastnn.SoftmaxCrossEntropy, {}),
    "BinaryCrossEntropy": (fastnn.BinaryCrossEntropy, {}),
    "Network": (fastnn.Network, {"layers": ()}),
    "Network.fit": (of_network("fit"), DATA),
    "Network.fit_blocks": (of_network("fit_blocks"), {"blocks": [(X, Y)]}),
    "Network.train_step": (of_network("train_step"), DATA),
    "Network.gradients": (of_network("gradients"), DATA),
    "Network.evaluate": (of_network("evaluate"), DATA),
    "Network.forward": (of_network("forward"), {"X": X}),
    "Network.__call__": (of_network("__call__"), {"X": X}),
    "Network.predict": (of_network("predict"), {"X": X}),
    "Network.predict_proba": (of_network("predict_proba"), {"X": X}),
    "Network.add": (of_network("add"), {"layer": fastnn.ReLU()}),
    "Network.use": (of_network("use"), {"loss": "mse"}),
    "Network.set_weights": (of_network("set_weights"), {"weights": network().get_weights()}),
    "Network.save": (of_network("save"), {"path": "network.safetensors"}),
    "Network.to_onnx": (of_network("to_onnx"), {"path": "network.onnx"}),
    "Network.to_sklearn": (of_network("to_sklearn"), {}),
    "from_sklearn": (fastnn.from_sklearn, {"estimator": Made(perceptron_of_sklearn)}),
    "from_torch": (fastnn.from_torch, {"module": module(lambda nn: [nn.Linear(4, 3)])}),
    "Network.load_state_dict": (
        of_network("load_state_dict"),
        {
            "state_dict": {
                f"{i}.{name}": np.zeros(shape)
                for i, (inputs, outputs) in ((0, (4, 5)), (2, (5, 3)))
                for name, shape in (("weight", (outputs, inputs)), ("bias", (outputs,)))
            }
        },
    ),
    "Dense.forward": (of_layer(lambda: fastnn.Dense(4, 3, seed=0), "forward"), {"input": X}),
    "Dense.backward": (
        of_layer(lambda: fastnn.Dense(4, 3, seed=0), "backward"),
        {"input": X, "grad_output": REAL},
    ),
    "forward": (lambda **given: fastnn.forward(**given), {"network": [fastnn.Dense(4, 3)], "X": X}),
    "predict": (lambda **given: fastnn.predict(**given), {"network": [fastnn.Dense(4, 3)], "X": X}),
    "train": (
        lambda **given: fastnn.train(**given),
        {"network": [fastnn.Dense(4, 3)], "X": X, "y": Y},
    ),
    "softmax": (fastnn.softmax, {"logits": X}),
    "softmax_crossentropy_with_logits": (fastnn.softmax_crossentropy_with_logits, LOGITS),
    "grad_softmax_crossentropy_with_logits": (fastnn.grad_softmax_crossentropy_with_logits, LOGITS),
    "binary_crossentropy_with_logits": (
        fastnn.binary_crossentropy_with_logits,
        {"logits": X, "reference_answers": np.abs(X)},
    ),
    "grad_binary_crossentropy_with_logits": (
        fastnn.grad_binary_crossentropy_with_logits,
        {"logits": X, "reference_answers": np.abs(X)},
    ),
    "mse": (fastnn.mse, {"y_true": X, "y_pred": X}),
    "mse_prime": (fastnn.mse_prime, {"y_true": X, "y_pred": X}),
    "one_hot": (fastnn.one_hot, {"labels": Y, "classes": 3}),
    "normalize": (fastnn.normalize, {"values": X}),
    "standardize": (fastnn.standardize, {"values": X}),
    "iterate_minibatches": (
        consumed(fastnn.iterate_minibatches),
        {"inputs": X, "targets": Y, "batchsize": 2},
    ),
    "load_dataset": (fastnn.load_dataset, {"flatten": True}),
    "random_shift": (fastnn.random_shift, {"images": X, "rng": np.random.default_rng(0)}),
    "check_gradients": (fastnn.check_gradients, {"network": network(), "X": X, "y": Y}),
    "eval_numerical_gradient": (
        fastnn.eval_numerical_gradient,
        {"f": lambda x: float((x * x).sum()), "x": X.copy()},
    ),
    "fit_many": (fastnn.fit_many, {"networks": [network()], "X": X, "y": Y, "workers": 1}),
    "load": (fastnn.load, {"path": "network.safetensors"}),
    "resume": (fastnn.resume, {"path": "training.safetensors", "X": X, "y": Y}),
    "set_backend": (fastnn.set_backend, {"name": "numba"}),
    "use_backend": (entered(fastnn.use_backend), {"name": "numba"}),
    "EarlyStopping": (fastnn.EarlyStopping, {}),
    "ReduceOnPlateau": (fastnn.ReduceOnPlateau, {}),
    "Checkpoint": (fastnn.Checkpoint, {"path": "best.safetensors"}),
    "CSVLogger": (fastnn.CSVLogger, {"path": "log.csv"}),
    "schedules.Constant": (schedules.Constant, {"rate": 0.1}),
    "schedules.StepDecay": (schedules.StepDecay, {"rate": 0.1, "factor": 0.5, "every": 2}),
    "schedules.CosineDecay": (schedules.CosineDecay, {"rate": 0.1, "steps": 9}),
    "schedules.WarmUp": (schedules.WarmUp, {"schedule": 0.1, "steps": 9}),
    "initializers.normal": (initializers.normal, {"deviation": 0.1}),
    "initializers.uniform": (initializers.uniform, {"low": -1.0, "high": 1.0}),
}

WITHOUT_A_WIDTH = set()
"""Methods of layers that take an input of any width."""

BATCH = {"input": X}
for _name, _of_width in LAYERS.items():
    for _method, _given in (("forward", BATCH), ("backward", {**BATCH, "grad_output": X})):
        if _name in ("Layer", "Dense"):  # the identity looks at nothing
            continue
        _make = functools.partial(_of_width, 4)
        ENTRIES[f"{_name}.{_method}"] = of_layer(_make, _method), _given
        if _make().input_units is None:
            WITHOUT_A_WIDTH.add(f"{_name}.{_method}")

NEEDED = {
    "Network.to_onnx": "onnx",
    "Network.to_sklearn": "sklearn",
    "from_sklearn": "sklearn",
    "from_torch": "torch",
}
"""Packages that an entry point needs."""

SIGNATURES: dict[str, Callable[..., Any]] = {
    "forward": fastnn.forward,
    "predict": fastnn.predict,
    "train": fastnn.train,
}
"""Of entries that are functions of another signature."""

NOTHING_TO_REFUSE = {
    *("MeanSquaredError", "ReLU", "Tanh", "Sigmoid", "SELU", "SiLU", "GELU", "Softplus", "Mish"),
    *("Layer", "Optimizer", "Callback", "initializers", "schedules"),  # bases, and modules
    *("History", "Evaluation", "DivergenceError"),  # what fastnn makes
    *("available_backends", "get_backend"),
    "Network.to_torch",
    "initializers.checked",  # what refuses the others
    *("Network.explain", "Network.get_weights", "Network.count", "Network.index"),
}

ARGUMENTS: dict[str, str] = {
    "learning_rate": "rate",
    "rate": "number of at least 0",
    "factor": "number of at least 0",
    "final_rate": "number of at least 0",
    "deviation": "number of at least 0",
    "schedule": "rate",
    "low": "finite number",
    "high": "finite number",
    "momentum": "share",
    "BatchNorm.momentum": "share or 1",
    "rho": "share",
    "beta1": "share",
    "beta2": "share",
    "p": "share",
    "label_smoothing": "share",
    "epsilon": "positive number",
    "tolerance": "number of at least 0",
    "h": "positive number",
    "weight_decay": "number of at least 0",
    "l2": "number of at least 0",
    "min_delta": "number of at least 0",
    "minimum": "number of at least 0",
    "ReduceOnPlateau.factor": "share",
    "scale": "finite number",
    "slope": "finite number",
    "alpha": "finite number",
    "clip_norm": "positive number or None",
    "input_units": "count",
    "output_units": "count",
    "units": "count",
    "every": "count",
    "steps": "count",
    "epochs": "count",
    "resume.epochs": "count or None",
    "batch_size": "count",
    "batchsize": "count",
    "threads": "count or None",
    "workers": "count or None",
    "numbers": "count",
    "patience": "count",
    "checkpoint_every": "count or None",
    "classes": "count",
    "axis": "axis",
    "nesterov": "flag",
    "shuffle": "flag",
    "drop_last": "flag",
    "train_accuracy": "flag",
    "restore_best": "flag",
    "append": "flag",
    "verbose": "flag",
    "flatten": "flag",
    "progress": "flag",
    "seed": "seed",
    "rng": "generator",
    "optimizer": "optimizer",
    "loss": "loss",
    "loss_prime": "beside a name",
    "dtype": "dtype",
    "from_sklearn.dtype": "dtype or None",
    "matmul_precision": "precision",
    "from_torch.dtype": "dtype or None",
    "Network.to_onnx.dtype": "dtype or None",
    "probabilities": "flag",
    "estimator": "perceptron of scikit-learn",
    "module": "module",
    "Network.to_sklearn.classes": "labels of 3 classes",
    "load_dataset.dtype": "dtype of data",
    "backend": "backend",
    "name": "backend, not None",
    "load_dataset.name": "data set",
    "path": "path",
    "load_dataset.path": "folder",
    "checkpoint": "path or None",
    "resume": "path or None",
    "on_divergence": "choice",
    "monitor": "monitor",
    "Checkpoint.monitor": "monitor or None",
    "mode": "mode",
    "Dense.weights": "initializer",
    "biases": "initializer",
    "function": "function",
    "derivative": "function",
    "f": "function",
    "layers": "layers",
    "layer": "layer",
    "network": "network",
    "check_gradients.network": "a Network",
    "networks": "networks",
    "blocks": "blocks",
    "callbacks": "callbacks",
    "fit_many.callbacks": "callbacks of each",
    "X": "samples",
    "input": "samples",
    "y": "labels",
    "logits": "matrix",
    "reference_answers": "labels of 4",
    "binary_crossentropy_with_logits.reference_answers": "shares",
    "grad_binary_crossentropy_with_logits.reference_answers": "shares",
    "labels": "class ids",
    "grad_output": "gradient",
    "y_true": "numbers like X",
    "y_pred": "numbers like X",
    "values": "numbers",
    "reference": "numbers or None",
    "inputs": "rows",
    "targets": "rows",
    "x": "floats",
    "images": "images",
    "pixels": "count",
    "sample_weight": "sample weights",
    "class_weight": "class weights",
    "validation_data": "pair",
    "validation_split": "split",
    "weights": "parameters",
    "state_dict": "state dict",
}

NOT_NUMBERS: list[Any] = ["x", 1j, [0.1, 0.2], b"1", np.array(["1"]), {}, object()]
NOT_FINITE: list[Any] = [NAN, INF, -INF, np.float32(NAN), 10**400, -(10**5000)]
NOT_COUNTS: list[Any] = [0, -1, 1.5, 2.0, NAN, INF, True, np.bool_(True), "3", [3], 1j, b"3",
                         2**63, 10**5000, -(10**5000)]  # fmt: skip
NOT_ARRAYS: list[Any] = [
    X.astype(complex),
    X.astype(str),
    X.astype(bytes),
    X.astype(object),
    np.ma.masked_less(X, 0),
    np.zeros((6, 4), "datetime64[s]"),
    np.zeros((6, 4), "timedelta64[s]"),
    np.zeros((6, 4), [("a", float)]),
    [[1, 2, 3, 4], [1]],
    [[None] * 4] * 6,
    "text",
    {"a": X},
    {1, 2},
    object(),
    iter([1, 2]),
]
NO_MATRICES: list[Any] = [
    *NOT_ARRAYS,
    X[0],
    X[:0],
    X[:, :0],
    X[np.newaxis],
    np.float64(3.0),
    np.array(3.0),
    3.0,
    None,
    [],
    [[]],
]
NO_CLASS_IDS: list[Any] = [
    Y - 1,
    Y + 1,
    Y + 0.5,
    Y * NAN,
    np.where(Y > 0, INF, 0.0),
    Y.astype(complex),
    Y.astype(str),
    Y.astype(object),
    Y[:, np.newaxis],
    np.eye(3)[Y],
    np.int64(1),
    np.ma.masked_equal(Y, 1),
    np.full(6, 2**63, np.uint64),
    np.full(6, -(2**63)),
    np.full(6, 1e300),
    None,
    "text",
    [[1], [1, 2]],
    [None] * 6,
    object(),
]

BAD: dict[str, list[Any]] = {
    "rate": [*NOT_NUMBERS, *NOT_FINITE, -0.1, None],
    "number of at least 0": [*NOT_NUMBERS, *NOT_FINITE, -0.1, None],
    "finite number": [*NOT_NUMBERS, *NOT_FINITE, None],
    "positive number": [*NOT_NUMBERS, *NOT_FINITE, 0.0, -0.1, None],
    "positive number or None": [*NOT_NUMBERS, *NOT_FINITE, 0.0, -0.1],
    "share": [*NOT_NUMBERS, *NOT_FINITE, -0.1, 1.0, 2, None],
    "share or 1": [*NOT_NUMBERS, *NOT_FINITE, -0.1, 1.1, None],
    "split": [*NOT_NUMBERS, *NOT_FINITE, -0.1, 0.0, 1.0, 0.001, 0.999],
    "count": [*NOT_COUNTS, None],
    "count or None": NOT_COUNTS,
    "axis": [2, -3, 1.5, "0", True, [0]],
    "flag": [None, 0, 1, "no", 0.0, [], NAN],
    "seed": [-1, 1.5, NAN, "x", b"x", True, {}, object()],
    "generator": [3, "x", NAN, np.random.RandomState(0)],
    "optimizer": ["newton", 3, fastnn.SGD, object(), NAN],
    "loss": ["hinge", 3, fastnn.SoftmaxCrossEntropy, None, NAN, np.sin],
    "beside a name": [np.sin, 3],
    "dtype": [None, "thing", np.float16, np.longdouble, int, complex, "i4,,", 3, object],
    "dtype or None": ["thing", np.float16, np.longdouble, int, complex, "i4,,", 3, object],
    "dtype of data": [None, "thing", complex, "i4,,", 3, object, str],
    "backend": ["cupy", "", 3, b"numpy", NAN, ["numpy"]],
    "backend, not None": ["cupy", "", 3, b"numpy", NAN, ["numpy"], None],
    "data set": ["cifar", 3, NAN, b"mnist", ["mnist"]],
    "path": [3, None, 1.5, [], object()],
    "folder": [3, 1.5, [], object()],
    "path or None": [3, 1.5, [], object()],
    "choice": ["stop", 3, None, NAN, True],
    "precision": ["float16", "float32", "", 3, NAN, b"bfloat16", np.float32, ["bfloat16"]],
    "monitor": [3, None, NAN],
    "monitor or None": [3, NAN],
    "mode": ["up", 3, NAN],
    "initializer": ["glorot", 3, None, NAN, np.ones(3)],
    "function": [3, None, "sin", NAN],
    "layers": [None, 3, [3], ["relu"], [fastnn.Dense], fastnn.ReLU(), [fastnn.Dense(4, 3)] * 2],
    "layer": [None, 3, "relu", fastnn.ReLU, fastnn.Dense(4, 3), [fastnn.ReLU()]],
    "network": [None, 3, [], [3], ["relu"], fastnn.Dense(4, 3)],
    "a Network": [None, 3, [], [fastnn.Dense(4, 3)], fastnn.Network],
    "networks": [None, 3, [3], [None], network(), [fastnn.Dense(4, 3)]],
    "blocks": [None, 3, [], [3], [(X,)], [(X, Y, Y)], [(X[:0], Y[:0])], lambda: 3],
    "callbacks": [None, 3, ["print"], [3], "print"],
    "callbacks of each": [3, [3], [["print"]], [[], []], "x"],
    "samples": [*NO_MATRICES, X[:, :3], np.zeros((6, 5))],
    "matrix": NO_MATRICES,
    "labels": [*NO_CLASS_IDS, Y[:5], Y[:0]],
    "labels of 4": [*NO_CLASS_IDS[2:], Y - 1, Y + 4, Y[:5], Y[:0]],
    "class ids": [ids for ids in NO_CLASS_IDS if not isinstance(ids, np.int64)],
    "shares": [*NOT_ARRAYS, X, np.abs(X) * NAN, np.abs(X) + 1, np.abs(X)[:5], None],
    "gradient": [*NOT_ARRAYS, REAL[:5], REAL[:, :2], REAL[0], None, 3.0],
    "numbers like X": [*NOT_ARRAYS, X[:5], X[0], 3.0, None, X[:0]],
    "numbers": [*NOT_ARRAYS, X[:0], None, []],
    "numbers or None": [*NOT_ARRAYS, X[:0], []],
    "rows": [3.0, X[:5], None, object()],
    "images": [*NOT_ARRAYS, X[0], X[:0], X[:, :3], X[np.newaxis, np.newaxis], 3.0, None, []],
    "floats": [*NOT_ARRAYS, X.astype(int), None, X.tolist()],
    "sample weights": [-WEIGHTS, WEIGHTS * NAN, WEIGHTS * INF, 0 * WEIGHTS, WEIGHTS[:5], X, 3.0,
                       WEIGHTS.astype(str), WEIGHTS.astype(complex), 1e308 * WEIGHTS, [[1], [1, 2]],
                       np.ma.masked_equal(WEIGHTS, 1), object()],
    "class weights": ["even", {3: 1.0}, {-1: 1.0}, {0: -1.0}, {0: NAN}, {"a": 1.0}, {0.5: 1.0},
                      {0: "x"}, [1.0, 1.0], [1.0, NAN, 1.0], [-1.0, 1.0, 1.0], [0.0, 0.0, 0.0],
                      3, object(), ["a", "b", "c"]],
    "pair": [X, (X,), (X, Y, Y), 3, "xy", {"X": X, "y": Y}, (X[0], Y), (X, Y + 1), (None, None)],
    "parameters": [None, 3, [], network().get_weights()[:3], [np.zeros(3)] * 4,
                   [array.astype(str) for array in network().get_weights()], ["x"] * 4],
    "state dict": [None, 3, [], {}, {"a": 3}, {"0.weight": np.zeros((5, 4))}, "x"],
    "labels of 3 classes": [3, "abc", b"abc", [0, 1], [2, 1, 0], [0, 0, 1], [0, 1, NAN],
                            [0, 1, INF], [[0, 1, 2]], [[1], [1, 2]], X, {0, 1, 2}, [None] * 3,
                            [1j, 2, 3], [0.5, 1, 2], iter([1]), ["b", "a", "c"], True, object(),
                            np.ma.masked_equal([0, 1, 2], 1)],
    "perceptron of scikit-learn": [
        None, 3, "x", {}, object(), network(), spoilt(coefs_=None), spoilt(coefs_=[]),
        spoilt(coefs_=[X]), spoilt(coefs_=["x", "y"]), spoilt(coefs_=[np.ones((4, 5))] * 2),
        spoilt(coefs_=[np.ones((4, 5)), np.ones(5)]), spoilt(coefs_=[X * 1j, X * 1j]),
        spoilt(coefs_=[np.ones((4, 0)), np.ones((0, 3))]), spoilt(intercepts_=3),
        spoilt(intercepts_=[np.ones(5)]), spoilt(intercepts_=[np.ones(5), np.ones(4)]),
        spoilt(activation="x"), spoilt(activation=None), spoilt(out_activation_="x"),
    ],
    "module": [
        None, 3, "x", {}, object(), network(), [np.ones((3, 4))],
        Made(lambda: module(lambda nn: []).make().__class__),
        Made(lambda: module(lambda nn: [nn.Linear(4, 3)]).make()[0]),
        Made(lambda: module(lambda nn: [nn.Linear(4, 3)]).make().state_dict()),
        module(lambda nn: [nn.Linear(4, 5), nn.Linear(4, 5)]),
        module(lambda nn: [nn.Linear(4, 5), nn.BatchNorm1d(4)]),
        module(lambda nn: [nn.Linear(4, 3).half()]),
        module(lambda nn: [nn.Linear(4, 3), nn.Linear(3, 3).double()]),
        module(lambda nn: [nn.Linear(4, 3, device="meta")]),
        module(lambda nn: [nn.Conv1d(1, 1, 1)]), module(lambda nn: [nn.Bilinear(2, 2, 2)]),
        module(lambda nn: [nn.LazyLinear(3)]), module(lambda nn: [nn.Softmax(1)]),
        module(lambda nn: [nn.Dropout(1.0)]), module(lambda nn: [nn.ELU(NAN)]),
        module(lambda nn: [nn.Linear(0, 3)]), module(lambda nn: [nn.BatchNorm1d(4, eps=0.0)]),
        module(lambda nn: [nn.BatchNorm1d(4, momentum=2.0)]),
        module(lambda nn: [nn.BatchNorm1d(4, momentum=None)]),
    ],
}  # fmt: skip


def arguments_of(entry: str) -> list[str]:
    """Return the names of the arguments of an entry point, but for those that only refuse."""
    call = SIGNATURES.get(entry, ENTRIES[entry][0])
    parameters = inspect.signature(call).parameters.values()
    return [p.name for p in parameters if p.name != "self" and p.kind is not p.VAR_KEYWORD]


def kind_of(entry: str, argument: str) -> str | None:
    """Return which kind of thing an argument is."""
    of = ARGUMENTS.get(f"{entry}.{argument}")
    if argument == "input" and entry in WITHOUT_A_WIDTH:
        of = "matrix"
    return of or ARGUMENTS.get(argument)


CASES = [(entry, argument) for entry in ENTRIES for argument in arguments_of(entry)]


def test_every_public_name_is_here():
    names = set(fastnn.__all__)
    names |= {f"Network.{name}" for name in dir(fastnn.Network) if name[0] != "_"}
    names |= {f"schedules.{kind.__name__}" for kind in schedules.BUILT_IN}
    names |= {
        f"initializers.{name}"
        for name, value in vars(initializers).items()
        if inspect.isfunction(value) and name[0] != "_" and name not in initializers._BY_NAME
    }
    properties = {name for name in names if name.startswith("Network.")}
    properties = {
        name
        for name in properties
        if isinstance(getattr(fastnn.Network, name[len("Network.") :]), property)
    }
    assert names - properties - ENTRIES.keys() - NOTHING_TO_REFUSE == set()


def test_every_argument_has_a_kind():
    missing = [case for case in CASES if kind_of(*case) is None]
    assert missing == []
    assert {kind_of(*case) for case in CASES} == set(BAD)


def refusal(entry: str, argument: str, value: object) -> str | Exception:
    """Return what is said of a value, or the exception that is no refusal."""
    call, good = ENTRIES[entry]
    try:
        call(**{name: made(of) for name, of in {**good, argument: value}.items()})
    except (ValueError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:
        return error
    return "accepted"


@pytest.mark.parametrize(("entry", "argument"), CASES)
@pytest.mark.filterwarnings("ignore")
def test_refused_by_name(entry, argument, tmp_path, monkeypatch):
    """In the same words by both backends, and on both paths."""
    monkeypatch.chdir(tmp_path)
    prepare(entry)
    wrong = []
    for value in BAD[kind_of(entry, argument) or ""]:
        said = []
        for layer_path in (False, True) if entry in OF_BOTH_PATHS else (False,):
            monkeypatch.setitem(TAKEN, "layer path", layer_path)
            for backend in fastnn.available_backends():
                with fastnn.use_backend(backend):
                    said.append(refusal(entry, argument, value))
        named = rf"(TypeError|ValueError): (.*\b)?({argument}|{OTHER_NAMES.get(argument)})\b.*: "
        if len(set(map(str, said))) > 1 or not re.match(named + "(expected|got)", str(said[0])):
            wrong.append(f"{value!r:.60}: {said}"[:400])
    assert wrong == []


MADE = {name: call(**good) for name, (call, good) in ENTRIES.items() if isinstance(call, type)}
ATTRIBUTES = [
    case
    for case in CASES
    if case[0] in MADE and hasattr(MADE[case[0]], case[1]) and kind_of(*case) != "initializer"
]
"""Arguments that are there as attributes afterwards; weights are made by a function, and arrays."""


@pytest.mark.parametrize(("entry", "argument"), ATTRIBUTES)
def test_what_is_set_later_is_refused_as_well(entry, argument, backend):
    """By the same check, or as it is fixed; nothing has changed then."""
    kind, good = ENTRIES[entry]
    thing = kind(**good)
    before = repr(getattr(thing, argument))
    for value in BAD[kind_of(entry, argument) or ""]:
        with pytest.raises((TypeError, ValueError, AttributeError)) as refused:
            setattr(thing, argument, value)
        said = str(refused.value)
        if refused.type is AttributeError:
            assert re.match(rf"(property|{argument}\b).*(has no setter|fixed)", said)
        elif not isinstance(refused.value, AttributeError):  # a schedule is a frozen dataclass
            assert re.match(rf"{argument}\b.*: expected", said)
        assert repr(getattr(thing, argument)) == before


def test_many_attributes_can_be_set():
    assert {(entry, argument) for entry, argument in ATTRIBUTES if "Adam" not in entry} >= {
        *(("Dropout", "p"), ("LeakyReLU", "slope"), ("BatchNorm", "epsilon"), ("Dense", "l2")),
        *(("SGD", "learning_rate"), ("Network", "clip_norm"), ("Activation", "function")),
        *(("EarlyStopping", "patience"), ("ReduceOnPlateau", "factor"), ("Checkpoint", "path")),
    }


OF_BOTH_PATHS = {
    *("Network.fit", "Network.fit_blocks", "Network.train_step", "Network.gradients"),
    *("Network.evaluate", "Network.__call__", "Network.predict", "Network.predict_proba"),
    *("Network.forward", "Network.set_weights"),
}
"""Entry points that compiled epochs or predictions serve, if they know every layer."""


@pytest.mark.skipif("numba" not in fastnn.available_backends(), reason="has no compiled epoch")
def test_both_paths_are_taken(monkeypatch):
    assert network(backend="numba").explain().startswith("compiled")
    monkeypatch.setitem(TAKEN, "layer path", True)
    assert network(backend="numba").explain().startswith("layer path")


OTHER_NAMES = {
    "layers": "layer",
    "networks": "network",
    "loss": "loss_prime",  # which is missing beside a function
    "y_pred": "y_true",  # of another shape
    "learning_rate": "activation",  # which has the same place in other libraries
}
"""By which an argument may be called."""


def prepare(entry: str) -> None:
    """Write the files that an entry point reads; skip it if a package is missing."""
    if entry in NEEDED:
        pytest.importorskip(NEEDED[entry])
    if entry == "load":
        network().save("network.safetensors")
    elif entry == "resume":
        network().fit(X, Y, checkpoint="training.safetensors")


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.filterwarnings("ignore")
def test_what_is_good_is_taken(entry, tmp_path, monkeypatch, backend):
    """Else a refusal might be that of another argument."""
    monkeypatch.chdir(tmp_path)
    prepare(entry)
    call, good = ENTRIES[entry]
    call(**{name: made(value) for name, value in good.items()})


@pytest.mark.parametrize("method", ["to_onnx", "to_torch", "to_sklearn"])
@pytest.mark.parametrize("layers", [[], [fastnn.Activation(np.sin, np.cos)]], ids=["none", "own"])
def test_a_network_that_no_other_library_can_hold(method, layers, tmp_path):
    pytest.importorskip(method.removeprefix("to_"))
    arguments = [tmp_path / "network.onnx"] if method == "to_onnx" else []
    with pytest.raises((TypeError, ValueError), match=r"can't write .* (layer yet|own)"):
        getattr(fastnn.Network(layers), method)(*arguments)
    assert not any(tmp_path.iterdir())


class Subclass(np.ndarray):
    """As other libraries have them."""


def memory_map(array: np.ndarray) -> np.ndarray:
    """Return an array that lies in a file."""
    mapped = np.memmap("array", array.dtype, "w+", shape=array.shape)
    mapped[...] = array
    return np.memmap("array", array.dtype, "r", shape=array.shape)


def spread_out(array: np.ndarray) -> np.ndarray:
    """Return an array with other numbers between its own."""
    wide = np.ones([2 * length for length in array.shape], array.dtype)
    inside = (slice(None, None, 2),) * array.ndim
    wide[inside] = array
    return wide[inside]


def read_only(array: np.ndarray) -> np.ndarray:
    """Return a copy that can't be written to."""
    copy = array.copy()
    copy.flags.writeable = False
    return copy


AS_GOOD: dict[str, Callable[[np.ndarray], Any]] = {
    "read only": read_only,
    "other byte order": lambda array: array.astype(array.dtype.newbyteorder()),
    "negative strides": lambda array: np.flip(np.ascontiguousarray(np.flip(array))),
    "spread out": spread_out,
    "by columns": np.asfortranarray,
    "memory map": memory_map,
    "unaligned": unaligned,
    "subclass": lambda array: array.view(Subclass),
    "masked, but for no element": np.ma.asarray,
    "list": lambda array: array.tolist(),
    "tuples": lambda array: tuple(map(tuple, array)) if array.ndim == 2 else tuple(array),
    "buffer": memoryview,
    "longer floats": lambda array: array.astype(
        np.longdouble if array.dtype.kind == "f" else np.int64
    ),
}
"""What has the same numbers as an array, but lies or is called otherwise."""

ARRAYS = {
    "Network.fit": ("X", "y", "sample_weight"),
    "Network.train_step": ("X", "y", "sample_weight"),
    "Network.gradients": ("X", "y", "sample_weight"),
    "Network.evaluate": ("X", "y", "sample_weight"),
    "Network.predict_proba": ("X",),
    "Dense.backward": ("input", "grad_output"),
    "softmax_crossentropy_with_logits": ("logits", "reference_answers"),
    "binary_crossentropy_with_logits": ("logits", "reference_answers"),
    "mse_prime": ("y_true", "y_pred"),
    "one_hot": ("labels",),
    "normalize": ("values",),
    "standardize": ("values",),
}
"""Arguments that are arrays, of entries that stand for the others."""


@pytest.mark.parametrize("form", AS_GOOD)
@pytest.mark.parametrize("entry", ARRAYS)
@pytest.mark.filterwarnings("ignore")
def test_as_good_as_a_plain_copy(entry, form, tmp_path, monkeypatch, backend):
    """The results have the same bits, or it is refused by name, as longer floats may be.

    But for the means of `standardize`, whose sums go along the memory.
    """
    monkeypatch.chdir(tmp_path)
    call, good = ENTRIES[entry]
    good = {**good, "sample_weight": WEIGHTS} if "sample_weight" in ARRAYS[entry] else good
    expected = parts(call(**good))
    for argument in ARRAYS[entry]:
        value = AS_GOOD[form](good[argument])
        if form == "longer floats" and isinstance(
            said := refused(call, good, argument, value), str
        ):
            assert re.match(rf"({argument}|input and grad_output): expected", said)
            continue
        found = parts(call(**{**good, argument: value}))
        for value, other in zip(found, expected, strict=True):
            assert type(value) is type(other)
            if form == "longer floats" or entry == "standardize":
                np.testing.assert_allclose(value, other, rtol=1e-6)
            else:
                np.testing.assert_array_equal(value, other)


def refused(call: Callable[..., Any], good: dict[str, Any], argument: str, value: Any) -> Any:
    """Return what is said of a value, None where it is taken."""
    try:
        call(**{**good, argument: value})
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def parts(result: Any) -> list[Any]:
    """Return the numbers of a result."""
    if isinstance(result, fastnn.History):
        return [result.loss, result.accuracy]
    if isinstance(result, tuple):
        loss, more = result
        gradients = more if isinstance(more, list) else []
        return [loss, *[array for of_layer in gradients for array in of_layer.values()]]
    return [result]


@pytest.mark.parametrize("shape", ["rows", "columns", "all"])
def test_numbers_that_lie_in_one_place(shape, backend):
    """Of arrays that `np.broadcast_to` made, strides are 0."""
    part = {"rows": X[:1], "columns": X[:, :1], "all": X[:1, :1]}[shape]
    broadcast = np.broadcast_to(part, X.shape)
    labels, weights = np.broadcast_to(np.int64(1), 6), np.broadcast_to(2.0, 6)
    of_broadcast, of_copies = network(), network()
    for _ in range(2):
        found = of_broadcast.fit(broadcast, labels, sample_weight=weights).loss
        expected = of_copies.fit(broadcast.copy(), labels.copy(), sample_weight=weights.copy()).loss
        assert found == expected
        assert of_broadcast.train_step(broadcast, labels) == of_copies.train_step(
            broadcast.copy(), labels.copy()
        )
    for found, expected in zip(of_broadcast.get_weights(), of_copies.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
