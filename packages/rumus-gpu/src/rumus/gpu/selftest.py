"""Checks of every family of kernels against NumPy, on this machine's GPU.

A check is a program that runs on any backend and returns arrays; the GPU's must match NumPy's.
`python -m rumus.gpu` prints the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.gpu.backend import GpuBackend
from rumus.tensor import (
    Backend,
    DType,
    Expr,
    Kernel,
    NumpyBackend,
    Parameter,
    Tensor,
    avg_pool,
    batch_norm,
    convolution,
    convolution_transpose,
    cos,
    cross_entropy,
    erf,
    float16,
    float32,
    gather,
    int32,
    layer_norm,
    linear,
    max_pool,
    rms_norm,
    scaled_dot_product_attention,
    sin,
    softplus,
    tensor,
)
from rumus.tensor.memory.section import Section

Real: TypeAlias = NDArray[Any]
Program: TypeAlias = Callable[[Backend], Sequence[Real]]


@dataclass(frozen=True, slots=True)
class Check:
    """A program, and the largest |a - b| / (1 + |b|) allowed between its results and NumPy's."""

    program: Program
    tolerance: float


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check. error: the largest; message: the exception's, if one was raised."""

    name: str
    error: float
    tolerance: float
    message: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether the check passed."""
        return not self.message and self.error <= self.tolerance

    def __str__(self) -> str:
        result = "ok" if self.is_ok else f"FAILED{f': {self.message}' if self.message else ''}"
        return f"{self.name:24} {self.error:8.1e}  {result}"


def _normal(*shape: int, seed: int = 0) -> Real:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _with_gradients(
    function: Callable[..., Tensor],
    *shapes: tuple[int, ...],
    backend: Backend,
    dtype: DType = float32,
) -> Sequence[Real]:
    """A function's result for random parameters, and their gradients."""
    operands = [
        Parameter(_normal(*shape, seed=i), dtype=dtype, backend=backend)
        for i, shape in enumerate(shapes)
    ]
    result = function(*operands)
    weights = np.cos(np.arange(result.size, dtype=np.float32)).reshape(result.shape)
    grads = (result * tensor(weights, dtype=dtype, backend=backend)).sum().backward()
    return [result.numpy(), *(grads[operand].numpy() for operand in operands)]


def _elementwise(backend: Backend) -> Sequence[Real]:
    x = tensor(2 * _normal(5, 1001), backend=backend)
    y = tensor(_normal(1001, seed=1), backend=backend)
    odd = tensor([float("nan"), float("inf"), -float("inf"), -0.0, 3e38], backend=backend)
    results = [x + y, x * y - 2.0, x / (y.abs() + 1.0), x.maximum(y), (x > y).where(x, y)]
    results += [x.exp(), x.abs().log1p(), x.tanh(), x.sigmoid(), softplus(x), erf(x)]
    results += [sin(x), cos(x), (x.abs() + 0.1) ** 1.5, (x.abs() + 0.1).log(), x.abs().sqrt()]
    results += [odd.relu(), odd.maximum(0.0), odd.minimum(0.0), odd.sigmoid(), odd.tanh()]
    return [result.numpy() for result in results]


def _copies(backend: Backend) -> Sequence[Real]:
    x = tensor(_normal(7, 33, 20), backend=backend)
    views = [x.permute(2, 0, 1), x[1:, ::-2, 3], x[:, None, 5].broadcast_to((7, 4, 20))]
    casts = [(x * 9.0).astype(dtype) for dtype in (np.float16, np.int32, np.bool_)]
    return [view.clone().numpy() for view in (*views, *casts)]


def _reductions(backend: Backend) -> Sequence[Real]:
    results: list[Tensor] = []
    for shape in ((300_001,), (70_000, 3), (3, 40_000), (5, 70, 9)):
        x = tensor(_normal(*shape) + 1, backend=backend)
        results += [x.sum(), x.sum(-1), x.sum(0), x.max(-1), x.min(0), x.argmax(-1)]
    return [result.numpy() for result in results]


