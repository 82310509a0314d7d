"""What the names of `microkernel.py` mean to Numba: types of calls, and the instructions of LLVM.

A matrix is a named tuple of integers to Numba, or a field of a record.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending, from_dtype, types
from numba.core import cgutils
from numba.core.errors import TypingError

from ..language import ALLOW, DOUBLE, FLOAT, INT32, INT64, MATRIX, Matrix
from ..microkernel import Intrinsic, Microkernel

MATRIX_RECORD: Any = from_dtype(MATRIX)
MATRIX_TYPE = types.NamedUniTuple(types.int64, len(Matrix._fields), Matrix)
"""Numba's type of a `Matrix`."""
_intrinsic: Any = extending.intrinsic


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


def _matrix_from(generate: Callable[..., tuple[ir.Value, ...]]) -> Callable[..., ir.Value]:
    """Return what an intrinsic writes that makes a matrix; `generate` gives its five integers."""

    def write(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        codes = flattened(context, builder, signature.args, values)
        made: ir.Value = context.make_tuple(
            builder, signature.return_type, generate(builder, *codes)
        )
        return made

    return write


@_intrinsic
def matrix_at(context, address, row_stride, column_stride, rows, columns):
    integers = (types.int64,) * len(Matrix._fields)
    return MATRIX_TYPE(*integers), _matrix_from(lambda builder, *codes: codes)


@_intrinsic
def nothing(context):
    integers = (ir.Constant(INT64, 0),) * len(Matrix._fields)
    return MATRIX_TYPE(), _matrix_from(lambda builder: integers)


@_intrinsic
def submatrix(context, matrix, row, column, rows, columns):
    def generate(builder, address, row_stride, column_stride, _, __, row, column, rows, columns):
        address = builder.add(address, builder.mul(row, row_stride))
        address = builder.add(address, builder.mul(column, column_stride))
        return address, row_stride, column_stride, rows, columns

    return MATRIX_TYPE(matrix, row, column, rows, columns), _matrix_from(generate)


@_intrinsic
def transposed(context, matrix):
    def generate(builder, address, row_stride, column_stride, rows, columns):
        return address, column_stride, row_stride, columns, rows

    return MATRIX_TYPE(matrix), _matrix_from(generate)


@_intrinsic
def shifted(context, matrix, nbytes):
    def generate(builder, address, row_stride, column_stride, rows, columns, nbytes):
        return builder.add(address, nbytes), row_stride, column_stride, rows, columns

    return MATRIX_TYPE(matrix, nbytes), _matrix_from(generate)


@_intrinsic
def call(context, address, *arguments):
    reals = {kind for kind in arguments if isinstance(kind, types.Float)}
    if len(reals) > 1:
        raise TypingError(f"call: expected numbers of one type, got {sorted(map(str, reals))}")

    def generate(context, builder, signature, values):
        code, packed = values
        codes = flattened(context, builder, arguments, cgutils.unpack_tuple(builder, packed))
        called = ir.FunctionType(ir.VoidType(), [c.type for c in codes])
        builder.call(builder.inttoptr(code, called.as_pointer()), codes)
        return context.get_dummy_value()

    return types.void(types.int64, types.StarArgTuple.from_types(arguments)), generate


@_intrinsic
def record_at(context, records, number):
    def generate(context, builder, signature, values):
        return builder.gep(values[0], [values[1]])

    return records.dtype(records, types.int64), generate


@_intrinsic
def allow(context, address, nbytes):
    def generate(context, builder, signature, values):
        name = builder.module.globals.get(ALLOW) or ir.Function(
            builder.module, ir.FunctionType(INT64, [INT64, INT64]), ALLOW
        )
        return builder.call(name, values)

    return types.int64(types.int64, types.int64), generate


def _choice(comparison: str) -> Any:
    """Return the intrinsic that takes the first of two integers where a comparison holds."""

    def chosen(context, a, b):
        def generate(context, builder, signature, values):
            return builder.select(builder.icmp_signed(comparison, *values), *values)

        return types.int64(types.int64, types.int64), generate

    return _intrinsic(chosen)


minimum, maximum = _choice("<"), _choice(">")


def meaning_of(intrinsic: Intrinsic) -> Any:
    """Return what Numba takes for a function of `microkernel.py`."""
    return globals()[intrinsic.name]


Used = Callable[[Microkernel, ir.Type], "tuple[int, ...] | None"]
"""Says which parameters the machine code of a kernel has, None where it has none of its own."""


class Calls:
    """The kernels that a function calls while it is compiled.

    Parameters
    ----------
    used_of
        See `Used`.
    """

    now: Calls
    """Of the function that is being compiled; one at a time is."""

    def __init__(self, used_of: Used) -> None:
        self._used_of = used_of
        self.needed: set[str] = set()
        self.failure: Exception | None = None

    def used_of(self, kernel: Microkernel, element: ir.Type) -> tuple[int, ...] | None:
        """Ask `Used`, and note what the writing of a kernel raises."""
        try:
            return self._used_of(kernel, element)
        except Exception as error:
            self.failure = error
            raise


@functools.cache
def kernel_function(kernel: Microkernel) -> Any:
    """Return what Numba takes for a kernel.

    A kernel with loops is declared, and called by its symbol. Where it has been written only to be
    called at one place, the call would cost more than its body, so it is written there.
    """

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
            symbol, used = kernel.name(element), Calls.now.used_of(kernel, element)
            codes = flattened(context, builder, signature.args, values)
            function = builder.module.globals.get(symbol)
            if used is not None:
                Calls.now.needed.add(symbol)
                codes = [codes[i] for i in used]
                if function is None:
                    kind = kernel.signature(element, used)
                    function = ir.Function(builder.module, kind, symbol)
            elif function is None:
                function = kernel.define(builder.module, element)
                function.linkage = "internal"
                function.attributes.add("noinline" if len(function.blocks) > 1 else "alwaysinline")
            result = builder.call(function, codes)
            return context.get_dummy_value() if kernel.result == "None" else result

        accepted = [
            given if kind == "Matrix" else numba_types[kind]
            for given, kind in zip(arguments, kernel.parameters, strict=True)
        ]
        return numba_types[kernel.result](*accepted), generate

    # Numba reads the names of the parameters, of which the first is its typing context
    signature = inspect.signature(kernel.write)
    taken = signature.replace(return_annotation=inspect.Signature.empty)
    typed.__signature__ = taken  # type: ignore[attr-defined]
    typed.__name__ = typed.__qualname__ = kernel.write.__name__
    typed.__doc__ = kernel.write.__doc__
    typed.__module__ = kernel.write.__module__
    return _intrinsic(typed)
