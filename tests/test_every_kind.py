"""All that is registered is tested: a new layer, loss, optimiser, schedule or initialiser too.

Most tests here go through the registries of the package, so they are about a new class from its
first day on. Where somebody has to write a row, as of formulas that are computed once more, the
list of rows is compared with the registries: `LISTS` says which lists there are, and a class that
is not in one of them fails by the name of both.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable
from typing import Any

import lives
import numpy as np
import pytest
import random_networks
import sums
import test_backends
import test_epoch_optimizers
import test_epoch_stages
import test_initializers
import test_label_smoothing
import test_optimizers
from conftest import ROOT, bits
from rounding import Rounding

import fastnn
from fastnn import (
    Dense,
    Network,
    Tanh,
    backends,
    initializers,
    layers,
    losses,
    optimizers,
    page,
    paths,
    schedules,
)
from fastnn.backends import description, numpy_backend
from fastnn.backends.numba_backend.epoch.losses import LOSSES as COMPILED_LOSSES
from fastnn.backends.numba_backend.kernels.optimizers import RULES
from fastnn.bench.trainings import LAYERS, OPTIMIZERS

LAYER_KINDS, OPTIMIZER_KINDS = list(layers.BUILT_IN), list(optimizers.BUILT_IN)
LOSS_KINDS, SCHEDULE_KINDS = list(losses.BUILT_IN), list(schedules.BUILT_IN)

BY_NAME_ALONE = {"HalfSquaredError", "Poisson", "EpsilonHatAdam"}
"""Registered classes that `fastnn` has no public name for: losses by `loss=`, and one that only
`fastnn.sklearn` makes."""

LAYER_PATH = {"Activation"}
"""Registered classes that the compiled epoch has not."""

OF_FUNCTIONS = {kind.__name__ for kind in LAYER_KINDS if kind._only_python}
"""Those made of a user's functions, which no file holds."""

EXACT = {"prepare", "by_rows", "dropout", "rounded_to_bfloat16"}
"""Operations of which no sum is rounded; `test_elementwise.py` bounds those of each element."""


def named(kinds: Iterable[type]) -> set[str]:
    return {kind.__name__ for kind in kinds}


def operations() -> set[str]:
    members = inspect.getmembers(backends.Backend, inspect.isfunction)
    return {name for name, _ in members if not name.startswith("_")}


