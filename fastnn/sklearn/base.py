"""What both estimators share: parameters, attributes, and how they are fitted."""

from __future__ import annotations

import copy
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from fastnn import backends, checks, optimizers, propagation
from fastnn.callbacks import Callback, checked_callbacks
from fastnn.checks import Array
from fastnn.interchange.sklearn import check_weights, checked_list
from fastnn.interrupts import Held
from fastnn.layers import Dense, Layer, TrainingMode
from fastnn.network import Network
from fastnn.optimizers import Optimizer
from fastnn.samples import output_units
from fastnn.sklearn import building, lbfgs
from fastnn.sklearn.epochs import Epochs, Shuffled, epochs_of
from fastnn.training import History

STOCHASTIC_SOLVERS = ("sgd", "adam")

SMALLEST_ADAPTIVE_RATE = 1e-6
"""Below it the learning rate 'adaptive' is divided no more, and training ends."""

PIECE_BYTES = 1 << 24
"""Of sparse input, what is made dense at once in prediction."""


class BaseMLP(BaseEstimator, ABC):  # type: ignore[misc]
    """The base of both estimators; not for use by itself.

    The weights lie in the network; `coefs_` and `intercepts_` are lists of views of them. What a
    user puts in the place of one is copied in before it is used next.
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012 - scikit-learn's name and form
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(building.ACTIVATIONS)), Layer, list, tuple],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left"), list, tuple],
        "batch_norm": ["boolean"],
        "optimizer": [None, Optimizer, StrOptions(set(optimizers.BY_NAME))],
        "schedule": [None, callable],
        "callbacks": [None, list, tuple, Callback, callable],
        "threads": [None, Interval(Integral, 1, None, closed="left")],
    }

    network_: Network

    # What the two differ in

    _counts_right_answers: bool
    """Whether the score is the share of right answers."""

    @abstractmethod
    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        """Return X and y checked."""

    @abstractmethod
    def _targets(self, name: str, y: Any) -> Array:
        """Return checked y as the network's loss takes it."""

    @abstractmethod
    def _outputs_of(self, y: Any) -> int:
        """Return how many outputs the network needs for checked y."""

    @abstractmethod
    def _loss_and_activation(self) -> tuple[str, str]:
        """Return fastnn's name of the loss and scikit-learn's of the output activation."""

    @abstractmethod
    def _strata(self, targets: Array) -> Array | None:
        """Return by what a split for validation is stratified."""

    @abstractmethod
    def _score_of(self, targets: Array, output: Array, weights: Array | None) -> float:
        """Return the score of the network's output."""

    def _note(self, y: Any, classes: Any, incremental: bool) -> None:
        """Note what there is to note of checked y and of all classes, before they are used."""

    def _weights_of_classes(self, y: Any, incremental: bool) -> Array | None:
        return None

    def _constant(self, targets: Array, weights: Array | None) -> float:
        """Return what scikit-learn's loss has beside fastnn's, of these targets."""
        return 0.0

    def _reported(self, loss: float) -> float:
        """Return the loss as scikit-learn reports it."""
        return loss

    # Fitting

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None
    ) -> Self:
        """Train on X until the loss, or the score on validation data, improves no more.

        Parameters
        ----------
        X : array, frame or CSR matrix of shape [samples, features]
            It is computed in float32 where it is of that dtype, otherwise in float64. CSR is never
            made dense but for a batch at a time.
        y : array of shape [samples], or [samples, outputs]
            Of a classifier classes, or 0 and 1 for each of several labels; of a regressor numbers.
        sample_weight : array of shape [samples], optional
            A weight of each sample, at least 0.
        X_val, y_val : optional
            Validation data: the score on them after each epoch goes to `validation_scores_`. With
            `early_stopping` they take the place of a part of X.

        Returns
        -------
        MLPClassifier or MLPRegressor
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            If a parameter, or what is handed in, is refused.

        Warns
        -----
        ConvergenceWarning
            If the training ended as `max_iter` was reached.
        """
        self._fit(X, y, sample_weight, X_val, y_val)
        return self

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        X_val: Any,
        y_val: Any,
        *,
        classes: Any = None,
        incremental: bool = False,
    ) -> BaseMLP:
        if hasattr(self, "network_") and self.network_._fitting:
            raise RuntimeError("an estimator can't begin to train while it is training")
        hidden = building.hidden_units(self.hidden_layer_sizes)
        first_pass = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        self._check_options(incremental, X_val, y_val)
        if not first_pass:
            self._check_structure()
        with self._as_before_if_refused():
            X, y = self._validated_plain(X, y, reset=first_pass)
            self._note(y, classes, incremental)
            weights = self._sample_weights(sample_weight, X, y, incremental)
            self._random_state = check_random_state(self.random_state)
            if first_pass:
                self.n_outputs_ = self._outputs_of(y)
                self._initialize([X.shape[1], *hidden, self.n_outputs_], X.dtype)
            self._sync()
            targets = self._checked_targets("y", X, y)
            validation = None if X_val is None else self._validation_data(X_val, y_val)
            stochastic, samples = self.solver in STOCHASTIC_SOLVERS, np.arange(X.shape[0])
            if stochastic and self.early_stopping and validation is None:
                samples, validation = self._split(X, targets, weights)
        if stochastic:
            self._fit_stochastic(X, targets, weights, samples, validation, incremental, first_pass)
        else:
            lbfgs.fit(self, X, targets, weights)
        if not (incremental or self.warm_start):
            # a fitted estimator is kept to predict, often as one of many
            self.network_._programs.forget_training()
        self._check_weights()
        return self

    def _check_weights(self, of_training: str = "") -> None:
        """Raise unless the parameters are finite, in the words of scikit-learn."""
        if not np.isfinite(self.network_._parameters.vector).all():
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may"
                f" contain large values and need to be preprocessed.{of_training}"
            )

    def _structure(self, hidden: int) -> dict[str, Any]:
        """Return the parameters that a network of so many hidden layers is built with."""
        return {
            "hidden_layer_sizes": building.hidden_units(self.hidden_layer_sizes),
            "activation": building.of_each_layer("activation", self.activation, hidden),
            "dropout": building.of_each_layer("dropout", self.dropout, hidden),
            "batch_norm": self.batch_norm,
            "loss": getattr(self, "loss", None),
        }

    def _check_structure(self) -> None:
        """Refuse to go on with a network that is not as the parameters say."""
        if not hasattr(self, "_built_with"):
            return
        for name, value in self._structure(len(self._views[0]) - 1).items():
            before = self._built_with[name]
            if not building.alike(value, before):
                raise ValueError(
                    f"{name}: expected {before!r}, with which the network was built, got "
                    f"{value!r}; fit without warm_start builds another"
                )

    @contextmanager
    def _as_before_if_refused(self) -> Iterator[None]:
        """Take back what was noted of data that are refused.

        Classes would be those of one fit and the network that of another.
        """
        before = self.__dict__.copy()
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _checked_targets(self, name: str, X: Any, y: Any) -> Array:
        """Return targets that kernels can trust.

        What they are made with are attributes, which a user may change, so the network's loss
        checks them by the outputs that there are.
        """
        network = self.network_
        outputs = output_units(network, X)
        return network._loss.targets(
            name, self._targets(name, y), batch=X.shape[0], outputs=outputs, dtype=network.dtype
        )

    def _check_options(self, incremental: bool, X_val: Any, y_val: Any) -> None:
        """Refuse parameters that do not go together."""
        building.check_numbers(self)
        if self.callbacks is not None:
            checked_callbacks(self.callbacks)
        if self.early_stopping and self.validation_fraction == 0 and X_val is None:
            raise ValueError(
                "validation_fraction: expected a share above 0 beside early_stopping=True, got "
                f"{self.validation_fraction}"
            )
        if (X_val is None) != (y_val is None):
            given, missing = ("X_val", "y_val") if y_val is None else ("y_val", "X_val")
            raise ValueError(f"{missing}: expected it beside {given}, got None")
        if incremental and self.early_stopping and X_val is None:
            raise ValueError(
                "partial_fit does not support early_stopping=True without X_val and y_val"
            )
        if self.schedule is not None and self.learning_rate != "constant":
            raise ValueError(
                f"learning_rate: expected 'constant' beside schedule, got {self.learning_rate!r}"
            )
        if self.solver != "lbfgs":
            return
        dropout = self.dropout
        unused = {
            "dropout": any(dropout) if isinstance(dropout, (list, tuple)) else dropout > 0,
            "batch_norm": self.batch_norm,
            "optimizer": self.optimizer is not None,
            "schedule": self.schedule is not None,
            "callbacks": bool(self.callbacks),
            "X_val": X_val is not None,
        }
        for name, used in unused.items():
            if used:
                raise ValueError(
                    f"{name}: expected none with solver='lbfgs', which takes no batches, got "
                    + ("some" if name == "X_val" else repr(getattr(self, name)))
                )

    def _validated_plain(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        """Return X and y checked, where what they hold is what they seem to hold."""
        building.check_plain("X", X)
        if np.ma.is_masked(y):
            raise TypeError("y: expected an array without masked elements")
        try:
            return self._validated(X, y, reset=reset)
        except OverflowError as error:
            raise ValueError(f"X, y: expected numbers that a float can hold: {error}") from None

    def _sample_weights(
        self, sample_weight: Any, X: Any, y: Any, incremental: bool
    ) -> Array | None:
        weights: Array | None = None
        if sample_weight is not None:
            building.check_plain("sample_weight", sample_weight)
            weights = _check_sample_weight(
                sample_weight, X, dtype=np.float64, ensure_non_negative=True
            )
        of_classes = self._weights_of_classes(y, incremental)
        if of_classes is not None:
            weights = of_classes if weights is None else weights * of_classes
        if weights is None:
            return None
        return checks.weights("sample_weight, class_weight", weights, X.shape[0])

    def _validation_data(self, X_val: Any, y_val: Any) -> tuple[Any, Array, Array | None]:
        try:
            X, y = self._validated_plain(X_val, y_val, reset=False)
            return X, self._checked_targets("y_val", X, y), None
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"X_val, y_val: {error}") from None

    def _initialize(self, units: list[int], dtype: Any) -> None:
        """Draw parameters, and begin all counts anew."""
        self.n_iter_ = 0
        self.t_ = 0
        self.n_layers_ = len(units)
        activation = building.of_each_layer("activation", self.activation, len(units) - 2)
        self.coefs_, self.intercepts_ = building.draw(units, activation, dtype, self._random_state)
        self._build()
        if self.solver in STOCHASTIC_SOLVERS:
            self._forget_losses()

    def _build(self) -> None:
        """Make the network of `coefs_` and `intercepts_`."""
        hidden = len(self.coefs_) - 1
        dropout = building.of_each_layer("dropout", self.dropout, hidden)
        loss, self.out_activation_ = self._loss_and_activation()
        seed = None
        if any(dropout):  # whose masks are all that the network draws
            seed = int(self._random_state.randint(np.iinfo(np.int32).max))
        self.network_ = building.build(
            self.coefs_,
            self.intercepts_,
            activation=building.of_each_layer("activation", self.activation, hidden),
            dropout=dropout,
            batch_norm=self.batch_norm,
            loss=loss,
            seed=seed,
        )
        self._built_with = self._structure(hidden)
        self._views = self._view()
        self.coefs_, self.intercepts_ = map(list, self._views)

    def _view(self) -> tuple[list[Array], list[Array]]:
        dense = [layer for layer in self.network_ if isinstance(layer, Dense)]
        return [layer.weights for layer in dense], [layer.biases for layer in dense]

    def _sync(self) -> None:
        """Have the network hold what `coefs_` and `intercepts_` say, which a user may change."""
        if not hasattr(self, "network_"):
            check_weights(self.coefs_, self.intercepts_)
            self._build()
            return
        replaced = []
        for name, views in zip(("coefs_", "intercepts_"), self._views, strict=True):
            given = checked_list(name, getattr(self, name), len(views))
            for number, view in enumerate(views):
                if given[number] is not view:
                    value = checks.shaped(f"{name}[{number}]", given[number], view.shape)
                    replaced.append((view, value.copy()))  # it may be another of the views
        for view, value in replaced:
            view[...] = value
        for name, views in zip(("coefs_", "intercepts_"), self._views, strict=True):
            given = getattr(self, name)
            if isinstance(given, list):
                given[:] = views
            else:
                setattr(self, name, list(views))

    def _forget_losses(self) -> None:
        self.loss_curve_: list[float] = []
        self._no_improvement_count = 0
        self.best_loss_: float | None = None if self.early_stopping else np.inf
        self.validation_scores_: list[float] | None = None
        self.best_validation_score_: float | None = None

    @property
    def _optimizer(self) -> Optimizer:
        optimizer = self.network_.optimizer
        if optimizer is None:
            raise AttributeError("there is no optimiser before a stochastic solver has begun")
        return optimizer

    def _fit_stochastic(
        self,
        X: Any,
        targets: Array,
        weights: Array | None,
        samples: Array,
        validation: tuple[Any, Array, Array | None] | None,
        incremental: bool,
        first_pass: bool,
    ) -> None:
        network = self.network_
        if not incremental or network.optimizer is None:
            network.optimizer = building.make_optimizer(self)
        if not hasattr(self, "validation_scores_"):  # parameters are L-BFGS's, or a user's
            self._forget_losses()
        if validation is not None and self.validation_scores_ is None:
            self.validation_scores_, self.best_validation_score_ = [], -np.inf
        if self.early_stopping and (first_pass or not hasattr(self, "_best_weights")):
            self._best_weights = network.get_weights()
        count = len(samples)
        batch_size = self._batch_size(count)
        self._loss_constant = self._constant(
            targets[samples], None if weights is None else weights[samples]
        )
        callbacks = [] if self.callbacks is None else checked_callbacks(self.callbacks)
        orders = Shuffled(samples, self._random_state, self.shuffle)
        history = History()
        self.n_iter_ = 0
        try:
            with (
                Held(),
                # weights that are not finite are reported in the end
                network._in_training(history),
                TrainingMode(network.layers, True),
                epochs_of(
                    network, X, targets, weights, batch_size=batch_size, count=count,
                    alpha=self.alpha, threads=self.threads,
                ) as epochs,
            ):  # fmt: skip
                self._run_epochs(epochs, orders, history, validation, callbacks, incremental)
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=4)
            for callback in callbacks:  # as best weights are to be put back
                callback.on_train_end(network, history)
        if self.early_stopping and not incremental:
            network.set_weights(self._best_weights)

    def _run_epochs(
        self,
        epochs: Epochs,
        orders: Shuffled,
        history: History,
        validation: tuple[Any, Array, Array | None] | None,
        callbacks: list[Callback],
        incremental: bool,
    ) -> None:
        """Run one epoch or, unless it is incremental, as many as it takes."""
        network = self.network_
        for callback in callbacks:
            callback.on_train_begin(network, history)
        for _ in range(self.max_iter):
            for callback in callbacks:
                callback.on_epoch_begin(network, history)
            self._run_epoch(epochs, orders, history, validation)
            stopping = self._is_converged()
            ends = [callback.on_epoch_end(network, history) for callback in callbacks]
            if stopping or any(ends) or incremental:
                break
        else:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) "
                "reached and the optimization hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=5,
            )
        for callback in callbacks:
            callback.on_train_end(network, history)

    def _split(
        self, X: Any, targets: Array, weights: Array | None
    ) -> tuple[Array, tuple[Any, Array, Array | None]]:
        """Return which samples to train on, and the others, for early stopping."""
        train, kept_out = train_test_split(
            np.arange(X.shape[0]),
            random_state=self._random_state,
            test_size=self.validation_fraction,
            stratify=self._strata(targets),
        )
        if len(kept_out) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' "
                "or the size of your dataset."
            )
        if weights is None:
            return train, (X[kept_out], targets[kept_out], None)
        for samples, purpose in ((train, "to train on"), (kept_out, "kept out to stop early")):
            if not weights[samples].any():
                raise ValueError(
                    "sample_weight, class_weight: expected a weight above 0 among the "
                    f"{len(samples)} samples {purpose}, got zeros alone"
                )
        return train, (X[kept_out], targets[kept_out], weights[kept_out])

    def _batch_size(self, samples: int) -> int:
        if self.batch_size == "auto":
            return min(200, samples)
        if self.batch_size > samples:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than "
                "sample size. It is going to be clipped",
                stacklevel=5,
            )
        return min(int(self.batch_size), samples)

    def _run_epoch(
        self,
        epochs: Epochs,
        orders: Shuffled,
        history: History,
        validation: tuple[Any, Array, Array | None] | None,
    ) -> None:
        """Run an epoch and note what came of it."""
        start = time.perf_counter()
        loss, correct = epochs.run(orders.next())
        seconds, count = time.perf_counter() - start, epochs.samples
        self.n_iter_ += 1
        self.loss_ = self._reported(loss / count) + self._loss_constant
        self.t_ += count
        self.loss_curve_.append(self.loss_)
        history.loss.append(self.loss_)
        history.seconds.append(seconds)
        history.samples_per_second.append(count / seconds)
        history.samples_seen += count
        if self._counts_right_answers:
            history.accuracy.append(correct / count)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
        if validation is not None:
            self._validate(history, *validation)
        if not (np.isfinite(self.loss_) or self.early_stopping):  # which has better ones to restore
            rate = self._optimizer.rate(self.network_._learned()[0].steps)
            self._check_weights(f" It was iteration {self.n_iter_}, at learning rate {rate:g}.")
        self._count_no_improvement()
        if self._has_rate("invscaling"):
            self._change_rate(self._inversely_scaled_rate())

    def _validate(self, history: History, X: Any, targets: Array, weights: Array | None) -> None:
        """Score the network on validation data."""
        assert self.validation_scores_ is not None
        output = self._output(X)
        score = np.nan
        if np.isfinite(output).all():
            score = float(self._score_of(targets, output, weights))
        self.validation_scores_.append(score)
        if self._counts_right_answers:
            history.val_accuracy.append(score)
        loss = self.network_._loss.total(self._backend, output, targets, weights)
        total = len(targets) if weights is None else weights.sum()
        history.val_loss.append(
            self._reported(loss / total + propagation.penalty(self.network_.layers))
            + self._constant(targets, weights)
        )
        if self.verbose:
            print(f"Validation score: {score:f}")

    def _count_no_improvement(self) -> None:
        """Count epochs by which nothing has become better by `tol`."""
        if self.validation_scores_ and self.best_validation_score_ is not None:
            score, best_score = self.validation_scores_[-1], self.best_validation_score_
            is_no_better = score < best_score + self.tol
            if score > best_score:
                self.best_validation_score_ = score
                if self.early_stopping:
                    self._best_weights = self.network_.get_weights()
        if not self.early_stopping:
            best_loss = np.inf if self.best_loss_ is None else self.best_loss_
            is_no_better = self.loss_ > best_loss - self.tol
            self.best_loss_ = self.loss_ if self.loss_ < best_loss else best_loss
        self._no_improvement_count = self._no_improvement_count + 1 if is_no_better else 0

    def _is_converged(self) -> bool:
        """Say whether training should end; if the rate is adaptive, it becomes smaller first."""
        if self._no_improvement_count <= self.n_iter_no_change:
            return False
        what = "Validation score" if self.early_stopping else "Training loss"
        message = (
            f"{what} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} "
            "consecutive epochs."
        )
        adaptive = self._has_rate("adaptive")
        if adaptive and self._optimizer.rate(0) > SMALLEST_ADAPTIVE_RATE:
            rate = self._optimizer.rate(0) / 5.0
            self._change_rate(rate)
            self._no_improvement_count = 0
            if self.verbose:
                print(f"{message} Setting learning rate to {rate:f}")
            return False
        if self.verbose:
            print(message + " Learning rate too small." * adaptive + " Stopping.")
        return True

    def _has_rate(self, kind: str) -> bool:
        """Say whether the learning rate is of a kind that changes by itself."""
        return self.learning_rate == kind and self.solver == "sgd" and self.optimizer is None

    def _inversely_scaled_rate(self) -> float:
        """Return the rate 'invscaling' of the next epoch.

        One that moves no weight any more is kept from 0: the velocity is over the rate.
        """
        limits = np.finfo(self.network_.dtype)
        smallest = float(limits.tiny / limits.eps)
        try:
            # not by integers, of which a power may take for ever
            rate = float(self.learning_rate_init / float(self.t_ + 1) ** float(self.power_t))
        except OverflowError:
            return smallest
        return max(rate, smallest)

    def _change_rate(self, rate: float) -> None:
        """Go on with another rate.

        scikit-learn's velocity holds steps, fastnn's gradients, on all of which a new rate acts.
        """
        before = self._optimizer.rate(0)
        self._optimizer.learning_rate = rate
        for velocity in self.network_._parameters.states:
            velocity *= before / rate

    # Prediction

    @property
    def _backend(self) -> backends.Backend:
        return backends.load(self.network_.backend)

    def _output(self, X: Any) -> Array:
        """Return the network's output for validated X [n, outputs]."""
        if not sparse.issparse(X):
            return self.network_(X)
        row_bytes = X.shape[1] * self.network_.dtype.itemsize
        rows = max(1, PIECE_BYTES // row_bytes)
        pieces = [
            self.network_(X[start : start + rows].toarray()) for start in range(0, X.shape[0], rows)
        ]
        return np.concatenate(pieces)

    def _validated_output(self, X: Any) -> Array:
        """Return the network's output for what a user hands in."""
        check_is_fitted(self)
        building.check_plain("X", X)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        if sparse.issparse(X):
            X = X.tocsr()
        self._sync()
        with np.errstate(all="ignore"):
            return self._output(X)

    # Beside scikit-learn

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__().copy()
        if "_views" in state:
            # they would come back as copies, and twice what the network holds
            self._sync()
            for name in ("_views", "coefs_", "intercepts_"):
                del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "network_" in state:
            self._views = self._view()
            self.coefs_, self.intercepts_ = map(list, self._views)

    def __copy__(self) -> BaseMLP:
        # A shallow copy would share the network, and the lists that training adds to.
        shared = {*self.get_params(deep=False), "_built_with"}
        state = {
            name: value if name in shared else copy.deepcopy(value)
            for name, value in self.__getstate__().items()
        }
        twin = type(self).__new__(type(self))
        twin.__setstate__(state)
        return twin

    def _check_solver(self) -> bool:
        if self.solver not in STOCHASTIC_SOLVERS:
            raise AttributeError(
                "partial_fit is only available for stochastic"
                f" optimizers. {self.solver} is not stochastic."
            )
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
