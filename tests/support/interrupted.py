"""Operations with a signal at any of their lines, whose handler raises.

Either all of an operation has happened then, or nothing: the oracle is the state before and the
state of an undisturbed run, bit for bit.
"""

from __future__ import annotations

import gc
import inspect
import itertools
import os
import random
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from linecache import getline
from types import FrameType
from typing import Any, Final, TypeAlias

import numpy as np

from rumus.optim import (
    EMA,
    LBFGS,
    SAM,
    Accumulation,
    Adam,
    AdamW,
    ClipNorm,
    Lookahead,
    LossScale,
    MultiOptimizer,
)
from rumus.optim.engine.closure import ClosureOptimizer
from rumus.tensor import (
    GradientStore,
    NumpyBackend,
    Parameter,
    Tensor,
    move_parameters,
)

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)
Seen: TypeAlias = tuple[Any, ...]
_PACKAGE: Final = f"{os.sep}rumus{os.sep}"  # an environment may be named after rumus, too
_WITH_LOCK: Final = re.compile(r"^\s*with ([\w.]*lock:|.*\.open\(.* as \w+:)")  # or a file


class Late(TimeoutError):
    """Raised by the handlers here: an OSError that is not a disk fault."""


def _raise(*_: object) -> None:
    raise Late


@contextmanager
def raising_handlers() -> Iterator[None]:
    before = {number: signal.signal(number, _raise) for number in SIGNALS}
    try:
        yield
    finally:
        assert all(signal.getsignal(number) is _raise for number in SIGNALS)
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_at_its_end(frame: FrameType, before: int) -> bool:
    """Whether a line is the head of a block with a lock or a file, come back to as it ends.

    The interpreter ends such a block without looking for signals before: none can leave it held.
    """
    code, line = frame.f_code, frame.f_lineno
    return before > line and _WITH_LOCK.search(getline(code.co_filename, line)) is not None


def at_line(wanted: int, number: int, act: Callable[[], object]) -> tuple[int, bool]:
    """Run `act` with a signal at a line of rumus; return the lines run, and whether it raised.

    Nothing is collected meanwhile: Python would swallow what is raised as garbage of before ends.
    """
    count = 0
    lines: dict[int, int] = {}  # the last one in each frame, which is not kept alive

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if _PACKAGE not in frame.f_code.co_filename:
            return None
        if event == "return":
            if not frame.f_code.co_flags & inspect.CO_GENERATOR:  # which may go on
                lines.pop(id(frame), None)
            return trace
        is_counted = event == "line" and not _is_at_its_end(frame, lines.get(id(frame), 0))
        lines[id(frame)] = frame.f_lineno
        if is_counted:
            count += 1
            if count == wanted:
                signal.raise_signal(number)
        return trace

    before = sys.gettrace()
    gc.disable()
    sys.settrace(trace)
    try:
        act()
    except Late:
        return count, True
    finally:
        sys.settrace(before)
        gc.enable()
    return count, False


def _parameters() -> list[Parameter]:
    generator = np.random.default_rng(0)
    return [
        Parameter(generator.standard_normal(shape).astype(np.float32), name=name)
        for name, shape in (("weight", (3, 4)), ("bias", (4,)), ("scale", (2,)))
    ]


def _loss(parameters: list[Parameter]) -> Tensor:
    return sum(((p - 0.5) ** 2).sum() for p in parameters) * 0.25  # type: ignore[return-value]


def _bits(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bits(item) for key, item in value.items()}
    return value.tobytes() if isinstance(value, np.ndarray) else value


def _of(parameters: list[Parameter], *things: Any) -> Seen:
    values = [(p.numpy().tobytes(), p.backend.name, p.owner is None) for p in parameters]
    return values, [_bits(thing.state_dict()) for thing in things]


def _shown(store: GradientStore) -> dict[str, bytes]:
    return {p.name: store[p].numpy().tobytes() for p in store}


Prepared: TypeAlias = tuple[Callable[[], object], Callable[[], Seen]]


def _step(make: Callable[[list[Parameter]], Any]) -> Prepared:
    parameters = _parameters()
    optimizer = make(parameters)
    if isinstance(optimizer, ClosureOptimizer):
        optimizer.minimize_step(lambda: _loss(parameters))
        return (
            lambda: optimizer.minimize_step(lambda: _loss(parameters)),
            lambda: _of(parameters, optimizer),
        )
    optimizer.step(_loss(parameters).backward())
    grads = _loss(parameters).backward()
    return lambda: optimizer.step(grads), lambda: (*_of(parameters, optimizer), _shown(grads))


class Refused(Exception):
    """Raised by the losses here."""


def _refused_step(make: Callable[[list[Parameter]], Any]) -> Prepared:
    """A step that fails while the parameters are displaced, so a signal may hit the error path."""
    parameters = _parameters()
    optimizer = make(parameters)
    optimizer.minimize_step(lambda: _loss(parameters))

    def act() -> None:
        evaluations = itertools.count(1)

        def loss() -> Tensor:
            if next(evaluations) == 2:
                raise Refused
            return _loss(parameters)

        with suppress(Refused):
            optimizer.minimize_step(loss)

    return act, lambda: _of(parameters, optimizer)


def _scaled(parameters: list[Parameter]) -> Any:
    optimizer = AdamW(parameters, nonfinite="skip")
    scaling = optimizer.scale_losses(LossScale(initial=4.0, every=1))
    assert scaling.scale == 4  # as code that multiplies a loss asks
    return optimizer


def _backward_into() -> Prepared:
    parameters = _parameters()
    store = _loss(parameters).backward()
    losses = [_loss(parameters)]
    return lambda: losses[0].backward(into=store), lambda: (_shown(store),)


