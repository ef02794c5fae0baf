"""Reductions, orders, indices and triangles against NumPy: random shapes, ties, NaN, empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rumus import tensor as rt
from rumus.tensor import Backend, Parameter, Tensor, tensor
from rumus.tensor.graph.scan import cumsum_primitive
from rumus.tensor.graph.sorting import sort_gradient_primitive, sort_primitive
from rumus.tensor.memory.backend import Array

Real = NDArray[Any]
NAN, INF = np.nan, np.inf


def random(shape: tuple[int, ...], seed: int = 0, dtype: type = np.float32) -> Real:
    """Few distinct numbers, so that many are equal; some floats are NaN or infinite."""
    rng = np.random.default_rng(seed)
    x: Real = rng.integers(-3, 4, shape).astype(dtype)
    if dtype is np.float32:
        odd = rng.random(shape)
        x[odd < 0.08], x[odd > 0.92] = NAN, -0.0
    return x


SHAPES: Final = [(), (1,), (7,), (0,), (3, 5), (3, 0), (0, 4), (2, 3, 4), (4, 70), (3, 1030)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
@pytest.mark.parametrize("descending", [False, True])
def test_sort(shape: tuple[int, ...], dtype: type, descending: bool, backend: Backend) -> None:
    x: Real = random(shape, 1, dtype)
    for axis in range(len(shape)):
        turned = x if not descending else np.flip(x, axis)
        want = np.argsort(turned, axis, kind="stable")
        want = np.flip(shape[axis] - 1 - want, axis) if descending else want
        values, indices = tensor(x, backend=backend).sort(axis, descending)
        np.testing.assert_array_equal(indices.numpy(), want)
        np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x, want, axis))
        assert values.dtype == x.dtype
        count = min(2, shape[axis])
        top = tensor(x, backend=backend).topk(count, axis, largest=descending)
        np.testing.assert_array_equal(top[1].numpy(), np.take(want, range(count), axis))
        assert tensor(x, backend=backend).argsort(axis, descending).tolist() == want.tolist()


@pytest.mark.parametrize("length", [1023, 1024, 1025, 2048, 5000])
def test_rows_around_a_block_of_a_sort(length: int, backend: Backend) -> None:
    x: Real = np.random.default_rng(2).integers(0, length, (2, length)).astype(np.int32)
    values, indices = tensor(x, backend=backend).sort()
    np.testing.assert_array_equal(indices.numpy(), np.argsort(x, kind="stable"))
    np.testing.assert_array_equal(values.numpy(), np.sort(x))


def test_sort_of_truth_values_and_halves(backend: Backend) -> None:
    truths = tensor([True, False, True], backend=backend).sort()
    assert truths[1].tolist() == [1, 0, 2]
    halves = tensor(np.array([2, NAN, 1], np.float16), backend=backend).sort(descending=True)
    assert halves[0].dtype == np.float16
    assert halves[1].tolist() == [1, 0, 2]


def test_a_found_number_is_an_index_without_a_read() -> None:
    gpu = pytest.importorskip("rumus.gpu").default_backend()
    table = tensor(np.arange(12.0).reshape(6, 2), backend=gpu)
    scores = tensor([0.0, 5.0, 1.0, 4.0, 2.0, 3.0], backend=gpu)
    before = gpu.stats.bytes_down
    rows = rt.gather(table, scores.topk(2)[1]), table[scores.argsort()], table[scores.argmin(0)]
    assert gpu.stats.bytes_down == before
    assert rows[0].tolist() == [[2.0, 3.0], [6.0, 7.0]]
    assert rows[1][:, 0].tolist() == [0.0, 4.0, 8.0, 10.0, 6.0, 2.0]
    assert rows[2].tolist() == [0.0, 1.0]


PRIMITIVES: Final = [((3, 5), 5), ((2, 7), 3), ((4, 1), 1)]


@pytest.mark.parametrize(("shape", "count"), PRIMITIVES, ids=str)
@pytest.mark.parametrize("descending", [False, True])
def test_a_sort_is_its_decomposition(
    shape: tuple[int, int], count: int, descending: bool, backend: Backend
) -> None:
    x = backend.upload(random(shape, 5))

    def run(sort: Callable[..., None], back: Callable[..., None]) -> list[Real]:
        values = backend.allocate((shape[0], count), x.dtype)
        indices = backend.allocate((shape[0], count), np.dtype(np.int32))
        into = backend.allocate(shape, x.dtype)
        sort(x, values, indices, descending)
        back(indices, backend.upload(np.ones((shape[0], count), np.float32)), into)
        return [backend.download(array) for array in (values, indices, into)]

    fused = backend.fused("sort"), backend.fused("sort_gradient")
    assert fused[0] is not None
    assert fused[1] is not None
    found = run(*fused)  # type: ignore[arg-type]
    made = run(
        lambda *given: sort_primitive(backend, *given),
        lambda *given: sort_gradient_primitive(backend, *given),
    )
    for mine, other in zip(found, made, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 1000, 1), (3, 33, 1), (1, 1, 5)], ids=str)
def test_a_cumsum_is_its_decomposition(
    shape: tuple[int, int, int], reverse: bool, backend: Backend
) -> None:
    x: Real = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def run(function: Callable[..., None]) -> Real:
        array: Array = backend.upload(x)
        out = backend.allocate(shape, array.dtype)
        function(array, out, reverse)
        return backend.download(out)

    fused = backend.fused("cumsum")
    assert fused is not None
    primitive = run(lambda *given: cumsum_primitive(backend, *given))
    np.testing.assert_allclose(run(fused), primitive, atol=2e-4)


@pytest.mark.parametrize("shape", [*SHAPES[1:], (2, 2000, 3)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.bool_])
def test_cumsum(shape: tuple[int, ...], dtype: type, backend: Backend) -> None:
    x: Real = random(shape, 4, np.int32).astype(dtype)
    for axis in range(len(shape)):
        found = tensor(x, backend=backend).cumsum(axis)
        np.testing.assert_array_equal(found.numpy(), np.cumsum(x, axis))  # whole numbers
        assert found.dtype == (np.float32 if dtype is np.float32 else np.int32)


def test_nan_and_infinity_in_a_cumsum_stay_behind(backend: Backend) -> None:
    x: Real = np.ones((3, 700), np.float32)
    x[0, 400], x[1, 10], x[1, 600], x[2, 0] = NAN, INF, -INF, -INF
    with np.errstate(invalid="ignore"):
        want = np.cumsum(x, 1)
    np.testing.assert_array_equal(tensor(x, backend=backend).cumsum(1).numpy(), want)


REDUCTIONS: Final[dict[str, tuple[Callable[..., Tensor], Callable[..., Any]]]] = {
    "any": (Tensor.any, np.any),
    "all": (Tensor.all, np.all),
    "prod": (Tensor.prod, np.prod),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.bool_])
def test_reductions(name: str, shape: tuple[int, ...], dtype: type, backend: Backend) -> None:
    ours, theirs = REDUCTIONS[name]
    x: Real = random(shape, 7, np.float32 if dtype is np.float32 else np.int32).astype(dtype)
    if name == "prod":
        x = np.where(np.arange(x.size).reshape(shape) % 9, 1, x).astype(dtype)
    axes: list[Any] = [None, *range(len(shape)), *([(0, -1)] if len(shape) > 1 else [])]
    for axis in axes:
        want = theirs(x, axis)
        for keepdims in (False, True):
            found = ours(tensor(x, backend=backend), axis, keepdims).numpy()
            wanted = theirs(x, axis, keepdims=keepdims)
            assert found.shape == wanted.shape
            np.testing.assert_allclose(found, wanted, rtol=1e-6)
            assert want.dtype != bool or found.dtype == bool


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.bool_])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (2, 3000)], ids=str)
def test_positions(name: str, dtype: type, shape: tuple[int, ...], backend: Backend) -> None:
    x: Real = random(shape, 3, np.float32 if dtype is np.float32 else np.int32).astype(dtype)
    if dtype is np.int32:
        x.flat[-1], x.flat[-2] = -(2**31), 2**31 - 1
    for axis in (None, *range(len(shape))):
        for keepdims in (False, True):
            found = getattr(tensor(x, backend=backend), name)(axis, keepdims)
            np.testing.assert_array_equal(
                found.numpy(), getattr(np, name)(x, axis, keepdims=keepdims)
            )


def test_std_and_norm_have_no_gradient_at_a_point(backend: Backend) -> None:
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.std(1),
        lambda x: x.norm(axis=1),
        lambda x: x.norm(3, axis=1),
        lambda x: x.norm(0.5, axis=1),
    ]
    for function in functions:
        x = Parameter(np.zeros((2, 3), np.float32), backend=backend)
        assert function(x).sum().backward()[x].tolist() == [[0.0] * 3] * 2
        bad = Parameter(np.array([[NAN, 1, 2], [0, 0, 0]], np.float32), backend=backend)
        gradient = function(bad).sum().backward()[bad].numpy()
        assert np.isnan(gradient[0]).any()
        assert not gradient[1].any()


def test_a_norm_of_halves_does_not_overflow(backend: Backend) -> None:
    x = tensor(np.full(4, 300, np.float16), backend=backend)
    assert x.norm().item() == 600
    assert x.std().item() == 0


ODD: Final = [0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 0.1, 1e-30, -3e38, INF, -INF, NAN]


def quotients(a: Real, b: Real, backend: Backend) -> None:
    """Compare

    and % with NumPy's. The rest is exact; a quotient may have more digits.
    """
    x, y = tensor(a, backend=backend), tensor(b, backend=backend)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal((x % y).numpy(), a % b)
        np.testing.assert_allclose((x // y).numpy(), a // b, rtol=4e-7)


def test_quotients_of_odd_numbers(backend: Backend) -> None:
    a, b = (grid.reshape(-1) for grid in np.meshgrid(np.array(ODD, np.float32), ODD[:]))
    quotients(a, b.astype(np.float32), backend)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_quotients(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** rng.integers(-20, 20, (2, 64))
    a, b = (rng.normal(size=(2, 64)) * sizes).astype(np.float32)
    whole = rng.integers(-9, 10, (2, 64)).astype(np.int32)
    for name in ("NumpyBackend", "NumbaBackend"):
        quotients(a, b, getattr(rt, name)())
        quotients(whole[0], whole[1], getattr(rt, name)())


def test_quotients_on_every_backend(backend: Backend) -> None:
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(2, 2000)) * 10.0 ** rng.integers(-20, 20, (2, 2000))
    quotients(a.astype(np.float32), b.astype(np.float32), backend)
    whole = rng.integers(-9, 10, (2, 500)).astype(np.int32)
    quotients(whole[0], whole[1], backend)
    x = tensor([7.0, -7.0], backend=backend)
    assert (x // 2).tolist() == [3.0, -4.0]
    assert (20 // x).tolist() == [2.0, -3.0]
    assert (x % -3).tolist() == [-2.0, -1.0]
    assert (20 % x).tolist() == [6.0, -1.0]
    assert (tensor([1.5, -1.5], backend=backend).floor()).tolist() == [1.0, -2.0]
    assert rt.ceil(tensor([1.5, -1.5, NAN], backend=backend)).tolist()[:2] == [2.0, -1.0]


INDICES: Final[dict[str, Any]] = {
    "behind a slice": (slice(None), [0, 2, 0]),
    "behind ...": (..., [3, -1]),
    "with a number": (0, slice(None), [1, 2]),
    "two behind a slice": (slice(None), [0, 1], [1, -2]),
    "around a slice": ([0, 1], slice(None), [1, 2]),
    "behind a new axis": (None, slice(None), [0, 1]),
    "in front of a slice backwards": (slice(None), [[0], [2]], slice(None, None, -2)),
    "a broadcast pair": ([[0], [1]], [0, 2, 1]),
    "nothing": (slice(None), []),
    "an array": (slice(0, 1), np.array([2, 1])),
    "a mask behind": (slice(None), np.array([True, False, True])),
    "a mask behind ...": (..., np.array([True, False, True, True])),
    "a mask of two axes": (slice(None), np.arange(12).reshape(3, 4) % 2 == 0),
    "a mask that is nowhere true": (np.zeros((2, 3), bool),),
    "a mask and a list": (np.array([True, True]), [0, 2]),
}


@pytest.mark.parametrize("name", INDICES)
def test_indices_are_those_of_numpy(name: str, backend: Backend) -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    found = tensor(x, backend=backend)[INDICES[name]].numpy()
    want = x[INDICES[name]]
    assert found.shape == want.shape
    np.testing.assert_array_equal(found, want)


def test_a_mask_on_a_device_says_what_to_write(backend: Backend) -> None:
    x = tensor([[1.0, -2.0], [3.0, -4.0]], backend=backend)
    mask = x > 0
    host = mask.numpy()
    if backend.runs_ahead:
        with pytest.raises(
            TypeError, match=r"write where\(mask, x, 0.0\).* or x\[mask.numpy\(\)\]"
        ):
            x[mask]
    else:
        assert x[mask].tolist() == [1.0, 3.0]
    assert x[host].tolist() == [1.0, 3.0]


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.bool_, np.float16])
def test_triangles(dtype: type, backend: Backend) -> None:
    for shape in ((3, 4), (2, 4, 3), (0, 3), (1, 1)):
        x: Real = (np.arange(np.prod(shape)).reshape(shape) + 1).astype(dtype)
        for diagonal in (-2, 0, 1, 9):
            for ours, theirs in ((rt.tril, np.tril), (rt.triu, np.triu)):
                found = ours(tensor(x, backend=backend), diagonal)
                np.testing.assert_array_equal(found.numpy(), theirs(x, diagonal))
                assert found.dtype == x.dtype
    hidden = tensor(np.full((2, 2), NAN, np.float32), backend=backend)
    assert rt.tril(hidden, -2).tolist() == [[0.0, 0.0], [0.0, 0.0]]


EINSUMS: Final[list[tuple[str, list[tuple[int, ...]]]]] = [
    ("ij,jk->ik", [(2, 3), (3, 4)]),
    ("ii", [(3, 3)]),
    ("ii->i", [(3, 3)]),
    ("iji->j", [(3, 4, 3)]),
    ("i,j", [(3,), (4,)]),
    ("...ij,...jk->...ik", [(5, 1, 2, 3), (6, 3, 4)]),
    ("ba", [(2, 3)]),
    ("ij,kj->", [(2, 3), (4, 3)]),
    ("ab,bc,cd,de->ae", [(2, 3), (3, 4), (4, 5), (5, 2)]),
    ("ab,b,b->a", [(2, 3), (3,), (3,)]),
    ("i...->...", [(3, 2, 2)]),
    ("ij,j->i", [(2, 0), (0,)]),
    ("ij,jk->ik", [(2, 1), (5, 4)]),
    (" bn , anm, bm -> ba ", [(2, 3), (4, 3, 5), (2, 5)]),
]


@pytest.mark.parametrize(("subscripts", "shapes"), EINSUMS, ids=lambda case: str(case))
def test_einsum(subscripts: str, shapes: list[tuple[int, ...]], backend: Backend) -> None:
    rng = np.random.default_rng(4)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    found = rt.einsum(subscripts, *(tensor(array, backend=backend) for array in arrays)).numpy()
    want = np.einsum(subscripts, *arrays)
    assert found.shape == want.shape
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
    whole = [rng.integers(-5, 5, shape).astype(np.int32) for shape in shapes]
    exact = rt.einsum(subscripts, *(tensor(array, backend=backend) for array in whole))
    np.testing.assert_array_equal(exact.numpy(), np.einsum(subscripts, *whole))
