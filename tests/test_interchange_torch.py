"""Networks and modules of PyTorch: the same outputs, and the same step of training."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
from conftest import perceptron
from elementwise import ROWS
from safetensors.numpy import load_file, save_file

import fastnn
from fastnn import BatchNorm, Dense, Dropout, Network, ReLU, Rescaling

torch = pytest.importorskip("torch")
nn = torch.nn
prune = pytest.importorskip("torch.nn.utils.prune")

KNOWN = [row for row in ROWS if row.torch and row.layer._elsewhere.torch]


def outputs(module: nn.Module, X: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(X)).numpy()


def tolerance(dtype) -> dict[str, float]:
    """Of sums of a few dozen terms of about 1, one after the other in a few layers."""
    return dict.fromkeys(("rtol", "atol"), 200 * np.finfo(dtype).eps)


def of_dtype(dtype):
    return getattr(torch, np.dtype(dtype).name)


@pytest.fixture
def module(dtype):
    """Everything that a module can have, in nested ones."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Linear(20, 13), nn.BatchNorm1d(13, eps=1e-3, momentum=0.2))
    last = [nn.Linear(13, 7, bias=False), nn.LeakyReLU(0.2), nn.Linear(7, 3)]
    made = nn.Sequential(nn.Flatten(), first, nn.Tanh(), nn.Dropout(0.0), nn.Identity(), *last)
    norm = first[1]
    for values, low in ((norm.weight, 0.5), (norm.bias, -1), (norm.running_var, 0.5)):
        nn.init.uniform_(values, low, 2)
    return made.to(of_dtype(dtype)).eval()


@pytest.mark.parametrize("row", KNOWN, ids=lambda row: row.torch)
def test_each_function_both_ways(row, dtype):
    theirs = eval(f"nn.{row.torch}", {"nn": nn})
    ours = fastnn.from_torch(nn.Sequential(theirs), dtype=dtype)
    assert repr(list(ours)) == repr([row.layer])
    X = np.linspace(-30, 30, 303).astype(dtype).reshape(-1, 3)
    bound = 20 * np.finfo(dtype).eps
    back = ours.to_torch()
    np.testing.assert_allclose(outputs(back, X), ours(X), rtol=bound, atol=bound)
    assert repr(fastnn.from_torch(back)[0]) == repr(row.layer)


def test_outputs(module, backend, dtype, rng):
    network = fastnn.from_torch(module, backend=backend)
    assert (network.dtype, network.backend) == (dtype, backend)
    assert [type(layer).__name__ for layer in network] == [
        "Dense", "BatchNorm", "Tanh", "Dropout", "Dense", "LeakyReLU", "Dense"
    ]  # fmt: skip
    assert (network[1].momentum, network[1].epsilon) == (0.8, 1e-3)
    X = rng.standard_normal((33, 20)).astype(dtype)
    np.testing.assert_allclose(network(X), outputs(module, X), **tolerance(dtype))


def test_a_step_of_training(module, backend, dtype, rng):
    network = fastnn.from_torch(module, optimizer=fastnn.SGD(0.1), backend=backend)
    X, y = rng.standard_normal((33, 20)).astype(dtype), rng.integers(0, 3, 33)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    loss = nn.CrossEntropyLoss()(module.train()(torch.from_numpy(X)), torch.from_numpy(y))
    loss.backward()
    optimizer.step()
    before = network[1].running_variance.copy()
    np.testing.assert_allclose(network.train_step(X, y), loss.item(), **tolerance(dtype))
    expected = fastnn.from_torch(module)
    # PyTorch's variance is of n - 1, and its Linear without biases has none that move
    enters = network[1].running_variance - 0.8 * before
    network[1].running_variance = 0.8 * before + enters * 33 / 32
    assert np.abs(network[4].biases).max() > 1e-3
    network[4].biases = expected[4].biases
    for ours, theirs in zip(network.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, **tolerance(dtype))


