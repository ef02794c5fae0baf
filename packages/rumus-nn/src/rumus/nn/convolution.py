"""Convolutions: weights that slide over the spatial axes of their input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from numpy.typing import DTypeLike

from rumus.nn import initialization
from rumus.nn.module import Module
from rumus.nn.setting import Settings, decided
from rumus.nn.unbatched import of_batch
from rumus.tensor import (
    Backend,
    Generator,
    Parameter,
    Tensor,
    convolution,
    convolution_transpose,
    float32,
    next_generator,
    pad_edges,
    zeros,
)
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.memory.window import as_sizes
from rumus.tensor.operations.convolution import check_output_padding
from rumus.tensor.operations.padding import MODES, PaddingMode

Padding: TypeAlias = "int | Sequence[int] | Literal['same', 'valid']"


def _stride(layer: _Convolution, name: str, value: Any) -> tuple[int, ...]:
    return layer._sizes(name, value, 1)


def _output_padding(layer: _Convolution, name: str, value: Any) -> tuple[int, ...]:
    return layer._sizes(name, value, 0)


def _dilation(layer: _Convolution, name: str, value: Any) -> tuple[int, ...]:
    if vars(layer).get("_around") is not None:  # computed from it
        raise decided(layer, name)
    return layer._sizes(name, value, 1)


def _padding(layer: _Convolution, name: str, value: Any) -> tuple[int, ...]:
    if vars(layer).get("_around") is not None or isinstance(value, str):
        raise decided(layer, name)
    return layer._sizes(name, value, 0)


class _Convolution(Module):
    """The common base of convolutions: sizes, weights and their initialization."""

    axes: ClassVar[int]
    is_transposed: ClassVar[bool] = False
    _settings: ClassVar[Settings] = {"stride": _stride, "padding": _padding, "dilation": _dilation}

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: Padding = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
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
        self.dilation = self._sizes("dilation", dilation, 1)
        check_choice(f"{name}: padding_mode", padding_mode, MODES)
        self.padding_mode = padding_mode
        self.padding, self._around = self._paddings(padding)
        self.groups = groups
        generator = next_generator() if generator is None else generator
        first, second = (inputs, outputs) if self.is_transposed else (outputs, inputs)
        shape = (first, second // groups, *self.kernel)
        bound = 1 / math.sqrt(initialization.fans(shape)[0])

        def start(role: Literal["weight", "bias"], *shape: int) -> Parameter:
            values = zeros(shape, dtype=dtype, backend=backend)
            parameter = Parameter(values, name=role, role=role)
            return initialization.uniform(parameter, generator=generator, low=-bound, high=bound)

        self.weight = start("weight", *shape)
        self.bias = start("bias", outputs) if bias else None

    def _paddings(self, given: Padding) -> tuple[tuple[int, ...], list[tuple[int, int]] | None]:
        """The padding that the convolution does on both sides, and the one applied before it."""
        if isinstance(given, str):
            if given not in ("same", "valid") or self.is_transposed:
                allowed = "sizes" if self.is_transposed else "sizes, 'same' or 'valid'"
                raise ValueError(f"{type(self).__name__}: padding must be {allowed}, not {given!r}")
            if given == "valid":
                return (0,) * self.axes, None
            if max(self.stride) > 1:
                raise ValueError(
                    f"{type(self).__name__}: padding 'same' requires stride 1, not {self.stride}"
                )
            spans = zip(self.kernel, self.dilation, strict=True)
            totals = [(kernel - 1) * dilation for kernel, dilation in spans]
            sides = [(total // 2, total - total // 2) for total in totals]
        else:
            sides = [(size, size) for size in self._sizes("padding", given, 0)]
        if self.padding_mode == "zeros" and all(a == b for a, b in sides):
            return tuple(a for a, _ in sides), None
        return (0,) * self.axes, sides

    def _sizes(self, what: str, given: int | Sequence[int], lowest: int) -> tuple[int, ...]:
        sizes = as_sizes(f"{type(self).__name__}: {what}", given, self.axes)
        if len(sizes) != self.axes or min(sizes) < lowest:
            raise ValueError(
                f"{type(self).__name__}: {what} needs {self.axes} sizes of at least {lowest}, or "
                f"one for all, not {given!r}"
            )
        return sizes

    def _check(self, x: Tensor) -> None:
        if x.ndim not in (self.axes + 1, self.axes + 2) or x.shape[-self.axes - 1] != self.inputs:
            lengths = ", length" if self.axes == 1 else ", height, width"
            raise ValueError(
                f"{type(self).__name__}: expected an input of (batch, {self.inputs}{lengths}), or "
                f"one without a batch, got {x.shape}"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Slide the kernel over x, with or without a batch."""
        self._check(x)
        return of_batch(type(self).__name__, x, self.axes, self._convolved)

    def _convolved(self, x: Tensor) -> Tensor:
        if self._around is not None:
            x = pad_edges(x, [(0, 0), (0, 0), *self._around], self.padding_mode)
        return convolution(
            x, self.weight, self.bias, stride=self.stride, padding=self.padding,
            dilation=self.dilation, groups=self.groups,
        )  # fmt: skip


