"""Losses: what a network minimises. The only place that knows what a label is.

Sources of the formulas: C. M. Bishop, "Pattern Recognition and Machine
Learning", Springer 2006, sections 4.3.4 and 5.2.
"""

from __future__ import annotations

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