class Recorder:
    """The NumPy backend, and which of its operations are asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.asked.add(name)
        return getattr(numpy_backend, name)


def summed() -> set[str]:
    """Return the operations that `sums.py` has a bound for."""
    recorder = Recorder()
    for kernel in sums.KERNELS:
        operands = sums.Operands(np.random.default_rng(0), np.dtype(np.float64), 7, 5, 1.0)
        list(kernel.compute(recorder, operands))
    return recorder.asked


def drawn() -> set[str]:
    """Return what networks at random are made of, but for functions in Python."""
    plans = [random_networks.life([1, number])[0] for number in range(500)]
    return {spec[0] for plan in plans for spec in plan.layers}


def staged() -> set[str]:
    """Return the records of the layers that the compiled epoch is compared with."""
    cases = [test_epoch_stages.Case(4, "dense", 3, stage) for stage in test_epoch_stages.STAGES]
    return {type(layer).__name__ for case in cases for layer in case.layers}


def words(page: str, head: str) -> set[str]:
    """Return the words that a table has within its code; what a page says elsewhere is no row."""
    _, found, below = (ROOT / page).read_text("utf-8").partition(f"\n{head}\n")
    assert found, f"{page} has no table below {head}"
    table, *_ = below.partition("\n\n")
    return set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", table))))


LISTS: dict[str, tuple[Callable[[], set[str]], set[str]]] = {
    "LAYERS of fastnn/bench/trainings.py": (lambda: set(LAYERS), named(LAYER_KINDS)),
    "OPTIMIZERS of fastnn/bench/trainings.py": (
        lambda: {type(make()).__name__ for make in OPTIMIZERS.values()},
        named(OPTIMIZER_KINDS),
    ),
    "OPTIMIZERS of tests/test_optimizers.py": (
        lambda: {type(make()).__name__ for make in test_optimizers.OPTIMIZERS.values()},
        named(OPTIMIZER_KINDS),
    ),
    "RULES of tests/test_epoch_optimizers.py": (
        lambda: {rule.kind for rule in test_epoch_optimizers.RULES.values()},
        set(RULES),
    ),
    "STEPS of tests/test_backends.py": (
        lambda: {name for name, _, _ in test_backends.STEPS.values()},
        {name for name in operations() if name.endswith("_step")} - {"sgd_step"},
    ),
    "STAGES of tests/test_epoch_stages.py": (staged, named(typing.get_args(description.Layer))),
    "LOSSES of tests/test_epoch_stages.py": (
        lambda: set(test_epoch_stages.LOSSES),
        set(COMPILED_LOSSES),
    ),
    "LOSSES of fastnn/backends/numba_backend/epoch/losses.py": (
        lambda: set(COMPILED_LOSSES),
        {kind.name for kind in LOSS_KINDS},
    ),
    "LOSSES of tests/test_label_smoothing.py": (
        lambda: named(kind for kind, _ in test_label_smoothing.LOSSES.values()),
        named(kind for kind in LOSS_KINDS if "label_smoothing" in kind._arguments),
    ),
    "KERNELS of tests/sums.py": (
        summed,
        {name for name in operations() if not name.startswith("elementwise")} - EXACT,
    ),
    "Rounding of tests/rounding.py": (
        lambda: set(dir(Rounding)),
        operations() - {"rounded_to_bfloat16"},  # networks at random have float32 and float64
    ),
    "`between` and ELEMENTWISE of tests/random_networks.py": (
        drawn,
        named(LAYER_KINDS) - OF_FUNCTIONS | {"Sine"},
    ),
    "LOSSES of tests/random_networks.py": (
        lambda: set(random_networks.LOSSES),
        {kind.name for kind in LOSS_KINDS},
    ),
    "OPTIMIZERS of tests/random_networks.py": (
        lambda: {name for name, _ in random_networks.OPTIMIZERS},
        named(OPTIMIZER_KINDS),
    ),
    "`schedules_of` of tests/random_networks.py": (
        lambda: {name for name, *_ in random_networks.schedules_of(0.1)},
        named(SCHEDULE_KINDS),
    ),
    "SPREADS of tests/test_initializers.py": (
        lambda: set(test_initializers.SPREADS),
        set(initializers._BY_NAME),
    ),
    "__all__ of fastnn/__init__.py": (
        lambda: set(fastnn.__all__) | BY_NAME_ALONE,
        named([*LAYER_KINDS, *LOSS_KINDS, *OPTIMIZER_KINDS]),
    ),
    "the table of README.md": (
        lambda: words("README.md", "| | |"),
        named([*LAYER_KINDS, *OPTIMIZER_KINDS]) - BY_NAME_ALONE - {"Layer"} - OF_FUNCTIONS
        | {kind.name for kind in LOSS_KINDS},
    ),
    "the table of docs/backprop/index.md": (
        lambda: words("docs/backprop/index.md", "| page | what is derived there |"),
        named([*LAYER_KINDS, *LOSS_KINDS, *OPTIMIZER_KINDS]),
    ),
    "the table of docs/interchange.md": (
        lambda: words("docs/interchange.md", "| fastnn | PyTorch | |"),
        named(
            kind
            for kind in LAYER_KINDS
            if not issubclass(kind, layers.Elementwise) or kind._elsewhere.torch
        )
        - {"Layer"}
        - OF_FUNCTIONS,
    ),
}
"""By the place of a list, what it has and what it is to have."""


@pytest.mark.parametrize("place", LISTS)
def test_lists_have_all_that_is_registered(place):
    listed, wanted = LISTS[place]
    missing = wanted - listed()
    assert not missing, f"{place}: no row for {', '.join(sorted(missing))}"


# ------------------------------------------------------------------- what the registries have

OF_TRAINING = {"learning_rate", "optimizer", "weights", "biases", "seed", "unknown"}
"""Arguments of layers that files hold otherwise: as an optimiser, as parameters, or not at all."""

KINDS = [*LAYER_KINDS, *LOSS_KINDS, *OPTIMIZER_KINDS]
each_layer = pytest.mark.parametrize("kind", LAYER_KINDS, ids=lambda kind: kind.__name__)
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def made(kind: type) -> dict[str, Any]:
    """Return arguments of `network` by which it has something of a kind; fails where none has."""
    if kind in LAYER_KINDS:
        return {"layer": LAYERS[kind.__name__]}
    if kind in LOSS_KINDS:
        smoothed = {"label_smoothing": 0.1} if "label_smoothing" in kind._arguments else {}
        return {"loss": kind(**smoothed)}
    return {"optimizer": kind(0.01, **of_its_own(kind))}


def of_its_own(kind: type[optimizers.Optimizer]) -> dict[str, Any]:
    """Return arguments of an optimiser other than it has by default."""
    choices = dict(random_networks.OPTIMIZERS)[kind.__name__]
    return {name: values[-1] for name, values in choices.items()}


def network(
    layer: Callable[[int], layers.Layer] = lambda units: Tanh(), optimizer=None, **options: Any
) -> Network:
    """Return a network that takes 6 inputs to 4 outputs, and samples for it."""
    stack = [Dense(6, 9), layer(9), Dense(9, 4)]
    return Network(stack, optimizer=optimizer, **{"dtype": np.float64, "seed": 3, **options})


def samples(of: Network, n: int = 33) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    targets = lives.TARGETS[random_networks.LOSSES[of.loss][0]]
    return rng.normal(size=(n, 6)), targets(rng, n, 4)


@each_kind
def test_files_hold_every_argument(kind):
    """What the constructor takes is in `_arguments`, else a file would lose it without a word."""
    if kind.__name__ in OF_FUNCTIONS:
        pytest.skip("made of functions, which no file holds")
    taken = set(inspect.signature(kind).parameters)
    of_training = OF_TRAINING if kind in LAYER_KINDS else set()
    assert taken - of_training - {"args", "kwargs"} == set(kind._arguments)


@each_kind
def test_what_compiled_code_counts_on_is_fixed(kind):
    """Were it set, the two paths would compute different things."""
    of = next(value for value in made(kind).values())
    thing = of(9) if kind in LAYER_KINDS else of
    fixed = {"input_units", "output_units"} if kind in LAYER_KINDS else {"state_names"}
    for name in {"name", "operations"} if kind in LOSS_KINDS else fixed:
        before = getattr(thing, name)
        for value in (3, ("a", "b", "c"), "mse"):
            with pytest.raises(AttributeError, match=name):
                setattr(thing, name, value)
        assert getattr(thing, name) == before


@pytest.mark.parametrize(
    ("base", "name", "value"),
    [(fastnn.ReLU, "output_units", 3), (optimizers.Adam, "state_names", ()),
     (losses.MeanSquaredError, "name", "own")],
)  # fmt: skip
def test_a_subclass_of_a_users_can_set_it(base, name, value):
    class Own(base):
        def __init__(self):
            super().__init__()
            setattr(self, name, value)

    assert getattr(Own(), name) == value
    assert getattr(base(), name) == getattr(base, name) != value


@each_kind
def test_saved_and_loaded(kind, backend, tmp_path):
    """And refused by name where it can't be; a loaded one trains on with the same bits."""
    trained = network(**made(kind))
    X, y = samples(trained)
    trained.fit(X, y, batch_size=8)
    if kind.__name__ in OF_FUNCTIONS:
        with pytest.raises(TypeError, match=rf"can't save {kind.__name__}\("):
            trained.save(tmp_path / "network")
        return
    trained.save(tmp_path / "network")
    loaded = fastnn.load(tmp_path / "network")
    assert repr(loaded) == repr(trained)
    for again in (trained, loaded):
        again.fit(X, y, batch_size=8)
    assert bits(loaded) == bits(trained)


