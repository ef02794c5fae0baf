"""A signal's handler that raises leaves nothing of a trainer displaced."""

from __future__ import annotations

import pytest
from interrupted import attempts
from interrupted_training import DISPLACED


@pytest.mark.parametrize("name", DISPLACED)
def test_what_is_displaced_comes_back(name: str) -> None:
    """At some lines of the block, and at each of its last ones, where it is put back."""
    found = list(attempts(DISPLACED[name], 12, name, last=25))
    assert found
    assert not [each for each in found if each.is_torn or each.is_lost]
