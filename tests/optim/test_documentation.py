"""The docstrings and the README of rumus.optim show what happens."""

from __future__ import annotations

import doctest
import pickle
import pkgutil
import subprocess
import sys
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


def test_every_public_name_is_there_and_nothing_else() -> None:
    assert {name for name in rumus.optim.__all__ if getattr(rumus.optim, name) is None} == set()
    assert set(rumus.optim.__all__) <= set(dir(rumus.optim))
    assert set(rumus.optim._HOMES) | {"rules"} == set(rumus.optim.__all__)
    inside = {module.name for module in pkgutil.iter_modules(rumus.optim.__path__)}
    assert set(rumus.optim.__all__) & inside == {"rules"}  # it would hide any other such name
    with pytest.raises(AttributeError, match=r"rumus.optim has no attribute 'AdanW'"):
        _ = rumus.optim.AdanW  # type: ignore[attr-defined]


def test_a_public_name_is_the_same_object_wherever_it_comes_from() -> None:
    everything: dict[str, object] = {}
    exec("from rumus.optim import *", everything)
    for name in rumus.optim.__all__:
        assert everything[name] is getattr(rumus.optim, name), name
    assert pickle.loads(pickle.dumps(rumus.optim.AdamW)) is rumus.optim.AdamW


@pytest.mark.parametrize(
    ("statement", "loaded"),
    [
        ("import rumus.optim", set[str]()),
        ("from rumus.optim import cosine", {"options"}),
        ("import rumus.optim; rumus.optim.rules.adamw", {"rules"}),
        ("from rumus.optim import AdamW", {"options", "engine", "fused", "algorithms", "rules"}),
    ],
)
def test_only_requested_modules_are_imported(statement: str, loaded: set[str]) -> None:
    code = f"{statement}\nimport sys\nprint(*(n for n in sys.modules if n.count('.') == 2))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = [name.split(".") for name in run.stdout.split()]
    assert {n[2] for n in names if n[:2] == ["rumus", "optim"]} == loaded
