"""Metrics that are not the mean of those of batches, by name or value, and what computes them."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from rumus.tensor import Tensor

# What rumus.train.metrics has, by the words that name it.
_OWN: Final = {
    "f1": "f1",
    "precision": "precision",
    "recall": "recall",
    "sensitivity": "recall",
    "auc": "auroc",
    "au_c": "auroc",
    "auroc": "auroc",
    "roc": "auroc",
    "average_precision": "average_precision",
    "r2": "r2",
    "rmse": "root_mean_squared_error",
    "root_mean_squared_error": "root_mean_squared_error",
    "perplexity": "perplexity",
    "ppl": "perplexity",
}
_KEEPS_ALL: Final = ("auroc", "average_precision", "r2")


def _words(pattern: str) -> str:
    return rf"(?<![a-z])({pattern})(?![a-z])"


_SCORES: Final = re.compile(_words("|".join(sorted(_OWN, key=len, reverse=True))), re.IGNORECASE)
_OTHERS: Final = re.compile(
    _words(r"f_?beta|kappa|mcc|balanced_acc|balanced_accuracy"), re.IGNORECASE
)
# What may well be a mean over samples in one program, and is not in another.
_UNCLEAR: Final = re.compile(
    _words(
        r"map|iou|jaccard|dice|corr|correlation|pearson|spearman|specificity|bleu|wer|cer|ece|fid"
        r"|max|maximum|min|minimum|worst|median|quantile|percentile|p\d\d|std|stdev|variance"
    )
    + r"|^(n|num|number)(_|$)|^(counts?|hits|correct|sum|total)$",  # these add up
    re.IGNORECASE,
)
# Losses, and what each sample has of its own, such as the precision of the first five answers.
_OF_SAMPLES: Final = re.compile(r"loss|sample|(?<![a-z])per_|@|(?<![a-z])at_?\d", re.IGNORECASE)


def is_count(value: object) -> bool:
    """Whether it may be how many samples of a batch are of some kind: a whole number.

    >>> is_count(12), is_count(True), is_count(1), is_count(0.5)
    (True, False, False, False)
    """
    if isinstance(value, (int, np.integer)):
        return type(value) is not bool and value not in (0, 1)
    return isinstance(value, (Tensor, np.ndarray)) and value.dtype.kind in "iu"


def told_of_sum(name: str) -> str:
    """Return what to say of a sum or count of each batch that is averaged over batches."""
    return (
        f"{name!r} is a sum or a whole number for each batch, whose mean is none of all: divide "
        f"by the number of samples, or return metrics.MetricState({name!r}, (np.array(count),), "
        "float) of rumus.train, which adds up"
    )


def is_no_mean(name: str, *, certain: bool = False) -> bool:
    """Whether a metric of this name probably is not the mean of its values for batches.

    certain: leave out names of what may be a mean over samples, too.

    >>> is_no_mean("f1"), is_no_mean("val_loss"), is_no_mean("precision@5"), is_no_mean("median")
    (True, False, False, True)
    """
    if _OF_SAMPLES.search(name):
        return False
    found = _SCORES.search(name) or _OTHERS.search(name)
    return bool(found or (not certain and _UNCLEAR.search(name)))


def advice_for_step(name: str) -> str:
    """Return how a training step gets such a metric of all samples.

    >>> advice_for_step("macro_f1"), advice_for_step("auc")
    ('log metrics.f1(...) of rumus.train', 'measure metrics.auroc of rumus.train in a validation')
    """
    found = _SCORES.search(name)
    if found is None:
        return "log a MetricState of rumus.train.metrics, whose parts add up"
    metric = _OWN[found[1].lower()]
    if metric in _KEEPS_ALL:
        return f"measure metrics.{metric} of rumus.train in a validation"
    return f"log metrics.{metric}(...) of rumus.train"
