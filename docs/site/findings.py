"""The page of findings, made of what the scripts say of themselves: a hook of mkdocs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

FINDINGS: Final = Path(__file__).resolve().parents[2] / "findings"


def on_files(files: Files, config: Any) -> Files:
    """Add the page."""
    files.append(File.generated(config, "findings.md", content="\n".join(page())))
    return files


def page() -> Iterator[str]:
    """A section for each script: its first line is the title, then its text and its code."""
    yield "# Findings\n"
    yield (
        "What other libraries do where a good guess is wrong. Each is a script in `findings/`: it "
        "installs pinned packages in a folder of its own, and fails once they behave otherwise.\n"
    )
    for script in sorted(FINDINGS.glob("*.sh")):
        code = script.read_text(encoding="utf-8")
        title, *text = comment(code)
        yield f"## {title.rstrip('.')}\n"
        yield from text
        yield f'\n??? note "{script.name}"\n'
        yield "    ```bash"
        yield from (f"    {line}".rstrip() for line in code.splitlines())
        yield "    ```\n"


def comment(code: str) -> Iterator[str]:
    """The lines of the comment at the head of a script, without their marks."""
    for line in code.splitlines()[1:]:  # behind the line that names the shell
        if not line.startswith("#"):
            return
        yield line.removeprefix("#").strip()
