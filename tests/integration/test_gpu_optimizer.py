"""Steps that a GPU applies or refuses on its own: their cost, and what the host learns of them."""

from __future__ import annotations

import gc
import re
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from rumus.gpu import Gpu, GpuBackend
from rumus.optim import SGD, Adam, AdamW, FusedOptimizer, ParameterGroup, clip_grad_norm
from rumus.tensor import (
    Backend,
    Expr,
    GradientStore,
    NonFiniteGradientError,
    NumpyBackend,
    Parameter,
    Tensor,
    move_parameters,
    tensor,
)

SHAPES: tuple[tuple[int, ...], ...] = ((3, 5), (70,), (1,), (), (4, 100))


@pytest.fixture(scope="module", params=["immediates", "uniforms"])
def gpu(request: pytest.FixtureRequest) -> GpuBackend:
    """The backend, with scalars passed directly and through a uniform buffer."""
    return GpuBackend(Gpu(immediates=request.param == "immediates"))


def parameters_on(
    backend: Backend, shapes: Sequence[tuple[int, ...]] = SHAPES, seed: int = 0
) -> list[Parameter]:
    draw = np.random.default_rng(seed)
    return [
        Parameter(draw.normal(size=shape), name=f"p{i}", backend=backend)
        for i, shape in enumerate(shapes)
    ]


def gradients(
    parameters: Sequence[Parameter], t: int, *, poison: float | None = None, at: int = 2
) -> GradientStore:
    """Random gradients, the same for the same t; one element of parameter `at` is `poison`."""
    draw, store = np.random.default_rng([7, t]), GradientStore()
    for number, parameter in enumerate(parameters):
        host = draw.normal(size=parameter.shape)
        if poison is not None and number == at:
            host = np.array(host)
            host.reshape(-1)[-1] = poison
        store.accumulate(parameter, tensor(host, backend=parameter.backend))
    return store


def values(parameters: Sequence[Parameter]) -> list[bytes]:
    return [parameter.numpy().tobytes() for parameter in parameters]


def two_groups(parameters: Sequence[Parameter], **options: Any) -> AdamW[Any]:
    groups = [ParameterGroup(parameters[:2]), ParameterGroup(parameters[2:], weight_decay=0.3)]
    return AdamW(groups, **options)


Change = Callable[[FusedOptimizer[Any], int], None]


def keep(optimizer: FusedOptimizer[Any], t: int) -> None:
    """Change nothing."""


def set_each_step(optimizer: FusedOptimizer[Any], t: int) -> None:
    optimizer.set(lr=0.1 / (optimizer_steps(t) + 1))


def optimizer_steps(t: int) -> int:
    return t % 5


SCHEDULES: dict[str, tuple[Any, Change]] = {
    "a number": (0.05, keep),
    "a schedule": (lambda t: 0.1 / t, keep),
    "set at each step": (0.05, set_each_step),
}


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize("bad", [{0}, {3, 4, 5}, {1, 70, 71, 139}, set(range(66))])
def test_skipped_steps_have_never_been(gpu: GpuBackend, name: str, bad: set[int]) -> None:
    """Bit for bit, over more steps than are sent to the device at once, without a read."""
    lr, change = SCHEDULES[name]
    here, there = parameters_on(gpu), parameters_on(gpu)
    run = two_groups(here, lr=lr, nonfinite="skip")
    good = two_groups(there, lr=lr, nonfinite="skip")
    read = gpu.stats.bytes_down
    for t in range(140):
        change(run, t)
        run.step(gradients(here, t, poison=np.nan if t in bad else None))
        if t not in bad:
            change(good, t)
            good.step(gradients(there, t))
    assert name == "a number" or gpu.stats.bytes_down - read < 4096  # the rows of a full table
    assert values(here) == values(there)
    assert (run.steps, run.skipped, run.blamed) == (140 - len(bad), len(bad), ("p2",))
    assert good.steps == run.steps
    first, second = run.state_dict(), good.state_dict()
    for key in first["parameters"]:
        for part, array in first["parameters"][key]["state"].items():
            assert array.tobytes() == second["parameters"][key]["state"][part].tobytes()


def test_a_step_reads_nothing_also_if_it_is_refused_or_clipped(gpu: GpuBackend) -> None:
    parameters = parameters_on(gpu)
    optimizer = two_groups(parameters, nonfinite="skip")
    optimizer.step(gradients(parameters, 0))
    norms: list[Tensor] = []
    read = gpu.stats.bytes_down
    for t in range(1, 9):
        store = gradients(parameters, t, poison=np.inf if t % 3 == 1 else None)
        before = gpu.stats.dispatches
        norms.append(clip_grad_norm(store, optimizer, 1.0))
        optimizer.step(store)
        # For each of two arenas: summing squares, scaling, checking, updating. For both: adding,
        # finding the factor, deciding.
        assert gpu.stats.dispatches - before == 2 * 4 + 3
    assert gpu.stats.bytes_down == read
    assert optimizer.skipped == 3
    assert [bool(np.isfinite(norm.numpy())) for norm in norms] == [t % 3 != 1 for t in range(1, 9)]


