"""Values that code takes from outside a step: which can be compared, and which cannot.

`why_not` knows what may give another number each time: iterators, clocks, random generators, files,
functions of unknown modules not written in Python.
"""

from __future__ import annotations

import builtins
import ctypes
import functools
import operator
import re
import sys
import types
from array import array
from collections import OrderedDict, deque
from contextvars import Context, ContextVar, Token
from datetime import datetime, time
from types import (
    AsyncGeneratorType,
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    CodeType,
    CoroutineType,
    FunctionType,
    GenericAlias,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    UnionType,
    WrapperDescriptorType,
)
from typing import Any, Final
from weakref import CallableProxyType, ProxyType, ReferenceType

import numpy as np

from rumus.tensor import Expr, Kernel, Tensor
from rumus.train.capture.guards import BY_BITS, BY_VALUE, CACHED, OF_C, is_comparable

CONTAINERS: Final = (
    list, dict, set, frozenset, deque, np.ndarray, np.void, bytearray, memoryview, array,
    ReferenceType, ContextVar, Context, CACHED, *OF_C,
)  # fmt: skip
# In C, and refer to what they were made of.
HOLDERS: Final = (
    slice, GenericAlias, UnionType, operator.attrgetter, operator.itemgetter,
    operator.methodcaller, re.Match, Token,
)  # fmt: skip
_EMPTY: Final[tuple[dict[str, int], ...]] = ({}, OrderedDict())
VIEWS: Final[tuple[type, ...]] = (  # of dicts, which they hold
    MappingProxyType,
    *(type(empty.keys()) for empty in _EMPTY),
    *(type(empty.values()) for empty in _EMPTY),
    *(type(empty.items()) for empty in _EMPTY),
)
PLAIN: Final = (*BY_BITS, *BY_VALUE, np.generic, type(None), type(Ellipsis), type(NotImplemented))
# Handled elsewhere, or irrelevant.
_LOOKED_INTO: Final[tuple[type, ...]] = (
    Tensor, Expr, Kernel, ModuleType, FunctionType, MethodType, CodeType, tuple, staticmethod,
    classmethod, property, functools.partial, operator.attrgetter, operator.itemgetter,
    operator.methodcaller, *VIEWS, GetSetDescriptorType, MemberDescriptorType,
    MethodDescriptorType, WrapperDescriptorType, GenericAlias, UnionType, np.ufunc,
    MethodWrapperType, WrapperDescriptorType,
)  # fmt: skip
_PURE_MODULES: Final = frozenset(
    ("builtins", "math", "cmath", "operator", "_operator", "itertools", "functools", "_functools",
     "collections", "_collections", "_abc", "abc", "_struct", "struct", "zlib", "binascii",
     "_bisect", "_heapq", "_statistics", "typing", "_typing", "_warnings", "_weakref", "copy",
     "_thread", "_contextvars", "unicodedata", "_sre", "_string")
)  # fmt: skip
_IMPURE: Final = frozenset(
    ("open", "input", "globals", "locals", "eval", "exec", "compile", "breakpoint", "__import__")
)
_OF_THREADS: Final = frozenset(
    (
        "get_ident",
        "get_native_id",
        "start_new_thread",
        "start_joinable_thread",
        "_count",
        "stack_size",
    )
)
OF_LOCKS: Final = frozenset(("locked", "acquire", "_is_owned"))
_HIDDEN: Final = frozenset(
    (("_weakref", "getweakrefcount"), ("_weakref", "getweakrefs"),
     ("_contextvars", "copy_context"), ("_abc", "_get_dump"))
)  # fmt: skip
# Their objects have memory, or code, that Python does not see.
_HIDING: Final = frozenset(("numba", "wgpu", "wgpudawn", "cffi", "_cffi_backend"))
_DYNAMIC: Final = frozenset(
    (
        "getattr",
        "hasattr",
        "setattr",
        "delattr",
        "vars",
        "dir",
        "__getattribute__",
        "__get__",
        "repr",
        "format",
        "ascii",
    )
)
_NUMPY_FILES: Final = frozenset(
    (
        "load",
        "fromfile",
        "loadtxt",
        "genfromtxt",
        "fromregex",
        "memmap",
        "open_memmap",
        "DataSource",
    )
)
_NUMPY_SETTINGS: Final = frozenset(
    ("get_printoptions", "getbufsize", "geterr", "geterrcall", "array2string", "array_repr",
     "array_str")
)  # fmt: skip
_SHOWN: Final = frozenset(("_thread", "_contextvars", "typing", "_ctypes", "re", "types"))
# Objects of types in C of these modules are made of nothing but what they are given.
_MAKING: Final = frozenset(
    ("datetime", "decimal", "array", "time", "zoneinfo", "xml", "os", "_io", "weakref", "types",
     "ast", "_ast", "sys", "ctypes")
)  # fmt: skip
_OPENING: Final = ("FileIO",)
_POINTING: Final = ("z", "Z", "O")  # codes of types of C: texts and objects
# Types of C extensions may say that they are of builtins: those that Python itself has.
_BUILT_IN: Final = frozenset(
    kind
    for module in (builtins, types)
    for kind in vars(module).values()
    if isinstance(kind, type) and kind.__name__ != "PyCapsule"  # hides what it holds
)
_IN_C: Final = (MethodDescriptorType, ClassMethodDescriptorType, WrapperDescriptorType)
_TRUSTED: Final = (
    "rumus.tensor",
    "rumus.gpu",
    "rumus.train.metrics",
    "rumus.train.base",
    "numpy",
    "numba",
    "llvmlite",
    "wgpu",
    "wgpudawn",
    "cffi",
    "_cffi_backend",
    "pycparser",
)
_HEAP, _IMMUTABLE = 1 << 9, 1 << 8  # type flag: created by a class statement, if not immutable


