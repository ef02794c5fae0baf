"""SIGTERM and Ctrl-C, sent to real processes at awkward moments; what must be left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from rumus.optim import SGD
from rumus.tensor import Parameter, Tensor
from rumus.train import (
    Callback,
    Checkpoints,
    CheckpointSaved,
    Every,
    Interrupted,
    StepEnd,
    Trainer,
)

# It says "ready" where the signal is to meet it, and waits there.
PROGRAM: Final = """
import sys, time
import numpy as np
from rumus.optim import SGD
from rumus.tensor import Parameter
from rumus.train import Callback, Checkpoints, Every, LocalFileSystem, Trainer

moment, folder = sys.argv[1:]
calls = 0

def wait(seconds):
    print("ready", flush=True)
    time.sleep(seconds)

class Slow(LocalFileSystem):
    def fsync(self, descriptor):
        if moment == "saving":
            wait(0.2)

def loss(x):
    global calls
    calls += 1
    if calls == 5 and moment in ("step", "accumulation"):
        wait(0.2)
    if calls == 5 and moment == "twice":
        print("ready", flush=True)
        while watch.run.signals.received is None:
            time.sleep(0.01)
        wait(60)
    return ((weight - x) ** 2).mean()

def validate():
    if moment == "validation":
        wait(60)
    return {"loss": 0.5}

class Watch(Callback):
    def on_train_start(self, event):
        self.run = event.run

watch = Watch()
weight = Parameter([0.0], name="weight")
trainer = Trainer(SGD([weight], 0.1))
checkpoints = Checkpoints(folder, file_system=Slow())
trainer.fit(
    [(np.array([n], np.float32),) for n in range(6)], loss, epochs=2, checkpoints=checkpoints,
    validate=validate, accumulate=3 if moment == "accumulation" else 1, resume="auto",
    save_every=Every(steps=6, epochs=1), callbacks=[watch],
)
print(weight.item().hex())
"""


def run(moment: str, folder: Path, *signals: int) -> tuple[int, str]:
    """Start the program, send the signals when it is ready, and return its code and output."""
    command = [sys.executable, "-c", PROGRAM, moment, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        assert it.stderr is not None
        for number in signals:  # a second one when the first has been heard: two may become one
            assert it.stdout.readline() == "ready\n", it.stderr.read()
            it.send_signal(number)
        out, err = it.communicate(timeout=50)
    assert err == ""
    return it.returncode, out


@pytest.mark.parametrize(
    ("moment", "number", "code", "step"),
    [
        ("step", signal.SIGTERM, 143, 5),
        ("step", signal.SIGINT, 130, 5),
        ("accumulation", signal.SIGTERM, 143, 2),
        ("validation", signal.SIGTERM, 143, 6),
        ("saving", signal.SIGTERM, 143, 6),
    ],
)
def test_a_signal(moment: str, number: int, code: int, step: int, tmp_path: Path) -> None:
    """It is saved once, whole, and its step is done; no traceback is printed."""
    found, _ = run(moment, tmp_path, number)
    assert found == code
    (saved,) = Checkpoints(tmp_path).list()
    assert (saved.step, saved.problem) == (step, None)
    assert Checkpoints(tmp_path).load().step == step


def test_what_was_stopped_in_a_validation_goes_on_with_it(tmp_path: Path) -> None:
    assert run("validation", tmp_path / "a", signal.SIGTERM) == (143, "")
    assert Checkpoints(tmp_path / "a").load().state["position"]["validation_due"]
    assert run("none", tmp_path / "a") == run("none", tmp_path / "b")
    last = Checkpoints(tmp_path / "a").load().state["position"]
    assert last == Checkpoints(tmp_path / "b").load().state["position"]
    assert [entry["step"] for entry in last["history"]] == [6, 6, 12, 12]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_leaves_at_once(number: int, tmp_path: Path) -> None:
    """Without a checkpoint: it had said how long it takes to come to one."""
    assert run("twice", tmp_path, number, number) == (128 + number, "")
    assert Checkpoints(tmp_path).latest is None


# In this process


class Send(Callback):
    def __init__(self, number: int) -> None:
        self.number = number

    def on_step_end(self, event: StepEnd) -> None:
        os.kill(os.getpid(), self.number)


def trainer() -> tuple[Trainer[object], Parameter]:
    weight = Parameter([0.0], name="weight")
    return Trainer(SGD([weight], 0.1)), weight


DATA: Final = [(np.ones(1, np.float32),)] * 3


def test_handlers_are_restored() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    fitted, weight = trainer()

    def loss(x: Tensor) -> Tensor:
        assert signal.getsignal(signal.SIGTERM) is not before[0]
        return ((weight - x) ** 2).mean()

    with pytest.raises(
        Interrupted, match=r"SIGINT ended the training after step 1; not saved"
    ) as e:
        fitted.fit(DATA, loss, epochs=1, callbacks=[Send(signal.SIGINT)])
    assert (e.value.code, e.value.name, e.value.checkpoint) == (130, "SIGINT", None)
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    with pytest.raises(ZeroDivisionError):
        fitted.fit(DATA, lambda x: loss(x) / (1 // 0), epochs=1)
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_signal_in_the_last_save_is_not_lost(tmp_path: Path) -> None:
    class InLast(Callback):
        def on_checkpoint(self, event: CheckpointSaved) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    fitted, weight = trainer()
    with pytest.raises(Interrupted) as e:
        fitted.fit(
            DATA, lambda x: ((weight - x) ** 2).mean(), epochs=1, checkpoints=tmp_path,
            save_every=Every(), callbacks=[InLast()],
        )  # fmt: skip
    assert (e.value.step, e.value.checkpoint) == (3, tmp_path / "step-00000003")


def test_signals_can_be_left_to_the_program() -> None:
    fitted, weight = trainer()
    with pytest.raises(KeyboardInterrupt):
        fitted.fit(
            DATA, lambda x: ((weight - x) ** 2).mean(), epochs=1, signals=False,
            callbacks=[Send(signal.SIGINT)],
        )  # fmt: skip


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        fitted, weight = trainer()
        result = fitted.fit(
            DATA, lambda x: ((weight - x) ** 2).mean(), epochs=1, callbacks=[Send(signal.SIGTERM)]
        )
        assert result.steps == 3
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_nothing_is_handled() -> None:
    before, found = signal.getsignal(signal.SIGTERM), []
    fitted, weight = trainer()

    def loss(x: Tensor) -> Tensor:
        found.append(signal.getsignal(signal.SIGTERM))
        return ((weight - x) ** 2).mean()

    thread = threading.Thread(target=lambda: fitted.fit(DATA, loss, epochs=1))
    thread.start()
    thread.join()
    assert found == [before] * 3
