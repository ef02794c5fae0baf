"""Boolean options accept nothing else: a text such as "no" would count as True."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from rumus import nn, optim, tensor, train
from rumus.optim import SGD, ParameterGroup
from rumus.tensor import Parameter
from rumus.tensor.expression.arguments import switches_of
from rumus.train import Trainer

# Made only by the library: events, results, and types for authors of layers or rules.
INSIDE = {"Expr", "Place", "Run", "Training", "ValidationEnd", "LiveView", "Accumulation.add"}
INSIDE |= {"Optimizer.poll", "Scaling.hear", "GlobalAvgPool.take", "GlobalMaxPool.take"}
INSIDE |= {"Parameter", "logsumexp", "FusedOptimizer"}  # operators, and a base without a rule
INSIDE |= {"Backend.slot_sums", "NumpyBackend.slot_sums"}
INSIDE |= {"Backend.matmul", "NumpyBackend.matmul", "NumbaBackend.matmul"}


def declared() -> Iterator[tuple[str, Callable[..., Any], str]]:
    for package in (tensor, nn, optim, train):
        for name in dir(package):
            thing = getattr(package, name)
            if name.startswith("_") or not callable(thing) or name in INSIDE:
                continue
            if not inspect.isclass(thing):
                yield from ((name, thing, switch) for switch in sorted(switches_of(thing)))
                continue
            yield from ((name, thing, switch) for switch in sorted(switches_of(thing.__init__)))
            for method, function in vars(thing).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    of = f"{name}.{method}"
                    switches = sorted(switches_of(function)) if of not in INSIDE else []
                    yield from ((of, function, switch) for switch in switches)


# Checked once the other arguments are there.
NEEDED: dict[str, Callable[..., Any]] = {"CutMix": partial(train.CutMix, 2)}
DECLARED = sorted({(name, switch): thing for name, thing, switch in declared()}.items())


def test_there_are_many() -> None:
    assert len(DECLARED) > 90


@pytest.mark.parametrize(
    ("names", "function"), DECLARED, ids=[" ".join(names) for names, _ in DECLARED]
)
def test_a_text_is_refused(names: tuple[str, str], function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=f"{names[1]} must be True or False, not 'no'"):
        NEEDED.get(names[0], function)(**{names[1]: "no"})


def test_by_position_as_well() -> None:
    with pytest.raises(TypeError, match="mode must be True or False, not 'no'"):
        nn.Linear(1, 1).train("no")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="keepdims must be True or False, not 'no'"):
        tensor.ones((2, 2)).sum(0, "no")  # type: ignore[arg-type]


def test_those_of_a_base_are_checked_in_an_optimizer() -> None:
    with pytest.raises(TypeError, match="AdamW: maximize must be True or False, not 'no'"):
        optim.AdamW([Parameter([1.0])], maximize="no")  # type: ignore[arg-type]


def test_a_bool_of_numpy_is_one() -> None:
    weight = Parameter([1.0], name="weight")
    group = ParameterGroup([weight], optional=np.True_)  # type: ignore[arg-type]
    assert Trainer(SGD([group], 0.1), capture=np.False_).counts is not None  # type: ignore[arg-type]
    assert tensor.ones((2, 2)).sum(0, keepdims=np.True_).shape == (1, 2)  # type: ignore[arg-type]
