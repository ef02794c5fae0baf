"""Training steps of whole models on an NVIDIA GPU, rumus next to PyTorch.

Every side has the same shapes, the same AdamW and a loss that nothing reads. Rumus uses a new
device for each model, so that the peak of its memory is that model's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from examples import example
from numpy.typing import NDArray
from turns import Side, Step, has, medians

from rumus import nn
from rumus.gpu import Gpu, GpuBackend, Precision
from rumus.gpu.engine.protocol import EngineName
from rumus.optim import AdamW, LossScale
from rumus.tensor import Generator, Tensor, tensor
from rumus.train import Trainer

Figures = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Work:
    """A model in both libraries, and its training batch.

    multiplied: the weights that each item of a batch is multiplied by, plus attention's products: a
    step multiplies and adds six times as many numbers (forward, and twice in backward).
    """

    name: str
    repeats: int
    ours: Callable[[], nn.Module]
    theirs: Callable[[], Any]
    x: NDArray[Any]
    y: NDArray[np.int32]
    items: int
    multiplied: float
    graph: bool = False  # whether to measure a CUDA graph, too

    @property
    def teraflop(self) -> float:
        """The arithmetic of a step's products."""
        return 6 * self.items * self.multiplied / 1e12


def digits_mlp() -> nn.Module:
    """784-512-512-10."""
    random = Generator(0)
    return nn.Sequential(
        nn.Linear(784, 512, generator=random),
        nn.ReLU(),
        nn.Linear(512, 512, generator=random),
        nn.ReLU(),
        nn.Linear(512, 10, generator=random),
    )


def pictures_cnn() -> nn.Module:
    """Three convolutions over pictures of 3 x 32 x 32, halved after the first two."""
    random = Generator(0)
    parts: list[nn.Module] = []
    for inputs, outputs, end in (
        (3, 64, nn.MaxPool2d(2)), (64, 128, nn.MaxPool2d(2)), (128, 256, nn.AdaptiveAvgPool2d(1))
    ):  # fmt: skip
        parts.append(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, generator=random))
        parts += [nn.BatchNorm2d(outputs), nn.ReLU(), end]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(256, 10, generator=random))


def small_gpt() -> nn.Module:
    """The model of docs/examples/char_gpt.py, 4 layers of 256, without its dropout."""
    model: nn.Module = example("char_gpt").GPT(4, 256, 4, 128, Generator(0))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def gpt2() -> nn.Module:
    """GPT-2 124M of docs/examples/gpt2_finetune.py."""
    model: nn.Module = example("gpt2_finetune").GPT2(12, 768, 12, 50257, 1024, Generator(0))
    return model


def texts(batch: int, length: int, tokens: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Random tokens, and the next ones."""
    text = np.random.default_rng(0).integers(0, tokens, (batch, length + 1)).astype(np.int32)
    return text[:, :-1].copy(), text[:, 1:].copy()


def torch_model(name: str, *arguments: int, **options: bool) -> Callable[[], Any]:
    """A model of torch_models, imported when it is needed."""

    def make() -> Any:
        import torch_models

        return getattr(torch_models, name)(*arguments, **options)

    return make


def labeled(*shape: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Random pictures with random classes of ten."""
    random = np.random.default_rng(0)
    return random.standard_normal(shape, np.float32), random.integers(0, 10, shape[0], np.int32)


def works() -> dict[str, Work]:
    """Everything that is measured."""
    weights = 784 * 512 + 512 * 512 + 5120
    pixels = 1024 * 27 * 64 + 256 * 576 * 128 + 64 * 1152 * 256 + 2560
    # A block multiplies by 12 size^2 weights; causal attention adds size numbers a position for
    # the scores and as many for the values, over half the length.
    small = 4 * (12 * 256**2 + 256 * 128) + 256 * 256
    large = 12 * (12 * 768**2 + 768 * 512) + 768 * 50257
    return {
        "mlp": Work("MLP step", 100, digits_mlp, torch_model("mlp", 784, 512, 10),
                    *labeled(128, 784), 128, weights, graph=True),
        "gpt": Work("GPT step, 4 layers of 256, 16 x 128", 20, small_gpt,
                    torch_model("GPT", 4, 256, 4, 128, 256), *texts(16, 128, 256), 2048, small),
        "gpt2": Work("GPT-2 124M step, 8 x 512", 3, gpt2,
                     torch_model("GPT", 12, 768, 12, 1024, 50257, tied=True),
                     *texts(8, 512, 50257), 4096, large),
        "cnn": Work("CNN step, 3-64-128-256, 128 x 32 x 32", 20, pictures_cnn,
                    torch_model("cnn"), *labeled(128, 3, 32, 32), 128, pixels),
    }  # fmt: skip


def rumus_step(
    work: Work, backend: GpuBackend, capture: bool, is_half: bool = False, **options: Any
) -> Side:
    """A training step of rumus. is_half: in float16, with float32 masters and a loss scale.

    options: of AdamW.
    """
    model = work.ours()
    model.to(backend)
    if is_half:
        model.half()
    x, y = tensor(work.x, backend=backend), tensor(work.y, backend=backend)
    optimizer = AdamW(model.parameters(), 1e-3, master_weights=is_half, **options)
    trainer = Trainer(optimizer, capture=capture, loss_scale=LossScale() if is_half else None)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(x), y)

    return lambda: trainer.train_step(loss_of, x, y), backend.gpu.synchronize


def torch_step(work: Work, how: str) -> Side:
    """The same in PyTorch: eager, compile, tf32, compile tf32, bf16 or graph."""
    import torch
    from torch.nn import functional

    torch.manual_seed(0)
    model = work.theirs().cuda()
    x = torch.tensor(work.x, device="cuda")
    y = torch.tensor(work.y, device="cuda").long().flatten()
    x = x if x.is_floating_point() else x.long()
    graph = how == "graph"
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True, capturable=graph)

    def precision() -> AbstractContextManager[Any]:
        return torch.autocast("cuda", torch.bfloat16) if how == "bf16" else nullcontext()

    def loss_of(x: Any, y: Any) -> Any:
        with precision():
            return functional.cross_entropy(model(x), y)

    loss_of = torch.compile(loss_of) if "compile" in how else loss_of

    def step() -> None:
        # A process-wide setting, set at each turn since the sides alternate.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = "tf32" in how
        optimizer.zero_grad(set_to_none=not graph)
        loss_of(x, y).backward()
        optimizer.step()

    return (recorded(step, model) if graph else step), torch.cuda.synchronize


def recorded(step: Step, alive: object) -> Step:
    """The step as a CUDA graph, which reads and keeps the memory of `alive` and of the step."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replay() -> object:
        graph.replay()
        return step, alive

    return replay


def torch_side(work: Work, how: str) -> Side:
    """A step of PyTorch, warmed up, with its peak memory printed."""
    import torch

    held = torch.cuda.memory_allocated()
    step, wait = torch_step(work, how)
    for _ in range(3):
        torch.cuda.reset_peak_memory_stats()
        step()
        wait()
    peak = (torch.cuda.max_memory_allocated() - held) / 2**30
    print(f"  torch {how}: peak {peak:.2f} GiB", flush=True)
    return step, wait


def captured_side(work: Work, backend: GpuBackend, profile: bool, is_half: bool = False) -> Side:
    """A captured step of rumus, warmed up, with its dispatches, memory and profile printed."""
    gpu = backend.gpu
    step, wait = rumus_step(work, backend, capture=True, is_half=is_half)
    for _ in range(3):
        step()
    wait()
    before = gpu.stats.dispatches
    step()
    wait()
    name = "float16" if is_half else gpu.precision
    print(f"  rumus {name}: {gpu.stats.dispatches - before} dispatches, "
          f"peak {backend.memory_stats().peak / 2**30:.2f} GiB")  # fmt: skip
    if profile:
        with gpu.profile() as found:
            for _ in range(3):
                step()
            wait()
        print(found, flush=True)
    return step, wait


def measure(work: Work, profile: bool, engine: EngineName | None = None) -> Figures:
    """Microseconds of every side; prints memory, dispatches and arithmetic as well."""
    print(f"\n{work.name}: {work.teraflop * 1e3:.1f} GFLOP in products")
    backend = GpuBackend(Gpu(engine=engine))
    sides = {"rumus captured": captured_side(work, backend, profile)}
    sides["rumus eager"] = rumus_step(work, backend, capture=False)
    levels: tuple[Precision, ...] = ("high", "medium") if backend.gpu.units else ()
    for level in levels:
        other = GpuBackend(Gpu(engine=engine, precision=level))
        sides[f"rumus {level}"] = captured_side(work, other, profile)
    if work.x.dtype == np.int32:  # tokens: nothing of the batch is rounded
        other = GpuBackend(Gpu(engine=engine))
        sides["rumus float16"] = captured_side(work, other, profile, is_half=True)
    if has("torch"):
        for how in (
            "eager",
            "compile",
            "tf32",
            "compile tf32",
            "bf16",
            *(("graph",) if work.graph else ()),
        ):
            sides[f"torch {how}"] = torch_side(work, how)
    times = medians(sides, work.repeats)
    rate = work.teraflop / (times["rumus captured"] * 1e-6)
    print(f"  rumus: {rate:.1f} TFLOP/s in the whole step, "
          f"{work.items / times['rumus captured'] * 1e6:,.0f} items a second")  # fmt: skip
    return {work.name: times}
