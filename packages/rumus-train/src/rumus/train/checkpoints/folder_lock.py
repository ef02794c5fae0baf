"""`FolderLock`: one writer per folder.

The system's lock on an open file ends with the process, however it ends, so a dead process never
holds a folder. On a file system without locks, the process named in the file counts.
"""

from __future__ import annotations

import errno
import os
import stat
import weakref
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from rumus.train.base.strict_json import parse, render
from rumus.train.checkpoints.checkpoint_errors import FolderInUseError
from rumus.train.checkpoints.file_system import LOCK, FileSystem

NAME: Final = "lock"
_TAKEN: Final = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_LONGEST = 4096  # bytes that are read from the file


class FolderLock:
    """The right to write to a folder, from `acquire` to `release` or the end of the process."""

    def __init__(self, fs: FileSystem, folder: Path) -> None:
        self._descriptor: int | None = None  # first: `__del__` reads it
        self.folder = folder
        self._fs = fs
        _locks.add(self)

    def __del__(self) -> None:
        try:
            self.release()
        except Exception:  # when the interpreter ends, the names that it needs may be gone
            return

    def acquire(self) -> None:
        """Take the lock unless already held; FolderInUseError names another holder.

        OSError where the file cannot be opened, or is no regular file.
        """
        if self._descriptor is not None:
            return
        descriptor = self._fs.open(self.folder / NAME, LOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                path = str(self.folder / NAME)
                raise OSError(errno.EINVAL, "the lock must be a regular file: remove it", path)
            owner = _content(descriptor)
            if not _lock(descriptor, owner):
                raise FolderInUseError(
                    f"process {owner.get('pid', '?')} on {owner.get('host', '?')} is saving to "
                    f"{self.folder}: two trainers would delete each other's checkpoints. Stop it, "
                    "or choose another folder. If it has ended and left its lock behind on a "
                    f"file system without locks, remove {self.folder / NAME}"
                )
            _name_owner(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.ftruncate(descriptor, 0)
            os.close(descriptor)

    def forget(self) -> None:
        """Close the file in a forked child, which does not own the lock of its parent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


_locks: weakref.WeakSet[FolderLock] = weakref.WeakSet()


def _forget_locks() -> None:
    for lock in list(_locks):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


def _lock(descriptor: int, owner: dict[str, Any]) -> bool:
    """Try to lock an open file; return whether that succeeded."""
    try:
        if os.name == "nt":
            windows = import_module("msvcrt")
            os.lseek(descriptor, _LONGEST, os.SEEK_SET)  # the locked byte is unreadable
            windows.locking(descriptor, windows.LK_NBLCK, 1)
        else:
            fcntl = import_module("fcntl")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return not _may_live(owner)
        if error.errno in _TAKEN:
            return False
        raise
    return True


def _may_live(owner: dict[str, Any]) -> bool:
    """Whether the named process is another running one here, or one on another host."""
    if not owner or owner.get("host") != _host():
        return bool(owner)
    pid = owner.get("pid")
    if type(pid) is not int or pid <= 0 or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it belongs to another user, and is alive
    return True


def _content(descriptor: int) -> dict[str, Any]:
    """Return the owner named in the file; nothing if unreadable."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        owner = parse(os.read(descriptor, _LONGEST))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _name_owner(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, render({"pid": os.getpid(), "host": _host()}))


def _host() -> str:
    from socket import gethostname

    return gethostname()
