"""`find_batch_size`: the largest batch whose captured step fits in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rumus.tensor import Tensor
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.whole_number import whole_number
from rumus.train.base.calling import as_dict
from rumus.train.base.other_names import FIND_BATCH_SIZE
from rumus.train.capture.step_function import check_loss_function
from rumus.train.checkpoints.snapshot import check_declared
from rumus.train.loop.progress import size
from rumus.train.loop.trainer import Trainer, check_trainer
from rumus.train.loop.undone import undone

if TYPE_CHECKING:
    from rumus.train.capture.captured_steps import LossFunction

_MOST: Final = 1 << 16
_NO_ROOM: Final = ("OutOfMemoryError", "LimitError", "MemoryError")  # two of them are rumus.gpu's


@dataclass(frozen=True, slots=True)
class BatchSizeSearch:
    """The result of `find_batch_size`.

    size: the largest number of samples that fits, a multiple of `multiple`.
    peak: the bytes held while a step of this size runs.
    peaks: the same for each size that was tried; None if the device ran out of memory.
    """

    size: int
    peak: int
    peaks: Mapping[int, int | None]


@FIND_BATCH_SIZE.as_keywords
def find_batch_size(
    trainer: Trainer[Any],
    batch: Sequence[Any] | Mapping[str, Any],
    loss_fn: LossFunction,
    *,
    memory: int,
    multiple: int = 8,
    most: int = _MOST,
) -> BatchSizeSearch:
    """Return the largest batch size whose training step takes no more than `memory`.

    Each size is tried with two steps; the captured step then has a known peak: parameters,
    gradients, optimizer state, and all intermediate results. The peak grows almost linearly with
    the batch, so a handful of sizes is enough. A size that does not fit on the device is too large,
    whatever `memory` is. Afterwards the trainer is bit for bit as before, and the memory is
    released.

    trainer: with `capture=True`, the default.
    batch: an example, a tuple or dict of arrays with samples along the first axis. Its rows are
        repeated for larger batches, so use real data: lengths and classes matter.
    loss_fn: as for `train_step`.
    memory: the bytes that training may use on the device. WebGPU does not report how much there is;
        leave some for validation and other programs.
    multiple: the size is a multiple of it; at least 1.
    most: the upper limit of the search, in samples.

    Raises ValueError if not even `multiple` samples fit, with the memory they take; for a step that
    is not captured, with the reason; for numbers out of range and a batch without rows. Also raises
    like `train_step`.

    >>> import numpy as np
    >>> from rumus.optim import SGD
    >>> from rumus.tensor import Parameter
    >>> from rumus.train import Trainer, find_batch_size
    >>> weight = Parameter(np.zeros((8, 8), np.float32), name="weight")
    >>> found = find_batch_size(
    ...     Trainer(SGD([weight])), (np.ones((4, 8), np.float32),),
    ...     lambda x: ((x @ weight) ** 2).mean(), memory=1 << 20)
    >>> found.peak <= 1 << 20, found.size % 8, float(weight.abs().sum())
    (True, 0, 0.0)
    """
    check_trainer("find_batch_size", trainer)
    memory, multiple = whole_number("memory", memory), whole_number("multiple", multiple)
    most = whole_number("most", most)
    if memory < 1 or multiple < 1 or most < multiple:
        raise ValueError(
            f"memory and multiple must be at least 1, and most at least multiple, not {memory}, "
            f"{multiple} and {most}"
        )
    check_loss_function(loss_fn)
    check_declared(loss_fn, trainer.state)
    if not isinstance(batch, (Mapping, tuple, list)):
        raise TypeError(
            f"find_batch_size: batch must be a tuple or a dict of arrays, not {shown(batch)}"
        )
    given = (batch,) if isinstance(batch, Mapping) else tuple(batch)
    search = _Search(trainer, given, loss_fn, memory)
    with undone(trainer):
        found = search.between(multiple, most)
    return BatchSizeSearch(found, search.peak(found), dict(search.peaks))


class _Search:
    """Peaks by batch size, each measured once."""

    def __init__(
        self, trainer: Trainer[Any], batch: tuple[Any, ...], loss_fn: LossFunction, memory: int
    ) -> None:
        self._trainer, self._loss_fn, self._memory = trainer, loss_fn, memory
        self._batch = batch
        self.peaks: dict[int, int | None] = {}
        _rows(batch)  # or an error

    def between(self, multiple: int, most: int) -> int:
        """The largest multiple up to `most` that fits; its double, or the next one, does not."""
        good, bad = 0, most // multiple + 1  # in multiples: one that fits, one that does not
        at = 1
        while bad - good > 1:
            if self._fits(at * multiple):
                good = at
            else:
                bad = at
            if not good and bad == 1:
                raise self._too_small(multiple)
            at = min(max(self._guess(multiple) or 2 * good, good + 1), bad - 1)
        return good * multiple

    def peak(self, count: int) -> int:
        """The bytes of a size that fits."""
        found = self.peaks[count]
        assert found is not None
        return found

    def _fits(self, count: int) -> bool:
        if count not in self.peaks:
            self.peaks[count] = self._measured(count)
        found = self.peaks[count]
        return found is not None and found <= self._memory

    def _guess(self, multiple: int) -> int | None:
        """Where a line through the two largest measured sizes meets the memory."""
        known = sorted((count, peak) for count, peak in self.peaks.items() if peak is not None)
        if len(known) < 2:
            return None
        (count, peak), (other, higher) = known[-2:]
        slope = (higher - peak) / (other - count)
        if slope <= 0:
            return None
        return int((other + (self._memory - higher) / slope) // multiple)

    def _measured(self, count: int) -> int | None:
        """The peak of a step of so many samples; None if it does not fit on the device."""
        trainer = self._trainer
        batch = _resized(self._batch, count)
        try:
            with trainer.stepper.apart():
                for _ in range(2):
                    trainer.train_step(self._loss_fn, *batch)
                report = trainer.memory_report()
                reasons = trainer.counts.reasons
        except Exception as error:
            if type(error).__name__ in _NO_ROOM and self.peaks:
                return None
            raise
        if report.peak is None:
            why = next(iter(reasons.values()), "its code is another one each time")
            raise ValueError(
                f"the memory of a step is known only if it is captured, and it is not: {why}"
            )
        return report.peak

    def _too_small(self, multiple: int) -> ValueError:
        peak = self.peaks[multiple]
        taken = "more than the device has" if peak is None else size(peak)
        return ValueError(
            f"a step of {multiple} samples takes {taken}, but memory= is {size(self._memory)}: "
            "use a smaller model, `nn.checkpoint`, or fewer samples with fit(accumulate=...)"
        )


def _rows(batch: tuple[Any, ...]) -> int:
    """The number of samples of a batch. Raises ValueError for none."""
    named = as_dict(batch)
    values = batch if named is None else tuple(named.values())
    rows = {len(value) for value in values if _is_array(value)}
    if len(rows) != 1 or not min(rows):
        raise ValueError(
            "batch must be arrays with the same number of samples, at least one, along the first "
            f"axis, not {sorted(rows) or 'no array'}"
        )
    return rows.pop()


def _resized(batch: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """The batch with its rows repeated to the given number."""
    taken = np.arange(count) % _rows(batch)
    named = as_dict(batch)
    if named is not None:
        return ({name: _taken(value, taken) for name, value in named.items()},)
    return tuple(_taken(value, taken) for value in batch)


def _taken(value: Any, taken: Any) -> Any:
    if not _is_array(value):
        return value
    return (value.numpy() if isinstance(value, Tensor) else value)[taken]


def _is_array(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray)) and bool(value.ndim)
