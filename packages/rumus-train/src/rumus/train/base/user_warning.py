"""`warn_user`: a warning that points at the line of the program, however deep it arises."""

from __future__ import annotations

import sys
import warnings


def warn_user(message: str, kind: type[Warning] = UserWarning) -> None:
    """Give a warning at the innermost line outside of this library."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("rumus."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, kind, stacklevel=level)
