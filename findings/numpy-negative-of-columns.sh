#!/usr/bin/env bash
# NumPy 2.4.6: np.negative of a column of a (n, 4) array into itself gives other numbers.
#
# Where both input and output are 4-byte numbers 16 bytes apart, or 8-byte ones 64 bytes apart, the elements
# are read as if they lay side by side: of a column of float32 in rows of four, the results are
# the negatives of the first row's elements. Integers too. No error, no warning. Into a new array, with
# any other distance, and with other functions (absolute, exp, multiply by -1) it is right.
#
# Seen on x86-64 with AVX-512. NumPy 2.0.2, tried as well, is right.
#
# Ends with 0 while this is so. It needs Python 3.11 or later, and nothing of this project.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat >"$folder/columns.py" <<'PYTHON'
import numpy as np

wrong = []
for dtype in ("f2", "f4", "f8", "i4", "i8"):
    for columns in range(2, 33):
        array = np.arange(1, 3 * columns + 1).reshape(3, columns).astype(dtype)
        wanted = -1 * array[:, 0]
        column = array[:, 0]
        np.negative(column, column)
        if not (column == wanted).all():
            wrong.append(f"{dtype} x {columns}")
print(np.__version__, "wrong:", ", ".join(wrong) or "none")
PYTHON
for version in 2.0.2 2.4.6; do
    "$folder/venv/bin/pip" install -q numpy==$version 2>/dev/null
    "$folder/venv/bin/python" "$folder/columns.py" | tee "$folder/found"
done
test "$(cat "$folder/found")" = "2.4.6 wrong: f4 x 4, f8 x 8, i4 x 4, i8 x 8"
