"""Compiled loops that outlive the process: numba caches by file, so each text gets one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rumus.tensor.compiled.whole_numba import whole_numba
from rumus.tensor.memory.uninterrupted import is_of_handler

if TYPE_CHECKING:
    from pathlib import Path


def compiled_loop(
    source: str, namespace: Mapping[str, Any], meaning: str, **options: Any
) -> Callable[..., None]:
    """Compile the function `loop` in a text, or load it from the cache of another process.

    namespace: the other names in the text. meaning: the parts of the namespace that numba's cache
        does not compare: dtypes, and the text of other functions. If nothing can be saved, as on a
        read-only file system, the function is compiled each time.
    """
    numba = whole_numba()

    loop: Callable[..., None] = _compiled(
        lambda kept: numba.njit(cache=kept, **options), source, namespace, meaning
    )
    return loop


def compiled_entry(source: str, namespace: Mapping[str, Any], meaning: str) -> int:
    """Compile the function `loop(place, start, stop)` of a text, and return its address.

    namespace, meaning: as for `compiled_loop`. It lives as long as the process.
    """
    numba = whole_numba()

    def compiled(kept: bool) -> Callable[..., Any]:
        numbers = "void(int64, int64, int64)"
        found: Callable[..., Any] = numba.cfunc(numbers, cache=kept, error_model="numpy")
        return found

    entry: Any = _compiled(compiled, source, namespace, meaning)
    _entries.append(entry)
    return int(entry.address)


_entries: list[Any] = []  # others have their addresses


def _compiled(
    compile_: Callable[[bool], Callable[..., Any]],
    source: str,
    namespace: Mapping[str, Any],
    meaning: str,
) -> Any:
    """What `compile_`, told whether to keep what it compiles, makes of the function of a text."""
    numba = whole_numba()

    names: dict[str, Any] = {"__name__": __name__, **namespace}  # numba asks where it is from
    # What numba keeps names the modules of all it calls, which another version may have elsewhere.
    origin = f"{numba.__version__} {import_module('rumus.tensor').__version__} {__name__}"
    file = _file_of(source, f"{meaning} {origin}")
    # The text is generated from a kernel's nodes and contains nothing that a caller wrote.
    exec(compile(source, "<kernel>" if file is None else str(file), "exec"), names)
    if file is not None:
        with suppress(RuntimeError):  # numba may find no place for what it compiles
            return compile_(True)(names["loop"])
    return compile_(False)(names["loop"])


@cache
def cache_folder() -> Path:
    """Return the folder of the texts: NUMBA_CACHE_DIR, or the user's cache."""
    from pathlib import Path

    config: Any = import_module("numba.core.config")
    if config.CACHE_DIR:
        return Path(config.CACHE_DIR, "rumus")
    folders: Any = import_module("numba.misc.appdirs")
    return Path(folders.AppDirs(appname="rumus", appauthor=False).user_cache_dir, "kernels")


def _file_of(source: str, meaning: str) -> Path | None:
    """Return the file with this text, written if necessary; None if that fails."""
    from hashlib import sha256
    from tempfile import NamedTemporaryFile

    name = sha256(f"{meaning}\n{source}".encode()).hexdigest()[:32]
    file = cache_folder() / f"kernel_{name}.py"
    try:
        if file.is_file() and file.read_text("utf-8") == source:
            return file
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as at:
            at.write(source)
        os.replace(at.name, file)
    except OSError as error:
        if is_of_handler(error):
            raise
        return None
    return file
