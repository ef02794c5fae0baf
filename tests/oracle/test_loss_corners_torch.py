"""Losses at their corners: ties, targets that are trained, sizes at the ends of float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rumus import nn
from rumus.tensor import Backend, Parameter

A: Final = np.array([-1.5, -0.3, 0.2, 1.3], np.float32)
T: Final = np.array([0.2, 0.7, 0.4, 0.9], np.float32)
SIGNS: Final = np.array([1, -1, -1, 1], np.float32)


def signs(x: Any) -> Any:
    return torch.tensor(SIGNS, dtype=x.dtype)


def full_poisson(x: Any, t: Any, **options: Any) -> Any:
    """PyTorch's own writes its Stirling term in place, so that it has no gradient by the target."""
    stirling = t * t.log() - t + 0.5 * (2 * np.pi * t).log()
    plain = F.poisson_nll_loss(x, t, full=False, **options)
    return plain + torch.where(t > 1, stirling, 0 * t)


CASES: Final[dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]]] = {
    "kl_div": (nn.kl_div, F.kl_div, (A, T)),
    "kl_div of logs": (
        lambda x, t, **o: nn.kl_div(x, t, log_target=True, **o),
        lambda x, t, **o: F.kl_div(x, t, log_target=True, **o),
        (A, -T),
    ),
    "binary": (nn.binary_cross_entropy, F.binary_cross_entropy, (T, T[::-1].copy())),
    "binary of logits": (
        nn.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, (A, T)
    ),
    "poisson": (nn.poisson_nll_loss, F.poisson_nll_loss, (A, T)),
    "poisson, full": (
        lambda x, t, **o: nn.poisson_nll_loss(x, t, full=True, **o), full_poisson, (A, 3 * T)
    ),
    "gaussian": (nn.gaussian_nll_loss, F.gaussian_nll_loss, (A, T, T)),
    "gaussian, large": (
        nn.gaussian_nll_loss, F.gaussian_nll_loss, (A * 1e20, T, T * 1e25)
    ),
    "smooth_l1, large beta": (
        lambda x, t, **o: nn.smooth_l1_loss(x, t, beta=1e30, **o),
        lambda x, t, **o: F.smooth_l1_loss(x, t, beta=1e30, **o),
        (A * 1e25, T * 1e30),
    ),
    "smooth_l1, small beta": (
        lambda x, t, **o: nn.smooth_l1_loss(x, t, beta=1e-30, **o),
        lambda x, t, **o: F.smooth_l1_loss(x, t, beta=1e-30, **o),
        (A * 1e-25, T * 1e-30),
    ),
    "hinge embedding at the margin": (
        lambda x, **o: nn.hinge_embedding_loss(x, SIGNS, **o),
        lambda x, **o: F.hinge_embedding_loss(x, signs(x), **o),
        (np.ones(4, np.float32),),
    ),
    "ranking of equals": (
        lambda x, y, **o: nn.margin_ranking_loss(x, y, SIGNS, **o),
        lambda x, y, **o: F.margin_ranking_loss(x, y, signs(x), **o),
        (A, A),
    ),
    "cosine embedding at the margin": (
        lambda x, y, **o: nn.cosine_embedding_loss(x, y, -np.ones(2, np.float32), **o),
        lambda x, y, **o: F.cosine_embedding_loss(x, y, -torch.ones(2, dtype=x.dtype), **o),
        (np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[::-1].copy()),
    ),
    "triplet of equals": (
        lambda x, y, z, **o: nn.triplet_margin_loss(x, y, z, margin=1.0, eps=0.0, **o),
        lambda x, y, z, **o: F.triplet_margin_loss(x, y, z, margin=1.0, eps=0.0, **o),
        tuple(np.array([[n, 0]], np.float32) for n in (0, 1, -2)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_focal_loss_keeps_the_digits_of_a_confident_logit(gamma: float, backend: Backend) -> None:
    logits = np.array([-30, -20, -5, 5, 20, 30], np.float32)
    for target in (0.0, 0.2, 1.0):
        t = np.full(6, target, np.float32)
        x = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
        y = torch.tensor(t, dtype=torch.float64)
        missing = (1 - y) * x.sigmoid() + y * (-x).sigmoid()
        entropy = (1 - y) * F.softplus(x) + y * F.softplus(-x)  # PyTorch's own loses digits
        wanted = missing**gamma * entropy
        wanted.sum().backward()
        p = Parameter(logits, backend=backend)
        found = nn.sigmoid_focal_loss(p, t, alpha=None, gamma=gamma, reduction="none")
        np.testing.assert_allclose(found.numpy(), wanted.detach().numpy(), rtol=2e-5)
        assert x.grad is not None
        slope = found.sum().backward()[p].numpy()
        np.testing.assert_allclose(slope, x.grad.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("target", [0.0, 0.25, 0.5, 1.0])
def test_a_binary_loss_of_infinite_logits(target: float, backend: Backend) -> None:
    """It is 0 where the logit is right without a doubt, and infinite elsewhere."""
    logits = np.array([-np.inf, -3e38, -1e20, 1e-40, 1e20, 3e38, np.inf], np.float32)
    t = np.full(7, target, np.float32)
    exact = np.where(logits < 0, -target, 1 - target) * np.clip(logits, -3e38, 3e38, dtype=float)
    exact[3] = np.log(2)
    exact[[0, -1]] = (np.inf if target else 0), (0 if target == 1 else np.inf)
    p = Parameter(logits, backend=backend)
    plain = nn.binary_cross_entropy_with_logits(p, t, reduction="none")
    np.testing.assert_allclose(plain.numpy(), exact, rtol=1e-6)
    slopes = plain.sum().backward()[p].numpy()
    wanted = np.array([-target] * 3 + [0.5 - target] + [1 - target] * 3)
    np.testing.assert_allclose(slopes, wanted, rtol=1e-6)
    focal = nn.sigmoid_focal_loss(p, t, alpha=None, gamma=2.0, reduction="none")
    assert not np.isnan(focal.numpy()).any()


@pytest.mark.parametrize("alpha", [None, 0.0, 0.25, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("target", [0.0, 0.25, 0.5, 1.0])
def test_the_slopes_of_a_focal_loss_of_infinite_logits(
    target: float, gamma: float, alpha: float | None, backend: Backend
) -> None:
    """They are those of a large logit in float64, where nothing overflows."""
    x = torch.tensor([-500.0, -500.0, 500.0, 500.0], dtype=torch.float64, requires_grad=True)
    missing = (1 - target) * x.sigmoid() + target * (-x).sigmoid()
    share = 1.0 if alpha is None else alpha * target + (1 - alpha) * (1 - target)
    entropy = (1 - target) * F.softplus(x) + target * F.softplus(-x)
    (share * missing**gamma * entropy).sum().backward()
    assert x.grad is not None
    p = Parameter(np.array([-np.inf, -3e38, 3e38, np.inf], np.float32), backend=backend)
    t = np.full(4, target, np.float32)
    found = nn.sigmoid_focal_loss(p, t, alpha=alpha, gamma=gamma, reduction="none")
    assert not np.isnan(found.numpy()).any()
    slopes = found.sum().backward()[p].numpy()
    np.testing.assert_allclose(slopes, x.grad.numpy(), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_the_slopes_of_a_focal_loss_of_impossible_classes(gamma: float, backend: Backend) -> None:
    """They are those of the cross entropy: the probability of the target is 0."""
    logits = np.array([[-np.inf, 0, -1], [-3e38, 3e38, 0], [0, -np.inf, -1]], np.float32)
    p, q = (Parameter(logits, backend=backend) for _ in range(2))
    found = nn.focal_loss(p, [0, 0, 0], gamma=gamma, reduction="none")
    plain = nn.cross_entropy_loss(q, [0, 0, 0], reduction="none")
    slopes, wanted = found.sum().backward()[p].numpy(), plain.sum().backward()[q].numpy()
    np.testing.assert_array_equal(found.numpy()[:2], plain.numpy()[:2])
    np.testing.assert_allclose(slopes[:2], wanted[:2], rtol=1e-6)
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("pos_weight", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("target", [0.0, 0.25, 1.0])
def test_a_weighted_binary_loss_of_infinite_logits(
    target: float, pos_weight: float, weight: float, backend: Backend
) -> None:
    x = torch.tensor([-500.0, 500.0], dtype=torch.float64, requires_grad=True)
    positive = pos_weight * target * F.softplus(-x)
    large = weight * (positive + (1 - target) * F.softplus(x))
    large.sum().backward()
    assert x.grad is not None
    p = Parameter(np.array([-np.inf, np.inf], np.float32), backend=backend)
    found = nn.binary_cross_entropy_with_logits(
        p, np.full(2, target, np.float32), weight=weight, pos_weight=pos_weight, reduction="none"
    )
    wanted = np.where(large.detach().numpy() > 1, np.inf, 0)
    np.testing.assert_array_equal(found.numpy(), wanted)
    slopes = found.sum().backward()[p].numpy()
    np.testing.assert_allclose(slopes, x.grad.numpy(), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("target", [0.0, 1.0, 3.0])
def test_a_poisson_loss_of_infinite_logarithms(target: float, backend: Backend) -> None:
    p = Parameter(np.array([-np.inf, np.inf], np.float32), backend=backend)
    found = nn.poisson_nll_loss(p, np.full(2, target, np.float32), reduction="none")
    np.testing.assert_array_equal(found.numpy(), [np.inf if target else 0.0, np.inf])
    slopes = found.sum().backward()[p].numpy()
    np.testing.assert_array_equal(slopes, [-target, np.inf])


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_of_all_operands(name: str, backend: Backend) -> None:
    ours, theirs, arrays = CASES[name]
    arrays = tuple(np.asarray(a, np.float32) for a in arrays)
    others = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    wanted = theirs(*others, reduction="none")
    wanted.sum().backward()
    own = [Parameter(a, backend=backend) for a in arrays]
    found = ours(*own, reduction="none")
    exact = wanted.detach().numpy()
    np.testing.assert_allclose(found.numpy(), exact, rtol=2e-6, atol=1e-7 * np.abs(exact).max())
    grads = found.sum().backward()
    for p, q in zip(own, others, strict=True):
        assert q.grad is not None
        slope = q.grad.numpy()
        size = np.abs(slope).max()
        np.testing.assert_allclose(grads[p].numpy(), slope, rtol=1e-5, atol=2e-6 * size)


@pytest.mark.parametrize("is_of_logs", [False, True])
def test_a_divergence_where_nothing_is_likely(is_of_logs: bool, backend: Backend) -> None:
    """It is 0, also for a prediction that says so, but NaN for one that is NaN."""
    prediction = np.array([-np.inf, -1.0, np.inf, np.nan], np.float32)
    target = np.full(4, -np.inf if is_of_logs else 0.0, np.float32)
    p = Parameter(prediction, backend=backend)
    found = nn.kl_div(p, target, log_target=is_of_logs, reduction="none")
    np.testing.assert_array_equal(found.numpy(), [0, 0, 0, np.nan])
    np.testing.assert_array_equal(found.sum().backward()[p].numpy(), [0, 0, 0, np.nan])


IMPOSSIBLE: Final = np.array([[-np.inf, 0, 1], [0, 1, 2]], np.float32)
WEIGHTLESS: Final[dict[str, Callable[..., Any]]] = {
    "cross_entropy": lambda x: nn.cross_entropy_loss(x, [0, 1], weight=[0, 1, 1]),
    "cross_entropy, smoothed": lambda x: nn.cross_entropy_loss(
        x, [0, 1], weight=[0, 1, 1], label_smoothing=0.25
    ),
    "cross_entropy of probabilities": lambda x: nn.cross_entropy_loss(
        x, np.array([[0.5, 0, 0.5], [0, 1, 0]], np.float32), weight=[0, 1, 1]
    ),
    "cross_entropy of samples": lambda x: nn.cross_entropy_loss(x, [0, 1], sample_weight=[0, 1]),
    "focal": lambda x: nn.focal_loss(x, [0, 1], weight=[0, 1, 1]),
    "nll": lambda x: nn.nll_loss(x, [0, 1], weight=[0, 1, 1]),
    "multi_margin": lambda x: nn.multi_margin_loss(-x, [1, 1], weight=[1, 0, 1]),
    "squares of samples": lambda x: nn.mse_loss(x, np.zeros((2, 3)), sample_weight=[0, 1]),
}


@pytest.mark.parametrize("name", WEIGHTLESS)
def test_a_weight_of_0_leaves_nothing_of_an_infinite_loss(name: str, backend: Backend) -> None:
    """It costs what a large finite loss would; NaN stays NaN."""
    loss = WEIGHTLESS[name]
    p, q = (Parameter(x, backend=backend) for x in (IMPOSSIBLE, np.maximum(IMPOSSIBLE, -1e4)))
    found, wanted = loss(p), loss(q)
    np.testing.assert_allclose(found.item(), wanted.item(), rtol=1e-6)
    if "squares" not in name:  # whose derivative is infinite as well
        slopes, exact = found.backward()[p].numpy(), wanted.backward()[q].numpy()
        np.testing.assert_allclose(slopes, exact, rtol=1e-5, atol=1e-7)
    unknown = Parameter(np.array([[np.nan, 0, 1], [0, 1, 2]], np.float32), backend=backend)
    assert np.isnan(loss(unknown).item()) or name == "multi_margin"


def test_probabilities_under_the_smallest_normal_number(backend: Backend) -> None:
    """Sigmoids of -90 and less, at which 1 / p is infinite; a GPU may take them as 0."""
    p = Parameter(np.array([1e-40, 1e-39, 0.0, 0.5], np.float32), backend=backend)
    each = nn.binary_cross_entropy(p, np.ones(4, np.float32), reduction="none")
    loss = each.sum()
    q = torch.tensor([1e-40, 1e-39, 0.0, 0.5], requires_grad=True)
    F.binary_cross_entropy(q, torch.ones(4), reduction="sum").backward()
    assert q.grad is not None
    np.testing.assert_allclose(loss.backward()[p].numpy(), q.grad.numpy(), rtol=1e-5)
    if backend.name != "gpu":
        expected = F.binary_cross_entropy(q, torch.ones(4), reduction="none").detach().numpy()
        np.testing.assert_allclose(each.detach().numpy(), expected, rtol=1e-6)
