"""Weights of transformers models and torchvision's ResNet: tiny random models, the same results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hub_models import TOKENS, compare_logits, gpt2, llama
from ported_programs import program
from safetensors.torch import load_file, save_file

from rumus import nn


@pytest.mark.parametrize("shard", ["1GB", "20KB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("pair", "names"), [(gpt2, nn.names.GPT2), (llama, nn.names.LLAMA)], ids=["gpt2", "llama"]
)
def test_loading_from_transformers(
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


def test_tensors_of_pytorch_themselves() -> None:
    theirs, ours = gpt2()
    assert ours.load_weights(theirs.state_dict(), rename=nn.names.GPT2).fits
    compare_logits(theirs, ours, TOKENS)
    theirs.transformer.h[0].mlp.c_fc.to(torch.bfloat16)
    before = ours.state_dict()["blocks.0.feed_forward.up.bias"]
    with pytest.raises(ValueError, match=r"c_fc.bias cannot become a NumPy array: .*BFloat16"):
        ours.load_weights(theirs.state_dict(), rename=nn.names.GPT2)
    np.testing.assert_array_equal(ours.state_dict()["blocks.0.feed_forward.up.bias"], before)


def test_a_llama_that_shares_its_table(tmp_path: Path) -> None:
    theirs, ours = llama(tie_word_embeddings=True)
    ours.output.weight = ours.tokens.weight
    theirs.save_pretrained(tmp_path)
    assert ours.load_file(tmp_path, rename=nn.names.LLAMA).fits
    compare_logits(theirs, ours, TOKENS)


@pytest.mark.parametrize(
    ("pair", "names"), [(gpt2, nn.names.GPT2), (llama, nn.names.LLAMA)], ids=["gpt2", "llama"]
)
def test_transformers_reads_saved_weights(pair: Any, names: Any, tmp_path: Path) -> None:
    theirs, ours = pair()
    ours.save_file(tmp_path / "model.safetensors", rename=names)
    theirs.config.save_pretrained(tmp_path)
    again, about = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(about.values())
    compare_logits(again.eval(), ours, TOKENS)


def randomized(model: Any) -> Any:
    """A model whose statistics differ from the initial ones, as after training."""
    torch.manual_seed(0)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            low = 0.5 if name.endswith(("running_var", "norm.weight")) else -0.2
            value.uniform_(low, low + 0.5)
        else:
            value.fill_(7)
    return model.eval()


PICTURES = np.random.default_rng(1).normal(size=(2, 3, 33, 40)).astype(np.float32)


# torchvision's own build must match that of torch, which not every index has. So the ResNet of
# the example stands for it, which has its layers, and these names of theirs.
NAMES = (
    r"(conv1|bn1|fc|layer[1-4]\.\d\.(conv[12]|bn[12]|downsample\.[01]))"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)


def resnet(layers: tuple[int, ...], classes: int) -> Any:
    """A model in torchvision's layout."""
    made = program("resnet18_torch").ResNet(layers, classes=classes, small_pictures=False)
    assert all(re.fullmatch(NAMES, name) for name in made.state_dict())
    return made


def test_resnet_of_torchvision(tmp_path: Path) -> None:
    theirs = randomized(resnet((1, 2, 1, 1), 5))
    save_file(theirs.state_dict(), tmp_path / "resnet.safetensors")
    ours = program("resnet18").ResNet((1, 2, 1, 1), classes=5, small_pictures=False).eval()
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
    ours = program("resnet18").ResNet((1, 2, 1, 1), 8, classes=5, small_pictures=False).eval()
    assert ours.load_file(tmp_path, rename=nn.names.RESNET).fits
    compare_logits(theirs, ours, PICTURES)


def test_a_head_of_another_size(tmp_path: Path) -> None:
    theirs = resnet((1, 1, 1, 1), 1000)
    save_file(theirs.state_dict(), tmp_path / "resnet.safetensors")
    ours = program("resnet18").ResNet((1, 1, 1, 1), classes=7, small_pictures=False)
    report = ours.load_file(tmp_path / "resnet.safetensors", strict=False)
    assert {wrong.name for wrong in report.wrong_shapes} == {"fc.weight", "fc.bias"}
    assert not report.missing
    assert not report.unexpected
