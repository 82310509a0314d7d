"""The checked build: what it finds, and that the ordinary build has nothing of it.

What it finds is tested in a process of its own, under FASTNN_CHECKED=1: by
`test_other_processors.py`.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from conftest import perceptron, python
from kernels import all_kernels
from llvmlite import ir

import fastnn
from fastnn import backends, guards, memory
from fastnn.backends import description
from fastnn.backends.numba_backend.checked import Range, joined, watched
from fastnn.backends.numba_backend.epoch import meetings
from fastnn.backends.numba_backend.epoch.program import Program
from fastnn.backends.numba_backend.jit import jit
from fastnn.backends.numba_backend.language import (
    DOUBLE,
    FLOAT,
    REPORT,
    Address,
    Int,
    Kernel,
    Matrix,
    Real,
)
from fastnn.backends.numba_backend.layerwise import arrays
from fastnn.backends.numba_backend.machine import MACHINE, lanes
from fastnn.backends.numba_backend.microkernel import Microkernel, matrix_at, microkernel

pytestmark = pytest.mark.checked_build
posix = pytest.mark.skipif(sys.platform == "win32", reason="protects pages by mprotect")
checked = pytest.mark.skipif(not guards.CHECKED, reason="finds nothing in the ordinary build")
FLOAT32 = np.dtype(np.float32)
LANES = lanes(4)
VECTOR = MACHINE.vector_bits // 8


# -------------------------------------------------------------------- the ordinary build


def written(kernel: Microkernel, element: ir.Type, **how: bool) -> ir.Module:
    """A kernel, in a module of its own."""
    module = ir.Module("kernel")
    kernel.define(module, element, **how)
    return module


@pytest.mark.skipif(guards.CHECKED, reason="this is the checked build")
def test_the_ordinary_build_has_nothing_of_it():
    # those of arrays.py read the objects of NumPy, which nobody allows a kernel to touch
    kernels = [of for of in all_kernels() if of.write.__module__ != arrays.__name__]
    assert len(kernels) > 80
    for kernel in kernels:
        ordinary = written(kernel, FLOAT)
        for module in (ordinary, written(kernel, DOUBLE)):
            assert not [name for name in module.globals if name.startswith("fastnn_")]
        accesses = " inttoptr " in str(ordinary)
        assert (REPORT in written(kernel, FLOAT, checked=True).globals) == accesses


# ------------------------------------------------------- what a kernel of the language does


@microkernel
def copy_and_more(k: Kernel, like: Real, x: Address, y: Address, vectors: Int, more: Int) -> None:
    """y = x, and a planted error: `more` vectors too many of y are written."""
    with k.loop(0, vectors) as j:
        k.store(k.load(x + j * k.vector_bytes), y + j * k.vector_bytes)
    with k.loop(vectors, vectors + more) as j:
        k.store(k.zero(), y + j * k.vector_bytes)


@microkernel
def sum_from(k: Kernel, like: Real, x: Address, first: Int, count: Int, y: Address) -> None:
    """y = the sum of x[first : first + count]."""
    total = k.variable(k.lane_sum(k.zero()))
    place = k.variable(x + first * k.element_bytes)
    with k.loop(0, count):
        total[0] = total[0] + k.load_real(place[0])
        place[0] = place[0] + k.element_bytes
    k.store_real(total[0], y)


@microkernel
def clear_lanes(k: Kernel, like: Real, A: Matrix, count: Int) -> None:
    """The first `count` numbers of each row of A become zero."""
    with k.loop(0, A.rows) as row:
        k.store_lanes(k.zero(), A.row(row), k.lane_before(count))


@microkernel
def clear_by_list(k: Kernel, like: Real, addresses: Address, count: Int) -> None:
    """The vectors whose addresses are listed become zero."""
    with k.loop(0, count) as i:
        k.store(k.zero(), k.load_address(addresses + 8 * i, "an entry"))


@microkernel
def clear_one_of(k: Kernel, like: Real, x: Address, y: Address, which: Int, place: Int) -> None:
    """A number of x or y becomes zero."""
    of = k.where(which.equals(0), x, y)
    k.store_real(k.lane_sum(k.zero()), of + place)


@jit
def call_copy(like, x, y, vectors, more):
    copy_and_more(like, x, y, vectors, more)


@jit
def call_sum(like, x, first, count, y):
    sum_from(like, x, first, count, y)


@jit
def call_clear_lanes(like, address, stride, rows, columns, count):
    clear_lanes(like, matrix_at(address, stride, 4, rows, columns), count)


@jit
def call_clear_by_list(like, addresses, count):
    clear_by_list(like, addresses, count)


@jit
def call_clear_one_of(like, x, y, which, place):
    clear_one_of(like, x, y, which, place)


ONE = np.float32(1)


def vectors(count: int) -> np.ndarray:
    return memory.aligned_zeros(count * LANES, FLOAT32)


@checked
class TestKernels:
    def test_a_vector_too_many(self):
        # side by side in one buffer, so that no page stops it
        both = vectors(5)
        x, y, other = both[: 2 * LANES], both[2 * LANES : 4 * LANES], both[4 * LANES :]
        x[:] = other[:] = 1
        given = [Range.of(x, "x of the test"), Range.of(y, "y of the test")]
        for ranges in (given, [*given, Range.of(other, "its neighbour")]):
            with watched(ranges):
                call_copy(ONE, x.ctypes.data, y.ctypes.data, 2, 0)
            assert (y == 1).all()
            said = rf"copy_and_more\.f32\S*: a store of {VECTOR} bytes through y at byte "
            said += rf"{2 * VECTOR} of y of the test, which has {2 * VECTOR}"
            with pytest.raises(guards.OutOfBoundsError, match=said), watched(ranges):
                call_copy(ONE, x.ctypes.data, y.ctypes.data, 2, 1)
            assert (other == 1).all()  # it was not done

    def test_a_load_of_one_number_on_either_side(self):
        x, y = vectors(1), vectors(1)
        ranges = [Range.of(x[1:-1], "x"), Range.of(y, "y")]
        begin = x[1:].ctypes.data
        with watched(ranges):
            call_sum(ONE, begin, 0, LANES - 2, y.ctypes.data)
        for first, count, place in ((-1, 2, -4), (0, LANES - 1, 4 * (LANES - 2))):
            said = f"sum_from.*: a load of 4 bytes through x at byte {place} of x"
            with pytest.raises(guards.OutOfBoundsError, match=said), watched(ranges):
                call_sum(ONE, begin, first, count, y.ctypes.data)

    def test_a_lane_too_many(self):
        x = vectors(2).reshape(2, LANES)
        rows = x[:, : LANES - 1]
        given = ONE, rows.ctypes.data, VECTOR, 2, LANES - 1
        with watched([Range.of(rows, "rows")]):
            call_clear_lanes(*given, 0)
            call_clear_lanes(*given, LANES - 1)
        said = f"clear_lanes.*store of {VECTOR} bytes through A at byte {VECTOR} of rows"
        with (
            pytest.raises(guards.OutOfBoundsError, match=said),
            watched([Range.of(rows, "rows")]),
        ):
            call_clear_lanes(*given, LANES)

    def test_what_is_only_read(self):
        x, y = vectors(1), vectors(1)
        ranges = [Range.of(x, "x"), Range.of(y, "samples", writeable=False)]
        with (
            pytest.raises(guards.OutOfBoundsError, match="y to samples, which is only read"),
            watched(ranges),
        ):
            call_copy(ONE, x.ctypes.data, y.ctypes.data, 1, 0)

    def test_addresses_that_lie_in_memory(self):
        x = vectors(2)
        listed = np.array([x.ctypes.data, x.ctypes.data + 2 * VECTOR])
        fine = np.array(2 * [x.ctypes.data])
        ranges = [Range.of(x, "x"), Range.of(listed, "list"), Range.of(fine, "fine")]
        with watched(ranges):
            call_clear_by_list(ONE, listed.ctypes.data, 1)
        said = r"clear_by_list\S*: a store .* through an entry at 0 bytes behind the end of x,"
        with pytest.raises(guards.OutOfBoundsError, match=said), watched(ranges):
            call_clear_by_list(ONE, listed.ctypes.data, 2)
        with (
            pytest.raises(guards.OutOfBoundsError, match="load of 8 bytes through addresses"),
            watched(ranges),
        ):
            call_clear_by_list(ONE, fine.ctypes.data, 3)

    def test_an_address_that_is_one_of_two(self):
        x = vectors(2)
        first, second = x[:LANES], x[LANES:]
        ranges = [Range.of(first, "first"), Range.of(second, "second")]
        given = ONE, first.ctypes.data, second.ctypes.data
        for which, name in enumerate(("first", "second")):
            with watched(ranges):
                call_clear_one_of(*given, which, VECTOR - 4)
            said = f"through x or y at byte {VECTOR} of {name}"
            with pytest.raises(guards.OutOfBoundsError, match=said), watched(ranges):
                call_clear_one_of(*given, which, VECTOR)

    def test_nobody_watches(self):
        both = vectors(2)
        call_copy(ONE, both.ctypes.data, both.ctypes.data, 1, 1)


def test_stretches_are_joined_where_they_overlap():
    a, b, c, d = Range(0, 8, "a"), Range(4, 12, "b", False), Range(12, 16, "c"), Range(9, 9, "d")
    assert joined([c, d, b, a]) == [Range(0, 12, "a and b"), c]


# ----------------------------------------------------------------------------- memory


@pytest.mark.once
@posix
def test_memory_ends_where_a_page_does():
    program = """
