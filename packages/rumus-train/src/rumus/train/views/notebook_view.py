"""`NotebookView`: progress as a panel in a notebook's cell, redrawn in place."""

from __future__ import annotations

from collections import deque
from html import escape
from importlib import import_module
from typing import Any, Final

from rumus.train.loop.progress import Progress, clock, short, size
from rumus.train.views.live_view import place, progress_line, validation

_LINES: Final = 6  # kept below the bar
_BAR: Final = (
    '<div style="background:#8884;border-radius:3px;height:8px;margin:4px 0">'
    '<div style="background:#4c8bf5;border-radius:3px;height:8px;width:{share:.1f}%"></div></div>'
)


class NotebookView:
    """Drawn in the training thread, when due. Raises ImportError without IPython."""

    interval = 0.5

    def __init__(self) -> None:
        self._display: Any = import_module("IPython.display")  # a notebook brings it along
        self._handle: Any = None
        self._lines: deque[str] = deque(maxlen=_LINES)

    def show(self, progress: Progress) -> None:
        """Redraw the panel; as text if HTML cannot be shown."""
        shown = {"text/html": panel(progress, self._lines), "text/plain": progress_line(progress)}
        if self._handle is None:
            self._handle = self._display.display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)

    def say(self, line: str, progress: Progress) -> None:
        """Keep a line below the bar."""
        self._lines.append(line)
        self.show(progress)

    def close(self, progress: Progress) -> None:
        """Draw it for the last time."""
        self.show(progress)


def panel(progress: Progress, lines: deque[str]) -> str:
    """Return the panel as HTML, without unknown values."""
    share = _BAR.format(share=100 * progress.fraction) if progress.fraction is not None else ""
    told = {
        "loss": None if progress.loss is None else short(progress.loss),
        "validation": validation(progress) if progress.metrics else None,
        "learning rate": None if progress.lr is None else short(progress.lr),
        "gradient norm": None if progress.gradient_norm is None else short(progress.gradient_norm),
        "samples/s": _count(progress.samples_per_second),
        "left": None if progress.remaining is None else clock(progress.remaining),
        "memory": None if progress.memory is None else size(progress.memory),
    }
    cells = "".join(
        f'<span style="margin-right:1.5em"><b>{escape(name)}</b> {escape(value)}</span>'
        for name, value in told.items()
        if value is not None
    )
    below = "".join(f"<div>{escape(line)}</div>" for line in lines)
    return (
        f'<div style="font-size:90%"><div>{escape(place(progress))}</div>{share}<div>{cells}</div>'
        f'<div style="opacity:.7">{below}</div></div>'
    )


def _count(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f}"
