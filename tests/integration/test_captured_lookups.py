"""What a captured step finds by way of classes, modules, caches and C code is compared as well.

As in `test_captured_values`: a loss multiplies by a number, and a change comes after the fourth of
eight steps. What cannot be compared is not captured.
"""

from __future__ import annotations

import abc
import collections
import contextlib
import dataclasses
import datetime
import functools
import gc
import math
import operator
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Generator
from decimal import Decimal
from enum import IntEnum
from typing import Any, Final

import numba
import numpy as np
import pytest
from captured_number import (
    CHANGED,
    STEPS,
    Change,
    Number,
    check_change_is_noticed,
    check_hidden_is_not_captured,
    nothing,
    spellings,
)

from rumus import nn
from rumus.gpu import GpuBackend
from rumus.optim import SGD
from rumus.tensor import Parameter, Tensor, no_grad
from rumus.tensor.memory.recording import Capturing
from rumus.train import Trainer
from rumus.train.capture.reads import Reads


def kind(name: str = "Kind", bases: tuple[type, ...] = (), /, **names: Any) -> Any:
    """A class."""
    return types.new_class(name, bases, exec_body=lambda body: body.update(names))


def module(name: str, **names: Any) -> Any:
    """A module that a program can import."""
    made = types.ModuleType(name)
    vars(made).update(names)
    sys.modules[name] = made
    return made


def code(text: str, **names: Any) -> Any:
    """The function `number` of a text."""
    exec(text, names)
    return names["number"]


# By their names


def getattr_of_module() -> tuple[Number, Change]:
    settings = module("settings_1", rate=1.0)
    return lambda: getattr(settings, "rate"), lambda: setattr(settings, "rate", 3.0)  # noqa: B009


def name_that_a_module_gets() -> tuple[Number, Change]:
    settings = module("settings_2")
    return lambda: 3.0 if hasattr(settings, "fast") else 1.0, lambda: setattr(settings, "fast", 1)


def name_in_a_variable() -> tuple[Number, Change]:
    settings = module("settings_3", rate=1.0)

    def number() -> Any:
        name = "rate"
        return getattr(settings, name, 7.0)

    return number, lambda: setattr(settings, "rate", 3.0)


def names_of_a_module() -> tuple[Number, Change]:
    settings = module("settings_4", rate=1.0)
    return lambda: vars(settings)["rate"], lambda: setattr(settings, "rate", 3.0)


def getattr_of_class() -> tuple[Number, Change]:
    options = kind(rate=1.0)
    return lambda: getattr(options, "rate"), lambda: setattr(options, "rate", 3.0)  # noqa: B009


def name_that_a_class_gets() -> tuple[Number, Change]:
    options = kind()
    return lambda: 3.0 if hasattr(options, "fast") else 1.0, lambda: setattr(options, "fast", 1)


def names_of_a_class() -> tuple[Number, Change]:
    options = kind(rate=1.0)
    return lambda: vars(options)["rate"], lambda: setattr(options, "rate", 3.0)


def dict_of_a_class() -> tuple[Number, Change]:
    options = kind(rate=1.0)
    return lambda: options.__dict__["rate"], lambda: setattr(options, "rate", 3.0)


def getattr_of_a_function() -> tuple[Number, Change]:
    def function() -> None: ...

    function.rate = 1.0  # type: ignore[attr-defined]
    return lambda: getattr(function, "rate"), lambda: setattr(function, "rate", 3.0)  # noqa: B009


def attrgetter_of_a_class() -> tuple[Number, Change]:
    options, rate = kind(rate=1.0), operator.attrgetter("rate")
    return lambda: rate(options), lambda: setattr(options, "rate", 3.0)


def attrgetter_made_in_the_step() -> tuple[Number, Change]:
    options = kind(inner=types.SimpleNamespace(rate=1.0))
    return (
        lambda: operator.attrgetter("inner.rate")(options),
        lambda: setattr(options.inner, "rate", 3.0),
    )


def getattribute_of_type() -> tuple[Number, Change]:
    options = kind(rate=1.0)
    return lambda: type.__getattribute__(options, "rate"), lambda: setattr(options, "rate", 3.0)


def state_for_a_copy() -> tuple[Number, Change]:
    options = kind()()
    options.rate = 1.0
    return lambda: options.__reduce_ex__(2)[2]["rate"], lambda: setattr(options, "rate", 3.0)


