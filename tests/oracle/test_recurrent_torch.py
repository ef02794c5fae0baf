"""LSTM, GRU and RNN against PyTorch on the CPU: states, last states, and all gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rumus import nn
from rumus.tensor import NumpyBackend, Parameter, Tensor, tensor


def cosines(shape: tuple[int, ...], dtype: Any) -> Any:
    return np.cos(np.arange(np.prod(shape))).reshape(shape).astype(dtype)


def pair(kind: str, inputs: int, hidden: int, dtype: Any, **options: Any) -> tuple[Any, Any]:
    """One of our layers with PyTorch's weights, loaded by name."""
    theirs: Any = {"num_layers": options.get("layers", 1), "batch_first": True}
    theirs |= {k: v for k, v in options.items() if k != "layers"}
    module = getattr(torch.nn, kind)(inputs, hidden, **theirs)
    module = module.to(torch.tensor(np.zeros(1, dtype)).dtype)
    layer = getattr(nn, kind)(inputs, hidden, dtype=dtype, **options)
    layer.load_state_dict({name: p.detach().numpy() for name, p in module.named_parameters()})
    return layer, module


CASES: list[tuple[str, tuple[int, int, int, int], dict[str, Any], Any]] = [
    ("one layer", (3, 5, 4, 6), {}, None),
    (
        "two layers, both ways, lengths",
        (3, 5, 4, 6),
        {"layers": 2, "bidirectional": True},
        [5, 2, 3],
    ),
    ("without biases, lengths", (3, 5, 4, 6), {"bias": False}, [1, 5, 4]),
    ("one step", (2, 1, 3, 2), {"bidirectional": True}, None),
    ("one of each", (1, 3, 1, 1), {}, [2]),
    ("one feature of state", (3, 4, 2, 1), {}, None),
    ("two features of state", (3, 4, 2, 2), {}, None),
    ("large, lengths", (16, 40, 3, 32), {"bidirectional": True}, [40, 1, 7, 39] * 4),
    ("large", (16, 40, 3, 32), {}, None),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "RNN of relu"])
def test_states_and_gradients(kind: str, case: Any, dtype: Any) -> None:
    name, (batch, length, inputs, hidden), options, lengths = case
    has_state = "large" not in name
    if kind == "RNN of relu":
        kind, options = "RNN", {"nonlinearity": "relu", **options}
    layer, module = pair(kind, inputs, hidden, dtype, **options)
    many = options.get("layers", 1) * (2 if options.get("bidirectional") else 1)
    rng = np.random.default_rng(0)
    start = [rng.normal(size=(batch, length, inputs)).astype(dtype)]
    states = (2 if kind == "LSTM" else 1) if has_state else 0
    start += [rng.normal(size=(many, batch, hidden)).astype(dtype) for _ in range(states)]
    mine = [Parameter(array, dtype=dtype) for array in start]
    other = [torch.tensor(array, requires_grad=True) for array in start]

    def first(given: list[Any]) -> Any:
        return None if not states else tuple(given[1:]) if kind == "LSTM" else given[1]

    out, last = layer(mine[0], first(mine), lengths=lengths)
    packed: Any = other[0]
    if lengths is not None:
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            packed, torch.tensor(lengths), batch_first=True, enforce_sorted=False
        )
    wanted, end = module(packed, first(other))
    if lengths is not None:
        wanted, _ = torch.nn.utils.rnn.pad_packed_sequence(
            wanted, batch_first=True, total_length=length
        )
    found = [out, *(last if kind == "LSTM" else (last,))]
    theirs = [wanted, *(end if kind == "LSTM" else (end,))]
    close: Any = (
        {"rtol": 3e-5, "atol": 3e-5} if dtype == np.float32 else {"rtol": 1e-9, "atol": 1e-11}
    )
    loss, reference = tensor(0.0, dtype=dtype), torch.zeros(())
    for a, b in zip(found, theirs, strict=True):
        assert a.shape == tuple(b.shape)
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), **close)
        weights = cosines(a.shape, dtype)
        loss = loss + (a * tensor(weights, dtype=dtype)).sum()
        reference = reference + (b * torch.tensor(weights)).sum()
    grads = loss.backward()
    reference.backward()
    own = dict(layer.named_parameters())
    pairs = list(zip(mine, other, strict=True))
    pairs += [(own[name], p) for name, p in module.named_parameters()]
    close = {"rtol": 10 * close["rtol"], "atol": 10 * close["atol"]}
    for parameter, leaf in pairs:
        np.testing.assert_allclose(grads[parameter].numpy(), leaf.grad.numpy(), **close)


def test_the_starts_have_the_names_shapes_and_spread_of_pytorch_s() -> None:
    layer = nn.LSTM(30, 50, layers=2, bidirectional=True)
    module = torch.nn.LSTM(30, 50, num_layers=2, bidirectional=True)
    theirs = {name: tuple(p.shape) for name, p in module.named_parameters()}
    assert {name: p.shape for name, p in layer.named_parameters()} == theirs
    weight = layer.state_dict()["weight_hh_l1_reverse"]
    assert abs(np.asarray(weight).std() / (1 / np.sqrt(3 * 50)) - 1) < 0.05


def test_a_sequence_without_a_batch() -> None:
    layer, module = pair("LSTM", 4, 6, np.float32, layers=2)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    out, (h, c) = layer(tensor(x))
    wanted, (h_wanted, c_wanted) = module(torch.tensor(x))
    for a, b in ((out, wanted), (h, h_wanted), (c, c_wanted)):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), atol=1e-6)
    again, _ = layer(tensor(x), (h, c))
    np.testing.assert_allclose(
        again.numpy(), module(torch.tensor(x), (h_wanted, c_wanted))[0].detach().numpy(), atol=1e-6
    )


class Plain(NumpyBackend):
    """A separate backend without cells."""

    def fused(self, name: Any) -> Any:
        return None if "_cell" in name else super().fused(name)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("lengths", [None, [4, 1, 3]])
def test_cells_are_their_decomposition(kind: str, lengths: Any) -> None:
    results = []
    start = np.random.default_rng(0).normal(size=(3, 4, 2))
    for place in (NumpyBackend(), Plain()):
        layer = getattr(nn, kind)(2, 3, bidirectional=True, dtype=np.float64, backend=place)
        for number, parameter in enumerate(layer.parameters()):
            values = np.random.default_rng(number).normal(size=parameter.shape)
            parameter.assign(values)
        x = Parameter(start, dtype=np.float64, backend=place)
        out, _ = layer(x, lengths=lengths)
        grads = (
            (out * tensor(cosines(out.shape, float), dtype=float, backend=place)).sum().backward()
        )
        found: list[Tensor] = [out, grads[x], *(grads[p] for p in layer.parameters())]
        results.append([t.numpy() for t in found])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
