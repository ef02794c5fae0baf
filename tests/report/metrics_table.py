"""The metrics compared with scikit-learn's, in Markdown: `python tests/report/metrics_table.py`.

2,000 samples with ties among the scores and a class that never occurs, cut into batches of 64 and a
last one of 16. The difference is between the metric of all batches together and scikit-learn's over
the whole set; the other column shows how far the mean of the batches' metrics is from it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from rumus.train import metrics
from rumus.train.metrics import MetricState

SAMPLES, CLASSES, BATCH = 2000, 6, 64


def rows() -> list[tuple[str, str, Callable[..., MetricState], Any, Any, float]]:
    """The names here and there, the metric, its input, and scikit-learn's result."""
    from sklearn import metrics as sklearn

    random = np.random.default_rng(0)
    scores = random.integers(0, 8, (SAMPLES, CLASSES)).astype(np.float32)
    targets = random.integers(0, CLASSES - 1, SAMPLES)
    said = scores.argmax(1)
    chances = random.integers(0, 50, SAMPLES) / 50
    truths = (random.random(SAMPLES) < 0.2 + 0.5 * chances).astype(np.int64)
    found, wanted = random.normal(size=(2, SAMPLES))
    odds = np.exp(scores.astype(np.float64))
    odds /= odds.sum(1, keepdims=True)
    macro: dict[str, Any] = {"average": "macro", "zero_division": 0}
    labels = range(CLASSES)
    return [
        ("accuracy", "accuracy_score", metrics.accuracy, scores, targets,
         sklearn.accuracy_score(targets, said)),
        ("precision", 'precision_score(average="macro")', metrics.precision, scores, targets,
         sklearn.precision_score(targets, said, **macro)),
        ("recall", 'recall_score(average="macro")', metrics.recall, scores, targets,
         sklearn.recall_score(targets, said, **macro)),
        ("f1", 'f1_score(average="macro")', metrics.f1, scores, targets,
         sklearn.f1_score(targets, said, **macro)),
        ("auroc", "roc_auc_score", metrics.auroc, chances, truths,
         sklearn.roc_auc_score(truths, chances)),
        ("average_precision", "average_precision_score", metrics.average_precision, chances,
         truths, sklearn.average_precision_score(truths, chances)),
        ("perplexity", "exp of log_loss", metrics.perplexity, scores, targets,
         np.exp(sklearn.log_loss(targets, odds, labels=labels))),
        ("r2", "r2_score", metrics.r2, found, wanted, sklearn.r2_score(wanted, found)),
        ("mean_absolute_error", "mean_absolute_error", metrics.mean_absolute_error, found, wanted,
         sklearn.mean_absolute_error(wanted, found)),
        ("root_mean_squared_error", "root_mean_squared_error", metrics.root_mean_squared_error,
         found, wanted, sklearn.root_mean_squared_error(wanted, found)),
    ]  # fmt: skip


def table() -> str:
    """Return the table."""
    lines = [
        "| `rumus.train.metrics` | scikit-learn | value | difference | of the mean of batches |",
        "|---|---|---|---|---|",
    ]
    cuts = [slice(start, start + BATCH) for start in range(0, SAMPLES, BATCH)]
    for name, theirs, metric, given, targets, expected in rows():
        parts = [metric(given[cut], targets[cut]) for cut in cuts]
        whole, mean = float(reduce(add, parts)), float(np.mean([float(part) for part in parts]))
        lines.append(
            f"| `{name}` | `{theirs}` | {expected:.6f} | {abs(whole - float(expected)):.0e} "
            f"| {abs(mean - float(expected)):.0e} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
