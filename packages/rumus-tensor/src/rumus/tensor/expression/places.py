"""Arguments that Python cannot place: too many, too few, or one of them twice.

Its own messages count; these say how the call is written.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import Parameter
from typing import Any, Final

import numpy as np

from rumus.tensor.expression.declared_type import fits, shown
from rumus.tensor.expression.nearest_name import unknown_name

_BY_PLACE: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_SEVERAL: Final = re.compile(r"(?:\w+\.)*(?:Iterable|Sequence|list|Parameters)\b")
_NAMED: Final = re.compile(r"(?:\w+\.)*(?:Mapping|dict)\b")
_WRITTEN: Final = {"parameters": "model.parameters()"}  # what users have, in place of a name


def check_places(
    of: str, function: Callable[..., Any], args: tuple[object, ...], given: Mapping[str, object]
) -> None:
    """Raise TypeError for arguments that do not bind to the parameters of a function.

    of: the thing's name in messages. function: a method is bound, or has its object in `args`.

    >>> def layer(inputs, outputs, *, bias: bool = True): ...
    >>> check_places("Layer", layer, (2, 3, False), {})
    Traceback (most recent call last):
    TypeError: Layer takes inputs and outputs by position, not False: write bias=False
    >>> check_places("Layer", layer, (2, 3), {"bais": False})
    Traceback (most recent call last):
    TypeError: Layer takes no 'bais'; did you mean 'bias'?
    >>> check_places("Layer", layer, (2,), {})
    Traceback (most recent call last):
    TypeError: Layer needs outputs: Layer(inputs, outputs)
    """
    declared = list(inspect.signature(function).parameters.values())
    placed = [each for each in declared if each.kind in _BY_PLACE]
    if placed and placed[0].name in ("self", "cls"):
        placed, args = placed[1:], args[1:]
    named = [each for each in declared if each.kind is Parameter.KEYWORD_ONLY]
    known_names = {each.name for each in (*placed, *named)}
    takes_any = any(each.kind is Parameter.VAR_KEYWORD for each in declared)
    if not takes_any and (name := next((e for e in given if e not in known_names), None)):
        raise TypeError(f"{of} takes no {name!r}{unknown_name(name, known_names)}") from None
    takes_more = any(each.kind is Parameter.VAR_POSITIONAL for each in declared)
    if args[len(placed) :] and not takes_more:
        if not placed and takes_any:
            raise TypeError(
                f"{of} takes what it is given by name, not {shown(args[0])}: as lr=..."
            ) from None
        rest = [each for each in named if each.name not in given]
        known = getattr(inspect.unwrap(function), "__globals__", {})
        raise TypeError(_of_too_many(of, placed, rest, args, known)) from None
    for each in placed[: len(args)]:
        if each.name in given and each.kind is not Parameter.POSITIONAL_ONLY:
            raise TypeError(f"{of}: {each.name} is given by position and by name") from None
    left = [each for each in (*placed[len(args) :], *named) if each.name not in given]
    missing = [each.name for each in left if _is_needed(each)]
    if missing:
        names = {each.name for each in (*placed, *named) if _is_needed(each)}
        others = {name: value for name, value in given.items() if name not in names}
        usage = _usage(of, placed, named, others)
        raise TypeError(f"{of} needs {_listed(missing)}: {usage}") from None


def placing(init: Callable[..., None], owner: type) -> Callable[..., None]:
    """Return the `__init__` of a class, which says how its arguments are placed if they are not.

    Not `__new__` but this is where a call without arguments is wrong: copies make objects with it.
    """

    @wraps(init)
    def placed(self: object, *args: Any, **given: Any) -> None:
        try:
            init(self, *args, **given)
        except TypeError as error:
            if was_not_called(error):
                made = type(self) if type(self).__module__.startswith("rumus.") else owner
                check_places(made.__name__, init, (self, *args), given)
            raise

    return placed


def was_not_called(error: TypeError) -> bool:
    """Whether a call itself failed: the traceback ends at it.

    In a function of its own, since a frame that keeps its own traceback keeps its arguments alive.
    """
    trace = error.__traceback__
    return trace is not None and trace.tb_next is None


def _of_too_many(
    of: str,
    placed: list[Parameter],
    rest: list[Parameter],
    args: tuple[object, ...],
    known: Mapping[str, Any],
) -> str:
    extra = args[len(placed)]
    if len(placed) == 1 and type(args[0]) is type(extra):
        name, declared = placed[0].name, str(placed[0].annotation)
        if _NAMED.match(declared):
            return f"{of} takes {name} as one dict: {of}({{name: ...}})"
        if _SEVERAL.match(declared):
            return f"{of} takes {name} as one list: {of}([...])"
    takes = (
        f"{_listed([each.name for each in placed])} by position"
        if placed
        else "nothing by position"
    )
    if not placed and not rest:
        takes = "no arguments"
    fitting = [each.name for each in rest if _may_be(each, known, extra)]
    told = f"{of} takes {takes}, not {shown(extra)}"
    if len(fitting) == 1:
        return f"{told}: write {fitting[0]}={_written(extra)}"
    if rest:
        return f"{told}; by name it takes {', '.join(each.name for each in rest)}"
    return told


def _may_be(parameter: Parameter, known: Mapping[str, Any], value: object) -> bool:
    """Whether a value is certainly of the kind that a parameter is declared as."""
    if "DType" in str(parameter.annotation):
        return isinstance(value, (type, np.dtype))
    return fits(str(parameter.annotation), known, value)


def _usage(
    of: str, placed: list[Parameter], named: list[Parameter], given: Mapping[str, object]
) -> str:
    needed = [_WRITTEN.get(each.name, each.name) for each in placed if _is_needed(each)]
    needed += [f"{each.name}=..." for each in named if _is_needed(each)]
    needed += [f"{name}={_written(value)}" for name, value in given.items()]
    return f"{of}({', '.join(needed)})"


def _written(value: object) -> str:
    """A value as it is written in a call, and dots for what has no short spelling."""
    if isinstance(value, type):
        return value.__name__
    is_plain = value is None or isinstance(value, (str, int, float))
    return shown(value) if is_plain else "..."


def _is_needed(parameter: Parameter) -> bool:
    return parameter.default is Parameter.empty


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
