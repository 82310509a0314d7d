"""Networks as fitted perceptrons of scikit-learn, and from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastnn import checks, extras
from fastnn.checks import Array
from fastnn.interchange.records import Described, described, row, said, said_by
from fastnn.layers import Dense, Layer, Rescaling
from fastnn.losses import (
    BinaryCrossEntropy,
    HalfSquaredError,
    Loss,
    MeanSquaredError,
    Poisson,
    SoftmaxCrossEntropy,
)
from fastnn.normalization import factors_and_addends

try:
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.utils.multiclass import unique_labels
except ImportError:
    raise ImportError(f"scikit-learn is needed: {extras.install('sklearn')}") from None

if TYPE_CHECKING:
    from fastnn.network import Network

TARGET = "a perceptron of scikit-learn"

# From scikit-learn


def read(estimator: Any) -> tuple[list[Layer], str, np.dtype[Any]]:
    """Return layers, loss and dtype of an estimator; see `fastnn.from_sklearn`."""
    if not isinstance(estimator, (MLPClassifier, MLPRegressor)):
        kind = f"{type(estimator).__module__}.{type(estimator).__qualname__}"
        raise TypeError(
            f"estimator: expected an MLPClassifier or MLPRegressor of scikit-learn, got {kind}"
            + (", whose network_ is a network" if hasattr(estimator, "network_") else "")
        )
    if not hasattr(estimator, "coefs_"):
        raise ValueError(f"estimator: expected a fitted one, got {estimator} without a fit")
    if estimator.out_activation_ not in _LOSSES:
        raise TypeError(
            f"estimator: expected outputs by {' or '.join(_LOSSES)}, got {estimator} with outputs "
            f"by {estimator.out_activation_}"
        )
    check_weights(estimator.coefs_, estimator.intercepts_, "estimator, ")
    if estimator.activation not in list(_ACTIVATIONS):  # also of what can't be a key
        raise ValueError(
            f"estimator: expected the activation {' or '.join(_ACTIVATIONS)}, got {estimator}"
        )
    layers: list[Layer] = []
    pairs = zip(estimator.coefs_, estimator.intercepts_, strict=True)
    arrays = [(np.asarray(weights), np.asarray(biases)) for weights, biases in pairs]
    for weights, biases in arrays:
        if layers:
            layers += [kind() for kind in _ACTIVATIONS[estimator.activation]]
        dense = Dense(*weights.shape)
        dense._parameters.fill({"weights": weights, "biases": biases})
        layers.append(dense)
    dtype = arrays[0][0].dtype
    if dtype.kind == "f":
        dtype = checks.compute_dtype("estimator, coefs_[0]", np.result_type(dtype, np.float32))
    return layers, _LOSSES[estimator.out_activation_], dtype if dtype.kind == "f" else _FLOAT64


def checked_list(name: str, value: Any, layers: int) -> Sequence[Any]:
    """Return a list of what each layer has, of `layers` that have weights."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{name}: expected a list of {layers} arrays, got {value!r}")
    if len(value) != layers:
        raise ValueError(f"{name}: expected a list of {layers} arrays, got {len(value)}")
    return value


def check_weights(coefs: Any, intercepts: Any, where: str = "") -> None:
    """Raise unless these are weights and biases of a network, from layer to layer."""
    layers = max(1, len(coefs)) if isinstance(coefs, (list, tuple)) else 1
    checked_list(f"{where}coefs_", coefs, layers)
    checked_list(f"{where}intercepts_", intercepts, layers)
    units = None
    for number, weights in enumerate(coefs):
        shape = checks.numeric(f"{where}coefs_[{number}]", weights).shape
        if len(shape) != 2 or 0 in shape or units not in (None, shape[0]):
            expected = "inputs" if units is None else units
            raise ValueError(
                f"{where}coefs_[{number}]: expected shape [{expected}, outputs], got {shape}"
            )
        units = shape[1]
        checks.shaped(f"{where}intercepts_[{number}]", intercepts[number], (units,))


_FLOAT64 = np.dtype(np.float64)


