"""What users of PyTorch and Keras write by habit: refused at once, with what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from rumus import nn
from rumus.nn.other_names import NN
from rumus.optim import SGD, AdamW, ParameterGroup
from rumus.optim.options.other_names import GROUP, OPTIMIZER
from rumus.tensor import OwnershipError, Parameter, Tensor, tensor
from rumus.tensor.graph.other_names import TENSOR
from rumus.train import Trainer


def _optimizer() -> Any:
    return AdamW([Parameter([1.0], name="w")])


@pytest.mark.parametrize("name", OPTIMIZER.rows)
def test_names_of_an_optimizer(name: str) -> None:
    optimizer = _optimizer()
    for act in (lambda: getattr(optimizer, name), lambda: setattr(optimizer, name, 0.0)):
        with pytest.raises(AttributeError, match=rf"'{name}'; here it is "):
            act()


@pytest.mark.parametrize("name", GROUP.rows)
def test_names_of_a_group(name: str) -> None:
    group: Any = ParameterGroup([Parameter([1.0], name="w")])
    for act in (lambda: getattr(group, name), lambda: setattr(group, name, 0.0)):
        with pytest.raises(AttributeError, match=rf"'{name}'; here it is "):
            act()


@pytest.mark.parametrize("name", TENSOR.rows)
def test_names_of_a_tensor(name: str) -> None:
    for value in (tensor([1.0]), Parameter([1.0])):
        with pytest.raises(AttributeError, match=rf"'{name}'; here it is "):
            getattr(value, name)


@pytest.mark.parametrize("name", NN.rows)
def test_names_of_layers(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"'{name}'; here it is "):
        getattr(nn, name)


def test_an_unknown_name_is_said() -> None:
    with pytest.raises(AttributeError, match=r"'colour'$"):
        _optimizer().colour  # noqa: B018


@pytest.mark.parametrize("make", [np.ones, lambda shape: tensor(np.ones(shape))])
def test_a_parameter_is_not_replaced(make: Callable[[Any], Any]) -> None:
    layer: Any = nn.Linear(4, 2)
    before = layer.weight
    with pytest.raises(TypeError, match=r"weight\.assign\(value\)"):
        layer.weight = make((2, 4))
    assert layer.weight is before
    layer.weight = Parameter(np.zeros((2, 4)))  # tied or new: that is meant
    assert len(layer.parameters()) == 2


LAYERS: Final[dict[str, tuple[Callable[[], Any], tuple[int, ...]]]] = {
    "linear": (lambda: nn.Linear(4, 3), (8, 4)),
    "sequential": (lambda: nn.Sequential(nn.Linear(4, 3)), (8, 4)),
    "conv": (lambda: nn.Conv2d(1, 2, 3), (2, 1, 5, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_says_that_it_takes_tensors(name: str) -> None:
    make, shape = LAYERS[name]
    with pytest.raises(TypeError, match=r"NumPy array: call it with tensor\(x\)"):
        make()(np.ones(shape, np.float32))


def test_devices_are_no_strings() -> None:
    layer: Any = nn.Linear(4, 3)
    with pytest.raises(TypeError, match=r"to_gpu\(\)"):
        layer.to("cuda")


def test_a_cell_run_again_is_told_the_line_to_write() -> None:
    model = nn.Linear(2, 2)
    first = SGD(model.parameters(), 0.1)
    with pytest.raises(OwnershipError, match=r"parameters\.release\(\)"):
        SGD(model.parameters(), 0.1)
    model.parameters().release()
    second = SGD(model.parameters(), 0.1)
    assert (len(first.parameters), len(second.parameters)) == (0, 2)


def test_freezing_what_is_owned_says_the_way_on() -> None:
    model = nn.Linear(2, 2)
    optimizer = SGD(model.parameters(), 0.1)
    loss = (model.weight * 1.0).sum()
    model.freeze()
    with pytest.raises(Exception, match="optional=True"):
        optimizer.step(loss.backward())


def test_a_trainer_takes_an_optimizer() -> None:
    model: Any = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="Trainer takes an optimizer, not Linear"):
        Trainer(model)


def test_two_parameters_of_one_name_are_refused_before_the_first_step(tmp_path: Path) -> None:
    encoder, decoder = nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(3, 4))
    optimizer = AdamW([*encoder.parameters(), *decoder.parameters()])
    calls = []

    def loss(x: Tensor) -> Tensor:
        calls.append(1)
        return nn.mse_loss(decoder(encoder(x)), x)

    trainer = Trainer(optimizer, state={"encoder": encoder, "decoder": decoder})
    with pytest.raises(ValueError, match=r"'0\.weight' is the name of several parameters"):
        trainer.fit([(np.ones((8, 4), np.float32),)], loss, epochs=1, checkpoints=tmp_path)
    assert not calls
