"""Corners: derivatives at kinks, and softmaxes of infinities, with PyTorch as the referee.

The rows of KINKS are those of a table in docs/numbers.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rumus import tensor as rt
from rumus.tensor import Backend, Parameter, tensor

Function: TypeAlias = Callable[[Any], Any]
INF, NAN = np.inf, np.nan
PAGE: Final = Path(__file__).parents[2] / "docs" / "numbers.md"


def plain(x: Any) -> Any:
    """A tensor without axes that holds 0, of the same kind as x."""
    is_ours = isinstance(x, rt.Tensor)
    return tensor(0.0, backend=x.backend) if is_ours else torch.tensor(0.0)


def _prelu(x: Any) -> Any:
    return F.prelu(x, torch.tensor([0.25]))


# As on the page: rumus, PyTorch, where, the derivative, and PyTorch's if it differs.
KINKS: Final[list[tuple[Any, ...]]] = [
    ("x.relu()", lambda x: x.relu(), F.relu, 0, 0, None),
    ("leaky_relu(x)", rt.leaky_relu, F.leaky_relu, 0, 0.01, None),
    ("elu(x)", rt.elu, F.elu, 0, 1, None),
    ("elu(x, alpha=0.5)", lambda x: rt.elu(x, alpha=0.5), lambda x: F.elu(x, 0.5), 0, 0.5, None),
    ("selu(x)", rt.selu, F.selu, 0, 1.75809934, None),
    ("prelu(x, tensor(0.25))", lambda x: rt.prelu(x, plain(x) + 0.25), _prelu, 0, 0.25, None),
    ("relu6(x)", rt.relu6, F.relu6, 0, 0, None),
    ("relu6(x)", rt.relu6, F.relu6, 6, 0, None),
    ("hardsigmoid(x)", rt.hardsigmoid, F.hardsigmoid, 3, 0, None),
    ("hardswish(x)", rt.hardswish, F.hardswish, 3, 1, None),
    ("hardtanh(x)", rt.hardtanh, F.hardtanh, 1, 0, None),
    ("x.abs()", abs, abs, 0, 0, None),
    ("x.clip(0.0, 1.0)", lambda x: x.clip(0.0, 1.0), lambda x: x.clip(0.0, 1.0), 0, 1, None),
    ("x.clip(0.0, 1.0)", lambda x: x.clip(0.0, 1.0), lambda x: x.clip(0.0, 1.0), 1, 1, None),
    ("x.maximum(tensor(0.0))", *[lambda x: x.maximum(plain(x))] * 2, 0, 0.5, None),
    ("x.maximum(0.0)", lambda x: x.maximum(0.0), lambda x: x.clamp(min=0.0), 0, 1, None),
    ("x.sqrt()", rt.sqrt, torch.sqrt, 0, INF, None),
    ("1 / x.sqrt()", lambda x: 1 / x.sqrt(), torch.rsqrt, 0, -INF, None),
    ("x.log()", rt.log, torch.log, 0, INF, None),
    ("x.log()", rt.log, torch.log, -1, -1, None),
    ("x**0", *[lambda x: x**0] * 2, 0, 0, None),
    ("x**0.5", *[lambda x: x**0.5] * 2, 0, INF, None),
    ("x**0.5", *[lambda x: x**0.5] * 2, -INF, NAN, None),
    ("x**1.5", *[lambda x: x**1.5] * 2, 0, 0, None),
    ("0.0**x", *[lambda x: 0.0**x] * 2, 0, 0, None),
    ("0.0**x", *[lambda x: 0.0**x] * 2, -1, -INF, None),
    ("(-2.0)**x", *[lambda x: (-2.0) ** x] * 2, 2, NAN, None),
    ("(x * x).sum().sqrt()", *[lambda x: (x * x).sum().sqrt()] * 2, 0, NAN, None),
    ("x.norm()", *[lambda x: x.norm()] * 2, 0, 0, None),
    ("x.abs()", abs, abs, NAN, NAN, 0),
    ("x.clip(0.0, 1.0)", lambda x: x.clip(0.0, 1.0), lambda x: x.clip(0.0, 1.0), NAN, NAN, 0),
    ("x.maximum(0.0)", lambda x: x.maximum(0.0), lambda x: x.clamp(min=0.0), NAN, NAN, 0),
    ("elu(x)", rt.elu, F.elu, NAN, NAN, 1),
    ("celu(x)", rt.celu, F.celu, NAN, NAN, 1),
    ("selu(x)", rt.selu, F.selu, NAN, NAN, 1.0507009),
    ("hardswish(x)", rt.hardswish, F.hardswish, NAN, NAN, 1),
    ("hardsigmoid(x)", rt.hardsigmoid, F.hardsigmoid, NAN, 1 / 6, 0),
    ("x.relu()", lambda x: x.relu(), F.relu, NAN, 1, None),
    ("relu6(x)", rt.relu6, F.relu6, NAN, 1, None),
    ("hardtanh(x)", rt.hardtanh, F.hardtanh, NAN, 1, None),
    ("leaky_relu(x)", rt.leaky_relu, F.leaky_relu, NAN, 0.01, None),
]


@pytest.mark.parametrize("row", KINKS, ids=lambda row: f"{row[0]} at {row[3]}")
def test_the_derivative_at_a_kink(row: tuple[Any, ...], backend: Backend) -> None:
    name, ours, theirs, at, derivative, other = row
    for copies in (1, 20_001):  # the second runs as a compiled loop, if there is one
        p = Parameter(np.full(copies, at, np.float32), backend=backend)
        found = ours(p).sum().backward()[p].numpy()
        np.testing.assert_allclose(found, np.full(copies, derivative, np.float32), rtol=1e-6)
    x = torch.tensor([float(at)], requires_grad=True)
    theirs(x).sum().backward()
    assert x.grad is not None
    expected = derivative if other is None else other
    np.testing.assert_allclose(x.grad.numpy(), [expected], rtol=1e-6)
    line = f"| `{name}` | {at:g} | {derivative:g} | {expected:g} |"
    assert line in PAGE.read_text("utf-8")


def test_the_page_shows_no_other_kinks() -> None:
    shown = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    assert len(shown) == len(KINKS)


S: Final = np.array(
    [-INF, -3e38, -100, -2, -1, -0.5, -1e-10, -0.0, 0, 1e-10, 0.5, 1, 2, 3, 100, 3e38, INF, NAN],
    np.float32,
)


ACTIVATIONS: Final[dict[str, tuple[Function, Function]]] = {
    "gelu_tanh": (rt.gelu_tanh, lambda x: F.gelu(x, approximate="tanh")),
    "softplus": (rt.softplus, lambda x: -F.logsigmoid(-x)),  # PyTorch's own is x above 20
    "log_sigmoid": (rt.log_sigmoid, F.logsigmoid),
    **{
        name: (getattr(rt, name), getattr(F, name))
        for name in (
            "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "mish", "hardtanh",
            "hardsigmoid", "hardswish", "softsign", "silu", "gelu",
        )
    },
    **{
        name: (getattr(rt, name), getattr(torch, name))
        for name in ("tanh", "sigmoid", "exp", "log", "log1p", "expm1", "sqrt", "erf")
    },
    "abs": (abs, abs),
    "1 / x": (lambda x: 1 / x,) * 2,
    "norm": (lambda x: x.unsqueeze(-1).norm(axis=-1), lambda x: x.unsqueeze(-1).norm(dim=-1)),
}  # fmt: skip


@pytest.mark.parametrize("factor", [1.0, 1024.0])  # which the largest numbers times it overflow
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_at_the_ends_of_float32(name: str, factor: float, backend: Backend) -> None:
    """PyTorch in float64 is the referee, where it has a number at infinity."""
    ours, theirs = ACTIVATIONS[name]
    sizes = np.array([1e-40, 1e-30, 1e10, 1e12, 1e13, 2e19, 1e20, 3e38, INF], np.float32)
    values = np.concatenate([sizes, -sizes])
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    wanted = theirs(x)
    wanted.sum().backward()
    assert x.grad is not None
    p = Parameter(values, backend=backend)
    y = ours(p)
    slopes = (y * factor).sum().backward()[p] / factor
    for found, exact in ((y, wanted.detach()), (slopes, x.grad)):
        with np.errstate(over="ignore"):
            told = exact.numpy().astype(np.float32)
        is_told = ~(np.isnan(told) & (np.isinf(values) | (values < 0)))
        is_told &= (np.abs(values) > 1e-38) | (found.numpy() != 0)  # a GPU may take these as 0
        np.testing.assert_allclose(found.numpy()[is_told], told[is_told], rtol=2e-5, atol=1e-19)


@pytest.mark.parametrize("operand", ["base", "exponent"])
def test_powers_of_everything_to_everything(operand: str, backend: Backend) -> None:
    bases, exponents = (a.reshape(-1) for a in np.meshgrid(S, S, indexing="ij"))
    a, b = torch.tensor(bases, requires_grad=True), torch.tensor(exponents, requires_grad=True)
    (a**b).sum().backward()
    p, q = Parameter(bases, backend=backend), Parameter(exponents, backend=backend)
    y = p**q
    grads = y.sum().backward()
    which, theirs = (p, a.grad) if operand == "base" else (q, b.grad)
    assert theirs is not None
    for found, exact in ((y.numpy(), (a**b).detach().numpy()), (grads[which].numpy(), theirs)):
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=2e-38)


ROWS: Final[list[list[float]]] = [
    [INF, 1], [-INF, 1], [-INF, -INF], [INF, INF], [INF, -INF], [NAN, 1], [NAN, INF], [1, 2],
    [3e38, -3e38], [-3e38, -3e38], [3.4e38, 3.4e38],
]  # fmt: skip
SOFTMAXES: Final[dict[str, tuple[Callable[[Any, int], Any], Function]]] = {
    "softmax": (lambda x, axis: x.softmax(axis), lambda x: x.softmax(-1)),
    "log_softmax": (lambda x, axis: x.log_softmax(axis), lambda x: x.log_softmax(-1)),
    "logsumexp": (lambda x, axis: x.logsumexp(axis), lambda x: x.logsumexp(-1)),
    "cross_entropy": (
        lambda x, axis: rt.cross_entropy(
            x if axis else x.T, tensor(np.zeros(1, np.int32), backend=x.backend)
        ),
        lambda x: F.cross_entropy(x, torch.zeros(1, dtype=torch.long), reduction="none"),
    ),
}


@pytest.mark.parametrize("length", [2, 20_002])
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("name", SOFTMAXES)
def test_softmaxes_of_infinities(name: str, axis: int, length: int, backend: Backend) -> None:
    ours, theirs = SOFTMAXES[name]
    for row in ROWS:
        values = np.full((1, length), -INF, np.float32)
        values[0, :2] = row
        x = torch.tensor(values, requires_grad=True)
        expected = theirs(x)
        expected.sum().backward()
        p = Parameter(values if axis else values.T.copy(), backend=backend)
        y = ours(p, axis)
        found = y.sum().backward()[p].numpy()
        value = y.numpy() if axis or y.ndim == 1 else y.numpy().T
        np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
        assert x.grad is not None
        is_theirs_right = name != "logsumexp" or abs(row[0]) < 1e38  # PyTorch: shares of 1 and 1
        if is_theirs_right or not np.isfinite(row).all():
            exact = x.grad.numpy()
            np.testing.assert_allclose(found if axis else found.T, exact, rtol=1e-5, atol=1e-6)
