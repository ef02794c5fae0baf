"""The docstrings and the README of rumus.train show what happens."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest

import rumus.train

MODULES = [
    "rumus.train",
    *(m.name for m in pkgutil.walk_packages(rumus.train.__path__, "rumus.train.")),
    "memory_file_system",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_docstrings(name: str) -> None:
    if name.endswith("arrow_table"):
        pytest.importorskip("pyarrow")
    assert doctest.testmod(import_module(name)).failed == 0


def test_examples_of_the_page_about_checkpoints() -> None:
    page = Path(__file__).parents[2] / "docs" / "reliability.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in MODULES for test in finder.find(import_module(name)) if test.examples]
    assert len(found) >= 1


def test_every_public_name_is_there_and_nothing_else() -> None:
    import rumus.train

    assert {name for name in rumus.train.__all__ if getattr(rumus.train, name) is None} == set()
    assert set(rumus.train.__all__) <= set(dir(rumus.train))
    modules = {"images", "metrics"}
    assert set(rumus.train._HOMES) | {"Trainer"} | modules == set(rumus.train.__all__)
    inside = {module.name for module in pkgutil.iter_modules(rumus.train.__path__)}
    assert inside
    assert not set(rumus.train._HOMES) & inside  # once imported, it would hide the name
    with pytest.raises(AttributeError, match=r"rumus.train has no attribute 'Trainr'"):
        _ = rumus.train.Trainr  # type: ignore[attr-defined]
