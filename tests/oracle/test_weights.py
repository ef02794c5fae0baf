"""Weights from transformers and torchvision: tiny random models, their files, the same results."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
import transformers
from safetensors.torch import load_file, save_file

from rumus import nn
from rumus.tensor import Generator, Tensor, linear, no_grad, tensor

PORTED = Path(__file__).parents[2] / "docs" / "examples" / "ported"
TOKENS = np.random.default_rng(0).integers(0, 61, (2, 12))


class GPT2(nn.Module):
    def __init__(self, layers: int, size: int, heads: int) -> None:
        random = Generator(0)
        self.tokens = nn.Embedding(61, size, generator=random)
        self.positions = nn.Embedding(16, size, generator=random)
        self.blocks = nn.ModuleList(
            nn.TransformerBlock(size, heads, causal=True, activation="gelu_tanh", generator=random)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(size)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return linear(self.norm(x), self.tokens.weight)


class Llama(nn.Module):
    def __init__(self, layers: int, size: int, heads: int, kv_heads: int, hidden: int) -> None:
        random = Generator(0)
        rotary = nn.RotaryEmbedding(size // heads)
        self.tokens = nn.Embedding(61, size, generator=random)
        self.blocks = nn.ModuleList(
            nn.TransformerBlock(
                size, heads, kv_heads=kv_heads, hidden=hidden, causal=True, rotary=rotary,
                norm="rms", activation="swiglu", bias=False, eps=1e-6, generator=random,
            )
            for _ in range(layers)
        )  # fmt: skip
        self.norm = nn.RMSNorm(size, eps=1e-6)
        self.output = nn.Linear(size, 61, bias=False, generator=random)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        for block in self.blocks:
            x = block(x)
        return self.output(self.norm(x))


def gpt2() -> tuple[Any, GPT2]:
    config = transformers.GPT2Config(
        n_layer=2, n_embd=32, n_head=4, vocab_size=61, n_positions=16, initializer_range=0.3
    )
    return transformers.GPT2LMHeadModel(config).eval(), GPT2(2, 32, 4)


def llama(**other: Any) -> tuple[Any, Llama]:
    config = transformers.LlamaConfig(
        num_hidden_layers=2, hidden_size=32, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, vocab_size=61, max_position_embeddings=16, initializer_range=0.3,
        **other,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval(), Llama(2, 32, 4, 2, 48)


def example(name: str) -> Any:
    """A program of docs/examples/ported."""
    sys.path.insert(0, str(PORTED))
    try:
        spec = importlib.util.spec_from_file_location(name, PORTED / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(PORTED))
    return module


def compare_logits(theirs: Any, ours: nn.Module, given: Any, tolerance: float = 1e-5) -> None:
    """The same logits, measured against the largest."""
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(given))
    wanted = getattr(wanted, "logits", wanted).float().numpy()
    dtype = np.int32 if given.dtype.kind == "i" else np.float32
    with no_grad():
        found = ours(tensor(given.astype(dtype))).numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("shard", ["1GB", "20KB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("pair", "names"), [(gpt2, nn.names.GPT2), (llama, nn.names.LLAMA)], ids=["gpt2", "llama"]
)
def test_what_transformers_saves(
    pair: Any, names: Any, dtype: Any, shard: str, tmp_path: Path
) -> None:
    """Whole and in shards, in each dtype of model hubs."""
    theirs, ours = pair()
    theirs.to(dtype).save_pretrained(tmp_path, max_shard_size=shard)
    count = len(list(tmp_path.glob("*.safetensors")))
    assert (count > 1) is (shard == "20KB")
    assert ours.load_file(tmp_path, rename=names).fits
    again = type(theirs).from_pretrained(tmp_path, dtype=torch.float32).eval()
    compare_logits(again, ours, TOKENS)


def test_weights_of_transformers_in_memory() -> None:
    theirs, ours = gpt2()
    arrays = {name: value.numpy() for name, value in theirs.state_dict().items()}
    assert {"lm_head.weight", "transformer.wte.weight"} <= arrays.keys()  # both names of the tie
    assert ours.load_weights(arrays, rename=nn.names.GPT2).fits
    compare_logits(theirs, ours, TOKENS)
    arrays["lm_head.weight"] = arrays["lm_head.weight"] + 1
    with pytest.raises(ValueError, match=r"two tensors for it, transformer\.wte.weight and lm_"):
        ours.load_weights(arrays, rename=nn.names.GPT2)


def test_a_llama_that_shares_its_table(tmp_path: Path) -> None:
    theirs, ours = llama(tie_word_embeddings=True)
    ours.output.weight = ours.tokens.weight
    theirs.save_pretrained(tmp_path)
    assert ours.load_file(tmp_path, rename=nn.names.LLAMA).fits
    compare_logits(theirs, ours, TOKENS)


@pytest.mark.parametrize(
    ("pair", "names"), [(gpt2, nn.names.GPT2), (llama, nn.names.LLAMA)], ids=["gpt2", "llama"]
)
def test_transformers_reads_what_is_saved(pair: Any, names: Any, tmp_path: Path) -> None:
    theirs, ours = pair()
    ours.save_file(tmp_path / "model.safetensors", rename=names)
    found = load_file(tmp_path / "model.safetensors")
    body = theirs.transformer if pair is gpt2 else theirs
    missing, unexpected = body.load_state_dict(found, strict=False)
    assert not missing
    assert not unexpected
    compare_logits(theirs, ours, TOKENS)


def randomized(model: Any) -> Any:
    """A model whose statistics are not those of the start, as after a training."""
    torch.manual_seed(0)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            low = 0.5 if name.endswith(("running_var", "norm.weight")) else -0.2
            value.uniform_(low, low + 0.5)
        else:
            value.fill_(7)
    return model.eval()


PICTURES = np.random.default_rng(1).normal(size=(2, 3, 33, 40)).astype(np.float32)


def test_resnet_of_torchvision(tmp_path: Path) -> None:
    block = torchvision.models.resnet.BasicBlock
    theirs = randomized(torchvision.models.ResNet(block, [1, 2, 1, 1], num_classes=5))
    save_file(theirs.state_dict(), tmp_path / "resnet.safetensors")
    ours = example("resnet18").ResNet((1, 2, 1, 1), classes=5, small_pictures=False).eval()
    report = ours.load_file(tmp_path / "resnet.safetensors")
    assert report.fits
    compare_logits(theirs, ours, PICTURES)
    ours.save_file(tmp_path / "back.safetensors")
    theirs.load_state_dict(load_file(tmp_path / "back.safetensors"))


def test_resnet_of_transformers(tmp_path: Path) -> None:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 32, 64], depths=[1, 2, 1, 1], layer_type="basic",
        num_labels=5,
    )  # fmt: skip
    theirs = randomized(transformers.ResNetForImageClassification(config))
    theirs.save_pretrained(tmp_path)
    ours = example("resnet18").ResNet((1, 2, 1, 1), 8, classes=5, small_pictures=False).eval()
    assert ours.load_file(tmp_path, rename=nn.names.RESNET).fits
    compare_logits(theirs, ours, PICTURES)


def test_a_head_of_another_size(tmp_path: Path) -> None:
    block = torchvision.models.resnet.BasicBlock
    theirs = torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=1000)
    save_file(theirs.state_dict(), tmp_path / "resnet.safetensors")
    ours = example("resnet18").ResNet((1, 1, 1, 1), classes=7, small_pictures=False)
    report = ours.load_file(tmp_path / "resnet.safetensors", strict=False)
    assert {wrong.name for wrong in report.wrong_shapes} == {"fc.weight", "fc.bias"}
    assert not report.missing
    assert not report.unexpected