def is_trusted(module: object) -> bool:
    """Whether code is known to depend only on its arguments, or to report if it does not."""
    name = module if isinstance(module, str) else ""
    return any(name == known or name.startswith(f"{known}.") for known in _TRUSTED)


def is_of_rumus(module: object) -> bool:
    """Whether code is this library's, whose functions and constants do not change."""
    return isinstance(module, str) and module.startswith("rumus.")


def is_of_numpy(kind: type) -> bool:
    """Whether a class, not of arrays, is one that NumPy has written in Python, or derived."""
    of_numpy = any(is_of_python(each) and _is_in_numpy(each.__module__) for each in kind.__mro__)
    return of_numpy and not issubclass(kind, (np.ndarray, type))


def _is_in_numpy(module: object) -> bool:
    return isinstance(module, str) and module.partition(".")[0] == "numpy"


def computes_with_numpy(value: object) -> bool:
    """Whether code with a value depends on how NumPy shows numbers and treats errors."""
    if isinstance(value, type):
        return issubclass(value, np.generic)
    return value is np or isinstance(value, (np.generic, np.ndarray, np.ufunc))


def is_of_python(kind: type) -> bool:
    """Whether a class was made by a class statement, so that its methods are visible.

    C code makes such classes, too, with methods of its own.
    """
    if not kind.__flags__ & _HEAP or kind.__flags__ & _IMMUTABLE:
        return False
    return not any(
        isinstance(each, _IN_C) and each.__objclass__ is kind for each in vars(kind).values()
    )


def is_of_library(thing: type | ModuleType) -> bool:
    """Whether a class or a module is this library's, Python's, or trusted: nobody changes it."""
    name = thing.__name__ if isinstance(thing, ModuleType) else thing.__module__
    if isinstance(thing, type) and not is_of_python(thing):
        return True
    if isinstance(thing, type) and not _is_there(thing):
        return False  # made by a function of a module, as by `types.new_class`
    is_pythons = str(name).partition(".")[0] in sys.stdlib_module_names
    return is_pythons or is_trusted(name) or is_of_rumus(name)


def is_changeable(kind: type) -> bool:
    """Whether a program may give a class other attributes: also one of Python's own library."""
    return (
        is_of_python(kind) and not is_trusted(kind.__module__) and not is_of_rumus(kind.__module__)
    )


