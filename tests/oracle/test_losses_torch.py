"""The losses of rumus.nn against PyTorch's on the CPU: values and gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rumus import nn
from rumus.tensor import Backend, Generator, Parameter, Tensor, tensor

F = torch.nn.functional
Function = Callable[..., Any]


def normal(shape: tuple[int, ...], seed: int = 0) -> NDArray[Any]:
    return Generator(seed).normal(shape).numpy()


SHAPE: Final = (5, 7)
SIGNS: Final = np.sign(normal(SHAPE, 3))
COUNTS: Final = np.floor(np.abs(3 * normal(SHAPE, 4)))
PROBABILITIES: Final = np.exp(normal(SHAPE, 5)) / np.exp(normal(SHAPE, 5)).sum(1, keepdims=True)
YES: Final = (normal(SHAPE, 6) > 0).astype(float)
CLASSES: Final = np.array([2, 0, 6, 6, 1])
SPREAD: Final = np.abs(normal(SHAPE, 7))
SPREAD[0, 0] = 1e-9
WEIGHT: Final = np.abs(normal((7,), 8))
IMAGE: Final = np.array([[[0, 3, 1], [2, -100, 2]], [[1, 1, 0], [-100, 3, 3]]])

# Name -> ours, PyTorch's, their arguments as arrays, the shapes of the differentiated ones, the
# options; a reduction is added.
Row = tuple[Function, Function, Sequence[Any], Sequence[tuple[int, ...]], dict[str, Any]]
LOSSES: Final[dict[str, Row]] = {
    "smooth_l1": (nn.smooth_l1_loss, F.smooth_l1_loss, [SIGNS], [SHAPE], {"beta": 0.7}),
    "soft_margin": (nn.soft_margin_loss, F.soft_margin_loss, [SIGNS], [SHAPE], {}),
    "hinge_embedding": (
        nn.hinge_embedding_loss, F.hinge_embedding_loss, [SIGNS], [SHAPE], {"margin": 0.8}
    ),
    "margin_ranking": (
        nn.margin_ranking_loss, F.margin_ranking_loss, [SIGNS], [SHAPE, SHAPE], {"margin": 0.3}
    ),
    "kl_div": (nn.kl_div, F.kl_div, [PROBABILITIES * (YES > 0)], [SHAPE], {}),
    "kl_div of logs": (
        nn.kl_div, F.kl_div, [np.log(PROBABILITIES)], [SHAPE], {"log_target": True}
    ),
    "poisson": (nn.poisson_nll_loss, F.poisson_nll_loss, [COUNTS], [SHAPE], {"full": True}),
    "gaussian": (
        nn.gaussian_nll_loss, F.gaussian_nll_loss, [normal(SHAPE, 9), SPREAD], [SHAPE],
        {"full": True},
    ),
    "triplet": (nn.triplet_margin_loss, F.triplet_margin_loss, [], [SHAPE] * 3, {}),
    "triplet, swapped": (
        nn.triplet_margin_loss, F.triplet_margin_loss, [], [SHAPE] * 3,
        {"swap": True, "p": 1.5, "margin": 0.4},
    ),
    "cosine": (
        nn.cosine_embedding_loss, F.cosine_embedding_loss, [SIGNS[:, 0]], [SHAPE, SHAPE],
        {"margin": 0.2},
    ),
    "multi_margin": (nn.multi_margin_loss, F.multi_margin_loss, [CLASSES], [SHAPE], {}),
    "multi_margin, weighted": (
        nn.multi_margin_loss, F.multi_margin_loss, [CLASSES], [SHAPE],
        {"weight": WEIGHT, "margin": 0.7},
    ),
    "nll": (nn.nll_loss, F.nll_loss, [CLASSES], [SHAPE], {"ignore_index": 6}),
    "nll, weighted": (nn.nll_loss, F.nll_loss, [CLASSES], [SHAPE], {"weight": WEIGHT}),
    "nll over axis 1": (
        lambda *given, **o: nn.nll_loss(*given, axis=1, **o), F.nll_loss, [IMAGE],
        [(2, 4, 2, 3)], {"weight": WEIGHT[:4]},
    ),
}  # fmt: skip


def closest(found: Any, wanted: Any, dtype: Any) -> None:
    close = 2e-5 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(found, wanted, rtol=close, atol=close)


def there(array: NDArray[Any], dtype: Any) -> Any:
    return torch.tensor(array if array.dtype.kind == "i" else array.astype(dtype))


@pytest.mark.filterwarnings("ignore:reduction:UserWarning")  # "mean" is not the divergence
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str, reduction: str, dtype: Any) -> None:
    ours, theirs, arrays, shapes, options = LOSSES[name]
    start = [normal(shape, seed).astype(dtype) for seed, shape in enumerate(shapes)]
    mine = [Parameter(array, dtype=dtype) for array in start]
    other = [torch.tensor(array, requires_grad=True) for array in start]
    given = [a if a.dtype.kind == "i" else a.astype(dtype) for a in arrays]
    found = ours(*mine, *given, reduction=reduction, **options)
    beside = {k: there(v, dtype) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    wanted = theirs(*other, *(there(a, dtype) for a in arrays), reduction=reduction, **beside)
    assert found.shape == tuple(wanted.shape)
    closest(found.numpy(), wanted.detach().numpy(), dtype)
    weights = np.cos(np.arange(found.size)).reshape(found.shape).astype(dtype)
    grads = (found * tensor(weights, dtype=dtype)).sum().backward()
    (wanted * torch.tensor(weights)).sum().backward()
    for parameter, leaf in zip(mine, other, strict=True):
        assert leaf.grad is not None
        closest(grads[parameter].numpy(), leaf.grad.numpy(), dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("log_input", [True, False])
def test_poisson_of_rates_and_probabilities(log_input: bool, reduction: Any, dtype: Any) -> None:
    rates = np.abs(normal(SHAPE)).astype(dtype) + dtype(0.1)
    p, q = Parameter(rates, dtype=dtype), torch.tensor(rates, requires_grad=True)
    found = nn.poisson_nll_loss(p, COUNTS, log_input=log_input, reduction=reduction)
    wanted = F.poisson_nll_loss(q, there(COUNTS, dtype), log_input, reduction=reduction)
    closest(found.numpy(), wanted.detach().numpy(), dtype)
    share = Parameter(rates / 5, dtype=dtype)
    beside = torch.tensor(rates / 5, requires_grad=True)
    binary = nn.binary_cross_entropy(share, YES, reduction=reduction)
    theirs = F.binary_cross_entropy(beside, there(YES, dtype), reduction=reduction)
    closest(binary.numpy(), theirs.detach().numpy(), dtype)
    grads = (found.sum() + binary.sum()).backward()
    (wanted.sum() + theirs.sum()).backward()
    assert q.grad is not None
    assert beside.grad is not None
    closest(grads[p].numpy(), q.grad.numpy(), dtype)
    closest(grads[share].numpy(), beside.grad.numpy(), dtype)


def test_binary_cross_entropy_ends_at_100() -> None:
    p, q = Parameter([0.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 1.0], requires_grad=True)
    found = nn.binary_cross_entropy(p, [1.0, 0.0, 1.0], reduction="none")
    wanted = F.binary_cross_entropy(q, torch.tensor([1.0, 0.0, 1.0]), reduction="none")
    assert found.tolist() == wanted.tolist() == [100.0, 100.0, 0.0]


def test_a_probability_of_0_or_1_has_a_gradient(backend: Backend) -> None:
    """A float32 sigmoid is 1 from 17 on. Wrong predictions have PyTorch's slope."""
    shares, targets = [0.0, 1.0, 0.25, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0, 1.0]
    p, q = Parameter(shares, backend=backend), torch.tensor(shares, requires_grad=True)
    grads = nn.binary_cross_entropy(p, targets, reduction="sum").backward()
    F.binary_cross_entropy(q, torch.tensor(targets), reduction="sum").backward()
    assert q.grad is not None
    found = grads[p].numpy()
    np.testing.assert_allclose(found[:3], q.grad.numpy()[:3], rtol=1e-5)
    np.testing.assert_allclose(
        found[3:], [1, -1], rtol=1e-5
    )  # the slope of log(1 - p); 0 in PyTorch


