"""Elementwise layers: values, derivatives, and all that a layer does in a network, by one table."""

from __future__ import annotations

import ast
import inspect
import itertools
import sys

import numpy as np
import pytest
from conftest import BATCHES, ROOT, at_the_end_of_memory, sum_bound
from elementwise import BY_NAME, ROWS, Row, each_row

import fastnn
from fastnn import Dense, Network, layers
from fastnn.backends import numpy_backend as reference
from fastnn.backends.numba_backend.kernels.activations import FORMULAS
from fastnn.layers import Elementwise

pytestmark = pytest.mark.every_width

UNITS = (1, 5, 16, 17, 33, 64, 129, 300)
"""Less than a vector, whole ones, groups of them, and one more than each."""

of_each_row = pytest.mark.parametrize("row", **each_row)


def both(numba_backend, name, *arguments):
    return [getattr(module, name)(*arguments) for module in (reference, numba_backend)]


def sizes() -> list[tuple[int, int]]:
    return list(itertools.product(BATCHES, UNITS))


def backends_of(row: Row, numba_backend):
    """Both backends, and how far each may be off beside the other."""
    return [(numba_backend, np.ones_like), (reference, row.condition)]


def numbers(row: Row) -> tuple[float, ...]:
    return row.layer._numbers


def unit_in_the_last_place(exact, dtype):
    return np.spacing(np.abs(exact).astype(dtype)).astype(np.longdouble)


def floor(x, dtype):
    """What is lost where an exponential is below the smallest normal number, and is 0."""
    return 2 * float(np.finfo(dtype).tiny) * np.maximum(1, np.abs(x))


def test_the_table_is_whole():
    classes = {kind for kind in layers.BUILT_IN if issubclass(kind, Elementwise)}
    assert {type(row.layer) for row in ROWS} == classes
    assert set(BY_NAME) == set(FORMULAS) == set(reference.ELEMENTWISE)
    for name, row in BY_NAME.items():
        argument = "output" if row.layer._from_output else "input"
        forward, backward = reference.ELEMENTWISE[name]
        constants = row.layer._constants
        assert tuple(inspect.signature(forward).parameters) == ("input", *constants)
        assert tuple(inspect.signature(backward).parameters) == (
            argument, "grad_output", *constants
        )  # fmt: skip
        formula = FORMULAS[name]
        assert formula.constants == len(constants)
        value = list(inspect.signature(formula.backward).parameters)[1]
        assert value == ("y" if row.layer._from_output else "x")


def test_an_activation_stands_in_few_files():
    """Its equation, its formula, its class; `special.py` has another function in a comment."""
    inside = ROOT / "fastnn"
    texts = {path for kind in ("py", "html") for path in inside.rglob(f"*.{kind}")}
    found = {path for path in texts if "tanh" in path.read_text("utf-8").lower()}
    assert {path.relative_to(inside).as_posix() for path in found} <= {
        "__init__.py",
        "activations.py",
        "backends/numpy_backend.py",
        "backends/numba_backend/kernels/activations.py",
        "backends/numba_backend/kernels/special.py",
    }


@pytest.mark.once
@of_each_row
def test_what_a_class_says_of_other_libraries(row):
    known = set(row.layer._constants)
    elsewhere = row.layer._elsewhere
    if row.torch:
        assert elsewhere.torch.startswith(row.torch.partition("(")[0] + "(")
    for text in (elsewhere.torch, elsewhere.onnx, elsewhere.onnx_in_float64):
        tree = ast.parse(text)
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call)}
        named = {ast.unparse(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)}
        assert names - called - named - {"x"} == (known if text else set())


@pytest.mark.without_fma
@pytest.mark.parametrize("size", [1e-30, 1e-3, 0.3, 3.0, 30.0, 1000.0])
@of_each_row
def test_values(numba_backend, rng, row, size, dtype):
    X = (size * rng.uniform(-1, 1, (33, 129))).astype(dtype)
    exact = row.exact(X.astype(np.longdouble))
    unit = unit_in_the_last_place(exact, dtype)
    for backend, condition in backends_of(row, numba_backend):
        output = backend.elementwise_forward(row.layer._function, X, *numbers(row))
        assert output.dtype == dtype
        bound = row.ulps * unit * condition(X.astype(np.longdouble)) + floor(X, dtype)
        assert (np.abs(output - exact) <= bound).all()


