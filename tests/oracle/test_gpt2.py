"""docs/examples/gpt2_finetune.py against PyTorch: a small model in GPT-2's layout, by its file."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch

from rumus import nn
from rumus.tensor import Generator, StateMismatchError, tensor

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "gpt2_finetune.py"
LAYERS, SIZE, HEADS, VOCABULARY, POSITIONS = 2, 128, 2, 61, 16
F = torch.nn.functional


@pytest.fixture(scope="module")
def gpt2() -> Any:
    spec = importlib.util.spec_from_file_location("gpt2_finetune", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(gpt2: Any) -> Any:
    made = gpt2.GPT2(LAYERS, SIZE, HEADS, VOCABULARY, POSITIONS, Generator(0))
    for i, parameter in enumerate(made.parameters()):
        nn.initialization.normal(parameter, generator=Generator(1, i), std=0.1)
    return made


def reference(w: dict[str, Any], tokens: Any) -> Any:
    """GPT-2 according to its paper and its files."""
    w = {name.removeprefix("transformer."): value for name, value in w.items()}
    x = w["wte.weight"][tokens] + w["wpe.weight"][: tokens.shape[1]]

    def norm(name: str, x: Any) -> Any:
        return F.layer_norm(x, (SIZE,), w[f"{name}.weight"], w[f"{name}.bias"])

    def product(name: str, x: Any) -> Any:
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    for i in range(LAYERS):
        q, k, v = product(f"h.{i}.attn.c_attn", norm(f"h.{i}.ln_1", x)).split(SIZE, -1)
        split = [t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v)]
        mixed = F.scaled_dot_product_attention(*split, is_causal=True).transpose(1, 2).flatten(2)
        x = x + product(f"h.{i}.attn.c_proj", mixed)
        hidden = F.gelu(product(f"h.{i}.mlp.c_fc", norm(f"h.{i}.ln_2", x)), approximate="tanh")
        x = x + product(f"h.{i}.mlp.c_proj", hidden)
    return norm("ln_f", x) @ w["wte.weight"].T


def test_logits_and_gradients(gpt2: Any, model: Any, tmp_path: Path) -> None:
    model.save_file(tmp_path / "model.safetensors", rename=nn.names.GPT2)
    weights = load_torch(tmp_path / "model.safetensors")
    for weight in weights.values():
        weight.requires_grad = True
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (3, 13)).astype(np.int32)
    wanted = reference(weights, torch.tensor(tokens[:, :-1].astype(np.int64)))
    found = model(tensor(tokens[:, :-1]))
    np.testing.assert_allclose(found.numpy(), wanted.detach().numpy(), rtol=1e-4, atol=1e-4)

    theirs = F.cross_entropy(
        wanted.flatten(0, 1), torch.tensor(tokens[:, 1:].astype(np.int64)).flatten()
    )
    theirs.backward()
    grads = nn.cross_entropy_loss(found, tokens[:, 1:]).backward()
    own = {name: grads[p].numpy() for name, p in model.named_parameters()}
    public = nn.names.GPT2.foreign(own)
    assert public.keys() == weights.keys()
    for name, gradient in public.items():
        np.testing.assert_allclose(gradient, weights[name].grad.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_the_file_comes_back(gpt2: Any, model: Any, prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model.save_file(path, rename=nn.names.GPT2)
    found = load_file(path)
    named = {prefix + name.removeprefix("transformer."): array for name, array in found.items()}
    named[f"{prefix}h.0.attn.bias"] = np.tri(POSITIONS, dtype=np.float32)  # a mask, in some files
    save_file(named, path)
    again = gpt2.load(path, Generator(5))
    state = again.state_dict()
    assert {n: a.tobytes() for n, a in state.items()} == {
        n: a.tobytes() for n, a in model.state_dict().items()
    }


def test_misfits_are_reported(gpt2: Any, model: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model.save_file(path, rename=nn.names.GPT2)
    tensors = load_file(path)
    lacking = {n: a for n, a in tensors.items() if n != "transformer.h.1.mlp.c_fc.bias"}
    save_file(lacking, path)
    with pytest.raises(StateMismatchError, match=r"blocks.1.feed_forward.up.bias: missing"):
        gpt2.load(path, Generator(0))
    save_file({**tensors, "transformer.ln_f.weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(StateMismatchError, match=r"norm.weight: shape \(3,\) in the file"):
        gpt2.load(path, Generator(0))
    save_file({"weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(ValueError, match=r"has no wte.weight"):
        gpt2.load(path, Generator(0))
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        gpt2.load(path, Generator(0))
    with pytest.raises(ValueError, match="17 tokens are more than the 16 positions"):
        model(tensor(np.zeros((1, 17), np.int32)))


def test_every_byte_has_its_token(gpt2: Any) -> None:
    tokens = gpt2.byte_tokens()
    assert sorted(tokens) == list(range(256))
    assert [int(tokens[ord(c)]) for c in "!A~ "] == [0, 32, 93, 220]  # as in GPT-2's vocabulary
