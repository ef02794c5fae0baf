"""The fingerprint of an epoch's batches: of both ends of each array, the same as in old files."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.tensor import Tensor, tensor
from rumus.train.data.batch_trace import BatchTrace


def trace(*fields: NDArray[np.generic] | Tensor) -> int:
    found = BatchTrace()
    found.add(fields)
    return found.value


def checksum(array: NDArray[np.generic]) -> int:
    """By hand: up to 256 elements of the first row and of the last one, as bytes."""
    rows = array.reshape(-1, array.shape[-1]) if array.size else array.reshape(1, 0)
    return zlib.crc32(rows[0][:256].tobytes() + rows[-1][-256:].tobytes())


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8, np.int64, bool, np.complex64])
@pytest.mark.parametrize(
    "shape", [(1,), (7,), (256,), (700,), (4, 3), (5, 1), (3, 400), (2, 1, 8, 8), (0, 3), (3, 0)]
)
def test_both_ends_of_an_array(shape: tuple[int, ...], dtype: type) -> None:
    random = np.random.default_rng(len(shape))
    array: NDArray[Any] = random.integers(0, 100, shape).astype(dtype)
    assert trace(array) == checksum(array)
    assert trace(np.repeat(array, 2, axis=-1)[..., ::2]) == checksum(array), "not dense"


def test_a_changed_end_shows_and_a_changed_middle_does_not() -> None:
    array = np.arange(3 * 600, dtype=np.float32).reshape(3, 600)
    for index, is_seen in (((0, 0), True), ((2, 599), True), ((0, 255), True), ((0, 256), False)):
        changed = array.copy()
        changed[index] = -1
        assert (trace(changed) != trace(array)) is is_seen, index


def test_a_file_in_memory_has_the_trace_of_its_numbers(tmp_path: object) -> None:
    array = np.arange(600, dtype=np.float32).reshape(2, 300)
    np.save(f"{tmp_path}/a.npy", array)
    assert trace(np.load(f"{tmp_path}/a.npy", mmap_mode="r")) == checksum(array)


def test_fields_follow_one_another() -> None:
    one, other = np.arange(4.0), np.arange(5, dtype=np.int32)
    ends = [each.tobytes() for each in (one, one, other, other)]
    assert trace(one, other) == zlib.crc32(b"".join(ends))
    assert trace(tensor(one)) != trace(tensor(one[::-1].copy()))
