"""The programs that are compared, each in its fastest form that trains the same network.

All of them take the same initial parameters and walk the same samples in the same order, in
batches that are contiguous slices, so nobody pays for a gather. A contender is made outside the
timed part: a library is imported, data are put where it wants them. Its `train` is one epoch and
returns the mean loss, its `predict` returns class ids.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from fastnn.bench.cases import DROPPED, MATMUL_SIZE, MOMENTUM, Case

Array = NDArray[Any]
Parameters = list[tuple[Array, Array]]

SEED = 0


class Contender(Protocol):
    """What a worker calls; `train` and `predict` alike are one round."""

    def train(self) -> float:
        """Train one epoch and return the mean loss over its samples."""

    def predict(self) -> Array:
        """Return the class id of every sample."""


class Multiplier(Protocol):
    """A contender that also runs a single layer."""

    def dense(self, X: Array) -> Callable[[], Array]:
        """Return a function that gives the first layer's output for a batch."""


class FastNN:
    """This package, on the backend that the case names."""

    def __init__(self, case: Case, X: Array, y: Array, parameters: Parameters) -> None:
        import fastnn

        self.case, self.X, self.y = case, X, y
        dense = [fastnn.Dense(*units) for units in pairwise(case.shape)]
        layers: list[fastnn.Layer] = [fastnn.Rescaling(1 / 255)] if case.input == "uint8" else []
        for layer in dense[:-1]:
            layers.append(layer)
            if case.variant == "batch norm":
                layers.append(fastnn.BatchNorm(layer.output_units))
            layers.append(fastnn.ReLU())
            if case.variant == "dropout":
                layers.append(fastnn.Dropout(DROPPED))
        rate = case.learning_rate
        optimizer: fastnn.SGD | fastnn.Adam = fastnn.SGD(rate)
        if case.variant == "momentum":
            optimizer = fastnn.SGD(rate, momentum=MOMENTUM)
        elif case.variant == "adam":
            optimizer = fastnn.Adam(rate)
        self.network = fastnn.Network(
            [*layers, dense[-1]],
            backend=case.contender,
            dtype=np.dtype(case.dtype),
            optimizer=optimizer,
            seed=SEED,
        )
        self.dense_layers = dense
        self.assign(parameters)

    def assign(self, parameters: Parameters) -> None:
        """Go back to these parameters."""
        for layer, (weights, biases) in zip(self.dense_layers, parameters, strict=True):
            layer.weights, layer.biases = weights, biases

    def train(self) -> float:
        history = self.network.fit(
            self.X, self.y, epochs=1, batch_size=self.case.batch_size, shuffle=False
        )
        return float(history.loss[-1])

    def predict(self) -> Array:
        return self.network.predict(self.X)

    def dense(self, X: Array) -> Callable[[], Array]:
        return lambda: self.dense_layers[0].forward(X)


