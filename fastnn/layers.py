"""Layers: parameters and contracts. The mathematics is in the backends.

A layer maps `input` [batch, input_units] to `output` [batch, output_units].
`backward(input, grad_output)` takes dL/doutput, returns dL/dinput, and takes
one optimiser step on the layer's own parameters. L is a mean over the batch
and `grad_output` already divided by it, so gradients of parameters are sums.
"""

from __future__ import annotations

import copy
import inspect
import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, overload

import numpy as np
import numpy.typing as npt

from fastnn import backends, checks, habits, initializers, optimizers
from fastnn.backends import description
from fastnn.checks import Array
from fastnn.initializers import Initializer, Shape
from fastnn.optimizers import SGD, Optimizer
from fastnn.parameters import LayerParameters, NamedVector, ParameterViews
from fastnn.registry import Registry
from fastnn.schedules import Rate

Gradients = dict[str, Array]


BUILT_IN: Registry[Layer] = Registry("_describe", fixed=("input_units", "output_units"))
"""fastnn's own layers."""


@BUILT_IN.register
class Layer:
    """The identity, and the base of every layer.

    A layer of your own overrides `forward` and `backward`, in plain NumPy if
    you like; it needs no `__init__`, and updates its own parameters, if it has
    any, in `backward`. It leaves its input as it is, which other layers may
    need. The names below, `parameters` and `gradients` are taken.

    Attributes
    ----------
    training : bool
        True while a network trains. `backward` belongs to the last forward pass.
    input_units, output_units : int or None
        The widths that the layer demands and gives; None is "whatever comes". Those of fastnn's own
        layers are fixed.
    """

    training: bool = False
    input_units: int | None = None
    output_units: int | None = None

    _network: weakref.ref[Any] | None = None
    _backend_name: str | None = None
    _matmul_precision: str | None = None
    _operations: tuple[str, ...] = ()
    """What training asks of the backend, which may have to compile it."""
    _arguments: tuple[str, ...] = ()
    """Attributes that the constructor takes, but for those of an optimiser; files hold them."""
    _progress: tuple[str, ...] = ()
    """Attributes that change in training and are neither parameters nor statistics."""
    _passes: int | None = None
    """How many forward passes in training there have been, where the layer counts them."""
    _only_python: bool = False
    """Whether the layer holds functions of a user's, which no file and no compiled code knows."""

    def forward(self, input: Array) -> Array:
        """Return the layer's output for a batch.

        Parameters
        ----------
        input : array of shape [batch, input_units]

        Returns
        -------
        array of shape [batch, output_units]

        Raises
        ------
        ValueError
            By fastnn's own layers, if `input` has another shape or is empty.
        TypeError
            By these, if it does not hold real numbers.
        """
        return input

    def backward(self, input: Array, grad_output: Array) -> Array:
        """Return dL/dinput; take one optimiser step on the layer's parameters.

        Parameters
        ----------
        input : array of shape [batch, input_units]
            What `forward` was given.
        grad_output : array of shape [batch, output_units]
            dL/doutput, already divided by the batch size.

        Returns
        -------
        array of shape [batch, input_units]

        Raises
        ------
        ValueError
            By fastnn's own layers, if a shape is wrong.
        TypeError
            By these, if either does not hold real numbers; by a layer of your own that says what
            `forward` is and not what `backward` is.
        """
        kind = type(self)
        own = kind.forward is not Layer.forward or "forward" in vars(self)
        if own and kind.backward is Layer.backward and "backward" not in vars(self):
            raise TypeError(
                f"{self!r}: expected a backward that goes with its forward, got that of the "
                "identity; fastnn.check_gradients(network, X, y) checks the one you write"
            )
        return grad_output

    def gradients(self, input: Array, grad_output: Array) -> tuple[Array, Gradients]:
        """Return dL/dinput and the gradient of each parameter by name, without a step.

        For a layer of your own this runs `backward` on a deep copy, so that an
        update made there is thrown away; override it to report gradients.
        """
        if self in BUILT_IN:
            return self.backward(input, grad_output), {}  # which makes no update
        twin = copy.deepcopy(self)
        twin.training = self.training
        return twin.backward(input, grad_output), {}

    @property
    def parameters(self) -> Mapping[str, Array]:
        """The parameters by name, as live views."""
        return MappingProxyType({})

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __getstate__(self) -> dict[str, Any]:
        # A copy belongs to no network until one takes it in, and is not in the midst of training.
        left_out = ("_network", "training")
        return {key: value for key, value in self.__dict__.items() if key not in left_out}

    @property
    def _backend(self) -> backends.Backend:
        return backends.load(self._backend_name)

    def _draw(self, rng: np.random.Generator) -> None:
        """Draw by a network's generator what is not there yet."""

    def _join(self, dtype: np.dtype[Any]) -> None:
        """Become part of a network that computes in `dtype`; all has been drawn."""

    def _describe(self, start: int) -> description.Layer | None:
        """Return what compiled code has to know of the layer; None for the identity.

        `start` is the place of its parameters in the network's vector.
        """
        return None

    def _resume(self, **progress: Any) -> None:
        """Go on from where a saved layer stood; arguments as `_progress` names them."""

    def _changed_by_forward(self) -> Any:
        """Return what a forward pass in training changes, for `_change_back`."""

    def _change_back(self, before: Any) -> None:
        """Undo the forward passes since `_changed_by_forward` returned `before`."""


