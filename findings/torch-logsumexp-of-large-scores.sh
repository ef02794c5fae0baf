#!/usr/bin/env bash
# torch 2.13.0 (CPU): the gradients of logsumexp do not sum to 1 where its argument is large.
#
# They are computed as exp(x - result), and the result is rounded to a unit of its own size. In
# float32, two equal numbers have gradients of 0.4999 each at 1e4, 0.4989 at 1e5, 0.5028 at 1e6,
# 0.3679 at 1e7, and 1 from 1e8 on; in float64 it is so at 1e17. log_softmax, logaddexp and
# jax.nn.logsumexp (jax 0.10.2) give 0.5, since they divide by the sum or subtract first.
#
# So the partition function of a model whose scores add up over a sequence, such as a conditional
# random field, gives marginals that sum to something else than 1, with no warning; cross entropy
# does not. -log_softmax(x)[i] + x[i] is the same number with the right gradient.
#
# Ends with 0 while this is so. It needs Python 3.11 or later, and nothing of this project.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 jax==0.10.2
cat >"$folder/gradients.py" <<'PYTHON'
import jax
import numpy as np
import torch


def gradient(function, at, dtype=torch.float32):
    x = torch.full((2,), at, dtype=dtype, requires_grad=True)
    function(x).backward()
    return x.grad.tolist()


def as_log_softmax(x):
    return x[0] - torch.log_softmax(x, 0)[0]


found = {}
for at in (1e2, 1e4, 1e5, 1e6, 1e7, 1e8):
    found[at] = gradient(lambda x: torch.logsumexp(x, 0), at)
    other = jax.grad(jax.nn.logsumexp)(np.full(2, at, np.float32))
    print(f"{at:.0e}: torch {found[at][0]:.4f} each, jax {float(other[0]):.4f}")
    assert other.tolist() == [0.5, 0.5]
    assert gradient(as_log_softmax, at) == [0.5, 0.5]
    assert gradient(lambda x: torch.logaddexp(x[0], x[1]), at) == [0.5, 0.5]
assert abs(found[1e2][0] - 0.5) < 1e-5
assert 1e-5 < abs(found[1e4][0] - 0.5) < 1e-3
assert 0.36 < found[1e7][0] < 0.37
assert found[1e8] == [1.0, 1.0]
in_double = gradient(lambda x: torch.logsumexp(x, 0), 1e17, torch.float64)
print("1e17 in float64: torch", in_double)
assert in_double == [1.0, 1.0]
PYTHON
"$folder/venv/bin/python" "$folder/gradients.py"
