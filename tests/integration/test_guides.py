"""The pages of docs/ that need several packages show what happens."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Final

import pytest

DOCS: Final = Path(__file__).parents[2] / "docs"


PAGES = ["weights.md", "your_own_optimizer.md"]
PAGES += sorted(str(page.relative_to(DOCS)) for page in (DOCS / "guides").glob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_examples_of_the_page(page: str) -> None:
    result = doctest.testfile(str(DOCS / page), module_relative=False)
    assert result.failed == 0
    assert result.attempted >= 10
