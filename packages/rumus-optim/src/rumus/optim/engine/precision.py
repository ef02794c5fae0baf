"""The dtype that an optimizer computes in."""

from __future__ import annotations

from rumus.tensor import DType, float16, float32


def computed_in(dtype: DType) -> DType:
    """Return the dtype of arithmetic on parameters of `dtype`: at least float32."""
    return float32 if dtype == float16 else dtype
