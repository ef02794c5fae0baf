"""Checks for arguments that Python accepts silently or rejects with obscure messages.

To Python a string such as "no" is True, an error about a misspelled keyword does not suggest the
right one, and a string in place of a number or of a tensor fails deep inside. A function's wrapper
checks switches first, and truth values in place of numbers, which would count as 1 and 0;
everything else only after the call has failed. A class, a constructor, or a function that writes or
runs for long (`checked_first`) checks before it begins.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache, wraps
from opcode import opmap
from types import CodeType
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar

import numpy as np

from rumus.tensor.expression.declared_type import (
    fault_of_declared,
    is_optional_tensor,
    shown,
    takes_numbers_only,
    wanted,
)
from rumus.tensor.expression.nearest_name import unknown_name
from rumus.tensor.expression.places import check_places, placing

P = ParamSpec("P")
R = TypeVar("R")
Class = TypeVar("Class", bound=type)
Declared: TypeAlias = tuple[str, Mapping[str, Any]]

_DECLARED: Final = ("bool", bool)  # as text if annotations are not evaluated
_OF_ARGUMENTS: Final = (TypeError, AttributeError, ValueError, LookupError)
_TAKES_ANY_PLACE: Final = 0x04  # CO_VARARGS of a code object
_TAKES_ANY_NAME: Final = 0x08  # CO_VARKEYWORDS of a code object
_UNPACKED: Final = r"Unpack\[(\w+)\]"
_NOTHING: Final = object()
_PACKAGES: Final = frozenset({"rumus", "numpy", "numba"})  # that a call runs through
_TRUTHS: Final = (bool, np.bool_)
_RAISE: Final = opmap["RAISE_VARARGS"]


def switches_of(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names of the parameters that are declared as bool."""
    declared = getattr(function, "__annotations__", {})
    return frozenset(
        name for name, kind in declared.items() if name != "return" and kind in _DECLARED
    )


def check_switches(of: str, names: frozenset[str], given: Mapping[str, object]) -> None:
    """Raise TypeError for a keyword among `names` that is neither True nor False.

    >>> check_switches("Linear", frozenset({"bias"}), {"bias": "no"})
    Traceback (most recent call last):
    TypeError: Linear: bias must be True or False, not 'no'
    """
    for name, value in given.items():
        if name in names and not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{of}: {name} must be True or False, not {value!r}")


def check_arguments(cls: type, args: tuple[object, ...], given: Mapping[str, object]) -> None:
    """Raise TypeError for arguments that a class does not take, before an object is made.

    A class without `__init__` takes none: with our `__new__`, Python would ignore them. An
    `__init__` of rumus rejects a switch that is neither True nor False, an undeclared keyword, and
    whatever does not fit its declaration. Other classes may define theirs as they like.

    >>> class Empty: ...
    >>> check_arguments(Empty, (), {"size": 2})
    Traceback (most recent call last):
    TypeError: Empty takes no arguments, but was given 'size'
    """
    if cls.__init__ is object.__init__:  # type: ignore[misc]
        found = next(iter((*args, *given)), _NOTHING)
        if found is not _NOTHING and _is_ours(cls, "__new__"):
            raise TypeError(f"{cls.__name__} takes no arguments, but was given {found!r}")
        return
    owner = cls
    if "__init__" not in vars(cls):
        owner = next(base for base in cls.__mro__ if "__init__" in vars(base))
    if not owner.__module__.startswith("rumus."):
        return
    placed, names, switches, types = _declared(owner)
    if given:
        check_switches(cls.__name__, switches, given)
        _check_names(cls.__name__, names, given)
    _check_types(cls.__name__, types, placed[1:], args, given, is_all=False)


def place_arguments(cls: Class) -> Class:
    """Return a class, which if it is of rumus says how arguments that do not fit are written.

    >>> @place_arguments
    ... class Size:
    ...     __module__ = "rumus.size"
    ...     def __init__(self, height: int) -> None: ...
    >>> Size()
    Traceback (most recent call last):
    TypeError: Size needs height: Size(height)
    """
    init = vars(cls).get("__init__")
    if init is not None and cls.__module__.startswith("rumus."):
        members: Any = cls
        members.__init__ = placing(init, cls)
    return cls


def check_argument(of: object, name: str, value: object) -> None:
    """Raise TypeError for an attribute whose value the constructor of its name would refuse.

    of: whose class, or a base of it, is of rumus.
    """
    for owner in type(of).__mro__:
        if "__init__" in vars(owner) and owner.__module__.startswith("rumus."):
            _, _, switches, types = _declared(owner)
            check_switches(type(of).__name__, switches, {name: value})
            _check_types(type(of).__name__, types, (), (), {name: value}, is_all=False)
            return


