"""A new option for all optimizers is one `Stage`; nothing else needs to know about it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from rumus.optim import SGD, AdamW, FusedOptimizer, Lookahead
from rumus.optim.engine.stage import Stage
from rumus.tensor import (
    Backend,
    DType,
    Expr,
    NumpyBackend,
    Parameter,
    float16,
    float32,
    move_parameters,
)


class Traveled(Stage):
    """How far each element has traveled, in units that shrink with the steps."""

    arrays: ClassVar[Sequence[str]] = ("traveled",)

    def state(self, dtype: DType) -> Mapping[str, DType]:
        return {"traveled": float32 if dtype == float16 else dtype}

    def gradient(self, g: Expr, p: Expr, there: Collection[str]) -> Expr:
        return 2.0 * g

    def result(self, p: Expr, g: Expr, new: Mapping[str, Expr], rule: str) -> Mapping[str, Expr]:
        way = abs(new["p"] - p) * Expr.scalar("unit")
        return {**new, "traveled": Expr.array("traveled") + way}

    def scalars(self, number: int, t: int) -> Mapping[str, float]:
        return {"unit": 1.0 / t}


def stepped(optimizer: FusedOptimizer[Any], steps: int) -> None:
    for _ in range(steps):
        (w,) = optimizer.parameters
        optimizer.step((w * 0.25).sum().backward())


def test_it_changes_the_gradient_and_keeps_state(backend: Backend) -> None:
    w = Parameter([4.0, 8.0], name="w", backend=backend)
    optimizer = SGD([w], 1.0)
    optimizer.extend(Traveled())
    stepped(optimizer, 2)
    assert w.tolist() == [3.0, 7.0]
    (entry,) = optimizer.state_dict()["parameters"].values()
    assert entry["state"]["traveled"].tolist() == [0.75, 0.75]


def test_its_state_is_saved_loaded_and_moved() -> None:
    w = Parameter([4.0, 8.0], name="w")
    optimizer = AdamW([w], 0.5)
    optimizer.extend(Traveled())
    stepped(optimizer, 3)
    saved, values = optimizer.state_dict(), w.numpy()
    again = Parameter(values, name="w")
    other = AdamW([again], 0.5)
    other.extend(Traveled())
    other.load_state_dict(saved)
    move_parameters([again], NumpyBackend())
    for each in (optimizer, other):
        stepped(each, 2)
    assert w.numpy().tobytes() == again.numpy().tobytes()
    found, wanted = (
        o.state_dict()["parameters"]["w"]["state"]["traveled"] for o in (optimizer, other)
    )
    assert found.tobytes() == wanted.tobytes()
    assert np.all(found > 0)


def test_two_of_them_act_one_after_the_other() -> None:
    class Bounded(Stage):
        def gradient(self, g: Expr, p: Expr, there: Collection[str]) -> Expr:
            return g.minimum(0.375)

    w = Parameter([4.0], name="w")
    optimizer = SGD([w], 1.0)
    optimizer.extend(Traveled())
    optimizer.extend(Bounded())
    stepped(optimizer, 1)  # 0.25 is doubled, then clipped
    assert w.tolist() == [3.625]


def test_a_name_taken_by_the_rule_is_refused() -> None:
    def rule(p: Expr, g: Expr, traveled: Expr, *, lr: Expr) -> dict[str, Expr]:
        return {"p": p - lr * g, "traveled": traveled + g}

    optimizer = FusedOptimizer([Parameter([1.0])], rule)
    with pytest.raises(TypeError, match="has a state called 'traveled'"):
        optimizer.extend(Traveled())
    assert optimizer.stages == []


def test_a_stage_that_cannot_work_there_changes_nothing() -> None:
    w = Parameter(np.ones(3, np.float16), name="w")
    optimizer = AdamW([w], master_weights=True)
    with pytest.raises(TypeError, match="Lookahead cannot wrap adamw: it keeps"):
        Lookahead(optimizer)
    assert optimizer.kind == "AdamW"
    assert set(optimizer.state_dict()["parameters"]["w"]["state"]) == {"m", "v", "master"}
