"""What a captured step reads out of objects that hold others: in C, in disguise, or by a text.

As in `test_captured_values`: a loss multiplies by a number, and a change comes after the fourth of
eight steps.
"""

from __future__ import annotations

import array
import collections
import operator
import re
import types
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from captured_number import (
    Change,
    Number,
    check_change_is_noticed,
    check_hidden_is_not_captured,
    spellings,
)

from rumus.tensor.memory.recording import Capturing

Pair = tuple[Number, Change]
Spelling = Callable[[], Pair]


def hiding(kind: type, **names: Any) -> Any:
    """A class derived from a container, whose own methods show nothing of what it holds."""
    hidden: dict[str, Any] = dict.fromkeys(("__iter__", "keys", "values"), lambda self: iter(()))
    hidden |= {"__len__": lambda self: 0, "__bytes__": lambda self: b"", **names}
    return types.new_class("Hiding", (kind,), exec_body=lambda body: body.update(hidden))


def _element(made: Any) -> Pair:
    return lambda: made[0], lambda: made.__setitem__(0, 3.0)


# Classes derived from containers


def list_that_hides() -> tuple[Number, Change]:
    return _element(hiding(list)([1.0]))


def dict_that_hides() -> tuple[Number, Change]:
    return _element(hiding(dict)({0: 1.0}))


def ordered_dict_that_hides() -> tuple[Number, Change]:
    return _element(hiding(collections.OrderedDict)({0: 1.0}))


def deque_that_hides() -> tuple[Number, Change]:
    return _element(hiding(collections.deque)([1.0]))


def typed_array_that_hides() -> tuple[Number, Change]:
    return _element(hiding(array.array)("d", [1.0]))


def bytes_that_hide() -> tuple[Number, Change]:
    made = hiding(bytearray)(b"\1")
    return lambda: float(made[0]), lambda: made.__setitem__(0, 3)


def array_that_hides() -> tuple[Number, Change]:
    made = np.ones(2).view(hiding(np.ndarray, tobytes=lambda self: b"", nbytes=0))
    return lambda: float(made[0]), lambda: made.__setitem__(0, 3.0)


def element_of_a_list_that_hides() -> tuple[Number, Change]:
    inner = types.SimpleNamespace(rate=1.0)
    made = hiding(list)([inner])
    return lambda: made[0].rate, lambda: setattr(inner, "rate", 3.0)


def element_of_a_tuple_that_hides() -> tuple[Number, Change]:
    inner = [1.0]
    made = hiding(tuple)([inner])
    return lambda: made[0][0], lambda: inner.__setitem__(0, 3.0)


def element_of_a_dict_that_hides() -> tuple[Number, Change]:
    inner = [1.0]
    made = hiding(dict)(a=inner)
    return lambda: made["a"][0], lambda: inner.__setitem__(0, 3.0)


# Objects of C that hold others


def end_of_a_slice() -> tuple[Number, Change]:
    inner = [1.0]
    made = slice(inner)
    return lambda: made.stop[0], lambda: inner.__setitem__(0, 3.0)


def slice_in_a_list() -> tuple[Number, Change]:
    inner = types.SimpleNamespace(rate=1.0)
    made = [slice(None, inner)]
    return lambda: made[0].stop.rate, lambda: setattr(inner, "rate", 3.0)


def class_of_a_generic_alias() -> tuple[Number, Change]:
    made: Any = types.new_class("Options", exec_body=lambda body: body.update(rate=1.0))
    alias: Any = types.GenericAlias(made, (int,))
    return lambda: alias.rate, lambda: setattr(made, "rate", 3.0)


def argument_of_a_method_caller() -> tuple[Number, Change]:
    inner = [1.0]
    call = operator.methodcaller("first", inner)
    thing = types.new_class("Thing", exec_body=lambda body: body.update(first=_first))()
    return lambda: call(thing), lambda: inner.__setitem__(0, 3.0)


def named_argument_of_a_method_caller() -> tuple[Number, Change]:
    inner = [1.0]
    call = operator.methodcaller("first", values=inner)
    thing = types.new_class("Thing", exec_body=lambda body: body.update(first=_first))()
    return lambda: call(thing), lambda: inner.__setitem__(0, 3.0)


def _first(self: object, values: list[float]) -> float:
    return values[0]


def bytes_that_a_pattern_has_matched() -> tuple[Number, Change]:
    text = bytearray(b"1.0")
    found = re.match(b"...", text)
    assert found is not None
    return lambda: float(found.group()), lambda: text.__setitem__(slice(3), b"3.0")


