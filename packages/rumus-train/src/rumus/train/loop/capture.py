"""`CapturedSteps`: forward and backward passes that a backend repeats without their Python code.

The first pass of a loss function over a kind of batch runs as usual, the second is recorded, and
later ones are repetitions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from rumus.optim.engine.closure import forward_backward
from rumus.tensor import Backend, CaptureError, GradientStore, Tensor, tensor
from rumus.tensor.graph.autograd import is_recording
from rumus.tensor.graph.store import Refill
from rumus.tensor.graph.tensor import as_host
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.recording import CapturedStep, Capturing
from rumus.train.base.spans import TimedFunction

if TYPE_CHECKING:
    from rumus.train.loop.memory_report import StepMemory

LossFunction: TypeAlias = Callable[..., Tensor]
Forward: TypeAlias = Callable[[Sequence[Any]], tuple[Tensor, GradientStore]]
KINDS: Final = 8  # of steps that are kept, the ones used last
SEEN: Final = 64  # that were seen once


@dataclass(slots=True)
class Counts:
    """How many steps ran as usual, were recorded, and were repeated without their code."""

    plain: int = 0
    recorded: int = 0
    replayed: int = 0


@dataclass(slots=True)
class _Seen:
    """A step that ran once. alive: what the key names by identity, so that no other gets it."""

    notes: Any
    alive: object


@dataclass(slots=True)
class _Captured:
    step: CapturedStep
    loss: Array
    refill: Refill
    alive: object
    label: str

    def is_valid(self) -> bool:
        """Whether a repetition would do what running the code would."""
        return self.step.is_valid() and self.refill.is_free() and is_recording()


class CapturedSteps:
    """The steps of one trainer, by loss function and kind of batch."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._seen: OrderedDict[Hashable, _Seen] = OrderedDict()
        self._captured: OrderedDict[Hashable, _Captured] = OrderedDict()

    def run(
        self,
        backend: Capturing,
        loss_fn: LossFunction,
        batch: Sequence[Any],
        scale: Tensor | None = None,
    ) -> tuple[Tensor, GradientStore]:
        """Return the loss, without its graph, and its gradients, multiplied by `scale`.

        scale: a repetition uses what its memory holds then. The loss's memory is written anew by
        the next step of this kind.
        """
        name, alive = _identity(loss_fn)
        memory = None if scale is None else scale._array
        items = [place(value, backend) for value in batch]
        key = (id(backend), name, id(memory), *map(_kind, items))
        captured = self._captured.get(key)
        if captured is None or not captured.is_valid():
            self._captured.pop(key, None)
            forward = partial(forward_backward, loss_fn, scale=scale)
            return self._first(key, backend, forward, items, (alive, memory, loss_fn))
        arrays = [item.array for item in items if isinstance(item, Placed)]
        if captured.step.fits(arrays):
            return self._replay(key, captured, backend, arrays)
        self.counts.plain += 1
        return forward_backward(loss_fn, [_argument(item, backend) for item in items], scale)

    def memory(self) -> list[StepMemory]:
        """Return what each captured step holds, the one used last at the end."""
        from rumus.train.loop.memory_report import StepMemory

        return [StepMemory(each.label, each.step.memory) for each in self._captured.values()]

    def _first(
        self,
        key: Hashable,
        backend: Capturing,
        forward: Forward,
        items: Sequence[Any],
        alive: tuple[object, object, LossFunction],
    ) -> tuple[Tensor, GradientStore]:
        """Run the code of a step that cannot be repeated yet; record it the second time."""
        arguments = [_argument(item, backend) for item in items]
        seen = self._seen.pop(key, None)
        if seen is not None:
            return self._record(key, backend, forward, arguments, seen, _label(alive[2], items))
        with backend.observe() as notes:
            loss, grads = forward(arguments)
        self._seen[key] = _Seen(notes, alive)
        if len(self._seen) > SEEN:
            self._seen.popitem(last=False)
        self.counts.plain += 1
        return loss, grads

    def _record(
        self,
        key: Hashable,
        backend: Capturing,
        forward: Forward,
        arguments: Sequence[Any],
        seen: _Seen,
        label: str,
    ) -> tuple[Tensor, GradientStore]:
        batch = [a._array for a in arguments if isinstance(a, Tensor)]
        with backend.record(batch, seen.notes) as step:
            own = iter(step.inputs)
            given = [Tensor(next(own), backend) if isinstance(a, Tensor) else a for a in arguments]
            loss, grads = forward(given)
            del given
            refill = Refill(grads)
            step.keep([loss._array, *refill.arrays])
        self._captured[key] = _Captured(step, loss._array, refill, seen.alive, label)
        if len(self._captured) > KINDS:
            self._captured.popitem(last=False)
        self.counts.recorded += 1
        return loss, grads

    def _replay(
        self, key: Hashable, captured: _Captured, backend: Backend, arrays: Sequence[Array]
    ) -> tuple[Tensor, GradientStore]:
        captured.step.replay(arrays)
        self._captured.move_to_end(key)
        self.counts.replayed += 1
        return Tensor(captured.loss, backend), captured.refill.store()


