"""`rumus report` and `rumus plot`: pages and pictures of runs."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from rumus.train.base.printable import say
from rumus.train.command_line.exit_codes import ExitCode, UsageError
from rumus.train.command_line.run_folders import existing_run


def report(arguments: Namespace) -> int:
    """Run `rumus report`: write the page and print its path."""
    from rumus.train.views.report import write_report

    with drawing():
        say(write_report(existing_run(arguments.folder)))
    return ExitCode.OK


def plot(arguments: Namespace) -> int:
    """Run `rumus plot`: draw the curves of the runs and print the picture's path."""
    from rumus.train.views.runs_picture import plot_runs

    with drawing():
        say(plot_runs([existing_run(folder) for folder in arguments.folders], arguments.output))
    return ExitCode.OK


@contextmanager
def drawing() -> Iterator[None]:
    """Within the block, a missing extra, missing data or a bad name raises UsageError."""
    try:
        yield
    except (ImportError, ValueError, OSError) as error:
        raise UsageError(str(error)) from error
