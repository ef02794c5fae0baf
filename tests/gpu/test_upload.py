"""`UploadRing` on a device that copies as late as it may."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.gpu.device import upload
from rumus.gpu.device.upload import UploadRing

CHUNK = 4096
SIZES = (1, 100, 4095, 4096, 4097, 10_000, 3 * CHUNK, 8 * CHUNK + 5, 60_000)


class LateDevice:
    """A device, and the program that records copies: none is made before the ring waits for it."""

    def __init__(self, chunks: int) -> None:
        self.left = chunks
        self.recorded: list[tuple[Any, int, NDArray[np.uint8]]] = []
        self.submissions: list[list[tuple[Any, int, NDArray[np.uint8]]]] = []
        given: Any = self
        self.ring = UploadRing(given, given, self.flush)

    def take(self, size: int) -> Any:
        """Chunks of memory, until there are no more."""
        self.left -= 1
        memory = np.full(size, 77, np.uint8)
        return (
            SimpleNamespace(bytes=memory, buffer=memory, is_shared=False)
            if self.left >= 0
            else None
        )

    def flush(self) -> None:
        """Submit what was recorded."""
        self.submissions.append(self.recorded)
        self.recorded = []
        self.ring.submitted(len(self.submissions) - 1)

    def poll(self, wait: bool, submission: int) -> None:
        """Make the copies up to a submission."""
        for copies in self.submissions[: submission + 1]:
            for source, start, target in copies:
                target[:] = source[start : start + target.size]
            copies.clear()

    def send(self, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the array that `data` is copied to."""
        target = np.zeros_like(data)
        for source, start, at, size in self.ring.put(data):
            self.recorded.append((source, start, target[at : at + size]))
        return target

    def finish(self) -> None:
        """Make all copies."""
        self.flush()
        self.poll(True, len(self.submissions))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "CHUNK", CHUNK)
    monkeypatch.setattr(upload, "_SHARE", 256)
    monkeypatch.setattr(upload, "_processors", lambda: 3)


def numbers(size: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


@pytest.mark.parametrize("chunks", [1, 2, 3, 100])
def test_everything_arrives(chunks: int) -> None:
    """However many chunks there are; the sender's array may change at once."""
    device = LateDevice(chunks)
    assert device.ring.exists()
    sent = []
    for seed in range(3 * len(SIZES)):
        data = numbers(SIZES[seed % len(SIZES)], seed)
        expected = data.copy()
        sent.append((device.send(data), expected))
        data[:] = 0
    device.finish()
    for target, expected in sent:
        assert target.tobytes() == expected.tobytes()


@pytest.mark.parametrize("pieces", range(1, 5))
def test_what_is_sent_after_an_interruption_arrives(pieces: int) -> None:
    """No thread writes what was interrupted over it."""
    device = LateDevice(100)
    assert device.ring.exists()
    places = device.ring.put(numbers(20 * CHUNK, 0))
    for _ in range(pieces):
        next(places)
    with pytest.raises(KeyboardInterrupt):
        places.throw(KeyboardInterrupt)
    sent = [(device.send(numbers(5 * CHUNK, seed)), numbers(5 * CHUNK, seed)) for seed in range(9)]
    device.finish()
    for target, expected in sent:
        assert target.tobytes() == expected.tobytes()
