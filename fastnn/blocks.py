"""Samples that come block by block, as those that don't fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fastnn.checks import Array
from fastnn.paths import Order, Path

if TYPE_CHECKING:
    from fastnn.hints import Watch

Block = tuple[npt.ArrayLike, npt.ArrayLike]
"""Samples and their targets."""

BlockSource = Callable[[], Iterable[Block]] | Iterable[Block]
"""What can be gone through once an epoch."""


_Named = tuple[tuple[Array, Array], tuple[str, str]]


class _Rest(NamedTuple):
    """Samples of a block that have filled no batch, and which of its rows they are."""

    X: Array
    y: Array
    names: tuple[str, str]
    rows: npt.NDArray[np.int64]


class Check(Protocol):
    """What tells whether a network can take samples."""

    def __call__(
        self, X: npt.ArrayLike, y: npt.ArrayLike, names: tuple[str, str]
    ) -> tuple[Array, Array]:
        """Return both as arrays, or raise by name."""


class Blocks:
    """What an epoch trains on, block by block; see `Network.fit_blocks`.

    Parameters
    ----------
    source
        Where blocks come from.
    check
        Called with each block.
    epochs
        How often the source is to be gone through.

    Attributes
    ----------
    samples : int or None
        How many an epoch has, once one has been.

    Raises
    ------
    TypeError, ValueError
        If the source is none, or is used up after one of several epochs.
    """

    def __init__(
        self,
        source: BlockSource,
        check: Check,
        epochs: int,
        batch_size: int,
        *,
        shuffle: bool,
        drop_last: bool,
    ) -> None:
        if not callable(source) and not isinstance(source, Iterable):
            raise TypeError(
                "blocks: expected a function that returns an iterator over pairs (X, y), or an "
                f"iterable of them, got {type(source).__name__}"
            )
        if isinstance(source, Iterator) and epochs > 1:
            raise ValueError(
                f"blocks: expected what can be gone through once in each of {epochs} epochs, such "
                f"as the function that makes the iterator, got {type(source).__name__}"
            )
        self._source, self._check = source, check
        self._batch_size, self._shuffle, self._drop_last = batch_size, shuffle, drop_last
        self._kind: np.dtype[Any] | None = None
        self._of_target: tuple[int, ...] | None = None
        self.samples: int | None = None
        self._coming = self._blocks()
        self._first = next(self._coming, None)

    def first_rows(self, count: int) -> tuple[Array, Array]:
        """Return a copy of about `count` rows of the first block, evenly spaced."""
        if self._first is None:
            raise ValueError("blocks: expected at least one sample, got none")
        X, y = self._first[0]
        step = -(-len(X) // count)
        self._few = X[::step].copy(), y[::step].copy()
        return self._few

    def pieces(self, path: Path, rng: np.random.Generator, watch: Watch) -> Iterator[Order]:
        """Yield the order of whole batches, having told path and watch which arrays it is of.

        The batch that takes over what the block before has left is a piece of its own, so no block
        is ever copied. So is the last batch of all, which may be shorter.
        """
        size = self._batch_size
        left: tuple[Array, Array] | None = None
        rests: list[_Rest] = []  # what is left, block by block
        samples = trained = 0
        while (block := self._next()) is not None:
            (X, y), names = block
            _look_at(watch, {names[0]: X, names[1]: y}, rests)
            samples += len(y)
            order = np.arange(len(y))
            if self._shuffle:
                order = rng.permutation(order)
            if left is not None:
                head, order = np.split(order, [size - len(left[1])])
                left = np.concatenate([left[0], X[head]]), np.concatenate([left[1], y[head]])
                if len(left[1]) == size:
                    path.go_over_to(*left)
                    left = None
                    trained += size
                    yield np.arange(size)
                    rests = []
                else:
                    rests.append(_Rest(X[head], y[head], names, head))
            whole, rest = np.split(order, [len(order) // size * size])
            if len(whole):
                path.go_over_to(X, y)
                trained += len(whole)
                yield whole
            if len(rest):
                left = X[rest], y[rest]
                rests = [_Rest(*left, names, rest)]
            # nothing may hold the block while the next one is made
            path.go_over_to(*self._few)
            watch.go_over_to({})
            del block, X, y
        if left is not None and not self._drop_last:
            path.go_over_to(*left)
            _look_at(watch, {}, rests)
            trained += len(left[1])
            yield np.arange(len(left[1]))
        if not trained:
            self._refuse_epoch(samples)
        self.samples = trained

    def _refuse_epoch(self, samples: int) -> None:
        if samples:
            raise ValueError(
                f"batch_size: expected at most the {samples} samples of an epoch, as drop_last is "
                f"set, got {self._batch_size}"
            )
        raise ValueError(
            "blocks: expected samples in every epoch, got none after the first; a function must "
            "return a new iterator at each call"
        )

    def _next(self) -> _Named | None:
        """Return the next block, None where an epoch has come to its end."""
        block, self._first = self._first, None
        if block is None:
            block = next(self._coming, None)
            if block is None:
                self._coming = self._blocks()
        return block

    def _blocks(self) -> Iterator[_Named]:
        """Yield the blocks of one epoch that are not empty, checked, with their names."""
        source = self._source() if callable(self._source) else self._source
        if not isinstance(source, Iterable):
            raise TypeError(
                f"blocks: expected a function that returns an iterator, got {type(source).__name__}"
            )
        number = -1
        for block in source:  # not by enumerate, which holds a block while the next one is made
            number += 1
            parts = len(block) if isinstance(block, (tuple, list)) else 0
            if parts != 2:
                got = type(block).__name__ + (f" of {parts}" if parts else "")
                raise TypeError(f"blocks: expected pairs (X, y), got {got} as number {number}")
            # an X of samples beside an empty y is for the check
            if any(np.shape(part)[:1] != (0,) for part in reversed(block)):
                yield self._checked(number, *block)
            del block

    def _checked(self, number: int, X: npt.ArrayLike, y: npt.ArrayLike) -> _Named:
        names = f"X of block {number}", f"y of block {number}"
        X, y = self._check(X, y, names)
        self._kind = self._kind or X.dtype
        if X.dtype != self._kind == np.uint8:
            raise ValueError(f"{names[0]}: expected uint8, as the first block has, got {X.dtype}")
        # some losses take class ids as well as a row for each sample
        if self._of_target is None:
            self._of_target = y.shape[1:]
        if y.shape[1:] != self._of_target:
            expected, got = (
                f"rows of {of[0]} targets" if of else "class ids"
                for of in (self._of_target, y.shape[1:])
            )
            raise ValueError(f"{names[1]}: expected {expected}, as the first block has, got {got}")
        return (X, y), names


def _look_at(watch: Watch, data: dict[str, Array], rests: Iterable[_Rest]) -> None:
    """Have the watch look at a block and at what those before have left."""
    data, rows = dict(data), {}
    for rest in rests:
        order = np.argsort(rest.rows)
        for name, values in zip(rest.names, (rest.X, rest.y), strict=True):
            data[name], rows[name] = values[order], rest.rows[order]
    watch.go_over_to(data, rows)
