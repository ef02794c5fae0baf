"""`Undeclared`: generators that a run draws from but no checkpoint holds.

A resumed run would silently draw other numbers from them. Rumus's generators report their draws.
Those of NumPy and Python do not: all live ones in the process are checked before and after the
passes of the first steps, and whenever a checkpoint is saved. While other threads train, theirs
move, too: then only those count that the loss function reaches.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, Final, TypeVar

from rumus.tensor import Generator
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.memory.uninterrupted import put_back_after
from rumus.tensor.operations.draws import Draws
from rumus.train.base.random_sources import (
    Look,
    Source,
    is_of_program,
    kind_of,
    name_of,
    source_of,
    sources_in,
)
from rumus.train.capture.outside import is_of_rumus, is_trusted

R = TypeVar("R")
_OF_SYSTEM: Final[tuple[Any, ...]] = tuple(
    getattr(os, name) for name in ("urandom", "getrandom") if hasattr(os, name)
)
_SEEDING: Final = random.Random.seed.__code__
PASSES: Final = 2  # one may make a generator, which the next draws from
_RUNS: Final = weakref.WeakSet["Undeclared"]()  # at this time, in any thread


class UndeclaredError(ValueError):
    """The loss function draws from a generator that no checkpoint would hold."""


class Undeclared:
    """Checks the passes and the checkpoints of one run.

    known: random generators that are saved. held: objects that save what they hold. with_program:
    the generators that belong to the program are not saved either.
    """

    def __init__(
        self, known: Iterable[object], held: Iterable[object], *, with_program: bool
    ) -> None:
        self._known = {id(source_of(random)): random for random in known}
        self._held = list(held)
        self._with_program = with_program
        self._look: Look | None = self._look_around()
        self._before_passes: Look | None = None
        self._passes = self._saves = 0
        self._loss_fn: object = None
        self._asks_system = False
        self._is_alone, self._thread = True, threading.current_thread()
        for run in [*_RUNS]:
            if run._thread is not self._thread and run._thread.is_alive():
                run._is_alone = self._is_alone = False
        _RUNS.add(self)

    def _look_around(self) -> Look:
        return Look(of_program=self._with_program)

    def before_passes(self) -> None:
        """Check, if these passes are among the first, or the first after a save."""
        if self._look is None:
            self._look = self._look_around()
        if self._passes < PASSES:
            self._before_passes = self._look_around() if self._passes else self._look.again()
        self._passes += 1

    def watched(self, passes: Callable[[], R]) -> R:
        """Return what the passes return. Warn, once, if the first ones ask the system for numbers.

        A profiler of the program's own stays, and then nothing is noticed.
        """
        if self._passes > PASSES or self._asks_system or sys.getprofile() is not None:
            return passes()

        def note(frame: FrameType, event: str, called: object) -> None:
            if event == "c_call":
                is_of_system = any(called is each for each in _OF_SYSTEM)
            else:  # random.Random() and random.seed(), which ask in C
                is_of_system = (
                    event == "call" and frame.f_code is _SEEDING and frame.f_locals.get("a") is None
                )
            if is_of_system:
                self._asks_system = self._asks_system or not _is_of_library(frame)

        def profiled() -> R:
            sys.setprofile(note)
            return passes()

        found = put_back_after(profiled, lambda: sys.setprofile(None))
        if self._asks_system:
            warn_user(
                "loss_fn draws from the system's random numbers (os.urandom, secrets, "
                "SystemRandom, or a generator made without a seed), which nothing restores, so a "
                "resumed run differs: draw from a rumus.tensor.Generator that "
                "Trainer(optimizer, state=...) names"
            )
        return found

    def after_passes(self, draws: Draws, loss_fn: object) -> None:
        """Raise UndeclaredError for a generator that the passes drew from and no checkpoint holds.

        loss_fn: whose passes they were.
        """
        self._loss_fn = loss_fn
        if not (draws.before or draws.is_lost) and self._before_passes is None:
            return
        known = self._known
        moved: list[Source] = [random for random in draws.generators if id(random) not in known]
        if self._before_passes is not None:
            moved += self._own(self._before_passes.moved())
            self._before_passes = None
        if draws.is_lost:
            raise UndeclaredError(
                "loss_fn draws from a generator that it makes itself, which no checkpoint would "
                "save, so a resumed run would differ: make it once, before the training, and "
                "declare it, Trainer(optimizer, state={'noise': noise})"
            )
        if moved and (found := self._undeclared(moved)):
            told, remedy = _told(found[0])
            raise UndeclaredError(
                f"loss_fn draws from {told}, which no checkpoint would save, so a resumed run "
                f"would differ: {remedy}"
            )

    def before_save(self) -> None:
        """Warn of other generators that this run drew from, at growing intervals (it is slow)."""
        self._saves += 1
        if self._saves & (self._saves - 1):
            return
        moved, self._look = [] if self._look is None else self._own(self._look.moved()), None
        for source in self._undeclared(moved):
            self._known[id(source)] = source  # warn once
            told, remedy = _told(source)
            if told == kind_of(source):
                continue  # only a running function holds it (a loader's, say), which starts anew
            warn_user(
                f"{told} has drawn in this run, but no checkpoint saves it: if the training uses "
                f"it, a resumed run differs. {remedy}; in the transform of a DataLoader, draw "
                "from the generator that it is given",
            )

    def _own(self, moved: list[Source]) -> list[Source]:
        """Leave out what another run may have drawn from. (Generators of rumus tell who draws.)"""
        if self._is_alone or not moved:
            return moved
        used = {id(source) for source in sources_in([self._loss_fn], used=True)}
        used.update(id(source) for source in moved if is_of_program(source))
        return [s for s in moved if id(s) in used and not isinstance(s, Generator)]

    def _undeclared(self, sources: Iterable[Source]) -> list[Source]:
        held = {id(source): source for source in sources_in(self._held)}
        found = []
        for source in sources:
            if id(source) in held:
                self._known[id(source)] = source  # not to be looked for in each step
            elif id(source) not in self._known:
                found.append(source)
        return found


def _is_of_library(frame: FrameType | None) -> bool:
    """Whether a library asks, as numba or tempfile, or an import, and not the program."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        root = module.partition(".")[0]
        if root in ("importlib", "tempfile"):  # the latter for names of files
            return True
        if root not in sys.stdlib_module_names:
            return is_trusted(module) or is_of_rumus(module)
        frame = frame.f_back
    return True


def _told(source: Source) -> tuple[str, str]:
    """Return the name to show the user, and the remedy."""
    name, kind = name_of(source), kind_of(source)
    told = kind if name is None else f"{name!r}, {kind}"
    if is_of_program(source):
        return told, "declare a rumus.tensor.Generator, Trainer(optimizer, state=...), for that"
    name = name or "noise"
    key = name.strip("_") if name.isidentifier() and name.isascii() else "noise"
    return told, f"Trainer(optimizer, state={{{key!r}: {name}}})"
