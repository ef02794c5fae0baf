"""`undone`: restores a trainer after a trial."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rumus.optim.engine.followed import FollowedOptimizer
from rumus.tensor.memory.uninterrupted import displaced, putting_back
from rumus.train.base.random_sources import Look, restore_program, states_of_program
from rumus.train.checkpoints.snapshot import parts_of_model, restore, take
from rumus.train.loop.undeclared_tensors import PUT_BACK, UndeclaredTensors

if TYPE_CHECKING:
    from rumus.train.loop.trainer import Trainer


@contextmanager
def undone(trainer: Trainer[Any], loader: Any = None) -> Iterator[None]:
    """Within the block anything may be trained; afterwards everything is restored.

    trainer: its parameters, optimizer, `state`, losses and captured steps are restored, and so are
        all random generators of the process. ValueError for a step that would move a buffer of a
        module that `state` does not name.
    loader: its position is restored if it has a `state_dict`.
    """
    optimizer: Any = trainer.optimizer
    owner = getattr(optimizer, "fused", optimizer)
    parts = parts_of_model(optimizer, trainer.state)
    if hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict"):
        parts["loader"] = loader
    before, of_program, drawing = take(parts), states_of_program(), Look(keeps_states=True)
    undeclared = UndeclaredTensors(trainer.state.values(), PUT_BACK)
    has_outcome = [each for each in (optimizer, owner) if "outcome" in vars(each)]
    told = [(each, "outcome", each.outcome) for each in has_outcome]
    if isinstance(owner, FollowedOptimizer):
        told.append((owner, "blamed", owner.blamed))

    def put_back() -> None:
        restore(parts, before, "the state before")
        drawing.put_back()
        restore_program(of_program)
        for thing, name, value in told:
            setattr(thing, name, value)

    watched = displaced(trainer.stepper, "undeclared_tensors", undeclared)
    with putting_back(put_back), trainer.stepper.apart(), watched:
        yield
