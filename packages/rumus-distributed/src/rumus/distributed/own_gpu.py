"""`own_gpu`: a GPU for each rank of a machine, identified by the driver's name of the card."""

from __future__ import annotations

import socket
from importlib import import_module
from typing import Any

from rumus.distributed.errors import RankError
from rumus.distributed.link import Link
from rumus.tensor import Backend


def own_gpu(link: Link) -> Backend:
    """Return the backend of this rank's GPU; a software driver is shared.

    Raises ImportError without rumus-gpu, its NoAdapterError without a driver, RankError for more
    ranks on a machine than GPUs.
    """
    try:
        gpu: Any = import_module("rumus.gpu")
    except ModuleNotFoundError as missing:
        if missing.name != "rumus.gpu":
            raise
        raise ImportError("a GPU needs the package rumus-gpu: pip install rumus-gpu") from None
    cards = [card for card in gpu.devices() if card.kind != "CPU"]
    if not cards:
        shared: Backend = gpu.default_backend()
        return shared
    if link.local_size > len(cards):
        there = "; ".join(map(str, cards))
        raise RankError(
            f"{link.local_size} ranks run on {socket.gethostname()}, which has {len(cards)} GPUs; "
            f"two ranks on one GPU only wait for each other, so start fewer. Available: {there}"
        )
    card = cards[link.local_rank]
    own: Backend = gpu.GpuBackend(gpu.Gpu(card.uuid or card.index))
    return own
