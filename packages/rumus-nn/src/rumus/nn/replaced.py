"""Calls of a layer's parts, which a user may have replaced by modules that take less."""

from __future__ import annotations

from typing import Final

from rumus.nn.dropout import Dropout
from rumus.nn.module import Module, runs
from rumus.nn.setting import unwrapped
from rumus.tensor import Tensor

_TAKES_ANY_NAME: Final = 0x08  # CO_VARKEYWORDS of a code object


def takes(module: Module, name: str) -> bool:
    """Whether a module's `forward` takes an argument of this name.

    >>> from rumus.nn import Linear, ReLU
    >>> takes(Linear(1, 1), "residual"), takes(ReLU(), "residual")
    (True, False)
    """
    code = getattr(unwrapped(module.forward), "__code__", None)
    if code is None or code.co_flags & _TAKES_ANY_NAME:
        return True
    return name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def plus(
    module: Module, x: Tensor, residual: Tensor | None, *, mask: Tensor | None = None
) -> Tensor:
    """Return module(x) + residual, in one operation if the module takes a residual.

    mask: passed to a module that takes one, and to any if it is given.
    """
    options = {"mask": mask} if mask is not None else {}
    if residual is not None and takes(module, "residual"):
        options["residual"] = residual
        residual = None
    result: Tensor = module(x, **options)
    return result if residual is None else result + residual


def may_drop(dropout: Module) -> bool:
    """Whether a layer's dropout does anything: not a `Dropout` that is out of training."""
    return not runs(dropout, Dropout.forward) or dropout.is_active()  # type: ignore[attr-defined]
