"""MLPRegressor."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse, special
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import validate_data

from fastnn.checks import Array
from fastnn.sklearn.base import BaseMLP


class MLPRegressor(RegressorMixin, BaseMLP):  # type: ignore[misc]
    """Multi-layer perceptron for regression, in the place of scikit-learn's.

    The same parameters, targets and `random_state` give the weights that
    `sklearn.neural_network.MLPRegressor` ends with, up to rounding.

    Parameters
    ----------
    loss : {"squared_error", "poisson"}
        As in `sklearn.neural_network.MLPRegressor`.
    hidden_layer_sizes, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, \
max_iter, shuffle, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, \
early_stopping, validation_fraction, beta_1, beta_2, epsilon, n_iter_no_change, max_fun
        As there.
    activation, dropout, batch_norm, optimizer, schedule, callbacks, threads
        As in `MLPClassifier`.

    Attributes
    ----------
    network_ : fastnn.Network
        What has been trained; its output is the predicted value, or its logarithm with
        loss="poisson".
    coefs_, intercepts_, loss_, loss_curve_, best_loss_, validation_scores_, \
best_validation_score_, n_iter_, t_, n_layers_, n_outputs_, out_activation_, n_features_in_, \
feature_names_in_
        As those of `MLPClassifier`, whose errors `fit` and `partial_fit` raise as well.

    Notes
    -----
    Of k targets a sample, scikit-learn reports the mean of their losses and adds the whole penalty,
    but minimises their sum and the penalty. Here the penalty is divided by k, too, in what is
    reported, so that it is what is minimised but for the factor k; L-BFGS, which compares losses,
    then finds less.
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012 - scikit-learn's name and form
        **BaseMLP._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson"})],
    }

    _counts_right_answers = False

    def __init__(
        self,
        loss: str = "squared_error",
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
        dropout: Any = 0.0,
        batch_norm: bool = False,
        optimizer: Any = None,
        schedule: Any = None,
        callbacks: Any = None,
        threads: int | None = None,
    ) -> None:
        self.loss = loss
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
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.optimizer = optimizer
        self.schedule = schedule
        self.callbacks = callbacks
        self.threads = threads

    @available_if(lambda estimator: estimator._check_solver())  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None
    ) -> MLPRegressor:
        """Train for one epoch on X.

        Parameters
        ----------
        X, y, sample_weight, X_val, y_val
            As in `fit`.

        Returns
        -------
        MLPRegressor
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            If a parameter, or what is handed in, is refused.
        """
        self._fit(X, y, sample_weight, X_val, y_val, incremental=True)
        return self

    def predict(self, X: Any) -> Array:
        """Return the predicted values.

        Parameters
        ----------
        X : array, frame or CSR matrix of shape [samples, features]

        Returns
        -------
        array of shape [samples], or [samples, targets]

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError, TypeError
            If X is refused.
        """
        output = self._validated_output(X)
        output = self.network_._loss.answers(output)
        return output.ravel() if output.shape[1] == 1 else output

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        if sparse.issparse(y):
            raise TypeError("y: expected a dense array, got a sparse one; write y.toarray()")
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            multi_output=True,
            y_numeric=True,
            dtype=(np.float64, np.float32),
            order="C",
            reset=reset,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if y.dtype.kind not in "biuf":
            raise ValueError(f"y: expected real numbers, got an array of dtype {y.dtype}")
        if not np.isfinite(y).all():  # of objects, NaN is what scikit-learn makes of None
            raise ValueError("y: expected finite numbers, got NaN or infinity")
        return X, y

    def _targets(self, name: str, y: Any) -> Array:
        rows: Array = y.reshape(-1, 1) if y.ndim == 1 else y
        if rows.shape[1] != self.n_outputs_:
            raise ValueError(
                f"{name}: expected {self.n_outputs_} targets a sample, got {rows.shape[1]}"
            )
        if self.loss == "poisson" and rows.min() < 0:
            raise ValueError(
                f"{name}: expected numbers of at least 0 with loss='poisson', got {rows.min()}"
            )
        return rows

    def _outputs_of(self, y: Any) -> int:
        return 1 if y.ndim == 1 else int(y.shape[1])

    def _loss_and_activation(self) -> tuple[str, str]:
        if self.loss == "poisson":
            return "poisson", "exp"
        return "half_squared_error", "identity"

    def _strata(self, targets: Array) -> None:
        return None

    def _score_of(self, targets: Array, output: Array, weights: Array | None) -> float:
        answers = self.network_._loss.answers(output)
        if not np.isfinite(answers).all():
            return float("nan")
        return float(r2_score(targets, answers, sample_weight=weights))

    def _constant(self, targets: Array, weights: Array | None) -> float:
        if self.loss != "poisson":
            return 0.0
        # half the deviance is 0 where the rates are the targets
        least = special.xlogy(targets, targets) - targets
        return float(np.average(least, axis=0, weights=weights).sum())

    def _reported(self, loss: float) -> float:
        # the mean over the outputs, where the loss that is minimised is the sum
        return loss if self.loss == "poisson" else loss / self.n_outputs_