@pytest.mark.without_fma
@pytest.mark.parametrize("size", [1e-30, 1e-3, 0.3, 3.0, 30.0, 1000.0])
@of_each_row
def test_derivatives(numba_backend, rng, row, size, dtype):
    X = (size * rng.uniform(-1, 1, (33, 129))).astype(dtype)
    G = rng.normal(size=X.shape).astype(dtype)
    x, g = X.astype(np.longdouble), G.astype(np.longdouble)
    summands = [g * summand for summand in row.slope(x)]
    exact, magnitude = sum(summands), sum(map(np.abs, summands))
    for backend, condition in backends_of(row, numba_backend):
        value = X
        if row.layer._from_output:
            value = backend.elementwise_forward(row.layer._function, X, *numbers(row))
        found = backend.elementwise_backward(row.layer._function, value, G, *numbers(row))
        assert found.dtype == dtype
        bound = row.slope_ulps * unit_in_the_last_place(magnitude, dtype) * condition(x)
        assert (np.abs(found - exact) <= bound + np.abs(g) * floor(X, dtype)).all()


@of_each_row
def test_both_backends_at_all_sizes(numba_backend, rng, row, dtype):
    name, constants = row.layer._function, numbers(row)
    for shape in sizes():
        X, G = rng.normal(size=(2, *shape)).astype(dtype)
        for ours, theirs in [
            (numba_backend.elementwise_forward, reference.elementwise_forward),
            (numba_backend.elementwise_backward, reference.elementwise_backward),
        ]:
            arguments = (X,) if ours is numba_backend.elementwise_forward else (X, G)
            found = ours(name, *arguments, *constants)
            expected = theirs(name, *arguments, *constants)
            assert found.dtype == expected.dtype == dtype
            # of normally distributed numbers, none of which is above 6
            bound = 40 * max(row.ulps, row.slope_ulps) * np.finfo(dtype).eps
            np.testing.assert_allclose(found, expected, rtol=bound, atol=6 * bound)


@pytest.mark.parametrize("rows", [1, 100])  # few elements take another way than many
@of_each_row
def test_special_values(backend, row, rows, dtype):
    top = np.finfo(dtype).max / 2
    special = np.array([0.0, -0.0, 1e-40, -1e-40, 1e4, -1e4, top, -top, np.inf, -np.inf], dtype)
    X = np.tile(special, (rows, 1))
    with np.errstate(all="raise", under="ignore", over="ignore"):
        output = row.layer.forward(X)
        slope = row.layer.backward(X, np.ones_like(X))
    assert np.isfinite(output[:, :8]).all()
    assert np.isfinite(slope).all()
    assert not np.isnan(output).any()
    # infinity is where very large numbers lead
    far = row.layer.forward(X[:, 4:6])
    for sign, j in ((0, 8), (1, 9)):
        limit = output[:, j]
        grows = np.abs(far[:, sign]) > 100
        expected = np.where(grows, np.copysign(np.inf, far[:, sign]), far[:, sign])
        np.testing.assert_array_equal(limit, expected)
        np.testing.assert_array_equal(slope[:, j], slope[:, 4 + sign])
    assert np.isnan(row.layer.forward(np.full((rows, 5), np.nan, dtype))).all()


@pytest.mark.without_fma
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("batch", BATCHES)
def test_derivatives_from_outputs(numba_backend, rng, batch, units, dtype):
    Y, G = rng.uniform(-1, 1, (2, batch, units)).astype(dtype)
    y, g = Y.astype(np.float64), G.astype(np.float64)
    for name, exact, magnitude in [
        ("tanh", g * (1 - y * y), np.abs(g)),
        ("sigmoid", g * y * (1 - y), np.abs(g * y) * (1 + np.abs(y))),
    ]:
        for found in both(numba_backend, "elementwise_backward", name, Y, G):
            assert found.dtype == dtype
            assert (np.abs(found - exact) <= sum_bound(2, magnitude, dtype)).all()


@pytest.mark.parametrize("rows", [1, 100])  # few elements take another way than many
def test_special_values_of_sigmoid_and_tanh(numba_backend, rows, dtype):
    row = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e4, -1e4, 1e-40], dtype)
    X = np.tile(row, (rows, 1))
    for found in both(numba_backend, "elementwise_forward", "tanh", X):
        expected = [0, 0, 1, -1, np.nan, 1, -1, row[7]]
        np.testing.assert_array_equal(found, np.tile(expected, (rows, 1)))
        np.testing.assert_array_equal(np.signbit(found[:, :2]), [[False, True]] * rows)
    for found in both(numba_backend, "elementwise_forward", "sigmoid", X):
        expected = [0.5, 0.5, 1, 0, np.nan, 1, 0, 0.5]
        np.testing.assert_array_equal(found, np.tile(expected, (rows, 1)))


@of_each_row
def test_no_memory_but_its_own(numba_backend, rng, row, dtype, arrange):
    name, constants = row.layer._function, numbers(row)
    for shape in [(1, 1), (1, 19), (9, 1), (19, 23), (5, 70)]:
        X, G = rng.normal(size=(2, *shape)).astype(dtype)
        expected = numba_backend.elementwise_forward(name, X, *constants)
        slope = numba_backend.elementwise_backward(name, X, G, *constants)
        arranged = arrange(X), arrange(G)
        for array in arranged:
            array.flags.writeable = False
        for result, found in [
            (expected, numba_backend.elementwise_forward(name, arranged[0], *constants)),
            (slope, numba_backend.elementwise_backward(name, *arranged, *constants)),
        ]:
            np.testing.assert_array_equal(found, result)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="protects a page by mprotect")