@pytest.mark.parametrize("schedule", random_networks.schedules_of(0.1), ids=lambda spec: spec[0])
def test_schedules_are_saved_and_compiled(schedule, tmp_path):
    trained = network(optimizer=optimizers.SGD(lives.made(schedule)), backend="numba")
    assert trained.explain().startswith("compiled epoch")
    X, y = samples(trained)
    trained.fit(X, y, batch_size=8)
    trained.save(tmp_path / "network")
    loaded = fastnn.load(tmp_path / "network", backend="numba")
    assert loaded[0].learning_rate == lives.made(schedule)
    for again in (trained, loaded):
        again.fit(X, y, batch_size=8)
    assert bits(loaded) == bits(trained)


@each_kind
def test_the_paths_agree(kind, monkeypatch):
    """The compiled epoch, the layer path on Numba, and that on NumPy, with weights and clipping."""
    given = made(kind) | {"clip_norm": 2.0}
    compiled = network(**given, backend="numba")
    if kind.__name__ not in LAYER_PATH:
        assert compiled.explain().startswith("compiled epoch")
    layered = [network(**given, backend=name) for name in ("numba", "numpy")]
    before = bits(compiled)
    X, y = samples(compiled)
    options = {"batch_size": 7, "epochs": 2, "sample_weight": np.arange(33) % 3}
    found = [compiled.fit(X, y, **options)]
    monkeypatch.setattr(paths, "reason_for_layers", lambda network: "a test")
    found += [of.fit(X, y, **options) for of in layered]
    assert bits(compiled) != before
    for other, history in zip(layered, found[1:], strict=True):
        np.testing.assert_allclose(history.loss, found[0].loss, rtol=1e-9)
        assert history.accuracy == found[0].accuracy
        for a, b in zip(compiled.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)


