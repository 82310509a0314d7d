"""Numba's compiler taken apart: from one text to the instructions of LLVM, and no further.

Of Numba's pipeline there are those passes that these functions need (`CompilerBase`). Everything is
one text when it comes here, no variable changes its type, and there are no arrays, closures or
generators. What Numba lowers is taken before it goes through LLVM, which is done once, in
`objects.py`. Part of this is private to Numba, and may be elsewhere in another one: then this file
can't be imported, or raises something of `MOVED`, and functions go the ordinary way.
"""

from __future__ import annotations

import gc
import importlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import binding
from numba.core import compiler, typed_passes, untyped_passes
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager
from numba.core.cpu_options import FastMathOptions
from numba.core.registry import cpu_target

from ..microkernel import allow_fusing

MOVED = AttributeError, ImportError, TypeError
"""What is raised where something of Numba's has another name, or takes other arguments.

Kernels that a function calls are written meanwhile; what they raise is in `Calls.failure`."""


def instructions(
    function: Callable[..., Any], arguments: tuple[Any, ...], flags: dict[str, Any]
) -> tuple[str, str, Any, set[str]]:
    """Return LLVM's text of a function, its name and Numba's type of its result.

    At last, what it calls that is nowhere in this process.
    """
    with global_compiler_lock, _without_garbage_collection(), _few_registries():
        options: Any = compiler.Flags()
        for name, value in flags.items():
            setattr(options, name, value)
        options.fastmath = FastMathOptions(flags["fastmath"])
        options.nrt = False
        options.no_compile = options.no_cpython_wrapper = options.no_cfunc_wrapper = True
        library = _Collected()
        result = compiler.compile_extra(
            cpu_target.typing_context, cpu_target.target_context, function, arguments,
            None, options, {}, library=library, pipeline_class=_Lean,
        )  # fmt: skip
        text = str(library.module)
    declared = set(re.findall(r'^declare .*?@"?([^"(]+)"?\(', text, re.M))
    elsewhere = {
        name
        for name in declared
        if not name.startswith("llvm.") and binding.address_of_symbol(name) is None
    }
    return text, result.fndesc.llvm_func_name, result.fndesc.restype, elsewhere


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Millions of objects come and stay until the end; looking for garbage took an eighth."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _few_registries() -> Iterator[None]:
    """Have Numba know of numbers, tuples and records, and not import all that it knows of NumPy.

    What comes later in a process, as functions of a user's, finds the rest as ever.
    """
    typing, target = cpu_target.typing_context, cpu_target.target_context
    typing.load_additional_registries = target.load_additional_registries = _load_few
    # instead of adding the runtime that counts references, which there are none of
    target.post_lowering = lambda module, library: [*map(allow_fusing, module.functions)]
    try:
        yield
    finally:
        del typing.load_additional_registries, target.load_additional_registries
        del target.post_lowering


def _load_few() -> None:
    importlib.import_module("numba.cpython.builtins")
    for name in ("numbers", "rangeobj", "tupleobj"):
        importlib.import_module(f"numba.cpython.{name}")
    importlib.import_module("numba.np.arrayobj")
    # Where a user's functions were compiled before, Numba may note what intrinsics mean in any of
    # the registries that it loaded for them, and finds it if it looks there again.
    target = cpu_target.target_context
    for registry in [*target._registries]:
        target.install_registry(registry)


class _Collected:
    """What stands in the place of Numba's library of code: it keeps the module, and that is all."""

    def __init__(self) -> None:
        self.module: Any = None
        self.recorded_timings = None
        self._reload_init: set[Any] = set()
        self.codegen = cpu_target.target_context.codegen()

    def create_ir_module(self, name: str) -> Any:
        return self.codegen._create_empty_module(name)

    def add_ir_module(self, module: Any) -> None:
        self.module = module

    def add_linking_library(self, library: Any) -> None:
        pass


class _Lean(compiler.CompilerBase):
    """Bytecode, representation, constants, types, instructions."""

    def define_pipelines(self) -> list[Any]:
        passes = PassManager("fastnn")
        for step in (
            untyped_passes.TranslateByteCode,
            untyped_passes.FixupArgs,
            untyped_passes.RewriteSemanticConstants,
            typed_passes.NopythonTypeInference,
            typed_passes.NativeLowering,
        ):
            passes.add_pass(step, step.__name__)
        passes.finalize()
        return [passes]
