"""MLPClassifier."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import validate_data

from fastnn import checks
from fastnn.checks import Array
from fastnn.sklearn.base import BaseMLP


class MLPClassifier(ClassifierMixin, BaseMLP):  # type: ignore[misc]
    """Multi-layer perceptron for classification, in the place of scikit-learn's.

    The same parameters, targets and `random_state` give the weights that
    `sklearn.neural_network.MLPClassifier` ends with, up to rounding.

    Parameters
    ----------
    hidden_layer_sizes, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, \
max_iter, shuffle, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, \
early_stopping, validation_fraction, beta_1, beta_2, epsilon, n_iter_no_change, max_fun
        As in `sklearn.neural_network.MLPClassifier`.
    activation : str, `fastnn.Layer`, or a list of one for each hidden layer
        A name that scikit-learn has, such as "logistic", or one of `fastnn.activations.BY_NAME`,
        such as "gelu"; or a layer, such as `LeakyReLU(0.2)`, which is copied.
    class_weight : {"balanced"}, dict, list of dict, or None
        Weights of classes, by which those of samples are multiplied, as other classifiers of
        scikit-learn take them. `partial_fit` takes no "balanced", which is of a whole training set.
    dropout : float, or a list of one for each hidden layer
        The probability that a hidden unit is left out of a step of training, below 1.
    batch_norm : bool
        Normalise the units of each hidden layer over the batch, before the activation.
    optimizer : `fastnn.Optimizer`, str or None
        In the place of what `solver` would use: an optimiser with its own learning rate, which is
        copied, or the name of one, such as "rmsprop", that takes `learning_rate_init`.
    schedule : callable or None
        The learning rate of each step, such as `fastnn.schedules.CosineDecay`, in the place of
        `learning_rate_init`.
    callbacks : `fastnn.Callback`, callable, list of these, or None
        What hears of each epoch and may end the training; see `fastnn.Network.fit`.
    threads : int or None
        Threads that share each step, by default those of FASTNN_NUM_THREADS, or else a number
        chosen by the work; no bit depends on it.

    Attributes
    ----------
    network_ : fastnn.Network
        What has been trained; its output is the logits. After a stochastic solver its layers have
        l2 = alpha / (2 batch_size), the penalty of a whole batch without weights.
    coefs_, intercepts_ : list of arrays
        Weights [inputs, outputs] and biases [outputs] of each layer: views of those of the network.
    classes_, loss_, loss_curve_, best_loss_, validation_scores_, best_validation_score_, n_iter_, \
