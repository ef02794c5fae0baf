"""Random numbers: Philox against its published vectors, and the distributions built on it."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest

from rumus.tensor import Backend, Generator, NumpyBackend, StateMismatchError, float32, int32
from rumus.tensor.memory.philox import philox_words

LOW = 0xFFFFFFFF


def philox4x32(counter: list[int], key: list[int], rounds: int = 10) -> list[int]:
    """Salmon et al. (SC'11), section 3.3, in Python integers."""
    c, k = list(counter), list(key)
    for _ in range(rounds):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [second >> 32 ^ c[1] ^ k[0], second & LOW, first >> 32 ^ c[3] ^ k[1], first & LOW]
        k = [k[0] + 0x9E3779B9 & LOW, k[1] + 0xBB67AE85 & LOW]
    return c


# Random123 1.14, tests/kat_vectors: philox4x32, 10 rounds.
PUBLISHED = [
    ([0, 0, 0, 0], [0, 0], "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ([LOW] * 4, [LOW] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), PUBLISHED)
def test_the_slow_philox_has_the_published_words(
    counter: list[int], key: list[int], words: str
) -> None:
    assert " ".join(f"{word:08x}" for word in philox4x32(counter, key)) == words


@pytest.mark.parametrize("key", [0, 1, 2**32, 2**64 - 1, 0x299F31D0A4093822])
@pytest.mark.parametrize("block", [0, 5, 2**32 - 1, 2**33, 2**63])
def test_philox_has_the_words_of_the_slow_one(key: int, block: int) -> None:
    expected: list[int] = []
    for index in (block, block + 1):
        expected += philox4x32([index & LOW, index >> 32, 0, 0], [key & LOW, key >> 32])
    assert philox_words(key, 4 * block, 7).tolist() == expected[:7]


@pytest.mark.parametrize("count", [0, 1, 5, 1023, 1024, 5001, 300_001])
def test_every_backend_has_the_same_words(count: int, backend: Backend) -> None:
    generator, reference = Generator(7, stream=3), Generator(7, stream=3)
    generator.position = reference.position = 2**34 - 8
    words = generator.words((count,), backend=backend)
    assert words.dtype == int32
    expected = philox_words(reference.key, reference.position, count)
    assert words.numpy().view(np.uint32).tolist() == expected.tolist()


@pytest.mark.parametrize("position", [3, -4, 2.5, "8"])
def test_a_position_that_no_draw_leads_to(position: Any) -> None:
    generator = Generator(7)
    generator.uniform((3,))
    with pytest.raises((TypeError, ValueError), match="position"):
        generator.position = position
    assert generator.position == 4


def test_words_in_memory_with_gaps(backend: Backend) -> None:
    there = backend.upload(np.zeros((2000, 2), np.int32))
    backend.random_words(9, 0, there[:, 1])
    out = backend.download(there)
    assert out[:, 1].view(np.uint32).tolist() == philox_words(9, 0, 2000).tolist()
    assert not out[:, 0].any()


def test_state_and_restore() -> None:
    generator = Generator(1, stream=2)
    generator.normal((5,))
    state = generator.state()
    expected = [generator.uniform((3,)).tolist() for _ in range(2)]
    other = Generator(0)
    other.restore(state)
    assert [other.uniform((3,)).tolist() for _ in range(2)] == expected
    assert repr(other) == "Generator(seed=1, stream=2, position=16)"


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ({"seed": 1, "stream": 0}, StateMismatchError),
        ({"seed": 1, "stream": 0, "position": 0, "step": 3}, StateMismatchError),
        ({}, StateMismatchError),
        ({"seed": -1, "stream": 0, "position": 0}, ValueError),
        ({"seed": 1, "stream": 0, "position": 3}, ValueError),
        ({"seed": 1, "stream": 0, "position": -4}, ValueError),
    ],
)
def test_a_bad_state_changes_nothing(state: dict[str, int], error: type[Exception]) -> None:
    generator = Generator(5)
    generator.words((3,))
    before = generator.state()
    with pytest.raises(error):
        generator.restore(state)
    assert generator.state() == before


def test_parts_of_a_stream_follow_one_another() -> None:
    whole, parts = Generator(3), Generator(3)
    expected = whole.words((12,)).tolist()
    assert [*parts.words((8,)).tolist(), *parts.words((4,)).tolist()] == expected


def test_streams_and_seeds_differ() -> None:
    drawn = {
        tuple(Generator(seed, stream).words((4,)).tolist())
        for seed, stream in itertools.product(range(10), range(10))
    }
    assert len(drawn) == 100


def uniformity(counts: Any) -> float:
    """The chi-square statistic against equal counts, in standard deviations from its mean."""
    counts = np.asarray(counts)
    expected = counts.sum() / counts.size
    freedom = counts.size - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


def test_uniform() -> None:
    values = Generator(11).uniform((200_000,)).numpy()
    assert values.dtype == float32
    assert 0 <= values.min() < values.max() < 1
    assert abs(uniformity(np.histogram(values, 64, (0, 1))[0])) < 4
    pairs = np.histogram2d(values[::2], values[1::2], 16, [[0, 1], [0, 1]])[0]
    assert abs(uniformity(pairs.reshape(-1))) < 4


@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (-3.0, -1.0), (0.0, 1e-3), (100.0, 100.1)])
def test_uniform_stays_below_its_upper_end(low: float, high: float) -> None:
    generator = Generator(0)
    generator._unit = lambda count: np.full(count, 1 - 2.0**-24)  # type: ignore[method-assign]
    value = generator.uniform((1,), low, high).item()
    assert np.float32(low) <= value < high