def constructor_names(cls: type) -> frozenset[str]:
    """Return the keywords that a class of rumus takes; none for any other class.

    >>> constructor_names(int)
    frozenset()
    """
    owner = next((base for base in cls.__mro__ if "__init__" in vars(base)), object)
    if not owner.__module__.startswith("rumus."):
        return frozenset()
    return _declared(owner)[1] or frozenset()


def checked_arguments(
    function: Callable[P, R],
    check_keywords: Callable[[Iterable[str]], None] | None = None,
    check_missing: Callable[[Iterable[str]], None] | None = None,
    is_first: bool = False,
) -> Callable[P, R]:
    """Return `function` with checked switches and with more helpful errors.

    check_keywords: raises for keywords it has advice on, such as those of other libraries.
    check_missing: raises for arguments that were not passed and that it has advice on.
    is_first: check all types before the call; those of a constructor that have no better message
        of their own are checked then in any case.

    >>> @checked_arguments
    ... def area(width: int, height: int) -> int:
    ...     return width * height
    >>> area(1, heigth=2)
    Traceback (most recent call last):
    TypeError: area takes no 'heigth'; did you mean 'height'?
    """
    names = switches_of(function)
    placed, known = _placed(_code(function)), _names(function)
    rest = _rest(_code(function))
    is_early = is_first or function.__name__ == "__init__"

    @cache  # not before a call: an alias may stand below the function
    def numbers() -> frozenset[str]:
        types = _types(function)
        return frozenset(name for name in types if takes_numbers_only(*types[name]))

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in (*zip(placed, args, strict=False), *kwargs.items()):
            if type(value) not in _TRUTHS:
                if name in names:
                    check_switches(_called(function, args), names, {name: value})
            elif name in numbers():
                of = _called(function, args)
                _check_types(of, _types(function), (), (), {name: value}, is_all=True)
                if is_optional_tensor(_types(function)[name][0]):
                    raise TypeError(f"{of}: {name} must be numbers or None, not {value}")
        if is_early:
            of = _called(function, args)
            _check_types(of, _types(function), placed, args, kwargs, is_all=is_first, is_early=True)
        try:
            return function(*args, **kwargs)
        except Exception as error:
            of = _called(function, args)
            if not isinstance(error, _OF_ARGUMENTS):
                _check_sizes(of, error, (*zip(placed, args, strict=False), *kwargs.items()))
                raise
            if isinstance(error, TypeError):
                if check_keywords is not None:
                    check_keywords(kwargs)
                _check_names(of, known, kwargs)
                if check_missing is not None:
                    check_missing(name for name in placed[len(args) :] if name not in kwargs)
                if placed == ("shape",) and len(args) > 1 and not isinstance(args[0], tuple):
                    raise TypeError(f"{of} takes the shape as one tuple: {of}({args})") from None
                check_places(of, function, args, kwargs)
            told = is_told(error)
            _check_types(of, _types(function), placed, args, kwargs, is_all=not told)
            if rest and not told and not _is_of_callers(error):
                for value in args[len(placed) :]:
                    _check_types(of, _types(function), (), (), {rest: value}, is_all=True)
            _check_sizes(of, error, (*zip(placed, args, strict=False), *kwargs.items()))
            raise

    return checked


