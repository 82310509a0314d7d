"""The inner loops of a rung as the instructions that LLVM made of them, counted by kind.

``python -m benchmarks.ladder 9 --assembly`` compiles for this machine, with ``--cpu NAME`` for one
that LLVM knows by name, and runs nothing of it. Shown are the loops in which numbers are multiplied
or looked at one by one; of the package's kernels, which have a loop for each width of a row, those
for the widths of this network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numba
from llvmlite import binding

from fastnn.backends.numba_backend.compiling.objects import optimized, target_machine
from fastnn.backends.numba_backend.epoch.forward import tile_of
from fastnn.backends.numba_backend.jit import kernel_text
from fastnn.backends.numba_backend.kernels import loading, matmul, rows, sparse
from fastnn.backends.numba_backend.language import FLOAT
from fastnn.backends.numba_backend.machine import MACHINE, is_x86, lanes, target_cpu
from fastnn.markdown import markdown_table
from fastnn.memory import ROW_BLOCK, round_up

from . import r05_plain_loops, r06_row_kernels, r08_skipping_zeros
from .climbing import UNITS

MATRIX, VECTOR = numba.float32[:, ::1], numba.float32[::1]
BY_NUMBA = {5: r05_plain_loops, 6: r06_row_kernels, 7: r06_row_kernels, 8: r08_skipping_zeros}
"""The modules that have a rung's functions."""
SIGNATURES = {
    "forward": (MATRIX, MATRIX, VECTOR, numba.boolean, MATRIX),
    "backward": (MATRIX, MATRIX, VECTOR, MATRIX, MATRIX, numba.float32),
    "list_nonzeros": (numba.float32[:], numba.int64[::1]),  # of a column
}
"""The functions, and for what they are compiled."""
FIRST, LAST = 5, 12

PRODUCT = re.compile(r"vf(n?)m(add|sub)\d+[sp]|v?mul[sp]s")
COMPARISON = re.compile(r"v?u?comiss|v?cmp\w*ss")
JUMP = re.compile(r"j\w+")
FLOAT_WORK = re.compile(r"[vk]\w+|\w+[sp][sd]")
MOVE = re.compile(r"v?mov[au]p[sd]|v?movs[sd]|vmovdq\w+|kmov\w|vbroadcasts\w")
LANES = {"x": 4, "y": 8, "z": 16}
"""Numbers of float32 in registers called xmm, ymm and zmm."""


@dataclass(frozen=True)
class Loop:
    """A loop that has no other in it, as a text: labels, and instructions behind a tab."""

    name: str
    lines: Sequence[str]

    @property
    def instructions(self) -> list[tuple[str, str]]:
        """Name and operands of each instruction."""
        texts = (line.partition(";")[0].split(None, 1) for line in self.lines if line[0] == "\t")
        return [(text[0], text[1].strip() if len(text) > 1 else "") for text in texts]

    def count(self, kind: re.Pattern[str]) -> int:
        """How many instructions have a name of this kind."""
        return sum(bool(kind.fullmatch(name)) for name, _ in self.instructions)

    @property
    def products(self) -> int:
        """Multiply-adds, and multiplications whose sum is an instruction of its own."""
        return sum(bool(PRODUCT.match(name)) for name, _ in self.instructions)

    @property
    def numbers(self) -> int:
        """How many products of two numbers that are."""
        return sum(_width(*of) for of in self.instructions if PRODUCT.match(of[0]))

    @property
    def broadcasts(self) -> int:
        """Loads of one number to all lanes of a vector."""
        return sum(_reads(*of) and _repeats(*of) for of in self.instructions)

    @property
    def loads(self) -> int:
        """Instructions that read memory, whatever else they do."""
        return sum(_reads(*of) for of in self.instructions)

    @property
    def stores(self) -> int:
        """Instructions that write memory."""
        return sum(_writes(*of) for of in self.instructions)

    @property
    def jumps(self) -> int:
        return self.count(JUMP)

    @property
    def other_float(self) -> int:
        """What else is done with vectors, masks and floating-point numbers."""
        return sum(
            bool(FLOAT_WORK.fullmatch(name) and not PRODUCT.match(name))
            and not (MOVE.fullmatch(name) and "[" in operands)
            for name, operands in self.instructions
        )

    @property
    def integer(self) -> int:
        """Addresses, counts and sets of bits."""
        known = re.compile(f"{FLOAT_WORK.pattern}|{JUMP.pattern}|prefetch.*")
        return len(self.instructions) - self.count(known)

    @property
    def kind(self) -> tuple[str, ...]:
        """What two loops have in common that differ in their registers."""
        return tuple(f"{name} {operands[:1]}" for name, operands in self.instructions)

    def row(self) -> list[str]:
        """Return the line of the table."""
        moved = self.loads + self.stores
        width = self.numbers // self.products if self.products else 0
        return [
            self.name, str(len(self.instructions)),
            f"{self.products} x {width}" if width else "0",
            str(self.loads), str(self.broadcasts), str(self.stores), str(self.other_float),
            str(self.integer), str(self.jumps),
            f"{self.products / moved:.2f}" if moved else "",
        ]  # fmt: skip


