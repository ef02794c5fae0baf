"""`FusedOptimizer`: an update rule, run as one kernel over flat memory.

The parameters of a group lie side by side in an arena, and so do their gradients and each part of
the state. One step is one kernel for each group, however many parameters it has.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np

from rumus.optim.group import Claimable, M_co, ParameterGroup
from rumus.optim.hyperparameter import Hyper, at_step, checked
from rumus.optim.optimizer import Optimizer, check_one_backend
from rumus.optim.rules import Rule
from rumus.optim.uninterrupted import Uninterrupted
from rumus.tensor import (
    Arena,
    Backend,
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
from rumus.tensor.backend import Array

NonFinite = Literal["raise", "skip", "propagate"]
_FORMAT: Final = 1


@dataclass(slots=True, eq=False)
class Segment:
    """An arena with the state of its parameters, stepped by one kernel."""

    arena: Arena
    state: dict[str, Array]  # flat, by name
    group: ParameterGroup
    steps: int  # how many were applied to it: those of the optimizer, unless it is optional


class FusedOptimizer(Optimizer[M_co]):
    """Any rule as an optimizer; SGD, Adam and AdamW are this with a name.

    parameters: see `Optimizer`. rule: a function of `p`, `g`, the state, and scalars keyword-only,
    that returns new values (see `rumus.optim.rules`). The state starts at 0.
    lr, hyper: the rule's scalars: numbers, or functions of the step. They may be changed with
    `set`, and a group may have its own.
    weight_decay: for a rule without a scalar of that name: g + weight_decay p takes g's place.
    maximize: go up instead of down: -g takes g's place.
    nonfinite: what a NaN or infinity among the gradients does. "raise": NonFiniteGradientError,
    with the names, and nothing has changed. "skip": the gradients are drained and nothing else
    happens; `skipped` counts it and `blamed` has the names. "propagate": nobody looks.

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
        **hyper: Hyper | tuple[float, float],
    ) -> None:
        if nonfinite not in ("raise", "skip", "propagate"):
            raise ValueError(f'nonfinite must be "raise", "skip" or "propagate", not {nonfinite!r}')
        self.rule = rule
        self.maximize = maximize
        self.nonfinite = nonfinite
        self.skipped = 0  # how many steps were not applied because of a gradient
        self.blamed: tuple[str, ...] = ()  # the parameters to blame for the last of them
        self.state_names, self.scalar_names, defaults = _signature(rule)
        self.hyper = {**defaults, **checked({"lr": lr, **hyper})}
        super().__init__(parameters)
        try:
            self._check_names()
            self.kernel = self._trace()
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

    def set(self, **hyper: Hyper | tuple[float, float]) -> None:
        """Change hyper-parameters from the next step on, where no group has its own.

        TypeError for one that the rule does not have, ValueError for a value out of range; none is
        changed then.
        """
        values = checked(hyper)
        self._check_known(values)
        self.hyper.update(values)

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

    def _trace(self) -> Kernel:
        """The rule as a kernel, with the gradient that `maximize` and `weight_decay` make."""
        p, g = Expr.array("p"), Expr.array("g")
        if self.maximize:
            g = -g
        given = (self.hyper, *(group.hyper for group in self.groups))
        decays = any(hyper.get("weight_decay", 0.0) != 0.0 for hyper in given)
        if decays and "weight_decay" not in self.scalar_names:
            g = g + Expr.scalar("weight_decay") * p
        state = map(Expr.array, self.state_names)
        scalars = {name: Expr.scalar(name) for name in inspect.signature(self.rule).parameters
                   if name in self.scalar_names or name == "t"}  # fmt: skip
        new: object = self.rule(p, g, *state, **scalars)
        if not isinstance(new, Mapping) or "p" not in new:
            raise TypeError(f"the rule {self.rule.__name__} must return {{'p': ..., ...}}")
        if unknown := set(new) - {"p", *self.state_names}:
            raise TypeError(f"the rule {self.rule.__name__} returns {unknown}, which it has not")
        return Kernel(self.rule.__name__, new, ("p", "g", *self.state_names))

    # Memory

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
                arena = Arena(parameters, dtype, backends[place])
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

    def move(self, parameters: Sequence[Parameter], backend: Backend) -> None:
        """Take parameters, with their state, to another backend."""
        before, counts = self._state_views(), self._counts()
        places = {p.id: backend for p in parameters}
        segments = self._layout(self.groups, places)
        for segment in segments:
            segment.steps = counts[segment.arena.parameters[0].id]
            for name, flat in segment.state.items():
                views = segment.arena.views(flat)
                for parameter, view in zip(segment.arena.parameters, views, strict=True):
                    old, here = before[parameter.id][name], segment.arena.backend
                    if here is not parameter.backend:
                        old = here.upload(parameter.backend.download(old))
                    here.copy(old, view)
        for segment in segments:
            segment.arena.adopt()
        self.segments = segments

    def _counts(self) -> dict[int, int]:
        return {p.id: s.steps for s in self.segments for p in s.arena.parameters}

    def release(self) -> None:
        """Give up the parameters: another optimizer may claim them. They keep their values."""
        for segment in getattr(self, "segments", []):
            segment.arena.release()
        self.segments = []
        super().release()

    def gradients(self, grads: GradientStore) -> list[tuple[Backend, Array, list[Parameter]]]:
        """Return the owned gradients: a whole arena where they lie in it, else one by one."""
        found = []
        for segment in self.segments:
            arena = segment.arena
            present = [p for p in arena.parameters if not segment.group.optional or p in grads]
            arrays = [grads.array(p) for p in present]
            if present and arena.holds(arrays):
                found.append((arena.backend, arena.gradients, present))
            else:
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
        self._check_backends()
        ready = [segment for segment in self.segments if self._is_ready(segment, grads)]
        gradients = [segment.arena.collect(grads) for segment in ready]
        scalars = [self._scalars(segment) for segment in ready]
        drained = [p for segment in ready for p in segment.arena.parameters]
        if self.nonfinite != "propagate" and (bad := self._not_finite(ready, gradients)):
            self._refuse(bad, grads, drained)
            return
        with Uninterrupted():
            for segment, gradient, values in zip(ready, gradients, scalars, strict=True):
                arena = segment.arena
                arrays = [arena.values, gradient, *segment.state.values()]
                by_name = dict(zip(self.kernel.arrays, arrays, strict=True))
                out = [by_name[name] for name in self.kernel.outputs]
                arena.backend.elementwise(self.kernel, arrays, values, out)
                arena.written()
                segment.steps += 1
            self.steps += 1
            grads.drain(drained, str(self))

    def _check_backends(self) -> None:
        """Refuse a group of which only a part was moved to another backend."""
        for first, second in pairwise(self.segments):
            if first.group is second.group and first.arena.backend is not second.arena.backend:
                check_one_backend(first.group)

    def _is_ready(self, segment: Segment, grads: GradientStore) -> bool:
        """Whether a segment's gradients are there and fit; False for an optional one without."""
        for parameter in segment.arena.parameters:
            if segment.group.optional and parameter not in grads:
                return False
            slot = parameter._slot
            if slot is None or grads.array(parameter) is not slot.gradient:
                grads.check(parameter)  # a gradient in the parameter's own slot fits by its making
        return True

    def _scalars(self, segment: Segment) -> tuple[float, ...]:
        """The kernel's scalars at the segment's next step, computed in float64."""
        t = segment.steps + 1
        hyper = {**self.hyper, **segment.group.hyper}
        values = {name: at_step(name, value, t) for name, value in hyper.items()}
        bound = self.kernel.bind({**values, "t": t})
        if not all(map(math.isfinite, bound)):
            raise ValueError(f"{self.kind}: the scalars of step {t} are not finite: {values}")
        return bound

    def _not_finite(self, segments: Sequence[Segment], gradients: Sequence[Array]) -> list[str]:
        """The names of the parameters whose gradient holds NaN or infinity."""
        bad: set[int] = set()
        for segment, flat in zip(segments, gradients, strict=True):
            backend = segment.arena.backend
            if backend.first_not_finite(flat) is None:
                continue
            views = segment.arena.views(flat)
            for parameter, view in zip(segment.arena.parameters, views, strict=True):
                if backend.first_not_finite(view) is not None:
                    bad.add(parameter.id)
        return [name for name, parameter in self.named_parameters() if parameter.id in bad]

    def _refuse(self, bad: list[str], grads: GradientStore, drained: Sequence[Parameter]) -> None:
        if self.nonfinite == "raise":
            raise NonFiniteGradientError(
                f"the gradients of {', '.join(map(repr, bad))} hold NaN or infinity, and nothing "
                'was updated; nonfinite="skip" would leave such a batch out'
            )
        grads.drain(drained, str(self))
        self.skipped += 1
        self.blamed = tuple(bad)

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state by parameter name: what `load_state_dict` needs to go on.

        Hyper-parameters are not part of it: they are the program's. ValueError if two parameters
        have one name: pass `Parameters({"generator.weight": ..., ...})`.
        """
        self._check_unique()
        views, counts = self._state_views(), self._counts()
        return {
            "format": _FORMAT,
            "kind": self.kind,
            "steps": self.steps,
            "skipped": self.skipped,
            "parameters": {
                name: {
                    "shape": list(p.shape),
                    "dtype": str(p.dtype),
                    "steps": counts[p.id],
                    "state": {key: p.backend.download(v) for key, v in views[p.id].items()},
                }
                for name, p in self.named_parameters()
            },
        }

    def _check_unique(self) -> None:
        counted = Counter(name for name, _ in self.named_parameters())
        if repeated := [name for name, count in counted.items() if count > 1]:
            raise ValueError(
                f"{repeated[0]!r} is the name of several parameters, and a state is saved by name: "
                " pass Parameters({name: parameter, ...}) with different ones"
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, copied. All of it, or StateMismatchError and none of it.

        The error lists every difference in kind, names, shapes, dtypes and parts of the state.
        """
        self._check_unique()
        if differences := self._differences(state):
            raise StateMismatchError(
                f"this state does not fit the {self.kind}:\n  " + "\n  ".join(differences)
            )
        saved = state["parameters"]
        views, names = self._state_views(), {p.id: name for name, p in self.named_parameters()}
        for segment in self.segments:
            for parameter in segment.arena.parameters:
                entry = saved[names[parameter.id]]
                segment.steps = int(entry["steps"])
                for key, view in views[parameter.id].items():
                    backend = segment.arena.backend
                    backend.copy(backend.upload(np.asarray(entry["state"][key])), view)
        self.steps, self.skipped = int(state["steps"]), int(state["skipped"])

    def _differences(self, state: Mapping[str, Any]) -> list[str]:
        """Every way in which a saved state differs from what this optimizer would save."""
        found: list[str] = []
        if missing := {"format", "kind", "steps", "skipped", "parameters"} - set(state):
            return [f"it lacks {', '.join(sorted(missing))}: is it an optimizer's state?"]
        for what, saved, mine in (
            ("format", state["format"], _FORMAT),
            ("kind", state["kind"], self.kind),
        ):
            if saved != mine:
                found.append(f"{what}: saved {saved}, here {mine}")
        entries, here = dict(state["parameters"]), dict(self.named_parameters())
        found += [f"{name!r}: saved, not here" for name in entries if name not in here]
        for name, parameter in here.items():
            if name not in entries:
                found.append(f"{name!r}: here, not saved")
            else:
                found += _entry_differences(name, entries[name], parameter, self.state_names)
        return found


def _entry_differences(
    name: str, entry: Mapping[str, Any], parameter: Parameter, keys: Sequence[str]
) -> list[str]:
    """Every way in which the saved state of one parameter does not fit it."""
    found = []
    if tuple(entry["shape"]) != parameter.shape:
        found.append(f"{name!r}: saved shape {tuple(entry['shape'])}, here {parameter.shape}")
    if entry["dtype"] != str(parameter.dtype):
        found.append(f"{name!r}: saved dtype {entry['dtype']}, here {parameter.dtype}")
    if set(entry["state"]) != set(keys):
        found.append(f"{name!r}: saved state {sorted(entry['state'])}, here {sorted(keys)}")
    for key, value in entry["state"].items():
        array = np.asarray(value)
        if array.shape != tuple(entry["shape"]) or str(array.dtype) != entry["dtype"]:
            found.append(f"{name!r}: state {key!r} is {array.dtype} of shape {array.shape}")
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
