"""A handler that raises at any line of an operation: either all of it has happened, or nothing."""

from __future__ import annotations

from typing import Final

import pytest
from interrupted import CASES, PUT_BACK, attempts

SAMPLES: Final = 20  # of the lines of each operation
LAST: Final = 250  # lines: the restoring at the end, and some before it


@pytest.mark.parametrize("name", CASES)
def test_interrupted(name: str) -> None:
    found = list(attempts(CASES[name], SAMPLES, name))
    assert len(found) > 3
    assert not [each for each in found if each.is_lost or each.is_torn]


@pytest.mark.parametrize("name", PUT_BACK)
def test_interrupted_at_every_line_of_the_restoring(name: str) -> None:
    found = list(attempts(PUT_BACK[name], 0, name, LAST))
    assert len(found) == LAST
    assert not [each for each in found if each.is_lost or each.is_torn]
