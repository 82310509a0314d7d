"""Optimisers: how a gradient moves parameters.

An optimiser says what is done; the state that it needs, such as a velocity,
belongs to the parameters and is kept by their layer. So one optimiser can
serve many layers.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from fastnn import checks, habits, schedules
from fastnn.backends import Backend
from fastnn.backends.description import Rule
from fastnn.checks import Array
from fastnn.registry import Registry
from fastnn.schedules import Rate

SMALLEST_EPSILON = float(np.finfo(np.float32).tiny)
"""What never rounds to zero: 0 / (0 + epsilon) has to be 0 where a gradient has always been 0."""


BUILT_IN: Registry[Optimizer] = Registry("_rule", fixed=("state_names",))
"""fastnn's own optimisers."""


class Optimizer(ABC):
    """The base of every optimiser.

    One of your own overrides `step`, in plain NumPy if you like, and names
    the state it needs in `state_names`. It takes the layer path.

    Parameters
    ----------
    learning_rate
        A number that is not negative, 0 leaves parameters as they are; or a
        schedule, a function of the step (see `fastnn.schedules`).

    Attributes
    ----------
    state_names : tuple of str
        One name for each vector of state; `step` gets them in this order.

    Raises
    ------
    ValueError
        If `learning_rate` is negative, infinite or NaN.
    TypeError
        If it is neither a number nor callable.
    """

    state_names: tuple[str, ...] = ()
    _arguments: ClassVar[tuple[str, ...]] = ("learning_rate",)
    _weight_decay = 0.0
    """How fast weights shrink beside a step, if they do."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "step" in vars(cls) and "_step" not in vars(cls):
            cls._step = Optimizer._step  # type: ignore[method-assign] # a user's step is all of it

    def __init__(self, learning_rate: Rate) -> None:
        self.learning_rate = learning_rate

    @property
    def learning_rate(self) -> Rate:
        """The factor on each step, or the schedule that gives it."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Rate) -> None:
        self._learning_rate = schedules.checked("learning_rate", value)

    def rate(self, step: int) -> float:
        """Return the learning rate at `step`.

        Raises
        ------
        ValueError, TypeError
            If a schedule gives anything but a finite number that is not negative.
        """
        return schedules.rate_at("learning_rate", self._learning_rate, step)

    @abstractmethod
    def step(
        self,
        backend: Backend,
        parameters: Array,
        gradient: Array,
        state: Sequence[Array],
        step: int,
    ) -> None:
        """Move `parameters` against `gradient`, in place.

        Parameters
        ----------
        backend
            The operations that compute.
        parameters, gradient : flat arrays of one layout and dtype
            `gradient` is scratch memory. Between the parameters lies padding,
            where both are zero before a step and put to zero after it.
        state : arrays of the same layout and dtype, one for each of `state_names`
            Zeros at first; what is written to them is there in the next step.
        step
            How many steps the parameters have taken before this one.
        """

    def _step(
        self,
        backend: Backend,
        parameters: Array,
        gradient: Array,
        state: Sequence[Array],
        step: int,
        weights: Array | None,
    ) -> None:
        """Move `parameters`, of which `weights` are those that decay; see `_weight_decay`."""
        self.step(backend, parameters, gradient, state, step)

    def _rule(self) -> Rule:
        """Return what compiled code has to know of the optimiser, but for the learning rate."""
        return Rule()  # a user's own has no part in prediction

    def _rates(self, first: int, steps: int) -> tuple[Array | float, ...]:
        """Return three numbers of each of so many steps from `first` on, a float where it stays.

        The rate, what a rule corrects by, and the share by which weights shrink beside it.
        """
        if callable(self._learning_rate):
            rates = np.array([self.rate(first + step) for step in range(steps)], np.float64)
            return rates, 1.0, 0.0
        return self._learning_rate, 1.0, 0.0

    def __repr__(self) -> str:
        arguments = (f"{name}={getattr(self, name)!r}" for name in self._arguments)
        return f"{type(self).__name__}({', '.join(arguments)})"


