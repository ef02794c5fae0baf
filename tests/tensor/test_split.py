"""Parts of an axis, and their gradients side by side."""

from __future__ import annotations

import numpy as np
import pytest

from rumus.tensor import Backend, Parameter, concat, layer_norm, split, tensor


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("parts", [3, [1, 4, 1], [6, 0]])
def test_the_parts_are_those_of_numpy(parts: int | list[int], axis: int, backend: Backend) -> None:
    host = np.arange(216, dtype=np.float32).reshape(6, 6, 6)
    edges = parts if isinstance(parts, int) else np.cumsum(parts)[:-1]
    found = split(tensor(host, backend=backend), parts, axis)
    for part, wanted in zip(found, np.split(host, edges, axis), strict=True):
        np.testing.assert_array_equal(part.numpy(), wanted)
    np.testing.assert_array_equal(concat(found, axis).numpy(), host)


@pytest.mark.parametrize("is_leaf", [True, False])
@pytest.mark.parametrize("used", [(0,), (1, 2), (2, 0, 1), (1, 1, 0)])
def test_the_gradients_are_those_of_slices(
    used: tuple[int, ...], is_leaf: bool, backend: Backend
) -> None:
    """Also of parts that are not used, used twice, and of a tensor that has another use."""
    host = np.random.default_rng(0).standard_normal((5, 9)).astype(np.float32)
    found = []
    for slices in (False, True):
        p = Parameter(host, backend=backend)
        x = p if is_leaf else p * 1.0
        parts = [x[:, i : i + 3] for i in (0, 3, 6)] if slices else split(x, 3, -1)
        terms = [(parts[i] * parts[i] * float(n + 1)).sum() for n, i in enumerate(used)]
        loss = sum(terms, start=(layer_norm(x) * x).sum())
        found.append(loss.backward()[p].numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parts", [4, 0, -1, [2, 3], [7, -1], []])
def test_parts_that_do_not_make_up_the_axis(parts: int | list[int]) -> None:
    with pytest.raises(ValueError, match=r"split: .* does not cut axis 0"):
        split(tensor(np.ones((6, 2))), parts)
