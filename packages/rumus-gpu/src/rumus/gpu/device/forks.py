"""A process forked from one that has opened a GPU: any use of it raises instead of hanging.

A fork copies the memory of the driver but none of its threads, so a wait for one would never end.
Every access to a device holds its lock; in the child, the lock raises.
"""

from __future__ import annotations

import os
import weakref
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, NoReturn

from rumus.gpu.engine.errors import ForkedProcessError

if TYPE_CHECKING:
    from rumus.gpu.device.device import Gpu


class _Refusing:
    """The lock of a device in a process that cannot use it."""

    def __enter__(self) -> NoReturn:
        raise ForkedProcessError(
            "this process was forked from one that had opened a GPU, and no driver survives a "
            "fork: start processes with multiprocessing.get_context('spawn'), or open the GPU only "
            "in the child"
        )

    def __exit__(self, *_: object) -> None:
        pass

    acquire = __enter__


class _Forks:
    """The devices that this process has opened, and whether its parent had opened any."""

    def __init__(self) -> None:
        self._open: weakref.WeakSet[Gpu] = weakref.WeakSet()
        self._has_opened = False
        self._is_child = False

    def check(self) -> None:
        """Raise ForkedProcessError in a child, which cannot open a device either."""
        if self._is_child:
            _Refusing().__enter__()

    def lock(self, gpu: Gpu) -> Any:
        """Return the lock of a device that is being opened."""
        self._has_opened = True
        self._open.add(gpu)
        return RLock()

    def forked(self) -> None:
        """Make every device raise; called in the child."""
        self._is_child = self._has_opened
        for gpu in list(self._open):
            gpu.lock = _Refusing()
            gpu.device.abandon()


FORKS: Final = _Forks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=FORKS.forked)