@BUILT_IN.register
class SGD(Optimizer):
    """Stochastic gradient descent: θ <- θ - learning_rate g, with g = dL/dθ.

    With momentum: v <- momentum v + g, and θ <- θ - learning_rate v, or
    θ <- θ - learning_rate (g + momentum v) if `nesterov` is set.

    Parameters
    ----------
    learning_rate
        A number that is not negative, or a schedule (see `fastnn.schedules`).
    momentum
        The share of the velocity that is kept, at least 0 and below 1.
    nesterov
        Look ahead along the velocity; needs a momentum above 0.

    Raises
    ------
    ValueError
        If a number is out of range, or `nesterov` is set without momentum.
    TypeError
        If an argument is of the wrong kind.

    References
    ----------
    I. Sutskever, J. Martens, G. Dahl and G. Hinton, "On the importance of
    initialization and momentum in deep learning", ICML 2013. As in PyTorch, the
    velocity holds gradients, not steps, so a new rate acts on all of it at once.
    """

    _arguments = ("learning_rate", "momentum", "nesterov")

    @habits.explained
    def __init__(
        self, learning_rate: Rate = 0.1, momentum: float = 0.0, nesterov: bool = False
    ) -> None:
        super().__init__(learning_rate)
        self._momentum = checks.real("momentum", momentum, minimum=0.0, below=1.0)
        self._nesterov = checks.flag("nesterov", nesterov)
        if self._nesterov and not self._momentum:
            raise ValueError("nesterov: expected False without momentum, got True")

    @property
    def state_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """One name for each vector of state; fixed."""
        return ("velocity",) if self._momentum else ()

    @property
    def momentum(self) -> float:
        """The share of the velocity that is kept; fixed."""
        return self._momentum

    @property
    def nesterov(self) -> bool:
        """Whether steps look ahead along the velocity; fixed."""
        return self._nesterov

    def _rule(self) -> Rule:
        if not self._momentum:
            return Rule("sgd")
        return Rule("nesterov" if self._nesterov else "momentum", self._momentum)

    def step(
        self,
        backend: Backend,
        parameters: Array,
        gradient: Array,
        state: Sequence[Array],
        step: int,
    ) -> None:
        """Move `parameters` against `gradient`, in place; see `Optimizer.step`."""
        rate = self.rate(step)
        if self._momentum:
            (velocity,) = state
            backend.momentum_step(
                parameters, gradient, velocity, rate, self._momentum, self._nesterov
            )
        else:
            backend.sgd_step(parameters, gradient, rate)


@BUILT_IN.register
class RMSprop(Optimizer):
    """Steps scaled by the running mean square of the gradient, element by element.

    s <- rho s + (1 - rho) g², θ <- θ - learning_rate g / (sqrt(s) + epsilon).

    Parameters
    ----------
    learning_rate
        A number that is not negative, or a schedule (see `fastnn.schedules`).
    rho
        The share of the mean square that is kept, at least 0 and below 1.
    epsilon
        What keeps the denominator from 0, above 0.

    Raises
    ------
    ValueError
        If a number is out of range.
    TypeError
        If an argument is of the wrong kind.

    References
    ----------
    T. Tieleman and G. Hinton, "Lecture 6.5 - RMSprop", COURSERA: Neural
    Networks for Machine Learning, 2012; epsilon where PyTorch has it.
    """

    state_names = ("mean_square",)
    _arguments = ("learning_rate", "rho", "epsilon")

    @habits.explained
    def __init__(
        self, learning_rate: Rate = 0.001, rho: float = 0.9, epsilon: float = 1e-8
    ) -> None:
        super().__init__(learning_rate)
        self._rho = checks.real("rho", rho, minimum=0.0, below=1.0)
        self._epsilon = checks.real("epsilon", epsilon, minimum=SMALLEST_EPSILON)

    @property
    def rho(self) -> float:
        """The share of the mean square that is kept; fixed."""
        return self._rho

    @property
    def epsilon(self) -> float:
        """What keeps the denominator from 0; fixed."""
        return self._epsilon

    def _rule(self) -> Rule:
        return Rule("rmsprop", self._rho, epsilon=self._epsilon)

    def step(
        self,
        backend: Backend,
        parameters: Array,
        gradient: Array,
        state: Sequence[Array],
        step: int,
    ) -> None:
        """Move `parameters` against `gradient`, in place; see `Optimizer.step`."""
        (mean_square,) = state
        rate = self.rate(step)
        backend.rmsprop_step(parameters, gradient, mean_square, rate, self._rho, self._epsilon)


