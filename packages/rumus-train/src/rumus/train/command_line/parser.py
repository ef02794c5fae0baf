"""The commands of `rumus` and their options."""

from __future__ import annotations

import argparse
import math
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final, NoReturn

from rumus.tensor.expression.printable import printable_lines
from rumus.train.command_line.shells import SHELLS

# What completion offers for an argument: names of files, of folders, or nothing.
FILE, FOLDER = "file", "folder"

_EPILOG: Final = """\
exit codes: 0 done, 1 an error in the script, 2 usage, configuration or folder, 3 not finite,
4 no valid checkpoint, 130 Ctrl-C, 143 SIGTERM"""


class _Parser(ArgumentParser):
    """Says what is wrong with arguments without repeating what a terminal would obey."""

    def error(self, message: str) -> NoReturn:
        super().error(printable_lines(message))


def parser() -> ArgumentParser:
    """Return the parser. Each command sets `run`: the module and function that does it."""
    whole = _Parser(
        prog="rumus",
        description="Train models defined in a script, and manage their runs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="store_true", help="print the version and end")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND")
    _train(commands)
    _resume(commands)
    _find_lr(commands)
    _checkpoints(commands)
    _predict(commands)
    _looking(commands)
    _machine(commands)
    return whole


def _command(commands: Any, name: str, run: str, text: str) -> ArgumentParser:
    made: ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
    )
    made.add_argument("--traceback", action="store_true", help="show a traceback for errors")
    made.set_defaults(run=run)
    return made


def _add(
    to: ArgumentParser, *names: str, completes: str | None = None, **options: Any
) -> argparse.Action:
    action = to.add_argument(*names, **options)
    action.completes = completes  # type: ignore[attr-defined]
    return action


def _script(to: ArgumentParser) -> None:
    _add(
        to, "script", completes=FILE, metavar="SCRIPT.py:FUNCTION",
        help="returns a Training; FUNCTION defaults to build",
    )  # fmt: skip
    _add(to, "--config", completes=FILE, type=Path, metavar="FILE.toml", help="the configuration")
    _add(
        to, "--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
        help="a value of the configuration, such as optim.lr=3e-4; may be repeated",
    )  # fmt: skip


def _limits(to: ArgumentParser) -> None:
    _add(
        to,
        "--epochs",
        type=_positive,
        help="end after this many epochs, including those before a resume",
    )
    _add(to, "--steps", type=_positive, help="end after this many steps")
    _add(to, "--seconds", type=_positive_seconds, help="end after this many seconds")
    _add(
        to,
        "--seed",
        type=int,
        help="the seed of everything random; a fresh one if not given",
    )
    _add(
        to, "--profile", choices=["steps", "kernels"], nargs="?", const="steps",
        help="report the time of each epoch; kernels: also by GPU kernel",
    )  # fmt: skip


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _positive_seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be finite and positive, not {number}")
    return number


def _train(commands: Any) -> None:
    train = _command(commands, "train", "train:train", "train a script's model")
    _script(train)
    _add(
        train, "--run-dir", completes=FOLDER, type=Path, metavar="RUN",
        help="the folder for configuration and checkpoints; a new one in runs/ if not given",
    )  # fmt: skip
    _add(
        train, "--resume", nargs="?", const="must", default="never", metavar="auto|must|never|PATH",
        help=(
            "continue from the newest checkpoint: auto, if there is one; must (the default of "
            "--resume), or exit with 4; or from the checkpoint PATH"
        ),
    )  # fmt: skip
    _limits(train)


def _resume(commands: Any) -> None:
    resume = _command(commands, "resume", "train:resume", "continue a stopped run")
    _add(resume, "folder", completes=FOLDER, type=Path, metavar="RUN")
    _limits(resume)


def _find_lr(commands: Any) -> None:
    find = _command(commands, "find-lr", "train:sweep", "find an initial learning rate")
    _script(find)
    _add(find, "--start", type=float, default=1e-7, help="the lowest rate (%(default)s)")
    _add(find, "--end", type=float, default=10.0, help="the highest rate (%(default)s)")
    _add(find, "--steps", type=_positive, default=100, help="how many steps (%(default)s)")
    _add(
        find, "--picture", completes=FILE, type=Path, metavar="FILE.png",
        help="draw the curve (needs rumus-train[plot])",
    )  # fmt: skip


def _checkpoints(commands: Any) -> None:
    about = "list, verify and remove checkpoints"
    group = commands.add_parser("ckpt", help=about, description=f"{about.capitalize()}.")
    inner = group.add_subparsers(dest="action", metavar="ACTION", required=True)
    ls = _command(inner, "ls", "checkpoints:ls", "list the checkpoints of a run")
    verify = _command(inner, "verify", "checkpoints:verify", "read checkpoints, byte by byte")
    rm = _command(inner, "rm", "checkpoints:rm", "remove checkpoints, except the last one")
    for command in (ls, verify, rm):
        _add(command, "folder", completes=FOLDER, type=Path, metavar="RUN")
    _add(verify, "steps", type=int, nargs="*", metavar="STEP", help="all if none are given")
    _add(rm, "steps", type=int, nargs="+", metavar="STEP")


def _predict(commands: Any) -> None:
    predict = _command(commands, "predict", "predict:predict", "apply the model of a run to data")
    _add(predict, "folder", completes=FOLDER, type=Path, metavar="RUN")
    _add(
        predict, "data", completes=FILE, type=Path, metavar="DATA",
        help="a file like the one trained on, or a .npy file",
    )  # fmt: skip
    _add(
        predict, "--output", "-o", completes=FILE, type=Path, metavar="FILE",
        help="where to write: .npy, or CSV; by default CSV to the terminal",
    )  # fmt: skip
    _add(
        predict, "--step", default="best", metavar="best|latest|N",
        help="the weights of the best validation (%(default)s), the newest, or those of a step",
    )  # fmt: skip


def _looking(commands: Any) -> None:
    report = _command(commands, "report", "views:report", "write report.html of a run")
    _add(report, "folder", completes=FOLDER, type=Path, metavar="RUN")
    listed = _command(commands, "list", "runs:list_runs", "list the runs in a folder")
    _add(
        listed, "folder", completes=FOLDER, type=Path, nargs="?", default=Path("runs"),
        metavar="FOLDER", help="where runs are (%(default)s)",
    )  # fmt: skip
    compared = _command(commands, "compare", "runs:compare", "show how runs differ")
    _add(compared, "folders", completes=FOLDER, type=Path, nargs="+", metavar="RUN")
    plot = _command(commands, "plot", "views:plot", "draw the curves of runs in one picture")
    _add(plot, "folders", completes=FOLDER, type=Path, nargs="+", metavar="RUN")
    _add(
        plot, "--output", "-o", completes=FILE, type=Path, metavar="FILE.png",
        default=Path("runs.png"), help="the picture (%(default)s)",
    )  # fmt: skip


def _machine(commands: Any) -> None:
    _command(commands, "devices", "machine:list_devices", "list the devices here")
    doctor = _command(
        commands, "doctor", "machine:doctor", "check for missing or slow parts of this installation"
    )
    _add(
        doctor, "folder", completes=FOLDER, type=Path, nargs="?", default=Path(), metavar="FOLDER",
        help="the folder for runs (here)",
    )  # fmt: skip
    completion = _command(
        commands, "completion", "completion:completion", "print the completion script of a shell"
    )
    _add(completion, "shell", choices=SHELLS)
