"""Compiled loops that outlive the process: numba caches by file, so each text gets one."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


def compiled_loop(
    source: str, namespace: Mapping[str, Any], meaning: str, **options: Any
) -> Callable[..., None]:
    """Compile the function `loop` in a text, or load it from the cache of another process.

    namespace: the other names in the text. meaning: the parts of the namespace that numba's cache
        does not compare: dtypes, and the text of other functions. If nothing can be saved, as on a
        read-only file system, the function is compiled each time.
    """
    import numba

    names: dict[str, Any] = {"__name__": __name__, **namespace}  # numba looks up its file
    file = _file_of(source, f"{meaning} {numba.__version__}")
    # The text is generated from a kernel's nodes and contains nothing that a caller wrote.
    exec(compile(source, "<kernel>" if file is None else str(file), "exec"), names)
    if file is not None:
        with suppress(RuntimeError):  # numba may find no cache folder
            kept: Callable[..., None] = numba.njit(cache=True, **options)(names["loop"])
            return kept
    loop: Callable[..., None] = numba.njit(**options)(names["loop"])
    return loop


@cache
def cache_folder() -> Path:
    """Return the folder of the texts: NUMBA_CACHE_DIR, or the user's cache."""
    config: Any = import_module("numba.core.config")
    if config.CACHE_DIR:
        return Path(config.CACHE_DIR, "rumus")
    folders: Any = import_module("numba.misc.appdirs")
    return Path(folders.AppDirs(appname="rumus", appauthor=False).user_cache_dir, "kernels")


def _file_of(source: str, meaning: str) -> Path | None:
    """Return the file with this text, written if necessary; None if that fails."""
    name = hashlib.sha256(f"{meaning}\n{source}".encode()).hexdigest()[:32]
    file = cache_folder() / f"kernel_{name}.py"
    try:
        if file.is_file() and file.read_text("utf-8") == source:
            return file
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, delete=False, encoding="utf-8"
        ) as at:
            at.write(source)
        os.replace(at.name, file)
    except OSError:
        return None
    return file
