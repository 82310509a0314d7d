"""Parameters in flat vectors: one for each layer, and all of a network side by side in one.

An optimiser and the compiled epoch see a vector, a layer's mathematics sees views of it by name.
What an optimiser remembers, such as a velocity, lies in vectors of the same layout.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnn import checks, optimizers
from fastnn.backends import Backend
from fastnn.checks import Array
from fastnn.initializers import Initializer, Shape
from fastnn.locks import cached_attribute
from fastnn.memory import Layout, aligned_zeros
from fastnn.optimizers import Optimizer


class NamedVector:
    """A flat vector whose parts have names.

    Parameters
    ----------
    layout
        Where the parts lie.
    array
        The flat vector, of that size and dtype; by default zeros, aligned.

    Attributes
    ----------
    views : dict of str to array
        A view of each part, made once, as that takes longer than a step of a tiny layer. They
        stay inside fastnn: a user may change the shape or the flags of a view.
    """

    def __init__(self, layout: Layout, array: Array | None = None) -> None:
        self.layout = layout
        self.dtype = layout.dtype
        self.array = aligned_zeros(layout.size, layout.dtype) if array is None else array
        self.views = {name: layout.view(self.array, name) for name in layout.slots}

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the views, which would be copies of their parts.
        return NamedVector, (self.layout, self.array)

    @cached_attribute
    def padding(self) -> list[Array]:
        """What lies between and behind the parts, as views."""
        return self.layout.padding(self.array)

    def flat(self, name: str) -> Array:
        """Return a part as a flat view, its padding included."""
        return self.layout.flat(self.array, name)

    def cast(self, layout: Layout) -> NamedVector:
        """Return the same values in aligned memory of their own, in the dtype of `layout`."""
        cast = NamedVector(layout)
        for name, view in self.views.items():
            cast.views[name][...] = view
        return cast


class ParameterViews(MutableMapping[str, Array]):
    """The learned parameters of a layer by name, as live views; assigning copies in."""

    def __init__(self, parameters: LayerParameters) -> None:
        self._parameters = parameters

    def __getitem__(self, name: str) -> Array:
        if name not in self._parameters.learned:
            raise KeyError(name)
        return self._parameters.view(name)

    def __setitem__(self, name: str, value: npt.ArrayLike) -> None:
        if name not in self._parameters.learned:
            known = ", ".join(self._parameters.learned)
            raise KeyError(f"{name}: expected the name of a parameter, one of {known}")
        self._parameters.assign(name, value)

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name}: a layer can't lose a parameter")

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters.learned)

    def __len__(self) -> int:
        return len(self._parameters.learned)

    def __repr__(self) -> str:
        return repr(dict(self))


class LayerParameters:
    """The parameters of one layer, the optimiser that moves them, and what it remembers of them.

    The vector is the layer's own, in float64, until the layer joins a network; then it is a part
    of the network's. Values are drawn when first needed. The optimiser's state is made at the
    first step.

    Parameters
    ----------
    shapes, initializers
        Of each parameter by name.
    optimizer
        What moves the parameters.
    rng
        What draws them; by default the network's generator, or a fresh one.
    statistics
        The last names of `shapes`, where they are no parameters: no optimiser gets to see them.
    decaying
        The name of what an optimiser may shrink, as `AdamW` does.

    Attributes
    ----------
    layout : Layout
    learned : tuple of str
        The names but for statistics.
    state : tuple of arrays
        Vectors of the same layout, one for each of the optimiser's `state_names`; none before the
        first step.
    steps : int
        How many steps the parameters have taken with this optimiser.
    """

    _vector: NamedVector | None = None
    _gradient: NamedVector | None = None
    _whole: weakref.ref[NetworkParameters] | None = None

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        initializers: Mapping[str, Initializer],
        optimizer: Optimizer,
        rng: np.random.Generator | None = None,
        statistics: tuple[str, ...] = (),
        decaying: str | None = None,
    ) -> None:
        self.shapes = dict(shapes)
        self.learned = tuple(name for name in shapes if name not in statistics)
        self.layout = Layout(self.shapes, np.dtype(np.float64))
        self.use(optimizer)
        self._statistics = statistics
        self._decaying = decaying
        self._initializers = initializers
        self._rng = rng

    # Values

    def drawn(self, rng: np.random.Generator | None = None) -> NamedVector:
        """Return the parameters, drawn if they are not there yet."""
        return self._vector or self._draw(rng)

    def promoted(self, name: str, *arrays: Array) -> NamedVector:
        """Return the parameters in the dtype to compute in beside arrays, which errors call `name`.

        Integers are cast to the dtype of the parameters.
        """
        dtypes = [array.dtype for array in arrays if array.dtype.kind == "f"]
        dtype = checks.compute_dtype(name, self.layout.dtype, *dtypes)
        vector = self._vector or self._draw(None)
        return vector if dtype == vector.dtype else vector.cast(Layout(self.shapes, dtype))

    def view(self, name: str) -> Array:
        """Return a live view for a user."""
        return self.layout.view(self.drawn().array, name)

    def assign(self, name: str, value: npt.ArrayLike) -> None:
        """Copy in a value of the right shape."""
        array = checks.shaped(name, value, self.shapes[name])
        self.drawn().views[name][...] = array

    def fill(self, values: Mapping[str, Array]) -> None:
        """Take these values instead of drawing any."""
        self._vector = self._filled(values)

    # Steps

    def use(self, optimizer: Optimizer) -> None:
        """Be moved by `optimizer` from now on, which begins at its first step."""
        self.optimizer = optimizer
        self.state: tuple[Array, ...] = ()
        self.steps = 0

    def gradient_like(self, values: NamedVector) -> NamedVector:
        """Return scratch memory for the gradient with respect to `values`; its padding is zero."""
        if values is not self._vector:
            return NamedVector(values.layout)
        if self._gradient is None:
            self._gradient = NamedVector(self.layout)
        return self._gradient

    def step(self, backend: Backend, gradient: NamedVector) -> None:
        """Take one step of the optimiser; `gradient` is overwritten."""
        vector = self.drawn()
        if gradient.dtype != vector.dtype:
            gradient = gradient.cast(self.layout)
        flats = whole = (vector.array, gradient.array, *self.needed_state())
        if self._statistics:
            end = self.layout.slots[self._statistics[0]].offset
            flats = tuple([flat[:end] for flat in flats])
        if self.optimizer._weight_decay and "step" not in vars(self.optimizer):
            weights = None if self._decaying is None else vector.flat(self._decaying)
            self.optimizer._step(backend, flats[0], flats[1], flats[2:], self.steps, weights)
        else:
            self.optimizer.step(backend, flats[0], flats[1], flats[2:], self.steps)
        self.steps += 1
        # One of a user's own may move what it can't know to be padding; and what multiplies whole
        # vectors, where it is infinite or NaN, makes NaN of all zeros alike.
        place = self.layout.place_of_padding
        spoiled = place is not None and any(flat[place] != 0.0 for flat in whole)
        if spoiled or self.optimizer not in optimizers.BUILT_IN:
            for moved in whole if spoiled else whole[:2]:
                for part in self.layout.padding(moved):
                    part[...] = 0

    def needed_state(self) -> tuple[Array, ...]:
        """Return the state that a step needs, made if it is not there."""
        needed = len(self.optimizer.state_names)
        if len(self.state) != needed:
            whole = None if self._whole is None else self._whole()
            if whole is None:
                size, dtype = self.layout.size, self.layout.dtype
                self._move_state([aligned_zeros(size, dtype) for _ in range(needed)])
            else:
                whole.make_states()
        return self.state

    def fill_state(self, steps: int, state: Sequence[Mapping[str, Array]]) -> None:
        """Take this for what the optimiser remembers after so many steps."""
        self.steps, self.state = steps, tuple(self._filled(values).array for values in state)

    # Memory

    def join(self, dtype: np.dtype[Any]) -> None:
        """Become part of a network, which computes in `dtype`."""
        layout = Layout(self.shapes, dtype)
        self._vector, self.state = self.drawn().cast(layout), self._cast_state(layout)
        self.layout, self._gradient = layout, None

    def copy(self) -> LayerParameters:
        """Return equal parameters that share no vector with these, and are part of no network."""
        twin = copy.copy(self)
        # Into memory that is aligned, which that of a pickle is not.
        if self._vector is not None:
            twin._vector = self._vector.cast(self.layout)
        twin.state = self._cast_state(self.layout)
        # What one of the two draws must not depend on whether the other has drawn before.
        twin._rng = copy.deepcopy(self._rng)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        # Scratch memory is made anew. Drawn parameters have no need of initialisers, which may be
        # functions without a pickle.
        left_out = ("_gradient", "_whole")
        state = {key: value for key, value in self.__dict__.items() if key not in left_out}
        return state if self._vector is None else state | {"_initializers": {}}

    def _draw(self, rng: np.random.Generator | None) -> NamedVector:
        rng = self._rng or rng or np.random.default_rng()
        vector = NamedVector(self.layout)
        for name, shape in self.shapes.items():
            value = self._initializers[name](rng, shape)
            vector.views[name][...] = checks.shaped(name, value, shape)
        self._vector = vector
        return vector

    def _filled(self, values: Mapping[str, Array]) -> NamedVector:
        """Return a vector that holds `values`, and zero elsewhere."""
        vector = NamedVector(self.layout)
        for name, value in values.items():
            vector.views[name][...] = value
        return vector

    def _cast_state(self, layout: Layout) -> tuple[Array, ...]:
        return tuple([NamedVector(self.layout, old).cast(layout).array for old in self.state])

    def _move(self, array: Array, whole: NetworkParameters) -> None:
        """Let `array`, a part of a network's vector, hold the values from now on."""
        array[...] = self.drawn().array
        self._vector, self._whole = NamedVector(self.layout, array), weakref.ref(whole)

    def _move_state(self, arrays: Sequence[Array]) -> None:
        """Let `arrays`, all zero, hold the state from now on; as many as there is use for."""
        arrays = arrays[: len(self.optimizer.state_names)]
        for old, new in zip(self.state, arrays, strict=False):
            new[...] = old
        self.state = tuple(arrays)


