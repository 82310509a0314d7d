"""Networks drawn at random, and lives for them: `plan(rng)` and `steps(rng, plan)`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from lives import KINDS, LAYOUTS, Data, Plan, Spec, Step

ELEMENTWISE: tuple[tuple[str, tuple[tuple, ...]], ...] = (
    ("ReLU", ((),)),
    ("Sigmoid", ((),)),
    ("Tanh", ((),)),
    ("LeakyReLU", ((), (0.25,), (-0.5,), (1.5,))),
    ("ELU", ((), (0.5,), (2.0,))),
    ("SELU", ((),)),
    ("SiLU", ((),)),
    ("GELU", ((),)),
    ("Softplus", ((),)),
    ("Mish", ((),)),
    ("Rescaling", ((0.5,), (-1.25,), (1 / 255,), (0.0,))),
)

SHARES_OF_ADAM = {"beta1": (0.0, 0.9), "beta2": (0.9, 0.999), "epsilon": (1e-8, 1e-3)}

OPTIMIZERS: tuple[tuple[str, dict[str, tuple]], ...] = (
    ("SGD", {}),
    ("SGD", {"momentum": (0.5, 0.9), "nesterov": (False, True)}),
    ("RMSprop", {"rho": (0.0, 0.9), "epsilon": (1e-8, 1e-3)}),
    ("Adam", SHARES_OF_ADAM),
    ("EpsilonHatAdam", SHARES_OF_ADAM),
    ("AdamW", {**SHARES_OF_ADAM, "weight_decay": (0.0, 0.1)}),
)
"""What each may be given beside a learning rate."""

LOSSES = {
    "softmax_cross_entropy": ("ids", "ids", "small ids", "float ids"),
    "binary_cross_entropy": ("yes or no", "shares"),
    "mse": ("ids", "real"),
    "half_squared_error": ("ids", "real"),
    "poisson": ("counts",),
}
"""The targets that each takes."""


def plan(rng: np.random.Generator) -> Plan:
    """Return a network."""
    dtype = _one(rng, ("float32", "float64"))
    common = optimizer(rng) if rng.random() < 0.7 else None
    wide = rng.random() < 0.06  # which threads can share
    width = width_of(rng, wide)
    layers: list[Spec] = []
    if rng.random() < 0.25:
        layers += [between(rng, width, common is None) for _ in range(rng.integers(1, 3))]
    for number in range(rng.integers(1, 4)):
        after = width_of(rng, wide and not number)
        layers.append(dense(rng, width, after, common is None))
        width = after
        layers += [between(rng, width, common is None) for _ in range(rng.integers(0, 4))]
    loss = _one(rng, tuple(LOSSES), (0.45, 0.2, 0.2, 0.05, 0.1))
    while loss == "binary_cross_entropy" and layers[-1][0] == "Sigmoid":
        layers.pop()
    smoothing = 0.0
    if loss.endswith("cross_entropy") and rng.random() < 0.2:
        smoothing = _one(rng, (0.1, 0.5))
    clip_norm = _one(rng, (0.01, 0.5, 10.0)) if rng.random() < 0.2 else None
    seed = int(rng.integers(2**31))
    return Plan(tuple(layers), loss, smoothing, common, clip_norm, dtype, seed)


def width_of(rng: np.random.Generator, wide: bool = False) -> int:
    """Return a width, often beside a multiple of a vector's."""
    if wide:
        return int(rng.integers(128, 161))
    if rng.random() < 0.5:
        return int(rng.integers(1, 13))
    if rng.random() < 0.5:
        return int(_one(rng, (8, 15, 16, 17, 24, 31, 32, 33, 40)))
    return int(rng.integers(13, 41))


def dense(rng: np.random.Generator, inputs: int, outputs: int, own: bool) -> Spec:
    """Return a dense layer, with an optimiser if it is to have one of its own."""
    keywords: dict[str, Any] = {"optimizer": optimizer(rng)} if own else {}
    if rng.random() < 0.3:
        keywords["l2"] = _one(rng, (1e-4, 0.01, 0.1))
    if rng.random() < 0.3:
        keywords["biases"] = "some"
    if rng.random() < 0.05:
        keywords["weights"] = "zeros"
    return "Dense", (inputs, outputs), keywords


def between(rng: np.random.Generator, width: int, own: bool) -> Spec:
    """Return a layer that keeps the width."""
    chance = rng.random()
    if chance < 0.25:
        keywords: dict[str, Any] = {"optimizer": optimizer(rng)} if own else {}
        if rng.random() < 0.5:
            keywords["momentum"] = _one(rng, (0.0, 1.0, 0.5))
        if rng.random() < 0.5:
            keywords["epsilon"] = _one(rng, (1.0, 1e-3, 1e-8, 0.1))
        return "BatchNorm", (width,), keywords
    if chance < 0.4:
        return "Dropout", (_one(rng, (0.0, 0.1, 0.5, 0.9)),), {"seed": int(rng.integers(1000))}
    if chance < 0.41:
        return "Sine", (), {}
    if chance < 0.42:
        return "Layer", (), {}
    name, constants = ELEMENTWISE[rng.integers(len(ELEMENTWISE))]
    return name, constants[rng.integers(len(constants))], {}


def optimizer(rng: np.random.Generator) -> Spec:
    """Return an optimiser."""
    rate = float(10 ** rng.uniform(-3.5, -0.5))
    keywords: dict[str, Any] = {"learning_rate": rate}
    if rng.random() < 0.15:
        keywords["learning_rate"] = _one(rng, schedules_of(rate))
    name, choices = OPTIMIZERS[rng.integers(len(OPTIMIZERS))]
    return name, (), keywords | {key: _one(rng, values) for key, values in choices.items()}


