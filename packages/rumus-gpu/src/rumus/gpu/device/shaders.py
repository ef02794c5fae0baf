"""The WGSL files: in the installed package, or in shaders/ of a checkout."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

_PACKAGED: Final = files("rumus.gpu") / "shaders"
_FUNCTION: Final = re.compile(r"(?:^//[^\n]*\n)*^fn (\w+)\(.*?^\}\n", re.MULTILINE | re.DOTALL)


@cache
def shader(name: str) -> str:
    """Return the text of one WGSL file, by its name without the suffix."""
    if _PACKAGED.is_dir():
        return (_PACKAGED / f"{name}.wgsl").read_text("utf-8")
    return (Path(__file__).parents[6] / "shaders" / f"{name}.wgsl").read_text("utf-8")


def constants(**values: bool | int) -> str:
    """Return WGSL that declares constants: booleans, and unsigned numbers.

    >>> print(constants(LANES=4, BIASED=True), end="")
    const LANES = 4u;
    const BIASED = true;
    """
    texts = {name: str(v).lower() if isinstance(v, bool) else f"{v}u" for name, v in values.items()}
    return "".join(f"const {name} = {text};\n" for name, text in texts.items())


@cache
def _mathematics() -> dict[str, str]:
    """The functions of math.wgsl by name, each with the comment above it."""
    return {match[1]: match[0] for match in _FUNCTION.finditer(shader("math"))}


def prelude(body: str) -> str:
    """Return the functions of math.wgsl that `body` calls, directly or indirectly, in order."""
    functions = _mathematics()
    needed: set[str] = set()
    texts = [body]
    while texts:
        for name in re.findall(r"\b(\w+)\(", texts.pop()):
            if name in functions and name not in needed:
                needed.add(name)
                texts.append(functions[name])
    return "\n".join(text for name, text in functions.items() if name in needed)