class ElementwiseConstant(checks.Checked[float]):
    """A number that the function of an `Elementwise` layer takes; checked when it is set."""

    def __init__(self, what: str) -> None:
        super().__init__(checks.real)
        self.__doc__ = what

    def __set_name__(self, owner: type[Elementwise], name: str) -> None:
        super().__set_name__(owner, name)
        if name not in owner._constants:
            owner._constants = (*owner._constants, name)

    def __set__(self, layer: Any, value: Any) -> None:
        number = self._check(self._name, value)
        set_so_far = {**layer.__dict__, self._name: number}
        # beside their names as the tuple that backends take: no call has to put it together
        if all(name in set_so_far for name in layer._constants):
            numbers = {name: set_so_far[name] for name in layer._constants}
            layer._check_together(**numbers)
            layer._numbers = tuple(numbers.values())
        layer.__dict__[self._name] = number


class _NumbersOfClass:
    """The constants of a layer that has set none: there are none, or `__init__` set too few."""

    def __get__(self, layer: Elementwise | None, owner: type[Elementwise]) -> tuple[float, ...]:
        return () if layer is None else tuple([getattr(layer, name) for name in owner._constants])


@dataclass(frozen=True)
class Elsewhere:
    """What an elementwise function is in other libraries; "" where it is not to be written there.

    Constants stand in all of them by the names that they have in the layer.
    """

    torch: str = ""
    """The module in `torch.nn`, as `"LeakyReLU(negative_slope=slope)"`: each constant by the
    attribute that has it there, and with their values other options that it must have."""
    onnx: str = ""
    """A formula of operators of ONNX applied to x, as `"LeakyRelu(x, alpha=slope)"`, with + - * /
    and numbers. An argument with a name is an attribute, which holds a float32. A value that stands
    in it twice has a name: `"e = Exp(x); e * (e + 2)"`."""
    onnx_in_float64: str = ""
    """A formula in place of that one in float64, where onnxruntime lacks an operator in it, or the
    operator has the constant as an attribute."""
    sklearn: str = ""
    """The activation of a perceptron of scikit-learn."""
    javascript: str = ""
    """An expression of x in JavaScript, as `"x > 0 ? x : slope * x"`. `page.html` has `erf`, and
    FUNCTIONS has the others by their `_function`."""


