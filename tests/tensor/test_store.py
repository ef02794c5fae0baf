"""`GradientStore`: it accumulates, shows and drains; failures leave it unchanged."""

from __future__ import annotations

from collections.abc import Callable
from operator import iadd, imul, isub, itruediv
from typing import Any

import numpy as np
import pytest

from rumus.tensor import (
    Arena,
    Backend,
    DrainedGradientError,
    GradientMismatchError,
    GradientStore,
    MissingGradientError,
    NumpyBackend,
    Parameter,
    UnclaimedGradientError,
    float32,
    float64,
    no_grad,
    ones,
    tensor,
)

Pair = tuple[Parameter, Parameter]


@pytest.fixture
def pair(backend: Backend) -> Pair:
    return (
        Parameter([1.0, 2.0], name="first", backend=backend),
        Parameter([[3.0]], name="second", backend=backend),
    )


def both(pair: Pair) -> GradientStore:
    return ((pair[0] ** 2).sum() + pair[1].sum() * 5).backward()


def bits(store: GradientStore) -> dict[str, bytes]:
    return {p.name: store[p].numpy().tobytes() for p in store}


def test_it_shows_what_it_holds(pair: Pair) -> None:
    store = both(pair)
    assert len(store) == 2
    assert {p.name for p in store} == {"first", "second"}
    assert pair[0] in store
    assert Parameter([1.0, 2.0]) not in store
    assert "first" not in store
    assert store[pair[0]].tolist() == [2.0, 4.0]
    assert repr(pair[0].sum().backward()) == "GradientStore(first)"


def test_what_it_shows_is_a_copy(pair: Pair) -> None:
    store = both(pair)
    store[pair[0]].assign(9.0)
    assert store[pair[0]].tolist() == [2.0, 4.0]


def test_take_removes_and_says_so_later(pair: Pair) -> None:
    store = both(pair)
    assert store.take(pair[0], by="SGD").tolist() == [2.0, 4.0]
    assert len(store) == 1
    with pytest.raises(DrainedGradientError, match=r"'first' was already drained .* by SGD"):
        store.take(pair[0])
    store.accumulate(pair[0], ones((2,), backend=pair[0].backend))
    assert store[pair[0]].tolist() == [1.0, 1.0]


def test_drain_takes_all_or_nothing(pair: Pair) -> None:
    store = pair[0].sum().backward()
    before = bits(store)
    with pytest.raises(MissingGradientError, match="'second' has no gradient in this store"):
        store.drain(pair, by="SGD")
    assert bits(store) == before
    store.drain([pair[0], pair[0]], by="SGD")
    assert len(store) == 0


def test_the_message_for_a_frozen_parameter_says_so(pair: Pair) -> None:
    pair[1].requires_grad = False
    store = both(pair)
    with pytest.raises(MissingGradientError, match="its requires_grad is False"):
        store.array(pair[1])


def test_accumulate_copies_and_adds(pair: Pair) -> None:
    store, gradient = GradientStore(), ones((2,), backend=pair[0].backend)
    store.accumulate(pair[0], gradient)
    gradient.assign(7.0)
    assert store[pair[0]].tolist() == [1.0, 1.0]
    store.accumulate(pair[0], gradient)
    assert store[pair[0]].tolist() == [8.0, 8.0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda b: ones((3,), backend=b), r"'first' has shape \(3,\), the parameter has \(2,\)"),
        (lambda b: ones((2,), dtype=np.float16, backend=b), "has dtype float16"),
        (lambda b: ones((2,), backend=NumpyBackend()), "has backend NumpyBackend"),
    ],
)
def test_accumulate_refuses_misfits(
    wrong: Callable[[Backend], object], message: str, pair: Pair
) -> None:
    store = both(pair)
    before = bits(store)
    with pytest.raises(GradientMismatchError, match=message):
        store.accumulate(pair[0], wrong(pair[0].backend))  # type: ignore[arg-type]
    assert bits(store) == before


def test_a_block_refuses_to_end_with_gradients_left(pair: Pair) -> None:
    left = pytest.raises(UnclaimedGradientError, match=r"1 gradients are left .* 'second'")
    with left, both(pair) as store:
        store.take(pair[0])
    with both(pair) as store:
        store.drain(pair, by="test")


def test_a_block_does_not_hide_another_error(pair: Pair) -> None:
    with pytest.raises(ZeroDivisionError), both(pair):
        raise ZeroDivisionError


def test_backward_into_a_store_adds(pair: Pair) -> None:
    store = both(pair)
    assert (pair[0].sum() * 10).backward(into=store) is store
    assert store[pair[0]].tolist() == [12.0, 14.0]
    assert store[pair[1]].tolist() == [[5.0]]


# Arenas


@pytest.fixture
def arena(pair: Pair) -> Arena:
    arena = Arena(pair, float32, pair[0].backend)
    arena.adopt()
    return arena


def test_adopted_parameters_keep_their_elements(pair: Pair, arena: Arena) -> None:
    assert [p.tolist() for p in pair] == [[1.0, 2.0], [[3.0]]]
    assert arena.size == 128
    assert [slot.start for slot in arena.slots] == [0, 64]
    flat = arena.backend.download(arena.values)
    assert flat[[0, 1, 64]].tolist() == [1.0, 2.0, 3.0]
    assert flat.sum() == 6.0  # 0 between the slots


def test_backward_writes_into_the_arena(pair: Pair, arena: Arena) -> None:
    store = both(pair)
    collected = arena.collect(store)
    assert collected is arena.gradients
    assert arena.backend.download(collected)[[0, 1, 64]].tolist() == [2.0, 4.0, 5.0]


