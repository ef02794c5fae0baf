"""The command line `rumus`: commands, exit codes, and bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any, Final

import pytest

from rumus.train import Checkpoints, Trainer, Training, load_configuration, read_metrics
from rumus.train.command_line.exit_codes import ExitCode
from rumus.train.command_line.machine import EXTRAS, _terminal
from rumus.train.command_line.main import main
from rumus.train.command_line.parser import parser

SCRIPT: Final = """
import sys, time
from dataclasses import dataclass, field
from typing import Literal
import numpy as np
from rumus.optim import SGD
from rumus.tensor import Parameter
from rumus.train import Callback, DataLoader, ArrayDataset, Trainer, Training

@dataclass
class Optim:
    lr: float = 0.1

@dataclass
class Config:
    width: int = 2
    batches: int = 4
    trouble: Literal["none", "empty", "odd", "nan", "sample", "callback", "wait", "type"] = "none"
    optim: Optim = field(default_factory=Optim)

class Wait(Callback):
    def on_step_end(self, event):
        if event.step == 3:
            print("ready", flush=True)
            time.sleep(0.3)

class Broken(Callback):
    def on_step_end(self, event):
        raise KeyError("accuracy")

def build(config: Config) -> Training:
    x = np.sin(np.arange(4.0 * config.batches * config.width)).reshape(-1, config.width)
    loader = DataLoader(ArrayDataset(x), 4, shuffle=True)
    if config.trouble == "empty":
        loader = []
    if config.trouble == "odd":
        loader = [(x,), (x, x)]
    if config.trouble == "nan":
        loader = [(x * np.nan,)]
    if config.trouble == "sample":
        loader = DataLoader(ArrayDataset(x), 4, transform=lambda sample, random: 1 / 0)
    weight = Parameter(np.ones(config.width, np.float32), name="weight")
    callbacks = {"callback": [Broken()], "wait": [Wait()]}.get(config.trouble, [])
    training = Training(
        Trainer(SGD([weight], config.optim.lr, momentum=0.5)), loader,
        lambda x: ((weight - x) ** 2).mean(), epochs=2, callbacks=callbacks,
    )
    return 3 if config.trouble == "type" else training

def plain():
    return build(Config())

def endless():
    training = build(Config())
    training.epochs = None
    return training

def two(first: Config, second: int):
    pass

def unannotated(config):
    pass

def fails():
    raise ValueError("no data")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a script, the working directory of the command line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "job.py").write_text(SCRIPT)
    yield tmp_path
    sys.modules.pop("job", None)


def rumus(*arguments: object) -> int:
    return int(main([str(argument) for argument in arguments]))


def fails(capsys: pytest.CaptureFixture[str], code: ExitCode, *arguments: object) -> str:
    """Return the message of a command that must exit with this code, without a traceback."""
    capsys.readouterr()
    assert rumus(*arguments) == code
    printed = capsys.readouterr().err.splitlines(keepends=True)
    error = "".join(line for line in printed if not line.startswith("epoch "))  # of a slow machine
    assert "Traceback" not in error
    assert error.startswith((f"rumus {arguments[0]}: ", "usage: rumus"))
    return error


def weight_of(run: Path) -> Any:
    return Checkpoints(run / "checkpoints").load().state["parameters"]["weight"].tobytes()


# Training


def test_train_keeps_everything(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "c.toml").write_text("width = 3\n[optim]\nlr = 0.5\n")
    assert rumus(
        "train", "job.py:build", "--config", "c.toml", "--set", "optim.lr=0.25", "--run-dir", "a/b",
        "--epochs", 3,
    ) == ExitCode.OK  # fmt: skip
    output = capsys.readouterr().out
    assert "done (epochs): 3 epochs, 12 steps" in output
    run = here / "a" / "b"
    kind = sys.modules["job"].Config
    assert load_configuration(kind, run / "config.toml").width == 3
    assert load_configuration(kind, run / "config.toml").optim.lr == 0.25
    assert json.loads((run / "env.json").read_text())["starts"]
    assert [
        line["step"] for line in read_metrics(run / "metrics.jsonl") if line["split"] == "epoch"
    ] == [4, 8, 12]
    assert Checkpoints(run / "checkpoints").latest == 12


