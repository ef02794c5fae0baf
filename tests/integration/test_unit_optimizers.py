"""Optimizers with products on matrix units, emulated by plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from rumus.gpu import GpuBackend
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.matrix_units import PlainLoops, Precision, UnitShape
from rumus.gpu.products import unit_tiles
from rumus.gpu.products.unit_product import UnitTile
from rumus.optim.algorithms.newton_schulz import orthogonalize
from rumus.tensor import float16, float32


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> GpuBackend:
    """A backend that believes it has matrix units, with a tile that compiles quickly."""
    monkeypatch.setattr(unit_tiles, "HALF", ((UnitTile(32, 16, 16, 16, 16), 1.0),))
    backend = GpuBackend(Gpu())
    backend.gpu.units = PlainLoops(UnitShape(16, 16, 16))
    return backend


@pytest.mark.parametrize("shape", [(48, 80), (80, 48)])
def test_newton_schulz_at_medium(loops: GpuBackend, shape: tuple[int, int]) -> None:
    """In float16, with products on the units; nearly as orthogonal as in float32."""
    draw = np.random.default_rng(3)
    matrices = draw.normal(size=(2, *shape)) * np.array([1e6, 1e-6])[:, None, None]
    wanted = [u @ v for u, _, v in (np.linalg.svd(m, full_matrices=False) for m in matrices)]
    errors = []
    levels: tuple[Precision, ...] = ("highest", "medium")
    for precision in levels:
        x = loops.upload(matrices.astype(np.float32))
        with loops.gpu.at_precision(precision):
            o = orthogonalize(loops, x, iterations=9, coefficients="polar_express", eps=1e-12)
        assert o.dtype == (float16 if precision == "medium" else float32)
        errors.append(float(np.abs(loops.download(o).astype(np.float64) - wanted).max()))
    assert errors[0] < 1e-4
    assert errors[1] < 5e-3