# By their classes


def class_of_what_a_step_makes() -> tuple[Number, Change]:
    policy = kind(rate=1.0)

    def number() -> Any:
        made = policy()
        return made.rate

    return number, lambda: setattr(policy, "rate", 3.0)


def method_of_what_a_step_makes() -> tuple[Number, Change]:
    policy = kind(rate=lambda self: 1.0)

    def number() -> Any:
        made = policy()
        return made.rate()

    return number, lambda: setattr(policy, "rate", lambda self: 3.0)


def class_of_an_exception() -> tuple[Number, Change]:
    stop = kind("Stop", (Exception,), rate=1.0)

    def number() -> Any:
        try:
            raise stop
        except Exception as found:
            return found.rate  # type: ignore[attr-defined]

    return number, lambda: setattr(stop, "rate", 3.0)


def _made_by(name: str, before: Any, after: Any) -> Callable[[], tuple[Number, Change]]:
    def spelling() -> tuple[Number, Change]:
        policy = kind(**{name: before})

        def number() -> Any:
            made = policy()
            if name == "__float__":
                return float(made)
            return made() if name == "__call__" else made.rate

        return number, lambda: setattr(policy, name, after)

    spelling.__name__ = name
    return spelling


def _initialized(rate: float) -> Callable[[Any], None]:
    return lambda self: setattr(self, "rate", rate)


MADE_BY: Final = [
    _made_by("__init__", _initialized(1.0), _initialized(3.0)),
    _made_by("__float__", lambda self: 1.0, lambda self: 3.0),
    _made_by("__call__", lambda self: 1.0, lambda self: 3.0),
]


def post_init_of_a_data_class() -> tuple[Number, Change]:
    @dataclasses.dataclass
    class Policy:
        rate: float = 1.0

        def __post_init__(self) -> None: ...

    return lambda: Policy().rate, lambda: setattr(
        Policy, "__post_init__", lambda self: setattr(self, "rate", 3.0)
    )


def class_in_a_variable() -> tuple[Number, Change]:
    options = kind(rate=1.0)
    thing = options()

    def number() -> Any:
        own = type(thing)
        return own.rate

    return number, lambda: setattr(options, "rate", 3.0)


def class_behind_an_attribute() -> tuple[Number, Change]:
    options: Any = kind(rate=1.0)
    thing = options()
    thing.rate = 7.0
    return lambda: type(thing).rate, lambda: setattr(options, "rate", 3.0)


def class_above_another() -> tuple[Number, Change]:
    class Above:
        rate = 1.0

    class Below(Above):
        rate = 9.0

        def number(self) -> float:
            return super().rate

    thing = Below()
    return lambda: thing.number(), lambda: setattr(Above, "rate", 3.0)


def method_above_another() -> tuple[Number, Change]:
    class Above:
        def number(self) -> float:
            return 1.0

    class Below(Above):
        def number(self) -> float:
            return super().number()

    thing = Below()
    return lambda: thing.number(), lambda: setattr(Above, "number", lambda self: 3.0)


def class_method_above_another() -> tuple[Number, Change]:
    class Above:
        @classmethod
        def number(cls) -> float:
            return 1.0

    class Below(Above):
        @classmethod
        def number(cls) -> float:
            return super().number()

    return lambda: Below.number(), lambda: setattr(Above, "number", classmethod(lambda cls: 3.0))


def class_in_an_order() -> tuple[Number, Change]:
    above = kind("Above", rate=1.0)
    thing = kind("Below", (above,))()

    def number() -> Any:
        found: Any = type(thing).__mro__[1]
        return found.rate

    return number, lambda: setattr(above, "rate", 3.0)


def class_of_a_class() -> tuple[Number, Change]:
    meta = kind("Meta", (type,), rate=1.0)
    options = meta("Options", (), {})
    return lambda: options.rate, lambda: setattr(meta, "rate", 3.0)


def name_of_a_class() -> tuple[Number, Change]:
    options = kind("Slow")
    return lambda: 1.0 if options.__name__ == "Slow" else 3.0, lambda: setattr(
        options, "__name__", "Fast"
    )


