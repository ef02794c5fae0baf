"""Metrics over a set, split into batches in any way, match scikit-learn's for the whole set."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rumus.optim import SGD
from rumus.tensor import Backend, Parameter, Tensor, float64, tensor
from rumus.train import Trainer, metrics
from rumus.train.metrics import MetricState

sklearn = pytest.importorskip("sklearn.metrics")

Cut = list[slice]


@st.composite
def cuts(draw: st.DrawFn, size: int = 40) -> Cut:
    places = sorted(draw(st.sets(st.integers(1, size - 1), max_size=8)))
    return [slice(*pair) for pair in itertools.pairwise([0, *places, size])]


def over(cut: Cut, metric: Callable[..., MetricState], a: Any, b: Any, **options: Any) -> float:
    return float(reduce(add, [metric(a[part], b[part], **options) for part in cut]))


def classified(seed: int, classes: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """With ties among the scores, and sometimes without some of the classes."""
    random = np.random.default_rng(seed)
    scores = random.integers(0, 4, (40, classes)).astype(np.float32)
    return scores, random.integers(0, max(1, classes - seed % 2), 40)


@settings(max_examples=40, deadline=None)
@given(cut=cuts(), seed=st.integers(0, 10_000), classes=st.integers(2, 5))
def test_classification(cut: Cut, seed: int, classes: int) -> None:
    scores, targets = classified(seed, classes)
    said = scores.argmax(1)
    assert over(cut, metrics.accuracy, scores, targets) == pytest.approx((said == targets).mean())
    for name, positive in itertools.product(("precision", "recall", "f1"), (None, 1)):
        found = over(cut, getattr(metrics, name), scores, targets, positive=positive)
        how: dict[str, Any] = {"average": "macro"}
        if positive is not None:
            how = {"average": "macro", "labels": [positive]}
        expected = getattr(sklearn, f"{name}_score")(targets, said, zero_division=0, **how)
        assert found == pytest.approx(expected), (name, positive)
    matrix = reduce(add, [metrics.confusion_matrix(scores[p], targets[p]) for p in cut])
    expected = sklearn.confusion_matrix(targets, said, labels=range(classes))
    np.testing.assert_array_equal(matrix.parts[0], expected)
    if classes > 2:
        found = over(cut, metrics.accuracy, scores, targets, top=2)
        labels = np.arange(classes)
        assert found == pytest.approx(
            sklearn.top_k_accuracy_score(targets, scores, k=2, labels=labels)
        )


@settings(max_examples=40, deadline=None)
@given(cut=cuts(), seed=st.integers(0, 10_000), share=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_ranking(cut: Cut, seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    scores, targets = random.integers(0, 12, 40) / 8, (random.random(40) < share).astype(np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sklearn.roc_auc_score(targets, scores) if 0 < targets.sum() < 40 else np.nan
        precise = sklearn.average_precision_score(targets, scores)
    assert over(cut, metrics.auroc, scores, targets) == pytest.approx(expected, nan_ok=True)
    assert over(cut, metrics.average_precision, scores, targets) == pytest.approx(precise)


@settings(max_examples=40, deadline=None)
@given(cut=cuts(), seed=st.integers(0, 10_000), far=st.sampled_from([0.0, 1e4]))
def test_regression(cut: Cut, seed: int, far: float) -> None:
    random = np.random.default_rng(seed)
    targets = random.normal(far, 1, 40)
    found = targets + random.normal(0, 0.3, 40)
    for metric, expected in (
        (metrics.mean_absolute_error, sklearn.mean_absolute_error(targets, found)),
        (metrics.root_mean_squared_error, sklearn.root_mean_squared_error(targets, found)),
        (metrics.r2, sklearn.r2_score(targets, found)),
    ):
        assert over(cut, metric, found, targets) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    cut=cuts(),
    seed=st.integers(0, 10_000),
    shape=st.sampled_from([(1,), (3,), (2, 2)]),
    constant=st.sampled_from(["no", "one output", "one output, right"]),
)
def test_regression_of_several_outputs(
    cut: Cut, seed: int, shape: tuple[int, ...], constant: str
) -> None:
    """R2 is the mean of the outputs' own: each of them has its mean and its scale."""
    random = np.random.default_rng(seed)
    scale = 10.0 ** np.arange(np.prod(shape)).reshape(shape)
    targets = (random.normal(5, 1, (40, *shape))) * scale
    found = targets + random.normal(0, 0.3, targets.shape) * scale[::-1]
    if constant != "no":
        targets.reshape(40, -1)[:, 0] = 2.0
        if "right" in constant:
            found.reshape(40, -1)[:, 0] = 2.0
    expected = sklearn.r2_score(targets.reshape(40, -1), found.reshape(40, -1))
    assert over(cut, metrics.r2, found, targets) == pytest.approx(expected, rel=1e-9)


