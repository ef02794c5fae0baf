"""A confusion matrix as SVG in a page: rows are targets, columns predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from rumus.train.views.chart import WIDTH

Counts = Sequence[Sequence[int]]
_LEFT, _TOP, _BOTTOM, _SIDE = 110, 10, 92, 430  # around the cells, and what they fill at most
_CELL: Final = 52  # at most
_TOLD: Final = 20  # classes up to which each cell has its number
_LABELS: Final = 40  # classes that have their names written, at most
_LETTERS: Final = 14  # of a name
_LEVELS: Final = 8  # of shade


def confusion_figure(title: str, counts: Counts, names: Sequence[str], note: str = "") -> str:
    """Return a figure whose cells are darker the larger their share of the row.

    counts: (classes, classes), by target and prediction. names: of the classes, or too few.
    """
    classes = len(counts)
    cell = min(_CELL, _SIDE / classes)
    names = names if len(names) == classes else [*map(str, range(classes))]
    body = "".join([*_shades(counts, cell), *_numbers(counts, cell), *_labels(names, cell)])
    height = round(_TOP + cell * classes + _BOTTOM)
    right = sum(row[number] for number, row in enumerate(counts))
    total = sum(map(sum, counts))
    said = ", ".join(each for each in (note, f"{right:,} of {total:,} right") if each)
    return (
        f"<figure><figcaption>{escape(title)} <small>{escape(said)}</small></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{body}</svg>'
        "</figure>"
    )


def _level(count: int, row: Sequence[int]) -> int:
    """The shade of a cell, 0 for none."""
    return -(-_LEVELS * count // sum(row)) if count else 0


def _shades(counts: Counts, cell: float) -> Iterator[str]:
    """One path for all cells of a shade."""
    paths: dict[int, list[str]] = {}
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            if level := _level(count, row):
                at = f"{_LEFT + x * cell:.1f} {_TOP + y * cell:.1f}"
                paths.setdefault(level, []).append(f"M{at}h{cell:.1f}v{cell:.1f}h-{cell:.1f}z")
    side = cell * len(counts)
    yield f'<path class="edge" d="M{_LEFT} {_TOP}h{side:.1f}v{side:.1f}h-{side:.1f}z"/>'
    for level, cells in sorted(paths.items()):
        yield f'<path class="shade c0" opacity="{level / _LEVELS:.2f}" d="{"".join(cells)}"/>'


def _numbers(counts: Counts, cell: float) -> Iterator[str]:
    if len(counts) > _TOLD:
        return
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            if count:
                dark = " dark" if _level(count, row) > _LEVELS // 2 else ""
                at = f'x="{_LEFT + (x + 0.5) * cell:.1f}" y="{_TOP + (y + 0.5) * cell:.1f}"'
                yield f'<text {at} dy="4" class="cell{dark}">{_short(count)}</text>'


def _short(count: int) -> str:
    """A count in four characters.

    >>> [_short(count) for count in (7, 9_999, 10_000, 12_345_678)]
    ['7', '9999', '10k', '12M']
    """
    for unit, factor in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= 10 * factor:
            return f"{count // factor}{unit}"
    return str(count)


def _labels(names: Sequence[str], cell: float) -> Iterator[str]:
    bottom = _TOP + cell * len(names)
    every = -(-len(names) // _LABELS)
    for number, name in enumerate(names):
        if number % every:
            continue
        shown = escape(name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…")
        middle = (number + 0.5) * cell
        yield f'<text x="{_LEFT - 6}" y="{_TOP + middle:.1f}" dy="4" class="end">{shown}</text>'
        at = f"{_LEFT + middle:.1f} {bottom + 14:.1f}"
        yield f'<text transform="translate({at}) rotate(-40)" class="end">{shown}</text>'
