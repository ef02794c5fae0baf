"""Captured steps with recurrent layers, pictures, losses and orders: the losses of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.gpu import default_backend
from rumus.optim import SGD
from rumus.tensor import (
    Backend,
    Generator,
    NumpyBackend,
    Parameter,
    Tensor,
    einsum,
    seed,
    tensor,
    tril,
)
from rumus.tensor.memory.recording import Capturing
from rumus.train import Trainer

X = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32)
Y = np.random.default_rng(1).integers(1, 5, (4, 6)).astype(np.int32)
LENGTHS = np.array([6, 2, 5, 3], np.int32)


class Net(nn.Module):
    """A recurrent layer and a readout, or a small picture model, depending on the case."""

    def __init__(self, kind: str) -> None:
        g = Generator(0)
        self.kind = kind
        if kind in ("LSTM", "GRU", "RNN"):
            self.body: Any = getattr(nn, kind)(8, 5, bidirectional=True, generator=g)
            self.out = nn.Linear(10, 5, generator=g)
        else:
            self.body = nn.Sequential(
                nn.Conv1d(6, 4, 3, padding="same", padding_mode="reflect", generator=g),
                nn.BatchNorm1d(4, momentum=None),
                nn.PReLU(4),
                nn.MaxPool1d(3, stride=2, ceil_mode=True),
                nn.Upsample(6, mode="linear"),
                nn.AvgPool1d(2, stride=1, count_include_pad=False, padding=1),
            )
            self.out = nn.Linear(7, 5, generator=g)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        found = self.body(x, lengths=lengths)[0] if self.kind in ("LSTM", "GRU", "RNN") else (
            self.body(x)
        )  # fmt: skip
        return self.out(found)


def classes(logits: Tensor, y: Tensor, lengths: Tensor, weight: Tensor) -> Tensor:
    """Class weights, a class axis and focal loss."""
    swapped = logits.permute(0, 2, 1)
    loss = nn.cross_entropy_loss(swapped, y, axis=1, weight=weight, label_smoothing=0.1)
    return loss + nn.nll_loss(logits.log_softmax(), y) + nn.focal_loss(logits, y)


def sequence(logits: Tensor, y: Tensor, lengths: Tensor, weight: Tensor) -> Tensor:
    """CTC, with labels that fit."""
    counts = lengths // 3
    return nn.ctc_loss(
        logits.log_softmax(), y, input_lengths=lengths, target_lengths=counts, zero_infinity=True
    )


def orders(logits: Tensor, y: Tensor, lengths: Tensor, weight: Tensor) -> Tensor:
    """Sorts, cumulative sums, triangles and einsum."""
    top = logits.topk(2)[0].cumsum(-1).std()
    mixed = einsum("bij,bkj->ik", logits, logits)
    return top + tril(mixed).norm() + logits.sort(1)[0].prod(-1).mean() + (logits % 0.7).sum()


LOSSES: dict[str, Callable[..., Tensor]] = {
    "classes": classes, "sequence": sequence, "orders": orders
}  # fmt: skip
CASES = [
    ("LSTM", "classes"), ("GRU", "sequence"), ("RNN", "orders"), ("pictures", "classes"),
]  # fmt: skip


def losses(kind: str, loss: str, backend: Backend) -> tuple[list[Tensor], int]:
    network = Net(kind)
    optimizer = SGD(network.parameters(), lr=0.05)
    network.to(backend)
    trainer = Trainer(optimizer)
    weight = tensor(np.linspace(0.5, 2, 5), backend=backend)

    def loss_of(x: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        logits = network(x, lengths)
        return LOSSES[loss](logits, y if kind != "pictures" else y[:, :4], lengths, weight)

    found = [trainer.train_step(loss_of, X, Y, LENGTHS, weight=1.0) for _ in range(6)]
    return found, trainer.counts.replayed


@pytest.mark.parametrize(("kind", "loss"), CASES)
def test_captured_steps_are_those_of_the_cpu(kind: str, loss: str) -> None:
    gpu = default_backend()
    before = gpu.stats.bytes_down
    there, replayed = losses(kind, loss, gpu)
    assert gpu.stats.bytes_down == before
    assert replayed == 4
    here, _ = losses(kind, loss, NumpyBackend())
    wanted = [float(value) for value in here]
    assert wanted[-1] < wanted[0]
    np.testing.assert_allclose([float(value) for value in there], wanted, rtol=2e-3)


@pytest.mark.parametrize("hidden", [1, 5, 12])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_size_that_is_not_that_of_the_weights_is_refused(kind: Any, hidden: int) -> None:
    """On a GPU as well, which would read on beyond a weight's rows."""
    for backend in (NumpyBackend(), default_backend()):
        layer = kind(4, 8, generator=Generator(0)).to(backend)
        vars(layer)["hidden"] = hidden  # an assignment is refused
        with pytest.raises(ValueError, match=f"a state of {hidden} features takes a weight"):
            layer(tensor(np.ones((2, 3, 4)), backend=backend))


def _frozen(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        parameter.requires_grad = False
    return layer


@pytest.mark.parametrize(
    "make",
    [
        lambda on: nn.Linear(4, 4, backend=on),
        lambda on: nn.LayerNorm(4, backend=on),
        lambda on: nn.MultiHeadAttention(4, 2, backend=on),
    ],
    ids=["linear", "layer norm", "attention"],
)
def test_a_layer_that_a_step_makes_ends_with_it(
    make: Callable[[Any], nn.Module], device: Capturing
) -> None:
    """A recording that notes its settings does not keep it; each replay draws other weights."""

    def trained(capture: bool) -> tuple[list[bytes], Trainer[Any]]:
        seed(3)
        w = Parameter(np.eye(4), backend=device)
        trainer = Trainer(SGD([w], 0.125), capture=capture)

        def loss(x: Tensor) -> Tensor:
            y: Tensor = _frozen(make(device))((x @ w).unsqueeze(1))
            return (y**2).mean()

        found = []
        for batch in np.random.default_rng(0).normal(size=(8, 2, 4)):
            trainer.train_step(loss, batch)
            found.append(w.numpy().tobytes())
        return found, trainer

    found, trainer = trained(capture=True)
    assert trainer.counts.captured == 6
    assert found == trained(capture=False)[0]


def test_a_batch_norm_made_in_a_step_says_what_it_leaves() -> None:
    backend = NumpyBackend()
    w = Parameter([1.0, 2.0], name="w", backend=backend)
    trainer = Trainer(SGD([w], 0.1))

    def loss(x: Tensor) -> Tensor:
        norm = nn.BatchNorm1d(2, affine=False, backend=backend)
        return (norm(x * w) ** 2).sum()

    for _ in range(4):
        trainer.train_step(loss, np.ones((3, 2), np.float32))
    assert trainer.counts.replayed == 0
    [reason] = trainer.counts.reasons.values()
    assert "an array created in it (float32[2]) is still referenced after it" in reason
