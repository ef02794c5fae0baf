"""Training steps replayed by the GPU without their Python code match the code bit for bit.

Also how the host's own state (counters, generators, versions) is kept up to date, and what is
refused.
"""

from __future__ import annotations

import gc
import math
import re
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus import nn
from rumus.gpu import Gpu, GpuBackend
from rumus.optim import (
    AGC,
    EMA,
    LAMB,
    LARS,
    SGD,
    SWA,
    Adafactor,
    AdaGC,
    Adam,
    AdamW,
    Average,
    ClipNorm,
    NonFinite,
    Optimizer,
    ParameterGroup,
    ZClip,
    clip_grad_norm,
)
from rumus.optim.engine import segments
from rumus.tensor import (
    CaptureError,
    Generator,
    GradientStore,
    GraphError,
    MissingGradientError,
    ModifiedTensorError,
    NonFiniteGradientError,
    Parameter,
    Tensor,
    UnclaimedGradientError,
    cpu,
    gather,
    int32,
    no_grad,
    tensor,
    zeros,
)
from rumus.tensor.memory.recording import refuse
from rumus.train import CaptureWarning, Trainer

Batch = tuple[NDArray[Any], NDArray[Any]]


@pytest.fixture(scope="module", params=["immediates", "uniforms"])
def gpu(request: pytest.FixtureRequest) -> GpuBackend:
    """The backend, with scalars passed directly and through a uniform buffer."""
    return GpuBackend(Gpu(immediates=request.param == "immediates"))


class Run:
    """A small classifier with dropout, its optimizer and its trainer."""

    def __init__(
        self, gpu: GpuBackend, *, capture: bool = True, kind: Any = AdamW, **options: Any
    ) -> None:
        self.gpu = gpu
        self.generator = Generator(5)
        self.model = nn.Sequential(
            nn.Linear(12, 16, generator=self.generator),
            nn.ReLU(),
            nn.Dropout(0.3, generator=self.generator),
            nn.Linear(16, 16, generator=self.generator),
            nn.ReLU(),
            nn.Dropout(0.5, generator=self.generator),
            nn.Linear(16, 4, generator=self.generator),
        )
        self.optimizer = kind(self.model.parameters(), self.rate, **options)
        self.model.to(gpu)
        self.trainer = Trainer(self.optimizer, capture=capture)
        self.losses: list[Tensor] = []

    @staticmethod
    def rate(step: int) -> float:
        """A learning rate that differs at each step."""
        return 0.01 * (1 + math.cos(step / 7))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.cross_entropy_loss(self.model(x), y)

    def step(self, batch: Batch, *, on_gpu: bool = False) -> None:
        x, y = (tensor(a, backend=self.gpu) for a in batch) if on_gpu else batch
        self.losses.append(self.trainer.train_step(self.loss, x, y, weight=len(batch[1])))

    def bits(self) -> dict[str, object]:
        """Everything that a training leaves behind."""
        saved = self.optimizer.state_dict()
        state = {
            f"{name}.{key}": value.tobytes()
            for name, entry in saved["parameters"].items()
            for key, value in entry["state"].items()
        }
        return {
            **{name: value.tobytes() for name, value in self.model.state_dict().items()},
            **state,
            "counts": [entry["steps"] for entry in saved["parameters"].values()],
            "steps": self.optimizer.steps,
            "skipped": self.optimizer.skipped,
            "position": self.generator.position,
            "losses": [np.float32(loss.item()).tobytes() for loss in self.losses],
            "mean": self.trainer.epoch_avg_loss(),
        }


def batches(count: int, *sizes: int, seed: int = 0) -> Iterator[Batch]:
    """Random batches with alternating sizes."""
    draw = np.random.default_rng(seed)
    for number in range(count):
        size = sizes[number % len(sizes)]
        yield draw.normal(size=(size, 12)), draw.integers(0, 4, size)


def both(gpu: GpuBackend, act: Callable[[Run], None], **options: Any) -> tuple[Run, Run]:
    """The same training with and without capture, compared bit for bit."""
    captured, plain = Run(gpu, **options), Run(gpu, capture=False, **options)
    for run in (captured, plain):
        act(run)
    assert captured.bits() == plain.bits()
    assert plain.trainer.counts.captured == 0
    return captured, plain


