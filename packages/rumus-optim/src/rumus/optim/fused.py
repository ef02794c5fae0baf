"""`FusedOptimizer`: an update rule, run as one kernel over flat memory.

The parameters of a group lie side by side in an arena, and so do their gradients and each part of
the state. One step is one kernel for each group, however many parameters it has.
"""

from __future__ import annotations

import inspect
import math
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.optim.description import description
from rumus.optim.footprint import Memory, planned, used
from rumus.optim.group import Claimable, M_co, ParameterGroup
from rumus.optim.hyperparameter import Hyper, at_step, checked
from rumus.optim.optimizer import Optimizer, check_one_backend
from rumus.optim.rules import Rule
from rumus.optim.running import Running
from rumus.optim.saved_state import differences, uneven_steps
from rumus.optim.uninterrupted import Uninterrupted
from rumus.tensor import (
    Arena,
    Backend,
    DrainedGradientError,
    DType,
    Expr,
    GradientStore,
    Kernel,
    NonFiniteGradientError,
    OwnershipError,
    Parameter,
    ParamId,
    StateMismatchError,
)
from rumus.tensor.arena import fitting
from rumus.tensor.backend import Array
from rumus.tensor.updater import ImmediateUpdater, NonFinite, Outcome, Section, Updater

_FORMAT: Final = 1
_BOUND: Final = 1024  # steps whose scalars are kept


@dataclass(slots=True, eq=False)
class Segment:
    """An arena with the state of its parameters, stepped by one kernel."""

    arena: Arena
    state: dict[str, Array]  # flat, by name
    group: ParameterGroup
    steps: int  # how many were applied to it before its updater was made

    def section(self) -> Section:
        """Return what an updater has to know of it."""
        arena = self.arena
        starts = tuple(slot.start for slot in arena.slots)
        return Section(arena.backend, {"p": arena.values, **self.state}, arena.gradients, starts)


