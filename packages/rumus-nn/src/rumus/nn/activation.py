"""Activations as modules, for a `Sequential`. Elsewhere the functions of rumus.tensor do."""

from __future__ import annotations

from typing import Literal

from rumus.nn.module import Module
from rumus.tensor import Tensor, elu, gelu, gelu_tanh, leaky_relu, silu


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each element."""
        return x.relu()


class LeakyReLU(Module):
    """x where it is positive, `slope` x elsewhere."""

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each element."""
        return leaky_relu(x, slope=self.slope)


class ELU(Module):
    """x where it is positive, alpha (exp(x) - 1) elsewhere. Clevert et al.: arXiv:1511.07289."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each element."""
        return elu(x, alpha=self.alpha)


class GELU(Module):
    """x times the normal distribution function of x, or its approximation by tanh.

    Hendrycks and Gimpel: arXiv:1606.08415. ValueError if `approximate` is neither none nor tanh.
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate must be 'none' or 'tanh', not {approximate!r}")
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each element."""
        return gelu(x) if self.approximate == "none" else gelu_tanh(x)


class SiLU(Module):
    """x sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each element."""
        return silu(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each element."""
        return x.tanh()


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each element."""
        return x.sigmoid()


class Softplus(Module):
    """log(1 + exp(x))."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each element."""
        return x.softplus()
