"""A backend that computes what NumPy's does, with numbers moved by what rounding may move them.

How far apart two right backends may be depends on the network: after a batch norm of two nearly
equal rows, or an Adam step on a gradient that is 0 but for rounding, one unit in the last place
becomes a large part of the result, while other networks keep all digits. No bound by lengths of
sums knows that. So it is measured: the same equations run again with each operand and each result
moved at random by up to `AMPLITUDE` units in the last place, and what comes out then says how far
rounding alone can carry. This is stochastic arithmetic (D. S. Parker, "Monte Carlo arithmetic",
1997; J. Vignes, "Discrete stochastic arithmetic", 2004).

What parted by more than rounding seemed to explain, and parts so here as well:

* A sum that cancels beside what it is made of. Behind a batch norm the gradient of a bias is 0 in
  mathematics and a rounding error in fact; of a batch of two rows, as the last one of an epoch may
  be, nearly all of dL/dX cancels: scale (g1 - g2) / 2 (1 - x^2) / deviation, where x is close to 1
  in size. Adam and RMSprop, and a norm that is clipped, make steps of whole size from such errors.
* A division by almost nothing. Columns that are equal but for rounding, behind a saturated Tanh or
  Sigmoid or a Dropout that left one value, are blown up by 1 / sqrt(epsilon); with momentum 0,
  prediction divides by the deviation of the last batch alone, and with momentum 1 by 1 always,
  whatever the numbers are.
* A kink, or a tie of answers, at a number that is 0 but for rounding.
* The smallest normal number. `docs/numbers.md` says what Numba's kernels take for 0: exponentials
  below it, and the state of optimisers. Then Mish(-88) is 0 there, and -5e-37 in float32 here. A
  batch norm of such numbers is 0, or has either sign, of which a kink behind it makes a difference
  of whole size; and where Adam's mean is 1e-38, its next steps are of 1e-30 or of nothing.
* Terms that cancel exactly. The two rows of a batch are mirror images of each other behind a batch
  norm, so the gradient of its shift behind a Tanh and another batch norm is 0 in mathematics. Where
  that is 0 in fact Adam takes no step, and where it is 1e-8 one of whole size.

All of it holds in float64 too. In the networks looked at, the equations of NumPy rounded otherwise
go as far from NumPy's results as the Numba backend does, so none of these is a fault of either; a
bound by the length of sums is the wrong measure for them, and what is measured here the right one.

Zeros stay zeros, so what never was anything else still has to be exact: a dead unit, a column of
one number, padding.

Numbers that are moved at random lead to neither of the last two: none of them crosses to 0, and no
terms cancel that did not before. So there are four manners of rounding (`Manner`). By the first
two numbers move, and by one of these what the kernels take for 0 is 0, always and in each
operation, as it is in them. By the third nothing moves: each operation is computed in longer
numbers and rounded once, so that what cancels in mathematics cancels. By the fourth it is rounded
once, up or down at random: what is exact stays so, as a column of one number whose variance is 0,
and what follows from it, a gradient of 1 / sqrt(epsilon), is rounded all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from fastnn import backends
from fastnn.backends import numpy_backend as exact

AMPLITUDE = 4.0
"""Of the moves, in units in the last place."""


MIXING = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)


EPSILON = {4: 2.0**-23, 8: 2.0**-52}
"""By the size of a number."""

LONGER = {np.dtype(np.float32): np.float64, np.dtype(np.float64): np.longdouble}
"""In what an operation is computed that is rounded once; a long double may be no longer."""

ENDING = {
    **dict.fromkeys(("sigmoid", "elu", "selu", "silu", "softplus", "mish"), lambda end: end),
    "gelu": lambda end: -math.sqrt(-2 * end),  # exp(-x²/2)
}
"""Functions made of an exponential: where it ends, if that of x itself ends at `end`."""


@dataclass
class Manner:
    """How a network rounds, through its whole life."""

    rng: np.random.Generator
    ends: bool
    """Whether exponentials and the state of optimisers are 0 below the smallest normal number."""
    once: bool
    """Whether nothing moves, and operations are computed in longer numbers and rounded once."""
    either_way: bool
    """Whether that is up or down at random, not to the nearest number."""


def manner(number: int) -> Manner:
    """Return that of the network of a number: by turns; the third alone rounds to the nearest."""
    either_way = number % 4 == 3
    once = number == 2 or either_way
    ends = number % 2 == 0 and not once
    return Manner(np.random.default_rng(number), ends=ends, once=once, either_way=either_way)


class Rounding:
    """The operations of `fastnn.backends.Backend`, rounded otherwise."""

    def __init__(self) -> None:
        self.manner = manner(0)

    def prepare(self, dtype, operations) -> None:
        """Make nothing ready."""

    by_rows = staticmethod(exact.by_rows)

    def moved(self, array):
        """Return an array whose numbers are a little larger or smaller, equal ones by as much.

        As they are where one function is applied to all: so columns of one number stay such, whose
        variance is 0.
        """
        array = np.ascontiguousarray(array)
        if self.manner.once:
            return array
        # in place, as this is most of what a network that rounds at random takes
        factors = self._drawn(array, AMPLITUDE * EPSILON[array.itemsize])
        factors += 1
        factors *= array
        return factors.astype(array.dtype, copy=False)

    def _drawn(self, array, amplitude=1.0):
        """Return for each number of an array a random one of this size at most, equal for equal."""
        words = array.view(f"u{array.itemsize}").astype(np.uint64)
        words ^= np.uint64(self.manner.rng.bit_generator.random_raw())
        words *= MIXING[0]  # as the finaliser of MurmurHash3 does, by A. Appleby
        words ^= words >> np.uint64(33)
        words *= MIXING[1]
        return words.view(np.int64) * (amplitude * 2.0**-63)

    def rounded(self, found, dtype):
        """Return what was computed in longer numbers, in `dtype`."""
        nearest = found.astype(dtype, copy=False)
        if not self.manner.either_way or found.dtype == dtype:
            return nearest
        # beyond the number itself, on the side where the nearest one is not
        further = np.nextafter(nearest, np.where(found > nearest, np.inf, -np.inf).astype(dtype))
        other = (found != nearest) & np.isfinite(further) & (self._drawn(nearest) < 0)
        return np.where(other, further, nearest)

    def operand(self, array):
        """Return a number that an operation begins with."""
        return array.astype(LONGER[array.dtype]) if self.manner.once else self.moved(array)

    def result(self, found, dtype):
        """Return what an operation ends with."""
        return self.moved(self.rounded(found, dtype))

    def by(self, array):
        """Return what a sum of numbers of these sizes may be off."""
        return self.moved(array) - array

    def ended(self, x, lowest=lambda end: end):
        """Return arguments of an exponential, those far down where it ends."""
        if not self.manner.ends:
            return x
        end = lowest(math.log(np.finfo(x.dtype).tiny))
        return np.where(x < end, -exact.FAR, x).astype(x.dtype, copy=False)

    def ended_logits(self, logits):
        """Return logits of a softmax, those far down whose probability is 0."""
        largest = logits.max(axis=1, keepdims=True)
        below = logits - largest
        ended = self.ended(below)
        return np.where(ended == below, logits, largest + ended)

    def elementwise_forward(self, function, input, *constants):
        x = self.operand(input)
        if function in ENDING:
            x = self.ended(x, ENDING[function])
        return self.result(exact.elementwise_forward(function, x, *constants), input.dtype)

    def elementwise_backward(self, function, value, grad_output, *constants):
        x, gradient = self.operand(value), self.operand(grad_output)
        if function in ENDING:  # of a sigmoid it is the output, which has ended
            x = self.ended(x, ENDING[function])
        found = exact.elementwise_backward(function, x, gradient, *constants)
        return self.result(found, value.dtype)

    def dense_forward(self, input, weights, biases, *, relu=False, bfloat16=False):
        arguments = map(self.operand, (input, weights, biases))
        return self.result(
            exact.dense_forward(*arguments, relu=relu, bfloat16=bfloat16), input.dtype
        )

    def dense_backward(
        self, input, weights, grad_output, out_grad_weights, out_grad_biases, *,
        input_gradient=True, bfloat16=False,
    ):  # fmt: skip
        arguments = map(self.operand, (input, weights, grad_output))
        found = exact.dense_backward(
            *arguments, out_grad_weights, out_grad_biases,
            input_gradient=input_gradient, bfloat16=bfloat16,
        )  # fmt: skip
        return None if found is None else self.result(found, input.dtype)

    def dropout(self, input, p, key, step):
        return self.moved(exact.dropout(input, p, key, step))

    def batch_norm_forward(self, input, scale, shift, epsilon):
        arguments = map(self.operand, (input, scale, shift))
        found = exact.batch_norm_forward(*arguments, epsilon)
        output, mean, variance = (self.rounded(array, input.dtype) for array in found)
        # one backend subtracts, divides, multiplies and adds where the other multiplies and adds
        lost = np.where(variance == 0, 0, self.by(scale * input / np.sqrt(variance + epsilon)))
        return self.moved(output + lost), self.moved(mean), self.moved(variance)

    def batch_norm_inference(self, input, scale, shift, mean, variance, epsilon):
        arguments = map(self.operand, (input, scale, shift, mean, variance))
        output = self.rounded(exact.batch_norm_inference(*arguments, epsilon), input.dtype)
        lost = self.by(scale * input / np.sqrt(variance + epsilon))
        return self.moved(output + np.where(input == mean, 0, lost))

    def batch_norm_backward(
        self, input, grad_output, scale, epsilon, out_grad_scale, out_grad_shift
    ):
        X, G, factor = map(self.operand, (input, grad_output, scale))
        found = exact.batch_norm_backward(X, G, factor, epsilon, out_grad_scale, out_grad_shift)
        found = self.rounded(found, input.dtype)
        if len(input) > 1:  # of one row it is 0 whatever is rounded
            # the difference of what may be far larger, as of two rows nearly all is cancelled
            variance = exact._column_statistics(X)[1]
            found = found + self.by(scale * grad_output / np.sqrt(variance + epsilon))
        return self.rounded(found, input.dtype)

    def batch_norm_inference_backward(
        self,
        input,
        grad_output,
        scale,
        mean,
        variance,
        epsilon,
        out_grad_scale,
        out_grad_shift,
    ):
        arguments = map(self.operand, (input, grad_output, scale, mean, variance))
        found = exact.batch_norm_inference_backward(
            *arguments, epsilon, out_grad_scale, out_grad_shift
        )
        return self.result(found, input.dtype)

    def softmax(self, logits):
        return self.result(exact.softmax(self.ended_logits(self.operand(logits))), logits.dtype)

    def softmax_cross_entropy(self, logits, labels):
        found = exact.softmax_cross_entropy(self.operand(logits), labels)
        losses = self.rounded(found, logits.dtype)
        return losses + self.by(np.ones_like(losses))  # of the sum of which it is the logarithm

    def softmax_cross_entropy_gradient(self, logits, labels):
        return self._softmax_gradient(exact.softmax_cross_entropy_gradient, logits, labels)

    def smoothed_cross_entropy(self, logits, labels, smoothing):
        found = exact.smoothed_cross_entropy(self.operand(logits), labels, smoothing)
        losses = self.rounded(found, logits.dtype)
        return losses + self.by(np.ones_like(losses))

    def smoothed_cross_entropy_gradient(self, logits, labels, smoothing):
        equation = exact.smoothed_cross_entropy_gradient
        return self._softmax_gradient(equation, logits, labels, smoothing)

    def _softmax_gradient(self, equation, logits, *arguments):
        z = self.ended_logits(self.operand(logits))
        found = equation(z, *arguments).astype(logits.dtype, copy=False)
        return found + self.by(exact.softmax(z).astype(logits.dtype, copy=False)) / len(logits)

    def binary_cross_entropy(self, logits, target):
        found = exact.binary_cross_entropy(self.operand(logits), self.operand(target))
        return self.result(found, logits.dtype)

    def binary_cross_entropy_gradient(self, logits, target):
        z = self.operand(logits)
        z = np.where(z < 0, self.ended(z), -self.ended(-z))
        return self.result(exact.binary_cross_entropy_gradient(z, target), logits.dtype)

    def poisson_loss(self, logits, target):
        found = exact.poisson_loss(self.operand(logits), self.operand(target))
        return self.result(found, logits.dtype)

    def poisson_loss_gradient(self, logits, target):
        z = self.ended(self.operand(logits))
        found = exact.poisson_loss_gradient(z, self.operand(target))
        return self.result(found, logits.dtype)

    def mean_squared_error(self, output, target):
        return self.result(exact.mean_squared_error(self.operand(output), target), output.dtype)

    def mean_squared_error_gradient(self, output, target):
        found = exact.mean_squared_error_gradient(self.operand(output), target)
        return self.result(found, output.dtype)

    def add_multiple(self, target, factor, source):
        exact.add_multiple(target, factor, self.operand(source))
        target[...] = self.moved(target)

    def sum_of_squares(self, x):
        return exact.sum_of_squares(self.moved(x))

    def clip_by_global_norm(self, gradients, clip_norm):
        exact.clip_by_global_norm(gradients, clip_norm)
        for gradient in gradients:
            gradient[...] = self.moved(gradient)

    def sgd_step(self, parameters, gradient, learning_rate):
        exact.sgd_step(parameters, self.operand(gradient), learning_rate)
        self._move(parameters)

    def momentum_step(self, parameters, gradient, velocity, learning_rate, momentum, nesterov):
        exact.momentum_step(
            parameters, self.operand(gradient), velocity, learning_rate, momentum, nesterov
        )
        self._move(parameters, velocity)

    def rmsprop_step(self, parameters, gradient, mean_square, learning_rate, rho, epsilon):
        exact.rmsprop_step(
            parameters, self.operand(gradient), mean_square, learning_rate, rho, epsilon
        )
        self._move(parameters, mean_square)

    def adam_step(self, parameters, gradient, mean, mean_square, *numbers):
        exact.adam_step(parameters, self.operand(gradient), mean, mean_square, *numbers)
        self._move(parameters, mean, mean_square)

    def _move(self, parameters, *states):
        for array in (parameters, *states):
            array[...] = self.moved(array)
        if self.manner.ends:
            for state in states:
                state[np.abs(state) < np.finfo(state.dtype).tiny] = 0


@contextmanager
def installed() -> Iterator[Rounding]:
    """Have a backend of the name "rounding", as long as this lasts."""
    backend = Rounding()
    backends._MODULES["rounding"] = __name__
    backends._loaded["rounding"] = backend
    try:
        yield backend
    finally:
        del backends._MODULES["rounding"], backends._loaded["rounding"]


def spread(values: Sequence[np.ndarray]) -> float:
    """Return how far apart arrays are anywhere; infinite where one is not finite."""
    width = float(np.max(np.ptp(values, axis=0), initial=0.0))
    return width if math.isfinite(width) else math.inf