def test_r2_of_one_output_with_an_axis_of_its_own() -> None:
    random = np.random.default_rng(0)
    found, targets = random.normal(size=(2, 6))
    both = metrics.r2(found[:4], targets[:4]) + metrics.r2(found[4:, None], targets[4:, None])
    assert float(both) == pytest.approx(sklearn.r2_score(targets, found))


@pytest.mark.parametrize("size", [1, 4, 16, 64, 300])
def test_a_validation_is_exact_whatever_its_batches(size: int) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 2)).astype(np.float32)
    y = (x[:, 0] + random.normal(size=300) > 1.5).astype(np.int32)
    weight = Parameter([0.5, 1.0], name="weight")

    def validate(x: Tensor, y: Tensor) -> dict[str, Any]:
        score = x[:, 0]
        scores = np.stack([np.full(len(x.numpy()), 0.5), score.numpy()], 1)
        return {"f1": metrics.f1(scores, y, positive=1), "area": metrics.auroc(score, y)}

    data = [(x[at : at + size], y[at : at + size]) for at in range(0, 300, size)]
    result = Trainer(SGD([weight], 0.1)).fit(
        [(x,)], lambda x: (x * weight).mean(), epochs=1, validate=(data, validate)
    )
    assert result.metrics == {
        "f1": pytest.approx(sklearn.f1_score(y, x[:, 0] > 0.5)),
        "area": pytest.approx(sklearn.roc_auc_score(y, x[:, 0])),
    }


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: metrics.accuracy([0.1, 0.2], [0, 1]), r"scores must be \(samples, classes\)"),
        (lambda: metrics.f1([[0.1, 0.2]], [2]), r"targets must be in \[0, 2\)"),
        (lambda: metrics.f1([[0.1, 0.2]], [-1]), r"targets must be in \[0, 2\)"),
        (lambda: metrics.f1([[0.1, 0.2]], [0.5]), "targets must be class numbers"),
        (lambda: metrics.f1([[np.nan, 0.2]], [0]), "some are NaN"),
        (
            lambda: metrics.f1([[0.1, 0.2]], [0], positive=2),
            r"positive must be a class in \[0, 2\)",
        ),
        (lambda: metrics.accuracy([[0.1, 0.2]], [0], top=3), r"top must be in \[1, 2\]"),
        (lambda: metrics.accuracy([[], []], [0, 1]), r"not \(2, 0\) and \(2,\)"),
        (lambda: metrics.perplexity(np.ones((2, 0)), [0, 1]), r"not \(2, 0\) and int64 of"),
        (lambda: metrics.auroc([0.1, 0.2], ["no", "yes"]), "must be numbers, not <U3"),
        (lambda: metrics.auroc([0.1, 0.2], [0, 2]), "targets must be 0 or 1, not 2"),
        (lambda: metrics.auroc([0.1, 0.2], [-1, 1]), "targets must be 0 or 1, not -1"),
        (lambda: metrics.auroc([[0.1], [0.2]], [[0], [1]]), r"those of the positive class, not"),
        (
            lambda: metrics.f1([[0.1], [0.2]], [0, 1]),
            r"in \[0, 1\), .* of two classes give \(1 - p, p\)",
        ),
        (lambda: metrics.r2([0.1, 0.2], [0.1]), "shapes differ"),
        (
            lambda: metrics.f1([[0.1, 0.2]], [0]) + metrics.f1([[0.1, 0.2, 0.3]], [0]),
            "are not parts of the same metric",
        ),
    ],
)
def test_invalid_metric_input(make: Callable[[], object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()


def test_options_are_whole_numbers() -> None:
    fraction: Any = 1.5
    with pytest.raises(TypeError, match=r"top must be a whole number, not 1\.5"):
        metrics.accuracy([[0.1, 0.2]], [0], top=fraction)
    with pytest.raises(TypeError, match="positive must be a whole number, not True"):
        metrics.f1([[0.1, 0.2]], [0], positive=True)


OF_CLASSES = ("accuracy", "confusion_matrix", "precision", "recall", "f1", "perplexity")
OF_NUMBERS = ("auroc", "average_precision", "r2", "mean_absolute_error", "root_mean_squared_error")


@pytest.mark.parametrize("name", metrics.__all__[1:])
def test_a_metric_of_no_samples_has_no_value(name: str, backend: Backend) -> None:
    """And they add nothing to others. scikit-learn raises an error."""
    metric = getattr(metrics, name)
    scores, targets = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
    some: Any = (np.array([[0.5, 1.0], [2.0, 1.0]], np.float32), np.array([0, 1], np.int32))
    if name in OF_NUMBERS:
        scores, some = scores[:, 0], (some[0][:, 1], some[1])
    else:
        assert name in OF_CLASSES
    there: Callable[[Any], Tensor] = lambda x: tensor(x, backend=backend)
    for none in (metric(scores, targets), metric(there(scores), there(targets))):
        assert np.isnan(float(none))
        joined = float(none + metric(*some))
        assert joined == float(metric(*some))


def test_r2_of_one_sample_has_no_value() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isnan(sklearn.r2_score([1.0], [1.0]))
    assert np.isnan(float(metrics.r2([1.0], [1.0])))


def test_tensors_are_taken() -> None:
    assert float(metrics.accuracy(tensor([[0.1, 0.2]]), tensor([1], dtype=np.int32))) == 1.0


NAMES = ("accuracy", "precision", "recall", "f1", "confusion_matrix")


@pytest.mark.parametrize("seed", range(4))
def test_device_counts_match_host_counts(backend: Backend, seed: int) -> None:
    """With ties and an absent class."""
    scores, targets = classified(seed, 4)
    there: Callable[[Any], Tensor] = lambda x: tensor(x, backend=backend)
    for name in NAMES:
        metric = getattr(metrics, name)
        cut = [slice(0, 13), slice(13, 40)]
        found = reduce(add, [metric(there(scores[p]), there(targets[p])) for p in cut])
        assert float(found) == float(metric(scores, targets)), name
        mixed = metric(there(scores), targets)  # targets that are not on the device
        assert float(mixed) == float(metric(scores, targets)), name
    for top in (1, 2, 3, 4):
        found = metrics.accuracy(there(scores), there(targets), top=top)
        assert float(found) == float(metrics.accuracy(scores, targets, top=top))
    random = np.random.default_rng(seed)
    values, truth = random.normal(size=(2, 40)).astype(np.float32)
    for name in ("mean_absolute_error", "root_mean_squared_error", "r2"):
        metric = getattr(metrics, name)
        found = float(metric(there(values), there(truth)))
        assert found == pytest.approx(float(metric(values, truth)), rel=1e-5)
    found = float(metrics.r2(there(values.reshape(10, 4)), there(truth.reshape(10, 4))))
    wanted = sklearn.r2_score(truth.reshape(10, 4), values.reshape(10, 4))
    assert found == pytest.approx(wanted, rel=1e-5)
    positive = (truth > 0).astype(np.int32)
    for name in ("auroc", "average_precision"):
        metric = getattr(metrics, name)
        found = float(metric(there(values), there(positive)))
        assert found == pytest.approx(float(metric(values, positive)))


def test_device_errors_are_reported_when_read(backend: Backend) -> None:
    there: Callable[[Any], Tensor] = lambda x: tensor(x, backend=backend)
    for scores, targets, told in (
        ([[0.1, 0.2]], [2], r"targets must be in \[0, 2\)"),
        ([[0.1, 0.2]], [-1], r"targets must be in \[0, 2\)"),
        ([[np.nan, 0.2]], [0], "some are NaN"),
    ):
        for metric in (metrics.accuracy, metrics.f1, metrics.confusion_matrix):
            with pytest.raises(ValueError, match=told):
                float(metric(there(np.array(scores, np.float32)), there(targets)))
    with pytest.raises(ValueError, match="targets must be 0 or 1"):
        float(metrics.auroc(there([0.1, 0.2]), there([0, 2])))


@settings(max_examples=20, deadline=None)
@given(cut=cuts(), seed=st.integers(0, 10_000))
def test_perplexity(cut: Cut, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits, targets = random.normal(size=(40, 3, 5)), random.integers(0, 5, (40, 3))
    targets[random.random((40, 3)) < 0.2] = -100
    kept = targets.ravel() >= 0
    expected = np.exp(
        sklearn.log_loss(
            targets.ravel()[kept],
            np.exp(logits).reshape(-1, 5)[kept] / np.exp(logits).sum(2).reshape(-1, 1)[kept],
            labels=range(5),
        )
    )
    assert over(cut, metrics.perplexity, logits, targets) == pytest.approx(expected)


def test_a_perplexity_of_probabilities_is_told_of() -> None:
    logits = np.random.default_rng(0).standard_normal((4, 3))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    with pytest.warns(UserWarning, match="was given what a softmax has returned"):
        metrics.perplexity(shares.astype(np.float32), [0, 1, 2, 0])
    right = float(metrics.perplexity(logits, [0, 1, 2, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(metrics.perplexity(np.log(shares), [0, 1, 2, 0])) == pytest.approx(right)
        metrics.perplexity(np.eye(3), [0, 1, 2])  # logits, too


def test_perplexity_on_a_device(backend: Backend) -> None:
    logits = np.array([[2.0, -np.inf], [0.0, 1.0], [3.0, 3.0]], np.float32)
    targets = np.array([0, -100, 1])
    found = metrics.perplexity(tensor(logits, backend=backend), tensor(targets, backend=backend))
    assert float(found) == pytest.approx(2**0.5, rel=1e-6)
    assert np.isnan(float(metrics.perplexity(logits[:0], targets[:0])))
    with pytest.raises(ValueError, match=r"targets must be in \[0, 2\)"):
        metrics.perplexity(logits, [0, 1, 2])
    with pytest.raises(ValueError, match=r"logits must be"):
        metrics.perplexity(logits, [0, 1])


def test_nan_gives_no_value_or_an_error(backend: Backend) -> None:
    """The same on the host and on a device."""
    nan = np.array([1.0, np.nan], np.float32)
    scores = np.array([[0.0, 1.0], [np.nan, 0.0]], np.float32)
    for values in (nan, tensor(nan, backend=backend)):
        assert np.isnan(float(metrics.mean_absolute_error(values, np.zeros(2, np.float32))))
        assert np.isnan(float(metrics.root_mean_squared_error(values, np.zeros(2, np.float32))))
        for measure in (metrics.auroc, metrics.r2):
            with pytest.raises(ValueError, match="some are NaN"):
                float(measure(values, np.array([0.0, 1.0], np.float32)))
    for rows in (scores, tensor(scores, backend=backend)):
        for measure in (metrics.accuracy, metrics.f1):
            with pytest.raises(ValueError, match="some are NaN"):
                float(measure(rows, np.array([0, 1])))


def test_only_a_confusion_matrix_has_a_matrix() -> None:
    scores, targets = np.array([[0.1, 0.9], [0.2, 0.8]]), np.array([1, 0])
    matrix = metrics.confusion_matrix(scores, targets)
    assert (matrix + matrix).matrix.tolist() == [[0, 2], [0, 2]]
    assert matrix.matrix.dtype == np.int64
    with pytest.raises(TypeError, match="only a confusion matrix has a matrix; this is 'accuracy"):
        metrics.accuracy(scores, targets).matrix  # noqa: B018


@pytest.mark.parametrize(
    ("first", "dtype"),
    [
        (2**53, np.int64), (2**63 - 6, np.int64), (-(2**63), np.int64), (2**64 - 6, np.uint64),
        (2**63 - 3, np.uint64),
    ],
)  # fmt: skip
def test_integers_that_float64_rounds_are_compared_exactly(first: int, dtype: type) -> None:
    """Of identifiers and times in nanoseconds, float64 has not each one."""
    found: NDArray[Any] = np.array([first + n for n in (1, 2, 3)], dtype)
    targets: NDArray[Any] = np.array([first + n for n in (0, 2, 4)], dtype)
    assert float(metrics.r2(found, targets)) == 0.75
    parts = [metrics.r2(found[:2], targets[:2]), metrics.r2([], [])]
    assert float(reduce(add, [*parts, metrics.r2(found[2:], targets[2:])])) == 0.75
    assert float(metrics.mean_absolute_error(found, targets)) == 2 / 3
    assert float(metrics.root_mean_squared_error(found, targets)) == (2 / 3) ** 0.5
    for positive, share in ((0, 0.0), (1, 0.5), (2, 1.0)):
        truth = np.arange(3) == positive
        assert float(metrics.auroc(found, truth.astype(int))) == share
        assert float(metrics.average_precision(found, truth.astype(int))) == 1 / (3 - positive)
    surprise = metrics.perplexity(np.array([found[:2]]), np.array([1]))
    assert float(surprise) == pytest.approx(1 + np.exp(-1))


@pytest.mark.parametrize(
    ("first", "second", "dtypes", "is_kept"),
    [
        (2**53 + 1, 2**53 + 1, (np.int64, np.uint64), True),
        (2**53 + 1, -4, (np.int64, np.float64), True),
        (1, 0.5, (np.int64, np.float64), True),
        (-4, 2**64 - 9, (np.int64, np.uint64), False),
        (2**53 + 1, 0.5, (np.int64, np.float64), False),
        (2**63, np.inf, (np.uint64, np.float32), False),
    ],
)
def test_batches_of_integers_and_of_other_numbers_are_exact(
    first: int, second: float, dtypes: tuple[type, type], is_kept: bool
) -> None:
    """Or are refused, where no dtype has all of their numbers."""
    errors, targets, batches = [], [], []
    for start, dtype in zip((first, second), dtypes, strict=True):
        truth: NDArray[Any] = np.array([start + n for n in (1, 2, 1, 6)], dtype)
        found: NDArray[Any] = np.array([start + n for n in (0, 1, 1, 4)], dtype)
        batches.append(metrics.r2(found, truth))
        errors += [1, 1, 0, 2]
        targets += truth.tolist()
    if is_kept:
        mean = sum(map(Fraction, targets)) / 8
        value = 1 - sum(e**2 for e in errors) / sum((each - mean) ** 2 for each in targets)
        assert float(batches[0] + batches[1]) == pytest.approx(float(value), rel=1e-12)
    else:
        with pytest.raises(ValueError, match=f"batches are of .*{np.dtype(dtypes[0])}.*convert"):
            batches[0] + batches[1]


def test_integers_that_float32_rounds_are_compared_exactly_on_a_device(backend: Backend) -> None:
    high, low = 2**31 - 1, -(2**31)
    for found, targets, error in (
        (tensor([high, low], backend=backend), [high - 1, low], 0.5),
        (tensor([high, low], backend=backend), [low, low], 2.0**31 - 0.5),
        (tensor([2.0**24, 1.0], backend=backend), np.array([2**24 + 1, 1]), 0.5),
        (tensor([2**24 + 1, 1], backend=backend), [2.0**24, 1.5], 0.75),
    ):
        mean = metrics.mean_absolute_error(found, np.array(targets))
        assert float(mean) == pytest.approx(error, rel=1e-7)


def test_float64_stays_in_training_steps() -> None:
    weight = Parameter(np.array([1.0 + 1e-12]), name="w", dtype=float64)
    error = metrics.mean_absolute_error(weight * 1.0, np.array([1.0]))
    assert float(error) == pytest.approx(1e-12, rel=1e-3)


@pytest.mark.parametrize(
    "use",
    [
        lambda m: m > 0.5, lambda m: m <= 0.5, lambda m: m + 1, lambda m: 1 - m, lambda m: m * 100,
        lambda m: m / 2, bool, lambda m: max(m, m), lambda m: sum([m], 1), lambda m: m == tensor(1),
    ],
)  # fmt: skip
def test_a_metric_is_no_number(use: Callable[[Any], Any]) -> None:
    found = metrics.accuracy(np.array([[0.1, 0.9]]), np.array([1]))
    with pytest.raises(
        TypeError, match=r"^write float\(metric\): MetricState\('accuracy\(top=1\)'"
    ):
        use(found)


def test_a_metric_is_formatted_and_added_up_as_users_expect() -> None:
    right = metrics.accuracy(np.array([[0.1, 0.9]]), np.array([1]))
    wrong = metrics.accuracy(np.array([[0.1, 0.9], [0.1, 0.9]]), np.array([0, 0]))
    both: Any = sum([right, wrong])
    assert f"{both:.3f} {both:>7.1%}" == "0.333   33.3%"
    assert f"{right}" == repr(right)
    assert round(both, 2) == 0.33


def test_a_metric_is_not_compared_with_numbers() -> None:
    """It was simply unequal to each of them, also to its own value."""
    found = metrics.accuracy(np.array([[0.1, 0.9]]), np.array([1]))
    for number in (1.0, 1, np.float32(1)):
        with pytest.raises(TypeError, match=r"^write float\(metric\): "):
            found == number  # noqa: B015
    assert found == found
    assert found not in ["accuracy", None]
    assert len({found, found}) == 1
