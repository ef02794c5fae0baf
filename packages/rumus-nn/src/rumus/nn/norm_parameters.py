"""The weight and the bias of a norm: they scale and shift what it has normalized."""

from __future__ import annotations

from numpy.typing import DTypeLike

from rumus.tensor import Backend, Parameter, ones, zeros


def norm_weight(shape: tuple[int, ...], dtype: DTypeLike, backend: Backend | None) -> Parameter:
    """Return a weight of ones."""
    return Parameter(ones(shape, dtype=dtype, backend=backend), name="weight", role="norm")


def norm_bias(shape: tuple[int, ...], dtype: DTypeLike, backend: Backend | None) -> Parameter:
    """Return a bias of zeros."""
    return Parameter(zeros(shape, dtype=dtype, backend=backend), name="bias", role="norm")
