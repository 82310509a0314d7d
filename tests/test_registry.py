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
    assert optimizers.BUILT_IN.has_class(optimizers.SGD)
    assert not optimizers.BUILT_IN.has_class(Twin)


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


def test_a_class_that_overrides_what_its_description_is_of_is_refused():
    """It would be compiled as the class that describes it, and what it overrides ignored."""

    class Half(optimizers.SGD):
        def step(self, backend, parameters, gradient, state, step):
            parameters -= 0.5 * gradient

    class Shifted(layers.ReLU):
        def forward(self, input):
            return super().forward(input - 1)

    class Squared(Shifted):
        pass

    for registry, kind, method in (
        (optimizers.BUILT_IN, Half, "step of SGD"),
        (layers.BUILT_IN, Shifted, "forward of Elementwise"),
        (layers.BUILT_IN, Squared, "forward of Elementwise"),
    ):
        with pytest.raises(TypeError, match=f"of its own, as it overrides {method}, got none"):
            registry.register(kind)
        assert kind not in list(registry)


def test_a_name_is_taken_once():
    class Twin(layers.ReLU):
        pass

    Twin.__name__ = "ReLU"
    with pytest.raises(ValueError, match="ReLU: expected a name that no other class has"):
        layers.BUILT_IN.register(Twin)
    assert layers.BUILT_IN["ReLU"] is layers.ReLU
    assert layers.BUILT_IN.register(layers.ReLU) is layers.ReLU  # again, as a reload does


def test_an_object_with_a_method_replaced_is_not_known():
    optimizer, layer = optimizers.Adam(), layers.Dense(2, 2)
    optimizer.learning_rate = lambda step: 0.1  # a value, of a property
    assert optimizer in optimizers.BUILT_IN
    assert layer in layers.BUILT_IN
    optimizer.rate = lambda step: 0.1
    layer.backward = lambda input, grad_output: grad_output
    assert optimizer not in optimizers.BUILT_IN
    assert layer not in layers.BUILT_IN


def test_a_class_with_methods_missing_is_refused():
    class Hinge(losses.Loss):
        name = "hinge"

        def has_classes(self, targets, outputs):
            return True

    with pytest.raises(TypeError, match="Hinge: expected the methods gradient, targets, total"):
        losses.BUILT_IN.register(Hinge)
    with pytest.raises(
        ValueError, match=r"expected 'softmax_cross_entropy', .*'mse', .* or a function"
    ):
        losses.chosen("hinge")
