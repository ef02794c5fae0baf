"""`FaultyFileSystem`: a `FileSystem` for tests, in which one operation fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, ParamSpec, TypeAlias, TypeVar

from rumus.train.checkpoints.file_system import FileSystem

Fault: TypeAlias = Literal["before", "after", "torn", "error"]

P = ParamSpec("P")
T = TypeVar("T")


class CrashError(BaseException):
    """The process ends here: nothing that the program does afterwards reaches the disk."""


class FaultyFileSystem:
    """Another file system, until operation number `at`.

    fault: "before", "after" or, for a write, "torn" ends the process (CrashError) before, after or
    in the middle of that operation; "error" makes it raise the OSError with the number `error`.
    log: the names of the operations so far.
    """

    def __init__(
        self, real: FileSystem, at: int = -1, fault: Fault = "error", error: int = errno.EIO
    ) -> None:
        self.real, self.at, self.fault, self.error = real, at, fault, error
        self.log: list[str] = []
        self.crashed = False

    def _do(self, operation: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Run the operation, or inject the fault."""
        if self.crashed:
            raise CrashError
        self.log.append(getattr(operation, "__name__", ""))
        if len(self.log) - 1 != self.at:
            return operation(*arguments, **keywords)
        if self.fault == "error":
            raise OSError(self.error, os.strerror(self.error))
        self.crashed = True
        if self.fault != "before":
            operation(*arguments, **keywords)
        raise CrashError

    def open(self, path: Path, flags: int) -> int:
        """Open a file."""
        return self._do(self.real.open, path, flags)

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write, but only half of the data if the write is torn."""
        torn = self.fault == "torn" and len(self.log) == self.at
        return self._do(self.real.write, descriptor, data[: len(data) // 2] if torn else data)

    def read(self, descriptor: int, into: memoryview) -> int:
        """Read from a file."""
        return self._do(self.real.read, descriptor, into)

    def size(self, descriptor: int) -> int:
        """Return a file's size."""
        return self._do(self.real.size, descriptor)

    def fsync(self, descriptor: int) -> None:
        """Sync a file."""
        self._do(self.real.fsync, descriptor)

    def close(self, descriptor: int) -> None:
        """Close a file, even after the process has ended."""
        self.real.close(descriptor)
        if not self.crashed:
            self._do(_closed)

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder."""
        return self._do(self.real.names, folder)

    def mkdir(self, folder: Path) -> None:
        """Make a folder."""
        self._do(self.real.mkdir, folder)

    def sync_folder(self, folder: Path) -> None:
        """Sync a folder."""
        self._do(self.real.sync_folder, folder)

    def rename(self, old: Path, new: Path) -> None:
        """Rename a folder."""
        self._do(self.real.rename, old, new)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        self._do(self.real.remove, path)

    def rmdir(self, folder: Path) -> None:
        """Remove a folder."""
        self._do(self.real.rmdir, folder)

    def free(self, folder: Path) -> int:
        """Return the free space."""
        return self._do(self.real.free, folder)


def _closed() -> None:
    """The name of `close` in the log."""
