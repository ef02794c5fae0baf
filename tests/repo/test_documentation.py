"""What is public is documented, and the examples in docstrings and READMEs say the truth."""

from __future__ import annotations

import doctest
import re
import runpy
from importlib import import_module
from inspect import isclass, isroutine
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = sorted(path.parent.name for path in ROOT.glob("packages/*/src/rumus/*/__init__.py"))
MODULES = [
    ".".join(path.with_suffix("").parts[path.parts.index("src") + 1 :]).removesuffix(".__init__")
    for path in sorted(ROOT.glob("packages/*/src/rumus/**/*.py"))
    if path.stem != "__main__"
]
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


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    if name == "rumus.gpu.engine.dawn":
        pytest.importorskip("wgpudawn", reason="an extra of rumus-gpu")
    result = doctest.testmod(import_module(name))
    assert result.failed == 0


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
