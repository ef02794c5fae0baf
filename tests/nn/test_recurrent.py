"""LSTM, GRU and RNN on every backend: gradients, lengths, float16, and refused input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.tensor import (
    Backend,
    DType,
    Generator,
    Parameter,
    Tensor,
    float16,
    no_grad,
    ones,
    tensor,
)


def normal(shape: tuple[int, ...], seed: int = 0) -> Any:
    return Generator(seed).normal(shape).numpy()


LAYERS: dict[str, Callable[..., Any]] = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "RNN": nn.RNN,
    "RNN of relu": lambda *given, **o: nn.RNN(*given, nonlinearity="relu", **o),
}


@pytest.mark.parametrize("lengths", [None, [3, 1]], ids=["whole", "lengths"])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name: str, lengths: Any, check_gradients: Any) -> None:
    def case(dtype: DType, backend: Backend) -> tuple[list[Parameter], Callable[[], Tensor]]:
        options: Any = {"bidirectional": True, "dtype": dtype, "backend": backend}
        layer = LAYERS[name](2, 3, generator=Generator(1), **options)
        x = Parameter(normal((2, 3, 2)), dtype=dtype, backend=backend)
        h = Parameter(normal((2, 2, 3), 1), dtype=dtype, backend=backend)

        def compute() -> Tensor:
            state = (h, h * 0.5) if name == "LSTM" else h
            out, last = layer(x, state, lengths=lengths)
            ends = last[0] * last[1] if name == "LSTM" else last
            found: Tensor = out.sum() * 0.3 + out[:, 0].sum() + ends
            return found

        return [x, h, *layer.parameters()], compute

    check_gradients(case)


@pytest.mark.parametrize("name", LAYERS)
def test_large_layers_are_the_same_everywhere(name: str, backend: Backend) -> None:
    """Large enough for the kernels of whole sequences; the reference is float64 in NumPy."""
    results: list[list[Any]] = []
    for dtype, place in ((np.float64, None), (np.float32, backend)):
        layer = LAYERS[name](5, 32, generator=Generator(0), dtype=dtype)
        layer.to(place) if place is not None else None
        x = Parameter(normal((12, 24, 5)), dtype=dtype, backend=place)
        out, last = layer(x, lengths=[24, 3, 17] * 4)
        ends = last[0] + last[1] if name == "LSTM" else last
        grads = (out.sum() + (ends * ends).sum()).backward()
        found = [out, ends, grads[x], *(grads[p] for p in layer.parameters())]
        results.append([t.numpy() for t in found])
    for mine, wanted in zip(results[1], results[0], strict=True):
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(mine / scale, wanted / scale, atol=2e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_steps_after_the_end_do_not_count(name: str, backend: Backend) -> None:
    layer = LAYERS[name](2, 3, generator=Generator(1), bidirectional=True, backend=backend)
    x = normal((2, 5, 2))
    other = x.copy()
    other[0, 2:] = 100.0
    lengths = np.array([2, 5])
    a, b = (layer(tensor(v, backend=backend), lengths=lengths)[0].numpy() for v in (x, other))
    np.testing.assert_array_equal(a, b)
    assert not a[0, 2:].any()
    alone = layer(tensor(x[:1, :2], backend=backend))[0].numpy()
    np.testing.assert_allclose(a[:1, :2], alone, rtol=1e-5, atol=1e-6)
    on_device = tensor(lengths, backend=backend)
    again = layer(tensor(x, backend=backend), lengths=on_device)[0].numpy()
    np.testing.assert_array_equal(a, again)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_two_dispatches_a_step(kind: Any) -> None:
    gpu = pytest.importorskip("rumus.gpu").default_backend()
    layer = kind(4, 8, generator=Generator(0), backend=gpu)
    counts = []
    for length in (3, 13):
        x = ones((2, length, 4), backend=gpu)
        layer(x)[0].sum().backward()
        before = gpu.stats.dispatches, gpu.stats.bytes_down
        with no_grad():
            layer(x)
        middle = gpu.stats.dispatches
        layer(x)[0].sum().backward()
        assert gpu.stats.bytes_down == before[1]
        counts.append((middle - before[0], gpu.stats.dispatches - middle))
    forward, both = (counts[1][n] - counts[0][n] for n in (0, 1))
    assert forward == 2 * 10
    assert both == 4 * 10


def test_float16_is_computed_in_float32(backend: Backend) -> None:
    layer = nn.GRU(2, 3, generator=Generator(0), backend=backend)
    x = normal((2, 4, 2)).astype(np.float16)
    wide = layer(tensor(x.astype(np.float32), backend=backend))[0].numpy()
    out, h = layer.half()(tensor(x, backend=backend))
    assert out.dtype == h.dtype == float16
    np.testing.assert_allclose(out.numpy(), wide, atol=3e-3)


def test_dropout_is_between_layers_and_for_training() -> None:
    layer = nn.LSTM(2, 3, layers=2, dropout=0.5, generator=Generator(0))
    x = ones((2, 4, 2))
    assert layer(x)[0].tolist() != layer(x)[0].tolist()
    layer.eval()
    assert layer(x)[0].tolist() == layer(x)[0].tolist()
    for make in LAYERS.values():
        with pytest.warns(UserWarning, match=r"dropout=0\.5 has no effect with layers=1") as told:
            single = make(2, 3, dropout=0.5, generator=Generator(0))
        assert told[0].filename == __file__
    assert single(x)[0].tolist() == single(x)[0].tolist()


@pytest.mark.parametrize("lengths", [None, np.zeros(0, np.int32)], ids=["whole", "lengths"])
@pytest.mark.parametrize("name", LAYERS)
def test_an_empty_batch_has_gradients_of_0(name: str, lengths: Any, backend: Backend) -> None:
    layer = LAYERS[name](3, 4, bidirectional=True, backend=backend)
    x = Parameter(np.zeros((0, 5, 3)), backend=backend)
    y = layer(x, lengths=lengths)[0]
    grads = y.sum().backward()
    assert y.shape == (0, 5, 8)
    assert grads[x].shape == x.shape
    assert not any(grads[weight].numpy().any() for weight in layer.parameters())


def test_nan_stays_in_its_sample(backend: Backend) -> None:
    x = normal((3, 4, 2))
    x[1, 2, 0] = np.nan
    for make in LAYERS.values():
        out = make(2, 3, generator=Generator(0), backend=backend)(tensor(x, backend=backend))[0]
        assert np.isnan(out.numpy()).any(2).tolist() == [
            [False] * 4, [False, False, True, True], [False] * 4,
        ]  # fmt: skip


LAYER = nn.LSTM(2, 3, generator=Generator(0))
X = ones((2, 4, 2))


def any_of(value: object) -> Any:
    return value


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: LAYER(X[:, :0]), ValueError, "a sequence of length 0 has no states"),
        (
            lambda: LAYER(X[..., :1]),
            ValueError,
            r"LSTM: expected \(batch, length, 2\) or .*got \(2, 4, 1\)",
        ),
        (lambda: LAYER(X[0, 0]), ValueError, "expected .*, got"),
        (
            lambda: LAYER(X, lengths=[4, 0]),
            ValueError,
            r"lengths\[1\] is 0, .* outside \[1, 4\]",
        ),
        (lambda: LAYER(X, lengths=tensor([5, 1])), ValueError, r"lengths\[0\] is 5"),
        (lambda: LAYER(X, lengths=[4]), ValueError, "lengths are 2 integers, one a sequence"),
        (lambda: LAYER(X, lengths=any_of([1.0, 2.0])), ValueError, "not float64"),
        (lambda: LAYER(X[0], lengths=[4]), ValueError, "lengths need a batch"),
        (lambda: LAYER(X, any_of(X)), ValueError, r"must be \(h, c\), each of shape \(1, 2, 3\)"),
        (lambda: LAYER(X, (ones((1, 2, 3)), ones((1, 1, 3)))), ValueError, "first state must be"),
        (lambda: nn.GRU(2, 3)(X, ones((2, 3))), ValueError, r"must be a tensor of \(1, 2, 3\)"),
        (lambda: nn.LSTM(0, 3), ValueError, r"at least 1, not \(0, 3, 1\)"),
        (lambda: nn.RNN(2, 3, nonlinearity=any_of("sin")), ValueError, "not 'sin'"),
        (lambda: nn.LSTM(2, 3, dropout=2.0), ValueError, r"p must be in \[0, 1\]"),
        (lambda: any_of(nn.LSTM)(2, 3, num_layers=2), TypeError, "here it is layers"),
    ],
)
def test_errors(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
