"""`MemoryFileSystem`: a `FileSystem` for tests that knows what would survive a power failure.

Each change is recorded for a file or a folder, not for a path: a file removed from a folder is gone
from it even if the renaming of that folder is lost. `after_power_cut` builds what a disk may hold
then: everything that was synced, and any part of the rest.
"""

from __future__ import annotations

import copy
import errno
import os
import tempfile
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

from rumus.train.checkpoints.file_system import LOCK, READ

Node: TypeAlias = "dict[str, int] | bytearray"  # a folder's names, or a file's bytes


@dataclass(frozen=True)
class Change:
    """A change: the operation, the file or folder, and its arguments."""

    what: str
    node: int
    arguments: tuple[Any, ...] = ()

    @property
    def is_sync(self) -> bool:
        """Whether it makes the earlier changes of its file or folder durable."""
        return self.what == "sync"


class MemoryFileSystem:
    """Files in memory. changes: what was done since it was made or copied.

    >>> fs = MemoryFileSystem()
    >>> fs.mkdir(Path("/run"))
    >>> fs.names(Path("/")), len(fs.changes)
    (['run'], 1)
    """

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {0: {}}
        self.changes: list[Change] = []
        self._open: dict[int, tuple[int, int]] = {}  # descriptor -> node, position

    def copy(self) -> Self:
        """Return a file system with the same files, all of them on the disk."""
        other = type(self)()
        other.nodes = copy.deepcopy(self.nodes)
        return other

    def after_power_cut(self, start: Self, length: int, lost: Set[int], torn: bool = False) -> Self:
        """Return what the disk holds after the first `length` changes, without those in `lost`.

        start: the files before the changes. torn: lost writes left zeros, not nothing.
        """
        other = start.copy()
        for number, change in enumerate(self.changes[:length]):
            if number in lost and change.what == "mkfile":
                other.nodes[change.arguments[1]] = bytearray()
            elif number in lost and change.what == "mkdir":
                other.nodes[change.arguments[1]] = {}
            elif number not in lost:
                other._apply(change)
            elif torn and change.what == "write":
                other._apply(Change("write", change.node, (bytes(len(change.arguments[0])),)))
        other.changes.clear()
        return other

    def unsynced(self, length: int) -> list[int]:
        """Return which of the first `length` changes may be lost if the power fails after them."""
        synced: set[int] = set()
        found = []
        for number in reversed(range(length)):
            change = self.changes[number]
            if change.is_sync:
                synced.add(change.node)
            elif change.node not in synced:
                found.append(number)
        return found[::-1]

    def open(self, path: Path, flags: int) -> int:
        """Open a file; the lock file is a real one, so that the system's locks work."""
        if flags == LOCK:
            with tempfile.TemporaryFile() as file:
                return os.dup(file.fileno())
        if flags == READ:
            node = self._find(path)
        else:
            node = self._make(path, "mkfile")
        descriptor = 10**6 + len(self._open)
        self._open[descriptor] = (node, 0)
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:
        """Append to a file."""
        node, _ = self._open[descriptor]
        self._change("write", node, bytes(data))
        return len(data)

    def read(self, descriptor: int, into: memoryview) -> int:
        """Read the next bytes."""
        node, position = self._open[descriptor]
        content = self.nodes[node]
        assert isinstance(content, bytearray)
        data = content[position : position + len(into)]
        into[: len(data)] = data
        self._open[descriptor] = (node, position + len(data))
        return len(data)

    def size(self, descriptor: int) -> int:
        """Return a file's length."""
        return len(self.nodes[self._open[descriptor][0]])

    def fsync(self, descriptor: int) -> None:
        """Note that the file is on the disk."""
        self._change("sync", self._open[descriptor][0])

    def close(self, descriptor: int) -> None:
        """Do nothing: descriptors are not reused."""

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder."""
        return [*self._folder(folder)]

    def mkdir(self, folder: Path) -> None:
        """Make a folder."""
        self._make(folder, "mkdir")

    def sync_folder(self, folder: Path) -> None:
        """Note that the names in a folder are on the disk."""
        self._change("sync", self._find(folder))

    def rename(self, old: Path, new: Path) -> None:
        """Rename a folder within its parent."""
        self._find(old)
        if new.name in self._folder(new.parent):
            raise _error(errno.ENOTEMPTY, new)
        self._change("rename", self._find(old.parent), old.name, new.name)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        if isinstance(self.nodes[self._find(path)], dict):
            raise _error(errno.EISDIR, path)
        self._change("remove", self._find(path.parent), path.name)

    def rmdir(self, folder: Path) -> None:
        """Remove an empty folder."""
        if self._folder(folder):
            raise _error(errno.ENOTEMPTY, folder)
        self._change("remove", self._find(folder.parent), folder.name)

    def free(self, folder: Path) -> int:
        """Return plenty of free space."""
        return 2**40

    def _find(self, path: Path) -> int:
        node = 0
        for part in path.parts[1:]:
            content = self.nodes[node]
            if not isinstance(content, dict):
                raise _error(errno.ENOTDIR, path)
            if part not in content:
                raise _error(errno.ENOENT, path)
            node = content[part]
        return node

    def _folder(self, path: Path) -> dict[str, int]:
        content = self.nodes[self._find(path)]
        if not isinstance(content, dict):
            raise _error(errno.ENOTDIR, path)
        return content

    def _make(self, path: Path, what: str) -> int:
        if path.name in self._folder(path.parent) or path == path.parent:
            raise _error(errno.EEXIST, path)
        node = max(self.nodes) + 1
        self._change(what, self._find(path.parent), path.name, node)
        return node

    def _change(self, what: str, node: int, *arguments: Any) -> None:
        change = Change(what, node, arguments)
        self._apply(change)
        self.changes.append(change)

    def _apply(self, change: Change) -> None:
        """Apply a change, unless a change that it needs was lost."""
        content = self.nodes[change.node]
        if isinstance(content, bytearray):
            content += change.arguments[0] if change.what == "write" else b""
        elif change.what in ("mkfile", "mkdir"):
            name, node = change.arguments
            self.nodes[node] = bytearray() if change.what == "mkfile" else {}
            content[name] = node
        elif change.what == "rename" and change.arguments[0] in content:
            old, new = change.arguments
            if new not in content or not self.nodes[content[new]]:
                content[new] = content.pop(old)
        elif change.what == "remove":
            content.pop(change.arguments[0], None)


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))
