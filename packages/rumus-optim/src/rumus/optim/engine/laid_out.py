"""`LaidOutOptimizer`: parameters and state in arenas that can be moved, saved and loaded."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rumus.optim.engine.division import Division, indivisible
from rumus.optim.engine.evaluated import EvaluatedOptimizer
from rumus.optim.engine.footprint import Memory, Small, planned, used
from rumus.optim.engine.rule_state import RuleState
from rumus.optim.engine.saved_state import (
    FORMAT,
    check_unique,
    differences,
    entries,
    negative,
    prepared,
    uneven,
    warn_of_nan,
)
from rumus.optim.engine.segments import Segment, host_state, lay_out
from rumus.optim.engine.stage import Stage
from rumus.optim.options.group import Claimable, M_co, ParameterGroup, as_groups
from rumus.optim.options.other_names import STATE
from rumus.tensor import (
    Backend,
    Parameter,
    ParamId,
    StateMismatchError,
    float32,
)
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.uninterrupted import Uninterrupted


class LaidOutOptimizer(EvaluatedOptimizer[M_co]):
    """An optimizer whose parameters, and each part of their state, are in arenas.

    stages: which keep state in addition to the rule's `_state`. A subclass sets them before it lays
        anything out, and prepares to step new segments in `_take`.
    """

    stages: list[Stage]
    _state: RuleState

    @property
    @abstractmethod
    def kind(self) -> str:
        """The optimizer's name in a saved state."""

    @abstractmethod
    def _take(self, segments: list[Segment]) -> None:
        """Step these segments from now on."""

    # The state of parameters

    @property
    def packs(self) -> bool:
        """Whether large parameters have state in 8 bits."""
        return bool(self._state.codes(self.stages))

    def _check_precision(self, name: str, parameter: Parameter) -> None:
        if not any(stage.holds for stage in self.stages):
            super()._check_precision(name, parameter)

    # Arenas

    def _layout(self, places: Mapping[ParamId, Backend]) -> list[Segment]:
        """Lay out parameters and state in new arenas, each parameter on its backend in `places`."""
        return self._lay_out(self.groups, places, self._state)

    def _lay_out(
        self, groups: Sequence[ParameterGroup], places: Mapping[ParamId, Backend], state: RuleState
    ) -> list[Segment]:
        """Lay out groups whose rule has this state."""
        layout, codes = state.layout(self.stages), state.codes(self.stages)
        found = lay_out(groups, places, layout, codes, on_host=self._is_on_host)
        for segment in found:
            segment.add_numbers(state.numbers)
            segment.never_negative = state.never_negative
        return found

    def _laid_out(self, places: Mapping[ParamId, Backend]) -> list[Segment]:
        """New segments, with the stages' initial state."""
        segments = self._layout(places)
        for segment in segments:
            for stage in self.stages:
                segment.state |= self._part(stage, segment, segment.state)
                segment.add_numbers(stage.numbers, float32)
                segment.add_numbers_by_tensor(stage.by_tensor)
                stage.start(segment)
        return segments

    def _part(
        self, stage: Stage, segment: Segment, there: Collection[str] = ()
    ) -> dict[str, Array]:
        """New arrays for a stage in a segment, except for those that are there already."""
        dtypes = stage.state(segment.arena.dtype)
        return {name: segment.zeros(dtypes[name]) for name in dtypes if name not in there}

    @property
    def _is_on_host(self) -> bool:
        return any(stage.on_host for stage in self.stages)

    @property
    def bytes_on_host(self) -> int:
        """The bytes of state in host memory, if its device has its own memory."""
        there = [s for s in self.segments if s.on_host and s.arena.backend.runs_ahead]
        return sum(segment.bytes_on_host for segment in there)

    @checked_arguments
    def move(self, parameters: Sequence[Parameter], backend: Backend) -> None:
        """Move parameters and their state to another backend."""
        self._check_alone("move")
        self._check_training("moving to another backend")
        self._settle()
        is_followed = self._follow_assigned()
        before = host_state(self.segments)
        counts = {p.id: s.steps for s in self.segments for p in s.arena.parameters}
        division = self.segments[0].division if self.segments else None
        segments = self._laid_out({p.id: backend for p in parameters})
        for segment in segments:
            segment.steps = counts[segment.arena.parameters[0].id]
            segment.fill(before)
            if division is not None:
                segment.divide(division)
        with Uninterrupted():
            for segment in segments:
                segment.arena.adopt()
                if is_followed:
                    segment.fits()
            self._take(segments)

    def _follow_assigned(self) -> bool:
        """Let the stages' arrays follow assignments since the last step; return whether they do.

        They do not after a state was loaded, until the next step: its weights may still come.
        """
        if not all(segment.seen for segment in self.segments):
            return False
        if following := [stage for stage in self.stages if stage.follows]:
            for segment in self.segments:
                segment.follow(following)
        return True

    def divide(self, division: Division) -> None:
        """Keep only the state of a part of each arena, and step that part; see `Division`.

        The caller gathers the parameters after each step. TypeError for an optimizer whose update
        needs whole tensors, or whose state is already divided.
        """
        why = indivisible(self.segments)
        if any(segment.division is not None for segment in self.segments):
            why = "it is already divided"
        if why is not None:
            raise TypeError(f"the state of {self} cannot be divided: {why}")
        self._settle()
        self._follow_assigned()
        with Uninterrupted():
            for segment in self.segments:
                segment.divide(division)
            self._take(self.segments)

    def release(self) -> None:
        """Give up the parameters: another optimizer may claim them. They keep their values."""
        self._check_alone("release")
        self._check_training("release()")
        try:
            self._settle()
        finally:
            with Uninterrupted():
                for stage in self.stages:
                    stage.detach(self)
                for segment in self.segments:
                    segment.arena.release()
                self.segments = []
                super().release()

    # Its size

    def memory(self) -> Memory:
        """Return the bytes of its parameters, gradients and state, including gaps."""
        return used(self.segments)

    @classmethod
    def planned_memory(cls, parameters: Claimable[Any], *args: Any, **options: Any) -> Memory:
        """Return the `memory()` of an optimizer with these arguments, without making it.

        args, options: as for making one. Nothing is claimed, and no array of this size is
            allocated.

        >>> import numpy as np
        >>> from rumus.optim import AdamW
        >>> AdamW.planned_memory([Parameter(np.zeros((64, 10), np.float32))])
        Memory(parameters=2560, gradients=2560, state=5120)
        """
        probe = cls([Parameter(0.0, name="probe")], *args, **options)
        for group in as_groups(parameters):
            for name, parameter in group.trainable().named:
                probe._check_precision(name, parameter)
        small = Small.of(probe.stages)
        scratch = probe.segments[0].scratch
        axes = [len(array.shape) for name, array in scratch.items() if name not in small.scratch]
        shared = len(probe.segments[0].shared)
        probe.release()
        layout, codes = probe._state.layout(probe.stages), probe._state.codes(probe.stages)
        own = len(probe._state.numbers)
        return planned(parameters, layout, axes.count(1), axes.count(2), codes, shared, own, small)

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state by parameter name: what `load_state_dict` needs to continue.

        Hyperparameters are not part of it: they belong to the program. ValueError if two parameters
        have the same name: pass `Parameters({"generator.weight": ..., ...})`.
        """
        self.check_owning()
        self._check_training("state_dict()")
        check_unique(self.named_parameters())
        self._settle()
        self._follow_assigned()
        return {
            "format": FORMAT,
            "kind": self.kind,
            "steps": self._steps,
            "skipped": self._skipped,
            "parameters": entries(self.named_parameters(), self.segments),
        }

    @STATE.as_keywords
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a copy of a saved state: all of it, or StateMismatchError and none of it.

        The error lists every difference in kind, names, shapes, dtypes and parts of the state.
        """
        self.check_owning()
        self._check_training("load_state_dict()")
        check_unique(self.named_parameters())
        self._settle()
        if found := self.state_differences(state):
            raise StateMismatchError(
                f"this state does not fit the {self.kind}:\n  " + "\n  ".join(found)
            )
        saved = {p.id: state["parameters"][name] for name, p in self.named_parameters()}
        write = prepared(self.segments, saved)
        with Uninterrupted():
            write()
            self._set_counts(state["steps"], state["skipped"])
        warn_of_nan(state["parameters"])

    def state_differences(self, state: Mapping[str, Any]) -> list[str]:
        """Return all differences between a saved state and what this optimizer would save."""
        named = dict(self.named_parameters())
        parameters = [(s, n, p) for s in self.segments for n, p in enumerate(s.arena.parameters)]
        forms = {p.id: segment.forms(number) for segment, number, p in parameters}
        layouts = {number: {n: f[0] for n, f in own.items()} for number, own in forms.items()}
        shapes = {number: {n: f[1] for n, f in own.items()} for number, own in forms.items()}
        found = differences(self, state, self.kind, named, layouts, shapes)
        if not found:
            found = negative(state["parameters"], named, self.segments)
        return found or self._uneven(state["parameters"])

    def _uneven(self, saved: Mapping[str, Any]) -> list[str]:
        """The differences between saved values that parameters share here."""
        return uneven(saved, dict(self.named_parameters()), self.segments)
