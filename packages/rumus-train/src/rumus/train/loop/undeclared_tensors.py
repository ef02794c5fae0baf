"""`UndeclaredTensors`: buffers and other tensors that a run changes and that nothing restores.

A loss function may reach a module in ways that no search of names finds: by an object, a global
function, a cache. But a step proposes the buffers that it moves, and every write is counted.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, Final

from rumus.tensor import GradientStore, Parameter, Tensor
from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.live_objects import live_objects, referrers, with_subclasses
from rumus.train.checkpoints.snapshot import named_by
from rumus.train.loop.undeclared import UndeclaredError

SAVED: Final = "no checkpoint would hold it, so that a run that goes on from one would differ"
PUT_BACK: Final = "it could not be put back afterwards"
_MOST: Final = 100_000  # objects that are searched for modules


class UndeclaredTensors:
    """Checks the passes of one run, or of one trial.

    things: the objects that are saved and restored. consequence: of a buffer that they do not have,
    for the message.
    """

    def __init__(self, things: Iterable[Any], consequence: str = SAVED) -> None:
        self._things, self._consequence = list(things), consequence
        self._moved = 0  # buffers, by the last passes
        self._written: list[tuple[str, weakref.ref[Tensor], int]] = []

    def watch(self, loss_fn: Callable[..., Any]) -> None:
        """Note the writes so far to parameters without an optimizer and to tensors of `loss_fn`."""
        known = {id(tensor) for tensor in tensors_in(self._things)}
        found: dict[int, tuple[str, Tensor]] = {
            id(p): (p.name, p)
            for p in live_objects(with_subclasses(Parameter))
            if hasattr(p, "_owner")  # not the rest of a constructor that failed
        }
        for name, thing in named_by(loss_fn):
            if _is_a(thing, Tensor):
                found.setdefault(id(thing), (name, thing))
        for number, (name, tensor) in found.items():
            if number not in known:
                self._written.append((name, weakref.ref(tensor), tensor._version.count))

    def after_passes(self, grads: GradientStore) -> None:
        """Raise UndeclaredError for a buffer that a step would move and nothing would restore."""
        buffers = grads.buffers()
        if len(buffers) == self._moved:
            return
        known = {id(tensor) for tensor in tensors_in(self._things)}
        for buffer in buffers:
            if id(buffer) not in known:
                name = _name_of(buffer) or "a buffer"
                raise UndeclaredError(
                    f"loss_fn moves {name}, of a module that Trainer(state=) does not name: "
                    f"{self._consequence}: Trainer(optimizer, state={{'model': model}})"
                )
        self._moved = len(buffers)

    def before_save(self) -> None:
        """Warn, once for each, of other tensors that were written since `watch`."""
        left = []
        for name, reference, count in self._written:
            tensor = reference()
            if tensor is None:
                continue
            is_owned = isinstance(tensor, Parameter) and tensor.owner is not None
            if tensor._version.count == count or is_owned:
                left.append((name, reference, count))
                continue
            what = (
                "a parameter without an optimizer" if isinstance(tensor, Parameter) else "a tensor"
            )
            warn_user(
                f"{name!r}, {what}, was written in this run, and no checkpoint holds it: if the "
                "training uses it, a run that goes on from one differs. Name its module in "
                "Trainer(optimizer, state=...); a tensor becomes the buffer of a module",
            )
        self._written = left


def _is_a(thing: object, kind: type) -> bool:
    """Whether an object is of a class, by its type: proxies say otherwise."""
    return issubclass(type(thing), kind)


def tensors_in(things: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the buffers and parameters of modules, also of those that other objects hold.

    things: modules, tensors and other objects.
    """
    waiting, seen = list(things), set[int]()
    while waiting and len(seen) < _MOST:
        thing = waiting.pop()
        if id(thing) in seen or _is_a(thing, type) or _is_a(thing, ModuleType):
            continue
        seen.add(id(thing))
        if _is_a(thing, Tensor):
            yield thing
        elif hasattr(type(thing), "named_buffers"):
            yield from thing.buffers()
            yield from thing.parameters()
        elif not type(thing).__module__.startswith("rumus."):
            waiting += [part for part in gc.get_referents(thing) if gc.is_tracked(part)]


def _name_of(buffer: Tensor) -> str | None:
    """The class and the attribute of the module that holds a buffer."""
    for holder in referrers(buffer):
        owners = referrers(holder) if type(holder) is dict else [holder]
        for owner in owners:
            if hasattr(type(owner), "named_buffers"):
                for name, value in list(vars(owner).items()):
                    if value is buffer:
                        return f"'{type(owner).__name__}.{name}'"
    return None
