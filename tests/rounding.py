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
* A kink, or a tie of answers, at a number that is 0 but for rounding, and numbers below the
  smallest normal one, which kernels' exponentials take for 0.

All of it holds in float64 too. In the networks looked at, the equations of NumPy rounded otherwise
go as far from NumPy's results as the Numba backend does, so none of these is a fault of either; a
bound by the length of sums is the wrong measure for them, and what is measured here the right one.

Zeros stay zeros, so what cancels exactly, or never was anything else, still has to be exact: a dead
unit, a column of one number, padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from fastnn import backends
from fastnn.backends import numpy_backend as exact

AMPLITUDE = 4.0
"""Of the moves, in units in the last place."""


MIXING = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)


class Rounding:
    """The operations of `fastnn.backends.Backend`, rounded at random."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def prepare(self, dtype, operations) -> None:
        """Make nothing ready."""

    def moved(self, array):
        """Return an array whose numbers are a little larger or smaller, equal ones by as much.

        As they are where one function is applied to all: so columns of one number stay such, whose
        variance is 0.
        """
        array = np.ascontiguousarray(array)
        words = array.view(f"u{array.itemsize}").astype(np.uint64)
        words ^= self.rng.integers(2**64, dtype=np.uint64)
        words *= MIXING[0]  # as the finaliser of MurmurHash3 does, by A. Appleby
        words ^= words >> np.uint64(33)
        words *= MIXING[1]
        noise = (words >> np.uint64(11)) * 2.0**-52 - 1
        return (array * (1 + AMPLITUDE * np.finfo(array.dtype).eps * noise)).astype(array.dtype)

    def by(self, array):
        """Return what a sum of numbers of these sizes may be off."""
        return self.moved(array) - array

    def elementwise_forward(self, function, input, *constants):
        found = exact.elementwise_forward(function, self.moved(input), *constants)
        if self.rng.random() < 0.5:  # kernels' exponentials end where numbers become subnormal
            found = np.where(np.abs(found) < np.finfo(found.dtype).tiny, 0 * found, found)
        return self.moved(found)

    def elementwise_backward(self, function, value, grad_output, *constants):
        found = exact.elementwise_backward(
            function, self.moved(value), self.moved(grad_output), *constants
        )
        return self.moved(found)

    def dense_forward(self, input, weights, biases, *, relu=False):
        arguments = map(self.moved, (input, weights, biases))
        return self.moved(exact.dense_forward(*arguments, relu=relu))

    def dense_backward(
        self, input, weights, grad_output, out_grad_weights, out_grad_biases, *, input_gradient=True
    ):
        arguments = map(self.moved, (input, weights, grad_output))
        found = exact.dense_backward(
            *arguments, out_grad_weights, out_grad_biases, input_gradient=input_gradient
        )
        return None if found is None else self.moved(found)

    def dropout(self, input, p, key, step):
        return self.moved(exact.dropout(input, p, key, step))

    def batch_norm_forward(self, input, scale, shift, epsilon):
        arguments = map(self.moved, (input, scale, shift))
        output, mean, variance = exact.batch_norm_forward(*arguments, epsilon)
        # one backend subtracts, divides, multiplies and adds where the other multiplies and adds
        lost = np.where(variance == 0, 0, self.by(scale * input / np.sqrt(variance + epsilon)))
        return self.moved(output + lost), self.moved(mean), self.moved(variance)

    def batch_norm_inference(self, input, scale, shift, mean, variance, epsilon):
        arguments = map(self.moved, (input, scale, shift, mean, variance))
        output = exact.batch_norm_inference(*arguments, epsilon)
        lost = self.by(scale * input / np.sqrt(variance + epsilon))
        return self.moved(output + np.where(input == mean, 0, lost))

    def batch_norm_backward(
        self, input, grad_output, scale, epsilon, out_grad_scale, out_grad_shift
    ):
        arguments = tuple(map(self.moved, (input, grad_output, scale)))
        found = exact.batch_norm_backward(*arguments, epsilon, out_grad_scale, out_grad_shift)
        if len(input) > 1:  # of one row it is 0 whatever is rounded
            # the difference of what may be far larger, as of two rows nearly all is cancelled
            variance = exact._column_statistics(input)[1]
            found = found + self.by(scale * grad_output / np.sqrt(variance + epsilon))
        return found

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
        arguments = map(self.moved, (input, grad_output, scale, mean, variance))
        return self.moved(
            exact.batch_norm_inference_backward(*arguments, epsilon, out_grad_scale, out_grad_shift)
        )

    def softmax(self, logits):
        return self.moved(exact.softmax(self.moved(logits)))

    def softmax_cross_entropy(self, logits, labels):
        losses = exact.softmax_cross_entropy(self.moved(logits), labels)
        return losses + self.by(np.ones_like(losses))  # of the sum of which it is the logarithm

    def softmax_cross_entropy_gradient(self, logits, labels):
        logits = self.moved(logits)
        found = exact.softmax_cross_entropy_gradient(logits, labels)
        return found + self.by(exact.softmax(logits)) / len(logits)

    def smoothed_cross_entropy(self, logits, labels, smoothing):
        losses = exact.smoothed_cross_entropy(self.moved(logits), labels, smoothing)
        return losses + self.by(np.ones_like(losses))

    def smoothed_cross_entropy_gradient(self, logits, labels, smoothing):
        logits = self.moved(logits)
        found = exact.smoothed_cross_entropy_gradient(logits, labels, smoothing)
        return found + self.by(exact.softmax(logits)) / len(logits)

    def binary_cross_entropy(self, logits, target):
        return self.moved(exact.binary_cross_entropy(self.moved(logits), self.moved(target)))

    def binary_cross_entropy_gradient(self, logits, target):
        return self.moved(exact.binary_cross_entropy_gradient(self.moved(logits), target))

    def poisson_loss(self, logits, target):
        return self.moved(exact.poisson_loss(self.moved(logits), self.moved(target)))

    def poisson_loss_gradient(self, logits, target):
        found = exact.poisson_loss_gradient(self.moved(logits), self.moved(target))
        return self.moved(found)

    def mean_squared_error(self, output, target):
        return self.moved(exact.mean_squared_error(self.moved(output), target))

    def mean_squared_error_gradient(self, output, target):
        return self.moved(exact.mean_squared_error_gradient(self.moved(output), target))

    def add_multiple(self, target, factor, source):
        exact.add_multiple(target, factor, self.moved(source))
        target[...] = self.moved(target)

    def sum_of_squares(self, x):
        return exact.sum_of_squares(self.moved(x))

    def clip_by_global_norm(self, gradients, clip_norm):
        exact.clip_by_global_norm(gradients, clip_norm)
        for gradient in gradients:
            gradient[...] = self.moved(gradient)

    def sgd_step(self, parameters, gradient, learning_rate):
        exact.sgd_step(parameters, self.moved(gradient), learning_rate)
        parameters[...] = self.moved(parameters)

    def momentum_step(self, parameters, gradient, velocity, learning_rate, momentum, nesterov):
        exact.momentum_step(
            parameters, self.moved(gradient), velocity, learning_rate, momentum, nesterov
        )
        self._move(parameters, velocity)

    def rmsprop_step(self, parameters, gradient, mean_square, learning_rate, rho, epsilon):
        exact.rmsprop_step(
            parameters, self.moved(gradient), mean_square, learning_rate, rho, epsilon
        )
        self._move(parameters, mean_square)

    def adam_step(self, parameters, gradient, mean, mean_square, *numbers):
        exact.adam_step(parameters, self.moved(gradient), mean, mean_square, *numbers)
        self._move(parameters, mean, mean_square)

    def _move(self, *arrays):
        for array in arrays:
            array[...] = self.moved(array)


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
