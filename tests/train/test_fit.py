"""`Trainer.fit`: the loop, its events, limits, validation, and bad input."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.optim import LBFGS, SAM, SGD, Optimizer, ParameterGroup, Plateau
from rumus.tensor import (
    GradientStore,
    NonFiniteGradientError,
    Parameter,
    Tensor,
)
from rumus.train import (
    Callback,
    CallbackError,
    EarlyStopping,
    EpochEnd,
    EpochStart,
    Every,
    Failed,
    FeedPlateau,
    NonFiniteLossError,
    RunFolder,
    StepEnd,
    TrainEnd,
    Trainer,
    TrainStart,
    ValidationEnd,
    predict,
    read_metrics,
)
from rumus.train.loop import team

Batch = tuple[NDArray[Any], ...]


def batches(count: int, size: int = 4) -> list[Batch]:
    random = np.random.default_rng(3)
    return [(random.normal(size=(size, 2)).astype(np.float32),) for _ in range(count)]


class Model:
    def __init__(self, **options: Any) -> None:
        self.weight = Parameter([0.5, -1.0], name="weight")
        self.optimizer = SGD([self.weight], options.pop("lr", 0.1), **options)
        self.trainer = Trainer(self.optimizer)

    def loss(self, x: Tensor) -> Tensor:
        return ((self.weight * x - 1.0) ** 2).mean()


class Log(Callback):
    """Records every event by name, and what the tests check of it."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def on_train_start(self, event: TrainStart) -> None:
        self.events.append(("start", event.epoch, event.step, event.steps_per_epoch))

    def on_epoch_start(self, event: EpochStart) -> None:
        self.events.append(("epoch", event.epoch, event.step))

    def on_step_end(self, event: StepEnd) -> None:
        self.events.append(("step", event.epoch, event.step, event.samples))

    def on_validation_end(self, event: ValidationEnd) -> None:
        self.events.append(("validation", event.step, dict(event.metrics), event.is_best))

    def on_epoch_end(self, event: EpochEnd) -> None:
        self.events.append(("epoch end", event.epoch, event.step, event.samples))

    def on_train_end(self, event: TrainEnd) -> None:
        self.events.append(("end", event.reason))

    def on_error(self, event: Failed) -> None:
        self.events.append(("error", type(event.error).__name__))

    def names(self) -> list[str]:
        return [event[0] for event in self.events]


def test_it_is_the_loop_by_hand() -> None:
    fitted, by_hand, data = Model(), Model(), batches(5)
    result = fitted.trainer.fit(data, fitted.loss, epochs=3)
    losses = []
    for _ in range(3):
        for batch in data:
            by_hand.trainer.train_step(by_hand.loss, *batch)
        losses.append(by_hand.trainer.epoch_avg_loss())
    assert fitted.weight.tolist() == by_hand.weight.tolist()
    assert [entry["loss"] for entry in result.history] == losses
    assert (result.reason, result.epochs, result.steps) == ("epochs", 3, 15)


def test_events_in_their_order() -> None:
    model, log = Model(), Log()
    data = [*batches(1, 4), *batches(1, 3)]
    model.trainer.fit(data, model.loss, epochs=2, validate=lambda: {"loss": 1.0}, callbacks=[log])
    assert log.events == [
        ("start", 0, 0, 2),
        ("epoch", 0, 0),
        ("step", 0, 1, 4.0),
        ("step", 0, 2, 3.0),
        ("validation", 2, {"loss": 1.0}, True),
        ("epoch end", 0, 2, 7.0),
        ("epoch", 1, 2),
        ("step", 1, 3, 4.0),
        ("step", 1, 4, 3.0),
        ("validation", 4, {"loss": 1.0}, False),
        ("epoch end", 1, 4, 7.0),
        ("end", "epochs"),
    ]


def test_a_loader_of_unknown_length() -> None:
    class Stream:
        def __iter__(self) -> Iterator[Batch]:
            yield from batches(3)

    model, log = Model(), Log()
    result = model.trainer.fit(Stream(), model.loss, epochs=2, callbacks=[log])
    assert result.steps == 6
    assert log.names().count("epoch end") == 2
    assert log.events[0] == ("start", 0, 0, None)


