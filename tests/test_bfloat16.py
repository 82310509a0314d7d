"""Products whose operands are rounded to bfloat16: what rounding is, and what a network does."""

from __future__ import annotations

import copy
import ctypes
import functools
import itertools
import pickle
import platform
from dataclasses import replace

import numpy as np
import pytest
from conftest import bits, once
from test_epoch_kernel import Case
from test_threads import RESTLESS

import fastnn
from fastnn import memory
from fastnn.backends import load
from fastnn.backends.description import Rule
from fastnn.backends.numba_backend.epoch import records
from fastnn.backends.numba_backend.epoch.program import Program
from fastnn.backends.numba_backend.jit import jit
from fastnn.backends.numba_backend.kernels.bfloat16 import matmul_pairs, pack_pairs, update_pairs
from fastnn.backends.numba_backend.kernels.pairs import (
    flushing_denormals,
    fma_pairs,
    paired,
    rounded,
)
from fastnn.backends.numba_backend.language import Address, Int, Kernel, Matrix, Real
from fastnn.backends.numba_backend.machine import HAS_BFLOAT16, lanes
from fastnn.backends.numba_backend.microkernel import microkernel
from fastnn.backends.numpy_backend import rounded_to_bfloat16

HALVES = np.arange(1 << 16, dtype=np.uint32) << 16
"""All upper halves of a float32."""


def of_bits(codes):
    return np.asarray(codes, np.uint32).view(np.float32)


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
        layers += [fastnn.Dense(inputs, outputs, seed=rng), fastnn.ReLU()]
    options = {"seed": 0, "backend": backend, "matmul_precision": precision, **options}
    return fastnn.Network(layers[:-1], **options)


def data(samples=23, units=20, classes=3):
    rng = np.random.default_rng(5)
    X = rng.standard_normal((samples, units)).astype(np.float32)
    return X, rng.integers(0, classes, samples)


def test_operands_are_rounded_and_nothing_else():
    X, y = data()
    made, half = network(), rounded_to_bfloat16
    W, b, V, c = (a.astype(np.float64) for a in made.get_weights())
    A = np.maximum(half(X).astype(float) @ half(W) + b, 0)
    Z = half(A).astype(float) @ half(V) + c
    P = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
    G = (P - np.eye(3)[y]) / len(y)
    dV, dc = half(A).astype(float).T @ half(G), G.sum(axis=0)
    dA = (half(G).astype(float) @ half(V).astype(float).T) * (A > 0)
    dW, db = half(X).astype(float).T @ half(dA), dA.sum(axis=0)
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


# ------------------------------------------------------------------------------------- kernels

SPECIAL = np.array(
    [0, 1, 0x7F80, 0x7FC0, 0x7F81, 0x3F80, 0x0080, 0x0001, 0x007F, 0x7F7F, 0x3F81], np.uint32
)
"""Halves: zero, infinity, NaN, one, the least normal number, denormal ones, the largest."""


@microkernel
def multiply_both_ways(
    k: Kernel, like: Real, a: Address, b: Address, c: Address, count: Int, out: Matrix
) -> None:
    """out = c + a b of pairs, by the instruction and by its emulation."""
    with flushing_denormals(k), k.loop(0, count) as i:
        offset = i * k.vector_bytes
        operands = [k.load(address + offset) for address in (a, b, c)]
        for row, emulated in enumerate((not HAS_BFLOAT16, True)):
            k.store(fma_pairs(k, *operands, emulated=emulated), out.row(row) + offset)


