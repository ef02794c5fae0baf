"""`CapturedSteps`: forward and backward passes that a backend replays without their Python code.

The first pass of a loss function over a kind of batch runs as usual, the second is recorded, and
later ones are replayed. The first two passes note what the code reads outside tensors, and each
replay compares it first; see `Reads`. To catch reads that are invisible, such as those of C code,
the code runs again now and then: at growing intervals, and at the start of an epoch.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from rumus.optim.engine.closure import forward_backward
from rumus.tensor import Backend, CaptureError, GradientStore, Tensor, tensor
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.graph.autograd import is_recording
from rumus.tensor.graph.combination import Means
from rumus.tensor.graph.means import note_again, noting_means
from rumus.tensor.graph.store import Refill
from rumus.tensor.graph.tensor import as_host
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.last_use import references_beside
from rumus.tensor.memory.recording import CapturedStep, Capturing, Observed
from rumus.train.base.logged import Log
from rumus.train.capture.cells import contents
from rumus.train.capture.step_function import StepFunction, users_own

if TYPE_CHECKING:
    from rumus.train.capture.guards import Guards
    from rumus.train.capture.reads import Reads
    from rumus.train.capture.step_memory import StepMemory

# What a step's key identifies, the memory of the loss scale, and the function.
Alive: TypeAlias = "tuple[list[Any], object, StepFunction]"
LossFunction: TypeAlias = Callable[..., Tensor | Mapping[str, Any]]
KINDS: Final = 8  # most recent steps kept
SEEN: Final = 64  # that were seen once
TRIES: Final = 8  # steps that are new each time
FIRST_LOOK: Final = 4  # replays before the code runs again; doubled each time
_SIMPLE: Final[tuple[type, ...]] = (bool, int, float, str, np.number, np.bool_)
OF_EPOCH: Final = 32  # replays before it runs at the start of an epoch


@dataclass(slots=True)
class Counts:
    """How many steps ran as usual, were recorded, and were replayed without their code.

    compared: how many ran as usual and matched their recordings.
    reasons: why steps on the CPU are not captured, by function and batch.
    """

    plain: int = 0
    recorded: int = 0
    replayed: int = 0
    compared: int = 0
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def captured(self) -> int:
        """How many steps a recording covered: replayed or compared."""
        return self.replayed + self.compared


@dataclass(slots=True)
class _Seen:
    """A step that ran once. alive: objects that the key identifies, so that no id is reused."""

    notes: Observed
    guards: Guards
    alive: Alive

    def changed(self) -> str | None:
        """The name of something that it depends on and that is another now, or None."""
        setting = self.notes.settings.changed()
        if setting is not None or self.guards.are_met():
            return setting
        return self.guards.changed


@dataclass(slots=True, eq=False)
class _Captured:
    key: Hashable
    step: CapturedStep
    guards: Guards
    loss: Array
    log: Log
    means: Means
    refill: Refill
    alive: Alive
    label: str
    epoch: int  # in which its code last ran
    repeated: int = 0  # since then
    distance: int = FIRST_LOOK

    def is_due(self, epoch: int) -> bool:
        """Whether its code should run again, to verify the recording."""
        return self.repeated >= self.distance or (epoch != self.epoch and self.repeated >= OF_EPOCH)

    def is_there(self) -> bool:
        """Whether everything that a replay uses still exists unchanged."""
        return self.step.is_valid() and self.refill.is_free() and is_recording()


@dataclass(slots=True)
class _Patience:
    """How often a step of some code was new since the last replay, and whether a warning said so.

    Noting reads is slow, so a step that differs each time is soon left alone, and tried again at
    growing intervals.
    """

    times: int = 0
    is_said: bool = False
    is_hidden: bool = False  # it has changed invisibly

    def is_left(self) -> bool:
        """Whether it is worthwhile to record the next step."""
        if self.is_hidden:
            return False
        return self.times < TRIES or self.times & (self.times - 1) == 0


class CaptureWarning(UserWarning):
    """A training step is not captured, as its Python code may do something else each time."""


class CapturedSteps:
    """The steps of one trainer, by loss function and kind of batch."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._seen: OrderedDict[Hashable, _Seen] = OrderedDict()
        self._captured: list[_Captured] = []  # most recently used last
        self._patience: OrderedDict[Hashable, _Patience] = OrderedDict()
        self._epoch = 0

    def begin_epoch(self) -> None:
        """Run the code again soon: what changes between epochs changes now."""
        self._epoch += 1

    def run(
        self,
        backend: Capturing,
        loss_fn: StepFunction,
        batch: Sequence[Any],
        scale: Tensor | None = None,
    ) -> tuple[Tensor, GradientStore]:
        """Return the loss, without its graph, and its gradients, multiplied by `scale`.

        loss_fn: holds the step's log afterwards, in memory that the next step overwrites.
        scale: a replay reads it from its memory at that time. The next step of this kind overwrites
            the loss's memory.
        """
        name, alive = _identity(loss_fn)
        memory = None if scale is None else scale._array
        try:
            items = [place(value, backend) for value in batch]
        except CaptureError as error:
            if backend.runs_ahead:
                raise
            self.counts.plain += 1
            self.counts.reasons[_name(loss_fn)] = str(error)
            return forward_backward(loss_fn, [beside(value, backend) for value in batch], scale)
        key = (id(backend), name, loss_fn.names, id(memory), *map(_kind, items))
        captured = self._find(key)
        arrays = [item.array for item in items if isinstance(item, Placed)]
        fits = captured is not None and captured.step.fits(arrays)
        if captured is not None and fits and not captured.is_due(self._epoch):
            loss_fn.log = captured.log
            return self._replay(captured, backend, arrays)
        step = _Step(key, backend, loss_fn, items, scale, (alive, memory, loss_fn))
        if captured is None:
            self._let_go()
            return self._run_code(step)
        if fits:
            return self._compare(captured, step)
        self.counts.plain += 1
        return step.forward(step.arguments())

    def _find(self, key: Hashable) -> _Captured | None:
        """The recorded step that matches the code now; drop those that never will."""
        for captured in reversed(self._captured):
            if captured.key == key:
                if not captured.is_there():
                    self._captured.remove(captured)
                elif captured.guards.are_met():
                    return captured
        return None

    def _let_go(self) -> None:
        """Give up recordings that alone keep alive what the program has dropped.

        They never fit again, and what was dropped has `__del__`, or weak references to it, by which
        the code may notice its end.
        """
        if not self._captured and not self._seen:
            return
        from rumus.train.capture.dropped import only_held_by, parts_of

        every: list[_Captured | _Seen] = [*self._captured, *self._seen.values()]
        dropped = parts_of(chain.from_iterable(map(_dropped, every)))
        gone = only_held_by(chain.from_iterable(map(_references, every)), dropped)
        if gone:
            stale = {id(each) for each in every if not gone.isdisjoint(map(id, _references(each)))}
            self._captured = [each for each in self._captured if id(each) not in stale]
            for key in [key for key, each in self._seen.items() if id(each) in stale]:
                del self._seen[key]

    def memory(self) -> list[StepMemory]:
        """Return what each captured step holds, most recently used last."""
        from rumus.train.capture.step_memory import StepMemory

        return [StepMemory(each.label, each.step.memory) for each in self._captured]

    def _run_code(self, step: _Step) -> tuple[Tensor, GradientStore]:
        """Run the code of a step that cannot be replayed; record it if it ran like this before."""
        seen = self._seen.pop(step.key, None)
        changed = None if seen is None else seen.changed()
        patience = self._patience_with(step)
        if seen is not None and changed is None:
            return self._record(step, seen, patience)
        patience.times += 1
        from rumus.train.capture.reads import Reads

        reads = Reads(users_own(step.loss_fn))
        self._say(step, patience, changed)
        self.counts.plain += 1
        if not patience.is_left():
            return step.forward(step.arguments())
        arguments = [_as_recorded(argument) for argument in step.arguments()]
        with step.backend.observe() as notes, reads.follow():
            loss, grads = step.forward(arguments)
        reads.has_run()
        if notes.why_not is not None:
            reads.refuse(notes.why_not)
        if self._is_repeatable(step, reads, patience):
            self._seen[step.key] = _Seen(notes, reads.guards, step.alive)
            if len(self._seen) > SEEN:
                self._seen.popitem(last=False)
        return loss, grads

    def _record(
        self, step: _Step, seen: _Seen, patience: _Patience
    ) -> tuple[Tensor, GradientStore]:
        from rumus.train.capture.reads import Reads

        arguments, reads = step.arguments(), Reads(users_own(step.loss_fn))
        batch = [a._array for a in arguments if isinstance(a, Tensor)]
        with step.backend.record(batch, seen.notes) as recorded:
            given = _with_inputs(arguments, recorded.inputs, step.backend)
            with noting_means() as noted, reads.follow():
                loss, grads = step.forward(given)
            means = noted.of([loss])
            note_again(means)
            del noted
            del given
            refill = Refill(grads)
            log = step.loss_fn.log
            recorded.keep(_kept(loss, log, means, refill))
        if not recorded.is_complete:
            self.counts.plain += 1
            if recorded.why_not is not None:
                patience.times = max(patience.times, TRIES)
                self._warn(step, patience, recorded.why_not)
            return loss, grads
        self.counts.recorded += 1
        reads.has_run()
        if _are_held([loss, *_logged(log, loss.backend)]):
            reads.refuse(
                "its loss, or a value that it logs, is still referenced after it, and a replay "
                "would overwrite it; assign() it to a tensor from before the step"
            )
        if self._is_repeatable(step, reads, patience):
            self._captured.append(
                _Captured(
                    step.key,
                    recorded,
                    reads.guards,
                    loss._array,
                    log,
                    means,
                    refill,
                    seen.alive,
                    step.label(),
                    self._epoch,
                )
            )
            del self._captured[:-KINDS]
        return loss, grads

    def _compare(self, captured: _Captured, step: _Step) -> tuple[Tensor, GradientStore]:
        """Run the code instead of replaying it; drop the recording if it differs."""
        arguments = step.arguments()
        batch = [a._array for a in arguments if isinstance(a, Tensor)]
        with step.backend.compare(captured.step, batch) as comparison:
            given = _with_inputs(arguments, comparison.inputs, step.backend)
            with noting_means() as noted:
                loss, grads = step.forward(given)
            means = noted.of([loss])
            note_again(means)
            del noted
            del given
            refill = Refill(grads)
            comparison.keep(_kept(loss, step.loss_fn.log, means, refill))
        how = comparison.difference
        if how is None and not refill.is_like(captured.refill):
            how = "its gradients or buffers are different arrays than before"
        if how is None:
            self.counts.compared += 1
            captured.guards.code_has_run()
            captured.distance *= 2 if captured.repeated >= captured.distance else 1
            captured.repeated, captured.epoch = 0, self._epoch
        else:
            self.counts.plain += 1
            self._forget(captured, step, how)
        return loss, grads

    def _forget(self, captured: _Captured, step: _Step, how: str) -> None:
        """Stop replaying this code, and warn."""
        self._captured = [each for each in self._captured if each.key != captured.key]
        patience = self._patience_with(step)
        patience.is_hidden, patience.is_said = True, True
        warn_user(
            f"{step.label()} differs from its capture: {how}. Something changed that Python "
            f"cannot see. From now on the code runs each time; up to {captured.repeated} earlier "
            "steps may have been repeated with outdated values. Pass what changes in the batch, "
            "as an array, or use Trainer(optimizer, capture=False)",
            CaptureWarning,
        )

    def _is_repeatable(self, step: _Step, reads: Reads, patience: _Patience) -> bool:
        """Whether comparing what a step reads is enough to know that it does the same."""
        if reads.why_not is not None:
            patience.times = max(patience.times, TRIES)
            self._warn(step, patience, reads.why_not)
            return False
        if reads.guards.are_met():
            return True
        self._say(step, patience, reads.guards.changed, "it changes")
        return False

    def _say(
        self, step: _Step, patience: _Patience, changed: str | None, how: str = "it reads"
    ) -> None:
        if patience.times >= TRIES and changed:
            then = "which it reads" if how == "it changes" else "which is another each time"
            self._warn(step, patience, f"{how} {changed}, {then}")

    def _warn(self, step: _Step, patience: _Patience, why: str) -> None:
        """Warn once why the code of a step runs each time."""
        if not step.backend.runs_ahead:
            self.counts.reasons[step.label()] = why
        elif not patience.is_said:
            patience.is_said = True
            warn_user(
                f"{step.label()} is not captured, so it runs more slowly: {why}. Pass what "
                "changes in the batch, as an array, or accept this with Trainer(optimizer, "
                "capture=False)",
                CaptureWarning,
            )

    def _patience_with(self, step: _Step) -> _Patience:
        """The history of steps of this code over batches of these shapes."""
        name = step.code()
        found = self._patience.setdefault(name, _Patience())
        self._patience.move_to_end(name)
        if len(self._patience) > SEEN:
            self._patience.popitem(last=False)
        return found

    def _replay(
        self, captured: _Captured, backend: Backend, arrays: Sequence[Array]
    ) -> tuple[Tensor, GradientStore]:
        captured.step.replay(arrays)
        note_again(captured.means)
        captured.guards.write_again()
        captured.repeated += 1
        if captured is not self._captured[-1]:
            self._captured.remove(captured)
            self._captured.append(captured)
        self.counts.replayed += 1
        return Tensor(captured.loss, backend), captured.refill.store()