HEAD = [
    "loop", "all", "products", "loads", "broadcasts", "stores", "float", "integer", "jumps",
    "ratio",
]  # fmt: skip
LEGEND = """\
Of one turn. all: its instructions; products: multiply-adds, or multiplications whose sum is an
instruction of its own, by so many numbers at once; loads: instructions that read memory;
broadcasts: those of them that put one number into all lanes; float: what else is done with floats
and masks; integer: with addresses, counts and sets of bits; ratio: products a load or store."""


def _width(name: str, operands: str) -> int:
    """Return how many numbers an instruction takes at once."""
    return 1 if name.endswith("ss") else LANES[re.findall(r"\b([xyz])mm", operands)[0]]


def _repeats(name: str, operands: str) -> bool:
    return "broadcast" in name or "{1to" in operands


def _reads(name: str, operands: str) -> bool:
    if "[" not in operands or name == "lea" or name.startswith("prefetch"):
        return False
    return not _writes(name, operands) or not re.match(r"v?mov|kmov|set|vextract", name)


def _writes(name: str, operands: str) -> bool:
    to_memory = "[" in operands.partition(",")[0] and not name.startswith("prefetch")
    return to_memory and not re.match(r"cmp|test|bt\b|v?u?comis|push", name)


# ---------------------------------------------------------------------------- loops of a text


def inner_loops(assembly: str) -> Iterator[Loop]:
    """Find the loops in a text of LLVM's, whose comments say which block is in which loop."""
    blocks: list[tuple[str, str, list[str]]] = []  # label, loop, instructions
    heads = []
    for part in re.split(r"^(?=\.LBB|# %bb\.)", assembly, flags=re.MULTILINE)[1:]:
        label = re.match(r"(\.L|# )([\w%.]+):", part)[2]
        inside = re.search(r"in Loop: Header=(BB\w+)", part)
        if "This Inner Loop Header" in part:
            heads.append(label)
        loop = label if label in heads else inside[1] if inside else ""
        body = re.findall(r"^\t(?!\.)(.+)", part.partition("\t.cfi_endproc")[0], re.MULTILINE)
        blocks.append((label, loop, body))
    for head in heads:
        inside = [(label, body) for label, loop, body in blocks if loop == head]
        labels = {f".L{label}" for label, _ in inside}
        lines = []
        for label, body in inside:
            lines.append(f"{label.replace('%', '')}:")
            # what jumps elsewhere in any case is the way out
            lines += [
                _readable(line) for line in body
                if not (line.startswith("jmp") and line.split()[-1] not in labels)
            ]  # fmt: skip
        yield Loop(head, lines)


def _readable(line: str) -> str:
    code, _, comment = line.partition("#")
    name, _, operands = code.strip().partition("\t")
    operands = re.sub(r"\b[a-z]+ ptr ", "", operands).replace(".LBB", "BB")
    text = f"\t{name:<14}{operands}".rstrip()
    return f"{text:<60}; {comment.strip()}" if comment else text


def named(name: str, found: Iterable[Loop]) -> list[Loop]:
    """Number loops, each kind once, the one with the most products first."""
    kinds: dict[tuple[str, ...], Loop] = {}
    for loop in found:
        kinds.setdefault(loop.kind, loop)
    ordered = sorted(kinds.values(), key=lambda loop: -loop.numbers)
    return [Loop(f"{name} {i}", loop.lines) for i, loop in enumerate(ordered, 1)]