def registered_class() -> tuple[Number, Change]:
    class Fast(abc.ABC): ...  # noqa: B024

    thing = kind()()
    return lambda: 3.0 if isinstance(thing, Fast) else 1.0, lambda: Fast.register(type(thing))


def attribute_of_a_method() -> tuple[Number, Change]:
    def step(self: object) -> None: ...

    step.rate = 1.0  # type: ignore[attr-defined]
    thing = kind(step=step)()
    return lambda: thing.step.rate, lambda: setattr(step, "rate", 3.0)


def attribute_of_a_derived_parameter() -> tuple[Number, Change]:
    class Scaled(Parameter):
        rate = 1.0

    scaled = Scaled([1.0])
    return lambda: scaled.rate, lambda: setattr(Scaled, "rate", 3.0)


# By descriptors


def property_exchanged() -> tuple[Number, Change]:
    options = kind(rate=property(lambda self: 1.0))
    thing = options()
    return lambda: thing.rate, lambda: setattr(options, "rate", property(lambda self: 3.0))


def static_method_exchanged() -> tuple[Number, Change]:
    options = kind(rate=staticmethod(lambda: 1.0))
    return lambda: options.rate(), lambda: setattr(options, "rate", staticmethod(lambda: 3.0))


def static_method_of_an_object() -> tuple[Number, Change]:
    options = kind(rate=staticmethod(lambda: 1.0))
    thing = options()
    return lambda: thing.rate(), lambda: setattr(options, "rate", staticmethod(lambda: 3.0))


def class_method_exchanged() -> tuple[Number, Change]:
    options = kind(rate=classmethod(lambda cls: 1.0))
    return lambda: options.rate(), lambda: setattr(options, "rate", classmethod(lambda cls: 3.0))


def property_in_c() -> tuple[Number, Change]:
    options = kind(rate=property(operator.attrgetter("_rate")))
    thing = options()
    thing._rate = 1.0
    return lambda: thing.rate, lambda: setattr(thing, "_rate", 3.0)


