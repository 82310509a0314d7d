"""The operations of `numpy_backend`, by compiled kernels.

The functions here allocate results and hand array objects to the kernels, which read layouts by
themselves. What a kernel refuses, such as a matrix of logits in Fortran order, is copied into
plain rows and handed over again.

The backend has two wings, which don't know each other: the layer path in `layerwise/`, for these
functions, and the compiled epoch in `epoch/`, which `fastnn/paths.py` asks for. What both use or
could use is in `kernels/`, written in the language of `language.py` and compiled by `jit.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fastnn import guards
from fastnn.backends import Labels, numpy_backend
from fastnn.checks import FLOAT_DTYPES, Array

from .compiling import sources  # noqa: F401 - before all others, whose text it digests
from .kernels import elementwise as elementwise_kernels
from .kernels.activations import FORMULAS
from .kernels.optimizers import RULES
from .kernels.philox import BLOCK_WORDS
from .layerwise import batch_norm, columns, dense, elementwise, losses, optimizers
from .layerwise import dropout as dropout_kernels
from .layerwise.arrays import Entries, KernelEntries, plain, raise_if_refused
from .layerwise.dense import FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT
from .machine import MACHINE

LONG_INPUT = 512
"""Elements from which a kernel makes up, in float64, for what its call costs more than NumPy's."""

_empty = guards.filled if guards.CHECKED else np.empty
_empty_like = guards.filled_like if guards.CHECKED else np.empty_like
_INT64 = np.dtype(np.int64)
_FLOAT32, _FLOAT64 = FLOAT_DTYPES
_LABELS = id(_INT64)
_NO_CONSTANTS = 0.0, 0.0

_apply = Entries(elementwise.apply, 5, numbers=2)
_forward, _backward = (
    {name: KernelEntries(_apply, kernel) for name, kernel in kernels.items()}
    for kernels in (elementwise_kernels.FORWARD, elementwise_kernels.BACKWARD)
)
_UFUNCS = {name: formula.ufunc for name, formula in FORMULAS.items() if formula.ufunc}
_product = Entries(dense.product, 7)
_softmax = Entries(losses.softmax, 3)
_cross_entropy = Entries(losses.cross_entropy, 5)
_cross_entropy_gradient = Entries(losses.cross_entropy_gradient, 5)
_add = Entries(optimizers.add, 3)
_sum_of_squares = Entries(optimizers.sum_of_squares, 3)
_momentum_pass = Entries(optimizers.momentum, 5, numbers=2)
_momentum = KernelEntries(_momentum_pass, RULES["momentum"].kernel)
_nesterov = KernelEntries(_momentum_pass, RULES["nesterov"].kernel)
_rmsprop = KernelEntries(Entries(optimizers.rmsprop, 5, numbers=4), RULES["rmsprop"].kernel)
_adam = KernelEntries(Entries(optimizers.adam, 6, numbers=7), RULES["adam"].kernel)
_dropout = Entries(dropout_kernels.dropout, 7)
_batch_norm = Entries(batch_norm.forward, 8)
_batch_norm_gradient = Entries(batch_norm.backward, 10)
_smoothed = Entries(losses.smoothed_cross_entropy, 5)
_smoothed_gradient = Entries(losses.smoothed_cross_entropy_gradient, 5)
_binary_cross_entropy = Entries(losses.binary_cross_entropy, 4)
_binary_cross_entropy_gradient = Entries(losses.binary_cross_entropy_gradient, 4)
_poisson = Entries(losses.poisson_loss, 4)
_poisson_gradient = Entries(losses.poisson_loss_gradient, 4)
_squared_error = Entries(losses.squared_error, 4)
_squared_error_gradient = Entries(losses.squared_error_gradient, 4)


def by_rows(X: Array, dtype: np.dtype[Any]) -> Array:
    return columns.by_rows(X, dtype)


def elementwise_forward(function: str, input: Array, *constants: float) -> Array:
    if function in _UFUNCS:
        # NumPy's are vectorised too and cost less to call; a kernel is faster in float64
        dtype = input.dtype
        if dtype is _FLOAT32 or (dtype is _FLOAT64 and input.size < LONG_INPUT):
            output: Array = _UFUNCS[function](input)
            return output
    return _elementwise(_forward[function], input, input, constants)


