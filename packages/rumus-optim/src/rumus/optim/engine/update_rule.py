"""`UpdateRule`: a rule, and the kernel that it forms with an optimizer's stages."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rumus.optim.engine.reductions import Reductions
from rumus.optim.engine.stage import Stage
from rumus.optim.options.hyperparameter import COMMON, Hyper, Ranges, checked
from rumus.tensor import Expr, Kernel
from rumus.tensor.expression.expr import postorder
from rumus.tensor.memory.section import Numbers

if TYPE_CHECKING:
    from rumus.optim.rules import Rule


@dataclass(frozen=True, slots=True)
class Signature:
    """A rule's state, its scalars except `t`, and their defaults, read from its parameters."""

    state: tuple[str, ...]
    scalars: frozenset[str]
    defaults: Mapping[str, Hyper]

    @classmethod
    def of(cls, rule: Rule, given: tuple[str, ...] = (), ranges: Ranges = COMMON) -> Signature:
        """Return a rule's signature. TypeError if its first parameters are not p and g.

        given: arrays that it takes but that are not state. ranges: the allowed ranges of its
        defaults.
        """
        parameters = list(inspect.signature(rule).parameters.values())
        positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        if positional[:2] != ["p", "g"]:
            raise TypeError(
                f"the rule {rule.__name__} must take p and g first, not {positional[:2]}"
            )
        keyword = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "t"]
        defaults = checked({p.name: p.default for p in keyword if p.default is not p.empty}, ranges)
        state = tuple(name for name in positional[2:] if name not in given)
        return cls(state, frozenset(p.name for p in keyword), defaults)


@dataclass(frozen=True, slots=True)
class UpdateRule:
    """A rule, and the names of what it takes.

    state: the parts of its state. known: the scalars that every step provides. given: read-only
    arrays that the rule takes after its state.
    """

    rule: Rule
    state: tuple[str, ...]
    known: frozenset[str]
    given: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The rule's name."""
        return self.rule.__name__

    def numbers(self, found: Reductions) -> Numbers | None:
        """Return the state parts that are one number for all, and the kernel that updates them.

        found: the result of `reduced`.
        """
        if not found.numbers:
            return None
        kernel = Kernel(f"{self.name}_numbers", found.numbers, (*found.numbers, *found.of_all))
        return Numbers(frozenset(found.numbers), kernel)

    def kernel(self, stages: Sequence[Stage] = (), there: Collection[str] = ()) -> Kernel:
        """Return the kernel that updates `p`, the state and the stages' arrays in place.

        there: the stage arrays that a segment has. TypeError for a rule that does not return
        exactly the new values of what it takes, or that a stage cannot work with.
        """
        found = self.reduced(stages, there)
        own = [name for stage in stages for name in stage.arrays if name in there]
        wrapping = "".join(f"{stage.wraps.lower()}_" for stage in stages if stage.wraps)
        arrays = ("p", "g", *self.state, *self.given, *own, *found.arrays)
        return Kernel(wrapping + self.name, found.new, arrays)

    def reduced(self, stages: Sequence[Stage], there: Collection[str]) -> Reductions:
        """Return what a step writes, and what must be measured first; see `kernel`."""
        value, (p, g) = _values(stages, there), seen(stages, there)
        new: Mapping[str, Expr] = self._traced(p, g, stages)
        for stage in stages:
            new = stage.result(p, g, new, self.name)
        return Reductions.of(new if value == "p" else {**new, value: new["p"]}, self.name)

    def _traced(self, p: Expr, g: Expr, stages: Sequence[Stage]) -> dict[str, Expr]:
        """The rule's result, checked."""
        rule, state = self.rule, self.state
        replaced = {name: value for stage in stages for name, value in stage.replaces.items()}
        there = {*self.known, "t"}
        scalars = {
            name: Expr.constant(replaced[name]) if name in replaced else Expr.scalar(name)
            for name in inspect.signature(rule).parameters
            if name in there
        }
        new: object = rule(p, g, *map(Expr.array, (*state, *self.given)), **scalars)
        if not isinstance(new, Mapping) or "p" not in new:
            raise TypeError(f"the rule {rule.__name__} must return {{'p': ..., ...}}")
        if unknown := set(new) - {"p", *state}:
            raise TypeError(f"the rule {rule.__name__} returns {unknown}, which it does not take")
        if kept := set(state) - set(new):
            raise TypeError(f"the rule {rule.__name__} takes {kept} but returns no new value")
        return {name: Expr.of(value) for name, value in new.items()}