@BUILT_IN.register
class Adam(Optimizer):
    """Momentum with steps scaled as in RMSprop, and both means corrected for their start at 0.

    m <- beta1 m + (1 - beta1) g and s <- beta2 s + (1 - beta2) g². At the t-th
    step, counted from 1, m̂ = m / (1 - beta1^t) and ŝ = s / (1 - beta2^t);
    θ <- θ - learning_rate m̂ / (sqrt(ŝ) + epsilon).

    Parameters
    ----------
    learning_rate
        A number that is not negative, or a schedule (see `fastnn.schedules`).
    beta1, beta2
        The shares of the means that are kept, at least 0 and below 1.
    epsilon
        What keeps the denominator from 0, above 0.

    Raises
    ------
    ValueError
        If a number is out of range.
    TypeError
        If an argument is of the wrong kind.

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR
    2015, algorithm 1.
    """

    state_names = ("mean", "mean_square")
    _arguments: ClassVar[tuple[str, ...]] = ("learning_rate", "beta1", "beta2", "epsilon")

    @habits.explained
    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(learning_rate)
        self._beta1 = checks.real("beta1", beta1, minimum=0.0, below=1.0)
        self._beta2 = checks.real("beta2", beta2, minimum=0.0, below=1.0)
        self._epsilon = checks.real("epsilon", epsilon, minimum=SMALLEST_EPSILON)

    @property
    def beta1(self) -> float:
        """The share of the mean that is kept; fixed."""
        return self._beta1

    @property
    def beta2(self) -> float:
        """The share of the mean square that is kept; fixed."""
        return self._beta2

    @property
    def epsilon(self) -> float:
        """What keeps the denominator from 0; fixed."""
        return self._epsilon

    def _rule(self) -> Rule:
        return Rule("adam", self._beta1, self._beta2, self._epsilon)

    def _rates(self, first: int, steps: int) -> tuple[Array | float, ...]:
        """Both means are corrected for their start at 0.

        The rate is over 1 - beta1^t, the root of the mean square times 1 / sqrt(1 - beta2^t).
        """
        rates, *_ = super()._rates(first, steps)
        taken = np.arange(first + 1, first + steps + 1)
        corrected = rates / (1 - self._beta1**taken)
        return corrected, 1 / np.sqrt(1 - self._beta2**taken), self._weight_decay * rates

    def step(
        self,
        backend: Backend,
        parameters: Array,
        gradient: Array,
        state: Sequence[Array],
        step: int,
    ) -> None:
        """Move `parameters` against `gradient`, in place; see `Optimizer.step`."""
        self._step(backend, parameters, gradient, state, step, parameters)

    def _step(
        self,
        backend: Backend,
        parameters: Array,
        gradient: Array,
        state: Sequence[Array],
        step: int,
        weights: Array | None,
    ) -> None:
        mean, mean_square = state
        rate = self.rate(step)
        shrinking = rate * self._weight_decay
        if shrinking and weights is not None:
            backend.add_multiple(weights, -shrinking, weights)
        backend.adam_step(
            parameters,
            gradient,
            mean,
            mean_square,
            rate,
            self._beta1,
            self._beta2,
            self._epsilon_at(step),
            step,
        )

    def _epsilon_at(self, step: int) -> float:
        """Return what is added to the corrected root of the mean square."""
        return self._epsilon


