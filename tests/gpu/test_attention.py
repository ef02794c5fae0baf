"""The attention kernels against NumPy in float64, in every variant on any adapter."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.gpu import GPUArray, GpuBackend
from rumus.gpu.attention import attention
from rumus.gpu.attention.attention import Problem, choose, variant_of
from rumus.gpu.attention.attention_arrays import Stage
from rumus.gpu.attention.attention_program import (
    AttentionTile,
    AttentionVariant,
    attention_program,
)
from rumus.gpu.attention.unit_attention_program import (
    WIDEST,
    UnitAttentionTile,
    unit_attention_program,
)
from rumus.gpu.device.matrix_units import MatrixUnits, PlainLoops, UnitShape
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.stored import stored_types
from rumus.tensor import float16, float32

Shape = tuple[int, ...]
# queries, keys, values
SHAPES: dict[str, tuple[Shape, Shape, Shape]] = {
    "in fours": ((2, 2, 70, 20), (2, 2, 70, 20), (2, 2, 70, 12)),
    "other lengths": ((2, 2, 5, 20), (2, 2, 70, 20), (2, 2, 70, 12)),
    "one key": ((2, 2, 40, 20), (2, 2, 1, 20), (2, 2, 1, 12)),
    "shared heads": ((2, 6, 33, 8), (2, 2, 33, 8), (2, 2, 33, 32)),
    "odd": ((3, 37, 7), (1, 37, 7), (1, 37, 5)),
    "no heads": ((9, 7), (9, 7), (9, 1)),
    "one element": ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    "many axes": ((2, 1, 3, 2, 9, 4), (2, 1, 3, 2, 9, 4), (2, 1, 3, 2, 9, 4)),
}


def normal(*shape: int, seed: int) -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def expected(inputs: Sequence[Any], g: Any, causal: bool, scale: float) -> list[NDArray[Any]]:
    """The result and the gradients of q, k and v, by definition."""
    q, k, v = inputs
    heads = q.shape[-3] if q.ndim > 2 else 1
    shared = heads // (k.shape[-3] if k.ndim > 2 else 1)
    q, k, v, g = (a.astype(float).reshape(-1, *a.shape[-2:]) for a in (q, k, v, g))
    k, v = (a.repeat(shared, 0) for a in (k, v))
    scores = scale * q @ k.swapaxes(1, 2)
    if causal:
        scores = np.where(np.tri(scores.shape[1]) > 0, scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    out = p @ v
    ds = p * (g @ v.swapaxes(1, 2) - (g * out).sum(-1, keepdims=True)) * scale
    dk, dv = ds.swapaxes(1, 2) @ q, p.swapaxes(1, 2) @ g
    summed = [a.reshape(-1, shared, *a.shape[1:]).sum(1) for a in (dk, dv)]
    return [out, ds @ k, *summed]


def run(
    gpu: GpuBackend, inputs: Sequence[GPUArray], g: GPUArray, causal: bool, scale: float
) -> list[NDArray[Any]]:
    """The same from the kernels, written over a value that must not survive."""
    q, v = inputs[0], inputs[2]
    forward, back = gpu.fused("attention"), gpu.fused("attention_gradient")
    assert forward is not None
    assert back is not None
    out = gpu.allocate((*q.shape[:-1], v.shape[-1]), q.dtype)
    total = gpu.allocate(q.shape[:-1], float32)
    gradients = [gpu.allocate(a.shape, q.dtype) for a in inputs]
    for array in (out, total, *gradients):
        gpu.fill(77, array)
    forward(*inputs, causal, scale, out, total)
    back(*inputs, causal, scale, out, total, g, *gradients)
    return [gpu.download(a) for a in (out, *gradients)]


def check(
    gpu: GpuBackend, shapes: tuple[Shape, Shape, Shape], causal: bool, scale: float = 0.3
) -> list[NDArray[Any]]:
    inputs = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    g = normal(*shapes[0][:-1], shapes[2][-1], seed=3)
    found = run(gpu, [gpu.upload(a) for a in inputs], gpu.upload(g), causal, scale)
    for a, b in zip(found, expected(inputs, g, causal, scale), strict=True):
        np.testing.assert_allclose(a.reshape(b.shape), b, rtol=1e-5, atol=2e-6 * (1 + abs(b).max()))
    return found


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_equals_numpy(gpu: GpuBackend, name: str, causal: bool) -> None:
    q, k, v = SHAPES[name]
    if causal and q[-2] != k[-2]:
        k, v = ((*shape[:-2], q[-2], shape[-1]) for shape in (k, v))
    check(gpu, (q, k, v), causal)


@pytest.fixture(scope="module")
def one() -> GpuBackend:
    """One device is enough for kernels that compile slowly."""
    return GpuBackend()


@pytest.fixture(scope="module", params=["16-bit floats", "rounded"])
def half(request: pytest.FixtureRequest) -> GpuBackend:
    """A device with 16-bit floats, and one without, which rounds when it stores."""
    backend = GpuBackend()
    backend._stored = stored_types(request.param == "16-bit floats")
    backend.gpu.units = None  # they multiply float16
    return backend


@pytest.mark.parametrize("name", ["in fours", "shared heads", "odd"])
def test_float16_is_float32_rounded(name: str, half: GpuBackend) -> None:
    """Only inputs and outputs are float16."""
    inputs = [normal(*shape, seed=i).astype(float16) for i, shape in enumerate(SHAPES[name])]
    g = normal(*SHAPES[name][0][:-1], SHAPES[name][2][-1], seed=3).astype(float16)
    found = run(half, [half.upload(a) for a in inputs], half.upload(g), True, 0.3)
    wide = [half.upload(a.astype(float32)) for a in inputs]
    wanted = run(half, wide, half.upload(g.astype(float32)), True, 0.3)
    np.testing.assert_allclose(found[0], wanted[0], rtol=2**-11, atol=2**-25)
    for a, b in zip(found[1:], wanted[1:], strict=True):  # computed from the rounded result
        np.testing.assert_allclose(a, b, rtol=2**-10, atol=2**-11 * abs(b).max())
    exact = expected(inputs, g, True, 0.3)
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == float16
        size = np.linalg.norm(b) + 1e-3
        assert np.linalg.norm(a.astype(float).reshape(b.shape) - b) / size < 5e-4


def test_views_of_float16(half: GpuBackend) -> None:
    """Heads inside positions at an odd offset: element by element."""
    host = normal(2, 30, 5, 2 * 16 + 1, seed=0).astype(float16)
    array = half.upload(host)
    places = [slice(0, 3), slice(3, 4), slice(4, 5)]
    order = (0, 2, 1, 3)
    found = [array[:, 1:, at, 1:17].transpose(order) for at in places]
    wanted = [host[:, 1:, at, 1:17].transpose(order) for at in places]
    g = normal(*found[0].shape, seed=1).astype(float16)
    results = run(half, found, half.upload(g), True, 0.25)
    for a, b in zip(results, expected(wanted, g, True, 0.25), strict=True):
        b = b.reshape(a.shape)
        np.testing.assert_allclose(a, b, rtol=2**-10, atol=2**-11 * (1 + abs(b).max()))


SIZES = [(1, 1), (32, 32), (64, 64), (128, 128), (256, 256), (250, 1)]
CHOSEN = attention.LARGE, attention.NARROW, attention.MIDDLE, attention.SIMPLE, attention.SMALL
STAGES: tuple[Stage, ...] = ("forward", "query", "key")


@pytest.fixture
def with_tile(monkeypatch: pytest.MonkeyPatch) -> Callable[[AttentionTile, bool], None]:
    """Have all attention run with one tile, with unrolled loops or without."""

    def use(tile: AttentionTile, is_unrolled: bool) -> None:
        def chosen(limits: Any, problem: Problem, is_software: bool) -> AttentionVariant:
            return variant_of(problem, tile, is_unrolled)

        monkeypatch.setattr(attention, "choose", chosen)

    return use


@pytest.mark.parametrize(
    ("tile", "length"), [*((tile, 45) for tile in CHOSEN), (attention.LARGE, 64)]
)
def test_every_tile(
    tile: AttentionTile,
    length: int,
    one: GpuBackend,
    with_tile: Callable[[AttentionTile, bool], None],
) -> None:
    """The variants of real devices, with tiles that extend beyond an end and with whole ones."""
    with_tile(tile, False)
    check(one, ((1, 2, length, 64), (1, 1, length, 64), (1, 1, length, 64)), causal=True)


@pytest.mark.parametrize(("size", "length"), [(30, 45), (32, 64)])
def test_unrolled_loops(
    size: int, length: int, one: GpuBackend, with_tile: Callable[[AttentionTile, bool], None]
) -> None:
    """With a tile that a CPU compiles in a second or two."""
    with_tile(AttentionTile(8, 4, 2, 1, 4, 8), True)
    check(one, ((1, 2, length, size), (1, 1, length, size), (1, 1, length, size)), causal=True)


@pytest.mark.parametrize("stage", STAGES)
def test_variants_of_real_devices_compile(stage: Stage, one: GpuBackend) -> None:
    stored = one.allocate((1,), float32).stored
    for size, length in itertools.product((32, 64, 128, 256), (100, 512)):
        problem = Problem(stage, stored, (size, size), (length, length), 96, True, True)
        variant = choose(one.gpu.limits, problem, False)
        pipeline = one.gpu.pipeline(variant, partial(attention_program, variant))
        assert pipeline.program.workgroup_bytes == variant.bytes


def test_the_tile_depends_on_the_width_and_the_number_of_heads(one: GpuBackend) -> None:
    stored = one.allocate((1,), float32).stored
    found = {
        (size, heads): choose(
            replace(one.gpu.limits, workgroup_memory=memory),
            Problem("forward", stored, (size, size), (512, 512), heads, True, True),
            False,
        ).tile
        for size, heads, memory in (
            (64, 96, 49152), (64, 8, 49152), (32, 96, 49152), (32, 8, 49152), (128, 96, 49152),
            (256, 96, 16384),
        )
    }  # fmt: skip
    assert list(found.values()) == [
        attention.LARGE, attention.MIDDLE, attention.NARROW, attention.SIMPLE, attention.MIDDLE,
        attention.SMALL,
    ]  # fmt: skip


def test_wide_heads(one: GpuBackend) -> None:
    check(one, ((1, 1, 11, 256), (1, 1, 13, 256), (1, 1, 13, 256)), causal=False)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("memory", [16384, 32768])
@pytest.mark.parametrize("stage", STAGES)
def test_every_size_fits(
    stage: Stage, memory: int, sizes: tuple[int, int], one: GpuBackend
) -> None:
    limits = replace(one.gpu.limits, workgroup_memory=memory)
    stored = one.allocate((1,), float32).stored
    problem = Problem(stage, stored, sizes, (512, 512), 96, True, True)
    assert all(choose(limits, problem, soft).bytes <= memory for soft in (False, True))


def test_a_device_with_little_memory(one: GpuBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 KiB, as any device has; heads of 256 get the smallest tile."""
    monkeypatch.setattr(one.gpu, "limits", replace(one.gpu.limits, workgroup_memory=16384))
    check(one, ((1, 1, 11, 250), (1, 1, 11, 250), (1, 1, 11, 256)), causal=True)


