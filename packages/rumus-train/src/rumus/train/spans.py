"""`Spans`: where the time of a step went."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any


@dataclass(slots=True)
class Spans:
    """Seconds by what the host did: on a GPU, `reading` has what the device took longer.

    data: waiting for the loader. forward_backward: computing the loss and its gradients.
    optimizer: the update. reading: waiting for the loss.
    """

    data: float = 0.0
    forward_backward: float = 0.0
    optimizer: float = 0.0
    reading: float = 0.0

    def add(self, other: Spans) -> None:
        """Count another step in."""
        self.data += other.data
        self.forward_backward += other.forward_backward
        self.optimizer += other.optimizer
        self.reading += other.reading


@contextmanager
def timed(thing: object, method: str, note: Callable[[float], None]) -> Iterator[None]:
    """Within the block, tell `note` how long each call of a method of `thing` took."""
    original: Callable[..., Any] = getattr(thing, method)

    def call(*args: Any, **options: Any) -> Any:
        start = perf_counter()
        try:
            return original(*args, **options)
        finally:
            note(perf_counter() - start)

    setattr(thing, method, call)
    try:
        yield
    finally:
        delattr(thing, method)
