"""The site's front page is the README: a hook of mkdocs, which also mends links out of the docs.

Pages are written to be read in the repository, where a link may lead to any file. On the site those
that leave `docs` lead to the repository instead.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).resolve().parents[2]
_LINK: Final = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the front page."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=_within_docs(text)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links that leave the docs to where there is a page for them, or drop them."""
    del config, files
    markdown = markdown.replace("```python\n>>>", "```pycon\n>>>")  # so a copy has no prompts
    return _LINK.sub(lambda link: _mended(link, page.file.src_uri), markdown)


def _within_docs(text: str) -> str:
    """The README as if it lay among the docs."""
    return re.sub(r"(\]\(|src=\")docs/", r"\1", text)


def _mended(link: re.Match[str], page: str) -> str:
    """A link as the site can follow it."""
    before, target, after = link.groups()
    if ":" in target:
        return link[0]
    if target.endswith("README.md") and page != "index.md":
        return f"{before}index.md{after}"
    if target.rstrip("/") == "examples":
        return f"{before}examples.md{after}"
    return link[0]
