"""The kernels of convolutions against NumPy in float64, in every variant on any adapter."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.gpu import Gpu, GPUArray, GpuBackend, LimitError
from rumus.gpu.convolutions import convolution
from rumus.gpu.convolutions.convolution import TILES
from rumus.gpu.products import tiling
from rumus.gpu.products.tiling import SMALL, Tile
from rumus.tensor.memory.window import window
from rumus.tensor.operations.convolution import Geometry

Real = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A convolution of one batch."""

    batch: int
    inputs: int
    outputs: int
    lengths: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: int | tuple[int, ...] = 0
    dilation: int | tuple[int, ...] = 1
    groups: int = 1

    @property
    def geometry(self) -> Geometry:
        found = window("test", self.lengths, self.kernel, self.stride, self.padding, self.dilation)
        places = found.places(self.lengths)
        return Geometry(found, self.groups, self.inputs, self.outputs, self.lengths, places)


CASES = {
    "3x3": Case(3, 5, 7, (8, 12), (3, 3), padding=1),
    "odd": Case(3, 3, 5, (7, 9), (3, 2), padding=(1, 0)),
    "fours": Case(2, 4, 8, (6, 8), (3, 3), padding=1),
    "not in rows of four": Case(2, 4, 6, (6, 6), (3, 3), padding=1),
    "1x1": Case(3, 12, 8, (6, 6), (1, 1)),
    "1x1 of odd sizes": Case(3, 5, 3, (5, 7), (1, 1)),
    "1x1 with a stride": Case(2, 5, 6, (7, 9), (1, 1), stride=2),
    "1x1 with padding": Case(2, 4, 4, (4, 4), (1, 1), padding=1),
    "stride": Case(2, 5, 6, (9, 12), (3, 3), stride=2, padding=1),
    "stride, even sizes": Case(2, 4, 6, (8, 16), (4, 4), stride=2, padding=1),
    "stride beyond the kernel": Case(2, 3, 4, (10, 11), (2, 2), stride=3),
    "strides that differ": Case(2, 3, 4, (11, 9), (3, 5), stride=(1, 3), padding=(0, 2)),
    "dilation": Case(2, 4, 5, (11, 9), (3, 3), dilation=2, padding=2),
    "dilation and stride": Case(2, 4, 5, (13, 12), (3, 3), stride=2, dilation=(2, 3), padding=3),
    "groups": Case(2, 6, 9, (8, 8), (3, 3), padding=1, groups=3),
    "groups with a stride": Case(2, 8, 4, (7, 7), (3, 3), stride=2, padding=1, groups=2),
    "the kernel is the input": Case(5, 4, 6, (5, 4), (5, 4)),
    "one pixel": Case(1, 1, 1, (1, 1), (1, 1)),
    "one axis": Case(3, 4, 6, (17,), (5,), stride=2, padding=2),
    "padding beyond the kernel": Case(2, 2, 3, (4, 4), (2, 2), padding=5),
    "depthwise": Case(3, 6, 6, (9, 8), (3, 3), padding=1, groups=6),
    "depthwise with a stride": Case(2, 5, 10, (9, 11), (3, 3), stride=2, padding=1, groups=5),
    "depthwise, dilated": Case(2, 4, 4, (9, 13), (5, 3), dilation=2, padding=2, groups=4),
    "depthwise, one axis": Case(3, 4, 4, (15,), (4,), stride=3, padding=1, groups=4),
    "depthwise, a large kernel": Case(2, 3, 3, (9, 9), (8, 8), padding=3, groups=3),
}
# The cases that the generated text of real devices depends on.
TINY = Tile(16, 16, 8, 4, 4)  # compiles quickly
UNROLLED = ("3x3", "odd", "fours", "not in rows of four", "1x1", "dilation and stride", "groups",
            "dilation", "1x1 of odd sizes")  # fmt: skip


