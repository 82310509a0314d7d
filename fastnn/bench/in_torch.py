"""PyTorch as a contender: operation by operation, and as one compiled step.

Only what has PyTorch imports this.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from fastnn.bench.cases import ADAM_EPSILON, BETA1, BETA2, DROPPED, MOMENTUM, Case
from fastnn.bench.samples import Array, Parameters

#: How ``torch.compile`` has functions called: through C++, in place of Python.
COMPILING = {"cpp_wrapper": True}


def rounding_to(matmul_precision: str | None) -> Callable[[], Any]:
    """Return what makes a block in which PyTorch multiplies numbers of a shorter dtype, if any."""
    if matmul_precision is None:
        return nullcontext
    to = getattr(torch, matmul_precision)
    return lambda: torch.autocast("cpu", dtype=to)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function as ``torch.compile`` has it fastest: for each number of rows by itself."""
    found: Callable[..., Any] = torch.compile(function, dynamic=False, options=COMPILING)
    return found


class TorchEager:
    """``torch.nn`` and ``torch.optim``, operation by operation.

    Products in bfloat16 are those of ``torch.autocast``.
    """

    def __init__(self, case: Case, X: Array, y: Array, parameters: Parameters) -> None:
        torch.set_num_threads(case.threads)
        torch.set_flush_denormal(True)  # what optimisers remember decays to such, which are slow
        self.case = case
        self.rounding = rounding_to(case.matmul_precision)
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
        self.initial = copy.deepcopy(self.model.state_dict())

    def reset(self) -> None:
        self.model.load_state_dict(self.initial)
        self.optimizer.state.clear()

    def logits(self, x: Any) -> Any:
        with self.rounding():
            return self.model(x if x.is_floating_point() else x.to(self.dtype) * (1 / 255))

    def step(self, x: Any, y: Any) -> Any:
        self.optimizer.zero_grad()
        with self.rounding():
            loss = torch.nn.functional.cross_entropy(self.logits(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def train(self) -> float:
        return float(torch.stack([self.step(x, y) for x, y in self.batches]).mean())

    def fit(self) -> float:
        for _ in range(self.case.epochs - 1):
            for x, y in self.batches:
                self.step(x, y)
        return self.train()

    def first_steps(self, count: int) -> Parameters:
        self.reset()
        for x, y in self.batches[:count]:
            self.step(x, y)
        return [
            (layer.weight.detach().numpy().T, layer.bias.detach().numpy())
            for kind in (torch.nn.Linear, torch.nn.BatchNorm1d)
            for layer in self.model
            if isinstance(layer, kind)
        ]

    def predict(self, rows: int) -> Array:
        with torch.inference_mode():
            found = [self.logits(x).argmax(1) for x in self.X.split(rows)]
            classes: Array = torch.cat(found).numpy()
        return classes

    def answer(self, row: Array) -> Array:
        with torch.inference_mode():
            classes: Array = self.logits(torch.from_numpy(row)).argmax(1).numpy()
        return classes

    def first_layer(self) -> Callable[[Any], Any]:
        """Return the first layer, as it is fastest."""
        layer: Callable[[Any], Any] = self.model[0]
        return layer

    def dense(self, X: Array) -> Callable[[], Array]:
        x, layer = torch.from_numpy(X), self.first_layer()

        def forward() -> Array:
            with torch.inference_mode():
                output: Array = layer(x).numpy()
            return output

        return forward


class TorchCompiled(TorchEager):
    """The whole step, update included, as one function under ``torch.compile``.

    Compiling the loss alone and leaving the optimizer eager is slower.
    """

    def __init__(self, case: Case, X: Array, y: Array, parameters: Parameters) -> None:
        super().__init__(case, X, y, parameters)
        # numbers are compiled in, objects would be looked at in each step
        model, dtype, rounding = self.model, self.dtype, self.rounding
        weights = {name: value.detach() for name, value in model.named_parameters()}
        statistics = dict(model.named_buffers())
        update, self.memory = _rule(case, weights)

        def mean_loss(weights: dict[str, Any], x: Any, y: Any) -> Any:
            x = x if x.is_floating_point() else x.to(dtype) * (1 / 255)
            running = {name: value.clone() for name, value in statistics.items()}
            with rounding():
                logits = torch.func.functional_call(model, (weights, running), (x,))
                return torch.nn.functional.cross_entropy(logits, y), running

        def step(x: Any, y: Any) -> Any:
            of_weights = torch.func.grad_and_value(mean_loss, has_aux=True)
            gradients, (loss, running) = of_weights(weights, x, y)
            for name, value in statistics.items():
                value.copy_(running[name])
            update(gradients)
            return loss

        self.step = compiled(step)  # type: ignore[method-assign]
        self.logits = compiled(self.logits)  # type: ignore[method-assign]

    def reset(self) -> None:
        super().reset()
        for remembered in self.memory:
            remembered.zero_()

    def train(self) -> float:
        with torch.no_grad():
            return super().train()

    def fit(self) -> float:
        with torch.no_grad():
            return super().fit()

    def first_steps(self, count: int) -> Parameters:
        with torch.no_grad():
            return super().first_steps(count)

    def first_layer(self) -> Callable[[Any], Any]:
        return compiled(self.model[0])


def _rule(
    case: Case, weights: dict[str, Any]
) -> tuple[Callable[[dict[str, Any]], None], Sequence[Any]]:
    """Return an optimiser's step in place, and all that it remembers, which is zero at first."""
    rate = case.learning_rate

    def zeros() -> dict[str, Any]:
        return {name: torch.zeros_like(value) for name, value in weights.items()}

    def plain(gradients: dict[str, Any]) -> None:
        for name, value in weights.items():
            value.sub_(gradients[name], alpha=rate)

    if case.variant == "momentum":
        velocities = zeros()

        def with_momentum(gradients: dict[str, Any]) -> None:
            for name, value in weights.items():
                # with the rate in it, which is compiled to less than a rate for each step
                value.add_(velocities[name].mul_(MOMENTUM).sub_(gradients[name], alpha=rate))

        return with_momentum, list(velocities.values())
    if case.variant == "adam":
        means, squares = zeros(), zeros()
        # a number would be compiled in; in float64 a tensor without dimensions is always read as 0,
        # in float32 it is faster than one with
        shape = [1] if case.dtype == "float64" else []
        taken = torch.zeros(shape, dtype=getattr(torch, case.dtype))

        def by_adam(gradients: dict[str, Any]) -> None:
            taken.add_(1)
            corrected, root = rate / (1 - BETA1**taken), (1 - BETA2**taken).rsqrt()
            for name, value in weights.items():
                gradient = gradients[name]
                mean = means[name].mul_(BETA1).add_(gradient, alpha=1 - BETA1)
                square = squares[name].mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
                value.sub_(corrected * mean / (square.sqrt() * root + ADAM_EPSILON))

        return by_adam, [taken, *means.values(), *squares.values()]
    return plain, []
