"""The loss of captured steps on NumPy: the bits and the errors of the one that runs as usual."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.tensor import NumpyBackend
from rumus.tensor.backends.numpy_commands import Scratch, command_of
from rumus.tensor.backends.numpy_rows import BoundRows, cross_entropy, cross_entropy_gradient
from rumus.tensor.compiled import numba_blas


def drawn(rows: int, classes: int, dtype: type) -> tuple[NDArray[Any], NDArray[np.int32]]:
    random = np.random.default_rng(rows * classes)
    logits: NDArray[Any] = random.normal(0, 3, (rows, classes)).astype(dtype)
    logits[0, 0], logits[-1, -1] = -np.inf, 80.0
    return logits, random.integers(0, classes, rows).astype(np.int32)


def empty_like_losses(logits: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    return np.empty(len(logits), logits.dtype), np.empty((len(logits), 2), logits.dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "classes"), [(1, 1), (1, 7), (64, 10), (13, 400), (32768, 1)])
def test_bits(rows: int, classes: int, dtype: type) -> None:
    logits, index = drawn(rows, classes, dtype)
    wide: NDArray[Any] = np.random.default_rng(1).normal(size=rows).astype(dtype)
    scratch = Scratch()
    out, statistics = empty_like_losses(logits)
    found, kept = empty_like_losses(logits)
    gradient = np.empty_like(logits)
    forward = command_of(cross_entropy, (logits, index, found, kept, 0.0, None, None), {}, scratch)
    back = command_of(
        cross_entropy_gradient, (logits, index, kept, wide, gradient, 0.0, None, None), {}, scratch
    )
    owners: list[Any] = [getattr(each, "func").__self__ for each in (forward, back)]  # noqa: B009
    assert all(isinstance(owner, BoundRows) for owner in owners)
    assert scratch.size >= logits.nbytes + sum(owner.nbytes for owner in owners)
    for _ in range(2):  # with what the first time has left behind
        logits *= 0.5
        expected = np.empty_like(logits)
        cross_entropy(logits, index, out, statistics)
        cross_entropy_gradient(logits, index, statistics, wide, expected)
        with np.errstate(all="ignore"):
            forward()
            back()
        assert found.tobytes() == out.tobytes()
        assert kept.tobytes() == statistics.tobytes()
        assert gradient.tobytes() == expected.tobytes()


def test_against_float64() -> None:
    logits, index = drawn(9, 5, np.float32)
    logits[0, 0] = 1.0
    out, statistics = empty_like_losses(logits)
    gradient = np.ones(9, np.float32)
    own = logits.copy()
    BoundRows(own, index, statistics, np.empty_like(own)).losses(out)
    BoundRows(own, index, statistics, own).gradients(gradient)  # in place
    x = logits.astype(np.float64)
    chances = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    np.testing.assert_allclose(out, -np.log(chances[np.arange(9), index]), rtol=1e-5, atol=1e-6)
    chances[np.arange(9), index] -= 1
    np.testing.assert_allclose(own, chances, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [-1, 5, -(2**31), 2**31 - 1])
def test_a_class_that_is_none(bad: int) -> None:
    logits, index = drawn(4, 5, np.float32)
    out, statistics = empty_like_losses(logits)
    bound = BoundRows(logits, index, statistics, np.empty_like(logits))
    index[2] = bad
    with pytest.raises(IndexError) as expected:
        cross_entropy(logits, index, out, statistics)
    with pytest.raises(IndexError) as found:
        bound.losses(out)
    assert str(found.value) == str(expected.value) == f"index {bad} is outside [0, 5)"


def test_a_prepared_look_finds_what_the_other_finds() -> None:
    backend = NumpyBackend()
    for dtype in (np.float32, np.float64):
        array = np.ones(300, dtype)
        for limit in (np.inf, 1e10):
            look = backend.prepared_look(array, float(limit))
            for value in (1.0, np.nan, np.inf, -np.inf, float(np.finfo(dtype).max), 1e11, -2.0):
                array[7] = value
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    assert look() is (backend.first_not_finite(array, float(limit)) is not None)


def test_sums_of_a_product_that_is_replayed() -> None:
    """Those with one call of NumPy, and those in runs, have the bits of the product's own."""
    backend = NumpyBackend()
    for rows in (64, 128, 129, 1000):
        a = np.random.default_rng(rows).normal(size=(rows, 24)).astype(np.float32)
        b = np.ones((rows, 8), np.float32)
        out, sums = np.empty((24, 8), np.float32), np.empty(24, np.float32)
        found, added = np.empty_like(out), np.empty_like(sums)
        backend.matmul(a.T, b, out, sums=sums)
        operation: Any = NumpyBackend.matmul
        command_of(operation.__wrapped__, (backend, a.T, b, found), {"sums": added}, Scratch())()
        assert (found.tobytes(), added.tobytes()) == (out.tobytes(), sums.tobytes())


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("turned", [(False, False), (False, True), (True, False), (True, True)])
def test_a_product_in_blocks_that_is_replayed(
    turned: tuple[bool, bool], is_cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba_blas, "has_small_kernels", lambda: is_cut)  # whatever the CPU
    backend, normal = NumpyBackend(), np.random.default_rng(4).standard_normal
    shapes = (64, 64, 128), (64, 128, 192), (128, 64, 128), (70, 130, 150)
    for rows, depth, columns in shapes:
        a, b = normal((rows, depth), np.float32), normal((depth, columns), np.float32)
        a, b = (
            np.asfortranarray(x) if is_turned else x
            for x, is_turned in zip((a, b), turned, strict=True)
        )
        out, found = np.empty((rows, columns), np.float32), np.empty((rows, columns), np.float32)
        backend.matmul(a, b, out)
        np.testing.assert_allclose(out, a.astype(np.float64) @ b, rtol=1e-5, atol=1e-4)
        operation: Any = NumpyBackend.matmul
        command_of(operation.__wrapped__, (backend, a, b, found), {}, Scratch())()
        assert found.tobytes() == out.tobytes()
