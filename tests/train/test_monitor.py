"""Each stored number belongs to the weights and the step at which it was measured."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rumus.optim import EMA, SAM, SGD, Lookahead, Plateau
from rumus.tensor import Backend, NumpyBackend, Parameter, Tensor, tensor
from rumus.train import (
    ArrayDataset,
    BalancedSampler,
    Callback,
    CallbackError,
    Checkpoints,
    DataLoader,
    EarlyStopping,
    EpochEnd,
    Every,
    FeedPlateau,
    Mixup,
    Result,
    TrainEnd,
    Trainer,
    ValidationEnd,
    evaluate,
    metrics,
)
from rumus.train.base.position import Position
from rumus.train.loop.callback import Callbacks
from rumus.train.loop.measured_weights import MeasuredWeights
from rumus.train.metrics import MetricState

BATCH = (np.zeros(1, np.float32),)


class Counting:
    """Its weight is n after step n, so metrics of the weights can be recomputed."""

    def __init__(self, metric: Callable[[float], float], name: str = "loss") -> None:
        self.weight = Parameter([0.0], name="weight")
        self.trainer = Trainer(SGD([self.weight], 1.0))
        self.metric, self.name = metric, name

    def validate(self) -> dict[str, float]:
        return {self.name: self.metric(self.weight.item())}

    def fit(self, steps: int, per_epoch: int = 100, **options: Any) -> Result:
        options = {"validate": self.validate, **options}
        loss = lambda z: (z - self.weight).sum()
        return self.trainer.fit([BATCH] * per_epoch, loss, steps=steps, **options)


def stored(folder: Path, name: str = "checkpoints") -> dict[int, float | None]:
    """The metrics of the checkpoints; each must hold the weights of its step."""
    checkpoints = Checkpoints(folder / name)
    for saved in checkpoints.list():
        state = checkpoints.load(saved.step).state
        assert state["parameters"]["weight"].tolist() == [float(saved.step)]
    return {saved.step: saved.metric for saved in checkpoints.list()}


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.integers(-3, 3), min_size=25, max_size=25),
    validated=st.integers(1, 7),
    saved=st.integers(1, 7),
    per_epoch=st.integers(1, 9),
    mode=st.sampled_from(["min", "max"]),
    keep_last=st.integers(1, 3),
)
def test_stored_numbers_can_be_measured_again(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[int],
    validated: int,
    saved: int,
    per_epoch: int,
    mode: Any,
    keep_last: int,
) -> None:
    """However often it is validated and saved: metrics, best and history match their steps."""
    folder = tmp_path_factory.mktemp("run")
    model = Counting(lambda at: float(values[int(at)]), "score")
    result = model.fit(
        24, per_epoch, validate_every=Every(steps=validated), save_every=Every(steps=saved),
        monitor="score", mode=mode,
        checkpoints=Checkpoints(folder / "checkpoints", keep_last=keep_last, keep_best=mode),
    )  # fmt: skip
    measured = {step: float(values[step]) for step in range(validated, 25, validated)}
    found = {e["step"]: e["val_score"] for e in result.history if "val_score" in e}
    assert found == measured
    best = (min if mode == "min" else max)(measured, key=measured.__getitem__)
    assert (result.best_step, result.best) == (best, measured[best])
    assert result.metrics_step == max(measured)
    assert result.metrics == {"score": measured[max(measured)]}
    kept = stored(folder)
    assert best in kept
    assert kept == {step: measured.get(step) for step in kept}
    assert Checkpoints(folder / "checkpoints").load_best(mode).step == best


def test_training_and_validation_share_no_key() -> None:
    history = Counting(lambda at: 99.0).fit(2, per_epoch=1).history
    assert [set(entry) for entry in history] == [
        {"epoch", "step", "val_loss"},
        {"epoch", "step", "loss"},
    ] * 2
    assert history[2] == {"epoch": 1, "step": 2, "val_loss": 99.0}


def test_a_metric_may_have_any_name() -> None:
    history = Counting(lambda at: 7.5, "step").fit(1, per_epoch=1).history
    assert history[0] == {"epoch": 0, "step": 1, "val_step": 7.5}


def test_weights_that_were_rolled_back_have_no_metric(tmp_path: Path) -> None:
    """Validated after step 4, then rolled back to the weights of step 2: those of 4 are gone."""
    model = Counting(lambda at: -at)
    bad = iter([False] * 4 + [True] + [False] * 9)
    loss = lambda z: (z - model.weight).sum() * (np.nan if next(bad) else 1.0)

    class SaveAtTwo(Callback):
        def on_validation_end(self, event: ValidationEnd) -> None:
            if event.step == 4:
                event.run.save()

    checkpoints = Checkpoints(tmp_path, keep_last=9)
    with pytest.warns(RuntimeWarning, match="rolled back"):
        model.trainer.fit(
            [BATCH] * 6, loss, epochs=1, validate=model.validate, nonfinite="rollback",
            validate_every=Every(steps=4), checkpoints=checkpoints, save_every=Every(steps=2),
        )  # fmt: skip
    found = {saved.step: saved.metric for saved in checkpoints.list()}
    assert found == {2: None, 4: -4.0, 5: None}


@pytest.mark.parametrize("how", ["folder", "checkpoints"])
def test_a_misspelled_metric_is_refused_and_nothing_lost(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "checkpoints"
    store = folder if how == "folder" else Checkpoints(folder, keep_best="max")
    model = Counting(lambda at: at, "accuracy")
    with pytest.raises(ValueError, match=r"monitor='acuracy', .* it returns 'accuracy'"):
        model.fit(9, per_epoch=3, monitor="acuracy", mode="max", checkpoints=store)
    assert stored(tmp_path) == {3: None}
    again = Counting(lambda at: at, "accuracy")
    result = again.fit(
        9, per_epoch=3, monitor="accuracy", mode="max", checkpoints=folder, resume=True
    )
    assert (result.best, result.best_step) == (9.0, 9)
    assert [e["step"] for e in result.history if "val_accuracy" in e] == [3, 6, 9]


def test_the_default_metric_is_not_there(tmp_path: Path) -> None:
    model = Counting(lambda at: at, "accuracy")
    with pytest.raises(
        ValueError, match=r"monitor='loss', which .* 'accuracy': pass monitor= with"
    ):
        model.fit(3, per_epoch=1, checkpoints=tmp_path)
    assert model.fit(3, per_epoch=1).best is None  # nothing depends on it


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"monitor": "accuracy"}, r"mode must say whether a lower .* 'accuracy' is better"),
        ({"monitor": "neg_log_loss"}, r"mode must say whether a lower .* 'neg_log_loss' is"),
        ({"mode": "more"}, "mode must be 'min', 'max' or None"),
        ({"mode": "max"}, "monitor is missing"),
        ({"restore_best": True}, "restore_best=True needs checkpoints="),
        ({"save_every": Every(steps=2)}, r"save_every=.* has no effect without checkpoints="),
        ({"resume": "auto"}, 'resume="auto" has no effect without checkpoints='),
        ({"rollbacks": 5}, r"rollbacks=5 has no effect without nonfinite="),
        ({"rollbacks": 3}, r"rollbacks=3 has no effect without nonfinite="),
        ({"rollbacks": -1, "nonfinite": "rollback"}, "rollbacks must be 0 or more, not -1"),
        ({"validate_every": Every()}, r"validate_every=Every\(\) never validates"),
        (
            {"validate": None, "validate_every": Every(steps=1)},
            "validate_every=.* no effect without",
        ),
        ({"validate": None, "monitor": "loss"}, "monitor='loss' has no effect without validate="),
        ({"validate": None, "mode": "min"}, "mode='min' has no effect without validate="),
        ({"validate": None, "restore_best": True}, "restore_best=True needs validate="),
        ({"validate": None, "callbacks": [EarlyStopping()]}, "EarlyStopping needs 'loss'"),
        ({"validate": None, "callbacks": [FeedPlateau(Plateau(1.0))]}, "FeedPlateau needs 'loss'"),
        (
            {"monitor": "f1", "mode": "max", "callbacks": [EarlyStopping("f1", mode="min")]},
            "EarlyStopping takes 'min' as better for 'f1', but fit has mode='max'",
        ),
        (
            {"callbacks": [EarlyStopping("loss", mode="max")]},
            r"'max' as better for 'loss', but fit has mode='min': .* monitor='loss', mode='max'",
        ),
    ],
)
def test_misfits_are_refused_at_the_start(options: dict[str, Any], told: str) -> None:
    model = Counting(lambda at: at)
    with pytest.raises(ValueError, match=told):
        model.fit(3, per_epoch=1, **options)
    assert model.weight.item() == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mode": "max", "monitor": "f1"}, "mode='max' contradicts .* keep_best='min'"),
        ({"monitor": None, "validate": None}, "keep_best='min' has no effect without validate="),
    ],
)
def test_an_order_that_contradicts_that_of_the_checkpoints(
    tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    model = Counting(lambda at: at)
    with pytest.raises(ValueError, match=told):
        model.fit(3, checkpoints=Checkpoints(tmp_path / "c", keep_best="min"), **options)
    assert not (tmp_path / "c").exists()


def test_modes_that_only_the_caller_knows() -> None:
    with pytest.raises(ValueError, match="mode must say"):
        EarlyStopping("accuracy")
    with pytest.raises(ValueError, match=r"Plateau\(mode=\.\.\.\) must say"):
        FeedPlateau(Plateau(1.0), "accuracy")
    assert FeedPlateau(Plateau(1.0, mode="max"), "accuracy").mode == "max"
    assert EarlyStopping("val_loss").mode == "min"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"steps": 2.5}, r"steps must be a whole number, not 2\.5"),
        ({"steps": 9, "epochs": 1.5}, r"epochs must be a whole number, not 1\.5"),
        ({"steps": 9, "validate_every": 2}, r"validate_every must be Every\(steps=\.\.\.\).*not 2"),
        ({"steps": 9, "save_every": 2}, r"save_every must be Every\(steps=\.\.\.\).*not 2"),
        ({"steps": 9, "checkpoints": True}, r"checkpoints must be a folder .* not True"),
        ({"steps": 9, "validate": lambda: {"loss": "1.0"}}, "returns numbers, and '.*' is '1.0'"),
    ],
)
def test_other_types_are_refused(options: dict[str, Any], told: str) -> None:
    model = Counting(lambda at: at)
    with pytest.raises((TypeError, ValueError), match=told):
        model.fit(**{"per_epoch": 1, **options})


@pytest.mark.parametrize("how", ["folder", "checkpoints"])
def test_a_resume_that_does_not_validate_keeps_the_best(tmp_path: Path, how: str) -> None:
    """Nothing new says which is better, so the best so far still counts."""
    values = [5.0, 1.0, 4.0, 6.0]
    model = Counting(lambda at: values[int(at)] if at < 4 else 9.0)
    model.fit(3, per_epoch=1, checkpoints=tmp_path)
    store = tmp_path if how == "folder" else Checkpoints(tmp_path, keep_last=2)
    model.fit(12, per_epoch=1, checkpoints=store, resume=True, validate=None)
    kept = {saved.step: saved.metric for saved in Checkpoints(tmp_path).list()}
    assert kept[1] == 1.0
    assert len(kept) < 8


def test_the_end_of_an_epoch_says_which_step_its_metrics_are_of() -> None:
    class Seen(Callback):
        def __init__(self) -> None:
            self.ends: list[tuple[int, int | None, float | None]] = []

        def on_epoch_end(self, event: EpochEnd) -> None:
            self.ends.append((event.step, event.metrics_step, event.metrics.get("loss")))

    seen, model = Seen(), Counting(lambda at: 10 * at)
    model.fit(6, per_epoch=2, validate_every=Every(steps=3), callbacks=[seen])
    assert seen.ends == [(2, None, None), (4, 3, 30.0), (6, 6, 60.0)]


@pytest.mark.parametrize(
    "name",
    [
        "f1", "val_AUC", "R2", "perplexity", "n_correct", "count", "n", "max_error", "error_std",
        "median", "worst", "p95", "correct", "dice", "val_jaccard", "balanced_accuracy", "BLEU",
        "wer", "sensitivity",
    ],
)  # fmt: skip
def test_a_metric_that_is_not_a_mean_is_reported(name: str) -> None:
    """The metric of a set is not the mean of its batches' metrics."""
    model = Counting(lambda at: 0.0)
    data = [(np.ones(2, np.float32),), (np.ones(3, np.float32),)]
    with pytest.warns(
        UserWarning, match=rf"'{name}' .* averaged over batches.*rumus.train.metrics"
    ):
        model.fit(2, 2, validate=(data, lambda x: {name: 0.5}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(4, 2, validate=(data[:1], lambda x: {name: 0.5}))
        model.fit(6, 2, validate=(data, lambda x: {"accuracy": 0.5, "dice_loss": 0.5}))
        model.fit(8, 2, validate=(data, lambda x: {"maxout": 0.5, "answer": 0.5}))


@pytest.mark.parametrize("make", [int, np.int64, lambda n: tensor(n).sum()])
def test_a_count_that_is_averaged_is_told_of_once(make: Callable[[int], Any]) -> None:
    """In whatever batch it is first seen: of a smaller one, or after batches without any."""
    data = [(np.ones(n, np.float32),) for n in (3, 2, 1, 4)]
    counts = iter((2, 0, 1, 3))
    with pytest.warns(
        UserWarning, match="'right' is a sum or a whole number for each batch"
    ) as told:
        found = evaluate(lambda x: x, data, lambda x: {"right": make(next(counts))})
    assert len(told) == 1
    assert found["right"] == pytest.approx((2 * 3 + 1 + 3 * 4) / 10)
    state = MetricState("right", (np.array(2),), float)  # as the message says
    quiet: list[tuple[list[Any], Callable[[Any], Any]]] = [
        (data, lambda x: {"right": state}), (data, lambda x: {"right": len(x) > 2}),
        (data, lambda x: {"right": 2 / len(x)}), (data, lambda x: {"missing": 0}),
        (data[:1], lambda x: {"right": 2}), (data, lambda x: {"one": 1}),
        ([(np.ones(1),)] * 3, lambda x: {"right": 1}),
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = [evaluate(lambda x: x, batches, count) for batches, count in quiet]
    assert results[0] == {"right": 8.0}


def mean_square(prediction: Tensor, target: Tensor) -> Tensor:
    return ((prediction - target) ** 2).mean()


@pytest.mark.parametrize("rows", [3, 1])
@pytest.mark.parametrize("bend", ["sqrt", "exp", "log", "halved"])
def test_the_root_of_a_mean_is_no_mean(bend: str, rows: int, backend: Backend) -> None:
    """Whatever it is called: mse.sqrt() is averaged over batches, which gives no root of a mean."""
    data = [(np.ones((rows, 2), np.float32) * factor,) for factor in (1, 2)]

    def score(x: Tensor) -> dict[str, Any]:
        error = mean_square(x, x * 0.5)
        return {"score": error**0.5 if bend == "halved" else getattr(error, bend)()}

    trainer = Trainer(SGD([Parameter([1.0], backend=backend)], 0.1))
    if rows > 1:
        with pytest.warns(UserWarning, match="'score' is averaged over batches") as told:
            trainer.evaluate(data, score)
        assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.evaluate(data[:1] if rows > 1 else data, score)
        trainer.evaluate(data, lambda x: {"score": (x * x).sqrt().mean()})
        trainer.evaluate(data, lambda x: {"score": -mean_square(x, x * 0.5), "share": x.mean() * 2})


def test_a_metric_that_became_a_number_is_averaged_under_any_name() -> None:
    """An accuracy is the mean of those of batches, an F1 is not."""
    scores, y = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32), np.array([1, 1])
    data = [(scores, y), (scores, y)]
    with pytest.warns(UserWarning, match="'loss' is averaged over batches") as told:
        evaluate(lambda x: x, data, lambda s, y: {"loss": float(metrics.f1(s, y))})
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(lambda x: x, data, lambda s, y: {"loss": float(metrics.accuracy(s, y))})
        evaluate(lambda x: x, data, lambda s, y: {"loss": metrics.f1(s, y)})


@pytest.mark.parametrize("name", ["max", "min", "std", "var", "norm", "prod"])
def test_one_number_of_several_samples_is_no_mean(name: str, backend: Backend) -> None:
    """Of 1, 3 and 6, 4 the largest is 6, and not the mean of 3 and 6."""
    data = [(np.array([1.0, 3.0], np.float32),), (np.array([6.0, 4.0], np.float32),)]
    weight = Parameter([1.0, 2.0], backend=backend)
    trainer = Trainer(SGD([weight], 0.1))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer.evaluate(data, lambda x: {"score": getattr(x * x, name)(), "mean": x.mean()})
        trainer.evaluate(data, lambda x: {"score": x.mean(), "of_model": getattr(weight, name)()})
        trainer.evaluate(data[:1], lambda x: {"score": getattr(x, name)()})
        trainer.evaluate(data, lambda x: {"score": getattr(x.reshape(2, 1), name)(axis=1).mean()})
    assert ["'score' is averaged over batches" in str(each.message) for each in told] == [True]


def test_the_best_of_another_metric_is_not_continued(tmp_path: Path) -> None:
    Counting(lambda at: at).fit(2, per_epoch=1, checkpoints=tmp_path)
    model = Counting(lambda at: at, "accuracy")
    with pytest.raises(ValueError, match=r"is for monitor='loss', mode='min', but here .*accuracy"):
        model.fit(4, per_epoch=1, checkpoints=tmp_path, resume=True, monitor="accuracy", mode="max")
    assert model.weight.item() == 0


# The best weights


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("validated", [1, 2, 3])
def test_the_best_weights_come_back(tmp_path: Path, validated: int, asynchronous: bool) -> None:
    model = Counting(lambda at: abs(at - 6.0))
    stopping = EarlyStopping("loss", patience=3)
    result = model.fit(
        30, validate_every=Every(steps=validated), save_every=Every(steps=5),
        checkpoints=Checkpoints(tmp_path, keep_last=1, keep_best="min", asynchronous=asynchronous),
        callbacks=[stopping], restore_best=True,
    )  # fmt: skip
    assert result.reason == "no better loss in 3 validations"
    assert result.steps == 6 + 3 * validated
    assert (result.best, result.best_step, stopping.best_step) == (0.0, 6, 6)
    assert model.weight.item() == 6
    assert model.trainer.optimizer.steps == 6


def test_restoring_without_a_best(tmp_path: Path) -> None:
    model = Counting(lambda at: np.nan)
    with pytest.raises(ValueError, match="no validation returned a numeric 'loss'"):
        model.fit(2, per_epoch=1, checkpoints=tmp_path, restore_best=True)
    assert model.weight.item() == 2


def test_the_best_checkpoint_is_found(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep_last=9)
    for step, metric in enumerate([None, 0.5, 0.9, np.nan, 0.9]):
        checkpoints.save(step, {"model": {}}, metric=metric)
    assert (checkpoints.load_best("max").step, checkpoints.load_best("min").step) == (2, 1)
    with pytest.raises(ValueError, match='mode must be "min" or "max" if keep_best is None'):
        checkpoints.load_best()
    with pytest.raises(ValueError, match="keep_best is None"):
        _ = checkpoints.best


def test_a_step_logs_nothing_under_the_name_of_a_metric() -> None:
    run = Counting(lambda weight: weight)
    loss = lambda z: {"loss": (z - run.weight).sum(), "val_acc": 1.0}
    with pytest.raises(ValueError, match=r"logs 'val_acc', .* uses for 'acc' of a validation"):
        run.trainer.fit([BATCH], loss, epochs=1, validate=lambda: {"acc": 0.5})
    assert run.weight.item() == 0


def returns_nothing() -> Any:
    print("looked at")


def raises() -> Any:
    raise RuntimeError("the file of the validation is gone")


@pytest.mark.parametrize(
    ("validate", "told"),
    [(returns_nothing, r"numbers by name, .* not None; does it return"), (raises, "is gone")],
    ids=lambda f: getattr(f, "__name__", ""),
)
def test_training_is_not_lost_to_a_failing_validation(
    validate: Any, told: str, tmp_path: Path
) -> None:
    """It is saved, and the validation is due when the run continues."""
    with pytest.raises((TypeError, RuntimeError), match=told):
        Counting(float).fit(3, 3, validate=validate, checkpoints=Checkpoints(tmp_path))
    assert stored(tmp_path, "") == {3: None}
    run = Counting(float)
    result = run.fit(3, 3, checkpoints=Checkpoints(tmp_path), resume="auto")
    assert result.metrics == {"loss": 3.0}
    assert result.metrics_step == 3


def test_a_single_metric_keeps_its_name(tmp_path: Path) -> None:
    scores, targets = np.array([[0.1, 0.9], [0.2, 0.8]]), np.array([1, 0])
    run = Counting(float)
    result = run.fit(1, 1, validate=lambda: metrics.accuracy(scores, targets))
    assert result.metrics == {"accuracy": 0.5}
    with pytest.raises(ValueError, match="monitor='loss', which the validation does not return"):
        run.fit(1, 1, validate=lambda: metrics.f1(scores, targets), checkpoints=tmp_path / "f1")


@pytest.mark.parametrize(
    ("validate", "said"),
    [
        (lambda: float((np.ones((2, 2)).argmax(1) == 0).mean()), "<lambda> returns .*'accuracy'"),
        (lambda: next(accuracy_score() for _ in range(1)), "<lambda> returns .*'accuracy_score'"),
        (lambda: cross_entropy_loss() + 0 * np.ones(2).argmax(), None),
        (lambda: 0.5, None),
    ],
)
def test_a_score_of_a_nameless_function_is_not_taken_for_a_loss(
    validate: Any, said: str | None
) -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        Counting(float).fit(1, 1, validate=validate)
    assert len(heard) == (said is not None)
    assert said is None or re.search(said, str(heard[0].message))


def accuracy_score() -> float:
    return 0.75


def cross_entropy_loss() -> float:
    return 0.75


def test_a_plateau_without_reports_is_warned_about() -> None:
    """After an epoch; a plateau that is fed less often is fine."""
    for lr, callbacks in ((Plateau(0.1), []), (told := Plateau(0.1), [FeedPlateau(told, "loss")])):
        weight = Parameter([1.0], name="weight")
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            Trainer(SGD([weight], lr)).fit(
                [(np.ones(2, np.float32),)] * 2,
                lambda x, w=weight: ((w - x) ** 2).mean(),
                epochs=4,
                validate=lambda: {"loss": 1.0},
                validate_every=Every(epochs=3),
                callbacks=callbacks,
            )
        said = [str(each.message) for each in found if "is a Plateau" in str(each.message)]
        assert len(said) == (not callbacks)
        assert all(text.startswith("lr is a Plateau") for text in said)


def test_a_metric_without_a_value_is_named() -> None:
    weight = Parameter([1.0], name="weight")
    with pytest.raises(ValueError, match="'hits' is not one: float"):
        Trainer(SGD([weight], 0.1)).evaluate(
            [(np.ones(2, np.float32),)], lambda x: {"hits": x * weight}
        )


class Changing(Callback):
    """Changes the weights after they were measured."""

    def __init__(self, weight: Parameter, event: str, at: int) -> None:
        self.weight, self.at = weight, at
        setattr(self, event, self.change)

    def change(self, event: Any) -> None:
        if event.step == self.at:
            self.weight[...] = float(100 * self.at)

    def on_validation_end(self, event: ValidationEnd) -> None: ...

    def on_epoch_end(self, event: EpochEnd) -> None: ...


@pytest.mark.parametrize("event", ["on_validation_end", "on_epoch_end"])
def test_weights_that_a_callback_changes_have_not_the_metric(event: str, tmp_path: Path) -> None:
    """As by pruning or clipping: the best of those that are stored as measured stays the best."""
    model = Counting(lambda at: 5.0 if at == 1 else 1.0)
    changing = Changing(model.weight, event, 2)
    with pytest.warns(UserWarning, match="changed after the validation of step 2, .* no metric"):
        result = model.fit(2, per_epoch=1, callbacks=[changing], checkpoints=tmp_path)
    checkpoints = Checkpoints(tmp_path, keep_best="min")
    assert [(saved.step, saved.metric) for saved in checkpoints.list()] == [(1, 5.0), (2, None)]
    assert checkpoints.load(2).state["parameters"]["weight"].tolist() == [200.0]
    assert (result.best, result.best_step) == (5.0, 1)
    assert checkpoints.load_best().step == 1


def test_weights_that_a_callback_changes_are_not_restored_as_the_best(tmp_path: Path) -> None:
    model = Counting(lambda at: 5.0 if at == 1 else 1.0)
    changing = Changing(model.weight, "on_validation_end", 2)
    with pytest.warns(UserWarning, match="changed after the validation of step 2"):
        model.fit(2, per_epoch=1, callbacks=[changing], checkpoints=tmp_path, restore_best=True)
    assert model.weight.item() == 1


@pytest.mark.parametrize("event", ["on_validation_end", "on_epoch_end"])
@pytest.mark.parametrize("is_saved", [False, True])
@pytest.mark.parametrize("at", [1, 2])
def test_a_result_has_no_numbers_of_weights_that_a_callback_has_changed(
    event: str, is_saved: bool, at: int, tmp_path: Path
) -> None:
    """With checkpoints and without: at the end, and before the next step."""
    model = Counting(lambda step: 1.0 if step == at else 5.0)
    options = {"checkpoints": tmp_path} if is_saved else {}
    with pytest.warns(
        UserWarning, match=f"changed after the validation of step {at}, .* no metric"
    ):
        result = model.fit(2, per_epoch=1, callbacks=[Changing(model.weight, event, at)], **options)
    assert (result.best, result.best_step) == (5.0, 3 - at)
    assert (result.metrics_step is None) == (at == 2)


def test_a_resumed_result_has_no_numbers_of_weights_that_a_callback_has_changed(
    tmp_path: Path,
) -> None:
    Counting(lambda step: 5.0).fit(2, per_epoch=1, checkpoints=tmp_path)
    model = Counting(lambda step: 5.0)

    class Start(Callback):
        def on_train_start(self, event: Any) -> None:
            model.weight[...] = 100.0

    with pytest.warns(UserWarning, match="changed after the validation of step 2"):
        result = model.fit(2, per_epoch=1, checkpoints=tmp_path, resume=True, callbacks=[Start()])
    assert (result.steps, result.metrics_step) == (2, None)


@pytest.mark.parametrize("puts_back", [False, True])
def test_weights_that_a_validation_changes_have_not_its_numbers(
    puts_back: bool, tmp_path: Path
) -> None:
    """Nor those that are there after it, as of an average that a program lends by itself."""
    model = Counting(lambda step: 5.0)

    def measure(step: float) -> float:
        if step == 2:
            before = model.weight.numpy().copy()
            model.weight[...] = 100.0
            if puts_back:
                model.weight[...] = before
        return 5.0 if step == 1 else 1.0

    model.metric = measure
    with pytest.warns(UserWarning, match="the validation of step 2 has changed weights"):
        result = model.fit(2, per_epoch=1, checkpoints=tmp_path)
    checkpoints = Checkpoints(tmp_path, keep_best="min")
    assert [(saved.step, saved.metric) for saved in checkpoints.list()] == [(1, 5.0), (2, None)]
    assert (result.best, result.best_step, result.metrics_step) == (5.0, 1, None)


def test_a_rank_changes_no_weights_in_a_validation() -> None:
    """The others would train with those from before."""
    model = Counting(float)
    measured = MeasuredWeights(model.trainer)
    with measured.measuring(Position(), 2):
        model.validate()
    with (
        pytest.raises(ValueError, match="of step 0 has changed weights of the model on this rank"),
        measured.measuring(Position(), 2),
    ):
        model.weight[...] = 100.0


class ChangingAtEnd(Callback):
    def __init__(self, weight: Parameter) -> None:
        self.weight = weight

    def on_train_end(self, event: Any) -> None:
        self.weight[...] = 100.0


def test_weights_that_are_changed_at_the_end_have_not_the_numbers(tmp_path: Path) -> None:
    model = Counting(lambda step: 1.0 / step)
    with pytest.warns(UserWarning, match="changed in on_train_end, .* they are gone"):
        result = model.fit(2, per_epoch=1, callbacks=[ChangingAtEnd(model.weight)])
    assert (result.best, result.best_step, result.metrics_step) == (1.0, 1, None)


@pytest.mark.parametrize("restore_best", [False, True])
def test_the_checkpoint_keeps_the_numbers_of_weights_that_are_changed_at_the_end(
    restore_best: bool, tmp_path: Path
) -> None:
    model = Counting(float)  # the first is the best
    with pytest.warns(UserWarning, match=f"changed in on_train_end, .* those are in {tmp_path}"):
        result = model.fit(
            2,
            per_epoch=1,
            callbacks=[ChangingAtEnd(model.weight)],
            checkpoints=tmp_path,
            restore_best=restore_best,
        )
    assert (result.best, result.best_step, result.metrics_step) == (1.0, 1, 2)
    assert [(s.step, s.metric) for s in Checkpoints(tmp_path).list()] == [(1, 1.0), (2, 2.0)]


def test_numbers_of_older_weights_stay_where_the_last_ones_are_changed() -> None:
    """Warnings are errors here: the last weights were not measured."""
    model = Counting(float)
    changing = ChangingAtEnd(model.weight)
    result = model.fit(3, per_epoch=3, validate_every=Every(steps=2), callbacks=[changing])
    assert (result.best, result.best_step, result.metrics_step) == (2.0, 2, 2)


def test_a_model_that_is_moved_and_back_has_its_numbers() -> None:
    """Warnings are errors here: a callback may move it to the CPU, to write it elsewhere."""
    model = Counting(lambda step: 5.0)
    home, owner = model.weight.backend, model.trainer.optimizer

    class Move(Callback):
        def on_validation_end(self, event: ValidationEnd) -> None:
            self.move()

        def on_train_end(self, event: TrainEnd) -> None:
            self.move()

        def move(self) -> None:
            owner.move([model.weight], NumpyBackend())
            owner.move([model.weight], home)

    result = model.fit(2, per_epoch=1, callbacks=[Move()])
    assert (result.best, result.metrics_step) == (5.0, 2)


def test_evaluations_with_an_average_change_no_weights(tmp_path: Path) -> None:
    """A save and an evaluation in a callback lend the average to the model and take it back."""
    weight = Parameter([1.0], name="weight")
    trainer = Trainer(SGD([weight], 0.1, average=EMA(0.5)), capture=False)
    loss = lambda x: ((weight - x) ** 2).mean()

    class Evaluate(Callback):
        def on_validation_end(self, event: ValidationEnd) -> None:
            assert trainer.evaluate([BATCH], loss)["loss"] == event.metrics["loss"]

        def on_epoch_end(self, event: EpochEnd) -> None:
            trainer.evaluate([BATCH], loss)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = trainer.fit(
            [BATCH], loss, epochs=3, validate=([BATCH], loss), callbacks=[Evaluate()],
            checkpoints=Checkpoints(tmp_path, keep_last=3),
        )  # fmt: skip
    measured = [entry["val_loss"] for entry in result.history if "val_loss" in entry]
    assert [saved.metric for saved in Checkpoints(tmp_path).list()] == measured
    assert (result.best, result.best_step, result.metrics_step) == (min(measured), 3, 3)


def test_the_best_weights_were_all_changed(tmp_path: Path) -> None:
    model = Counting(lambda step: 5.0)
    changing = Changing(model.weight, "on_validation_end", 1)
    with (
        pytest.warns(UserWarning, match="changed after the validation of step 1"),
        pytest.raises(ValueError, match=r"all weights that a validation .* were changed after it"),
    ):
        model.fit(1, per_epoch=1, callbacks=[changing], checkpoints=tmp_path, restore_best=True)


def _fed(lr: Plateau, optimizer: Any = None, fed: Plateau | None = None, **options: Any) -> Any:
    weight = Parameter([1.0], name="weight")
    optimizer = optimizer or SGD([weight], lr)
    trainer = Trainer(optimizer)
    weight = optimizer.parameters[0]
    trainer.fit(
        [(np.ones(2, np.float32),)],
        lambda x: ((weight - x) ** 2).mean(),
        validate=lambda: {"loss": 1.0},
        callbacks=[FeedPlateau(fed or lr, "loss")],
        **{"epochs": 3, "progress": None, **options},
    )
    return optimizer


def test_a_plateau_belongs_to_one_training() -> None:
    """A second one would begin with the learning rate to which the first was reduced."""
    lr = Plateau(0.1, patience=0)
    first = _fed(lr)
    assert lr.reductions == 2
    with pytest.raises(CallbackError, match="has heard of another training, with 2 reductions"):
        _fed(lr)
    assert lr.reductions == 2
    _fed(lr, first)  # it goes on
    assert lr.reductions == 5


def test_a_resumed_training_may_have_the_plateau_of_the_first(tmp_path: Path) -> None:
    lr = Plateau(0.1, patience=0)
    _fed(lr, checkpoints=tmp_path / "a")
    _fed(lr, checkpoints=tmp_path / "a", resume=True, epochs=4)
    assert lr.reductions == 3


def test_a_plateau_that_no_optimizer_has_is_not_fed() -> None:
    with pytest.raises(CallbackError, match=r"no hyperparameter of SGD .* is this Plateau"):
        _fed(Plateau(0.1), fed=Plateau(0.1))
    told = Plateau(0.1, patience=0)
    weight = Parameter([1.0], name="weight")
    _fed(told, SGD([weight], lambda step: 0.5 * told(step)))  # a function may read it
    assert told.reductions == 2


@pytest.mark.parametrize("wrap", [SAM, Lookahead])
def test_the_plateau_of_a_wrapped_optimizer_is_saved(tmp_path: Path, wrap: Any) -> None:
    def made(lr: Plateau) -> Any:
        return wrap(SGD([Parameter([1.0], name="weight")], lr))

    _fed(lr := Plateau(0.1, patience=0), made(lr), checkpoints=tmp_path / "a")
    _fed(
        again := Plateau(0.1, patience=0),
        made(again),
        checkpoints=tmp_path / "a",
        resume=True,
        epochs=4,
    )
    assert (lr.reductions, again.reductions) == (2, 3)


def test_a_callback_is_given_once() -> None:
    lr = Plateau(0.1)
    feed, weight = FeedPlateau(lr, "loss"), Parameter([1.0], name="weight")
    with pytest.raises(ValueError, match="callbacks: one is given twice"):
        Trainer(SGD([weight], lr)).fit(
            [(np.ones(2, np.float32),)],
            lambda x: (weight * x).mean(),
            epochs=1,
            validate=lambda: {"loss": 1.0},
            callbacks=[feed, feed],
        )


@pytest.mark.parametrize("values", [[2.0, math.nan, 1.0], [math.nan, math.nan, math.nan]])
def test_a_validation_of_nan_is_no_improvement_and_ends_nothing(
    values: list[float], tmp_path: Path
) -> None:
    lr, found = Plateau(1.0, patience=1, factor=0.5), iter(values)
    weight = Parameter([0.0], name="weight")
    options: Any = {
        "validate": lambda: {"loss": next(found)},
        "callbacks": [FeedPlateau(lr)],
        "checkpoints": tmp_path,
        "progress": None,
    }
    trainer = Trainer(SGD([weight], lr))
    with pytest.warns(UserWarning, match=r"'loss' (of the validation after step . is|was) NaN"):
        result = trainer.fit([BATCH], lambda z: (z - weight).sum(), epochs=3, **options)
    assert result.steps == 3
    assert lr.reductions == (1 if math.isnan(values[0]) else 0)


@pytest.mark.parametrize(
    "event", ["on_step_end", "on_validation_end", "on_epoch_end", "on_epoch_start"]
)
def test_what_was_trained_is_not_lost_to_a_failing_callback(event: str, tmp_path: Path) -> None:
    """A run that goes on repeats the validation, which not all callbacks have heard of."""
    heard: list[tuple[int, float]] = []

    class Failing(Callback):
        is_on = True

        def fail(self, event: Any) -> None:
            if self.is_on and event.step >= 3:
                raise LookupError("a full disk")

    class Hearing(Callback):
        order = 1

        def on_validation_end(self, event: ValidationEnd) -> None:
            heard.append((event.step, event.metrics["loss"]))

    failing: Any = type("Failing", (Failing,), {event: Failing.fail})()
    options: Any = {
        "callbacks": [failing, Hearing()],
        "checkpoints": Checkpoints(tmp_path, keep_last=100),
        "validate_every": Every(epochs=1),
        "save_every": Every(epochs=100),
        "progress": None,
    }
    job = Counting(lambda weight: weight)
    with pytest.raises(CallbackError, match=f"Failing failed in {event}.*a full disk"):
        job.fit(8, per_epoch=4, **options)
    last = max(stored(tmp_path, "."))
    assert last == job.weight.item() == (3 if event == "on_step_end" else 4)
    assert heard == ([(4, 4.0)] if "epoch" in event else [])
    failing.is_on = False
    again = Counting(lambda weight: weight)
    result = again.fit(8, per_epoch=4, resume=True, **options)
    assert heard == [(4, 4.0), (8, 8.0)]
    validated = [entry["step"] for entry in result.history if "val_loss" in entry]
    assert validated == [4, 8]


@pytest.mark.parametrize(
    ("every", "told"),
    [
        (Every(steps=100), "ends after 6 steps, so that it never validates"),
        (Every(epochs=3), "ends after 6 steps, so that it never validates"),
    ],
)
def test_a_validation_that_is_never_due_is_told_at_the_start(
    every: Every, told: str, tmp_path: Path
) -> None:
    job = Counting(lambda weight: weight)
    options: Any = {"validate_every": every, "progress": None}
    with pytest.warns(UserWarning, match=told):
        job.fit(6, per_epoch=3, **options)
    with pytest.warns(UserWarning, match=f"{told}, and EarlyStopping would wait for nothing"):
        job.fit(6, per_epoch=3, callbacks=[EarlyStopping()], **options)
    with pytest.raises(ValueError, match="there would be no best one"):
        job.fit(6, per_epoch=3, restore_best=True, checkpoints=tmp_path / "a", **options)
    assert job.weight.item() == 12.0  # nothing was trained the third time


@pytest.mark.parametrize(
    "every", [Every(steps=6), Every(epochs=2), Every(steps=4), Every(epochs=1)]
)
def test_a_validation_that_may_be_due_is_not_told(every: Every, tmp_path: Path) -> None:
    options: Any = {"validate_every": every, "progress": None, "checkpoints": tmp_path}
    Counting(lambda weight: weight).fit(6, per_epoch=3, **options)
    Counting(lambda weight: weight).fit(6, per_epoch=3, resume=True, **options)  # nothing is left


def test_a_run_shorter_than_an_epoch_says_that_it_never_validates() -> None:
    told = "ends after 2 steps, so that it never validates"
    with pytest.warns(UserWarning, match=rf"{told}: validate_every=Every\(steps=2\) does"):
        Counting(lambda weight: weight).fit(2, per_epoch=3, progress=None)
    with pytest.warns(UserWarning, match=f"{told}, and EarlyStopping would wait"):
        Counting(lambda weight: weight).fit(2, per_epoch=3, callbacks=[EarlyStopping()])


@pytest.mark.parametrize(
    ("every", "limits", "steps"),
    [(Every(steps=100), {"epochs": 1}, 3), (None, {"steps": 2}, 2),
     (Every(seconds=100), {"steps": 2}, 2), (Every(seconds=100), {"epochs": 1}, 3)],
)  # fmt: skip
def test_a_validation_that_was_never_due_is_told_at_the_end(
    every: Any, limits: dict[str, Any], steps: int
) -> None:
    """Where the loader has no length."""

    class Unknown:
        def __iter__(self) -> Iterator[Any]:
            return iter([BATCH] * 3)

    job = Counting(lambda weight: weight)
    loss = lambda z: (z - job.weight).sum()
    options: Any = {"validate": job.validate, "validate_every": every, "progress": None}
    told = f"was never due in {steps} steps, so that nothing was validated"
    with pytest.warns(UserWarning, match=told):
        job.trainer.fit(Unknown(), loss, **limits, **options)


def test_a_validation_takes_nothing() -> None:
    with pytest.raises(TypeError, match=r"validate is called without arguments \(missing .* 'x'"):
        Counting(lambda weight: weight).fit(1, validate=lambda x: {"loss": 1.0})


def test_callbacks_that_cannot_hear_their_event_are_refused_at_the_start() -> None:
    """They failed at the end of the first epoch."""

    class Keras(Callback):
        def on_epoch_end(self, epoch: int, logs: Any) -> None:  # type: ignore[override]
            raise NotImplementedError

    class Nothing(Callback):
        def on_train_end(self) -> None:  # type: ignore[override]
            raise NotImplementedError

    class More(Callback):
        def on_epoch_end(self, *events: Any, quiet: bool = True) -> None:
            heard.append(len(events))

    class Static(Callback):
        @staticmethod
        def on_epoch_end(event: Any) -> None:
            heard.append(event.epoch)

    heard: list[int] = []
    for callback, told in (
        (Keras(), r"def on_epoch_end\(self, event\)"),
        (Nothing(), "with the event"),
    ):
        with pytest.raises(TypeError, match=f"{type(callback).__name__}.on_.*{told}"):
            Callbacks([callback])
    Callbacks([More(), Static()])


def test_methods_of_one_callback_and_methods_that_would_not_run() -> None:
    """A function set in place of a method was passed over, and a generator never ran."""

    class Silent(Callback):
        pass

    class Generating(Callback):
        def on_epoch_end(self, event: Any) -> Any:
            yield event

    class Waiting(Callback):
        async def on_epoch_end(self, event: Any) -> None:  # type: ignore[override]
            raise NotImplementedError

    silent: Any = Silent()
    heard: list[int] = []
    silent.on_epoch_end = lambda event: heard.append(event.epoch)
    weight = Parameter([1.0], name="weight")
    Trainer(SGD([weight], 0.1)).fit([()], lambda: weight.sum(), epochs=2, callbacks=[silent])
    assert heard == [0, 1]
    for callback in (Generating(), Waiting()):
        with pytest.raises(TypeError, match="on_epoch_end would not run when it is called"):
            Callbacks([callback])


def test_a_metric_that_is_nan_in_every_validation_is_told_of_at_the_end() -> None:
    model = Counting(lambda at: math.nan, "accuracy")
    options: Any = {"monitor": "accuracy", "mode": "max", "validate_every": Every(steps=1)}
    with pytest.warns(UserWarning, match=r"'accuracy' was NaN in every validation \(3\)") as told:
        assert model.fit(3, **options).best is None
    assert len(told) == 1
    values = iter([math.nan, 1.0, math.nan])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Counting(lambda at: next(values)).fit(3, validate_every=Every(steps=1))
    assert found.best == 1.0


@pytest.mark.parametrize("metric", [3, Parameter([1.0]), b"loss", ["loss"]])
def test_a_plateau_is_fed_by_the_name_of_a_metric(metric: Any) -> None:
    with pytest.raises(TypeError, match="metric"):
        FeedPlateau(Plateau(1.0), metric)
    with pytest.raises(TypeError, match="metric"):
        FeedPlateau(Plateau(1.0, mode="min"), metric)
    with pytest.raises(TypeError, match="metric"):
        EarlyStopping(metric)


def test_precision_of_the_first_answers_is_a_mean_over_samples() -> None:
    data = [(np.ones(2, np.float32),), (np.ones(3, np.float32),)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = ("precision@5", "recall_at_10", "f1_loss")
        Counting(lambda at: 0.0, names[0]).fit(
            2, 2, validate=(data, lambda x: dict.fromkeys(names, 0.5))
        )


def test_what_a_callback_writes_into_an_event_is_no_measurement(tmp_path: Path) -> None:
    class Writing(Callback):
        def on_validation_end(self, event: ValidationEnd) -> None:
            metrics: Any = event.metrics
            metrics["loss"] = -1.0

        def on_epoch_end(self, event: EpochEnd) -> None:
            metrics: Any = event.metrics
            metrics["loss"] = -2.0

    model = Counting(lambda at: at)
    result = model.fit(2, 1, callbacks=[Writing()], checkpoints=tmp_path)
    assert (result.best, result.metrics) == (1.0, {"loss": 2.0})
    assert {saved.step: saved.metric for saved in Checkpoints(tmp_path).list()} == {1: 1.0, 2: 2.0}


def test_a_validation_of_other_samples_is_told_of() -> None:
    data = ArrayDataset(np.arange(5, dtype=np.float32), np.arange(5, dtype=np.int32))
    score = lambda x, y: {"loss": 0.0}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"drop_last": True}, "leaves out the last samples"),
        ({"batch_transform": Mixup(5)}, "mixes samples by Mixup"),
    ]
    for options, told in cases:
        loader = DataLoader(data, 2, **options)
        with pytest.warns(UserWarning, match=f"the validation's loader {told}") as found:
            Counting(lambda at: 0.0).fit(2, 1, validate=(loader, score))
        assert len(found) == 1
    with pytest.warns(UserWarning, match="the loader leaves out the last samples"):
        evaluate(lambda x: x, DataLoader(data, 2, drop_last=True), score)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for loader in (
            DataLoader(data, 5, drop_last=True),
            DataLoader(data, 5, shuffle=True),
            DataLoader(data, 5, sampler=BalancedSampler([0, 1, 1, 1, 1])),
        ):
            Counting(lambda at: 0.0).fit(2, 1, validate=(loader, score))


def test_a_plateau_is_fed_once() -> None:
    plateau, weight = Plateau(0.1, patience=3), Parameter([0.0], name="weight")
    feeds = [FeedPlateau(plateau, "loss"), FeedPlateau(plateau, "loss")]
    loss = lambda z: (z - weight).sum()
    with pytest.raises(CallbackError, match=r"two callbacks feed .* count each validation twice"):
        Trainer(SGD([weight], plateau)).fit(
            [BATCH], loss, epochs=1, validate=lambda: 1.0, callbacks=feeds
        )
