"""Other programs' views of a run: TensorBoard's reader, rich, Matplotlib."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus.optim import SGD
from rumus.tensor import Parameter
from rumus.train import LiveView, RunFolder, RunFolderError, Trainer, plot_runs, read_metrics
from rumus.train.views.live_panel import PanelView
from rumus.train.views.live_view import view_for
from rumus.train.views.tensorboard_file import TensorBoardFile

BATCHES = [(np.full((4, 2), value, np.float32),) for value in (1.0, 2.0, 3.0, 4.0)]


def fit(folder: RunFolder, *callbacks: Any, lr: float = 0.1, **options: Any) -> None:
    weight = Parameter(np.zeros(2, np.float32), name="weight")
    Trainer(SGD([weight], lr)).fit(
        BATCHES, lambda x: ((weight - x) ** 2).mean(), callbacks=[folder, *callbacks],
        validate=lambda: {"loss": float(weight.numpy().sum())}, checkpoints=folder.checkpoints,
        **options,
    )  # fmt: skip


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read a folder as TensorBoard does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from its own imports
        from tensorboard.backend.event_processing import event_accumulator
    reader = event_accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {
        tag: [(each.step, each.value) for each in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def test_tensorboard_reads_the_files(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    fit(folder, epochs=2)
    found = scalars(tmp_path)
    lines = [line for line in read_metrics(folder.metrics) if line["split"] == "train"]
    for name in ("loss", "lr", "grad_norm"):
        expected = [(line["step"], float(np.float32(line[name]))) for line in lines]
        assert found[f"train/{name}"] == expected
    assert [step for step, _ in found["validation/loss"]] == [4, 8]
    assert [step for step, _ in found["epoch/loss"]] == [4, 8]


def test_tensorboard_sees_no_step_twice_after_a_resume(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    fit(folder, epochs=3)
    last = folder.checkpoints / "step-00000008"
    fit(RunFolder(tmp_path), epochs=4, resume=last)
    found = scalars(tmp_path)
    assert [step for step, _ in found["train/loss"]] == list(range(1, 17))
    assert [step for step, _ in found["validation/loss"]] == [4, 8, 12, 16]


def test_tensorboard_reads_any_number(tmp_path: Path) -> None:
    rows = [
        (1.5, 0, {"a": 1e300, "größe/b": -1e300}),
        (2.5, 2**40, {"a": float("nan"), "größe/b": 1e-40}),
    ]
    file = TensorBoardFile(tmp_path)
    assert file.append(rows)
    file.close()
    found = scalars(tmp_path)
    assert [step for step, _ in found["a"]] == [0, 2**40]
    assert found["a"][0][1] == np.inf
    assert np.isnan(found["a"][1][1])
    assert found["größe/b"] == [(0, -np.inf), (2**40, float(np.float32(1e-40)))]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def shown_on_a_terminal(path: Path) -> str:
    stream = Terminal()
    fit(RunFolder(path, report=False), LiveView(stream), epochs=2)
    return stream.getvalue()


def test_a_panel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("rumus.train.views.live_panel.PanelView.interval", 0.0)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert isinstance(view_for(Terminal(), 10.0), PanelView)
    colored = shown_on_a_terminal(tmp_path / "a")
    assert "\x1b[38;5;" in colored
    monkeypatch.setenv("NO_COLOR", "1")
    plain = shown_on_a_terminal(tmp_path / "b")
    assert not re.search(r"\x1b\[[\d;]*3\d[;m]", plain)
    for shown in (colored, plain):
        text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)
        for part in (
            "epoch 2/2  step 8/8", "100%", "loss", "samples/s", "lr", "0.1", "gradient norm",
            "device", "CPU", "validation", "best", "checkpoint", "step 8", "ended after 8 steps",
        ):  # fmt: skip
            assert part in text
        assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # cursor restored


def test_plot_runs(tmp_path: Path) -> None:
    from PIL import Image

    for name, lr in (("slow", 0.01), ("fast", 0.2)):
        fit(RunFolder(tmp_path / name, report=False), lr=lr, epochs=3)
    fit(RunFolder(tmp_path / "short", report=False), epochs=1)
    runs = [tmp_path / name for name in ("slow", "fast", "short")]
    picture = plot_runs(runs, tmp_path / "runs.png")
    with Image.open(picture) as image:
        assert min(image.size) > 400
        assert np.asarray(image.convert("L")).std() > 10
    assert plot_runs(runs[:1], tmp_path / "runs.svg").read_bytes().rstrip().endswith(b"</svg>")


def test_plot_runs_of_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        plot_runs([], tmp_path / "a.png")
    with pytest.raises(RunFolderError, match="not a run folder"):
        plot_runs([tmp_path], tmp_path / "a.png")
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="no measurements"):
        plot_runs([tmp_path], tmp_path / "a.png")
