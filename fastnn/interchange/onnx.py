"""Networks as ONNX files, by the onnx package.

A file holds prediction: there is no dropout in it, and batch norm takes its running statistics.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import checks, extras, saving
from fastnn.interchange.records import Described, described, row, said
from fastnn.losses import BinaryCrossEntropy, Loss, SoftmaxCrossEntropy

try:
    from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
except ImportError:
    raise ImportError(f"writing ONNX files needs onnx: {extras.install('onnx')}") from None

if TYPE_CHECKING:
    from fastnn.network import Network

OPSET = 17
"""Of operators: the version of 2022, so that runtimes of some age read the file as well."""

TARGET = "an ONNX file"


def write(network: Network, path: str | PathLike[str], *, probabilities: bool, dtype: Any) -> None:
    """Write `network` to `path`; see `Network.to_onnx`."""
    checks.file_path("path", path)
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
    layer: Any = part.layer
    formula = said("onnx", layer, TARGET)
    if graph.dtype == np.float64:
        formula = layer._elsewhere.onnx_in_float64 or formula
    return _computed(graph, formula, x, dict(zip(layer._constants, layer._numbers, strict=True)))


def _computed(graph: Graph, formula: str, x: str, constants: dict[str, float]) -> str:
    """Put in a formula as `fastnn.layers.Elsewhere` has it; return the name of its value."""
    values = {"x": x}

    def number(node: ast.expr) -> float:
        found: float = constants[node.id] if isinstance(node, ast.Name) else ast.literal_eval(node)
        return found

    def value(node: ast.expr) -> str:
        match node:
            case ast.Name(id=name) if name in values:
                return values[name]
            case ast.Name() | ast.Constant():
                return graph.number(number(node))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return graph.node("Neg", value(operand))
            case ast.BinOp(left=left, op=operator, right=right):
                return graph.node(_ARITHMETIC[type(operator)], value(left), value(right))
            case ast.Call(func=ast.Name(id=operator), args=arguments, keywords=keywords):
                attributes: Any = {str(word.arg): number(word.value) for word in keywords}
                return graph.node(operator, *map(value, arguments), **attributes)
        raise ValueError(f"expected a formula of operators of ONNX, got {ast.unparse(node)}")

    *named, last = ast.parse(formula).body
    for line in named:
        assert isinstance(line, ast.Assign)
        values[ast.unparse(line.targets[0])] = value(line.value)
    assert isinstance(last, ast.Expr)
    return value(last.value)


_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "Add",
    ast.Sub: "Sub",
    ast.Mult: "Mul",
    ast.Div: "Div",
}
"""The operators of ONNX that Python writes as signs."""

_LAYERS: dict[str, Callable[[Graph, Described, str], str]] = {
    "dense": _dense,
    "batch_norm": _batch_norm,
    "elementwise": _elementwise,
    "dropout": lambda graph, part, x: x,
}
"""How a layer is put into a graph, by the kind of record with which it describes itself."""
