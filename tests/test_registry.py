"""fastnn's own classes, by name."""

from __future__ import annotations

import pytest

from fastnn import layers, losses, optimizers


def test_names_and_exact_classes():
    class Twin(optimizers.SGD):
        pass

    assert optimizers.SGD(0.1) in optimizers.BUILT_IN
    assert Twin(0.1) not in optimizers.BUILT_IN
    Twin.__name__ = "SGD"
    assert Twin(0.1) not in optimizers.BUILT_IN
    assert optimizers.BUILT_IN["SGD"] is optimizers.SGD


def test_a_class_that_does_not_describe_itself_is_refused():
    """The base's description would have it compiled as the identity, or as plain SGD."""

    class Square(layers.Layer):
        def forward(self, input):
            return input**2

    class Sign(optimizers.Optimizer):
        def step(self, backend, parameters, gradient, state, step):
            pass

    class Hinge(losses.UserLoss):
        pass

    for registry, kind, attribute in (
        (layers.BUILT_IN, Square, "_describe"),
        (optimizers.BUILT_IN, Sign, "_rule"),
        (losses.BUILT_IN, Hinge, "name"),
    ):
        with pytest.raises(TypeError, match=f"{kind.__name__}: expected a {attribute} of its own"):
            registry.register(kind)
        assert kind not in list(registry)


def test_a_class_with_methods_missing_is_refused():
    class Hinge(losses.Loss):
        name = "hinge"

        def has_classes(self, targets, outputs):
            return True

    with pytest.raises(TypeError, match="Hinge: expected the methods gradient, targets, total"):
        losses.BUILT_IN.register(Hinge)
    with pytest.raises(ValueError, match="expected 'softmax_cross_entropy', 'mse' or a function"):
        losses.chosen("hinge")
