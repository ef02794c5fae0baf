"""`Stage`: an addition to an optimizer's rule that runs in the same kernel.

An optimizer is a rule and a list of stages, in the order in which they act. Some change the
gradient before the rule sees it, others the result of the step. A stage knows the arrays it keeps,
the scalars it uses, its part of the kernel and what must be computed before a step.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from rumus.tensor import DType, Expr, Kernel
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.quantization import Code

if TYPE_CHECKING:
    from rumus.optim.engine.evaluated import EvaluatedOptimizer
    from rumus.optim.engine.loss_scale import Scaling
    from rumus.optim.engine.segments import Segment


class Stage:
    """An addition to the rule. The methods here do nothing; subclasses override what they need.

    arrays: the arrays that its expressions read in addition to `p` and `g`; a segment need not have
    all of them. numbers, by_tensor: its state parts that are one float32 for all parameters, or for
    each. measured: its scratch with one float32 per parameter.
    holds: which array has the parameters' true values, if p only rounds them.
    replaces: scalars that the rule gets as constants, because the stage applies them instead.
    follows: whether `follow` does something. wraps: its name in the kind of a saved state.
    on_host: whether it keeps all state in host memory.
    """

    arrays: ClassVar[Collection[str]] = ()
    numbers: ClassVar[Sequence[str]] = ()
    by_tensor: ClassVar[Sequence[str]] = ()
    measured: ClassVar[Sequence[str]] = ()
    holds: ClassVar[str | None] = None
    replaces: ClassVar[Mapping[str, float]] = {}
    follows: ClassVar[bool] = False
    wraps: ClassVar[str] = ""
    on_host: ClassVar[bool] = False

    # Its optimizer

    def attach(self, optimizer: EvaluatedOptimizer[Any]) -> None:
        """Attach to an optimizer, or raise if the two do not work together."""

    def detach(self, optimizer: EvaluatedOptimizer[Any]) -> None:
        """Detach from an optimizer that gave up its parameters."""

    # Its arrays

    def state(self, dtype: DType) -> Mapping[str, DType]:
        """Return the dtypes of the arrays that it keeps for parameters of `dtype`, by name."""
        return {}

    def start(self, segment: Segment) -> None:
        """Initialize its arrays in a new segment's state, if not to 0."""

    def follow(self, segment: Segment, assigned: Sequence[int]) -> None:
        """Update its arrays after others have changed the parameters.

        assigned: the numbers of those that were changed. Empty after a state was loaded: it belongs
        to the weights that are loaded before or after it.
        """

    def stored(self, layout: Mapping[str, DType], wide: Collection[str]) -> Mapping[str, DType]:
        """Return the dtypes in which the rule's state is stored, given those it computes in.

        wide: the parts computed from squares of gradients, or holding earlier parameter values.
        """
        return layout

    def codes(self, names: Collection[str], squares: Collection[str]) -> Mapping[str, Code]:
        """Return the parts of the rule's state that large parameters keep in codes."""
        return {}

    def place(self, segments: Sequence[Segment], scaling: Scaling | None) -> None:
        """Allocate the scratch in segments that its expressions read.

        scaling: the loss scale, if there is one.
        """

    # Its part of the kernel

    def gradient(self, g: Expr, p: Expr, there: Collection[str]) -> Expr:
        """Return the expression that replaces the gradient.

        p: the parameter. there: the arrays that a segment has; the others are scalars.
        """
        return g

    def result(self, p: Expr, g: Expr, new: Mapping[str, Expr], rule: str) -> Mapping[str, Expr]:
        """Return what the step writes: `new`, and its own arrays.

        p: the parameter before the step. g: the gradient as the rule sees it. new: the values
        written so far, by array name. rule: its name. TypeError for a rule that it cannot work
        with.
        """
        return new

    def bounds(self) -> float:
        """Return an upper bound for the magnitude of its gradient's elements, or infinity."""
        return math.inf

    def beside(self) -> Sequence[Kernel]:
        """Return the kernels that update its numbers; see `Section.beside`."""
        return ()

    # Before each step

    def scalars(self, number: int, t: int) -> Mapping[str, float]:
        """Return the scalars that it uses at step `t` of segment `number`."""
        return {}

    def prepare(self, gradients: Mapping[int, Array]) -> None:
        """Compute what the step reads. Only scratch is written, since the step may be refused.

        gradients: flat, by segment number.
        """

    def notes(self, layout: Mapping[str, DType]) -> Sequence[str]:
        """Return lines for the description of an optimizer with this state layout."""
        return ()
