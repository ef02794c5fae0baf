"""The source of compiled loops for elementwise kernels, over flat arrays or after a product."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from rumus.tensor.compiled import numba_math
from rumus.tensor.compiled.numba_addresses import float32s, float64s, int64s, teach
from rumus.tensor.compiled.numba_cache import compiled_entry, compiled_loop
from rumus.tensor.expression.dtype import DType, float32
from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.kernel import Kernel

TEXT: Final[Mapping[str, str]] = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "abs": "abs({0})",
    "sign": "float_((0 < {0}) - ({0} < 0)) if {0} == {0} else {0}",
    "sqrt": "math.sqrt({0})",
    "relu": "zero if {0} <= zero else {0}",
    "maximum": "{0} if {1} < {0} or {0} != {0} else {1}",
    "minimum": "{0} if {0} < {1} or {0} != {0} else {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "eq": "{0} == {1}",
    "where": "{1} if {0} else {2}",
    **{name: f"{name}({{0}})" for name in numba_math.NAMES},
}


def numba_source(kernel: Kernel) -> str:
    """Return `kernel` as the Python source of one loop over its arrays.

    >>> from rumus.tensor.expression.kernel import trace
    >>> kernel = trace(lambda x, y: x * y + 1.0)
    >>> print(numba_source(kernel))
    def loop(a_x, a_y, out_out):
        for i in range(out_out.size):
            t0 = a_x[i] * a_y[i]
            t1 = t0 + float_(1.0)
            out_out[i] = t1
    <BLANKLINE>
    """
    extra = [_target(kernel, name) for name in kernel.outputs if name not in kernel.arrays]
    arguments = [*(f"a_{name}" for name in kernel.arrays), *_uniforms(kernel), *extra]
    size = _target(kernel, next(iter(kernel.outputs)))
    head = f"def loop({', '.join(arguments)}):\n    for i in range({size}.size):\n"
    body = "\n        ".join(_lines(kernel, "i"))
    return f"{head}        {body}\n"


def tail_source(kernel: Kernel, has_bias: bool) -> str:
    """Return the source of a loop over rows of a product, the kernel's first array.

    A bias, one number per column, is added first. If the kernel does not replace the product, the
    product plus bias is stored.

    >>> from rumus.tensor.expression.kernel import trace
    >>> print(tail_source(trace(lambda x: {"x": x * 2.0}), True))
    def loop(a_x, bias):
        for j in range(a_x.shape[0]):
            for i in range(a_x.shape[1]):
                p = a_x[j, i] + bias[i]
                t0 = p * float_(2.0)
                a_x[j, i] = t0
    <BLANKLINE>
    """
    product, *others = kernel.arrays
    extra = [_target(kernel, name) for name in kernel.outputs if name not in kernel.arrays]
    arrays = [f"a_{product}", *(f"a_{name}" for name in others), *extra]
    arguments = [*arrays, *(["bias"] if has_bias else []), *_uniforms(kernel)]
    lines = _lines(kernel, "j, i", {product: "p"})
    if has_bias and product not in kernel.outputs:
        lines.append(f"a_{product}[j, i] = p")
    body = "\n            ".join(lines)
    return (
        f"def loop({', '.join(arguments)}):\n"
        f"    for j in range(a_{product}.shape[0]):\n"
        f"        for i in range(a_{product}.shape[1]):\n"
        f"            p = a_{product}[j, i]{' + bias[i]' if has_bias else ''}\n"
        f"            {body}\n"
    )


def entry_source(kernel: Kernel, dtype: DType) -> str:
    """Return the text of a loop over elements start..stop of arrays that it finds by addresses.

    From `place` on lie the addresses of the kernel's arrays, of outputs that replace none of them,
    and of its scalars, all of one dtype.

    >>> from rumus.tensor.expression.dtype import float32
    >>> from rumus.tensor.expression.kernel import trace
    >>> print(entry_source(trace(lambda x, *, s: {"x": x * s}), float32))
    def loop(place, start, stop):
        numbers = int64s(place)
        a_x = float32s(numbers[0])
        scalars = float32s(numbers[1])
        s0 = scalars[0]
        for i in range(start, stop):
            t0 = a_x[i] * s0
            a_x[i] = t0
    <BLANKLINE>
    """
    body = "\n        ".join(_lines(kernel, "i"))
    head = _entry_head(kernel, dtype, [f"a_{name}" for name in kernel.arrays], [])
    return f"{head}    for i in range(start, stop):\n        {body}\n"


def tail_entry_source(kernel: Kernel, has_bias: bool, dtype: DType) -> str:
    """Return the text of `tail_source` as a loop over rows start..stop, as in `entry_source`.

    In front of the addresses lies the number of columns, the bias comes before the scalars.

    >>> from rumus.tensor.expression.dtype import float32
    >>> from rumus.tensor.expression.kernel import trace
    >>> print(tail_entry_source(trace(lambda x: {"x": x.relu()}), True, float32))
    def loop(place, start, stop):
        numbers = int64s(place)
        columns = numbers[0]
        a_x = float32s(numbers[1])
        bias = float32s(numbers[2])
        for j in range(start, stop):
            for i in range(columns):
                k = j * columns + i
                p = a_x[k] + bias[i]
                t0 = zero if p <= zero else p
                a_x[k] = t0
    <BLANKLINE>
    """
    product, *others = kernel.arrays
    arrays = [f"a_{product}", *(f"a_{name}" for name in others)]
    lines = _lines(kernel, "k", {product: "p"})
    if has_bias and product not in kernel.outputs:
        lines.append(f"a_{product}[k] = p")
    body = "\n            ".join(lines)
    head = _entry_head(kernel, dtype, arrays, ["bias"] if has_bias else [], ["columns"])
    return (
        f"{head}"
        f"    for j in range(start, stop):\n"
        f"        for i in range(columns):\n"
        f"            k = j * columns + i\n"
        f"            p = a_{product}[k]{' + bias[i]' if has_bias else ''}\n"
        f"            {body}\n"
    )


def _entry_head(
    kernel: Kernel,
    dtype: DType,
    arrays: Sequence[str],
    others: Sequence[str],
    sizes: Sequence[str] = (),
) -> str:
    """How an entry finds what it works on."""
    extra = [_target(kernel, name) for name in kernel.outputs if name not in kernel.arrays]
    scalars = _uniforms(kernel)
    names = [*arrays, *extra, *others, *(["scalars"] if scalars else [])]
    lines = ["numbers = int64s(place)"]
    lines += [f"{name} = numbers[{at}]" for at, name in enumerate(sizes)]
    lines += [f"{n} = {dtype}s(numbers[{at}])" for at, n in enumerate(names, len(sizes))]
    lines += [f"{name} = scalars[{at}]" for at, name in enumerate(scalars)]
    return "def loop(place, start, stop):\n    " + "\n    ".join(lines) + "\n"


def _uniforms(kernel: Kernel) -> list[str]:
    return [f"s{index}" for index in range(len(kernel.uniforms))]


def _lines(kernel: Kernel, at: str, known: Mapping[str, str] | None = None) -> list[str]:
    """The statements for the element `at`. known: arrays whose elements already have names."""
    text: dict[Expr, str] = dict(zip(kernel.uniforms, _uniforms(kernel), strict=True))
    loaded = known or {}
    lines: list[str] = []

    def value(node: Expr) -> str:
        if node.operation == "constant":
            return f"float_({node.value!r})"
        if node.operation == "array":
            return loaded.get(node.name, f"a_{node.name}[{at}]")
        return text[node]

    for number, node in enumerate(kernel.nodes):
        operation = TEXT[node.operation].format(*map(value, node.operands))
        text[node] = f"t{number}"
        lines.append(f"t{number} = {operation}")
    values = list(map(value, kernel.outputs.values()))
    for number, output in enumerate(kernel.outputs.values()):
        if output.operation == "array" and output.name not in loaded:
            lines.append(f"r{number} = {values[number]}")  # before another output replaces it
            values[number] = f"r{number}"
    for name, result in zip(kernel.outputs, values, strict=True):
        lines.append(f"{_target(kernel, name)}[{at}] = {result}")
    return lines


def _target(kernel: Kernel, output: str) -> str:
    """An output that replaces an input uses the input's name, so that the loop vectorizes."""
    return f"a_{output}" if output in kernel.arrays else f"out_{output}"


