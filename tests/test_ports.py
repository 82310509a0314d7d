"""Other processors and systems: their machine code is made here, as far as it can't be run."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import python
from llvmlite import binding, ir

from fastnn.backends.numba_backend import machine, system
from fastnn.backends.numba_backend.epoch import meetings
from fastnn.backends.numba_backend.jit import jit
from fastnn.backends.numba_backend.system import INT64

LINUX_ARM, MACOS_ARM = "aarch64-unknown-linux-gnu", "arm64-apple-macosx11.0.0"
WINDOWS, LINUX_X86 = "x86_64-pc-windows-msvc", "x86_64-unknown-linux-gnu"
TARGETS = {
    LINUX_ARM: ("generic", "posix", ("float", "double")),
    MACOS_ARM: ("apple-m1", "posix", ("float",)),
    WINDOWS: ("haswell", "nt", ("float",)),
    LINUX_X86: ("x86-64", "posix", ("float",)),
}
"""What to compile for: processor, system and types of elements."""

OF_THE_SYSTEM = {
    "posix": {"sched_yield", "usleep", "clock_gettime"},
    "nt": {"SwitchToThread", "Sleep", "QueryPerformanceCounter", "QueryPerformanceFrequency"},
}
"""Functions that kernels call, by system."""

OF_THE_C_LIBRARY = {"memset", "memcpy", "memmove", "bzero", "log", "logf", "fmaf"}
"""Those that LLVM may write in place of a loop, the logarithm of one number, and a multiply-add
where the processor has none."""

OF_PYTHON = {"PyMem_RawMalloc", "PyMem_RawFree"}
"""Memory of a call of the layer path."""

TILES = {
    "matmul.matmul": 24,
    "multiply_samples": 24,
    "multiply_samples_turned": 24,
    "sparse.scatter": 20,
    "sparse.gather": 26,
    "sparse.backward_by_unit": 18,
}
"""Kernels, and the multiply-adds of their longest loop on Arm. For double these alone are made."""

SYMBOL = (
    r"\b(?:callq?|bl|b|jmp)[ \t]+_?([A-Za-z]\w*)|\bmovabsq[ \t]+\$([A-Za-z]\w*)|"
    r"\badrp[ \t]+x\d+, (?::got:)?_?([A-Za-z]\w*)|([A-Za-z]\w*)@GOTPCREL"
)
"""Where assembly names what it calls, or puts its address in a register."""

COMPILED = """
import json, sys
from llvmlite import binding, ir
targets, of_double = map(json.loads, sys.argv[1:])
binding.get_process_triple = lambda: next(iter(targets))  # by which vectors and tiles are chosen
from kernels import all_kernels
from fastnn.backends.numba_backend import system
from fastnn.backends.numba_backend.compiling.objects import optimized
from fastnn.backends.numba_backend.language import DOUBLE, FLOAT
from fastnn.backends.numba_backend.machine import MACHINE

binding.initialize_all_targets()
binding.initialize_all_asmprinters()
kernels = {kernel.name(FLOAT): kernel for kernel in all_kernels()}

found = {}
for triple, (cpu, of_system, elements) in targets.items():
    try:
        target = binding.Target.from_triple(triple)
    except RuntimeError:
        continue
    system.SYSTEM = system.SYSTEMS[of_system]
    machine = target.create_target_machine(cpu=cpu, opt=3)
    found[triple] = {}
    for name in elements:
        module = ir.Module()
        module.triple, module.data_layout = triple, str(machine.target_data)
        for kernel in kernels.values():
            if name == "float" or any(of in kernel.name(FLOAT) for of in of_double):
                kernel.define(module, FLOAT if name == "float" else DOUBLE)
        parsed = optimized(binding.parse_assembly(str(module)), machine)
        found[triple][name] = machine.emit_assembly(parsed)
        if len(found) == 1 and name == "float":  # all kernels can be assembled as well
            assert len(machine.emit_object(parsed)) > 10_000
