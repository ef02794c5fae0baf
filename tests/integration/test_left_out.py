"""Arguments left out of a call change nothing, or are requested by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus import nn
from rumus.distributed import ranks
from rumus.gpu import Gpu, GpuBackend
from rumus.optim import SAM, SGD
from rumus.tensor import (
    Backend,
    Generator,
    NumpyBackend,
    Parameter,
    Tensor,
    concat,
    einsum,
    ones,
    stack,
    tensor,
    where,
)
from rumus.train import ArrayDataset, Callback, DataLoader, Result, Trainer, evaluate

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(16, 4)).astype(np.float32)
HELD_OUT = RANDOM.normal(10, 5, size=(16, 4)).astype(np.float32)


@pytest.fixture(scope="module", params=["numpy", "gpu"])
def backend(request: pytest.FixtureRequest) -> Backend:
    return NumpyBackend() if request.param == "numpy" else GpuBackend(Gpu())


def model() -> nn.Sequential:
    random = Generator(0)
    return nn.Sequential(
        nn.BatchNorm1d(4),
        nn.Dropout(0.5, generator=random),
        nn.Linear(4, 1, generator=random),
    )


@pytest.mark.parametrize("hidden", ["closure", "list", "made in validation"])
def test_validation_without_state(hidden: str) -> None:
    """Wherever the model is, it does not train on the validation data."""

    def run(declared: bool) -> tuple[dict[str, NDArray[Any]], float, list[bool]]:
        made, modes = model(), list[bool]()
        held: list[Any] = [made]
        state = {"model": made} if declared else None
        trainer = Trainer(SGD(made.parameters(), 0.01), state=state)

        def loss(x: Tensor) -> Tensor:
            out: Tensor = held[0](x)
            return (out**2).mean()

        def validate(x: Tensor) -> Tensor:
            modes.extend(module.training for module in made.modules())
            used = {"closure": made, "list": held[0], "made in validation": nn.Sequential(made)}
            out: Tensor = used[hidden](x)
            return (out**2).mean()

        result = trainer.fit([(X,)], loss, epochs=2, validate=([(HELD_OUT,)], validate))
        assert made.training
        return made.state_dict(), result.metrics["loss"], modes

    (declared, its_loss, _), (left_out, loss, modes) = run(True), run(False)
    for name, value in declared.items():
        np.testing.assert_array_equal(left_out[name], value)
    assert loss == its_loss
    assert not any(modes)


def test_a_module_may_be_switched_within_a_validation() -> None:
    """For example for Monte Carlo dropout; a module in evaluation mode also stays in it."""
    made = model()
    trainer, seen = Trainer(SGD(made.parameters(), 0.01)), []

    def validate() -> float:
        seen.append(made[1].training)
        made[1].train()
        seen.append(made[1].training)
        made[2].eval()
        return 0.0

    trainer.fit([(X,)], lambda x: (made(x) ** 2).mean(), epochs=2, validate=validate)
    assert seen == [False, True] * 2
    assert all(module.training for module in made.modules())


# The weight of a batch


def texts() -> tuple[NDArray[Any], NDArray[Any]]:
    """Four texts of 8 tokens; all but one of the first two's tokens are padding."""
    y = RANDOM.integers(0, 7, (4, 8))
    y[:2, 1:] = -100
    return RANDOM.normal(size=(4, 8, 5)).astype(np.float32), y


def trained(data: list[Any], accumulate: int, **more: Any) -> tuple[NDArray[Any], Any]:
    layer = nn.Linear(5, 7, generator=Generator(1))
    add = more.pop("add", lambda loss: loss)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = add(nn.cross_entropy_loss(layer(x), y))
        return out

    result = Trainer(SGD(layer.parameters(), 1.0)).fit(
        data, loss, epochs=2, accumulate=accumulate, **{"validate": (data, loss), **more}
    )
    measured = [entry.get("loss", entry.get("val_loss")) for entry in result.history]
    return layer.weight.numpy(), measured


def test_accumulation_and_validation_count_tokens() -> None:
    """Like one batch with all of them, whether the weights are left out or given."""
    x, y = texts()
    parts = [(x[:2], y[:2]), (x[2:], y[2:])]
    whole, measured = trained([(x, y)], 1)
    told: dict[str, Any] = {"weight_of": lambda a, b: float((np.asarray(b) != -100).sum())}
    for options in ({}, told):
        weight, found = trained(parts, 2, **options)
        np.testing.assert_allclose(weight, whole, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found, measured, rtol=1e-6)


@pytest.mark.parametrize("add", [lambda loss: loss + 1.0, lambda loss: 2.0 * loss - loss / 3])
def test_a_loss_within_a_sum_counts_tokens(add: Callable[[Tensor], Tensor]) -> None:
    """All of its means do, or one of them and a number."""
    x, y = texts()
    parts = [(x[:2], y[:2]), (x[2:], y[2:])]
    even = np.where(y == -100, 0, y)
    uneven = [(x[:3], even[:3]), (x[3:], even[3:])]
    for whole, data in (([(x, y)], parts), ([(x, even)], uneven)):
        wanted, measured = trained(whole, 1, add=add)
        weight, found = trained(data, 2, add=add)
        np.testing.assert_allclose(weight, wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found, measured, rtol=1e-6)


def outcome(layer: nn.Linear, result: Result) -> list[Any]:
    """What a training has made of a layer, and its mean losses and validations."""
    return [layer.weight.numpy(), *(list(entry.values())[-1] for entry in result.history)]


# The mean of a custom loss


