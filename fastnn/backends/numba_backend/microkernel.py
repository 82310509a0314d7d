"""What compiled functions call: microkernels, as functions that Numba knows, and matrices.

`language.py` says how a kernel is written; here it becomes machine code inside the compiled
function that calls it. A matrix goes from one compiled function to the next as one value, and is
unpacked into integers where a kernel is called.

No kernel decorated with `microkernel` is made by a function in a loop: Numba's disk cache would not
recognise it again. Kernels with machine code of their own, `jit.KernelOperation`, are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import extending, from_dtype, types
from numba.core import cgutils
from numba.core.errors import TypingError

from fastnn.guards import CHECKED

from .language import (
    ALLOW,
    DOUBLE,
    FLOAT,
    INT32,
    INT64,
    MATRIX,
    Bounds,
    Int,
    Kernel,
    Matrix,
    Real,
    Value,
)
from .machine import MACHINE


@dataclass(frozen=True)
class Microkernel:
    """A function that writes a kernel, with the types of its parameters and of its result."""

    write: Callable[..., Any]
    parameters: tuple[str, ...]
    """"Int", "Address", "Real" or "Matrix" for each; all `Real` of a kernel are of one type."""
    result: str
    """"None", "Int" or "Real"."""
    names: tuple[str, ...] = ()
    """Of the parameters."""

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
        return cls(write, parameters, result, names)

    def name(self, element: ir.Type) -> str:
        """Return a symbol that no other kernel in a process has."""
        kind = "f64" if element == DOUBLE else "f32"
        return f"{self.write.__module__}.{self.write.__qualname__}.{kind}.{MACHINE.vector_bits}"

    def define(self, module: ir.Module, element: ir.Type, checked: bool = CHECKED) -> ir.Function:
        """Write the kernel into a module, for vectors of `element`."""
        llvm_types = {
            "Int": [INT64],
            "Address": [INT64],
            "Real": [element],
            "Matrix": [INT64] * len(Matrix._fields),
        }
        codes = [code for kind in self.parameters for code in llvm_types[kind]]
        returned = ir.VoidType() if self.result == "None" else llvm_types[self.result][0]
        function = ir.Function(module, ir.FunctionType(returned, codes), self.name(element))
        kernel = Kernel(ir.IRBuilder(function.append_basic_block()), element, checked)
        arguments = iter(function.args)
        values: list[Value | Matrix] = []
        for name, kind in zip(self.names, self.parameters, strict=True):
            if kind == "Real":
                values.append(Real(kernel, next(arguments)))
                continue
            integers = [Int(kernel, next(arguments)) for _ in llvm_types[kind]]
            if checked and kind != "Int":  # the address of a matrix is its first integer
                integers[0].bounds = Bounds(name, integers[0])
            values.append(Matrix(*integers) if kind == "Matrix" else integers[0])
        result = self.write(kernel, *values)
        if result is None:
            kernel.builder.ret_void()
        else:
            kernel.builder.ret(result.code)
        return function


def flattened(context: Any, builder: ir.IRBuilder, kinds: Any, values: Any) -> list[ir.Value]:
    """Return the arguments of a compiled call as numbers: matrices are unpacked here."""
    codes = []
    for kind, value in zip(kinds, values, strict=True):
        if kind == MATRIX_RECORD:  # the address of one
            first = builder.bitcast(value, INT64.as_pointer())
            codes += [
                builder.load(builder.gep(first, [ir.Constant(INT32, field)]))
                for field in range(len(Matrix._fields))
            ]
        elif isinstance(kind, types.BaseNamedTuple):
            kinds_of_fields: Any = kind
            codes += flattened(
                context, builder, kinds_of_fields, cgutils.unpack_tuple(builder, value)
            )
        elif isinstance(kind, types.Integer):
            codes.append(context.cast(builder, value, kind, types.int64))
        elif isinstance(kind, types.Float):
            codes.append(value)
        else:
            raise TypingError(f"expected numbers and matrices, got {kind}")
    return codes


MATRIX_RECORD: Any = from_dtype(MATRIX)
MATRIX_TYPE = types.NamedUniTuple(types.int64, len(Matrix._fields), Matrix)
"""Numba's type of a `Matrix`."""
intrinsic: Any = extending.intrinsic


