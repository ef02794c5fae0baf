"""SIGTERM and Ctrl-C, sent to real processes at awkward moments, and what must remain."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from rumus.optim import SGD
from rumus.tensor import Parameter, Tensor
from rumus.train import (
    Callback,
    CallbackError,
    Checkpoints,
    CheckpointSaved,
    Every,
    Interrupted,
    StepEnd,
    TrainEnd,
    Trainer,
)
from rumus.train.loop.stop_signals import AGAIN

# It prints "ready" where the signal should arrive, and waits there.
PROGRAM: Final = """
import random, sys, time
import numpy as np
from rumus.optim import SGD
from rumus.tensor import Parameter
from rumus.train import Callback, Checkpoints, Every, LocalFileSystem, Trainer

moment, folder = sys.argv[1:]
random.seed(0)  # a checkpoint holds what these two have drawn
np.random.seed(0)
calls = 0

def wait(goes_on):
    print("ready", flush=True)
    until = time.monotonic() + 60
    while not goes_on() and time.monotonic() < until:
        time.sleep(0.01)  # a signal just before a sleep is handled only after it

def has_signal():
    return watch.run.signals.received is not None

class Slow(LocalFileSystem):
    def fsync(self, descriptor):
        if moment == "saving":
            wait(has_signal)

def loss(x):
    global calls
    calls += 1
    if calls == 5 and moment in ("step", "accumulation"):
        wait(has_signal)
    if calls == 5 and moment == "twice":
        wait(has_signal)
        wait(lambda: False)
    return ((weight - x) ** 2).mean()

