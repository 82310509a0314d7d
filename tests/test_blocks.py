"""Training on samples that come block by block, and on samples that lie in a file."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from conftest import in_pairs, perceptron

import fastnn
from fastnn.progress import Notebook

N, WIDTH, CLASSES = 331, 17, 3


@pytest.fixture
def samples(rng):
    """Samples without zeros, so that any part of them takes the same kernels, and class ids."""
    X = rng.normal(size=(N, WIDTH)).astype(np.float32)
    return X, rng.integers(0, CLASSES, N)


def cut(X, y, lengths):
    """Return a function that goes through blocks of these lengths, and one of what is left."""

    def blocks():
        start = 0
        for length in (*lengths, len(X)):
            yield X[start : start + length], y[start : start + length]
            start += length

    return blocks


CUTS = {
    "one": (),
    "batches": (32, 64, 32),
    "odd": (100, 7, 3, 1, 55, 90),
    "smaller than a batch": (5,) * 40,
    "with an empty one": (50, 0, 50, 331, 0),
}


@pytest.mark.parametrize(
    *in_pairs(
        name=fastnn.available_backends(), dtype=("float32", "float64"), lengths=CUTS,
        batch_size=(1, 10, 32),
    )
)  # fmt: skip
def test_unshuffled_steps_are_those_of_fit(samples, name, dtype, lengths, batch_size):
    fitted, streamed = (
        perceptron(WIDTH, 20, CLASSES, seed=0, dtype=dtype, backend=name) for _ in range(2)
    )
    options = {"epochs": 3, "batch_size": batch_size, "shuffle": False}
    expected = fitted.fit(*samples, **options)
    history = streamed.fit_blocks(cut(*samples, CUTS[lengths]), **options)
    for ours, theirs in zip(streamed.get_weights(), fitted.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert history.loss == expected.loss
    assert history.accuracy == expected.accuracy
    assert history.samples_seen == 3 * N
    assert len(history.seconds) == len(history.samples_per_second) == 3
    assert streamed.history is history


@pytest.mark.parametrize("drop_last", [False, True])
def test_one_shuffled_block_is_fit(samples, backend, drop_last):
    fitted, streamed = (perceptron(WIDTH, 20, CLASSES, seed=0) for _ in range(2))
    options = {"epochs": 2, "drop_last": drop_last}
    expected = fitted.fit(*samples, **options)
    history = streamed.fit_blocks([samples], **options)
    assert history.loss == expected.loss
    for ours, theirs in zip(streamed.get_weights(), fitted.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("drop_last", [False, True])
def test_each_sample_once_an_epoch_and_every_batch_whole(samples, drop_last):
    X, y = samples
    X[:, 0] = np.arange(N)
    seen = []

    class Watch(fastnn.Layer):
        def forward(self, input):
            if self.training:
                seen.append(input[:, 0].astype(int).tolist())
            return input

        def backward(self, input, grad_output):
            return grad_output

    network = fastnn.Network([Watch(), fastnn.Dense(WIDTH, CLASSES, 1e-6)], seed=0)
    history = network.fit_blocks(cut(X, y, (100, 3, 90)), epochs=2, drop_last=drop_last)
    lengths = [32] * 10 + [11] * (not drop_last)
    assert list(map(len, seen)) == 2 * lengths
    first, second = (np.concatenate(seen[i * len(lengths) :][: len(lengths)]) for i in (0, 1))
    for epoch in (first, second):
        assert len(set(epoch)) == sum(lengths)
        assert set(epoch[:96]) < set(range(100))  # what is left of a block begins the next batch
        assert not np.array_equal(epoch[:96], np.sort(epoch[:96]))
    assert not np.array_equal(first, second)
    assert history.samples_seen == 2 * sum(lengths)


def test_dtypes_and_layouts_may_change_between_blocks(samples, backend):
    X, y = samples
    X = np.clip(np.rint(X * 2 + 5), 1, 9)
    kinds = [np.float32, np.int64, np.float64, ">f4", np.uint8]
    blocks = [(X[i::5].astype(kind), y[i::5]) for i, kind in enumerate(kinds)]
    blocks[1] = np.asfortranarray(blocks[1][0]), blocks[1][1].tolist()
    blocks[2] = blocks[2][0].tolist(), blocks[2][1].astype(float)
    fitted, streamed = (perceptron(WIDTH, CLASSES, seed=0, learning_rate=1e-5) for _ in range(2))
    order = np.concatenate([np.arange(N)[i::5] for i in range(5)])
    fitted.fit(X[order], y[order], shuffle=False)
    streamed.fit_blocks(blocks, shuffle=False)
    for ours, theirs in zip(streamed.get_weights(), fitted.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_real_targets_validation_and_callbacks(samples, backend):
    X, _ = samples
    y = X[:, :2] - X[:, 2:4]
    stopping = fastnn.EarlyStopping(patience=1, min_delta=1e9)
    network = perceptron(WIDTH, 2, seed=0, loss="mse")
    history = network.fit_blocks(
        cut(X, y, (60, 60)), epochs=9, validation_data=(X[:50], y[:50]), callbacks=[stopping]
    )
    assert len(history) == 2
    assert history.val_loss[0] == network.evaluate(X[:50], y[:50]).loss  # which is restored
    assert history.accuracy == []
    assert history.loss[-1] < history.loss[0]


def test_sparse_and_dense_blocks(backend):
    """Which kernel is taken depends on the first block; none is wrong for the others."""
    rng = np.random.default_rng(0)
    X = rng.integers(1, 255, (600, 40)).astype(np.uint8)
    X[:300] *= rng.random((300, 40)) < 0.1
    y = rng.integers(0, 4, 600)
    losses = []
    for blocks in ([(X, y)], [(X[:300], y[:300]), (X[300:], y[300:])]):
        layers = [fastnn.Rescaling(1 / 255), fastnn.Dense(40, 16), fastnn.ReLU()]
        network = fastnn.Network([*layers, fastnn.Dense(16, 4)], seed=0)
        losses.append(network.fit_blocks(blocks, epochs=2, shuffle=False).loss)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_a_buffer_may_be_filled_again(samples):
    X, y = samples
    buffer, labels = np.empty((100, WIDTH), np.float32), np.empty(100, np.int64)

    def blocks():
        for start in range(0, N, 100):
            part = slice(start, start + 100)
            count = len(y[part])
            buffer[:count], labels[:count] = X[part], y[part]
            yield buffer[:count], labels[:count]

    fitted, streamed = (perceptron(WIDTH, CLASSES, seed=0) for _ in range(2))
    fitted.fit(X, y, shuffle=False, epochs=2)
    streamed.fit_blocks(blocks, shuffle=False, epochs=2)
    np.testing.assert_array_equal(streamed[0].weights, fitted[0].weights)


def peak(call) -> int:
    """Return how much memory a call takes at its peak, of what NumPy and Python ask for."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


