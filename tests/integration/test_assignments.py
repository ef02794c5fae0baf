"""Attributes that users assign to optimizers, loaders and the like: checked, or refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

from rumus.optim import (
    EMA,
    LBFGS,
    SAM,
    SGD,
    SWA,
    AdamW,
    Lookahead,
    ParameterGroup,
    Plateau,
)
from rumus.tensor import Generator, Parameter
from rumus.train import (
    ArrayDataset,
    Checkpoints,
    CsvDataset,
    DataLoader,
    EarlyStopping,
    LengthBuckets,
    StreamLoader,
    Subset,
    Trainer,
    WeightedSampler,
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
]


@pytest.mark.parametrize(("make", "name", "value"), DECIDED)
def test_what_is_decided_with_the_object_is_refused(
    make: Callable[[], Any], name: str, value: Any
) -> None:
    made = make()
    before = getattr(made, name)
    kind = type(made).__name__
    with pytest.raises(
        AttributeError, match=rf"^{kind}\.{name} is decided when it is made: make another {kind}$"
    ):
        setattr(made, name, value)
    assert getattr(made, name) is before


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
    (lambda: parameters()[0], "role", "norm", "gain", "'norm', 'embedding', not 'gain'"),
    (
        lambda: SGD(parameters(), 0.1),
        "nonfinite",
        "skip",
        "ignore",
        'nonfinite must be "raise", "sk',
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