def seen(stages: Sequence[Stage], there: Collection[str]) -> tuple[Expr, Expr]:
    """Return the parameter and the gradient as the stages pass them to a rule.

    there: the stage arrays that a segment has.
    """
    p, g = Expr.array(_values(stages, there)), Expr.array("g")
    for stage in stages:
        g = stage.gradient(g, p, there)
    return p, g


def _values(stages: Sequence[Stage], there: Collection[str]) -> str:
    """The name of the array with the parameters' true values."""
    return next((s.holds for s in stages if s.holds is not None and s.holds in there), "p")


def check_parts(rule: str, state: Sequence[str], stages: Sequence[Stage]) -> None:
    """Raise TypeError for a part of a rule's state that has the name of a stage's array."""
    for stage in stages:
        own = (*stage.arrays, *stage.numbers, *stage.by_tensor)
        if taken := [name for name in state if name in own]:
            raise TypeError(
                f"the rule {rule} has a state called {taken[0]!r}, which is also the name of an "
                "array that this option adds: rename it"
            )


_SIZELESS: Final = ("sign", "lt", "le", "eq")


def squares(kernel: Kernel) -> frozenset[str]:
    """Return the parts of a rule's state that are computed from squares of gradients.

    Their new value has a product of two factors that depend on g, in a sum or a numerator. Under a
    root the magnitude is that of g again, and signs and comparisons do not depend on it.
    """
    depends: set[Expr] = set()
    for node in postorder(kernel.outputs.values()):
        is_g = node.operation == "array" and node.name == "g"
        is_sized = node.operation not in _SIZELESS
        if is_g or (is_sized and any(operand in depends for operand in node.operands)):
            depends.add(node)
    return frozenset(name for name, new in kernel.outputs.items() if _has_square(new, depends))


def never_negative(kernel: Kernel) -> frozenset[str]:
    """Return the squares that a step adds to, and so keeps at 0 or above.

    Scalars count as positive: they are weights such as 1 - beta2.
    """
    found = squares(kernel) - {"p"}
    while less := {name for name in found if not _is_at_least_0(kernel.outputs[name], found)}:
        found -= less
    return found


def _is_at_least_0(new: Expr, parts: Collection[str]) -> bool:
    scalars: set[Expr] = set()
    found: set[Expr] = set()
    factors: dict[Expr, Counter[Expr]] = {}
    for node in postorder([new]):
        operation, operands = node.operation, node.operands
        if operation == "array":
            is_found = node.name in parts
        elif all(operand in scalars for operand in operands):
            scalars.add(node)
            is_found = True
        elif operation == "mul":
            factors[node] = Counter()
            for operand in operands:
                factors[node].update(factors.get(operand, [operand]))
            is_found = all(f in found for f, count in factors[node].items() if count % 2)
        else:
            is_known = operation in ("add", "div", "maximum")
            is_found = is_known and all(operand in found for operand in operands)
        if is_found:
            found.add(node)
    return new in found


def copies(kernel: Kernel) -> frozenset[str]:
    """Return the parts of a rule's state that may be set to p, and so must not be rounded."""
    return frozenset(name for name, new in kernel.outputs.items() if name != "p" and _may_be_p(new))


def _may_be_p(new: Expr) -> bool:
    if new.operation == "where":
        return any(map(_may_be_p, new.operands[1:]))
    return new.operation == "array" and new.name == "p"


def _has_square(new: Expr, depends: set[Expr]) -> bool:
    stack, seen = [new], {new}
    while stack:
        node = stack.pop()
        operands = node.operands
        if node.operation == "mul" and all(operand in depends for operand in operands):
            return True
        if node.operation == "sqrt" or node.operation in _SIZELESS:
            continue
        parts = {"div": operands[:1], "where": operands[1:]}.get(node.operation, operands)
        stack += [part for part in parts if part not in seen]
        seen.update(parts)
    return False
