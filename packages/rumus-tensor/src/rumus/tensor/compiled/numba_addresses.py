"""What compiled loops can do with an address: read and write there, call what lies there.

numba passes arrays as some ten numbers each, which Python has to take out of them at every call. A
loop that takes addresses instead can be called by other compiled code that knows nothing of it, and
by any thread. The functions are lowered here and not closed over: see `numba_waiting`.
"""

from __future__ import annotations

import platform
import zlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Final

_IS_X86: Final = platform.machine() in ("x86_64", "AMD64")
_FLUSHED: Final = 0x8000  # of MXCSR: what is computed, and not what is read, as a tiny factor


def int64s(address: int) -> Any:
    """The int64 from an address on, to be indexed; as all here for compiled loops alone."""
    raise TypeError("int64s: only compiled loops can call it")


def int32s(address: int) -> Any:
    """The int32 from an address on."""
    raise TypeError("int32s: only compiled loops can call it")


def float32s(address: int) -> Any:
    """The float32 from an address on."""
    raise TypeError("float32s: only compiled loops can call it")


def float64s(address: int) -> Any:
    """The float64 from an address on."""
    raise TypeError("float64s: only compiled loops can call it")


def call(entry: int, place: int, start: int, stop: int) -> None:
    """Call the function `entry(place, start, stop)`."""
    raise TypeError("call: only compiled loops can call it")


def sgemm(
    entry: int, turned_a: int, turned_b: int, rows: int, columns: int, depth: int,
    a: int, lda: int, b: int, ldb: int, out: int, ldc: int,
) -> None:  # fmt: skip
    """Call cblas_sgemm, by rows: out = a b."""
    raise TypeError("sgemm: only compiled loops can call it")


def flushing() -> int:
    """Have this thread write 0 for results under 1.2e-38, and return how it was before.

    On x86; other processors are fast with such numbers.
    """
    raise TypeError("flushing: only compiled loops can call it")


def flushing_as(before: int) -> None:
    """Have this thread treat small numbers as it did before."""
    raise TypeError("flushing_as: only compiled loops can call it")


def loaded(address: int) -> int:
    """The int64 at an address, which another thread may write. The processor is told to wait."""
    raise TypeError("loaded: only compiled loops can call it")


def stored(address: int, number: int) -> None:
    """Write an int64 after all that was written before, for another thread to load."""
    raise TypeError("stored: only compiled loops can call it")


def exchanged(address: int, old: int, new: int) -> bool:
    """Write a new number if the old one is there; one thread alone succeeds."""
    raise TypeError("exchanged: only compiled loops can call it")


@cache
def teach() -> str:
    """Teach numba these functions, and return a checksum of how they are compiled."""
    from llvmlite import ir

    extending: Any = import_module("numba.extending")
    types: Any = import_module("numba.core.types")
    cgutils: Any = import_module("numba.core.cgutils")
    int64, none, truth = types.int64, types.none, types.boolean
    word, flag, real = ir.IntType(64), ir.IntType(32), ir.FloatType()

    def taught(function: Callable[..., Any], typer: Any, count: int, code: Any) -> None:
        extending.lower_builtin(function, *[int64] * count)(code)
        extending.type_callable(function)(lambda context: typer)

    def pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    def function_at(builder: Any, address: Any, kinds: list[Any]) -> Any:
        kind = ir.FunctionType(ir.VoidType(), kinds)
        return builder.inttoptr(address, kind.as_pointer())

    def called(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        entry, *numbers = arguments
        builder.call(function_at(builder, entry, [word] * 3), numbers)
        return context.get_dummy_value()

    def multiplied(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        entry, turned_a, turned_b, *numbers = arguments
        one, zero = real(1.0), real(0.0)
        flags = [flag(101), *(builder.trunc(each, flag) for each in (turned_a, turned_b))]
        rows, columns, depth, a, lda, b, ldb, out, ldc = numbers
        given = [*flags, rows, columns, depth, one, a, lda, b, ldb, zero, out, ldc]
        builder.call(function_at(builder, entry, [each.type for each in given]), given)
        return context.get_dummy_value()

    def at(builder: Any, address: Any) -> Any:
        return builder.inttoptr(address, word.as_pointer())

    def load(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _IS_X86:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=kind), [])
        return builder.load_atomic(at(builder, arguments[0]), "acquire", 8)

    def store(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store_atomic(arguments[1], at(builder, arguments[0]), "release", 8)
        return context.get_dummy_value()

    def exchange(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, old, new = arguments
        pair = builder.cmpxchg(at(builder, address), old, new, "acq_rel", "acquire")
        return builder.zext(builder.extract_value(pair, 1), context.get_value_type(truth))

    def mode(builder: Any, what: str, place: Any) -> None:
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte])
        function = builder.module.declare_intrinsic(f"llvm.x86.sse.{what}mxcsr", fnty=kind)
        builder.call(function, [builder.bitcast(place, byte)])

    def flush(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if not _IS_X86:
            return word(0)
        place = cgutils.alloca_once(builder, flag)
        mode(builder, "st", place)
        before = builder.load(place)
        builder.store(builder.or_(before, flag(_FLUSHED)), place)
        mode(builder, "ld", place)
        return builder.zext(before, word)

    def flush_as(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _IS_X86:
            place = cgutils.alloca_once(builder, flag)
            builder.store(builder.trunc(arguments[0], flag), place)
            mode(builder, "ld", place)
        return context.get_dummy_value()

    for function, element in (
        (int64s, types.CPointer(int64)),
        (int32s, types.CPointer(types.int32)),
        (float32s, types.CPointer(types.float32)),
        (float64s, types.CPointer(types.float64)),
    ):
        taught(function, lambda address, result=element: result, 1, pointer)
    taught(call, lambda entry, place, start, stop: none, 4, called)
    taught(sgemm, lambda entry, ta, tb, m, n, k, a, lda, b, ldb, out, ldc: none, 12, multiplied)
    taught(flushing, lambda: int64, 0, flush)
    taught(flushing_as, lambda before: none, 1, flush_as)
    taught(loaded, lambda address: int64, 1, load)
    taught(stored, lambda address, number: none, 2, store)
    taught(exchanged, lambda address, old, new: truth, 3, exchange)
    from pathlib import Path

    return f"{zlib.crc32(Path(__file__).read_bytes()):08x}"