_ACTIVATIONS: dict[str, list[type[Layer]]] = {
    "identity": [],
    **{name: [kind] for kind, name in said_by("sklearn").items()},
}
"""What is between dense layers, by the name of the activation."""

_LOSSES = {
    "softmax": "softmax_cross_entropy",
    "logistic": "binary_cross_entropy",
    "identity": "half_squared_error",
    "exp": "poisson",
}
"""The loss of a network, by the name of the function of the outputs, which is part of it."""


# To scikit-learn


def estimator(network: Network, classes: npt.ArrayLike | None) -> MLPClassifier | MLPRegressor:
    """Return `network` as a fitted estimator; see `Network.to_sklearn`."""
    loss = type(network._loss)
    if loss not in _FITTED:
        expected = " or ".join(repr(known.name) for known in _FITTED)
        raise TypeError(
            f"to_sklearn: expected a network with the loss {expected}, got {network._loss!r}"
        )
    layers = DenseLayers()
    for part in described(network, TARGET):
        row(_LAYERS, part.record.kind, part.layer, TARGET)(layers, part)
    layers.finish()
    made = _FITTED[loss](layers, network.dtype, classes)
    made.coefs_ = [weights.astype(network.dtype) for weights in layers.weights]
    made.intercepts_ = [biases.astype(network.dtype) for biases in layers.biases]
    losses = list(network.history.loss) if network.history else []
    made.loss_curve_, made.n_iter_, made.t_ = losses, len(losses), 0
    made.loss_ = losses[-1] if losses else np.nan
    made.best_loss_ = min(losses, default=np.inf)
    return made


class DenseLayers:
    """Dense layers with one function between them; what else multiplies and adds is part of them.

    Attributes
    ----------
    weights, biases : lists of arrays
        In float64.
    """

    def __init__(self) -> None:
        self.weights: list[Array] = []
        self.biases: list[Array] = []
        self._functions: list[str] = []
        self._last: Layer | None = None
        # Of the inputs of the next dense layer.
        self._factors, self._addends = np.ones(1), np.zeros(1)

    @property
    def function(self) -> str:
        """What is between the layers, as scikit-learn calls it."""
        return self._functions[0] if self._functions else "identity"

    @property
    def outputs(self) -> int:
        """The width of the last layer."""
        return len(self.biases[-1])

    @property
    def _behind_dense(self) -> bool:
        return len(self.weights) > len(self._functions)

    def dense(self, part: Described) -> None:
        """Put in a dense layer."""
        if self._behind_dense:
            self._put_between("identity", part.layer)
        layer: Any = part.layer
        weights, biases = (np.array(a, np.float64) for a in (layer.weights, layer.biases))
        self.biases.append(biases + np.broadcast_to(self._addends, len(weights)) @ weights)
        self.weights.append(self._factors[:, np.newaxis] * weights)
        self._factors, self._addends = np.ones(1), np.zeros(1)

    def batch_norm(self, part: Described) -> None:
        """Put in batch norm, with its running statistics."""
        layer: Any = part.layer
        self._scale(*factors_and_addends(layer))
        self._last = layer

    def elementwise(self, part: Described) -> None:
        """Put in a function."""
        layer: Any = part.layer
        if isinstance(layer, Rescaling):
            self._scale(np.array([layer.scale]), np.zeros(1))
        else:
            function = said("sklearn", layer, TARGET)
            if not self._behind_dense:
                raise _misplaced(layer, "a dense layer before each activation")
            self._put_between(function, layer)
        self._last = layer

    def finish(self) -> None:
        """Raise unless a dense layer is the last one."""
        if not self._behind_dense:
            raise _misplaced(self._last or "no dense layer", "a dense layer at the end")

    def _put_between(self, function: str, layer: Layer) -> None:
        if self._functions and function != self.function:
            raise _misplaced(layer, f"the same activation, {self.function}, behind each layer")
        self._functions.append(function)

    def _scale(self, factors: Array, addends: Array) -> None:
        if self._behind_dense:
            self.weights[-1] = self.weights[-1] * factors
            self.biases[-1] = self.biases[-1] * factors + addends
        else:
            self._factors = self._factors * factors
            self._addends = self._addends * factors + addends


