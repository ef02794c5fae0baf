"""The reference, built from the docstrings: an mkdocs hook that adds a page for each module.

A docstring explains an argument in a line that begins with its name: `lr: the step size.` Such
lines become a list; lines that begin with `>>>` are examples, and everything else is Markdown.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final

from mkdocs.structure.files import File, Files

MODULES: Final = (
    "tensor",
    "nn",
    "nn.initialization",
    "nn.names",
    "optim",
    "optim.rules",
    "train",
    "train.metrics",
    "train.images",
    "gpu",
    "distributed",
)
_ARGUMENT: Final = re.compile(r"(\*{0,2}[a-z_]\w*(?:, \*{0,2}[a-z_]\w*)*): (.+)")
_SOURCE: Final = re.compile(r"\barXiv:(\d{4}\.\d{4,5})")


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each module that users import from."""
    for module in MODULES:
        text = "\n".join(page(module))
        files.append(File.generated(config, f"reference/{module}.md", content=text))
    return files


def page(package: str) -> Iterator[str]:
    """The text of one page: classes first, then functions, then other public names."""
    module = importlib.import_module(f"rumus.{package}")
    yield f"# rumus.{package}\n"
    yield from paragraphs(inspect.getdoc(module) or "")
    public = {name: getattr(module, name) for name in sorted(module.__all__)}
    kinds = {
        "Classes": [n for n, v in public.items() if inspect.isclass(v) and not _is_error(v)],
        "Functions": [n for n, v in public.items() if inspect.isroutine(v)],
        "Errors": [n for n, v in public.items() if inspect.isclass(v) and _is_error(v)],
    }
    told = {name for names in kinds.values() for name in names}
    modules = [n for n, v in public.items() if inspect.ismodule(v)]
    kinds["Modules"] = modules
    kinds["Other names"] = [name for name in public if name not in told and name not in modules]
    for kind, names in kinds.items():
        if names:
            yield f"## {kind}\n"
        for name in names:
            yield from entry(name, public[name], 3)


def entry(name: str, thing: Any, level: int) -> Iterator[str]:
    """One name: its signature, its docstring, and the public methods of a class."""
    yield f"{'#' * level} {name.rpartition('.')[2]} {{ #{name} }}\n"
    if inspect.isclass(thing) or inspect.isroutine(thing):
        yield f"```python\n{signature(name, thing)}\n```\n"
    documented = inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing)
    if documented:
        yield from paragraphs(inspect.getdoc(thing) or "")
    else:
        yield f"`{_shown(thing)}`\n"
    if inspect.isclass(thing) and not issubclass(thing, (BaseException, Enum)):
        for own, member in methods(thing):
            yield from entry(f"{name}.{own}", member, level + 1)


def methods(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class defines itself, and explains."""
    for name, member in vars(kind).items():
        bare = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if name.startswith("_") or not (callable(bare) or isinstance(bare, property)):
            continue
        if inspect.getdoc(bare):
            yield name, bare.fget if isinstance(bare, property) else bare


def signature(name: str, thing: Any) -> str:
    """The call, with each argument on its own line if the call is long."""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return name
    parts = [
        str(p.replace(annotation=_plain(p.annotation), default=_default(p.default)))
        for p in found.parameters.values()
    ]
    kinds = [p.kind for p in found.parameters.values()]
    keyword = inspect.Parameter.KEYWORD_ONLY
    if keyword in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        parts.insert(kinds.index(keyword), "*")
    returned = found.return_annotation
    end = "" if returned is inspect.Signature.empty else f" -> {_plain(returned)}"
    one = f"{name}({', '.join(parts)}){end}"
    if len(one) <= 88:
        return one
    return "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){end}"])


class _Text:
    """Something whose repr is this text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _plain(annotation: Any) -> Any:
    """An annotation without module names."""
    if annotation is inspect.Parameter.empty:
        return annotation
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return _Text(re.sub(r"\b(?:\w+\.)+(?=\w)", "", text))


def _default(value: Any) -> Any:
    return value if value is inspect.Parameter.empty else _Text(_shown(value))


def _shown(value: Any) -> str:
    """A value on one line; its type if its repr is a memory address."""
    text = repr(value)
    return getattr(value, "__name__", type(value).__name__) if " at 0x" in text else text[:200]


def _is_error(kind: type) -> bool:
    return issubclass(kind, BaseException)


def paragraphs(text: str) -> Iterator[str]:
    """A docstring as Markdown."""
    for block in re.split(r"\n\s*\n", text):
        if block.lstrip().startswith(">>>"):
            yield f"```pycon\n{block}\n```\n"
        else:
            yield from _lines(block)
            yield ""


def _lines(block: str) -> Iterator[str]:
    """A paragraph, with its arguments as a list."""
    is_list = False
    for line in block.splitlines():
        argument = _ARGUMENT.fullmatch(line)
        if argument:
            if not is_list:
                yield ""
            names = ", ".join(f"`{name}`" for name in argument[1].split(", "))
            yield f"- **{names}**: {_linked(argument[2])}"
            is_list = True
        elif line.startswith(">>>"):
            yield f"\n```pycon\n{block[block.index(line) :]}\n```\n"
            return
        else:
            yield f"  {_linked(line.strip())}" if is_list else _linked(line)


def _linked(text: str) -> str:
    """With links to papers."""
    return _SOURCE.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
