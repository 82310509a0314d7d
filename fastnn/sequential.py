"""Layers in order, whose parameters lie side by side."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Self, overload

import numpy as np
import numpy.typing as npt

from fastnn import activations, backends, checks, habits, hints, optimizers, paths
from fastnn.checks import Array
from fastnn.layers import Layer, ParametricLayer, keeps_width
from fastnn.locks import ReadersWriterLock
from fastnn.memory import canonical
from fastnn.optimizers import Optimizer
from fastnn.parameters import NetworkParameters


class Sequential(Sequence[Layer]):
    """What a network is without a loss: layers, and what their parameters are moved by.

    `fastnn.Network` says what the arguments are.
    """

    def __init__(
        self,
        layers: Iterable[Layer],
        *,
        optimizer: Optimizer | str | None,
        backend: str | None,
        dtype: npt.DTypeLike,
        matmul_precision: str | None,
        seed: int | np.random.Generator | None,
    ) -> None:
        name = backends.get_backend() if backend is None else backend
        self._backend_name = backends.check_name("backend", name)
        self._dtype = checks.float_dtype("dtype", dtype)
        self._matmul_precision = checks.matmul_precision(
            "matmul_precision", matmul_precision, self._dtype
        )
        self._rng = checks.generator("seed", seed)
        self._optimizer = None
        if optimizer is not None:
            self._optimizer = optimizers.checked("optimizer", optimizer)
        self._layers: list[Layer] = []
        self._parameters = NetworkParameters([], self._dtype)
        self._fitting = False
        self._lock = ReadersWriterLock()
        self._programs = paths.Programs()
        if not isinstance(layers, Iterable):
            raise TypeError(f"layers: expected layers in a list, got {layers!r}")
        self._take_in(list(layers))

    @overload
    def __getitem__(self, index: int) -> Layer: ...

    @overload
    def __getitem__(self, index: slice) -> list[Layer]: ...

    def __getitem__(self, index: int | slice) -> Layer | list[Layer]:
        return self._layers[index]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    if not TYPE_CHECKING:  # which would take any attribute for one

        def __getattr__(self, name: str) -> NoReturn:
            raise self._no_attribute(name)

        def __setattr__(self, name: str, value: object) -> None:
            # Notes of a user's own are welcome; what nothing here would read is none.
            if name in habits.SET_ELSEWHERE and not hasattr(type(self), name):
                raise self._no_attribute(name)
            super().__setattr__(name, value)

    def _no_attribute(self, name: str) -> AttributeError:
        kind = type(self)
        hint = "" if name.startswith("_") else habits.of_network(name, dir(kind))
        message = f"{kind.__name__!r} object has no attribute {name!r}{hint}"
        return AttributeError(message, name=name, obj=self)

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_parameters", "_programs", "_lock")
        return {key: value for key, value in self.__dict__.items() if key not in left_out}

    def __copy__(self) -> Self:
        # A shallow copy would share layers, which belong to one network.
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = memo[id(self)] = type(self).__new__(type(self))
        with self._lock.reading():
            twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return twin

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._dtype = canonical(self._dtype)
        self._programs = paths.Programs()
        self._fitting = False
        self._lock = ReadersWriterLock()
        for layer in self._layers:
            layer._network = weakref.ref(self)
        self._pack()

    def add(self, layer: Layer) -> None:
        """Put `layer` at the end; draw its parameters if it has none yet.

        Raises
        ------
        ValueError
            If its input width is not the output width of the layer before, or
            it belongs to a network.
        TypeError
            If it is not a `Layer`.
        RuntimeError
            While `fit` runs.

        Warns
        -----
        UserWarning
            If the layer was given a learning rate or an optimiser, and the network has one that
            replaces it.
        """
        with self._lock.writing():
            self._refuse_in_training("take in a layer")
            self._take_in([layer])

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in order; the network itself is a sequence of them as well."""
        return tuple(self._layers)

    @property
    def backend(self) -> str:
        """The name of the backend."""
        return self._backend_name

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of parameters and computation."""
        return self._dtype

    @property
    def matmul_precision(self) -> str | None:
        """What operands of matrix products are rounded to; None where they are not."""
        return self._matmul_precision

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimiser that serves all layers, None where each has its own.

        Setting one gives it to all layers and drops the state of those before.
        """
        return self._optimizer

    @optimizer.setter
    def optimizer(self, value: Optimizer | str) -> None:
        optimizer = optimizers.checked("optimizer", value)
        with self._lock.writing():
            for layer in self._learned():
                layer._take(optimizer)
            self._optimizer = optimizer

    @property
    def parameter_count(self) -> int:
        """The number of weights, biases and other learned values."""
        return sum(array.size for layer in self for array in layer.parameters.values())

    def get_weights(self) -> list[Array]:
        """Return a copy of every parameter in order, batch norm's running statistics included."""
        with self._lock.reading():
            return [
                layer._parameters.view(name).copy()
                for layer in self._learned()
                for name in layer._parameters.shapes
            ]

    def set_weights(self, weights: Sequence[npt.ArrayLike]) -> None:
        """Copy in what `get_weights` returned, of this network or of one of the same layers.

        What optimisers remember stays.

        Raises
        ------
        ValueError
            If there is not an array of the right shape for each; nothing has changed then.
        TypeError
            If one does not hold real numbers.
        """
        if not isinstance(weights, Iterable):
            raise TypeError(f"weights: expected a list of arrays, got {weights!r}")
        parts = [layer._parameters for layer in self._learned()]
        places = [(part, name) for part in parts for name in part.shapes]
        arrays = list(weights)
        if len(arrays) != len(places):
            raise ValueError(f"weights: expected {len(places)} arrays, got {len(arrays)}")
        for i, (array, (part, name)) in enumerate(zip(arrays, places, strict=True)):
            checks.shaped(f"weights[{i}], {name}", array, part.shapes[name])
        with self._lock.writing():
            for array, (part, name) in zip(arrays, places, strict=True):
                part.assign(name, array)

    # Below: arguments have been checked

    def _take_in(self, layers: list[Layer]) -> None:
        """Check all layers, then make them this network's.

        A refusal leaves them to whoever has them, as they are but for what has been drawn.
        """
        width = self._width()
        for i, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"layer: expected a fastnn.Layer, got {layer!r}{_instead(layer)}")
            taken = layer._network is not None and layer._network() is not None
            if taken or any(layer is other for other in layers[:i]):
                raise ValueError(
                    f"layer: expected one that belongs to no network yet, got {layer!r}"
                )
            if None not in (width, layer.input_units) and width != layer.input_units:
                raise ValueError(
                    f"layer: expected {width} input units, the width of the layer before, "
                    f"got {layer!r}"
                )
            width = _width_after(layer, width)
        if self._optimizer is not None:
            _warn_of_replaced(layers, self._optimizer, len(self._layers))
        for layer in layers:
            layer._draw(self._rng)  # an initialiser of a user's may raise
        for layer in layers:
            if isinstance(layer, ParametricLayer) and self._optimizer is not None:
                layer._take(self._optimizer)
            layer._join(self._dtype)
            layer._network = weakref.ref(self)
            layer._backend_name = self._backend_name
            layer._matmul_precision = self._matmul_precision
        self._layers = [*self._layers, *layers]
        self._programs = paths.Programs()  # those before it are of another network
        if any(isinstance(layer, ParametricLayer) for layer in layers):
            self._pack()

    def _refuse_in_training(self, what: str) -> None:
        if self._fitting:
            raise RuntimeError(f"a network can't {what} while it is training")

    def _pack(self) -> None:
        """Put the layers' parameters side by side."""
        parts = [layer._parameters for layer in self._learned()]
        self._parameters = NetworkParameters(parts, self._dtype)

    def _learned(self) -> list[ParametricLayer]:
        return [layer for layer in self._layers if isinstance(layer, ParametricLayer)]

    def _change_rates(self, change: Callable[[Any], float]) -> None:
        """Give each layer an optimiser that is equal to its own but for the learning rate.

        Layers that share one go on to share one. Other networks that it serves keep it as it is.
        """
        changed: dict[int, Optimizer] = {}
        for layer in self._learned():
            before = layer.optimizer
            if id(before) not in changed:
                changed[id(before)] = copy.copy(before)
                changed[id(before)].learning_rate = change(before.learning_rate)
            layer._parameters.optimizer = changed[id(before)]
        if self._optimizer is not None:
            self._optimizer = changed.get(id(self._optimizer), self._optimizer)

    def _width(self) -> int | None:
        """Return the output width of the last layer, None where only running it can tell."""
        for layer in reversed(self._layers):
            if not keeps_width(layer):
                return layer.output_units
        return None


