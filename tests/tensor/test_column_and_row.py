"""Predictions of shape (n, 1) beside targets of shape (n,), which broadcast to (n, n)."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest

from rumus.tensor import Backend, Parameter, Tensor, arange, cpu, elementwise, tensor, where
from rumus.tensor.graph.evaluation import evaluating

WEIGHT = Parameter(np.ones((1, 1)), name="weight")


def _tensor(shape: tuple[int, ...], backend: Backend | None = None) -> Tensor:
    return tensor(np.ones(shape, np.float32), backend=backend or cpu())


def _prediction(samples: int = 4) -> Tensor:
    return _tensor((samples, 1)) @ WEIGHT


@elementwise
def _square(a: Tensor, b: Tensor) -> Tensor:
    return (a - b) ** 2


def _told(act: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return [str(w.message) for w in caught]


PAIRS: dict[str, Callable[[], object]] = {
    "errors": lambda: _prediction() - _tensor((4,)),
    "errors of targets": lambda: _tensor((4,)) - _prediction(),
    "weighted": lambda: (_prediction() ** 2) * _tensor((4,)),
    "fused": lambda: _square(_prediction(), _tensor((4,))),
    "masked": lambda: where(_tensor((4,)) > 0, _prediction(), 0.0),
    "an array": lambda: _prediction() - np.ones(4, np.float32),
    "sequences": lambda: _prediction(8).reshape(2, 4, 1)[:1] - _tensor((1, 4)),
}
MEANT: dict[str, Callable[[], object]] = {
    "alike": lambda: _prediction() - _tensor((4, 1)),
    "a row": lambda: _prediction() - _tensor((1, 4)),
    "other targets": lambda: _prediction() - _tensor((3,)),
    "one sample": lambda: _prediction(1) - _tensor((1,)),
    "a bias": lambda: _tensor((4, 3)) @ Parameter(np.ones((3, 3)), name="w") + _tensor((3,)),
    "distances": lambda: _prediction() - _prediction().squeeze(1),
    "positions": lambda: arange(4).unsqueeze(1) - arange(4),
    "of data": lambda: _tensor((4, 1)) - _tensor((4,)),
}


@pytest.mark.parametrize("act", PAIRS.values(), ids=PAIRS)
def test_predictions_beside_the_targets_of_all_samples(act: Callable[[], object]) -> None:
    (told,) = _told(act)
    assert "pairs of all rows" in told
    assert "target.unsqueeze(" in told


@pytest.mark.parametrize("act", MEANT.values(), ids=MEANT)
def test_what_may_be_meant(act: Callable[[], object]) -> None:
    assert _told(act) == []


def test_in_an_evaluation_nothing_is_on_the_tape() -> None:
    with evaluating():
        assert len(_told(lambda: _prediction() - _tensor((4,)))) == 1
        assert len(_told(lambda: _prediction() - arange(4))) == 1
        assert _told(lambda: arange(4).unsqueeze(1) >= arange(4)) == []
