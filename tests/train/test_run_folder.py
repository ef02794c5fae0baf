"""`RunFolder`: what it keeps of a training, over resumes, full disks and other runs."""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import tomllib
import warnings
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rumus.optim import SGD
from rumus.tensor import Backend, NonFiniteGradientError, Parameter, Tensor
from rumus.train import (
    Callback,
    CallbackError,
    Checkpoints,
    Every,
    Failed,
    FolderInUseError,
    Interrupted,
    Result,
    RunFolder,
    RunFolderError,
    RunFolderWarning,
    StepEnd,
    TrainEnd,
    Trainer,
    ValidationEnd,
    read_metrics,
    write_report,
)
from rumus.train.base.append_file import AppendFile
from rumus.train.views.metrics_file import open_metrics
from rumus.train.views.tensorboard_file import masked_crc32c

DATA = [(np.full((2, 3), value, np.float32),) for value in (1.0, 2.0, 3.0)]


class Model:
    def __init__(self) -> None:
        self.weight = Parameter(np.zeros(3, np.float32), name="weight")
        self.trainer = Trainer(SGD([self.weight], 0.05, momentum=0.5))

    def loss(self, x: Tensor) -> Tensor:
        return ((self.weight - x) ** 2).mean()

    def fit(self, *callbacks: Callback, **options: Any) -> Result:
        options.setdefault("validate", lambda: {"loss": 0.5, "accuracy": 0.75})
        return self.trainer.fit(DATA, self.loss, callbacks=callbacks, **options)


def lines(folder: RunFolder, split: str) -> list[dict[str, Any]]:
    return [line for line in read_metrics(folder.metrics) if line["split"] == split]


def steps(folder: RunFolder, split: str = "train") -> list[int]:
    return [line["step"] for line in lines(folder, split)]


def test_the_kept_files(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", config={"optim": {"lr": 0.05}}, seed=7)

    class Watch(Callback):
        seen: list[tuple[float, float]] = []  # noqa: RUF012

        def on_step_end(self, event: StepEnd) -> None:
            norm = event.gradient_norm()
            assert norm is not None
            self.seen.append((float(event.loss), float(norm)))

    Model().fit(folder, Watch(), epochs=2, checkpoints=folder.checkpoints)
    train = lines(folder, "train")
    assert [(line["loss"], line["grad_norm"]) for line in train] == Watch.seen
    assert [line["step"] for line in train] == [1, 2, 3, 4, 5, 6]
    assert {(line["v"], line["lr"]) for line in train} == {(1, 0.05)}
    assert [line["metrics"] for line in lines(folder, "validation")] == [
        {"loss": 0.5, "accuracy": 0.75}
    ] * 2
    assert steps(folder, "epoch") == steps(folder, "checkpoint") == [3, 6]
    assert tomllib.loads((folder.path / "config.toml").read_text()) == {"optim": {"lr": 0.05}}
    env = json.loads((folder.path / "env.json").read_text())["starts"]
    assert [(start["seed"], start["device"][:3]) for start in env] == [(7, "CPU")]
    done = json.loads((folder.path / "DONE").read_text())
    assert done == {"reason": "epochs", "epoch": 2, "step": 6}
    names = {path.name.partition(".out")[0] for path in folder.path.iterdir()}
    assert names == {
        "DONE", "checkpoints", "config.toml", "env.json", "events", "lock", "metrics.jsonl",
        "report.html",
    }  # fmt: skip


def test_a_resume_writes_no_step_twice(tmp_path: Path) -> None:
    whole = RunFolder(tmp_path / "whole")
    Model().fit(whole, epochs=3, checkpoints=whole.checkpoints)
    for stop in (1, 3, 5, 6):
        folder = RunFolder(tmp_path / f"run{stop}")
        told: Any = pytest.warns(UserWarning, match="after 1 steps, so that it never validates")
        with told if stop == 1 else nullcontext():
            Model().fit(
                folder, steps=stop, checkpoints=folder.checkpoints, save_every=Every(steps=2)
            )
        with folder.metrics.open("ab") as file:  # for steps whose checkpoint was lost, and torn
            file.write(b'{"split":"train","epoch":0,"step":%d,"loss":1.0}\n' % (stop + 1))
            file.write(b'{"split":"train","epoch":0,"st')
        again = RunFolder(folder.path)
        Model().fit(again, epochs=3, checkpoints=folder.checkpoints, resume=True)
        for split in ("train", "validation", "epoch"):
            assert steps(again, split) == steps(whole, split), (stop, split)
        losses = [[line["loss"] for line in lines(each, "train")] for each in (again, whole)]
        assert losses[0] == losses[1]
        assert len(json.loads((folder.path / "env.json").read_text())["starts"]) == 2


def test_a_resume_from_an_older_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    Model().fit(folder, epochs=4, checkpoints=folder.checkpoints)
    resumed = RunFolder(tmp_path)
    Model().fit(
        resumed, epochs=4, checkpoints=folder.checkpoints,
        resume=folder.checkpoints / "step-00000006",
    )  # fmt: skip
    assert steps(resumed) == list(range(1, 13))
    assert steps(resumed, "epoch") == [3, 6, 9, 12]


def test_a_validation_that_was_cut_short_is_there_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def validate() -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"loss": 1.0}

    folder = RunFolder(tmp_path)
    with pytest.raises(Interrupted):
        Model().fit(folder, epochs=3, validate=validate, checkpoints=folder.checkpoints)
    assert not (tmp_path / "DONE").exists()
    assert lines(folder, "end")[-1]["reason"] == "SIGTERM"
    again = RunFolder(tmp_path)
    Model().fit(again, epochs=3, validate=validate, checkpoints=folder.checkpoints, resume="auto")
    assert steps(again, "validation") == steps(again, "epoch") == [3, 6, 9]
    assert (tmp_path / "DONE").exists()


