#!/usr/bin/env bash
# numba 0.68.1: `cache=True` is of no use to a function that closes over an intrinsic.
#
# The function is compiled in every process, and its index grows by an entry each time, without a
# word: `stats` shows a miss where the second process should hit. What is closed over is part of
# the key, and an intrinsic is pickled with an identity that each process draws anew.
#
# The same function at the level of a module, with the intrinsic found there, is loaded from the
# cache. So is one that calls a plain function which `numba.extending.lower_builtin` and
# `type_callable` were taught when they were needed: that keeps the import of numba lazy, too.
#
# Ends with 0 while this is so. It needs Python 3.11 or later, and nothing of this project.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numba==0.68.1 numpy==2.4.6
cat >"$folder/three.py" <<'PYTHON'
import numba
from llvmlite import ir
from numba.core.types import int64
from numba.extending import intrinsic, lower_builtin, type_callable


def add_one(typing_context, x):
    def code(context, builder, signature, arguments):
        return builder.add(arguments[0], ir.Constant(ir.IntType(64), 1))

    return int64(int64), code


one_more = intrinsic(add_one)


def taught(x):
    raise TypeError("for compiled code")


def make():
    inside = intrinsic(add_one)

    def closed(x):
        return inside(x)

    return numba.njit(cache=True)(closed)


def _module(x):
    return one_more(x)


def _taught(x):
    return taught(x)


lower_builtin(taught, int64)(
    lambda context, builder, signature, arguments: builder.add(
        arguments[0], ir.Constant(ir.IntType(64), 1)
    )
)
type_callable(taught)(lambda context: lambda x: int64)
for name, function in {
    "closed over": make(),
    "of the module": numba.njit(cache=True)(_module),
    "taught": numba.njit(cache=True)(_taught),
}.items():
    assert function(41) == 42
    print(f"{name}: {'hit' if sum(function.stats.cache_hits.values()) else 'miss'}")
PYTHON
run() { NUMBA_CACHE_DIR="$folder/cache" "$folder/venv/bin/python" "$folder/three.py"; }
run >"$folder/first"
run >"$folder/second"
cat "$folder/second"
diff "$folder/second" - <<'EXPECTED'
closed over: miss
of the module: hit
taught: hit
EXPECTED