sizes = MACHINE.vector_bits, MACHINE.vector_registers
print(json.dumps([sizes, sorted(kernels), found]))
"""


@pytest.fixture(scope="module")
def everything(made_once):
    """Return, by target and dtype, the assembly of all kernels."""
    pairs = ((LINUX_ARM, MACOS_ARM), 32), ((WINDOWS, LINUX_X86), 16)
    assembly = {}
    for triples, registers in pairs:
        sizes, names, found = json.loads(
            made_once(f"assembly of {triples[0]}", lambda triples=triples: compiled(triples))
        )
        assert sizes == [128, registers]
        assert len(names) > 60
        assembly |= found
    return assembly


def compiled(triples: tuple[str, ...]) -> str:
    """Return what a process prints that compiles all kernels for some targets."""
    targets, of_double = {of: TARGETS[of] for of in triples}, [f"{name}.f32" for name in TILES]
    done = python(COMPILED, json.dumps(targets), json.dumps(of_double), FASTNN_VECTOR_BITS="128")
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(params=[LINUX_ARM, MACOS_ARM, WINDOWS, LINUX_X86])
def triple(request, everything):
    """Every target that this LLVM can compile for."""
    if request.param not in everything:
        pytest.skip(f"this LLVM does not compile for {request.param}")
    return request.param


def body(assembly: str, name: str) -> str:
    """Return the instructions of a function."""
    start = re.search(rf'^"?_?[\w.]*\b{re.escape(name)}[\w.]*"?:', assembly, re.M)
    assert start, name
    return re.split(r"^\s+\.globl", assembly[start.end() :], maxsplit=1, flags=re.M)[0]


def test_kernels_call_nothing_but_the_system(triple, everything):
    expected = OF_THE_SYSTEM[TARGETS[triple][1]]
    for element, text in everything[triple].items():
        called = {next(filter(None, names)) for names in re.findall(SYMBOL, text)}
        called = {name for name in called if not re.match("fastnn|[lL](BB|CPI|JTI)", name)}
        assert called - OF_THE_C_LIBRARY - OF_PYTHON <= expected
        assert expected <= called or element == "double"


def test_vectors_are_those_of_the_processor(triple, everything):
    product = body(everything[triple]["float"], "matmul.matmul.f32")
    if triple in (LINUX_ARM, MACOS_ARM):
        assert re.search(r"fmla(\.4s)?\s+v\d+", product)
        assert re.search(r"ldp?r?\s+q\d+", product)
    elif triple == LINUX_X86:
        assert "mulps" in product
        assert "ldmxcsr" in body(everything[triple]["float"], "bfloat16.matmul_pairs.f32")
        assert not re.search(r"%[yz]mm|vfmadd", everything[triple]["float"])
    else:
        assert "vfmadd" in product


def loops(function: str) -> list[str]:
    """Return the loops of one piece that multiply and add."""
    pieces = re.split(r"^\.?(LBB\w+):", function, flags=re.M)[1:]
    of = zip(pieces[::2], pieces[1::2], strict=True)
    return [
        text for label, text in of
        if re.search(rf"\t\.?{label}$", text, re.M) and "fmla" in text
    ]  # fmt: skip


@pytest.mark.parametrize("triple", [LINUX_ARM, MACOS_ARM], indirect=True)
@pytest.mark.parametrize(("name", "most"), TILES.items())
def test_tiles_fill_the_registers_of_arm(triple, name, most, everything):
    """And no loop of them reads or writes the stack, where what finds no register is kept."""
    for of, text in everything[triple].items():
        found = loops(body(text, f"{name}.f{32 if of == 'float' else 64}"))
        assert max(loop.count("fmla") for loop in found) == most
        assert not [loop for loop in found if "[sp" in loop]


@pytest.mark.parametrize("triple", [LINUX_ARM, MACOS_ARM], indirect=True)
def test_signals_are_ordered_on_arm(triple, everything):
    """A load that acquires and a store that releases, whatever the processor would rather do."""
    acquire, release = r"\b(ldar|ldapr)\s+x\d+", r"\bstlr\s+\w+"
    text = everything[triple]["float"]
    assert re.search(acquire, body(text, "meetings.signal_at"))
    assert re.search(release, body(text, "meetings.put_signal"))
    assert re.search(acquire, body(text, "meetings.wait.f32"))
    called = body(text, "meetings.wait_for_call")
    assert len(re.findall(acquire, called)) >= 3
    assert len(re.findall(release, called)) == 1


KERNEL32 = {"QueryPerformanceCounter": 0, "QueryPerformanceFrequency": 0}
"""What the functions that stand in for those of Windows answer."""


@ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(ctypes.c_int64))
def counter(place):
    place[0] = KERNEL32["QueryPerformanceCounter"]
    return 1


@ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(ctypes.c_int64))
def frequency_of_counter(place):
    place[0] = KERNEL32["QueryPerformanceFrequency"]
    return 1


@pytest.mark.skipif(sys.platform == "win32", reason="it has these functions")
def test_clock_of_windows():
    """The counter of a machine that has run for a year."""
    for name, function in zip(KERNEL32, (counter, frequency_of_counter), strict=True):
        binding.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
    module = ir.Module()
    module.triple = binding.get_process_triple()
    function = ir.Function(module, ir.FunctionType(INT64, []), "clock_of_windows")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(system.SYSTEMS["nt"].clock(builder))
    target = binding.Target.from_triple(module.triple)
    machine = target.create_target_machine(codemodel="jitdefault", jit=True)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
    engine.finalize_object()
    clock = ctypes.CFUNCTYPE(ctypes.c_int64)(engine.get_function_address(function.name))
    for frequency in (10_000_000, 3_579_545, 2_400_000_000):
        ticks = 400 * 86_400 * frequency + frequency // 3
        KERNEL32.update(QueryPerformanceCounter=ticks, QueryPerformanceFrequency=frequency)
        assert clock() == ticks * 1_000_000_000 // frequency


@jit
def nanoseconds():
    return meetings.clock()


def test_clock_of_this_system():
    """Kernels and Python read one clock: who is to stay away is told when by a kernel."""
    before, between, after = system.SYSTEM.now(), nanoseconds(), system.SYSTEM.now()
    assert before <= between <= after


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="of x86 alone")
@pytest.mark.parametrize(
    ("name", "features", "bits"),
    [
        ("generic", "", 128),
        ("x86-64-v2", "", 128),
        ("haswell", "", 256),
        ("skylake-avx512", "", 512),
        ("nehalem", "+avx2", 256),
        ("haswell", "-avx2", 128),
        (None, "+sse2,+avx2,-avx512f", 256),
        (None, "+sse2", 128),
    ],
)
def test_vectors_of_the_processor_that_numba_is_told(name, features, bits, monkeypatch):
    """By NUMBA_CPU_NAME and NUMBA_CPU_FEATURES."""
    told = name or binding.get_host_cpu_name(), features
    monkeypatch.setattr(machine, "target_cpu", lambda: told)
    assert machine._widest_vectors() == bits


WITHOUT_NUMBA = """
import sys, warnings
import numpy as np
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import fastnn
    from fastnn.cli import main
    X, y = np.random.default_rng(0).normal(size=(200, 4)), np.arange(200) % 3

    def trained(**options):
        layers = [
            fastnn.Dense(4, 8), fastnn.BatchNorm(8), fastnn.ReLU(), fastnn.Dropout(0.1),
            fastnn.Dense(8, 3),
        ]
        network = fastnn.Network(layers, seed=0, optimizer="adam", **options)
        network.fit(X, y, epochs=3, threads=2)
        return network

    network, same = trained(), trained(backend="numpy")
    for a, b in zip(network.get_weights(), same.get_weights()):
        np.testing.assert_array_equal(a, b)
    assert network.evaluate(X, y) == same.evaluate(X, y)
    assert network.explain().startswith("layer path: Numba can't be imported")
    network.save(sys.argv[1])
    np.testing.assert_array_equal(fastnn.load(sys.argv[1]).predict(X), network.predict(X))
    assert main(["info"]) == 0
print("warnings:", *[warning.message for warning in caught], sep="\\n")
"""


@pytest.mark.skipif(os.name == "nt", reason="links are for administrators")
def test_an_installation_without_numba(tmp_path):
    """Packages are there through links, all that fastnn needs but Numba."""
    for name in ("numpy", "safetensors", "tqdm", "fastnn"):
        folder = Path(importlib.util.find_spec(name).origin).parent
        (tmp_path / name).symlink_to(folder)
        if (libraries := folder.with_name(f"{name}.libs")).exists():
            (tmp_path / libraries.name).symlink_to(libraries)
    program = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})",
    ]
    program[-1] += WITHOUT_NUMBA
    done = subprocess.run([*program, str(tmp_path / "model")], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    said, warned = done.stdout.split("warnings:\n")
    assert re.search(r"^compiled +nothing: Numba can't be imported", said, re.M)
    assert warned == (
        "Numba can't be imported (ModuleNotFoundError: No module named 'llvmlite'); "
        "the NumPy backend computes in its place, several times slower\n"
    )
