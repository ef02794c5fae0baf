"""Dtypes, NaN and infinity, and tensors without elements."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rumus import tensor as rt
from rumus.tensor import (
    Backend,
    Parameter,
    PrecisionError,
    Tensor,
    bool_,
    elementwise,
    float16,
    float32,
    int32,
    tensor,
    zeros,
)
from rumus.tensor.memory.recording import is_capturing

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1, int32),
        (1.0, float32),
        (True, bool_),
        ([1, 2.0], float32),
        (np.ones(2), float32),
        (np.ones(2, np.float16), float16),
        (np.ones(2, np.int64), int32),
        (np.ones(2, np.uint8), int32),
        (np.ones(0), float32),
    ],
)
def test_the_dtype_of_data(data: Any, dtype: rt.DType, backend: Backend) -> None:
    assert tensor(data, backend=backend).dtype == dtype


INTS, MASK, HALF, SINGLE = (
    ([1, 2], int32),
    ([True, False], bool_),
    ([1.0, 2.0], float16),
    ([0.5, 1.0], float32),
)


@pytest.mark.parametrize(
    ("function", "operands", "dtype", "values"),
    [
        (lambda a, b: a + b, (INTS, INTS), int32, [2, 4]),
        (lambda a, b: a + b, (INTS, SINGLE), float32, [1.5, 3.0]),
        (lambda a, b: a * b, (HALF, INTS), float16, [1.0, 4.0]),
        (lambda a, b: a * b, (HALF, SINGLE), float32, [0.5, 2.0]),
        (lambda a, b: a + b, (MASK, MASK), int32, [2, 0]),
        (lambda a, b: a - b, (MASK, SINGLE), float32, [0.5, -1.0]),
        (lambda a, b: a & b, (MASK, MASK), bool_, [True, False]),
        (lambda a: a & True, (MASK,), bool_, [True, False]),
        (lambda a: a.maximum(2), (MASK,), int32, [2, 2]),
        (lambda a: a / 2, (INTS,), float32, [0.5, 1.0]),
        (lambda a: a * 0.5, (INTS,), float32, [0.5, 1.0]),
        (lambda a: a * 3, (MASK,), int32, [3, 0]),
        (lambda a: -a, (MASK,), int32, [-1, 0]),
        (lambda a: a**2, (INTS,), int32, [1, 4]),
        (lambda a: a.sqrt(), (INTS,), float32, [1.0, math.sqrt(2)]),
        (lambda a: a.exp(), (MASK,), float32, [math.e, 1.0]),
        (lambda a: a.sum(), (MASK,), int32, 1),
        (lambda a: a.sum(), (INTS,), int32, 3),
        (lambda a: a.mean(), (INTS,), float32, 1.5),
        (lambda a: a.max(), (MASK,), bool_, True),
        (lambda a, b: a.where(b, 0), (MASK, INTS), int32, [1, 0]),
        (lambda a, b: a.where(b, 0.5), (MASK, INTS), float32, [1.0, 0.5]),
        (lambda a: a.where(a, 7), (MASK,), int32, [1, 7]),
        (lambda a: a.where(2, 3), (MASK,), int32, [2, 3]),
        (lambda a: a.where(2, 3.5), (MASK,), float32, [2.0, 3.5]),
        (lambda a, b: a.astype(float32).unsqueeze(0) @ b, (INTS, INTS), float32, [5.0]),
        (lambda a, b: rt.linear(a, b.astype(float32).unsqueeze(0)), (INTS, INTS), float32, [5.0]),
        (elementwise(lambda a, b: a + b), (MASK, MASK), int32, [2, 0]),
        (elementwise(lambda a, b: (a < b) | a), (MASK, MASK), bool_, [True, False]),
        (lambda a: a.astype(np.float16), (SINGLE,), float16, [0.5, 1.0]),
    ],
)
def test_the_dtype_of_a_result(
    function: Callable[..., Tensor], operands: Any, dtype: rt.DType, values: Any, backend: Backend
) -> None:
    result = function(*(tensor(v, dtype=d, backend=backend) for v, d in operands))
    assert result.dtype == dtype
    assert np.asarray(result.tolist()) == pytest.approx(np.asarray(values))


def test_float16_is_storage_and_computes_in_float32(backend: Backend) -> None:
    ones = tensor(np.ones((4096, 3)), dtype=np.float16, backend=backend)
    assert ones.sum(0).tolist() == [4096.0] * 3  # adding in float16 stops at 2048
    large = ones * 300.0
    assert large.mean().item() == 300.0  # the sum is beyond float16
    assert large.var(0).tolist() == [0.0] * 3
    square: Callable[[Tensor], Tensor] = elementwise(lambda x: x * x / 1000.0)
    assert square(large).numpy()[0, 0] == np.float16(90.0)
    assert (ones.T @ ones).numpy()[0, 0] == 4096.0
    row = tensor(np.linspace(-4, 4, 3000), dtype=np.float16, backend=backend)
    exact = row.numpy().astype(np.float64)
    expected = np.exp(exact) / np.exp(exact).sum()
    np.testing.assert_allclose(row.softmax().numpy(), expected, rtol=1e-3, atol=1e-7)
    expected = exact - np.log(np.exp(exact).sum())
    np.testing.assert_allclose(row.log_softmax().numpy(), expected, rtol=1e-3)
    np.testing.assert_allclose(row.logsumexp().numpy(), np.log(np.exp(exact).sum()), rtol=1e-3)


def test_products_of_integers_are_not_rounded(backend: Backend) -> None:
    """float32 has no 4097 * 4097."""
    x = tensor([[4097, 1], [2, 3]], backend=backend)
    exactly = r"round products .* einsum\('...ij,...jk->...ik', a, b\)"
    for other in (x, x > 2):
        with pytest.raises(TypeError, match=exactly):
            x @ other
        with pytest.raises(TypeError, match=exactly):
            rt.linear(x, other)
    exact = rt.einsum("...ij,...jk->...ik", x, x)
    assert exact.dtype == int32
    assert exact.tolist() == [[16785411, 4100], [8200, 11]]


@pytest.mark.parametrize(
    "function",
    [
        rt.relu,
        rt.gelu,
        rt.elu,
        rt.leaky_relu,
        rt.softplus,
        rt.sign,
        rt.erf,
        lambda x: x.maximum(0.0),
        lambda x: x.minimum(0.0),
        lambda x: tensor(0.0, backend=x.backend).maximum(x),
        lambda x: x.clip(-1, 1),
        lambda x: x.sum(),
        lambda x: x.mean(),
        lambda x: x.max(),
        lambda x: x.min(),
        lambda x: x.var(),
        lambda x: x.logsumexp(),
        lambda x: x.softmax(),
        lambda x: x @ x,
    ],
)
def test_nan_is_never_lost_and_warns_of_nothing(
    function: Callable[[Tensor], Tensor], backend: Backend
) -> None:
    x = Parameter([1.0, NAN, -INF], backend=backend)
    y = function(x)
    assert np.isnan(y.numpy().reshape(-1)[-1 if y.size == 1 else 1])
    y.sum().backward()
    assert tensor([1.0, NAN, INF], backend=backend).argmax().item() == 1


def test_infinities_warn_of_nothing(backend: Backend) -> None:
    x = tensor([INF, -INF, 1e38, 0.0], backend=backend)
    assert np.isnan(x.sum().item())
    assert np.isnan((x.reshape(2, 2) @ x.reshape(2, 2)).numpy()).any()
    assert (x * 100.0).numpy()[2] == INF
    assert x.astype(np.float16).numpy()[2] == INF
    weight = Parameter([[1e38, 1e38]], backend=backend)
    grads = (weight[[0, 0]] * 3e38).sum().backward()
    assert grads[weight].tolist() == [[INF, INF]]


EMPTY: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "elementwise": (lambda x: x.exp() + 1, (0, 3)),
    "broadcast": (lambda x: x + zeros((3,), backend=x.backend), (0, 3)),
    "sum": (lambda x: x.sum(), ()),
    "sum over 0": (lambda x: x.sum(0), (3,)),
    "mean over 1": (lambda x: x.mean(1), (0,)),
    "max over 1": (lambda x: x.max(1), (0,)),
    "argmax over 1": (lambda x: x.argmax(1), (0,)),
    "matmul": (lambda x: x @ x.T, (0, 0)),
    "matmul over nothing": (lambda x: x.T @ x, (3, 3)),
    "linear": (lambda x: rt.linear(x, zeros((2, 3), backend=x.backend)), (0, 2)),
    "reshape": (lambda x: x.reshape(3, 0), (3, 0)),
    "flatten": (lambda x: x.flatten(), (0,)),
    "flatten from 1": (lambda x: x.flatten(1), (0, 3)),
    "slice": (lambda x: x[:, 1:], (0, 2)),
    "list": (lambda x: x[[]], (0, 3)),
    "concat": (lambda x: rt.concat([x, x]), (0, 3)),
    "pad": (lambda x: rt.pad(x, [(1, 0), (0, 0)]), (1, 3)),
    "softmax": (lambda x: x.softmax(), (0, 3)),
    "logsumexp": (lambda x: x.logsumexp(), (0,)),
    "clone": (lambda x: x.clone(), (0, 3)),
    "where": (lambda x: (x > 0).where(x, 1.0), (0, 3)),
    "gather": (lambda x: rt.gather(x, zeros((0,), dtype=np.int32, backend=x.backend)), (0, 3)),
}


@pytest.mark.parametrize("name", EMPTY)
def test_tensors_without_elements(name: str, backend: Backend) -> None:
    function, shape = EMPTY[name]
    x = Parameter(np.zeros((0, 3)), backend=backend)
    result = function(x)
    assert result.shape == shape
    if result.requires_grad:
        assert result.sum().backward()[x].shape == (0, 3)


def test_cross_entropy_of_no_rows(backend: Backend) -> None:
    targets = zeros((0,), dtype=np.int32, backend=backend)
    assert rt.cross_entropy(zeros((0, 3), backend=backend), targets).shape == (0,)


@pytest.mark.parametrize("at", [0, 5, 300_000])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_the_first_non_finite_element(at: int, bad: float, backend: Backend) -> None:
    values = np.full(300_001, 1e30, np.float32)  # the squares overflow, the values do not
    assert backend.first_not_finite(backend.upload(values)) is None
    values[at:] = bad
    assert backend.first_not_finite(backend.upload(values)) == at


def test_products_of_float16_are_added_up_in_float32(backend: Backend) -> None:
    """4096 ones: their sum in float16 would stop at 2048. Rounded once, including the bias."""
    ones = Parameter(np.ones((3, 4096), np.float16), backend=backend)
    more = Parameter(np.ones((2, 4096), np.float16), backend=backend)
    bias = Parameter(np.full(2, 0.75, np.float16), backend=backend)
    assert (ones @ more.T).tolist() == [[4096.0] * 2] * 3
    y = rt.linear(ones, more, bias)
    assert y.dtype == float16
    assert y.tolist() == [[4096.0] * 2] * 3  # the next float16 is 4100
    grads = (y.astype(float32) * 300).sum().backward()
    assert grads[bias].tolist() == [900.0] * 2
    assert grads[more].numpy().min() == grads[more].numpy().max() == 900.0


@pytest.mark.parametrize("shape", [(700, 5, 300), (0, 3, 2), (4, 0, 3)])
def test_products_of_float16_by_blocks(shape: tuple[int, int, int], backend: Backend) -> None:
    rows, depth, columns = shape
    random = np.random.default_rng(0)
    a, b = (random.normal(size=s).astype(np.float16) for s in ((2, rows, depth), (depth, columns)))
    found = (tensor(a, backend=backend) @ tensor(b, backend=backend)).numpy()
    wanted = (a.astype(np.float32) @ b.astype(np.float32)).astype(np.float16)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_backward_takes_a_scale(backend: Backend) -> None:
    w = Parameter([1.0, 2.0], backend=backend)
    for scale in (tensor(8.0, backend=backend), tensor([8.0], backend=backend)):
        assert (w * w).sum().backward(scale=scale)[w].tolist() == [16.0, 32.0]
    with pytest.raises(rt.GraphError, match=r"a single number, not of shape \(2,\)"):
        (w * w).sum().backward(scale=tensor([1.0, 2.0], backend=backend))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("backend_name", ["NumpyBackend", "NumbaBackend"])
def test_a_sum_of_integers_is_exact_or_refused(backend_name: str, sign: int) -> None:
    kind = getattr(rt, backend_name, None)
    if kind is None:
        pytest.skip("without numba")
    x = tensor(np.full((3, 2), sign * 2**30), backend=kind())
    with pytest.raises(OverflowError, match=f"sum: {sign * 3 * 2**30} does not fit int32"):
        x.sum(0)
    there_and_back = tensor(np.array([2**30, 2**30, -(2**30)]) * sign, backend=kind())
    assert there_and_back.sum().item() == sign * 2**30  # though intermediate values do not fit
    assert tensor(np.zeros((0, 2), np.int32), backend=kind()).sum(0).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("data", "dtype", "said"),
    [
        (np.array([1.0, -1e300, np.inf]), None, r"1e\+300 does not fit float32"),
        ([3.5e38], None, r"3.5e\+38 does not fit float32"),
        (1e39, None, "does not fit float32"),
        ([70000.0], float16, "70000.0 does not fit float16"),
        (np.array([2**31]), None, "do not fit int32"),
        (np.array([2**63], np.uint64), None, "do not fit int32"),
        (np.array([-(2**31) - 1]), int32, "do not fit int32"),
        ([1e10], int32, "do not fit int32"),
    ],
)
def test_numbers_beyond_the_dtype_are_refused(data: Any, dtype: Any, said: str) -> None:
    """They would silently become infinite, or other numbers."""
    with pytest.raises(OverflowError, match=said):
        tensor(data, dtype=dtype)


@pytest.mark.parametrize(
    "data",
    [np.array([2.0**24 + 1, 2.0**24]), np.array([[1.0, np.nan], [1.7e9 + 1, 3.0]]),
     np.arange(100.0) - 1e8 - 1, [16777217.0, 2.0], np.full((4, 3), 1e9 + 1)[::2].T],
)  # fmt: skip
def test_identifiers_that_are_rounded_are_told_of(data: Any) -> None:
    with pytest.warns(UserWarning, match="float32, which rounds these whole numbers") as said:
        tensor(data)
    assert said[0].filename == __file__
    for dtype in (float32, np.float64):
        tensor(data, dtype=dtype)


@pytest.mark.parametrize(
    "data",
    [np.array([2.0**24 + 1, 0.5]), np.array([2.0**24 + 2, 2.0**24]), np.array([1e30, 3e35]), [],
     np.array([1e17 + 16, 3e17]), np.array([np.nan]), np.arange(100.0), np.array([1e10, 1.0]),
     1.7e9 + 1, np.float32(1e9) + np.arange(3, dtype=np.float32), np.array([INF, 2.0**24 + 1]),
     np.random.default_rng(0).normal(size=200) * 1e12],
)  # fmt: skip
def test_measurements_are_rounded_without_a_word(data: Any) -> None:
    tensor(data)


def test_floating_results_beyond_the_dtype_are_infinite() -> None:
    """As in NumPy and PyTorch; only data is refused."""
    x = tensor([1.0, -1.0]).astype(float16)
    assert (x + 1e5).tolist() == (x * x * 1e5).tolist() == [INF, INF]
    assert tensor([1e5]).astype(float16).tolist() == [INF]
    assert (tensor([1.0]) + 1e39).tolist() == [INF]
    assert x.clip(-1e5, 1e5).tolist() == [1.0, -1.0]


def test_infinity_and_the_largest_numbers_are_kept() -> None:
    largest = float(np.finfo(np.float32).max)
    assert tensor([INF, -INF, largest, 1e-60]).tolist() == [INF, -INF, largest, 0]
    assert tensor(np.array([2**32 - 1], np.uint32) // 2).tolist() == [2**31 - 1]
    assert tensor(np.array([65535], np.uint16)).tolist() == [65535]


@pytest.fixture
def host(backend: Backend) -> Backend:
    """A backend that can look at numbers before it computes with them."""
    if backend.runs_ahead:
        pytest.skip("a device rounds what nobody can look at")
    return backend


LARGE = [2**24 + 1, -(2**24) - 1, 3]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.softmax(0), lambda x: x.log_softmax(0), lambda x: x.logsumexp(0),
        lambda x: x.exp(), lambda x: x.sin(), lambda x: x.sqrt(), lambda x: x.norm(),
        lambda x: x + 0.5, lambda x: x * tensor([1.0], backend=x.backend), lambda x: x / 2,
        lambda x: x.maximum(0.5), lambda x: x == tensor([1.0], backend=x.backend),
        lambda x: rt.concat([x, tensor([1.0], backend=x.backend)]),
        lambda x: (x > 0).where(x, tensor([1.0], backend=x.backend)),
        lambda x: x @ tensor([1.0, 2.0, 3.0], backend=x.backend),
        rt.leaky_relu, rt.gelu,
    ],
)  # fmt: skip
def test_integers_are_not_rounded_unasked(function: Callable[[Tensor], Any], host: Backend) -> None:
    with pytest.raises(PrecisionError, match=r"float32 here, which has no -?16777217: x.astype\("):
        function(tensor(LARGE, backend=host))
    function(tensor([2**24, -(2**24), 2**30], backend=host))  # which float32 has
    function(tensor(LARGE, backend=host).astype(float32))


def test_integers_become_float64_and_float16(host: Backend) -> None:
    x = tensor(LARGE, backend=host)
    doubles = tensor([0.0], dtype=np.float64, backend=host)
    assert (x + doubles).tolist() == LARGE
    halves = tensor([0.5], dtype=float16, backend=host)
    assert rt.concat([tensor([2048], backend=host), halves]).tolist() == [2048, 0.5]
    with pytest.raises(PrecisionError, match=r"become float16 here, which has no 2049"):
        rt.concat([tensor([2049], backend=host), halves])
    assert tensor([2049], backend=host).astype(float16).tolist() == [2048]


@pytest.mark.parametrize("is_computed", [False, True])
def test_a_replayed_step_refuses_integers_as_well(host: Backend, is_computed: bool) -> None:
    if not is_capturing(host):
        pytest.skip("it replays nothing")
    arrays = [np.array([n, n], np.int32) for n in (1, 2, 2**24 + 1)]
    inputs = [host.upload(array) for array in arrays]

    def step(given: Any) -> Tensor:
        x = Tensor(given, host)
        return ((x + x - x if is_computed else x) * 0.5).sum()

    with host.observe() as observed:
        step(inputs[0])
    with host.record([inputs[1]], observed) as recorded:
        recorded.keep([step(recorded.inputs[0])._array])
    recorded.replay([inputs[0]])
    again = recorded.replay if recorded.fits([inputs[2]]) else lambda batch: step(batch[0])
    with pytest.raises(PrecisionError, match="16777217"):
        again([inputs[2]])


def test_comparisons_with_numbers_are_exact(backend: Backend) -> None:
    """As of Python's numbers, whatever float32 has."""
    values = [-(2**31), -(2**24) - 1, -3, 0, 1, 2, 2**24, 2**24 + 1, 2**31 - 1]
    others = [0.5, -2.5, 2.0, float(2**24 + 1), 2**24 + 0.5, 2.0**31, 2**31, -1e300, math.inf, 1]
    x = tensor(values, backend=backend)
    for other in [*others, math.nan]:
        for compare in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq):
            assert compare(x, other).tolist() == [compare(value, other) for value in values]
            assert compare(other, x).tolist() == [compare(other, value) for value in values]


