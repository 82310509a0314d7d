"""Functions that are called through their addresses."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

from fastnn.backends import numba_backend
from fastnn.backends.numba_backend import jit
from fastnn.backends.numba_backend.epoch import losses, one_sample, optimizers, stages, step
from fastnn.backends.numba_backend.kernels import elementwise
from fastnn.backends.numba_backend.kernels.optimizers import RULES

ROOM = Path(numba_backend.__file__).parent

ELEMENTWISE = [*elementwise.FORWARD.values(), *elementwise.BACKWARD.values()]
STEPS = [rule.kernel for rule in RULES.values()]
CALLED = {
    ("layerwise/elementwise.py", "kernel"): ELEMENTWISE,
    ("layerwise/optimizers.py", "kernel"): STEPS,
    ("epoch/optimizers.py", "kernel"): STEPS,
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
    ("epoch/stages.py", "move"): [optimizers.move],
    ("epoch/step.py", "move"): [optimizers.move],
    ("epoch/step.py", "forward_stages"): [stages.forward_stages],
    ("epoch/step.py", "backward_stages"): [stages.backward_stages],
    ("epoch/step.py", "load_input"): [stages.load_input],
    ("epoch/step.py", "loss"): [loss.operation for loss in losses.LOSSES.values()],
    ("epoch/step.py", "add_penalties"): [step.add_penalties],
    ("epoch/step.py", "update_and_multiply"): [one_sample.update_and_multiply],
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
    return len(inspect.signature(function._function).parameters)


def test_a_call_gives_as_many_arguments_as_there_are_parameters():
    """No compiler looks: it knows nothing of what lies at an address."""
    found = calls()
    assert {(file, name) for file, name, _ in found} == set(CALLED)
    for file, name, arguments in found:
        for function in filter(None, CALLED[file, name]):
            assert parameters(function) == arguments, (file, name, function)


def test_every_operation_is_called():
    known = {id(function) for functions in CALLED.values() for function in functions}
    for module in (losses, one_sample, optimizers, stages, step):
        for name, value in vars(module).items():
            if isinstance(value, jit.Operation):
                assert id(value) in known, name
