"""Networks that are not what compiled epochs are made for: a layer of one's own; many tiny ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import fastnn
from fastnn.bench.samples import SEED
from fastnn.checks import Array

from . import by_hand, in_jax
from .found import NUMPY
from .small import BY_HAND, dense_layers
from .tasks import Task
from .turns import in_turns

RATE = 0.1
JAX = "JAX lax.scan"


class Sine(fastnn.Layer):
    """As the README has it."""

    def forward(self, input: Array) -> Array:
        return np.sin(input)

    def backward(self, input: Array, grad_output: Array) -> Array:
        return np.cos(input) * grad_output


def _own_layer(hidden: int, batch_size: int, count: int) -> Task:
    X, y, *_ = fastnn.load_dataset(flatten=True, dtype=np.float32)
    X, y = X[:count], y[:count]

    def network(backend: str = "numba") -> fastnn.Network:
        layers = [fastnn.Dense(784, hidden), Sine(), fastnn.Dense(hidden, 10)]
        sgd = fastnn.SGD(RATE)
        return fastnn.Network(layers, backend=backend, optimizer=sgd, seed=SEED)

    def fit(backend: str) -> Callable[[], Callable[[], float]]:
        def make() -> Callable[[], float]:
            trained = network(backend)
            return lambda: trained.fit(X, y, batch_size=batch_size, shuffle=False).loss[-1]

        return make

    def layers() -> by_hand.Layers:
        return dense_layers(network())

    work = X, y, batch_size
    return Task(
        {
            "fastnn": fit("numba"),
            BY_HAND: lambda: partial(by_hand.epoch, layers(), *work, RATE, np.sin, np.cos),
            NUMPY: fit("numpy"),
            "PyTorch eager": lambda: _sines_in_torch(layers(), *work),
            JAX: lambda: _sines_in_jax(layers(), *work),
        },
        BY_HAND,
        tolerance=0.01,
    )


def _sines_in_torch(
    layers: by_hand.Layers, X: Array, y: Array, batch_size: int
) -> Callable[[], float]:
    """Return an epoch of two layers with a sine between them."""
    import torch

    first, second = (torch.nn.Linear(*W.shape) for W, _ in layers)
    with torch.no_grad():
        for linear, (W, b) in zip((first, second), layers, strict=True):
            linear.weight.copy_(torch.from_numpy(W.T))
            linear.bias.copy_(torch.from_numpy(b))
    of_both = [*first.parameters(), *second.parameters()]
    optimizer = torch.optim.SGD(of_both, RATE, fused=True)
    targets = torch.from_numpy(y.astype(np.int64)).split(batch_size)
    batches = list(zip(torch.from_numpy(X).split(batch_size), targets, strict=True))

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(second(torch.sin(first(x))), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return lambda: float(torch.stack([step(*batch) for batch in batches]).mean())


def _sines_in_jax(
    layers: by_hand.Layers, X: Array, y: Array, batch_size: int
) -> Callable[[], float]:
    """Return the same, which goes on from where it ended."""
    import jax

    epoch = jax.jit(in_jax.training(X, y, batch_size, RATE, 1, "sin"))

    def train() -> float:
        nonlocal layers
        layers, loss = epoch(layers)
        return float(loss)

    return train


def _many(number: int, units: tuple[int, ...], count: int, batch_size: int, epochs: int) -> Task:
    rng = np.random.default_rng(SEED)
    X = rng.standard_normal((count, units[0]), np.float32)
    y = rng.integers(units[-1], size=count)

    def networks() -> list[fastnn.Network]:
        inputs, hidden, outputs = units
        return [
            fastnn.Network(
                [fastnn.Dense(inputs, hidden), fastnn.ReLU(), fastnn.Dense(hidden, outputs)],
                optimizer=fastnn.SGD(RATE),
                seed=seed,
            )
            for seed in range(number)
        ]

    options: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "shuffle": False}

    def fit_many() -> list[float]:
        found = fastnn.fit_many(networks(), X, y, workers=1, **options)
        return [history.loss[-1] for history in found]

    def numpy() -> list[float]:
        losses = []
        for layers in map(dense_layers, networks()):
            for _ in range(epochs):
                loss = by_hand.epoch(layers, X, y, batch_size, RATE)
            losses.append(loss)
        return losses

    def jax() -> Callable[[], Array]:
        import jax
        import jax.numpy as jnp

        apart = map(dense_layers, networks())
        together = jax.tree.map(lambda *of: jnp.stack(of), *apart)
        train = jax.jit(jax.vmap(in_jax.training(X, y, batch_size, RATE, epochs)))
        return lambda: np.asarray(train(together)[1])

    return Task(
        {"fastnn": lambda: fit_many, BY_HAND: lambda: numpy, "JAX vmap": jax},
        BY_HAND,
        tolerance=0.01,
    )


MANY = (
    (256, (2, 3, 2), 4, 4, 200),
    (256, (4, 10, 3), 150, 30, 50),
    (64, (20, 64, 2), 960, 32, 5),
)

EDGES = (
    in_turns(
        "own-layer",
        "A layer that only Python knows, sin(X), between two dense ones: an epoch of 6,400 samples "
        "of MNIST.",
        {
            f"784-{hidden}-sin-10, batch {batch_size}": partial(
                _own_layer, hidden, batch_size, 6_400
            )
            for hidden, batch_size in ((100, 32), (512, 128))
        },
    ),
    in_turns(
        "many",
        "Many tiny networks, trained at once on one thread: `fit_many`, or one `vmap` over them.",
        {
            f"{of[0]} of {'-'.join(map(str, of[1]))}, {of[2]} samples, batch {of[3]}, "
            f"{of[4]} epochs": partial(_many, *of)
            for of in MANY
        },
        rounds=3,
    ),
)
