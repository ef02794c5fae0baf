"""Settings of NumPy, caches, clocks and places in memory that a captured step depends on."""

from __future__ import annotations

import abc
import collections
import concurrent.futures
import dataclasses
import datetime
import functools
import gc
import io
import mmap
import queue
import struct
import sys
import threading
import types
import typing
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, Final

import kiwisolver
import numpy as np
import pytest
from captured_number import (
    Change,
    Number,
    check_change_is_noticed,
    check_hidden_is_not_captured,
    check_is_not_captured,
    spellings,
)
from numba.typed import Dict, List
from PIL import Image

from rumus.tensor.memory.recording import Capturing

NumberAndChange = tuple[Number, Change]
Spelling = Callable[[], NumberAndChange]
OLD: Final = functools.partial(np.set_printoptions, legacy="1.25")


@pytest.fixture(autouse=True)
def _numpy_as_it_was() -> Iterator[None]:
    with np.printoptions(), np.errstate():
        yield
    gc.enable()


@pytest.fixture(autouse=True)
def _digits_as_they_were() -> Iterator[None]:
    most = sys.get_int_max_str_digits()
    yield
    sys.set_int_max_str_digits(most)


def _has_type(text: str) -> float:
    """NumPy 2 writes np.float64(1.0), NumPy 1 wrote 1.0."""
    return 1.0 if "np." in text else 3.0


def number_in_an_f_string() -> tuple[Number, Change]:
    np.set_printoptions(legacy=False)
    x = np.float64(1.0)
    return lambda: _has_type(f"{x!r}"), OLD


def number_in_a_list_in_a_text() -> tuple[Number, Change]:
    np.set_printoptions(legacy=False)
    x = [np.float32(1.0)]
    return lambda: _has_type(str(x)), OLD


def number_in_a_percent_format() -> tuple[Number, Change]:
    np.set_printoptions(legacy=False)
    x = np.float64(1.0)
    return lambda: _has_type("%r" % x), OLD  # noqa: UP031


def number_that_a_step_makes_in_a_text() -> tuple[Number, Change]:
    np.set_printoptions(legacy=False)
    return lambda: _has_type(repr(np.float64(2.0) * 2)), OLD


def element_in_a_text() -> tuple[Number, Change]:
    np.set_printoptions(legacy=False)
    x = np.ones(2)
    return lambda: _has_type(repr(x[0])), OLD


def division_that_raises() -> tuple[Number, Change]:
    np.seterr(divide="ignore")

    def number() -> float:
        try:
            return 1.0 if np.isinf(np.float64(1) / np.float64(0)) else 2.0
        except FloatingPointError:
            return 3.0

    return number, lambda: np.seterr(divide="raise")


def namespace_out_of_a_cache() -> tuple[Number, Change]:
    options = functools.cache(lambda: SimpleNamespace(rate=1.0))
    options()
    return lambda: options().rate, lambda: setattr(options(), "rate", 3.0)


def dict_out_of_a_cache() -> tuple[Number, Change]:
    options = functools.cache(lambda: {"rate": [1.0]})
    options()
    return lambda: options()["rate"][0], lambda: options()["rate"].__setitem__(0, 3.0)


def dict_out_of_a_small_cache() -> tuple[Number, Change]:
    options = functools.lru_cache(4)(lambda name: {"rate": 1.0})
    options("a")
    return lambda: options("a")["rate"], lambda: options("a").update(rate=3.0)


def deque_out_of_a_cache() -> tuple[Number, Change]:
    options = functools.lru_cache(4)(lambda: collections.deque([1.0]))
    options()
    return lambda: options()[0], lambda: options().__setitem__(0, 3.0)


def namespace_out_of_a_cached_method() -> tuple[Number, Change]:
    class Holder:
        @functools.lru_cache  # noqa: B019
        def options(self) -> Any:
            return SimpleNamespace(rate=1.0)

    holder = Holder()
    holder.options()
    return lambda: holder.options().rate, lambda: setattr(holder.options(), "rate", 3.0)


def class_that_becomes_abstract() -> tuple[Number, Change]:
    class Policy(abc.ABC):  # noqa: B024
        """Nothing is missing yet."""

    def number() -> float:
        try:
            Policy()
            return 1.0
        except TypeError:
            return 3.0

    return number, lambda: setattr(Policy, "__abstractmethods__", frozenset(["step"]))


