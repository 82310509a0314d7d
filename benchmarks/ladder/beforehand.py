"""What rungs 5 to 10 need made beforehand, and the step of those that Numba compiles."""

from types import SimpleNamespace

import numpy as np
from numba import njit

from fastnn.backends.numba_backend.jit import INTEGER
from fastnn.backends.numba_backend.kernels.loading import FLOAT32, FLOAT64
from fastnn.backends.numba_backend.kernels.relu import TERM
from fastnn.backends.numba_backend.language import MATRIX, Matrix
from fastnn.backends.numba_backend.machine import MACHINE, lanes
from fastnn.memory import ROW_BLOCK, aligned_zeros, round_up

BATCH_LIMIT = 64
"""Samples of a batch that rungs 9 and 10 take: a word has a bit for each."""


# -------------------------------------------------------------------------------- rungs 5 to 8


def prepare(layers, batch_size):
    """Return parameters, activations and gradients as NumPy makes its arrays."""
    return _state(layers, [(W.copy(), b.copy()) for W, b in layers], np.zeros, batch_size)


def prepare_aligned(layers, batch_size):
    """Return the same with rows that are whole vectors and begin at cache lines."""
    return _state(layers, padded_layers(layers), aligned, batch_size)


def _state(given, held, zeros, batch_size):
    dtype = held[0][0].dtype
    A, G = ([zeros((batch_size, W.shape[1]), dtype) for W, _ in held] for _ in range(2))
    nowhere = np.zeros((0, 0), dtype)
    return SimpleNamespace(
        shapes=[W.shape for W, _ in given], held=held, A=A, G=G, below=[nowhere, *G[:-1]]
    )


def layers(state):
    """Return weights and biases without padding."""
    pairs = zip(state.shapes, state.held, strict=True)
    return [(W[:rows, :columns], b[:columns]) for (rows, columns), (W, b) in pairs]


def padded_layers(layers):
    """Return aligned copies, rows and columns filled up with zeros to multiples of 16.

    Zeros stay zeros: what is padding in the gradient of a layer's output is zero.
    """
    copies = []
    for W, b in layers:
        rows, columns = (round_up(units, ROW_BLOCK) for units in W.shape)
        wide, long = aligned((rows, columns), W.dtype), aligned((columns,), W.dtype)
        wide[: W.shape[0], : W.shape[1]], long[: len(b)] = W, b
        copies.append((wide, long))
    return copies


def aligned(shape, dtype):
    """Return zeros that begin at a cache line."""
    return aligned_zeros(int(np.prod(shape)), np.dtype(dtype)).reshape(shape)


def step_of(forward, backward):
    """Return the step that two compiled functions make: seven calls from Python."""

    def step(state, X, y, rate):
        rate = X.dtype.type(rate)
        inputs = [X, *state.A[:-1]]
        last = len(inputs) - 1
        for i, (W, b) in enumerate(state.held):
            forward(inputs[i], W, b, i < last, state.A[i])
        softmax_gradient(state.A[last], y, state.shapes[last][1], state.G[last])
        for i in range(last, -1, -1):
            backward(inputs[i], *state.held[i], state.G[i], state.below[i], rate)

    return step


@njit
def softmax_gradient(Z, y, classes, G):
    """G = (softmax(Z) - onehot(y)) / batch, of the first `classes` columns."""
    for n in range(len(y)):
        largest = Z[n, :classes].max()
        total = Z.dtype.type(0)
        for c in range(classes):
            G[n, c] = np.exp(Z[n, c] - largest)
            total += G[n, c]
        for c in range(classes):
            G[n, c] /= total * len(y)
        G[n, y[n]] -= Z.dtype.type(1) / len(y)


# ------------------------------------------------------------------------------- rungs 9 and 10


STEP = np.dtype(
    [(name, MATRIX) for name in (
        # [samples, units], and the sets of what is not zero in each row, by sample and by unit
        "X", "A1", "A2", "Z", "bits0", "bits1", "bits2", "by_unit0", "by_unit1", "by_unit2",
        # [samples, units], padded with zeros; [units, samples]; [samples, a vector]
        "G1", "G2", "G3", "turned1", "turned2", "dots", "W1", "W2", "W3",
    )]
    + [(name, np.int64) for name in (
        "b1", "b2", "b3", "terms", "code", "row_bytes", "classes", "few", "lanes",
        "predictions", "margins", "sums",
    )]
)  # fmt: skip
"""A step as rungs 9 and 10 see it: matrices, addresses and counts. `few` says that the outputs are
so few that `backward_from_few` takes them."""


def record_of_step(given, batch_size):
    """Return the state of rungs 9 and 10: a record STEP, and the arrays that it points to."""
    if batch_size > BATCH_LIMIT:
        raise ValueError(f"batch_size: expected {BATCH_LIMIT} at most, got {batch_size}")
    held = padded_layers(given)
    dtype, classes = held[0][0].dtype, given[-1][0].shape[1]
    width = lanes(dtype.itemsize)
    units = [len(given[0][0]), *(W.shape[1] for W, _ in held)]
    padded = round_up(batch_size, ROW_BLOCK)
    record, terms, arrays = np.zeros(1, STEP), np.zeros(3, TERM), {}

    def put(name, array, rows=None, columns=None):
        arrays[name] = array
        rows, columns = rows or array.shape[0], columns or array.shape[1]
        record[name] = Matrix(array.ctypes.data, *array.strides, rows, columns)

    for i, name in enumerate(("X", "A1", "A2", "Z")):
        of_samples = aligned((padded, round_up(units[i], ROW_BLOCK)), dtype)
        put(name, of_samples, batch_size, classes if name == "Z" else units[i])
        if i:
            terms[i - 1] = of_samples.ctypes.data, of_samples.strides[0]
            put(f"G{i}", aligned((padded, units[i]), dtype))
            W, b = held[i - 1]
            put(f"W{i}", W)
            record[f"b{i}"] = b.ctypes.data
        if i < 3:
            words = -(-units[i] // 64)
            put(f"bits{i}", aligned((words, 64), np.int64).T, batch_size)
            put(f"by_unit{i}", aligned((64 * words, 1), np.int64))
            if i:
                put(f"turned{i}", aligned((units[i], padded), dtype))
    put("dots", aligned((padded, width), dtype))
    for name, kind in (("predictions", np.int64), ("margins", dtype), ("sums", dtype)):
        arrays[name] = aligned((padded,), kind)
        record[name] = arrays[name].ctypes.data
    record["terms"], record["lanes"], record["classes"] = terms.ctypes.data, width, classes
    record["row_bytes"] = len(given[0][0]) * dtype.itemsize
    record["code"] = {4: FLOAT32, 8: FLOAT64}[dtype.itemsize]
    record["few"] = classes <= min(width, MACHINE.backward_vectors)
    shapes = [W.shape for W, _ in given]
    return SimpleNamespace(shapes=shapes, held=held, record=record, terms=terms, arrays=arrays)


def call_of(compiled):
    """Return the step that is one call of a compiled function."""

    def step(state, X, y, rate):
        entry = compiled.entry((X.dtype, STEP, INTEGER, INTEGER))
        entry(-rate, state.record.ctypes.data, X.ctypes.data, y.ctypes.data)

    return step
