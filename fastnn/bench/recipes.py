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

    def network(
        self, seed: int, samples: int, matmul_precision: str | None = None
    ) -> fastnn.Network:
        """Return a new network, with the schedule for so many training samples."""
        layers: list[fastnn.Layer] = [fastnn.Rescaling(1 / 255)]
        for units, width in pairwise((784, *self.hidden)):
            dense = fastnn.Dense(units, width, weights="he_normal", l2=self.l2)
            layers += [dense, fastnn.BatchNorm(width), fastnn.ReLU()]
        return fastnn.Network(
            [*layers, fastnn.Dense(self.hidden[-1], 10, l2=self.l2)],
            loss=fastnn.SoftmaxCrossEntropy(label_smoothing=self.label_smoothing),
            optimizer=fastnn.SGD(self.schedule(samples), momentum=self.momentum, nesterov=True),
            matmul_precision=matmul_precision,
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
    "99%": Recipe(0.99, (512, 256), 256, 8, rate=2.0, l2=1e-4, label_smoothing=0.1, pixels=1),
}


class Look(NamedTuple):
    """After an epoch: seconds of training so far, and the share of right answers."""

    seconds: float
    accuracy: float


class Stopwatch:
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

    def __init__(self, threads: int, matmul_precision: str | None = None) -> None:
        self.threads, self.matmul_precision = threads, matmul_precision

    def reset(self, recipe: Recipe, data: Data, seed: int) -> None:
        self.recipe, self.data, self.seed = recipe, data, seed
        self.network = recipe.network(seed, len(data.y), self.matmul_precision)

    def accuracy(self) -> float:
        return float(np.mean(self.network.predict(self.data.X_test) == self.data.y_test))

    def run(self) -> list[Look]:
        watch = Stopwatch(self.accuracy)
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
    """The twin in PyTorch: the same layers and initial parameters, as `to_torch` gives them.

    Products in bfloat16 are those of ``torch.autocast``.
    """

    def __init__(self, threads: int, matmul_precision: str | None = None) -> None:
        import torch

        from fastnn.bench.in_torch import rounding_to

        torch.set_num_threads(threads)
        self.torch = torch
        self.rounding = rounding_to(matmul_precision)
        self.module: Any = None

    def reset(self, recipe: Recipe, data: Data, seed: int) -> None:
        self.recipe, self.data, self.seed = recipe, data, seed
        fresh = recipe.network(seed, len(data.y)).to_torch()
        if self.module is None:
            self.module = fresh
            self.prepare()
        self.module.load_state_dict(fresh.state_dict())  # in place, so what is compiled stays
        self.forget()

    def prepare(self) -> None:
        """Make the optimiser; the gradient of a penalty is 2 l2 W."""
        recipe, named = self.recipe, dict(self.module.named_parameters())
        weights = [value for value in named.values() if value.ndim == 2]
        others = [value for value in named.values() if value.ndim < 2]
        groups = [{"params": weights, "weight_decay": 2 * recipe.l2}, {"params": others}]
        self.optimizer = self.torch.optim.SGD(
            groups, momentum=recipe.momentum, nesterov=True, fused=True
        )

    def forget(self) -> None:
        """Have the optimiser remember nothing."""
        self.optimizer.state.clear()

    def step(self, x: Any, y: Any, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        with self.rounding():
            loss = self.torch.nn.functional.cross_entropy(
                self.module(x), y, label_smoothing=self.recipe.label_smoothing
            )
        loss.backward()
        self.optimizer.step()

    def accuracy(self) -> float:
        X, y = map(self.torch.from_numpy, self.data[2:])
        self.module.eval()
        with self.torch.inference_mode(), self.rounding():
            right = int((self.module(X).argmax(1) == y).sum())
        self.module.train()
        return right / len(y)

    def run(self) -> list[Look]:
        watch = Stopwatch(self.accuracy)
        data, batch_size = self.data, self.recipe.batch_size
        rate = self.recipe.schedule(len(data.y))
        whole = len(data.y) // batch_size * batch_size
        steps = count()
        self.module.train()
        for X, y in self.recipe.passes(data.X, data.y, self.seed):
            batches = [self.torch.from_numpy(of[:whole]).split(batch_size) for of in (X, y)]
            for x, labels in zip(*batches, strict=True):
                self.step(x, labels, rate(next(steps)))
            watch.look()
        return watch.looks


class TorchCompiled(Torch):
    """The same with the whole step, update included, as one function under ``torch.compile``.

    Compiling network and loss alone, and leaving the optimiser as it is, is slower.
    """

    def prepare(self) -> None:
        # numbers are compiled in, objects would be looked at in each step
        torch, module, recipe = self.torch, self.module, self.recipe
        momentum, penalty, smoothing = recipe.momentum, 2 * recipe.l2, recipe.label_smoothing
        weights = {name: value.detach() for name, value in module.named_parameters()}
        statistics = dict(module.named_buffers())
        velocities = {name: torch.zeros_like(value) for name, value in weights.items()}

        def mean_loss(weights: dict[str, Any], x: Any, y: Any) -> Any:
            running = {name: value.clone() for name, value in statistics.items()}
            logits = torch.func.functional_call(module, (weights, running), (x,))
            loss = torch.nn.functional.cross_entropy(logits, y, label_smoothing=smoothing)
            return loss, running

        def step(x: Any, y: Any, rate: Any) -> None:
            gradients, running = torch.func.grad(mean_loss, has_aux=True)(weights, x, y)
            for name, value in statistics.items():
                value.copy_(running[name])
            for name, value in weights.items():
                gradient, velocity = gradients[name], velocities[name]
                if value.ndim == 2:
                    gradient = gradient + penalty * value
                velocity.mul_(momentum).add_(gradient)
                value.sub_(rate * (gradient + momentum * velocity))

        compiled = torch.compile(step)
        self.step = lambda x, y, rate: compiled(  # type: ignore[method-assign]
            x,
            y,
            torch.tensor(rate),  # of which a number would be compiled in
        )
        self.velocities = velocities

    def forget(self) -> None:
        for velocity in self.velocities.values():
            velocity.zero_()

    def run(self) -> list[Look]:
        # rounding is from outside: from inside, the gradient's products are in float32
        with self.torch.no_grad(), self.rounding():
            return super().run()


PROGRAMS: dict[str, Callable[[int, str | None], Program]] = {
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
    program = PROGRAMS[case.contender](case.threads, case.matmul_precision)
    warm_up(program, recipe, data)
    seeds = count()
    return Round(lambda: program.reset(recipe, data, next(seeds)), program.run, list)