def test_a_run_folder_of_its_own(here: Path) -> None:
    for _ in range(2):
        assert rumus("train", "job.py:plain", "--steps", 1) == ExitCode.OK
    assert len(list((here / "runs").glob("job-*/checkpoints/step-00000001"))) == 2


def test_resume_is_the_run_that_never_stopped(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `resume`, from anywhere, with the saved configuration; and with `--resume auto`."""
    setting = ("--set", "optim.lr=0.3")
    seeded = (*setting, "--seed", 5)
    assert rumus("train", "job.py", *seeded, "--run-dir", "whole", "--steps", 7) == 0
    assert rumus("train", "job.py", *seeded, "--run-dir", "parts", "--steps", 3) == 0
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert rumus("resume", "../parts", "--steps", 5) == 0
    assert Path.cwd() == here / "elsewhere"
    assert rumus("resume", "../parts") == 0  # it already is where it was to end
    assert Checkpoints(here / "parts" / "checkpoints").latest == 5
    monkeypatch.chdir(here)
    again = ("--run-dir", "parts", "--resume", "auto", "--steps", 7)
    assert rumus("train", "job.py", *setting, *again) == 0
    assert weight_of(here / "parts") == weight_of(here / "whole")


def test_resume_from_a_checkpoint(here: Path) -> None:
    assert rumus("train", "job.py", "--run-dir", "a") == 0
    folder = here / "a" / "checkpoints" / "step-00000004"
    assert rumus("train", "job.py", "--run-dir", "b", "--resume", folder) == 0
    assert weight_of(here / "a") == weight_of(here / "b")


def test_the_time_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rumus("train", "job.py", "--profile", "--run-dir", "a") == 0
    (first, second) = [line for line in capsys.readouterr().out.splitlines() if "forward" in line]
    assert first.startswith("epoch 1: ")
    for part in ("data", "forward", "backward", "optimizer", "reading", "rest"):
        assert f"{part} " in second


def test_find_lr(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rumus("find-lr", "job.py", "--start", 1e-3, "--end", 100) == 0
    output = capsys.readouterr().out
    assert "lr     0.001  loss" in output
    assert "it falls fastest at lr 0." in output


def test_training_has_what_fit_takes() -> None:
    of_the_run = {"self", "checkpoints", "resume", "signals", "profile_steps"}
    taken = set(signature(Trainer.fit).parameters) - of_the_run
    of_prediction = {"read", "predict_fn"}
    assert {field.name for field in fields(Training)} == taken | {"trainer"} | of_prediction
    for field in fields(Training)[3:]:
        if field.name in of_prediction:
            continue
        assert field.default == signature(Trainer.fit).parameters[field.name].default


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "no.py"], "there is no script no.py"),
        (["train", "job.py:no"], "job.py has no function no; it has build, plain, endless, two"),
        (["train", "job.py:two"], "job.py:two is called with only the configuration, not second"),
        (["train", "job.py:unannotated"], "the annotation of 'config' must be the dataclass"),
        (["train", "job.py:endless"], "no end is set: give --epochs, --steps or --seconds"),
        (["train", "job.py:plain", "--set", "a=1"], "job.py:plain takes no configuration"),
        (["train", "job.py", "--set", "trouble=type"], "must return a rumus.train.Training"),
        (["train", "job.py", "--set", "optim.rl=1"], "optim.rl is unknown; did you mean optim.lr?"),
        (["train", "job.py", "--set", "width=wide"], "width must be a whole number, not 'wide'"),
        (["train", "job.py", "--config", "no.toml"], "there is no file no.toml"),
        (["train", "job.py", "--config", "job.py"], "job.py is not TOML"),
        (["train", "job.py", "--run-dir", "job.py/run"], "runs cannot be kept in"),
        (["train", "job.py", "--resume", "maybe"], "--resume takes auto, must, never or a"),
        (["train", "job.py", "--epochs", "0"], "argument --epochs: must be at least 1, not 0"),
        (["train", "job.py", "--seconds", "nan"], "argument --seconds: must be finite"),
        (["train", "job.py", "--epoch", "1"], "unrecognized arguments: --epoch"),
        (["resume", "no"], "there is no run folder no"),
        (["resume", "job.py"], "job.py is not a folder"),
        (["resume", "."], "was not written by rumus train"),
        (["ckpt", "ls", "no"], "there is no run folder no"),
        (["ckpt", "verify", ".", "3"], "has no checkpoint of step 3; it has none"),
        (["ckpt", "drop"], "invalid choice: 'drop'"),
        (["report", "."], "metrics.jsonl"),
        (["doctor", "job.py"], "runs cannot be kept in job.py"),
        (["fly"], "invalid choice: 'fly'"),
        ([], "usage: rumus"),
    ],
)  # fmt: skip
def test_usage(
    arguments: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(arguments) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("trouble", "code", "message"),
    [
        ("empty", ExitCode.FAILED, "ValueError: the loader yields nothing in epoch 0"),
        ("odd", ExitCode.FAILED, "batch 1 of epoch 0 holds"),
        ("nan", ExitCode.NON_FINITE, "the gradients of 'weight' hold NaN or infinity"),
        ("sample", ExitCode.FAILED, "job.py, line"),
        ("callback", ExitCode.FAILED, "the callback Broken failed in on_step_end"),
    ],
)
def test_failures_in_a_training(
    trouble: str, code: ExitCode, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("train", "job.py", "--set", f"trouble={trouble}", "--run-dir", "a")
    assert message in fails(capsys, code, *arguments)


def test_a_script_that_fails(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = fails(capsys, ExitCode.FAILED, "train", "job.py:fails")
    assert "ValueError: no data" in error
    assert "job.py, line" in error
    assert "in fails); --traceback shows" in error
    assert rumus("train", "job.py:fails", "--traceback") == ExitCode.FAILED
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    (here / "broken.py").write_text("def build(:\n")
    assert "SyntaxError" in fails(capsys, ExitCode.FAILED, "train", "broken.py")
    (here / "json.py").write_text("")
    assert "the name of another module" in fails(capsys, ExitCode.USAGE, "train", "json.py")


def test_nothing_to_resume(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("train", "job.py", "--run-dir", "a", "--resume")
    assert "holds no checkpoint" in fails(capsys, ExitCode.NO_CHECKPOINT, *arguments)
    assert rumus(*arguments, "auto", "--steps", 2) == 0
    shutil.rmtree(here / "a" / "checkpoints")
    assert "holds no checkpoint" in fails(capsys, ExitCode.NO_CHECKPOINT, "resume", "a")


def test_the_folder_of_another_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rumus("train", "job.py", "--run-dir", "a", "--steps", 2) == 0
    error = fails(capsys, ExitCode.USAGE, "train", "job.py", "--run-dir", "a")
    assert "the folder holds checkpoints of another run" in error
    assert "another model" not in error


def test_the_folder_of_another_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every difference is listed, and nothing in the folder has changed."""
    assert rumus("train", "job.py", "--run-dir", "a", "--steps", 2) == 0
    run = here / "a"
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "lock"}
    other = ("--set", "width=3", "--set", "batches=5")
    error = fails(capsys, ExitCode.USAGE, "train", "job.py", *other, "--run-dir", "a", "--resume")
    for difference in (
        "'weight': shape (2,) was saved, but here it is (3,)",
        "samples is 16 in the",
    ):
        assert difference in error
    after = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "lock"}
    assert after == before


