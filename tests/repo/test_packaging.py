"""Requirements for every package, so that it can be installed, typed and read on its own."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
PACKAGES = [project for project in PROJECTS if project.name != "rumus"]
LEAVES = ("distributed", "gpu", "nn", "optim", "tensor", "train")
DISTRIBUTIONS = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "typing_extensions": "typing-extensions",
}
TEXT = {".cfg", ".md", ".py", ".pyi", ".sh", ".toml", ".txt", ".wgsl", ".yaml", ".yml", ""}
MADE = {"__pycache__", "output", "dist", "build"}  # folders written by programs
for_each = pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)
for_each_package = pytest.mark.parametrize("project", PACKAGES, ids=lambda project: project.name)


def metadata(project: Path) -> dict[str, Any]:
    """Return the table `project` of a pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    return table


def leaf(project: Path) -> Path:
    """Return the folder of a package's modules."""
    return project / "src" / "rumus" / project.name.removeprefix("rumus-")


def version(project: Path) -> str:
    """Return a package's own version."""
    if project.name == "rumus":
        return str(metadata(project)["version"])
    source = (leaf(project) / "__init__.py").read_text(encoding="utf-8")
    (found,) = re.findall(r'^__version__ = "(.*)"$', source, re.MULTILINE)
    return str(found)


def declared(project: Path) -> dict[str, str]:
    """Return the distributions that a package declares, including extras, with their versions."""
    table = metadata(project)
    extras = table.get("optional-dependencies", {}).values()
    lines = [*table["dependencies"], *(line for extra in extras for line in extra)]
    named = [re.match(r"([\w-]+)(?:\[\w+\])?(.*)", line) for line in lines]
    return {found[1]: found[2] for found in named if found}


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the distribution of each module that is imported at run time."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING":
        yield from imported(ast.Module(tree.orelse, []))
        return
    names: list[str] = []
    if isinstance(tree, ast.Import):
        names = [alias.name for alias in tree.names]
    elif isinstance(tree, ast.ImportFrom) and not tree.level and tree.module:
        names = [f"{tree.module}.{alias.name}" for alias in tree.names]
    for name in names:
        first, second, *_ = [*name.split("."), ""]
        if first == "rumus":
            yield f"rumus-{second}"
        elif first not in sys.stdlib_module_names:
            yield DISTRIBUTIONS.get(first, first)
    for node in ast.iter_child_nodes(tree):
        yield from imported(node)


def texts() -> list[Path]:
    """Return the text files of the repository, without those written by programs."""
    folders = ("packages", "tests", "docs", "typings", "shaders", ".ci")
    found = [path for path in ROOT.glob("*") if not path.name.startswith(".")]
    found += [path for folder in folders for path in (ROOT / folder).rglob("*")]
    hidden = [path for path in found if MADE & set(path.relative_to(ROOT).parts)]
    return sorted(p for p in set(found) - set(hidden) if p.is_file() and p.suffix in TEXT)


def test_the_packages_are_these() -> None:
    names = {"rumus", *(f"rumus-{name}" for name in LEAVES)}
    assert {project.name for project in PROJECTS} == names


def test_rumus_is_a_namespace() -> None:
    assert list(ROOT.glob("packages/*/src/rumus/*.*")) == []


@for_each_package
def test_a_leaf_is_typed(project: Path) -> None:
    assert (leaf(project) / "py.typed").is_file()
    assert [path for path in (project / "src/rumus").iterdir() if path != leaf(project)] == []


@for_each
def test_name_and_license(project: Path) -> None:
    assert metadata(project)["name"] == project.name
    assert metadata(project)["license"] == "Apache-2.0"
    assert (project / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@for_each_package
def test_the_version_is_read_from_the_module(project: Path) -> None:
    assert "version" in metadata(project)["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version(project))


@for_each
def test_the_changelog_names_the_version(project: Path) -> None:
    headings = re.findall(r"^## (\S+)", (project / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == version(project)


@for_each
def test_the_readme_is_about_the_package(project: Path) -> None:
    assert (project / "README.md").read_text().startswith(f"# {project.name}\n")


@for_each_package
def test_imports_are_declared(project: Path) -> None:
    allowed = {*declared(project), project.name}
    for path in leaf(project).rglob("*.py"):
        missing = set(imported(ast.parse(path.read_text(encoding="utf-8")))) - allowed
        assert not missing, f"{path.name} imports {missing}, which {project.name} does not declare"


def test_an_undeclared_import_is_found() -> None:
    source = "import re, sklearn.svm\nif TYPE_CHECKING:\n    import torch\nelse:\n    import jax"
    assert set(imported(ast.parse(source))) == {"scikit-learn", "jax"}
    assert set(imported(ast.parse("from rumus import nn\nimport rumus.optim"))) == {
        "rumus-nn",
        "rumus-optim",
    }


@for_each
def test_the_required_rumus_versions_fit(project: Path) -> None:
    for name, wanted in declared(project).items():
        if name.startswith("rumus-"):
            major, minor, _ = version(ROOT / "packages" / name).split(".")
            assert wanted.endswith(f">={major}.{minor},<{major}.{int(minor) + 1}"), name


@for_each
def test_programs_are_there(project: Path) -> None:
    for target in metadata(project).get("scripts", {}).values():
        module, _, function = target.partition(":")
        assert callable(getattr(import_module(module), function))


def test_one_lowest_numpy() -> None:
    wanted = {declared(project)["numpy"] for project in PROJECTS if "numpy" in declared(project)}
    assert wanted == {">=2.0"}


def test_files_are_named_after_their_contents() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}
    assert [path for path in texts() if path.stem.strip("_") in vague] == []


ELSEWHERE = re.compile(r"(?<![\w.:/}])/(?:work|root|home|Users|opt|mnt|tmp)/[\w.]")


def test_a_path_of_one_machine_is_found() -> None:
    assert ELSEWHERE.search("cd " + "/".join(["", "home", "me", "rumus"]))
    assert not ELSEWHERE.search("see docs/home/me, or https://example.org/home/me")


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if ELSEWHERE.search(line)
    ]
    assert found == []
