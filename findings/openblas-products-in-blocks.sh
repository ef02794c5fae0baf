#!/usr/bin/env bash
# OpenBLAS 0.3.31 (in the wheel of NumPy 2.4.6), on CPUs with AVX-512: x @ weight.T in float32, the
# product of a layer, takes a third longer than the same product in blocks of 32 x 32.
#
# Up to 1,000,000 multiplications (100 x 100 x 100) OpenBLAS multiplies matrices where they lie. Above, it
# copies both into panels first. If the second matrix is transposed (x @ weight.T), it copies from 1,024
# elements of the result on. Blocks below these limits are faster, although each is a call of NumPy.
#
# A benchmark of such sizes measures the copying, and a program that calls the BLAS for one block of rows
# after the other, where more calls should only cost, may be the faster one.
#
# On other CPUs there are no such kernels, and this says so. Ends with 0 while this is so. It needs Python
# 3.11 or later, and nothing of this project. Seen on an AMD EPYC with AVX-512, one core:
#   64 x 784 by transposed 512 x 784: whole 661 us, in blocks of 32 x 32 498 us: 1.33
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 threadpoolctl==3.6.0
cat >"$folder/pieces.py" <<'PYTHON'
import time

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

(blas,) = (each for each in threadpool_info() if each["internal_api"] == "openblas")
print("OpenBLAS", blas["version"], "for", blas["architecture"])
if blas["architecture"] not in ("SkylakeX", "Cooperlake", "SapphireRapids"):
    raise SystemExit("this CPU has no kernels for AVX-512: nothing to see")


def least(sides):
    """The fastest of many runs of each side, in turn, in microseconds."""
    found = [float("inf")] * len(sides)
    for _ in range(200):
        for number, side in enumerate(sides):
            for _ in range(10):
                start = time.perf_counter()
                side()
                found[number] = min(found[number], time.perf_counter() - start)
    return [1e6 * seconds for seconds in found]


random = np.random.default_rng(0)
x = random.standard_normal((64, 784), np.float32)
weight = random.standard_normal((512, 784), np.float32)
out = np.empty((64, 512), np.float32)
blocks = [
    (x[i : i + 32], weight[j : j + 32].T, out[i : i + 32, j : j + 32])
    for i in range(0, 64, 32)
    for j in range(0, 512, 32)
]


def in_blocks():
    for left, right, into in blocks:
        np.matmul(left, right, into)


with threadpool_limits(1):
    whole, of_blocks = least([lambda: np.matmul(x, weight.T, out), in_blocks])
print(f"64 x 784 by transposed 512 x 784: whole {whole:.0f} us, in blocks of 32 x 32 "
      f"{of_blocks:.0f} us: {whole / of_blocks:.2f}")
assert whole > 1.1 * of_blocks
PYTHON
"$folder/venv/bin/python" "$folder/pieces.py"
