"""docs/examples/ported: each program and its PyTorch original, from the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ported_programs import FOLDER, PAIRS, program


def test_every_pair_is_compared() -> None:
    originals = {path.stem.removesuffix("_torch") for path in FOLDER.glob("*_torch.py")}
    assert originals == set(PAIRS)


@pytest.mark.parametrize("name", PAIRS)
def test_the_same_losses(name: str) -> None:
    """Equal at first, and within noise once rounding has grown."""
    pair, ours, theirs = PAIRS[name], program(name), program(f"{name}_torch")
    torch.manual_seed(0)
    original = getattr(theirs, pair.model)(**pair.small)
    model = getattr(ours, pair.model)(**pair.small)
    arrays = {key: value.numpy() for key, value in original.state_dict().items()}
    rename: Any = getattr(ours, "from_torch", None)
    assert model.load_weights(arrays, rename=rename).fits
    found = np.array(ours.train(model, pair.steps))
    wanted = np.array(theirs.train(original, pair.steps))
    np.testing.assert_allclose(found[:3], wanted[:3], rtol=2e-4)
    late = slice(-pair.steps // 4, None)
    np.testing.assert_allclose(found[late].mean(), wanted[late].mean(), rtol=0.05, atol=0.02)
    assert found[late].mean() < found[:3].mean() - 0.02 * abs(found[:3].mean())
