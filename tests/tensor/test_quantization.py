"""8-bit codes: the values they represent, and that every backend gives the same bits."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rumus.tensor import Backend, NumpyBackend
from rumus.tensor.memory.quantization import FLOOR, SIGNED, SQUARES, BlockTable, Code, Piece
from rumus.tensor.memory.slot_table import SlotTable

Real = NDArray[Any]
TABLE: Final = BlockTable(SlotTable([300, 5, 1000, 0, 256]))
CODES: Final = [SIGNED, SQUARES]


def packed(
    backend: Backend, values: Real, code: Code, pieces: tuple[Piece, ...] = (TABLE.whole(),)
) -> tuple[Real, Real]:
    """Codes and scales in memory that held others before."""
    codes = backend.upload(np.full(TABLE.size // 4, 0x01010101, np.int32))
    scales = backend.upload(np.full(TABLE.number, 7, np.float32))
    for piece in pieces:
        part = backend.upload(values[piece.start : piece.stop])
        backend.quantize(part, code, TABLE, piece, codes, scales)
    return backend.download(codes).view(np.uint8), backend.download(scales)


def unpacked(backend: Backend, codes: Real, scales: Real, code: Code) -> Real:
    out = backend.upload(np.full(TABLE.size, 7, np.float32))
    words = backend.upload(codes.view(np.int32))
    backend.dequantize(words, backend.upload(scales), code, TABLE, TABLE.whole(), out)
    return backend.download(out)


def inside() -> Real:
    found = np.zeros(TABLE.size, np.bool_)
    for start, stop in TABLE.bounds:
        found[start:stop] = True
    return found


def definition(values: Real, code: Code) -> tuple[Real, Real]:
    """The nearest level, found by an exhaustive search in float64."""
    levels, codes = code.levels.astype(np.float64), np.zeros(TABLE.size, np.uint8)
    own = np.sqrt(levels) if code is SQUARES else levels
    scales = np.zeros(TABLE.number, np.float32)
    for n, (start, stop) in enumerate(TABLE.bounds):
        block = values[start:stop]
        scales[n] = abs(block).max()
        x = block.astype(np.float64) / float(scales[n])
        x = np.sqrt(x) if code is SQUARES else x
        found = abs(x[:, None] - own).argmin(1)
        codes[start:stop] = np.maximum(found, x > 0) if code is SQUARES else found
    return codes, scales


def spread(seed: int, code: Code, exponent: float = 0.0) -> Real:
    """Numbers of many magnitudes, the largest about 10^exponent."""
    random = np.random.default_rng(seed)
    x = random.normal(size=TABLE.size) * 10 ** random.uniform(-9, 0, TABLE.size)
    found: Real = (x * 10.0**exponent).astype(np.float32)
    return abs(found) if code is SQUARES else found


def test_levels_are_those_of_the_paper() -> None:
    levels = SIGNED.levels
    assert levels[0] == levels[128] == 0
    np.testing.assert_array_equal(levels[129:], -levels[1:128])
    # 0000001, 0000010, 0000011, 0000100: six zero bits, five and a fraction of one bit, four
    np.testing.assert_allclose(levels[1:5], [5.5e-7, 3.25e-6, 7.75e-6, 2.125e-5], rtol=1e-6)
    # 1000000: no zero bit, and a fraction of six bits
    np.testing.assert_allclose(levels[64:66], [0.1 + 0.45 / 64, 0.1 + 1.35 / 64], rtol=1e-6)
    assert levels[127] == 1
    roots = np.sqrt(SQUARES.levels)
    np.testing.assert_allclose(roots[:3], [0, 3.25e-7, 7.75e-7], rtol=1e-6)
    np.testing.assert_allclose(roots[127], 0.1 + 0.45 / 128, rtol=1e-6)
    assert roots[255] == 1
    assert (np.diff(SQUARES.levels) > 0).all()
    assert (np.diff(levels[:128]) > 0).all()


@pytest.mark.parametrize("code", CODES, ids=str)
def test_codes_are_the_nearest_levels(code: Code, backend: Backend) -> None:
    values = spread(1, code)
    codes, scales = packed(backend, values, code)
    wanted, its_scales = definition(values, code)
    inner = inside()
    assert (codes[inner] == wanted[inner]).mean() > 0.999  # up to rounding
    np.testing.assert_array_equal(scales, its_scales)
    error = unpacked(backend, codes, scales, code)[inner] - values[inner]
    assert abs(error).max() <= 0.02 * abs(values).max()


@pytest.mark.parametrize("code", CODES, ids=str)
@pytest.mark.parametrize("exponent", [-36, -25, -23, -8, 0, 8, 37])
def test_every_backend_gives_the_same_bits(exponent: int, code: Code, backend: Backend) -> None:
    values = spread(exponent + 50, code, exponent)
    values[[0, 3, 270, 330, 700]] = 0.0, -0.0, np.inf, 1e-30, 3e38
    pieces = TABLE.pieces(512, 64)
    mine, oracle = packed(backend, values, code, pieces), packed(NumpyBackend(), values, code)
    inner = inside()
    assert len(pieces) > 2
    assert mine[0][inner].tobytes() == oracle[0][inner].tobytes()
    assert mine[1].tobytes() == oracle[1].tobytes()
    found = unpacked(backend, *mine, code)
    assert found.tobytes() == unpacked(NumpyBackend(), *oracle, code).tobytes()
    assert not found[~inner].any()
    assert np.isfinite(found).all()


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.floats(-40, 37), code=st.sampled_from(CODES))
def test_unchanged_elements_keep_their_codes(
    backend: Backend, seed: int, exponent: float, code: Code
) -> None:
    codes, scales = packed(backend, spread(seed, code, exponent), code)
    again = packed(backend, unpacked(backend, codes, scales, code), code)
    inner = inside()
    assert again[0][inner].tobytes() == codes[inner].tobytes()
    assert again[1].tobytes() == scales.tobytes()


@pytest.mark.parametrize("code", CODES, ids=str)
def test_zeros_and_what_is_nearly_zero(code: Code, backend: Backend) -> None:
    values = np.zeros(TABLE.size, np.float32)
    values[[1, 400]] = FLOOR / 2, FLOOR  # in the first slot and in the third
    codes, scales = packed(backend, values, code)
    assert scales.tolist() == [0, 0, 0, FLOOR, 0, 0, 0, 0]
    found = unpacked(backend, codes, scales, code)
    assert found[400] == FLOOR
    assert np.count_nonzero(found) == 1
    assert not np.signbit(found).any()


def test_a_square_above_zero_does_not_become_zero(backend: Backend) -> None:
    values = np.zeros(TABLE.size, np.float32)
    values[:3] = 1.0, 1e-30, -1.0  # and no code for what cannot be a square
    codes, scales = packed(backend, values, SQUARES)
    assert codes[:4].tolist() == [255, 1, 0, 0]
    assert unpacked(backend, codes, scales, SQUARES)[1] == SQUARES.levels[1] > 0


@pytest.mark.parametrize("code", CODES, ids=str)
def test_nan_takes_its_block_and_infinity_does_not(code: Code, backend: Backend) -> None:
    values = spread(5, code)
    values[2], values[260], values[700] = np.nan, -np.nan, np.inf
    codes, scales = packed(backend, values, code)
    found = unpacked(backend, codes, scales, code)
    assert np.isnan(found[:300]).all()
    assert not np.isnan(found[300:]).any()
    assert found[700] == np.finfo(np.float32).max
    again = packed(backend, found, code)
    assert (again[0].tobytes(), again[1].tobytes()) == (codes.tobytes(), scales.tobytes())


def test_pieces_cover_everything_once() -> None:
    table = BlockTable(SlotTable([64, 5000, 4096]))
    for most in (256, 1024, 10**6):
        for step in (64, 128):
            pieces = table.pieces(most, step)
            edges = [(piece.start, piece.stop) for piece in pieces]
            assert edges[0][0] == 0
            assert edges[-1][1] == table.size
            assert all(a[1] == b[0] for a, b in pairwise(edges))
            assert all(piece.start % step == 0 for piece in pieces)
            assert all(table.bounds[piece.first, 0] == piece.start for piece in pieces)
    assert max(piece.size for piece in table.pieces(1024, 64)) <= 1024


def test_many_blocks(backend: Backend) -> None:
    """More than are processed at a time, on several threads."""
    table = BlockTable(SlotTable([300_001]))
    values = np.random.default_rng(0).normal(size=table.size).astype(np.float32)
    found = []
    for each in (backend, NumpyBackend()):
        codes = each.upload(np.zeros(table.size // 4, np.int32))
        scales = each.upload(np.zeros(table.number, np.float32))
        each.quantize(each.upload(values), SIGNED, table, table.whole(), codes, scales)
        found.append((each.download(codes).view(np.uint8)[:300_001], each.download(scales)))
    assert found[0][0].tobytes() == found[1][0].tobytes()
    assert found[0][1].tobytes() == found[1][1].tobytes()
    blocks = values[: 1171 * 256].reshape(-1, 256)
    np.testing.assert_array_equal(found[0][1][:-1], abs(blocks).max(1))