def test_normal() -> None:
    values = Generator(12).normal((200_001,)).numpy().astype(np.float64)
    moments = [(values**k).mean() for k in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.05)
    scaled = Generator(12).normal((200_001,), mean=3.0, std=2.0).numpy()
    np.testing.assert_allclose(scaled, 3 + 2 * values, rtol=1e-5, atol=1e-5)
    assert Generator(12).normal((2, 3)).shape == (2, 3)


def test_truncated_normal_stays_inside() -> None:
    values = Generator(13).truncated_normal((50_000,), 1.0, 2.0, low=0.0, high=2.0).numpy()
    assert values.min() >= 0
    assert values.max() <= 2
    assert values.mean() == pytest.approx(1.0, abs=0.01)
    with pytest.raises(ValueError, match="has almost no probability"):
        Generator(0).truncated_normal((2,), 0.0, 1.0, low=10.0, high=11.0)
    with pytest.raises(ValueError, match="has almost no probability"):
        Generator(0).truncated_normal((2,), std=0.0)


@pytest.mark.parametrize("probability", [0.0, 1e-12, 0.1, 0.5, 0.9, 1.0])
def test_keep_masks(probability: float, backend: Backend) -> None:
    mask = Generator(14).keep(probability, (100_000,), backend=backend)
    assert mask.dtype == np.bool_
    spread = 4 * np.sqrt(probability * (1 - probability) / 100_000)
    assert abs(mask.numpy().mean() - probability) <= spread
    expected = Generator(14).keep(probability, (100_000,), backend=NumpyBackend())
    assert (mask.numpy() == expected.numpy()).all()


def test_integers() -> None:
    values = Generator(15).integers(-3, 7, (100_000,)).numpy()
    assert abs(uniformity(np.unique(values, return_counts=True)[1])) < 4
    assert (values.min(), values.max(), values.dtype) == (-3, 6, int32)
    full = Generator(15).integers(-(2**31), 2**31, (1000,)).numpy()
    assert full.min() < -(2**30) < 2**30 < full.max()
    for low, high in [(3, 3), (5, 2), (0, 2**31 + 1)]:
        with pytest.raises(ValueError, match="an interval of int32 numbers"):
            Generator(0).integers(low, high, (1,))


def test_permutations_are_all_equally_likely() -> None:
    generator = Generator(16)
    counts = Counter(tuple(generator.permutation(4).tolist()) for _ in range(4800))
    assert len(counts) == 24
    assert abs(uniformity(list(counts.values()))) < 4
    assert sorted(generator.permutation(1000).tolist()) == list(range(1000))
    assert generator.permutation(0).tolist() == []


@pytest.mark.parametrize("arguments", [(-1,), (2**32,), (0, -1), (0, 2**32)])
def test_seeds_out_of_range(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 2\*\*32\)"):
        Generator(*arguments)


def test_probabilities_out_of_range() -> None:
    for probability in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"probability must be in \[0, 1\]"):
            Generator(0).keep(probability, (1,))


def test_an_interval_without_a_number_is_refused() -> None:
    """Its numbers were below it."""
    with pytest.raises(ValueError, match=r"float32 has no number in \[16777217, 16777218\)"):
        Generator(0).uniform((2,), 2**24 + 1, 2**24 + 2)
    assert Generator(0).uniform((2,), 2**24, 2**24 + 2).tolist() == [2**24] * 2
    assert Generator(0).uniform((2,), 0.1, 0.1).tolist() == [np.float32(0.1)] * 2
