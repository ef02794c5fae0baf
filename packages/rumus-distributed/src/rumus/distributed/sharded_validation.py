"""Validation by several ranks: they split the batches, and the results are joined in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

from rumus.distributed.link import Link
from rumus.tensor import Backend
from rumus.train.base.metric_state import MetricState, add_up
from rumus.train.data.batch_numbers import BatchNumbers
from rumus.train.data.batches import whole_epoch
from rumus.train.loop.validation import Found, Measured, Measurement, Measuring
from rumus.train.loop.weighing import Basis


def measured_parts(
    link: Link,
    backend: Backend,
    validate: tuple[Any, Callable[..., Any]],
    weight_of: Callable[..., float] | None,
    trained: BatchNumbers | None,
) -> tuple[dict[int, Found], dict[int, Basis]]:
    """Return this rank's results for every `size`-th batch of a validation, by its index.

    And what has weighed the first of them. trained: the numbers of the training's batches.

    Raises ValueError for a loader that splits the rows of batches itself.
    """
    loader, metric_fn = validate
    if getattr(loader, "ranks", None) is not None:
        raise ValueError(
            "the validation loader distributes rows of its batches to ranks: leave ranks= out, "
            "since validation distributes whole batches"
        )
    measuring = Measuring(metric_fn, backend, weight_of, trained, is_part=True)
    with whole_epoch(loader):
        found = {
            number: measuring.of(batch)
            for number, batch in enumerate(loader)
            if number % link.size == link.rank
        }
    return found, dict(measuring.weighing.first)


def joined(link: Link, own: dict[int, Found], bases: dict[int, Basis]) -> Callable[[], Measurement]:
    """Exchange the ranks' results; return rank 0's total, added up in order.

    Functions of metrics are not sent: rank 0, which has the first batch, has them. The total raises
    ValueError if the samples do not weigh the ranks' batches equally.
    """
    sent = {number: _as_data(found) for number, found in own.items()}
    ranks = link.gather((sent, bases))
    parts = {number: found for rank, _ in ranks for number, found in rank.items()}
    parts |= own

    def result() -> Measurement:
        for _, there in ranks:
            for position, basis in there.items():
                first = ranks[0][1].get(position, basis)
                basis.check(first)
                basis.check_factors(first)
        total = Measured()
        for number in sorted(parts):
            total.add(parts[number])
        return total.result()

    return result


def _as_data(found: Found) -> Found:
    """The results on the host, ready to be sent."""
    return [
        (name, replace(add_up([value]), finish=_elsewhere), float(weight))
        if isinstance(value, MetricState)
        else (name, float(value), float(weight))
        for name, value, weight in found
    ]


def _elsewhere(*parts: Any) -> NoReturn:
    raise AssertionError("the first batch's state, of rank 0, has the function")
