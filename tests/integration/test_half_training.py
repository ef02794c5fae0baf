"""A small float16 GPT with master weights and a loss scale learns what it learns in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus import nn
from rumus.gpu import GpuBackend, default_backend
from rumus.gpu.device.stored import stored_types
from rumus.optim import EMA, AdamW, ClipNorm, LossScale, ZClip, cosine, warmup
from rumus.tensor import (
    Backend,
    Generator,
    NumpyBackend,
    Parameter,
    Tensor,
    float16,
    float32,
    layer_norm,
    rms_norm,
    tensor,
)
from rumus.train import Trainer
from rumus.train.base.scaling import scaling_of

STEPS = 30


class Language(nn.Module):
    """Predicts the next character."""

    def __init__(self, **options: Any) -> None:
        generator = Generator(0)
        self.embedding = nn.Embedding(11, 16, generator=generator)
        self.positions = nn.Embedding(13, 16, generator=generator)
        self.blocks = nn.Sequential(
            *(nn.TransformerBlock(16, 4, causal=True, generator=generator, **options)
              for _ in range(2))
        )  # fmt: skip
        self.norm = nn.LayerNorm(16)
        self.output = nn.Linear(16, 11, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x) + self.positions.weight[: x.shape[1]]
        return self.output(self.norm(self.blocks(x)))


def train(
    backend: Backend, *, is_half: bool, capture: bool = True, **options: Any
) -> tuple[NDArray[np.float32], list[bytes]]:
    """The loss of each step, and the final parameters."""
    model = Language(**options).to(backend)
    if is_half:
        model.half()
    optimizer = AdamW(model.parameters(), 0.01, master_weights=is_half)
    scale = LossScale() if is_half else None
    trainer = Trainer(optimizer, loss_scale=scale, capture=capture)
    random = np.random.default_rng(1)

    def loss_fn(inputs: Tensor, targets: Tensor) -> Tensor:
        scores = model(inputs)
        assert scores.dtype == (float16 if is_half else float32)
        return nn.cross_entropy_loss(scores, targets)

    losses = []
    for _ in range(STEPS):
        start = random.integers(0, 11, (5, 1))
        text = ((start + np.arange(14) * 3) % 11).astype(np.int32)
        losses.append(trainer.train_step(loss_fn, text[:, :-1].copy(), text[:, 1:].copy()))
    assert optimizer.skipped == 0
    assert trainer.counts.captured == (STEPS - 2 if capture else 0)
    found = np.array([float(loss) for loss in losses], np.float32)
    return found, [p.numpy().tobytes() for p in model.parameters()]


LLAMA = {"kv_heads": 2, "norm": "rms", "activation": "swiglu", "rotary": nn.RotaryEmbedding(4)}


@pytest.mark.parametrize("options", [{}, LLAMA, {"dropout": 0.1}], ids=["gpt", "llama", "dropout"])
def test_the_losses_are_those_of_float32(options: dict[str, Any]) -> None:
    """To within 1/500 of each, while they fall to a tenth; the parameters are rounded."""
    wanted, _ = train(NumpyBackend(), is_half=False, **options)
    assert wanted[-1] < 0.1 * wanted[0]
    for backend in (NumpyBackend(), default_backend()):
        found, parameters = train(backend, is_half=True, **options)
        np.testing.assert_allclose(found, wanted, rtol=2e-3)
        assert found.tobytes() != wanted.tobytes()
        values = np.frombuffer(b"".join(parameters), np.float16)
        assert values.size == sum(p.size for p in Language(**options).parameters())
        assert np.isfinite(values).all()


def test_the_kernels_are_those_of_float32() -> None:
    """No array is copied just to change its width."""
    gpu = default_backend()
    kernels = []
    for dtype in (float32, float16):
        model = Language(**LLAMA).to(gpu).to_dtype(dtype)
        text = tensor(np.arange(26).reshape(2, 13) % 11, backend=gpu)
        with gpu.profile() as profile:
            nn.cross_entropy_loss(model(text), text).backward()
        kernels.append(sorted(event.kernel for event in profile.events))
    assert kernels[0] == kernels[1]
    assert "norm_gradient" in kernels[0]


@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
@pytest.mark.parametrize("shape", [(3, 10), (300, 64)])
@pytest.mark.parametrize("has_half", [True, False])
def test_norms_of_float16_are_those_of_float32_rounded(
    has_half: bool, shape: tuple[int, int], norm: Callable[..., Tensor]
) -> None:
    gpu = GpuBackend()
    gpu._stored = stored_types(has_half)
    count = 3 if norm is layer_norm else 2
    draw = np.random.default_rng(0).standard_normal
    values = [draw(size).astype(float16) for size in (shape, shape[1], shape[1])][:count]
    weights = draw(shape).astype(float16)
    results = []
    for dtype in (float16, float32):
        inputs = [Parameter(value, dtype=dtype, backend=gpu) for value in values]
        y = norm(*inputs)
        grads = (y * tensor(weights, dtype=dtype, backend=gpu)).sum().backward()
        results.append([y.numpy(), *(grads[x].numpy() for x in inputs)])
    for half, wide in zip(*results, strict=True):
        assert half.dtype == float16
        np.testing.assert_allclose(half, wide.astype(float16), rtol=2**-10, atol=2**-24)


def test_repeated_steps_are_those_of_the_code() -> None:
    gpu = default_backend()
    repeated, plain = (train(gpu, is_half=True, capture=capture) for capture in (True, False))
    assert repeated[0].tobytes() == plain[0].tobytes()
    assert repeated[1] == plain[1]


class Layered(nn.Module):
    """A model with running statistics and random masks."""

    def __init__(self) -> None:
        generator = Generator(0)
        self.first = nn.Linear(4, 8, generator=generator)
        self.norm, self.dropout = nn.BatchNorm1d(8), nn.Dropout(0.25, generator=generator)
        self.last = nn.Linear(8, 1, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.dropout(self.norm(self.first(x)).tanh()))


def averaged() -> dict[str, Any]:
    return {"lr": warmup(3).then(cosine(0.02, 12)), "average": EMA(0.9)}


def packed() -> dict[str, Any]:
    return {"lr": 0.02, "clip": ClipNorm(0.5), "state_dtype": "8bit"}


def watched() -> dict[str, Any]:
    return {"lr": 0.02, "clip": ZClip(warmup_steps=3), "cautious": True}


@pytest.mark.parametrize("is_half", [True, False])
@pytest.mark.parametrize("options", [averaged, packed, watched])
def test_a_skipped_batch_changes_the_scale_alone(
    options: Callable[[], dict[str, Any]], is_half: bool, backend: Backend
) -> None:
    """A run without it, whose scale is set to the same, has the same bits, also in float16."""
    bad, found = (0, 4, 5, 13), []
    data = np.random.default_rng(2).normal(size=(20, 6, 4))
    for leaves_out in (False, True):
        model = Layered().to(backend)
        kept = (model.half() if is_half else model).parameters()
        optimizer = AdamW(kept, master_weights=is_half, **options())
        policy = LossScale(initial=2.0**10, every=4)
        trainer = Trainer(optimizer, state={"model": model}, loss_scale=policy)

        def loss(x: Tensor, model: Layered = model) -> Tensor:
            difference = model(x).astype(float32) - x.astype(float32).sum(1, keepdims=True)
            return (difference**2).mean()

        scaling, losses = scaling_of(optimizer), []
        assert scaling is not None
        for step, rows in enumerate(data):
            x = rows.astype(np.float16 if is_half else np.float32)
            if step not in bad:
                losses.append(trainer.train_step(loss, x).item())
            elif leaves_out:
                optimizer.poll(wait=True)
                scale = scaling.state_dict()["scale"] / 2
                scaling.load_state_dict({"scale": scale, "good": 0})
            else:
                x[0, 0] = np.inf
                trainer.train_step(loss, x)
        assert optimizer.skipped == (0 if leaves_out else len(bad))
        state = {**optimizer.state_dict(), "skipped": 0, "buffers": model.state_dict()}
        numbers = [*losses, trainer.epoch_avg_loss(), scaling.scale]
        found.append((bits_of(state), model.dropout.generator.state(), numbers))
    assert found[0] == found[1]


def bits_of(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: bits_of(value) for name, value in state.items()}
    return state.tobytes() if isinstance(state, np.ndarray) else state
