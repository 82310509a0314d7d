"""Divergence: at which step, in which layer, at which rate; and the last good parameters."""

from __future__ import annotations

import copy
import functools
import pickle
import re
import warnings

import numpy as np
import pytest

import fastnn
from fastnn import (
    SGD,
    Adam,
    BatchNorm,
    Callback,
    Dense,
    DivergenceError,
    Dropout,
    Layer,
    Network,
    Optimizer,
    ReLU,
    RMSprop,
    divergence,
)

X = np.random.default_rng(0).normal(size=(210, 6))
LABELS = np.random.default_rng(1).integers(0, 3, 210)
WEIGHTS = np.random.default_rng(2).uniform(0, 2, 210)
SIZE = 20
"""Of a batch: an epoch has 11 steps, the last of them shorter."""

KINDS = {
    "plain": lambda: [Dense(6, 16), ReLU(), Dense(16, 3)],
    "stages": lambda: [Dense(6, 16), BatchNorm(16), ReLU(), Dropout(0.2), Dense(16, 3, l2=0.01)],
}
OPTIMIZERS = {
    "sgd": lambda rate: SGD(rate),
    "momentum": lambda rate: SGD(rate, momentum=0.9),
    "adam": lambda rate: Adam(rate),
    "rmsprop": lambda rate: RMSprop(rate),
}


class Jump:
    """A schedule: a rate that is good until a step, and then too high."""

    def __init__(self, step, rate=1e30):
        self.step, self.rate = step, rate

    def __call__(self, step):
        return 0.01 if step < self.step else self.rate


LATE = fastnn.schedules.StepDecay(0.01, 1e32, 25)
"""The like, which files can hold."""


@pytest.fixture(autouse=True, params=["numba", "numpy"])
def backend(request):
    with fastnn.use_backend(request.param):
        yield request.param


@pytest.fixture(params=[0.0, 1e9], ids=["copies of each stretch", "one copy"])
def pause(request, monkeypatch):
    """Whether the way back is short or long changes nothing."""
    monkeypatch.setattr(divergence, "PAUSE", request.param)


def made(kind="plain", optimizer=None, **options):
    return Network(KINDS[kind](), optimizer=optimizer or SGD(Jump(15)), seed=0, **options)


def state(network):
    """Return all that a step changes."""
    parameters = network._parameters
    states = [vector.copy() for vector in parameters.states if vector.any()]
    counts = [part.steps for part in parameters.parts]
    return [parameters.vector.copy(), *states, counts, [of._passes or 0 for of in network]]


def assert_same(a, b):
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)


def one_by_one(network, steps, *, weights=None):
    """Return what the network is before the first step and after each, and the losses.

    The short batch that ends an epoch has the one before it in its fit: alone, it might take its
    gradient by another kernel, which rounds otherwise.
    """
    losses, found = [], [state(network)]
    while len(losses) < steps:
        order, before = network._rng.permutation(len(X)), network
        for stop in range(SIZE, len(X) + SIZE, SIZE):
            start = stop - SIZE
            if stop > len(X):
                network, start = before, start - SIZE
            before = copy.deepcopy(network)
            rows = order[start:stop]
            of = None if weights is None else weights[rows]
            network.fit(
                X[rows], LABELS[rows], batch_size=SIZE, shuffle=False, sample_weight=of,
                on_divergence="ignore",
            )  # fmt: skip
            losses.append(network.history.loss[0])
            found.append(state(network))
    return found, losses


def first_bad(found, losses):
    """Return which step is wrong first, and how many were good."""
    for step, loss in enumerate(losses, 1):
        if not np.isfinite(loss):
            return step, max(step - 2, 0)
        if not np.isfinite(found[step][0]).all():
            return step, step - 1
    raise AssertionError("it has not diverged")


@functools.cache
def expected(backend, kind, optimizer="sgd", dtype="float32", weighted=False):
    """Return which step is wrong first where rates jump at 25, how many are kept, and the state."""
    network = made(kind, OPTIMIZERS[optimizer](jump_of(dtype)), dtype=dtype, backend=backend)
    found, losses = one_by_one(network, 33, weights=WEIGHTS if weighted else None)
    step, good = first_bad(found, losses)
    assert step in (26, 27)
    return step, good, found[good]