def checked_first(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function`, whose arguments are checked before it writes, or runs for long.

    >>> @checked_first
    ... def save(folder: str, names: int = 1) -> None: ...
    >>> save(3)
    Traceback (most recent call last):
    TypeError: save: folder must be text, not 3
    """
    return checked_arguments(function, is_first=True)


def checked_fields(cls: Class) -> Class:
    """Class decorator, of a dataclass: its arguments are checked like those of a constructor.

    >>> from dataclasses import dataclass
    >>> @checked_fields
    ... @dataclass
    ... class Size:
    ...     height: int
    >>> Size("3")
    Traceback (most recent call last):
    TypeError: Size: height must be a whole number, not '3'
    """
    members: Any = cls
    members.__init__ = checked_arguments(members.__init__)
    return cls


def check_call(of: str, function: Callable[..., Any], args: Any, given: Mapping[str, Any]) -> None:
    """Raise a more helpful TypeError for arguments with which `function` has failed.

    of: the thing's name in messages. function: a method, bound to an object.
    """
    _check_names(of, _names(function), given)
    check_places(of, function, args, given)
    _check_types(of, _types(function), _placed(_code(function))[1:], args, given, is_all=True)


def is_told(error: BaseException) -> bool:
    """Whether a `raise` of rumus raised an error, whose message then says what is wrong."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not trace.tb_frame.f_globals.get("__name__", "").startswith("rumus."):
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == _RAISE


def _is_of_callers(error: BaseException) -> bool:
    """Whether it passed a function of the caller's, such as a loss, and so may be its own."""
    trace = error.__traceback__
    while trace is not None:
        package = trace.tb_frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in _PACKAGES and package not in sys.stdlib_module_names:
            return True
        trace = trace.tb_next
    return False


def _check_names(of: str, names: frozenset[str] | None, given: Mapping[str, object]) -> None:
    if names is not None and not given.keys() <= names:
        name = next(each for each in given if each not in names)
        raise TypeError(f"{of} takes no {name!r}{unknown_name(name, names)}") from None


def _check_types(
    of: str,
    types: Mapping[str, Declared],
    placed: tuple[str, ...],
    args: tuple[object, ...],
    given: Mapping[str, object],
    *,
    is_all: bool,
    is_early: bool = False,
) -> None:
    """Raise TypeError for the first argument that does not fit its declaration.

    ValueError for a path that none can be.

    is_all: False for the declarations that functions do not check themselves.
    is_early: see `wanted`.
    """
    for name, value in (*zip(placed, args, strict=False), *given.items()):
        if name not in types:
            continue
        if told := wanted(*types[name], value, is_all=is_all, is_early=is_early):
            raise TypeError(f"{of}: {name} must be {told}, not {shown(value)}") from None
        if fault := fault_of_declared(*types[name], value):
            raise ValueError(f"{of}: {name} must not {fault}") from None


def _types(function: Callable[..., Any]) -> dict[str, Declared]:
    """The declaration of each parameter, and the globals in which its names stand."""
    declared = getattr(function, "__annotations__", {})
    known = _globals(function)
    return {name: (str(kind), known) for name, kind in declared.items() if name != "return"}


def _called(function: Callable[..., Any], args: tuple[object, ...]) -> str:
    """The name of a function in messages: that of a method has the class that users know it by."""
    name = function.__name__
    if args and _plain(getattr(type(args[0]), name, _NOTHING)) is _plain(function):  # inherited
        return f"{type(args[0]).__name__}.{name}".removesuffix(".__init__")
    return function.__qualname__.removesuffix(".__init__")


def _plain(function: Any) -> Any:
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


def _code(function: Callable[..., Any]) -> CodeType | None:
    return getattr(_plain(function), "__code__", None)


def _globals(function: Callable[..., Any]) -> dict[Any, Any]:
    return getattr(_plain(function), "__globals__", {})


def _check_sizes(of: str, error: Exception, given: Iterable[tuple[str, object]]) -> None:
    """Raise ValueError for a whole number with more than 64 bits, with which a call has failed."""
    if is_told(error) or _is_of_callers(error):
        return
    for name, value in given:
        listed = value if isinstance(value, (list, tuple)) else (value,)
        if any(isinstance(each, int) and not -(2**63) <= each < 2**63 for each in listed):
            raise ValueError(f"{of}: {name} must fit 64 bits, not {shown(value)}") from None


def _rest(code: CodeType | None) -> str | None:
    """The name of the parameter that takes all further positions, if there is one."""
    if code is None or not code.co_flags & _TAKES_ANY_PLACE:
        return None
    return code.co_varnames[code.co_argcount + code.co_kwonlyargcount]


def _placed(code: CodeType | None) -> tuple[str, ...]:
    return () if code is None else code.co_varnames[: code.co_argcount]


def _names(function: Callable[..., Any]) -> frozenset[str] | None:
    """The keywords, with those that `**options: Unpack[...]` lists; None if any are allowed."""
    code = _code(function)
    if code is None:
        return None
    if not code.co_flags & _TAKES_ANY_NAME:
        return _named(code)
    rest = code.co_varnames[code.co_argcount + code.co_kwonlyargcount :]
    declared = getattr(function, "__annotations__", {})
    listed = (re.fullmatch(_UNPACKED, str(declared.get(name))) for name in rest[:2])
    options = [_globals(function).get(each[1]) for each in listed if each]
    return _named(code) | options[0].__annotations__.keys() if options and options[0] else None


def _named(code: CodeType) -> frozenset[str]:
    named = code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]
    return frozenset(named) - {"self", "cls"}


def _is_ours(cls: type, method: str) -> bool:
    """Whether a class inherits this method from rumus or Python, rather than defining its own."""
    bases = (base for base in cls.__mro__[:-1] if method in vars(base))
    return all(base.__module__.startswith("rumus.") for base in bases)


@cache  # of our own classes only
def _declared(
    owner: type,
) -> tuple[tuple[str, ...], frozenset[str] | None, frozenset[str], dict[str, Declared]]:
    """Positions, keywords (None for any), switches and declarations, also those of bases."""
    inits = [vars(base)["__init__"] for base in owner.__mro__[:-1] if "__init__" in vars(base)]
    switches, types, found = frozenset[str](), dict[str, Declared](), frozenset[str]()
    for init in inits:
        switches |= switches_of(init) - found
        types |= {name: kind for name, kind in _types(init).items() if name not in found}
        code = _code(init)
        if code is None or not code.co_flags & _TAKES_ANY_NAME:
            break
        found |= _named(code)
    return _placed(_code(inits[0])), _names(inits[0]), switches, types