@dataclass(slots=True, eq=False)
class _Step:
    """A step whose code is about to run. alive: the objects that the key identifies."""

    key: Hashable
    backend: Capturing
    loss_fn: StepFunction
    items: Sequence[Any]
    scale: Tensor | None
    alive: Alive

    def arguments(self) -> list[Any]:
        """The arguments of the loss function."""
        return [_argument(item, self.backend) for item in self.items]

    def forward(self, arguments: Sequence[Any]) -> tuple[Tensor, GradientStore]:
        """Run the passes."""
        return forward_backward(self.loss_fn, arguments, self.scale)

    def label(self) -> str:
        """Its name in messages."""
        return _label(self.loss_fn, self.items)

    def code(self) -> Hashable:
        """What it shares with steps that differ only in their numbers."""
        function = users_own(self.loss_fn)
        function = getattr(function, "__func__", function)
        shapes = [_kind(item) for item in self.items if isinstance(item, Placed)]
        return id(self.backend), getattr(function, "__code__", id(function)), *shapes


def _with_inputs(arguments: Sequence[Any], inputs: Sequence[Array], backend: Backend) -> list[Any]:
    """The arguments, with the recording's inputs in place of the tensors."""
    own = iter(inputs)
    return [Tensor(next(own), backend) if isinstance(a, Tensor) else a for a in arguments]


