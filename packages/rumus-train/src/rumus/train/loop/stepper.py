"""`Stepper`: one training step, which counts as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

from rumus.optim import ClosureOptimizer, Optimizer
from rumus.optim.engine.closure import forward_backward, repeated
from rumus.optim.engine.optimizer import refuse_foreign
from rumus.optim.options.group import M_co
from rumus.tensor import Backend, GradientStore, Tensor
from rumus.tensor.expression.kinds import is_a
from rumus.tensor.graph.combination import Means
from rumus.tensor.graph.means import noting_means
from rumus.tensor.memory.recording import is_capturing
from rumus.tensor.memory.uninterrupted import Uninterrupted, displaced
from rumus.tensor.memory.updater import Outcome
from rumus.tensor.operations.draws import Draws, Moved
from rumus.train.base.calling import as_dict
from rumus.train.base.epoch_sum import LateWeight
from rumus.train.base.logged import Log, weighted
from rumus.train.base.losses import Losses
from rumus.train.base.scaling import scaling_of
from rumus.train.base.step_clock import StepClock, measured
from rumus.train.capture.captured_steps import CapturedSteps, LossFunction, beside
from rumus.train.capture.step_function import StepFunction
from rumus.train.loop.gradient_norm import norm_of
from rumus.train.loop.loss_state import LossState

if TYPE_CHECKING:
    from rumus.train.loop.undeclared import Undeclared
    from rumus.train.loop.undeclared_tensors import UndeclaredTensors

# A loss that was noted, and its weight in the epoch's mean.
Counted: TypeAlias = "tuple[Tensor, float | LateWeight]"
# The weight of a loss in the epoch's mean, derived from the means it was computed from.
Weigh: TypeAlias = "Callable[[Tensor, Means], float | Tensor]"


class Stepper(Generic[M_co]):
    """Runs the steps of one optimizer; the work of `Trainer.train_step`.

    optimizer: whose parameters are trained.
    capture: whether passes are captured where the backend can.
    """

    def __init__(self, optimizer: Optimizer[M_co], *, capture: bool) -> None:
        self.optimizer = optimizer
        self.captured = CapturedSteps() if capture else None
        self.losses = Losses()  # of the epoch's steps
        self.log: Log = {}  # of the last passes
        self.clock: StepClock | None = None
        self._loss_state = LossState()
        self._drawn: list[Moved] = []  # what drew in the last step
        self._draws = Draws()  # of the running step
        self.undeclared: Undeclared | None = None  # of the running `fit`, if it saves checkpoints
        self.undeclared_tensors: UndeclaredTensors | None = None  # if anything is to be restored
        self.notes_norm = False  # whether steps of several passes keep that of the first
        self.first_norm: Tensor | None = None  # of the gradients at the weights of the loss
        self.leaves_out: Callable[[Tensor], bool] | None = None  # called with each loss before it

    @property
    def backend(self) -> Backend | None:
        """The parameters' backend; None for a released optimizer."""
        named = self.optimizer.groups[0].named if self.optimizer.groups else []
        return named[0][1].backend if named else None

    @property
    def loss_scale(self) -> Tensor | None:
        """The unread factor of the next loss; None without a loss scale."""
        backend = self.backend
        return None if backend is None else self._scale_on(backend)

    def _scale_on(self, backend: Backend) -> Tensor | None:
        scaling = scaling_of(self.optimizer)
        return None if scaling is None else scaling.on(backend)

    def step(self, loss_fn: LossFunction, batch: Sequence[Any], weigh: Weigh) -> Tensor:
        """Run one step; return a copy of the loss.

        loss_fn: computes the loss of a batch, or a dict with it.
        batch: the arguments of `loss_fn`.
        weigh: returns the step's weight in the epoch's mean loss, once the loss exists.
        """
        with self.whole_step() as counted:
            return self._step(loss_fn, batch, weigh, counted)

    @contextmanager
    def whole_step(self) -> Iterator[list[Counted]]:
        """Let what belongs to the step in the block happen if the step does, and else not.

        Its loss, which the block puts into the list before the update, enters the epoch's mean; its
        random generators stay where they are, or are restored. So it is wherever a signal handler
        raises.
        """
        for moved in self._drawn:
            undecided = moved.undecided
            undecided.hear(wait=undecided.is_drawn_by_host)
        self._drawn = []
        draws, before = Draws(), self.optimizer.outcome
        counted: list[Counted] = []
        is_done = is_ended = False
        self._draws = draws

        def end() -> None:
            nonlocal is_ended
            if is_ended:
                return
            is_ended = True
            if is_done or self.optimizer.outcome is not before:
                self._follow(draws)
                for noted, weight in counted:
                    self._count(noted, weight)
            else:
                draws.take_back()

        try:
            try:
                yield from draws.watching(counted)
                is_done = True
            finally:
                with Uninterrupted():
                    end()
        except BaseException:
            with Uninterrupted():
                end()
            raise

    def _follow(self, draws: Draws) -> None:
        """Keep a step's random draws only if the step counts."""
        self._drawn = draws.kept
        if not draws.before:
            return
        outcome = self.optimizer.outcome
        if outcome.applied is False:
            draws.take_back()
        elif outcome.applied is None:
            draws.wait_for(outcome, self.optimizer.poll, self.optimizer.decision)

    def _step(
        self, loss_fn: LossFunction, batch: Sequence[Any], weigh: Weigh, counted: list[Counted]
    ) -> Tensor:
        """Run one step of the optimizer; return a copy of the loss."""
        optimizer: Any = self.optimizer
        if is_a(optimizer, ClosureOptimizer):
            return self._closure_step(optimizer, loss_fn, batch, weigh, counted)
        with noting_means() as means:
            loss, gradients = self.passes(loss_fn, batch)
        weight = self.losses.placed(weigh(loss, means))
        noted = self.losses.note(loss, self.log)
        counted.append((noted, weight))
        with gradients as grads:
            self.check_claimed(grads)
            self.update(grads, noted)
        return noted

    def _closure_step(
        self,
        optimizer: ClosureOptimizer[M_co],
        loss_fn: LossFunction,
        batch: Sequence[Any],
        weigh: Weigh,
        counted: list[Counted],
    ) -> Tensor:
        """Run a step that computes the loss several times; the first pass counts."""

        def passes() -> tuple[Tensor, GradientStore]:
            with noting_means() as means:
                loss, gradients = self.passes(loss_fn, batch)
            if self.notes_norm and not counted:
                self.first_norm = norm_of(optimizer, optimizer.gradients(gradients))
            if not counted:  # a copy: the next pass may be a replay of this one
                weight = self.losses.placed(weigh(loss, means))
                counted.append((self.losses.note(loss, weighted(self.log, 1.0)), weight))
            return loss, gradients

        with measured(self.clock, "update"):
            optimizer.step_with(repeated(passes))
        return counted[0][0]

    def passes(self, loss_fn: LossFunction, batch: Sequence[Any]) -> tuple[Tensor, GradientStore]:
        """Return the loss and its gradients. The next passes may overwrite the loss.

        loss_fn: computes the loss of a batch, or a dict with it.
        batch: the arguments of `loss_fn`.
        """
        named = as_dict(batch)
        called = StepFunction(loss_fn, None if named is None else tuple(named))
        if named is not None:
            batch = list(named.values())
        undeclared = self.undeclared
        if undeclared is not None:
            undeclared.before_passes()
        passes = partial(self._passes, called, batch)
        if undeclared is not None:
            passes = partial(undeclared.watched, passes)
        if self.clock is None:
            found = self._loss_state.watched(loss_fn, passes)
        else:
            with self.clock.measuring("passes"):
                found = passes()
        if undeclared is not None:
            undeclared.after_passes(self._draws, loss_fn)
        if self.undeclared_tensors is not None:
            self.undeclared_tensors.after_passes(found[1])
        self.log = called.log
        return found

    def _passes(self, loss_fn: StepFunction, batch: Sequence[Any]) -> tuple[Tensor, GradientStore]:
        backend = self.backend
        if not batch or backend is None:
            return forward_backward(loss_fn, batch, self.loss_scale)
        scale = self._scale_on(backend)
        if self.captured is not None and is_capturing(backend):
            return self.captured.run(backend, loss_fn, batch, scale)
        return forward_backward(loss_fn, [beside(value, backend) for value in batch], scale)

    def check_claimed(self, grads: GradientStore) -> None:
        """Raise for gradients of parameters that the optimizer does not own, before it steps.

        grads: the result of `backward`.
        """
        owned = 0
        for group in self.optimizer.groups:
            if group.optional:
                break
            owned += len(group.named)
        else:
            if len(grads) == owned:
                return  # if one is foreign then an own one is missing, and `step` says so
        refuse_foreign(grads, self.optimizer)

    def update(self, grads: GradientStore, loss: Tensor | None = None) -> None:
        """Let the optimizer step with these gradients. Raises the errors of `Optimizer.step`.

        grads: the result of `backward`.
        loss: of the step, which may cause it to be skipped: the gradients are then discarded, and
            nothing else happens.
        """
        if loss is not None and self.leaves_out is not None and self.leaves_out(loss):
            grads.take_updates()
            grads.drain(list(grads), f"{self.optimizer}, whose step was left out")
            self.optimizer.outcome = Outcome(False)
            return
        if self.clock is None:
            self.optimizer.step(grads)
        else:
            with self.clock.measuring("update"):
                self.optimizer.step(grads)

    def _count(self, noted: Tensor, weight: float | LateWeight) -> None:
        """Add the loss of the finished step to the epoch's mean, and end the step."""
        self.losses.count(noted, weight, self.optimizer.outcome)
        if noted.backend.runs_ahead and is_capturing(noted.backend):
            noted.backend.step_finished()

    @contextmanager
    def clocked(self, clock: StepClock | None) -> Iterator[None]:
        """Within the block, time the passes and the update of each step with this clock.

        clock: times the parts.
        """
        with displaced(self, "clock", clock):
            yield

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Within the block, losses have their own mean and steps are captured anew.

        Afterwards, losses and captured steps are those from before. Parameters are not restored.
        """
        steps = None if self.captured is None else CapturedSteps()
        with displaced(self, "losses", Losses()), displaced(self, "captured", steps):
            yield
