"""Losses: values against formulas in NumPy, gradients against finite differences, and errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rumus import nn
from rumus.tensor import (
    Backend,
    BackendMismatchError,
    DType,
    Generator,
    NumpyBackend,
    Parameter,
    Tensor,
    arange,
    float16,
    float32,
    tensor,
)
from rumus.tensor.graph.means import noting_means

REDUCTIONS = ("mean", "sum", "none")


def any_of(value: object) -> Any:
    """Passes what a type checker would refuse, to test the error at run time."""
    return value


def normal(shape: tuple[int, ...], seed: int = 0) -> NDArray[Any]:
    """Numbers that are the same in float32 and float64."""
    return Generator(seed).normal(shape).numpy()


def probabilities(shape: tuple[int, ...]) -> NDArray[Any]:
    weights = np.exp(normal(shape, 9).astype(np.float64))
    weights[..., 0] = 0
    return np.asarray(weights / weights.sum(-1, keepdims=True))


# Gradients


def case_of(
    loss: Callable[..., Tensor], shape: tuple[int, ...], *arguments: Any, **options: Any
) -> Callable[[DType, Backend], tuple[Sequence[Parameter], Callable[[], Tensor]]]:
    def case(dtype: DType, backend: Backend) -> tuple[list[Parameter], Callable[[], Tensor]]:
        x = Parameter(normal(shape), dtype=dtype, backend=backend, name="x")
        return [x], lambda: loss(x, *arguments, **options)

    return case


CLASSES = np.array([[3, 0, 1], [4, 4, 2]])
SOME = np.array([[3, -100, 1], [-100, 4, 2]])
CE, BCE = nn.cross_entropy_loss, nn.binary_cross_entropy_with_logits
YES = np.abs(np.sin(np.arange(15.0))).reshape(3, 5)
W5 = np.array([0.5, 2.0, 0.0, 1.0, 3.0])
SIGNS = np.sign(normal((3, 5), 4))
CASES = {
    **{
        f"cross entropy, {name} {reduction}": case_of(
            CE, shape, targets, reduction=reduction, **options
        )
        for reduction in REDUCTIONS
        for name, shape, targets, options in (
            ("weights", (2, 3, 5), SOME, {"weight": W5, "label_smoothing": 0.2}),
            ("axis 1", (2, 5, 3), SOME, {"axis": 1, "weight": W5}),
            ("axis 0", (5, 2, 3), CLASSES, {"axis": 0, "label_smoothing": 0.1}),
            ("samples", (2, 3, 5), SOME, {"sample_weight": [[1.0], [0.5]]}),
            ("both", (2, 5, 3), SOME, {"axis": 1, "weight": W5, "sample_weight": [[1.0, 0, 2]]}),
            (
                "weights of probabilities",
                (5, 3),
                probabilities((3, 5)).T,
                {"axis": 0, "weight": W5},
            ),
        )
    },
    **{
        f"cross entropy {name} {reduction}": case_of(
            CE, (2, 3, 5), targets, reduction=reduction, **options
        )
        for reduction in REDUCTIONS
        for name, targets, options in (
            ("classes", CLASSES, {}),
            ("some ignored", SOME, {}),
            ("ignored class", CLASSES, {"ignore_index": 4}),
            ("smoothed", CLASSES, {"label_smoothing": 0.2}),
            ("smoothed, some ignored", SOME, {"label_smoothing": 0.1}),
            ("probabilities", probabilities((2, 3, 5)), {}),
            ("smoothed probabilities", probabilities((2, 3, 5)), {"label_smoothing": 0.3}),
        )
    },
    **{
        f"{loss.__name__}, {which}": case_of(loss, shape, *given, **options)
        for loss, which, shape, given, options in (
            (nn.smooth_l1_loss, "", (3, 5), [normal((3, 5), 1)], {"beta": 0.4}),
            (nn.binary_cross_entropy_with_logits, "none", (3, 5), [YES], {"reduction": "none"}),
            (nn.nll_loss, "classes", (2, 3, 5), [SOME], {"reduction": "none"}),
            (nn.nll_loss, "axis", (2, 5, 3), [SOME], {"axis": 1, "weight": W5}),
            (nn.kl_div, "", (3, 5), [YES], {}),
            (nn.kl_div, "logs", (3, 5), [-YES], {"log_target": True, "reduction": "batchmean"}),
            (nn.poisson_nll_loss, "", (3, 5), [YES * 4], {"full": True}),
            (nn.gaussian_nll_loss, "", (3, 5), [YES, YES + 0.5], {"sample_weight": [1.0, 2, 0]}),
            (nn.hinge_loss, "", (3, 5), [SIGNS], {"sample_weight": [1.0, 2, 0]}),
            (nn.hinge_embedding_loss, "", (3, 5), [SIGNS], {"margin": 0.5}),
            (nn.soft_margin_loss, "", (3, 5), [SIGNS], {}),
            (nn.multi_margin_loss, "", (3, 5), [[0, 4, 4]], {"weight": W5}),
            (nn.focal_loss, "", (2, 3, 5), [SOME], {"gamma": 1.5, "weight": W5 + 0.1}),
            (nn.focal_loss, "axis", (2, 5, 3), [SOME], {"axis": 1}),
            (nn.sigmoid_focal_loss, "", (3, 5), [YES], {}),
            (nn.sigmoid_focal_loss, "no alpha", (3, 5), [YES], {"alpha": None, "gamma": 0.7}),
            (nn.ctc_loss, "", (2, 7, 4), [[[1, 2, 2], [3, 1, 0]]], {"target_lengths": [3, 2]}),
            (nn.ctc_loss, "none", (3, 4, 3), [np.zeros((3, 0), int)], {"reduction": "none"}),
        )
    },
    "cross entropy of one example": case_of(CE, (4,), 2),
    "cross entropy of one class": case_of(CE, (3, 1), [0, 0, 0]),
    **{
        f"{loss.__name__} {reduction}": case_of(
            loss, (3, 5), normal((3, 5), 1), reduction=reduction
        )
        for loss in (nn.mse_loss, nn.l1_loss, nn.huber_loss)
        for reduction in REDUCTIONS
    },
    "huber, small delta": case_of(nn.huber_loss, (7,), normal((7,), 1), delta=0.3),
    "squared, no axes": case_of(nn.mse_loss, (), 0.5),
    **{f"binary {r}": case_of(BCE, (3, 5), YES, reduction=r) for r in REDUCTIONS},
    "binary weight": case_of(BCE, (3, 5), YES, weight=np.arange(1.0, 4.0)[:, None]),
    "binary pos_weight": case_of(BCE, (3, 5), YES, pos_weight=np.arange(1.0, 6.0)),
    "binary both": case_of(BCE, (3, 5), YES, weight=0.5, pos_weight=3.0, reduction="sum"),
}


@pytest.mark.filterwarnings("ignore:cross_entropy_loss of one class:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str, check_gradients: Any) -> None:
    check_gradients(CASES[name])


def test_gradients_of_losses_of_several_inputs(check_gradients: Any) -> None:
    def case(dtype: DType, backend: Backend) -> tuple[list[Parameter], Callable[[], Tensor]]:
        x, y, z = (
            Parameter(normal((4, 5), seed), dtype=dtype, backend=backend) for seed in range(3)
        )
        signs = [1.0, -1.0, -1.0, 1.0]

        def total() -> Tensor:
            ranked = nn.margin_ranking_loss(x, y, np.sign(normal((4, 5), 8)), margin=0.3)
            near = nn.triplet_margin_loss(x, y, z, swap=True, reduction="none")
            angles = nn.cosine_embedding_loss(x, y, signs, sample_weight=[1.0, 2.0, 3.0, 0.0])
            pairs = nn.contrastive_loss(y, z, [True, False, False, True], margin=4.0)
            overlap = nn.dice_loss(x.sigmoid(), y.sigmoid(), reduction="none")
            return near + ranked + angles + pairs + overlap

        return [x, y, z], total

    check_gradients(case)


def test_dice_of_masks(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    p, t = rng.random((2, 3, 4, 5)).astype(np.float32), rng.integers(0, 2, (2, 3, 4, 5))
    for axes, per_class in (((1, 2, 3), False), ((2, 3), True)):
        want = 1 - (2 * (p * t).sum(axes) + 1) / ((p + t).sum(axes) + 1)
        found = nn.dice_loss(tensor(p, backend=backend), t, per_class=per_class, reduction="none")
        np.testing.assert_allclose(found.numpy(), want, rtol=1e-5)
        mean = nn.dice_loss(tensor(p, backend=backend), t, per_class=per_class)
        np.testing.assert_allclose(mean.item(), want.mean(), rtol=1e-5)


def test_contrastive_loss_of_equal_rows_is_flat(backend: Backend) -> None:
    x = Parameter(np.ones((2, 3), np.float32), backend=backend)
    loss = nn.contrastive_loss(x, x.detach(), [True, True])
    assert loss.item() == 0
    assert not loss.backward()[x].numpy().any()


def test_an_invalid_class_gives_nan_on_a_device() -> None:
    device: Any = Device()
    x = tensor(normal((3, 5)), backend=device).log_softmax()
    targets = tensor([1, 7, -100], backend=device)
    device.reads = 0
    losses = nn.nll_loss(x, targets, reduction="none")
    assert device.reads == 0
    assert np.isnan(losses.numpy()).tolist() == [False, True, False]


def test_an_impossible_ctc_target_has_the_chosen_loss(backend: Backend) -> None:
    x = Parameter(normal((2, 3, 4)), backend=backend)
    options: Any = {"zero_infinity": True, "reduction": "none"}
    losses = nn.ctc_loss(x.log_softmax(), [[1, 1, 1], [1, 2, 3]], **options)
    assert losses[0].item() == 0.0
    assert losses[1].item() > 0
    gradient = losses.sum().backward()[x].numpy()
    assert not gradient[0].any()
    assert np.isfinite(gradient).all()


def test_gradients_of_the_targets(check_gradients: Any) -> None:
    """One model's prediction may be another's target."""

    def case(dtype: DType, backend: Backend) -> tuple[list[Parameter], Callable[[], Tensor]]:
        x, t = (Parameter(normal((3, 4), s), dtype=dtype, backend=backend) for s in (1, 2))

        def total() -> Tensor:
            soft = nn.cross_entropy_loss(x, t.softmax())
            return soft + nn.mse_loss(x, t) + nn.huber_loss(x, t) + nn.l1_loss(x, t)

        return [x, t], total

    check_gradients(case)


# Values


def reduce_as(values: NDArray[Any], reduction: str, count: int | None = None) -> NDArray[Any]:
    if reduction == "none":
        return values
    total = values.sum()
    return np.asarray(total if reduction == "sum" else total / (count or values.size))


def log_softmax(x: NDArray[Any]) -> NDArray[Any]:
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(-1, keepdims=True)))


@settings(deadline=None)
@given(
    lead=st.lists(st.integers(1, 4), max_size=3).map(tuple),
    classes=st.integers(2, 6),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    ignored=st.sampled_from([-100, 1, 99]),
    reduction=st.sampled_from(REDUCTIONS),
    as_tensor=st.booleans(),
    seed=st.integers(0, 100),
)
def test_cross_entropy_is_the_formula(
    lead: tuple[int, ...], classes: int, smoothing: float, ignored: int, reduction: Any,
    as_tensor: bool, seed: int,
) -> None:  # fmt: skip
    x = normal((*lead, classes), seed)
    targets = Generator(seed).integers(0, classes, lead).numpy()
    keep = Generator(seed + 1).keep(0.6, lead).numpy()
    keep.reshape(-1)[:1] = True
    targets = np.where(keep, np.where(targets == ignored, 0, targets), ignored)
    logs = log_softmax(x)
    picked = np.take_along_axis(logs, np.where(keep, targets, 0)[..., None], -1)[..., 0]
    losses = np.where(keep, -(1 - smoothing) * picked - smoothing * logs.mean(-1), 0)
    given = tensor(targets) if as_tensor else targets
    found = nn.cross_entropy_loss(
        tensor(x), given, ignore_index=ignored, label_smoothing=smoothing, reduction=reduction
    )
    wanted = reduce_as(losses, reduction, int(keep.sum()))
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found.numpy(), wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_cross_entropy_of_probabilities(reduction: Any, smoothing: float, backend: Backend) -> None:
    x, p = normal((3, 4, 5)), probabilities((3, 4, 5))
    found = nn.cross_entropy_loss(
        tensor(x, backend=backend), p, label_smoothing=smoothing, reduction=reduction
    )
    losses = -(((1 - smoothing) * p + smoothing / 5) * log_softmax(x)).sum(-1)
    np.testing.assert_allclose(found.numpy(), reduce_as(losses, reduction), rtol=1e-5)


def test_class_numbers_are_certain_probabilities(backend: Backend) -> None:
    logits = tensor(normal((4, 5)), backend=backend)
    classes = np.array([0, 4, 2, 2])
    for smoothing in (0.0, 0.1):
        a = nn.cross_entropy_loss(logits, classes, label_smoothing=smoothing)
        b = nn.cross_entropy_loss(logits, np.eye(5)[classes], label_smoothing=smoothing)
        np.testing.assert_allclose(a.item(), b.item(), rtol=1e-6)


def test_extreme_logits(backend: Backend) -> None:
    logits = Parameter([[1e30, -1e30, 0.0], [0.0, -math.inf, 0.0]], backend=backend)
    losses = nn.cross_entropy_loss(logits, [0, 2], reduction="none")
    np.testing.assert_allclose(losses.numpy(), [0, math.log(2)], rtol=1e-6)
    assert np.isfinite(losses.sum().backward()[logits].numpy()).all()
    soft = nn.cross_entropy_loss(logits.detach(), [[1.0, 0.0, 0.0], [0.5, 0.0, 0.5]])
    np.testing.assert_allclose(soft.item(), math.log(2) / 2, rtol=1e-6)
    binary = Parameter([1e30, -1e30, 200.0], backend=backend)
    loss = nn.binary_cross_entropy_with_logits(binary, [1.0, 0.0, 0.0], reduction="none")
    np.testing.assert_allclose(loss.numpy(), [0, 0, 200], rtol=1e-6)
    assert loss.sum().backward()[binary].tolist() == [0.0, 0.0, 1.0]


def test_an_ignored_target_has_no_gradient(backend: Backend) -> None:
    logits = Parameter(normal((3, 4)), backend=backend)
    grads = nn.cross_entropy_loss(logits, [1, -100, 2]).backward()
    assert grads[logits].numpy()[1].tolist() == [0.0] * 4


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_elementwise_losses_are_their_formulas(reduction: Any, backend: Backend) -> None:
    x, t = normal((3, 5)), normal((3, 5), 1).astype(np.float64)
    d = x - t
    sigmoid = 1 / (1 + np.exp(-x.astype(np.float64)))
    weight, positive = np.array([[1.0], [0.0], [2.0]]), np.arange(1.0, 6.0)
    yes, no = -positive * YES * np.log(sigmoid), -(1 - YES) * np.log(1 - sigmoid)
    on = tensor(x, backend=backend)
    r: Any = {"reduction": reduction}
    small = np.where(np.abs(d) <= 0.7, d * d / 2, 0.7 * (np.abs(d) - 0.35))
    for found, wanted in (
        (nn.mse_loss(on, t, **r), d * d),
        (nn.l1_loss(on, t, **r), np.abs(d)),
        (nn.huber_loss(on, t, delta=0.7, **r), small),
        (BCE(on, YES, **r), -YES * np.log(sigmoid) + no),
        (BCE(on, YES, weight=weight, pos_weight=positive, **r), weight * (yes + no)),
        (BCE(on, tensor(YES, backend=backend), pos_weight=positive, **r), yes + no),
    ):
        np.testing.assert_allclose(found.numpy(), reduce_as(wanted, reduction), rtol=2e-5)
        assert found.dtype == float32


def test_targets_of_other_dtypes(backend: Backend) -> None:
    x = tensor([1.0, 2.0], backend=backend)
    for target in ([0, 1], [False, True], np.array([0, 1], np.uint8), np.array([0.0, 1.0])):
        assert nn.mse_loss(x, target).item() == 1.0
        assert nn.mse_loss(x, tensor(target, backend=backend)).item() == 1.0
        assert nn.mse_loss(x, target).dtype == float32
    for dtype in (np.int8, np.uint8, np.int64, np.uint64):
        loss = nn.cross_entropy_loss(x.reshape(1, 2), np.array([1], dtype))
        assert loss.item() == pytest.approx(math.log1p(math.exp(-1)))


def test_float16_is_computed_in_float32(backend: Backend) -> None:
    logits = tensor(np.full((1, 5000), 2.0, np.float16), backend=backend)
    loss = nn.cross_entropy_loss(logits, [7])
    assert logits.dtype == float16
    assert loss.dtype == float32
    np.testing.assert_allclose(loss.item(), math.log(5000), rtol=1e-6)


def test_nan_in_the_data_reaches_the_loss() -> None:
    bad = tensor([[math.nan, 1.0], [0.0, 1.0]])
    for loss in (nn.mse_loss, nn.l1_loss, nn.huber_loss, BCE):
        assert math.isnan(loss(bad, np.ones((2, 2))).item())
    for loss in (nn.mse_loss, nn.l1_loss, nn.huber_loss):
        assert math.isnan(loss(tensor(np.ones((2, 2))), bad).item())
    assert math.isnan(nn.cross_entropy_loss(bad, [0, 1]).item())
    assert not math.isnan(nn.cross_entropy_loss(bad, [-100, 1], reduction="sum").item())


def test_nothing_to_sum(backend: Backend) -> None:
    logits = tensor(np.zeros((2, 3)), backend=backend)
    assert nn.cross_entropy_loss(logits, [-100, -100], reduction="sum").item() == 0.0
    assert nn.cross_entropy_loss(logits, [-100, -100], reduction="none").tolist() == [0.0, 0.0]
    empty = tensor(np.zeros((0, 3)), backend=backend)
    assert nn.cross_entropy_loss(empty, np.zeros(0, int), reduction="sum").item() == 0.0
    assert nn.mse_loss(empty, empty, reduction="none").shape == (0, 3)
    assert BCE(empty, empty, reduction="sum").item() == 0.0


# Errors

X = tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: CE(X, [0, 3]), IndexError, r"target 3 at index \(1,\) is outside \[0, 3\)"),
        (lambda: CE(X, tensor([0, 3])), IndexError, r"target 3 at index \(1,\) .*index \(-100\)"),
        (lambda: CE(X, [-1, 0]), IndexError, r"target -1 at index \(0,\)"),
        (lambda: CE(X, tensor([-100, -1])), IndexError, r"target -1 at index \(1,\)"),
        (lambda: CE(X, [5, 0], ignore_index=0), IndexError, r"target 5 at index \(0,\)"),
        (lambda: CE(X, tensor([5, 0]), ignore_index=0), IndexError, "target 5"),
        (lambda: CE(X, [2**40, 0]), IndexError, "target 1099511627776 at"),
        (lambda: CE(X.reshape(1, 2, 3), [[0, 9]]), IndexError, r"at index \(0, 1\)"),
        (lambda: CE(X.reshape(1, 2, 3), tensor([[0, 9]])), IndexError, r"at index \(0, 1\)"),
        (lambda: CE(X, [-100, -100]), ValueError, "every target is ignored"),
        (lambda: CE(X, tensor([-100, -100])), ValueError, "every target is ignored"),
        (lambda: CE(X, [1, 1], ignore_index=1), ValueError, "every target is ignored"),
        (lambda: CE(X[:0], np.zeros(0, int)), ValueError, "the mean of no targets"),
        (lambda: CE(X[:0], X[:0]), ValueError, "the mean of no targets"),
        (lambda: CE(X, [[0], [1]]), ValueError, r"need shape \(2,\) .*not \(2, 1\)"),
        (lambda: CE(X, 1), ValueError, r"class numbers and need shape \(2,\)"),
        (lambda: CE(X, [0.0, 1.0]), ValueError, r"are probabilities and need shape \(2, 3\)"),
        (lambda: CE(X, tensor([0.0, 1.0])), ValueError, "are probabilities"),
        (lambda: CE(X, [True, False]), TypeError, "must be integers or probabilities, not bool"),
        (lambda: CE(X, tensor([True, False])), TypeError, "not bool"),
        (lambda: CE(X, any_of(["a", "b"])), TypeError, "must be integers or probabilities"),
        (lambda: CE(X, any_of(None)), TypeError, "must be integers or probabilities"),
        (lambda: CE(X.astype(np.int32), [0, 1]), TypeError, "logits must be floating, not int32"),
        (lambda: CE(any_of(np.zeros((2, 3))), [0, 1]), TypeError, "must be a tensor, not ndarray"),
        (lambda: CE(tensor(1.0), 0), ValueError, "have no classes"),
        (lambda: CE(X[:, :0], [0, 0]), ValueError, "have no classes"),
        (lambda: CE(X, [0, 1], axis=2), ValueError, "have no classes on axis 2"),
        (lambda: CE(X, [0, 1], axis=0), ValueError, r"need shape \(3,\) .* classes on axis 0"),
        (lambda: CE(X, [0, 1], weight=[1, 2]), ValueError, r"3 class weights.*got \(2,\)"),
        (lambda: CE(X, [0, 1], weight=[1, -2, 1]), ValueError, "weight of class 1 is -2; weights"),
        (lambda: CE(X, [0, 1], weight=tensor([1, 1, math.nan])), ValueError, "class 2 is nan"),
        (lambda: CE(X, [0, 1], weight=[1, math.inf, 1]), ValueError, "class 1 is inf"),
        (lambda: CE(X, [0, 1], weight=any_of("abc")), TypeError, "class weights must be numbers"),
        (lambda: CE(X, [0, 1], weight=any_of({0: 1.0})), TypeError, "one for each class in order"),
        (lambda: CE(X, [0, 0], weight=[0, 1, 1]), ValueError, "all weights are 0"),
        (
            lambda: CE(X, [0, 1], sample_weight=[1, 2, 3]),
            ValueError,
            "sample_weight .*does not fit",
        ),
        (
            lambda: CE(X, [0, 1], sample_weight=[1, -1]),
            ValueError,
            r"-1.0 at index \(1,\); weights",
        ),
        (lambda: CE(X, [0, 1], label_smoothing=1.5), ValueError, r"in \[0, 1\], not 1.5"),
        (lambda: CE(X, [0, 1], label_smoothing=-0.1), ValueError, r"in \[0, 1\], not -0.1"),
        (lambda: CE(X, [0, 1], label_smoothing=math.nan), ValueError, "not nan"),
        (lambda: CE(X, [0, 1], reduction=any_of("avg")), ValueError, "not 'avg'"),
        (lambda: nn.mse_loss(X, [1.0]), ValueError, r"\(2, 3\) and target \(1,\) must have one"),
        (lambda: nn.l1_loss(X[:, :1], X[:, 0]), ValueError, r"\(2, 1\) and target \(2,\)"),
        (lambda: nn.huber_loss(X, 1.0), ValueError, r"target \(\) must have one shape"),
        (lambda: BCE(X, [1.0]), ValueError, "must have one shape"),
        (lambda: nn.mse_loss(X[:0], X[:0]), ValueError, "the mean of no elements"),
        (lambda: nn.mse_loss(X, X, reduction=any_of("max")), ValueError, "'none', not 'max'"),
        (lambda: nn.mse_loss(X.astype(np.int32), X), TypeError, "must be floating, not int32"),
        (lambda: nn.mse_loss(any_of([1.0]), [1.0]), TypeError, "must be a tensor, not list"),
        (lambda: nn.mse_loss(X, any_of("a")), TypeError, "target must be numbers"),
        (lambda: nn.huber_loss(X, X, delta=0.0), ValueError, "delta must be positive"),
        (lambda: nn.huber_loss(X, X, delta=math.inf), ValueError, "delta must be positive"),
        (lambda: nn.huber_loss(X, X, delta=math.nan), ValueError, "delta must be positive"),
        (lambda: nn.nll_loss(X, [0, 3]), IndexError, r"nll_loss: target 3 at index \(1,\)"),
        (lambda: nn.nll_loss(X, [0.0, 1.0]), ValueError, "class numbers of shape"),
        (lambda: nn.nll_loss(X, [0, 1], weight=[-1, 0, 0]), ValueError, "class 0 is -1"),
        (lambda: nn.kl_div(X, -X), ValueError, "target -.* is outside .*; give probabilities"),
        (lambda: nn.kl_div(X, X, reduction=any_of("x")), ValueError, "not 'x'"),
        (lambda: nn.gaussian_nll_loss(X, X, -X), ValueError, "a variance is negative"),
        (lambda: nn.gaussian_nll_loss(X, X, [1.0] * 3), ValueError, r"variance \(3,\) does not"),
        (lambda: nn.hinge_loss(X, [[1, -1, 0]] * 2), ValueError, r"0.0 at index \(0, 2\) is nei"),
        (lambda: nn.soft_margin_loss(X, X), ValueError, "is neither 1 nor -1"),
        (lambda: nn.cosine_embedding_loss(X, X, [0.5, 1]), ValueError, "is neither 1 nor -1"),
        (lambda: nn.multi_margin_loss(X, [0, -1]), IndexError, r"-1 at index \(1,\) .* \[0, 3\)$"),
        (lambda: nn.multi_margin_loss(X, [-100, 0]), IndexError, r"-100 at index \(0,\) .* 3\)$"),
        (lambda: nn.multi_margin_loss(X, [0]), ValueError, r"class numbers \(batch,\), got"),
        (lambda: nn.triplet_margin_loss(X, X, X[:1]), ValueError, "must have one shape"),
        (lambda: nn.triplet_margin_loss(X, X, X, margin=-1), ValueError, "at least 0, not -1"),
        (lambda: nn.hinge_loss(X, X, margin=-0.5), ValueError, "finite and at least 0, not -0.5"),
        (lambda: nn.contrastive_loss(X, X, [1, 0], margin=-1.0), ValueError, "at least 0, not -1"),
        (
            lambda: nn.cosine_embedding_loss(X, X, [1, -1], margin=2),
            ValueError,
            r"margin must be in \[-1, 1\], not 2",
        ),
        (lambda: nn.focal_loss(X, [0, 1], gamma=-1), ValueError, "gamma must be at least 0"),
        (lambda: nn.focal_loss(X, X), TypeError, "must be class numbers, not float32"),
        (lambda: nn.sigmoid_focal_loss(X, X, alpha=2), ValueError, r"in \[0, 1\], or None, not 2"),
        (lambda: nn.dice_loss(X[0], X[0]), ValueError, "expected more than 1 axes"),
        (lambda: nn.dice_loss(X, X, smooth=-1), ValueError, "smooth must be at least 0"),
        (lambda: nn.smooth_l1_loss(X, X, beta=0), ValueError, "beta must be positive"),
        (lambda: nn.binary_cross_entropy(X - 1, X), ValueError, r"probability -0\.\d+ at index"),
        (lambda: nn.ctc_loss(X, [[1]]), ValueError, r"expected \(batch, length, classes\)"),
        (
            lambda: nn.ctc_loss(X[None], [[1, 1]]),
            ValueError,
            "target 0 is longer than its input: 2",
        ),
        (
            lambda: nn.ctc_loss(X[None], [[0]]),
            IndexError,
            r"target 0 at index \(0, 0\) is not a lab",
        ),
        (lambda: nn.ctc_loss(X[None], [[3]]), IndexError, "without the blank, 0"),
        (
            lambda: nn.ctc_loss(X[None], [[1]], blank=3),
            ValueError,
            r"blank 3 is outside \[0, 3\)",
        ),
        (lambda: nn.ctc_loss(X[None], [[1]], input_lengths=[0]), ValueError, r"\[0\] is 0, which"),
        (lambda: nn.ctc_loss(X[None], [[1]], target_lengths=[2]), ValueError, r"outside \[0, 1\]"),
        (lambda: nn.ctc_loss(X[None], [[1], [2]]), ValueError, r"shape \(1, most labels\), got"),
        (lambda: nn.ctc_loss(X[None], [[1.0]]), TypeError, "targets must be integers"),
        (lambda: nn.mse_loss(X, X, sample_weight=[1, 2, 3]), ValueError, "from its first axis on"),
        (
            lambda: nn.mse_loss(X, X, sample_weight=[1, math.nan]),
            ValueError,
            r"nan at index \(1,\)",
        ),
        (lambda: nn.mse_loss(X, X, sample_weight=[0, 0]), ValueError, "all weights are 0"),
        (lambda: BCE(X, [[0, 1, 0], [0, 2, 0]]), ValueError, r"target 2.0 at index \(1, 1\)"),
        (lambda: BCE(X, -X), ValueError, r"at index \(0, 0\) is outside \[0, 1\]"),
        (lambda: BCE(X, X, weight=[1.0, 2.0]), ValueError, r"weight \(2,\) does not broadcast"),
        (lambda: BCE(X, X, pos_weight=np.ones((4, 2, 3))), ValueError, "pos_weight"),
    ],
)
def test_errors(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# On a device: reading is a transfer


class Device:
    """A backend that is not the CPU's, and counts reads."""

    name = "device"
    runs_ahead = True

    def __init__(self) -> None:
        self.inner = NumpyBackend()
        self.reads = 0

    def download(self, array: Any) -> NDArray[Any]:
        self.reads += 1
        return self.inner.download(array)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.mark.parametrize("target", [-100, -1, 3])
