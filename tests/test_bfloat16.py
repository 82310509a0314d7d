"""Products whose operands are rounded to bfloat16: what rounding is, and what a network does."""

import copy
import itertools
import pickle

import numpy as np
import pytest

import fastnn
from fastnn.backends import load
from fastnn.backends.numpy_backend import rounded_to_bfloat16

HALVES = np.arange(1 << 16, dtype=np.uint32) << 16
"""All upper halves of a float32."""


def of_bits(bits):
    return np.asarray(bits, np.uint32).view(np.float32)


def to_bits(x):
    return np.asarray(x, np.float32).view(np.uint32)


def test_what_bfloat16_holds_stays_but_for_denormals():
    found = to_bits(rounded_to_bfloat16(of_bits(HALVES)))
    exponent = HALVES >> 23 & 0xFF
    is_nan = (exponent == 0xFF) & (HALVES & 0x7FFFFF != 0)
    expected = np.where(exponent == 0, HALVES & 0x80000000, HALVES)
    expected = np.where(is_nan, HALVES | 0x400000, expected)
    assert (found == expected).all()


@pytest.mark.parametrize("lower", [0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
def test_between_two_bfloat16_the_nearer_is_taken_and_the_even_one_of_two(lower):
    upper = HALVES[(HALVES >> 23 & 0xFF != 0) & (HALVES >> 23 & 0xFF != 0xFF)]
    odd = (upper >> 16 & 1).astype(bool)
    up = odd if lower == 0x8000 else np.full(len(upper), lower > 0x8000)
    # in float64 nothing overflows: the next of the largest bfloat16 is 2^128
    below, value = of_bits(upper).astype(float), of_bits(upper | lower).astype(float)
    step = 2.0 ** ((upper >> 23 & 0xFF).astype(int) - 127 - 7) * np.sign(below)
    expected = np.where(up, below + step, below)
    assert (np.abs(value - expected) <= np.abs(step) / 2).all()
    with np.errstate(over="ignore"):
        expected = expected.astype(np.float32)
    assert (rounded_to_bfloat16(of_bits(upper | lower)) == expected).all()


def test_nan_stays_nan_and_denormals_become_zeros_of_their_sign():
    nan = of_bits([0x7F800001, 0xFF80FFFF, 0x7FFFFFFF, 0xFFFFFFFF])
    assert np.isnan(rounded_to_bfloat16(nan)).all()
    small = of_bits([1, 0x80000001, 0x007FFFFF, 0x807FFFFF])
    assert to_bits(rounded_to_bfloat16(small)).tolist() == [0, 0x80000000, 0, 0x80000000]


def network(backend="numpy", precision="bfloat16", units=(20, 17, 3), **options):
    rng, layers = np.random.default_rng(3), []
    for inputs, outputs in itertools.pairwise(units):
        layers += [fastnn.Dense(inputs, outputs, 0.1, seed=rng), fastnn.ReLU()]
    options = {"seed": 0, "backend": backend, "matmul_precision": precision, **options}
    return fastnn.Network(layers[:-1], **options)


def data(samples=23, units=20, classes=3):
    rng = np.random.default_rng(5)
    X = rng.standard_normal((samples, units)).astype(np.float32)
    return X, rng.integers(0, classes, samples)


def test_operands_are_rounded_and_nothing_else():
    X, y = data()
    made, rounded = network(), rounded_to_bfloat16
    W, b, V, c = (a.astype(np.float64) for a in made.get_weights())
    A = np.maximum(rounded(X).astype(float) @ rounded(W) + b, 0)
    Z = rounded(A).astype(float) @ rounded(V) + c
    P = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
    G = (P - np.eye(3)[y]) / len(y)
    dV, dc = rounded(A).astype(float).T @ rounded(G), G.sum(axis=0)
    dA = (rounded(G).astype(float) @ rounded(V).astype(float).T) * (A > 0)
    dW, db = rounded(X).astype(float).T @ rounded(dA), dA.sum(axis=0)
    _, found = made.gradients(X, y)
    found = [found[0]["weights"], found[0]["biases"], found[2]["weights"], found[2]["biases"]]
    for ours, exact in zip(found, (dW, db, dV, dc), strict=True):
        # a gradient that lies between two bfloat16 may be rounded to the other one
        np.testing.assert_allclose(ours, exact, rtol=0, atol=2**-9 * np.abs(exact).max())
    _, plain = network(precision=None).gradients(X, y)
    assert np.abs(plain[0]["weights"] - dW).max() > 2**-12 * np.abs(dW).max()


@pytest.mark.parametrize(("rows", "units", "outputs"), [(1, 1, 1), (7, 33, 5), (64, 17, 48)])
def test_operations_of_both_backends_agree(rows, units, outputs):
    rng = np.random.default_rng(rows)
    X, W, b, G = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((rows, units), (units, outputs), (outputs,), (rows, outputs))
    )
    results = []
    for backend in map(load, ("numpy", "numba")):
        dW, db = np.empty_like(W), np.empty_like(b)
        Y = backend.dense_forward(X, W, b, bfloat16=True)
        dX = backend.dense_backward(X, W, G, dW, db, bfloat16=True)
        results.append((Y, dX, dW, db))
    longest = max(rows, units, outputs)
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=30 * longest * 2**-24)


def test_the_precision_goes_with_the_network(tmp_path):
    X, _ = data()
    made = network()
    assert made.matmul_precision == "bfloat16"
    assert "matmul_precision='bfloat16'" in repr(made)
    made.save(tmp_path / "network")
    again = fastnn.load(tmp_path / "network", backend="numpy")
    for twin in (again, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert twin.matmul_precision == "bfloat16"
        assert (twin(X) == made(X)).all()
    assert network(precision=None).matmul_precision is None


def test_training_goes_on_in_the_same_precision(tmp_path):
    X, y = data(60)
    whole = network()
    whole.fit(X, y, epochs=4, batch_size=16)
    part = network()
    part.fit(X, y, epochs=2, batch_size=16, checkpoint=tmp_path / "training")
    resumed = fastnn.resume(tmp_path / "training", X, y, epochs=4)
    assert resumed.matmul_precision == "bfloat16"
    for one, other in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        assert (one == other).all()
    with pytest.raises(ValueError, match="matmul_precision"):
        network(precision=None).fit(X, y, epochs=4, batch_size=16, resume=tmp_path / "training")


def test_float64_is_refused_and_gradients_are_checked_without_rounding():
    with pytest.raises(ValueError, match="matmul_precision: expected None beside dtype float64"):
        network(dtype=np.float64)
    X, y = data(5)
    fastnn.check_gradients(network(), X, y)
