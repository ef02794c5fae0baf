"""Warnings at a run's start of what makes it differ from one that was never stopped."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import numpy as np

from rumus.tensor import Parameter, Tensor
from rumus.tensor.expression.user_warning import warn_user
from rumus.train.checkpoints.snapshot import named_by
from rumus.train.data.batches import batches_of_epoch
from rumus.train.data.loader import DataLoader, continue_loop
from rumus.train.data.stream_loader import StreamLoader
from rumus.train.loop.environment import backend_of
from rumus.train.loop.hyperparameters import changed, hyperparameters
from rumus.train.loop.machine import machine, what_differs
from rumus.train.loop.undeclared_tensors import tensors_in

if TYPE_CHECKING:
    from rumus.train.loop.run import Run
    from rumus.train.loop.validation import Validate

_VALIDATION: Final = "validation."
_FROZEN: Final = "frozen."
_COMPARED: Final = 1024  # numbers of each weight


def warn_of_partial_epoch(loader: Any) -> None:
    """Warn if a fresh run would begin in the middle of a loader's epoch."""
    done = batches_of_epoch(loader)
    if isinstance(loader, DataLoader) and done == len(loader):
        return  # its next loop is over the next epoch
    if isinstance(loader, StreamLoader):
        if loader.was_left:
            warn_user(
                f"the StreamLoader given as loader has handed out {done} batches of epoch "
                f"{loader.epoch}, and this run continues after them: loader.seek(loader.epoch) "
                "starts the epoch over, and loader.load_state_dict(loader.state_dict()) continues "
                "without this warning",
            )
            continue_loop(loader)  # which would say it again
    elif done and hasattr(loader, "seek"):
        warn_user(
            f"the loader has handed out {done} batches of its epoch, which the first epoch of "
            "this run lacks: loader.seek(loader.epoch) starts the epoch over",
        )
        continue_loop(loader)  # which would say it again


def note_machine(run: Run, path: Path | None) -> None:
    """Warn if a run continues on a machine where the last bits may differ.

    path: of the checkpoint, for the message.
    """
    before, now = run.position.machine, machine(backend_of(run.trainer.optimizer))
    run.position.machine = now
    differs = what_differs(before, now) if before else None
    if differs is not None:
        _warn(
            run,
            f"the run continues from {path} on another machine, and may differ in the "
            f"last bits from an uninterrupted run ({differs})",
        )


def _validated(validate: Validate | None) -> dict[str, int]:
    """How much a validation is over, if it says so: the best values of two are not comparable."""
    if not isinstance(validate, tuple):
        return {}
    counted = {"samples": getattr(validate[0], "dataset", None), "batches": validate[0]}
    for name, thing in counted.items():
        with suppress(TypeError):  # no len()
            return {f"{_VALIDATION}{name}": len(thing)}  # type: ignore[arg-type]
    return {}


def _frozen(run: Run, *, with_modules: bool = True) -> dict[str, Any]:
    """Checksums of the weights that no optimizer trains and no checkpoint holds, by their module.

    Such as those of a pretrained part: they are to be the same in each start. So are tensors and
    arrays that the loss function names, such as a random projection.
    """
    if run.checkpoints.store is None:
        return {}
    known = {id(tensor) for tensor in tensors_in(run.trainer.state.values())}
    found: dict[str, int] = {}
    for name, thing in named_by(run.loss_fn):
        for weight in _fixed_in(thing, with_modules):
            is_owned = isinstance(weight, Parameter) and weight.owner is not None
            if not is_owned and id(weight) not in known:
                is_tensor = isinstance(weight, Tensor)
                flat = weight.detach().reshape(-1) if is_tensor else weight.flat
                numbers = np.asarray(flat[:_COMPARED])
                found[_FROZEN + name] = crc32(numbers.tobytes(), found.get(_FROZEN + name, 0))
    return found


def forget_changed(run: Run) -> None:
    """Forget the checksums of tensors and arrays that the run itself writes: they are not fixed."""
    before = run.position.hyper
    now = _frozen(run, with_modules=False) if any(map(_is_frozen, before)) else {}
    changed = [name for name, value in now.items() if before.get(name, value) != value]
    if changed:
        run.position.hyper = {name: v for name, v in before.items() if name not in changed}


def _is_frozen(name: str) -> bool:
    return name.startswith(_FROZEN)


def _fixed_in(thing: Any, with_modules: bool) -> Iterable[Any]:
    """The parameters of a module; a tensor or an array of numbers itself."""
    if hasattr(type(thing), "named_buffers"):
        within = tensors_in([thing]) if with_modules else ()
        return [weight for weight in within if isinstance(weight, Parameter)]
    is_array = type(thing) is np.ndarray and thing.dtype.kind in "fiub"
    return [thing] if isinstance(thing, Tensor) else [thing] if is_array else []


def note_hyperparameters(run: Run, path: Path | None) -> None:
    """Warn if a run continues with other hyperparameters, or frozen weights: the new ones count.

    path: of the checkpoint, for the message.
    """
    before = run.position.hyper
    trainer = run.trainer
    now = hyperparameters(trainer.optimizer, run.accumulate, run.batches.loader, trainer.state)
    validated = _validated(run.validate_fn)
    known = {name: value for name, value in before.items() if name.startswith(_VALIDATION)}
    now |= validated or known  # what was measured before is compared with what comes next
    before = before if not before or known else {**before, **validated}
    frozen = _frozen(run)
    run.position.hyper = now | frozen
    other = [name for name, value in frozen.items() if before.get(name, value) != value]
    if other:
        names = ", ".join(repr(name.removeprefix(_FROZEN)) for name in other)
        _warn(
            run,
            f"the run continues from {path} with other weights of {names}, which no optimizer "
            "trains and no checkpoint holds, than before: load the same ones at each start, or "
            "name the module in Trainer(optimizer, state=...); a tensor becomes the buffer of one",
        )
    before = {name: value for name, value in before.items() if not _is_frozen(name)}
    what = changed(before, now) if before else None
    if what is not None:
        _warn(
            run,
            f"the run continues from {path} with other hyperparameters than before: "
            f"{what}. The current ones apply; to start over, use another folder",
        )


def _warn(run: Run, message: str) -> None:
    """Warn on the rank that speaks."""
    if run.team.speaks:
        warn_user(message)
