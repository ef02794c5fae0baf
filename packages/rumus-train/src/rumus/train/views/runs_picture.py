"""`plot_runs`: the curves of several runs in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rumus.tensor.expression.arguments import checked_first
from rumus.tensor.expression.declared_type import shown

if TYPE_CHECKING:
    from rumus.train.views.run_record import RunRecord

_PANELS: Final = 8  # at most
_FIRST: Final = ("train loss", "validation loss")
_LAST: Final = ("train lr", "train grad_norm", "train samples_s")
_TITLES: Final = {
    "train loss": "training loss",
    "train lr": "learning rate",
    "train grad_norm": "gradient norm",
    "train samples_s": "samples per second",
}


@checked_first
def plot_runs(runs: Sequence[str | Path], out: str | Path) -> Path:
    """Draw losses, validations, learning rates, norms and throughput of runs; return `out`.

    runs: the run folders, each in its own color.
    out: a file whose suffix gives the format, such as .png or .svg. Needs the extra `plot`; raises
        ImportError without it.

    Raises RunFolderError for a folder without a run, ValueError for no runs, nothing to draw or an
    unknown suffix, OSError if the picture cannot be written.
    """
    runs = list(runs)
    for run in runs:
        if not isinstance(run, (str, Path)):
            raise TypeError(f"plot_runs: runs must be run folders, not {shown(run)}")
    if not runs:
        raise ValueError("plot_runs needs at least one run folder")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot_runs needs matplotlib: pip install 'rumus-train[plot]'") from error
    from rumus.train.views.run_record import read_run

    records = [read_run(run) for run in runs]
    names = _panels(records)
    if not names:
        raise ValueError(f"there are no measurements yet in {', '.join(map(str, runs))}")
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(6.0 * columns, 3.0 * rows + 0.6), layout="constrained")
    for number, name in enumerate(names, start=1):
        _draw(figure.add_subplot(rows, columns, number), name, records)
    lines = [axes for axes in figure.axes if len(axes.lines) == len(records)]
    handles, labels = (lines or figure.axes)[0].get_legend_handles_labels()
    columns = min(4, len(labels))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)
    figure.savefig(out, dpi=130)
    return Path(out)


def _panels(records: Sequence[RunRecord]) -> list[str]:
    """The curves of all runs: losses, then metrics of the validation, then the rest."""
    there = {name for record in records for name, curve in record.curves.items() if curve.points}
    metrics = sorted(name for name in there - {*_FIRST} if name.startswith("validation "))
    wanted = [*_FIRST, *metrics[: _PANELS - len(_FIRST) - len(_LAST)], *_LAST]
    return [name for name in wanted if name in there]


def _draw(axes: Any, name: str, records: Sequence[RunRecord]) -> None:
    """Draw one curve of each run; runs keep their colors, whether they have the curve or not.

    `axes` is Matplotlib's.
    """
    from rumus.train.views.chart import vertical

    curves = []
    for number, record in enumerate(records):
        curve = record.curves.get(name)
        if curve is None or not curve.points:
            continue
        curves.append(curve)
        x = [point.x for point in curve.points]
        color = f"C{number % 10}"
        if curve.is_thinned:
            low, high = [p.low for p in curve.points], [p.high for p in curve.points]
            axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        middle = [point.mean for point in curve.points]
        marker = "o" if len(x) <= 40 else None
        axes.plot(x, middle, color=color, label=record.name, linewidth=1.3, marker=marker, ms=3)
    if vertical(curves).is_log:
        axes.set_yscale("log")
    axes.set_title(_TITLES.get(name, name.replace("validation ", "validation: ")), fontsize=11)
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
