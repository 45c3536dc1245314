"""Products with weights in vector registers, for functions that Numba compiles.

Numba's compiler makes vector instructions of plain loops, but keeps no sum in a register over an outer loop, because
the arrays that it reads and writes might overlap. The four functions here are written in LLVM's own instructions
instead, which run on every processor; only their best sizes differ.

With AVX-512 and AVX2 they are faster than one plain product of all rows per step, `torch.mm`, up to 512 neurons, and
most for few neurons and rows. From 1024 on `torch.mm` is used, which is the faster on an Intel, not on an AMD.

Weights (K, N) come in panels: stretches of `width(dtype)` columns, see `panels`. A panel is (K, width) numbers in one
piece, and `at` names the place of its first number.
"""

from __future__ import annotations

import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from torch.nn.functional import pad


def _features() -> set[str]:
    """Return the features of the processor for which Numba compiles, which NUMBA_CPU_FEATURES can set."""
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    return {name[1:] for name in features.split(",") if name.startswith("+")}


def _registers(features: set[str]) -> tuple[int, int]:
    """Return bytes of a vector register, and registers in the width of a panel.

    `ROWS` rows of sums, a row of the panel and one number must fit.
    """
    if "avx512f" in features:
        return 64, 4
    return (32, 2) if "avx2" in features else (16, 4 if "neon" in features else 2)


REGISTER, REGISTERS = _registers(_features())
ROWS = 6  # that share what is read of a panel: faster than four on AVX-512
LOOKED_UP = 8  # lanes of a comparison at once, in a table of 2 KB


def lanes(dtype: torch.dtype) -> int:
    """Return how many numbers a register holds."""
    return REGISTER // dtype.itemsize


def width(dtype: torch.dtype) -> int:
    """Return how many columns a panel has."""
    return REGISTERS * lanes(dtype)


def panels(w: torch.Tensor) -> torch.Tensor:
    """Return weights (..., K, N) as panels (..., panels, K, width), with zeros after the last column."""
    given, columns = w.shape[-1], width(w.dtype)
    count = -(-given // columns)
    padded = pad(w, (0, count * columns - given))
    # one copy for all: a copy for each panel would be more operators where registers are narrower
    return padded.unflatten(-1, (count, columns)).movedim(-2, -3).contiguous()


class _Writer:
    """Writes vector instructions for the arguments of an intrinsic."""

    def __init__(self, context, builder, signature, args) -> None:
        self.builder = builder
        self.data = [
            context.make_array(kind)(context, builder, value=value).data if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, args, strict=True)
        ]
        kind = signature.args[0].dtype
        self.lanes = REGISTER * 8 // kind.bitwidth
        self.size = kind.bitwidth // 8
        self.columns = ir.Constant(ir.IntType(64), self.lanes * REGISTERS)
        self.vector = ir.VectorType(context.get_value_type(kind), self.lanes)
        # without this attribute, LLVM prefers registers of 32 bytes where there are some of 64
        set.add(builder.function.attributes, f'"min-legal-vector-width"="{8 * REGISTER}"')

    def place(self, array, *offsets):
        at = offsets[0]
        for offset in offsets[1:]:
            at = self.builder.add(at, offset)
        return self.builder.gep(array, [at])

    def row(self, chosen, j):
        """Return where row chosen[j] begins in a panel."""
        k = self.builder.load(self.builder.gep(chosen, [j]))
        return self.builder.mul(self.builder.sext(k, ir.IntType(64)) if k.type.width < 64 else k, self.columns)

    def registers(self, place):
        """Return pointers to the registers of a panel's width that begin there."""
        pointer = self.builder.bitcast(place, self.vector.as_pointer())
        return [self.builder.gep(pointer, [ir.Constant(ir.IntType(64), n)]) for n in range(REGISTERS)]

    def load(self, pointer):
        return self.builder.load(pointer, align=self.size)

    def store(self, value, pointer):
        self.builder.store(value, pointer, align=self.size)

    def everywhere(self, number, size=None):
        """Return a vector of one number, which fills a register unless another size is given."""
        size = size or self.lanes
        nothing = ir.Constant(ir.VectorType(number.type, size), ir.Undefined)
        one = self.builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), size), [0] * size)
        return self.builder.shuffle_vector(one, nothing, zeros)

    def sum(self, total, a, b):
        """Return total + a * b, rounded once or twice."""
        flags = ("contract",)
        return self.builder.fadd(total, self.builder.fmul(a, b, flags=flags), flags=flags)

    def sums(self, count):
        """Return places for sums, set to zero; LLVM keeps them in registers."""
        places = [cgutils.alloca_once(self.builder, self.vector) for _ in range(count)]
        for place in places:
            self.builder.store(ir.Constant(self.vector, None), place)
        return places


