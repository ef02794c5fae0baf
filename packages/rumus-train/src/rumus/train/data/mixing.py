"""`Mixup` and `CutMix`: batches that mix pairs of samples and their targets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.arguments import checked_fields
from rumus.tensor.expression.decided import fixed
from rumus.tensor.expression.whole_number import whole_number
from rumus.train.base.exact_difference import difference
from rumus.train.base.fields import fields_of, names_of, values_in


@fixed
@checked_fields
@dataclass(frozen=True)
class Mixup:
    """Mixes samples as x = lam x_i + (1 - lam) x_j, and their targets alike.

    A loader takes it as `batch_transform=`.

    classes: the number of classes. Class indices become probabilities (samples, classes), which
        `cross_entropy_loss` accepts; probabilities are mixed directly. None for a regression, whose
        targets are floating, of any shape, and mixed directly.
    alpha: lam is drawn from Beta(alpha, alpha) for each batch.
    share: the share of batches to mix.

    Raises ValueError for an alpha that is not positive, a share outside [0, 1], a target that is
    not a class, whole numbers that float32 rounds, and targets that could be class indices or those
    of a regression: the mean of class 0 and class 2 is not class 1.

    The first field is mixed, and the last is the target. Zhang et al.: arXiv:1710.09412.

    >>> import numpy as np
    >>> from rumus.train import Mixup
    >>> x, y = np.array([[0.0], [1.0]], np.float32), np.array([0, 1])
    >>> mixed, targets = Mixup(2)((x, y), np.random.default_rng(0))
    >>> bool((mixed[:, 0] == targets[:, 1]).all()), targets.sum(1).tolist()
    (True, [1.0, 1.0])
    """

    classes: int | None
    alpha: float = 0.2
    share: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha must be finite and positive, not {self.alpha}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must be in [0, 1], not {self.share}")
        if self.classes is not None and whole_number("classes", self.classes) < 1:
            raise ValueError(f"classes must be at least 1, not {self.classes}")

    def __call__(self, batch: Any, generator: np.random.Generator) -> Any:
        """Return the mixed batch."""
        names, values = names_of(batch), [*values_in(batch)]
        if len(values) < 2:
            raise ValueError("mixing needs a target as the last field")
        targets = _mixable(np.asarray(values[-1]), self.classes)
        others = generator.permutation(len(targets))
        lam = float(generator.beta(self.alpha, self.alpha))
        if values[0].dtype.kind != "f" and type(self) is Mixup:  # in every batch, mixed or not
            values[0] = _as_floats(values[0])
        if generator.random() < self.share:
            values[0], lam = self._mixed(values[0], others, lam, generator)
            targets = (lam * targets + (1 - lam) * targets[others]).astype(targets.dtype)
        values[-1] = targets
        return fields_of(names, values)

    def _mixed(
        self, x: NDArray[Any], others: NDArray[Any], lam: float, generator: np.random.Generator
    ) -> tuple[NDArray[Any], float]:
        """Return the mixture, and the share of the first samples in it."""
        return (lam * x + (1 - lam) * x[others]).astype(x.dtype), lam


@fixed
@checked_fields
@dataclass(frozen=True)
class CutMix(Mixup):
    """Replaces a rectangle of each image by another image's, and mixes targets by its area.

    classes: the number of classes; None for a regression.
    alpha: positive parameter of the Beta distribution of the area.
    share: the share of batches to mix, in [0, 1].
    channels_last: images are (samples, height, width, channels) instead of (samples, channels,
        height, width). Otherwise like `Mixup`. Yun et al.: arXiv:1905.04899.

    A batch with 1, 3 or 4 channels in the other place raises ValueError.

    >>> import numpy as np
    >>> from rumus.train import CutMix
    >>> x = np.arange(2)[:, None, None, None] * np.ones((2, 1, 8, 8))
    >>> mixed, targets = CutMix(2, 1.0)((x, np.array([0, 1])), np.random.default_rng(1))
    >>> bool(np.allclose(mixed.mean((1, 2, 3)), targets[:, 1]))
    True
    """

    alpha: float = 1.0
    channels_last: bool = field(default=False, kw_only=True)

    def _mixed(
        self, x: NDArray[Any], others: NDArray[Any], lam: float, generator: np.random.Generator
    ) -> tuple[NDArray[Any], float]:
        if x.ndim != 4:
            raise ValueError(f"CutMix needs images (samples, 3 axes), not shape {x.shape}")
        here, there = (x.shape[3], x.shape[1]) if self.channels_last else (x.shape[1], x.shape[3])
        if there in CHANNELS and here not in CHANNELS:
            order = "first" if self.channels_last else "last"
            raise ValueError(
                f"the images, of shape {x.shape[1:]}, have their channels {order}, so that a "
                f"rectangle would cut channels off: CutMix(channels_last={not self.channels_last})"
            )
        images = x.copy()
        shown = images if self.channels_last else images.transpose(0, 2, 3, 1)
        height, width = shown.shape[1:3]
        side = math.sqrt(1 - lam)
        row, column = generator.random(2) * (height, width)
        top, bottom = _bounds(row, side * height, height)
        left, right = _bounds(column, side * width, width)
        shown[:, top:bottom, left:right] = shown[others, top:bottom, left:right]
        return images, 1 - (bottom - top) * (right - left) / (height * width)


CHANNELS: Final = (1, 3, 4)  # of usual images


def _as_floats(x: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers as float32. ValueError for those that it rounds, such as identifiers."""
    found = x.astype(np.float32)
    if x.dtype.kind in "iu" and difference(x, found).any():
        raise ValueError(
            f"Mixup mixes numbers as float32, which rounds some of the first field, of {x.dtype}: "
            "convert it first, as x.astype(numpy.float64), or leave out what cannot be mixed"
        )
    return found


def _bounds(middle: float, length: float, whole: int) -> tuple[int, int]:
    start, stop = round(middle - length / 2), round(middle + length / 2)
    return max(0, start), min(whole, stop)


def _mixable(targets: NDArray[Any], classes: int | None) -> NDArray[Any]:
    """The targets as numbers to mix. Raises ValueError if they do not match `classes`."""
    told = f"{targets.dtype} of shape {targets.shape}, the last field of the batch"
    is_floating = targets.dtype.kind == "f"
    if classes is None:
        if is_floating:
            return targets
        raise ValueError(
            f"targets are {told}: give classes= to mix class numbers as probabilities; regression "
            "targets must be floating"
        )
    if is_floating and targets.ndim == 2 and targets.shape[1] == classes:
        return targets
    if is_floating:
        raise ValueError(
            f"targets are {told}: class numbers must be integers, such as "
            f"targets.astype(np.int32), and probabilities of shape ({len(targets)}, {classes}); "
            "classes=None mixes regression targets"
        )
    is_known = targets.dtype.kind in "iu" and ((targets >= 0) & (targets < classes)).all()
    if targets.ndim != 1 or not is_known:
        raise ValueError(
            f"targets must be class numbers in [0, {classes}), but are {told}, {_range(targets)}"
        )
    found: NDArray[Any] = np.eye(classes, dtype=np.float32)[targets]
    return found


def _range(targets: NDArray[Any]) -> str:
    return f"from {targets.min()} to {targets.max()}" if targets.size else "empty"