def test_no_target_of_a_margin_is_ignored_beside_a_device(target: int) -> None:
    device: Any = Device()
    logits = tensor(normal((2, 3)), backend=device)
    message = rf"target {target} at index \(1,\) is outside \[0, 3\)$"
    with pytest.raises(IndexError, match=message):
        nn.multi_margin_loss(logits, [0, target])
    assert math.isfinite(nn.multi_margin_loss(logits, [0, 2]).item())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nothing_is_read_from_a_device(smoothing: float, reduction: Any) -> None:
    device: Any = Device()
    options: Any = {"label_smoothing": smoothing, "reduction": reduction}
    for targets in (CLASSES, SOME):
        here = Parameter(normal((2, 3, 5)))
        wanted = nn.cross_entropy_loss(here, targets, **options)
        there = Parameter(normal((2, 3, 5)), backend=device)
        on_device = tensor(targets, backend=device)
        device.reads = 0
        found = nn.cross_entropy_loss(there, on_device, **options)
        grads = found.sum().backward()
        weight = tensor(W5, backend=device)
        nn.cross_entropy_loss(there, on_device, weight=weight, **options)
        assert device.reads == 0
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-6)
        np.testing.assert_allclose(
            grads[there].numpy(), wanted.sum().backward()[here].numpy(), rtol=1e-5, atol=1e-7
        )


