"""`find_lr`: finds a good learning rate by one sweep, and leaves the trainer unchanged."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rumus.optim import Optimizer
from rumus.optim.options.hyperparameter import Hyper, at_step
from rumus.tensor import NonFiniteGradientError
from rumus.tensor.expression.arguments import checked_first
from rumus.tensor.memory.uninterrupted import putting_back
from rumus.train.base.other_names import FIND_LR
from rumus.train.checkpoints.snapshot import check_declared
from rumus.train.data.batches import arguments, check_loader
from rumus.train.data.loader import continue_loop

if TYPE_CHECKING:
    from rumus.train.capture.captured_steps import LossFunction
from rumus.train.capture.step_function import check_loss_function
from rumus.train.loop.trainer import Trainer, check_trainer
from rumus.train.loop.undone import undone

WINDOW: Final = 10  # slopes are measured over one part in so many of the sweep
_NOTHING: Final = 1e-6  # the share of the loss that counts as rounding, not as a fall


@dataclass(frozen=True, slots=True)
class LearningRateSweep:
    """The result of `find_lr`, step by step.

    rates: the learning rates.
    losses: the loss at each rate.
    smoothed: their exponential average, corrected for its bias to 0.
    reason: why the sweep ended: "end", "diverged" or "not finite".
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    reason: str

    @property
    def suggestion(self) -> float | None:
        """The learning rate at which the smoothed loss falls fastest; None if it never falls.

        Slopes are taken over the logarithm of the rate, between points a tenth of the sweep apart.

        >>> from rumus.train import LearningRateSweep
        >>> rates = tuple(10.0**n for n in range(-4, 1))
        >>> LearningRateSweep(rates, (), (2.0, 1.9, 1.2, 0.9, 5.0), "end").suggestion
        0.01
        """
        values = self.smoothed
        half = max(1, len(values) // (2 * WINDOW))
        falls = {
            at: values[at - half] - values[at + half] for at in range(half, len(values) - half)
        }
        best = max(falls, key=falls.__getitem__, default=None)
        if best is None or falls[best] <= _NOTHING * abs(values[best]):
            return None
        return self.rates[best]

    @checked_first
    def draw(self, path: str | Path) -> None:
        """Write the curve as a picture, in the format of the suffix of `path`.

        path: the picture's path.

        Raises ImportError without Matplotlib: `pip install 'rumus-train[plot]'`.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError("drawing needs Matplotlib: pip install 'rumus-train[plot]'") from None
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(self.rates, self.losses, color="tab:blue", alpha=0.3, label="loss")
        axes.plot(self.rates, self.smoothed, color="tab:blue", label="smoothed")
        if (rate := self.suggestion) is not None:
            axes.axvline(rate, color="tab:red", linestyle="dashed", label=f"{rate:.2g}")
        if self.losses:
            low, high = min(self.losses), self.smoothed[0]
            axes.set_ylim(low - 0.1 * (high - low or 1), high + 0.3 * (high - low or 1))
        axes.set_xscale("log")
        axes.set(xlabel="learning rate", ylabel="loss")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)


@FIND_LR.as_keywords
def find_lr(
    trainer: Trainer[Any],
    loader: Iterable[Any],
    loss_fn: LossFunction,
    *,
    start: float = 1e-7,
    end: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.9,
    stop_factor: float = 4.0,
) -> LearningRateSweep:
    """Train for some steps with a growing learning rate, and return the losses.

    The rate grows exponentially from `start` to `end` over `steps` steps; the loss is smoothed
    exponentially with the factor `smoothing`. The sweep ends early if the smoothed loss exceeds
    `stop_factor` times its minimum, or a loss is not finite (Smith 2015, arXiv:1506.01186). A group
    with its own learning rate keeps its ratio to the optimizer's.

    Afterwards everything is bit for bit as before, even if a step fails or Ctrl-C interrupts it:
    parameters, the optimizer's state and counts, schedules, losses, the objects in
    `Trainer(state=...)`, and the place of a loader with `state_dict` and `load_state_dict`. The
    sweep reads its losses step by step.

    trainer: with the optimizer to find a learning rate for.
    loader: of batches.
    loss_fn: computes the loss of a batch, or a dict with it.
    start: the first learning rate, positive.
    end: the last learning rate, above `start`.
    steps: their number.
    smoothing: the factor of the exponential smoothing, in [0, 1).
    stop_factor: the multiple of the lowest loss that ends the sweep, above 1.

    Raises ValueError for numbers out of range, an optimizer without a learning rate, a loader that
    can be iterated over only once, and a module in `loss_fn` whose state could not be restored.

    >>> import numpy as np
    >>> from rumus.optim import SGD
    >>> from rumus.tensor import Parameter
    >>> from rumus.train import Trainer, find_lr
    >>> weight = Parameter([4.0], name="weight")
    >>> trainer = Trainer(SGD([weight], 0.25))
    >>> data = [(np.array([1.0], np.float32),), (np.array([2.0], np.float32),)]
    >>> sweep = find_lr(trainer, data, lambda x: ((weight - x) ** 2).mean())
    >>> sweep.reason, 0.001 < sweep.suggestion < 1, weight.tolist()
    ('diverged', True, [4.0])
    """
    check_trainer("find_lr", trainer)
    _check(start, end, steps, smoothing, stop_factor)
    rates = [start * (end / start) ** (at / (steps - 1)) for at in range(steps)]
    check_loader("find_lr", loader)
    continue_loop(loader)
    if isinstance(loader, Iterator):
        raise ValueError(
            "the loader is an iterator: the batches that the sweep takes would be lost"
        )
    check_loss_function(loss_fn)
    check_declared(loss_fn, trainer.state)
    with (
        undone(trainer, loader),
        _swept(trainer.optimizer) as set_rate,
        closing(_endless(loader)) as batches,
    ):
        return _sweep(trainer, loss_fn, batches, rates, set_rate, smoothing, stop_factor)


def _check(start: float, end: float, steps: int, smoothing: float, stop_factor: float) -> None:
    if not 0 < start < end < math.inf:
        raise ValueError(
            f"start and end must be finite with 0 < start < end, not {start} and {end}"
        )
    if steps < 2 or steps != int(steps):
        raise ValueError(f"steps must be a whole number of at least 2, not {steps!r}")
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must be in [0, 1), not {smoothing}")
    if not stop_factor > 1:
        raise ValueError(f"stop_factor must be greater than 1, not {stop_factor}")


def _sweep(
    trainer: Trainer[Any],
    loss_fn: LossFunction,
    batches: Iterable[tuple[Any, ...]],
    rates: list[float],
    set_rate: Callable[[float], None],
    smoothing: float,
    stop_factor: float,
) -> LearningRateSweep:
    losses: list[float] = []
    smoothed: list[float] = []
    average, reason = 0.0, "end"
    for at, (rate, batch) in enumerate(zip(rates, batches, strict=False)):
        set_rate(rate)
        try:
            loss = float(trainer.train_step(loss_fn, *batch))
        except NonFiniteGradientError:
            loss = math.nan
        if not math.isfinite(loss):
            reason = "not finite"
            break
        average = smoothing * average + (1 - smoothing) * loss
        losses.append(loss)
        smoothed.append(average / (1 - smoothing ** (at + 1)))
        lowest = min(smoothed)
        if smoothed[-1] > stop_factor * abs(lowest) and smoothed[-1] > smoothed[0]:
            reason = "diverged"
            break
    return LearningRateSweep(tuple(rates[: len(losses)]), tuple(losses), tuple(smoothed), reason)


def _endless(loader: Iterable[Any]) -> Generator[tuple[Any, ...], None, None]:
    """The batches of epoch after epoch; the first may be a partial one, even empty."""
    for epoch in count():
        batches = iter(loader)
        yielded = False
        try:
            for batch in batches:
                yielded = True
                yield arguments(batch)
        finally:
            if hasattr(batches, "close"):
                batches.close()
        if not yielded and epoch:
            raise ValueError("the loader yields nothing")


@contextmanager
def _swept(optimizer: Optimizer[Any]) -> Iterator[Callable[[float], None]]:
    """Within the block, the yielded function sets the learning rates; then they are restored."""
    owner: Any = getattr(optimizer, "fused", optimizer)
    held: list[dict[str, Hyper]] = [getattr(owner, "hyper", {})]
    if "lr" not in held[0]:
        raise ValueError(f"{optimizer} has no learning rate to sweep")
    held += [group.hyper for group in owner.groups if "lr" in group.hyper]
    step = owner.steps + 1
    before = [hyper["lr"] for hyper in held]
    main, *others = [at_step("lr", rate, step) for rate in before]
    ratios = [1.0, *(rate / main if main else 1.0 for rate in others)]

    def set_rate(rate: float) -> None:
        for hyper, ratio in zip(held, ratios, strict=True):
            hyper["lr"] = rate * ratio

    def put_back() -> None:
        for hyper, own in zip(held, before, strict=True):
            hyper["lr"] = own

    with putting_back(put_back):
        yield set_rate