ROWS = 20_000
BLOCK_BYTES = ROWS * 64 * 4


def test_one_block_is_held_at_a_time(backend):
    def blocks():
        rng = np.random.default_rng(0)
        for _ in range(8):
            X = rng.random((ROWS, 64), np.float32)
            yield X, rng.integers(0, 4, ROWS)
            del X

    network = perceptron(64, 4, seed=0)
    network.fit_blocks(lambda: [(np.ones((64, 64), np.float32), np.zeros(64, int))])
    used = peak(lambda: network.fit_blocks(blocks, epochs=2, batch_size=500))
    assert BLOCK_BYTES < used < 1.6 * BLOCK_BYTES


@pytest.mark.parametrize("dtype", ["f4", "f8", "u1", ">f4", "i2"])
def test_samples_in_a_file_are_never_copied_whole(tmp_path, backend, dtype):
    X = np.memmap(tmp_path / "X", dtype, "w+", shape=(4 * ROWS, 64))
    rng = np.random.default_rng(0)
    X[:] = rng.integers(1, 10, X.shape)
    X.flush()
    X = np.memmap(tmp_path / "X", dtype, "r", shape=X.shape)
    y = rng.integers(0, 4, len(X))
    network = perceptron(64, 4, seed=0, learning_rate=1e-4)
    network.fit(X[:64], y[:64])
    used = peak(lambda: network.fit(X, y, batch_size=500, validation_data=(X, y)))
    assert used < min(X.nbytes, BLOCK_BYTES) / 2 + 4 * y.nbytes
    twin = perceptron(64, 4, seed=0, learning_rate=1e-4)
    twin.fit(X[:64], y[:64])
    twin.fit(np.array(X), y, batch_size=500)
    np.testing.assert_array_equal(network[0].weights, twin[0].weights)


def pairs(*shapes):
    return [(np.ones((n, WIDTH), np.float32), np.zeros(n, int)) for n in shapes]


@pytest.mark.parametrize(
    ("blocks", "options", "exception", "message"),
    [
        (3, {}, TypeError, "blocks: expected a function that returns an iterator over pairs"),
        (iter(pairs(9)), {"epochs": 2}, ValueError, "blocks: .* in each of 2 epochs, .* list_iter"),
        ([], {}, ValueError, "blocks: expected at least one sample, got none"),
        (pairs(0, 0), {}, ValueError, "blocks: expected at least one sample, got none"),
        (lambda: 3, {}, TypeError, "blocks: expected a function that returns an iterator, got int"),
        (pairs(9)[0], {}, TypeError, "blocks: expected pairs .* got ndarray as number 0"),
        ([(*pairs(9)[0], [1] * 9)], {}, TypeError, "got tuple of 3 as number 0"),
        ([*pairs(9), 3], {}, TypeError, "blocks: expected pairs .* got int as number 1"),
        ([(np.ones((3, 2)), [0] * 3)], {}, ValueError, "X of block 0: expected shape .batch, 17"),
        ([*pairs(9), (np.ones((3, WIDTH)), [0, 1, 3])], {}, ValueError, "y of block 1: .* got 3"),
        ([*pairs(9), (np.ones((3, WIDTH)), [0, 1])], {}, ValueError, "y of block 1: expected 3"),
        ([*pairs(9), (np.ones((3, WIDTH)), [])], {}, ValueError, "y of block 1: .* got 0"),
        ([(np.ones((3, WIDTH)), []), *pairs(9)], {}, ValueError, "y of block 0: .* got 0"),
        ([(np.ones((0, WIDTH)), [1]), *pairs(9)], {}, ValueError, " of block 0: expected "),
        (
            [(np.ones((9, WIDTH), np.uint8), [0] * 9), *pairs(9)],
            {}, ValueError, "X of block 1: expected uint8, as the first block has, got float32",
        ),
        (pairs(9), {"drop_last": True}, ValueError, "batch_size: expected at most the 9 samples"),
        (pairs(9), {"epochs": 0}, ValueError, "epochs"),
        (pairs(9), {"batch_size": 0}, ValueError, "batch_size"),
        (pairs(9), {"shuffle": 1}, TypeError, "shuffle"),
        (pairs(9), {"validation_data": 3}, TypeError, "validation_data: expected a pair"),
        (pairs(9), {"callbacks": [3]}, TypeError, "callbacks"),
    ],
)  # fmt: skip
def test_mistakes(blocks, options, exception, message):
    network = perceptron(WIDTH, CLASSES)
    with pytest.raises(exception, match=message):
        network.fit_blocks(blocks, **options)
    network.fit_blocks(pairs(9))  # which is not still training


