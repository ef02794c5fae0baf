"""A number is kept, shown and compared only with what it was measured on."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus.optim import SGD, LossScale, Plateau
from rumus.optim.engine.loss_scale import Scaling
from rumus.tensor import Parameter, StateMismatchError, Tensor
from rumus.train import (
    ArrayDataset,
    Callback,
    Checkpoints,
    CheckpointWarning,
    DataLoader,
    EarlyStopping,
    EpochEnd,
    Every,
    FeedPlateau,
    LengthBuckets,
    LiveView,
    Mixup,
    NonFiniteLossError,
    Result,
    RunFolder,
    Spikes,
    StepEnd,
    StreamLoader,
    Trainer,
    WeightedSampler,
    evaluate,
    load_model,
    metrics,
    predict,
)
from rumus.train.base.losses import Losses
from rumus.train.base.position import Position
from rumus.train.loop import run, run_checkpoints
from rumus.train.views.run_record import read_run

ROWS = np.arange(5, dtype=np.float32)[:, None]


class Epochs:
    """A loader with other numbers in each epoch."""

    def __init__(self, *epochs: list[float]) -> None:
        self._epochs = iter(epochs)

    def __iter__(self) -> Iterator[tuple[Any]]:
        return iter([(np.array([value], np.float32),) for value in next(self._epochs)])


def fit(data: Any, weight: float = 1.0, rate: Any = 1e-9, **options: Any) -> Result:
    parameter = Parameter(np.array([weight], np.float32), name="weight")
    trainer = Trainer(SGD([parameter], rate))
    return trainer.fit(data, lambda x: ((parameter - x) ** 2).mean(), **options)


def losses(result: Result) -> list[float]:
    return [entry["loss"] for entry in result.history if "loss" in entry]


def test_an_epoch_of_skipped_steps_has_not_the_loss_of_the_epoch_before() -> None:
    with pytest.raises(NonFiniteLossError, match="no step of epoch 1 was applied"):
        fit(Epochs([2.0], [math.nan], [3.0]), epochs=3, nonfinite="skip")


def test_an_epoch_that_is_left_out_on_purpose_has_no_loss() -> None:
    usual, wild = [1.0, 1.5, 2.0, 2.5], [1e6] * 4
    with pytest.warns(RuntimeWarning, match="skipped"):
        result = fit(Epochs(usual, wild, usual), epochs=3, spikes=Spikes(window=3))
    first, second, third = losses(result)
    assert math.isnan(second)
    assert first == pytest.approx(third)
    weight = Parameter(np.ones(1, np.float32), name="weight")
    trainer = Trainer(SGD([weight], 1e-9), loss_scale=LossScale(initial=2.0**24))
    scaled = trainer.fit(Epochs([1e35], [2.0]), lambda x: (weight * x).sum(), epochs=2)
    assert np.isnan(losses(scaled)).tolist() == [True, False]


def test_a_step_that_was_undone_is_not_in_the_mean_of_its_epoch() -> None:
    usual = [2.0 + n / 10 for n in range(8)]
    wild = [*usual[:5], 1e6, *usual[6:]]
    with pytest.warns(RuntimeWarning, match="rolled back"):
        result = fit(Epochs(usual, wild, usual), epochs=3, spikes=Spikes("rollback", window=3))
    assert max(value for value in losses(result) if not math.isnan(value)) < 4


def validated(folder: Path, callbacks: list[Callback], rate: Any = 0.1, **options: Any) -> Result:
    found = {"loss": 3.0, "other_loss": 9.0, "accuracy": 0.5}
    return fit(
        [(ROWS,)], rate=rate, callbacks=callbacks, checkpoints=folder, resume="auto",
        validate=lambda: found, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ([EarlyStopping()], lambda: [EarlyStopping("accuracy", mode="max")]),
        (
            [EarlyStopping(), EarlyStopping("accuracy", mode="max")],
            lambda: [EarlyStopping("accuracy", mode="max"), EarlyStopping()],
        ),
    ],
    ids=["another metric", "another order"],
)
def test_early_stopping_goes_on_with_the_best_of_its_own_metric(
    before: list[Callback], now: Callable[[], list[Callback]], tmp_path: Path
) -> None:
    validated(tmp_path, before, epochs=1)
    with pytest.raises(StateMismatchError, match=r"saved for 'loss', mode='min', here"):
        validated(tmp_path, now(), epochs=2)
    validated(tmp_path, [type(c)(c.metric, mode=c.mode) for c in before], epochs=2)  # type: ignore[attr-defined, call-arg]


@pytest.mark.parametrize(
    ("metric", "mode", "told"),
    [("other_loss", "min", "saved for 'loss'"), ("accuracy", "max", "mode 'min' was saved")],
)
def test_a_plateau_goes_on_with_the_best_of_its_own_metric(
    metric: str, mode: Any, told: str, tmp_path: Path
) -> None:
    rate = Plateau(0.1)
    validated(tmp_path, [FeedPlateau(rate)], rate, epochs=1)
    other = Plateau(0.1, mode=mode)
    with pytest.raises(StateMismatchError, match=told):
        validated(tmp_path, [FeedPlateau(other, metric)], other, epochs=2)
    assert other.best is None


def test_losses_of_long_ago_are_compared_with_nothing(tmp_path: Path) -> None:
    usual = [1.0, 1.1, 1.0, 1.1, 1.0]
    far = [value + 100 for value in usual]
    options: dict[str, Any] = {"checkpoints": tmp_path, "resume": "auto"}
    fit([(np.array([v], np.float32),) for v in usual], epochs=1, spikes=Spikes(window=4), **options)
    with pytest.warns(UserWarning, match=r"spikes was Spikes\(.* and is None"):
        fit([(np.array([v], np.float32),) for v in far], epochs=2, **options)
    watched: dict[str, Any] = {"epochs": 3, "spikes": Spikes(window=4), **options}
    with pytest.warns(UserWarning, match="spikes was None and is Spikes"):
        result = fit([(np.array([v], np.float32),) for v in far], **watched)
    assert result.spikes == []


def test_an_epoch_shows_no_validation_of_an_earlier_one() -> None:
    found = iter([0.25, 0.75])
    shown = io.StringIO()
    result = fit(
        [(ROWS,)], epochs=5, validate=lambda: next(found), validate_every=Every(epochs=2),
        callbacks=[LiveView(shown)],
    )  # fmt: skip
    lines = [line for line in shown.getvalue().splitlines() if "done" in line]
    assert ["validation" in line for line in lines] == [False, True, False, True, False]
    assert "validation loss 0.75 after step 4" in repr(result)


def test_records_keep_numbers_of_one_name_apart(tmp_path: Path) -> None:
    weight = Parameter(np.ones(1, np.float32), name="weight")
    for name in ("lr", "grad_norm", "samples_s"):
        loss = lambda x, name=name: {"loss": (weight * x).sum(), name: x.sum()}
        with pytest.raises(ValueError, match=f"a step logs '{name}', which the records"):
            Trainer(SGD([weight], 0.1)).train_step(loss, np.ones(1, np.float32))
    found = {"loss": 1.0, "step": 7.0, "seconds": 5.0}
    folder = RunFolder(tmp_path, tensorboard=False)
    fit([(ROWS,)], epochs=1, validate=lambda: found, callbacks=[folder])
    record = read_run(tmp_path)
    assert record.best["step"] == 1
    assert {name: curve.last for name, curve in record.values("validation").items()} == found


# What predictions and metrics are of


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sampler": LengthBuckets([3, 1, 2, 9, 8])}, "has a sampler"),
        ({"sampler": WeightedSampler([1.0, 0.0, 2.0, 1.0, 1.0])}, "has a sampler"),
        ({"drop_last": True}, "leaves out the last samples"),
        ({"batch_transform": Mixup(None)}, "mixes samples by Mixup"),
        ({"shuffle": True}, "shuffles"),
    ],
)
def test_predictions_are_those_of_the_samples(options: Any, told: str) -> None:
    loader = DataLoader(ArrayDataset(ROWS, ROWS), 2, **options)
    with pytest.raises(ValueError, match=told):
        predict(lambda x: x, loader)


def test_predictions_of_a_stream_are_in_its_order() -> None:
    stream = [(row,) for row in ROWS]
    with pytest.raises(ValueError, match="shuffles"):
        predict(lambda x: x, StreamLoader(stream, 2, shuffle=4))
    with pytest.raises(ValueError, match="leaves out"):
        predict(lambda x: x, StreamLoader(stream, 2, drop_last=True))
    assert (predict(lambda x: x, StreamLoader(stream, 2)) == ROWS).all()
    whole = DataLoader(ArrayDataset(ROWS[:4]), 2, drop_last=True)
    assert (predict(lambda x: x, whole) == ROWS[:4]).all()


def test_metrics_are_not_those_of_mixtures() -> None:
    loader = DataLoader(ArrayDataset(ROWS, ROWS), 2, batch_transform=Mixup(None))
    with pytest.raises(ValueError, match="mixes samples"):
        evaluate(lambda x: x, loader, [metrics.mean_absolute_error])


def test_metrics_compare_with_one_target() -> None:
    class Model:
        def forward(self, x: Tensor) -> Tensor:
            return x

        __call__ = forward

    scores = np.array([[0.1, 0.9]])
    batch = {"x": scores, "label": np.array([1]), "labels": np.array([0])}
    with pytest.raises(ValueError, match="'label' and 'labels', and nothing says which"):
        evaluate(Model(), [batch], [metrics.accuracy])
    del batch["labels"]
    assert evaluate(Model(), [batch], [metrics.accuracy]) == {"accuracy": 1.0}


def test_a_name_is_a_number_or_a_metric() -> None:
    data = [(np.array([[0.1, 0.9]]), np.array([1])), (np.array([[0.1, 0.9]]), np.array([0]))]
    of_batch = lambda x, y: {"accuracy": metrics.accuracy(x, y) if y.numpy()[0] else 1.0}
    with pytest.raises(ValueError, match="'accuracy' is a number in some batches"):
        evaluate(lambda x: x, data, of_batch)


def test_a_number_of_some_batches_is_the_mean_over_these() -> None:
    """Also within a step that accumulates: the others had none. A validation says so once."""
    weight = Parameter([1.0], name="weight")
    trainer = Trainer(SGD([weight], 0.0))

    def loss(x: Tensor) -> dict[str, Any]:
        found: dict[str, Any] = {"loss": (weight * x).mean()}
        return found | ({"large": x.mean()} if len(x) > 1 else {})

    rows = [([1.0], [4.0, 6.0]), ([2.0], [3.0]), ([7.0, 9.0], [8.0, 8.0])]
    data = [(np.array(batch, np.float32),) for pair in rows for batch in pair]
    for accumulate in (1, 2, 3):
        (entry,) = trainer.fit(data, loss, epochs=1, accumulate=accumulate).history
        assert entry["large"] == pytest.approx((10 + 16 + 16) / 6)
        assert entry["loss"] == pytest.approx(48 / 9)
    with pytest.warns(UserWarning, match="'large' was returned for 3 of 6 batches, and is aver"):
        first, _ = trainer.fit(data, loss, epochs=1, validate=(data, loss)).history
    assert first["val_large"] == pytest.approx(7)


def test_a_validation_is_over_the_whole_set() -> None:
    loader, seen = DataLoader(ArrayDataset(ROWS), 2), list[int]()
    fails = [True]

    def measured(x: Tensor) -> float:
        seen.append(len(x))
        if fails and len(seen) == 2:
            fails.clear()
            raise RuntimeError("of the validation")
        return 1.0

    next(iter(loader))  # a look at a batch
    with pytest.raises(ValueError, match="in the middle of an epoch"):
        fit([(ROWS,)], epochs=1, validate=(loader, measured))
    assert not seen
    loader.seek(0)
    with pytest.raises(RuntimeError, match="of the validation"):
        fit([(ROWS,)], epochs=1, validate=(loader, measured))
    seen.clear()
    fit([(ROWS,)], epochs=2, validate=(loader, measured))
    assert seen == [2, 2, 1] * 2


def test_an_epoch_of_some_of_its_batches_is_said() -> None:
    loader = DataLoader(ArrayDataset(ROWS), 2)
    next(iter(loader))
    with pytest.warns(UserWarning, match="has handed out 1 batches of its epoch"):
        assert fit(loader, epochs=1).steps == 2


def test_a_stream_that_was_left_within_its_epoch_is_said() -> None:
    loader = StreamLoader([(row,) for row in ROWS], 2)
    next(iter(loader))
    told = r"StreamLoader given as loader has handed out 1 batches.*loader\.seek\(loader\.epoch\)"
    with pytest.warns(UserWarning, match=told):
        assert fit(loader, epochs=1).steps == 2
    next(iter(loader))
    loader.seek(loader.epoch)
    assert fit(loader, epochs=1).steps == 3
    next(iter(loader))
    loader.load_state_dict(loader.state_dict())
    assert fit(loader, epochs=1).steps == 2
    with pytest.raises(ValueError, match="epoch must be 0 or more, not -1"):
        loader.seek(-1)


@pytest.mark.parametrize("value", ["3", [1], {}, True])
@pytest.mark.parametrize("name", ["best", "waited", "best_step"])
def test_early_stopping_goes_on_from_numbers(name: str, value: Any) -> None:
    stopping = EarlyStopping()
    before = stopping.state_dict()
    with pytest.raises(ValueError, match=f"{name}: saved .*, which is not a"):
        stopping.load_state_dict(before | {name: value})
    with pytest.raises(ValueError, match="waited: saved -1, which is not a count"):
        stopping.load_state_dict(before | {"waited": -1})
    assert stopping.state_dict() == before


# Whose weights are the best


class Scale:
    """A model as checkpoints know one."""

    def __init__(self) -> None:
        self.weight = np.zeros(1, np.float32)

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight}

    def load_state_dict(self, state: Any) -> Scale:
        self.weight = np.array(state["weight"])
        return self

    def eval(self) -> Scale:
        return self

    freeze = eval


def test_the_newest_weights_are_not_given_for_the_best_unsaid(tmp_path: Path) -> None:
    found = iter([0.0, 1.0, 2.0])
    kept = Checkpoints(tmp_path, keep_last=1)
    fit([(ROWS,)], epochs=3, validate=lambda: next(found), checkpoints=kept)
    with pytest.warns(UserWarning, match=r"best validation, after step 1, is gone: .* step 3"):
        load_model(tmp_path, Scale())
    load_model(tmp_path, Scale(), step="latest")


def test_older_weights_are_not_taken_for_damaged_ones_unsaid(tmp_path: Path) -> None:
    fit([(ROWS,)], epochs=2, checkpoints=tmp_path)
    newest = max(tmp_path.glob("step-*"))
    (newest / "manifest.json").write_text("{")
    told = f"{newest.name} cannot be loaded .*manifest.json is damaged.* of step 1, is taken"
    for use in (
        lambda: load_model(tmp_path, Scale()),
        lambda: fit([(ROWS,)], epochs=2, resume=tmp_path),
        lambda: fit([(ROWS,)], epochs=2, checkpoints=tmp_path, resume=True),
    ):
        with pytest.warns(CheckpointWarning, match=told) as found:
            use()
        assert [w.filename for w in found if w.category is CheckpointWarning] == [__file__]


def test_the_best_weights_of_another_folder_are_missed_at_the_start(tmp_path: Path) -> None:
    found = iter([0.5, 0.1, 0.7, 0.8])
    options: dict[str, Any] = {"restore_best": True, "validate": lambda: next(found)}
    fit([(ROWS,)], epochs=3, checkpoints=tmp_path / "a", **options)
    last = max((tmp_path / "a").glob("step-*"))
    with pytest.raises(ValueError, match=r"after step 2, whose checkpoint is not in .*b: resume"):
        fit([(ROWS,)], epochs=4, checkpoints=tmp_path / "b", resume=last, **options)
    assert next(found) == 0.8


def test_early_stopping_compares_no_two_models() -> None:
    """As in a cross-validation, whose folds share their callbacks."""
    stopping, found = EarlyStopping(patience=2), iter([0.1, 0.2, 0.3, 5.0, 4.0, 3.0])
    options: dict[str, Any] = {"validate": lambda: next(found), "callbacks": [stopping]}
    assert fit([(ROWS,)], epochs=3, **options).epochs == 3
    assert (stopping.best, stopping.best_step) == (0.1, 1)
    assert fit([(ROWS,)], epochs=3, **options).reason == "epochs"
    assert (stopping.best, stopping.best_step) == (3.0, 3)


class Clock(Callback):
    """Half a second per step, and none beside."""

    order = -1

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.seconds = 0.0, list[float]()
        for module in (run, run_checkpoints):
            monkeypatch.setattr(module, "perf_counter", lambda: self.now)

    def on_step_end(self, event: StepEnd) -> None:
        self.now += 0.5

    def on_epoch_end(self, event: EpochEnd) -> None:
        self.seconds.append(event.seconds)


def test_the_time_of_an_epoch_is_that_of_its_steps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock(monkeypatch)

    def validate() -> float:
        clock.now += 100
        return 0.5

    class SlowDisk(Checkpoints):
        def save(self, *args: Any, **options: Any) -> Path | None:
            clock.now += 100
            return super().save(*args, **options)

    fit(
        [(ROWS,)] * 4, epochs=2, validate=validate, validate_every=Every(steps=2, epochs=1),
        checkpoints=SlowDisk(tmp_path), save_every=Every(steps=2), callbacks=[clock],
    )  # fmt: skip
    assert clock.seconds == [2.0, 2.0]


def test_the_speed_of_an_epoch_counts_what_its_time_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not samples of before a resume."""
    options: dict[str, Any] = {"checkpoints": tmp_path, "resume": "auto"}
    fit([(ROWS,)] * 4, steps=2, **options)
    shown = io.StringIO()
    fit([(ROWS,)] * 4, epochs=2, callbacks=[Clock(monkeypatch), LiveView(shown)], **options)
    lines = [line for line in shown.getvalue().splitlines() if "done" in line]
    assert ["  10 samples/s" in line for line in lines] == [True, True]


