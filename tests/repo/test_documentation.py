"""Public names are documented, argument by argument, and the examples run as shown."""

from __future__ import annotations

import doctest
import re
import runpy
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from inspect import Parameter, cleandoc, getmro, isclass, isroutine, signature
from pathlib import Path
from typing import Any

import pytest

from rumus.tensor import Backend
from rumus.train import Callback, FileSystem, Logger, Sampler, Stateful

PROTOCOLS = Backend, Callback, FileSystem, Logger, Sampler, Stateful
ROOT = Path(__file__).parents[2]
LAYERS = sorted(path.parent.name for path in ROOT.glob("packages/*/src/rumus/*/__init__.py"))
MODULES = [
    ".".join(path.with_suffix("").parts[path.parts.index("src") + 1 :]).removesuffix(".__init__")
    for path in sorted(ROOT.glob("packages/*/src/rumus/**/*.py"))
    if path.stem != "__main__"
]
MODULES_OF_THE_REFERENCE = "nn.initialization", "nn.names", "train.metrics", "train.images"
READMES = sorted(ROOT.glob("packages/*/README.md"))
PROGRAMS = sorted((ROOT / "tests" / "typing" / "accepted").glob("*.py"))


@pytest.mark.parametrize("layer", LAYERS)
def test_public_names_have_docstrings(layer: str) -> None:
    module = import_module(f"rumus.{layer}")
    assert module.__doc__
    assert len(set(module.__all__)) == len(module.__all__)
    values = {name: getattr(module, name) for name in module.__all__}
    coded = {name for name, value in values.items() if isclass(value) or isroutine(value)}
    assert coded
    assert [name for name in sorted(coded) if not (values[name].__doc__ or "").strip()] == []


def public_callables(layer: str) -> Iterator[tuple[str, Any, str]]:
    """Each public function, class and method of a package, with its name and documentation.

    The arguments of a method may also be documented in a base class or a protocol.
    """
    module = import_module(f"rumus.{layer}")
    for name in module.__all__:
        thing = getattr(module, name)
        if isclass(thing) and not issubclass(thing, (BaseException, Enum)):
            yield name, thing, cleandoc(thing.__doc__ or "")
            for own, member in vars(thing).items():
                method = member.__func__ if hasattr(member, "__func__") else member
                if (
                    own.startswith("_")
                    or not isroutine(method)
                    or getattr(method, "__name__", "") != own
                ):
                    continue
                said = [getattr(kind, own, None) for kind in (*getmro(thing), *PROTOCOLS)]
                texts = [cleandoc(each.__doc__) for each in said if each and each.__doc__]
                yield f"{name}.{own}", method, "\n".join(texts)
        elif isroutine(thing):
            yield name, thing, cleandoc(thing.__doc__ or "")


def parameters(thing: Any) -> set[str]:
    """The names that a caller passes; C functions have no signature, and *args needs no text."""
    try:
        found = signature(thing).parameters.values()
    except (TypeError, ValueError):
        return set()
    unnamed = {Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL}
    return {p.name for p in found if p.kind not in unnamed} - {"self", "cls"}


def described(text: str) -> set[str]:
    """The arguments that have a line: `lr: the step size.` or `rows, columns: of the tile.`"""
    lines = re.findall(r"^([a-z_]\w*(?:, [a-z_]\w*)*): \S", text, re.MULTILINE | re.IGNORECASE)
    return {name for line in lines for name in line.split(", ")}


@pytest.mark.parametrize("layer", [*LAYERS, *MODULES_OF_THE_REFERENCE])
def test_each_argument_has_a_line_of_its_own(layer: str) -> None:
    missing = {
        name: sorted(parameters(thing) - described(text))
        for name, thing, text in public_callables(layer)
    }
    assert {name: lacking for name, lacking in missing.items() if lacking} == {}


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    if name == "rumus.gpu.engine.dawn":
        pytest.importorskip("wgpudawn", reason="an extra of rumus-gpu")
    result = doctest.testmod(import_module(name))
    assert result.failed == 0


def shown_examples(layer: str) -> Iterator[doctest.DocTest]:
    """Each docstring of the reference with examples, which import everything themselves."""
    module = import_module(f"rumus.{layer}")
    yield from doctest.DocTestFinder(recurse=False).find(module, globs={})
    for name in module.__all__:
        thing = getattr(module, name)
        if isclass(thing) or isroutine(thing):
            yield from doctest.DocTestFinder().find(thing, f"{layer}.{name}", globs={})


@pytest.mark.parametrize("layer", [*LAYERS, *MODULES_OF_THE_REFERENCE])
def test_examples_of_the_reference_show_their_imports(layer: str) -> None:
    runner = doctest.DocTestRunner(verbose=False)
    for test in shown_examples(layer):
        runner.run(test)
    assert runner.tries > 0
    assert runner.failures == 0


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_readme_examples(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    assert len(re.findall(r"^```python\n(?!>>>)", text, re.MULTILINE)) == 0, "write >>> examples"
    result = doctest.testfile(str(readme), module_relative=False)
    assert result.failed == 0
    assert result.attempted > 0 or "```python" not in text


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_programs_that_type_check_run(program: Path) -> None:
    runpy.run_path(str(program), run_name="__main__")