@dataclass(slots=True)
class Placed:
    """An array of the batch: of the backend, or of NumPy and to be uploaded."""

    array: Any


def place(value: Any, backend: Backend) -> Any:
    """Return what a batch holds: arrays as `Placed`, numbers and texts as they are.

    CaptureError for tensors with a graph, and for what might hold tensors where nobody finds them.
    """
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise CaptureError(
                f"the batch of a captured training step holds {value.label}, which requires a "
                "gradient; compute it in the loss function, pass it detached, or train with "
                "Trainer(optimizer, capture=False)"
            )
        here = value._backend is backend
        return Placed(value._array if here else as_host(value.numpy()))
    if isinstance(value, np.ndarray):
        return Placed(as_host(value))
    if value is None or isinstance(value, (bool, int, float, str, np.number, np.bool_)):
        return value
    raise CaptureError(
        f"a captured training step takes tensors, arrays and numbers, not {type(value).__name__}; "
        "pass what it holds as arguments of their own, or train with "
        "Trainer(optimizer, capture=False)"
    )


def _argument(item: Any, backend: Backend) -> Any:
    """What the loss function is called with."""
    if not isinstance(item, Placed):
        return item
    array = item.array
    return Tensor(backend.upload(array) if isinstance(array, np.ndarray) else array, backend)


def beside(value: Any, backend: Backend) -> Any:
    """Return arrays, and tensors of other backends, as tensors of this one; the rest as it is."""
    if isinstance(value, np.ndarray):
        return tensor(value, backend=backend)
    if isinstance(value, Tensor) and value._backend is not backend:
        return value.to(backend)
    return value


def _kind(item: Any) -> Hashable:
    """What two batches must have in common to be repetitions of one step."""
    if isinstance(item, Placed):
        return item.array.shape, item.array.dtype
    return type(item), repr(item)  # -0.0 == 0.0, and NaN is not even itself


def _label(loss_fn: LossFunction, items: Sequence[Any]) -> str:
    """What a person calls a step: its function, and the dtypes and shapes of its batch."""
    function = loss_fn.function if isinstance(loss_fn, TimedFunction) else loss_fn
    name = getattr(function, "__name__", type(function).__name__)
    shown = [
        f"{item.array.dtype}{list(item.array.shape)}" if isinstance(item, Placed) else repr(item)
        for item in items
    ]
    return f"{name}({', '.join(shown)})"


def _identity(loss_fn: LossFunction) -> tuple[Hashable, object]:
    """A name for a function and what it has closed over, and the objects that it stands for.

    Two functions of the same code over the same objects are the same: a lambda is made anew each
    time that its line runs.
    """
    if isinstance(loss_fn, FunctionType):
        held: list[Any] = [cell.cell_contents for cell in loss_fn.__closure__ or ()]
        held += loss_fn.__defaults__ or ()
        held += (loss_fn.__kwdefaults__ or {}).values()
        return (loss_fn.__code__, *map(id, held)), held
    if isinstance(loss_fn, TimedFunction):
        return _identity(loss_fn.function)
    if isinstance(loss_fn, MethodType):
        return (loss_fn.__func__, id(loss_fn.__self__)), loss_fn
    return id(loss_fn), loss_fn
