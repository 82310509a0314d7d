"""Rules, penalties and rates of the compiled epoch against the same steps in NumPy float64."""

from __future__ import annotations

import inspect
import itertools
from dataclasses import replace

import numpy as np
import pytest
from conftest import once, sum_bound

from fastnn import memory
from fastnn.backends import description
from fastnn.backends.numba_backend.epoch import optimizers
from fastnn.backends.numba_backend.epoch.program import Program, why_not
from fastnn.backends.numba_backend.jit import call, jit
from fastnn.backends.numba_backend.kernels import optimizers as kernel_rules
from fastnn.backends.numba_backend.machine import MACHINE

pytestmark = pytest.mark.every_width

SHRINKING = description.Rule("adam", beta1=0.8, beta2=0.9, epsilon=0.1)
"""AdamW with a decay of 1: it is told apart by the rates."""

RULES = {
    "sgd": description.Rule(),
    "momentum": description.Rule("momentum", beta1=0.9),
    "nesterov": description.Rule("nesterov", beta1=0.8),
    "rmsprop": description.Rule("rmsprop", beta1=0.9, epsilon=0.1),
    "adam": description.Rule("adam", beta1=0.9, beta2=0.99, epsilon=0.1),
    "adamw": SHRINKING,
}
"""With large epsilons: a quotient of two small numbers would only show that both are rounded."""

SHAPES = [(61, 47, 83, 5), (130, 20), (3, 70, 17, 2), (200, 129, 65)]


def moved(rule, rate, correction, shrinking, w, g, states):
    """One step by the book; the three numbers as `Program.run` is given them."""
    b1, b2, eps = rule.beta1, rule.beta2, rule.epsilon
    if rule.kind == "sgd":
        return w - rate * g, []
    first = states[0]
    if rule.kind == "momentum":
        first = b1 * first + g
        return w - rate * first, [first]
    if rule.kind == "nesterov":
        first = b1 * first + g
        return w - rate * (g + b1 * first), [first]
    if rule.kind == "rmsprop":
        first = b1 * first + (1 - b1) * g**2
        return w - rate * g / (np.sqrt(first) + eps), [first]
    first = b1 * first + (1 - b1) * g
    second = b2 * states[1] + (1 - b2) * g**2
    step = rate * first / (np.sqrt(second) * correction + eps)
    return w - shrinking * w - step, [first, second]


def rates_of(rules, learning_rates):
    """Return [steps, layers, 4] for learning rates [steps, layers]."""
    rates = np.ones((*learning_rates.shape, 4))
    rates[..., 2] = [rule is SHRINKING for rule in rules] * learning_rates
    rates[..., 0] = learning_rates
    t = np.arange(1, len(rates) + 1)
    for number, rule in enumerate(rules):
        if rule.kind == "adam":
            rates[:, number, 0] /= 1 - rule.beta1**t
            rates[:, number, 1] = 1 / np.sqrt(1 - rule.beta2**t)
    return rates


# ----------------------------------------------------------------------------- operations


def test_the_numbers_of_a_rule_have_one_order():
    asked = list(inspect.signature(kernel_rules.step_by.function).parameters)[1:]
    for rule in kernel_rules.RULES.values():
        assert list(inspect.signature(rule.kernel._kernel.write).parameters)[1:] == asked
    assert list(kernel_rules.Numbers._fields) == asked[: len(kernel_rules.Numbers._fields)]


@jit
def call_operation(
    operation, one, region, rates, parameters, gradient, first, second, start, rows
):  # fmt: skip
    call(operation, one, region, rates, parameters, gradient, first, second, start, rows)


