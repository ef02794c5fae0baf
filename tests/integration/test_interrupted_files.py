"""A file that is written over, with a handler that raises at any line: the old one or the new."""

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
from rumus.tensor import Generator
from rumus.train import save_configuration
from rumus.train.command_line.predict import _opened, write_table


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
