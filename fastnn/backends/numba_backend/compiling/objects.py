"""LLVM: instructions become machine code, and machine code is put into memory."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from llvmlite import binding

from ..machine import target_cpu


class Object(NamedTuple):
    """The machine code of one kernel or function, as it is kept and linked."""

    code: bytes
    needs: tuple[str, ...] = ()
    """Symbols of the kernels that it calls."""
    used: tuple[int, ...] = ()
    """Of a kernel: which of its parameters machine code has, as it ignores some."""

    def packed(self) -> bytes:
        """Return it as the content of a file."""
        return json.dumps([self.needs, self.used]).encode() + b"\n" + self.code

    @classmethod
    def unpacked(cls, content: bytes) -> Object:
        """Return what `packed` has made a file of."""
        head, _, code = content.partition(b"\n")
        needs, used = json.loads(head)
        return cls(code, tuple(needs), tuple(used))


def target_machine() -> Any:
    """Return LLVM's description of this CPU, or of the one that Numba is told to compile for.

    Relocation is as Numba has it: position-independent objects on x86 that call functions of
    libraries find constants of each other in the place of their own, in one engine.
    """
    triple = binding.get_process_triple()
    cpu, features = target_cpu()
    relocation = "static" if re.match("x86_64|i.86", triple) else "default"
    return binding.Target.from_triple(triple).create_target_machine(
        cpu=cpu, features=features, opt=3, reloc=relocation, codemodel="jitdefault", jit=True
    )


PASSES = (
    "always_inliner", "sroa", "simplify_cfg", "instruction_combine",
    "loop_rotate", "simplify_cfg", "instruction_combine", "global_dead_code_eliminate",
)  # fmt: skip
"""What LLVM does with instructions before it chooses the machine's. Kernels are explicit already:
all passes of Numba's three pipelines take ten times as long and make no step faster."""


def optimized(module: Any, machine: Any) -> Any:
    """Run the passes over a parsed module, and return it."""
    builder = binding.create_pass_builder(
        machine, binding.create_pipeline_tuning_options(speed_level=2)
    )
    passes = binding.create_new_module_pass_manager()
    for name in PASSES:
        getattr(passes, f"add_{name}_pass")()
    passes.run(module, builder)
    return module


def machine_code(*texts: str, entry: str = "", inlined: str = "") -> bytes:
    """Compile the texts of modules to one object file.

    Parameters
    ----------
    texts
        All functions and what they call.
    entry
        If given, no other function is seen from outside.
    inlined
        The function that is written into those which call it.
    """
    module, *others = map(binding.parse_assembly, texts)
    for other in others:
        module.link_in(other)
    machine = target_machine()
    if entry:
        for value in (*module.functions, *module.global_variables):
            if not value.is_declaration and not value.name.startswith(entry):
                value.linkage = "internal"
            if value.name == inlined:
                value.add_function_attribute("alwaysinline")
    code: bytes = machine.emit_object(optimized(module, machine))
    return code


class Linker:
    """What is in memory, in one engine, in which objects find each other by their symbols."""

    def __init__(self) -> None:
        self._engine: Any = None
        self._linked: set[str] = set()

    def has(self, symbol: str) -> bool:
        """Say whether the object of a symbol is there."""
        return symbol in self._linked

    def add(self, symbol: str, code: bytes) -> None:
        """Put an object into memory; what it needs is there already."""
        if self._engine is None:
            self._engine = binding.create_mcjit_compiler(
                binding.parse_assembly(""), target_machine()
            )
        self._engine.add_object_file(binding.object_file.ObjectFileRef.from_data(code))
        self._linked.add(symbol)

    def address(self, symbol: str) -> int:
        """Return where a function begins, for the first time after all that it needs was added."""
        self._engine.finalize_object()
        found = int(self._engine.get_function_address(symbol))
        if not found:
            raise LookupError(f"LLVM doesn't find {symbol} in its object")
        return found


LINKER = Linker()