def jump_of(dtype):
    return Jump(25, 1e30 if dtype == "float32" else 1e300)


def diverged(network, *data, **options):
    """Return the error of a fit, after which the network is of use."""
    with pytest.raises(DivergenceError) as caught:
        network.fit(*(data or (X, LABELS)), **{"epochs": 9, "batch_size": SIZE} | options)
    error = caught.value
    assert np.isfinite(network._parameters.vector).all()
    assert all(part.steps == error.steps_kept for part in network._parameters.parts)
    assert not any(layer.training for layer in network)
    assert {len(column) for column in network.history.columns.values()} <= {error.epoch - 1}
    return error


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_step_and_the_parameters_before_it(kind, optimizer, dtype, pause, backend):
    step, good, before = expected(backend, kind, optimizer, dtype)
    network = made(kind, OPTIMIZERS[optimizer](jump_of(dtype)), dtype=dtype)
    error = diverged(network)
    assert (error.epoch, error.step, error.steps_kept) == (3, step, good)
    assert_same(state(network), before)
    assert network.history.samples_seen == good // 11 * len(X) + good % 11 * SIZE
    assert error.learning_rate == network[0].optimizer.rate(good)
    assert str(error).startswith(f"epoch 3, step {step}: ")
    assert f"; the learning rate was {error.learning_rate:g}. The network is as it" in str(error)
    assert f": network[{error.layer}], {network[error.layer]!r}, is the first to" in str(error)
    # and training goes on
    network.optimizer = SGD(0.05)
    history = network.fit(X, LABELS, epochs=3, batch_size=SIZE)
    assert np.isfinite(history.loss).all()


