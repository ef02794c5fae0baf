"""Compiled loops that outlive the process: numba keeps them beside a file, so their text is one."""

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
    """Compile the function `loop` of a text, or load what another process has compiled of it.

    namespace: what the text names besides. meaning: what of the namespace numba does not look at
    when it compares: dtypes, and the text of other functions. Where nothing can be kept, as on a
    file system that is read only, it is compiled each time.
    """
    import numba

    names: dict[str, Any] = {"__name__": __name__, **namespace}  # numba asks where it is from
    file = _file_of(source, f"{meaning} {numba.__version__}")
    # The text is made from a kernel's own nodes, nothing a caller wrote.
    exec(compile(source, "<kernel>" if file is None else str(file), "exec"), names)
    if file is not None:
        with suppress(RuntimeError):  # numba may find no place for what it compiles
            kept: Callable[..., None] = numba.njit(cache=True, **options)(names["loop"])
            return kept
    loop: Callable[..., None] = numba.njit(**options)(names["loop"])
    return loop


@cache
def cache_folder() -> Path:
    """Return where the texts are: where NUMBA_CACHE_DIR says, or the user's cache."""
    config: Any = import_module("numba.core.config")
    if config.CACHE_DIR:
        return Path(config.CACHE_DIR, "rumus")
    folders: Any = import_module("numba.misc.appdirs")
    return Path(folders.AppDirs(appname="rumus", appauthor=False).user_cache_dir, "kernels")


def _file_of(source: str, meaning: str) -> Path | None:
    """Return the file with this text, written if need be; None if it cannot be."""
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
