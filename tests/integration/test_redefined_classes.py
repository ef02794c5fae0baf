"""A notebook's cell defines its class again with each run: the one before can be collected."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.optim import AdamW, ClipNorm
from rumus.tensor import Tensor, ones
from rumus.train import ArrayDataset, Callback, DataLoader, Trainer

X = np.ones((4, 2), np.float32)


def trained(
    model: nn.Module, optimizer: Any = None, kind: Any = Trainer, dataset: Any = None, **given: Any
) -> None:
    optimizer = optimizer or AdamW(model.parameters())
    trainer = kind(optimizer, state={"model": model})
    data = DataLoader(dataset or ArrayDataset(X), 1, seed=0)
    loss = lambda x: model(x).sum()
    trainer.fit(data, loss, epochs=2, progress=None, validate=(data, loss), **given)


def module() -> type:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    model = Net()
    model.load_state_dict(model.state_dict())
    trained(model)
    return Net


def layer() -> type:
    class Net(nn.Linear):
        pass

    model = Net(2, 2)
    for name in ("inputs", "label"):
        try:
            setattr(model, name, 3)
        except AttributeError:
            assert name == "inputs"
    trained(model)
    return Net


def slotted() -> type:
    class Net(nn.Linear):
        __slots__ = ("label",)

    trained(Net(2, 2))
    return Net


def optimizer() -> type:
    class Own(AdamW):
        pass

    model = nn.Linear(2, 2)
    found = Own(model.parameters())
    with pytest.raises(AttributeError):
        found.lr = 3.0  # type: ignore[attr-defined]
    found.step(model(ones((2, 2))).sum().backward())
    trained(model, found)
    return Own


def trainer() -> type:
    class Own(Trainer[nn.Module]):
        pass

    trained(nn.Linear(2, 2), kind=Own)
    with pytest.raises(AttributeError):
        Own(AdamW(nn.Linear(2, 2).parameters())).state = 3  # type: ignore[assignment]
    return Own


def callback() -> type:
    class Own(Callback):
        def on_step_end(self, event: Any) -> None:
            pass

    trained(nn.Linear(2, 2), callbacks=[Own()])
    return Own


def dataset() -> type:
    class Own(ArrayDataset):
        pass

    trained(nn.Linear(2, 2), dataset=Own(X))
    return Own


def clip() -> type:
    class Own(ClipNorm):
        pass

    model, own = nn.Linear(2, 2), Own(1.0)
    with pytest.raises(AttributeError):
        own.max_norm = 3.0  # type: ignore[misc]
    trained(model, AdamW(model.parameters(), clip=own))
    return Own


@pytest.mark.parametrize(
    "use", [module, layer, slotted, optimizer, trainer, callback, dataset, clip]
)
def test_a_class_is_not_kept(use: Callable[[], type]) -> None:
    reference = weakref.ref(use())
    gc.collect()
    assert reference() is None
