"""The compiled epoch against the same steps of gradient descent in NumPy float64."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, at_the_end_of_memory, once
from numba.core.errors import TypingError

import fastnn
from fastnn import guards, memory
from fastnn.backends import description
from fastnn.backends.numba_backend import jit
from fastnn.backends.numba_backend.compiling import cache
from fastnn.backends.numba_backend.epoch import table
from fastnn.backends.numba_backend.epoch.program import Program, why_not
from fastnn.backends.numba_backend.epoch.records import (
    BY_COLUMNS,
    BY_ROWS,
    NO_GRADIENT,
    ONE_SAMPLE,
    TOTALS,
    WITH_UPDATE,
)
from fastnn.backends.numba_backend.epoch.table import INPUT_CODES
from fastnn.backends.numba_backend.kernels import loading, matmul, rows, sparse
from fastnn.backends.numba_backend.kernels.exponential import exponential
from fastnn.backends.numba_backend.language import Address, Int, Kernel, Matrix, Real
from fastnn.backends.numba_backend.machine import MACHINE, lanes
from fastnn.backends.numba_backend.microkernel import microkernel
from fastnn.locks import locked

pytestmark = pytest.mark.every_width

RATE = 0.1
SIZES = [
    (784, 100, 200, 10),
    (50, 17, 33, 20, 40, 3),
    (51, 5),  # a single Dense layer
    (5, 1100, 3),
    (1, 1, 2),
    (130, 257, 129, 65),
    (16, 64, 64, 8),
]


class Case:
    """A network with random parameters, its data, and the reference result."""

    def __init__(
        self, sizes, batch_size=32, samples=100, dtype=np.float32, input_dtype=np.float32,
        density=0.3, relu_between=True, relu_last=False, classes_inf=False, seed=0,
    ):  # fmt: skip
        rng = np.random.default_rng(seed)
        self.sizes, self.batch_size, self.dtype = sizes, batch_size, np.dtype(dtype)
        self.relu_between, self.relu_last = relu_between, relu_last
        self.dense = list(itertools.pairwise(sizes))
        self.layers, offset = [], 0
        if np.dtype(input_dtype) == np.uint8:
            self.layers.append(description.Elementwise("rescale", (1 / 255,)))
        places = []
        for number, (inputs, outputs) in enumerate(self.dense):
            stride = memory.row_stride(outputs, self.dtype)
            weights = offset
            biases = weights + memory.round_up(inputs, memory.ROW_BLOCK) * stride
            offset = biases + stride
            places.append((weights, biases, stride))
            self.layers.append(description.Dense(inputs, outputs, weights, stride, biases))
            last = number == len(self.dense) - 1
            if relu_last if last else relu_between:
                self.layers.append(description.Elementwise("relu"))
        self.parameters = memory.aligned_zeros(offset, self.dtype)
        self.views = []
        for (inputs, outputs), (w, b, stride) in zip(self.dense, places, strict=True):
            weights = self.parameters[w : w + inputs * stride].reshape(inputs, stride)[:, :outputs]
            biases = self.parameters[b : b + outputs]
            weights[:] = rng.standard_normal((inputs, outputs)) * np.sqrt(2 / (inputs + outputs))
            biases[:] = 0.1 * rng.standard_normal(outputs)
            self.views.append((weights, biases))
        self.initial = self.parameters.copy()

        total = 2 * samples
        pixels = rng.integers(1, 256, (total, sizes[0])) * (rng.random((total, sizes[0])) < density)
        if np.dtype(input_dtype) == np.uint8:
            self.samples = pixels.astype(np.uint8)
            self.exact = self.samples / 255
        else:
            self.samples = np.ascontiguousarray((pixels / 128 - (pixels > 0)).astype(input_dtype))
            self.exact = self.samples.astype(np.float64)
        self.labels = rng.integers(0, sizes[-1], total)
        self.order = rng.permutation(total)[:samples]
        self.rates = np.broadcast_to(
            [(RATE, 1.0, 0.0, 1.0)] * len(self.dense), (samples, len(self.dense), 4)
        )

    def program(self, density=0.3, batch_size=None):
        return Program(
            self.layers, batch_size=batch_size or self.batch_size, dtype=self.dtype,
            input_dtype=self.samples.dtype, density=density,
        )  # fmt: skip

    def run(self, program=None, samples=None, **kind):
        program = program or self.program(**kind)
        samples = self.samples if samples is None else samples
        return program.prepare(samples, self.labels, self.order, self.parameters, self.rates)()

    def logits(self, parameters, samples):
        hidden, inputs = samples, []
        for number, (weights, biases) in enumerate(parameters):
            inputs.append(hidden)
            hidden = hidden @ weights + biases
            last = number == len(parameters) - 1
            if self.relu_last if last else self.relu_between:
                hidden = np.maximum(hidden, 0)
        return hidden, inputs

    def reference(self):
        """The same steps, slowly: parameters, sum of losses, right answers."""
        parameters = [[w.astype(np.float64), b.astype(np.float64)] for w, b in self.views]
        loss, correct = 0.0, 0
        for start in range(0, len(self.order), self.batch_size):
            chosen = self.order[start : start + self.batch_size]
            labels, every = self.labels[chosen], np.arange(len(chosen))
            logits, inputs = self.logits(parameters, self.exact[chosen])
            shifted = logits - logits.max(axis=1, keepdims=True)
            powers = np.exp(shifted)
            sums = powers.sum(axis=1)
            loss += (np.log(sums) - shifted[every, labels]).sum()
            correct += (logits.argmax(axis=1) == labels).sum()
            gradient = powers / sums[:, None]
            gradient[every, labels] -= 1
            gradient /= len(chosen)
            if self.relu_last:
                gradient *= logits > 0
            for number in reversed(range(len(parameters))):
                weights, biases = parameters[number]
                below = gradient @ weights.T
                if self.relu_between:
                    below *= inputs[number] > 0
                weights -= RATE * inputs[number].T @ gradient
                biases -= RATE * gradient.sum(axis=0)
                gradient = below
        return parameters, loss, correct

    def tolerance(self):
        """Rounding: of the parameters at each step, and of sums as long as the layers are wide."""
        eps = float(np.finfo(self.dtype).eps)
        steps = -(-len(self.order) // self.batch_size)
        longest = sum(self.sizes[:-1]) + self.batch_size
        moved = np.abs(self.parameters - self.initial).max()
        return eps * (steps * np.abs(self.parameters).max() + 4 * longest * moved)

    def check(self, **kind):
        parameters, loss, correct = self.reference()
        got_loss, got_correct = self.run(**kind)
        tolerance = self.tolerance()
        for (weights, biases), (w, b) in zip(self.views, parameters, strict=True):
            assert np.abs(weights - w).max() <= tolerance
            assert np.abs(biases - b).max() <= tolerance
        assert np.abs(self.parameters - self.initial).max() > 100 * tolerance
        eps = float(np.finfo(self.dtype).eps)
        assert got_loss == pytest.approx(loss, rel=20 * sum(self.sizes) * eps)
        assert got_correct == correct
        # what is padding is zero still
        inside = np.zeros(len(self.parameters), bool)
        for weights, biases in self.views:
            for view in (weights, biases):
                start = (view.ctypes.data - self.parameters.ctypes.data) // view.itemsize
                step = view.strides[0] // view.itemsize if view.ndim == 2 else 0
                for row in range(view.shape[0] if view.ndim == 2 else 1):
                    inside[start + row * step :][: view.shape[-1]] = True
        assert not self.parameters[~inside].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("input_dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("sizes", SIZES)
def test_against_numpy(sizes, density, input_dtype, dtype):
    Case(sizes, dtype=dtype, input_dtype=input_dtype).check(density=density)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 8, 9, 65, 200, *once(31, 64, 128, 512)])
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_batch_sizes(batch_size, density, dtype):
    samples = min(600, batch_size * 3 - batch_size // 2)
    Case((70, 90, 80, 10), batch_size, samples, dtype).check(density=density)


@pytest.mark.parametrize("batch_size", [1, 7, 32])
@pytest.mark.parametrize("relu_between", [True, False])
@pytest.mark.parametrize("relu_last", [True, False])
def test_activations_where_they_may_stand(relu_between, relu_last, batch_size):
    sizes = (40, 30, 70, 20)
    Case(sizes, batch_size, relu_between=relu_between, relu_last=relu_last).check()


CACHED_BYTES = (4096, 30720, 46080, 1 << 20)
"""What kernels may keep in the first-level cache: little, as of 32 KB, of 48 KB, and a lot."""


@pytest.mark.parametrize("cached_bytes", CACHED_BYTES)
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_any_first_level_cache(cached_bytes, density, dtype, monkeypatch):
    """It decides how wide tiles are, what is copied, and the order of some sums."""
    monkeypatch.setattr(table, "CACHED_BYTES", cached_bytes)
    for sizes in SIZES:
        Case(sizes, dtype=dtype).check(density=density)
        Case(sizes, 64, 150, dtype).check(density=density)
    Case((784, 512, 512, 10), 64, 128, dtype, seed=1).check(density=density)


def test_caches_of_tests_are_of_several_kinds(dtype, monkeypatch):
    """Each field that depends on them has more than one value among them."""
    fields = ["scatter_tile", "gather_tile", "gather_units", "backward_tile"]
    found = []
    for cached_bytes in CACHED_BYTES:
        monkeypatch.setattr(table, "CACHED_BYTES", cached_bytes)
        layers = Case((784, 512, 512, 10), 64, dtype=dtype).program(0.2).training.layers
        copied = [layer["inputs_transposed"]["address"] != 0 for layer in layers]
        found.append([layers[name].tolist() for name in fields] + [copied])
    for of_caches in zip(*found, strict=True):
        assert len(set(map(tuple, of_caches))) > 1


def test_wide_and_deep_layers_in_chunks():
    Case((2000, 300, 1500, 10), 64, 128, density=0.1).check()
    Case((784, 512, 512, 10), 128, 300).check()
    Case((513, 600, 4), 8, 30).check()  # three words of units are no four chunks


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch_size", [1, 5, 32, 100])
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_workspace_holds_nothing_that_matters(batch_size, density, dtype):
    results = []
    for value in guards.FILLS:
        case = Case((61, 47, 83, 5), batch_size, 230, dtype)
        program = case.program(density)
        program.training.fill(value)
        loss, correct = case.run(program)
        results.append((case.parameters.tobytes(), loss, correct))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("batch_size", [1, 32])
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_a_stretch_in_two_calls_gives_the_same_bits(density, batch_size):
    whole, parts = Case((61, 47, 83, 5), batch_size), Case((61, 47, 83, 5), batch_size)
    expected = whole.run(density=density)
    program = parts.program(density)
    order = parts.order
    for part in (order[:64], order[64:]):
        parts.order = part
        got = parts.run(program)
    assert parts.parameters.tobytes() == whole.parameters.tobytes()
    assert got == expected


def test_who_lets_an_update_wait():
    """Single samples of dense input into a first layer that plain SGD moves."""

    def waits(batch_size=1, density=1.0, l2=0.0, rule="sgd", before=()):
        first, *rest = Case((40, 30, 5), batch_size).layers
        layers = [*before, replace(first, l2=l2, rule=description.Rule(rule)), *rest]
        table = Program(layers, batch_size=batch_size, density=density).training
        first, second = table.layers["update_by"][-2:]
        assert second != ONE_SAMPLE
        return first == ONE_SAMPLE

    assert waits()
    assert waits(before=[description.Elementwise("rescale", (0.5,))])
    assert not waits(batch_size=2)
    assert not waits(density=0.5)
    assert not waits(l2=0.1)
    assert not waits(rule="momentum")
    assert not waits(before=[description.Elementwise("relu")])


def test_who_updates_with_the_input_gradient():
    """Layers behind a ReLU that plain SGD moves: of few outputs, or where a word has a batch."""

    def in_one_pass(batch_size=32, l2=0.0, behind=()):
        first, relu, second, *rest = Case((40, 90, 80, 5), batch_size).layers
        layers = [first, relu, *behind, replace(second, l2=l2), *rest]
        ways = Program(layers, batch_size=batch_size).training.layers["gradient_by"]
        assert ways[0] == NO_GRADIENT
        few = lanes(4) >= 5 and batch_size > 2
        assert (ways[2] == WITH_UPDATE) == few
        return ways[1] == WITH_UPDATE

    assert in_one_pass()
    assert in_one_pass(batch_size=64)
    assert not in_one_pass(batch_size=65)
    assert not in_one_pass(batch_size=600)
    assert not in_one_pass(batch_size=2)
    assert not in_one_pass(l2=0.1)
    assert not in_one_pass(behind=[description.Elementwise("sigmoid")])
    assert not in_one_pass(behind=[description.Dropout(0.1, 1)])


def test_few_outputs_have_their_input_gradient_by_vectors_of_samples():
    # no ReLU right before them, so that no update comes with the gradient
    case = Case((70, 20, 300, 10), 4)
    layers = [*case.layers]
    for place in (3, 1):
        layers.insert(place + 1, description.Elementwise("sigmoid"))
    wide, narrow = Program(layers, batch_size=4).training.layers["gradient_by"][1:]
    if MACHINE.vector_bits > 128:  # with four samples a vector, one way takes as long as the other
        assert (wide, narrow) == (BY_ROWS, BY_COLUMNS)


def test_no_samples_move_nothing():
    case = Case((40, 30, 5), 1)
    case.parameters[0] = -0.0
    before = case.parameters.tobytes()
    case.order = case.order[:0]
    assert case.run(density=1.0) == (0.0, 0)
    assert case.parameters.tobytes() == before


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_every_step_has_its_own_rate(density, batch_size):
    whole, parts = Case((61, 47, 83, 5), batch_size), Case((61, 47, 83, 5), batch_size)
    rates = np.ones((len(whole.order), 3, 4))
    rates[..., 0] = np.random.default_rng(0).uniform(0.01, 0.2, rates.shape[:2])
    whole.rates = rates
    whole.run(density=density)
    program = parts.program(density)
    order = parts.order
    for step, start in enumerate(range(0, len(order), batch_size)):
        parts.order, parts.rates = order[start : start + batch_size], rates[step:]
        parts.run(program)
    assert parts.parameters.tobytes() == whole.parameters.tobytes()


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_nothing_infinite_stays_behind(density, batch_size):
    fresh, used = Case((61, 47, 83, 5), batch_size), Case((61, 47, 83, 5), batch_size)
    expected = fresh.run(density=density)
    program = used.program(density)
    used.run(program, np.where(used.samples == 0, np.float32(0), np.float32(1e30)))
    assert not np.isfinite(used.parameters).all()
    used.parameters[:] = used.initial
    program.start()
    assert used.run(program) == expected
    assert used.parameters.tobytes() == fresh.parameters.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("input_dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("samples", [1, 3, 64, 150])
def test_predict(samples, density, input_dtype, dtype):
    case = Case((61, 47, 83, 5), 32, 200, dtype, input_dtype)
    out = np.empty((samples, 5), dtype)
    case.program(density).predict(case.samples[:samples], case.parameters, out)
    expected, _ = case.logits(case.views, case.exact[:samples])
    bound = 4 * sum(case.sizes) * np.finfo(dtype).eps * np.abs(expected).max()
    assert np.abs(out - expected).max() <= bound


@pytest.mark.parametrize("input_dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("batch_size", [1, 32])
@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("units", [3, 16, 37, 64])
def test_reads_nothing_beyond_the_samples(units, density, batch_size, input_dtype):
    """Samples that end with the last byte of a page, before one that mustn't be read."""
    case = Case((units, 20, 4), batch_size, 70, input_dtype=input_dtype)
    page = mmap.PAGESIZE
    size = -(-case.samples.nbytes // page) * page
    region = mmap.mmap(-1, size + page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(region))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    assert protect(address + size, page, 0) == 0
    samples = np.frombuffer(
        region, case.samples.dtype, case.samples.size, size - case.samples.nbytes
    ).reshape(case.samples.shape)
    samples[:] = case.samples
    program = case.program(density)
    case.run(program, samples)
    out = np.empty((len(samples), 4), np.float32)
    program.predict(samples, case.parameters, out)
    assert np.isfinite(out).all()


def test_samples_at_an_odd_address():
    case, odd = Case((50, 20, 4)), Case((50, 20, 4))
    buffer = np.empty(case.samples.nbytes + 1, np.uint8)
    moved = buffer[1:].view(np.float32).reshape(case.samples.shape)
    moved[:] = case.samples
    assert odd.run(samples=moved) == case.run()
    assert odd.parameters.tobytes() == case.parameters.tobytes()


@pytest.mark.parametrize("batch_size", [3, 8, 33, 100])
@pytest.mark.parametrize("sizes", [(50, 20, 4), (37, 70, 5), (600, 130, 10)])
def test_samples_as_they_lie_give_the_bits_of_a_copy(sizes, batch_size, dtype, monkeypatch):
    """Dense ones; on one thread and in a team, in training and in prediction."""

    def trained(threads):
        case = Case(sizes, batch_size, dtype=dtype, input_dtype=dtype, density=1.0)
        program = case.program(1.0)
        arguments = case.samples, case.labels, case.order, case.parameters, case.rates
        sums = program.prepare(*arguments, threads=threads)()
        out = np.empty((len(case.samples), sizes[-1]), dtype)
        program.predict(case.samples, case.parameters, out)
        in_place = [bool(t.layers["sources"][0]) for t in (program.training, program.prediction)]
        return in_place, (sums, case.parameters.tobytes(), out.tobytes())

    # by narrow vectors the widest of these networks reads so much that it takes a copy
    monkeypatch.setattr(table, "IN_PLACE_BYTES", 1 << 30)
    in_place, lying = trained(1)
    assert in_place == [True, True]
    assert trained(2) == ([True, True], lying)
    monkeypatch.setattr(table, "IN_PLACE_BYTES", 0)
    assert trained(1) == ([False, False], lying)


def test_only_dense_samples_of_the_own_type_stay_where_they_lie():
    def in_place(input_dtype=np.float32, density=1.0, batch_size=32, sizes=(50, 20, 4)):
        case = Case(sizes, batch_size, input_dtype=input_dtype, density=1.0)
        return bool(case.program(density).training.layers["sources"][0])

    assert in_place()
    assert not in_place(np.float64)
    assert not in_place(np.uint8)
    assert not in_place(density=0.2)
    assert not in_place(batch_size=1)
    assert not in_place(sizes=(784, 1024, 4), batch_size=512)


def test_relu_keeps_nan_and_losses_report_it():
    case = Case((50, 20, 4))
    case.samples[case.order[0], 0] = np.nan
    loss, _ = case.run()
    assert np.isnan(loss)


def test_logits_of_minus_infinity_in_wrong_classes():
    case = Case((50, 20, 4))
    case.views[-1][1][3] = -np.inf
    case.labels %= 3
    loss, _ = case.run()
    assert np.isfinite(loss)
    assert np.isfinite(case.views[0][0]).all()


@pytest.mark.parametrize(
    ("layers", "part"),
    [
        ([], "no Dense"),
        ([description.Elementwise("relu"), description.Elementwise("rescale", (2.0,))], "no Dense"),
        ([description.Dense(4, 4, 0, 16, 256), description.Dense(5, 4, 0, 16, 256)], "5 inputs"),
        ([description.Dense(4, 4, 0, 16, 256), object()], "object"),
    ],
)
def test_why_not(layers, part):
    assert part in why_not(layers)
    with pytest.raises(ValueError, match=part):
        Program(layers)


@pytest.mark.parametrize("wrong", [-1, 4])
def test_class_ids_of_no_output_never_reach_a_kernel(wrong):
    case = Case((50, 20, 4))
    program = case.program()
    program.check_class_ids(case.labels)
    case.labels[-1] = wrong
    with pytest.raises(ValueError, match="y: expected class ids from 0 to 3, got "):
        program.check_class_ids(case.labels)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "poisson"])
