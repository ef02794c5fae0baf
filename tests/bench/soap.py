"""The cost of a SOAP step on the CPU, against AdamW's, Muon's and pytorch_optimizer's SOAP.

    python tests/bench/soap.py [--large]

For lists of matrices, in milliseconds: a step between two refreshes of the basis, one with a
refresh, and their mean with a refresh every 10 steps. The sides take turns. pytorch_optimizer is
skipped if it is not installed. --large is a block of GPT-2, which takes some seconds per step.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from statistics import median
from time import perf_counter
from typing import Final

from steps import stepping

from rumus.optim import SOAP, AdamW, Muon
from rumus.tensor import NumbaBackend

EVERY: Final = 10
Shapes = Sequence[tuple[int, int]]
LISTS: Final[dict[str, Shapes]] = {
    "small GPT: 2 blocks of 64": ((192, 64), (64, 64), (256, 64), (64, 256)) * 2,
    "4 matrices of 256 x 256": ((256, 256),) * 4,
}
LARGE: Final[dict[str, Shapes]] = {
    "a block of GPT-2": ((2304, 768), (768, 768), (3072, 768), (768, 3072)),
}


def of_peer(shapes: Shapes) -> Callable[[], object]:
    """A step of the peer's SOAP."""
    import torch

    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in parameters:
        p.grad = torch.randn_like(p)
    optimizer = importlib.import_module("pytorch_optimizer").SOAP(parameters, 1e-4)
    return lambda: optimizer.step()


def timed(step: Callable[[], object]) -> float:
    """How long a step takes, in milliseconds."""
    start = perf_counter()
    step()
    return (perf_counter() - start) * 1e3


def measured(shapes: Shapes, rounds: int) -> dict[str, list[float]]:
    """The times of steps of each side, from the second refresh on."""
    backend = NumbaBackend()
    sides = {
        kind.__name__: stepping(backend, shapes, partial(kind, lr=1e-4))[0]
        for kind in (AdamW, Muon, SOAP)
    }
    if find_spec("pytorch_optimizer") is not None:
        sides["pytorch_optimizer's SOAP"] = of_peer(shapes)
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(1 + EVERY * (rounds + 1)):
        for name, step in sides.items():
            time = timed(step)
            if number > EVERY:
                found[name].append(time)
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="What a step of SOAP costs on the CPU.")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--rounds", type=int, default=3, help="of as many steps as to a refresh")
    chosen = parser.parse_args()
    for title, shapes in (LARGE if chosen.large else LISTS).items():
        print(f"{title}: ms for a step, for one with a refresh, mean")
        for name, times in measured(shapes, chosen.rounds).items():
            refreshes = times[EVERY - 1 :: EVERY]
            others = [time for n, time in enumerate(times) if n % EVERY != EVERY - 1]
            usual, refresh = median(others), median(refreshes)
            mean = (usual * (EVERY - 1) + refresh) / EVERY
            print(f"  {name:26} {usual:9.3f} {refresh:9.3f} {mean:9.3f}")


if __name__ == "__main__":
    main()