def number_in_the_file_of_a_memory_map() -> tuple[Number, Change]:
    memory = mmap.mmap(-1, 16)
    memory[0] = 1
    return lambda: float(memory[0]), lambda: memory.__setitem__(0, 3)


def number_in_the_bytes_of_an_array() -> tuple[Number, Change]:
    memory = bytearray(struct.pack("d", 1.0))
    array = np.frombuffer(memory)
    return lambda: float(array[0]), lambda: struct.pack_into("d", memory, 0, 3.0)


def number_in_a_part_of_a_large_array() -> tuple[Number, Change]:
    large = np.ones(100_000)
    part = large[5:6]
    return lambda: float(part[0]), lambda: large.__setitem__(5, 3.0)


def text_in_memory() -> tuple[Number, Change]:
    file = io.StringIO("1.0")

    def change() -> None:
        file.seek(0)
        file.write("3.0")

    return lambda: float(file.getvalue()), change


def masked_array() -> tuple[Number, Change]:
    array: Any = np.ma.array([1.0, 3.0], mask=[False, False])
    return lambda: float(array.min()), lambda: array.mask.__setitem__(0, True)


def attribute_of_a_derived_array() -> tuple[Number, Change]:
    class Named(np.ndarray):
        rate: float

    array: Any = np.ones(1).view(Named)
    array.rate = 1.0
    return lambda: array.rate, lambda: setattr(array, "rate", 3.0)


def array_of_an_object() -> tuple[Number, Change]:
    class Holder:
        rate = 1.0

        def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
            return np.array(self.rate)

    holder = Holder()
    return lambda: float(np.asarray(holder)), lambda: setattr(holder, "rate", 3.0)


def flags_of_an_array() -> tuple[Number, Change]:
    array = np.ones(2)
    return lambda: 1.0 if array.flags.writeable else 3.0, lambda: array.setflags(write=False)


def dict_with_weak_keys() -> tuple[Number, Change]:
    class Key:
        """Can be referred to weakly."""

    key = Key()
    rates = weakref.WeakKeyDictionary({key: 1.0})
    return lambda: rates[key], lambda: rates.__setitem__(key, 3.0)


def generic_function() -> tuple[Number, Change]:
    @functools.singledispatch
    def rate(of: object) -> float:
        return 1.0

    return lambda: rate(2), lambda: rate.register(int)(lambda of: 3.0)


def event() -> tuple[Number, Change]:
    passed = threading.Event()
    return lambda: 3.0 if passed.is_set() else 1.0, passed.set


def size_of_a_queue() -> tuple[Number, Change]:
    waiting: queue.Queue[int] = queue.Queue()
    return lambda: 1.0 + 2 * waiting.qsize(), lambda: waiting.put(1)


def future() -> tuple[Number, Change]:
    result: concurrent.futures.Future[int] = concurrent.futures.Future()
    return lambda: 3.0 if result.done() else 1.0, lambda: result.set_result(1)


def attribute_of_a_metaclass() -> tuple[Number, Change]:
    rates = {"rate": 1.0}

    class Meta(type):
        def __getattr__(cls, name: str) -> float:
            return rates[name]

    class Holder(metaclass=Meta):
        """Has what its metaclass gives it."""

    return lambda: Holder.rate, lambda: rates.update(rate=3.0)


def attribute_of_a_modules_function() -> tuple[Number, Change]:
    rates, module = {"rate": 1.0}, types.ModuleType("rates_of_the_test")
    module.__getattr__ = rates.__getitem__  # type: ignore[method-assign]
    return lambda: module.rate, lambda: rates.update(rate=3.0)


def _called(name: str, called: Any, number: Callable[[Any], float]) -> Callable[[], float]:
    """What an object gives whose class has a function in C for a special method."""
    thing: Any = type("Holder", (), {name: called})()
    return lambda: number(thing)


def item_by_a_function_in_c() -> tuple[Number, Change]:
    rates = {"rate": 1.0}
    number = _called("__getitem__", rates.__getitem__, lambda thing: thing["rate"])
    return number, lambda: rates.update(rate=3.0)


def attribute_by_a_function_in_c() -> tuple[Number, Change]:
    rates = {"rate": 1.0}
    number = _called("__getattr__", rates.__getitem__, lambda thing: thing.rate)
    return number, lambda: rates.update(rate=3.0)


def length_by_a_function_in_c() -> tuple[Number, Change]:
    rates = [0]
    return _called("__len__", rates.__len__, lambda thing: float(len(thing))), lambda: rates.extend(
        [0, 0]
    )


