"""What surrounds a captured step: frames, imports, codecs, recursion, classes that C code asks.

As in `test_captured_values`: a loss multiplies by a number, and a change comes after the fourth of
eight steps. What cannot be compared is not captured.
"""

from __future__ import annotations

import abc
import builtins
import codecs
import collections.abc
import contextlib
import copy
import ctypes
import datetime
import decimal
import functools
import io
import itertools
import logging
import sqlite3
import sys
import threading
import types
import typing
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from captured_number import (
    CHANGED,
    Change,
    Number,
    are_heard,
    check_change_is_noticed,
    check_hidden_is_not_captured,
    check_is_not_captured,
    spellings,
    weights,
)

from rumus.tensor.memory.recording import Capturing

Spelling = Callable[[], tuple[Number, Change]]
RATE: float = 1.0
NUMBERS: Final = itertools.count()


@pytest.fixture(autouse=True)
def _settings_as_they_were() -> Iterator[None]:
    limit, found = sys.getrecursionlimit(), list(sys.meta_path)
    with decimal.localcontext():
        yield
    sys.setrecursionlimit(limit)
    sys.meta_path[:] = found
    threading.stack_size(0)


class Rated:
    """An object that returns its number."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, *_: object) -> float:
        return self.rate


def code(text: str, **names: Any) -> Any:
    """The function `number` of a text."""
    exec(text, names)
    return names["number"]


def module(name: str, **names: Any) -> Any:
    """A module that a program can import."""
    made = types.ModuleType(name)
    vars(made).update(names)
    sys.modules[name] = made
    return made


def set_global() -> None:
    """Change what this module calls RATE."""
    global RATE
    RATE = 3.0


# Objects that hold others, or are asked by C code


def contents_of_cells() -> tuple[Number, Change]:
    first, second = types.CellType(1.0), types.CellType(1.0)
    return lambda: 1.0 if first == second else 3.0, lambda: setattr(second, "cell_contents", 3.0)


def order_of_a_set() -> tuple[Number, Change]:
    values = {0, 8}

    def change() -> None:
        values.clear()
        values.add(8)
        values.add(0)

    return lambda: 3.0 if next(iter(values)) else 1.0, change


def order_of_another_set() -> tuple[Number, Change]:
    box = {"values": frozenset([0, 8])}
    return (
        lambda: 3.0 if list(box["values"])[0] else 1.0,  # noqa: RUF015
        lambda: box.update(values=frozenset([8, 0])),
    )


def array_that_becomes_constant() -> tuple[Number, Change]:
    values = np.ones(2)

    def number() -> float:
        try:
            values[0] = 1.0
        except ValueError:
            return 3.0
        return 1.0

    return number, lambda: values.setflags(write=False)


def layout_of_an_array() -> tuple[Number, Change]:
    box = {"values": np.ones((2, 2))}
    return (
        lambda: 3.0 if np.isfortran(box["values"]) else 1.0,
        lambda: box.update(values=np.asfortranarray(box["values"])),
    )


def name_of_a_column_in_a_column() -> tuple[Number, Change]:
    inner = np.dtype([("x", "f8"), ("y", "f8")])
    rows = np.array([((1.0, 3.0),)], np.dtype([("inner", inner)]))

    def change() -> None:
        rows.dtype["inner"].names = ("y", "x")

    return lambda: float(rows["inner"]["x"][0]), change


def object_called_by_an_operator() -> tuple[Number, Change]:
    kind = type("Kind", (), {"__float__": Rated(1.0)})
    thing: Any = kind()
    return lambda: float(thing), lambda: setattr(kind, "__float__", Rated(3.0))


def attribute_of_what_an_operator_calls() -> tuple[Number, Change]:
    rated = Rated(1.0)
    thing: Any = type("Kind", (), {"__float__": rated})()
    return lambda: float(thing), lambda: setattr(rated, "rate", 3.0)


def property_called_by_an_operator() -> tuple[Number, Change]:
    kind = type("Kind", (), {"__float__": property(lambda self: Rated(1.0))})
    thing: Any = kind()
    return lambda: float(thing), lambda: setattr(
        kind, "__float__", property(lambda self: Rated(3.0))
    )


def static_method_called_for_a_length() -> tuple[Number, Change]:
    kind = type("Kind", (), {"__len__": staticmethod(lambda: 1)})
    thing: Any = kind()
    return lambda: float(len(thing)), lambda: setattr(kind, "__len__", staticmethod(lambda: 3))


def zone_of_a_time() -> tuple[Number, Change]:
    class Zone(datetime.tzinfo):
        def __init__(self, hours: int) -> None:
            self.hours = hours

        def utcoffset(self, moment: object) -> datetime.timedelta:
            return datetime.timedelta(hours=self.hours)

        def dst(self, moment: object) -> datetime.timedelta:
            return datetime.timedelta(0)

        def tzname(self, moment: object) -> str:
            return "zone"

    zone = Zone(1)
    here = datetime.datetime(2000, 1, 1, tzinfo=zone)
    there = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    return lambda: (there - here).seconds / 3600, lambda: setattr(zone, "hours", 3)


def method_that_was_none() -> tuple[Number, Change]:
    kind = type("Kind", (), {"__iter__": None})
    thing: Any = kind()

    def number() -> Any:
        try:
            return sum(thing)
        except TypeError:
            return 1.0

    return number, lambda: setattr(kind, "__iter__", lambda self: iter([3.0]))


def method_of_what_a_step_makes_that_was_none() -> tuple[Number, Change]:
    kind: Any = type("Kind", (), {"__iter__": None})

    def number() -> Any:
        try:
            return sum(kind())
        except TypeError:
            return 1.0

    return number, lambda: setattr(kind, "__iter__", lambda self: iter([3.0]))


def function_of_numpy_that_was_refused() -> tuple[Number, Change]:
    class Kind:
        __array_ufunc__: Any = None

        def __radd__(self, other: object) -> float:
            return 1.0

    thing: Any = Kind()
    return lambda: float(np.ones(1) + thing), lambda: setattr(
        Kind, "__array_ufunc__", lambda *_, **__: 3.0
    )


def priority_beside_an_array() -> tuple[Number, Change]:
    class Kind:
        __array_priority__ = 100.0

        def __radd__(self, other: object) -> float:
            return 1.0

        def __add__(self, other: object) -> float:
            return 3.0

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.array([2.0])

    thing: Any = Kind()
    return lambda: float(np.sum(np.ones(1) + thing)), lambda: setattr(
        Kind, "__array_priority__", -100.0
    )


def _or_one(rate: Any) -> Number:
    """What a function returns without arguments, 1 as long as it lacks one."""

    def number() -> Any:
        try:
            return rate()
        except TypeError:
            return 1.0

    return number


def default_that_arrives() -> tuple[Number, Change]:
    def rate(value: float) -> float:
        return value

    return _or_one(rate), lambda: setattr(rate, "__defaults__", (3.0,))


def named_default_that_arrives() -> tuple[Number, Change]:
    def rate(*, value: float) -> float:
        return value

    return _or_one(rate), lambda: setattr(rate, "__kwdefaults__", {"value": 3.0})


# Settings and registers


def letters_of_a_decimal() -> tuple[Number, Change]:
    decimal.getcontext().capitals = 1
    return lambda: 1.0 if "E" in str(Decimal("1E+30")) else 3.0, lambda: setattr(
        decimal.getcontext(), "capitals", 0
    )


def _treating(text: str) -> Callable[[UnicodeError], tuple[str, int]]:
    return lambda error: (text, typing.cast(UnicodeEncodeError, error).end)


def treatment_of_errors() -> tuple[Number, Change]:
    codecs.register_error("rumus.rated", _treating("1"))
    return lambda: float("é".encode("ascii", "rumus.rated")), lambda: codecs.register_error(
        "rumus.rated", _treating("3")
    )


def treatment_of_errors_in_a_table() -> tuple[Number, Change]:
    codecs.register_error("rumus.listed", _treating("1"))
    table = {"errors": "rumus.listed"}
    return lambda: float(str(b"\xff", "ascii", **table)), lambda: codecs.register_error(
        "rumus.listed", _treating("3")
    )


def _deep(calls: int) -> float:
    return 1.0 if calls == 0 else _deep(calls - 1)


def token_of_abstract_classes() -> tuple[Number, Change]:
    class Abstract(abc.ABC): ...  # noqa: B024

    start = abc.get_cache_token()
    return lambda: 1.0 if abc.get_cache_token() == start else 3.0, lambda: Abstract.register(int)


def sequence_of_a_pattern() -> tuple[Number, Change]:
    class Values:
        def __getitem__(self, index: int) -> float:
            return [3.0][index]

        def __len__(self) -> int:
            return 1

    values: Any = Values()

    def number() -> Any:
        match values:
            case [found]:
                return found
        return 1.0

    return number, lambda: collections.abc.Sequence.register(Values)


def mapping_of_a_pattern() -> tuple[Number, Change]:
    class Values:
        def get(self, key: str, default: object) -> float:
            return 3.0

        def __len__(self) -> int:
            return 1

    values: Any = Values()

    def number() -> Any:
        match values:
            case {"rate": found}:
                return found
        return 1.0

    return number, lambda: collections.abc.Mapping.register(Values)


# Imports


def module_that_its_package_does_not_name() -> tuple[Number, Change]:
    name = f"surroundings_{next(NUMBERS)}"
    module(name)
    part = module(f"{name}.part", rate=1.0)
    text = f"def number():\n    from {name} import part\n    return part.rate"
    return code(text, __name__="code"), lambda: setattr(part, "rate", 3.0)


def module_that_is_exchanged_beside_its_package() -> tuple[Number, Change]:
    name = f"surroundings_{next(NUMBERS)}"
    module(name)
    module(f"{name}.part", rate=1.0)
    text = f"def number():\n    from {name} import part\n    return part.rate"
    return code(text, __name__="code"), lambda: module(f"{name}.part", rate=3.0)


COMPARED: Final = spellings(globals(), "tuple[Number, Change]")


@pytest.mark.parametrize("spelling", COMPARED, ids=lambda f: f.__name__)
def test_a_change_around_a_step_is_noticed(spelling: Spelling, device: Capturing) -> None:
    check_change_is_noticed(spelling, device)


# What cannot be compared


def global_of_a_frame() -> tuple[Number, Change]:
    def number() -> Any:
        try:
            raise KeyError
        except KeyError as error:
            raised: Any = error
            return raised.__traceback__.tb_frame.f_globals["RATE"]

    return number, set_global


def global_of_a_generators_frame() -> tuple[Number, Change]:
    def number() -> Any:
        made: Any = (each for each in [RATE])
        return made.gi_frame.f_globals["RATE"]

    return number, set_global


def global_of_what_a_step_makes() -> tuple[Number, Change]:
    def number() -> Any:
        made = lambda: None
        return made.__globals__["RATE"]

    return number, set_global


def builtin_of_what_a_step_makes() -> tuple[Number, Change]:
    vars(builtins)["rumus_rate"] = 1.0

    def number() -> Any:
        made: Any = lambda: None
        return made.__builtins__["rumus_rate"]

    return number, lambda: vars(builtins).update(rumus_rate=3.0)


def pointer_in_a_structure() -> tuple[Number, Change]:
    class Pair(ctypes.Structure):
        _fields_ = (("rate", ctypes.POINTER(ctypes.c_double)),)

    place = ctypes.c_double(1.0)
    pair = Pair(ctypes.pointer(place))
    return lambda: pair.rate[0], lambda: setattr(place, "value", 3.0)


def objects_in_an_array_of_c() -> tuple[Number, Change]:
    box = {"rate": 1.0}
    given: Any = box
    boxes: Any = (ctypes.py_object * 1)(given)
    return lambda: boxes[0]["rate"], lambda: box.update(rate=3.0)


def texts_in_an_array_of_c() -> tuple[Number, Change]:
    text = ctypes.create_string_buffer(b"1.0")
    texts: Any = (ctypes.c_char_p * 1)(ctypes.cast(text, ctypes.c_char_p))
    return lambda: float(texts[0]), lambda: setattr(text, "value", b"3.0")


def file_of_a_class_in_c(folder: Path) -> tuple[Number, Change]:
    path, opened = folder / "rate", io.FileIO
    path.write_text("1.0")

    def number() -> float:
        with opened(path) as file:
            return float(file.read())

    return number, lambda: path.write_text("3.0")


def file_by_a_source_of_numpy(folder: Path) -> tuple[Number, Change]:
    path, source = folder / "rate", np.lib.npyio.DataSource
    path.write_text("1.0")

    def number() -> float:
        with contextlib.closing(source(None).open(str(path))) as file:
            return float(file.read())

    return number, lambda: path.write_text("3.0")


def row_of_a_database(folder: Path) -> tuple[Number, Change]:
    path, opened = folder / "rates", sqlite3.Connection
    with contextlib.closing(sqlite3.connect(path)) as made, made:
        made.execute("create table if not exists rates (rate real)")
        made.execute("delete from rates")
        made.execute("insert into rates values (1.0)")

    def number() -> Any:
        with contextlib.closing(opened(path)) as found:
            return found.execute("select rate from rates").fetchone()[0]

    def change() -> None:
        with contextlib.closing(sqlite3.connect(path)) as made, made:
            made.execute("update rates set rate = 3.0")

    return number, change


def module_that_is_found_later() -> tuple[Number, Change]:
    name = f"surroundings_{next(NUMBERS)}"
    text = (
        f"def number():\n    try:\n        import {name}\n    except ImportError:\n"
        f"        return 1.0\n    return {name}.rate"
    )

    class Finder:
        """Finds the module."""

        @staticmethod
        def find_spec(asked: str, path: object = None, target: object = None) -> Any:
            return ModuleSpec(asked, Finder()) if asked == name else None  # type: ignore[arg-type]

        def create_module(self, spec: object) -> None: ...

        def exec_module(self, made: Any) -> None:
            made.rate = 3.0

    return code(text, __name__="code"), lambda: sys.meta_path.append(Finder)


def size_of_the_stacks_of_threads() -> tuple[Number, Change]:
    return lambda: 3.0 if threading.stack_size() else 1.0, lambda: threading.stack_size(1 << 20)


def uses_of_a_cache() -> tuple[Number, Change]:
    cached = functools.lru_cache(lambda x: x)
    cached(1)
    return lambda: 3.0 if cached.cache_info().hits else 1.0, lambda: cached(1)


def memory_of_bytes() -> tuple[Number, Change]:
    found = bytearray(b"abc")
    size = found.__alloc__()

    def change() -> None:
        found.extend(b"x" * 100)
        del found[3:]
        found.append(1)
        found.pop()

    return lambda: 1.0 if found.__alloc__() == size else 3.0, change


def errors_beyond_the_limit_of_recursion() -> tuple[Number, Change]:
    def number() -> float:
        try:
            _deep(2000)
        except RecursionError:
            return 1.0
        return 3.0

    return number, lambda: sys.setrecursionlimit(8000)


HIDDEN: Final = [
    each for each in spellings(globals(), "tuple[Number, Change]") if each not in COMPARED
]


@pytest.mark.parametrize("spelling", HIDDEN, ids=lambda f: f.__name__)
def test_what_hides_what_surrounds_a_step_is_not_captured(
    spelling: Any, device: Capturing, tmp_path: Path
) -> None:
    global RATE
    has_file = "folder" in spelling.__annotations__

    def begun() -> tuple[Number, Change]:
        global RATE
        RATE = 1.0
        found: tuple[Number, Change] = spelling(tmp_path) if has_file else spelling()
        return found

    limit = sys.getrecursionlimit()

    def again() -> tuple[Number, Change]:
        sys.setrecursionlimit(limit)
        threading.stack_size(0)
        sys.meta_path[:] = [each for each in sys.meta_path if each.__module__ != __name__]
        return begun()

    check_hidden_is_not_captured(again, device)
    RATE = 1.0


# What looks like it, and is repeated


def _number(*_: object) -> float:
    return 1.0


class Shown:
    """An object with an attribute that frames have, too."""

    f_back = 1.0


def _texts() -> float:
    return float("é1".encode("ascii", "ignore")) * float(b"1".decode("utf-8", "strict"))


def _optional() -> float:
    from collections import OrderedDict

    return float(len(OrderedDict(a=1)))


LOG: Final = logging.getLogger("rumus.surroundings")


def _logged() -> float:
    LOG.debug("a step")
    return 1.0


def _held(lock: Any = threading.RLock()) -> float:  # noqa: B008
    lock.acquire()
    try:
        return 1.0
    finally:
        lock.release()


class _Fields(ctypes.Structure):
    _fields_ = (("rate", ctypes.c_double), ("others", ctypes.c_int * 2))


FIELDS: Final = _Fields(1.0)
ROWS: Final = np.array([(1.0, 2)], [("rate", "f8"), ("n", "i4")])
VALUES: Final = {1.0, 2.0}
SHOWN: Final = Shown()
REPEATED: Final[dict[str, Callable[[], Any]]] = {
    "codecs that Python has": _texts,
    "an import in a function": _optional,
    "a message below the level": _logged,
    "a lock that is waited for": _held,
    "a structure of numbers": lambda: FIELDS.rate,
    "a row of an array": lambda: ROWS["rate"][0],
    "a set": lambda: min(VALUES),
    "a text in memory": lambda: float(io.StringIO("1.0").read()),
    "a class in C": lambda: float(issubclass(io.StringIO, io.TextIOBase)),
    "a copy": lambda: copy.copy(ROWS)["rate"][0],
    "an attribute named as that of a frame": lambda: SHOWN.f_back,
    "a function without defaults": lambda: _number(1, 2),
}


@pytest.mark.parametrize("name", REPEATED)
def test_what_stays_around_a_step_is_captured(name: str, device: Capturing) -> None:
    """After a change that has nothing to do with it."""

    def spelling() -> tuple[Number, Change]:
        box = {"rate": 1.0}
        return lambda: REPEATED[name]() * box["rate"], lambda: box.update(rate=3.0)

    check_change_is_noticed(spelling, device)


def test_a_lock_that_may_be_held_is_not_captured(device: Capturing) -> None:
    lock = threading.Lock()
    with lock:
        check_is_not_captured(lambda: 2.0 if lock.acquire(blocking=False) else 1.0, device)


def test_another_limit_of_recursion_is_noticed(device: Capturing) -> None:
    """Then the step comes to the limit, and is not repeated."""
    limit, frame = 100, sys._getframe()
    while frame.f_back is not None:
        limit, frame = limit + 1, frame.f_back

    def number() -> float:
        try:
            return _deep(300)
        except RecursionError:
            return 3.0

    found = []
    for capture in (False, True):
        sys.setrecursionlimit(limit + 900)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            made, trainer = weights(
                device, number, lambda: sys.setrecursionlimit(limit), capture=capture
            )
        found.append(made)
    assert trainer.counts.replayed == 2
    assert found[0] == found[1]
    assert found[0][CHANGED - 1] != found[0][CHANGED]
    assert are_heard(device, heard, trainer)
