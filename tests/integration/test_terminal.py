"""Names from users never reach a terminal raw: a terminal obeys escape sequences.

Names of metrics, parameters, classes, columns, folders and callbacks hold an escape sequence, a
bell, a C1 control character, and one that changes the writing direction.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from rumus import nn
from rumus.optim import SGD
from rumus.optim.files.state_file import load_state
from rumus.tensor import GradientStore, Parameter
from rumus.train import (
    Callback,
    Checkpoints,
    CsvDataset,
    EarlyStopping,
    ImageFolder,
    LiveView,
    NpyDataset,
    RunFolder,
    StepEnd,
    Trainer,
    load_configuration,
)
from rumus.train.command_line.main import main

EVIL: Final = "\x1b[31mX\x07\x9b2J\u202e"
X: Final = np.ones((8, 3), np.float32)
Act = Callable[[Path], object]


@dataclass
class Options:
    """A configuration."""

    width: int = 1


def parameter(name: str = "w") -> Parameter:
    return Parameter([1.0], name=name + EVIL)


def fit(**options: Any) -> Any:
    layer = nn.Linear(3, 1)
    trainer = Trainer(SGD(layer.parameters(), 0.01), state={"layer": layer})
    return trainer.fit([(X,)] * 3, lambda x: (layer(x) ** 2).mean(), epochs=2, **options)


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def live_view(folder: Path) -> str:
    class Stops(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            event.run.stop(EVIL)

    stream = io.StringIO()
    metrics = lambda: {"loss": 1.0, "accuracy" + EVIL: 2.0}
    fit(validate=metrics, callbacks=[LiveView(stream)])
    fit(callbacks=[Stops(), LiveView(stream)])
    return stream.getvalue()


def raising_callback(folder: Path) -> object:
    class Raises(Callback):
        def on_step_end(self, event: StepEnd) -> None:
            raise ValueError(EVIL)

    Raises.__name__ = Raises.__qualname__ = f"Raises{EVIL}"
    return fit(callbacks=[Raises()])


def damaged_checkpoint(folder: Path) -> object:
    path = Checkpoints(folder / "c").save(1, {"a": {"x": np.ones(2)}})
    assert path is not None
    (path / "state.json").write_text("z")
    return Checkpoints(folder / "c").load()


def folder_in_use(folder: Path) -> None:
    first, second = Checkpoints(folder / "c"), Checkpoints(folder / "c")
    first.acquire()
    try:
        second.acquire()
    finally:
        first.close()


def run_folder_again(folder: Path) -> object:
    fit(callbacks=[RunFolder(folder / "run")])
    return fit(callbacks=[RunFolder(folder / "run")])


def unclaimed(folder: Path) -> object:
    trainer = Trainer(SGD([parameter()], 0.1))
    return trainer.train_step(lambda: parameter("q").sum())


def missing(folder: Path) -> None:
    SGD([parameter()], 0.1).step(GradientStore())


def claimed_twice(folder: Path) -> object:
    p = parameter()
    first = SGD([p], 0.1)
    return first, SGD([p], 0.1)


def image_of_a_class(folder: Path) -> object:
    (folder / "images" / EVIL).mkdir(parents=True)
    written(folder / "images" / EVIL, "x.png", b"no")
    return ImageFolder(folder / "images", classes=["a" + EVIL])


def image_damaged(folder: Path) -> object:
    (folder / "images" / EVIL).mkdir(parents=True)
    written(folder / "images" / EVIL, "x.png", b"\x89PNG\r\n\x1a\n")
    return ImageFolder(folder / "images")[0]


def csv(content: str, **options: Any) -> Act:
    return lambda folder: CsvDataset(written(folder, "t.csv", content.encode()), **options)[0]


def command(*arguments: str) -> Act:
    return lambda folder: main([each.replace("DIR", str(folder)) for each in arguments])


def state_of_another(folder: Path) -> None:
    optimizer = SGD([Parameter([1.0], name="w")], 0.1)
    optimizer.load_state_dict({**optimizer.state_dict(), "kind": EVIL})


ACTS: Final[dict[str, Act]] = {
    "live view": live_view,
    "metric that is missing": lambda f: fit(
        validate=lambda: {"a" + EVIL: 1.0}, monitor="loss", checkpoints=f / "c"
    ),
    "early stopping": lambda f: fit(
        validate=lambda: {"loss": 1.0}, callbacks=[EarlyStopping(EVIL, mode="min")]
    ),
    "nothing to resume": lambda f: fit(checkpoints=f / "c", resume=True),
    "callback": raising_callback,
    "damaged checkpoint": damaged_checkpoint,
    "folder in use": folder_in_use,
    "run folder again": run_folder_again,
    "run folder is a file": lambda f: fit(callbacks=[RunFolder(written(f, "x", b""))]),
    "table of an optimizer": lambda f: SGD([parameter()], 0.1).describe(),
    "claimed twice": claimed_twice,
    "unclaimed": unclaimed,
    "missing": missing,
    "not finite": lambda f: (lambda p: SGD([p], 0.1).step((p * np.nan).sum().backward()))(
        parameter()
    ),
    "state of another model": lambda f: nn.Linear(2, 2).load_state_dict(
        {EVIL: np.ones(2, np.float32)}
    ),
    "state of another optimizer": state_of_another,
    "damaged state": lambda f: load_state(SGD([Parameter([1.0])], 0.1), written(f, "s", b"z" * 40)),
    "damaged weights": lambda f: nn.Linear(2, 2).load_file(written(f, "s.safetensors", b"z" * 40)),
    "a model": lambda f: nn.ModuleDict({EVIL: nn.Linear(2, 2)}),
    "a store": lambda f: parameter().sum().backward(),
    "a parameter": lambda f: parameter(),
    "csv column": csv(f"a{EVIL},b\n1,2\n", target="c" + EVIL),
    "csv cell": csv(f"a,b\n1{EVIL},2\n"),
    "csv class": csv(f"a,b\n1,{EVIL}\n", target="b", target_dtype=str, classes=["c" + EVIL]),
    "npy": lambda f: NpyDataset(written(f, "x.npy", b"zzz")),
    "image of a class": image_of_a_class,
    "image": image_damaged,
    "toml": lambda f: load_configuration(Options, written(f, "c.toml", b"= 1")),
    "toml key": lambda f: load_configuration(Options, written(f, "c.toml", b'"a\\u001b[2J" = 1')),
    "script that is not there": command("train", "DIR/no.py"),
    "argument that is unknown": command("ckpt", "ls", "DIR", "--" + EVIL),
    "command that is unknown": command(EVIL),
    "checkpoints": command("ckpt", "ls", "DIR/c"),
    "report": command("report", "DIR/run"),
    "picture": command("plot", "DIR/none"),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTS)
def test_no_escape_sequence(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / EVIL
    folder.mkdir()
    said = []
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            said.append(str(ACTS[name](folder)))
        except (Exception, SystemExit) as error:
            said += [str(error), *getattr(error, "__notes__", ())]
    told = capsys.readouterr()
    said += [told.out, told.err, *(str(warning.message) for warning in heard)]
    whole = "\n".join(said)
    assert [c for c in whole if not c.isprintable() and c not in "\n\t\r"] == []
    assert "\\x1b" in whole  # so the name was there to be read
