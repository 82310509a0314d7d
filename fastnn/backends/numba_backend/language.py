"""The small language in which microkernels are written.

Numba compiles Python loops well, but it can't be told "keep these 24 vectors in
registers", and that is what separates a matrix product at the speed of the machine from
one at a tenth of it. The innermost kernels are therefore written as programs that
*write* code: a Python function that runs once, at compile time, and emits LLVM
instructions. A Python loop in it is an unrolled loop in the kernel; an `Int` or a
`Vector` in it stands for a value that the kernel will hold in a register.

    @microkernel
    def axpy(k: Kernel, alpha: Real, x: Address, y: Address, vectors: Int) -> None:
        scale = k.broadcast(alpha)
        with k.loop(0, vectors) as j:                      # a loop of the kernel
            offset = j * k.vector_bytes                    # integer arithmetic of the kernel
            result = k.fma(scale, k.load(x + offset), k.load(y + offset))
            k.store(result, y + offset)

Compiled functions call it as `axpy(alpha, x, y, vectors)`: that is the work of `microkernel.py`,
and nothing here knows of Numba. Addresses are integers that count bytes (`array.ctypes.data` and
what is added to it), and so are strides; a parameter that is one is annotated as `Address`. A
`Matrix` is address, strides and sizes in one value, so that a product is called as
`matmul(alpha, A, B, C)`. Where a kernel has vectors, its first parameter is a floating-point
number, and the type of that number is the type of its vectors: one text serves float32 and
float64. A parameter called `like` serves for its type alone.

In the checked build (see `checked.py`) each address remembers from which parameter it comes, and
each load and store is compared with the memory into which that parameter points. Otherwise nothing
of this is emitted.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np
from llvmlite import ir

from . import system
from .machine import MACHINE, VECTOR_BYTES, lanes

V = TypeVar("V", bound="Value")
Number = TypeVar("Number", "Int", "Vector")

INT32 = ir.IntType(32)
INT64 = ir.IntType(64)
FLOAT = ir.FloatType()
DOUBLE = ir.DoubleType()
FLOATS: dict[np.dtype[Any], ir.Type] = {np.dtype(np.float32): FLOAT, np.dtype(np.float64): DOUBLE}


# ------------------------------------------------------------------- values of a kernel


class Value:
    """A value that the kernel under construction computes; operators emit instructions."""

    def __init__(self, kernel: Kernel, code: ir.Value):
        self.kernel = kernel
        self.code = code

    def __eq__(self, other: object) -> bool:
        raise TypeError("a value of a kernel: expected .equals(...) or .differs(...)")

    def __bool__(self) -> bool:
        raise TypeError("a value of a kernel: expected `with k.when(condition):` or k.where(...)")

    __hash__ = None  # type: ignore[assignment]

    def _emit(self, instruction: str, other: Self | float, swap: bool = False) -> Self:
        left, right = self.code, self.kernel.constant_like(self, other).code
        if swap:
            left, right = right, left
        return type(self)(self.kernel, getattr(self.kernel.builder, instruction)(left, right))


class Condition(Value):
    """What a comparison finds: yes or no, or as many of them as a vector has lanes.

    For `Kernel.where` and `Kernel.when`; `&` and `|` join two. A chained comparison is a TypeError,
    as Python asks for the truth of its first half.
    """

    def __and__(self, other: Condition) -> Condition:
        return self._emit("and_", other)

    def __or__(self, other: Condition) -> Condition:
        return self._emit("or_", other)


class Int(Value):
    """A 64-bit integer: a count, an index, a stride in bytes, an address, a set of 64 bits."""

    bounds: Bounds | None = None
    """In the checked build: of an address, the memory in which it is to stay."""

    def __add__(self, other: Int | int) -> Int:
        if isinstance(other, int) and other == 0:
            return self
        total = self._emit("add", other)
        total.bounds = self.bounds or (other.bounds if isinstance(other, Int) else None)
        return total

    def __sub__(self, other: Int | int) -> Int:
        difference = self._emit("sub", other)
        difference.bounds = self.bounds
        return difference

    def __mul__(self, other: Int | int) -> Int:
        return self._emit("mul", other)

    def __rsub__(self, other: Int | int) -> Int:
        return self._emit("sub", other, swap=True)

    def __floordiv__(self, other: Int | int) -> Int:  # for counts: neither side is negative
        return self._emit("udiv", other)

    def __and__(self, other: Int | int) -> Int:
        return self._emit("and_", other)

    def __or__(self, other: Int | int) -> Int:
        return self._emit("or_", other)

    def __lshift__(self, other: Int | int) -> Int:
        return self._emit("shl", other)

    __radd__ = __add__
    __rmul__ = __mul__

    def _compare(self, operator: str, other: Int | int) -> Condition:
        code = self.kernel.constant_like(self, other).code
        return Condition(self.kernel, self.kernel.builder.icmp_signed(operator, self.code, code))

    def __lt__(self, other: Int | int) -> Condition:
        return self._compare("<", other)

    def __gt__(self, other: Int | int) -> Condition:
        return self._compare(">", other)

    def equals(self, other: Int | int) -> Condition:
        """The condition that both are the same number."""
        return self._compare("==", other)

    def differs(self, other: Int | int) -> Condition:
        """The condition that they are not the same number."""
        return self._compare("!=", other)


class Vector(Value):
    """As many floating-point numbers as a vector register holds (or, as `Real`, one of them).

    `+ - * /` work lane by lane, with a vector or a Python number on the right. `<`, `>`, `equals`
    and `differs` give conditions, one for each lane, for `Kernel.where`; NaN is neither below nor
    above anything.
    """

    def __add__(self, other: Vector | float) -> Vector:
        return self._emit("fadd", other)

    def __sub__(self, other: Vector | float) -> Vector:
        return self._emit("fsub", other)

    def __mul__(self, other: Vector | float) -> Vector:
        return self._emit("fmul", other)

    def __truediv__(self, other: Vector | float) -> Vector:
        return self._emit("fdiv", other)

    def _compare(self, operator: str, other: Vector | float, ordered: bool = True) -> Condition:
        builder = self.kernel.builder
        compare = builder.fcmp_ordered if ordered else builder.fcmp_unordered
        code = self.kernel.constant_like(self, other).code
        return Condition(self.kernel, compare(operator, self.code, code))

    def __lt__(self, other: Vector | float) -> Condition:
        return self._compare("<", other)

    def __gt__(self, other: Vector | float) -> Condition:
        return self._compare(">", other)

    def equals(self, other: Vector | float) -> Condition:
        """The lanes that are equal."""
        return self._compare("==", other)

    def differs(self, other: Vector | float) -> Condition:
        """The lanes that differ; NaN differs from everything."""
        return self._compare("!=", other, ordered=False)


Real = Vector
"""One floating-point number of the kernel's type."""

