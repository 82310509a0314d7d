"""Dropout: units are left out at random while a network trains."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastnn import checks, habits
from fastnn.backends import description
from fastnn.checks import Array
from fastnn.layers import BUILT_IN, Layer, floating_pair


@BUILT_IN.register
class Dropout(Layer):
    """Set each element to 0 with probability `p` in training, and divide the others by 1 - p.

    So the expectation of every element stays what it is, and prediction passes its input on.

    Parameters
    ----------
    p
        The probability of being dropped, from 0 to below 1.
    seed
        Of the layer's own masks. Without it their key is drawn from the network's generator when a
        network takes the layer in, and from a fresh one when the layer is used alone.

    Attributes
    ----------
    key : int
        Of 64 bits; what makes the masks of this layer differ from another's.
    step : int
        How many forward passes in training there have been.

    Raises
    ------
    ValueError
        If `p` or `seed` is out of range.
    TypeError
        If `p` is not a number, or `seed` is neither an integer nor a generator.

    Notes
    -----
    The mask of a pass is a function of key, step, and the element's place in the batch, drawn by
    Philox4x64-10, a counter-based generator. Both backends draw the same, and `backward` makes the
    mask of the last forward pass in training anew.

    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
    Journal of Machine Learning Research 15, 2014. J. K. Salmon et al., "Parallel random numbers:
    as easy as 1, 2, 3", SC 2011.
    """

    _operations = ("dropout",)
    _arguments = ("p",)
    _progress = ("key", "step")
    _passes: int

    @habits.explained
    def __init__(self, p: float, *, seed: int | np.random.Generator | None = None) -> None:
        self.p = p
        self._key = None if seed is None else _key(checks.generator("seed", seed))
        self._passes = 0

    @property
    def p(self) -> float:
        """The probability of being dropped."""
        return self._p

    @p.setter
    def p(self, value: float) -> None:
        self._p = checks.real("p", value, minimum=0.0, below=1.0)

    @property
    def key(self) -> int:
        """The key of the masks, an integer of 64 bits; drawn when first needed."""
        if self._key is None:
            self._key = _key(np.random.default_rng())
        return self._key

    @property
    def step(self) -> int:
        """How many forward passes in training there have been."""
        return self._passes

    def forward(self, input: npt.ArrayLike) -> Array:
        """Return `input` in prediction; in training, what a new mask keeps of it, over 1 - p.

        See `Layer.forward`.
        """
        X = checks.floating_matrix("input", input)
        if not self.training:
            return X
        output = self._backend.dropout(X, self.p, self.key, self._passes)
        self._passes += 1
        return output

    def backward(self, input: npt.ArrayLike, grad_output: npt.ArrayLike) -> Array:
        """Return `grad_output`, in training by the mask of the last forward pass in training.

        See `Layer.backward`.

        Raises
        ------
        RuntimeError
            If there was no forward pass in training.
        """
        _, G = floating_pair(input, grad_output)
        if not self.training:
            return G
        if self._passes == 0:
            raise RuntimeError("backward: expected a forward pass in training before, found none")
        return self._backend.dropout(G, self.p, self.key, self._passes - 1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.p!r})"

    def _draw(self, rng: np.random.Generator) -> None:
        if self._key is None:
            self._key = _key(rng)

    def _describe(self, start: int) -> description.Dropout:
        return description.Dropout(self.p, self.key)

    def _resume(self, *, key: int, step: int) -> None:  # type: ignore[override]
        """Go on with the masks of a saved layer."""
        if checks.integer("key", key, minimum=0, any_size=True) >= 2**64:
            raise ValueError(
                f"key: expected an integer of at most 64 bits, got {checks.shown(key)}"
            )
        self._key, self._passes = key, checks.steps("step", step)

    def _changed_by_forward(self) -> int:
        return self._passes

    def _change_back(self, before: int) -> None:
        self._passes = before


def _key(rng: np.random.Generator) -> int:
    return int(rng.integers(2**64, dtype=np.uint64))