class Elementwise(Layer):
    """A layer that applies one function to each element.

    A subclass names the function, which both backends have, and says what its derivative is
    computed from. Where that is the output, the output is kept in training for `backward`, which
    needs it once, and is read-only: a layer of a user's own that changed its input in place would
    change the derivative. Outside training, where an array might be changed between the two calls,
    it is computed again.
    """

    _function: ClassVar[str]
    """The function, as backends call it."""
    _constants: ClassVar[tuple[str, ...]] = ()
    """Names of the attributes that are such a constant, in the order of the constructor."""
    _from_output: ClassVar[bool] = False
    """Whether the derivative is computed from the output, not from the input."""
    _elsewhere: ClassVar[Elsewhere] = Elsewhere()
    """What the function is in other libraries, which refuse a layer that says nothing of them."""

    _numbers = _NumbersOfClass()
    """The constants."""
    _kept: tuple[Array, Array] | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "_function" in vars(cls):
            cls._operations = (cls._function,)
            cls._arguments = cls._constants

    @classmethod
    def _check_together(cls, **constants: float) -> None:
        """Raise unless the constants go together; asked before one of them is set."""

    def forward(self, input: npt.ArrayLike) -> Array:
        """Return the function of each element; see `Layer.forward`."""
        X = checks.floating_matrix("input", input)
        output = self._backend.elementwise_forward(self._function, X, *self._numbers)
        if self._from_output:
            self._kept = None
            if self.training:
                output.flags.writeable = False
                self._kept = X, output
        return output

    def backward(self, input: npt.ArrayLike, grad_output: npt.ArrayLike) -> Array:
        """Return grad_output times the derivative at each element; see `Layer.backward`."""
        X, G = floating_pair(input, grad_output)
        value = X
        if self._from_output:
            kept, self._kept = self._kept, None
            if self.training and kept is not None and kept[0] is X:
                value = kept[1]
            else:
                value = self._backend.elementwise_forward(self._function, X, *self._numbers)
        return self._backend.elementwise_backward(self._function, value, G, *self._numbers)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._numbers))})"

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_kept", None)
        return state

    def _describe(self, start: int) -> description.Elementwise:
        return description.Elementwise(self._function, self._numbers, self._from_output)


@BUILT_IN.register
class ReLU(Elementwise):
    """The rectified linear unit, max(0, x); its derivative is 1 where x > 0, else 0.

    NaN stays NaN; the gradient that comes back there is 0, as NaN is not above 0.
    """

    _function = "relu"
    _elsewhere = Elsewhere(
        torch="ReLU()", onnx="Relu(x)", sklearn="relu", javascript="Math.max(0, x)"
    )


@BUILT_IN.register
class Rescaling(Elementwise):
    """Multiply by a constant: `Rescaling(1 / 255)`, first in a network, takes raw pixels.

    Parameters
    ----------
    scale
        The factor, finite.

    Raises
    ------
    ValueError
        If `scale` is infinite or NaN.
    TypeError
        If it is not a number.
    """

    _function = "rescale"
    _elsewhere = Elsewhere(
        torch="Rescaling(scale=scale)",  # which is in fastnn/interchange/torch.py
        onnx="scale * x",
        javascript="scale * x",
    )
    scale = ElementwiseConstant("The factor.")

    def __init__(self, scale: float) -> None:
        self.scale = scale


class LiveView:
    """An array of a layer as an attribute: a live view, with padded rows; assigning copies in.

    It stays live until the layer joins a network, or that network takes in another layer with
    parameters.
    """

    def __init__(self, what: str) -> None:
        self.__doc__ = f"{what} A live view; assigning copies in."

    def __set_name__(self, owner: type[ParametricLayer], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, layer: None, owner: type[ParametricLayer]) -> LiveView: ...
    @overload
    def __get__(self, layer: ParametricLayer, owner: type[ParametricLayer]) -> Array: ...
    def __get__(
        self, layer: ParametricLayer | None, owner: type[ParametricLayer]
    ) -> LiveView | Array:
        return self if layer is None else layer._parameters.view(self.name)

    def __set__(self, layer: ParametricLayer, value: npt.ArrayLike) -> None:
        layer._parameters.assign(self.name, value)


USUAL_RATE = 0.1
"""The learning rate of a layer that is given none. One that is equal passes for none given: classes
derived from these hand on a default of their own, which nobody has written."""


