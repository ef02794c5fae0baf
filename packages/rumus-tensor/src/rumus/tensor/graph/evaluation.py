"""`evaluating`: a block in which all modules are in evaluation mode.

An evaluation cannot know all modules of a model: they may be anywhere in the program. So it does
not switch the modules; they look up the mode themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rumus.tensor.graph.autograd import no_grad
from rumus.tensor.memory.uninterrupted import displaced


class Evaluation:
    """An evaluation on one thread, and the modes that were set within it."""

    def __init__(self) -> None:
        self._modes: dict[int, tuple[object, bool]] = {}  # by identity, and kept alive for it

    def is_training(self, module: object) -> bool:
        """Whether a module was switched to training within this evaluation."""
        return self._modes.get(id(module), (module, False))[1]

    def set_training(self, module: object, mode: bool) -> None:
        """Switch a module until the evaluation ends."""
        self._modes[id(module)] = module, mode


class _Current(threading.local):
    evaluation: Evaluation | None = None


_current = _Current()


def current_evaluation() -> Evaluation | None:
    """Return this thread's current evaluation, if any."""
    return _current.evaluation


@contextmanager
def evaluating() -> Iterator[None]:
    """Compute without a tape, with every module on this thread in evaluation mode.

    A module that is switched inside the block (`module.train()`, as for Monte Carlo dropout)
    returns to its previous mode when the block ends.

    >>> from rumus.tensor import Parameter
    >>> with evaluating():
    ...     (Parameter([1.0]) * 2).requires_grad
    False
    """
    with displaced(_current, "evaluation", Evaluation()), no_grad():
        yield