t_, n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_
        As in scikit-learn; validation scores also where `fit` is given validation data.

    Raises
    ------
    ValueError
        By `fit` and `partial_fit`, if a parameter is out of range or does not go with another, or
        data are refused, as scikit-learn refuses them.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastnn.sklearn import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> MLPClassifier(solver="lbfgs", random_state=1, max_iter=1000).fit(X, y).score(X, y) > 0.97
    True
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012 - scikit-learn's name and form
        **BaseMLP._parameter_constraints,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }

    _counts_right_answers = True

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        class_weight: Any = None,
        dropout: Any = 0.0,
        batch_norm: bool = False,
        optimizer: Any = None,
        schedule: Any = None,
        callbacks: Any = None,
        threads: int | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.class_weight = class_weight
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.optimizer = optimizer
        self.schedule = schedule
        self.callbacks = callbacks
        self.threads = threads

    @available_if(lambda estimator: estimator._check_solver())  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        classes: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
    ) -> MLPClassifier:
        """Train for one epoch on X.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : array of shape [classes]
            All classes that there will be, in the first call; later ones need not repeat them.
        X_val, y_val
            As in `fit`.

        Returns
        -------
        MLPClassifier
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            If a parameter, or what is handed in, is refused.
        """
        self._fit(X, y, sample_weight, X_val, y_val, classes=classes, incremental=True)
        return self

    def predict(self, X: Any) -> Array:
        """Return the class, or the labels, of each sample.

        Parameters
        ----------
        X : array, frame or CSR matrix of shape [samples, features]

        Returns
        -------
        array of shape [samples], or [samples, labels]

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError, TypeError
            If X is refused.
        """
        output = self._validated_output(X)
        binarizer = self._label_binarizer
        if binarizer.y_type_ == "multiclass":
            classes: Array = self.classes_[output.argmax(axis=1)]
            return classes
        if self.n_outputs_ == 1:
            output = output.ravel()
        found: Array = binarizer.inverse_transform(output, threshold=0.0)
        return found

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class.

        Parameters
        ----------
        X : array, frame or CSR matrix of shape [samples, features]

        Returns
        -------
        array of shape [samples, classes]
            In the order of `classes_`; of several labels that of each one, by itself.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError, TypeError
            If X is refused.
        """
        output = self._validated_output(X)
        probabilities = self.network_._loss.probabilities(self._backend, output)
        if self.n_outputs_ > 1:
            return probabilities
        return np.hstack([1 - probabilities, probabilities])

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of what `predict_proba` returns.

        Parameters
        ----------
        X : array, frame or CSR matrix of shape [samples, features]

        Returns
        -------
        array of shape [samples, classes]

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError, TypeError
            If X is refused.
        """
        probabilities = self.predict_proba(X)
        with np.errstate(divide="ignore"):  # of a probability that is 0
            logarithms: Array = np.log(probabilities, out=probabilities)
        return logarithms

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            multi_output=True,
            dtype=(np.float64, np.float32),
            order="C",
            reset=reset,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, y

    def _note(self, y: Any, classes: Any, incremental: bool) -> None:
        if incremental and _check_partial_fit_first_call(self, classes):
            multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if multilabel else classes)
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
            return
        found = unique_labels(y)
        if self.warm_start:
            if set(found) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same "
                    "classes as in the previous call to fit. Previously "
                    f"got {self.classes_}, `y` has {found}"
                )
        else:
            self._refuse_unseen("y", found)

    def _refuse_unseen(self, name: str, classes: Array) -> None:
        if len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                f"`{name}` has classes not in `self.classes_`. "
                f"`self.classes_` has {self.classes_}. '{name}' has {classes}."
            )

    def _targets(self, name: str, y: Any) -> Array:
        if name != "y":
            self._refuse_unseen(name, unique_labels(y))
        # not `classes_`, which a user may change: outputs are those of the binarizer's classes
        known, kind = self._label_binarizer.classes_, self._label_binarizer.y_type_
        shape = (y.shape[0], len(known)) if kind == "multilabel-indicator" else (y.shape[0],)
        if y.shape != shape:
            raise ValueError(
                f"{name}: expected shape {shape}, as the network was built for, got {y.shape}"
            )
        if y.ndim == 1:
            ids: Array = np.searchsorted(known, y)
            unseen = known.take(ids, mode="clip") != y
            if unseen.any():
                at = int(unseen.argmax())
                raise ValueError(
                    f"{name}: expected the classes that the network was built for, {known}, "
                    f"got {y[at]} at index {at}"
                )
            if kind == "multiclass":
                return ids
        columns: Array = self._label_binarizer.transform(y)
        return columns

    def _outputs_of(self, y: Any) -> int:
        binarizer = self._label_binarizer
        return 1 if binarizer.y_type_ == "binary" else len(binarizer.classes_)

    def _weights_of_classes(self, y: Any, incremental: bool) -> Array | None:
        if self.class_weight is None:
            return None
        if incremental and self.class_weight == "balanced":
            raise ValueError(
                "class_weight: expected the weight of each class in partial_fit, got 'balanced', "
                "which is of a whole training set; compute_class_weight('balanced', ...) gives them"
            )
        if isinstance(self.class_weight, dict) and y.ndim == 1:
            return self._weights_by_class(self.class_weight, y)
        of_labels = self.class_weight if isinstance(self.class_weight, list) else []
        if of_labels and y.ndim == 1:
            raise ValueError(
                "class_weight: expected weights of the classes in a dict, got a list, which is for "
                "several labels"
            )
        weights: Array = compute_sample_weight(self.class_weight, y)
        for of_label in of_labels:
            for label, weight in of_label.items():
                checks.real(f"class_weight[{label!r}]", weight, minimum=0.0)
        return weights

    def _weights_by_class(self, class_weight: dict[Any, Any], y: Array) -> Array:
        """Return the weights of samples; a class that is not named has 1, and may be absent."""
        known = self._label_binarizer.classes_
        weights = np.ones(len(y))
        for label, weight in class_weight.items():
            if label not in known:
                raise ValueError(f"class_weight: expected classes among {known}, got {label!r}")
            weights[y == label] = checks.real(f"class_weight[{label!r}]", weight, minimum=0.0)
        return weights

    def _loss_and_activation(self) -> tuple[str, str]:
        if self._label_binarizer.y_type_ == "multiclass":
            return "softmax_cross_entropy", "softmax"
        return "binary_cross_entropy", "logistic"

    def _strata(self, targets: Array) -> Array | None:
        # as scikit-learn: not of several classes, which have several columns there
        return targets.astype(bool) if self.n_outputs_ == 1 else None

    def _score_of(self, targets: Array, output: Array, weights: Array | None) -> float:
        if targets.ndim == 1:
            return float(accuracy_score(targets, output.argmax(axis=1), sample_weight=weights))
        return float(accuracy_score(targets > 0.5, output > 0.0, sample_weight=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
