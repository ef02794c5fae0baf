"""An update rule as a kernel."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rumus.optim.hyperparameter import Hyper, checked
from rumus.optim.rules import Rule
from rumus.tensor import Expr, Kernel


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


def update_kernel(
    rule: Rule,
    state: tuple[str, ...],
    known: Iterable[str],
    *,
    maximize: bool,
    decays: bool,
    given: tuple[str, ...] = (),
) -> Kernel:
    """Return a rule as a kernel that updates `p` and the state in place.

    known: the scalars that there will be. maximize: -g takes g's place. decays: g + weight_decay p
    does. given: arrays that the rule takes after its state, and only reads.
    TypeError for a rule that does not return exactly the new values of what it takes.
    """
    p, g = Expr.array("p"), Expr.array("g")
    if maximize:
        g = -g
    if decays:
        g = g + Expr.scalar("weight_decay") * p
    names = inspect.signature(rule).parameters
    there = {*known, "t"}
    scalars = {name: Expr.scalar(name) for name in names if name in there}
    new: object = rule(p, g, *map(Expr.array, (*state, *given)), **scalars)
    if not isinstance(new, Mapping) or "p" not in new:
        raise TypeError(f"the rule {rule.__name__} must return {{'p': ..., ...}}")
    if unknown := set(new) - {"p", *state}:
        raise TypeError(f"the rule {rule.__name__} returns {unknown}, which it has not")
    if kept := set(state) - set(new):
        raise TypeError(f"the rule {rule.__name__} takes {kept} but returns no new value")
    outputs = {name: Expr.of(value) for name, value in new.items()}
    return Kernel(rule.__name__, outputs, ("p", "g", *state, *given))