class Block:
    """Rows of parameters, gradient and two states, and what surrounds them."""

    def __init__(self, rows, units, dtype):
        rng = np.random.default_rng(rows * 1000 + units)
        self.dtype, self.rows, self.units = np.dtype(dtype), rows, units
        self.stride = memory.row_stride(units, self.dtype) + memory.LINE_BYTES // dtype().itemsize
        self.arrays = [
            memory.aligned_zeros((rows + 1) * self.stride, self.dtype).reshape(rows + 1, -1)
            for _ in range(4)
        ]
        for array in self.arrays:
            array[:rows, :units] = rng.standard_normal((rows, units))
        self.arrays[3][:] **= 2
        self.gradient = self.arrays[1]
        self.region = np.zeros(1, optimizers.REGION)
        self.squares, self.total = np.full(1, np.nan), 0.0
        region = self.region[0]
        itemsize = self.dtype.itemsize
        region["parameters"] = 0, self.stride * itemsize, itemsize, rows, units
        region["decay"] = 0.3
        region["shrinks"] = True
        region["squares"] = self.squares.ctypes.data

    def step(self, rule, rate, correction, blocks=None, shrinking=0.0):
        """Move all rows, in the blocks [start, stop) that are asked for."""
        region, rates = self.region[0], np.array([rate, correction, shrinking, 1.0])
        region["kernel"] = kernel_rules.RULES[rule.kind].kernel.address(self.dtype)
        for name in ("beta1", "beta2", "epsilon"):
            region[name] = getattr(rule, name)
        parameters, gradient, first, second = self.arrays
        size = optimizers.ROWS_AT_ONCE
        starts = range(0, self.rows, size)
        for start, stop in blocks or [(s, min(s + size, self.rows)) for s in starts]:
            call_operation(
                optimizers.move.address(self.dtype, optimizers.REGION), self.dtype.type(1),
                self.region.ctypes.data,
                rates.ctypes.data, parameters.ctypes.data, gradient[start:].ctypes.data,
                first.ctypes.data, second.ctypes.data, start, stop - start,
            )  # fmt: skip
            self.total += self.squares[0]

    def inside(self):
        return [a[: self.rows, : self.units].astype(np.float64) for a in self.arrays]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("epsilon", [1e-8, *once(0.1)])
