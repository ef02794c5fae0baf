"""What `fit` shows by default; looked up by name, since views import the loop."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.real_number import real_number
from rumus.train.base.notebook import in_notebook
from rumus.train.loop.callback import CALLED, Callback


def with_progress(callbacks: Sequence[Callback], progress: str | None) -> Sequence[Callback]:
    """Return the callbacks, plus one that shows progress if someone can see it.

    progress: "auto", or None for only the given ones. Raises ValueError for another value.
    """
    check_choice("progress", progress, ("auto", None))
    if not isinstance(callbacks, (list, tuple)):
        raise TypeError(f"callbacks must be a list, not {callbacks!r}: callbacks=[...]")
    for each in callbacks:
        if isinstance(each, type) or not all(hasattr(each, name) for name in CALLED):
            told = "derive a class from Callback"
            if isinstance(each, type):
                told = f"make it first, {each.__name__}()"
            elif hasattr(each, "save"):
                told = "it is an argument of fit, checkpoints=..."
            raise TypeError(f"callbacks: {shown(each)} is not a Callback: {told}")
        real_number(f"callbacks: order of {type(each).__name__}", each.order)
    if len({id(each) for each in callbacks}) < len(callbacks):
        raise ValueError("callbacks: one is given twice, and would hear everything twice")
    is_shown = any(getattr(type(each), "shows_progress", False) for each in callbacks)
    stream = sys.stderr
    is_terminal = stream is not None and not stream.closed and stream.isatty()
    is_seen = in_notebook() or is_terminal
    if progress is None or is_shown or not is_seen:
        return callbacks
    view: Callback = import_module("rumus.train.views.live_view").LiveView(says_seed=True)
    return [*callbacks, view]
