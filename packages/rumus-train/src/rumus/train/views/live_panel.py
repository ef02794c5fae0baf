"""`PanelView`: progress as a panel on a terminal, drawn by rich (extra `rich`)."""

from __future__ import annotations

import atexit
import math
from typing import TYPE_CHECKING, Final, TextIO

from rumus.tensor.expression.printable import printable_lines
from rumus.train.loop.progress import Progress, clock, short, size
from rumus.train.views.live_view import place, validation

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_BARS: Final = "▁▂▃▄▅▆▇█"


class PanelView:
    """Drawn in the training thread, when due.

    Raises ImportError without rich.
    """

    interval = 0.25

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream)  # it honors NO_COLOR
        self._live = Live(console=self._console, auto_refresh=False)
        self._is_unicode = (self._console.encoding or "").startswith("utf")
        atexit.register(self._live.stop)  # an exit in the middle gives the cursor back

    def show(self, progress: Progress) -> None:
        """Draw the panel again."""
        if not self._live.is_started:
            self._live.start()
        self._live.update(panel(progress, self._is_unicode), refresh=True)

    def say(self, line: str, progress: Progress) -> None:
        """Print a line above the panel."""
        self._console.print(printable_lines(line), highlight=False, markup=False)

    def close(self, progress: Progress) -> None:
        """Draw it for the last time."""
        try:
            if self._live.is_started:
                self._live.update(panel(progress, self._is_unicode), refresh=True)
        finally:
            self._live.stop()
            atexit.unregister(self._live.stop)


def panel(progress: Progress, is_unicode: bool = True) -> RenderableType:
    """Return the panel, without unknown values."""
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    numbers = Table.grid(padding=(0, 3, 0, 0))
    for style in ("dim", "", "dim", ""):
        numbers.add_column(style=style, no_wrap=True)
    cells = _numbers(progress, is_unicode)
    for at in range(0, len(cells), 2):
        numbers.add_row(*(part for cell in cells[at : at + 2] for part in cell))
    lines = Table.grid()
    lines.add_row(_bar(progress))
    lines.add_row(numbers)
    if progress.metrics:
        lines.add_row(Text.assemble(("validation  ", "dim"), validation(progress)))
    if progress.checkpoint is not None:
        age = f"step {progress.checkpoint:,}, {clock(progress.since_checkpoint)} ago"
        lines.add_row(Text.assemble(("checkpoint  ", "dim"), age))
    return Panel(lines, title=place(progress), title_align="left", expand=False)


def _bar(progress: Progress) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 2, 0, 0))
    done, remaining = progress.fraction, progress.remaining
    found: list[RenderableType] = []
    if done is not None:
        found = [ProgressBar(total=1.0, completed=done, width=36), Text(f"{done:.0%}")]
    found.append(Text(f"{clock(progress.elapsed)} elapsed"))
    if remaining is not None:
        found.append(Text(f"{clock(remaining)} left", style="bold"))
    row.add_row(*found)
    return row


def _numbers(progress: Progress, is_unicode: bool) -> list[tuple[str, str | Text]]:
    """Names and known values, in reading order."""
    from rich.text import Text

    found: list[tuple[str, str | Text]] = []
    if progress.loss is not None:
        course = sparkline(list(progress.losses)[-16:]) if is_unicode else ""
        found.append(("loss", Text.assemble((f"{short(progress.loss):10}", "bold"), course)))
    rate = progress.samples_per_second
    known = {
        "samples/s": None if rate is None else f"{rate:,.0f}",
        "lr": None if progress.lr is None else short(progress.lr),
        "gradient norm": None if progress.gradient_norm is None else short(progress.gradient_norm),
        "device": progress.device,
        "memory": None if progress.memory is None else size(progress.memory),
    }
    return found + [(name, value) for name, value in known.items() if value is not None]


def sparkline(values: list[float]) -> str:
    """Return a sparkline of some numbers, with blanks for non-finite ones.

    >>> sparkline([4.0, 2.0, float("nan"), 1.0, 0.0]), sparkline([-1.7e308, 1.7e308])
    ('█▅ ▃▁', '▁█')
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, span = min(finite), max(finite) / 4 - min(finite) / 4  # the whole one may be infinite
    shares = [(value / 4 - low / 4) / span if span else 0.0 for value in values]
    return "".join(
        _BARS[round(share * (len(_BARS) - 1))] if math.isfinite(value) else " "
        for value, share in zip(values, shares, strict=True)
    )
