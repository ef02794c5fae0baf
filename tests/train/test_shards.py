"""A loader that distributes each batch to several ranks by shards, whoever computes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rumus.tensor import StateMismatchError
from rumus.train import ArrayDataset, DataLoader
from rumus.train.data.part import Part


@dataclass(frozen=True)
class Ranks:
    rank: int
    size: int


def loader(rank: int, size: int, samples: int = 22, shards: int | None = 4) -> DataLoader:
    data = ArrayDataset(np.arange(samples, dtype=np.float32))
    return DataLoader(data, 8, shuffle=True, seed=3, ranks=Ranks(rank, size), shards=shards)


@given(samples=st.integers(0, 100), count=st.integers(0, 3), size=st.sampled_from([1, 2, 3, 4]))
def test_each_row_is_in_one_shard_and_shards_do_not_depend_on_ranks(
    samples: int, count: int, size: int
) -> None:
    shards = size * 2**count
    whole = Part.of(samples, shards, 0, 1)
    parts = [Part.of(samples, shards, rank, size) for rank in range(size)]
    joined = [(p.start + a, p.start + b) for p in parts for a, b in p.rows]
    assert joined == list(whole.rows)
    assert sum(b - a for a, b in joined) == samples
    assert [p.first for p in parts] == [rank * 2**count for rank in range(size)]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_ranks_have_the_rows_of_the_global_batch(size: int) -> None:
    data = ArrayDataset(np.arange(22, dtype=np.float32))
    whole = [rows for (rows,) in DataLoader(data, 8, shuffle=True, seed=3)]
    own = [loader(rank, size) for rank in range(size)]
    for expected, *batches in zip(whole, *own, strict=True):
        parts = [each.part for each in own]
        assert [part.samples for part in parts] == [len(expected)] * size
        found = [
            rows[a:b] for (rows,), part in zip(batches, parts, strict=True) for a, b in part.rows
        ]
        np.testing.assert_array_equal(np.concatenate(found), expected)


def test_a_rank_without_rows_gets_one_that_no_shard_has() -> None:
    last = [(rows, own.part) for own in [loader(0, 4, samples=9)] for (rows,) in own][-1]
    assert last[1].samples == 1
    assert last[1].rows == ((0, 0),)
    assert len(last[0]) == 1


def test_the_position_fits_any_number_of_ranks() -> None:
    source = loader(0, 4)
    next(iter(source))
    other = loader(0, 1)
    other.load_state_dict(source.state_dict())
    assert (other.epoch, other.batch) == (0, 1)
    with pytest.raises(StateMismatchError, match="shards is 4 in the state, 2 here"):
        loader(0, 1, shards=2).load_state_dict(source.state_dict())


def test_there_are_as_many_shards_as_ranks_by_default() -> None:
    assert loader(1, 2, shards=None).shards == 2


@pytest.mark.parametrize(
    ("size", "shards", "message"),
    [
        (2, 3, "shards=3 cannot be distributed to 2 ranks"),
        (2, 6, "shards=6 cannot be distributed to 2 ranks"),
        (1, 0, "shards=0 cannot be distributed to 1 ranks"),
        (1, 16, "batch_size=8 is smaller than shards=16"),
    ],
)
def test_shards_that_do_not_fit_are_refused(size: int, shards: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loader(0, size, shards=shards)


def test_shards_need_ranks() -> None:
    with pytest.raises(ValueError, match="shards= needs ranks="):
        DataLoader(ArrayDataset(np.zeros(4)), 2, shards=2)
