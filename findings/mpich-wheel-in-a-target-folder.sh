#!/usr/bin/env bash
# mpich 5.0.2 with pip 26.1.1: `pip install --target` leaves the library out, and says nothing.
#
# The wheel has 47 files. In the target folder are mpiexec and the headers; libmpi.so.12 and 35 others, all
# that would go to lib/, are not, though the wheel's record lists them. So ranks start, and mpi4py
# loads whatever other MPI the machine has, where each rank is alone, or none.
#
# A virtual environment gets all of them.
#
# Ends with 0 while this is so. It needs Python 3.11 or later, and nothing of this project.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pip==26.1.1 2>/dev/null
"$folder/venv/bin/pip" install -q --target "$folder/target" mpich==5.0.2
"$folder/venv/bin/pip" install -q mpich==5.0.2
cat >"$folder/files.py" <<'PYTHON'
from importlib.metadata import distribution

files = distribution("mpich").files
missing = [file for file in files if not file.locate().exists()]
named = {file.name for file in missing}
print(len(files), "files,", len(missing), "missing; libmpi.so.12", "missing" if "libmpi.so.12" in named else "there")
PYTHON
"$folder/venv/bin/pip" --version | cut -d" " -f1,2
venv=$("$folder/venv/bin/python" "$folder/files.py")
target=$(PYTHONPATH="$folder/target" "$folder/venv/bin/python" "$folder/files.py")
echo "in a virtual environment: $venv"
echo "in a target folder:       $target"
test -x "$folder/target/bin/mpiexec"
test "$venv" = "47 files, 0 missing; libmpi.so.12 there"
test "${target#*; }" = "libmpi.so.12 missing"
