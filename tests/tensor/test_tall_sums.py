"""Layers' sums of many numbers stay accurate: one table, on every backend.

Plain float32 addition loses digits: a million times 0.1 is 100,958. Each row sums as many numbers
as a large batch has rows, a picture has places, or a vocabulary has words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import pytest

from rumus.tensor import (
    Backend,
    Parameter,
    Tensor,
    avg_pool,
    convolution,
    gather,
    layer_norm,
    linear,
    rms_norm,
    scaled_dot_product_attention,
    tensor,
)
from rumus.tensor.operations.batch_norm import batch_norm

Pair = tuple[Any, Any]  # the result, and the same in float64
Make = Callable[[Any], Tensor]  # an array on the backend
Kind = Callable[[Make, Callable[[Any], Parameter], Any], Pair]  # x: (rows, 2), all positive


def wide(x: Any) -> Any:
    return x.astype(np.float64)


def share(result: Tensor, parameter: Parameter) -> Any:
    return result.sum().backward()[parameter].numpy()


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def of_embedding(t: Make, p: Callable[[Any], Parameter], x: Any) -> Pair:
    index = (np.arange(len(x)) % 7 == 0).astype(np.int32)
    w = p(ones(3, 2))
    found = share(gather(w, t(index)) * t(x), w)
    return found[:2], [wide(x)[index == i].sum(0) for i in range(2)]


def of_weights(t: Make, p: Callable[[Any], Parameter], x: Any) -> Pair:
    w, b = p(ones(3, 2)), p(ones(3))
    g = np.concatenate([x, x[::-1, :1]], 1)
    grads = (linear(t(x), w, b) * t(g)).sum().backward()
    found = np.concatenate([grads[w].numpy().reshape(-1), grads[b].numpy()])
    return found, np.concatenate([(wide(g).T @ wide(x)).reshape(-1), wide(g).sum(0)])


def of_one_output(t: Make, p: Callable[[Any], Parameter], x: Any) -> Pair:
    w = p(ones(1, 2))
    return share(linear(t(x), w) * t(x[:, :1]), w), wide(x[:, :1]).T @ wide(x)


def of_bias_alone(t: Make, p: Callable[[Any], Parameter], x: Any) -> Pair:
    b = p(ones(2))
    return share(linear(t(x), t(ones(2, 2)), b) * t(x), b), wide(x).sum(0)


def of_layer_norm(t: Make, p: Callable[[Any], Parameter], x: Any) -> Pair:
    w, b = p(ones(2)), p(ones(2))
    rows = np.broadcast_to(np.array([1, 3], np.float32), x.shape).copy()  # normalized: -1 and 1
    grads = (layer_norm(t(rows), w, b, eps=1e-12) * t(x)).sum().backward()
    found = np.stack([grads[w].numpy(), grads[b].numpy()])
    return found, np.stack([wide(x).sum(0) * [-1, 1], wide(x).sum(0)])


def of_rms_norm(t: Make, p: Callable[[Any], Parameter], x: Any) -> Pair:
    w = p(ones(2))
    return share(rms_norm(t(ones(*x.shape)), w, eps=1e-12) * t(x), w), wide(x).sum(0)


def of_batch_norm(t: Make, p: Callable[[Any], Parameter], x: Any) -> Pair:
    w, b = p(ones(2)), p(ones(2))
    y, total, squares = batch_norm(t(x), w, b, eps=1e-5)
    bias = share(y * t(x), b)
    found = np.concatenate([total.numpy(), squares.numpy(), bias])
    return found, np.concatenate([wide(x).sum(0), wide(x).var(0) * len(x), wide(x).sum(0)])


def of_planes(t: Make, p: Callable[[Any], Parameter], x: Any) -> Pair:
    planes = np.ascontiguousarray(x.T)[None]
    w, b = p(ones(2)), p(ones(2))
    y, total, squares = batch_norm(t(planes), w, b, eps=1e-5)
    bias = share(y * t(planes), b)
    found = np.concatenate([total.numpy(), squares.numpy(), bias])
    return found, np.concatenate([wide(x).sum(0), wide(x).var(0) * len(x), wide(x).sum(0)])


def of_convolution(t: Make, p: Callable[[Any], Parameter], x: Any) -> Pair:
    line = np.ascontiguousarray(x.T)[None]  # one picture with many places
    w, b = p(ones(3, 2, 1)), p(ones(3))
    g = np.concatenate([line, line[:, :1]], 1)
    grads = (convolution(t(line), w, b) * t(g)).sum().backward()
    found = np.concatenate([grads[w].numpy().reshape(-1), grads[b].numpy()])
    exact = wide(g[0]) @ wide(line[0]).T
    return found, np.concatenate([exact.reshape(-1), wide(g[0]).sum(1)])


def of_many_pictures(t: Make, p: Callable[[Any], Parameter], x: Any) -> Pair:
    pictures = x[: len(x) // 16 * 16].reshape(-1, 2, 4, 4)  # many pictures with few places
    w = p(ones(2, 2, 4, 4))
    g = np.ascontiguousarray(pictures[:, :, :1, :1])
    found = share(convolution(t(pictures), w) * t(g), w)
    return found, np.einsum("no,nchw->ochw", wide(g[:, :, 0, 0]), wide(pictures))


def of_channels(t: Make, p: Callable[[Any], Parameter], x: Any) -> Pair:
    line = np.ascontiguousarray(x.T)[None]
    w = p(ones(2, 1, 1))
    found = share(convolution(t(line), w, groups=2) * t(line), w)
    return found.reshape(-1), (wide(x) ** 2).sum(0)


def of_pool(t: Make, p: Callable[[Any], Parameter], x: Any) -> Pair:
    plane = x[: len(x) // 500 * 500, 0].reshape(1, 1, -1, 500)
    return avg_pool(t(plane), plane.shape[2:]).numpy().reshape(()), wide(plane).mean()


def of_attention(t: Make, p: Callable[[Any], Parameter], x: Any) -> Pair:
    rows = x[:2048]
    q, k = np.zeros((1, 2), np.float32), np.zeros_like(rows)
    y = scaled_dot_product_attention(t(q), t(k), t(rows))
    return y.numpy()[0], wide(rows).mean(0)


def of_loss(t: Make, p: Callable[[Any], Parameter], x: Any) -> Pair:
    b = p(np.zeros(2, np.float32))
    loss = -(t(x) + b).log_softmax(-1)[:, 0].mean()
    exact = np.log1p(np.exp(wide(x[:, 1]) - wide(x[:, 0])))
    found = np.append(loss.backward()[b].numpy(), loss.numpy())
    mean = -np.expm1(-exact).mean()
    return found, np.array([-mean, mean, exact.mean()])


# Sums over many rows, places or elements, and which number each one repeats.
KINDS: Final[Mapping[str, Kind]] = {
    "sum over rows": lambda t, p, x: (t(x).sum(0).numpy(), wide(x).sum(0)),
    "sum of all": lambda t, p, x: (t(x).sum().numpy(), wide(x).sum()),
    "mean of a row": lambda t, p, x: (t(x.T.copy()).mean(-1).numpy(), wide(x).mean(0)),
    "variance over rows": lambda t, p, x: (t(x).var(0).numpy(), wide(x).var(0)),
    "scalar product": lambda t, p, x: ((t(x[:, 0]) @ t(x[:, 1])).numpy(), wide(x[:, 0]) @ x[:, 1]),
    "matrix by vector": lambda t, p, x: ((t(x.T) @ t(x[:, 1])).numpy(), wide(x).T @ wide(x[:, 1])),
    "weight and bias of linear": of_weights,
    "weight of one output": of_one_output,
    "bias of linear alone": of_bias_alone,
    "weight and bias of a layer norm": of_layer_norm,
    "weight of an RMS norm": of_rms_norm,
    "batch norm of rows": of_batch_norm,
    "batch norm of planes": of_planes,
    "embedding": of_embedding,
    "weight and bias of a convolution": of_convolution,
    "weight over many pictures": of_many_pictures,
    "weight of a convolution by channels": of_channels,
    "pool of a whole picture": of_pool,
    "values of attention": of_attention,
    "loss and its gradient": of_loss,
    "logsumexp": lambda t, p, x: (
        t(x[None, :, 0]).logsumexp(-1).numpy(), np.log(np.exp(wide(x[None, :, 0])).sum(-1))
    ),
    "softmax of a long row": lambda t, p, x: (
        t(x[None, :, 0]).softmax(-1).numpy()[0, :5],
        (np.exp(wide(x[:, 0])) / np.exp(wide(x[:, 0])).sum())[:5],
    ),
    "softmax over rows": lambda t, p, x: (
        t(x).softmax(0).numpy()[:5], (np.exp(wide(x)) / np.exp(wide(x)).sum(0))[:5]
    ),
    "scale of a long row": lambda t, p, x: (
        rms_norm(t(x[None, :, 0])).numpy()[0, :5],
        (wide(x[:, 0]) / np.sqrt((wide(x[:, 0]) ** 2).mean() + 1e-5))[:5],
    ),
}  # fmt: skip


@pytest.mark.parametrize("numbers", ["equal", "random"])
@pytest.mark.parametrize("kind", KINDS)
def test_sums_in_layers_keep_their_digits(kind: str, numbers: str, backend: Backend) -> None:
    rows = 200_001 if backend.name == "gpu" else 600_001
    x = np.full((rows, 2), 0.1, np.float32)
    if numbers == "random":
        x = np.random.default_rng(0).random((rows, 2), np.float32) + np.float32(0.5)
    elif "batch norm" in kind or kind == "variance over rows":
        x[::2] = 0.3  # equal numbers have no variance
    found, exact = KINDS[kind](
        lambda a: tensor(np.ascontiguousarray(a), backend=backend),
        lambda a: Parameter(a, backend=backend),
        x,
    )
    # For equal numbers all roundings go the same way; a GPU and a BLAS add some hundred in a row.
    is_worst = numbers == "equal" and (backend.name == "gpu" or "attention" in kind)
    np.testing.assert_allclose(found, exact, rtol=2e-5 if is_worst else 2e-6)
