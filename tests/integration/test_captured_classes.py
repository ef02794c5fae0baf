"""What classes get later, descriptors hold, and objects of C exchange is noticed by captured steps.

As in `test_captured_values`: a loss multiplies by a number, and a change comes after the fourth of
eight steps. What cannot be compared is not captured.
"""

from __future__ import annotations

import argparse
import collections
import collections.abc
import ctypes
import datetime
import functools
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import numpy as np
import pytest
from captured_number import (
    Change,
    Number,
    check_change_is_noticed,
    check_hidden_is_not_captured,
    check_is_not_captured,
    spellings,
    weights,
)

from rumus.tensor import NumpyBackend
from rumus.tensor.memory.recording import Capturing

Spelling = Callable[[], tuple[Number, Change]]


class Thing:
    """An object with arbitrary attributes."""

    rate: float


# What comes to a class, which nobody has asked for by its name


def _arrives(
    name: str, value: Any, number: Callable[[Any], float], base: type = object
) -> tuple[Any, Any]:
    made = types.new_class("Kind", (base,))
    thing = made()
    return lambda: number(thing), lambda: setattr(made, name, value)


def bool_arrives() -> tuple[Number, Change]:
    return _arrives("__bool__", lambda self: False, lambda thing: 1.0 if thing else 3.0)


def len_arrives() -> tuple[Number, Change]:
    return _arrives("__len__", lambda self: 0, lambda thing: 1.0 if thing else 3.0)


def eq_arrives() -> tuple[Number, Change]:
    return _arrives("__eq__", lambda self, other: True, lambda thing: 3.0 if thing == 1 else 1.0)


def str_arrives() -> tuple[Number, Change]:
    def number(thing: Any) -> float:
        return 3.0 if str(thing) == "high" else 1.0

    return _arrives("__str__", lambda self: "high", number)


def getattr_arrives() -> tuple[Number, Change]:
    return _arrives(
        "__getattr__", lambda self, name: 3.0, lambda thing: getattr(thing, "rate", 1.0)
    )


def contains_arrives() -> tuple[Number, Change]:
    return _arrives(
        "__contains__", lambda self, one: True, lambda thing: 3.0 if 1 in thing else 1.0, list
    )


def missing_arrives() -> tuple[Number, Change]:
    def number(thing: Any) -> float:
        try:
            return float(thing["rate"])
        except KeyError:
            return 1.0

    return _arrives("__missing__", lambda self, name: 3.0, number, dict)


def sum_arrives() -> tuple[Number, Change]:
    return _arrives("__radd__", lambda self, other: 3.0, lambda thing: 1.0 + thing, float)


def call_of_a_metaclass_arrives() -> tuple[Number, Change]:
    meta: Any = types.new_class("Meta", (type,))
    made = meta("Kind", (), {})
    return lambda: 3.0 if made() == 3.0 else 1.0, lambda: setattr(
        meta, "__call__", lambda self: 3.0
    )


def check_of_instances_arrives() -> tuple[Number, Change]:
    meta: Any = types.new_class("Meta", (type,))
    made = meta("Kind", (), {})
    return lambda: 3.0 if isinstance(1, made) else 1.0, lambda: setattr(
        meta, "__instancecheck__", lambda self, one: True
    )


def bool_of_what_a_step_makes_arrives() -> tuple[Number, Change]:
    made = types.new_class("Kind")
    return lambda: 1.0 if made() else 3.0, lambda: setattr(made, "__bool__", lambda self: False)


def init_arrives() -> tuple[Number, Change]:
    made = types.new_class("Kind")
    return lambda: getattr(made(), "rate", 1.0), lambda: setattr(
        made, "__init__", lambda self: setattr(self, "rate", 3.0)
    )


# The same of classes of Python's own library


def _as_python_has_it() -> None:
    for name in ("rate", "__bool__"):
        if name in vars(argparse.Namespace):
            delattr(argparse.Namespace, name)


@pytest.fixture(autouse=True)
def _cleared() -> Iterator[None]:
    yield
    _as_python_has_it()


def attribute_arrives_in_pythons_class() -> tuple[Number, Change]:
    _as_python_has_it()
    thing = argparse.Namespace()
    return lambda: getattr(thing, "rate", 1.0), lambda: setattr(argparse.Namespace, "rate", 3.0)


