"""A rule is a function of expressions; it becomes a kernel on every backend."""

from rumus.optim import FusedOptimizer, ParameterGroup, Rule, Update
from rumus.tensor import Expr, Parameter


def signum(p: Expr, g: Expr, m: Expr, *, lr: Expr, beta: Expr) -> Update:
    m = beta * m + (1 - beta) * g
    return {"p": p - lr * m.sign(), "m": m}


rule: Rule = signum
weight, bias = Parameter([1.0], name="weight"), Parameter([1.0], name="bias")
groups = [ParameterGroup([weight]), ParameterGroup([bias], lr=0.5)]
optimizer = FusedOptimizer(groups, rule, lr=0.25, beta=0.9)
optimizer.step((weight * bias).sum().backward())
assert (weight.tolist(), bias.tolist()) == ([0.75], [0.5])
