"""Common code of losses: reductions, and checks of their arguments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import Expr, Tensor, TensorLike, elementwise, float16, float32, int32, tensor
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.graph.means import note_mean
from rumus.tensor.memory.recording import ask_host, is_recorded

T = TypeVar("T", Tensor, Expr)
Reduction: TypeAlias = Literal["mean", "sum", "none"]


@elementwise
def weighted(weight: T, loss: T) -> T:
    """The product; 0 for a weight of 0 and an infinite loss, NaN for one that is NaN."""
    is_none = weight._apply("eq", weight, 0.0)
    return weight * (is_none & loss._apply("eq", loss, math.inf)).where(0.0, loss)


def check_reduction(loss: str, reduction: str) -> None:
    """Raise ValueError for a reduction that does not exist."""
    check_choice(f"{loss}: reduction", reduction, ("mean", "sum", "none"))


def check_floating(loss: str, what: str, x: Tensor) -> None:
    """Raise TypeError for anything but a floating tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{loss}: {what} must be a tensor, not {shown(x)}")
    if x.dtype.kind != "f":
        raise TypeError(f"{loss}: {what} must be floating, not {x.dtype}")


def as_target(loss: str, prediction: Tensor, target: TensorLike, what: str = "target") -> Tensor:
    """Return `target` as a tensor on `prediction`'s backend; TypeError if it is not numeric."""
    if isinstance(target, Tensor):
        return target
    host = np.asarray(target)
    if host.dtype.kind not in "fiub":
        raise TypeError(f"{loss}: {what} must be numbers, not of dtype {host.dtype}")
    return tensor(host, dtype=prediction.dtype, backend=prediction.backend)


def as_integers(x: Tensor, given: Tensor | NDArray[Any]) -> Tensor:
    """Return checked integers as a tensor on `x`'s backend."""
    return given if isinstance(given, Tensor) else tensor(given, dtype=int32, backend=x.backend)


def widened(x: Tensor) -> Tensor:
    """Return `x`, in float32 if it is float16: losses are computed and returned in float32."""
    return x.astype(float32) if x.dtype == float16 else x


def check_pair(
    loss: str, prediction: Tensor, target: TensorLike, reduction: str
) -> tuple[Tensor, Tensor]:
    """Return `prediction`, in float32 if it is float16, and `target` as a tensor of its shape.

    ValueError if the shapes differ: (n, 1) and (n,) would broadcast to (n, n), and train on it.
    ValueError for a mean of nothing.
    """
    check_reduction(loss, reduction)
    check_floating(loss, "the prediction", prediction)
    prediction = widened(prediction)
    beside = as_target(loss, prediction, target)
    if beside.shape != prediction.shape:
        raise ValueError(
            f"{loss}: prediction {prediction.shape} and target {beside.shape} must have one shape; "
            "reshape or broadcast_to the target"
        )
    if reduction == "mean" and prediction.size == 0:
        raise ValueError(f"{loss}: the mean of no elements, shape {prediction.shape}")
    return prediction, beside


@dataclass(frozen=True, slots=True)
class Found:
    """Individual losses, before their reduction.

    count: how many of them count, None where only the weights say so. weights: how much each
    counts, of their shape, 0 where it does not, taken into account in the losses already; None for
    1.
    """

    losses: Tensor
    count: int | None
    weights: Tensor | None = None

    def reduced(
        self, loss: str, reduction: Reduction, sample_weight: TensorLike | None = None
    ) -> Tensor:
        """Return the losses, their sum, or their mean: the sum divided by that of the weights.

        sample_weight: additional weights; their axes are the leading ones of the losses, and one of
            length 1 broadcasts. ValueError if they do not fit or are negative or not finite, and
            for a mean of nothing.
        """
        if sample_weight is not None:
            own = sample_weights(loss, self.losses, sample_weight)
            both = own if self.weights is None else own * self.weights
            losses, weights = weighted(own, self.losses), both.broadcast_to(self.losses.shape)
            return Found(losses, None, weights).reduced(loss, reduction)
        if reduction == "none":
            return self.losses
        if reduction == "sum":
            return self.losses.sum()
        if self.count == 0:
            raise ValueError(
                f"{loss}: every target is ignored, so there is nothing to take a mean of"
            )
        if self.weights is None:
            assert self.count is not None
            return note_mean(self.losses.mean(), self.count)
        return self._weighted_mean(loss)

    def _weighted_mean(self, loss: str) -> Tensor:
        assert self.weights is not None
        total = self.weights.detach().sum()
        if is_readable(total):
            ask_host(partial(_check_total, loss), [total._array])
            if not is_recorded():
                return note_mean(self.losses.sum() / float(total), float(total))
        return note_mean(self.losses.sum() / total, total)


def _check_total(loss: str, total: NDArray[Any]) -> None:
    if total == 0:
        raise ValueError(f"{loss}: all weights are 0, so there is nothing to take a mean of")


def sample_weights(loss: str, losses: Tensor, weight: TensorLike) -> Tensor:
    """Return the weight of each loss; see `Found.reduced`."""
    beside = as_target(loss, losses, weight, "sample_weight").detach()
    pairs = zip(beside.shape, losses.shape, strict=False)
    if beside.ndim > losses.ndim or any(mine not in (1, other) for mine, other in pairs):
        raise ValueError(
            f"{loss}: sample_weight {beside.shape} does not fit the losses' shape {losses.shape}, "
            "from its first axis on"
        )
    if is_readable(beside):
        ask_host(partial(_check_sample_weights, loss), [beside._array])
    shape = (*beside.shape, *[1] * (losses.ndim - beside.ndim))
    return beside.astype(losses.dtype).reshape(*shape)


def _check_sample_weights(loss: str, values: NDArray[Any]) -> None:
    bad = np.argwhere(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        at = tuple(bad[0].tolist())
        raise ValueError(
            f"{loss}: sample_weight {values[at]} at index {at}; weights are finite and not negative"
        )


class Scaled(Protocol):
    """Computes losses times a number, in one kernel."""

    def __call__(self, *, scale: float) -> Tensor: ...  # noqa: D102


def of_elements(
    loss: str,
    losses: Scaled,
    size: int,
    reduction: Reduction,
    sample_weight: TensorLike | None,
) -> Tensor:
    """Return the reduction of `size` losses, which are computed times a given factor.

    So without sample weights, the mean is a sum of losses that the kernel has scaled.
    """
    if sample_weight is not None:
        return Found(losses(scale=1.0), size).reduced(loss, reduction, sample_weight)
    if reduction == "mean":
        return note_mean(losses(scale=1 / size).sum(), size)
    found = losses(scale=1.0)
    return found if reduction == "none" else found.sum()


def is_readable(x: Tensor) -> bool:
    """Whether reading the elements needs no transfer, as on the CPU."""
    return not x.backend.runs_ahead
