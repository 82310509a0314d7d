"""The choice of a backend, and what a backend is.

A backend is a module with the operations that `Backend` names: "numpy" states
what each of them means, "numba" does them fast. Neither checks what a user
hands in; layers, losses and networks have done that.
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from fastnn.checks import Array
from fastnn.interrupts import held_uncut

Labels = npt.NDArray[np.int64]


class Backend(Protocol):
    """The operations of a backend.

    Matrices are [batch, units] in one dtype, float32 or float64; they may be
    strided. Results are new arrays unless an argument begins with `out_`. A name
    that ends in `_step`, `add_multiple` and `clip_by_global_norm` change their
    first argument in place, and a step its state as well; these are flat vectors.
    """

    @staticmethod
    def prepare(dtype: np.dtype[Any], operations: Iterable[str]) -> None: ...

    @staticmethod
    def by_rows(X: Array, dtype: np.dtype[Any]) -> Array: ...

    @staticmethod
    def elementwise_forward(function: str, input: Array, *constants: float) -> Array: ...

    @staticmethod
    def elementwise_backward(
        function: str, value: Array, grad_output: Array, *constants: float
    ) -> Array: ...

    @staticmethod
    def rounded_to_bfloat16(x: Array) -> Array: ...

    @staticmethod
    def dense_forward(
        input: Array, weights: Array, biases: Array, *, relu: bool = False, bfloat16: bool = False
    ) -> Array: ...

    @staticmethod
    def dense_backward(
        input: Array,
        weights: Array,
        grad_output: Array,
        out_grad_weights: Array,
        out_grad_biases: Array,
        *,
        input_gradient: bool = True,
        bfloat16: bool = False,
    ) -> Array | None: ...

    @staticmethod
    def dropout(input: Array, p: float, key: int, step: int) -> Array: ...

    @staticmethod
    def batch_norm_forward(
        input: Array, scale: Array, shift: Array, epsilon: float
    ) -> tuple[Array, Array, Array]: ...

    @staticmethod
    def batch_norm_inference(
        input: Array, scale: Array, shift: Array, mean: Array, variance: Array, epsilon: float
    ) -> Array: ...

    @staticmethod
    def batch_norm_backward(
        input: Array,
        grad_output: Array,
        scale: Array,
        epsilon: float,
        out_grad_scale: Array,
        out_grad_shift: Array,
    ) -> Array: ...

    @staticmethod
    def batch_norm_inference_backward(
        input: Array,
        grad_output: Array,
        scale: Array,
        mean: Array,
        variance: Array,
        epsilon: float,
        out_grad_scale: Array,
        out_grad_shift: Array,
    ) -> Array: ...

    @staticmethod
    def softmax(logits: Array) -> Array: ...

    @staticmethod
    def softmax_cross_entropy(logits: Array, labels: Labels) -> Array: ...

    @staticmethod
    def softmax_cross_entropy_gradient(logits: Array, labels: Labels) -> Array: ...

    @staticmethod
    def smoothed_cross_entropy(logits: Array, labels: Labels, smoothing: float) -> Array: ...

    @staticmethod
    def smoothed_cross_entropy_gradient(
        logits: Array, labels: Labels, smoothing: float
    ) -> Array: ...

    @staticmethod
    def binary_cross_entropy(logits: Array, target: Array) -> Array: ...

    @staticmethod
    def binary_cross_entropy_gradient(logits: Array, target: Array) -> Array: ...

    @staticmethod
    def poisson_loss(logits: Array, target: Array) -> Array: ...

    @staticmethod
    def poisson_loss_gradient(logits: Array, target: Array) -> Array: ...

    @staticmethod
    def mean_squared_error(output: Array, target: Array) -> Array: ...

    @staticmethod
    def mean_squared_error_gradient(output: Array, target: Array) -> Array: ...

    @staticmethod
    def add_multiple(target: Array, factor: float, source: Array) -> None: ...

    @staticmethod
    def sum_of_squares(x: Array) -> float: ...

    @staticmethod
    def clip_by_global_norm(gradients: Sequence[Array], clip_norm: float) -> None: ...

    @staticmethod
    def sgd_step(parameters: Array, gradient: Array, learning_rate: float) -> None: ...

    @staticmethod
    def momentum_step(
        parameters: Array,
        gradient: Array,
        velocity: Array,
        learning_rate: float,
        momentum: float,
        nesterov: bool,
    ) -> None: ...

    @staticmethod
    def rmsprop_step(
        parameters: Array,
        gradient: Array,
        mean_square: Array,
        learning_rate: float,
        rho: float,
        epsilon: float,
    ) -> None: ...

    @staticmethod
    def adam_step(
        parameters: Array,
        gradient: Array,
        mean: Array,
        mean_square: Array,
        learning_rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        step: int,
    ) -> None: ...


_MODULES = {
    "numba": "fastnn.backends.numba_backend",
    "numpy": "fastnn.backends.numpy_backend",
}
_loaded: dict[str, Backend] = {}
_epoch_module: Any | None = None
_environment = os.environ.get("FASTNN_BACKEND", "")
"""Read once: to look again takes longer than a layer of ten units."""
_default: str | None = None
_override: ContextVar[str | None] = ContextVar("fastnn_backend", default=None)


def available_backends() -> tuple[str, ...]:
    """Return the names of the backends."""
    return tuple(_MODULES)


def check_name(argument: str, name: object) -> str:
    """Return `name` if it is that of a backend."""
    if not isinstance(name, str):
        raise TypeError(f"{argument}: expected one of {_known()}, got {name!r}")
    if name not in _MODULES:
        raise ValueError(f"{argument}: expected one of {_known()}, got {name!r}")
    return name


def set_backend(name: str) -> None:
    """Make `name` the default of this process, for networks and layers that name none.

    Parameters
    ----------
    name : {"numba", "numpy"}

    Raises
    ------
    ValueError
        If there is no such backend.
    TypeError
        If `name` is not a string.
    """
    global _default
    _default = check_name("name", name)


def get_backend() -> str:
    """Return the name of the backend in force here.

    The innermost `use_backend` decides, then `set_backend`, then the environment variable
    FASTNN_BACKEND as it was when fastnn was imported; "numba" to begin with.

    Raises
    ------
    ValueError
        If the environment variable decides and there is no such backend.
    """
    chosen = _override.get() or _default
    if chosen is None:
        return check_name("FASTNN_BACKEND", _environment) if _environment else "numba"
    return chosen


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Use backend `name` inside a `with` block, in this thread or task alone.

    Parameters
    ----------
    name : {"numba", "numpy"}

    Raises
    ------
    ValueError
        If there is no such backend.
    TypeError
        If `name` is not a string.
    """
    token = _override.set(check_name("name", name))
    try:
        yield
    finally:
        _override.reset(token)


