"""`AppendFile`: a file that grows by whole pieces, so that training survives a full disk."""

from __future__ import annotations

import os
from pathlib import Path

from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.memory.uninterrupted import is_of_handler, suppressed


class RunFolderWarning(UserWarning):
    """Part of a run's records could not be written, or read again; training continues."""


class AppendFile:
    """Opened, or made, to be appended to. OSError if it cannot be.

    A piece that does not fit on the disk is removed and lost, with one RunFolderWarning; later
    pieces are tried again. A crash leaves at most a torn last piece.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._descriptor: int | None = os.open(path, flags, 0o666)
        self._size = os.fstat(self._descriptor).st_size
        self._is_torn = self._has_failed = False

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # when the interpreter ends, the names that it needs may be gone
            return

    def append(self, data: bytes) -> bool:
        """Write all of `data`, or nothing; return whether it was written."""
        if self._descriptor is None:
            return False
        try:
            if self._is_torn:
                os.ftruncate(self._descriptor, self._size)
            rest = memoryview(data)
            while rest:
                self._is_torn = True
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            if is_of_handler(error):
                raise
            self._take_back(self._descriptor, error)
            return False
        self._is_torn = False
        self._size += len(data)
        return True

    def _take_back(self, descriptor: int, error: OSError) -> None:
        with suppressed(OSError):
            os.ftruncate(descriptor, self._size)
        if not self._has_failed:
            self._has_failed = True
            warn_user(
                f"{self.path} cannot be written ({error}): these lines are lost, and training "
                "continues. This warning appears once",
                RunFolderWarning,
            )

    def close(self) -> None:
        """Close the file; it may be called again."""
        descriptor, self._descriptor = getattr(self, "_descriptor", None), None
        if descriptor is not None:
            os.close(descriptor)