def bool_arrives_in_pythons_class() -> tuple[Number, Change]:
    _as_python_has_it()
    thing: Any = argparse.Namespace()
    return lambda: 1.0 if thing else 3.0, lambda: setattr(
        argparse.Namespace, "__bool__", lambda self: False
    )


def attribute_arrives_above_a_class() -> tuple[Number, Change]:
    _as_python_has_it()

    class Config(argparse.Namespace):
        """Its base is Python's."""

    thing = Config()
    return lambda: getattr(thing, "rate", 1.0), lambda: setattr(argparse.Namespace, "rate", 3.0)


def property_of_pythons_class() -> tuple[Number, Change]:
    argparse.Namespace.rate = property(lambda self: 1.0)  # type: ignore[attr-defined]
    thing = argparse.Namespace()
    return lambda: thing.rate, lambda: setattr(
        argparse.Namespace, "rate", property(lambda self: 3.0)
    )


class _Shaped(collections.abc.Sized, Protocol):
    """Asked by Python itself, whose code for protocols looks who calls it."""


def registered_with_pythons_class() -> tuple[Number, Change]:
    made = types.new_class("Kind")
    thing = made()
    return (
        lambda: 3.0 if isinstance(thing, collections.abc.Sized) else 1.0,
        lambda: collections.abc.Sequence.register(made),
    )


# What else classes have


def name_of_the_type_of_an_object() -> tuple[Number, Change]:
    made = types.new_class("Low")
    thing = made()
    return lambda: 1.0 if type(thing).__name__ == "Low" else 3.0, lambda: setattr(
        made, "__name__", "High"
    )


def positions_of_a_class_pattern() -> tuple[Number, Change]:
    class Pair:
        __match_args__ = ("low",)
        low, high = 1.0, 3.0

    pair = Pair()

    def number() -> float:
        match pair:
            case Pair(rate):
                return rate
        return 0.0

    return number, lambda: setattr(Pair, "__match_args__", ("high",))


def class_of_a_module() -> tuple[Number, Change]:
    module: Any = types.ModuleType("settings")
    module.rate = 1.0
    other = types.new_class("Settings", (types.ModuleType,))
    other.rate = property(lambda self: 3.0)  # type: ignore[attr-defined]
    return lambda: module.rate, lambda: setattr(module, "__class__", other)


class Field:
    """A descriptor with its own state."""

    def __init__(self) -> None:
        self.rate = [1.0]
        self.rates: Any = weakref.WeakKeyDictionary()

    def __get__(self, thing: object, kind: type | None = None) -> float:
        return float(self.rates.get(thing, self.rate[0]) if thing else self.rate[0])

    def __set__(self, thing: object, rate: float) -> None:
        self.rates[thing] = rate


def _with_a_field() -> Any:
    made: Any = types.new_class("Kind", exec_body=lambda body: body.update(rate=Field()))
    return made


def state_of_a_descriptor() -> tuple[Number, Change]:
    made = _with_a_field()
    thing = made()
    return lambda: thing.rate, lambda: vars(made)["rate"].rate.__setitem__(0, 3.0)


def field_of_a_descriptor() -> tuple[Number, Change]:
    made = _with_a_field()
    thing = made()
    thing.rate = 1.0
    return lambda: thing.rate, lambda: setattr(thing, "rate", 3.0)


def state_of_a_descriptor_of_a_metaclass() -> tuple[Number, Change]:
    meta: Any = types.new_class("Meta", (type,), exec_body=lambda b: b.update(rate=Field()))
    made = meta("Kind", (), {})
    return lambda: made.rate, lambda: vars(meta)["rate"].rate.__setitem__(0, 3.0)


class Scaled(property):
    """A property with an attribute."""

    scale = 1.0

    def __get__(self, thing: Any, kind: type | None = None) -> Any:
        return float(super().__get__(thing, kind)) * self.scale


def attribute_of_a_property() -> tuple[Number, Change]:
    class Policy:
        @Scaled
        def rate(self) -> float:
            return 1.0

    policy = Policy()
    return lambda: policy.rate, lambda: setattr(vars(Policy)["rate"], "scale", 3.0)


def attributes_exchanged() -> tuple[Number, Change]:
    thing = Thing()
    thing.rate = 1.0
    return lambda: thing.rate, lambda: setattr(thing, "__dict__", {"rate": 3.0})


# Objects of C whose parts are exchanged


