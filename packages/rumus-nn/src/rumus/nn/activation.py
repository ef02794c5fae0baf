"""Activations as modules, for a `Sequential`; elsewhere use functions such as `nn.relu`."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal, TypeAlias

from numpy.typing import DTypeLike

from rumus.nn.module import Module
from rumus.nn.setting import Settings, as_declared, finite, full_name, positive
from rumus.tensor import (
    Backend,
    Parameter,
    Tensor,
    celu,
    elu,
    float32,
    full,
    gelu,
    gelu_tanh,
    glu,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    softsign,
    tanh,
)
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.real_number import real_number

Function: TypeAlias = Callable[[Tensor], Tensor]


class Activation(Module):
    """A module that applies a function to each element.

    After a `Linear` in a `Sequential`, the function is fused with that layer's product.
    """

    @property
    @abstractmethod
    def function(self) -> Function:
        """The function; an `elementwise` one can be fused with a product."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to each element.

        x: floating, of any shape.
        """
        return self.function(x)


def _approximation(layer: Module, name: str, value: Any) -> Any:
    check_choice("GELU: approximate", value, ("none", "tanh"))
    return value


def _limit(layer: Module, name: str, value: Any) -> float:
    """One of the limits of a Hardtanh, which may be infinite; the other may not be known yet."""
    limits: dict[str, Any] = {"low": -math.inf, "high": math.inf, **vars(layer)}
    limits[name] = number = real_number(full_name(layer, name), value)
    if math.isnan(number):
        raise ValueError(f"{full_name(layer, name)} must be a limit, not nan")
    low, high = limits["low"], limits["high"]
    if not low < high:
        raise ValueError(f"Hardtanh: low must be below high, not {low} and {high}")
    return number


class ReLU(Activation):
    """max(x, 0)."""

    @property
    def function(self) -> Function:
        """The function itself."""
        return relu


class LeakyReLU(Activation):
    """x where it is positive, `slope` x elsewhere.

    slope: of the negative part, finite.
    """

    _settings: ClassVar[Settings] = {"slope": finite}

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = slope

    @property
    def function(self) -> Function:
        """The function itself."""
        return partial(leaky_relu, slope=self.slope)


class ELU(Activation):
    """x where it is positive, alpha (exp(x) - 1) elsewhere. Clevert et al.: arXiv:1511.07289.

    alpha: finite; the limit for very negative x is -alpha.
    """

    _settings: ClassVar[Settings] = {"alpha": finite}

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    @property
    def function(self) -> Function:
        """The function itself."""
        return partial(elu, alpha=self.alpha)


class GELU(Activation):
    """x times the normal distribution function of x, or its tanh approximation.

    Hendrycks and Gimpel: arXiv:1606.08415.

    approximate: "none" or "tanh", ValueError otherwise.
    """

    _settings: ClassVar[Settings] = {"approximate": _approximation}

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        self.approximate = approximate

    @property
    def function(self) -> Function:
        """The function itself."""
        return gelu if self.approximate == "none" else gelu_tanh


class SiLU(Activation):
    """x sigmoid(x)."""

    @property
    def function(self) -> Function:
        """The function itself."""
        return silu


class Tanh(Activation):
    """The hyperbolic tangent."""

    @property
    def function(self) -> Function:
        """The function itself."""
        return tanh


class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    @property
    def function(self) -> Function:
        """The function itself."""
        return sigmoid


class Softplus(Activation):
    """log(1 + exp(x))."""

    @property
    def function(self) -> Function:
        """The function itself."""
        return softplus


class Mish(Activation):
    """x tanh(softplus(x)). Misra: arXiv:1908.08681."""

    @property
    def function(self) -> Function:
        """The function itself."""
        return mish


class ReLU6(Activation):
    """min(max(x, 0), 6)."""

    @property
    def function(self) -> Function:
        """The function itself."""
        return relu6


class Hardsigmoid(Activation):
    """min(max(x + 3, 0), 6) / 6. Howard et al.: arXiv:1905.02244, section 5.2."""

    @property
    def function(self) -> Function:
        """The function itself."""
        return hardsigmoid


class Hardswish(Activation):
    """x hardsigmoid(x). Howard et al.: arXiv:1905.02244, section 5.2."""

    @property
    def function(self) -> Function:
        """The function itself."""
        return hardswish


class SELU(Activation):
    """A scaled ELU that keeps mean 0 and variance 1. Klambauer et al.: arXiv:1706.02515."""

    @property
    def function(self) -> Function:
        """The function itself."""
        return selu


class LogSigmoid(Activation):
    """log(1 / (1 + exp(-x))), without overflow."""

    @property
    def function(self) -> Function:
        """The function itself."""
        return log_sigmoid


class Softsign(Activation):
    """x / (1 + |x|)."""

    @property
    def function(self) -> Function:
        """The function itself."""
        return softsign


class CELU(Activation):
    """max(x, 0) + min(0, alpha (exp(x / alpha) - 1)). Barron: arXiv:1704.07483.

    alpha: finite and positive; the limit for very negative x is -alpha.
    """

    _settings: ClassVar[Settings] = {"alpha": positive}

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    @property
    def function(self) -> Function:
        """The function itself."""
        return partial(celu, alpha=self.alpha)


class Hardtanh(Activation):
    """x, limited to [low, high].

    low: the smallest result.
    high: the largest result; ValueError unless low < high.
    """

    _settings: ClassVar[Settings] = {"low": _limit, "high": _limit}

    def __init__(self, low: float = -1.0, high: float = 1.0) -> None:
        self.low, self.high = low, high

    @property
    def function(self) -> Function:
        """The function itself."""
        return partial(hardtanh, low=self.low, high=self.high)


class Softmax(Module):
    """exp(x) / sum(exp(x)) along an axis; `cross_entropy_loss` takes logits instead.

    axis: along which the results add up to 1.

    >>> from rumus.nn import Softmax
    >>> from rumus.tensor import zeros
    >>> Softmax()(zeros((1, 4))).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """

    _settings: ClassVar[Settings] = {"axis": as_declared}

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Take the softmax.

        x: floating.
        """
        return softmax(x, self.axis)


