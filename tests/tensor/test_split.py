"""Parts of an axis, with their gradients side by side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rumus.tensor import (
    Backend,
    Parameter,
    Tensor,
    avg_pool,
    batch_norm,
    concat,
    convolution,
    convolution_transpose,
    feed_forward,
    gelu,
    layer_norm,
    linear,
    max_pool,
    scaled_dot_product_attention,
    split,
    tensor,
)


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
    """Including parts that are unused or used twice, and a tensor with another use."""
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
def test_parts_that_do_not_add_up_to_the_axis(parts: int | list[int]) -> None:
    with pytest.raises(ValueError, match=r"split: .* does not split axis 0"):
        split(tensor(np.ones((6, 2))), parts)


# A function of one part and other tensors, all shapes (that of both parts first), and the axis.
USES: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]], int]] = {
    "channels": (convolution, [(3, 8, 6, 7), (2, 4, 3, 3)], 1),
    "columns": (convolution, [(3, 2, 6, 14), (2, 2, 3, 3)], 3),
    "kernels": (lambda w, x: convolution(x, w), [(4, 2, 3, 4), (3, 2, 6, 7)], 3),
    "transposed": (convolution_transpose, [(3, 6, 4, 5), (3, 2, 3, 3)], 1),
    "batch norm": (lambda x: batch_norm(x)[0], [(4, 6, 5)], 1),
    "its weight": (lambda w, x: batch_norm(x, w, w)[0], [(6,), (4, 3, 5)], 0),
    "layer norm": (layer_norm, [(5, 8), (4,)], 1),
    "the weight": (lambda w, x: layer_norm(x, w, w), [(6,), (5, 3)], 0),
    "linear": (linear, [(5, 8), (3, 4)], 1),
    "rows": (lambda w, x: linear(x, w, w[:, 0]), [(3, 8), (5, 4)], 1),
    "both layers": (lambda u, x: feed_forward(x, u, None, u.T, None, activation=gelu),
                    [(6, 8), (5, 4)], 1),
    "product": (lambda x, y: x @ y, [(2, 5, 8), (2, 4, 3)], 2),
    "factor": (lambda x, y: x * y, [(5, 8), (4,)], 1),
    "heads": (lambda k, q: scaled_dot_product_attention(q, k, k), [(2, 4, 5, 4), (2, 4, 5, 4)], 1),
    "pictures": (lambda x: max_pool(x, 2) + avg_pool(x, 2), [(2, 6, 4, 4)], 1),
}  # fmt: skip


@pytest.mark.parametrize("name", USES)
def test_whatever_reads_a_part_writes_its_gradient_where_it_belongs(
    name: str, backend: Backend
) -> None:
    """The destination is a view that need not be dense: not every operation can write to it."""
    use, shapes, axis = USES[name]
    normal = np.random.default_rng(1).standard_normal
    host = [normal(shape).astype(np.float32) for shape in shapes]
    found = []
    for slices in (False, True):
        p, *others = (Parameter(array, backend=backend) for array in host)
        x, half = p * 1.0, shapes[0][axis] // 2
        cuts = [(slice(None),) * axis + (slice(i, i + half),) for i in (0, half)]
        first, second = [x[cut] for cut in cuts] if slices else split(x, 2, axis)
        result = use(first, *others) - use(second, *others) * 2.0
        weights = tensor(np.cos(np.arange(result.size)), dtype="float32", backend=backend)
        grads = (result.flatten() * weights).sum().backward()
        found.append([grads[q].numpy() for q in (p, *others)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
