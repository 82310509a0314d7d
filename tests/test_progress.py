"""Progress: what is seen in a terminal, in a log file and in a notebook."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import types

import numpy as np
import pytest
from conftest import ROOT

import fastnn
from fastnn import Dense, Network, ReLU, compilations, progress
from fastnn.training import History

X = np.random.default_rng(0).normal(size=(300, 4))
Y = np.arange(300) % 3

LINE = r"epoch {}/{}  loss \d\.\d{{4}}  accuracy \d\.\d{{4}}  \d[\d.]*[kM]? samples/s"


def network() -> Network:
    return Network([Dense(4, 5), ReLU(), Dense(5, 3)], seed=0, backend="numpy")


def lines(epochs: int, first: int = 1) -> list[str]:
    return [LINE.format(i, epochs) for i in range(first, epochs + 1)]


def assert_matches(patterns: list[str], found: list[str]) -> None:
    assert len(found) == len(patterns), found
    for pattern, line in zip(patterns, found, strict=True):
        assert re.fullmatch(pattern, line), line


class TestLines:
    def test_a_line_an_epoch(self, capsys):
        network().fit(X, Y, epochs=3, progress=True)
        out, err = capsys.readouterr()
        assert out == ""
        assert not set(err) & {"\r", "\x1b"}
        assert_matches(lines(3), err.splitlines())

    def test_what_a_line_says(self, capsys):
        net = network()
        history = net.fit(
            X, Y, validation_data=(X, Y), train_accuracy=True, epochs=10, progress=True
        )
        row = history[8]
        assert (
            capsys.readouterr()
            .err.splitlines()[8]
            .startswith(
                f"epoch  9/10  loss {row['loss']:.4f} val {row['val_loss']:.4f} "
                f"train {row['train_loss']:.4f}  accuracy {row['accuracy']:.4f} "
                f"val {row['val_accuracy']:.4f} train {row['train_accuracy']:.4f}  "
            )
        )

    def test_without_accuracy(self, capsys):
        net = network()
        net.use("mse")
        net.fit(X, 1e-6 * X[:, :3], progress=True)
        assert re.fullmatch(r"epoch 1/1  loss \d\.\d{4}  \S+ samples/s\n", capsys.readouterr().err)

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0.0, "0.0000"),
            (0.12345, "0.1235"),
            (1234.5, "1234.5000"),
            (4e10, "4.000e+10"),
            (1.5e-5, "1.500e-05"),
            (float("nan"), "nan"),
        ],
    )
    def test_losses_of_any_size(self, value, text):
        stream = io.StringIO()
        shown = progress.Lines(stream)
        shown.begin(History(loss=[value], samples_per_second=[384_056.0]), 1)
        shown.end_epoch()
        assert stream.getvalue() == f"epoch 1/1  loss {text}  384k samples/s\n"

    @pytest.mark.parametrize(
        ("speed", "text"),
        [(7, "7"), (999.6, "1.00k"), (38_405, "38.4k"), (999_600, "1.00M"), (1.5e7, "15.0M")],
    )
    def test_speeds_of_any_size(self, speed, text):
        assert progress._rounded(speed) == text

    def test_callbacks_come_after_the_line(self, capsys):
        def speak(_, history):
            sys.stderr.write(f"callback {len(history)}\n")

        network().fit(X, Y, epochs=2, progress=True, callbacks=speak)
        shown = capsys.readouterr().err.splitlines()
        one, two = lines(2)
        assert_matches([one, "callback 1", two, "callback 2"], shown)

    def test_a_fit_in_a_fit(self, capsys):
        def nested(*_):
            network().fit(X, Y, progress=True)

        network().fit(X, Y, epochs=2, progress=True, callbacks=nested)
        one, two = lines(2)
        assert_matches([one, *lines(1), two, *lines(1)], capsys.readouterr().err.splitlines())

    def test_a_training_that_goes_on(self, capsys, tmp_path):
        file = tmp_path / "training"

        def interrupt(_, history):
            if len(history) == 3:
                raise KeyboardInterrupt

        net = network()
        with pytest.raises(KeyboardInterrupt):
            net.fit(X, Y, epochs=4, checkpoint=file, progress=True, callbacks=interrupt)
        assert_matches(lines(4)[:3], capsys.readouterr().err.splitlines())
        fastnn.resume(file, X, Y, progress=True, callbacks=lambda *_: None)
        assert_matches(lines(4, first=3), capsys.readouterr().err.splitlines())

    @pytest.mark.parametrize("stderr", [None, "closed"])
    def test_a_program_without_a_console(self, monkeypatch, stderr):
        if stderr is not None:
            stderr = io.StringIO()
            stderr.close()
        monkeypatch.setattr(sys, "stderr", stderr)
        assert len(network().fit(X, Y, progress=True)) == 1


class TestPlaces:
    """A progress of one's own, and how `fit` chooses one."""

    def test_of_ones_own(self):
        heard = []

        class Noting(progress.Progress):
            def begin_epoch(self, samples, done):
                super().begin_epoch(samples, done)
                heard.append(("begins", len(self.history), self.epochs, samples, done))

            def advance(self, samples, averages):
                super().advance(samples, averages)
                heard.append(("goes on", self.done, *averages))

            def end_epoch(self):
                super().end_epoch()
                heard.append(("ends", len(self.history)))

            def __exit__(self, kind, *_):
                heard.append(("over", kind))

        network().fit(X, Y, batch_size=150, epochs=2, drop_last=True, progress=Noting())
        means = ("loss", "accuracy")
        assert heard[:4] == [
            ("begins", 0, 2, 300, 0),
            ("goes on", 150, *means),
            ("goes on", 300, *means),
            ("ends", 1),
        ]
        assert heard[4] == ("begins", 1, 2, 300, 0)
        assert heard[-3:] == [("goes on", 300, *means), ("ends", 2), ("over", None)]

    def test_the_base_shows_nothing(self, capsys):
        network().fit(X, Y, progress=progress.Progress())
        assert capsys.readouterr() == ("", "")

    def test_refusals(self):
        for wrong in (1, None, "bar", sys.stderr):
            with pytest.raises(TypeError, match="progress: expected True or False"):
                network().fit(X, Y, progress=wrong)

    def test_by_what_there_is(self, monkeypatch):
        class Tty(io.StringIO):
            def isatty(self):
                return True

        monkeypatch.delenv("TERM", raising=False)
        assert type(progress.on(io.StringIO(), bars=Tty())) is progress.Terminal
        assert type(progress.on(io.StringIO(), bars=io.StringIO())) is progress.Lines
        assert type(progress.on(io.StringIO(), bars=None)) is progress.Lines
        monkeypatch.setenv("TERM", "dumb")
        assert type(progress.on(Tty(), bars=Tty())) is progress.Lines

    def test_bits_do_not_depend_on_it(self):
        seen, unseen = network(), network()
        seen.fit(X, Y, epochs=2, progress=progress.Lines(io.StringIO()))
        unseen.fit(X, Y, epochs=2)
        for one, other in zip(seen.get_weights(), unseen.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


def in_a_terminal(code: str, columns: int = 80) -> tuple[str, list[str]]:
    """Return what Python writes to a terminal that runs `code`, and what is seen at the end."""
    import fcntl
    import pty
    import termios

    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"} | {"TERM": "xterm"}
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code], cwd=ROOT, env=environment, **streams
    )
    os.close(terminal)
    written = b""
    try:
        while piece := os.read(controller, 65536):
            written += piece
    except OSError:  # Linux says so at the end
        pass
    os.close(controller)
    process.wait()
    text = written.decode()
    return text, seen(text)