@BUILT_IN.register
class EpsilonHatAdam(Adam):
    """Adam with epsilon beside the root of the mean square before it is corrected.

    θ <- θ - learning_rate sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(s) + epsilon), where `Adam`
    has sqrt(s) / sqrt(1 - beta2^t) + epsilon. So epsilon weighs more in the first steps. This is
    the form at the end of section 2 of the paper, which calls it epsilon hat; scikit-learn and
    TensorFlow have it. Parameters and errors are those of `Adam`.
    """

    def _rule(self) -> Rule:
        return super()._rule()

    def _rates(self, first: int, steps: int) -> tuple[Array | float, ...]:
        rates, corrections, shrinking = super()._rates(first, steps)
        return rates / corrections, 1.0, shrinking

    def _epsilon_at(self, step: int) -> float:
        return self._epsilon / math.sqrt(1 - self._beta2 ** (step + 1))


@BUILT_IN.register
class AdamW(Adam):
    """Adam, with weights that shrink beside its step: decoupled weight decay.

    θ <- θ - learning_rate weight_decay θ, then the step of `Adam`, whose means know nothing of it.

    In a layer only weights shrink: biases, and scale and shift of batch norm, which a penalty on
    weights leaves alone as well, do not. (In PyTorch all parameters do that are not put into a
    group of their own.) `Dense(l2=)` is the other kind of decay, a penalty in the loss, of which
    the gradient is divided by the running root mean square as any other.

    Parameters
    ----------
    learning_rate, beta1, beta2, epsilon
        As in `Adam`, whose errors are raised as well.
    weight_decay
        How fast weights shrink, not negative: in a step by this times the learning rate.

    References
    ----------
    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2;
    the decay times the learning rate, as in PyTorch.
    """

    _arguments = (*Adam._arguments, "weight_decay")

    @habits.explained
    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(learning_rate, beta1, beta2, epsilon)
        self._weight_decay = checks.real("weight_decay", weight_decay, minimum=0.0)

    @property
    def weight_decay(self) -> float:
        """How fast weights shrink; fixed."""
        return self._weight_decay

    def _rule(self) -> Rule:
        return super()._rule()  # how weights shrink is said with the rates


BY_NAME: dict[str, Callable[[], Optimizer]] = {
    "sgd": SGD,
    "momentum": lambda: SGD(0.01, momentum=0.9),
    "nesterov": lambda: SGD(0.01, momentum=0.9, nesterov=True),
    "rmsprop": RMSprop,
    "adam": Adam,
    "adamw": AdamW,
}
"""What makes each optimiser that has a short name, with its default learning rate."""


def checked(name: str, value: Any) -> Optimizer:
    """Return `value` if it is an optimiser, or the one that it names."""
    if isinstance(value, str):
        if value.lower() not in BY_NAME:
            raise ValueError(
                f"{name}: expected one of {', '.join(map(repr, BY_NAME))}, or an Optimizer, "
                f"as SGD(0.1) or Adam(), got {value!r}"
            )
        return BY_NAME[value.lower()]()
    if not isinstance(value, Optimizer):
        hint = ""
        if isinstance(value, type) and issubclass(value, Optimizer):
            hint = f"; write {value.__name__}(...), with parentheses"
        raise TypeError(
            f"{name}: expected an Optimizer, as SGD(0.1) or Adam(), or a name, as 'adam', "
            f"got {value!r}{hint}"
        )
    kind, names = type(value).__name__, value.state_names
    if not hasattr(value, "_learning_rate"):
        raise TypeError(f"{name}: expected {kind}.__init__ to call super().__init__(learning_rate)")
    if not isinstance(names, tuple) or not all(isinstance(entry, str) for entry in names):
        raise TypeError(
            f"{name}: expected {kind}.state_names to be a tuple of names, got {names!r}"
        )
    return value


def prepare(optimizer: Optimizer, backend: Backend, dtype: np.dtype[Any]) -> None:
    """Have the kernels of a step compiled, or read from the cache."""
    if optimizer in BUILT_IN:
        # a twin without a schedule, which might count its calls
        twin = copy.copy(optimizer)
        twin.learning_rate = 1.0
        parameters, gradient, *state = np.zeros((2 + len(twin.state_names), 1), dtype)
        twin.step(backend, parameters, gradient, state, 0)
