"""Sums of squares per slot of flat memory, against NumPy in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rumus.tensor import Backend, DType, Expr, Kernel, float32
from rumus.tensor.memory.slot_table import ALIGNMENT, SlotTable

# Around a row, around a GPU's part of a slot, and with more parts than a workgroup has lanes.
SIZES = st.sampled_from([0, 1, 3, 63, 64, 65, 127, 1000, 4095, 4096, 4097, 8192, 300_001])


def squares(backend: Backend, flat: NDArray[Any], table: SlotTable) -> NDArray[Any]:
    out = backend.allocate((table.rows, 1), flat.dtype)
    backend.slot_sums(backend.upload(flat), table, out, squared=True)
    return backend.download(out)


def filled(table: SlotTable, dtype: DType, between: float = np.nan) -> NDArray[Any]:
    """Numbers in the slots; the gaps hold values that must not be read."""
    draw = np.random.default_rng(len(table.sizes))
    flat = np.full(table.size, between, dtype)
    for start, size in zip(table.starts, table.sizes, strict=True):
        flat[start : start + size] = draw.normal(size=size) * 10.0 ** draw.integers(-6, 6)
    return flat


def expected(flat: NDArray[Any], table: SlotTable) -> list[float]:
    wide = flat.astype(np.float64)
    pairs = zip(table.starts, table.sizes, strict=True)
    return [float(np.square(wide[start : start + size]).sum()) for start, size in pairs]


@given(sizes=st.lists(SIZES, min_size=1, max_size=12))
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_each_row_has_the_sum_of_its_slot(
    sizes: Sequence[int], backend: Backend, widest: DType
) -> None:
    table = SlotTable(sizes)
    for dtype in {float32, widest}:
        flat = filled(table, dtype)
        found = squares(backend, flat, table)
        assert found.shape == (table.rows, 1)
        tolerance = 2e-6 if dtype == float32 else 1e-14
        for start, size, sum_ in zip(table.starts, sizes, expected(flat, table), strict=True):
            rows = found[start // ALIGNMENT : -(-(start + size) // ALIGNMENT)]
            np.testing.assert_allclose(rows, sum_, rtol=tolerance)
            assert len(set(rows.ravel().tolist())) <= 1


def test_the_same_bits_each_time_and_wherever_a_slot_lies(backend: Backend) -> None:
    """Including sizes that are split among threads."""
    table = SlotTable([300_001, 70_000, 5])
    flat = filled(table, float32)
    first = squares(backend, flat, table)
    assert squares(backend, flat, table).tobytes() == first.tobytes()
    alone = SlotTable([70_000])
    start = table.starts[1]
    other = squares(backend, flat[start : start + alone.size], alone)
    assert other.tobytes() == first[start // ALIGNMENT : table.starts[2] // ALIGNMENT].tobytes()


def test_many_slots(backend: Backend) -> None:
    table = SlotTable([1 + n % 130 for n in range(5000)])
    flat = filled(table, float32)
    at = np.array(table.starts) // ALIGNMENT
    found = squares(backend, flat, table)[at, 0]
    np.testing.assert_allclose(found, expected(flat, table), rtol=2e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_values_stay_in_their_slot(backend: Backend, bad: float) -> None:
    table = SlotTable([70, 5, 64])
    flat = filled(table, float32)
    flat[table.starts[1] + 4] = bad
    found = squares(backend, flat, table)[[0, 1, 2, 3], 0]
    assert np.isfinite(found).tolist() == [True, True, False, True]


def test_the_sums_broadcast_over_their_slots(backend: Backend) -> None:
    table = SlotTable([100, 64, 1])
    flat = filled(table, float32, between=0.0)
    array = backend.upload(flat)
    out = backend.allocate((table.rows, 1), float32)
    backend.slot_sums(array, table, out, squared=True)
    g, sums = Expr.array("g"), Expr.array("squares")
    kernel = Kernel("unit", {"g": g / sums.sqrt()}, ("g", "squares"))
    rows = array.reshape((table.rows, ALIGNMENT))
    backend.elementwise(kernel, (rows, out), (), (rows,))
    after = backend.download(rows).reshape(-1)
    for start, size in zip(table.starts, table.sizes, strict=True):
        part = after[start : start + size].astype(np.float64)
        assert np.linalg.norm(part) == pytest.approx(1.0, rel=1e-6)


def test_no_elements_at_all(backend: Backend) -> None:
    table = SlotTable([0, 0])
    assert squares(backend, np.zeros(0, np.float32), table).shape == (0, 1)
