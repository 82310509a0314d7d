"""The language of microkernels: what it refuses while a kernel is written, and what it computes."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest
from llvmlite import ir

from fastnn import memory
from fastnn.backends.numba_backend.epoch import meetings
from fastnn.backends.numba_backend.jit import jit
from fastnn.backends.numba_backend.language import FLOAT, Int, Kernel, Real
from fastnn.backends.numba_backend.machine import lanes
from fastnn.backends.numba_backend.microkernel import microkernel


@pytest.fixture
def kernel():
    function = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), []), "kernel")
    return Kernel(ir.IRBuilder(function.append_basic_block()), FLOAT)


def test_what_python_would_decide_is_refused(kernel):
    x = kernel.constant(2.0)
    for decided in (
        lambda: 0.0 < x < 1.0,
        lambda: x > 0.0 and x < 1.0,
        lambda: not x.equals(0.0),
        lambda: x == 0.0,
        lambda: bool(x),
    ):
        with pytest.raises(TypeError, match=r"expected .*(when|equals)"):
            decided()


def test_vectors_and_integers_do_not_mix(kernel):
    for mixed in (
        lambda: kernel.minimum(kernel.constant(2.0), kernel.integer(1)),
        lambda: kernel.integer(1) + kernel.constant(2.0),
        lambda: kernel.constant(2.0) * kernel.integer(1),
    ):
        with pytest.raises(TypeError, match=r"expected (Vector|Int) beside its like, got"):
            mixed()


def test_signals_are_acquired_and_released(kernel):
    """On x86 any order works unless the compiler changes it; on Arm processors do as well.

    What a member stored before its signal is to be seen by whoever has seen the signal.
    """
    kernel.load_shared(kernel.integer(0))
    kernel.store_shared(1, kernel.integer(0))
    code = str(kernel.builder.function)
    assert re.search(r"load atomic i64, i64\* .* acquire, align 8", code)
    assert re.search(r"store atomic i64 1, i64\* .* release, align 8", code)


def test_members_of_a_team_look_at_signals_by_no_other_way():
    """A plain load in a loop may be made once, before the loop."""
    source = inspect.getsource(meetings)
    assert "load_integer" not in source
    assert "store_integer" not in source
    assert "_at(" not in source.replace("signal_at(", "")


@microkernel
def between(k: Kernel, like: Real, x: Int, inside: Int, outside: Int, clipped: Int) -> None:
    """Write 1 where -1 < x < 2, and where that is not so; write x clipped at both."""
    v, one, zero = k.load(x), k.constant(1.0), k.zero()
    k.store(k.where((v > -1.0) & (v < 2.0), one, zero), inside)
    k.store(k.where((v < -1.0) | (v > 2.0) | v.equals(2.0), one, zero), outside)
    k.store(k.minimum(k.constant(2.0), k.maximum(k.constant(-1.0), v)), clipped)


@jit
def call_between(like, x, inside, outside, clipped):
    between(like, x, inside, outside, clipped)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_conditions_are_joined_number_by_number(dtype):
    count = lanes(np.dtype(dtype).itemsize)
    numbers = [-np.inf, -1.5, -1.0, 0.0, 1.5, 2.0, 3.0, np.nan]
    for first in range(len(numbers)):
        x, *outputs = (memory.aligned_zeros(count, np.dtype(dtype)) for _ in range(4))
        x[:] = np.resize(np.roll(numbers, first), count)
        call_between(dtype(0), *(array.ctypes.data for array in (x, *outputs)))
        np.testing.assert_array_equal(outputs[0], (x > -1) & (x < 2))
        np.testing.assert_array_equal(outputs[1], (x < -1) | (x >= 2))
        np.testing.assert_array_equal(outputs[2], np.clip(x, -1, 2))