def test_clipping_is_that_of_the_cpu(gpu: GpuBackend) -> None:
    here, there = parameters_on(NumpyBackend()), parameters_on(gpu)
    for parameters in (here, there):
        optimizer = two_groups(parameters, lr=0.1)
        for t in range(5):
            store = gradients(parameters, t)
            clip_grad_norm(store, optimizer, 0.5 if t % 2 else 1e3)
            optimizer.step(store)
    for p, q in zip(here, there, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("later", [0, 1, 5, 70])
def test_raise_stops_everything_until_the_host_knows(gpu: GpuBackend, later: int) -> None:
    here, there = parameters_on(gpu), parameters_on(gpu)
    run, good = two_groups(here, lr=0.1), two_groups(there, lr=0.1)
    for t in range(3):
        run.step(gradients(here, t))
        good.step(gradients(there, t))

    def go_on() -> None:
        run.step(gradients(here, 3, poison=np.nan))
        for t in range(4, 4 + later):
            run.step(gradients(here, t))
        run.poll(wait=True)

    with pytest.raises(NonFiniteGradientError, match=r"of 'p2' hold"):
        go_on()
    assert values(here) == values(there)
    assert run.steps == 3
    for t in range(100, 103):
        run.step(gradients(here, t))
        good.step(gradients(there, t))
    assert values(here) == values(there)
    assert run.steps == good.steps == 6


READS: dict[str, Callable[[FusedOptimizer[Any], Tensor], object]] = {
    "a tensor": lambda optimizer, other: other.item(),
    "a parameter": lambda optimizer, other: optimizer.parameters[0].numpy(),
    "steps": lambda optimizer, other: optimizer.steps,
    "skipped": lambda optimizer, other: optimizer.skipped,
    "state_dict": lambda optimizer, other: optimizer.state_dict(),
    "release": lambda optimizer, other: optimizer.release(),
    "move": lambda optimizer, other: move_parameters(optimizer.parameters, NumpyBackend()),
}


@pytest.mark.parametrize("read", list(READS))
def test_whichever_learns_of_it_first_raises(gpu: GpuBackend, read: str) -> None:
    parameters, other = parameters_on(gpu), tensor([1.0], backend=gpu)
    optimizer = SGD(parameters, 0.1)
    before = values(parameters)
    optimizer.step(gradients(parameters, 0, poison=np.inf))
    with pytest.raises(NonFiniteGradientError, match="'p2'"):
        READS[read](optimizer, other)
    READS[read](optimizer, other)  # it is reported once
    assert values(parameters) == before


def test_a_later_step_raises_if_nobody_reads(gpu: GpuBackend) -> None:
    parameters = parameters_on(gpu)
    optimizer = SGD(parameters, 0.1)
    before = values(parameters)

    def go_on() -> None:
        for t in range(200):
            optimizer.step(gradients(parameters, t, poison=np.nan if t == 2 else None))

    optimizer.step(gradients(parameters, 0))
    after = values(parameters)
    assert after != before
    with pytest.raises(NonFiniteGradientError):
        go_on()


def test_nothing_is_checked_with_propagate(gpu: GpuBackend) -> None:
    parameters = parameters_on(gpu)
    optimizer = SGD(parameters, 0.1, nonfinite="propagate")
    store = gradients(parameters, 0, poison=np.nan)
    before = gpu.stats.dispatches
    optimizer.step(store)
    assert gpu.stats.dispatches - before == 1
    assert [bool(np.isnan(p.numpy()).any()) for p in parameters] == [i == 2 for i in range(5)]


def test_every_offending_parameter_is_named(gpu: GpuBackend) -> None:
    parameters = parameters_on(gpu, [(3,)] * 100)
    optimizer = two_groups(parameters, nonfinite="skip")
    store = gradients(parameters, 0)
    bad = [0, 1, 31, 32, 63, 99]
    for number in bad:
        host = np.array([0, np.nan, 0] if number % 2 else [np.inf, 0, 0], np.float32)
        store.accumulate(parameters[number], tensor(host, backend=gpu))
    optimizer.step(store)
    assert optimizer.blamed == tuple(f"p{number}" for number in bad)
    optimizer.step(gradients(parameters, 1, poison=np.nan, at=64))
    assert optimizer.blamed == ("p64",)


def test_many_optional_parameters(gpu: GpuBackend) -> None:
    """Each is its own section, and there are more than one dispatch can decide about."""
    here, there = parameters_on(NumpyBackend(), [(3,)] * 150), parameters_on(gpu, [(3,)] * 150)
    for parameters in (here, there):
        optimizer = Adam([ParameterGroup(parameters, optional=True)], 0.1, nonfinite="skip")
        for t in range(4):
            present = parameters[t::2]
            store = gradients(present, t, poison=np.nan if t == 2 else None)
            optimizer.step(store)
        assert (optimizer.steps, optimizer.skipped) == (3, 1)
        entries = optimizer.state_dict()["parameters"]
        assert [entries[f"p{i}"]["steps"] for i in (0, 1, 2, 149)] == [1, 1, 1, 2]
    for p, q in zip(here, there, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=1e-6)


def test_groups_on_two_backends(gpu: GpuBackend) -> None:
    """The host decides then, which reads."""
    here, there = parameters_on(NumpyBackend()), parameters_on(gpu, SHAPES[:2])
    there += parameters_on(NumpyBackend())[2:]
    mixed, plain = two_groups(there, nonfinite="skip"), two_groups(here, nonfinite="skip")
    for t in range(4):
        for optimizer, parameters in ((mixed, there), (plain, here)):
            store = gradients(parameters, t, poison=np.nan if t == 1 else None)
            if t != 1:
                clip_grad_norm(store, optimizer, 0.5)
            optimizer.step(store)
    assert (mixed.steps, mixed.skipped, mixed.blamed) == (3, 1, ("p2",))
    for p, q in zip(here, there, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=1e-6)


def test_moving_there_and_back_keeps_state_and_counts(gpu: GpuBackend) -> None:
    home = NumpyBackend()
    moved, still = parameters_on(home), parameters_on(home)
    run, good = two_groups(moved, nonfinite="skip"), two_groups(still, nonfinite="skip")
    for t in range(12):
        if t in (2, 5, 8):
            move_parameters(moved, home if t == 5 else gpu)
        poison = np.nan if t in (4, 9) else None
        run.step(gradients(moved, t, poison=poison))
        good.step(gradients(still, t, poison=poison))
    assert (run.steps, run.skipped) == (good.steps, good.skipped) == (10, 2)
    saved, wanted = run.state_dict()["parameters"], good.state_dict()["parameters"]
    for p, q in zip(moved, still, strict=True):
        assert p.backend is gpu
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=1e-6)
        for part, array in wanted[q.name]["state"].items():
            found = saved[p.name]["state"][part]
            np.testing.assert_allclose(found, array, rtol=1e-5, atol=1e-6)