def test_elementwise_losses_read_nothing_from_a_device() -> None:
    device: Any = Device()
    x, t = (tensor(np.full((2, 3), v), backend=device) for v in (0.5, 0.25))
    device.reads = 0
    for loss in (nn.mse_loss, nn.l1_loss, nn.huber_loss, BCE):
        loss(x, t)
    assert device.reads == 0


def test_a_mean_over_weights_counts_what_they_weigh() -> None:
    """So that joining the means of batches gives the mean of all of them."""
    x, y = tensor(normal((6, 5))), np.array([0, 1, 3, -100, 4, 4])
    whole = nn.cross_entropy_loss(x, y, weight=W5).item()
    with noting_means() as means:
        parts = [
            nn.cross_entropy_loss(x[a:b], y[a:b], weight=W5).item() for a, b in ((0, 2), (2, 6))
        ]
    counts = [mean.count or 0 for mean in means]
    assert counts == [2.5, 7.0]
    together = sum(float(p) * count for p, count in zip(parts, counts, strict=True))
    assert together / sum(counts) == pytest.approx(whole, rel=1e-6)


def test_a_mean_of_nothing_on_a_device_is_nan() -> None:
    device: Any = Device()
    logits = tensor(normal((2, 3)), backend=device)
    ignored = arange(2, backend=device) * 0 - 100
    assert math.isnan(nn.cross_entropy_loss(logits, ignored).item())