def test_more_workgroups_than_a_grid_is_wide(
    one: GpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one.gpu, "limits", replace(one.gpu.limits, workgroups=5))
    check(one, ((2, 11, 40, 16), (2, 11, 40, 16), (2, 11, 40, 16)), causal=True)


@pytest.mark.parametrize("last", ["dense", "strided", "backwards"])
def test_views(last: str, one: GpuBackend) -> None:
    """Heads inside positions, as layers have them, at odd offsets; others are copied."""
    host = normal(2, 30, 5, 2 * 16 + 1, seed=0)
    array = one.upload(host)
    width = {"dense": slice(1, 17), "strided": slice(0, 32, 2), "backwards": slice(20, 4, -1)}[last]
    order = (0, 2, 1, 3)
    rows = slice(None, None, -1) if last == "backwards" else slice(1, None)
    places = [slice(0, 3), slice(3, 4), slice(4, 5)]
    found = [array[:, rows, at, width].transpose(order) for at in places]
    wanted = [host[:, rows, at, width].transpose(order) for at in places]
    g = normal(2, found[0].shape[-2], 3, 16, seed=1)
    gradient = one.upload(g).transpose(order)
    results = run(one, found, gradient, True, 0.25)
    for a, b in zip(results, expected(wanted, g.transpose(order), True, 0.25), strict=True):
        np.testing.assert_allclose(a.reshape(b.shape), b, rtol=1e-5, atol=1e-5)