def load(name: str | None = None) -> Backend:
    """Return the backend `name`, or the one in force; Numba is imported when first asked for.

    Where Numba compiles nothing, the NumPy backend stands in for it, after a warning.
    """
    name = name or get_backend()
    backend = _loaded.get(name)
    if backend is None:
        if name == "numba" and (reason := why_not_numba()) is not None:
            warnings.warn(
                f"{reason}; the NumPy backend computes in its place, several times slower",
                RuntimeWarning,
                stacklevel=2,
            )
            backend = load("numpy")
        else:
            module: Any = _imported(_MODULES[name])
            backend = cast(Backend, module)
        _loaded[name] = backend
    return backend


@held_uncut
def _imported(name: str) -> Any:
    """Import a module, whole: Ctrl-C in the midst of Numba's would leave half of it for good."""
    return importlib.import_module(name)


@functools.cache
def why_not_numba() -> str | None:
    """Return why Numba compiles nothing in this process, None if it does."""
    try:
        presence = _imported("fastnn.backends.numba_backend.compiling.presence")
        reason: str | None = presence.why_not()
    except Exception as error:  # of a Python, a NumPy or an LLVM that do not go together
        return f"Numba can't be imported ({type(error).__name__}: {error})"
    return reason


def epoch_module(name: str) -> Any | None:
    """Return the module that compiles whole epochs for backend `name`, None where there is none."""
    global _epoch_module
    if name != "numba" or why_not_numba() is not None:
        return None
    if _epoch_module is None:
        _epoch_module = _imported("fastnn.backends.numba_backend.epoch.program")
    return _epoch_module


def describe_numba() -> dict[str, str]:
    """Return facts about the compiled backend on this machine: CPU, vectors, cache."""
    if (reason := why_not_numba()) is not None:
        return {"compiled": f"nothing: {reason}"}
    module: Any = _imported("fastnn.backends.numba_backend.info")
    return cast(dict[str, str], module.describe())


def _known() -> str:
    return ", ".join(repr(name) for name in _MODULES)
