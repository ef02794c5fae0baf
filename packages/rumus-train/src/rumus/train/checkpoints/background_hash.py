"""sha256 in a second thread, parallel to the disk: neither needs the interpreter lock."""

from __future__ import annotations

from hashlib import sha256
from queue import SimpleQueue
from threading import Thread
from typing import Self

_SMALL = 2**20  # hashing fewer bytes is faster than starting a thread


class BackgroundHash:
    """The sha256 of pieces of memory, which must not change until `hexdigest` or the block's end.

    >>> with BackgroundHash() as digest:
    ...     digest.update(memoryview(b"abc"))
    ...     digest.hexdigest()[:8]
    'ba7816bf'
    """

    def __init__(self) -> None:
        self._hash = sha256()
        self._queue: SimpleQueue[memoryview | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._given_up = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._given_up = True
        self._join()

    def update(self, data: memoryview) -> None:
        """Hash a piece of memory, in the background unless it is small and the first."""
        if self._thread is None and len(data) < _SMALL:
            self._hash.update(data)
            return
        if self._thread is None:
            self._thread = Thread(target=self._run, daemon=True)
            self._thread.start()
        self._queue.put(data)

    def hexdigest(self) -> str:
        """Return the sha256 of all pieces, and accept no more."""
        self._join()
        return self._hash.hexdigest()

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            for start in range(0, len(data), _SMALL):
                if not self._given_up:
                    self._hash.update(data[start : start + _SMALL])

    def _join(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
