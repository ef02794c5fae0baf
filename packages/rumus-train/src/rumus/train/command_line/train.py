"""`rumus train`, `rumus resume` and `rumus find-lr`."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from rumus.tensor import seed
from rumus.train.base.configuration import configuration_table, load_configuration
from rumus.train.base.printable import say
from rumus.train.base.sealed import sealed_toml
from rumus.train.base.toml_text import to_toml
from rumus.train.checkpoints.checkpoint_store import Resume
from rumus.train.command_line.exit_codes import ExitCode, UsageError
from rumus.train.command_line.run_folders import existing_run, writable_place
from rumus.train.command_line.script import Script, load_script, split_name
from rumus.train.command_line.views import drawing
from rumus.train.loop.callback import Callback
from rumus.train.loop.events import TrainStart
from rumus.train.loop.lr_sweep import find_lr
from rumus.train.loop.time_report import TimeReport
from rumus.train.loop.training import Training
from rumus.train.views.live_view import LiveView
from rumus.train.views.run_folder import CONFIG, RunFolder

COMMAND: Final = "command.toml"  # in a run folder: what `rumus resume` repeats
_WHERE_FROM: Final[Mapping[str, Resume]] = {"auto": "auto", "must": True, "never": False}


@dataclass(frozen=True)
class Command:
    """The options besides the configuration. directory: where relative paths start."""

    script: str
    directory: Path
    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None
    profile: Literal["steps", "kernels"] | None = None
    seed: int | None = None

    def limits(self) -> dict[str, Any]:
        """Return the given ones; together they replace the script's."""
        given = {"epochs": self.epochs, "steps": self.steps, "seconds": self.seconds}
        return given if any(value is not None for value in given.values()) else {}


class KeepCommand(Callback):
    """Writes command.toml once the run folder is known to be usable."""

    order = 20  # once the run folder accepts the run

    def __init__(self, folder: Path, command: Command) -> None:
        self.folder, self.command = folder, command

    def on_train_start(self, event: TrainStart) -> None:
        """Write a temporary file and rename it."""
        beside = self.folder / f"{COMMAND}.tmp"
        beside.unlink(missing_ok=True)  # whatever it is: a pipe would wait for a reader
        text = sealed_toml(to_toml(configuration_table(self.command)))
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, self.folder / COMMAND)


def train(arguments: Namespace) -> int:
    """Run `rumus train`."""
    script = load_script(arguments.script)
    config = script.configure(arguments.config, arguments.settings)
    _, function = split_name(arguments.script)
    command = Command(f"{script.path}:{function}", Path.cwd(), **_given(arguments))
    folder = (arguments.run_dir or _new_folder(script)).absolute()
    return _train(script, config, command, folder, _resume_from(arguments.resume))


def resume(arguments: Namespace) -> int:
    """Run `rumus resume`, with command.toml and config.toml of the run folder."""
    folder = existing_run(arguments.folder).absolute()
    if not (folder / COMMAND).is_file():
        raise UsageError(
            f"{folder} was not written by rumus train: there is no {COMMAND}. Continue it with "
            f"rumus train SCRIPT --run-dir {arguments.folder} --resume"
        )
    command = load_configuration(Command, folder / COMMAND)
    command = replace(command, **{k: v for k, v in _given(arguments).items() if v is not None})
    with _in(command.directory):
        script = load_script(command.script)
        has_config = script.kind is not None
        config = script.configure(folder / CONFIG if has_config else None, ())
        return _train(script, config, command, folder, True)


def sweep(arguments: Namespace) -> int:
    """Run `rumus find-lr`."""
    script = load_script(arguments.script)
    training = script.training(script.configure(arguments.config, arguments.settings))
    found = find_lr(
        training.trainer, training.loader, training.loss_fn,
        start=arguments.start, end=arguments.end, steps=arguments.steps,
    )  # fmt: skip
    for rate, loss, smoothed in zip(found.rates, found.losses, found.smoothed, strict=True):
        print(f"lr {rate:9.3g}  loss {loss:9.4g}  smoothed {smoothed:9.4g}")
    say(f"the sweep ended: {found.reason}")
    best = found.suggestion
    print("the loss never falls" if best is None else f"it falls fastest at lr {best:.3g}")
    if arguments.picture is not None:
        with drawing():
            found.draw(arguments.picture)
        say(f"picture: {arguments.picture}")
    return ExitCode.OK


def _train(script: Script, config: Any, command: Command, folder: Path, resume: Resume) -> int:
    table = {} if config is None else configuration_table(config)
    writable_place(folder)
    command = replace(command, seed=_seeded(command, table))
    run = RunFolder(folder, config=table, seed=command.seed)
    training = script.training(config)
    _check_ends(training, command)
    say(f"run folder: {folder}, seed {command.seed}")
    callbacks = [*training.callbacks, run, KeepCommand(folder, command), LiveView()]
    if command.profile is not None:
        callbacks.append(TimeReport(kernels=command.profile == "kernels"))
    result = training.fit(
        **command.limits(),
        callbacks=callbacks,
        checkpoints=run.checkpoints,
        resume=resume,
        profile_steps=command.profile is not None,
    )
    say(
        f"done ({result.reason}): {result.epochs} epochs, {result.steps} steps, "
        f"{result.seconds:.1f} s; {folder}"
    )
    return ExitCode.OK


def _seeded(command: Command, config: Mapping[str, Any]) -> int:
    """Set the seed: from --seed, the configuration's `seed`, or a fresh one."""
    configured = config.get("seed")
    given = configured if type(configured) is int else None
    return seed(given if command.seed is None else command.seed)


def _check_ends(training: Training, command: Command) -> None:
    own = (training.epochs, training.steps, training.seconds)
    if not command.limits() and all(limit is None for limit in own):
        raise UsageError(
            "no end is set: give --epochs, --steps or --seconds, or Training(..., epochs=...)"
        )


def _given(arguments: Namespace) -> dict[str, Any]:
    return {
        name: getattr(arguments, name) for name in ("epochs", "steps", "seconds", "profile", "seed")
    }


def _resume_from(text: str) -> Resume:
    if text in _WHERE_FROM:
        return _WHERE_FROM[text]
    if not Path(text).is_dir():
        raise UsageError(f"--resume takes auto, must, never or a checkpoint's folder, not {text}")
    return Path(text)


def _new_folder(script: Script) -> Path:
    """A new folder in runs/, named by the current second and unique."""
    name = f"{script.path.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder


@contextmanager
def _in(directory: Path) -> Iterator[None]:
    """Within the block, relative paths resolve as they did when the run began."""
    if not directory.is_dir():
        raise UsageError(f"the folder that the run was started in is gone: {directory}")
    with chdir(directory):
        yield
