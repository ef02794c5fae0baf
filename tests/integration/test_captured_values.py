"""Python values that change after a step was captured: every spelling gives the code's results.

Each spelling is a loss that multiplies by a number, or branches on it, and a change that comes
after the fourth of eight steps. The GPU repeats steps and must match the bits of an uncaptured CPU
run.
"""

from __future__ import annotations

import array
import builtins
import contextvars
import ctypes
import dataclasses
import datetime
import enum
import functools
import gc
import itertools
import math
import operator
import os
import random
import secrets
import sys
import threading
import time
import types
import uuid
import warnings
import weakref
from collections import ChainMap, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from decimal import Context, Decimal, getcontext, setcontext
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from captured_number import (
    CHANGED,
    STEPS,
    Change,
    Number,
    are_heard,
    check_hidden_is_not_captured,
    check_is_not_captured,
    nothing,
    spellings,
    weights,
)

from rumus import nn
from rumus.gpu import Gpu, GpuBackend
from rumus.optim import SGD
from rumus.tensor import (
    Generator,
    NumpyBackend,
    Parameter,
    Tensor,
    tensor,
)
from rumus.tensor.memory.recording import Capturing
from rumus.train import CaptureWarning, Trainer

# Spellings: each gives the number that the loss multiplies by, and the change.

RATE: float = 1.0
TABLE: dict[str, Any] = {}
Pair = namedtuple("Pair", "first second")


class Plain:
    """An object with arbitrary attributes."""

    shared = 1.0


class Slotted:
    __slots__ = ("rate",)
    rate: float


