"""`Reads`: follows the Python code of one step, and notes what it reads from outside.

Python can call a function before each instruction of a frame. This shows which global names,
closed-over variables and attributes a step reads, and of which objects, whatever its source:
methods, lambdas, code made by exec. Each of them becomes a guard. Code that depends only on its
arguments, such as that of tensors, is not followed; C code cannot be, so it is known by name.
"""

from __future__ import annotations

import functools
import gc
import sys
import threading
from abc import ABCMeta, get_cache_token
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from importlib import import_module
from types import (
    BuiltinFunctionType,
    CellType,
    ClassMethodDescriptorType,
    CodeType,
    FrameType,
    FunctionType,
    GenericAlias,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any, Final
from weakref import ReferenceType

import numpy as np

from rumus.tensor import Expr, Generator, Kernel, Parameter, Tensor
from rumus.tensor.memory.uninterrupted import putting_back
from rumus.train.base.live_objects import referrers
from rumus.train.capture.cells import MISSING, contents
from rumus.train.capture.followed_frame import (
    BY_NAME,
    ELEMENT,
    PLACES,
    TELLING,
    UNKNOWN,
    WHOLLY,
    FollowedFrame,
)
from rumus.train.capture.guards import (
    CACHED,
    DECIMAL_CONTEXT,
    DIGITS,
    ERROR_HANDLERS,
    NUMPY_SETTINGS,
    RECURSION,
    REGISTERED,
    Guards,
    cached_results,
    is_comparable,
    reachable,
)
from rumus.train.capture.lookup import (
    ADDRESSES,
    gives_address,
    has_plain_dict,
    in_classes,
    is_data_descriptor,
    looks_up_plainly,
    own_names,
    plain_writer,
)
from rumus.train.capture.outside import (
    CONTAINERS,
    HOLDERS,
    OF_LOCKS,
    VIEWS,
    computes_with_numpy,
    is_changeable,
    is_dynamic,
    is_named,
    is_of_library,
    is_of_numpy,
    is_of_python,
    is_of_rumus,
    is_of_user,
    is_plain,
    is_trusted,
    runs_hidden_code,
    why_not,
)

_MAKING: Final = frozenset(("__init__", "__new__", "__init_subclass__", "__post_init__"))
_ARRAYS_SHOWN: Final = frozenset(("numpy._core.arrayprint", "numpy.core.arrayprint"))
_OF_DATES: Final = frozenset(("now", "today", "utcnow"))
_OF_DIGITS: Final = (int, str, repr, format, ascii, print)
_OF_TEXTS: Final = (repr, format, ascii, print)
_SHOWN_BY_C: Final = (SimpleNamespace, BaseException)  # and compared, the first
# Of functions and frames that the step makes: variables that were there before.
_NAMESPACES: Final = frozenset(
    ("__globals__", "__builtins__", "f_globals", "f_builtins", "f_locals", "f_back")
)
_OF_MEMORY: Final = ("__sizeof__", "__alloc__")
# What a class says of itself, and nothing in C asks for.
_ABOUT: Final = frozenset(
    ("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__",
     "__annotate_func__", "__annotations_cache__", "__firstlineno__", "__static_attributes__",
     "__dataclass_fields__", "__dataclass_params__", "__orig_bases__", "__parameters__")
)  # fmt: skip
_CALLED: Final = (
    FunctionType, staticmethod, classmethod, BuiltinFunctionType, MethodType, MethodWrapperType,
    functools.partial,
)  # fmt: skip
_MANAGERS: Final = ("contextmanager.", "_GeneratorContextManager")  # they run what is followed
_PROTOCOLS: Final = (
    "_allow_reckless_class_checks",
    "_caller",
)  # which module asks, always the same

_IMPORTS: Final[CodeType] = import_module("_frozen_importlib")._find_and_load.__code__
_READ_BY_HOST: Final = frozenset(
    function.__code__
    for name in ("numpy", "item", "tolist", "__float__", "__int__", "__bool__", "__index__",
                 "__array__", "__dlpack__", "__iter__", "__repr__", "__format__", "__str__")
    if isinstance(function := vars(Tensor).get(name), FunctionType)
)  # fmt: skip


class Reads:
    """What one step has read, as guards, and why they are not enough, if so."""

    def __init__(self, step: Callable[..., object]) -> None:
        self.guards = Guards()
        self.why_not: str | None = None
        self._outside: dict[int, tuple[Any, str]] = {}  # every object that was there before
        self._functions: dict[int, list[FunctionType]] = {}  # by their very code: copies are equal
        self._inner: set[CodeType] = set()  # of functions that the step itself makes
        self._written: set[tuple[int, str]] = set()
        self._left: list[tuple[Any, str, str]] = []  # that it has written, before any read
        self._names: set[str] = set()  # that were read of nobody knows what
        self._reads_all = self._reads_namespaces = False
        self._reads_any = False  # whether names that nobody sees are read of nobody knows what
        self._shows_names = False
        self._imports = False  # whether a module is being imported
        self._imported: list[str] = []  # that were not there
        self._has_dates = self._has_datetimes = self._has_now = False
        self._take(step, _label_of(step))

    @contextmanager
    def follow(self) -> Iterator[None]:
        """Follow what this thread runs in the block.

        The garbage collector rests meanwhile: callbacks and finalizers that it runs at any moment
        are not part of the step. It is not disabled, which code may ask about.
        """
        before, thresholds = sys.gettrace(), gc.get_threshold()

        def put_back() -> None:
            sys.settrace(before)
            if thresholds[0] and not gc.get_threshold()[0]:
                gc.set_threshold(*thresholds)
            self._outside.clear()
            self._functions.clear()

        with putting_back(put_back):
            gc.set_threshold(0, *thresholds[1:])
            sys.settrace(self._entered)
            yield

    # What is read

    def read_global(self, frame: FrameType, name: str) -> Any:
        """A global name, or one of Python's own."""
        names = frame.f_globals
        if is_of_rumus(names.get("__name__")):
            return names.get(name, frame.f_builtins.get(name, UNKNOWN))  # nobody exchanges them
        self.guards.add_key(names, name, name)
        found = names.get(name, UNKNOWN)
        if name not in names:
            self.guards.add_key(frame.f_builtins, name, name)
            found = frame.f_builtins.get(name, UNKNOWN)
        return found if is_named(found) else self._take(found, name)  # it is asked in the frame

    def read_cell(self, frame: FrameType, name: str) -> Any:
        """A variable of an enclosing function, which made the running one before the step.

        Or one that the running function hands on to another, which it makes.
        """
        for cell in self._cells(frame, name):
            self.guards.add_attribute(cell, "cell_contents", name)
            self._take(contents(cell), name)
        return frame.f_locals.get(name, UNKNOWN)

    def _cells(self, frame: FrameType, name: str) -> Iterator[CellType]:
        """Yield what a variable is in: of functions with this code, those with its value.

        A function that the step makes has its variables from one that was there before, which
        hands them on. Another of its code may have been there as well.
        """
        code, value = frame.f_code, frame.f_locals.get(name, MISSING)
        if name not in code.co_freevars:
            return
        if id(code) not in self._functions and code not in self._inner:
            made = [f for f in referrers(code) if isinstance(f, FunctionType)]
            self._functions[id(code)] = [f for f in made if f.__code__ is code]
        for function in self._functions.get(id(code), ()):
            cell = (function.__closure__ or ())[code.co_freevars.index(name)]
            if contents(cell) is value:
                yield cell

    def read_attribute(self, base: Any, name: str) -> Any:
        """An attribute of what is known, or else of whatever has it."""
        if base is not UNKNOWN:
            label = self._outside[id(base)][1] if self._is_outside(base) else None
            return self._attribute(base, name, label)
        if name not in self._names:
            self._names.add(name)
            for thing, label in list(self._outside.values()):
                self._attribute_if_there(thing, name, label)
        return UNKNOWN

    def _attribute_if_there(self, thing: Any, name: str, label: str) -> None:
        """Note an attribute of what may be the object that the step has read it of.

        Each of its classes that has one: `super()` and `type(thing)` see what others hide.
        """
        kind = thing if isinstance(thing, type) else type(thing)
        if name in (own_names(thing) or ()) or in_classes(kind, name) is not MISSING:
            self._attribute(thing, name, label)
            for each in kind.__mro__:
                if name in vars(each) and not is_of_library(each):
                    self._take_found(self._entry(each, name), f"{each.__name__}.{name}")
        elif isinstance(thing, type):
            self._of_class(type(thing), name, None)
            self._take_method_in_c(thing, name)
        elif is_changeable(kind) and in_classes(type(kind), name) is not MISSING:
            self._attribute(kind, name, kind.__name__)  # of type(thing)

    def _entry(self, kind: type, name: str) -> Any:
        """What a class itself has under a name; a function, for what stands for one."""
        self.guards.add_entry(kind, name, f"{kind.__name__}.{name}")
        found = vars(kind).get(name, MISSING)
        return found.__func__ if isinstance(found, (staticmethod, classmethod)) else found

    def read_import(self, frame: FrameType, name: str, level: int, names: Any) -> Any:
        """A module that the code names: another one may be put into its place."""
        if level:
            package = frame.f_globals.get("__package__") or ""
            name = ".".join([*package.split(".")[: 1 - level or None], *filter(None, [name])])
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            path = ".".join(parts[:length])
            if not is_of_rumus(frame.f_globals.get("__name__")):
                self.guards.add_key(sys.modules, path, f"import {path}")
            self._take(sys.modules.get(path, UNKNOWN), path)
        found = sys.modules.get(name if names else parts[0], UNKNOWN)
        for part in names or ():  # Python looks for modules where a package has no such attribute
            if part not in (own_names(found) or {part}):
                self.guards.add_key(sys.modules, f"{name}.{part}", f"import {name}.{part}")
                self._take(sys.modules.get(f"{name}.{part}", UNKNOWN), f"{name}.{part}")
        return found

    def use_method(self, base: Any, name: str) -> None:
        """What a tensor's class gives may be exchanged there, and a parameter's name be set."""
        if in_classes(Tensor, name) is not vars(object).get(name, MISSING):
            self.guards.add_attribute(Tensor, name, f"Tensor.{name}")
        if isinstance(base, Parameter) and name == "name":
            self.guards.add_attribute(base, name, f"the name of {base.label}")

    def use_operator(self, name: str) -> None:
        """An operator, which may be that of a tensor on either side."""
        for method in (f"__{name}__", f"__r{name}__"):
            self.use_method(UNKNOWN, method)

    def write_attribute(self, base: Any, name: str) -> None:
        """What the step writes before it reads it, it knows."""
        if name in ADDRESSES:
            self.refuse(f"it writes {name}, an address, whose memory cannot be compared")
        if base is not UNKNOWN and not self._is_known(base, name):
            self._written.add((id(base), name))
            if self._is_outside(base):
                self._left.append((base, name, f"{_label_of(base)}.{name}"))

    def write_global(self, frame: FrameType, name: str) -> None:
        """The same for a global variable."""
        self._left.append((frame.f_globals, name, name))

    def write_cell(self, frame: FrameType, name: str) -> None:
        """The same for a variable of an enclosing function."""
        for cell in self._cells(frame, name):
            self._left.append((cell, "cell_contents", name))

    def has_run(self) -> None:
        """Note what the step has left where it wrote, for replays, which run none of it."""
        may_ask = self._has_dates and not self._names.isdisjoint(_OF_DATES)
        if may_ask or (self._has_datetimes and self._has_now):
            self.refuse("it may ask a date for the time, which passes")
        for name in self._imported:
            if name not in sys.modules:
                self.refuse(f"it looks for a module {name}, which may be found later")
        for thing, name, label in self._left:
            own = thing if isinstance(thing, dict) else own_names(thing) or {}
            if name in own and not isinstance(thing, type):
                if is_plain(own[name]):
                    self.guards.add_write(own.__setitem__, name, own[name])
                else:
                    self.guards.add_left_key(own, name, label)
            elif (write := plain_writer(thing, name)) is not None:
                value = getattr(thing, name, MISSING)
                if is_plain(value):
                    self.guards.add_write(write, name, value)
                elif value is not MISSING:
                    self.guards.add_left_attribute(thing, name, label)
        self._left.clear()
        self.guards.names_are_given()

    def _is_outside(self, thing: object) -> bool:
        known = self._outside.get(id(thing))
        return known is not None and known[0] is thing

    def _is_known(self, base: Any, name: str) -> bool:
        own = own_names(base)
        return self.guards.knows(own, name) or self.guards.knows(base, name)

    def _attribute(self, base: Any, name: str, label: str | None) -> Any:
        """Note an attribute, without running code, if the object was there before the step."""
        if is_plain(base) and isinstance(in_classes(type(base), name), ClassMethodDescriptorType):
            self._take(getattr(base, name), f"{label or type(base).__name__}.{name}")
        if isinstance(base, (Expr, Kernel)) or is_plain(base) or _is_of_tensors(base, name):
            return UNKNOWN
        if (id(base), name) in self._written:
            label = None
        if isinstance(base, MethodType) and (name == "__doc__" or name not in vars(MethodType)):
            base, label = base.__func__, label or _label_of(base)
        if isinstance(base, GenericAlias) and name not in vars(GenericAlias):
            base, label = base.__origin__, label or _label_of(base.__origin__)
        if isinstance(base, FunctionType) and base.__code__ not in self._inner:
            label = label or _label_of(base)
        if isinstance(base, type):
            return self._of_a_class(base, name, label)
        if isinstance(base, threading.local):
            return self._got(base, name, label, f"{label}.{name}")  # that of the thread that asks
        kind = type(base)
        if name == "cache_info" and isinstance(base, CACHED):
            self.refuse(f"it asks how often {label or _label_of(base)} was called")
        if kind.__module__ == "_thread" and name in OF_LOCKS:
            self.refuse(f"it uses {name}() of a lock, which other threads change")
        found = in_classes(kind, name)
        if isinstance(base, Generator) and name in PLACES:
            self._own(vars(base), "_position", label, f"{label}.{name}")
        if isinstance(base, ModuleType) and found is MISSING:
            if name not in vars(base):  # its function is asked, perhaps one in C
                self._own(vars(base), "__getattr__", label, f"{base.__name__}.__getattr__")
            return self._own(vars(base), name, label, f"{base.__name__}.{name}")
        shown = f"{label}.{name}"
        if isinstance(found, (GetSetDescriptorType, MemberDescriptorType)):
            return self._got(base, name, label, shown)
        own = own_names(base)
        if is_data_descriptor(found):
            self._of_class(kind, name, label)
            return self._bound(found, base, label, shown)
        if found is not MISSING and not hasattr(type(found), "__get__") and looks_up_plainly(kind):
            if label is None:
                self._of_class(kind, name, None)
            return self._got(base, name, label, shown)
        is_cache = is_of_rumus(kind.__module__) and name.startswith("_")
        if is_cache and isinstance((own or {}).get(name), OrderedDict):
            return UNKNOWN  # it fills and turns over: its tensors are watched
        is_method = isinstance(found, FunctionType) and is_of_rumus(found.__module__)
        if own is not None and not (is_method and name != "forward" and name not in own):
            if label is not None and is_changeable(kind) and has_plain_dict(kind):
                self.guards.add_attribute(base, "__dict__", f"the attributes of {label}")
            value = self._own(own, name, label, shown)
            if value is not UNKNOWN:
                return value
        self._of_class(kind, name, label)
        return UNKNOWN if found is MISSING else self._bound(found, base, label, shown)

    def _own(self, own: dict[str, Any], name: str, label: str | None, shown: str) -> Any:
        value = own.get(name, UNKNOWN)
        if label is not None:
            self.guards.add_key(own, name, shown)
            self._take(value, shown)
        return value

    def _got(self, base: Any, name: str, label: str | None, shown: str) -> Any:
        """A slot, or what a type that is written in C has."""
        value = getattr(base, name, UNKNOWN)
        if label is not None and name not in ("__dict__", "__class__"):
            self.guards.add_attribute(base, name, shown)
        return self._take(value, shown) if label is not None else value

    def _of_a_class(self, base: type, name: str, label: str | None) -> Any:
        """An attribute of a class, which has it itself, or by its metaclass."""
        meta = type(base)
        if name == "__dict__":
            self.read_namespace(base)
            return UNKNOWN
        if name == "__subclasses__":
            self.refuse(f"it asks for the subclasses of {base.__name__}, which may grow")
            return UNKNOWN
        of_meta = in_classes(meta, name)
        if isinstance(of_meta, (GetSetDescriptorType, MemberDescriptorType)):
            return self._got(base, name, label or base.__name__, f"{base.__name__}.{name}")
        if in_classes(base, name) is MISSING:
            self._take_method_in_c(base, name)
        if in_classes(base, name) is MISSING and not is_of_library(meta):
            self._of_class(base, name, label)
            self._of_class(meta, name, None)
            return UNKNOWN if hasattr(type(of_meta), "__get__") else of_meta
        return self._of_class(base, name, label)

    def _take_method_in_c(self, kind: type, name: str) -> None:
        """A method that a metaclass in C gives a class: those of `ctypes` take addresses."""
        found = in_classes(type(kind), name)
        if isinstance(found, MethodDescriptorType) and type(kind).__module__ == "_ctypes":
            self._take(getattr(kind, name), f"{kind.__name__}.{name}")

    def _of_class(self, kind: type, name: str, label: str | None) -> Any:
        """An attribute of a class, which may be changed there. No step makes a class.

        So it does not matter whether the object that was asked has been there before.
        """
        found = in_classes(kind, name)
        if label is None and is_of_library(kind):
            return UNKNOWN if found is MISSING or hasattr(type(found), "__get__") else found
        is_plain = not hasattr(type(found), "__get__") or isinstance(found, FunctionType)
        if isinstance(found, FunctionType) and is_of_rumus(found.__module__):
            return found
        if is_plain and found is not MISSING:
            if is_of_python(kind):
                self.guards.add_attribute(kind, name, f"{kind.__name__}.{name}")
        else:
            for each in kind.__mro__:
                if is_changeable(each) and (not is_of_library(each) or name in vars(each)):
                    self._entry(each, name)
                if name in vars(each):
                    break
        if isinstance(found, (staticmethod, classmethod)):
            self._take(found.__func__, name)
            return UNKNOWN
        if found is MISSING:
            return UNKNOWN
        if is_data_descriptor(found):
            if not is_of_library(type(found)):
                self._take(found, f"{kind.__name__}.{name}")
            return UNKNOWN
        if isinstance(found, ClassMethodDescriptorType):
            found = getattr(kind, name)
        self._take_found(found, f"{kind.__name__}.{name}")
        return found

    def _take_found(self, found: Any, label: str) -> None:
        """Look at what lies in a class, except at what C code reads attributes by."""
        is_seen = is_of_python(type(found)) or isinstance(
            found, (FunctionType, BuiltinFunctionType)
        )
        if is_seen or not hasattr(type(found), "__get__"):
            self._take(found, label)

    def _bound(self, found: Any, base: Any, label: str | None, shown: str) -> Any:
        """What an object's class gives for it."""
        if isinstance(found, FunctionType):
            if label is not None:
                self._take(found, shown)
            return MethodType(found, base)
        if hasattr(type(found), "__get__"):
            self._see_descriptor(found)
            return UNKNOWN
        return found

    def _see_descriptor(self, found: Any) -> None:
        if isinstance(found, CACHED) or runs_hidden_code(type(found)):
            self._take(found, _label_of(found))
        for part in ("fget", "func", "__func__", "__wrapped__"):
            function = getattr(found, part, None)
            if function is not None:
                self._take(function, _label_of(function))

    # What is there

    def _take(self, value: Any, label: str, *, is_weak: bool = False) -> Any:
        """Look at something from outside: what it is, and what it holds.

        is_weak: only a weak reference leads to it, so that guards may not keep it alive.
        """
        if value is UNKNOWN or value is MISSING:
            return value
        if value is Decimal or isinstance(value, Decimal):
            self.guards.add_attribute(DECIMAL_CONTEXT, "text", "the context of decimal")
        if computes_with_numpy(value):
            for name in ("legacy", "errors", "called"):
                self.guards.add_attribute(NUMPY_SETTINGS, name, f"NumPy's settings ({name})")
        if isinstance(value, date) or (isinstance(value, type) and issubclass(value, date)):
            self._has_dates = True
        if any(value is each for each in _OF_DIGITS):
            self.use_digits()
        if any(value is each for each in _OF_TEXTS):
            self.show_names()
        if isinstance(value, (str, np.dtype, np.ndarray)):
            self._note_texts((value,))
        if is_plain(value) or id(value) in self._outside:
            return value
        self._outside[id(value)] = value, label
        if (reason := why_not(value)) is not None:
            self.refuse(
                f"it uses {label}: {reason}" if label not in reason else f"it uses {reason}"
            )
            return value
        if gives_address(value):
            self.refuse(f"it uses {label}, which gives NumPy an address of memory")
        if is_dynamic(value):
            self.read_all()
            if value.__name__ in TELLING:  # kept for later, when nobody sees what it is asked
                self.read_any()
            if isinstance(value, MethodWrapperType):
                self._take(value.__self__, _label_of(value.__self__))
            return value
        if is_weak:
            self.guards.hold_weakly(value)
        self._look_into(value, label)
        self._take_kind(value, label, is_weak=is_weak)
        for name in self._names:
            self._attribute_if_there(value, name, label)
        if self._reads_all or (self._reads_namespaces and isinstance(value, _SHOWN_BY_C)):
            self._take_all(value, label)
        if self._shows_names:
            self._note_own_names(value, label)
        return value

    def _look_into(self, value: Any, label: str) -> None:
        if is_of_numpy(type(value)) and (own := own_names(value)) is not None:
            self.guards.add_contents(
                own, f"an attribute of {label}"
            )  # its methods are not followed
            self._take(tuple(own.values()), f"an attribute of {label}")
        if isinstance(value, CONTAINERS):
            self.guards.add_contents(value, label)
        if isinstance(value, defaultdict):
            self.guards.add_attribute(value, "default_factory", f"what {label} calls")
            self._take(value.default_factory, label)
        if isinstance(value, CACHED):
            self._take_cached(value, label)
        elif isinstance(value, ReferenceType):
            thing = ReferenceType.__call__(value)  # and not a method of it, as WeakMethod returns
            self._take(thing, f"what {label} refers to", is_weak=True)
        elif isinstance(value, (*CONTAINERS, tuple)):
            for item in reachable(value):
                self._take(item, f"an element of {label}")
        elif isinstance(value, FunctionType):
            self._take_function(value, label)
        elif isinstance(value, MethodType):
            self._take(value.__self__, _label_of(value.__self__))
            self._take(value.__func__, label)
        elif isinstance(value, (datetime, time)):
            self._take(value.tzinfo, f"the zone of {label}")
        elif isinstance(value, CellType):
            self._attribute(value, "cell_contents", label)
        elif value is get_cache_token:
            self.ask_registered(label)
        elif isinstance(value, (BuiltinFunctionType, MethodWrapperType)):
            self._take(value.__self__, label)
            if value.__name__ in WHOLLY:
                self.read_namespaces()
        elif value is str:
            self.read_namespaces()
        elif isinstance(value, functools.partial):
            for name in ("func", "args", "keywords"):  # which `__setstate__` exchanges
                self.guards.add_attribute(value, name, f"{name} of {label}")
                self._take(getattr(value, name), label)
        elif isinstance(value, VIEWS):
            for item in gc.get_referents(value):
                self._take(item, label)
        elif isinstance(value, HOLDERS):
            for item in gc.get_referents(value):
                self._take(item, f"a part of {label}")
        if isinstance(value, BY_NAME):
            self.read_by_name(value.__reduce__()[1])
        if isinstance(value, ABCMeta):
            self.ask_registered(label)
            if "__abstractmethods__" in vars(value):
                self._entry(value, "__abstractmethods__")

    def _take_kind(self, value: Any, label: str, *, is_weak: bool) -> None:
        """The class of an object, which may be exchanged, and the methods that operators call."""
        kind = type(value)
        classes = (*kind.__mro__, *(value.__mro__ if isinstance(value, type) else ()))
        for each in filter(is_changeable, classes):
            self.guards.add_size(each)
        if isinstance(value, ModuleType) and not is_of_library(value):
            self.guards.add_attribute(value, "__class__", f"the class of {label}")
        is_layer = is_of_rumus(kind.__module__) and hasattr(kind, "forward")
        if is_layer:
            for name in ("forward", "__call__"):  # what the library's layers do
                self.guards.add_attribute(kind, name, f"{kind.__name__}.{name}")
        if isinstance(value, type) and not is_of_library(value):
            self._take_making(value)
        is_own = is_trusted(kind.__module__) or is_of_rumus(kind.__module__)
        if not is_of_python(kind) or isinstance(value, (type, Tensor)) or (is_own and not is_layer):
            return
        is_plain_class = in_classes(kind, "__class__") is vars(object)["__class__"]
        if is_plain_class and not is_weak:
            self.guards.add_attribute(value, "__class__", f"the class of {label}")
        if is_own:
            return
        self.guards.add_attribute(kind, "__mro__", f"the bases of {kind.__name__}")
        for each in kind.__mro__:
            if is_of_python(each) and not is_of_rumus(each.__module__):
                for name, found in list(vars(each).items()):
                    if name in _MAKING:
                        continue
                    if name.startswith("__") and isinstance(found, FunctionType):
                        self.guards.add_attribute(each, name, f"{each.__name__}.{name}")
                    elif name.startswith("__"):
                        self._take_special(each, name, found)

    def _take_making(self, kind: type) -> None:
        """What objects of a class are made by, and what operators call of them."""
        self.guards.add_attribute(kind, "__mro__", f"the bases of {kind.__name__}")
        meta: type = type(kind)
        for each in (*kind.__mro__, *meta.__mro__):
            if not is_of_library(each):
                for name, found in list(vars(each).items()):
                    if name.startswith("__"):
                        self._take_special(each, name, found)

    def _take_special(self, kind: type, name: str, found: Any) -> None:
        """What code in C looks for in a class, such as what an operator calls: perhaps an object.

        It may also be None, or a number.
        """
        if name not in _ABOUT:
            given = self._entry(kind, name)
            if isinstance(found, _CALLED) or callable(found):
                self._take(given, f"{kind.__name__}.{name}")

    def ask_registered(self, label: str) -> None:
        """Something is told by what abstract classes have registered."""
        self.guards.add_attribute(REGISTERED, "token", f"what {label} has registered")

    def _take_function(self, function: FunctionType, label: str) -> None:
        """A function: its defaults now, and what it closes over when it runs."""
        if is_trusted(function.__module__):
            return
        self._functions.setdefault(id(function.__code__), []).append(function)
        if not is_of_rumus(function.__module__):
            self.guards.add_attribute(function, "__code__", label)
        for name in ("__defaults__", "__kwdefaults__"):
            value = getattr(function, name)
            if value is not None or not is_of_rumus(function.__module__):
                self.guards.add_attribute(function, name, f"a default of {label}")
            self._take(value, f"a default of {label}")

    def _take_cached(self, cached: Any, label: str) -> None:
        """A function with a cache: what it has returned so far may be returned again."""
        self._take(cached.__wrapped__, label)
        for result in cached_results(cached):
            self._take(result, f"a result of {label}")

    def read_by_name(self, names: Iterable[Any]) -> None:
        """Something in C reads attributes of these names, perhaps with dots, of whatever has it."""
        self.read_all()
        names = list(names)
        if not all(isinstance(name, str) for name in names):
            self.read_any()
        for name in names:
            for part in name.split(".") if isinstance(name, str) else ():
                self.look_around(UNKNOWN, part)
                self.read_attribute(UNKNOWN, part)

    def look_around(self, base: Any, name: str) -> None:
        """Refuse attributes of what the step makes that show what was there before."""
        if name in _NAMESPACES and not self._is_outside(base):
            self.refuse(f"it reads {name}, whose variables cannot be compared")
        if name in _OF_MEMORY:
            self.refuse(f"it asks {name}(), whose result depends on what was there before")

    def ask_for_any(self) -> None:
        """Something is asked by `getattr` for a name that nobody sees."""
        for name in _OF_DATES:
            self.read_attribute(UNKNOWN, name)

    def ask_address(self, asked: Callable[..., object], thing: Any, *, is_given: bool) -> None:
        """Refuse `id` of what the step makes, which may lie anywhere, and what else shows that.

        asked: or `hash`, or what makes a text. is_given: whether the thing is asked about, and not
        what a call of it returns.
        """
        kind = thing if isinstance(thing, type) and not is_given else type(thing)
        if asked is id or asked is hash:
            is_address = asked is id or getattr(kind, "__hash__", None) is object.__hash__
        else:
            is_address = thing is not UNKNOWN and thing is not ELEMENT and _shows_address(kind)
        if is_address and not (is_given and self._is_outside(thing)):
            self.refuse(f"it uses {asked.__name__}() of what it makes, another number each time")

    def read_namespace(self, thing: Any) -> None:
        """Note all that a class, a module or a function has, as its names are asked for."""
        if isinstance(thing, ModuleType):
            if is_of_library(thing) or not is_comparable(vars(thing)):
                self.refuse(f"it looks up names in {thing.__name__} that cannot be seen")
            else:
                self._note_contents(vars(thing), thing.__name__)
        elif isinstance(thing, FunctionType):
            self._take(vars(thing), _label_of(thing))
        elif isinstance(thing, type):
            for each in thing.__mro__:
                if not is_of_library(each):
                    self.guards.add_contents(self.guards.entries(each), each.__name__)
                    for name, value in list(vars(each).items()):
                        self._take(value, f"{each.__name__}.{name}")

    def read_all(self) -> None:
        """Note every attribute of every object: some are read whose names nobody sees."""
        if not self._reads_all:
            self._reads_all = True
            for value, label in list(self._outside.values()):
                self._take_all(value, label)

    def read_any(self) -> None:
        """Note all that modules, classes and functions have, and what that holds."""
        self.read_all()
        if not self._reads_any:
            self._reads_any = True
            for thing, label in list(self._outside.values()):
                if isinstance(thing, (ModuleType, type, FunctionType)):
                    self._note_names(thing, label)

    def _take_all(self, value: Any, label: str) -> None:
        own = own_names(value)  # others are in slots
        own = {} if own is None else own
        kind = type(value)
        if isinstance(value, (ModuleType, type, FunctionType)):
            self._note_names(value, label)
            return
        if is_trusted(kind.__module__):
            return
        if is_comparable(own):
            self.guards.add_contents(own, f"an attribute of {label}")
        names = dict.fromkeys((*own, "args") if isinstance(value, BaseException) else own)
        for each in kind.__mro__[:-1]:
            if (
                is_of_python(each)
                and not is_trusted(each.__module__)
                and not each.__module__.startswith("rumus.")
            ):
                names |= dict.fromkeys(n for n in vars(each) if not n.startswith("__"))
        for name in names:
            self._attribute(value, name, label)

    def _note_names(self, value: ModuleType | type | FunctionType, label: str) -> None:
        """Note what the names of a module, a class or a function stand for, if they may change."""
        if isinstance(value, type):
            for each in filter(is_changeable, value.__mro__):
                if self._reads_any or not is_of_library(each):
                    self._note_own(self.guards.entries(each), each.__name__, is_of_library(each))
        elif isinstance(value, FunctionType):
            if is_of_user(value) and vars(value):
                self._note_own(vars(value), f"an attribute of {label}", False)
        elif self._reads_any or not is_of_library(value):
            if is_comparable(vars(value)):
                self._note_own(vars(value), label, is_of_library(value))
            elif self._reads_any:
                self.refuse(f"it looks up names in {value.__name__} that cannot be seen")

    def _note_own(self, own: Mapping[str, Any], label: str, is_librarys: bool) -> None:
        self.guards.add_contents(own, label)
        if self._reads_any:
            self._note_contents(own, label, is_librarys=is_librarys)

    def _note_contents(
        self, own: Mapping[str, Any], label: str, *, is_librarys: bool = False
    ) -> None:
        """Note names, and what they stand for: not what Python itself gives a module or a class.

        is_librarys: they are of what nobody changes, except for its containers and what is added.
        """
        self.guards.add_contents(own, label)
        for name, found in list(own.items()):
            is_pythons = name.startswith("__") and name.endswith("__")
            if not (is_pythons or (is_librarys and _is_librarys(found))):
                self._take_found(found, f"{label}.{name}")

    def use_digits(self) -> None:
        """A text may be made of a number, or a number of a text: not of any length."""
        self.guards.add_attribute(DIGITS, "most", "the limit of digits of sys")

    def _note_texts(self, values: Iterable[object]) -> None:
        """Note texts that C code takes for a name of something else.

        NumPy's dates take some for the time; codecs, for a function that treats errors.
        """
        for value in values:
            if isinstance(value, (tuple, frozenset)):
                self._note_texts(value)
            elif isinstance(value, str):
                if hasattr(ERROR_HANDLERS, value):
                    self.guards.add_attribute(ERROR_HANDLERS, value, f"errors={value!r}")
                self._has_now |= value.lower() in ("now", "today")
                self._has_datetimes |= "datetime64" in value or value.lstrip("<>=")[:2] in (
                    "M",
                    "M8",
                )
            elif isinstance(value, (np.dtype, np.ndarray)):
                kind = value if isinstance(value, np.dtype) else value.dtype
                self._has_datetimes |= kind.kind == "M"

    def show(self, value: Any) -> None:
        """Something is formatted: what it shows may be any of its attributes."""
        self.use_digits()
        if (known := self._outside.get(id(value))) is not None and known[0] is value:
            self._take_all(value, known[1])
        self.ask_address(format, value, is_given=True)
        self.compare(value)

    def show_names(self) -> None:
        """A text may be made of a class, a function, or an object that has nothing else to tell."""
        if not self._shows_names:
            self._shows_names = True
            for thing, label in list(self._outside.values()):
                self._note_own_names(thing, label)

    def _note_own_names(self, thing: Any, label: str) -> None:
        """Note what texts tell of classes and functions, and of objects without more to tell."""
        for each in (thing, type(thing)):
            is_class = isinstance(each, type) and is_changeable(each) and not is_of_library(each)
            if is_class or (isinstance(each, FunctionType) and is_of_user(each)):
                self.guards.add_attribute(each, "__qualname__", f"the name of {label}")
            if is_class:
                self.guards.add_attribute(each, "__module__", f"the module of {label}")

    def compare(self, value: Any) -> None:
        """Something is compared or shown: perhaps namespaces, or a container of some.

        Their attributes are, where nobody sees it.
        """
        parts = value if isinstance(value, tuple) else (value,)
        if not all(is_plain(part) or isinstance(part, Tensor) for part in parts):
            self.read_namespaces()

    def read_namespaces(self) -> None:
        """Note every attribute of every namespace: code in C reads them, of those it is given."""
        if not self._reads_namespaces:
            self._reads_namespaces = True
            for thing, label in list(self._outside.values()):
                if isinstance(thing, _SHOWN_BY_C):
                    self._take_all(thing, label)

    def match(self, names: Any) -> None:
        """A class pattern reads attributes, those of these names and those of its positions."""
        for name in names if isinstance(names, tuple) else ():
            self.read_attribute(UNKNOWN, name)

    def refuse(self, why: str) -> None:
        """Note that the step cannot be repeated, unless something else came before."""
        self.why_not = self.why_not or why

    # Following

    def _entered(self, frame: FrameType, event: str, arg: object) -> Any:
        """A function begins, or a generator goes on. Returns what follows its instructions."""
        if self._imports:
            return None
        module = frame.f_globals.get("__name__", "")
        if frame.f_code is _IMPORTS:
            if (name := frame.f_locals["name"]) in sys.modules:  # asked for by `importlib`
                self.guards.add_key(sys.modules, name, f"import {name}")
                self._take(sys.modules[name], name)
            elif frame.f_back is not None and isinstance(frame.f_back.f_trace, FollowedFrame):
                self._imported.append(name)
            self._imports = True
            frame.f_trace_lines = False
            return self._after_import
        caller = frame.f_back.f_trace if frame.f_back is not None else None
        is_asked = isinstance(caller, FollowedFrame)
        name = frame.f_code.co_qualname
        is_known = (module == "contextlib" and name.startswith(_MANAGERS)) or (
            module == "typing" and name in _PROTOCOLS
        )
        if is_asked and (module in _ARRAYS_SHOWN or _shows_by_numpy(module, frame)):
            self.refuse("it shows an object of NumPy, according to NumPy's settings")
        if is_trusted(module) or is_known:
            if is_asked and frame.f_code in _READ_BY_HOST:
                self._check_device(frame.f_locals.get("self"))
            if is_asked and frame.f_code is Generator.__getstate__.__code__:  # it is copied
                self.read_attribute(frame.f_locals["self"], "state")
            return None
        if not is_asked and module.partition(".")[0] in sys.stdlib_module_names:
            return None  # what is trusted uses it
        if module.startswith(("rumus.optim", "rumus.train")):
            if is_asked:
                self.refuse(f"it asks {module} ({frame.f_code.co_name})")
            return None
        followed = FollowedFrame(self, frame)
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        constants = frame.f_code.co_consts
        self._inner.update(c for c in constants if isinstance(c, CodeType))
        self._note_texts(constants)
        if "RecursionError" in frame.f_code.co_names:
            self.guards.add_attribute(RECURSION, "limit", "the limit of recursion")
        return followed

    def _after_import(self, frame: FrameType, event: str, arg: object) -> Any:
        """Follow again once a module is there: it is made once, however often the step runs."""
        self._imports = event != "return"
        return self._after_import

    def _check_device(self, read: object) -> None:
        """A tensor of the host gives its numbers to code that is not run again."""
        if isinstance(read, Tensor) and not read.backend.runs_ahead:
            self.refuse("it reads numbers of a tensor on the CPU")


def _is_of_tensors(base: object, name: str) -> bool:
    """Whether an attribute is one that all tensors have, not of a class derived from theirs."""
    if not isinstance(base, Tensor):
        return False
    kinds = [kind for kind in type(base).__mro__ if name in vars(kind)]
    return name not in (own_names(base) or ()) and (not kinds or is_of_rumus(kinds[0].__module__))


def _is_librarys(found: Any) -> bool:
    """Whether what lies in a library's module or class is a part of the library, or tells all."""
    if isinstance(found, FunctionType):
        return str(found.__module__).partition(".")[0] in sys.stdlib_module_names
    if isinstance(found, (type, ModuleType)):
        return is_of_library(found)
    if isinstance(found, CONTAINERS):
        return not is_comparable(found)
    return is_plain(found) or not is_of_python(type(found)) or is_trusted(type(found).__module__)


def _shows_by_numpy(module: str, frame: FrameType) -> bool:
    """Whether a function of NumPy makes a text: of masked arrays or polynomials, not of dtypes."""
    is_numpys = module.startswith("numpy.") and not module.endswith("._dtype")
    return is_numpys and frame.f_code.co_name in ("__str__", "__repr__", "__format__")


def _shows_address(kind: type) -> bool:
    """Whether the texts of a class's objects are no more than where they lie."""
    return all(in_classes(kind, name) is vars(object)[name] for name in ("__repr__", "__str__"))


def _label_of(thing: Any) -> str:
    return str(getattr(thing, "__name__", type(thing).__name__))
