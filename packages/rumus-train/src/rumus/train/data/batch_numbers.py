"""`BatchNumbers`: what numbers the fields of a training's batches hold, for others to be alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import Tensor
from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.calling import as_dict, values_of
from rumus.train.base.printable import printable

_KINDS: Final = {"f": "floating", "i": "whole", "u": "whole", "b": "true or false"}
_LOOK: Final = 1 << 16  # elements that tell how large all are
FEW: Final = 32  # that tell nothing
OTHER_SCALE: Final = 30.0  # times as large: pixels up to 255 are, beside those up to 1


@dataclass(frozen=True, slots=True)
class _Field:
    """The dtype and the number of axes of a field, and the median size of its numbers but for 0."""

    dtype: np.dtype[Any]
    axes: int
    size: float | None  # None if it is unknown

    @property
    def kind(self) -> str:
        return _KINDS.get(self.dtype.kind, str(self.dtype))


class BatchNumbers:
    """The kinds and sizes of numbers in the first batch of a training.

    A model that was trained on pixels from 0 to 1 says nothing of those from 0 to 255, as of a
    validation that lacks a transform. Fields of both another kind and other axes are no such pair:
    `Mixup` makes probabilities of class numbers.
    """

    def __init__(self, batch: Sequence[Any]) -> None:
        self._fields = dict(_fields(batch))
        self._told: set[str] = set()

    def warn_of_others(self, batch: Sequence[Any], of: str) -> None:
        """Warn once of a batch with a field of another kind or size of numbers.

        of: what has the batch, such as "the validation".
        """
        if of in self._told:
            return
        self._told.add(of)
        for name, theirs in _fields(batch):
            ours = self._fields.get(name)
            if ours is None or (ours.axes != theirs.axes and ours.kind != theirs.kind):
                continue  # class numbers that became probabilities
            if ours.axes != theirs.axes:
                warn_user(
                    f"{name} of the batches has {ours.axes} axes in training and {theirs.axes} in "
                    f"{of}: give both the same shape but for the number of samples"
                )
                return
            if ours.kind != theirs.kind:
                how = f"{ours.kind} numbers ({ours.dtype}) in training and {theirs.kind} ones "
                how += f"({theirs.dtype}) in {of}"
            elif _are_apart(ours.size, theirs.size):
                how = f"numbers of about {ours.size:.2g} in training and of {theirs.size:.2g} in "
                how += of
            else:
                continue
            warn_user(
                f"{name} of the batches holds {how}: convert and scale both alike, as by the same "
                "transform"
            )
            return


def _fields(batch: Sequence[Any]) -> Iterator[tuple[str, _Field]]:
    named = as_dict(batch)
    names = [f"field {n}" for n in range(len(batch))] if named is None else map(repr, named)
    for name, value in zip(names, values_of(batch), strict=True):
        if isinstance(value, (np.ndarray, Tensor)):
            axes = len(value.shape)
            yield printable(name), _Field(value.dtype, axes, _size(value) if axes > 1 else None)


def _size(value: NDArray[Any] | Tensor) -> float | None:
    """The median size of some of the numbers but for 0; None if there are few, or on a device."""
    if isinstance(value, Tensor):
        if value.backend.runs_ahead:
            return None
        value = value.numpy()
    if value.dtype.kind not in "iuf":
        return None
    flat = value.reshape(-1)
    if flat.size > _LOOK:
        flat = flat[np.random.default_rng(0).integers(0, flat.size, _LOOK)]
    sizes = np.abs(flat.astype(np.float64))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    return float(np.median(sizes)) if sizes.size >= FEW else None


def _are_apart(ours: float | None, theirs: float | None) -> bool:
    if ours is None or theirs is None:
        return False
    return max(ours, theirs) > OTHER_SCALE * min(ours, theirs)
