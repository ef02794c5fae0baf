"""Compiled loops check no bounds: guard zones surround every array that they get.

`Guarded` puts each array in the middle of a larger one, among bytes that nothing may change. Random
operations run on it, forward and backward, and must match NumPy. Then each compiled kernel is
called again with one of its arrays in another shape: it must refuse, or stay within its arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import numpy as np
import pytest

pytest.importorskip("numba")

from rumus.tensor import (
    Backend,
    Expr,
    Kernel,
    NumbaBackend,
    NumpyBackend,
    Parameter,
    Tensor,
    avg_pool,
    convolution,
    convolution_transpose,
    cross_entropy,
    elementwise,
    gather,
    layer_norm,
    linear,
    max_pool,
    scaled_dot_product_attention,
    tensor,
)
from rumus.tensor.backends import numba_small_convolution
from rumus.tensor.memory.quantization import SIGNED, SQUARES, BlockTable
from rumus.tensor.memory.slot_table import SlotTable
from rumus.tensor.operations.batch_norm import batch_norm

ZONE: Final = 512  # elements before and after an array
CANARY: Final = 77  # bytes around it


class Guarded(NumbaBackend):
    """Arrays with guard zones around them; `calls` records compiled kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.zones: list[np.ndarray] = []
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        array, zones = guarded(shape, dtype)
        self.zones += zones
        return array

    def upload(self, host: np.ndarray) -> np.ndarray:
        array = self.allocate(host.shape, host.dtype)
        array[...] = host
        return array

    def fused(self, name: Any) -> Callable[..., None] | None:
        found = super().fused(name)
        if found is None or "numba" not in found.__module__:
            return found

        def call(*arguments: Any) -> None:
            self.calls.append((name, arguments))
            found(*arguments)

        return call

    def is_whole(self) -> bool:
        """Whether the guard zones are untouched."""
        return all((zone == CANARY).all() for zone in self.zones)