def test_means_of_integers_are_right_beyond_what_float32_has(backend: Backend) -> None:
    near = tensor([2**24 + 1, -(2**24)], backend=backend)
    assert near.mean().item() == 0.5
    assert tensor([2**31 - 1, -(2**31), 1], backend=backend).mean().item() == 0
    small = np.random.default_rng(0).integers(-9, 3, (1000, 3))
    found = tensor(small, backend=backend).mean(0)
    np.testing.assert_allclose(found.numpy(), small.mean(0), rtol=1e-6)
    assert (tensor([1, 2], backend=backend) == tensor([1, 3], backend=backend)).mean().item() == 0.5


def test_integers_beside_a_fraction_that_a_function_is_given(backend: Backend) -> None:
    """The fraction was lost, or a message of NumPy was all."""
    scaled: Callable[..., Tensor] = elementwise(lambda x, *, k: x * k)
    for count in (3, 5000):
        x = np.arange(-1, count - 1)
        for k in (0.5, 2.0):
            found = scaled(tensor(x, backend=backend), k=k)
            assert found.dtype == float32
            np.testing.assert_array_equal(found.numpy(), x * k)
    assert scaled(tensor([1, 2], backend=backend), k=2).dtype == int32
    np.testing.assert_allclose(rt.leaky_relu(tensor([-2, 2], backend=backend)).numpy(), [-0.02, 2])