class NetworkParameters:
    """The parameters of all layers of a network, side by side in one vector, and all states.

    From now on each layer's vectors are parts of these. A network that takes in another layer
    makes new ones.

    Parameters
    ----------
    parts
        The parameters of each layer in order, which have joined the network.
    dtype
        The network's.

    Attributes
    ----------
    vector : flat, aligned array
    states : list of arrays
        Vectors that lie parallel to `vector`, as many as the optimiser that needs most of them
        needs; none before the first step.
    """

    def __init__(self, parts: Sequence[LayerParameters], dtype: np.dtype[Any]) -> None:
        self.parts = parts
        self.vector = aligned_zeros(sum(part.layout.size for part in parts), dtype)
        self.states: list[Array] = []
        for part, place in self.places():
            part._move(self.vector[place], self)
        if any(part.state for part in parts):
            self.make_states()

    def places(self) -> Iterator[tuple[LayerParameters, slice]]:
        """Yield each layer's parameters with their place in the vectors."""
        start = 0
        for part in self.parts:
            yield part, slice(start, start + part.layout.size)
            start += part.layout.size

    def make_states(self) -> None:
        """Make the states that the next step needs; what layers have of them is kept."""
        needed = max((len(part.optimizer.state_names) for part in self.parts), default=0)
        size, dtype = self.vector.size, self.vector.dtype
        self.states = [aligned_zeros(size, dtype) for _ in range(needed)]
        for part, place in self.places():
            part._move_state([vector[place] for vector in self.states])
