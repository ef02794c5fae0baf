"""`Wrapper`: an optimizer around another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rumus.optim.engine.footprint import Memory
from rumus.optim.engine.optimizer import Optimizer
from rumus.optim.fused.averaging_optimizer import AveragingOptimizer
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.other_names import STATE, STEP
from rumus.tensor import Backend, GradientStore, Parameter
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.kinds import is_a
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.updater import NonFinite, Outcome


class Wrapper(Optimizer[M_co]):
    """Changes the steps of its base; everything else is delegated to the base.

    base: any fused optimizer but the averaging ones, or another wrapper of one. It still owns its
        parameters, which only it writes. Raises TypeError for another base, OwnershipError for one
        that was released.
    """

    def __init__(self, base: FusedOptimizer[M_co] | Wrapper[M_co]) -> None:
        fused = unwrapped(base)
        name = type(self).__name__
        if not isinstance(fused, FusedOptimizer):
            raise TypeError(
                f"{name}: base must be an optimizer, such as {name}(AdamW(model.parameters())), "
                f"not {shown(base)}"
            )
        if isinstance(fused, AveragingOptimizer):
            raise TypeError(f"{name} cannot wrap {fused}: its result is already an average")
        fused.check_owning()
        self.base = base
        self.fused: FusedOptimizer[M_co] = fused
        self.groups = fused.groups
        self.made_at = fused.made_at

    @property
    def kind(self) -> str:
        """Its name in saved states: that of the base."""
        return self.base.kind

    @property
    def steps(self) -> int:
        """The number of applied steps."""
        return self.fused.steps

    @steps.setter
    def steps(self, value: int) -> None:
        self.fused.steps = value

    @property
    def skipped(self) -> int:
        """The number of steps skipped because of a non-finite gradient."""
        return self.fused.skipped

    @skipped.setter
    def skipped(self, value: int) -> None:
        self.fused.skipped = value

    @property
    def outcome(self) -> Outcome:
        """The outcome of the last step; the base's, since a signal may arrive right after it."""
        return self.fused.outcome

    @outcome.setter
    def outcome(self, value: Outcome) -> None:
        self.fused.outcome = value

    @property
    def decision(self) -> tuple[Backend, Array] | None:
        """Where a device decides about steps: the base's."""
        return self.fused.decision

    @property
    def nonfinite(self) -> NonFinite:
        """The handling of non-finite gradients: the base's."""
        return self.fused.nonfinite

    @property
    def blamed(self) -> tuple[str, ...]:
        """The parameters that caused the last skipped step."""
        return self.fused.blamed

    @STEP.as_keywords
    def step(self, grads: GradientStore) -> None:
        """Run a step of the base; see `FusedOptimizer.step`."""
        self.base.step(grads)

    def gradients(self, grads: GradientStore) -> list[tuple[Backend, Array, list[Parameter]]]:
        """Return the owned gradients; see `Optimizer.gradients`."""
        return self.fused.gradients(grads)

    @checked_arguments
    def set(self, **hyper: Hyper | tuple[float, ...]) -> None:
        """Change hyperparameters of the base."""
        self.fused.set(**hyper)

    def poll(self, wait: bool = False) -> None:
        """Read the outcomes of earlier steps; see `Optimizer.poll`."""
        self.fused.poll(wait)

    def release(self) -> None:
        """Release the base's parameters."""
        self.fused.release()
        self.groups = self.fused.groups

    def move(self, parameters: Sequence[Parameter], backend: Backend) -> None:
        """Move the base's parameters, with their state."""
        self.fused.move(parameters, backend)

    def describe(self) -> str:
        """Return the table of the base, with its wrappers."""
        return f"{self}\n{self.base.describe()}"

    def memory(self) -> Memory:
        """Return the bytes held between steps."""
        return self.fused.memory()

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state by parameter name; see `FusedOptimizer.state_dict`."""
        return self.fused.state_dict()

    @STATE.as_keywords
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state; see `FusedOptimizer.load_state_dict`."""
        self.fused.load_state_dict(state)


def unwrapped(optimizer: Optimizer[M_co]) -> Optimizer[M_co]:
    """Return the optimizer inside all wrappers, which owns the parameters; itself without any."""
    found: Any = optimizer
    return found.fused if is_a(found, Wrapper) else found  # type: ignore[no-any-return]