def test_a_repeated_step_matches_the_code(gpu: GpuBackend) -> None:
    """20 steps with dropout and a schedule; batches from the host and from the GPU."""

    def act(run: Run) -> None:
        for number, batch in enumerate(batches(20, 8)):
            run.step(batch, on_gpu=number % 3 == 0)

    captured, _ = both(gpu, act)
    counts = captured.trainer.counts
    assert (counts.plain, counts.recorded, counts.captured) == (1, 1, 18)
    losses = [loss.item() for loss in captured.losses]
    assert len(set(losses)) == 20  # each in its own memory
    assert captured.optimizer.steps == 20


def test_batches_that_are_views_of_a_tensor_are_repeated(gpu: GpuBackend) -> None:
    """Rows of one tensor on the device, and one view passed twice, only lie elsewhere."""
    x, y = (tensor(each, backend=gpu) for each in next(batches(1, 8)))

    def train(run: Run) -> None:
        for step in range(12):
            rows = slice(2 * (step % 4), 2 * (step % 4) + 2)
            inputs = x[rows]
            loss = run.trainer.train_step(
                lambda a, b, target: run.loss((a + b) / 2, target), inputs, inputs, y[rows]
            )
            run.losses.append(loss)

    with warnings.catch_warnings():
        warnings.simplefilter("error", CaptureWarning)
        captured, _ = both(gpu, train)
    counts = captured.trainer.counts
    assert counts.compared > 0
    assert counts.captured >= 9


