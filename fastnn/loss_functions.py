"""Losses as functions of arrays, and what they need of their arguments.

Sources of the formulas: C. M. Bishop, "Pattern Recognition and Machine
Learning", Springer 2006, sections 4.3.4 and 5.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn import backends, checks
from fastnn.checks import Array


def softmax(logits: npt.ArrayLike) -> Array:
    """Return the probabilities exp(z_c) / Σ_k exp(z_k) of each row.

    Parameters
    ----------
    logits : array of shape [batch, classes]
        Of any size: the row's maximum is subtracted first.

    Returns
    -------
    array of shape [batch, classes]
        Rows sum to 1; in the dtype of `logits`, float64 for integers.

    Raises
    ------
    ValueError
        If `logits` is not a matrix or is empty.
    TypeError
        If it does not hold real numbers.
    """
    return backends.load().softmax(checks.floating_matrix("logits", logits))


def softmax_crossentropy_with_logits(
    logits: npt.ArrayLike, reference_answers: npt.ArrayLike
) -> Array:
    """Return each sample's cross-entropy, -log softmax(z)_answer = log Σ_k exp(z_k) - z_answer.

    Parameters
    ----------
    logits : array of shape [batch, classes]
        Of any size, -inf in wrong classes included.
    reference_answers : integers of shape [batch]
        The class id of each sample.

    Returns
    -------
    array of shape [batch]
        In nats; in the dtype of `logits`, float64 for integers.

    Raises
    ------
    ValueError
        If shapes do not match, there is no sample, or a class id is fractional or out of range.
    TypeError
        If either does not hold real numbers.
    """
    z = checks.floating_matrix("logits", logits)
    answers = _answers(reference_answers, z)
    return backends.load().softmax_cross_entropy(z, answers)


def grad_softmax_crossentropy_with_logits(
    logits: npt.ArrayLike, reference_answers: npt.ArrayLike
) -> Array:
    """Return the gradient of the batch's mean cross-entropy with respect to the logits.

    (softmax(z) - onehot(answer)) / batch, so it is already divided by the batch size.

    Parameters
    ----------
    logits : array of shape [batch, classes]
    reference_answers : integers of shape [batch]

    Returns
    -------
    array of shape [batch, classes]

    Raises
    ------
    ValueError, TypeError
        As `softmax_crossentropy_with_logits`.
    """
    z = checks.floating_matrix("logits", logits)
    answers = _answers(reference_answers, z)
    return backends.load().softmax_cross_entropy_gradient(z, answers)


def _answers(reference_answers: npt.ArrayLike, logits: Array) -> backends.Labels:
    batch, classes = logits.shape
    return checks.labels("reference_answers", reference_answers, batch=batch, classes=classes)


def binary_crossentropy_with_logits(
    logits: npt.ArrayLike, reference_answers: npt.ArrayLike
) -> Array:
    """Return each sample's binary cross-entropy, summed over its outputs.

    -Σ_k (t_k log σ(z_k) + (1 - t_k) log σ(-z_k)), with the sigmoid σ.

    Parameters
    ----------
    logits : array of shape [batch, outputs]
        Of any size, infinite ones included.
    reference_answers : numbers of shape [batch, outputs], [batch] with one output
        1 for yes and 0 for no, or the probability of yes.

    Returns
    -------
    array of shape [batch]
        In nats; in the dtype of `logits`, float64 for integers.

    Raises
    ------
    ValueError
        If shapes do not match, there is no sample, or an answer is below 0 or above 1.
    TypeError
        If either does not hold real numbers.
    """
    z = checks.floating_matrix("logits", logits)
    return backends.load().binary_cross_entropy(z, _shares_of(reference_answers, z))


def grad_binary_crossentropy_with_logits(
    logits: npt.ArrayLike, reference_answers: npt.ArrayLike
) -> Array:
    """Return the gradient of the batch's mean binary cross-entropy with respect to the logits.

    (σ(z) - t) / batch, so it is already divided by the batch size.

    Parameters
    ----------
    logits : array of shape [batch, outputs]
    reference_answers : numbers of shape [batch, outputs], [batch] with one output

    Returns
    -------
    array of shape [batch, outputs]

    Raises
    ------
    ValueError, TypeError
        As `binary_crossentropy_with_logits`.
    """
    z = checks.floating_matrix("logits", logits)
    return backends.load().binary_cross_entropy_gradient(z, _shares_of(reference_answers, z))


def _shares_of(reference_answers: npt.ArrayLike, logits: Array) -> Array:
    return shares("reference_answers", reference_answers, logits.shape, logits.dtype)


def shares(name: str, y: npt.ArrayLike, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return `y` as numbers from 0 to 1 in the shape of the outputs."""
    y = checks.numeric(name, y)
    batch, outputs = shape
    if outputs == 1 and y.shape == (batch,):
        y = y[:, np.newaxis]
    y = checks.shaped(name, y, (batch, outputs))
    outside = ~((y >= 0) & (y <= 1))
    if outside.any():
        at = tuple(int(i) for i in np.argwhere(outside)[0])
        raise ValueError(f"{name}: expected numbers from 0 to 1, got {y[at]} at index {at}")
    return np.ascontiguousarray(y, dtype)


