"""Both backends do the same, and the choice between them works."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import BATCHES, ROOT, SHAPES, sum_bound

import fastnn
from fastnn import backends
from fastnn.backends import numpy_backend as reference
from fastnn.memory import Layout


def operations(module) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(function)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


def test_both_have_the_operations_of_the_protocol():
    protocol = {
        name: inspect.signature(function)
        for name, function in inspect.getmembers(backends.Backend, inspect.isfunction)
        if not name.startswith("_")
    }
    assert set(protocol) >= {"dense_forward", "dense_backward", "softmax_cross_entropy"}
    for name in fastnn.available_backends():
        assert operations(backends.load(name)) == protocol, name


@pytest.fixture
def numba_backend():
    return backends.load("numba")


@pytest.fixture(params=["contiguous", "strided", "reversed", "unaligned", "fortran"])
def arrange(request):
    """Return a function that lays an array out as a user might have it."""

    def lay_out(array: np.ndarray) -> np.ndarray:
        if request.param == "strided":
            wide = np.full((array.shape[0] * 2, array.shape[1] * 3), np.nan, array.dtype)
            wide[::2, ::3] = array
            return wide[::2, ::3]
        if request.param == "reversed":
            return np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]
        if request.param == "unaligned":
            buffer = np.empty(array.nbytes + 1, np.uint8)
            copy = buffer[1:].view(array.dtype).reshape(array.shape)
            copy[...] = array
            return copy
        return np.asarray(array, order="F" if request.param == "fortran" else "C")

    return lay_out


def dense_case(rng, batch, shape, dtype):
    """Return X, W, b, G, with W in the padded layout and its padding poisoned."""
    inputs, outputs = shape
    layout = Layout({"weights": shape, "biases": (outputs,)}, dtype)
    vector = np.full(layout.size, np.nan, dtype)
    W, b = layout.view(vector, "weights"), layout.view(vector, "biases")
    W[...] = rng.normal(size=W.shape)
    b[...] = rng.normal(size=b.shape)
    X = rng.normal(size=(batch, inputs)).astype(dtype)
    return X, W, b, rng.normal(size=(batch, outputs)).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("relu", [False, True], ids=["affine", "relu"])
def test_dense_forward(numba_backend, rng, batch, shape, dtype, relu):
    X, W, b, _ = dense_case(rng, batch, shape, dtype)
    expected = reference.dense_forward(*(a.astype(np.float64) for a in (X, W, b)), relu=relu)
    bound = sum_bound(shape[0] + 1, np.abs(X) @ np.abs(W) + np.abs(b), dtype)
    for module in (reference, numba_backend):
        output = module.dense_forward(X, W, b, relu=relu)
        assert output.dtype == dtype
        assert (np.abs(output - expected) <= bound).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("batch", BATCHES)
def test_dense_backward(numba_backend, rng, batch, shape, dtype):
    X, W, _, G = dense_case(rng, batch, shape, dtype)
    exact = [a.astype(np.float64) for a in (X, W, G)]
    for module in (reference, numba_backend):
        layout = Layout({"weights": shape, "biases": shape[1:]}, dtype)
        gradient = np.full(layout.size, np.nan, dtype)
        dW, db = layout.view(gradient, "weights"), layout.view(gradient, "biases")
        dX = module.dense_backward(X, W, G, dW, db)
        bound = sum_bound(shape[1], np.abs(G) @ np.abs(W).T, dtype)
        assert (np.abs(dX - exact[2] @ exact[1].T) <= bound).all()
        bound = sum_bound(batch, np.abs(X).T @ np.abs(G), dtype)
        assert (np.abs(dW - exact[0].T @ exact[2]) <= bound).all()
        assert (np.abs(db - exact[2].sum(0)) <= sum_bound(batch, np.abs(G).sum(0), dtype)).all()
        again = np.empty_like(dW), np.empty_like(db)
        assert module.dense_backward(X, W, G, *again, input_gradient=False) is None
        np.testing.assert_array_equal(again[0], dW)


def test_layout_of_a_users_arrays(numba_backend, rng, arrange, dtype):
    X, W, b, G = dense_case(rng, 9, (21, 13), dtype)
    grads = [(np.empty_like(W), np.empty_like(b)) for _ in range(2)]
    pairs = [
        (numba_backend.dense_forward(arrange(X), W, b), numba_backend.dense_forward(X, W, b)),
        (
            numba_backend.dense_backward(arrange(X), W, arrange(G), *grads[0]),
            numba_backend.dense_backward(X, W, G, *grads[1]),
        ),
        grads[0][:1] + grads[1][:1],
        (numba_backend.relu_forward(arrange(X)), numba_backend.relu_forward(X)),
        (numba_backend.relu_backward(arrange(X), arrange(X)), numba_backend.relu_backward(X, X)),
        (numba_backend.rescale(arrange(X), 0.5), X * dtype.type(0.5)),
        (numba_backend.softmax(arrange(X)), numba_backend.softmax(X)),
    ]
    for arranged, plain in pairs:
        np.testing.assert_array_equal(arranged, plain)


def test_elementwise_operations_agree_to_the_bit(numba_backend, rng, dtype):
    X, _, _, _ = dense_case(rng, 33, (37, 1), dtype)
    X[0, :6] = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30]
    G = rng.normal(size=X.shape).astype(dtype)
    with np.errstate(invalid="ignore"):
        for name, arguments in [
            ("relu_forward", (X,)),
            ("relu_backward", (X, G)),
            ("rescale", (X, 1 / 255)),
        ]:
            expected = getattr(reference, name)(*arguments)
            np.testing.assert_array_equal(getattr(numba_backend, name)(*arguments), expected)


def test_sgd_step(numba_backend, rng, dtype):
    start, gradient = rng.normal(size=(2, 1003)).astype(dtype)
    results = []
    for module in (reference, numba_backend):
        parameters = start.copy()
        assert module.sgd_step(parameters, gradient, 0.3) is None
        results.append(parameters)
    bound = sum_bound(2, np.abs(start) + 0.3 * np.abs(gradient), dtype)
    assert (np.abs(results[0] - results[1]) <= bound).all()
    assert not np.array_equal(results[1], start)


@pytest.mark.parametrize("shape", [(1, 1), (1, 10), (7, 3), (33, 17), (5, 130)], ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_softmax_family(numba_backend, rng, shape, scale, dtype):
    Z = (scale * rng.normal(size=shape)).astype(dtype)
    labels = rng.integers(0, shape[1], shape[0])
    eps = np.finfo(dtype).eps
    # exp turns an absolute error of its argument into a relative one of its value. Rounding of
    # the difference to the maximum is at most eps/2 of it, and below -104 (float32) exp is 0.
    relative = (shape[1] + 2 * min(np.ptp(Z), 750.0) + 8) * eps
    exact = Z.astype(np.float64)
    for module in (reference, numba_backend):
        np.testing.assert_allclose(
            module.softmax(Z), reference.softmax(exact), rtol=relative, atol=np.finfo(dtype).tiny
        )
        expected = reference.softmax_cross_entropy(exact, labels)
        np.testing.assert_allclose(
            module.softmax_cross_entropy(Z, labels), expected, rtol=relative, atol=relative
        )
        expected = reference.softmax_cross_entropy_gradient(exact, labels)
        gradient = module.softmax_cross_entropy_gradient(Z, labels)
        np.testing.assert_allclose(gradient, expected, rtol=relative, atol=relative / shape[0])


class TestChoice:
    def test_default_is_numba(self):
        code = "import fastnn; print(fastnn.get_backend())"
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True
        )
        assert run.stdout.strip() == "numba"

    def test_environment(self, monkeypatch):
        code = "import fastnn; print(fastnn.get_backend(), fastnn.Network().backend)"
        monkeypatch.setenv("FASTNN_BACKEND", "numpy")
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True
        )
        assert run.stdout.split() == ["numpy", "numpy"]

    def test_unknown_name_in_environment(self, monkeypatch):
        monkeypatch.setenv("FASTNN_BACKEND", "fortran")
        with pytest.raises(ValueError, match=r"FASTNN_BACKEND.*'numba', 'numpy'.*'fortran'"):
            fastnn.Network()

    def test_context_nests_and_ends(self):
        before = fastnn.get_backend()
        with fastnn.use_backend("numpy"):
            assert fastnn.get_backend() == "numpy"
            with fastnn.use_backend("numba"):
                assert fastnn.Network().backend == "numba"
            assert fastnn.get_backend() == "numpy"
        assert fastnn.get_backend() == before

    def test_context_is_of_one_thread(self):
        seen = []
        with fastnn.use_backend("numpy"):
            thread = threading.Thread(target=lambda: seen.append(fastnn.get_backend()))
            thread.start()
            thread.join()
        assert seen == ["numba"]

    def test_set_backend(self):
        before = fastnn.get_backend()
        try:
            fastnn.set_backend("numpy")
            assert fastnn.get_backend() == "numpy"
        finally:
            fastnn.set_backend(before)

    @pytest.mark.parametrize(
        "choose",
        [
            fastnn.set_backend,
            lambda name: fastnn.use_backend(name).__enter__(),
            lambda name: fastnn.Network(backend=name),
        ],
        ids=["set_backend", "use_backend", "Network"],
    )
    def test_unknown_name(self, choose):
        with pytest.raises(ValueError, match="'numba', 'numpy', got 'cuda'"):
            choose("cuda")
        with pytest.raises(TypeError, match="got 3"):
            choose(3)

    def test_a_network_keeps_its_backend(self):
        network = fastnn.Network([fastnn.Dense(2, 2)], backend="numpy")
        with fastnn.use_backend("numba"):
            assert network[0]._backend is reference