def test_losses_without_classes_take_no_class_ids(loss):
    case = Case((50, 20, 1))
    program = Program(case.layers, loss, batch_size=8, dtype=case.dtype)
    with pytest.raises(TypeError, match="targets must be float32, not int64"):
        program.prepare(case.samples, case.labels, case.order, case.parameters, case.rates)


def test_wrong_arrays_never_reach_a_kernel():
    case = Case((50, 20, 4))
    with pytest.raises(TypeError, match="samples must be float32, not float64"):
        case.program().prepare(case.exact, case.labels, case.order, case.parameters, case.rates)()
    with pytest.raises(ValueError, match="samples must be a C-contiguous array of any x 50"):
        case.run(samples=case.samples[:, ::2])
    arguments = (case.samples, case.labels, case.order, case.parameters, case.rates)
    for place, name, wrong, error in (
        (1, "targets", case.labels.astype(np.int32), TypeError),
        (1, "targets", case.labels[1:], ValueError),
        (2, "order", case.order.astype(np.int32), TypeError),
        (2, "order", case.order[::2], ValueError),
        (3, "parameters", case.parameters.astype(np.float64), TypeError),
        (3, "parameters", case.parameters[:-16], ValueError),
        (3, "parameters", case.parameters[1:], ValueError),
        (4, "rates", case.rates[..., :3], ValueError),
    ):
        given = [*arguments[:place], wrong, *arguments[place + 1 :]]
        with pytest.raises(error, match=f"^{name} must "):
            case.program().prepare(*given)
    for count in (0, len(case.order) + 1):
        with pytest.raises(ValueError, match=f"^order must be of {count} equal epochs"):
            case.program().prepare(*arguments, totals=np.zeros(count, TOTALS))
    with pytest.raises(ValueError, match="out must be"):
        case.program().predict(case.samples, case.parameters, np.empty((3, 4), np.float32))


