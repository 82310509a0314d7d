"""The command, run as a user runs it."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from conftest import perceptron
from drawing import as_file, drawn

import fastnn
from fastnn import backends, tables
from fastnn.cli import main
from fastnn.images import read as read_picture

COMMAND = [sys.executable, "-m", "fastnn"]

# The package that these tests have imported, which is not always that of the clone.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(fastnn.__file__).parent.parent)}


def run_alone(*arguments, **options) -> subprocess.CompletedProcess:
    """Run the command in a process of its own."""
    environment = ENVIRONMENT | options.pop("env", {})
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        text=True,
        capture_output=True,
        env=environment,
        cwd=options.pop("cwd", tempfile.gettempdir()),
        **options,
    )


def run(*arguments, env=None, cwd=None, input="") -> subprocess.CompletedProcess:
    """Run the command here, as it would run alone."""
    command = list(map(str, arguments))
    output, errors = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patched,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        warnings.simplefilter("default")
        patched.chdir(cwd or tempfile.gettempdir())
        patched.setattr(sys, "stdin", io.StringIO(input))
        for name, value in (env or {}).items():
            patched.setenv(name, value)
        try:
            status = main(command)
        except SystemExit as end:  # of argparse
            status = end.code
    return subprocess.CompletedProcess(command, status, output.getvalue(), errors.getvalue())


def test_train_and_evaluate(tmp_path, small_data, backend):
    model, plot = tmp_path / "model.safetensors", tmp_path / "curves.png"
    common = ("--data", small_data, "--backend", backend)
    options = ("--hidden", 30, 20, "--epochs", 12, "--batch-size", 16, "--learning-rate", 0.2)
    options += ("--threads", 2)
    done = run("train", *common, *options, "--seed", 3, "--save", model, "--plot", plot)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "784-30-20-10" in done.stdout
    assert len([line for line in lines if line.startswith("epoch ")]) == 12
    accuracy = float(re.search(r"^test accuracy (0\.\d{4})$", done.stdout, re.M)[1])
    assert accuracy > 0.6
    assert re.search(r"^time .* s training, and .* compile", done.stdout, re.M)
    assert plot.read_bytes().startswith(b"\x89PNG")
    again = run("evaluate", model, *common)
    assert again.returncode == 0, again.stderr
    assert f"test accuracy {accuracy:.4f}" in again.stdout
    assert isinstance(fastnn.load(model)[0], fastnn.Rescaling)


def test_evaluate_evaluates_once(tmp_path, small_data, monkeypatch):
    model, calls = tmp_path / "model", []
    perceptron(784, 10, seed=0).save(model)
    evaluate = fastnn.Network.evaluate

    def counted(*arguments, **options):
        calls.append(arguments)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(fastnn.Network, "evaluate", counted)
    assert main(["evaluate", str(model), "--data", str(small_data)]) == 0
    assert len(calls) == 1


def test_a_warning_is_one_line(tmp_path, small_data):
    for file in small_data.iterdir():
        content = file.read_bytes()
        if "labels" in file.name:
            content = content[:8] + bytes(label + 1 for label in content[8:])
        (tmp_path / file.name).write_bytes(content)
    done = run("train", "--data", tmp_path, "--epochs", 1, "--hidden", 10)
    assert done.returncode == 0
    assert re.fullmatch(
        "fastnn: warning: y: no sample is of class 0; labels go from 1 to 10, and the 11 outputs "
        "are for classes 0 to 10; if labels count from 1, write y - 1, and 10 outputs\n",
        done.stderr,
    )


def test_evaluate_a_model_of_scaled_images(tmp_path, small_data):
    _, _, _, _, X_test, y_test = fastnn.load_dataset(flatten=True, path=small_data)
    network = fastnn.Network([fastnn.Dense(784, 10)], seed=0)
    network.save(tmp_path / "model")
    done = run("evaluate", tmp_path / "model", "--data", small_data)
    assert f"test accuracy {network.evaluate(X_test, y_test).accuracy:.4f}" in done.stdout


def test_data_by_name(tmp_path, small_data):
    (tmp_path / "kmnist").symlink_to(small_data)
    found = {"FASTNN_DATA": str(tmp_path)}
    done = run("train", "--data", "KMNIST", "--epochs", 1, "--hidden", env=found)
    assert done.returncode == 0, done.stderr
    assert "584 training, 116 validation, 100 test images" in done.stdout
    done = run("train", "--data", "emnist-letters", env=found | {"HOME": str(tmp_path)})
    assert done.returncode == 2
    assert "emnist_letters: found no files of it" in done.stderr
    assert "nist.gov" in done.stderr


def test_predict(tmp_path, reader, backend):
    pytest.importorskip("PIL")
    model = tmp_path / "model"
    reader.save(model)
    for digit in (3, 7):
        (tmp_path / f"{digit}.png").write_bytes(as_file(1 - drawn(digit)).getvalue())
    done = run("predict", model, "3.png", "7.png", "--backend", backend, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    head, *rows = map(str.split, done.stdout.splitlines())
    assert head == ["answer", *map(str, range(10))]
    for digit, (name, answer, *probabilities) in zip((3, 7), rows, strict=True):
        assert (name, answer) == (f"{digit}.png", str(digit))
        p = reader.predict_proba(read_picture(tmp_path / name).reshape(1, -1))[0]
        # printed to four places
        np.testing.assert_allclose([float(text) for text in probabilities], p, rtol=0, atol=6e-5)
    done = run("predict", model, "3.png", "7.png", "--output", "a.csv", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "2 answers in a.csv\n"), done.stderr
    head, *rows = ((tmp_path / "a.csv").read_text()).splitlines()
    assert head == "picture,answer," + ",".join(f"probability_{i}" for i in range(10))
    assert [row.split(",")[:2] for row in rows] == [["3.png", "3"], ["7.png", "7"]]
    rows = "\n".join(",".join(["0"] * 783 + [str(i)]) for i in range(2))
    done = run("predict", model, "-", input=rows, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line[:5] for line in done.stdout.splitlines()[1:]] == ["row 1", "row 2"]


def test_show_and_page(tmp_path, reader, small_data):
    pytest.importorskip("matplotlib")
    reader.save(tmp_path / "model")
    done = run("show", "model", "--data", small_data, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "sheet in sheet.png\n"), done.stderr
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    done = run("page", "model", "page.html", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "page in page.html\n"), done.stderr
    assert "model: 784-100-50-10" in (tmp_path / "page.html").read_text()
    fastnn.Network([fastnn.Dense(64, 10)]).save(tmp_path / "small")
    for command in (("show", "small", "--data", small_data), ("page", "small", "small.html")):
        done = run(*command, cwd=tmp_path)
        assert done.returncode == 2
        assert "fastnn: error: expected" in done.stderr
        assert "64" in done.stderr


def test_mistakes_of_predict_are_explained(tmp_path):
    fastnn.Network([fastnn.Dense(64, 10)]).save(tmp_path / "small")
    fastnn.Network([fastnn.Dense(784, 10)]).save(tmp_path / "model")
    fastnn.Network([fastnn.Dense(784, 10)], loss="mse").save(tmp_path / "mse")
    (tmp_path / "white.png").write_bytes(as_file(np.ones((9, 9))).getvalue())
    (tmp_path / "digit.png").write_bytes(as_file(drawn(4)).getvalue())
    for arguments, message in {
        ("none", "digit.png"): "none: expected a model file",
        ("small", "digit.png"): "expected a network of 784 inputs, the pixels of a digit, got one",
        ("mse", "digit.png"): "expected a network with the loss 'softmax_cross_entropy'",
        ("model", "model"): "model: expected a picture",
        ("model", "none.png"): "none.png",
        ("model", "white.png"): "white.png: expected a picture of a drawn digit, found no stroke",
        ("model", "-"): "standard input, line 1: expected 784 columns, got 3",
        ("model", "digit.png", "-"): "INPUT: expected pictures, or one table or - alone",
    }.items():
        done = run("predict", *arguments, cwd=tmp_path, input="1,2,3\n")
        assert done.returncode == 2
        assert "fastnn: error: " in done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["momentum", "rmsprop", "adam"])
def test_optimizers(tmp_path, small_data, name):
    model = tmp_path / "model"
    options = ("--data", small_data, "--epochs", 8, "--batch-size", 16, "--save", model)
    done = run("train", *options, "--optimizer", name)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"^test accuracy (.*)$", done.stdout, re.M)[1]) > 0.6
    optimizer = fastnn.load(model).optimizer
    expected = fastnn.SGD if name == "momentum" else fastnn.Optimizer
    assert isinstance(optimizer, expected)
    assert optimizer.learning_rate == (0.01 if name == "momentum" else 0.001)
    again = run("train", *options, "--optimizer", name, "--learning-rate", 0)
    assert again.returncode == 0, again.stderr
    assert fastnn.load(model).optimizer.learning_rate == 0.0


def test_what_the_network_is_made_of(tmp_path, small_data, backend):
    model = tmp_path / "model"
    options = ("--data", small_data, "--backend", backend, "--hidden", 30, 20, "--epochs", 6)
    options += ("--batch-size", 16, "--activation", "leaky_relu", "--batch-norm")
    options += ("--label-smoothing", 0.05, "--clip-norm", 5, "--matmul-precision", "bfloat16")
    done = run("train", *options, "--dropout", 0.1, "--save", model)
    assert done.returncode == 0, done.stderr
    assert "784-30-20-10, batch norm leaky_relu dropout 0.1, " in done.stdout
    assert float(re.search(r"^test accuracy (.*)$", done.stdout, re.M)[1]) > 0.6
    names = [type(layer).__name__ for layer in fastnn.load(model)]
    assert names == ["Rescaling", *2 * ["Dense", "BatchNorm", "LeakyReLU", "Dropout"], "Dense"]
    assert fastnn.load(model)[4].p == 0.1
    assert fastnn.load(model).clip_norm == 5
    assert fastnn.load(model).matmul_precision == "bfloat16"
    assert ", float32 with products in bfloat16, " in done.stdout
    assert repr(fastnn.load(model)._loss) == "SoftmaxCrossEntropy(label_smoothing=0.05)"


def test_every_activation_has_a_name():
    names = {name for name in fastnn.activations.__all__ if name != "Activation"} | {"ReLU"}
    known = fastnn.activations.BY_NAME
    assert {type(make()).__name__ for make in known.values()} == names
    shown = run("train", "--help").stdout
    assert all(name in shown for name in known)


@pytest.mark.parametrize("name", ["constant", "step", "cosine", "warm-up"])
def test_schedules(tmp_path, small_data, name):
    model = tmp_path / "model"
    options = ("--data", small_data, "--epochs", 6, "--batch-size", 16, "--hidden", 20)
    done = run("train", *options, "--learning-rate", 0.2, "--schedule", name, "--save", model)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"^test accuracy (.*)$", done.stdout, re.M)[1]) > 0.6
    network = fastnn.load(model)
    epoch = math.ceil(584 / 16)
    assert network[1].steps == 6 * epoch
    rates = [network.optimizer.rate(step) for step in range(6 * epoch + 1)]
    if name == "constant":
        assert set(rates) == {0.2}
    elif name == "step":
        assert rates[:: 2 * epoch] == pytest.approx([0.2, 0.02, 0.002, 0.0002])
    elif name == "cosine":
        assert rates[0] == 0.2
        assert rates[-1] == 0
        assert rates == sorted(rates, reverse=True)
    else:
        assert rates[0] == pytest.approx(0.2 / epoch)
        assert rates[-1] == 0
        assert epoch - 2 <= rates.index(max(rates)) <= epoch


def test_early_stopping(tmp_path, small_data):
    model = tmp_path / "model"
    options = ("--data", small_data, "--epochs", 500, "--batch-size", 16, "--hidden", 50)
    done = run("train", *options, "--early-stopping", 2, "--save", model)
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"loss \S+ val (\S+)", done.stdout)]
    best = int(re.search(r"^the weights are those of epoch (\d+)", done.stdout, re.M)[1])
    assert len(losses) == best + 2 < 500
    assert min(losses) == losses[best - 1]
    _, _, X, y, *_ = fastnn.load_dataset(flatten=True, path=small_data, dtype=np.uint8)
    # printed to four places
    assert fastnn.load(model).evaluate(X, y).loss == pytest.approx(losses[best - 1], abs=1e-4)


def test_softmax_regression_without_hidden_layers(small_data):
    done = run("train", "--hidden", "--epochs", 1, "--data", small_data)
    assert done.returncode == 0, done.stderr
    assert "784-10," in done.stdout


def test_info():
    done = run("info")
    assert done.returncode == 0, done.stderr
    for name in ("fastnn", "python", "numpy", "numba", "cpu", "vectors", "cores", "cache"):
        assert re.search(rf"^{name} +\S", done.stdout, re.M), name


@pytest.mark.parametrize(
    "command", ["", "train", "evaluate", "predict", "show", "page", "bench", "info"]
)
def test_help(command):
    done = run(*command.split(), "--help")
    assert done.returncode == 0
    assert "usage: fastnn" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--learning-rate", "nan"), "--learning-rate: expected a finite number"),
        (("train", "--optimizer", "adagrad"), "invalid choice: 'adagrad'"),
        (("train", "--epochs", "0"), "--epochs: expected an integer of at least 1"),
        (("train", "--batch-size", "0"), "--batch-size: expected an integer of at least 1"),
        (("train", "--epochs", "0", "--schedule", "cosine"), "epochs"),
        (
            ("train", "--dropout", "1"),
            "--dropout: expected a finite number of at least 0 and below 1",
        ),
        (("train", "--clip-norm", "0"), "--clip-norm: expected None or a number above 0"),
        (("train", "--label-smoothing", "1"), "--label-smoothing: expected a finite number"),
        (
            ("train", "--dtype", "float64", "--matmul-precision", "bfloat16", "--data", "/none"),
            "--matmul-precision: expected None beside dtype float64, got 'bfloat16'",
        ),
        (("train", "--early-stopping", "0"), "--early-stopping: expected an integer"),
        (("train", "--activation", "softmax"), "invalid choice: 'softmax'"),
        (("show", "/no/such/model"), "/no/such/model"),
        (("show", "model", "sheet.txt"), "SHEET: expected a .png, .svg or .pdf file"),
        (("page", "/no/such/model", "page.html"), "/no/such/model"),
        (("page", "model", "/no/such/place/page.html"), "PAGE: expected a file in an existing"),
        (("train", "--threads", "0", "--data", "/no/such"), "--threads: expected an integer"),
        (("train", "--resume", "/no/such", "--data", "/none"), "/no/such: expected a checkpoint"),
        (("train", "--resume", __file__, "--data", "/none"), "expected a checkpoint of fastnn"),
        (("train", "--checkpoint-every", "3", "--data", "/none"), "--checkpoint-every: expected"),
        (("train", "--checkpoint-every", "0", "--checkpoint", "c"), "--checkpoint-every: expected"),
        (("train", "--hidden", "10", "0"), "--hidden: expected an integer of at least 1"),
        (("train", "--data", "/no/such/place"), "/no/such/place"),
        (("train", "--save", "/no/such/place/model"), "--save"),
        (("train", "--plot", "curves.txt"), "--plot"),
        (("train", "--backend", "cuda"), "cuda"),
        (("evaluate", "/no/such/model"), "/no/such/model"),
        ((), "COMMAND"),
    ],
)
def test_mistakes_are_explained(arguments, message, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "error" in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def interrupt(arguments, after: str, seconds: float, **variables) -> tuple[str, int]:
    """Press Ctrl-C some time after a line has begun; return what is printed then, and the code."""
    with subprocess.Popen(
        [*COMMAND, *arguments],
        text=True,
        env=ENVIRONMENT | {"PYTHONUNBUFFERED": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # what a shell runs in the background, these tests perhaps, is told to ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        for line in process.stdout:
            if line.startswith(after):
                break
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    return output, process.returncode


def test_interrupt_reports_what_was_learned(tmp_path):
    model = tmp_path / "model"
    arguments = ["train", "--epochs", "100000", "--hidden", "16", "--save", str(model)]
    output, code = interrupt(arguments, "epoch", 0.2)
    assert re.search(r"^interrupted after \d+ epochs and [\d,]+ images", output, re.M)
    assert re.search(r"^test accuracy 0\.\d{4}$", output, re.M)
    assert code == 130
    assert model.exists()


def test_interrupt_leaves_the_best_weights(small_data, tmp_path):
    arguments = ["train", "--data", str(small_data), "--learning-rate", "0.5", "--hidden", "16"]
    stopping = ["--early-stopping", "100000", "--epochs", "100000"]
    model = ["--save", str(tmp_path / "model")]
    # long after the training data are known by heart
    output, code = interrupt([*arguments, *stopping, *model], "epoch     60/", 0.0)
    assert code == 130
    (best,) = re.findall(r"the weights are those of epoch (\d+), of the least val loss", output)
    assert int(best) < 60
    assert run(*arguments, "--epochs", best, "--save", tmp_path / "same").returncode == 0
    found, expected = (fastnn.load(tmp_path / name).get_weights() for name in ("model", "same"))
    assert all(map(np.array_equal, found, expected))


def test_interrupt_before_anything_was_learned(tmp_path):
    output, code = interrupt(["train"], "preparing", 1, NUMBA_CACHE_DIR=str(tmp_path))
    assert "accuracy" not in output
    # CPython ends by the signal, as shells count it 130 as well, where it has come in the midst of
    # an `exec` of text, of which Numba does many.
    assert code in (130, -signal.SIGINT)


def test_divergence_ends_the_training(small_data):
    done = run("train", "--learning-rate", 1e6, "--data", small_data, "--epochs", 5)
    assert done.returncode == 1
    assert "training has diverged in epoch 1, step " in done.stdout
    assert done.stderr == ""
    assert "test accuracy" in done.stdout
    assert "nan" not in done.stdout.partition("the last good ones")[2]


def test_going_on_in_spite_of_divergence(small_data, tmp_path):
    options = ["--learning-rate", 1e30, "--data", small_data, "--epochs", 3, "--hidden", 8]
    for choice, said in (("warn", "fastnn: warning: the loss of epoch "), ("ignore", "")):
        model = tmp_path / f"{choice}.model"
        done = run("train", *options, "--on-divergence", choice, "--save", model)
        assert done.returncode == 1
        assert done.stderr.startswith(said)
        assert bool(said) == bool(done.stderr)
        assert done.stdout.count("epoch ") == 3
        done = run("evaluate", model, "--data", small_data)
        assert done.returncode == 1
        assert "test loss nan" in done.stdout
        assert done.stderr.startswith(f"fastnn: error: {model}: the loss is nan: network[")
        assert " holds NaN or infinity in " in done.stderr


def test_no_output_takes_the_place_of_an_input_or_of_another(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("a,y\n1,2\n")
    both = tmp_path / "both"
    for options in (
        ["--csv", table, "--target", "y", "--save", tmp_path / "." / "table.csv"],
        ["--save", both, "--checkpoint", both],
    ):
        done = run("train", *options)
        assert done.returncode == 2
        assert "expected a file of its own, got " in done.stderr
    assert table.read_text() == "a,y\n1,2\n"
    assert not both.exists()


def test_pictures_are_not_drawn_of_a_model_of_a_table(tmp_path):
    network = fastnn.Network([fastnn.Dense(784, 10)], seed=0)
    network.metadata = {tables.ENTRY: "{}"}
    network.save(tmp_path / "model")
    for command in (["show", "sheet.png"], ["page", "page.html"]):
        done = run(command[0], tmp_path / "model", tmp_path / command[1])
        assert done.returncode == 2
        assert "model: expected a model of images, got one of a table" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_without_standard_output(small_data, tmp_path):
    """As under `>&-`, where Python has none."""
    model = tmp_path / "model"
    command = [*COMMAND, "train", "--data", str(small_data), "--epochs", "1", "--save", str(model)]
    closing = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command],
        env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert (closing.returncode, closing.stderr) == (0, "")
    assert model.is_file()


def test_unknown_backend_in_the_environment(monkeypatch):
    done = run_alone("train", env={"FASTNN_BACKEND": "cuda"})
    assert done.returncode == 2
    assert "FASTNN_BACKEND: expected one of 'numba', 'numpy', got 'cuda'" in done.stderr
    monkeypatch.setattr(backends, "_environment", "cuda")
    assert run("--help").returncode == 0


def test_the_script_that_an_installation_makes():
    try:
        (script,) = metadata.distribution("fastnn").entry_points
    except metadata.PackageNotFoundError:
        pytest.skip("fastnn is not installed")
    assert script.load()(["info"]) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of POSIX")
def test_the_progress_bar_fits_a_terminal(small_data):
    import fcntl
    import pty
    import termios

    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    arguments = ["train", "--epochs", "1", "--hidden", "512", "512", "--data", str(small_data)]
    done = subprocess.run([*COMMAND, *arguments], stderr=terminal, env=ENVIRONMENT, check=True)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # Linux says so at the end
        while piece := os.read(controller, 65536):
            shown += piece
    assert done.returncode == 0
    states = [state for state in re.split(r"[\r\n]", shown.decode()) if "loss" in state]
    assert states
    for state in states:
        assert re.search(r"epoch 1/1 .*samples/s.*loss \d\.\d{4}, accuracy \d\.\d{4}", state)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a directory that nobody can write to")
@pytest.mark.parametrize("option", ["--save", "--plot", "--checkpoint"])
def test_what_can_not_be_written_is_refused_before_training(option, capsys):
    """`os.access` says yes to root, and the network was lost when it had been trained."""
    name = "x.png" if option == "--plot" else "x"
    assert main(["train", option, f"/proc/{name}"]) == 2
    message = f"{option}: expected a file that can be written, got /proc/{name}: "
    output = capsys.readouterr()
    assert message in output.err
    assert "epoch" not in output.out + output.err


def test_a_table_without_its_option(capsys):
    for file in ("houses.csv", "old houses.parquet"):
        with pytest.raises(SystemExit):
            main(["train", file])
        assert "a table is given by --csv FILE or --parquet FILE" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", "mnist"])
    assert "--csv FILE" not in capsys.readouterr().err.partition("unrecognized")[2]