def test_the_best_of_another_validation_is_said(tmp_path: Path) -> None:
    """Its best value is one of other samples; a run that does not validate changes nothing."""
    options: dict[str, Any] = {"checkpoints": tmp_path, "resume": "auto"}
    long, short = (DataLoader(ArrayDataset(ROWS[:rows]), 2) for rows in (5, 3))
    fit([(ROWS,)], epochs=1, validate=(long, lambda x: x.mean()), **options)
    fit([(ROWS,)], epochs=2, **options)
    fit([(ROWS,)], epochs=3, validate=(long, lambda x: x.mean()), **options)
    with pytest.warns(UserWarning, match=r"validation\.samples was 5 and is 3, validation\."):
        fit([(ROWS,)], epochs=4, validate=(short, lambda x: x.mean()), **options)


STATEFUL: dict[str, Callable[[], Any]] = {
    "stopping": lambda: EarlyStopping("loss"),
    "feed": lambda: FeedPlateau(Plateau(0.1), "loss"),
    "plateau": lambda: Plateau(0.1),
    "scaling": lambda: Scaling(LossScale()),
    "loader": lambda: DataLoader(ArrayDataset(ROWS), 2),
    "stream": lambda: StreamLoader([(1,)], 2),
    "losses": Losses,
    "position": Position,
}


