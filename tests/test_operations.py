"""Functions that are called through their addresses."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llvmlite import ir
from numba.core.errors import TypingError

from fastnn.backends import numba_backend
from fastnn.backends.numba_backend import jit
from fastnn.backends.numba_backend.epoch import (
    backward,
    clipping,
    forward,
    in_pairs,
    losses,
    one_sample,
    optimizers,
    rounding,
    stages,
)
from fastnn.backends.numba_backend.kernels import elementwise, matmul, rows
from fastnn.backends.numba_backend.kernels.optimizers import RULES
from fastnn.backends.numba_backend.language import Kernel

ROOM = Path(numba_backend.__file__).parent

ELEMENTWISE = [*elementwise.FORWARD.values(), *elementwise.BACKWARD.values()]
STEPS = [rule.kernel for rule in RULES.values()]
CALLED = {
    ("layerwise/elementwise.py", "kernel"): ELEMENTWISE,
    ("kernels/optimizers.py", "kernel"): STEPS,
    ("epoch/stages.py", "function"): ELEMENTWISE,
    ("epoch/stages.py", "derivative"): ELEMENTWISE,
    ("epoch/stages.py", "forward"): [
        stages.elementwise_forward,
        stages.dropout_forward,
        stages.batch_norm_forward,
        stages.batch_norm_inference,
    ],
    ("epoch/stages.py", "backward"): [
        stages.elementwise_backward,
        stages.dropout_backward,
        stages.batch_norm_backward,
    ],
    ("epoch/stages.py", "move"): [optimizers.move, clipping.collect],
    ("epoch/forward.py", "load_in_pairs"): [in_pairs.load_in_pairs],
    ("epoch/forward.py", "multiply_in_pairs"): [in_pairs.multiply_in_pairs],
    ("epoch/forward.py", "multiply_samples"): [matmul.MULTIPLY_SAMPLES],
    ("epoch/forward.py", "round_inputs"): [rounding.round_inputs],
    ("epoch/forward.py", "round_weights"): [rounding.round_weights],
    ("epoch/forward.py", "update_and_multiply"): [one_sample.update_and_multiply],
    ("epoch/backward.py", "gradient_in_pairs"): [in_pairs.gradient_in_pairs],
    ("epoch/backward.py", "move"): [optimizers.move, clipping.collect],
    ("epoch/backward.py", "multiply_samples_turned"): [matmul.MULTIPLY_SAMPLES_TURNED],
    ("epoch/backward.py", "pack_weights"): [in_pairs.pack_weights],
    ("epoch/backward.py", "round_gradient"): [rounding.round_gradient],
    ("epoch/backward.py", "round_weights"): [rounding.round_weights],
    ("epoch/clipping.py", "move"): [optimizers.move],
    ("epoch/step.py", "add_penalties"): [backward.add_penalties],
    ("epoch/step.py", "backward_stages"): [stages.backward_stages],
    ("epoch/step.py", "clip"): [clipping.clip],
    ("epoch/step.py", "forward_stages"): [stages.forward_stages],
    ("epoch/step.py", "input_gradient_in_pairs"): [in_pairs.input_gradient_in_pairs],
    ("epoch/step.py", "load_input"): [stages.load_input],
    ("epoch/step.py", "loss"): [
        operation for loss in losses.LOSSES.values() for operation in (loss.operation, loss.general)
    ],
    ("epoch/step.py", "put_rows"): [forward.put_rows],
    ("epoch/step.py", "update_and_multiply"): [one_sample.update_and_multiply],
    ("epoch/in_pairs.py", "pack_weights"): [in_pairs.pack_weights],
}
"""What lies at the addresses: by file, and by the name of the variable or field that holds one."""


def calls() -> list[tuple[str, str, int]]:
    """Return file, name of the address and number of other arguments of all such calls."""
    found = []
    for path in sorted(ROOM.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "call":
                address, *arguments = node.args
                name = address.attr if isinstance(address, ast.Attribute) else address.id
                found.append((path.relative_to(ROOM).as_posix(), name, len(arguments)))
    return found


def parameters(function: jit.Operation | jit.KernelOperation) -> int:
    if isinstance(function, jit.KernelOperation):
        return len(function._kernel.parameters)
    return len(inspect.signature(function.function).parameters)


def test_a_call_gives_as_many_arguments_as_there_are_parameters():
    """No compiler looks: it knows nothing of what lies at an address."""
    found = calls()
    assert {(file, name) for file, name, _ in found} == set(CALLED)
    for file, name, arguments in found:
        for function in filter(None, CALLED[file, name]):
            assert parameters(function) == arguments, (file, name, function)


def test_every_operation_is_called():
    known = {id(function) for functions in CALLED.values() for function in functions}
    operations = backward, clipping, forward, in_pairs, losses, one_sample, optimizers, rounding
    for module in (*operations, stages):
        for name, value in vars(module).items():
            if isinstance(value, jit.Operation):
                assert id(value) in known, name


def test_threads_and_forks_find_one_kernel(tmp_path):
    """Threads that ask at once get one address; a child doesn't wait for a thread of its parent."""
    program = """
import os, sys, threading, time
import numpy as np
from fastnn.backends.numba_backend import jit
from fastnn.backends.numba_backend.kernels.elementwise import FORWARD

compiled = jit.machine_code


def slowly(*arguments):
    begun.set()
    time.sleep(0.3)
    return compiled(*arguments)


begun = threading.Event()
jit.machine_code = slowly
kernel, dtype, found = FORWARD["mish"], np.dtype(np.float32), []
threads = [
    threading.Thread(target=lambda: found.append(kernel.address(dtype))) for _ in range(4)
]
for thread in threads:
    thread.start()
begun.wait()
child = os.fork()
if child == 0:
    FORWARD["elu"].address(dtype)
    os._exit(0)
for thread in threads:
    thread.join()
assert len(set(found)) == 1 and len(found) == 4, found
deadline = time.monotonic() + 30
while os.waitpid(child, os.WNOHANG) == (0, 0):
    if time.monotonic() > deadline:
        os.kill(child, 9)
        sys.exit("the child waits")
    time.sleep(0.01)
"""
    environment = os.environ | {
        "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)
    }  # fmt: skip
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    done = subprocess.run(command, text=True, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr


@jit.jit
def calls_with_two_kinds_of_numbers(address, one):
    jit.call(address, one, 0.0)


@jit.jit
def takes_a_record_for_a_matrix(one, records):
    rows.clear(one, jit.record_at(records, 0))


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (calls_with_two_kinds_of_numbers, (0, np.float32(1))),
        (takes_a_record_for_a_matrix, (np.float32(1), np.zeros(1, stages.STAGE))),
    ],
)
def test_wrong_arguments_are_refused_when_compiled(function, arguments):
    with pytest.raises(TypingError, match="expected numbers"):
        function(*arguments)


def test_a_value_of_a_kernel_is_no_condition_of_python():
    kernel = Kernel(ir.IRBuilder(), ir.FloatType())
    number = kernel.integer(3)
    with pytest.raises(TypeError, match="equals"):
        number == 3  # noqa: B015
    with pytest.raises(TypeError, match="when"):
        bool(number)