def _kept(loss: Tensor, log: Log, means: Means, refill: Refill) -> list[Array]:
    """The arrays that survive a step."""
    logged = [part._array for part in _logged(log, loss.backend)]
    return [loss._array, *refill.arrays, *means.arrays, *logged]


def _logged(log: Log, backend: Backend) -> list[Tensor]:
    """The tensors on a backend that a step logs."""
    parts = [part for value in log.values() for part in value.tensors]
    return [part for part in parts if part.backend is backend]


def _are_held(results: Sequence[Tensor]) -> bool:
    """Whether other tensors than these are in their memory: the program holds a step's result."""
    if not _are_shared(results):
        return False
    gc.collect()  # perhaps the others are garbage
    return _are_shared(results)


def _are_shared(results: Sequence[Tensor]) -> bool:
    """Whether more tensors than these have their versions, as all over the same memory do."""
    return any(
        references_beside([result._version])
        > sum(other._version is result._version for other in results)
        for result in results
    )


@dataclass(slots=True)
class Placed:
    """An array of the batch: on the backend, or of NumPy and to be uploaded.

    tensor: the given one, if it is on the backend. layout: the memory layout, if it affects how the
        host computes.
    """

    array: Any
    tensor: Tensor | None = None
    layout: tuple[int, ...] | None = None


