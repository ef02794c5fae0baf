"""Long loops: a driver that ends them early gets shorter ones, or the call is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

from rumus.gpu import Gpu, GpuBackend, LimitError
from rumus.gpu.device.turns import check_turns
from rumus.tensor import (
    NumpyBackend,
    Parameter,
    Tensor,
    avg_pool,
    convolution,
    cross_entropy,
    gather,
    layer_norm,
    max_pool,
    scaled_dot_product_attention,
    tensor,
)

Make = Callable[[Any], Tensor]


def numbers(*shape: int) -> Any:
    return np.random.default_rng(0).random(shape, np.float32) + np.float32(0.5)


def attended(t: Make) -> Tensor:
    return scaled_dot_product_attention(
        t(numbers(1, 4)), t(numbers(60_000, 4)), t(numbers(60_000, 4))
    )


# If its loops were not split, each would run more than 65,535 iterations in one invocation.
LONG: Final[dict[str, Callable[[Make], Tensor]]] = {
    "softmax": lambda t: t(numbers(1, 6_000_000)).softmax(-1)[:, -9:] * 6e6,
    "log_softmax": lambda t: t(numbers(1, 6_000_000)).log_softmax(-1)[:, -9:],
    "layer_norm": lambda t: layer_norm(t(numbers(1, 10_000_000)))[:, -9:],
    "cross_entropy": lambda t: cross_entropy(
        t(numbers(1, 6_000_000)), t(np.array([5_999_999], np.int32))
    ),
    "product": lambda t: t(numbers(2, 100_000)) @ t(numbers(100_000, 3)),
    "average": lambda t: avg_pool(t(numbers(1, 1, 300, 301)), (300, 300), stride=1),
    "largest": lambda t: max_pool(t(numbers(1, 1, 300, 301)), (300, 300), stride=1),
    "attention": attended,
    "convolution": lambda t: convolution(t(numbers(1, 40_000, 2)), t(numbers(1, 40_000, 2))),
    "sum": lambda t: t(numbers(9_000_000, 3)).sum(0),
}


@pytest.mark.parametrize("name", LONG)
def test_long_loops_are_right_or_refused(name: str, gpu: GpuBackend) -> None:
    def on(place: Any) -> np.ndarray:
        return LONG[name](lambda a: tensor(a, backend=place)).numpy()

    found, refusal = None, ""
    try:
        found = on(gpu)
    except LimitError as error:
        refusal = str(error)
    if found is None:
        assert gpu.gpu.is_software
        assert "65,535 iterations" in refusal
    else:
        np.testing.assert_allclose(found, on(NumpyBackend()), rtol=2e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_many_repeats_of_a_number_are_all_added(dtype: Any, gpu: GpuBackend) -> None:
    table = Parameter(np.zeros((3, 2), dtype), backend=gpu)
    index = np.zeros(70_000, np.int32)
    index[::1000] = 2
    g = (numbers(70_000, 2) / 100).astype(dtype)
    found = (gather(table, tensor(index, backend=gpu)) * tensor(g, backend=gpu)).sum().backward()
    exact = np.stack([g[index == i].sum(0, dtype=np.float64) for i in range(3)])
    rtol = 2e-6 if dtype == np.float32 else 1e-3
    np.testing.assert_allclose(found[table].numpy(), exact, rtol=rtol)


def test_long_loops_are_probed_once_per_device() -> None:
    gpu = GpuBackend(Gpu())
    check_turns(gpu, "a short loop", 1000, "nothing")
    assert gpu.gpu.counts_on is None
    for _ in range(2):
        refusal = ""
        try:
            check_turns(gpu, "a loop", 70_000, "use a shorter one")
        except LimitError as error:
            refusal = str(error)
        is_early = gpu.gpu.counts_on is False
        assert ("70,000 are needed; use a shorter one" in refusal) is is_early
    assert gpu.stats.dispatches == (1 if gpu.gpu.is_software else 0)
