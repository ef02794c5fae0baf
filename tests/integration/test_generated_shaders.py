"""shaders/generated/ shows what is printed for the optimizers. To write it anew:

python tests/integration/test_generated_shaders.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from rumus.gpu import update_source
from rumus.optim import (
    ADOPT,
    ASGD,
    SGD,
    AdaBelief,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Adan,
    FusedOptimizer,
    Lion,
    NAdam,
    RAdam,
    RMSprop,
    Rprop,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    Yogi,
)
from rumus.tensor import Kernel, NumpyBackend, Parameter

FOLDER: Final = Path(__file__).parents[2] / "shaders" / "generated"
OPTIMIZERS: Final[Mapping[str, Callable[[Any], FusedOptimizer[Any]]]] = {
    "sgd": SGD,
    "sgd_momentum": lambda p: SGD(p, momentum=0.9),
    "sgd_nesterov": lambda p: SGD(p, momentum=0.9, nesterov=True),
    "adam": Adam,
    "amsgrad": lambda p: Adam(p, amsgrad=True),
    "adamw": AdamW,
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
    "rmsprop_momentum": lambda p: RMSprop(p, momentum=0.9),
    "rmsprop_centered": lambda p: RMSprop(p, centered=True),
    "rmsprop_centered_momentum": lambda p: RMSprop(p, centered=True, momentum=0.9),
    "adadelta": Adadelta,
    "adamax": Adamax,
    "nadam": NAdam,
    "radam": RAdam,
    "rprop": Rprop,
    "asgd": ASGD,
    "lion": Lion,
    "adabelief": AdaBelief,
    "yogi": Yogi,
    "adan": Adan,
    "adopt": ADOPT,
    "schedule_free_sgd": ScheduleFreeSGD,
    "schedule_free_adamw": ScheduleFreeAdamW,
}


def kernel_of(name: str) -> Kernel:
    return OPTIMIZERS[name]([Parameter([1.0], backend=NumpyBackend())]).kernel


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_files_are_what_is_printed(name: str) -> None:
    assert (FOLDER / f"{name}.wgsl").read_text() == update_source(kernel_of(name))


def test_there_are_no_other_files() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(OPTIMIZERS)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in OPTIMIZERS:
        (FOLDER / f"{name}.wgsl").write_text(update_source(kernel_of(name)))
