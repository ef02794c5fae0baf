"""What a captured step reads by slots, descriptors and `importlib` is compared, too.

As in `test_captured_values`: a loss multiplies by a number, and a change comes after the fourth of
eight steps. What C code of another library reads is not captured.
"""

from __future__ import annotations

import functools
import importlib
import operator
import pkgutil
import sys
import types
from collections.abc import Callable
from typing import Any, Final

import pytest
from captured_number import (
    Change,
    Number,
    check_change_is_noticed,
    check_hidden_is_not_captured,
    spellings,
)

from rumus.tensor.memory.recording import Capturing

Spelling = Callable[[], tuple[Number, Change]]


class Slotted:
    """An object without a dict."""

    __slots__ = ("rate",)

    def __init__(self) -> None:
        self.rate = 1.0


SLOT: Final[Any] = vars(Slotted)["rate"]


def _of(number: Callable[[Any], Any]) -> tuple[Any, Any]:
    thing = Slotted()
    return lambda: number(thing), lambda: setattr(thing, "rate", 3.0)


def slot_by_a_made_name() -> tuple[Number, Change]:
    parts = ["ra", "te"]
    return _of(lambda thing: getattr(thing, "".join(parts)))


def slot_of_an_element() -> tuple[Number, Change]:
    names = ["rate"]
    return _of(lambda thing: getattr([thing][0], names[0]))


def slot_by_the_method_of_object() -> tuple[Number, Change]:
    names = ["rate"]
    return _of(lambda thing: object.__getattribute__(thing, names[0]))


def slot_by_the_method_of_its_class() -> tuple[Number, Change]:
    kind: Any = Slotted
    return _of(lambda thing: kind.__getattribute__(thing, "rate"))


def slot_by_the_method_above_its_class() -> tuple[Number, Change]:
    return _of(lambda thing: super(Slotted, thing).__getattribute__("rate"))


def slot_by_its_descriptor() -> tuple[Number, Change]:
    kind: Any = Slotted
    return _of(lambda thing: kind.rate.__get__(thing))


def slot_by_a_descriptor_in_a_class() -> tuple[Number, Change]:
    return _of(lambda thing: vars(Slotted)["rate"].__get__(thing))


def slot_by_the_type_of_a_descriptor() -> tuple[Number, Change]:
    return _of(lambda thing: type(SLOT).__get__(SLOT, thing))


def slot_by_a_bound_method() -> tuple[Number, Change]:
    get = SLOT.__get__
    return _of(lambda thing: get(thing))


def slot_by_a_partial() -> tuple[Number, Change]:
    thing = Slotted()
    get = functools.partial(SLOT.__get__, thing)
    return lambda: get(), lambda: setattr(thing, "rate", 3.0)


def slot_by_map() -> tuple[Number, Change]:
    return _of(lambda thing: next(map(SLOT.__get__, [thing])))


# By a name that an expression makes, of what has its names in a dict


def a_module() -> Any:
    return _module("rates", 1.0)


def a_class() -> Any:
    return types.new_class("Rates", exec_body=lambda body: body.update(rate=1.0))


def a_function() -> Any:
    def function() -> None: ...

    vars(function)["rate"] = 1.0
    return function


def an_object() -> Any:
    return types.SimpleNamespace(rate=1.0)


def kind_of(thing: Any) -> Any:
    return type(thing)


READS: dict[str, Callable[[Any, list[str]], Any]] = {
    "getattr": lambda thing, parts: getattr(thing, "".join(parts)),
    "getattr of a sum": lambda thing, parts: getattr(thing, "ra" + parts[1]),
    "getattr with a default": lambda thing, parts: getattr(thing, parts[0] + parts[1], 5.0),
    "getattr in a loop": lambda thing, parts: sum(getattr(t, "".join(parts)) for t in (thing,)),
    "getattr by map": lambda thing, parts: next(map(getattr, [thing], ["".join(parts)])),
    "getattr by reduce": lambda thing, parts: functools.reduce(getattr, ["".join(parts)], thing),
    "attrgetter": lambda thing, parts: operator.attrgetter("".join(parts))(thing),
    "its class's method": lambda thing, parts: kind_of(thing).__getattribute__(
        thing, "".join(parts)
    ),
    "a format": lambda thing, parts: float("{.rate}".format(thing)),  # noqa: UP032
    "a format that is made": lambda thing, parts: float(
        ("{0." + "".join(parts) + "}").format(thing)
    ),
}


@pytest.mark.parametrize("make", [a_module, a_class, a_function, an_object])
@pytest.mark.parametrize("way", READS)
def test_a_name_that_a_step_makes_may_be_any(
    way: str, make: Callable[[], Any], device: Capturing
) -> None:
    def spelling() -> tuple[Number, Change]:
        thing, parts, read = make(), ["ra", "te"], READS[way]
        return lambda: read(thing, parts), lambda: setattr(thing, "rate", 3.0)

    check_change_is_noticed(spelling, device)


def _module(name: str, rate: float) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made)["rate"] = rate
    return made


def _imported(name: str, number: Callable[[], Any]) -> tuple[Any, Any]:
    sys.modules[name] = _module(name, 1.0)
    return number, lambda: sys.modules.__setitem__(name, _module(name, 3.0))


def module_by_importlib() -> tuple[Number, Change]:
    return _imported("rates_1", lambda: importlib.import_module("rates_1").rate)


def module_by_pkgutil() -> tuple[Number, Change]:
    return _imported("rates_2", lambda: pkgutil.resolve_name("rates_2:rate"))


def attribute_of_a_module_by_importlib() -> tuple[Number, Change]:
    module = sys.modules["rates_3"] = _module("rates_3", 1.0)
    names = ["rates_3"]
    return (
        lambda: importlib.import_module(names[0]).rate,
        lambda: vars(module).update(rate=3.0),
    )


COMPARED: Final = spellings(globals(), "tuple[Number, Change]")


def _frame() -> Any:
    return pytest.importorskip("pandas").DataFrame({"rate": [1.0]})


def columns_of_a_frame() -> tuple[Number, Change]:
    frame = _frame()
    return lambda: 1.0 if len(frame.columns) == 1 else 3.0, lambda: frame.insert(1, "more", 1)


def shape_of_a_frame() -> tuple[Number, Change]:
    frame = _frame()
    return lambda: float(frame.shape[1]), lambda: frame.insert(1, "more", 1)


def values_of_a_derived_series() -> tuple[Number, Change]:
    pandas = pytest.importorskip("pandas")
    series = types.new_class("Series", (pandas.Series,))([1.0])
    return lambda: float(series.to_numpy()[0]), lambda: series.__setitem__(0, 3.0)


HIDDEN: Final = (columns_of_a_frame, shape_of_a_frame, values_of_a_derived_series)


@pytest.mark.parametrize("spelling", COMPARED, ids=lambda f: f.__name__)
def test_a_change_of_what_is_read_in_another_way_is_noticed(
    spelling: Spelling, device: Capturing
) -> None:
    check_change_is_noticed(spelling, device)


@pytest.mark.parametrize("spelling", HIDDEN, ids=lambda f: f.__name__)
def test_what_a_descriptor_in_c_reads_is_not_captured(
    spelling: Spelling, device: Capturing
) -> None:
    check_hidden_is_not_captured(spelling, device)