def test_the_order_of_callbacks_is_declared() -> None:
    heard: list[str] = []

    class Named(Callback):
        def __init__(self, name: str, order: int) -> None:
            self.name, self.order = name, order

        def on_step_end(self, event: StepEnd) -> None:
            heard.append(self.name)

    model = Model()
    callbacks = [Named("c", 5), Named("a", -1), Named("b", 0), Named("b2", 0)]
    model.trainer.fit(batches(1), model.loss, epochs=1, callbacks=callbacks)
    assert heard == ["a", "b", "b2", "c"]


def test_batches_of_several_sizes_count_by_their_elements() -> None:
    """Whether a step runs or is replayed, and whichever was replayed before it."""
    model = Model(lr=1e-30)
    data = [batch for size in (4, 2, 3) for batch in batches(6, size)] + batches(5, 2)
    data += [(x + 1,) for (x,) in data[::-1]]
    result = model.trainer.fit(data, model.loss, epochs=2)
    joined = np.concatenate([x for (x,) in data]).astype(np.float64)
    expected = ((np.array([0.5, -1.0]) * joined - 1.0) ** 2).mean()
    assert model.trainer.counts.replayed > 30
    for entry in result.history:
        np.testing.assert_allclose(entry["loss"], expected, rtol=1e-6)


def test_callbacks_see_one_learning_rate_at_a_step() -> None:
    class Look(Callback):
        def __init__(self) -> None:
            self.seen: list[tuple[float | None, float | None]] = []

        def on_step_end(self, event: StepEnd) -> None:
            self.seen.append((event.learning_rate, event.learning_rate))

    first, second, model = Look(), Look(), Model(lr=lambda step: 0.5 / step)
    model.trainer.fit(batches(3), model.loss, epochs=1, callbacks=[first, second])
    assert first.seen == second.seen == [(0.5 / step, 0.5 / step) for step in (1, 2, 3)]


@pytest.mark.parametrize(
    ("method", "field"),
    [
        ("on_train_start", "epoch"),
        ("on_epoch_start", "step"),
        ("on_step_end", "loss"),
        ("on_step_end", "learning_rate"),
        ("on_epoch_end", "loss"),
        ("on_train_end", "reason"),
    ],
)
def test_an_event_refuses_assignment(method: str, field: str) -> None:
    """It was taken and ignored: the loss of the epoch was that of the steps."""
    callback: Any = type("Assigns", (Callback,), {method: lambda _, e: setattr(e, field, 0)})()
    model = Model()
    with pytest.raises(CallbackError, match=rf"{field} cannot be set: an event only tells"):
        model.trainer.fit(batches(3), model.loss, epochs=1, callbacks=[callback])


@pytest.mark.parametrize("answer", [False, True])
def test_a_truth_value_that_a_callback_returns_is_told_of_once(answer: bool) -> None:
    callback: Any = type("Stops", (Callback,), {"on_step_end": lambda *_: answer})()
    model = Model()
    said = rf"Stops\.on_step_end returned {answer}, which nothing reads: event\.run\.stop"
    with pytest.warns(UserWarning, match=said) as told:
        result = model.trainer.fit(batches(3), model.loss, epochs=2, callbacks=[callback])
    assert (len(told), result.steps) == (1, 6)


@pytest.mark.parametrize("answer", [None, 0, 1, 3.5, "text", [1], {}, np.True_, Parameter([1.0])])
@pytest.mark.filterwarnings("error")
def test_other_values_that_a_callback_returns(answer: object) -> None:
    """As of a lambda that writes to a file."""
    callback: Any = type("Writes", (Callback,), {"on_step_end": lambda *_: answer})()
    model = Model()
    model.trainer.fit(batches(3), model.loss, epochs=1, callbacks=[callback])


