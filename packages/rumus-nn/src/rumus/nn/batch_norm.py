"""`BatchNorm1d` and `BatchNorm2d`: normalize each channel over the batch."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Final, TypeVar

from numpy.typing import DTypeLike

from rumus.nn.module import Module
from rumus.nn.norm_parameters import norm_bias, norm_weight
from rumus.nn.setting import Settings, decided, full_name, positive
from rumus.tensor import (
    Backend,
    Expr,
    Kernel,
    Tensor,
    batch_norm,
    elementwise,
    float16,
    float32,
    ones,
    zeros,
)
from rumus.tensor.expression.real_number import real_number
from rumus.tensor.graph.buffer_update import BufferUpdate, propose
from rumus.tensor.graph.tensor import backend_of
from rumus.tensor.memory.recording import depends_on

T = TypeVar("T", Tensor, Expr)


@elementwise
def running_affine(x: T, mean: T, variance: T, weight: T, bias: T, *, eps: float) -> T:
    """Batch norm with running statistics; all shapes broadcast."""
    return (x - mean) / (variance + eps).sqrt() * weight + bias


@elementwise
def _scaled(x: T, mean: T, variance: T, *, eps: float) -> T:
    return (x - mean) / (variance + eps).sqrt()


def _moved() -> Kernel:
    """Both statistics, in place: running = (1 - momentum) running + momentum sum / n."""
    rate, outputs = Expr.scalar("momentum"), {}
    for running, total in (("mean", "total"), ("variance", "squares")):
        new = Expr.scalar(f"{running}_share") * Expr.array(total)
        outputs[running] = (1 - rate) * Expr.array(running) + rate * new
    return Kernel("moved", outputs, ("mean", "variance", "total", "squares"))


_MOVED: Final = _moved()


def _averaged() -> Kernel:
    """Both statistics as means over all batches so far, in place, and their number."""
    batches, outputs = Expr.array("batches") + 1, {}
    for running, total in (("mean", "total"), ("variance", "squares")):
        before, new = Expr.array(running), Expr.scalar(f"{running}_share") * Expr.array(total)
        outputs[running] = before + (new - before) / batches
    outputs["batches"] = batches
    return Kernel("averaged", outputs, ("mean", "variance", "batches", "total", "squares"))


_AVERAGED: Final = _averaged()


def _momentum(layer: _BatchNorm, name: str, value: Any) -> float | None:
    if value is None:
        # The mean of all batches needs their number, which is counted if it is made so.
        if vars(layer).get("running_mean") is not None and layer.batches is None:
            raise decided(layer, name)
        return None
    if not 0 <= real_number(full_name(layer, name), value) <= 1:
        raise ValueError(f"{full_name(layer, name)} must be in [0, 1], or None, not {value}")
    number: float = value
    return number


class _BatchNorm(Module):
    """The common base of both."""

    allowed: ClassVar[tuple[int, ...]]
    needed: ClassVar[str]
    _settings: ClassVar[Settings] = {"eps": positive, "momentum": _momentum}

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: DTypeLike = float32,
        backend: Backend | None = None,
    ) -> None:
        name = type(self).__name__
        if channels < 1:
            raise ValueError(f"{name} needs at least 1 channel, not {channels}")
        self.channels = channels
        self.eps = eps
        self.momentum = momentum
        self.weight = norm_weight((channels,), dtype, backend) if affine else None
        self.bias = norm_bias((channels,), dtype, backend) if affine else None
        self.running_mean: Tensor | None = None
        self.running_var: Tensor | None = None
        if track_running_stats:
            self.running_mean = zeros((channels,), dtype=dtype, backend=backend)
            self.running_var = ones((channels,), dtype=dtype, backend=backend)
        self.batches: Tensor | None = None
        if track_running_stats and momentum is None:
            self.batches = zeros((channels,), dtype=dtype, backend=backend)

    def ignored_state(self) -> frozenset[str]:
        """Return the name of PyTorch's counter, which is only used with momentum=None."""
        return frozenset({"num_batches_tracked"} if self.batches is None else ())

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each channel and, in training, update the running statistics."""
        depends_on(self, "momentum")
        name = type(self).__name__
        if x.ndim not in self.allowed or x.shape[1] != self.channels:
            wanted = self.needed.format(self.channels)
            raise ValueError(f"{name}: expected an input of {wanted}, got {x.shape}")
        if x.dtype == float16:
            return self.forward(x.astype(float32)).astype(float16)
        if self.training or self.running_mean is None or self.running_var is None:
            return self._of_batch(x)
        return self._of_running(x, self.running_mean, self.running_var)

    def _of_batch(self, x: Tensor) -> Tensor:
        """Normalize with the statistics of x itself."""
        axes = (0, *range(2, x.ndim))
        count = math.prod(x.shape[axis] for axis in axes)
        if count < 2 and self.training:
            raise ValueError(
                f"{type(self).__name__}: training needs more than one value of each channel; "
                f"{x.shape} has {count}: use a larger batch, or eval()"
            )
        result, total, squares = batch_norm(x, self.weight, self.bias, self.eps)
        if self.training:
            self._move(result, total, squares, count)
        return result

    def _move(self, result: Tensor, total: Tensor, squares: Tensor, count: int) -> None:
        """Propose to move the running statistics toward a batch's, if its step counts."""
        mean, variance = self.running_mean, self.running_var
        if mean is None or variance is None:
            return
        backend_of(type(self).__name__, (mean, variance, total, squares))
        numbers = {"mean_share": 1 / count, "variance_share": 1 / (count - 1)}
        found = (total._array, squares._array)
        if self.momentum is not None:
            numbers["momentum"] = self.momentum
            propose(BufferUpdate(_MOVED, (mean, variance), found, numbers), result)
        elif self.batches is not None:
            buffers = (mean, variance, self.batches)
            propose(BufferUpdate(_AVERAGED, buffers, found, numbers), result)

    def _of_running(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Normalize with the running statistics, in one kernel."""
        column = (self.channels, *[1] * (x.ndim - 2))
        mean, variance = mean.reshape(*column), variance.reshape(*column)
        if self.weight is None or self.bias is None:
            return _scaled(x, mean, variance, eps=self.eps)
        weight, bias = self.weight.reshape(*column), self.bias.reshape(*column)
        return running_affine(x, mean, variance, weight, bias, eps=self.eps)


class BatchNorm1d(_BatchNorm):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, for each channel over the batch.

    Ioffe, Szegedy: arXiv:1502.03167. Input: (batch, channels), or (batch, channels, length). In
        training, mean and variance (divided by n) are those of the input; in evaluation they are
        running_mean and running_var, which each applied step moves toward its input's, with the
        variance divided by n - 1. A pass without a step, as under `no_grad`, changes nothing.

    channels: the length of axis 1.
    eps: positive, added to the variance.
    momentum: in [0, 1], how far a step moves the running statistics; None for the mean over all
        steps so far, counted in `batches`.
    affine: False for no weight and bias.
    track_running_stats: False to use the input's statistics in evaluation too.
    dtype: floating, of weight and bias.
    backend: that holds the parameters and buffers, by default the CPU.

    ValueError for a wrong number of channels and, in training, for a single value per channel.

    >>> from rumus.nn import BatchNorm1d
    >>> from rumus.tensor import tensor
    >>> [round(v, 3) for v in BatchNorm1d(1)(tensor([[1.0], [3.0]])).flatten().tolist()]
    [-1.0, 1.0]
    """

    allowed = (2, 3)
    needed = "(batch, {0}) or (batch, {0}, length)"


class BatchNorm2d(_BatchNorm):
    """`BatchNorm1d` for images, (batch, channels, height, width).

    channels: the length of axis 1.
    eps, momentum, affine, track_running_stats, dtype, backend: as in `BatchNorm1d`.

    >>> from rumus.nn import BatchNorm2d
    >>> from rumus.tensor import ones
    >>> BatchNorm2d(3)(ones((2, 3, 4, 4))).shape
    (2, 3, 4, 4)
    """

    allowed = (4,)
    needed = "(batch, {0}, height, width)"
