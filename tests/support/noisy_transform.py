"""A transform that draws from a global generator, importable by worker processes."""

from __future__ import annotations

from typing import Any

import numpy as np


def noisy(sample: tuple[Any, ...], _: np.random.Generator) -> tuple[Any, ...]:
    return (sample[0] * np.float32(np.random.random()),)