def call_by_a_function_in_c() -> tuple[Number, Change]:
    rates = {"rate": 1.0}
    number = _called("__call__", functools.partial(rates.get, "rate"), lambda thing: thing())
    return number, lambda: rates.update(rate=3.0)


def class_by_a_function_in_c() -> tuple[Number, Change]:
    rates = {"rate": 1.0}
    meta = type("Meta", (type,), {"__getattr__": rates.__getitem__})
    kind: Any = meta("Holder", (), {})
    return lambda: kind.rate, lambda: rates.update(rate=3.0)


def item_of_a_class_by_a_function_in_c() -> tuple[Number, Change]:
    rates = {"rate": 1.0}
    kind: Any = type("Holder", (), {"__class_getitem__": rates.__getitem__})
    return lambda: kind["rate"], lambda: rates.update(rate=3.0)


def copy_of_a_data_class() -> tuple[Number, Change]:
    @dataclasses.dataclass(frozen=True)
    class Options:
        rate: float = 1.0
        other: int = 1

    options = Options()
    return (
        lambda: dataclasses.replace(options, other=2).rate,
        lambda: object.__setattr__(options, "rate", 3.0),
    )


def protocol() -> tuple[Number, Change]:
    @typing.runtime_checkable
    class Rated(typing.Protocol):
        rate: float

    thing = SimpleNamespace()
    return lambda: 3.0 if isinstance(thing, Rated) else 1.0, lambda: setattr(thing, "rate", 1)


def index_of_an_object() -> tuple[Number, Change]:
    class Place:
        at = 0

        def __index__(self) -> int:
            return self.at

    place, rates = Place(), [1.0, 3.0]
    return lambda: rates[place], lambda: setattr(place, "at", 1)


def notes_of_an_exception() -> tuple[Number, Change]:
    error = ValueError("of the test")
    return lambda: 1.0 + 2 * len(getattr(error, "__notes__", ())), lambda: error.add_note("x")


def _fits(text: Callable[[], str]) -> NumberAndChange:
    """Whether a text of a number of 1001 digits may be made."""
    sys.set_int_max_str_digits(4300)

    def number() -> float:
        try:
            return float(len(text()) > 0)
        except ValueError:
            return 3.0

    return number, lambda: sys.set_int_max_str_digits(700)


def digits_of_a_text() -> tuple[Number, Change]:
    return _fits(lambda: str(10**1000))


def digits_of_an_f_string() -> tuple[Number, Change]:
    return _fits(lambda: f"{10**1000}")


def digits_of_a_percent_format() -> tuple[Number, Change]:
    return _fits(lambda: "%d" % 10**1000)  # noqa: UP031


def digits_of_a_format() -> tuple[Number, Change]:
    return _fits(lambda: "{}".format(10**1000))  # noqa: UP032


def typed_list_of_numba() -> tuple[Number, Change]:
    rates = List([1.0])
    return lambda: rates[0], lambda: rates.__setitem__(0, 3.0)


def typed_dict_of_numba_in_a_list() -> tuple[Number, Change]:
    rates = Dict()
    rates["rate"] = 1.0
    holders = [rates]
    return lambda: holders[0]["rate"], lambda: rates.__setitem__("rate", 3.0)


def pixel_of_an_image() -> tuple[Number, Change]:
    image = Image.new("L", (1, 1), 1)
    return lambda: float(image.getpixel((0, 0))), lambda: image.putpixel((0, 0), 3)  # type: ignore[arg-type]


def pixel_of_a_type_in_c() -> tuple[Number, Change]:
    """It says that it is of builtins."""
    image = Image.new("L", (1, 1), 1)
    memory = image.im
    return lambda: float(memory.getpixel((0, 0))), lambda: image.putpixel((0, 0), 3)


def variable_of_a_class_in_c() -> tuple[Number, Change]:
    """The class has the flags of one of Python."""
    variable, solver = kiwisolver.Variable(), kiwisolver.Solver()
    solver.addEditVariable(variable, "strong")

    def change(value: float) -> None:
        solver.suggestValue(variable, value)
        solver.updateVariables()

    change(1.0)
    return variable.value, lambda: change(3.0)


def _of_address(name: str) -> tuple[Any, np.ndarray]:
    """An object that NumPy reads by an address, and what lies there."""
    array = np.ones(1)
    return SimpleNamespace(**{name: getattr(array, name)}), array


