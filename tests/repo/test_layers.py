"""Which package may import which, and which room of a package; arrows point only downwards.

Every import statement counts, including those inside functions or for type checkers. The only way
up is `rumus.tensor.gpu`, which looks `rumus.gpu` up by name when `to_gpu()` is called.
"""

from __future__ import annotations

import ast
import re
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
    "distributed": {"tensor", "optim", "train"},
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
    """Return the forbidden imports of a rumus module."""
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


def test_every_layer_is_checked() -> None:
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


# The rooms of each package, and the rooms that each may import from, also for types. Modules
# outside all rooms, above all `__init__`, are above them.
ROOMS = {
    "tensor": {
        "expression": set[str](),
        "memory": {"expression"},
        "compiled": {"expression", "memory"},
        "backends": {"expression", "memory", "compiled"},
        "graph": {"expression", "memory", "backends"},
        "operations": {"expression", "memory", "backends", "graph"},
    },
    "gpu": {
        "engine": set[str](),
        "device": {"engine"},
        "elementwise": {"engine", "device"},
        "rows": {"engine", "device", "elementwise"},
        "products": {"engine", "device", "elementwise", "rows"},
        "convolutions": {"engine", "device", "elementwise", "rows", "products"},
        "attention": {"engine", "device", "elementwise", "products"},
        "optimizer": {"engine", "device", "elementwise"},
    },
    "nn": {},
    "distributed": {},
    "optim": {
        "options": set[str](),
        "rules": set[str](),
        "engine": {"options", "rules"},
        "fused": {"options", "rules", "engine"},
        "algorithms": {"options", "rules", "engine", "fused"},
        "wrappers": {"options", "rules", "engine", "fused"},
        "files": {"options", "rules", "engine", "fused"},
    },
    "train": {
        "base": set[str](),
        "data": {"base"},
        "tables": {"base", "data"},
        "checkpoints": {"base"},
        "capture": {"base"},
        "loop": {"base", "data", "tables", "checkpoints", "capture"},
        "views": {"base", "checkpoints", "loop"},
        "command_line": {"base", "data", "tables", "checkpoints", "loop", "views"},
    },
}
UPWARDS = {  # (module, imported module): the only look-up by name
    ("rumus.tensor.graph.tensor", "rumus.tensor.gpu"),
}
NAMES = {".".join(dotted(path)).removesuffix(".__init__") for path in modules()}


def imported_modules(tree: ast.AST, at_run_time: bool = False) -> Iterator[str]:
    """Yield the modules of rumus that a module imports; at_run_time: when it is itself imported."""
    for node in ast.iter_child_nodes(tree):
        is_late = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        is_typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if at_run_time and (is_late or is_typing):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in NAMES)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield from (each for each in (name, node.module) if each in NAMES)
        yield from imported_modules(node, at_run_time)


def room_of(name: str) -> str | None:
    """Return the room that a module is in; None above all rooms."""
    layer, _, rest = name.removeprefix("rumus.").partition(".")
    room = rest.partition(".")[0]
    return room if room in ROOMS[layer] else None


def upwards(name: str, tree: ast.AST) -> set[tuple[str, str]]:
    """Return a module's imports from rooms of its package that it must not use."""
    room, package = room_of(name), ".".join(name.split(".")[:2])
    if room is None:
        return set()
    allowed = ROOMS[package.removeprefix("rumus.")][room] | {room}
    inside = {each for each in imported_modules(tree) if each.startswith(f"{package}.")}
    return {(name, each) for each in inside if room_of(each) not in allowed}


def trees() -> Iterator[tuple[str, ast.AST]]:
    """Yield the name and the syntax tree of each module."""
    for path in modules():
        name = ".".join(dotted(path)).removesuffix(".__init__")
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def test_every_folder_is_a_room() -> None:
    folders = {(dotted(path)[1], dotted(path)[2]) for path in modules() if len(dotted(path)) > 3}
    assert folders == {(layer, room) for layer, rooms in ROOMS.items() for room in rooms}


def test_the_picture_shows_every_room() -> None:
    picture = (ROOT / "docs" / "pictures" / "rooms.svg").read_text(encoding="utf-8")
    shown = sorted(re.findall(r"<text[^>]*>(\w+)</text>", picture))
    assert shown == sorted([*ROOMS, *(room for rooms in ROOMS.values() for room in rooms)])


def test_the_tour_stops_at_files_that_exist() -> None:
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    tour = design.partition("## A tour of the code")[2].partition("\n## ")[0]
    stops = re.findall(r"`([\w/]+\.py)`", tour)
    assert len(stops) > 20
    assert [
        stop for stop in stops if not any(p.as_posix().endswith(f"/{stop}") for p in modules())
    ] == []


def test_rooms_import_downwards() -> None:
    assert set().union(*(upwards(name, tree) for name, tree in trees())) == UPWARDS


@pytest.mark.parametrize(
    "statement",
    [
        "from rumus.tensor.operations.norms import layer_norm",
        "from rumus.tensor.graph import store",
        "import rumus.tensor.graph.tensor",
        "if TYPE_CHECKING:\n    from rumus.tensor.graph.tensor import Tensor",
    ],
)
def test_an_import_from_a_higher_room_is_found(statement: str) -> None:
    assert upwards("rumus.tensor.memory.packing", ast.parse(statement))


def test_there_is_only_one_import_cycle() -> None:
    """The methods of `Tensor` and the operations that they call."""
    graph = {name: set(imported_modules(tree, at_run_time=True)) for name, tree in trees()}
    graph = {name: {e for e in found if e.count(".") > 1} for name, found in graph.items()}
    reached = dict(graph)
    for _ in range(len(graph)):  # until a fixed point
        wider = {n: r.union(*(reached[each] for each in r)) for n, r in reached.items()}
        if wider == reached:
            break
        reached = wider
    in_circles = {name for name, found in reached.items() if name in found}
    assert {room_of(name) for name in in_circles} == {"graph"}


EACH_FIRST = """
import pkgutil, sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
package = sys.argv[1]
path = import_module(package).__path__
names = [module.name for module in pkgutil.walk_packages(path, package + ".")]
for name in names:
    for loaded in [each for each in sys.modules if each.startswith(package + ".")]:
        del sys.modules[loaded]
    del sys.modules[package]
    sys.modules[package] = module_from_spec(find_spec(package))  # as if its __init__ were empty
    if name.endswith("__main__"):
        continue
    try:
        import_module(name)
    except ModuleNotFoundError as error:  # what an extra brings; this session may not have it
        if error.name.startswith("rumus"):
            raise
print(len(names))
"""


@pytest.mark.parametrize("layer", ALLOWED)
def test_any_module_can_be_the_first(layer: str) -> None:
    """Otherwise the sorted order of imports in `__init__` would hold the package together."""
    command = [sys.executable, "-c", EACH_FIRST, f"rumus.{layer}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 10
