"""What the program drops ends where an eager training would end it, though captures compare it.

As in `test_captured_values`: a loss multiplies by a number, and a change comes after the fourth of
eight steps. The change drops something whose end, by `__del__` or through a weak reference, changes
the number.
"""

from __future__ import annotations

import contextvars
import functools
import weakref
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import pytest
from captured_number import Change, Number, check_change_is_noticed, spellings

from rumus.tensor.memory.recording import Capturing


class Counted:
    """Counts itself in a list while it lives."""

    rate = 1.0

    def __init__(self, living: list[int]) -> None:
        self.living = living
        living.append(1)

    def __del__(self) -> None:
        self.living.pop()

    def number(self) -> float:
        return self.rate


class Watched:
    """Something that weak references can lead to."""

    rate = 1.0


def popped_from_a_list() -> tuple[Number, Change]:
    living: list[int] = []
    things = [Counted(living), Counted(living)]
    return lambda: 0.0 * sum(thing.rate for thing in things) + len(living), things.pop


def popped_from_a_dict() -> tuple[Number, Change]:
    living: list[int] = []
    things = {"a": Counted(living), "b": Counted(living)}
    return lambda: 0.0 * len(things) + len(living), things.popitem


def popped_from_a_deque() -> tuple[Number, Change]:
    living: list[int] = []
    things = deque([Counted(living), Counted(living)])
    return lambda: 0.0 * len(things) + len(living), things.popleft


def popped_from_a_set() -> tuple[Number, Change]:
    living: list[int] = []
    things = {Counted(living), Counted(living)}
    return lambda: 0.0 * len(things) + len(living), things.pop


def elements_of_a_list_that_is_replaced() -> tuple[Number, Change]:
    living: list[int] = []
    holder = SimpleNamespace(things=[Counted(living), Counted(living)])
    return lambda: 0.0 * len(holder.things) + len(living), lambda: setattr(
        holder, "things", [*holder.things[1:]]
    )


def elements_of_a_tuple_that_is_replaced() -> tuple[Number, Change]:
    living: list[int] = []
    holder = SimpleNamespace(things=(Counted(living), Counted(living)))
    return lambda: 0.0 * len(holder.things) + len(living), lambda: setattr(
        holder, "things", (*holder.things[1:],)
    )


def attribute_that_is_replaced() -> tuple[Number, Change]:
    living: list[int] = [1]
    holder: Any = SimpleNamespace(thing=Counted(living))
    return lambda: 0.0 * bool(holder.thing) + len(living), lambda: setattr(holder, "thing", None)


def attribute_that_is_deleted() -> tuple[Number, Change]:
    living: list[int] = [1]
    holder: Any = SimpleNamespace(thing=Counted(living))

    def number() -> float:
        return 0.0 * hasattr(holder, "thing") + len(living)

    return number, lambda: delattr(holder, "thing")


def variable_that_is_replaced() -> tuple[Number, Change]:
    living: list[int] = [1]
    thing: Counted | None = Counted(living)

    def change() -> None:
        nonlocal thing
        thing = None

    return lambda: 0.0 * bool(thing) + len(living), change


def global_that_is_replaced() -> tuple[Number, Change]:
    living: list[int] = [1]
    names: dict[str, Any] = {"thing": Counted(living), "living": living}
    exec("def number():\n    return 0.0 * bool(thing) + len(living)", names)
    return names["number"], lambda: names.update(thing=None)


def what_an_object_holds_that_is_dropped() -> tuple[Number, Change]:
    living: list[int] = [1]
    holder: Any = SimpleNamespace(part=SimpleNamespace(inner=[Counted(living)]))

    def number() -> float:
        return 0.0 * (holder.part is not None and holder.part.inner[0].rate) + len(living)

    return number, lambda: setattr(holder, "part", None)


