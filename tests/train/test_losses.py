"""Losses that wait to be read: in order, weighted, on the CPU and on a device."""

from __future__ import annotations

import math

import pytest

from rumus.tensor import Backend, tensor
from rumus.tensor.memory.updater import Outcome
from rumus.train.base import epoch_sum
from rumus.train.base.losses import Losses

APPLIED = Outcome(True)


def add(found: Losses, backend: Backend, value: float, outcome: Outcome = APPLIED) -> None:
    found.count(found.note(tensor(value, backend=backend)), 1.0, outcome)


def test_more_than_fit(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full pages, and more pages than may wait: the oldest are read."""
    monkeypatch.setattr(epoch_sum, "PAGE", 4)
    monkeypatch.setattr(epoch_sum, "LAG", 3)
    found = Losses()
    for value in range(50):
        add(found, backend, float(value))
    assert found.close() == 24.5
    assert found.close() == 24.5
    add(found, backend, 1.0)
    add(found, backend, 2.0)
    assert found.close() == 1.5


def test_weights(backend: Backend) -> None:
    found = Losses()
    for value, weight in ((1.0, 3.0), (5.0, 1.0)):
        found.count(found.note(tensor(value, backend=backend)), weight, APPLIED)
    assert found.close() == 2.0


def test_nothing_and_forgetting(backend: Backend) -> None:
    found = Losses()
    assert found.close() is None
    add(found, backend, 1.0)
    found.clear()
    assert found.close() is None
    add(found, backend, 2.0)
    assert found.close() == 2.0
    found.clear()
    assert found.close() is None


def test_steps_whose_refusal_is_reported_late(backend: Backend) -> None:
    found = Losses()
    add(found, backend, 1.0)
    assert found.close() == 1.0
    pending = Outcome()
    add(found, backend, math.nan, pending)
    pending.applied = False
    assert found.close() == 1.0  # no step has counted since
    pending = Outcome()
    add(found, backend, 3.0, pending)
    add(found, backend, math.nan, Outcome(False))
    pending.applied = True
    assert found.close() == 3.0


def test_a_noted_loss_that_never_counts_is_overwritten(backend: Backend) -> None:
    """Its step failed, and its loss was not returned."""
    found = Losses()
    found.note(tensor(7.0, backend=backend))
    add(found, backend, 1.0)
    assert found.close() == 1.0


def test_each_noted_loss_keeps_its_value(backend: Backend) -> None:
    found, kept = Losses(), []
    for value in range(300):
        noted = found.note(tensor(float(value), backend=backend))
        found.count(noted, 1.0, Outcome(value % 2 == 0))
        kept.append(noted)
    assert [noted.item() for noted in kept] == list(range(300))