def test_the_error_of_a_callback_names_it() -> None:
    class Broken(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            if event.step == 2:
                raise KeyError("accuracy")

    model, log = Model(), Log()
    with pytest.raises(
        CallbackError, match=r"Broken failed in on_step_end \(epoch 0, step 2\)"
    ) as e:
        model.trainer.fit(batches(3), model.loss, epochs=1, callbacks=[Broken(), log])
    assert isinstance(e.value.__cause__, KeyError)
    assert log.names()[-1] == "error"


def test_what_a_step_end_shows() -> None:
    seen: list[tuple[float, float | None, float]] = []

    class Look(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            norm = event.gradient_norm()
            assert norm is not None
            seen.append((event.loss.item(), event.learning_rate, norm.item()))

    model, data = Model(lr=lambda step: 0.5 / step), batches(3)
    expected = []
    by_hand = Model(lr=lambda step: 0.5 / step)
    for step, (x,) in enumerate(data, start=1):
        w = by_hand.weight.numpy()
        loss = by_hand.trainer.train_step(by_hand.loss, x)
        gradient = (2 * x * (w * x - 1)).mean(axis=0) / 2
        expected.append((loss.item(), 0.5 / step, np.linalg.norm(gradient)))
    model.trainer.fit(data, model.loss, epochs=1, callbacks=[Look()])
    np.testing.assert_allclose(np.array(seen, float), np.array(expected, float), rtol=1e-5)


def test_limits() -> None:
    model = Model()
    assert model.trainer.fit(batches(5), model.loss, steps=7).steps == 7
    result = model.trainer.fit(batches(5), model.loss, steps=5)
    assert (result.reason, result.epochs) == ("steps", 1)  # the epoch that it ends is complete


def test_a_limit_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(team, "perf_counter", lambda: now[0])

    class Slow(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            now[0] += 10

    model = Model()
    result = model.trainer.fit(batches(5), model.loss, seconds=15, callbacks=[Slow()])
    assert (result.reason, result.steps, result.seconds) == ("seconds", 2, 20.0)


def test_a_callback_may_stop() -> None:
    class Stop(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            if event.step == 3:
                event.run.stop("enough")

    model = Model()
    result = model.trainer.fit(batches(5), model.loss, epochs=9, callbacks=[Stop()])
    assert (result.reason, result.steps, result.epochs) == ("enough", 3, 0)


def test_validation_of_a_loader_is_weighted() -> None:
    model = Model()
    small, large = np.zeros((1, 2), np.float32), np.ones((3, 2), np.float32)
    result = model.trainer.fit(
        batches(1), model.loss, epochs=1,
        validate=([(small,), (large,)], lambda x: {"mean": x.mean(), "one": 1}),
    )  # fmt: skip
    assert result.metrics == {"mean": 0.75, "one": 1.0}


def test_validation_sees_modules_evaluating_and_no_graph() -> None:
    class Part:
        training = True

        def modules(self) -> list[Part]:
            return [self]

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: Any) -> None: ...

    part, model = Part(), Model()
    trainer = Trainer(model.optimizer, state={"model": part})
    seen: list[bool] = []

    def validate() -> dict[str, float]:
        seen.extend([part.training, (model.weight * 2.0).requires_grad])
        return {"loss": 0.0}

    trainer.fit(batches(1), model.loss, epochs=1, validate=validate)
    assert seen == [False, False]
    assert part.training


def test_validation_every_n_steps() -> None:
    model, log = Model(), Log()
    every = Every(steps=2)
    model.trainer.fit(
        batches(5), model.loss, epochs=2, validate=lambda: {"loss": 0.0}, validate_every=every,
        callbacks=[log],
    )  # fmt: skip
    assert [event[1] for event in log.events if event[0] == "validation"] == [2, 4, 6, 8, 10]


def test_early_stopping() -> None:
    values = iter([3.0, 2.0, 2.05, 1.95, math.nan, 1.0])
    model = Model()
    stopping = EarlyStopping("error", patience=3, min_delta=0.1, mode="min")
    result = model.trainer.fit(
        batches(1), model.loss, epochs=9, callbacks=[stopping],
        validate=lambda: {"error": next(values)}, monitor="error", mode="min",
    )  # fmt: skip
    assert (result.reason, result.epochs) == ("no better error in 3 validations", 5)
    assert (stopping.best, result.best) == (2.0, 1.95)


def test_early_stopping_upwards() -> None:
    values = iter([0.5, 0.7, 0.6, 0.9])
    model = Model()
    stopping = EarlyStopping("accuracy", patience=1, mode="max")
    result = model.trainer.fit(
        batches(1), model.loss, epochs=9, callbacks=[stopping],
        validate=lambda: {"accuracy": next(values)},
    )  # fmt: skip
    assert result.epochs == 3


def test_a_plateau_is_fed() -> None:
    lr = Plateau(0.5, factor=0.5, patience=1, mode="min")
    model = Model(lr=lr)
    values = iter([1.0, 1.0, 1.0])
    model.trainer.fit(
        batches(1), model.loss, epochs=3, validate=lambda: {"error": next(values)},
        callbacks=[FeedPlateau(lr, "error")],
    )  # fmt: skip
    assert lr(1) == 0.25


def test_a_missing_metric() -> None:
    model = Model()
    stopping = EarlyStopping("f1", mode="max")
    with pytest.raises(ValueError, match=r"EarlyStopping monitors 'f1', which .*it returns 'loss'"):
        model.trainer.fit(
            batches(1), model.loss, epochs=3, validate=lambda: 1.0, callbacks=[stopping]
        )


# Accumulation


def test_accumulation_is_one_step_over_all_samples() -> None:
    """Including an epoch's last step, and batches of different sizes."""
    sizes, data = (4, 2, 1, 5, 3), [batches(1, size)[0] for size in (4, 2, 1, 5, 3)]
    model, joined = Model(momentum=0.9), Model(momentum=0.9)
    log = Log()
    result = model.trainer.fit(data, model.loss, epochs=2, accumulate=3, callbacks=[log])
    windows = [(np.concatenate([x for (x,) in data[s]]),) for s in (slice(3), slice(3, 5))]
    expected = joined.trainer.fit(windows, joined.loss, epochs=2)
    np.testing.assert_allclose(model.weight.numpy(), joined.weight.numpy(), rtol=1e-5)
    assert result.steps == expected.steps == model.optimizer.steps == 4
    for mine, theirs in zip(result.history, expected.history, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
    assert [e[3] for e in log.events if e[0] == "step"] == [sum(sizes[:3]), sum(sizes[3:])] * 2
    assert log.events[0] == ("start", 0, 0, 2)


def test_accumulation_weighted_by_something_else() -> None:
    """As for tokens: here the second batch counts three times as much."""
    first, second = batches(2)
    model, by_hand = Model(), Model()
    weights = {first[0].tobytes(): 1.0, second[0].tobytes(): 3.0}
    model.trainer.fit(
        [first, second], model.loss, epochs=1, accumulate=2,
        weight_of=lambda x: weights[x.tobytes()],
    )  # fmt: skip
    by_hand.trainer.train_step(
        lambda x, y: (by_hand.loss(x) + 3.0 * by_hand.loss(y)) / 4.0, *first, *second
    )
    np.testing.assert_allclose(model.weight.numpy(), by_hand.weight.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "of_sums", "summed"),
    [((2, 2, 2), (6.0, 14.0, 22.0), 14.0), ((4, 1, 1), (20.0, 10.0, 12.0), 17.0)],
)
def test_accumulated_sums_are_averaged_if_weights_say_so(
    sizes: tuple[int, ...], of_sums: tuple[float, ...], summed: float
) -> None:
    """The example of docs/training.md; a mean steps as for all samples at once."""
    x = np.arange(1, 7, dtype=np.float32)
    batches = np.split(x, np.cumsum(sizes)[:-1])
    assert [2 * batch.sum() for batch in batches] == list(of_sums)

    def slope(loss_of: Callable[[Tensor], Tensor], **options: Any) -> float:
        w = Parameter([0.0], name="w")
        loss = lambda x: loss_of((x * w - 1) ** 2)
        data = [(x,) for x in batches]
        Trainer(SGD([w], 1.0)).fit(data, loss, epochs=1, accumulate=3, **options)
        return w.item()

    assert slope(lambda terms: terms.mean()) == 7.0
    with pytest.raises(ValueError, match=r"reduce it with mean\(\), or give weight_of="):
        slope(lambda terms: terms.sum())
    assert slope(lambda terms: terms.sum(), weight_of=len) == summed


def test_accumulation_with_parameters_that_only_some_batches_use() -> None:
    weights = [Parameter([float(n)], name=f"w{n}") for n in range(3)]
    optimizer = SGD([ParameterGroup(weights, optional=True)], 0.5)
    data = [(np.array(n),) for n in (0, 1, 1)]
    trainer = Trainer(optimizer)
    trainer.fit(data, lambda n: (weights[int(n.item())] * 3.0).sum(), epochs=1, accumulate=3)
    np.testing.assert_allclose([w.item() for w in weights], [-0.5, 0.0, 2.0], atol=1e-6)


def test_a_batch_of_weight_0_does_not_count() -> None:
    model, other, data = Model(), Model(), batches(2)
    data[1][0][:] = np.nan
    weigh = lambda x: float(np.isfinite(x).all())
    result = model.trainer.fit(data, model.loss, epochs=1, accumulate=2, weight_of=weigh)
    expected = other.trainer.fit(data[:1], other.loss, epochs=1)
    assert model.weight.tolist() == other.weight.tolist()
    assert result.history == expected.history
    with pytest.raises(ValueError, match="have weight 0: remove them"):
        model.trainer.fit(data[1:], model.loss, epochs=1, accumulate=2, weight_of=weigh)


def test_accumulation_out_of_range() -> None:
    weight = Parameter([1.0], name="weight")
    with pytest.raises(ValueError, match=r"LBFGS .* evaluates a batch several times"):
        Trainer(LBFGS([weight])).fit(
            batches(1), lambda x: (weight * x).mean(), epochs=1, accumulate=2
        )
    model = Model()
    with pytest.raises(ValueError, match="accumulate must be a number of batches, not 0"):
        model.trainer.fit(batches(1), model.loss, epochs=1, accumulate=0)


# Non-finite gradients and losses


def spoiled(count: int, *bad: int) -> list[Batch]:
    data = batches(count)
    for number in bad:
        data[number][0][0, 1] = np.nan
    return data


def test_nan_at_the_first_step() -> None:
    model, log = Model(), Log()
    with pytest.raises(NonFiniteGradientError, match="'weight'") as error:
        model.trainer.fit(spoiled(3, 0), model.loss, epochs=1, callbacks=[log])
    assert "epoch 0, reported after step 0, batch 1" in error.value.__notes__[0]
    assert log.names()[-1] == "error"


def test_a_loss_that_is_nan_with_finite_gradients() -> None:
    model = Model()
    with pytest.raises(NonFiniteLossError, match=r"loss of step 1 .*is nan"):
        model.trainer.fit(batches(3), lambda x: model.loss(x) + math.nan, epochs=1)


def test_skip() -> None:
    model, other = Model(), Model()
    result = model.trainer.fit(spoiled(5, 0, 2), model.loss, epochs=1, nonfinite="skip")
    good = [batch for number, batch in enumerate(batches(5)) if number not in (0, 2)]
    expected = other.trainer.fit(good, other.loss, epochs=1)
    assert (result.steps, model.optimizer.steps, model.optimizer.skipped) == (5, 3, 2)
    assert model.weight.tolist() == other.weight.tolist()
    assert result.history[0]["loss"] == expected.history[0]["loss"]


def test_rollback() -> None:
    """Back to the state at the start of the epoch, and on with the batch after the bad one."""
    model, other = Model(momentum=0.9), Model(momentum=0.9)
    with pytest.warns(RuntimeWarning, match=r"rolled back .*1 of at most 3.*'weight'"):
        model.trainer.fit(spoiled(5, 2), model.loss, epochs=1, nonfinite="rollback")
    other.trainer.fit(batches(5)[3:], other.loss, epochs=1)
    assert model.weight.tolist() == other.weight.tolist()
    assert model.optimizer.steps == 2


def test_rollbacks_are_limited() -> None:
    model = Model()
    with (
        pytest.warns(RuntimeWarning, match="rolled back"),
        pytest.raises(NonFiniteGradientError, match="weight") as error,
    ):
        model.trainer.fit(
            spoiled(5, 0, 1, 2), model.loss, epochs=1, nonfinite="rollback", rollbacks=2
        )
    assert "rolled back 2 times before" in error.value.__notes__[-1]


def test_rollback_of_an_optimizer_that_cannot_be_saved() -> None:
    class Own(Optimizer[Any]):
        def step(self, grads: GradientStore) -> None:
            grads.drain(self.parameters, "own")

    weight = Parameter([1.0], name="weight")
    trainer = Trainer(Own([weight]))
    with pytest.raises(TypeError, match=r"Own .*has no state_dict"):
        trainer.fit(batches(1), lambda x: (weight * x).sum(), epochs=1, nonfinite="rollback")
    trainer.fit(batches(1), lambda x: (weight * x).sum(), epochs=1)


# Bad input


def test_a_loader_that_yields_nothing() -> None:
    model = Model()
    with pytest.raises(ValueError, match="the loader yields nothing in epoch 0"):
        model.trainer.fit([], model.loss, epochs=1)
    with pytest.raises(ValueError, match="nothing in epoch 1: it is an iterator"):
        model.trainer.fit(iter(batches(2)), model.loss, epochs=2)
    with pytest.raises(ValueError, match="validation yields nothing: it is an iterator"):
        model.trainer.fit(batches(2), model.loss, epochs=2, validate=(iter([]), model.loss))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ((np.ones((4, 2), np.float32), np.ones(4)), "float32 with 2 axes, ndarray of float64"),
        ((np.ones((4, 2)),), "float64"),
        ((np.ones(4, np.float32),), "1 axes"),
        ((3.0,), "float"),
    ],
)
def test_batches_of_changing_structure(other: Any, told: str) -> None:
    model = Model()
    with pytest.raises(ValueError, match=f"batch 2 of epoch 0 holds .*{told}.*; earlier ones"):
        model.trainer.fit([*batches(2), other], model.loss, epochs=1)


def test_invalid_batches() -> None:
    model = Model()
    with pytest.raises(TypeError, match="tuples or dicts of arrays, or single arrays, not set"):
        model.trainer.fit([{1}], model.loss, epochs=1)


def test_a_missing_end() -> None:
    model = Model()
    with pytest.raises(ValueError, match="give epochs, steps or seconds"):
        model.trainer.fit(batches(1), model.loss)
    with pytest.raises(ValueError, match="epochs must be positive"):
        model.trainer.fit(batches(1), model.loss, epochs=0)


def test_a_loader_that_yields_more_than_its_length() -> None:
    class Liar(list[Batch]):
        def __len__(self) -> int:
            return 2

    model = Model()
    with pytest.raises(ValueError, match=r"has len\(\) 2 but yields more"):
        model.trainer.fit(Liar(batches(3)), model.loss, epochs=1)


@pytest.mark.parametrize("found", [None, {}, [1.0]])
def test_a_validation_without_numbers(found: Any) -> None:
    model = Model()
    with pytest.raises(TypeError, match="a validation must return numbers by name"):
        model.trainer.fit(batches(1), model.loss, epochs=1, validate=lambda: found)


def test_profiled_steps() -> None:
    spans: list[tuple[float, ...]] = []

    class Look(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            assert event.spans is not None
            at = event.spans
            spans.append((at.data, at.forward_backward, at.optimizer, at.reading))

        def on_epoch_end(self, event: EpochEnd) -> None:
            assert event.spans is not None
            total = sum(row[1] for row in spans)
            assert event.spans.forward_backward == pytest.approx(total)
            assert min(event.spans.forward, event.spans.backward, event.spans.replayed) > 0

    model = Model()
    model.trainer.fit(batches(4), model.loss, epochs=1, callbacks=[Look()], profile_steps=True)
    assert len(spans) == 4
    assert all(part > 0 for row in spans for part in row)
    assert "step" not in vars(model.optimizer)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, ValueError])
