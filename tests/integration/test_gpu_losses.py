"""Losses of class numbers on the GPU, where targets are not checked before use."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest

from rumus import nn
from rumus.tensor import NumpyBackend, Parameter, gpu_backend, int32, linear, tensor

X: Final = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
LOSSES: Final = (nn.cross_entropy_loss, nn.nll_loss, nn.focal_loss, nn.multi_margin_loss)
REDUCTIONS: Final = ("mean", "sum", "none")


def found(loss: Any, targets: Any, backend: Any, **options: Any) -> tuple[Any, Any]:
    x = Parameter(X, backend=backend)
    zero = tensor(0, dtype=int32, backend=backend)
    numbers = tensor(targets, dtype=int32, backend=backend) + zero  # which the host does not know
    losses = loss(x, numbers, **options)
    return losses.numpy(), losses.sum().backward()[x].numpy()


@pytest.mark.parametrize("wrong", [-1, 4, -100])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_number_that_is_no_class_gives_nan_and_so_its_gradient(
    loss: Any, reduction: Any, wrong: int
) -> None:
    options = {} if loss is nn.multi_margin_loss else {"ignore_index": 2}
    losses, gradient = found(loss, [0, wrong, 1], gpu_backend(), reduction=reduction, **options)
    if reduction == "none":
        assert np.isnan(losses).tolist() == [False, True, False]
        assert np.isfinite(gradient[[0, 2]]).all()
    else:
        assert np.isnan(losses)
    assert np.isnan(gradient[1]).all()


@pytest.mark.parametrize("ignored", [-100, 2])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_numbers_of_classes_and_ignored_ones_are_as_on_the_cpu(
    loss: Any, reduction: Any, ignored: int
) -> None:
    is_margin = loss is nn.multi_margin_loss
    options = {} if is_margin else {"ignore_index": ignored}
    targets = [0, 3 if is_margin else ignored, 1]
    here, there = (
        found(loss, targets, backend, reduction=reduction, **options)
        for backend in (NumpyBackend(), gpu_backend())
    )
    for on_cpu, on_gpu in zip(here, there, strict=True):
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", [NumpyBackend, gpu_backend])
def test_sums_and_means_of_one_tensor(backend: Any) -> None:
    """Each gives all elements the same gradient, which must not be materialized too early."""
    x = Parameter(X, backend=backend())
    y = x * 2
    products = linear(y, tensor(np.eye(4), backend=y.backend))
    total = y.mean() + y.sum() * 0.5 + y.reshape(-1).mean() + x.mean() + y.T.sum() + y[:1].mean()
    gradient = (total + products.sum() + (y * y).mean()).backward()[x].numpy()
    wanted = 2 * (2 / 12 + 0.5 + 1 + 1) + 1 / 12 + np.where(np.arange(3) == 0, 0.5, 0.0)[:, None]
    np.testing.assert_allclose(gradient, wanted + 8 * X / 12, rtol=1e-6)