def normal(*shape: int, seed: int) -> Real:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def arrays(case: Case) -> tuple[Real, Real, Real, Real]:
    """The input, the weight, the bias, and the gradient of the result."""
    g = case.geometry
    return (
        normal(case.batch, g.inputs, *g.lengths, seed=0),
        normal(g.outputs, g.inputs // g.groups, *g.window.kernel, seed=1),
        normal(g.outputs, seed=2),
        normal(case.batch, g.outputs, *g.places, seed=3),
    )


def expected(case: Case, x: Real, weight: Real, bias: Real, dy: Real) -> list[Real]:
    """The result and the gradients of input, weight and bias, tap by tap, in float64."""
    g, w = case.geometry, case.geometry.window
    x, weight, dy = (a.astype(float) for a in (x, weight, dy))
    around = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in w.padding)))
    d_around, d_weight = np.zeros_like(around), np.zeros_like(weight)
    out = np.zeros_like(dy) + bias.reshape(-1, *[1] * w.axes)
    count, made = g.inputs // g.groups, g.outputs // g.groups
    for at, view in w.views(g.places):
        for n in range(g.groups):
            read, written = slice(n * count, (n + 1) * count), slice(n * made, (n + 1) * made)
            met: Any = (slice(None), read, *view)
            tap: Any = (written, slice(None), *at)
            out[:, written] += np.einsum("oc,nc...->no...", weight[tap], around[met])
            d_around[met] += np.einsum("oc,no...->nc...", weight[tap], dy[:, written])
            flat = (dy[:, written].reshape(case.batch, made, -1),
                    around[met].reshape(case.batch, count, -1))  # fmt: skip
            d_weight[tap] = np.einsum("nop,ncp->oc", *flat)
    inside: Any = (slice(None), slice(None), *w.interior(g.lengths))
    return [out, d_around[inside], d_weight, dy.sum((0, *range(2, dy.ndim)))]


def run(gpu: GpuBackend, case: Case, inputs: Sequence[GPUArray]) -> list[Real]:
    """The same from the kernels, written over a value that must not survive."""
    x, weight, bias, dy = inputs
    results = [gpu.allocate(a.shape, x.dtype) for a in (dy, x, weight, bias)]
    for array in results:
        gpu.fill(77, array)
    kernels = [
        functools.partial(convolution.CONVOLUTIONS[name], gpu.gpu)
        for name in ("convolution", "convolution_input", "convolution_weight", "convolution_bias")
    ]
    kernels[0](case.geometry, x, weight, bias, results[0])
    kernels[1](case.geometry, dy, weight, results[1])
    kernels[2](case.geometry, x, dy, results[2])
    kernels[3](dy, results[3])
    return [gpu.download(array) for array in results]


def check(gpu: GpuBackend, case: Case) -> list[Real]:
    hosts = arrays(case)
    found = run(gpu, case, [gpu.upload(a) for a in hosts])
    for a, b in zip(found, expected(case, *hosts), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=3e-6 * (1 + abs(b).max()))
    return found


@pytest.fixture(scope="module")
def one() -> GpuBackend:
    """One device is enough for kernels that compile slowly."""
    return GpuBackend()


@pytest.mark.parametrize("name", CASES)
def test_equals_numpy(one: GpuBackend, name: str) -> None:
    check(one, CASES[name])


@pytest.mark.parametrize("name", ["stride", "depthwise"])
def test_on_devices_with_fewer_features(gpu: GpuBackend, name: str) -> None:
    check(gpu, CASES[name])


def unroll(monkeypatch: pytest.MonkeyPatch, tile: Tile = TINY) -> None:
    """Use the kernels of real devices, with one tile."""
    monkeypatch.setattr(Gpu, "is_software", False)
    monkeypatch.setattr(convolution, "TILES", ((tile, 1.0),))