def test_a_folder_in_use(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = (
        "import sys; from rumus.train import Checkpoints; "
        "it = Checkpoints('a/checkpoints'); it.acquire(); print('ready', flush=True); "
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        error = fails(capsys, ExitCode.USAGE, "train", "job.py", "--run-dir", "a")
        assert f"process {other.pid}" in error
        other.communicate()


# Checkpoints


def test_checkpoints(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rumus("train", "job.py", "--run-dir", "a") == 0
    capsys.readouterr()
    assert rumus("ckpt", "ls", "a") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["4", "8"]
    assert rumus("ckpt", "verify", "a/checkpoints") == 0
    assert capsys.readouterr().out.count("good") == 2
    damaged = here / "a" / "checkpoints" / "step-00000008" / "parameters.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert rumus("ckpt", "verify", "a") == ExitCode.NO_CHECKPOINT
    assert "step 8: damaged: parameters.safetensors" in capsys.readouterr().out
    assert rumus("ckpt", "verify", "a", 4) == 0
    assert "has no checkpoint of step 5; it has 4, 8" in fails(
        capsys, ExitCode.USAGE, "ckpt", "rm", "a", 8, 5
    )
    assert rumus("ckpt", "rm", "a", 8) == 0
    assert "not removed" in fails(capsys, ExitCode.USAGE, "ckpt", "rm", "a", 4)
    assert Checkpoints(here / "a" / "checkpoints").latest == 4
    assert rumus("ckpt", "ls", here) == 0
    assert rumus("ckpt", "verify", here) == ExitCode.NO_CHECKPOINT


def test_the_nearest_folder_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "runs" / "digits").mkdir(parents=True)
    assert f"did you mean {Path('runs/digits')}?" in fails(
        capsys, ExitCode.USAGE, "report", "runs/digit"
    )


def test_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rumus("train", "job.py", "--run-dir", "a") == 0
    (here / "a" / "report.html").unlink()
    capsys.readouterr()
    assert rumus("report", "a") == 0
    assert Path(capsys.readouterr().out.strip()).read_text().startswith("<!")


# The machine


def test_devices_and_doctor(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rumus("devices") == 0
    assert capsys.readouterr().out.startswith("cpu ")
    assert rumus("doctor", "not/yet") == 0
    output = capsys.readouterr().out
    assert f"{here}: " in output
    assert "ms for a write with fsync" in output
    for about in ("python", "numpy", "cpu", "gpu", "locale", "terminal", *EXTRAS):
        assert f"  {about} " in output


def test_the_doctor_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rumus.train.command_line.machine.find_spec", lambda name: None)
    assert rumus("doctor") == 0
    output = capsys.readouterr().out
    assert "numpy alone" in output
    for _, package in EXTRAS.values():
        assert f"pip install '{package}'" in output


def test_a_driver_that_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> Any:
        raise OSError("libvulkan is odd")

    module = "rumus.train.command_line.machine"
    monkeypatch.setattr(f"{module}.import_module", broken)
    monkeypatch.setattr(f"{module}.find_spec", lambda name: object())
    assert rumus("devices") == 0
    assert "OSError: libvulkan is odd" in capsys.readouterr().out


def test_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen:
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert _terminal(Screen()).startswith("xterm, ")
    assert "NO_COLOR" in _terminal(Screen())


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert rumus("--version") == 0
    assert capsys.readouterr().out.startswith("rumus-train ")
    assert rumus("train", "--help") == 0
    assert "--run-dir RUN" in capsys.readouterr().out


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_option(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rumus("completion", shell) == 0
    script = capsys.readouterr().out
    for action in parser()._subparsers._group_actions[0].choices["train"]._actions:  # type: ignore[union-attr,index]
        for option in action.option_strings:
            if option.startswith("--"):
                assert (f"-l {option[2:]}" if shell == "fish" else option) in script
    for command in ("find-lr", "ckpt", "verify", "doctor", "bash"):
        assert command in script


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["re"], {"resume", "report"}),
        (["ckpt", ""], {"ls", "verify", "rm", "--help"}),
        (["train", "--set", "a=1", "--r"], {"--run-dir", "--resume"}),
        (["train", "job.py", "--resume", "a"], {"auto", "alpha"}),
        (["ckpt", "ls", "al"], {"alpha"}),
        (["ckpt", "ls", "my"], {"my runs"}),
        (["train", "jo"], {"job.py"}),
        (["completion", "z"], {"zsh"}),
    ],
)
def test_bash_completes(
    words: list[str], found: set[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "alpha").mkdir()
    (here / "my runs").mkdir()
    assert rumus("completion", "bash") == 0
    script = capsys.readouterr().out
    typed = " ".join(f"'{word}'" for word in ["rumus", *words])
    script += (
        f'COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _rumus; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run([bash, "--norc", "-c", script], capture_output=True, text=True, cwd=here)
    assert done.stderr == ""
    assert set(done.stdout.splitlines()) == found


# Real processes


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)],
)
def test_a_signal(number: int, code: ExitCode, here: Path) -> None:
    """The run is saved, reported in one line, and continued."""
    command = [sys.executable, "-m", "rumus.train", "train", "job.py", "--run-dir", "a"]
    with subprocess.Popen(
        [*command, "--seed", "4", "--set", "trouble=wait"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while process.stdout.readline() not in ("ready\n", ""):
            pass
        process.send_signal(number)
        _, error = process.communicate(timeout=30)
    assert process.returncode == code
    name = signal.Signals(number).name
    last = f"rumus train: {name} ended the training after step 3; the last checkpoint is "
    assert error.splitlines()[-1].startswith(last)
    assert "Traceback" not in error
    assert rumus("resume", "a") == 0
    assert rumus("train", "job.py", "--seed", 4, "--run-dir", "b") == 0
    assert weight_of(here / "a") == weight_of(here / "b")


def test_a_signal_before_the_training(here: Path) -> None:
    (here / "slow.py").write_text(
        "import time\nprint('ready', flush=True)\n"
        "for _ in range(6000):\n    time.sleep(0.01)\n"  # a signal before a sleep waits for its end
    )
    command = [sys.executable, "-m", "rumus.train", "train", "slow.py"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=30)
    assert process.returncode == ExitCode.TERMINATED
    assert error == "rumus train: SIGTERM, while no training was running\n"


def test_importing_the_package_loads_no_command_line() -> None:
    code = (
        "import sys, rumus.train\n"
        "print(*(n for n in sys.modules if 'command_line' in n or n == 'argparse'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_runs_are_listed_and_compared(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("train", "job.py", "--seed", 1, "--run-dir")
    assert rumus(*common, "runs/a", "--set", "optim.lr=0.1") == 0
    assert rumus(*common, "runs/deep/b", "--set", "optim.lr=0.3") == 0
    capsys.readouterr()
    assert rumus("list") == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "state", "steps", "last", "loss", "best", "validation"]
    assert first.startswith("a ")
    assert second.split()[:4] == ["deep/b", "done", "(epochs)", "8"]
    assert rumus("compare", "runs/a", "runs/deep/b") == 0
    shown = capsys.readouterr().out
    assert "optim.lr   0.1 " in shown
    assert "others are equal" in shown
    assert "seed" not in shown
    (here / "elsewhere").mkdir()
    assert "there is no run in elsewhere" in fails(capsys, ExitCode.USAGE, "list", "elsewhere")
    fails(capsys, ExitCode.USAGE, "compare", "runs/c")


def test_a_damaged_command_or_configuration_is_not_resumed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut at the end of a line, they are TOML, with other settings."""
    for name in ("config.toml", "command.toml"):
        run = Path(f"runs-{name}")
        arguments = ("--set", "width=3", "--seed", 4, "--run-dir", run, "--steps", 3)
        assert rumus("train", "job.py", *arguments) == ExitCode.OK
        whole = (run / name).read_text()
        (run / name).write_text("".join(whole.splitlines(keepends=True)[:-1]))
        told = fails(capsys, ExitCode.USAGE, "resume", run, "--steps", 5)
        assert f"{name} does not fit the checksum in its first line" in told
        (run / name).write_text(whole)
        assert rumus("resume", run, "--steps", 5) == ExitCode.OK