def test_no_compilation_for_another_shape():
    from fastnn.backends.numba_backend.epoch.step import run_batches

    Case((50, 20, 4)).run()
    compiled = run_batches.variants
    Case((31, 7, 9, 2), 5, input_dtype=np.uint8).run(density=1.0)
    Case((31, 7, 9, 2), 1, input_dtype=np.float64).run()
    assert run_batches.variants == compiled


def test_without_a_writable_cache(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(cache, "_warned", False)
    monkeypatch.setattr(cache, "numba_setting", lambda *_: str(tmp_path / "file" / "folder"))
    monkeypatch.setattr(cache, "places", cache.places.__wrapped__)
    monkeypatch.setattr(jit, "_is_ours", lambda symbol: True)
    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR") as warned:
        answers = [jit.Function(function)(1) for function in (successor, double)]
    assert len(warned) == 1
    assert answers == [2, 2]


def unknown(x):
    return x.unknown


def successor(x):
    return x + 1


def double(x):
    return 2 * x


@pytest.mark.once
def test_what_is_cached_needs_no_compiler(tmp_path):
    """Not the process that finds the code of another one, until it has to compile."""
    program = """
import sys
from pathlib import Path
import numpy as np
import fastnn
network = fastnn.Network([fastnn.Dense(3, 2)], backend="numba", seed=0)
print(network.fit(np.eye(3), [0, 1, 0]).loss, network.predict_proba(np.eye(3)))
print("numba" in sys.modules)
from fastnn.backends.numba_backend import jit
jit.cache.places = lambda: [Path(sys.argv[1])]
print(jit.jit(lambda x: x + 1)(1), "numba" in sys.modules)
"""

    def output() -> str:
        return subprocess.check_output(
            [sys.executable, "-c", program, tmp_path],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            text=True,
        )

    network = fastnn.Network([fastnn.Dense(3, 2)], backend="numba", seed=0)
    loss = network.fit(np.eye(3), [0, 1, 0]).loss
    expected = f"{loss} {network.predict_proba(np.eye(3))}\n"
    assert output().startswith(expected)  # compiled by now, if it was not yet
    assert output() == f"{expected}False\n2 True\n"


@pytest.mark.once
def test_a_change_in_any_room_compiles_anew(tmp_path):
    """Numba alone would see a change in a kernel's own file only."""
    package = tmp_path / "fastnn"
    shutil.copytree(ROOT / "fastnn", package, ignore=shutil.ignore_patterns("mnist", "__pycache__"))
    program = """
import importlib, pathlib
from fastnn.backends.numba_backend.compiling import cache, sources
print(cache.VARIANT)
for file in {file.parent: file for file in sources.HERE.rglob("*.py")}.values():  # one of each
    file.write_text(file.read_text() + "# changed\\n")
    for module in (sources, cache):
        importlib.reload(module)
    print(cache.VARIANT)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert len(set(done.stdout.split())) == len(done.stdout.split()) == 1 + 5


@pytest.mark.once
def test_a_damaged_kernel_file_costs_time_only(tmp_path):
    """Kernels with machine code of their own lie in object files, which begin with a digest."""
    program = "import fastnn, numpy\nprint(fastnn.ELU().forward(numpy.zeros((1, 1))))\n"
    environment = os.environ | {
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "FASTNN_BACKEND": "numba",
    }

    def output():
        done = subprocess.run(
            [sys.executable, "-c", program], text=True, capture_output=True, env=environment
        )
        assert "[[0.]]" in done.stdout, done.stderr
        return done.stderr

    assert output() == ""
    paths = [path for path in tmp_path.rglob("*.o") if path.stat().st_size > 32]
    assert len(paths) == 2  # a kernel, and the function that calls it
    path = max(paths, key=lambda path: path.stat().st_size)
    whole = path.read_bytes()
    for damaged in (b"", whole[:40], whole[:-1], bytes(32) + whole[32:]):
        path.write_bytes(damaged)
        assert output() == ""
        assert path.read_bytes() == whole
    path.unlink()
    path.mkdir()  # cannot be written
    (path / "full").touch()
    assert output().count("compiles its kernels anew") == 1
    assert len(list(path.parent.glob("*.o*"))) == 3  # nothing half written is left


@pytest.mark.skipif(sys.platform == "win32", reason="file locks are of POSIX")
@pytest.mark.once
def test_processes_that_start_together_compile_once(tmp_path):
    """And one that is killed while it compiles keeps nobody waiting."""
    program = """
import sys, time
import numpy as np
from fastnn.backends.numba_backend import jit
from fastnn.backends.numba_backend.layerwise.losses import softmax

compiled, keep = 0, jit.cache.keep

def slowly(name, content):
    global compiled
    if "softmax.f4" in name:
        compiled += 1
        print("compiled", flush=True)
        time.sleep(float(sys.argv[1]))  # all others have come meanwhile
    keep(name, content)

jit.cache.keep = slowly
one = np.ones((1, 1), np.float32)
softmax(one[0, 0], 4, id(one), id(one))
print(one[0, 0], compiled)
"""
    path = tmp_path / "program.py"
    path.write_text(program)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)}

    def start(seconds: float) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, path, str(seconds)], env=environment, text=True, stdout=subprocess.PIPE
        )

    with start(1000) as killed:
        assert killed.stdout.readline() == "compiled\n"
        killed.kill()
    processes = [start(1) for _ in range(3)]
    printed = [process.communicate(timeout=60)[0] for process in processes]
    assert sorted(printed) == ["1.0 0\n", "1.0 0\n", "compiled\n1.0 1\n"]


@pytest.mark.once
def test_a_turn_that_is_not_given_back_is_waited_for_once(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "LONGEST_WAIT", 0.1)
    monkeypatch.setattr(cache, "places", lambda: [tmp_path])
    turn = cache.Turn()
    with (tmp_path / "fastnn.lock").open("ab") as other:
        assert locked(other.fileno())
        with pytest.warns(RuntimeWarning, match="no longer waits for it"), turn.taken():
            pass
        for _ in range(3):  # without a warning, which would be an error
            with turn.taken():
                pass


def nobody_has_the_turn(folder):
    with (folder / "fastnn.lock").open("ab") as file:
        return locked(file.fileno())


@pytest.mark.once
def test_what_can_not_be_compiled_gives_its_turn_back(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "places", lambda: [tmp_path])
    with pytest.raises(TypingError):
        jit.jit(unknown)(1)
    assert nobody_has_the_turn(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="file locks are of POSIX")
def test_a_child_that_has_the_file_open_does_not_keep_the_turn(tmp_path, monkeypatch):
    """As one has that was forked by another thread just when the file was opened."""
    monkeypatch.setattr(cache, "places", lambda: [tmp_path])
    turn = cache.Turn()
    with turn.taken():
        of_child = os.dup(turn._file.fileno())
        assert not nobody_has_the_turn(tmp_path)
    assert nobody_has_the_turn(tmp_path)
    os.close(of_child)


@pytest.mark.skipif(sys.platform == "win32", reason="file locks are of POSIX")
def test_who_has_its_code_waits_for_nobody(tmp_path, monkeypatch):
    """While another thread waits for another process."""
    jit.jit(successor)(1)
    monkeypatch.setattr(cache, "LONGEST_WAIT", 10.0)
    monkeypatch.setattr(cache, "places", lambda: [tmp_path])
    thread = threading.Thread(target=lambda: jit.jit(lambda x: 3 * x)(1))
    with (tmp_path / "fastnn.lock").open("ab") as other:
        assert locked(other.fileno())
        thread.start()
        while cache.TURN._file is None:
            time.sleep(0.01)
        assert jit.jit(successor)(1) == 2
        assert thread.is_alive()
    thread.join()


# ------------------------------------------------------------------------- microkernels


@microkernel
def note_prefetches(
    k: Kernel, samples: Address, row_bytes: Int, order: Address, count: Int, first: Int,
    nbytes: Int, last: Int, log: Address,
) -> None:  # fmt: skip
    """What `prefetch_rows` asks for: log[0] addresses behind it, in the order of asking."""

    def prefetch(address):
        number = k.load_integer(log) + 1
        k.store_integer(number, log)
        k.store_integer(address, log + number * 8)

    k.prefetch = prefetch
    loading.prefetch_rows.write(k, samples, row_bytes, order, count, first, nbytes, last)


@jit.jit
def call_note_prefetches(samples, row_bytes, order, count, first, nbytes, last, log):
    note_prefetches(samples, row_bytes, order, count, first, nbytes, last, log)


@pytest.mark.parametrize("row_bytes", [64, 784, 800, 3136])
@pytest.mark.parametrize("nbytes", [16, 64, 100, 256])
def test_the_lines_of_samples_are_asked_for(row_bytes, nbytes):
    """Part by part, as a step does: every line of these samples, and nothing else.

    Nobody else would notice, as prefetching loads nothing.
    """
    samples, order = 1 << 20, np.array([5, 0, 7], np.int64)
    log = np.zeros(4 * row_bytes, np.int64)
    for first in range(0, row_bytes, nbytes):
        call_note_prefetches(
            samples, row_bytes, order.ctypes.data, len(order), first, nbytes, row_bytes - 1,
            log.ctypes.data,
        )  # fmt: skip
    asked = log[1 : 1 + log[0]] - samples
    assert set(asked // row_bytes) == set(order)
    # the line of a first part may begin before the row
    lines = {
        line
        for row in order
        for line in range(row * row_bytes // 64, ((row + 1) * row_bytes - 1) // 64 + 1)
    }
    assert set(asked // 64) == lines


@microkernel
def exponential_of(k: Kernel, like: Real, x: Int, y: Int, vectors: Int) -> None:
    """y = exp(x) for vectors of numbers that are not positive."""
    with k.loop(0, vectors) as j:
        k.store(exponential(k, k.load(x + j * k.vector_bytes)), y + j * k.vector_bytes)


@jit.jit
def call_exponential(like, x, y, vectors):
    exponential_of(like, x, y, vectors)


@jit.jit
def call_transpose(like, source, target):
    rows.transpose(like, source, target)


@jit.jit
def call_matmul(alpha, A, B, C, keep):
    matmul.matmul(alpha, A, B, C, keep)


@jit.jit
def call_matmul_transposed(like, A, B, C):
    matmul.matmul_transposed(like, A, B, C)


@jit.jit
def call_gather(alpha, V, values, bits, M, C, group, keep):
    rows.nonzero_bits(alpha, V, bits)
    sparse.gather(alpha, values, bits, M, C, group, keep, C)


@jit.jit
def call_scatter(alpha, V, values, bits, M, C, group):
    rows.nonzero_bits(alpha, V, bits)
    sparse.scatter(alpha, values, bits, M, C, group)


@jit.jit
def call_turn_bits(bits, target):
    rows.turn_bits(bits, target)


@jit.jit
def call_load_nonzeros(scale, samples, row_bytes, order, first, code, target, bits):
    loading.load_nonzeros(scale, samples, row_bytes, order, first, code, target, bits)


def matrix(array, rows, columns):
    """The first rows and columns of an array as kernels take them."""
    return Matrix(array.ctypes.data, *array.strides, rows, columns)


def aligned(values, dtype):
    """Copy a matrix to aligned, padded rows."""
    stride = memory.row_stride(values.shape[1], np.dtype(dtype))
    count = memory.round_up(values.shape[0], memory.ROW_BLOCK)
    whole = memory.aligned_zeros(count * stride, np.dtype(dtype)).reshape(count, stride)
    whole[: values.shape[0], : values.shape[1]] = values
    return whole


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 1.5e-7), (np.float64, 4.5e-16)])
def test_exponential(dtype, bound):
    lowest = -87.0 if dtype == np.float32 else -708.0
    x = memory.aligned_zeros(1 << 16, np.dtype(dtype))
    x[:] = np.linspace(lowest, 0, len(x))
    x[:4] = 0, -np.inf, np.nan, 2 * lowest
    y = memory.aligned_zeros(len(x), np.dtype(dtype))
    call_exponential(dtype(1), x.ctypes.data, y.ctypes.data, len(x) // lanes(x.itemsize))
    assert y[0] == 1
    assert y[1] == 0
    assert np.isnan(y[2])
    assert y[3] == 0
    exact = np.exp(x[4:].astype(np.longdouble))
    assert np.abs(y[4:] / exact - 1).max() < bound


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transpose(dtype):
    length = lanes(np.dtype(dtype).itemsize)
    source = aligned(np.random.default_rng(0).random((3 * length, 2 * length)), dtype)
    target = aligned(np.zeros((2 * length, 3 * length)), dtype)
    call_transpose(
        dtype(1),
        matrix(source, 3 * length, 2 * length),
        matrix(target, 2 * length, 3 * length),
    )
    got = target[: 2 * length, : 3 * length]
    assert np.array_equal(got, source[: 3 * length, : 2 * length].T)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(1, 1, 1), (5, 3, 20), (8, 600, 70), (33, 17, 250), (3, 2 * MACHINE.block_inner + 5, 40)],
)
def test_matmul(m, k, n, keep, transposed, dtype):
    rng = np.random.default_rng(0)
    a = aligned(rng.standard_normal((k, m) if transposed else (m, k)), dtype)
    b = aligned(rng.standard_normal((k, n)), dtype)
    c = aligned(rng.standard_normal((m, n)), dtype)
    before = c.astype(np.float64)
    a = a.T if transposed else a
    call_matmul(dtype(0.5), matrix(a, m, k), matrix(b, k, n), matrix(c, m, n), keep)
    product = 0.5 * a[:m, :k].astype(np.float64) @ b[:k, :n].astype(np.float64)
    expected = keep * before[:m, :n] + product
    scale = np.abs(a[:m, :k]).astype(np.float64) @ np.abs(b[:k, :n]) + 1
    assert np.all(np.abs(c[:m, :n] - expected) <= (k + 2) * np.finfo(dtype).eps * scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_matmul_transposed(dtype):
    rng = np.random.default_rng(0)
    length = lanes(np.dtype(dtype).itemsize)
    a = aligned(rng.standard_normal((3, 50)), dtype)
    b = aligned(rng.standard_normal((2 * length, 50)), dtype)
    c = aligned(np.zeros((3, 2 * length)), dtype)
    call_matmul_transposed(
        dtype(1), matrix(a, 3, 50), matrix(b, 2 * length, 50), matrix(c, 3, 2 * length)
    )
    expected = a[:3, :50].astype(np.float64) @ b[: 2 * length, :50].T.astype(np.float64)
    assert np.allclose(c[:3, : 2 * length], expected, atol=60 * np.finfo(dtype).eps * 8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("vectors", [1, 2, 3, 5, MACHINE.gather_vectors])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.2, 1.0])
def test_products_that_skip_zeros(density, vectors, dtype):
    rng = np.random.default_rng(0)
    length = lanes(np.dtype(dtype).itemsize)
    count, width = 10, vectors * length
    eps = np.finfo(dtype).eps
    for words, group in ((1, 1), (1, 2), (2, 1)):  # two words of single rows alone
        if group == 2 and vectors > MACHINE.scatter_vectors:
            continue
        inner = 64 * words
        dense = rng.standard_normal((count, inner)) * (rng.random((count, inner)) < density)
        V = aligned(dense, dtype)
        # of pairs, numbers of neighbouring rows lie side by side
        values = aligned(dense.T, dtype).T if group == 2 else V
        sets = np.zeros((words, count), np.int64).T
        sparse_operand = (
            matrix(V, count, inner), matrix(values, count, inner), matrix(sets, count, words)
        )  # fmt: skip
        m = aligned(rng.standard_normal((inner, width)), dtype)
        for keep in (0, 1):
            c = aligned(rng.standard_normal((count, width)), dtype)
            expected = keep * c[:count, :width] - 0.5 * dense @ m[:, :width].astype(np.float64)
            if not keep:  # rows without a non-zero become zero too
                c[:] = np.nan
            operands = matrix(m, inner, width), matrix(c, count, width)
            call_gather(dtype(-0.5), *sparse_operand, *operands, group, keep)
            assert np.abs(c[:count, :width] - expected).max() <= 5 * inner * eps
        if words == 2 or vectors > MACHINE.scatter_vectors:
            continue
        m = aligned(rng.standard_normal((count, width)), dtype)
        c = aligned(rng.standard_normal((64, width)), dtype)
        expected = c[:, :width] - 0.5 * dense.T @ m[:count, :width].astype(np.float64)
        operands = matrix(m, count, width), matrix(c, 64, width)
        call_scatter(dtype(-0.5), *sparse_operand, *operands, group)
        assert np.abs(c[:, :width] - expected).max() <= 100 * eps


@pytest.mark.parametrize("count", [1, 17, 63, 64])
def test_sets_are_turned(count):
    """What lies behind the rows doesn't count."""
    rng = np.random.default_rng(count)
    sets = rng.integers(-(2**63), 2**63, (64, 1))
    turned = np.full((64, 1), -1)
    call_turn_bits(matrix(sets, count, 1), matrix(turned, 64, 1))
    for unit in range(64):
        members = [row for row in range(count) if sets[row, 0].item() >> unit & 1]
        assert turned[unit, 0].item() % 2**64 == sum(1 << row for row in members)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("units", [1, 3, 64, 77, 150])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_and_the_sets_of_their_nonzeros(dtype, kind, units, ordered):
    """Of rows that end where the mapped memory does, some columns; -0 is zero and NaN is not."""
    rng = np.random.default_rng(units)
    numbers = rng.integers(0, 3, (9, units + 5)).astype(kind)
    if kind != np.uint8:
        numbers[::2] *= -1.5
        numbers[3, 5] = np.nan
    samples = at_the_end_of_memory(numbers)
    order = rng.permutation(9)
    count, words = 7, -(-units // 64)
    target = aligned(np.full((count, units), np.nan), dtype)
    sets = np.full((words, count), -1).T
    call_load_nonzeros(
        dtype(0.5), samples.ctypes.data + 5 * samples.itemsize, samples.strides[0],
        order.ctypes.data if ordered else 0, 2, INPUT_CODES[np.dtype(kind)],
        matrix(target, count, units), matrix(sets, count, words),
    )  # fmt: skip
    taken = numbers[order[2:] if ordered else slice(2, None), 5:]
    np.testing.assert_array_equal(target[:count, :units], dtype(0.5) * taken.astype(dtype))
    found = np.unpackbits(np.ascontiguousarray(sets).view(np.uint8), axis=1, bitorder="little")
    np.testing.assert_array_equal(found[:, :units], taken != 0)
    assert not found[:, units:].any()


@pytest.mark.parametrize("strides", ["negative", "zero", "gaps"])
def test_rates_are_read_by_their_strides(strides, monkeypatch):
    """Whatever the strides between steps are, kernels read the numbers that NumPy would."""
    import fastnn
    from fastnn import paths, schedules

    rate = 0.1 if strides == "zero" else schedules.StepDecay(0.1, 0.5, 1)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 3)), rng.integers(0, 2, 40)
    made = paths._rates

    def rearranged(*arguments):
        rates = made(*arguments)
        if strides == "zero":
            return np.broadcast_to(rates[:1], (5, *rates.shape[1:]))
        if len(rates) == 0:
            return rates
        if strides == "negative":
            return rates[::-1].copy()[::-1]
        wide = np.full((3 * len(rates), *rates.shape[1:]), np.nan)
        wide[::3] = rates
        return wide[::3]

    found = []
    for change in (False, True):
        if change:
            monkeypatch.setattr(paths, "_rates", rearranged)
        network = fastnn.Network([fastnn.Dense(3, 2, rate)], backend="numba", seed=0)
        assert network.explain().startswith("compiled epoch")
        network.fit(X, y, batch_size=8)
        found.append(network[0].weights.copy())
    np.testing.assert_array_equal(*found)
