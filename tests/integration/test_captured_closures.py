"""What a captured step hands on is compared as well: to inner functions, C code, weak references.

As in `test_captured_values`: a loss multiplies by a number, and a change comes after the fourth of
eight steps. What cannot be compared is not captured.
"""

from __future__ import annotations

import contextvars
import functools
import io
import operator
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final, TypeAlias

import numpy as np
import pytest
from captured_number import (
    Change,
    Number,
    check_change_is_noticed,
    check_is_not_captured,
    nothing,
    spellings,
    weights,
)

from rumus import nn
from rumus.tensor.memory.recording import Capturing

# To functions that the step makes


def inner_lambda() -> tuple[Number, Change]:
    thing = SimpleNamespace(rate=1.0)
    return lambda: (lambda: thing.rate)(), lambda: setattr(thing, "rate", 3.0)


def inner_function_over_a_number() -> tuple[Number, Change]:
    rate = 1.0

    def number() -> float:
        def inner() -> float:
            return rate

        return inner()

    def change() -> None:
        nonlocal rate
        rate = 3.0

    return number, change


def function_in_a_function_in_a_function() -> tuple[Number, Change]:
    rates = [1.0]

    def number() -> float:
        def outer() -> float:
            def inner() -> float:
                return rates[0]

            return inner()

        return outer()

    return number, lambda: rates.__setitem__(0, 3.0)


def inside_a_comprehension() -> tuple[Number, Change]:
    thing, values = SimpleNamespace(rate=1.0), [0.5, 0.5]
    return lambda: sum([value * thing.rate for value in values]), lambda: setattr(
        thing, "rate", 3.0
    )


def inside_a_generator_expression() -> tuple[Number, Change]:
    thing, values = SimpleNamespace(rate=1.0), [0.5, 0.5]
    return lambda: sum(value * thing.rate for value in values), lambda: setattr(thing, "rate", 3.0)


def key_of_an_order() -> tuple[Number, Change]:
    order, rates = {"a": 1, "b": 2}, {"a": 1.0, "b": 3.0}
    return lambda: rates[min("ab", key=lambda name: order[name])], lambda: order.update(a=5)


def method_of_an_inner_class() -> tuple[Number, Change]:
    thing = SimpleNamespace(rate=1.0)

    def number() -> Any:
        class Inner:
            def rate(self) -> Any:
                return thing.rate

        return Inner().rate()

    return number, lambda: setattr(thing, "rate", 3.0)


def called_by_numpy() -> tuple[Number, Change]:
    thing = SimpleNamespace(rate=1.0)
    return (
        lambda: float(np.apply_along_axis(lambda row: row.sum() * thing.rate, 0, np.ones(1))),
        lambda: setattr(thing, "rate", 3.0),
    )


def made_by_an_earlier_step() -> tuple[Number, Change]:
    """Its code is that of a function which each step makes, its variable is its own."""
    made: list[tuple[Number, Callable[[float], None]]] = []

    def number() -> Any:
        rate = 1.0

        def read() -> float:
            return rate

        def write(value: float) -> None:
            nonlocal rate
            rate = value

        if not made:
            made.append((read, write))
        return made[0][0]()

    return number, lambda: made[0][1](3.0)


def default_of_what_makes_an_object() -> tuple[Number, Change]:
    options = {"rate": 1.0}

    class Policy:
        def __init__(self, given: dict[str, float] = options) -> None:
            self.rate = given["rate"]

    return lambda: Policy().rate, lambda: options.update(rate=3.0)


# To code in C, which reads the attributes of namespaces


def namespace() -> tuple[SimpleNamespace, Change]:
    thing = SimpleNamespace(rate=1.0)
    return thing, lambda: setattr(thing, "rate", 3.0)


def text_of_a_namespace() -> tuple[Number, Change]:
    thing, change = namespace()
    return lambda: 1.0 if "1.0" in str(thing) else 3.0, change


def texts_of_namespaces() -> tuple[Number, Change]:
    thing, change = namespace()
    return lambda: 1.0 if "1.0" in "".join(map(str, [thing])) else 3.0, change


def namespace_in_a_percent_format() -> tuple[Number, Change]:
    thing, change = namespace()
    return lambda: 1.0 if "1.0" in "%s" % thing else 3.0, change  # noqa: UP031


def list_in_a_text() -> tuple[Number, Change]:
    thing, change = namespace()
    things = [thing]
    return lambda: 1.0 if "1.0" in f"{things}" else 3.0, change


def printed_namespace() -> tuple[Number, Change]:
    thing, change = namespace()

    def number() -> float:
        text = io.StringIO()
        print(thing, file=text)
        return 1.0 if "1.0" in text.getvalue() else 3.0

    return number, change


