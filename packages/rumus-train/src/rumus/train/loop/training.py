"""`Training`: what a script passes to the command line: everything `Trainer.fit` needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from rumus.train.base.every import Every
from rumus.train.base.other_names import TRAINING
from rumus.train.capture.captured_steps import LossFunction
from rumus.train.loop.callback import Callback
from rumus.train.loop.monitor import Mode
from rumus.train.loop.result import Result
from rumus.train.loop.rollback import OnNonFinite
from rumus.train.loop.spikes import Spikes
from rumus.train.loop.trainer import Trainer
from rumus.train.loop.validation import Validate


@TRAINING.of_instances
@dataclass
class Training:
    """A trainer, its data, its loss, and the other arguments of `Trainer.fit`; see there.

    trainer: the trainer.
    loader: see `Trainer.fit`.
    loss_fn: computes the loss of a batch, or a dict with it.
    epochs: see `Trainer.fit`.
    steps: see `Trainer.fit`.
    seconds: see `Trainer.fit`.
    validate: see `Trainer.fit`.
    validate_every: see `Trainer.fit`.
    accumulate: see `Trainer.fit`.
    weight_of: see `Trainer.fit`.
    nonfinite: see `Trainer.fit`.
    spikes: see `Trainer.fit`.
    rollbacks: see `Trainer.fit`.
    callbacks: see `Trainer.fit`.
    save_every: see `Trainer.fit`.
    monitor: see `Trainer.fit`.
    mode: see `Trainer.fit`.
    restore_best: see `Trainer.fit`.
    progress: see `Trainer.fit`.
    read, predict_fn: for `rumus predict`: a function from a path to the batches of new data, and a
        function from a batch to its predictions, by default the model called with its first array.

    Checkpoints and resuming are chosen when it runs: by `rumus train`, or by the options of `fit`.

    >>> import numpy as np
    >>> from rumus.optim import SGD
    >>> from rumus.tensor import Parameter
    >>> from rumus.train import Trainer, Training
    >>> weight = Parameter([4.0], name="weight")
    >>> data = [(np.array([1.0, 2.0]),)]
    >>> trainer = Trainer(SGD([weight], 0.25))
    >>> training = Training(trainer, data, lambda x: ((weight - x) ** 2).mean(), epochs=3)
    >>> training.fit().steps, training.fit(epochs=1).steps
    (3, 1)
    """

    _rereads: ClassVar[frozenset[str]]  # all of its fields, when it begins

    trainer: Trainer[Any]
    loader: Iterable[Any]
    loss_fn: LossFunction
    _: KW_ONLY
    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None
    validate: Validate | None = None
    validate_every: Every | None = None
    accumulate: int = 1
    weight_of: Callable[..., float] | None = None
    nonfinite: OnNonFinite | None = None
    spikes: Spikes | None = None
    rollbacks: int | None = None
    callbacks: Sequence[Callback] = ()
    save_every: Every | None = None
    monitor: str | None = None
    mode: Mode | None = None
    restore_best: bool = False
    progress: Literal["auto"] | None = "auto"
    read: Callable[[Path], Iterable[Any]] | None = None
    predict_fn: Callable[..., Any] | None = None

    def fit(self, **options: Any) -> Result:
        """Call `trainer.fit` with all of it; options override it or are added.

        options: see `FusedOptimizer`.
        """
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("trainer", "read", "predict_fn"):
            given.pop(name)
        return self.trainer.fit(**{**given, **options})


Training._rereads = frozenset(field.name for field in fields(Training))
