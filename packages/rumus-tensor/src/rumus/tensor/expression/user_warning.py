"""`warn_user`: a warning that points at the line of the program, however deep it arises."""

from __future__ import annotations

import sys
import warnings
from typing import Final

_BETWEEN: Final = ("contextlib", "functools")  # modules that call what is wrapped by them
_LIBRARIES: Final = ("rumus.", "numpy.")  # NumPy asks tensors for their elements


def warn_user(message: str, kind: type[Warning] = UserWarning) -> None:
    """Give a warning at the innermost line outside of this library and NumPy.

    message: of the warning.
    kind: its class.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_within(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, kind, stacklevel=level)


def _is_within(module: str) -> bool:
    return module.startswith(_LIBRARIES) or module in _BETWEEN
