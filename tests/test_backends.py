"""Both backends do the same, and the choice between them works."""

from __future__ import annotations

import compileall
import inspect
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import BATCHES, ROOT, SHAPES, at_the_end_of_memory, once, sum_bound

import fastnn
from fastnn import backends, guards
from fastnn.backends import numpy_backend as reference
from fastnn.backends.numpy_backend import ELEMENTWISE
from fastnn.memory import Layout

pytestmark = [pytest.mark.every_width, pytest.mark.checked_build]


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
    equations = {equation.__name__ for pair in ELEMENTWISE.values() for equation in pair}
    assert len(equations) == 2 * len(ELEMENTWISE)
    for name in fastnn.available_backends():
        offered = operations(backends.load(name))
        assert {key: offered[key] for key in offered if key not in equations} == protocol, name


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
        (
            numba_backend.elementwise_forward("relu", arrange(X)),
            numba_backend.elementwise_forward("relu", X),
        ),
        (
            numba_backend.elementwise_backward("relu", arrange(X), arrange(X)),
            numba_backend.elementwise_backward("relu", X, X),
        ),
        (numba_backend.elementwise_forward("rescale", arrange(X), 0.5), X * dtype.type(0.5)),
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
            ("elementwise_forward", ("relu", X)),
            ("elementwise_backward", ("relu", X, G)),
            ("elementwise_forward", ("rescale", X, 1 / 255)),
            ("elementwise_backward", ("rescale", X, G, 1 / 255)),
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


STEPS = {
    "momentum": ("momentum_step", (0.3, 0.9, False), 1),
    "nesterov": ("momentum_step", (0.3, 0.9, True), 1),
    "rmsprop": ("rmsprop_step", (0.003, 0.999, 1e-8), 1),
    "adam, first step": ("adam_step", (0.003, 0.9, 0.999, 1e-8, 0), 2),
    "adam": ("adam_step", (0.003, 0.9, 0.999, 1e-8, 7), 2),
}
"""Name, numbers, and how many vectors of state, of which the last holds mean squares."""


def step_case(rng, count, states, dtype):
    """Return parameters, a gradient and state, of which nothing is small beside the rest."""
    vectors = rng.choice([-1.0, 1.0], (2 + states, count)) * rng.uniform(
        0.1, 1.0, (2 + states, count)
    )
    vectors[-1] **= 2
    return list(vectors.astype(dtype))


def exact_step(name, vectors, numbers):
    """Return parameters and state after a step in float64, by formulas written once more."""
    theta, g, *state = (vector.astype(np.float64) for vector in vectors)
    if name == "momentum_step":
        rate, mu, nesterov = numbers
        v = mu * state[0] + g
        return [theta - rate * (g + mu * v if nesterov else v), v]
    if name == "rmsprop_step":
        rate, rho, epsilon = numbers
        s = rho * state[0] + (1 - rho) * g * g
        return [theta - rate * g / (np.sqrt(s) + epsilon), s]
    rate, beta1, beta2, epsilon, step = numbers
    m, s = beta1 * state[0] + (1 - beta1) * g, beta2 * state[1] + (1 - beta2) * g * g
    m_hat, s_hat = m / (1 - beta1 ** (step + 1)), s / (1 - beta2 ** (step + 1))
    return [theta - rate * m_hat / (np.sqrt(s_hat) + epsilon), m, s]


def assert_stepped(found, exact, dtype):
    """Every number is of order 1 and a handful of rounded operations away from its neighbours."""
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == dtype
        assert (np.abs(a - b) <= 8 * np.finfo(dtype).eps).all()


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("count", [1, 2, 7, 8, 15, 16, 17, 33, 130, 1003])
def test_steps_of_optimisers(numba_backend, rng, kind, count, dtype):
    name, numbers, states = STEPS[kind]
    vectors = step_case(rng, count, states, dtype)
    exact = exact_step(name, vectors, numbers)
    for module in (reference, numba_backend):
        whole = [np.full(count + 6, np.nan, dtype) for _ in vectors]
        inside = [array[3:-3] for array in whole]
        for target, vector in zip(inside, vectors, strict=True):
            target[...] = vector
        assert getattr(module, name)(*inside, *numbers) is None
        theta, g, *state = inside
        assert_stepped([theta, *state], exact, dtype)
        np.testing.assert_array_equal(g, vectors[1])
        assert all(np.isnan(array[[0, 1, 2, -3, -2, -1]]).all() for array in whole)


