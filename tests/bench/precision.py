"""How far products are from float64, by level, layout, depth and magnitude: a table.

    python tests/bench/precision.py [--engine dawn]

An error is relative to what the magnitudes of a row and a column make of it, |a| @ |b| / sqrt(K),
and the column says the root of its mean square. On a device without matrix units all levels are
`highest`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rumus.gpu import Gpu, GpuBackend
from rumus.gpu.device.matrix_units import PRECISIONS
from rumus.tensor import tensor

Array = NDArray[Any]
EDGE = 512


def as_they_are(a: Array, b: Array) -> None:
    """Normal numbers."""


def tiny_and_large(a: Array, b: Array) -> None:
    """1e-30 times 1e25."""
    a *= np.float32(1e-30)
    b *= np.float32(1e25)


def rows_of_all_sizes(a: Array, b: Array) -> None:
    """Rows of a from 2^-60 to 2^60, columns of b from 2^-30 to 2^30."""
    a *= np.exp2(np.linspace(-60, 60, len(a)))[:, None].astype(np.float32)
    b *= np.exp2(np.linspace(-30, 30, b.shape[1])).astype(np.float32)


def growing_in_k(a: Array, b: Array) -> None:
    """2^40 times larger in the second half of k."""
    a[:, a.shape[1] // 2 :] *= np.float32(2.0**20)
    b[len(b) // 2 :] *= np.float32(2.0**20)


MAGNITUDES: Mapping[str, Callable[[Array, Array], None]] = {
    "normal": as_they_are,
    "1e-30, 1e25": tiny_and_large,
    "2^-60 to 2^60 by row": rows_of_all_sizes,
    "growing by 2^40 in k": growing_in_k,
}


def error(backend: GpuBackend, layout: str, depth: int, change: Callable[..., None]) -> float:
    """The error of one product."""
    random = np.random.default_rng(depth)
    a = random.standard_normal((EDGE, depth), np.float32)
    b = random.standard_normal((depth, EDGE), np.float32)
    change(a, b)
    x = tensor(a if layout[0] == "N" else a.T.copy(), backend=backend)
    y = tensor(b if layout[1] == "N" else b.T.copy(), backend=backend)
    found = ((x if layout[0] == "N" else x.T) @ (y if layout[1] == "N" else y.T)).numpy()
    wide, high = a.astype(np.float64), b.astype(np.float64)
    bound = np.abs(wide) @ np.abs(high) / np.sqrt(depth)
    return float(np.sqrt(np.mean(((found - wide @ high) / bound) ** 2)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("wgpu", "dawn"), help="by default, the better one")
    backend = GpuBackend(Gpu(engine=parser.parse_args().engine))
    units = "matrix units" if backend.gpu.units else "no matrix units"
    print(f"{backend.gpu.name} through {backend.gpu.engine}, {units}\n")
    print(f"| layout | K | magnitudes | {' | '.join(PRECISIONS)} |")
    print(f"|---|---|---|{'---|' * len(PRECISIONS)}")
    for layout in ("NN", "NT", "TN"):
        for depth in (64, 768, 4096):
            for name, change in MAGNITUDES.items():
                errors = []
                for level in PRECISIONS:
                    with backend.at_precision(level):
                        errors.append(f"{error(backend, layout, depth, change):.1e}")
                print(f"| {layout} | {depth} | {name} | {' | '.join(errors)} |", flush=True)


if __name__ == "__main__":
    main()