@pytest.mark.parametrize("first", [0, 1, 3])
def test_batches_that_begin_anywhere_in_a_tensor_are_repeated(first: int, gpu: GpuBackend) -> None:
    """A shuffled order begins where an offset is no multiple of what a device aligns."""
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(4, 5, 3)).astype(np.float32), draw.integers(0, 2, (4, 5))
    found = []
    for backend in (gpu, cpu()):
        model = nn.Linear(3, 2, generator=Generator(0)).to(backend)
        trainer = Trainer(SGD(model.parameters(), 0.1))
        inputs, targets = tensor(x, backend=backend), tensor(y, dtype=int32, backend=backend)
        for n in range(first, first + 6):
            trainer.train_step(
                lambda x, y, model=model: nn.cross_entropy_loss(model(x), y),
                inputs[n % 4],
                targets[n % 4],
            )
        found.append(model.weight.numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


def test_a_busy_device_gets_its_batches_in_order(
    gpu: GpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several steps wait to be submitted together; no batch is written too early."""
    monkeypatch.setattr(gpu.gpu, "start", lambda: None)

    def act(run: Run) -> None:
        for batch in batches(30, 8, 5, 8):
            run.step(batch)

    both(gpu, act)


def test_two_shapes_alternate(gpu: GpuBackend) -> None:
    def act(run: Run) -> None:
        for batch in batches(20, 8, 5):
            run.step(batch)

    captured, _ = both(gpu, act)
    counts = captured.trainer.counts
    assert (counts.plain, counts.recorded, counts.captured) == (2, 2, 16)


def test_more_shapes_than_are_kept(gpu: GpuBackend) -> None:
    def act(run: Run) -> None:
        for batch in batches(33, *range(2, 13)):
            run.step(batch)

    captured, _ = both(gpu, act)
    assert captured.trainer.counts.captured == 8  # eleven alternate, and eight are kept


@pytest.mark.parametrize("first", [1, 2, 3])
def test_a_mode_that_changes_at_any_step(first: int, gpu: GpuBackend) -> None:
    """Also before the second step, which would be recorded, or while modes change at each step."""

    def act(run: Run) -> None:
        for number, batch in enumerate(batches(12, 8)):
            if number == first:
                run.model[2].eval()
            if number == first + 1:
                run.model.eval()
            if number == first + 2:
                run.model.train()
            run.step(batch)

    captured, _ = both(gpu, act)
    assert captured.trainer.counts.captured >= 12 - (first + 2) - 2


def test_everything_else_between_repetitions(gpu: GpuBackend) -> None:
    """Evaluation, the mean, saved states, eager steps and a changed rate all see current values."""
    seen: list[list[object]] = []

    def act(run: Run) -> None:
        notes: list[object] = []
        for number, batch in enumerate(batches(24, 8)):
            run.step(batch)
            if number % 5 == 3:
                run.model.eval()
                with no_grad():
                    notes.append(run.model(tensor(batch[0], backend=run.gpu)).numpy().tobytes())
                run.model.train()
            if number % 7 == 5:
                notes.append((run.trainer.epoch_avg_loss(), run.optimizer.steps))
            if number == 9:
                saved = run.optimizer.state_dict(), run.model.state_dict()
                run.optimizer.load_state_dict(saved[0])
                run.model.load_state_dict(saved[1])
            if number == 12:
                x, y = (tensor(a, backend=run.gpu) for a in batch)
                with run.loss(x, y).backward() as grads:
                    clip_grad_norm(grads, run.optimizer, 0.01)
                    run.optimizer.step(grads)
            if number == 16:
                run.optimizer.set(lr=0.02)
        seen.append(notes)

    captured, _ = both(gpu, act)
    assert seen[0] == seen[1]
    assert captured.trainer.counts.captured == 22


def test_a_step_reads_nothing_and_uploads_the_batch(gpu: GpuBackend) -> None:
    for capture in (True, False):
        run = Run(gpu, capture=capture)
        given = list(batches(40, 8))
        run.step(given[0])
        before = gpu.stats.bytes_down
        for batch in given:
            run.step(batch)
        assert gpu.stats.bytes_down == before
        assert run.trainer.epoch_avg_loss() > 0
        assert gpu.stats.bytes_down > before


def test_a_repetition_runs_the_same_kernels_in_few_submissions(gpu: GpuBackend) -> None:
    run = Run(gpu)
    x, y = (tensor(a, backend=gpu) for a in next(batches(1, 8)))
    dispatches = []
    for _ in range(6):
        before = gpu.stats.dispatches, gpu.stats.submits
        run.trainer.train_step(run.loss, x, y)
        dispatches.append(gpu.stats.dispatches - before[0])
        assert gpu.stats.submits - before[1] <= 3
    assert len(set(dispatches[1:])) == 1


def test_memory_is_flat_over_many_repetitions(gpu: GpuBackend) -> None:
    run = Run(gpu)
    x, y = next(batches(1, 8))
    for _ in range(600):  # more losses than a page holds
        run.trainer.train_step(run.loss, x, y)
    run.trainer.epoch_avg_loss()
    before = gpu.memory_stats()
    for _ in range(600):
        run.trainer.train_step(run.loss, x, y)
    run.trainer.epoch_avg_loss()
    after = gpu.memory_stats()
    assert after.used <= before.used + 4096
    assert after.blocks <= before.blocks + 4


def test_a_trainer_that_is_gone_gives_its_memory_back(gpu: GpuBackend) -> None:
    gc.collect()
    before = gpu.memory_stats().used
    run = Run(gpu)
    for batch in batches(6, 8, 5):
        run.step(batch)
    model = weakref.ref(run.model)
    del run
    gc.collect()
    assert model() is None
    assert gpu.memory_stats().used == before


def test_a_freed_model_still_trains(gpu: GpuBackend) -> None:
    """The loss function keeps alive what it needs."""
    run = Run(gpu)
    trainer, loss = run.trainer, run.loss
    given = list(batches(6, 8))
    for batch in given[:3]:
        run.step(batch)
    del run
    gc.collect()
    for batch in given:
        assert math.isfinite(trainer.train_step(loss, *batch).item())


def test_the_closure_form_runs_uncaptured(gpu: GpuBackend) -> None:
    run = Run(gpu)
    for x, y in batches(4, 8):
        given = tensor(x, backend=gpu), tensor(y, backend=gpu)
        run.trainer.train_step(lambda given=given: run.loss(*given))
    assert run.trainer.counts.replayed == run.trainer.counts.recorded == 0
    assert run.optimizer.steps == 4


def test_a_recreated_lambda_is_the_same_step(gpu: GpuBackend) -> None:
    run = Run(gpu)
    for x, y in batches(5, 8):
        run.trainer.train_step(lambda a, b: run.loss(a, b), x, y)
    assert run.trainer.counts.captured == 3


def test_different_closures_make_different_steps(gpu: GpuBackend) -> None:
    w = Parameter([1.0], name="w", backend=gpu)
    trainer = Trainer(SGD([w], 0.0))
    found = []
    for scale in (2.0, 3.0, 2.0, 3.0, 2.0, 4.0):
        found.append(trainer.train_step(lambda x, s=scale: (s * w * x).sum(), np.ones(1)).item())
    assert found == [2.0, 3.0, 2.0, 3.0, 2.0, 4.0]


def test_different_numbers_in_the_batch_make_different_steps(gpu: GpuBackend) -> None:
    w = Parameter([1.0], name="w", backend=gpu)
    trainer = Trainer(SGD([w], 0.0))
    found = [
        trainer.train_step(lambda x, s: (s * w * x).sum(), np.ones(1), scale).item()
        for scale in (1.0, 2.0, 1.0, 2.0, 1.0, 2.0, -0.0, 0.0)
    ]
    assert found == [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 0.0, 0.0]
    assert trainer.counts.captured == 2


def test_a_model_left_in_evaluation_is_captured_again(gpu: GpuBackend) -> None:
    def act(run: Run) -> None:
        for number, batch in enumerate(batches(16, 8)):
            if number in (5, 10):
                run.model.train(number == 10)
            run.step(batch)

    captured, _ = both(gpu, act)
    assert captured.trainer.counts.plain == 3
    assert captured.trainer.counts.replayed > 8


def test_freezing_and_changed_dropout_capture_again(gpu: GpuBackend) -> None:
    def act(run: Run) -> None:
        layer = run.model[5]
        assert isinstance(layer, nn.Dropout)
        other = Parameter(np.zeros(4), name="other", backend=run.gpu, requires_grad=False)

        def loss(x: Tensor, y: Tensor) -> Tensor:
            return nn.cross_entropy_loss(run.model(x) + other, y)

        for number, (x, y) in enumerate(batches(12, 8)):
            layer.p = 0.5 if number < 6 else 0.2
            run.losses.append(run.trainer.train_step(loss, x, y))
        other.requires_grad = True
        for _ in range(2):
            with pytest.raises(UnclaimedGradientError, match="'other'"):
                run.trainer.train_step(loss, x, y)

    captured, _ = both(gpu, act)
    assert captured.trainer.counts.captured == 8


def test_moving_a_model_captures_again(gpu: GpuBackend) -> None:
    other = GpuBackend(Gpu())

    def act(run: Run) -> None:
        for number, batch in enumerate(batches(9, 8)):
            if number in (3, 6):
                run.model.to(other if number == 3 else run.gpu)
            run.step(batch)

    captured, _ = both(gpu, act)
    assert captured.trainer.counts.plain == 3
    assert captured.trainer.counts.captured == 3


def test_a_store_that_is_not_drained_keeps_its_gradients(gpu: GpuBackend) -> None:
    run = Run(gpu)
    given = list(batches(6, 8))
    for batch in given[:3]:
        run.step(batch)
    x, y = (tensor(a, backend=gpu) for a in given[3])
    kept = run.loss(x, y).backward()
    before = [kept[p].numpy().tobytes() for p in kept]
    run.step(given[4])
    assert [kept[p].numpy().tobytes() for p in kept] == before


def test_a_graph_that_is_older_than_a_repetition_is_stale(gpu: GpuBackend) -> None:
    run = Run(gpu)
    given = list(batches(4, 8))
    for batch in given[:3]:
        run.step(batch)
    loss = run.loss(*(tensor(a, backend=gpu) for a in given[0]))
    run.step(given[3])
    assert run.trainer.counts.captured == 2
    with pytest.raises(ModifiedTensorError, match="changed in place"):
        loss.backward()


# It is told of once in a process, so by whichever test is the first.
@pytest.mark.filterwarnings("ignore:'mean', which loss closes over, is a tensor that the loss")
def test_buffers_written_in_place_are_updated(gpu: GpuBackend) -> None:
    w = Parameter([1.0, 2.0], name="w", backend=gpu)
    mean = zeros((2,), backend=gpu)

    def loss(x: Tensor) -> Tensor:
        with no_grad():
            mean.assign(0.5 * mean + 0.5 * x)
        return (w * x).sum()

    trainer = Trainer(SGD([w], 0.0))
    wanted = np.zeros(2)
    for number in range(6):
        x = np.array([1.0, 2.0]) + number
        version = mean._version.current
        trainer.train_step(loss, x)
        wanted = 0.5 * wanted + 0.5 * x
        assert mean._version.current == version + 1
        assert mean.tolist() == wanted.tolist()
    assert trainer.counts.captured == 4


def test_indices_out_of_range_are_found_in_repetitions(gpu: GpuBackend) -> None:
    run = Run(gpu)
    given = list(batches(5, 8))
    for batch in given[:4]:
        run.step(batch)
    before = run.bits()["0.weight"]
    for on_gpu in (False, True):
        bad = given[4][0], np.array([0, 1, 2, 3, 4, 0, 1, 2])
        with pytest.raises(IndexError, match="4"):
            run.step(bad, on_gpu=on_gpu)
    assert run.bits()["0.weight"] == before
    run.step(given[4])
    assert run.optimizer.steps == 5


def test_ignored_targets_in_some_batches(gpu: GpuBackend) -> None:
    """The targets determine which kernels run: such a batch runs uncaptured."""

    def act(run: Run) -> None:
        for number, (x, y) in enumerate(batches(8, 8)):
            run.step((x, np.where(np.arange(8) < 2, -100, y) if number == 5 else y))

    captured, _ = both(gpu, act)
    assert captured.trainer.counts.captured == 5


@pytest.mark.parametrize("ignored", [0, 3, -100])
@pytest.mark.parametrize("where", [{4, 6, 9}, {0, 2, 4, 5, 6, 8}, {1}, {0, 1, 2, 3, 7}])
def test_a_number_that_is_ignored_where_it_occurs(
    gpu: GpuBackend, where: set[int], ignored: int
) -> None:
    """Whether it occurs determines which kernels run, even if it is a class, such as padding."""
    found, numbers = [], np.arange(8)
    for capture in (True, False):
        layer = nn.Linear(5, 7, generator=Generator(1)).to(gpu)
        trainer = Trainer(SGD(layer.parameters(), 0.5), capture=capture)

        def loss(x: Tensor, y: Tensor, layer: nn.Linear = layer) -> Tensor:
            return nn.cross_entropy_loss(layer(x), y, ignore_index=ignored)

        for step in range(12):
            x = np.cos(np.arange(40.0) + step).reshape(8, 5)
            y = (
                np.where(numbers < 3, ignored, 4 + numbers % 3)
                if step in where
                else 4 + numbers % 3
            )
            trainer.train_step(loss, x, y)
        found.append(layer.weight.numpy().tobytes())
        assert trainer.counts.captured >= 2 * capture
    assert found[0] == found[1]


def test_optional_parameters_and_clipping_by_hand(gpu: GpuBackend) -> None:
    """Which parameters get gradients is part of the step."""
    results = []
    for capture in (True, False):
        a, b = (Parameter([2.0, 3.0], name=n, backend=gpu) for n in "ab")
        optimizer = Adam([ParameterGroup([a]), ParameterGroup([b], optional=True)], 0.1)
        trainer = Trainer(optimizer, capture=capture)

        def first(x: Tensor, a: Parameter = a) -> Tensor:
            return (a * x).sum()

        def second(x: Tensor, a: Parameter = a, b: Parameter = b) -> Tensor:
            return (a * b * x).sum()

        for number in range(10):
            trainer.train_step((first, second)[number % 2], np.array([1.0, number]))
        results.append([p.numpy().tobytes() for p in (a, b)])
    assert results[0] == results[1]


def test_a_custom_optimizer(gpu: GpuBackend) -> None:
    """Its `step` is Python code and runs each time."""

    class Halving(Optimizer[Any]):
        def step(self, grads: GradientStore) -> None:
            gradients = [grads.take(p) for p in self.parameters]
            for p, g in zip(self.parameters, gradients, strict=True):
                p.assign(p.detach() - 0.25 * g)
            self.steps += 1

    w = Parameter([1.0, 3.0], name="w", backend=gpu)
    optimizer = Halving([w])
    trainer = Trainer(optimizer)
    for _ in range(4):
        trainer.train_step(lambda x: (w * w * x).sum(), np.ones(2))
    assert w.tolist() == [0.0625, 0.1875]
    assert (optimizer.steps, trainer.counts.replayed) == (4, 2)


def test_skipped_steps_do_not_count(gpu: GpuBackend) -> None:
    def act(run: Run) -> None:
        for number, (x, y) in enumerate(batches(12, 8)):
            run.step((np.where(number in (4, 9), np.nan, x), y))

    captured, plain = Run(gpu, nonfinite="skip"), Run(gpu, capture=False, nonfinite="skip")
    for run in (captured, plain):
        act(run)
        assert math.isnan(run.losses[4].item())
        assert math.isfinite(run.trainer.epoch_avg_loss())
    assert captured.optimizer.skipped == plain.optimizer.skipped == 2
    assert captured.bits() == plain.bits()
    assert captured.trainer.counts.captured == 10


def test_state_in_8_bits(gpu: GpuBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SMALLEST", 1)

    def act(run: Run) -> None:
        for number, (x, y) in enumerate(batches(8, 8)):
            run.step((x * math.nan if number == 5 else x, y))

    captured, _ = both(gpu, act, state_dtype="8bit", nonfinite="skip")
    assert captured.optimizer.skipped == 1
    assert captured.trainer.counts.captured == 6


MEASURED: list[tuple[Any, dict[str, Any]]] = [
    (LAMB, {}),
    (LARS, {}),
    (Adafactor, {}),
    (AdamW, {"clip": ClipNorm(0.1)}),
    (AdamW, {"clip": ClipNorm(0.1, per="tensor")}),
    (AdamW, {"clip": AGC()}),
    (AdamW, {"clip": ZClip(warmup_steps=3)}),
    (AdamW, {"clip": AdaGC(warmup_steps=3)}),
    (AdamW, {"state_device": "host"}),
]


@pytest.mark.parametrize(("kind", "options"), MEASURED, ids=str)
@pytest.mark.parametrize("nonfinite", ["skip", "propagate"])
def test_measurements_are_repeated(
    kind: Any, options: dict[str, Any], nonfinite: NonFinite, gpu: GpuBackend
) -> None:
    """Including after a refused step: the bias corrections then lag one step."""

    def act(run: Run) -> None:
        for number, (x, y) in enumerate(batches(9, 8)):
            is_bad = number in (3, 6) and nonfinite == "skip"
            run.step((np.where(is_bad, np.nan, x), y))

    captured, plain = (
        Run(gpu, kind=kind, capture=capture, nonfinite=nonfinite, **options)
        for capture in (True, False)
    )
    for run in (captured, plain):
        act(run)
    assert captured.bits() == plain.bits()
    assert captured.trainer.counts.captured == 7


def test_accumulated_passes_are_repeated(gpu: GpuBackend) -> None:
    """Their gradients use the same memory each time, next to the sum."""

    def act(run: Run) -> None:
        data = list(batches(12, 8))
        run.trainer.fit(data, run.loss, epochs=1, accumulate=3, signals=False)
        assert run.optimizer.steps == 4

    captured, _ = both(gpu, act, clip=ClipNorm(0.1))
    assert captured.trainer.counts.captured == 10


@pytest.mark.parametrize("make", [lambda: EMA(0.9, warmup=True), lambda: SWA(2, 3)])
def test_an_average_is_updated(make: Callable[[], Average], gpu: GpuBackend) -> None:
    shown = []
    for capture in (True, False):
        average = make()
        run = Run(gpu, capture=capture, average=average)
        for batch in batches(9, 8):
            run.step(batch)
        assert run.trainer.counts.captured == 7 * capture
        bits = run.bits()
        with average.applied():
            shown.append((bits, [p.numpy().tobytes() for p in run.optimizer.parameters]))
    assert shown[0] == shown[1]


def test_a_refused_step_is_reported_when_its_loss_is_read(gpu: GpuBackend) -> None:
    run = Run(gpu)
    given = list(batches(6, 8))
    for batch in given[:4]:
        run.step(batch)
    before = run.bits()
    run.step((np.full((8, 12), np.nan), given[0][1]))
    with pytest.raises(NonFiniteGradientError, match=r"0\.weight"):
        run.losses.pop().item()
    after = run.bits()
    changed = [name for name in before if before[name] != after[name]]
    assert changed == []
    run.step(given[5])
    assert run.optimizer.steps == 5


# Cannot be captured


def refused(gpu: GpuBackend, loss: Callable[[Parameter, Tensor], Tensor], match: str) -> None:
    """Expect an error by the second step, and none without capture."""
    w = Parameter([1.0, 2.0], name="w", backend=gpu)
    x = np.array([3.0, 4.0])

    def of_batch(x: Tensor) -> Tensor:
        return loss(w, x)

    trainer = Trainer(SGD([w], 0.1))
    first = trainer.train_step(of_batch, x)
    assert math.isfinite(first.item())
    before = w.tolist()
    with pytest.raises(CaptureError, match=match) as error:
        trainer.train_step(of_batch, x)
    assert "capture=False" in str(error.value)
    assert w.tolist() == before
    plain = Trainer(trainer.optimizer, capture=False)
    for _ in range(3):
        plain.train_step(of_batch, x)
    assert w.tolist() != before


def test_reading_inside_is_refused(gpu: GpuBackend) -> None:
    refused(gpu, lambda w, x: (w * x).sum() * float(x.sum()), "it reads a value")


def test_deciding_inside_is_refused(gpu: GpuBackend) -> None:
    refused(gpu, lambda w, x: (w * x).sum() if x.sum() > 0 else w.sum(), "it reads a value")


def test_uploading_inside_is_refused(gpu: GpuBackend) -> None:
    refused(gpu, lambda w, x: (w * x * tensor([1.0, 2.0], backend=gpu)).sum(), "uploads an array")


def left_alone(gpu: GpuBackend, loss: Callable[[Parameter, Tensor], Tensor], match: str) -> None:
    """Expect the results of the code each time, and a single warning that nothing is repeated."""
    found = []
    for capture in (True, False):
        w = Parameter([1.0, 2.0], name="w", backend=gpu)
        trainer = Trainer(SGD([w], 0.01), capture=capture)

        def of_batch(x: Tensor, w: Parameter = w) -> Tensor:
            return loss(w, x)

        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            for _ in range(12):
                trainer.train_step(of_batch, np.array([0.5, 0.25]))
        found.append(w.tolist())
        assert trainer.counts.captured == 0
        assert [warning.category for warning in heard] == [CaptureWarning] * capture
        assert not heard or re.search(match, str(heard[0].message))
    assert found[0] == found[1]


def test_numbers_that_change_are_not_repeated(gpu: GpuBackend) -> None:
    seen: list[int] = []

    def loss(w: Parameter, x: Tensor) -> Tensor:
        seen.append(1)
        return (w * x * float(len(seen) % 12)).sum()

    left_alone(gpu, loss, "it changes seen, which it reads")


def test_a_changed_course_is_not_repeated(gpu: GpuBackend) -> None:
    seen: list[int] = []

    def loss(w: Parameter, x: Tensor) -> Tensor:
        seen.append(1)
        return (w * x).sum() if len(seen) % 2 else (w * x).exp().sum()

    left_alone(gpu, loss, "it changes seen")


def test_shapes_that_change_inside_are_not_repeated(gpu: GpuBackend) -> None:
    seen: list[int] = []

    def loss(w: Parameter, x: Tensor) -> Tensor:
        seen.append(1)
        return (w * x)[: 1 + len(seen) % 2].sum()

    left_alone(gpu, loss, "it changes seen")


def test_a_step_that_keeps_its_arrays_is_not_repeated(gpu: GpuBackend) -> None:
    kept: list[Tensor] = []

    def loss(w: Parameter, x: Tensor) -> Tensor:
        kept.append(x * 2.0)
        return (w * kept[-1]).sum()

    left_alone(gpu, loss, "it changes kept")


def test_escaping_arrays_are_refused(gpu: GpuBackend) -> None:
    class Kept:
        last: Tensor

    def loss(w: Parameter, x: Tensor) -> Tensor:
        Kept.last = x * 2.0
        return (w * Kept.last).sum()

    refused(gpu, loss, "still referenced after it")


def test_host_random_numbers_are_drawn_in_each_repetition(gpu: GpuBackend) -> None:
    """In the order of the code, also between masks; the generator ends at the same position."""
    found = []
    for capture in (True, False):
        generator = Generator(0)
        w = Parameter([1.0, 2.0], name="w", backend=gpu)
        trainer = Trainer(SGD([w], 0.1), capture=capture)

        def loss(x: Tensor, g: Generator = generator, w: Parameter = w) -> Tensor:
            noise = g.uniform((2,), 1.0, 2.0, backend=gpu)
            kept = g.keep(0.5, (2,), backend=gpu).where(w * x, w)
            row = gather(x, g.integers(0, 2, (2,), backend=gpu))
            limited = g.truncated_normal((2,), low=-0.5, high=0.5, backend=gpu)
            return (kept * noise + row * w * g.normal((2,), backend=gpu) + w * limited).sum()

        losses = [trainer.train_step(loss, np.array([3.0, n])).item() for n in range(8)]
        found.append((losses, w.tolist(), generator.position))
        assert trainer.counts.captured == 6 * capture
    assert found[0] == found[1]


def test_batches_that_hide_tensors_are_refused(gpu: GpuBackend) -> None:
    w = Parameter([1.0], name="w", backend=gpu)
    trainer = Trainer(SGD([w], 0.1))
    with pytest.raises(CaptureError, match="not list"):
        trainer.train_step(lambda b: (w * b[0]).sum(), [tensor([1.0], backend=gpu)])
    plain = Trainer(trainer.optimizer, capture=False)
    plain.train_step(lambda b: (w * b[0]).sum(), [tensor([1.0], backend=gpu)])


def test_batches_with_a_graph_are_refused(gpu: GpuBackend) -> None:
    w, v = (Parameter([2.0], name=n, backend=gpu) for n in "wv")
    optimizer = SGD([w, v], 0.1)
    trainer, plain = Trainer(optimizer), Trainer(optimizer, capture=False)
    for given in (v * 3.0, w):
        with pytest.raises(CaptureError, match="requires a gradient"):
            trainer.train_step(lambda x: (w * x).sum(), given)
    assert plain.train_step(lambda x: (w * x).sum(), v * 3.0).item() == 12.0
    assert v.tolist() == pytest.approx([2.0 - 0.1 * 6.0])


def test_a_failed_recording_leaves_the_gpu_usable(gpu: GpuBackend) -> None:
    run = Run(gpu)
    w = Parameter([1.0], name="w", backend=gpu)
    trainer = Trainer(SGD([w], 0.1))

    def fails(x: Tensor) -> Tensor:
        refuse("no data")
        return (w * x).sum()

    trainer.train_step(fails, np.ones(1))
    with pytest.raises(CaptureError, match="no data"):
        trainer.train_step(fails, np.ones(1))
    for batch in batches(4, 8):
        run.step(batch)
    assert run.trainer.counts.captured == 2


def test_errors_in_the_loss_match_an_eager_step(gpu: GpuBackend) -> None:
    w, other = (Parameter([1.0], name=n, backend=gpu) for n in ("w", "other"))
    trainer = Trainer(SGD([w], 0.1))
    for _ in range(3):
        with pytest.raises(MissingGradientError, match="'w'"):
            trainer.train_step(lambda x: (other * x).sum(), np.ones(1))
        with pytest.raises(TypeError, match="float"):
            trainer.train_step(lambda x: 1.0, np.ones(1))  # type: ignore[arg-type, return-value]
        with pytest.raises(GraphError), no_grad():
            trainer.train_step(lambda x: (w * x).sum(), np.ones(1))
    assert w.tolist() == [1.0]


def test_trainings_in_several_threads(gpu: GpuBackend) -> None:
    """Each as if it were alone, also while another one's step is being recorded."""
    alone, together = [Run(gpu) for _ in range(3)], [Run(gpu) for _ in range(3)]

    def train(run: Run, seed: int) -> None:
        for batch in batches(15, 8, 5, seed=seed):
            run.step(batch)

    for seed, run in enumerate(alone):
        train(run, seed)
    threads = [threading.Thread(target=train, args=(run, n)) for n, run in enumerate(together)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.bits() for run in together] == [run.bits() for run in alone]
    assert [run.trainer.counts.captured for run in together] == [11] * 3
