"""An optimizer must define its step."""

from typing import Any

from rumus.optim import Optimizer
from rumus.tensor import Parameter


class Idle(Optimizer[Any]):
    pass


# error: Cannot instantiate abstract class "Idle" with abstract attribute "step"  [abstract]
Idle([Parameter([1.0])])