def array_by_its_address() -> tuple[Number, Change]:
    place, array = _of_address("__array_interface__")
    return lambda: float(np.asarray(place)[0]), lambda: array.__setitem__(0, 3.0)


def array_by_an_address_in_a_capsule() -> tuple[Number, Change]:
    place, array = _of_address("__array_struct__")
    return lambda: float(np.asarray(place)[0]), lambda: array.__setitem__(0, 3.0)


def array_by_an_address_of_a_property() -> tuple[Number, Change]:
    shown, array = _of_address("__array_interface__")
    place: Any = type(
        "Place", (), {"__array_interface__": property(lambda _: vars(shown)["__array_interface__"])}
    )()
    return lambda: float(np.asarray(place)[0]), lambda: array.__setitem__(0, 3.0)


def collector() -> tuple[Number, Change]:
    gc.enable()
    return lambda: 1.0 if gc.isenabled() else 3.0, gc.disable


def date_in_a_list() -> Number:
    dates = [datetime.datetime(2000, 1, 1)]
    return lambda: float(dates[0].now().year > 2000)


def type_of_a_date() -> Number:
    start = datetime.datetime(2000, 1, 1)
    return lambda: float(type(start).now().year > 2000)


def class_of_dates_in_a_tuple() -> Number:
    kinds = (datetime.date,)
    return lambda: float(kinds[0].today().year > 2000)


def class_of_dates_by_getattr() -> Number:
    kinds = [datetime.datetime]
    return lambda: float(getattr(kinds[0], "now")().year > 2000)  # noqa: B009


def date_of_numpy() -> Number:
    return lambda: float(np.datetime64("now") > np.datetime64("2000-01-01"))


def class_of_dates_of_numpy_in_a_list() -> Number:
    kinds = [np.datetime64]
    return lambda: float(kinds[0]("today") > kinds[0]("2000-01-01"))


def text_that_tells_the_time() -> Number:
    return lambda: float(np.array(["now"], "datetime64[s]")[0] > np.array("2000", "M8[s]"))


def text_that_becomes_a_date() -> Number:
    texts = {"today": np.array(["Today"])}
    return lambda: float(texts["today"].astype("M8[D]")[0] > np.array("2000", "M8[D]"))


def text_in_an_array_of_dates() -> Number:
    dates = np.array(["2000"], "M8[s]")

    def number() -> float:
        found = dates.copy()
        found[0] = "now"
        return float(found[0] > dates[0])

    return number


COMPARED: Final = spellings(globals(), "tuple[Number, Change]")
# Not captured: what Python cannot compare, or code that refers to it.
HIDDEN: Final = (
    number_in_the_file_of_a_memory_map, text_in_memory, flags_of_an_array,
    typed_list_of_numba, typed_dict_of_numba_in_a_list, pixel_of_an_image,
    pixel_of_a_type_in_c, variable_of_a_class_in_c, array_by_its_address,
    array_by_an_address_in_a_capsule, array_by_an_address_of_a_property, collector,
)  # fmt: skip
CLOCKS: Final = spellings(globals(), "Number")


@pytest.mark.parametrize(
    "spelling", [each for each in COMPARED if each not in HIDDEN], ids=lambda f: f.__name__
)
def test_a_change_of_settings_and_caches_is_noticed(spelling: Spelling, device: Capturing) -> None:
    check_change_is_noticed(spelling, device)


@pytest.mark.parametrize("spelling", HIDDEN, ids=lambda f: f.__name__)
def test_memory_that_cannot_be_compared_is_not_captured(
    spelling: Spelling, device: Capturing
) -> None:
    check_hidden_is_not_captured(spelling, device)


@pytest.mark.parametrize("spelling", CLOCKS, ids=lambda f: f.__name__)
def test_dates_that_tell_the_time_are_not_captured(
    spelling: Callable[[], Number], device: Capturing
) -> None:
    check_is_not_captured(spelling(), device)


def test_dates_that_tell_no_time_are_captured(device: Capturing) -> None:
    """Nor attributes of other things that are called like it."""

    def date() -> tuple[Number, Change]:
        days = [datetime.date(2000, 1, 1)]
        return (
            lambda: float(days[0].day),
            lambda: days.__setitem__(0, datetime.date(2000, 1, 3)),
        )

    def clock() -> tuple[Number, Change]:
        clock = SimpleNamespace(now=1.0)
        return lambda: [clock][0].now, lambda: setattr(clock, "now", 3.0)

    check_change_is_noticed(date, device)
    check_change_is_noticed(clock, device)
