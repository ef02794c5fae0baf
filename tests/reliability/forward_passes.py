"""Forward passes without an applied step must leave no trace: docs/reliability.md.

PYTHONPATH=tests/support python tests/reliability/forward_passes.py
"""

from __future__ import annotations

import sys
from collections import Counter
from importlib.util import find_spec
from typing import Final

from reliability_page import write_block
from uncounted_passes import KINDS, left

from rumus.tensor import Backend, NumbaBackend, NumpyBackend

PASSES: Final = 40  # per kind and backend


def backends() -> list[Backend]:
    """NumPy, numba and the GPU, if they are available."""
    found: list[Backend] = [NumpyBackend()]
    if find_spec("numba") is not None:
        found.append(NumbaBackend())
    try:
        from rumus.gpu import GpuBackend

        found.append(GpuBackend())
    except Exception as error:
        print(f"without a GPU: {error}", file=sys.stderr)
    return found


def main() -> None:
    """Try everything, write the table; exit code 1 if anything was left."""
    head = (
        "| no step is applied of | passes | buffers changed | streams changed | next step differs |"
    )
    lines, total = [head, "|---|---:|---:|---:|---:|"], Counter[str]()
    there = backends()
    for name, (act, is_step) in KINDS.items():
        found, passes = Counter[str](), 0
        for backend in there:
            for seed in range(PASSES):
                found += left(backend, seed, act, is_step)
                passes += 1
        streams = str(found["streams"]) if is_step else ""
        lines.append(f"| {name} | {passes} | {found['buffers']} | {streams} | {found['weights']} |")
        total += found
        total["passes"] += passes
        print(name, dict(found), file=sys.stderr)
    changed = [total[what] for what in ("buffers", "streams", "weights")]
    lines.append(f"| all | {total['passes']:,} | {' | '.join(map(str, changed))} |")
    write_block("forward passes", lines)
    raise SystemExit(any(changed))


if __name__ == "__main__":
    main()