Address = Int
"""An address, as a parameter of a kernel."""


class Matrix(NamedTuple):
    """A matrix in memory: one value, made of five integers, of a kernel or of compiled functions.

    The number in row i and column j lies at address + i * row_stride + j * column_stride; strides
    count bytes. Most kernels want rows of neighbouring numbers and don't look at the second one.
    """

    address: Int
    row_stride: Int
    column_stride: Int
    rows: Int
    columns: Int

    def row(self, number: Int | int) -> Int:
        """Return the address of a row, in a kernel."""
        return self.address + number * self.row_stride

    def shifted(self, nbytes: Int | int) -> Matrix:
        """Return what lies so many bytes further, in a kernel."""
        return self._replace(address=self.address + nbytes)


MATRIX = np.dtype([(field, np.int64) for field in Matrix._fields])
"""A `Matrix` as a field of a record; kernels take such a field as they take the value."""

Kind = np.dtype[Any] | None
"""Of an argument of a compiled function: float32, float64, int64, the record to which it points,
MATRIX for a matrix, or None for None."""


class Bounds:
    """In the checked build: where the memory begins and ends into which a parameter points.

    Parameters
    ----------
    name
        What errors call the parameter.
    address
        The parameter.
    at_entry
        Whether it is known where the kernel begins. If so, its memory is looked up there, once,
        and only if something is loaded or stored through it.
    """

    def __init__(self, name: str, address: Int, at_entry: bool = True) -> None:
        self.name = name
        self._address = address
        self._found: list[Int] | None = None if at_entry else self._look_up()

    def _look_up(self) -> list[Int]:
        builder = self._address.kernel.builder
        signature = ir.FunctionType(INT64, [INT64])
        function = _declare(builder.module, FIND_RANGE, signature)
        place = builder.inttoptr(builder.call(function, [self._address.code]), INT64.as_pointer())
        return [
            Int(self._address.kernel, builder.load(builder.gep(place, [ir.Constant(INT32, field)])))
            for field in range(RANGE_FIELDS)
        ]

    def found(self) -> list[Int]:
        """Return where the memory begins, where it ends, and where it ends for stores."""
        if self._found is None:
            with self._address.kernel.builder.goto_entry_block():
                self._found = self._look_up()
        return self._found

    @classmethod
    def of_either(cls, condition: Condition, yes: Bounds, no: Bounds) -> Bounds:
        """Return those of `yes` where the condition holds, of `no` elsewhere."""
        if yes is no:
            return yes
        either = cls.__new__(cls)
        either.name = f"{yes.name} or {no.name}"
        either._address = yes._address
        where = yes._address.kernel.where
        either._found = [
            where(condition, *pair) for pair in zip(yes.found(), no.found(), strict=True)
        ]
        return either