def _is_there(kind: type) -> bool:
    """Whether the module that a class names has it."""
    own = getattr(sys.modules.get(str(kind.__module__)), "__dict__", {})
    first, dot, _ = kind.__qualname__.partition(".")
    return first in own and (bool(dot) or own[first] is kind)


def is_of_user(function: FunctionType) -> bool:
    """Whether a function is followed, so that what it reads is seen."""
    return not is_trusted(function.__module__)


def is_plain(value: object) -> bool:
    """Whether equality says all about a value: it has no attributes.

    Its class tells: `isinstance` asks others for theirs, which runs code, as of a proxy.
    """
    kind = type(value)
    if issubclass(kind, np.void):  # a row of an array, which changes with it
        return False
    if kind is slice and isinstance(value, slice):
        return all(map(is_plain, (value.start, value.stop, value.step)))
    if not issubclass(kind, PLAIN):
        return False
    if isinstance(value, (datetime, time)) and not is_plain(value.tzinfo):
        return False
    if isinstance(value, np.dtype) and value.names is not None:  # which may be renamed
        return False
    if isinstance(value, np.dtype) and value.metadata is not None:  # a dict, with anything
        return False
    return not is_of_python(kind) or is_trusted(kind.__module__)


def is_dynamic(value: object) -> bool:
    """Whether it reads attributes whose names do not appear in the calling code."""
    kinds = (BuiltinFunctionType, WrapperDescriptorType, MethodWrapperType)
    return isinstance(value, kinds) and value.__name__ in _DYNAMIC


def is_named(value: object) -> bool:
    """Whether it is given the names of attributes, and is no text of an object."""
    return is_dynamic(value) and getattr(value, "__name__", "") not in ("repr", "format", "ascii")


def runs_hidden_code(descriptor: type) -> bool:
    """Whether reading an attribute by a descriptor of this type runs C code of some library."""
    is_known = is_of_python(descriptor) or descriptor in _BUILT_IN
    return not (is_known or descriptor.__module__ in _PURE_MODULES | _SHOWN)


def why_not(value: Any) -> str | None:
    """Return why a value cannot be compared from step to step, or None."""
    kind = type(value)
    if isinstance(value, PLAIN) and not isinstance(value, np.void):
        return None
    if isinstance(value, super):
        return "an object of super(), which hides what it reads"
    if isinstance(value, (BuiltinFunctionType, FunctionType, type)):
        return _why_not_called(value)
    if isinstance(value, MethodWrapperType):
        return why_not(value.__self__)
    if _is_random(kind):
        return "a random generator"
    if _hides_memory(kind):
        return f"a {kind.__name__} (of {kind.__module__}), which hides what it reads"
    if isinstance(value, (ProxyType, CallableProxyType)):
        return "a weak proxy, which hides its target"
    if isinstance(value, (ctypes.Array, ctypes.Structure, ctypes.Union)) and _points(kind):
        return f"a {kind.__name__} with pointers, whose targets cannot be inspected"
    if isinstance(value, ctypes._Pointer):
        return "a pointer, whose target cannot be inspected"
    if _is_iterator(kind):
        return "an iterator"
    if isinstance(value, CONTAINERS):
        return None if is_comparable(value) else _too_large(value)
    if isinstance(value, _LOOKED_INTO):
        return None
    return _why_not_instance(kind)


def _hides_memory(kind: type) -> bool:
    module = str(kind.__module__)
    return module.partition(".")[0] in _HIDING and not module.startswith("numba.core.types")


def _points(kind: Any) -> bool:
    """Whether a type of C has pointers within, to memory, texts, functions or objects."""
    if issubclass(kind, ctypes._SimpleCData):
        return kind._type_ in _POINTING
    if issubclass(kind, ctypes.Array):
        return _points(kind._type_)
    fields = [field for each in kind.__mro__ for field in vars(each).get("_fields_", ())]
    return not issubclass(kind, (ctypes.Structure, ctypes.Union)) or any(
        _points(field[1]) for field in fields
    )


