"""`main`: reads the command line, does what it says, and turns errors into codes and messages."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import NoReturn

from rumus.tensor.expression.printable import printable_lines
from rumus.tensor.memory.uninterrupted import displaced
from rumus.train.command_line.exit_codes import ExitCode, Terminated, code_of, told
from rumus.train.command_line.parser import parser
from rumus.train.loop.stop_signals import Interrupted


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say, by default those of the process; return the exit code."""
    whole = parser()
    try:
        arguments = whole.parse_args(argv)
    except SystemExit as end:
        return int(end.code or 0)
    if arguments.version:
        from rumus.train import __version__

        print(f"rumus-train {__version__}")
        return ExitCode.OK
    if arguments.command is None:
        whole.print_help(sys.stderr)
        return ExitCode.USAGE
    with _short_warnings(arguments.command), _sigterm():
        return _run(arguments)


def _run(arguments: Namespace) -> int:
    module, _, function = arguments.run.partition(":")
    try:
        command = getattr(import_module(f"rumus.train.command_line.{module}"), function)
        return int(command(arguments))
    except Interrupted as stopped:
        _say(arguments.command, str(stopped))
        return int(stopped.code or 0)
    except BrokenPipeError:  # of `rumus ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except (Exception, KeyboardInterrupt, Terminated) as error:
        if arguments.traceback:
            traceback.print_exc()
        else:
            _say(arguments.command, told(error))
        return code_of(error)


def _say(command: str, text: str) -> None:
    sys.stdout.flush()
    print(printable_lines(f"rumus {command}: {text}"), file=sys.stderr, flush=True)


@contextmanager
def _short_warnings(command: str) -> Iterator[None]:
    """Say warnings in one line, as errors are said."""

    def short(message: object, *_: object, **__: object) -> str:
        return printable_lines(f"rumus {command}: warning: {message}\n")

    with displaced(warnings, "formatwarning", short):
        yield


@contextmanager
def _sigterm() -> Iterator[None]:
    """Let SIGTERM end what is not yet, or no more, a training in the same way as one that is."""
    is_ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if is_ours:
        signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