@of_each_row
def test_nothing_is_read_beyond_the_end(numba_backend, rng, row, dtype):
    name, constants = row.layer._function, numbers(row)
    for shape in sizes():
        X, G = (at_the_end_of_memory(rng.normal(size=shape).astype(dtype)) for _ in range(2))
        numba_backend.elementwise_forward(name, X, *constants)
        numba_backend.elementwise_backward(name, X, G, *constants)


@pytest.mark.once
@pytest.mark.parametrize("other", [np.int32, np.float16, ">f4", ">f8"])
@of_each_row
def test_other_dtypes_are_refused(numba_backend, row, other):
    with pytest.raises(TypeError, match="float32 or float64"):
        numba_backend.elementwise_forward(
            row.layer._function, np.ones((4, 3), other), *numbers(row)
        )


@pytest.mark.once
@of_each_row
def test_values_of_pytorch(backend, rng, row, dtype):
    torch = pytest.importorskip("torch")
    if not row.torch:
        pytest.skip("PyTorch has no such module")
    module = eval(f"torch.nn.{row.torch}", {"torch": torch})
    X = np.linspace(-15, 15, 3003).astype(dtype).reshape(3, -1)
    given = torch.from_numpy(X.copy()).requires_grad_()
    output = module(given)
    output.sum().backward()
    bound = 20 * np.finfo(dtype).eps
    if row.torch == "Softplus()":  # which is x above 20, and rounds 1 + exp(x)
        bound *= 10
    expected, slope = output.detach().numpy(), given.grad.numpy()
    np.testing.assert_allclose(row.layer.forward(X), expected, rtol=bound, atol=bound)
    np.testing.assert_allclose(row.layer.backward(X, np.ones_like(X)), slope, atol=bound)


# in a network


def network_of(row: Row, **options) -> Network:
    layer = type(row.layer)
    made = [layer(*numbers(row)) for _ in range(3)]
    return Network(
        [made[0], Dense(9, 37), made[1], Dense(37, 20), made[2], Dense(20, 4)], seed=3, **options
    )


@pytest.mark.parametrize("batch_size", [1, 7, 32])
@of_each_row
def test_the_compiled_epoch_does_as_numpy(rng, row, batch_size, dtype):
    X, y = rng.normal(size=(60, 9)), rng.integers(0, 4, 60)
    ours, theirs = (network_of(row, dtype=dtype, backend=backend) for backend in ("numba", "numpy"))
    assert ours.explain().startswith("compiled epoch")
    for network in (ours, theirs):
        network.fit(X, y, epochs=1, batch_size=batch_size)
    for a, b in zip(ours, theirs, strict=True):
        for name, values in a.parameters.items():
            # each step moves by rate times sums of at most batch size or 37 terms of order 1
            bound = np.finfo(dtype).eps * (60 / batch_size * 0.1 * (batch_size + 37) * 4 + 8)
            np.testing.assert_allclose(values, b.parameters[name], rtol=0, atol=bound)
    np.testing.assert_allclose(
        ours.predict(X),
        theirs.predict(X),
        rtol=1e3 * np.finfo(dtype).eps,
        atol=1e3 * np.finfo(dtype).eps,
    )


@of_each_row
def test_threads_give_the_same_bits(rng, row, dtype):
    X, y = rng.normal(size=(90, 300)), rng.integers(0, 10, 90)
    results = set()
    for threads in (1, 2, 4):
        layer = type(row.layer)(*numbers(row))
        network = Network([Dense(300, 200), layer, Dense(200, 10)], seed=1, dtype=dtype)
        network.fit(X, y, epochs=2, batch_size=30, threads=threads)
        results.add(tuple(layer.weights.tobytes() for layer in (network[0], network[2])))
    assert len(results) == 1


@pytest.mark.once
@of_each_row
def test_saved_and_loaded(rng, row, tmp_path):
    network = network_of(row, dtype=np.float64)
    X = rng.normal(size=(5, 9))
    network.save(tmp_path / "model")
    loaded = fastnn.load(tmp_path / "model")
    assert repr(loaded) == repr(network)
    np.testing.assert_array_equal(loaded.predict(X), network.predict(X))


@of_each_row
def test_constants_are_checked(row):
    kind = type(row.layer)
    for i, name in enumerate(row.layer._constants):
        for bad, error in [("1", TypeError), (np.nan, ValueError), (np.inf, ValueError)]:
            given = [*numbers(row)]
            given[i] = bad
            with pytest.raises(error, match=name):
                kind(*given)
            with pytest.raises(error, match=name):
                setattr(kind(*numbers(row)), name, bad)
