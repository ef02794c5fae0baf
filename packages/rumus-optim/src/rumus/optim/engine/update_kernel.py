"""An update rule as a kernel."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rumus.optim.engine.coefficients import FACTOR, limited
from rumus.optim.engine.increment import compensated, increment
from rumus.optim.engine.loss_scale import UNSCALE
from rumus.optim.engine.precision import COMPENSATION, MASTER, ONE
from rumus.optim.options.clip import Clip
from rumus.optim.options.hyperparameter import Hyper, checked
from rumus.optim.rules import Rule
from rumus.tensor import Expr, Kernel
from rumus.tensor.expression.expr import postorder

AVERAGE: Final = "average"  # of the parameters, in the state
WEIGHT: Final = "average_weight"  # of the new parameters in it
POINT: Final = Kernel("average", {"p": Expr.array(AVERAGE)}, ("p", AVERAGE))


@dataclass(frozen=True, slots=True)
class Signature:
    """What the parameters of a rule say: its state, its scalars but `t`, and their defaults."""

    state: tuple[str, ...]
    scalars: frozenset[str]
    defaults: Mapping[str, Hyper]

    @classmethod
    def of(cls, rule: Rule, given: tuple[str, ...] = ()) -> Signature:
        """Return that of a rule. TypeError if it does not begin with p and g.

        given: arrays that it takes and that are no state.
        """
        parameters = list(inspect.signature(rule).parameters.values())
        positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        if positional[:2] != ["p", "g"]:
            raise TypeError(
                f"the rule {rule.__name__} must take p and g first, not {positional[:2]}"
            )
        keyword = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "t"]
        defaults = checked({p.name: p.default for p in keyword if p.default is not p.empty})
        state = tuple(name for name in positional[2:] if name not in given)
        return cls(state, frozenset(p.name for p in keyword), defaults)


@dataclass(frozen=True, slots=True)
class UpdateRule:
    """A rule with all that decides what kernel it becomes.

    state: its parts. known: the scalars that there will be. maximize: -g takes g's place. decays:
    g + weight_decay p does. given: arrays that the rule takes after its state, and only reads.
    clip: limits g before all that. averages: the average of p is updated, too. unscales: g is
    divided by the scale of the loss first of all.
    compensates: what rounding takes from an update is kept for the next one.
    """

    rule: Rule
    state: tuple[str, ...]
    known: frozenset[str]
    maximize: bool = False
    decays: bool = False
    given: tuple[str, ...] = ()
    compensates: bool = False
    clip: Clip | None = None
    averages: bool = False
    unscales: bool = False

    def kernel(
        self,
        *,
        has_master: bool = False,
        clips_by_array: bool = False,
        unscales_by_array: bool = False,
    ) -> Kernel:
        """Return the kernel that updates `p`, the state and what is kept beside it in place.

        clips_by_array, unscales_by_array: the factor of g lies in an array, not in a scalar.
        has_master: p is only the rounding of the true value, `MASTER`. TypeError for a rule that
        does not return exactly the new values of what it takes, or that cannot be compensated.
        """
        p = Expr.array(MASTER if has_master else "p")
        outputs = self._outputs(p, clips_by_array, unscales_by_array)
        added = [MASTER] if has_master else []
        added += [FACTOR] if clips_by_array else []
        added += [UNSCALE] if unscales_by_array else []
        if self.compensates:
            added.append(COMPENSATION)
            outputs["p"], outputs[COMPENSATION] = self._compensated(p, outputs["p"])
        if self.averages:
            average = Expr.array(AVERAGE)
            outputs[AVERAGE] = average + Expr.scalar(WEIGHT) * (outputs["p"] - average)
            added.append(AVERAGE)
        if has_master:
            outputs[MASTER] = outputs["p"]
        arrays = ("p", "g", *self.state, *self.given, *added)
        return Kernel(self.rule.__name__, outputs, arrays)

    def _gradient(self, p: Expr, clips_by_array: bool, unscales_by_array: bool) -> Expr:
        """What the rule gets as g."""
        g = Expr.array("g")
        if self.unscales:
            g = g * (Expr.array(UNSCALE) if unscales_by_array else Expr.scalar(UNSCALE))
        if self.clip is not None:
            g = limited(self.clip, g, clips_by_array)
        if self.maximize:
            g = -g
        return g + Expr.scalar("weight_decay") * p if self.decays else g

    def _outputs(self, p: Expr, *by_array: bool) -> dict[str, Expr]:
        g = self._gradient(p, *by_array)
        rule, state = self.rule, self.state
        there = {*self.known, "t"}
        names = inspect.signature(rule).parameters
        scalars = {name: Expr.scalar(name) for name in names if name in there}
        new: object = rule(p, g, *map(Expr.array, (*state, *self.given)), **scalars)
        if not isinstance(new, Mapping) or "p" not in new:
            raise TypeError(f"the rule {rule.__name__} must return {{'p': ..., ...}}")
        if unknown := set(new) - {"p", *state}:
            raise TypeError(f"the rule {rule.__name__} returns {unknown}, which it has not")
        if kept := set(state) - set(new):
            raise TypeError(f"the rule {rule.__name__} takes {kept} but returns no new value")
        return {name: Expr.of(value) for name, value in new.items()}

    def _compensated(self, p: Expr, new: Expr) -> tuple[Expr, Expr]:
        delta = increment(new, p)
        if delta is None:
            raise TypeError(
                f"compensated: the rule {self.rule.__name__} must return p plus or minus something "
                "(p may be multiplied by scalars), so that the update can be told from p"
            )
        return compensated(p, delta, Expr.array(COMPENSATION), Expr.scalar(ONE))


def squares(kernel: Kernel) -> frozenset[str]:
    """Return the parts of a rule's state that are made of squares of gradients.

    They are those whose new value has a product of two factors that depend on g, in a sum or a
    numerator: not under a root, where the size is that of g again.
    """
    depends: set[Expr] = set()
    for node in postorder(kernel.outputs.values()):
        is_g = node.operation == "array" and node.name == "g"
        if is_g or any(operand in depends for operand in node.operands):
            depends.add(node)
    return frozenset(name for name, new in kernel.outputs.items() if _has_square(new, depends))


def _has_square(new: Expr, depends: set[Expr]) -> bool:
    stack, seen = [new], {new}
    while stack:
        node = stack.pop()
        operands = node.operands
        if node.operation == "mul" and all(operand in depends for operand in operands):
            return True
        if node.operation in ("sqrt", "sign", "lt", "le", "eq"):
            continue
        parts = {"div": operands[:1], "where": operands[1:]}.get(node.operation, operands)
        stack += [part for part in parts if part not in seen]
        seen.update(parts)
    return False