def test_whatever_ends_a_training_its_folder_is_free(
    kind: type[BaseException], tmp_path: Path
) -> None:
    """Also while its traceback is kept, as a notebook keeps that of a cell."""

    class Ends(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            raise kind("ends")

        def on_error(self, event: Failed) -> None:
            raise KeyError("another")

        order = 1000

    model = Model()
    wanted = CallbackError if kind is ValueError else kind
    folder = RunFolder(tmp_path)
    options: dict[str, Any] = {"epochs": 1, "checkpoints": folder.checkpoints}
    with pytest.raises(wanted) as kept:
        model.trainer.fit(batches(3), model.loss, callbacks=[Ends(), folder], **options)
    assert "and then: CallbackError" in "".join(getattr(kept.value, "__notes__", []))
    splits = [line["split"] for line in read_metrics(folder.metrics)]
    assert splits == ["start", "train", "checkpoint", "end"]
    again = [RunFolder(tmp_path)]
    result = model.trainer.fit(batches(3), model.loss, callbacks=again, resume="auto", **options)
    assert result.steps == 3


def test_nothing_fails_after_its_end(tmp_path: Path) -> None:
    class Ends(Log):
        def on_train_end(self, event: TrainEnd) -> None:
            self.events.append(("end",))
            raise KeyboardInterrupt

        def on_error(self, event: Failed) -> None:
            self.events.append(("error",))

    model, log = Model(), Ends()
    with pytest.raises(KeyboardInterrupt):
        model.trainer.fit(batches(1), model.loss, epochs=1, callbacks=[log])
    assert log.events[-1] == ("end",)


def test_a_batch_of_lists_in_lists_in_lists(tmp_path: Path) -> None:
    """It reaches the loss function as it is, however deep, and a resumed run knows it again."""
    deep: Any = 1.0
    for _ in range(2000):
        deep = [deep]
    seen: list[Any] = []

    def fit(steps: int, **options: Any) -> None:
        weight = Parameter([1.0], name="weight")

        def loss(x: Any) -> Tensor:
            seen.append(x)
            return (weight * 2.0).sum()

        Trainer(SGD([weight], 0.1)).fit(
            [(deep,)] * 4,
            loss,
            steps=steps,
            checkpoints=tmp_path,
            weight_of=lambda x: 1.0,
            **options,
        )

    fit(2)
    fit(4, resume=True)
    assert len(seen) == 4
    assert all(x is deep for x in seen)


@pytest.mark.parametrize("found", ["2", None, True, np.ones(2)])
def test_a_weight_is_a_number(found: Any) -> None:
    model = Model()
    with pytest.raises(TypeError, match="weight_of: what it returns for a batch must be a number"):
        model.trainer.fit(batches(1), model.loss, epochs=1, weight_of=lambda x: found)
    with pytest.raises(ValueError, match="weight_of must return a finite number, 0 or more, not"):
        model.trainer.fit(batches(1), model.loss, epochs=1, weight_of=lambda x: -1.0)


@pytest.mark.parametrize("make", [lambda p: LBFGS(p, lr=0.1), lambda p: SAM(SGD(p, 0.1), rho=0.5)])
def test_a_step_shows_loss_and_gradients_of_the_same_weights(make: Any) -> None:
    """Though the last gradients of the step are of others."""
    weight = Parameter([3.0, 4.0], name="weight")
    seen: list[tuple[float, float]] = []

    class Seeing(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            norm = event.gradient_norm()
            assert norm is not None
            seen.append((event.loss.item(), norm.item()))

    data = [(np.ones(2, np.float32),)] * 2
    loss = lambda x: (x * weight * weight).sum()
    Trainer(make([weight])).fit(data, loss, epochs=1, callbacks=[Seeing()], progress=None)
    assert seen[0] == (25.0, 10.0)  # |w|^2 and |2 w|
    assert seen[1][1] == pytest.approx(2 * np.sqrt(seen[1][0]), rel=1e-6)


def test_an_error_of_a_whole_dict_says_what_is_in_it() -> None:
    """The parameter of a function is no field: it gets the dict."""
    with pytest.raises(KeyError) as caught:
        predict(lambda batch: batch["image"], [{"img": np.ones((2, 1))}])
    assert "called with the whole dict of a batch, which has 'img'" in caught.value.__notes__[0]
