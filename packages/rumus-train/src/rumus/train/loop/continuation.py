"""Warnings at a run's start of what makes it differ from one that was never stopped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import numpy as np

from rumus.tensor import Parameter, Tensor
from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.datasets import datasets_of
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
_NUMBER: Final = "loss_fn."
_BATCHES: Final = "loader.batches"
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


def _samples(run: Run) -> dict[str, str]:
    """A checksum of the first and the last sample of a validation: another set may be as large.

    Only of the datasets of rumus: reading one of a program may draw random numbers.
    """
    validate = run.validate_fn
    if run.checkpoints.store is None or not isinstance(validate, tuple):
        return {}
    found = [*datasets_of(validate[0])]
    if not found or not all(type(each).__module__.startswith("rumus.") for each in found):
        return {}
    checksum = 0
    try:
        for place in sorted({0, len(found[0]) - 1}):
            for part in found[0][place]:
                checksum = crc32(np.asarray(part).tobytes(), checksum)
    except Exception:  # the validation, which reads it, says what is wrong
        return {}
    return {f"{_VALIDATION}checksum": f"{checksum:08x}"}


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


def _numbers(run: Run) -> dict[str, Any]:
    """The single numbers that the loss function names, such as the weight of a term.

    One that was drawn, or read from the environment, is another one in the next start.
    """
    found: dict[str, list[Any]] = {}
    for name, thing in named_by(run.loss_fn):
        if isinstance(thing, (int, float, np.number)) and math.isfinite(thing):
            value = thing.item() if isinstance(thing, np.number) else thing
            found.setdefault(f"{_NUMBER}{name}", []).append(value)
    return {name: values[0] for name, values in found.items() if len(values) == 1}


def _batches(run: Run) -> dict[str, int]:
    """How many batches an epoch has, of a loader whose state does not say more."""
    loader, batches = run.batches.loader, run.batches.per_epoch
    if batches is None or hasattr(loader, "state_dict") or hasattr(loader, "set_epoch"):
        return {}
    return {_BATCHES: batches}


def forget_changed(run: Run) -> None:
    """Forget the tensors, arrays and numbers that the run itself writes: they are not fixed."""
    before = run.position.hyper
    now = _frozen(run, with_modules=False) if _starting(_FROZEN, before) else {}
    now |= _numbers(run) if _starting(_NUMBER, before) else {}
    changed = [name for name, value in now.items() if before.get(name, value) != value]
    if changed:
        run.position.hyper = {name: v for name, v in before.items() if name not in changed}


def _starting(prefix: str, found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name.startswith(prefix)}


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
    now = hyperparameters(trainer.optimizer, run.options, run.batches.loader, trainer.state)
    # What was measured before is compared with what comes next.
    now |= (_validated(run.validate_fn) | _samples(run)) or _starting(_VALIDATION, before)
    now |= _batches(run) | _numbers(run)
    if before:  # what was not noted before, or is no more, differs from nothing
        since = (_VALIDATION, _NUMBER, _BATCHES)
        before = {n: v for n, v in before.items() if n in now or not n.startswith(since)}
        before |= {n: v for n, v in now.items() if n not in before and n.startswith(since)}
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
    before = {name: value for name, value in before.items() if not name.startswith(_FROZEN)}
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
