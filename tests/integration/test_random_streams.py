"""Random streams belong to the step: one that does not count leaves their positions unchanged.

On a GPU the device decides while the host keeps drawing: the draws of the next step are the same as
if the refused step had not been, bit for bit, on the device and on the host.
"""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

from rumus import nn
from rumus.gpu import GpuBackend
from rumus.optim import SAM, SGD, AdamW, Lookahead, LossScale, Optimizer
from rumus.tensor import (
    Backend,
    Generator,
    NonFiniteGradientError,
    NumpyBackend,
    Parameter,
    Tensor,
    int32,
    next_generator,
    ones,
    seed,
)
from rumus.tensor.memory.recording import Capturing
from rumus.train import Trainer

Make = Callable[[Any], Optimizer[Any]]
BAD: Final = (2, 3, 7, 9, 10, 11)
STEPS: Final = 14


def sgd(parameters: Any) -> Optimizer[Any]:
    return SGD(parameters, 0.05, nonfinite="skip")


def sam(parameters: Any) -> Optimizer[Any]:
    return SAM(SGD(parameters, 0.05, nonfinite="skip"))


def lookahead(parameters: Any) -> Optimizer[Any]:
    return Lookahead(AdamW(parameters, 0.05, nonfinite="skip"))


class Masked:
    """A model with random masks, and optionally noise drawn by the host."""

    def __init__(self, backend: Backend, make: Make, *, noise: bool = False, **options: Any):
        self.masks, self.noise, self.is_noisy = Generator(0), Generator(9), noise
        self.backend, self.factor = backend, 1.0
        self.model = nn.Sequential(
            nn.Linear(4, 8, generator=self.masks),
            nn.Dropout(0.5, generator=self.masks),
            nn.Linear(8, 1, generator=self.masks),
        ).to(backend)
        self.optimizer = make(self.model.parameters())
        self.trainer = Trainer(self.optimizer, **options)

    def loss(self, x: Tensor) -> Tensor:
        if self.is_noisy:
            x = x + self.noise.normal((6, 4), backend=self.backend)
        result: Tensor = (self.model(x) ** 2).mean() * self.factor
        return result

    def state(self) -> tuple[list[bytes], dict[str, int], dict[str, int]]:
        """Everything that a training leaves behind."""
        weights = [array.tobytes() for array in self.model.state_dict().values()]
        return weights, self.masks.state(), self.noise.state()


def batch(step: int) -> np.ndarray[Any, Any]:
    """The data of a step; some contain an infinity."""
    x = np.full((6, 4), 0.1 * step + 0.1, np.float32)
    if step in BAD:
        x[0, 0] = np.inf
    return x


def trained(run: Masked, steps: Any, peek: bool = False) -> Masked:
    """Do steps; with `peek`, read the position now and then."""
    for step in steps:
        run.trainer.train_step(run.loss, batch(step))
        if peek and step % 3 == 0:
            assert run.masks.position % 4 == 0
    return run


@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("make", [sgd, sam, lookahead])
def test_a_refused_step_has_drawn_nothing(
    gpu: GpuBackend, make: Make, noise: bool, capture: bool
) -> None:
    good = [step for step in range(STEPS) if step not in BAD]
    wanted = trained(Masked(gpu, make, noise=noise, capture=capture), good).state()
    for peek in (False, True):
        run = trained(Masked(gpu, make, noise=noise, capture=capture), range(STEPS), peek)
        assert run.state() == wanted
        assert run.optimizer.skipped == len(BAD)
    on_cpu = trained(Masked(NumpyBackend(), make, noise=noise), range(STEPS))
    assert on_cpu.state()[1:] == wanted[1:]


@pytest.mark.parametrize("capture", [True, False])
def test_an_accumulated_step_is_one(gpu: GpuBackend, capture: bool) -> None:
    """With all of its batches, one of which is bad."""
    found = []
    for backend in (NumpyBackend(), gpu):
        run = Masked(backend, sgd, capture=capture)
        run.trainer.fit([(batch(step),) for step in range(STEPS)], run.loss, epochs=1, accumulate=2)
        assert run.optimizer.skipped == 4
        found.append(run.state()[1])
    moved = Masked(NumpyBackend(), sgd)
    start, each = moved.masks.position, 4 * 12  # 48 words for a mask of 6 x 8
    assert found[0] == found[1]
    assert found[0]["position"] == start + 3 * 2 * each