RANGE_FIELDS = 3
"""Integers that describe a stretch of memory: begin, end, and the end for stores."""

FIND_RANGE, REPORT, ALLOW = "fastnn_find_range", "fastnn_report_access", "fastnn_allow"
"""Functions of the checked build, which `checked.py` writes."""


class Variables(Generic[V]):
    """Variables of the kernel, addressed like an array: `total[row, column] = ...`.

    They are declared as stack memory. LLVM keeps each of them in a register for as long
    as there are registers, which is what tile sizes are chosen for.
    """

    def __init__(self, kernel: Kernel, initial: V, shape: tuple[int, ...]):
        self.kernel = kernel
        self.kind = type(initial)
        # a variable that holds an address begins with one, and stays in its memory
        self.bounds = initial.bounds if isinstance(initial, Int) else None
        self.slots: dict[tuple[int, ...], ir.Value] = {}
        for place in itertools.product(*map(range, shape)):
            with kernel.builder.goto_entry_block():
                self.slots[place] = kernel.builder.alloca(initial.code.type)
            kernel.builder.store(initial.code, self.slots[place])

    def __getitem__(self, place: int | tuple[int, ...]) -> V:
        slot = self.slots[place if isinstance(place, tuple) else (place,)]
        value = self.kind(self.kernel, self.kernel.builder.load(slot))
        if isinstance(value, Int):
            value.bounds = self.bounds
        return value

    def __setitem__(self, place: int | tuple[int, ...], value: V) -> None:
        slot = self.slots[place if isinstance(place, tuple) else (place,)]
        self.kernel.builder.store(value.code, slot)


# ----------------------------------------------------------- the kernel under construction


