"""What all losses share: how their elements become one number, and what they may be given."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from rumus.tensor import NumpyBackend, Tensor, TensorLike, float16, float32, tensor
from rumus.tensor.graph.means import note_mean

Reduction: TypeAlias = Literal["mean", "sum", "none"]


def check_reduction(loss: str, reduction: str) -> None:
    """Raise ValueError for a reduction that does not exist."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{loss}: reduction must be 'mean', 'sum' or 'none', not {reduction!r}")


def check_floating(loss: str, what: str, x: Tensor) -> None:
    """Raise TypeError for anything but a floating tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{loss}: {what} must be a tensor, not {type(x).__name__}")
    if x.dtype.kind != "f":
        raise TypeError(f"{loss}: {what} must be floating, not {x.dtype}")


def as_target(loss: str, prediction: Tensor, target: TensorLike, what: str = "target") -> Tensor:
    """Return `target` as a tensor beside `prediction`; TypeError for data that are not numbers."""
    if isinstance(target, Tensor):
        return target
    host = np.asarray(target)
    if host.dtype.kind not in "fiub":
        raise TypeError(f"{loss}: {what} must be numbers, not of dtype {host.dtype}")
    return tensor(host, dtype=prediction.dtype, backend=prediction.backend)


def check_pair(
    loss: str, prediction: Tensor, target: TensorLike, reduction: str
) -> tuple[Tensor, Tensor]:
    """Return `prediction`, in float32 if it is float16, and `target` as a tensor of its shape.

    ValueError if the shapes differ: (n, 1) and (n,) would broadcast to (n, n), and train on that.
    ValueError for a mean of nothing.
    """
    check_reduction(loss, reduction)
    check_floating(loss, "the prediction", prediction)
    if prediction.dtype == float16:
        prediction = prediction.astype(float32)
    beside = as_target(loss, prediction, target)
    if beside.shape != prediction.shape:
        raise ValueError(
            f"{loss}: prediction {prediction.shape} and target {beside.shape} must have one shape; "
            "reshape or broadcast_to the target"
        )
    if reduction == "mean" and prediction.size == 0:
        raise ValueError(f"{loss}: the mean of no elements, shape {prediction.shape}")
    return prediction, beside


def mean_scale(prediction: Tensor, reduction: Reduction) -> float:
    """Return what each element is scaled by, inside the kernel, so that the mean is a sum."""
    return 1 / prediction.size if reduction == "mean" else 1.0


def reduced(losses: Tensor, reduction: Reduction) -> Tensor:
    """Return scaled losses as they are, or their sum."""
    if reduction == "none":
        return losses
    return note_mean(losses.sum(), losses.size) if reduction == "mean" else losses.sum()


def is_readable(x: Tensor) -> bool:
    """Whether looking at the elements costs no transfer: on the CPU."""
    return isinstance(x.backend, NumpyBackend)
