"""`Linear`: a matrix and a bias."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from numpy.typing import DTypeLike

from rumus.nn import initialization
from rumus.nn.module import Module
from rumus.tensor import (
    Backend,
    Generator,
    Parameter,
    Tensor,
    float32,
    linear,
    next_generator,
    zeros,
)


class Linear(Module):
    """y = x weight^T + bias.

    Input: (..., inputs). Result: (..., outputs). weight: (outputs, inputs); bias: (outputs,), or
    None. Both are initialized as U(-b, b) with b = 1 / sqrt(inputs), which for the weight is
    `kaiming_uniform` with slope sqrt(5), as is customary.

    inputs: the length of the input's last axis.
    outputs: the length of the result's last axis.
    bias: False for none.
    generator: of the initial weights, by default a stream of the program's `seed`.
    dtype: floating, of the parameters.
    backend: where the parameters are made, by default the CPU.

    ValueError for a size below 1, and for an input of a wrong length.

    >>> from rumus.nn import Linear
    >>> from rumus.tensor import Generator, ones
    >>> Linear(3, 2, generator=Generator(0))(ones((4, 3))).shape
    (4, 2)
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        generator: Generator | None = None,
        dtype: DTypeLike = float32,
        backend: Backend | None = None,
    ) -> None:
        if inputs < 1 or outputs < 1:
            raise ValueError(f"Linear needs sizes of at least 1, not ({inputs}, {outputs})")
        self.inputs = inputs
        self.outputs = outputs
        generator = next_generator() if generator is None else generator
        bound = 1 / math.sqrt(inputs)

        def start(name: Literal["weight", "bias"], *shape: int) -> Parameter:
            values = zeros(shape, dtype=dtype, backend=backend)
            parameter = Parameter(values, name=name, role=name)
            return initialization.uniform(parameter, generator=generator, low=-bound, high=bound)

        self.weight = start("weight", outputs, inputs)
        self.bias = start("bias", outputs) if bias else None

    def forward(
        self,
        x: Tensor,
        *,
        activation: Callable[[Tensor], Tensor] | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Map the last axis from `inputs` to `outputs`: activation(y) + residual, where given.

        Both are fused with the product if the activation is an `elementwise` function.

        x: (..., inputs).
        activation: a function of a tensor.
        residual: (..., outputs).
        """
        return linear(x, self.weight, self.bias, activation=activation, residual=residual)
