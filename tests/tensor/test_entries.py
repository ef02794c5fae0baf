"""Lists of compiled functions that share their work with threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from rumus.tensor.expression.kernel import trace

if find_spec("numba") is not None:
    from rumus.tensor import NumbaBackend
    from rumus.tensor.backends.numba_looks import BoundLook
    from rumus.tensor.backends.numba_products import bound_product
    from rumus.tensor.compiled import numba_blas
    from rumus.tensor.compiled.numba_entries import BoundEntry, EntryList, joined
    from rumus.tensor.compiled.shared_work import team_of_loops
    from rumus.tensor.compiled.thread_team import MOMENT

    HALF = trace(lambda x: {"x": x * 0.5 + 1.0}, "half")

    def entries() -> tuple[
        list[BoundEntry], list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]
    ]:
        """Two products, the second of which reads the first, and a loop over the result."""
        normal = np.random.default_rng(5).standard_normal
        a, b = normal((128, 80), np.float32), normal((80, 120), np.float32)
        first, second = np.empty((128, 120), np.float32), np.empty((128, 136), np.float32)
        c = np.ascontiguousarray(normal((136, 120), np.float32)).T
        loop = NumbaBackend().loop_of(HALF, [second], [second])
        assert loop is not None
        found = [
            bound_product(a, b, first, None, None, None),
            bound_product(first, c, second, None, None, None),
            loop.command(()),
        ]
        assert all(isinstance(each, BoundEntry) for each in found)
        return [each for each in found if isinstance(each, BoundEntry)], [a, b, c, second]

    @pytest.mark.parametrize("pause", [0.0, 20 * MOMENT])
    def test_a_list_is_its_entries_one_after_the_other(pause: float) -> None:
        """Whether threads are awake, asleep or used by others, the bits are the same."""
        if numba_blas.single() is None:
            pytest.skip("the BLAS is not known")
        calls, (a, b, c, out) = entries()
        for call in calls:
            call()
        expected = out.copy()
        exact = (a.astype(np.float64) @ b @ c) * 0.5 + 1.0
        np.testing.assert_allclose(expected, exact, rtol=1e-4, atol=1e-3)
        together = EntryList(calls)
        for _ in range(30):
            out.fill(np.nan)
            together()
            assert out.tobytes() == expected.tobytes()
            time.sleep(pause)
        team = team_of_loops()
        with threading.Lock() if team is None else team.lock:
            out.fill(np.nan)
            together()
        assert out.tobytes() == expected.tobytes()

    def test_other_operations_keep_their_place() -> None:
        if numba_blas.single() is None:
            pytest.skip("the BLAS is not known")
        calls, _ = entries()
        other: Callable[[], object] = time.perf_counter
        found = joined([calls[0], other, calls[1], calls[2], other])
        assert found[0] is calls[0]
        assert isinstance(found[2], EntryList)
        assert [found[1], *found[3:]] == [other, other]

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("size", [5, 300_001])
    def test_a_look_finds_what_is_too_large(dtype: type, size: int) -> None:
        array: np.ndarray[tuple[int, ...], np.dtype[Any]] = np.linspace(-3, 2, size).astype(dtype)
        assert not BoundLook(array)()
        assert not BoundLook(array, 3.5)()
        assert BoundLook(array, 3.0)()
        look = BoundLook(array)
        for bad in (np.nan, -np.nan, np.inf, -np.inf):
            for at in (0, size // 2, size - 1):
                before, array[at] = array[at], bad
                assert look()
                array[at] = before
                assert not look()