def _is_seen(kind: type) -> bool:
    """Whether nothing of what a class adds to its objects is hidden."""
    if is_of_python(kind) or kind in _BUILT_IN or issubclass(kind, (BaseException, type)):
        return True
    return is_trusted(kind.__module__) or kind.__module__ in _SHOWN


def _too_large(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return "a NumPy array of objects, which cannot be compared"
    if isinstance(value, np.ndarray):
        return f"a NumPy array {value.shape} too large to compare at each step"
    return f"a {type(value).__name__} too large to compare at each step"


def _why_not_instance(kind: type) -> str | None:
    """An instance: of Python classes, or of others with hidden contents."""
    for each in kind.__mro__[:-1]:
        if not _is_seen(each):
            return f"a {kind.__qualname__} (of {each.__module__}), which cannot be compared"
    calls = [vars(each)["__call__"] for each in kind.__mro__ if "__call__" in vars(each)]
    is_hidden = bool(calls) and isinstance(calls[0], WrapperDescriptorType)
    if is_hidden and not is_trusted(kind.__module__):
        return f"a {kind.__qualname__}, whose calls run code that cannot be inspected"
    return None


def _is_random(kind: type) -> bool:
    modules = {str(each.__module__) for each in kind.__mro__}  # some types in C have no text
    return "_random" in modules or any(name.startswith("numpy.random") for name in modules)


def _is_iterator(kind: type) -> bool:
    """Whether it is an iterator with hidden state, as those not written in Python have."""
    if issubclass(kind, (CoroutineType, AsyncGeneratorType)):
        return True
    step = getattr(kind, "__next__", None)
    return step is not None and not (isinstance(step, FunctionType) and is_of_user(step))


def _is_made_of_arguments(kind: type) -> bool:
    """Whether making an object of a class reads only what it is given, or is followed."""
    root = str(kind.__module__).partition(".")[0]
    if is_of_python(kind) or kind in _BUILT_IN or root not in sys.stdlib_module_names:
        return True
    if root == "_io":
        return kind.__name__ not in _OPENING
    known = root in _PURE_MODULES | _SHOWN | _MAKING
    return known or issubclass(kind, BaseException)


def _why_not_called(value: Any) -> str | None:
    """A function or class, judged by its module."""
    name, module = value.__name__, getattr(value, "__module__", None)
    if isinstance(value, FunctionType):
        if is_trusted(module) and name in _NUMPY_SETTINGS:
            return "a function that reads NumPy's settings"
        bad = name in _NUMPY_FILES and is_trusted(module)
        return "a function that reads files" if bad else None
    if isinstance(value, type):
        if _is_random(value):
            return "a random generator"
        if issubclass(value, np.datetime64):
            return "a class that may tell the time"
        if is_trusted(module) and name in _NUMPY_FILES:
            return "a class that reads files"
        hidden = next((each for each in value.__mro__ if not _is_made_of_arguments(each)), None)
        made = hidden and f"{hidden.__module__}.{hidden.__name__}"
        return f"{made}, whose objects may read files and what else nobody sees" if made else None
    owner = value.__self__
    if owner is None or isinstance(owner, ModuleType):
        module = module or getattr(owner, "__name__", None)
        if isinstance(module, str) and module.startswith("numpy.random"):
            return "a random generator"
        known = module in _PURE_MODULES or is_trusted(module)
        known = known and (module, name) not in _HIDDEN
        known = known and not (module == "_thread" and name in _OF_THREADS)
        if known and not (module in ("builtins", "io", "_io") and name in _IMPURE):
            return "a function that reads files" if name in _NUMPY_FILES else None
        return f"{module}.{name}(), whose results cannot be predicted"
    if isinstance(owner, type):
        known = owner.__module__ in _PURE_MODULES or is_trusted(owner.__module__)
        known = known and (owner.__module__ != "builtins" or owner in _BUILT_IN)
        return None if known else f"{owner.__name__}.{name}(), whose results cannot be predicted"
    return why_not(owner)