def test_numbers_that_are_set_are_not_rounded_unasked(host: Backend) -> None:
    x = zeros(3, backend=host)
    exactly = r"become float32 here, which has no 16777217"
    for value in (2**24 + 1, np.array([1, 2, 2**24 + 1]), tensor(LARGE, backend=host)):
        with pytest.raises(PrecisionError, match=exactly):
            x[...] = value
    with pytest.raises(PrecisionError, match=exactly):
        rt.full(2, 2**24 + 1, backend=host)
    with pytest.raises(PrecisionError, match=exactly):
        rt.pad(x, [(1, 1)], 2**24 + 1)
    assert rt.full(1, 2**30, backend=host).tolist() == [2**30]
    assert rt.full(1, 2**24 + 1, dtype=int32, backend=host).tolist() == [2**24 + 1]


def test_products_of_einsum_do_not_wrap_around(host: Backend) -> None:
    """Which is what a refused product of matrices recommends."""
    large, one = (tensor([n, -n], backend=host) for n in (2**20, 1))
    with pytest.raises(
        OverflowError, match=r"einsum: the product 1099511627776 does not fit int32"
    ):
        rt.einsum("i,i->", large, large)
    with pytest.raises(OverflowError, match="sum: 2147483648"):
        rt.einsum("i,i->", tensor([2**30, 2**30], backend=host), one.abs())
    assert rt.einsum("i,j->ij", large, one).tolist() == [[2**20, -(2**20)], [-(2**20), 2**20]]
    assert rt.einsum("i,i->", large, tensor([2047, 2047], backend=host)).tolist() == 0