# -------------------------------------------------------------------------- other libraries


def by_onnx(of: Network, X: np.ndarray, tmp_path) -> np.ndarray:
    pytest.importorskip("onnx")
    evaluator = pytest.importorskip("onnx.reference")
    of.to_onnx(tmp_path / "network.onnx")
    session = evaluator.ReferenceEvaluator(str(tmp_path / "network.onnx"))
    return session.run(["output"], {"input": X})[0]


def by_torch(of: Network, X: np.ndarray, tmp_path) -> np.ndarray:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return of.to_torch()(torch.from_numpy(X)).numpy()


def by_sklearn(of: Network, X: np.ndarray, tmp_path) -> np.ndarray:
    pytest.importorskip("sklearn")
    estimator = of.to_sklearn()
    return np.log(estimator.predict_proba(X))


def by_page(of: Network, X: np.ndarray, tmp_path) -> None:
    page.steps(of)  # what Chromium computes, `test_page.py` compares


OTHERS = {"onnx": by_onnx, "torch": by_torch, "sklearn": by_sklearn, "page": by_page}


@pytest.mark.parametrize("library", OTHERS)
@each_layer
@pytest.mark.filterwarnings("ignore")
def test_other_libraries_have_a_layer_or_refuse_it_by_name(kind, library, tmp_path):
    layer = LAYERS[kind.__name__](9)
    of = network(lambda units: layer)
    X, y = samples(of)
    of.fit(X, y)
    found, said = tried(lambda: OTHERS[library](of, X, tmp_path))
    if said is not None:
        assert said.startswith(f"can't write {layer!r} into ")
    elif found is not None:
        # probabilities of scikit-learn sum to 1
        expected = np.log(of.predict_proba(X)) if library == "sklearn" else of(X)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def tried(call: Callable[[], Any]) -> tuple[Any, str | None]:
    """Return what a call gives, and what is said where it refuses."""
    try:
        return call(), None
    except TypeError as error:
        return None, str(error)


@pytest.mark.parametrize("kind", LOSS_KINDS, ids=lambda kind: kind.__name__)
def test_other_libraries_have_the_outputs_of_a_loss_or_refuse_it_by_name(kind, tmp_path):
    """Written as probabilities, and as an estimator, whose answers are those of the loss."""
    pytest.importorskip("onnx")
    pytest.importorskip("sklearn")
    evaluator = pytest.importorskip("onnx.reference")
    of = network(loss=kind(), layer=lambda units: fastnn.ReLU())
    X, y = samples(of)
    of.fit(X, y)
    path = tmp_path / "network.onnx"
    _, said = tried(lambda: of.to_onnx(path, probabilities=True))
    if said is None:
        session = evaluator.ReferenceEvaluator(str(path))
        (found,) = session.run(["probabilities"], {"input": X})
        np.testing.assert_allclose(found, of.predict_proba(X), rtol=1e-6)
    else:
        assert repr(kind.name) in said
        assert not path.exists()
    estimator, said = tried(of.to_sklearn)
    if said is None:
        np.testing.assert_allclose(estimator.predict(X), of.predict(X), rtol=1e-9)
    else:
        assert repr(kind.name) in said


# ------------------------------------------------------------------------------ initialisers


def test_every_initialiser_has_a_name():
    public = {
        name
        for name, value in vars(initializers).items()
        if inspect.isfunction(value)
        and next(iter(inspect.signature(value).parameters)) == "rng"
        and not name.startswith("_")
    }
    assert public == set(initializers._BY_NAME)


@pytest.mark.parametrize("name", initializers._BY_NAME)
def test_initialisers_draw_from_the_generator_alone(name, backend):
    drawn = [Network([Dense(6, 9, weights=name)], seed=seed)[0].weights for seed in (1, 1, 2)]
    assert np.isfinite(drawn[0]).all()
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.array_equal(drawn[0], drawn[2]) == (name == "zeros")
    function = getattr(initializers, name)
    assert function(np.random.default_rng(0), (6, 9)).dtype == np.float64
