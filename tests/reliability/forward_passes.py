"""Forward passes of which no step is applied: what is left of them. docs/reliability.md.

PYTHONPATH=tests/support python tests/reliability/forward_passes.py
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from typing import Final

from backends import BACKENDS, backend
from reliability_page import write_block
from uncounted_passes import KINDS, left

PASSES: Final = 40  # per kind and backend


def outcome(kind: str, name: str) -> Counter[str]:
    """Return how many passes of a kind there were on a backend, and how many changed what."""
    place, found = backend(name), Counter[str]()
    if place is not None:
        act, is_step = KINDS[kind]
        for seed in range(PASSES):
            found += left(place, seed, act, is_step)
        found["passes"] = PASSES
    return found


def main() -> None:
    """Try all, write the table; exit code 1 if anything was left."""
    head = (
        "| no step is applied of | passes | buffers changed | streams changed | next step differs |"
    )
    lines, total = [head, "|---|---:|---:|---:|---:|"], Counter[str]()
    context = multiprocessing.get_context("fork")  # before one of them opens the GPU
    with ProcessPoolExecutor(mp_context=context) as pool:
        tried = list(product(KINDS, BACKENDS))
        done = dict(zip(tried, pool.map(outcome, *zip(*tried, strict=True)), strict=True))
    for name, (_, is_step) in KINDS.items():
        found = sum((done[name, place] for place in BACKENDS), Counter[str]())
        streams = str(found["streams"]) if is_step else ""
        counts = f"{found['passes']} | {found['buffers']} | {streams} | {found['weights']}"
        lines.append(f"| {name} | {counts} |")
        total += found
    changed = [total[what] for what in ("buffers", "streams", "weights")]
    lines.append(f"| all | {total['passes']:,} | {' | '.join(map(str, changed))} |")
    write_block("forward passes", lines)
    raise SystemExit(any(changed))


if __name__ == "__main__":
    main()