@pytest.mark.parametrize("units", [1, 4, 15, 17, 129, *once(16, 100)])
@pytest.mark.parametrize("rows", [1, 7, 150, *once(64)])
@pytest.mark.parametrize("kind", RULES)
def test_operations(kind, rows, units, epsilon, dtype):
    rule = replace(RULES[kind], epsilon=epsilon)
    shrinking = 0.2 if kind == "adamw" else 0.0
    block = Block(rows, units, dtype)
    if kind == "rmsprop":  # its state is a mean of squares
        block.arrays[2][:] **= 2
    w, g, *states = block.inside()
    block.step(rule, 0.1, 1.5, shrinking=shrinking)
    eps = np.finfo(dtype).eps
    total = (w**2).sum()
    assert abs(block.total - total) <= sum_bound(w.size, total, dtype)
    g = g + 0.3 * w
    exact, after = moved(rule, 0.1, 1.5, shrinking, w, g, states)
    got, _, *got_states = block.inside()
    # every operation rounds once; terms may cancel, so it is their sizes that count
    size = np.abs(w) + np.abs(g)
    for state, expected, before in zip(got_states, after, states, strict=False):
        bound = 8 * eps * (np.abs(before) + size + size**2)
        assert np.all(np.abs(state - expected) <= bound)
    slope = 1.0
    if rule.kind in ("rmsprop", "adam"):
        slope = 1 / (np.sqrt(after[-1]) + epsilon)
    size = np.abs(w) + slope * (size + (np.abs(states[0]) if kind != "rmsprop" else 0))
    assert np.all(np.abs(got - exact) <= 16 * eps * size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", RULES)
def test_operations_keep_to_their_rows_and_columns(kind, dtype):
    """What lies behind the last vector stays, and NaN in the padding of the gradient is nothing."""
    block, whole = Block(9, 21, dtype), Block(9, 21, dtype)
    for one in (block, whole):
        one.arrays[2][:] **= 2
    whole.step(RULES[kind], 0.1, 1.0)
    lanes = MACHINE.vector_bits // 8 // block.dtype.itemsize
    behind = memory.round_up(block.units, lanes)
    for array in block.arrays:
        array[:, behind:] = 7.0
        array[block.rows :] = 7.0
    block.gradient[:, block.units :] = np.nan
    block.step(RULES[kind], 0.1, 1.0, [(4, 5), (0, 4), (5, 9)])
    for array, other in zip(block.arrays, whole.arrays, strict=True):
        assert np.array_equal(array[:9, :21], other[:9, :21])
        if array is not block.gradient:
            assert not array[:9, 21:behind].any()
            assert (array[:9, behind:] == 7.0).all()
            assert (array[9] == 7.0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [kind for kind in RULES if kind != "sgd"])
def test_state_never_stays_denormal(kind, dtype):
    block = Block(3, 21, dtype)
    smallest = np.finfo(dtype).smallest_normal
    for array in block.arrays[1:]:
        array[:] = 0
    for state in block.arrays[2:]:
        state[:3, :7] = 0.5 * smallest
        state[:3, 7:14] = 1.001 * smallest
        state[:3, 14:21] = 4 * smallest
    before = block.arrays[0].copy()
    block.region["decay"] = 0
    block.step(RULES[kind], 0.1, 1.0)
    for state in block.arrays[2 : 2 + kernel_rules.RULES[RULES[kind].kind].states]:
        assert not state[:3, :14].any()
        assert (state[:3, 14:21] > smallest).all()
    assert np.array_equal(block.arrays[0], before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", RULES)
def test_infinite_parameters_stay_so_without_a_penalty(kind, dtype):
    """A decay of 0 adds nothing, not 0 times infinity."""
    block = Block(3, 21, dtype)
    block.arrays[0][:3, [0, 20]] = np.inf, -np.inf
    block.arrays[2][:] **= 2
    block.region["decay"] = 0
    block.step(RULES[kind], 0.1, 1.0)
    parameters = block.arrays[0][:3, :21]
    assert (parameters[:, 0] == np.inf).all()
    assert (parameters[:, 20] == -np.inf).all()
    assert np.isfinite(parameters[:, 1:20]).all()


# -------------------------------------------------------------------------- the whole epoch


class Training:
    """A network with a rule and a penalty for each layer, its data, and the reference result."""

    def __init__(
        self, sizes, rules, l2=(0.0,), batch_size=32, samples=100, dtype=np.float32, density=0.3,
        rate=0.05,
    ):  # fmt: skip
        rng = np.random.default_rng(0)
        self.dtype, self.batch_size, self.density = np.dtype(dtype), batch_size, density
        pairs = list(itertools.pairwise(sizes))
        self.sizes = sizes
        self.rules = [rule for rule, _ in zip(itertools.cycle(rules), pairs, strict=False)]
        self.l2 = [factor for factor, _ in zip(itertools.cycle(l2), pairs, strict=False)]
        self.layers, places, offset = [], [], 0
        for (inputs, outputs), rule, factor in zip(pairs, self.rules, self.l2, strict=True):
            stride = memory.row_stride(outputs, self.dtype)
            biases = offset + memory.round_up(inputs, memory.ROW_BLOCK) * stride
            if self.layers:
                self.layers.append(description.Elementwise("relu"))
            self.layers.append(
                description.Dense(inputs, outputs, offset, stride, biases, factor, rule)
            )
            places.append((offset, biases, stride, inputs, outputs))
            offset = biases + stride
        self.parameters = memory.aligned_zeros(offset, self.dtype)
        self.states = [memory.aligned_zeros(offset, self.dtype) for _ in range(2)]
        self.padding = memory.aligned_zeros(offset, np.dtype(np.uint8))
        self.padding[:] = 1
        self.places = places
        for view in self.views(self.padding):
            view[:] = 0
        for view in self.views(self.parameters):
            view[:] = rng.standard_normal(view.shape) * np.sqrt(2 / sum(view.shape))
        shape = 2 * samples, sizes[0]
        values = rng.standard_normal(shape) * (rng.random(shape) < density)
        self.samples = values.astype(self.dtype)
        self.labels = rng.integers(0, sizes[-1], len(values))
        self.order = rng.permutation(len(values))[:samples]
        steps_count = -(-samples // batch_size)
        # another rate for each step and each layer
        decay = 0.95 ** np.arange(steps_count)[:, None]
        self.learning_rates = rate * decay * (1 + 0.1 * np.arange(len(pairs)))
        self.rates = rates_of(self.rules, self.learning_rates)
        self.rates[..., 3] = 1.5 - decay  # and of the penalty
        self.largest_gradient = 0.0

    def views(self, vector):
        """Weights and biases of each layer, without padding."""
        for weights, biases, stride, inputs, outputs in self.places:
            yield vector[weights : weights + inputs * stride].reshape(inputs, -1)[:, :outputs]
            yield vector[biases : biases + outputs]

    def program(self):
        return Program(
            self.layers, batch_size=self.batch_size, dtype=self.dtype, input_dtype=self.dtype,
            density=self.density,
        )  # fmt: skip

    def run(self, program=None, calls=((0, None),)):
        """Train; each call runs a range of batches."""
        program = program or self.program()
        program.start()
        for first, last in calls:
            size = self.batch_size
            totals = program.prepare(
                self.samples, self.labels,
                self.order[first * size : None if last is None else last * size],
                self.parameters, self.rates[first:last], self.states,
            )()  # fmt: skip
        return totals

    def everything(self, totals):
        return [*[v.tobytes() for v in (self.parameters, *self.states)], totals]

    def reference(self):
        """Parameters, states and sum of losses after the same steps, slowly, in float64."""
        parameters = [view.astype(np.float64) for view in self.views(self.parameters)]
        states = [[np.zeros(p.shape), np.zeros(p.shape)] for p in parameters]
        loss = 0.0
        for step, start in enumerate(range(0, len(self.order), self.batch_size)):
            chosen = self.order[start : start + self.batch_size]
            labels, every = self.labels[chosen], np.arange(len(chosen))
            penalties = self.l2 * self.rates[step, :, 3]
            hidden, inputs = self.samples[chosen].astype(np.float64), []
            for number, (weights, biases) in enumerate(
                zip(parameters[::2], parameters[1::2], strict=True)
            ):
                inputs.append(hidden)
                hidden = hidden @ weights + biases
                if number < len(self.rules) - 1:
                    hidden = np.maximum(hidden, 0)
                loss += len(chosen) * penalties[number] * (weights**2).sum()
            hidden -= hidden.max(axis=1, keepdims=True)
            powers = np.exp(hidden)
            sums = powers.sum(axis=1)
            loss += (np.log(sums) - hidden[every, labels]).sum()
            gradient = powers / sums[:, None]
            gradient[every, labels] -= 1
            gradient /= len(chosen)
            for number in reversed(range(len(self.rules))):
                weights = parameters[2 * number]
                below = (gradient @ weights.T) * (inputs[number] > 0)
                by_weights = inputs[number].T @ gradient + 2 * penalties[number] * weights
                by_biases = gradient.sum(axis=0)
                for place, g in ((2 * number, by_weights), (2 * number + 1, by_biases)):
                    self.largest_gradient = max(self.largest_gradient, np.abs(g).max())
                    parameters[place], new = moved(
                        self.rules[number], *self.rates[step, number, :3] * [1, 1, place % 2 == 0],
                        parameters[place], g, states[place],
                    )  # fmt: skip
                    states[place][: len(new)] = new
                gradient = below
        return parameters, states, loss

    def check(self):
        parameters, states, loss = self.reference()
        before = self.parameters.copy()
        got_loss, _ = self.run()
        eps = float(np.finfo(self.dtype).eps)
        count = len(self.rates)
        # a rounded gradient moves a parameter by no more than such a multiple of its error
        slope = max(
            {"sgd": 1.0, "rmsprop": 2 / (r.epsilon or 1), "adam": 2 / (r.epsilon or 1)}.get(
                r.kind, 1 / (1 - r.beta1)
            )
            for r in self.rules
        )
        longest = sum(self.sizes[:-1]) + self.batch_size
        off = longest * self.largest_gradient
        tolerance = eps * (
            count * np.abs(self.parameters).max() + off * count * self.learning_rates.max() * slope
        )
        for view, expected in zip(self.views(self.parameters), parameters, strict=True):
            assert np.abs(view - expected).max() <= tolerance
        assert np.abs(self.parameters - before).max() > 100 * tolerance
        for i, state in enumerate(self.states):
            bound = eps * off * max(1.0, self.largest_gradient) * slope
            for view, expected in zip(self.views(state), states, strict=True):
                assert np.abs(view - expected[i]).max() <= bound
        assert got_loss == pytest.approx(loss, rel=20 * longest * eps)
        self.check_padding()

    def check_padding(self):
        for vector in (self.parameters, *self.states):
            assert not vector[self.padding == 1].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("l2", [0.02, *once(0.0)])
@pytest.mark.parametrize("sizes", SHAPES)
@pytest.mark.parametrize("kind", RULES)
def test_rules(kind, sizes, l2, density, dtype):
    Training(sizes, [RULES[kind]], [l2], density=density, dtype=dtype).check()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("batch_size", [1, 7, 33, *once(2, 128)])
@pytest.mark.parametrize("kind", RULES)
def test_batch_sizes(kind, batch_size, density, dtype):
    samples = min(300, batch_size * 5 - batch_size // 2)
    Training(
        (70, 90, 80, 10), [RULES[kind]], [0.01], batch_size, samples, dtype, density
    ).check()  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_rule_and_a_penalty_for_each_layer(dtype):
    sizes = (40, 30, 50, 20, 30, 4)
    Training(sizes, RULES.values(), [0.0, 0.03, 0.0, 0.01], dtype=dtype).check()


def test_wide_layers():
    Training((300, 600, 1030, 4), [RULES["adam"]], [1e-3], 64, 128).check()


@pytest.mark.parametrize("l2", [0.02, *once(0.0)])
@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("kind", RULES)
def test_no_bit_depends_on_calls_or_on_the_workspace(kind, batch_size, density, l2):
    results = []
    whole, parts = [(0, None)], [(0, 1), (1, 4), (4, None)]
    for value, calls in (("00", whole), ("ff", parts), ("nan", whole)):
        training = Training((61, 47, 83, 5), [RULES[kind]], [l2], batch_size, 100, density=density)
        program = training.program()
        program.training.fill(value)
        results.append(training.everything(training.run(program, calls)))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("batch_size", [1, 7, 70])
@pytest.mark.parametrize("number", [np.inf, np.nan])
@pytest.mark.parametrize("kind", [kind for kind in RULES if kind != "sgd"])
def test_padding_stays_zero_whatever_the_gradient(kind, number, batch_size, density, dtype):
    training = Training((21, 19, 18, 5), [RULES[kind]], [0.01], batch_size, 80, dtype, density)
    training.samples[training.order[:3]] = number
    training.run()
    assert np.isnan(training.parameters).any()
    training.check_padding()


def test_one_rate_for_all_steps():
    single, broadcast, spelt = (Training((30, 20, 4), [RULES["momentum"]]) for _ in range(3))
    one, steps = single.rates[:1], len(single.rates)
    single.rates = one
    broadcast.rates = np.broadcast_to(one, spelt.rates.shape)
    spelt.rates = np.repeat(one, steps, axis=0)
    expected = spelt.everything(spelt.run())
    assert steps > 1
    assert single.everything(single.run()) == expected
    assert broadcast.everything(broadcast.run()) == expected


def test_no_penalty_costs_no_bit():
    """An l2 too small to be seen gives what the update without one gives, up to rounding."""
    without, tiny = (Training((30, 20, 4), [RULES["sgd"]], [l2]) for l2 in (0.0, 1e-30))
    assert without.run()[0] == pytest.approx(tiny.run()[0], rel=1e-5)
    assert np.allclose(without.parameters, tiny.parameters, atol=1e-5)


def test_rules_that_are_not_compiled():
    layer = description.Dense(4, 4, 0, 16, 256, rule=description.Rule("lion"))
    assert why_not([layer]) == "the rule 'lion' is not compiled"


def test_wrong_rates_and_states_never_reach_a_kernel():
    training = Training((30, 20, 4), [RULES["adam"]])
    rates, states = training.rates, training.states
    for wrong, error, message in [
        (rates.astype(np.float32), TypeError, "rates must be float64, not float32"),
        (rates[:-1], ValueError, "rates must be 4 x 2 x 4, not of shape"),
        (rates[..., :3], ValueError, "rates must be 4 x 2 x 4, not of shape"),
        (rates[:, :1], ValueError, "rates must be 4 x 2 x 4, not of shape"),
        (rates[:, ::-1], ValueError, "rates must be C-contiguous in each step"),
    ]:
        training.rates = wrong
        with pytest.raises(error, match=message):
            training.run()
    training.rates = rates
    for wrong, error, message in [
        (states[:1], ValueError, "states must be 2 vectors, not 1"),
        ([states[0], states[1][:100]], ValueError, "states must hold"),
        ([states[0], states[1][1:]], ValueError, "states must"),
        ([states[0], states[1].astype(np.float64)], TypeError, "states must be float32"),
    ]:
        training.states = wrong
        with pytest.raises(error, match=message):
            training.run()


def test_no_compilation_for_another_rule():
    from fastnn.backends.numba_backend.epoch.step import run_batches

    Training((30, 20, 4), [RULES["sgd"]]).run()
    compiled = run_batches.variants
    Training((30, 20, 4), [RULES["momentum"], RULES["adam"]], [0.1]).run()
    assert run_batches.variants == compiled