def _misplaced(layer: Layer | str, expected: str) -> TypeError:
    return TypeError(f"can't write {layer} into {TARGET}: expected {expected}")


_LAYERS: dict[str, Callable[[DenseLayers, Described], None]] = {
    "dense": DenseLayers.dense,
    "batch_norm": DenseLayers.batch_norm,
    "elementwise": DenseLayers.elementwise,
    "dropout": lambda layers, part: None,
}
"""How a layer is put in, by the kind of record with which it describes itself."""


def _of_classes(layers: DenseLayers, dtype: np.dtype[Any], classes: Any) -> MLPClassifier:
    if layers.outputs == 1:
        raise TypeError(f"can't write a network into {TARGET}: expected at least two classes")
    labels = _labels(classes, layers.outputs)
    if layers.outputs == 2:
        # One output there, of which the logistic function makes the probability of the second class
        layers.weights[-1] = np.diff(layers.weights[-1])
        layers.biases[-1] = np.diff(layers.biases[-1])
    return _fitted(MLPClassifier, layers, dtype, labels, classes=labels)


def _of_yes_or_no(layers: DenseLayers, dtype: np.dtype[Any], classes: Any) -> MLPClassifier:
    if layers.outputs > 1:
        _refuse(classes, "a sample may have several labels")
        rows, labels = np.eye(layers.outputs, dtype=int), np.arange(layers.outputs)
        return _fitted(MLPClassifier, layers, dtype, rows, classes=labels)
    labels = _labels(classes, 2)
    return _fitted(MLPClassifier, layers, dtype, labels, classes=labels)


def _of_numbers(
    layers: DenseLayers, dtype: np.dtype[Any], classes: Any, loss: str = "squared_error"
) -> MLPRegressor:
    _refuse(classes, "outputs are numbers")
    shape = (1, layers.outputs) if layers.outputs > 1 else 1
    return _fitted(partial(MLPRegressor, loss), layers, dtype, np.zeros(shape))


def _labels(classes: Any, count: int) -> Array:
    if classes is None:
        return np.arange(count)
    try:
        labels = np.asarray(classes)
        ascending = labels.shape == (count,) and np.array_equal(labels, unique_labels(labels))
    except (TypeError, ValueError):  # which are no labels at all
        ascending = False
    if not ascending or np.ma.is_masked(classes):
        raise ValueError(
            f"classes: expected {count} labels in ascending order, of a kind that scikit-learn "
            f"takes, got {classes!r}"
        )
    return labels


def _refuse(classes: Any, reason: str) -> None:
    if classes is not None:
        raise ValueError(f"classes: expected None, as {reason}, got {classes!r}")


_FITTED: dict[type[Loss], Callable[[DenseLayers, np.dtype[Any], Any], Any]] = {
    SoftmaxCrossEntropy: _of_classes,
    BinaryCrossEntropy: _of_yes_or_no,
    MeanSquaredError: _of_numbers,
    HalfSquaredError: _of_numbers,
    Poisson: partial(_of_numbers, loss="poisson"),
}
"""How a fitted estimator is made, by the loss of a network."""


def _fitted(
    kind: Any, layers: DenseLayers, dtype: np.dtype[Any], y: Array, **options: Any
) -> MLPClassifier | MLPRegressor:
    """Return an estimator of these widths which has been fitted to zeros.

    So scikit-learn itself sets all that it wants to find in a fitted one.
    """
    made = kind(
        hidden_layer_sizes=tuple(len(biases) for biases in layers.biases[:-1]),
        activation=layers.function,
        random_state=0,  # else it draws from NumPy's global generator, which is the user's
    )
    made.partial_fit(np.zeros((len(y), len(layers.weights[0])), dtype), y, **options)
    # what the optimiser remembers of that step
    vars(made).pop("_optimizer", None)
    return made.set_params(random_state=None)
