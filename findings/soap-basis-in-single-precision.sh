#!/usr/bin/env bash
# pytorch_optimizer 4.1.0 (torch 2.13.0, CPU): SOAP refreshes its basis in float32 for float64 parameters.
#
# The first basis comes from eigenvectors in float64, and is orthogonal to the last digits. At the first
# refresh it goes through a QR decomposition in float32: the basis is stored as float64 from then on, but
# is orthogonal to 1e-7 only, and so are the steps.
#
# So a comparison with it in float64 agrees to the last digits up to the first refresh, and to about
# 1e-5 afterwards; what is compared with it is not wrong by as much.
#
# Ends with 0 while this is so. It needs Python 3.11 or later, and nothing of this project.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 pytorch-optimizer==4.1.0
cat >"$folder/basis.py" <<'PYTHON'
import torch
from pytorch_optimizer import SOAP

torch.manual_seed(0)
p = torch.nn.Parameter(torch.randn(6, 6, dtype=torch.float64))
optimizer = SOAP([p], lr=1e-3, precondition_frequency=4)
errors = []
for _ in range(10):
    p.grad = torch.randn(6, 6, dtype=torch.float64)
    optimizer.step()
    bases = [q for q in optimizer.state[p]["Q"] if len(q)]
    assert all(q.dtype == torch.float64 for q in bases)
    identity = torch.eye(6, dtype=torch.float64)
    errors.append(max((q.T @ q - identity).abs().max().item() for q in bases))
print("how far the basis is from orthogonal, by step:", " ".join(f"{e:.0e}" for e in errors))
assert errors[0] < 1e-14
assert 1e-9 < errors[-1] < 1e-5
PYTHON
"$folder/venv/bin/python" "$folder/basis.py"
