"""Only regular files are read: a pipe may block forever, and some devices never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from rumus.tensor.expression.declared_type import fault_of_path

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def require_regular_file(path: Path) -> None:
    """Refuse anything but a regular file, before opening it.

    FileNotFoundError and other kinds of OSError like `os.stat`; IsADirectoryError for a folder;
    OSError for a pipe, a socket and a device; ValueError for a path that no file has.

    >>> require_regular_file(Path("/"))
    Traceback (most recent call last):
    ...
    IsADirectoryError: [Errno 21] a folder, not a regular file: '/'
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:
        fault = fault_of_path(path) or f"have {error}: {str(path)!r}"
        raise ValueError(f"a path must not {fault}") from None
    if stat.S_ISREG(mode):
        return
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "no file")
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(code, f"{kind}, not a regular file", str(path))