def test_into_views_of_the_memory_of_an_input(one: GpuBackend) -> None:
    host = normal(4, 2, 9, 16, seed=0)
    both = one.upload(host)
    q, k, v, out = (both[i] for i in range(4))
    forward = one.fused("attention")
    assert forward is not None
    forward(q, k, v, False, 1.0, out, one.allocate((2, 9), float32))
    wanted = expected(list(host[:3]), host[3], False, 1.0)[0]
    np.testing.assert_allclose(one.download(out), wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(one.download(both)[:3], host[:3])


@pytest.mark.parametrize(
    ("queries", "keys"), [((0, 2, 3), (0, 2, 3)), ((2, 0, 3), (2, 4, 3)), ((2, 4, 3), (2, 0, 3))]
)
def test_nothing_to_do(queries: Shape, keys: Shape, one: GpuBackend) -> None:
    inputs = [one.upload(normal(*shape, seed=0)) for shape in (queries, keys, keys)]
    results = run(one, inputs, one.upload(normal(*queries, seed=1)), False, 1.0)
    assert [a.shape for a in results] == [queries, queries, keys, keys]
    assert not any(a.any() for a in results)


def test_two_runs_give_the_same_bits(one: GpuBackend) -> None:
    shapes = (2, 4, 100, 16), (2, 2, 100, 16), (2, 2, 100, 16)
    first, second = (check(one, shapes, causal=True) for _ in range(2))
    assert [a.tobytes() for a in first] == [a.tobytes() for a in second]


def test_large_scores_do_not_overflow(one: GpuBackend) -> None:
    q, k, v = (normal(1, 40, 16, seed=i) for i in range(3))
    q[0, 1::2] *= 1000
    found = run(one, [one.upload(a) for a in (q, k, v)], one.upload(v), True, 1.0)
    wanted = expected((q, k, v), v, True, 1.0)  # scores of 10,000 have an error of 1e-3
    np.testing.assert_allclose(found[0], wanted[0], rtol=0, atol=5e-3)
    assert all(np.isfinite(a).all() for a in found)


def test_nan_stays_in_its_row(one: GpuBackend) -> None:
    q, k, v = (normal(1, 40, 16, seed=i) for i in range(3))
    q[0, 7, 3] = np.nan
    out = run(one, [one.upload(a) for a in (q, k, v)], one.upload(v), True, 1.0)[0]
    assert np.isnan(out).any(-1)[0].nonzero()[0].tolist() == [7]


def test_names_in_a_profile(one: GpuBackend) -> None:
    with one.profile() as profile:
        check(one, ((2, 4, 100, 16), (2, 2, 100, 16), (2, 2, 100, 16)), causal=True)
    names = [event.kernel for event in profile.events if event.kernel.startswith("attention")]
    assert names == ["attention", "attention_gradient_query", "attention_gradient_key"]


# On matrix units, by the same programs with plain loops in place of the units. A software driver
# takes seconds to compile each, so sizes are small and tests share variants.
UNIT_ERROR = 2e-3
UNIT_TILE = UnitAttentionTile(2, 16)


@pytest.fixture
def loops(one: GpuBackend, monkeypatch: pytest.MonkeyPatch) -> GpuBackend:
    """A backend that pretends to have matrix units, at `medium`."""
    monkeypatch.setattr(one.gpu, "units", PlainLoops(UnitShape(16, 16, 16)))
    monkeypatch.setattr(one.gpu, "precision", "medium")
    for name in ("UNIT_TILES", "WIDE_UNIT_TILES"):
        monkeypatch.setattr(attention, name, (UNIT_TILE,))
    return one


def check_units(
    loops: GpuBackend,
    shapes: tuple[Shape, Shape, Shape],
    causal: bool,
    dtype: Any = float32,
    small: float = 1e-20,
) -> None:
    """Against float64, relative to the whole result; with gradients as tiny as `small`."""
    inputs = [normal(*shape, seed=i).astype(dtype) for i, shape in enumerate(shapes)]
    g = (normal(*shapes[0][:-1], shapes[2][-1], seed=3) * np.float32(small)).astype(dtype)
    found = run(loops, [loops.upload(a) for a in inputs], loops.upload(g), causal, 0.3)
    for a, b in zip(found, expected(inputs, g, causal, 0.3), strict=True):
        assert np.linalg.norm(a.reshape(b.shape) - b) < UNIT_ERROR * np.linalg.norm(b)


def test_units_of_another_shape(loops: GpuBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """With whole tiles, and results that pass through two slots in turn."""
    monkeypatch.setattr(loops.gpu, "units", PlainLoops(UnitShape(16, 8, 8)))
    monkeypatch.setattr(attention, "UNIT_TILES", (UnitAttentionTile(1, 16, slots=2),))
    check_units(loops, ((1, 32, 8), (1, 32, 8), (1, 32, 8)), True)


RAGGED = (1, 2, 37, 7), (1, 1, 37, 7), (1, 1, 37, 5)


def test_units_with_shared_heads_and_ragged_ends(loops: GpuBackend) -> None:
    """Rows, columns and tiles that end early, one element at a time; a diagonal."""
    check_units(loops, RAGGED, True)


def test_units_with_other_lengths_and_rows_longer_than_a_matrix(loops: GpuBackend) -> None:
    check_units(loops, ((1, 2, 20, 20), (1, 2, 45, 20), (1, 2, 45, 12)), False)


def test_units_with_float16(loops: GpuBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every precision; a gradient of scores is far below what float16 holds."""
    monkeypatch.setattr(loops.gpu, "precision", "highest")
    with loops.profile() as profile:
        check_units(loops, ((2, 2, 32, 16),) * 3, True, float16, small=1e-3)
    names = [event.kernel for event in profile.events]
    assert [name for name in names if "attention" in name or "exponents" in name] == [
        "unit_attention", "head_exponents",
        "unit_attention_gradient_query", "unit_attention_gradient_key",
    ]  # fmt: skip


def test_units_with_values_that_are_not_finite_or_large(loops: GpuBackend) -> None:
    """NaN stays in its row; magnitudes beyond float16's range do not cause it."""
    q, k, v = (normal(*shape, seed=i) for i, shape in enumerate(RAGGED))
    q *= np.float32(1e15)
    k *= np.float32(1e-15)
    v *= np.float32(1e30)
    g = normal(1, 2, 37, 5, seed=3)
    wanted = expected((q, k, v), g, True, 0.1)[0].reshape(g.shape)
    q[0, 1, 7, 3] = np.nan
    arrays = [loops.upload(a) for a in (q, k, v)]
    out, again = (run(loops, arrays, loops.upload(g), True, 0.1)[0] for _ in range(2))
    assert [list(at) for at in np.argwhere(np.isnan(out).any(-1))] == [[0, 1, 7]]
    out[0, 1, 7] = again[0, 1, 7] = wanted[0, 1, 7]
    assert np.linalg.norm(out - wanted) < UNIT_ERROR * np.linalg.norm(wanted)
    assert (again == out).all()  # the same bits twice


def test_units_leave_other_precisions_and_wide_rows_alone(
    loops: GpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size, precision in ((16, "highest"), (16, "high"), (WIDEST + 1, "medium")):
        arrays = [loops.upload(normal(1, 9, size, seed=i)) for i in range(3)]
        monkeypatch.setattr(loops.gpu, "precision", precision)
        found = run(loops, arrays, arrays[2], True, 0.3)
        with monkeypatch.context() as without:
            without.setattr(loops.gpu, "units", None)
            wanted = run(loops, arrays, arrays[2], True, 0.3)
        assert all((a == b).all() for a, b in zip(found, wanted, strict=True))


def unit_programs(one: GpuBackend, monkeypatch: pytest.MonkeyPatch) -> list[Program]:
    """The variants of a device with units and 48 KiB, for rows of all sizes."""
    monkeypatch.setattr(one.gpu, "units", MatrixUnits(UnitShape(16, 16, 16)))
    roomy = replace(one.gpu.limits, workgroup_memory=49152, workgroup_size=1024)
    monkeypatch.setattr(one.gpu, "limits", roomy)
    programs = []
    for stage, size, length in itertools.product(STAGES, (7, 64, WIDEST), (512, 500)):
        stored = stored_types(True)[float32 if length == 512 else float16]
        sizes, lengths = (size, size), (length, length)
        problem = Problem(stage, stored, sizes, lengths, 96, size > 7, True)
        variant = attention.unit_variant(one.gpu, problem, "medium")
        assert variant is not None
        programs.append(unit_attention_program(variant))
    return programs


def test_variants_on_units_of_real_devices_fit(
    one: GpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = unit_programs(one, monkeypatch)
    assert all(program.workgroup_bytes <= 49152 for program in programs)


def test_variants_on_units_of_real_devices_compile(
    one: GpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    dawn = pytest.importorskip("rumus.gpu.engine.dawn", exc_type=ModuleNotFoundError)
    for program in unit_programs(one, monkeypatch):
        directives = "".join(dawn._PREAMBLE.get(name, "") for name in program.features)
        assert not dawn.compiles(directives + program.source)
