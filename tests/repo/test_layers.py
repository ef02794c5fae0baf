"""Which package may import which; the arrows point downwards only.

Every import statement counts, also one inside of a function or for a type checker. The only way up
is `rumus.tensor.gpu`, which looks `rumus.gpu` up by name when `to_gpu()` is called.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "tensor": set[str](),
    "gpu": {"tensor"},
    "nn": {"tensor"},
    "optim": {"tensor"},
    "train": {"tensor", "optim"},
}


def imported_layers(source: str, module: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yield (line, layer) for each import of a layer of rumus in the source of `module`."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            start = list(module[: len(module) - node.level]) if node.level else []
            target = ".".join([*start, node.module] if node.module else start)
            names = [f"{target}.{alias.name}" for alias in node.names]
        for name in names:
            first, _, rest = name.partition(".")
            if first == "rumus":
                yield node.lineno, rest.partition(".")[0]


def violations(source: str, module: tuple[str, ...]) -> list[str]:
    """Return what a module of rumus imports and must not."""
    layer = module[1]
    return [
        f"line {line}: rumus.{layer} must not import rumus.{found}"
        for line, found in imported_layers(source, module)
        if found not in ALLOWED[layer] | {layer}
    ]


def modules() -> list[Path]:
    """Return every module of every package."""
    return sorted(ROOT.glob("packages/*/src/rumus/**/*.py"))


def dotted(path: Path) -> tuple[str, ...]:
    """Return the dotted name of a module in parts; a package ends in `__init__`."""
    parts = path.with_suffix("").parts
    return parts[parts.index("src") + 1 :]


def test_every_layer_is_looked_at() -> None:
    assert {dotted(path)[1] for path in modules()} == set(ALLOWED)


@pytest.mark.parametrize("path", modules(), ids=lambda path: ".".join(dotted(path)[1:]))
def test_imports_point_downwards(path: Path) -> None:
    assert violations(path.read_text(encoding="utf-8"), dotted(path)) == []


@pytest.mark.parametrize(
    "statement",
    [
        "import rumus.nn",
        "import math, rumus.nn.linear",
        "from rumus import nn",
        "from rumus.nn import Linear",
        "from ..nn import Linear",
        "from .. import tensor, nn",
        "def late():\n    from rumus.nn import Linear",
        "if TYPE_CHECKING:\n    import rumus.nn as layers",
    ],
)
def test_a_forbidden_import_is_found(statement: str) -> None:
    (found,) = violations(statement, ("rumus", "optim", "sgd"))
    assert found.endswith("rumus.optim must not import rumus.nn")


@pytest.mark.parametrize(
    "statement",
    ["from rumus.tensor import Expr", "from . import rules", "from .. import tensor", "import re"],
)
def test_an_allowed_import_is_not(statement: str) -> None:
    assert violations(statement, ("rumus", "optim", "sgd")) == []


@pytest.mark.parametrize("layer", ALLOWED)
def test_importing_a_layer_loads_no_other(layer: str) -> None:
    code = (
        f"import sys, rumus.{layer}\n"
        "print(*{name.split('.')[1] for name in sys.modules if name.startswith('rumus.')})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) <= ALLOWED[layer] | {layer}
