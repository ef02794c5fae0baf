"""What closed-over variables hold."""

from __future__ import annotations

from types import CellType
from typing import Any, Final

MISSING: Final = object()


def contents(cell: CellType) -> Any:
    """The value of a closed-over variable; MISSING before its first assignment."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING
