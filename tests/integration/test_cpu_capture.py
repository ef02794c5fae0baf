"""Steps that the CPU repeats without their code match it bit for bit: the whole public API."""

from __future__ import annotations

import gc
import importlib.util
import inspect
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from optimizer_table import ROWS

from rumus import nn
from rumus.optim import EMA, LBFGS, SAM, SGD, AdamW, ClipNorm, LossScale, NonFinite
from rumus.tensor import (
    CaptureError,
    Generator,
    NonFiniteGradientError,
    NumbaBackend,
    NumpyBackend,
    Parameter,
    Tensor,
    concat,
    no_grad,
    tensor,
    where,
)
from rumus.train import Trainer

Make = Callable[[Generator], nn.Module]
Array = NDArray[Any]
STEPS: Final = 9  # one plain, one recorded, four repeated, one compared, two repeated
BACKENDS: Final = [NumpyBackend, NumbaBackend]


@pytest.fixture(params=BACKENDS, ids=lambda kind: kind.name)
def host(request: pytest.FixtureRequest) -> NumpyBackend:
    """Each backend of the CPU."""
    return request.param()  # type: ignore[no-any-return]


def sequences(g: Generator) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Layers that take (batch, places, channels), and pictures."""
    return {
        "MultiHeadAttention": (nn.MultiHeadAttention(8, 2, causal=True, generator=g), (3, 5, 8)),
        "TransformerBlock": (
            nn.TransformerBlock(8, 2, causal=True, dropout=0.2, generator=g), (3, 5, 8)
        ),
        "whole": (nn.TransformerBlock(8, 2, causal=True, generator=g), (3, 5, 8)),
        "rotary": (
            nn.MultiHeadAttention(8, 2, kv_heads=1, rotary=nn.RotaryEmbedding(4), generator=g),
            (3, 5, 8),
        ),
        "RotaryEmbedding": (nn.RotaryEmbedding(8), (3, 5, 8)),
        "RNN": (nn.RNN(4, 6, generator=g), (3, 5, 4)),
        "GRU": (nn.GRU(4, 6, bidirectional=True, generator=g), (3, 5, 4)),
        "LSTM": (nn.LSTM(4, 6, layers=2, dropout=0.2, generator=g), (3, 5, 4)),
        "Conv1d": (nn.Conv1d(4, 6, 3, padding=1, generator=g), (3, 4, 9)),
        "Conv2d": (nn.Conv2d(4, 6, 3, padding=1, generator=g), (3, 4, 6, 6)),
        "strided": (nn.Conv2d(4, 6, 3, stride=2, groups=2, generator=g), (3, 4, 9, 9)),
        "ConvTranspose2d": (nn.ConvTranspose2d(4, 6, 3, stride=2, generator=g), (3, 4, 5, 5)),
        "ConvTranspose1d": (nn.ConvTranspose1d(4, 6, 3, stride=2, generator=g), (3, 4, 5)),
        "AdaptiveAvgPool1d": (nn.AdaptiveAvgPool1d(2), (3, 4, 7)),
        "AdaptiveMaxPool1d": (nn.AdaptiveMaxPool1d(2), (3, 4, 7)),
        "AdaptiveMaxPool2d": (nn.AdaptiveMaxPool2d(2), (3, 4, 6, 7)),
        "AvgPool1d": (nn.AvgPool1d(2), (3, 4, 6)),
        "MaxPool1d": (nn.MaxPool1d(2), (3, 4, 6)),
        "DropPath": (nn.DropPath(0.3, generator=g), (6, 4, 6)),
        "Dropout2d": (nn.Dropout2d(0.3, generator=g), (3, 4, 6, 6)),
        "GlobalAvgPool": (nn.GlobalAvgPool(), (3, 4, 6, 6)),
        "GlobalMaxPool": (nn.GlobalMaxPool(), (3, 4, 6, 6)),
        "InstanceNorm1d": (nn.InstanceNorm1d(4), (3, 4, 6)),
        "InstanceNorm2d": (nn.InstanceNorm2d(4, affine=True), (3, 4, 6, 6)),
        "PixelShuffle": (nn.PixelShuffle(2), (3, 4, 6, 6)),
        "PixelUnshuffle": (nn.PixelUnshuffle(2), (3, 4, 6, 6)),
        "Upsample": (nn.Upsample(scale_factor=2), (3, 4, 6, 6)),
        "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), (3, 4, 6, 6)),
        "MaxPool2d": (nn.MaxPool2d(2), (3, 4, 6, 6)),
        "AvgPool2d": (nn.AvgPool2d(2), (3, 4, 6, 6)),
        "AdaptiveAvgPool2d": (nn.AdaptiveAvgPool2d(2), (3, 4, 6, 6)),
        "BatchNorm2d": (nn.BatchNorm2d(4), (3, 4, 6, 6)),
        "GroupNorm": (nn.GroupNorm(2, 4), (3, 4, 6, 6)),
        "Flatten": (nn.Flatten(), (3, 4, 6, 6)),
    }  # fmt: skip


def rows(g: Generator) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Layers that take (batch, channels)."""
    base = nn.Linear(8, 6, generator=g)
    found: dict[str, nn.Module] = {
        "BatchNorm1d": nn.BatchNorm1d(8),
        "Dropout": nn.Dropout(0.3, generator=g),
        "FeedForward": nn.FeedForward(8, 16, generator=g),
        "SwiGLU": nn.SwiGLU(8, 16, generator=g),
        "LayerNorm": nn.LayerNorm(8),
        "RMSNorm": nn.RMSNorm(8),
        "Linear": base,
        "LoraLinear": nn.LoraLinear(nn.Linear(8, 6, generator=g), 2, dropout=0.2, generator=g),
        "FrozenLinear": nn.FrozenLinear(nn.Linear(8, 6, generator=g)),
        "PReLU": nn.PReLU(8),
        "Sequential": nn.Sequential(nn.Linear(8, 4, generator=g), nn.Tanh()),
    }
    plain = [
        nn.CELU, nn.ELU, nn.GELU, nn.GLU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Identity,
        nn.LeakyReLU, nn.LogSigmoid, nn.LogSoftmax, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU,
        nn.Sigmoid, nn.Softmax, nn.Softplus, nn.Softsign, nn.Tanh,
    ]  # fmt: skip
    found |= {kind.__name__: kind() for kind in plain}
    return {name: (module, (6, 8)) for name, module in found.items()}


OTHERWISE: Final = {"Embedding"}  # tested below, with their requirements
NO_LAYERS: Final = {"Activation", "Module", "ModuleDict", "ModuleList"}
LAYERS: Final = [*sequences(Generator(0)), *rows(Generator(0))]


def test_every_layer_is_in_the_table() -> None:
    classes = [getattr(nn, name) for name in nn.__all__]
    modules = {c.__name__ for c in classes if inspect.isclass(c) and issubclass(c, nn.Module)}
    assert modules == (modules & set(LAYERS)) | OTHERWISE | NO_LAYERS


def bits(optimizer: Any, trainer: Trainer[Any], losses: list[Tensor]) -> list[object]:
    """Everything that a training leaves behind."""
    saved = optimizer.state_dict()
    state = [
        (name, key, value.tobytes())
        for name, entry in saved["parameters"].items()
        for key, value in entry["state"].items()
    ]
    values = [p.numpy().tobytes() for p in trainer.optimizer.parameters]
    return [state, values, [loss.numpy().tobytes() for loss in losses], trainer.epoch_avg_loss()]


def trained(
    host: NumpyBackend,
    make: Callable[[], tuple[Any, Callable[..., Any], Callable[[int], tuple[Any, ...]]]],
    *,
    capture: bool,
    steps: int = STEPS,
    **options: Any,
) -> tuple[list[object], Trainer[Any]]:
    """The results of steps with an optimizer, a loss function and batches."""
    optimizer, loss, batch = make()
    trainer = Trainer(optimizer, capture=capture, **options)
    losses = [trainer.train_step(loss, *batch(step)) for step in range(steps)]
    return bits(optimizer, trainer, losses), trainer


def assert_same(
    host: NumpyBackend, make: Callable[[], Any], *, steps: int = STEPS, **options: Any
) -> Trainer[Any]:
    """Train with and without capture, and compare; return the trainer that captured."""
    captured, trainer = trained(host, make, capture=True, steps=steps, **options)
    plain, _ = trained(host, make, capture=False, steps=steps, **options)
    assert captured == plain
    return trainer


def assert_captured(trainer: Trainer[Any], steps: int = STEPS) -> None:
    """All steps but two were captured, or three if the first one fills a cache that it reads."""
    assert trainer.counts.captured >= steps - 3, trainer.counts.reasons


def of_module(
    host: NumpyBackend, make: Callable[[Generator], tuple[nn.Module, tuple[int, ...]]]
) -> Callable[[], Any]:
    """A training of one layer after a parameter, so that the gradient passes through it."""

    def made() -> Any:
        module, shape = make(Generator(3))
        module.to(host)
        shift = Parameter(np.full(shape[1:], 0.1, np.float32), name="shift", backend=host)
        draw = np.random.default_rng(0)

        def loss(x: Tensor) -> Tensor:
            result = module(x + shift)
            result = result[0] if isinstance(result, tuple) else result
            mean: Tensor = (result * result).mean()
            return mean

        trainable = [p for p in module.parameters() if p.requires_grad]
        return (
            AdamW([shift, *trainable], 0.01),
            loss,
            lambda step: (draw.standard_normal(shape).astype(np.float32),),
        )

    return made


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer(name: str, host: NumpyBackend) -> None:
    trainer = assert_same(host, of_module(host, lambda g: {**sequences(g), **rows(g)}[name]))
    assert_captured(trainer)


# Losses


def of_loss(
    host: NumpyBackend, shape: tuple[int, ...], loss: Callable[..., Tensor], *batch: Array
) -> Callable[[], Any]:
    """A training of a loss function's first argument."""

    def made() -> Any:
        start = np.random.default_rng(1).uniform(0.1, 0.9, shape).astype(np.float32)
        w = Parameter(start, name="w", backend=host)
        return SGD([w], 0.05), lambda *given: loss(w, *given), lambda step: batch

    return made


