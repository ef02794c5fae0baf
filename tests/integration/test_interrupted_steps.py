"""A handler that raises at any line of a trainer's step: all of it has happened, or nothing."""

from __future__ import annotations

import pytest
from interrupted import attempts
from interrupted_steps import OPTIMIZERS, pass_of, step_of

from rumus.tensor import Backend

SAMPLES = 12  # lines of each


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step(name: str, backend: Backend) -> None:
    found = list(attempts(lambda: step_of(OPTIMIZERS[name], backend), SAMPLES, name))
    assert not [each for each in found if each.is_lost or each.is_torn]


def test_what_was_updated_before_a_pass(backend: Backend) -> None:
    """A device may have the update's commands later than the pass begins."""
    found = list(attempts(lambda: pass_of(backend), 150, "passes"))
    assert not [each for each in found if each.is_lost or each.is_torn]
