"""`Stage`: one thing that every step of an optimizer does besides its rule, in the same kernel.

An optimizer is a rule and a list of stages, in the order in which they act. Some change the
gradient before the rule sees it, others what comes of the step. A stage knows the arrays that it
keeps, the scalars that it uses, its part of the kernel and what must be computed before a step.
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
    """A step's part besides the rule. Every method here does nothing: a subclass says what it does.

    arrays: what its expressions read besides `p` and `g`; a segment need not have all of them.
    numbers, by_tensor: the parts of the state that are one float32 for all parameters, or for each.
    measured: scratch with one float32 for each parameter.
    holds: the array of those that holds the true values of the parameters, if p only rounds them.
    replaces: scalars of the rule that the rule gets as constants, since the stage uses them.
    follows: whether `follow` does something. wraps: what a saved state calls an optimizer with it.
    on_host: whether it has all state kept in the memory of the host.
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

    # Whose it is

    def attach(self, optimizer: EvaluatedOptimizer[Any]) -> None:
        """Serve an optimizer from now on, or raise what speaks against it."""

    def detach(self, optimizer: EvaluatedOptimizer[Any]) -> None:
        """Serve it no more: it gave up its parameters."""

    # Its arrays

    def state(self, dtype: DType) -> Mapping[str, DType]:
        """Return the arrays that it keeps for parameters of `dtype`, with their dtypes."""
        return {}

    def start(self, segment: Segment) -> None:
        """Give its arrays in a new segment's state the values that they start with, if not 0."""

    def follow(self, segment: Segment) -> None:
        """Have its arrays follow parameters that somebody else has changed."""

    def stored(self, layout: Mapping[str, DType], wide: Collection[str]) -> Mapping[str, DType]:
        """Return the dtypes in which the state of the rule is stored, from those it computes in.

        wide: the parts that are made of squares of gradients, or hold parameters as they were.
        """
        return layout

    def codes(self, names: Collection[str], squares: Collection[str]) -> Mapping[str, Code]:
        """Return the parts of the rule's state that large parameters keep in codes."""
        return {}

    def place(self, segments: Sequence[Segment], scaling: Scaling | None) -> None:
        """Give segments the scratch that its expressions read there.

        scaling: by what the gradients are scaled, if by anything.
        """

    # Its part of the kernel

    def gradient(self, g: Expr, p: Expr, there: Collection[str]) -> Expr:
        """Return what takes the gradient's place.

        p: the parameter. there: the arrays that a segment has; what is not in it is a scalar.
        """
        return g

    def result(self, p: Expr, g: Expr, new: Mapping[str, Expr], rule: str) -> Mapping[str, Expr]:
        """Return what the step writes: `new`, and its own arrays.

        p: the parameter before the step. g: the gradient as the rule sees it. new: what is written
        so far, by the names of the arrays. rule: what the rule is called. TypeError for one with
        which it cannot work.
        """
        return new

    def bounds(self) -> float:
        """Return the magnitude that no element of the gradient has after it, infinity if any."""
        return math.inf

    def beside(self) -> Sequence[Kernel]:
        """Return the kernels of the numbers that it keeps beside the step; see `Section.beside`."""
        return ()

    # Before each step

    def scalars(self, number: int, t: int) -> Mapping[str, float]:
        """Return the scalars that it uses at step `t` of a segment, given by its number."""
        return {}

    def prepare(self, gradients: Mapping[int, Array]) -> None:
        """Compute what the step reads. Nothing that lasts is written: it may be refused.

        gradients: flat, by the number of the segment.
        """

    def notes(self, layout: Mapping[str, DType]) -> Sequence[str]:
        """Return lines for a description of an optimizer whose state is laid out so."""
        return ()