def validate():
    if moment == "validation":
        wait(has_signal)
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
    """Start the program, send the signals when it is ready, and return its exit code and output."""
    command = [sys.executable, "-c", PROGRAM, moment, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        assert it.stderr is not None
        for position, number in enumerate(signals):  # a second one after the first has been handled
            assert it.stdout.readline() == "ready\n", it.stderr.read()
            time.sleep(position * 1.1 * AGAIN)
            it.send_signal(number)
        out, err = it.communicate(timeout=50)
    assert err == ""
    return it.returncode, out


@pytest.mark.parametrize(
    ("moment", "number", "code", "step"),
    [
        ("step", signal.SIGTERM, 143, 5),
        ("step", signal.SIGINT, 130, 5),
        ("step", signal.SIGHUP, 129, 5),
        ("step", signal.SIGUSR1, 138, 5),
        ("step", signal.SIGUSR2, 140, 5),
        ("step", signal.SIGALRM, 142, 5),
        ("accumulation", signal.SIGTERM, 143, 2),
        ("validation", signal.SIGTERM, 143, 6),
        ("saving", signal.SIGTERM, 143, 6),
    ],
)
def test_a_signal(moment: str, number: int, code: int, step: int, tmp_path: Path) -> None:
    """It is saved once, completely, and its step is finished; no traceback is printed."""
    found, _ = run(moment, tmp_path, number)
    assert found == code
    (saved,) = Checkpoints(tmp_path).list()
    assert (saved.step, saved.problem) == (step, None)
    assert Checkpoints(tmp_path).load().step == step


PRINTING: Final = """
import sys, time
import numpy as np
from rumus.optim import SGD
from rumus.tensor import Parameter
from rumus.train import Callback, Every, Trainer

who, folder = sys.argv[1:]

class Watch(Callback):
    def on_train_start(self, event):
        self.run = event.run

    def on_step_end(self, event):
        if who == "callback":
            print("step", event.step, file=sys.stderr)

def loss(x):
    if watch.run.position.step == 4:
        print("ready", flush=True)
        until = time.monotonic() + 60
        while watch.run.signals.received is None and time.monotonic() < until:
            time.sleep(0.01)
    if who == "loss":
        print("a loss")
    return ((weight - x) ** 2).mean()

watch = Watch()
weight = Parameter([0.0], name="weight")
Trainer(SGD([weight], 0.1)).fit(
    [(np.array([n], np.float32),) for n in range(6)], loss, epochs=2, checkpoints=folder,
    callbacks=[watch], progress=None,
)
"""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals")
@pytest.mark.parametrize("who", ["loss", "callback"])
def test_a_terminal_that_closes_while_something_is_printed(who: str, tmp_path: Path) -> None:
    import pty

    pid, terminal = pty.fork()  # type: ignore[attr-defined,unused-ignore]
    if not pid:
        os.execv(sys.executable, [sys.executable, "-c", PRINTING, who, str(tmp_path)])
    shown = b""
    while b"ready" not in shown:
        shown += os.read(terminal, 1024)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 129
    assert Checkpoints(tmp_path).load().step == 5


def test_a_run_stopped_in_a_validation_resumes_with_it(tmp_path: Path) -> None:
    assert run("validation", tmp_path / "a", signal.SIGTERM) == (143, "")
    assert Checkpoints(tmp_path / "a").load().state["position"]["validation_due"]
    assert run("none", tmp_path / "a") == run("none", tmp_path / "b")
    last = Checkpoints(tmp_path / "a").load().state["position"]
    assert last == Checkpoints(tmp_path / "b").load().state["position"]
    assert [entry["step"] for entry in last["history"]] == [6, 6, 12, 12]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_leaves_at_once(number: int, tmp_path: Path) -> None:
    """Without a checkpoint; the first signal's message said how long one may take."""
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


def test_handlers_are_restored_if_one_raises_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C when the handler of SIGTERM is there, and that of SIGINT not yet."""
    before, install = signal.getsignal(signal.SIGTERM), signal.signal

    def interrupted(number: int, handler: Any) -> Any:
        found = install(number, handler)
        if number == signal.SIGTERM and handler is not before:
            os.kill(os.getpid(), signal.SIGINT)
        return found

    fitted, weight = trainer()
    monkeypatch.setattr(signal, "signal", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fitted.fit(DATA, lambda x: ((weight - x) ** 2).mean(), epochs=1)
    assert signal.getsignal(signal.SIGTERM) is before
    assert weight.item() == 0


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


def test_the_same_signal_twice_at_once_is_one(tmp_path: Path) -> None:
    """`timeout` and launchers send it to the process and to its group."""

    class Twice(Send):
        def on_step_end(self, event: StepEnd) -> None:
            super().on_step_end(event)
            super().on_step_end(event)

    fitted, weight = trainer()
    with pytest.raises(Interrupted) as e:
        fitted.fit(
            DATA, lambda x: ((weight - x) ** 2).mean(), epochs=1, checkpoints=tmp_path,
            callbacks=[Twice(signal.SIGTERM)],
        )  # fmt: skip
    assert (e.value.step, e.value.checkpoint) == (1, tmp_path / "step-00000001")


@pytest.mark.parametrize(("accumulate", "hangs", "step"), [(1, 2, 2), (1, 4, 4), (2, 3, 1)])
def test_a_second_signal_while_the_loader_waits_saves_what_was_trained(
    accumulate: int, hangs: int, step: int, tmp_path: Path
) -> None:
    """The first has reached its workers, too, and it waits for them for ever."""

    class Waiting:
        def __iter__(self) -> Iterator[tuple[Any, ...]]:
            for n in range(6):
                if n == hangs:
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(AGAIN + 0.05)
                    os.kill(os.getpid(), signal.SIGTERM)
                yield (np.full(1, n, np.float32),)

        def set_epoch(self, epoch: int) -> None: ...

    fitted, weight = trainer()
    options: Any = {"epochs": 1, "checkpoints": tmp_path, "accumulate": accumulate}
    with pytest.raises(Interrupted, match="ended the training at once"):
        fitted.fit(Waiting(), lambda x: ((weight - x) ** 2).mean(), **options)
    assert Checkpoints(tmp_path).load().step == step
    hangs, found = -1, []
    for resume, folder in ((True, tmp_path), (False, None)):
        fitted, weight = trainer()
        options |= {"checkpoints": folder, "resume": resume}
        fitted.fit(Waiting(), lambda x, weight=weight: ((weight - x) ** 2).mean(), **options)
        found.append(weight.tolist())
    assert found[0] == found[1]


@pytest.mark.parametrize("who", ["callback", "loader", "loss"])
def test_what_a_signal_has_ended_may_fail_after_it(who: str, tmp_path: Path) -> None:
    """As a pool of processes in the group that got it: the run ends by the signal, and is saved."""
    steps = 0

    def fail(at: str) -> None:
        if at == who and steps == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            raise BrokenPipeError("a worker is gone")

    class Counting(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            nonlocal steps
            steps = event.step
            fail("callback")

    class Batches:
        def __iter__(self) -> Iterator[tuple[Any, ...]]:
            for _ in range(4):
                fail("loader")
                yield (np.ones(1, np.float32),)

        def set_epoch(self, epoch: int) -> None: ...

    fitted, weight = trainer()

    def loss(x: Tensor) -> Tensor:
        fail("loss")
        return ((weight - x) ** 2).mean()

    with (
        pytest.raises(Interrupted) as e,
        pytest.warns(UserWarning, match="after the signal came .*a worker is gone"),
    ):
        fitted.fit(Batches(), loss, epochs=1, checkpoints=tmp_path, callbacks=[Counting()])
    assert (e.value.code, e.value.checkpoint) == (143, tmp_path / "step-00000002")


@pytest.mark.parametrize("kind", [TimeoutError, SystemExit])
def test_a_handler_that_raises_in_the_loader_saves_what_was_trained(
    kind: type[BaseException], tmp_path: Path
) -> None:
    """Such as a time limit of the program's own."""

    def handler(*_: object) -> None:
        raise kind("late")

    class Waits:
        def __iter__(self) -> Iterator[tuple[Any, ...]]:
            for number in range(4):
                if number == 3:
                    os.kill(os.getpid(), signal.SIGALRM)
                yield (np.ones(1, np.float32),)

    fitted, weight = trainer()
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(kind) as e:
            fitted.fit(
                Waits(), lambda x: ((weight - x) ** 2).mean(), epochs=1, checkpoints=tmp_path
            )
    finally:
        signal.signal(signal.SIGALRM, before)
    assert e.value.__notes__ == [f"the last checkpoint is {tmp_path / 'step-00000003'}"]
    assert Checkpoints(tmp_path).load().step == 3


@pytest.mark.parametrize("kind", [TimeoutError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("by_handler", [True, False])
def test_what_is_raised_in_a_step_leaves_the_last_whole_one(
    kind: type[BaseException], by_handler: bool, tmp_path: Path
) -> None:
    def handler(*_: object) -> None:
        raise kind("late")

    fitted, weight = trainer()
    calls: list[int] = []

    def loss(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 3 and by_handler:
            os.kill(os.getpid(), signal.SIGALRM)
        elif len(calls) == 3:
            handler()
        return ((weight - x) ** 2).mean()

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(kind) as e:
            fitted.fit(DATA, loss, epochs=1, checkpoints=tmp_path)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert e.value.__notes__ == [f"the last checkpoint is {tmp_path / 'step-00000002'}"]
    assert Checkpoints(tmp_path).load().step == 2


@pytest.mark.parametrize(
    ("moment", "step"),
    [
        ("on_step_end", 1), ("on_validation_end", 2), ("on_epoch_end", 3), ("on_checkpoint", 3),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, MemoryError])
def test_what_a_callback_raises_leaves_the_last_step(
    moment: str, step: int, kind: type[BaseException], tmp_path: Path
) -> None:
    """`sys.exit()` in one saved nothing, an error did."""

    def leave(self: Callback, event: StepEnd) -> None:
        if event.step == step:
            raise kind

    def fit(callbacks: list[Callback]) -> tuple[Any, str]:
        fitted, weight = trainer()
        result = fitted.fit(
            DATA, lambda x: ((weight - x) ** 2).mean(), epochs=2, checkpoints=tmp_path,
            validate=lambda: {"loss": 1.0}, validate_every=Every(steps=2, epochs=1),
            callbacks=callbacks, resume="auto",
        )  # fmt: skip
        return result.history, float(weight.item()).hex()

    with pytest.raises(CallbackError if kind is MemoryError else kind):
        fit([type("Leaves", (Callback,), {moment: leave})()])
    assert Checkpoints(tmp_path).load().step == step
    found = fit([])
    shutil.rmtree(tmp_path)
    assert found == fit([])


def test_a_child_that_a_callback_forks_saves_nothing(tmp_path: Path) -> None:
    """`sys.exit()` of a child runs through `fit`; the folder is its parent's."""

    class Forks(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            if event.step == 2 and os.fork() == 0:
                raise SystemExit(7)

    def is_child() -> bool:
        return os.getpid() != own

    own = os.getpid()
    fitted, weight = trainer()
    try:
        fitted.fit(
            DATA, lambda x: ((weight - x) ** 2).mean(), epochs=2, checkpoints=tmp_path,
            callbacks=[Forks()],
        )  # fmt: skip
    except SystemExit:
        os._exit(0 if is_child() and not list(tmp_path.glob("step*2")) else 1)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    assert [saved.step for saved in Checkpoints(tmp_path).list()] == [3, 6]


def test_a_foreign_loader_that_cannot_go_back_is_named(tmp_path: Path) -> None:
    class Foreign:
        place = 0

        def __iter__(self) -> Iterator[tuple[Any, ...]]:
            while self.place < 4:
                self.place += 1
                yield (np.ones(1, np.float32),)

        def state_dict(self) -> dict[str, int]:
            return {"place": self.place}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.place = state["place"]

    fitted, weight = trainer()
    calls: list[int] = []

    def loss(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise SystemExit
        return ((weight - x) ** 2).mean()

    with pytest.raises(SystemExit) as e:
        fitted.fit(Foreign(), loss, epochs=1, checkpoints=tmp_path, save_every=Every(steps=1))
    assert e.value.__notes__[0].startswith(
        "what was trained since the last checkpoint is not saved: its loader has a place of its own"
    )
    assert Checkpoints(tmp_path).load().step == 2


def test_a_signal_after_the_last_event_is_not_lost() -> None:
    class Last(Callback):
        def on_train_end(self, event: TrainEnd) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    fitted, weight = trainer()
    with pytest.raises(Interrupted) as e:
        fitted.fit(DATA, lambda x: ((weight - x) ** 2).mean(), epochs=1, callbacks=[Last()])
    assert (e.value.code, e.value.step) == (143, 3)


@pytest.mark.parametrize(
    ("moment", "step"),
    [("on_step_end", 2), ("on_checkpoint", 2), ("on_epoch_end", 3), ("on_train_end", 6)],
)
def test_a_signal_in_a_training_of_a_callback_ends_both(
    moment: str, step: int, tmp_path: Path
) -> None:
    """And nothing that either of them has done is lost."""

    def train_another(self: Callback, event: StepEnd) -> None:
        if event.step == step:
            another, weight = trainer()
            another.fit(
                DATA, lambda x: ((weight - x) ** 2).mean(), epochs=1,
                checkpoints=tmp_path / "inner", callbacks=[Send(signal.SIGTERM)],
            )  # fmt: skip

    outer, weight = trainer()
    with pytest.raises(Interrupted) as e:
        outer.fit(
            DATA, lambda x: ((weight - x) ** 2).mean(), epochs=2, checkpoints=tmp_path / "outer",
            save_every=Every(steps=2) if moment == "on_checkpoint" else Every(),
            callbacks=[type("Another", (Callback,), {moment: train_another})()],
        )  # fmt: skip
    assert (e.value.code, e.value.step) == (143, step)
    assert Checkpoints(tmp_path / "outer").load().step == step
    assert Checkpoints(tmp_path / "inner").load().step == 1


def test_a_training_that_leaves_signals_alone_is_ended_by_an_inner_one() -> None:
    def train_another(self: Callback, event: StepEnd) -> None:
        another, weight = trainer()
        another.fit(
            DATA, lambda x: ((weight - x) ** 2).mean(), epochs=1, callbacks=[Send(signal.SIGTERM)]
        )

    outer, weight = trainer()
    with pytest.raises(Interrupted, match="after step 1; not saved"):
        outer.fit(
            DATA, lambda x: ((weight - x) ** 2).mean(), epochs=1, signals=False,
            callbacks=[type("Another", (Callback,), {"on_epoch_end": train_another})()],
        )  # fmt: skip


def test_a_trainer_is_in_one_training_at_a_time() -> None:
    """The mean loss of an epoch would be that of another one's steps."""

    class Again(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            event.run.trainer.fit(DATA, lambda x: ((weight - x) ** 2).mean(), epochs=1)

    fitted, weight = trainer()
    with pytest.raises(CallbackError, match="this trainer is within a fit"):
        fitted.fit(DATA, lambda x: ((weight - x) ** 2).mean(), epochs=1, callbacks=[Again()])
    assert fitted.fit(DATA, lambda x: ((weight - x) ** 2).mean(), epochs=1).steps == 3


def test_a_program_keeps_its_own_use_of_a_signal() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: heard.append(number))
    try:
        fitted, weight = trainer()
        result = fitted.fit(
            DATA, lambda x: ((weight - x) ** 2).mean(), epochs=1, callbacks=[Send(signal.SIGHUP)]
        )
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (result.steps, heard) == (3, [signal.SIGHUP] * 3)


def test_signals_can_be_left_to_the_program() -> None:
    fitted, weight = trainer()
    with pytest.raises(KeyboardInterrupt):
        fitted.fit(
            DATA, lambda x: ((weight - x) ** 2).mean(), epochs=1, signals=False,
            callbacks=[Send(signal.SIGINT)],
        )  # fmt: skip


def test_a_handler_that_a_callback_sets_stays() -> None:
    def handle(number: int, frame: object) -> None: ...

    class Sets(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            signal.signal(signal.SIGUSR1, handle)

    before = signal.getsignal(signal.SIGUSR1)
    weight = Parameter([0.0], name="weight")
    try:
        Trainer(SGD([weight], 0.1)).fit(
            [(np.ones(1, np.float32),)], lambda x: (weight * x).sum(), epochs=1, callbacks=[Sets()]
        )
        assert signal.getsignal(signal.SIGUSR1) is handle
    finally:
        signal.signal(signal.SIGUSR1, before)


class Wraps(Callback):
    """Puts a handler around the current one, as loggers and launchers do."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def on_step_end(self, event: StepEnd) -> None:
        within: Any = signal.getsignal(signal.SIGTERM)

        def handle(number: int, frame: Any) -> None:
            self.heard.append(number)
            within(number, frame)

        signal.signal(signal.SIGTERM, handle)


def test_a_handler_around_that_of_a_training_goes_on_to_the_programs_own() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    wraps, weight = Wraps(), Parameter([0.0], name="weight")
    try:
        Trainer(SGD([weight], 0.1)).fit(
            [(np.ones(1, np.float32),)], lambda x: (weight * x).sum(), epochs=1, callbacks=[wraps]
        )
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert wraps.heard == heard == [signal.SIGTERM] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_child_that_is_forked_in_a_training_obeys_signals(is_wrapped: bool) -> None:
    """Its own process handles them as before the training, which goes on."""
    codes = []

    class Forks(Wraps):
        def on_step_end(self, event: StepEnd) -> None:
            if is_wrapped:
                super().on_step_end(event)
            reading, writing = os.pipe()
            child = os.fork()
            if not child:
                os.write(writing, b"x")  # Python drops what has come before
                time.sleep(20)
                os._exit(0)
            os.read(reading, 1)
            os.kill(child, signal.SIGTERM)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    weight, before = Parameter([0.0], name="weight"), signal.getsignal(signal.SIGTERM)
    try:
        result = Trainer(SGD([weight], 0.1)).fit(
            [(np.ones(1, np.float32),)], lambda x: (weight * x).sum(), epochs=1, callbacks=[Forks()]
        )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (codes, result.reason) == ([-signal.SIGTERM], "epochs")


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


# Sent to the whole group

GROUP: Final = """
import sys, time
import numpy as np
from rumus.optim import SGD
from rumus.tensor import Parameter
from rumus.train import Callback, DataLoader, Trainer

class Slow:
    def __len__(self):
        return 4000
    def __getitem__(self, i):
        time.sleep(0.002)
        return (np.full(2, i, np.float32),)

class Ready(Callback):
    def on_step_end(self, event):
        if event.step == 2:
            print("ready", flush=True)

if __name__ == "__main__":
    weight = Parameter([0.0, 0.0], name="weight")
    loader = DataLoader(Slow(), 4, workers=1, processes=True)
    Trainer(SGD([weight], 1e-6)).fit(
        loader, lambda x: ((weight - x) ** 2).mean(), epochs=9, checkpoints=sys.argv[1],
        callbacks=[Ready()],
    )
"""


def _masks_of_workers(group: int) -> list[int]:
    """The signals that each worker process of a group has blocked, as bits."""
    masks = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_worker = "spawn_main" in (folder / "cmdline").read_text()
            if is_worker and os.getpgid(int(folder.name)) == group:
                status = (folder / "status").read_text()
                masks.append(int(status.split("SigBlk:")[1].split()[0], 16))
    return masks


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the masks in /proc")
def test_worker_processes_are_deaf_from_the_first_on(tmp_path: Path) -> None:
    """Multiprocessing's resource tracker, which starts with the first, unblocks signals."""
    program, folder = tmp_path / "program.py", tmp_path / "checkpoints"
    program.write_text(GROUP)
    command = [sys.executable, str(program), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as it:
        assert it.stdout is not None
        assert it.stdout.readline() == "ready\n"
        masks = _masks_of_workers(it.pid)
        os.killpg(it.pid, signal.SIGTERM)
        it.wait(50)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        assert [mask >> (number - 1) & 1 for mask in masks] == [1]
    assert it.returncode == 143
    assert Checkpoints(folder).latest is not None


def test_a_handler_in_c_is_left_alone() -> None:
    """Python says of it that the signal has its default effect."""
    program = """
import faulthandler, os, signal, sys
from rumus.optim import SGD
from rumus.tensor import Parameter
from rumus.train import Trainer

faulthandler.register(signal.SIGUSR1, file=sys.stdout)
weight = Parameter([0.0], name="weight")

def loss():
    os.kill(os.getpid(), signal.SIGUSR1)
    return (weight * weight).sum()

result = Trainer(SGD([weight], 0.1)).fit([()] * 2, loss, epochs=1)
os.kill(os.getpid(), signal.SIGUSR1)
print(result.steps)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("most recent call first") == 3
    assert done.stdout.endswith("2\n")
