"""Adafactor: the state it keeps for a tensor, and that nothing else persists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.optim import Adafactor, AdamW, Lookahead, ParameterGroup
from rumus.tensor import (
    Backend,
    GradientStore,
    NumpyBackend,
    Parameter,
    StateMismatchError,
    float64,
    move_parameters,
    tensor,
)

SHAPES: Final = ((3, 5), (), (65,), (2, 3, 4), (7, 9), (1, 4), (4, 1), (2, 2, 3, 3), (1,))


def made(backend: Backend, shapes: Sequence[tuple[int, ...]] = SHAPES) -> list[Parameter]:
    draw = np.random.default_rng(3)
    return [
        Parameter(draw.normal(size=shape).astype(np.float32), name=f"p{n}", backend=backend)
        for n, shape in enumerate(shapes)
    ]


def stepped(
    optimizer: Any, parameters: Sequence[Parameter], t: int, bad: float = 0.0, victim: int = 0
) -> None:
    """A step with random gradients; `bad` is added to one element of one of them."""
    draw = np.random.default_rng(t)
    store = GradientStore()
    for n, p in enumerate(parameters):
        gradient: NDArray[Any] = np.asarray(draw.normal(size=p.shape), np.float32)
        if n == victim:
            gradient[(0,) * p.ndim] += np.float32(bad)
        store.accumulate(p, tensor(gradient, backend=p.backend))
    optimizer.step(store)


def bits(optimizer: Any, parameters: Sequence[Parameter]) -> list[Any]:
    entries = optimizer.state_dict()["parameters"].values()
    arrays = [a for entry in entries for a in entry["state"].values()]
    return [(a.shape, a.tobytes()) for a in [*(p.numpy() for p in parameters), *arrays]]


def test_the_saved_state_of_a_tensor(backend: Backend) -> None:
    """One number for each row and column; all elements of a tensor with one axis."""
    parameters = made(backend)
    optimizer = Adafactor(parameters)
    stepped(optimizer, parameters, 0)
    entries = optimizer.state_dict()["parameters"]
    shapes = [{k: a.shape for k, a in entries[p.name]["state"].items()} for p in parameters]
    assert shapes[:4] == [
        {"R": (3,), "C": (5,)},
        {"v": ()},
        {"v": (65,)},
        {"R": (2, 3), "C": (2, 4)},
    ]
    assert shapes[7] == {"R": (2, 2, 3), "C": (2, 2, 3)}
    draw = np.random.default_rng(0)
    g = draw.normal(size=(3, 5)).astype(np.float32).astype(np.float64)
    found = entries["p0"]["state"]
    np.testing.assert_allclose(found["R"], (g * g).mean(1), rtol=1e-6)
    np.testing.assert_allclose(found["C"], (g * g).mean(0), rtol=1e-6)


def test_other_tensors_do_not_matter(backend: Backend) -> None:
    together, apart = made(backend), made(backend)
    first, second = Adafactor(together), Adafactor([ParameterGroup([p]) for p in reversed(apart)])
    for t in range(3):
        stepped(first, together, t)
        stepped(second, apart, t)
    for p, q in zip(together, apart, strict=True):
        assert p.numpy().tobytes() == q.numpy().tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_refused_step_leaves_no_trace(value: float, backend: Backend) -> None:
    """Whichever tensor has the bad gradient."""
    for victim in (0, 2, 3):
        found = []
        for is_poisoned in (False, True):
            parameters = made(backend)
            optimizer = Adafactor(parameters, nonfinite="skip")
            for t in range(4):
                stepped(optimizer, parameters, t)
                if is_poisoned:
                    stepped(optimizer, parameters, 9, value, victim)
            if is_poisoned:
                assert optimizer.blamed == (f"p{victim}",)
            found.append((bits(optimizer, parameters), optimizer.steps))
        assert found[0] == found[1]


def test_propagate_computes_the_same(backend: Backend) -> None:
    """The host issues the commands then, also for a GPU."""
    checked, unchecked = made(backend), made(backend)
    first, second = Adafactor(checked, 0.1), Adafactor(unchecked, 0.1, nonfinite="propagate")
    for t in range(3):
        stepped(first, checked, t)
        stepped(second, unchecked, t)
    for p, q in zip(checked, unchecked, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-6, atol=1e-7)


def test_tensors_without_elements(backend: Backend) -> None:
    parameters = made(backend, ((3, 2), (0, 4), (2,), (3, 0)))
    before = [p.numpy().tobytes() for p in parameters]
    planned = Adafactor.planned_memory(parameters)
    optimizer = Adafactor(parameters)
    stepped(optimizer, parameters, 0)
    after = [p.numpy().tobytes() for p in parameters]
    assert [a != b for a, b in zip(before, after, strict=True)] == [True, False, True, False]
    assert optimizer.memory() == planned


def test_memory_is_as_planned_and_small(backend: Backend) -> None:
    parameters = made(backend, (*SHAPES, (3, 200), (200, 300)))
    planned = Adafactor.planned_memory([ParameterGroup([p], optional=True) for p in parameters])
    assert planned.parameters == Adafactor.planned_memory(parameters).parameters
    planned = Adafactor.planned_memory(parameters)
    assert Adafactor(parameters).memory() == planned
    layers = [Parameter(np.zeros((256, 256), np.float32)) for _ in range(8)]
    adam = AdamW.planned_memory(layers)
    assert Adafactor.planned_memory(layers).state < adam.state / 8  # the size of a layer and a bit


def test_float64_is_computed_in_float64() -> None:
    w = Parameter(np.full((2, 3), 1 + 1e-9), name="w", dtype=float64, backend=NumpyBackend())
    optimizer = Adafactor([w], 0.5)
    optimizer.step((w * w).sum().backward())
    np.testing.assert_allclose(w.numpy(), (1 + 1e-9) / 2, rtol=1e-15)
    assert optimizer.state_dict()["parameters"]["w"]["state"]["R"].dtype == np.float64


def test_moving_and_loading_continue_bit_for_bit(backend: Backend) -> None:
    still, moved, loaded = (made(backend) for _ in range(3))
    first, second, third = (Adafactor(parameters) for parameters in (still, moved, loaded))
    for t in range(2):
        stepped(first, still, t)
        stepped(second, moved, t)
    move_parameters(moved, NumpyBackend())
    move_parameters(moved, backend)
    for p, q in zip(still, loaded, strict=True):
        q.assign(p.numpy())
    third.load_state_dict(first.state_dict())
    for t in range(2, 4):
        for optimizer, parameters in ((first, still), (second, moved), (third, loaded)):
            stepped(optimizer, parameters, t)
    assert bits(first, still) == bits(second, moved) == bits(third, loaded)


def test_a_state_that_does_not_fit_lists_every_difference(backend: Backend) -> None:
    parameters = made(backend, ((3, 5), (4,)))
    optimizer = Adafactor(parameters)
    stepped(optimizer, parameters, 0)
    before = bits(optimizer, parameters)
    state = optimizer.state_dict()
    state["parameters"]["p0"]["state"]["R"] = np.zeros((3, 5), np.float32)
    state["parameters"]["p0"]["state"]["C"] = np.zeros(5, np.float64)
    state["parameters"]["p1"]["state"] = {"R": np.zeros(4, np.float32)}
    with pytest.raises(StateMismatchError) as caught:
        optimizer.load_state_dict(state)
    for part in (
        "'R' is float32 of shape (3, 5)",
        "'C' is float64, here",
        "saved state ['R'], here",
    ):
        assert part in str(caught.value)
    assert bits(optimizer, parameters) == before


def test_a_missing_gradient_leaves_an_optional_tensor_alone(backend: Backend) -> None:
    w, u = made(backend, ((3, 5), (4, 2)))
    optimizer = Adafactor([ParameterGroup([w], optional=True), ParameterGroup([u])])
    before = w.numpy().tobytes()
    optimizer.step((u * u).sum().backward())
    assert w.numpy().tobytes() == before
    optimizer.step((w * w).sum().backward(into=(u * u).sum().backward()))
    entries = optimizer.state_dict()["parameters"]
    assert [entries[name]["steps"] for name in ("p0", "p1")] == [1, 2]
    assert w.numpy().tobytes() != before


def test_groups_and_schedules(backend: Backend) -> None:
    """Each tensor as if it were alone, with its group's options."""
    together, apart = made(backend, ((3, 5), (4, 2))), made(backend, ((3, 5), (4, 2)))
    options: Sequence[dict[str, Any]] = (
        {"lr": lambda t: 0.1 / t, "eps2": 0.5},
        {"lr": 0.3, "d": lambda t: 1 + 1 / t, "weight_decay": 0.1, "beta2_decay": -0.5},
    )
    groups = [ParameterGroup([p], **own) for p, own in zip(together, options, strict=True)]
    first = Adafactor(groups)
    others = [Adafactor([ParameterGroup([p], **o)]) for p, o in zip(apart, options, strict=True)]
    for t in range(4):
        stepped(first, together, t)
        draw = np.random.default_rng(t)
        for p, other in zip(apart, others, strict=True):
            store = GradientStore()
            gradient = np.asarray(draw.normal(size=p.shape), np.float32)
            store.accumulate(p, tensor(gradient, backend=backend))
            other.step(store)
    for p, q in zip(together, apart, strict=True):
        assert p.numpy().tobytes() == q.numpy().tobytes()


