"""The extra work of a product, on every backend, against separate steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.tensor import Backend, Kernel, NumpyBackend, float16, float32
from rumus.tensor.expression.kernel import trace
from rumus.tensor.memory.backend import Epilogue

KERNELS: dict[str, Kernel] = {
    "in place": trace(lambda x: {"x": x.relu()}, "in_place"),
    "residual and scalar": trace(lambda x, r, *, s: {"x": s * x.tanh() + r}, "residual"),
    "kept": trace(lambda x: {"y": x.sigmoid()}, "kept"),
    "two more": trace(lambda x, r: {"d": x * r, "x": x + r, "e": x - r}, "two_more"),
    "of truth values": trace(lambda x, r: {"x": (x < r).where(x, r)}, "masked"),
}
# rows, depth, columns; the result's memory: its own, or part of a larger one that is not dense
SHAPES = [(5, 7, 3), (33, 40, 36), (1, 70, 4), (4, 0, 3), (0, 3, 2)]


def run(
    backend: Backend, kernel: Kernel, shape: tuple[int, int, int], dtype: Any, layout: str
) -> list[NDArray[Any]]:
    """The product, its sums, and the kernel's other outputs."""
    rows, depth, columns = shape
    normal = np.random.default_rng(3).standard_normal
    a, b, bias, other = (
        normal(of).astype(dtype)
        for of in [(depth, rows), (depth, columns), (columns,), (rows, columns)]
    )
    out = backend.allocate((rows, 2 * columns), np.dtype(dtype))[:, :columns]
    if layout == "own":
        out = backend.allocate((rows, columns), np.dtype(dtype))
    sums = backend.allocate((rows,), np.dtype(dtype))
    read = [backend.upload(other)] if len(kernel.arrays) == 2 else []
    count = len(kernel.outputs) - (kernel.arrays[0] in kernel.outputs)
    more = [backend.allocate((rows, columns), np.dtype(dtype)) for _ in range(count)]
    epilogue = Epilogue(kernel, read, kernel.bind({"s": 0.3}), more)
    left = backend.upload(a).transpose(1, 0)
    backend.matmul(left, backend.upload(b), out, backend.upload(bias), sums=sums, epilogue=epilogue)
    return [backend.download(array) for array in (out, sums, *more)]


@pytest.mark.parametrize("layout", ["own", "part"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_equals_the_steps(
    name: str, shape: tuple[int, int, int], layout: str, backend: Backend
) -> None:
    kernel = KERNELS[name]
    expected = run(NumpyBackend(), kernel, shape, np.float64, "own")
    for got, exact in zip(run(backend, kernel, shape, float32, layout), expected, strict=True):
        np.testing.assert_allclose(got, exact, rtol=2e-5, atol=2e-5)


def test_half(backend: Backend) -> None:
    kernel = KERNELS["two more"]
    expected = run(NumpyBackend(), kernel, (33, 40, 36), np.float64, "own")
    for got, exact in zip(
        run(backend, kernel, (33, 40, 36), float16, "own"), expected, strict=True
    ):
        np.testing.assert_allclose(got, exact, rtol=1e-2, atol=5e-2)


def test_what_is_read_may_be_a_broadcast(backend: Backend) -> None:
    a, row = np.eye(3, dtype=np.float32), np.array([1, 2, 3], np.float32)
    x, out = backend.upload(a), backend.allocate((3, 3), float32)
    kernel = trace(lambda x, r: {"x": x * r}, "scaled")
    backend.matmul(x, x, out, epilogue=Epilogue(kernel, [backend.upload(row)]))
    np.testing.assert_array_equal(backend.download(out), np.diag(row))
