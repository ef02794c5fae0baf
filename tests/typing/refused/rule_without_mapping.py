"""A rule returns new values by name."""

from rumus.optim import FusedOptimizer
from rumus.tensor import Expr, Parameter


def descend(p: Expr, g: Expr, *, lr: Expr) -> Expr:
    return p - lr * g


# error: Argument 2 to "FusedOptimizer" has incompatible type "def descend(p: Expr, g: Expr, *, lr: Expr) -> Expr"; expected "Callable[..., Mapping[str, Expr]]"  [arg-type]
FusedOptimizer([Parameter([1.0])], descend, lr=0.1)
