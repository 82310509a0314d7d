"""State dicts of PyTorch as arrays by name: PyTorch itself is not needed to read them."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import BatchNorm, Dense, Network, ReLU
from fastnn.interchange import state_dict as reading


def test_arrays_mean_what_they_mean_in_pytorch(rng, backend):
    """Weights are [outputs, inputs] there; batch norm has weight, bias and running statistics."""
    state = {
        "0.weight": rng.normal(size=(4, 3)),
        "0.bias": rng.normal(size=4),
        "1.weight": rng.normal(size=4),
        "1.bias": rng.normal(size=4),
        "1.running_mean": rng.normal(size=4),
        "1.running_var": rng.exponential(size=4),
        "1.num_batches_tracked": np.array(7),
        "3.weight": rng.normal(size=(2, 4)),
    }
    layers = [Dense(3, 4), BatchNorm(4, epsilon=1e-3), ReLU(), Dense(4, 2)]
    network = Network(layers, dtype=np.float64, backend=backend)
    network.load_state_dict(state)
    X = rng.normal(size=(5, 3))
    hidden = X @ state["0.weight"].T + state["0.bias"]
    deviation = np.sqrt(state["1.running_var"] + 1e-3)
    hidden = (hidden - state["1.running_mean"]) / deviation * state["1.weight"] + state["1.bias"]
    expected = np.maximum(hidden, 0) @ state["3.weight"].T  # a bias that is lacking is 0
    np.testing.assert_allclose(network(X), expected, rtol=1e-12, atol=1e-12)
    for layer, kind, number in ((network[0], "dense", 0), (network[1], "batch_norm", 1)):
        for name, array in reading.of_layer(layer, kind).items():
            np.testing.assert_array_equal(array, state[f"{number}.{name}"])


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("0.weight", np.zeros((3, 2)), r"0\.weight: expected shape \(2, 3\), got \(3, 2\)"),
        ("0.scale", np.zeros(2), "expected weight, bias for Dense.*, got weight, bias, scale"),
        ("1.weight", np.zeros((2, 2)), "expected parameters of 1 layers, got those of 2"),
    ],
)
def test_what_does_not_fit_changes_nothing(name, array, message):
    network = Network([Dense(3, 2)], seed=0)
    before = network.get_weights()
    state = {"0.weight": np.zeros((2, 3)), "0.bias": np.zeros(2), name: array}
    with pytest.raises(ValueError, match=message):
        network.load_state_dict(state)
    assert all(map(np.array_equal, before, network.get_weights()))