def ragged() -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Two batches of two texts each, with 3 and with 9 numbers."""
    return [
        (RANDOM.normal(size=(2, length, 5)).astype(np.float32),
         RANDOM.normal(size=(2, length, 1)).astype(np.float32) + length)
        for length in (3, 9)
    ]  # fmt: skip


@pytest.mark.parametrize("own", [True, False], ids=["own", "mse_loss"])
def test_the_mean_of_a_custom_loss_counts_by_its_elements(own: bool, backend: Backend) -> None:
    """Written out or called: a step over both is the step over all their numbers."""
    parts, found = ragged(), []
    flat = [
        tuple(
            np.concatenate([part[i].reshape(-1, k) for part in parts]) for i, k in ((0, 5), (1, 1))
        )
    ]
    for data, accumulate in ((parts, 2), (flat, 1)):
        layer = nn.Linear(5, 1, generator=Generator(1)).to(backend)

        def loss(x: Tensor, y: Tensor, layer: nn.Linear = layer) -> Tensor:
            out: Tensor = ((layer(x) - y) ** 2).mean() if own else nn.mse_loss(layer(x), y)
            return out

        result = Trainer(SGD(layer.parameters(), 0.1)).fit(
            data, loss, epochs=1, accumulate=accumulate, validate=(data, loss)
        )
        found.append(outcome(layer, result))
    for ours, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5)


def test_a_custom_mean_within_a_sum_counts_by_its_elements() -> None:
    parts = ragged()
    flat = [
        tuple(
            np.concatenate([part[i].reshape(-1, k) for part in parts]) for i, k in ((0, 5), (1, 1))
        )
    ]
    found = []
    for data, accumulate in ((parts, 2), (flat, 1)):
        layer = nn.Linear(5, 1, generator=Generator(1))

        def loss(x: Tensor, y: Tensor, layer: nn.Linear = layer) -> Tensor:
            out: Tensor = ((layer(x) - y) ** 2).mean() + 0.1 * (layer.weight**2).mean()
            return out

        Trainer(SGD(layer.parameters(), 0.01)).fit(data, loss, epochs=1, accumulate=accumulate)
        found.append(layer.weight.numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


ZERO = tensor(0.0)
MASKED: dict[str, Any] = {
    "by its sum": lambda losses, mask: (losses * mask).sum() / mask.sum(),
    "negated": lambda losses, mask: -(-losses * mask).sum() / mask.sum(),
    "at least 1": lambda losses, mask: (losses * mask).sum() / mask.sum().clip(1.0, None),
    "of means": lambda losses, mask: (losses * mask).mean() / mask.mean(),
    "of negated means": lambda losses, mask: -(-losses * mask).mean() / mask.mean(),
    "times the reciprocal": lambda losses, mask: (losses * mask).sum() * (1 / mask.sum()),
    "the reciprocal times": lambda losses, mask: (1.0 / mask.sum()) * (losses * mask).sum(),
    "to the power of -1": lambda losses, mask: (losses * mask).sum() * mask.sum() ** -1,
    "of shares": lambda losses, mask: (losses * (mask / mask.sum())).sum(),
    "of doubled shares": lambda losses, mask: (losses * (2 * (mask / mask.sum()))).sum(),
    "each divided": lambda losses, mask: ((losses * mask) / mask.sum()).sum(),
    "each negated": lambda losses, mask: (-(-losses * mask / (mask.sum() + 1e-9))).sum(),
    "each times the reciprocal": lambda losses, mask: (losses * mask * (1 / mask.sum())).sum(),
    "each divided, averaged": lambda losses, mask: ((losses * mask) / mask.mean()).mean(),
    "times a number of both": lambda losses, mask: (
        (losses * mask).mean() * (float(mask.size) / mask.sum())
    ),
    "a dot product": lambda losses, mask: (losses.reshape(-1) @ mask.reshape(-1)) / mask.sum(),
    "a dot product of shares": lambda losses, mask: (
        losses.reshape(-1) @ (mask / mask.sum()).reshape(-1)
    ),
    "a product of one number": lambda losses, mask: (
        (losses.reshape(1, -1) @ mask.reshape(-1, 1)).reshape() / mask.sum()
    ),
    "row by row": lambda losses, mask: (
        sum((losses[i] * mask[i]).sum() for i in range(len(losses))) / mask.sum()
    ),
    "row by row, from 0.0": lambda losses, mask: (
        sum(((losses[i] * mask[i]).sum() for i in range(len(losses))), start=ZERO) / mask.sum()
    ),
    "0.0 first": lambda losses, mask: (0.0 + (losses * mask).sum()) / mask.sum(),
    "a doubled sum": lambda losses, mask: (losses / 2 * mask).sum() * 2.0 / mask.sum(),
    "a bounded number": lambda losses, mask: (
        (losses * mask).sum() / where(mask.sum() > 0, mask.sum(), 1.0)
    ),
    "of halves": lambda losses, mask: (losses / 2 * mask).sum() / mask.sum(),
    "a sum of products": lambda losses, mask: einsum("ij,ij->", losses, mask) / mask.sum(),
    "reshaped": lambda losses, mask: (losses * mask).sum(keepdims=True).reshape() / mask.sum(),
    "converted": lambda losses, mask: (
        (losses.astype(np.float64) * mask).sum().astype(np.float32)
        / mask.astype(np.int32).sum().astype(np.float32)
    ),
    "of truths": lambda losses, mask: where(mask > 0, losses, 0.0).sum() / (mask > 0).sum(),
    "averaged again": lambda losses, mask: ((losses * mask).sum() / mask.sum()).mean(),
    "and a number": lambda losses, mask: (losses * mask).sum() / mask.sum() + 1.0,
    "halved": lambda losses, mask: 0.5 * (losses * mask).sum() / mask.sum(),
    "two of them": lambda losses, mask: (
        0.3 * (losses * mask).sum() / mask.sum() + (losses.sqrt() * mask).mean() / mask.mean()
    ),
}


def masked() -> list[tuple[NDArray[Any], ...]]:
    """Two batches of four rows each; the mask leaves 2 numbers of the first, and 9 of the other."""
    mask = np.zeros((8, 3), np.float32)
    mask[:2, 0], mask[4:7] = 1, 1
    random = np.random.default_rng(0)
    x, y = random.normal(size=(8, 5)), random.normal(size=(8, 3)) + np.arange(8)[:, None]
    arrays = [array.astype(np.float32) for array in (x, y, mask)]
    return [tuple(array[rows] for array in arrays) for rows in (slice(0, 4), slice(4, 8))]


@pytest.mark.parametrize("spelling", MASKED)
def test_the_mean_over_a_mask_counts_by_the_mask(spelling: str) -> None:
    """As one batch of all rows: weights, mean loss and validation, captured steps included."""
    parts, found = masked(), []
    whole = [tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))]
    for data, accumulate in ((parts * 3, 2), (whole * 3, 1)):
        layer = nn.Linear(5, 3, generator=Generator(1))

        def loss(x: Tensor, y: Tensor, mask: Tensor, layer: nn.Linear = layer) -> Tensor:
            result: Tensor = MASKED[spelling]((layer(x) - y) ** 2, mask)
            return result

        trainer = Trainer(SGD(layer.parameters(), 0.05))
        result = trainer.fit(
            data, loss, epochs=2, accumulate=accumulate, validate=(data, lambda *a: loss(*a))
        )
        found.append(outcome(layer, result))
        assert trainer.counts.replayed
    for ours, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5)


BOUNDED: list[Callable[[Tensor], Any]] = [
    lambda count: count,
    lambda count: count.clip(1.0, None),
    lambda count: count.maximum(1.0),
    lambda count: where(count > 0, count, 1.0),
    lambda count: count.clip(1.0, None) + 1e-8,
]


@pytest.mark.parametrize("bounded", BOUNDED)
def test_a_batch_of_which_the_mask_leaves_nothing_counts_nothing(
    bounded: Callable[[Tensor], Any], backend: Backend
) -> None:
    """A mean of no terms is NaN, or 0 where their number is taken as at least 1."""
    random = np.random.default_rng(1)
    x, y = random.normal(size=(6, 5)), random.normal(size=(6, 3)) + 3
    mask = np.ones((6, 3))
    mask[2:4] = 0
    arrays = [each.astype(np.float32) for each in (x, y, mask)]
    parts = [tuple(each[i : i + 2] for each in arrays) for i in (0, 2, 4)]
    found = []
    for data, accumulate in ((parts, 3), ([tuple(arrays)], 1)):
        layer = nn.Linear(5, 3, generator=Generator(1)).to(backend)

        def loss(x: Tensor, y: Tensor, mask: Tensor, layer: nn.Linear = layer) -> Tensor:
            result: Tensor = ((layer(x) - y) ** 2 * mask).sum() / bounded(mask.sum())
            return result

        trainer = Trainer(SGD(layer.parameters(), 0.05))
        measured = trainer.evaluate(data, loss)["loss"]
        if not backend.runs_ahead:
            trainer.fit(data, loss, epochs=1, accumulate=accumulate)
        found.append([layer.weight.numpy(), measured])
    for ours, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5)


def test_a_validation_of_no_terms_is_nan() -> None:
    layer = nn.Linear(5, 3, generator=Generator(1))
    x, mask = np.ones((2, 5), np.float32), np.zeros((2, 3), np.float32)
    loss = lambda x, mask: (layer(x) * mask).sum() / mask.sum()
    with np.errstate(invalid="ignore"):
        measured = Trainer(SGD(layer.parameters(), 0.1)).evaluate([(x, mask)], loss)
    assert np.isnan(measured["loss"])


def test_a_validation_counts_tokens_without_being_told(backend: Backend) -> None:
    """Also where only the device knows how many, within fit and without it."""
    random = np.random.default_rng(2)
    x, y = random.normal(size=(4, 8, 5)).astype(np.float32), random.integers(0, 7, (4, 8))
    y[:2, 1:] = -100
    parts, found = [(x[:2], y[:2]), (x[2:], y[2:])], []
    for data in (parts, [(x, y)]):
        layer = nn.Linear(5, 7, generator=Generator(1)).to(backend)
        loss = lambda x, y, layer=layer: nn.cross_entropy_loss(layer(x), y)
        trainer = Trainer(SGD(layer.parameters(), 0.0), state={"layer": layer})
        fitted = trainer.fit([(x, y)], loss, epochs=1, validate=(data, loss)).metrics
        named = trainer.evaluate(data, [nn.cross_entropy_loss])["cross_entropy_loss"]
        found.append([trainer.evaluate(data, loss)["loss"], fitted["loss"], named])
    np.testing.assert_allclose(found[0], [found[1][0]] * 3, rtol=1e-5)
    np.testing.assert_allclose(found[1], [found[1][0]] * 3, rtol=1e-5)


def test_an_evaluation_takes_the_weights_that_it_asks_for() -> None:
    random = np.random.default_rng(3)
    x, y = random.normal(size=(4, 5)).astype(np.float32), np.array([0, -100, -100, 1])
    parts = [(x[:3], y[:3]), (x[3:], y[3:])]
    layer = nn.Linear(5, 7, generator=Generator(1))
    trainer = Trainer(SGD(layer.parameters(), 0.0))
    loss = lambda x, y: 2.0 * nn.cross_entropy_loss(layer(x), y)
    weight_of = lambda x, y: float((np.asarray(y) != -100).sum())
    whole = trainer.evaluate([(x, y)], loss)["loss"]
    for measured in (trainer.evaluate, partial(evaluate, layer)):
        with pytest.raises(ValueError, match="give weight_of="):
            measured([*parts[:1], (x[2:], y[2:])], loss)
        assert measured(parts, loss, weight_of=weight_of)["loss"] == pytest.approx(whole)
        given: Any = 2
        with pytest.raises(TypeError, match="weight_of must be a function, not 2"):
            measured(parts, loss, weight_of=given)


def test_the_mean_loss_over_masks_counts_by_them(backend: Backend) -> None:
    """Without an accumulation, also where only the device knows the mask."""
    parts, means = masked(), []
    whole = [tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))]
    for data in (parts * 3, whole * 3):
        layer = nn.Linear(5, 3, generator=Generator(1)).to(backend)
        trainer = Trainer(SGD(layer.parameters(), 0.0))
        loss = lambda x, y, mask, layer=layer: MASKED["by its sum"]((layer(x) - y) ** 2, mask)
        means.append(trainer.fit(data, loss, epochs=1).history[0]["loss"])
    assert means[0] == pytest.approx(means[1], rel=1e-5)


def negated_twice(loss: Tensor) -> Tensor:
    negative = -loss
    return -negative


@pytest.mark.parametrize(
    "again", [lambda loss: loss.mean(), lambda loss: loss.sum(), negated_twice]
)
def test_the_mean_of_one_number_is_that_number(again: Callable[[Tensor], Tensor]) -> None:
    """As programs write it whose losses may or may not be reduced: nn.mse_loss(x, y).mean()."""
    x, y = RANDOM.normal(size=(8, 5)), RANDOM.normal(size=(8, 3))
    parts, found = [(x[:6], y[:6]), (x[6:], y[6:])], []
    for data, accumulate in ((parts, 2), ([(x, y)], 1)):
        layer = nn.Linear(5, 3, generator=Generator(1))
        loss = lambda x, y, layer=layer: again(nn.mse_loss(layer(x), y))
        result = Trainer(SGD(layer.parameters(), 0.05)).fit(
            data, loss, epochs=1, accumulate=accumulate, validate=(data, loss)
        )
        found.append(outcome(layer, result))
    for ours, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5)


def over_outputs(out: Tensor, y: Tensor) -> Tensor:
    return ((out - y) ** 2).mean(0).mean()


W3 = tensor([1.0, 2.0, 1.0])
COMBINED: dict[str, Any] = {
    "of outputs": over_outputs,
    "of outputs, added up": lambda out, y: ((out - y) ** 2).mean(0).sum(),
    "of outputs, weighted": lambda out, y: (((out - y) ** 2).mean(0) * W3).sum() / W3.sum(),
    "of each output": lambda out, y: sum(((out[:, i] - y[:, i]) ** 2).mean() for i in range(3)),
    "of sums over outputs": lambda out, y: ((out - y) ** 2).sum(0).sum() / len(out),
    "of outputs by the samples": lambda out, y: (((out - y) ** 2).sum(0) / len(out)).mean(),
    "times a number": lambda out, y: 0.5 * nn.mse_loss(out, y) - (out**2).mean() / 4,
    "mixed": lambda out, y: 0.3 * nn.mse_loss(out, y) + 0.7 * nn.l1_loss(out, y),
    "stacked": lambda out, y: stack([nn.mse_loss(out, y), (out**2).mean()]).sum(),
    "and a constant": lambda out, y: 1 - nn.cosine_similarity(out, y).mean(),
    "of each sample": lambda out, y: stack(
        [((out[i] - y[i]) ** 2).sum() for i in range(len(out))]
    ).mean(),
    "of columns": lambda out, y: ((out.transpose() - y.transpose()) ** 2).mean(),
    "of the heads": lambda out, y: stack([out] * 7).sum(0).mean(),
    "of outputs, by weights": lambda out, y: ((out - y) ** 2).mean(0) @ W3,
    "of outputs, in a row": lambda out, y: ((out - y) ** 2).transpose().mean(1).sum(),
}


@pytest.mark.parametrize("spelling", COMBINED)
@pytest.mark.parametrize("rows", [6, 5])  # as many in the second batch as outputs
def test_means_added_up_count_by_samples(spelling: str, rows: int) -> None:
    """Each averages as many terms of each sample: a step is that over all of them."""
    x, y = RANDOM.normal(size=(8, 5)), RANDOM.normal(size=(8, 3))
    uneven, found = [(x[:rows], y[:rows]), (x[rows:], y[rows:])], []
    for data, accumulate in ((uneven * 4, 2), ([(x, y)] * 4, 1)):
        layer = nn.Linear(5, 3, generator=Generator(1))
        penalty = lambda layer=layer: sum((p**2).sum() for p in layer.parameters())

        def loss(x: Tensor, y: Tensor, layer: nn.Linear = layer, penalty: Any = penalty) -> Tensor:
            result: Tensor = COMBINED[spelling](layer(x), y) + 0.01 * penalty()
            return result

        result = Trainer(SGD(layer.parameters(), 0.05)).fit(
            data, loss, epochs=1, accumulate=accumulate, validate=(data, loss)
        )
        found.append(outcome(layer, result))
    for ours, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-6)


def test_a_penalty_by_the_samples_asks_for_weights() -> None:
    """It would count once for each batch of a step."""
    layer = nn.Linear(4, 3, generator=Generator(1))
    loss = lambda x: (layer(x) ** 2).mean() + 0.1 * (layer.weight**2).sum() / len(x)
    trainer = Trainer(SGD(layer.parameters(), 0.1))
    with pytest.raises(ValueError, match=r"a penalty is multiplied by 0.0333333 .* 0.00769231 in"):
        trainer.fit([(X[:3],), (X[3:],)], loss, epochs=1, accumulate=2)


def test_a_mean_beside_numbers_of_each_sample_asks_for_weights() -> None:
    """The mean of their sum counts samples, and the mean in it its terms."""
    x, y = texts()
    layer = nn.Linear(5, 7, generator=Generator(1))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        out = layer(x)
        return (nn.cross_entropy_loss(out, y) + (out**2).mean((1, 2))).mean()

    with pytest.raises(ValueError, match=r"the loss is no mean .* weight_of="):
        Trainer(SGD(layer.parameters(), 0.1)).fit(
            [(x[:2], y[:2]), (x[2:], y[2:])], loss, epochs=1, accumulate=2
        )


def test_a_mean_and_means_added_up_within_a_step_ask_for_weights_if_they_count_otherwise() -> None:
    """One batch would count by its terms, and the other by its samples."""
    layer, calls = nn.Linear(4, 3, generator=Generator(1)), [0]

    def loss(x: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
        calls[0] += 1
        mean = (of(layer(x)) ** 2).mean()
        return mean if calls[0] % 2 else 0.5 * mean + 0.5 * (layer(x) ** 2).mean()

    trainer = Trainer(SGD(layer.parameters(), 0.1), capture=False)
    data: list[Any] = [(X[:3],), (X[3:],)]
    with pytest.raises(ValueError, match="a mean over one batch, and several means"):
        trainer.fit(data, lambda x: loss(x, lambda out: out), epochs=1, accumulate=2)

    def even(x: Tensor) -> Tensor:
        calls[0] += 1
        mean = (layer(x)[:, 0] ** 2).mean()
        return mean if calls[0] % 2 else 0.5 * mean + 0.5 * (layer(x)[:, 1] ** 2).mean()

    trainer.fit(data, even, epochs=1, accumulate=2)


def test_a_penalty_alone_counts_as_anything() -> None:
    """It is the same for all batches."""
    w = Parameter([1.0, 2.0], name="w")
    loss = lambda x: (w**2).sum().sqrt()
    Trainer(SGD([w], 1.0)).fit([(X[:3],), (X[3:],)], loss, epochs=1, accumulate=2)
    np.testing.assert_allclose(w.numpy(), np.array([1, 2]) * (1 - 1 / np.sqrt(5)), rtol=1e-6)


@pytest.mark.parametrize("masked", [True, False])
def test_batches_of_one_number_of_tokens_count_by_them(masked: bool) -> None:
    """However many samples they are of, as those of a loader with a budget of tokens."""
    shapes = (10, 4), (8, 5)
    parts = [
        tuple(RANDOM.normal(size=(*each, n)).astype(np.float32) for n in (5, 1)) for each in shapes
    ]
    flat = [np.concatenate([part[i].reshape(-1, n) for part in parts]) for i, n in ((0, 5), (1, 1))]
    found = []
    for data, accumulate in ((parts, 2), ([tuple(flat)], 1)):
        layer = nn.Linear(5, 1, generator=Generator(1))

        def loss(x: Tensor, y: Tensor, layer: nn.Linear = layer) -> Tensor:
            losses = (layer(x) - y) ** 2
            mask = ones(losses.shape)
            result: Tensor = (losses * mask).sum() / mask.sum() if masked else losses.mean()
            return result

        Trainer(SGD(layer.parameters(), 0.1)).fit(data, loss, epochs=1, accumulate=accumulate)
        found.append(layer.weight.numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


def kept(*counts: int) -> NDArray[Any]:
    """A mask that leaves so many of three terms of each sample."""
    return (np.arange(3) < np.array(counts)[:, None]).astype(np.float32)


def fitted_in(parts: list[NDArray[Any]], penalty: float) -> list[Any]:
    """What one step over batches with these masks makes of a layer, and a validation of them."""
    layer, random = nn.Linear(4, 3, generator=Generator(0)), np.random.default_rng(2)
    x, y = (random.normal(size=(9, n)).astype(np.float32) for n in (4, 3))
    at = np.cumsum([len(part) for part in parts])[:-1]
    batches = list(zip(np.split(x, at), np.split(y, at), parts, strict=True))

    def loss(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        mean = 0.5 * (((layer(x) - y) ** 2 * mask).sum() / mask.sum())
        return mean + penalty * (layer.weight**2).mean() if penalty else mean

    trainer = Trainer(SGD(layer.parameters(), 0.5))
    measured = trainer.evaluate(batches, loss)["loss"]
    result = trainer.fit(batches, loss, epochs=1, accumulate=len(batches), progress=None)
    return [*outcome(layer, result), measured]


@pytest.mark.parametrize("penalty", [0.0, 0.01])
def test_as_many_terms_of_fewer_samples_by_chance_count_as_many(penalty: float) -> None:
    """The third batch has the terms of the first one, but that is no constant: 6, 5 and 6."""
    parts = [kept(1, 2, 2, 1), kept(3, 2), kept(2, 3, 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = fitted_in([np.concatenate(parts)], penalty)
        found = fitted_in(parts, penalty)
    for one, another in zip(found, whole, strict=True):
        np.testing.assert_allclose(one, another, rtol=1e-5, atol=1e-6)


def test_what_counted_as_a_constant_and_changes_asks_for_weights() -> None:
    """Once 6 terms of 3 samples have counted by samples, as 6 of 4 have, it is too late."""
    parts = [kept(1, 2, 2, 1), kept(2, 3, 1), kept(3, 2)]
    with pytest.raises(ValueError, match="6 terms in a batch of 4 samples, and 6 in one of 3"):
        fitted_in(parts, 0.0)


def test_a_number_beside_a_mean_over_a_mask_is_told_of() -> None:
    """Nothing tells what NumPy averaged: as a tensor it counts by its terms."""
    x, y = texts()
    parts, layer = [(x[:2], y[:2]), (x[2:], y[2:])], nn.Linear(5, 7, generator=Generator(1))
    trainer = Trainer(SGD(layer.parameters(), 0.0))

    def measured(as_number: bool) -> Callable[[Tensor, Tensor], dict[str, Any]]:
        def metrics(x: Tensor, y: Tensor) -> dict[str, Any]:
            scores, mask = layer(x), (y != -100).astype(np.float32)
            hits = (scores.argmax(-1) == y).astype(np.float32)
            kept = mask.numpy()
            number = float((hits.numpy() * kept).sum() / kept.sum())
            loss = nn.cross_entropy_loss(scores, y)
            rate = number if as_number else (hits * mask).sum() / mask.sum()
            return {"loss": loss, "accuracy": rate}

        return metrics

    whole = trainer.evaluate([(x, y)], measured(True))["accuracy"]
    assert trainer.evaluate(parts, measured(False))["accuracy"] == pytest.approx(whole)
    with pytest.warns(UserWarning, match="'accuracy' is a number .* but 'loss' by its terms"):
        trainer.evaluate(parts, measured(True))
    even = [(x[2:3], y[2:3]), (x[3:], y[3:])]
    trainer.evaluate(even, measured(True))  # a warning fails the test


def test_a_mean_of_nothing_within_a_sum_counts_nothing() -> None:
    x = RANDOM.normal(size=(6, 5)).astype(np.float32)
    mask = np.array([0, 0, 1, 1, 1, 0], np.float32)
    found = []
    for data in ([(x[:2], mask[:2]), (x[2:], mask[2:])], [(x[2:], mask[2:])]):
        layer = nn.Linear(5, 1, generator=Generator(1))

        def loss(x: Tensor, mask: Tensor, layer: nn.Linear = layer) -> Tensor:
            result: Tensor = (layer(x)[:, 0] * mask).sum() / mask.sum().clip(1.0, None) + 1.0
            return result

        trainer = Trainer(SGD(layer.parameters(), 0.1))
        trainer.fit(data, loss, epochs=1, accumulate=2)
        found.append(layer.weight.numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


UNRECOGNIZED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "elastic weight consolidation": lambda w, c: (c * (w - 0.5 * c) ** 2).sum(),
    "a distance": lambda w, c: ((w - c) ** 2).sum().sqrt(),
    "orthogonality": lambda w, c: (w @ w.transpose() - c[:, :3]).norm(),
    "the largest": lambda w, c: (w * c).max(),
    "a number": lambda w, c: 3,
    "a tensor": lambda w, c: c.sum(),
    "nothing": lambda w, c: 0.0,
}


@pytest.mark.parametrize("penalty", UNRECOGNIZED)
@pytest.mark.parametrize("is_masked", [False, True])
def test_what_is_equal_in_all_batches_may_stand_beside_a_mean(
    penalty: str, is_masked: bool, backend: Backend
) -> None:
    """Whatever it is computed from: its value tells."""
    parts = masked()
    whole = [tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))]
    found = []
    for data, accumulate in ((parts, 2), (whole, 1)):
        layer = nn.Linear(5, 3, generator=Generator(1)).to(backend)
        pull = tensor(np.linspace(0.5, 2.0, 15, dtype=np.float32).reshape(3, 5), backend=backend)

        def loss(x: Tensor, y: Tensor, mask: Tensor, of: Any = (layer, pull)) -> Tensor:
            losses = (of[0](x) - y) ** 2
            mean = (losses * mask).sum() / mask.sum() if is_masked else losses.mean()
            result: Tensor = mean + 0.1 * UNRECOGNIZED[penalty](of[0].weight, of[1])
            return result

        trainer = Trainer(SGD(layer.parameters(), 0.05))
        options: dict[str, Any] = {"accumulate": accumulate, "validate": (data, loss)}
        if is_masked and backend.runs_ahead:
            with pytest.raises(ValueError, match=r"only the device knows .* give weight_of="):
                trainer.fit(parts, loss, epochs=1, accumulate=2)
            return
        result = trainer.fit(data * 3, loss, epochs=1, **options)
        found.append(outcome(layer, result))
    for ours, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-6)


def test_a_mean_by_a_number_of_the_parameters_counts_by_samples() -> None:
    """In a validation, too, where nothing has gradients: as by a learned uncertainty."""
    x = RANDOM.normal(size=(8, 5)).astype(np.float32)
    layer = nn.Linear(5, 3, generator=Generator(1))
    trainer = Trainer(SGD(layer.parameters(), 0.01))

    def loss(x: Tensor) -> Tensor:
        doubt = layer.weight.sum()
        result: Tensor = (layer(x) ** 2).mean() * (-doubt).exp() + doubt
        return result

    whole = trainer.evaluate([(x,)], loss)["loss"]
    assert trainer.evaluate([(x[:5],), (x[5:],)], loss)["loss"] == pytest.approx(whole, rel=1e-5)


def test_weights_by_their_mean_count_by_them() -> None:
    """However that is written: here by their sum and the number of samples."""
    random = np.random.default_rng(6)
    x, y = (random.normal(size=(8, n)).astype(np.float32) for n in (5, 3))
    w, found = random.uniform(0.1, 2, 8).astype(np.float32), []
    for data in ([(x, y, w)], [(x[:5], y[:5], w[:5]), (x[5:], y[5:], w[5:])]):
        layer = nn.Linear(5, 3, generator=Generator(1))

        def loss(x: Tensor, y: Tensor, w: Tensor, layer: nn.Linear = layer) -> Tensor:
            losses = ((layer(x) - y) ** 2).mean(1)
            result: Tensor = (losses * (w / w.sum() * len(w))).mean()
            return result

        trainer = Trainer(SGD(layer.parameters(), 0.1))
        result = trainer.fit(data * 3, loss, epochs=1, accumulate=len(data), validate=(data, loss))
        found.append(outcome(layer, result))
    for ours, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-4)


BESIDE: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "a sum": lambda out, x: (out**2).sum(),
    "a sum of inputs": lambda out, x: (x**2).sum(),
    "a number": lambda out, x: float((x**2).sum()),
    "the largest": lambda out, x: out.max(),
    "a deviation": lambda out, x: out.std(),
    "a norm": lambda out, x: out.norm(),
    "an entropy of means": lambda out, x: (
        out.softmax(1).mean(0) * out.softmax(1).mean(0).log()
    ).sum(),
    "a product of means": lambda out, x: (out.mean(0) * (out > 0).astype(np.float32).mean(0)).sum(),
}


@pytest.mark.parametrize("what", BESIDE)
@pytest.mark.parametrize("rows", [8, 10])
def test_what_differs_between_batches_beside_a_mean_asks_for_weights(
    what: str, rows: int, backend: Backend
) -> None:
    """In a step and in a validation: the mean is weighed, and nothing tells how the rest is."""
    layer = nn.Linear(4, 3, generator=Generator(1)).to(backend)
    loss = lambda x: (layer(x) ** 2).mean() + 0.1 * BESIDE[what](layer(x), x)
    trainer = Trainer(SGD(layer.parameters(), 0.01), capture=False)
    parts = [(X[:rows],), (X[rows:],)]
    asked = pytest.raises(ValueError, match=r"the loss is no mean over its batch.* weight_of=")
    with asked:
        trainer.fit(parts, loss, epochs=1, accumulate=2)
    with asked:
        trainer.evaluate(parts, loss)
    told: dict[str, Any] = {"weight_of": lambda x: float(len(x))}
    one, other = (trainer.evaluate([part], loss)["loss"] for part in parts)
    found = trainer.evaluate(parts, loss, **told)["loss"]
    assert found == pytest.approx((rows * one + (16 - rows) * other) / 16, rel=1e-5)


def test_a_loader_of_ranks_asks_for_a_trainer_of_ranks() -> None:
    """Each rank would step with its part of the batches alone."""
    team, layer = ranks(), nn.Linear(4, 1)
    loader = DataLoader(ArrayDataset(X), 4, ranks=team, shards=2)
    with pytest.raises(TypeError, match=r"this rank's part .* Trainer\(optimizer, ranks=ranks\)"):
        Trainer(SGD(layer.parameters(), 0.1)).fit(loader, lambda x: layer(x).sum(), epochs=1)


UNKNOWN: dict[str, Any] = {
    "a sum": lambda wx, x: wx.sum(),
    "over a temperature": lambda wx, x: (wx / 5.0).sum(),
    "over a tensor": lambda wx, x: (wx / tensor(2.0)).sum(),
    "times its reciprocal": lambda wx, x: (wx * (1 / tensor(2.0))).sum(),
    "over the largest": lambda wx, x: (wx * (x / x.max())).sum(),
    "times a number's reciprocal": lambda wx, x: wx.sum() * (1 / float(x.sum())),
    "over half the outputs": lambda wx, x: wx.sum() / (0.5 * x.shape[1]),
    "weights of NumPy": lambda wx, x: (wx * tensor(x.numpy() / x.numpy().sum())).sum(),
    "a mean and a sum": lambda wx, x: wx.mean() + wx.sum(),
    "a product of means": lambda wx, x: wx.mean() * (wx**2).mean(),
    "a root": lambda wx, x: (wx**2).mean().sqrt(),
    "a root of each output": lambda wx, x: (wx**2).mean(0).sqrt().mean(),
    "a deviation of each output": lambda wx, x: wx.std(0).mean(),
    "a norm of each output": lambda wx, x: wx.norm(axis=0).mean(),
    "the largest of each output": lambda wx, x: wx.max(0).mean(),
    "sums of outputs, averaged": lambda wx, x: wx.sum(0).mean(),
    "sums of transposed outputs, averaged": lambda wx, x: wx.transpose().sum(1).mean(),
    "roots of transposed outputs": lambda wx, x: (wx**2).transpose().mean(1).sqrt().mean(),
    "stacked with a sum": lambda wx, x: stack([wx.mean(), wx.sum()]).mean(),
    "products over the samples": lambda wx, x: (wx.transpose() @ x).mean(),
    "a sum of products": lambda wx, x: einsum("nc,nd->cd", wx, x).mean(),
    "a vector by a matrix": lambda wx, x: (tensor(np.ones(len(x), np.float32)) @ wx).mean(),
    "the first": lambda wx, x: wx[0, 0],
    "the last of sums": lambda wx, x: wx.reshape(-1).cumsum(0)[-1] / len(x),
    "clipped": lambda wx, x: wx.mean().clip(0.5, None),
    "over all samples": lambda wx, x: wx.sum() / 12,
    "each over all samples": lambda wx, x: (wx / 12).sum(),
    "of outputs over all samples": lambda wx, x: (wx.sum(0) / 12).sum(),
    "over all samples, a tensor": lambda wx, x: wx.sum() / tensor(24.0),
    "by the largest": lambda wx, x: wx.sum() / x.max(),
    "by a norm": lambda wx, x: wx.sum() / x.norm(),
    "times a norm's reciprocal": lambda wx, x: wx.sum() * (1 / x.norm()),
    "by a variance": lambda wx, x: wx.sum() / x.var(),
    "times shares of the batch": lambda wx, x: (wx.mean(0) * x.mean(0)).sum(),
}


@pytest.mark.parametrize("spelling", UNKNOWN)
@pytest.mark.parametrize("sizes", [(4, 1, 1), (2, 2, 2)])
def test_what_is_no_mean_asks_for_weights(spelling: str, sizes: tuple[int, ...]) -> None:
    """A sum, or what Python or NumPy has divided: nothing tells how much a batch counts."""
    x = np.arange(1, 19, dtype=np.float32).reshape(6, 3)
    parts = [(part,) for part in np.split(x, np.cumsum(sizes)[:-1])]
    weight = Parameter([1.0], name="weight")
    loss: Any = lambda x: UNKNOWN[spelling](weight * x, x)
    trainer = Trainer(SGD([weight], 1.0))
    with pytest.raises(ValueError, match=r"the loss is no mean over its batch.* give weight_of="):
        trainer.fit(parts, loss, epochs=1, accumulate=3)
    assert weight.item() == 1.0
    slopes: list[Any] = [loss(tensor(part)).backward() for (part,) in parts]
    told: dict[str, Any] = {"weight_of": lambda x: float(len(x))}
    trainer.fit(parts, loss, epochs=1, accumulate=3, **told)
    wanted = sum(n * slope[weight].item() for n, slope in zip(sizes, slopes, strict=True)) / 6
    assert 1 - weight.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("join", [stack, lambda losses: concat([x.reshape(1) for x in losses])])
def test_a_mean_of_several_losses_counts_as_they_do(join: Callable[..., Tensor]) -> None:
    """By samples if each does, or, with targets that are ignored, not without weights."""
    x, y = RANDOM.normal(size=(8, 5)), RANDOM.integers(0, 3, 8)

    def fit(data: list[tuple[Any, ...]], **options: Any) -> Any:
        layer = nn.Linear(5, 3, generator=Generator(1))

        def loss(x: Tensor, y: Tensor) -> Tensor:
            out = layer(x)
            squares = nn.mse_loss(out, (y.unsqueeze(1) + 0.0).broadcast_to(out.shape))
            return join([nn.cross_entropy_loss(out, y, ignore_index=-1), squares]).mean()

        Trainer(SGD(layer.parameters(), 0.05)).fit(data, loss, epochs=1, **options)
        return layer.weight.numpy()

    uneven = [(x[:6], y[:6]), (x[6:], y[6:])]
    wanted = fit([(x, y)])
    np.testing.assert_allclose(fit(uneven, accumulate=2), wanted, rtol=1e-5)
    y[:3] = -1
    with pytest.raises(ValueError, match=r"averages 1 and 12 .* and 4 and 12 in one .* weight_of"):
        fit([(x[:4], y[:4]), (x[4:], y[4:])], accumulate=2)


UNLIKE_MEANS: dict[str, Any] = {
    "in logarithms": lambda losses, mask: ((losses * mask).sum().log() - mask.sum().log()).exp(),
    "a last sum": lambda losses, mask: (losses * mask).reshape(-1).cumsum(0)[-1] / mask.sum(),
    "a norm": lambda losses, mask: (losses * mask + 1e-6).sqrt().norm() ** 2 / mask.sum(),
    "a norm by a number": lambda losses, mask: (
        (losses * mask + 1e-6).sqrt().norm() ** 2 / number(mask)
    ),
    "one of a product": lambda losses, mask: (
        (losses.reshape(1, -1) @ stack([mask.reshape(-1)] * 2, 1))[0, 0] / mask.sum()
    ),
    "of each output": lambda losses, mask: (
        (losses * mask).sum(0) / mask.sum(0).clip(1.0, None)
    ).mean(),
    "of each output, doubled": lambda losses, mask: (
        (losses * mask).sum(0) / (mask.sum(0) + 1.0) * 2.0
    ).sum(),
    "its root": lambda losses, mask: ((losses * mask).sum() / mask.sum()).sqrt(),
}


@pytest.mark.parametrize("spelling", UNLIKE_MEANS)
def test_what_is_computed_with_a_count_asks_for_weights(spelling: str, backend: Backend) -> None:
    """It may be a mean that is not recognized: batches would count by samples."""
    parts = masked()
    layer = nn.Linear(5, 3, generator=Generator(1)).to(backend)

    def loss(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        result: Tensor = UNLIKE_MEANS[spelling]((layer(x) - y) ** 2 + 0.1, mask)
        return result

    trainer = Trainer(SGD(layer.parameters(), 0.01), capture=False)
    with pytest.raises(ValueError, match=r"weight_of="):
        trainer.fit(parts, loss, epochs=1, accumulate=2)
    told: dict[str, Any] = {"weight_of": lambda x, y, mask: float(mask.sum())}
    trainer.fit(parts, loss, epochs=1, accumulate=2, **told)


def number(mask: Tensor) -> Any:
    return float(mask.sum())


@pytest.mark.parametrize(
    "count",
    [
        number,
        lambda mask: np.float32(number(mask)),
        lambda mask: np.array(number(mask)),
        lambda mask: number(mask) + 1e-6,
    ],
)
def test_a_sum_by_a_number_that_counts_asks_for_weights(count: Any) -> None:
    """Such as float(mask.sum()): batches would count by samples, which nobody has said."""
    layer = nn.Linear(5, 3, generator=Generator(1))

    def loss(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        result: Tensor = (((layer(x) - y) ** 2) * mask).sum() / count(mask)
        return result

    trainer = Trainer(SGD(layer.parameters(), 0.1))
    with pytest.raises(ValueError, match=r"the loss is no mean .* weight_of="):
        trainer.fit(masked(), loss, epochs=1, accumulate=2)

    def of_shares(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        result: Tensor = ((layer(x) - y) ** 2 * mask / count(mask)).sum()
        return result

    with pytest.raises(ValueError, match=r"the loss is no mean .* weight_of="):
        trainer.fit(masked(), of_shares, epochs=1, accumulate=2)
    told: dict[str, Any] = {"weight_of": lambda x, y, mask: float(mask.sum())}
    trainer.fit(masked(), loss, epochs=1, accumulate=2, **told)


def test_means_of_each_row_count_by_rows() -> None:
    """However many there are: there is one for each sample. Their sum is a sum over samples."""
    x, y = RANDOM.normal(size=(8, 5)), RANDOM.normal(size=(8, 3))
    layer = nn.Linear(5, 3, generator=Generator(1))
    trainer = Trainer(SGD(layer.parameters(), 0.05))

    def of(combined: Any) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, y: combined([nn.mse_loss(layer(x[i]), y[i]) for i in range(len(x))])

    data = [(x[:6], y[:6]), (x[6:], y[6:])]
    for mean in (lambda rows: stack(rows).sum() / len(rows), lambda rows: stack(rows).mean()):
        (entry,) = trainer.fit(data, of(mean), epochs=1, accumulate=2).history
        assert entry["loss"] > 0
    with pytest.raises(ValueError, match=r"multiplied by 6 in a batch, and by 2 .* weight_of="):
        trainer.fit(data, of(sum), epochs=1, accumulate=2)


def test_a_sum_by_the_number_of_samples_counts_by_samples() -> None:
    x = np.arange(18, dtype=np.float32).reshape(6, 3)
    parts = [x[:4], x[4:5], x[5:]]
    weight = Parameter([1.0], name="weight")
    trainer = Trainer(SGD([weight], 1.0))
    data = [(part,) for part in parts]
    trainer.fit(data, lambda x: (weight * x).sum() / len(x), epochs=1, accumulate=3)
    assert 1 - weight.item() == pytest.approx(x.sum() / 6, rel=1e-6)
    with pytest.raises(ValueError, match="the loss is no mean over its batch"):
        trainer.fit(data, lambda x: (weight * x).sum() / 3, epochs=1, accumulate=3)


@pytest.mark.parametrize("by", [lambda mask: 1 / float(mask.mean()), lambda mask: 1 / mask.mean()])
def test_means_times_numbers_of_the_batch_ask_for_weights(by: Any, backend: Backend) -> None:
    """As if divided by a number of terms. From step to step they may change, as in annealing."""
    layer = nn.Linear(5, 3, generator=Generator(1)).to(backend)

    def loss(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        squares = (layer(x) - y) ** 2
        result: Tensor = 2.0 * nn.mse_loss(squares * mask, 0.0 * squares) * by(mask)
        return result

    trainer = Trainer(SGD(layer.parameters(), 0.1), capture=False)
    with pytest.raises(ValueError, match=r"multiplied by 12 in .* and by 2.66667 in .*weight_of="):
        trainer.fit(masked(), loss, epochs=1, accumulate=2)
    step = [0]
    annealed = lambda x, y, mask: nn.mse_loss(layer(x), y) * (0.5 ** (step[0] // 2))

    class Count(Callback):
        def on_step_end(self, run: Any) -> None:
            step[0] += 2

    trainer.fit(masked() * 3, annealed, epochs=1, accumulate=2, callbacks=[Count()])
    assert step[0] == 6


@pytest.mark.parametrize(
    "by",
    [
        lambda x: 1 / x.norm(),
        lambda x: x.abs().max(),
        lambda x: x.std(),
        lambda x: x.var(),
        lambda x: float(x.abs().max()),
        lambda x: x.shape[0],
    ],
)
def test_a_number_of_the_batch_that_counts_nothing_is_no_weight(
    by: Callable[[Tensor], Any], backend: Backend
) -> None:
    """Neither in a step nor in a validation: a mean by the largest is no mean of as many terms."""
    layer = nn.Linear(5, 3, generator=Generator(1)).to(backend)
    x = np.random.default_rng(4).normal(size=(6, 5)).astype(np.float32)
    parts = [(x[:3],), (x[3:5] * 7,), (x[5:],)]
    trainer = Trainer(SGD(layer.parameters(), 0.1), capture=False)
    losses: list[Callable[[Tensor], Tensor]] = [
        lambda x: (layer(x) ** 2).mean() / by(x),
        lambda x: (layer(x) ** 2).mean() * by(x),
    ]
    for loss in losses:
        with pytest.raises(ValueError, match=r"means in it are multiplied by .* give weight_of="):
            trainer.fit(parts, loss, epochs=1, accumulate=3)
        with pytest.raises(ValueError, match=r"means in it are multiplied by .* give weight_of="):
            trainer.evaluate(parts, loss)
        assert trainer.evaluate(parts[:1], loss)["loss"] > 0


def test_a_mean_over_the_batch_and_parameters_asks_for_weights() -> None:
    """Of three batches it would count the parameters three times."""
    weight = Parameter([1.0, 2.0], name="weight")
    loss = lambda x: concat([(x * weight).reshape(-1), 0.1 * weight]).mean()
    trainer = Trainer(SGD([weight], 0.1))
    with pytest.raises(ValueError, match=r"the loss is no mean over its batch.* give weight_of="):
        trainer.fit([(X[:8, :2],), (X[8:, :2],)], loss, epochs=1, accumulate=2)


def test_a_sum_over_axes_by_their_lengths_counts_by_samples() -> None:
    """Also over one after the other; by a length that is not theirs, nothing is known."""
    x = np.random.default_rng(5).normal(size=(6, 4, 3)).astype(np.float32)
    parts, weight = [(x[:4],), (x[4:5],), (x[5:],)], Parameter([1.0], name="weight")
    trainer = Trainer(SGD([weight], 1.0))
    means: list[tuple[Callable[[Tensor], Tensor], float]] = [
        (lambda x: (weight * x).sum() / x.size, 72),
        (lambda x: (weight * x).sum(2).sum() / x.size, 72),
        (lambda x: (weight * x).sum(2).sum(1).sum() / (len(x) * 4), 24),
        (lambda x: (weight * x).sum() / (len(x) * 3), 18),
        (lambda x: (weight * x).sum(0).sum() / len(x), 6),
        (lambda x: (weight * x / (len(x) * 12)).sum(), 72),
    ]
    for mean, count in means:
        weight[...] = 1.0
        trainer.fit(parts, mean, epochs=1, accumulate=3)
        assert 1 - weight.item() == pytest.approx(x.sum() / count, rel=1e-4)
    with pytest.raises(ValueError, match="the loss is no mean over its batch"):
        trainer.fit(parts, lambda x: (weight * x).sum() / (len(x) * 5), epochs=1, accumulate=3)


def test_a_validation_of_sums_asks_for_weights(backend: Backend) -> None:
    """Of one batch it is what it is, and so is what is the same for all batches."""
    layer = nn.Linear(4, 3, generator=Generator(1)).to(backend)
    trainer = Trainer(SGD(layer.parameters(), 0.0))
    measured = lambda x: {"energy": layer(x).sum(), "norm": layer.weight.norm()}
    assert trainer.evaluate([(X,)], measured)["norm"] > 0
    with pytest.raises(ValueError, match=r"'energy' is no mean over a batch.* weight_of="):
        trainer.evaluate([(X[:8],), (X[8:],)], measured)
    trainer.evaluate([(X[:8],), (X[8:],)], lambda x: {"norm": layer.weight.norm()})
    told: dict[str, Any] = {"weight_of": lambda x: float(len(x))}
    trainer.evaluate([(X[:8],), (X[8:],)], measured, **told)


def test_the_mean_loss_of_an_epoch_counts_tokens(backend: Backend) -> None:
    """As a step over all of them would, even if only the device knows their number."""
    x, y = texts()
    parts, means = [(x[:2], y[:2]), (x[2:], y[2:])], []
    for data in (parts, [(x, y)]):
        layer = nn.Linear(5, 7, generator=Generator(1)).to(backend)
        loss = lambda x, y, layer=layer: nn.cross_entropy_loss(layer(x), y)
        result = Trainer(SGD(layer.parameters(), 0.0)).fit(data * 3, loss, epochs=1)
        means.append(result.history[0]["loss"])
    assert means[0] == pytest.approx(means[1], rel=1e-5)


def test_a_loss_to_which_a_term_is_added_counts_by_samples() -> None:
    """Each term averages one number of each sample, so that nothing has to be said."""
    x, y = np.ones((4, 5), np.float32), np.zeros(4, np.int32)
    layer = nn.Linear(5, 7, generator=Generator(1))
    weights = [1.0]
    loss: Any = lambda x, y: sum(nn.cross_entropy_loss(layer(x), y) * w for w in weights)
    trainer = Trainer(SGD(layer.parameters(), 0.0))
    for _ in range(3):
        trainer.train_step(loss, x, y)  # a warning fails the test
    weights.append(2.0)
    last = [trainer.train_step(loss, part, y[: len(part)]).item() for part in (x, x[:2])]
    first = last[0] / 3
    assert trainer.epoch_avg_loss() == pytest.approx((12 * first + 6 * last[0]) / 18, rel=1e-5)


@pytest.mark.parametrize("capture", [True, False])
def test_steps_of_a_custom_loop_count_like_those_of_fit(capture: bool, backend: Backend) -> None:
    """By the terms of their losses, without `weight=`."""
    x, y = texts()
    parts = [(x[:1], y[:1]), (x[1:], y[1:])] * 4
    found = []
    for own in (True, False):
        layer = nn.Linear(5, 7, generator=Generator(1)).to(backend)
        loss = lambda x, y, layer=layer: nn.cross_entropy_loss(layer(x), y)
        trainer = Trainer(SGD(layer.parameters(), 1.0), capture=capture)
        if own:
            for part in parts:
                trainer.train_step(loss, *part)
        else:
            trainer.fit(parts, loss, epochs=1)
        found.append(trainer.epoch_avg_loss())
    assert found[0] == found[1]


def test_a_closure_counts_by_the_terms_of_its_loss() -> None:
    w = Parameter([1.0], name="w")
    trainer = Trainer(SGD([w], 1e-30))
    for values in ([1.0], [4.0, 4.0, 4.0]):
        x = tensor(values)
        trainer.train_step(lambda x=x: (w * x).mean())
    assert trainer.epoch_avg_loss() == 3.25


def test_each_loss_function_of_a_custom_loop_counts_for_itself() -> None:
    """Warnings are errors here: two numbers that average differently are none of one loss."""
    w = Parameter([1.0, 1.0], name="w")
    trainer = Trainer(SGD([w], 1e-30))
    for size in (2, 4):
        x = ones((size, 2))
        trainer.train_step(lambda x: (w * x).mean() + 1.0, x)
        trainer.train_step(lambda x: (w * x).sum(1).mean() + w.mean(), x)
    assert trainer.epoch_avg_loss() == 2.5


def test_a_custom_loop_is_told_to_give_a_weight() -> None:
    w = Parameter([1.0], name="w")
    trainer = Trainer(SGD([w], 1e-30))
    loss = lambda x: nn.mse_loss(w * x[:2], x[:2]) + 1.0
    trainer.train_step(loss, ones((2,)))
    with pytest.warns(UserWarning, match="epoch's mean loss.* give weight=, the weight of the"):
        trainer.train_step(loss, ones((3,)))


def test_a_mean_loss_with_unknown_weights_is_reported() -> None:
    """Nothing else depends on it, so training continues."""
    x, y = texts()
    parts = [(x[:2], y[:2]), (x[2:], y[2:])]
    layer = nn.Linear(5, 7, generator=Generator(1))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        out = layer(x)
        return nn.cross_entropy_loss(out, y) + (out**2).mean()

    with pytest.warns(UserWarning, match=r"epoch's mean loss.* weight_of="):
        result = Trainer(SGD(layer.parameters(), 1.0)).fit(parts, loss, epochs=2)
    assert len(result.history) == 2


def test_closure_optimizers_count_the_same(backend: Backend) -> None:
    x, y = texts()
    parts, means = [(x[:2], y[:2]), (x[2:], y[2:])], []
    for wrap in (lambda o: o, SAM):
        layer = nn.Linear(5, 7, generator=Generator(1)).to(backend)
        loss = lambda x, y, layer=layer: nn.cross_entropy_loss(layer(x), y)
        trainer = Trainer(wrap(SGD(layer.parameters(), 0.0)))
        means.append(trainer.fit(parts * 4, loss, epochs=1).history[0]["loss"])
    assert means[0] == pytest.approx(means[1], rel=1e-6)
