"""Convolutions: weights that slide over the spatial axes of their input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from numpy.typing import DTypeLike

from rumus.nn import initialisation
from rumus.nn.module import Module
from rumus.tensor import (
    Backend,
    Generator,
    Parameter,
    Tensor,
    convolution,
    convolution_transpose,
    float32,
    next_generator,
    zeros,
)


class _Convolution(Module):
    """What the convolutions have in common: sizes, weights and their start."""

    axes: ClassVar[int]
    is_transposed: ClassVar[bool] = False

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        generator: Generator | None = None,
        dtype: DTypeLike = float32,
        backend: Backend | None = None,
    ) -> None:
        name = type(self).__name__
        if inputs < 1 or outputs < 1:
            raise ValueError(f"{name} needs sizes of at least 1, not ({inputs}, {outputs})")
        if groups < 1 or inputs % groups or outputs % groups:
            raise ValueError(
                f"{name}: {inputs} inputs and {outputs} outputs do not divide into {groups} groups"
            )
        self.inputs = inputs
        self.outputs = outputs
        self.kernel = self._sizes("kernel", kernel, 1)
        self.stride = self._sizes("stride", stride, 1)
        self.padding = self._sizes("padding", padding, 0)
        self.dilation = self._sizes("dilation", dilation, 1)
        self.groups = groups
        generator = generator or next_generator()
        first, second = (inputs, outputs) if self.is_transposed else (outputs, inputs)
        shape = (first, second // groups, *self.kernel)
        bound = 1 / math.sqrt(initialisation.fans(shape)[0])

        def start(role: Literal["weight", "bias"], *shape: int) -> Parameter:
            values = zeros(shape, dtype=dtype, backend=backend)
            parameter = Parameter(values, name=role, role=role)
            return initialisation.uniform(parameter, generator=generator, low=-bound, high=bound)

        self.weight = start("weight", *shape)
        self.bias = start("bias", outputs) if bias else None

    def _sizes(self, what: str, given: int | Sequence[int], lowest: int) -> tuple[int, ...]:
        sizes = (given,) * self.axes if isinstance(given, int) else tuple(given)
        if len(sizes) != self.axes or min(sizes) < lowest:
            raise ValueError(
                f"{type(self).__name__}: {what} needs {self.axes} sizes of at least {lowest}, or "
                f"one for all, not {given}"
            )
        return sizes

    def _check(self, x: Tensor) -> None:
        if x.ndim != self.axes + 2 or x.shape[1] != self.inputs:
            lengths = ", length" if self.axes == 1 else ", height, width"
            raise ValueError(
                f"{type(self).__name__}: an input of (batch, {self.inputs}{lengths}) is needed, "
                f"not {x.shape}"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Slide the kernel over x."""
        self._check(x)
        return convolution(
            x, self.weight, self.bias, stride=self.stride, padding=self.padding,
            dilation=self.dilation, groups=self.groups,
        )  # fmt: skip


class Conv1d(_Convolution):
    """Convolution along one axis: (batch, inputs, length) to (batch, outputs, places).

    kernel, stride, padding (zeros on both sides), dilation, groups: see
    `rumus.tensor.convolution`. weight: (outputs, inputs / groups, kernel); bias: (outputs,), or
    None. Both start as U(-b, b), b = 1 / sqrt(fan in). generator: by default a
    stream of the program's `seed`. ValueError for sizes that make no sense or do not fit the input.

    >>> from rumus.tensor import ones
    >>> Conv1d(2, 3, 5, padding=2, generator=Generator(0))(ones((4, 2, 9))).shape
    (4, 3, 9)
    """

    axes = 1


class Conv2d(_Convolution):
    """Convolution of pictures: (batch, inputs, height, width) to (batch, outputs, *places).

    The arguments are those of `Conv1d`, a number or one for each axis.

    >>> from rumus.tensor import ones
    >>> Conv2d(2, 3, (5, 3), stride=2, generator=Generator(0))(ones((4, 2, 9, 9))).shape
    (4, 3, 3, 4)
    """

    axes = 2


class ConvTranspose2d(_Convolution):
    """What brings a `Conv2d` with these arguments back to the size of its input.

    x: (batch, inputs, height, width). weight: (inputs, outputs / groups, *kernel). output_padding:
    rows and columns that the convolution's rounding down lost. The rest is as in `Conv2d`; see
    `rumus.tensor.convolution_transpose`.

    >>> from rumus.tensor import ones
    >>> layer = ConvTranspose2d(2, 3, 4, stride=2, padding=1, generator=Generator(0))
    >>> layer(ones((1, 2, 8, 8))).shape
    (1, 3, 16, 16)
    """

    axes = 2
    is_transposed = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        generator: Generator | None = None,
        dtype: DTypeLike = float32,
        backend: Backend | None = None,
    ) -> None:
        super().__init__(
            inputs, outputs, kernel, stride=stride, padding=padding, dilation=dilation,
            groups=groups, bias=bias, generator=generator, dtype=dtype, backend=backend,
        )  # fmt: skip
        self.output_padding = self._sizes("output_padding", output_padding, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Spread each element of x over the places of the kernel."""
        self._check(x)
        return convolution_transpose(
            x, self.weight, self.bias, stride=self.stride, padding=self.padding,
            output_padding=self.output_padding, dilation=self.dilation, groups=self.groups,
        )  # fmt: skip
