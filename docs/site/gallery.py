"""The page of examples, made of the programs themselves: a hook of mkdocs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

DOCS: Final = Path(__file__).resolve().parents[1]
EXAMPLES: Final = DOCS / "examples"


def on_files(files: Files, config: Any) -> Files:
    """Add the page."""
    files.append(File.generated(config, "examples.md", content="\n".join(page())))
    return files


def page() -> Iterator[str]:
    """The pictures, then each program: what it says of itself, and its text."""
    yield "# Examples\n"
    yield "Programs of `docs/examples`, which the tests run. Each is started as its text says.\n"
    yield "## Pictures\n"
    for picture in sorted((DOCS / "pictures").iterdir()):
        name = picture.stem.replace("_", " ").replace("-", ", ")
        yield f'<figure markdown="span">![{name}](pictures/{picture.name})'
        yield f"<figcaption>{name}</figcaption></figure>\n"
    for folder in [EXAMPLES, *sorted(p for p in EXAMPLES.iterdir() if any(p.glob("*.py")))]:
        place = folder.relative_to(DOCS)
        yield f"## {place}\n"
        for program in sorted(folder.glob("*.py")):
            yield from _program(program)


def _program(program: Path) -> Iterator[str]:
    text = program.read_text(encoding="utf-8")
    first, _, rest = (ast.get_docstring(ast.parse(text)) or "").partition("\n")
    yield f"### {program.name}\n"
    yield f"{first}\n"
    yield f"{rest.strip()}\n"
    yield f'??? example "{program.name}"\n'
    yield "    ```python"
    yield from (f"    {line}" for line in text.splitlines())
    yield "    ```\n"