def schedules_of(rate: float) -> tuple[Spec, ...]:
    """Return schedules that begin at a rate, or lead to it."""
    return (
        ("Constant", (rate,), {}),
        ("StepDecay", (rate, 0.5, 2), {}),
        ("CosineDecay", (rate, 7), {}),
        ("WarmUp", (rate, 3), {}),
    )


def widths(plan: Plan) -> tuple[int, int]:
    """Return the widths of a network's input and output."""
    dense = [spec for spec in plan.layers if spec[0] == "Dense"]
    return dense[0][1][0], dense[-1][1][1]


def data(rng: np.random.Generator, plan: Plan, samples: int | None = None) -> Data:
    """Return samples for a network."""
    if samples is None:
        samples = int(_one(rng, (1, 2, 3, 7, 16, 17, 33, 40)))
        if rng.random() < 0.03:
            samples = 150  # more than the layers predict one by one
    return Data(
        int(rng.integers(2**31)),
        samples,
        *widths(plan),
        kind=_one(rng, tuple(KINDS)),
        layout=_one(rng, tuple(LAYOUTS)),
        targets=_one(rng, LOSSES[plan.loss]),
        weights=_one(rng, (None, None, "some", "zeros")),
    )


def training(rng: np.random.Generator, plan: Plan) -> dict[str, Any]:
    """Return samples and options of a fit."""
    of = data(rng, plan)
    batch_size = int(_one(rng, (1, 2, 3, 5, 8, 16, 32, 64)))
    while of.samples > 10 * batch_size:
        batch_size *= 2
    options: dict[str, Any] = {"data": of, "batch_size": batch_size}
    if rng.random() < 0.3:
        options["shuffle"] = False
    if rng.random() < 0.3 and batch_size <= of.samples:
        options["drop_last"] = True
    return options


def fit(rng: np.random.Generator, plan: Plan) -> Step:
    """Return a training."""
    options = training(rng, plan) | {"epochs": int(rng.integers(1, 4))}
    options["threads"] = int(rng.integers(1, 3))
    if rng.random() < 0.3:
        options["train_accuracy"] = True
    if rng.random() < 0.15 and options["data"].samples > 3 and not options.get("drop_last"):
        options["validation_split"] = 0.3
    if rng.random() < 0.1 and options["data"].targets == "ids":
        options["class_weight"] = "balanced"
    return Step("fit", options)


def resume(rng: np.random.Generator, plan: Plan) -> Step:
    """Return a training that is interrupted."""
    options = training(rng, plan) | {"epochs": 3, "stop": int(rng.integers(1, 3))}
    return Step("resume", options | {"every": _one(rng, (None, 2))})


def fit_blocks(rng: np.random.Generator, plan: Plan) -> Step:
    """Return a training on blocks."""
    options = training(rng, plan) | {"size": int(rng.integers(1, 20))}
    return Step("fit_blocks", options)


def added(rng: np.random.Generator, plan: Plan) -> Step:
    """Return one more layer."""
    _, width = widths(plan)
    if rng.random() < 0.5:
        return Step("add", {"spec": dense(rng, width, width, own=True)})
    spec = between(rng, width, own=True)
    return Step("add", {"spec": ("Tanh", (), {}) if spec[0] == "Sigmoid" else spec})


STEPS = {
    "fit": fit,
    "fit_blocks": fit_blocks,
    "resume": resume,
    "train_step": lambda rng, plan: Step("train_step", {"data": data(rng, plan)}),
    "gradients": lambda rng, plan: Step("gradients", {"data": data(rng, plan)}),
    "evaluate": lambda rng, plan: Step("evaluate", {"data": data(rng, plan)}),
    "predict": lambda rng, plan: Step("predict", {"data": data(rng, plan)}),
    "save": lambda rng, plan: Step("save", {"other_backend": bool(rng.random() < 0.5)}),
    "pickle": lambda rng, plan: Step("pickle"),
    "copy": lambda rng, plan: Step("copy"),
    "rate": lambda rng, plan: Step("rate", {"factor": 0.5, "layer": _one(rng, (None, 0, 1))}),
    "optimizer": lambda rng, plan: Step("optimizer", {"spec": optimizer(rng)}),
    "clip_norm": lambda rng, plan: Step("clip_norm", {"value": _one(rng, (None, 0.1))}),
    "add": added,
    "set_weights": lambda rng, plan: Step("set_weights", {"factor": 0.5}),
}

CHANCES = {"fit": 6, "train_step": 3, "predict": 2, "evaluate": 2, "fit_blocks": 1.5}


def steps(rng: np.random.Generator, plan: Plan, count: int | None = None) -> Iterator[Step]:
    """Yield what is to be done to a network."""
    weights = np.array([CHANCES.get(name, 0.7) for name in STEPS])
    for _ in range(int(rng.integers(2, 5)) if count is None else count):
        name = list(STEPS)[rng.choice(len(STEPS), p=weights / weights.sum())]
        yield STEPS[name](rng, plan)


def life(seed: Sequence[int]) -> tuple[Plan, list[Step]]:
    """Return the network of a seed, and what is done to it."""
    rng = np.random.default_rng(seed)
    network = plan(rng)
    return network, list(steps(rng, network))


def _one(rng: np.random.Generator, of: Sequence[Any], chances: Sequence[float] | None = None):
    return of[rng.choice(len(of), p=chances)]
