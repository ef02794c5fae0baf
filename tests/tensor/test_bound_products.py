"""Products with their bias, epilogue and sums in one pass, against NumPy in float64."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from rumus.tensor.expression.kernel import Kernel, trace
from rumus.tensor.memory.backend import Epilogue

if find_spec("numba") is not None:
    from rumus.tensor import NumbaBackend
    from rumus.tensor.backends.numba_products import bound_product
    from rumus.tensor.compiled import numba_blas

    # More rows than columns and fewer, on one thread and on several, and too small for a loop.
    SHAPES = [(70, 60, 80), (300, 90, 260), (90, 300, 400), (8, 16, 8), (2, 150, 90, 200)]
    KERNELS = {
        "replaced": trace(lambda x: {"x": x.relu()}, "relu"),
        "kept": trace(lambda x: {"y": (x * 0.5).tanh()}, "kept"),
        "both": trace(lambda x, r: {"y": x * r, "x": x + r}, "both"),
        "scaled": trace(lambda x, *, s: {"x": x * s}, "scaled"),
    }

    def reference(
        name: str | None, p: np.ndarray[tuple[int, ...], np.dtype[np.float64]], r: float
    ) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
        """The result of a product, and the second output if there is one."""
        found = {
            None: [p],
            "replaced": [np.maximum(p, 0)],
            "kept": [p, np.tanh(p / 2)],
            "both": [p + r, p * r],
            "scaled": [p * 3.0],
        }
        return found[name]

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize("name", [None, *KERNELS])
    @pytest.mark.parametrize("has_bias", [False, True])
    def test_against_numpy(shape: tuple[int, ...], name: str | None, has_bias: bool) -> None:
        *lead, depth, columns = shape
        normal, backend = np.random.default_rng(2).standard_normal, NumbaBackend()
        # As in training: the weight, or the operand that an outer product sums over, is transposed.
        a = normal((*lead, depth), np.float32)
        if len(lead) == 1:
            a = np.ascontiguousarray(a.T).T
        b, bias = normal((columns, depth), np.float32).T, normal(columns, np.float32)
        out = np.empty((*lead, columns), np.float32)
        second, r = np.empty_like(out), np.full_like(out, 0.75)
        sums = np.empty(lead[0], np.float32) if len(lead) == 1 else None
        kernel: Kernel | None = None if name is None else KERNELS[name]
        epilogue = None
        if kernel is not None:
            others = [r] if name == "both" else []
            outputs = [second] if "y" in kernel.outputs else []
            epilogue = Epilogue(kernel, others, kernel.bind({"s": 3.0}), outputs)
        given = bias if has_bias else None
        backend.matmul(a, b, out, given, sums=sums, epilogue=epilogue)
        product = a.astype(np.float64) @ b.astype(np.float64) + (bias if has_bias else 0)
        expected = reference(name, product, 0.75)
        np.testing.assert_allclose(out, expected[0], rtol=1e-5, atol=1e-4)
        if len(expected) == 2:
            np.testing.assert_allclose(second, expected[1], rtol=1e-5, atol=1e-4)
        if sums is not None:
            np.testing.assert_allclose(sums, a.sum(1, dtype=np.float64), rtol=1e-5, atol=1e-4)

    @pytest.mark.parametrize("is_cut", [False, True])
    @pytest.mark.parametrize("turned", [(False, False), (False, True), (True, False), (True, True)])
    @pytest.mark.parametrize("shape", [(70, 60, 90), (64, 130, 150)], ids=str)
    def test_products_are_the_same_in_blocks(
        shape: tuple[int, int, int],
        turned: tuple[bool, bool],
        is_cut: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(numba_blas, "has_small_kernels", lambda: is_cut)  # whatever the CPU
        rows, depth, columns = shape
        normal = np.random.default_rng(3).standard_normal
        a, b = normal((rows, depth), np.float32), normal((depth, columns), np.float32)
        a, b = (
            np.asfortranarray(x) if is_turned else x
            for x, is_turned in zip((a, b), turned, strict=True)
        )
        bias, out = normal(columns, np.float32), np.empty((rows, columns), np.float32)
        sums, backend = np.empty(rows, np.float32), NumbaBackend()
        epilogue = Epilogue(KERNELS["replaced"], [], (), [])
        backend.matmul(a, b, out, bias, sums=sums, epilogue=epilogue)
        expected = np.maximum(a.astype(np.float64) @ b + bias, 0)
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(sums, a.sum(1, dtype=np.float64), rtol=1e-5, atol=1e-4)

    def test_a_bound_product_reads_its_arrays_current_values() -> None:
        if numba_blas.single() is None:  # nothing is bound to an unknown BLAS
            return
        a, b = np.ones((100, 50), np.float32), np.ones((50, 100), np.float32)
        out, bias = np.empty((100, 100), np.float32), np.zeros(100, np.float32)
        product = bound_product(a, b, out, bias, None, None)
        assert product is not None
        for number in range(3):
            a.fill(number)
            bias.fill(number)
            product()
            assert (out == 51 * number).all()