def test_bad_options_claim_nothing() -> None:
    w = Parameter([1.0], name="w")
    for options, message in (
        ({"d": 0.5}, "d must be at least 1, not 0.5"),
        ({"beta2_decay": 0.1}, "beta2_decay"),
        ({"eps": (-1.0, 1e-3)}, "eps1"),
        ({"eps": (None, -1e-3)}, "eps2"),
        ({"lr": -1.0}, "lr"),
    ):
        with pytest.raises(ValueError, match=message):
            Adafactor([w], **options)
    assert w.owner is None
    with pytest.raises(ValueError, match="d must be at least 1"):
        Adafactor([ParameterGroup([w], d=0.0)])


def test_it_can_be_wrapped(backend: Backend) -> None:
    parameters = made(backend, ((3, 5), (4,)))
    optimizer = Lookahead(Adafactor(parameters, 0.1), k=2, alpha=0.5)
    for t in range(4):
        stepped(optimizer, parameters, t)
    assert all(np.isfinite(p.numpy()).all() for p in parameters)
    parts = optimizer.state_dict()["parameters"]["p0"]["state"]
    assert {"R", "C"} < set(parts)


def test_a_gradient_of_0_with_a_tiny_eps(backend: Backend) -> None:
    """The square of eps1 underflows in float32, or is flushed to 0 by an update."""
    for eps1 in (1e-20, 1e-30):
        optimizer = Adafactor(made(backend), lr=0.1, eps=(eps1, 1e-2))
        zero = [(p * 0.0).sum() for p in optimizer.parameters]
        optimizer.step(sum(zero[1:], zero[0]).backward())
        assert all(np.isfinite(p.numpy()).all() for p in optimizer.parameters)
        optimizer.release()
