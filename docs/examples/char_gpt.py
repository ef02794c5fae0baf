"""A small GPT that learns to write, byte by byte.

    pip install rumus
    python docs/examples/char_gpt.py                        a minute on two cores
    python docs/examples/char_gpt.py my.txt --steps 5000 --run runs/mine
    python docs/examples/char_gpt.py --gpu --layers 4 --size 256 --length 128 --batch 16
    python docs/examples/char_gpt.py --precision float16    half the memory; fast on a GPU only

Without a text it learns the language reference that comes with every Python. With `--run` it saves
itself in that folder and continues from there when it is started again. At the end it writes a few
lines. With 300 steps or more, the program fails unless it gets below 2.6 nats per byte; guessing by
byte frequencies gives 3.1.
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
from rumus.optim import AdamW, ClipNorm, LossScale, cosine, warmup
from rumus.tensor import Generator, Tensor, no_grad, tensor
from rumus.train import ArrayDataset, Checkpoints, DataLoader, Every, Trainer

BYTES = 256
REQUIRED = 2.6  # nats per byte, on held-out text


class GPT(nn.Module):
    """Maps bytes to scores for the next byte at each position."""

    def __init__(self, layers: int, size: int, heads: int, length: int, random: Generator) -> None:
        self.length = length
        self.bytes = nn.Embedding(BYTES, size, generator=random)
        self.positions = nn.Embedding(length, size, generator=random)
        self.blocks = nn.Sequential(
            *(
                nn.TransformerBlock(size, heads, causal=True, dropout=0.05, generator=random)
                for _ in range(layers)
            )
        )
        self.norm = nn.LayerNorm(size)
        self.scores = nn.Linear(size, BYTES, bias=False, generator=random)
        for table in (self.bytes, self.positions):
            nn.initialization.normal(table.weight, generator=random, std=0.1)

    def forward(self, text: Tensor) -> Tensor:
        """Map (batch, n), with n up to `length`, to (batch, n, 256)."""
        if text.shape[1] > self.length:
            raise ValueError(f"{text.shape[1]} bytes are more than the {self.length} positions")
        x = self.bytes(text) + self.positions.weight[: text.shape[1]]
        return self.scores(self.norm(self.blocks(x)))


def windows(text: bytes, length: int) -> NDArray[np.int32]:
    """Cut a text into rows of length + 1 bytes; the last byte is also the next row's first."""
    codes = np.frombuffer(text, np.uint8).astype(np.int32)
    count = (len(codes) - 1) // length
    if count < 20:
        sys.exit(f"a text of {len(codes)} bytes is too short for windows of {length}")
    return np.stack([codes[i * length : (i + 1) * length + 1] for i in range(count)])


def write(model: GPT, count: int, start: str, random: Generator) -> str:
    """Let the model continue from `start`, sampling one byte at a time."""
    codes = list(start.encode())
    backend = model.scores.weight.backend
    model.eval()
    with no_grad():
        for _ in range(count):
            seen = np.array([codes[-model.length :]], np.int32)
            scores = model(tensor(seen, backend=backend))[0, -1].numpy().astype(np.float64)
            shares = np.exp((scores - scores.max()) / 0.8)
            total = np.cumsum(shares / shares.sum())
            codes.append(int(np.searchsorted(total, random.uniform((1,)).item())))
    model.train()
    return bytes(codes).decode(errors="replace")


def arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Train a small GPT on a text.")
    parser.add_argument("text", nargs="?", type=Path, help="default: Python's language reference")
    parser.add_argument("--run", type=Path, help="the folder to save to and continue from")
    parser.add_argument("--steps", type=int, default=400)
    for name, value in (("layers", 2), ("size", 128), ("heads", 4), ("length", 64), ("batch", 8)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--gpu", action="store_true", help="require a GPU; any kind will do")
    parser.add_argument("--precision", choices=("float32", "float16"), default="float32")
    return parser.parse_args()


def main() -> int:
    """Train, write a few lines, and return the exit code."""
    chosen = arguments()
    text = chosen.text.read_bytes() if chosen.text else "\n".join(topics.values()).encode()
    rows = windows(text, chosen.length)
    cut = len(rows) * 19 // 20
    model = GPT(chosen.layers, chosen.size, chosen.heads, chosen.length, Generator(0))
    if chosen.gpu or any(device.kind != "CPU" for device in devices()):
        model.to_gpu()
    if is_half := chosen.precision == "float16":
        model.half()
    count = sum(p.size for p in model.parameters())
    print(f"backend: {model.scores.weight.backend.name}; {count:,} parameters")
    print(f"{cut} windows of {chosen.length} bytes to train on, {len(rows) - cut} to test on")

    lr = warmup(50).then(cosine(3e-3, max(chosen.steps - 50, 1), 3e-4))
    optimizer = AdamW(
        model.parameters(), lr, weight_decay=0.1, decay="matrices", clip=ClipNorm(1.0),
        master_weights=is_half,
    )  # fmt: skip
    scale = LossScale() if is_half else None
    trainer = Trainer(optimizer, state={"model": model}, loss_scale=scale)

    def loss_of(window: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(window[:, :-1]), window[:, 1:])

    def nats(window: Tensor) -> dict[str, Tensor]:
        return {"nats": loss_of(window)}

    start = time.perf_counter()
    result = trainer.fit(
        DataLoader(ArrayDataset(rows[:cut]), chosen.batch, shuffle=True, drop_last=True, seed=0),
        loss_of,
        steps=chosen.steps,
        validate=(DataLoader(ArrayDataset(rows[cut:]), 32), nats),
        validate_every=Every(steps=100),
        checkpoints=Checkpoints(chosen.run) if chosen.run else None,
        save_every=Every(steps=100) if chosen.run else None,
        resume="auto" if chosen.run else False,
    )
    measured = [
        (entry["step"], entry["val_nats"]) for entry in result.history if "val_nats" in entry
    ]
    for step, value in measured:
        print(f"step {step:5.0f}   {value:.3f} nats per byte")
    print(f"trained in {time.perf_counter() - start:.1f} s; it continues from 'The ':\n")
    print(write(model, 300, "The ", Generator(1)))
    if not measured or chosen.steps < 300:
        return 0
    return 0 if measured[-1][1] < REQUIRED else 1


if __name__ == "__main__":
    sys.exit(main())