class Conv1d(_Convolution):
    """Convolution along one axis: (batch, inputs, length) to (batch, outputs, places).

    An input without a batch, (inputs, length), gives a result without one. weight: (outputs, inputs
    / groups, kernel); bias: (outputs,), or None. Both are initialized as U(-b, b), b = 1 / sqrt(fan
    in). See `rumus.tensor.convolution`.

    inputs: channels of the input.
    outputs: channels of the result.
    kernel: the length of the kernel.
    stride: the distance between places.
    padding: elements added on both sides; "same" keeps the length, with a stride of 1; "valid" adds
        none.
    dilation: the distance between elements of the kernel.
    groups: a divisor of inputs and outputs; each group of outputs sees only its group of inputs.
    bias: False for none.
    padding_mode: "zeros", or "reflect", "replicate", "circular", as in `pad_edges`.
    generator: of the initial weights, by default a stream of the program's `seed`.
    dtype: floating, of the parameters.
    backend: where the parameters are made, by default the CPU.

    ValueError for sizes that are invalid or do not fit the input.

    >>> from rumus.nn import Conv1d
    >>> from rumus.tensor import Generator, ones
    >>> Conv1d(2, 3, 5, padding=2, generator=Generator(0))(ones((4, 2, 9))).shape
    (4, 3, 9)
    """

    axes = 1


class Conv2d(_Convolution):
    """Convolution of images: (batch, inputs, height, width) to (batch, outputs, *places).

    inputs, outputs, groups, bias, padding_mode, generator, dtype, backend: as in `Conv1d`.
    kernel, stride, padding, dilation: as in `Conv1d`, one number or one per axis.

    >>> from rumus.nn import Conv2d
    >>> from rumus.tensor import Generator, ones
    >>> Conv2d(2, 3, (5, 3), stride=2, generator=Generator(0))(ones((4, 2, 9, 9))).shape
    (4, 3, 3, 4)
    """

    axes = 2


class _Transposed(_Convolution):
    is_transposed = True
    _settings: ClassVar[Settings] = {**_Convolution._settings, "output_padding": _output_padding}

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
        for along in zip(self.output_padding, self.stride, self.dilation, strict=True):
            check_output_padding(type(self).__name__, *along)

    def _convolved(self, x: Tensor) -> Tensor:
        """Spread each element of x over the places of the kernel."""
        return convolution_transpose(
            x, self.weight, self.bias, stride=self.stride, padding=self.padding,
            output_padding=self.output_padding, dilation=self.dilation, groups=self.groups,
        )  # fmt: skip


class ConvTranspose1d(_Transposed):
    """`ConvTranspose2d` for sequences, (batch, inputs, length).

    inputs, outputs, groups, bias, generator, dtype, backend: as in `Conv1d`.
    kernel, stride, padding, output_padding, dilation: as in `ConvTranspose2d`.

    >>> from rumus.nn import ConvTranspose1d
    >>> from rumus.tensor import Generator, ones
    >>> ConvTranspose1d(2, 3, 4, stride=2, generator=Generator(0))(ones((1, 2, 8))).shape
    (1, 3, 18)
    """

    axes = 1


class ConvTranspose2d(_Transposed):
    """The transpose of a `Conv2d` with these arguments, which restores the size of its input.

    Input: (batch, inputs, height, width). weight: (inputs, outputs / groups, *kernel). See
    `rumus.tensor.convolution_transpose`.

    inputs: channels of the input, the convolution's outputs.
    outputs: channels of the result, the convolution's inputs.
    kernel, stride, padding, dilation: as in `Conv2d`, but padding is one number or one per axis.
    output_padding: rows and columns that the convolution's rounding dropped.
    groups, bias, generator, dtype, backend: as in `Conv1d`.

    >>> from rumus.nn import ConvTranspose2d
    >>> from rumus.tensor import Generator, ones
    >>> layer = ConvTranspose2d(2, 3, 4, stride=2, padding=1, generator=Generator(0))
    >>> layer(ones((1, 2, 8, 8))).shape
    (1, 3, 16, 16)
    """

    axes = 2
