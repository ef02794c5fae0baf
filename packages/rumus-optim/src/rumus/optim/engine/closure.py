"""`ClosureOptimizer`: an optimizer that needs the loss at several points per step.

Since there is no `.grad` for a closure to fill, it only returns the loss; the optimizer runs
backward, drains the gradients, and moves the parameters in between.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

from rumus.optim.engine.optimizer import Optimizer
from rumus.optim.options.group import M_co
from rumus.optim.options.other_names import MINIMIZE, STEP
from rumus.tensor import ClosureNeededError, GradientStore, Tensor
from rumus.tensor.expression.arguments import is_told
from rumus.tensor.expression.called_attribute import note_called_attribute
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.graph.assignment import within_pass
from rumus.tensor.graph.buffer_update import take_loose
from rumus.tensor.operations.draws import Draws

# Computes the loss at the current parameters, without its graph, and its gradients.
Evaluate: TypeAlias = Callable[[], tuple[Tensor, GradientStore]]


class ClosureOptimizer(Optimizer[M_co]):
    """An optimizer whose step needs the loss and its gradients more than once.

    A subclass defines `step_with`.
    """

    @MINIMIZE.as_keywords
    def minimize_step(self, closure: Callable[[], Tensor]) -> Tensor:
        """Do one step; return the loss before it, without its graph.

        closure: takes no arguments and returns the loss as a scalar tensor. It is called several
            times, with the parameters at different points, and must compute the same function each
            time, on the same batch. Random numbers of a `Generator`, such as dropout masks, are the
            same at each call.

        TypeError if it returns no tensor, UnclaimedGradientError if the loss depends on parameters
        that this does not own, and the errors of `Optimizer.step`. After any error, including one
        from `closure`, parameters and state are bit for bit unchanged.
        """
        return self.step_with(repeated(lambda: forward_backward(closure, ())))

    @abstractmethod
    def step_with(self, evaluate: Evaluate) -> Tensor:
        """Like `minimize_step`, but the gradients come with the loss.

        evaluate: returns the loss at the current parameters, and a store, which is drained.
        """

    @STEP.as_keywords
    def step(self, grads: GradientStore) -> NoReturn:
        """Raise ClosureNeededError: the gradients at one point are not enough.

        grads: what `backward` returned.
        """
        name = type(self).__name__
        raise ClosureNeededError(
            f"{self}: {name} needs the loss at several points per step, not gradients at one: "
            f"call minimize_step(closure) with a function that returns the loss, or "
            "Trainer.train_step; nothing was drained"
        )


def repeated(evaluate: Evaluate) -> Evaluate:
    """Return `evaluate`, with the same random numbers at each call of one step.

    Afterwards the generators have advanced once, however often it was called.
    """
    draws = Draws()

    def again() -> tuple[Tensor, GradientStore]:
        draws.take_back()
        with draws.watched():
            return evaluate()

    return again


def _note_arguments(error: Exception, arguments: Sequence[Any]) -> None:
    """Add what a function was called with to an error of its own, not of what it calls."""
    note_called_attribute(error)
    depth, trace = 0, error.__traceback__
    while trace is not None:  # of frames outside of this library
        depth += not trace.tb_frame.f_globals.get("__name__", "").startswith("rumus.")
        trace = trace.tb_next
    if arguments and depth <= 1 and not is_told(error):
        given = ", ".join(
            f"{each.dtype}{list(each.shape)}" if isinstance(each, Tensor) else shown(each)
            for each in arguments
        )
        error.add_note(f"the loss function is called with the fields of a batch, here ({given})")


def forward_backward(
    loss_fn: Callable[..., Tensor], arguments: Sequence[Any], scale: Tensor | None = None
) -> tuple[Tensor, GradientStore]:
    """Return the loss, without its graph, and its gradients. TypeError if it is not a tensor.

    scale: multiplies the gradients; see `Tensor.backward`.
    """
    take_loose()  # leftovers of earlier passes belong to no step
    try:
        loss = within_pass(lambda: loss_fn(*arguments))
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        _note_arguments(error, arguments)
        raise
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"the loss function must return the loss as a tensor, not {type(loss).__name__}: "
            + (
                "in a Trainer, {'loss': loss, 'name': number} returns more"
                if isinstance(loss, tuple)
                else "a number has no graph to run backward through"
            )
        )
    return loss.detach(), loss.backward(scale=scale)
