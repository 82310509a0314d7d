"""Recipes that reach a share of right answers on MNIST's test set, and the programs that run them.

A recipe was chosen on the 10,000 images that `load_dataset` keeps for validation, with the other
50,000 for training. In a race it is trained on all 60,000; test images have had no part in it.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice, pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np

import fastnn
from fastnn import schedules
from fastnn.bench.cases import Case
from fastnn.bench.contenders import Round
from fastnn.bench.samples import Array


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: dense layers with batch norm and ReLU, by SGD with momentum.

    Parameters
    ----------
    target : float
        The share of right answers that it is for.
    hidden : tuple of int
        Units of each hidden layer.
    batch_size, epochs : int
        Samples that fill no batch are left out of an epoch.
    rate : float
        The highest learning rate, after the warm-up; from there it falls to 0 by half a cosine.
    warm_up : float
        Share of the steps in which the rate rises.
    momentum : float
        Nesterov's.
    l2 : float
        The penalty of each dense layer.
    label_smoothing : float
        See `fastnn.SoftmaxCrossEntropy`.
    pixels : int
        By how many pixels images are moved at most, another way in each epoch; 0 for none.
    """

    target: float
    hidden: tuple[int, ...]
    batch_size: int
    epochs: int
    rate: float
    warm_up: float = 0.2
    momentum: float = 0.9
    l2: float = 0.0
    label_smoothing: float = 0.0
    pixels: int = 0

    def network(self, seed: int, samples: int) -> fastnn.Network:
        """Return a new network, with the schedule for so many training samples."""
        layers: list[fastnn.Layer] = [fastnn.Rescaling(1 / 255)]
        for units, width in pairwise((784, *self.hidden)):
            dense = fastnn.Dense(units, width, weights="he_normal", l2=self.l2)
            layers += [dense, fastnn.BatchNorm(width), fastnn.ReLU()]
        return fastnn.Network(
            [*layers, fastnn.Dense(self.hidden[-1], 10, l2=self.l2)],
            loss=fastnn.SoftmaxCrossEntropy(label_smoothing=self.label_smoothing),
            optimizer=fastnn.SGD(self.schedule(samples), momentum=self.momentum, nesterov=True),
            seed=seed,
        )

    def schedule(self, samples: int) -> schedules.WarmUp:
        """Return the learning rate as a function of the step."""
        steps = self.epochs * (samples // self.batch_size)
        falling = schedules.CosineDecay(self.rate, steps)
        return schedules.WarmUp(falling, max(1, round(self.warm_up * steps)))

    def passes(self, X: Array, y: Array, seed: int) -> Iterator[tuple[Array, Array]]:
        """Yield what each epoch trains on, in its order: the same for whoever asks."""
        rng = np.random.default_rng(seed)
        for _ in range(self.epochs):
            order = rng.permutation(len(y))
            images = X[order]
            if self.pixels:
                images = fastnn.random_shift(images, self.pixels, rng=rng)
            yield images, y[order]


RECIPES = {
    "98%": Recipe(0.98, (128, 32), 128, 3, rate=0.5, label_smoothing=0.1, pixels=1),
    "99%": Recipe(0.99, (512, 256), 256, 8, rate=1.0, l2=1e-4, label_smoothing=0.1, pixels=1),
}


class Look(NamedTuple):
    """After an epoch: seconds of training so far, and the share of right answers."""

    seconds: float
    accuracy: float


class Watch:
    """A clock that stands still while the test set is looked at."""

    def __init__(self, accuracy: Callable[[], float]) -> None:
        self._accuracy = accuracy
        self.looks: list[Look] = []
        self._start = time.perf_counter()

    def look(self) -> None:
        """Note time and accuracy, and have the clock go on."""
        seconds = time.perf_counter() - self._start
        self.looks.append(Look(seconds, self._accuracy()))
        self._start = time.perf_counter() - seconds


class Data(NamedTuple):
    """What to train on, and what to look at after each epoch; raw pixels."""

    X: Array
    y: Array
    X_test: Array
    y_test: Array

    def few(self, number: int) -> "Data":
        """Return the first ones."""
        return Data(*[array[:number] for array in self])


def load_data() -> Data:
    """Return MNIST: all 60,000 training images, and the test images."""
    X, y, X_val, y_val, X_test, y_test = fastnn.load_dataset("mnist", flatten=True, dtype=np.uint8)
    return Data(np.concatenate([X, X_val]), np.concatenate([y, y_val]), X_test, y_test)


class Program(Protocol):
    """What runs a recipe."""

    def reset(self, recipe: Recipe, data: Data, seed: int) -> None:
        """Make what is to be trained."""

    def run(self) -> list[Look]:
        """Train, from the first step to the last."""


class FastNN:
    """This package."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def reset(self, recipe: Recipe, data: Data, seed: int) -> None:
        self.recipe, self.data, self.seed = recipe, data, seed
        self.network = recipe.network(seed, len(data.y))

    def accuracy(self) -> float:
        return float(np.mean(self.network.predict(self.data.X_test) == self.data.y_test))

    def run(self) -> list[Look]:
        watch = Watch(self.accuracy)
        passes = self.recipe.passes(self.data.X, self.data.y, self.seed)
        self.network.fit_blocks(
            lambda: islice(passes, 1),
            epochs=self.recipe.epochs,
            batch_size=self.recipe.batch_size,
            threads=self.threads,
            shuffle=False,
            drop_last=True,
            callbacks=[lambda network, history: watch.look()],
        )
        return watch.looks


class Torch:
    """The twin in PyTorch: the same layers and initial parameters, as `to_torch` gives them."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch = torch
        self.module: Any = None

    def reset(self, recipe: Recipe, data: Data, seed: int) -> None:
        self.recipe, self.data, self.seed = recipe, data, seed
        fresh = recipe.network(seed, len(data.y)).to_torch()
        if self.module is None:
            self.module = fresh
            self.optimizer = self.torch.optim.SGD(
                self._parameters(), momentum=recipe.momentum, nesterov=True, fused=True
            )
        self.module.load_state_dict(fresh.state_dict())  # what is compiled stays
        self.optimizer.state.clear()

    def _parameters(self) -> list[dict[str, Any]]:
        """Return the parameters with and without a penalty, whose gradient is 2 l2 W."""
        linear = self.torch.nn.Linear
        weights = [part.weight for part in self.module if isinstance(part, linear)]
        known = set(map(id, weights))
        others = [of for of in self.module.parameters() if id(of) not in known]
        penalty = 2 * self.recipe.l2
        return [{"params": weights, "weight_decay": penalty}, {"params": others}]

    def loss(self, x: Any, y: Any) -> Any:
        return self.torch.nn.functional.cross_entropy(
            self.module(x), y, label_smoothing=self.recipe.label_smoothing
        )

    def accuracy(self) -> float:
        X, y = map(self.torch.from_numpy, self.data[2:])
        self.module.eval()
        with self.torch.inference_mode():
            right = (self.module(X).argmax(1) == y).float().mean()
        self.module.train()
        return float(right)

    def run(self) -> list[Look]:
        watch = Watch(self.accuracy)
        data, batch_size = self.data, self.recipe.batch_size
        rate = self.recipe.schedule(len(data.y))
        whole = len(data.y) // batch_size * batch_size
        step = 0
        self.module.train()
        for X, y in self.recipe.passes(data.X, data.y, self.seed):
            batches = [self.torch.from_numpy(of[:whole]).split(batch_size) for of in (X, y)]
            for batch in zip(*batches, strict=True):
                for group in self.optimizer.param_groups:
                    group["lr"] = rate(step)
                self.optimizer.zero_grad()
                self.loss(*batch).backward()
                self.optimizer.step()
                step += 1
            watch.look()
        return watch.looks


class TorchCompiled(Torch):
    """The same with network and loss, forward and backward, under ``torch.compile``."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.loss = self.torch.compile(self.loss)  # type: ignore[method-assign]


PROGRAMS: dict[str, Callable[[int], Program]] = {
    "numba": FastNN,
    "torch": Torch,
    "torch.compile": TorchCompiled,
}


def warm_up(program: Program, recipe: Recipe, data: Data) -> None:
    """Run a few steps, so that all that is compiled has been."""
    program.reset(replace(recipe, epochs=1), data.few(4 * recipe.batch_size), seed=0)
    program.run()


def prepare(case: Case) -> Round:
    """Return rounds, each of which is a run of the case's recipe with the next seed, from 0 on.

    Their outcome is the list of looks.
    """
    recipe, data = RECIPES[case.recipe], load_data()
    program = PROGRAMS[case.contender](case.threads)
    warm_up(program, recipe, data)
    seeds = count()
    return Round(lambda: program.reset(recipe, data, next(seeds)), program.run, list)
