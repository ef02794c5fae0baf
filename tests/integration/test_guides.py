"""What the pages of docs/ that need several packages show is what happens."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Final

import pytest

DOCS: Final = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["weights.md", "your_own_optimizer.md"])
def test_examples_of_the_page(page: str) -> None:
    result = doctest.testfile(str(DOCS / page), module_relative=False)
    assert result.failed == 0
    assert result.attempted >= 10