@pytest.mark.parametrize("kind", STEPS)
def test_zeros_stay_zeros(numba_backend, kind, dtype):
    # padding between parameters, and a unit that never learned
    name, numbers, states = STEPS[kind]
    for module in (reference, numba_backend):
        vectors = np.zeros((2 + states, 37), dtype)
        getattr(module, name)(*vectors, *numbers)
        assert not vectors.any()


@pytest.mark.parametrize("kind", STEPS)
def test_nan_stays_where_it_is(numba_backend, rng, kind, dtype):
    name, numbers, states = STEPS[kind]
    vectors = step_case(rng, 40, states, dtype)
    vectors[1][5], vectors[1][39] = np.nan, np.inf
    found = []
    for module in (reference, numba_backend):
        copies = [vector.copy() for vector in vectors]
        with np.errstate(invalid="ignore", over="ignore"):
            getattr(module, name)(*copies, *numbers)
        found.append([copies[0], *copies[2:]])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=8 * np.finfo(dtype).eps)
        assert np.isnan(a[5])
        assert np.isfinite(np.delete(a, [5, 39])).all()


@pytest.mark.parametrize("kind", STEPS)
def test_steps_of_any_layout(numba_backend, rng, arrange, kind, dtype):
    name, numbers, states = STEPS[kind]
    vectors = step_case(rng, 99, states, dtype)
    exact = exact_step(name, vectors, numbers)
    arranged = [arrange(vector[np.newaxis])[0] for vector in vectors]
    arranged[1].flags.writeable = False
    getattr(numba_backend, name)(*arranged, *numbers)
    assert_stepped([arranged[0], *arranged[2:]], exact, dtype)


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("shift", [-40, -1, 0, 1])
def test_steps_with_memory_in_common(numba_backend, rng, kind, shift, dtype):
    # A step is taken on what was there before it.
    name, numbers, states = STEPS[kind]
    buffer = rng.uniform(0.1, 1.0, 200).astype(dtype)
    theta, g = buffer[50:150], buffer[50 + shift : 150 + shift]
    state = step_case(rng, 100, states, dtype)[2:]
    exact = exact_step(name, [theta.copy(), g.copy(), *state], numbers)
    getattr(numba_backend, name)(theta, g, *state, *numbers)
    assert_stepped([theta, *state], exact, dtype)


def test_steps_refuse_what_does_not_fit(numba_backend, rng, dtype):
    for name, numbers, states in STEPS.values():
        vectors = step_case(rng, 20, states, dtype)
        for place in range(len(vectors)):
            for wrong in (vectors[place][:-1], np.ones((4, 5), dtype)):
                case = [v.copy() for v in vectors]
                case[place] = wrong
                with pytest.raises(ValueError, match="fit together"):
                    getattr(numba_backend, name)(*case, *numbers)
        for place in (0, *range(2, len(vectors))):
            case = [v.copy() for v in vectors]
            case[place].flags.writeable = False
            with pytest.raises(ValueError, match="read-only"):
                getattr(numba_backend, name)(*case, *numbers)


@pytest.mark.parametrize("count", [1, 7, 16, 63, 64, 65, 1003, 12345])
def test_sum_of_squares(numba_backend, rng, count, dtype):
    x = rng.normal(size=count).astype(dtype)
    exact = (x.astype(np.float64) ** 2).sum()
    bound = sum_bound(count, exact, np.dtype(np.float64))
    for module in (reference, numba_backend):
        for arranged in (x, np.repeat(x, 3)[::3], x[::-1], x[np.newaxis]):
            assert abs(module.sum_of_squares(arranged) - exact) <= bound
        assert type(module.sum_of_squares(x)) is float
        assert np.isnan(module.sum_of_squares(np.append(x, dtype.type(np.nan))))
    large = np.full(17, 1e30, dtype)  # the square of which is no float32
    np.testing.assert_allclose(numba_backend.sum_of_squares(large), 17e60, rtol=1e-6)


def test_add_multiple(numba_backend, rng, arrange, dtype):
    start, source = rng.normal(size=(2, 1003)).astype(dtype)
    exact = start.astype(np.float64) - 0.3 * source.astype(np.float64)
    for module in (reference, numba_backend):
        target = arrange(start[np.newaxis])[0].copy()
        assert module.add_multiple(target, -0.3, arrange(source[np.newaxis])[0]) is None
        bound = sum_bound(2, np.abs(start) + 0.3 * np.abs(source), dtype)
        assert (np.abs(target - exact) <= bound).all()


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


