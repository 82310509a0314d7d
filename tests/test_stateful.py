"""A network built, trained, saved, copied and changed in any order, on both backends side by side.

Hypothesis chooses what is done, and makes a life that goes wrong as short as it can be.
`pytest tests/test_stateful.py --hypothesis-profile=long` goes on for longer, by other chances.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import random_networks
import rounding
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from lives import KINDS, LAYOUTS, Counts, Data, Difference, Lives, Plan, Step, compare
from random_networks import ELEMENTWISE, LOSSES, OPTIMIZERS, schedules_of

widths = st.integers(1, 40)
rates = st.sampled_from([0.0, 1e-3, 0.03, 0.2])
schedules = rates.flatmap(lambda rate: st.sampled_from([rate, *schedules_of(rate)]))


def optimizer(name: str, choices: dict[str, tuple]):
    """Return a strategy for what makes an optimiser."""
    arguments = {key: st.sampled_from(values) for key, values in choices.items()}
    return st.fixed_dictionaries({"learning_rate": schedules, **arguments}).map(
        lambda keywords: (name, (), keywords)
    )


optimizers = st.one_of([optimizer(name, choices) for name, choices in OPTIMIZERS])
elementwise = st.sampled_from(
    [(name, constants, {}) for name, choices in ELEMENTWISE for constants in choices]
)


def dense(inputs: int, outputs: int):
    """Return a strategy for a dense layer."""
    return st.fixed_dictionaries(
        {"optimizer": optimizers, "l2": st.sampled_from([0.0, 0.01]), "biases": st.just("some")}
    ).map(lambda keywords: ("Dense", (inputs, outputs), keywords))


def between(width: int):
    """Return a strategy for a layer that keeps the width."""
    batch_norm = st.fixed_dictionaries(
        {
            "optimizer": optimizers,
            "momentum": st.sampled_from([0.0, 0.9, 1.0]),
            "epsilon": st.sampled_from([1e-8, 1e-5, 1.0]),
        }
    ).map(lambda keywords: ("BatchNorm", (width,), keywords))
    dropout = st.sampled_from([0.0, 0.1, 0.5]).map(lambda p: ("Dropout", (p,), {"seed": 3}))
    return st.one_of(elementwise, batch_norm, dropout)


@st.composite
def plans(draw) -> Plan:
    """Draw a network."""
    width, layers = draw(widths), []
    for _ in range(draw(st.integers(1, 3))):
        layers += draw(st.lists(between(width), max_size=2))
        after = draw(widths)
        layers.append(draw(dense(width, after)))
        width = after
    loss = draw(st.sampled_from(list(LOSSES)))
    smoothing = draw(st.sampled_from([0.0, 0.1])) if loss.endswith("cross_entropy") else 0.0
    return Plan(
        tuple(layers),
        loss,
        smoothing,
        draw(st.none() | optimizers),
        draw(st.sampled_from([None, 0.1, 10.0])),
        draw(st.sampled_from(["float32", "float64"])),
        draw(st.integers(0, 9)),
    )


class Network(RuleBasedStateMachine):
    """What can be done to a network."""

    counts = Counts()

    def __init__(self) -> None:
        super().__init__()
        self.resources = ExitStack()
        self.backend = self.resources.enter_context(rounding.installed())
        self.folder = Path(self.resources.enter_context(tempfile.TemporaryDirectory()))

    def teardown(self) -> None:
        self.resources.close()

    @initialize(plan=plans())
    def build(self, plan: Plan) -> None:
        self.lives = Lives(plan, self.backend, self.folder, self.counts)

    def do(self, action: str, **arguments: Any) -> None:
        if not self.lives.do(Step(action, arguments)):
            self.build(self.lives.plan)  # of infinite numbers nothing can be compared

    def data(self, draw) -> Data:
        plan = self.lives.plan
        return Data(
            draw(st.integers(0, 99)),
            draw(st.integers(1, 40)),
            *random_networks.widths(plan),
            kind=draw(st.sampled_from(list(KINDS))),
            layout=draw(st.sampled_from(list(LAYOUTS))),
            targets=draw(st.sampled_from(LOSSES[plan.loss])),
            weights=draw(st.sampled_from([None, "some", "zeros"])),
        )

    def training(self, draw) -> dict[str, Any]:
        data = self.data(draw)
        options = {"data": data, "batch_size": draw(st.integers(1, data.samples + 1))}
        options["batch_size"] = max(options["batch_size"], data.samples // 8)
        if options["batch_size"] <= data.samples:
            options["drop_last"] = draw(st.booleans())
        return options | {"shuffle": draw(st.booleans())}

    @rule(data=st.data(), epochs=st.integers(1, 3), threads=st.integers(1, 2))
    def fit(self, data, epochs, threads):
        self.do("fit", **self.training(data.draw), epochs=epochs, threads=threads)

    @rule(data=st.data(), size=st.integers(1, 20))
    def fit_blocks(self, data, size):
        self.do("fit_blocks", **self.training(data.draw), size=size)

    @rule(data=st.data(), stop=st.integers(1, 2), every=st.sampled_from([None, 1, 2]))
    def resume(self, data, stop, every):
        self.do("resume", **self.training(data.draw), epochs=3, stop=stop, every=every)

    @rule(data=st.data())
    def train_step(self, data):
        self.do("train_step", data=self.data(data.draw))

    @rule(data=st.data())
    def gradients(self, data):
        self.do("gradients", data=self.data(data.draw))

    @rule(data=st.data())
    def evaluate(self, data):
        self.do("evaluate", data=self.data(data.draw))

    @rule(data=st.data())
    def predict(self, data):
        self.do("predict", data=self.data(data.draw))

    @rule(other_backend=st.booleans())
    def save(self, other_backend):
        self.do("save", other_backend=other_backend)

    @rule(action=st.sampled_from(["pickle", "copy"]))
    def duplicate(self, action):
        self.do(action)

    @rule(factor=st.sampled_from([0.0, 0.5, 2.0]), layer=st.sampled_from([None, 0, 1]))
    def rate(self, factor, layer):
        self.do("rate", factor=factor, layer=layer)

    @rule(spec=optimizers)
    def optimizer(self, spec):
        self.do("optimizer", spec=spec)

    @rule(value=st.sampled_from([None, 0.1, 1.0]))
    def clip_norm(self, value):
        self.do("clip_norm", value=value)

    @rule(data=st.data())
    def add(self, data):
        _, width = random_networks.widths(self.lives.plan)
        self.do("add", spec=data.draw(between(width) | dense(width, width)))

    @rule(factor=st.sampled_from([0.5, 1.0]))
    def set_weights(self, factor):
        self.do("set_weights", factor=factor)


def test_any_order():
    Network.counts = Counts()
    run_state_machine_as_test(Network)
    counts = Network.counts
    assert counts.actions.keys() == random_networks.STEPS.keys()
    assert sum(counts.refused.values()) < 0.05 * counts.steps


def test_what_is_wrong_is_seen(monkeypatch):
    """The comparison notices an equation that is off by one part in a thousand."""
    equation = rounding.exact.sgd_step

    def too_fast(parameters, gradient, rate):
        equation(parameters, gradient, 1.001 * rate)

    monkeypatch.setattr(rounding.exact, "sgd_step", too_fast)
    plan = Plan((("Dense", (3, 2), {}),))
    data = Data(0, 5, 3, 2)
    with pytest.raises(Difference, match=r"weights: .* where rounding explains"):
        compare(plan, [Step("fit", {"data": data})])