def guarded(shape: tuple[int, ...], dtype: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """An array of ones, and the bytes before and after it."""
    size, item = int(np.prod(shape)), np.dtype(dtype).itemsize
    memory = np.full((size + 2 * ZONE) * item, CANARY, np.uint8)
    start, stop = ZONE * item, (ZONE + size) * item
    array = memory[start:stop].view(dtype).reshape(shape)
    array[...] = 1
    return array, [memory[:start], memory[stop:]]


class GuardedRoom(numba_small_convolution._Room):
    """The scratch memory of a convolution of small pictures, exactly as large as requested."""

    def __init__(self) -> None:
        super().__init__()
        self.zones: list[np.ndarray] = []

    def get(self, size: int) -> np.ndarray:
        array, zones = guarded((size,), np.float32)
        self.zones += zones
        return array


Result = list[Any]
Program = Callable[[Callable[[Any], Parameter], Callable[[Any], Tensor]], Result]


def differentiated(y: Tensor, *parameters: Parameter) -> Result:
    """The result, and the gradients of a sum that weights every element differently."""
    shares = np.cos(np.arange(y.size, dtype=np.float32)).reshape(y.shape)
    grads = (y * tensor(shares, backend=y.backend)).sum().backward()
    return [y.numpy(), *(grads[p].numpy() for p in parameters)]


class Draw:
    """Random shapes and numbers."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def size(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def sizes(self, low: int, high: int, count: int = 2) -> tuple[int, ...]:
        return tuple(self.size(low, high) for _ in range(count))

    def normal(self, *shape: int) -> Any:
        return self.rng.standard_normal(shape).astype(np.float32)

    def is_so(self) -> bool:
        return bool(self.rng.random() < 0.5)


@elementwise
def mixed(a: Any, b: Any, c: Any) -> Any:
    return (a * b + c).tanh() * (a - b).exp() + c.relu()


def an_elementwise(draw: Draw) -> Program:
    shape = (draw.size(1, 40), draw.size(500, 1200))
    a, b, c = (draw.normal(*shape) for _ in range(3))
    row = draw.normal(shape[1]) if draw.is_so() else c

    def program(p: Any, t: Any) -> Result:
        x, y, z = p(a), p(b), p(row)
        return differentiated(mixed(x, y, z), x, y, z)

    return program


def a_layer_norm(draw: Draw) -> Program:
    length = draw.size(1, 700)
    x = draw.normal(draw.size(1, 3), 20_000 // length + 1, length)
    w, b = draw.normal(length), draw.normal(length)

    def program(p: Any, t: Any) -> Result:
        values = p(x), p(w), p(b)
        return differentiated(values[0] + layer_norm(*values), *values)

    return program


def a_softmax(draw: Draw) -> Program:
    length = draw.size(1, 3000)
    x = draw.normal(20_000 // length + 1, length)

    def program(p: Any, t: Any) -> Result:
        value = p(x)
        return differentiated(value.softmax(-1), value)

    return program


def a_cross_entropy(draw: Draw) -> Program:
    classes, places = draw.size(1, 900), (draw.size(1, 30),) if draw.is_so() else ()
    x = draw.normal(20_000 // (classes * max((1, *places))) + 1, classes, *places)
    index = draw.rng.integers(0, classes, (len(x), *places)).astype(np.int32)
    smoothing, ignored = (0.1, 0) if draw.is_so() else (0.0, None)
    weight = np.abs(draw.normal(classes)) if draw.is_so() else None

    def program(p: Any, t: Any) -> Result:
        value, weights = p(x), None if weight is None else t(weight)
        losses = cross_entropy(value * 1.0, t(index), smoothing, ignored, weights)
        return differentiated(losses, value)

    return program


def a_batch_norm(draw: Draw) -> Program:
    channels, spatial = draw.size(1, 9), draw.sizes(1, 12, draw.size(0, 2))
    x = draw.normal(draw.size(2, 30), channels, *spatial)
    w, b = draw.normal(channels), draw.normal(channels)

    def program(p: Any, t: Any) -> Result:
        values = p(x), p(w), p(b)
        y, total, squares = batch_norm(*values, eps=1e-3)
        return [*differentiated(y, *values), total.numpy(), squares.numpy()]

    return program


def a_pool(draw: Draw) -> Program:
    axes = draw.size(1, 2)
    kernel = draw.sizes(1, 4, axes)
    padding = tuple(draw.size(0, k // 2) for k in kernel)
    stride, is_max = draw.sizes(1, 3, axes), draw.is_so()
    dilation = draw.sizes(1, 2, axes) if is_max else (1,) * axes
    if draw.is_so():  # adjacent windows have their own loops
        kernel, stride, padding, dilation = ((size,) * axes for size in (2, 2, 0, 1))
    x = draw.normal(
        *draw.sizes(1, 3), *(k * d + draw.size(0, 9) for k, d in zip(kernel, dilation, strict=True))
    )

    def program(p: Any, t: Any) -> Result:
        value = p(x)
        if is_max:
            y = max_pool(value, kernel, stride=stride, padding=padding, dilation=dilation)
        else:
            y = avg_pool(value, kernel, stride=stride, padding=padding)
        return differentiated(y, value)

    return program


def a_convolution(draw: Draw) -> Program:
    axes, groups = draw.size(1, 2), draw.size(1, 2)
    inputs, outputs = (groups * draw.size(1, 4) for _ in range(2))
    kernel, stride, dilation = (draw.sizes(1, 3, axes) for _ in range(3))
    stride = (1,) * axes if draw.is_so() else stride  # else small pictures have no special path
    padding = draw.sizes(0, 3, axes)
    x = draw.normal(draw.size(1, 70), inputs, *((k - 1) * d + draw.size(1, 6)
                    for k, d in zip(kernel, dilation, strict=True)))  # fmt: skip
    w, b = draw.normal(outputs, inputs // groups, *kernel), draw.normal(outputs)
    options: Any = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}

    def program(p: Any, t: Any) -> Result:
        values = p(x), p(w), p(b)
        return differentiated(convolution(*values, **options), *values)

    return program


def a_wide_convolution(draw: Draw) -> Program:
    """With so many channels that it uses tiles of all shapes."""
    inputs, outputs, kernel = draw.size(1, 20), draw.size(1, 70), draw.sizes(1, 3)
    dilation, padding = draw.sizes(1, 2), draw.sizes(0, 2)
    x = draw.normal(draw.size(1, 9), inputs, *((k - 1) * d + draw.size(1, 12)
                    for k, d in zip(kernel, dilation, strict=True)))  # fmt: skip
    w, b = draw.normal(outputs, inputs, *kernel), draw.normal(outputs)

    def program(p: Any, t: Any) -> Result:
        values = p(x), p(w), p(b)
        y = convolution(*values, padding=padding, dilation=dilation)
        return differentiated(y, *values)

    return program


def a_transposed_convolution(draw: Draw) -> Program:
    inputs, outputs = draw.sizes(1, 4)
    kernel, stride, dilation, padding = (draw.sizes(low, 3) for low in (1, 1, 1, 0))
    more = tuple(draw.size(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True))
    lengths = tuple(draw.size(4, 9) for _ in range(2))
    x, w = draw.normal(draw.size(1, 9), inputs, *lengths), draw.normal(inputs, outputs, *kernel)
    options: Any = {"stride": stride, "padding": padding, "dilation": dilation}

    def program(p: Any, t: Any) -> Result:
        values = p(x), p(w)
        y = convolution_transpose(*values, output_padding=more, **options)
        return differentiated(y, *values)

    return program


def an_attention(draw: Draw) -> Program:
    heads, shared = draw.size(1, 3), draw.size(1, 2)
    batch, (queries, keys) = draw.sizes(1, 2, draw.size(0, 2)), draw.sizes(1, 70)
    causal = draw.is_so()
    size, width = draw.sizes(1, 20)
    q = draw.normal(*batch, heads * shared, queries, size)
    k, v = (draw.normal(*batch, heads, queries if causal else keys, n) for n in (size, width))

    def program(p: Any, t: Any) -> Result:
        values = p(q), p(k), p(v)
        return differentiated(scaled_dot_product_attention(*values, causal=causal), *values)

    return program


def an_embedding(draw: Draw) -> Program:
    rows, width = draw.size(1, 50), draw.size(1, 30)
    table, index = draw.normal(rows, width), draw.rng.integers(0, rows, draw.sizes(20, 60))

    def program(p: Any, t: Any) -> Result:
        value = p(table)
        return differentiated(gather(value, t(index.astype(np.int32))), value)

    return program


def a_linear(draw: Draw) -> Program:
    rows, inputs, outputs = draw.size(1, 400), *draw.sizes(1, 90)
    x, w, b = draw.normal(rows, inputs), draw.normal(outputs, inputs), draw.normal(outputs)

    def program(p: Any, t: Any) -> Result:
        values = p(x), p(w), p(b)
        return differentiated(linear(*values), *values)

    return program


PROGRAMS: Final[dict[str, Callable[[Draw], Program]]] = {
    "attention": an_attention,
    "batch norm": a_batch_norm,
    "convolution": a_convolution,
    "cross entropy": a_cross_entropy,
    "elementwise": an_elementwise,
    "embedding": an_embedding,
    "layer norm": a_layer_norm,
    "linear": a_linear,
    "pool": a_pool,
    "softmax": a_softmax,
    "transposed convolution": a_transposed_convolution,
    "wide convolution": a_wide_convolution,
}


SMALL: Final = {"small_convolution", "small_convolution_weight"}
# Kernels that must have been called; the other methods run no kernel.
KERNELS: Final = {
    "attention": {"attention", "attention_gradient"},
    "batch norm": {"batch_norm", "batch_norm_gradient"},
    "convolution": {"columns", "convolution_bias", "from_columns", *SMALL},
    "cross entropy": {"cross_entropy", "cross_entropy_gradient"},
    "layer norm": {"layer_norm", "layer_norm_gradient"},
    "pool": {"avg_pool", "avg_pool_gradient", "max_pool", "max_pool_gradient"},
    "softmax": {"softmax", "softmax_gradient"},
    "transposed convolution": {"columns", "from_columns"},
    "wide convolution": SMALL,
}


def run(program: Program, backend: Backend) -> Result:
    return program(lambda a: Parameter(a, backend=backend), lambda a: tensor(a, backend=backend))


def otherwise(draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Another shape: an axis longer, shorter, missing, or an additional one."""
    at, change = draw.size(0, max(0, len(shape) - 1)), draw.size(0, 3)
    if not shape or change == 0:
        return (*shape, 2)
    if change == 1:
        return (*shape[:at], *shape[at + 1 :])
    length = shape[at] + (1 if change == 2 else -1) * draw.size(1, 3)
    return (*shape[:at], max(0, length), *shape[at + 1 :])


def changed_calls(draw: Draw, arguments: tuple[Any, ...]) -> Iterator[tuple[list[Any], list[Any]]]:
    """The call with one array in another shape, and all guard zones."""
    places = [i for i, a in enumerate(arguments) if isinstance(a, np.ndarray)]
    for at in places:
        zones: list[np.ndarray] = []
        given = list(arguments)
        for i in places:
            shape = arguments[i].shape
            array, more = guarded(otherwise(draw, shape) if i == at else shape, arguments[i].dtype)
            zones += more
            given[i] = array
        yield given, zones


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> GuardedRoom:
    found = GuardedRoom()
    monkeypatch.setattr(numba_small_convolution, "_room", found)
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_loops_stay_inside_their_arrays(name: str, room: GuardedRoom) -> None:
    kernels = set()
    for seed in range(8 if name == "elementwise" else 25):
        draw = Draw(seed)
        backend, program = Guarded(), PROGRAMS[name](draw)
        found, expected = run(program, backend), run(program, NumpyBackend())
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)
        assert backend.is_whole()
        for kernel, arguments in backend.calls:
            compiled = NumbaBackend().fused(kernel)  # type: ignore[arg-type]
            assert compiled is not None
            kernels.add(kernel)
            for given, zones in changed_calls(draw, arguments):
                with suppress(ValueError, IndexError, TypeError):
                    compiled(*given)
                assert all((zone == CANARY).all() for zone in zones), kernel
    assert all((zone == CANARY).all() for zone in room.zones)
    assert kernels >= KERNELS.get(name, set())