class ParametricLayer(Layer):
    """A layer that has parameters: what it says of them, and when they take a step."""

    _statistics: tuple[str, ...] = ()
    """The last arrays of the vector, where they are no parameters."""
    _decaying: str | None = None
    """The parameters that an optimiser with weight decay shrinks."""
    _chosen: bool = False
    """Whether learning rate or optimiser were given to this layer, by themselves."""

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        initializers: Mapping[str, Initializer],
        learning_rate: Rate,
        seed: int | np.random.Generator | None,
        optimizer: Optimizer | str | None = None,
    ) -> None:
        own = SGD(learning_rate) if optimizer is None else optimizer
        given = not (isinstance(learning_rate, float) and learning_rate == USUAL_RATE)
        if given and optimizer is not None:
            warnings.warn(
                f"learning_rate: expected none beside optimizer={optimizer!r}, which has a rate of "
                f"its own, got {learning_rate!r}, which is not used",
                stacklevel=4,
            )
        self._chosen = given or optimizer is not None
        self._parameters = LayerParameters(
            shapes,
            initializers,
            optimizers.checked("optimizer", own),
            None if seed is None else checks.generator("seed", seed),
            self._statistics,
            self._decaying,
        )

    @property
    def optimizer(self) -> Optimizer:
        """What moves the parameters. Setting another one drops the state of the one before."""
        return self._parameters.optimizer

    @optimizer.setter
    def optimizer(self, value: Optimizer | str) -> None:
        self._take(optimizers.checked("optimizer", value))
        self._chosen = True

    def _take(self, optimizer: Optimizer) -> None:
        """Be moved by an optimiser that is not chosen for this layer alone."""
        self._chosen = False
        if optimizer is self.optimizer:
            return
        network = None if self._network is None else self._network()
        if network is not None and network._fitting:
            raise RuntimeError(
                "a layer can't change its optimiser while its network is training; "
                "its learning rate it can"
            )
        self._parameters.use(optimizer)

    @property
    def learning_rate(self) -> Rate:
        """The learning rate of the layer's optimiser, a number or a schedule.

        Setting it leaves other layers alone, also where they share the optimiser: the layer gets
        one of its own, equal but for the rate. State and steps are kept.
        """
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Rate) -> None:
        optimizer = copy.copy(self.optimizer)
        optimizer.learning_rate = value
        self._parameters.optimizer = optimizer
        self._chosen = True

    @property
    def steps(self) -> int:
        """How many steps the parameters have taken with this optimiser."""
        return self._parameters.steps

    @property
    def penalty(self) -> float:
        """What the layer adds to the loss of every batch, as it is now."""
        return 0.0

    @property
    def parameters(self) -> ParameterViews:
        """The parameters by name, as live views (their rows are padded, so they may be strided).

        Assigning to a name copies in. The views stay live until the layer joins a network, or the
        network takes in another layer with parameters.
        """
        return ParameterViews(self._parameters)

    def backward(self, input: npt.ArrayLike, grad_output: npt.ArrayLike) -> Array:
        """Return dL/dinput, taken before the layer's parameters move; see `Layer.backward`.

        The layer's penalty is part of L.
        """
        grad_input = self._step(input, grad_output, input_gradient=True)
        assert grad_input is not None
        return grad_input

    def gradients(
        self, input: npt.ArrayLike, grad_output: npt.ArrayLike
    ) -> tuple[Array, Gradients]:
        """Return dL/dinput and the gradient of each parameter by name, without a step.

        The layer's penalty is part of L.
        """
        if not self._steps_by_gradients():
            raise TypeError(
                f"{self!r} overrides backward, so only it knows its gradients: "
                "override gradients as well"
            )
        grad_input, gradient = self._backpropagated(input, grad_output, input_gradient=True)
        assert grad_input is not None
        # Copies: the vector is scratch memory that the next call overwrites.
        return grad_input, {name: gradient.views[name].copy() for name in self._parameters.learned}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # Not shared, also by a copy that is not deep: each would move the other's parameters.
        self._parameters = self._parameters.copy()

    def _steps_by_gradients(self) -> bool:
        """Say whether `backward` is the one of this class, not a user's."""
        own = type(self).backward is not ParametricLayer.backward or "backward" in self.__dict__
        return not own

    def _step(
        self,
        input: npt.ArrayLike,
        grad_output: npt.ArrayLike,
        *,
        input_gradient: bool,
        penalty_factor: float = 1.0,
    ) -> Array | None:
        grad_input, gradient = self._backpropagated(
            input, grad_output, input_gradient=input_gradient, penalty_factor=penalty_factor
        )
        self._parameters.step(self._backend, gradient)
        return grad_input

    def _backpropagated(
        self,
        input: npt.ArrayLike,
        grad_output: npt.ArrayLike,
        *,
        input_gradient: bool,
        penalty_factor: float = 1.0,
    ) -> tuple[Array | None, NamedVector]:
        """Return dL/dinput and dL/dparameters, where L has the penalty so many times."""
        raise TypeError(f"{type(self).__name__} does not say how its gradients are computed")

    def _draw(self, rng: np.random.Generator) -> None:
        self._parameters.drawn(rng)

    def _join(self, dtype: np.dtype[Any]) -> None:
        self._parameters.join(dtype)

    def _learning(self) -> str:
        """Return what `repr` says of the optimiser."""
        if type(self.optimizer) is SGD and not self.optimizer.momentum:
            return f"learning_rate={self.learning_rate!r}"
        return f"optimizer={self.optimizer!r}"


