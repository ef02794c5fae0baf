"""`Trainer`: trains with one optimizer, step by step or in one call."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from os import PathLike
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, Self

from rumus.optim import FusedOptimizer, LossScale, Optimizer
from rumus.optim.options.group import M_co
from rumus.tensor import Backend, GradientStore, Tensor, cpu
from rumus.tensor.expression.arguments import checked_first, place_arguments
from rumus.tensor.expression.decided import check_of_class, decided, is_decided
from rumus.tensor.expression.real_number import real_number
from rumus.train.base.limits import Limits
from rumus.train.base.other_names import FIT, TRAINER, TRAINER_OPTIONS
from rumus.train.base.ranks import check_ranks, is_part
from rumus.train.base.scaling import scalable
from rumus.train.capture.captured_steps import Counts, LossFunction
from rumus.train.capture.step_function import check_loss_function
from rumus.train.data.batches import samples
from rumus.train.loop.stepper import Stepper
from rumus.train.loop.weighing import MeanLoss

if TYPE_CHECKING:  # imports that only `fit` needs are inside it
    from pathlib import Path

    from rumus.train.base.every import Every
    from rumus.train.checkpoints.checkpoint_store import Resume, Store
    from rumus.train.data.batch_numbers import BatchNumbers
    from rumus.train.loop.callback import Callback
    from rumus.train.loop.memory_report import MemoryReport
    from rumus.train.loop.monitor import Mode
    from rumus.train.loop.prediction import Metrics, Prediction
    from rumus.train.loop.result import Result
    from rumus.train.loop.rollback import OnNonFinite
    from rumus.train.loop.spikes import Spikes
    from rumus.train.loop.team import Team, TrainingRanks
    from rumus.train.loop.validation import Validate
    from rumus.train.tables.meaning import Meaning


@place_arguments
class Trainer(Generic[M_co]):
    """Runs steps with one optimizer: forward, backward, update.

    capture: `train_step(loss_fn, *batch)` runs the first step of a kind as usual, records the
    second, and from then on replays its commands on new data without running `loss_fn`. The results
    are the same, bit for bit. A kind of step is given by the function, its closure, the shapes and
    dtypes of the batch's arrays, and the batch's other values; the eight most recent kinds are
    kept. Whatever else `loss_fn` reads (globals, attributes, elements of lists and dicts, small
    arrays) is noted while it runs and compared before each replay: if it differs, another step is
    recorded. A step whose values change each time (iterators, clocks, random numbers from anything
    but a `Generator`, counters) is not captured, and a CaptureWarning says why, once. Now and then,
    at growing intervals and at the start of an epoch, the code runs instead of a replay and is
    compared with the recording, to detect reads inside C code. On a GPU, `loss_fn` must not read
    from the device, upload anything but draws of a `Generator`, or branch on tensors; otherwise a
    CaptureError says what it did. On the CPU such a step runs as usual; there is no warning, but
    `counts.reasons` says why. With capture=False, and for a closure without a batch, the code runs
    each time.

    state: objects that checkpoints of `fit` hold beside the optimizer and its parameters, by name:
    modules (with their buffers and random streams), random generators of rumus, NumPy and Python,
    and objects with `state_dict` and `load_state_dict`. Its modules are in evaluation mode during
    validation. Raises ValueError for a name that is not an identifier.

    loss_scale: for float16 parameters and activations: backward starts at a scale instead of 1, and
        the optimizer's update divides the gradients by it. The scale stays on the parameters'
        backend; it falls when a step overflows and rises now and then; see `LossScale`. With
        nonfinite="raise", a step raises only at the smallest scale. An optimizer with a scale from
        another trainer keeps it if none is given here. Raises TypeError for an optimizer without
        support for it.

    ranks: the processes that train together, from `rumus.distributed.ranks()`; `fit` then takes a
        `DataLoader(..., ranks=ranks)` and sums the gradients over all ranks. zero: with ranks, each
        keeps only its part of the optimizer's state (ZeRO-1).

    >>> from rumus.optim import SGD
    >>> from rumus.tensor import Parameter
    >>> from rumus.train import Trainer
    >>> weight = Parameter([4.0], name="weight")
    >>> trainer = Trainer(SGD([weight], 0.25))
    >>> for _ in range(2):
    ...     loss = trainer.train_step(lambda: (weight * weight).sum())
    >>> weight.tolist(), trainer.epoch_avg_loss()
    ([1.0], 10.0)
    """

    def __init__(
        self,
        optimizer: Optimizer[M_co] | Sequence[FusedOptimizer[M_co]],
        *,
        capture: bool = True,
        state: Mapping[str, Any] | None = None,
        loss_scale: LossScale | None = None,
        ranks: TrainingRanks | None = None,
        zero: bool = False,
    ) -> None:
        if isinstance(optimizer, (list, tuple)):
            from rumus.optim import MultiOptimizer  # few need it

            optimizer = MultiOptimizer(optimizer)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"Trainer takes an optimizer, not {type(optimizer).__name__}: "
                "Trainer(AdamW(model.parameters()), state={'model': model}); the loss function, "
                "which calls the model, goes to fit or train_step"
            )
        self.optimizer = optimizer
        self.state = {} if state is None else _checked_names(state)
        if loss_scale is not None:
            if not isinstance(loss_scale, LossScale):
                raise TypeError(f"loss_scale must be LossScale(...), not {loss_scale!r}")
            scalable(optimizer).scale_losses(loss_scale)
        self.stepper = Stepper(optimizer, capture=capture)
        self._mean_losses: dict[object, MeanLoss] = {}  # of `train_step`, by code
        self.meaning: Meaning | None = None  # of the data that the last `fit` trained on
        self.numbers: BatchNumbers | None = None  # of its batches
        self.is_fitting = False
        if zero and ranks is None:
            raise ValueError(
                "zero=True divides the state among the ranks of ranks=, which is missing"
            )
        if ranks is not None:
            check_ranks("Trainer", ranks, "team")
        self.team: Team | None = None if ranks is None else ranks.team(self, zero=zero)

    if not TYPE_CHECKING:  # for type checkers

        def __new__(cls, *args: object, **given: object) -> Self:  # noqa: D102
            TRAINER_OPTIONS.check_constructor(cls, args, given)
            return super().__new__(cls)

        def __getattr__(self, name: str) -> NoReturn:
            TRAINER.refuse(name)

        def __setattr__(self, name: str, value: object) -> None:
            if name not in vars(self):
                TRAINER.check_assignment(self, name)
                check_of_class(self, name, value)
            elif is_decided(name):
                raise decided(self, name)
            object.__setattr__(self, name, value)

    @property
    def counts(self) -> Counts:
        """How many steps with a batch ran as usual, were recorded, and were replayed."""
        captured = self.stepper.captured
        return Counts() if captured is None else captured.counts

    @property
    def backend(self) -> Backend:
        """The parameters' backend; the CPU for a released optimizer."""
        return self.stepper.backend or cpu()

    @property
    def loss_scale(self) -> Tensor | None:
        """The unread factor of the next loss; None without a loss scale."""
        return self.stepper.loss_scale

    def train_step(self, loss_fn: LossFunction, *batch: Any, weight: float | None = None) -> Tensor:
        """Run one step: the loss, its gradients and the update. Return the loss, without its graph.

        loss_fn: called with `batch`, whose NumPy arrays and tensors of other backends become
            tensors on the parameters' backend. A dict is passed by parameter names, or as a whole
            if the function has one parameter that is not a key. It returns a scalar that depends on
            the optimizer's parameters and no other trainable ones; or a dict with that scalar as
            "loss" and values to log: numbers, scalars, metrics of `rumus.train.metrics`; see
            `epoch_averages`.
        batch: the arguments of `loss_fn`.
        weight: the weight of this step in the epoch's mean loss. By default, as in `fit`, the
            number of terms that the loss is a mean of, otherwise the number of samples in `batch`.

        Raises TypeError if `loss_fn` returns no tensor, ValueError for a weight that is not finite
        and positive and for a dict that lacks an argument of `loss_fn`, UnclaimedGradientError for
        gradients that the optimizer does not own, CaptureError for code that a GPU cannot replay,
        and the errors of `backward` and `Optimizer.step`; nothing has changed then. A step that
        raises, or that the optimizer skips, does not count in the mean.
        """
        check_loss_function(loss_fn)
        if weight is not None and not 0 < real_number("weight", weight) < math.inf:
            raise ValueError(f"weight must be finite and positive, not {weight}")
        if (self.team is not None and self.team.size > 1) or is_part(batch):
            raise TypeError(
                "train_step would train this rank alone: use trainer.fit(DataLoader(..., "
                "ranks=ranks), loss_fn, ...) of Trainer(optimizer, ranks=ranks), which sums over "
                "all ranks"
            )
        if weight is not None:
            return self.stepper.step(loss_fn, batch, lambda loss, means: weight)
        count, weigh = samples(batch), self._mean_loss_of(loss_fn).weigh
        return self.stepper.step(loss_fn, batch, lambda loss, means: weigh(loss, means, count))

    def _mean_loss_of(self, loss_fn: LossFunction) -> MeanLoss:
        """What weighs the steps of a loss function: others may average other numbers of terms."""
        code = getattr(getattr(loss_fn, "__func__", loss_fn), "__code__", type(loss_fn))
        found = self._mean_losses.get(code)
        if found is None:
            found = self._mean_losses[code] = MeanLoss("give weight=, the weight of the step")
        return found

    @FIT.as_keywords
    def fit(
        self,
        loader: Iterable[Any],
        loss_fn: LossFunction,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        seconds: float | None = None,
        validate: Validate | None = None,
        validate_every: Every | None = None,
        accumulate: int = 1,
        weight_of: Callable[..., float] | None = None,
        nonfinite: OnNonFinite | None = None,
        spikes: Spikes | None = None,
        rollbacks: int | None = None,
        callbacks: Sequence[Callback] = (),
        checkpoints: Store | str | Path | None = None,
        save_every: Every | None = None,
        monitor: str | None = None,
        mode: Mode | None = None,
        restore_best: bool = False,
        resume: Resume = False,
        signals: bool = True,
        profile_steps: bool = False,
        progress: Literal["auto"] | None = "auto",
    ) -> Result:
        """Train: one `train_step` for each batch of `loader`, epoch after epoch.

        loader: iterated over once per epoch; yields tuples of arrays: `loss_fn(*batch)` is the
            loss, or a dict with it and other values to log, as in `train_step`.
        loss_fn: computes the loss of a batch, or a dict with it.
        epochs, steps, seconds: when to end; epochs and steps include those before a resume.
        validate: a function that returns numbers by name, or (loader, function of a batch); its
            numbers are averaged over the samples, and states of `rumus.train.metrics` added up. It
            runs without a graph and with every module in evaluation mode, whether `state` names it
            or not.
        validate_every: when to validate; by default after each epoch.
        accumulate: the number of batches per step, which equals a step over all their samples at
            once. An epoch's last step may have fewer.
        weight_of: returns the weight of a batch in means, accumulation and validation. By default,
            if the loss is a mean (of `rumus.nn`, any `mean()`, or a sum or mean divided by a
            tensor, such as that of a mask), it is the number of terms averaged, such as targets
            that are not ignored; if it is means times numbers, added up, it is the number of
            samples, or that of their terms, if only these are in proportion. Raises ValueError if
            neither is right for an accumulation or a validation: for such means of unequally many
            terms per sample, for sums, roots and whatever else is no mean, and in an accumulation
            if only a GPU knows the number.
        nonfinite: how to handle non-finite gradients; by default, as set in the optimizer. "raise"
            and "skip" are the optimizer's; with a loss scale they apply only at its minimum, and
            other overflowing steps are skipped. "rollback" restores parameters and optimizer from
            the last checkpoint, or from the start of the epoch, and continues with the next data;
            at most `rollbacks` times.
        spikes: how to handle a loss far above the previous ones: `Spikes()` skips its batch,
            `Spikes("rollback")` rolls back; `Result.spikes` and a warning name the batch.
        rollbacks: how often a run may roll back, by default 3; see nonfinite and spikes.
        callbacks: receive the events of training.
        checkpoints: `Checkpoints`, or a folder for them. They are saved at `save_every`, at the
            end, and at each best validation if they keep the best (a folder does), each with the
            metric of its weights, if validated.
        save_every: when to save; by default after each epoch. With `Every()` only at the end, and
            at each best validation.
        monitor, mode: the metric that defines the best weights, by default "loss", and whether less
            ("min") or more ("max") is better; `mode` is required unless the metric is a loss.
        restore_best: at the end, restore model and optimizer from the best validation.
        resume: "auto" continues from the newest checkpoint if there is one; True requires one; a
            path selects one. The run continues as if never interrupted, bit for bit.
        signals: SIGTERM and Ctrl-C end the run after the running step, with a checkpoint, by
            raising Interrupted, which ends the process with code 143 or 130; a second signal ends
            it at once.
        profile_steps: time the parts of each step; waits for each loss.
        progress: "auto" shows progress on a terminal and in a notebook, unless a callback does;
            elsewhere, such as in a log, use `callbacks=[LiveView()]` for lines. None shows nothing.

        Raises the errors of `train_step`; ValueError for options that contradict each other or have
        no effect, for a random generator that `loss_fn` draws from, or a buffer that it moves, and
        no checkpoint would hold, for a metric that the validation lacks (after saving the trained
        state), for a loader that yields nothing, and for batches whose structure changes;
        NonFiniteLossError for a non-finite loss with finite gradients, at the first step or in an
        epoch's mean; LossSpikeError if `spikes` does not help; RuntimeError within another `fit`
        of this trainer; CallbackError; NoCheckpointError if there is nothing to resume;
        StateMismatchError, listing every difference and changing nothing, for a checkpoint of
        another model.

        >>> import numpy as np
        >>> from rumus.optim import SGD
        >>> from rumus.tensor import Parameter
        >>> from rumus.train import Trainer
        >>> weight = Parameter([4.0], name="weight")
        >>> trainer = Trainer(SGD([weight], 0.25))
        >>> data = [(np.array([1.0, 2.0]),), (np.array([3.0]),)]
        >>> result = trainer.fit(data, lambda x: ((weight - x) ** 2).mean(), epochs=2)
        >>> result.reason, result.steps, [round(entry["loss"], 3) for entry in result.history]
        ('epochs', 4, [4.354, 1.647])
        """
        from rumus.train.base.every import Every
        from rumus.train.checkpoints.checkpoint_store import as_store, check_resume, order_of
        from rumus.train.data.batches import check_loader
        from rumus.train.loop.default_view import with_progress
        from rumus.train.loop.monitor import Monitor, check_options
        from rumus.train.loop.overridden import check_overridden
        from rumus.train.loop.run import Run
        from rumus.train.loop.validation import check_validate

        check_loss_function(loss_fn)
        if type(self) is not Trainer:
            check_overridden(type(self), loss_fn)
        check_loader("Trainer.fit", loader)
        check_validate(validate)
        check_resume(resume)
        for name, every in (("validate_every", validate_every), ("save_every", save_every)):
            Every.check(name, every)
        keep_best = order_of(checkpoints)
        about_validation = {
            "validate_every": validate_every, "monitor": monitor, "mode": mode,
            "keep_best": keep_best,
        }  # fmt: skip
        check_options(
            is_validated=validate is not None,
            keeps_best=isinstance(checkpoints, (str, PathLike)) or keep_best is not None,
            is_saved=checkpoints is not None,
            of_validation=about_validation,
            save_every=save_every,
            restore_best=restore_best,
            resume=resume,
        )
        keeps = validate is not None and isinstance(checkpoints, (str, PathLike))
        watched = Monitor.of(monitor, mode, keep_best, is_needed=keeps or restore_best)
        run = Run(
            self,
            loader,
            loss_fn,
            limits=Limits(epochs, steps, seconds),
            validate=validate,
            validate_every=validate_every or Every(epochs=1),
            accumulate=accumulate,
            weight_of=weight_of,
            nonfinite=nonfinite,
            spikes=spikes,
            rollbacks=rollbacks,
            callbacks=with_progress(callbacks, progress),
            store=as_store(checkpoints, None if validate is None else watched.mode),
            save_every=save_every or Every(epochs=1),
            monitor=watched,
            restore_best=restore_best,
            signals=signals,
            profile_steps=profile_steps,
        )
        return run.go(resume)

    @checked_first
    def predict(
        self, loader: Iterable[Any], predict_fn: Callable[..., Any] | None = None
    ) -> Prediction:
        """Return the model's predictions for all samples of a loader, in order, as NumPy arrays.

        Like `rumus.train.predict`, with the module in the trainer's `state`, and with the
        optimizer's average, if it keeps one.

        loader: yields batches as for `fit`, without shuffling.
        predict_fn: called with each batch instead of the model with its first array.

        Raises the errors of `rumus.train.predict`, and ValueError unless `state` names exactly one
        module or predict_fn is given, and for a table or classes unlike those of the last `fit`.

        >>> import numpy as np
        >>> from rumus.optim import SGD
        >>> from rumus.tensor import Parameter
        >>> from rumus.train import Trainer
        >>> weight = Parameter([4.0], name="weight")
        >>> data = [(np.array([1.0, 2.0]),), (np.array([3.0]),)]
        >>> Trainer(SGD([weight], 0.25)).predict(data, lambda x: x * weight).tolist()
        [4.0, 8.0, 12.0]
        """
        from rumus.train.data.batches import check_loader
        from rumus.train.loop.prediction import of_first, predictions

        check_loader("Trainer.predict", loader)
        function = predict_fn or of_first(self._model())
        self._check_meaning(loader)
        with self._evaluating():
            return predictions(loader, self.backend, function, self.numbers)

    @checked_first
    def evaluate(
        self,
        loader: Iterable[Any],
        metrics: Metrics,
        *,
        weight_of: Callable[..., float] | None = None,
    ) -> dict[str, float]:
        """Return metrics of the model over all samples of a loader.

        Like `rumus.train.evaluate`, with the module in the trainer's `state`, and with the
        optimizer's average, if it keeps one. The training is unaffected.

        loader: of batches.
        metrics: functions of (scores, targets), in a sequence or by name, or one function of a
            batch.
        weight_of: returns the weight of a batch in the means, as in `fit`.

        Raises the errors of `rumus.train.evaluate`, and ValueError unless `state` names exactly one
        module or metrics is a function of a batch, and for a table or classes unlike those of the
        last `fit`.
        """
        from rumus.train.data.batches import check_loader
        from rumus.train.loop.prediction import measurements, metric_function

        check_loader("Trainer.evaluate", loader)
        model = metrics if callable(metrics) else self._model()
        function = metric_function(model, metrics)
        self._check_meaning(loader)
        with self._evaluating():
            return measurements(loader, self.backend, function, weight_of, self.numbers)

    def _model(self) -> Any:
        """The module in `state`, with a warning if it is not the one that is trained."""
        from rumus.train.checkpoints.snapshot import warn_of_strangers
        from rumus.train.loop.prediction import only_model

        warn_of_strangers(self.optimizer, self.state)
        return only_model(self.state)

    def _check_meaning(self, loader: object) -> None:
        """Raise ValueError for data whose classes or features are not those of the training."""
        if self.meaning is not None:
            self.meaning.require_same(type(self.meaning).of(loader), "this loader")

    def _evaluating(self) -> AbstractContextManager[None]:
        from rumus.train.loop.validation import evaluating

        return evaluating(self.state.values(), self.optimizer)

    def forward_backward(
        self, loss_fn: LossFunction, batch: Sequence[Any]
    ) -> tuple[Tensor, GradientStore]:
        """Return the loss and its gradients, to pass to `update`.

        The passes are captured if a batch is given and the parameters' backend supports it.

        loss_fn, batch: see `train_step`. Raises its errors, except those of the update.
        """
        loss, grads = self.stepper.passes(loss_fn, batch)
        backend = loss.backend
        kept = backend.allocate(loss.shape, loss.dtype)
        backend.copy(loss._array, kept)
        return Tensor(kept, backend), grads

    def update(self, grads: GradientStore) -> None:
        """Let the optimizer step with these gradients. Raises the errors of `Optimizer.step`.

        grads: the result of `backward`.
        """
        self.stepper.update(grads)

    def memory_report(self) -> MemoryReport:
        """Return the bytes of parameters, gradients, state, and of each captured step.

        A captured step's memory is known once it is recorded; a replay allocates nothing. Steps
        that run as usual take as much while they run, but release it; they are not listed.

        >>> import numpy as np
        >>> from rumus.optim import Adam
        >>> from rumus.tensor import Parameter
        >>> from rumus.train import Trainer
        >>> weight = Parameter(np.zeros((256, 256), np.float32), name="weight")
        >>> report = Trainer(Adam([weight])).memory_report()  # print(report) shows a table
        >>> report.parameters, report.gradients, report.state, report.peak
        (262144, 262144, 524288, None)
        """
        from rumus.train.loop.memory_report import report

        captured = self.stepper.captured
        return report(self.optimizer, [] if captured is None else captured.memory())

    def epoch_avg_loss(self) -> float:
        """Return the mean loss of the epoch's steps, and close the epoch.

        It returns the same value until the next `train_step` opens a new epoch. Losses are averaged
        in float64. Raises ValueError before the first step.
        """
        self.optimizer.poll(wait=True)
        mean = self.stepper.losses.close()
        if mean is None:
            raise ValueError("there is no mean loss before the first train_step of an epoch")
        if self.stepper.captured is not None:
            self.stepper.captured.begin_epoch()
        return mean

    def epoch_averages(self) -> dict[str, float]:
        """Return the values that the epoch's steps logged beside their losses, and close it.

        Numbers are averaged like the loss; metrics of `rumus.train.metrics` cover all samples, and
        are NaN, with a UserWarning, if they reject one. The result is empty if `loss_fn` returns no
        dict, and stays the same until the next `train_step`.

        >>> import numpy as np
        >>> from rumus.optim import SGD
        >>> from rumus.tensor import Parameter
        >>> from rumus.train import Trainer
        >>> weight = Parameter([4.0], name="weight")
        >>> trainer = Trainer(SGD([weight], 0.25))
        >>> def step(x):
        ...     error = weight - x
        ...     return {"loss": (error * error).mean(), "error": error.mean()}
        >>> for x in (2.0, 3.0):
        ...     loss = trainer.train_step(step, np.array([x]))
        >>> trainer.epoch_averages()
        {'error': 1.0}
        """
        self.optimizer.poll(wait=True)
        return self.stepper.losses.logged.close()

    def reset_epoch(self) -> None:
        """Discard the losses so far: the next step opens a new epoch. Usually automatic."""
        self.stepper.losses.clear()


def _checked_names(state: Mapping[str, Any]) -> dict[str, Any]:
    from rumus.train.checkpoints.snapshot import checked_names

    return checked_names(state)


def check_trainer(of: str, trainer: object) -> None:
    """Raise TypeError for anything but a trainer, such as its optimizer."""
    if not isinstance(trainer, Trainer):
        raise TypeError(
            f"{of} takes a trainer, not {type(trainer).__name__}: {of}(Trainer(optimizer, "
            "state={'model': model}), ...)"
        )
