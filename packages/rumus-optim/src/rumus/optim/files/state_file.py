"""State files: the arrays as safetensors, the rest as JSON in the header of the same file."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import StateMismatchError
from rumus.tensor.expression.declared_type import check_path, shown
from rumus.tensor.memory.replaced_file import replaced

_FORMAT: Final = "state 2"
_BEFORE: Final = "state 1"  # an older format, with a slash before each path


class StateFileError(StateMismatchError):
    """A file is damaged, or is not a saved state."""


class HasState(Protocol):
    """Has a state that can be saved: an optimizer, or a `Plateau`."""

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state: dictionaries of arrays and JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a saved state completely or, with an error, not at all.

        state: what `state_dict()` returned.
        """
        ...


def save_state(stateful: HasState, path: str | os.PathLike[str]) -> None:
    """Write the state of an optimizer to a file, by parameter name.

    The file is a safetensors file. It is written to a temporary file beside `path`, flushed to disk
    and renamed: `path` is the old file or the new one, whatever happens.

    stateful: an optimizer, or a `Plateau`.
    path: the file.

    Raises OSError if it cannot be written.

    >>> import tempfile
    >>> from rumus.optim import AdamW, load_state, save_state
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([1.0], name="w")
    >>> optimizer = AdamW([w], 0.1)
    >>> optimizer.step((w * w).sum().backward())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_state(optimizer, f"{folder}/adamw.safetensors")
    ...     optimizer.release()
    ...     again = AdamW([w], 0.1)
    ...     load_state(again, f"{folder}/adamw.safetensors")
    >>> again.steps
    1
    """
    from safetensors.numpy import save

    _check_given("save_state", stateful, "state_dict", path)
    arrays, rest = _taken_apart(stateful.state_dict())
    text = json.dumps(rest)
    metadata = {"rumus": _FORMAT, "state": text, "sha256": _digest(arrays, text)}
    _write(Path(path), save(arrays, metadata))


def load_state(stateful: HasState, path: str | os.PathLike[str]) -> None:
    """Load an optimizer's state from a file written by `save_state`.

    The state is loaded completely or, with an error, not at all: StateFileError for a file that is
    damaged or is not a saved state, StateMismatchError, listing every difference, for the state of
    another optimizer, OSError if it cannot be read.

    stateful: an optimizer of the same kind with the same parameters, or a `Plateau`.
    path: the file.
    """
    _check_given("load_state", stateful, "load_state_dict", path)
    stateful.load_state_dict(_read(Path(path)))


def _check_given(of: str, stateful: object, method: str, path: object) -> None:
    """Raise TypeError for what has no state, such as the path; ValueError for an impossible one."""
    if isinstance(stateful, type) or not hasattr(stateful, method):
        raise TypeError(f"{of} takes an optimizer, then a path, not {stateful!r} first")
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{of}: path must be text or a Path, not {shown(path)}")
    check_path(f"{of}: path", path)


def _taken_apart(state: Mapping[str, Any]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Split nested dictionaries into arrays by path and a tree of the rest.

    A path is a JSON pointer (RFC 6901) without its first slash: a name may hold any character, and
    the arrays of a flat state have their plain names.
    """
    arrays: dict[str, NDArray[Any]] = {}

    def rest(part: Mapping[str, Any], path: str) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, value in part.items():
            here = path + key.replace("~", "~0").replace("/", "~1")
            if isinstance(value, np.ndarray):
                arrays[here] = np.array(value, order="C")
            else:
                kept[key] = rest(value, f"{here}/") if isinstance(value, Mapping) else value
        return kept

    return arrays, rest(state, "")


def _put_together(arrays: Mapping[str, NDArray[Any]], tree: dict[str, Any]) -> dict[str, Any]:
    """Undo `_taken_apart`. Raises ValueError for an array whose place is missing or taken."""
    for path, array in arrays.items():
        keys = [key.replace("~1", "/").replace("~0", "~") for key in path.split("/")]
        part: Any = tree
        for key in keys[:-1]:
            part = part.get(key) if isinstance(part, dict) else None
        if not isinstance(part, dict) or keys[-1] in part:
            raise ValueError(f"the array {path!r} does not belong to the state")
        part[keys[-1]] = array
    return tree


def _digest(arrays: Mapping[str, NDArray[Any]], text: str) -> str:
    """Return the SHA-256 of a state: safetensors checks sizes, but not the contents."""
    import hashlib

    found = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _write(path: Path, data: bytes) -> None:
    """Replace the content of `path` atomically."""
    with replaced(path) as beside:
        beside.write_bytes(data)
    if os.name == "posix":  # the rename must reach the disk, too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _read(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    kind = os.stat(path).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # a pipe would block
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb"):
        pass  # OSError if it cannot be read
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("rumus") not in (_FORMAT, _BEFORE):
                raise ValueError(
                    "it is a safetensors file, but save_state did not write it; load the weights "
                    "of a model with model.load_file(path)"
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata["state"]
        if _digest(arrays, text) != metadata["sha256"]:
            raise ValueError("its contents have changed since it was saved")
        tree = json.loads(text)
        if not isinstance(tree, dict):
            raise ValueError("its state is not a dictionary")
        if metadata["rumus"] == _BEFORE:
            arrays = {name.removeprefix("/"): array for name, array in arrays.items()}
        return _put_together(arrays, tree)
    except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise StateFileError(f"{path} is damaged, or not a saved state: {error}") from error
