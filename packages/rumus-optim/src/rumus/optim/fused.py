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

    def arrays(self) -> list[Array]:
        """What a step writes: the values, then the state."""
        return [self.arena.values, *self.state.values()]

    def copies(self) -> list[Array]:
        """Return copies of what a step writes, for `restore`."""
        backend, found = self.arena.backend, []
        for array in self.arrays():
            kept = backend.allocate(array.shape, array.dtype)
            backend.copy(array, kept)
            found.append(kept)
        return found

    def restore(self, copies: Sequence[Array]) -> None:
        """Undo what was written since `copies` were made."""
        for kept, array in zip(copies, self.arrays(), strict=True):
            self.arena.backend.copy(kept, array)


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
        self.blamed: tuple[str, ...] = ()  # the parameters to blame for the last skipped step
        self.state_names, self.scalar_names, defaults = _signature(rule)
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

    def set(self, **hyper: Hyper | tuple[float, float]) -> None:
        """Change hyper-parameters from the next step on, where no group has its own.

        TypeError for one that the rule does not have, ValueError for a value out of range; none is
        changed then.
        """
        values = checked(hyper)
        self._check_known(values)
        new = {**self.hyper, **values}
        if self._decays(new) != self._decays(self.hyper):
            self.kernel = self._trace(new)
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
        scalars = {name: Expr.scalar(name) for name in inspect.signature(self.rule).parameters
                   if name in self.scalar_names or name == "t"}  # fmt: skip
        new: object = self.rule(p, g, *state, **scalars)
        if not isinstance(new, Mapping) or "p" not in new:
            raise TypeError(f"the rule {self.rule.__name__} must return {{'p': ..., ...}}")
        if unknown := set(new) - {"p", *self.state_names}:
            raise TypeError(f"the rule {self.rule.__name__} returns {unknown}, which it has not")
        if kept := set(self.state_names) - set(new):
            raise TypeError(f"the rule {self.rule.__name__} takes {kept} but returns no new value")
        outputs = {name: Expr.of(value) for name, value in new.items()}
        return Kernel(self.rule.__name__, outputs, ("p", "g", *self.state_names))

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
        if not ready:
            self._check_not_drained(grads)
        gradients = [segment.arena.collect(grads) for segment in ready]
        scalars = [self._scalars(segment) for segment in ready]
        drained = [p for segment in ready for p in segment.arena.parameters]
        if self.nonfinite != "propagate" and (bad := self._not_finite(ready, gradients)):
            self._refuse(bad, grads, drained)
            return
        with Uninterrupted():
            self._apply(list(zip(ready, gradients, scalars, strict=True)))
            for segment in ready:
                segment.arena.written()
                segment.steps += 1
            self.steps += 1
            grads.drain(drained, str(self))

    def _apply(self, work: Sequence[tuple[Segment, Array, tuple[float, ...]]]) -> None:
        """Run the kernel over every segment; should a backend raise, over none.

        A backend raises before it writes, so one segment needs no undoing. Of several all but the
        largest, which comes last, are copied before.
        """
        undo: list[tuple[Segment, list[Array]]] = []
        order = sorted(work, key=lambda item: item[0].arena.size)
        try:
            for segment, gradient, values in order:
                if segment is not order[-1][0]:
                    undo.append((segment, segment.copies()))
                arrays = [segment.arena.values, gradient, *segment.state.values()]
                by_name = dict(zip(self.kernel.arrays, arrays, strict=True))
                out = [by_name[name] for name in self.kernel.outputs]
                segment.arena.backend.elementwise(self.kernel, arrays, values, out)
        except BaseException:
            for segment, copies in undo:
                segment.restore(copies)
            raise

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
        with Uninterrupted():
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
                "pass Parameters({name: parameter, ...}) with different ones"
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, copied. All of it, or StateMismatchError and none of it.

        The error lists every difference in kind, names, shapes, dtypes and parts of the state.
        """
        self._check_unique()
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
            self.steps, self.skipped = state["steps"], state["skipped"]

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