def elementwise_backward(
    function: str, value: Array, grad_output: Array, *constants: float
) -> Array:
    return _elementwise(_backward[function], value, grad_output, constants)


def rounded_to_bfloat16(x: Array) -> Array:
    return numpy_backend.rounded_to_bfloat16(x)


def dense_forward(
    input: Array, weights: Array, biases: Array, *, relu: bool = False, bfloat16: bool = False
) -> Array:
    if bfloat16:
        input, weights = rounded_to_bfloat16(input), rounded_to_bfloat16(weights)
    dtype = input.dtype
    entry, itemsize = _product[dtype], input.itemsize
    output = _empty((len(input), len(biases)), dtype)
    if entry(1.0, FORWARD, itemsize, id(input), id(weights), id(output), id(biases), relu):
        X, W, b = plain(input), plain(weights, dtype), plain(biases, dtype)
        output = _empty((len(X), len(b)), X.dtype)
        raise_if_refused(
            entry(1.0, FORWARD, itemsize, id(X), id(W), id(output), id(b), relu), X, W, b
        )
    return output


def dense_backward(
    input: Array,
    weights: Array,
    grad_output: Array,
    out_grad_weights: Array,
    out_grad_biases: Array,
    *,
    input_gradient: bool = True,
    bfloat16: bool = False,
) -> Array | None:
    if bfloat16:
        of_biases = grad_output.sum(axis=0)
        grad_input = dense_backward(
            rounded_to_bfloat16(input),
            rounded_to_bfloat16(weights),
            rounded_to_bfloat16(grad_output),
            out_grad_weights,
            out_grad_biases,
            input_gradient=input_gradient,
        )
        out_grad_biases[...] = of_biases  # the sum of G as it is
        return grad_input
    dtype = input.dtype
    entry, itemsize, G = _product[dtype], input.itemsize, id(grad_output)
    # dX first: an out_ array may be what the products read
    grad_input = None
    if input_gradient:
        grad_input = _empty(input.shape, dtype)
        if entry(1.0, INPUT_GRADIENT, itemsize, G, id(weights), id(grad_input), 0, False):
            grad_input = _empty(input.shape, dtype.char)
            G_, W_ = plain(grad_output, dtype), plain(weights, dtype)
            raise_if_refused(
                entry(1.0, INPUT_GRADIENT, itemsize, id(G_), id(W_), id(grad_input), 0, False),
                G_,
                W_,
            )
    dW, db = out_grad_weights, out_grad_biases
    if entry(1.0, WEIGHT_GRADIENT, itemsize, id(input), G, id(dW), id(db), False):
        X_, G_ = plain(input), plain(grad_output, dtype)
        dW, db = _empty(dW.shape, dtype.char), _empty(db.shape, dtype.char)
        raise_if_refused(
            entry(1.0, WEIGHT_GRADIENT, itemsize, id(X_), id(G_), id(dW), id(db), False),
            X_,
            G_,
            dW,
            db,
        )
        out_grad_weights[...], out_grad_biases[...] = dW, db
    return grad_input


