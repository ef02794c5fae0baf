"""Loading speed: augmented images against torch.utils.data, Parquet against pyarrow.

Samples or rows per second, the best of a few alternating rounds, and the ratio to the peer, which
has no threads: rumus with threads is compared with torch without workers.
Run with `python tests/bench/loaders.py`; it needs torch and pyarrow.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rumus.train import ArrayDataset, DataLoader, ParquetDataset, images

COUNT, BATCH, ROUNDS = 4096, 128, 7
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), np.uint8)
LABELS = np.arange(COUNT) % 10
AUGMENT = images.Augment(images.Crop(32, padding=4), images.Flip(), images.Normalize(0.5, 0.25))


class TorchImages:
    """The same samples and transforms, as torch.utils.data takes them."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[Any, int]:
        generator = np.random.default_rng(index)
        image, label = AUGMENT((PIXELS[index], int(LABELS[index])), generator)
        return image, label


def _of_rumus(workers: int, *, processes: bool) -> Iterable[Any]:
    dataset = ArrayDataset(PIXELS, LABELS)
    return DataLoader(dataset, BATCH, shuffle=True, transform=AUGMENT, workers=workers,
                      processes=processes)  # fmt: skip


def _of_torch(workers: int) -> Iterable[Any]:
    from torch.utils import data

    dataset: Any = TorchImages()
    found: Iterable[Any] = data.DataLoader(dataset, BATCH, shuffle=True, num_workers=workers,
                                           persistent_workers=workers > 0)  # fmt: skip
    return found


def _gone_through(loader: Iterable[Any]) -> Callable[[], object]:
    return lambda: [None for _ in loader]


def _told(what: str, amount: int, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    best = {"rumus": 0.0, "peer": 0.0}
    for _ in range(ROUNDS):
        for name, act in (("rumus", ours), ("peer", theirs)):
            start = time.perf_counter()
            act()
            best[name] = max(best[name], amount / (time.perf_counter() - start))
    ratio = best["rumus"] / best["peer"]
    print(f"{what:32} {best['rumus']:12,.0f} /s  peer {best['peer']:12,.0f} /s  ratio {ratio:.2f}")


def main() -> None:
    """Measure and print."""
    import pyarrow
    from pyarrow import parquet

    for workers, processes in ((0, False), (2, False), (2, True)):
        ours = _gone_through(_of_rumus(workers, processes=processes))
        theirs = _gone_through(_of_torch(workers if processes else 0))
        what = f"{workers} {'processes' if processes else 'threads'}" if workers else "no workers"
        _told(f"images, augmented, {what}", COUNT, ours, theirs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.parquet")
        values = np.random.default_rng(0).normal(size=(200_000, 20)).astype(np.float32)
        table = pyarrow.table({f"c{i}": values[:, i] for i in range(20)})
        parquet.write_table(table, path)

        def by_pyarrow() -> object:
            found = parquet.read_table(path)
            return np.column_stack([column.to_numpy() for column in found.columns])

        _told("Parquet, rows of 20 columns", 200_000, lambda: ParquetDataset(path), by_pyarrow)


if __name__ == "__main__":
    main()
