"""What a captured step reads by slots, descriptors and `importlib` is compared, too.

As in `test_captured_values`: a loss multiplies by a number, and a change comes after the fourth of
eight steps. What C code of another library reads is not captured.
"""

from __future__ import annotations

import functools
import importlib
import math
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

from rumus.tensor import NumpyBackend
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


KEPT: Final = {"getattr": getattr}
# As above, but who reads the code sees neither the object nor how it is asked.
HIDDEN_READS: dict[str, Callable[[Any, list[str]], Any]] = {
    **READS,
    "getattr of an element": lambda thing, parts: getattr([thing][0], "".join(parts)),
    "getattr of a result": lambda thing, parts: getattr(the_same(thing), "".join(parts)),
    "getattr with stars": lambda thing, parts: getattr(*[thing, "".join(parts)]),
    "getattr in a variable": lambda thing, parts: asked_by(thing, parts),
    "getattr in a dict": lambda thing, parts: KEPT["getattr"](thing, "".join(parts)),
    "getattr as a default": lambda thing, parts: asked_by_default(thing, "".join(parts)),
    "getattr in a partial": lambda thing, parts: functools.partial(getattr, thing)("".join(parts)),
    "getattr of a choice": lambda thing, parts: getattr(thing if parts else None, "".join(parts)),
    "vars of an element": lambda thing, parts: vars([thing][0])["".join(parts)],
    "vars by map": lambda thing, parts: next(map(vars, [thing]))["".join(parts)],
    "a bound method": lambda thing, parts: BOUND["get"]("".join(parts)),
}
for _way in ("a format", "a format that is made", "getattr in a loop"):  # which give a number
    del HIDDEN_READS[_way]
BOUND: dict[str, Callable[[str], Any]] = {}


def the_same(thing: Any) -> Any:
    return thing


def asked_by_default(thing: Any, name: str, get: Callable[..., Any] = getattr) -> Any:
    return get(thing, name)


def asked_by(thing: Any, parts: list[str]) -> Any:
    get, asked = getattr, thing
    return get(asked, "".join(parts))


def a_list() -> tuple[Any, Callable[[Any], Any], Callable[[Any], object]]:
    return [1.0], lambda found: found[0], lambda found: found.__setitem__(0, 3.0)


def a_namespace() -> tuple[Any, Callable[[Any], Any], Callable[[Any], object]]:
    return (
        types.SimpleNamespace(number=1.0),
        lambda found: found.number,
        lambda found: setattr(found, "number", 3.0),
    )


def a_class_with_a_number() -> tuple[Any, Callable[[Any], Any], Callable[[Any], object]]:
    made = types.new_class("Made", exec_body=lambda body: body.update(number=1.0))
    return made, lambda found: found.number, lambda found: setattr(made, "number", 3.0)


@pytest.mark.parametrize("hold", [a_list, a_namespace, a_class_with_a_number])
@pytest.mark.parametrize("make", [a_module, a_class, a_function, an_object])
@pytest.mark.parametrize("way", HIDDEN_READS)
def test_what_a_made_name_stands_for_may_change_within(
    way: str, make: Callable[[], Any], hold: Callable[[], Any]
) -> None:
    def spelling() -> tuple[Number, Change]:
        thing, parts, read = make(), ["ra", "te"], HIDDEN_READS[way]
        found, number, change = hold()
        setattr(thing, "rate", found)  # noqa: B010
        is_class = isinstance(thing, type)
        get = (
            functools.partial(type.__getattribute__, thing) if is_class else thing.__getattribute__
        )
        BOUND["get"] = get
        return lambda: number(read(thing, parts)), lambda: change(found)

    check_change_is_noticed(spelling, NumpyBackend())


def test_a_made_name_of_a_library_is_noticed() -> None:
    def spelling() -> tuple[Number, Change]:
        vars(math)["rate"] = 1.0
        parts = ["ra", "te"]
        return (
            lambda: next(map(getattr, [math], ["".join(parts)])),
            lambda: vars(math).update(rate=3.0),
        )

    try:
        check_change_is_noticed(spelling, NumpyBackend())
    finally:
        del vars(math)["rate"]


def test_an_attribute_that_comes_to_what_a_made_name_stands_for() -> None:
    def spelling() -> tuple[Number, Change]:
        module = _module("rates_0", 1.0)
        vars(module)["options"] = kind = types.new_class("Options")()
        return (
            lambda: 3.0 if hasattr(next(map(getattr, [module], ["options"])), "fast") else 1.0,
            lambda: setattr(kind, "fast", True),
        )

    check_change_is_noticed(spelling, NumpyBackend())


def test_elements_in_a_format_are_noticed(device: Capturing) -> None:
    def spelling() -> tuple[Number, Change]:
        module, parts = _module("rates_9", 1.0), ["{0.ra", "tes[0]}"]
        vars(module)["rates"] = rates = [1.0]
        return (
            lambda: float("".join(parts).format(module)),
            lambda: rates.__setitem__(0, 3.0),
        )

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