@pytest.mark.parametrize("name", STATEFUL)
def test_names_of_a_state(name: str) -> None:
    """A misspelled one would do nothing, a missing one was a KeyError."""
    it = STATEFUL[name]()
    before = it.state_dict()
    it.load_state_dict(before)
    with pytest.raises(StateMismatchError, match="bset is unknown"):
        it.load_state_dict({**before, "bset": 1})
    if name not in ("feed", "position"):  # of which older versions saved less
        with pytest.raises(StateMismatchError, match=r"(best|scale|total|seed) is missing"):
            it.load_state_dict({"bset": 1})
    assert it.state_dict() == before


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("early", {"best": "0.5"}),
        ("early", {"best_step": []}),
        ("early", {"best_step": -1}),
        ("early", {"waited": -1}),
        ("early", {"waited": 1.5}),
        ("plateau", {"mode": "lower"}),
        ("plateau", {"waited": -1}),
    ],
)
def test_values_of_a_state(name: str, change: dict[str, Any]) -> None:
    """They failed at the next validation, or never stopped a training."""
    it = EarlyStopping("loss") if name == "early" else Plateau(0.1)
    before = it.state_dict()
    with pytest.raises(ValueError, match=f"{next(iter(change))}: saved"):
        it.load_state_dict({**before, **change})
    assert it.state_dict() == before


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": "3"},
        {"epoch": 1.5},
        {"step": -1},
        {"step": None},
        {"exhausted": "no"},
        {"best": "0.5"},
        {"best_step": True},
        {"monitor": 3},
        {"metrics": {"loss": "low"}},
        {"metrics": [1.0]},
        {"history": {}},
        {"history": [1]},
        {"hyper": None},
        {"recent_losses": ["a"]},
    ],
)
def test_values_of_a_position(change: dict[str, Any]) -> None:
    """A training went on from them, and failed steps later or counted wrong."""
    it = Position(epoch=2, best=float("nan"), metrics={"loss": float("inf")}, history=[{"a": None}])
    before = it.state_dict()
    it.load_state_dict(before)
    with pytest.raises(StateMismatchError, match=f"Position: {next(iter(change))} must be"):
        it.load_state_dict({**before, **change})
    assert repr(it.state_dict()) == repr(before)


def test_a_callback_of_the_user_may_save_more() -> None:
    class Noting(EarlyStopping):
        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "noted": 3}

    again = Noting("loss")
    again.load_state_dict(Noting("loss").state_dict())