def namespace_in_a_list() -> tuple[Number, Change]:
    thing, change = namespace()
    things = [thing]
    return lambda: 1.0 if SimpleNamespace(rate=1.0) in things else 3.0, change


def lists_of_namespaces_compared() -> tuple[Number, Change]:
    thing, change = namespace()
    things = [thing]
    return lambda: 1.0 if things == [SimpleNamespace(rate=1.0)] else 3.0, change


def namespace_counted() -> tuple[Number, Change]:
    thing, change = namespace()
    things = [thing]
    return lambda: 1.0 if things.count(SimpleNamespace(rate=1.0)) else 3.0, change


def namespace_compared_by_an_operator() -> tuple[Number, Change]:
    thing, change = namespace()
    return lambda: 1.0 if operator.eq(thing, SimpleNamespace(rate=1.0)) else 3.0, change


def context() -> tuple[Number, Change]:
    variable, found = contextvars.ContextVar("rate", default=1.0), contextvars.Context()
    return lambda: found.run(variable.get), lambda: found.run(variable.set, 3.0)


# To code of NumPy, which is not followed


def polynomial() -> tuple[Number, Change]:
    function = np.poly1d([1.0])
    return lambda: float(function(0)), lambda: function.coeffs.__setitem__(0, 3.0)


def series_of_polynomials() -> tuple[Number, Change]:
    function = np.polynomial.Chebyshev([1.0])
    return lambda: float(function(0)), lambda: setattr(function, "coef", np.array([3.0]))


def vectorized_method() -> tuple[Number, Change]:
    class Policy:
        def __init__(self) -> None:
            self.rate = 1.0

        def scaled(self, value: float) -> float:
            return value * self.rate

    policy = Policy()
    function = np.vectorize(policy.scaled)
    return lambda: float(function(1.0)), lambda: setattr(policy, "rate", 3.0)


# By way of classes


def cache_of_a_method() -> tuple[Number, Change]:
    class Policy:
        source = 1.0

        @functools.lru_cache(None)  # noqa: B019
        def rate(self) -> float:
            return self.source

    policy = Policy()

    def change() -> None:
        policy.source = 3.0
        Policy.rate.cache_clear()

    return lambda: policy.rate(), change


def bases_exchanged() -> tuple[Number, Change]:
    class Low: ...

    class High: ...

    class Policy(Low): ...

    return lambda: 1.0 if issubclass(Policy, Low) else 3.0, lambda: setattr(
        Policy, "__bases__", (High,)
    )


def method_of_exchanged_bases() -> tuple[Number, Change]:
    class Low:
        def rate(self) -> float:
            return 1.0

    class High:
        def rate(self) -> float:
            return 3.0

    class Policy(Low):
        def rate(self) -> float:
            return super().rate()

    policy = Policy()
    return lambda: policy.rate(), lambda: setattr(Policy, "__bases__", (High,))


def layer_of_another_class() -> tuple[Number, Change]:
    layer = nn.ReLU()
    return lambda: 3.0 if isinstance(layer, nn.Tanh) else 1.0, lambda: setattr(
        layer, "__class__", nn.Tanh
    )


def mode_of_a_layer_that_is_not_called() -> tuple[Number, Change]:
    layer = nn.Dropout(0.5)
    return lambda: 1.0 if layer.training else 3.0, lambda: layer.eval()


def mode_of_a_part() -> tuple[Number, Change]:
    class Model(nn.Module):
        def __init__(self) -> None:
            self.dropout = nn.Dropout(0.5)

        def forward(self) -> float:
            return 1.0 if self.dropout.training else 3.0

    model = Model()
    return lambda: model(), lambda: model.dropout.eval()


# To weak references, which no guard may keep alive


class Thing:
    """Something that weak references can lead to."""


def thing_that_dies() -> tuple[Number, Change]:
    things = [Thing()]
    reference = weakref.ref(things[0])
    return lambda: 3.0 if reference() is None else 1.0, things.clear


def set_of_what_lives() -> tuple[Number, Change]:
    things = [Thing(), Thing()]
    living = weakref.WeakSet(things)
    return lambda: 3.0 - len(living), things.clear


def values_that_live() -> tuple[Number, Change]:
    things = [Thing()]
    living = weakref.WeakValueDictionary(first=things[0])
    return lambda: 1.0 if "first" in living else 3.0, things.clear


Dying: TypeAlias = tuple[Number, Change]


class Rated(Thing):
    """With an attribute of its class, one of its own, a slot and a method."""

    __slots__ = ("slot",)
    of_class = 3.0

    def __init__(self) -> None:
        self.own = self.slot = 3.0

    def of_method(self) -> float:
        return self.own