@intrinsic
def gather(typing, w, at, chosen, values, begin, end, out, out_at):
    """Write the sum over j of values[j] times row chosen[j] of a panel, for begin <= j < end, to out[out_at :]."""
    signature = types.void(w, types.intp, chosen, values, types.intp, types.intp, out, types.intp)

    def write(context, builder, signature, args):
        write = _Writer(context, builder, signature, args)
        w, at, chosen, values, begin, end, out, out_at = write.data
        sums = write.sums(REGISTERS)
        with cgutils.for_range_slice(builder, begin, end, ir.Constant(ir.IntType(64), 1)) as (j, _):
            row = write.row(chosen, j)
            value = write.everywhere(builder.load(builder.gep(values, [j])))
            for place, pointer in zip(sums, write.registers(write.place(w, at, row)), strict=True):
                builder.store(write.sum(builder.load(place), write.load(pointer), value), place)
        for place, pointer in zip(sums, write.registers(write.place(out, out_at)), strict=True):
            write.store(builder.load(place), pointer)
        return context.get_dummy_value()

    return signature, write


@intrinsic
def scatter(typing, g, at, chosen, values, begin, end, row, row_at):
    """Add values[j] times row[row_at :] to row chosen[j] of a panel, for begin <= j < end."""
    signature = types.void(g, types.intp, chosen, values, types.intp, types.intp, row, types.intp)

    def write(context, builder, signature, args):
        write = _Writer(context, builder, signature, args)
        g, at, chosen, values, begin, end, row, row_at = write.data
        added = [write.load(pointer) for pointer in write.registers(write.place(row, row_at))]
        with cgutils.for_range_slice(builder, begin, end, ir.Constant(ir.IntType(64), 1)) as (j, _):
            to = write.row(chosen, j)
            value = write.everywhere(builder.load(builder.gep(values, [j])))
            for number, pointer in zip(added, write.registers(write.place(g, at, to)), strict=True):
                write.store(write.sum(write.load(pointer), number, value), pointer)
        return context.get_dummy_value()

    return signature, write


@intrinsic
def several_rows(typing, rows, row_at, stride, depth, w, at, out, out_at, out_stride):
    """Write `ROWS` rows, of depth numbers each, times a panel to as many rows of out."""
    integer = types.intp
    signature = types.void(rows, integer, integer, integer, w, integer, out, integer, integer)

    def write(context, builder, signature, args):
        write = _Writer(context, builder, signature, args)
        rows, row_at, stride, depth, w, at, out, out_at, out_stride = write.data
        number = [ir.Constant(ir.IntType(64), r) for r in range(ROWS)]
        given = [write.place(rows, row_at, builder.mul(stride, r)) for r in number]
        sums = [write.sums(REGISTERS) for _ in range(ROWS)]
        with cgutils.for_range(builder, depth) as loop:
            weights = [
                write.load(p) for p in write.registers(write.place(w, at, builder.mul(loop.index, write.columns)))
            ]
            for row, places in zip(given, sums, strict=True):
                value = write.everywhere(builder.load(builder.gep(row, [loop.index])))
                for place, weight in zip(places, weights, strict=True):
                    builder.store(write.sum(builder.load(place), weight, value), place)
        for r, places in zip(number, sums, strict=True):
            to = write.registers(write.place(out, out_at, builder.mul(out_stride, r)))
            for place, pointer in zip(places, to, strict=True):
                write.store(builder.load(place), pointer)
        return context.get_dummy_value()

    return signature, write


def _lanes_above(size: int) -> ir.Constant:
    """Return a table: for each pattern of `size` bits, in a byte each, which of them are set, and then zeros."""
    rows = [[lane for lane in range(size) if pattern >> lane & 1] for pattern in range(2**size)]
    kind = ir.ArrayType(ir.ArrayType(ir.IntType(8), size), len(rows))
    return ir.Constant(kind, [row + [0] * (size - len(row)) for row in rows])


@intrinsic
def append_above(typing, v, v_th, at, n, chosen, count):
    """Append to chosen[count :] which numbers of the register v[at :] are above v_th[at :], counted from n.

    Returns the new count. As many numbers behind it may be written as a register holds. AVX-512 has an instruction for
    that, which is slow on AMD's processors, and others have none: a table serves all.
    """
    signature = types.intp(v, v_th, types.intp, types.intp, chosen, types.intp)

    def write(context, builder, signature, args):
        write = _Writer(context, builder, signature, args)
        v, v_th, at, n, chosen, count = write.data
        above = builder.fcmp_ordered(">", *(write.load(write.registers(write.place(a, at))[0]) for a in (v, v_th)))
        bits, size = builder.bitcast(above, ir.IntType(write.lanes)), min(write.lanes, LOOKED_UP)
        table = cgutils.global_constant(builder, f"lanes_above_{size}", _lanes_above(size))
        row, indices = (ir.VectorType(ir.IntType(width), size).as_pointer() for width in (8, 32))
        for first in range(0, write.lanes, size):
            pattern = builder.lshr(bits, ir.Constant(bits.type, first))
            pattern = builder.trunc(pattern, ir.IntType(size)) if size < write.lanes else pattern
            place = builder.gep(table, [ir.Constant(n.type, 0), builder.zext(pattern, n.type)])
            found = builder.zext(builder.load(builder.bitcast(place, row), align=1), indices.pointee)
            number = builder.trunc(builder.add(n, ir.Constant(n.type, first)), ir.IntType(32))
            numbers = builder.add(found, write.everywhere(number, size))
            builder.store(numbers, builder.bitcast(builder.gep(chosen, [count]), indices), align=4)
            count = builder.add(count, builder.zext(builder.ctpop(pattern), n.type))
        return count

    return signature, write
