"""The PyTorch names in docs/layers.md exist in PyTorch."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path

import pytest
import torch
import torch.utils.checkpoint

PAGE = Path(__file__).parents[2] / "docs" / "layers.md"
ROWS = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines()]
NAMES = sorted(
    {
        name
        for row in ROWS
        if len(row) > 3 and row[1].startswith(" `")
        for name in re.findall(r"`([\w.]+)`", row[2])
        if not name.startswith("torchvision")
    }
)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_pytorch_are_there(name: str) -> None:
    assert callable(reduce(getattr, name.split("."), torch)) or name == "Tensor.mT"
