"""Products that compiled loops delegate to the BLAS, and an unknown BLAS."""

from __future__ import annotations

import threading
from importlib.util import find_spec

import numpy as np
import pytest

from rumus.tensor import Parameter, convolution, scaled_dot_product_attention, tensor

if find_spec("numba") is not None:
    from rumus.tensor import NumbaBackend
    from rumus.tensor.compiled import numba_blas

    def results() -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        """A convolution and an attention with their gradients."""
        backend, normal = NumbaBackend(), np.random.default_rng(3).standard_normal
        found = []
        for function, shapes in (
            (lambda x, w: convolution(x, w, padding=1), [(7, 3, 6, 5), (4, 3, 3, 3)]),
            (scaled_dot_product_attention, [(2, 3, 9, 8)] * 3),
        ):
            inputs = [Parameter(normal(s, np.float32), backend=backend) for s in shapes]
            y = function(*inputs)
            weights = tensor(np.cos(np.arange(y.size, dtype=np.float32)), backend=backend)
            grads = (y.flatten() * weights).sum().backward()
            found += [y.numpy(), *(grads[x].numpy() for x in inputs)]
        return found

    def test_without_a_known_blas(monkeypatch: pytest.MonkeyPatch) -> None:
        known = results()
        monkeypatch.setattr(numba_blas, "single", lambda: None)
        for a, b in zip(known, results(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("shape", [(300, 80, 200), (40, 90, 700), (64, 64, 64)])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_shared_products(shape: tuple[int, int, int], dtype: type) -> None:
        rows, depth, columns = shape
        normal, backend = np.random.default_rng(5).standard_normal, NumbaBackend()
        a, b, bias = normal((depth, rows)).T, normal((depth, columns)), normal(columns)
        out: np.ndarray[tuple[int, ...], np.dtype[np.floating]] = np.empty((rows, columns), dtype)
        backend.matmul(a.astype(dtype), b.astype(dtype), out, bias.astype(dtype))
        np.testing.assert_allclose(out, a @ b + bias, rtol=1e-4, atol=1e-3)
        stacked = np.empty_like(out, shape=(3, *out.shape))
        backend.matmul(np.stack([a, a, 2 * a]).astype(dtype), b.astype(dtype), stacked)
        np.testing.assert_allclose(stacked[2], 2 * (a @ b), rtol=1e-4, atol=1e-3)

    def test_the_threads_of_the_blas_come_back() -> None:
        if numba_blas.single() is None:  # a BLAS that nobody uses
            return
        count = numba_blas._threads
        before, inside, leave = count(), threading.Event(), threading.Event()

        def other() -> None:
            with numba_blas.alone():
                inside.set()
                leave.wait(10)

        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(10)
        with numba_blas.alone():
            assert count() == 1
        assert count() == 1  # the other thread is still inside
        leave.set()
        thread.join()
        assert count() == before
