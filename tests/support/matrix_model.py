"""A model of one matrix, for tests of trainers, whose packages are without rumus.nn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rumus.tensor import Parameter, Tensor, tensor


class MatrixModel:
    """x @ weight, with what a trainer's `state` needs of a module."""

    def __init__(self, weight: ArrayLike) -> None:
        self.weight = Parameter(np.array(weight, np.float32), name="weight")

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        return [("weight", self.weight)]

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight.numpy()}

    def load_state_dict(self, state: Any) -> None:
        self.weight.assign(tensor(state["weight"]))

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight
