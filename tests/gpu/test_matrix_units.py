"""Products on matrix units, with the same programs but plain loops in place of the units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.gpu import GpuBackend
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.matrix_units import (
    PRECISIONS,
    MatrixUnits,
    PlainLoops,
    Precision,
    UnitShape,
    units_of,
)
from rumus.gpu.device.stored import stored_types
from rumus.gpu.engine.protocol import MatrixUnit
from rumus.gpu.products import unit_tiles
from rumus.gpu.products.tiled_matmul_program import Kinds, TiledVariant
from rumus.gpu.products.unit_matmul_program import UnitVariant, unit_program
from rumus.gpu.products.unit_product import UnitTile
from rumus.tensor import Parameter, convolution, float16, float32, relu, tensor
from rumus.tensor.expression.kernel import trace
from rumus.tensor.memory.backend import Epilogue
from rumus.tensor.operations.linear import linear

Array = NDArray[Any]
REAL = {"high": unit_tiles.HIGH, "medium": unit_tiles.MEDIUM, "half": unit_tiles.HALF}
ERRORS: dict[Precision, float] = {"high": 2e-6, "medium": 1e-3}


@pytest.fixture(scope="module")
def loops() -> GpuBackend:
    """A backend with matrix units, or one that pretends to; with tiles that compile quickly.

    Where there are units, plain loops would show less: NVIDIA's driver leaves out their rounding.
    """
    backend = GpuBackend(Gpu())
    backend.gpu.units = backend.gpu.units or PlainLoops(UnitShape(16, 16, 16))
    return backend


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    tiles = ((UnitTile(32, 16, 16, 16, 16), 1.0),)
    for name in ("MEDIUM", "HALF", "HIGH", "CONVOLUTION"):
        monkeypatch.setattr(unit_tiles, name, tiles)
    yield
    unit_tiles._level.cache_clear()


def multiply(backend: GpuBackend, a: Array, b: Array, layout: str = "NN") -> Array:
    """The backend's product, with operands in the memory order of `layout`."""
    x = tensor(a if layout[0] == "N" else a.T.copy(), backend=backend)
    y = tensor(b if layout[1] == "N" else b.T.copy(), backend=backend)
    result = (x if layout[0] == "N" else x.T) @ (y if layout[1] == "N" else y.T)
    return result.numpy().astype(np.float64)