# Kernels: what vectors, tiles, copies and addresses can get wrong


def padded(shape, dtype, filler=np.nan):
    """Return a view of `shape` inside a larger array of `filler`, and that array."""
    whole = np.full((shape[0] + 2, shape[1] + 5), filler, dtype)
    return whole[1:-1, 2:-3], whole


def check_dense(module, X, W, b, G, out):
    """Compare the three products of a layer with float64 ones; `out` holds dW and db."""
    x, w, g = (a.astype(np.float64) for a in (X, W, G))
    for relu in (False, True):
        output = module.dense_forward(X, W, b, relu=relu)
        expected = reference.dense_forward(x, w, b.astype(np.float64), relu=relu)
        bound = sum_bound(W.shape[0] + 1, np.abs(x) @ np.abs(w) + np.abs(b), X.dtype)
        assert (np.abs(output - expected) <= bound).all()
    dX = module.dense_backward(X, W, G, *out)
    bounds = [
        sum_bound(len(w[0]), np.abs(g) @ np.abs(w).T, X.dtype),
        sum_bound(len(x), np.abs(x).T @ np.abs(g), X.dtype),
        sum_bound(len(x), np.abs(g).sum(0), X.dtype),
    ]
    exact = [g @ w.T, x.T @ g, g.sum(0)]
    for found, expected, bound in zip((dX, *out), exact, bounds, strict=True):
        assert found.dtype == X.dtype
        assert (np.abs(found - expected) <= bound).all()


@pytest.mark.parametrize("batch", [1, 3, 4, 5, 65, *once(2, 8, 9, 31, 63, 64)])
@pytest.mark.parametrize("inputs", [1, 9, 257, *once(16, 50)])
@pytest.mark.parametrize("outputs", [1, 10, 17, 48, 49, *once(8, 97)])
def test_products_around_the_widths_of_tiles(numba_backend, rng, batch, inputs, outputs, dtype):
    X, W, b, G = dense_case(rng, batch, (inputs, outputs), dtype)
    (dW, whole), (db, biases) = padded(W.shape, dtype), padded((1, outputs), dtype)
    check_dense(numba_backend, X, W, b, G, (dW, db[0]))
    # not a number beyond the arrays was touched
    dW[...], db[...] = np.nan, np.nan
    assert np.isnan(whole).all()
    assert np.isnan(biases).all()


@pytest.mark.parametrize("shape", [(256, 60), (512, 130), (300, 600)], ids=str)
def test_products_that_copy_blocks(numba_backend, rng, shape, dtype):
    X, W, b, G = dense_case(rng, 130, shape, dtype)
    check_dense(numba_backend, X, W, b, G, (np.empty_like(W), np.empty_like(b)))


@pytest.mark.parametrize("batch", [1, 3, 70])
def test_every_argument_may_have_any_layout(numba_backend, rng, arrange, batch, dtype):
    X, W, b, G = dense_case(rng, batch, (37, 21), dtype)
    b = arrange(b[np.newaxis])[0]
    X, W, G = arrange(X), arrange(W), arrange(G)
    for array in (X, W, b, G):
        array.flags.writeable = False
    dW = arrange(np.full(W.shape, np.nan, dtype))
    db = arrange(np.full((1, 21), np.nan, dtype))[0]
    check_dense(numba_backend, X, W, b, G, (dW, db))

    labels = rng.integers(0, 21, (batch, 1))
    ids = arrange(labels)[:, 0]
    for name in ("softmax_cross_entropy", "softmax_cross_entropy_gradient"):
        operation = getattr(numba_backend, name)
        expected = operation(np.ascontiguousarray(G), labels[:, 0].copy())
        np.testing.assert_array_equal(operation(G, ids), expected)

    parameters, gradient = (arrange(rng.normal(size=(1, 99)).astype(dtype))[0] for _ in range(2))
    expected = parameters - dtype.type(0.3) * gradient
    numba_backend.sgd_step(parameters, gradient, 0.3)
    np.testing.assert_allclose(parameters, expected, rtol=8 * np.finfo(dtype).eps, atol=1e-6)


def test_relu_backward_of_two_layouts(numba_backend, rng, arrange, dtype):
    X, G = rng.normal(size=(2, 19, 23)).astype(dtype)
    expected = reference.elementwise_backward("relu", X, G)
    np.testing.assert_array_equal(
        numba_backend.elementwise_backward("relu", arrange(X), G), expected
    )
    np.testing.assert_array_equal(
        numba_backend.elementwise_backward("relu", X, arrange(G)), expected
    )


