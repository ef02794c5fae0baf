"""Kernels on arrays: blocks, threads, compiled loops, layouts, and outputs that replace inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.tensor import (
    Backend,
    DType,
    Expr,
    Kernel,
    NumpyBackend,
    Tensor,
    elementwise,
    float32,
    tensor,
    where,
)
from rumus.tensor.compiled.shared_work import BLOCK, PARALLEL, blocks
from rumus.tensor.memory.backend import Array

Real = NDArray[Any]
A, B, C, S = Expr.array("a"), Expr.array("b"), Expr.array("c"), Expr.scalar("s")
RNG = np.random.default_rng(1)

# Without transcendental functions, so that numba compiles all of them.
KERNELS = {
    "chain": Kernel("chain", {"out": (A * S + B) / (1 + abs(C)) - A.relu()}, ("a", "b", "c")),
    "choice": Kernel("choice", {"out": (A < B).where(C.sign() * A, B * 2)}, ("a", "b", "c")),
    "extremes": Kernel("extremes", {"out": A.maximum(B).minimum(C) + S}, ("a", "b", "c")),
    "root": Kernel("root", {"out": abs(A).sqrt() * B - C}, ("a", "b", "c")),
    "masks": Kernel("masks", {"out": (A < B) & (B <= C)}, ("a", "b", "c")),
    "sum of masks": Kernel("count", {"out": (A < B) + (B < C) * S}, ("a", "b", "c")),
    "infinite constant": Kernel("lim", {"out": (A < B).where(A * C, np.inf)}, ("a", "b", "c")),
    "transcendental": Kernel("exp", {"out": (A * B).tanh() + C.exp()}, ("a", "b", "c")),
}


def run(backend: Backend, kernel: Kernel, *arrays: Real, s: float = 0.3) -> Real:
    return run_there(backend, kernel, *(backend.upload(array) for array in arrays), s=s)


def run_there(backend: Backend, kernel: Kernel, *arrays: Array, s: float = 0.3) -> Real:
    """The kernel on arrays of the backend."""
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    (result,) = kernel.types(tuple(array.dtype for array in arrays)).results
    out = backend.allocate(shape, result)
    backend.elementwise(kernel, arrays, kernel.bind({"s": s}), (out,))
    return backend.download(out)


def by_rows(kernel: Kernel, *arrays: Real, s: float = 0.3) -> Real:
    """The same kernel on pieces small enough for the simplest path."""
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    full = [np.broadcast_to(array, shape).reshape(-1) for array in arrays]
    size = full[0].size
    cuts = [slice(i, i + 1000) for i in range(0, size, 1000)]
    parts = [run(NumpyBackend(), kernel, *(f[cut].copy() for f in full), s=s) for cut in cuts]
    return np.concatenate(parts).reshape(shape)


def close(found: Real, expected: Real) -> None:
    """Equal except in the last place: a compiled loop has its own functions."""
    assert found.dtype == expected.dtype
    tolerance = 0 if found.dtype.kind != "f" else 4 * float(np.finfo(found.dtype).eps)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


LARGE = PARALLEL + 3


@pytest.mark.parametrize("precision", ["float32", "widest"])
@pytest.mark.parametrize("name", KERNELS)
def test_a_large_flat_kernel_is_its_pieces(
    name: str, precision: str, backend: Backend, widest: DType
) -> None:
    dtype = widest if precision == "widest" else np.dtype(np.float32)
    arrays: list[Real] = [RNG.normal(size=LARGE).astype(dtype) for _ in range(3)]
    for array, odd in zip(arrays, (np.nan, np.inf, 0.0), strict=True):
        array[::1001] = odd
    close(run(backend, KERNELS[name], *arrays), by_rows(KERNELS[name], *arrays))


@pytest.mark.parametrize("pieces", [2, 4, 16])
def test_arithmetic_on_a_part_of_an_array_has_the_same_bits(pieces: int, backend: Backend) -> None:
    """The result for an element does not depend on how long the arrays are."""
    p, g, m, v = map(Expr.array, "pgmv")
    lr = Expr.scalar("lr")
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    outputs = {"p": p - lr * m / (v.sqrt() + 1e-8) - lr * 0.01 * p, "m": m, "v": v}
    kernel = Kernel("step", outputs, ("p", "g", "m", "v"))
    size = 4 * 16384
    host = [np.abs(RNG.normal(size=size)).astype(np.float32) for _ in range(4)]

    def stepped(count: int) -> list[Real]:
        p, g, m, v = map(backend.upload, host)
        for start in range(0, size, size // count):
            part = [array[start : start + size // count] for array in (p, g, m, v)]
            out = [part[0], part[2], part[3]]
            backend.elementwise(kernel, part, kernel.bind({"lr": 0.1}), out)
        return [backend.download(array) for array in (p, m, v)]

    for whole, parts in zip(stepped(1), stepped(pieces), strict=True):
        np.testing.assert_array_equal(whole, parts)


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, PARALLEL - 1, PARALLEL, LARGE])
def test_sizes_around_the_limits(size: int, backend: Backend) -> None:
    arrays = [RNG.normal(size=size).astype(np.float32) for _ in range(3)]
    close(run(backend, KERNELS["chain"], *arrays), by_rows(KERNELS["chain"], *arrays))


LAYOUTS = {
    "row": ((700, 500), (500,), ()),
    "column": ((700, 500), (700, 1), (1, 1)),
    "outer": ((700, 1), (1, 500), (700, 500)),
    "batches": ((3, 400, 300), (400, 1), (3, 1, 1)),
    "long rows": ((2, 200_000), (2, 1), (200_000,)),
    "many short rows": ((150_000, 2), (2,), (150_000, 1)),
}


@pytest.mark.parametrize("shapes", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("name", ["chain", "choice"])
def test_broadcast_layouts(name: str, shapes: Any, backend: Backend) -> None:
    arrays: list[Real] = [np.asarray(RNG.normal(size=shape), np.float32) for shape in shapes]
    close(run(backend, KERNELS[name], *arrays), by_rows(KERNELS[name], *arrays))


def test_views_that_are_not_contiguous(backend: Backend) -> None:
    host = RNG.normal(size=(600, 1200)).astype(np.float32)

    def views(whole: Array) -> tuple[Array, ...]:
        turned = whole.transpose((1, 0))
        return whole[:, ::2], whole[::-1, 600:], turned[:600].transpose((1, 0))

    found = run_there(backend, KERNELS["chain"], *views(backend.upload(host)))
    close(found, by_rows(KERNELS["chain"], *views(host)))


def test_blocks_cover_a_shape_once() -> None:
    for shape in [(7,), (3, 5), (2, 3, 4), (1, 9, 1), ()]:
        for limit in (1, 2, 5, 12, 100):
            count = np.zeros(shape, int)
            for cut in blocks(shape, limit):
                assert count[cut].size <= limit
                count[cut] += 1
            assert (count == 1).all()


# Outputs that replace inputs. Each value must be computed from the original inputs.
IN_PLACE = {
    "update": {"a": A * S + B, "b": B * 0.5 + C},
    "swap": {"a": B, "b": A},
    "rotate": {"a": B, "b": C, "c": A},
    "keep the old": {"a": A * S + B * C, "b": A},
    "choice keeps itself": {"a": (B < C).where(A, B)},
    "choice of the other": {"a": (B < C).where(B * 2, A)},
    "read after replaced": {"a": A + B, "b": A * B, "c": A - C},
    "all the same": {"a": A * S + 1, "b": A * S + 1, "c": A * S + 1},
    "scalar": {"a": S * 2, "b": A + 1.0, "c": Expr.constant(3)},
    "functions": {"a": A.sigmoid() + B.softplus(), "b": B.erf() * A.tanh()},
    "new": {"fresh": A + B * C, "a": A - B * C},
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("size", [5, 20_000, BLOCK + 7, LARGE])
@pytest.mark.parametrize("case", IN_PLACE)
def test_outputs_that_replace_inputs(case: str, size: int, dtype: type, backend: Backend) -> None:
    outputs = IN_PLACE[case]
    kernel = Kernel(case, outputs, ("a", "b", "c"))
    hosts: dict[str, Real] = {name: RNG.normal(size=size).astype(dtype) for name in "abc"}
    arrays = {name: backend.upload(host) for name, host in hosts.items()}
    scalars = kernel.bind({"s": 0.3})
    expected: dict[str, Real] = {}
    for name, output in outputs.items():
        alone = Kernel(name, {"result": output}, ("a", "b", "c"))
        result = backend.allocate((size,), np.dtype(dtype))
        backend.elementwise(alone, list(arrays.values()), alone.bind({"s": 0.3}), (result,))
        expected[name] = backend.download(result)
    fresh = backend.allocate((size,), np.dtype(dtype))
    out = [arrays.get(name, fresh) for name in outputs]
    backend.elementwise(kernel, list(arrays.values()), scalars, out)
    for name, found in zip(outputs, out, strict=True):
        close(backend.download(found), expected[name])


def test_a_replaced_array_may_be_given_as_another_view(backend: Backend) -> None:
    a, b = (RNG.normal(size=1000).astype(np.float32) for _ in range(2))
    there = backend.upload(a)
    kernel = Kernel("smaller", {"a": (A < B).where(A, B)}, ("a", "b"))
    backend.elementwise(kernel, (there, backend.upload(b)), (), (there[:],))
    np.testing.assert_array_equal(backend.download(there), np.where(a < b, a, b))


def test_replaced_arrays_in_blocks_with_a_broadcast_input(backend: Backend) -> None:
    a, b = RNG.normal(size=(600, 500)).astype(np.float32), np.ones(500, np.float32)
    there = backend.upload(a)
    kernel = Kernel("smaller", {"a": (A < B).where(A, B * 2)}, ("a", "b"))
    backend.elementwise(kernel, (there, backend.upload(b)), (), (there,))
    np.testing.assert_array_equal(backend.download(there), np.where(a < b, a, b * 2))


MASKS: Mapping[str, Callable[[Any, Any], Any]] = {
    "sum": lambda x, y: (x < y) + (y < 0),
    "difference": lambda x, y: (x < y) - (y < 0),
    "exp": lambda x, y: (x < y).exp() * x,
    "sqrt": lambda x, y: (x < y).sqrt() + y,
    "choice of masks": lambda x, y: where(x < y, y < 0, x < 0),
    "negation": lambda x, y: (~(x < y)) * y,
    "mean of masks": lambda x, y: ((x < y) + (y < 0)) * 0.5,
}


@pytest.mark.parametrize("size", [6, 40_000])
@pytest.mark.parametrize("case", MASKS)
def test_masks_inside_a_kernel_count_as_0_and_1(case: str, size: int, backend: Backend) -> None:
    function = MASKS[case]
    x, y = (RNG.normal(size=size).astype(np.float32) for _ in range(2))

    def below(a: Real, b: Real | float) -> Real:
        return (a < b).astype(np.float32)

    expected: Real = {
        "sum": below(x, y) + below(y, 0),
        "difference": below(x, y) - below(y, 0),
        "exp": np.exp(below(x, y)) * x,
        "sqrt": np.sqrt(below(x, y)) + y,
        "choice of masks": np.where(x < y, y < 0, x < 0),
        "negation": (1 - below(x, y)) * y,
        "mean of masks": (below(x, y) + below(y, 0)) / 2,
    }[case]
    result = elementwise(function)(tensor(x, backend=backend), tensor(y, backend=backend))
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)


def test_array_names_cannot_collide_with_generated_ones(backend: Backend) -> None:
    @elementwise
    def clash(i: Any, t0: Any, s0: Any, zero: Any, *, loop: float) -> Any:
        return (i + t0) * s0.relu() - zero * loop

    values = [np.full(40_000, v, np.float32) for v in (1, 2, 3, 4)]
    result = clash(*(tensor(v, backend=backend) for v in values), loop=0.5)
    assert set(result.tolist()) == {7.0}


def test_a_scalar_beyond_float32_is_infinite(backend: Backend) -> None:
    scale: Callable[..., Tensor] = elementwise(lambda x, *, by: x * by + 1.0)
    large = tensor(np.ones(40_000, np.float32), backend=backend)
    assert scale(large, by=1e300).numpy()[0] == np.inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [7, BLOCK + 9])
def test_numbers_become_arrays_of_the_same_bits(size: int, dtype: type) -> None:
    backend = NumpyBackend()
    kernel = Kernel("mixed", {"out": (A * S + 0.1).maximum(-1e300) - 3 * (A < S).where(A, 0.0)})
    x: Real = RNG.standard_normal(size).astype(dtype)
    x[:5] = 0.0, -0.0, np.nan, np.inf, 1e-45
    for s in (0.3, -0.0, 1e-45, 1e300, np.nan):
        found = run(backend, kernel, x, s=s)
        with np.errstate(all="ignore"):
            chosen = np.where(x < s, x, dtype(0))
            expected = np.maximum(x * s + 0.1, -1e300) - 3 * chosen
        assert found.dtype == expected.dtype == dtype
        assert found.tobytes() == expected.tobytes(), s
        looped = backend.prepared(kernel, (x,), (out := np.empty_like(x),))
        looped(kernel.bind({"s": s}))
        assert out.tobytes() == expected.tobytes(), s


def test_numpy_numbers_as_scalars_change_nothing(backend: Backend) -> None:
    x = tensor(RNG.normal(size=100), backend=backend)
    scale: Callable[..., Tensor] = elementwise(lambda x, *, by: x * by / 3.0)
    assert (scale(x, by=np.float64(0.1)).numpy() == scale(x, by=0.1).numpy()).all()
    assert ((x * np.float64(0.1)).numpy() == (x * 0.1).numpy()).all()


@pytest.mark.parametrize("name", [n for n in KERNELS if n != "transcendental"])
def test_numba_compiles_what_it_can(name: str) -> None:
    from rumus.tensor.compiled.numba_loops import numba_source

    kernel = KERNELS[name]
    assert "for " in numba_source(kernel)


if find_spec("numba") is not None:

    def test_numba_took_the_compiled_loop() -> None:
        from rumus.tensor import NumbaBackend

        backend = NumbaBackend()
        arrays = [RNG.normal(size=20_000).astype(np.float32) for _ in range(3)]
        run(backend, KERNELS["chain"], *arrays)
        assert len(backend._loops) == 1
        run(backend, KERNELS["transcendental"], *(a.astype(np.float64) for a in arrays))
        assert len(backend._loops) == 1  # float64 has no vector functions: NumPy's are faster
        run(backend, KERNELS["transcendental"], *arrays)
        assert len(backend._loops) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_large_array_is_searched_for_non_finite_values(
    backend: Backend, widest: DType, bad: float
) -> None:
    for dtype in {float32, widest}:
        largest = np.finfo(dtype).max
        array = np.full(2 * PARALLEL + 5, largest, dtype)
        array[::3], array[1::7] = -largest, 0.0
        assert backend.first_not_finite(backend.upload(array)) is None
        array[-1] = bad
        assert backend.first_not_finite(backend.upload(array)) == array.size - 1
        array[7] = bad
        assert backend.first_not_finite(backend.upload(array)) == 7


@pytest.mark.parametrize("s", [2.0, 0.5])
def test_a_choice_that_a_scalar_makes(backend: Backend, s: float) -> None:
    """Either operand, whether it is an array, one value for all, or a number."""
    a, one = np.array([np.nan, -0.0, 3.0], np.float32), np.array(7.0, np.float32)
    for first, second in ((A, B), (B, A), (A, Expr.constant(2.5)), (Expr.constant(2.5), A)):
        kernel = Kernel("choice", {"out": where(S > 1, first, second) * 1.0}, ("a", "b"))
        values = {id(A): a, id(B): np.full(3, one)}
        chosen = values.get(id(first if s > 1 else second), np.full(3, 2.5, np.float32))
        out = backend.allocate((3,), float32)
        arrays = (backend.upload(a), backend.upload(one))
        backend.elementwise(kernel, arrays, kernel.bind({"s": s}), (out,))
        np.testing.assert_array_equal(backend.download(out), chosen)


def test_an_output_that_replaces_an_input_holds_intermediates() -> None:
    """Two averages in place need one extra array; unread inputs are not overwritten."""
    m, v, g = (Expr.array(name) for name in "mvg")
    averages = {"m": m * 0.5 + g * 0.25, "v": v * 0.5 + g * g * 0.25}
    kernel = Kernel(
        "averages", {**averages, "g": g / (averages["v"].sqrt() + 1.0)}, ("m", "v", "g")
    )
    numpy = NumpyBackend()
    assert len(numpy.program(kernel, (float32,) * 3).scratch) == 1
    given = [np.linspace(1, 2, 50, dtype=np.float32) + k for k in range(3)]
    before = [array.astype(np.float64) for array in given]
    numpy.elementwise(kernel, given, (), given)
    mean, square = before[0] / 2 + before[2] / 4, before[1] / 2 + before[2] ** 2 / 4
    for found, expected in zip(
        given, (mean, square, before[2] / (np.sqrt(square) + 1)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