def relative(found: Array, a: Array, b: Array) -> float:
    """The largest error, relative to the product of the magnitudes of its row and column."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    bound = np.abs(x) @ np.abs(y) / np.sqrt(a.shape[-1])
    return float((np.abs(found - x @ y) / np.where(bound == 0, 1, bound)).max())


def normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


# A software driver takes seconds to compile each program, so most tests share two of them.
@pytest.mark.parametrize(
    ("precision", "layout"), [("medium", "NN"), ("medium", "TT"), ("high", "NT")]
)
def test_layouts_and_edges(loops: GpuBackend, precision: Precision, layout: str) -> None:
    a, b = normal(37, 45), normal(45, 18)
    with loops.gpu.at_precision(precision):
        assert relative(multiply(loops, a, b, layout), a, b) < 4 * ERRORS[precision]


def test_another_shape_of_units(loops: GpuBackend, monkeypatch: Any) -> None:
    monkeypatch.setattr(loops.gpu, "units", PlainLoops(UnitShape(16, 8, 8)))
    a, b = normal(32, 32), normal(32, 16)
    with loops.gpu.at_precision("medium"):
        assert relative(multiply(loops, a, b), a, b) < 4 * ERRORS["medium"]


@pytest.mark.parametrize("layout", ["NN", "TT"])
@pytest.mark.parametrize("shape", [(64, 32, 96), (37, 45, 52)])
def test_a_tile_whose_lanes_load_unequal_amounts(
    loops: GpuBackend, layout: str, shape: tuple[int, int, int], monkeypatch: Any
) -> None:
    """Tiles that end where the matrix does, and others; also with the sums of rows."""
    tile = UnitTile(32, 48, 16, 16, 16)
    assert 32 * 16 // 4 % tile.lanes
    monkeypatch.setattr(unit_tiles, "MEDIUM", ((tile, 1.0),))
    unit_tiles._level.cache_clear()
    a, b = normal(*shape[:2]), normal(*shape[1:])
    x = tensor(a if layout == "NN" else a.T.copy(), backend=loops)
    with loops.gpu.at_precision("medium"):
        assert relative(multiply(loops, a, b, layout), a, b) < 4 * ERRORS["medium"]
        out, sums = (
            loops.allocate((shape[0], shape[2]), float32),
            loops.allocate(shape[:1], float32),
        )
        left = x if layout == "NN" else x.T
        loops.matmul(left._array, tensor(b, backend=loops)._array, out, sums=sums)
    np.testing.assert_allclose(loops.download(sums), a.astype(np.float64).sum(1), atol=1e-5)


def test_long_sums_are_added_up_in_pieces_and_parts(loops: GpuBackend) -> None:
    a, b = normal(37, 1101), normal(1101, 18)
    for precision, error in ERRORS.items():
        with loops.gpu.at_precision(precision):
            assert relative(multiply(loops, a, b), a, b) < 4 * error


def _grows(a: Array, b: Array) -> None:
    a[:, 20:] *= 2.0**30
    b[10:] *= 2.0**25


def _begins_with_zeros(a: Array, b: Array) -> None:
    a[:, :24] = b[:24] = 0
    a *= 1e-20


def _has_rows_of_all_sizes(a: Array, b: Array) -> None:
    a *= np.exp2(np.linspace(-60, 50, len(a)))[:, None].astype(np.float32)
    b *= np.exp2(np.linspace(-30, 40, b.shape[1])).astype(np.float32)


def _is_small(a: Array, b: Array) -> None:
    a *= np.float32(1e-30)
    b *= np.float32(1e25)


@pytest.mark.parametrize("change", [_grows, _begins_with_zeros, _has_rows_of_all_sizes, _is_small])
@pytest.mark.parametrize("precision", get_args(Precision)[1:])
def test_magnitudes_beyond_float16(loops: GpuBackend, precision: Precision, change: Any) -> None:
    a, b = normal(37, 45), normal(45, 18)
    change(a, b)
    with loops.gpu.at_precision(precision):
        assert relative(multiply(loops, a, b), a, b) < 6 * ERRORS[precision]


@pytest.mark.parametrize("precision", get_args(Precision)[1:])
def test_values_that_are_not_finite(loops: GpuBackend, precision: Precision) -> None:
    a, b = normal(37, 45), normal(45, 18)
    a[3, 5], a[7, 9], b[2, 4] = np.inf, np.nan, -np.inf
    a[20], b[:, 11] = 3e38, 3e38
    with loops.gpu.at_precision(precision), np.errstate(all="ignore"):
        found, wanted = multiply(loops, a, b), a.astype(np.float64) @ b.astype(np.float64)
        wanted = wanted.astype(np.float32)
    assert (np.isnan(found) == np.isnan(wanted)).all()
    assert (found[np.isinf(wanted)] == wanted[np.isinf(wanted)]).all()
    finite = np.isfinite(wanted) & (np.abs(wanted) < 1e37)
    assert np.isfinite(found[finite]).all()


def test_bias_and_epilogue(loops: GpuBackend) -> None:
    x, w, bias = normal(37, 45), normal(18, 45), normal(18)
    with loops.gpu.at_precision("medium"):
        out = linear(*(tensor(v, backend=loops) for v in (x, w, bias)), activation=relu)
    exact = np.maximum(x.astype(np.float64) @ w.T + bias, 0)
    assert np.abs(out.numpy() - exact).max() < 10 * ERRORS["medium"] * np.abs(exact).max()


@pytest.mark.parametrize(("rows", "columns"), [(32, 48), (37, 20), (37, 18)])
def test_an_epilogue_that_reads_arrays(loops: GpuBackend, rows: int, columns: int) -> None:
    """Elements in fours and one by one, in whole tiles and beyond the last row and column."""
    a, b, other = normal(rows, 45), normal(45, columns), normal(rows, columns)
    kernel = trace(lambda x, r, *, s: {"x": (s * x).tanh() + r, "y": x - r}, "both")
    x, y, r = (loops.upload(v) for v in (a, b, other))
    out, more = (loops.allocate((rows, columns), float32) for _ in range(2))
    with loops.gpu.at_precision("medium"):
        loops.matmul(x, y, out, epilogue=Epilogue(kernel, [r], kernel.bind({"s": 0.1}), [more]))
    product = a.astype(np.float64) @ b
    for found, wanted in ((out, np.tanh(0.1 * product) + other), (more, product - other)):
        assert np.abs(loops.download(found) - wanted).max() < 10 * ERRORS["medium"] * 7


@pytest.mark.parametrize("is_across", [False, True])
def test_the_sums_of_rows_are_float32(loops: GpuBackend, is_across: bool) -> None:
    a, b = normal(37, 45), normal(45, 18)
    x = tensor(a.T.copy(), backend=loops).T if is_across else tensor(a, backend=loops)
    out, sums = loops.allocate((37, 18), float32), loops.allocate((37,), float32)
    with loops.gpu.at_precision("medium"):
        loops.matmul(x._array, tensor(b, backend=loops)._array, out, sums=sums)
    np.testing.assert_allclose(loops.download(sums), a.astype(np.float64).sum(1), atol=1e-5)


def test_the_same_bits_twice(loops: GpuBackend) -> None:
    a, b = normal(37, 45), normal(45, 18)
    with loops.gpu.at_precision("high"):
        assert (multiply(loops, a, b) == multiply(loops, a, b)).all()


def test_highest_uses_no_units(loops: GpuBackend) -> None:
    plain, a, b = GpuBackend(loops.gpu), normal(8, 9), normal(9, 5)
    wanted = multiply(plain, a, b)
    with loops.gpu.at_precision("medium"):
        assert (multiply(plain, a, b) != wanted).any()
    assert (multiply(plain, a, b) == wanted).all()


def test_an_unknown_precision(loops: GpuBackend) -> None:
    with pytest.raises(ValueError, match="precision must be 'highest', 'high' or 'medium'"):
        Gpu(precision="low")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'low'"), loops.gpu.at_precision("low"):  # type: ignore[arg-type]
        pass
    assert loops.gpu.precision == PRECISIONS[0]


def test_the_precision_ends_with_its_block(loops: GpuBackend) -> None:
    with pytest.raises(KeyError), loops.gpu.at_precision("medium"):
        raise KeyError
    assert loops.gpu.precision == "highest"


class _Adapter:
    features = frozenset(("shader-f16", "subgroups", "matrix-units"))
    matrix_units = (
        MatrixUnit(16, 16, 32, "u8", "u32", (32, 32)),
        MatrixUnit(16, 8, 16, "f16", "f32", (32, 32)),
        MatrixUnit(16, 16, 16, "f16", "f32", (32, 32)),
        MatrixUnit(32, 32, 16, "f16", "f32", (64, 64)),
    )


def test_the_largest_fitting_units_are_chosen() -> None:
    adapter: Any = _Adapter()
    assert units_of(adapter) == MatrixUnits(UnitShape(16, 16, 16))
    adapter.matrix_units = adapter.matrix_units[:1]
    assert units_of(adapter) is None


@pytest.mark.parametrize("level", REAL)
def test_programs_of_real_devices_compile_and_fit(level: str) -> None:
    """By Dawn's compiler; every tile of products, whole and not, with the sums of rows."""
    dawn = pytest.importorskip("rumus.gpu.engine.dawn", exc_type=ModuleNotFoundError)
    stored = stored_types(True)[float16 if level == "half" else float32]
    kinds = Kinds(stored, stored, stored, None, stored)
    for tile, _ in REAL[level]:
        for along, whole in ((True, True), (False, True), (False, False)):
            product = TiledVariant(tile, kinds, along, along, (whole,) * 3, (whole,) * 3, None)
            units = MatrixUnits(UnitShape(16, 16, 16))
            program = unit_program(UnitVariant(product, tile, units, level == "high"))
            directives = "".join(dawn._PREAMBLE.get(name, "") for name in program.features)
            assert not dawn.compiles(directives + program.source)
            assert program.workgroup_bytes <= 49152