@microkernel
def round_both_ways(k: Kernel, like: Real, x: Address, count: Int, out: Matrix) -> None:
    """The numbers of x in bfloat16, one after the other, and as pairs of vectors."""
    with k.loop(0, count, 2) as i:
        first, second = (k.load(x + (i + n) * k.vector_bytes) for n in range(2))
        for row, emulated in enumerate((not HAS_BFLOAT16, True)):
            for n, function in enumerate((rounded, paired)):
                made = function(k, first, second, emulated=emulated)
                k.store(made, out.row(2 * row + n) + i // 2 * k.vector_bytes)


@jit
def run_multiply(one, a, b, c, count, out):
    multiply_both_ways(one, a, b, c, count, out)


@jit
def run_round(one, x, count, out):
    round_both_ways(one, x, count, out)


@jit
def run_pack(one, source, rows, pairs):
    pack_pairs(one, source, rows, pairs)


@jit
def run_matmul(alpha, A, B, C, keep, mask):
    matmul_pairs(alpha, A, B, C, keep, mask)


@jit
def run_update(alpha, A, B, C, rows, pairs):
    update_pairs(alpha, A, B, C, rows, pairs)


def aligned(*shape, dtype=np.float32):
    size = int(np.prod(shape))
    return memory.aligned_zeros(size, np.dtype(dtype)).reshape(shape)


def as_matrix(array):
    return Matrix(array.ctypes.data, *array.strides, *array.shape)


NOTHING = Matrix(0, 0, 0, 0, 0)


def triples(kind, count, rng):
    """Pairs a, pairs b and numbers c that lead to what `kind` says."""
    a, b, c = rng.integers(0, 1 << 32, (3, count), np.uint32)
    if kind == "special":
        for pair in (a, b):
            for place in (0, 16):
                half = rng.choice(SPECIAL, count) | rng.integers(0, 2, count, np.uint32) << 15
                chosen = rng.random(count) < 0.5
                pair[:] = np.where(
                    chosen, pair & (0xFFFF0000 >> place) | half.astype(np.uint32) << place, pair
                )
        c = np.where(rng.random(count) < 0.5, rng.choice(SPECIAL, count) << 16, c)
    elif kind != "any bits":
        exponents = {"moderate": (120, 134), "underflow": (60, 68), "overflow": (188, 194)}
        low, high = exponents[kind]
        around = {"moderate": (118, 140), "underflow": (0, 12), "overflow": (248, 255)}[kind]
        for pair in (a, b):
            pair &= 0x807F807F
            pair |= rng.integers(low, high, count, np.uint32) << 23
            pair |= rng.integers(low, high, count, np.uint32) << 7
        c = c & 0x807FFFFF | rng.integers(*around, count, np.uint32) << 23
    return a, b, c.astype(np.uint32)


@pytest.mark.every_width
@pytest.mark.without_fma
@pytest.mark.parametrize("kind", ["moderate", "any bits", "special", "underflow", "overflow"])
def test_emulation_and_instruction_give_the_same_bits(kind, rng):
    count = 1 << 16
    operands = []
    for codes in triples(kind, count, rng):
        operands.append(aligned(count))
        operands[-1][:] = codes.view(np.float32)
    out = aligned(2, count)
    addresses = [array.ctypes.data for array in operands]
    run_multiply(np.float32(1), *addresses, count // lanes(4), as_matrix(out))
    by_instruction, emulated = to_bits(out)
    assert (by_instruction == emulated).all()
    if kind == "moderate":  # in float64 a sum of three such numbers is exact
        a, b, c = operands
        for half in (lambda x: x & 0xFFFF0000, lambda x: x << 16):
            product = of_bits(half(to_bits(a))).astype(float) * of_bits(half(to_bits(b)))
            c = (c + product).astype(np.float32)
        assert (to_bits(c) == emulated).all()


@pytest.mark.every_width
def test_kernels_round_as_numpy_does(rng):
    """All upper halves, each with lower halves that decide, and any bits."""
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    bits = np.concatenate(
        [(HALVES[:, np.newaxis] | lower).ravel(), rng.integers(0, 1 << 32, 1 << 16, np.uint32)]
    )
    x = aligned(len(bits))
    x[:] = bits.view(np.float32)
    out = aligned(4, len(x) // 2)
    run_round(np.float32(1), x.ctypes.data, len(x) // lanes(4), as_matrix(out))
    expected = (to_bits(rounded_to_bfloat16(x)) >> 16).astype(np.uint16)
    two = expected.reshape(-1, 2, lanes(4))
    for row in (0, 2):
        assert (out[row].view(np.uint16) == expected).all()
        assert (out[row + 1].view(np.uint16) == two.swapaxes(1, 2).ravel()).all()


@pytest.mark.every_width
@pytest.mark.parametrize(("count", "vectors"), [(1, 1), (2, 2), (7, 3), (16, 4)])
def test_packing(count, vectors, rng):
    columns = vectors * lanes(4)
    source = aligned(count, columns)
    source[:] = rng.standard_normal(source.shape)
    even, width = count + count % 2, (vectors + vectors % 2) * lanes(4)
    rows, pairs = aligned(even, width // 2), aligned(even // 2, columns)
    rows[:] = pairs[:] = np.nan
    run_pack(np.float32(1), as_matrix(source), as_matrix(rows), as_matrix(pairs))
    expected = np.zeros((even, width), np.float32)
    expected[:count, :columns] = rounded_to_bfloat16(source)
    halves = (to_bits(expected) >> 16).astype(np.uint16)
    assert (rows.view(np.uint16) == halves).all()
    low, high = (halves[i::2, :columns].astype(np.uint32) for i in range(2))
    assert (to_bits(pairs) == low | high << 16).all()
    nothing = as_matrix(rows)._replace(address=0)
    before = rows.copy(), pairs.copy()
    source[:] = 1
    run_pack(np.float32(1), as_matrix(source), nothing, nothing)
    assert (to_bits(rows) == to_bits(before[0])).all()
    assert (to_bits(pairs) == to_bits(before[1])).all()


@pytest.mark.every_width
@pytest.mark.without_fma
@pytest.mark.parametrize(
    ("count", "inner", "vectors"), [(1, 1, 1), (8, 20, 3), (13, 40, 5), (3, 1030, 2)]
)
@pytest.mark.parametrize("keep", [0, 1])
def test_the_product_adds_in_an_order_that_no_machine_changes(count, inner, vectors, keep, rng):
    """Number by number: high, then low, each sum rounded to float32."""
    columns, words = vectors * lanes(4), -(-inner // 2)
    X, W = rng.standard_normal((count, 2 * words)), rng.standard_normal((2 * words, columns))
    X[:, inner:] = W[inner:] = 0
    C, A, B = aligned(count, columns), aligned(count, words), aligned(words, columns)
    X, W = (rounded_to_bfloat16(matrix.astype(np.float32)) for matrix in (X, W))
    A.view(np.uint16)[:] = to_bits(X) >> 16
    B.view(np.uint32)[:] = to_bits(W[::2]) >> 16 | to_bits(W[1::2])
    C[:] = rng.standard_normal(C.shape)
    alpha, expected = np.float32(-0.3), C * np.float32(keep)
    for start in range(0, words, 512):
        total = np.zeros((count, columns), np.float32)
        for word in range(start, min(start + 512, words)):
            for i in (2 * word + 1, 2 * word):
                exact = np.multiply.outer(X[:, i].astype(float), W[i].astype(float))
                total = (total + exact).astype(np.float32)
        fused = (expected.astype(float) + alpha.astype(float) * total).astype(np.float32)
        expected = fused if keep or start else alpha * total
    run_matmul(alpha, as_matrix(A), as_matrix(B), as_matrix(C), keep, NOTHING)
    assert (expected == C).all()
    mask = aligned(count, columns)
    mask[:] = rng.standard_normal(mask.shape)
    # zeros, a subnormal number, NaN and infinity
    mask.ravel()[:8] = of_bits(
        [0, 1 << 31, 1, 1 << 31 | 1, 0x7F800001, 0xFFC00000, 0x7F800000, 0xFF800000]
    )[: mask.size]
    whole = aligned(count, columns)
    run_matmul(alpha, as_matrix(A), as_matrix(B), as_matrix(whole), 0, NOTHING)
    run_matmul(alpha, as_matrix(A), as_matrix(B), as_matrix(C), 0, as_matrix(mask))
    assert (np.where(mask > 0, whole, 0) == C).all()


@pytest.mark.parametrize(
    ("units", "inner", "vectors"), [(1, 1, 1), (8, 7, 2), (13, 520, 3), (31, 3, 5), (6, 16, 4)]
)
@pytest.mark.parametrize("with_rows", [False, True])
def test_an_update_packs_what_it_has_changed(units, inner, vectors, with_rows, rng):
    columns, even = vectors * lanes(4), units + units % 2
    A, B = aligned(units, inner), aligned(inner, columns)
    for words in (A, B):
        numbers = rng.standard_normal((len(words), 2 * words.shape[1]))
        words.view(np.uint16)[:] = to_bits(numbers) >> 16
    weights, twin = aligned(units, columns), aligned(units, columns)
    twin[:] = weights[:] = rng.standard_normal(weights.shape)
    alpha, found, expected = np.float32(-0.3), [], []
    for copies in (found, expected):
        rows, pairs = (
            aligned(even, (vectors + vectors % 2) * lanes(4) // 2),
            aligned(even // 2, columns),
        )
        rows[:, : columns // 2] = pairs[:] = np.nan
        copies += [rows, pairs]
    found_rows, expected_rows = (as_matrix(copies[0]) for copies in (found, expected))
    if not with_rows:
        found_rows, expected_rows = (m._replace(address=0) for m in (found_rows, expected_rows))
    run_update(
        alpha, as_matrix(A), as_matrix(B), as_matrix(weights), found_rows, as_matrix(found[1])
    )
    run_matmul(alpha, as_matrix(A), as_matrix(B), as_matrix(twin), 1, NOTHING)
    assert (to_bits(weights) == to_bits(twin)).all()
    run_pack(np.float32(1), as_matrix(twin), expected_rows, as_matrix(expected[1]))
    for one, other in zip(found, expected, strict=True):
        assert (to_bits(one)[:units] == to_bits(other)[:units]).all()


def test_modes_of_the_processor_are_as_before():
    """What is below the smallest normal number goes on to be a number in this thread."""
    A, B, C = aligned(1, 1), aligned(1, lanes(4)), aligned(1, lanes(4))
    A[:], B[:] = of_bits(0x3F803F80), of_bits(0x00010001)
    C[:] = 1
    run_matmul(np.float32(1), as_matrix(A), as_matrix(B), as_matrix(C), 0, NOTHING)
    if platform.machine() in ("x86_64", "AMD64"):
        assert (C == 0).all()
    assert np.float32(1e-30) * np.float32(1e-12) > 0


# ------------------------------------------------------------------------------ compiled epoch


def fitted(backend, build, X, y, **options):
    made = build(backend)
    before = made.get_weights()
    made.fit(X, y, shuffle=False, **{"epochs": 1, "batch_size": len(X), **options})
    return [now - then for now, then in zip(made.get_weights(), before, strict=True)]


NETWORKS = {
    "dense": lambda d: [d(51, 3)],
    "odd": lambda d: [d(7, 33), fastnn.ReLU(), d(33, 65), fastnn.ReLU(), d(65, 3)],
    "two chunks": lambda d: [d(130, 257), fastnn.ReLU(), d(257, 3)],
    "four chunks": lambda d: [d(1100, 1000), fastnn.ReLU(), d(1000, 3)],
    "stages": lambda d: [
        fastnn.Rescaling(0.5), fastnn.Tanh(), d(40, 50), fastnn.BatchNorm(50), fastnn.ReLU(),
        fastnn.Dropout(0.3), d(50, 20), fastnn.Sigmoid(), d(20, 3),
    ],
    "penalty": lambda d: [d(40, 50, l2=0.01), fastnn.ReLU(), d(50, 3, l2=0.01)],
}  # fmt: skip


@pytest.mark.every_width
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("samples", [1, 33, *once(13)])
def test_a_step_of_the_compiled_epoch_is_that_of_numpy(name, samples):
    def build(backend):
        dense = functools.partial(fastnn.Dense, seed=np.random.default_rng(1))
        layers = NETWORKS[name](dense)
        return fastnn.Network(layers, backend=backend, matmul_precision="bfloat16", seed=1)

    made = build("numba")
    assert made.explain().startswith("compiled epoch")
    assert "bfloat16 is multiplied" in made.explain()
    X, y = data(samples, first_units(made), 3)
    changes = [fitted(backend, build, X, y) for backend in ("numba", "numpy")]
    for one, other in zip(*changes, strict=True):
        # a sum that differs in its last bit may be rounded to the other of two bfloat16
        assert np.linalg.norm(one - other) <= 2e-3 * np.linalg.norm(other) + 1e-7
    np.testing.assert_allclose(made(X), build("numpy")(X), rtol=0, atol=0.02)


def first_units(made):
    return next(layer.input_units for layer in made if layer.input_units is not None)


@pytest.mark.parametrize("optimizer", ["momentum", "nesterov", "rmsprop", "adam", "adamw"])
@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_every_optimizer(optimizer, clip_norm):
    X, y = data(40)

    def build(backend):
        return network(backend, optimizer=optimizer, clip_norm=clip_norm)

    changes = [fitted(backend, build, X, y) for backend in ("numba", "numpy")]
    for one, other in zip(*changes, strict=True):
        # Adam's first step is the sign of the gradient, nearly: a zero may have another
        assert np.linalg.norm(one - other) <= 2e-2 * np.linalg.norm(other) + 1e-7


@pytest.mark.every_width
@pytest.mark.parametrize("name", NETWORKS)
def test_no_bit_depends_on_the_number_of_threads(name):
    results = []
    for threads in (1, 2, 4):
        dense = functools.partial(fastnn.Dense, seed=np.random.default_rng(1))
        made = fastnn.Network(
            NETWORKS[name](dense), backend="numba", matmul_precision="bfloat16", seed=1
        )
        X, y = data(90, first_units(made), 3)
        made.fit(X, y, epochs=2, batch_size=16, threads=threads)
        results.append(bits(made))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("density", [0.1, 1.0])
def test_a_team_that_parts_and_comes_back_packs_anew(density):
    """Whoever goes on alone, or together, has copies of weights as they were before that."""
    results = []
    for threads in (1, 2, 4):
        case = Case((130, 257, 129, 10), 16, 150, input_dtype=np.float32, density=density)
        program = Program(
            case.layers, batch_size=16, input_dtype=np.float32, density=density, bfloat16=True
        )
        first = program.training.layers[0]
        assert first["update_by"] == (records.BY_UNIT if density < 0.2 else records.IN_PAIRS)
        program._signals.settings.update(RESTLESS)
        for _ in range(3):
            program.prepare(
                case.samples, case.labels, case.order, case.parameters, case.rates, threads=threads
            )()
        results.append(case.parameters.tobytes())
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(("batch_size", "before"), [(1, []), (2, []), (3, []), (3, ["sigmoid"])])
def test_which_first_layers_skip_zeros(batch_size, before):
    """As `explain` says it: in batches of more than 2, where nothing comes before."""
    layers = [*[fastnn.Sigmoid() for _ in before], fastnn.Dense(150, 37)]
    made = fastnn.Network(layers, backend="numba", matmul_precision="bfloat16", seed=0)
    X, _ = few_numbers(50)
    with made._programs.for_training(made, X, batch_size, False) as program:
        skips = program.training.layers[-1]["update_by"] == records.BY_UNIT
    assert skips == (batch_size > 2 and not before)
    assert "a first layer that takes the input itself" in made.explain()
    assert "in batches of more than 2 samples" in made.explain()


def one_call_is_many_of_one_step(build, X, y):
    """A call begins with packing, or rounding, all weights; from step to step copies follow."""
    many, single = build(), build()
    many.fit(X, y, batch_size=16, shuffle=False)
    for start in range(0, len(X), 16):
        single.fit(X[start : start + 16], y[start : start + 16], batch_size=16, shuffle=False)
    assert bits(many) == bits(single)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_copies_of_weights_follow_them(optimizer, clip_norm):
    one_call_is_many_of_one_step(
        lambda: network("numba", optimizer=optimizer, clip_norm=clip_norm), *data(5 * 16)
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize(("samples", "units"), [(1, 5), (7, 37), (33, 64)])
def test_samples_of_any_type_are_packed_as_they_are_loaded(dtype, samples, units):
    rng = np.random.default_rng(2)
    X = rng.integers(1, 256, (samples, units)).astype(dtype)
    y = rng.integers(0, 3, samples)

    def build(backend):
        layers = [fastnn.Rescaling(1 / 255), fastnn.Dense(units, 3)]
        return fastnn.Network(layers, backend=backend, matmul_precision="bfloat16", seed=1)

    changes = [fitted(backend, build, X, y) for backend in ("numba", "numpy")]
    for one, other in zip(*changes, strict=True):
        assert np.linalg.norm(one - other) <= 1e-4 * np.linalg.norm(other)
    np.testing.assert_allclose(build("numba")(X), build("numpy")(X), rtol=0, atol=1e-5)


def test_samples_that_are_not_packed_need_no_zeros():
    case = Case((40, 30, 5))
    for bfloat16 in (False, True):
        made = Program(case.layers, batch_size=32, density=1.0, bfloat16=bfloat16)
        for table in (made.training, made.prediction):
            shared = table.shared[0]
            assert (shared["zeros"] != 0) == (shared["tails"] != 0) == bfloat16


def few_numbers(samples, dtype=np.float32, units=150):
    """Samples of which one number in ten is not zero."""
    rng = np.random.default_rng(8)
    kept = rng.random((samples, units)) < 0.1
    X = kept * rng.integers(1, 256, kept.shape)
    return (X if dtype == np.uint8 else X / 128 - kept).astype(dtype), rng.integers(0, 3, samples)


def skipping(backend, dtype=np.float32, **options):
    scale = [fastnn.Rescaling(1 / 255)] if dtype == np.uint8 else []
    dense = functools.partial(fastnn.Dense, seed=np.random.default_rng(1))
    layers = [*scale, dense(150, 37), fastnn.ReLU(), dense(37, 3)]
    return fastnn.Network(layers, backend=backend, matmul_precision="bfloat16", seed=1, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("samples", [3, 33, 130])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_a_first_layer_that_skips_zeros_multiplies_rounded_numbers(dtype, samples, optimizer):
    X, y = few_numbers(samples, dtype)

    def build(backend):
        return skipping(backend, dtype, optimizer=optimizer)

    made = build("numba")
    assert "less than 22% of the input is not zero" in made.explain()
    changes = [fitted(backend, build, X, y) for backend in ("numba", "numpy")]
    for one, other in zip(*changes, strict=True):
        # were one operand not rounded, it would be a thousandth
        assert np.linalg.norm(one - other) <= 3e-4 * np.linalg.norm(other) + 1e-7
    np.testing.assert_allclose(made(X), build("numpy")(X), rtol=0, atol=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_rounded_weights_of_a_first_layer_that_skips_zeros_follow_them(optimizer, clip_norm):
    one_call_is_many_of_one_step(
        lambda: skipping("numba", optimizer=optimizer, clip_norm=clip_norm), *few_numbers(5 * 16)
    )


@pytest.mark.every_width
@pytest.mark.parametrize("density", [0.1, 1.0])
@pytest.mark.parametrize("clip_norm", [0.0, 0.1])
def test_weights_are_copied_once_a_step(clip_norm, density):
    """By the step that moves them; where gradients are clipped, by the next one, as they move last.

    A call begins with copies of all of them, and no layer has more rows than are moved at once.
    """
    copied = []

    def noting(integers):
        """Return a function that stands for an operation, and copies nothing."""
        kind = ctypes.CFUNCTYPE(None, ctypes.c_float, *[ctypes.c_int64] * integers)
        return kind(lambda *arguments: copied.append(arguments[1]))

    operations = {"pack_weights": noting(4), "round_weights": noting(3)}
    case = Case((40, 30, 20, 5), 16, 5 * 16, density=density)
    dense = [of for of in case.layers if of.kind == "dense"]
    layers = [replace(of, rule=Rule("momentum")) if of in dense else of for of in case.layers]
    program = Program(layers, batch_size=16, density=density, clip_norm=clip_norm, bfloat16=True)
    records = program.training.layers
    assert (records["round_weights"] != 0).tolist() == [density < 0.2, False, False]
    for name, function in operations.items():
        address = ctypes.cast(function, ctypes.c_void_p).value
        records[name] = np.where(records[name] != 0, address, 0)
    state = memory.aligned_zeros(len(case.parameters), case.dtype)
    program.prepare(case.samples, case.labels, case.order, case.parameters, case.rates, [state])()
    times = 5 if clip_norm else 1 + 5
    assert sorted(copied) == sorted(records["record"].tolist() * times)


def test_a_relu_that_is_subnormal_is_active():
    """Its derivative is 1, by both backends, though products take such numbers for zeros."""
    for backend in ("numpy", "numba"):
        dense = functools.partial(fastnn.Dense, 6, 5, 0.1, weights="zeros")
        layers = [
            dense(biases=lambda rng, shape: np.full(shape, 1e-39)),
            fastnn.ReLU(),
            fastnn.Dense(5, 3, 0.1, seed=np.random.default_rng(1)),
        ]
        made = fastnn.Network(layers, backend=backend, matmul_precision="bfloat16", seed=1)
        X, y = data(8, 6)
        made.fit(X, y, batch_size=8, shuffle=False)
        assert made[0].weights.all()


def test_weights_that_a_user_sets_are_those_that_predict():
    X, _ = data(200)
    made, other = network("numba"), network("numpy", seed=9)
    made(X)
    made.set_weights([2 * array for array in other.get_weights()])
    other.set_weights(made.get_weights())
    np.testing.assert_allclose(made(X), other(X), rtol=0, atol=0.02)


@pytest.mark.every_width
def test_layers_one_by_one_take_the_same_steps():
    X, y = data(64)
    made, other = network("numba"), network("numba")
    made.fit(X, y, batch_size=64, shuffle=False)
    other.train_step(X, y)
    for one, two in zip(made.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-4)


def test_numbers_that_no_batch_has_do_not_matter():
    """Infinite samples and weights spoil what they are multiplied by, and no more."""
    X, _ = data(9)
    X[3, 2] = np.inf
    made = network("numba")
    output = made(X)
    assert np.isfinite(np.delete(output, 3, axis=0)).all()
    assert not np.isfinite(output[3]).all()
