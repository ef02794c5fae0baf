"""`SteppedOptimizer`: one updater steps all segments, or none."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from rumus.optim.engine.gradients import collected, in_store
from rumus.optim.engine.laid_out import LaidOutOptimizer
from rumus.optim.engine.loss_scale import LossScale, Scaling
from rumus.optim.options.group import M_co
from rumus.optim.options.other_names import STEP
from rumus.tensor import Backend, GradientStore, Kernel, Parameter
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.uninterrupted import Uninterrupted
from rumus.tensor.memory.updater import ImmediateUpdater, Outcome, Updater


class SteppedOptimizer(LaidOutOptimizer[M_co]):
    """An optimizer whose step runs its segments' kernels.

    kernel: for segments without their own.
    """

    kernel: Kernel

    @abstractmethod
    def _check_scalable(self) -> None:
        """Refuse a loss scale where it would not be taken into account."""

    @abstractmethod
    def _scale_by(self, scaling: Scaling) -> None:
        """Divide gradients by this scale from now on."""

    @abstractmethod
    def _prepare(self, gradients: Mapping[int, Array]) -> None:
        """Compute what a step reads. Only scratch is written.

        gradients: flat, by segment number.
        """

    @abstractmethod
    def _scalars_at(self, number: int, steps: Iterable[int]) -> Iterator[tuple[float, ...]]:
        """Yield the scalars of a segment's kernels at these steps."""

    @abstractmethod
    def _follow(self, number: int) -> None:
        """Update the stages' arrays of a segment if others have changed its parameters."""

    def scale_losses(self, policy: LossScale) -> Scaling:
        """Expect gradients of losses that are multiplied by a scale; the update divides by it.

        The code that runs backward multiplies the loss, as `Trainer` does. A refused step is
        skipped and reduces the scale. With nonfinite="raise" it is an error if the scale is at its
        minimum; a GPU has continued by the time the host learns of it. Another call restarts with a
        new policy.

        ValueError for nonfinite="propagate", OwnershipError if this was released. A step raises
        ValueError if nobody has asked for the scale.

        >>> from rumus.optim import AdamW
        >>> from rumus.tensor import Parameter
        >>> w = Parameter([1.0], name="w")
        >>> optimizer = AdamW([w])
        >>> scaling = optimizer.scale_losses(LossScale(initial=8.0))
        >>> grads = (w * 3.0).sum().backward(scale=scaling.on(w.backend))
        >>> grads[w].tolist()
        [24.0]
        >>> optimizer.step(grads)
        """
        self._check_alone("scale_losses")
        self._check_training("scale_losses()")
        self._check_scalable()
        self._settle()
        if self.scaling is not None:
            self.scaling.restart(policy)
            return self.scaling
        scaling = Scaling(policy)
        with Uninterrupted():
            self._scale_by(scaling)
        return scaling

    def gradients(self, grads: GradientStore) -> list[tuple[Backend, Array, list[Parameter]]]:
        """Return the owned gradients: a whole arena where they lie in it, else one by one."""
        return in_store(self.segments, grads)

    @STEP.as_keywords
    def step(self, grads: GradientStore) -> None:
        """Drain what this optimizer owns and apply the rule to it, one kernel for each group.

        Raises MissingGradientError (DrainedGradientError if a step already used this store),
        GradientMismatchError, NonFiniteGradientError, BackendMismatchError for a partly moved
        group, ValueError if a schedule's value is out of range. Nothing has changed then.
        """
        gradients = self.collected(grads)
        self._prepare(gradients)
        updater = self._updater or self._make_updater()
        outcome = updater.prepare(list(gradients), list(gradients.values()), self._scalars_at)
        if outcome.applied is False and self._raises:
            raise self._error(outcome)
        with Uninterrupted():
            for number in gradients:
                self._follow(number)
            updater.commit()
            if self.scaling is not None and updater.applied is not None:
                self.scaling.decided(self.segments[0].arena.backend, updater.applied)
            self._write_updates(grads, outcome, updater)
            name = self._name
            for number, gradient in gradients.items():
                arena = self.segments[number].arena
                if outcome.applied is not False:
                    arena.written()
                arena.drain(grads, gradient, name)
            self._count(outcome)

    @cached_property
    def _name(self) -> str:
        """What a store says of who drained it."""
        return str(self)

    def _write_updates(self, grads: GradientStore, outcome: Outcome, updater: Updater) -> None:
        """Apply the forward pass's buffer updates if the step is applied."""
        if outcome.applied is False:
            grads.take_updates()
        else:
            grads.write_updates(updater.applied, self.segments[0].arena.backend)

    def collected(self, grads: GradientStore) -> dict[int, Array]:
        """Return the owned gradients, flat, by segment number, without missing optional ones.

        Raises the errors of `step` for gradients that do not fit. They stay in the store.
        """
        self.check_owning()
        self._check_alone("step")
        self._check_training("a step")
        if self.scaling is not None and self.scaling.is_unknown:
            raise ValueError(
                f"{self._name} divides gradients by the scale of scale_losses(), but no loss was "
                "multiplied by it: loss.backward(scale=scaling.on(backend))"
            )
        self.poll()
        found = collected(self.segments, grads)
        if self.scaling is not None and self.scaling.is_of_some(grads.scales):
            warn_user(
                f"{self._name} divides gradients by the scale of scale_losses(), but only some of "
                f"their {len(grads.scales)} losses were given it: write for each "
                "loss.backward(scale=scaling.on(backend))"
            )
        return found

    def _make_updater(self) -> Updater:
        """The updater: the backend's own, or the host's if there are several backends."""
        sections = [segment.section() for segment in self.segments]
        counts = [segment.steps for segment in self.segments]
        backends = {id(section.backend): section.backend for section in sections}
        make = next(iter(backends.values())).updater if len(backends) == 1 else ImmediateUpdater
        # A smaller scale may help, so a refused step must not make the device refuse later ones.
        nonfinite = self.nonfinite if self.scaling is None else "skip"
        updater = make(self.kernel, sections, counts, nonfinite)
        self._hear_from(updater)
        return updater