def what_an_object_holds_unread() -> tuple[Number, Change]:
    living: list[int] = [1]
    holder: Any = SimpleNamespace(part=SimpleNamespace(rate=1.0, inner=[Counted(living)]))

    def number() -> float:
        return 0.0 * (holder.part is not None and holder.part.rate) + len(living)

    return number, lambda: setattr(holder, "part", None)


def method_of_what_is_dropped() -> tuple[Number, Change]:
    living: list[int] = [1]
    hooks = [Counted(living).number]
    return lambda: 0.0 * sum(hook() for hook in hooks) + len(living), hooks.clear


def partial_of_what_is_dropped() -> tuple[Number, Change]:
    living: list[int] = [1]
    hooks = [functools.partial(Counted.number, Counted(living))]
    return lambda: 0.0 * sum(hook() for hook in hooks) + len(living), hooks.clear


def closure_that_is_dropped() -> tuple[Number, Change]:
    living: list[int] = [1]

    def hook_of(thing: Counted) -> Number:
        return lambda: thing.rate

    hooks = [hook_of(Counted(living))]
    return lambda: 0.0 * sum(hook() for hook in hooks) + len(living), hooks.clear


def default_that_is_replaced() -> tuple[Number, Change]:
    living: list[int] = [1]

    def hook(thing: Counted | None) -> float:
        return 0.0 * (thing is not None)

    hook.__defaults__ = (Counted(living),)
    return lambda: hook() + len(living), lambda: setattr(  # type: ignore[call-arg]
        hook, "__defaults__", (None,)
    )


def result_of_a_cleared_cache() -> tuple[Number, Change]:
    living: list[int] = [1]
    made: list[int] = []

    @functools.lru_cache
    def thing() -> Any:
        made.append(1)
        return None if len(made) > 1 else Counted(living)

    thing()
    return lambda: 0.0 * bool(thing()) + len(living), thing.cache_clear


def value_of_a_context_variable() -> tuple[Number, Change]:
    living: list[int] = [1]
    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("thing")
    token = variable.set(Counted(living))
    del token
    return lambda: 0.0 * bool(variable.get()) + len(living), lambda: bool(variable.set(None))


def attribute_of_a_class() -> tuple[Number, Change]:
    living: list[int] = [1]

    class Holder:
        thing: Any = Counted(living)

    return lambda: 0.0 * bool(Holder.thing) + len(living), lambda: setattr(Holder, "thing", None)


def set_of_what_lives_beside_a_list() -> tuple[Number, Change]:
    things = [Watched(), Watched()]
    living = weakref.WeakSet(things)
    return lambda: 0.0 * sum(thing.rate for thing in things) + len(living), things.pop


def callback_of_a_reference() -> tuple[Number, Change]:
    rates = [2.0]
    things = [Watched()]
    kept = weakref.ref(things[0], lambda _: rates.__setitem__(0, 1.0))

    def number() -> float:
        return 0.0 * sum(thing.rate for thing in things) + rates[0]

    return number, lambda kept=kept: things.clear()


def finalizer_of_what_is_dropped() -> tuple[Number, Change]:
    rates = [2.0]
    things = {"only": Watched()}
    weakref.finalize(things["only"], rates.__setitem__, 0, 1.0)
    return lambda: 0.0 * sum(thing.rate for thing in things.values()) + rates[0], things.clear


def keys_that_live() -> tuple[Number, Change]:
    things = [Watched(), Watched()]
    rates = weakref.WeakKeyDictionary(dict.fromkeys(things, 1.0))
    return lambda: 0.0 * sum(thing.rate for thing in things) + sum(rates.values()), things.pop


DROPPED: Final = spellings(globals(), "tuple[Number, Change]")


@pytest.mark.parametrize("spelling", DROPPED, ids=lambda f: f.__name__)
def test_what_is_dropped_ends_before_the_next_step(
    spelling: Callable[[], tuple[Number, Change]], device: Capturing
) -> None:
    check_change_is_noticed(spelling, device)
