"""The documentation shows what happens."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest

import rumus.nn

MODULES = ["rumus.nn", *(f"rumus.nn.{m.name}" for m in pkgutil.iter_modules(rumus.nn.__path__))]
README = Path(__file__).parents[2] / "packages" / "rumus-nn" / "README.md"


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_docstrings(name: str) -> None:
    if name == "rumus.nn.onnx_export":
        pytest.importorskip("onnx", reason="an extra of rumus-nn")
    assert doctest.testmod(import_module(name)).failed == 0


def test_examples_of_the_readme() -> None:
    outcome = doctest.testfile(str(README), module_relative=False)
    assert outcome.attempted > 10
    assert outcome.failed == 0


def test_everything_public_is_exported_and_documented() -> None:
    for name in rumus.nn.__all__:
        assert getattr(rumus.nn, name).__doc__, name
    public = {name for name, value in vars(rumus.nn).items() if not name.startswith("_")}
    modules = {m.name for m in pkgutil.iter_modules(rumus.nn.__path__)}
    public -= {"TYPE_CHECKING", "NoReturn"}  # of typing
    assert public - modules == set(rumus.nn.__all__) - modules
