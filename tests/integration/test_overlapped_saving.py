"""A checkpoint from a GPU that is read and written while training continues."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus import nn
from rumus.gpu import GpuBackend, GpuError, OutOfMemoryError
from rumus.gpu.device.late_download import read_beside
from rumus.optim import EMA, AdamW, Muon, Optimizer
from rumus.tensor import Generator, NonFiniteGradientError, gpu_backend
from rumus.tensor.memory.late_array import LateArray, copying_late
from rumus.train import (
    ArrayDataset,
    Callback,
    Checkpoints,
    DataLoader,
    Every,
    Interrupted,
    StepEnd,
    Trainer,
)
from rumus.train.checkpoints.snapshot import average_of, parts_of_model, take
from rumus.train.checkpoints.state_tree import arrived, split

OPTIMIZERS: Any = {
    "average": lambda p: AdamW(p, 1e-2, average=EMA(0.9)),
    "masters": lambda p: AdamW(p, 1e-2, master_weights=True),
    "8 bits": lambda p: AdamW(p, 1e-2, state_dtype="8bit"),
    "muon": lambda p: Muon(p, 1e-2),
}


@pytest.fixture
def gpu() -> GpuBackend:
    return gpu_backend()  # type: ignore[return-value]


def trained(how: str) -> tuple[Trainer[Any], nn.Module]:
    random = Generator(3)
    model = nn.Sequential(
        nn.Linear(12, 512, generator=random), nn.ReLU(), nn.Dropout(0.2, generator=random),
        nn.Linear(512, 4, generator=random),
    )  # fmt: skip
    model.to_gpu()
    if how == "masters":
        model.half()
    optimizer: Optimizer[Any] = OPTIMIZERS[how](model.parameters())
    return Trainer(optimizer, state={"model": model}), model


def batch(number: int, dtype: Any = np.float32) -> tuple[NDArray[Any], NDArray[Any]]:
    draw = np.random.default_rng(number)
    x = draw.normal(size=(16, 12)).astype(dtype)
    return x, draw.integers(0, 4, 16).astype(np.int32)


def bits(tree: Any) -> dict[str, Any]:
    """The arrays of a state, by their names."""
    arrays, rest = split(tree)
    found = arrived(arrays)
    named = {f"{key}/{n}": a for key, group in found.items() for n, a in group.items()}
    return {n: (a.dtype, a.shape, a.tobytes()) for n, a in named.items()} | {"rest": rest}


@pytest.mark.parametrize("how", OPTIMIZERS)
def test_a_late_copy_is_that_of_its_step(how: str, gpu: GpuBackend) -> None:
    trainer, model = trained(how)

    def loss(x: Any, y: Any) -> Any:
        return nn.cross_entropy_loss(model(x), y)

    dtype = np.float16 if how == "masters" else np.float32
    for number in range(4):
        trainer.train_step(loss, *batch(number, dtype))
    parts = parts_of_model(trainer.optimizer, trainer.state)
    wanted = bits({**take(parts), **average_of(trainer.optimizer, parts)})
    used = gpu.memory_stats().used
    with copying_late():
        tree = {**take(parts), **average_of(trainer.optimizer, parts)}
    assert isinstance(tree["model"]["0.weight"], LateArray)
    read = gpu.stats.bytes_down
    for number in range(4, 7):
        trainer.train_step(loss, *batch(number, dtype))
    assert bits(tree) == wanted
    assert gpu.stats.bytes_down == read  # nobody waited on this thread
    assert bits(take(parts))["model/0.weight"] != wanted["model/0.weight"]
    del tree
    assert gpu.memory_stats().used <= used + 2**16  # the copies have been released


def run(
    folder: Path, *, asynchronous: bool, callbacks: Sequence[Callback] = ()
) -> dict[str, bytes]:
    """Train, and return the bytes of all arrays in all checkpoints."""
    trainer, model = trained("average")
    data = ArrayDataset(*(np.concatenate(a) for a in zip(*map(batch, range(6)), strict=True)))
    trainer.fit(
        DataLoader(data, 16, shuffle=True, seed=1),
        lambda x, y: nn.cross_entropy_loss(model(x), y),
        epochs=3,
        checkpoints=Checkpoints(folder, keep_last=9, asynchronous=asynchronous, on_error="raise"),
        save_every=Every(steps=4),
        callbacks=callbacks,
        progress=None,
    )
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")
    }


def test_an_overlapped_save_has_the_bytes_of_a_blocking_one(tmp_path: Path) -> None:
    blocking = run(tmp_path / "blocking", asynchronous=False)
    overlapped = run(tmp_path / "overlapped", asynchronous=True)
    assert len({Path(name).parent for name in blocking}) == 5
    assert overlapped == blocking
    for step in Checkpoints(tmp_path / "overlapped").list():
        Checkpoints(tmp_path / "overlapped").verify(step.path)


def test_a_signal_during_an_overlapped_save_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The running save is finished, and so is that of the step at which the run ends."""
    began, sent = threading.Event(), threading.Event()

    def late(*arguments: Any) -> Any:
        began.set()
        assert sent.wait(60)
        return read_beside(*arguments)

    class Send(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            if event.step == 6:
                assert began.wait(60)  # the save of step 4 has not read anything yet
                os.kill(os.getpid(), signal.SIGTERM)
                sent.set()

    monkeypatch.setattr("rumus.gpu.backend.read_beside", late)
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", asynchronous=True, callbacks=[Send()])
    wanted = run(tmp_path / "whole", asynchronous=False)
    found = Checkpoints(tmp_path / "stopped")
    assert [saved.step for saved in found.list()] == [4, 6]
    for saved in found.list():
        assert found.verify(saved.path).problem is None
    path = "step-00000004/model.safetensors"
    assert (tmp_path / "stopped" / path).read_bytes() == wanted[path]


def test_large_arrays_come_in_pieces_beside_other_work(
    gpu: GpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rumus.gpu.device.late_download.PIECE", 4096)
    host = np.random.default_rng(0).normal(size=12_345).astype(np.float32)
    array = gpu.upload(host)
    late = gpu.snapshot(array)
    assert late is not None
    found: list[Any] = []
    reader = threading.Thread(target=lambda: found.append(late.known()))
    reader.start()
    for value in range(200):
        gpu.fill(float(value), array)
    reader.join()
    assert found[0].tobytes() == host.tobytes()
    assert late.known() is found[0]


def test_a_failed_read_is_raised_by_the_next_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise GpuError("the cable is out")

    trainer, _ = trained("average")
    parts = parts_of_model(trainer.optimizer, trainer.state)
    checkpoints = Checkpoints(tmp_path, asynchronous=True)
    checkpoints.save(1, take(parts))
    assert checkpoints.latest == 1
    with monkeypatch.context() as patch, copying_late():
        patch.setattr("rumus.gpu.backend.read_beside", broken)
        checkpoints.save(2, take(parts))
        with pytest.raises(GpuError, match="the cable is out"):
            checkpoints.save(3, take(parts))
        checkpoints.save(3, {"model": {}})
        assert checkpoints.latest == 3
        checkpoints.save(4, take(parts))
        with pytest.raises(GpuError, match="the cable is out"):
            checkpoints.close()
    assert [saved.step for saved in Checkpoints(tmp_path).list()] == [1, 3]


def test_without_room_it_is_read_at_once(gpu: GpuBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    _trainer, model = trained("average")
    wanted = {name: value.tobytes() for name, value in model.state_dict().items()}

    def full(*_: Any) -> Any:
        raise OutOfMemoryError("full")

    monkeypatch.setattr(gpu, "allocate", full)
    with copying_late():
        found = model.state_dict()
    assert all(type(value) is np.ndarray for value in found.values())
    assert {name: value.tobytes() for name, value in found.items()} == wanted


def test_a_refused_step_is_reported_by_the_save(tmp_path: Path) -> None:
    trainer, model = trained("average")
    x, y = batch(0)
    trainer.train_step(lambda x, y: nn.cross_entropy_loss(model(x), y), x * np.nan, y)
    with pytest.raises(NonFiniteGradientError), copying_late():
        take(parts_of_model(trainer.optimizer, trainer.state))
