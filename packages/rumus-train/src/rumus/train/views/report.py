"""`write_report`: a run as one page that needs nothing but itself."""

from __future__ import annotations

import os
from pathlib import Path


def write_report(run: str | Path) -> Path:
    """Write report.html into a run folder, and return where it is.

    One page with curves, tables of configuration, environment, epochs, checkpoints and times; it
    loads nothing, and a run of any length makes a page of bounded size. A run that is still going
    on may be looked at too.

    run: the folder of a run.

    RunFolderError if there is no metrics.jsonl, OSError if the page cannot be written.
    """
    from rumus.train.views.report_page import page
    from rumus.train.views.run_record import read_run

    record = read_run(run)
    path = Path(run) / "report.html"
    beside = path.with_name("report.html.tmp")
    beside.write_text(page(record), encoding="utf-8", errors="replace")
    os.replace(beside, path)
    return path