def test_segments_step_together_or_not_at_all() -> None:
    gpu = GpuBackend(Gpu(max_array_bytes=2**14))
    shapes = [(30, 100), (20, 100), (7,), (40, 100), (3, 5)]
    parameters = parameters_on(gpu, shapes)
    optimizer = AdamW(parameters, 0.1, nonfinite="skip")
    assert [len(s.arena.parameters) for s in optimizer.segments] == [1, 2, 2]
    before = values(parameters)
    optimizer.step(gradients(parameters, 0, poison=np.nan, at=4))
    assert values(parameters) == before
    assert optimizer.blamed == ("p4",)
    store = gradients(parameters, 1)
    dispatches = gpu.stats.dispatches
    optimizer.step(store)
    assert gpu.stats.dispatches - dispatches == 2 * 3 + 1
    assert all(a != b for a, b in zip(values(parameters), before, strict=True))


def test_more_workgroups_than_a_row_of_the_grid_has(gpu: GpuBackend) -> None:
    size = 65_536 * 256 + 64
    wide = Parameter(np.zeros(size, np.float32), name="wide", backend=gpu)
    optimizer = SGD([wide], 1.0, nonfinite="skip")
    host = np.ones(size, np.float32)
    host[-1] = np.nan
    store = GradientStore()
    store.accumulate(wide, tensor(host, backend=gpu))
    optimizer.step(store)
    assert optimizer.blamed == ("wide",)
    assert not wide.numpy().any()
    host[-1] = 1.0
    store.accumulate(wide, tensor(host, backend=gpu))
    optimizer.step(store)
    assert (wide.numpy() == -1).all()


def test_a_rule_whose_scalars_overflow_float32(gpu: GpuBackend) -> None:
    def far(p: Expr, g: Expr, *, lr: Expr) -> dict[str, Expr]:
        return {"p": g.abs().minimum(lr * 1e200)}

    for backend in (NumpyBackend(), gpu):
        parameters = parameters_on(backend)
        before = values(parameters)
        with pytest.raises(ValueError, match="far: the scalars of step 1 are not finite in float"):
            FusedOptimizer(parameters, far, 1.0).step(gradients(parameters, 0))
        assert values(parameters) == before