def test_a_tied_parameter_accumulates_in_its_slot(pair: Pair, arena: Arena) -> None:
    store = (pair[0] * pair[0] + pair[0].exp() * 0 + pair[0] + pair[1]).sum().backward()
    assert arena.collect(store) is arena.gradients
    assert store[pair[0]].tolist() == [3.0, 5.0]


def test_two_live_stores_do_not_disturb_one_another(pair: Pair, arena: Arena) -> None:
    first = both(pair)
    second = (pair[0].sum() * 7 + pair[1].sum()).backward()
    (pair[0].sum() * 100).backward(into=second)
    assert first[pair[0]].tolist() == [2.0, 4.0]
    assert second[pair[0]].tolist() == [107.0, 107.0]
    copied = arena.collect(second)
    assert copied is not arena.gradients
    assert arena.backend.download(copied)[[0, 1, 64]].tolist() == [107.0, 107.0, 1.0]
    first.drain(pair, by="test")
    third = both(pair)
    assert arena.collect(third) is arena.gradients
    assert second[pair[0]].tolist() == [107.0, 107.0]


def test_a_dropped_store_gives_its_memory_back(pair: Pair, arena: Arena) -> None:
    for _ in range(3):
        store = both(pair)
        assert arena.collect(store) is arena.gradients
        del store


def test_collect_needs_every_gradient(pair: Pair, arena: Arena) -> None:
    with pytest.raises(MissingGradientError, match="'second'"):
        arena.collect(pair[0].sum().backward())


def test_release_keeps_elements_and_frees_the_slots(pair: Pair, arena: Arena) -> None:
    arena.release()
    assert pair[0].tolist() == [1.0, 2.0]
    assert both(pair)[pair[0]].tolist() == [2.0, 4.0]
    again = Arena(pair, float32, pair[0].backend)
    again.adopt()
    arena.release()  # nothing about gradients it no longer holds
    assert again.collect(both(pair)) is again.gradients


def test_parts_of_an_arena(pair: Pair, arena: Arena) -> None:
    assert [arena.at(i).name for i in (0, 1, 64)] == ["first", "first", "second"]
    with pytest.raises(IndexError, match="between the parameters"):
        arena.at(2)
    assert [view.shape for view in arena.views(arena.zeros())] == [(2,), (1, 1)]


def test_an_arena_takes_parameters_from_another_backend() -> None:
    here, there = NumpyBackend(), NumpyBackend()
    parameter = Parameter([1.0, 2.0], dtype=float64, backend=here)
    Arena([parameter], float64, there).adopt()
    assert parameter.backend is there
    assert (parameter * tensor([3.0, 4.0], backend=there)).tolist() == [3.0, 8.0]


def test_only_a_parameter_is_missing_a_gradient() -> None:
    grads = GradientStore()
    for wrong in (3, "weight", [Parameter([1.0])]):
        with pytest.raises(TypeError, match=r"as grads\[model.weight\], not by"):
            grads.missing(wrong)  # type: ignore[arg-type]
    wrong_arena: Any
    for wrong_arena in ([3], [tensor([1.0])]):
        with pytest.raises(TypeError, match="Arena takes parameters, not"):
            Arena(wrong_arena, float64, NumpyBackend())


def test_an_update_by_hand_that_changes_nothing_is_told_of() -> None:
    """p -= x gives the name to a new tensor, and leaves the parameter."""
    weight, x = Parameter([1.0], name="weight"), tensor([2.0])
    with no_grad():
        acts: Any = (iadd, isub, imul, itruediv)
        for act in acts:
            with pytest.warns(UserWarning, match=r"leaves parameter 'weight' as it is; p.assign"):
                act(weight, x)
        assert acts[0](weight, tensor([[1.0], [2.0]])).shape == (2, 1)
    assert weight.tolist() == [1.0]
    assert acts[0](weight, x).sum().backward()[weight].tolist() == [1.0]
    frozen = Parameter([1.0], requires_grad=False)
    with no_grad():
        assert acts[0](frozen, x).tolist() == [3.0]


def test_a_store_becomes_a_dict() -> None:
    """A parameter of two elements was taken for a pair: its first one had its second one."""
    p, q = Parameter([3.0, 4.0], name="p"), Parameter([1.0], name="q")
    grads = ((p * p).sum() + q.sum()).backward()
    for found in (dict(grads), {**grads}, dict(grads.items())):
        assert set(found) == {p, q}
        assert found[p].tolist() == [6.0, 8.0]
    assert set(grads.keys()) == {p, q}
    values, items = grads.values(), grads.items()
    for _ in range(2):  # an iterator would give nothing in the second loop
        assert len(list(values)) == len(list(items)) == len(values) == len(items) == 2
    with pytest.raises(TypeError, match=r"grads\.take\(parameter\) removes and returns it"):
        del grads[p]
    assert sorted(g.tolist() for g in grads.values()) == [[1.0], [6.0, 8.0]]
    found[p].assign(0.0)
    assert grads[p].tolist() == [6.0, 8.0]


def test_a_missing_gradient_beside_those_of_nobody() -> None:
    p = Parameter([1.0], name="p")
    strange = [Parameter([1.0], name=f"s{i}") for i in range(5)]
    grads = sum((s.sum() for s in strange[1:]), strange[0].sum()).backward()
    with pytest.raises(MissingGradientError, match=r"on parameter 's\d' \(1,\), .* and 2 others, "):
        grads[p]
