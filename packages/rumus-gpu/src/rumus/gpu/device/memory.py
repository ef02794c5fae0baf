"""The pool of memory for arrays.

A block belongs to one array (and its views) at a time. When Python drops the last of them, the
block returns to the pool and may be reused at once: the device runs commands in order, so readers
of the old contents come first. Blocks are destroyed only when memory runs out, after everything
submitted has finished.
"""

from __future__ import annotations

import gc
import weakref
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from rumus.gpu.engine.errors import EngineError, LimitError, OutOfMemoryError
from rumus.gpu.engine.protocol import Buffer, Device, Handle, Usage

USAGE: Final = Usage.STORAGE | Usage.COPY_SRC | Usage.COPY_DST
GRAIN: Final = 256  # bytes: the size of every block is a multiple of it
CAPTURED: Final = "captured steps"  # the table's name for memory that only replays use
_ROWS: Final = 12  # of the table in an error


@dataclass(slots=True, eq=False)
class Block:
    """One buffer of the device."""

    buffer: Buffer
    handle: Handle
    size: int
    batch: int = -1  # the last batch of commands that uses it
    region: Region | None = None  # the captured step that it belongs to


class Region:
    """The blocks of one captured step, used by its commands in each replay.

    During recording, its arrays may reuse each other's blocks. No other array gets a block until
    the region is freed.
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.free: dict[int, list[Block]] = {}
        self.made: list[weakref.ref[Storage]] = []

    def take(self, size: int) -> Block | None:
        """Return a free block of `size` bytes or, past the peak, the smallest larger one.

        Before the peak, a long-lived small array would waste a large block. After it, once a
        quarter has been freed, nothing is lost: only this step uses the block.
        """
        if kept := self.free.get(size):
            return kept.pop()
        fitting = [held for held, blocks in self.free.items() if blocks and held > size]
        unused = sum(held * len(blocks) for held, blocks in self.free.items())
        is_past = 4 * unused > sum(block.size for block in self.blocks)
        return self.free[min(fitting)].pop() if fitting and is_past else None


class Storage:
    """The memory of one array and its views. It returns to the pool with the last of them."""

    __slots__ = ("__weakref__", "block", "handle", "label", "pool", "size", "writes")

    def __init__(self, block: Block, pool: Pool, label: str) -> None:
        self.block = block
        self.handle = block.handle
        self.size = block.size
        self.pool = pool
        self.label = label
        self.writes = 0  # how often a kernel or the host wrote to it


class _Ending(weakref.ref[Storage]):
    """What becomes of a block when its storage is gone, at any moment on any thread.

    The interpreter itself appends it to a deque, which needs no lock. In a `__del__` a signal's
    handler could raise, and nobody would hear of that.
    """

    __slots__ = ("block", "label")

    block: Block
    label: str


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """Bytes on the device: held by arrays, kept for reuse, and the most ever held by arrays.

    used: bytes held by arrays.
    cached: bytes kept for future arrays.
    peak: the most used at once.
    blocks: the number of blocks from the driver.
    """

    used: int
    cached: int
    peak: int
    blocks: int


@lru_cache(maxsize=4096)
def size_class(size: int) -> int:
    """Return the size of the block for `size` bytes: in steps of an eighth, at least 256 bytes.

    >>> [size_class(n) for n in (0, 300, 5000, 1_000_000)]
    [256, 512, 5120, 1048576]
    """
    grain = max(GRAIN, 1 << max(0, (max(size, 1) - 1).bit_length() - 4))
    return max(GRAIN, -(-size // grain) * grain)


class Pool:
    """Blocks by size class; free ones are kept for the next array of that size.

    wait: submits the recorded commands and waits until the device is idle.
    """

    def __init__(self, device: Device, largest: int, wait: Callable[[], None]) -> None:
        self.device = device
        self.largest = largest
        self.wait = wait
        self.free: dict[int, list[Block]] = {}
        self.returned: deque[weakref.ref[Storage]] = deque()
        self._endings: dict[int, _Ending] = {}  # of the arrays there are
        self.given_up: deque[Region] = deque()
        self.held: Counter[str] = Counter()  # label -> bytes
        self.used = self.cached = self.peak = 0
        # Keeps every block reachable: in a garbage cycle, the collector would finalize the buffer
        # together with the array that returns it here.
        self.blocks: set[Block] = set()

    def allocate(self, size: int, label: str, region: Region | None = None) -> Storage:
        """Return uninitialized memory for `size` bytes.

        region: the captured step that it belongs to, while that is recorded.
        Raises LimitError if no array may be that large, OutOfMemoryError if the device is full.
        """
        if size > self.largest:
            raise LimitError(
                f"an array {label} of {size:,} bytes is larger than this device can bind "
                f"({self.largest:,} bytes); split it along an axis"
            )
        self.collect()
        wanted = min(size_class(size), -(-self.largest // GRAIN) * GRAIN)
        storage = self._storage(self._take(wanted, region), label)
        self.peak = max(self.peak, self.used)
        self.held[label] += storage.size
        if region is not None:
            region.made.append(weakref.ref(storage))
        return storage

    def _storage(self, block: Block, label: str) -> Storage:
        """Memory of an array, whose block comes back."""
        storage = Storage(block, self, label)
        ending = _Ending(storage, self.returned.append)
        ending.block, ending.label = block, label
        self._endings[id(ending)] = ending
        return storage

    def _take(self, size: int, region: Region | None) -> Block:
        """A block of the region, a free one, or a new one."""
        if region is not None and (block := region.take(size)) is not None:
            self._release(CAPTURED, block.size)
            return block
        free = self.free.get(size)
        if free:
            block = free.pop()
            self.cached -= size
        else:
            block = self._create(size)
        self.used += size
        if region is not None:
            block.region = region
            region.blocks.append(block)
        return block

    def _release(self, label: str, size: int) -> None:
        left = self.held[label] - size
        if left:
            self.held[label] = left
        else:
            del self.held[label]

    def collect(self) -> None:
        """Take back the blocks of arrays that are gone."""
        while self.returned:
            ending = self._endings.pop(id(self.returned.popleft()), None)
            if ending is None:  # a signal's handler has raised while the array was made
                continue
            block = ending.block
            self._release(ending.label, block.size)
            if block.region is None:
                self._keep(block)
            else:
                block.region.free.setdefault(block.size, []).append(block)
                self.held[CAPTURED] += block.size
        while self.given_up:
            region = self.given_up.popleft()
            for block in region.blocks:
                block.region = None
            for block in (block for blocks in region.free.values() for block in blocks):
                self._release(CAPTURED, block.size)
                self._keep(block)

    def _keep(self, block: Block) -> None:
        """Add a block to the free ones."""
        self.free.setdefault(block.size, []).append(block)
        self.used -= block.size
        self.cached += block.size

    def _create(self, size: int) -> Block:
        for attempt in range(2):
            try:
                buffer = self.device.buffer(size, USAGE)
            except EngineError as error:
                if not error.is_memory:
                    raise
                if attempt == 0:
                    self.trim()
                continue
            block = Block(buffer, buffer.handle, size)
            self.blocks.add(block)
            return block
        raise OutOfMemoryError(self._report(size))

    def trim(self) -> None:
        """Wait for the device and give every free block back to the driver."""
        gc.collect()
        self.wait()
        self.collect()
        for blocks in self.free.values():
            for block in blocks:
                block.buffer.destroy()
                self.blocks.discard(block)
        self.free.clear()
        self.cached = 0

    def stats(self) -> MemoryStats:
        """Return the bytes held now, kept for reuse, and the most ever held."""
        self.collect()
        return MemoryStats(self.used, self.cached, self.peak, len(self.blocks))

    def _report(self, size: int) -> str:
        rows = self.held.most_common(_ROWS)
        table = "\n".join(f"  {held:>16,} bytes  {label}" for label, held in rows)
        return (
            f"the GPU has no memory for another {size:,} bytes; arrays hold {self.used:,} bytes:\n"
            f"{table}\nUse smaller batches, or drop tensors that are no longer needed"
        )
