"""What the docstrings and the README of rumus.optim show is what happens."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import pytest

import rumus.optim

MODULES = [
    "rumus.optim",
    *(m.name for m in pkgutil.walk_packages(rumus.optim.__path__, "rumus.optim.")),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_docstrings(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in MODULES for test in finder.find(import_module(name)) if test.examples]
    assert len(found) >= 5
