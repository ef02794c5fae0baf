"""`FileSystem`: the few operations that saving and loading need, so that tests can make each fail.

`LocalFileSystem` is the real one. It is deliberately thin: the disk is accessed only here.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Protocol

# Links are not followed and pipes do not block: a checkpoint has only plain files.
READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
LOCK = os.O_RDWR | os.O_CREAT
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would translate line ends


class FileSystem(Protocol):
    """The operations for writing checkpoints; every method may raise OSError."""

    def open(self, path: Path, flags: int) -> int:
        """Open a file with READ, CREATE or LOCK, and return its descriptor.

        path: of the file.
        flags: as for `os.open`.
        """

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write the beginning of `data`; return how many bytes.

        descriptor: of an open file.
        data: bytes.
        """

    def read(self, descriptor: int, into: memoryview) -> int:
        """Read at most as many bytes as `into` holds; return how many, 0 at the end.

        descriptor: of an open file.
        into: memory to fill.
        """

    def size(self, descriptor: int) -> int:
        """Return the size of an open file; OSError if it is not a plain one.

        descriptor: of an open file.
        """

    def fsync(self, descriptor: int) -> None:
        """Return once the file's bytes are on disk.

        descriptor: of an open file.
        """

    def close(self, descriptor: int) -> None:
        """Close a file.

        descriptor: of an open file.
        """

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder, in no order.

        folder: to list.
        """

    def mkdir(self, folder: Path) -> None:
        """Make a folder; FileExistsError if it exists.

        folder: to create.
        """

    def sync_folder(self, folder: Path) -> None:
        """Return once the folder's names are on disk.

        folder: whose entries are synced.
        """

    def rename(self, old: Path, new: Path) -> None:
        """Rename a folder within its parent, atomically.

        old: the old name.
        new: the new name.
        """

    def remove(self, path: Path) -> None:
        """Remove a file.

        path: of a file.
        """

    def rmdir(self, folder: Path) -> None:
        """Remove an empty folder.

        folder: an empty one.
        """

    def free(self, folder: Path) -> int:
        """Return the number of free bytes.

        folder: on the disk.
        """


class LocalFileSystem:
    """The file system of this machine. On Windows a folder cannot be synced, and is not."""

    def open(self, path: Path, flags: int) -> int:
        """`os.open`, for files that others may read."""
        return os.open(path, flags | _BINARY, 0o666)

    def write(self, descriptor: int, data: memoryview) -> int:
        """`os.write`."""
        return os.write(descriptor, data)

    def read(self, descriptor: int, into: memoryview) -> int:
        """`os.readv`, where there is one."""
        if hasattr(os, "readv"):
            return os.readv(descriptor, [into])
        data = os.read(descriptor, len(into))
        into[: len(data)] = data
        return len(data)

    def size(self, descriptor: int) -> int:
        """`os.fstat`."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a plain file")
        return status.st_size

    def fsync(self, descriptor: int) -> None:
        """`os.fsync`."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """`os.close`."""
        os.close(descriptor)

    def names(self, folder: Path) -> list[str]:
        """`os.listdir`."""
        return os.listdir(folder)

    def mkdir(self, folder: Path) -> None:
        """`os.mkdir`."""
        os.mkdir(folder)

    def sync_folder(self, folder: Path) -> None:
        """`os.fsync` of a folder."""
        if os.name == "nt":
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """`os.rename`."""
        os.rename(old, new)

    def remove(self, path: Path) -> None:
        """`os.remove`."""
        os.remove(path)

    def rmdir(self, folder: Path) -> None:
        """`os.rmdir`."""
        os.rmdir(folder)

    def free(self, folder: Path) -> int:
        """`shutil.disk_usage`."""
        from shutil import disk_usage

        return disk_usage(folder).free


def write_all(fs: FileSystem, descriptor: int, data: memoryview) -> None:
    """Write all of `data`: a single write may be partial, as when the disk is nearly full."""
    while data:
        written = fs.write(descriptor, data)
        if written <= 0:
            raise OSError(f"the disk accepted only {written} of {len(data)} bytes")
        data = data[written:]


def remove_tree(fs: FileSystem, folder: Path) -> None:
    """Remove a folder and its contents."""
    for name in sorted(fs.names(folder)):
        try:
            fs.remove(folder / name)
        except (IsADirectoryError, PermissionError):  # the error for a folder depends on the system
            remove_tree(fs, folder / name)
    fs.rmdir(folder)


def make_folders(fs: FileSystem, folder: Path) -> None:
    """Create a folder and its parents, and sync their names to disk."""
    try:
        fs.mkdir(folder)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_folders(fs, folder.parent)
        fs.mkdir(folder)
    fs.sync_folder(folder.parent)