class Computed:
    """Attributes computed by code."""

    def __init__(self) -> None:
        self.inner = 1.0
        self.names = {"dynamic": 1.0}

    @property
    def rate(self) -> float:
        return self.inner

    def method(self) -> float:
        return self.inner

    def __getattr__(self, name: str) -> float:
        try:
            return self.__dict__["names"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(name) from None

    def __call__(self) -> float:
        return self.inner

    def __getitem__(self, name: str) -> float:
        return self.inner

    def __float__(self) -> float:
        return self.inner

    def __iter__(self) -> Iterator[float]:
        yield self.inner

    def __len__(self) -> int:
        return int(self.inner)

    def __enter__(self) -> float:
        return self.inner

    def __exit__(self, *error: object) -> None:
        pass


class Mode(enum.Enum):
    """A switch."""

    LOW = 1.0
    HIGH = 3.0


@dataclasses.dataclass
class Options:
    """A configuration."""

    rate: float = 1.0
    mode: Mode = Mode.LOW
    inner: Options | None = None


def global_number() -> tuple[Number, Change]:
    def change() -> None:
        global RATE
        RATE = 3.0

    global RATE
    RATE = 1.0
    return lambda: RATE, change


def global_of_module() -> tuple[Number, Change]:
    module = types.ModuleType("settings")
    module.rate = 1.0  # type: ignore[attr-defined]
    return lambda: module.rate, lambda: setattr(module, "rate", 3.0)


def global_dict() -> tuple[Number, Change]:
    TABLE["rate"] = 1.0
    return lambda: TABLE["rate"], lambda: TABLE.update(rate=3.0)


def global_by_name() -> tuple[Number, Change]:
    TABLE["rate"] = 1.0
    return lambda: globals()["TABLE"]["rate"], lambda: TABLE.update(rate=3.0)


def closed_over() -> tuple[Number, Change]:
    rate = 1.0

    def change() -> None:
        nonlocal rate
        rate = 3.0

    return lambda: rate, change


def closed_over_flag() -> tuple[Number, Change]:
    flag = False

    def change() -> None:
        nonlocal flag
        flag = True

    return lambda: 3.0 if flag else 1.0, change


def nested_function() -> tuple[Number, Change]:
    rate = 1.0

    def inner() -> float:
        return rate

    def change() -> None:
        nonlocal rate
        rate = 3.0

    return lambda: inner() * 2.0, change


def import_replaced() -> tuple[Number, Change]:
    first, second = types.ModuleType("rate_of_the_test"), types.ModuleType("rate_of_the_test")
    first.rate, second.rate = 1.0, 3.0  # type: ignore[attr-defined]
    sys.modules["rate_of_the_test"] = first

    def number() -> float:
        import rate_of_the_test  # type: ignore[import-not-found]

        return float(rate_of_the_test.rate)

    return number, lambda: sys.modules.update(rate_of_the_test=second)


def name_of_a_parameter() -> tuple[Number, Change]:
    parameter = Parameter([1.0], name="low")
    return lambda: 3.0 if parameter.name == "high" else 1.0, lambda: setattr(
        parameter, "name", "high"
    )


def attribute_of_object() -> tuple[Number, Change]:
    thing = types.SimpleNamespace(rate=1.0)
    return lambda: thing.rate, lambda: setattr(thing, "rate", 3.0)


def attribute_deep() -> tuple[Number, Change]:
    thing = types.SimpleNamespace(a=types.SimpleNamespace(b=types.SimpleNamespace(rate=1.0)))
    return lambda: thing.a.b.rate, lambda: setattr(thing.a.b, "rate", 3.0)


def object_replaced() -> tuple[Number, Change]:
    holder = Plain()
    holder.part = types.SimpleNamespace(rate=1.0)  # type: ignore[attr-defined]
    new = types.SimpleNamespace(rate=3.0)
    return lambda: holder.part.rate, lambda: setattr(holder, "part", new)  # type: ignore[attr-defined]


def attribute_of_class() -> tuple[Number, Change]:
    kind = type("Kind", (), {"rate": 1.0})
    return lambda: kind.rate, lambda: setattr(kind, "rate", 3.0)  # type: ignore[attr-defined]


def attribute_of_class_by_object() -> tuple[Number, Change]:
    kind = type("Kind", (), {"rate": 1.0})
    thing = kind()
    return lambda: thing.rate, lambda: setattr(kind, "rate", 3.0)


def attribute_hides_that_of_class() -> tuple[Number, Change]:
    thing = Plain()
    return lambda: thing.shared, lambda: setattr(thing, "shared", 3.0)


def attribute_of_function() -> tuple[Number, Change]:
    def rate() -> float:
        return float(rate.value)  # type: ignore[attr-defined]

    rate.value = 1.0  # type: ignore[attr-defined]
    return rate, lambda: setattr(rate, "value", 3.0)


def attribute_in_slots() -> tuple[Number, Change]:
    thing = Slotted()
    thing.rate = 1.0
    return lambda: thing.rate, lambda: setattr(thing, "rate", 3.0)


def computed_attribute() -> tuple[Number, Change]:
    thing = Computed()
    return lambda: thing.rate, lambda: setattr(thing, "inner", 3.0)


def computed_by_getattr() -> tuple[Number, Change]:
    thing = Computed()
    return lambda: thing.dynamic, lambda: thing.names.update(dynamic=3.0)


def computed_by_method() -> tuple[Number, Change]:
    thing = Computed()
    return lambda: thing.method(), lambda: setattr(thing, "inner", 3.0)


def bound_method() -> tuple[Number, Change]:
    thing = Computed()
    method = thing.method
    return lambda: method(), lambda: setattr(thing, "inner", 3.0)


def computed_by_call() -> tuple[Number, Change]:
    thing = Computed()
    return lambda: thing(), lambda: setattr(thing, "inner", 3.0)


def computed_by_index() -> tuple[Number, Change]:
    thing = Computed()
    return lambda: thing["rate"], lambda: setattr(thing, "inner", 3.0)


def computed_by_float() -> tuple[Number, Change]:
    thing = Computed()
    return lambda: float(thing), lambda: setattr(thing, "inner", 3.0)


def computed_by_iteration() -> tuple[Number, Change]:
    thing = Computed()
    return lambda: sum(thing), lambda: setattr(thing, "inner", 3.0)


def computed_by_length() -> tuple[Number, Change]:
    thing = Computed()
    return lambda: float(len(thing)), lambda: setattr(thing, "inner", 3.0)


def computed_by_context() -> tuple[Number, Change]:
    thing = Computed()

    def number() -> float:
        with thing as rate:
            return rate

    return number, lambda: setattr(thing, "inner", 3.0)


def method_replaced() -> tuple[Number, Change]:
    thing = Computed()
    return lambda: thing.method(), lambda: setattr(thing, "method", lambda: 3.0)


def method_of_class_replaced() -> tuple[Number, Change]:
    kind = type("Kind", (), {"method": lambda self: 1.0})
    thing = kind()
    return lambda: thing.method(), lambda: setattr(kind, "method", lambda self: 3.0)


def by_getattr() -> tuple[Number, Change]:
    thing = types.SimpleNamespace(rate=1.0)
    return lambda: getattr(thing, "rate"), lambda: setattr(thing, "rate", 3.0)  # noqa: B009


def by_getattr_of_a_made_name() -> tuple[Number, Change]:
    thing = Plain()
    thing.rate = 1.0  # type: ignore[attr-defined]
    return lambda: getattr(thing, "ra" + "te"), lambda: setattr(thing, "rate", 3.0)


def by_vars() -> tuple[Number, Change]:
    thing = Plain()
    thing.rate = 1.0  # type: ignore[attr-defined]
    return lambda: vars(thing)["rate"], lambda: setattr(thing, "rate", 3.0)


def by_dict_of_object() -> tuple[Number, Change]:
    thing = Plain()
    thing.rate = 1.0  # type: ignore[attr-defined]
    return lambda: thing.__dict__["rate"], lambda: setattr(thing, "rate", 3.0)


def by_attrgetter() -> tuple[Number, Change]:
    thing = types.SimpleNamespace(rate=1.0)
    get = operator.attrgetter("rate")
    return lambda: get(thing), lambda: setattr(thing, "rate", 3.0)


def dict_flag() -> tuple[Number, Change]:
    box = {"flag": False}
    return lambda: 3.0 if box["flag"] else 1.0, lambda: box.update(flag=True)


def dict_deep() -> tuple[Number, Change]:
    box = {"a": {"b": [1.0]}}
    return lambda: box["a"]["b"][0], lambda: box["a"]["b"].__setitem__(0, 3.0)


def dict_get() -> tuple[Number, Change]:
    box: dict[str, float] = {}
    return lambda: box.get("rate", 1.0), lambda: box.update(rate=3.0)


def dict_membership() -> tuple[Number, Change]:
    box: dict[str, float] = {}
    return lambda: 3.0 if "rate" in box else 1.0, lambda: box.update(rate=3.0)


def dict_order() -> tuple[Number, Change]:
    box = OrderedDict(a=1.0, b=3.0)
    return lambda: next(iter(box.values())), lambda: box.move_to_end("a")


def dict_of_objects() -> tuple[Number, Change]:
    box = {"a": Plain()}
    box["a"].rate = 1.0  # type: ignore[attr-defined]
    return lambda: box["a"].rate, lambda: setattr(box["a"], "rate", 3.0)  # type: ignore[attr-defined]


def default_dict() -> tuple[Number, Change]:
    box = defaultdict(float, rate=1.0)
    return lambda: box["rate"], lambda: box.update(rate=3.0)


def chained_map() -> tuple[Number, Change]:
    box = ChainMap({}, {"rate": 1.0})
    return lambda: box["rate"], lambda: box.update(rate=3.0)


def list_element() -> tuple[Number, Change]:
    values = [1.0, 2.0]
    return lambda: values[0], lambda: values.__setitem__(0, 3.0)


def list_length() -> tuple[Number, Change]:
    values = [1.0]
    return lambda: float(len(values)), lambda: values.extend([1.0, 1.0])


def list_loop() -> tuple[Number, Change]:
    things = [types.SimpleNamespace(rate=0.5), types.SimpleNamespace(rate=0.5)]

    def number() -> float:
        total = 0.0
        for thing in things:
            total += thing.rate
        return total

    return number, lambda: setattr(things[1], "rate", 2.5)


def list_comprehension() -> tuple[Number, Change]:
    values = [0.5, 0.5]
    return lambda: sum([value for value in values]), lambda: values.append(2.0)  # noqa: C416


def generator_expression() -> tuple[Number, Change]:
    values = [0.5, 0.5]
    return lambda: sum(value for value in values), lambda: values.append(2.0)


def zipped() -> tuple[Number, Change]:
    weights, things = [1.0], [types.SimpleNamespace(rate=1.0)]

    def number() -> float:
        return sum(w * t.rate for w, t in zip(weights, things, strict=True))  # type: ignore[no-any-return]

    return number, lambda: setattr(things[0], "rate", 3.0)


def set_membership() -> tuple[Number, Change]:
    names = {"a"}
    return lambda: 3.0 if "b" in names else 1.0, lambda: names.add("b")


def context_of_decimal() -> tuple[Number, Change]:
    """No instruction reads it: quotients of Decimals are rounded according to it."""
    one = Decimal(1)
    setcontext(Context(prec=28))
    return lambda: float(one / Decimal(3)), lambda: setcontext(Context(prec=3))


def deque_element() -> tuple[Number, Change]:
    values = deque([1.0], maxlen=1)
    return lambda: values[-1], lambda: values.append(3.0)


def tuple_in_a_cell() -> tuple[Number, Change]:
    pair = Pair(1.0, 2.0)

    def change() -> None:
        nonlocal pair
        pair = Pair(3.0, 2.0)

    return lambda: pair.first, change


def tuple_of_lists() -> tuple[Number, Change]:
    pair = ([1.0], [2.0])
    return lambda: pair[0][0], lambda: pair[0].__setitem__(0, 3.0)


def numpy_element() -> tuple[Number, Change]:
    values = np.ones(4)
    return lambda: float(values[2]), lambda: values.__setitem__(2, 3.0)


def numpy_sum() -> tuple[Number, Change]:
    values = np.full(2, 0.5)
    return lambda: float(np.sum(values)), lambda: values.fill(1.5)


def numpy_number() -> tuple[Number, Change]:
    thing = types.SimpleNamespace(rate=np.float64(1.0))
    return lambda: float(thing.rate), lambda: setattr(thing, "rate", np.float64(3.0))


def numpy_without_axes() -> tuple[Number, Change]:
    rate = np.array(1.0)
    return lambda: rate.item(), lambda: rate.fill(3.0)


def bytes_element() -> tuple[Number, Change]:
    values = bytearray([1])
    return lambda: float(values[0]), lambda: values.__setitem__(0, 3)


def typed_array() -> tuple[Number, Change]:
    values = array.array("d", [1.0])
    return lambda: values[0], lambda: values.__setitem__(0, 3.0)


def ctypes_number() -> tuple[Number, Change]:
    value = ctypes.c_double(1.0)
    return lambda: value.value, lambda: setattr(value, "value", 3.0)


def context_variable() -> tuple[Number, Change]:
    variable = contextvars.ContextVar("rate", default=1.0)
    return lambda: variable.get(), lambda: variable.set(3.0)


def weak_reference() -> tuple[Number, Change]:
    thing = Plain()
    thing.rate = 1.0  # type: ignore[attr-defined]
    reference = weakref.ref(thing)

    def change() -> None:
        thing.rate = 3.0  # type: ignore[attr-defined]

    return lambda: reference().rate, change  # type: ignore[union-attr]


def data_class() -> tuple[Number, Change]:
    options = Options(inner=Options())
    assert options.inner is not None
    return lambda: options.inner.rate, lambda: setattr(options.inner, "rate", 3.0)


def enumeration() -> tuple[Number, Change]:
    options = Options()
    return lambda: options.mode.value, lambda: setattr(options, "mode", Mode.HIGH)


def enumeration_flag() -> tuple[Number, Change]:
    options = Options()
    return lambda: 1.0 if options.mode is Mode.LOW else 3.0, lambda: setattr(
        options, "mode", Mode.HIGH
    )


def text() -> tuple[Number, Change]:
    options = {"mode": "low"}
    return lambda: {"low": 1.0, "high": 3.0}[options["mode"]], lambda: options.update(mode="high")


def none_or_object() -> tuple[Number, Change]:
    thing = types.SimpleNamespace(extra=None)
    return lambda: 1.0 if thing.extra is None else 3.0, lambda: setattr(thing, "extra", object())


def date() -> tuple[Number, Change]:
    thing = types.SimpleNamespace(day=datetime.date(2020, 1, 1))
    return lambda: float(thing.day.day), lambda: setattr(thing, "day", datetime.date(2020, 1, 3))


def default_of_a_parameter() -> tuple[Number, Change]:
    def number(values: list[float] = [1.0]) -> float:  # noqa: B006
        return values[0]

    assert number.__defaults__ is not None
    values = number.__defaults__[0]
    return number, lambda: values.__setitem__(0, 3.0)


def default_replaced() -> tuple[Number, Change]:
    def number(rate: float = 1.0) -> float:
        return rate

    return number, lambda: setattr(number, "__defaults__", (3.0,))


def partial_function() -> tuple[Number, Change]:
    box = [1.0]
    number = functools.partial(operator.getitem, box, 0)
    return number, lambda: box.__setitem__(0, 3.0)


def partial_keyword() -> tuple[Number, Change]:
    def rate(*, of: Plain) -> float:
        return of.rate  # type: ignore[attr-defined, no-any-return]

    thing = Plain()
    thing.rate = 1.0  # type: ignore[attr-defined]
    return functools.partial(rate, of=thing), lambda: setattr(thing, "rate", 3.0)


def function_replaced() -> tuple[Number, Change]:
    thing = types.SimpleNamespace(rate=lambda: 1.0)
    return lambda: thing.rate(), lambda: setattr(thing, "rate", lambda: 3.0)


def cached_result() -> tuple[Number, Change]:
    @functools.lru_cache(None)
    def options() -> Options:
        return Options()

    return lambda: options().rate, lambda: setattr(options(), "rate", 3.0)


def cached_property() -> tuple[Number, Change]:
    class Thing:
        @functools.cached_property
        def options(self) -> Options:
            return Options()

    thing = Thing()
    return lambda: thing.options.rate, lambda: setattr(thing.options, "rate", 3.0)


def imported_inside() -> tuple[Number, Change]:
    def number() -> float:
        import this_module_is_made_by_a_test as settings  # type: ignore[import-not-found]

        return settings.rate  # type: ignore[no-any-return]

    import sys

    module = types.ModuleType("this_module_is_made_by_a_test")
    module.rate = 1.0  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    return number, lambda: setattr(module, "rate", 3.0)


def closed_over_later() -> tuple[Number, Change]:
    rate = 0.0
    del rate

    def number() -> float:
        try:
            return rate
        except NameError:
            return 1.0

    def change() -> None:
        nonlocal rate
        rate = 3.0

    return number, change


def code_of_exec() -> tuple[Number, Change]:
    names: dict[str, Any] = {"rate": 1.0}
    exec("def number(): return rate", names)
    return names["number"], lambda: names.update(rate=3.0)


def sorted_by_a_key() -> tuple[Number, Change]:
    things = [types.SimpleNamespace(order=1, rate=1.0), types.SimpleNamespace(order=2, rate=3.0)]

    def number() -> float:
        return float(sorted(things, key=lambda t: t.order)[0].rate)

    return number, lambda: setattr(things[0], "order", 5)


def written_and_read() -> tuple[Number, Change]:
    """A value written before it is read does not depend on what was there before."""
    thing = types.SimpleNamespace(rate=1.0, last=0.0)

    def number() -> float:
        thing.last = thing.rate * 2.0
        return float(thing.last)

    return number, lambda: setattr(thing, "rate", 3.0)


def a_cache_that_fills() -> tuple[Number, Change]:
    thing = types.SimpleNamespace(made=None)

    def number() -> float:
        if thing.made is None:
            thing.made = 1.0
        return float(thing.made)

    return number, lambda: setattr(thing, "made", 3.0)


def position_of_a_generator() -> tuple[Number, Change]:
    generator = Generator(0)

    def change() -> None:
        generator.position = 8

    return lambda: 1.0 + generator.position, change


def attribute_in_a_format() -> tuple[Number, Change]:
    thing, text = types.SimpleNamespace(rate=1.0), "{0.rate}"
    return lambda: float(text.format(thing)), lambda: setattr(thing, "rate", 3.0)


def namespace_in_a_text() -> tuple[Number, Change]:
    thing = types.SimpleNamespace(rate=1.0)
    return lambda: 1.0 if "1.0" in f"{thing}" else 3.0, lambda: setattr(thing, "rate", 3.0)


def namespace_compared() -> tuple[Number, Change]:
    thing, other = types.SimpleNamespace(rate=1.0), types.SimpleNamespace(rate=1.0)
    return lambda: 1.0 if thing == other else 3.0, lambda: setattr(thing, "rate", 3.0)


def class_pattern() -> tuple[Number, Change]:
    thing = Plain()
    thing.rate = 1.0  # type: ignore[attr-defined]

    def number() -> float:
        match thing:
            case Plain(rate=rate):  # type: ignore[misc]
                return float(rate)
        return 0.0

    return number, lambda: setattr(thing, "rate", 3.0)


def getattr_out_of_a_list() -> tuple[Number, Change]:
    thing, tools = types.SimpleNamespace(rate=1.0), [getattr]
    return lambda: tools[0](thing, "rate"), lambda: setattr(thing, "rate", 3.0)


def attribute_that_comes() -> tuple[Number, Change]:
    thing = types.SimpleNamespace()
    return lambda: 3.0 if hasattr(thing, "late") else 1.0, lambda: setattr(thing, "late", 1)


def field_of_a_structure() -> tuple[Number, Change]:
    class Settings(ctypes.Structure):
        _fields_ = (("rate", ctypes.c_double),)

    settings = Settings(1.0)
    return lambda: settings.rate, lambda: setattr(settings, "rate", 3.0)


def array_of_c() -> tuple[Number, Change]:
    values = (ctypes.c_double * 2)(1.0, 1.0)
    return lambda: values[0], lambda: values.__setitem__(0, 3.0)


def view_of_values() -> tuple[Number, Change]:
    table = {"rate": 1.0}
    values = table.values()
    return lambda: next(iter(values)), lambda: table.update(rate=3.0)


def view_of_items() -> tuple[Number, Change]:
    table = OrderedDict(rate=1.0)
    items = table.items()
    return lambda: dict(items)["rate"], lambda: table.update(rate=3.0)


def local_of_a_thread() -> tuple[Number, Change]:
    local = threading.local()
    local.rate = 1.0
    return lambda: local.rate, lambda: setattr(local, "rate", 3.0)


def class_exchanged() -> tuple[Number, Change]:
    class Low:
        def rate(self) -> float:
            return 1.0

    class High(Low):
        def rate(self) -> float:
            return 3.0

    thing = Low()
    return lambda: thing.rate(), lambda: setattr(thing, "__class__", High)


def class_asked_for() -> tuple[Number, Change]:
    class Low: ...

    class High: ...

    thing: Any = Low()
    return lambda: 1.0 if isinstance(thing, Low) else 3.0, lambda: setattr(thing, "__class__", High)


def code_exchanged() -> tuple[Number, Change]:
    def low() -> float:
        return 1.0

    def high() -> float:
        return 3.0

    return lambda: low(), lambda: setattr(low, "__code__", high.__code__)


def special_method_exchanged() -> tuple[Number, Change]:
    class Thing:
        def __float__(self) -> float:
            return 1.0

    thing = Thing()
    return lambda: float(thing), lambda: setattr(Thing, "__float__", lambda self: 3.0)


def name_of_python_itself() -> tuple[Number, Change]:
    builtins.this_rate = 1.0  # type: ignore[attr-defined]
    return lambda: this_rate, lambda: setattr(builtins, "this_rate", 3.0)  # type: ignore[name-defined]  # noqa: F821


def name_of_python_hidden() -> tuple[Number, Change]:
    names: dict[str, Any] = {}
    exec("def number(): return float(abs(-1))", names)
    return names["number"], lambda: names.update(abs=lambda value: 3.0)


def attribute_of_a_number() -> tuple[Number, Change]:
    class Number(float):
        rate = 1.0

    number = Number(2.0)
    return lambda: number.rate, lambda: setattr(number, "rate", 3.0)


def attribute_of_a_text() -> tuple[Number, Change]:
    class Text(str):
        rate = 1.0

    text = Text("a")
    text.rate = 1.0
    return lambda: text.rate, lambda: setattr(text, "rate", 3.0)


def method_of_a_number() -> tuple[Number, Change]:
    class Number(int):
        rate = 1.0

        def __float__(self) -> float:
            return self.rate

    number = Number(1)
    return lambda: float(number), lambda: setattr(number, "rate", 3.0)


def attribute_of_an_enumeration() -> tuple[Number, Change]:
    class Level(enum.Enum):
        LOW = 1.0

    return lambda: getattr(Level.LOW, "extra", 1.0), lambda: setattr(Level.LOW, "extra", 3.0)


def property_of_a_module() -> tuple[Number, Change]:
    class Settings(types.ModuleType):
        inner = 1.0

        @property
        def rate(self) -> float:
            return self.inner

    module = Settings("settings")
    return lambda: module.rate, lambda: setattr(module, "inner", 3.0)


def state_of_a_generator() -> tuple[Number, Change]:
    generator = Generator(0)
    return lambda: 1.0 + generator.state()["position"], lambda: generator.words((8,))


COMPARED: Final = spellings(globals(), "tuple[Number, Change]")


# Sources of a different number at each step, or potentially


def counter_of_list() -> Number:
    count = [0]

    def number() -> float:
        count[0] += 1
        return float(count[0])

    return number


def counter_of_cell() -> Number:
    count = 0

    def number() -> float:
        nonlocal count
        count += 1
        return float(count)

    return number


def counter_of_object() -> Number:
    thing = types.SimpleNamespace(count=0)

    def number() -> float:
        thing.count += 1
        return float(thing.count)

    return number


def counter_of_function() -> Number:
    def number() -> float:
        number.count += 1.0  # type: ignore[attr-defined]
        return number.count  # type: ignore[attr-defined, no-any-return]

    number.count = 0.0  # type: ignore[attr-defined]
    return number


def counter_of_class() -> Number:
    kind = type("Kind", (), {"count": 0})

    def number() -> float:
        kind.count += 1  # type: ignore[attr-defined]
        return float(kind.count)  # type: ignore[attr-defined]

    return number


def iterator_of_list() -> Number:
    values = iter([float(n) for n in range(100)])
    return lambda: next(values)


def iterator_of_itertools() -> Number:
    count = itertools.count(1)
    return lambda: float(next(count))


def iterator_in_a_dict() -> Number:
    box = {"values": itertools.cycle([1.0, 2.0])}
    return lambda: next(box["values"])


def iterator_of_python() -> Number:
    class Counting:
        value = 0.0

        def __next__(self) -> float:
            self.value += 1.0
            return self.value

    values = Counting()
    return lambda: next(values)


def generator_function() -> Number:
    def values() -> Iterator[float]:
        for number in range(100):
            yield float(number)

    running = values()
    return lambda: next(running)


def sent_generator() -> Number:
    def values() -> Iterator[float]:
        for number in range(100):
            yield float(number)

    return values().__next__


def list_that_shrinks() -> Number:
    values = [float(n) for n in range(100)]
    return lambda: values.pop()


def queue() -> Number:
    values = deque(float(n) for n in range(100))
    return lambda: values.popleft()


def random_of_python() -> Number:
    random.seed(5)
    return lambda: random.random()


def random_function() -> Number:
    random.seed(5)
    draw = random.uniform
    return lambda: draw(1.0, 2.0)


def random_object() -> Number:
    own = random.Random(5)
    return lambda: own.gauss(1.0, 0.1)


def random_of_numpy() -> Number:
    np.random.seed(5)
    return lambda: float(np.random.rand())


def random_generator_of_numpy() -> Number:
    draw = np.random.default_rng(5)
    return lambda: float(draw.normal())


def random_generator_of_rumus_on_the_host() -> Number:
    draw = Generator(3)
    return lambda: float(draw.uniform((1,)).item())


def tensor_of_the_host() -> Number:
    rate = tensor(np.ones(1))

    def number() -> float:
        rate.assign(rate + 1.0)
        return rate.item()

    return number


def settings_of_numpy() -> Number:
    return lambda: float(np.get_printoptions()["precision"])


def weak_proxy() -> Number:
    thing = Plain()
    proxy, kept = weakref.proxy(thing), [thing]
    return lambda: float(proxy.shared) * len(kept)


def pointer_of_c() -> Number:
    value = ctypes.c_double(1.0)
    pointer = ctypes.pointer(value)
    return lambda: pointer[0]


def array_of_objects() -> Number:
    values = np.array([1.0], object)
    return lambda: float(values[0])


CHANGING: Final = spellings(globals(), "Number")

# Random numbers that are others in each training, so that no two of them have the same bits.

Draw = Callable[[], float]


def random_of_the_system() -> Draw:
    return lambda: os.urandom(1)[0]


def random_bytes_of_the_system() -> Draw:
    return lambda: os.getrandom(1)[0]


def random_generator_of_the_system() -> Draw:
    draw = random.SystemRandom()
    return lambda: draw.random()


def new_random_generator_of_the_system() -> Draw:
    return lambda: random.SystemRandom().random()


def random_secret() -> Draw:
    return lambda: secrets.randbelow(1000)


def random_token() -> Draw:
    return lambda: secrets.token_bytes(1)[0]


def random_identifier() -> Draw:
    return lambda: uuid.uuid4().int % 1000


DRAWN: Final = spellings(globals(), "Draw")


@pytest.fixture(autouse=True)
def _context_of_decimal() -> Iterator[None]:
    before = getcontext()
    yield
    setcontext(before)


@pytest.mark.parametrize("spelling", COMPARED, ids=lambda f: f.__name__)
def test_a_value_that_changes_is_noticed(
    spelling: Callable[[], tuple[Number, Change]], device: Capturing
) -> None:
    """Bit for bit, with repeated steps before and after the change."""
    wanted, _ = weights(NumpyBackend(), *spelling(), capture=False)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        found, trainer = weights(device, *spelling())
    if spelling is global_by_name:
        assert are_heard(device, heard, trainer)
    else:
        assert not heard
        assert trainer.counts.replayed >= 2
    assert found == wanted
    assert wanted[CHANGED - 1] != wanted[CHANGED]


@pytest.mark.parametrize("spelling", CHANGING, ids=lambda f: f.__name__)
def test_a_value_that_cannot_be_compared_is_not_captured(
    spelling: Callable[[], Number], device: Capturing
) -> None:
    check_hidden_is_not_captured(lambda: (spelling(), nothing), device)


@pytest.mark.parametrize("spelling", DRAWN, ids=lambda f: f.__name__)
def test_random_numbers_of_the_system_are_not_captured(
    spelling: Callable[[], Draw], device: Capturing
) -> None:
    check_is_not_captured(spelling(), device)


def test_a_copy_of_the_code_in_another_module_is_another_step() -> None:
    """Code equals a copy of itself, but reads the names of its own module."""
    found = []
    for capture in (True, False):
        w = Parameter([1.0, 2.0], name="w", backend=NumpyBackend())
        trainer = Trainer(SGD([w], 0.0625), capture=capture)
        losses = []
        for rate in (1.0, 3.0):
            names: dict[str, Any] = {"rate": rate, "w": w}
            exec("def loss(x): return (w * x * rate).sum()", names)
            losses.append(names["loss"])
        for step in range(STEPS):
            trainer.train_step(losses[step >= CHANGED], np.array([0.5, 0.25]))
        found.append(w.tolist())
    assert found[0] == found[1]


def test_a_variable_that_has_no_value_yet() -> None:
    """The loss function closes over it, and uses it later."""
    w = Parameter([1.0, 2.0], name="w", backend=NumpyBackend())
    trainer = Trainer(SGD([w], 1.0))

    def loss(x: Tensor) -> Tensor:
        return (w * x).sum() * (rate if x.shape[0] == 1 else 1.0)

    for _ in range(3):
        trainer.train_step(loss, np.array([1.0, 0.0]))
    rate = 3.0
    for _ in range(3):
        trainer.train_step(loss, np.array([1.0]))
    assert trainer.counts.replayed == 2
    assert w.tolist() == [1.0 - 3 - 9, 2.0 - 9]


def test_clocks_are_not_captured(device: Capturing) -> None:
    for clock in (time.time, time.perf_counter, lambda: datetime.datetime.now().timestamp()):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            _, trainer = weights(device, lambda c=clock: min(1.0, c()), nothing)  # type: ignore[misc]
        said = [str(each.message) for each in heard] or list(trainer.counts.reasons.values())
        assert "cannot be predicted" in said[0]
        assert trainer.counts.replayed == 0


def test_numbers_of_layers_are_compared(device: Capturing) -> None:
    """Including those that a layer was constructed with."""
    found = []
    for backend, capture in ((NumpyBackend(), False), (device, True)):
        layer, act = nn.Linear(2, 2, generator=Generator(0)), nn.LeakyReLU(0.25)
        model = nn.Sequential(layer, act).to(backend)
        trainer = Trainer(SGD(model.parameters(), 0.0625), capture=capture)

        def loss(x: Tensor, model: nn.Module = model) -> Tensor:
            return model(x).sum()  # type: ignore[no-any-return]

        for step in range(STEPS):
            if step == CHANGED:
                for name in vars(act):
                    setattr(act, name, 0.5)
            trainer.train_step(loss, np.array([[-1.0, 0.5]]))
        found.append(trainer.counts.replayed)
        found.append(np.round(layer.weight.numpy(), 5).tolist())
    assert found[1] == found[3]
    assert found[2] == 4


def test_values_that_a_step_does_not_read_do_not_matter(device: Capturing) -> None:
    thing = types.SimpleNamespace(rate=1.0, count=0, log=open)

    def change() -> None:
        thing.count += 1

    _, trainer = weights(device, lambda: thing.rate, change)
    assert trainer.counts.captured == STEPS - 2


def test_what_a_step_imports_is_not_followed(
    device: Capturing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs once, and may be long; what it defines is read as anything else is."""
    (tmp_path / "imported_late.py").write_text(
        "import time\n\nstart = time.time()\nrate = 1.0\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "imported_late", raising=False)

    def number() -> float:
        import imported_late  # type: ignore[import-not-found]

        return float(imported_late.rate)

    def change() -> None:
        sys.modules["imported_late"].__dict__["rate"] = 2.0

    found, trainer = weights(device, number, change)
    assert trainer.counts.captured > 0
    sys.modules["imported_late"].__dict__["rate"] = 1.0
    wanted, _ = weights(device, number, change, capture=False)
    assert found == wanted


def test_a_curriculum_comes_back_to_steps_that_it_knows(device: Capturing) -> None:
    """Each phase is captured once: the recording for another value is kept."""
    w = Parameter([1.0, 2.0], name="w", backend=device)
    trainer, phase = Trainer(SGD([w], 0.0625)), types.SimpleNamespace(rate=1.0)
    for step in range(24):
        phase.rate = 1.0 + step // 4 % 2
        trainer.train_step(lambda x: (w * x).sum() * phase.rate, np.ones(2))
    assert trainer.counts.recorded == 2
    assert trainer.counts.captured == 20


def test_an_annealed_number_runs_uncaptured_and_is_reported_once(device: Capturing) -> None:
    w = Parameter([0.0], name="w", backend=device)
    trainer, beta = Trainer(SGD([w], 1.0)), types.SimpleNamespace(value=0.0)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for step in range(40):
            beta.value = float(step)
            trainer.train_step(lambda x: (w * x).sum() * beta.value, np.ones(1))
    assert w.tolist() == [-float(sum(range(40)))]
    assert are_heard(device, heard, trainer)
    said = [str(each.message) for each in heard] or list(trainer.counts.reasons.values())
    assert "SimpleNamespace.value" in said[0] or "beta.value" in said[0]
    assert math.isfinite(trainer.epoch_avg_loss())


def test_the_cache_of_a_layer_fills_and_turns_over(device: Capturing) -> None:
    """Two lengths alternate: each step is captured, whatever the cache of angles does."""
    model = nn.Sequential(nn.Linear(4, 4, generator=Generator(0)), nn.RotaryEmbedding(4)).to(device)
    trainer = Trainer(SGD(model.parameters(), 0.01))
    for step in range(12):
        trainer.train_step(lambda x: model(x).sum(), np.ones((1, 2 + step % 2, 4)))
    assert (trainer.counts.plain, trainer.counts.recorded, trainer.counts.captured) == (2, 2, 8)


def test_a_mean_that_is_scaled_afterwards_is_captured(device: Capturing) -> None:
    """What a layer's loss notes about its mean is kept with the step."""
    layer, box = nn.Linear(4, 3, generator=Generator(0)).to(device), {"scale": 1.0}
    trainer = Trainer(SGD(layer.parameters(), 0.05))
    for step in range(8):
        box["scale"] = 1.0 if step < CHANGED else 10.0
        trainer.train_step(
            lambda x, y: nn.cross_entropy_loss(layer(x), y) * box["scale"],
            np.ones((16, 4)),
            np.zeros(16, np.int32),
        )
    assert (trainer.counts.recorded, trainer.counts.replayed) == (2, 4)


def test_code_run_by_the_garbage_collector_is_not_part_of_a_step() -> None:
    """For example callbacks registered by profilers and test tools, which read a clock."""

    def ticking(phase: str, info: dict[str, int]) -> None:
        time.perf_counter()

    gpu = GpuBackend(Gpu())
    weight = Parameter([1.0, 2.0], name="weight", backend=gpu)
    trainer = Trainer(SGD([weight], 0.1))
    threshold = gc.get_threshold()
    gc.callbacks.append(ticking)
    gc.set_threshold(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", CaptureWarning)
            for _ in range(4):
                trainer.train_step(lambda x: (weight * x).sum(), tensor([1.0, 2.0], backend=gpu))
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(ticking)
    assert gc.isenabled()


# Reads that cannot be observed


class Switch:
    """On if a text is one of two equal ones, between which guards see no difference."""

    def __init__(self) -> None:
        self.texts = ["".join(["o", "n"]) for _ in range(2)]
        self.text = self.texts[0]

    @property
    def on(self) -> bool:
        return self.text is self.texts[1]

    @on.setter
    def on(self, value: bool) -> None:
        self.text = self.texts[value]


class Hidden:
    """Steps that move a parameter by 1, and behave differently once `on` is set."""

    def __init__(self, device: Capturing, other: Callable[[Hidden, Tensor], Tensor]) -> None:
        self.device, self.other = device, other
        self.w = Parameter([0.0, 0.0], name="w", backend=device)
        self.ones = [tensor(np.ones(2), backend=device), tensor(3 * np.ones(2), backend=device)]
        self.trainer = Trainer(SGD([self.w], 1.0))
        self.switch = Switch()
        self.kept: list[Tensor] = []

    def loss(self, x: Tensor) -> Tensor:
        return self.other(self, x) if self.switch.on else (self.w * x * self.ones[0]).sum()

    def moved(self) -> float:
        """How far a step moves the parameter."""
        before = self.w.numpy()
        self.trainer.train_step(self.loss, np.ones(2))
        return float((before - self.w.numpy())[0])


def another_number(run: Hidden, x: Tensor) -> Tensor:
    return (run.w * x * 3.0).sum()


def another_array(run: Hidden, x: Tensor) -> Tensor:
    return (run.w * x * run.ones[1]).sum()


def a_transfer(run: Hidden, x: Tensor) -> Tensor:
    return (run.w * x * tensor(3 * np.ones(2), backend=run.device)).sum()


def a_shorter_course(run: Hidden, x: Tensor) -> Tensor:
    return (run.w * run.ones[1]).sum()


def a_longer_course(run: Hidden, x: Tensor) -> Tensor:
    return (run.w * x * run.ones[0]).sum() * 3.0


def an_array_that_stays(run: Hidden, x: Tensor) -> Tensor:
    product = run.w * x * run.ones[0]
    run.kept.append(product.detach())
    return product.sum() * 3.0


@pytest.mark.parametrize(
    "other",
    [another_number, another_array, a_transfer, a_shorter_course, a_longer_course,
     an_array_that_stays],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_hidden_changes_are_found_by_later_checks(
    other: Callable[[Hidden, Tensor], Tensor], device: Capturing
) -> None:
    """It is reported once, and from then on the code runs each time."""
    run = Hidden(device, other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [run.moved() for _ in range(7)] == [1.0] * 7  # checked again in the seventh
    assert run.trainer.counts.compared == 1
    run.switch.on = True
    with pytest.warns(CaptureWarning, match="Something changed that Python cannot see") as heard:
        moved = [run.moved() for _ in range(10)]
    assert moved == [1.0] * 8 + [3.0] * 2  # eight repetitions later
    assert len(heard) == 1
    run.switch.on = False
    assert [run.moved() for _ in range(3)] == [1.0] * 3
    assert run.trainer.counts.replayed == 4 + 8
    for kept in run.kept:  # is not shared with anything
        assert np.abs(kept.numpy()).max() < 100


def test_changes_between_epochs_are_found_before_they_matter(device: Capturing) -> None:
    run = Hidden(device, another_number)
    moved = []
    for epoch in range(3):
        run.switch.on = epoch == 2
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if epoch == 2 else "error", CaptureWarning)
            moved.append({run.moved() for _ in range(60)})
        run.trainer.epoch_avg_loss()
    assert moved == [{1.0}, {1.0}, {3.0}]
    assert run.trainer.counts.compared <= 5


def times_3(kind: type, name: str) -> Callable[..., Any]:
    """A method of a class, with its result tripled."""
    plain: Callable[..., Any] = getattr(kind, name)
    return lambda self, *given: plain(self, *given) * 3.0


@pytest.mark.parametrize(
    ("kind", "name"),
    [(nn.Linear, "forward"), (nn.Sequential, "forward"), (nn.Module, "__call__"),
     (Tensor, "sum"), (Tensor, "__mul__"), (Tensor, "tanh")],
    ids=lambda value: getattr(value, "__name__", value),
)  # fmt: skip
def test_patches_of_the_library_are_noticed(
    kind: type, name: str, device: Capturing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layer and tensor classes are patched, as by profilers and adapters."""
    found = []
    for capture in (False, True):
        model = nn.Sequential(nn.Linear(2, 2, generator=Generator(0))).to(device)
        trainer = Trainer(SGD(model.parameters(), 0.0625), capture=capture)

        def loss(x: Tensor, model: nn.Module = model) -> Tensor:
            result: Tensor = (model(x).tanh() * 0.5).sum()
            return result

        with monkeypatch.context() as patched, warnings.catch_warnings():
            warnings.simplefilter("error")
            for step in range(STEPS):
                if step == CHANGED:
                    function = times_3(kind, name)
                    if name == "__mul__":
                        plain = Tensor.__mul__
                        function = lambda a, b, plain=plain: plain(plain(a, b), 3.0)
                    patched.setattr(kind, name, function)
                trainer.train_step(loss, np.array([[0.5, 0.25]], np.float32))
        found.append([value.tobytes() for value in model.state_dict().values()])
        assert trainer.counts.replayed == 4 * capture
    assert found[0] == found[1]


def test_a_replaced_library_function_is_found(
    device: Capturing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Functions that only the library calls are assumed constant, until someone replaces one."""
    run = Hidden(device, another_number)
    for _ in range(7):
        run.moved()
    original = Tensor.backward
    monkeypatch.setattr(Tensor, "backward", lambda self, *a, **k: original(self * 3.0, *a, **k))
    with pytest.warns(CaptureWarning):
        moved = [run.moved() for _ in range(9)]
    assert moved[-1] == 3.0


def test_checking_again_changes_nothing(device: Capturing) -> None:
    """Masks, running statistics, losses and weights match those of an uncaptured training."""
    found = []
    for capture in (False, True):
        generator = Generator(3)
        model = nn.Sequential(
            nn.Linear(4, 8, generator=generator),
            nn.BatchNorm1d(8),
            nn.Dropout(0.5, generator=generator),
            nn.Linear(8, 1, generator=generator),
        ).to(device)
        trainer, noise = Trainer(SGD(model.parameters(), 0.05), capture=capture), Generator(8)

        def loss(x: Tensor, model: nn.Module = model, noise: Generator = noise) -> Tensor:
            result: Tensor = (model(x + noise.normal((6, 4), backend=device)) ** 2).mean()
            return result

        losses = [
            trainer.train_step(loss, np.full((6, 4), 0.1 * step, np.float32)) for step in range(40)
        ]
        assert trainer.counts.compared == (3 if capture else 0)
        state = [array.tobytes() for array in model.state_dict().values()]
        found.append((state, [x.item() for x in losses], generator.state(), noise.state()))
    assert found[0] == found[1]


def test_checking_again_takes_no_more_memory(gpu: GpuBackend) -> None:
    """The code runs in the memory of the recording."""
    layer = nn.Linear(512, 512, generator=Generator(0)).to(gpu)
    trainer, x = Trainer(SGD(layer.parameters(), 0.01)), np.ones((512, 512), np.float32)
    used = []
    for _ in range(20):
        trainer.train_step(lambda x: layer(x).tanh().tanh().sum(), x)
        used.append(gpu.memory_stats().used)
    assert trainer.counts.compared == 2
    assert max(used[3:]) <= used[2] + 4 * x.nbytes // 3


def test_a_kept_loss_does_not_change(device: Capturing) -> None:
    """Including losses of passes whose update the caller does himself."""
    w = Parameter([1.0, 2.0], name="w", backend=device)
    trainer, losses = Trainer(SGD([w], 0.5)), []
    for step in range(6):
        loss, grads = trainer.forward_backward(lambda x: (w * x).sum(), [np.full(2, 1.0 + step)])
        losses.append(loss)
        with grads as given:
            trainer.update(given)
    wanted, now = [], np.array([1.0, 2.0])
    for step in range(6):
        wanted.append(float(now.sum() * (1 + step)))
        now -= 0.5 * (1 + step)
    assert trainer.counts.replayed == 4
    assert [loss.item() for loss in losses] == wanted