@pytest.mark.parametrize("copies", [1, 3000])
def test_a_confident_logit_keeps_its_digits(copies: int, backend: Backend) -> None:
    x = np.tile([10.0, 12.0, 16.5, 20.0, 50.0, 3.0], copies)
    yes = np.ones_like(x)
    for signs, target in ((1, yes), (-1, 0 * yes), (1, 0.9 * yes), (1, 0.2 * yes)):
        p = Parameter(signs * x, dtype=np.float32, backend=backend)
        q = torch.tensor(x, requires_grad=True)  # PyTorch is accurate on this side only
        given = target if signs == 1 else 1 - target
        wanted = F.binary_cross_entropy_with_logits(q, torch.tensor(given), reduction="none")
        wanted.sum().backward()
        found = nn.binary_cross_entropy_with_logits(p, target, reduction="none")
        np.testing.assert_allclose(found.numpy(), wanted.detach().numpy(), rtol=3e-5)
        assert q.grad is not None
        np.testing.assert_allclose(
            signs * found.sum().backward()[p].numpy(), q.grad.numpy(), rtol=1e-3, atol=1e-9
        )
        focal = nn.sigmoid_focal_loss(p, target, alpha=None, gamma=0.0, reduction="none")
        np.testing.assert_allclose(focal.numpy(), wanted.detach().numpy(), rtol=3e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["huber_loss", "smooth_l1_loss"])
