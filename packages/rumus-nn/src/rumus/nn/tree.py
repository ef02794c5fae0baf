"""Printing a module: a tree with settings and numbers of parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from rumus.tensor import Parameter
from rumus.tensor.expression.printable import printable_lines

if TYPE_CHECKING:
    from rumus.nn.module import Module

_DEEPEST: Final = 100  # levels beyond are not indented further: their lines would be long


def describe(module: Module) -> str:
    """Return one line for each module: name, type, settings, parameters.

    >>> from rumus.nn import Linear, ReLU, Sequential
    >>> Sequential(Linear(64, 32), ReLU(), Linear(32, 10, bias=False))
    Sequential(): 2400 parameters
      0: Linear(inputs=64, outputs=32): 2080 parameters
      1: ReLU()
      2: Linear(inputs=32, outputs=10): 320 parameters
    """
    lines: list[str] = []
    above: dict[int, tuple[int, _Held]] = {}  # the number of its line, and what is in it
    waiting: list[tuple[str, Module, bool]] = [("", module, False)]
    while waiting:
        label, part, is_done = waiting.pop()
        if is_done:
            line, held = above.pop(id(part))
            lines[line] += held.told()
            if above:
                outer, beside = above.popitem()
                above[outer] = beside[0], beside[1].with_those_of(held)
            continue
        head = "  " * min(len(above), _DEEPEST) + label + type(part).__name__
        if id(part) in above:  # a cycle is shown once
            lines.append(f"{head} (shown above)")
            continue
        above[id(part)] = len(lines), _Held(_own(part))
        lines.append(f"{head}({_settings(part)})")
        waiting.append((label, part, True))
        children = [(f"{printable_lines(name)}: ", c, False) for name, c in part.named_children()]
        waiting.extend(reversed(children))
    return "\n".join(lines)


class _Held:
    """The parameters of a module and of those in it, each once, and their numbers."""

    def __init__(self, found: Iterable[Parameter]) -> None:
        self.parameters: dict[int, Parameter] = {}
        self.size = self.frozen = 0
        self._add(found)

    def _add(self, found: Iterable[Parameter]) -> None:
        for parameter in found:
            if id(parameter) not in self.parameters:
                self.parameters[id(parameter)] = parameter
                self.size += parameter.size
                self.frozen += 0 if parameter.requires_grad else parameter.size

    def with_those_of(self, other: _Held) -> _Held:
        """Both: the smaller is added to the larger, so that depth costs little."""
        less, more = sorted((self, other), key=lambda held: len(held.parameters))
        more._add(less.parameters.values())
        return more

    def told(self) -> str:
        """What the line of the module says of them."""
        note = f", {self.frozen} frozen" if self.frozen else ""
        return f": {self.size} parameters{note}" if self.parameters else ""


def _settings(module: Module) -> str:
    """The public attributes that are plain numbers, names or shapes: the arguments of a layer."""
    return ", ".join(
        f"{name}={value!r}"
        for name, value in module.named_members()
        if isinstance(value, (bool, int, float, str, tuple))
        and not name.startswith("_")
        and name != "training"
    )


def _own(module: Module) -> list[Parameter]:
    return [value for _, value in module.named_members() if isinstance(value, Parameter)]