# Texts


def text_of_a_bound_method() -> tuple[Number, Change]:
    def method(self: object) -> None:
        "1.0"

    thing: Any = types.new_class("Thing", exec_body=lambda body: body.update(method=method))()
    return lambda: float(thing.method.__doc__), lambda: setattr(method, "__doc__", "3.0")


def _named(text: Callable[[Any], str], made: Any, name: str) -> Pair:
    return (
        lambda: 3.0 if "fast" in text(made) else 1.0,
        lambda: setattr(made, name, "fast"),
    )


def name_of_a_function_in_a_text() -> tuple[Number, Change]:
    def function() -> None: ...

    return _named(repr, function, "__qualname__")


def name_of_a_function_in_an_f_string() -> tuple[Number, Change]:
    def function() -> None: ...

    return _named(lambda made: f"{made}", function, "__qualname__")


def name_of_a_class_in_a_text() -> tuple[Number, Change]:
    return _named(lambda made: repr(made), types.new_class("Kind"), "__qualname__")


def name_of_a_class_in_a_list() -> tuple[Number, Change]:
    return _named(lambda made: str([made]), types.new_class("Kind"), "__qualname__")


def name_of_a_class_in_a_percent_format() -> tuple[Number, Change]:
    return _named(lambda made: "%s" % [made][0], types.new_class("Kind"), "__qualname__")  # noqa: UP031


def name_of_a_class_in_a_format() -> tuple[Number, Change]:
    text = "{}"
    return _named(lambda made: text.format(made), types.new_class("Kind"), "__qualname__")


def name_of_a_class_by_map() -> tuple[Number, Change]:
    return _named(lambda made: next(map(str, [made])), types.new_class("Kind"), "__qualname__")


def name_of_a_class_by_its_method() -> tuple[Number, Change]:
    return _named(lambda made: type.__repr__(made), types.new_class("Kind"), "__qualname__")


def module_of_a_class_in_an_f_string() -> tuple[Number, Change]:
    return _named(lambda made: f"{made!r}", types.new_class("Kind"), "__module__")


def name_of_the_class_of_a_shown_object() -> tuple[Number, Change]:
    made = types.new_class("Kind")
    thing = made()
    number, change = _named(lambda _: repr(thing), made, "__qualname__")
    return number, change


def function_called_for_errors() -> tuple[Number, Change]:
    found = [1.0]

    def call(number: float) -> Callable[..., None]:
        return lambda *_: found.__setitem__(0, number)

    def number() -> float:
        with np.errstate(divide="call"):
            np.float64(1.0) / np.float64(0.0)
        return found[0]

    np.seterrcall(call(1.0))
    return number, lambda: np.seterrcall(call(3.0))


COMPARED: Final = spellings(globals(), "tuple[Number, Change]")


@pytest.mark.parametrize("spelling", COMPARED, ids=lambda f: f.__name__)
def test_a_change_within_what_holds_others_is_noticed(
    spelling: Spelling, device: Capturing
) -> None:
    before = np.geterrcall()
    try:
        check_change_is_noticed(spelling, device)
    finally:
        np.seterrcall(before)


def _masked() -> tuple[Number, Change]:
    option = np.ma.masked_print_option
    option.set_display("--")

    def number() -> float:
        return 1.0 if "--" in str(np.ma.array([1.0], mask=[True])) else 3.0

    return number, lambda: option.set_display("xx")


def _style() -> tuple[Number, Change]:
    polynomial = np.polynomial
    polynomial.set_default_printstyle("unicode")

    def number() -> float:
        return 3.0 if "**" in str(polynomial.Polynomial([1, 2, 3])) else 1.0

    return number, lambda: polynomial.set_default_printstyle("ascii")


@pytest.mark.parametrize("spelling", [_masked, _style])
def test_what_numpy_shows_by_its_settings_is_not_captured(
    spelling: Spelling, device: Capturing
) -> None:
    try:
        check_hidden_is_not_captured(spelling, device)
    finally:
        np.ma.masked_print_option.set_display("--")
        np.polynomial.set_default_printstyle("unicode")


def test_metadata_of_a_dtype_is_no_part_of_its_value(device: Capturing) -> None:
    def spelling() -> tuple[Number, Change]:
        rates = [1.0]
        dtype: Any = np.dtype("f4", metadata={"rates": rates})
        return lambda: dtype.metadata["rates"][0], lambda: rates.__setitem__(0, 3.0)

    check_hidden_is_not_captured(spelling, device)
