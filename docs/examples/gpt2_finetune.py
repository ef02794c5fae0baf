"""GPT-2, fine-tuned on a text from a weights file, or trained from random weights.

    pip install rumus
    python docs/examples/gpt2_finetune.py my.txt --weights gpt2.safetensors --save my.safetensors
    python docs/examples/gpt2_finetune.py --weights gpt2.safetensors --lora 8 --save adapters
    python docs/examples/gpt2_finetune.py --layers 2 --size 64 --heads 2     random and small

The file uses the public names of GPT-2's tensors (wte.weight, h.0.attn.c_attn.weight, ...), with or
without the prefix `transformer.`; layers, size and heads follow from the file (a head has 64
elements). The saved file uses the same names. With `--lora RANK` the model is frozen in float16 and
adapters of this rank are trained; the result is then saved as a folder that the peft package reads.
The text is read byte by byte, as the tokens of single bytes. Training the 124 million parameters of
the smallest GPT-2 takes 2 GB. Radford et al., "Language models are unsupervised multitask
learners", 2019.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from numpy.typing import NDArray

from rumus import nn
from rumus.gpu import devices
from rumus.optim import AdamW, ClipNorm, cosine, warmup
from rumus.tensor import Generator, Tensor, linear
from rumus.train import ArrayDataset, DataLoader, Trainer

VOCABULARY, POSITIONS, HEAD = 50_257, 1024, 64


class GPT2(nn.Module):
    """Maps tokens to scores for the next ones; the output layer shares the token embedding."""

    def __init__(
        self, layers: int, size: int, heads: int, vocabulary: int, positions: int, random: Generator
    ) -> None:
        self.tokens = nn.Embedding(vocabulary, size, generator=random)
        self.positions = nn.Embedding(positions, size, generator=random)
        self.blocks = nn.ModuleList(
            nn.TransformerBlock(size, heads, causal=True, activation="gelu_tanh", generator=random)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(size)
        for table, std in ((self.tokens, 0.02), (self.positions, 0.01)):
            nn.initialization.normal(table.weight, generator=random, std=std)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (batch, length) to (batch, length, vocabulary). ValueError for too many tokens."""
        length = tokens.shape[1]
        if length > self.positions.count:
            raise ValueError(f"{length} tokens are more than the {self.positions.count} positions")
        x = self.tokens(tokens) + self.positions.weight[:length]
        for block in self.blocks:
            x = block(x)
        return linear(self.norm(x), self.tokens.weight)


def load(path: Path, random: Generator) -> GPT2:
    """Return the model of a file. ValueError, or a subclass that lists every difference."""
    weights = nn.read_weights(path)
    shapes = {name.removeprefix("transformer."): s for name, s in weights.shapes.items()}
    if "wte.weight" not in shapes:
        raise ValueError(f"{path} has no wte.weight: it is not GPT-2's; it has {[*weights][:4]}")
    layers = 1 + max((int(n.split(".")[1]) for n in shapes if n.startswith("h.")), default=-1)
    vocabulary, size = shapes["wte.weight"]
    positions, _ = shapes.get("wpe.weight", (POSITIONS, size))
    model = GPT2(layers, size, max(size // HEAD, 1), vocabulary, positions, random)
    model.load_weights(weights, rename=nn.names.GPT2)
    return model


# The text


def byte_tokens() -> NDArray[np.int32]:
    """Return the token of each byte: printable bytes come first, then the others."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order = shown + [b for b in range(256) if b not in set(shown)]
    tokens = np.empty(256, np.int32)
    tokens[order] = np.arange(256)
    return tokens


def windows(text: bytes, length: int) -> NDArray[np.int32]:
    """Cut a text into rows of length + 1 tokens; the last token is also the next row's first."""
    tokens = byte_tokens()[np.frombuffer(text, np.uint8)]
    count = (len(tokens) - 1) // length
    if count < 1:
        sys.exit(f"a text of {len(tokens)} bytes is too short for windows of {length}")
    return np.stack([tokens[i * length : (i + 1) * length + 1] for i in range(count)])


def arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Fine-tune GPT-2 on a text.")
    parser.add_argument("text", nargs="?", type=Path, help="default: Python's language reference")
    parser.add_argument("--weights", type=Path, help="a safetensors file of GPT-2")
    parser.add_argument("--save", type=Path, help="where to write the tuned weights")
    parser.add_argument("--lora", type=int, metavar="RANK", help="train adapters of this rank")
    parser.add_argument("--gpu", action="store_true", help="require a GPU; any kind will do")
    sizes = {"layers": 12, "size": 768, "heads": 12, "vocabulary": VOCABULARY}
    for name, value in (sizes | {"positions": POSITIONS}).items():
        parser.add_argument(f"--{name}", type=int, default=value, help="without --weights")
    for name, value in (("length", 64), ("batch", 2), ("steps", 10)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--lr", type=float, default=1e-4)
    return parser.parse_args()


def main() -> int:
    """Train, save, and return the exit code."""
    chosen, random = arguments(), Generator(0)
    if chosen.weights:
        model = load(chosen.weights, random)
    else:
        sizes = (chosen.layers, chosen.size, chosen.heads, chosen.vocabulary, chosen.positions)
        model = GPT2(*sizes, random)
    if chosen.gpu or any(device.kind != "CPU" for device in devices()):
        model.to_gpu()
    count = sum(p.size for p in model.parameters())
    print(f"backend: {model.tokens.weight.backend.name}; {count:,} parameters")
    adapters = nn.lora(model, chosen.lora, storage="float16") if chosen.lora else None

    text = chosen.text.read_bytes() if chosen.text else "\n".join(topics.values()).encode()
    rows = windows(text, chosen.length)
    lr = warmup(5).then(cosine(chosen.lr, max(chosen.steps - 5, 1)))
    optimizer = AdamW(
        model.parameters(), lr, weight_decay=0.01, decay="matrices", clip=ClipNorm(1.0)
    )
    state = optimizer.memory().state
    print(f"the optimizer keeps {state:,} bytes, {state / (8 * count):.2%} of those for all")
    trainer = Trainer(optimizer)

    def loss_of(window: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(window[:, :-1]), window[:, 1:])

    start = time.perf_counter()
    loader = DataLoader(ArrayDataset(rows), min(chosen.batch, len(rows)), shuffle=True, seed=0)
    steps = 0
    while steps < chosen.steps:
        for (window,) in loader:
            loss = trainer.train_step(loss_of, window)
            steps += 1
            if steps in (1, chosen.steps) or steps % 10 == 0:
                print(f"step {steps:5}   loss {loss.item():.4f}", flush=True)
            if steps == chosen.steps:
                break
    seconds = time.perf_counter() - start
    print(f"{steps * chosen.batch * chosen.length / seconds:,.0f} tokens per second")
    if chosen.save:
        if adapters is None:
            model.save_file(chosen.save, rename=nn.names.GPT2)
        else:
            nn.save_lora(adapters, chosen.save, rename=nn.names.GPT2)
        print(f"saved to {chosen.save}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
