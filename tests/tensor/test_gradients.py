"""Every differentiable function against central finite differences, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus import tensor as rt
from rumus.tensor import Backend, DType, NumpyBackend, Parameter, Tensor, elementwise, tensor

Real = NDArray[Any]
Shape = tuple[int, ...]
Function = Callable[..., Tensor]
Case = tuple[str, Function, Sequence[Shape]]

REFERENCE = NumpyBackend()


@elementwise
def smooth(x: Any, y: Any, *, beta: float) -> Any:
    """A user-defined function of two tensors and a number."""
    return x * rt.sigmoid(beta * y) + x / (1 + y * y)


def other(x: Tensor) -> Tensor:
    """By way of another backend."""
    return x.to(NumpyBackend()).exp().to(x.backend)


ONE: dict[str, Callable[[Tensor], Tensor]] = {
    "neg": lambda x: -x,
    "abs": lambda x: abs(x),
    "exp": rt.exp,
    "log": lambda x: (abs(x) + 0.2).log(),
    "log1p": lambda x: abs(x).log1p(),
    "expm1": rt.expm1,
    "sqrt": lambda x: (abs(x) + 0.2).sqrt(),
    "sin": rt.sin,
    "cos": rt.cos,
    "tanh": rt.tanh,
    "erf": rt.erf,
    "sigmoid": rt.sigmoid,
    "softplus": rt.softplus,
    "relu": rt.relu,
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
    "negative power": lambda x: (abs(x) + 0.5) ** -1.5,
    "power of a number": lambda x: 2.5**x,
    "reciprocal": lambda x: 1 / (abs(x) + 0.5),
    "number - x": lambda x: 3 - x,
    "clip": lambda x: x.clip(-0.5, 0.5),
    "silu": rt.silu,
    "gelu": rt.gelu,
    "gelu_tanh": rt.gelu_tanh,
    "leaky_relu": rt.leaky_relu,
    "elu": lambda x: rt.elu(x, alpha=1.5),
    "mish": rt.mish,
    "relu6": lambda x: rt.relu6(3 * x + 1),
    "hardtanh": lambda x: rt.hardtanh(x, low=-0.5, high=0.7),
    "hardsigmoid": lambda x: rt.hardsigmoid(3 * x),
    "hardswish": lambda x: rt.hardswish(3 * x),
    "selu": rt.selu,
    "celu": lambda x: rt.celu(x, alpha=0.7),
    "log_sigmoid": rt.log_sigmoid,
    "softsign": rt.softsign,
    "glu": lambda x: rt.glu(x[..., :4]),
    "glu over 0": lambda x: rt.glu(x, 0),
    "prelu": lambda x: rt.prelu(x, x[0, 0]),
    "x used thrice": lambda x: x * x.exp() + x,
    "clone": lambda x: x.clone() * x,
    "there and back": other,
    "sum": lambda x: x.sum(),
    "sum over 0": lambda x: x.sum(0),
    "sum over (0, -1)": lambda x: x.sum((0, -1), keepdims=True),
    "mean": lambda x: x.mean(1),
    "max": lambda x: x.max(),
    "max over 1": lambda x: x.max(1),
    "min over (0, 2)": lambda x: x.min((0, 2), keepdims=True),
    "var": lambda x: x.var(-1),
    "var with ddof": lambda x: x.var((0, 1), ddof=1),
    "reshape": lambda x: x.reshape(5, -1),
    "flatten": lambda x: x.flatten(1),
    "permute": lambda x: x.permute(2, 0, 1),
    "reshape of a transposed": lambda x: x.T.reshape(3, 10),
    "T": lambda x: x.T,
    "broadcast_to": lambda x: x.broadcast_to((4, *x.shape)),
    "unsqueeze and squeeze": lambda x: x.unsqueeze(1).squeeze(1),
    "slice": lambda x: x[1:, ::-2],
    "number": lambda x: x[1],
    "ellipsis and new axis": lambda x: x[..., None, 0],
    "list": lambda x: x[[1, 0, 1]],
    "two lists": lambda x: x[[1, 0, 1], [2, 2, 2]],
    "pad": lambda x: rt.pad(x, [(0, 1), (2, 0), (1, 1)], 3.0),
    "softmax": lambda x: x.softmax(),
    "softmax over 0": lambda x: x.softmax(0),
    "log_softmax": lambda x: x.log_softmax(),
    "log_softmax over 1": lambda x: x.log_softmax(1),
    "logsumexp": lambda x: x.logsumexp(),
    "logsumexp over 0": lambda x: x.logsumexp(0, keepdims=True),
    "std": lambda x: x.std(1, ddof=1),
    "norm": lambda x: x.norm(axis=(0, 1)),
    "norm of order 1.5": lambda x: x.norm(1.5, axis=1, keepdims=True),
    "norm of order 1": lambda x: x.norm(1, axis=0),
    "norm of order inf": lambda x: x.norm(float("inf")),
    "prod": lambda x: x.prod(1),
    "prod of all, one of them 0": lambda x: (x * (x.detach() != x.detach().max())).prod(),
    "cumsum": lambda x: x.cumsum(1),
    "cumsum of a transposed": lambda x: x.T.cumsum(-1),
    "sort": lambda x: x.sort()[0],
    "sort over 0, descending": lambda x: x.sort(0, descending=True)[0] ** 2,
    "topk": lambda x: x.topk(2, 1)[0].exp(),
    "smallest": lambda x: x.topk(2, largest=False)[0],
    "mod": lambda x: x % 0.7,
    "mod of a number": lambda x: 5.3 % (abs(x) + 0.6),
    "floor": lambda x: x.floor() * x + rt.ceil(x),
    "floor_divide": lambda x: (x // 0.3) * x,
    "list after a slice": lambda x: x[:, [1, 0, 1]],
    "list, slice, list": lambda x: x[[1, 0], :, [2, 2]],
    "list before a slice backwards": lambda x: x[..., [2, 1], ::-1],
    "tril": lambda x: rt.tril(x, 1),
    "triu": rt.triu,
    "diagonal": lambda x: rt.einsum("bij->jb", x),
    "iteration": lambda x: [row.exp() for row in x][1],
}
TARGETS = [2, 0, 0, 1]
BROADCAST: list[tuple[Shape, Shape]] = [
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((2, 1), (1, 5)),
    ((), (4,)),
    ((3, 1, 2), (5, 1)),
]

CASES: list[Case] = [(name, function, [(2, 3, 5)]) for name, function in ONE.items()]
for _name, _binary in {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / (b * b + 0.5),
    "pow": lambda a, b: (a * a + 0.5) ** b,
    "maximum": rt.maximum,
    "minimum": rt.minimum,
    "where": lambda a, b: rt.where(a.detach() < 0.1, a * 2, b),
    "elementwise": lambda a, b: smooth(a, b, beta=0.7),
}.items():
    for _shapes in BROADCAST:
        CASES.append((_name, _binary, _shapes))
for _shapes in [
    ((3, 4), (4, 5)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((4,), (4,)),
    ((2, 3, 4), (4, 5)),
    ((3, 4), (2, 4, 5)),
    ((3, 1, 2, 4), (2, 4, 1)),
]:
    CASES.append(("matmul", lambda a, b: a @ b, _shapes))
CASES += [
    ("linear", rt.linear, [(2, 3, 4), (5, 4), (5,)]),
    ("linear without bias", rt.linear, [(4,), (5, 4)]),
    ("linear of a transposed", lambda x, w: rt.linear(x.T, w), [(4, 3), (5, 4)]),
    ("layer_norm", rt.layer_norm, [(2, 3, 5)]),
    ("layer_norm of one row", rt.layer_norm, [(5,), (5,), (5,)]),
    ("layer_norm without bias", lambda x, w: rt.layer_norm(x, w, eps=0.3), [(4, 5), (5,)]),
    ("layer_norm, affine", rt.layer_norm, [(2, 3, 5), (5,), (5,)]),
    ("layer_norm of itself", lambda x: rt.layer_norm(x, x[0], x[1]), [(3, 5)]),
    ("layer_norm of a transposed", lambda x, w: rt.layer_norm(x.T, w), [(5, 3), (5,)]),
    ("layer_norm of more than a block", rt.layer_norm, [(70, 3), (3,), (3,)]),
    ("rms_norm", rt.rms_norm, [(2, 3, 5)]),
    ("rms_norm, scaled", rt.rms_norm, [(2, 3, 5), (5,)]),
    ("outer", rt.outer, [(3,), (4,)]),
    ("einsum", lambda a, b: rt.einsum("bij,bkj->ikb", a, b), [(2, 3, 4), (2, 5, 4)]),
    ("einsum of three", lambda *abc: rt.einsum("ij,jk,k->i", *abc), [(2, 3), (3, 4), (4,)]),
    ("einsum that broadcasts", lambda a, b: rt.einsum("...i,i...->...i", a, b), [(2, 3), (3, 1)]),
    ("concat", lambda a, b: rt.concat([a, b, a], 1), [(2, 3), (2, 1)]),
    ("stack", lambda a, b: rt.stack([a, b], 1), [(2, 3), (2, 3)]),
    ("gather", lambda t: rt.gather(t, tensor([[1, 1], [0, 2]], backend=t.backend)), [(3, 2)]),
    (
        "cross_entropy",
        lambda x: rt.cross_entropy(x, tensor(TARGETS, backend=x.backend)),
        [(4, 3)],
    ),
]


def total(function: Function, operands: Sequence[Tensor]) -> Tensor:
    """A scalar that weights each element of the result differently."""
    result = function(*operands)
    weights = np.cos(np.arange(result.size)).reshape(result.shape)
    return (result * tensor(weights, dtype=result.dtype, backend=result.backend)).sum()


def differences(function: Function, values: Sequence[Real], step: float = 1e-6) -> list[Real]:
    """The gradient of `total` by central differences, in float64 on the reference backend."""
    arrays = [value.copy() for value in values]

    def at() -> float:
        operands = [tensor(a, dtype=np.float64, backend=REFERENCE) for a in arrays]
        return float(total(function, operands))

    gradients = []
    for array in arrays:
        gradient = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            middle = array[index]
            array[index] = middle + step
            above = at()
            array[index] = middle - step
            gradient[index] = (above - at()) / (2 * step)
            array[index] = middle
        gradients.append(gradient)
    return gradients


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[2]}".replace(" ", ""))
def test_gradients_are_those_of_finite_differences(
    case: Case, backend: Backend, widest: DType
) -> None:
    _, function, shapes = case
    rng = np.random.default_rng(3)
    values = [np.asarray(rng.normal(size=shape)) for shape in shapes]
    parameters = [Parameter(v, dtype=widest, backend=backend) for v in values]
    grads = total(function, parameters).backward()
    tolerance = 1e-7 if widest == np.float64 else 2e-3
    for parameter, expected in zip(parameters, differences(function, values), strict=True):
        gradient = grads[parameter]
        assert gradient.shape == parameter.shape
        assert gradient.dtype == parameter.dtype
        np.testing.assert_allclose(gradient.numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("function", "x", "expected"),
    [
        (lambda x: x.abs(), 0.0, 0.0),
        (lambda x: x.relu(), 0.0, 0.0),
        (lambda x: x.sign(), 2.0, 0.0),
        (lambda x: x**0, 0.0, 0.0),
        (lambda x: x**1, 0.0, 1.0),
        (lambda x: x**3, 0.0, 0.0),
        (lambda x: 0.0**x, 1.0, 0.0),
        (lambda x: x.maximum(1.0), 1.0, 1.0),
        (lambda x: x.minimum(1.0), 1.0, 1.0),
        (lambda x: x.maximum(x), 1.0, 1.0),
        (lambda x: rt.elu(x), 0.0, 1.0),
        (lambda x: rt.elu(x), 1000.0, 1.0),
        (lambda x: x.softplus(), -1000.0, 0.0),
        (lambda x: x.softplus(), 1000.0, 1.0),
        (lambda x: x.sigmoid(), -1000.0, 0.0),
        (lambda x: rt.silu(x), -1000.0, 0.0),
        (lambda x: rt.gelu(x), 30.0, 1.0),
    ],
)
def test_gradients_at_kinks_and_far_out(
    function: Callable[[Tensor], Tensor], x: float, expected: float, backend: Backend
) -> None:
    parameter = Parameter(x, backend=backend)
    assert function(parameter).backward()[parameter].item() == expected


@pytest.mark.parametrize("which", ["max", "min"])
def test_equal_extremes_share_the_gradient(which: str, backend: Backend) -> None:
    parameter = Parameter([[2.0, 2.0], [1.0, 1.0]], backend=backend)
    grads = getattr(parameter, which)().backward()
    row = [[0.5, 0.5], [0.0, 0.0]]
    assert grads[parameter].tolist() == (row if which == "max" else row[::-1])


def test_gradients_flow_through_a_change_of_dtype(backend: Backend) -> None:
    parameter = Parameter([1.0, 2.0, 3.0], backend=backend)
    grads = (parameter.astype(np.float16) * 3.0).sum().astype(np.float32).backward()
    assert grads[parameter].dtype == rt.float32
    assert grads[parameter].tolist() == [3.0, 3.0, 3.0]


def test_a_gradient_has_the_dtype_of_its_parameter(backend: Backend, widest: DType) -> None:
    low = Parameter([1.0, 2.0], dtype=np.float16, backend=backend)
    high = Parameter([3.0, 4.0], dtype=widest, backend=backend)
    grads = (low * high).sum().backward()
    assert (grads[low].dtype, grads[low].tolist()) == (rt.float16, [3.0, 4.0])
    assert (grads[high].dtype, grads[high].tolist()) == (widest, [1.0, 2.0])


def test_integers_and_masks_pass_gradients_to_the_floating_operand(backend: Backend) -> None:
    parameter = Parameter([1.0, 2.0, 3.0], backend=backend)
    mask = tensor([True, False, True], backend=backend)
    counts = tensor([2, 3, 4], backend=backend)
    assert (parameter * mask * counts).sum().backward()[parameter].tolist() == [2.0, 0.0, 4.0]