def test_an_infinite_difference_has_a_slope(name: str, backend: Backend) -> None:
    values = [np.inf, -np.inf, 3e30, -1e20, 0.5, 1.0, 0.0]
    p, q = Parameter(values, backend=backend), torch.tensor(values, requires_grad=True)
    grads = getattr(nn, name)(p, np.zeros(7), reduction="sum").backward()
    getattr(F, name)(q, torch.zeros(7), reduction="sum").backward()
    assert q.grad is not None
    np.testing.assert_array_equal(grads[p].numpy(), q.grad.numpy())


def test_batchmean_is_the_divergence() -> None:
    logs = np.log(PROBABILITIES[::-1])
    found = nn.kl_div(tensor(logs), PROBABILITIES, reduction="batchmean")
    wanted = F.kl_div(torch.tensor(logs), torch.tensor(PROBABILITIES), reduction="batchmean")
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_the_gradient_of_a_variance() -> None:
    spread = SPREAD.astype(np.float64)
    x, y = Parameter(spread, dtype=np.float64), torch.tensor(spread, requires_grad=True)
    target = normal(SHAPE, 9).astype(np.float64)
    loss = nn.gaussian_nll_loss(tensor(SIGNS * 1.0, dtype=np.float64), target, x)
    F.gaussian_nll_loss(torch.tensor(SIGNS * 1.0).double(), torch.tensor(target), y).backward()
    assert y.grad is not None
    np.testing.assert_allclose(loss.backward()[x].numpy(), y.grad.numpy(), rtol=1e-9)
    rows = nn.gaussian_nll_loss(tensor(SIGNS), target, np.abs(normal((5,), 2)))
    wanted = F.gaussian_nll_loss(
        torch.tensor(SIGNS).double(), torch.tensor(target), torch.tensor(np.abs(normal((5,), 2)))
    )
    assert rows.item() == pytest.approx(wanted.item(), rel=1e-5)