@pytest.mark.parametrize(
    "options",
    [
        {"sample_weight": WEIGHTS},
        {"validation_data": (X[:9], LABELS[:9])},
        {"callbacks": lambda network, history: None},
        {"threads": 2},
        {"checkpoint_every": 4},
        {"train_accuracy": True, "progress": fastnn.progress.Progress()},
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("kind", KINDS)
def test_however_it_is_trained(kind, options, pause, tmp_path, backend):
    if "checkpoint_every" in options:
        options = options | {"checkpoint": tmp_path / "file"}
        rate = LATE
    else:
        rate = Jump(25)
    step, good, before = expected(backend, kind, weighted="sample_weight" in options)
    network = made(kind, SGD(rate))
    error = diverged(network, **options)
    assert (error.step, error.steps_kept) == (step, good)
    assert_same(state(network), before)


@pytest.mark.parametrize("rows", [7, 20, 50, 210])
@pytest.mark.parametrize("shuffle", [False, True])
def test_blocks(rows, shuffle, pause):
    """The step is exact; the way back may lead to the beginning of the block before it."""

    def blocks():
        for start in range(0, len(X), rows):
            yield X[start : start + rows], LABELS[start : start + rows]

    def make():
        return made("stages", Adam(Jump(17)))

    network, whole = make(), make()
    with pytest.raises(DivergenceError) as caught:
        network.fit_blocks(blocks, epochs=5, batch_size=SIZE, shuffle=shuffle)
    error = caught.value
    assert error.step in (18, 19)
    assert error.steps_kept <= 17
    assert np.isfinite(network._parameters.vector).all()
    if rows == 210:
        assert error.steps_kept == 17
    seen = []

    class EndedError(Exception):
        pass

    class Counting(Layer):
        def forward(self, input):
            seen.append(whole[0].steps)
            if self.training and whole[0].steps == error.steps_kept:
                raise EndedError
            return input

        def backward(self, input, grad_output):
            return grad_output

    if error.steps_kept:
        whole = Network([*KINDS["stages"](), Counting()], optimizer=Adam(Jump(17)), seed=0)
        with pytest.raises(EndedError):
            whole.fit_blocks(blocks, epochs=5, batch_size=SIZE, shuffle=shuffle)
        bound = 1e-4 * np.abs(whole._parameters.vector).max()  # of another path on one backend
        np.testing.assert_allclose(network[0].weights, whole[0].weights, atol=bound)


def test_where_no_copy_is_near(monkeypatch):
    """As of a large network, of which none is made at the beginning of each block or epoch."""
    monkeypatch.setattr(divergence, "SHORT_BYTES", 0)
    monkeypatch.setattr(divergence, "PAUSE", 1e9)
    monkeypatch.setattr(divergence, "PAUSE_BEFORE_PIECE", 1e9)
    network = made("stages")
    before = state(network)
    error = diverged(network, callbacks=lambda network, history: None)
    assert 16 <= error.step <= 22
    assert (error.epoch, error.steps_kept, error.layer) == (2, 0, None)
    assert "or one just before it: " in str(error)
    assert_same(state(network), before)
    assert network.history.samples_seen == 0


def test_copies_of_what_is_large_are_far_between(monkeypatch):
    """Also where a layer of a user's own is what holds it, in a network with few parameters."""
    copied = []

    class Table:
        def __init__(self):
            self.values = [np.zeros(1 << 14)]

        def __deepcopy__(self, memo):
            copied.append(self)
            twin = memo[id(self)] = Table.__new__(Table)
            twin.values = copy.deepcopy(self.values, memo)
            return twin

    class Looking(Layer):
        table = None

        def forward(self, input):
            return input

        def backward(self, input, grad_output):
            return grad_output

    monkeypatch.setattr(divergence, "PAUSE", 1e9)
    monkeypatch.setattr(divergence, "PAUSE_BEFORE_PIECE", 1e9)
    looking = Looking()
    looking.table = Table()
    network = Network([looking, Dense(6, 3, seed=0)])
    network.fit(X, LABELS, epochs=5, callbacks=lambda network, history: None)
    assert len(copied) == 1


def test_the_last_step_of_all_may_be_the_one():
    found, losses = one_by_one(made(optimizer=RMSprop(Jump(21, 1e300))), 22)
    assert np.isfinite(losses).all()
    network = made(optimizer=RMSprop(Jump(21, 1e300)))
    error = diverged(network, epochs=2)
    assert (error.step, error.steps_kept, error.learning_rate) == (22, 21, 1e300)
    assert "its update has left parameters that are not finite" in str(error)
    assert "holds NaN or infinity" not in str(error)
    assert_same(state(network), found[21])


class TestBadData:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
    def test_inputs(self, bad, pause):
        inputs = X.copy()
        inputs[45, 2] = bad
        found, _ = one_by_one(made("stages"), 1)
        network = made("stages")
        error = diverged(network, inputs, LABELS, shuffle=False)
        assert (error.step, error.steps_kept, error.layer) == (3, 2, None)
        assert ": X holds n" in str(error).replace("N", "n")
        assert "in column 2, in row 45; " in str(error)
        assert "learning rate" not in str(error)
        network = made("stages")
        error = diverged(network, inputs[40:60], LABELS[40:60])
        assert (error.epoch, error.step, error.steps_kept) == (1, 1, 0)
        assert str(error).endswith("The network is as it was before the first step")
        assert_same(state(network), found[0])

    def test_targets(self):
        targets = X[:, :3].copy()
        targets[7, 1] = np.inf
        network = made(loss="mse", optimizer=SGD(0.1))
        error = diverged(network, X, targets, shuffle=False)
        assert (error.step, error.steps_kept) == (1, 0)
        assert ": y holds NaN or infinity in column 1, in row 7; " in str(error)

    def test_of_other_batches_are_not_the_reason(self):
        inputs = X.copy()
        inputs[209, 0] = np.nan
        error = diverged(made(optimizer=SGD(Jump(2))), inputs, LABELS, shuffle=False)
        assert error.step in (3, 4)
        assert "X holds" not in str(error)

    def test_outputs_whose_loss_is_too_large(self):
        def loss(y_true, y_pred):
            return np.inf

        network = made(optimizer=SGD(0.1))
        network.use(loss, lambda y_true, y_pred: np.zeros_like(y_pred))
        before = state(network)
        error = diverged(network, X, X[:, :3])
        assert (error.step, error.layer, error.learning_rate) == (1, None, 0.1)
        assert "step 1: the loss is inf: the outputs are finite, but not their loss; " in str(error)
        assert_same(state(network)[:1], before[:1])


class TestOtherChoices:
    def test_warn(self):
        network = made()
        with pytest.warns(RuntimeWarning, match="training has diverged; try a smaller") as told:
            history = network.fit(X, LABELS, epochs=4, batch_size=SIZE, on_divergence="warn")
        assert len(told) == 1
        assert len(history) == 4
        assert np.isnan(history.loss[-1])

    def test_ignore(self):
        network = made()
        history = network.fit(
            X, LABELS, epochs=4, batch_size=SIZE, on_divergence="ignore",
            validation_data=(X, LABELS),
        )  # fmt: skip
        assert np.isnan(history.loss[-1])
        assert np.isnan(history.val_loss[-1])

    @pytest.mark.parametrize(
        ("choice", "error"), [("stop", ValueError), ("", ValueError), (None, TypeError)]
    )
    def test_others_are_refused(self, choice, error):
        message = f"on_divergence: expected 'raise', 'warn' or 'ignore', got {choice!r}"
        with pytest.raises(error, match=re.escape(message)):
            made().fit(X, LABELS, on_divergence=choice)
        with pytest.raises(error, match=re.escape(message)):
            made().fit_blocks([(X, LABELS)], on_divergence=choice)

    def test_a_validation_loss_alone_is_warned_of(self):
        other = X.copy()
        other[3, 3] = np.nan
        network = made(optimizer=SGD(0.1))
        with pytest.warns(RuntimeWarning, match=r"validation loss of epoch 1 is nan: validation_"):
            history = network.fit(X, LABELS, epochs=2, validation_data=(other, LABELS))
        assert len(history) == 2

    def test_a_network_that_had_diverged_before(self):
        network = made()
        network.fit(X, LABELS, epochs=4, batch_size=SIZE, on_divergence="ignore")
        with pytest.raises(DivergenceError, match="first to hold NaN or infinity, in") as caught:
            network.fit(X, LABELS, batch_size=SIZE)
        assert (caught.value.epoch, caught.value.step, caught.value.layer) == (1, 1, 0)

    def test_infinity_that_a_user_has_put_there(self):
        """A class that is never to be chosen."""
        network = made(optimizer=SGD(0.1))
        network[2].biases[2] = -np.inf
        with pytest.warns(UserWarning, match="no sample is of class 2"):
            history = network.fit(X, LABELS % 2, epochs=2, batch_size=SIZE)
        assert np.isfinite(history.loss).all()
        assert network[2].biases[2] == -np.inf


class TestFiles:
    def test_no_checkpoint_is_spoiled(self, tmp_path, monkeypatch, pause):
        written = []
        monkeypatch.setattr(
            fastnn.saving, "replace_file", lambda path, content, *_: written.append(content)
        )
        for every in (1, 2, None):
            diverged(
                made("stages", SGD(LATE)), checkpoint=tmp_path / "file", checkpoint_every=every
            )
        monkeypatch.undo()
        for content in written:
            (tmp_path / "copy").write_bytes(content)
            network = fastnn.load(tmp_path / "copy")
            assert np.isfinite(network._parameters.vector).all()
        assert len(written) > 5

    def test_going_on_from_it(self, tmp_path):
        error = diverged(made(optimizer=SGD(LATE)), checkpoint=tmp_path / "f", checkpoint_every=2)
        with pytest.raises(DivergenceError) as caught:
            fastnn.resume(tmp_path / "f", X, LABELS)
        assert caught.value.step == error.step
        with pytest.warns(RuntimeWarning, match="diverged"):
            network = fastnn.resume(tmp_path / "f", X, LABELS, on_divergence="warn")
        assert len(network.history) == 9
        # now it is spoiled, and nothing is written in its place
        content = (tmp_path / "f").read_bytes()
        with pytest.raises(DivergenceError, match=r"^before the training: network\[0\], Dense"):
            fastnn.resume(tmp_path / "f", X, LABELS, epochs=12)
        assert (tmp_path / "f").read_bytes() == content

    def test_the_callback_that_saves(self, tmp_path):
        diverged(made(optimizer=SGD(LATE)), callbacks=fastnn.Checkpoint(tmp_path / "model"))
        assert np.isfinite(fastnn.load(tmp_path / "model").evaluate(X, LABELS).loss)


class Counting(Layer):
    """A layer that learns and remembers, in plain NumPy."""

    def __init__(self):
        self.factor = np.ones(6)
        self.calls, self.memory = 0, {"seen": [0]}

    def forward(self, input):
        self.calls += self.training
        return input * self.factor

    def backward(self, input, grad_output):
        self.memory["seen"].append(len(input))
        gradient = (input * grad_output).sum(axis=0)
        self.factor -= 0.01 * gradient
        return grad_output * self.factor


class Slow(Optimizer):
    """An optimiser that counts by itself."""

    def __init__(self, rate):
        super().__init__(rate)
        self.taken = 0

    def step(self, backend, parameters, gradient, state, step):
        self.taken += 1
        parameters -= self.rate(step) * gradient


class TestWhatOnlyPythonKnows:
    def test_it_goes_back_as_well(self, pause):
        def make(rate):
            return Network([Counting(), *KINDS["plain"]()], optimizer=Slow(rate), seed=0)

        network, other = make(Jump(15)), make(0.01)
        factor = network[0].factor
        error = diverged(network)
        order = other._rng.permutation(len(X)), other._rng.permutation(len(X))
        batches = [of[s : s + SIZE] for of in order for s in range(0, len(X), SIZE)]
        for rows in batches[: error.steps_kept]:
            other.train_step(X[rows], LABELS[rows])
        assert error.steps_kept == 15
        assert network[0].factor is factor
        np.testing.assert_array_equal(factor, other[0].factor)
        assert network[0].calls == other[0].calls == 15
        assert network[0].memory == other[0].memory
        assert network.optimizer.taken == other.optimizer.taken == 30
        assert_same(state(network), state(other))

    def test_one_that_is_random(self):
        class Noise(Layer):
            calls = 0

            def forward(self, input):
                Noise.calls += 1  # of the class, where nobody looks for it
                return input * (np.nan if Noise.calls == 7 else 1.0)

            def backward(self, input, grad_output):
                return grad_output

        network = Network([*KINDS["plain"](), Noise()], optimizer=SGD(0.1), seed=0)
        error = diverged(network)
        assert "something in it is random" in str(error)
        assert error.layer is None

    def test_what_can_not_be_copied_stays(self, tmp_path):
        class Writing(Counting):
            def __init__(self, path):
                super().__init__()
                self.file = open(path, "w")  # noqa: SIM115

        with open(tmp_path / "log", "w") as file:
            layer = Counting()
            layer.file = file
            network = Network([layer, *KINDS["plain"]()], optimizer=SGD(Jump(15)), seed=0)
            diverged(network)
            assert layer.file is file


class Telling(Callback):
    def __init__(self):
        self.heard = []

    def on_epoch_end(self, network, history):
        self.heard.append(len(history))

    def on_train_end(self, network, history):
        self.heard.append("end")


def test_what_callbacks_hear():
    telling = Telling()
    diverged(made(), callbacks=[telling])
    assert telling.heard == [1]


def test_the_error_can_be_pickled_and_is_arithmetic():
    error = diverged(made())
    error.add_note("of mine")
    twin = pickle.loads(pickle.dumps(error))
    assert isinstance(twin, ArithmeticError)
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)


def test_one_of_many():
    networks = [made(optimizer=SGD(0.1)), made()]
    with pytest.raises(DivergenceError) as caught:
        fastnn.fit_many(networks, X, LABELS, epochs=4, batch_size=SIZE, workers=1)
    assert caught.value.__notes__ == ["This was networks[1] of fit_many."]
    networks = [made(optimizer=SGD(0.1)), made()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        histories = fastnn.fit_many(networks, X, LABELS, epochs=4, on_divergence="ignore")
    assert [len(of) for of in histories] == [4, 4]


def test_estimators_end_at_once():
    sklearn = pytest.importorskip("fastnn.sklearn")
    for optimizer in (SGD(1e30), Adam(1e300)):
        estimator = sklearn.MLPClassifier((8,), optimizer=optimizer, max_iter=50, random_state=0)
        with pytest.raises(ValueError, match=r"^Solver produced non-finite .* It was iteration \d"):
            estimator.fit(X, LABELS)
        assert estimator.n_iter_ < 5