def _matrix_from(generate: Callable[..., tuple[ir.Value, ...]]) -> Callable[..., ir.Value]:
    """Return what an intrinsic writes that makes a matrix; `generate` gives its five integers."""

    def write(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        codes = flattened(context, builder, signature.args, values)
        made: ir.Value = context.make_tuple(
            builder, signature.return_type, generate(builder, *codes)
        )
        return made

    return write


@intrinsic
def matrix_at(context, address, row_stride, column_stride, rows, columns):
    """The matrix at an address."""
    integers = (types.int64,) * len(Matrix._fields)
    return MATRIX_TYPE(*integers), _matrix_from(lambda builder, *codes: codes)


@intrinsic
def submatrix(context, matrix, row, column, rows, columns):
    """The part of a matrix from a row and a column on, of so many rows and columns."""

    def generate(builder, address, row_stride, column_stride, _, __, row, column, rows, columns):
        address = builder.add(address, builder.mul(row, row_stride))
        address = builder.add(address, builder.mul(column, column_stride))
        return address, row_stride, column_stride, rows, columns

    return MATRIX_TYPE(matrix, row, column, rows, columns), _matrix_from(generate)


@intrinsic
def transposed(context, matrix):
    """The transpose of a matrix, of which nothing moves."""

    def generate(builder, address, row_stride, column_stride, rows, columns):
        return address, column_stride, row_stride, columns, rows

    return MATRIX_TYPE(matrix), _matrix_from(generate)


@intrinsic
def shifted(context, matrix, nbytes):
    """The matrix of the same shape that lies so many bytes further."""

    def generate(builder, address, row_stride, column_stride, rows, columns, nbytes):
        return builder.add(address, nbytes), row_stride, column_stride, rows, columns

    return MATRIX_TYPE(matrix, nbytes), _matrix_from(generate)


@intrinsic
def allow(context, address, nbytes):
    """In the checked build: let kernels touch so many bytes at an address, and fill them."""

    def generate(context, builder, signature, values):
        name = builder.module.globals.get(ALLOW) or ir.Function(
            builder.module, ir.FunctionType(INT64, [INT64, INT64]), ALLOW
        )
        return builder.call(name, values)

    return types.int64(types.int64, types.int64), generate


def microkernel(write: Callable[..., Any]) -> Any:
    """Turn a function that writes a kernel into one that compiled functions can call.

    A kernel becomes one LLVM function of each compiled function that calls it, however often; one
    without loops is written into it instead.
    """
    kernel = Microkernel.of(write)

    def typed(context: Any, *arguments: Any) -> Any:
        number = next(
            (a for a, kind in zip(arguments, kernel.parameters, strict=True) if kind == "Real"),
            None,
        )
        element = DOUBLE if number == types.float64 else FLOAT
        numba_types: dict[str, Any] = {
            "Int": types.int64,
            "Address": types.int64,
            "Real": number,
            "None": types.void,
        }

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
            function = builder.module.globals.get(kernel.name(element))
            if function is None:
                function = kernel.define(builder.module, element)
                # so LLVM drops the parameters that it doesn't use, as sizes of some matrices
                function.linkage = "internal"
                # one without branches is inlined: the call would cost more than its body
                function.attributes.add("noinline" if len(function.blocks) > 1 else "alwaysinline")
            codes = flattened(context, builder, signature.args, values)
            result = builder.call(function, codes)
            return context.get_dummy_value() if kernel.result == "None" else result

        accepted = [
            given if kind == "Matrix" else numba_types[kind]
            for given, kind in zip(arguments, kernel.parameters, strict=True)
        ]
        return numba_types[kernel.result](*accepted), generate

    # Numba reads the names of the parameters, of which the first is its typing context
    signature = inspect.signature(write)
    taken = signature.replace(return_annotation=inspect.Signature.empty)
    typed.__signature__ = taken  # type: ignore[attr-defined]
    typed.__name__ = typed.__qualname__ = write.__name__
    typed.__doc__ = write.__doc__
    typed.__module__ = write.__module__
    return intrinsic(typed)