def _number_of_a_thing_that_dies(read: Callable[[Rated], float]) -> Dying:
    things = [Rated()]
    reference = weakref.ref(things[0])
    return lambda: 1.0 if (thing := reference()) is None else read(thing), things.clear


def attribute_of_a_class_of_a_thing_that_dies() -> tuple[Number, Change]:
    return _number_of_a_thing_that_dies(lambda thing: thing.of_class)


def attribute_of_a_thing_that_dies() -> tuple[Number, Change]:
    return _number_of_a_thing_that_dies(lambda thing: thing.own)


def slot_of_a_thing_that_dies() -> tuple[Number, Change]:
    return _number_of_a_thing_that_dies(lambda thing: thing.slot)


def method_of_a_thing_that_dies() -> tuple[Number, Change]:
    return _number_of_a_thing_that_dies(Rated.of_method)


def weak_method_of_a_thing_that_dies() -> tuple[Number, Change]:
    things = [Rated()]
    reference = weakref.WeakMethod(things[0].of_method)
    return lambda: 1.0 if (method := reference()) is None else method(), things.clear


def attributes_of_a_set_of_what_lives() -> tuple[Number, Change]:
    things = [Rated(), Rated()]
    living = weakref.WeakSet(things)
    return lambda: 1.0 + sum(thing.own for thing in living), things.clear


def attribute_of_a_value_that_lives() -> tuple[Number, Change]:
    things = [Rated()]
    living = weakref.WeakValueDictionary(first=things[0])
    return lambda: living["first"].own if "first" in living else 1.0, things.clear


def attribute_of_a_thing_that_lives_on() -> tuple[Number, Change]:
    thing = Rated()
    reference = weakref.ref(thing)

    def number() -> float:
        found = reference()
        return 1.0 if found is None else found.own

    return number, lambda: setattr(thing, "own", 2.0)


COMPARED: Final = spellings(globals(), "tuple[Number, Change]")


# What gives another number each time, or might


def address_of_what_a_step_makes() -> Number:
    return lambda: float(id(object()) % 7)


def address_in_a_variable() -> Number:
    def number() -> float:
        made = [1.0]
        return float(id(made) % 7)

    return number


def hash_of_what_a_step_makes() -> Number:
    def number() -> float:
        made = Thing()
        return float(hash(made) % 7)

    return number


def copy_of_the_context() -> Number:
    variable = contextvars.ContextVar("rate", default=1.0)
    return lambda: contextvars.copy_context().get(variable, 1.0)


def counter_of_an_inner_function() -> Number:
    count = 0

    def number() -> float:
        def inner() -> float:
            nonlocal count
            count += 1
            return float(count)

        return inner()

    return number


CHANGING: Final = spellings(globals(), "Number")


@pytest.mark.parametrize("spelling", COMPARED, ids=lambda f: f.__name__)
def test_a_change_of_what_a_step_hands_on_is_noticed(
    spelling: Callable[[], tuple[Number, Change]], device: Capturing
) -> None:
    check_change_is_noticed(spelling, device)


@pytest.mark.parametrize("spelling", CHANGING, ids=lambda f: f.__name__)
def test_addresses_and_copies_of_contexts_are_not_captured(
    spelling: Callable[[], Number], device: Capturing
) -> None:
    check_is_not_captured(spelling(), device)


def test_the_address_of_what_was_there_before_is_captured(device: Capturing) -> None:
    """It stays, as does the key of a frozen data class."""
    thing = Thing()
    rates = {id(thing): 1.0}
    _, trainer = weights(device, lambda: rates[id(thing)] * (1.0 + 0.0 * hash(thing)), nothing)
    assert trainer.counts.captured == 6


def test_a_replay_leaves_a_global_that_has_the_name_of_a_variable(device: Capturing) -> None:
    """The step writes the variable only, and reads an attribute of this name."""
    names: dict[str, Any] = {"thing": SimpleNamespace(rate=1.0), "rate": 1.0}
    exec("def number():\n    rate = thing.rate\n    return (lambda: rate)()", names)
    _, trainer = weights(device, names["number"], lambda: names.update(rate=3.0))
    assert trainer.counts.captured == 6
    assert names["rate"] == 3.0


def test_namespaces_that_only_give_their_attributes_may_change_otherwise(
    device: Capturing,
) -> None:
    thing = SimpleNamespace(rate=1.0, count=0, mode="low")

    def number() -> Any:
        return thing.rate if thing.mode == "low" and thing.mode in ("low", "high") else 3.0

    def change() -> None:
        thing.count += 1

    _, trainer = weights(device, number, change)
    assert trainer.counts.captured == 6
