"""What the exit code of `rumus` says, and the one message that goes with it."""

from __future__ import annotations

import re
import traceback
from enum import IntEnum
from typing import Final

from rumus.tensor import NonFiniteGradientError, StateMismatchError
from rumus.train.base.configuration import ConfigurationError
from rumus.train.checkpoints.checkpoint_errors import (
    CheckpointError,
    InvalidCheckpointError,
    NoCheckpointError,
)
from rumus.train.loop.callback import CallbackError
from rumus.train.loop.nonfinite_loss import NonFiniteLossError
from rumus.train.views.run_folder import RunFolderError


class ExitCode(IntEnum):
    """What happened, for scripts and schedulers."""

    OK = 0
    FAILED = 1  # an error in the script, its data or a callback
    USAGE = 2  # options, configuration, folders, or a run folder of another model
    NON_FINITE = 3  # a loss or gradient is NaN or infinite
    NO_CHECKPOINT = 4  # nothing valid to continue from, or a damaged one was found
    INTERRUPTED = 130  # Ctrl-C
    TERMINATED = 143  # SIGTERM


class Terminated(BaseException):
    """SIGTERM has come where nothing was being trained."""


class UsageError(Exception):
    """What was asked for cannot be done; the message says what can."""


_CODES: Final[tuple[tuple[type[BaseException], ExitCode], ...]] = (
    (NonFiniteGradientError, ExitCode.NON_FINITE),
    (NonFiniteLossError, ExitCode.NON_FINITE),
    (NoCheckpointError, ExitCode.NO_CHECKPOINT),
    (InvalidCheckpointError, ExitCode.NO_CHECKPOINT),
    (CheckpointError, ExitCode.USAGE),
    (StateMismatchError, ExitCode.USAGE),
    (ConfigurationError, ExitCode.USAGE),
    (UsageError, ExitCode.USAGE),
    (RunFolderError, ExitCode.USAGE),
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
    (Terminated, ExitCode.TERMINATED),
)


_OF_RUMUS: Final = re.compile(r"[/\\]rumus[/\\](tensor|nn|optim|gpu|train)[/\\]|<frozen")


def code_of(error: BaseException) -> ExitCode:
    """Return the exit code of an error.

    >>> code_of(NoCheckpointError("none")).name, code_of(KeyError("x")).name
    ('NO_CHECKPOINT', 'FAILED')
    """
    if isinstance(error, CallbackError) and error.__cause__ is not None:
        return code_of(error.__cause__)  # the run folder refuses a run as a callback
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return ExitCode.FAILED


def told(error: BaseException) -> str:
    """Return what to say of an error: what is wrong, and for one of a script also where."""
    if isinstance(error, KeyboardInterrupt):
        return "Ctrl-C, while no training was running"
    if isinstance(error, Terminated):
        return "SIGTERM, while no training was running"
    if isinstance(error, CallbackError) and code_of(error) is not ExitCode.FAILED:
        error = error.__cause__ or error
    text = str(error)
    if code_of(error) is ExitCode.FAILED:
        name = type(error).__name__
        text = f"{name}: {text}" if text else name
        text += f"{_place(error)}; --traceback shows all of it"
    return "\n  ".join([text, *getattr(error, "__notes__", ())])


def _place(error: BaseException) -> str:
    """Where it was raised; for an error of a callback or worker, where its cause was."""
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _OF_RUMUS.search(frame.filename)]
    if not own:
        return ""
    last = own[-1]
    return f" ({last.filename}, line {last.lineno}, in {last.name})"