def place(value: Any, backend: Backend) -> Any:
    """Return a batch's contents: arrays as `Placed`, numbers and texts as they are.

    Raises CaptureError for tensors with a graph, and for objects that might hide tensors.
    """
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise CaptureError(
                f"the batch of a captured training step holds {value.label}, which requires a "
                "gradient; compute it in the loss function, pass it detached, or train with "
                "Trainer(optimizer, capture=False)"
            )
        if value._backend is not backend:
            return Placed(as_host(value.numpy()))
        return Placed(value._array, value, None if backend.runs_ahead else value._array.strides)
    if isinstance(value, np.ndarray):
        return Placed(as_host(value))
    if value is None or isinstance(value, _SIMPLE):
        own = getattr(value, "__dict__", {})
        if isinstance(value, Enum) or all(
            each is None or type(each) in _SIMPLE for each in own.values()
        ):
            return value
    raise CaptureError(
        f"a captured training step takes tensors, arrays and numbers, not {type(value).__name__}; "
        "pass its parts as separate arguments, or train with Trainer(optimizer, capture=False)"
    )


def _argument(item: Any, backend: Backend) -> Any:
    """The arguments of the loss function."""
    if not isinstance(item, Placed):
        return item
    if item.tensor is not None:
        return item.tensor
    return Tensor(backend.upload(item.array), backend)


