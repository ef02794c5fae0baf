"""Attributes that users assign to optimizers, loaders and the like: checked, or refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

from rumus import nn
from rumus.optim import (
    EMA,
    LBFGS,
    SAM,
    SGD,
    SWA,
    AdamW,
    ClipNorm,
    Lookahead,
    LossScale,
    ParameterGroup,
    Plateau,
    cosine,
)
from rumus.tensor import Generator, NumpyBackend, Parameter
from rumus.train import (
    ArrayDataset,
    Checkpoints,
    CsvDataset,
    DataLoader,
    EarlyStopping,
    Every,
    LengthBuckets,
    Pad,
    Spikes,
    StreamLoader,
    Subset,
    Trainer,
    WeightedSampler,
    images,
)


def parameters() -> list[Parameter]:
    return [Parameter([1.0, 2.0], name="w")]


def dataset() -> ArrayDataset:
    return ArrayDataset(np.ones((4, 2), np.float32))


DECIDED: Final[list[tuple[Callable[[], Any], str, Any]]] = [
    (lambda: AdamW(parameters()), "maximize", True),
    (lambda: AdamW(parameters()), "clip", None),
    (lambda: AdamW(parameters()), "average", EMA()),
    (lambda: AdamW(parameters()), "groups", []),
    (lambda: SGD(parameters(), 0.1), "hyper", {}),
    (lambda: LBFGS(parameters()), "history_size", 3),
    (lambda: LBFGS(parameters()), "max_iter", 1),
    (lambda: SAM(SGD(parameters(), 0.1)), "rho", 0.5),
    (lambda: Lookahead(SGD(parameters(), 0.1)), "k", 3),
    (lambda: ParameterGroup(parameters()), "lr_scale", 0.5),
    (lambda: ParameterGroup(parameters()), "optional", True),
    (lambda: ParameterGroup(parameters()), "named", []),
    (lambda: DataLoader(dataset(), 2), "batch_size", 4),
    (lambda: DataLoader(dataset(), 2), "shuffle", "no"),
    (lambda: DataLoader(dataset(), 2), "dataset", None),
    (lambda: StreamLoader([1.0], 1), "batch_size", 0),
    (lambda: StreamLoader([1.0], 1), "drop_last", "no"),
    (lambda: Trainer(AdamW(parameters())), "optimizer", AdamW(parameters())),
    (lambda: Trainer(AdamW(parameters())), "state", {}),
    (lambda: Checkpoints("folder"), "folder", "other"),
    (dataset, "arrays", ()),
    (lambda: Subset(dataset(), [0]), "indices", [9]),
    (lambda: WeightedSampler([1.0, 1.0]), "weights", [-1.0]),
    (lambda: LengthBuckets([1, 2]), "lengths", [3]),
    (lambda: Generator(0), "seed", 3),
    (lambda: EarlyStopping("accuracy", mode="max"), "mode", "min"),
    (lambda: Plateau(0.1), "mode", "max"),
    (lambda: StreamLoader([1.0], 1, shuffle=4), "shuffle", 2),
    (lambda: ClipNorm(1.0), "max_norm", 2.0),
    (lambda: LossScale(), "every", 2),
    (lambda: cosine(0.1, 10), "length", 5),
    (lambda: Every(epochs=1), "epochs", 2),
    (lambda: Spikes(), "window", 2),
    (lambda: Pad(), "length", 2),
    (lambda: images.Flip(), "axis", "vertical"),
    (lambda: images.Augment(images.Flip()), "transforms", ()),
]


KEPT: Final[list[tuple[Callable[[], Any], str, Any]]] = [
    (lambda: AdamW(parameters()), "steps", 5),
    (lambda: AdamW(parameters()), "skipped", 5),
    (lambda: AdamW(parameters()), "segments", []),
    (lambda: LBFGS(parameters()), "steps", 5),
    (lambda: SAM(SGD(parameters(), 0.1)), "steps", 5),
    (lambda: Trainer(AdamW(parameters())), "stepper", None),
    (lambda: Trainer(AdamW(parameters())), "is_fitting", True),
    (lambda: Trainer(AdamW(parameters())), "backend", None),
    (lambda: DataLoader(dataset(), 2), "epoch", 3),
    (lambda: StreamLoader([1.0], 1), "batch", 3),
    (lambda: Plateau(0.1), "reductions", 3),
    (lambda: EarlyStopping(), "best", 0.0),
    (lambda: Checkpoints("folder"), "latest", 3),
    (NumpyBackend, "name", "cpu"),
]


def refused(made: object, name: str, value: Any, told: str) -> tuple[Any, Any]:
    """An attribute before and after an assignment, which must fail with this message."""
    before = getattr(made, name)
    with pytest.raises(AttributeError, match=rf"^{type(made).__name__}\.{name} {told}$"):
        setattr(made, name, value)
    return before, getattr(made, name)


@pytest.mark.parametrize(("make", "name", "value"), KEPT)
def test_what_an_object_keeps_itself_is_not_set(
    make: Callable[[], Any], name: str, value: Any
) -> None:
    told = "is what the object keeps itself: it cannot be set"
    before, now = refused(make(), name, value, told)
    assert now is before or now == before


METHODS: Final[list[tuple[Callable[[], Any], str]]] = [
    (lambda: AdamW(parameters()), "step"),
    (lambda: Trainer(AdamW(parameters())), "fit"),
    (lambda: DataLoader(dataset(), 2), "seek"),
    (lambda: nn.Linear(2, 2), "forward"),
]


@pytest.mark.parametrize(("make", "name"), METHODS)
def test_a_method_may_be_replaced_by_a_function_only(make: Callable[[], Any], name: str) -> None:
    made = make()
    with pytest.raises(AttributeError, match=rf"{name} is a method, not 5$"):
        setattr(made, name, 5)
    setattr(made, name, abs)
    assert getattr(made, name) is abs


def test_settings_and_backends_refuse_names_that_nothing_reads() -> None:
    objects: list[Any] = [ClipNorm(1.0), cosine(0.1, 10), Every(), LossScale(), NumpyBackend()]
    for made in objects:
        with pytest.raises(AttributeError, match="has no attribute 'surely_none'"):
            made.surely_none = 3


def test_a_callback_may_be_moved_in_the_order() -> None:
    stopping = EarlyStopping()
    stopping.order = 300
    assert stopping.order == 300
    other: Any = EarlyStopping()
    other.order = "first"
    weight = parameters()[0]
    with pytest.raises(TypeError, match="callbacks: order of EarlyStopping must be a number"):
        Trainer(SGD([weight], 0.1)).fit(
            [(np.ones(2, np.float32),)], lambda x: (weight * x).sum(), epochs=1, callbacks=[other]
        )


def test_a_parameter_has_one_number_and_a_text_as_its_name() -> None:
    weight: Any = parameters()[0]
    with pytest.raises(TypeError, match="Parameter: name must be text, not 3"):
        Parameter([1.0], name=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Parameter: name must be text, not 3"):
        weight.name = 3
    with pytest.raises(AttributeError):
        weight.id = 3
    weight.name = "other"
    assert weight.label == "parameter 'other'"


@pytest.mark.parametrize(("make", "name", "value"), DECIDED)
def test_what_is_decided_with_the_object_is_refused(
    make: Callable[[], Any], name: str, value: Any
) -> None:
    made = make()
    told = f"is decided when it is made: make another {type(made).__name__}"
    before, now = refused(made, name, value, told)
    assert now is before


def test_what_was_read_from_a_file_is_decided(tmp_path: Any) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b,y\n1,2,0\n3,4,1\n")
    made: Any = CsvDataset(path, target="y")
    for name in ("target", "columns"):
        if hasattr(made, name):
            with pytest.raises(AttributeError, match="is decided when it is made"):
                setattr(made, name, "b")


READ: Final[list[tuple[Callable[[], Any], str, Any, Any, str]]] = [
    (EMA, "decay", 0.5, 1.0, r"decay must be in \[0, 1\), not 1.0"),
    (EMA, "decay", 0.9, float("nan"), "decay"),
    (EMA, "warmup", True, "no", "warmup must be True or False"),
    (lambda: EMA(warmup=True), "unbiased", False, True, "give warmup or unbiased, not both"),
    (SWA, "every", 2, 0, "every"),
    (lambda: Plateau(0.1), "factor", 0.5, 1.5, r"factor must be in \(0, 1\), not 1.5"),
    (lambda: Plateau(0.1), "factor", 0.2, "0.5", "factor must be a number, not '0.5'"),
    (lambda: Plateau(0.1), "patience", np.int64(2), 2.5, "patience must be a whole number, 0 or"),
    (lambda: Plateau(0.1), "lowest", 1e-5, float("inf"), "lowest must be finite and >= 0"),
    (EarlyStopping, "patience", np.int32(5), 0, "patience must be a whole number of at least 1"),
    (EarlyStopping, "patience", 2, None, "patience must be a whole number"),
    (EarlyStopping, "min_delta", 0.1, -1.0, "min_delta must be finite and >= 0"),
    (lambda: parameters()[0], "requires_grad", False, "no", "requires_grad must be True or False"),
    (lambda: parameters()[0], "role", "norm", "gain", "'norm' or 'embedding', not 'gain'"),
    (
        lambda: SGD(parameters(), 0.1),
        "nonfinite",
        "skip",
        "ignore",
        "nonfinite must be 'raise', 'sk",
    ),
]


@pytest.mark.parametrize(("make", "name", "right", "wrong", "message"), READ)
def test_what_is_read_again_takes_what_the_constructor_takes(
    make: Callable[[], Any], name: str, right: Any, wrong: Any, message: str
) -> None:
    made = make()
    setattr(made, name, right)
    assert getattr(made, name) == right
    with pytest.raises((TypeError, ValueError), match=message):
        setattr(made, name, wrong)
    assert getattr(made, name) == right


def test_an_average_reads_its_decay_at_each_step() -> None:
    found = []
    for decays in ((0.5, 0.5, 0.9), (0.5, 0.5, 0.5)):
        ema = EMA(0.5)
        w = Parameter([1.0], name="w")
        optimizer = SGD([w], 0.25, average=ema)
        for decay in decays:
            ema.decay = decay
            optimizer.step((w * w).sum().backward())
        with ema.applied():
            found.append(w.item())
    # w is 0.5, 0.25, 0.125; the average 0.5, 0.375, then 0.9 of it or half of it
    assert found == pytest.approx([0.9 * 0.375 + 0.1 * 0.125, 0.25])


def test_what_a_step_does_with_bad_gradients_is_decided_by_the_first() -> None:
    w = parameters()[0]
    optimizer = SGD([w], 0.1)
    optimizer.nonfinite = "skip"
    optimizer.step((w * float("nan")).sum().backward())
    assert (optimizer.skipped, w.tolist()) == (1, [1.0, 2.0])
    with pytest.raises(AttributeError, match=r"at the first step: call answer_nonfinite\(\.\.\.\)"):
        optimizer.nonfinite = "raise"
    assert copy.copy(Generator(3)).seed == 3
