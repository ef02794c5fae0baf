"""`MessageSum`: sums between ranks by messages, over any network.

MPI only transports bits: each rank receives its part of the array from all others, adds them up in
the tree, and sends the sum to all.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.distributed.link import bounds
from rumus.distributed.tree import add_rows
from rumus.tensor import Backend
from rumus.tensor.memory.backend import Array

if TYPE_CHECKING:
    from rumus.distributed.mpi_link import MpiLink

BLOCK: Final = 1 << 18  # elements of each rank's part exchanged and added up at a time


class MessageSum:
    """Sums of flat arrays of a backend. comm: the mpi4py communicator for messages."""

    def __init__(self, link: MpiLink, comm: Any, backend: Backend) -> None:
        self._link, self._comm, self._backend = link, comm, backend

    def post(self, flat: Array) -> None:
        """A message is sent only when all are ready to receive it."""

    def forget(self) -> None:
        """Nothing is posted."""

    def add_up(self, flat: Array) -> None:
        """See `Link.add_up`."""
        self._sum_part(flat)
        self.collect(flat)

    def _sum_part(self, flat: Array) -> None:
        """Add up this rank's part of all."""
        link, backend = self._link, self._backend
        cuts = bounds(flat.size, link.size)
        longest = max(stop - start for start, stop in pairwise(cuts))
        is_here = isinstance(flat, np.ndarray)
        host = flat if is_here else backend.download(flat)
        step = BLOCK if is_here else max(longest, 1)
        for done in range(0, longest, step):
            pieces = [(min(a + done, b), min(a + done + step, b)) for a, b in pairwise(cuts)]
            rows: list[Array] = self._swap(host, pieces)
            start, stop = pieces[link.rank]
            if start == stop:
                continue
            if not is_here:
                rows = [flat[start:stop] if owner == link.rank else backend.upload(row)
                        for owner, row in enumerate(rows)]  # fmt: skip
            total = add_rows(backend, rows)
            if is_here or link.rank:
                backend.copy(total, flat[start:stop])

    def _swap(self, host: NDArray[Any], pieces: list[tuple[int, int]]) -> list[Array]:
        """Send each rank its piece, and return all ranks' versions of this rank's piece."""
        link, plain = self._link, _transported(host)
        start, stop = pieces[link.rank]
        own = stop - start
        rows = np.empty((link.size, own), plain.dtype)
        counts = [b - a for a, b in pieces]
        sent = [plain, counts, [a for a, _ in pieces], plain.dtype.char]
        taken = [rows, [own] * link.size, [r * own for r in range(link.size)], plain.dtype.char]
        link.wait(self._comm.Ialltoallv(sent, taken))
        link.sent += (sum(counts) - own) * plain.itemsize
        return list(rows.view(host.dtype))

    def collect(self, flat: Array) -> None:
        """See `Link.collect`."""
        link, backend = self._link, self._backend
        cuts = bounds(flat.size, link.size)
        counts = [stop - start for start, stop in pairwise(cuts)]
        own = slice(cuts[link.rank], cuts[link.rank + 1])
        is_here = isinstance(flat, np.ndarray)
        host = flat if is_here else np.empty(flat.shape, flat.dtype)
        if not is_here:
            host[own] = backend.download(flat[own])
        plain = _transported(host)
        taken = [plain, counts, cuts[:-1], plain.dtype.char]
        link.wait(self._comm.Iallgatherv(link.in_place, taken))
        link.sent += counts[link.rank] * (link.size - 1) * plain.itemsize
        if not is_here:
            backend.copy(backend.upload(host), flat)


def _transported(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory as integers: MPI transports bits, nothing else."""
    return array.view(f"u{array.itemsize}")