def focal(x: torch.Tensor, t: torch.Tensor, alpha: float | None, gamma: float) -> torch.Tensor:
    """The formula of arXiv:1708.02002 for two classes."""
    p = x.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    missing = 1 - (p * t + (1 - p) * (1 - t))
    weight = 1.0 if alpha is None else alpha * t + (1 - alpha) * (1 - t)
    return weight * missing**gamma * entropy


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_focal_losses(alpha: float | None, gamma: float) -> None:
    start = normal(SHAPE).astype(np.float64)
    x, y = Parameter(start, dtype=np.float64), torch.tensor(start, requires_grad=True)
    loss = nn.sigmoid_focal_loss(x, YES, alpha=alpha, gamma=gamma)
    wanted = focal(y, torch.tensor(YES), alpha, gamma).mean()
    closest(loss.numpy(), wanted.detach().numpy(), np.float64)
    wanted.backward()
    assert y.grad is not None
    closest(loss.backward()[x].numpy(), y.grad.numpy(), np.float64)
    entropy = F.cross_entropy(y, torch.tensor(CLASSES), reduction="none", ignore_index=0)
    weight = torch.tensor(WEIGHT).double()[torch.tensor(CLASSES)]
    each = weight * (1 - (-entropy).exp()) ** gamma * entropy
    mean = each[torch.tensor(CLASSES) != 0].mean()
    y.grad = None
    mean.backward()
    ours = nn.focal_loss(x, CLASSES, gamma=gamma, weight=WEIGHT, ignore_index=0)
    closest(ours.numpy(), mean.detach().numpy(), np.float64)
    kept = CLASSES != 0
    closest(ours.backward()[x].numpy()[kept], y.grad.numpy()[kept], np.float64)


CTC_SHAPES: Final = [(3, 12, 5, 4), (2, 30, 7, 10), (1, 1, 3, 1), (4, 9, 4, 3), (2, 90, 30, 40)]


@pytest.mark.parametrize("shape", CTC_SHAPES, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("blank", [0, 2])
def test_ctc(shape: tuple[int, int, int, int], reduction: Any, blank: int) -> None:
    batch, length, classes, most = shape
    rng = np.random.default_rng(0)
    start = rng.normal(size=(batch, length, classes))
    labels = rng.integers(1, classes, (batch, most)).astype(np.int32)
    labels[labels == blank] = 1 if blank != 1 else 2
    counts = rng.integers(0, most + 1, batch)
    lengths = rng.integers(1, length + 1, batch)
    x, y = Parameter(start, dtype=np.float64), torch.tensor(start, requires_grad=True)
    options: Any = {"blank": blank, "reduction": reduction, "zero_infinity": True}
    found = nn.ctc_loss(
        x.log_softmax(), labels, input_lengths=lengths, target_lengths=counts, **options
    )
    wanted = F.ctc_loss(
        y.log_softmax(-1).transpose(0, 1), torch.tensor(labels), torch.tensor(lengths),
        torch.tensor(counts), **options,
    )  # fmt: skip
    np.testing.assert_allclose(found.numpy(), wanted.detach().numpy(), rtol=1e-9, atol=1e-12)
    wanted.sum().backward()
    assert y.grad is not None
    gradient = found.sum().backward()[x].numpy()
    np.testing.assert_allclose(gradient, y.grad.numpy(), rtol=1e-7, atol=1e-10)


def test_weighted_means_are_those_of_pytorch() -> None:
    weight, target = np.abs(normal(SHAPE, 2)), normal(SHAPE, 1)
    x, y = tensor(normal(SHAPE)), torch.tensor(normal(SHAPE))
    pairs: list[tuple[Callable[..., Tensor], Function]] = [
        (nn.mse_loss, F.mse_loss), (nn.l1_loss, F.l1_loss), (nn.huber_loss, F.huber_loss),
    ]  # fmt: skip
    for ours, theirs in pairs:
        found = ours(x, target, sample_weight=weight)
        losses = theirs(y, torch.tensor(target), reduction="none") * torch.tensor(weight)
        wanted = losses.sum() / weight.sum()
        assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
