"""What LAPACK computes for NumPy's backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.memory.fused import FusedName

Numbers = NDArray[Any]


def orthonormal_rows(rows: Numbers, out: Numbers) -> None:
    """Write the transposed Q of a QR decomposition of each transposed matrix of [count, n, n]."""
    out[...] = np.linalg.qr(rows.transpose(0, 2, 1))[0].transpose(0, 2, 1)


LAPACK: Final[Mapping[FusedName, Callable[..., None]]] = {"orthonormal_rows": orthonormal_rows}
