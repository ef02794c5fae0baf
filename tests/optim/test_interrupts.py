"""A handler that raises at any line of an operation: all of it has happened then, or nothing."""

from __future__ import annotations

from typing import Final

import pytest
from interrupted import CASES, attempts

SAMPLES: Final = 20  # of the lines of each operation


@pytest.mark.parametrize("name", CASES)
def test_interrupted(name: str) -> None:
    found = list(attempts(CASES[name], SAMPLES, name))
    assert len(found) > 3
    assert not [each for each in found if each.is_lost or each.is_torn]
