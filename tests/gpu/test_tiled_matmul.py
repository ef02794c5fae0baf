"""The generated products, which real GPUs use, in every variant on any adapter."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.gpu import GPUArray, GpuBackend
from rumus.gpu.device.stored import stored_types
from rumus.gpu.products import tiled_matmul
from rumus.gpu.products.tiling import LARGE, MIDDLE, SMALL, Tile, choose
from rumus.tensor import Kernel
from rumus.tensor.expression.kernel import trace
from rumus.tensor.memory.backend import Epilogue

_RANDOM = np.random.default_rng(0)
# rows, depth, columns, the tile that is forced, the layouts: exact, with edges, with a split depth
CASES = [
    (64, 96, 64, SMALL, ["NN", "NT", "TN", "TT"]),
    (100, 132, 68, SMALL, ["NN", "NT", "TN", "TT"]),
    (40, 1024, 32, SMALL, ["NN", "TT"]),
    (33, 45, 10, SMALL, ["NN", "NT", "TN", "TT"]),
    (10, 512, 40, SMALL, ["NN", "TN"]),
    (40, 515, 10, SMALL, ["NN", "TN"]),
    (128, 32, 64, MIDDLE, ["NT"]),
    (72, 32, 100, MIDDLE, ["TN"]),
    (64, 36, 100, Tile(64, 64, 16, 4, 8), ["TN"]),
    (128, 16, 128, LARGE, ["NN"]),
    (140, 12, 128, LARGE, ["NT"]),
]
PRODUCTS = [(*case, layout) for *case, layouts in CASES for layout in layouts]


@pytest.fixture(scope="module")
def gpu() -> GpuBackend:
    """One device is enough: a software GPU takes a second to compile each of these kernels."""
    return GpuBackend()


def _force(monkeypatch: pytest.MonkeyPatch, tile: Tile) -> None:
    """Have every product use this tile."""
    monkeypatch.setattr(tiled_matmul, "choose", partial(choose, tiles=((tile, 1.0),)))


@pytest.mark.parametrize(("rows", "depth", "columns", "tile", "layout"), PRODUCTS)
def test_equals_numpy(
    rows: int,
    depth: int,
    columns: int,
    tile: Tile,
    layout: str,
    gpu: GpuBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _force(monkeypatch, tile)
    batch = 2 if tile is SMALL and depth < 1000 else 1
    a = _RANDOM.standard_normal((batch, rows, depth)).astype(np.float32)
    b = _RANDOM.standard_normal((batch, depth, columns)).astype(np.float32)
    bias = _RANDOM.standard_normal(columns).astype(np.float32)
    swap = (0, 2, 1)
    x = gpu.upload(a.transpose(swap)).transpose(swap) if layout[0] == "T" else gpu.upload(a)
    y = gpu.upload(b.transpose(swap)).transpose(swap) if layout[1] == "T" else gpu.upload(b)
    out = gpu.allocate((batch, rows, columns), a.dtype)
    gpu.fill(float("nan"), out)
    has_bias = layout[0] == "N"
    added = gpu.upload(bias) if has_bias else None
    batches = (batch, x.strides[0], y.strides[0])
    assert tiled_matmul.tiled_matmul(gpu.gpu, x, y, out, (1, 0, 0), batches, bias=added)
    wanted = np.matmul(a, b, dtype=np.float64) + (bias if has_bias else 0)
    error = np.linalg.norm(gpu.download(out) - wanted) / np.linalg.norm(wanted)
    assert error < 1e-6


# The outputs: the product replaced, with another array and a scalar; kept, with one more.
ENDS: list[Kernel] = [
    trace(lambda x, r, *, s: {"x": (s * x).tanh() + r}, "replaced"),
    trace(lambda x: {"y": x.relu() - 1.0}, "kept"),
]
AFTERWARDS = [
    (64, 96, 64, SMALL, "T", ENDS[0], np.float32),
    (40, 1024, 32, SMALL, "T", ENDS[1], np.float32),
    (33, 500, 10, SMALL, "N", ENDS[0], np.float32),
    (72, 36, 100, MIDDLE, "T", ENDS[1], np.float32),
    (48, 20, 80, Tile(64, 32, 8, 8, 8), "T", ENDS[1], np.float32),  # more rows than lanes
    (64, 96, 64, SMALL, "T", ENDS[1], np.float16),
    (40, 1024, 30, SMALL, "T", ENDS[0], np.float16),
]


@pytest.mark.parametrize(
    ("rows", "depth", "columns", "tile", "layout", "kernel", "dtype"), AFTERWARDS
)
def test_sums_and_epilogues(
    rows: int,
    depth: int,
    columns: int,
    tile: Tile,
    layout: str,
    kernel: Kernel,
    dtype: type[np.floating],
    gpu: GpuBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _force(monkeypatch, tile)
    a, b, bias, other = (
        _RANDOM.standard_normal(shape).astype(dtype)
        for shape in [(rows, depth), (depth, columns), (columns,), (rows, columns)]
    )
    x = gpu.upload(a.T).transpose(1, 0) if layout == "T" else gpu.upload(a)
    out = gpu.allocate((rows, columns), a.dtype)
    memory = gpu.allocate((rows + 3,), a.dtype)  # the sums do not start where a binding may
    is_kept = kernel is ENDS[1]
    more = [gpu.allocate(out.shape, a.dtype)] if is_kept else []
    read = [] if is_kept else [gpu.upload(other)]
    epilogue = Epilogue(kernel, read, kernel.bind({"s": 0.1}), more)
    one = (1, 0, 0)
    assert tiled_matmul.tiled_matmul(
        gpu.gpu, x, gpu.upload(b), out, one, one,
        bias=gpu.upload(bias), sums=memory[3:], epilogue=epilogue,
    )  # fmt: skip
    product = np.matmul(a, b, dtype=np.float64) + bias
    results = [product, np.maximum(product, 0) - 1] if is_kept else [np.tanh(product / 10) + other]
    found = [gpu.download(array) for array in (out, *more, memory[3:])]
    for got, wanted in zip(found, [*results, a.sum(1, dtype=np.float64)], strict=True):
        assert got.dtype == dtype
        error = np.linalg.norm(got - wanted) / np.linalg.norm(wanted)
        assert error < (1e-6 if dtype == np.float32 else 4e-4)


def test_strided_operands_are_declined(gpu: GpuBackend) -> None:
    a, b = gpu.upload(np.ones((8, 16), np.float32)), gpu.upload(np.ones((8, 8), np.float32))
    out = gpu.allocate((8, 8), a.dtype)
    one = (1, 0, 0)
    every_second = a[:, ::2]
    assert not tiled_matmul.tiled_matmul(gpu.gpu, every_second, b, out, one, one)


def test_two_runs_give_the_same_bits(gpu: GpuBackend) -> None:
    a = gpu.upload(_RANDOM.standard_normal((32, 2048)).astype(np.float32))
    b = gpu.upload(_RANDOM.standard_normal((2048, 32)).astype(np.float32))
    results = []
    for _ in range(2):
        out = gpu.allocate((32, 32), a.dtype)
        one = (1, 0, 0)
        assert tiled_matmul.tiled_matmul(gpu.gpu, a, b, out, one, one)
        results.append(gpu.download(out).tobytes())
    assert results[0] == results[1]


DTYPES = {"h": np.float16, "f": np.float32}


@pytest.mark.parametrize(
    ("rows", "depth", "columns", "layout", "kinds"),
    [
        (64, 32, 64, "NN", "hhh"),
        (36, 52, 40, "TN", "hff"),
        (36, 52, 40, "NT", "fhh"),
        (33, 45, 10, "NN", "hhh"),
        (40, 1024, 32, "NN", "hhh"),
    ],
    ids=["exact", "edges", "others", "one by one", "splits"],
)
def test_float16_is_read_and_written(
    rows: int, depth: int, columns: int, layout: str, kinds: str, gpu: GpuBackend
) -> None:
    """All arithmetic is float32: the result is that of float32, rounded once.

    kinds: of a, of b, and of the result, the bias and the sums.
    """
    shapes = [(rows, depth), (depth, columns)]
    host = [_RANDOM.standard_normal(shape) for shape in shapes]
    host = [array.astype(DTYPES[kind]) for array, kind in zip(host, kinds, strict=False)]
    bias = _RANDOM.standard_normal(columns).astype(DTYPES[kinds[2]])
    found: list[list[NDArray[Any]]] = []
    for is_wide in (False, True):
        given = [*host, bias]
        given = [array.astype(np.float32) for array in given] if is_wide else given
        x, y = (
            gpu.upload(array.T).transpose() if turned == "T" else gpu.upload(array)
            for array, turned in zip(given, layout, strict=False)
        )
        dtype = given[2].dtype
        out, sums = gpu.allocate((rows, columns), dtype), gpu.allocate((rows,), dtype)
        one = (1, 0, 0)
        added = gpu.upload(given[2])
        assert tiled_matmul.tiled_matmul(gpu.gpu, x, y, out, one, one, bias=added, sums=sums)
        found.append([gpu.download(out), gpu.download(sums)])
    for half, wide in zip(*found, strict=True):
        np.testing.assert_array_equal(half, wide.astype(half.dtype))
    wanted = host[0].astype(float) @ host[1].astype(float) + bias
    error = np.linalg.norm(found[0][0] - wanted) / np.linalg.norm(wanted)
    assert error < (1e-6 if kinds[2] == "f" else 4e-4)


def test_rounded_float16_uses_other_kernels(gpu: GpuBackend) -> None:
    """float16 on a device without it."""
    stored = stored_types(has_half=False)[np.dtype(np.float16)]
    a = gpu.allocate((8, 8), np.dtype(np.float32))
    out = GPUArray(gpu, a.storage, stored, (8, 8), (8, 1))
    assert not tiled_matmul.tiled_matmul(gpu.gpu, a, a, out, (1, 0, 0), (1, 0, 0))


# Tiles taller and wider than the other side, and edges inside a square.
@pytest.mark.parametrize(
    ("side", "tile"), [(100, SMALL), (72, Tile(32, 16, 16, 4, 4)), (72, Tile(16, 32, 16, 4, 4))]
)
def test_a_product_that_equals_its_transpose(
    side: int, tile: Tile, gpu: GpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it is computed and the rest copied: both halves have equal bits."""
    _force(monkeypatch, tile)
    a = _RANDOM.standard_normal((2, side, 20)).astype(np.float32)
    x = gpu.upload(a)
    turned = x.transpose((0, 2, 1))
    out = gpu.allocate((2, side, side), a.dtype)
    given = np.matmul(a, a.transpose(0, 2, 1))
    kernel = trace(lambda product, given, *, s: {"product": s * given + product}, "added")
    epilogue = Epilogue(kernel, (gpu.upload(given),), kernel.bind({"s": 2.0}))
    batches = (2, x.strides[0], turned.strides[0])
    assert tiled_matmul.tiled_matmul(
        gpu.gpu, x, turned, out, (1, 0, 0), batches, epilogue=epilogue, symmetric=True
    )
    found = gpu.download(out)
    wanted = np.matmul(a, a.transpose(0, 2, 1), dtype=np.float64) + 2.0 * given
    assert np.abs(found - wanted).max() < 1e-4
    np.testing.assert_array_equal(found, found.transpose(0, 2, 1))
