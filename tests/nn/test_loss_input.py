"""Losses that are given what has gone through the wrong activation, or through none."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest

from rumus import nn
from rumus.tensor import Backend, Generator, Parameter, Tensor, cpu, float16, no_grad, tensor

CLASSES, SHARES = [0, 1, 2, 0], np.full((4, 3), 1 / 3, np.float32)
SEQUENCES = [[1, 2]]


def _logits(backend: Backend | None = None) -> Tensor:
    layer = nn.Linear(2, 3, generator=Generator(0)).to(backend or cpu())
    return layer(tensor(np.ones((4, 2), np.float32), backend=backend or cpu()))


def _told(act: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return [str(w.message) for w in caught]


UNFIT: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda z: nn.cross_entropy_loss(z.softmax(), CLASSES),
    "softmax of another axis": lambda z: nn.cross_entropy_loss(
        z.reshape(2, 3, 2).softmax(1), [[0, 1], [2, 0]], axis=1
    ),
    "softmax in float16": lambda z: nn.cross_entropy_loss(z.astype(float16).softmax(), CLASSES),
    "softmax, moved": lambda z: nn.cross_entropy_loss(z.softmax().reshape(2, 2, 3)[0], [0, 1]),
    "softmax, shares": lambda z: nn.cross_entropy_loss(z.softmax(), SHARES),
    "sigmoid": lambda z: nn.cross_entropy_loss(z.sigmoid(), CLASSES),
    "focal": lambda z: nn.focal_loss(z.softmax(), CLASSES),
    "binary": lambda z: nn.binary_cross_entropy_with_logits(z.sigmoid(), SHARES),
    "binary of logarithms": lambda z: nn.binary_cross_entropy_with_logits(
        nn.log_sigmoid(z), SHARES
    ),
    "binary focal": lambda z: nn.sigmoid_focal_loss(z.sigmoid(), SHARES),
    "binary, one column": lambda z: nn.binary_cross_entropy_with_logits(
        z.sigmoid()[:, :1].squeeze(1), SHARES[:, 0]
    ),
    "nll": lambda z: nn.nll_loss(z.softmax(), CLASSES),
    "nll of logits": lambda z: nn.nll_loss(z, CLASSES),
    "kl": lambda z: nn.kl_div(z.softmax(), SHARES),
    "kl, batchmean": lambda z: nn.kl_div(z.softmax(), SHARES, reduction="batchmean"),
    "ctc": lambda z: nn.ctc_loss(z.softmax().unsqueeze(0), SEQUENCES),
    "ctc of logits": lambda z: nn.ctc_loss(z.unsqueeze(0), SEQUENCES),
    "a model that ends in a softmax": lambda z: nn.cross_entropy_loss(
        nn.Sequential(nn.Linear(2, 3), nn.Softmax())(_ones()), CLASSES
    ),
    "a model that ends in a sigmoid": lambda z: nn.binary_cross_entropy_with_logits(
        nn.Sequential(nn.Linear(2, 3), nn.Sigmoid())(_ones()), SHARES
    ),
}
FIT: dict[str, Callable[[Tensor], Tensor]] = {
    "logits": lambda z: nn.cross_entropy_loss(z, CLASSES),
    "a log-softmax, which is its own": lambda z: nn.cross_entropy_loss(z.log_softmax(), CLASSES),
    "a scaled sigmoid": lambda z: nn.cross_entropy_loss(10 * z.sigmoid(), CLASSES),
    "a softmax within": lambda z: nn.cross_entropy_loss(z.softmax() @ z.transpose(0, 1), CLASSES),
    "nll": lambda z: nn.nll_loss(z.log_softmax(), CLASSES),
    "nll of a logarithm": lambda z: nn.nll_loss(z.softmax().log(), CLASSES),
    "kl": lambda z: nn.kl_div(z.log_softmax(), SHARES),
    "ctc": lambda z: nn.ctc_loss(z.log_softmax().unsqueeze(0), SEQUENCES),
    "probabilities": lambda z: nn.binary_cross_entropy(z.sigmoid(), SHARES),
    "masks": lambda z: nn.dice_loss(z.softmax(), SHARES),
    "the error of probabilities": lambda z: nn.mse_loss(z.softmax(), SHARES),
    "a parameter of that name": lambda z: nn.cross_entropy_loss(
        Parameter(np.ones((4, 3)), name="softmax").reshape(4, 3), CLASSES
    ),
    "attention": lambda z: nn.cross_entropy_loss(
        nn.MultiHeadAttention(3, 1)(z.unsqueeze(0)).reshape(4, 3), CLASSES
    ),
}


def _ones() -> Tensor:
    return tensor(np.ones((4, 2), np.float32))


@pytest.mark.parametrize("name", UNFIT)
def test_a_wrong_input_is_told_of(name: str) -> None:
    (told,) = _told(lambda: UNFIT[name](_logits()))
    assert "expects l" in told
    assert "trains badly: give it " in told


@pytest.mark.parametrize("name", FIT)
def test_a_right_input_is_not(name: str) -> None:
    assert _told(lambda: FIT[name](_logits())) == []


@pytest.mark.parametrize("loss", [nn.binary_cross_entropy, nn.dice_loss])
def test_logits_for_probabilities(loss: Callable[..., Tensor]) -> None:
    """On a GPU no number is looked at, so that only the tape can tell."""
    layer = nn.Linear(2, 3, generator=Generator(0))
    for parameter, value in zip(layer.parameters(), (0.0, 0.5), strict=True):
        parameter.assign(value)
    (told,) = _told(lambda: loss(layer(_ones()), SHARES))
    assert "expects probabilities, and is given the result of linear" in told


def test_an_evaluation_is_not_told_of() -> None:
    with no_grad():
        assert _told(lambda: UNFIT["softmax"](_logits())) == []


def test_on_every_backend(backend: Backend) -> None:
    z = _logits(backend)
    (told,) = _told(lambda: nn.cross_entropy_loss(z.softmax(), CLASSES))
    assert told.startswith(
        "cross_entropy_loss expects logits of classes, and is given the result of softmax, with "
    )


def _outputs(count: int, samples: int = 4) -> Tensor:
    layer = nn.Linear(2, count, generator=Generator(0))
    return layer(tensor(np.ones((samples, 2), np.float32)))


SINGLE: dict[str, Callable[[Tensor], Tensor]] = {
    "cross entropy": lambda z: nn.cross_entropy_loss(z, [0] * len(z)),
    "of probabilities": lambda z: nn.cross_entropy_loss(z, np.ones((len(z), 1), np.float32)),
    "focal": lambda z: nn.focal_loss(z, [0] * len(z)),
    "nll": lambda z: nn.nll_loss(z.log_softmax(), [0] * len(z)),
    "margin": lambda z: nn.multi_margin_loss(z, [0] * len(z)),
    "images": lambda z: nn.cross_entropy_loss(z.reshape(1, 1, -1), [[0] * len(z)], axis=1),
}


@pytest.mark.parametrize("loss", SINGLE.values(), ids=SINGLE)
def test_a_single_class_teaches_nothing(loss: Callable[[Tensor], Tensor]) -> None:
    outputs = _outputs(1)
    (told,) = _told(lambda: loss(outputs))
    assert "binary_cross_entropy_with_logits for a single output" in told


@pytest.mark.parametrize("loss", SINGLE.values(), ids=SINGLE)
def test_a_single_sample_may_have_one_class(loss: Callable[[Tensor], Tensor]) -> None:
    outputs = _outputs(1, samples=1)
    assert _told(lambda: loss(outputs)) == []


def test_a_softmax_of_one_output_is_1() -> None:
    targets = np.ones((4, 1), np.float32)
    (told,) = _told(lambda: nn.binary_cross_entropy(_outputs(1).softmax(), targets))
    assert "1 whatever the model computes" in told
    assert _told(lambda: nn.binary_cross_entropy(_outputs(1).sigmoid(), targets)) == []


def test_probabilities_of_several_classes_at_once() -> None:
    outputs = _outputs(3)
    (told,) = _told(lambda: nn.cross_entropy_loss(outputs, np.ones((4, 3), np.float32)))
    assert "add up to 3" in told
    whole, part = np.eye(3, dtype=np.float32)[0], np.full(3, 0.2, np.float32)
    targets = np.stack([whole, part, whole * 0, whole])
    assert _told(lambda: nn.cross_entropy_loss(outputs, targets)) == []
    halves = np.full((4, 3), 1 / 3, np.float16)
    assert _told(lambda: nn.cross_entropy_loss(outputs.astype(float16), halves)) == []
    rows = targets.T[None]  # classes on axis 1
    assert _told(lambda: nn.cross_entropy_loss(outputs.T.unsqueeze(0), rows, axis=1)) == []


@pytest.mark.parametrize("log_input", [True, False])
def test_a_count_is_not_negative(*, log_input: bool) -> None:
    rates = _outputs(1).exp()
    with pytest.raises(ValueError, match=r"target -1.0 at index \(2, 0\) is negative"):
        nn.poisson_nll_loss(rates, [[0.0], [2.0], [-1.0], [1.0]], log_input=log_input)