def test_long_rows_at_any_start(numba_backend, rng, dtype):
    buffer = rng.normal(size=3000).astype(dtype)
    for start in range(17):
        for rows, columns in ((1, 2000), (2, 1100), (1, 513)):
            X = buffer[start : start + rows * columns].reshape(rows, columns)
            np.testing.assert_array_equal(
                numba_backend.elementwise_forward("rescale", X, 0.5), X * dtype.type(0.5)
            )
            np.testing.assert_array_equal(
                numba_backend.elementwise_forward("relu", X), np.maximum(X, 0)
            )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="protects a page by mprotect")
@pytest.mark.parametrize("shape", [(10, 3), (33, 17), (100, 10), (257, 50)], ids=str)
def test_nothing_is_read_beyond_the_end(numba_backend, rng, shape, dtype):
    for batch in (1, 2, 7, 70):
        X, W, b, G = (at_the_end_of_memory(a) for a in dense_case(rng, batch, shape, dtype))
        out = at_the_end_of_memory(np.empty_like(W)), at_the_end_of_memory(np.empty_like(b))
        check_dense(numba_backend, X, W, b, G, out)
        np.testing.assert_array_equal(
            numba_backend.elementwise_backward("relu", X, X), np.maximum(X, 0)
        )
        labels = at_the_end_of_memory(rng.integers(0, shape[1], batch))
        numba_backend.softmax(G)
        numba_backend.softmax_cross_entropy(G, labels)
        numba_backend.softmax_cross_entropy_gradient(G, labels)
        numba_backend.sgd_step(b, at_the_end_of_memory(b), 0.5)
        numba_backend.sum_of_squares(b)
        for name, numbers, states in STEPS.values():
            vectors = step_case(rng, len(b), states, dtype)
            exact = exact_step(name, vectors, numbers)
            theta, g, *state = map(at_the_end_of_memory, vectors)
            getattr(numba_backend, name)(theta, g, *state, *numbers)
            assert_stepped([theta, *state], exact, dtype)


def test_python_threads_share_nothing(numba_backend, rng, dtype):
    cases = [dense_case(rng, batch, (130, 60), dtype) for batch in (3, 20, 65, 80) * 4]

    def compute(case):
        X, W, b, G = case
        results = []
        for _ in range(3 if guards.CHECKED else 20):  # each call looks at all guards
            dW, db = np.empty_like(W), np.empty_like(b)
            dX = numba_backend.dense_backward(X, W, G, dW, db)
            results.append([numba_backend.dense_forward(X, W, b), dX, dW, db])
        return results

    alone = [compute(case)[0] for case in cases]
    with ThreadPoolExecutor(8) as pool:
        for expected, found in zip(alone, pool.map(compute, cases), strict=True):
            for again in found:
                for a, b in zip(expected, again, strict=True):
                    np.testing.assert_array_equal(a, b)