def seen(text: str) -> list[str]:
    """Return the lines of a terminal to which `text` was written."""
    rows: list[list[str]] = [[]]
    row = column = 0
    for piece in re.findall(r"\x1b\[A|[\s\S]", text):
        if piece == "\x1b[A":
            row -= 1
        elif piece == "\n":
            row += 1
            rows += [[]] * (row == len(rows))
        elif piece == "\r":
            column = 0
        else:
            rows[row] += " " * (column - len(rows[row]))
            rows[row][column : column + 1] = piece
            column += 1
    shown = ["".join(cells).rstrip() for cells in rows]
    return shown[: len(shown) - (shown[-1] == "")]


PRELUDE = """
import numpy as np
import fastnn
X = np.random.default_rng(0).normal(size=(300, 4))
Y = np.arange(300) % 3
def network(**options):
    layers = [fastnn.Dense(4, 5), fastnn.ReLU(), fastnn.Dense(5, 3)]
    return fastnn.Network(layers, seed=0, backend="numpy", **options)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of POSIX")
class TestTerminal:
    @pytest.mark.parametrize("done", [0, 40])
    def test_the_bar_counts_samples(self, done):
        """A training that goes on in the midst of an epoch has been through some of them."""
        terminal = progress.Terminal(io.StringIO(), io.StringIO())
        terminal.begin(History(), 1)
        with terminal:
            terminal.begin_epoch(100, done)
            assert (terminal.samples, terminal.done) == (100, done)
            for count in (10, 25):
                terminal.advance(count, {"loss": 1.0})
            assert terminal.done == done + 35
            assert (terminal._bar.n, terminal._bar.initial, terminal._bar.total) == (
                done + 35, done, 100,
            )  # fmt: skip

    def test_it_tells_what_is_compiled(self):
        bars = io.StringIO()
        terminal = progress.Terminal(io.StringIO(), bars)
        terminal.begin(History(), 1)
        with terminal:
            compilations.tell("gather")
            assert re.search(r"preparing: compiling gather, \d+\.\d s so far", bars.getvalue())
            terminal.begin_epoch(100, 0)
            compilations.tell("as for a prediction, in the midst of a training")
        compilations.tell("as for something else, afterwards")
        assert "midst" not in bars.getvalue()
        assert "afterwards" not in bars.getvalue()

    def test_bars_give_way_to_lines(self):
        code = """