class Constant:
    """Gives its number as an attribute of others."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __get__(self, thing: object, kind: type) -> float:
        return self.rate


def descriptor_exchanged() -> tuple[Number, Change]:
    options = kind(rate=Constant(1.0))
    thing = options()
    return lambda: thing.rate, lambda: setattr(options, "rate", Constant(3.0))


def context_of_the_library() -> tuple[Number, Change]:
    context = contextlib.nullcontext(1.0)

    def number() -> float:
        with context as rate:
            return rate

    return number, lambda: setattr(context, "enter_result", 3.0)


def context_of_a_generator() -> tuple[Number, Change]:
    box = {"rate": 1.0}

    @contextlib.contextmanager
    def context() -> Generator[float, None, None]:
        yield box["rate"]

    def number() -> float:
        with context() as rate, no_grad():
            return rate

    return number, lambda: box.update(rate=3.0)


def one_of_many_closures() -> tuple[Number, Change]:
    """Others of the same code close over what cannot be compared."""

    def made(given: Any) -> Callable[[], Any]:
        return lambda: next(given) if hasattr(given, "__next__") else given["rate"]

    box = {"rate": 1.0}
    others.append(made(iter([1.0])))
    return made(box), lambda: box.update(rate=3.0)


others: list[Any] = []


# By imports, in a function


def import_from_the_own_package() -> tuple[Number, Change]:
    module("package_1", settings=module("package_1.settings", rate=1.0))
    text = "def number():\n    from . import settings\n    return settings.rate"
    number = code(text, __package__="package_1", __name__="package_1.code")
    return number, lambda: setattr(sys.modules["package_1.settings"], "rate", 3.0)


def import_of_a_name_from_the_own_package() -> tuple[Number, Change]:
    module("package_2", inner=module("package_2.inner", __path__=[]))
    settings = module("package_2.settings", rate=1.0)
    text = "def number():\n    from ..settings import rate\n    return rate"
    number = code(text, __package__="package_2.inner", __name__="package_2.inner.code")
    return number, lambda: setattr(settings, "rate", 3.0)


def import_of_a_part() -> tuple[Number, Change]:
    package = module("package_3", part=module("package_3.part"), rate=1.0)
    text = "def number():\n    import package_3.part\n    return package_3.rate"
    return code(text, __name__="code"), lambda: setattr(package, "rate", 3.0)


# By caches


def cache_cleared() -> tuple[Number, Change]:
    box = {"rate": 1.0}
    rate = functools.cache(lambda: box["rate"])

    def change() -> None:
        box["rate"] = 3.0
        rate.cache_clear()

    return lambda: rate(), change


def cache_that_forgets() -> tuple[Number, Change]:
    box = {"rate": 1.0}
    rate = functools.lru_cache(maxsize=1)(lambda at: box["rate"])

    def change() -> None:
        box["rate"] = 3.0
        rate(1)

    return lambda: rate(0), change


def table_of_a_layer() -> tuple[Number, Change]:
    layer: Any = nn.ReLU()
    layer.rates = collections.OrderedDict(rate=1.0)
    return lambda: layer.rates["rate"], lambda: layer.rates.update(rate=3.0)


# What is equal, and yet another


def time_in_another_zone() -> tuple[Number, Change]:
    noon = datetime.datetime(2020, 1, 1, 1, tzinfo=datetime.UTC)
    zone = datetime.timezone(datetime.timedelta(hours=2))
    box = {"time": noon}
    return lambda: float(box["time"].hour), lambda: box.update(time=noon.astimezone(zone))


def digits_of_a_decimal() -> tuple[Number, Change]:
    box = {"rate": Decimal("1.0")}
    return lambda: len(str(box["rate"])) - 2.0, lambda: box.update(rate=Decimal("1.000"))


def end_of_a_range() -> tuple[Number, Change]:
    box = {"steps": range(0, 3, 2)}
    return lambda: box["steps"].stop - 2.0, lambda: box.update(steps=range(0, 4, 2))


def sign_of_no_number() -> tuple[Number, Change]:
    box = {"rate": math.nan}
    return lambda: math.copysign(1.0, box["rate"]) + 2.0, lambda: box.update(rate=-math.nan)


COMPARED: Final = spellings(globals(), "tuple[Number, Change]") + MADE_BY


# What gives another number each time, or might


def generator_of_a_class() -> Number:
    options = kind(draws=np.random.default_rng(0))
    return lambda: float(getattr(options, "draws").random())  # noqa: B009


def generator_of_what_a_step_makes() -> Number:
    options = kind(draws=np.random.default_rng(0))

    def number() -> float:
        made = options()
        return float(made.draws.random())

    return number


def counter_of_what_a_step_makes() -> Number:
    count = [0]

    def counted(self: Any) -> None:
        count[0] += 1
        self.rate = 1.0 / count[0]

    made = kind(__init__=counted)
    return lambda: made().rate


def counter_set_by_name() -> Number:
    options = kind(count=0)

    def number() -> Any:
        setattr(options, "count", options.count + 1)  # noqa: B010
        return 1.0 / options.count

    return number


def subclasses() -> Number:
    above = kind("Above")
    one = kind("One", (above,), rate=1.0)
    return lambda: max(each.rate for each in above.__subclasses__() if each is one)


def module_by_a_function() -> Number:
    module("settings_5", rate=1.0)
    return lambda: __import__("settings_5").rate


def names_of_pythons_module() -> Number:
    return lambda: float(vars(math)["pi"])


def references() -> Number:
    thing = kind()()
    return lambda: 1.0 + weakref.getweakrefcount(thing)


def iterator_of_numpy() -> Number:
    values = np.ndenumerate(np.arange(1.0, 100.0))
    return lambda: 1.0 / float(next(values)[1])


def lock() -> Number:
    held = threading.Lock()
    return lambda: 2.0 if held.locked() else 1.0


def number_of_the_thread() -> Number:
    rates = {threading.get_ident(): 1.0}
    return lambda: rates[threading.get_ident()]


def coroutine() -> Number:
    async def rates() -> None:
        for rate in range(1, 100):
            await _Yields(1.0 / rate)

    running = rates()
    return lambda: running.send(None)


class _Yields:
    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __await__(self) -> Generator[float, None, None]:
        yield self.rate


def compiled_function() -> Number:
    function: Any = numba.njit(lambda: 1.0)
    return lambda: function()


CHANGING: Final = spellings(globals(), "Number")


@pytest.mark.parametrize("spelling", COMPARED, ids=lambda f: f.__name__)
def test_a_change_of_what_a_step_looks_up_is_noticed(
    spelling: Callable[[], tuple[Number, Change]], device: Capturing
) -> None:
    check_change_is_noticed(spelling, device)


@pytest.mark.parametrize("spelling", CHANGING, ids=lambda f: f.__name__)
def test_what_nobody_can_compare_is_not_captured(
    spelling: Callable[[], Number], device: Capturing
) -> None:
    check_hidden_is_not_captured(lambda: (spelling(), nothing), device)


def test_each_thread_has_its_own_locals(device: Capturing) -> None:
    """A step that was captured on one thread runs on another."""
    found = []
    for capture in (False, True):
        local, w = threading.local(), Parameter([1.0, 2.0], backend=device)
        local.rate = 1.0
        trainer = Trainer(SGD([w], 0.0625), capture=capture)

        def loss(x: Tensor, w: Parameter = w, local: Any = local) -> Tensor:
            result: Tensor = (w * x * local.rate).sum()
            return result

        def elsewhere(
            trainer: Trainer[Any] = trainer, loss: Any = loss, local: Any = local
        ) -> None:
            local.rate = 3.0
            trainer.train_step(loss, np.ones(2))

        for _ in range(CHANGED):
            trainer.train_step(loss, np.ones(2))
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        found.append(w.numpy().tobytes())
    assert found[0] == found[1]


# What a step leaves behind


class Log:
    """Where a loss function notes something."""

    __slots__ = ("__dict__", "in_a_slot")
    of_the_class: Any = None


LAST: Any = None


def in_an_attribute(log: Log) -> Callable[[], Any]:
    def note() -> None:
        log.rate = 0.5  # type: ignore[attr-defined]

    return note


def in_a_slot(log: Log) -> Callable[[], Any]:
    def note() -> None:
        log.in_a_slot = 0.5  # type: ignore[attr-defined]

    return note


def in_a_class(log: Log) -> Callable[[], Any]:
    def note() -> None:
        Log.of_the_class = 0.5

    return note


def in_a_global(log: Log) -> Callable[[], Any]:
    def note() -> None:
        global LAST
        LAST = 0.5

    return note


def in_a_dict(log: Log) -> Callable[[], Any]:
    def note() -> None:
        TABLE["rate"] = 0.5

    return note


def in_a_list_made_anew(log: Log) -> Callable[[], Any]:
    def note() -> None:
        log.rates = [0.5]  # type: ignore[attr-defined]

    return note


TABLE: dict[str, Any] = {}


def left(log: Log) -> list[Any]:
    """What is there after a step; then it is taken away."""
    global LAST
    found = [
        getattr(log, "rate", None), getattr(log, "in_a_slot", None), getattr(log, "rates", None),
        Log.of_the_class, LAST, TABLE.pop("rate", None),
    ]  # fmt: skip
    LAST = Log.of_the_class = log.in_a_slot = None  # type: ignore[attr-defined]
    vars(log).clear()
    return found


@pytest.mark.parametrize(
    ("where", "is_captured"),
    [(in_an_attribute, True), (in_a_slot, True), (in_a_class, True), (in_a_global, True),
     (in_a_dict, False), (in_a_list_made_anew, False)],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_a_replay_leaves_what_the_code_does(
    where: Callable[[Log], Callable[[], Any]], is_captured: bool, device: Capturing
) -> None:
    """A program that takes it away after each step finds it again."""
    log, w = Log(), Parameter([1.0, 2.0], backend=device)
    trainer, note = Trainer(SGD([w], 0.0625)), where(log)

    def loss(x: Tensor) -> Tensor:
        note()
        return (w * x).sum()

    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(STEPS):
            trainer.train_step(loss, np.ones(2))
            found.append(left(log))
    assert found == [found[0]] * STEPS
    assert 0.5 in found[0] or [0.5] in found[0]
    assert bool(trainer.counts.replayed) == is_captured


def loss_in_an_attribute(log: Any) -> Callable[[Tensor, Tensor], Any]:
    def loss(main: Tensor, rest: Tensor) -> Any:
        log.last = main.detach()
        return main

    return loss


def loss_in_a_new_dict(log: Any) -> Callable[[Tensor, Tensor], Any]:
    def loss(main: Tensor, rest: Tensor) -> Any:
        log.all = {"last": main.detach()}
        log.last = log.all["last"]
        return main

    return loss


def logged_value_in_an_attribute(log: Any) -> Callable[[Tensor, Tensor], Any]:
    def loss(main: Tensor, rest: Tensor) -> Any:
        log.last = rest.detach()
        return {"loss": main + rest, "rest": rest}

    return loss


@pytest.mark.parametrize(
    "where",
    [loss_in_an_attribute, loss_in_a_new_dict, logged_value_in_an_attribute],
    ids=lambda f: f.__name__,
)
def test_a_result_that_the_program_holds_is_that_of_the_last_step(
    where: Callable[[Any], Callable[[Tensor, Tensor], Any]], device: Capturing
) -> None:
    """In every step, also after one whose code ran again to check the recording."""
    found = []
    for capture in (False, True):
        log, w = types.SimpleNamespace(last=None), Parameter([1.0, 2.0], backend=device)
        trainer, loss = Trainer(SGD([w], 0.0625), capture=capture), where(log)
        seen = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for step in range(12):
                trainer.train_step(
                    lambda x, w=w, loss=loss: loss((w * x).sum(), (w * w).sum()),
                    np.full(2, 1.0 + step),
                )
                seen.append(log.last.item())
        found.append(seen)
    assert found[0] == found[1]


# Numbers of the batch


class Named(float):
    """A number with a text and an attribute of its own."""

    rate: float

    def __repr__(self) -> str:
        return "a number"


class Size(IntEnum):
    """Numbers with names."""

    SMALL = 1
    LARGE = 3


def named(value: float, rate: float) -> Named:
    made = Named(value)
    made.rate = rate
    return made


@pytest.mark.parametrize(
    ("before", "after", "use"),
    [
        (named(1.0, 0.0), named(3.0, 0.0), float),
        (named(1.0, 1.0), named(1.0, 3.0), lambda value: value.rate),
        (Size.SMALL, Size.LARGE, float),
        (True, 1, lambda value: 1.0 if value is True else 3.0),
        (0.0, -0.0, lambda value: 2.0 + math.copysign(1.0, value)),
    ],
    ids=["text", "attribute", "enumeration", "truth value", "sign"],
)
def test_numbers_of_the_batch_are_told_apart(
    before: Any, after: Any, use: Callable[[Any], float], device: Capturing
) -> None:
    found = []
    for capture in (False, True):
        w = Parameter([1.0, 2.0], backend=device)
        trainer = Trainer(SGD([w], 0.0625), capture=capture)
        for step in range(STEPS):
            given = before if step < CHANGED else after
            trainer.train_step(lambda x, n, w=w: (w * x * use(n)).sum(), np.ones(2), given)
        found.append(w.numpy().tobytes())
        assert trainer.counts.replayed == 4 * capture
    assert found[0] == found[1]


# On a device


def test_what_is_known_of_numbers_outlives_replays(gpu: GpuBackend) -> None:
    """A layer that picks rows by constant numbers is captured again after a change."""
    layer, w = nn.Upsample(2), Parameter([1.0], backend=gpu)
    trainer, x = Trainer(SGD([w], 0.1)), np.ones((1, 1, 2, 2), np.float32)
    box = {"scale": 1.0}
    for step in range(2 * STEPS):
        box["scale"] = 1.0 if step < STEPS else 2.0
        trainer.train_step(lambda x: (layer(x) * w * box["scale"]).mean(), x)
    assert trainer.counts.recorded == 2


def test_an_error_of_what_follows_a_step_is_none_of_the_step(
    device: Capturing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(reads: Reads, base: object, name: str) -> None:
        raise LookupError(name)

    monkeypatch.setattr(Reads, "read_attribute", fails)
    check_hidden_is_not_captured(lambda: (lambda: math.pi, nothing), device)


def test_errors_of_what_is_followed_are_those_of_the_code(device: Capturing) -> None:
    """Nothing that looks at a step raises within it."""
    strange: Any = type("Strange", (dict,), {"__getattr__": dict.__getitem__})(rate=1.0)
    layer = nn.Linear(2, 1).to(device)
    trainer = Trainer(SGD(layer.parameters(), 0.0))

    def loss(x: Tensor) -> Tensor:
        result: Tensor = (layer(x) * strange.rate).sum()
        return result

    for _ in range(3):
        trainer.train_step(loss, np.ones((1, 2), np.float32))
    assert trainer.counts.replayed == 1
    gc.collect()
