"""Files with a handler that raises at any line: the old one or the new, and no fault of the file.

A time limit often raises TimeoutError, which is an OSError: whoever goes on after errors of a disk
or of damaged data must let it through, or the program has no limit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from interrupted import Prepared, attempts

from rumus import nn
from rumus.optim import SGD
from rumus.tensor import Generator, Parameter
from rumus.train import (
    ImageFolder,
    NpyDataset,
    ParquetDataset,
    RunFolder,
    Trainer,
    save_configuration,
    write_report,
)
from rumus.train.command_line.predict import _opened, write_table
from rumus.train.views import run_folder


@dataclass
class Configuration:
    """What is written, old or new."""

    width: int = 1


def _lora(is_new: bool) -> nn.Lora:
    """Adapters that differ in weights, rank and scale."""
    model = nn.Sequential(nn.Linear(3, 2, generator=Generator(0)))
    made: nn.Lora = nn.lora(model, rank=1 + is_new, generator=Generator(int(is_new)))
    return made


def _linear(is_new: bool) -> nn.Linear:
    return nn.Linear(3, 2, generator=Generator(int(is_new)))


def _table(folder: Path, is_new: bool) -> None:
    with _opened(folder / "p.csv") as file:
        write_table(file, np.full((20, 2), float(is_new)), [])


WRITERS: Final[dict[str, Callable[[Path, bool], object]]] = {
    "configuration": lambda folder, new: save_configuration(
        Configuration(1 + new), folder / "c.toml"
    ),
    "weights": lambda folder, new: _linear(new).save_file(folder / "w.safetensors"),
    "adapters": lambda folder, new: nn.save_lora(_lora(new), folder),
    "predictions": _table,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_the_old_one_or_the_new(name: str, tmp_path: Path) -> None:
    numbers = itertools.count()

    def prepare() -> Prepared:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        WRITERS[name](folder, False)

        def seen() -> tuple[Any, ...]:
            return tuple((file.name, file.read_bytes()) for file in sorted(folder.iterdir()))

        return lambda: WRITERS[name](folder, True), seen

    found = list(attempts(prepare, 120, name))
    assert len(found) > 20
    assert not [each for each in found if each.is_lost or each.is_torn]


def _images(folder: Path) -> Callable[[], object]:
    image = pytest.importorskip("PIL.Image")
    for name in "ab":
        (folder / name).mkdir()
        made = image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
        turned = made.getexif()
        turned[0x0112] = 6  # the tag of the orientation
        made.save(folder / name / "1.png", exif=turned)
    return lambda: ImageFolder(folder)[0]


def _parquet(folder: Path) -> Callable[[], object]:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"x": [1.0, 2.0], "y": [3.0, 4.0]})
    pytest.importorskip("pyarrow.parquet").write_table(table, folder / "t.parquet")
    return lambda: ParquetDataset(folder / "t.parquet", target="y")[0]


def _npy(folder: Path) -> Callable[[], object]:
    np.save(folder / "a.npy", np.ones((3, 2), np.float32))
    return lambda: NpyDataset(folder / "a.npy")[0]


def _fit(folder: Path, **options: Any) -> object:
    weight = Parameter(np.ones(2, np.float32), name="weight")
    loss = lambda x: (weight * x).sum()
    trainer, data = Trainer(SGD([weight], 0.1)), [(np.ones(2, np.float32),)] * 2
    return trainer.fit(data, loss, epochs=1, callbacks=[RunFolder(folder)], **options)


def _run(folder: Path) -> Callable[[], object]:
    return lambda: _fit(folder, signals=False)


def _resumed(folder: Path) -> Callable[[], object]:
    _fit(folder, checkpoints=folder / "checkpoints")
    return lambda: _fit(folder, checkpoints=folder / "checkpoints", resume=True, signals=False)


def _report(folder: Path) -> Callable[[], object]:
    _fit(folder)
    return lambda: write_report(folder)


# A handler may raise between the opening of a file and its block: what is dropped closes itself.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("make", [_images, _parquet, _npy, _run, _resumed, _report])
def test_a_time_limit_is_no_damage(
    make: Callable[[Path], Callable[[], object]], tmp_path: Path
) -> None:
    numbers = itertools.count()

    def prepare() -> Prepared:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return make(folder), lambda: ()

    assert not [each for each in attempts(prepare, 120, make.__name__) if each.is_lost]


def test_a_run_folder_is_free_again_whatever_ended_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traceback is kept, as by a notebook."""

    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "environment", ended)
        with pytest.raises(KeyboardInterrupt) as kept:
            _fit(tmp_path)
    _fit(tmp_path)
    assert (tmp_path / "DONE").exists()
    del kept