# ---------------------------------------------------------------------------- loops of a rung


def loops_of(number: int) -> list[Loop]:
    """Compile a rung, and return its inner loops."""
    if number in BY_NUMBA:
        functions = vars(BY_NUMBA[number])
        made = [_of_function(functions[name], of) for name, of in SIGNATURES.items()
                if name in functions]  # fmt: skip
        return [loop for found in made for loop in found]
    kernels = {9: _sets_of_bits, 10: _register_tile}
    made = [kernels[number]()] if number in kernels else [_sets_of_bits(), _register_tile()]
    return [loop for chosen in made for loop in chosen]


def _of_function(dispatcher, signature) -> list[Loop]:
    dispatcher.compile(signature)
    name = dispatcher.overloads[signature].fndesc.mangled_name
    module = binding.parse_assembly(dispatcher.inspect_llvm(signature))
    _, _, text = _assembly(module).partition(f"\n{name}:")
    text = text.partition("# -- End function")[0]
    found = (of for of in inner_loops(text) if of.products or of.count(COMPARISON))
    return named(dispatcher.__name__, found)


def _of_kernel(kernel, wanted, having="") -> list[Loop]:
    """Return the loops of so many (products, broadcasts), with an instruction if it is given."""
    written = kernel_text(kernel, FLOAT)
    module = optimized(binding.parse_assembly(written[0]), target_machine())
    found = (
        of for of in inner_loops(_assembly(module))
        if (of.products, of.broadcasts) in wanted
        and any(name.startswith(having) for name, _ in of.instructions)
    )  # fmt: skip
    return named(kernel.write.__name__, found)


def _assembly(module) -> str:
    machine = target_machine()
    machine.set_asm_verbosity(True)
    return machine.emit_assembly(module)


def _vectors() -> list[tuple[int, int, int]]:
    """Of each layer the vectors of a row, and how many `gather` takes of one row and of two."""
    lane, found = lanes(4), []
    for _, outputs in pairwise(UNITS):
        columns = round_up(outputs, ROW_BLOCK)
        widest = MACHINE.gather_vectors, MACHINE.scatter_vectors
        tiles = (tile_of.function(columns, most * lane, lane) // lane for most in widest)
        found.append((columns // lane, *tiles))
    return found


def _sets_of_bits() -> list[Loop]:
    vectors = _vectors()
    most = MACHINE.backward_vectors
    tiles = [-(-of // -(-of // most)) for of, _, _ in vectors[1:]]
    return [
        *_of_kernel(loading.load_nonzeros, {(64 // lanes(4), 0)}, "vcmpneqps"),
        *_of_kernel(sparse.gather, {(alone, 1) for _, alone, _ in vectors}
                    | {(2 * pair, 2) for _, _, pair in vectors[:1]}),
        *_of_kernel(rows.nonzero_bits, {(0, 0)}),
        *_of_kernel(sparse.backward_by_unit, {(2 * tile, 1) for tile in tiles}),
    ]  # fmt: skip


def _register_tile() -> list[Loop]:
    height = MACHINE.tile_rows
    widths = {1, MACHINE.tile_columns}
    return [
        *_of_kernel(matmul.matmul, {(height * width, height) for width in widths}),
        *_of_kernel(matmul.backward_from_few, {(2 * UNITS[-1], UNITS[-1])}),
    ]


def report(number: int) -> str:
    """Return the table of a rung's loops, and their text.

    Raises
    ------
    ValueError
        If the rung is not compiled, or this is no x86 machine.
    """
    if not FIRST <= number <= LAST:
        raise ValueError(f"rung: expected one that is compiled, {FIRST} to {LAST}, got {number}")
    if not is_x86():
        raise ValueError("the instructions of an x86 processor are counted, this is another")
    binding.set_option("", "--x86-asm-syntax=intel")
    loops = loops_of(number)
    version = ".".join(map(str, binding.llvm_version_info))
    head = f"LLVM {version} for {target_cpu()[0]}, vectors of {MACHINE.vector_bits} bits"
    table = markdown_table(HEAD, [loop.row() for loop in loops])
    texts = ("\n".join([f"; {loop.name}", *loop.lines]).expandtabs(4) for loop in loops)
    return "\n\n".join([head, table, LEGEND, *texts])