def _products(dtype: DType, backend: Backend) -> Sequence[Real]:
    results: list[Real] = []
    for rows, depth, columns in ((33, 65, 17), (10, 512, 40), (256, 192, 320), (40, 2048, 36)):
        shapes = (rows, depth), (columns, depth), (columns,)
        results += _with_gradients(linear, *shapes, backend=backend, dtype=dtype)
    batches = (3, 20, 30), (2, 1, 30, 25)
    more = _with_gradients(lambda a, b: a @ b, *batches, backend=backend, dtype=dtype)
    return [*results, *more]


def _gather(backend: Backend) -> Sequence[Real]:
    table = tensor(_normal(50, 12), backend=backend)
    index = np.random.default_rng(1).integers(0, 50, (20, 30)).astype(np.int32)
    return [gather(table, tensor(index, backend=backend)).numpy()]


def _scatter_add(backend: Backend) -> Sequence[Real]:
    index = np.random.default_rng(1).integers(0, 50, 600).astype(np.int32)
    out = backend.upload(_normal(50, 12))
    source = backend.upload(_normal(600, 12, seed=1))
    backend.scatter_add(source, backend.upload(index), out)
    return [backend.download(out)]


def _rows(function: Callable[[Tensor], Tensor], backend: Backend) -> Sequence[Real]:
    """A function of narrow rows, wide rows, and more rows than a grid's dimension holds."""
    found: list[Real] = []
    for shape in ((130, 10), (5, 600), (3, 5000), (70_000, 4)):
        found += _with_gradients(function, shape, backend=backend)
    return found


def _cross_entropy(x: Tensor) -> Tensor:
    targets = np.arange(x.shape[0], dtype=np.int32) % x.shape[1]
    return cross_entropy(x, tensor(targets, backend=x.backend))


def _norms(dtype: DType, backend: Backend) -> Sequence[Real]:
    found: list[Real] = []
    for rows, columns in ((130, 10), (5, 600), (300, 64)):
        shapes = (rows, columns), (columns,), (columns,)
        found += _with_gradients(layer_norm, *shapes, backend=backend, dtype=dtype)
        found += _with_gradients(rms_norm, *shapes[:2], backend=backend, dtype=dtype)
    return found


def _batch_norm(backend: Backend) -> Sequence[Real]:
    """Images whose pixel count is a multiple of 4 or not, and plain rows."""
    found: list[Real] = []
    for shape in ((9, 5, 16, 12), (30, 3, 7, 5), (300, 70)):
        sizes = shape, shape[1:2], shape[1:2]
        found += _with_gradients(lambda *a: batch_norm(*a)[0], *sizes, backend=backend)
    return found


def _pools(backend: Backend) -> Sequence[Real]:
    """Windows that overlap, leave gaps, and extend beyond the edge."""
    found: list[Real] = []
    for sizes in ((2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1)):
        kernel, stride, padding = sizes
        for pool in (max_pool, avg_pool):
            pooled = partial(pool, kernel=kernel, stride=stride, padding=padding)
            found += _with_gradients(pooled, (3, 4, 13, 10), backend=backend)
    return found


def _attention(dtype: DType, backend: Backend) -> Sequence[Real]:
    """Causal heads of a multiple of 4 elements; heads of odd sizes that share keys and values."""
    causal = partial(scaled_dot_product_attention, causal=True)
    found = _with_gradients(causal, *[(2, 3, 70, 20)] * 3, backend=backend, dtype=dtype)
    shapes = (4, 37, 7), (2, 45, 7), (2, 45, 5)
    shared = _with_gradients(scaled_dot_product_attention, *shapes, backend=backend, dtype=dtype)
    return [*found, *shared]


def _convolutions(dtype: DType, backend: Backend) -> Sequence[Real]:
    """Grouped with a stride, plain, 1 x 1, transposed, and depthwise."""
    run = partial(_with_gradients, backend=backend, dtype=dtype)
    strided = partial(convolution, stride=2, padding=1, dilation=(1, 2), groups=2)
    back = partial(convolution_transpose, stride=2, padding=1)
    single = partial(convolution, padding=1, groups=6)
    found = [*run(strided, (3, 6, 21, 17), (10, 3, 3, 2), (10,))]
    found += run(partial(convolution, padding=1), (4, 12, 16, 16), (70, 12, 3, 3))
    found += run(convolution, (3, 8, 6, 6), (5, 8, 1, 1))
    found += run(back, (2, 5, 9, 8), (5, 7, 4, 4))
    return [*found, *run(single, (2, 6, 15, 13), (6, 1, 3, 3))]


