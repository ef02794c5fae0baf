"""Activations as modules, for a `Sequential`. Elsewhere the functions of rumus.tensor do."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

from rumus.nn.module import Module
from rumus.tensor import (
    Tensor,
    elu,
    gelu,
    gelu_tanh,
    leaky_relu,
    relu,
    sigmoid,
    silu,
    softplus,
    tanh,
)

Function: TypeAlias = Callable[[Tensor], Tensor]


class Activation(Module):
    """A module that applies a function to each element.

    Behind a `Linear` in a `Sequential`, the function runs in that layer's product.
    """

    @property
    @abstractmethod
    def function(self) -> Function:
        """The function, made by `rumus.tensor.elementwise` if a product is to take it along."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each element."""
        return self.function(x)


class ReLU(Activation):
    """max(x, 0)."""

    @property
    def function(self) -> Function:
        """The function itself."""
        return relu


class LeakyReLU(Activation):
    """x where it is positive, `slope` x elsewhere."""

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = slope

    @property
    def function(self) -> Function:
        """The function itself."""
        return partial(leaky_relu, slope=self.slope)


class ELU(Activation):
    """x where it is positive, alpha (exp(x) - 1) elsewhere. Clevert et al.: arXiv:1511.07289."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    @property
    def function(self) -> Function:
        """The function itself."""
        return partial(elu, alpha=self.alpha)


class GELU(Activation):
    """x times the normal distribution function of x, or its approximation by tanh.

    Hendrycks and Gimpel: arXiv:1606.08415. ValueError if `approximate` is neither none nor tanh.
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate must be 'none' or 'tanh', not {approximate!r}")
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
