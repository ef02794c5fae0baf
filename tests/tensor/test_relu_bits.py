"""relu on NumPy: the bits of `maximum` with the number 0, whichever loop of NumPy runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.tensor.compiled.special import relu


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32])
@pytest.mark.parametrize(
    "shape", [(), (1,), (7, 5), (2048,), (64, 128), (3, 5, 999), (32768,), (32769,), (0, 4)]
)
def test_bits(shape: tuple[int, ...], dtype: type) -> None:
    x: NDArray[Any] = np.random.default_rng(0).normal(0, 9, shape).astype(dtype)
    if x.size > 8 and x.dtype.kind == "f":
        x.reshape(-1)[:6] = [-0.0, np.nan, -np.nan, np.inf, -np.inf, np.finfo(dtype).tiny]
    expected: NDArray[Any] = np.empty(shape, dtype)
    np.maximum(x, 0, out=expected)
    out: NDArray[Any] = np.empty(shape, dtype)
    relu(x, out=out)
    assert out.tobytes() == expected.tobytes()
    turned: NDArray[Any] = np.empty(shape, dtype).T
    relu(x.T, out=turned)
    assert turned.T.tobytes() == expected.tobytes()
    relu(x, out=x)
    assert x.tobytes() == expected.tobytes()