class Kernel:
    """Writes one microkernel: its operations emit LLVM instructions in the order of the calls.

    `checked` says whether each load and store is compared with the memory that it may touch.
    """

    def __init__(self, builder: ir.IRBuilder, element: ir.Type, checked: bool = False):
        self.builder = builder
        self.element = element
        self.element_bytes = 4 if element == FLOAT else 8
        self.lanes = lanes(self.element_bytes)
        self.vector_bytes = VECTOR_BYTES
        self.vector_type = ir.VectorType(element, self.lanes)
        self.machine = MACHINE
        self.checked = checked
        self._texts: dict[str, ir.Value] = {}

    # constants

    def constant_like(self, example: V, number: V | float) -> V:
        """Return `number` as a value of the kernel, of the type of `example`."""
        if isinstance(number, Value):
            if not isinstance(number, type(example)):
                kinds = f"{type(example).__name__} beside its like, got {type(number).__name__}"
                raise TypeError(f"a value of a kernel: expected {kinds}")
            return number
        kind = example.code.type
        if isinstance(kind, ir.VectorType):
            return type(example)(self, ir.Constant(kind, [kind.element(number)] * kind.count))
        return type(example)(self, ir.Constant(kind, number))

    def integer(self, number: int | Int) -> Int:
        """Return an integer of the kernel."""
        return number if isinstance(number, Int) else Int(self, ir.Constant(INT64, number))

    def constant(self, number: float) -> Vector:
        """Return a vector whose lanes are all `number`."""
        lane = ir.Constant(self.element, float(number))
        return Vector(self, ir.Constant(self.vector_type, [lane] * self.lanes))

    def zero(self) -> Vector:
        """Return a vector of zeros."""
        return self.constant(0.0)

    # memory

    def _pointer(
        self,
        address: Int,
        kind: ir.Type,
        align: int,
        store: bool = False,
        chosen: Condition | None = None,
    ) -> ir.Value:
        """Return the pointer to a value of `kind`, of which maybe only some lanes are touched."""
        code = self._checked(address, kind, align, store, chosen) if self.checked else address.code
        return self.builder.inttoptr(code, kind.as_pointer())

    def load_as(self, address: Int, kind: ir.Type, align: int) -> ir.Value:
        """Load a value of any LLVM type from an address that is a multiple of `align`."""
        code = self.builder.load(self._pointer(address, kind, align))
        code.align = align
        return code

    def store_as(self, code: ir.Value, address: Int, align: int) -> None:
        """Store a value of any LLVM type at an address that is a multiple of `align`."""
        self.builder.store(code, self._pointer(address, code.type, align, store=True)).align = align

    def load(self, address: Int) -> Vector:
        """Load a vector from an aligned address."""
        return Vector(self, self.load_as(address, self.vector_type, self.vector_bytes))

    def store(self, vector: Vector, address: Int) -> None:
        """Store a vector at an aligned address."""
        self.store_as(vector.code, address, self.vector_bytes)

    def load_real(self, address: Int) -> Real:
        """Load one number."""
        return Real(self, self.load_as(address, self.element, self.element_bytes))

    def store_real(self, number: Real, address: Int) -> None:
        """Store one number."""
        self.store_as(number.code, address, self.element_bytes)

    def load_integer(self, address: Int) -> Int:
        """Load a 64-bit integer."""
        return Int(self, self.load_as(address, INT64, 8))

    def store_integer(self, number: Int, address: Int) -> None:
        """Store a 64-bit integer."""
        self.store_as(number.code, address, 8)

    def prefetch(self, address: Int) -> None:
        """Ask for the line at any address, to be read: nothing is loaded, and nothing can fail."""
        pointer = self.builder.inttoptr(address.code, ir.IntType(8).as_pointer())
        for_reading, second_level, data = (ir.Constant(INT32, number) for number in (0, 2, 1))
        codes = [pointer, for_reading, second_level, data]
        function = self.function("llvm.prefetch.p0", ir.VoidType(), [code.type for code in codes])
        self.builder.call(function, codes)

    def load_address(self, address: Int, name: str) -> Address:
        """Load an address, which errors of the checked build call `name`."""
        loaded = self.load_integer(address)
        if self.checked:
            loaded.bounds = Bounds(name, loaded, at_entry=False)
        return loaded

    # memory of users: rows at any address, and vectors of which only some lanes are theirs

    def load_anywhere(self, address: Int) -> Vector:
        """Load a vector from any address."""
        return Vector(self, self.load_as(address, self.vector_type, 1))

    def load_real_anywhere(self, address: Int) -> Real:
        """Load one number from any address."""
        return Real(self, self.load_as(address, self.element, 1))

    def store_anywhere(self, vector: Vector, address: Int) -> None:
        """Store a vector at any address."""
        self.store_as(vector.code, address, 1)

    def load_lanes(self, address: Int, chosen: Condition) -> Vector:
        """Load the chosen lanes from any address; the others are 0, their memory is not touched."""
        pointer = self._pointer(address, self.vector_type, 1, chosen=chosen)
        byte = ir.Constant(INT32, 1)
        codes = [pointer, byte, chosen.code, self.zero().code]
        return Vector(self, self._call_masked("load", self.vector_type, codes))

    def store_lanes(self, vector: Vector, address: Int, chosen: Condition) -> None:
        """Store the chosen lanes at any address; the memory of the others is not touched."""
        pointer = self._pointer(address, self.vector_type, 1, store=True, chosen=chosen)
        byte = ir.Constant(INT32, 1)
        self._call_masked("store", ir.VoidType(), [vector.code, pointer, byte, chosen.code])

    def masked(
        self, chosen: Condition
    ) -> tuple[Callable[[Int], Vector], Callable[[Vector, Int], None]]:
        """Return `load` and `store` of the chosen lanes, to be used as those of whole vectors."""
        return (
            lambda address: self.load_lanes(address, chosen),
            lambda vector, address: self.store_lanes(vector, address, chosen),
        )

    def function(self, name: str, returned: ir.Type, parameters: Sequence[ir.Type]) -> ir.Function:
        """Return a function of a library, or of LLVM, to be called by its name."""
        return _declare(self.builder.module, name, ir.FunctionType(returned, parameters))

    def _call_masked(self, name: str, kind: ir.Type, codes: list[ir.Value]) -> ir.Value:
        suffix = f"v{self.lanes}f{8 * self.element_bytes}.p0"
        signature = ir.FunctionType(kind, [code.type for code in codes])
        function = _declare(self.builder.module, f"llvm.masked.{name}.{suffix}", signature)
        return self.builder.call(function, codes)

    # the checked build

    def _checked(
        self, address: Int, kind: ir.Type, align: int, store: bool, chosen: Condition | None
    ) -> ir.Value:
        """Write the comparison of an access with the memory that it may touch; return the address.

        What is out of bounds, or not aligned, is reported, and turned aside to memory that belongs
        to nobody, so that the kernel comes to its end.
        """
        builder, nbytes = self.builder, bytes_of(kind)
        bounds = address.bounds or Bounds("an address", address, at_entry=False)
        begin, end, store_end = bounds.found()
        first, last = address, address + nbytes
        if chosen is not None:
            bits = self.bits(chosen)
            before_first, unused = (
                Int(self, count(bits.code, ir.Constant(ir.IntType(1), 0)))
                for count in (builder.cttz, builder.ctlz)
            )
            first = address + before_first * self.element_bytes
            last = address + (64 - unused) * self.element_bytes
        outside = builder.or_(
            builder.icmp_unsigned("<", first.code, begin.code),
            builder.icmp_unsigned(">", last.code, (store_end if store else end).code),
        )
        if align > 1:
            outside = builder.or_(outside, (address & (align - 1)).differs(0).code)
        if chosen is not None:
            outside = builder.and_(outside, bits.differs(0).code)
        before = builder.basic_block
        with builder.if_then(outside, likely=False):
            signature = ir.FunctionType(INT64, [INT64] * 6)
            report = _declare(builder.module, REPORT, signature)
            where = self._text(f"{builder.function.name}\n{bounds.name}")
            length = last - first
            flag = ir.Constant(INT64, int(store))
            aside = builder.call(
                report, [where, first.code, length.code, begin.code, end.code, flag]
            )
            reported = builder.basic_block
        code = builder.phi(INT64)
        code.add_incoming(address.code, before)
        code.add_incoming(aside, reported)
        return code

    def _text(self, text: str) -> ir.Value:
        """Return the address of a text, as an integer."""
        if text not in self._texts:
            module, content = self.builder.module, bytearray(text.encode() + b"\0")
            kind = ir.ArrayType(ir.IntType(8), len(content))
            name = module.get_unique_name("fastnn_text")
            constant = ir.GlobalVariable(module, kind, name)
            constant.linkage, constant.global_constant = "internal", True
            constant.initializer = ir.Constant(kind, content)
            self._texts[text] = constant.ptrtoint(INT64)
        return self._texts[text]

    # memory that threads share, and the operating system

    def load_shared(self, address: Int) -> Int:
        """Load a 64-bit integer that another thread stores; what it stored before is visible."""
        pointer = self._pointer(address, INT64, 8)
        return Int(self, self.builder.load_atomic(pointer, "acquire", 8))

    def store_shared(self, number: int | Int, address: Int) -> None:
        """Store a 64-bit integer that another thread loads, after all that was stored before."""
        number = self.integer(number)
        pointer = self._pointer(address, INT64, 8, store=True)
        self.builder.store_atomic(number.code, pointer, "release", 8)

    def yield_processor(self) -> None:
        """Let another thread that is ready run on this processor."""
        system.SYSTEM.yield_processor(self.builder)

    def sleep(self, microseconds: int) -> None:
        """Leave the processor for a while."""
        system.SYSTEM.sleep(self.builder, microseconds)

    def clock(self) -> Int:
        """Nanoseconds since some moment."""
        return Int(self, system.SYSTEM.clock(self.builder))

    def cycles(self) -> Int:
        """What the processor's own counter says; nanoseconds where it isn't for all to read."""
        if not self.builder.module.triple.startswith("x86_64"):
            return self.clock()
        counter = self.function("llvm.readcyclecounter", INT64, [])
        return Int(self, self.builder.call(counter, []))

    # arithmetic

    def call(self, name: str, *arguments: V) -> V:
        """Call LLVM's own function `name` for the type of its first argument."""
        codes = [a.code for a in arguments]
        kind = codes[0].type
        suffix = "f32" if self.element == FLOAT else "f64"
        if isinstance(kind, ir.VectorType):
            suffix = f"v{kind.count}{suffix}"
        signature = ir.FunctionType(kind, [code.type for code in codes])
        function = _declare(self.builder.module, f"llvm.{name}.{suffix}", signature)
        return type(arguments[0])(self, self.builder.call(function, codes))

    def fma(self, a: Vector, b: Vector, c: Vector) -> Vector:
        """a * b + c, in one instruction where the machine has it; elsewhere it rounds twice."""
        return self.call("fmuladd", a, b, c)

    def fma_rounded_once(self, a: Vector, b: Vector, c: Vector) -> Vector:
        """a * b + c, whose product is not rounded on any machine.

        Where there is no instruction for it, the C library is asked for each number.
        """
        return self.call("fma", a, b, c)

    def broadcast(self, number: Real) -> Vector:
        """Return a vector whose lanes are all `number`."""
        return Vector(self, self.in_every_lane(number.code))

    def in_every_lane(self, code: ir.Value, lanes: int = 0) -> ir.Value:
        """Return as many of a value of any LLVM type as a vector has lanes, or as `lanes` says."""
        lanes = lanes or self.lanes
        empty = ir.Constant(ir.VectorType(code.type, lanes), ir.Undefined)
        first = self.builder.insert_element(empty, code, ir.Constant(INT32, 0))
        every = ir.Constant(ir.VectorType(INT32, lanes), [0] * lanes)
        return self.builder.shuffle_vector(first, empty, every)

    def where(self, condition: Condition, yes: V, no: V) -> V:
        """Return `yes` where the condition holds, `no` elsewhere."""
        value = type(yes)(self, self.builder.select(condition.code, yes.code, no.code))
        bounds = [x.bounds for x in (yes, no) if isinstance(x, Int) and x.bounds is not None]
        if isinstance(value, Int) and len(bounds) == 2:
            value.bounds = Bounds.of_either(condition, *bounds)
        return value

    def maximum(self, a: Number, b: Number | float) -> Number:
        """Return the larger of two, `b` where one of them is NaN."""
        b = self.constant_like(a, b)
        return self.where(a > b, a, b)

    def minimum(self, a: Number, b: Number | float) -> Number:
        """Return the smaller of two, `b` where one of them is NaN."""
        b = self.constant_like(a, b)
        return self.where(a < b, a, b)

    def lane_sum(self, vector: Vector) -> Real:
        """Sum of the lanes, by halves: ((0 + 8) + (4 + 12)) + ... for 16 of them."""
        return self._fold(vector, lambda a, b: a + b)

    def lane_sums(self, vectors: list[Vector]) -> Vector:
        """Sums of the lanes of at most as many vectors as one has lanes, side by side, then zeros.

        Each is added in the order of `lane_sum`. Vectors i and i + half become one whose lanes are
        of either by turns, with half the sums still to be done; so it takes half of the work of a
        transposition.
        """
        vectors = vectors + [self.zero()] * (self.lanes - len(vectors))
        while len(vectors) > 1:
            half = len(vectors) // 2
            joined = [
                self.interleave(a.code, b.code)
                for a, b in zip(vectors[:half], vectors[half:], strict=True)
            ]
            vectors = [Vector(self, low) + Vector(self, high) for low, high in joined]
        return vectors[0]

    def lane_maximum(self, vector: Vector) -> Real:
        """Largest lane."""
        return self._fold(vector, self.maximum)

    def _fold(self, vector: Vector, operation: Callable[[Vector, Vector], Vector]) -> Real:
        builder, code = self.builder, vector.code
        undefined = ir.Constant(self.vector_type, ir.Undefined)
        half = self.lanes
        while half > 1:
            half //= 2
            upper = [half + i if i < half else i for i in range(self.lanes)]
            mask = ir.Constant(ir.VectorType(INT32, self.lanes), upper)
            moved = builder.shuffle_vector(code, undefined, mask)
            code = operation(Vector(self, code), Vector(self, moved)).code
        return Real(self, builder.extract_element(code, ir.Constant(INT32, 0)))

    def bits(self, condition: Condition) -> Int:
        """One bit a lane, lane 0 lowest: set where the condition holds."""
        packed = self.builder.bitcast(condition.code, ir.IntType(self.lanes))
        return Int(self, self.builder.zext(packed, INT64))

    def lowest_bit(self, bits: Int) -> Int:
        """Number of the lowest bit that is set; there is one."""
        never_zero = ir.Constant(ir.IntType(1), 1)
        return Int(self, self.builder.cttz(bits.code, never_zero))

    def count_bits(self, bits: Int) -> Int:
        """How many bits are set."""
        count = self.function("llvm.ctpop.i64", INT64, [INT64])
        return Int(self, self.builder.call(count, [bits.code]))

    def lanes_of(self, bits: Int, first: Int) -> Condition:
        """The lanes of which bits are set, that of lane 0 at `first`: what `bits` has made."""
        narrow = self.builder.trunc(
            self.builder.lshr(bits.code, first.code), ir.IntType(self.lanes)
        )
        flags = ir.VectorType(ir.IntType(1), self.lanes)
        return Condition(self, self.builder.bitcast(narrow, flags))

    def lane_before(self, count: Int) -> Condition:
        """The lanes whose number is below `count`."""
        numbers = ir.Constant(ir.VectorType(INT64, self.lanes), list(range(self.lanes)))
        counts = self.in_every_lane(count.code)
        return Condition(self, self.builder.icmp_signed("<", numbers, counts))

    def transpose(self, rows: list[Vector]) -> list[Vector]:
        """Transpose a square of vectors in registers; see `transpose_codes`."""
        return [Vector(self, code) for code in self.transpose_codes([row.code for row in rows])]

    def transpose_codes(self, codes: list[ir.Value]) -> list[ir.Value]:
        """Transpose a square of vectors of any element type.

        Interleaving rows i and i + half, for every i, moves one bit of the row number
        into the lane number; after log2(lanes) rounds the two have changed places.
        """
        half = len(codes) // 2
        for _ in range(half.bit_length()):
            pairs = zip(codes[:half], codes[half:], strict=True)
            codes = [code for pair in pairs for code in self.interleave(*pair)]
        return codes

    def interleave(self, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return a_0, b_0, a_1, b_1, ... of two vectors of any element type, as two vectors."""
        lanes = a.type.count
        half = lanes // 2
        low, high = (
            ir.Constant(
                ir.VectorType(INT32, lanes),
                [place for i in range(half) for place in (first + i, first + i + lanes)],
            )
            for first in (0, half)
        )
        shuffle = self.builder.shuffle_vector
        return shuffle(a, b, low), shuffle(a, b, high)

    def vectors(self, matrix: Matrix) -> Int:
        """Return how many vectors hold a row; the last may be a vector in part."""
        return (matrix.columns + (self.lanes - 1)) // self.lanes

    # control flow

    def variable(self, initial: V) -> Variables[V]:
        """Declare one variable, read and written as `name[0]`."""
        return Variables(self, initial, (1,))

    def variables(self, initial: V, *shape: int) -> Variables[V]:
        """Declare an array of variables that live in registers."""
        return Variables(self, initial, shape)

    @contextlib.contextmanager
    def loop(self, start: int | Int, stop: int | Int, step: int | Int = 1) -> Iterator[Int]:
        """Loop of the kernel: `with k.loop(0, n) as i:` is `for i in range(0, n):`."""
        index = self.variable(self.integer(start))
        with self.loop_while(lambda: index[0] < stop):
            current = index[0]
            yield current
            index[0] = current + step

    @contextlib.contextmanager
    def loop_while(self, condition: Callable[[], Condition]) -> Iterator[None]:
        """Loop of the kernel for as long as the condition, evaluated anew, holds."""
        builder = self.builder
        test = builder.append_basic_block("test")
        body = builder.append_basic_block("body")
        after = builder.append_basic_block("after")
        builder.branch(test)
        builder.position_at_end(test)
        builder.cbranch(condition().code, body, after)
        builder.position_at_end(body)
        yield
        builder.branch(test)
        builder.position_at_end(after)

    @contextlib.contextmanager
    def each_bit(self, bits: Int, further: Int | None = None) -> Iterator[Int]:
        """Loop over the bits that are set, lowest first; yields their numbers.

        With a `further` word, whose bits count from 64 on, it is one loop all the same: where it
        ends is mispredicted once, not once for each word.
        """
        if further is None:
            rest = self.variable(bits)
            with self.loop_while(lambda: rest[0].differs(0)):
                current = rest[0]
                yield self.lowest_bit(current)
                rest[0] = current & (current - 1)
            return
        empty = bits.equals(0)
        rest = self.variable(self.where(empty, further, bits))
        base = self.variable(self.where(empty, self.integer(64), self.integer(0)))
        with self.loop(0, self.count_bits(bits) + self.count_bits(further)):
            current = rest[0]
            yield base[0] | self.lowest_bit(current)
            left = current & (current - 1)
            done = left.equals(0)
            rest[0] = self.where(done, further, left)
            base[0] = self.where(done, self.integer(64), base[0])

    def when(self, condition: Condition):
        """`with k.when(condition):` runs its body where the condition holds."""
        return self.builder.if_then(condition.code)

    def if_else(self, condition: Condition):
        """`with k.if_else(condition) as (yes, no):` takes one body in `with yes:`, one in `no`."""
        return self.builder.if_else(condition.code)

    def cases(self, number: Int, numbers: range | tuple[int, ...]) -> Iterator[int]:
        """Write the body of a `for` once for each of `numbers`; the kernel jumps to one of them.

        Where `number` is none of them it runs no body.

        This is how a kernel whose unrolling depends on a width serves every width without
        being compiled again. The jump stands outside the loops, so it costs nothing.
        """
        after = self.builder.append_basic_block("after.cases")
        switch = self.builder.switch(number.code, after)
        for case in numbers:
            block = self.builder.append_basic_block(f"case.{case}")
            switch.add_case(ir.Constant(INT64, case), block)
            self.builder.position_at_end(block)
            yield case
            self.builder.branch(after)
        self.builder.position_at_end(after)


def pairwise_sum(terms: Sequence[V]) -> V:
    """Write the sum of terms, ((0 + 1) + (2 + 3)): none waits for all others."""
    while len(terms) > 1:
        even = len(terms) // 2 * 2  # an odd one is left
        pairs = zip(terms[:even:2], terms[1::2], strict=True)
        terms = [*(a + b for a, b in pairs), *terms[even:]]  # type: ignore[operator]
    return terms[0]


def bytes_of(kind: ir.Type) -> int:
    """Return how many bytes a number or a vector takes."""
    if isinstance(kind, ir.VectorType):
        return int(kind.count * bytes_of(kind.element))
    return kind.width // 8 if isinstance(kind, ir.IntType) else {FLOAT: 4, DOUBLE: 8}[kind]


def _declare(module: ir.Module, name: str, signature: ir.FunctionType) -> ir.Function:
    return module.globals.get(name) or ir.Function(module, signature, name)