def test_a_step_that_overflows_its_loss_scale(gpu: GpuBackend) -> None:
    """As the first ones of a mixed precision training do."""
    found = []
    for backend in (NumpyBackend(), gpu):
        scale = LossScale(2.0**60, maximum=2.0**60)
        run = Masked(backend, lambda p: SGD(p, 1e-23), loss_scale=scale)
        run.factor = 2.0**70
        trained(run, [step for step in range(STEPS) if step not in BAD])
        assert 0 < run.optimizer.skipped < 8
        found.append((run.optimizer.skipped, run.state()[1]))
    assert found[0] == found[1]


def test_steps_behind_an_error_have_drawn_nothing(gpu: GpuBackend) -> None:
    """Under "raise" nothing is applied from the bad step on, until the host knows."""
    run = Masked(gpu, lambda p: SGD(p, 0.05))
    trained(run, range(2))
    wanted = run.masks.position
    with pytest.raises(NonFiniteGradientError):
        trained(run, (2, 4, 5, 6)).optimizer.poll(wait=True)
    assert run.masks.position == wanted
    trained(run, [4])
    assert run.masks.position == wanted + 48


def test_an_optimizer_deleted_before_its_outcome_is_known(gpu: GpuBackend) -> None:
    """The device has rolled back the draws of its refused steps, and is asked for the position."""
    run = trained(Masked(gpu, sgd), range(5))
    masks = run.masks
    wanted = trained(Masked(NumpyBackend(), sgd), range(5)).masks.state()
    del run
    gc.collect()
    assert masks.state() == wanted
    assert masks.words((4,), backend=gpu).tolist() == masks_after(wanted).words((4,)).tolist()


def masks_after(state: dict[str, int]) -> Generator:
    generator = Generator(0)
    generator.restore(state)
    return generator


def test_a_generator_of_two_trainings(gpu: GpuBackend) -> None:
    """Two optimizers alternate with one stream, like a generator and a discriminator."""
    found = []
    for backend in (NumpyBackend(), gpu):
        first = Masked(backend, sgd)
        second = Masked(backend, sgd)
        assert isinstance(second.model[1], nn.Dropout)
        second.model[1].generator = first.masks
        for step in range(STEPS):
            first.trainer.train_step(first.loss, batch(step))
            second.trainer.train_step(second.loss, batch((step + 1) % STEPS))
        found.append(first.masks.state())
    assert found[0] == found[1]


def test_the_host_draws_between_steps(gpu: GpuBackend) -> None:
    """Including on another backend: it waits for the device's decision."""
    found = []
    for backend in (NumpyBackend(), gpu):
        run, drawn = Masked(backend, sgd), []
        for step in range(8):
            run.trainer.train_step(run.loss, batch(step))
            if step % 4 == 3:
                drawn.append(run.masks.words((8,)).tolist())
            elif step % 4 == 1:
                drawn.append(run.masks.words((8,), backend=backend).tolist())
                drawn.append(run.masks.uniform((8,), backend=backend).tolist())
        found.append((drawn, run.masks.state()))
    assert found[0] == found[1]


