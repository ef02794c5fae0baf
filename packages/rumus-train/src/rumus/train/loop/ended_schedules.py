"""`warn_of_dead_end`: a learning rate that is 0 long before the run ends trains nothing."""

from __future__ import annotations

from typing import Any

from rumus.optim import Optimizer, Schedule
from rumus.tensor.expression.user_warning import warn_user
from rumus.train.checkpoints.snapshot import hyperparameters_of


def warn_of_dead_end(optimizer: Optimizer[Any], steps: int | None) -> None:
    """Warn of schedules that are all at 0 for more than the last step of a run.

    Only what a schedule says of its length is looked at: others may have other values each time.

    optimizer: at the start of the run.
    steps: of the run, from now on; None if nobody knows.
    """
    found = hyperparameters_of(optimizer).items()
    rates = {name: rate for name, rate in found if name.rpartition(".")[2] == "lr"}
    lengths = [_dead_after(rate) for rate in rates.values()]
    ends = [length for length in lengths if length is not None]
    if steps is None or not ends or len(ends) < len(lengths):
        return
    last, end = optimizer.steps + steps, max(ends)
    if last > end + 1:
        told = " and ".join(f"{name}={rate}" for name, rate in rates.items())
        warn_user(
            f"{told}: it is 0 after step {end}, but the run ends with step {last} of the "
            "optimizer, so that the steps between train nothing: give the schedule the steps of "
            "the run, which are its batches divided by accumulate="
        )


def _dead_after(rate: object) -> int | None:
    """The step after which a schedule stays at 0, None if it does not."""
    if not isinstance(rate, Schedule) or rate.length is None:
        return None
    return rate.length if rate(rate.length + 1) == 0 else None