@BUILT_IN.register
class Dense(ParametricLayer):
    """A fully connected layer, Y = X W + b.

    Parameters
    ----------
    input_units, output_units
        The widths of X and Y.
    learning_rate
        Short for `optimizer=SGD(learning_rate)`: a number or a schedule (see
        `fastnn.schedules`). Not used where there is an `optimizer`, nor in a network that has one:
        `Network(optimizer=...)` replaces it, and warns unless it is the default.
        `network[0].learning_rate = 0.1` gives the layer a rate of its own afterwards.
    optimizer
        What moves the parameters, or its name, such as "adam"; `Network(optimizer=...)` replaces
        it, and warns.
    l2
        The factor α of the penalty α Σ W², on weights alone, which the layer
        adds to the loss of every batch; 0 for none.
    weights, biases
        How they begin: the name of a function in `fastnn.initializers`, or a
        function of a generator and a shape.
    seed
        Of the layer's own weights. Without it they are drawn from the
        network's generator when a network takes the layer in, and from a fresh
        one when the layer is used alone.

    Attributes
    ----------
    weights : array of shape [input_units, output_units]
        A live view; assigning copies in.
    biases : array of shape [output_units]
        A live view; assigning copies in.

    Raises
    ------
    ValueError
        If a width is not positive, `learning_rate` or `l2` negative, infinite
        or NaN, or no initialiser has such a name.
    TypeError
        If an argument is of the wrong kind.

    Warns
    -----
    UserWarning
        If there is a `learning_rate` beside an `optimizer`.

    Notes
    -----
    With G = dL/dY: dL/dX = G Wᵀ, dL/dW = Xᵀ G + 2 α W, dL/db = Σ_n G_n. Used
    alone, the layer holds float64 and computes in the promoted type of input and
    parameters; integers are cast to the type of the parameters.
    """

    _operations = ("dense_forward", "dense_backward")
    _arguments = ("input_units", "output_units", "l2")
    _decaying = "weights"

    @habits.explained
    def __init__(
        self,
        input_units: int,
        output_units: int,
        learning_rate: Rate = USUAL_RATE,
        *,
        optimizer: Optimizer | str | None = None,
        l2: float = 0.0,
        weights: str | Initializer = "xavier_normal",
        biases: str | Initializer = "zeros",
        seed: int | np.random.Generator | None = None,
        **unknown: object,
    ) -> None:
        _refuse(learning_rate, unknown)
        inputs = checks.integer("input_units", input_units, minimum=1)
        outputs = checks.integer("output_units", output_units, minimum=1)
        checks.held("input_units, output_units", inputs, outputs)
        shapes = {"weights": (inputs, outputs), "biases": (outputs,)}
        initial = {
            name: initializers.checked(name, value, dimensions=len(shapes[name]))
            for name, value in (("weights", weights), ("biases", biases))
        }
        super().__init__(shapes, initial, learning_rate, seed, optimizer)
        self._input_units, self._output_units = inputs, outputs
        self._l2 = checks.real("l2", l2, minimum=0.0)

    @property
    def input_units(self) -> int:  # type: ignore[override]
        """The width of X; fixed."""
        return self._input_units

    @property
    def output_units(self) -> int:  # type: ignore[override]
        """The width of Y; fixed."""
        return self._output_units

    weights = LiveView("W, [input_units, output_units].")
    biases = LiveView("The bias vector b, [output_units].")

    @property
    def l2(self) -> float:
        """The factor of the penalty; fixed."""
        return self._l2

    @property
    def penalty(self) -> float:
        """What the layer adds to the loss of every batch: l2 times the sum of squared weights."""
        if self._l2 == 0.0:
            return 0.0
        return self._l2 * self._backend.sum_of_squares(self._parameters.drawn().flat("weights"))

    def forward(self, input: npt.ArrayLike) -> Array:
        """Return input @ weights + biases; see `Layer.forward`."""
        return self._forward(input)

    def __repr__(self) -> str:
        l2 = f", l2={self.l2!r}" if self.l2 else ""
        name = type(self).__name__
        return f"{name}({self.input_units}, {self.output_units}, {self._learning()}{l2})"

    def _describe(self, start: int) -> description.Dense:
        slots = self._parameters.layout.slots
        return description.Dense(
            self.input_units,
            self.output_units,
            start + slots["weights"].offset,
            slots["weights"].stride,
            start + slots["biases"].offset,
            self.l2,
            self.optimizer._rule(),
        )

    def _forward(self, input: npt.ArrayLike, *, relu: bool = False) -> Array:
        X = checks.matrix("input", input, units=self.input_units)
        values = self._parameters.promoted("input", X)
        views = values.views
        return self._backend.dense_forward(
            cast(X, values.dtype),
            views["weights"],
            views["biases"],
            relu=relu,
            bfloat16=self._rounds(values),
        )

    def _rounds(self, values: NamedVector) -> bool:
        """Say whether operands of products are rounded to bfloat16: those of float32."""
        return self._matmul_precision is not None and values.dtype == np.float32

    def _backpropagated(
        self,
        input: npt.ArrayLike,
        grad_output: npt.ArrayLike,
        *,
        input_gradient: bool,
        penalty_factor: float = 1.0,
    ) -> tuple[Array | None, NamedVector]:
        X = checks.matrix("input", input, units=self.input_units)
        G = checks.shaped("grad_output", grad_output, (len(X), self.output_units))
        parameters = self._parameters
        values = parameters.promoted("input and grad_output", X, G)
        gradient = parameters.gradient_like(values)
        grad_input = self._backend.dense_backward(
            cast(X, values.dtype),
            values.views["weights"],
            cast(G, values.dtype),
            gradient.views["weights"],
            gradient.views["biases"],
            input_gradient=input_gradient,
            bfloat16=self._rounds(values),
        )
        if self._l2:
            of_weights, weights = gradient.flat("weights"), values.flat("weights")
            self._backend.add_multiple(of_weights, 2 * penalty_factor * self._l2, weights)
        return grad_input, gradient


