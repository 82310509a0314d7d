"""What compiled functions call: microkernels, and what is done with matrices and addresses.

`language.py` says how a kernel is written; here are its name and its signature, and it is written
into a module of LLVM's. A kernel with loops is compiled apart, once for each dtype, and all
functions call the same machine code; one without loops is written into what calls it. A matrix goes
from one compiled function to the next as one value, and is unpacked into integers where a kernel is
called. What the names below mean to Numba is in `compiling/intrinsics.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from fastnn.guards import CHECKED

from .language import DOUBLE, FLOAT, INT64, Bounds, Int, Kernel, Matrix, Real, Value
from .machine import MACHINE

_named: dict[str, list[Callable[..., Any]]] = {}
"""Functions by their names."""


def name_of_its_own(function: Callable[..., Any]) -> str:
    """Return a name by which machine code finds a function, and no other.

    One that is defined again, in a notebook or by a function that makes functions, has a number.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    known = _named.setdefault(name, [])
    if function not in known:
        known.append(function)
    number = known.index(function)
    return f"{name}#{number}" if number else name


@dataclass(frozen=True)
class Microkernel:
    """A function that writes a kernel, with the types of its parameters and of its result."""

    write: Callable[..., Any]
    parameters: tuple[str, ...]
    """"Int", "Address", "Real" or "Matrix" for each; all `Real` of a kernel are of one type."""
    result: str
    """"None", "Int" or "Real"."""
    names: tuple[str, ...]
    """Of the parameters."""
    own_name: str
    """With the module; see `name_of_its_own`."""

    @classmethod
    def of(cls, write: Callable[..., Any]) -> Microkernel:
        """Read the types from the annotations."""
        signature = inspect.signature(write)
        parameters = tuple(p.annotation for p in signature.parameters.values())[1:]
        names = tuple(signature.parameters)[1:]
        result = signature.return_annotation
        known = {"Int", "Address", "Real", "Matrix"}
        if not (known.issuperset(parameters) and result in {"None", "Int", "Real"}):
            raise TypeError(
                f"annotate the parameters of {write.__name__} as Int, Address, Real or Matrix"
            )
        return cls(write, parameters, result, names, name_of_its_own(write))

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError(f"{self.write.__name__} is called by compiled functions alone")

    def name(self, element: ir.Type) -> str:
        """Return a symbol that no other kernel in a process has."""
        return f"{self.own_name}.{'f64' if element == DOUBLE else 'f32'}.{MACHINE.vector_bits}"

    def signature(self, element: ir.Type, used: Sequence[int] | None = None) -> ir.FunctionType:
        """Return LLVM's type of the kernel; of its numbers only those that are `used`, if given."""
        codes = [code for kind in self.parameters for code in self._codes(kind, element)]
        codes = codes if used is None else [codes[i] for i in used]
        returned = ir.VoidType() if self.result == "None" else self._codes(self.result, element)[0]
        return ir.FunctionType(returned, codes)

    @staticmethod
    def _codes(kind: str, element: ir.Type) -> list[ir.Type]:
        counts = {"Int": 1, "Address": 1, "Matrix": len(Matrix._fields)}
        return [element] if kind == "Real" else [INT64] * counts[kind]

    def define(self, module: ir.Module, element: ir.Type, checked: bool = CHECKED) -> ir.Function:
        """Write the kernel into a module, for vectors of `element`."""
        function = ir.Function(module, self.signature(element), self.name(element))
        kernel = Kernel(ir.IRBuilder(function.append_basic_block()), element, checked)
        arguments = iter(function.args)
        values: list[Value | Matrix] = []
        for name, kind in zip(self.names, self.parameters, strict=True):
            if kind == "Real":
                values.append(Real(kernel, next(arguments)))
                continue
            integers = [Int(kernel, next(arguments)) for _ in self._codes(kind, element)]
            if checked and kind != "Int":  # the address of a matrix is its first integer
                integers[0].bounds = Bounds(name, integers[0])
            values.append(Matrix(*integers) if kind == "Matrix" else integers[0])
        result = self.write(kernel, *values)
        if result is None:
            kernel.builder.ret_void()
        else:
            kernel.builder.ret(result.code)
        return function


def without_unused_parameters(function: ir.Function) -> tuple[int, ...]:
    """Take the parameters from a kernel that it doesn't use; return the numbers of the others.

    Most kernels use some of the five integers of a matrix. Those of all were passed on the stack,
    and batches of 32 on MNIST took 3 % longer.
    """
    operands: set[int] = set()
    for block in function.blocks:
        for instruction in block.instructions:
            operands.update(map(id, instruction.operands))
            operands.update(id(value) for value, _ in getattr(instruction, "incomings", ()))
    used = tuple(i for i, parameter in enumerate(function.args) if id(parameter) in operands)
    function.args = tuple(function.args[i] for i in used)
    kinds = [parameter.type for parameter in function.args]
    function.ftype = ir.FunctionType(function.ftype.return_type, kinds)
    return used


FUSING = "contract", "nsz"
"""What LLVM may do with floating-point numbers: a * b + c in one; 0 and -0 are one. NaN and
infinity keep their meaning."""


def allow_fusing(function: ir.Function) -> None:
    """Let LLVM do in a function what `FUSING` says."""
    for block in function.blocks:
        for instruction in block.instructions:
            if instruction.opname in ("fadd", "fsub", "fmul", "fdiv", "frem", "fcmp"):
                instruction.flags = instruction.flags or list(FUSING)
            elif isinstance(instruction, ir.CallInstr) and instruction.type in (FLOAT, DOUBLE):
                instruction.fastmath.update(FUSING)


KERNELS: dict[str, tuple[Microkernel, ir.Type]] = {}
"""Microkernels and their dtypes, by the symbols of their machine code."""


def microkernel(write: Callable[..., Any]) -> Microkernel:
    """Turn a function that writes a kernel into one that compiled functions can call."""
    kernel = Microkernel.of(write)
    for element in (FLOAT, DOUBLE):
        KERNELS[kernel.name(element)] = kernel, element
    return kernel


@dataclass(frozen=True)
class Intrinsic:
    """What compiled functions can call beside kernels: a function of `compiling/intrinsics.py`."""

    name: str

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError(f"{self.name} is called by compiled functions alone")


matrix_at = Intrinsic("matrix_at")
"""matrix_at(address, row_stride, column_stride, rows, columns): the matrix at an address."""

nothing = Intrinsic("nothing")
"""nothing(): a matrix that is not there, at the address 0."""

submatrix = Intrinsic("submatrix")
"""submatrix(matrix, row, column, rows, columns): the part from a row and a column on."""

transposed = Intrinsic("transposed")
"""transposed(matrix): the transpose of a matrix, of which nothing moves."""

shifted = Intrinsic("shifted")
"""shifted(matrix, nbytes): the matrix of the same shape that lies so many bytes further."""

call = Intrinsic("call")
"""call(address, *arguments): call what lies at an address, an operation or a kernel."""

record_at = Intrinsic("record_at")
"""record_at(records, number): record `number` of those at the address that a function was given."""

allow = Intrinsic("allow")
"""allow(address, nbytes): in the checked build, let kernels touch so many bytes, and fill them."""

minimum, maximum = Intrinsic("minimum"), Intrinsic("maximum")
"""The smaller, or the larger, of two integers; `min` and `max` mean these."""