def test_arrays_are_checked_before_they_go_to_a_device() -> None:
    device: Any = Device()
    logits = tensor(normal((2, 3)), backend=device)
    with pytest.raises(IndexError, match="target 3 at index"):
        nn.cross_entropy_loss(logits, [0, 3])
    with pytest.raises(ValueError, match="every target is ignored"):
        nn.cross_entropy_loss(logits, [-100, -100])


@pytest.mark.parametrize("loss", [nn.mse_loss, nn.l1_loss, nn.huber_loss, BCE, CE])
def test_tensors_of_two_backends(loss: Callable[..., Tensor]) -> None:
    here, there = X.softmax(), X.softmax().to(NumpyBackend())
    with pytest.raises(BackendMismatchError, match=r"move one with \.to\(backend\)"):
        loss(here, there)
    if loss is CE:
        with pytest.raises(BackendMismatchError):
            loss(here, tensor([0, 1], backend=NumpyBackend()))


def test_a_negative_share_of_a_class_is_refused_or_counts(backend: Backend) -> None:
    """PyTorch gives 1.8133, and so does a device, which is not asked; it is no probability."""
    logits = tensor([[1.0, 2.0]], backend=backend)
    shares = tensor([[1.5, -0.5]], backend=backend)
    if not isinstance(backend, NumpyBackend):
        loss = nn.cross_entropy_loss(logits, shares)
        assert loss.item() == pytest.approx(1.81326, abs=1e-5)
        return
    with pytest.raises(ValueError, match=r"target 1.5 at index \(0, 0\) is outside \[0, 1\]"):
        nn.cross_entropy_loss(logits, shares)


