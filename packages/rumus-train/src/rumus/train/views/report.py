"""`write_report`: a run as one self-contained page."""

from __future__ import annotations

import os
from pathlib import Path

from rumus.tensor.expression.arguments import checked_first


@checked_first
def write_report(run: str | Path) -> Path:
    """Write report.html into a run folder, and return its path.

    One page with curves and tables of configuration, environment, epochs, checkpoints and times. It
    loads nothing, and its size is bounded for a run of any length. A running training can be
    reported too.

    run: a run folder.

    Damaged lines of metrics.jsonl are skipped with a RunFolderWarning.
    Raises RunFolderError if there is no metrics.jsonl, OSError if the page cannot be written.
    """
    from rumus.train.views.report_page import page
    from rumus.train.views.run_record import read_run

    record = read_run(run)
    path = Path(run) / "report.html"
    beside = path.with_name("report.html.tmp")
    beside.unlink(missing_ok=True)  # whatever it is: a pipe would wait for a reader
    beside.write_text(page(record), encoding="utf-8", errors="replace")
    os.replace(beside, path)
    return path
