"""Adapters to and from the peft package: the same logits, and files in both directions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from hub_models import TOKENS, compare_logits, gpt2, llama

from rumus import nn
from rumus.tensor import Generator

PAIRS: dict[str, tuple[Any, Any]] = {
    "gpt2": (gpt2, nn.names.GPT2),
    "llama": (llama, nn.names.LLAMA),
}


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """Suppress peft's warnings about GPT-2's transposed matrices."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def pair(kind: str) -> tuple[Any, Any, Any]:
    """A transformers model, its rumus counterpart, and the name table."""
    make, names = PAIRS[kind]
    theirs, ours = make()
    arrays = {name: value.numpy() for name, value in theirs.state_dict().items()}
    ours.load_weights(arrays, rename=names)
    return theirs, ours, names


def randomize(model: Any) -> None:
    """Give peft's adapters nonzero values."""
    torch.manual_seed(0)
    for name, value in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(value, std=0.2)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gpt2", {"target_modules": ["c_attn", "c_fc"], "r": 4, "lora_alpha": 8}),
        ("gpt2", {"target_modules": ["c_proj"], "r": 2, "lora_alpha": 3, "use_rslora": True}),
        ("llama", {"target_modules": ["q_proj", "v_proj"], "r": 4, "lora_alpha": 4}),
        ("llama", {"target_modules": "all-linear", "r": 3, "lora_alpha": 5}),
        (
            "llama",
            {
                "target_modules": ["q_proj", "k_proj", "up_proj"], "r": 3, "lora_alpha": 5,
                "rank_pattern": {"k_proj": 2}, "alpha_pattern": {"k_proj": 7},
            },
        ),
    ],
)  # fmt: skip
def test_loading_from_peft(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    theirs, ours, names = pair(kind)
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(**options)).eval()
    randomize(theirs)
    theirs.save_pretrained(tmp_path)
    adapters = nn.load_lora(ours, tmp_path, rename=names)
    ours.eval()
    compare_logits(theirs, ours, TOKENS)
    adapters.merge()
    compare_logits(theirs, ours, TOKENS)


@pytest.mark.parametrize(
    ("kind", "targets"), [("gpt2", None), ("llama", None), ("llama", ["query_key_value", "up"])]
)
def test_peft_reads_saved_adapters(kind: str, targets: Any, tmp_path: Path) -> None:
    theirs, ours, names = pair(kind)
    if kind == "llama":  # whose head is a Linear too
        targets = targets or ["blocks.*"]
    adapters = nn.lora(ours, 3, targets=targets, alpha=4.0, generator=Generator(1))
    for parameter in adapters.parameters():
        nn.initialization.normal(parameter, generator=Generator(2), std=0.2)
    nn.save_lora(adapters, tmp_path, rename=names)
    loaded = peft.PeftModel.from_pretrained(theirs, tmp_path).eval()
    before = theirs.state_dict()
    assert sum("lora_A" in name for name in before) >= len(adapters.layers)
    compare_logits(loaded, ours, TOKENS)


def test_there_and_back(tmp_path: Path) -> None:
    """Saved by rumus, saved again by peft, and read by rumus: the same adapters."""
    theirs, ours, names = pair("gpt2")
    adapters = nn.lora(ours, 3, targets="query_key_value")
    for parameter in adapters.parameters():
        nn.initialization.normal(parameter, generator=Generator(2), std=0.2)
    nn.save_lora(adapters, tmp_path / "one", rename=names)
    peft.PeftModel.from_pretrained(theirs, tmp_path / "one").save_pretrained(tmp_path / "two")
    _, again, _ = pair("gpt2")
    found = nn.load_lora(again, tmp_path / "two", rename=names)
    for mine, other in zip(adapters.parameters(), found.parameters(), strict=True):
        np.testing.assert_array_equal(mine.numpy(), other.numpy())
