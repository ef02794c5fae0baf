"""docs/optimizers.md shows what happens."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Final

GUIDE: Final = Path(__file__).parents[2] / "docs" / "optimizers.md"


def test_the_examples_of_the_guide() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert re.findall(r"^```python\n(?!>>>)", text, re.MULTILINE) == []
    result = doctest.testfile(str(GUIDE), module_relative=False)
    assert result.failed == 0
    assert result.attempted >= 25