class LogSoftmax(Module):
    """The logarithm of the softmax along an axis, for `nll_loss`.

    axis: along which the probabilities add up to 1.
    """

    _settings: ClassVar[Settings] = {"axis": as_declared}

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Take the log-softmax.

        x: floating.
        """
        return log_softmax(x, self.axis)


class GLU(Module):
    """The first half of an axis times the sigmoid of the second. Dauphin et al.: arXiv:1612.08083.

    axis: of even length, ValueError otherwise.

    >>> from rumus.nn import GLU
    >>> from rumus.tensor import ones
    >>> GLU()(ones((2, 6))).shape
    (2, 3)
    """

    _settings: ClassVar[Settings] = {"axis": as_declared}

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Gate one half by the other.

        x: floating.
        """
        return glu(x, self.axis)


class PReLU(Module):
    """x where it is positive, weight x elsewhere, with a learned weight.

    He et al.: arXiv:1502.01852.

    count: the number of weights: 1, or one per channel; channels are axis 1, or the only axis.
    start: the initial value of each weight.
    dtype: floating, of the weight.
    backend: that holds the weight, by default the CPU.

    ValueError for another number of channels.

    >>> from rumus.nn import PReLU
    >>> from rumus.tensor import tensor
    >>> PReLU()(tensor([-2.0, 1.0])).tolist()
    [-0.5, 1.0]
    """

    def __init__(
        self,
        count: int = 1,
        start: float = 0.25,
        *,
        dtype: DTypeLike = float32,
        backend: Backend | None = None,
    ) -> None:
        if count < 1:
            raise ValueError(f"PReLU needs at least 1 weight, not {count}")
        finite(self, "start", start)
        values = full((count,), start, dtype=dtype, backend=backend)
        self.weight = Parameter(values, name="weight", role="bias")
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each element.

        x: floating, with the channels in axis 1 if there are several weights.
        """
        if self.count == 1:
            return prelu(x, self.weight)
        axis = min(1, x.ndim - 1)
        if x.ndim == 0 or x.shape[axis] != self.count:
            raise ValueError(f"PReLU: expected {self.count} channels on axis {axis}, got {x.shape}")
        return prelu(x, self.weight.reshape(-1, *[1] * (x.ndim - axis - 1)))