def _warn_of_replaced(layers: Sequence[Layer], optimizer: Optimizer, first: int) -> None:
    """Warn of what layers have been given to learn by, where a network's optimiser replaces it.

    `first` is the place that the first one will have in the network.
    """
    replaced = {
        place: layer
        for place, layer in enumerate(layers, first)
        if isinstance(layer, ParametricLayer)
        and layer._chosen
        and layer._learning() not in (f"{optimizer=}", f"learning_rate={optimizer.learning_rate!r}")
    }
    if not replaced:
        return
    (place, layer), *others = replaced.items()
    name, _, value = layer._learning().partition("=")
    likewise = checks.listed([f"layers[{other}]" for other, _ in others])
    hints.warn(
        f"layers[{place}]: {name}={value} is not used{f' (likewise {likewise})' * bool(others)}, "
        f"as the network's optimizer, {optimizer!r}, serves all layers; leave it out, or write "
        f"network[{place}].{name} = {value} when the layer is in the network",
        UserWarning,
    )


def _instead(layer: object) -> str:
    """Return what to write in place of what is no layer."""
    if isinstance(layer, str) and layer.lower() in activations.BY_NAME:
        return f"; write fastnn.{activations.BY_NAME[layer.lower()].__name__}()"
    if isinstance(layer, type) and issubclass(layer, Layer):
        return f"; write {layer.__name__}(...), with parentheses"
    return ""


def _width_after(layer: Layer, width: int | None) -> int | None:
    """Return the output width of `layer` on input of `width`, None where only running it tells."""
    return width if keeps_width(layer) else layer.output_units
