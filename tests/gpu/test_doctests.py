"""The examples in the docstrings of the package."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from importlib.util import find_spec

import pytest

import rumus.gpu

EXTRAS = {"rumus.gpu.engine.dawn": "wgpudawn"}  # a module -> the package that it alone needs
MODULES = [
    m.name
    for m in pkgutil.walk_packages(rumus.gpu.__path__, "rumus.gpu.")
    if m.name not in EXTRAS or find_spec(EXTRAS[m.name]) is not None
]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name), verbose=False).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [finder.find(importlib.import_module(n)) for n in MODULES if "__" not in n]
    assert sum(bool(test.examples) for tests in found for test in tests) >= 4
