"""`LiveView`: what it shows, where, and when."""

from __future__ import annotations

import io
import re
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rumus.optim import SGD
from rumus.tensor import Backend, Parameter
from rumus.train import Callback, LiveView, StepEnd, Trainer
from rumus.train.loop import progress
from rumus.train.views import live_view


class Clock(Callback):
    """A clock that advances half a second per step, for the view that runs after it."""

    order = -1

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        time = SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr(live_view, "time", time)
        monkeypatch.setattr(progress, "time", time)

    def on_step_end(self, event: StepEnd) -> None:
        self.now += 0.5


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def fit(*callbacks: Callback, backend: Backend | None = None, **options: Any) -> None:
    weight = Parameter(np.full(1, 4, np.float32), name="weight", backend=backend)
    trainer = Trainer(SGD([weight], 0.25))
    options = {"epochs": 2, "validate": lambda: {"loss": 0.5}, **options}
    data = [(np.zeros((8, 1), np.float32),)] * 10
    trainer.fit(data, lambda x: ((weight - x) ** 2).mean(), callbacks=callbacks, **options)


def test_lines_for_a_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stream = io.StringIO()
    fit(Clock(monkeypatch), LiveView(stream, seconds=4), checkpoints=tmp_path)
    lines = stream.getvalue().splitlines()
    assert [re.split(r"(?:  |: mean )loss", line)[0] for line in lines[:-1]] == [
        "epoch 1/2  step 1/20 (5%)",
        "epoch 1/2  step 9/20 (45%)",
        "epoch 1 done",
        "epoch 2/2  step 17/20 (85%)",
        "epoch 2 done",
    ]
    assert "mean loss 2.133  validation loss 0.5" in lines[2]
    last = next(line for line in lines if "step 17/20" in line)
    for part in (
        "lr 0.25", "gradient norm", "16 samples/s", "validation loss 0.5 (best 0.5)", "memory",
        "checkpoint 10", "0:00:01 left",
    ):  # fmt: skip
        assert part in last
    assert lines[-1].startswith("ended after 20 steps")
    assert "\x1b" not in stream.getvalue()


def test_the_first_step_which_compiles_is_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Compiling(Clock):
        def on_step_end(self, event: StepEnd) -> None:
            self.now += 60.0 if event.step == 1 else 0.5

    stream = io.StringIO()
    fit(Compiling(monkeypatch), LiveView(stream, seconds=4))
    first, second = (line for line in stream.getvalue().splitlines()[:2])
    assert "step 1/20" in first
    assert "samples/s" not in first
    assert "left" not in first
    assert "step 9/20" in second
    assert "16 samples/s" in second
    assert "0:00:05 left" in second  # 11 steps


def test_a_resume_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Clock(monkeypatch)  # no step is so late that it has a line
    fit(epochs=1, checkpoints=tmp_path)
    stream = io.StringIO()
    fit(LiveView(stream), checkpoints=tmp_path, resume=True)
    assert stream.getvalue().startswith("resumed from step-00000010, epoch 2\nepoch 2 done")


def test_one_line_on_a_terminal_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rich.console", "rich.live"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    fit(Clock(monkeypatch), LiveView(stream))
    shown = stream.getvalue()
    drawn = re.findall(r"\r(epoch \d/2  step [^\x1b\n]*)\x1b\[K(?!\n)", shown)
    assert len(drawn) == 20
    assert max(map(len, drawn)) == 59
    assert "\x1b[3" not in shown  # no colors
    assert shown.endswith("\r\x1b[K")


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    fit(LiveView(stream))
    assert not {"\r", "\x1b"} & set(stream.getvalue())


def test_a_stream_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe(io.StringIO):
        tries = 0

        def write(self, text: str) -> int:
            self.tries += 1
            raise BrokenPipeError

    stream = Pipe()
    fit(Clock(monkeypatch), LiveView(stream, seconds=1))
    assert stream.tries == 1


def test_a_stream_of_ascii() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    fit(LiveView(stream), validate=lambda: {"größe": 1.0})
    assert b"validation gr??e 1" in raw.getvalue()


def test_errors_leave_the_terminal_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setenv("TERM", "xterm")

    class Break(Callback):
        order = 60

        def on_step_end(self, event: StepEnd) -> None:
            raise ValueError

    stream = Terminal()
    with pytest.raises(RuntimeError, match="Break failed"):
        fit(Clock(monkeypatch), LiveView(stream), Break())
    assert stream.getvalue().endswith("\r\x1b[K")


def test_a_device_is_read_once_a_second(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    class Count(Callback):
        order = 60

        def on_step_end(self, event: StepEnd) -> None:
            stats = getattr(backend, "stats", None)
            read.append(0 if stats is None else stats.bytes_down)

    stream = io.StringIO()
    view = LiveView(stream, seconds=0.5)
    fit(Clock(monkeypatch), view, Count(), backend=backend, epochs=1, validate=None)
    assert stream.getvalue().count("loss") == 10 + 1
    looks = sum(b > a for a, b in pairwise(read))
    assert looks == (4 if backend.runs_ahead else 0)


def test_a_program_without_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """As pythonw and some services have it."""
    closed = io.StringIO()
    closed.close()
    weight = Parameter([1.0], name="weight")
    trainer = Trainer(SGD([weight], 0.1))
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stderr", stream)
        result = trainer.fit([()], lambda: weight.sum(), epochs=1, callbacks=[LiveView()])
        assert result.reason == "epochs"


def test_a_stream_is_no_path() -> None:
    path: Any = "train.log"
    with pytest.raises(TypeError, match=r"stream must be a text stream.*'train\.log'"):
        LiveView(path)


def test_seconds_must_be_positive() -> None:
    with pytest.raises(ValueError, match="seconds must be positive"):
        LiveView(seconds=0)
