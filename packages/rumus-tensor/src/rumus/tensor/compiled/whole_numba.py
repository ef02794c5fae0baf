"""numba, imported and compiling in one piece.

What a signal's handler raises, such as Ctrl-C or a time limit, ends neither: a half imported numba
stays without some of its modules as long as the process lives, and numba's compiler prints and
drops what is raised while LLVM calls it back.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from threading import local
from types import ModuleType
from typing import Any

from rumus.tensor.memory.uninterrupted import Uninterrupted


@cache
def whole_numba() -> ModuleType:
    """Return numba; signals are deferred while it is imported, and whenever it compiles."""
    with Uninterrupted():
        import numba
        import numba.extending

        event: Any = import_module("numba.core.event")

        class Deferring(event.Listener):  # type: ignore[misc]
            """Defers signals while a thread holds the lock of the compiler."""

            def on_start(self, _: Any) -> None:
                block = Uninterrupted()
                block.__enter__()
                _of_thread.blocks = [*_blocks(), block]

            def on_end(self, _: Any) -> None:
                *_of_thread.blocks, block = _blocks()
                block.__exit__()

        event.register("numba:compiler_lock", Deferring())
    module: ModuleType = numba
    return module


_of_thread = local()


def _blocks() -> list[Uninterrupted]:
    """The blocks that this thread is in: the lock can be taken again by who holds it."""
    blocks: list[Uninterrupted] = getattr(_of_thread, "blocks", [])
    return blocks