@pytest.mark.parametrize("blocks", [0, 1, 2**16 - 1, 2**16, 2**31 - 1, 3 * 2**30])
@pytest.mark.parametrize("counter", [2**34, 2**34 + 8, 2**40 + 12])
def test_words_that_start_before_a_boundary(gpu: GpuBackend, blocks: int, counter: int) -> None:
    """The first block may start before a 32-bit boundary of the counter."""
    wanted, low = np.empty(64, np.int32), blocks % 2**16
    cpu = NumpyBackend()
    cpu.random_words(5 << 32 | 7, counter - 4 * blocks, wanted)
    halves = np.array([low, blocks // 2**16], np.int32)
    for backend in (cpu, gpu):
        out = backend.allocate((64,), int32)
        backend.random_words(5 << 32 | 7, counter, out, backend.upload(halves))
        assert backend.download(out).tolist() == wanted.tolist()


def test_a_generator_is_copied_and_pickled(gpu: GpuBackend) -> None:
    run = trained(Masked(gpu, sgd), range(4))
    for again in (copy.deepcopy(run.masks), pickle.loads(pickle.dumps(run.masks))):
        assert again.state() == run.masks.state()
        assert again.words((4,)).tolist() == Generator.words(copy.copy(run.masks), (4,)).tolist()


def made(backend: Backend) -> Tensor:
    generator = Generator(4, 2)
    return generator.normal((32,), backend=backend) * dropped(backend, generator)


def made_of_the_seed(backend: Backend) -> Tensor:
    seed(3)
    return dropped(backend)


def dropped(backend: Backend, generator: Generator | None = None) -> Tensor:
    """A layer made in each step has a new stream."""
    layer = nn.Dropout(0.5, generator=generator)
    return layer(ones((32,), backend=backend))


def restored(backend: Backend, state: Any = Generator(9).state()) -> Tensor:  # noqa: B008
    KNOWN.restore(state)
    return KNOWN.uniform((3,), backend=backend)


def put_back(backend: Backend) -> Tensor:
    KNOWN.position = 8
    return dropped(backend, KNOWN)


def skipped(backend: Backend) -> Tensor:
    KNOWN.skip(8)
    return KNOWN.uniform((3,), backend=backend)


def copied(backend: Backend) -> Tensor:
    return copy.deepcopy(KNOWN).uniform((3,), backend=backend)


def copied_and_drawn(backend: Backend) -> Tensor:
    """The state of a generator that goes on is another at each step."""
    return copy.copy(KNOWN).uniform((3,), backend=backend) * KNOWN.uniform((3,), backend=backend)


KNOWN: Final = Generator(5)


@pytest.mark.parametrize(
    "draw",
    [made, made_of_the_seed, dropped, restored, put_back, skipped, copied, copied_and_drawn],
)
def test_a_replay_moves_generators_as_the_code_does(
    draw: Callable[[Backend], Tensor], device: Capturing
) -> None:
    """Those that the code makes, copies, restores or moves begin where it has them begin."""
    found: list[Any] = []
    for capture in (True, False):
        KNOWN.restore(Generator(5).state() | {"position": 20})
        seed(1)
        weight = Parameter([1.0, 2.0], name="weight", backend=device)
        trainer = Trainer(SGD([weight], 0.01), capture=capture)
        with warnings.catch_warnings():
            warnings.simplefilter("error" if draw is not copied_and_drawn else "ignore")
            for _ in range(12):
                trainer.train_step(
                    lambda x, w=weight: (w * w * x).sum() * draw(device).sum(),
                    np.array([0.5, 0.25]),
                )
        assert bool(trainer.counts.replayed) is (capture and draw is not copied_and_drawn)
        found.append((weight.tolist(), KNOWN.state()))
    assert found[0] == found[1]


@pytest.mark.parametrize("draw", [put_back, restored, skipped])
def test_a_step_that_a_device_refuses_moves_no_generator_that_it_restores(
    draw: Callable[[Backend], Tensor], gpu: GpuBackend
) -> None:
    found: list[Any] = []
    for capture in (True, False):
        KNOWN.restore(Generator(5).state())
        weight = Parameter([1.0, 2.0], name="weight", backend=gpu)
        trainer = Trainer(SGD([weight], 0.01, nonfinite="skip"), capture=capture)
        for step in range(STEPS):
            x = np.array([0.5, np.inf if step in BAD else 0.25])
            trainer.train_step(lambda x, w=weight: (w * w * x).sum() * draw(gpu).sum(), x)
        assert bool(trainer.counts.replayed) is capture
        found.append((weight.tolist(), KNOWN.state()))
    assert found[0] == found[1]


def first_used() -> Callable[[Backend], Tensor]:
    """A layer that is made when it is first used keeps its stream, though that step is refused."""
    made: list[nn.Dropout] = []

    def draw(backend: Backend) -> Tensor:
        if not made:
            made.append(nn.Dropout(0.5))
        return made[0](ones((32,), backend=backend)) * dropped(backend)

    return draw


def moved_elsewhere() -> Callable[[Backend], Tensor]:
    generator = Generator(6)
    state = Generator(7, 3).state()

    def draw(backend: Backend) -> Tensor:
        first = generator.uniform((3,), backend=backend).sum()
        generator.restore(state)
        return dropped(backend, generator) * first

    return draw


@pytest.mark.parametrize(
    "make",
    [
        lambda: dropped,
        lambda: made,
        lambda: made_of_the_seed,
        lambda: copied,
        first_used,
        moved_elsewhere,
    ],
    ids=["dropped", "made", "made_of_the_seed", "copied", "first_used", "moved_elsewhere"],
)
@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, SAM], ids=["SGD", "SAM"])
@pytest.mark.parametrize("raises", [False, True])
def test_a_step_that_does_not_count_hands_out_no_stream(
    make: Callable[[], Callable[[Backend], Tensor]],
    wrap: Callable[[Any], Any],
    raises: bool,
    device: Capturing,
) -> None:
    """It draws what a run without it would, and is captured as well as any other."""
    found: list[Any] = []
    for capture in (True, False):
        for leaves_out in (True, False):
            KNOWN.restore(Generator(5).state())
            seed(1)
            draw, weight = make(), Parameter([1.0, 2.0], name="weight", backend=device)
            trainer = Trainer(wrap(SGD([weight], 0.001, nonfinite="skip")), capture=capture)

            def loss(x: Tensor, is_wrong: bool, draw: Any = draw, weight: Any = weight) -> Any:
                result = (weight * weight * x).sum() * draw(device).sum()
                if is_wrong:
                    raise LookupError
                return result

            for step in range(STEPS):
                is_bad = step in (0, *BAD)
                if is_bad and leaves_out:
                    continue
                number = np.inf if is_bad and not raises else 0.25 + step
                try:
                    trainer.train_step(loss, np.array([0.5, number]), is_bad and raises)
                except LookupError:
                    assert is_bad
            assert (trainer.counts.replayed > 0) is capture
            found.append((weight.tolist(), KNOWN.state(), next_generator().state()))
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, SAM], ids=["SGD", "SAM"])
@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize("capture", [True, False])
def test_a_layer_made_in_a_recomputed_part(
    wrap: Callable[[Any], Any], is_kept: bool, capture: bool, device: Capturing
) -> None:
    """The second call makes it with the stream of the first one."""
    found: list[Any] = []
    for recomputes in (False, True):
        seed(1)
        weight = Parameter(np.ones(8, np.float32), name="weight", backend=device)
        trainer = Trainer(wrap(SGD([weight], 1e-4)), capture=capture)
        kept: list[nn.Dropout] = []

        def part(x: Tensor, kept: Any = kept, weight: Any = weight) -> Any:
            if is_kept and not kept:
                kept.append(nn.Dropout(0.25))
            return nn.Dropout(0.5)(kept[0](x) if is_kept else x) * weight

        def loss(x: Tensor, weight: Any = weight, part: Any = part, again: Any = recomputes) -> Any:
            for _ in range(2):
                x = nn.checkpoint(part, x * weight) if again else part(x * weight)
            return (x * x).sum()

        for _ in range(8):
            trainer.train_step(loss, np.ones(8, np.float32))
        found.append((weight.tolist(), next_generator().stream))
    assert found[0] == found[1]


def test_a_generator_of_each_step_costs_no_recording(gpu: GpuBackend) -> None:
    """Under "skip", too, where a device rewinds generators that steps have in common."""
    weight = Parameter([1.0, 2.0], name="weight", backend=gpu)
    trainer = Trainer(SGD([weight], 0.01, nonfinite="skip"))
    for _ in range(STEPS):
        trainer.train_step(lambda x: (weight * weight * x).sum() * made(gpu).sum(), np.ones(2))
    assert trainer.counts.recorded == 1


def test_streams_that_threads_take_differ() -> None:
    seed(1)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.extend(next_generator().stream for _ in range(200)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1600))