class TorchEager:
    """``torch.nn`` and ``torch.optim``, operation by operation."""

    def __init__(self, case: Case, X: Array, y: Array, parameters: Parameters) -> None:
        import torch

        torch.set_num_threads(case.threads)
        self.torch = torch
        self.dtype = getattr(torch, case.dtype)
        self.X = torch.from_numpy(X)
        targets = torch.from_numpy(y.astype(np.int64))
        self.batches = list(
            zip(self.X.split(case.batch_size), targets.split(case.batch_size), strict=True)
        )
        layers: list[Any] = []
        for weights, biases in parameters:
            if layers:
                if case.variant == "batch norm":
                    layers.append(torch.nn.BatchNorm1d(len(weights), dtype=self.dtype))
                layers.append(torch.nn.ReLU())
                if case.variant == "dropout":
                    layers.append(torch.nn.Dropout(DROPPED))
            linear = torch.nn.Linear(*weights.shape, dtype=self.dtype)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(weights.T))
                linear.bias.copy_(torch.from_numpy(biases))
            layers.append(linear)
        self.model = torch.nn.Sequential(*layers)
        rate, learned = case.learning_rate, self.model.parameters()
        # of the forms of each optimiser, the fused one is the fastest
        if case.variant == "adam":
            self.optimizer = torch.optim.Adam(learned, rate, fused=True)
        else:
            momentum = MOMENTUM if case.variant == "momentum" else 0.0
            self.optimizer = torch.optim.SGD(learned, rate, momentum, fused=True)

    def logits(self, x: Any) -> Any:
        return self.model(x if x.is_floating_point() else x.to(self.dtype) * (1 / 255))

    def step(self, x: Any, y: Any) -> Any:
        self.optimizer.zero_grad()
        loss = self.torch.nn.functional.cross_entropy(self.logits(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def train(self) -> float:
        return float(self.torch.stack([self.step(x, y) for x, y in self.batches]).mean())

    def predict(self) -> Array:
        with self.torch.inference_mode():
            classes: Array = self.logits(self.X).argmax(1).numpy()
        return classes

    def dense(self, X: Array) -> Callable[[], Array]:
        x = self.torch.from_numpy(X)

        def forward() -> Array:
            with self.torch.inference_mode():
                output: Array = self.model[0](x).numpy()
            return output

        return forward


class TorchCompiled(TorchEager):
    """The whole step, update included, as one function under ``torch.compile``.

    Compiling the loss alone and leaving the optimizer eager is slower.
    """

    def __init__(self, case: Case, X: Array, y: Array, parameters: Parameters) -> None:
        super().__init__(case, X, y, parameters)
        torch = self.torch
        weights = {name: value.detach() for name, value in self.model.named_parameters()}

        def mean_loss(weights: dict[str, Any], x: Any, y: Any) -> Any:
            x = x if x.is_floating_point() else x.to(self.dtype) * (1 / 255)
            return torch.nn.functional.cross_entropy(
                torch.func.functional_call(self.model, weights, (x,)), y
            )

        def step(weights: dict[str, Any], x: Any, y: Any) -> Any:
            gradients, loss = torch.func.grad_and_value(mean_loss)(weights, x, y)
            for name, value in weights.items():
                value.sub_(gradients[name], alpha=case.learning_rate)
            return loss

        compiled = torch.compile(step)
        self.step = lambda x, y: compiled(weights, x, y)  # type: ignore[method-assign]
        self.logits = torch.compile(self.logits)  # type: ignore[method-assign]

    def train(self) -> float:
        with self.torch.no_grad():
            return super().train()


class JaxScan:
    """The whole epoch as one ``lax.scan``: data on the device, parameters donated."""

    def __init__(self, case: Case, X: Array, y: Array, parameters: Parameters) -> None:
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", case.dtype == "float64")
        self.parameters = [
            (jnp.array(weights), jnp.array(biases)) for weights, biases in parameters
        ]

        def logits(parameters: Any, x: Any) -> Any:
            if not jnp.issubdtype(x.dtype, jnp.floating):
                x = x.astype(case.dtype) * (1 / 255)
            for weights, biases in parameters[:-1]:
                x = jax.nn.relu(x @ weights + biases)
            weights, biases = parameters[-1]
            return x @ weights + biases

        def mean_loss(parameters: Any, x: Any, y: Any) -> Any:
            log_probabilities = jax.nn.log_softmax(logits(parameters, x))
            return -jnp.take_along_axis(log_probabilities, y[:, None], axis=1).mean()

        def step(parameters: Any, batch: Any) -> Any:
            loss, gradients = jax.value_and_grad(mean_loss)(parameters, *batch)
            updated = jax.tree.map(lambda p, g: p - case.learning_rate * g, parameters, gradients)
            return updated, loss

        def epoch(parameters: Any, X: Any, y: Any) -> Any:
            parameters, losses = jax.lax.scan(step, parameters, (X, y))
            return parameters, losses.mean()

        self.epoch = jax.jit(epoch, donate_argnums=0)
        self.classes = jax.jit(lambda parameters, X: logits(parameters, X).argmax(1))
        self.X, self.y = jnp.asarray(X), jnp.asarray(y.astype(np.int32))
        if case.task == "train":
            self.X = self.X.reshape(case.steps, case.batch_size, -1)
            self.y = self.y.reshape(case.steps, case.batch_size)

    def train(self) -> float:
        self.parameters, loss = self.epoch(self.parameters, self.X, self.y)
        return float(loss)

    def predict(self) -> Array:
        return np.asarray(self.classes(self.parameters, self.X))


class ScikitLearn:
    """``MLPClassifier`` by plain SGD, one `partial_fit` an epoch.

    It draws its parameters in its first `partial_fit`, so it is given one batch beforehand and
    then the common parameters; without momentum nothing else is left of that batch. Its own
    shuffling is off.
    """

    def __init__(self, case: Case, X: Array, y: Array, parameters: Parameters) -> None:
        from sklearn.neural_network import MLPClassifier

        self.X, self.y = X, y
        self.model = MLPClassifier(
            case.shape[1:-1],
            solver="sgd",
            alpha=0,
            batch_size=case.batch_size,
            learning_rate_init=case.learning_rate,
            shuffle=False,
            momentum=0,
        )
        batch = slice(case.batch_size)
        self.model.partial_fit(X[batch], y[batch], classes=np.arange(case.shape[-1]))
        for layer, (weights, biases) in enumerate(parameters):
            self.model.coefs_[layer][:] = weights
            self.model.intercepts_[layer][:] = biases

    def train(self) -> float:
        self.model.partial_fit(self.X, self.y)
        return float(self.model.loss_)

    def predict(self) -> Array:
        classes: Array = self.model.predict(self.X)
        return classes


CONTENDERS: dict[str, Callable[[Case, Array, Array, Parameters], Contender]] = {
    "numba": FastNN,
    "numpy": FastNN,
    "torch": TorchEager,
    "torch.compile": TorchCompiled,
    "jax": JaxScan,
    "sklearn": ScikitLearn,
}


def initial_parameters(case: Case) -> Parameters:
    """Weights ``[in, out]`` by Glorot's normal rule and zero biases, equal for every contender."""
    rng = np.random.default_rng(SEED)
    return [
        (
            rng.normal(0, np.sqrt(2 / (inputs + outputs)), (inputs, outputs)).astype(case.dtype),
            np.zeros(outputs, case.dtype),
        )
        for inputs, outputs in pairwise(case.shape)
    ]


def load_samples(case: Case) -> tuple[Array, Array]:
    """Inputs and labels; random inputs have no zeros, and labels that a linear map assigns."""
    if case.input == "random":
        rng = np.random.default_rng(SEED)
        X = rng.random((case.samples, case.shape[0]), np.dtype(case.dtype)) - 0.5
        return X, (X @ rng.normal(size=(case.shape[0], case.shape[-1]))).argmax(1)
    import fastnn

    pixels, labels = fastnn.load_dataset(flatten=True, dtype=np.uint8)[:2]
    X = pixels[: case.samples]
    if case.input == "float":
        X = X.astype(case.dtype)
        X /= 255
    return X, labels[: case.samples].astype(np.int64)


def reference_classes(X: Array, parameters: Parameters) -> Array:
    """Class ids in float64, what every `predict` has to find."""
    activations = X / 255 if X.dtype == np.uint8 else X.astype(np.float64)
    for weights, biases in parameters[:-1]:
        activations = np.maximum(activations @ weights + biases, 0)
    weights, biases = parameters[-1]
    classes: Array = (activations @ weights + biases).argmax(1)
    return classes


def prepare(case: Case) -> Callable[[], float]:
    """Make the contender; the function returned is one round.

    Returns
    -------
    callable
        Its result is the mean loss of an epoch, the share of wrongly predicted class ids, the
        largest error of a layer's output, or nothing of interest for the matrix product.
    """
    if case.task == "matmul":
        rng = np.random.default_rng(SEED)
        a, b = rng.random((2, MATMUL_SIZE, MATMUL_SIZE), np.dtype(case.dtype))
        out = np.empty_like(a)
        return lambda: float(np.matmul(a, b, out=out)[0, 0])
    (X, y), parameters = load_samples(case), initial_parameters(case)
    contender = CONTENDERS[case.contender](case, X, y, parameters)
    if case.task == "train":
        return contender.train
    if case.task == "dense":
        batch = X[: case.batch_size]
        forward = cast(Multiplier, contender).dense(batch)
        weights, biases = parameters[0]
        exact = batch.astype(np.float64) @ weights + biases

        def run() -> float:
            for _ in range(case.steps):
                output = forward()
            return float(np.abs(output - exact).max() / np.abs(exact).max())

        return run
    expected = reference_classes(X, parameters)
    return lambda: float(np.mean(contender.predict() != expected))