def partial_set_to_another() -> tuple[Number, Change]:
    function = functools.partial(lambda rate: rate, 1.0)
    return lambda: function(), lambda: function.__setstate__(  # type: ignore[attr-defined]
        (lambda rate: rate, (3.0,), {}, {})
    )


def what_a_default_dict_calls() -> tuple[Number, Change]:
    box: Any = collections.defaultdict(lambda: 1.0)

    def number() -> float:
        rate = box["rate"]
        del box["rate"]
        return float(rate)

    return number, lambda: setattr(box, "default_factory", lambda: 3.0)


def row_of_an_array() -> tuple[Number, Change]:
    array = np.array([(1.0, 2)], [("rate", "f8"), ("size", "i4")])
    row = array[0]
    return lambda: float(row["rate"]), lambda: array["rate"].fill(3.0)


def record_of_an_array() -> tuple[Number, Change]:
    array: Any = np.rec.array([(1.0, 2)], dtype=[("rate", "f8"), ("size", "i4")])
    row = array[0]
    return lambda: float(row.rate), lambda: array.rate.fill(3.0)


def name_of_a_column() -> tuple[Number, Change]:
    dtype: Any = np.dtype([("low", "f8")])
    return lambda: 1.0 if dtype.names[0] == "low" else 3.0, lambda: setattr(
        dtype, "names", ("high",)
    )


def text_of_an_exception() -> tuple[Number, Change]:
    error = ValueError("1.0")
    return lambda: float(f"{error}"), lambda: setattr(error, "args", ("3.0",))


COMPARED: Final = spellings(globals(), "tuple[Number, Change]")


# What hides what it reads


def object_of_super() -> tuple[Number, Change]:
    class Low:
        source = 1.0

        def rate(self) -> float:
            return self.source

    class Policy(Low):
        """Its method is that of its base."""

    policy = Policy()
    above: Any = super(Policy, policy)
    return lambda: above.rate(), lambda: setattr(policy, "source", 3.0)


def address_of_a_number() -> tuple[Number, Change]:
    place = ctypes.c_double(1.0)
    address = ctypes.addressof(place)
    return lambda: ctypes.c_double.from_address(address).value, lambda: setattr(place, "value", 3.0)


def array_in_a_text() -> tuple[Number, Change]:
    array = np.array([1.23456])
    return lambda: 1.0 if str(array) == "[1.23456]" else 3.0, lambda: np.set_printoptions(2)


def array_of_a_step_in_a_text() -> tuple[Number, Change]:
    return (
        lambda: 1.0 if f"{np.array([1.23456])}" == "[1.23456]" else 3.0,
        lambda: np.set_printoptions(2),
    )


HIDDEN: Final = (object_of_super, address_of_a_number, array_in_a_text, array_of_a_step_in_a_text)


def clock_of_a_date() -> Number:
    start = datetime.datetime(2000, 1, 1)
    return lambda: float(start.now().year > 2000)


def text_of_what_a_step_makes() -> Number:
    def number() -> float:
        made = Thing()
        return float(len(f"{made}") > 7)

    return number


def text_of_a_call() -> Number:
    return lambda: float(len(repr(Thing())) > 7)


CHANGING: Final = spellings(globals(), "Number")


@pytest.mark.parametrize(
    "spelling", [each for each in COMPARED if each not in HIDDEN], ids=lambda f: f.__name__
)
def test_a_change_of_a_class_or_of_a_part_is_noticed(spelling: Spelling, device: Capturing) -> None:
    check_change_is_noticed(spelling, device)


@pytest.mark.parametrize("spelling", HIDDEN, ids=lambda f: f.__name__)
def test_what_hides_its_source_is_not_captured(spelling: Spelling, device: Capturing) -> None:
    check_hidden_is_not_captured(spelling, device)


@pytest.mark.parametrize("spelling", CHANGING, ids=lambda f: f.__name__)
def test_clocks_and_addresses_in_texts_are_not_captured(
    spelling: Callable[[], Number], device: Capturing
) -> None:
    check_is_not_captured(spelling(), device)


def test_a_view_that_is_released_ends_a_capture(device: Capturing) -> None:
    view = memoryview(bytearray([1]))

    def number() -> float:
        try:
            return float(view[0])
        except ValueError:
            return 3.0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, trainer = weights(device, number, view.release)
    view = memoryview(bytearray([1]))
    assert trainer.counts.replayed >= 2
    assert found == weights(NumpyBackend(), number, view.release, capture=False)[0]
