#!/usr/bin/env bash
# mpich 5.0.2 (mpi4py 4.1.2): after Allreduce with MPI.MAX the ranks do not agree if one value is NaN.
#
# Two ranks, rank 0 has NaN and rank 1 has 1.0. An all-reduce leaves the same result on all ranks;
# here rank 0 gets 1.0 and rank 1 gets NaN. The maximum is computed as a comparison, which is false
# for NaN, and each rank begins with its own value.
#
# So a program must not decide by such a maximum, as of losses or norms, whether to go on: the ranks
# would part. It may exchange flags instead, whole numbers, or add up, where NaN wins everywhere.
#
# Ends with 0 while this is so. It needs Python 3.11 or later on Linux, and nothing of this project.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mpi4py==4.1.2 mpich==5.0.2 numpy==2.4.6
cat >"$folder/maximum.py" <<'PYTHON'
import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
own = np.array([float("nan") if comm.rank == 0 else 1.0])
found = np.empty(1)
comm.Allreduce(own, found, MPI.MAX)
every = comm.gather(float(found[0]))
if comm.rank == 0:
    print("rank 0 gets", every[0], "and rank 1 gets", every[1])
PYTHON
said=$("$folder/venv/bin/mpiexec" -n 2 "$folder/venv/bin/python" "$folder/maximum.py")
echo "$said"
[ "$said" = "rank 0 gets 1.0 and rank 1 gets nan" ]