import sys, ctypes
import numpy as np
from fastnn import guards
array = guards.guarded(1000, 64)
assert array.nbytes == 1000 and not array.any() and array.ctypes.data % 64 == 0
guards.check_guards()
ctypes.memset(array.ctypes.data, 1, 1000)
guards.check_guards()
print("begin", flush=True)
ctypes.memset(array.ctypes.data + 1000 + int(sys.argv[1]), 1, 1)
guards.check_guards()
"""

    def run(place: int) -> subprocess.CompletedProcess:
        done = python(program, str(place))
        assert done.stdout == "begin\n", done.stderr
        return done

    assert run(24).returncode < 0
    assert "OutOfBoundsError: memory behind a buffer of 1000 bytes" in run(23).stderr
    assert "OutOfBoundsError: memory before a buffer of 1000 bytes" in run(-1001).stderr
    assert run(-4200).returncode < 0
    assert run(-1).returncode == 0


@checked
def test_memory_that_fastnn_makes_is_guarded():
    network = perceptron(20, 10, 3, seed=0, backend="numba")
    rng = np.random.default_rng(0)
    network.optimizer = fastnn.Adam()
    network.fit(rng.random((50, 20)), rng.integers(0, 3, 50))
    inside = {(r.begin, r.end) for r in _guarded()}
    parameters = network._parameters
    output = network.backend and backends.load("numba").softmax(rng.random((5, 3)))
    program = network._programs._training[1]
    for array in (parameters.vector, *parameters.states, output, program.training.workspace):
        begin = array.ctypes.data
        assert any(a <= begin and begin + array.nbytes <= b for a, b in inside | {*_places()})


def _guarded():
    return [Range(begin, end, "") for begin, end in _places()]


def _places():
    for region in guards._regions:
        content = np.frombuffer(region, np.uint8).ctypes.data
        yield content + region.begin, content + region.end


# ------------------------------------------------------------------ the compiled epoch


def program_of(units=(20, 30, 5), batch_size=8, kind=FLOAT32):
    layers, offset, rule = [], 0, description.Rule("adam")
    for inputs, outputs in pairwise(units):
        stride = memory.row_stride(outputs, FLOAT32)
        biases = offset + memory.round_up(inputs, memory.ROW_BLOCK) * stride
        layers.append(description.Dense(inputs, outputs, offset, stride, biases, 0.01, rule))
        layers.append(description.Elementwise("relu"))
        offset = biases + stride
    program = Program(layers[:-1], batch_size=batch_size, input_dtype=kind)
    parameters = memory.aligned_zeros(offset, FLOAT32)
    states = [memory.aligned_zeros(offset, FLOAT32) for _ in range(2)]
    samples = np.ones((20, units[0]), kind)
    rates = np.ones((1, len(units) - 1, description.RATES))

    def prepare(count=20, **kind):
        order = np.arange(count) % 20
        return program.prepare(
            samples, np.zeros(20, np.int64), order, parameters, rates, states, **kind
        )

    return program, prepare


@checked
class TestEpoch:
    def test_canaries(self):
        program, prepare = program_of()
        prepare()()
        table = program.training
        for part in table.workspace_parts():
            place = part.end - table.workspace.ctypes.data
            table.workspace[place] ^= 1
            with pytest.raises(guards.OutOfBoundsError) as raised:
                prepare()()
            assert str(raised.value).endswith(f"written behind the end of {part.name}")
            table.workspace[place] ^= 1
        prepare()()

    @pytest.mark.parametrize(
        ("field", "matrix_field", "by", "said"),
        [
            (
                "outputs",
                "row_stride",
                16 * VECTOR,  # as rows that pad a batch are not written
                "store .* through target .* 'outputs' of layer 0",
            ),
            (
                "inputs",
                "address",
                -4,
                "target at 4 bytes before the begin of 'inputs'",
            ),
            ("gradient", "row_stride", VECTOR, "'gradient' of (layer|shared)"),
        ],
    )
    def test_a_table_that_is_wrong(self, field, matrix_field, by, said):
        program, prepare = program_of(kind=np.uint8)  # others are multiplied where they lie
        program.training.layers[0][field][matrix_field] += by
        with pytest.raises(guards.OutOfBoundsError, match=said):
            prepare()()

    def test_the_zeros_that_make_up_a_pair_are_read_alone(self):
        layers = [description.Dense(20, 5, 0, LANES, 24 * LANES)]
        program = Program(layers, batch_size=8, input_dtype=FLOAT32, bfloat16=True)
        parts = {part.name: part.writeable for part in program.training.ranges()}
        assert parts["'zeros' of shared 0"] is False
        assert parts["'tails' of shared 0"] is True

    def test_parameters_that_lie_elsewhere(self):
        program, prepare = program_of()
        program.training.layers["biases"][0] += 4 * 4096
        with pytest.raises(guards.OutOfBoundsError, match=r"activate\S*: a load .* biases"):
            prepare()()

    def test_an_order_of_samples_that_are_not_there(self):
        program, _ = program_of()
        with pytest.raises(
            guards.OutOfBoundsError,
            match=r"multiply_samples\S*: a load .* through a sample .* behind the end of samples",
        ):
            program.prepare(
                np.ones((7, 20), FLOAT32), np.zeros(7, np.int64), np.array([5, 7]),
                memory.aligned_zeros(4096, FLOAT32), np.ones((1, 2, description.RATES)),
                [memory.aligned_zeros(4096, FLOAT32) for _ in range(2)],
            )()  # fmt: skip

    def test_a_team(self):
        program, prepare = program_of((300, 200, 100, 5))
        prepare(threads=2)()
        table = program._teams[2].tables[1]
        part = table.workspace_parts()[3]
        table.workspace[part.end - table.workspace.ctypes.data] ^= 1
        with pytest.raises(guards.OutOfBoundsError, match="behind the end"):
            prepare(threads=2)()

    def test_messages_of_a_team(self):
        program, prepare = program_of((300, 200, 100, 5))
        prepare(threads=2)()
        messages = program._teams[2]._messages._messages
        messages["columns"][1, 0, 1, 0] += 8 * LANES

        def run():
            # a second for each step: the caller waits for the second member
            slow = {meetings.ALONE_TIME: 1 << 40, meetings.ALONE_STEPS: 1 << 10}
            for _ in range(100):  # until it comes in time
                program._signals.settings.update(slow)
                prepare(threads=2)()

        with pytest.raises(guards.OutOfBoundsError, match=r"transfer\S*: a .*(box|gradient)"):
            run()


@checked
def test_layers_and_what_they_are_given():
    backend = backends.load("numba")
    x = np.ones((4, 6), FLOAT32)
    words = np.empty(8, np.uint32)  # 24 are needed
    output = np.empty_like(x)
    entry = backend._dropout[FLOAT32]
    with pytest.raises(guards.OutOfBoundsError, match=r"random_words.*store.* target .* of words"):
        entry(1.0, 4, id(x), id(output), id(words), 1, 0, 2**31)


def test_buffers_of_other_threads_come_meanwhile(monkeypatch):
    class Growing(list):
        looks = 0

        def __iter__(self):
            self.looks += 1
            if self.looks == 1:
                raise RuntimeError("Set changed size during iteration")
            return super().__iter__()

    regions = Growing()
    monkeypatch.setattr(guards, "_regions", regions)
    guards.check_guards()
    assert regions.looks == 2