def test_other_runs_are_refused(tmp_path: Path) -> None:
    def refused(path: Path, match: str, **options: Any) -> None:
        before = (path / "metrics.jsonl").read_bytes()
        config = options.pop("config", {"lr": 1})
        with pytest.raises(CallbackError, match=match) as caught:
            Model().fit(RunFolder(path, config=config), epochs=1, **options)
        assert isinstance(caught.value.__cause__, RunFolderError)
        assert (path / "metrics.jsonl").read_bytes() == before

    first, second = RunFolder(tmp_path / "a", config={"lr": 1}), RunFolder(tmp_path / "b")
    Model().fit(first, epochs=1, checkpoints=first.checkpoints)
    Model().fit(second, epochs=1, checkpoints=second.checkpoints)
    refused(first.path, "complete run")
    (first.path / "DONE").unlink()
    refused(first.path, "another configuration .of lr.", config={"lr": 2})
    refused(second.path, "a different run", checkpoints=first.checkpoints, resume=True)
    # A run that was killed before its first checkpoint starts over.
    again = RunFolder(first.path, config={"lr": 1})
    Model().fit(again, steps=1, validate=None)
    assert steps(again) == [1]


def test_one_writer(tmp_path: Path) -> None:
    first = RunFolder(tmp_path)
    first.prepare()
    with pytest.raises(FolderInUseError):
        RunFolder(tmp_path).prepare()


def test_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = RunFolder(tmp_path / "file" / "run")
    with pytest.raises(RunFolderError, match=r"run folder .* cannot be written"):
        folder.prepare()
    model = Model()
    with pytest.raises(CallbackError, match="cannot be written"):
        model.fit(folder, epochs=1)
    assert model.weight.tolist() == [0.0] * 3


