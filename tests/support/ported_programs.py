"""The programs of docs/examples/ported as modules, with small versions of their models."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[2] / "docs" / "examples" / "ported"


@dataclass(frozen=True)
class Pair:
    """How to compare a program with its original.

    model: the class in both. steps: of the comparison. small: arguments that make it small enough
    for tests.
    """

    model: str
    steps: int
    small: Mapping[str, Any] = field(default_factory=dict)


PAIRS: Final[Mapping[str, Pair]] = {
    "lenet": Pair("LeNet", 40),
    "lstm": Pair("Letters", 40, {"size": 48, "layers": 2}),
    "masked_words": Pair("MaskedWords", 40, {"size": 32}),
    "policy_gradient": Pair("Policy", 40),
    "resnet18": Pair("ResNet", 10, {"width": 8}),
    "unet": Pair("UNet", 15, {"width": 8}),
    "vae": Pair("VAE", 40, {"hidden": 64}),
}


def program(name: str) -> ModuleType:
    """Import a program as it would be imported from its own folder."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
