"""Losses: what a network minimises, and the choice of one.

With `loss_functions.py` the only place that knows what a label is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastnn import backends, checks
from fastnn.backends import Backend
from fastnn.checks import Array
from fastnn.loss_functions import (
    binary_crossentropy_with_logits,
    grad_binary_crossentropy_with_logits,
    grad_softmax_crossentropy_with_logits,
    mse,
    mse_prime,
    one_hot_rows,
    shares,
    softmax_crossentropy_with_logits,
)
from fastnn.registry import Registry

LossFunction = Callable[[Any, Any], Any]


BUILT_IN: Registry[Loss] = Registry("name", fixed=("name", "operations"))
"""fastnn's own losses."""


class Loss(ABC):
    """What a network minimises: the mean of a loss over the samples of a batch.

    `targets` checks what a user hands in; all other methods take what it returned, whole or some
    rows of it.

    Attributes
    ----------
    name : str
        That of a loss of fastnn's own; the name of the function for a user's.
    operations : tuple of str
        What training asks of the backend.
    label_smoothing : float
        The share of each target that is spread evenly over the classes.
    """

    name: str
    operations: tuple[str, ...] = ()
    _arguments: ClassVar[tuple[str, ...]] = ()
    _label_smoothing = 0.0

    @property
    def label_smoothing(self) -> float:
        """The share of each target that is spread evenly over the classes; fixed."""
        return self._label_smoothing

    @property
    def arguments(self) -> dict[str, float]:
        """What it was given that is not what it would be otherwise; files hold it."""
        given = {name: getattr(self, name) for name in self._arguments}
        return {name: value for name, value in given.items() if value}

    @abstractmethod
    def targets(
        self, name: str, y: npt.ArrayLike, *, batch: int, outputs: int, dtype: np.dtype[Any]
    ) -> Array:
        """Return `y` checked, one row for each of `batch` samples of `outputs` outputs."""

    @abstractmethod
    def has_classes(self, targets: Array, outputs: int) -> bool:
        """Say whether targets are class ids, so that answers are right or wrong."""

    def has_quantities(self, targets: Array, outputs: int) -> bool:
        """Say whether targets are real numbers, one for each output, that answers come near to."""
        return False

    @abstractmethod
    def total(
        self, backend: Backend, output: Array, targets: Array, weights: Array | None = None
    ) -> float:
        """Return the sum of the losses of the samples, each times its weight if there are any."""

    @abstractmethod
    def gradient(self, backend: Backend, output: Array, targets: Array) -> Array:
        """Return the gradient of the mean loss with respect to `output`.

        Of what `total` was asked before, which has checked that the two go together.
        """

    def weighted_gradient(
        self, backend: Backend, output: Array, targets: Array, weights: Array | None
    ) -> Array:
        """Return the gradient of the weighted mean Σ_n v_n L_n / Σ_n v_n; of `total` as above.

        Where all weights are 0 there is none.
        """
        gradient = self.gradient(backend, output, targets)
        if weights is None:
            return gradient
        total = weights.sum()
        factors = weights * (len(weights) / total) if total > 0 else np.zeros_like(weights)
        weighted: Array = gradient * factors.astype(gradient.dtype)[:, np.newaxis]
        return weighted

    def check_weights(self, name: str) -> None:  # noqa: B027 - most losses refuse nothing
        """Raise unless samples can have weights."""

    def class_ids(self, targets: Array, outputs: int) -> tuple[backends.Labels, int] | None:
        """Return the class of each sample and how many there are, None where it has not one."""
        return (targets, outputs) if self.has_classes(targets, outputs) else None

    def right_answers(self, output: Array, targets: Array) -> int:
        """Count the rows that are right: whose first largest output is that of the class.

        A row with NaN is not.
        """
        of_labels = output[np.arange(len(targets)), targets]
        return int(((output.argmax(axis=1) == targets) & ~np.isnan(of_labels)).sum())

    def answers(self, output: Array) -> Array:
        """Return what a prediction is: the outputs, or the classes that they stand for."""
        return output

    def check_logits(self, method: str) -> None:
        """Raise unless outputs are logits of classes, of which softmax makes probabilities."""
        raise TypeError(
            f"{method}: expected a network with the loss 'softmax_cross_entropy', got {self!r}, "
            "under which outputs are no logits of classes"
        )

    def probabilities(self, backend: Backend, output: Array) -> Array:
        """Return the probabilities that outputs stand for, in their shape; raise if they don't."""
        raise TypeError(
            "predict_proba: expected a network with the loss 'softmax_cross_entropy' or "
            f"'binary_cross_entropy', got {self!r}, under which outputs are no logits"
        )

    def __repr__(self) -> str:
        if not self.arguments:
            return repr(self.name)
        arguments = (f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{type(self).__name__}({', '.join(arguments)})"


@BUILT_IN.register
class SoftmaxCrossEntropy(Loss):
    """Cross-entropy of the softmax of the outputs, which are logits; targets are class ids.

    Parameters
    ----------
    label_smoothing
        The share of each target that is spread evenly over all classes, at least 0 and below 1: of
        K classes, the one that is right gets 1 - s + s / K and each other one s / K. The loss has
        it wherever it is computed, so in `evaluate` as well.

    Raises
    ------
    ValueError
        If `label_smoothing` is out of range.
    TypeError
        If it is not a number.

    References
    ----------
    C. Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016,
    section 7. As in PyTorch and Keras.
    """

    name = "softmax_cross_entropy"
    _arguments = ("label_smoothing",)

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self._label_smoothing = _smoothing(label_smoothing)

    @property
    def operations(self) -> tuple[str, ...]:  # type: ignore[override]
        """What training asks of the backend; fixed."""
        kind = "smoothed" if self._label_smoothing else "softmax"
        return f"{kind}_cross_entropy", f"{kind}_cross_entropy_gradient"

    def targets(
        self, name: str, y: npt.ArrayLike, *, batch: int, outputs: int, dtype: np.dtype[Any]
    ) -> Array:
        try:
            return checks.labels(name, y, batch=batch, classes=outputs)
        except ValueError as error:
            if outputs > 1:
                raise
            raise ValueError(
                f"{error}; {self!r} takes an output for each class; one output is for 0 and 1 "
                "under 'binary_cross_entropy', and for real targets under 'mse'"
            ) from None

    def has_classes(self, targets: Array, outputs: int) -> bool:
        return True

    def answers(self, output: Array) -> Array:
        classes: Array = output.argmax(axis=1)
        return classes

    def check_logits(self, method: str) -> None:
        pass

    def probabilities(self, backend: Backend, output: Array) -> Array:
        return backend.softmax(output)

    def total(
        self, backend: Backend, output: Array, targets: Array, weights: Array | None = None
    ) -> float:
        _check_classes(targets, output)
        if self._label_smoothing:
            losses = backend.smoothed_cross_entropy(output, targets, self._label_smoothing)
        else:
            losses = backend.softmax_cross_entropy(output, targets)
        return _sum(losses, weights)

    def gradient(self, backend: Backend, output: Array, targets: Array) -> Array:
        if self._label_smoothing:
            return backend.smoothed_cross_entropy_gradient(output, targets, self._label_smoothing)
        return backend.softmax_cross_entropy_gradient(output, targets)


@BUILT_IN.register
class BinaryCrossEntropy(Loss):
    """Cross-entropy of the sigmoid of each output, which is a logit, summed over the outputs.

    Targets are 1 or 0 for each output, or probabilities, [n, outputs]; [n] with one output. The
    answer of an output is 1 where its logit is above 0, and a sample is right if all of its answers
    are. With one output, answers are class ids.

    Parameters
    ----------
    label_smoothing
        The share of each target that is spread evenly over yes and no, at least 0 and below 1: a
        target t becomes (1 - s) t + s / 2, as in Keras, in training and in `evaluate`.

    Raises
    ------
    ValueError
        If `label_smoothing` is out of range.
    TypeError
        If it is not a number.
    """

    name = "binary_cross_entropy"
    operations = ("binary_cross_entropy", "binary_cross_entropy_gradient")
    _arguments = ("label_smoothing",)

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self._label_smoothing = _smoothing(label_smoothing)

    def targets(
        self, name: str, y: npt.ArrayLike, *, batch: int, outputs: int, dtype: np.dtype[Any]
    ) -> Array:
        return shares(name, y, (batch, outputs), dtype)

    def has_classes(self, targets: Array, outputs: int) -> bool:
        return bool(((targets == 0) | (targets == 1)).all())

    def class_ids(self, targets: Array, outputs: int) -> tuple[backends.Labels, int] | None:
        if outputs > 1 or not self.has_classes(targets, outputs):
            return None
        return targets[:, 0].astype(np.int64), 2

    def right_answers(self, output: Array, targets: Array) -> int:
        right = ((output > 0) == targets) & ~np.isnan(output)
        return int(right.all(axis=1).sum())

    def answers(self, output: Array) -> Array:
        answers = (output > 0).astype(np.int64)
        return answers[:, 0] if answers.shape[1] == 1 else answers

    def probabilities(self, backend: Backend, output: Array) -> Array:
        return backend.elementwise_forward("sigmoid", output)

    def total(
        self, backend: Backend, output: Array, targets: Array, weights: Array | None = None
    ) -> float:
        targets = checks.shaped("y", targets, output.shape)
        return _sum(backend.binary_cross_entropy(output, self._smoothed(targets)), weights)

    def gradient(self, backend: Backend, output: Array, targets: Array) -> Array:
        return backend.binary_cross_entropy_gradient(output, self._smoothed(targets))

    def _smoothed(self, targets: Array) -> Array:
        """Return what the outputs are compared with."""
        if not self._label_smoothing:
            return targets
        smoothed: Array = targets + self._label_smoothing * (0.5 - targets)
        return smoothed


@BUILT_IN.register
class MeanSquaredError(Loss):
    """Mean squared error, over samples and outputs.

    Targets are class ids [n], of which the outputs are to be the one-hot rows, or real numbers
    [n, outputs].
    """

    name = "mse"
    operations = ("mean_squared_error", "mean_squared_error_gradient")

    def targets(
        self, name: str, y: npt.ArrayLike, *, batch: int, outputs: int, dtype: np.dtype[Any]
    ) -> Array:
        y = checks.numeric(name, y)
        if y.ndim == 1 and outputs > 1:
            try:
                return checks.labels(name, y, batch=batch, classes=outputs)
            except ValueError as error:
                raise ValueError(
                    f"{error}; real targets are of shape [{batch}, {outputs}] here, and [{batch}] "
                    "where there is one output"
                ) from None
        if y.shape == (batch,):
            y = y[:, np.newaxis]
        with np.errstate(over="ignore"):  # infinite targets give an infinite loss, which tells
            return np.ascontiguousarray(checks.shaped(name, y, (batch, outputs)), dtype)

    def has_classes(self, targets: Array, outputs: int) -> bool:
        return targets.ndim == 1

    def has_quantities(self, targets: Array, outputs: int) -> bool:
        return targets.ndim == 2

    def total(
        self, backend: Backend, output: Array, targets: Array, weights: Array | None = None
    ) -> float:
        rows = self._rows(output, targets)
        return _sum(backend.mean_squared_error(output, rows), weights)

    def gradient(self, backend: Backend, output: Array, targets: Array) -> Array:
        return backend.mean_squared_error_gradient(output, self._rows(output, targets))

    def _rows(self, output: Array, targets: Array) -> Array:
        """Return the outputs that there should be."""
        if targets.ndim == 1:
            _check_classes(targets, output)
            return one_hot_rows(targets, output.shape[1], output.dtype)
        return checks.shaped("y", targets, output.shape)


@BUILT_IN.register
class HalfSquaredError(MeanSquaredError):
    """Half the squared error, added over the outputs, mean over the samples: ½ Σ_k (y_k - t_k)².

    Its gradient by an output is y - t over the batch, whatever the number of outputs. Targets are
    those of `MeanSquaredError`.
    """

    name = "half_squared_error"

    def total(
        self, backend: Backend, output: Array, targets: Array, weights: Array | None = None
    ) -> float:
        mean = super().total(backend, output, targets, weights)
        return float(mean * output.shape[1] / 2)

    def gradient(self, backend: Backend, output: Array, targets: Array) -> Array:
        gradient = super().gradient(backend, output, targets)
        gradient *= output.shape[1] / 2
        return gradient


@BUILT_IN.register
class Poisson(Loss):
    """Poisson's loss of rates of which the outputs are the logarithms, added over the outputs.

    exp(z) - t z, for counts or rates t [n, outputs] of at least 0; [n] with one output. Answers are
    the rates, exp(z).
    """

    name = "poisson"
    operations = ("poisson_loss", "poisson_loss_gradient")

    def targets(
        self, name: str, y: npt.ArrayLike, *, batch: int, outputs: int, dtype: np.dtype[Any]
    ) -> Array:
        y = checks.numeric(name, y)
        if outputs == 1 and y.shape == (batch,):
            y = y[:, np.newaxis]
        y = checks.shaped(name, y, (batch, outputs))
        with np.errstate(over="ignore"):
            targets = np.ascontiguousarray(y, dtype)
        wrong = ~(np.isfinite(targets) & (targets >= 0))
        if wrong.any():
            at = np.unravel_index(wrong.argmax(), wrong.shape)
            value = y[at]
            holds = not np.isfinite(value) or value < 0
            reason = "" if holds else f", which is infinite in {np.dtype(dtype).name}"
            raise ValueError(
                f"{name}: expected finite numbers of at least 0, got {value} at index {at[0]}"
                f"{reason}"
            )
        return targets

    def has_classes(self, targets: Array, outputs: int) -> bool:
        return False

    def has_quantities(self, targets: Array, outputs: int) -> bool:
        return True

    def answers(self, output: Array) -> Array:
        rates: Array = np.exp(output)
        return rates

    def total(
        self, backend: Backend, output: Array, targets: Array, weights: Array | None = None
    ) -> float:
        targets = checks.shaped("y", targets, output.shape)
        return _sum(backend.poisson_loss(output, targets), weights)

    def gradient(self, backend: Backend, output: Array, targets: Array) -> Array:
        return backend.poisson_loss_gradient(output, targets)


class UserLoss(Loss):
    """A user's pair of functions of (y_true, y_pred), which are handed a batch at a time.

    The first returns one number, the mean over the batch, the second an array of the shape of
    y_pred. Targets are handed over as they came; where they are class ids, answers are counted.
    """

    def __init__(self, loss: LossFunction, loss_prime: LossFunction) -> None:
        self.loss = checks.function("loss", loss)
        self.loss_prime = checks.function("loss_prime", loss_prime)
        self.name = getattr(loss, "__name__", repr(loss))

    def targets(
        self, name: str, y: npt.ArrayLike, *, batch: int, outputs: int, dtype: np.dtype[Any]
    ) -> Array:
        try:
            y = np.asarray(y)
        except ValueError:
            raise ValueError(f"{name}: expected a regular array, got ragged data") from None
        if y.ndim == 0 or len(y) != batch:
            raise ValueError(f"{name}: expected {batch} targets, one a row, got shape {y.shape}")
        return y

    def has_classes(self, targets: Array, outputs: int) -> bool:
        return (
            targets.ndim == 1
            and targets.dtype.kind in "iu"
            and outputs > 1
            and bool(((targets >= 0) & (targets < outputs)).all())
        )

    def has_quantities(self, targets: Array, outputs: int) -> bool:
        one_each = targets.shape[1:] == (outputs,) or (targets.ndim == 1 and outputs == 1)
        return targets.dtype.kind == "f" and one_each

    def check_weights(self, name: str) -> None:
        raise TypeError(
            f"{name}: expected none beside a loss of your own, which gives the mean of a batch, "
            "got some"
        )

    def total(
        self, backend: Backend, output: Array, targets: Array, weights: Array | None = None
    ) -> float:
        mean = np.asarray(self.loss(targets, checks.read_only(output)))
        if mean.size != 1 or mean.dtype.kind not in "biuf":
            raise ValueError(
                f"loss: expected it to return one number, the mean over the batch, got shape "
                f"{mean.shape} and dtype {mean.dtype}"
            )
        return float(mean.reshape(())) * len(output)

    def gradient(self, backend: Backend, output: Array, targets: Array) -> Array:
        gradient = self.loss_prime(targets, checks.read_only(output))
        return checks.shaped("loss_prime(y_true, y_pred)", gradient, output.shape).astype(
            output.dtype, copy=False
        )


ELSEWHERE = {
    "cross_entropy": "softmax_cross_entropy",
    "crossentropy": "softmax_cross_entropy",
    "sparse_categorical_crossentropy": "softmax_cross_entropy",
    "CrossEntropyLoss": "softmax_cross_entropy",
    "log_loss": "softmax_cross_entropy",
    "binary_crossentropy": "binary_cross_entropy",
    "BCEWithLogitsLoss": "binary_cross_entropy",
    "mean_squared_error": "mse",
    "squared_error": "mse",
    "MSELoss": "mse",
    "PoissonNLLLoss": "poisson",
}
"""Names that other libraries have for the same losses, of the same targets.

Of binary cross-entropy, scikit-learn takes the sum over outputs as well, Keras and PyTorch take the
mean: with more outputs than one, gradients here are so many times as large.
"""

OF_LOGITS = (
    (softmax_crossentropy_with_logits, grad_softmax_crossentropy_with_logits, SoftmaxCrossEntropy),
    (binary_crossentropy_with_logits, grad_binary_crossentropy_with_logits, BinaryCrossEntropy),
)
"""Functions that take their arguments the other way round, so that they can't be a user's loss."""

INSTEAD = {
    "categoricalcrossentropy": "of one-hot rows write y.argmax(axis=1), and "
    "'softmax_cross_entropy'",
    "bceloss": "write 'binary_cross_entropy', without a Sigmoid layer before it",
    "nllloss": "write 'softmax_cross_entropy', without a layer of log-probabilities before it",
}
"""What to write in place of losses that other libraries have, by their folded names."""


def _folded(name: str) -> str:
    """Return a name without what libraries, and people, write differently."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


_NAMED = {_folded(kind.name): kind for kind in BUILT_IN}
_NAMED |= {_folded(name): _NAMED[_folded(here)] for name, here in ELSEWHERE.items()}
"""Losses by their folded names, here and elsewhere."""


def chosen(loss: str | Loss | LossFunction, loss_prime: LossFunction | None = None) -> Loss:
    """Return the loss that is given, or that a name or functions stand for; see `Network.use`."""
    if isinstance(loss, str):
        kind = _NAMED.get(_folded(loss))
        if kind is None:
            names = ", ".join([repr(known.name) for known in BUILT_IN])
            raise ValueError(
                f"loss: expected {names} or a function, got {loss!r}; "
                + INSTEAD.get(_folded(loss), "network.use(loss, loss_prime) takes one of your own")
            )
        if loss_prime is not None:
            raise TypeError(f"loss_prime: expected none beside {loss!r}, got {loss_prime!r}")
        return kind()
    if isinstance(loss, Loss):
        if loss_prime is not None:
            raise TypeError(f"loss_prime: expected none beside {loss!r}, got {loss_prime!r}")
        return loss
    if isinstance(loss, type) and issubclass(loss, Loss):
        raise TypeError(
            f"loss: expected a name, a loss or a function, got the class {loss.__name__}; write "
            f"{loss.__name__}(...), with parentheses"
        )
    if not callable(loss):
        raise TypeError(f"loss: expected a name, a loss or a function, got {loss!r}")
    if loss is mse and (loss_prime is None or loss_prime is mse_prime):
        return MeanSquaredError()
    for function, gradient, kind in OF_LOGITS:
        if loss is function:
            if loss_prime is not None and loss_prime is not gradient:
                raise ValueError(
                    f"loss_prime: expected {gradient.__name__} beside {function.__name__}, "
                    f"got {loss_prime!r}"
                )
            return kind()
    if loss_prime is None:
        raise TypeError("loss_prime: expected a function beside a loss of your own, got None")
    return UserLoss(loss, loss_prime)


def described(loss: Loss) -> str | dict[str, Any]:
    """Return what files hold of a loss of fastnn's own: its name, and arguments if it has any."""
    return {"name": loss.name, **loss.arguments} if loss.arguments else loss.name


def built(description: str | dict[str, Any]) -> Loss:
    """Return the loss of a description."""
    if isinstance(description, str):
        return chosen(description)
    arguments = dict(description)
    kind: Any = type(chosen(arguments.pop("name")))
    loss: Loss = kind(**arguments)
    return loss


def _smoothing(value: float) -> float:
    return checks.real("label_smoothing", value, minimum=0.0, below=1.0)


def class_weights(value: Any, labels: backends.Labels, classes: int) -> Array:
    """Return the weight of each class; see `Network.fit`."""
    if isinstance(value, str):
        if value != "balanced":
            raise ValueError(f"class_weight: expected 'balanced' or weights, got {value!r}")
        counts = np.bincount(labels, minlength=classes)
        occurring = np.count_nonzero(counts)
        return np.where(counts > 0, len(labels) / (occurring * np.maximum(counts, 1)), 1.0)
    if isinstance(value, Mapping):
        found = np.ones(classes)
        for label, weight in value.items():
            place = checks.integer("class_weight, a class id", label, minimum=0)
            if place >= classes:
                raise ValueError(
                    f"class_weight: expected class ids from 0 to {classes - 1}, got {place}"
                )
            found[place] = checks.real(f"class_weight[{place}]", weight, minimum=0.0)
        return found
    return checks.shaped("class_weight", value, (classes,)).astype(np.float64)


def _sum(losses: Array, weights: Array | None) -> float:
    """Return the sum of the losses, each times its weight, in float64."""
    return float((losses if weights is None else losses * weights).sum(dtype=np.float64))


def _check_classes(labels: backends.Labels, output: Array) -> None:
    """Refuse labels that kernels could not look up: a user's layer may give fewer classes."""
    if labels.max() >= output.shape[1]:
        raise ValueError(
            f"y: expected class ids from 0 to {output.shape[1] - 1}, as the network gave "
            f"{output.shape[1]} outputs, got {labels.max()}"
        )