def speak(_, history):
    print("callback", len(history))
network().fit(X, Y, epochs=2, validation_data=(X, Y), progress=True, callbacks=speak)
"""
        written, shown = in_a_terminal(code)
        assert re.search(r"epoch 1/2 .*samples/s, loss \d\.\d{4}, accuracy \d\.\d{4}\r", written)
        assert "? samples/s" not in written
        assert "\x1b" not in written
        numbers = r"loss \S+ val \S+  accuracy \S+ val \S+  \S+ samples/s"
        one, two = (f"epoch {i}/2  {numbers}" for i in (1, 2))
        assert_matches([one, "callback 1", two, "callback 2"], shown)

    def test_a_narrow_terminal(self):
        written, shown = in_a_terminal("network().fit(X, Y, epochs=2, progress=True)", columns=32)
        assert_matches([r"epoch [12]/2  loss \d\.\d{4}"] * 2, shown)
        assert all(len(state) <= 32 for state in re.split(r"[\r\n]", written))

    def test_an_interruption_leaves_the_bar(self):
        code = """
class Interrupting(fastnn.Layer):
    steps = 0
    def forward(self, input):
        self.steps += self.training
        if self.steps == 3:
            raise KeyboardInterrupt
        return input
    def backward(self, input, grad_output):
        return grad_output
net = fastnn.Network([fastnn.Dense(4, 3), Interrupting()], seed=0, backend="numpy")
try:
    net.fit(X, Y, batch_size=30, progress=True)
except KeyboardInterrupt:
    print("interrupted")
"""
        bar, after = in_a_terminal(code)[1]
        assert re.fullmatch(r"epoch 1/1 .* samples/s, loss \S+, accuracy \S+", bar)
        assert after == "interrupted"

    def test_a_warning_has_its_own_line(self):
        code = """
net = network()
net.optimizer = fastnn.SGD(1e30)
net.fit(np.tile(X, (10, 1)), np.tile(Y, 10), batch_size=1, progress=True, on_divergence="warn")
"""
        shown = in_a_terminal(code)[1]
        (warning,) = [line for line in shown if "RuntimeWarning" in line]
        assert warning.startswith("<string>:")
        assert shown[-1].startswith("epoch 1/1  loss nan")

    def test_the_bar_of_a_loop_around_it(self):
        code = """
import sys
from tqdm import tqdm
for _ in tqdm(range(2), desc="seeds", file=sys.stderr):
    network().fit(X, Y, epochs=2, progress=True)
"""
        shown = in_a_terminal(code)[1]
        assert_matches(2 * lines(2), [line for line in shown if line.startswith("epoch")])
        assert shown[-1].startswith("seeds: 100%")


class Display:
    """What a notebook's front end was asked to show, state after state."""

    def __init__(self) -> None:
        self.states: list[dict[str, str]] = []

    def display(self, state, *, raw, display_id):
        assert raw
        assert display_id is True
        self.states.append(state)
        return self

    def update(self, state, *, raw):
        assert raw
        self.states.append(state)


@pytest.fixture
def notebook(monkeypatch):
    """A kernel, or what can be seen of it."""
    front = Display()
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = front.display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0.0)
    return front


def table(html: str) -> list[list[str]]:
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", html)]