def test_special_values_of_logits(numba_backend, dtype):
    inf, nan = np.inf, np.nan
    Z = np.zeros((6, 21), dtype)
    Z[0, 3], Z[1, 20], Z[2, 5], Z[3, 0], Z[4] = nan, nan, -inf, inf, -inf
    Z[5] = [1e4, *[-inf] * 20]
    labels = np.array([0, 0, 1, 1, 2, 0])
    with np.errstate(invalid="ignore"):
        for name, arguments in [
            ("softmax", (Z,)),
            ("softmax_cross_entropy", (Z, labels)),
            ("softmax_cross_entropy_gradient", (Z, labels)),
        ]:
            expected = getattr(reference, name)(*arguments)
            found = getattr(numba_backend, name)(*arguments)
            tolerance = 8 * np.finfo(dtype).eps
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_what_does_not_fit_never_reaches_a_kernel(numba_backend, dtype):
    X, W, b = np.ones((4, 3), dtype), np.ones((3, 2), dtype), np.ones(2, dtype)
    G, locked = np.ones((4, 2), dtype), np.ones((3, 2), dtype)
    locked.flags.writeable = False
    calls = [
        lambda: numba_backend.dense_forward(X, W[:2], b),
        lambda: numba_backend.dense_forward(X, W, b[:1]),
        lambda: numba_backend.dense_forward(X[0], W, b),
        lambda: numba_backend.dense_backward(X, W, G[:3], W.copy(), b.copy()),
        lambda: numba_backend.dense_backward(X, W, G, W[:2].copy(), b.copy()),
        lambda: numba_backend.dense_backward(X, W, G, locked, b.copy()),
        lambda: numba_backend.elementwise_backward("relu", X, G),
        lambda: numba_backend.softmax(X[0]),
        lambda: numba_backend.softmax_cross_entropy(G, np.array([0, 1, 2, 0])),
        lambda: numba_backend.softmax_cross_entropy(G, np.array([0, 1, -1, 0])),
        lambda: numba_backend.softmax_cross_entropy_gradient(G, np.array([0, 1])),
        lambda: numba_backend.sgd_step(locked[0], b, 0.1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"fit|broadcast|read-only"):
            call()
    with pytest.raises(TypeError, match="int64"):
        numba_backend.elementwise_forward("rescale", np.ones((2, 2), np.int64), 0.5)


def test_sgd_step_with_memory_in_common(numba_backend, rng, dtype):
    for step in (1, 2, -1):
        start = rng.normal(size=400).astype(dtype)
        found, expected = start.copy(), start.copy()
        numba_backend.sgd_step(found[3:153], found[100:][::step][:150], 0.3)
        reference.sgd_step(expected[3:153], expected[100:][::step][:150], 0.3)
        np.testing.assert_allclose(found, expected, rtol=8 * np.finfo(dtype).eps, atol=1e-6)


@pytest.mark.once
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
        code = "import fastnn; fastnn.Network()"
        monkeypatch.setenv("FASTNN_BACKEND", "fortran")
        run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True)
        expected = "ValueError: FASTNN_BACKEND: expected one of 'numba', 'numpy', got 'fortran'"
        assert run.stderr.strip().endswith(expected)

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


WITHOUT_NUMBA = {
    "a debugger or coverage": ("NUMBA_DISABLE_JIT", "NUMBA_DISABLE_JIT is set"),
    "not installed": ("BROKEN", r"Numba can't be imported (ImportError: Numba needs NumPy 1.0)"),
}


@pytest.mark.once
@pytest.mark.parametrize("how", WITHOUT_NUMBA)
def test_numpy_stands_in_where_numba_compiles_nothing(how, tmp_path):
    """Before, `jit.py` ended in an AttributeError. There is one warning, which says why."""
    variable, reason = WITHOUT_NUMBA[how]
    (tmp_path / "numba").mkdir()
    text = "raise ImportError('Numba needs NumPy 1.0')"
    (tmp_path / "numba/__init__.py").write_text(text)
    program = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import numpy as np, fastnn
    X, y = np.random.default_rng(0).normal(size=(200, 5)), np.arange(200) % 3
    answers = []
    for backend in (None, "numba", "numpy"):
        layers = [fastnn.Dense(5, 4), fastnn.ReLU(), fastnn.Dense(4, 3)]
        network = fastnn.Network(layers, seed=0, backend=backend)
        network.fit(X, y, epochs=2)
        network.train_step(X[:5], y[:5])
        answers.append(network.predict_proba(X).tobytes())
    assert answers[0] == answers[1] == answers[2]
    fastnn.Dense(2, 2).forward(np.ones((1, 2)))
    print(fastnn.Network([fastnn.Dense(5, 3)]).explain())
    from fastnn.cli import main
    assert main(["info"]) == 0
print(*[str(warning.message) for warning in caught], sep="\\n")
"""
    environment = {**os.environ, variable: "1"}
    environment["PYTHONPATH"] = str(ROOT)
    if variable == "BROKEN":
        environment["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
        program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{program}"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("computes in its place") == 1
    assert f"layer path: {reason}" in done.stdout
    assert f"nothing: {reason}" in done.stdout


@pytest.mark.once
def test_without_source_files_numba_joins_the_parts_of_functions(tmp_path):
    """By its own inlining, which takes longer, as there is no text to write them into."""
    shutil.copytree(
        ROOT / "fastnn", tmp_path / "fastnn", ignore=shutil.ignore_patterns("__pycache__", "data")
    )
    compileall.compile_dir(tmp_path / "fastnn", quiet=1, legacy=True)
    for source in (tmp_path / "fastnn").rglob("*.py"):
        source.unlink()
    program = "import numpy as np, fastnn; print(fastnn.Dense(3, 2).forward(np.ones((1, 3))).shape)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.stdout == "(1, 2)\n", done.stderr
    assert done.stderr == ""