def _refuse(third: object, unknown: dict[str, object]) -> None:
    """Raise if there is an argument that `Dense` does not take; say what to write instead."""
    if isinstance(third, str) and third.isalpha():
        unknown = {"activation": third}  # which has the third place elsewhere
    for name, value in unknown.items():
        if name == "activation":
            raise TypeError(
                f"activation: expected none, got {value!r}; an activation is a layer of its own, "
                "as in Network([Dense(784, 100), ReLU(), Dense(100, 10)])"
            )
        if name in ("units", "in_features", "out_features", "input_dim", "input_shape"):
            hint = "write Dense(input_units, output_units)"
        elif name in ("use_bias", "bias"):
            hint = "every Dense layer has biases"
        elif name.startswith(("kernel_", "bias_")):
            hint = "weights=, biases= and l2= say how they begin and what holds them small"
        else:
            known = list(inspect.signature(Dense).parameters)[:-1]
            hint = habits.instead(name, known)
        raise TypeError(f"Dense: got an unexpected keyword argument {name!r}; {hint}")


def keeps_width(layer: Layer) -> bool:
    """Say whether a layer is known to keep the width of its input and to learn nothing."""
    return not isinstance(layer, ParametricLayer) and layer in BUILT_IN


class TrainingMode:
    """A block in which `layers` are told whether they train; after it, what they were before.

    A generator would do the same in three lines, and take twice as long: of a row's prediction, a
    tenth.
    """

    def __init__(self, layers: Sequence[Layer], training: bool) -> None:
        self._layers, self._training = layers, training

    def __enter__(self) -> None:
        self._before = [layer.training for layer in self._layers]
        for layer in self._layers:
            layer.training = self._training

    def __exit__(self, *_: object) -> None:
        for layer, mode in zip(self._layers, self._before, strict=True):
            layer.training = mode


def floating_pair(input: npt.ArrayLike, grad_output: npt.ArrayLike) -> tuple[Array, Array]:
    """Return input and gradient of an elementwise layer, checked, in the dtype to compute in."""
    X = checks.floating_matrix("input", input)
    if (
        type(grad_output) is np.ndarray
        and grad_output.dtype is X.dtype
        and grad_output.shape == X.shape
    ):
        return X, grad_output  # as a rule
    G = checks.shaped("grad_output", grad_output, X.shape)
    dtype = X.dtype
    if G.dtype.kind == "f":
        dtype = checks.compute_dtype("grad_output", dtype, G.dtype)
    return cast(X, dtype), cast(G, dtype)


def cast(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return `array` in `dtype`, itself where it is."""
    if array.dtype is dtype:
        return array
    with np.errstate(all="ignore"):  # infinity tells of a number that is too large
        return array.astype(dtype, copy=False)