@pytest.mark.parametrize("name", UNROLLED)
def test_unrolled(name: str, one: GpuBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    unroll(monkeypatch)
    check(one, CASES[name])


def test_a_tile_of_real_devices(one: GpuBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    unroll(monkeypatch, SMALL)
    case = Case(3, 9, 70, (8, 20), (3, 3), padding=1)
    x, weight, bias, dy = arrays(case)
    out = one.allocate(dy.shape, x.dtype)
    uploaded = one.upload(x), one.upload(weight), one.upload(bias)
    convolution.convolution(one.gpu, case.geometry, *uploaded, out)
    wanted = expected(case, x, weight, bias, dy)[0]
    np.testing.assert_allclose(one.download(out), wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("tile", [tile for tile, _ in TILES])
def test_every_lane_of_a_tile_loads_as_much(tile: Tile) -> None:
    for length in (tile.rows, tile.columns):
        assert length * tile.depth // 4 % tile.lanes == 0
        assert length % (4 * tile.lanes // tile.depth) == 0
    assert tile.bytes <= 16384  # what every device has


def test_depthwise_unrolled(one: GpuBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gpu, "is_software", False)
    check(one, CASES["depthwise with a stride"])


@pytest.mark.parametrize(
    ("name", "unrolls"), [("3x3", False), ("depthwise", False), ("fours", True), ("1x1", True)]
)
def test_float16_is_rounded_once(
    name: str, unrolls: bool, one: GpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits as from float32, rounded at the end, without matrix units."""
    monkeypatch.setattr(one.gpu, "units", None)
    if unrolls:
        unroll(monkeypatch)
    case = CASES[name]
    halves = [a.astype(np.float16) for a in arrays(case)]
    found = run(one, case, [one.upload(a) for a in halves])
    wide = run(one, case, [one.upload(a.astype(np.float32)) for a in halves])
    for a, b in zip(found, wide, strict=True):
        assert a.dtype == np.float16
        np.testing.assert_array_equal(a, b.astype(np.float16))


@pytest.mark.parametrize("unrolls", [False, True])
def test_a_split_depth(unrolls: bool, one: GpuBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    if unrolls:
        unroll(monkeypatch)
    monkeypatch.setattr(tiling, "LEAST", 16)
    monkeypatch.setattr(tiling, "START", 0)
    monkeypatch.setattr(tiling, "DISPATCH", 0)
    convolution._tile.cache_clear()
    with one.profile() as profile:
        first, second = (check(one, CASES["fours"]) for _ in range(2))
    assert "add_parts" in [event.kernel for event in profile.events]
    assert [a.tobytes() for a in first] == [a.tobytes() for a in second]


def test_views_and_memory_of_an_input(one: GpuBackend) -> None:
    """Strided inputs are copied; results go where they belong, also at odd offsets."""
    case = CASES["3x3"]
    x, weight, bias, dy = arrays(case)
    wanted = expected(case, x, weight, bias, dy)[0]
    both = one.upload(np.concatenate([np.zeros(3, np.float32), x.ravel(), dy.ravel()]))
    view = both[3 : 3 + x.size].reshape(x.shape)
    out = both[3 + x.size :].reshape(dy.shape)
    turned = one.upload(np.ascontiguousarray(weight.transpose(2, 3, 0, 1))).transpose(2, 3, 0, 1)
    convolution.convolution(one.gpu, case.geometry, view, turned, one.upload(bias), out)
    np.testing.assert_allclose(one.download(out), wanted, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(one.download(view), x)


def test_more_workgroups_than_a_grid_is_wide(
    one: GpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one.gpu, "limits", replace(one.gpu.limits, workgroups=3))
    check(one, Case(9, 3, 5, (9, 9), (3, 3)))
    check(one, CASES["depthwise"])


def test_infinity_spreads_only_to_its_neighbors(
    one: GpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elements loaded in place of those outside are never multiplied by 0."""
    unroll(monkeypatch)
    x, weight, bias, _ = arrays(CASES["odd"])
    x[0, 0, 0, 0] = np.inf
    case = CASES["odd"]
    out = one.allocate((case.batch, case.outputs, *case.geometry.places), x.dtype)
    uploaded = one.upload(x), one.upload(weight), one.upload(bias)
    convolution.convolution(one.gpu, case.geometry, *uploaded, out)
    found = np.isfinite(one.download(out))
    assert not found[0, :, :2, 0].any()
    found[0, :, :2, 0] = True
    assert found.all()


def test_padding_beyond_all_coordinates_is_refused(one: GpuBackend) -> None:
    case = Case(1, 1, 1, (1, 1), (1, 1), stride=2**30, padding=2**30)
    x, weight, _, dy = (one.upload(a) for a in arrays(case))
    with pytest.raises(LimitError, match="too wide for a GPU"):
        convolution.convolution(one.gpu, case.geometry, x, weight, None, dy)


def test_nothing_to_do(one: GpuBackend) -> None:
    empty = replace(CASES["3x3"], batch=0)
    results = run(one, empty, [one.upload(a) for a in arrays(empty)])
    assert [a.size for a in results[:2]] == [0, 0]
    assert not results[2].any()
    assert not results[3].any()


def test_no_channels(one: GpuBackend) -> None:
    """Without inputs, only the bias is left; without outputs, the gradient is 0."""
    case = Case(2, 0, 3, (4, 5), (3, 3), padding=1)
    _, _, bias, dy = hosts = arrays(case)
    out, _, _, summed = run(one, case, [one.upload(a) for a in hosts])
    np.testing.assert_array_equal(out, np.zeros_like(dy) + bias[:, None, None])
    np.testing.assert_allclose(summed, dy.sum((0, 2, 3)), rtol=1e-5, atol=1e-5)
    case = Case(2, 3, 0, (4, 5), (3, 3), padding=1)
    assert not run(one, case, [one.upload(a) for a in arrays(case)])[1].any()


def test_names_in_a_profile(one: GpuBackend) -> None:
    with one.profile() as profile:
        check(one, CASES["3x3"])
        check(one, CASES["depthwise"])
    names = [event.kernel for event in profile.events]
    own = [name for name in names if name.startswith(("convolution", "depthwise"))]
    assert own == ["convolution", "convolution", "convolution_weight",
                   "depthwise", "depthwise_input", "depthwise_weight"]  # fmt: skip