def test_a_full_disk_is_reported_once_and_training_continues(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, tensorboard=False, report=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Fill(Callback):
        """Makes a file unable to grow during the second of three epochs."""

        order = -1

        def on_validation_end(self, event: ValidationEnd) -> None:
            room = folder.metrics.stat().st_size + 20  # a piece fits
            limits = {3: (room, hard), 6: (soft, hard)}
            resource.setrlimit(resource.RLIMIT_FSIZE, limits.get(event.step, (soft, hard)))

    try:
        with pytest.warns(RunFolderWarning, match=r"metrics.jsonl cannot be written") as said:
            result = Model().fit(folder, Fill(), epochs=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (result.steps, len(said)) == (9, 1)
    text = folder.metrics.read_bytes()
    assert [json.loads(line)["step"] for line in text.splitlines()]
    assert text.endswith(b"\n")
    assert steps(folder)[-3:] == [7, 8, 9]


def test_an_error_is_written_down(tmp_path: Path) -> None:
    class Break(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            if event.step == 2:
                raise ValueError("<out of luck>")

    folder = RunFolder(tmp_path)
    with pytest.raises(CallbackError):
        Model().fit(folder, Break(), epochs=1)
    (end,) = lines(folder, "end")
    assert end["reason"] == "error"
    assert "<out of luck>" in end["error"]
    assert "&lt;out of luck&gt;" in (tmp_path / "report.html").read_text()
    assert steps(folder) == [1]


def test_log_every(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, log_every=Every(steps=4), report=False)
    Model().fit(folder, epochs=5)
    assert steps(folder) == [1, 4, 8, 12]


def test_long_runs_have_few_lines(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    step, count = 0.0, 0
    while step < 1e9:
        step = folder._after(int(step), 0.0)[0]
        count += 1
    assert 250 < count < 3500


def test_a_device_is_read_when_it_is_due_only(backend: Backend, tmp_path: Path) -> None:
    weight = Parameter(np.ones(3, np.float32), name="weight", backend=backend)
    folder = RunFolder(tmp_path, report=False)
    read: list[int] = []

    class Count(Callback):
        order = 20

        def on_step_end(self, event: StepEnd) -> None:
            if event.step == 1:
                folder._flushed += 1e6  # in this test nothing is due by the clock
            stats = getattr(backend, "stats", None)
            read.append(0 if stats is None else stats.bytes_down)

    data = [(np.full(3, value, np.float32),) for value in range(8)]
    trainer = Trainer(SGD([weight], 0.125))
    trainer.fit(data, lambda x: ((weight - x) ** 2).mean(), epochs=1, callbacks=[folder, Count()])
    assert len(set(read)) == 1
    assert len(lines(folder, "train")) == 8


def test_a_gradient_that_is_not_finite(backend: Backend, tmp_path: Path) -> None:
    weight = Parameter(np.ones(2, np.float32), name="weight", backend=backend)
    data = [(np.array([1, value], np.float32),) for value in (1, 2, np.inf, 4)]
    folder = RunFolder(tmp_path, report=False)
    trainer = Trainer(SGD([weight], 0.125))
    with pytest.raises(NonFiniteGradientError):
        trainer.fit(data, lambda x: (weight * x).sum(), epochs=1, callbacks=[folder])
    assert steps(folder)[:2] == [1, 2]
    assert lines(folder, "end")[0]["reason"] == "error"


def test_numbers_that_json_lacks(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    Model().fit(folder, epochs=1, validate=lambda: {"a": np.inf, "b": float("nan")})
    (found,) = lines(folder, "validation")
    assert found["metrics"] == {"a": "inf", "b": "nan"}


@given(st.lists(st.binary(max_size=40), max_size=5), st.integers(0, 200))
def test_damaged_lines_are_left_out(parts: list[bytes], cut: int) -> None:
    import tempfile

    good = b'{"step":1}\n'
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "metrics.jsonl"
        rubbish = b"\n".join(part.replace(b"{", b"") for part in parts)
        path.write_bytes((rubbish + b"\n" + good + good)[: len(rubbish) + 1 + cut])
        whole = min(cut // len(good), 2)
        damaged = [n for n, line in enumerate(rubbish.split(b"\n"), 1) if line.strip()]
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            assert list(read_metrics(path)) == [{"step": 1}] * whole
        said = [str(each.message).rpartition(": ")[2] for each in heard]
        wanted = ", ".join(map(str, damaged[:10])) + (", ..." if len(damaged) > 10 else "")
        assert said == ([wanted] if damaged else [])


def test_an_append_file_that_is_closed(tmp_path: Path) -> None:
    file = AppendFile(tmp_path / "a")
    assert file.append(b"one")
    file.close()
    assert not file.append(b"two")
    assert (tmp_path / "a").read_bytes() == b"one"


def test_the_records_of_an_event_file_carry_their_checksums(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    Model().fit(folder, epochs=1)
    (path,) = tmp_path.glob("events.out.tfevents.*")
    data, count = path.read_bytes(), 0
    while data:
        (length,) = struct.unpack_from("<Q", data)
        event = data[12 : 12 + length]
        checks = struct.unpack_from("<I", data, 8) + struct.unpack_from("<I", data, 12 + length)
        assert checks == (masked_crc32c(data[:8]), masked_crc32c(event))
        data, count = data[16 + length :], count + 1
    assert count == 1 + 3 + 1 + 1  # the version, steps, a validation, an epoch


@pytest.mark.parametrize(
    "odd",
    [
        '{"split":"epoch","step":1,"epoch":null}',
        '{"split":"epoch","step":1,"loss":"abc"}',
        '{"split":"train","step":1,"loss":1e999}',
        '{"split":"train","step":1,"loss":' + "9" * 4000 + "}",
        '{"split":"validation","step":1,"best":true,"metrics":[1]}',
        '{"split":"end","reason":5}',
        '{"split":"epoch","step":1,"spans":{"data":[]}}',
        '{"split":["epoch"],"step":true}',
        "[" * 100_000,
    ],
)
def test_an_odd_line_ends_no_training(tmp_path: Path, odd: str) -> None:
    """Neither on resume, nor at the end, when the report is written."""
    model = Model()
    model.fit(RunFolder(tmp_path), epochs=1, checkpoints=tmp_path / "checkpoints")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(odd + "\n")
    before = (tmp_path / "metrics.jsonl").read_text().splitlines()
    told = f"1 line is damaged and skipped: {len(before)}$"
    with pytest.warns(RunFolderWarning, match=told) as heard:
        write_report(tmp_path)
    assert len(heard) == 1
    with pytest.warns(RunFolderWarning, match="1 line is damaged and skipped: ") as heard:
        Model().fit(
            RunFolder(tmp_path), epochs=2, checkpoints=tmp_path / "checkpoints", resume="auto"
        )
    assert len(heard) == 1
    assert (tmp_path / "DONE").exists()
    with pytest.warns(RunFolderWarning):
        found = list(read_metrics(tmp_path / "metrics.jsonl"))
    assert [line["reason"] for line in found if line["split"] == "end"][-1] == "epochs"
    assert odd in (tmp_path / "metrics.jsonl").read_text().splitlines()  # for whoever can read it


def test_damaged_lines_stay_where_they_are(tmp_path: Path) -> None:
    """Unless the run starts again; a torn end goes, as what follows would be damaged by it."""
    good = [b'{"split":"train","step":%d}\n' % step for step in range(4)]
    odd = [b"\xff\x00\n", b'{"step":"one"}\n', b"x" * (1 << 20) + b'{"step":1}\n', b"\n"]
    path = tmp_path / "metrics.jsonl"
    for torn in (b"", b'{"step"', b"y" * (1 << 20), b"z" * (5 << 18)):
        whole = [line for pair in zip(good, odd, strict=True) for line in pair]
        path.write_bytes(b"".join(whole) + torn)
        with pytest.warns(RunFolderWarning, match="3 lines are damaged and skipped: 2, 4, 6$"):
            assert [line["step"] for line in read_metrics(path)] == [0, 1, 2, 3]
        open_metrics(path, lambda line: line.get("step", 0) < 2).close()
        assert path.read_bytes() == b"".join([*whole[:4], odd[2], odd[3]])
        open_metrics(path, lambda line: False).close()
        assert path.read_bytes() == b""


def test_many_damaged_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"[]\n" * 50_000)
    with pytest.warns(RunFolderWarning, match=r"50000 lines are damaged and skipped: 1, 2, .*10, "):
        assert not list(read_metrics(path))


def test_a_report_that_fails_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("no such curve")

    monkeypatch.setattr("rumus.train.views.report.write_report", fail)
    with pytest.warns(RunFolderWarning, match=r"report\.html was not written: 'no such curve'"):
        Model().fit(RunFolder(tmp_path), epochs=1)
    assert (tmp_path / "DONE").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no process")
def test_a_forked_child_writes_nothing(tmp_path: Path) -> None:
    """Such as one of a callback that raises, or goes on with the training."""

    class Forks(Callback):
        order = 1000

        def on_step_end(self, event: StepEnd) -> None:
            if event.step != 2:
                return
            child = os.fork()
            if not child:
                with suppress(BaseException):
                    folder.on_step_end(event)
                    folder.on_error(Failed(event.run, 0, 2, ValueError("of the child")))
                    folder.on_train_end(TrainEnd(event.run, 0, 2, "epochs", 0.0))
                os._exit(0)
            os.waitpid(child, 0)
            assert {path.name for path in tmp_path.iterdir()}.isdisjoint({"DONE", "report.html"})

    folder = RunFolder(tmp_path)
    Model().fit(folder, Forks(), epochs=1)
    assert [(line["split"], line["step"]) for line in read_metrics(folder.metrics)] == [
        ("start", 0), ("train", 1), ("train", 2), ("train", 3), ("validation", 3), ("epoch", 3),
        ("end", 3),
    ]  # fmt: skip


def test_a_program_that_changes_its_folder_keeps_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Changes(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            os.chdir(tmp_path / "other")

    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    folder = RunFolder("run")
    Model().fit(folder, Changes(), epochs=1, checkpoints="saved")
    assert [path.name for path in (tmp_path / "other").iterdir()] == []
    assert (tmp_path / "run" / "DONE").exists()
    assert Checkpoints(tmp_path / "saved").load().step == 3


def test_a_pipe_in_the_place_of_a_temporary_file_stops_nothing(tmp_path: Path) -> None:
    """Opening it would wait for a reader, for ever."""
    Model().fit(RunFolder(tmp_path), epochs=1, checkpoints=tmp_path / "checkpoints")
    for name in ("metrics.jsonl", "config.toml", "env.json", "DONE", "report.html"):
        os.mkfifo(tmp_path / f"{name}.tmp")
    Model().fit(RunFolder(tmp_path), epochs=2, checkpoints=tmp_path / "checkpoints", resume=True)
    assert json.loads((tmp_path / "DONE").read_text())["epoch"] == 2
    assert not list(tmp_path.glob("*.tmp"))
