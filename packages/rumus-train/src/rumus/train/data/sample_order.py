"""Whether the batches of a loader are the samples of its dataset, in their order."""

from __future__ import annotations

from typing import Any

from rumus.tensor.expression.user_warning import warn_user
from rumus.train.data.mixing import Mixup


def require_rows_of_samples(loader: object) -> None:
    """Raise ValueError unless row i of what a loader yields is sample i, for all samples.

    It looks at DataLoader and StreamLoader, and at PyTorch's loader, whose sampler shuffles.
    """
    require_own_samples(loader)
    given: Any = loader
    sampler = getattr(given, "sampler", None)
    is_random = "Random" in type(sampler).__name__  # PyTorch's
    if getattr(given, "shuffle", False) or is_random:
        raise _refused("shuffles", "a loader without shuffle=True")
    if callable(getattr(sampler, "order", None)):
        raise _refused("has a sampler, which chooses", "DataLoader(dataset, batch_size) without it")
    if getattr(given, "drop_last", False) and _drops(given):
        raise ValueError(
            "the loader leaves out the last samples, which would have no predictions: a loader "
            "without drop_last=True"
        )


def require_own_samples(loader: object) -> None:
    """Raise ValueError for a loader that yields mixtures of samples, or those of one rank."""
    given: Any = loader
    if isinstance(getattr(given, "batch_transform", None), Mixup):
        raise ValueError(
            f"the loader mixes samples by {type(given.batch_transform).__name__}: give one without "
            "that batch_transform="
        )
    if getattr(getattr(given, "ranks", None), "size", 1) > 1:
        raise ValueError("the loader yields this rank's samples alone: give one without ranks=")


def warn_of_other_samples(loader: object, what: str = "the loader") -> None:
    """Warn of metrics of mixtures, or not of all samples. what: the loader, for messages."""
    given: Any = loader
    if isinstance(mixing := getattr(given, "batch_transform", None), Mixup):
        warn_user(
            f"{what} mixes samples by {type(mixing).__name__}, so that metrics "
            "are of the mixtures: give one without that batch_transform="
        )
    if getattr(given, "drop_last", False) and _drops(given):
        warn_user(
            f"{what} leaves out the last samples, which no metric counts then: give one without "
            "drop_last=True"
        )


def _refused(what: str, instead: str) -> ValueError:
    return ValueError(
        f"the loader {what}, so row i of the predictions would not belong to sample i: use "
        f"{instead}"
    )


def _drops(loader: Any) -> bool:
    """Whether there are samples in the last, incomplete batch; nobody knows it of a stream."""
    try:
        return bool(len(loader.dataset) % loader.batch_size)
    except (AttributeError, TypeError):
        return True
