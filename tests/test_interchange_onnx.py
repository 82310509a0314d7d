"""Networks in ONNX files, which onnxruntime computes as fastnn does."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from conftest import BATCHES, sum_bound
from elementwise import ROWS

import fastnn
from fastnn import BatchNorm, Dense, Dropout, Network, ReLU, Rescaling
from fastnn.layers import Elsewhere

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
reference = pytest.importorskip("onnx.reference")
op_run = pytest.importorskip("onnx.reference.op_run")

KNOWN = [row for row in ROWS if row.layer._elsewhere.onnx]


def written(network: Network, folder, **options) -> onnx.ModelProto:
    """Return the model that `to_onnx` writes, which the checker has found nothing wrong with."""
    path = folder / "network.onnx"
    network.to_onnx(path, **options)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    return model


def computed(model: onnx.ModelProto, X: np.ndarray, names=("output",)) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(list(names), {"input": X})


class Erf(op_run.OpRun):
    """In place of that of onnx.reference, which rounds to float32."""

    op_domain = ""

    def _run(self, x):
        return (np.vectorize(math.erf, otypes=[x.dtype])(x),)


def logit_bound(network: Network, X: np.ndarray) -> np.ndarray:
    """Return how far two computations of a network of dense layers and ReLU may be apart."""
    values, error = np.abs(X).astype(np.float64), np.zeros(X.shape)
    for layer in network:
        if isinstance(layer, Dense):
            weights, biases = (np.abs(a, dtype=np.float64) for a in (layer.weights, layer.biases))
            values = values @ weights + biases
            error = error @ weights + sum_bound(layer.input_units + 1, values, network.dtype)
    return 2 * error


def test_the_whole_test_set(reader, tmp_path):
    *_, X, _ = fastnn.load_dataset(flatten=True)
    assert X.shape == (10_000, 784)
    model = written(reader, tmp_path, probabilities=True)
    logits, probabilities = computed(model, X.astype(np.float32), ("output", "probabilities"))
    bound = logit_bound(reader, X)
    assert logits.dtype == np.float32
    assert (np.abs(logits - reader(X)) <= bound).all()
    # p changes by no more than the logits do, and the sum of ten exponentials is rounded
    wide = bound.max(axis=1, keepdims=True) + sum_bound(10, np.ones(1), np.dtype(np.float32))
    assert (np.abs(probabilities - reader.predict_proba(X)) <= wide).all()
    second, first = np.sort(logits, axis=1)[:, -2:].T
    sure = first - second > 2 * bound.max(axis=1)
    assert sure.mean() > 0.95
    np.testing.assert_array_equal(logits.argmax(axis=1)[sure], reader.predict(X)[sure])


@pytest.mark.parametrize("row", KNOWN, ids=lambda row: repr(row.layer))
def test_each_function(row, dtype, tmp_path):
    X = np.linspace(-25, 25, 3003).astype(dtype).reshape(-1, 3)
    X[0] = 0, -0.0, np.finfo(dtype).eps
    network = Network([type(row.layer)(*row.layer._numbers)], dtype=dtype)
    model = written(network, tmp_path)
    if (row.layer._function, dtype) == ("gelu", np.float64):  # which onnxruntime has not
        evaluator = reference.ReferenceEvaluator(model, new_ops=[Erf])
        (output,) = evaluator.run(["output"], {"input": X})
    else:
        (output,) = computed(model, X)
    assert output.dtype == dtype
    # 1 + erf(x) and log(1 + exp(x)) are rounded where they are near 1, and so is exp(x) near 0
    bound = 8 * np.finfo(dtype).eps * np.maximum(1, np.abs(X))
    assert (np.abs(output - network(X)) <= bound).all()


def test_every_kind_of_layer(backend, dtype, rng, tmp_path):
    layers = [Rescaling(1 / 255), Dense(20, 7), BatchNorm(7, epsilon=1e-3), fastnn.Tanh()]
    layers += [Dropout(0.5), fastnn.Layer(), Dense(7, 5), BatchNorm(5), fastnn.LeakyReLU(0.3)]
    network = Network([*layers, Dense(5, 3)], dtype=dtype, seed=0)
    X = rng.uniform(0, 255, (64, 20)).astype(dtype)
    network.fit(X, rng.integers(0, 3, 64), epochs=3)
    model = written(network, tmp_path, probabilities=True)
    assert not {"Dropout"} & {node.op_type for node in model.graph.node}
    for batch in BATCHES:
        some = X[:batch]
        output, probabilities = computed(model, some, ("output", "probabilities"))
        bound = 200 * np.finfo(dtype).eps  # longest sum 20, factors of about 1 from there on
        np.testing.assert_allclose(output, network(some), rtol=bound, atol=bound)
        np.testing.assert_allclose(probabilities, network.predict_proba(some), atol=bound)


def test_a_small_variance_beside_epsilon(tmp_path):
    network = Network([BatchNorm(2, epsilon=1e-5)], dtype=np.float64)
    network[0].running_variance = [0.0, 1e-9]
    X = np.array([[1.0, -3.0], [0.1, 0.7]])
    (output,) = computed(written(network, tmp_path), X)
    np.testing.assert_allclose(output, network(X), rtol=1e-14)


def test_what_a_file_says_of_itself(tmp_path):
    model = written(Network([Dense(4, 3), ReLU(), Dense(3, 2)], seed=0), tmp_path)
    assert (model.producer_name, model.producer_version) == ("fastnn", fastnn.__version__)
    names = [tensor.name for tensor in model.graph.initializer]
    assert names == ["0.weights", "0.biases", "2.weights", "2.biases"]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (given,), (output,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("input", "tensor(float)", ["batch", 4])
    assert (output.name, output.shape) == ("output", ["batch", 2])


def test_another_dtype(tmp_path, rng):
    network = Network([Dense(4, 5), fastnn.GELU(), Dense(5, 2)], dtype=np.float64, seed=0)
    X = rng.standard_normal((9, 4))
    (output,) = computed(written(network, tmp_path, dtype="float32"), X.astype(np.float32))
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, network(X), rtol=1e-5, atol=1e-6)


def test_a_regression(tmp_path, rng):
    network = Network([Dense(4, 1)], loss="mse", seed=0)
    X = rng.standard_normal((9, 4)).astype(np.float32)
    (output,) = computed(written(network, tmp_path), X)
    np.testing.assert_allclose(output, network.predict(X), rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match=r"probabilities: expected False for .* 'mse'"):
        network.to_onnx(tmp_path / "none.onnx", probabilities=True)
    assert not (tmp_path / "none.onnx").exists()


def test_yes_or_no(tmp_path, rng):
    network = Network([Dense(4, 3)], loss="binary_cross_entropy", seed=0)
    X = rng.standard_normal((9, 4)).astype(np.float32)
    (found,) = computed(written(network, tmp_path, probabilities=True), X, ["probabilities"])
    np.testing.assert_allclose(found, network.predict_proba(X), rtol=1e-5)


class Sine(fastnn.Layer):
    def forward(self, input):
        return np.sin(input)


@pytest.mark.parametrize(
    ("layer", "name"),
    [(Sine(), r"Sine\(\)"), (fastnn.Activation(np.sin, np.cos), r"Activation\(sin, cos\)")],
)
def test_a_layer_of_a_users(layer, name, tmp_path):
    network = Network([Dense(4, 3), layer])
    with pytest.raises(TypeError, match=f"{name} into an ONNX file: it is not one of fastnn's own"):
        network.to_onnx(tmp_path / "none.onnx")


def test_a_function_that_says_nothing_of_onnx(tmp_path, monkeypatch):
    monkeypatch.setattr(fastnn.Mish, "_elsewhere", Elsewhere(torch="Mish()"))
    with pytest.raises(
        TypeError, match=r"write Mish\(\) into an ONNX file: expected one of ReLU, "
    ):
        Network([fastnn.Mish()]).to_onnx(tmp_path / "none.onnx")
    assert not (tmp_path / "none.onnx").exists()


def test_a_formula(dtype, tmp_path, monkeypatch):
    formula = "below = Min(x, 0); -alpha * below + Clip(x, 0, 2.5) / 2 - LeakyRelu(x, alpha=0.25)"
    monkeypatch.setattr(fastnn.ELU, "_elsewhere", Elsewhere(onnx=formula))
    network = Network([fastnn.ELU(1.5)], dtype=dtype)
    X = np.array([[-2, -0.5, 0, 1, 4]], dtype)
    evaluator = reference.ReferenceEvaluator(written(network, tmp_path))
    (output,) = evaluator.run(["output"], {"input": X})
    assert output.dtype == dtype
    np.testing.assert_array_equal(output, [[3.5, 0.875, 0, -0.5, -2.75]])
    monkeypatch.setattr(fastnn.ELU, "_elsewhere", Elsewhere(onnx="x if alpha else 0"))
    with pytest.raises(ValueError, match="expected a formula of operators of ONNX, got x if alpha"):
        network.to_onnx(tmp_path / "none.onnx")


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="no layer yet"):
        Network().to_onnx(tmp_path / "none.onnx")
    network = Network([Dense(4, 3)])
    with pytest.raises(TypeError, match="dtype: expected float32 or float64"):
        network.to_onnx(tmp_path / "none.onnx", dtype="float16")
    with pytest.raises(TypeError, match="probabilities"):
        network.to_onnx(tmp_path / "none.onnx", probabilities="yes")
    with pytest.raises(OSError, match="none"):
        network.to_onnx(tmp_path / "none" / "network.onnx")


def test_without_onnx(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "fastnn.interchange.onnx", raising=False)
    monkeypatch.delattr("fastnn.interchange.onnx", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match="pip install onnx"):
        Network([Dense(4, 3)]).to_onnx(tmp_path / "none.onnx")