@pytest.mark.parametrize("batch_size", [4, 3])
def test_targets_of_two_kinds(backend, batch_size):
    X, ids = pairs(6)[0]
    rows = np.eye(CLASSES)[ids]
    network = perceptron(WIDTH, CLASSES, loss="mse")
    message = "y of block 1: expected class ids, as the first block has, got rows of 3 targets"
    with pytest.raises(ValueError, match=message):
        network.fit_blocks([(X, ids), (X, rows)], batch_size=batch_size)
    message = "y of block 1: expected rows of 3 targets, as the first block has, got class ids"
    with pytest.raises(ValueError, match=message):
        network.fit_blocks([(X, rows), (X, ids)], batch_size=batch_size)


def test_an_empty_block_of_lists():
    network = perceptron(WIDTH, CLASSES)
    assert network.fit_blocks([([], []), *pairs(9)]).samples_seen == 9


def test_an_iterator_that_is_used_up():
    once = iter(pairs(40, 7))
    network = perceptron(WIDTH, CLASSES)
    with pytest.raises(ValueError, match=r"blocks: .* got none after the first; a function must"):
        network.fit_blocks(lambda: once, epochs=2)
    assert len(network.history) == 1
    assert network.history.samples_seen == 47


def test_an_iterator_serves_one_epoch():
    assert perceptron(WIDTH, CLASSES).fit_blocks(iter(pairs(40, 7))).samples_seen == 47


def test_what_the_source_raises_comes_through():
    def blocks():
        yield from pairs(40)
        raise OSError("the disk is gone")

    network = perceptron(WIDTH, CLASSES)
    with pytest.raises(OSError, match="the disk is gone"):
        network.fit_blocks(blocks)
    assert network.history.samples_seen == 32


def test_progress_of_unknown_length(capsys):
    perceptron(WIDTH, CLASSES).fit_blocks(pairs(40, 7), epochs=2, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line[:9] for line in lines] == ["epoch 1/2", "epoch 2/2"]


def test_a_notebook_shows_a_share_once_the_number_of_samples_is_known(monkeypatch):
    states = []

    class Handle:
        def update(self, state, raw):
            states.append(state["text/html"])

    class Display:
        @staticmethod
        def display(state, raw, display_id):
            return Handle()

    monkeypatch.setattr("fastnn.progress.import_module", lambda name: Display)
    monkeypatch.setattr("fastnn.progress.REDRAW_SECONDS", 0)
    perceptron(WIDTH, CLASSES).fit_blocks(pairs(40, 7), epochs=2, progress=Notebook())
    assert any("<progress></progress>" in state for state in states)
    assert any('<progress value="32" max="47">' in state for state in states)
    assert "progress" not in states[-1]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (50, "X of block 1 holds NaN .* in row 10;"),
        (38, "X of block 0 holds NaN .* in row 38;"),  # left over for the next batch
        (97, "X of block 2 holds NaN .* in row 2;"),  # left over by the last block
    ],
)
@pytest.mark.parametrize("shuffle", [False, True])
def test_where_nan_comes_from(place, message, shuffle):
    X, y = np.ones((100, WIDTH), np.float32), np.zeros(100, int)
    X[place, 3] = np.nan
    blocks = [(X[:40], y[:40]), (X[40:95], y[40:95]), (X[95:], y[95:])]
    with pytest.warns(RuntimeWarning, match=message):
        perceptron(WIDTH, CLASSES).fit_blocks(
            blocks, shuffle=shuffle, batch_size=16, on_divergence="warn"
        )


def test_hints_on_the_first_block():
    X, y = np.full((200, WIDTH), 300.0), np.zeros(200, int)  # sorted by class, perhaps
    with pytest.warns(UserWarning, match="columns often go beyond 10") as caught:
        perceptron(WIDTH, CLASSES, learning_rate=1e-9).fit_blocks([(X, y)])
    assert len(caught) == 1