_DRAW: Final = np.random.default_rng(2)
_CLASSES: Final = _DRAW.integers(0, 5, 6).astype(np.int32)
_SOME: Final = np.array([0, -100, 3, 2, -100, 1], np.int32)
_SIGNS: Final = np.array([1, -1, 1, 1, -1, -1], np.float32)
_VALUES: Final = _DRAW.uniform(0.1, 0.9, (6, 5)).astype(np.float32)
_WEIGHTS: Final = np.arange(6, dtype=np.float32)
LOSSES: Final[Mapping[str, tuple[Callable[..., Tensor], tuple[Array, ...]]]] = {
    "cross entropy": (nn.cross_entropy_loss, (_CLASSES,)),
    "cross entropy, ignored": (nn.cross_entropy_loss, (_SOME,)),
    "cross entropy, weighted": (
        lambda w, y, s: nn.cross_entropy_loss(w, y, sample_weight=s), (_CLASSES, _WEIGHTS)
    ),
    "cross entropy, smooth": (
        lambda w, y: nn.cross_entropy_loss(w, y, label_smoothing=0.1), (_CLASSES,)
    ),
    "cross entropy of probabilities": (
        lambda w, y: nn.cross_entropy_loss(w, y.softmax()),
        (_VALUES,),
    ),
    "nll": (lambda w, y: nn.nll_loss(w.log_softmax(), y), (_CLASSES,)),
    "focal": (nn.focal_loss, (_CLASSES,)),
    "multi margin": (nn.multi_margin_loss, (_CLASSES,)),
    "mse": (nn.mse_loss, (_VALUES,)),
    "mse, weighted": (
        lambda w, y, s: nn.mse_loss(w, y, sample_weight=s), (_VALUES, _WEIGHTS)
    ),
    "l1": (nn.l1_loss, (_VALUES,)),
    "huber": (nn.huber_loss, (_VALUES,)),
    "smooth l1": (nn.smooth_l1_loss, (_VALUES,)),
    "binary": (nn.binary_cross_entropy, (_VALUES,)),
    "binary with logits": (nn.binary_cross_entropy_with_logits, (_VALUES,)),
    "sigmoid focal": (nn.sigmoid_focal_loss, (_VALUES,)),
    "dice": (nn.dice_loss, (_VALUES,)),
    "kl": (lambda w, y: nn.kl_div(w.log_softmax(), y), (_VALUES,)),
    "poisson": (nn.poisson_nll_loss, (_VALUES,)),
    "gaussian": (nn.gaussian_nll_loss, (_VALUES, _VALUES)),
    "hinge": (lambda w, y: nn.hinge_loss(w.sum(1), y), (_SIGNS,)),
    "soft margin": (lambda w, y: nn.soft_margin_loss(w.sum(1), y), (_SIGNS,)),
    "cosine embedding": (nn.cosine_embedding_loss, (_VALUES, _SIGNS)),
    "triplet": (nn.triplet_margin_loss, (_VALUES, _VALUES + 1)),
    "contrastive": (nn.contrastive_loss, (_VALUES, (_SIGNS > 0).astype(np.float32))),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss(name: str, host: NumpyBackend) -> None:
    loss, batch = LOSSES[name]
    trainer = assert_same(host, of_loss(host, (6, 5), loss, *batch))
    assert_captured(trainer)


# Tensor spellings


def _places(w: Tensor, index: Tensor) -> Tensor:
    return (w[index] * w[:, 1:4].transpose(0, 1).reshape(-1)[:5]).sum()


SPELLINGS: Final[Mapping[str, Callable[..., Tensor]]] = {
    "rows by number": lambda w, i: (w[i] ** 2).sum(),
    "two indices": lambda w, i: (w[i % 6, i % 5] ** 2).sum(),
    "a strided view made flat": _places,
    "joined and cut": lambda w, i: concat([w[:2], w[3:] * 2.0], 0).exp().mean(),
    "chosen by where": lambda w, i: where(w > 0.5, w, w * w).sum(),
    "largest": lambda w, i: w.max(1).sum() + w.argmax(1).astype("float32").mean(),
    "sorted": lambda w, i: w.sort(1)[0][:, 0].sum(),
    "a cumulative sum": lambda w, i: (w.cumsum(1) ** 2).mean(),
    "a product of batches": lambda w, i: (w.reshape(2, 3, 5) @ w.reshape(2, 5, 3)).sum(),
    "half": lambda w, i: (w.astype("float16") * 2.0).astype("float32").sum(),
    "a mean and a variance": lambda w, i: w.mean(0).sum() + w.var(1).sum(),
    "an outer sum": lambda w, i: (w[:, None, :] - w[None, :, :]).abs().sum(),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling(name: str, host: NumpyBackend) -> None:
    index = np.array([4, 0, 4, 1, 2], np.int32)
    trainer = assert_same(host, of_loss(host, (6, 5), SPELLINGS[name], index))
    assert_captured(trainer)


# Optimizers


@pytest.mark.parametrize("name", ROWS)
def test_an_optimizer(name: str, host: NumpyBackend) -> None:
    def made() -> Any:
        generator = Generator(1)
        model = nn.Sequential(
            nn.Linear(6, 8, generator=generator), nn.Tanh(), nn.Linear(8, 3, generator=generator)
        ).to(host)
        draw = np.random.default_rng(0)
        return (
            ROWS[name](model.parameters()),
            lambda x, y: nn.cross_entropy_loss(model(x), y),
            lambda step: (
                draw.standard_normal((7, 6)).astype(np.float32), draw.integers(0, 3, 7)
            ),
        )  # fmt: skip

    trainer = assert_same(host, made)
    assert_captured(trainer)


# The models of the examples


def example(name: str) -> ModuleType:
    """A program of docs/examples as a module."""
    path = Path(__file__).parents[2] / "docs" / "examples" / f"{name}.py"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def digits_cnn(host: NumpyBackend) -> Callable[[], Any]:
    def made() -> Any:
        model = example("digits_cnn").Network(Generator(0)).to(host)
        draw = np.random.default_rng(0)
        return (
            AdamW(model.parameters(), 1e-3),
            lambda x, y: nn.cross_entropy_loss(model(x), y),
            lambda step: (
                draw.random((16, 1, 8, 8), np.float32), draw.integers(0, 10, 16)
            ),
        )  # fmt: skip

    return made


def char_gpt(host: NumpyBackend) -> Callable[[], Any]:
    def made() -> Any:
        model = example("char_gpt").GPT(2, 32, 4, 16, Generator(0)).to(host)
        draw = np.random.default_rng(0)
        return (
            AdamW(model.parameters(), 1e-3),
            lambda text: nn.cross_entropy_loss(model(text[:, :-1]), text[:, 1:]),
            lambda step: (draw.integers(0, 256, (4, 17)).astype(np.int32),),
        )

    return made


def digits_mlp(host: NumpyBackend, size: int = 64, count: int = 32) -> Callable[[], Any]:
    def made() -> Any:
        g = Generator(0)
        model = nn.Sequential(
            nn.Linear(64, size, generator=g), nn.ReLU(), nn.Linear(size, 10, generator=g)
        ).to(host)
        draw = np.random.default_rng(0)
        return (
            AdamW(model.parameters(), lambda step: 1e-3 / step),
            lambda x, y: nn.cross_entropy_loss(model(x), y),
            lambda step: (draw.random((count, 64), np.float32), draw.integers(0, 10, count)),
        )

    return made


@pytest.mark.parametrize("model", [digits_cnn, char_gpt, digits_mlp], ids=lambda f: f.__name__)
def test_a_model_of_the_examples(
    model: Callable[[NumpyBackend], Callable[[], Any]], host: NumpyBackend
) -> None:
    trainer = assert_same(host, model(host), steps=16)
    assert_captured(trainer, 16)


def test_arrays_so_large_that_threads_share_them(host: NumpyBackend) -> None:
    trainer = assert_same(host, digits_mlp(host, size=512, count=600), steps=5)
    assert_captured(trainer, 5)


# The laws of training


def classifier(host: NumpyBackend, spoil: Callable[[int], float], **options: Any) -> Any:
    """A training whose batches are multiplied by a number for each step."""

    def made() -> Any:
        g = Generator(0)
        model = nn.Sequential(
            nn.Linear(6, 8, generator=g), nn.BatchNorm1d(8), nn.Dropout(0.2, generator=g),
            nn.Linear(8, 3, generator=g),
        ).to(host)  # fmt: skip
        draw = np.random.default_rng(0)

        def batch(step: int) -> tuple[Array, Array]:
            x = draw.standard_normal((7, 6)) * spoil(step)
            return x.astype(np.float32), draw.integers(0, 3, 7)

        optimizer = AdamW(model.parameters(), 0.01, **options)
        return optimizer, lambda x, y: nn.cross_entropy_loss(model(x), y), batch

    return made


def test_a_mode_that_changes_before_the_second_step(host: NumpyBackend) -> None:
    """Batch norm is often frozen early: the next step is not the one that was noted."""
    bits = []
    for capture in (True, False):
        g = Generator(0)
        norm, last = nn.BatchNorm1d(4), nn.Linear(4, 3, generator=g)
        model = nn.Sequential(nn.Linear(4, 4, generator=g), norm, last).to(host)
        trainer = Trainer(SGD(model.parameters(), 0.1), state={"model": model}, capture=capture)
        x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
        y = (np.arange(8) % 3).astype(np.int32)
        for step in range(8):
            if step == 1:
                norm.eval()
            trainer.train_step(lambda x, y, model=model: nn.cross_entropy_loss(model(x), y), x, y)
        bits.append([p.numpy().tobytes() for p in (*model.parameters(), norm.running_mean)])
        assert not trainer.counts.reasons
        assert trainer.counts.captured == (5 if capture else 0)
    assert bits[0] == bits[1]


def test_bad_steps_are_skipped_like_plain_ones(host: NumpyBackend) -> None:
    made = classifier(host, lambda step: np.nan if step in (1, 4, 7) else 1.0, nonfinite="skip")
    trainer = assert_same(host, made, steps=12)
    assert trainer.counts.captured == 10
    assert trainer.optimizer.skipped == 3


def test_a_bad_step_raises_in_a_repetition(host: NumpyBackend) -> None:
    for capture in (True, False):
        optimizer, loss, batch = classifier(host, lambda step: np.inf if step == 4 else 1.0)()
        trainer = Trainer(optimizer, capture=capture)
        for step in range(4):
            trainer.train_step(loss, *batch(step))
        before = [p.numpy().tobytes() for p in optimizer.parameters]
        with pytest.raises(NonFiniteGradientError):
            trainer.train_step(loss, *batch(4))
        assert [p.numpy().tobytes() for p in optimizer.parameters] == before
        trainer.train_step(loss, *batch(5))
        assert optimizer.steps == 5
        assert trainer.counts.captured == (4 if capture else 0)


@pytest.mark.parametrize("search", [
    lambda p: LBFGS(p, nonfinite="skip"), lambda p: SAM(SGD(p, 0.1, nonfinite="skip"))
])  # fmt: skip
def test_the_first_of_several_passes_counts(
    search: Callable[[Any], Any], host: NumpyBackend
) -> None:
    """Later passes are repetitions, which write the same memory."""

    found = []
    for capture in (True, False):
        norm, g = nn.BatchNorm1d(5), Generator(1)
        model = nn.Sequential(
            nn.Linear(6, 5, generator=g), norm, nn.Dropout(0.2, generator=g),
            nn.Linear(5, 3, generator=g),
        ).to(host)  # fmt: skip
        optimizer, _, batch = classifier(host, lambda step: np.nan if step == 4 else 1.0)()
        optimizer = search(model.parameters())
        trainer = Trainer(optimizer, capture=capture)
        losses = [
            trainer.train_step(
                lambda x, y, m=model: {"loss": (loss := nn.cross_entropy_loss(m(x), y)), "l": loss},
                *batch(step),
            )
            for step in range(STEPS)
        ]
        statistics = [value.tobytes() for value in norm.state_dict().values()]
        found.append([*bits(optimizer, trainer, losses), statistics])
        assert trainer.epoch_averages()["l"] == found[-1][-2]
        assert optimizer.skipped == 1
    assert found[0] == found[1]


@pytest.mark.parametrize("nonfinite", ["raise", "skip", "propagate"])
def test_clipping_and_averages(nonfinite: NonFinite, host: NumpyBackend) -> None:
    def made() -> Any:
        options = {"clip": ClipNorm(0.1), "average": EMA(0.9), "nonfinite": nonfinite}
        return classifier(host, lambda step: 1.0, **options)()

    trainer = assert_same(host, made)
    assert_captured(trainer)


def test_a_loss_scale(host: NumpyBackend) -> None:
    made = classifier(host, lambda step: np.nan if step == 5 else 1.0, nonfinite="skip")
    trainer = assert_same(host, made, steps=12, loss_scale=LossScale(2.0**10, every=3))
    assert trainer.counts.captured == 10
    assert trainer.optimizer.skipped == 1


def test_epochs_with_accumulation_and_a_validation(host: NumpyBackend) -> None:
    found = []
    for capture in (True, False):
        optimizer, loss, batch = classifier(host, lambda step: 1.0)()
        trainer = Trainer(optimizer, capture=capture)
        data = [batch(step) for step in range(8)]
        result = trainer.fit(
            data, lambda x, y, f=loss: {"loss": f(x, y), "mean": x.mean()}, epochs=4,
            accumulate=2, validate=(data[:2], lambda x, y, f=loss: {"loss": f(x, y)}),
        )  # fmt: skip
        entries = [{k: v for k, v in e.items() if "seconds" not in k} for e in result.history]
        found.append((entries, [p.numpy().tobytes() for p in optimizer.parameters]))
        assert (trainer.counts.captured > 20) == capture
    assert repr(found[0]) == repr(found[1])


def test_accumulated_batches_count_by_targets_that_are_not_ignored(host: NumpyBackend) -> None:
    found = []
    for capture in (True, False):
        optimizer, loss, batch = classifier(host, lambda step: 1.0)()
        trainer = Trainer(optimizer, capture=capture)
        data = [batch(step) for step in range(8)]
        for number, (_, y) in enumerate(data):
            y[: number % 5] = -100
        result = trainer.fit(data, loss, epochs=3, accumulate=2)
        losses = [entry["loss"] for entry in result.history]
        found.append((losses, [p.numpy().tobytes() for p in optimizer.parameters]))
    assert found[0] == found[1]


def test_host_draws_and_generators(host: NumpyBackend) -> None:
    def made() -> Any:
        g = Generator(2)
        w = Parameter(np.ones((4, 3), np.float32), name="w", backend=host)

        def loss(x: Tensor) -> Tensor:
            noise = g.normal((4, 3), backend=host) + g.uniform((4, 3), backend=host)
            keep = g.keep(0.7, (4, 3), backend=host)
            picked = w[g.integers(0, 4, (5,), backend=host)]
            return ((w * x + noise) ** 2).mean() + keep.where(w, 0.0).sum() + picked.sum()

        return SGD([w], 0.1), loss, lambda step: (np.full((4, 3), step, np.float32),)

    assert_captured(assert_same(host, made))


# Steps that cannot be repeated run uncaptured, without a warning


def plainly(host: NumpyBackend, loss: Callable[..., Tensor], *batch: Any, steps: int = 6) -> str:
    """Why steps are not captured."""
    w = Parameter(np.ones((2, 3), np.float32), name="w", backend=host)
    trainer = Trainer(SGD([w], 0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(steps):
            trainer.train_step(lambda *given: loss(w, *given), *batch)
    assert trainer.counts.captured == 0
    assert trainer.counts.plain == steps
    (reason,) = set(trainer.counts.reasons.values())
    return reason


ONES: Final = np.ones((2, 3), np.float32)


def test_numbers_that_are_read(host: NumpyBackend) -> None:
    why = plainly(host, lambda w, x: (w * x).sum() * float((w * x).max().item()), ONES)
    assert "reads numbers of a tensor" in why


def test_tensors_that_are_made_of_numbers(host: NumpyBackend) -> None:
    why = plainly(host, lambda w, x: (w * tensor([1.0, 2.0, 3.0], backend=host)).sum(), ONES)
    assert "makes a tensor from numbers of the host" in why


def test_a_batch_that_is_written_to(host: NumpyBackend) -> None:
    def loss(w: Tensor, x: Tensor) -> Tensor:
        with no_grad():
            x.assign(x * 2.0)
        return (w * x).sum()

    assert "writes into an array of the batch" in plainly(host, loss, ONES)


@pytest.mark.parametrize("what", ["the batch", "a result"])
def test_arrays_that_stay(what: str, host: NumpyBackend) -> None:
    """A tensor that the caller keeps is never overwritten."""
    kept: list[Tensor] = []

    class Keeper:
        def __call__(self, tensor: Tensor) -> Tensor:
            vars(self)["last"] = tensor
            return tensor

    keeper = Keeper()

    def loss(w: Tensor, x: Tensor) -> Tensor:
        product = w * (keeper(x) if what == "the batch" else x)
        return (product if what == "the batch" else keeper(product)).sum()

    w = Parameter(np.ones((2, 3), np.float32), name="w", backend=host)
    trainer = Trainer(SGD([w], 0.1))
    for step in range(6):
        trainer.train_step(lambda x: loss(w, x), ONES + step)
        kept.append(vars(keeper)["last"])
    assert trainer.counts.captured == 0
    if what == "the batch":
        assert [x.numpy()[0, 0] for x in kept] == [1, 2, 3, 4, 5, 6]


def test_a_copy_that_no_operation_makes(host: NumpyBackend) -> None:
    """NumPy copies silently if a layout has no view: such a step would read freed memory."""

    def loss(w: Tensor, x: Tensor) -> Tensor:
        flat = (x * 2.0)._array.transpose().reshape(-1)
        return (w.reshape(-1) * Tensor(flat, host)).sum()

    assert "copied outside any operation" in plainly(host, loss, ONES)


def test_batches_of_objects(host: NumpyBackend) -> None:
    assert "takes tensors, arrays and numbers" in plainly(host, lambda w, x: w.sum(), [ONES])


def test_a_backend_with_its_own_operations() -> None:
    calls: list[str] = []

    class Counting(NumpyBackend):
        def matmul(self, *args: Any, **named: Any) -> None:
            calls.append("matmul")
            super().matmul(*args, **named)

    why = plainly(Counting(), lambda w, x: (w @ x.transpose(0, 1)).sum(), ONES, steps=4)
    assert "has operations of its own" in why
    assert len(calls) == 8


# Numbers that control flow depends on


def test_targets_that_are_ignored_now_and_then(host: NumpyBackend) -> None:
    def made() -> Any:
        w = Parameter(np.ones((6, 5), np.float32), name="w", backend=host)
        batches = [_CLASSES if step % 3 else _SOME for step in range(12)]
        return SGD([w], 0.1), lambda y: nn.cross_entropy_loss(w, y), lambda n: (batches[n],)

    trainer = assert_same(host, made, steps=12)
    assert trainer.counts.replayed >= 3


@pytest.mark.parametrize("loss", [nn.cross_entropy_loss, nn.nll_loss, nn.focal_loss])
def test_another_number_of_targets_is_ignored_in_each_batch(
    loss: Callable[..., Tensor], host: NumpyBackend
) -> None:
    """As in masked language modeling: their number does not affect control flow."""

    def made() -> Any:
        w = Parameter(np.ones((6, 5), np.float32), name="w", backend=host)
        ignored = [1, 3, 2, 5, 4, 1, 3, 2, 5]
        batches = [np.where(np.arange(6) < n, -100, _CLASSES) for n in ignored]
        return SGD([w], 0.1), lambda y: loss(w, y), lambda n: (batches[n],)

    trainer = assert_same(host, made)
    assert_captured(trainer)
    with pytest.raises(ValueError, match="every target is ignored"):
        assert_same(host, lambda: (*made()[:2], lambda n: (np.full(6, -100 if n > 5 else 1),)))


def test_out_of_range_numbers_raise_the_codes_errors(host: NumpyBackend) -> None:
    w = Parameter(np.ones((5, 3), np.float32), name="w", backend=host)
    trainer = Trainer(SGD([w], 0.1))
    good = np.array([0, 4, -1], np.int32)
    for _ in range(4):
        trainer.train_step(lambda i: (w[i] ** 2).sum(), good)
    assert trainer.counts.captured == 2
    before = w.tolist()
    with pytest.raises(IndexError, match=r"an index on axis 0 is outside \[-5, 5\)"):
        trainer.train_step(lambda i: (w[i] ** 2).sum(), good + 5)
    with pytest.raises(IndexError, match=r"an index on axis 0 is outside \[-5, 5\)"):
        trainer.train_step(lambda i: (w[i * 2 - 3] ** 2).sum(), np.array([9, 0, 0], np.int32))
    assert w.tolist() == before
    trainer.train_step(lambda i: (w[i] ** 2).sum(), good)
    assert w.tolist() != before


def test_out_of_range_results_raise_errors_in_repetitions(host: NumpyBackend) -> None:
    w = Parameter(np.ones((5, 3), np.float32), name="w", backend=host)
    trainer = Trainer(SGD([w], 0.1))
    step = lambda i: (w[i * 2] ** 2).sum()
    for _ in range(4):
        trainer.train_step(step, np.array([0, 1], np.int32))
    assert trainer.counts.captured == 2
    before = w.tolist()
    with pytest.raises(IndexError, match="outside"):
        trainer.train_step(step, np.array([0, 3], np.int32))
    assert w.tolist() == before
    trainer.train_step(step, np.array([0, 1], np.int32))
    assert w.tolist() != before


# Memory


def test_a_step_keeps_outside_arrays_alive_no_longer(host: NumpyBackend) -> None:
    """It is not repeated once that is gone."""
    held, out = [host.upload(np.ones(4))], host.upload(np.zeros(4))

    def act() -> None:
        between = host.allocate((4,), out.dtype)
        host.copy(held[0], between)
        host.copy(between, out)

    with host.observe() as notes:
        act()
    with host.record([np.ones(4)], notes) as step:
        act()
    held[0] += 1.0
    assert step.is_complete
    step.replay([np.ones(4)])
    assert out.tolist() == [2.0] * 4
    assert step.is_valid()
    memory = weakref.ref(held.pop())
    assert memory() is None
    assert not step.is_valid()
    with pytest.raises(CaptureError, match="was freed"):
        step.replay([np.ones(4)])


def test_a_trainer_that_is_gone_gives_its_memory_back(host: NumpyBackend) -> None:
    optimizer, loss, batch = digits_mlp(host)()
    trainer = Trainer(optimizer)
    for number in range(5):
        trainer.train_step(loss, *batch(number))
    weights = weakref.ref(optimizer.parameters[0]._array.base)
    del optimizer, loss, batch, trainer
    gc.collect()
    assert weights() is None


def test_losses_have_their_own_memory(host: NumpyBackend) -> None:
    w = Parameter([0.0], name="w", backend=host)
    trainer = Trainer(SGD([w], 1.0))
    losses = [trainer.train_step(lambda x: (w * x).sum(), np.ones(1)) for _ in range(8)]
    assert [loss.item() for loss in losses] == [0, -1, -2, -3, -4, -5, -6, -7]


def test_pending_gradients_are_not_overwritten(host: NumpyBackend) -> None:
    """A step is not repeated into the memory of gradients that have not been taken yet."""
    w = Parameter([1.0], name="w", backend=host)
    trainer = Trainer(SGD([w], 1.0))
    loss = lambda x: (w * x).sum()
    for step in range(4):
        _, first = trainer.forward_backward(loss, [np.full(1, step)])
        _, second = trainer.forward_backward(loss, [np.full(1, step + 10)])
        assert (first[w].item(), second[w].item()) == (step, step + 10)
        del first, second


def test_a_plan_reuses_memory(host: NumpyBackend) -> None:
    """A chain of sixteen arrays needs few of them at a time; the report says how many."""
    w = Parameter(np.ones((64, 64), np.float32), name="w", backend=host)
    trainer = Trainer(SGD([w], 0.1))

    def loss(x: Tensor) -> Tensor:
        with no_grad():
            for _ in range(16):
                x = x * 1.5
        return (w * x).sum()

    for _ in range(3):
        trainer.train_step(loss, np.ones((64, 64), np.float32))
    (step,) = trainer.memory_report().steps
    size = 64 * 64 * 4
    assert 2 * size <= step.bytes <= 6 * size
    assert "loss" in str(trainer.memory_report())


def test_layouts_of_batches_are_kept(host: NumpyBackend) -> None:
    """Products of transposed and sliced arrays have the same bits as in the code."""

    def made() -> Any:
        w = Parameter(np.full((33, 5), 0.1, np.float32), name="w", backend=host)
        draw = np.random.default_rng(0)

        def batch(step: int) -> tuple[Tensor]:
            wide = tensor(draw.standard_normal((33, 80)).astype(np.float32), backend=host)
            return ((wide.transpose(0, 1) if step % 2 else wide.transpose(0, 1)[::2]),)

        return SGD([w], 0.1), lambda x: ((x @ w) ** 2).mean(), batch

    assert assert_same(host, made, steps=12).counts.captured == 8


def test_threads_train_beside_each_other(host: NumpyBackend) -> None:
    """Including convolutions, whose scratch memory belongs to a thread."""
    wanted = [trained(host, digits_cnn(host), capture=False)[0] for _ in range(2)]
    found: list[object] = [None, None]

    def train(number: int) -> None:
        found[number] = trained(host, digits_cnn(host), capture=True)[0]

    threads = [threading.Thread(target=train, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == wanted