def test_a_rule_without_scalars(gpu: GpuBackend) -> None:
    def follow(p: Expr, g: Expr) -> dict[str, Expr]:
        return {"p": p - g}

    def with_lr(p: Expr, g: Expr, *, lr: Expr) -> dict[str, Expr]:
        return follow(p, g)

    parameters = parameters_on(gpu)
    before = [p.numpy() for p in parameters]
    optimizer = FusedOptimizer(parameters, with_lr, 1.0)
    store = gradients(parameters, 0)
    moves = [store[p].numpy() for p in parameters]
    optimizer.step(store)
    for p, old, move in zip(parameters, before, moves, strict=True):
        assert (p.numpy() == old - move).all()


def test_a_deleted_optimizer_leaves_nothing_behind(gpu: GpuBackend) -> None:
    parameters = parameters_on(gpu)
    optimizer = Adam(parameters, 0.1)
    optimizer.step(gradients(parameters, 0))
    gone = weakref.ref(optimizer)
    kept = weakref.ref(optimizer.segments[0].state["m"])
    del optimizer
    assert gone() is None
    assert kept() is None
    gc.collect()
    assert parameters[0].owner is None
    assert np.isfinite(parameters[0].numpy()).all()  # a read no longer notifies anyone


def test_a_step_is_the_same_watched_and_with_gradients_elsewhere(gpu: GpuBackend) -> None:
    ways = parameters_on(gpu), parameters_on(gpu), parameters_on(gpu)
    usual, watched, elsewhere = map(two_groups, ways)
    for t in range(1, 4):
        usual.step(gradients(ways[0], t))
        with gpu.observe() as notes:
            watched.step(gradients(ways[1], t))
        seen = [each.pipeline.program.name for each in notes.dispatches]
        assert seen[-5:-2] == ["finite", "finite", "decide"]
        held = gradients(ways[2], 9)  # keeps the usual memory
        elsewhere.step(gradients(ways[2], t))
        assert len(held) == len(ways[2])
    assert values(ways[0]) == values(ways[1]) == values(ways[2])
    assert usual.steps == watched.steps == elsewhere.steps == 3


def test_schedules_are_evaluated_in_their_turn(gpu: GpuBackend) -> None:
    """One that fails at step 4 fails there, although scalars are computed in advance."""
    parameters = parameters_on(gpu)

    def schedule(t: int) -> float:
        if t == 4:
            raise ArithmeticError("no step four")
        return 0.1

    optimizer = AdamW(parameters, schedule)
    for t in range(3):
        optimizer.step(gradients(parameters, t))
    before, store = values(parameters), gradients(parameters, 3)
    with pytest.raises(ArithmeticError, match=re.escape("no step four")):
        optimizer.step(store)
    assert values(parameters) == before
    assert len(store) == len(parameters)
    assert optimizer.steps == 3


@pytest.mark.parametrize("how", ["function", "scaled", "set", "group", "there and back"])
def test_a_schedule_may_change_its_mind(gpu: GpuBackend, how: str) -> None:
    """For example one that depends on the validation loss: its scalars are sent again."""
    here, there = parameters_on(NumpyBackend()), parameters_on(gpu)
    for parameters in (here, there):
        lr = [0.1]
        group = ParameterGroup(parameters, lr_scale=0.5 if how == "scaled" else 1.0)
        is_asked = how in ("function", "scaled")
        optimizer = AdamW([group], (lambda t, lr=lr: lr[0]) if is_asked else lr[0])  # type: ignore[misc]
        for t in range(40):
            if t in (7, 8, 30):
                lr[0] *= 10.0 if how == "there and back" and t == 8 else 0.1
                if how == "group":
                    group.hyper["lr"] = lr[0]
                elif not is_asked:
                    optimizer.set(lr=lr[0])
            optimizer.step(gradients(parameters, t))
    for p, q in zip(here, there, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=1e-5)


def test_threads_that_read_while_another_steps(gpu: GpuBackend) -> None:
    here, there = parameters_on(gpu), parameters_on(gpu)
    run = two_groups(here, lr=0.1, nonfinite="skip")
    good = two_groups(there, lr=0.1, nonfinite="skip")
    other, stop = tensor([1.0], backend=gpu), threading.Event()

    def read() -> None:
        while not stop.is_set():
            other.item()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for t in range(60):
            run.step(gradients(here, t, poison=np.nan if t % 7 == 3 else None))
    finally:
        stop.set()
        reader.join()
    for t in range(60):
        if t % 7 != 3:
            good.step(gradients(there, t))
    assert values(here) == values(there)
    assert run.skipped == sum(t % 7 == 3 for t in range(60))