def has_loop(kernel: Kernel, dtype: DType) -> bool:
    """Whether a compiled loop supports every operation and is faster than NumPy."""
    operations = {node.operation for node in kernel.nodes}
    vectors = dtype == float32 or operations.isdisjoint(numba_math.NAMES)
    return dtype.kind == "f" and vectors and operations <= TEXT.keys()


def compiled_kernel(source: str, dtype: DType) -> Callable[..., None]:
    """Compile a loop that rounds each operation, as NumPy does.

    Multiply and add are not contracted: an element must not depend on whether its array is long
    enough for this loop. The loops are bound by memory, so this costs no time.
    """
    namespace, meaning = _names(dtype)
    return compiled_loop(source, namespace, meaning, nogil=True, error_model="numpy")


def kernel_entry(source: str, dtype: DType) -> int:
    """Compile a loop that takes addresses, and rounds as `compiled_kernel`; return its own."""
    namespace, meaning = _names(dtype)
    names = {each.__name__: each for each in (int64s, float32s, float64s)}
    return compiled_entry(source, namespace | names, f"{meaning} {teach()}")


def _names(dtype: DType) -> tuple[dict[str, Any], str]:
    """What the text of a loop names, and what of that numba does not look at."""
    namespace: dict[str, Any] = {"math": math, "float_": dtype.type, "zero": dtype.type(0)}
    namespace |= {"inf": math.inf, "nan": math.nan}
    meaning = str(dtype)
    if dtype == float32:
        namespace |= numba_math.compiled()
        meaning += f" {_text_of_functions()}"
    return namespace, meaning


@lru_cache(maxsize=1)
def _text_of_functions() -> str:
    """A checksum of the functions that loops call: their source determines the machine code."""
    from pathlib import Path

    return f"{zlib.crc32(Path(numba_math.__file__).read_bytes()):08x}"
