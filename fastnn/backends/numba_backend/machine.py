"""The machine: its vectors, registers and caches. Other files ask this one."""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from typing import Any

from llvmlite import binding

from fastnn.processors import cache_bytes

# whoever has LLVM compile something asks this file before, for the processor
binding.initialize_native_target()
binding.initialize_native_asmprinter()


@dataclass(frozen=True)
class Machine:
    """What a kernel needs to know of the CPU. Tile sizes are those that fill its registers."""

    vector_bits: int
    """Width of a vector register."""
    vector_registers: int
    """How many of them there are."""
    tile_rows: int
    """Rows of the register tile of the dense product; a divisor of `memory.ROW_BLOCK`."""
    tile_columns: int
    """Its columns, in vectors. `tile_rows * tile_columns` accumulators stay in registers."""
    scatter_vectors: int
    """Vectors of each of two rows that a kernel which skips zeros holds in registers: `scatter`,
    `gather` with pairs, and the pass that updates and multiplies one sample."""
    gather_vectors: int
    """Vectors of a row that `gather` holds in registers with single rows."""
    backward_vectors: int
    """Vectors of weights, and as many of their sums, that a pass which goes back and updates holds
    in registers."""
    block_inner: int
    """Inner length after which the dense product stores its sums, and adds to them from then on."""
    block_columns: int
    """Columns that it takes through all inner blocks before the next ones, in vectors."""


MACHINES = {
    (machine.vector_bits, machine.vector_registers): machine
    for machine in (
        Machine(
            vector_bits=512, vector_registers=32, tile_rows=8, tile_columns=3, scatter_vectors=8,
            gather_vectors=14, backward_vectors=13, block_inner=1024, block_columns=3,
        ),
        Machine(
            vector_bits=256, vector_registers=16, tile_rows=4, tile_columns=3, scatter_vectors=5,
            gather_vectors=12, backward_vectors=5, block_inner=256, block_columns=24,
        ),
        Machine(
            vector_bits=128, vector_registers=16, tile_rows=4, tile_columns=3, scatter_vectors=5,
            gather_vectors=12, backward_vectors=5, block_inner=256, block_columns=48,
        ),
        # never timed: the largest for which LLVM keeps all of it in registers, whatever processor
        # it schedules for. A row of 100 numbers is 25 vectors, so `gather` takes it in one go.
        Machine(
            vector_bits=128, vector_registers=32, tile_rows=8, tile_columns=3, scatter_vectors=10,
            gather_vectors=26, backward_vectors=9, block_inner=256, block_columns=48,
        ),
    )
}  # fmt: skip
"""By width and number of registers: AVX-512, AVX2, SSE2 and NEON."""


def numba_setting(name: str, usual: Any) -> Any:
    """Return what Numba is told by NUMBA_`name`, `usual` where it is told nothing.

    To import it takes longer than all else that a process does before its first step, where code is
    on the disk. So it is asked only if it has a file of settings; whether it is imported must make
    no difference.
    """
    if os.path.isfile(".numba_config.yaml"):
        import numba

        return getattr(numba.config, name)
    told = os.environ.get(f"NUMBA_{name}")
    if told is None or not isinstance(usual, int):
        return usual if told is None else told
    return int(told) if told.strip().isdecimal() else usual


@functools.cache
def target_cpu() -> tuple[str, str]:
    """Return name and features of the CPU that code is for: this one, or what Numba is told."""
    name, features = numba_setting("CPU_NAME", None), numba_setting("CPU_FEATURES", None)
    if name == "generic" and features is None:
        features = ""
    if features is None:
        try:
            listed = binding.get_host_cpu_features()
        except RuntimeError:  # LLVM doesn't know
            return name or binding.get_host_cpu_name(), ""
        if not numba_setting("ENABLE_AVX", 1):
            listed.update((feature, False) for feature in listed if feature.startswith("avx"))
        features = listed.flatten()
    return name or binding.get_host_cpu_name(), features


def is_x86() -> bool:
    """Say whether code is for x86."""
    return bool(binding.get_process_triple().startswith("x86_64"))


def _widest_vectors() -> int:
    """Return how many bits the widest vectors have that the CPU adds integers of at once."""
    name, features = target_cpu()
    if not is_x86():
        return 128
    if name == binding.get_host_cpu_name() and features:  # all are listed, or fewer by wish
        listed = features.split(",")
        return 512 if "+avx512f" in listed else 256 if "+avx2" in listed else 128
    # NUMBA_CPU_NAME names one; what it can do LLVM knows, and shows by the registers that it takes
    addition = """
        define void @add(ptr %x, ptr %y) {
            %a = load <16 x i32>, ptr %x
            %b = load <16 x i32>, ptr %y
            %c = add <16 x i32> %a, %b
            store <16 x i32> %c, ptr %y
            ret void
        }"""
    target = binding.Target.from_triple(binding.get_process_triple())
    machine = target.create_target_machine(cpu=name, features=features)
    assembly = machine.emit_assembly(binding.parse_assembly(addition))
    added = re.findall(r"paddd.*%([xyz])mm", assembly)
    return {"x": 128, "y": 256, "z": 512}[added[0]]


def _this_machine() -> Machine:
    """Choose by the CPU that code is for, or by FASTNN_VECTOR_BITS (narrower only)."""
    bits = _widest_vectors()
    asked = os.environ.get("FASTNN_VECTOR_BITS", "").strip()
    if asked:
        if asked not in ("512", "256", "128"):
            raise ValueError(f"FASTNN_VECTOR_BITS must be 512, 256 or 128, not {asked!r}")
        bits = min(int(asked), bits)
    # narrower vectors have 32 registers with AVX-512, too, but who asks for them wants the bits
    # of a processor without it
    return MACHINES[bits, 16 if is_x86() and bits < 512 else 32]


MACHINE = _this_machine()

VECTOR_BYTES = MACHINE.vector_bits // 8

CACHED_BYTES = cache_bytes()[0] * 15 // 16
"""What the kernels that skip zeros may keep in the first-level cache."""

HAS_BFLOAT16 = MACHINE.vector_bits == 512 and "+avx512bf16" in target_cpu()[1].split(",")
"""Whether the CPU that code is for multiplies pairs of bfloat16, in vectors of this width."""


PAGE_BYTES = 4096
"""What fetches memory ahead of loads knows nothing of the next page."""


def lanes(itemsize: int) -> int:
    """Return how many numbers of `itemsize` bytes a vector holds."""
    return VECTOR_BYTES // itemsize
