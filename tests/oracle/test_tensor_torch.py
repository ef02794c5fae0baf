"""Functions of rumus.tensor, values and gradients, with PyTorch on the CPU as the referee."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rumus import tensor as rt
from rumus.tensor import Parameter, Tensor, tensor

Shapes: TypeAlias = Sequence[tuple[int, ...]]
Function: TypeAlias = Callable[..., Any]

INDEX = [2, 0, 0, 1]


def without(x: Any) -> Any:
    """A matrix with a zero in its second row, and two in its third."""
    kept = np.ones((4, 3), np.float32)
    kept[1, 0] = kept[2, 0] = kept[2, 2] = 0
    return x * (tensor(kept) if isinstance(x, Tensor) else torch.tensor(kept))


ROW, TWO, BROADCAST = [(5, 7)], [(3, 4), (3, 4)], [(3, 1, 4), (5, 1)]

# Name, rumus, PyTorch, the shapes of the operands.
CASES: list[tuple[str, Function, Function, Shapes]] = [
    ("exp", rt.exp, torch.exp, ROW),
    ("log", lambda x: rt.log(abs(x) + 0.1), lambda x: torch.log(abs(x) + 0.1), ROW),
    ("log1p", lambda x: abs(x).log1p(), lambda x: torch.log1p(abs(x)), ROW),
    ("expm1", rt.expm1, torch.expm1, ROW),
    ("sqrt", lambda x: (abs(x) + 0.1).sqrt(), lambda x: (abs(x) + 0.1).sqrt(), ROW),
    ("sin", rt.sin, torch.sin, ROW),
    ("cos", rt.cos, torch.cos, ROW),
    ("tanh", rt.tanh, torch.tanh, ROW),
    ("erf", rt.erf, torch.erf, ROW),
    ("sigmoid", rt.sigmoid, torch.sigmoid, ROW),
    ("softplus", rt.softplus, F.softplus, ROW),
    ("relu", rt.relu, F.relu, ROW),
    ("gelu", rt.gelu, F.gelu, ROW),
    ("gelu_tanh", rt.gelu_tanh, lambda x: F.gelu(x, approximate="tanh"), ROW),
    ("silu", rt.silu, F.silu, ROW),
    ("elu", lambda x: rt.elu(x, alpha=1.3), lambda x: F.elu(x, alpha=1.3), ROW),
    ("leaky_relu", rt.leaky_relu, F.leaky_relu, ROW),
    ("mish", rt.mish, F.mish, ROW),
    ("relu6", lambda x: rt.relu6(4 * x), lambda x: F.relu6(4 * x), ROW),
    ("hardtanh", rt.hardtanh, F.hardtanh, ROW),
    # Written out, because PyTorch's float64 derivatives here use float32 constants.
    ("hardsigmoid", lambda x: rt.hardsigmoid(3 * x), lambda x: F.relu6(3 * x + 3) / 6, ROW),
    ("hardswish", lambda x: rt.hardswish(3 * x), lambda x: F.hardswish(3 * x), ROW),
    ("selu", rt.selu, F.selu, ROW),
    ("celu", lambda x: rt.celu(x, alpha=0.7), lambda x: 0.7 * F.elu(x / 0.7), ROW),
    ("log_sigmoid", lambda x: rt.log_sigmoid(30 * x), lambda x: F.logsigmoid(30 * x), ROW),
    ("softsign", rt.softsign, F.softsign, ROW),
    ("glu", lambda x: rt.glu(x, 1), lambda x: F.glu(x, 1), [(2, 6, 4)]),
    ("prelu", lambda x, w: rt.prelu(x, w.reshape(3, 1)), F.prelu, [(2, 3, 4), (3,)]),
    ("clip", lambda x: x.clip(-0.5, 0.5), lambda x: x.clip(-0.5, 0.5), ROW),
    ("abs", abs, abs, ROW),
    ("cube", lambda x: x**3, lambda x: x**3, ROW),
    ("add", lambda a, b: a + b, lambda a, b: a + b, BROADCAST),
    ("sub", lambda a, b: a - b, lambda a, b: a - b, BROADCAST),
    ("mul", lambda a, b: a * b, lambda a, b: a * b, BROADCAST),
    ("div", lambda a, b: a / (abs(b) + 0.5), lambda a, b: a / (abs(b) + 0.5), BROADCAST),
    ("pow", lambda a, b: (abs(a) + 0.5) ** b, lambda a, b: (abs(a) + 0.5) ** b, BROADCAST),
    ("maximum", rt.maximum, torch.maximum, BROADCAST),
    ("minimum", rt.minimum, torch.minimum, BROADCAST),
    (
        "where",
        lambda a, b: rt.where(a.detach() < 0, a * 2, b),
        lambda a, b: torch.where(a < 0, a * 2, b),
        BROADCAST,
    ),
    ("sum", lambda x: x.sum((0, 2)), lambda x: x.sum((0, 2)), [(2, 3, 4)]),
    ("mean", lambda x: x.mean(1), lambda x: x.mean(1), [(2, 3, 4)]),
    ("max", lambda x: x.max(1), lambda x: x.amax(1), [(2, 3, 4)]),
    ("min", lambda x: x.min(), lambda x: x.min(), [(2, 3, 4)]),
    ("var", lambda x: x.var(1, ddof=1), lambda x: x.var(1), [(2, 3, 4)]),
    ("std", lambda x: x.std(1), lambda x: x.std(1, correction=0), [(2, 3, 4)]),
    ("std of equals", lambda x: (x * 0 + 1).std(1), lambda x: (x * 0 + 1).std(1), [(2, 4)]),
    ("norm", lambda x: x.norm(axis=1), lambda x: x.norm(dim=1), [(2, 3, 4)]),
    ("norm of zeros", lambda x: (x * 0).norm(), lambda x: (x * 0).norm(), ROW),
    ("norm of order 3", lambda x: x.norm(3, axis=-1), lambda x: x.norm(3, dim=-1), ROW),
    ("norm of order 0", lambda x: x.norm(0) * x.sum(), lambda x: x.norm(0) * x.sum(), ROW),
    ("norm of order -inf", lambda x: x.norm(-np.inf, axis=0), lambda x: x.norm(-np.inf, 0), ROW),
    ("prod", lambda x: x.prod(1), lambda x: x.prod(1), [(2, 3, 4)]),
    ("prod of a zero", lambda x: without(x).prod(1), lambda x: without(x).prod(1), [(4, 3)]),
    ("cumsum", lambda x: x.cumsum(1), lambda x: x.cumsum(1), [(2, 3, 4)]),
    ("sort", lambda x: x.sort(1)[0], lambda x: x.sort(1)[0], [(2, 5, 4)]),
    ("topk", lambda x: x.topk(3)[0], lambda x: x.topk(3)[0], ROW),
    ("smallest", lambda x: x.topk(2, 0, False)[0], lambda x: x.topk(2, 0, False)[0], ROW),
    ("mod", lambda a, b: a % b, lambda a, b: a % b, BROADCAST),
    ("mod of a number", lambda x: 3.0 % x, lambda x: torch.tensor(3.0) % x, ROW),
    (
        "floor",
        lambda x: x.floor() + (x // 0.4) * x,
        lambda x: x.floor() + (x.detach() // 0.4) * x,
        ROW,
    ),
    ("tril", lambda x: rt.tril(x, -1), lambda x: torch.tril(x, -1), [(2, 3, 4)]),
    ("triu", rt.triu, torch.triu, [(2, 3, 4)]),
    ("outer", rt.outer, torch.outer, [(3,), (4,)]),
    (
        "einsum",
        lambda *given: rt.einsum("nhqd,nhkd,k->nqh", *given),
        lambda *given: torch.einsum("nhqd,nhkd,k->nqh", *given),
        [(2, 3, 4, 5), (2, 3, 6, 5), (6,)],
    ),
    ("a list behind", lambda x: x[:, [3, 0, 3]], lambda x: x[:, [3, 0, 3]], ROW),
    ("a mask", lambda x: x[x.detach() > 0], lambda x: x[x > 0], ROW),
    ("matmul", lambda a, b: a @ b, lambda a, b: a @ b, [(2, 1, 3, 4), (5, 4, 2)]),
    ("vectors", lambda a, b: a @ b, lambda a, b: a @ b, [(4,), (4,)]),
    ("linear", rt.linear, F.linear, [(2, 3, 4), (5, 4), (5,)]),
    ("permute", lambda x: x.permute(2, 0, 1), lambda x: x.permute(2, 0, 1), [(2, 3, 4)]),
    ("T", lambda x: x.T.reshape(12, 2), lambda x: x.mT.reshape(12, 2), [(3, 2, 4)]),
    ("slice", lambda x: x[1:, ::2], lambda x: x[1:, ::2], ROW),
    ("lists", lambda x: x[[0, 1, 0], [2, 2, 2]], lambda x: x[[0, 1, 0], [2, 2, 2]], ROW),
    ("concat", lambda a, b: rt.concat([a, b], 1), lambda a, b: torch.cat([a, b], 1), TWO),
    ("stack", lambda a, b: rt.stack([a, b], -1), lambda a, b: torch.stack([a, b], -1), TWO),
    ("pad", lambda x: rt.pad(x, [(0, 0), (1, 2)]), lambda x: F.pad(x, (1, 2)), ROW),
    ("gather", lambda x: rt.gather(x, tensor(INDEX)), lambda x: x[INDEX], ROW),
    ("softmax", lambda x: x.softmax(), lambda x: x.softmax(-1), ROW),
    ("softmax over 0", lambda x: x.softmax(0), lambda x: x.softmax(0), ROW),
    ("log_softmax", lambda x: x.log_softmax(), lambda x: x.log_softmax(-1), ROW),
    ("logsumexp", lambda x: x.logsumexp(0), lambda x: x.logsumexp(0), ROW),
    ("layer_norm", rt.layer_norm, lambda x: F.layer_norm(x, x.shape[-1:]), ROW),
    (
        "layer_norm, affine",
        rt.layer_norm,
        lambda x, w, b: F.layer_norm(x, (9,), w, b),
        [(2, 33, 9), (9,), (9,)],
    ),
    (
        "rms_norm",
        rt.rms_norm,
        lambda x, w: F.rms_norm(x, (9,), w, 1e-5),
        [(2, 33, 9), (9,)],
    ),
    (
        "cross_entropy",
        lambda x: rt.cross_entropy(x, tensor(INDEX)),
        lambda x: F.cross_entropy(x, torch.tensor(INDEX), reduction="none"),
        [(4, 3)],
    ),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_values_and_gradients(
    case: tuple[str, Function, Function, Shapes], dtype: type[np.floating[Any]]
) -> None:
    _, ours, theirs, shapes = case
    rng = np.random.default_rng(9)
    arrays = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    parameters = [Parameter(a, dtype=dtype) for a in arrays]
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    result: Tensor = ours(*parameters)
    expected = theirs(*leaves)
    weights = np.cos(np.arange(result.size)).reshape(result.shape).astype(dtype)
    grads = (result * tensor(weights, dtype=dtype)).sum().backward()
    (expected * torch.tensor(weights)).sum().backward()
    tolerance = 64 * float(np.finfo(dtype).eps)

    def close(found: Tensor, wanted: torch.Tensor) -> None:
        assert found.shape == tuple(wanted.shape)
        np.testing.assert_allclose(
            found.numpy(), wanted.detach().numpy(), rtol=tolerance, atol=tolerance
        )

    close(result, expected)
    for parameter, leaf in zip(parameters, leaves, strict=True):
        assert leaf.grad is not None
        close(grads[parameter], leaf.grad)


@pytest.mark.parametrize("size", [20_001, 300_001])
def test_a_large_fused_kernel(size: int) -> None:
    fused: Function = rt.elementwise(lambda x, y: rt.where(x < y, x * y, rt.relu(y) - x * 0.5))
    a, b = (np.random.default_rng(2).normal(size=size).astype(np.float32) for _ in range(2))
    x, y = Parameter(a), Parameter(b)
    u, v = (torch.tensor(array, requires_grad=True) for array in (a, b))
    grads = fused(x, y).sum().backward()
    torch.where(u < v, u * v, F.relu(v) - u * 0.5).sum().backward()
    for parameter, leaf in ((x, u), (y, v)):
        assert leaf.grad is not None
        np.testing.assert_allclose(grads[parameter].numpy(), leaf.grad.numpy(), rtol=1e-6)


def test_memory_is_shared_both_ways() -> None:
    x = tensor([1.0, 2.0])
    torch.from_dlpack(x)[0] = 5.0
    assert x.tolist() == [5.0, 2.0]
    theirs = torch.tensor([1, 2, 3], dtype=torch.int32)
    ours = rt.from_dlpack(theirs)
    theirs[1] = 9
    assert ours.tolist() == [1, 9, 3]
    with pytest.raises(TypeError, match="int64 is not supported"):
        rt.from_dlpack(torch.tensor([1]))


def test_arrays_that_numpy_lacks_are_told_how_to_be_converted() -> None:
    x = torch.ones(2, dtype=torch.bfloat16)
    for given in (x, [x, x]):
        with pytest.raises(TypeError, match=r"BFloat16 .*: convert it first, as x\.float\(\)"):
            tensor(given)
    with pytest.raises(TypeError, match=r"no array of torch.bfloat16 on cpu; .*x\.float\(\)\.cpu"):
        rt.from_dlpack(x)
    assert tensor(x.float()).tolist() == [1.0, 1.0]


def test_results_beyond_float16_are_those_of_pytorch() -> None:
    x, u = tensor([1.0, -2.0]).astype(rt.float16), torch.tensor([1.0, -2.0]).half()
    assert (x + 1e5).tolist() == (u + 1e5).tolist()
    assert (x * 1e5).tolist() == (u * 1e5).tolist()
    assert rt.where(x > 0, 1e5, x).tolist() == torch.where(u > 0, 1e5, u).tolist()
