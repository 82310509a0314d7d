"""Numbers below the smallest normal one: who flushes them to zero, and who doesn't."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import sys
import threading

import numpy as np
import pytest
import ulps
from llvmlite import binding

from fastnn import Dense, Network
from fastnn.backends import numpy_backend as reference
from fastnn.losses import MeanSquaredError

of_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="reads a register of x86"
)

FLUSH_RESULTS, FLUSH_OPERANDS = 1 << 15, 1 << 6
"""Of MXCSR: FTZ and DAZ."""
FLAGS = 0x3F
"""Of MXCSR: what has happened, not what is to happen."""

CODE = """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define void @get(ptr %place) {
  call void @llvm.x86.sse.stmxcsr(ptr %place)
  ret void
}
define void @put(ptr %place) {
  call void @llvm.x86.sse.ldmxcsr(ptr %place)
  ret void
}
"""


@pytest.fixture(scope="module")
def register():
    """Functions that read and write the register of floating-point modes of a thread."""
    target = binding.Target.from_triple(binding.get_process_triple())
    engine = binding.create_mcjit_compiler(
        binding.parse_assembly(CODE), target.create_target_machine(jit=True)
    )
    engine.finalize_object()
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    get, put = (kind(engine.get_function_address(name)) for name in ("get", "put"))

    def read() -> int:
        value = ctypes.c_uint32()
        get(ctypes.addressof(value))
        return value.value & ~FLAGS

    def write(number: int) -> None:
        put(ctypes.addressof(ctypes.c_uint32(number)))

    yield read, write
    del engine


@contextlib.contextmanager
def flushing(register):
    """Have this thread compute as one whose libraries were compiled with -ffast-math."""
    read, write = register
    before = read()
    write(before | FLUSH_RESULTS | FLUSH_OPERANDS)
    try:
        yield
    finally:
        write(before)


def network(backend, dtype) -> Network:
    """Return one whose first weights, and hidden values, are subnormal; its outputs are not."""
    layers = [Dense(40, 33, biases="zeros"), Dense(33, 5, biases="zeros")]
    made = Network(layers, seed=0, loss=MeanSquaredError(), backend=backend, dtype=dtype)
    single = dtype == np.float32
    rng = np.random.default_rng(3)
    made[0].weights = rng.normal(size=(40, 33)) * (2e-41 if single else 5e-311)
    made[1].weights = rng.normal(size=(33, 5)) * (1e16 if single else 1e140)
    made[0].learning_rate = 3e-36 if single else 3e-284
    return made


def samples(dtype) -> np.ndarray:
    return np.random.default_rng(4).uniform(-8, 8, (64, 40)).astype(dtype)


@pytest.mark.usefixtures("backend")
def test_products_may_be_subnormal(backend, dtype):
    X, made = samples(dtype), network(backend, dtype)
    hidden = made[0].forward(X)
    assert 0 < np.abs(hidden).max() < np.finfo(dtype).tiny
    unit = float(np.finfo(dtype).smallest_subnormal)
    x, w = X.astype(np.longdouble), made[0].weights.astype(np.longdouble)
    assert (np.abs(hidden - x @ w) <= 41 * unit).all()
    h, v = hidden.astype(np.longdouble), made[1].weights.astype(np.longdouble)
    outputs = made[1].forward(hidden)
    assert np.abs(outputs).min() > 0
    bound = 34 * np.finfo(dtype).eps * (np.abs(h) @ np.abs(v))
    assert (np.abs(outputs - h @ v) <= bound).all()


def test_a_team_computes_with_subnormal_numbers(dtype):
    """Weights move by what hidden values below the smallest normal number give, or not at all."""
    X, y = samples(dtype), np.zeros((64, 5))
    moved = {}
    for backend, threads in (("numpy", 1), ("numba", 1), ("numba", 2)):
        made = network(backend, dtype)
        before = made[0].weights.astype(np.longdouble)
        made.fit(X, y, epochs=3, batch_size=16, threads=threads)
        moved[backend, threads] = made[0].weights - before
    expected = moved["numpy", 1]
    size = np.abs(expected).max()
    assert size > 0.01 * np.abs(before).max()
    # each step rounds a weight by half a unit
    atol = 12 * float(np.finfo(dtype).smallest_subnormal) + 1e-4 * size
    np.testing.assert_allclose(moved["numba", 1], expected, rtol=0, atol=atol)
    np.testing.assert_array_equal(moved["numba", 1], moved["numba", 2])


@of_x86
def test_kernels_leave_modes_alone(register, rng):
    """No kernel sets FTZ or DAZ, nor another rounding; neither here nor in threads of a team."""
    from fastnn.backends.numba_backend.epoch import threads
    from fastnn.backends.numba_backend.epoch.meetings import CALLED

    read, _ = register
    before = read()
    assert not before & (FLUSH_RESULTS | FLUSH_OPERANDS)
    X, y = rng.normal(size=(90, 300)), rng.integers(0, 10, 90)
    made = Network([Dense(300, 200), Dense(200, 10)], optimizer="adam", seed=1)
    made.fit(X, y, epochs=2, batch_size=30, threads=2)
    modes = {}
    signals = np.zeros(CALLED // 8 + 8, np.int64)

    def note(member: int) -> None:
        modes[member] = read()

    threads.run_together(note, 2, signals)
    assert modes == {0: before, 1: before}
    for function in ulps.functions().values():
        function.by.get("numba", np.abs)(np.ones(64, np.float32))
    assert read() == before


@of_x86
@pytest.mark.parametrize("name", ulps.functions())
def test_a_thread_that_flushes_to_zero(register, name):
    """Errors are those of other threads, but that subnormal numbers are zero."""
    function = ulps.functions()[name]
    if "numba" not in function.by:
        pytest.skip("NumPy's own")
    x = ulps.inside(function, ulps.sample(np.dtype(np.float32), 64))
    tiny = np.finfo(np.float32).tiny
    x = x[np.abs(x) >= tiny]
    found = []

    def compute() -> None:
        with flushing(register):
            found.append(function.by["numba"](x))

    thread = threading.Thread(target=compute)  # whose modes end with it
    thread.start()
    thread.join()
    plain = function.by["numba"](x)
    # a subnormal result of a product or a division is zero; some have it as a summand
    with np.errstate(invalid="ignore"):
        off = np.abs(found[0].astype(np.float64) - plain)
    assert ((off <= 2 * tiny * np.maximum(1, np.abs(x))) | (found[0] == plain)).all()


@of_x86
def test_training_in_a_thread_that_flushes_to_zero(register, rng):
    """Where no number is subnormal, it gives the same bits."""
    X, y = rng.normal(size=(60, 9)), rng.integers(0, 4, 60)
    weights = []

    def train() -> None:
        made = Network([Dense(9, 20), Dense(20, 4)], seed=2)
        made.fit(X, y, epochs=2, batch_size=8, threads=1)
        weights.append(made[0].weights.tobytes())

    def train_flushing() -> None:
        with flushing(register):
            train()

    for target in (train, train_flushing):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    assert weights[0] == weights[1]


@of_x86
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="as the page says of Linux")
def test_a_thread_gets_the_modes_of_who_starts_it(register):
    read, _ = register
    modes = []
    with flushing(register):
        thread = threading.Thread(target=lambda: modes.append(read()))
        thread.start()
    thread.join()
    assert modes[0] & (FLUSH_RESULTS | FLUSH_OPERANDS) == FLUSH_RESULTS | FLUSH_OPERANDS
    assert not read() & (FLUSH_RESULTS | FLUSH_OPERANDS)


def test_what_falls_below_the_smallest_normal_number(numba_backend, dtype):
    """Exponentials and the state of optimisers are zero there on one backend alone."""
    tiny = np.finfo(dtype).tiny
    x = np.full((1, 40), np.log(tiny) - 2, dtype)
    with np.errstate(under="ignore"):
        assert 0 < reference.elementwise_forward("sigmoid", x)[0, 0] < tiny
        assert (numba_backend.elementwise_forward("sigmoid", x) == 0).all()
        last = np.full((1, 40), np.log(tiny), dtype)
        last = np.where(np.exp(last.astype(np.longdouble)) < tiny, np.nextafter(last, 0), last)
        assert (numba_backend.elementwise_forward("sigmoid", last.astype(dtype)) >= tiny).all()
        for module, kept in ((reference, True), (numba_backend, False)):
            parameters, velocity = np.zeros((2, 40), dtype)
            velocity[:] = tiny
            module.momentum_step(parameters, np.zeros(40, dtype), velocity, 1.0, 0.5, False)
            assert (velocity == (tiny / 2 if kept else 0)).all()
            assert (parameters == -tiny / 2).all()  # they moved by it before
