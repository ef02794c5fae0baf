"""Philox4x32-10, a counter-based generator of random words.

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC'11. Word n is a
    function of (key, n) alone, so every backend can generate any part of a stream.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_M0: Final = np.uint64(0xD2511F53)
_M1: Final = np.uint64(0xCD9E8D57)
_W0: Final = 0x9E3779B9
_W1: Final = 0xBB67AE85
_LOW: Final = np.uint64(0xFFFFFFFF)
_SHIFT: Final = np.uint64(32)
ROUNDS: Final = 10


def philox_words(key: int, counter: int, count: int) -> NDArray[np.uint32]:
    """Return `count` words of the stream `key`, from word `counter` on.

    key: 0 <= key < 2**64. counter: a multiple of 4 below 2**66. Words come in blocks of four.
    """
    blocks = -(-count // 4)
    index = np.arange(counter // 4, counter // 4 + blocks, dtype=np.uint64)
    c0, c1 = index & _LOW, index >> _SHIFT
    c2, c3 = np.zeros_like(c0), np.zeros_like(c0)
    for round_ in range(ROUNDS):
        k0 = np.uint64(((key & 0xFFFFFFFF) + round_ * _W0) & 0xFFFFFFFF)
        k1 = np.uint64(((key >> 32) + round_ * _W1) & 0xFFFFFFFF)
        product0, product1 = c0 * _M0, c2 * _M1
        c0, c1 = (product1 >> _SHIFT) ^ c1 ^ k0, product1 & _LOW
        c2, c3 = (product0 >> _SHIFT) ^ c3 ^ k1, product0 & _LOW
    words = np.empty((blocks, 4), np.uint32)
    for column, word in enumerate((c0, c1, c2, c3)):
        words[:, column] = word
    return words.reshape(-1)[:count]


def as_int32(words: NDArray[np.uint32]) -> NDArray[Any]:
    """Return the same bits as int32, the dtype of random words in tensors."""
    return words.view(np.int32)