def _take() -> Prepared:
    parameters = _parameters()
    optimizer = AdamW(parameters)
    store = _loss(parameters).backward()
    return lambda: store.drain(optimizer.parameters, "me"), lambda: (_shown(store),)


def _accumulation() -> Prepared:
    parameters = _parameters()
    accumulation, store = Accumulation(), _loss(parameters).backward()
    accumulation.add(_loss(parameters).backward(), 2.0)

    def seen() -> Seen:
        sums = {s.parameter.name: s.array.tobytes() for s in accumulation._sums.values()}
        return sums, accumulation.weight, accumulation.count, _shown(store)

    return lambda: accumulation.add(store, 3.0), seen


def _load() -> Prepared:
    parameters, others = _parameters(), _parameters()
    optimizer, other = AdamW(parameters), AdamW(others)
    for _ in range(3):
        other.step(_loss(others).backward())
    state = other.state_dict()
    return lambda: optimizer.load_state_dict(state), lambda: _of(parameters, optimizer)


def _move() -> Prepared:
    parameters = _parameters()
    optimizer = AdamW(parameters[:2])
    optimizer.step(_loss(parameters[:2]).backward())
    place = NumpyBackend()

    def seen() -> Seen:
        return *_of(parameters, optimizer), [p.backend is place for p in parameters]

    return lambda: move_parameters(parameters, place), seen


def _claim() -> Prepared:
    parameters, made = _parameters(), []
    return lambda: made.append(Adam(parameters)), lambda: ([p.owner is None for p in parameters],)


def _release() -> Prepared:
    parameters = _parameters()
    optimizer = AdamW(parameters, average=EMA(0.9))
    return optimizer.release, lambda: ([p.owner is None for p in parameters],)


def _averaging(parameters: list[Parameter]) -> Any:
    return AdamW(parameters, average=EMA(0.9))


def _averaging_both(parameters: list[Parameter]) -> Any:
    return MultiOptimizer([_averaging(parameters[:1]), _averaging(parameters[1:])])


def _evaluate(make: Callable[[list[Parameter]], Any], *, refused: bool = False) -> Prepared:
    """Evaluates with an average; refused: the block ends with an error."""
    parameters = _parameters()
    optimizer = make(parameters)
    optimizer.step(_loss(parameters).backward())

    def look() -> None:
        with suppress(Refused), optimizer.eval_params():
            _loss(parameters)
            if refused:
                raise Refused

    return look, lambda: _of(parameters, optimizer)


PUT_BACK: Final[dict[str, Callable[[], Prepared]]] = {  # these end by restoring what was there
    "SAM, refused away": lambda: _refused_step(lambda p: SAM(AdamW(p))),
    "ASAM of Lookahead, refused away": lambda: _refused_step(
        lambda p: SAM(Lookahead(Adam(p), k=2), adaptive=True)
    ),
    "LBFGS, refused away": lambda: _refused_step(lambda p: LBFGS(p, max_iter=3)),
    "an error with an average": lambda: _evaluate(_averaging, refused=True),
    "an error with two averages": lambda: _evaluate(_averaging_both, refused=True),
}
CASES: Final[dict[str, Callable[[], Prepared]]] = {
    "step": lambda: _step(lambda p: AdamW(p, clip=ClipNorm(0.5), average=EMA(0.9))),
    "step of two groups": lambda: _step(lambda p: AdamW(p, nonfinite="skip")),
    "step with a loss scale": lambda: _step(_scaled),
    "step of 8 bits": lambda: _step(lambda p: AdamW(p, state_dtype="8bit")),
    "SAM": lambda: _step(lambda p: SAM(AdamW(p))),
    "ASAM of Lookahead": lambda: _step(lambda p: SAM(Lookahead(Adam(p), k=2), adaptive=True)),
    "Lookahead": lambda: _step(lambda p: Lookahead(Adam(p), k=2)),
    "LBFGS": lambda: _step(lambda p: LBFGS(p, max_iter=3)),
    "backward into a store": _backward_into,
    "draining": _take,
    "accumulation": _accumulation,
    "loading a state": _load,
    "moving": _move,
    "claiming": _claim,
    "releasing": _release,
    "evaluating an average": lambda: _evaluate(_averaging),
    "evaluating two averages": lambda: _evaluate(_averaging_both),
    **PUT_BACK,
}


@dataclass(frozen=True)
class Attempt:
    """The effect of a signal at a line: whether it was lost, and whether it left half a change."""

    line: int
    is_lost: bool
    is_torn: bool


def attempts(
    prepare: Callable[[], Prepared], number: int, seed: str, last: int = 0
) -> Iterator[Attempt]:
    """Yield the outcomes of an operation with a signal at one of `number` random lines.

    At every line if it has fewer, and at each of the `last` ones.
    """
    prepare()[0]()  # fills caches that later runs use
    act, seen = prepare()
    before = seen()
    lines, _ = at_line(0, signal.SIGINT, act)
    after = seen()
    chosen = random.Random(seed)
    with raising_handlers():
        sample = chosen.sample(range(1, lines + 1), min(number, lines))
        for line in sorted({*sample, *range(max(1, lines - last + 1), lines + 1)}):
            act, seen = prepare()
            if seen() != before:
                raise AssertionError("the operation does not begin as it did before")
            ran, raised = at_line(line, chosen.choice(SIGNALS), act)
            yield Attempt(line, not raised and ran >= line, _is_torn(seen, before, after))


def _is_torn(seen: Callable[[], Seen], *whole: Seen) -> bool:
    try:
        return seen() not in whole
    except Exception:  # such as an OwnershipError: the operation is still going on
        return True