@pytest.mark.parametrize(
    ("precision", "stride", "groups", "lengths"),
    [("medium", 1, 1, (8, 8)), ("high", 2, 2, (9, 7))],
)
def test_convolutions(
    loops: GpuBackend, precision: Precision, stride: int, groups: int, lengths: tuple[int, int]
) -> None:
    """Forward and both gradients, against those of float32; gradients are tiny, as in practice."""
    x, w, bias = normal(3, 4, *lengths), normal(6, 4 // groups, 3, 3), normal(6)
    plain = GpuBackend(loops.gpu)

    def run(level: Precision) -> list[Array]:
        with plain.at_precision(level):
            named = {"x": x, "w": w, "bias": bias}
            parameters = [Parameter(v, name=name, backend=plain) for name, v in named.items()]
            out = convolution(*parameters, stride=stride, padding=1, groups=groups)
            grads = ((out * out).sum() * 1e-20).backward()
            return [out.numpy(), *(grads.take(p).numpy() * 1e20 for p in parameters)]

    for found, wanted in zip(run(precision), run("highest"), strict=True):
        assert np.abs(found - wanted).max() < 10 * ERRORS[precision] * np.abs(wanted).max()
        assert precision == "high" or (found != wanted).any()


@pytest.mark.parametrize("side", [48, 42])
def test_a_half_product_that_equals_its_transpose(loops: GpuBackend, side: int) -> None:
    """Written twice, in fours and one by one; both halves have equal bits."""
    a = normal(2, side, 20).astype(np.float16)
    x = loops.upload(a)
    out = loops.allocate((2, side, side), float16)
    loops.matmul(x, x.transpose((0, 2, 1)), out, symmetric=True)
    found = loops.download(out)
    np.testing.assert_array_equal(found, found.transpose(0, 2, 1))
    wanted = np.matmul(a, a.transpose(0, 2, 1), dtype=np.float64)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-2)