LOSSES = {
    "softmax_cross_entropy": nn.CrossEntropyLoss(),
    "mse": nn.MSELoss(),
    # a sum over outputs, where that of PyTorch is a mean
    "binary_cross_entropy": lambda output, y: 3 * nn.BCEWithLogitsLoss()(output, y),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_by_each_loss(loss, dtype, rng):
    X = rng.standard_normal((33, 20)).astype(dtype)
    y = rng.integers(0, 2, (33, 3)).astype(dtype)
    if loss == "softmax_cross_entropy":
        y = y.argmax(axis=1)
    network = perceptron(20, 7, 3, loss=loss, dtype=dtype, seed=0)
    module = network.to_torch().train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    expected = LOSSES[loss](module(torch.from_numpy(X)), torch.from_numpy(y))
    expected.backward()
    optimizer.step()
    np.testing.assert_allclose(network.train_step(X, y), expected.item(), **tolerance(dtype))
    for ours, theirs in zip(
        network.get_weights(), fastnn.from_torch(module).get_weights(), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, **tolerance(dtype))


def test_there_and_back(backend, dtype, rng, digits):
    X, y, *_ = digits
    layers = [Rescaling(1 / 255), Dense(784, 20), BatchNorm(20), fastnn.SiLU(), Dropout(0.3)]
    network = Network([*layers, Dense(20, 10)], dtype=dtype, backend=backend, seed=0)
    network.fit(X[:500], y[:500])
    before = torch.get_rng_state()
    module = network.to_torch()
    assert torch.equal(torch.get_rng_state(), before)
    assert not module.training
    assert {value.dtype for value in module.parameters()} == {of_dtype(dtype)}
    assert all(value.requires_grad for value in module.parameters())
    pixels = X[:200].astype(dtype)
    expected = network(pixels)
    np.testing.assert_allclose(outputs(module, pixels), expected, **tolerance(dtype))
    back = fastnn.from_torch(module, backend=backend)
    assert [type(layer) for layer in back] == [type(layer) for layer in network]
    assert (module[2].momentum, back[2].momentum) == (0.1, 0.9)
    np.testing.assert_array_equal(back(pixels), expected)
    # copies: training one leaves the other as it is
    network.train_step(X[:32], y[:32])
    np.testing.assert_array_equal(back(pixels), expected)


class Net(nn.Module):
    """As many users write one: modules by name, functions in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(20, 7)
        self.norm = nn.BatchNorm1d(7)
        self.fc2 = nn.Linear(7, 3)

    def forward(self, x):
        return self.fc2(torch.relu(self.norm(self.fc1(x))))


def test_the_state_dict_of_any_module(dtype, rng):
    module = Net().to(of_dtype(dtype)).eval()
    network = Network([Dense(20, 7), BatchNorm(7), ReLU(), Dense(7, 3)], dtype=dtype)
    network.load_state_dict(module.state_dict())
    X = rng.standard_normal((33, 20)).astype(dtype)
    np.testing.assert_allclose(network(X), outputs(module, X), **tolerance(dtype))
    network.load_state_dict(copy.deepcopy(module).to(torch.bfloat16).state_dict())
    np.testing.assert_allclose(network(X), outputs(module, X), atol=0.05)


def test_the_numbers_of_modules_that_a_file_has_sorted_as_text(tmp_path, rng):
    network = perceptron(*[5] * 8, seed=0)  # whose last is 12
    module = network.to_torch()
    state = {f"net.{name}": value.numpy() for name, value in module.state_dict().items()}
    save_file(dict(sorted(state.items())), tmp_path / "module.safetensors")
    read = load_file(tmp_path / "module.safetensors")
    other = perceptron(*[5] * 8, seed=1)
    other.load_state_dict(read)
    X = rng.standard_normal((9, 5)).astype(np.float32)
    np.testing.assert_array_equal(other(X), network(X))


def test_names_of_modules_that_a_file_has_sorted_as_text(rng):
    module = perceptron(*[5] * 12, seed=0).to_torch()
    linear = [part for part in module if isinstance(part, nn.Linear)]
    nested = nn.Sequential(nn.Sequential(*linear[:4]), *linear[4:])
    by_name = nn.ModuleDict({f"fc{i}": part for i, part in enumerate(linear, 1)})
    for net in (nested, by_name, nn.ModuleDict({"body": by_name})):
        for state in (net.state_dict(), dict(sorted(net.state_dict().items()))):
            network = perceptron(*[5] * 12, seed=1)
            network.load_state_dict(state)
            for ours, theirs in zip(network[::2], linear, strict=True):
                np.testing.assert_array_equal(ours.weights, theirs.weight.detach().numpy().T)


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


class Plain(nn.Sequential):
    """A Sequential by another name."""


def test_what_computes_something_else_is_refused(rng):
    def refused(module, message):
        with pytest.raises(TypeError, match=message):
            fastnn.from_torch(module)

    def one():
        return nn.Linear(3, 3)

    own = "with one of its own; load_state_dict of a network"
    refused(Residual(one()), f"module: expected the forward of Sequential, got Residual {own}")
    refused(nn.Sequential(Residual(one())), f"module, 0: expected the forward of .* {own}")
    changed = nn.Sequential(one())
    changed[0].forward = torch.relu
    refused(changed, f"module, 0: expected the forward of Linear, got Linear {own}")
    for register in ("register_forward_hook", "register_forward_pre_hook"):
        hooked = nn.Sequential(one(), nn.ReLU())
        handle = getattr(hooked[1], register)(lambda *_: None)
        refused(hooked, "module, 1: expected ReLU without forward hooks.*remove")
        handle.remove()
        assert len(fastnn.from_torch(hooked)) == 2
        handle = getattr(hooked, register)(lambda *_: None)
        refused(hooked, "module: expected Sequential without forward hooks")
    assert len(fastnn.from_torch(Plain(one(), Plain(nn.ReLU())))) == 2


def test_parameters_computed_of_others(rng):
    X = rng.standard_normal((7, 3)).astype(np.float32)
    utils = nn.utils
    cases = [
        (utils.parametrizations.weight_norm, "remove_parametrizations", lambda part:
            utils.parametrize.remove_parametrizations(part, "weight")),
        (utils.spectral_norm, "remove_spectral_norm", utils.remove_spectral_norm),
        (lambda part: prune.l1_unstructured(part, "weight", amount=3), "prune.remove",
            lambda part: prune.remove(part, "weight")),
    ]  # fmt: skip
    for change, message, change_back in cases:
        module = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).eval()
        change(module[0])
        with pytest.raises(TypeError, match=f"(?s)module, 0: .*{message}"):
            fastnn.from_torch(module)
        change_back(module[0])
        network = fastnn.from_torch(module)
        np.testing.assert_allclose(network(X), outputs(module, X), **tolerance(np.float32))


@pytest.mark.filterwarnings("ignore:.*[Ll]azy")
def test_lazy_modules(rng):
    module = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.ReLU())
    with pytest.raises(TypeError, match=r"module, 0: .*LazyLinear.*; give the module a batch"):
        fastnn.from_torch(module)
    X = rng.standard_normal((7, 3)).astype(np.float32)
    module(torch.from_numpy(X))
    module.eval()
    network = fastnn.from_torch(module)
    np.testing.assert_allclose(network(X), outputs(module, X), **tolerance(np.float32))


def test_a_state_dict_into_a_network_with_a_layer_of_ones_own(rng):
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    network = Network([Dense(4, 3), fastnn.Activation(np.sin, np.cos), Dense(3, 2)])
    network.load_state_dict(module.state_dict())
    np.testing.assert_array_equal(network[0].weights, module[0].weight.detach().numpy().T)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("2.weight"),
            "state_dict, 2: expected weight, bias for Dense.*got bias",
        ),
        (lambda state: state.update({"2.scale": 1}), "got weight, bias, scale"),
        (lambda state: state.update({"5.weight": 1}), "of 2 layers, got those of 3: '0', '2', '5'"),
        (
            lambda state: state.update({"2.weight": torch.ones(4, 5)}),
            r"2\.weight: expected shape \(3, 7\), got \(4, 5\)",
        ),
    ],
)
def test_state_dicts_of_another_shape(change, message):
    network = perceptron(20, 7, 3, seed=0)
    before = network.get_weights()
    state = dict(perceptron(20, 7, 3, seed=1).to_torch().state_dict())
    change(state)
    with pytest.raises(ValueError, match=message):
        network.load_state_dict(state)
    for ours, theirs in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: nn.Linear(4, 3, device="meta"),
            ValueError,
            "weight: expected a tensor with values",
        ),
        (lambda: nn.LazyLinear(3), ValueError, "weight: expected a tensor with values"),
        (
            lambda: nn.Linear(4, 3, dtype=torch.complex64),
            TypeError,
            "real numbers, got .*complex64",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*[Ll]azy")
def test_tensors_that_are_no_numbers(make, error, message):
    with pytest.raises(error, match=message):
        perceptron(4, 3).load_state_dict(make().state_dict())


def test_no_state_dict():
    with pytest.raises(TypeError, match="state_dict: expected a mapping, got Sequential"):
        perceptron(4, 3).load_state_dict(nn.Sequential(nn.Linear(4, 3)))
    with pytest.raises(TypeError, match="state_dict: expected names, got 0"):
        perceptron(4, 3).load_state_dict({0: np.ones((3, 4))})


SHARED = nn.Linear(3, 3)


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        (Net(), TypeError, "module: expected a torch.nn.Sequential, got Net; load_state_dict"),
        (nn.Sequential(nn.Conv2d(1, 2, 3)), TypeError, r"module, 0: expected .*, got Conv2d"),
        (nn.Sequential(nn.Sequential(nn.ReLU6())), TypeError, r"module, 0\.0: .* got ReLU6"),
        (nn.Sequential(nn.LogSoftmax(1)), TypeError, "LogSoftmax.*; leave it out"),
        (nn.Sequential(nn.GELU(approximate="tanh")), ValueError, "approximate='none', got .*tanh"),
        (nn.Sequential(nn.Softplus(2)), ValueError, "beta=1, got beta=2"),
        (nn.Sequential(nn.Softplus(1, 5)), ValueError, "threshold of at least 20, got 5"),
        (nn.Sequential(nn.Flatten(0)), ValueError, "start_dim=1, got start_dim=0"),
        (nn.Sequential(nn.BatchNorm1d(3, affine=False)), ValueError, "affine=True"),
        (nn.Sequential(nn.BatchNorm1d(3, momentum=None)), ValueError, "momentum, got None"),
        (
            nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)),
            ValueError,
            "track_running_stats=True",
        ),
        (nn.Sequential(nn.Dropout(1.0)), ValueError, "module, 0, p: .* below 1, got 1.0"),
        (nn.Sequential(nn.BatchNorm1d(3, eps=0)), ValueError, "module, 0, epsilon: .* positive"),
        (nn.Sequential(nn.Linear(3, 3, device="meta")), ValueError, "with values, got .* meta"),
        (nn.Sequential(nn.Softmax(1)), TypeError, "Softmax.*; leave it out"),
        (nn.Sequential(nn.Linear(3, 3).bfloat16()), TypeError, r"bfloat16; module\.float\(\)"),
        (nn.Sequential(nn.Linear(3, 3).half()), TypeError, "float64, got torch.float16"),
        (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3).double()), TypeError, "float32, torch.flo"),
        (nn.Sequential(SHARED, nn.ReLU(), SHARED), ValueError, "its own for each layer"),
        (
            nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 2)),
            ValueError,
            "module, 1: expected 4 inputs",
        ),
    ],
)
def test_modules_that_are_refused(module, error, message):
    with pytest.raises(error, match=message):
        fastnn.from_torch(module)


def test_a_module_that_stands_in_two_places(rng):
    relu = nn.ReLU()
    module = nn.Sequential(nn.Linear(4, 3), relu, nn.Linear(3, 3), relu)
    assert len(fastnn.from_torch(module)) == 4


def test_a_layer_of_a_users():
    network = Network([Dense(4, 3), fastnn.Activation(np.sin, np.cos)])
    with pytest.raises(TypeError, match=r"Activation\(sin, cos\) into a PyTorch module: it is not"):
        network.to_torch()
    with pytest.raises(ValueError, match="no layer yet"):
        Network().to_torch()


def test_without_pytorch(monkeypatch):
    monkeypatch.delitem(sys.modules, "fastnn.interchange.torch", raising=False)
    monkeypatch.delattr("fastnn.interchange.torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="pip install torch"):
        Network([Dense(4, 3)]).to_torch()