def mse(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> float:
    """Return the mean squared error, Σ (y_pred - y_true)² / size, over all elements.

    Parameters
    ----------
    y_true, y_pred : arrays of one shape
        It computes in the promoted type of floating arrays, float64 where both hold integers.

    Raises
    ------
    ValueError
        If shapes differ or there is no element.
    TypeError
        If either does not hold real numbers.
    """
    target, output, _ = _compared(y_true, y_pred)
    return float(backends.load().mean_squared_error(output, target).mean(dtype=np.float64))


def mse_prime(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> Array:
    """Return the gradient of `mse` with respect to `y_pred`: 2 (y_pred - y_true) / size.

    Parameters
    ----------
    y_true, y_pred : arrays of one shape

    Returns
    -------
    array of that shape

    Raises
    ------
    ValueError, TypeError
        As `mse`.
    """
    target, output, shape = _compared(y_true, y_pred)
    return backends.load().mean_squared_error_gradient(output, target).reshape(shape)


def one_hot(labels: npt.ArrayLike, classes: int, dtype: npt.DTypeLike = np.float32) -> Array:
    """Return a row for each class id, 1 in the column of that number and 0 elsewhere.

    Parameters
    ----------
    labels : integers of shape [n]
        From 0 to classes - 1.
    classes
        The number of columns.
    dtype
        float32 or float64.

    Returns
    -------
    array of shape [n, classes]

    Raises
    ------
    ValueError
        If `labels` is not one-dimensional, a class id is fractional or out of range, or `classes`
        is not positive.
    TypeError
        If `labels` does not hold real numbers, `classes` is not an integer, or `dtype` another.
    """
    columns = checks.integer("classes", classes, minimum=1)
    array = np.atleast_1d(checks.numeric("labels", labels))
    checks.held("labels, classes", max(1, len(array)), columns)
    ids = checks.labels("labels", array, batch=len(array), classes=columns)
    return one_hot_rows(ids, columns, checks.float_dtype("dtype", dtype))


def one_hot_rows(labels: backends.Labels, classes: int, dtype: np.dtype[Any]) -> Array:
    """Return the same of class ids that have been checked."""
    rows = np.zeros((len(labels), classes), dtype)
    rows[np.arange(len(labels)), labels] = 1
    return rows


def _compared(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> tuple[Array, Array, tuple[int, ...]]:
    """Return both as matrices of one row in the dtype to compute in, and their shape."""
    given = checks.filled("y_pred", y_pred)
    shape = given.shape
    output = checks.floating_matrix("y_pred", given.reshape(1, -1))
    target = checks.shaped("y_true", y_true, shape).reshape(1, -1)
    dtype = output.dtype
    if target.dtype.kind == "f":
        dtype = checks.compute_dtype("y_true", dtype, target.dtype)
    return target.astype(dtype, copy=False), output.astype(dtype, copy=False), shape