class FusedOptimizer(Optimizer[M_co]):
    """Any rule as an optimizer; SGD, Adam and AdamW are this with a name.

    parameters: see `Optimizer`. rule: a function of `p`, `g`, the state, and scalars keyword-only,
    that returns new values (see `rumus.optim.rules`). The state starts at 0.
    lr, hyper: the rule's scalars: numbers, or functions of the step. They may be changed with
    `set`, and a group may have its own.
    weight_decay: for a rule without a scalar of that name: g + weight_decay p takes g's place.
    maximize: go up instead of down: -g takes g's place.
    running: scalars of the rule that are no hyper-parameters but depend on all steps so far.
    nonfinite: what a NaN or infinity among the gradients does. "raise": NonFiniteGradientError,
    with the names, and nothing has changed. "skip": the gradients are drained and nothing else
    happens; `skipped` counts it and `blamed` has the names. "propagate": nobody looks.

    A GPU decides by itself, and the host hears of it later: from `poll`, or when anything is read
    from that GPU, as the step's loss. With "raise" no step is applied from the bad one on, and the
    error comes from whatever hears of it first. `steps`, `skipped`, `blamed`, `state_dict`, `move`
    and `release` wait until everything is known. Schedules are asked there for later steps too, in
    advance, and again when it is their turn.

    >>> def signum(p: Expr, g: Expr, m: Expr, *, lr: Expr, beta: Expr) -> dict[str, Expr]:
    ...     m = beta * m + (1 - beta) * g
    ...     return {"p": p - lr * m.sign(), "m": m}
    >>> w = Parameter([1.0], name="w")
    >>> optimizer = FusedOptimizer([w], signum, lr=0.25, beta=0.9)
    >>> optimizer.step((w * w).sum().backward())
    >>> w.tolist()
    [0.75]
    """

    def __init__(
        self,
        parameters: Claimable[M_co],
        rule: Rule,
        lr: Hyper = 1e-3,
        *,
        maximize: bool = False,
        nonfinite: NonFinite = "raise",
        running: Running | None = None,
        **hyper: Hyper | tuple[float, ...],
    ) -> None:
        if nonfinite not in ("raise", "skip", "propagate"):
            raise ValueError(f'nonfinite must be "raise", "skip" or "propagate", not {nonfinite!r}')
        self.rule = rule
        self.maximize = maximize
        self.nonfinite = nonfinite
        self._steps = self._skipped = 0
        self._blamed: tuple[str, ...] = ()
        self._updater: Updater | None = None
        self._pending: deque[Outcome] = deque()
        self._learning = threading.Lock()  # a thread that reads from a GPU hears of steps, too
        self._bound: dict[tuple[int, int], tuple[dict[str, float], tuple[float, ...]]] = {}
        self.running = running or Running()
        self.state_names, scalars, defaults = _signature(rule)
        self.scalar_names = (scalars | self.running.needed) - set(self.running.names)
        self.hyper = {**defaults, **checked({"lr": lr, **hyper})}
        super().__init__(parameters)
        try:
            self._check_names()
            self.kernel = self._trace(self.hyper)
            self.segments: list[Segment] = self._layout(self.groups, {})
        except BaseException:
            self.release()
            raise
        for segment in self.segments:
            segment.arena.adopt()

    @property
    def kind(self) -> str:
        """What a saved state calls this optimizer: its class, or the rule of a plain one."""
        own = type(self).__name__
        return self.rule.__name__ if own == "FusedOptimizer" else own

    @property
    def steps(self) -> int:
        """How many steps were applied."""
        self.poll(wait=True)
        return self._steps

    @steps.setter
    def steps(self, value: int) -> None:
        self._steps = value

    @property
    def skipped(self) -> int:
        """How many steps were left out because of a gradient that was not finite."""
        self.poll(wait=True)
        return self._skipped

    @skipped.setter
    def skipped(self, value: int) -> None:
        self._skipped = value

    @property
    def blamed(self) -> tuple[str, ...]:
        """The parameters to blame for the last skipped step."""
        self.poll(wait=True)
        return self._blamed

    @blamed.setter
    def blamed(self, value: tuple[str, ...]) -> None:
        self._blamed = value

    def set(self, **hyper: Hyper | tuple[float, ...]) -> None:
        """Change hyper-parameters from the next step on, where no group has its own.

        TypeError for one that the rule does not have, ValueError for a value out of range; none is
        changed then.
        """
        values = checked(hyper)
        self._check_known(values)
        new = {**self.hyper, **values}
        if self._decays(new) != self._decays(self.hyper):
            self._settle()
            self.kernel = self._trace(new)
            self._bound.clear()
        self.hyper = new

    def _check_known(self, names: Mapping[str, object]) -> None:
        for name in names:
            if name not in self.scalar_names and name != "weight_decay":
                known = ", ".join(sorted(self.scalar_names))
                raise TypeError(f"{self.kind} has no hyper-parameter {name!r}; it has {known}")

    def _check_names(self) -> None:
        for given in (self.hyper, *(group.hyper for group in self.groups)):
            self._check_known(given)
        for group in self.groups:
            if missing := sorted(self.scalar_names - set(self.hyper) - set(group.hyper)):
                raise TypeError(f"{self.kind} needs a value for {missing[0]!r}")

    def _decays(self, hyper: Mapping[str, Hyper]) -> bool:
        """Whether the gradient gets weight_decay p added, which the rule itself does not know."""
        given = (hyper, *(group.hyper for group in self.groups))
        some = any(values.get("weight_decay", 0.0) != 0.0 for values in given)
        return some and "weight_decay" not in self.scalar_names

    def _trace(self, hyper: Mapping[str, Hyper]) -> Kernel:
        """The rule as a kernel, with the gradient that `maximize` and `weight_decay` make."""
        p, g = Expr.array("p"), Expr.array("g")
        if self.maximize:
            g = -g
        if self._decays(hyper):
            g = g + Expr.scalar("weight_decay") * p
        state = map(Expr.array, self.state_names)
        known = {*self.scalar_names, *self.running.names, "t"}
        names = inspect.signature(self.rule).parameters
        scalars = {name: Expr.scalar(name) for name in names if name in known}
        new: object = self.rule(p, g, *state, **scalars)
        if not isinstance(new, Mapping) or "p" not in new:
            raise TypeError(f"the rule {self.rule.__name__} must return {{'p': ..., ...}}")
        if unknown := set(new) - {"p", *self.state_names}:
            raise TypeError(f"the rule {self.rule.__name__} returns {unknown}, which it has not")
        if kept := set(self.state_names) - set(new):
            raise TypeError(f"the rule {self.rule.__name__} takes {kept} but returns no new value")
        outputs = {name: Expr.of(value) for name, value in new.items()}
        return Kernel(self.rule.__name__, outputs, ("p", "g", *self.state_names))

    def describe(self) -> str:
        """Return a table: who is in which group, with shapes, roles and hyper-parameters.

        It warns of a decoupled weight decay that is lost in the rounding of float32.
        """
        return description(self, self.hyper, "weight_decay" in self.scalar_names)

    # Memory

    def memory(self) -> Memory:
        """Return the bytes of its parameters, gradients and state, with the gaps between them."""
        return used(self.segments)

    @classmethod
    def planned_memory(cls, parameters: Claimable[Any], *args: Any, **options: Any) -> Memory:
        """Return what `memory()` would be of an optimizer made like this, which is not made.

        args, options: as to make one. Nothing is claimed, and no array of this size is allocated.

        >>> from rumus.optim import AdamW
        >>> AdamW.planned_memory([Parameter(np.zeros((64, 10), np.float32))])
        Memory(parameters=2560, gradients=2560, state=5120)
        """
        probe = cls([Parameter(0.0, name="probe")], *args, **options)
        return planned(parameters, len(probe.state_names))

    def _layout(
        self, groups: Sequence[ParameterGroup], places: Mapping[ParamId, Backend]
    ) -> list[Segment]:
        """Lay parameters and state out in new arenas, each parameter on its backend in `places`."""
        segments = []
        for group in groups:
            runs: dict[tuple[DType, int, int], list[Parameter]] = {}
            backends: dict[int, Backend] = {}
            for position, (_, p) in enumerate(group.named):
                backend = places.get(p.id, p.backend)
                backends[id(backend)] = backend
                apart = position if group.optional else -1
                runs.setdefault((p.dtype, id(backend), apart), []).append(p)
            for (dtype, place, _), parameters in runs.items():
                for part in fitting(parameters, dtype, backends[place].max_array_bytes):
                    arena = Arena(part, dtype, backends[place])
                    state = {name: arena.zeros() for name in self.state_names}
                    segments.append(Segment(arena, state, group, 0))
        return segments

    def _state_views(self) -> dict[int, dict[str, Array]]:
        """The state of each parameter, by its id."""
        found: dict[int, dict[str, Array]] = {p.id: {} for p in self.parameters}
        for segment in self.segments:
            for name, flat in segment.state.items():
                views = segment.arena.views(flat)
                for parameter, view in zip(segment.arena.parameters, views, strict=True):
                    found[parameter.id][name] = view
        return found

    def _host_state(self) -> dict[int, dict[str, NDArray[Any]]]:
        """A copy of the state of each parameter in NumPy, by its id: one read for each array."""
        found: dict[int, dict[str, NDArray[Any]]] = {p.id: {} for p in self.parameters}
        for segment in self.segments:
            arena = segment.arena
            for name, flat in segment.state.items():
                host = arena.backend.download(flat)
                for parameter, slot in zip(arena.parameters, arena.slots, strict=True):
                    part = host[slot.start : slot.start + slot.size]
                    found[parameter.id][name] = part.reshape(parameter.shape).copy()
        return found

    def move(self, parameters: Sequence[Parameter], backend: Backend) -> None:
        """Take parameters, with their state, to another backend."""
        self._settle()
        before, counts = self._host_state(), self._counts()
        segments = self._layout(self.groups, {p.id: backend for p in parameters})
        for segment in segments:
            arena = segment.arena
            segment.steps = counts[arena.parameters[0].id]
            for name in segment.state:
                host = np.zeros(arena.size, arena.dtype)
                for parameter, slot in zip(arena.parameters, arena.slots, strict=True):
                    part = before[parameter.id][name]
                    host[slot.start : slot.start + slot.size] = part.reshape(-1)
                segment.state[name] = arena.backend.upload(host)
        for segment in segments:
            segment.arena.adopt()
        self.segments = segments

    def _counts(self) -> dict[int, int]:
        return {p.id: s.steps for s in self.segments for p in s.arena.parameters}

    def release(self) -> None:
        """Give up the parameters: another optimizer may claim them. They keep their values."""
        try:
            self._settle()
        finally:
            for segment in getattr(self, "segments", []):
                segment.arena.release()
            self.segments = []
            super().release()

    def gradients(self, grads: GradientStore) -> list[tuple[Backend, Array, list[Parameter]]]:
        """Return the owned gradients: a whole arena where they lie in it, else one by one."""
        found = []
        for segment in self.segments:
            arena = segment.arena
            if arena.holds(grads):
                found.append((arena.backend, arena.gradients, list(arena.parameters)))
            else:
                present = [p for p in arena.parameters if not segment.group.optional or p in grads]
                arrays = [grads.array(p) for p in present]
                pairs = zip(present, arrays, strict=True)
                found += [(arena.backend, array, [p]) for p, array in pairs]
        return found

    # The step

    def step(self, grads: GradientStore) -> None:
        """Drain what this optimizer owns and apply the rule to it, one kernel for each group.

        Raises MissingGradientError (DrainedGradientError if a step already used this store),
        GradientMismatchError, NonFiniteGradientError, BackendMismatchError for a group of which
        only a part was moved, ValueError if a schedule's value is out of range. Nothing has changed
        then.
        """
        if not self.segments:
            raise OwnershipError(f"{self} was released and owns nothing")
        self.poll()
        self._check_backends()
        found = {n: self._gradient(s, grads) for n, s in enumerate(self.segments)}
        gradients = {n: gradient for n, gradient in found.items() if gradient is not None}
        if not gradients:
            self._check_not_drained(grads)
        updater = self._updater or self._make_updater()
        outcome = updater.prepare(list(gradients), list(gradients.values()), self._scalars)
        if outcome.applied is False and self.nonfinite == "raise":
            raise self._error(outcome)
        with Uninterrupted():
            updater.commit()
            name = str(self)
            for number, gradient in gradients.items():
                arena = self.segments[number].arena
                if outcome.applied is not False:
                    arena.written()
                arena.drain(grads, gradient, name)
            self._pending.append(outcome)
            self.outcome = outcome
            self._learn()

    def _make_updater(self) -> Updater:
        """What applies the steps: the backend's own, or the host's if there are several."""
        sections = [segment.section() for segment in self.segments]
        counts = [segment.steps for segment in self.segments]
        backends = {id(section.backend): section.backend for section in sections}
        make = next(iter(backends.values())).updater if len(backends) == 1 else ImmediateUpdater
        self._updater = updater = make(self.kernel, sections, counts, self.nonfinite)
        own = weakref.ref(self)  # the updater must not keep its optimizer alive

        def heard() -> None:
            if (optimizer := own()) is not None:
                optimizer._learn()

        updater.heard = heard
        return updater

    def poll(self, wait: bool = False) -> None:
        """Hear what became of earlier steps; with `wait`, of all of them.

        NonFiniteGradientError, with the names, if one was refused and `nonfinite` is "raise".
        """
        if self._pending and self._updater is not None:
            self._updater.poll(wait)
            self._learn()

    def _learn(self) -> None:
        """Count the steps of which it is known what became of them."""
        pending = self._pending
        with self._learning:
            while pending and pending[0].applied is not None:
                outcome = pending.popleft()
                if outcome.applied:
                    self._steps += 1
                elif self.nonfinite == "raise":
                    pending.clear()
                    raise self._error(outcome)
                else:
                    self._skipped += 1
                    self._blamed = self._names(outcome)

    def _settle(self) -> None:
        """Wait until all is known, and let go of the updater: the next step makes a new one."""
        try:
            self.poll(wait=True)
        finally:
            updater, self._updater = self._updater, None
            if updater is not None:
                for segment, count in zip(self.segments, updater.counts, strict=True):
                    segment.steps = count

    def _check_not_drained(self, grads: GradientStore) -> None:
        """Refuse a store that has nothing more because it was used before.

        Optional parameters need no gradient, but one that was there and is gone is another matter.
        """
        for parameter in self.parameters:
            error = grads.missing(parameter)
            if isinstance(error, DrainedGradientError):
                raise error

    def _check_backends(self) -> None:
        """Refuse a group of which only a part was moved to another backend."""
        for first, second in pairwise(self.segments):
            if first.group is second.group and first.arena.backend is not second.arena.backend:
                check_one_backend(first.group)

    def _gradient(self, segment: Segment, grads: GradientStore) -> Array | None:
        """A segment's gradients as one array, checked; None for an optional one without."""
        arena = segment.arena
        if arena.holds(grads):
            return arena.gradients  # what lies in a parameter's own slot fits by its making
        for parameter in arena.parameters:
            if segment.group.optional and parameter not in grads:
                return None
            grads.check(parameter)
        return arena.collect(grads)

    def _scalars(self, number: int, t: int) -> tuple[float, ...]:
        """The kernel's scalars at step `t` of a segment, computed in float64."""
        hyper = self.segments[number].group.over(self.hyper)
        values = {name: at_step(name, value, t) for name, value in hyper.items()}
        scalars = {**values, **self.running.at(number, t, hyper), "t": t}
        kept = self._bound.get((number, t))  # a device is given those of many steps in advance
        if kept is not None and kept[0] == scalars:
            return kept[1]
        bound = self.kernel.bind(scalars)
        if not all(map(math.isfinite, bound)):
            raise ValueError(f"{self.kind}: the scalars of step {t} are not finite: {values}")
        if len(self._bound) >= _BOUND:
            self._bound.clear()
        self._bound[number, t] = scalars, bound
        return bound

    def _names(self, outcome: Outcome) -> tuple[str, ...]:
        """The parameters to blame for a step that was not applied."""
        bad = {self.segments[n].arena.parameters[at].id for n, at in outcome.blamed}
        return tuple(name for name, p in self.named_parameters() if p.id in bad)

    def _error(self, outcome: Outcome) -> NonFiniteGradientError:
        return NonFiniteGradientError(
            f"the gradients of {', '.join(map(repr, self._names(outcome)))} hold NaN or infinity, "
            'and nothing was updated from that step on; nonfinite="skip" would leave such a batch '
            "out"
        )

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state by parameter name: what `load_state_dict` needs to go on.

        Hyper-parameters are not part of it: they are the program's. ValueError if two parameters
        have one name: pass `Parameters({"generator.weight": ..., ...})`.
        """
        self._check_unique()
        self._settle()
        state, counts = self._host_state(), self._counts()
        return {
            "format": _FORMAT,
            "kind": self.kind,
            "steps": self._steps,
            "skipped": self._skipped,
            "parameters": {
                name: {
                    "shape": list(p.shape),
                    "dtype": str(p.dtype),
                    "steps": counts[p.id],
                    "state": state[p.id],
                }
                for name, p in self.named_parameters()
            },
        }

    def _check_unique(self) -> None:
        counted = Counter(name for name, _ in self.named_parameters())
        if repeated := [name for name, count in counted.items() if count > 1]:
            raise ValueError(
                f"{repeated[0]!r} is the name of several parameters, and a state is saved by name: "
                "pass Parameters({name: parameter, ...}) with different ones"
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, copied. All of it, or StateMismatchError and none of it.

        The error lists every difference in kind, names, shapes, dtypes and parts of the state.
        """
        self._check_unique()
        self._settle()
        if found := self._differences(state):
            raise StateMismatchError(
                f"this state does not fit the {self.kind}:\n  " + "\n  ".join(found)
            )
        entries = {p.id: state["parameters"][name] for name, p in self.named_parameters()}
        views = self._state_views()
        copies = [  # on the device before anything is written: an upload may fail
            (p.backend, p.backend.upload(np.asarray(entries[p.id]["state"][key])), view)
            for p in self.parameters
            for key, view in views[p.id].items()
        ]
        with Uninterrupted():
            for backend, array, view in copies:
                backend.copy(array, view)
            for segment in self.segments:
                segment.steps = entries[segment.arena.parameters[0].id]["steps"]
            self._steps, self._skipped = state["steps"], state["skipped"]

    def _differences(self, state: Mapping[str, Any]) -> list[str]:
        """Every way in which a saved state differs from what this optimizer would save."""
        found = differences(
            state, _FORMAT, self.kind, dict(self.named_parameters()), self.state_names
        )
        if not found:
            names = {p.id: name for name, p in self.named_parameters()}
            for segment in self.segments:
                together = [names[p.id] for p in segment.arena.parameters]
                found += uneven_steps(state["parameters"], together)
        return found


def _signature(
    rule: Callable[..., Any],
) -> tuple[tuple[str, ...], frozenset[str], dict[str, Hyper]]:
    """What a rule's parameters say: its state, its scalars but `t`, and their defaults."""
    parameters = list(inspect.signature(rule).parameters.values())
    positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    if positional[:2] != ["p", "g"]:
        raise TypeError(f"the rule {rule.__name__} must take p and g first, not {positional[:2]}")
    keyword = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "t"]
    defaults = checked({p.name: p.default for p in keyword if p.default is not p.empty})
    return tuple(positional[2:]), frozenset(p.name for p in keyword), defaults