def test_codes_stay_inside_their_arrays() -> None:
    for seed in range(40):
        draw = Draw(seed)
        sizes = [draw.size(1, 900) for _ in range(draw.size(1, 4))]
        table, code = BlockTable(SlotTable(sizes)), (SIGNED, SQUARES)[seed % 2]
        x = draw.normal(table.size)
        backend, found = Guarded(), []
        for place in (NumpyBackend(), backend):
            values, codes = place.upload(x), place.allocate((table.size // 4,), np.dtype(np.int32))
            scales = place.allocate((table.number,), np.dtype(np.float32))
            codes[...] = 0
            for piece in table.pieces(512, 64):
                part = values[piece.start : piece.stop]
                place.quantize(part, code, table, piece, codes, scales)
                place.dequantize(codes, scales, code, table, piece, part)
            found.append((codes, scales, values))
        for numpy, numba in zip(*found, strict=True):
            np.testing.assert_array_equal(numpy, numba)
        assert backend.is_whole()
        for given, zones in changed_calls(draw, (values, codes, scales)):
            for method in (backend.quantize, backend.dequantize):
                first, second, third = given
                order = (first, code, table, table.whole(), second, third)
                if method == backend.dequantize:
                    order = (second, third, code, table, table.whole(), first)  # type: ignore[assignment]
                with pytest.raises(ValueError, match="quantization: "):
                    method(*order)  # type: ignore[arg-type]
            assert all((zone == CANARY).all() for zone in zones)


def test_row_lookups_stay_inside_their_arrays() -> None:
    backend = Guarded()
    for seed in range(60):
        draw = Draw(seed)
        rows, width = draw.sizes(1, 60)
        shape = draw.sizes(5, 60)
        index = draw.rng.integers(0, rows, shape).astype(np.int32)
        given = draw.normal(*shape, width)
        out = backend.upload(np.zeros((rows, width), np.float32))
        backend.scatter_add(backend.upload(given), backend.upload(index), out)
        exact = np.zeros((rows, width))
        np.add.at(exact, index, given)
        np.testing.assert_allclose(out, exact, rtol=1e-5, atol=1e-5)
        for arguments, zones in changed_calls(draw, (given, index * 0, out)):
            with suppress(ValueError, IndexError):
                backend.scatter_add(*arguments)
            assert all((zone == CANARY).all() for zone in zones)
        words = backend.allocate((draw.size(1024, 5000),), np.dtype(np.int32))
        expected = np.empty_like(words)
        backend.random_words(seed, 4 * seed, words)
        NumpyBackend().random_words(seed, 4 * seed, expected)
        np.testing.assert_array_equal(words, expected)
    assert backend.is_whole()


def test_kernels_of_other_shapes_are_refused() -> None:
    a, b = Expr.array("a"), Expr.array("b")
    kernel = Kernel("twice", {"out": (a * b).exp() + a}, ("a", "b"))
    for seed in range(40):
        draw = Draw(seed)
        shape = (draw.size(20, 40), draw.size(900, 1000))
        arrays = (draw.normal(*shape), draw.normal(*shape), draw.normal(*shape))
        for given, zones in changed_calls(draw, arrays):
            with suppress(ValueError):
                NumbaBackend().elementwise(kernel, given[:2], (), given[2:])
            assert all((zone == CANARY).all() for zone in zones)