def _random_words(backend: Backend) -> Sequence[Real]:
    out = backend.allocate((10_001,), int32)
    backend.random_words(123456789 << 32 | 42, 2**34 - 8, out)
    return [backend.download(out)]


def _momentum() -> Kernel:
    p, g, m, lr = Expr.array("p"), Expr.array("g"), Expr.array("m"), Expr.scalar("lr")
    moved = 0.9 * m + g
    return Kernel("momentum", {"p": p - lr * moved, "m": moved}, ("p", "g", "m"))


def _update(backend: Backend) -> Sequence[Real]:
    """Three optimizer steps; an infinite gradient makes the device refuse the second."""
    arrays = {"p": backend.upload(_normal(4096)), "m": backend.upload(np.zeros(4096, np.float32))}
    gradients = backend.upload(_normal(4096, seed=1))
    bad = backend.upload(np.where(np.arange(4096) == 4000, np.inf, 1).astype(np.float32))
    section = Section(backend, arrays, gradients, (0,))
    updater = backend.updater(_momentum(), [section], [0], "skip")
    for gradient in (gradients, bad, gradients):
        updater.prepare([0], [gradient], lambda number, steps: ((0.1 * t,) for t in steps))
        updater.commit()
    updater.poll(wait=True)
    applied = np.array(updater.counts)
    return [applied, *(backend.download(array) for array in arrays.values())]


HALF: Final = 2e-3  # float16 has 11 significant bits, and each side rounds on its own

CHECKS: Final[Mapping[str, Check]] = {
    "elementwise": Check(_elementwise, 2e-5),
    "copy": Check(_copies, 0.0),
    "reduce": Check(_reductions, 2e-5),
    "matmul": Check(partial(_products, float32), 2e-4),  # elements are sums of up to 2048 products
    "matmul, float16": Check(partial(_products, float16), HALF),
    "gather": Check(_gather, 0.0),
    "scatter_add": Check(_scatter_add, 1e-5),
    "softmax": Check(partial(_rows, lambda x: x.softmax()), 1e-5),
    "log_softmax": Check(partial(_rows, lambda x: x.log_softmax()), 1e-5),
    "cross_entropy": Check(partial(_rows, _cross_entropy), 1e-5),
    "layer_norm, rms_norm": Check(partial(_norms, float32), 2e-5),
    "norms, float16": Check(partial(_norms, float16), HALF),
    "batch_norm": Check(_batch_norm, 2e-5),
    "max_pool, avg_pool": Check(_pools, 1e-5),
    "attention": Check(partial(_attention, float32), 2e-5),
    "attention, float16": Check(partial(_attention, float16), HALF),
    "convolution": Check(partial(_convolutions, float32), 1e-4),
    # NumPy rounds after each tap of a transposed convolution.
    "convolution, float16": Check(partial(_convolutions, float16), 2 * HALF),
    "random words": Check(_random_words, 0.0),
    "optimizer update": Check(_update, 1e-6),
}


def difference(found: Real, wanted: Real) -> float:
    """Return the largest |a - b| / (1 + |b|); infinite if a NaN or infinity has no match.

    >>> difference(np.array([1.0, np.nan]), np.array([1.5, np.nan]))
    0.2
    >>> difference(np.array([np.nan]), np.array([0.0]))
    inf
    """
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return float("inf")
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    is_same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        error = np.where(is_same, 0.0, np.abs(a - b) / (1 + np.abs(b)))
    return float(np.nan_to_num(error, nan=np.inf).max(initial=0.0))


def self_test(backend: GpuBackend) -> Iterator[CheckResult]:
    """Run every check on `backend` and on NumPy."""
    reference = NumpyBackend()
    for name, check in CHECKS.items():
        try:
            pairs = zip(check.program(backend), check.program(reference), strict=True)
            error = max(difference(found, wanted) for found, wanted in pairs)
        except Exception as raised:  # one broken family must not hide the others' results
            lines = str(raised).splitlines() or [""]
            yield CheckResult(
                name, float("inf"), check.tolerance, f"{type(raised).__name__}: {lines[0]}"
            )
        else:
            yield CheckResult(name, error, check.tolerance)
