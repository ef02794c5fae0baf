"""Printing a module: a tree with settings and numbers of parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rumus.tensor import Parameter
from rumus.tensor.expression.printable import printable_lines

if TYPE_CHECKING:
    from rumus.nn.module import Module


def describe(module: Module) -> str:
    """Return one line for each module: name, type, settings, parameters.

    >>> from rumus.nn import Linear, ReLU, Sequential
    >>> Sequential(Linear(64, 32), ReLU(), Linear(32, 10, bias=False))
    Sequential(): 2400 parameters
      0: Linear(inputs=64, outputs=32): 2080 parameters
      1: ReLU()
      2: Linear(inputs=32, outputs=10): 320 parameters
    """
    return "\n".join(_lines(module, "", ()))


def _lines(module: Module, label: str, above: tuple[Module, ...]) -> list[str]:
    """The lines of a module and its submodules. A cycle is shown once."""
    indent = "  " * len(above)
    if any(module is outer for outer in above):
        return [f"{indent}{label}{type(module).__name__} (shown above)"]
    head = f"{indent}{label}{type(module).__name__}({_settings(module)}){_count(module)}"
    parts = [
        line
        for name, child in module.named_children()
        for line in _lines(child, f"{printable_lines(name)}: ", (*above, module))
    ]
    return [head, *parts]


def _settings(module: Module) -> str:
    """The public attributes that are plain numbers, names or shapes: the arguments of a layer."""
    return ", ".join(
        f"{name}={value!r}"
        for name, value in module.named_members()
        if isinstance(value, (bool, int, float, str, tuple))
        and not name.startswith("_")
        and name != "training"
    )


def _count(module: Module) -> str:
    sizes = {id(p): p.size for _, m in module.named_modules() for p in _own(m)}
    if not sizes:
        return ""
    frozen = {
        id(p): p.size for _, m in module.named_modules() for p in _own(m) if not p.requires_grad
    }
    note = f", {sum(frozen.values())} frozen" if frozen else ""
    return f": {sum(sizes.values())} parameters{note}"


def _own(module: Module) -> list[Parameter]:
    return [value for _, value in module.named_members() if isinstance(value, Parameter)]