def _as_recorded(argument: Any) -> Any:
    """An argument as a recording has it: on a GPU, a part of a larger tensor is copied there."""
    if isinstance(argument, Tensor) and not getattr(argument._array, "is_flat", True):
        return argument.clone()
    return argument


def beside(value: Any, backend: Backend) -> Any:
    """Return arrays, and tensors of other backends, as tensors of this one; the rest unchanged."""
    if isinstance(value, np.ndarray):
        return tensor(value, backend=backend)
    if isinstance(value, Tensor) and value._backend is not backend:
        return value.to(backend)
    return value


def _kind(item: Any) -> Hashable:
    """What two batches must share to be replays of one step."""
    if isinstance(item, Placed):
        return item.array.shape, item.array.dtype, item.layout
    if isinstance(item, Enum):
        return type(item), id(item)
    # By their texts: -0.0 == 0.0, and NaN is not even itself. Classes may have texts of their own.
    kind = next((kind for kind in _SIMPLE if isinstance(item, kind)), type(item))
    own = tuple(
        (name, type(each), repr(each)) for name, each in getattr(item, "__dict__", {}).items()
    )
    return type(item), repr(item) if issubclass(kind, np.generic) else kind.__repr__(item), own


def _label(loss_fn: Callable[..., Any], items: Sequence[Any]) -> str:
    """A step's name in messages: its function, and the dtypes and shapes of its batch."""
    shown = [
        f"{item.array.dtype}{list(item.array.shape)}" if isinstance(item, Placed) else repr(item)
        for item in items
    ]
    return f"{_name(loss_fn)}({', '.join(shown)})"


def _name(loss_fn: Callable[..., Any]) -> str:
    function = users_own(loss_fn)
    return str(getattr(function, "__name__", type(function).__name__))


def _references(step: _Captured | _Seen) -> Iterator[Any]:
    """Iterate over what a step refers to of the program's, as often as it does."""
    known, _, loss_fn = step.alive
    yield from known
    yield users_own(loss_fn)
    yield from step.guards.references()


def _dropped(step: _Captured | _Seen) -> Iterator[Any]:
    """Iterate over what the program may have dropped of it: what its key identifies, too."""
    yield from step.alive[0]
    yield from step.guards.dropped()


def _identity(loss_fn: Callable[..., Any]) -> tuple[Hashable, list[Any]]:
    """A key for a function and its closure, and the objects that the key identifies.

    Two functions of the same code over the same objects are equal: a lambda is made anew each time
    its line runs.
    """
    loss_fn = users_own(loss_fn)
    if isinstance(loss_fn, FunctionType):
        # Code is equal to a copy of it in another module.
        held: list[Any] = [loss_fn.__globals__, *map(contents, loss_fn.__closure__ or ())]
        if loss_fn.__defaults__ is not None:
            held += loss_fn.__defaults__
        if loss_fn.__kwdefaults__ is not None:
            held += loss_fn.__kwdefaults__.values()
        return (loss_fn.__code__, *map(id, held)), held
    if isinstance(loss_fn, MethodType):
        return (loss_fn.__func__, id(loss_fn.__self__)), [loss_fn.__self__]
    return id(loss_fn), [loss_fn]