def dropout(input: Array, p: float, key: int, step: int) -> Array:
    dtype = input.dtype
    entry = _dropout[dtype]
    output = _empty(input.shape, dtype)
    # whole blocks of words, and the vector that reaches beyond the last element
    words = _empty(input.size + BLOCK_WORDS + MACHINE.vector_bits // 32, np.uint32)
    signed_key = (key ^ 1 << 63) - (1 << 63)
    rest = id(words), signed_key, step, round(p * 2**32)
    scale = 1 / (1 - p)
    if entry(scale, input.itemsize, id(input), id(output), *rest):
        X = plain(input)
        raise_if_refused(entry(scale, X.itemsize, id(X), id(output), *rest), X)
    return output


def batch_norm_forward(
    input: Array, scale: Array, shift: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    mean, variance = _empty((2, *input.shape[1:]), input.dtype)
    output = _normalized(epsilon, False, input, scale, shift, mean, variance)
    return output, mean, variance


def batch_norm_inference(
    input: Array, scale: Array, shift: Array, mean: Array, variance: Array, epsilon: float
) -> Array:
    return _normalized(epsilon, True, input, scale, shift, mean, variance)


def batch_norm_backward(
    input: Array,
    grad_output: Array,
    scale: Array,
    epsilon: float,
    out_grad_scale: Array,
    out_grad_shift: Array,
) -> Array:
    mean, variance = _empty((2, *input.shape[1:]), input.dtype)
    out = out_grad_scale, out_grad_shift
    return _normalized_gradient(epsilon, False, input, grad_output, scale, mean, variance, *out)


def batch_norm_inference_backward(
    input: Array,
    grad_output: Array,
    scale: Array,
    mean: Array,
    variance: Array,
    epsilon: float,
    out_grad_scale: Array,
    out_grad_shift: Array,
) -> Array:
    out = out_grad_scale, out_grad_shift
    return _normalized_gradient(epsilon, True, input, grad_output, scale, mean, variance, *out)


def softmax(logits: Array) -> Array:
    dtype = logits.dtype
    probabilities = _empty(logits.shape, dtype)
    if _softmax[dtype](1.0, logits.itemsize, id(logits), id(probabilities)):
        Z = plain(logits)
        raise_if_refused(_softmax[dtype](1.0, Z.itemsize, id(Z), id(probabilities)), Z)
    return probabilities


def softmax_cross_entropy(logits: Array, labels: Labels) -> Array:
    dtype = logits.dtype
    values = _empty(len(logits), dtype)
    if _cross_entropy[dtype](1.0, logits.itemsize, id(logits), id(labels), _LABELS, id(values)):
        Z, ids = plain(logits), plain(labels, _INT64)
        code = _cross_entropy[dtype](1.0, Z.itemsize, id(Z), id(ids), _LABELS, id(values))
        raise_if_refused(code, Z, ids)
    return values


def softmax_cross_entropy_gradient(logits: Array, labels: Labels) -> Array:
    dtype = logits.dtype
    gradient = _empty(logits.shape, dtype)
    entry = _cross_entropy_gradient[dtype]
    if entry(1.0, logits.itemsize, id(logits), id(labels), _LABELS, id(gradient)):
        Z, ids = plain(logits), plain(labels, _INT64)
        raise_if_refused(entry(1.0, Z.itemsize, id(Z), id(ids), _LABELS, id(gradient)), Z, ids)
    return gradient


def smoothed_cross_entropy(logits: Array, labels: Labels, smoothing: float) -> Array:
    entry, values = _smoothed[logits.dtype], _empty(len(logits), logits.dtype)
    if entry(smoothing, logits.itemsize, id(logits), id(labels), _LABELS, id(values)):
        Z, ids = plain(logits), plain(labels, _INT64)
        code = entry(smoothing, Z.itemsize, id(Z), id(ids), _LABELS, id(values))
        raise_if_refused(code, Z, ids)
    return values


def smoothed_cross_entropy_gradient(logits: Array, labels: Labels, smoothing: float) -> Array:
    entry, gradient = _smoothed_gradient[logits.dtype], _empty(logits.shape, logits.dtype)
    if entry(smoothing, logits.itemsize, id(logits), id(labels), _LABELS, id(gradient)):
        Z, ids = plain(logits), plain(labels, _INT64)
        code = entry(smoothing, Z.itemsize, id(Z), id(ids), _LABELS, id(gradient))
        raise_if_refused(code, Z, ids)
    return gradient


def binary_cross_entropy(logits: Array, target: Array) -> Array:
    return _loss_values(_binary_cross_entropy, logits, target)


def binary_cross_entropy_gradient(logits: Array, target: Array) -> Array:
    return _loss_gradient(_binary_cross_entropy_gradient, 1, len(logits), logits, target)


def poisson_loss(logits: Array, target: Array) -> Array:
    return _loss_values(_poisson, logits, target)


def poisson_loss_gradient(logits: Array, target: Array) -> Array:
    return _loss_gradient(_poisson_gradient, 1, len(logits), logits, target)


def mean_squared_error(output: Array, target: Array) -> Array:
    return _loss_values(_squared_error, output, target)


def mean_squared_error_gradient(output: Array, target: Array) -> Array:
    return _loss_gradient(_squared_error_gradient, 2, output.size, output, target)


def add_multiple(target: Array, factor: float, source: Array) -> None:
    entry = _add[target.dtype]
    if entry(factor, target.itemsize, id(target), id(source)):
        target += target.dtype.type(factor) * source


def sum_of_squares(x: Array) -> float:
    total = _empty(1)
    entry = _sum_of_squares[x.dtype]
    if entry(1.0, x.itemsize, id(x), id(total)):
        X = plain(x).reshape(-1)
        raise_if_refused(entry(1.0, X.itemsize, id(X), id(total)), X)
    return float(total[0])


def clip_by_global_norm(gradients: Sequence[Array], clip_norm: float) -> None:
    norm = math.sqrt(sum(map(sum_of_squares, gradients))) + 1e-6
    if not norm <= clip_norm:
        for gradient in gradients:
            gradient *= gradient.dtype.type(clip_norm / norm)


def sgd_step(parameters: Array, gradient: Array, learning_rate: float) -> None:
    add_multiple(parameters, -learning_rate, gradient)


def momentum_step(
    parameters: Array,
    gradient: Array,
    velocity: Array,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
) -> None:
    entry, kernel = (_nesterov if nesterov else _momentum)[parameters.dtype]
    rate, itemsize = learning_rate, parameters.itemsize
    if entry(rate, momentum, kernel, itemsize, id(parameters), id(gradient), id(velocity)):
        copies = _copies(parameters, gradient, velocity)
        raise_if_refused(entry(rate, momentum, kernel, itemsize, *map(id, copies)), *copies)
        parameters[...], _, velocity[...] = copies


def rmsprop_step(
    parameters: Array,
    gradient: Array,
    mean_square: Array,
    learning_rate: float,
    rho: float,
    epsilon: float,
) -> None:
    entry, kernel = _rmsprop[parameters.dtype]
    # 1 - rho before it is rounded: in float32 it would lose three digits where rho is 0.999
    rate, rest, itemsize = learning_rate, 1 - rho, parameters.itemsize
    P, G, S = id(parameters), id(gradient), id(mean_square)
    if entry(rate, rho, rest, epsilon, kernel, itemsize, P, G, S):
        copies = _copies(parameters, gradient, mean_square)
        raise_if_refused(
            entry(rate, rho, rest, epsilon, kernel, itemsize, *map(id, copies)), *copies
        )
        parameters[...], _, mean_square[...] = copies


def adam_step(
    parameters: Array,
    gradient: Array,
    mean: Array,
    mean_square: Array,
    learning_rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    step: int,
) -> None:
    rate = learning_rate / (1 - beta1 ** (step + 1))
    correction = 1 / math.sqrt(1 - beta2 ** (step + 1))
    entry, kernel = _adam[parameters.dtype]
    numbers = rate, correction, beta1, 1 - beta1, beta2, 1 - beta2, epsilon
    itemsize = parameters.itemsize
    if entry(*numbers, kernel, itemsize, id(parameters), id(gradient), id(mean), id(mean_square)):
        copies = _copies(parameters, gradient, mean, mean_square)
        raise_if_refused(entry(*numbers, kernel, itemsize, *map(id, copies)), *copies)
        parameters[...], _, mean[...], mean_square[...] = copies


def _copies(parameters: Array, *others: Array) -> list[Array]:
    """Return copies as kernels like them: contiguous, writeable, with no memory in common."""
    return [plain(array.copy(), parameters.dtype) for array in (parameters, *others)]


def _elementwise(
    entries: KernelEntries, value: Array, second: Array, constants: tuple[float, ...]
) -> Array:
    """Run the kernel of an elementwise function on one matrix, or on two of the same shape."""
    entry, kernel = entries[value.dtype]
    output = _empty_like(value)
    a, b = (*constants, 0.0, 0.0)[:2] if constants else _NO_CONSTANTS
    if entry(a, b, kernel, value.itemsize, id(value), id(second), id(output)):
        X, G = plain(value), plain(second, value.dtype)
        output = _empty_like(X)
        raise_if_refused(entry(a, b, kernel, X.itemsize, id(X), id(G), id(output)), X, G)
    return output


def _loss_values(entries: Entries, output: Array, target: Array) -> Array:
    """Run the entry of a loss on outputs and numeric targets; return the loss of each row."""
    dtype = output.dtype
    entry = entries[dtype]
    values = _empty(len(output), dtype)
    if entry(1.0, output.itemsize, id(output), id(target), id(values)):
        Y, T = plain(output), plain(target, dtype)
        raise_if_refused(entry(1.0, Y.itemsize, id(Y), id(T), id(values)), Y, T)
    return values


def _loss_gradient(
    entries: Entries, multiple: int, count: int, output: Array, target: Array
) -> Array:
    """Run the entry of a loss's derivative; return multiple / count times the derivative."""
    dtype = output.dtype
    entry = entries[dtype]
    factor = multiple / (count or 1)
    gradient = _empty(output.shape, dtype)
    if entry(factor, output.itemsize, id(output), id(target), id(gradient)):
        Y, T = plain(output), plain(target, dtype)
        raise_if_refused(entry(factor, Y.itemsize, id(Y), id(T), id(gradient)), Y, T)
    return gradient


def _normalized(
    epsilon: float,
    given: bool,
    input: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    variance: Array,
) -> Array:
    dtype = input.dtype
    entry = _batch_norm[dtype]
    output = _empty(input.shape, dtype)
    arrays = [input, output, scale, shift, mean, variance]
    if entry(epsilon, input.itemsize, given, *map(id, arrays)):
        # what the kernel writes is plain, so it is not copied
        arrays = [plain(array, dtype) for array in arrays]
        raise_if_refused(entry(epsilon, input.itemsize, given, *map(id, arrays)), *arrays)
    return output


def _normalized_gradient(
    epsilon: float,
    given: bool,
    input: Array,
    grad_output: Array,
    scale: Array,
    mean: Array,
    variance: Array,
    out_grad_scale: Array,
    out_grad_shift: Array,
) -> Array:
    dtype, out = input.dtype, (out_grad_scale, out_grad_shift)
    entry = _batch_norm_gradient[dtype]
    grad_input = _empty(input.shape, dtype)
    arrays = [input, grad_output, grad_input, scale, mean, variance]
    if entry(epsilon, input.itemsize, given, *map(id, arrays), *map(id, out)):
        arrays = [plain(array, dtype) for array in arrays]
        plain_out = [_empty(vector.shape, dtype.char) for vector in out]
        code = entry(epsilon, input.itemsize, given, *map(id, arrays), *map(id, plain_out))
        raise_if_refused(code, *arrays, *plain_out)
        out_grad_scale[...], out_grad_shift[...] = plain_out
        grad_input = arrays[2]
    return grad_input


_ON_ONE_ELEMENT: dict[str, Callable[[Array, Labels], object]] = {
    "dense_forward": lambda one, _: dense_forward(one, one, one[0]),
    "dense_backward": lambda one, _: dense_backward(one, one, one, one.copy(), one[0].copy()),
    "dropout": lambda one, _: dropout(one, 0.5, 0, 0),
    "batch_norm_forward": lambda one, _: batch_norm_forward(one, one[0], one[0], 1.0),
    "batch_norm_backward": lambda one, _: batch_norm_backward(
        one, one, one[0], 1.0, one[0].copy(), one[0].copy()
    ),
    "softmax_cross_entropy": lambda one, label: softmax_cross_entropy(one, label),
    "softmax_cross_entropy_gradient": lambda one, label: softmax_cross_entropy_gradient(one, label),
    "smoothed_cross_entropy": lambda one, label: smoothed_cross_entropy(one, label, 0.5),
    "smoothed_cross_entropy_gradient": lambda one, label: smoothed_cross_entropy_gradient(
        one, label, 0.5
    ),
    "binary_cross_entropy": lambda one, _: binary_cross_entropy(one, one),
    "binary_cross_entropy_gradient": lambda one, _: binary_cross_entropy_gradient(one, one),
    "poisson_loss": lambda one, _: poisson_loss(one, one),
    "poisson_loss_gradient": lambda one, _: poisson_loss_gradient(one, one),
    "mean_squared_error": lambda one, _: mean_squared_error(one, one),
    "mean_squared_error_gradient": lambda one, _: mean_squared_error_gradient(one, one),
}
"""A small call of each operation of training, which has its kernel compiled or read."""


def prepare(dtype: np.dtype[Any], operations: Iterable[str]) -> None:
    """Make `operations` ready to compute in `dtype`: run each once, on one element.

    An elementwise function is asked for by its name.
    """
    one, label = np.ones((1, 1), dtype), np.zeros(1, np.int64)
    for name in operations:
        if name in FORMULAS:
            constants = (1.0,) * FORMULAS[name].constants
            elementwise_forward(name, one, *constants)
            elementwise_backward(name, one, one, *constants)
        else:
            _ON_ONE_ELEMENT[name](one, label)
