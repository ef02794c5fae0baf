"""Samples that are in the training and in its validation, which then tells nothing of new data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.user_warning import warn_user
from rumus.train.data.dataset import Subset


def warn_of_shared_samples(training: object, validation: object) -> None:
    """Warn of loaders of one dataset, or of parts of it, that have some samples in common.

    Not all of them: a validation of exactly what is trained on is meant to be one.
    """
    ours, theirs = (getattr(loader, "dataset", None) for loader in (training, validation))
    whole = _whole(ours)
    if whole is None or whole is not _whole(theirs):
        return
    if not isinstance(ours, Subset) and not isinstance(theirs, Subset):
        return
    trained, validated = (_taken(dataset, len(whole)) for dataset in (ours, theirs))
    shared = int(np.count_nonzero(trained & validated))
    if shared and not np.array_equal(trained, validated):
        warn_user(
            f"validate: {shared:,} of {np.count_nonzero(validated):,} samples are trained on, too, "
            "so that the model knows them: make parts without common samples, as random_split does"
        )


def _whole(dataset: Any) -> Any:
    return dataset.dataset if isinstance(dataset, Subset) else dataset


def _taken(dataset: Any, length: int) -> NDArray[np.bool_]:
    """Which samples of the whole dataset a part of it has."""
    found = np.zeros(length, np.bool_)
    found[dataset.indices if isinstance(dataset, Subset) else slice(None)] = True
    return found
