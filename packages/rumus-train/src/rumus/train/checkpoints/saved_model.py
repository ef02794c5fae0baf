"""`saved_weights`: a model's weights in a checkpoint, without its optimizer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.nearest_name import nearest_name
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.expression.whole_number import whole_number
from rumus.train.base.printable import printable
from rumus.train.checkpoints.checkpoint_errors import CheckpointError
from rumus.train.checkpoints.checkpoints import Checkpoint, Checkpoints, warn_of_skipped
from rumus.train.checkpoints.snapshot import AVERAGE, RESERVED

WhichStep: TypeAlias = int | Literal["best", "latest"]
_STEP: Final = re.compile(r"step-(\d{8,})")


def saved_weights(
    path: str | Path, *, name: str | None = None, step: WhichStep = "best", average: bool = True
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a module that a run saved, by dotted path, with every byte verified.

    path: a run folder, its folder of checkpoints, or one checkpoint. name: of the module in the
        trainer's `state`; not needed if it is the only one. step: "best" is that of the run's best
        validation, or the newest if there was none. average: use the average that the optimizer
        kept, if any, instead of the trained parameters.

    A CheckpointWarning tells of newer checkpoints that cannot be loaded.

    NoCheckpointError if none can be loaded; CheckpointError if there is no such module, or several
    and no name.
    """
    folder, found = _place(Path(path), step)
    state = _checkpoint(Checkpoints(folder), found).state
    modules = {key: part for key, part in state.items() if _is_module(key, part)}
    key = _chosen(modules, name, folder)
    averages = state.get(AVERAGE, {}).get(key, {}) if average else {}
    return {**modules[key], **averages}


def check_is_there(path: Path) -> None:
    """Raise FileNotFoundError if there is no such run folder."""
    if not path.is_dir():
        raise FileNotFoundError(
            f"there is no run folder {printable(path)}: give the folder of a RunFolder or of "
            "checkpoints=, or one checkpoint in it"
        )


def _place(path: Path, step: WhichStep) -> tuple[Path, WhichStep]:
    """The folder of checkpoints, and which of them is meant."""
    check_is_there(path)
    if match := _STEP.fullmatch(path.name):
        return path.parent, int(match[1])
    inner = path / "checkpoints"
    return inner if inner.is_dir() else path, step


def _checkpoint(checkpoints: Checkpoints, step: WhichStep) -> Checkpoint:
    if not isinstance(step, str):
        return checkpoints.load(whole_number("step", step))
    check_choice("step", step, ("best", "latest"))
    newest = checkpoints.load()
    warn_of_skipped(newest)
    best = newest.state.get("position", {}).get("best_step") if step == "best" else None
    if best is None or best == newest.step:
        return newest
    if any(saved.step == best for saved in checkpoints.list()):
        return checkpoints.load(best)
    warn_user(
        f"the checkpoint of the best validation, after step {best}, is gone: these are the newest "
        f"weights, of step {newest.step}. Checkpoints(keep_best=...) keeps the best, "
        "step='latest' says that the newest are meant",
    )
    return newest


def _is_module(key: str, part: object) -> bool:
    return (
        key not in RESERVED - {"parameters"}
        and isinstance(part, Mapping)
        and bool(part)
        and all(isinstance(value, np.ndarray) for value in part.values())
    )


def _chosen(modules: Mapping[str, Any], name: str | None, folder: Path) -> str:
    there = [key for key in modules if key != "parameters"] or list(modules)
    if name is None and len(there) == 1:
        return there[0]
    if name is not None:
        if name in modules:
            return name
        near = nearest_name(name, there)
        hint = f"; did you mean {near!r}?" if near else f"; it holds {', '.join(there) or 'none'}"
        raise CheckpointError(f"{folder} holds no module {name!r}{hint}")
    told = f"several modules, {', '.join(there)}: say name=..." if there else "no module"
    raise CheckpointError(f"the checkpoints in {folder} hold {told}")
