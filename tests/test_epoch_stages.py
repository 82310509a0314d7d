"""Stages and squared error of the compiled epoch against the same mathematics in NumPy float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import once
from elementwise import BY_NAME

from fastnn import guards, memory
from fastnn.backends.description import BatchNorm, Dense, Dropout, Elementwise
from fastnn.backends.numba_backend import jit as jit_module
from fastnn.backends.numba_backend.compiling import cache
from fastnn.backends.numba_backend.epoch import blocks, stages
from fastnn.backends.numba_backend.epoch.program import Program, why_not
from fastnn.backends.numba_backend.jit import call, jit
from fastnn.backends.numba_backend.machine import lanes

pytestmark = [pytest.mark.every_width, pytest.mark.checked_build]

RATE = 0.1
KEY = 2**63 + 12345
MOMENTUM, EPSILON = 0.9, 1e-5

D = "dense"
MIXED = (30, D, 50, "norm", "relu", "dropout", D, 33, "tanh", D, 20, "sigmoid", D, 5)
"""A network by its units and layers, as `Case` reads it."""


class Case:
    """A network with random parameters, its data, and the reference result."""

    def __init__(
        self, *spec, loss="softmax_cross_entropy", batch_size=32, samples=100, dtype=np.float32,
        input_dtype=None, density=0.4, real_targets=False, smoothing=0.0, seed=0,
    ):  # fmt: skip
        self.smoothing = smoothing
        rng = np.random.default_rng(seed)
        self.loss, self.batch_size, self.dtype = loss, batch_size, np.dtype(dtype)
        self.layers, self.views, self._size = [], [], 0
        units, values = spec[0], []
        words = iter(spec[1:])
        for word in words:
            if word == D:
                outputs = next(words)
                weights = rng.standard_normal((units, outputs)) * np.sqrt(2 / (units + outputs))
                values.append([weights, 0.1 * rng.standard_normal(outputs)])
                w, b = self._slot(units, outputs), self._slot(1, outputs)
                self.layers.append(Dense(units, outputs, *w, b[0]))
                units = outputs
            elif word == "norm":
                mean, variance = 0.1 * rng.standard_normal(units), 0.5 + rng.random(units)
                scale, shift = 0.5 + rng.random(units), 0.1 * rng.standard_normal(units)
                values.append([scale, shift, mean, variance])
                slots = [self._slot(1, units)[0] for _ in range(4)]
                self.layers.append(BatchNorm(units, *slots, MOMENTUM, EPSILON))
            else:
                self.layers.append(
                    Dropout(0.3, KEY + len(self.layers)) if word == "dropout" else described(word)
                )
        self.parameters = memory.aligned_zeros(self._size, self.dtype)
        for layer, numbers in zip(self.learned(), values, strict=True):
            views = self._views(layer)
            for view, number in zip(views, numbers, strict=True):
                view[:] = number
            self.views.append(views)
        self.initial = self.parameters.copy()
        total = 2 * samples
        X = rng.standard_normal((total, spec[0])) * (rng.random((total, spec[0])) < density)
        self.samples = np.ascontiguousarray(X, input_dtype or self.dtype)
        if input_dtype == np.uint8:
            self.samples = rng.integers(0, 4, X.shape).astype(np.uint8)
        self.targets = rng.integers(0, units, total)
        if real_targets:
            self.targets = rng.standard_normal((total, units)).astype(self.dtype)
        if loss == "poisson":
            self.targets = rng.poisson(2.0, (total, units)).astype(self.dtype)
        if loss == "binary_cross_entropy":
            self.targets = rng.integers(0, 2, (total, units)).astype(self.dtype)
            if real_targets:
                self.targets = rng.random((total, units)).astype(self.dtype)
        self.order = rng.permutation(total)[:samples]
        self.steps = np.array([7, 3, 0, 11], np.int64)[: self.count(Dropout)]
        self.rates = np.linspace(RATE, RATE / 2, len(self.views))

    def _slot(self, rows, units):
        stride = memory.row_stride(units, self.dtype)
        offset = self._size
        self._size += (memory.round_up(rows, memory.ROW_BLOCK) if rows > 1 else 1) * stride
        return offset, stride

    def _views(self, layer):
        if isinstance(layer, Dense):
            w, stride, outputs = layer.weights_offset, layer.row_stride, layer.output_units
            weights = self.parameters[w : w + layer.input_units * stride].reshape(-1, stride)
            return [weights[:, :outputs], self.parameters[layer.biases_offset :][:outputs]]
        places = (
            layer.scale_offset,
            layer.shift_offset,
            layer.running_mean_offset,
            layer.running_variance_offset,
        )
        return [self.parameters[place:][: layer.units] for place in places]

    def count(self, kind):
        return sum(isinstance(layer, kind) for layer in self.layers)

    def learned(self):
        return [la for la in self.layers if isinstance(la, Dense | BatchNorm)]

    def program(self, density=0.4):
        return Program(
            self.layers, self.loss, batch_size=self.batch_size, dtype=self.dtype,
            input_dtype=self.samples.dtype, density=density, label_smoothing=self.smoothing,
        )  # fmt: skip

    def run(self, program=None, **kind):
        steps = -(-len(self.order) // self.batch_size)
        ones = np.ones_like(self.rates)
        rates = np.stack([self.rates, ones, 0 * ones, ones], axis=1)
        return (program or self.program(**kind)).prepare(
            self.samples, self.targets, self.order, self.parameters,
            np.broadcast_to(rates, (steps, *rates.shape)), dropout_steps=self.steps,
        )()  # fmt: skip

    def reference(self):
        """The same steps, slowly: parameters, sum of losses, right answers."""
        parameters = [[view.astype(np.float64) for view in views] for views in self.views]
        loss, correct = 0.0, 0
        for step, start in enumerate(range(0, len(self.order), self.batch_size)):
            chosen = self.order[start : start + self.batch_size]
            X = self.samples[chosen].astype(np.float64)
            output, tape = forward(self.layers, parameters, X, self.steps + step)
            numbers = (self.smoothing,) if self.smoothing else ()
            value, right, gradient = LOSSES[self.loss](output, self.targets[chosen], *numbers)
            loss, correct = loss + value, correct + right
            backward(tape, gradient, self.rates)
        return parameters, loss, correct

    def tolerance(self):
        """Rounding: of the parameters at each step, and of sums as long as the layers are wide."""
        eps = float(np.finfo(self.dtype).eps)
        steps = -(-len(self.order) // self.batch_size)
        widths = [la.input_units for la in self.layers if isinstance(la, Dense)]
        longest = sum(widths) + self.batch_size
        moved = np.abs(self.parameters - self.initial).max()
        return eps * (steps * np.abs(self.parameters).max() + 4 * longest * moved)

    def check(self, **kind):
        parameters, loss, correct = self.reference()
        got_loss, got_correct = self.run(**kind)
        tolerance = self.tolerance()
        for views, numbers in zip(self.views, parameters, strict=True):
            for view, number in zip(views, numbers, strict=True):
                assert np.abs(view - number).max() <= tolerance
        assert np.abs(self.parameters - self.initial).max() > 100 * tolerance
        assert got_loss == pytest.approx(loss, rel=1e3 * float(np.finfo(self.dtype).eps))
        assert got_correct == correct
        # what is padding is zero still
        for views in self.views:
            for view in views:
                view[:] = 0
        assert not self.parameters.any()


def described(name: str) -> Elementwise:
    """What the layer of an elementwise function tells of itself."""
    return BY_NAME[name].layer._describe(0)


def forward(layers, parameters, X, steps, training=True):
    """Output of a network, and for each layer a function from gradient to gradient."""
    tape, learned, steps = [], enumerate(parameters), iter(steps)
    for layer in layers:
        if isinstance(layer, Dense | BatchNorm):
            number, values = next(learned)
        if isinstance(layer, Dense):
            X, back = dense(X, *values, number)
        elif isinstance(layer, BatchNorm) and training:
            X, back = norm(X, *values, number)
        elif isinstance(layer, BatchNorm):
            scale, shift, mean, variance = values
            X = scale * (X - mean) / np.sqrt(variance + EPSILON) + shift
        elif isinstance(layer, Dropout):
            mask = keep(layer, next(steps), X.shape) if training else 1.0
            X, back = X * mask, lambda g, rates, mask=mask: g * mask
        else:
            row = BY_NAME[layer.function]
            slope = sum(row.slope(X))
            X, back = row.exact(X), lambda g, rates, slope=slope: g * slope
        if training:
            tape.append(back)
    return X, tape


def backward(tape, gradient, rates):
    for back in reversed(tape):
        gradient = back(gradient, rates)


def dense(X, weights, biases, number):
    output = X @ weights + biases

    def back(gradient, rates):
        below = gradient @ weights.T
        weights[:] -= rates[number] * (X.T @ gradient)
        biases[:] -= rates[number] * gradient.sum(axis=0)
        return below

    return output, back


def norm(X, scale, shift, running_mean, running_variance, number):
    mean, variance = X.mean(axis=0), X.var(axis=0)
    if len(X) > 1:  # one sample has no variance
        running_mean[:] = MOMENTUM * running_mean + (1 - MOMENTUM) * mean
        running_variance[:] = MOMENTUM * running_variance + (1 - MOMENTUM) * variance
    deviation = np.sqrt(variance + EPSILON)
    normal = (X - mean) / deviation
    output = scale * normal + shift

    def back(gradient, rates):
        dscale, dshift = (gradient * normal).sum(axis=0), gradient.sum(axis=0)
        below = scale / deviation * (gradient - (dshift + normal * dscale) / len(X))
        scale[:] -= rates[number] * dscale
        shift[:] -= rates[number] * dshift
        return below

    return output, back


def keep(layer, step, shape):
    """What dropout multiplies by, drawn with NumPy's own generator."""
    words = np.random.Philox(key=layer.key, counter=[0, step, 0, 0]).random_raw(
        -(-shape[0] * shape[1] // 2)
    )
    words = words.view(np.uint32)[: shape[0] * shape[1]].reshape(shape)
    return (words.astype(np.uint64) >= round(layer.p * 2**32)) / (1 - layer.p)


def cross_entropy(output, labels, smoothing=0.0):
    targets = np.full(output.shape, smoothing / output.shape[1])
    targets[np.arange(len(output)), labels] += 1 - smoothing
    shifted = output - output.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    sums = powers.sum(axis=1, keepdims=True)
    loss = (targets * (np.log(sums) - shifted)).sum()
    gradient = powers / sums - targets
    return loss, (output.argmax(axis=1) == labels).sum(), gradient / len(output)


def squared_error(output, targets):
    correct = 0
    if targets.ndim == 1:
        correct = (output.argmax(axis=1) == targets).sum()
        targets = np.eye(output.shape[1])[targets]
    error = output - targets
    return (error**2).mean(axis=1).sum(), correct, 2 * error / error.size


def binary_cross_entropy(output, targets, smoothing=0.0):
    correct = ((output > 0) == targets).all(axis=1).sum()
    targets = targets + smoothing * (0.5 - targets)
    losses = targets * np.logaddexp(0, -output) + (1 - targets) * np.logaddexp(0, output)
    return losses.sum(), correct, (1 / (1 + np.exp(-output)) - targets) / len(output)


def half_squared_error(output, targets):
    loss, correct, gradient = squared_error(output, targets)
    return loss * output.shape[1] / 2, correct, gradient * output.shape[1] / 2


def poisson(output, targets):
    rates = np.exp(output)
    return (rates - targets * output).sum(), 0, (rates - targets) / len(output)


LOSSES = {
    "softmax_cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "mse": squared_error,
    "half_squared_error": half_squared_error,
    "poisson": poisson,
}

STAGES = ("dropout", "norm", *BY_NAME)

PAIRED = ("dropout", "norm", "relu", "rescale", "sigmoid", "silu", "tanh")
"""Of elementwise functions, some whose derivative is computed from input, output and neither."""


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch_size", [1, 33, *once(7)])
@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_between_and_last(stage, batch_size, dtype):
    kind = {"batch_size": batch_size, "samples": min(100, 4 * batch_size), "dtype": dtype}
    Case(20, D, 37, stage, D, 40, stage, D, 5, **kind).check()
    Case(20, D, 37, "relu", stage, D, 3, stage, **kind).check(density=1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch_size", [1, 33, *once(7, 100)])
@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_before_the_first_dense_layer(stage, batch_size, dtype):
    kind = {"batch_size": batch_size, "samples": 100, "dtype": dtype}
    Case(21, stage, D, 37, "relu", D, 5, **kind).check()
    Case(21, "rescale", "norm", stage, D, 5, **kind).check(density=1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("input_dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("batch_size", [1, 32])
def test_any_samples_as_a_block(batch_size, input_dtype, dtype):
    spec = (21, "rescale", "dropout", D, 37, "relu", D, 5)
    Case(*spec, batch_size=batch_size, input_dtype=input_dtype, dtype=dtype).check()


@pytest.mark.once
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pair", list(itertools.product(PAIRED, PAIRED)), ids="-".join)
def test_pairs_of_stages(pair, dtype):
    Case(20, D, 37, *pair, D, 40, "relu", *pair, D, 5, dtype=dtype, batch_size=16).check()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("batch_size", [1, 33, 130, *once(7, 32)])
def test_mixed(batch_size, loss, dtype):
    samples = max(60, 2 * batch_size - 5)
    Case(*MIXED, loss=loss, batch_size=batch_size, samples=samples, dtype=dtype).check()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", ["binary_cross_entropy", "mse", "half_squared_error", "poisson"])
@pytest.mark.parametrize("real_targets", [False, True])
@pytest.mark.parametrize("units", [1, 5, 16, 35])
def test_losses_of_rows(units, real_targets, loss, dtype):
    kind = {"loss": loss, "real_targets": real_targets, "dtype": dtype}
    for batch_size in (1, 7, 33):
        Case(20, D, 37, "tanh", D, units, "tanh", batch_size=batch_size, **kind).check()
    Case(20, D, units, **kind).check()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize("units", [2, 5, 16, 35])
@pytest.mark.parametrize("batch_size", [1, 33, *once(7)])
def test_label_smoothing(batch_size, units, loss, dtype):
    kind = {"loss": loss, "batch_size": batch_size, "dtype": dtype, "smoothing": 0.2}
    Case(20, D, 37, "tanh", D, units, "tanh", **kind).check()
    Case(20, D, units, **kind).check()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("batch_size", [1, 5, *once(32)])
def test_workspace_holds_nothing_that_matters(batch_size, loss, dtype):
    results = []
    for value in guards.FILLS:
        case = Case(30, "norm", *MIXED[1:], loss=loss, batch_size=batch_size, dtype=dtype)
        program = case.program()
        program.training.fill(value)
        results.append((*case.run(program), case.parameters.tobytes()))
    assert results[0] == results[1] == results[2]


def test_a_stretch_in_two_calls_gives_the_same_bits():
    whole, parts = Case(*MIXED), Case(*MIXED)
    expected = whole.run()
    program, order = parts.program(), parts.order
    for part in (order[:64], order[64:]):
        parts.order = part
        got = parts.run(program)
        parts.steps += 2
    assert parts.parameters.tobytes() == whole.parameters.tobytes()
    assert got == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("samples", [1, 63, 150])
def test_predict(samples, dtype):
    for spec in (MIXED, (30, "dropout", "norm", "sigmoid", D, 20, "relu", "norm", D, 7, "tanh")):
        case = Case(*spec, dtype=dtype)
        expected, _ = forward(
            case.layers, case.views, case.samples[:samples].astype(np.float64), (), training=False
        )
        out = np.empty(expected.shape, dtype)
        case.program().predict(case.samples[:samples], case.parameters, out)
        assert np.abs(out - expected).max() <= 1e3 * np.finfo(dtype).eps * np.abs(expected).max()
        assert case.parameters.tobytes() == case.initial.tobytes()


def test_saturated_and_nan():
    """Squashing saturates, and NaN is reported, not hidden."""
    case = Case(20, D, 37, "sigmoid", D, 30, "tanh", D, 5, dtype=np.float32)
    case.views[0][0][:] *= 1e4
    case.views[1][0][:] *= 1e4
    assert np.isfinite(case.run()[0])
    assert np.isfinite(case.parameters).all()
    for stage in STAGES:
        case = Case(20, D, 37, stage, D, 5)
        case.samples[case.order[0], :] = np.nan
        assert np.isnan(case.run()[0])


@pytest.mark.parametrize(("p", "share"), [(0.0, 1.0), (1 - 2.0**-40, 0.0)])
def test_dropout_keeps_all_or_none(p, share):
    case = Case(20, "dropout", D, 5)
    case.layers[0] = Dropout(p, KEY)
    program = case.program()
    case.run(program)
    count = len(case.order) % case.batch_size
    kept = np.count_nonzero(_matrix(program, program.training.stages[0], "target", count))
    assert kept == share * np.count_nonzero(case.samples[case.order[-count:]])


def _matrix(program, record, name, rows):
    """A buffer of the workspace as a matrix, the padded columns of whole vectors and all."""
    table = program.training
    address, stride, itemsize, _, columns = map(int, record[name])
    start = address - table.workspace.ctypes.data
    return (
        table.workspace[start : start + rows * stride]
        .view(program.dtype)
        .reshape(rows, stride // itemsize)[:, :columns]
    )


@jit
def call_stage(one, operation, record, parameters, first, stop, count, step):
    """Call an operation on a range of columns."""
    call(operation, one, record, parameters, first, stop, count, step)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stage", STAGES)
def test_columns_may_be_cut_anywhere(stage, dtype):
    """No bit of a column depends on which columns are computed with it."""
    width = lanes(np.dtype(dtype).itemsize)
    units = 5 * width + 3
    results = []
    for cuts in ([0, 6], [0, 1, 6], [0, 2, 3, 6], [0, 5, 6], [0, 1, 2, 3, 4, 5, 6]):
        case = Case(9, D, units, "relu", stage, D, 3, dtype=dtype, batch_size=13)
        program = case.program()
        table = program.training
        table.fill("00")  # what is called here alone counts on padding that is zero
        record = table.stages[0]
        rng = np.random.default_rng(1)
        for name in ("source", "gradient"):
            _matrix(program, record, name, 13)[:, :units] = rng.standard_normal((13, units))
        address = table.stages.ctypes.data
        for operation in ("forward", "backward"):
            for first, stop in itertools.pairwise(cuts):
                call_stage(
                    dtype(1), int(record[operation]), address, case.parameters.ctypes.data,
                    first * width, stop * width, 13, 5,
                )  # fmt: skip
        target, gradient = (_matrix(program, record, n, 13) for n in ("target", "gradient"))
        assert not target[:, units:].any()
        assert not gradient[:, units:].any()
        results.append((target.tobytes(), gradient.tobytes(), case.parameters.tobytes()))
    assert len(set(results)) == 1


def test_a_plain_network_asks_for_no_operation(monkeypatch):
    """What a network doesn't use is not compiled."""

    def refuse(*arguments):
        raise AssertionError("an operation was asked for")

    monkeypatch.setattr(stages.elementwise_forward.__class__, "address", refuse)
    Case(20, "rescale", D, 37, "relu", D, 5).run()
    with pytest.raises(AssertionError):
        Case(20, D, 37, "tanh", D, 5).run()


def test_an_operation_without_a_writable_cache(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(cache, "places", lambda: [tmp_path / "file" / "cache"])
    monkeypatch.setattr(cache, "_warned", False)

    @jit_module.operation
    def add(one, record, number):
        jit_module.record_at(record, 0).total += one * number

    sums = np.zeros(1, np.dtype([("total", np.float64)]))
    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR"):
        address = add.address(np.dtype(np.float32), sums.dtype)
    assert add.address(np.dtype(np.float32), sums.dtype) == address
    call_one(np.float32(1.5), address, sums.ctypes.data, 4)
    assert sums["total"] == 6


@jit
def call_one(one, operation, record, number):
    call(operation, one, record, number)


def test_numbers_may_change_between_calls():
    """A program asks for its layers anew, and gives what a new one would."""
    results = []
    for again in (True, False):
        case = Case(20, D, 37, "rescale", D, 5)
        program = case.program()
        if again:
            case.run(program)
            case.parameters[:] = case.initial
            program.start()
        case.layers[1] = Elementwise("rescale", (0.3,))
        if again:
            program.describe(case.layers)
        results.append((case.run(program if again else None), case.parameters.tobytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("layers", "loss", "part"),
    [
        ([BatchNorm(4, 0, 16, 32, 48, 0.9, 1e-5)], "mse", "no Dense"),
        (
            [
                Dense(4, 5, 0, 16, 256),
                BatchNorm(4, 0, 16, 32, 48, 0.9, 1e-5),
            ],
            "mse",
            "a BatchNorm layer of 4 inputs follows one of 5 outputs",
        ),
        ([Dense(4, 5, 0, 16, 256)], "hinge", "'hinge' is not compiled"),
    ],
)
def test_why_not(layers, loss, part):
    assert part in why_not(layers, loss)


def test_wrong_targets_never_reach_a_kernel():
    case = Case(20, D, 5, loss="mse", real_targets=True)
    case.targets = case.targets.astype(np.float64)
    with pytest.raises(TypeError, match="targets must be float32, not float64"):
        case.run()
    case.targets = case.targets[:, :4].astype(np.float32)
    with pytest.raises(ValueError, match="targets must be a C-contiguous array of 200 x 5"):
        case.run()
    case = Case(20, D, 5, real_targets=True)
    with pytest.raises(TypeError, match="targets must be int64"):
        case.run()


def test_density_behind_stages():
    """What decides between kernels that skip zeros and those that don't."""
    dense, half = Dense(4, 4, 0, 16, 256), Dropout(0.5, 0)
    relu, tanh, sigmoid = map(described, ("relu", "tanh", "sigmoid"))
    for layers, expected in (
        ([], 1.0), ([relu], 0.5), ([relu, half], 0.25), ([half, relu], 0.25), ([relu, relu], 0.5),
        ([relu, tanh, half], 0.25), ([relu, sigmoid], 1.0), ([half, half], 0.25),
    ):  # fmt: skip
        _, (block,) = blocks.split([dense, *layers])
        assert blocks.density_after(block, 0.1) == expected
    _, found = blocks.split([half, dense])
    assert blocks.density_after(found[0], 0.4) == 0.2