def test_an_ignored_row_of_nan_has_no_gradient(backend: Backend) -> None:
    logits = np.array([[np.nan, 1.0], [1.0, 2.0]], np.float32)
    x = Parameter(logits, name="x", backend=backend)
    loss = nn.cross_entropy_loss(x, tensor([-1, 1], backend=backend), ignore_index=-1)
    assert loss.item() == pytest.approx(0.3132617, rel=1e-5)
    gradient = loss.backward()[x].numpy()
    np.testing.assert_allclose(gradient, [[0.0, 0.0], [0.2689414, -0.2689414]], rtol=1e-5)


def test_prelu_of_infinity_gives_its_weight_no_gradient(backend: Backend) -> None:
    """It is multiplied by the weight only where it is not positive; 0 times it is NaN."""
    x = Parameter(np.array([np.inf, 2.0, -3.0], np.float32), name="x", backend=backend)
    weight = Parameter([0.25], name="weight", backend=backend)
    result = nn.prelu(x, weight)
    np.testing.assert_array_equal(result.numpy(), [np.inf, 2, -0.75])
    grads = result.sum().backward()
    np.testing.assert_array_equal(grads[weight].numpy(), [-3])
    np.testing.assert_array_equal(grads[x].numpy(), [1, 1, 0.25])