class TestNotebook:
    def test_a_table_that_grows(self, notebook, capsys):
        history = network().fit(X, Y, epochs=3, validation_data=(X, Y), progress=True)
        first, *_, last = notebook.states
        assert first == {"text/plain": "preparing", "text/html": "preparing"}
        heads, *rows = table(last["text/html"])
        assert heads == ["epoch", "loss", "accuracy", "val loss", "val accuracy", "samples/s"]
        for row, of in zip(rows, history, strict=True):
            numbers = [of[n] for n in ("loss", "accuracy", "val_loss", "val_accuracy")]
            speed = f"{of['samples_per_second']:,.0f}"
            assert row == [str(of["epoch"]), *(f"{number:.4f}" for number in numbers), speed]
        assert len(last["text/plain"].splitlines()) == 3
        assert "epochs" not in last["text/html"]
        assert capsys.readouterr() == ("", "")

    def test_the_row_of_the_epoch_that_runs(self, notebook):
        network().fit(X, Y, epochs=2, progress=True)
        running = [state for state in notebook.states if "<progress" in state["text/html"]]
        row = table(running[0]["text/html"])[-1]
        assert row[0] == "1"
        assert row[-1] == '<progress value="32" max="300"></progress>'
        row = table(running[-1]["text/html"])[-1]
        assert row == ["2", *row[1:3], "", '<progress value="300" max="300"></progress>']
        assert re.fullmatch(
            r"epoch 1/2 .*\nepoch 2/2  loss \S+  accuracy \S+", running[-1]["text/plain"]
        )

    def test_an_interruption_is_seen(self, notebook):
        class Interrupting(progress.Notebook):
            def advance(self, samples, averages):
                super().advance(samples, averages)
                if len(self.history) == 1 and self.done > 100:
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            network().fit(X, Y, epochs=3, batch_size=60, progress=Interrupting())
        html = notebook.states[-1]["text/html"]
        assert [row[0] for row in table(html)] == ["epoch", "1", "2"]
        assert "<progress" in html
        assert html.endswith("of 3 epochs")

    def test_very_many_epochs(self, notebook):
        network().fit(X, Y, epochs=100, progress=True)
        heads, *rows = table(notebook.states[-1]["text/html"])
        numbers = ["1", "2", "3", "...", *map(str, range(81, 101))]
        assert [row[0] for row in rows] == numbers
        assert {len(row) for row in rows} == {len(heads)}
        assert notebook.states[-1]["text/plain"].splitlines()[3] == "..."

    def test_not_every_state_is_drawn(self, notebook, monkeypatch):
        monkeypatch.setattr(progress, "REDRAW_SECONDS", 1e9)
        network().fit(X, Y, epochs=100, progress=True)
        assert len(notebook.states) == 2
        assert len(notebook.states[-1]["text/plain"].splitlines()) == 24

    def test_ipython_in_a_terminal_is_no_notebook(self, notebook, capsys):
        sys.modules["IPython"].get_ipython = lambda: types.SimpleNamespace()
        network().fit(X, Y, progress=True)
        sys.modules["IPython"].get_ipython = lambda: None
        network().fit(X, Y, progress=True)
        assert_matches(2 * lines(1), capsys.readouterr().err.splitlines())
        assert notebook.states == []

    def test_in_a_kernel(self, tmp_path, monkeypatch):
        pytest.importorskip("ipykernel")
        from jupyter_client.manager import start_new_kernel

        monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
        manager, client = start_new_kernel(
            kernel_name="python3", cwd=str(ROOT), stderr=subprocess.DEVNULL
        )
        messages = []
        try:
            code = PRELUDE + "h = network().fit(X, Y, epochs=2, progress=True)\n"
            reply = client.execute_interactive(code, timeout=60, output_hook=messages.append)
            assert reply["content"]["status"] == "ok"
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
        kinds = {"display_data", "update_display_data", "stream", "error"}
        shown = [message for message in messages if message["msg_type"] in kinds]
        assert shown[0]["msg_type"] == "display_data"
        assert {message["msg_type"] for message in shown[1:]} == {"update_display_data"}
        last = shown[-1]["content"]
        assert last["transient"] == shown[0]["content"]["transient"]
        assert [row[0] for row in table(last["data"]["text/html"])] == ["epoch", "1", "2"]


def test_speed_is_that_of_training_alone():
    class Slow(progress.Progress):
        def advance(self, samples, averages):
            super().advance(samples, averages)
            clock.append(1000.0)

    # time that passes while progress is shown
    clock: list[float] = []
    true, sleep = fastnn.training.time.perf_counter, fastnn.training.time.sleep
    with pytest.MonkeyPatch.context() as patch:
        fake = types.SimpleNamespace(perf_counter=lambda: true() + sum(clock), sleep=sleep)
        patch.setattr(fastnn.training, "time", fake)
        history = network().fit(X, Y, epochs=2, progress=Slow())
    assert len(clock) >= 3
    assert max(history.seconds) < 1000
