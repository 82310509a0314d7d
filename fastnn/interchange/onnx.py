"""Networks as ONNX files, by the onnx package.

A file holds prediction: there is no dropout in it, and batch norm takes its running statistics.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import checks, saving
from fastnn.backends import numpy_backend
from fastnn.interchange.records import Described, described, row
from fastnn.losses import BinaryCrossEntropy, Loss, SoftmaxCrossEntropy

try:
    from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
except ImportError:
    raise ImportError('writing ONNX files needs onnx: pip install "fastnn[onnx]"') from None

if TYPE_CHECKING:
    from fastnn.network import Network

OPSET = 17
"""Of operators: the version of 2022, so that runtimes of some age read the file as well."""

TARGET = "an ONNX file"


def write(network: Network, path: str | PathLike[str], *, probabilities: bool, dtype: Any) -> None:
    """Write `network` to `path`; see `Network.to_onnx`."""
    checks.flag("probabilities", probabilities)
    chosen = network.dtype if dtype is None else checks.float_dtype("dtype", dtype)
    saving.replace_file(path, _model(network, chosen, probabilities).SerializeToString())


class Graph:
    """A graph in the making: operations on values, which are known by name.

    Parameters
    ----------
    dtype
        Of all values.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.nodes: list[NodeProto] = []
        self.arrays: list[TensorProto] = []
        self.prefix = ""
        """How names begin from now on, as those of parameters do in fastnn's own files."""

    def node(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Apply an operator; return the name of its output."""
        output = name or f"{self.prefix}{operator}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def array(self, name: str, values: Any) -> str:
        """Hold an array of numbers; return its name."""
        array = np.ascontiguousarray(values, self.dtype).reshape(np.shape(values))
        self.arrays.append(numpy_helper.from_array(array, self.prefix + name))
        return self.prefix + name

    def number(self, value: float) -> str:
        """Hold a number as an array, as an attribute has float32 alone; return its name."""
        return self.array(f"constant.{len(self.arrays)}", value)


def _model(network: Network, dtype: np.dtype[Any], probabilities: bool) -> ModelProto:
    graph = Graph(dtype)
    value, width = "input", "units"
    for part in described(network, TARGET):
        graph.prefix = f"{part.place}."
        value = row(_LAYERS, part.record.kind, part.layer, TARGET)(graph, part, value)
    graph.prefix = ""
    meanings = {graph.node("Identity", value, name="output"): "What network(X) returns."}
    if probabilities:
        operator = _PROBABILITIES.get(type(network._loss))
        if operator is None:
            raise TypeError(
                "probabilities: expected False for a network with the loss "
                f"{network._loss!r}, under which outputs are no logits, got True"
            )
        name = graph.node(operator, "output", name="probabilities")
        meanings[name] = "What network.predict_proba(X) returns."
    before = next((layer.input_units for layer in network if layer.input_units), width)
    behind = network._width() or width
    of_type = helper.np_dtype_to_tensor_dtype(dtype)
    versions = [helper.make_opsetid("", OPSET)]
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "fastnn",
            [helper.make_tensor_value_info("input", of_type, ["batch", before])],
            [
                helper.make_tensor_value_info(name, of_type, ["batch", behind], meaning)
                for name, meaning in meanings.items()
            ],
            graph.arrays,
        ),
        producer_name="fastnn",
        producer_version=sys.modules["fastnn"].__version__,
        opset_imports=versions,
        ir_version=helper.find_min_ir_version_for(versions),
    )


_PROBABILITIES: dict[type[Loss], str] = {
    SoftmaxCrossEntropy: "Softmax",
    BinaryCrossEntropy: "Sigmoid",
}
"""The operator that makes probabilities of logits."""


def _dense(graph: Graph, part: Described, x: str) -> str:
    layer: Any = part.layer
    weights, biases = (graph.array(name, getattr(layer, name)) for name in ("weights", "biases"))
    return graph.node("Gemm", x, weights, biases)


def _batch_norm(graph: Graph, part: Described, x: str) -> str:
    layer: Any = part.layer
    epsilon = float(np.float32(layer.epsilon))
    # The attribute is a float32. What that takes off an epsilon in float64 goes to the variance.
    variance = np.asarray(layer.running_variance, np.float64) + (layer.epsilon - epsilon)
    values = {
        "scale": layer.scale,
        "shift": layer.shift,
        "running_mean": layer.running_mean,
        "running_variance": variance if graph.dtype == np.float64 else layer.running_variance,
    }
    names = [graph.array(name, value) for name, value in values.items()]
    return graph.node("BatchNormalization", x, *names, epsilon=epsilon)


def _elementwise(graph: Graph, part: Described, x: str) -> str:
    record: Any = part.record
    function = row(_FUNCTIONS, record.function, part.layer, TARGET)
    if graph.dtype == np.float64:
        function = _FUNCTIONS_IN_FLOAT64.get(record.function, function)
    return function(graph, x, *record.constants)


_LAYERS: dict[str, Callable[[Graph, Described, str], str]] = {
    "dense": _dense,
    "batch_norm": _batch_norm,
    "elementwise": _elementwise,
    "dropout": lambda graph, part, x: x,
}
"""How a layer is put into a graph, by the kind of record with which it describes itself."""


def _silu(graph: Graph, x: str) -> str:
    return graph.node("Mul", x, graph.node("Sigmoid", x))


def _gelu(graph: Graph, x: str) -> str:
    """x (1 + erf(x / √2)) / 2."""
    erf = graph.node("Erf", graph.node("Mul", x, graph.number(1 / math.sqrt(2))))
    twice = graph.node("Mul", x, graph.node("Add", erf, graph.number(1)))
    return graph.node("Mul", twice, graph.number(0.5))


def _mish(graph: Graph, x: str) -> str:
    """x n / (n + 2) with n = e (e + 2) and e = exp(x), as tanh(log(1 + e)) = n / (n + 2).

    From x = 20 on the fraction is 1 in float64 as well, so e need not grow any more.
    """
    two = graph.number(2)
    e = graph.node("Exp", graph.node("Min", x, graph.number(20)))
    n = graph.node("Mul", e, graph.node("Add", e, two))
    return graph.node("Mul", x, graph.node("Div", n, graph.node("Add", n, two)))


_FUNCTIONS: dict[str, Callable[..., str]] = {
    "relu": lambda graph, x: graph.node("Relu", x),
    "sigmoid": lambda graph, x: graph.node("Sigmoid", x),
    "tanh": lambda graph, x: graph.node("Tanh", x),
    "leaky_relu": lambda graph, x, slope: graph.node("LeakyRelu", x, alpha=slope),
    "elu": lambda graph, x, alpha: graph.node("Elu", x, alpha=alpha),
    "selu": lambda graph, x: graph.node("Selu", x),
    "silu": _silu,
    "gelu": _gelu,
    "softplus": lambda graph, x: graph.node("Softplus", x),
    "mish": _mish,
    "rescale": lambda graph, x, scale: graph.node("Mul", x, graph.number(scale)),
}
"""The operators of an elementwise function, called with its input and its constants."""


def _leaky_relu_in_float64(graph: Graph, x: str, slope: float) -> str:
    below = graph.node("Mul", graph.node("Min", x, graph.number(0)), graph.number(slope))
    return graph.node("Add", graph.node("Relu", x), below)


def _elu_in_float64(graph: Graph, x: str, alpha: float) -> str:
    """exp(x) - 1 = tanh(x / 2) (exp(x) + 1), in which nothing cancels near 0."""
    below = graph.node("Min", x, graph.number(0))
    tanh = graph.node("Tanh", graph.node("Mul", below, graph.number(0.5)))
    one_more = graph.node("Add", graph.node("Exp", below), graph.number(1))
    scaled = graph.node("Mul", graph.node("Mul", tanh, one_more), graph.number(alpha))
    return graph.node("Add", graph.node("Relu", x), scaled)


def _selu_in_float64(graph: Graph, x: str) -> str:
    elu = _elu_in_float64(graph, x, numpy_backend.SELU_ALPHA)
    return graph.node("Mul", elu, graph.number(numpy_backend.SELU_SCALE))


def _silu_in_float64(graph: Graph, x: str) -> str:
    """x / (1 + exp(-x)): versions of onnxruntime make a product with a sigmoid one of float32."""
    exponential = graph.node("Exp", graph.node("Neg", x))
    return graph.node("Div", x, graph.node("Add", exponential, graph.number(1)))


def _softplus_in_float64(graph: Graph, x: str) -> str:
    """max(0, x) + log(1 + exp(-|x|)), in which nothing overflows."""
    exponential = graph.node("Exp", graph.node("Neg", graph.node("Abs", x)))
    logarithm = graph.node("Log", graph.node("Add", exponential, graph.number(1)))
    return graph.node("Add", graph.node("Relu", x), logarithm)


_FUNCTIONS_IN_FLOAT64: dict[str, Callable[..., str]] = {
    "leaky_relu": _leaky_relu_in_float64,
    "elu": _elu_in_float64,
    "selu": _selu_in_float64,
    "silu": _silu_in_float64,
    "softplus": _softplus_in_float64,
}
"""Functions whose operator onnxruntime does not have in float64, or that takes a float32 constant.

There is none for `gelu`: it lacks Erf in float64, and nothing else makes up for that.
"""
