"""The GPU cost of each optimizer's step: the same few dispatches, however many tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from optimizer_table import KINDS

from rumus import optim
from rumus.gpu import default_backend
from rumus.tensor import Backend, DType, GradientStore, Parameter, float16, float32, tensor

# Sums of squares of two quantities are two dispatches each; LAMB and Adafactor write one of the two
# first, as a rule with one reduction does. Adafactor's matrices are counted separately.
MOST: Final = {
    optim.LARS: 7,
    optim.LAMB: 8,
    optim.Adafactor: 8,
    optim.StableAdamW: 6,
    optim.MARS: 6,
    optim.Prodigy: 9,  # two sums over all, which one kernel writes before, and the numbers
    optim.DAdaptAdam: 9,
}
MOST_OF_A_MATRIX: Final = 17


def dispatches(
    kind: Any, backend: Backend, tensors: int, dtype: DType = float32, shape: Any = 9
) -> int:
    """The dispatches of a step, with gradients in their slots."""
    draw = np.random.default_rng(0)
    parameters = [
        Parameter(draw.normal(size=shape), dtype=dtype, name=f"p{i}", backend=backend)
        for i in range(tensors)
    ]
    optimizer = kind(parameters)
    target = tensor(draw.normal(size=shape), dtype=dtype, backend=backend)
    found = []
    for _ in range(3):
        grads = GradientStore()
        for parameter in parameters:
            (parameter * target).sum().backward(into=grads)
        before = default_backend().gpu.stats.dispatches
        optimizer.step(grads)
        found.append(default_backend().gpu.stats.dispatches - before)
    assert len(set(found[1:])) == 1
    return found[-1]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_step_takes_the_same_dispatches_for_any_number_of_tensors(
    kind: Any, record_property: Callable[[str, object], None]
) -> None:
    few, many = (dispatches(kind, default_backend(), tensors) for tensors in (1, 40))
    record_property("dispatches", json.dumps([kind.__name__, many]))
    assert few == many <= MOST.get(kind, 4)


def test_adafactor_takes_some_more_for_each_matrix() -> None:
    few, many = (dispatches(optim.Adafactor, default_backend(), n, shape=(9, 7)) for n in (1, 9))
    assert many - few == 8 * MOST_OF_A_MATRIX
    assert few == MOST_OF_A_MATRIX + 1  # one decides for all


def test_state_in_8_bits_costs_two_dispatches_a_part() -> None:
    def packed(parameters: list[Parameter]) -> optim.AdamW[Any]:
        return optim.AdamW(parameters, state_dtype="8bit")

    for tensors in (1, 7):
        usual = dispatches(optim.AdamW, default_backend(), tensors, shape=4100)
        own = dispatches(packed, default_backend(), tensors, shape=4100)
        assert own == usual + 4


def test_precision_costs_no_dispatch() -> None:
    def precise(parameters: list[Parameter]) -> optim.AdamW[Any]:
        return optim.AdamW(parameters, master_weights=True, state_dtype="float16", compensated=True)

    plain = dispatches(optim.AdamW, default_backend(), 3)
    assert dispatches(precise, default_backend(), 3) == plain
    assert dispatches(precise, default_backend(), 3, float16) == plain
