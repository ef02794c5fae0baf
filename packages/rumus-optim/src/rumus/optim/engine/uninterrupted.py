"""A block of code that Ctrl-C waits for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from importlib import import_module
from types import FrameType
from typing import Any, Final

# The C module under `signal`: making enums of its numbers would take longer than a small update.
_SIGINT: Final = int(signal.SIGINT)
_signal: Final[Any] = import_module("_signal")


class Uninterrupted:
    """Hold back SIGINT while parameters are being written; deliver it afterwards.

    Python runs signal handlers in the main thread only: in another one there is nothing to hold.
    """

    def __enter__(self) -> None:
        self._received: list[tuple[int, FrameType | None]] = []
        self._before: Callable[[int, FrameType | None], Any] | None = None
        if threading.current_thread() is threading.main_thread():
            before = _signal.getsignal(_SIGINT)
            if callable(before):
                self._before = before
                _signal.signal(_SIGINT, lambda *call: self._received.append(call))

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            _signal.signal(_SIGINT, self._before)
            for call in self._received[:1]:
                self._before(*call)
