"""A training whose loss multiplies by a number, or decides by it, which changes at a step."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from rumus.optim import SGD
from rumus.tensor import Backend, NumpyBackend, Parameter, Tensor
from rumus.tensor.memory.recording import Capturing
from rumus.train import CaptureWarning, Trainer

Number = Callable[[], Any]
Change = Callable[[], object]
STEPS: Final = 8
CHANGED: Final = 4  # after so many


def nothing() -> None:
    """A change that the code itself makes."""


def are_heard(device: Capturing, heard: Sequence[warnings.WarningMessage], trainer: Any) -> bool:
    """Whether a failed capture is reported once: by a warning for a GPU, by `counts` for a CPU."""
    kinds = [type(warning.message) for warning in heard]
    if device.runs_ahead:
        return kinds == [CaptureWarning]
    return kinds == [] and len(trainer.counts.reasons) == 1


def weights(
    backend: Backend, number: Number, change: Change, *, capture: bool = True
) -> tuple[list[Any], Trainer[Any]]:
    """The parameter after each step."""
    w = Parameter([1.0, 2.0], name="w", backend=backend)
    trainer = Trainer(SGD([w], 0.0625), capture=capture)

    def loss(x: Tensor) -> Tensor:
        rate: float = number()
        return (w * x * rate).sum() if rate < 2.5 else (w * w * x).sum() * rate

    found = []
    for step in range(STEPS):
        if step == CHANGED:
            change()
        trainer.train_step(loss, np.array([0.5, 0.25]))
        found.append(w.numpy().tobytes())
    return found, trainer


def spellings(module: Mapping[str, Any], returned: str) -> list[Any]:
    """The functions that a module defines with this annotation of what they return."""
    return [
        value
        for value in list(module.values())
        if isinstance(value, types.FunctionType)
        and value.__module__ == module["__name__"]
        and value.__annotations__.get("return") == returned
    ]


def check_change_is_noticed(
    spelling: Callable[[], tuple[Number, Change]], device: Capturing
) -> None:
    """Fail unless steps are repeated, with the bits of an eager training, without a warning."""
    wanted, _ = weights(NumpyBackend(), *spelling(), capture=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, trainer = weights(device, *spelling())
    assert trainer.counts.replayed >= 2
    assert found == wanted
    assert wanted[CHANGED - 1] != wanted[CHANGED]


def check_is_not_captured(number: Callable[[], float], device: Capturing) -> None:
    """Fail unless no step that uses a number is repeated, which is said where that is due."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        _, trainer = weights(device, number, nothing)
    assert trainer.counts.replayed == 0
    assert are_heard(device, heard, trainer)


def check_hidden_is_not_captured(
    spelling: Callable[[], tuple[Number, Change]], device: Capturing
) -> None:
    """The same for what hides where its number comes from: steps have the bits of eager ones.

    A spelling may change how NumPy prints, which is put back after each of the two trainings.
    """
    with np.printoptions():
        wanted, _ = weights(NumpyBackend(), *spelling(), capture=False)
    with np.printoptions(), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        found, trainer = weights(device, *spelling())
    assert found == wanted
    assert trainer.counts.replayed == 0
    assert are_heard(device, heard, trainer)
